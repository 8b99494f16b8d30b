package placement

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

var t0 = time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)

// spec describes a cluster for tests.
type spec struct {
	nodes, disks   int // disks per node
	zones          int // 0 for none
	slots, r       int
	weight         func(node, disk int) float64
	voters         int
	nodeWeight     func(node int) float64
	disksOn        func(node int) int
	state          func(node int) core.NodeState
	clusterIDSeeds uint64
}

func nodeName(i int) core.NodeID { return core.NodeID(fmt.Sprintf("n%d", i+1)) }

// uuid makes realistic, reproducible UUIDs.
func uuid(node, disk int, seed uint64) string {
	r := rand.New(rand.NewPCG(uint64(node)<<32|uint64(disk), seed+77))
	a, b := r.Uint64(), r.Uint64()
	return fmt.Sprintf("%08x-%04x-4%03x-a%03x-%012x", uint32(a), uint16(a>>32), a>>52, b>>52, b&(1<<48-1))
}

func makeNode(i int, s spec) (core.Node, []core.Disk) {
	n := core.Node{ID: nodeName(i), Boot: 1, Peer: fmt.Sprintf("127.0.0.1:%d", 7170+i), State: core.NodeActive, Since: t0}
	if s.zones > 0 {
		n.Zone = fmt.Sprintf("z%d", i%s.zones)
	}
	if s.nodeWeight != nil {
		n.Weight = s.nodeWeight(i)
	}
	if s.state != nil {
		n.State = s.state(i)
	}
	count := s.disks
	if s.disksOn != nil {
		count = s.disksOn(i)
	}
	var disks []core.Disk
	for j := range count {
		d := core.Disk{UUID: uuid(i, j, s.clusterIDSeeds), Node: n.ID, Name: fmt.Sprintf("d%d", j+1), Weight: 100}
		if s.weight != nil {
			d.Weight = s.weight(i, j)
		}
		disks = append(disks, d)
	}
	return n, disks
}

func initial(t testing.TB, s spec) *core.Map {
	t.Helper()
	if s.slots == 0 {
		s.slots = 4096
	}
	if s.r == 0 {
		s.r = 3
	}
	if s.voters == 0 {
		s.voters = 1
	}
	var nodes []core.Node
	var disks []core.Disk
	for i := range s.nodes {
		n, d := makeNode(i, s)
		nodes = append(nodes, n)
		disks = append(disks, d...)
	}
	var voters []core.Voter
	for i := range s.voters {
		voters = append(voters, core.Voter{Node: nodeName(i), Key: fmt.Sprintf("key%d", i)})
	}
	m, err := Initial("c1", s.slots, s.r, nodes, disks, voters, t0)
	if err != nil {
		t.Fatalf("Initial(%d nodes x %d disks): %v", s.nodes, s.disks, err)
	}
	return m
}

// apply applies changes that must all be good.
func apply(t testing.TB, m *core.Map, now time.Time, changes ...core.Change) *core.Map {
	t.Helper()
	next, errs := Apply(m, now, changes)
	for i, err := range errs {
		if err != nil {
			t.Fatalf("epoch %d: change %d %+v: %v", m.Epoch, i, changes[i], err)
		}
	}
	if next == nil {
		return m
	}
	checkSuccessor(t, m, next)
	return next
}

// apply1 applies one change and returns its error.
func apply1(t testing.TB, m *core.Map, c core.Change) (*core.Map, error) {
	t.Helper()
	next, errs := Apply(m, t0, []core.Change{c})
	if errs[0] != nil && next != nil {
		t.Fatalf("%+v: an error %v and a new map", c, errs[0])
	}
	if next != nil {
		checkSuccessor(t, m, next)
	}
	return next, errs[0]
}

