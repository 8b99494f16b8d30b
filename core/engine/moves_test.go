package engine_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/disk"
	"github.com/shoalstore/shoal/core/engine"
)

// TestRebalanceMovesLittle changes the map in every way in which data has to
// move, on real disks, and holds what was moved against the least that had to be.
func TestRebalanceMovesLittle(t *testing.T) {
	tc := startClusterWith(t, 5, 2, func(o *engine.Options) { o.Grace = time.Second })
	o, dir := tc.nodes[0].Objects(), t.TempDir()
	b := sharded(t, o, core.ErasureCoded(2, 1))
	inline, err := o.CreateBucket(t.Context(), core.BucketName{Provider: core.Shoal, Name: "inline"}, &core.Policy{Scheme: core.Mirror(2), Domain: core.DomainNode, Inline: 128 << 10, ETag: "fast"}, "")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 120 {
		putBody(t, o, b, fmt.Sprint("key", i), 60000)
		putBody(t, o, inline, fmt.Sprint("key", i), 2000)
	}
	half, whole := 0.5, 1.0
	draining := func(state core.NodeState) core.Change {
		return core.Change{Kind: core.ChangeNodeState, Node: "n5", State: string(state)}
	}
	for _, c := range []struct {
		name string
		do   func(t *testing.T)
		// moves is what part of all bytes must move, about.
		moves float64
	}{
		{"half the weight of a node", func(t *testing.T) {
			tc.change(t, core.Change{Kind: core.ChangeWeight, Node: "n2", Weight: &half})
		}, 0.08},
		{"its weight restored", func(t *testing.T) {
			tc.change(t, core.Change{Kind: core.ChangeWeight, Node: "n2", Weight: &whole})
		}, 0.08},
		{"half the weight of a disk", func(t *testing.T) {
			tc.change(t, core.Change{Kind: core.ChangeWeight, Disk: 1, Weight: &half})
		}, 0.03},
		{"a node drained", func(t *testing.T) { tc.change(t, draining(core.NodeDraining)) }, 0.2},
		{"a node added", func(t *testing.T) { tc.change(t, draining(core.NodeActive)) }, 0.2},
		{"a disk added", func(t *testing.T) { tc.addDisk(t, dir, 3) }, 0.08},
		{"a node in maintenance", func(t *testing.T) { tc.change(t, draining(core.NodeMaintenance)) }, 0.2},
	} {
		t.Run(c.name, func(t *testing.T) {
			moved, least := tc.moved()
			before := tc.shardBytes(t)
			c.do(t)
			tc.settle(t)
			m, l := tc.moved()
			moved, least = m-moved, l-least
			var all int64
			for _, n := range tc.shardBytes(t) {
				all += n
			}
			if least == 0 || moved < least || float64(moved) > 1.05*float64(least) {
				t.Errorf("%d bytes were moved, %d at the least had to be", moved, least)
			}
			// Two counts that share nothing with the node's own: what disks hold
			// more than before, and what part of all that can be.
			var gained int64
			for d, n := range tc.shardBytes(t) {
				gained += max(n-before[d], 0)
			}
			if moved < gained*8/10 {
				t.Errorf("%d bytes are said to have moved, but disks gained %d", moved, gained)
			}
			if part := float64(moved) / float64(all); part < c.moves/4 || part > c.moves*4 {
				t.Errorf("%.3f of all bytes were moved, want about %.3f", part, c.moves)
			}
		})
	}
}

