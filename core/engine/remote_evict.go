package engine

import (
	"context"
	"fmt"

	"github.com/shoalstore/shoal/core"
)

// Evict drops what is present of an object of a remote bucket, if it has the
// given version; zero: any. With keepMD its metadata stays. It returns the bytes
// of the object that were present. ErrNotFound says that nothing is, ErrConflict
// that the object has another version or is being written.
func (n *Node) Evict(ctx context.Context, bucket core.Bucket, key string, version core.Version, keepMD bool) (int64, error) {
	if !bucket.Name.Remote() {
		return 0, fmt.Errorf("evict %s/%s: the bucket has the only copy: %w", bucket.Name, key, core.ErrInvalid)
	}
	name := objectName{bucket.ID, key}
	f, err := n.remoteRow(ctx, n.SlotOf(bucket.ID, key), name, false)
	switch {
	case err != nil:
		return 0, err
	case f.unsettled:
		return 0, fmt.Errorf("evict %s/%s: it is being written: %w", bucket.Name, key, core.ErrConflict)
	case f.rec == nil:
		return 0, fmt.Errorf("evict %s/%s: %w", bucket.Name, key, core.ErrNotFound)
	case !version.IsZero() && f.row.Version != version:
		return 0, fmt.Errorf("evict %s/%s: it was changed meanwhile: %w", bucket.Name, key, core.ErrConflict)
	}
	freed := f.rec.StoredBytes()
	k := objectKey(bucket.ID, key)
	row := core.Row{RowKey: k, Deleted: true}
	if keepMD {
		rec := *f.rec
		rec.Inline, rec.Extents = nil, nil
		rec.Remote = &core.RemoteCopy{Version: remoteVersion(f.rec), Partial: true}
		row = core.Row{RowKey: k, Value: core.AppendRecord(nil, &rec)}
	}
	m := n.mutation(&bucket, key, core.RequestID{})
	m.checks = []check{
		{kind: checkVersion, row: k, version: f.row.Version},
		{kind: checkVersion, row: intentKey(name), version: f.intent},
	}
	m.entry.Rows = []core.Row{row}
	_, err = n.write(ctx, m)
	return freed, err
}
