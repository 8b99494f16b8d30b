package disk_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/disk"
	"github.com/shoalstore/shoal/core/vfs"
)

func TestFormatAndIdentity(t *testing.T) {
	m := vfs.NewMem(vfs.MemOptions{})
	o := small(m, "/disks/d1")
	_, err := disk.Open(t.Context(), o)
	wantErr(t, "open of a missing directory", err, core.ErrUnformatted)
	must(t, m.MkdirAll("/disks/d1/lost+found"))
	_, err = disk.Open(t.Context(), o)
	wantErr(t, "open of an empty directory", err, core.ErrUnformatted)
	if names, _ := m.List("/disks/d1"); len(names) != 1 {
		t.Fatalf("open left %q in a directory that is not a disk", names)
	}
	id := format(t, o)
	if id.Cluster != cluster || id.Node != node || len(id.UUID) != 36 || id.Format != disk.FormatVersion || id.Created.IsZero() {
		t.Errorf("identity: got %+v", id)
	}
	_, err = disk.Format(t.Context(), disk.FormatOptions{Options: o})
	wantErr(t, "format of a disk", err, core.ErrExists)
	if !strings.Contains(err.Error(), id.UUID) {
		t.Errorf("the refusal does not say which disk it is: %v", err)
	}
	d := open(t, o)
	if d.Identity() != id {
		t.Errorf("identity: got %+v, want %+v", d.Identity(), id)
	}
	_, err = disk.Open(t.Context(), o)
	wantErr(t, "second open", err, core.ErrLocked)
	_, err = disk.Format(t.Context(), disk.FormatOptions{Options: o, Force: true})
	wantErr(t, "format by force of a disk in use", err, core.ErrLocked)
	must(t, d.Apply(t.Context(), []core.SlotBatch{{Slot: 1, Append: []core.Entry{put(1, "a", "1")}}}))
	must(t, d.Close())
	must(t, d.Close())
	if _, err := d.Slots(t.Context()); !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("slots of a closed disk: got %v, want ErrUnavailable", err)
	}

	for name, wrong := range map[string]func(*disk.Options){
		"cluster": func(o *disk.Options) { o.Cluster = "another" },
		"node":    func(o *disk.Options) { o.Node = "n2" },
	} {
		w := o
		wrong(&w)
		_, err := disk.Open(t.Context(), w)
		wantErr(t, "disk of another "+name, err, disk.ErrForeign)
	}

	again, err := disk.Format(t.Context(), disk.FormatOptions{Options: o, UUID: "chosen", Force: true})
	must(t, err)
	if again.UUID != "chosen" {
		t.Errorf("uuid: got %q, want the chosen one", again.UUID)
	}
	d = open(t, o)
	if states, err := d.Slots(t.Context()); err != nil || len(states) != 0 {
		t.Errorf("slots of a disk that was formatted again: got %v, %v", states, err)
	}
	must(t, d.Close())
}

func TestFormatRefusals(t *testing.T) {
	m := vfs.NewMem(vfs.MemOptions{})
	must(t, m.MkdirAll("/d"))
	must(t, m.MkdirAll("/d/photos"))
	o := small(m, "/d")
	_, err := disk.Format(t.Context(), disk.FormatOptions{Options: o})
	wantErr(t, "format of a directory with something in it", err, core.ErrNotEmpty)
	for _, bad := range []func(*disk.Options){
		func(o *disk.Options) { o.Cluster = "" },
		func(o *disk.Options) { o.Node = "" },
		func(o *disk.Options) { o.Node = "No Name" },
		func(o *disk.Options) { o.Clock = nil },
		func(o *disk.Options) { o.Dir = "" },
	} {
		w := o
		bad(&w)
		_, err := disk.Format(t.Context(), disk.FormatOptions{Options: w, Force: true})
		wantErr(t, "format with options that lack something", err, core.ErrInvalid)
	}
	_, err = disk.Format(t.Context(), disk.FormatOptions{Options: o, Force: true})
	must(t, err)
	if _, err := m.Stat("/d/photos"); err != nil {
		t.Errorf("format by force removed what is not a disk's: %v", err)
	}
}

