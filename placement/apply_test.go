package placement

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

func TestInitial(t *testing.T) {
	m := initial(t, spec{nodes: 5, disks: 3, voters: 3})
	if m.Epoch != 1 || m.Prev != "" || m.Sum() == "" || m.Bus != 1 || m.NextDisk != 16 || m.NextBucket != 1 || !slices.Equal(m.Voters, m.OldVoters) {
		t.Errorf("epoch %d prev %q sum %q bus %d next disk %d next bucket %d voters %v %v",
			m.Epoch, m.Prev, m.Sum(), m.Bus, m.NextDisk, m.NextBucket, m.Voters, m.OldVoters)
	}
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if back, err := core.DecodeMap(b); err != nil || back.Sum() != m.Sum() {
		t.Errorf("the first map does not decode: %v", err)
	}
	for i, row := range m.Slots {
		if row.Term != 1 || len(row.Joining) != 0 {
			t.Fatalf("slot %d: %+v", i, row)
		}
		checkSpread(t, m, fmt.Sprint("slot ", i), row.Insync, 3, math.MaxInt)
	}
	if plan := Plan(m, t0, State{}); len(plan) != 0 {
		t.Errorf("there is something to do about a first map: %+v", plan[0])
	}
}

func TestInitialKeepsNumbers(t *testing.T) {
	n := []core.Node{{ID: "a"}}
	d := []core.Disk{{UUID: "x", Node: "a"}, {UUID: "y", Node: "a", ID: 7}, {UUID: "z", Node: "a"}}
	m, err := Initial("c", 8, 3, n, d, []core.Voter{{Node: "a", Key: "k"}}, t0)
	if err != nil {
		t.Fatal(err)
	}
	if m.Disk(7).UUID != "y" || m.Disk(8).UUID != "x" || m.Disk(9).UUID != "z" || m.NextDisk != 10 {
		t.Errorf("disks %+v, next %d", m.Disks, m.NextDisk)
	}
	if d[0].ID != 0 || n[0].State != "" {
		t.Error("the caller's tables were changed")
	}
}

func TestInitialRefuses(t *testing.T) {
	nodes := []core.Node{{ID: "a"}, {ID: "b"}}
	disks := []core.Disk{{UUID: "x", Node: "a"}, {UUID: "y", Node: "b"}}
	one := []core.Voter{{Node: "a", Key: "k"}}
	for name, f := range map[string]func() (*core.Map, error){
		"no cluster":  func() (*core.Map, error) { return Initial("", 8, 3, nodes, disks, one, t0) },
		"no slots":    func() (*core.Map, error) { return Initial("c", 0, 3, nodes, disks, one, t0) },
		"many slots":  func() (*core.Map, error) { return Initial("c", 1<<20+1, 3, nodes, disks, one, t0) },
		"no replicas": func() (*core.Map, error) { return Initial("c", 8, 0, nodes, disks, one, t0) },
		"no voters":   func() (*core.Map, error) { return Initial("c", 8, 3, nodes, disks, nil, t0) },
		"even voters": func() (*core.Map, error) {
			return Initial("c", 8, 3, nodes, disks, append(one, core.Voter{Node: "b", Key: "l"}), t0)
		},
		"foreign voter": func() (*core.Map, error) {
			return Initial("c", 8, 3, nodes, disks, []core.Voter{{Node: "q", Key: "k"}}, t0)
		},
		"no disks": func() (*core.Map, error) { return Initial("c", 8, 3, nodes, nil, one, t0) },
		"foreign disk": func() (*core.Map, error) {
			return Initial("c", 8, 3, nodes, []core.Disk{{UUID: "x", Node: "q"}}, one, t0)
		},
		"twin disks": func() (*core.Map, error) { return Initial("c", 8, 3, nodes, append(disks, disks[0]), one, t0) },
		"twin nodes": func() (*core.Map, error) { return Initial("c", 8, 3, append(nodes, nodes[0]), disks, one, t0) },
		"bad name": func() (*core.Map, error) {
			return Initial("c", 8, 3, append(nodes, core.Node{ID: "A"}), disks, one, t0)
		},
		"bad weight": func() (*core.Map, error) {
			return Initial("c", 8, 3, append(nodes, core.Node{ID: "c", Weight: -1}), disks, one, t0)
		},
	} {
		if m, err := f(); m != nil || err == nil || !errors.Is(err, core.ErrInvalid) && !errors.Is(err, core.ErrNotFound) {
			t.Errorf("%s: got %v, %v", name, m, err)
		}
	}
}

// Only a sealed map has a successor, and doing nothing makes none.
func TestApplyChain(t *testing.T) {
	m := initial(t, spec{nodes: 3, disks: 2, slots: 16})
	if next, errs := Apply(m, t0, nil); next != nil || len(errs) != 0 {
		t.Errorf("no changes: got %v, %v", next, errs)
	}
	if next, errs := Apply(m.Clone(), t0, []core.Change{{Kind: core.ChangeFail, Node: "n1"}}); next != nil || !errors.Is(errs[0], core.ErrInvalid) {
		t.Errorf("not sealed: got %v, %v", next, errs)
	}
	if next, err := apply1(t, m, core.Change{Kind: "dance"}); next != nil || !errors.Is(err, core.ErrInvalid) {
		t.Errorf("unknown kind: got %v, %v", next, err)
	}
	sum, b := m.Sum(), fmt.Sprintf("%+v", m)
	now := t0.In(time.FixedZone("x", 3600)).Add(time.Hour)
	next := apply(t, m, now, core.Change{Kind: core.ChangeFail, Node: "n1"}, core.Change{Kind: core.ChangeReplicas, Count: 2})
	if m.Sum() != sum || fmt.Sprintf("%+v", m) != b {
		t.Error("the old map was changed")
	}
	if !next.Made.Equal(now) || next.Made.Location() != time.UTC || next.Epoch != 2 || next.Replicas != 2 {
		t.Errorf("made %v, epoch %d, replicas %d", next.Made, next.Epoch, next.Replicas)
	}
}

