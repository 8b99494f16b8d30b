package cloudtest

import (
	"context"
	"maps"
	"sync"
)

// Count is what was counted of one kind of request.
type Count struct {
	// Requests came in, whatever became of them.
	Requests int64
	// Passed were passed on to the server.
	Passed int64
	// Errors were answered with a status of 400 or above, by the server or a rule,
	// or not at all.
	Errors int64
	// In are the bytes of bodies that came from clients, Out those sent to them.
	In, Out int64
}

func (c *Count) add(d Count) {
	c.Requests += d.Requests
	c.Passed += d.Passed
	c.Errors += d.Errors
	c.In += d.In
	c.Out += d.Out
}

// Counts are what a proxy has counted.
type Counts struct {
	ByOp map[Op]Count
	// Active is the number of requests under way, Peak the most that there were. A
	// client has its answer a little before a request is not under way any more.
	Active, Peak int
	// Connections were opened to the proxy; Open are open.
	Connections, Open int
}

// Of adds up some kinds of requests, all if none is named.
func (c Counts) Of(ops ...Op) (sum Count) {
	if len(ops) == 0 {
		for _, n := range c.ByOp {
			sum.add(n)
		}
	}
	for _, op := range ops {
		sum.add(c.ByOp[op])
	}
	return sum
}

// Sub is what was counted since an earlier state; the states (Active, Peak,
// Open) are c's.
func (c Counts) Sub(before Counts) Counts {
	d := c
	d.Connections -= before.Connections
	d.ByOp = map[Op]Count{}
	for op, n := range c.ByOp {
		b := before.ByOp[op]
		n.add(Count{-b.Requests, -b.Passed, -b.Errors, -b.In, -b.Out})
		if n != (Count{}) {
			d.ByOp[op] = n
		}
	}
	return d
}

// counter counts and tells who waits for it.
type counter struct {
	mu      sync.Mutex
	c       Counts
	changed chan struct{} // closed and replaced at every change that may be waited for
}

func newCounter() *counter {
	return &counter{c: Counts{ByOp: map[Op]Count{}}, changed: make(chan struct{})}
}

func (s *counter) update(f func(c *Counts)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.c)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *counter) add(op Op, d Count) {
	s.update(func(c *Counts) {
		n := c.ByOp[op]
		n.add(d)
		c.ByOp[op] = n
	})
}

func (s *counter) begin(op Op) {
	s.add(op, Count{Requests: 1})
	s.update(func(c *Counts) {
		c.Active++
		c.Peak = max(c.Peak, c.Active)
	})
}

func (s *counter) end() { s.update(func(c *Counts) { c.Active-- }) }

func (s *counter) state() (Counts, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.c
	c.ByOp = maps.Clone(c.ByOp)
	return c, s.changed
}

func (s *counter) reset() {
	s.update(func(c *Counts) {
		c.ByOp = map[Op]Count{}
		c.Peak, c.Connections = c.Active, c.Open
	})
}

func (s *counter) await(ctx context.Context, f func(Counts) bool) error {
	for {
		c, changed := s.state()
		if f(c) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
