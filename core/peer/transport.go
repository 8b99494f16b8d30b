package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
)

// maxGreeting is the number of connections that may be in the handshake, i.e.
// have not proved yet that they belong to the cluster.
const maxGreeting = 256

// Transport connects a node with the others of its cluster. Register what it
// serves (Handle, HandleCall, HandleStream, ServeStores), then call Run; all
// other methods may be called at any time, concurrently.
type Transport struct {
	o        Options
	handler  Handler
	calls    map[uint16]CallFunc
	services map[uint16]StreamHandler
	stores   func(core.DiskID) (core.Store, error)

	greeting chan struct{} // holds a token per handshake with a caller
	starts   chan func(context.Context)
	stopped  chan struct{} // closed when Run starts nothing any more
	local    queue         // messages to the node itself
	bulk     bulkPool
	packs    bulkPool

	mu      sync.RWMutex
	state   state
	remotes map[core.NodeID]*remote
	conns   map[*conn]struct{}
	refused map[string]core.Instant // what was logged of callers, and when
}

type state int

const (
	stateNew state = iota
	stateRunning
	stateStopped
)

// New returns a transport that does nothing until it is run.
func New(o Options) (*Transport, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	t := &Transport{
		o:        o,
		handler:  noHandler{},
		calls:    map[uint16]CallFunc{},
		services: map[uint16]StreamHandler{},
		greeting: make(chan struct{}, maxGreeting),
		starts:   make(chan func(context.Context)),
		stopped:  make(chan struct{}),
		bulk:     newBulkPool(bulkRoom + bulkSize),
		packs:    newBulkPool(packSize),
		remotes:  map[core.NodeID]*remote{},
		conns:    map[*conn]struct{}{},
		refused:  map[string]core.Instant{},
	}
	t.local.wake = make(chan struct{}, 1)
	t.ServeStores(noStores)
	t.calls[methodDelete] = t.serveDelete
	t.services[serviceShards] = (*shardService)(t)
	return t, nil
}

// register panics if the transport runs already: then registering is a bug.
func (t *Transport) register(what string, taken bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state != stateNew {
		panic("peer: " + what + " is registered after Run")
	}
	if taken {
		panic("peer: " + what + " is registered twice")
	}
}

// Run accepts and keeps connections until ctx ends, and returns nil then; or an
// error if the listener fails. When it returns every connection is closed and
// every goroutine of the transport has ended. It can be called once.
func (t *Transport) Run(ctx context.Context) error {
	t.mu.Lock()
	if t.state != stateNew {
		t.mu.Unlock()
		return fmt.Errorf("peer transport: Run is called twice: %w", core.ErrInvalid)
	}
	t.state = stateRunning
	t.mu.Unlock()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := t.accept(ctx); err != nil {
			cancel(err)
		}
	})
	wg.Go(func() { t.pulse(ctx) })
	wg.Go(func() { t.deliverLocal(ctx) })
	for ctx.Err() == nil {
		select {
		case f := <-t.starts:
			wg.Go(func() { f(ctx) })
		case <-ctx.Done():
		}
	}
	t.stop()
	wg.Wait()
	if err := context.Cause(ctx); errors.Is(err, errListener) {
		return err
	}
	return nil
}

// stop closes everything; what is opened later is closed at once.
func (t *Transport) stop() {
	t.mu.Lock()
	t.state = stateStopped
	t.mu.Unlock()
	close(t.stopped)
	_ = t.o.Listener.Close()
	for _, c := range t.snapshot(nil) {
		c.fail(errStopped)
	}
}

func (t *Transport) running() bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.state == stateRunning
}

// start runs f in a goroutine of Run's, with its context. It returns false if
// the transport is not running.
func (t *Transport) start(f func(context.Context)) bool {
	if !t.running() {
		return false
	}
	select {
	case t.starts <- f:
		return true
	case <-t.stopped:
		return false
	}
}

