package disktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/shoalstore/shoal/core"
)

// model is what a disk should hold, kept as plainly as possible.
type model struct {
	slots map[core.SlotID]*modelSlot
	// rows and requests are all that were ever named.
	rows     map[core.RowKey]bool
	requests map[core.RequestID]bool
}

type modelSlot struct {
	state core.SlotState
	// entries are all that are part of the history, in order, as they came.
	entries []core.Entry
	// rows are the versions that are kept, in order.
	rows map[core.RowKey][]core.Row
	// forgotten are the entries whose answers were dropped.
	forgotten map[uint64]bool
}

func newModel() *model {
	return &model{slots: map[core.SlotID]*modelSlot{}, rows: map[core.RowKey]bool{}, requests: map[core.RequestID]bool{}}
}

func (m *model) clone() *model {
	c := &model{slots: map[core.SlotID]*modelSlot{}, rows: maps.Clone(m.rows), requests: maps.Clone(m.requests)}
	for id, s := range m.slots {
		d := &modelSlot{state: s.state, entries: slices.Clone(s.entries), rows: map[core.RowKey][]core.Row{}, forgotten: maps.Clone(s.forgotten)}
		for k, v := range s.rows {
			d.rows[k] = slices.Clone(v)
		}
		c.slots[id] = d
	}
	return c
}

func (m *model) slot(id core.SlotID) *modelSlot {
	s := m.slots[id]
	if s == nil {
		s = &modelSlot{rows: map[core.RowKey][]core.Row{}, forgotten: map[uint64]bool{}}
		m.slots[id] = s
	}
	return s
}

// apply is what Apply does, for batches that are valid.
func (m *model) apply(batches []core.SlotBatch) {
	for i := range batches {
		b := &batches[i]
		if b.Remove {
			delete(m.slots, b.Slot)
		}
		_, there := m.slots[b.Slot]
		if !there && b.Adopt == nil && b.Replace == nil && len(b.Append) == 0 {
			continue
		}
		s := m.slot(b.Slot)
		if b.Adopt != nil && b.Adopt.Compare(s.state.Ballot) > 0 {
			s.state.Ballot = *b.Adopt
		}
		if b.Undo != nil {
			s.undo(*b.Undo)
		}
		if b.Replace != nil {
			s.replace(b.Replace)
			m.note(b.Replace.Entries)
		}
		for _, e := range b.Append {
			s.entries = append(s.entries, e)
			for _, r := range e.Rows {
				s.rows[r.RowKey] = append(s.rows[r.RowKey], r)
			}
			s.state.Last = e.Version
		}
		m.note(b.Append)
		if b.Commit != nil {
			s.commit(*b.Commit)
		}
	}
}

func (m *model) note(entries []core.Entry) {
	for _, e := range entries {
		for _, r := range e.Rows {
			m.rows[r.RowKey] = true
		}
		if !e.Request.IsZero() {
			m.requests[e.Request] = true
		}
	}
}

// drop removes the entries for which gone says so, with their rows' versions.
func (s *modelSlot) drop(gone func(core.Version) bool) {
	s.entries = slices.DeleteFunc(slices.Clone(s.entries), func(e core.Entry) bool {
		if gone(e.Version) {
			delete(s.forgotten, e.Version.Seq)
			return true
		}
		return false
	})
	for k, versions := range s.rows {
		s.keep(k, slices.DeleteFunc(slices.Clone(versions), func(r core.Row) bool { return gone(r.Version) }))
	}
}

func (s *modelSlot) keep(k core.RowKey, versions []core.Row) {
	if len(versions) == 0 {
		delete(s.rows, k)
		return
	}
	s.rows[k] = versions
}

func (s *modelSlot) undo(v core.Version) {
	above := func(w core.Version) bool { return w.Compare(v) > 0 || w.Seq > v.Seq }
	if !above(s.state.Last) {
		return
	}
	s.drop(above)
	s.state.Last = v
	if above(s.state.Committed) {
		s.state.Committed = v
	}
}

func (s *modelSlot) replace(r *core.Replace) {
	s.undo(s.state.Committed)
	s.undo(r.UpTo)
	s.drop(func(w core.Version) bool { return w.Seq > r.After && w.Seq <= r.UpTo.Seq })
	floor := r.Floor
	for _, e := range r.Entries {
		floor = max(floor, e.Floor)
		s.entries = append(s.entries, e)
		for _, row := range e.Rows {
			s.rows[row.RowKey] = []core.Row{row}
		}
	}
	if r.After > 0 {
		floor = max(floor, s.state.Floor)
	}
	s.state.Committed, s.state.Last, s.state.Floor = r.UpTo, r.UpTo, floor
	s.dropTombstones()
}

