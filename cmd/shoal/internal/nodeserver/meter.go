package nodeserver

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

const (
	window  = 5 * time.Second
	history = 5 * time.Minute
)

// meter counts the operations of this node's clients, second by second.
type meter struct {
	clock core.Clock
	node  core.NodeID

	mu      sync.Mutex
	seconds []*second // oldest first, the last one under way
	totals  map[string]*opTotal
	remotes remoteMeter
}

// second is what happened in one second.
type second struct {
	at      time.Time
	ops     map[string]*opSecond
	in, out int64
}

type opSecond struct {
	count, errors, bytes int64
	latencies            []time.Duration // a sample
}

// opTotal is since the node's start, for metrics.
type opTotal struct {
	count, errors, bytes int64
	seconds              float64
}

// sampleLimit bounds the latencies kept of a second.
const sampleLimit = 512

func newMeter(clock core.Clock, node core.NodeID) *meter {
	return &meter{clock: clock, node: node, totals: map[string]*opTotal{}, seconds: []*second{newSecond(clock.Now())}}
}

func newSecond(at time.Time) *second { return &second{at: at, ops: map[string]*opSecond{}} }

// run turns the seconds until ctx ends.
func (m *meter) run(ctx context.Context) error {
	for m.clock.Wait(ctx, time.Second) == nil {
		m.mu.Lock()
		m.remotes.turn()
		m.seconds = append(m.seconds, newSecond(m.clock.Now()))
		if k := len(m.seconds) - int(history/time.Second); k > 0 {
			m.seconds = slices.Delete(m.seconds, 0, k)
		}
		m.mu.Unlock()
	}
	return nil
}

// done counts an operation. Refusals that are the client's fault, such as a key
// that is not there, are no errors.
func (m *meter) done(op string, began time.Time, in, out int64, err error) {
	d := m.clock.Now().Sub(began)
	failed := err != nil && (errors.Is(err, core.ErrUnavailable) || errors.Is(err, core.ErrUnknownOutcome) || errors.Is(err, core.ErrCorrupt) || errors.Is(err, core.ErrNoSpace))
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.seconds[len(m.seconds)-1]
	o := s.ops[op]
	if o == nil {
		o = &opSecond{}
		s.ops[op] = o
	}
	t := m.totals[op]
	if t == nil {
		t = &opTotal{}
		m.totals[op] = t
	}
	o.count++
	o.bytes += in + out
	t.count++
	t.bytes += in + out
	t.seconds += d.Seconds()
	s.in += in
	s.out += out
	if failed {
		o.errors++
		t.errors++
	}
	if len(o.latencies) < sampleLimit {
		o.latencies = append(o.latencies, d)
	}
}

// performance is this node's part.
func (m *meter) performance() api.NodePerformance {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := api.NodePerformance{Node: m.node, Remotes: m.remotes.performance()}
	recent := m.seconds[max(0, len(m.seconds)-1-int(window/time.Second)) : len(m.seconds)-1]
	sums := map[string]*opSecond{}
	for _, s := range recent {
		for op, o := range s.ops {
			if sums[op] == nil {
				sums[op] = &opSecond{}
			}
			sums[op].add(o)
		}
	}
	for op, o := range sums {
		out.Ops = append(out.Ops, o.performance(op, window.Seconds()))
	}
	slices.SortFunc(out.Ops, func(a, b api.OpPerformance) int {
		if a.Op < b.Op {
			return -1
		}
		return 1
	})
	for _, s := range m.seconds[:len(m.seconds)-1] {
		out.Series = append(out.Series, s.sample())
	}
	return out
}

func (o *opSecond) add(p *opSecond) {
	o.count += p.count
	o.errors += p.errors
	o.bytes += p.bytes
	o.latencies = append(o.latencies, p.latencies...)
}

func (o *opSecond) performance(op string, seconds float64) api.OpPerformance {
	slices.Sort(o.latencies)
	at := func(q float64) int64 {
		if len(o.latencies) == 0 {
			return 0
		}
		return o.latencies[min(int(q*float64(len(o.latencies))), len(o.latencies)-1)].Microseconds()
	}
	return api.OpPerformance{
		Op: op, Count: o.count, Errors: o.errors, Rate: float64(o.count) / seconds, Bytes: float64(o.bytes) / seconds,
		P50: at(0.5), P90: at(0.9), P99: at(0.99), Max: at(1),
	}
}

func (s *second) sample() api.Sample {
	out := api.Sample{Time: s.at, BytesIn: float64(s.in), BytesOut: float64(s.out)}
	var all opSecond
	for _, o := range s.ops {
		all.add(o)
	}
	p := all.performance("", 1)
	out.Ops, out.Errors, out.P99 = p.Rate, float64(p.Errors), p.P99
	return out
}