// TestRebalanceOfNothing: a change that moves nothing is through in seconds.
func TestRebalanceOfNothing(t *testing.T) {
	tc := startClusterWith(t, 3, 2, func(o *engine.Options) { o.Grace = time.Second })
	o := tc.nodes[0].Objects()
	b := sharded(t, o, core.Mirror(2))
	for i := range 200 {
		putBody(t, o, b, fmt.Sprint("key", i), 5000)
	}
	tc.settle(t)
	moved, least := tc.moved()
	began := time.Now()
	// All weights are relative: hashing wants the same as before.
	double := 2.0
	for _, n := range []core.NodeID{"n1", "n2", "n3"} {
		tc.change(t, core.Change{Kind: core.ChangeWeight, Node: n, Weight: &double})
	}
	tc.settle(t)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	// Of three changes of weight in a row some shards may go there and back.
	if m, l := tc.moved(); float64(m-moved) > 1.05*float64(l-least) {
		t.Errorf("%d bytes were moved, %d at the least had to be", m-moved, l-least)
	}
	tc.settle(t)
	moved, _ = tc.moved()
	began = time.Now()
	tc.change(t, core.Change{Kind: core.ChangeWeight, Node: "n1", Weight: &double}) // as it is
	tc.settle(t)
	if m, _ := tc.moved(); m != moved || time.Since(began) > 5*time.Second {
		t.Errorf("%d bytes were moved within %v, want none, soon", m-moved, time.Since(began))
	}
}

// change makes changes of the map, in one.
func (tc *testCluster) change(t *testing.T, c ...core.Change) {
	t.Helper()
	errs, err := tc.nodes[0].Change(t.Context(), c...)
	if err = errors.Join(append(errs, err)...); err != nil {
		t.Fatal(err)
	}
}

// addDisk adds a blank disk to a node.
func (tc *testCluster) addDisk(t *testing.T, dir string, node int) {
	t.Helper()
	n := tc.nodes[node]
	o := disk.Options{Dir: dir, Clock: clock{time.Now()}, Cluster: "test", Node: n.ID(), Reserve: -1}
	ident, err := disk.Format(t.Context(), disk.FormatOptions{Options: o})
	if err != nil {
		t.Fatal(err)
	}
	d, err := disk.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	tc.late = append(tc.late, d)
	tc.disks[n.ID()] = append(tc.disks[n.ID()], d)
	n.AddDisk(engine.LocalDisk{UUID: ident.UUID, Name: "late", Weight: 1, Disk: d})
	waitFor(t, "the disk to be in the map", func() error {
		for _, k := range n.Map().Disks {
			if k.UUID == ident.UUID {
				return nil
			}
		}
		return errors.New("it is not")
	})
}

// moved adds up what the nodes have moved, and the least that it took.
func (tc *testCluster) moved() (moved, least int64) {
	for _, n := range tc.nodes {
		s := n.Status()
		moved, least = moved+s.Moved, least+s.Least
	}
	return moved, least
}

