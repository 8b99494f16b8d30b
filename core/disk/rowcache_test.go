package disk

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/vfs"
)

// formatTest makes a disk in memory.
func formatTest(t *testing.T) *vfs.Mem {
	t.Helper()
	fs := vfs.NewMem(vfs.MemOptions{})
	o := FormatOptions{Options: Options{Dir: "/d", FS: fs, Clock: testClock{}, Cluster: "c", Node: "n1"}}
	if _, err := Format(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	return fs
}

func version(seq uint64) core.Version { return core.Version{Term: 1, Boot: 1, Seq: seq} }

func rowKey(key string) core.RowKey { return core.RowKey{Bucket: 1, Key: key} }

// entryOf is an entry with one row.
func entryOf(v core.Version, key, value string) core.Entry {
	return core.Entry{Version: v, Rows: []core.Row{{RowKey: rowKey(key), Version: v, Value: []byte(value)}}}
}

func applyTest(t *testing.T, d *Disk, batches ...core.SlotBatch) {
	t.Helper()
	if err := d.Apply(t.Context(), batches); err != nil {
		t.Fatal(err)
	}
	if _, err := d.CheckRows(); err != nil {
		t.Fatal(err)
	}
}

func known(t *testing.T, d *Disk) int {
	t.Helper()
	n, err := d.CheckRows()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestRowsAreKept: once a row is committed the next lookups of it, and the
// commit of what replaces it, do not ask Pebble.
func TestRowsAreKept(t *testing.T) {
	d := openTest(t, formatTest(t))
	defer func() { _ = d.Close() }()
	seq := uint64(0)
	put := func(value string) {
		t.Helper()
		seq++
		v := version(seq)
		applyTest(t, d, core.SlotBatch{Slot: 3, Append: []core.Entry{entryOf(v, "a", value)}})
		applyTest(t, d, core.SlotBatch{Slot: 3, Commit: &v})
	}
	put("one")
	if n := known(t, d); n != 1 {
		t.Fatalf("%d rows are kept after a commit, want 1", n)
	}
	put("two")
	key := rowKey("a")
	row, ok := d.cached(3, &key, rowPrefix(&key, 3), version(seq), nil)
	if !ok || string(row.Value) != "two" || row.Version != version(2) {
		t.Errorf("the row in memory is %q of %v (%v), want \"two\" of %v", row.Value, row.Version, ok, version(2))
	}
	if row, ok := d.cached(4, &key, rowPrefix(&key, 4), version(seq), nil); ok {
		t.Errorf("a row of another slot is in memory: %v", row)
	}
	put(strings.Repeat("x", keepValue+1))
	if _, ok := d.cached(3, &key, rowPrefix(&key, 3), version(seq), nil); ok {
		t.Error("a large value is kept in memory")
	}
	if row, err := d.Get(t.Context(), 3, key, version(seq)); err != nil || len(row.Value) != keepValue+1 {
		t.Errorf("the row has %d bytes (%v), want %d", len(row.Value), err, keepValue+1)
	}
}

// TestRowsAreBounded: what is kept stays below the limit, whatever is written.
func TestRowsAreBounded(t *testing.T) {
	d := openTest(t, formatTest(t))
	defer func() { _ = d.Close() }()
	d.rows.limit = 32 << 10
	for seq := uint64(1); seq < 200; seq++ {
		v := version(seq)
		mark := version(seq - 1)
		b := core.SlotBatch{Slot: 3, Append: []core.Entry{entryOf(v, fmt.Sprint(seq%90), strings.Repeat("x", 1000))}}
		if seq > 1 {
			b.Commit = &mark
		}
		applyTest(t, d, b)
	}
	if n := known(t, d); n < 10 || n > 32 {
		t.Errorf("%d rows of 1000 bytes are kept in 32 KiB, want 10 to 32", n)
	}
	// Versions that pile up, because a slot cannot commit, are not kept.
	for seq := uint64(200); seq < 200+3*keepVersions; seq++ {
		applyTest(t, d, core.SlotBatch{Slot: 3, Append: []core.Entry{entryOf(version(seq), "piled", "x")}})
	}
	end := version(199 + 3*keepVersions)
	applyTest(t, d, core.SlotBatch{Slot: 3, Commit: &end})
	if row, err := d.Get(t.Context(), 3, rowKey("piled"), end); err != nil || row.Version != end {
		t.Errorf("the row is of %v (%v), want %v", row.Version, err, end)
	}
}

// TestDamagedMemory: a row that is not what it was any more is read from the disk.
func TestDamagedMemory(t *testing.T) {
	d := openTest(t, formatTest(t))
	defer func() { _ = d.Close() }()
	v := version(1)
	applyTest(t, d, core.SlotBatch{Slot: 3, Append: []core.Entry{entryOf(v, "a", "value")}}, core.SlotBatch{Slot: 3, Commit: &v})
	key := rowKey("a")
	kept := d.rows.get(rowPrefix(&key, 3))
	if len(kept) != 1 {
		t.Fatalf("%d versions are kept, want 1", len(kept))
	}
	kept[0].value[sumSize] ^= 1
	if row, err := d.Get(t.Context(), 3, key, v); err != nil || string(row.Value) != "value" {
		t.Errorf("the row is %q (%v), want \"value\"", row.Value, err)
	}
}

// TestRowsUnderChange: while a change is on its way what it changes is read from
// the disk, where the change shows before it is durable; so the rows of one entry
// are never seen in two states. A change that fails leaves nothing in memory.
func TestRowsUnderChange(t *testing.T) {
	var held atomic.Bool
	synced, goOn := make(chan struct{}), make(chan error)
	fs := vfs.WithHook(formatTest(t), func(op vfs.Op) error {
		if op.Kind == vfs.OpSync && strings.HasSuffix(op.Name, ".log") && held.CompareAndSwap(true, false) {
			close(synced)
			return <-goOn
		}
		return nil
	})
	d := openTest(t, fs)
	defer func() { _ = d.Close() }()
	v := version(1)
	large := strings.Repeat("y", 2*keepValue)
	e := entryOf(v, "a", "old")
	e.Rows = append(e.Rows, core.Row{RowKey: rowKey("b"), Version: v, Value: []byte("old" + large)})
	applyTest(t, d, core.SlotBatch{Slot: 3, Append: []core.Entry{e}, Commit: &v})

	w := core.Version{Term: 2, Boot: 1, Seq: 1}
	e = entryOf(w, "a", "new")
	e.Rows = append(e.Rows, core.Row{RowKey: rowKey("b"), Version: w, Value: []byte("new" + large)})
	held.Store(true)
	applied := make(chan error, 1)
	go func() {
		applied <- d.Apply(t.Context(), []core.SlotBatch{{Slot: 3, Undo: &core.Version{}, Replace: &core.Replace{UpTo: w, Entries: []core.Entry{e}}}})
	}()
	<-synced
	a, aerr := d.Get(t.Context(), 3, rowKey("a"), w)
	b, berr := d.Get(t.Context(), 3, rowKey("b"), w)
	if aerr != nil || berr != nil || a.Version != b.Version || !bytes.Equal(a.Value, b.Value[:3]) {
		t.Errorf("one row of an entry is %q of %v (%v), the other %.3q of %v (%v)", a.Value, a.Version, aerr, b.Value, b.Version, berr)
	}
	broken := errors.New("broken")
	goOn <- broken
	if err := <-applied; !errors.Is(err, broken) {
		t.Errorf("Apply on a disk that broke: %v", err)
	}
	if n := known(t, d); n != 0 {
		t.Errorf("%d rows are kept after a change that failed, want 0", n)
	}
}
