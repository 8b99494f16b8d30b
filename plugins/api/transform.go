package api

import "time"

// Transform is a named transform: a digest and settings.
type Transform struct {
	Name string `json:"name"`
	Type string `json:"type"` // wasm, spec or python
	// Code is the module or the specification, on the way to the server only.
	Code        []byte            `json:"code,omitempty"`
	Digest      string            `json:"digest,omitempty"`
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
	Calls       int64             `json:"calls,omitempty"`
	Errors      int64             `json:"errors,omitempty"`
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
