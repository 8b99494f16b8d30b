package placement

import (
	"slices"

	"github.com/shoalstore/shoal/core"
)

// Moves counts what a change of the slot table moved.
type Moves struct {
	// Moved counts the disks that came into the in-sync set of a slot, over
	// all slots.
	Moved int
	// Minimum is the least number with which any change from the one table
	// to the other's loads could do: what the disks hold more than before.
	Minimum int
}

// Movement compares the in-sync sets of two maps of a cluster.
func Movement(from, to *core.Map) Moves {
	var mv Moves
	gain := map[core.DiskID]int{}
	for i := range to.Slots {
		var was core.Slot
		if i < len(from.Slots) {
			was = from.Slots[i]
		}
		for _, d := range to.Slots[i].Insync {
			gain[d]++
		}
		for _, d := range was.Insync {
			gain[d]--
		}
		for _, d := range to.Slots[i].Insync {
			if !slices.Contains(was.Insync, d) {
				mv.Moved++
			}
		}
	}
	for _, g := range gain { // a sum: the order does not matter
		mv.Minimum += max(g, 0)
	}
	return mv
}
