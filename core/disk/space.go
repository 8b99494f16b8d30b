package disk

import (
	"context"
	"fmt"

	"github.com/shoalstore/shoal/core"
)

const (
	// usageEvery and metricsEvery are the bytes written after which the free
	// space and Pebble's state are looked at again.
	usageEvery   = 1 << 20
	metricsEvery = 1 << 20
)

// reserve is the free space that is kept, in bytes.
func (d *Disk) reserve(total int64) int64 {
	switch {
	case d.opt.Reserve < 0:
		return 0
	case d.opt.Reserve > 0:
		return d.opt.Reserve
	}
	return min(total/reserveShare, maxReserve)
}

// Room says whether the disk would take a shard of that many bytes now, or
// why not: ErrNoSpace or ErrDiskFailed. It does not reserve anything.
func (d *Disk) Room(bytes int64) error {
	if err := d.fail.err(); err != nil {
		return fmt.Errorf("disk %s: %w", d.id.UUID, err)
	}
	return d.room(max(bytes, 0), 1)
}

// RowRoom is Room for rows. It asks the file system now and then only, and
// always while space is short.
func (d *Disk) RowRoom(bytes int64) error {
	if d.sinceUsage.Load() > bytes && !d.fail.failed() {
		return nil
	}
	return d.Room(bytes)
}

// room refuses what would leave less free than a part of the reserve.
func (d *Disk) room(bytes, part int64) error {
	u, err := d.fs.Usage(d.dir)
	if err != nil {
		return fmt.Errorf("disk %s: free space: %w", d.id.UUID, err)
	}
	keep := d.reserve(u.Total) / part
	if u.Free-bytes < keep {
		return fmt.Errorf("disk %s: %d bytes are free, %d are kept in reserve, %d are wanted: %w",
			d.id.UUID, u.Free, keep, bytes, core.ErrNoSpace)
	}
	d.sched.offer()
	return nil
}

// mayCompact says whether a compaction makes sense now. It needs space for its
// output before its input can go. None may run before Pebble is open: where
// opening it fails late, it would not wait for them.
func (d *Disk) mayCompact() bool {
	if d.fail.failed() || !d.opened.Load() {
		return false
	}
	u, err := d.fs.Usage(d.dir)
	return err == nil && u.Free >= d.reserve(u.Total)/4
}

// rowRoom is room for rows of that many bytes. To ask the file system each
// time would cost as much as a small row, so it is asked now and then, and
// always while space is short.
func (d *Disk) rowRoom(bytes int64) error {
	if d.sinceUsage.Add(-bytes) > 0 {
		return nil
	}
	if err := d.room(bytes, 2); err != nil {
		return err
	}
	if d.room(bytes+16*usageEvery, 1) == nil {
		d.sinceUsage.Store(usageEvery)
	}
	return nil
}

// throttle holds writes back while compactions do not keep up, so that reads
// stay fast and the files few. It ends when they have, when ctx does, or when
// the disk fails.
func (d *Disk) throttle(ctx context.Context, bytes int64) error {
	if d.sinceMetrics.Add(bytes) < metricsEvery {
		return nil
	}
	d.sinceMetrics.Store(0)
	for {
		again := d.progressed()
		if d.db.Metrics().Levels[0].Sublevels < stopAtReadAmp || !d.mayCompact() {
			return nil
		}
		select {
		case <-again:
		case <-d.fail.done:
			return d.fail.err()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// progressed is closed when Pebble has next finished something.
func (d *Disk) progressed() <-chan struct{} {
	d.progress.mu.Lock()
	defer d.progress.mu.Unlock()
	return d.progress.ch
}

func (d *Disk) compacted() {
	d.progress.mu.Lock()
	defer d.progress.mu.Unlock()
	close(d.progress.ch)
	d.progress.ch = make(chan struct{})
}
