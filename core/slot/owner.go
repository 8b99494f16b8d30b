package slot

import (
	"fmt"
	"maps"
	"slices"

	"github.com/shoalstore/shoal/core"
)

// phase is how far a new owner has got.
type phase uint8

const (
	sealing phase = iota // waiting for what the others hold
	syncing              // making their tails its own
	active
)

// ownership is what a replica keeps while its node owns the slot.
type ownership struct {
	ballot core.Ballot
	phase  phase
	// continued says that this node owned the slot under the last ballot
	// too, was active, and has not stopped since: it may answer reads while
	// it seals the others.
	continued bool
	// tenure names the unbroken run of ownerships to which this one belongs.
	tenure   uint64
	adopted  bool // own disk has the ballot
	peers    []*peer
	pending  map[uint64]pending // by seq
	bridge   bridge
	proposed core.Instant // when a change was last proposed
	// ages remembers when the slot had reached which seq, to let tombstones
	// go; deletes says that there were any since the last entry.
	ages    []age
	deletes bool
}

type age struct {
	at  core.Instant
	seq uint64
}

// pending is a write that waits for its members.
type pending struct {
	id   WriteID
	need Need
}

// Need is what must hold for a write to be acknowledged.
type Need struct {
	// Domains is the number of failure domains that the slot's in-sync set
	// must span; Domain says of which kind.
	Domains int
	Domain  core.Domain
}

// peer is another member of an owned slot.
type peer struct {
	disk    core.DiskID
	joining bool
	sealed  bool
	synced  bool
	mark    core.Version // its commit mark when sealed
	last    core.Version // the last that it had then
	acked   uint64
	sentAt  core.Instant
	since   core.Instant // of the oldest message without an answer, 0 for none
	doubted core.Instant // when the voters were asked whether it is this node that is cut off
	// A joiner is read for and sent history up to cursor, then level: from
	// then on nothing commits without it. attempt tells what it answers to
	// this from what it answered to earlier attempts, which broke off.
	attempt uint64
	cursor  uint64
	started bool
	reading bool
	queued  bool     // waits for a stream
	catchup *Message // the stretch under way
	level   bool
	first   *Message // what it was sent on going live, until acknowledged
	// refused and refusedAt are the last refusal that was answered by sending
	// all that the member lacks.
	refused   core.Version
	refusedAt core.Instant
}

// takeOver begins a new ownership under the map in effect.
func (n *Node) takeOver(r *replica) {
	ballot := n.effect.SlotBallot(r.slot)
	if r.owner != nil && r.owner.ballot == ballot || r.state.Ballot.Compare(ballot) > 0 {
		return
	}
	if r.owner == nil && r.state.Ballot == ballot {
		n.askNewTerm(r)
		return
	}
	n.nextID++
	o := &ownership{ballot: ballot, tenure: n.nextID, pending: map[uint64]pending{}}
	if was := r.owner; was != nil {
		o.pending = was.pending
		if o.continued = was.phase == active || was.continued; o.continued {
			o.tenure = was.tenure
		}
		o.ages, o.deletes = was.ages, was.deletes
	}
	r.owner = o
	n.touch(r.slot)
	row := n.effect.Slots[r.slot]
	for _, d := range row.Insync[1:] {
		o.peers = append(o.peers, &peer{disk: d})
	}
	for _, d := range row.Joining {
		n.nextID++
		o.peers = append(o.peers, &peer{disk: d, joining: true, attempt: n.nextID})
	}
	r.state.Ballot = ballot
	n.stats.TakeOvers++
	last := r.state.Last
	n.persist(r.disk, core.SlotBatch{Slot: r.slot, Adopt: &ballot}, func(err error) {
		if err != nil || r.owner != o {
			return
		}
		o.adopted = true
		r.durable = last
		n.sync(r)
	})
	for _, p := range o.peers {
		n.sendSeal(r, p)
	}
	n.wake(r)
}

// askNewTerm asks for a new term of a slot that this node has owned in the
// present one and let go, because its disk was taken out and put back, or
// because of a map that came to nothing. To go on under the old ballot could
// give two entries one version, and a proposal from before could put a joiner
// in sync that has not got what came since.
func (n *Node) askNewTerm(r *replica) {
	r.spent = n.effect != nil && r.owner == nil && n.replica(r.disk, r.slot) == r && n.mayOwn(r) &&
		n.effect.SlotBallot(r.slot) == r.state.Ballot
	if !r.spent {
		return
	}
	n.wake(r)
	if n.effect != n.newest || r.asked != 0 && n.now.Sub(r.asked) < n.p.RetryEvery {
		return
	}
	r.asked = n.now
	n.out.Changes = append(n.out.Changes, core.Change{Kind: core.ChangeRenew, Slot: r.slot, Term: r.state.Ballot.Term, Boot: n.boot})
}

