package engine_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
)

// TestReclaim moves everything off a node, which then forgets the records, and
// back again.
func TestReclaim(t *testing.T) {
	const grace = 400 * time.Millisecond
	tc := startClusterWith(t, 4, 1, func(o *engine.Options) { o.Grace = grace })
	n, last := tc.nodes[0], tc.nodes[3]
	local := tc.disks[last.ID()][0]
	o := n.Objects()
	b, err := o.CreateBucket(t.Context(), core.BucketName{Provider: core.Shoal, Name: "reclaim"}, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	const objects = 200
	for i := range objects {
		key := fmt.Sprint("key", i)
		if _, err := o.Put(t.Context(), b, key, strings.NewReader("body of "+key), core.PutOptions{Size: int64(len("body of " + key))}); err != nil {
			t.Fatal(err)
		}
	}
	id := n.Map().Disks[3].ID
	held := func() (members, histories int) {
		states, err := local.Slots(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for s := range n.Map().Slots {
			if n.Map().Slots[s].Has(id) {
				members++
			}
			if states[core.SlotID(s)].Last.Seq > 0 {
				histories++
			}
		}
		return members, histories
	}
	if members, histories := held(); members == 0 || histories == 0 {
		t.Fatalf("the node has %d slots and the histories of %d before it lost any", members, histories)
	}
	weigh := func(w float64) {
		t.Helper()
		if errs, err := n.Change(t.Context(), core.Change{Kind: core.ChangeWeight, Node: last.ID(), Weight: &w}); err != nil || errors.Join(errs...) != nil {
			t.Fatal(err, errs)
		}
	}
	weigh(0.000001)
	waitFor(t, "the slots to move away and their records to go", func() error {
		if members, histories := held(); members > 0 || histories > 0 {
			return fmt.Errorf("it is in %d slots and has the histories of %d", members, histories)
		}
		more, err := local.Reclaim(t.Context(), 0)
		if more {
			err = errors.New("there is more to reclaim")
		}
		return err
	})
	weigh(1)
	waitFor(t, "slots to come back", func() error {
		if members, histories := held(); members == 0 || histories < members {
			return fmt.Errorf("it is in %d slots and has the histories of %d", members, histories)
		}
		for s := range n.Map().Slots {
			if len(n.Map().Slots[s].Joining) > 0 || len(n.Map().Slots[s].Insync) != 3 {
				return fmt.Errorf("slot %d is %+v", s, n.Map().Slots[s])
			}
		}
		return nil
	})
	// What came back is what there was: the node can stand in for another one.
	tc.net.cutOff(tc.nodes[1].ID())
	for i := range objects {
		key := fmt.Sprint("key", i)
		waitFor(t, key, func() error {
			r, err := o.Get(t.Context(), b, key, core.GetOptions{})
			if err != nil {
				return err
			}
			defer func() { _ = r.Body.Close() }()
			body, err := io.ReadAll(r.Body)
			if err == nil && string(body) != "body of "+key {
				err = fmt.Errorf("body: got %q", body)
			}
			return err
		})
	}
}
