package placement

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

// atTarget says that every row is what rendezvous hashing wants, and that
// owners are balanced.
func atTarget(t *testing.T, what string, m *core.Map) {
	t.Helper()
	p := New(m)
	for i, row := range m.Slots {
		want := slices.Sorted(slices.Values(p.Slot(core.SlotID(i), m.Replicas)))
		got := slices.Sorted(slices.Values(row.Insync))
		if !slices.Equal(got, want) || len(row.Joining) > 0 {
			t.Fatalf("%s: slot %d: in sync %v, joining %v, want %v", what, i, got, row.Joining, want)
		}
	}
}

// ownersBalanced holds the 10 % rule, for clusters whose rows leave a choice.
func ownersBalanced(t *testing.T, what string, m *core.Map) {
	t.Helper()
	o := newOwnership(New(m), m.Slots)
	for i := range m.Nodes {
		if o.far(i) {
			t.Errorf("%s: %s owns %v slots, its share is %.0f", what, m.Nodes[i].ID, o.load[i], o.quota[i])
		}
	}
}

func moved(t *testing.T, what string, from, to *core.Map) Moves {
	t.Helper()
	mv := Movement(from, to)
	t.Logf("%s: %d members moved, minimum %d", what, mv.Moved, mv.Minimum)
	if float64(mv.Moved) > 1.05*float64(mv.Minimum) {
		t.Errorf("%s: %d members moved, over 1.05 x %d", what, mv.Moved, mv.Minimum)
	}
	return mv
}

func TestMovement(t *testing.T) {
	table := func(rows ...[]core.DiskID) *core.Map {
		m := &core.Map{}
		for _, r := range rows {
			m.Slots = append(m.Slots, core.Slot{Insync: r})
		}
		return m
	}
	a := table([]core.DiskID{1, 2}, []core.DiskID{2, 3}, []core.DiskID{3, 1})
	for _, c := range []struct {
		to   *core.Map
		want Moves
	}{
		{a, Moves{0, 0}},
		{table([]core.DiskID{2, 1}, []core.DiskID{3, 2}, []core.DiskID{1, 3}), Moves{0, 0}},
		{table([]core.DiskID{1, 4}, []core.DiskID{2, 3}, []core.DiskID{3, 1}), Moves{1, 1}},
		{table([]core.DiskID{1, 3}, []core.DiskID{2, 1}, []core.DiskID{3, 2}), Moves{3, 0}},
		{table([]core.DiskID{1, 2, 4}, []core.DiskID{2, 3, 4}, []core.DiskID{3, 1}), Moves{2, 2}},
	} {
		if got := Movement(a, c.to); got != c.want {
			t.Errorf("%v -> %v: got %+v, want %+v", a.Slots, c.to.Slots, got, c.want)
		}
	}
}

