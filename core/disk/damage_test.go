package disk_test

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"strings"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/disk"
	"github.com/shoalstore/shoal/core/vfs"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func format(t *testing.T, o disk.Options) disk.Identity {
	t.Helper()
	id, err := disk.Format(t.Context(), disk.FormatOptions{Options: o})
	must(t, err)
	return id
}

func open(t *testing.T, o disk.Options) *disk.Disk {
	t.Helper()
	d, err := disk.Open(t.Context(), o)
	must(t, err)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func ver(seq uint64) core.Version { return core.Version{Term: 1, Boot: 1, Seq: seq} }

func put(v uint64, key, value string) core.Entry {
	return core.Entry{
		Version: ver(v), Request: core.RequestID{1, byte(v)}, Answer: []byte(key),
		Rows: []core.Row{{RowKey: core.RowKey{Bucket: 1, Key: key}, Version: ver(v), Value: []byte(value)}},
	}
}

func writeShard(t *testing.T, d *disk.Disk, m core.ShardMeta, body []byte) {
	t.Helper()
	w, err := d.Create(t.Context(), m, int64(len(body)))
	must(t, err)
	_, err = w.Write(body)
	must(t, err)
	must(t, w.Commit(t.Context()))
	must(t, w.Close())
}

// walk returns the files below a directory.
func walk(t *testing.T, fsys vfs.FS, dir string) (files []string) {
	t.Helper()
	names, err := fsys.List(dir)
	must(t, err)
	for _, n := range names {
		name := path.Join(dir, n)
		st, err := fsys.Stat(name)
		must(t, err)
		if st.IsDir() {
			files = append(files, walk(t, fsys, name)...)
		} else {
			files = append(files, name)
		}
	}
	return files
}

// positions are places all over a file: its ends, and some in between.
func positions(size int64, n int) []int64 {
	if size == 0 {
		return nil
	}
	out := []int64{0, size - 1}
	for i := 1; i < n; i++ {
		out = append(out, size*int64(i)/int64(n))
	}
	return out
}

const (
	rowCount   = 40
	shardCount = 3
)

func rowValue(seq uint64) string {
	return strings.Repeat(fmt.Sprintf("%06d", seq), []int{10, 100, 700}[seq%3])
}

func damageShard(i int) (core.ShardMeta, []byte) {
	m := core.ShardMeta{ID: core.ShardID{Extent: core.ExtentID{byte(i)}, Index: 1}, Key: "k", Scheme: core.Mirror(2)}
	return m, bytes.Repeat([]byte{byte(i), 7, 9}, []int{10, 30_000, 100_000}[i])
}

// damaged are images of a disk with known content: of one that was killed, and
// of one that was closed. The first rows are in tables when the last ones are
// written, so that whatever is done in the background each image has files of
// every kind with content that is read.
func damaged(t *testing.T) (killed, closed *vfs.Mem) {
	m := vfs.NewMem(vfs.MemOptions{})
	format(t, small(m, "/d"))
	write := func(d *disk.Disk, from, to uint64) {
		for seq := from; seq <= to; seq++ {
			e := put(seq, fmt.Sprint("key", seq), rowValue(seq))
			v := e.Version
			must(t, d.Apply(t.Context(), []core.SlotBatch{{Slot: 5, Append: []core.Entry{e}, Commit: &v}}))
		}
	}
	d, err := disk.Open(t.Context(), small(m, "/d"))
	must(t, err)
	write(d, 1, rowCount-8)
	for i := range shardCount {
		meta, body := damageShard(i)
		writeShard(t, d, meta, body)
	}
	must(t, d.Close())

	d, err = disk.Open(t.Context(), small(m, "/d"))
	must(t, err)
	write(d, rowCount-7, rowCount)
	killed = m.Clone()
	must(t, d.Close())
	return killed, m
}

// readAll reads everything and says what is wrong: bytes or rows that are not
// what was written and not an error either. It counts the errors.
func readAll(t *testing.T, d *disk.Disk) (failed int, err error) {
	ctx := t.Context()
	if states, serr := d.Slots(ctx); serr != nil || states[5].Last != ver(rowCount) || states[5].Committed != ver(rowCount) {
		return 0, fmt.Errorf("slots: got %v, %w", states, serr)
	}
	isError := func(err error) bool {
		if err != nil && !errors.Is(err, core.ErrNotFound) {
			failed++
			return true
		}
		return false
	}
	for seq := uint64(1); seq <= rowCount; seq++ {
		r, err := d.Get(ctx, 5, core.RowKey{Bucket: 1, Key: fmt.Sprint("key", seq)}, ver(rowCount))
		if !isError(err) && (err != nil || string(r.Value) != rowValue(seq) || r.Version != ver(seq)) {
			return 0, fmt.Errorf("row %d: got %d bytes, %w", seq, len(r.Value), err)
		}
		v, a, err := d.Answer(ctx, 5, core.RequestID{1, byte(seq)})
		if !isError(err) && (err != nil || v != ver(seq) || string(a) != fmt.Sprint("key", seq)) {
			return 0, fmt.Errorf("answer %d: got %v %q, %w", seq, v, a, err)
		}
	}
	n := 0
	for f, err := range d.Scan(ctx, core.Scan{Bucket: 1, Visible: func(core.SlotID) (core.Version, bool) { return ver(rowCount), true }}) {
		if isError(err) {
			n = rowCount
			break
		}
		if string(f.Value) != rowValue(f.Version.Seq) {
			return 0, fmt.Errorf("scan: wrong value of %q", f.Key)
		}
		n++
	}
	if n != rowCount {
		return 0, fmt.Errorf("scan: got %d rows, want %d", n, rowCount)
	}
	if e, err := d.Entries(ctx, 5, 0, ver(rowCount), 1<<30); !isError(err) && (err != nil || len(e.List) != rowCount) {
		return 0, fmt.Errorf("entries: got %d, %w", len(e.List), err)
	}
	for i := range shardCount {
		meta, body := damageShard(i)
		r, err := d.Open(ctx, meta.ID)
		if isError(err) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("shard %d: %w", i, err)
		}
		p := make([]byte, len(body))
		if _, err := r.ReadAt(ctx, p, 0); !isError(err) && !bytes.Equal(p, body) {
			return 0, fmt.Errorf("shard %d: wrong bytes, %w", i, err)
		}
		must(t, r.Close())
	}
	return failed, nil
}

