package shardio

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// Pool keeps buffers for use again. Sizes are rounded up to one of four steps
// between powers of two, so at most a fifth of a buffer is waste. The zero Pool
// is ready to use.
type Pool struct {
	classes [poolClasses]sync.Pool
	inUse   atomic.Int64
}

const (
	poolSmallest = 10 // log2 of the smallest size
	poolLargest  = 26 // log2 of the largest size that is kept
	poolClasses  = (poolLargest-poolSmallest)*4 + 1
)

// Buffer is a buffer of a Pool.
type Buffer struct {
	// B has the length that was asked for and arbitrary content.
	B     []byte
	class int
}

// class returns the number and the size of the smallest class that holds n.
func class(n int) (int, int) {
	if n <= 1<<poolSmallest {
		return 0, 1 << poolSmallest
	}
	e := bits.Len(uint(n - 1)) // 2^(e-1) < n <= 2^e
	base := 1 << (e - 1)
	q := (n - base + base/4 - 1) / (base / 4)
	return (e-1-poolSmallest)*4 + q, base + q*base/4
}

// Get returns a buffer of n bytes.
func (p *Pool) Get(n int) *Buffer {
	c, size := class(n)
	if c >= poolClasses {
		p.inUse.Add(int64(n))
		return &Buffer{B: make([]byte, n), class: c}
	}
	b, _ := p.classes[c].Get().(*Buffer)
	if b == nil {
		b = &Buffer{B: make([]byte, size), class: c}
	}
	b.B = b.B[:n]
	p.inUse.Add(int64(cap(b.B)))
	return b
}

// Put takes a buffer back. Nobody may use it afterwards. A nil b is ignored.
func (p *Pool) Put(b *Buffer) {
	if b == nil {
		return
	}
	p.inUse.Add(-int64(cap(b.B)))
	if b.class < poolClasses {
		p.classes[b.class].Put(b)
	}
}

// InUse is the number of bytes that were taken and not yet put back.
func (p *Pool) InUse() int64 { return p.inUse.Load() }