// TestFormatRenew: a disk of the cluster is formatted anew, but nothing else is.
func TestFormatRenew(t *testing.T) {
	renew := func(o disk.Options) error {
		_, err := disk.Format(t.Context(), disk.FormatOptions{Options: o, Renew: true})
		return err
	}
	m := vfs.NewMem(vfs.MemOptions{})
	o := small(m, "/d")
	must(t, renew(o)) // an empty directory
	first, err := disk.ReadIdentity(m, "/d")
	must(t, err)
	must(t, renew(o))
	if second, err := disk.ReadIdentity(m, "/d"); err != nil || second.UUID == first.UUID {
		t.Errorf("got disk %v, %v, want another one than %v", second, err, first)
	}
	other := o
	other.Cluster = "another"
	wantErr(t, "renewal of another cluster's disk", renew(other), core.ErrExists)
	must(t, m.MkdirAll("/d/photos"))
	wantErr(t, "renewal of a disk with something else in it", renew(o), core.ErrNotEmpty)
	must(t, m.RemoveAll("/d/photos"))
	for _, name := range []string{"/d/shoal.json", "/d/shoal.json.bak"} {
		f, err := m.OpenReadWrite(name)
		must(t, err)
		_, err = f.WriteAt([]byte("damage"), 10)
		must(t, err)
		must(t, f.Close())
	}
	must(t, renew(o)) // nobody can tell which disk it was
	must(t, m.MkdirAll("/e/data"))
	wantErr(t, "renewal of what is no disk", renew(small(m, "/e")), core.ErrNotEmpty)
	if _, err := m.Stat("/e/data"); err != nil {
		t.Errorf("a refused renewal removed something: %v", err)
	}
}

// TestFormatInterrupted fails each operation of Format, and loses power at it.
// Open never takes what is left for a disk that works, and formatting it again,
// without force, makes it one.
func TestFormatInterrupted(t *testing.T) {
	step := int64(1)
	if raceEnabled {
		step = 7
	}
	for k := int64(1); ; k += step {
		m := vfs.NewMem(vfs.MemOptions{})
		must(t, m.MkdirAll("/d"))
		must(t, m.SyncDir("/"))
		var n atomic.Int64
		h := vfs.WithHook(m, func(vfs.Op) error {
			if n.Add(1) >= k {
				return syscall.EIO
			}
			return nil
		})
		_, ferr := disk.Format(t.Context(), disk.FormatOptions{Options: small(h, "/d")})
		if ferr == nil {
			if n.Load() >= k {
				t.Fatalf("operation %d failed, and Format does not say so", k)
			}
			return
		}
		for name, left := range map[string]*vfs.Mem{"as it is": m, "after a crash": m.Crash(nil)} {
			d, err := disk.Open(t.Context(), small(left, "/d"))
			if err == nil {
				// The last steps may have been done.
				must(t, d.Close())
				continue
			}
			wantErr(t, fmt.Sprintf("open after operation %d failed, %s", k, name), err, core.ErrUnformatted)
			format(t, small(left, "/d"))
			d, err = disk.Open(t.Context(), small(left, "/d"))
			must(t, err)
			must(t, d.Close())
		}
	}
}

