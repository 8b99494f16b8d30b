package slot

import (
	"fmt"
	"slices"

	"github.com/shoalstore/shoal/core"
)

// VoterState is what a voter keeps across restarts.
type VoterState struct {
	// Key is the state's own random name; see [core.Voter].
	Key string
	// Map is the last map that it confirmed, nil if it never voted.
	Map *core.Map
}

// voter confirms maps and grants leases. It is part of every node; whether it
// votes is for the maps to say.
type voter struct {
	state VoterState
	// started is when its memory of grants begins. set is the number of the
	// set of voters that is known to be in force, and inForce since when
	// that is known: before it, others may have granted leases.
	started, inForce core.Instant
	set              uint64
	grants           map[core.NodeID]core.Instant // until when
	heard            map[core.NodeID]core.Instant
	obeyed           map[core.NodeID]confirmation
	floors           map[core.NodeID]core.Epoch
	// saving is the map whose confirmation is being made durable.
	saving *core.Map
}

func (v *voter) init(s VoterState, now core.Instant) {
	v.state = s
	v.started, v.inForce = now, now
	v.grants = map[core.NodeID]core.Instant{}
	v.heard = map[core.NodeID]core.Instant{}
	v.obeyed = map[core.NodeID]confirmation{}
	v.floors = map[core.NodeID]core.Epoch{}
}

// noteInForce notes which set of voters is in force: the map's own once it is
// in effect, before that its predecessor's.
func (v *voter) noteInForce(now core.Instant, m *core.Map, effect bool) {
	set := m.Bus
	if !effect && len(m.OldVoters) > 0 && !slices.Equal(m.Voters, m.OldVoters) {
		set--
	}
	if set > v.set {
		v.set, v.inForce = set, now
	}
}

// epoch is that of the last confirmed map.
func (v *voter) epoch() core.Epoch {
	if v.state.Map == nil {
		return 0
	}
	return v.state.Map.Epoch
}

// votes says whether the node's voter has a say in a map: as one of its voters
// or of its predecessor's.
func (n *Node) votes(m *core.Map) bool {
	key := n.voter.state.Key
	for _, v := range m.OldVoters {
		if v.Node == n.id && v.Key == key {
			return true
		}
	}
	return m.IsVoter(n.id, key)
}

// onReport grants the reporting node its lease, or tells it what it has missed.
func (n *Node) onReport(from core.NodeID, m *Message) {
	v := &n.voter
	v.heard[from] = n.now
	v.obeyed[from] = confirmation{m.Epoch, m.Sum}
	reply := &Message{Kind: MsgGrant, Key: v.state.Key, Nonce: m.Nonce, Epoch: v.epoch(), Boot: m.Boot}
	if v.state.Map != nil {
		reply.Sum = v.state.Map.Sum()
		voting := n.votes(v.state.Map) || n.newest != nil && n.votes(n.newest)
		fresh := m.Epoch > v.epoch() || m.Epoch == v.epoch() && m.Sum == v.state.Map.Sum()
		if voting && fresh && m.Epoch >= v.floors[from] {
			reply.Granted = true
			v.grants[from] = n.now.Add(n.p.Grant)
		}
		reply.Silent = n.silentToMe()
	}
	n.send(from, reply)
	if n.newest == nil || m.Epoch > n.newest.Epoch {
		n.send(from, &Message{Kind: MsgMapWant, Epoch: n.seenEpoch()})
	} else if m.Epoch < n.newest.Epoch {
		n.send(from, &Message{Kind: MsgMap, Map: n.newest})
	}
	n.voterStep()
}

// silentToMe lists the nodes that should be heard of and are not.
func (n *Node) silentToMe() []core.NodeID {
	if n.effect == nil || n.now.Sub(n.voter.started) < n.p.Grant {
		return nil
	}
	var out []core.NodeID
	for i := range n.effect.Nodes {
		node := &n.effect.Nodes[i]
		switch node.State {
		case core.NodeActive, core.NodeMaintenance, core.NodeDraining:
			t, ok := n.voter.heard[node.ID]
			if !ok || n.now.Sub(t) > n.p.Grant {
				out = append(out, node.ID)
			}
		}
	}
	return out
}

