package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
)

// health counts what goes wrong with disks.
type health struct {
	mu     sync.Mutex
	faults map[core.DiskID]*diskFaults
}

// diskFaults are counts since the node's start.
type diskFaults struct {
	corrupt, missing, failed int64
}

// shardFailed notes a shard that could not be read or written.
func (h *health) shardFailed(d core.DiskID, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.faults == nil {
		h.faults = map[core.DiskID]*diskFaults{}
	}
	f := h.faults[d]
	if f == nil {
		f = &diskFaults{}
		h.faults[d] = f
	}
	switch {
	case errors.Is(err, core.ErrCorrupt):
		f.corrupt++
	case errors.Is(err, core.ErrNotFound):
		f.missing++
	default:
		f.failed++
	}
}

const (
	// healthEvery is how often disks are looked at.
	healthEvery = 250 * time.Millisecond
	// defaultStall is [Options.Stall]'s default; aloneFactor is how much longer it
	// is where no other disk goes on, so that it may be the machine that hangs.
	defaultStall = 8 * time.Second
	aloneFactor  = 4
	// maxReadErrors within errorWindow are more than a few bad blocks.
	maxReadErrors = 10
	errorWindow   = time.Minute
	// A disk is too slow whose writes take slowFactor times as long as those of
	// the others, and slowLeast at the least, on the average of each of slowTimes
	// windows in which it did slowOps or more.
	slowFactor = 10
	slowLeast  = time.Second
	slowWindow = 20 * time.Second
	slowTimes  = 3
	slowOps    = 5
)

// vital is a disk that says how it fares.
type vital interface{ Vitals() core.Vitals }

// watchDisks takes disks out of use that fail or hang, until ctx ends.
func (n *Node) watchDisks(ctx context.Context) {
	w := newDiskWatch(n.opt.Stall)
	for n.clock.Wait(ctx, healthEvery) == nil {
		all := map[core.DiskID]core.Vitals{}
		for id, d := range n.localDisks() {
			if v, ok := d.(vital); ok {
				all[id] = v.Vitals()
			}
		}
		for id, err := range w.look(all) {
			n.diskFailed(id, err)
		}
	}
}

// diskWatch judges disks by what they say at each look. It reckons time in
// looks, so that a process that was frozen does not take its own absence for
// that of its disks.
type diskWatch struct {
	stall int // in looks
	disks map[core.DiskID]*watchedDisk
}

// watchedDisk is what is remembered of a disk.
type watchedDisk struct {
	running map[uint64]int // looks since which an operation is under way
	longest int            // the most of them
	errors  []int64        // counts of read errors, a look each, oldest first
	// ops and busy are the counts at the start of the present window, which is
	// looks old; mean is the average of the one before; slow counts windows.
	ops        int64
	busy, mean time.Duration
	looks      int
	slow       int
}

func newDiskWatch(stall time.Duration) *diskWatch {
	return &diskWatch{stall: int(stall / healthEvery), disks: map[core.DiskID]*watchedDisk{}}
}

// look returns the disks that have failed, and why.
func (w *diskWatch) look(all map[core.DiskID]core.Vitals) map[core.DiskID]error {
	for id := range w.disks {
		if _, ok := all[id]; !ok {
			delete(w.disks, id)
		}
	}
	for id, v := range all {
		d := w.disks[id]
		if d == nil {
			d = &watchedDisk{running: map[uint64]int{}, ops: v.Ops, busy: v.Busy}
			w.disks[id] = d
		}
		d.see(v)
	}
	failed := map[core.DiskID]error{}
	for id, v := range all {
		if err := w.judge(id, v); err != nil {
			failed[id] = fmt.Errorf("%w: %w", core.ErrDiskFailed, err)
		}
	}
	return failed
}

// see takes what the disk says now.
func (d *watchedDisk) see(v core.Vitals) {
	d.longest = 0
	for name := range d.running {
		if !slices.Contains(v.Running, name) {
			delete(d.running, name)
		}
	}
	for _, name := range v.Running {
		d.running[name]++
		d.longest = max(d.longest, d.running[name])
	}
	d.errors = append(d.errors, v.ReadErrors)
	if k := len(d.errors) - int(errorWindow/healthEvery); k > 0 {
		d.errors = slices.Delete(d.errors, 0, k)
	}
	if d.looks++; d.looks == int(slowWindow/healthEvery) {
		d.mean = 0
		if n := v.Ops - d.ops; n >= slowOps {
			d.mean = (v.Busy - d.busy) / time.Duration(n)
		}
		d.ops, d.busy, d.looks = v.Ops, v.Busy, 0
	}
}

// judge says why a disk has failed, nil if it has not.
func (w *diskWatch) judge(id core.DiskID, v core.Vitals) error {
	d := w.disks[id]
	if v.Err != nil && !errors.Is(v.Err, core.ErrNoSpace) {
		return v.Err
	}
	if v.Damaged != nil {
		return fmt.Errorf("its rows are damaged; `shoal disk rebuild` gets them from other disks: %w", v.Damaged)
	}
	if n := d.errors[len(d.errors)-1] - d.errors[0]; n >= maxReadErrors {
		return fmt.Errorf("%d reads failed within %v, the last one with: %w", n, errorWindow, v.ReadError)
	}
	limit := w.stall * aloneFactor
	if w.othersGoOn(id) {
		limit = w.stall
	}
	if d.longest > limit {
		return fmt.Errorf("an operation has not ended for %v", time.Duration(limit)*healthEvery)
	}
	return w.judgeSpeed(id)
}

// othersGoOn says whether some other disk does, and none hangs that might for
// the same reason.
func (w *diskWatch) othersGoOn(id core.DiskID) bool {
	for other, d := range w.disks {
		if other != id && d.longest > w.stall/4 {
			return false
		}
	}
	return len(w.disks) > 1
}

// judgeSpeed compares the disk with the others, once a window.
func (w *diskWatch) judgeSpeed(id core.DiskID) error {
	d := w.disks[id]
	if d.looks != 0 {
		return nil
	}
	var others []time.Duration
	for other, o := range w.disks {
		if other != id && o.mean > 0 {
			others = append(others, o.mean)
		}
	}
	if len(others) == 0 || d.mean < slowLeast {
		d.slow = 0
		return nil
	}
	slices.Sort(others)
	typical := others[len(others)/2]
	if d.mean < slowFactor*typical {
		d.slow = 0
		return nil
	}
	if d.slow++; d.slow < slowTimes {
		return nil
	}
	return fmt.Errorf("its writes take %v, those of the node's other disks %v", d.mean.Round(time.Millisecond), typical.Round(time.Microsecond))
}
