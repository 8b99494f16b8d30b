package placement

import (
	"fmt"
	"slices"
	"time"

	"github.com/shoalstore/shoal/core"
)

// Initial makes the sealed map of epoch 1. As nothing is stored yet, all disks
// of a slot are in sync at once; the owners are balanced over the nodes by
// weight. Disks without a number get one in the order given; nodes and disks
// without a state are active and ok.
func Initial(cluster string, slots, replicas int, nodes []core.Node, disks []core.Disk, voters []core.Voter, now time.Time) (*core.Map, error) {
	bad := func(format string, a ...any) (*core.Map, error) {
		return nil, fmt.Errorf("first map: "+format+": %w", append(a, core.ErrInvalid)...)
	}
	if cluster == "" {
		return bad("the cluster has no id")
	}
	if slots < 1 || slots > core.MaxSlots {
		return bad("%d slots, want 1 to %d", slots, core.MaxSlots)
	}
	if err := checkReplicas(replicas); err != nil {
		return nil, fmt.Errorf("first map: %w", err)
	}
	now = now.Round(0).UTC()
	m := &core.Map{
		Cluster: cluster, Epoch: 1, Made: now, Replicas: replicas,
		Nodes: slices.Clone(nodes), Disks: slices.Clone(disks),
		Voters: slices.Clone(voters), OldVoters: slices.Clone(voters),
		Bus: 1, NextDisk: 1, NextBucket: 1,
		Slots: make(core.SlotTable, slots),
	}
	if err := initialMembers(m, now); err != nil {
		return nil, fmt.Errorf("first map: %w", err)
	}
	// Sorts the tables, which what follows relies on.
	if err := m.Seal(); err != nil {
		return nil, err
	}
	if err := checkVoters(m, voters); err != nil {
		return nil, fmt.Errorf("first map: %w", err)
	}
	p := New(m)
	for i := range m.Slots {
		row := core.Slot{Term: m.Epoch, Insync: p.Slot(core.SlotID(i), replicas)}
		if len(row.Insync) == 0 {
			return bad("no disk is ok on an active node")
		}
		m.Slots[i] = row
	}
	newOwnership(p, m.Slots).balanceAll(m.Slots)
	return m, m.Seal()
}

// initialMembers checks nodes and disks and fills in what they lack.
func initialMembers(m *core.Map, now time.Time) error {
	names := map[core.NodeID]bool{}
	for i := range m.Nodes {
		n := &m.Nodes[i]
		if err := n.ID.Validate(); err != nil {
			return err
		}
		if err := checkWeight(n.Weight); err != nil {
			return fmt.Errorf("node %s: %w", n.ID, err)
		}
		if names[n.ID] {
			return fmt.Errorf("node %s is named twice: %w", n.ID, core.ErrInvalid)
		}
		names[n.ID] = true
		if n.State == "" {
			n.State = core.NodeActive
		}
		n.Since = since(n.Since, now)
	}
	uuids, ids := map[string]bool{}, map[core.DiskID]bool{}
	for i := range m.Disks {
		k := &m.Disks[i]
		if k.UUID == "" || uuids[k.UUID] || k.ID != 0 && ids[k.ID] {
			return fmt.Errorf("disk %d %q: its UUID and number must be given once: %w", k.ID, k.UUID, core.ErrInvalid)
		}
		if !names[k.Node] {
			return fmt.Errorf("disk %s is on node %q, which is not given: %w", k.UUID, string(k.Node), core.ErrInvalid)
		}
		if err := checkWeight(k.Weight); err != nil {
			return fmt.Errorf("disk %s: %w", k.UUID, err)
		}
		uuids[k.UUID], ids[k.ID] = true, true
		if k.State == "" {
			k.State = core.DiskOK
		}
		k.Since = since(k.Since, now)
		m.NextDisk = max(m.NextDisk, k.ID+1)
	}
	for i := range m.Disks {
		if k := &m.Disks[i]; k.ID == 0 {
			k.ID = m.NextDisk
			m.NextDisk++
		}
	}
	return nil
}

func since(t, now time.Time) time.Time {
	if t.IsZero() {
		return now
	}
	return t.Round(0).UTC()
}
