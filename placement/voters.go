package placement

import (
	"slices"
	"time"

	"github.com/shoalstore/shoal/core"
)

// PlanVoters says how the voters should change, or nil. candidates are the
// nodes that live, each with the key of its voter's state. There should be one
// voter for one or two nodes, three for three or four, and five beyond.
//
// One thing is done at a time. A voter is replaced, at most one in a change,
// when its node left the cluster or is leaving it, was down for longer than
// grace, or lives but has lost its state and so a new key. Voters are added
// by two, of distinct zones as far as there are any. Two are let go, the ones
// that are gone or leaving first, when the cluster has become too small.
func PlanVoters(m *core.Map, candidates map[core.NodeID]string, now time.Time, grace time.Duration) *core.Change {
	v := voterPlan{m: m, candidates: candidates, now: now, grace: grace}
	members := 0
	for i := range m.Nodes {
		switch m.Nodes[i].State {
		case core.NodeActive, core.NodeMaintenance, core.NodeDown:
			members++
		case core.NodeJoining, core.NodeDraining, core.NodeDecommissioned:
		}
	}
	should := 5
	switch {
	case members <= 2:
		should = 1
	case members <= 4:
		should = 3
	}
	if len(m.Voters) > should {
		return v.shrink()
	}
	if c := v.replace(); c != nil {
		return c
	}
	if len(m.Voters) < should {
		return v.grow()
	}
	return nil
}

type voterPlan struct {
	m          *core.Map
	candidates map[core.NodeID]string
	now        time.Time
	grace      time.Duration
}

func votersChange(voters []core.Voter) *core.Change {
	return &core.Change{Kind: core.ChangeVoters, Voters: voters}
}

// bad ranks why a voter should go: 0 for a good one.
func (v *voterPlan) bad(w core.Voter) int {
	n := v.m.Node(w.Node)
	key, lives := v.candidates[w.Node]
	leaving := n == nil || n.State == core.NodeDraining || n.State == core.NodeDecommissioned
	switch {
	case leaving && !lives:
		return 4
	case !lives && n.State != core.NodeActive && n.Since.Add(v.grace).Before(v.now):
		return 3
	case lives && key != w.Key:
		return 2 // it does not vote
	case leaving:
		return 1
	}
	return 0
}

// replace names another voter for the worst one, if there is any.
func (v *voterPlan) replace() *core.Change {
	worst := -1
	for i, w := range v.m.Voters {
		if b := v.bad(w); b > 0 && (worst < 0 || b > v.bad(v.m.Voters[worst])) {
			worst = i
		}
	}
	if worst < 0 {
		return nil
	}
	rest := slices.Delete(slices.Clone(v.m.Voters), worst, worst+1)
	w, ok := v.choose(rest)
	if v.bad(v.m.Voters[worst]) == 2 && v.takes(v.m.Voters[worst].Node) {
		// It is sound but for its state: it stays under its new key.
		w = core.Voter{Node: v.m.Voters[worst].Node, Key: v.candidates[v.m.Voters[worst].Node]}
		ok = true
	}
	if !ok {
		return nil
	}
	return votersChange(slices.Insert(rest, worst, w))
}

func (v *voterPlan) grow() *core.Change {
	voters := slices.Clone(v.m.Voters)
	for range 2 {
		w, ok := v.choose(voters)
		if !ok {
			return nil
		}
		voters = append(voters, w)
	}
	return votersChange(voters)
}

func (v *voterPlan) shrink() *core.Change {
	voters := slices.Clone(v.m.Voters)
	for range 2 {
		worst := len(voters) - 1
		for i, w := range voters {
			if v.bad(w) > v.bad(voters[worst]) {
				worst = i
			}
		}
		voters = slices.Delete(voters, worst, worst+1)
	}
	return votersChange(voters)
}

// takes says whether the node may be made a voter.
func (v *voterPlan) takes(id core.NodeID) bool {
	n := v.m.Node(id)
	return n != nil && n.State == core.NodeActive && v.candidates[id] != ""
}

// choose returns a node to vote beside the others: of a zone with the fewest
// of them, then the first by name.
func (v *voterPlan) choose(others []core.Voter) (core.Voter, bool) {
	best, bestZone := core.Voter{}, 0
	for i := range v.m.Nodes {
		n := &v.m.Nodes[i]
		if !v.takes(n.ID) || slices.ContainsFunc(others, func(w core.Voter) bool { return w.Node == n.ID }) {
			continue
		}
		inZone := 0
		for _, w := range others {
			if o := v.m.Node(w.Node); o != nil && o.Zone == n.Zone {
				inZone++
			}
		}
		if best.Node == "" || inZone < bestZone {
			best, bestZone = core.Voter{Node: n.ID, Key: v.candidates[n.ID]}, inZone
		}
	}
	return best, best.Node != ""
}