func TestBoot(t *testing.T) {
	m := initial(t, spec{nodes: 5, disks: 1, slots: 16, state: func(i int) core.NodeState {
		return []core.NodeState{core.NodeActive, core.NodeJoining, core.NodeMaintenance, core.NodeDraining, core.NodeDecommissioned}[i]
	}})
	m = apply(t, m, t0, core.Change{Kind: core.ChangeFail, Node: "n1"})
	if s := m.Node("n1").State; s != core.NodeDown {
		t.Fatalf("n1 is %s, want down", s)
	}
	rows := fmt.Sprint(m.Slots)
	for i, want := range []core.NodeState{core.NodeActive, core.NodeActive, core.NodeMaintenance, core.NodeDraining, core.NodeDecommissioned} {
		n := nodeName(i)
		m = apply(t, m, t0.Add(time.Minute), core.Change{Kind: core.ChangeBoot, Node: n, Boot: 2, Nodes: []core.Node{{ID: n, Peer: "p", Client: "c", Bus: "b", Route: "r", Zone: "zz", Weight: 9}}})
		got := *m.Node(n)
		if got.State != want || got.Boot != 2 || got.Peer != "p" || got.Client != "c" || got.Bus != "b" || got.Route != "r" || got.Zone != "" || got.Weight != 0 {
			t.Errorf("%s: %+v, want state %s", n, got, want)
		}
		for _, b := range []uint64{0, 1, 2} {
			if _, err := apply1(t, m, core.Change{Kind: core.ChangeBoot, Node: n, Boot: b}); !errors.Is(err, core.ErrConflict) {
				t.Errorf("boot %d after 2: %v, want a conflict", b, err)
			}
		}
	}
	if got := fmt.Sprint(m.Slots); got != rows {
		t.Error("a boot changed the slot table")
	}
	if _, err := apply1(t, m, core.Change{Kind: core.ChangeBoot, Node: "n9", Boot: 1}); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("unknown node: %v", err)
	}
	if _, err := apply1(t, m, core.Change{Kind: core.ChangeBoot, Node: "n1", Boot: 9, Nodes: []core.Node{{ID: "n2"}}}); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("addresses of another node: %v", err)
	}
}

