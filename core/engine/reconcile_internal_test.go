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

// stillReconciler is one whose slots are always this node's.
func stillReconciler() *reconciler {
	h := newReconciler(&Node{id: "n1", clock: stillClock{}, opt: Options{Grace: time.Minute, Clock: stillClock{}}})
	h.tenure = func(core.SlotID) uint64 { return 1 }
	return h
}

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
			h := stillReconciler()
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
			h := stillReconciler()
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

// TestSlotThatCameBack: a slot that was another node's for a while, between two
// looks at the map, is gone over again: what was written and repaired there this
// node was not told, and what it had counted to be made may be left for ever.
func TestSlotThatCameBack(t *testing.T) {
	h, m := stillReconciler(), ownedBy(1, "n1")
	const sig, slot = 1, core.SlotID(0)
	tenure := uint64(1)
	h.tenure = func(core.SlotID) uint64 { return tenure }
	count := func() {
		t.Helper()
		due := h.due(m, sig)
		if !due[slot] {
			t.Fatal("the slot is not due")
		}
		p := &reconcilePass{h: h, slots: due, count: true, health: map[core.SlotID]*slotHealth{}}
		h.begin(p, sig)
		h.settle(p)
	}
	count()
	if len(h.due(m, sig)) != 0 {
		t.Error("a slot that has been this node's all the time is due again")
	}
	tenure = 0
	if len(h.due(m, sig)) != 0 || h.rest(m) != retryFrom {
		t.Errorf("a slot that cannot be read is gone over, or forgotten for %v", h.rest(m))
	}
	tenure = 2
	count()
	if len(h.due(m, sig)) != 0 || h.rest(m) != farOff {
		t.Error("it is gone over more than once")
	}
	// It may come back while it is counted.
	h.slots = map[core.SlotID]*slotHealth{}
	p := &reconcilePass{h: h, slots: h.due(m, sig), count: true, health: map[core.SlotID]*slotHealth{}}
	h.begin(p, sig)
	tenure = 3
	h.settle(p)
	count()
}

// TestPageOfLostSlots: of a page whose rows were all of slots that this node lost
// while it read them, nothing tells where the next begins. The slots that it still
// has are gone over again.
func TestPageOfLostSlots(t *testing.T) {
	p := &reconcilePass{slots: map[core.SlotID]bool{1: true, 2: true}, failed: map[core.SlotID]bool{}}
	if p.onward(&scanRequest{}, &scanReply{held: []core.SlotID{2}, more: true}) || !p.failed[1] || !p.failed[2] {
		t.Errorf("slots that are tried again: %v, want both", p.failed)
	}
	p.failed = map[core.SlotID]bool{}
	if p.onward(&scanRequest{}, &scanReply{held: []core.SlotID{1, 2}}) || len(p.failed) > 0 {
		t.Errorf("slots that are tried again at the end: %v", p.failed)
	}
	req, rep := &scanRequest{}, &scanReply{more: true}
	rep.found = make([]core.Found, 1)
	rep.found[0].Key, rep.found[0].Sub = "key", "sub"
	if !p.onward(req, rep) || req.scan.AfterKey != "key" || req.scan.AfterSub != "sub" {
		t.Errorf("the next page is after %q, %q", req.scan.AfterKey, req.scan.AfterSub)
	}
}
