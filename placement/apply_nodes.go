package placement

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/shoalstore/shoal/core"
)

// maxVoters is the largest number of voters.
const maxVoters = 5

// boot registers a node's start. It leaves the slot table alone: the node's
// new boot is part of the ballot of every slot that it owns.
func (d *draft) boot(c *core.Change) error {
	n, err := d.node(c.Node)
	if err != nil {
		return err
	}
	if c.Boot <= n.Boot {
		return fmt.Errorf("node %s has booted %d times, not fewer than %d: %w", n.ID, n.Boot, c.Boot, core.ErrConflict)
	}
	if len(c.Nodes) > 0 {
		a := &c.Nodes[0]
		if a.ID != "" && a.ID != c.Node {
			return fmt.Errorf("addresses of node %q for node %q: %w", string(a.ID), string(c.Node), core.ErrInvalid)
		}
		n.Peer, n.Client, n.Bus, n.Route = a.Peer, a.Client, a.Bus, a.Route
	}
	n.Boot = c.Boot
	if n.State == core.NodeJoining || n.State == core.NodeDown {
		n.State, n.Since = core.NodeActive, d.now
	}
	d.dirty = true
	return nil
}

func (d *draft) addNode(c *core.Change) error {
	if len(c.Nodes) != 1 {
		return fmt.Errorf("%d nodes in one change, want 1: %w", len(c.Nodes), core.ErrInvalid)
	}
	n := c.Nodes[0]
	if err := n.ID.Validate(); err != nil {
		return err
	}
	if d.m.Node(n.ID) != nil {
		return fmt.Errorf("node %s: %w", n.ID, core.ErrExists)
	}
	if err := checkWeight(n.Weight); err != nil {
		return fmt.Errorf("node %s: %w", n.ID, err)
	}
	for i := range c.Disks {
		if err := d.checkDisk(&c.Disks[i]); err != nil {
			return err
		}
		if known := d.diskNamed(c.Disks[i].UUID); known != nil {
			return fmt.Errorf("disk %s is disk %d of node %s; add node %s without it, then move it: %w",
				known.UUID, known.ID, known.Node, n.ID, core.ErrExists)
		}
		if slices.ContainsFunc(c.Disks[:i], func(k core.Disk) bool { return k.UUID == c.Disks[i].UUID }) {
			return fmt.Errorf("disk %s is named twice: %w", c.Disks[i].UUID, core.ErrInvalid)
		}
	}
	n.State, n.Since, n.Boot = core.NodeJoining, d.now, 0
	at, _ := slices.BinarySearchFunc(d.m.Nodes, n.ID, func(n core.Node, id core.NodeID) int { return compare(n.ID, id) })
	d.m.Nodes = slices.Insert(d.m.Nodes, at, n)
	for i := range c.Disks {
		d.newDisk(n.ID, c.Disks[i])
	}
	d.dirty = true
	return nil
}

func (d *draft) newDisk(n core.NodeID, k core.Disk) {
	k.ID, k.Node, k.State, k.Since = d.m.NextDisk, n, core.DiskOK, d.now
	d.m.NextDisk++
	d.m.Disks = append(d.m.Disks, k)
	d.dirty = true
}

func (d *draft) diskNamed(uuid string) *core.Disk {
	i := slices.IndexFunc(d.m.Disks, func(k core.Disk) bool { return k.UUID == uuid })
	if i < 0 {
		return nil
	}
	return &d.m.Disks[i]
}

func (d *draft) checkDisk(k *core.Disk) error {
	if k.UUID == "" {
		return fmt.Errorf("disk %q has no UUID: %w", k.Name, core.ErrInvalid)
	}
	if err := checkWeight(k.Weight); err != nil {
		return fmt.Errorf("disk %s: %w", k.UUID, err)
	}
	return nil
}

// checkWeight allows 0, which stands for 1.
func checkWeight(w float64) error {
	if !(w >= 0) || math.IsInf(w, 0) {
		return fmt.Errorf("weight %v: want a positive number: %w", w, core.ErrInvalid)
	}
	return nil
}

// addDisk adds a blank disk to a node, or with State "move" says that a known
// disk is on another node now. A known disk on its own node is only named anew.
func (d *draft) addDisk(c *core.Change) error {
	n, err := d.node(c.Node)
	if err != nil {
		return err
	}
	if len(c.Disks) != 1 {
		return fmt.Errorf("%d disks in one change, want 1: %w", len(c.Disks), core.ErrInvalid)
	}
	k := c.Disks[0]
	if err := d.checkDisk(&k); err != nil {
		return err
	}
	known := d.diskNamed(k.UUID)
	switch {
	case known == nil && c.State == "move":
		return fmt.Errorf("disk %s is not in the map: %w", k.UUID, core.ErrNotFound)
	case known == nil:
		d.newDisk(n.ID, k)
		return nil
	case known.Node == n.ID:
		if k.Name != "" && k.Name != known.Name {
			known.Name, d.dirty = k.Name, true
		}
		return nil
	case c.State != "move":
		return fmt.Errorf("disk %s is disk %d of node %s; move it if it was put into node %s: %w",
			k.UUID, known.ID, known.Node, n.ID, core.ErrExists)
	}
	known.Node, known.State, known.Since, known.Reason = n.ID, core.DiskOK, d.now, ""
	if k.Name != "" {
		known.Name = k.Name
	}
	d.dirty = true
	// The ballot of a slot is its term and the boot of the owner's node: under
	// the old term the new node's boot might be the lower one.
	for i := range d.m.Slots {
		if d.m.Slots[i].Has(known.ID) {
			d.touch(&d.m.Slots[i])
		}
	}
	return nil
}

