package mirror

import (
	"context"
	"slices"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/shardio"
)

// Repair implements [core.Coder]. Any replica serves as the source.
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
		Scheme:    c.scheme, Shards: r.Shards, ShardSize: r.Extent.Size,
	})
	if err := x.copy(ctx, len(r.Shards), f); err != nil {
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

// copy writes the extent to the n lanes of f.
func (x *extent) copy(ctx context.Context, n int, f *shardio.Fanout) error {
	ctx, cancel := context.WithCancel(ctx)
	pool, size, chunk := &x.c.env.Pool, x.Size(), x.c.env.ChunkSize
	ahead := shardio.Ahead[*shardio.Buffer]{
		N: int((size + chunk - 1) / chunk), Depth: 2,
		Fetch: func(ctx context.Context, i int) (*shardio.Buffer, error) {
			lo := int64(i) * chunk
			return x.fetch(ctx, lo, min(size, lo+chunk))
		},
		Drop: pool.Put,
	}
	defer ahead.Close()
	defer cancel()
	for {
		buf, ok, err := ahead.Next(ctx)
		if err != nil || !ok {
			return err
		}
		if err := f.Push(ctx, slices.Repeat([][]byte{buf.B}, n), func() { pool.Put(buf) }); err != nil {
			return err
		}
	}
}
