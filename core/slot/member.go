package slot

import (
	"slices"

	"github.com/shoalstore/shoal/core"
)

// replica is one disk's copy of a slot. state and tail run ahead of the disk;
// whatever is promised to others is promised once it is durable.
type replica struct {
	slot  core.SlotID
	disk  core.DiskID
	state core.SlotState
	// tail holds the entries above state.Committed, in order.
	tail []core.Entry
	// durable is the last version that the disk has; marked the highest
	// commit mark given to it.
	durable, marked core.Version
	markDue         core.Instant
	// attempt is the owner's attempt to bring this joiner level, and caughtUp
	// how far that has got. Both are forgotten in a restart.
	attempt, caughtUp uint64
	owner             *ownership
	// spent says that the slot needs a new term to be owned again, asked when
	// that was last asked for; see [Node.askNewTerm].
	spent  bool
	asked  core.Instant
	inBusy bool
}

// onMember handles what owners send to members.
func (n *Node) onMember(from core.NodeID, m *Message) {
	r := n.replica(m.Disk, m.Slot)
	if r == nil {
		return
	}
	if m.Ballot.Compare(r.state.Ballot) < 0 && !n.rules.NoTermCheck {
		n.send(from, &Message{Kind: MsgNack, Slot: m.Slot, Disk: m.Disk, Ballot: r.state.Ballot, Last: r.state.Last})
		return
	}
	if m.Kind == MsgSeal {
		n.onSeal(from, m, r)
		return
	}
	if m.Ballot != r.state.Ballot && !n.rules.NoTermCheck {
		return // not sealed under this ballot; the owner will ask again
	}
	if !m.contiguous() {
		return
	}
	switch m.Kind {
	case MsgSync:
		n.onSync(from, m, r)
	case MsgAppend:
		n.onAppend(from, m, r)
	case MsgMark:
		n.advanceMark(r, m.Commit)
	case MsgCatchup:
		n.onCatchup(from, m, r)
	}
}

// contiguous says whether the entries of a write follow Prev without gaps.
func (m *Message) contiguous() bool {
	if m.Kind != MsgSync && m.Kind != MsgAppend {
		return true
	}
	prev := m.Prev
	for i := range m.Entries {
		if v := m.Entries[i].Version; v.Seq != prev.Seq+1 || v.Compare(prev) <= 0 {
			return false
		}
		prev = m.Entries[i].Version
	}
	return true
}

// onSeal adopts a ballot, and answers with what the member has once that is
// durable. A joiner first undoes what it was never told is committed; once it
// has adopted the ballot it does not, since it may have gone live by then.
func (n *Node) onSeal(from core.NodeID, m *Message, r *replica) {
	if r.owner != nil && m.Ballot.Compare(r.owner.ballot) > 0 {
		n.stepDown(r)
	}
	b := core.SlotBatch{Slot: r.slot}
	if m.Ballot.Compare(r.state.Ballot) > 0 || n.rules.NoTermCheck {
		if m.Joining && r.state.Ballot.Boot == forgotten {
			n.stats.JoinsReclaimed++
		}
		r.state.Ballot = m.Ballot
		b.Adopt = &m.Ballot
		r.attempt = 0
		if m.Joining {
			undo := r.state.Committed
			b.Undo = &undo
			r.tail, r.state.Last = nil, undo
		}
	}
	if m.Joining && m.Attempt > r.attempt {
		r.attempt, r.caughtUp = m.Attempt, 0
	}
	answer := &Message{
		Kind: MsgSealed, Slot: r.slot, Disk: r.disk, Ballot: m.Ballot, Joining: m.Joining, Attempt: m.Attempt,
		Commit: r.state.Committed, Last: r.state.Last,
	}
	n.persist(r.disk, b, func(err error) {
		if err == nil && r.state.Ballot == m.Ballot {
			n.send(from, answer)
		}
	})
}

// onSync makes the tail what the owner says: all above m.Prev goes, and the
// entries come in its place.
func (n *Node) onSync(from core.NodeID, m *Message, r *replica) {
	if r.state.Last.Seq < m.Prev.Seq {
		return // not the member it is taken for; the owner will drop it
	}
	if m.Prev.Seq < r.state.Committed.Seq {
		n.ack(from, r, m.Ballot) // a repeated message
		return
	}
	n.advanceMark(r, m.Prev)
	if r.state.Committed != m.Prev {
		return // the same
	}
	same := len(r.tail) >= len(m.Entries)
	for i := range m.Entries {
		same = same && r.tail[i].Version == m.Entries[i].Version
	}
	if same && m.Ballot == r.lastBallot() {
		n.ack(from, r, m.Ballot) // repeated, and appended to since
		return
	}
	keep := m.Prev
	b := core.SlotBatch{Slot: r.slot, Undo: &keep, Append: m.Entries, Commit: n.mark(r)}
	r.tail = slices.Clone(m.Entries)
	r.state.Last = keep
	if k := len(m.Entries); k > 0 {
		r.state.Last = m.Entries[k-1].Version
	}
	n.persistTail(from, m.Ballot, r, b)
}

// lastBallot is the ballot under which the last entry was written.
func (r *replica) lastBallot() core.Ballot {
	return core.Ballot{Term: r.state.Last.Term, Boot: r.state.Last.Boot}
}

