package ec

import (
	"context"
	"fmt"
	"io"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/shardio"
)

// extent is an open extent.
type extent struct {
	c      *Coder
	spec   core.ReadSpec
	layout layout
	shards *shardio.Shards
	window int64 // number of bytes fetched at once, a multiple of the stripe
}

// Open implements [core.Coder].
func (c *Coder) Open(ctx context.Context, r core.ReadSpec) (core.ExtentReader, error) {
	x, err := c.extent(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := x.shards.OpenSome(ctx, c.k); err != nil {
		x.shards.Close()
		return nil, err
	}
	return x, nil
}

// extent returns an extent none of whose shards is open yet.
func (c *Coder) extent(ctx context.Context, r core.ReadSpec) (*extent, error) {
	if err := shardio.CheckRead(&r, c.scheme); err != nil {
		return nil, err
	}
	unit := r.Extent.Unit
	if unit <= 0 || unit > maxUnit || unit%align != 0 {
		return nil, fmt.Errorf("extent %x has units of %d bytes, not a multiple of %d up to %d: %w",
			r.Extent.ID, unit, align, maxUnit, core.ErrInvalid)
	}
	l := layout{k: c.k, m: c.m, unit: int64(unit), size: r.Extent.Size}
	return &extent{
		c: c, spec: r, layout: l,
		shards: c.env.NewShards(ctx, r, l.shardSize(), numbers(c.k+c.m)),
		window: max(1, c.env.ChunkSize/l.stripe()) * l.stripe(),
	}, nil
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
	return x.c.env.NewStream(ctx, off, n, shardio.Feed{Chunk: x.window, Fetch: x.fetch, Now: x.now})
}

// now returns the bytes from lo on if their shard has them in memory: those of
// one unit at most.
func (x *extent) now(lo, hi int64) (shardio.Window, bool) {
	shard, at, n := x.layout.locate(lo)
	n = min(n, hi-lo, shardio.NowEnd(at)-at)
	buf := x.c.env.Pool.Get(int(n))
	if !x.shards.ReadNow(shard, buf.B, at) {
		x.c.env.Pool.Put(buf)
		return shardio.Window{}, false
	}
	return shardio.Window{Parts: [][]byte{buf.B}, Release: func() { x.c.env.Pool.Put(buf) }}, true
}

// fetch returns bytes lo to hi of the extent.
func (x *extent) fetch(ctx context.Context, lo, hi int64) (shardio.Window, error) {
	var need [maxWidth]span
	count := 0
	x.layout.runs(lo, hi, func(r run) {
		need[r.shard] = need[r.shard].hull(r.span)
		count++
	})
	g, err := x.gather(ctx, need[:x.c.k+x.c.m])
	if err != nil && hi-lo > shardio.BlockSize && ctx.Err() == nil && x.shards.Damaged() {
		return x.fetchHalves(ctx, lo, hi)
	}
	if err != nil {
		return shardio.Window{}, err
	}
	parts := make([][]byte, 0, count)
	x.layout.runs(lo, hi, func(r run) { parts = append(parts, g.have[r.shard].bytes(r.span)) })
	return shardio.Window{Parts: parts, Release: g.release}, nil
}

// fetchHalves fetches in two steps what could not be had in one, since more
// than M shards are damaged: that may be so in different places.
func (x *extent) fetchHalves(ctx context.Context, lo, hi int64) (shardio.Window, error) {
	mid := (lo + (hi-lo)/2 + shardio.BlockSize - 1) / shardio.BlockSize * shardio.BlockSize
	if mid >= hi {
		mid = lo + (hi-lo)/2
	}
	a, err := x.fetch(ctx, lo, mid)
	if err != nil {
		return shardio.Window{}, err
	}
	b, err := x.fetch(ctx, mid, hi)
	if err != nil {
		a.Release()
		return shardio.Window{}, err
	}
	return shardio.Window{Parts: append(a.Parts, b.Parts...), Release: func() { a.Release(); b.Release() }}, nil
}