func TestIdentityCopies(t *testing.T) {
	write := func(m *vfs.Mem, name, content string) {
		if err := m.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		f, err := m.Create(name)
		must(t, err)
		_, err = f.Write([]byte(content))
		must(t, err)
		must(t, f.Close())
	}
	read := func(m *vfs.Mem, name string) string {
		f, err := m.Open(name)
		must(t, err)
		b, err := io.ReadAll(f)
		must(t, errors.Join(err, f.Close()))
		return string(b)
	}
	base := vfs.NewMem(vfs.MemOptions{})
	id := format(t, small(base, "/d"))
	main, backup := "/d/shoal.json", "/d/shoal.json.bak"
	good := read(base, main)
	if read(base, backup) != good {
		t.Fatal("the copies differ")
	}
	for name, damage := range map[string]func(m *vfs.Mem){
		"main missing":   func(m *vfs.Mem) { must(t, m.Remove(main)) },
		"backup missing": func(m *vfs.Mem) { must(t, m.Remove(backup)) },
		"main damaged":   func(m *vfs.Mem) { must(t, m.Corrupt(main, 40, 1)) },
		"main empty":     func(m *vfs.Mem) { write(m, main, "") },
		"backup damaged": func(m *vfs.Mem) { must(t, m.Corrupt(backup, 40, 1)) },
		"main formatted by hand": func(m *vfs.Mem) {
			write(m, main, strings.ReplaceAll(good, "\n", "\n  "))
			must(t, m.Remove(backup))
		},
	} {
		m := base.Clone()
		damage(m)
		d, err := disk.Open(t.Context(), small(m, "/d"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d.Identity() != id {
			t.Errorf("%s: got %+v, want %+v", name, d.Identity(), id)
		}
		must(t, d.Close())
		if read(m, main) != good || read(m, backup) != good {
			t.Errorf("%s: the copies were not mended", name)
		}
	}
	m := base.Clone()
	must(t, m.Corrupt(main, 40, 1))
	must(t, m.Corrupt(backup, 41, 1))
	_, err := disk.Open(t.Context(), small(m, "/d"))
	wantErr(t, "both copies damaged", err, core.ErrCorrupt)
	_, err = disk.Format(t.Context(), disk.FormatOptions{Options: small(m, "/d")})
	wantErr(t, "format of a disk with damaged copies", err, core.ErrExists)
}

func TestMetaLostAndReset(t *testing.T) {
	m := vfs.NewMem(vfs.MemOptions{})
	o := small(m, "/d")
	id := format(t, o)
	d := open(t, o)
	must(t, d.Apply(t.Context(), []core.SlotBatch{{Slot: 1, Append: []core.Entry{put(1, "a", "1")}}}))
	meta, body := damageShard(1)
	writeShard(t, d, meta, body)
	must(t, d.Close())

	// A meta of another disk is noticed.
	other := vfs.NewMem(vfs.MemOptions{})
	format(t, small(other, "/d"))
	foreign := other.Clone()
	must(t, foreign.RemoveAll("/d/shoal.json"))
	must(t, foreign.RemoveAll("/d/shoal.json.bak"))
	for _, n := range []string{"shoal.json", "shoal.json.bak"} {
		copyFile(t, m, foreign, "/d/"+n)
	}
	_, err := disk.Open(t.Context(), small(foreign, "/d"))
	wantErr(t, "rows of another disk", err, disk.ErrForeign)

	empty := m.Clone()
	must(t, empty.RemoveAll("/d/meta"))
	must(t, empty.MkdirAll("/d/meta"))
	_, err = disk.Open(t.Context(), small(empty, "/d"))
	wantErr(t, "open with empty meta", err, core.ErrCorrupt)
	must(t, m.RemoveAll("/d/meta"))
	_, err = disk.Open(t.Context(), o)
	wantErr(t, "open without meta", err, core.ErrCorrupt)
	for _, m := range []*vfs.Mem{m, empty} {
		o := small(m, "/d")
		fresh, err := disk.ResetMeta(t.Context(), o, "")
		must(t, err)
		if fresh.UUID == id.UUID || fresh.Generation != id.Generation+1 || fresh.Cluster != id.Cluster {
			t.Errorf("identity: got %+v after %+v", fresh, id)
		}
		d, err := disk.Open(t.Context(), o)
		must(t, err)
		if states, err := d.Slots(t.Context()); err != nil || len(states) != 0 {
			t.Errorf("slots: got %v, %v; want none", states, err)
		}
		n := 0
		for info, err := range d.Shards(t.Context(), core.ShardID{}) {
			must(t, err)
			if info.ShardMeta != meta || info.Size != int64(len(body)) {
				t.Errorf("shard: got %+v, want %+v", info, meta)
			}
			n++
		}
		if n != 1 {
			t.Errorf("shards: got %d, want 1", n)
		}
		_, err = disk.ResetMeta(t.Context(), o, "")
		wantErr(t, "reset of a disk that is open", err, core.ErrLocked)
		must(t, d.Close())
	}
	// Rows that are there are put aside.
	named, err := disk.ResetMeta(t.Context(), o, "my-name")
	must(t, err)
	if named.UUID != "my-name" {
		t.Errorf("uuid: got %q", named.UUID)
	}
	if _, err := m.Stat("/d/meta.lost"); err != nil {
		t.Errorf("the old rows: %v", err)
	}
	must(t, open(t, o).Close())
}

func copyFile(t *testing.T, from, to vfs.FS, name string) {
	t.Helper()
	f, err := from.Open(name)
	must(t, err)
	b, err := io.ReadAll(f)
	must(t, errors.Join(err, f.Close()))
	g, err := to.Create(name)
	must(t, err)
	_, err = g.Write(b)
	must(t, errors.Join(err, g.Close()))
}

// TestResetInterrupted loses power at each operation of ResetMeta. Repeating it
// always ends with a disk that has its shards.
func TestResetInterrupted(t *testing.T) {
	base := vfs.NewMem(vfs.MemOptions{})
	old := format(t, small(base, "/d"))
	d := open(t, small(base, "/d"))
	meta, body := damageShard(1)
	writeShard(t, d, meta, body)
	must(t, d.Close())
	step := int64(1)
	if raceEnabled {
		step = 9
	}
	for k := int64(1); ; k += step {
		m := base.Clone()
		var n atomic.Int64
		h := vfs.WithHook(m, func(vfs.Op) error {
			if n.Add(1) >= k {
				return syscall.EIO
			}
			return nil
		})
		if _, err := disk.ResetMeta(t.Context(), small(h, "/d"), ""); err == nil {
			return
		}
		m = m.Crash(nil)
		d, err := disk.Open(t.Context(), small(m, "/d"))
		if err == nil {
			// Nothing had happened yet, or all had.
			if _, serr := d.Open(t.Context(), meta.ID); serr != nil {
				t.Fatalf("operation %d: the shard is gone: %v", k, serr)
			}
			must(t, d.Close())
		} else {
			wantErr(t, fmt.Sprintf("open after operation %d", k), err, core.ErrCorrupt)
		}
		id, err := disk.ResetMeta(t.Context(), small(m, "/d"), "")
		if err != nil || id.UUID == old.UUID {
			t.Fatalf("operation %d, then again: got %+v, %v", k, id, err)
		}
		d, err = disk.Open(t.Context(), small(m, "/d"))
		must(t, err)
		r, err := d.Open(t.Context(), meta.ID)
		must(t, err)
		must(t, errors.Join(r.Close(), d.Close()))
	}
}

const holdVariable = "SHOAL_TEST_HOLD_DISK"

// TestHoldDisk is the other process of TestTwoProcesses.
func TestHoldDisk(t *testing.T) {
	dir := os.Getenv(holdVariable)
	if dir == "" {
		return // it runs as a process of its own only
	}
	d := open(t, small(vfs.OS(), dir))
	must(t, d.Apply(t.Context(), []core.SlotBatch{{Slot: 1, Append: []core.Entry{put(1, "a", "1")}}}))
	fmt.Println("holding")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent is done
	t.Fatal("the parent did not kill this process")
}

// TestTwoProcesses opens a disk that another process has, kills that process,
// and finds what it was told is durable.
func TestTwoProcesses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	format(t, small(vfs.OS(), dir))
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHoldDisk$", "-test.v")
	c.Env = append(os.Environ(), holdVariable+"="+dir)
	in, err := c.StdinPipe()
	must(t, err)
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "holding" {
	}
	_, err = disk.Open(t.Context(), small(vfs.OS(), dir))
	wantErr(t, "open of a disk that another process has", err, core.ErrLocked)
	_, err = disk.ResetMeta(t.Context(), small(vfs.OS(), dir), "")
	wantErr(t, "reset of a disk that another process has", err, core.ErrLocked)
	must(t, c.Process.Kill())
	_ = c.Wait()
	_ = in.Close()
	d := open(t, small(vfs.OS(), dir))
	r, err := d.Get(t.Context(), 1, core.RowKey{Bucket: 1, Key: "a"}, ver(1))
	if err != nil || string(r.Value) != "1" {
		t.Errorf("after kill -9: got %q, %v", r.Value, err)
	}
}

// TestFailedShardSyncFailsTheDisk: one failed fdatasync ends all writes.
func TestFailedShardSyncFailsTheDisk(t *testing.T) {
	m := vfs.NewMem(vfs.MemOptions{})
	var bad atomic.Bool
	h := vfs.WithHook(m, func(op vfs.Op) error {
		if bad.Load() && op.Kind == vfs.OpSync && strings.Contains(op.Name, "/data/") {
			bad.Store(false)
			return syscall.EIO
		}
		return nil
	})
	format(t, small(h, "/d"))
	d := open(t, small(h, "/d"))
	must(t, d.Apply(t.Context(), []core.SlotBatch{{Slot: 1, Append: []core.Entry{put(1, "a", "1")}}}))
	good, body := damageShard(1)
	writeShard(t, d, good, body)
	w0, err := d.Create(t.Context(), core.ShardMeta{ID: core.ShardID{Index: 9}}, -1)
	must(t, err)
	select {
	case <-d.Failed():
		t.Fatal("failed already")
	default:
	}
	bad.Store(true)
	w, err := d.Create(t.Context(), core.ShardMeta{ID: core.ShardID{Index: 8}}, 3)
	must(t, err)
	_, err = w.Write([]byte("abc"))
	must(t, err)
	err = w.Commit(t.Context())
	if !errors.Is(err, core.ErrDiskFailed) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("commit: got %v, want ErrDiskFailed and the cause", err)
	}
	wantErr(t, "commit, tried again", w.Commit(t.Context()), core.ErrDiskFailed)
	must(t, w.Close())
	<-d.Failed()
	wantErr(t, "Err", d.Err(), core.ErrDiskFailed)
	wantErr(t, "Room", d.Room(1), core.ErrDiskFailed)
	_, err = w0.Write([]byte("x"))
	wantErr(t, "write of another shard", err, core.ErrDiskFailed)
	wantErr(t, "apply", d.Apply(t.Context(), []core.SlotBatch{{Slot: 1, Commit: new(ver(1))}}), core.ErrDiskFailed)
	wantErr(t, "delete", d.Delete(t.Context(), good.ID), core.ErrDiskFailed)
	wantErr(t, "drop answers", d.DropAnswers(t.Context(), 1), core.ErrDiskFailed)
	r, err := d.Open(t.Context(), good.ID)
	must(t, err)
	p := make([]byte, len(body))
	_, err = r.ReadAt(t.Context(), p, 0)
	if err != nil || !bytes.Equal(p, body) {
		t.Errorf("reading a shard goes on: %v", err)
	}
	must(t, r.Close())
	if row, err := d.Get(t.Context(), 1, core.RowKey{Bucket: 1, Key: "a"}, ver(1)); err != nil || string(row.Value) != "1" {
		t.Errorf("reading rows goes on: got %q, %v", row.Value, err)
	}
	stats, err := d.Stats(t.Context())
	if err != nil || stats.Syncs.Errors != 1 || stats.Err == nil {
		t.Errorf("stats: got %d sync errors, %v, %v; want 1", stats.Syncs.Errors, stats.Err, err)
	}
	must(t, d.Close())
	d = open(t, small(h, "/d"))
	must(t, d.Apply(t.Context(), []core.SlotBatch{{Slot: 1, Commit: new(ver(1))}}))
	_, err = d.Open(t.Context(), core.ShardID{Index: 8})
	wantErr(t, "the shard whose sync failed", err, core.ErrNotFound)
}

