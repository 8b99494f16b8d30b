package engine

import (
	"context"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

// stillClock stands still.
type stillClock struct{}

func (stillClock) Now() time.Time                                  { return time.Time{} }
func (stillClock) Boot() core.Instant                              { return 1 }
func (stillClock) Wait(ctx context.Context, _ time.Duration) error { return ctx.Err() }

// TestWriteDuringCount: an object that a count has seen to lack its shards may
// be replaced before the count ends. The slot is counted again then, and only
// then: under load every slot is written to during every count.
func TestWriteDuringCount(t *testing.T) {
	const slot = core.SlotID(3)
	for _, tt := range []struct {
		name  string
		under int64
		write bool
		want  bool
	}{
		{"nothing lacks", 0, true, false},
		{"nothing was written", 1, false, false},
		{"what lacks may be gone", 1, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newReconciler(&Node{clock: stillClock{}, opt: Options{Grace: time.Minute, Clock: stillClock{}}})
			p := &reconcilePass{
				h: h, slots: map[core.SlotID]bool{slot: true}, count: true,
				health: map[core.SlotID]*slotHealth{}, work: map[core.SlotID]bool{}, failed: map[core.SlotID]bool{},
			}
			h.begin(p, 1)
			p.health[slot].wrong, p.health[slot].under = tt.under, tt.under
			if tt.write {
				h.wrote(slot, nil)
			}
			h.settle(p)
			if got := h.slots[slot].recount != 0; got != tt.want {
				t.Errorf("counted again: got %t, want %t", got, tt.want)
			}
		})
	}
}

// TestLeftOverIsCounted: a count finds something to be made that is not there any
// more when its turn comes, so that it is neither made nor fails. Nothing else has
// the slot looked at again, and the node would be busy with it for ever.
func TestLeftOverIsCounted(t *testing.T) {
	const slot = core.SlotID(3)
	for _, tt := range []struct {
		name string
		made int64
		want bool
	}{
		{"all was made", 100, false},
		{"something was not", 60, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newReconciler(&Node{clock: stillClock{}, opt: Options{Grace: time.Minute, Clock: stillClock{}}})
			p := &reconcilePass{
				h: h, slots: map[core.SlotID]bool{slot: true}, count: true,
				health: map[core.SlotID]*slotHealth{}, work: map[core.SlotID]bool{slot: true}, failed: map[core.SlotID]bool{},
			}
			h.begin(p, 1)
			p.health[slot].wrong, p.health[slot].left = 1, 100
			h.settle(p)
			p.slots, p.count = p.work, false
			h.repaired(slot, &core.Record{}, needed{moves: true, able: true, bytes: tt.made})
			h.settle(p)
			if got := h.slots[slot].recount != 0; got != tt.want {
				t.Errorf("counted again: got %t, want %t", got, tt.want)
			}
			if h.slots[slot].again != 0 {
				t.Error("it is tried again as if it had failed")
			}
		})
	}
}