func TestAddNodeAndDisk(t *testing.T) {
	m := initial(t, spec{nodes: 2, disks: 2, slots: 16})
	add := func(id core.NodeID, disks ...core.Disk) core.Change {
		return core.Change{Kind: core.ChangeAddNode, Nodes: []core.Node{{ID: id, Boot: 4, State: core.NodeActive, Zone: "z"}}, Disks: disks}
	}
	m = apply(t, m, t0, add("n0", core.Disk{UUID: "a", ID: 99, Weight: 3, Name: "d1", State: core.DiskFailed}, core.Disk{UUID: "b"}))
	if n := m.Node("n0"); n.State != core.NodeJoining || n.Boot != 0 || n.Zone != "z" {
		t.Errorf("new node %+v", n)
	}
	if a, b := m.Disk(5), m.Disk(6); a.UUID != "a" || a.State != core.DiskOK || a.Node != "n0" || a.Weight != 3 || b.UUID != "b" || m.NextDisk != 7 {
		t.Errorf("new disks %+v %+v, next %d", a, b, m.NextDisk)
	}
	known := m.Disk(1).UUID
	for name, c := range map[string]struct {
		c    core.Change
		want error
	}{
		"known node":     {add("n1"), core.ErrExists},
		"known disk":     {add("n7", core.Disk{UUID: known}), core.ErrExists},
		"twin disks":     {add("n7", core.Disk{UUID: "q"}, core.Disk{UUID: "q"}), core.ErrInvalid},
		"no uuid":        {add("n7", core.Disk{}), core.ErrInvalid},
		"bad name":       {add("N7"), core.ErrInvalid},
		"weight":         {add("n7", core.Disk{UUID: "q", Weight: math.NaN()}), core.ErrInvalid},
		"no node":        {core.Change{Kind: core.ChangeAddNode}, core.ErrInvalid},
		"disk elsewhere": {core.Change{Kind: core.ChangeAddDisk, Node: "n0", Disks: []core.Disk{{UUID: known}}}, core.ErrExists},
		"move unknown":   {core.Change{Kind: core.ChangeAddDisk, Node: "n0", State: "move", Disks: []core.Disk{{UUID: "q"}}}, core.ErrNotFound},
		"to nowhere":     {core.Change{Kind: core.ChangeAddDisk, Node: "n7", Disks: []core.Disk{{UUID: "q"}}}, core.ErrNotFound},
		"no disk":        {core.Change{Kind: core.ChangeAddDisk, Node: "n0"}, core.ErrInvalid},
	} {
		if next, err := apply1(t, m, c.c); next != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	next, err := apply1(t, m, core.Change{Kind: core.ChangeAddDisk, Node: "n1", Disks: []core.Disk{{UUID: known, Name: m.Disk(1).Name}}})
	if next != nil || err != nil {
		t.Errorf("a known disk on its own node: got %v, %v", next, err)
	}
	m = apply(t, m, t0, core.Change{Kind: core.ChangeAddDisk, Node: "n1", Disks: []core.Disk{{UUID: "new"}}})
	if d := m.Disk(7); d.UUID != "new" || d.Node != "n1" || d.State != core.DiskOK {
		t.Errorf("new disk %+v", d)
	}

	// A disk moves with its number, its records and a new term for its rows.
	moved := apply(t, m, t0, core.Change{Kind: core.ChangeAddDisk, Node: "n0", State: "move", Disks: []core.Disk{{UUID: known, Name: "d9"}}})
	if d := moved.Disk(1); d.Node != "n0" || d.Name != "d9" || d.UUID != known {
		t.Errorf("moved disk %+v", d)
	}
	for i := range moved.Slots {
		if has := m.Slots[i].Has(1); has != (moved.Slots[i].Term == moved.Epoch) || !slices.Equal(m.Slots[i].Insync, moved.Slots[i].Insync) {
			t.Fatalf("slot %d: %+v -> %+v", i, m.Slots[i], moved.Slots[i])
		}
	}
}

func TestFailNode(t *testing.T) {
	m := withRows(t, initial(t, spec{nodes: 5, disks: 3}), func(rows core.SlotTable) {
		for i := range rows { // the order in which disks joined, not that of hashing
			slices.Reverse(rows[i].Insync[1:])
		}
	})
	owned := map[core.NodeID]int{}
	p := New(m)
	next := apply(t, m, t0, core.Change{Kind: core.ChangeFail, Node: "n3", State: "stop"})
	if n := next.Node("n3"); n.State != core.NodeDown || !n.Since.Equal(t0) {
		t.Errorf("n3 is %+v", n)
	}
	for i := range m.Slots {
		was, is := m.Slots[i], next.Slots[i]
		want := slices.DeleteFunc(slices.Clone(was.Insync), func(d core.DiskID) bool { return m.NodeOf(d) == "n3" })
		if !slices.Equal(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(is.Insync))) {
			t.Fatalf("slot %d: %v -> %v", i, was.Insync, is.Insync)
		}
		if m.NodeOf(was.Owner()) == "n3" {
			owned[next.NodeOf(is.Owner())]++
			first := slices.IndexFunc(p.Slot(core.SlotID(i), 3), func(d core.DiskID) bool { return slices.Contains(is.Insync, d) })
			if is.Owner() != p.Slot(core.SlotID(i), 3)[first] {
				t.Fatalf("slot %d: owner is %d of %v, hashing prefers %v", i, is.Owner(), is.Insync, p.Slot(core.SlotID(i), 3))
			}
		} else if is.Owner() != was.Owner() {
			t.Fatalf("slot %d changed its owner without need: %v -> %v", i, was.Insync, is.Insync)
		}
	}
	// The slots of the lost node are shared by the others.
	for n, k := range owned {
		if k < 150 || k > 260 {
			t.Errorf("%s got %d of the lost node's slots, want about 205: %v", n, k, owned)
		}
	}
	if len(owned) != 4 {
		t.Errorf("the lost node's slots went to %v", owned)
	}
	// It is no error to say it again, and changes nothing.
	if again, err := apply1(t, next, core.Change{Kind: core.ChangeFail, Node: "n3"}); again != nil || err != nil {
		t.Errorf("again: %v, %v", again, err)
	}
}

// A node on its way out becomes the owner only where there is no other.
func TestFailPromotesActiveNodes(t *testing.T) {
	m := initial(t, spec{nodes: 4, disks: 1, slots: 64, r: 3})
	m = apply(t, m, t0, core.Change{Kind: core.ChangeNodeState, Node: "n1", State: "draining"})
	m = apply(t, m, t0, core.Change{Kind: core.ChangeDiskState, Disk: 2, State: "detached"})
	next := apply(t, m, t0, core.Change{Kind: core.ChangeFail, Node: "n3"})
	promoted := 0
	for i, row := range next.Slots {
		if m.OwnerNode(core.SlotID(i)) != "n3" {
			continue
		}
		promoted++
		if want := slices.Contains(row.Insync, 4); want != (row.Owner() == 4) {
			t.Errorf("slot %d: owner %d of %v", i, row.Owner(), row.Insync)
		}
	}
	if promoted == 0 {
		t.Error("n3 owned nothing")
	}
}

func TestFailKeepsWhatTheOperatorWants(t *testing.T) {
	for _, s := range []core.NodeState{core.NodeMaintenance, core.NodeDraining, core.NodeDecommissioned} {
		m := initial(t, spec{nodes: 3, disks: 1, slots: 8})
		m = apply(t, m, t0, core.Change{Kind: core.ChangeNodeState, Node: "n2", State: string(s)})
		m = apply(t, m, t0, core.Change{Kind: core.ChangeFail, Node: "n2"})
		if got := m.Node("n2").State; got != s {
			t.Errorf("a failed node in %s is %s", s, got)
		}
		for i, row := range m.Slots {
			if row.Has(2) {
				t.Errorf("%s: slot %d still has its disk: %+v", s, i, row)
			}
		}
	}
}

