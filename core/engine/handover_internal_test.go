package engine

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/slot"
)

// fakeTime is the time of a synctest bubble.
type fakeTime struct{ began time.Time }

func (c fakeTime) Now() time.Time     { return time.Now() }
func (c fakeTime) Boot() core.Instant { return core.Instant(time.Since(c.began)) + 1 }
func (c fakeTime) Wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ownedBy is a map in which a node owns the only slot.
func ownedBy(epoch core.Epoch, owner core.NodeID) *core.Map {
	return &core.Map{
		Epoch: epoch,
		Nodes: []core.Node{{ID: "n1"}, {ID: "n2"}},
		Disks: []core.Disk{{ID: 1, Node: owner}},
		Slots: core.SlotTable{{Term: epoch, Insync: []core.DiskID{1}}},
	}
}

// A request at a node that does not have a slot yet, or not any more, goes on when
// that changes, and tries elsewhere if it does not.
func TestAwaitOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		d := newDriver(fakeTime{began}, slog.New(slog.DiscardHandler), nil, slot.Config{ID: "n1"})
		show := func(m *core.Map) {
			was := d.seen.Swap(&seenMaps{newest: m, effect: m, changed: make(chan struct{})})
			close(was.changed)
		}
		wait := func() time.Duration {
			from := time.Now()
			d.awaitOpen(t.Context(), 0, true)
			return time.Since(from)
		}
		show(ownedBy(1, "n2"))
		if took := wait(); took != 0 {
			t.Errorf("another node's slot was waited for, %v", took)
		}
		show(ownedBy(2, "n1"))
		if took := wait(); took != handOver {
			t.Errorf("a slot that does not open was waited for %v, want %v", took, handOver)
		}
		time.AfterFunc(20*time.Millisecond, d.noteOpened) // another slot
		time.AfterFunc(30*time.Millisecond, func() { show(ownedBy(3, "n2")) })
		if took := wait(); took != 30*time.Millisecond {
			t.Errorf("a slot that was given away after 30 ms was waited for %v", took)
		}
	})
}

// Joiners that have caught up go to the steward, all that there are at a time and
// each once; if it does not answer they are put into a map from here.
func TestPassJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDriver(fakeTime{time.Now()}, slog.New(slog.DiscardHandler), nil, slot.Config{ID: "n1"})
		k := newMapkeeper(d, d.clock, d.log, nil, nil)
		var calls, answers atomic.Int64
		var last atomic.Pointer[[]core.Change]
		answers.Store(1)
		release := make(chan struct{})
		k.passOn = func(_ context.Context, c []core.Change) bool {
			calls.Add(1)
			last.Store(&c)
			<-release
			return answers.Load() == 1
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { k.passJoined(ctx); close(done) }()
		joined := func(s core.SlotID) core.Change {
			return core.Change{Kind: core.ChangeJoined, Slot: s, Disk: 2, Term: 1, Boot: 1}
		}
		k.ask([]core.Change{joined(1)})
		synctest.Wait()
		k.ask([]core.Change{joined(1), joined(2)})
		k.ask([]core.Change{joined(3), joined(2)})
		synctest.Wait()
		if calls.Load() != 1 || len(*last.Load()) != 1 {
			t.Fatalf("%d calls, the last with %v; want one with one joiner", calls.Load(), *last.Load())
		}
		release <- struct{}{}
		synctest.Wait()
		if calls.Load() != 2 || len(*last.Load()) != 2 {
			t.Fatalf("%d calls, the last with %v; want a second with the two that came meanwhile", calls.Load(), *last.Load())
		}
		answers.Store(0)
		release <- struct{}{}
		synctest.Wait()
		k.mu.Lock()
		if len(k.queue) != 1 || len(k.queue[0].changes) != 2 {
			t.Errorf("%d proposals wait here, want one with the two that the steward did not take", len(k.queue))
		}
		if k.asked[askedOf(&core.Change{Kind: core.ChangeJoined, Slot: 1, Disk: 2, Term: 1, Boot: 1})] {
			t.Error("what the steward has made is not asked for again")
		}
		k.mu.Unlock()
		if k.hurries() {
			t.Error("joiners that have caught up hurry")
		}
		k.ask([]core.Change{{Kind: core.ChangeDrop, Slot: 4, Disk: 2, Term: 1, Boot: 1}})
		if !k.hurries() {
			t.Error("a member that is to be dropped does not hurry")
		}
		cancel()
		<-done
	})
}
