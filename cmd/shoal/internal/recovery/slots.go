package recovery

import (
	"fmt"
	"math"
	"slices"

	"github.com/shoalstore/shoal/core"
)

// forgotten is the boot in the ballot of a disk that has forgotten a slot since it
// was no member any more; see slot.Node.Reclaim.
const forgotten = math.MaxUint64

// copyOf is what a surviving disk has of a slot.
type copyOf struct {
	disk  core.DiskID
	state core.SlotState
	// member says that the slot's row has the disk in sync.
	member bool
}

// slots gives every row the new epoch as its term and the in-sync set with which
// it goes on:
//
//   - the in-sync disks that survive, if no disk shown has taken part in a later
//     term: each has every record that was acknowledged;
//   - otherwise, and where none survives, the most recent copy there is;
//   - where there is none at all, blank disks.
//
// In the latter two cases every other disk forgets what it has of the slot,
// since histories may have parted.
func (d *decision) slots() error {
	placer, err := d.placer()
	if err != nil {
		return err
	}
	var blank []core.SlotID
	for i := range d.next.Slots {
		s := core.SlotID(i)
		row := &d.next.Slots[i]
		copies, ahead := d.copies(s, row)
		if ahead != "" {
			d.ahead = append(d.ahead, ahead)
		}
		members := slices.DeleteFunc(slices.Clone(row.Insync), func(id core.DiskID) bool {
			k := d.disks[id]
			return k == nil || k.Slots[s].Ballot.Boot == forgotten
		})
		ownerLost := len(members) > 0 && members[0] != row.Owner()
		row.Term, row.Joining = d.next.Epoch, nil
		switch {
		case len(members) > 0 && ahead == "":
			if ownerLost {
				// The slots of a lost owner are spread over the others.
				rotate(members, i%len(members))
			}
			row.Insync = members
			continue
		case len(copies) == 0 || latest(copies) == (core.Version{}):
			if row.Insync = members; len(members) == 0 {
				blank = append(blank, s)
			}
			continue
		}
		best := latest(copies)
		row.Insync = nil
		for _, c := range copies {
			if c.state.Last == best && (len(row.Insync) == 0 || c.member) {
				row.Insync = append(row.Insync, c.disk)
			} else {
				d.remove(c.disk, s)
			}
		}
		if len(members) == 0 {
			d.plan.StaleSlots = append(d.plan.StaleSlots, StaleSlot{Slot: s, Disk: row.Owner(), Has: best})
		}
	}
	for _, s := range blank {
		row := &d.next.Slots[s]
		if row.Insync = placer.Slot(s, d.next.Replicas); len(row.Insync) == 0 {
			return fmt.Errorf("recover: no disk that was shown is ok on an active node, so slot %d can be put nowhere: %w", s, core.ErrInvalid)
		}
	}
	d.plan.LostSlots = blank
	if n := len(blank) + len(d.plan.StaleSlots); n > 0 {
		d.object(FlagLostSlots, d.accept.LostSlots, "%d of %d slots have no in-sync disk left: all records of %d of them are lost, %d go on from a copy that was out of date",
			n, len(d.next.Slots), len(blank), len(d.plan.StaleSlots))
	}
	return nil
}

// copies lists what the surviving disks have of a slot, in the order of the
// disks' numbers; ahead names a disk that has taken part in a later term.
func (d *decision) copies(s core.SlotID, row *core.Slot) (out []copyOf, ahead string) {
	for i := range d.next.Disks {
		k := &d.next.Disks[i]
		st, has := d.disks[k.ID].Slots[s]
		if !has {
			continue
		}
		if ahead == "" && (st.Ballot.Term > d.base.Epoch || st.Ballot.Term > row.Term && st.Ballot.Boot != forgotten) {
			ahead = fmt.Sprintf("slot %d in term %d on %s/%s", s, st.Ballot.Term, k.Node, k.Name)
		}
		if st.Ballot.Boot == forgotten {
			continue // nothing is left there but the ballot
		}
		out = append(out, copyOf{disk: k.ID, state: st, member: slices.Contains(row.Insync, k.ID)})
	}
	return out, ahead
}

// latest is the highest version that a copy ends with. Entries are taken only
// behind their predecessor, so that an end of a later term has seen more.
func latest(copies []copyOf) (v core.Version) {
	for _, c := range copies {
		if c.state.Last.Compare(v) > 0 {
			v = c.state.Last
		}
	}
	return v
}

// remove orders a disk to forget a slot.
func (d *decision) remove(id core.DiskID, s core.SlotID) {
	if d.plan.Orders.Remove == nil {
		d.plan.Orders.Remove = map[string][]core.SlotID{}
	}
	uuid := d.next.Disk(id).UUID
	d.plan.Orders.Remove[uuid] = append(d.plan.Orders.Remove[uuid], s)
}

// rotate moves element i to the front and keeps the order of the circle.
func rotate(l []core.DiskID, i int) {
	c := slices.Concat(l[i:], l[:i])
	copy(l, c)
}