// A node goes, and after the grace its slots are rebuilt elsewhere; it
// returns, and gets exactly its own slots back.
func TestPlanNodeLostAndBack(t *testing.T) {
	const slots = 1024
	start := initial(t, spec{nodes: 5, disks: 3, slots: slots})
	silent := State{Silent: []core.NodeID{"n2"}}
	m, _ := settle(t, start, t0, silent)
	if m.Node("n2").State != core.NodeDown {
		t.Fatalf("n2 is %s", m.Node("n2").State)
	}
	members := 0
	for i, row := range m.Slots {
		members += len(row.Insync)
		if len(row.Joining) > 0 {
			t.Fatalf("slot %d: %v joins within the grace", i, row.Joining)
		}
	}
	if again := Plan(m, t0.Add(59*time.Second), silent); len(again) != 0 {
		t.Fatalf("within the grace: %+v", again[0])
	}
	if members >= 3*slots {
		t.Fatal("nothing was lost")
	}

	// Back within the grace: only its own slots join again.
	back := apply(t, m, t0.Add(30*time.Second), core.Change{Kind: core.ChangeBoot, Node: "n2", Boot: 2})
	back, steps := settle(t, back, t0.Add(30*time.Second), State{})
	atTarget(t, "back within the grace", back)
	ownersBalanced(t, "back within the grace", back)
	t.Logf("back within the grace: %d steps", steps)
	mv := moved(t, "back within the grace", m, back)
	if mv.Moved != 3*slots-members {
		t.Errorf("%d members moved, %d were missing", mv.Moved, 3*slots-members)
	}

	// Gone for good: everybody takes a part.
	late := t0.Add(61 * time.Second)
	healed, steps := settle(t, m, late, silent)
	atTarget(t, "healed", healed)
	ownersBalanced(t, "healed", healed)
	t.Logf("healed: %d steps", steps)
	if mv := moved(t, "healed", m, healed); mv.Moved != 3*slots-members {
		t.Errorf("%d members moved, %d were missing", mv.Moved, 3*slots-members)
	}

	// And returns: the table is what it was.
	late = late.Add(time.Hour)
	again := apply(t, healed, late, core.Change{Kind: core.ChangeBoot, Node: "n2", Boot: 2})
	again, steps = settle(t, again, late, State{})
	atTarget(t, "back", again)
	ownersBalanced(t, "back", again)
	t.Logf("back: %d steps", steps)
	moved(t, "back", healed, again)
	if mv := Movement(start, again); mv.Moved != 0 {
		t.Errorf("%d members are elsewhere than at first", mv.Moved)
	}
}

// Each single change of the cluster moves at most 1.05 times the minimum.
func TestPlanMovesLittle(t *testing.T) {
	two, third := 2.0, 1.0/3
	newNode, newDisks := makeNode(5, spec{disks: 3, zones: 2})
	for _, c := range []struct {
		name    string
		changes []core.Change
	}{
		{"add a node", []core.Change{{Kind: core.ChangeAddNode, Nodes: []core.Node{newNode}, Disks: newDisks}, {Kind: core.ChangeBoot, Node: newNode.ID, Boot: 1}}},
		{"add a disk", []core.Change{{Kind: core.ChangeAddDisk, Node: "n4", Disks: newDisks[:1]}}},
		{"drain a node", []core.Change{{Kind: core.ChangeNodeState, Node: "n4", State: "draining"}}},
		{"lose a disk", []core.Change{{Kind: core.ChangeFail, Disk: 7}}},
		{"detach a disk", []core.Change{{Kind: core.ChangeDiskState, Disk: 7, State: "detached"}}},
		{"double a node's weight", []core.Change{{Kind: core.ChangeWeight, Node: "n1", Weight: &two}}},
		{"a third of a node's weight", []core.Change{{Kind: core.ChangeWeight, Node: "n1", Weight: &third}}},
		{"double a disk's weight", []core.Change{{Kind: core.ChangeWeight, Disk: 2, Weight: func() *float64 { w := 200.0; return &w }()}}},
		{"one replica more", []core.Change{{Kind: core.ChangeReplicas, Count: 4}}},
		{"one replica less", []core.Change{{Kind: core.ChangeReplicas, Count: 2}}},
	} {
		for _, zones := range []int{0, 2} {
			m := initial(t, spec{nodes: 5, disks: 3, zones: zones, slots: 1024})
			what := fmt.Sprintf("%s, %d zones", c.name, zones)
			changed := m
			for _, ch := range c.changes {
				if ch.Kind == core.ChangeAddNode && zones == 0 {
					ch.Nodes = []core.Node{{ID: newNode.ID}}
				}
				changed = apply(t, changed, t0, ch)
			}
			least := len(m.Nodes) // in-sync disks of any row on the way
			next, steps := changed, 0
			for {
				plan := Plan(next, t0, State{})
				checkPlan(t, next, plan)
				after := level(t, apply(t, next, t0, plan...), t0, nil)
				for i := range after.Slots {
					least = min(least, len(after.Slots[i].Insync))
				}
				if after == next {
					break
				}
				next = after
				steps++
			}
			atTarget(t, what, next)
			ownersBalanced(t, what, next)
			moved(t, fmt.Sprintf("%s (%d steps)", what, steps), m, next)
			if want := min(m.Replicas, changed.Replicas); c.name != "lose a disk" && least < want {
				t.Errorf("%s: a row was down to %d in-sync disks, want %d throughout", what, least, want)
			}
		}
	}
}

