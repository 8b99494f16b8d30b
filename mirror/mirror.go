// Package mirror keeps extents as equal replicas, or, for the scheme "none", as
// a single copy. It implements [core.Coder] over stores and knows nothing of
// nodes or configuration.
//
//	c, err := mirror.New(core.Mirror(3), mirror.Options{Clock: clock})
//	extent, err := c.Write(ctx, core.WriteSpec{Dst: disks, Size: -1}, body)
//	r, err := c.Open(ctx, core.ReadSpec{Extent: extent, Src: stores})
//	_, err = io.Copy(w, r.Reader(ctx, 0, r.Size()))
//
// A shard is the data of the extent as it is; the extent's Unit is 0. A read
// takes one replica, one on this node if there is one and otherwise a different
// one for each open extent; where that fails or is slow another goes on from
// the same byte.
package mirror

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/shardio"
)

// Options tune a Coder.
type Options = shardio.Options

// Coder implements [core.Coder] for mirror-N and none.
type Coder struct {
	env    *shardio.Env
	scheme core.Scheme
	opened atomic.Uint64 // extents, to spread reads by
}

var _ core.Coder = (*Coder)(nil)

// New returns a coder for mirror-N or none.
func New(s core.Scheme, o Options) (*Coder, error) {
	if s.EC || s.Data() != 1 || s.M < 0 || s.Width() > core.MaxMirror {
		return nil, fmt.Errorf("scheme %v is not none or mirror-N with N 2 to %d: %w", s, core.MaxMirror, core.ErrInvalid)
	}
	s.K = 1
	return &Coder{env: shardio.NewEnv(o), scheme: s}, nil
}

// Scheme implements [core.Coder].
func (c *Coder) Scheme() core.Scheme { return c.scheme }

// Wait implements [core.Coder].
func (c *Coder) Wait() { c.env.Wait() }

// InUse is the number of bytes in the coder's buffers, those of calls that were
// given up included.
func (c *Coder) InUse() int64 { return c.env.Pool.InUse() }

// Write implements [core.Coder].
func (c *Coder) Write(ctx context.Context, w core.WriteSpec, src io.Reader) (core.Extent, error) {
	if err := shardio.CheckWrite(&w, c.scheme); err != nil {
		return core.Extent{}, err
	}
	if w.Limit > 0 {
		src = io.LimitReader(src, w.Limit)
		w.Size = min(w.Size, w.Limit)
	}
	f := c.env.NewFanout(ctx, shardio.FanoutSpec{
		WriteSpec: w, Scheme: c.scheme, Shards: numbers(c.scheme.Width()), ShardSize: w.Size,
	})
	e := core.Extent{ID: w.Extent, Scheme: c.scheme}
	for end := false; !end; {
		size := c.env.ChunkSize
		if left := w.Size - e.Size; left >= 0 {
			size = min(size, left+1) // one more, to see the end
		}
		buf := c.env.Pool.Get(int(size))
		var n int
		var err error
		n, end, err = shardio.Fill(src, buf.B)
		if err == nil && n > 0 {
			err = f.Push(ctx, slices.Repeat([][]byte{buf.B[:n]}, c.scheme.Width()), func() { c.env.Pool.Put(buf) })
			e.Size += int64(n)
		} else {
			c.env.Pool.Put(buf)
		}
		if err != nil {
			return core.Extent{}, f.Abort(ctx, err)
		}
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

func numbers(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}
