package ec

import (
	"context"
	"slices"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/shardio"
)

// Repair implements [core.Coder].
func (c *Coder) Repair(ctx context.Context, r core.RepairSpec) (core.Extent, error) {
	if err := shardio.CheckRepair(&r, c.scheme); err != nil {
		return core.Extent{}, err
	}
	x, err := c.extent(ctx, r.ReadSpec)
	if err != nil {
		return core.Extent{}, err
	}
	defer x.shards.Close()
	f := c.env.NewFanout(ctx, shardio.FanoutSpec{
		WriteSpec: core.WriteSpec{Extent: r.Extent.ID, Meta: r.Meta, Dst: r.Dst, Substitute: r.Substitute, Min: r.Min},
		Scheme:    c.scheme, Shards: r.Shards, ShardSize: x.layout.shardSize(),
	})
	if err := x.rebuild(ctx, r.Shards, f); err != nil {
		return core.Extent{}, f.Abort(ctx, err)
	}
	places, err := f.Commit(ctx)
	if err != nil {
		return core.Extent{}, err
	}
	e := r.Extent
	e.Places = slices.Clone(e.Places)
	for j, p := range places {
		if p.Disk != 0 {
			e.Places[r.Shards[j]] = p
		}
	}
	return e, nil
}

// rebuild writes the whole of some shards to f.
func (x *extent) rebuild(ctx context.Context, shards []int, f *shardio.Fanout) error {
	ctx, cancel := context.WithCancel(ctx)
	step := x.window / int64(x.c.k)
	size := x.layout.shardSize()
	ahead := shardio.Ahead[[]shardRun]{
		N: int((size + step - 1) / step), Depth: 2,
		Fetch: func(ctx context.Context, i int) ([]shardRun, error) {
			return x.gatherRun(ctx, shards, span{int64(i) * step, min(size, int64(i+1)*step)})
		},
		Drop: func(runs []shardRun) {
			for _, r := range runs {
				r.release()
			}
		},
	}
	defer ahead.Close()
	defer cancel()
	for {
		runs, ok, err := ahead.Next(ctx)
		if err != nil || !ok {
			return err
		}
		for i, r := range runs {
			parts := make([][]byte, len(shards))
			for j, s := range shards {
				parts[j] = r.have[s].bytes(r.span)
			}
			if err := f.Push(ctx, parts, r.release); err != nil {
				ahead.Drop(runs[i+1:])
				return err
			}
		}
	}
}

// shardRun is the same span of several shards.
type shardRun struct {
	span
	*gathering
}

// gatherRun brings a span of some shards into memory: in one piece, or, where
// more than M of the others are damaged in different places, in several.
func (x *extent) gatherRun(ctx context.Context, shards []int, s span) ([]shardRun, error) {
	var need [maxWidth]span
	for _, i := range shards {
		need[i] = s
	}
	g, err := x.gather(ctx, need[:x.c.k+x.c.m])
	if err == nil {
		return []shardRun{{s, g}}, nil
	}
	if s.len() <= shardio.BlockSize || ctx.Err() != nil || !x.shards.Damaged() {
		return nil, err
	}
	var all []shardRun
	for lo := s.lo; lo < s.hi; lo += shardio.BlockSize {
		runs, err := x.gatherRun(ctx, shards, span{lo, min(s.hi, lo+shardio.BlockSize)})
		if err != nil {
			for _, r := range all {
				r.release()
			}
			return nil, err
		}
		all = append(all, runs...)
	}
	return all, nil
}
