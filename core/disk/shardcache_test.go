package disk_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/vfs"
)

// countOpens counts how often files of shards are opened.
func countOpens(fsys vfs.FS, n *atomic.Int64) vfs.FS {
	return vfs.WithHook(fsys, func(op vfs.Op) error {
		if op.Kind == vfs.OpOpen && kind(op.Name) == "shard" {
			n.Add(1)
		}
		return nil
	})
}

// readNow opens a shard and reads all of it without waiting.
func readNow(t *testing.T, d interface {
	core.Store
	core.NowOpener
}, id core.ShardID,
) ([]byte, bool) {
	t.Helper()
	r, ok := d.OpenNow(t.Context(), id)
	if !ok {
		return nil, false
	}
	p := make([]byte, r.Size())
	ok = r.(core.NowReader).ReadNow(p, 0)
	must(t, r.Close())
	return p, ok
}

// TestKeptOpen reads shards again whose files are open still: without opening
// them, and not when something happened to the file.
func TestKeptOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	format(t, small(vfs.OS(), dir))
	var opens atomic.Int64
	o := small(countOpens(vfs.OS(), &opens), dir)
	o.KeepOpen = 2
	later := &laterClock{Clock: o.Clock}
	o.Clock = later
	d := open(t, o)
	var metas []core.ShardMeta
	var bodies [][]byte
	for i := range byte(3) {
		meta, _ := damageShard(0)
		meta.ID.Nonce[0] = i
		body := bytes.Repeat([]byte{i, 1, 2}, 100_000)
		writeShard(t, d, meta, body)
		metas, bodies = append(metas, meta), append(bodies, body)
	}
	name := func(i int) string { return filepath.Join(dir, "data", "00", metas[i].ID.String()) }
	read := func(i int) error {
		t.Helper()
		r, err := d.Open(t.Context(), metas[i].ID)
		if err != nil {
			return err
		}
		defer func() { must(t, r.Close()) }()
		p := make([]byte, r.Size())
		if _, err := r.ReadAt(t.Context(), p, 0); err != nil {
			return err
		}
		if !bytes.Equal(p, bodies[i]) {
			t.Errorf("shard %d: other bytes than those written", i)
		}
		return nil
	}
	want := func(what string, n int64) {
		t.Helper()
		if got := opens.Swap(0); got != n {
			t.Errorf("%s: got %d files opened, want %d", what, got, n)
		}
	}
	if _, ok := readNow(t, d, metas[0].ID); ok {
		t.Error("a shard that is not open: opened without waiting")
	}
	for range 3 {
		must(t, read(0))
		must(t, read(1))
	}
	want("two shards", 2)
	if p, ok := readNow(t, d, metas[0].ID); !ok || !bytes.Equal(p, bodies[0]) {
		t.Errorf("without waiting: got %d bytes, %v", len(p), ok)
	}
	must(t, read(2)) // 1 goes
	must(t, read(0))
	want("a third one", 1)
	must(t, read(1)) // 2 goes
	want("the second one again", 1)

	// A range that begins and ends within blocks.
	r, ok := d.OpenNow(t.Context(), metas[1].ID)
	if !ok {
		t.Fatal("an open shard: not opened without waiting")
	}
	p := make([]byte, 150_000)
	if !r.(core.NowReader).ReadNow(p, 70_000) || !bytes.Equal(p, bodies[1][70_000:220_000]) {
		t.Error("range: not the bytes written")
	}
	if r.(core.NowReader).ReadNow(p, r.Size()-10) {
		t.Error("range beyond the end: got true")
	}

	// Damage that the file system knows of is seen at the next opening, in the
	// description too; what a reader has open is verified as ever.
	flip(t, name(1), 70_000)
	if r.(core.NowReader).ReadNow(p, 70_000) {
		t.Error("damaged block: read as good")
	}
	must(t, r.Close())
	wantErr(t, "damaged block", read(1), core.ErrCorrupt)
	flip(t, name(1), 70_000)
	must(t, read(1))
	flip(t, name(1), int64(len(bodies[1]))+1)
	later.by.Add(int64(time.Second))
	if _, ok := readNow(t, d, metas[1].ID); ok {
		t.Error("damaged table: opened")
	}
	wantErr(t, "damaged table", read(1), core.ErrCorrupt)

	must(t, os.Remove(name(0)))
	wantErr(t, "removed behind the disk's back", read(0), core.ErrNotFound)
	must(t, read(2))
	must(t, d.Delete(t.Context(), metas[2].ID))
	wantErr(t, "deleted", read(2), core.ErrNotFound)
}

// laterClock is a clock that is ahead of another.
type laterClock struct {
	core.Clock
	by atomic.Int64
}

func (c *laterClock) Boot() core.Instant {
	return c.Clock.Boot().Add(time.Duration(c.by.Load()))
}

func flip(t *testing.T, name string, off int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	must(t, err)
	b := make([]byte, 1)
	_, err = f.ReadAt(b, off)
	must(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b, off)
	must(t, err)
	must(t, f.Close())
}

// TestSectionsAreApart gives several readers of one shard files of which each
// has its own position.
func TestSectionsAreApart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	format(t, small(vfs.OS(), dir))
	d := open(t, small(vfs.OS(), dir))
	meta, _ := damageShard(0)
	body := bytes.Repeat([]byte("0123456789"), 30_000)
	writeShard(t, d, meta, body)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				r, err := d.Open(t.Context(), meta.ID)
				if err != nil {
					t.Error(err)
					return
				}
				s, ok := r.(core.Sectioner).Section()
				if !ok {
					t.Error("got no file")
					return
				}
				_, err = s.File.Seek(s.Off, io.SeekStart)
				got, rerr := io.ReadAll(io.LimitReader(s.File, r.Size()))
				if err = errors.Join(err, rerr, r.Close()); err != nil || !bytes.Equal(got, body) {
					t.Errorf("got %d bytes that differ, %v", len(got), err)
				}
			}
		})
	}
	wg.Wait()
}
