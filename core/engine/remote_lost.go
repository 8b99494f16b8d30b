package engine

import (
	"context"

	"github.com/shoalstore/shoal/core"
)

// What is present of a remote object need not be repaired at any price: where too
// few shards are left the record goes, and the next read is cold.

// lostForGood says whether so many shards of an object are on disks that are lost,
// as far as the map tells, that the rest does not suffice.
func (h *reconciler) lostForGood(m *core.Map, rec *core.Record) bool {
	for i := range rec.Extents {
		if h.hope(m, &rec.Extents[i], nil) < rec.Extents[i].Scheme.MinRead() {
			return true
		}
	}
	return false
}

// beyondRepair is lostForGood after looking at every shard that can be reached.
func (h *reconciler) beyondRepair(ctx context.Context, m *core.Map, rec *core.Record) bool {
	for i := range rec.Extents {
		e := &rec.Extents[i]
		bad := h.verify(ctx, e, h.node.sources(m, e))
		if ctx.Err() != nil {
			return false
		}
		if h.hope(m, e, bad) < e.Scheme.MinRead() {
			return true
		}
	}
	return false
}

// hope counts the shards of an extent that can be read, or may be again.
func (h *reconciler) hope(m *core.Map, e *core.Extent, bad []bool) (n int) {
	for i, p := range e.Places {
		if p.Disk != 0 && !h.lostDisk(m, p.Disk) && (bad == nil || !bad[i]) {
			n++
		}
	}
	return n
}

// lostDisk says whether nobody waits for a disk any more.
func (h *reconciler) lostDisk(m *core.Map, id core.DiskID) bool {
	d := m.Disk(id)
	if d == nil || d.State == core.DiskFailed || d.State == core.DiskDetached {
		return true
	}
	n := m.Node(d.Node)
	return n == nil || n.State == core.NodeDecommissioned ||
		n.State == core.NodeDown && h.node.clock.Now().Sub(n.Since) > h.node.opt.Grace
}

// forget removes the record of a remote object of which too little is left, if it
// is still the same one.
func (h *reconciler) forget(ctx context.Context, b *core.Bucket, row *core.Row) error {
	h.node.log.Warn("what was present of a remote object is lost; it will be fetched again", "bucket", b.Name.String(), "key", row.Key)
	m := h.node.mutation(b, row.Key, core.RequestID{})
	m.need.Domains = 1
	m.checks = []check{{kind: checkVersion, row: row.RowKey, version: row.Version}}
	m.entry.Rows = []core.Row{{RowKey: row.RowKey, Deleted: true}}
	_, err := h.node.write(ctx, m)
	return err
}

// forgoes says whether an object that could not be repaired is one of a remote
// bucket, and was forgotten. rec is nil where it could not be read.
func (h *reconciler) forgoes(ctx context.Context, m *core.Map, b *core.Bucket, row *core.Row, rec *core.Record) bool {
	if rec == nil || !b.Name.Remote() || row.Space != core.SpaceObject || ctx.Err() != nil || !h.beyondRepair(ctx, m, rec) {
		return false
	}
	return h.forget(ctx, b, row) == nil
}
