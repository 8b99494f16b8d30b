package engine

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/shoalstore/shoal/core"
)

// TestPageMerge cuts random shares of random rows at random limits: a page is
// always the first of all rows, without a gap, and more of them only where rows
// follow.
func TestPageMerge(t *testing.T) {
	const slots = 64
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var all []core.Found
		for i := range rng.IntN(60) {
			all = append(all, core.Found{Slot: core.SlotID(rng.IntN(slots)), Row: core.Row{RowKey: core.RowKey{Key: fmt.Sprintf("k%02d", i/2), Sub: fmt.Sprint(i % 2)}}})
		}
		p := &pageMerge{missing: newSlotSet(slots), left: slots}
		for s := range core.SlotID(slots) {
			p.missing.add(s)
		}
		// Nodes hold slots by remainder; what a share could not tell is asked
		// for again, of a part of the slots.
		nodes := 1 + rng.IntN(5)
		for turn := 0; p.left > 0; turn++ {
			if turn > 1000 {
				t.Fatalf("seed %d: %d slots stay missing", seed, p.left)
			}
			node := rng.IntN(nodes)
			rep := &scanReply{}
			limit := 1 + rng.IntN(20)
			for s := range core.SlotID(slots) {
				if int(s)%nodes == node && (turn > 20 || rng.IntN(10) > 0) {
					rep.held = append(rep.held, s)
				}
			}
			var read []core.Found
			for _, f := range all {
				if int(f.Slot)%nodes != node || !p.missing.has(f.Slot) {
					continue
				}
				if len(read) == limit {
					rep.more = true
					break
				}
				read = append(read, f)
			}
			rep.found = onlyHeld(read, rep.held)
			p.add(rep)
		}
		got, more, err := p.result()
		if err != nil {
			t.Fatal(err)
		}
		same := func(a, b core.Found) bool { return a.Key == b.Key && a.Sub == b.Sub }
		if len(got) > len(all) || !slices.EqualFunc(got, all[:len(got)], same) {
			t.Fatalf("seed %d: got %v of %v", seed, got, all)
		}
		if !more && len(got) < len(all) {
			t.Fatalf("seed %d: got %d of %d rows and the word that there are no more", seed, len(got), len(all))
		}
		if more && len(got) == 0 {
			t.Fatalf("seed %d: an empty page with more behind it", seed)
		}
	}
}
