package peer

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalstore/shoal/core"
)

// remote is all that this node has to do with another one.
type remote struct {
	t  *Transport
	id core.NodeID
	counters
	gate    gate
	link    link
	calls   caller
	pool    pool
	inbound inbound
	streams atomic.Int32 // stream connections that the other node dialled

	// Guarded by t.mu: whether connections from or to the node are cut.
	blockIn, blockOut bool
}

func newRemote(t *Transport, id core.NodeID) *remote {
	r := &remote{t: t, id: id}
	r.gate.o, r.gate.clock = &t.o, t.o.Clock
	r.link.r, r.link.q.wake = r, make(chan struct{}, 1)
	r.calls.r, r.calls.slots = r, make(chan struct{}, t.o.MaxCalls)
	r.pool.r, r.pool.slots = r, make(chan struct{}, t.o.MaxStreams)
	return r
}

// lost makes the error for an operation that failed with the connection.
func (r *remote) lost(op string, cause error, notSent bool) error {
	return &failure{op: op, node: r.id, cause: cause, notSent: notSent}
}

// inbound is the connection over which the other node sends messages. It has
// one at a time, so that messages stay in order.
type inbound struct {
	turn sync.Mutex // held while messages of a connection are delivered
	mu   sync.Mutex
	c    *conn
}

// replace makes c the connection and ends the one before it.
func (in *inbound) replace(c *conn) {
	in.mu.Lock()
	old := in.c
	in.c = c
	in.mu.Unlock()
	if old != nil {
		old.fail(errReplaced)
	}
}

// gate spaces attempts to reach a node that fail: until the back-off is over
// they fail at once, with the last error.
type gate struct {
	o     *Options
	clock core.Clock

	mu    sync.Mutex
	delay time.Duration
	until core.Instant
	err   error
	wake  context.CancelFunc // of who waits for the back-off to end
}

// check returns the last failure if the next attempt has to wait.
func (g *gate) check() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.clock.Boot() < g.until {
		return g.err
	}
	return nil
}

// failed begins a back-off, longer than the one before it.
func (g *gate) failed(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = err
	now := g.clock.Boot()
	if now < g.until {
		return // another attempt failed at the same time
	}
	g.delay = min(max(2*g.delay, g.o.BackoffMin), g.o.BackoffMax)
	// Between half of it and all of it, so that nodes do not act in step.
	g.until = now.Add(g.delay/2 + rand.N(g.delay/2+1))
}

// reached ends the back-off: the node answers.
func (g *gate) reached() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.delay, g.until, g.err = 0, 0, nil
	if g.wake != nil {
		g.wake()
	}
}

// wait returns once the back-off is over, or ctx ends.
func (g *gate) wait(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g.mu.Lock()
	d := g.until.Sub(g.clock.Boot())
	g.wake = cancel
	g.mu.Unlock()
	if d > 0 {
		_ = g.clock.Wait(ctx, d)
	}
	g.mu.Lock()
	g.wake = nil
	g.mu.Unlock()
}

// last returns the failure of the last attempt, nil if it succeeded.
func (g *gate) last() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}
