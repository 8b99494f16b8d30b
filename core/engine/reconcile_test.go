package engine_test

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
	"github.com/shoalstore/shoal/core/slot"
	"github.com/shoalstore/shoal/placement"
)

// quick makes a cluster notice within half a second that a node is gone.
func quick(o *engine.Options) {
	o.Params = slot.Params{ReportEvery: 50 * time.Millisecond, Grant: 400 * time.Millisecond, LeaseUse: 350 * time.Millisecond}
}

// sharded creates a bucket whose objects have shards.
func sharded(t *testing.T, o core.Objects, scheme core.Scheme) core.Bucket {
	t.Helper()
	b, err := o.CreateBucket(t.Context(), core.BucketName{Provider: core.Shoal, Name: "sharded"}, &core.Policy{Scheme: scheme, Domain: core.DomainNode, Inline: 1, ETag: "fast"}, "")
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the bucket to be open", func() error {
		now, err := o.Bucket(t.Context(), b.Alias)
		if err == nil && now.State != core.BucketOK {
			err = errors.New("it is " + string(now.State))
		}
		return err
	})
	return b
}

func putBody(t *testing.T, o core.Objects, b core.Bucket, key string, size int) {
	t.Helper()
	body := bytes.Repeat([]byte("shard"), size/5+1)[:size]
	waitFor(t, "the write of "+key, func() error {
		_, err := o.Put(t.Context(), b, key, bytes.NewReader(body), core.PutOptions{Size: int64(size)})
		return err
	})
}

// totals adds up what nodes say of reconcile.
func totals(nodes []*engine.Node) (under, scans, moved int64) {
	for _, n := range nodes {
		s := n.Status()
		under, scans, moved = under+s.Under, scans+s.Scans, moved+s.Moved
	}
	return under, scans, moved
}

// TestReconcileWaitsQuietly: while objects wait for a node, their slots are not
// gone over again and again; what is written meanwhile is counted all the same.
func TestReconcileWaitsQuietly(t *testing.T) {
	const grace = 9 * time.Second
	tc := startClusterWith(t, 4, 1, func(o *engine.Options) { quick(o); o.Grace = grace })
	nodes, o := tc.nodes[:3], tc.nodes[0].Objects()
	b := sharded(t, o, core.ErasureCoded(2, 2))
	const objects = 30
	for i := range objects {
		putBody(t, o, b, fmt.Sprint("key", i), 1000)
	}
	lacking := func(want int64) func() error {
		return func() error {
			if under, _, _ := totals(nodes); under != want {
				return fmt.Errorf("%d objects lack shards, want %d", under, want)
			}
			return nil
		}
	}
	tc.net.cutOff(tc.nodes[3].ID())
	waitFor(t, "all objects to be counted", lacking(objects))
	down := nodes[0].Map().Node(tc.nodes[3].ID()).Since
	pass := func(d time.Duration) {
		waitFor(t, "time to pass", func() error {
			if left := d - time.Since(down); left > 0 {
				return fmt.Errorf("%v are left", left)
			}
			return nil
		})
	}
	pass(grace / 3) // until then slots change their owners
	_, before, _ := totals(nodes)
	pass(grace * 5 / 6)
	if _, now, _ := totals(nodes); now-before >= 16 {
		t.Errorf("16 slots were gone over %d times while they waited", now-before)
	}
	putBody(t, o, b, "late", 1000)
	waitFor(t, "the late object to be counted", lacking(objects+1))
	tc.net.mend(tc.nodes[3].ID())
	nodes = tc.nodes
	waitFor(t, "all objects to be whole", lacking(0))
}

// TestReconcileBandwidth rebuilds what a node had at a limited rate.
func TestReconcileBandwidth(t *testing.T) {
	const limit = 1 << 20
	tc := startClusterWith(t, 4, 1, func(o *engine.Options) {
		quick(o)
		o.Grace = 500 * time.Millisecond
		o.ReconcileBandwidth = limit
	})
	nodes, o := tc.nodes[:3], tc.nodes[0].Objects()
	b := sharded(t, o, core.Mirror(2))
	for i := range 24 {
		putBody(t, o, b, fmt.Sprint("key", i), 1<<20)
	}
	tc.net.cutOff(tc.nodes[3].ID())
	sole := func() (sum int64) { // objects that hang on one node
		for _, n := range nodes {
			for _, k := range n.Status().Sole {
				sum += k
			}
		}
		return sum
	}
	waitFor(t, "the loss to be counted", func() error {
		if under, _, _ := totals(nodes); under == 0 || sole() == 0 {
			return fmt.Errorf("%d objects lack shards, %d hang on one node", under, sole())
		}
		return nil
	})
	began := time.Now()
	waitFor(t, "all objects to be whole", func() error {
		if under, _, _ := totals(nodes); under > 0 {
			return fmt.Errorf("%d objects lack shards", under)
		}
		return nil
	})
	took := time.Since(began)
	if n := sole(); n != 0 {
		t.Errorf("%d objects are said to hang on one node", n)
	}
	_, _, moved := totals(nodes)
	// What is moved is read and written. Each node may begin with a burst.
	const burst = 256 << 10
	least := time.Duration(float64(2*moved-int64(len(nodes))*burst) / float64(len(nodes)*limit) * float64(time.Second))
	if moved == 0 || took < least {
		t.Errorf("%d bytes were rebuilt in %v, want %v at least", moved, took, least)
	}
}

