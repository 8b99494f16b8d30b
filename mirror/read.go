package mirror

import (
	"context"
	"io"
	"slices"
	"sync/atomic"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/shardio"
)

// extent is an open extent.
type extent struct {
	c      *Coder
	spec   core.ReadSpec
	shards *shardio.Shards
}

// Open implements [core.Coder].
func (c *Coder) Open(ctx context.Context, r core.ReadSpec) (core.ExtentReader, error) {
	x, err := c.extent(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := x.shards.OpenSome(ctx, 1); err != nil {
		x.shards.Close()
		return nil, err
	}
	return x, nil
}

// extent returns an extent none of whose replicas is open yet.
func (c *Coder) extent(ctx context.Context, r core.ReadSpec) (*extent, error) {
	if err := shardio.CheckRead(&r, c.scheme); err != nil {
		return nil, err
	}
	return &extent{c: c, spec: r, shards: c.env.NewShards(ctx, r, r.Extent.Size, c.order(r.Src))}, nil
}

// order lists the replicas: those on this node, then the others, from a
// different one on each time.
func (c *Coder) order(src []core.Store) []int {
	var local, other []int
	for i, s := range src {
		switch {
		case s == nil:
		case isLocal(s):
			local = append(local, i)
		default:
			other = append(other, i)
		}
	}
	turn := c.opened.Add(1)
	return append(rotate(local, turn), rotate(other, turn)...)
}

// rotate returns s from another element on for each turn.
func rotate(s []int, turn uint64) []int {
	if len(s) < 2 {
		return s
	}
	first := int(turn % uint64(len(s)))
	return slices.Concat(s[first:], s[:first])
}

func isLocal(s core.Store) bool {
	l, ok := s.(core.Localizer)
	return ok && l.Local()
}

// Size implements [core.ExtentReader].
func (x *extent) Size() int64 { return x.spec.Extent.Size }

// Close implements [core.ExtentReader].
func (x *extent) Close() error {
	x.shards.Close()
	return nil
}

// Reader implements [core.ExtentReader].
func (x *extent) Reader(ctx context.Context, off, n int64) io.ReadCloser {
	if err := shardio.CheckRange(off, n, x.Size()); err != nil {
		return shardio.FailedStream(err)
	}
	return x.c.env.NewStream(ctx, off, n, shardio.Feed{
		Chunk: x.c.env.ChunkSize, Now: x.now,
		Fetch: func(ctx context.Context, lo, hi int64) (shardio.Window, error) {
			buf, err := x.fetch(ctx, lo, hi)
			if err != nil {
				return shardio.Window{}, err
			}
			return x.window(buf), nil
		},
	})
}

func (x *extent) window(buf *shardio.Buffer) shardio.Window {
	return shardio.Window{Parts: [][]byte{buf.B}, Release: func() { x.c.env.Pool.Put(buf) }}
}

// now returns the bytes from lo on if the replica that would be asked first has
// them in memory.
func (x *extent) now(lo, hi int64) (shardio.Window, bool) {
	best := x.shards.Best()
	if best < 0 {
		return shardio.Window{}, false
	}
	buf := x.c.env.Pool.Get(int(min(hi, shardio.NowEnd(lo)) - lo))
	if !x.shards.ReadNow(best, buf.B, lo) {
		x.c.env.Pool.Put(buf)
		return shardio.Window{}, false
	}
	return x.window(buf), true
}

// Section implements [core.Sectioner]: a replica is the content as it is.
func (x *extent) Section() (core.Section, bool) {
	best := x.shards.Best()
	if best < 0 {
		return core.Section{}, false
	}
	return x.shards.Section(best)
}

// fetch returns bytes lo to hi of the extent. Where every replica is damaged,
// but not all in the same place, it is put together from several.
func (x *extent) fetch(ctx context.Context, lo, hi int64) (*shardio.Buffer, error) {
	buf, err := x.fetchOne(ctx, lo, hi)
	if err == nil || hi-lo <= shardio.BlockSize || ctx.Err() != nil || !x.shards.Damaged() {
		return buf, err
	}
	pool := &x.c.env.Pool
	whole := pool.Get(int(hi - lo))
	for at := lo; at < hi; {
		end := min(hi, (at/shardio.BlockSize+1)*shardio.BlockSize)
		block, err := x.fetchOne(ctx, at, end)
		if err != nil {
			pool.Put(whole)
			return nil, err
		}
		copy(whole.B[at-lo:], block.B)
		pool.Put(block)
		at = end
	}
	return whole, nil
}

// fetchOne returns bytes lo to hi of the first replica that delivers them.
func (x *extent) fetchOne(ctx context.Context, lo, hi int64) (*shardio.Buffer, error) {
	pool := &x.c.env.Pool
	if best := x.shards.Best(); best >= 0 {
		buf := pool.Get(int(hi - lo))
		if x.shards.ReadNow(best, buf.B, lo) {
			return buf, nil
		}
		pool.Put(buf)
	}
	var winner atomic.Pointer[shardio.Buffer]
	out, ok, err := x.c.env.First(ctx, 1, x.shards.Order(), func(ctx context.Context, i int) error {
		buf := pool.Get(int(hi - lo))
		err := x.shards.ReadAt(ctx, i, buf.B, lo)
		if err != nil || !winner.CompareAndSwap(nil, buf) {
			pool.Put(buf)
		}
		return err
	})
	x.shards.Note(out)
	if err == nil && ok {
		return winner.Load(), nil
	}
	if late := winner.Swap(new(shardio.Buffer)); late != nil {
		pool.Put(late)
	}
	if err != nil {
		return nil, err
	}
	return nil, x.shards.Unreadable()
}