// TestRoomForRows fills the space that rows were last told to have by a shard
// and by rows. New rows are refused once the reserve is reached, well before the
// disk cannot take what was already promised.
func TestRoomForRows(t *testing.T) {
	m := vfs.NewMem(vfs.MemOptions{})
	format(t, small(m, "/d"))
	d := open(t, small(m, "/d"))
	row := func(seq uint64, size int) {
		t.Helper()
		e := put(seq, fmt.Sprint("k", seq), strings.Repeat("v", size))
		must(t, d.Apply(t.Context(), []core.SlotBatch{{Slot: 1, Append: []core.Entry{e}, Commit: &e.Version}}))
	}
	leave := func(free int64) {
		t.Helper()
		u, err := m.Usage("/d")
		must(t, err)
		m.SetCapacity(u.Total - u.Free + free)
	}
	row(1, 10)
	must(t, d.RowRoom(1000))
	const reserve = 4 << 20
	leave(reserve + 100_000)
	w, err := d.Create(t.Context(), core.ShardMeta{ID: core.ShardID{Index: 9}}, 0)
	must(t, err)
	must(t, w.Close())
	must(t, d.RowRoom(1000)) // it was not asked again
	for range 16 {
		w, err := d.Create(t.Context(), core.ShardMeta{ID: core.ShardID{Index: 9}}, 90_000)
		must(t, err)
		must(t, w.Close())
	}
	wantErr(t, "beyond the reserve, after shards", d.RowRoom(110_000), core.ErrNoSpace)
	row(2, 110_000) // promised before

	leave(1 << 30)
	row(3, 10)
	leave(reserve + 100_000)
	must(t, d.RowRoom(110_000)) // it was not asked again
	for seq := uint64(4); seq < 16; seq++ {
		row(seq, 100_000)
	}
	wantErr(t, "beyond the reserve, after rows", d.RowRoom(110_000), core.ErrNoSpace)
}

