package api

import (
	"time"

	"github.com/shoalstore/shoal/core"
)

// Performance is what the nodes have done of late. A node that did not answer
// is in Missing.
type Performance struct {
	Time time.Time `json:"time"`
	// Seconds is the length of the window of all figures but Series.
	Seconds float64           `json:"seconds"`
	Total   NodePerformance   `json:"total"`
	Nodes   []NodePerformance `json:"nodes"`
	Missing []core.NodeID     `json:"missing,omitempty"`
	// Events are what happened to nodes and disks in the last minutes, oldest
	// first.
	Events []Event `json:"events,omitempty"`
}

// Event is something that happened to a node, a disk, or slots.
type Event struct {
	// Time is when the first node knew of it.
	Time time.Time `json:"time"`
	// Kind is node_ or disk_ and a state, such as node_down, disk_failed;
	// node_started, disk_added; or slots_taken_over, slots_unavailable,
	// slots_available.
	Kind string `json:"kind"`
	// Subject is NODE or NODE/DISK, Text is for people.
	Subject string     `json:"subject"`
	Text    string     `json:"text"`
	Epoch   core.Epoch `json:"epoch"` // of the map that brought it
}

// NodePerformance is one node's part, or the sum.
type NodePerformance struct {
	Node core.NodeID     `json:"node"`
	Ops  []OpPerformance `json:"ops"`
	// Remotes are the requests to the remotes of buckets.
	Remotes []RemotePerformance `json:"remotes,omitempty"`
	// Series are the last minutes, oldest first.
	Series []Sample `json:"series,omitempty"`
}

// RemotePerformance is about one kind of request to one backend.
type RemotePerformance struct {
	Backend string `json:"backend"`
	Op      string `json:"op"`
	Count   int64  `json:"count"` // in the window, repetitions included
	Errors  int64  `json:"errors"`
	// Throttled are those that the backend answered by asking for fewer.
	Throttled int64   `json:"throttled"`
	Rate      float64 `json:"rate"`      // requests per second
	BytesIn   float64 `json:"bytes_in"`  // per second, from the remote
	BytesOut  float64 `json:"bytes_out"` // per second, to it
	// InFlight are under way now, Waiting wait for their turn.
	InFlight int `json:"in_flight"`
	Waiting  int `json:"waiting"`
}

// OpPerformance is about one kind of operation: get, put, head, delete, list,
// and copy, an object of a job.
type OpPerformance struct {
	Op     string  `json:"op"`
	Count  int64   `json:"count"` // in the window
	Errors int64   `json:"errors"`
	Rate   float64 `json:"rate"`  // operations per second
	Bytes  float64 `json:"bytes"` // per second
	// Latencies in microseconds.
	P50 int64 `json:"p50_us"`
	P90 int64 `json:"p90_us"`
	P99 int64 `json:"p99_us"`
	Max int64 `json:"max_us"`
}

// Sample is a point of a time series; all rates are per second.
type Sample struct {
	Time     time.Time `json:"time"`
	Ops      float64   `json:"ops"`
	Errors   float64   `json:"errors"`
	BytesIn  float64   `json:"bytes_in"`
	BytesOut float64   `json:"bytes_out"`
	P99      int64     `json:"p99_us"`
}
