package recovery_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/cmd/shoal/internal/recovery"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/placement"
)

const slotCount = 64

func start() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

// stopped is a stopped cluster of n1 to n5 with two disks each; all vote.
type stopped struct {
	t     *testing.T
	m     *core.Map
	found map[core.NodeID]*recovery.Found
}

func newStopped(t *testing.T) *stopped {
	t.Helper()
	var nodes []core.Node
	var disks []core.Disk
	var voters []core.Voter
	for i := range 5 {
		id := core.NodeID(fmt.Sprintf("n%d", i+1))
		nodes = append(nodes, core.Node{ID: id, Boot: 1})
		voters = append(voters, core.Voter{Node: id, Key: "key-" + string(id)})
		for j := range 2 {
			disks = append(disks, core.Disk{UUID: fmt.Sprintf("%s-d%d", id, j+1), Node: id, Name: fmt.Sprintf("d%d", j+1), Weight: 1})
		}
	}
	m, err := placement.Initial("c1", slotCount, 3, nodes, disks, voters, start())
	if err != nil {
		t.Fatal(err)
	}
	s := &stopped{t: t, m: m, found: map[core.NodeID]*recovery.Found{}}
	for _, n := range nodes {
		f := &recovery.Found{Cluster: "c1", Node: n.ID, VoterKey: "key-" + string(n.ID), Bus: []uint64{1}}
		for j := range 2 {
			f.Disks = append(f.Disks, recovery.FoundDisk{Path: fmt.Sprintf("/d%d", j+1), UUID: fmt.Sprintf("%s-d%d", n.ID, j+1), Slots: map[core.SlotID]core.SlotState{}})
		}
		s.found[n.ID] = f
	}
	for i := range m.Slots {
		for k, d := range m.Slots[i].Insync {
			s.wrote(core.SlotID(i), d, core.Version{Term: 1, Boot: 1, Seq: uint64(10 - k)}, 1)
		}
	}
	s.saw(s.encode(m), "n1", "n2", "n3", "n4", "n5")
	s.confirmed(s.encode(m), "n1", "n2", "n3", "n4", "n5")
	return s
}