func (d *draft) nodeState(c *core.Change) error {
	n, err := d.node(c.Node)
	if err != nil {
		return err
	}
	state := core.NodeState(c.State)
	switch state {
	case core.NodeDown:
		return d.fail(&core.Change{Kind: core.ChangeFail, Node: c.Node})
	case core.NodeJoining, core.NodeActive, core.NodeMaintenance, core.NodeDraining, core.NodeDecommissioned:
	default:
		return fmt.Errorf("node %s: no such state %q: %w", n.ID, c.State, core.ErrInvalid)
	}
	if n.State != state {
		n.State, n.Since, d.dirty = state, d.now, true
	}
	return nil
}

func (d *draft) diskState(c *core.Change) error {
	k, err := d.disk(c.Disk)
	if err != nil {
		return err
	}
	state := core.DiskState(c.State)
	switch state {
	case core.DiskFailed:
		return d.fail(&core.Change{Kind: core.ChangeFail, Disk: c.Disk, Reason: c.Reason})
	case core.DiskNew, core.DiskOK, core.DiskDetached:
	default:
		return fmt.Errorf("disk %d: no such state %q: %w", k.ID, c.State, core.ErrInvalid)
	}
	if k.State != state {
		k.State, k.Since, k.Reason, d.dirty = state, d.now, "", true
	}
	return nil
}

func (d *draft) weight(c *core.Change) error {
	if c.Weight != nil && !(*c.Weight > 0 && !math.IsInf(*c.Weight, 0)) {
		return fmt.Errorf("weight %v: want a positive number; drain what is to hold nothing: %w", *c.Weight, core.ErrInvalid)
	}
	if c.Zone != nil && (len(*c.Zone) > 63 || strings.ContainsAny(*c.Zone, ", \t\n=")) {
		return fmt.Errorf("zone %q: want up to 63 characters without spaces, ',' and '=': %w", *c.Zone, core.ErrInvalid)
	}
	if c.Disk != 0 {
		k, err := d.disk(c.Disk)
		if err != nil {
			return err
		}
		if c.Zone != nil {
			return fmt.Errorf("disk %d: a zone belongs to a node: %w", c.Disk, core.ErrInvalid)
		}
		if c.Weight != nil && *c.Weight != k.Weight {
			k.Weight, d.dirty = *c.Weight, true
		}
		return nil
	}
	n, err := d.node(c.Node)
	if err != nil {
		return err
	}
	if c.Weight != nil && *c.Weight != n.Weight {
		n.Weight, d.dirty = *c.Weight, true
	}
	if c.Zone != nil && *c.Zone != n.Zone {
		n.Zone, d.dirty = *c.Zone, true
	}
	return nil
}

func (d *draft) replicas(c *core.Change) error {
	if err := checkReplicas(c.Count); err != nil {
		return err
	}
	for i := range d.m.Buckets {
		if b := &d.m.Buckets[i]; b.State != core.BucketCreating && b.Policy.Scheme.M+1 > c.Count {
			return fmt.Errorf("%d replicas: bucket %s with %s needs %d: %w", c.Count, b.Name, b.Policy.Scheme, b.Policy.Scheme.M+1, core.ErrConflict)
		}
	}
	if c.Count != d.m.Replicas {
		d.m.Replicas, d.dirty = c.Count, true
	}
	return nil
}

func checkReplicas(r int) error {
	if r < 1 || r > core.MaxMirror {
		return fmt.Errorf("%d replicas: want 1 to %d: %w", r, core.MaxMirror, core.ErrInvalid)
	}
	return nil
}

func (d *draft) voters(c *core.Change) error {
	if err := checkVoters(d.m, c.Voters); err != nil {
		return err
	}
	if len(c.Voters) == len(d.m.Voters) && !slices.ContainsFunc(c.Voters, func(v core.Voter) bool { return !slices.Contains(d.m.Voters, v) }) {
		return nil
	}
	d.m.Voters = slices.Clone(c.Voters)
	d.m.Bus++
	d.dirty = true
	return nil
}

func checkVoters(m *core.Map, voters []core.Voter) error {
	if len(voters)%2 == 0 || len(voters) > maxVoters {
		return fmt.Errorf("%d voters: want 1, 3 or 5: %w", len(voters), core.ErrInvalid)
	}
	for i, v := range voters {
		switch {
		case m.Node(v.Node) == nil:
			return fmt.Errorf("voter %q is no node of the map: %w", string(v.Node), core.ErrNotFound)
		case v.Key == "":
			return fmt.Errorf("voter %s has no key: %w", v.Node, core.ErrInvalid)
		case slices.ContainsFunc(voters[:i], func(w core.Voter) bool { return w.Node == v.Node }):
			return fmt.Errorf("voter %s is named twice: %w", v.Node, core.ErrInvalid)
		}
	}
	return nil
}
