package disk

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/vfs"
)

// keysOf lists the keys that are not facts about the store.
func keysOf(t *testing.T, d *Disk) []string {
	t.Helper()
	it, err := d.db.NewIter(&pebble.IterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for ok := it.First(); ok; ok = it.Next() {
		if k := it.Key(); k[0] != kindAboutIt {
			out = append(out, fmt.Sprintf("%c %x", k[0], k[1:]))
		}
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}

// history appends n entries of one row and an answer each, behind those there
// are, and commits all but the last.
func history(t *testing.T, d *Disk, slot core.SlotID, term core.Epoch, n int) {
	t.Helper()
	d.slotsMu.RLock()
	var seq uint64
	if s := d.slots[slot]; s != nil {
		seq = s.state.Last.Seq
	}
	d.slotsMu.RUnlock()
	b := core.SlotBatch{Slot: slot}
	for range n {
		seq++
		v := core.Version{Term: term, Boot: 1, Seq: seq}
		e := core.Entry{Version: v, Request: core.NewRequestID(), Answer: []byte("done")}
		e.Rows = []core.Row{{RowKey: core.RowKey{Bucket: 1, Key: fmt.Sprint("k", seq%37)}, Version: v, Value: []byte("v")}}
		b.Append = append(b.Append, e)
	}
	mark := core.Version{Term: term, Boot: 1, Seq: seq - 1}
	b.Commit = &mark
	if err := d.Apply(t.Context(), []core.SlotBatch{b}); err != nil {
		t.Fatal(err)
	}
}

// testClock stands still.
type testClock struct{ core.Clock }

func (testClock) Now() time.Time     { return time.Unix(1_700_000_000, 0) }
func (testClock) Boot() core.Instant { return 1 }

func openTest(t *testing.T, fs vfs.FS) *Disk {
	t.Helper()
	d, err := Open(t.Context(), Options{Dir: "/d", FS: fs, Clock: testClock{}, Cluster: "c", Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestReclaim: what was removed goes piece by piece, over a restart, whatever is
// written meanwhile stays, and nothing else is left in the end.
func TestReclaim(t *testing.T) {
	fs := vfs.NewMem(vfs.MemOptions{})
	if _, err := Format(t.Context(), FormatOptions{Options: Options{Dir: "/d", FS: fs, Clock: testClock{}, Cluster: "c", Node: "n1"}}); err != nil {
		t.Fatal(err)
	}
	d := openTest(t, fs)
	fence := core.Ballot{Term: 9, Boot: 1}
	for slot := range core.SlotID(3) {
		history(t, d, slot, 1, 100)
	}
	kept := slices.DeleteFunc(keysOf(t, d), func(k string) bool { return k[2:10] != "00000001" && k[0] != kindRow })
	if err := d.Apply(t.Context(), []core.SlotBatch{{Slot: 0, Remove: true}, {Slot: 2, Remove: true, Adopt: &fence}}); err != nil {
		t.Fatal(err)
	}
	steps := 0
	for more := true; more; steps++ {
		var err error
		if more, err = d.Reclaim(t.Context(), 10); err != nil {
			t.Fatal(err)
		}
		if steps == 3 {
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d = openTest(t, fs)
			// Another history begins where the old one is half gone.
			history(t, d, 2, 9, 5)
		}
	}
	if steps < 10 {
		t.Errorf("200 entries went in %d steps of 10 rows", steps)
	}
	states, err := d.Slots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := states[0]; ok || len(states) != 2 || states[2].Last.Seq != 5 || states[2].Ballot != fence {
		t.Errorf("slots after the removal: %+v", states)
	}
	var left []string
	for _, k := range keysOf(t, d) {
		if k[0] != kindRow && k[2:10] == "00000000" {
			left = append(left, k)
		}
	}
	if len(left) > 0 {
		t.Errorf("left of slot 0: %v", left)
	}
	// Five entries of the new history: a state, and a row, an index entry, a
	// head and an answer each.
	if got, want := len(keysOf(t, d)), countSlot1(kept)+1+5*4; got != want {
		t.Errorf("keys at the end: got %d, want %d", got, want)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// countSlot1 counts the keys of slot 1 in a list that has the rows of all three
// slots, which are the same in number.
func countSlot1(keys []string) int {
	rows := 0
	for _, k := range keys {
		if k[0] == kindRow {
			rows++
		}
	}
	return len(keys) - rows + rows/3
}