func (s *modelSlot) commit(v core.Version) {
	mark := s.state.Committed
	for _, e := range s.entries {
		if e.Version.Compare(s.state.Committed) <= 0 || e.Version.Compare(v) > 0 {
			continue
		}
		mark = e.Version
		for _, row := range e.Rows {
			s.keep(row.RowKey, slices.DeleteFunc(slices.Clone(s.rows[row.RowKey]), func(old core.Row) bool {
				return old.Version.Compare(e.Version) < 0
			}))
		}
		s.state.Floor = max(s.state.Floor, e.Floor)
	}
	s.state.Committed = mark
	s.dropTombstones()
}

func (s *modelSlot) dropTombstones() {
	for k, versions := range s.rows {
		s.keep(k, slices.DeleteFunc(slices.Clone(versions), func(r core.Row) bool {
			return r.Deleted && r.Version.Seq <= s.state.Floor && r.Version.Compare(s.state.Committed) <= 0
		}))
	}
}

func (m *model) dropAnswers(before int64) {
	for _, s := range m.slots {
		for _, e := range s.entries {
			if e.Version.Compare(s.state.Committed) > 0 || e.Time >= before {
				break
			}
			s.forgotten[e.Version.Seq] = true
		}
	}
}

func (s *modelSlot) get(k core.RowKey, at core.Version) (core.Row, bool) {
	if at.Compare(s.state.Committed) < 0 {
		at = s.state.Committed
	}
	versions := s.rows[k]
	for _, version := range slices.Backward(versions) {
		if version.Version.Compare(at) <= 0 {
			return version, true
		}
	}
	return core.Row{}, false
}

func (s *modelSlot) entriesOf(after uint64, upTo core.Version) []core.Entry {
	var out []core.Entry
	for _, e := range s.entries {
		if e.Version.Seq <= after || e.Version.Compare(upTo) > 0 {
			continue
		}
		if e.Version.Compare(s.state.Committed) > 0 {
			out = append(out, e)
			continue
		}
		rows := e.Rows
		e.Rows, e.Floor = nil, 0
		for _, r := range rows {
			var newest core.Row
			for _, v := range s.rows[r.RowKey] {
				if v.Version.Compare(upTo) <= 0 {
					newest = v
				}
			}
			if newest.Version == e.Version {
				e.Rows = append(e.Rows, r)
			}
		}
		if s.forgotten[e.Version.Seq] {
			e.Request, e.Answer = core.RequestID{}, nil
		}
		if len(e.Rows) > 0 || !e.Request.IsZero() {
			out = append(out, e)
		}
	}
	return out
}

// compare says how a disk differs from the model, if it does. A quick one reads
// all there is once; the other one reads it in all ways there are.
func (m *model) compare(ctx context.Context, d Disk, quick bool) error {
	states, err := d.Slots(ctx)
	if err != nil {
		return fmt.Errorf("slots: %w", err)
	}
	want := map[core.SlotID]core.SlotState{}
	for id, s := range m.slots {
		want[id] = s.state
	}
	if !maps.Equal(states, want) {
		return fmt.Errorf("slots: got %v, want %v", states, want)
	}
	for id, s := range m.slots {
		if err := m.compareSlot(ctx, d, id, s, quick); err != nil {
			return fmt.Errorf("slot %d: %w", id, err)
		}
	}
	for _, at := range []func(s core.SlotID) core.Version{
		func(core.SlotID) core.Version { return forever() },
		func(s core.SlotID) core.Version { return want[s].Committed },
	} {
		if err := m.compareScans(ctx, d, at); err != nil {
			return fmt.Errorf("scan: %w", err)
		}
	}
	return nil
}

func (m *model) compareSlot(ctx context.Context, d Disk, id core.SlotID, s *modelSlot, quick bool) error {
	if err := m.compareAnswers(ctx, d, id, s); err != nil {
		return err
	}
	if quick {
		return compareEntries(ctx, d, id, s, 0, s.state.Last, 1<<30)
	}
	ats := []core.Version{{}, s.state.Committed, s.state.Last, forever()}
	for _, e := range s.entries {
		if e.Version.Compare(s.state.Committed) > 0 {
			ats = append(ats, e.Version)
		}
	}
	for _, at := range ats {
		for k := range m.rows {
			if err := compareGet(ctx, d, id, s, k, at); err != nil {
				return fmt.Errorf("get %v at %v: %w", k, at, err)
			}
		}
		for _, after := range []uint64{0, s.state.Committed.Seq / 2, s.state.Committed.Seq} {
			for _, size := range []int{1 << 30, 3000} {
				if err := compareEntries(ctx, d, id, s, after, at, size); err != nil {
					return fmt.Errorf("entries (%d, %v] in pieces of %d: %w", after, at, size, err)
				}
			}
		}
	}
	return nil
}

func compareGet(ctx context.Context, d Disk, id core.SlotID, s *modelSlot, k core.RowKey, at core.Version) error {
	got, err := d.Get(ctx, id, k, at)
	want, there := s.get(k, at)
	switch {
	case !there && errors.Is(err, core.ErrNotFound):
		return nil
	case err != nil:
		return err
	case !there:
		return fmt.Errorf("got version %v, want none", got.Version)
	}
	return sameRow(got, want)
}

