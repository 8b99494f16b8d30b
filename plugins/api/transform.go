package api

import "time"

// Transform is a named transform: a digest and settings.
type Transform struct {
	Name string `json:"name"`
	Type string `json:"type"` // wasm, spec or python
	// Code is the module or the specification, on the way to the server only.
	// FromObject instead names an object that is it, as shoal://b/upper.wasm.
	Code        []byte            `json:"code,omitempty"`
	FromObject  string            `json:"from_object,omitempty"`
	Digest      string            `json:"digest,omitempty"`
	Size        int64             `json:"size,omitempty"`  // of the code, in bytes
	ABI         string            `json:"abi,omitempty"`   // wasi or shoal_v1
	State       string            `json:"state,omitempty"` // running or stopped
	Memory      int64             `json:"memory,omitempty"`
	Timeout     string            `json:"timeout,omitempty"` // a duration
	Args        []string          `json:"args,omitempty"`
	Env         map[string]string `json:"env,omitempty"`
	Ext         map[string]string `json:"ext,omitempty"`
	ContentType string            `json:"content_type,omitempty"`
	Scope       string            `json:"scope,omitempty"`     // object, member or line
	Isolation   string            `json:"isolation,omitempty"` // pooled or fresh
	Created     *time.Time        `json:"created,omitempty"`
	// Calls and Errors count what the nodes have done with it since their starts;
	// Stats say more. All are of this digest with these settings.
	Calls  int64           `json:"calls,omitempty"`
	Errors int64           `json:"errors,omitempty"`
	Stats  *TransformStats `json:"stats,omitempty"`
	// Smoke is how it took an empty object, in the answer to its registration.
	Smoke *TransformSmoke `json:"smoke,omitempty"`
}

// TransformSmoke is how a smoke run ended: done, dropped or failed. A transform
// may be right to refuse an empty object; one that breaks down is not registered.
type TransformSmoke struct {
	Outcome string `json:"outcome"`
	Message string `json:"message,omitempty"`
	Log     string `json:"log,omitempty"`
}

// TransformStats is what the nodes have done with a transform since their starts.
type TransformStats struct {
	Done    int64 `json:"done"`
	Dropped int64 `json:"dropped"`
	Failed  int64 `json:"failed"`
	// Broken counts calls that ended for another's sake: a client that went away,
	// a source or a destination that failed.
	Broken     int64            `json:"broken"`
	Failures   map[string]int64 `json:"failures,omitempty"` // by class
	BytesIn    int64            `json:"bytes_in"`
	BytesOut   int64            `json:"bytes_out"`
	Outputs    int64            `json:"outputs"`
	PoolHits   int64            `json:"pool_hits"`
	PeakMemory int64            `json:"peak_memory"`
	// Seconds of calls in all: from start to end, without waiting, and in the
	// queue before. The quantiles are of the node where they are highest.
	WallSeconds   float64 `json:"wall_seconds"`
	CPUSeconds    float64 `json:"cpu_seconds"`
	QueuedSeconds float64 `json:"queued_seconds"`
	WallP50       float64 `json:"wall_p50"`
	WallP99       float64 `json:"wall_p99"`
	CPUP50        float64 `json:"cpu_p50"`
	CPUP99        float64 `json:"cpu_p99"`
	// Nodes are those that have it ready now, StoppedOn those that have stopped it
	// because it failed too often in a row.
	Nodes     []string `json:"nodes,omitempty"`
	StoppedOn []string `json:"stopped_on,omitempty"`
}

// Transforms is the answer to a listing, in order of name.
type Transforms struct {
	Transforms []Transform `json:"transforms"`
}

// TransformLogs are the last lines that a transform wrote, by node.
type TransformLogs struct {
	Lines []TransformLog `json:"lines"`
}

// TransformLog is a line of a transform's log.
type TransformLog struct {
	Time   time.Time `json:"time"`
	Node   string    `json:"node"`
	Object string    `json:"object"`
	Text   string    `json:"text"`
}