// checkSuccessor holds what is true of any two maps in succession.
func checkSuccessor(t testing.TB, m, next *core.Map) {
	t.Helper()
	if next.Epoch != m.Epoch+1 || next.Prev != m.Sum() || next.Sum() == "" || next.Sum() == m.Sum() {
		t.Fatalf("chain: epoch %d after %d, prev %q want %q", next.Epoch, m.Epoch, next.Prev, m.Sum())
	}
	if fmt.Sprint(next.OldVoters) != fmt.Sprint(m.Voters) {
		t.Fatalf("epoch %d: old voters %v, want %v", next.Epoch, next.OldVoters, m.Voters)
	}
	if fmt.Sprint(next.Voters) == fmt.Sprint(m.Voters) != (next.Bus == m.Bus) {
		t.Fatalf("epoch %d: voters %v after %v, bus %d after %d", next.Epoch, next.Voters, m.Voters, next.Bus, m.Bus)
	}
	for i := range m.Slots {
		was, is := m.Slots[i], next.Slots[i]
		if len(was.Insync) > 0 && len(is.Insync) == 0 {
			t.Fatalf("epoch %d: slot %d: the in-sync set %v was emptied", next.Epoch, i, was.Insync)
		}
		same := slices.Equal(was.Insync, is.Insync) && slices.Equal(was.Joining, is.Joining)
		if is.Term != was.Term && is.Term != next.Epoch || !same && is.Term != next.Epoch {
			t.Fatalf("epoch %d: slot %d: term %d after %d, same members %v", next.Epoch, i, is.Term, was.Term, same)
		}
		for j, d := range is.Insync {
			if slices.Contains(is.Insync[:j], d) {
				t.Fatalf("epoch %d: slot %d has disk %d twice: %+v", next.Epoch, i, d, is)
			}
		}
		for j, d := range is.Joining {
			if slices.Contains(is.Joining[:j], d) || slices.Contains(is.Insync, d) {
				t.Fatalf("epoch %d: slot %d has disk %d twice: %+v", next.Epoch, i, d, is)
			}
		}
	}
	if next.Epoch%8 != 2 {
		return // of a long chain some are enough
	}
	b, err := next.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := core.DecodeMap(b)
	if err != nil {
		t.Fatalf("epoch %d does not decode: %v", next.Epoch, err)
	}
	if back.Sum() != next.Sum() {
		t.Fatalf("epoch %d: sum %s, decoded %s", next.Epoch, next.Sum(), back.Sum())
	}
}

// level makes every joining disk in sync, as owners that are alive would.
func level(t testing.TB, m *core.Map, now time.Time, silent map[core.NodeID]bool) *core.Map {
	t.Helper()
	var changes []core.Change
	for i := range m.Slots {
		s := core.SlotID(i)
		row := &m.Slots[i]
		owner := m.Node(m.OwnerNode(s))
		if len(row.Joining) == 0 || owner.State == core.NodeDown || silent[owner.ID] || m.Disk(row.Owner()).State == core.DiskFailed {
			continue
		}
		for _, d := range row.Joining {
			n := m.Node(m.NodeOf(d))
			if n.State == core.NodeDown || silent[n.ID] || m.Disk(d).State == core.DiskFailed {
				continue
			}
			b := m.SlotBallot(s)
			changes = append(changes, core.Change{Kind: core.ChangeJoined, Slot: s, Term: b.Term, Boot: b.Boot, Disk: d})
			break // the next one needs the new term
		}
	}
	return apply(t, m, now, changes...)
}

// settle runs Plan and the joiners until nothing is left to do.
func settle(t testing.TB, m *core.Map, now time.Time, s State) (*core.Map, int) {
	t.Helper()
	silent := map[core.NodeID]bool{}
	for _, n := range s.Silent {
		silent[n] = true
	}
	for step := range 2000 {
		before := m
		plan := Plan(m, now, s)
		checkPlan(t, m, plan)
		m = apply(t, m, now, plan...)
		if len(plan) > 0 && m == before {
			t.Fatalf("step %d: the plan changes nothing: %+v", step, plan[0])
		}
		m = level(t, m, now, silent)
		if m == before {
			return m, step
		}
	}
	t.Fatalf("no end after 2000 steps; next: %+v", Plan(m, now, s)[0])
	return nil, 0
}

// checkPlan holds what is true of any plan.
func checkPlan(t testing.TB, m *core.Map, plan []core.Change) {
	t.Helper()
	rows := map[core.SlotID]core.ChangeKind{}
	enough := 0 // members that a row should keep
	for i := range m.Disks {
		if m.Disks[i].State == core.DiskOK && m.Node(m.Disks[i].Node).State == core.NodeActive {
			enough++
		}
	}
	enough = min(enough, m.Replicas)
	for _, c := range plan {
		if row := m.Slots[c.Slot]; c.Kind == core.ChangeDrop && slices.Contains(row.Insync, c.Disk) && len(row.Insync) <= enough {
			t.Fatalf("slot %d: disk %d is dropped from %v, want to keep %d", c.Slot, c.Disk, row.Insync, enough)
		}
		switch c.Kind {
		case core.ChangeDrop, core.ChangeOwner:
			if was, ok := rows[c.Slot]; ok {
				t.Fatalf("slot %d: %s after %s in one plan", c.Slot, c.Kind, was)
			}
			rows[c.Slot] = c.Kind
		case core.ChangeJoin:
			if was, ok := rows[c.Slot]; ok && was != core.ChangeJoin {
				t.Fatalf("slot %d: join after %s in one plan", c.Slot, was)
			}
			rows[c.Slot] = c.Kind
		}
	}
}
