package remote

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/shoalstore/shoal/core"
)

// Op is an operation of a backend, as it is counted.
type Op string

// The operations.
const (
	OpBuckets      Op = "buckets"
	OpHeadBucket   Op = "head_bucket"
	OpCreateBucket Op = "create_bucket"
	OpList         Op = "list"
	OpHead         Op = "head"
	OpGet          Op = "get"
	OpPut          Op = "put"
	OpDelete       Op = "delete"
	OpCopy         Op = "copy"
	OpTags         Op = "tags"
	OpCreateUpload Op = "create_upload"
	OpPutPart      Op = "put_part"
	OpComplete     Op = "complete_upload"
	OpAbort        Op = "abort_upload"
)

func ops() []Op {
	return []Op{
		OpBuckets, OpHeadBucket, OpCreateBucket, OpList, OpHead, OpGet, OpPut, OpDelete, OpCopy, OpTags,
		OpCreateUpload, OpPutPart, OpComplete, OpAbort,
	}
}

// ErrorKind sorts errors, as they are counted.
type ErrorKind string

// kinds are the errors that are told apart, the first that fits counts.
func kinds() []struct {
	name ErrorKind
	err  error
} {
	return []struct {
		name ErrorKind
		err  error
	}{
		{"outcome_unknown", core.ErrUnknownOutcome},
		{"throttled", core.ErrThrottled},
		{"unavailable", core.ErrUnavailable},
		{"no_such_bucket", core.ErrNoSuchBucket},
		{"not_found", core.ErrNotFound},
		{"precondition", core.ErrPrecondition},
		{"permission", core.ErrPermission},
		{"wrong_region", core.ErrWrongRegion},
		{"corrupt", core.ErrCorrupt},
		{"canceled", context.Canceled},
		{"deadline", context.DeadlineExceeded},
		{"other", nil},
	}
}

func kindIndex(err error) int {
	ks := kinds()
	for i, k := range ks {
		if k.err != nil && errors.Is(err, k.err) {
			return i
		}
	}
	return len(ks) - 1
}

const numKinds = 12

// Stats are the requests of one operation since the client was made.
type Stats struct {
	// Backend is the client's name.
	Backend string
	Op      Op
	// Requests counts those sent, repeated ones and those that go on with a body
	// included; Errors those that failed, by kind, of which Throttled is one.
	Requests, Throttled int64
	Errors              map[ErrorKind]int64
	// BytesIn and BytesOut are those of bodies.
	BytesIn, BytesOut int64
	// Waited is the time that calls spent waiting for their turn, and between a
	// request and its repetition.
	Waited time.Duration
	// InFlight is the number of requests under way, Waiting that of calls which
	// wait for their turn.
	InFlight, Waiting int
}

// Failed is the number of requests that failed.
func (s *Stats) Failed() (n int64) {
	for _, k := range s.Errors {
		n += k
	}
	return n
}

// counters are the live form of Stats.
type counters struct {
	requests, in, out, waited, inFlight, waiting atomic.Int64
	errors                                       [numKinds]atomic.Int64
}

func (c *counters) snapshot(backend string, op Op) Stats {
	s := Stats{
		Backend: backend, Op: op, Requests: c.requests.Load(), BytesIn: c.in.Load(), BytesOut: c.out.Load(),
		Waited: time.Duration(c.waited.Load()), InFlight: int(c.inFlight.Load()), Waiting: int(c.waiting.Load()),
	}
	for i, k := range kinds() {
		n := c.errors[i].Load()
		if n == 0 {
			continue
		}
		if s.Errors == nil {
			s.Errors = map[ErrorKind]int64{}
		}
		s.Errors[k.name] = n
		if errors.Is(k.err, core.ErrThrottled) {
			s.Throttled = n
		}
	}
	return s
}

// Cost counts what was asked of remotes on somebody's behalf, such as a job. The
// zero Cost is ready; it may be used concurrently.
type Cost struct {
	requests, failed, throttled, in, out atomic.Int64
}

// CostTotals are the figures of a [Cost].
type CostTotals struct {
	Requests, Failed, Throttled, BytesIn, BytesOut int64
}

// Totals returns the figures so far.
func (c *Cost) Totals() CostTotals {
	return CostTotals{
		Requests: c.requests.Load(), Failed: c.failed.Load(), Throttled: c.throttled.Load(), BytesIn: c.in.Load(), BytesOut: c.out.Load(),
	}
}

type costKey struct{}

// WithCost has all that is asked of remotes under the ctx counted in c too.
func WithCost(ctx context.Context, c *Cost) context.Context {
	return context.WithValue(ctx, costKey{}, c)
}

// tally counts one request and its bytes, for the client and for whom it is made.
type tally struct {
	c    *counters
	cost *Cost
}

func newTally(ctx context.Context, c *counters) tally {
	cost, _ := ctx.Value(costKey{}).(*Cost)
	return tally{c, cost}
}

func (t tally) request() {
	t.c.requests.Add(1)
	if t.cost != nil {
		t.cost.requests.Add(1)
	}
}

func (t tally) failed(err error) {
	t.c.errors[kindIndex(err)].Add(1)
	if t.cost != nil {
		t.cost.failed.Add(1)
		if errors.Is(err, core.ErrThrottled) {
			t.cost.throttled.Add(1)
		}
	}
}

func (t tally) bytesIn(n int) {
	t.c.in.Add(int64(n))
	if t.cost != nil {
		t.cost.in.Add(int64(n))
	}
}

func (t tally) bytesOut(n int) {
	t.c.out.Add(int64(n))
	if t.cost != nil {
		t.cost.out.Add(int64(n))
	}
}

// merge adds up statistics of the same backend and operation, in order of name and
// operation.
func merge(all []Stats) []Stats {
	type key struct {
		backend string
		op      Op
	}
	at := map[key]*Stats{}
	var out []*Stats
	for i := range all {
		s := &all[i]
		k := key{s.Backend, s.Op}
		sum := at[k]
		if sum == nil {
			sum = &Stats{Backend: s.Backend, Op: s.Op}
			at[k] = sum
			out = append(out, sum)
		}
		sum.add(s)
	}
	slices.SortFunc(out, func(a, b *Stats) int {
		return cmp.Or(cmp.Compare(a.Backend, b.Backend), cmp.Compare(a.Op, b.Op))
	})
	merged := make([]Stats, len(out))
	for i, s := range out {
		merged[i] = *s
	}
	return merged
}

func (s *Stats) add(o *Stats) {
	s.Requests += o.Requests
	s.Throttled += o.Throttled
	s.BytesIn += o.BytesIn
	s.BytesOut += o.BytesOut
	s.Waited += o.Waited
	s.InFlight += o.InFlight
	s.Waiting += o.Waiting
	for k, n := range o.Errors {
		if s.Errors == nil {
			s.Errors = map[ErrorKind]int64{}
		}
		s.Errors[k] += n
	}
}