// When all members of a row are gone it keeps them all, in one batch or in
// several, so that the first one to return can serve.
func TestFailOfAllMembers(t *testing.T) {
	m := initial(t, spec{nodes: 3, disks: 1, slots: 64})
	all := []core.Change{{Kind: core.ChangeFail, Node: "n1"}, {Kind: core.ChangeFail, Node: "n2"}, {Kind: core.ChangeFail, Node: "n3"}}
	gone := apply(t, m, t0, all...)
	for i := range m.Slots {
		if !slices.Equal(gone.Slots[i].Insync, m.Slots[i].Insync) || gone.Slots[i].Term != 1 {
			t.Fatalf("slot %d: %+v -> %+v", i, m.Slots[i], gone.Slots[i])
		}
	}
	// One of them returns: it alone owns the slots, once the others are
	// taken out, which the plan does.
	back := apply(t, gone, t0, core.Change{Kind: core.ChangeBoot, Node: "n2", Boot: 2})
	plan := Plan(back, t0.Add(time.Second), State{})
	if len(plan) != 2 || plan[0].Kind != core.ChangeFail || plan[1].Kind != core.ChangeFail {
		t.Fatalf("plan %+v, want n1 and n3 failed", plan)
	}
	back = apply(t, back, t0, plan...)
	for i, row := range back.Slots {
		if !slices.Equal(row.Insync, []core.DiskID{2}) {
			t.Fatalf("slot %d: %+v, want disk 2", i, row)
		}
	}

	// The same for disks, and for a disk and a node.
	disks := apply(t, m, t0, core.Change{Kind: core.ChangeFail, Disk: 1}, core.Change{Kind: core.ChangeDiskState, Disk: 2, State: "failed"}, core.Change{Kind: core.ChangeNodeState, Node: "n3", State: "down"})
	for i := range m.Slots {
		if !slices.Equal(disks.Slots[i].Insync, m.Slots[i].Insync) {
			t.Fatalf("slot %d: %+v -> %+v", i, m.Slots[i], disks.Slots[i])
		}
	}

	// One after the other: the last one stays.
	one := m
	for _, c := range all {
		one = apply(t, one, t0, c)
	}
	for i, row := range one.Slots {
		if !slices.Equal(row.Insync, []core.DiskID{3}) {
			t.Fatalf("slot %d: %+v, want disk 3", i, row)
		}
	}
}

func TestFailDisk(t *testing.T) {
	m := initial(t, spec{nodes: 2, disks: 2, slots: 64, r: 3})
	m = apply(t, m, t0, core.Change{Kind: core.ChangeDrop, Slot: 5, Term: 1, Boot: m.SlotBallot(5).Boot, Disk: m.Slots[5].Insync[2]})
	row := m.Slots[5]
	joins := func() core.DiskID {
		for d := core.DiskID(1); d <= 4; d++ {
			if !row.Has(d) {
				return d
			}
		}
		return 0
	}()
	m = apply(t, m, t0, core.Change{Kind: core.ChangeJoin, Slot: 5, Disk: joins})
	next := apply(t, m, t0, core.Change{Kind: core.ChangeFail, Disk: joins})
	if d := next.Disk(joins); d.State != core.DiskFailed || next.Node(d.Node).State != core.NodeActive {
		t.Errorf("disk %+v", d)
	}
	for i, r := range next.Slots {
		if r.Has(joins) {
			t.Errorf("slot %d still has it: %+v", i, r)
		}
	}
	if next.Slots[5].Joining != nil {
		t.Errorf("slot 5: %+v, want nothing joining", next.Slots[5])
	}
	viaState := apply(t, m, t0, core.Change{Kind: core.ChangeDiskState, Disk: joins, State: "failed"})
	if fmt.Sprint(viaState.Slots) != fmt.Sprint(next.Slots) {
		t.Error("a disk's state failed and its failure differ")
	}
	if _, err := apply1(t, m, core.Change{Kind: core.ChangeFail, Disk: 77}); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("unknown disk: %v", err)
	}
}