// TestFullWithoutReserve fills the file system to its last byte under Pebble.
// The disk fails as full, the process lives, reads go on, and once there is
// space everything acknowledged is there.
func TestFullWithoutReserve(t *testing.T) {
	m := vfs.NewMem(vfs.MemOptions{Capacity: 6 << 20})
	o := small(m, "/d")
	o.Reserve = -1
	format(t, o)
	d := open(t, o)
	value := strings.Repeat("v", 30_000)
	seq := uint64(0)
	var err error
	for err == nil {
		v := ver(seq + 1)
		if err = d.Apply(t.Context(), []core.SlotBatch{{Slot: 1, Append: []core.Entry{put(v.Seq, fmt.Sprint("k", v.Seq), value)}, Commit: &v}}); err == nil {
			seq++
		}
	}
	if !errors.Is(err, core.ErrNoSpace) || seq < 20 {
		t.Fatalf("after %d rows: got %v, want ErrNoSpace", seq, err)
	}
	check := func() {
		t.Helper()
		for i := uint64(1); i <= seq; i++ {
			r, err := d.Get(t.Context(), 1, core.RowKey{Bucket: 1, Key: fmt.Sprint("k", i)}, ver(i))
			if err != nil || string(r.Value) != value {
				t.Fatalf("row %d of %d: %v", i, seq, err)
			}
		}
	}
	check()
	must(t, d.Close())
	m.SetCapacity(40 << 20)
	d = open(t, o)
	check()
	must(t, d.Apply(t.Context(), []core.SlotBatch{{Slot: 2, Append: []core.Entry{put(1, "more", value)}}}))
}

