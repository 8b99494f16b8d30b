package slot

import (
	"slices"
	"time"

	"github.com/shoalstore/shoal/core"
)

// lease is the node's own side of the leases: when it sent the reports that
// voters granted.
type lease struct {
	reported core.Instant
	began    bool
	sent     map[core.NodeID]core.Instant // of the last granted report
	replied  map[core.NodeID]core.Instant
	silent   map[core.NodeID][]core.NodeID
}

func (l *lease) init() {
	l.sent = map[core.NodeID]core.Instant{}
	l.replied = map[core.NodeID]core.Instant{}
	l.silent = map[core.NodeID][]core.NodeID{}
}

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

func (n *Node) onGrant(from core.NodeID, m *Message) {
	if m.Boot != n.boot {
		return
	}
	n.lease.replied[from] = n.now
	n.lease.silent[from] = m.Silent
	if m.Granted && m.Nonce > n.lease.sent[from] {
		n.lease.sent[from] = m.Nonce
	}
	n.noteConfirmed(from, confirmation{m.Epoch, m.Sum})
}

// HoldsLease says whether a majority of voters has granted this node its lease
// recently enough for it to answer reads.
func (n *Node) HoldsLease(now core.Instant) bool {
	n.now = now
	if n.rules.NoLease {
		return true
	}
	if n.effect == nil {
		return false
	}
	return core.Majority(n.effect.Voters, func(v core.Voter) bool {
		t, ok := n.lease.sent[v.Node]
		return ok && now.Sub(t) < n.p.LeaseUse
	})
}

// DropLease forgets all grants. The driver calls it when the node's clocks
// have parted.
func (n *Node) DropLease() { n.lease.sent = map[core.NodeID]core.Instant{} }

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
