package disk

import (
	"context"
	"fmt"
)

// Stats says how a disk is doing. Counters start when the disk is opened.
type Stats struct {
	// Capacity and Free are those of the file system, in bytes; other disks
	// may share it. Reserve is what of Free is not given out.
	Capacity, Free, Reserve int64
	// MetaBytes is what rows take, logs included.
	MetaBytes int64
	// Shards and ShardBytes count shards and the bytes of their files. They
	// are right only if Counted, see [Disk.Count].
	Shards, ShardBytes int64
	Counted            bool
	Slots              int
	// Corruptions counts the reads that met damaged bytes.
	Corruptions int64
	// Reads, Writes and Syncs count operations on files. A read of a row
	// that is in memory is none.
	Reads, Writes, Syncs OpStats
	// Err is [Disk.Err].
	Err error
}

// Stats returns the present state.
func (d *Disk) Stats(ctx context.Context) (Stats, error) {
	if err := ctx.Err(); err != nil {
		return Stats{}, err
	}
	if err := d.gate.enter(); err != nil {
		return Stats{}, err
	}
	defer d.leave()
	s := Stats{
		Corruptions: d.corruptions.Load(), Err: d.fail.err(),
		Reads: d.fs.reads.stats(), Writes: d.fs.writes.stats(), Syncs: d.fs.sync.stats(),
		MetaBytes: int64(d.db.Metrics().DiskSpaceUsage()),
	}
	d.shards.mu.Lock()
	s.Shards, s.ShardBytes, s.Counted = d.shards.count, d.shards.bytes, d.shards.counted
	d.shards.mu.Unlock()
	d.slotsMu.RLock()
	s.Slots = len(d.slots)
	d.slotsMu.RUnlock()
	u, err := d.fs.Usage(d.dir)
	if err != nil {
		return s, fmt.Errorf("disk %s: free space: %w", d.id.UUID, err)
	}
	s.Capacity, s.Free, s.Reserve = u.Total, u.Free, d.reserve(u.Total)
	return s, nil
}