// No disk is joined by more slots at a time than allowed, and the rows with
// the fewest members come first.
func TestPlanLimitsJoins(t *testing.T) {
	m := initial(t, spec{nodes: 4, disks: 1, slots: 512})
	m = apply(t, m, t0, core.Change{Kind: core.ChangeFail, Node: "n1"})
	// Some rows are worse off.
	var drops []core.Change
	for i := 0; i < 512; i += 16 {
		b := m.SlotBallot(core.SlotID(i))
		if row := m.Slots[i]; len(row.Insync) == 2 {
			drops = append(drops, core.Change{Kind: core.ChangeDrop, Slot: core.SlotID(i), Term: b.Term, Boot: b.Boot, Disk: row.Insync[1]})
		}
	}
	m = apply(t, m, t0, drops...)
	now := t0.Add(time.Hour)
	for step := 0; ; step++ {
		plan := Plan(m, now, State{MaxJoins: 7})
		before := 0
		for _, c := range plan {
			if k := len(m.Slots[c.Slot].Insync); c.Kind == core.ChangeJoin {
				if step == 0 && (before == 0 && k != 1 || k < before) {
					t.Errorf("a row with %d members is joined after one with %d", k, before)
				}
				before = k
			}
		}
		m = apply(t, m, now, plan...)
		joins := map[core.DiskID]int{}
		for _, row := range m.Slots {
			for _, d := range row.Joining {
				joins[d]++
			}
		}
		for d, n := range joins {
			if n > 7 {
				t.Fatalf("step %d: %d slots join disk %d, at most 7 allowed", step, n, d)
			}
		}
		if more := Plan(m, now, State{MaxJoins: 7}); slices.ContainsFunc(more, func(c core.Change) bool { return c.Kind == core.ChangeJoin }) {
			t.Fatalf("step %d: a second plan joins more: %+v", step, more)
		}
		if len(joins) == 0 {
			break
		}
		m = level(t, m, now, nil)
	}
	atTarget(t, "joined", m)
}

// With one member left a row does not wait for the grace if a node can help.
func TestPlanDoesNotWaitWithOneCopyLeft(t *testing.T) {
	m := initial(t, spec{nodes: 5, disks: 2, slots: 256})
	m = apply(t, m, t0, core.Change{Kind: core.ChangeAddBucket, Bucket: bucket("none", "none", core.DomainNode)})
	s := State{Silent: []core.NodeID{"n1", "n2"}}
	m = apply(t, m, t0, Plan(m, t0, s)...)
	short := map[core.SlotID]bool{}
	for i, row := range m.Slots {
		if len(row.Insync) == 1 {
			short[core.SlotID(i)] = true
		}
	}
	if len(short) == 0 {
		t.Fatal("no row lost two members")
	}
	// After the grace they get both disks that they lack at once.
	joins := map[core.SlotID]int{}
	for _, c := range Plan(m, t0.Add(time.Hour), State{MaxJoins: 1000}) {
		joins[c.Slot]++
	}
	for i := range m.Slots {
		if got, want := joins[core.SlotID(i)], 3-len(m.Slots[i].Insync); got != want {
			t.Fatalf("slot %d: %d disks join %v, want %d", i, got, m.Slots[i].Insync, want)
		}
	}
	joining := apply(t, m, t0.Add(time.Second), Plan(m, t0.Add(time.Second), s)...)
	if more := Plan(joining, t0.Add(time.Second), s); joining == m || len(more) != 0 {
		t.Fatalf("a second plan, with epoch %d after %d: %+v", joining.Epoch, m.Epoch, more)
	}
	joined := m.Epoch
	m, _ = settle(t, m, t0.Add(time.Second), s)
	for i, row := range m.Slots {
		if short[core.SlotID(i)] != (len(row.Insync) == 2 && row.Term > joined) || len(row.Insync) < 2 {
			t.Fatalf("slot %d: %+v; was short: %v", i, row, short[core.SlotID(i)])
		}
	}
	// The nodes return, and the table is as at first.
	now := t0.Add(20 * time.Second)
	m = apply(t, m, now, core.Change{Kind: core.ChangeBoot, Node: "n1", Boot: 2}, core.Change{Kind: core.ChangeBoot, Node: "n2", Boot: 2})
	m, _ = settle(t, m, now, State{})
	atTarget(t, "back", m)

	// Where no other node can help, the node is waited for.
	two := initial(t, spec{nodes: 2, disks: 2, slots: 64})
	two = apply(t, two, t0, core.Change{Kind: core.ChangeFail, Node: "n2"})
	if plan := Plan(two, t0.Add(time.Second), State{}); len(plan) != 0 {
		t.Errorf("two nodes, one down: %+v", plan[0])
	}
	two, _ = settle(t, two, t0.Add(2*time.Minute), State{})
	atTarget(t, "one node of two", two)
}