// totalPerformance adds the nodes up. Percentiles are the worst of the nodes'.
func totalPerformance(nodes []api.NodePerformance) api.NodePerformance {
	sums := map[string]*api.OpPerformance{}
	series := map[int64]*api.Sample{}
	for _, n := range nodes {
		for _, o := range n.Ops {
			t := sums[o.Op]
			if t == nil {
				t = &api.OpPerformance{Op: o.Op}
				sums[o.Op] = t
			}
			t.Count += o.Count
			t.Errors += o.Errors
			t.Rate += o.Rate
			t.Bytes += o.Bytes
			t.P50, t.P90, t.P99, t.Max = max(t.P50, o.P50), max(t.P90, o.P90), max(t.P99, o.P99), max(t.Max, o.Max)
		}
		for _, p := range n.Series {
			at := p.Time.Unix()
			t := series[at]
			if t == nil {
				t = &api.Sample{Time: time.Unix(at, 0)}
				series[at] = t
			}
			t.Ops += p.Ops
			t.Errors += p.Errors
			t.BytesIn += p.BytesIn
			t.BytesOut += p.BytesOut
			t.P99 = max(t.P99, p.P99)
		}
	}
	out := api.NodePerformance{Remotes: totalRemotes(nodes)}
	for _, t := range sums {
		out.Ops = append(out.Ops, *t)
	}
	slices.SortFunc(out.Ops, func(a, b api.OpPerformance) int {
		if a.Op < b.Op {
			return -1
		}
		return 1
	})
	for _, t := range series {
		out.Series = append(out.Series, *t)
	}
	slices.SortFunc(out.Series, func(a, b api.Sample) int { return a.Time.Compare(b.Time) })
	return out
}

// objects counts what goes through an object layer.
func (m *meter) objects(o core.Objects) core.Objects { return &meteredObjects{Objects: o, m: m} }

type meteredObjects struct {
	core.Objects
	m *meter
}

// countingReader counts what a body has delivered.
type countingReader struct {
	io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	k, err := c.Reader.Read(p)
	c.n += int64(k)
	return k, err
}

// Put is part of core.Objects.
func (o *meteredObjects) Put(ctx context.Context, b core.Bucket, key string, body io.Reader, opt core.PutOptions) (core.ObjectInfo, error) {
	began := o.m.clock.Now()
	c := &countingReader{Reader: body}
	info, err := o.Objects.Put(ctx, b, key, c, opt)
	o.m.done("put", began, c.n, 0, err)
	return info, err
}

// PutPart is part of core.Objects.
func (o *meteredObjects) PutPart(ctx context.Context, b core.Bucket, key, upload string, number int, body io.Reader, opt core.PutOptions) (core.Part, error) {
	began := o.m.clock.Now()
	c := &countingReader{Reader: body}
	p, err := o.Objects.PutPart(ctx, b, key, upload, number, c, opt)
	o.m.done("put", began, c.n, 0, err)
	return p, err
}

// Get is part of core.Objects. It is counted when the body is closed.
func (o *meteredObjects) Get(ctx context.Context, b core.Bucket, key string, opt core.GetOptions) (*core.Object, error) {
	began := o.m.clock.Now()
	obj, err := o.Objects.Get(ctx, b, key, opt)
	if err != nil || obj == nil || obj.Body == nil {
		o.m.done("get", began, 0, 0, err)
		return obj, err
	}
	obj.Body = &meteredBody{ReadCloser: obj.Body, m: o.m, began: began}
	return obj, nil
}

type meteredBody struct {
	io.ReadCloser
	m     *meter
	began time.Time
	n     int64
	err   error
	once  sync.Once
}

func (b *meteredBody) Read(p []byte) (int, error) {
	k, err := b.ReadCloser.Read(p)
	b.n += int64(k)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return k, err
}

// WriteTo keeps the body's own way of being copied.
func (b *meteredBody) WriteTo(w io.Writer) (int64, error) {
	wt, ok := b.ReadCloser.(io.WriterTo)
	if !ok {
		return io.Copy(w, struct{ io.Reader }{b})
	}
	k, err := wt.WriteTo(w)
	b.n += k
	b.err = err
	return k, err
}

func (b *meteredBody) Close() error {
	b.once.Do(func() { b.m.done("get", b.began, 0, b.n, b.err) })
	return b.ReadCloser.Close()
}

// Head is part of core.Objects.
func (o *meteredObjects) Head(ctx context.Context, b core.Bucket, key string, opt core.GetOptions) (core.ObjectInfo, error) {
	began := o.m.clock.Now()
	info, err := o.Objects.Head(ctx, b, key, opt)
	o.m.done("head", began, 0, 0, err)
	return info, err
}

// Delete is part of core.Objects.
func (o *meteredObjects) Delete(ctx context.Context, b core.Bucket, key string, c core.Conditions, r core.RequestID) error {
	began := o.m.clock.Now()
	err := o.Objects.Delete(ctx, b, key, c, r)
	o.m.done("delete", began, 0, 0, err)
	return err
}

// DeleteFirst is part of core.FirstDeleter.
func (o *meteredObjects) DeleteFirst(ctx context.Context, b core.Bucket, key string, c core.Conditions, r core.RequestID) error {
	began := o.m.clock.Now()
	err := deleteFirst(ctx, o.Objects, b, key, c, r)
	o.m.done("delete", began, 0, 0, err)
	return err
}

// deleteFirst is DeleteFirst where there is that, else Delete under an id that
// nobody has used.
func deleteFirst(ctx context.Context, o core.Objects, b core.Bucket, key string, c core.Conditions, r core.RequestID) error {
	if f, ok := o.(core.FirstDeleter); ok {
		return f.DeleteFirst(ctx, b, key, c, r)
	}
	return o.Delete(ctx, b, key, c, core.NewRequestID())
}

// List is part of core.Objects.
func (o *meteredObjects) List(ctx context.Context, b core.Bucket, opt core.ListOptions) (core.Listing, error) {
	began := o.m.clock.Now()
	l, err := o.Objects.List(ctx, b, opt)
	o.m.done("list", began, 0, 0, err)
	return l, err
}
