package disktest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/shoalstore/shoal/core"
)

func rowTests() []namedTest {
	return []namedTest{
		{"empty", testEmpty, false},
		{"append and commit", testAppendCommit, true},
		{"refusals", testRefusals, false},
		{"undo", testUndo, false},
		{"answers", testAnswers, false},
		{"tombstones and floor", testFloor, false},
		{"entries", testEntries, false},
		{"replace", testReplace, false},
		{"remove", testRemove, false},
		{"reading below the mark", testBelowMark, false},
		{"order of keys", testOrder, false},
		{"scan", testScan, false},
		{"large values", testLarge, true},
	}
}

func (b *bench) apply(batches ...core.SlotBatch) {
	b.t.Helper()
	must(b.t, b.Apply(b.t.Context(), batches))
}

// value is what Get says, for comparing: "-" for nothing, "x" for a tombstone.
func (b *bench) value(slot core.SlotID, k core.RowKey, at core.Version) string {
	b.t.Helper()
	r, err := b.Get(b.t.Context(), slot, k, at)
	switch {
	case errors.Is(err, core.ErrNotFound):
		return "-"
	case err != nil:
		b.t.Fatalf("get %q: %v", k.Key, err)
	case r.Deleted:
		return "x"
	}
	return string(r.Value)
}

func (b *bench) want(slot core.SlotID, at core.Version, values map[string]string) {
	b.t.Helper()
	for k, want := range values {
		if got := b.value(slot, key(k), at); got != want {
			b.t.Errorf("slot %d, row %q at %v: got %q, want %q", slot, k, at, got, want)
		}
	}
}

func (b *bench) state(slot core.SlotID) core.SlotState {
	b.t.Helper()
	states, err := b.Slots(b.t.Context())
	must(b.t, err)
	return states[slot]
}

func testEmpty(t *testing.T, b *bench) {
	states, err := b.Slots(t.Context())
	must(t, err)
	if len(states) != 0 {
		t.Errorf("slots of a new disk: got %v, want none", states)
	}
	if got := b.value(1, key("a"), forever()); got != "-" {
		t.Errorf("row of a new disk: got %q", got)
	}
	_, _, err = b.Answer(t.Context(), 1, core.NewRequestID())
	wantErr(t, "answer on a new disk", err, core.ErrNotFound)
	e, err := b.Entries(t.Context(), 1, 0, forever(), 1<<20)
	if err != nil || len(e.List) != 0 || e.UpTo != forever() {
		t.Errorf("entries of a new disk: got %+v, %v", e, err)
	}
	b.apply()
	b.apply(core.SlotBatch{Slot: 1})
	b.apply(core.SlotBatch{Slot: 2, Commit: new(ver(5))}, core.SlotBatch{Slot: 2, Undo: new(ver(5))}, core.SlotBatch{Slot: 2, Remove: true})
	if states, _ = b.Slots(t.Context()); len(states) != 0 {
		t.Errorf("slots after batches without effect: got %v, want none", states)
	}
}

func testAppendCommit(t *testing.T, b *bench) {
	b.apply(core.SlotBatch{
		Slot: 7, Adopt: &core.Ballot{Term: 1, Boot: 1},
		Append: []core.Entry{entry(ver(1), put("a", "a1")), entry(ver(2), put("b", "b2"), put("c", "c2")), entry(ver(3), put("a", "a3"))},
	})
	check := func(when string, committed uint64) {
		t.Helper()
		want := core.SlotState{Ballot: core.Ballot{Term: 1, Boot: 1}, Last: ver(3)}
		if committed > 0 {
			want.Committed = ver(committed)
		}
		if got := b.state(7); got != want {
			t.Errorf("%s: state: got %+v, want %+v", when, got, want)
		}
		b.want(7, ver(3), map[string]string{"a": "a3", "b": "b2", "c": "c2", "d": "-"})
	}
	check("appended", 0)
	b.want(7, ver(2), map[string]string{"a": "a1", "b": "b2"})
	b.want(7, ver(1), map[string]string{"a": "a1", "b": "-"})
	b.want(8, ver(3), map[string]string{"a": "-"})
	b.reopen()
	check("opened again", 0)
	b.apply(core.SlotBatch{Slot: 7, Commit: new(ver(2))})
	check("2 committed", 2)
	b.want(7, ver(2), map[string]string{"a": "a1", "b": "b2"})
	b.apply(core.SlotBatch{Slot: 7, Commit: new(ver(99)), Adopt: &core.Ballot{Term: 1}})
	check("all committed", 3)
	b.reopen()
	check("opened again, all committed", 3)
	// Several batches of one slot, and of others, in one call.
	b.apply(
		core.SlotBatch{Slot: 7, Append: []core.Entry{entry(ver(4), put("a", "a4"))}},
		core.SlotBatch{Slot: 9, Append: []core.Entry{entry(ver(1), put("a", "other"))}},
		core.SlotBatch{Slot: 7, Append: []core.Entry{entry(ver(5), put("a", "a5"))}, Commit: new(ver(5))},
	)
	b.want(7, ver(5), map[string]string{"a": "a5"})
	b.want(9, ver(1), map[string]string{"a": "other"})
}