// Dropping and joining, and when they are void.
func TestDropAndJoined(t *testing.T) {
	m := initial(t, spec{nodes: 5, disks: 1, slots: 8})
	const s = core.SlotID(3)
	row := m.Slots[s]
	var outside []core.DiskID
	for d := core.DiskID(1); d <= 5; d++ {
		if !row.Has(d) {
			outside = append(outside, d)
		}
	}
	b := m.SlotBallot(s)
	drop := func(term core.Epoch, boot uint64, d core.DiskID) core.Change {
		return core.Change{Kind: core.ChangeDrop, Slot: s, Term: term, Boot: boot, Disk: d}
	}
	for name, c := range map[string]struct {
		c    core.Change
		want error
	}{
		"other term":    {drop(b.Term+1, b.Boot, row.Insync[1]), core.ErrConflict},
		"other boot":    {drop(b.Term, b.Boot+1, row.Insync[1]), core.ErrConflict},
		"the owner":     {drop(b.Term, b.Boot, row.Insync[0]), core.ErrInvalid},
		"not in row":    {drop(b.Term, b.Boot, outside[0]), core.ErrConflict},
		"no such slot":  {core.Change{Kind: core.ChangeDrop, Slot: 8}, core.ErrNotFound},
		"not joining":   {core.Change{Kind: core.ChangeJoined, Slot: s, Term: b.Term, Boot: b.Boot, Disk: outside[0]}, core.ErrConflict},
		"in sync":       {core.Change{Kind: core.ChangeJoined, Slot: s, Term: b.Term, Boot: b.Boot, Disk: row.Insync[1]}, core.ErrConflict},
		"join a member": {core.Change{Kind: core.ChangeJoin, Slot: s, Disk: row.Insync[1]}, core.ErrConflict},
		"join unknown":  {core.Change{Kind: core.ChangeJoin, Slot: s, Disk: 99}, core.ErrNotFound},
		"own it, late":  {core.Change{Kind: core.ChangeOwner, Slot: s, Term: b.Term + 1, Disk: row.Insync[1]}, core.ErrConflict},
		"own outside":   {core.Change{Kind: core.ChangeOwner, Slot: s, Term: b.Term, Disk: outside[0]}, core.ErrConflict},
	} {
		if next, err := apply1(t, m, c.c); next != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}

	// In a row with enough in-sync disks one may join at a time.
	j := apply(t, m, t0, core.Change{Kind: core.ChangeJoin, Slot: s, Disk: outside[0]})
	if _, err := apply1(t, j, core.Change{Kind: core.ChangeJoin, Slot: s, Disk: outside[1]}); !errors.Is(err, core.ErrConflict) {
		t.Errorf("a second join: %v, want a conflict", err)
	}
	// The owner's boot counts as of now, the term as of the last change.
	jb := j.SlotBallot(s)
	joined := core.Change{Kind: core.ChangeJoined, Slot: s, Term: jb.Term, Boot: jb.Boot, Disk: outside[0]}
	if jb.Term != j.Epoch {
		t.Fatalf("term %d, want %d", jb.Term, j.Epoch)
	}
	rebooted := apply(t, j, t0, core.Change{Kind: core.ChangeBoot, Node: j.OwnerNode(s), Boot: 9})
	if _, err := apply1(t, rebooted, joined); !errors.Is(err, core.ErrConflict) {
		t.Errorf("joined for an earlier boot: %v", err)
	}
	done := apply(t, j, t0, joined)
	if got, want := done.Slots[s].Insync, append(slices.Clone(row.Insync), outside[0]); !slices.Equal(got, want) || done.Slots[s].Joining != nil {
		t.Errorf("after joined: %+v, want in sync %v", done.Slots[s], want)
	}

	// Drop takes a joining disk too.
	undone := apply(t, j, t0, core.Change{Kind: core.ChangeDrop, Slot: s, Term: jb.Term, Boot: jb.Boot, Disk: outside[0]})
	if !slices.Equal(undone.Slots[s].Insync, row.Insync) || undone.Slots[s].Joining != nil {
		t.Errorf("after the drop of a joiner: %+v", undone.Slots[s])
	}

	// Nodes and disks on their way out are given nothing.
	for _, c := range []core.Change{
		{Kind: core.ChangeNodeState, Node: m.NodeOf(outside[0]), State: "draining"},
		{Kind: core.ChangeDiskState, Disk: outside[0], State: "detached"},
	} {
		if _, err := apply1(t, apply(t, m, t0, c), core.Change{Kind: core.ChangeJoin, Slot: s, Disk: outside[0]}); !errors.Is(err, core.ErrConflict) {
			t.Errorf("join after %s: %v, want a conflict", c.Kind, err)
		}
	}

	// Below R several may join at once.
	short := apply(t, m, t0, drop(b.Term, b.Boot, row.Insync[2]))
	short = apply(t, short, t0, core.Change{Kind: core.ChangeJoin, Slot: s, Disk: outside[0]}, core.Change{Kind: core.ChangeJoin, Slot: s, Disk: outside[1]})
	if len(short.Slots[s].Joining) != 2 {
		t.Errorf("below R: %+v, want two joining", short.Slots[s])
	}

	// An owner that is down has no say.
	down := j.Clone()
	down.Node(j.OwnerNode(s)).State = core.NodeDown
	if err := down.Seal(); err != nil {
		t.Fatal(err)
	}
	if _, err := apply1(t, down, joined); !errors.Is(err, core.ErrConflict) {
		t.Errorf("joined by an owner that is down: %v", err)
	}
	// Nor is it made an owner.
	lost := m.Clone()
	lost.Node(m.NodeOf(row.Insync[1])).State = core.NodeDown
	if err := lost.Seal(); err != nil {
		t.Fatal(err)
	}
	if _, err := apply1(t, lost, core.Change{Kind: core.ChangeOwner, Slot: s, Term: b.Term, Disk: row.Insync[1]}); !errors.Is(err, core.ErrConflict) {
		t.Errorf("ownership for a disk of a node that is down: %v", err)
	}

	own := apply(t, m, t0, core.Change{Kind: core.ChangeOwner, Slot: s, Term: b.Term, Disk: row.Insync[2]})
	if want := []core.DiskID{row.Insync[2], row.Insync[0], row.Insync[1]}; !slices.Equal(own.Slots[s].Insync, want) {
		t.Errorf("new owner: %v, want %v", own.Slots[s].Insync, want)
	}
}

// A row that an earlier change of the batch touched makes later ones void,
// whatever they name as term.
func TestBatchTouchesRowsOnce(t *testing.T) {
	m := initial(t, spec{nodes: 5, disks: 1, slots: 8})
	const s = core.SlotID(3)
	row, b := m.Slots[s], m.SlotBallot(s)
	d1 := core.Change{Kind: core.ChangeDrop, Slot: s, Term: b.Term, Boot: b.Boot, Disk: row.Insync[1]}
	d2 := core.Change{Kind: core.ChangeDrop, Slot: s, Term: b.Term, Boot: b.Boot, Disk: row.Insync[2]}
	d3 := d2
	d3.Term = m.Epoch + 1
	owner := core.Change{Kind: core.ChangeOwner, Slot: s, Term: b.Term, Disk: row.Insync[2]}
	next, errs := Apply(m, t0, []core.Change{d1, d2, d3, owner})
	if errs[0] != nil || !errors.Is(errs[1], core.ErrConflict) || !errors.Is(errs[2], core.ErrConflict) || !errors.Is(errs[3], core.ErrConflict) {
		t.Errorf("errors %v", errs)
	}
	if want := []core.DiskID{row.Insync[0], row.Insync[2]}; !slices.Equal(next.Slots[s].Insync, want) {
		t.Errorf("in sync %v, want %v", next.Slots[s].Insync, want)
	}
	// A failure before it does so too; one that leaves the row alone does not.
	other := core.NodeID("")
	for i := range m.Nodes {
		if !row.Has(m.Disks[i].ID) {
			other = m.Disks[i].Node
		}
	}
	_, errs = Apply(m, t0, []core.Change{{Kind: core.ChangeFail, Node: m.NodeOf(row.Insync[2])}, d1})
	if !errors.Is(errs[1], core.ErrConflict) {
		t.Errorf("drop after a failure in the row: %v, want a conflict", errs[1])
	}
	_, errs = Apply(m, t0, []core.Change{{Kind: core.ChangeFail, Node: other}, d1})
	if errs[1] != nil {
		t.Errorf("drop after a failure elsewhere: %v", errs[1])
	}
}

