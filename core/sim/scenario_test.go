package sim

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/slot"
)

// TestCutOffOwner cuts an owner off from all other nodes but not from the bus,
// while one of its slot's three members is down. It must not drop the other one,
// of which it hears nothing: the slot would wait for it, however long that takes.
func TestCutOffOwner(t *testing.T) {
	const cut = 30 * time.Second
	tried, stuck := 0, 0
	for seed := uint64(1); tried < 10; seed++ {
		took, err := cutOffOwner(seed, slot.Rules{}, cut)
		if errors.Is(err, errTooFew) {
			continue
		}
		tried++
		if err != nil {
			t.Error(err)
		}
		if took > 12*time.Second {
			t.Errorf("seed %d: the slots of a cut-off owner take no writes for %v", seed, took)
		}
		without, err := cutOffOwner(seed, slot.Rules{NoDropConfirm: true}, cut)
		if err != nil {
			t.Error(err)
		}
		if without > cut-5*time.Second {
			stuck++
		}
	}
	t.Logf("without the check %d of %d owners take their slots with them", stuck, tried)
	if stuck < tried/2 {
		t.Error("nothing shows that the check is needed")
	}
}

// TestDeadMemberIsDropped: an owner that is heard drops a member that is dead as
// soon as it would without asking the voters.
func TestDeadMemberIsDropped(t *testing.T) {
	var with, without time.Duration
	const seeds = 30
	for seed := uint64(1); seed <= seeds; seed++ {
		for _, c := range []struct {
			rules slot.Rules
			sum   *time.Duration
		}{{slot.Rules{}, &with}, {slot.Rules{NoDropConfirm: true}, &without}} {
			took, err := deadMember(seed, c.rules)
			if err != nil {
				t.Error(err)
			}
			if took > 12*time.Second {
				t.Errorf("seed %d: no writes for %v after the death of a member", seed, took)
			}
			*c.sum += took
		}
	}
	t.Logf("no writes for %v on average, %v without the check", with/seeds, without/seeds)
	if with > without+seeds*200*time.Millisecond {
		t.Error("the check takes too long")
	}
}

// deadMember says for how long the first slot takes no writes after a member died.
func deadMember(seed uint64, rules slot.Rules) (time.Duration, error) {
	w := newWorld(Options{Seed: seed, Rules: rules})
	w.loop(func() bool { return w.now > 5*time.Second })
	m := w.check.maps[w.check.top]
	at := w.now
	answered := w.writeUntil([]core.SlotID{0}, at+15*time.Second)
	w.loop(func() bool { return w.now > at+time.Second })
	w.nodes[m.NodeOf(m.Slots[0].Insync[1])].crash()
	var worst time.Duration
	w.loop(func() bool {
		worst = max(worst, w.now-max(answered[0], at))
		return w.now > at+16*time.Second
	})
	w.recover()
	w.finish()
	return worst, w.failure
}

// errTooFew says that a world has too few nodes to lose two of them.
var errTooFew = errors.New("too few nodes")

// cutOffOwner says for how long the first slot takes no writes when a member dies
// and then its owner is cut off from its peers.
func cutOffOwner(seed uint64, rules slot.Rules, cut time.Duration) (time.Duration, error) {
	w := newWorld(Options{Seed: seed, Rules: rules})
	if len(w.order) < 5 {
		return 0, errTooFew
	}
	w.loop(func() bool { return w.now > 5*time.Second })
	m := w.check.maps[w.check.top]
	answered := w.writeUntil([]core.SlotID{0}, w.now+cut+10*time.Second)
	w.nodes[m.NodeOf(m.Slots[0].Insync[2])].crash()
	at := w.now + 6*time.Second
	w.loop(func() bool { return w.now > at })
	m = w.check.maps[w.check.top]
	for _, id := range w.order {
		if id != m.OwnerNode(0) {
			w.cutFor(id, m.OwnerNode(0), cut)
		}
	}
	var worst time.Duration
	w.loop(func() bool {
		worst = max(worst, w.now-max(answered[0], at))
		return w.now > at+cut+5*time.Second
	})
	w.recover()
	w.finish()
	return worst, w.failure
}

// writeUntil has a client for each of some slots write one value after the other,
// and tells when the last write of each was answered.
func (w *world) writeUntil(which []core.SlotID, end time.Duration) map[core.SlotID]time.Duration {
	answered := map[core.SlotID]time.Duration{}
	for _, s := range which {
		k := slices.IndexFunc(w.keys(), func(k string) bool { return slotOf(k) == s })
		c := &client{w: w, no: 100 + int(s)}
		var next func()
		next = func() {
			if w.now > end {
				return
			}
			w.nextVal++
			q := request{kind: opPut, key: w.keys()[k], value: w.nextVal}
			for i := range q.id {
				q.id[i] = byte(w.rng.Uint32())
			}
			op := w.history.begin(c.no, q, w.now)
			c.ask(q, func(r reply) {
				w.history.end(op, r, w.now)
				answered[s] = w.now
				w.after(50*time.Millisecond, next)
			}, next)
		}
		answered[s] = w.now
		next()
	}
	return answered
}