// TestDirectorySyncsAreShared: shards committed at the same time into one
// directory need fewer syncs of it than there are shards, and each is durable.
func TestDirectorySyncsAreShared(t *testing.T) {
	const writers = 16
	m := vfs.NewMem(vfs.MemOptions{})
	var syncs atomic.Int64
	waiting := make(chan struct{}, writers)
	first := make(chan struct{})
	var once sync.Once
	h := vfs.WithHook(m, func(op vfs.Op) error {
		switch {
		case op.Kind == vfs.OpRename && strings.Contains(op.Name, "/data/00/"):
			waiting <- struct{}{}
		case op.Kind == vfs.OpSyncDir && strings.HasSuffix(op.Name, "/data/00"):
			syncs.Add(1)
			once.Do(func() { <-first }) // hold the first one until all have renamed
		}
		return nil
	})
	format(t, small(h, "/d"))
	d := open(t, small(h, "/d"))
	syncs.Store(0)
	var group sync.WaitGroup
	for i := range writers {
		group.Go(func() {
			writeShard(t, d, core.ShardMeta{ID: core.ShardID{Index: uint8(i)}}, []byte("abc"))
		})
	}
	for range writers {
		<-waiting
	}
	close(first)
	group.Wait()
	if n := syncs.Load(); n > writers/2 {
		t.Errorf("%d shards took %d syncs of their directory", writers, n)
	}
	crashed := m.Crash(nil)
	names, err := crashed.List("/d/data/00")
	if err != nil || len(names) != writers {
		t.Errorf("after a crash: got %d shards, %v; want %d", len(names), err, writers)
	}
}