func later(a, b core.Version) core.Version {
	if a.Seq > b.Seq {
		return a
	}
	return b
}

// stepDown ends an ownership. What was not committed has an unknown outcome.
func (n *Node) stepDown(r *replica) {
	o := r.owner
	if o == nil {
		return
	}
	r.owner = nil
	n.touch(r.slot)
	for _, seq := range slices.Sorted(maps.Keys(o.pending)) {
		n.out.Results = append(n.out.Results, Result{
			ID: o.pending[seq].id, Err: fmt.Errorf("slot %d has another owner: %w", r.slot, core.ErrUnknownOutcome),
		})
	}
}

func (n *Node) toPeer(r *replica, p *peer, m *Message) {
	m.Slot, m.Disk, m.Ballot = r.slot, p.disk, r.owner.ballot
	p.sentAt = n.now
	if p.since == 0 {
		p.since = n.now
	}
	n.send(n.effect.NodeOf(p.disk), m)
	n.wake(r)
}

func (n *Node) sendSeal(r *replica, p *peer) {
	n.toPeer(r, p, &Message{Kind: MsgSeal, Joining: p.joining, Attempt: p.attempt})
}

// onOwner handles what members answer.
func (n *Node) onOwner(_ core.NodeID, m *Message) {
	if n.effect == nil || int(m.Slot) >= len(n.effect.Slots) {
		return
	}
	r := n.owned(m.Slot)
	if r == nil {
		return
	}
	o := r.owner
	p := o.peer(m.Disk)
	if p == nil || m.Ballot != o.ballot {
		return
	}
	switch m.Kind {
	case MsgSealed:
		n.onSealed(r, p, m)
	case MsgAck:
		n.onAck(r, p, m)
	case MsgCaughtUp:
		n.onCaughtUp(r, p, m)
	case MsgNack:
		n.onNack(r, p, m)
	}
}

func (o *ownership) peer(d core.DiskID) *peer {
	for _, p := range o.peers {
		if p.disk == d {
			return p
		}
	}
	return nil
}

func (n *Node) onSealed(r *replica, p *peer, m *Message) {
	if p.sealed || m.Joining != p.joining || m.Attempt != p.attempt {
		return
	}
	p.sealed, p.since = true, 0
	p.mark, p.last = m.Commit, m.Last
	p.acked = m.Last.Seq
	if !p.joining {
		n.sync(r)
	} else if r.owner.phase == active {
		n.beginJoin(r, p)
	}
}

// sync goes on once every in-sync member is sealed: what this disk has stands,
// what it lacks was never acknowledged.
func (n *Node) sync(r *replica) {
	o := r.owner
	if o.phase != sealing || !o.adopted {
		return
	}
	mark := r.state.Committed
	for _, p := range o.peers {
		if p.joining {
			continue
		}
		if !p.sealed {
			return
		}
		mark = later(mark, p.mark)
	}
	if has, ok := r.version(mark.Seq); !ok || has != mark {
		n.alarm(fmt.Sprintf("slot %d: disk %d lacks what is committed: it has %v, another member knows of %v", r.slot, r.disk, r.state.Last, mark))
		return
	}
	if k := int(mark.Seq - r.state.Committed.Seq); k > 0 {
		n.commitOwn(r, k)
	}
	o.phase = syncing
	inFlight := len(r.tail) > 0
	for _, p := range o.peers {
		switch {
		case p.joining:
		case p.last == r.state.Last:
			// Whoever has an entry has all that the entry's owner had
			// before it.
			p.synced = true
		default:
			inFlight = true
			n.stats.Undone++
			n.sendSync(r, p)
		}
	}
	if inFlight {
		n.stats.TakeOversInFlight++
	}
	n.activate(r)
}

func (n *Node) sendSync(r *replica, p *peer) {
	n.toPeer(r, p, &Message{Kind: MsgSync, Prev: r.state.Committed, Entries: r.entriesAbove(r.state.Committed.Seq)})
}

// entriesAbove returns a copy of the tail's entries with a Seq above s.
func (r *replica) entriesAbove(s uint64) []core.Entry {
	k := 0
	for k < len(r.tail) && r.tail[k].Version.Seq <= s {
		k++
	}
	return append([]core.Entry(nil), r.tail[k:]...)
}