// remote returns the state kept for a node.
func (t *Transport) remote(id core.NodeID) *remote {
	t.mu.RLock()
	r := t.remotes[id]
	t.mu.RUnlock()
	if r != nil {
		return r
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if r = t.remotes[id]; r == nil {
		r = newRemote(t, id)
		t.remotes[id] = r
	}
	return r
}

// keep makes c one of the transport's connections, or says why it must not be.
func (t *Transport) keep(c *conn) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.state != stateRunning:
		return errStopped
	case c.dialled && c.r.blockOut || !c.dialled && c.r.blockIn:
		return errBlocked
	}
	t.conns[c] = struct{}{}
	return nil
}

func (t *Transport) forget(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, c)
}

func (t *Transport) snapshot(into []*conn) []*conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.conns {
		into = append(into, c)
	}
	return into
}

// Block cuts the connections that the node dials (inbound) or that are dialled
// to it (outbound), at once and until Block is called again; all others work,
// in both directions. It is for tests of what the cluster does then.
func (t *Transport) Block(node core.NodeID, inbound, outbound bool) {
	r := t.remote(node)
	t.mu.Lock()
	r.blockIn, r.blockOut = inbound, outbound
	t.mu.Unlock()
	for _, c := range t.snapshot(nil) {
		if c.r == r && (c.dialled && outbound || !c.dialled && inbound) {
			c.fail(errBlocked)
		}
	}
	if !outbound {
		r.gate.reached()
	}
}

// pulse ticks for all connections.
func (t *Transport) pulse(ctx context.Context) {
	var conns []*conn
	for t.o.Clock.Wait(ctx, t.o.Ping/ticksPerPing) == nil {
		conns = t.snapshot(conns[:0])
		for _, c := range conns {
			c.tick()
		}
		clear(conns)
	}
}

// dial connects to a node and proves who both are.
func (t *Transport) dial(ctx context.Context, r *remote, k kind) (*conn, error) {
	c, err := t.tryDial(ctx, r, k)
	if err != nil {
		r.dialFailures.Add(1)
		no := (*refused)(nil)
		busy := errors.As(err, &no) && no.code == refusedBusy // it does answer
		if ctx.Err() == nil && !busy {
			r.gate.failed(err)
		}
		return nil, err
	}
	r.dials.Add(1)
	r.gate.reached()
	return c, nil
}

func (t *Transport) tryDial(ctx context.Context, r *remote, k kind) (*conn, error) {
	t.mu.Lock()
	blocked := r.blockOut
	t.mu.Unlock()
	if blocked {
		return nil, errBlocked
	}
	addr, ok := t.o.Resolve(r.id)
	if !ok {
		return nil, errors.New("the node has no peer address in the map")
	}
	limited, cancel := context.WithTimeout(ctx, t.o.DialTimeout)
	defer cancel()
	c, err := t.connect(limited, r, k, addr)
	switch {
	case err == nil:
		return c, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case limited.Err() != nil:
		return nil, fmt.Errorf("%s: not connected after %v", addr, t.o.DialTimeout)
	}
	return nil, err
}

// connect makes a connection that is one of the transport's.
func (t *Transport) connect(ctx context.Context, r *remote, k kind, addr string) (*conn, error) {
	raw, err := t.o.Dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := newConn(t, raw, k, true)
	hangUp := context.AfterFunc(ctx, func() { _ = raw.Close() })
	err = t.greet(ctx, c, r, addr)
	if !hangUp() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		c.begin(r)
		err = t.keep(c)
	}
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	return c, nil
}

// greet makes a new connection one to r.
func (t *Transport) greet(ctx context.Context, c *conn, r *remote, addr string) error {
	if tcp, ok := c.raw.(*net.TCPConn); ok {
		if err := tune(tcp, t.o.Timeout); err != nil {
			return err
		}
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("peer address %q of node %s: %w", addr, r.id, err)
	}
	if err := c.encrypt(ctx, host); err != nil {
		return err
	}
	if err := t.dialHandshake(c, r.id); err != nil {
		c.sendRefusal(err)
		return fmt.Errorf("%s: %w", addr, err)
	}
	return nil
}