func (s *stopped) encode(m *core.Map) []byte {
	s.t.Helper()
	b, err := m.Encode()
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (s *stopped) saw(m []byte, nodes ...core.NodeID) {
	for _, n := range nodes {
		s.found[n].Map = m
	}
}

func (s *stopped) confirmed(m []byte, nodes ...core.NodeID) {
	for _, n := range nodes {
		s.found[n].Voter = m
	}
}

// wrote says what a disk has of a slot.
func (s *stopped) wrote(slot core.SlotID, disk core.DiskID, last core.Version, term core.Epoch) {
	k := s.m.Disk(disk)
	for i := range s.found[k.Node].Disks {
		if d := &s.found[k.Node].Disks[i]; d.UUID == k.UUID {
			d.Slots[slot] = core.SlotState{Ballot: core.Ballot{Term: term, Boot: 1}, Committed: last, Last: last}
		}
	}
}

// next makes the successor of the map by a change.
func (s *stopped) next(m *core.Map, c core.Change) *core.Map {
	s.t.Helper()
	n, errs := placement.Apply(m, start().Add(time.Minute), []core.Change{c})
	if n == nil || errs[0] != nil {
		s.t.Fatalf("change %s: %v", c.Kind, errs)
	}
	return n
}

func (s *stopped) decide(a recovery.Accept, nodes ...core.NodeID) *recovery.Plan {
	s.t.Helper()
	p, err := s.try(a, nodes...)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (s *stopped) try(a recovery.Accept, nodes ...core.NodeID) (*recovery.Plan, error) {
	var found []recovery.Found
	for _, n := range nodes {
		found = append(found, *s.found[n])
	}
	return recovery.Decide(found, a, start().Add(time.Hour))
}

func flags(o []recovery.Objection) []string {
	var out []string
	for _, x := range o {
		out = append(out, x.Flag)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func wantFlags(t *testing.T, p *recovery.Plan, want ...string) {
	t.Helper()
	if got := flags(p.Refusals()); !slices.Equal(got, want) {
		t.Errorf("refused without %v, want %v: %+v", got, want, p.Objections)
	}
}

// rowWith finds a slot whose in-sync disks are on exactly these nodes.
func (s *stopped) rowWith(nodes ...core.NodeID) core.SlotID {
	s.t.Helper()
	for i := range s.m.Slots {
		in := 0
		for _, d := range s.m.Slots[i].Insync {
			if slices.Contains(nodes, s.m.NodeOf(d)) {
				in++
			}
		}
		if in == len(s.m.Slots[i].Insync) {
			return core.SlotID(i)
		}
	}
	s.t.Fatalf("no slot lies on %v only", nodes)
	return 0
}

func TestIntactIsRefused(t *testing.T) {
	t.Parallel()
	s := newStopped(t)
	all := []core.NodeID{"n1", "n2", "n3", "n4", "n5"}
	wantFlags(t, s.decide(recovery.Accept{}, all...), recovery.FlagIntact)
	wantFlags(t, s.decide(recovery.Accept{Intact: true}, all...))
	// Three voters with a bus go on by themselves too: what is not shown is
	// perhaps only not shown. With R = 3, no slot lies on two nodes only.
	wantFlags(t, s.decide(recovery.Accept{}, "n1", "n2", "n3"), recovery.FlagIntact)
	// A bus that Shoal does not run is not looked for in directories.
	for _, f := range s.found {
		f.Bus, f.OutsideBus = nil, true
	}
	wantFlags(t, s.decide(recovery.Accept{}, all...), recovery.FlagIntact)
}

// What nodes have copied of transforms and jobs goes on: the newest of each transform,
// and of jobs the history; nothing runs.
func TestKept(t *testing.T) {
	t.Parallel()
	s := newStopped(t)
	entry := func(generation int, spec string) string {
		return fmt.Sprintf(`{"name":"up","generation":%d%s}`, generation, spec)
	}
	for n, kept := range map[core.NodeID]map[string]string{
		"n1": {
			"etl.up": entry(2, `,"spec":{"name":"up","digest":"two"}`), "etl.gone": `{"name":"gone","generation":1,"spec":{"name":"gone"}}`,
			"job.a.spec": `{"id":"a"}`, "job.a.status": `{"state":"running"}`, "job.c.status": `{"state":"done"}`, "x.y": "{}",
		},
		"n2": {"etl.up": entry(3, `,"spec":{"name":"up","digest":"three"}`), "job.a.spec": `{"id":"a"}`, "job.a.status": `{"state":"done"}`, "job.d.spec": "damaged"},
		"n3": {"etl.gone": `{"name":"gone","generation":2}`, "etl.up": "damaged", "etl.other": entry(9, ""), "job.b.spec": `{"id":"b"}`, "job.b.status": `{"state":"waiting","waiting_for":["x"]}`},
	} {
		s.found[n].Bus = nil
		for k, v := range kept {
			s.found[n].Kept = append(s.found[n].Kept, bus.KeyValue{Key: k, Value: []byte(v)})
		}
	}
	for _, n := range []core.NodeID{"n4", "n5"} {
		s.found[n].Bus = nil
	}
	p := s.decide(recovery.Accept{}, "n1", "n2", "n3", "n4", "n5")
	if p.LostJobs || !slices.Equal(p.Transforms, []string{"up"}) || !slices.Equal(p.StoppedJobs, []string{"b"}) {
		t.Errorf("lost %t, transforms %v, stopped %v", p.LostJobs, p.Transforms, p.StoppedJobs)
	}
	got := map[string]string{}
	for _, e := range p.Orders.Kept {
		got[e.Key] = string(e.Value)
	}
	keys := slices.Sorted(maps.Keys(got))
	if !slices.Equal(keys, []string{"etl.gone", "etl.up", "job.a.spec", "job.a.status", "job.b.spec", "job.b.status"}) || len(keys) != len(p.Orders.Kept) {
		t.Errorf("kept: %v", keys)
	}
	if !strings.Contains(got["etl.up"], "three") || strings.Contains(got["etl.gone"], "spec") {
		t.Errorf("transforms: %s, %s", got["etl.up"], got["etl.gone"])
	}
	if !strings.Contains(got["job.a.status"], `"done"`) || !strings.Contains(got["job.b.status"], `"stopped"`) || strings.Contains(got["job.b.status"], "waiting_for") {
		t.Errorf("jobs: %s, %s", got["job.a.status"], got["job.b.status"])
	}
}

func TestBusLost(t *testing.T) {
	t.Parallel()
	s := newStopped(t)
	for _, n := range []core.NodeID{"n1", "n2", "n4"} {
		s.found[n].Bus = nil
	}
	p := s.decide(recovery.Accept{}, "n1", "n2", "n3", "n4", "n5")
	wantFlags(t, p)
	if len(p.LostNodes)+len(p.LostDisks)+len(p.LostSlots)+len(p.StaleSlots) != 0 || !p.LostJobs {
		t.Errorf("lost: got %v %v %v %v, jobs %v, want the jobs only", p.LostNodes, p.LostDisks, p.LostSlots, p.StaleSlots, p.LostJobs)
	}
	if !p.Maps[0].InEffect {
		t.Error("map 1, confirmed by all, is not shown as in effect")
	}
	m := p.Map
	if m.Epoch != 1<<32 || m.Prev != s.m.Sum() || m.Bus != 1024 || len(m.Voters) != 5 || !slices.Equal(m.Voters, m.OldVoters) {
		t.Errorf("new map: got epoch %d, prev %.12s, bus %d, voters %v, old %v", m.Epoch, m.Prev, m.Bus, m.Voters, m.OldVoters)
	}
	if !recovery.IsFirst(m) || recovery.IsFirst(s.m) {
		t.Errorf("map %d is not told from map %d as one that recovery made", m.Epoch, s.m.Epoch)
	}
	if m.NextDisk <= s.m.NextDisk+100 || m.NextBucket <= s.m.NextBucket+100 {
		t.Errorf("numbers of a lost past may be given again: next disk %d, bucket %d", m.NextDisk, m.NextBucket)
	}
	for i := range m.Slots {
		if m.Slots[i].Term != m.Epoch || !slices.Equal(m.Slots[i].Insync, s.m.Slots[i].Insync) {
			t.Fatalf("slot %d: got %+v, want term %d, in sync %v", i, m.Slots[i], m.Epoch, s.m.Slots[i].Insync)
		}
	}
	if len(p.Orders.Remove)+len(p.Orders.Exclude) != 0 {
		t.Errorf("orders: got %+v, want none", p.Orders)
	}
	// What was recovered can be lost again.
	s.saw(s.encode(m), "n1", "n2", "n3", "n4", "n5")
	s.confirmed(s.encode(m), "n1", "n2", "n3", "n4", "n5")
	if again := s.decide(recovery.Accept{}, "n1", "n2", "n3", "n4", "n5"); again.Epoch != 2<<32 || again.Bus != 2048 {
		t.Errorf("second recovery: got epoch %d, bus %d, want %d, 2048", again.Epoch, again.Bus, uint64(2<<32))
	}
}

func TestMajorityLost(t *testing.T) {
	t.Parallel()
	s := newStopped(t)
	p := s.decide(recovery.Accept{}, "n2", "n4")
	wantFlags(t, p, recovery.FlagLostSlots, recovery.FlagOlderMap)
	p = s.decide(recovery.Accept{OlderMap: true, LostSlots: true}, "n2", "n4")
	wantFlags(t, p)
	if got := p.LostNodes; !slices.Equal(got, []core.NodeID{"n1", "n3", "n5"}) || len(p.LostDisks) != 6 {
		t.Errorf("lost: got nodes %v, %d disks, want n1, n3, n5, 6 disks", got, len(p.LostDisks))
	}
	if f := p.Orders.Former; len(f) != 3 || f[2].ID != "n5" {
		t.Errorf("former nodes: got %+v, want n1, n3, n5", f)
	}
	if got := p.Voters; !slices.Equal(got, []core.NodeID{"n2"}) {
		t.Errorf("voters of two nodes: got %v, want n2", got)
	}
	var lost []core.SlotID
	owners := map[core.NodeID]int{}
	for i, row := range s.m.Slots {
		var want []core.DiskID
		for _, d := range row.Insync {
			if n := s.m.NodeOf(d); n == "n2" || n == "n4" {
				want = append(want, d)
			}
		}
		got := slices.Clone(p.Map.Slots[i].Insync)
		owners[p.Map.NodeOf(got[0])]++
		if len(want) == 0 {
			lost = append(lost, core.SlotID(i))
			if len(got) == 0 || len(p.Map.Slots[i].Joining) != 0 {
				t.Errorf("slot %d, of which nothing is left: got %v, want blank disks", i, got)
			}
			continue
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("slot %d: in sync got %v, want what is left of %v: %v", i, got, row.Insync, want)
		}
	}
	if !slices.Equal(p.LostSlots, lost) || len(lost) == 0 {
		t.Errorf("lost slots: got %v, want %v", p.LostSlots, lost)
	}
	if owners["n2"] < slotCount/4 || owners["n4"] < slotCount/4 {
		t.Errorf("owners are not spread: %v", owners)
	}
	for _, id := range []core.NodeID{"n1", "n3", "n5"} {
		if p.Map.Node(id) != nil {
			t.Errorf("lost node %s is still in the map", id)
		}
	}
}

func TestVotersOfWhomTheStateIsGone(t *testing.T) {
	t.Parallel()
	all := []core.NodeID{"n1", "n2", "n3", "n4", "n5"}
	for name, lose := range map[string]func(*recovery.Found){
		"voter's file":     func(f *recovery.Found) { f.Voter = nil },
		"another key":      func(f *recovery.Found) { f.VoterKey = "new" },
		"damaged":          func(f *recovery.Found) { f.Voter = append(slices.Clone(f.Voter), 'x') },
		"of other cluster": func(f *recovery.Found) { f.Voter = []byte(strings.Replace(string(f.Voter), "c1", "c2", 1)) },
	} {
		s := newStopped(t)
		for _, n := range all[:2] {
			lose(s.found[n])
		}
		wantFlags(t, s.decide(recovery.Accept{}, all...), recovery.FlagIntact)
		lose(s.found["n3"])
		p := s.decide(recovery.Accept{}, all...)
		if wantFlags(t, p, recovery.FlagOlderMap); t.Failed() {
			t.Fatalf("case: %s", name)
		}
		// They are voters anew, under the keys that they have.
		for _, v := range p.Map.Voters {
			if v.Key != s.found[v.Node].VoterKey {
				t.Errorf("%s: voter %s is named with key %q, has %q", name, v.Node, v.Key, s.found[v.Node].VoterKey)
			}
		}
	}
}

func TestNewestMap(t *testing.T) {
	t.Parallel()
	s := newStopped(t)
	for _, f := range s.found {
		f.Bus = nil
	}
	all := []core.NodeID{"n1", "n2", "n3", "n4", "n5"}
	two := s.next(s.m, core.Change{Kind: core.ChangeBoot, Node: "n1", Boot: 7})
	three := s.next(two, core.Change{Kind: core.ChangeBoot, Node: "n2", Boot: 8})
	// One voter alone has confirmed map 3; it is the newest all the same.
	s.saw(s.encode(two), "n3", "n4")
	s.confirmed(s.encode(three), "n5")
	p := s.decide(recovery.Accept{}, all...)
	wantFlags(t, p)
	if p.Map.Prev != three.Sum() || p.Map.Node("n2").Boot != 8 || p.Maps[0].InEffect {
		t.Errorf("goes on from %.12s, want map 3 %.12s, not known to be in effect; maps %+v", p.Map.Prev, three.Sum(), p.Maps)
	}
	// Map 3 of another history.
	fork := s.next(two, core.Change{Kind: core.ChangeBoot, Node: "n4", Boot: 9})
	s.confirmed(s.encode(fork), "n1")
	wantFlags(t, s.decide(recovery.Accept{}, all...), recovery.FlagMap)
	p = s.decide(recovery.Accept{Map: fork.Sum()[:12]}, all...)
	wantFlags(t, p)
	if p.Map.Prev != fork.Sum() {
		t.Errorf("goes on from %.12s, want the one named, %.12s", p.Map.Prev, fork.Sum())
	}
	// An older one may be named, but not by the way.
	p = s.decide(recovery.Accept{Map: two.Sum()}, all...)
	wantFlags(t, p, recovery.FlagOlderMap)
	if _, err := s.try(recovery.Accept{Map: "zz"}, all...); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("a checksum that no map has: got %v, want %v", err, core.ErrInvalid)
	}
}

func TestSuccessorOfAnotherMap(t *testing.T) {
	t.Parallel()
	s := newStopped(t)
	for _, f := range s.found {
		f.Bus = nil
	}
	two := s.next(s.m, core.Change{Kind: core.ChangeBoot, Node: "n1", Boot: 7})
	other := s.next(s.m, core.Change{Kind: core.ChangeBoot, Node: "n1", Boot: 8})
	three := s.next(other, core.Change{Kind: core.ChangeBoot, Node: "n2", Boot: 8})
	s.saw(s.encode(two), "n1")
	s.saw(s.encode(three), "n2")
	wantFlags(t, s.decide(recovery.Accept{}, "n1", "n2", "n3", "n4", "n5"), recovery.FlagMap)
}

func TestDisksAheadOfTheMap(t *testing.T) {
	t.Parallel()
	s := newStopped(t)
	for _, f := range s.found {
		f.Bus = nil
	}
	all := []core.NodeID{"n1", "n2", "n3", "n4", "n5"}
	// Slot 0 went on in a term 5 that no map shown knows, on its second disk
	// alone.
	row := s.m.Slots[0].Insync
	s.wrote(0, row[1], core.Version{Term: 5, Boot: 1, Seq: 11}, 5)
	wantFlags(t, s.decide(recovery.Accept{}, all...), recovery.FlagOlderMap)
	p := s.decide(recovery.Accept{OlderMap: true}, all...)
	wantFlags(t, p)
	if got := p.Map.Slots[0].Insync; !slices.Equal(got, row[1:2]) {
		t.Errorf("slot 0: in sync got %v, want the disk with the most recent copy only, %v", got, row[1:2])
	}
	for _, d := range []core.DiskID{row[0], row[2]} {
		if got := p.Orders.Remove[s.m.Disk(d).UUID]; !slices.Equal(got, []core.SlotID{0}) {
			t.Errorf("disk %d, whose history of slot 0 may be another: forgets %v, want slot 0", d, got)
		}
	}
	if len(p.Orders.Remove) != 2 || len(p.StaleSlots) != 0 {
		t.Errorf("orders %v, stale %v: want two disks, no stale slot", p.Orders.Remove, p.StaleSlots)
	}
}

// TestForgottenSlots has disks that forgot slots after they had left their rows,
// as every node does in the background.
func TestForgottenSlots(t *testing.T) {
	t.Parallel()
	const forgotten = ^uint64(0)
	s := newStopped(t)
	for _, f := range s.found {
		f.Bus = nil
	}
	all := []core.NodeID{"n1", "n2", "n3", "n4", "n5"}
	two := s.next(s.m, core.Change{Kind: core.ChangeBoot, Node: "n1", Boot: 7})
	s.saw(s.encode(two), all...)
	forget := func(slot core.SlotID, disk core.DiskID, term core.Epoch) {
		k := s.m.Disk(disk)
		for i := range s.found[k.Node].Disks {
			if d := &s.found[k.Node].Disks[i]; d.UUID == k.UUID {
				d.Slots[slot] = core.SlotState{Ballot: core.Ballot{Term: term, Boot: forgotten}}
			}
		}
	}
	// Under map 2, which changed no row: no sign of a later map.
	for id := core.DiskID(1); id <= 10; id++ {
		if !slices.Contains(s.m.Slots[0].Insync, id) {
			forget(0, id, 2)
		}
	}
	p := s.decide(recovery.Accept{}, all...)
	wantFlags(t, p)
	if got := p.Map.Slots[0].Insync; !slices.Equal(got, s.m.Slots[0].Insync) {
		t.Errorf("slot 0: in sync got %v, want %v", got, s.m.Slots[0].Insync)
	}
	// Members by map 2 that forgot their slot under a map 9 are members no
	// more: what is left are those who did not.
	row := s.m.Slots[0].Insync
	forget(0, row[0], 9)
	p = s.decide(recovery.Accept{}, all...)
	wantFlags(t, p, recovery.FlagOlderMap)
	if got := p.Map.Slots[0].Insync; !slices.Equal(got, row[1:2]) {
		t.Errorf("slot 0: in sync got %v, want the disk with the most recent copy, %v", got, row[1:2])
	}
	forget(0, row[1], 9)
	forget(0, row[2], 9)
	p = s.decide(recovery.Accept{}, all...)
	wantFlags(t, p, recovery.FlagLostSlots, recovery.FlagOlderMap)
	if !slices.Equal(p.LostSlots, []core.SlotID{0}) {
		t.Errorf("lost slots: got %v, want 0", p.LostSlots)
	}
}

func TestStaleCopy(t *testing.T) {
	t.Parallel()
	s := newStopped(t)
	slot := s.rowWith("n3", "n4", "n5")
	// Two disks of the survivors had the slot once; 3 is the better one, but
	// its node's other disk is newer still.
	old, better := core.DiskID(1), core.DiskID(3)
	s.wrote(slot, old, core.Version{Term: 1, Boot: 1, Seq: 4}, 1)
	s.wrote(slot, better, core.Version{Term: 1, Boot: 1, Seq: 6}, 1)
	wantFlags(t, s.decide(recovery.Accept{OlderMap: true}, "n1", "n2"), recovery.FlagLostSlots)
	p := s.decide(recovery.Accept{OlderMap: true, LostSlots: true}, "n1", "n2")
	want := recovery.StaleSlot{Slot: slot, Disk: better, Has: core.Version{Term: 1, Boot: 1, Seq: 6}}
	if !slices.Equal(p.StaleSlots, []recovery.StaleSlot{want}) || slices.Contains(p.LostSlots, slot) {
		t.Errorf("stale slots: got %+v, lost %v, want %+v", p.StaleSlots, p.LostSlots, want)
	}
	if got := p.Map.Slots[slot].Insync; !slices.Equal(got, []core.DiskID{better}) {
		t.Errorf("slot %d: in sync got %v, want %d", slot, got, better)
	}
	if got := p.Orders.Remove[s.m.Disk(old).UUID]; !slices.Equal(got, []core.SlotID{slot}) {
		t.Errorf("disk %d forgets %v, want slot %d", old, got, slot)
	}
}

func TestDisksThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	s := newStopped(t)
	for _, f := range s.found {
		f.Bus = nil
	}
	all := []core.NodeID{"n1", "n2", "n3", "n4", "n5"}
	d := &s.found["n2"].Disks[1]
	d.UUID, d.Error, d.Slots = "", "no such file", nil
	p := s.decide(recovery.Accept{}, all...)
	wantFlags(t, p, recovery.FlagLostDisks)
	if !strings.Contains(p.Objections[0].Message, "/d2: no such file") {
		t.Errorf("objection does not say why: %s", p.Objections[0].Message)
	}
	p = s.decide(recovery.Accept{LostDisks: true}, all...)
	wantFlags(t, p)
	if !slices.Equal(p.Orders.Exclude, []string{"n2-d2"}) || len(p.LostDisks) != 1 {
		t.Errorf("excluded %v, lost %+v, want n2-d2", p.Orders.Exclude, p.LostDisks)
	}
	for i, row := range p.Map.Slots {
		if len(row.Insync) < 2 || row.Has(p.LostDisks[0].ID) {
			t.Errorf("slot %d: in sync %v", i, row.Insync)
		}
	}
}

func TestWhatCannotBeDecided(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(*stopped)
		nodes []core.NodeID
		want  error
	}{
		"nothing is shown":   {func(*stopped) {}, nil, core.ErrInvalid},
		"a node twice":       {func(*stopped) {}, []core.NodeID{"n1", "n1"}, core.ErrInvalid},
		"two clusters":       {func(s *stopped) { s.found["n2"].Cluster = "c2" }, []core.NodeID{"n1", "n2"}, core.ErrInvalid},
		"no map":             {func(s *stopped) { s.saw(nil, "n1"); s.confirmed([]byte("x"), "n1") }, []core.NodeID{"n1"}, core.ErrNotFound},
		"no disk":            {func(s *stopped) { s.found["n1"].Disks = nil }, []core.NodeID{"n1"}, core.ErrInvalid},
		"nodes of elsewhere": {func(s *stopped) { s.found["n1"].Node = "n9" }, []core.NodeID{"n1"}, core.ErrInvalid},
		"no key":             {func(s *stopped) { s.found["n1"].VoterKey = "" }, []core.NodeID{"n1"}, core.ErrCorrupt},
	} {
		s := newStopped(t)
		c.spoil(s)
		if _, err := s.try(recovery.Accept{OlderMap: true, LostSlots: true, LostDisks: true, Intact: true}, c.nodes...); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

func TestFilesThatAreCarried(t *testing.T) {
	t.Parallel()
	s := newStopped(t)
	var found []recovery.Found
	for _, n := range []core.NodeID{"n1", "n2"} {
		b, err := recovery.EncodeFound(*s.found[n])
		if err != nil {
			t.Fatal(err)
		}
		f, err := recovery.DecodeFound(b)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, f)
	}
	accept := recovery.Accept{OlderMap: true, LostSlots: true}
	carried, err := recovery.Decide(found, accept, start().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if here := s.decide(accept, "n1", "n2"); here.Checksum != carried.Checksum {
		t.Errorf("carried files lead to map %.12s, the directories to %.12s", carried.Checksum, here.Checksum)
	}
	b, err := recovery.EncodeOrders(carried.Orders)
	if err != nil {
		t.Fatal(err)
	}
	o, m, err := recovery.DecodeOrders(b)
	if err != nil || m.Sum() != carried.Checksum || o.Keys["n1"] != "key-n1" {
		t.Errorf("orders came back as map %v, %+v, %v", m, o.Keys, err)
	}
	for _, bad := range []string{"", "{}", `{"node":1}`} {
		if _, err := recovery.DecodeFound([]byte(bad)); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("report %q: got %v, want %v", bad, err, core.ErrInvalid)
		}
		if _, _, err := recovery.DecodeOrders([]byte(bad)); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("orders %q: got %v, want %v", bad, err, core.ErrInvalid)
		}
	}
}