// activate opens the slot once every in-sync member has the owner's tail.
func (n *Node) activate(r *replica) {
	o := r.owner
	if o.phase != syncing {
		return
	}
	for _, p := range o.peers {
		if !p.joining && !p.synced {
			return
		}
	}
	o.phase = active
	n.out.Opened = true
	n.touch(r.slot)
	n.checkCommit(r)
	for _, p := range o.peers {
		if p.joining && p.sealed {
			n.beginJoin(r, p)
		}
	}
}

func (n *Node) onAck(r *replica, p *peer, m *Message) {
	if !p.sealed || p.joining && !p.level || m.Last.Seq > r.state.Last.Seq {
		return
	}
	if !p.joining && !p.synced {
		if r.owner.phase != syncing {
			return
		}
		p.synced = true
		p.acked = 0
	}
	if m.Last.Seq > p.acked {
		p.acked, p.since = m.Last.Seq, 0
		if p.acked < r.state.Last.Seq {
			p.since = n.now
		}
	}
	if p.acked >= r.state.Last.Seq {
		p.since = 0
	}
	if p.first != nil && p.acked >= p.first.Last.Seq {
		p.first = nil
	}
	n.activate(r)
	n.checkCommit(r)
	n.checkJoined(r, p)
}

func (n *Node) onNack(r *replica, p *peer, m *Message) {
	if m.Attempt != 0 {
		if p.joining && !p.level && m.Attempt == p.attempt {
			n.joinAgain(r, p)
		}
		return
	}
	if !p.synced || m.Last.Seq < r.state.Committed.Seq || m.Last.Seq >= r.state.Last.Seq {
		return
	}
	// Every message behind a lost one is refused; one answer is enough.
	if m.Last == p.refused && n.now.Sub(p.refusedAt) < n.p.RetryEvery {
		return
	}
	p.refused, p.refusedAt = m.Last, n.now
	n.sendAppend(r, p, m.Last.Seq)
}

// sendAppend sends the tail from behind a seq that the member has.
func (n *Node) sendAppend(r *replica, p *peer, after uint64) {
	prev := r.state.Committed
	if after > prev.Seq {
		prev = r.tail[after-prev.Seq-1].Version
	}
	entries := r.entriesAbove(prev.Seq)
	if len(entries) == 0 && p.acked >= r.state.Last.Seq {
		return
	}
	n.toPeer(r, p, &Message{Kind: MsgAppend, Prev: prev, Entries: entries, Commit: r.state.Committed})
}

// Propose begins a write of the slot that this node owns, on the ground of what was
// read with g: that is still so, but for what the caller keeps from being written
// meanwhile, only if the node has owned the slot ever since. The entry's Version is set
// here; the end is reported as a [Result]. Errors: core.ErrNotOwner,
// core.ErrUnavailable; then nothing was written.
func (n *Node) Propose(now core.Instant, g Reading, e core.Entry, need Need) (WriteID, error) {
	n.now = now
	s := g.Slot
	r, err := n.activeOwner(s)
	if err != nil {
		return 0, err
	}
	if r.owner.tenure != g.tenure {
		return 0, fmt.Errorf("slot %d changed hands since it was read: %w", s, core.ErrUnavailable)
	}
	if have := n.domains(s, need.Domain); have < need.Domains {
		return 0, fmt.Errorf("slot %d: records are on %d of %d failure domains that the write needs: %w", s, have, need.Domains, core.ErrUnavailable)
	}
	n.nextID++
	id := WriteID(n.nextID)
	n.append(r, e, pending{id, need})
	return id, nil
}

// append writes an entry to the own disk and sends it to all who need it.
func (n *Node) append(r *replica, e core.Entry, w pending) {
	o := r.owner
	prev := r.state.Last
	e.Version = core.Version{Term: o.ballot.Term, Boot: o.ballot.Boot, Seq: prev.Seq + 1}
	for i := range e.Rows {
		e.Rows[i].Version = e.Version
		o.deletes = o.deletes || e.Rows[i].Deleted
	}
	r.tail = append(r.tail, e)
	r.state.Last = e.Version
	if w.id != 0 {
		o.pending[e.Version.Seq] = w
	}
	n.persist(r.disk, core.SlotBatch{Slot: r.slot, Append: []core.Entry{e}, Commit: n.mark(r)}, func(err error) {
		if err == nil {
			r.durable = later(r.durable, e.Version)
			if r.owner != nil {
				n.checkCommit(r)
			}
		}
	})
	for _, p := range o.peers {
		if !p.joining || p.level {
			n.toPeer(r, p, &Message{Kind: MsgAppend, Prev: prev, Entries: []core.Entry{e}, Commit: r.state.Committed})
		}
	}
	n.wake(r)
}