// TestReconcilePartOfAnObject moves two shards of an object, of which one cannot be
// made at first: the object is not done with, and its slot not forgotten.
func TestReconcilePartOfAnObject(t *testing.T) {
	tc := startClusterWith(t, 6, 1, func(o *engine.Options) { o.Grace = time.Second })
	o := tc.nodes[0].Objects()
	b := sharded(t, o, core.ErasureCoded(2, 2))
	m := tc.nodes[0].Map()
	places := func(key string) map[core.NodeID]bool {
		nodes := map[core.NodeID]bool{}
		for _, d := range placement.New(m).Reassign(b.ID, key, b.Policy, make([]core.DiskID, 4), time.Now(), time.Second) {
			nodes[m.NodeOf(d)] = true
		}
		return nodes
	}
	key, nodes := "", map[core.NodeID]bool{}
	for i := 0; !nodes["n1"] || !nodes["n2"]; i++ {
		key = fmt.Sprint("key", i)
		nodes = places(key)
	}
	var to []core.NodeID // from n1 and n2
	for i := range m.Nodes {
		if id := m.Nodes[i].ID; !nodes[id] {
			to = append(to, id)
		}
	}
	putBody(t, o, b, key, 60000)
	var refused, lifted atomic.Int64
	tc.net.creating(func(_, node core.NodeID) error {
		if node != to[0] || lifted.Load() > 0 {
			return nil
		}
		refused.Add(1)
		return fmt.Errorf("node %s takes no shards: %w", node, core.ErrUnavailable)
	})
	tc.change(t, core.Change{Kind: core.ChangeNodeState, Node: "n1", State: string(core.NodeMaintenance)},
		core.Change{Kind: core.ChangeNodeState, Node: "n2", State: string(core.NodeMaintenance)})
	has := func(id core.NodeID) func() error {
		return func() error {
			st, err := tc.disks[id][0].Stats(t.Context())
			if err == nil && st.ShardBytes == 0 {
				err = fmt.Errorf("there is none, %d refused", refused.Load())
			}
			return err
		}
	}
	waitFor(t, "one shard of two to be left", func() error {
		var left int64
		for _, n := range tc.nodes {
			left += n.Status().Left
		}
		if left != 30000 || !tc.placed(tc.nodes[0].Map()) {
			return fmt.Errorf("%d bytes are left, %d shards were refused", left, refused.Load())
		}
		return has(to[1])()
	})
	lifted.Store(1)
	waitFor(t, "a shard on node "+string(to[0]), has(to[0]))
	tc.settle(t)
}

// TestReconcileLeavesOffWhereItLost: a node in the midst of a page of objects loses
// its slots. What it has not begun to move by then is the next owner's: both would
// go over the same objects in the same order and move each of them.
func TestReconcileLeavesOffWhereItLost(t *testing.T) {
	tc := startClusterWith(t, 5, 1, func(o *engine.Options) { o.Grace = time.Second })
	o := tc.nodes[0].Objects()
	b := sharded(t, o, core.Mirror(2))
	for i := range 150 {
		putBody(t, o, b, fmt.Sprint("key", i), 1000)
	}
	const loser = core.NodeID("n1")
	var begun atomic.Int64
	goOn := make(chan struct{})
	tc.net.creating(func(from, _ core.NodeID) error {
		if from == loser {
			<-goOn
			begun.Add(1)
		}
		return nil
	})
	tc.change(t, core.Change{Kind: core.ChangeNodeState, Node: loser, State: string(core.NodeMaintenance)})
	others := tc.nodes[1:]
	waitFor(t, "the others to have everything", func() error {
		m := others[0].Map()
		for s := range m.Slots {
			if m.OwnerNode(core.SlotID(s)) == loser {
				return fmt.Errorf("node %s still owns slot %d", loser, s)
			}
		}
		if !tc.placed(m) {
			return errors.New("slots are not where they should be")
		}
		for _, n := range others {
			if s := n.Status(); s.Pending || s.Reconciled != m.Epoch {
				return fmt.Errorf("node %s is not done", s.Node)
			}
		}
		return nil
	})
	if !tc.nodes[0].Status().Pending {
		t.Fatal("the node that lost its slots did not begin to move anything")
	}
	tc.net.creating(func(from, _ core.NodeID) error {
		if from == loser {
			begun.Add(1)
		}
		return nil
	})
	close(goOn)
	waitFor(t, "the loser to be done", func() error {
		if tc.nodes[0].Status().Pending {
			return errors.New("it is not")
		}
		return nil
	})
	const workers = 4
	if n := begun.Load(); n > 2*workers { // one that stalled was given up for the next
		t.Errorf("it went on to move %d objects that others have moved", n-workers)
	}
	tc.settle(t)
}
