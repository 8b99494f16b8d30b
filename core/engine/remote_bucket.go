package engine

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/remote"
)

// forgetters is how many rows of a bucket are forgotten at a time.
const forgetters = 32

// forgetBucket removes everything that the cluster has of a remote bucket, which
// refuses all other writes already. The remote stays as it is. It is refused while
// writes are under way.
func (n *Node) forgetBucket(ctx context.Context, b *core.Bucket) error {
	err := n.rowsOf(ctx, b, core.SpaceIntent, func(f *core.Found) error {
		in, err := remote.DecodeIntent(f.Value)
		if err == nil && in.Pending() {
			err = fmt.Errorf("bucket %s: %q is being written to the remote: %w", b.Name, f.Key, core.ErrConflict)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, space := range []core.Space{core.SpaceObject, core.SpacePart, core.SpaceUpload, core.SpaceIntent} {
		var group errgroup.Group
		group.SetLimit(forgetters)
		err := n.rowsOf(ctx, b, space, func(f *core.Found) error {
			k := f.RowKey
			group.Go(func() error {
				m := n.mutation(b, k.Key, core.RequestID{})
				m.entry.Rows = []core.Row{{RowKey: k, Deleted: true}}
				_, err := n.write(ctx, m)
				return err
			})
			return nil
		})
		if gone := group.Wait(); err == nil {
			err = gone
		}
		if err != nil {
			return fmt.Errorf("bucket %s: %w", b.Name, err)
		}
	}
	return nil
}

// rowsOf calls f for all rows of a bucket's space.
func (n *Node) rowsOf(ctx context.Context, b *core.Bucket, space core.Space, f func(*core.Found) error) error {
	const pageSize = 1000
	scan := core.Scan{Bucket: b.ID, Space: space}
	for more := true; more; {
		var found []core.Found
		var err error
		if found, more, err = n.page(ctx, scan, pageSize, false); err != nil {
			return err
		}
		for i := range found {
			if err := f(&found[i]); err != nil {
				return err
			}
		}
		if len(found) == 0 {
			return nil
		}
		last := &found[len(found)-1]
		scan.AfterKey, scan.AfterSub = last.Key, last.Sub
	}
	return nil
}

// forgets says whether a write only removes rows of a remote bucket: that is
// taken while the bucket itself is being removed.
func forgets(b *core.Bucket, rows []core.Row) bool {
	if b == nil || b.State != core.BucketDeleting || !b.Name.Remote() {
		return false
	}
	for i := range rows {
		if !rows[i].Deleted {
			return false
		}
	}
	return true
}
