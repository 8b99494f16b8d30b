package sim

import (
	"fmt"
	"slices"

	"github.com/shoalstore/shoal/core"
)

// store is what a disk durably holds: a naive form of core.RowStore.
type store struct {
	slots map[core.SlotID]*slotStore
}

type slotStore struct {
	state core.SlotState
	rows  map[core.RowKey][]core.Row // versions, oldest first
	meta  map[uint64]core.Entry      // by seq, without rows
}

func newStore() *store { return &store{slots: map[core.SlotID]*slotStore{}} }

func (s *store) slot(id core.SlotID) *slotStore {
	x := s.slots[id]
	if x == nil {
		x = &slotStore{rows: map[core.RowKey][]core.Row{}, meta: map[uint64]core.Entry{}}
		s.slots[id] = x
	}
	return x
}

// apply carries out a batch; see core.SlotBatch. It returns what is wrong with
// one that a real disk would refuse.
func (s *store) apply(b *core.SlotBatch) (wrong string) {
	if b.Remove {
		delete(s.slots, b.Slot)
	}
	x := s.slot(b.Slot)
	if b.Adopt != nil {
		x.state.Ballot = *b.Adopt
	}
	if b.Undo != nil && b.Undo.Seq < x.state.Last.Seq {
		x.drop(func(seq uint64) bool { return seq > b.Undo.Seq })
		x.state.Last = *b.Undo
		if x.state.Committed.Seq > b.Undo.Seq {
			x.state.Committed = *b.Undo
		}
	}
	if r := b.Replace; r != nil {
		x.drop(func(seq uint64) bool { return seq > r.After && seq <= r.UpTo.Seq })
		for i := range r.Entries {
			for j := range r.Entries[i].Rows {
				delete(x.rows, r.Entries[i].Rows[j].RowKey)
			}
			x.add(&r.Entries[i])
		}
		x.state.Committed, x.state.Last, x.state.Floor = r.UpTo, r.UpTo, r.Floor
	}
	for i := range b.Append {
		if v := b.Append[i].Version; v.Seq != x.state.Last.Seq+1 || v.Compare(x.state.Last) <= 0 {
			wrong = fmt.Sprintf("slot %d: entry %v does not follow %v", b.Slot, v, x.state.Last)
		}
		x.add(&b.Append[i])
		x.state.Last = b.Append[i].Version
	}
	if b.Commit != nil {
		if b.Commit.Seq > x.state.Last.Seq || b.Commit.Seq < x.state.Committed.Seq {
			wrong = fmt.Sprintf("slot %d: commit of %v by a disk that has %v to %v", b.Slot, *b.Commit, x.state.Committed, x.state.Last)
		}
		x.commit(*b.Commit)
	}
	return wrong
}

func (x *slotStore) add(e *core.Entry) {
	m := *e
	m.Rows = nil
	x.meta[e.Version.Seq] = m
	for i := range e.Rows {
		r := e.Rows[i]
		r.Version = e.Version
		x.rows[r.RowKey] = append(x.rows[r.RowKey], r)
	}
}

// drop removes all versions whose seq is chosen.
func (x *slotStore) drop(chosen func(uint64) bool) {
	for k, vs := range x.rows {
		vs = slices.DeleteFunc(slices.Clone(vs), func(r core.Row) bool { return chosen(r.Version.Seq) })
		if len(vs) == 0 {
			delete(x.rows, k)
		} else {
			x.rows[k] = vs
		}
	}
	for seq := range x.meta {
		if chosen(seq) {
			delete(x.meta, seq)
		}
	}
}

// commit raises the mark; versions that it supersedes go.
func (x *slotStore) commit(v core.Version) {
	from := x.state.Committed.Seq
	x.state.Committed = v
	for seq := from + 1; seq <= v.Seq; seq++ {
		if f := x.meta[seq].Floor; f > 0 {
			x.state.Floor = max(x.state.Floor, f)
		}
	}
	for k, vs := range x.rows {
		i := len(vs) - 1
		for i > 0 && vs[i].Version.Seq > v.Seq {
			i--
		}
		if vs[i].Version.Seq > v.Seq {
			continue
		}
		vs = slices.Clone(vs[i:])
		if vs[0].Deleted && vs[0].Version.Seq <= x.state.Floor {
			vs = vs[1:]
		}
		if len(vs) == 0 {
			delete(x.rows, k)
		} else {
			x.rows[k] = vs
		}
	}
}

// get returns the newest version of a row that is not above at.
func (x *slotStore) get(k core.RowKey, at core.Version) (core.Row, bool) {
	vs := x.rows[k]
	for _, v := range slices.Backward(vs) {
		if v.Version.Seq <= at.Seq {
			return v, true
		}
	}
	return core.Row{}, false
}

// answer returns the entry with that request id.
func (x *slotStore) answer(id core.RequestID) (core.Entry, bool) {
	var found core.Entry
	ok := false
	for _, m := range x.meta {
		if m.Request == id && !id.IsZero() {
			found, ok = m, true
		}
	}
	return found, ok
}

// entries is core.RowStore's method of that name; limit counts entries.
func (x *slotStore) entries(after uint64, upTo core.Version, limit int) core.Entries {
	bySeq := map[uint64]*core.Entry{}
	for seq, m := range x.meta {
		if seq > after && seq <= upTo.Seq {
			e := m
			bySeq[seq] = &e
		}
	}
	for k := range x.rows {
		r, ok := x.get(k, upTo)
		if !ok || r.Version.Seq <= after {
			continue
		}
		if e := bySeq[r.Version.Seq]; e != nil {
			e.Rows = append(e.Rows, r)
		}
	}
	out := core.Entries{UpTo: upTo}
	seqs := make([]uint64, 0, len(bySeq))
	for seq := range bySeq {
		seqs = append(seqs, seq)
	}
	slices.Sort(seqs)
	for _, seq := range seqs {
		e := *bySeq[seq]
		out.List = append(out.List, e)
		if len(out.List) == limit && seq != upTo.Seq {
			out.UpTo = e.Version
			break
		}
	}
	return out
}
