package job

import (
	"slices"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

// TestRangeCalls: without failures five nodes list every shape of key space in
// hardly more calls than one would need, each key is counted once, and they are
// several times as fast.
func TestRangeCalls(t *testing.T) {
	const page = 100
	shapes := keyShapes(20_000)
	for _, name := range slices.Sorted(mapsKeys(shapes)) {
		keys := shapes[name]
		for _, nodes := range []int{1, 10} {
			s := newRangeSim(t, 1, simOptions{nodes: nodes, keys: keys, page: page, window: 8, countOnly: true, listTime: 50 * time.Millisecond, writeTime: 4 * time.Millisecond})
			s.calm = true
			if err := s.run(0, time.Hour); err != nil {
				t.Errorf("%s, %d nodes: %v", name, nodes, err)
				continue
			}
			serial := (len(keys) + page - 1) / page
			most := serial*11/10 + 16
			speed := float64(serial) * 0.05 / s.ends.Seconds()
			t.Logf("%-12s %2d nodes: %d keys, %3d calls (serial %d, most %d), %d ranges, %5.2f x, budget %d",
				name, nodes, len(keys), s.listCalls, serial, most, len(s.table().ranges), speed, s.table().budget.Spent)
			// Five nodes list ten ranges.
			if nodes == 10 && serial >= 200 && speed < 4 {
				t.Errorf("%s: only %.2f times as fast as one lister", name, speed)
			}
			if s.listCalls > most {
				t.Errorf("%s, %d nodes: %d calls, want %d at the most", name, nodes, s.listCalls, most)
			}
		}
	}
}

// TestRangeSpeed: 200,000 keys of each shape, 1,000 a page and 50 ms for each: five
// nodes, which list ten ranges, are four times as fast as one lister at least, and
// however many there are they keep to the calls that are allowed.
func TestRangeSpeed(t *testing.T) {
	const n, page, pageTime = 200_000, 1000, 50 * time.Millisecond
	shapes := keyShapes(n)
	for _, name := range []string{"counter", "deep", "one prefix"} {
		for _, nodes := range []int{10, 60} {
			s := newRangeSim(t, 7, simOptions{nodes: nodes, keys: shapes[name], page: page, window: 8, countOnly: true, listTime: pageTime, writeTime: 10 * time.Millisecond})
			s.calm = true
			if err := s.run(0, time.Hour); err != nil {
				t.Errorf("%s, %d lanes: %v", name, nodes, err)
				continue
			}
			serial := (len(shapes[name]) + page - 1) / page
			most := serial*11/10 + 16
			speed := float64(serial) * pageTime.Seconds() / s.ends.Seconds()
			t.Logf("%-12s %2d lanes: %3d calls (serial %d, most %d), %d ranges, %5.2f x", name, nodes, s.listCalls, serial, most, len(s.table().ranges), speed)
			if nodes == 10 && speed < 4 {
				t.Errorf("%s: only %.2f times as fast as one lister", name, speed)
			}
			if s.listCalls > most {
				t.Errorf("%s, %d lanes: %d calls, want %d at the most", name, nodes, s.listCalls, most)
			}
		}
	}
}

// troubled is a simulation in which everything fails for a while.
func troubled(seed uint64, sabotage rangeSabotage) simOptions {
	shapes := keyShapes(2500)
	names := slices.Sorted(mapsKeys(shapes))
	o := simOptions{
		nodes: 2 + int(seed%4), keys: shapes[names[seed%uint64(len(names))]], page: 25, window: 4, sabotage: sabotage,
		crashes: seed%3 != 0, hangs: seed%5 != 0, tableFaults: seed%2 == 0, listFaults: seed%7 != 0, batchFaults: seed%4 != 0,
		volatile: 0.1, listTime: 40 * time.Millisecond, workTime: 5 * time.Millisecond, countOnly: seed%11 == 10,
	}
	o.writeTime = 4 * time.Millisecond
	if seed%4 == 3 {
		o.writeTime = 300 * time.Millisecond
	}
	if seed%6 == 5 {
		o.takes = func(k string) bool { return len(k)%2 == 0 || k[len(k)-1] == '1' }
	}
	return o
}

func runTroubled(t *testing.T, seed uint64, sabotage rangeSabotage) error {
	s := newRangeSim(t, seed, troubled(seed, sabotage))
	return s.run(20*time.Second, 10*time.Minute)
}

// TestRangeFaults: whatever fails, every key that is there throughout is counted
// once, and the job ends when nothing fails any more.
func TestRangeFaults(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 20
	}
	for seed := range seeds {
		if *onlySeed != 0 && seed != *onlySeed {
			continue
		}
		if err := runTroubled(t, seed, rangeSabotage{}); err != nil {
			t.Fatalf("seed %d (go test -run TestRangeFaults -ranges.seed %d): %v", seed, seed, err)
		}
	}
}

// TestRangeBudget: without it, calls do not keep to their bound.
func TestRangeBudget(t *testing.T) {
	keys := keyShapes(4000)["odd"]
	s := newRangeSim(t, 1, simOptions{
		nodes: 40, keys: keys, page: 20, window: 8, countOnly: true, listTime: 50 * time.Millisecond, writeTime: 4 * time.Millisecond,
		sabotage: rangeSabotage{noBudget: true},
	})
	s.calm = true
	if err := s.run(0, time.Hour); err != nil {
		t.Fatal(err)
	}
	if most := len(keys)/20*11/10 + 16; s.listCalls <= most {
		t.Errorf("%d calls, and %d are allowed: the test shows nothing", s.listCalls, most)
	}
}

// TestRangeSabotage: without any one of the rules the simulation finds an error.
func TestRangeSabotage(t *testing.T) {
	for name, sabotage := range map[string]rangeSabotage{
		"rows are written whatever their version": {noVersion: true},
		"a range is listed beyond a cut":          {noCeiling: true},
		"the position moves before the keys":      {early: true},
		"a range is kept after a conflict":        {keepOnConflict: true},
		"pages are counted again":                 {countTwice: true},
		"a range is cut behind its listing":       {behind: true},
		"failures are counted, but not noted":     {noNotes: true},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(60) {
				if err := runTroubled(t, seed, sabotage); err != nil {
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			t.Error("nobody noticed")
		})
	}
}

// TestListers: those list who hold a range that is not through, and say so.
func TestListers(t *testing.T) {
	row := func(after, last string, holder core.NodeID, done bool, objects int64) rowOfRange {
		return rowOfRange{keyRange: keyRange{
			After: after, Last: last, Holder: holder, Done: done, Books: Books{Done: Amount{Objects: objects}},
		}}
	}
	table := &rangeTable{ranges: []rowOfRange{
		row("", "a", "n3", false, 0), row("a", "b", "n1", true, 5), row("b", "c", "n2", false, 7), row("c", "d", "", false, 0), row("d", "", "n3", false, 1),
	}}
	live := map[heldBy]liveRange{
		{"n3", ""}:  {Books: Books{Done: Amount{Objects: 10}}, Listed: true},
		{"n1", "a"}: {Books: Books{Done: Amount{Objects: 99}}}, // has let go of it
		{"n3", "d"}: {Books: Books{Done: Amount{Objects: 20}}},
	}
	var p polled
	p.addRanges(table, live)
	if !slices.Equal(p.listers, []core.NodeID{"n3"}) {
		t.Errorf("got %v, want n3: n1 is through, and n2 says nothing", p.listers)
	}
	if p.books.Done.Objects != 10+5+7+20 || p.through || p.listed || p.whole {
		t.Errorf("got %+v", p)
	}
}
