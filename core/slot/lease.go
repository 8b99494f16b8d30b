package slot

import (
	"maps"
	"slices"
	"time"

	"github.com/shoalstore/shoal/core"
)

// lease is the node's own side of the leases: when it sent the reports that
// voters granted.
type lease struct {
	reported core.Instant
	began    bool
	sent     grants // of the last granted report
	replied  map[core.NodeID]core.Instant
	silent   map[core.NodeID][]core.NodeID
	// turned is when this node first saw a map with other voters than the one
	// in effect, 0 if there is none; before holds the grants of reports from
	// before that.
	turned core.Instant
	before grants
	// dropped is when all grants were forgotten; what answers to reports from
	// before that is late.
	dropped core.Instant
}

// grants says when each voter's last granted report was sent.
type grants map[core.Voter]core.Instant

func (l *lease) init() {
	l.sent, l.before = grants{}, grants{}
	l.replied = map[core.NodeID]core.Instant{}
	l.silent = map[core.NodeID][]core.NodeID{}
}

// turn notes that the newest map has other voters than the one in effect.
func (l *lease) turn(now core.Instant, effect, newest *core.Map) {
	if effect != nil && l.turned == 0 && !slices.Equal(effect.Voters, newest.Voters) {
		l.turned, l.before = now, maps.Clone(l.sent)
	}
}

// arrive notes that the newest map is in effect.
func (l *lease) arrive() { l.turned, l.before = 0, grants{} }

func (n *Node) tickLease() {
	if n.newest == nil || n.lease.began && n.now.Sub(n.lease.reported) < n.p.ReportEvery {
		return
	}
	n.report()
}

// report tells all voters, of the map in effect and of the newest, which map
// the node obeys.
func (n *Node) report() {
	n.lease.began, n.lease.reported = true, n.now
	m := &Message{Kind: MsgReport, Epoch: n.newest.Epoch, Sum: n.newest.Sum(), Boot: n.boot, Nonce: n.now}
	var told []core.NodeID
	for _, mp := range []*core.Map{n.effect, n.newest} {
		if mp == nil {
			continue
		}
		for _, vs := range [][]core.Voter{mp.Voters, mp.OldVoters} {
			for _, v := range vs {
				if !slices.Contains(told, v.Node) {
					told = append(told, v.Node)
					n.send(v.Node, m)
				}
			}
		}
	}
}

// Report sends a report ahead of its time.
func (n *Node) Report(now core.Instant) {
	n.now = now
	if n.newest != nil {
		n.report()
	}
}

// GrantedSince says whether a majority of voters has granted the lease to a
// report that was sent at that time or later. What was read before then was
// read while no map in effect took it from this node: unlike [Node.HoldsLease],
// this holds on a machine that was frozen together with its clocks.
func (n *Node) GrantedSince(t core.Instant) bool {
	since := func(voters []core.Voter) bool {
		return core.Majority(voters, func(v core.Voter) bool {
			sent, ok := n.lease.sent[v]
			return ok && sent >= t
		})
	}
	return n.effect != nil && since(n.effect.Voters) && (n.newest == n.effect || since(n.newest.Voters))
}

func (n *Node) onGrant(from core.NodeID, m *Message) {
	if m.Boot != n.boot {
		return
	}
	n.lease.replied[from] = n.now
	n.lease.silent[from] = m.Silent
	v := core.Voter{Node: from, Key: m.Key}
	if m.Granted && m.Nonce > n.lease.dropped {
		n.lease.sent[v] = max(n.lease.sent[v], m.Nonce)
		if m.Nonce < n.lease.turned {
			n.lease.before[v] = max(n.lease.before[v], m.Nonce)
		}
	}
	n.noteConfirmed(v, confirmation{m.Epoch, m.Sum})
}

// HoldsLease says whether a majority of voters has granted this node its lease
// recently enough for it to answer reads.
func (n *Node) HoldsLease(now core.Instant) bool {
	n.now = now
	return now < n.leaseUntil()
}

// DropLease forgets all grants. The driver calls it when the node's clocks
// have parted.
func (n *Node) DropLease() {
	n.lease.dropped = n.now
	clear(n.lease.sent)
	clear(n.lease.before)
}

// Silent lists the nodes that a majority of voters does not hear, as far as
// this node was told recently.
func (n *Node) Silent(now core.Instant) []core.NodeID {
	if n.effect == nil {
		return nil
	}
	const fresh = 2 * time.Second
	count := map[core.NodeID]int{}
	for _, v := range n.effect.Voters {
		t, ok := n.lease.replied[v.Node]
		if !ok || now.Sub(t) > fresh {
			continue
		}
		for _, s := range n.lease.silent[v.Node] {
			count[s]++
		}
	}
	var out []core.NodeID
	for i := range n.effect.Nodes {
		if id := n.effect.Nodes[i].ID; count[id] > len(n.effect.Voters)/2 {
			out = append(out, id)
		}
	}
	return out
}