func testRefusals(t *testing.T, b *bench) {
	b.apply(core.SlotBatch{Slot: 1, Append: []core.Entry{entry(ver(1), put("a", "1"))}})
	for name, batch := range map[string]core.SlotBatch{
		"gap":              {Slot: 1, Append: []core.Entry{entry(ver(3))}},
		"repeated":         {Slot: 1, Append: []core.Entry{entry(ver(1))}},
		"lower version":    {Slot: 1, Append: []core.Entry{entry(core.Version{Term: 0, Boot: 9, Seq: 2})}},
		"row twice":        {Slot: 1, Append: []core.Entry{entry(ver(2), put("x", "1"), put("x", "2"))}},
		"replace unsorted": {Slot: 1, Replace: &core.Replace{UpTo: ver(9), Entries: []core.Entry{entry(ver(3)), entry(ver(2))}}},
		"replace beyond":   {Slot: 1, Replace: &core.Replace{UpTo: ver(9), Entries: []core.Entry{entry(ver(10))}}},
		"replace before":   {Slot: 1, Replace: &core.Replace{After: 5, UpTo: ver(4)}},
	} {
		err := b.Apply(t.Context(), []core.SlotBatch{{Slot: 2, Append: []core.Entry{entry(ver(1), put("b", "1"))}}, batch})
		if !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
	// Nothing of it happened, and the disk goes on.
	if states, err := b.Slots(t.Context()); err != nil || len(states) != 1 {
		t.Errorf("slots: got %v, %v; want slot 1 only", states, err)
	}
	b.apply(core.SlotBatch{Slot: 1, Append: []core.Entry{entry(ver(2), put("a", "2"))}, Commit: new(ver(2))})
	b.want(1, ver(2), map[string]string{"a": "2"})
	b.want(2, ver(2), map[string]string{"b": "-"})
}

func testUndo(t *testing.T, b *bench) {
	r := core.NewRequestID()
	e3 := entry(ver(3), put("a", "a3"), del("b"), put("c", "c3"))
	e3.Request, e3.Answer = r, []byte("three")
	b.apply(core.SlotBatch{
		Slot: 1, Append: []core.Entry{entry(ver(1), put("a", "a1")), entry(ver(2), put("b", "b2")), e3}, Commit: new(ver(1)),
	})
	b.want(1, ver(3), map[string]string{"a": "a3", "b": "x", "c": "c3"})
	b.apply(core.SlotBatch{Slot: 1, Undo: new(ver(2))})
	b.want(1, forever(), map[string]string{"a": "a1", "b": "b2", "c": "-"})
	_, _, err := b.Answer(t.Context(), 1, r)
	wantErr(t, "answer of what was undone", err, core.ErrNotFound)
	b.apply(core.SlotBatch{Slot: 1, Undo: new(ver(9))})
	if got := b.state(1).Last; got != ver(2) {
		t.Errorf("last after an undo above it: got %v, want %v", got, ver(2))
	}
	// Another term goes on from there, in the same batch as an undo.
	v := core.Version{Term: 2, Boot: 1, Seq: 2}
	b.apply(core.SlotBatch{Slot: 1, Undo: new(ver(1)), Append: []core.Entry{entry(v, put("b", "b2'"))}, Commit: new(v)})
	b.reopen()
	b.want(1, v, map[string]string{"a": "a1", "b": "b2'"})
	if got := b.state(1); got.Last != v || got.Committed != v {
		t.Errorf("state: got %+v, want %v committed", got, v)
	}
}

func testAnswers(t *testing.T, b *bench) {
	ids := make([]core.RequestID, 4)
	var list []core.Entry
	for i := range ids {
		ids[i] = core.NewRequestID()
		e := entry(ver(uint64(i+1)), put("a", fmt.Sprint(i)))
		e.Request, e.Answer = ids[i], []byte(fmt.Sprint("answer ", i))
		if i == 2 {
			e.Answer, e.Rows = nil, nil
		}
		list = append(list, e)
	}
	b.apply(core.SlotBatch{Slot: 1, Append: list, Commit: new(ver(3))})
	want := func(there ...bool) {
		t.Helper()
		for i, id := range ids {
			v, a, err := b.Answer(t.Context(), 1, id)
			switch {
			case !there[i]:
				wantErr(t, fmt.Sprint("answer ", i), err, core.ErrNotFound)
			case err != nil || v != list[i].Version || !bytes.Equal(a, list[i].Answer):
				t.Errorf("answer %d: got %v, %q, %v; want %v, %q", i, v, a, err, list[i].Version, list[i].Answer)
			}
		}
		_, _, err := b.Answer(t.Context(), 2, ids[0])
		wantErr(t, "answer in another slot", err, core.ErrNotFound)
	}
	want(true, true, true, true)
	b.reopen()
	want(true, true, true, true)
	must(t, b.DropAnswers(t.Context(), 3000))
	want(false, false, true, true)
	must(t, b.DropAnswers(t.Context(), 1<<40))
	want(false, false, false, true) // the last one is not committed
	b.apply(core.SlotBatch{Slot: 1, Commit: new(ver(4))})
	must(t, b.DropAnswers(t.Context(), 1<<40))
	want(false, false, false, false)
	b.reopen()
	want(false, false, false, false)
	b.want(1, ver(4), map[string]string{"a": "3"})
}

func testFloor(t *testing.T, b *bench) {
	b.apply(core.SlotBatch{Slot: 1, Append: []core.Entry{
		entry(ver(1), put("a", "1"), put("b", "1"), put("c", "1")),
		entry(ver(2), del("a")),
		entry(ver(3), del("b")),
		entry(ver(4), del("c")),
		entry(ver(5), put("c", "5")),
	}, Commit: new(ver(3))})
	b.want(1, ver(5), map[string]string{"a": "x", "b": "x", "c": "5"})
	e := entry(ver(6))
	e.Floor = 2
	b.apply(core.SlotBatch{Slot: 1, Append: []core.Entry{e}})
	if got := b.state(1).Floor; got != 0 {
		t.Errorf("floor before its commit: got %d, want 0", got)
	}
	b.reopen()
	b.want(1, ver(5), map[string]string{"a": "x", "b": "x"})
	b.apply(core.SlotBatch{Slot: 1, Commit: new(ver(6))})
	if got := b.state(1).Floor; got != 2 {
		t.Errorf("floor: got %d, want 2", got)
	}
	b.want(1, ver(6), map[string]string{"a": "-", "b": "x", "c": "5"})
	got, err := b.Entries(t.Context(), 1, 0, ver(6), 1<<20)
	must(t, err)
	if s, want := shape(got.List, ver(6)), "3:xb 5:c"; s != want {
		t.Errorf("entries: got %s, want %s", s, want)
	}
	e = entry(ver(7), del("d"))
	e.Floor = 6
	b.apply(core.SlotBatch{Slot: 1, Append: []core.Entry{e}, Commit: new(ver(7))})
	b.want(1, ver(7), map[string]string{"a": "-", "b": "-", "c": "5", "d": "x"})
}

// shape writes entries in short: number, rows, ! for an answer. Committed
// entries without either are left out: a disk need not return them.
func shape(list []core.Entry, committed core.Version) string {
	var out []string
	for i := range list {
		e := &list[i]
		if len(e.Rows) == 0 && e.Request.IsZero() && e.Version.Compare(committed) <= 0 {
			continue
		}
		var s strings.Builder
		fmt.Fprint(&s, e.Version.Seq, ":")
		for _, r := range e.Rows {
			if r.Deleted {
				s.WriteString("x")
			}
			s.WriteString(r.Key)
		}
		if !e.Request.IsZero() {
			s.WriteString("!")
		}
		out = append(out, s.String())
	}
	return strings.Join(out, " ")
}

func testEntries(t *testing.T, b *bench) {
	e1 := entry(ver(1), put("a", "1"), put("b", "1"))
	e1.Request = core.NewRequestID()
	e2 := entry(ver(2), put("b", "2"))
	e2.Request, e2.Answer = core.NewRequestID(), []byte("two")
	e3 := entry(ver(3), put("a", "3"), put("b", "3"))
	e4 := entry(ver(4))
	e5 := entry(ver(5), put("a", "5"), del("b"))
	e5.Floor = 1
	e6 := entry(ver(6), put("a", "6"))
	b.apply(core.SlotBatch{Slot: 1, Append: []core.Entry{e1, e2, e3, e4, e5, e6}, Commit: new(ver(3))})
	for _, c := range []struct {
		after uint64
		upTo  core.Version
		max   int
		want  string
		end   core.Version
	}{
		{0, ver(3), 1 << 20, "1:! 2:! 3:ab", ver(3)},
		{1, ver(3), 1 << 20, "2:! 3:ab", ver(3)},
		{0, ver(6), 1 << 20, "1:! 2:! 4: 5:axb 6:a", ver(6)},
		{3, ver(5), 1 << 20, "4: 5:axb", ver(5)},
		{3, forever(), 1 << 20, "4: 5:axb 6:a", forever()},
		{0, ver(3), 1, "1:!", ver(1)},
		{6, ver(6), 1 << 20, "", ver(6)},
	} {
		got, err := b.Entries(t.Context(), 1, c.after, c.upTo, c.max)
		must(t, err)
		// At 6 the rows of entry 3 are not the newest any more.
		if s := shape(got.List, ver(3)); s != c.want || got.UpTo != c.end {
			t.Errorf("entries (%d, %v]: got %q up to %v, want %q up to %v", c.after, c.upTo, s, got.UpTo, c.want, c.end)
		}
	}
	// What is not committed comes back as it was appended.
	got, err := b.Entries(t.Context(), 1, 3, ver(6), 1<<20)
	must(t, err)
	if err := sameEntries(got.List, []core.Entry{e4, e5, e6}); err != nil {
		t.Error(err)
	}
	b.reopen()
	got, err = b.Entries(t.Context(), 1, 3, ver(6), 1<<20)
	must(t, err)
	if err := sameEntries(got.List, []core.Entry{e4, e5, e6}); err != nil {
		t.Errorf("opened again: %v", err)
	}
}

func testReplace(t *testing.T, b *bench) {
	at := func(seq uint64) core.Version { return core.Version{Term: 3, Boot: 1, Seq: seq} }
	r := core.NewRequestID()
	old := entry(ver(4), put("d", "4"))
	old.Request = r
	b.apply(core.SlotBatch{Slot: 1, Append: []core.Entry{
		entry(ver(1), put("a", "1")), entry(ver(2), put("b", "2")), entry(ver(3), put("c", "3")), old,
		entry(ver(5), put("a", "5")), // not committed: goes, and a is 1 again
	}, Commit: new(ver(4))})
	fresh := entry(at(7), put("b", "7"), put("e", "7"))
	fresh.Request, fresh.Answer = core.NewRequestID(), []byte("seven")
	b.apply(core.SlotBatch{Slot: 1, Replace: &core.Replace{
		After: 2, UpTo: at(8), Floor: 1, Entries: []core.Entry{entry(at(6), del("c"), put("f", "6")), fresh},
	}})
	check := func() {
		t.Helper()
		b.want(1, at(8), map[string]string{"a": "1", "b": "7", "c": "x", "d": "-", "e": "7", "f": "6"})
		if got, want := b.state(1), (core.SlotState{Committed: at(8), Last: at(8), Floor: 1}); got != want {
			t.Errorf("state: got %+v, want %+v", got, want)
		}
		_, _, err := b.Answer(t.Context(), 1, r)
		wantErr(t, "answer of an entry that was replaced", err, core.ErrNotFound)
		if v, a, err := b.Answer(t.Context(), 1, fresh.Request); v != at(7) || string(a) != "seven" || err != nil {
			t.Errorf("answer that came: got %v, %q, %v", v, a, err)
		}
		got, err := b.Entries(t.Context(), 1, 0, at(8), 1<<20)
		must(t, err)
		if s, want := shape(got.List, at(8)), "1:a 6:xcf 7:be!"; s != want {
			t.Errorf("entries: got %q, want %q", s, want)
		}
	}
	check()
	b.reopen()
	check()
	// All of it anew, from below the mark, as a joiner that starts over does.
	b.apply(core.SlotBatch{Slot: 1, Undo: new(at(3)), Replace: &core.Replace{
		After: 0, UpTo: at(3), Floor: 2, Entries: []core.Entry{entry(at(2), del("a")), entry(at(3), put("z", "3"), del("b"))},
	}})
	b.want(1, at(3), map[string]string{"a": "-", "b": "x", "c": "-", "e": "-", "f": "-", "z": "3"})
	if got, want := b.state(1), (core.SlotState{Committed: at(3), Last: at(3), Floor: 2}); got != want {
		t.Errorf("state after starting over: got %+v, want %+v", got, want)
	}
	b.apply(core.SlotBatch{Slot: 1, Append: []core.Entry{entry(at(4), put("z", "4"))}, Commit: new(at(4))})
	b.want(1, at(4), map[string]string{"z": "4"})
}

func testRemove(t *testing.T, b *bench) {
	e := entry(ver(2), put("b", "2"))
	e.Request = core.NewRequestID()
	for slot := core.SlotID(1); slot <= 3; slot++ {
		b.apply(core.SlotBatch{Slot: slot, Adopt: &core.Ballot{Term: 1}, Append: []core.Entry{entry(ver(1), put("a", "1")), e}, Commit: new(ver(1))})
	}
	b.apply(core.SlotBatch{Slot: 2, Remove: true}, core.SlotBatch{Slot: 3, Remove: true, Append: []core.Entry{entry(ver(1), put("c", "1"))}})
	check := func() {
		t.Helper()
		states, err := b.Slots(t.Context())
		must(t, err)
		want := map[core.SlotID]core.SlotState{
			1: {Ballot: core.Ballot{Term: 1}, Committed: ver(1), Last: ver(2)}, 3: {Last: ver(1)},
		}
		if fmt.Sprint(states) != fmt.Sprint(want) {
			t.Errorf("slots: got %v, want %v", states, want)
		}
		b.want(1, ver(2), map[string]string{"a": "1", "b": "2"})
		b.want(2, ver(2), map[string]string{"a": "-", "b": "-"})
		b.want(3, ver(2), map[string]string{"a": "-", "b": "-", "c": "1"})
		for slot := core.SlotID(2); slot <= 3; slot++ {
			_, _, err = b.Answer(t.Context(), slot, e.Request)
			wantErr(t, "answer of a slot that was removed", err, core.ErrNotFound)
		}
		got, err := b.Entries(t.Context(), 2, 0, forever(), 1<<20)
		if err != nil || len(got.List) != 0 {
			t.Errorf("entries of a slot that was removed: got %v, %v", got, err)
		}
	}
	check()
	b.reopen()
	check()
	for range 10 {
		more, err := b.Reclaim(t.Context(), 1)
		must(t, err)
		check()
		if !more {
			break
		}
	}
	if more, err := b.Reclaim(t.Context(), 1); more || err != nil {
		t.Errorf("there is more to reclaim after all was: %v, %v", more, err)
	}
	b.reopen()
	check()
}

func testBelowMark(t *testing.T, b *bench) {
	b.apply(core.SlotBatch{Slot: 1, Append: []core.Entry{entry(ver(1), put("a", "1"))}, Commit: new(ver(1))})
	b.apply(core.SlotBatch{Slot: 1, Append: []core.Entry{entry(ver(2), put("a", "2"))}, Commit: new(ver(2))})
	if got := b.value(1, key("a"), ver(1)); got != "2" {
		t.Errorf("row as of a mark that has risen: got %q, want 2", got)
	}
	if got := b.scan(core.Scan{Bucket: 1, Visible: func(core.SlotID) (core.Version, bool) { return ver(1), true }}); got != "a=2" {
		t.Errorf("scan as of a mark that has risen: got %q, want a=2", got)
	}
}

// scan writes what a scan returns in short.
func (b *bench) scan(s core.Scan) string {
	b.t.Helper()
	if s.Visible == nil {
		s.Visible = func(core.SlotID) (core.Version, bool) { return forever(), true }
	}
	var out []string
	for f, err := range b.Scan(b.t.Context(), s) {
		must(b.t, err)
		name := f.Key
		if f.Sub != "" {
			name += "/" + f.Sub
		}
		if !s.KeysOnly {
			name += "=" + string(f.Value)
		} else if f.Value != nil {
			name += "?"
		}
		out = append(out, name)
	}
	return strings.Join(out, " ")
}

func testOrder(t *testing.T, b *bench) {
	keys := []string{
		"", "\x00", "\x00\x00", "\x00\x01", "\x00\xff", "\x01", "\x01\x00", "a", "a\x00", "a\x00b", "a\x01", "a/", "a/b",
		"aa", "b", "\xff", "\xff\x00", "\xff\xff", strings.Repeat("k", core.MaxKey),
	}
	slices.Sort(keys)
	var rows []core.Row
	for _, key := range slices.Backward(keys) {
		for _, sub := range []string{"", "\x00", "s"} {
			rows = append(rows, core.Row{RowKey: core.RowKey{Bucket: 1, Key: key, Sub: sub}, Value: []byte("v")})
		}
	}
	b.apply(core.SlotBatch{Slot: 1, Append: []core.Entry{entry(ver(1), rows...)}, Commit: new(ver(1))})
	visible := func(core.SlotID) (core.Version, bool) { return ver(1), true }
	list := func(s core.Scan) (out []core.RowKey) {
		s.Bucket, s.Visible = 1, visible
		for f, err := range b.Scan(t.Context(), s) {
			must(t, err)
			out = append(out, f.RowKey)
		}
		return out
	}
	all := list(core.Scan{KeysOnly: true})
	if len(all) != len(rows) {
		t.Fatalf("rows: got %d, want %d", len(all), len(rows))
	}
	less := func(a, b core.RowKey) int {
		if c := strings.Compare(a.Key, b.Key); c != 0 {
			return c
		}
		return strings.Compare(a.Sub, b.Sub)
	}
	if !slices.IsSortedFunc(all, less) {
		t.Errorf("rows are out of order: %v", all)
	}
	for i, k := range all {
		if k.Key == "" && k.Sub == "" {
			continue // means: from the start
		}
		if got := list(core.Scan{AfterKey: k.Key, AfterSub: k.Sub}); !slices.Equal(got, all[i+1:]) {
			t.Errorf("rows after %v: got %d, want %d", k, len(got), len(all)-i-1)
		}
	}
	for _, p := range keys {
		var prefixed, before []core.RowKey
		for _, k := range all {
			if strings.HasPrefix(k.Key, p) {
				prefixed = append(prefixed, k)
			}
			if p == "" || k.Key < p {
				before = append(before, k)
			}
		}
		if got := list(core.Scan{Prefix: p}); !slices.Equal(got, prefixed) {
			t.Errorf("rows with prefix %q: got %v, want %v", p, got, prefixed)
		}
		if got := list(core.Scan{Before: p}); !slices.Equal(got, before) {
			t.Errorf("rows before %q: got %v, want %v", p, got, before)
		}
	}
}

func testScan(t *testing.T, b *bench) {
	other := core.Row{RowKey: core.RowKey{Bucket: 2, Key: "a"}, Value: []byte("other")}
	upload := core.Row{RowKey: core.RowKey{Bucket: 1, Space: core.SpaceUpload, Key: "a", Sub: "u"}, Value: []byte("upload")}
	cursor := func(v string) core.Row {
		return core.Row{RowKey: core.RowKey{Space: core.SpaceCursor, Key: "job"}, Value: []byte(v)}
	}
	b.apply(
		core.SlotBatch{Slot: 1, Append: []core.Entry{
			entry(ver(1), put("a", "1"), put("c", "1"), put("e", "1"), other, upload, cursor("s1")),
			entry(ver(2), del("c"), put("e", "2")),
			entry(ver(3), put("a", "3"), put("g", "3")),
		}, Commit: new(ver(2))},
		core.SlotBatch{Slot: 2, Append: []core.Entry{entry(ver(1), put("b", "1"), put("d", "1"), cursor("s2"))}, Commit: new(ver(1))},
	)
	committed := func(s core.SlotID) (core.Version, bool) { return ver(2), s < 3 }
	for _, c := range []struct {
		name string
		s    core.Scan
		want string
	}{
		{"newest", core.Scan{Bucket: 1}, "a=3 b=1 d=1 e=2 g=3"},
		{"committed", core.Scan{Bucket: 1, Visible: committed}, "a=1 b=1 d=1 e=2"},
		{"one slot", core.Scan{Bucket: 1, Visible: func(s core.SlotID) (core.Version, bool) { return ver(3), s == 2 }}, "b=1 d=1"},
		{"keys", core.Scan{Bucket: 1, KeysOnly: true}, "a b d e g"},
		{"from", core.Scan{Bucket: 1, AfterKey: "b"}, "d=1 e=2 g=3"},
		{"between", core.Scan{Bucket: 1, AfterKey: "a", Before: "e"}, "b=1 d=1"},
		{"prefix", core.Scan{Bucket: 1, Prefix: "d"}, "d=1"},
		{"after the prefix", core.Scan{Bucket: 1, Prefix: "a", AfterKey: "b"}, ""},
		{"other bucket", core.Scan{Bucket: 2}, "a=other"},
		{"other space", core.Scan{Bucket: 1, Space: core.SpaceUpload}, "a/u=upload"},
		{"cursors of both slots", core.Scan{Space: core.SpaceCursor}, "job=s1 job=s2"},
		{"no bucket", core.Scan{Bucket: 3}, ""},
	} {
		if got := b.scan(c.s); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	for f, err := range b.Scan(t.Context(), core.Scan{Bucket: 1, Visible: committed}) {
		must(t, err)
		if f.Slot != 1 || f.Version != ver(1) {
			t.Errorf("first row: got slot %d, version %v; want 1, %v", f.Slot, f.Version, ver(1))
		}
		break
	}
}

func testLarge(t *testing.T, b *bench) {
	values := map[string]string{}
	var rows []core.Row
	for i, n := range []int{0, 1, 500, 1000, 1016, 1017, 1024, 5000, 64 << 10, 128<<10 + 300} {
		k := fmt.Sprint("k", i)
		values[k] = strings.Repeat(string(rune('a'+i)), n)
		rows = append(rows, put(k, values[k]))
	}
	b.apply(core.SlotBatch{Slot: 1, Append: []core.Entry{entry(ver(1), rows...)}, Commit: new(ver(1))})
	b.want(1, ver(1), values)
	b.reopen()
	b.want(1, ver(1), values)
	n := 0
	for f, err := range b.Scan(t.Context(), core.Scan{Bucket: 1, Visible: func(core.SlotID) (core.Version, bool) { return ver(1), true }}) {
		must(t, err)
		if string(f.Value) != values[f.Key] {
			t.Errorf("scan: value of %q differs", f.Key)
		}
		n++
	}
	if n != len(values) {
		t.Errorf("scan: got %d rows, want %d", n, len(values))
	}
}
