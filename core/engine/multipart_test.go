package engine_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/shoalstore/shoal/core"
)

// TestCompleteDuringMaintenance completes uploads while each node in turn is on
// its way out: shards of parts that it has must be put somewhere else, or have
// been in between.
func TestCompleteDuringMaintenance(t *testing.T) {
	tc := startClusterWith(t, 4, 1, quick)
	o := tc.nodes[0].Objects()
	b := sharded(t, o, core.Mirror(2))
	parts := [][]byte{bytes.Repeat([]byte("part"), core.MinPart/4), []byte("the last part")}
	for _, n := range tc.nodes {
		for i := range 3 {
			key := fmt.Sprintf("%s-%d", n.ID(), i)
			up, err := o.CreateUpload(t.Context(), b, key, core.PutOptions{Size: -1})
			if err != nil {
				t.Fatal(err)
			}
			var names []core.CompletePart
			for j, p := range parts {
				part, err := o.PutPart(t.Context(), b, key, up.ID, j+1, bytes.NewReader(p), core.PutOptions{Size: int64(len(p))})
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, core.CompletePart{Number: j + 1, ETag: part.ETag})
			}
			setState := func(s core.NodeState) {
				t.Helper()
				errs, err := tc.nodes[0].Change(t.Context(), core.Change{Kind: core.ChangeNodeState, Node: n.ID(), State: string(s)})
				if err := errors.Join(append(errs, err)...); err != nil {
					t.Fatal(err)
				}
			}
			setState(core.NodeMaintenance)
			if _, err := o.CompleteUpload(t.Context(), b, key, up.ID, names, core.PutOptions{Size: -1}); err != nil {
				t.Errorf("complete %s while %s is maintained: %v", key, n.ID(), err)
			}
			setState(core.NodeActive)
			obj, err := o.Get(t.Context(), b, key, core.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(obj.Body)
			_ = obj.Body.Close()
			if err != nil || !bytes.Equal(got, bytes.Join(parts, nil)) {
				t.Errorf("get %s: got %d bytes, %v", key, len(got), err)
			}
		}
	}
}