// activeOwner returns the local replica that owns the slot and is active.
func (n *Node) activeOwner(s core.SlotID) (*replica, error) {
	if n.effect == nil || int(s) >= len(n.effect.Slots) {
		return nil, fmt.Errorf("no map in effect: %w", core.ErrUnavailable)
	}
	r := n.owned(s)
	if r == nil || !n.mayOwn(r) {
		if owner := n.effect.OwnerNode(s); owner != n.id {
			return nil, fmt.Errorf("slot %d belongs to node %s: %w", s, owner, core.ErrNotOwner)
		}
		return nil, fmt.Errorf("slot %d is changing hands: %w", s, core.ErrUnavailable)
	}
	if r.owner.phase != active {
		return nil, fmt.Errorf("slot %d is being taken over: %w", s, core.ErrUnavailable)
	}
	return r, nil
}

// domains counts the failure domains that the slot's in-sync set spans.
func (n *Node) domains(s core.SlotID, d core.Domain) int {
	insync := n.effect.Slots[s].Insync
	if d == core.DomainDisk {
		return len(insync)
	}
	count := 0
	for i, a := range insync {
		node, first := n.effect.NodeOf(a), true
		for _, b := range insync[:i] {
			first = first && n.effect.NodeOf(b) != node
		}
		if first {
			count++
		}
	}
	return count
}

// checkCommit commits what every member that counts has.
func (n *Node) checkCommit(r *replica) {
	o := r.owner
	if o == nil || o.phase != active {
		return
	}
	upTo := r.durable.Seq
	for _, p := range o.peers {
		if (!p.joining || p.level) && !n.rules.NoAllInsync {
			upTo = min(upTo, p.acked)
		}
	}
	upTo = min(upTo, r.state.Last.Seq)
	if upTo > r.state.Committed.Seq {
		n.commitOwn(r, int(upTo-r.state.Committed.Seq))
	}
}

// commitOwn commits the first k entries of the owner's tail and reports them.
func (n *Node) commitOwn(r *replica, k int) {
	o := r.owner
	done := r.tail[:k:k]
	o.bridge.add(done, n.p.BridgeBytes)
	for i := range done {
		v := done[i].Version
		w, ok := o.pending[v.Seq]
		if !ok {
			continue
		}
		delete(o.pending, v.Seq)
		res := Result{ID: w.id, Version: v}
		if have := n.domains(r.slot, w.need.Domain); have < w.need.Domains {
			res.Err = fmt.Errorf("slot %d: members were lost while the write was under way: %w", r.slot, core.ErrUnknownOutcome)
		}
		n.out.Results = append(n.out.Results, res)
	}
	r.commit(k)
	n.touch(r.slot)
	if r.markDue == 0 {
		r.markDue = n.now.Add(n.p.MarkAfter)
	}
	n.wake(r)
}

// Reading is the right to read a slot; see [Node.Serving].
type Reading struct {
	Slot core.SlotID
	Disk core.DiskID
	// At is the version as of which the slot is to be read.
	At     core.Version
	tenure uint64
	active bool // writes are taken too
}

// Tenure names the unbroken run of ownerships under which the reading was taken:
// another node may have owned the slot between two that differ. It is not 0.
func (g *Reading) Tenure() uint64 { return g.tenure }

// Serving says where and as of which version a slot may be read here. After
// reading, ask [Node.Check] with the time of then, before answering.
func (n *Node) Serving(now core.Instant, s core.SlotID) (Reading, error) {
	n.now = now
	if n.effect == nil || int(s) >= len(n.effect.Slots) {
		return Reading{}, fmt.Errorf("no map in effect: %w", core.ErrUnavailable)
	}
	g, ok := n.right(s)
	if !ok {
		_, err := n.activeOwner(s)
		return Reading{}, err
	}
	if !n.HoldsLease(now) {
		return Reading{}, fmt.Errorf("node %s holds no lease from a majority of voters: %w", n.id, core.ErrUnavailable)
	}
	return g, nil
}

// Check says whether what was read may be answered: the node has owned the slot
// since, and still holds its lease.
func (n *Node) Check(now core.Instant, g Reading) error {
	_, err := n.Serving(now, g.Slot)
	if err == nil && n.owned(g.Slot).owner.tenure != g.tenure {
		err = fmt.Errorf("slot %d changed hands: %w", g.Slot, core.ErrUnavailable)
	}
	return err
}

