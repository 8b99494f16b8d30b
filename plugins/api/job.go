package api

import (
	"time"

	"github.com/shoalstore/shoal/core"
)

// JobState is where a job is in its life.
type JobState string

// The states of a job.
const (
	JobPending   JobState = "pending"
	JobPlanning  JobState = "planning"
	JobRunning   JobState = "running"
	JobWaiting   JobState = "waiting"
	JobVerifying JobState = "verifying"
	JobDone      JobState = "done"
	JobFailed    JobState = "failed"
	JobStopped   JobState = "stopped"
)

// Ended says whether the state is final.
func (s JobState) Ended() bool { return s == JobDone || s == JobFailed || s == JobStopped }

// JobSpec asks for a job. Which fields matter depends on Kind; see [JobKind].
type JobSpec struct {
	Kind string `json:"kind"`
	// From and To are URIs of buckets, for some kinds with a key or prefix.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// Args are the further arguments of the kind, by the names that
	// [JobKind.Args] gives.
	Args map[string]string `json:"args,omitempty"`
	// ClientToken makes a repeated start return the job that is there.
	ClientToken string `json:"client_token,omitempty"`

	// All includes what is not present in the cluster.
	All bool `json:"all,omitempty"`
	// Prefix, List, Template and Regex select keys; all empty is every key.
	Prefix   string   `json:"prefix,omitempty"`
	List     []string `json:"list,omitempty"`
	Template string   `json:"template,omitempty"`
	Regex    string   `json:"regex,omitempty"`
	// Latest checks remote versions; Sync also follows deletions.
	Latest bool `json:"latest,omitempty"`
	Sync   bool `json:"sync,omitempty"`
	// NoCache, of copies, keeps nothing of remote buckets in the cluster.
	NoCache bool `json:"no_cache,omitempty"`
	// Prepend goes before every destination key; Ext replaces extensions.
	Prepend string            `json:"prepend,omitempty"`
	Ext     map[string]string `json:"ext,omitempty"`
	// Create makes a remote destination that does not exist.
	Create bool `json:"create,omitempty"`
	// DryRun only counts what the job would work on.
	DryRun     bool      `json:"dry_run,omitempty"`
	NumWorkers int       `json:"num_workers,omitempty"` // for each disk
	RateLimit  RateLimit `json:"rate_limit,omitzero"`
	// ContinueOnError goes on after a failed object instead of ending the job.
	ContinueOnError bool `json:"cont_on_err,omitempty"`
	// KeepMetadata, of evictions, keeps the bucket's properties.
	KeepMetadata bool `json:"keep_md,omitempty"`
	// UnavailableTimeout, a duration, is how long data without a reachable
	// copy is waited for; "" is for ever.
	UnavailableTimeout string `json:"unavailable_timeout,omitempty"`
}

// RateLimit bounds a job in the whole cluster; zero is no bound.
type RateLimit struct {
	Objects float64 `json:"objects,omitempty"` // per second
	Bytes   int64   `json:"bytes,omitempty"`   // per second
}

// Job is a job and its books: planned = done + skipped + failed + dropped when it
// has ended; a dry run only has planned.
type Job struct {
	ID    string   `json:"id"`
	Kind  string   `json:"kind"`
	State JobState `json:"state"`
	From  string   `json:"from"`
	To    string   `json:"to"`
	// Planned is nil until it is known.
	Planned *Amount `json:"planned"`
	// Found is what a job over a remote's listing has found so far, until Planned is
	// known.
	Found *Amount `json:"found,omitempty"`
	// Done counts source objects all of whose outputs are written.
	Done    Amount     `json:"done"`
	Skipped Amount     `json:"skipped"`
	Failed  Amount     `json:"failed"`
	Dropped Amount     `json:"dropped"`
	Outputs Amount     `json:"outputs"`
	Started *time.Time `json:"started"`
	Ended   *time.Time `json:"ended"`
	// Rate is per second, over the last seconds.
	Rate Rate `json:"rate"`
	// ETA is when the job is expected to end; nil if that is not known.
	ETA *time.Time `json:"eta"`

	// DryRun says that the job only plans.
	DryRun bool `json:"dry_run,omitempty"`
	// RetryOf is the job whose failed objects this one is about.
	RetryOf string `json:"retry_of,omitempty"`
	// WaitingFor names, in state waiting, what must come back.
	WaitingFor []string `json:"waiting_for,omitempty"`
	// Listers are the nodes that list what a running job is about, and hand it out to
	// all; only of jobs over what a remote lists.
	Listers []core.NodeID `json:"listers,omitempty"`
	// Message says why the job failed or who stopped it.
	Message string `json:"message,omitempty"`
	// Cloud is what the job has cost at remote backends.
	Cloud *CloudUse `json:"cloud,omitempty"`
	Spec  *JobSpec  `json:"spec,omitempty"`
}

// Rate is objects and bytes per second.
type Rate struct {
	Objects float64 `json:"objects"`
	Bytes   float64 `json:"bytes"`
}

// CloudUse counts traffic with remote backends.
type CloudUse struct {
	Requests int64 `json:"requests"`
	BytesIn  int64 `json:"bytes_in"`
	BytesOut int64 `json:"bytes_out"`
}

// Jobs is the answer to a listing of jobs, newest first.
type Jobs struct {
	Jobs []Job `json:"jobs"`
}

// JobError says why an object failed or was skipped.
type JobError struct {
	Key     string `json:"key"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// JobErrors is a page of failures in order of key. More says that there are
// others above the last key.
type JobErrors struct {
	Errors []JobError `json:"errors"`
	More   bool       `json:"more"`
}

// JobKind describes a kind of job that this version can start.
type JobKind struct {
	Kind    string `json:"kind"`
	Summary string `json:"summary"`
	// Args are the positional arguments of `shoal start KIND`.
	Args []JobArg `json:"args"`
}

// JobArg is a positional argument: From and To are the fields of [JobSpec],
// other names go to Args.
type JobArg struct {
	Name string `json:"name"`
	// Type is what completes it: bucket, node, disk, job, transform or text.
	Type     string `json:"type"`
	Optional bool   `json:"optional,omitempty"`
}

// The names of the arguments that are fields of [JobSpec].
const (
	ArgFrom = "from"
	ArgTo   = "to"
)

// JobKinds are the kinds that can be started, in order of name.
type JobKinds struct {
	Kinds []JobKind `json:"kinds"`
}

// Preview is what a job that transforms would make of the first objects that it would
// be about.
type Preview struct {
	Objects []PreviewObject `json:"objects"`
	More    bool            `json:"more"` // there are other objects
}

// PreviewObject is what a transform would make of an object: outputs, nothing
// (Dropped), or an error.
type PreviewObject struct {
	Name    string          `json:"name"`
	Size    int64           `json:"size"` // -1 if it is not known
	Outputs []PreviewOutput `json:"outputs"`
	// More outputs are there that are not listed.
	More int `json:"more,omitempty"`
	// Head is the beginning of the first output: as text, or in HeadBase64 if it is
	// none.
	Head       string    `json:"head,omitempty"`
	HeadBase64 []byte    `json:"head_base64,omitempty"`
	Dropped    bool      `json:"dropped,omitempty"`
	Error      *JobError `json:"error,omitempty"`
}

// PreviewOutput is an object that would be written.
type PreviewOutput struct {
	Name        string `json:"name"`
	Size        int64  `json:"size"`
	ContentType string `json:"content_type,omitempty"`
}
