package disk

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/shoalstore/shoal/core"
)

// Removing a slot only notes how far its history went: what lies above the
// slot's last entry, up to that void mark, is void. Reads pass over it, entries
// that are written take its place, and Reclaim deletes the rest piece by piece.

// isVoid says whether an entry of a slot is left over from before it was removed.
func (d *Disk) isVoid(slot core.SlotID, seq uint64) bool {
	if d.voids.Load() == 0 {
		return false
	}
	d.slotsMu.RLock()
	defer d.slotsMu.RUnlock()
	s := d.slots[slot]
	return s != nil && seq > s.state.Last.Seq && seq <= s.void
}

// loadVoids reads the void marks, after the slots.
func (d *Disk) loadVoids(ctx context.Context) (err error) {
	it, err := d.db.NewIter(&pebble.IterOptions{
		LowerBound: []byte{kindVoid, noSuffix}, UpperBound: []byte{kindVoid + 1, noSuffix},
	})
	if err != nil {
		return err
	}
	defer func() { err = closeIter(it, err) }()
	for ok := it.First(); ok; ok = it.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		slot, ok := slotOfKey(it.Key())
		if !ok {
			return malformed("void mark", it.Key())
		}
		s := d.slots[slot]
		if s == nil {
			s = &slotRows{}
			d.slots[slot] = s
		}
		if s.void, err = decodeVoid(it.Key(), v); err != nil {
			return err
		}
		d.voids.Add(1)
	}
	return it.Error()
}

// putVoid stores the slot's void mark if it changed.
func (c *change) putVoid(w *slotWork) error {
	if w.void <= w.state.Last.Seq {
		w.void = 0
	}
	if w.void == c.claimed[w.slot].void {
		return nil
	}
	key := voidKey(w.slot)
	if w.void == 0 {
		return c.b.Delete(key, nil)
	}
	return c.b.Set(key, encodeVoid(key, w.void), nil)
}

// passVoid deletes what is void up to a sequence number, which an entry is about
// to take.
func (c *change) passVoid(w *slotWork, upTo uint64) error {
	if w.void <= w.state.Last.Seq {
		return nil
	}
	return c.dropStretch(w, w.state.Last.Seq, min(upTo, w.void))
}

// Reclaim implements [core.RowStore]. It is not synced: what a crash brings back
// goes next time.
func (d *Disk) Reclaim(ctx context.Context, limit int) (more bool, err error) {
	if err := d.write(ctx); err != nil {
		return false, err
	}
	defer d.leave()
	claimed := d.claimVoid()
	if claimed == nil {
		return false, nil
	}
	c := d.newChange(claimed)
	err = c.reclaim(limit)
	if err == nil {
		err = c.commit(pebble.NoSync)
	}
	if err != nil {
		d.releaseSlots(claimed, nil)
		return false, d.readError("reclaim", err)
	}
	d.releaseSlots(claimed, c.slots)
	return d.voids.Load() > 0, nil
}

// claimVoid takes a slot that has something to reclaim, nil if there is none.
func (d *Disk) claimVoid() map[core.SlotID]*slotRows {
	if d.voids.Load() == 0 {
		return nil
	}
	d.slotsMu.Lock()
	defer d.slotsMu.Unlock()
	for id, s := range d.slots {
		if s.void != 0 && !s.claimed {
			s.claimed, s.reclaimed = true, make(chan struct{})
			return map[core.SlotID]*slotRows{id: s}
		}
	}
	return nil
}

var errEnough = errors.New("enough for now")

// reclaim deletes up to limit rows and as many answers of the one slot that the
// change has claimed.
func (c *change) reclaim(limit int) (err error) {
	defer func() { err = c.built(err) }()
	for slot := range c.claimed {
		w := c.work(slot)
		left := limit
		err := c.index(slot, w.state.Last.Seq, w.void, func(seq uint64, n uint16, e *indexEntry) error {
			if left--; left < 0 {
				return errEnough
			}
			return c.dropRow(slot, e.prefix, suffix{version: e.version(seq), flags: e.flags, n: n})
		})
		if err == nil {
			left = limit
			err = c.heads(slot, w.state.Last.Seq, w.void, func(seq uint64, h *head) error {
				if left--; left < 0 {
					return errEnough
				}
				return c.dropHead(slot, true, h.version(seq), h.request)
			})
		}
		switch {
		case errors.Is(err, errEnough):
			continue
		case err != nil:
			return fmt.Errorf("slot %d: %w", slot, err)
		}
		w.void = 0
		if err := c.putVoid(w); err != nil {
			return err
		}
	}
	return nil
}