// A bucket whose writes need three nodes in a row does not wait for the grace.
func TestPlanDoesNotWaitWhereWritesWould(t *testing.T) {
	m := initial(t, spec{nodes: 5, disks: 2, slots: 64, r: 4})
	m = apply(t, m, t0, core.Change{Kind: core.ChangeAddBucket, Bucket: bucket("wide", "ec-4+3", core.DomainNode)})
	m = apply(t, m, t0, core.Change{Kind: core.ChangeFail, Node: "n1"})
	if plan := Plan(m, t0, State{}); len(plan) != 0 {
		t.Fatalf("three nodes are enough: %+v", plan[0])
	}
	m = apply(t, m, t0, core.Change{Kind: core.ChangeFail, Node: "n2"})
	m, _ = settle(t, m, t0, State{})
	for i, row := range m.Slots {
		nodes := map[core.NodeID]bool{}
		for _, d := range row.Insync {
			nodes[m.NodeOf(d)] = true
		}
		if len(nodes) < 3 {
			t.Fatalf("slot %d: %v spans %d nodes, want 3", i, row.Insync, len(nodes))
		}
	}
}

func TestPlanFailsOnlyWhatItMust(t *testing.T) {
	m := initial(t, spec{nodes: 5, disks: 1, slots: 64})
	fails := func(m *core.Map, silent ...core.NodeID) (out []string) {
		for _, c := range Plan(m, t0, State{Silent: silent}) {
			if c.Kind == core.ChangeFail {
				out = append(out, fmt.Sprintf("%s/%d", c.Node, c.Disk))
			}
		}
		return out
	}
	if got := fails(m, "n9"); len(got) != 0 {
		t.Errorf("an unknown node is silent: %v", got)
	}
	if got := fails(m, "n4", "n2"); !slices.Equal(got, []string{"n2/0", "n4/0"}) {
		t.Errorf("two active nodes are silent: %v", got)
	}
	drain := apply(t, m, t0, core.Change{Kind: core.ChangeNodeState, Node: "n2", State: "draining"})
	if got := fails(drain, "n2"); !slices.Equal(got, []string{"n2/0"}) {
		t.Errorf("a draining node with slots is silent: %v", got)
	}
	drained, _ := settle(t, drain, t0, State{})
	if got := fails(drained, "n2"); len(got) != 0 {
		t.Errorf("a drained node is silent: %v", got)
	}
	bad := m.Clone()
	bad.Disk(3).State = core.DiskFailed
	if got := fails(bad); !slices.Equal(got, []string{"/3"}) {
		t.Errorf("a failed disk is in rows: %v", got)
	}
	joining := apply(t, m, t0, core.Change{Kind: core.ChangeAddNode, Nodes: []core.Node{{ID: "n7"}}})
	if got := fails(joining, "n7"); len(got) != 0 {
		t.Errorf("a joining node is silent: %v", got)
	}
	// A silent draining node is named when others fail with it, so that no
	// row is left to it alone.
	two := initial(t, spec{nodes: 2, disks: 1, slots: 8})
	two = apply(t, two, t0, core.Change{Kind: core.ChangeNodeState, Node: "n2", State: "draining"})
	if got := fails(two, "n1", "n2"); !slices.Equal(got, []string{"n1/0", "n2/0"}) {
		t.Errorf("n1 and the draining n2: %v", got)
	}
	gone := apply(t, two, t0, Plan(two, t0, State{Silent: []core.NodeID{"n1", "n2"}})...)
	if !slices.Equal(gone.Slots[0].Insync, two.Slots[0].Insync) {
		t.Errorf("all gone: %v -> %v", two.Slots[0].Insync, gone.Slots[0].Insync)
	}
	if got := fails(gone, "n1", "n2"); len(got) != 0 {
		t.Errorf("all gone, and failed again: %v", got)
	}
}

