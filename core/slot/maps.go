package slot

import (
	"fmt"

	"github.com/shoalstore/shoal/core"
)

func (n *Node) seenEpoch() core.Epoch {
	if n.newest == nil {
		return 0
	}
	return n.newest.Epoch
}

// SeeMap takes a map from the bus or from a peer. What a newer map takes from
// this node it obeys at once; what it gives counts once it is in effect.
func (n *Node) SeeMap(now core.Instant, m *core.Map) {
	n.now = now
	if n.newest != nil {
		switch {
		case m.Cluster != n.newest.Cluster:
			n.alarm(fmt.Sprintf("map %d is of another cluster, %s", m.Epoch, m.Cluster))
			return
		case m.Epoch < n.newest.Epoch, m.Epoch == n.newest.Epoch && m.Sum() == n.newest.Sum():
			return
		case n.effect != nil && m.Epoch == n.effect.Epoch:
			n.alarm(fmt.Sprintf("two maps with epoch %d: %.12s is in effect, %.12s is refused", m.Epoch, n.effect.Sum(), m.Sum()))
			return
		case n.effect != nil && m.Epoch == n.effect.Epoch+1 && m.Prev != n.effect.Sum():
			n.alarm(fmt.Sprintf("map %d does not follow the map in effect and is refused", m.Epoch))
			return
		}
	}
	n.newest = m
	n.out.MapChanged, n.touchedAll = true, true
	n.voter.noteInForce(n.now, m, false)
	n.lease.turn(n.now, n.effect, m)
	n.obey()
	n.tally()
	n.voterStep()
	n.report()
}

// obey gives up at once what the newest map takes, and takes up again what one
// that came to nothing had taken.
func (n *Node) obey() {
	if n.effect == nil {
		return
	}
	for s := range n.effect.Slots {
		id := core.SlotID(s)
		if r := n.owned(id); r == nil {
			n.reconfigure(id)
		} else if !n.mayOwn(r) {
			n.stepDown(r)
		}
	}
}

// owned returns the local replica that owns the slot by the map in effect, if
// it has begun to.
func (n *Node) owned(s core.SlotID) *replica {
	d := n.disks[n.effect.Slots[s].Owner()]
	if d == nil {
		return nil
	}
	if r := d.slots[s]; r != nil && r.owner != nil {
		return r
	}
	return nil
}

// mayOwn says whether the map in effect makes the replica the owner of its slot
// and the newest map does not take that away.
func (n *Node) mayOwn(r *replica) bool {
	for _, m := range []*core.Map{n.effect, n.newest} {
		node := m.Node(n.id)
		if int(r.slot) >= len(m.Slots) || m.Slots[r.slot].Owner() != r.disk || node == nil || node.Boot != n.boot {
			return false
		}
	}
	return true
}

func (n *Node) onConfirmed(from core.NodeID, m *Message) {
	n.noteConfirmed(core.Voter{Node: from, Key: m.Key}, confirmation{m.Epoch, m.Sum})
}

// noteConfirmed remembers what a voter confirmed and fetches a map that this
// node has not seen.
func (n *Node) noteConfirmed(v core.Voter, c confirmation) {
	if c.epoch == 0 || c.epoch < n.confirms[v].epoch {
		return
	}
	n.confirms[v] = c
	if n.newest == nil || c.epoch > n.newest.Epoch || c.epoch == n.newest.Epoch && c.sum != n.newest.Sum() {
		n.send(v.Node, &Message{Kind: MsgMapWant, Epoch: c.epoch, Sum: c.sum})
		return
	}
	n.tally()
}

func (n *Node) onMapWant(from core.NodeID, m *Message) {
	best := n.newest
	if own := n.voter.state.Map; own != nil && m.Sum != "" && own.Sum() == m.Sum {
		best = own
	}
	if best != nil && (best.Epoch > m.Epoch || best.Sum() == m.Sum) {
		n.send(from, &Message{Kind: MsgMap, Map: best})
	}
}

// tally puts the newest map in effect once a majority of its voters and of its
// predecessor's has confirmed exactly it.
func (n *Node) tally() {
	m := n.newest
	if m == nil || n.effect != nil && m.Epoch <= n.effect.Epoch {
		return
	}
	confirmed := func(v core.Voter) bool {
		return n.confirms[v] == confirmation{m.Epoch, m.Sum()}
	}
	old := m.OldVoters
	if len(old) == 0 {
		old = m.Voters
	}
	if !n.rules.NoMapConfirm && (!core.Majority(m.Voters, confirmed) || !core.Majority(old, confirmed)) {
		return
	}
	n.putInEffect(m)
}

func (n *Node) putInEffect(m *core.Map) {
	was := n.effect
	n.effect = m
	n.out.MapChanged, n.touchedAll = true, true
	n.voter.noteInForce(n.now, m, true)
	n.lease.arrive()
	for s := range m.Slots {
		id := core.SlotID(s)
		if was == nil || was.Slots[s].Term != m.Slots[s].Term || was.SlotBallot(id) != m.SlotBallot(id) {
			if was != nil && was.Slots[s].Owner() != m.Slots[s].Owner() {
				if d := n.disks[was.Slots[s].Owner()]; d != nil && d.slots[id] != nil {
					n.stepDown(d.slots[id])
				}
			}
			n.reconfigure(id)
		}
	}
	n.voterStep()
}

// reconfigure makes the local replicas of a slot what the map in effect says.
func (n *Node) reconfigure(s core.SlotID) {
	owner := n.effect.Slots[s].Owner()
	for _, id := range n.effect.Slots[s].Insync {
		if d := n.disks[id]; d != nil && id != owner && d.slots[s] != nil {
			n.stepDown(d.slots[s])
		}
	}
	if n.effect.OwnerNode(s) != n.id {
		return
	}
	if r := n.replica(owner, s); r != nil && n.mayOwn(r) {
		n.takeOver(r)
	}
}
