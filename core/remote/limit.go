package remote

import (
	"container/list"
	"context"
	"sync"
)

// limiter lets so many requests be made at a time. The number is halved when the
// remote throttles, and grows again by one for as many requests as it is that go
// well: additive increase, multiplicative decrease. Waiters are served in order.
type limiter struct {
	most int

	mu      sync.Mutex
	allowed float64
	used    int
	cut     uint64 // how often the number was halved
	waiters list.List
}

func newLimiter(most int) *limiter { return &limiter{most: most, allowed: float64(most)} }

// permit is the right to make one request.
type permit struct {
	l   *limiter
	cut uint64
}

// acquire waits for a permit, or for the end of ctx.
func (l *limiter) acquire(ctx context.Context) (*permit, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	l.mu.Lock()
	if l.waiters.Len() == 0 && l.used < int(l.allowed) {
		defer l.mu.Unlock()
		return l.grant(), nil
	}
	got := make(chan *permit, 1)
	e := l.waiters.PushBack(got)
	l.mu.Unlock()
	select {
	case p := <-got:
		return p, nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-got: // it came in between
		l.used--
		l.wake()
	default:
		l.waiters.Remove(e)
	}
	return nil, context.Cause(ctx)
}

func (l *limiter) grant() *permit {
	l.used++
	return &permit{l: l, cut: l.cut}
}

func (l *limiter) wake() {
	for l.waiters.Len() > 0 && l.used < int(l.allowed) {
		l.waiters.Remove(l.waiters.Front()).(chan *permit) <- l.grant()
	}
}

// verdict is what a request says about how many there may be.
type verdict byte

const (
	neutral verdict = iota
	well
	throttled
)

// tell takes in what came of the request. Of requests that were under way
// together only the first one that is throttled counts.
func (p *permit) tell(v verdict) {
	l := p.l
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case v == well:
		l.allowed = min(l.allowed+1/l.allowed, float64(l.most))
		l.wake()
	case v == throttled && p.cut == l.cut:
		l.allowed = max(l.allowed/2, 1)
		l.cut++
	}
}

// release gives the permit back.
func (p *permit) release() {
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	p.l.used--
	p.l.wake()
}

// state returns how many requests are allowed, made and waited for at present.
func (l *limiter) state() (allowed, used, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int(l.allowed), l.used, l.waiters.Len()
}
