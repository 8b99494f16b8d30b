package sim

import (
	"errors"
	"time"

	"github.com/shoalstore/shoal/core"
)

// register is the bus's value with compare-and-set. It is away at times, loses
// answers, and answers reads stale.
type register struct {
	w     *world
	value *core.Map
	old   *core.Map // the value before
	rev   uint64
	away  bool
	// flying counts the changes that are on their way.
	flying int
}

var errAway = errors.New("bus away")

// load reads the value, which may be the one before the newest.
func (b *register) load(done func(*core.Map, uint64, error)) {
	w := b.w
	w.after(w.between(time.Millisecond, 5*time.Millisecond), func() {
		m, rev, err := b.value, b.rev, error(nil)
		switch {
		case b.away:
			err = errAway
		case b.old != nil && w.chance(0.1):
			m, rev = b.old, 0
		}
		w.after(w.between(time.Millisecond, 5*time.Millisecond), func() { done(m, rev, err) })
	})
}

// cas replaces the value of that revision. Its answer may get lost: then ok is
// false, and the outcome unknown.
func (b *register) cas(m *core.Map, rev uint64, done func(ok bool)) {
	w := b.w
	d := w.between(2*time.Millisecond, 10*time.Millisecond)
	if w.chance(0.03) {
		d = w.between(100*time.Millisecond, 3*time.Second) // and may land late
	}
	b.flying++
	w.after(d, func() {
		b.flying--
		ok := !b.away && rev == b.rev
		if ok {
			b.old, b.value = b.value, m
			b.rev++
			b.announce()
		}
		if w.chance(0.05) {
			ok = false
		}
		w.after(w.between(time.Millisecond, 5*time.Millisecond), func() { done(ok) })
	})
}

// rollBack loses the last change: the value is again what it was before.
func (b *register) rollBack() {
	if b.old != nil {
		b.value, b.old = b.old, nil
		b.rev++
	}
}

// announce tells the watchers, most of them.
func (b *register) announce() {
	w := b.w
	m := b.value
	for _, id := range w.order {
		if w.chance(0.1) {
			continue
		}
		nd := w.nodes[id]
		life := nd.life
		w.after(w.between(time.Millisecond, 40*time.Millisecond), func() { nd.when(life, func() { nd.seeMap(m) }) })
	}
}
