package engine_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
)

// fillRemote makes some objects present, whole or in part.
func fillRemote(t *testing.T, tc *testCluster, f *fakeRemote, b core.Bucket, count int) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for i := range count {
		key, data := fmt.Sprint("key", i), remoteBytes(uint64(i), 5*fakeBlock)
		all[key] = data
		f.set(key, data)
		if i%2 == 0 {
			mustGet(t, tc.nodes[0], b, key, data)
			awaitPresent(t, tc.nodes[0], b, key, int64(len(data)))
			continue
		}
		if _, _, err := get(t, tc.nodes[0], b, key, core.GetOptions{Range: &core.ByteRange{Start: 2*fakeBlock + 1, End: 4*fakeBlock - 1}}); err != nil {
			t.Fatal(err)
		}
		awaitPresent(t, tc.nodes[0], b, key, 2*fakeBlock)
	}
	f.reset()
	return all
}

// readPresent reads what fillRemote made present: nobody is asked for it.
func readPresent(t *testing.T, n *engine.Node, f *fakeRemote, b core.Bucket, all map[string][]byte) {
	t.Helper()
	for key, data := range all {
		var o core.GetOptions
		want := data
		if (key[len(key)-1]-'0')%2 == 1 {
			o.Range = &core.ByteRange{Start: 2 * fakeBlock, End: 4*fakeBlock - 1}
			want = data[2*fakeBlock : 4*fakeBlock]
		}
		waitFor(t, "a read of "+key, func() error {
			got, _, err := get(t, n, b, key, o)
			if err == nil && string(got) != string(want) {
				t.Fatalf("%s: %d other bytes", key, len(got))
			}
			return err
		})
	}
	if n := f.count(); n > 0 {
		t.Errorf("%d requests for what is present: %v", n, f.counts)
	}
}

// TestRemoteNodeLoss: a node is lost, what is present is read and made whole
// without asking the remote.
func TestRemoteNodeLoss(t *testing.T) {
	tc, f, b := startRemote(t, 4, 1, func(o *engine.Options) { quick(o); o.Grace = time.Second })
	all := fillRemote(t, tc, f, b, 10)
	lost := tc.nodes[3]
	tc.net.cutOff(lost.ID())
	readPresent(t, tc.nodes[0], f, b, all)
	waitFor(t, "the loss to be repaired", func() error {
		m := tc.nodes[0].Map()
		if m.Node(lost.ID()).State != core.NodeDown {
			return errors.New("the node is not down")
		}
		for _, n := range tc.nodes[:3] {
			if s := n.Status(); s.Pending || s.Under > 0 || s.Reconciled != m.Epoch {
				return fmt.Errorf("node %s lacks %d objects", n.ID(), s.Under)
			}
		}
		return nil
	})
	readPresent(t, tc.nodes[1], f, b, all)
	tc.net.mend(lost.ID())
	waitFor(t, "the node to be back", func() error {
		m := tc.nodes[0].Map()
		for _, n := range tc.nodes {
			if s := n.Status(); s.Pending || s.Under > 0 || s.Reconciled != m.Epoch || m.Node(n.ID()).State != core.NodeActive {
				return fmt.Errorf("node %s lacks %d objects", n.ID(), s.Under)
			}
		}
		return nil
	})
	readPresent(t, tc.nodes[3], f, b, all)
}

// TestRemoteLost: where too few shards are left, readers get the remote's bytes at
// once, and the record goes.
func TestRemoteLost(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	all := fillRemote(t, tc, f, b, 4)
	for _, dir := range tc.dirs {
		names, err := filepath.Glob(filepath.Join(dir, "data", "[0-9a-f][0-9a-f]", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if err := os.Truncate(name, 10); err != nil {
				t.Fatal(err)
			}
		}
	}
	for key, data := range all {
		mustGet(t, tc.nodes[1], b, key, data)
	}
	if f.count("get") == 0 {
		t.Fatal("the shards are still there")
	}
	waitFor(t, "all to be fetched again", func() error {
		for key, data := range all {
			mustGet(t, tc.nodes[1], b, key, data)
		}
		for key, data := range all {
			rec := present(t, tc.nodes[0], b, key)
			if rec == nil || rec.StoredBytes() != int64(len(data)) {
				return fmt.Errorf("%s is not present", key)
			}
		}
		f.reset()
		for key, data := range all {
			mustGet(t, tc.nodes[1], b, key, data)
		}
		if n := f.count(); n > 0 {
			return fmt.Errorf("%d requests", n)
		}
		return nil
	})
}
