package engine

import "github.com/shoalstore/shoal/core"

// slotSet is a set of slots, a bit each. A nil set is empty.
type slotSet []uint64

func newSlotSet(slots int) slotSet { return make(slotSet, (slots+63)/64) }

// setOfSlots makes a set of a list in ascending order.
func setOfSlots(list []core.SlotID) slotSet {
	if len(list) == 0 {
		return nil
	}
	x := newSlotSet(int(list[len(list)-1]) + 1)
	for _, s := range list {
		x.add(s)
	}
	return x
}

func (x slotSet) has(s core.SlotID) bool {
	return int(s/64) < len(x) && x[s/64]&(1<<(s%64)) != 0
}

func (x slotSet) add(s core.SlotID)    { x[s/64] |= 1 << (s % 64) }
func (x slotSet) remove(s core.SlotID) { x[s/64] &^= 1 << (s % 64) }
