package nodeserver

import (
	"errors"
	"strings"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
	"github.com/shoalstore/shoal/plugins/api"
)

// TestSpare: a node that the cluster cannot do without is not taken away, and the
// refusal has the figures and says what to do.
func TestSpare(t *testing.T) {
	const gib = 1 << 30
	fail := func(n core.NodeID) core.Change { return core.Change{Kind: core.ChangeFail, Node: n} }
	for _, c := range []struct {
		name  string
		state core.NodeState
		do    func(*situation, map[core.NodeID]local)
		want  string // part of message and hint; "" is allowed
	}{
		{"all is well", core.NodeMaintenance, func(*situation, map[core.NodeID]local) {}, ""},
		{"all is well", core.NodeDraining, func(*situation, map[core.NodeID]local) {}, ""},
		{"it is rebalanced, and nothing is lost", core.NodeMaintenance, func(s *situation, _ map[core.NodeID]local) {
			s.statuses["n2"] = engine.Status{Lease: true, Pending: true}
		}, ""},
		{"objects hang on it", core.NodeMaintenance, func(s *situation, _ map[core.NodeID]local) {
			s.statuses["n2"] = engine.Status{Lease: true, Under: 9, Sole: map[core.NodeID]int64{"n1": 4}}
			s.statuses["n3"] = engine.Status{Lease: true, Under: 9, Sole: map[core.NodeID]int64{"n1": 3, "n4": 1}}
		}, "7 objects lack shards and could not be read without n1"},
		{"objects hang on another", core.NodeMaintenance, func(s *situation, _ map[core.NodeID]local) {
			s.statuses["n2"] = engine.Status{Lease: true, Under: 9, Sole: map[core.NodeID]int64{"n4": 4}}
		}, ""},
		{"it is not known yet what hangs on it", core.NodeDraining, func(s *situation, _ map[core.NodeID]local) {
			s.apply(t, core.Change{Kind: core.ChangeFail, Disk: 3})
			s.statuses["n2"] = engine.Status{Lease: true, Pending: true}
		}, "what was on n2/d1 is still being counted or built again, and n1 may have the last of it; bring back n2/d1, or wait"},
		{"the records hang on it", core.NodeDraining, func(s *situation, _ map[core.NodeID]local) {
			s.m = s.m.Clone()
			for i := range s.m.Slots {
				s.m.Slots[i].Insync = s.m.Slots[i].Insync[:1]
			}
		}, " of 64 slots only n1 has the records"},
		{"too few nodes", core.NodeMaintenance, func(s *situation, _ map[core.NodeID]local) {
			s.apply(t, fail("n4"), fail("n5"))
			s.silence("n4", "n5")
		}, "bucket shoal://ec (ec-3+1) needs 4 nodes; without n1 there are 2"},
		{"too few disks", core.NodeMaintenance, func(s *situation, _ map[core.NodeID]local) {
			s.m = s.m.Clone()
			s.m.Buckets[0].Policy = core.Policy{Scheme: core.ErasureCoded(6, 3), Domain: core.DomainDisk}
		}, "bucket shoal://ec (ec-6+3) needs 9 disks; without n1 there are 8"},
		{"no room at all", core.NodeDraining, func(_ *situation, l map[core.NodeID]local) {
			for id := range l {
				l[id].Disks[0].Room, l[id].Disks[1].Room = gib/4, gib/4
			}
		}, "n1 holds 3.00 GiB, and there are 2.00 GiB free on the other nodes; add a node or disks"},
		{
			"no room on a disk", core.NodeDraining, func(_ *situation, l map[core.NodeID]local) { l["n3"].Disks[1].Room = gib / 8 },
			"n3/d2 would have to take about 384.00 MiB of that and has 128.00 MiB free",
		},
		{"it is down", core.NodeMaintenance, func(s *situation, _ map[core.NodeID]local) {
			s.apply(t, fail("n1"))
			s.silence("n1")
		}, "node n1 is down and has nothing to hand over; start it first"},
		{"it is down for good, and all it had is elsewhere", core.NodeDraining, func(s *situation, l map[core.NodeID]local) {
			s.apply(t, fail("n1"))
			s.silence("n1")
			delete(l, "n1")
		}, ""},
		{"it is down for good, and had the last of something", core.NodeDraining, func(s *situation, l map[core.NodeID]local) {
			s.apply(t, fail("n1"))
			s.silence("n1")
			delete(l, "n1")
			s.statuses["n2"] = engine.Status{Lease: true, Unavailable: 15, Away: map[core.DiskID]int64{1: 10, 2: 5}}
		}, "15 objects are on n1 only, which is down; they would be lost; start the node"},
	} {
		t.Run(c.name+", "+string(c.state), func(t *testing.T) {
			s := healthySituation(t)
			locals := map[core.NodeID]local{}
			for i := range s.m.Nodes {
				id := s.m.Nodes[i].ID
				var l local
				for _, d := range s.m.Disks {
					if d.Node == id {
						l.Disks = append(l.Disks, localDisk{UUID: d.UUID, Used: 3 * gib / 2, Room: 10 * gib})
					}
				}
				locals[id] = l
			}
			c.do(&s, locals)
			err := spare{m: s.m, statuses: s.statuses, locals: locals, node: "n1"}.check(c.state)
			if c.want == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			var refused *api.Error
			if !errors.As(err, &refused) || refused.Code != api.CodeRefused {
				t.Fatalf("got %v, want a refusal", err)
			}
			if text := refused.Message + "; " + refused.Hint; !strings.Contains(text, c.want) {
				t.Errorf("got %q, want it to say %q", text, c.want)
			}
		})
	}
}