// TestBitFlips flips bits all over a disk. Each flip is found when the disk is
// opened or when what it hit is read, or does no harm; never are other bytes
// returned than those that were written.
func TestBitFlips(t *testing.T) {
	killed, closed := damaged(t)
	perFile := 12
	if raceEnabled {
		perFile = 3
	}
	for name, image := range map[string]*vfs.Mem{"killed": killed, "closed": closed} {
		t.Run(name, func(t *testing.T) {
			found := map[string]int{}
			for _, file := range walk(t, image, "/d") {
				st, err := image.Stat(file)
				must(t, err)
				for i, off := range positions(st.Size(), perFile) {
					m := image.Clone()
					must(t, m.Corrupt(file, off, 1<<(i%8)))
					d, err := disk.Open(t.Context(), small(m, "/d"))
					if err != nil {
						found[kind(file)]++
						continue
					}
					n, err := readAll(t, d)
					if err != nil {
						t.Errorf("%s, byte %d of %d: %v", file, off, st.Size(), err)
					}
					if n > 0 {
						found[kind(file)]++
					}
					_ = d.Close()
				}
			}
			t.Logf("flips found, by kind of file: %v", found)
			for _, k := range []string{"sst", "blob", "manifest", "shard"} {
				if found[k] == 0 {
					t.Errorf("no flip in a %s file was found", k)
				}
			}
			if name == "killed" && found["log"] == 0 {
				t.Error("no flip in a log was found")
			}
		})
	}
}

func kind(file string) string {
	base := path.Base(file)
	switch {
	case strings.HasPrefix(base, "MANIFEST"):
		return "manifest"
	case len(base) == 40:
		return "shard"
	case path.Ext(base) != "":
		return path.Ext(base)[1:]
	}
	return base
}

