package disk

import (
	"context"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/shoalstore/shoal/core"
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
	// Objects counts the records of objects that rows hold, those in flight
	// included; it is right only if Counted.
	Objects int64
	Slots   int
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
	s.Objects = d.objects.Load()
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

// isObject says whether a version of a row with that prefix is an object's record.
func isObject(prefix []byte, flags byte) bool {
	const space = 1 + 4
	return len(prefix) > space && prefix[space] == byte(core.SpaceObject) && flags&flagDeleted == 0
}

// countObjects goes through the keys of all rows.
func (d *Disk) countObjects(ctx context.Context) (err error) {
	if err := d.read(ctx); err != nil {
		return err
	}
	defer d.leave()
	before := d.objects.Load()
	it, err := d.db.NewIter(&pebble.IterOptions{
		LowerBound: []byte{kindRow, noSuffix}, UpperBound: []byte{kindRow + 1, noSuffix},
	})
	if err != nil {
		return d.readError("count", err)
	}
	defer func() { err = closeIter(it, err) }()
	var count int64
	for ok, n := it.First(), 1; ok; ok, n = it.Next(), n+1 {
		if n%ctxEvery == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		split := splitKey(it.Key())
		s, ok := parseSuffix(it.Key()[split:])
		if !ok {
			return d.readError("count", malformed("row", it.Key()))
		}
		if isObject(it.Key()[:split], s.flags) {
			count++
		}
	}
	if err := it.Error(); err != nil {
		return d.readError("count", err)
	}
	d.objects.Add(count - before)
	return nil
}
