package vfs_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"unsafe"

	"github.com/shoalstore/shoal/core/vfs"
)

// each runs a test on the real file system and on the one in memory, bare and
// behind a hook that lets everything pass.
func each(t *testing.T, run func(t *testing.T, fsys vfs.FS, dir string)) {
	t.Run("os", func(t *testing.T) { run(t, vfs.OS(), t.TempDir()) })
	t.Run("mem", func(t *testing.T) {
		m := vfs.NewMem(vfs.MemOptions{})
		must(t, m.MkdirAll("/d"))
		run(t, m, "/d")
	})
	t.Run("hook", func(t *testing.T) {
		m := vfs.NewMem(vfs.MemOptions{})
		must(t, m.MkdirAll("/d"))
		run(t, vfs.WithHook(m, func(vfs.Op) error { return nil }), "/d")
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func val[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func put(t *testing.T, fsys vfs.FS, name, content string) {
	t.Helper()
	f := val(fsys.Create(name))
	val(f.Write([]byte(content)))
	must(t, f.SyncData())
	must(t, f.Close())
}

func read(t *testing.T, fsys vfs.FS, name string) string {
	t.Helper()
	f, err := fsys.Open(name)
	must(t, err)
	b, err := io.ReadAll(f)
	must(t, errors.Join(err, f.Close()))
	return string(b)
}

func TestFiles(t *testing.T) {
	each(t, func(t *testing.T, fsys vfs.FS, dir string) {
		a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
		_, err := fsys.Open(a)
		wantErr(t, "open of a missing file", err, fs.ErrNotExist)

		f := val(fsys.Create(a))
		val(f.Write([]byte("hello ")))
		val(f.Write([]byte("world")))
		val(f.WriteAt([]byte("W"), 6))
		must(t, f.Allocate(0, 1<<20))
		must(t, f.StartSync(0, 11))
		must(t, f.Sync())
		if i := val(f.Stat()); i.Size() != 11 {
			t.Errorf("size after Allocate: got %d, want 11", i.Size())
		}
		must(t, f.Truncate(9))
		p := make([]byte, 20)
		n, err := f.ReadAt(p, 3)
		if string(p[:n]) != "lo Wor" || !errors.Is(err, io.EOF) {
			t.Errorf("ReadAt: got %q, %v; want %q, EOF", p[:n], err, "lo Wor")
		}
		// What was just written is in memory.
		n, err = f.ReadNow(p, 3)
		if !errors.Is(err, errors.ErrUnsupported) && (string(p[:n]) != "lo Wor" || !errors.Is(err, io.EOF)) {
			t.Errorf("ReadNow: got %q, %v; want %q, EOF", p[:n], err, "lo Wor")
		}
		if n, err = f.ReadNow(p[:2], 4); !errors.Is(err, errors.ErrUnsupported) && (string(p[:n]) != "o " || err != nil) {
			t.Errorf("ReadNow: got %q, %v; want %q", p[:n], err, "o ")
		}
		must(t, f.Close())
		wantErr(t, "second close", f.Close(), fs.ErrClosed)

		_, err = fsys.Create(a)
		wantErr(t, "create of a taken name", err, fs.ErrExist)
		put(t, fsys, b, "b")
		wantErr(t, "RenameNew onto a taken name", fsys.RenameNew(b, a), fs.ErrExist)
		wantErr(t, "Link onto a taken name", fsys.Link(b, a), fs.ErrExist)
		must(t, fsys.Link(b, filepath.Join(dir, "c")))
		must(t, fsys.Rename(b, a))
		if got := read(t, fsys, a) + read(t, fsys, filepath.Join(dir, "c")); got != "bb" {
			t.Errorf("after link and rename: got %q, want bb", got)
		}
		must(t, fsys.MkdirAll(filepath.Join(dir, "x", "y")))
		must(t, fsys.RenameNew(a, filepath.Join(dir, "x", "y", "z")))
		must(t, fsys.SyncDir(filepath.Join(dir, "x", "y")))
		names := val(fsys.List(dir))
		slices.Sort(names)
		if want := []string{"c", "x"}; !slices.Equal(names, want) {
			t.Errorf("names: got %q, want %q", names, want)
		}
		if err := fsys.Remove(filepath.Join(dir, "x")); err == nil {
			t.Error("Remove of a directory with files in it: no error")
		}
		must(t, fsys.RemoveAll(filepath.Join(dir, "x")))
		_, err = fsys.Stat(filepath.Join(dir, "x", "y"))
		wantErr(t, "stat of what is gone", err, fs.ErrNotExist)
		wantErr(t, "remove of what is gone", fsys.Remove(filepath.Join(dir, "x")), fs.ErrNotExist)
		if u, err := fsys.Usage(dir); err != nil || u.Total <= 0 || u.Free > u.Total {
			t.Errorf("usage: got %+v, %v", u, err)
		}
	})
}

func TestOpenFileOutlivesItsName(t *testing.T) {
	each(t, func(t *testing.T, fsys vfs.FS, dir string) {
		name := filepath.Join(dir, "a")
		put(t, fsys, name, "still here")
		f, err := fsys.Open(name)
		must(t, err)
		must(t, fsys.Remove(name))
		b, err := io.ReadAll(f)
		if string(b) != "still here" || err != nil {
			t.Errorf("got %q, %v", b, err)
		}
		must(t, f.Close())
	})
}

func TestLock(t *testing.T) {
	each(t, func(t *testing.T, fsys vfs.FS, dir string) {
		name := filepath.Join(dir, "lock")
		l, err := fsys.Lock(name)
		must(t, err)
		_, err = fsys.Lock(name)
		wantErr(t, "second lock", err, syscall.EWOULDBLOCK)
		must(t, l.Close())
		l, err = fsys.Lock(name)
		must(t, err)
		must(t, l.Close())
	})
}

// aligned returns n bytes at an aligned address.
func aligned(n int) []byte {
	b := make([]byte, n+vfs.Alignment)
	skip := vfs.Alignment - int(uintptr(unsafe.Pointer(&b[0]))%vfs.Alignment)
	return b[skip : skip+n : skip+n]
}

func TestDirect(t *testing.T) {
	each(t, func(t *testing.T, fsys vfs.FS, dir string) {
		name := filepath.Join(dir, "a")
		f, err := fsys.CreateDirect(name)
		if errors.Is(err, errors.ErrUnsupported) {
			if _, err := fsys.Stat(name); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("refused, but the file is there: %v", err)
			}
			return
		}
		must(t, err)
		p := aligned(3 * vfs.Alignment)
		for i := range p {
			p[i] = byte(i % 251)
		}
		val(f.WriteAt(p, 0))
		must(t, f.SyncData())
		if _, err := f.WriteAt(p[1:], 0); err == nil {
			t.Error("unaligned write: no error")
		}
		must(t, f.Truncate(int64(len(p))-100))
		must(t, f.SyncData())
		must(t, f.Close())
		if got := read(t, fsys, name); got != string(p[:len(p)-100]) {
			t.Error("content differs")
		}
	})
}

func TestDirectUnsupported(t *testing.T) {
	m := vfs.NewMem(vfs.MemOptions{NoDirect: true})
	_, err := m.CreateDirect("/a")
	wantErr(t, "CreateDirect", err, errors.ErrUnsupported)
}

func TestMemNoSpace(t *testing.T) {
	m := vfs.NewMem(vfs.MemOptions{Capacity: 10})
	f := val(m.Create("/a"))
	val(f.Write([]byte("12345678")))
	n, err := f.Write([]byte("abcd"))
	if n != 2 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("write beyond capacity: got %d, %v; want 2, ENOSPC", n, err)
	}
	wantErr(t, "allocate", f.Allocate(0, 100), syscall.ENOSPC)
	must(t, m.Remove("/a"))
	put(t, m, "/b", "0123456789")
	m.SetCapacity(20)
	if u, _ := m.Usage("/"); u.Free != 10 {
		t.Errorf("free: got %d, want 10", u.Free)
	}
}

func TestCrashLosesWhatWasNotSynced(t *testing.T) {
	m := vfs.NewMem(vfs.MemOptions{})
	must(t, m.MkdirAll("/d"))
	must(t, m.SyncDir("/"))
	write := func(name, content string, sync bool) {
		f := val(m.Create(name))
		val(f.Write([]byte(content)))
		if sync {
			must(t, f.SyncData())
		}
		must(t, f.Close())
	}
	write("/d/bytes-and-name", "1", true)
	write("/d/name-only", "2", false)
	must(t, m.SyncDir("/d"))
	write("/d/bytes-only", "3", true)
	must(t, m.Rename("/d/bytes-and-name", "/d/renamed"))
	must(t, m.MkdirAll("/lost"))
	f, err := m.OpenReadWrite("/d/name-only")
	must(t, err)
	val(f.Write([]byte("4")))

	c := m.Crash(nil)
	if got, want := val(c.List("/d")), []string{"bytes-and-name", "name-only"}; !slices.Equal(got, want) {
		t.Errorf("names: got %q, want %q", got, want)
	}
	if got := read(t, c, "/d/bytes-and-name") + "|" + read(t, c, "/d/name-only"); got != "1|" {
		t.Errorf("contents: got %q, want %q", got, "1|")
	}
	if _, err := c.Stat("/lost"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unsynced directory: got %v", err)
	}
	if got := read(t, m.Clone(), "/d/renamed"); got != "1" {
		t.Errorf("clone: got %q, want 1", got)
	}
	must(t, f.Sync())
	must(t, m.SyncDir("/d"))
	c = m.Crash(nil)
	if got := read(t, c, "/d/renamed") + read(t, c, "/d/name-only") + read(t, c, "/d/bytes-only"); got != "143" {
		t.Errorf("after sync: got %q, want 143", got)
	}
}

func TestCrashNeverLosesARename(t *testing.T) {
	for seed := range uint64(200) {
		m := vfs.NewMem(vfs.MemOptions{})
		must(t, m.MkdirAll("/tmp"))
		must(t, m.MkdirAll("/d"))
		must(t, m.SyncDir("/"))
		put(t, m, "/tmp/x", "content")
		must(t, m.SyncDir("/tmp"))
		must(t, m.RenameNew("/tmp/x", "/d/x"))
		rng := rand.New(rand.NewPCG(seed, 0))
		c := m.Crash(rng)
		old, _ := c.Stat("/tmp/x")
		new, _ := c.Stat("/d/x")
		if old == nil && new == nil {
			t.Fatalf("seed %d: the file is under neither name", seed)
		}
		if err := m.SyncDir("/d"); err != nil {
			t.Fatal(err)
		}
		if got := read(t, m.Crash(rng), "/d/x"); got != "content" {
			t.Fatalf("seed %d: after SyncDir: got %q", seed, got)
		}
	}
}

func TestCrashTearsWrites(t *testing.T) {
	old, fresh := bytes.Repeat([]byte("o"), 8192), bytes.Repeat([]byte("n"), 8192)
	kinds := map[string]bool{}
	for seed := range uint64(50) {
		m := vfs.NewMem(vfs.MemOptions{})
		put(t, m, "/a", string(old))
		must(t, m.SyncDir("/"))
		f, err := m.OpenReadWrite("/a")
		must(t, err)
		val(f.WriteAt(fresh, 0))
		got := read(t, m.Crash(rand.New(rand.NewPCG(seed, 1))), "/a")
		for i := 0; i < len(got); i += 512 {
			if s := got[i : i+512]; s != string(old[:512]) && s != string(fresh[:512]) {
				t.Fatalf("seed %d: sector at %d is neither old nor new", seed, i)
			}
		}
		switch {
		case got == string(old):
			kinds["old"] = true
		case got == string(fresh):
			kinds["new"] = true
		default:
			kinds["torn"] = true
		}
	}
	if len(kinds) != 3 {
		t.Errorf("outcomes: got %v, want old, new and torn", kinds)
	}
}

func TestHook(t *testing.T) {
	m := vfs.NewMem(vfs.MemOptions{})
	var next error
	var seen []vfs.Op
	h := vfs.WithHook(m, func(op vfs.Op) error {
		seen = append(seen, op)
		return next
	})
	f, err := h.Create("/a")
	must(t, err)
	next = syscall.EIO
	_, err = f.Write([]byte("x"))
	wantErr(t, "write", err, syscall.EIO)
	wantErr(t, "sync", f.SyncData(), syscall.EIO)
	wantErr(t, "syncdir", h.SyncDir("/"), syscall.EIO)
	next = vfs.ErrTorn
	n, err := f.Write([]byte("abcd"))
	if n != 2 || !errors.Is(err, vfs.ErrTorn) {
		t.Errorf("torn write: got %d, %v", n, err)
	}
	next = vfs.ErrSkip
	must(t, f.SyncData())
	next = nil
	must(t, h.SyncDir("/"))
	if got := read(t, m.Crash(nil), "/a"); got != "" {
		t.Errorf("a sync left out made %q durable", got)
	}
	must(t, f.Close())
	kinds := make([]string, len(seen))
	changes := 0
	for i, op := range seen {
		kinds[i] = string(op.Kind)
		if op.Kind.Changes() {
			changes++
		}
	}
	want := []string{"create", "write", "sync", "syncdir", "write", "sync", "syncdir", "close"}
	if !slices.Equal(kinds, want) || changes != 7 {
		t.Errorf("operations: got %q (%d changes), want %q (7)", kinds, changes, want)
	}
}

func TestCorrupt(t *testing.T) {
	m := vfs.NewMem(vfs.MemOptions{})
	put(t, m, "/a", "abc")
	must(t, m.Corrupt("/a", 1, 1))
	if got := read(t, m, "/a"); got != "acc" {
		t.Errorf("got %q, want acc", got)
	}
	wantErr(t, "beyond the end", m.Corrupt("/a", 3, 1), fs.ErrNotExist)
}