// TestEveryByteOfAShard flips each byte of a small shard's file, which is opened
// for each read.
func TestEveryByteOfAShard(t *testing.T) {
	m := vfs.NewMem(vfs.MemOptions{})
	format(t, small(m, "/d"))
	o := small(m, "/d")
	o.KeepOpen = -1
	d := open(t, o)
	meta, body := damageShard(0)
	writeShard(t, d, meta, body)
	file := "/d/data/00/" + meta.ID.String()
	st, err := m.Stat(file)
	must(t, err)
	used := int64(len(body) + 8 + 42)
	read := func() ([]byte, error) {
		r, err := d.Open(t.Context(), meta.ID)
		if err != nil {
			return nil, err
		}
		p := make([]byte, len(body))
		_, err = r.ReadAt(t.Context(), p, 0)
		return p, errors.Join(err, r.Close())
	}
	for off := range st.Size() {
		must(t, m.Corrupt(file, off, 0x10))
		p, err := read()
		padding := off >= used && off < st.Size()-64
		var where *disk.CorruptError
		switch {
		case err == nil && !bytes.Equal(p, body):
			t.Fatalf("byte %d: other bytes than those written", off)
		case err == nil && !padding:
			t.Fatalf("byte %d of %d: not noticed", off, st.Size())
		case err != nil && (!errors.Is(err, core.ErrCorrupt) || !errors.As(err, &where) || where.Shard != meta.ID):
			t.Fatalf("byte %d: got %v, want a CorruptError of the shard", off, err)
		case err != nil && off < int64(len(body)) && where.Block != 0:
			t.Fatalf("byte %d: got block %d, want 0", off, where.Block)
		}
		must(t, m.Corrupt(file, off, 0x10))
	}
	if _, err := read(); err != nil {
		t.Fatalf("mended: %v", err)
	}
	stats, err := d.Stats(t.Context())
	must(t, err)
	if stats.Corruptions == 0 {
		t.Error("no corruption was counted")
	}
}

// TestDamagedBlock reads around a damaged block: blocks before it are good, and
// the error says which one is not.
func TestDamagedBlock(t *testing.T) {
	m := vfs.NewMem(vfs.MemOptions{})
	format(t, small(m, "/d"))
	d := open(t, small(m, "/d"))
	meta, _ := damageShard(0)
	body := bytes.Repeat([]byte("0123456789abcdef"), 5*65536/16)
	writeShard(t, d, meta, body)
	must(t, m.Corrupt("/d/data/00/"+meta.ID.String(), 3*65536+5, 1))
	r, err := d.Open(t.Context(), meta.ID)
	must(t, err)
	p := make([]byte, len(body))
	n, err := r.ReadAt(t.Context(), p, 0)
	var where *disk.CorruptError
	if n != 3*65536 || !errors.As(err, &where) || where.Block != 3 || !bytes.Equal(p[:n], body[:n]) {
		t.Errorf("got %d bytes, %v; want the 3 blocks before the damaged one", n, err)
	}
	if n, err := r.ReadAt(t.Context(), p[:65536], 4*65536); n != 65536 || !bytes.Equal(p[:n], body[4*65536:]) {
		t.Errorf("the block behind: got %d bytes, %v", n, err)
	}
	if n, err := r.ReadAt(t.Context(), p[:1], 3*65536+100); n != 0 || !errors.Is(err, core.ErrCorrupt) {
		t.Errorf("one byte of the damaged block: got %d bytes, %v", n, err)
	}
	must(t, r.Close())
	for info, err := range d.Shards(t.Context(), core.ShardID{}) {
		if err != nil || info.ID != meta.ID {
			t.Errorf("listing does not read content: got %v, %v", info, err)
		}
	}
}

// TestTruncatedShard cuts a shard's file short.
func TestTruncatedShard(t *testing.T) {
	m := vfs.NewMem(vfs.MemOptions{})
	format(t, small(m, "/d"))
	d := open(t, small(m, "/d"))
	meta, body := damageShard(2)
	writeShard(t, d, meta, body)
	name := "/d/data/02/" + meta.ID.String()
	f, err := m.OpenReadWrite(name)
	must(t, err)
	for _, size := range []int64{4096 * 20, 4096, 63, 0} {
		must(t, f.Truncate(size))
		_, err := d.Open(t.Context(), meta.ID)
		wantErr(t, fmt.Sprintf("open at %d bytes", size), err, core.ErrCorrupt)
	}
	must(t, f.Close())
	seen := 0
	for info, err := range d.Shards(t.Context(), core.ShardID{}) {
		seen++
		wantErr(t, "listing", err, core.ErrCorrupt)
		if info.ID != meta.ID {
			t.Errorf("listing: got %v, want the id of the damaged shard", info)
		}
	}
	if seen != 1 {
		t.Errorf("listing: got %d shards, want 1", seen)
	}
}