// tickReplica sends again what was not answered, proposes to drop who stays
// silent, and spreads the mark of an idle slot.
func (n *Node) tickReplica(r *replica) {
	if d := n.disks[r.disk]; d == nil || d.slots[r.slot] != r {
		return // the disk is gone, or was put back since
	}
	if r.spent {
		n.askNewTerm(r)
	}
	if o := r.owner; o != nil {
		for _, p := range o.peers {
			n.tickPeer(r, p)
		}
		n.tickFloor(r)
		if r.markDue != 0 && n.now >= r.markDue && o.phase == active {
			n.spreadMark(r)
		}
	}
	n.flushMark(r)
	if r.markDue != 0 || r.owner.unsettled() {
		n.wake(r)
	}
}

func (o *ownership) unsettled() bool {
	if o == nil {
		return false
	}
	for _, p := range o.peers {
		if p.since != 0 || p.joining {
			return true
		}
	}
	return o.phase != active || len(o.ages) > 0 || o.deletes
}

func (n *Node) tickPeer(r *replica, p *peer) {
	if p.since == 0 {
		if p.joining {
			n.checkJoined(r, p)
		}
		return
	}
	limit := n.p.AckTimeout
	if n.down[n.effect.NodeOf(p.disk)] {
		limit = n.p.DownTimeout
	}
	if silent := n.now.Sub(p.since); silent > limit-limit/5 && (!p.joining || p.level) && n.notCutOff(p) && silent > limit {
		n.propose(r, core.ChangeDrop, p)
	}
	if n.now.Sub(p.sentAt) < n.p.RetryEvery {
		return
	}
	n.stats.Resent++
	switch {
	case !p.sealed:
		n.sendSeal(r, p)
	case p.joining && !p.level:
		n.retryCatchup(r, p)
	case !p.joining && !p.synced:
		n.sendSync(r, p)
	case p.first != nil:
		n.toPeer(r, p, p.first)
	case p.acked < r.state.Committed.Seq:
		// Only a member that broke its word can be here.
	default:
		n.sendAppend(r, p, p.acked)
	}
}

// notCutOff says whether a majority of voters has granted a report that was sent
// after the member came under suspicion, and since the last proposal to drop it.
// Where it has not, the report is sent.
func (n *Node) notCutOff(p *peer) bool {
	if p.doubted < p.since {
		p.doubted = n.now
		if n.lease.reported != n.now {
			n.report() // one for all members that come under suspicion now
		}
	}
	return n.rules.NoDropConfirm || n.GrantedSince(p.doubted)
}

// propose asks for a change of the slot's row, now and then.
func (n *Node) propose(r *replica, kind core.ChangeKind, p *peer) {
	if r.owner.proposed != 0 && n.now.Sub(r.owner.proposed) < n.p.RetryEvery {
		return
	}
	r.owner.proposed = n.now
	if kind == core.ChangeDrop {
		n.stats.Drops++
		p.doubted = 0
	}
	n.out.Changes = append(n.out.Changes, core.Change{
		Kind: kind, Slot: r.slot, Disk: p.disk, Term: r.owner.ballot.Term, Boot: r.owner.ballot.Boot,
	})
}

// spreadMark tells the members of an idle slot what is committed.
func (n *Node) spreadMark(r *replica) {
	for _, p := range r.owner.peers {
		if (!p.joining && p.synced) || p.level {
			n.send(n.effect.NodeOf(p.disk), &Message{
				Kind: MsgMark, Slot: r.slot, Disk: p.disk, Ballot: r.owner.ballot, Commit: r.state.Committed,
			})
		}
	}
}

// tickFloor lets tombstones go that are old enough, while no disk is joining.
func (n *Node) tickFloor(r *replica) {
	o := r.owner
	if o.phase != active {
		return
	}
	every := n.p.TombstoneAge / 10
	if o.deletes && (len(o.ages) == 0 || n.now.Sub(o.ages[len(o.ages)-1].at) >= every) {
		o.ages = append(o.ages, age{n.now, r.state.Last.Seq})
		o.deletes = false
	}
	if len(o.ages) == 0 || n.now.Sub(o.ages[0].at) < n.p.TombstoneAge {
		return
	}
	for _, p := range o.peers {
		if p.joining {
			return
		}
	}
	floor := o.ages[0].seq
	o.ages = o.ages[1:]
	if floor > r.state.Floor && floor <= r.state.Committed.Seq {
		n.append(r, core.Entry{Floor: floor}, pending{})
	}
}
