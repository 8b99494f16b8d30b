package placement

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

// keys are the candidates of a map: all nodes but some, under their own keys.
func keys(m *core.Map, but ...core.NodeID) map[core.NodeID]string {
	out := map[core.NodeID]string{}
	for i := range m.Nodes {
		id := m.Nodes[i].ID
		if slices.Contains(but, id) {
			continue
		}
		out[id] = "key-of-" + string(id)
		for _, v := range m.Voters {
			if v.Node == id {
				out[id] = v.Key
			}
		}
	}
	return out
}

func voterNames(c *core.Change) string {
	if c == nil {
		return "none"
	}
	var out []core.NodeID
	for _, v := range c.Voters {
		out = append(out, v.Node)
	}
	return fmt.Sprint(out)
}

func TestPlanVoters(t *testing.T) {
	state := func(n core.NodeID, s core.NodeState) core.Change {
		return core.Change{Kind: core.ChangeNodeState, Node: n, State: string(s)}
	}
	down := func(n core.NodeID) core.Change { return core.Change{Kind: core.ChangeFail, Node: n} }
	for _, c := range []struct {
		name          string
		nodes, voters int
		zones         int
		changes       []core.Change
		silent        []core.NodeID
		after         time.Duration
		want          string
	}{
		{"one node", 1, 1, 0, nil, nil, 0, "none"},
		{"two nodes", 2, 1, 0, nil, nil, 0, "none"},
		{"three nodes grow", 3, 1, 0, nil, nil, 0, "[n1 n2 n3]"},
		{"three of four by zones", 6, 1, 3, nil, nil, 0, "[n1 n2 n3]"},
		{"distinct zones first", 6, 1, 2, nil, nil, 0, "[n1 n2 n3]"},
		{"five nodes grow in two steps", 5, 1, 0, nil, nil, 0, "[n1 n2 n3]"},
		{"then to five", 5, 3, 0, nil, nil, 0, "[n1 n2 n3 n4 n5]"},
		{"five are enough", 9, 5, 0, nil, nil, 0, "none"},
		{"too few candidates", 3, 1, 0, nil, []core.NodeID{"n2"}, 0, "none"},
		{"down, within the grace", 6, 5, 0, []core.Change{down("n2")}, []core.NodeID{"n2"}, 50 * time.Second, "none"},
		{"down, after the grace", 6, 5, 0, []core.Change{down("n2")}, []core.NodeID{"n2"}, 61 * time.Second, "[n1 n6 n3 n4 n5]"},
		{"two down: one at a time", 7, 5, 0, []core.Change{down("n2"), down("n4")}, []core.NodeID{"n2", "n4"}, 61 * time.Second, "[n1 n6 n3 n4 n5]"},
		{"down, nobody to replace it", 5, 5, 0, []core.Change{down("n2")}, []core.NodeID{"n2"}, time.Hour, "none"},
		{"silent, but not yet down", 6, 5, 0, nil, []core.NodeID{"n2"}, time.Hour, "none"},
		{"draining voter", 4, 3, 0, []core.Change{state("n1", core.NodeDraining)}, nil, 0, "[n4 n2 n3]"},
		{"decommissioned, and gone", 6, 5, 0, []core.Change{state("n5", core.NodeDecommissioned)}, []core.NodeID{"n5"}, 0, "[n1 n2 n3 n4 n6]"},
		{"the one that is gone before the one that leaves", 7, 5, 0, []core.Change{state("n1", core.NodeDraining), state("n3", core.NodeDecommissioned)}, []core.NodeID{"n3"}, 0, "[n1 n2 n6 n4 n5]"},
		{"voter in maintenance stays", 6, 5, 0, []core.Change{state("n2", core.NodeMaintenance)}, nil, time.Hour, "none"},
		{"a node in maintenance is not chosen", 4, 3, 0, []core.Change{state("n4", core.NodeMaintenance), state("n1", core.NodeDraining)}, nil, 0, "none"},
		{"cluster becomes too small", 5, 5, 0, []core.Change{state("n2", core.NodeDraining)}, nil, 0, "[n1 n3 n4]"},
		{"back to one", 3, 3, 0, []core.Change{state("n3", core.NodeDecommissioned)}, []core.NodeID{"n3"}, 0, "[n1]"},
		{"zone of the lost voter is preferred", 6, 3, 3, []core.Change{down("n2")}, []core.NodeID{"n2"}, time.Hour, "[n1 n5 n3]"},
	} {
		m := initial(t, spec{nodes: c.nodes, voters: c.voters, zones: c.zones, disks: 1, slots: 4})
		if len(c.changes) > 0 {
			m = apply(t, m, t0, c.changes...)
		}
		got := PlanVoters(m, keys(m, c.silent...), t0.Add(c.after), time.Minute)
		if voterNames(got) != c.want {
			t.Errorf("%s: got %s, want %s", c.name, voterNames(got), c.want)
			continue
		}
		if got != nil {
			apply(t, m, t0, *got)
		}
	}
}

