package nodeserver

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
	"github.com/shoalstore/shoal/placement"
)

// healthySituation is a cluster of five nodes with two disks each and two
// buckets, all of which answer.
func healthySituation(t *testing.T) situation {
	t.Helper()
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	var nodes []core.Node
	var disks []core.Disk
	var voters []core.Voter
	s := situation{statuses: map[core.NodeID]engine.Status{}, now: now, grace: time.Minute}
	for i := range 5 {
		id := core.NodeID(fmt.Sprint("n", i+1))
		nodes = append(nodes, core.Node{ID: id, Peer: string(id), Client: string(id), State: core.NodeActive, Boot: 1})
		for j := range 2 {
			disks = append(disks, core.Disk{UUID: fmt.Sprint(id, j), Node: id, Name: fmt.Sprint("d", j+1), Weight: 1})
		}
		voters = append(voters, core.Voter{Node: id, Key: string(id)})
		s.statuses[id] = engine.Status{Node: id, Lease: true}
	}
	m, err := placement.Initial("test", 64, 3, nodes, disks, voters, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []struct {
		name   string
		scheme core.Scheme
	}{{"ec", core.ErasureCoded(3, 1)}, {"mirror", core.Mirror(3)}} {
		m.Buckets = append(m.Buckets, core.Bucket{
			ID: core.BucketID(len(m.Buckets) + 1), Name: core.BucketName{Provider: core.Shoal, Name: b.name}, State: core.BucketOK,
			Policy: core.Policy{Scheme: b.scheme, Domain: core.DomainNode},
		})
	}
	if err := m.Seal(); err != nil {
		t.Fatal(err)
	}
	s.m = m
	return s
}

// apply makes changes of the map.
func (s *situation) apply(t *testing.T, changes ...core.Change) {
	t.Helper()
	next, errs := placement.Apply(s.m, s.now, changes)
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	s.m = next
}

func (s *situation) silence(nodes ...core.NodeID) {
	for _, n := range nodes {
		delete(s.statuses, n)
	}
}

// TestProblems: what is amiss is said so that somebody can act on it.
func TestProblems(t *testing.T) {
	fail := func(n core.NodeID) core.Change { return core.Change{Kind: core.ChangeFail, Node: n} }
	for _, c := range []struct {
		name string
		do   func(*situation)
		// want and not are parts of the text.
		want, not []string
	}{
		{"all is well", func(*situation) {}, nil, []string{"a"}},
		{
			"no majority of voters", func(s *situation) { s.silence("n2", "n3", "n5") },
			[]string{"no majority of voters: n2, n3, n5 of 5 do not answer", "until 1 of them is back", "shoal recover", "node n2 does not answer"},
			nil,
		},
		{"voters of whom one may go", func(s *situation) { s.silence("n2", "n3") }, []string{"wait for a new owner"}, []string{"majority"}},
		{
			"a node without a lease", func(s *situation) { s.statuses["n4"] = engine.Status{Node: "n4"} },
			[]string{"node n4 holds no lease and answers 503"},
			[]string{"majority of voters: "},
		},
		{
			"a node is down", func(s *situation) { s.silence("n1"); s.apply(t, fail("n1")); s.now = s.now.Add(18 * time.Second) },
			[]string{"node n1 is down since ", "in 42s its data is built again elsewhere"},
			[]string{"cannot be written", "no owner"},
		},
		{
			"a node is down for long", func(s *situation) { s.silence("n1"); s.apply(t, fail("n1")); s.now = s.now.Add(time.Hour) },
			[]string{"start it, or `shoal cluster decommission n1`"},
			[]string{"in 0s"},
		},
		{
			"too few nodes for a scheme", func(s *situation) { s.silence("n1", "n2"); s.apply(t, fail("n1"), fail("n2")) },
			[]string{"ec-3+1 cannot be written (shoal://ec): 3 of its 4 shards have a place on the 3 nodes that take data, 4 are needed", "until 1 more node is up or added"},
			[]string{"mirror-3 cannot be written (shoal://mirror): "},
		},
		{"too few nodes for any", func(s *situation) {
			s.silence("n1", "n2", "n3", "n4")
			s.apply(t, fail("n1"), fail("n2"), fail("n3"), fail("n4"))
		}, []string{
			"mirror-3 cannot be written (shoal://mirror): 1 of its 3 shards", "until 3 more nodes are up or added", "64 slots (shoal://mirror): fewer than 2 nodes have their records",
			"slots have no owner that could serve", "n1/d1 down", "requests for their keys get 503",
		}, nil},
		{
			"a failed disk", func(s *situation) {
				s.apply(t, core.Change{Kind: core.ChangeFail, Disk: 3, Reason: "input/output error"})
			},
			[]string{"disk n2/d1 is failed: input/output error", "slots have fewer than 3 copies of their records"},
			nil,
		},
		{"a node in maintenance", func(s *situation) {
			s.apply(t, core.Change{Kind: core.ChangeNodeState, Node: "n3", State: string(core.NodeMaintenance)})
		}, []string{"node n3 is in maintenance; `shoal cluster maintenance stop n3` ends that"}, []string{"cannot be written"}},
		{"a drain", func(s *situation) {
			s.apply(t, core.Change{Kind: core.ChangeNodeState, Node: "n3", State: string(core.NodeDraining)})
		}, []string{"node n3 is draining: ", " slots still name it"}, nil},
		{"objects that cannot be read", func(s *situation) {
			s.silence("n5")
			s.apply(t, fail("n5"))
			s.statuses["n1"] = engine.Status{Lease: true, Under: 7, Unavailable: 5, Away: map[core.DiskID]int64{9: 5, 10: 1}}
		}, []string{"5 objects cannot be read: they wait for n5/d1 down, n5/d2 down", "7 objects lack redundancy"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := healthySituation(t)
			c.do(&s)
			text := strings.Join(problems(s), "\n")
			for _, w := range c.want {
				if !strings.Contains(text, w) {
					t.Errorf("%q is not said in:\n%s", w, text)
				}
			}
			for _, n := range c.not {
				if strings.Contains(text, n) {
					t.Errorf("%q is said in:\n%s", n, text)
				}
			}
		})
	}
}
