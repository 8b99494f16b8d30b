package job

import (
	"testing"

	"github.com/shoalstore/shoal/core"
)

// twoSlots is a map by which a owns slot 0, and the given node slot 1.
func twoSlots(second core.NodeID) *core.Map {
	disks := map[core.NodeID]core.DiskID{"a": 1, "b": 2}
	return &core.Map{
		Nodes: []core.Node{{ID: "a", State: core.NodeActive}, {ID: "b", State: core.NodeActive}},
		Disks: []core.Disk{{ID: 1, Node: "a", State: core.DiskOK}, {ID: 2, Node: "b", State: core.DiskOK}},
		Slots: core.SlotTable{{Insync: []core.DiskID{1}}, {Insync: []core.DiskID{disks[second]}}},
	}
}

// through is a run in which slots are through, with one object each.
func through(phase State, slots ...core.SlotID) *run {
	r := &run{phase: phase, slots: map[core.SlotID]*progress{}, waiting: map[string]int{}}
	for _, s := range slots {
		p := &progress{loaded: true}
		p.cursor.Finished = true
		p.cursor.Books.Done = Amount{1, 10}
		r.slots[s] = p
	}
	return r
}

// TestTallyWhileSlotsMove: a has just given slot 1 to b and has not noticed in its
// run; b has read the cursor. Objects of the slot must not count twice: chaos found
// a copy of 60 objects that claimed to have written 61.
func TestTallyWhileSlotsMove(t *testing.T) {
	before, after := twoSlots("a"), twoSlots("b")
	a, b := through(Running, 0, 1), through(Running, 1)
	for name, test := range map[string]struct {
		keeper, a, b *core.Map
		agreed       bool
	}{
		"all know":           {after, after, after, true},
		"a does not know":    {after, before, after, false},
		"b does not know":    {after, after, before, false},
		"keeper is outdated": {before, after, after, false},
	} {
		t.Run(name, func(t *testing.T) {
			ra, rb := a.progress(test.a, "a"), b.progress(test.b, "b")
			p := tally(test.keeper, Running, map[core.NodeID]*progressReply{"a": &ra, "b": &rb})
			if p.agreed != test.agreed || p.through != test.agreed || p.whole != test.agreed {
				t.Fatalf("agreed %v, through %v, whole %v; want %v of each", p.agreed, p.through, p.whole, test.agreed)
			}
			if want := (Amount{2, 20}); p.agreed && p.books.Done != want {
				t.Errorf("done %v, want %v", p.books.Done, want)
			}
		})
	}
}

func TestTallyWithoutAnAnswer(t *testing.T) {
	m := twoSlots("b")
	ra, rb := through(Running, 0).progress(m, "a"), through(Planning, 1).progress(m, "b")
	none := through(Running, 1).progress(nil, "b")
	for name, replies := range map[string]map[core.NodeID]*progressReply{
		"silent":        {"a": &ra, "b": nil},
		"another phase": {"a": &ra, "b": &rb},
		"no map yet":    {"a": &ra, "b": &none},
	} {
		if p := tally(m, Running, replies); p.through || p.whole {
			t.Errorf("%s: through %v, whole %v", name, p.through, p.whole)
		}
	}
}
