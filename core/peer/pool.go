package peer

import (
	"context"
	"fmt"
	"sync"
)

// bulkSize is the number of bytes in which bulk data moves, bulkRoom the space
// for a frame's head in front of them.
const (
	bulkSize = 256 << 10
	bulkRoom = frameHead + bytesPrefix
)

// bulkPool is a pool of buffers of one size.
type bulkPool struct {
	pool *sync.Pool
	size int
}

func newBulkPool(size int) bulkPool {
	return bulkPool{size: size, pool: &sync.Pool{New: func() any {
		b := make([]byte, size)
		return &b
	}}}
}

func (p bulkPool) get() *[]byte { return p.pool.Get().(*[]byte) }

func (p bulkPool) put(b *[]byte) { p.pool.Put(b) }

// pool keeps the stream connections to one node that nobody uses, and bounds
// the number of those in use.
type pool struct {
	r     *remote
	slots chan struct{} // holds a token for each stream

	mu   sync.Mutex
	idle []*streamConn // the last used is the next to be used
}

// get returns a connection that the caller has to itself, until put or drop.
// It does not wait for others to give theirs back: who holds one stream while
// he waits for another could wait for ever.
func (p *pool) get(ctx context.Context) (*streamConn, error) {
	select {
	case p.slots <- struct{}{}:
	default:
		return nil, fmt.Errorf("%d streams to it are open already", cap(p.slots))
	}
	sc, err := p.idleOrNew(ctx)
	if err != nil {
		<-p.slots
	}
	return sc, err
}

func (p *pool) idleOrNew(ctx context.Context) (*streamConn, error) {
	for {
		p.mu.Lock()
		n := len(p.idle)
		if n == 0 {
			p.mu.Unlock()
			break
		}
		sc := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		if sc.c.failed() == nil {
			return sc, nil
		}
	}
	if err := p.r.gate.check(); err != nil {
		return nil, err
	}
	c, err := p.r.t.dial(ctx, p.r, kindStreams)
	if err != nil {
		return nil, err
	}
	sc := &streamConn{c: c}
	if !p.r.t.start(func(context.Context) { sc.receive() }) {
		c.fail(errStopped)
		return nil, errStopped
	}
	return sc, nil
}

// put gives back a connection on which no stream is open.
func (p *pool) put(sc *streamConn) {
	<-p.slots
	sc.c.setActive(false)
	p.mu.Lock()
	full := len(p.idle) >= p.r.t.o.IdleStreams
	if !full {
		p.idle = append(p.idle, sc)
	}
	p.mu.Unlock()
	if full {
		sc.c.fail(errIdle)
	}
}

// drop gives back a connection that cannot be used any more, and says why.
func (p *pool) drop(sc *streamConn, why error) {
	<-p.slots
	sc.c.fail(why)
}

// expire closes a connection if it is still unused.
func (p *pool) expire(c *conn) {
	if p.remove(c) {
		c.fail(errIdle)
	}
}

func (p *pool) remove(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, sc := range p.idle {
		if sc.c == c {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			return true
		}
	}
	return false
}

func (p *pool) idleCount() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle)
}
