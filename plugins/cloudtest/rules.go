package cloudtest

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Fault is a way to break an exchange.
type Fault int

// The faults.
const (
	// NoFault lets the exchange pass.
	NoFault Fault = iota
	// Answer answers with the rule's Status in place of the server, which sees
	// nothing of it. The request's body is read.
	Answer
	// ResetBefore resets the connection; the server sees nothing.
	ResetBefore
	// ResetAfter resets the connection after the server did what it was asked to: the
	// answer is lost.
	ResetAfter
	// Late resets the connection once the request was read, waits for Delay, and only
	// then passes it on.
	Late
	// Hang reads the request and answers never; the server sees nothing.
	Hang
	// HangAfter never passes on the server's answer.
	HangAfter
	// Truncate closes the connection after At bytes of the answer's body.
	Truncate
	// ResetBody resets it there.
	ResetBody
	// Stall sends At bytes of the answer's body and then nothing.
	Stall
	// Shorten leaves out all of the answer's body behind At bytes, and says so in
	// Content-Length.
	Shorten
	// Flip changes a bit of the byte at At of the answer's body.
	Flip
)

// Rule changes what passes the proxy. The zero Rule matches everything and
// changes nothing. An exchange suffers the latency of all rules that match it
// together, the least bandwidth, all headers, and the first fault.
type Rule struct {
	// Ops are the kinds of requests that the rule is for; none: all.
	Ops []Op
	// KeyPrefix is what the object's key must begin with.
	KeyPrefix string
	// Bucket, if not "", is what the bucket's name must be.
	Bucket string
	// Skip leaves out so many matching requests; Times, if not 0, is how many the
	// rule is for after them.
	Skip, Times int
	// Share of what is left, by lot, in 0..1; 0 is all.
	Share float64

	// Latency passes before the request is passed on.
	Latency time.Duration
	// Bandwidth is the most bytes per second of each body, in each direction. As a
	// connection carries one exchange at a time, that is its own, too.
	Bandwidth int64
	// Header replaces headers of the answer: lies about ETag, Content-Range,
	// Content-Length ... A value "" removes one.
	Header map[string]string

	Fault Fault
	// Status is what Answer answers with, by default 503. Code is the error's name
	// in the answer's body, by default the usual one of the status.
	Status int
	Code   string
	// Body, if not "", is the answer's body instead, of no particular type.
	Body string
	// RetryAfter, if not 0, is sent with it, in whole seconds.
	RetryAfter time.Duration
	// At is where a body breaks, in bytes.
	At int64
	// Delay is the time after which a Late request is passed on.
	Delay time.Duration
}

func (r *Rule) matches(q request) bool {
	return (len(r.Ops) == 0 || slices.Contains(r.Ops, q.op)) &&
		(r.Bucket == "" || r.Bucket == q.bucket) && strings.HasPrefix(q.key, r.KeyPrefix)
}

// treatment is what the rules together do to an exchange.
type treatment struct {
	latency   time.Duration
	bandwidth int64
	header    map[string]string
	fault     *Rule // nil for none
}

// rules are those in effect, with what has been counted for each.
type rules struct {
	mu    sync.Mutex
	rules []Rule
	seen  []int
	rand  *rand.Rand
}

func (s *rules) set(rs []Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules, s.seen = slices.Clone(rs), make([]int, len(rs))
}

func (s *rules) treat(q request) (t treatment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.rules {
		r := &s.rules[i]
		if !r.matches(q) {
			continue
		}
		s.seen[i]++
		if n := s.seen[i]; n <= r.Skip || r.Times > 0 && n > r.Skip+r.Times {
			continue
		}
		if r.Share > 0 && s.rand.Float64() >= r.Share {
			continue
		}
		t.latency += r.Latency
		if r.Bandwidth > 0 && (t.bandwidth == 0 || r.Bandwidth < t.bandwidth) {
			t.bandwidth = r.Bandwidth
		}
		if len(r.Header) > 0 && t.header == nil {
			t.header = map[string]string{}
		}
		for name, v := range r.Header {
			t.header[http.CanonicalHeaderKey(name)] = v
		}
		if r.Fault != NoFault && t.fault == nil {
			t.fault = r
		}
	}
	return t
}