// A voter that lost its state votes again once a map names its new key.
func TestPlanVotersRenamesKeys(t *testing.T) {
	m := initial(t, spec{nodes: 3, voters: 3, disks: 1, slots: 4})
	k := keys(m)
	k["n2"], k["n3"] = "fresh2", "fresh3"
	c := PlanVoters(m, k, t0, time.Minute)
	if c == nil || !slices.Equal(c.Voters, []core.Voter{m.Voters[0], {Node: "n2", Key: "fresh2"}, m.Voters[2]}) {
		t.Fatalf("got %+v, want n2 under its new key and nothing else", c)
	}
	m = apply(t, m, t0, *c)
	c = PlanVoters(m, k, t0, time.Minute)
	if c == nil || c.Voters[2].Key != "fresh3" {
		t.Fatalf("then %+v, want n3 under its new key", c)
	}
	m = apply(t, m, t0, *c)
	if c := PlanVoters(m, k, t0, time.Minute); c != nil {
		t.Fatalf("then %+v, want nothing", c)
	}
}

// Whatever happens, the number is odd, no change brings in more than two or
// replaces more than one, and the voters come to rest.
func TestPlanVotersConverges(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 5))
		m := initial(t, spec{nodes: 1 + r.IntN(9), zones: r.IntN(4), disks: 1, slots: 1})
		now := t0
		dead := []core.NodeID{}
		for range 12 {
			now = now.Add(time.Duration(r.IntN(100)) * time.Second)
			n := m.Nodes[r.IntN(len(m.Nodes))].ID
			switch r.IntN(4) {
			case 0:
				dead = append(dead, n)
				m = apply(t, m, now, core.Change{Kind: core.ChangeFail, Node: n})
			case 1:
				dead = slices.DeleteFunc(dead, func(d core.NodeID) bool { return d == n })
				m = apply(t, m, now, core.Change{Kind: core.ChangeBoot, Node: n, Boot: m.Node(n).Boot + 1})
			case 2:
				s := []core.NodeState{core.NodeActive, core.NodeMaintenance, core.NodeDraining}[r.IntN(3)]
				if !slices.Contains(dead, n) {
					m = apply(t, m, now, core.Change{Kind: core.ChangeNodeState, Node: n, State: string(s)})
				}
			}
			for step := 0; ; step++ {
				c := PlanVoters(m, keys(m, dead...), now, time.Minute)
				if c == nil {
					break
				}
				if step > 10 {
					t.Fatalf("seed %d: no end: %v -> %v", seed, m.Voters, c.Voters)
				}
				kept := 0
				for _, v := range c.Voters {
					if slices.Contains(m.Voters, v) {
						kept++
					}
				}
				grown := len(c.Voters) - len(m.Voters)
				if len(c.Voters)%2 == 0 || grown == 0 && kept != len(m.Voters)-1 || grown > 0 && (kept != len(m.Voters) || grown != 2) || grown < 0 && kept != len(c.Voters) {
					t.Fatalf("seed %d: %v -> %v", seed, m.Voters, c.Voters)
				}
				m = apply(t, m, now, *c)
			}
		}
	}
}
