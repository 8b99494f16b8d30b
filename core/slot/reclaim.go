package slot

import (
	"math"

	"github.com/shoalstore/shoal/core"
)

// forgotten is the boot of the ballot that a forgotten history leaves. No node
// has it.
const forgotten = math.MaxUint64

// Stray is a slot's history on a local disk that is no member of the slot.
type Stray struct {
	Disk core.DiskID
	Slot core.SlotID
}

// Strays lists the histories that [Node.Reclaim] would forget now, in order.
func (n *Node) Strays() []Stray {
	if n.effect == nil || n.effect != n.newest && !n.rules.NoReclaimCheck {
		return nil
	}
	var out []Stray
	for i := range n.effect.Disks {
		d := n.disks[n.effect.Disks[i].ID]
		if d == nil {
			continue
		}
		for s := range n.slotsInOrder(d) {
			if n.isStray(d.slots[s]) {
				out = append(out, Stray{d.id, s})
			}
		}
	}
	return out
}

// isStray says whether a replica's history may be forgotten. The map in effect
// and the newest one are the same, and the disk is not in the slot's row, which
// has all the members that it should have. No owner that this node does not
// know of has sealed the disk: the disk can only have become a member since by a
// row with a later term, and an owner seals each joiner before anything else.
func (n *Node) isStray(r *replica) bool {
	if r == nil || r.owner != nil || r.state.Last.Seq == 0 && r.state.Committed.Seq == 0 && r.state.Floor == 0 {
		return false
	}
	row := &n.effect.Slots[r.slot]
	if row.Has(r.disk) {
		return false
	}
	return n.rules.NoReclaimCheck ||
		n.effect == n.newest && r.state.Ballot.Term <= n.effect.Epoch && len(row.Insync) >= n.effect.Replicas
}

// Reclaim forgets a slot's history on a local disk that is no member of the slot
// any more, and says whether it has begun to. One synced batch makes the slot
// empty there: should the disk become a member again, it starts from nothing.
// What stays is a ballot above those of all rows so far, so that nobody who was
// an owner before can take the disk for the member that it was. When to forget
// is for the caller to choose; it is safe whenever Reclaim does it.
func (n *Node) Reclaim(now core.Instant, id core.DiskID, s core.SlotID) bool {
	n.now = now
	d := n.disks[id]
	if d == nil || d.failed || n.effect == nil || int(s) >= len(n.effect.Slots) || !n.isStray(d.slots[s]) {
		return false
	}
	r := d.slots[s]
	fence := core.Ballot{Term: n.effect.Epoch, Boot: forgotten}
	r.state = core.SlotState{Ballot: fence}
	r.tail, r.marked, r.markDue, r.attempt, r.caughtUp = nil, core.Version{}, 0, 0, 0
	n.stats.Reclaimed++
	n.persist(id, core.SlotBatch{Slot: s, Remove: true, Adopt: &fence}, func(err error) {
		if err == nil {
			r.durable = core.Version{}
		}
	})
	return true
}