// withRows is a map with some rows of its table replaced.
func withRows(t *testing.T, m *core.Map, f func(rows core.SlotTable)) *core.Map {
	t.Helper()
	m = m.Clone()
	f(m.Slots)
	if err := m.Seal(); err != nil {
		t.Fatal(err)
	}
	return m
}

// A joining disk that is not wanted any more is let go, unless the row is
// short of disks.
func TestPlanCancelsJoins(t *testing.T) {
	m := initial(t, spec{nodes: 6, disks: 1, slots: 16})
	in := m.Slots[3].Insync
	var others []core.DiskID
	for d := core.DiskID(1); d <= 6; d++ {
		if !slices.Contains(in, d) {
			others = append(others, d)
		}
	}
	plan := func(m *core.Map) []core.Change {
		plan := Plan(m, t0.Add(time.Second), State{})
		apply(t, m, t0, plan...)
		return slices.DeleteFunc(plan, func(c core.Change) bool { return c.Slot != 3 || c.Kind == core.ChangeFail })
	}
	is := func(c []core.Change, kind core.ChangeKind, d core.DiskID) bool {
		return len(c) == 1 && c[0].Kind == kind && c[0].Disk == d
	}

	full := withRows(t, m, func(r core.SlotTable) { r[3].Joining = others[:1] })
	if got := plan(full); !is(got, core.ChangeDrop, others[0]) {
		t.Errorf("full row with a joiner that is not wanted: %+v", got)
	}
	wanted := withRows(t, m, func(r core.SlotTable) {
		r[3].Insync, r[3].Joining = []core.DiskID{in[0], in[1], others[0]}, []core.DiskID{in[2]}
	})
	if got := plan(wanted); len(got) != 0 {
		t.Errorf("full row with a joiner that is wanted: %+v", got)
	}
	short := withRows(t, m, func(r core.SlotTable) { r[3].Insync, r[3].Joining = in[:2], others[:1] })
	if got := plan(short); !is(got, core.ChangeJoin, in[2]) {
		t.Errorf("short row with a joiner that is not wanted: %+v", got)
	}
	drains := apply(t, short, t0, core.Change{Kind: core.ChangeNodeState, Node: m.NodeOf(others[0]), State: "draining"})
	if got := plan(drains); !is(got, core.ChangeDrop, others[0]) {
		t.Errorf("short row with a joiner that drains: %+v", got)
	}

	// While a member of the target is away, a joiner may stand in for it, and
	// where there are R disks in sync one joins at a time.
	away := apply(t, m, t0, core.Change{Kind: core.ChangeFail, Node: m.NodeOf(in[2])})
	away = withRows(t, away, func(r core.SlotTable) {
		r[3].Insync = []core.DiskID{in[0], others[0], others[1]}
		r[3].Joining = []core.DiskID{others[2]}
	})
	if got := plan(away); len(got) != 0 {
		t.Errorf("row with a stand-in that joins: %+v", got)
	}
}