// shardBytes is what each disk holds of shards, once surplus ones are gone.
func (tc *testCluster) shardBytes(t *testing.T) map[*disk.Disk]int64 {
	out := map[*disk.Disk]int64{}
	for _, disks := range tc.disks {
		for _, d := range disks {
			st, err := d.Stats(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			out[d] = st.ShardBytes
		}
	}
	return out
}

// settle waits until nothing is left to be moved.
func (tc *testCluster) settle(t *testing.T) {
	t.Helper()
	waitFor(t, "the cluster to be settled", func() error {
		m := tc.nodes[0].Map()
		for i, row := range m.Slots {
			if len(row.Joining) > 0 || len(row.Insync) != m.Replicas {
				return fmt.Errorf("slot %d has %d members and %d joiners", i, len(row.Insync), len(row.Joining))
			}
		}
		if !tc.placed(m) {
			return errors.New("slots are not where they should be")
		}
		for _, n := range tc.nodes {
			if s := n.Status(); s.Pending || s.Left != 0 || s.Under != 0 || s.Slots > 0 && s.Reconciled != m.Epoch {
				return fmt.Errorf("node %s has %d bytes to move, %d objects that lack shards, has seen map %d of %d", s.Node, s.Left, s.Under, s.Reconciled, m.Epoch)
			}
		}
		return nil
	})
}

// TestUnderReplicatedInRecords: objects whose data is in their records lack
// redundancy while slots lack members, and the way back is seen.
func TestUnderReplicatedInRecords(t *testing.T) {
	tc := startClusterWith(t, 4, 1, func(o *engine.Options) { quick(o); o.Grace = time.Second })
	nodes, o := tc.nodes[:3], tc.nodes[0].Objects()
	b, err := o.CreateBucket(t.Context(), core.BucketName{Provider: core.Shoal, Name: "inline"}, &core.Policy{Scheme: core.Mirror(2), Domain: core.DomainNode, Inline: 128 << 10, ETag: "fast"}, "")
	if err != nil {
		t.Fatal(err)
	}
	const objects, size = 60, 2000
	for i := range objects {
		putBody(t, o, b, fmt.Sprint("key", i), size)
	}
	// Slots that are counted once only would not know of these objects.
	half := 0.5
	tc.change(t, core.Change{Kind: core.ChangeWeight, Node: "n1", Weight: &half})
	tc.settle(t)
	tc.net.cutOff(tc.nodes[3].ID())
	waitFor(t, "the loss to be counted", func() error {
		var bytes int64
		for _, n := range nodes {
			bytes += n.Status().UnderBytes
		}
		under, _, _ := totals(nodes)
		if under == 0 || under > objects || bytes != under*size {
			return fmt.Errorf("%d objects with %d bytes lack redundancy", under, bytes)
		}
		return nil
	})
	waitFor(t, "redundancy to return", func() error {
		under, _, _ := totals(nodes)
		rate := 0.0
		for _, n := range nodes {
			rate += n.Status().HealRate
		}
		if under != 0 || rate == 0 {
			return fmt.Errorf("%d objects lack redundancy, %f are mended in a second", under, rate)
		}
		return nil
	})
}

// TestRebalanceYields drains a node while clients read, and holds every map to the part
// of the rows that may change then.
func TestRebalanceYields(t *testing.T) {
	tc := startClusterOf(t, 4, 1, hooks{slots: 256, node: func(o *engine.Options) { o.Grace = time.Second }})
	o := tc.nodes[0].Objects()
	b := sharded(t, o, core.Mirror(2))
	for i := range 64 {
		putBody(t, o, b, fmt.Sprint("key", i), 1000)
	}
	tc.settle(t)
	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	defer readers.Wait()
	defer cancel()
	readers.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			if _, err := o.Head(ctx, b, fmt.Sprint("key", i%64), core.GetOptions{}); err != nil && ctx.Err() == nil {
				t.Errorf("reading while a node is drained: %v", err)
				return
			}
		}
	})
	before, changed := tc.nodes[0].Maps()
	tc.change(t, core.Change{Kind: core.ChangeNodeState, Node: "n4", State: string(core.NodeDraining)})
	most, steps := 0, 0
	for !tc.placed(before) || steps == 0 {
		select {
		case <-changed:
		case <-time.After(60 * time.Second):
			t.Fatal("nothing moves any more")
		}
		var m *core.Map
		m, changed = tc.nodes[0].Maps()
		joining, owners := 0, 0
		for i := range m.Slots {
			if len(m.Slots[i].Joining) > 0 {
				joining++
			}
			if before.Epoch+1 == m.Epoch && m.OwnerNode(core.SlotID(i)) != before.OwnerNode(core.SlotID(i)) {
				owners++
			}
		}
		if joining > engine.GentleMoves || owners > engine.GentleOwners {
			t.Errorf("map %d: %d rows are joining and %d change their owner, want at most %d and %d", m.Epoch, joining, owners, engine.GentleMoves, engine.GentleOwners)
		}
		if joining > 0 {
			steps++
		}
		most, before = max(most, joining), m
	}
	if most < engine.GentleMoves/2 || steps < 4 {
		t.Errorf("at the most %d rows were joining, in %d steps: the test shows nothing", most, steps)
	}
}
