package peer

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/shoalstore/shoal/core"
)

// CallFunc serves calls of one method. It runs concurrently with others; ctx
// ends when the caller gives up or is gone. It may keep req, and nobody may
// change the response once it is returned. Errors arrive at the caller with
// their text, and match the sentinels of package core that they match here.
type CallFunc func(ctx context.Context, from core.NodeID, req []byte) ([]byte, error)

// FirstReserved is the first method and service number that the transport
// keeps for itself.
const FirstReserved = 0xFF00

const methodDelete = FirstReserved

// HandleCall registers who serves a method.
func (t *Transport) HandleCall(method uint16, f CallFunc) {
	t.register(fmt.Sprintf("method %d", method), t.calls[method] != nil || method >= FirstReserved)
	t.calls[method] = f
}

// Call asks another node and waits for its answer. It may be called by many at
// once. If the node cannot be reached or is lost the error is
// [core.ErrUnavailable], and [ErrNotSent] unless the call may have been
// carried out; if ctx ends, it is ctx's error, and the other node is told.
// Nobody may change req before the answer is there; after an error, ever.
func (t *Transport) Call(ctx context.Context, to core.NodeID, method uint16, req []byte) ([]byte, error) {
	r := t.remote(to)
	r.callsMade.Add(1)
	resp, err := t.call(ctx, r, method, req)
	if err != nil {
		r.callsFailed.Add(1)
	}
	return resp, err
}

func (t *Transport) call(ctx context.Context, r *remote, method uint16, req []byte) ([]byte, error) {
	lost := func(cause error, notSent bool) error {
		return r.lost(fmt.Sprintf("call %d to", method), cause, notSent)
	}
	switch err := ctx.Err(); {
	case len(req) > MaxMessage:
		return nil, fmt.Errorf("call %d to node %s: request of %d bytes, the limit is %d: %w: %w",
			method, r.id, len(req), MaxMessage, core.ErrTooLarge, ErrNotSent)
	case !t.running():
		return nil, lost(errStopped, true)
	case err != nil:
		return nil, lost(err, true)
	case r.id == t.o.Self:
		r.callsServed.Add(1)
		return t.serveCall(ctx, r.id, method, req)
	}
	select {
	case r.calls.slots <- struct{}{}:
		defer func() { <-r.calls.slots }()
	case <-ctx.Done():
		return nil, lost(ctx.Err(), true)
	case <-t.stopped:
		return nil, lost(errStopped, true)
	}
	cc, err := r.calls.conn(ctx)
	if err != nil {
		return nil, lost(err, true)
	}
	p, err := cc.begin(method, req)
	if err != nil {
		return nil, lost(err, true)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return nil, lost(ctx.Err(), cc.cancel(p))
	}
	if p.lost != nil {
		return nil, lost(p.lost, !p.sent.Load())
	}
	return p.resp, p.err
}

// serveCall runs a method's function.
func (t *Transport) serveCall(ctx context.Context, from core.NodeID, method uint16, req []byte) ([]byte, error) {
	f := t.calls[method]
	if f == nil {
		return nil, fmt.Errorf("method %d is not known to node %s, which may be of an older version: %w: %w",
			method, t.o.Self, core.ErrInvalid, ErrNotSent)
	}
	resp, err := f(ctx, from, req)
	if err == nil && len(resp) > MaxMessage {
		return nil, fmt.Errorf("method %d: response of %d bytes, the limit is %d: %w", method, len(resp), MaxMessage, core.ErrTooLarge)
	}
	return resp, err
}

// caller makes calls to one node, over one connection.
type caller struct {
	r     *remote
	slots chan struct{} // holds a token for each call under way

	mu      sync.Mutex
	cur     *callConn
	attempt *attempt
}

// attempt is a try to connect, for all who wait for it.
type attempt struct {
	done chan struct{}
	cc   *callConn
	err  error
}

