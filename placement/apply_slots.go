package placement

import (
	"fmt"
	"math"
	"slices"

	"github.com/shoalstore/shoal/core"
)

// maxRow bounds the disks of a row, as its stored form does.
const maxRow = 64

// touch marks a row as changed by this batch.
func (d *draft) touch(row *core.Slot) {
	row.Term = d.m.Epoch
	d.dirty = true
}

func (d *draft) row(s core.SlotID) (*core.Slot, error) {
	if int64(s) >= int64(len(d.m.Slots)) {
		return nil, fmt.Errorf("slot %d of %d: %w", s, len(d.m.Slots), core.ErrNotFound)
	}
	return &d.m.Slots[s], nil
}

// rowAt returns the row if it is the one that the change was made for.
func (d *draft) rowAt(c *core.Change) (*core.Slot, error) {
	row, err := d.row(c.Slot)
	if err != nil {
		return nil, err
	}
	if row.Term != c.Term || row.Term == d.m.Epoch {
		return nil, fmt.Errorf("slot %d is in term %d, not %d: %w", c.Slot, row.Term, c.Term, core.ErrConflict)
	}
	return row, nil
}

// ownedRow is rowAt for changes that only the row's active owner may ask for.
func (d *draft) ownedRow(c *core.Change) (*core.Slot, error) {
	row, err := d.rowAt(c)
	if err != nil {
		return nil, err
	}
	n := d.m.Node(d.m.NodeOf(row.Owner()))
	switch {
	case n == nil:
		return nil, fmt.Errorf("slot %d has no owner: %w", c.Slot, core.ErrConflict)
	case n.Boot != c.Boot:
		return nil, fmt.Errorf("slot %d: owner %s is in boot %d, not %d: %w", c.Slot, n.ID, n.Boot, c.Boot, core.ErrConflict)
	case n.State == core.NodeDown:
		return nil, fmt.Errorf("slot %d: owner %s is down: %w", c.Slot, n.ID, core.ErrConflict)
	}
	return row, nil
}

// alive says whether a disk is counted on to serve: it and its node have not
// failed, nor are about to in this batch.
func (d *draft) alive(id core.DiskID) bool {
	k := d.m.Disk(id)
	if k == nil || k.State == core.DiskFailed || slices.Contains(d.failingDisks, id) {
		return false
	}
	n := d.m.Node(k.Node)
	return n != nil && n.State != core.NodeDown && n.State != core.NodeJoining && !slices.Contains(d.failingNodes, n.ID)
}

// fail takes a node or a disk out of all rows that keep another member that is
// alive. A row of which nobody is left keeps its in-sync set as it is: whoever
// of it comes back first has all that was ever acknowledged.
func (d *draft) fail(c *core.Change) error {
	if c.Disk != 0 {
		k, err := d.disk(c.Disk)
		if err != nil {
			return err
		}
		if k.State != core.DiskFailed {
			k.State, k.Since, k.Reason, d.dirty = core.DiskFailed, d.now, c.Reason, true
		}
		d.failDisks([]core.DiskID{c.Disk})
		return nil
	}
	n, err := d.node(c.Node)
	if err != nil {
		return err
	}
	// Maintenance, draining and decommissioned are what the operator wants
	// of the node, for after its return too.
	if n.State == core.NodeActive || n.State == core.NodeJoining {
		n.State, n.Since, d.dirty = core.NodeDown, d.now, true
	}
	var disks []core.DiskID
	for i := range d.m.Disks {
		if d.m.Disks[i].Node == n.ID {
			disks = append(disks, d.m.Disks[i].ID)
		}
	}
	d.failDisks(disks)
	return nil
}

func (d *draft) failDisks(disks []core.DiskID) {
	goes := func(id core.DiskID) bool { return slices.Contains(disks, id) }
	for i := range d.m.Slots {
		row := &d.m.Slots[i]
		if slices.ContainsFunc(row.Joining, goes) {
			row.Joining = without(row.Joining, goes)
			d.touch(row)
		}
		if !slices.ContainsFunc(row.Insync, goes) {
			continue
		}
		stays := func(id core.DiskID) bool { return !goes(id) && d.alive(id) }
		if !slices.ContainsFunc(row.Insync, stays) {
			continue
		}
		promote := goes(row.Owner())
		row.Insync = without(row.Insync, goes)
		if promote {
			d.promote(core.SlotID(i), row)
		}
		d.touch(row)
	}
}

