package slot

import (
	"slices"

	"github.com/shoalstore/shoal/core"
)

// bridge keeps the entries that were committed since a joiner's last stretch
// was read, so that the joiner can go over to live writes without a gap.
type bridge struct {
	joiner  core.DiskID // 0: nobody
	prev    core.Version
	entries []core.Entry
	bytes   int
	full    bool
}

func (b *bridge) begin(joiner core.DiskID, from core.Version) {
	*b = bridge{joiner: joiner, prev: from}
}

func (b *bridge) add(done []core.Entry, limit int) {
	if b.joiner == 0 || b.full {
		return
	}
	for i := range done {
		b.bytes += done[i].Size()
	}
	if b.bytes > limit {
		b.full, b.entries = true, nil
		return
	}
	b.entries = append(b.entries, done...)
}

// beginJoin starts to bring a sealed joiner level: from its mark, or from the
// start where deletions since then are no longer remembered.
func (n *Node) beginJoin(r *replica, p *peer) {
	if p.started || p.reading || p.level {
		return
	}
	p.cursor = p.mark.Seq
	if p.mark.Seq < r.state.Floor || p.mark.Seq > r.state.Committed.Seq {
		p.cursor = 0
		n.stats.JoinsFromFloor++
	}
	n.readFor(r, p)
}

// joinAgain starts anew with a joiner that has lost track, because it was
// restarted: it goes on from what its disk has by now.
func (n *Node) joinAgain(r *replica, p *peer) {
	if r.owner.bridge.joiner == p.disk {
		r.owner.bridge = bridge{}
	}
	n.nextID++
	*p = peer{disk: p.disk, joining: true, attempt: n.nextID}
	n.stats.JoinsAgain++
	n.sendSeal(r, p)
}

// readFor reads the joiner's next stretch, which ends at the commit mark.
func (n *Node) readFor(r *replica, p *peer) {
	o := r.owner
	if other := o.peer(o.bridge.joiner); other != nil && other != p && n.now.Sub(other.since) < n.p.AckTimeout {
		p.since, p.sentAt = n.now, n.now // one at a time; tickPeer comes back
		return
	}
	if p.cursor == r.state.Committed.Seq && (p.started || p.mark == r.state.Committed) {
		o.bridge.begin(p.disk, r.state.Committed)
		n.goLive(r, p)
		return
	}
	if !n.admit(r, p) {
		p.since, p.sentAt = n.now, n.now
		return
	}
	o.bridge.begin(p.disk, r.state.Committed)
	p.reading = true
	p.since, p.sentAt = n.now, n.now
	n.nextID++
	upTo, attempt := r.state.Committed, p.attempt
	n.out.Reads = append(n.out.Reads, Read{
		ID: n.nextID, Disk: r.disk, Slot: r.slot, After: p.cursor, UpTo: upTo, Bytes: n.p.CatchupBytes,
	})
	n.reads[n.nextID] = func(e core.Entries, err error) {
		if r.owner != o || !p.reading || p.attempt != attempt {
			return
		}
		p.reading = false
		if err != nil {
			o.bridge.joiner = 0
			return
		}
		p.catchup = &Message{
			Kind: MsgCatchup, After: p.cursor, UpTo: e.UpTo, Floor: r.state.Floor, Entries: e.List, Attempt: attempt,
		}
		n.sendCatchup(r, p)
	}
}

func (n *Node) sendCatchup(r *replica, p *peer) {
	m := *p.catchup
	n.toPeer(r, p, &m)
}

func (n *Node) retryCatchup(r *replica, p *peer) {
	switch {
	case p.reading:
		p.sentAt = n.now
	case p.catchup != nil:
		// It is large, and what a busy disk has not acknowledged yet is
		// seldom lost.
		if n.now.Sub(p.sentAt) >= n.p.AckTimeout {
			n.sendCatchup(r, p)
		}
	case r.owner.phase == active:
		n.readFor(r, p)
	}
}

// onCaughtUp goes on with the next stretch, or goes live.
func (n *Node) onCaughtUp(r *replica, p *peer, m *Message) {
	o := r.owner
	if !p.joining || p.level || p.catchup == nil || m.Attempt != p.attempt || m.Last != p.catchup.UpTo || o.phase != active {
		return
	}
	p.started = true
	p.cursor = p.catchup.UpTo.Seq
	p.catchup = nil
	p.since = 0
	defer n.nextStreams()
	if o.bridge.joiner == p.disk && o.bridge.prev.Seq == p.cursor && !o.bridge.full {
		n.goLive(r, p)
		return
	}
	o.bridge.joiner = 0
	n.readFor(r, p)
}

// goLive sends the joiner what was committed since its last stretch, and the
// tail. From here on nothing commits without it.
func (n *Node) goLive(r *replica, p *peer) {
	o := r.owner
	p.level, p.synced = true, true
	n.stats.Joins++
	p.acked = o.bridge.prev.Seq
	entries := append(append([]core.Entry(nil), o.bridge.entries...), r.tail...)
	prev := o.bridge.prev
	o.bridge = bridge{}
	if len(entries) == 0 {
		p.since = 0
		n.checkJoined(r, p)
		n.wake(r)
		return
	}
	p.first = &Message{Kind: MsgAppend, Prev: prev, Entries: entries, Commit: r.state.Committed, Last: r.state.Last}
	n.toPeer(r, p, p.first)
}

// checkJoined proposes a joiner that has everything for the in-sync set.
func (n *Node) checkJoined(r *replica, p *peer) {
	if p.joining && p.level && p.first == nil && r.owner.phase == active && p.acked >= r.state.Committed.Seq {
		n.propose(r, core.ChangeJoined, p)
	}
}

// stream is a joiner that is read for or sent history, or that waits for that.
type stream struct {
	r       *replica
	o       *ownership
	p       *peer
	attempt uint64
}

// valid says whether the stream still is about the same attempt to join.
func (x *stream) valid() bool {
	return x.r.owner == x.o && x.p.attempt == x.attempt && x.p.joining && !x.p.level && x.o.peer(x.p.disk) == x.p
}

// freeStream says whether one more joiner may be sent history now.
func (n *Node) freeStream() bool {
	n.streams = slices.DeleteFunc(n.streams, func(x stream) bool { return !x.valid() || !x.p.reading && x.p.catchup == nil })
	return len(n.streams) < n.p.Streams
}

// admit gives a joiner a stream, or queues it.
func (n *Node) admit(r *replica, p *peer) bool {
	x := stream{r, r.owner, p, p.attempt}
	if n.freeStream() {
		p.queued = false
		n.streams = append(n.streams, x)
		return true
	}
	if !p.queued {
		p.queued = true
		n.queue = append(n.queue, x)
	}
	return false
}

// nextStreams lets those who wait for a stream have what is free.
func (n *Node) nextStreams() {
	for len(n.queue) > 0 && n.freeStream() {
		x := n.queue[0]
		n.queue[0] = stream{}
		n.queue = n.queue[1:]
		if !x.valid() || !x.p.queued {
			continue
		}
		x.p.queued = false
		if x.o.phase == active && !x.p.reading && x.p.catchup == nil {
			n.readFor(x.r, x.p)
		}
	}
}
