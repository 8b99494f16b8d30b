package engine

import (
	"container/list"
	"context"
	"sync"
)

// blockMemory bounds the memory of blocks, in the order in which it is asked
// for. Blocks that nobody is reading and that need not be stored are idle: they
// stay until somebody else waits for their memory.
type blockMemory struct {
	pressed func() // is told that somebody has to wait

	mu      sync.Mutex
	free    int64
	total   int64
	waiters list.List // of *memoryWaiter
	idle    list.List // of *block, the longest idle first
	usual   int
	// mapped are the buffers of the usual size that lie outside of the Go heap, spare
	// those that are not used while others are, and clean those without memory.
	mapped       map[*byte]bool
	spare, clean [][]byte
}

type memoryWaiter struct {
	n     int64
	ready chan struct{}
}

func newBlockMemory(total, usual int64) *blockMemory {
	return &blockMemory{free: total, total: total, usual: int(usual), mapped: map[*byte]bool{}}
}

// acquire waits for a buffer of n bytes; n is at most the total.
func (m *blockMemory) acquire(ctx context.Context, n int) ([]byte, error) {
	m.mu.Lock()
	if m.waiters.Len() == 0 && m.free >= int64(n) {
		m.free -= int64(n)
		defer m.mu.Unlock()
		return m.buffer(n), nil
	}
	w := &memoryWaiter{n: int64(n), ready: make(chan struct{})}
	at := m.waiters.PushBack(w)
	victims := m.victims()
	m.mu.Unlock()
	for _, b := range victims {
		b.session.dropIdle(b)
	}
	m.pressed()
	select {
	case <-w.ready:
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.buffer(n), nil
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-w.ready:
		m.free += w.n
	default:
		m.waiters.Remove(at)
	}
	m.grant()
	return nil, context.Cause(ctx)
}

// buffer returns memory that was granted; the caller holds mu. That of large blocks
// lies outside of the Go heap: it is not cleared before the first byte comes, and no
// collection begins for it.
func (m *blockMemory) buffer(n int) []byte {
	if n <= m.usual/2 || n > m.usual {
		return make([]byte, n)
	}
	for _, from := range []*[][]byte{&m.spare, &m.clean} {
		if k := len(*from); k > 0 {
			b := (*from)[k-1]
			*from = (*from)[:k-1]
			return b[:n]
		}
	}
	b := mapMemory(m.usual)
	if b == nil {
		return make([]byte, n)
	}
	m.mapped[&b[0]] = true
	return b[:n]
}

// victims takes idle blocks whose memory somebody waits for; the caller holds mu
// and drops them after that.
func (m *blockMemory) victims() (out []*block) {
	need := -m.free
	for e := m.waiters.Front(); e != nil; e = e.Next() {
		need += e.Value.(*memoryWaiter).n
	}
	for need > 0 && m.idle.Len() > 0 {
		b := m.idle.Remove(m.idle.Front()).(*block)
		b.idle = nil
		need -= int64(len(b.buf))
		out = append(out, b)
	}
	return out
}

// grant gives free memory to who waits; the caller holds mu.
func (m *blockMemory) grant() {
	for e := m.waiters.Front(); e != nil; e = m.waiters.Front() {
		w := e.Value.(*memoryWaiter)
		if w.n > m.free {
			return
		}
		m.free -= w.n
		m.waiters.Remove(e)
		close(w.ready)
	}
}

// release gives a buffer back. When none is in use their memory goes.
func (m *blockMemory) release(buf []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free += int64(len(buf))
	if len(buf) > 0 && m.mapped[&buf[0]] {
		m.spare = append(m.spare, buf[:m.usual])
	}
	if m.free == m.total {
		for _, b := range m.spare {
			forgetMemory(b)
			m.clean = append(m.clean, b)
		}
		m.spare = nil
	}
	m.grant()
}

// setIdle says that a block may be dropped. It returns false if somebody waits
// for its memory, so that the caller drops it.
func (m *blockMemory) setIdle(b *block) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waiters.Len() > 0 {
		return false
	}
	if b.idle == nil {
		b.idle = m.idle.PushBack(b)
	}
	return true
}

// setBusy takes a block back, unless it is about to be dropped.
func (m *blockMemory) setBusy(b *block) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b.idle != nil {
		m.idle.Remove(b.idle)
		b.idle = nil
	}
}

// wanted says whether somebody waits for memory.
func (m *blockMemory) wanted() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.waiters.Len() > 0
}