// promote makes an in-sync disk the owner whose owner is gone: the one that
// rendezvous hashing prefers, so that the slots of a lost node spread over all
// others. Disks of nodes on their way out come last.
func (d *draft) promote(s core.SlotID, row *core.Slot) {
	best, bestCost, bestActive := -1, math.Inf(1), false
	for i, id := range row.Insync {
		if !d.alive(id) {
			continue
		}
		k := d.m.Disk(id)
		n := d.m.Node(k.Node)
		active := n.State == core.NodeActive && k.State == core.DiskOK
		c := cost(slotItem(s), k.UUID, weightOf(n, k))
		if best < 0 || active && !bestActive || active == bestActive && c < bestCost {
			best, bestCost, bestActive = i, c, active
		}
	}
	toFront(row.Insync, best)
}

// toFront moves element i to the front and keeps the order of the rest.
func toFront(l []core.DiskID, i int) {
	if i > 0 {
		id := l[i]
		copy(l[1:], l[:i])
		l[0] = id
	}
}

// without returns the list without some disks, nil if none is left.
func without(l []core.DiskID, goes func(core.DiskID) bool) []core.DiskID {
	if l = slices.DeleteFunc(l, goes); len(l) == 0 {
		return nil
	}
	return l
}

func (d *draft) drop(c *core.Change) error {
	row, err := d.ownedRow(c)
	if err != nil {
		return err
	}
	is := func(id core.DiskID) bool { return id == c.Disk }
	switch {
	case row.Owner() == c.Disk:
		return fmt.Errorf("slot %d: disk %d is the owner; give the slot another owner first: %w", c.Slot, c.Disk, core.ErrInvalid)
	case slices.Contains(row.Insync, c.Disk):
		row.Insync = without(row.Insync, is)
	case slices.Contains(row.Joining, c.Disk):
		row.Joining = without(row.Joining, is)
	default:
		return fmt.Errorf("slot %d has no disk %d: %w", c.Slot, c.Disk, core.ErrConflict)
	}
	d.touch(row)
	return nil
}

func (d *draft) joined(c *core.Change) error {
	row, err := d.ownedRow(c)
	if err != nil {
		return err
	}
	if !slices.Contains(row.Joining, c.Disk) {
		return fmt.Errorf("slot %d: disk %d is not joining: %w", c.Slot, c.Disk, core.ErrConflict)
	}
	row.Joining = without(row.Joining, func(id core.DiskID) bool { return id == c.Disk })
	row.Insync = append(row.Insync, c.Disk)
	d.touch(row)
	return nil
}

// renew gives a row a new term.
func (d *draft) renew(c *core.Change) error {
	row, err := d.ownedRow(c)
	if err == nil {
		d.touch(row)
	}
	return err
}

func (d *draft) join(c *core.Change) error {
	row, err := d.row(c.Slot)
	if err != nil {
		return err
	}
	k, err := d.disk(c.Disk)
	if err != nil {
		return err
	}
	n, err := d.node(k.Node)
	if err != nil {
		return err
	}
	switch {
	case row.Has(c.Disk):
		return fmt.Errorf("slot %d already has disk %d: %w", c.Slot, c.Disk, core.ErrConflict)
	case k.State != core.DiskOK || n.State != core.NodeActive:
		return fmt.Errorf("slot %d: disk %d is %s on %s, which is %s; want an ok disk on an active node: %w",
			c.Slot, c.Disk, k.State, n.ID, n.State, core.ErrConflict)
	case len(row.Joining) > 0 && len(row.Insync) >= d.m.Replicas:
		return fmt.Errorf("slot %d: another disk is joining: %w", c.Slot, core.ErrConflict)
	case len(row.Insync)+len(row.Joining) >= maxRow:
		return fmt.Errorf("slot %d has %d disks already: %w", c.Slot, maxRow, core.ErrConflict)
	}
	row.Joining = append(row.Joining, c.Disk)
	d.touch(row)
	return nil
}

func (d *draft) owner(c *core.Change) error {
	row, err := d.rowAt(c)
	if err != nil {
		return err
	}
	i := slices.Index(row.Insync, c.Disk)
	switch {
	case i < 0:
		return fmt.Errorf("slot %d: disk %d is not in sync: %w", c.Slot, c.Disk, core.ErrConflict)
	case i == 0:
		return nil
	case !d.alive(c.Disk):
		return fmt.Errorf("slot %d: disk %d cannot be the owner, it or its node %s failed: %w", c.Slot, c.Disk, d.m.NodeOf(c.Disk), core.ErrConflict)
	}
	toFront(row.Insync, i)
	d.touch(row)
	return nil
}