func TestCounts(t *testing.T) {
	m := vfs.NewMem(vfs.MemOptions{})
	format(t, small(m, "/d"))
	d := open(t, small(m, "/d"))
	check := func(when string, n, bytes int64, counted bool) {
		t.Helper()
		s, err := d.Stats(t.Context())
		must(t, err)
		if s.Shards != n || s.ShardBytes != bytes || s.Counted != counted {
			t.Errorf("%s: got %d shards, %d bytes, counted %v; want %d, %d, %v", when, s.Shards, s.ShardBytes, s.Counted, n, bytes, counted)
		}
	}
	check("new", 0, 0, true)
	objects := func(when string, want int64) {
		t.Helper()
		if s, err := d.Stats(t.Context()); err != nil || s.Objects != want {
			t.Errorf("%s: got %d objects, %v; want %d", when, s.Objects, err, want)
		}
	}
	write := func(slot core.SlotID, b core.SlotBatch) {
		t.Helper()
		b.Slot = slot
		must(t, d.Apply(t.Context(), []core.SlotBatch{b}))
	}
	for slot := range core.SlotID(2) {
		for seq := uint64(1); seq <= 5; seq++ {
			e := put(seq, fmt.Sprint("key", slot, seq%4), "v") // the fifth replaces the first
			write(slot, core.SlotBatch{Append: []core.Entry{e}, Commit: &e.Version})
		}
		e := put(6, fmt.Sprint("key", slot, 2), "")
		e.Rows[0].Deleted, e.Rows[0].Value = true, nil
		part := core.Row{RowKey: core.RowKey{Bucket: 1, Space: core.SpacePart, Key: "p"}, Version: e.Version, Value: []byte("v")}
		e.Rows = append(e.Rows, part)
		write(slot, core.SlotBatch{Append: []core.Entry{e}, Commit: &e.Version})
	}
	objects("written", 6)
	for i := range shardCount {
		meta, body := damageShard(i)
		writeShard(t, d, meta, body)
	}
	total := int64(4096 + 94208 + 303104)
	check("written", 3, total, true)
	killed := m.Clone()
	must(t, d.Close())
	d = open(t, small(m, "/d"))
	check("opened again", 3, total, true)
	objects("opened again", 6)
	write(1, core.SlotBatch{Remove: true})
	for more := true; more; {
		var err error
		more, err = d.Reclaim(t.Context(), 2)
		must(t, err)
	}
	objects("a slot reclaimed", 3)
	meta, _ := damageShard(0)
	must(t, d.Delete(t.Context(), meta.ID))
	must(t, d.Delete(t.Context(), meta.ID))
	check("deleted", 2, total-4096, true)
	must(t, d.Close())
	d = open(t, small(killed, "/d"))
	check("killed", 0, 0, false)
	must(t, d.Count(t.Context()))
	check("counted", 3, total, true)
	objects("counted", 6)
}

// TestSection reads a shard through the file that sendfile would be given.
func TestSection(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	format(t, small(vfs.OS(), dir))
	d := open(t, small(vfs.OS(), dir))
	for i := range shardCount {
		meta, body := damageShard(i)
		writeShard(t, d, meta, body)
		r, err := d.Open(t.Context(), meta.ID)
		must(t, err)
		s, ok := r.(core.Sectioner).Section()
		if !ok {
			t.Fatal("section: got none")
		}
		p, err := io.ReadAll(io.NewSectionReader(s.File, s.Off, r.Size()))
		if err != nil || !bytes.Equal(p, body) {
			t.Errorf("content differs: %v", err)
		}
		must(t, r.Close())
	}
}

// TestSharedCache opens several disks with one cache, which is closed before
// they are.
func TestSharedCache(t *testing.T) {
	c := disk.NewCache(1<<20, 0, 0)
	defer c.Close()
	for i := range 3 {
		m := vfs.NewMem(vfs.MemOptions{})
		o := small(m, fmt.Sprint("/d", i))
		o.Cache = c
		format(t, o)
		d := open(t, o)
		must(t, d.Apply(t.Context(), []core.SlotBatch{{Slot: 1, Append: []core.Entry{put(1, "a", fmt.Sprint(i))}}}))
		r, err := d.Get(t.Context(), 1, core.RowKey{Bucket: 1, Key: "a"}, ver(1))
		if err != nil || string(r.Value) != fmt.Sprint(i) {
			t.Errorf("disk %d: got %q, %v", i, r.Value, err)
		}
	}
}
