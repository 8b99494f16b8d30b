package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
	"github.com/shoalstore/shoal/core/objectstest"
	"github.com/shoalstore/shoal/placement"
)

// TestConfirmedReads cuts the owner of a key off. While its lease lasts it
// answers reads and listings by itself, unless reads are to be confirmed.
func TestConfirmedReads(t *testing.T) {
	for _, confirm := range []bool{false, true} {
		t.Run(fmt.Sprint(confirm), func(t *testing.T) {
			tc := startClusterWith(t, 3, 1, func(o *engine.Options) {
				o.ConfirmReads = confirm
				o.Params.LeaseUse = time.Minute // the test is over before it ends
				o.Params.Grant = time.Minute + time.Second
			})
			objects := tc.nodes[0].Objects()
			b, err := objects.CreateBucket(t.Context(), core.BucketName{Provider: core.Shoal, Name: "confirmed"}, nil, "")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := objects.Put(t.Context(), b, "key", strings.NewReader("value"), core.PutOptions{Size: 5}); err != nil {
				t.Fatal(err)
			}
			m := tc.nodes[0].Map()
			owner := tc.net.nodes[m.OwnerNode(placement.SlotOf(b.ID, "key", len(m.Slots)))]

			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					if _, err := owner.Objects().Head(t.Context(), b, "key", core.GetOptions{}); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()

			tc.net.cutOff(owner.ID())
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err = owner.Objects().Head(ctx, b, "key", core.GetOptions{})
			if !confirm && err != nil {
				t.Errorf("under its lease: %v", err)
			}
			if confirm && !errors.Is(err, core.ErrUnavailable) {
				t.Errorf("cut off: got %v, want %v", err, core.ErrUnavailable)
			}
		})
	}
}

// TestObjectsConfirmed holds the object layer to its contract where reads are
// confirmed.
func TestObjectsConfirmed(t *testing.T) {
	tc := startClusterWith(t, 3, 1, func(o *engine.Options) { o.ConfirmReads = true })
	objectstest.Run(t, func(*testing.T) core.Objects { return tc.nodes[1].Objects() })
}