// voterStep confirms the newest map if the rules allow it by now.
func (n *Node) voterStep() {
	m, v := n.newest, &n.voter
	if m == nil || v.saving != nil || !n.votes(m) || m.Epoch < v.epoch() {
		return
	}
	if m.Epoch == v.epoch() && (m != n.effect || m.Sum() == v.state.Map.Sum()) {
		return // of two siblings only the one in effect may be taken for the other
	}
	if m != n.effect && !n.mayConfirm(m) {
		return
	}
	v.saving = m
	state := VoterState{Key: v.state.Key, Map: m}
	n.nextID++
	n.out.Persists = append(n.out.Persists, Persist{ID: n.nextID, Voter: &state})
	n.waits[n.nextID] = func(err error) { n.voterSaved(state, err) }
}

// mayConfirm holds the rules of confirmation for a map that is not known to be
// in effect: it follows one that is, and nobody from whom it takes something
// can still act on the old one.
//
// A map is proposed only on top of one in effect, so that the existence of a
// map proves its predecessor to be in effect. A voter that missed some maps may
// therefore go on with a later one; if it does not know the predecessor it
// cannot tell what the map takes from whom, so it then waits for every node.
func (n *Node) mayConfirm(m *core.Map) bool {
	v := &n.voter
	own := v.state.Map
	if own != nil && m.Epoch == own.Epoch+1 && m.Prev != own.Sum() {
		n.alarm(fmt.Sprintf("voter: map %d does not follow the one confirmed before it and is refused", m.Epoch))
		return false
	}
	if !slices.Contains(m.OldVoters, n.Voter()) {
		// The map names this voter. The old ones watch over what it takes.
		return true
	}
	ok := true
	for _, loser := range n.losers(m) {
		v.floors[loser] = max(v.floors[loser], m.Epoch)
		if v.obeyed[loser] == (confirmation{m.Epoch, m.Sum()}) {
			continue
		}
		if n.now <= v.grants[loser] || !n.remembersGrants() {
			ok = false
		}
	}
	return ok
}

// losers lists from whom a map may take something.
func (n *Node) losers(m *core.Map) []core.NodeID {
	for _, was := range []*core.Map{n.voter.state.Map, n.effect} {
		if was != nil && was.Epoch+1 == m.Epoch && was.Sum() == m.Prev {
			return was.Losers(m)
		}
	}
	out := make([]core.NodeID, len(m.Nodes))
	for i := range m.Nodes {
		out[i] = m.Nodes[i].ID
	}
	return out
}

// remembersGrants says whether every lease that may be held is known to this
// voter or has run out: it has been there for the time of a lease, and so long
// ago the present voters became the ones whose grants count. A lease that rests
// on grants of an earlier set of voters, this one among them or not, was
// granted before that.
func (n *Node) remembersGrants() bool {
	v := &n.voter
	return n.rules.NoRestartWait || n.now.Sub(v.started) > n.p.Grant && n.now.Sub(v.inForce) > n.p.Grant
}

func (n *Node) voterSaved(s VoterState, err error) {
	v := &n.voter
	v.saving = nil
	if err != nil {
		n.alarm(fmt.Sprintf("voter: confirmation of map %d could not be stored: %v", s.Map.Epoch, err))
		return
	}
	v.state = s
	n.stats.Confirmed++
	m := &Message{Kind: MsgConfirmed, Key: s.Key, Epoch: s.Map.Epoch, Sum: s.Map.Sum()}
	n.onConfirmed(n.id, m)
	for i := range s.Map.Nodes {
		if id := s.Map.Nodes[i].ID; id != n.id {
			n.send(id, m)
		}
	}
	n.voterStep()
}

// Voter returns the voter's key, for being named in a map.
func (n *Node) Voter() core.Voter { return core.Voter{Node: n.id, Key: n.voter.state.Key} }

// Confirmed is the epoch of the last map that this node's voter confirmed.
func (n *Node) Confirmed() core.Epoch { return n.voter.epoch() }