// conn returns a connection. While the node is known not to answer it fails at
// once.
func (k *caller) conn(ctx context.Context) (*callConn, error) {
	k.mu.Lock()
	if k.cur != nil {
		defer k.mu.Unlock()
		return k.cur, nil
	}
	a := k.attempt
	if a == nil {
		if err := k.r.gate.check(); err != nil {
			k.mu.Unlock()
			return nil, err
		}
		a = &attempt{done: make(chan struct{}), err: errStopped}
		k.attempt = a
		k.mu.Unlock()
		if !k.r.t.start(func(ctx context.Context) { k.run(ctx, a) }) {
			k.settle(a)
		}
	} else {
		k.mu.Unlock()
	}
	select {
	case <-a.done:
		return a.cc, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// settle tells those who wait how the attempt ended.
func (k *caller) settle(a *attempt) {
	k.mu.Lock()
	k.attempt, k.cur = nil, a.cc
	k.mu.Unlock()
	close(a.done)
}

// run connects, and serves the connection until it ends.
func (k *caller) run(ctx context.Context, a *attempt) {
	c, err := k.r.t.dial(ctx, k.r, kindCalls)
	a.err = err
	if err != nil {
		if ctx.Err() != nil {
			a.err = errStopped // those who wait have contexts of their own
		}
		k.settle(a)
		return
	}
	cc := &callConn{c: c, q: queue{wake: make(chan struct{}, 1)}, pending: map[uint64]*pending{}}
	a.cc = cc
	k.settle(a)
	var wg sync.WaitGroup
	wg.Go(func() { c.transmit(&cc.q, func(int) {}, func(int) {}) })
	c.fail(cc.receive())
	k.mu.Lock()
	if k.cur == cc {
		k.cur = nil
	}
	k.mu.Unlock()
	cc.broken(c.why)
	wg.Wait()
	if ctx.Err() == nil {
		k.r.t.o.Log.InfoContext(ctx, "connection for calls lost", slog.String("node", string(k.r.id)), slog.Any("err", c.why))
	}
}

// callConn is the calling end of a connection for calls.
type callConn struct {
	c *conn
	q queue

	mu      sync.Mutex
	last    uint64
	pending map[uint64]*pending // nil once the connection is broken
}

// pending is a call that has no answer yet.
type pending struct {
	id   uint64
	gone atomic.Bool // claimed by the writer or by a cancellation
	sent atomic.Bool
	done chan struct{}
	// Set before done is closed: the answer, or why there will be none.
	resp      []byte
	err, lost error
}

// send is asked by the writer before it writes the request.
func (p *pending) send() bool {
	if p.gone.Swap(true) {
		return false
	}
	p.sent.Store(true)
	return true
}

// begin puts a request into the queue.
func (cc *callConn) begin(method uint16, req []byte) (*pending, error) {
	p := &pending{done: make(chan struct{})}
	cc.mu.Lock()
	if cc.pending == nil {
		cc.mu.Unlock()
		return nil, cc.c.why
	}
	cc.last++
	p.id = cc.last
	cc.pending[p.id] = p
	cc.mu.Unlock()
	var prefix [requestPrefix]byte
	binary.LittleEndian.PutUint64(prefix[:], p.id)
	binary.LittleEndian.PutUint16(prefix[8:], method)
	it := newItem(frameRequest, prefix[:], req)
	it.call = p
	// The requests are in memory anyway, and their number is bounded.
	cc.q.push(it, 1<<62)
	return p, nil
}

// cancel forgets a call and tells the other node. It returns true if that has
// not seen the call, and will not.
func (cc *callConn) cancel(p *pending) (notSent bool) {
	cc.mu.Lock()
	delete(cc.pending, p.id)
	cc.mu.Unlock()
	if !p.gone.Swap(true) {
		return true
	}
	var id [8]byte
	binary.LittleEndian.PutUint64(id[:], p.id)
	cc.q.push(newItem(frameCancel, id[:], nil), 1<<62)
	return false
}

// broken fails all calls without an answer.
func (cc *callConn) broken(why error) {
	cc.q.close()
	cc.mu.Lock()
	defer cc.mu.Unlock()
	for _, p := range cc.pending {
		p.gone.Store(true)
		p.lost = why
		close(p.done)
	}
	cc.pending = nil
}

// receive hands answers to those who wait for them.
func (cc *callConn) receive() error {
	c := cc.c
	for {
		f, n, err := c.next()
		if err != nil {
			return err
		}
		if f != frameReply && f != frameFailure {
			return unexpected(f, c.kind)
		}
		var id [8]byte
		if err := c.fixed(id[:], f, n); err != nil {
			return err
		}
		body, err := c.body(n - len(id))
		if err != nil {
			return err
		}
		var failed error
		if f == frameFailure {
			e, err := parseError(body, c.r.id)
			if err != nil {
				return err
			}
			failed, body = e, nil
		}
		cc.mu.Lock()
		key := binary.LittleEndian.Uint64(id[:])
		if p := cc.pending[key]; p != nil {
			delete(cc.pending, key)
			p.resp, p.err = body, failed
			close(p.done)
		}
		cc.mu.Unlock()
	}
}

// maxWaiting bounds the requests of one node that wait to be served, in bytes,
// and the responses that wait to be written.
const maxWaiting = 64 << 20

// callServer is the serving end of a connection for calls.
type callServer struct {
	t *Transport
	c *conn
	q queue // of answers

	mu      sync.Mutex
	known   map[uint64]*request
	active  int // served now
	waiting []*request
	bytes   int // of those waiting
}

type request struct {
	id     uint64
	method uint16
	body   []byte

	// Guarded by the server's mu: cancel is nil until the request is served;
	// gone says that the caller gave it up.
	cancel context.CancelFunc
	gone   bool
}

// serveCalls serves another node's calls until the connection ends.
func (t *Transport) serveCalls(ctx context.Context, c *conn, cancel context.CancelCauseFunc) error {
	s := &callServer{t: t, c: c, q: queue{wake: make(chan struct{}, 1)}, known: map[uint64]*request{}}
	var wg sync.WaitGroup
	wg.Go(func() { c.transmit(&s.q, func(int) {}, func(int) {}) })
	err := s.receive(ctx, &wg)
	c.fail(err)
	cancel(c.why)
	wg.Wait()
	return err
}

func (s *callServer) receive(ctx context.Context, wg *sync.WaitGroup) error {
	for {
		f, n, err := s.c.next()
		if err != nil {
			return err
		}
		switch f {
		case frameRequest:
			var prefix [requestPrefix]byte
			if err := s.c.fixed(prefix[:], f, n); err != nil {
				return err
			}
			body, err := s.c.body(n - requestPrefix)
			if err != nil {
				return err
			}
			if err := s.take(ctx, wg, newRequest(prefix[:], body)); err != nil {
				return err
			}
		case frameCancel:
			var id [8]byte
			if err := s.c.fixed(id[:], f, n); err != nil {
				return err
			}
			if _, err := s.c.br.Discard(n - len(id)); err != nil {
				return err
			}
			s.drop(binary.LittleEndian.Uint64(id[:]))
		default:
			return unexpected(f, s.c.kind)
		}
	}
}

func newRequest(prefix, body []byte) *request {
	return &request{
		id:     binary.LittleEndian.Uint64(prefix),
		method: binary.LittleEndian.Uint16(prefix[8:]),
		body:   body,
	}
}

// take begins to serve a request, lets it wait, or refuses it.
func (s *callServer) take(ctx context.Context, wg *sync.WaitGroup, q *request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known[q.id] != nil {
		return fmt.Errorf("%w: call %d is made twice", errProtocol, q.id)
	}
	switch {
	case s.active < s.t.o.MaxHandlers:
		s.active++
		wg.Go(func() { s.work(ctx, q) })
	case len(s.waiting) < s.t.o.MaxCalls && s.bytes+len(q.body) <= maxWaiting:
		s.waiting = append(s.waiting, q)
		s.bytes += len(q.body)
	default:
		return s.overloaded(q)
	}
	s.known[q.id] = q
	return nil
}

// overloaded refuses a request. The caller does not read the answers if even
// that has no room.
func (s *callServer) overloaded(q *request) error {
	err := fmt.Errorf("node %s has %d calls of this node under way already: %w: %w",
		s.t.o.Self, s.active+len(s.waiting), core.ErrUnavailable, ErrNotSent)
	if !s.q.push(newItem(frameFailure, q.prefix(), appendError(nil, err)), 2*maxWaiting) {
		return fmt.Errorf("%w: answers are not read", errProtocol)
	}
	return nil
}

func (q *request) prefix() []byte { return binary.LittleEndian.AppendUint64(nil, q.id) }

// drop forgets a request that its caller gave up.
func (s *callServer) drop(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.known[id]
	if q == nil {
		return
	}
	q.gone = true
	if q.cancel != nil {
		q.cancel()
	}
	if i := slices.Index(s.waiting, q); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
		s.bytes -= len(q.body)
		delete(s.known, id)
	}
}

// work serves a request, and then those that wait.
func (s *callServer) work(ctx context.Context, q *request) {
	for q != nil {
		s.serve(ctx, q)
		s.mu.Lock()
		q = nil
		if len(s.waiting) > 0 {
			q = s.waiting[0]
			s.waiting[0] = nil
			s.waiting = s.waiting[1:]
			s.bytes -= len(q.body)
		} else {
			s.active--
		}
		s.mu.Unlock()
	}
}

func (s *callServer) serve(ctx context.Context, q *request) {
	own, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	q.cancel = cancel
	gone := q.gone
	s.mu.Unlock()
	var resp []byte
	var err error
	if !gone {
		s.c.r.callsServed.Add(1)
		resp, err = s.t.serveCall(own, s.c.r.id, q.method, q.body)
	}
	s.mu.Lock()
	delete(s.known, q.id)
	gone = q.gone
	s.mu.Unlock()
	if gone || ctx.Err() != nil {
		return
	}
	it := newItem(frameReply, q.prefix(), resp)
	if err != nil {
		it = newItem(frameFailure, q.prefix(), appendError(nil, err))
	}
	s.q.pushWait(it, maxWaiting, s.c.done)
}
