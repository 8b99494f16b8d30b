package placement

import (
	"fmt"
	"slices"
	"time"

	"github.com/shoalstore/shoal/core"
)

// Apply makes the successor of a sealed map by changes, one after the other.
// errs[i] is nil or says why change i is void: ErrConflict if it came too late,
// ErrNotFound, ErrExists, or ErrInvalid. A change that asks for what already is
// the case is no error. If nothing changes, next is nil.
//
// Every row of the slot table that changes gets the new epoch as its term. No
// change empties an in-sync set.
func Apply(m *core.Map, now time.Time, changes []core.Change) (next *core.Map, errs []error) {
	errs = make([]error, len(changes))
	fail := func(err error) (*core.Map, []error) {
		for i := range errs {
			errs[i] = err
		}
		return nil, errs
	}
	if m.Sum() == "" {
		return fail(fmt.Errorf("map %d is not sealed and can have no successor: %w", m.Epoch, core.ErrInvalid))
	}
	d := newDraft(m, now, changes)
	for i := range changes {
		if err := d.apply(&changes[i]); err != nil {
			errs[i] = fmt.Errorf("%s: %w", changes[i].Kind, err)
		}
	}
	if !d.dirty {
		return nil, errs
	}
	if err := d.m.Seal(); err != nil {
		return fail(err)
	}
	return d.m, errs
}

// draft is a map in the making.
type draft struct {
	m     *core.Map
	now   time.Time
	dirty bool // it differs from its predecessor
	// failing are the nodes and disks that some change of the batch takes
	// out: no row is left with these only.
	failingNodes []core.NodeID
	failingDisks []core.DiskID
}

func newDraft(m *core.Map, now time.Time, changes []core.Change) *draft {
	d := &draft{m: m.Clone(), now: now.Round(0).UTC()}
	d.m.Epoch = m.Epoch + 1
	d.m.Prev = m.Sum()
	d.m.Made = d.now
	d.m.OldVoters = slices.Clone(m.Voters)
	for i := range changes {
		c := &changes[i]
		switch {
		case c.Kind == core.ChangeFail && c.Disk != 0,
			c.Kind == core.ChangeDiskState && c.State == string(core.DiskFailed):
			d.failingDisks = append(d.failingDisks, c.Disk)
		case c.Kind == core.ChangeFail,
			c.Kind == core.ChangeNodeState && c.State == string(core.NodeDown):
			d.failingNodes = append(d.failingNodes, c.Node)
		}
	}
	return d
}

func (d *draft) apply(c *core.Change) error {
	switch c.Kind {
	case core.ChangeBoot:
		return d.boot(c)
	case core.ChangeAddNode:
		return d.addNode(c)
	case core.ChangeAddDisk:
		return d.addDisk(c)
	case core.ChangeFail:
		return d.fail(c)
	case core.ChangeDrop:
		return d.drop(c)
	case core.ChangeJoined:
		return d.joined(c)
	case core.ChangeRenew:
		return d.renew(c)
	case core.ChangeJoin:
		return d.join(c)
	case core.ChangeOwner:
		return d.owner(c)
	case core.ChangeNodeState:
		return d.nodeState(c)
	case core.ChangeDiskState:
		return d.diskState(c)
	case core.ChangeWeight:
		return d.weight(c)
	case core.ChangeReplicas:
		return d.replicas(c)
	case core.ChangeVoters:
		return d.voters(c)
	case core.ChangeAddBucket:
		return d.addBucket(c)
	case core.ChangeSetBucket:
		return d.setBucket(c)
	case core.ChangeRemoveBucket:
		return d.removeBucket(c)
	}
	return fmt.Errorf("unknown kind of change; this node may be older than the one that asks: %w", core.ErrInvalid)
}

func (d *draft) node(id core.NodeID) (*core.Node, error) {
	if n := d.m.Node(id); n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("node %q is not in the map: %w", string(id), core.ErrNotFound)
}

func (d *draft) disk(id core.DiskID) (*core.Disk, error) {
	if k := d.m.Disk(id); k != nil {
		return k, nil
	}
	return nil, fmt.Errorf("disk %d is not in the map: %w", id, core.ErrNotFound)
}
