package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// harm does harm to the nodes of a cluster, at most to two at a time.
type harm struct {
	c       *cluster
	rnd     *rand.Rand
	started time.Time
	down    []string // killed
	frozen  []string
	counts  map[string]int
}

func newHarm(c *cluster, rnd *rand.Rand) *harm {
	return &harm{c: c, rnd: rnd, started: time.Now(), counts: map[string]int{}}
}

// run does harm for the time.
func (h *harm) run(span time.Duration) {
	ctx := h.c.t.Context()
	for time.Since(h.started) < span && ctx.Err() == nil {
		h.step()
		pause := time.NewTimer(time.Duration(500+h.rnd.IntN(3000)) * time.Millisecond)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
}

func (h *harm) step() {
	hurt := slices.Concat(h.down, h.frozen)
	if len(hurt) >= 2 || len(hurt) > 0 && h.rnd.IntN(2) == 0 {
		h.mend(pick(h.rnd, hurt))
		return
	}
	node := pick(h.rnd, slices.DeleteFunc(slices.Clone(h.c.nodes), func(n string) bool { return slices.Contains(hurt, n) }))
	switch h.rnd.IntN(3) {
	case 0:
		h.note("pause", node, h.c.Pause(h.c.t.Context(), node))
		h.frozen = append(h.frozen, node)
	case 1:
		// The quickest take-over: the node is back before anybody has noticed.
		h.note("kill", node, h.c.Kill(h.c.t.Context(), node))
		h.note("start", node, h.c.Start(h.c.t.Context(), node))
	default:
		h.note("kill", node, h.c.Kill(h.c.t.Context(), node))
		h.down = append(h.down, node)
	}
}

func (h *harm) mend(node string) {
	is := func(n string) bool { return n == node }
	if slices.Contains(h.down, node) {
		h.note("start", node, h.c.Start(h.c.t.Context(), node))
		h.down = slices.DeleteFunc(h.down, is)
		return
	}
	h.note("resume", node, h.c.Resume(h.c.t.Context(), node))
	h.frozen = slices.DeleteFunc(h.frozen, is)
}

// heal mends all.
func (h *harm) heal() {
	for _, n := range slices.Concat(h.down, h.frozen) {
		h.mend(n)
	}
}

func (h *harm) note(what, node string, err error) {
	h.counts[what]++
	h.c.t.Logf("%9.4f %s %s", time.Since(h.started).Seconds(), what, node)
	if err != nil {
		h.c.t.Errorf("%s %s: %v", what, node, err)
	}
}

func (h *harm) summary() string { return fmt.Sprintf("harm %v", h.counts) }