// Where a disk is wanted by more rows than may join it, rows that lack a disk
// come before those that only have a wrong one.
func TestPlanJoinsTheShortFirst(t *testing.T) {
	m := initial(t, spec{nodes: 4, disks: 1, slots: 16})
	var rows []core.SlotID // that have disk 1
	for i := range m.Slots {
		if m.Slots[i].Has(1) {
			rows = append(rows, core.SlotID(i))
		}
	}
	wrong, short := rows[0], rows[len(rows)-1]
	m = withRows(t, m, func(r core.SlotTable) {
		r[wrong].Insync = []core.DiskID{2, 3, 4}
		r[short].Insync = slices.DeleteFunc(r[short].Insync, func(d core.DiskID) bool { return d == 1 })
	})
	plan := Plan(m, t0, State{MaxJoins: 1})
	if len(plan) != 1 || plan[0].Kind != core.ChangeJoin || plan[0].Slot != short {
		t.Errorf("got %+v, want slot %d joined, before slot %d", plan, short, wrong)
	}
}

// A surplus disk on the node of another member goes first.
func TestPlanDropsTheLeastUseful(t *testing.T) {
	m := initial(t, spec{nodes: 4, disks: 2, slots: 16})
	in := m.Slots[3].Insync
	twin := func(d core.DiskID) core.DiskID { return (d - 1) ^ 1 + 1 } // the other disk of the node
	var apart core.DiskID
	for d := core.DiskID(1); d <= 8; d++ {
		if !slices.Contains(in, d) && !slices.Contains(in, twin(d)) {
			apart = d
		}
	}
	for _, surplus := range [][]core.DiskID{{apart, twin(in[1])}, {twin(in[1]), apart}} {
		c := withRows(t, m, func(r core.SlotTable) { r[3].Insync = append(slices.Clone(in), surplus...) })
		plan := Plan(c, t0, State{})
		if len(plan) != 1 || plan[0].Kind != core.ChangeDrop || plan[0].Disk != twin(in[1]) {
			t.Errorf("in sync %v: got %+v, want %d dropped", c.Slots[3].Insync, plan, twin(in[1]))
		}
	}
}

// Draining the last disk there is changes nothing.
func TestPlanWithNowhereToGo(t *testing.T) {
	m := initial(t, spec{nodes: 1, disks: 1, slots: 8})
	m = apply(t, m, t0, core.Change{Kind: core.ChangeNodeState, Node: "n1", State: "draining"})
	if plan := Plan(m, t0, State{}); len(plan) != 0 {
		t.Errorf("%+v", plan)
	}
	// An unavailable slot gets no joiners: nobody could bring them level.
	m = initial(t, spec{nodes: 3, disks: 1, slots: 8, r: 1})
	m = apply(t, m, t0, core.Change{Kind: core.ChangeFail, Node: "n1"})
	for _, c := range Plan(m, t0.Add(time.Hour), State{}) {
		if len(m.Slots[c.Slot].Insync) == 1 && m.OwnerNode(c.Slot) == "n1" {
			t.Errorf("%+v for a slot whose only disk is away", c)
		}
	}
}

func TestPlanOwners(t *testing.T) {
	m := initial(t, spec{nodes: 5, disks: 3, slots: 1024})
	// Everything is owned by the first disk in number.
	skew := m.Clone()
	for i := range skew.Slots {
		slices.Sort(skew.Slots[i].Insync)
	}
	if err := skew.Seal(); err != nil {
		t.Fatal(err)
	}
	plan := Plan(skew, t0, State{MaxOwners: 10})
	if len(plan) != 10 || plan[0].Kind != core.ChangeOwner {
		t.Fatalf("%d changes, first %+v; want 10 of owners", len(plan), plan[0])
	}
	for _, c := range Plan(skew, t0, State{Silent: []core.NodeID{"n5"}}) {
		if c.Kind == core.ChangeOwner {
			t.Fatalf("%+v while a node fails", c)
		}
	}
	next, steps := settle(t, skew, t0, State{})
	ownersBalanced(t, "skewed", next)
	if mv := Movement(skew, next); mv.Moved != 0 {
		t.Errorf("%d members moved for the sake of owners", mv.Moved)
	}
	t.Logf("balanced in %d steps", steps)
}

