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
	spare   [][]byte  // buffers of the usual size, while any is in use
	usual   int
}

type memoryWaiter struct {
	n     int64
	ready chan struct{}
}

func newBlockMemory(total, usual int64) *blockMemory {
	return &blockMemory{free: total, total: total, usual: int(usual)}
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

// buffer returns memory that was granted; the caller holds mu.
func (m *blockMemory) buffer(n int) []byte {
	if k := len(m.spare); k > 0 && n == m.usual {
		b := m.spare[k-1]
		m.spare = m.spare[:k-1]
		return b
	}
	return make([]byte, n)
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

// release gives a buffer back.
func (m *blockMemory) release(buf []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free += int64(len(buf))
	if len(buf) == m.usual {
		m.spare = append(m.spare, buf)
	}
	if m.free == m.total {
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
