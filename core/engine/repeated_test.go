package engine_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/shoalstore/shoal/core"
)

// TestConditionalPutRepeated repeats writes above the inline size that were to be
// the first of their key: the attempt after one that took place gets its answer,
// another request is refused.
func TestConditionalPutRepeated(t *testing.T) {
	tc := startCluster(t, 1, 2)
	o := tc.nodes[0].Objects()
	b, err := o.CreateBucket(t.Context(), core.BucketName{Provider: core.Shoal, Name: "large"}, &core.Policy{Scheme: core.None(), Domain: core.DomainDisk, Inline: 1, ETag: "fast"}, "")
	if err != nil {
		t.Fatal(err)
	}
	body := bytes.Repeat([]byte("x"), 100_000)
	put := func(id core.RequestID, fresh bool) (core.ObjectInfo, error) {
		return o.Put(t.Context(), b, "key", bytes.NewReader(body), core.PutOptions{
			Size: int64(len(body)), Request: id, Fresh: fresh, Conditions: core.Conditions{IfNoneMatch: []string{"*"}},
		})
	}
	id := core.NewRequestID()
	first, err := put(id, true)
	if err != nil {
		t.Fatal(err)
	}
	again, err := put(id, false)
	if err != nil || again.Version != first.Version {
		t.Errorf("the second attempt: version %v, %v, want %v", again.Version, err, first.Version)
	}
	for _, fresh := range []bool{true, false} {
		if _, err := put(core.NewRequestID(), fresh); !errors.Is(err, core.ErrPrecondition) {
			t.Errorf("another request, first attempt %v: got %v, want it refused", fresh, err)
		}
	}
}
