package slot

import (
	"fmt"

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
	// started is when its memory of grants begins.
	started core.Instant
	// naming is the map that made it a voter, until that is in effect, and
	// namedAt is when that was.
	naming  core.Epoch
	namedAt core.Instant
	grants  map[core.NodeID]core.Instant // until when
	heard   map[core.NodeID]core.Instant
	obeyed  map[core.NodeID]confirmation
	floors  map[core.NodeID]core.Epoch
	// saving is the map whose confirmation is being made durable.
	saving *core.Map
}

func (v *voter) init(s VoterState, now core.Instant) {
	v.state = s
	v.started = now
	v.grants = map[core.NodeID]core.Instant{}
	v.heard = map[core.NodeID]core.Instant{}
	v.obeyed = map[core.NodeID]confirmation{}
	v.floors = map[core.NodeID]core.Epoch{}
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
	reply := &Message{Kind: MsgGrant, Nonce: m.Nonce, Epoch: v.epoch(), Boot: m.Boot}
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
	if m == nil || v.saving != nil || !n.votes(m) || m.Epoch <= v.epoch() {
		return
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
// therefore go on with a later one; it cannot tell what those took from whom,
// so it then waits for every node.
func (n *Node) mayConfirm(m *core.Map) bool {
	v := &n.voter
	own := v.state.Map
	if own == nil {
		// The map names this voter for the first time. The old voters
		// watch over what it takes.
		return m.IsVoter(n.id, v.state.Key)
	}
	if m.Epoch == own.Epoch+1 && m.Prev != own.Sum() {
		n.alarm(fmt.Sprintf("voter: map %d does not follow the one confirmed before it and is refused", m.Epoch))
		return false
	}
	losers := own.Losers(m)
	if m.Epoch > own.Epoch+1 {
		losers = losers[:0]
		for i := range m.Nodes {
			losers = append(losers, m.Nodes[i].ID)
		}
	}
	ok := true
	for _, loser := range losers {
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

// remembersGrants says whether every lease that this voter, or one that it
// replaced, may have helped to give is known to it or has run out.
func (n *Node) remembersGrants() bool {
	v := &n.voter
	return n.rules.NoRestartWait ||
		v.naming == 0 && n.now.Sub(v.started) > n.p.Grant && (v.namedAt == 0 || n.now.Sub(v.namedAt) > n.p.Grant)
}

func (n *Node) voterSaved(s VoterState, err error) {
	v := &n.voter
	v.saving = nil
	if err != nil {
		n.alarm(fmt.Sprintf("voter: confirmation of map %d could not be stored: %v", s.Map.Epoch, err))
		return
	}
	if v.state.Map == nil {
		v.naming = s.Map.Epoch
	}
	v.state = s
	n.stats.Confirmed++
	m := &Message{Kind: MsgConfirmed, Epoch: s.Map.Epoch, Sum: s.Map.Sum()}
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