func TestPlanBuckets(t *testing.T) {
	m := initial(t, spec{nodes: 6, disks: 2, slots: 64})
	m = apply(t, m, t0, core.Change{Kind: core.ChangeAddBucket, Bucket: bucket("wide", "mirror-5", core.DomainNode)})
	opened := false
	for range 20 {
		m = apply(t, m, t0, Plan(m, t0, State{})...)
		if m.Bucket(1).State == core.BucketOK && !opened {
			opened = true
			for i, row := range m.Slots {
				if len(row.Insync) < 5 {
					t.Fatalf("opened while slot %d has %v", i, row.Insync)
				}
			}
		}
		m = level(t, m, t0, nil)
	}
	if !opened || m.Replicas != 5 {
		t.Errorf("bucket is %s with R = %d, want ok with 5", m.Bucket(1).State, m.Replicas)
	}
	atTarget(t, "wide", m)
	if plan := Plan(m, t0, State{}); len(plan) != 0 {
		t.Errorf("still to do: %+v", plan[0])
	}
}

// Whatever happens to a cluster, plan and apply come to rest soon, with every
// slot where it belongs once all is well again.
func TestPlanConverges(t *testing.T) {
	worst := 0
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 4))
		s := spec{
			nodes: 1 + r.IntN(6), zones: r.IntN(4), slots: 64, r: 1 + r.IntN(4), clusterIDSeeds: seed,
			disksOn: func(int) int { return 1 + r.IntN(3) }, weight: func(int, int) float64 { return 1 + 9*r.Float64() },
		}
		m := initial(t, s)
		now := t0
		boots := uint64(1)
		silent := map[core.NodeID]bool{}
		for event := range 25 {
			now = now.Add(time.Duration(r.IntN(90)) * time.Second)
			m = apply(t, m, now, randomEvent(r, m, silent, &boots, s)...)
			st := State{}
			for n := range silent {
				st.Silent = append(st.Silent, n)
			}
			slices.Sort(st.Silent)
			// A few steps only, now and then, so that events meet
			// unfinished work; mostly until rest.
			if r.IntN(3) == 0 {
				for range r.IntN(3) {
					plan := Plan(m, now, st)
					checkPlan(t, m, plan)
					m = level(t, apply(t, m, now, plan...), now, silent)
				}
				continue
			}
			var steps int
			m, steps = settle(t, m, now, st)
			worst = max(worst, steps)
			if plan := Plan(m, now, st); len(plan) != 0 {
				t.Fatalf("seed %d event %d: at rest, but %+v", seed, event, plan[0])
			}
		}
		// All is well again.
		for i := range m.Nodes {
			boots++
			m = apply(t, m, now,
				core.Change{Kind: core.ChangeBoot, Node: m.Nodes[i].ID, Boot: boots},
				core.Change{Kind: core.ChangeNodeState, Node: m.Nodes[i].ID, State: "active"})
		}
		for i := range m.Disks {
			m = apply(t, m, now, core.Change{Kind: core.ChangeDiskState, Disk: m.Disks[i].ID, State: "ok"})
		}
		m, steps := settle(t, m, now, State{})
		worst = max(worst, steps)
		atTarget(t, fmt.Sprintf("seed %d", seed), m)
	}
	t.Logf("at most %d steps to rest", worst)
	if worst > 60 {
		t.Errorf("it took %d steps to come to rest", worst)
	}
}