var errListener = errors.New("peer listener")

// accept serves callers until ctx ends.
func (t *Transport) accept(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = t.o.Listener.Close() })()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		raw, err := t.o.Listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = raw.Close()
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("%w: %w", errListener, err)
		}
		if err != nil {
			t.o.Log.ErrorContext(ctx, "cannot accept connections of peers", slog.Any("err", err))
			_ = t.o.Clock.Wait(ctx, t.o.BackoffMax)
			continue
		}
		select {
		case t.greeting <- struct{}{}:
			wg.Go(func() { t.serve(ctx, raw) })
		default:
			_ = raw.Close()
		}
	}
}

// serve serves a caller.
func (t *Transport) serve(ctx context.Context, raw net.Conn) {
	c, err := t.admit(ctx, raw)
	<-t.greeting
	if err != nil {
		_ = raw.Close()
		if ctx.Err() == nil && !errors.Is(err, errBlocked) && !errors.Is(err, errAsked) {
			t.logRefused(ctx, raw.RemoteAddr(), err)
		}
		return
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	switch c.kind {
	case kindMessages:
		err = t.serveMessages(c)
	case kindCalls:
		err = t.serveCalls(ctx, c, cancel)
	case kindStreams:
		err = t.serveStreams(ctx, c, cancel)
		c.r.streams.Add(-1)
	}
	c.fail(err)
}

// logRefused tells of a caller that was not admitted. Who is not admitted tries
// again, so the same is said once in a while only.
func (t *Transport) logRefused(ctx context.Context, addr net.Addr, err error) {
	const pause, most = time.Minute, 100
	host, _, splitErr := net.SplitHostPort(addr.String())
	if splitErr != nil {
		host = addr.String()
	}
	now, key := t.o.Clock.Boot(), host+" "+err.Error()
	t.mu.Lock()
	at, said := t.refused[key]
	say := !said || now.Sub(at) >= pause
	if say {
		if len(t.refused) >= most {
			clear(t.refused)
		}
		t.refused[key] = now
	}
	t.mu.Unlock()
	if say {
		t.o.Log.WarnContext(ctx, "peer refused", slog.String("addr", addr.String()), slog.Any("err", err))
	}
}

// admit does the handshake with a caller.
func (t *Transport) admit(ctx context.Context, raw net.Conn) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, t.o.DialTimeout)
	defer cancel()
	hangUp := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer hangUp()
	c := newConn(t, raw, 0, false)
	if tcp, ok := raw.(*net.TCPConn); ok {
		if err := tune(tcp, t.o.Timeout); err != nil {
			return nil, err
		}
	}
	if err := c.encrypt(ctx, ""); err != nil {
		return nil, err
	}
	h, err := t.acceptHandshake(c)
	if err != nil {
		c.sendRefusal(err)
		return nil, err
	}
	if h.kind == kindAsk {
		return nil, errors.Join(errAsked, c.sendPart(partWelcome, t.whoAmI()))
	}
	c.kind = h.kind
	c.begin(t.remote(h.from))
	if err := t.welcome(c); err != nil {
		c.sendRefusal(err)
		return nil, err
	}
	return c, nil
}

// welcome takes a proven caller in.
func (t *Transport) welcome(c *conn) error {
	r := c.r
	if c.kind == kindStreams && int(r.streams.Add(1)) > 2*t.o.MaxStreams {
		r.streams.Add(-1)
		return refuse(refusedBusy, "node %s has more than %d connections for streams to node %s", r.id, 2*t.o.MaxStreams, t.o.Self)
	}
	// Nobody else may write before the welcome.
	c.wmu.Lock()
	err := t.keep(c)
	if err == nil {
		if err = c.sendPart(partWelcome, nil); err != nil {
			c.fail(err)
		}
	}
	c.wmu.Unlock()
	if err != nil {
		if c.kind == kindStreams {
			r.streams.Add(-1)
		}
		return err
	}
	r.gate.reached() // it is back
	return nil
}
