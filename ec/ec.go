// Package ec keeps extents as Reed-Solomon coded shards: K of data, M of
// parity, any K of which suffice. It implements [core.Coder] over stores and
// knows nothing of nodes or configuration. The layout of the shards is
// specified in layout.go.
//
//	c, err := ec.New(core.ErasureCoded(4, 2), ec.Options{Clock: clock})
//	extent, err := c.Write(ctx, core.WriteSpec{Dst: disks, Size: -1}, body)
//	r, err := c.Open(ctx, core.ReadSpec{Extent: extent, Src: stores})
//	_, err = io.Copy(w, r.Reader(ctx, 0, r.Size()))
//
// A write streams: it reads a stripe, computes the parity while the data is in
// the processor's cache, and hands the units to a goroutine per shard. A read
// takes the data shards only, and just the bytes that are asked for. Bytes that
// do not come, because a shard is gone, damaged or slow, are rebuilt from the
// same range of the others; the reader does not notice.
package ec

import (
	"context"
	"fmt"
	"io"

	"github.com/klauspost/reedsolomon"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/shardio"
)

// Options tune a Coder.
type Options = shardio.Options

// Coder implements [core.Coder] for one erasure-coded scheme.
type Coder struct {
	env    *shardio.Env
	scheme core.Scheme
	k, m   int
	unit   int64
	rs     reedsolomon.Encoder
}

var _ core.Coder = (*Coder)(nil)

// New returns a coder for an erasure-coded scheme.
func New(s core.Scheme, o Options) (*Coder, error) {
	if !s.EC || s.K < core.MinData || s.K > core.MaxData || s.M < 1 || s.M > core.MaxParity {
		return nil, fmt.Errorf("scheme %v is not erasure-coded with K %d to %d and M 1 to %d: %w",
			s, core.MinData, core.MaxData, core.MaxParity, core.ErrInvalid)
	}
	rs, err := reedsolomon.New(s.K, s.M, reedsolomon.WithMaxGoroutines(goroutines(s.K)))
	if err != nil {
		return nil, fmt.Errorf("scheme %v: %w", s, err)
	}
	env := shardio.NewEnv(o)
	return &Coder{env: env, scheme: s, k: s.K, m: s.M, unit: unitSize(s.K, s.M, env.ChunkSize), rs: rs}, nil
}

// goroutines is into how many pieces the library may cut a stripe. It takes some
// 50 microseconds, and several requests keep all cores busy better than one in
// pieces. But with one piece and more than 10 data shards the library (1.14) does
// not find its GFNI code: 5 GB/s on one core for 16+8 instead of 15.
func goroutines(k int) int {
	if k > 10 {
		return 2
	}
	return 1
}

// Scheme implements [core.Coder].
func (c *Coder) Scheme() core.Scheme { return c.scheme }

// Wait implements [core.Coder].
func (c *Coder) Wait() { c.env.Wait() }

// InUse is the number of bytes in the coder's buffers, those of calls that were
// given up included.
func (c *Coder) InUse() int64 { return c.env.Pool.InUse() }

func (c *Coder) layout(size int64) layout {
	return layout{k: c.k, m: c.m, unit: c.unit, size: size}
}

// Write implements [core.Coder].
func (c *Coder) Write(ctx context.Context, w core.WriteSpec, src io.Reader) (core.Extent, error) {
	if err := shardio.CheckWrite(&w, c.scheme); err != nil {
		return core.Extent{}, err
	}
	if w.Limit > 0 {
		src = io.LimitReader(src, w.Limit)
		w.Size = min(w.Size, w.Limit)
	}
	shardSize := int64(-1)
	if w.Size >= 0 {
		shardSize = c.layout(w.Size).shardSize()
	}
	f := c.env.NewFanout(ctx, shardio.FanoutSpec{
		WriteSpec: w, Scheme: c.scheme, Shards: numbers(c.k + c.m), ShardSize: shardSize,
	})
	e := core.Extent{ID: w.Extent, Scheme: c.scheme, Unit: int(c.unit)}
	for end := false; !end; {
		n, last, err := c.writeStripe(ctx, f, src, w.Size-e.Size)
		if err != nil {
			return core.Extent{}, f.Abort(ctx, err)
		}
		e.Size += int64(n)
		end = last
	}
	if e.Size == 0 {
		return core.Extent{}, f.Abort(ctx, nil)
	}
	var err error
	if e.Places, err = f.Commit(ctx); err != nil {
		return core.Extent{}, err
	}
	return e, nil
}

// writeStripe hands the next stripe of src to f. It returns the stripe's length,
// and true if it is the last one.
func (c *Coder) writeStripe(ctx context.Context, f *shardio.Fanout, src io.Reader, expect int64) (int, bool, error) {
	buf, n, end, err := c.fill(src, expect)
	var parts [][]byte
	if err == nil && n > 0 {
		parts, err = c.encode(buf.B, n)
	}
	if err != nil || n == 0 {
		c.env.Pool.Put(buf)
		return 0, end, err
	}
	return n, end, f.Push(ctx, parts, func() { c.env.Pool.Put(buf) })
}

// fill reads the next stripe of src into a buffer that has room for its parity
// too. expect is the number of bytes that src is expected to have left, below
// 0 if unknown. It returns end with the last stripe, which may be empty.
func (c *Coder) fill(src io.Reader, expect int64) (buf *shardio.Buffer, n int, end bool, err error) {
	width, k := c.k+c.m, c.k
	unit := int(c.unit)
	if expect >= 0 && expect < c.layout(0).stripe() {
		unit = min(unit, int(tailUnit(expect+1, k))) // one more, to see the end
	}
	buf = c.env.Pool.Get(unit * width)
	n, end, err = shardio.Fill(src, buf.B[:unit*k])
	if err == nil && !end && unit < int(c.unit) { // more than was expected
		whole := c.env.Pool.Get(int(c.unit) * width)
		copy(whole.B, buf.B[:n])
		c.env.Pool.Put(buf)
		buf = whole
		var more int
		more, end, err = shardio.Fill(src, buf.B[n:int(c.unit)*k])
		n += more
	}
	return buf, n, end, err
}

// encode returns the units of a stripe whose n bytes of data b begins with.
// The rest of b, which has room for all units, is overwritten.
func (c *Coder) encode(b []byte, n int) ([][]byte, error) {
	unit := int(min(c.unit, tailUnit(int64(n), c.k)))
	clear(b[n : c.k*unit])
	parts := make([][]byte, c.k+c.m)
	for i := range parts {
		parts[i] = b[i*unit : (i+1)*unit : (i+1)*unit]
	}
	if err := c.rs.Encode(parts); err != nil {
		return nil, fmt.Errorf("compute parity of a stripe of %d bytes: %w", n, err)
	}
	return parts, nil
}

func numbers(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}