func randomEvent(r *rand.Rand, m *core.Map, silent map[core.NodeID]bool, boots *uint64, s spec) []core.Change {
	node := m.Nodes[r.IntN(len(m.Nodes))].ID
	disk := m.Disks[r.IntN(len(m.Disks))].ID
	w := 0.5 + 3*r.Float64()
	zone := fmt.Sprintf("z%d", r.IntN(3))
	*boots++
	switch r.IntN(12) {
	case 0, 1:
		silent[node] = true
	case 2, 3, 4:
		delete(silent, node)
		return []core.Change{{Kind: core.ChangeBoot, Node: node, Boot: *boots}}
	case 5:
		return []core.Change{{Kind: core.ChangeFail, Node: node, State: "stop"}}
	case 6:
		states := []core.NodeState{core.NodeActive, core.NodeMaintenance, core.NodeDraining}
		if m.Node(node).State != core.NodeDown {
			return []core.Change{{Kind: core.ChangeNodeState, Node: node, State: string(states[r.IntN(3)])}}
		}
	case 7:
		return []core.Change{{Kind: core.ChangeDiskState, Disk: disk, State: []string{"ok", "failed", "detached"}[r.IntN(3)]}}
	case 8:
		return []core.Change{{Kind: core.ChangeWeight, Node: node, Weight: &w, Zone: &zone}}
	case 9:
		return []core.Change{{Kind: core.ChangeWeight, Disk: disk, Weight: &w}}
	case 10:
		if i := len(m.Nodes); i < 8 {
			n, d := makeNode(i, s)
			return []core.Change{
				{Kind: core.ChangeAddNode, Nodes: []core.Node{n}, Disks: d},
				{Kind: core.ChangeBoot, Node: n.ID, Boot: 1},
			}
		}
	case 11:
		return []core.Change{{Kind: core.ChangeReplicas, Count: 1 + r.IntN(4)}}
	}
	return nil
}

func BenchmarkPlan(b *testing.B) {
	m := initial(b, spec{nodes: 5, disks: 3})
	b.Run("idle", func(b *testing.B) {
		for b.Loop() {
			Plan(m, t0, State{})
		}
	})
	down := apply(b, m, t0, core.Change{Kind: core.ChangeFail, Node: "n1"})
	b.Run("heal", func(b *testing.B) {
		for b.Loop() {
			Plan(down, t0.Add(time.Hour), State{})
		}
	})
}

// What does not hurry is done a little at a time, what makes rows safer is not put
// off for that.
func TestPlanMovesFewAtATime(t *testing.T) {
	const slots = 1024
	m := initial(t, spec{nodes: 5, disks: 3, slots: slots})
	draining := core.Change{Kind: core.ChangeNodeState, Node: "n5", State: string(core.NodeDraining)}
	m = apply(t, m, t0, draining)
	now := t0.Add(time.Hour)
	s := State{MaxMoves: 50, MaxOwners: 20}
	steps := 0
	for ; ; steps++ {
		plan := Plan(m, now, s)
		count := map[core.ChangeKind]int{}
		for _, c := range plan {
			count[c.Kind]++
		}
		m = apply(t, m, now, plan...)
		joining := 0
		for _, row := range m.Slots {
			if len(row.Joining) > 0 {
				joining++
			}
		}
		if joining > 50 || count[core.ChangeDrop] > 50 || count[core.ChangeOwner] > 20 {
			t.Fatalf("step %d: %d rows join disks, %v", steps, joining, count)
		}
		if len(plan) == 0 && joining == 0 {
			break
		}
		for _, c := range Plan(m, now, s) {
			if c.Kind == core.ChangeJoin && joining == 50 {
				t.Fatalf("step %d: another row joins", steps)
			}
		}
		m = level(t, m, now, nil)
	}
	atTarget(t, "drained", m)
	t.Logf("drained in %d steps", steps)

	// Nobody takes slots over while others still do.
	back := apply(t, m, now, core.Change{Kind: core.ChangeNodeState, Node: "n5", State: string(core.NodeActive)})
	for range 100 {
		plan := Plan(back, now, State{MaxOwners: -1})
		if slices.ContainsFunc(plan, func(c core.Change) bool { return c.Kind == core.ChangeOwner }) {
			t.Fatal("an owner changes, none should")
		}
		back = level(t, apply(t, back, now, plan...), now, nil)
	}

	lost := apply(t, m, now, core.Change{Kind: core.ChangeFail, Node: "n1"})
	short := 0
	for _, row := range lost.Slots {
		if len(row.Insync) < 3 {
			short++
		}
	}
	joins := 0
	for _, c := range Plan(lost, now.Add(time.Hour), State{MaxMoves: 1, MaxJoins: slots}) {
		if c.Kind == core.ChangeJoin {
			joins++
		}
	}
	if joins < short {
		t.Errorf("%d rows have too few members, %d joins are planned", short, joins)
	}
}
