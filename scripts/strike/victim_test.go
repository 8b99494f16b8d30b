package main

import (
	"fmt"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// TestPartOf: each of the parts has its turn as often as the others.
func TestPartOf(t *testing.T) {
	for _, remote := range []bool{false, true} {
		o := &options{part: eachPart}
		if remote {
			o.from = "s3://src"
		}
		seen := map[part]int{}
		kinds := len(partsOf(remote)) + 1
		for n := range 4 * kinds {
			seen[o.partOf(n+1)]++
		}
		if len(seen) != kinds || seen[anyNode] != 4 || seen[planner] != 4 || (seen[lister] == 4) != remote {
			t.Errorf("remote %v: got %v, want %d kinds 4 times", remote, seen, kinds)
		}
	}
	if got := (&options{part: leader}).partOf(3); got != leader {
		t.Errorf("got %s, want leader", got)
	}
}

// TestStruckBooks counts what was chosen apart from what the node was.
func TestStruckBooks(t *testing.T) {
	now := partsNow{leader: {"n2"}, planner: {"n1"}, lister: {"n1", "n2"}}
	var r result
	r.struck(victim{node: "n2", chosen: leader, parts: now.of("n2")})
	r.struck(victim{node: "n1", chosen: anyNode, parts: now.of("n1")})
	r.struck(victim{node: "n3", chosen: anyNode, parts: now.of("n3")})
	if got, want := fmt.Sprint(r.Strikes), "map[leader:{1 1} lister:{0 2} planner:{0 1} random:{2 0}]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestLeaderOf(t *testing.T) {
	nodes := []api.Node{{ID: "n1", Bus: "127.0.0.1:1"}, {ID: "n2", Bus: "127.0.0.1:2"}, {ID: "n3"}}
	for told, want := range map[string]core.NodeID{"n1": "n1", "nats://127.0.0.1:2": "n2", "": "", "n4": ""} {
		if got := leaderOf(api.Cluster{NATSLeader: told, Nodes: nodes}); got != want {
			t.Errorf("%q: got %q, want %q", told, got, want)
		}
	}
}

// TestVictim asks a cluster who does what.
func TestVictim(t *testing.T) {
	h := fake(t)
	j, err := h.api.StartJob(t.Context(), api.JobSpec{Kind: "rebalance"})
	if err != nil {
		t.Fatal(err)
	}
	now, err := h.parts(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	if len(now[leader]) != 1 || len(now[lister]) != 0 {
		t.Errorf("got %v, want a leader and no lister", now)
	}
}