func TestStatesAndWeights(t *testing.T) {
	m := initial(t, spec{nodes: 3, disks: 2, slots: 8})
	w, z := 2.5, "zone-b"
	m = apply(t, m, t0,
		core.Change{Kind: core.ChangeWeight, Node: "n1", Weight: &w, Zone: &z},
		core.Change{Kind: core.ChangeWeight, Disk: 3, Weight: &w},
		core.Change{Kind: core.ChangeNodeState, Node: "n2", State: "maintenance"},
		core.Change{Kind: core.ChangeDiskState, Disk: 5, State: "detached"})
	if n := m.Node("n1"); n.Weight != w || n.Zone != z {
		t.Errorf("n1 %+v", n)
	}
	if m.Disk(3).Weight != w || m.Node("n2").State != core.NodeMaintenance || m.Disk(5).State != core.DiskDetached {
		t.Errorf("disks %+v nodes %+v", m.Disks, m.Nodes)
	}
	again, err := apply1(t, m, core.Change{Kind: core.ChangeNodeState, Node: "n2", State: "maintenance"})
	if again != nil || err != nil {
		t.Errorf("the same state again: %v, %v", again, err)
	}
	zero, nan, two := 0.0, math.NaN(), "a b"
	for name, c := range map[string]struct {
		c    core.Change
		want error
	}{
		"zero weight":    {core.Change{Kind: core.ChangeWeight, Node: "n1", Weight: &zero}, core.ErrInvalid},
		"no weight":      {core.Change{Kind: core.ChangeWeight, Disk: 1, Weight: &nan}, core.ErrInvalid},
		"zone of a disk": {core.Change{Kind: core.ChangeWeight, Disk: 1, Zone: &z}, core.ErrInvalid},
		"zone of two":    {core.Change{Kind: core.ChangeWeight, Node: "n1", Weight: &w, Zone: &two}, core.ErrInvalid},
		"unknown node":   {core.Change{Kind: core.ChangeWeight, Node: "n8", Weight: &w}, core.ErrNotFound},
		"unknown disk":   {core.Change{Kind: core.ChangeWeight, Disk: 80, Weight: &w}, core.ErrNotFound},
		"node state":     {core.Change{Kind: core.ChangeNodeState, Node: "n1", State: "asleep"}, core.ErrInvalid},
		"disk state":     {core.Change{Kind: core.ChangeDiskState, Disk: 1, State: "asleep"}, core.ErrInvalid},
		"replicas 0":     {core.Change{Kind: core.ChangeReplicas}, core.ErrInvalid},
		"replicas 11":    {core.Change{Kind: core.ChangeReplicas, Count: 11}, core.ErrInvalid},
	} {
		if next, err := apply1(t, m, c.c); next != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

func TestVoters(t *testing.T) {
	m := initial(t, spec{nodes: 5, disks: 1, slots: 8})
	three := []core.Voter{{Node: "n1", Key: "key0"}, {Node: "n2", Key: "b"}, {Node: "n3", Key: "c"}}
	next := apply(t, m, t0, core.Change{Kind: core.ChangeVoters, Voters: three})
	if next.Bus != 2 || !slices.Equal(next.OldVoters, m.Voters) || !slices.Equal(next.Voters, three) {
		t.Errorf("bus %d, voters %v, old %v", next.Bus, next.Voters, next.OldVoters)
	}
	after := apply(t, next, t0, core.Change{Kind: core.ChangeReplicas, Count: 4})
	if !slices.Equal(after.OldVoters, three) || after.Bus != 2 {
		t.Errorf("the map after: old voters %v, bus %d", after.OldVoters, after.Bus)
	}
	same := []core.Voter{three[2], three[0], three[1]}
	if again, err := apply1(t, after, core.Change{Kind: core.ChangeVoters, Voters: same}); again != nil || err != nil {
		t.Errorf("the same voters: %v, %v", again, err)
	}
	for name, c := range map[string]struct {
		v    []core.Voter
		want error
	}{
		"none": {nil, core.ErrInvalid}, "even": {three[:2], core.ErrInvalid},
		"unknown": {[]core.Voter{{Node: "n9", Key: "k"}}, core.ErrNotFound},
		"no key":  {[]core.Voter{{Node: "n1"}}, core.ErrInvalid},
		"twin":    {[]core.Voter{three[0], three[0], three[1]}, core.ErrInvalid},
	} {
		if _, err := apply1(t, m, core.Change{Kind: core.ChangeVoters, Voters: c.v}); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

func bucket(name, scheme string, d core.Domain) *core.Bucket {
	u, err := core.ParseURI(name)
	if err != nil {
		panic(err)
	}
	return &core.Bucket{Name: u.Bucket, Policy: policy(scheme, d)}
}

func TestBuckets(t *testing.T) {
	m := initial(t, spec{nodes: 5, disks: 3, slots: 8})
	add := func(name, scheme string) core.Change {
		return core.Change{Kind: core.ChangeAddBucket, Bucket: bucket(name, scheme, core.DomainNode)}
	}
	m = apply(t, m, t0, add("data", "mirror-2"), add("s3://data", "ec-4+2"), add("s3://raw", "ec-2+3"))
	a, b, c := m.Bucket(1), m.Bucket(2), m.Bucket(3)
	if a.Alias != "data" || b.Alias != "s3--data" || c.Alias != "raw" || m.NextBucket != 4 {
		t.Errorf("aliases %q %q %q, next %d", a.Alias, b.Alias, c.Alias, m.NextBucket)
	}
	if a.State != core.BucketOK || b.State != core.BucketOK || c.State != core.BucketCreating || !a.Created.Equal(t0) {
		t.Errorf("states %s %s %s, created %v", a.State, b.State, c.State, a.Created)
	}

	clash := add("other", "none")
	clash.Bucket.Alias = "raw"
	set := func(id core.BucketID, f func(*core.Bucket)) core.Change {
		b := *m.Bucket(id)
		f(&b)
		return core.Change{Kind: core.ChangeSetBucket, Bucket: &b}
	}
	settings := func(c core.Change, s core.RemoteSettings) core.Change {
		c.Bucket.Remote = s
		return c
	}
	for name, c := range map[string]struct {
		c    core.Change
		want error
	}{
		"name":            {add("data", "none"), core.ErrExists},
		"alias":           {clash, core.ErrExists},
		"bad name":        {core.Change{Kind: core.ChangeAddBucket, Bucket: &core.Bucket{Name: core.BucketName{Provider: core.S3, Name: "A"}, Policy: policy("none", core.DomainNode)}}, core.ErrInvalid},
		"provider":        {core.Change{Kind: core.ChangeAddBucket, Bucket: &core.Bucket{Name: core.BucketName{Provider: "ftp", Name: "abc"}, Policy: policy("none", core.DomainNode)}}, core.ErrInvalid},
		"origin":          {core.Change{Kind: core.ChangeAddBucket, Bucket: &core.Bucket{Name: core.BucketName{Provider: core.HTTP, Name: "H:80"}, Policy: policy("none", core.DomainNode)}}, core.ErrInvalid},
		"settings, own":   {settings(add("own", "none"), core.RemoteSettings{Endpoint: "http://h"}), core.ErrInvalid},
		"settings, bad":   {settings(add("s3://abc", "none"), core.RemoteSettings{Endpoint: "h"}), core.ErrInvalid},
		"settings, set":   {set(1, func(b *core.Bucket) { b.Remote.Region = "eu" }), core.ErrInvalid},
		"too wide":        {add("wide", "mirror-6"), core.ErrInvalid},
		"inline":          {core.Change{Kind: core.ChangeAddBucket, Bucket: &core.Bucket{Name: core.BucketName{Provider: core.Shoal, Name: "heavy"}, Policy: core.Policy{Domain: core.DomainNode, Inline: core.MaxInline + 1}}}, core.ErrInvalid},
		"no domain":       {core.Change{Kind: core.ChangeAddBucket, Bucket: bucket("nodomain", "none", "")}, core.ErrInvalid},
		"nothing":         {core.Change{Kind: core.ChangeAddBucket}, core.ErrInvalid},
		"unknown":         {core.Change{Kind: core.ChangeSetBucket, Bucket: &core.Bucket{ID: 9}}, core.ErrNoSuchBucket},
		"unknown, found":  {core.Change{Kind: core.ChangeSetBucket, Bucket: &core.Bucket{ID: 9}}, core.ErrNotFound},
		"alias taken":     {set(1, func(b *core.Bucket) { b.Alias = "raw" }), core.ErrExists},
		"state":           {set(1, func(b *core.Bucket) { b.State = "asleep" }), core.ErrInvalid},
		"etag":            {set(1, func(b *core.Bucket) { b.Policy.ETag = "sha1" }), core.ErrInvalid},
		"remove ok":       {core.Change{Kind: core.ChangeRemoveBucket, Bucket: &core.Bucket{ID: 1}}, core.ErrConflict},
		"fewer replicas":  {core.Change{Kind: core.ChangeReplicas, Count: 2}, core.ErrConflict},
		"state, outdated": {core.Change{Kind: core.ChangeSetBucket, Bucket: &core.Bucket{ID: 3, State: core.BucketOK}, State: "ok"}, core.ErrConflict},
	} {
		if next, err := apply1(t, m, c.c); next != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}

	// Settings of remote buckets come and go; every change of them is one.
	there := core.RemoteSettings{Endpoint: "http://127.0.0.1:9000", PathStyle: true}
	remote := apply(t, m, t0, settings(add("gs://a_b", "none"), core.RemoteSettings{Anonymous: true}), set(3, func(b *core.Bucket) { b.Remote = there }))
	if r := remote.Bucket(4); r.Alias[:8] != "gs--a-b-" || !r.Remote.Anonymous || remote.Bucket(3).Remote != there || remote.Bucket(3).Policy != c.Policy {
		t.Errorf("remote settings: %+v", remote.Buckets)
	}
	if back := apply(t, remote, t0, set(3, func(b *core.Bucket) { b.Remote = core.RemoteSettings{} })); back.Bucket(3).Remote != (core.RemoteSettings{}) || back.Bucket(3).Policy != c.Policy {
		t.Errorf("settings taken back: %+v", back.Bucket(3))
	}

	// A wider policy waits for the replicas that it needs, a state is kept
	// where none is given, and name and creation time stay.
	wider := apply(t, m, t0.Add(time.Hour), set(1, func(b *core.Bucket) {
		b.Policy, b.State, b.Name.Name, b.Created = policy("mirror-4", core.DomainNode), "", "x", time.Time{}
	}))
	if b := wider.Bucket(1); b.State != core.BucketCreating || b.Policy.Scheme.M != 3 || b.Name.Name != "data" || !b.Created.Equal(t0) {
		t.Errorf("wider policy: %+v", b)
	}

	// What is in the map is what is read back from it.
	zero := apply(t, m, t0, core.Change{Kind: core.ChangeAddBucket, Bucket: &core.Bucket{Name: core.BucketName{Provider: core.Shoal, Name: "zero"}, Policy: core.Policy{Domain: core.DomainNode}}})
	enc, err := zero.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if back, err := core.DecodeMap(enc); err != nil || !reflect.DeepEqual(back, zero) {
		t.Errorf("read back: %v\ngot  %+v\nwant %+v", err, back.Buckets, zero.Buckets)
	}

	// Removal goes through deleting; the name gets a new number afterwards.
	gone := apply(t, m, t0, set(1, func(b *core.Bucket) { b.State = core.BucketDeleting }))
	gone = apply(t, gone, t0, core.Change{Kind: core.ChangeRemoveBucket, Bucket: &core.Bucket{Name: m.Bucket(1).Name}})
	if gone.Bucket(1) != nil || len(gone.Buckets) != 2 || gone.Bucket(2) == nil {
		t.Errorf("after removal: %+v", gone.Buckets)
	}
	gone = apply(t, gone, t0, add("data", "none"))
	if b := gone.BucketNamed(m.Bucket(1).Name); b.ID != 4 {
		t.Errorf("created again: %+v, want number 4", b)
	}
}

// Random batches of anything, sane or not, keep the promises of Apply; those
// are checked by checkSuccessor.
func TestApplyRandomBatches(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 3))
		m := initial(t, spec{nodes: 1 + r.IntN(6), disks: 1 + r.IntN(3), zones: r.IntN(3), slots: 32, r: 1 + r.IntN(4)})
		now, void, good := t0, 0, 0
		for range 60 {
			now = now.Add(time.Duration(r.IntN(40)) * time.Second)
			batch := make([]core.Change, 1+r.IntN(8))
			for i := range batch {
				batch[i] = randomChange(r, m)
			}
			next, errs := Apply(m, now, batch)
			for i, err := range errs {
				if err == nil {
					good++
					continue
				}
				void++
				if !errors.Is(err, core.ErrConflict) && !errors.Is(err, core.ErrInvalid) && !errors.Is(err, core.ErrNotFound) && !errors.Is(err, core.ErrExists) {
					t.Fatalf("seed %d: %+v: error of no known kind: %v", seed, batch[i], err)
				}
			}
			if next != nil {
				checkSuccessor(t, m, next)
				m = next
			}
		}
		if void == 0 || good == 0 {
			t.Fatalf("seed %d: %d void and %d good changes", seed, void, good)
		}
	}
}

func randomChange(r *rand.Rand, m *core.Map) core.Change {
	node := nodeName(r.IntN(len(m.Nodes) + 1))
	disk := core.DiskID(r.IntN(int(m.NextDisk) + 1))
	slot := core.SlotID(r.IntN(len(m.Slots) + 1))
	w := float64(r.IntN(5))
	c := core.Change{Node: node}
	var b core.Ballot
	if int(slot) < len(m.Slots) {
		b = m.SlotBallot(slot)
		if row := m.Slots[slot]; r.IntN(3) > 0 {
			l := append(slices.Clone(row.Insync), row.Joining...)
			disk = l[r.IntN(len(l))]
		}
	}
	states := []core.NodeState{core.NodeActive, core.NodeMaintenance, core.NodeDraining, core.NodeDown, core.NodeJoining, core.NodeDecommissioned}
	switch r.IntN(15) {
	case 0:
		return core.Change{Kind: core.ChangeBoot, Node: node, Boot: uint64(r.IntN(60))}
	case 1:
		n, d := makeNode(r.IntN(12), spec{disks: 1 + r.IntN(2)})
		return core.Change{Kind: core.ChangeAddNode, Nodes: []core.Node{n}, Disks: d}
	case 2:
		c.Kind, c.Disks = core.ChangeAddDisk, []core.Disk{{UUID: uuid(r.IntN(8), r.IntN(4), 0), Name: "d"}}
		if r.IntN(2) == 0 {
			c.State = "move"
		}
	case 3, 4:
		c.Kind = core.ChangeFail
	case 5:
		c.Kind, c.Disk = core.ChangeFail, disk
	case 6, 7:
		c = core.Change{Kind: core.ChangeDrop, Slot: slot, Term: b.Term, Boot: b.Boot, Disk: disk}
	case 8:
		c = core.Change{Kind: core.ChangeJoin, Slot: slot, Disk: disk}
	case 9, 10:
		c = core.Change{Kind: core.ChangeJoined, Slot: slot, Term: b.Term, Boot: b.Boot, Disk: disk}
	case 11:
		c = core.Change{Kind: core.ChangeOwner, Slot: slot, Term: b.Term, Disk: disk}
	case 12:
		c.Kind, c.State = core.ChangeNodeState, string(states[r.IntN(len(states))])
	case 13:
		c = core.Change{Kind: core.ChangeDiskState, Disk: disk, State: []string{"ok", "failed", "detached", "new"}[r.IntN(4)]}
	case 14:
		c.Kind, c.Weight = core.ChangeWeight, &w
	}
	return c
}

func BenchmarkApplyFail(b *testing.B) {
	m := initial(b, spec{nodes: 5, disks: 3})
	for b.Loop() {
		Apply(m, t0, []core.Change{{Kind: core.ChangeFail, Node: "n2"}})
	}
}