func (m *model) compareAnswers(ctx context.Context, d Disk, id core.SlotID, s *modelSlot) error {
	known := map[core.RequestID]*core.Entry{}
	for i := range s.entries {
		known[s.entries[i].Request] = &s.entries[i]
	}
	for r := range m.requests {
		v, answer, err := d.Answer(ctx, id, r)
		e := known[r]
		gone := e == nil || s.forgotten[e.Version.Seq]
		switch {
		case gone && errors.Is(err, core.ErrNotFound):
		case err != nil:
			return fmt.Errorf("answer %s: %w", r, err)
		case gone:
			return fmt.Errorf("answer %s: got %v, want none", r, v)
		case v != e.Version || !bytes.Equal(answer, e.Answer):
			return fmt.Errorf("answer %s: got %v %q, want %v %q", r, v, answer, e.Version, e.Answer)
		}
	}
	return nil
}

// compareEntries reads the entries in pieces of that size.
func compareEntries(ctx context.Context, d Disk, id core.SlotID, s *modelSlot, after uint64, upTo core.Version, size int) error {
	var got []core.Entry
	for from := after; ; {
		e, err := d.Entries(ctx, id, from, upTo, size)
		if err != nil {
			return err
		}
		for _, e := range e.List {
			if e.Version.Compare(s.state.Committed) <= 0 {
				if e.Floor = 0; len(e.Rows) == 0 && e.Request.IsZero() {
					continue
				}
			}
			got = append(got, e)
		}
		if e.UpTo == upTo {
			break
		}
		if n := len(e.List); n == 0 || e.List[n-1].Version != e.UpTo || e.UpTo.Seq <= from {
			return fmt.Errorf("a piece with %d entries ends at %v", n, e.UpTo)
		}
		from = e.UpTo.Seq
	}
	return sameEntries(got, s.entriesOf(after, upTo))
}

func sameEntries(got, want []core.Entry) error {
	if len(got) != len(want) {
		return fmt.Errorf("got %d entries, want %d", len(got), len(want))
	}
	for i := range got {
		g, w := &got[i], &want[i]
		if g.Version != w.Version || g.Request != w.Request || !bytes.Equal(g.Answer, w.Answer) ||
			g.Time != w.Time || g.Floor != w.Floor || len(g.Rows) != len(w.Rows) {
			return fmt.Errorf("entry %d: got %+v, want %+v", i, *g, *w)
		}
		for j := range g.Rows {
			if err := sameRow(g.Rows[j], w.Rows[j]); err != nil {
				return fmt.Errorf("entry %v: row %v: %w", g.Version, w.Rows[j].RowKey, err)
			}
		}
	}
	return nil
}

func sameRow(got, want core.Row) error {
	if got.RowKey != want.RowKey || got.Version != want.Version || got.Deleted != want.Deleted {
		return fmt.Errorf("got %v %v deleted %v, want %v %v deleted %v",
			got.RowKey, got.Version, got.Deleted, want.RowKey, want.Version, want.Deleted)
	}
	if !bytes.Equal(got.Value, want.Value) {
		return fmt.Errorf("value of %d bytes differs from the one written, of %d", len(got.Value), len(want.Value))
	}
	return nil
}

func (m *model) compareScans(ctx context.Context, d Disk, at func(core.SlotID) core.Version) error {
	type place struct {
		bucket core.BucketID
		space  core.Space
	}
	want := map[place][]core.Found{}
	for k := range m.rows {
		p := place{k.Bucket, k.Space}
		want[p] = slices.Clip(want[p])
		for id, s := range m.slots {
			if r, there := s.get(k, at(id)); there && !r.Deleted {
				want[p] = append(want[p], core.Found{Slot: id, Row: r})
			}
		}
	}
	for p, rows := range want {
		slices.SortFunc(rows, func(a, b core.Found) int {
			if c := strings.Compare(a.Key, b.Key); c != 0 {
				return c
			}
			if c := strings.Compare(a.Sub, b.Sub); c != 0 {
				return c
			}
			return int(a.Slot) - int(b.Slot)
		})
		for _, keysOnly := range []bool{false, true} {
			i := 0
			for got, err := range d.Scan(ctx, core.Scan{
				Bucket: p.bucket, Space: p.space, KeysOnly: keysOnly,
				Visible: func(s core.SlotID) (core.Version, bool) { return at(s), true },
			}) {
				if err != nil {
					return err
				}
				if i >= len(rows) {
					return fmt.Errorf("bucket %d: got row %v, want no more", p.bucket, got.RowKey)
				}
				w := rows[i]
				if keysOnly {
					w.Value = nil
				}
				if got.Slot != w.Slot {
					return fmt.Errorf("row %v: got slot %d, want %d", got.RowKey, got.Slot, w.Slot)
				}
				if err := sameRow(got.Row, w.Row); err != nil {
					return fmt.Errorf("row %d: %w", i, err)
				}
				i++
			}
			if i < len(rows) {
				return fmt.Errorf("bucket %d: row %v is missing", p.bucket, rows[i].RowKey)
			}
		}
	}
	return nil
}
