package api

import (
	"time"

	"github.com/shoalstore/shoal/core"
)

// Bucket is a bucket of the cluster, or a remote one that it could use.
type Bucket struct {
	URI      string        `json:"uri"`
	Provider core.Provider `json:"provider"`
	Name     string        `json:"name"`
	// Alias is the bucket's name for S3 clients; "" as long as a remote
	// bucket is not known to the cluster.
	Alias string           `json:"alias"`
	State core.BucketState `json:"state"`
	Props *core.Policy     `json:"props"`
	// Remote is how a remote bucket is reached, as far as it says otherwise than
	// the servers' configuration.
	Remote  *core.RemoteSettings `json:"remote,omitempty"`
	Created *time.Time           `json:"created"`
}

// Known says whether the bucket is in the cluster's table.
func (b Bucket) Known() bool { return b.Alias != "" }

// BucketOf returns the form in which a bucket travels.
func BucketOf(b core.Bucket) Bucket {
	out := Bucket{
		URI: b.Name.String(), Provider: b.Name.Provider, Name: b.Name.Name, Alias: b.Alias,
		State: b.State, Props: &b.Policy, Created: &b.Created,
	}
	if b.Remote != (core.RemoteSettings{}) {
		out.Remote = &b.Remote
	}
	return out
}

// Buckets is the answer to a listing of buckets, in order of their URIs.
type Buckets struct {
	Buckets []Bucket `json:"buckets"`
	// Unlisted say which accounts at remotes could not be asked for theirs.
	Unlisted []*Error `json:"unlisted,omitempty"`
}

// Props are properties of a bucket to set; nil leaves one as it is, or as the
// cluster's defaults have it.
type Props struct {
	Scheme   *core.Scheme `json:"scheme,omitempty"`
	Domain   *core.Domain `json:"domain,omitempty"`
	Inline   *int64       `json:"inline,omitempty"`
	ETag     *string      `json:"etag,omitempty"`
	Sendfile *bool        `json:"sendfile,omitempty"`
	LRU      *bool        `json:"lru,omitempty"`

	// Of remote buckets; "" takes a setting back. See [core.RemoteSettings].
	Account    *string `json:"account,omitempty"`
	Endpoint   *string `json:"endpoint,omitempty"`
	Region     *string `json:"region,omitempty"`
	Profile    *string `json:"profile,omitempty"`
	Name       *string `json:"name,omitempty"`
	Anonymous  *bool   `json:"anonymous,omitempty"`
	PathStyle  *bool   `json:"path_style,omitempty"`
	Conditions *bool   `json:"conditions,omitempty"`
}

// ApplyRemote returns the settings of a remote bucket with the properties set.
func (p Props) ApplyRemote(to core.RemoteSettings) core.RemoteSettings {
	assign(&to.Account, p.Account)
	assign(&to.Endpoint, p.Endpoint)
	assign(&to.Region, p.Region)
	assign(&to.Profile, p.Profile)
	assign(&to.Name, p.Name)
	assign(&to.Anonymous, p.Anonymous)
	assign(&to.PathStyle, p.PathStyle)
	assign(&to.Conditions, p.Conditions)
	return to
}

// Apply returns the policy with the properties set.
func (p Props) Apply(to core.Policy) core.Policy {
	assign(&to.Scheme, p.Scheme)
	assign(&to.Domain, p.Domain)
	assign(&to.Inline, p.Inline)
	assign(&to.ETag, p.ETag)
	assign(&to.Sendfile, p.Sendfile)
	assign(&to.LRU, p.LRU)
	return to
}

func assign[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// CreateBucket creates a bucket, or makes a remote one known. A bucket that
// exists is "exists", unless IfAbsent is set: then it is returned as it is.
type CreateBucket struct {
	Props    Props  `json:"props"`
	Alias    string `json:"alias,omitempty"`
	IfAbsent bool   `json:"if_absent,omitempty"`
	// Create makes the remote bucket where there is none, if its backend can.
	Create bool `json:"create,omitempty"`
}

// SetBucket changes a bucket. Data that is there already is brought to the new
// policy by a job.
type SetBucket struct {
	Props Props  `json:"props"`
	Alias string `json:"alias,omitempty"`
}

// Resolved is a URI as the servers understand it: of file:///path, a directory or
// file of theirs, the root and what is below it, which ends in "/" if it is a
// directory.
type Resolved struct {
	URI string `json:"uri"`
}

// Presence selects objects by where they are.
type Presence string

// The presences.
const (
	AnyPresence Presence = ""
	Cached      Presence = "cached"     // stored in the cluster, at least a part of it
	NotCached   Presence = "not-cached" // only in the remote bucket
)

// Summary counts what is in a bucket. Present are the objects that are stored
// in the cluster, at least a part of them, and the bytes that are.
type Summary struct {
	Bucket string `json:"bucket"`
	// Accessible says whether the remote bucket answers; Reason says why it does
	// not. It is true where nobody asked: of shoal:// buckets, and where only what
	// is present was to be counted.
	Accessible bool   `json:"accessible"`
	Present    Amount `json:"present"`
	// Remote is nil where it was not counted.
	Remote *Amount `json:"remote"`
	Reason *Error  `json:"reason,omitempty"`
}

// SummaryPart is a line of a summary that tells how far it is: the counts of all
// names up to After, or, with End, the whole. Who is cut off goes on after the
// last line that came.
type SummaryPart struct {
	Summary
	After string `json:"after,omitempty"`
	End   bool   `json:"end,omitempty"`
	// Error says why the counting broke off.
	Error *Error `json:"error,omitempty"`
}