// onAppend adds entries behind those that the member has.
func (n *Node) onAppend(from core.NodeID, m *Message, r *replica) {
	entries, ok := r.newEntries(m)
	if !ok {
		n.send(from, &Message{Kind: MsgNack, Slot: r.slot, Disk: r.disk, Ballot: m.Ballot, Last: r.state.Last})
		return
	}
	n.advanceMark(r, m.Commit)
	if len(entries) == 0 {
		n.ack(from, r, m.Ballot)
		return
	}
	r.tail = append(r.tail, entries...)
	r.state.Last = entries[len(entries)-1].Version
	n.advanceMark(r, m.Commit)
	n.persistTail(from, m.Ballot, r, core.SlotBatch{Slot: r.slot, Append: entries, Commit: n.mark(r)})
}

// newEntries returns those of the message's entries that come next, and whether
// the message fits behind what the member has.
func (r *replica) newEntries(m *Message) ([]core.Entry, bool) {
	if m.Prev.Seq > r.state.Last.Seq || m.Prev.Seq == r.state.Last.Seq && m.Prev != r.state.Last {
		return nil, false
	}
	if k := m.Prev.Seq - r.state.Committed.Seq; m.Prev.Seq > r.state.Committed.Seq && r.tail[k-1].Version != m.Prev {
		return nil, false
	}
	entries := m.Entries
	for len(entries) > 0 && entries[0].Version.Seq <= r.state.Last.Seq {
		v := entries[0].Version
		if v.Seq > r.state.Committed.Seq && r.tail[v.Seq-r.state.Committed.Seq-1].Version != v {
			return nil, false
		}
		entries = entries[1:]
	}
	return entries, true
}

// persistTail makes the batch durable and acknowledges the tail as it is now.
func (n *Node) persistTail(from core.NodeID, ballot core.Ballot, r *replica, b core.SlotBatch) {
	last := r.state.Last
	n.persist(r.disk, b, func(err error) {
		if err != nil {
			return
		}
		r.durable = last
		if r.state.Ballot == ballot || n.rules.NoTermCheck {
			n.send(from, &Message{Kind: MsgAck, Slot: r.slot, Disk: r.disk, Ballot: ballot, Last: last})
		}
	})
}

// ack repeats an acknowledgement behind all that is on its way to the disk.
func (n *Node) ack(from core.NodeID, r *replica, ballot core.Ballot) {
	n.persistTail(from, ballot, r, core.SlotBatch{Slot: r.slot})
}

// version returns the version of the entry with that seq, as far as it is known:
// of those below the mark only the mark's.
func (r *replica) version(seq uint64) (core.Version, bool) {
	switch {
	case seq > r.state.Last.Seq:
		return core.Version{}, false
	case seq > r.state.Committed.Seq:
		return r.tail[seq-r.state.Committed.Seq-1].Version, true
	}
	return r.state.Committed, true
}

// advanceMark takes a commit mark, as far as the member has what it covers.
func (n *Node) advanceMark(r *replica, c core.Version) {
	k := 0
	for k < len(r.tail) && r.tail[k].Version.Seq <= c.Seq {
		k++
	}
	if k == 0 || c.Seq <= r.state.Last.Seq && r.tail[k-1].Version.Seq == c.Seq && r.tail[k-1].Version != c {
		return
	}
	r.commit(k)
	n.wake(r)
	if r.markDue == 0 {
		r.markDue = n.now.Add(n.p.MarkAfter)
	}
}

// commit moves the first k entries of the tail below the mark.
func (r *replica) commit(k int) {
	for _, e := range r.tail[:k] {
		r.state.Floor = max(r.state.Floor, e.Floor)
	}
	r.state.Committed = r.tail[k-1].Version
	clear(r.tail[:k])
	r.tail = r.tail[k:]
	if len(r.tail) == 0 {
		r.tail = nil
	}
}

// mark returns the commit mark if the disk does not have it yet.
func (n *Node) mark(r *replica) *core.Version {
	r.markDue = 0
	if r.state.Committed == r.marked {
		return nil
	}
	c := r.state.Committed
	r.marked = c
	return &c
}

// flushMark makes an idle slot's mark durable.
func (n *Node) flushMark(r *replica) {
	if r.markDue == 0 || n.now < r.markDue {
		return
	}
	if c := n.mark(r); c != nil {
		n.persist(r.disk, core.SlotBatch{Slot: r.slot, Commit: c}, nil)
	}
}

// onCatchup takes a stretch of history as a joiner. A stretch that it has, and
// that is repeated, must not undo what came after it.
func (n *Node) onCatchup(from core.NodeID, m *Message, r *replica) {
	if m.Attempt != r.attempt || m.After > r.state.Committed.Seq {
		n.send(from, &Message{Kind: MsgNack, Slot: r.slot, Disk: r.disk, Ballot: m.Ballot, Attempt: m.Attempt, Last: r.state.Last})
		return
	}
	b := core.SlotBatch{Slot: r.slot}
	news := m.UpTo.Seq > r.caughtUp
	if news {
		undo := r.state.Committed
		if m.UpTo.Seq < undo.Seq {
			undo = m.UpTo
		}
		b.Undo = &undo
		b.Replace = &core.Replace{After: m.After, UpTo: m.UpTo, Floor: m.Floor, Entries: m.Entries}
		r.tail = nil
		r.caughtUp = m.UpTo.Seq
		r.state.Committed, r.state.Last = m.UpTo, m.UpTo
		r.state.Floor = m.Floor
		r.marked = m.UpTo
	}
	n.persist(r.disk, b, func(err error) {
		if err != nil || r.state.Ballot != m.Ballot {
			return
		}
		if news {
			r.durable = m.UpTo
		}
		n.send(from, &Message{Kind: MsgCaughtUp, Slot: r.slot, Disk: r.disk, Ballot: m.Ballot, Attempt: m.Attempt, Last: m.UpTo})
	})
}
