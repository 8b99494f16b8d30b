package disk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/shoalstore/shoal/core"
)

// slotRows is what is kept in memory of a slot.
type slotRows struct {
	// state is guarded by Disk.slotsMu, as is claimed.
	state core.SlotState
	// claimed is set while an Apply changes the slot.
	claimed bool
	// reclaimed is closed when a Reclaim that has claimed the slot ends; nil
	// where there is none.
	reclaimed chan struct{}
	// void is how far the history went that was removed, 0 where nothing of
	// it is left; see reclaim.go.
	void uint64
	// pending are the entries above the committed mark, in order. Only the
	// Apply that has claimed the slot uses them; it never changes a slice
	// that is here, but puts another one in its place.
	pending []pendingEntry
	// readAt is the mark up to which superseded versions may be gone. It
	// rises before they go: see [Disk.atLeastCommitted].
	readAt atomic.Pointer[core.Version]
}

// pendingEntry is what a later commit or undo must know of an entry.
type pendingEntry struct {
	version core.Version
	floor   uint64
	request core.RequestID
	head    bool
	rows    []pendingRow
}

// pendingRow says which version of which row an entry wrote.
type pendingRow struct {
	prefix []byte
	flags  byte
	n      uint16
	// value is what the cache of rows keeps of it; see [rowVersion].
	value []byte
}

// above says whether the entry goes when everything above v is undone.
func (p *pendingEntry) above(v core.Version) bool {
	return p.version.Seq > v.Seq || p.version.Compare(v) > 0
}

// Slots implements [core.RowStore].
func (d *Disk) Slots(ctx context.Context) (map[core.SlotID]core.SlotState, error) {
	if err := d.read(ctx); err != nil {
		return nil, err
	}
	defer d.leave()
	d.slotsMu.RLock()
	defer d.slotsMu.RUnlock()
	out := make(map[core.SlotID]core.SlotState, len(d.slots))
	for id, s := range d.slots {
		if s.readAt.Load() != nil {
			out[id] = s.state
		}
	}
	return out, nil
}

// committed is the slot's committed mark.
func (d *Disk) committed(slot core.SlotID) core.Version {
	d.slotsMu.RLock()
	defer d.slotsMu.RUnlock()
	if s := d.slots[slot]; s != nil {
		return s.state.Committed
	}
	return core.Version{}
}

// atLeastCommitted returns the version as of which a row is read. A caller
// that took the committed mark and then reads may find that the mark has risen
// and the version that it asks for is gone; what it gets is then the version
// that replaced it, never nothing. It must be called after the view of the rows
// was taken.
func (d *Disk) atLeastCommitted(slot core.SlotID, at core.Version) core.Version {
	d.slotsMu.RLock()
	s := d.slots[slot]
	d.slotsMu.RUnlock()
	if s == nil {
		return at
	}
	if mark := s.readAt.Load(); mark != nil && mark.Compare(at) > 0 {
		return *mark
	}
	return at
}

// loadSlots reads the state of every slot and what lies above its mark.
func (d *Disk) loadSlots(ctx context.Context) (err error) {
	it, err := d.db.NewIter(&pebble.IterOptions{
		LowerBound: []byte{kindState, noSuffix}, UpperBound: []byte{kindState + 1, noSuffix},
	})
	if err != nil {
		return err
	}
	defer func() { err = closeIter(it, err) }()
	for ok := it.First(); ok; ok = it.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		key := it.Key()
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		slot, ok := slotOfKey(key)
		if !ok {
			return malformed("slot state", key)
		}
		state, err := decodeState(key, v)
		if err != nil {
			return err
		}
		s := &slotRows{state: state}
		committed := state.Committed
		s.readAt.Store(&committed)
		if state.Last != state.Committed {
			if s.pending, err = d.loadPending(slot, &state); err != nil {
				return fmt.Errorf("slot %d: %w", slot, err)
			}
		}
		d.slots[slot] = s
	}
	return it.Error()
}

// loadPending reads the entries above the committed mark.
func (d *Disk) loadPending(slot core.SlotID, state *core.SlotState) (_ []pendingEntry, err error) {
	var out []pendingEntry
	r, err := d.newEntryReader(slot, state.Committed.Seq)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	for r.next() && r.version.Seq <= state.Last.Seq {
		p := pendingEntry{version: r.version}
		if r.hasHead {
			p.head, p.floor, p.request = true, r.head.floor, r.head.request
		}
		p.rows = slices.Clone(r.rows)
		if want := state.Committed.Seq + uint64(len(out)) + 1; p.version.Seq != want {
			return nil, fmt.Errorf("entry %d is missing: %w", want, core.ErrCorrupt)
		}
		out = append(out, p)
	}
	if r.err == nil && (len(out) == 0 || out[len(out)-1].version != state.Last) {
		return nil, fmt.Errorf("the last entry is not %v: %w", state.Last, core.ErrCorrupt)
	}
	return out, r.err
}

// claim gives an Apply the slots that it changes.
func (d *Disk) claim(batches []core.SlotBatch) (map[core.SlotID]*slotRows, error) {
	d.slotsMu.Lock()
	defer d.slotsMu.Unlock()
	out := make(map[core.SlotID]*slotRows, len(batches))
	for i := range batches {
		slot := batches[i].Slot
		if out[slot] != nil {
			continue
		}
		s := d.slots[slot]
		for s != nil && s.reclaimed != nil {
			wait := s.reclaimed
			d.slotsMu.Unlock()
			<-wait
			d.slotsMu.Lock()
			s = d.slots[slot]
		}
		switch {
		case s == nil:
			s = &slotRows{}
			d.slots[slot] = s
		case s.claimed:
			d.unclaim(out)
			return nil, fmt.Errorf("slot %d: two Apply calls at once: %w", slot, core.ErrInvalid)
		}
		s.claimed = true
		out[slot] = s
	}
	return out, nil
}

// release gives the slots back, as they were or as done says.
func (d *Disk) releaseSlots(claimed map[core.SlotID]*slotRows, done map[core.SlotID]*slotWork) {
	d.slotsMu.Lock()
	defer d.slotsMu.Unlock()
	for slot, w := range done {
		s := claimed[slot]
		s.state, s.pending = w.state, w.pending
		if (s.void != 0) != (w.void != 0) {
			if s.void == 0 {
				d.voids.Add(1)
			} else {
				d.voids.Add(-1)
			}
		}
		s.void = w.void
		if w.exists {
			mark := w.state.Committed
			s.readAt.Store(&mark)
		} else {
			s.readAt.Store(nil)
		}
	}
	d.unclaim(claimed)
}

// unclaim forgets slots that do not exist after all. slotsMu is held.
func (d *Disk) unclaim(claimed map[core.SlotID]*slotRows) {
	for slot, s := range claimed {
		s.claimed = false
		if s.reclaimed != nil {
			close(s.reclaimed)
			s.reclaimed = nil
		}
		if s.readAt.Load() == nil && s.void == 0 {
			delete(d.slots, slot)
		}
	}
}

// slotIDs returns the slots on the disk.
func (d *Disk) slotIDs() []core.SlotID {
	d.slotsMu.RLock()
	defer d.slotsMu.RUnlock()
	out := make([]core.SlotID, 0, len(d.slots))
	for id := range maps.Keys(d.slots) {
		out = append(out, id)
	}
	return out
}

// closeIter closes an iterator and keeps the first error.
func closeIter(it *pebble.Iterator, err error) error {
	if cerr := it.Close(); err == nil {
		return cerr
	}
	return err
}
