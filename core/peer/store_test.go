package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/memstore"
)

const testDisk core.DiskID = 7

// startStore runs n1, and n2 with a disk in memory behind a proxy.
func startStore(t testing.TB, options func(*Options)) (a *node, st Store, disk *memstore.Store, p *proxy) {
	t.Helper()
	disk = memstore.New(clock{})
	a, st, p = startDisk(t, disk, options)
	return a, st, disk, p
}

func startDisk(t testing.TB, disk core.Store, options func(*Options)) (a *node, st Store, p *proxy) {
	t.Helper()
	d := &directory{}
	a = startNode(t, d, "n1", setup{options: options})
	n2 := startNode(t, d, "n2", setup{options: options, transport: func(tr *Transport) {
		tr.ServeStores(func(id core.DiskID) (core.Store, error) {
			switch id {
			case testDisk:
				return disk, nil
			case 8:
				return nil, fmt.Errorf("slot 8: %w", core.ErrNotFound)
			case 9:
				return nil, fmt.Errorf("slot 9: %w", core.ErrDiskFailed)
			}
			return nil, nil
		})
	}})
	p = newProxy(t, n2.addr)
	d.set("n2", p.addr())
	return a, a.Store("n2", testDisk), p
}

func testMeta() core.ShardMeta {
	return core.ShardMeta{
		ID: core.NewShardID(core.NewExtentID(), 3), Bucket: 5, Key: "a/key", Request: core.NewRequestID(),
		Scheme: core.ErasureCoded(4, 2),
	}
}

// putShard writes a shard and returns its first error.
func putShard(ctx context.Context, st core.Store, m core.ShardMeta, data []byte, size int64) error {
	w, err := st.Create(ctx, m, size)
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()
	if _, err := io.Copy(w, struct{ io.Reader }{bytes.NewReader(data)}); err != nil {
		return err
	}
	return w.Commit(ctx)
}

func getShard(ctx context.Context, st core.Store, id core.ShardID) ([]byte, error) {
	r, err := st.Open(ctx, id)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	buf := make([]byte, r.Size())
	n, err := r.ReadAt(ctx, buf, 0)
	if n == len(buf) && errors.Is(err, io.EOF) {
		err = nil
	}
	return buf[:n], err
}

func TestStore(t *testing.T) {
	a, st, disk, _ := startStore(t, nil)
	for _, size := range []int{0, 1, smallShard - 1, smallShard, smallShard + 1, 1 << 20, 5<<20 + 3} {
		for _, hint := range []int64{int64(size), -1, 10} {
			m, data := testMeta(), random(size)
			if err := putShard(t.Context(), st, m, data, hint); err != nil {
				t.Fatal(err)
			}
			found := false
			for info := range disk.List(core.ShardID{}) {
				found = found || info.ShardMeta == m && info.Size == int64(size)
			}
			if !found {
				t.Errorf("shard of %d bytes: not on the disk as %+v", size, m)
			}
			got, err := getShard(t.Context(), st, m.ID)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("shard of %d bytes: got %d bytes, %v", size, len(got), err)
			}
			r, err := st.OpenRange(t.Context(), m.ID, int64(size/2), 1000)
			if err != nil {
				t.Fatal(err)
			}
			if hint < 0 {
				checkRanges(t, r, data)
			}
			_ = r.Close()
			for range 2 {
				if err := st.Delete(t.Context(), m.ID); err != nil {
					t.Error(err)
				}
			}
			_, err = st.Open(t.Context(), m.ID)
			wantIs(t, err, core.ErrNotFound)
			wantNot(t, err, core.ErrUnavailable)
		}
	}
	await(t, "everything is closed", func() bool { s := disk.Stats(); return s.Readers+s.Writers == 0 })
	if s := statsOf(a, "n2"); s.Streams != 0 || s.Dials != 2 {
		t.Errorf("figures: %+v, want one connection for calls and one for streams", s)
	}
	if st.Local() || !a.Store("n1", 1).Local() {
		t.Error("Local is wrong")
	}
}

func TestSmallShardsTakeOneRoundTrip(t *testing.T) {
	a, st, disk, p := startStore(t, func(o *Options) { o.Ping, o.Timeout = time.Minute, time.Hour })
	data := random(smallShard)
	if err := putShard(t.Context(), st, testMeta(), data, -1); err != nil { // connects
		t.Fatal(err)
	}
	p.roundTrips()
	for _, n := range []int{0, 1, 4 << 10, smallShard} {
		m := testMeta()
		if err := putShard(t.Context(), st, m, data[:n], int64(n)); err != nil {
			t.Fatal(err)
		}
		if got := p.roundTrips(); got != 1 {
			t.Errorf("write of %d bytes: got %d round trips, want 1", n, got)
		}
		if got, err := getShard(t.Context(), st, m.ID); err != nil || !bytes.Equal(got, data[:n]) {
			t.Errorf("read of %d bytes: got %d, %v", n, len(got), err)
		}
		if got := p.roundTrips(); got != 1 {
			t.Errorf("read of %d bytes: got %d round trips, want 1", n, got)
		}
		// Not even the close is one: the disk has closed the shard itself.
		await(t, "the end of the reader", func() bool { return disk.Stats().Readers == 0 })
		if got := p.roundTrips(); got != 0 {
			t.Errorf("close after a read of %d bytes: got %d round trips, want none", n, got)
		}
	}
	if s := statsOf(a, "n2"); s.Dials != 1 {
		t.Errorf("figures: %+v, want one connection", s)
	}
}

// Whatever fails on a disk fails alike here and there, and leaves nothing open.
func TestStoreFaults(t *testing.T) {
	data := random(1 << 20)
	for _, op := range []memstore.Op{
		memstore.Create, memstore.Write, memstore.Commit, memstore.Open, memstore.Read, memstore.Delete, memstore.Ack,
	} {
		for _, fail := range []error{core.ErrNoSpace, core.ErrDiskFailed, core.ErrUnavailable, core.ErrCorrupt, core.ErrNotFound} {
			for _, size := range []int{100, len(data)} {
				for _, after := range []int64{0, 70_000} {
					if after > 0 && (size < len(data) || op&(memstore.Write|memstore.Read) == 0) {
						continue
					}
					t.Run(fmt.Sprintf("%v %v %d after %d", op, fail, size, after), func(t *testing.T) {
						a, st, disk, _ := startStore(t, nil)
						fault := memstore.Fault{Op: op, Err: fail, After: after}
						near := memstore.New(clock{})
						near.Inject(fault)
						disk.Inject(fault)
						want := exercise(t, near, data[:size])
						got := exercise(t, st, data[:size])
						for step, err := range want {
							if errors.Is(err, fail) != errors.Is(got[step], fail) || (err == nil) != (got[step] == nil) {
								t.Errorf("%s: got %v, want an error like %v", step, got[step], err)
							}
						}
						await(t, "everything is closed", func() bool { s := disk.Stats(); return s.Readers+s.Writers+s.Calls == 0 })
						if s := statsOf(a, "n2"); s.Streams != 0 || s.Dials > 2 {
							t.Errorf("figures: %+v, want no open stream, and no connection lost", s)
						}
						if near.Len() != disk.Len() {
							t.Errorf("shards on the disk: got %d, want %d", disk.Len(), near.Len())
						}
					})
				}
			}
		}
	}
}

// exercise writes, reads and deletes, and returns the errors.
func exercise(t *testing.T, st core.Store, data []byte) map[string]error {
	m := testMeta()
	errs := map[string]error{"write": putShard(t.Context(), st, m, data, int64(len(data)))}
	got, err := getShard(t.Context(), st, m.ID)
	if err == nil && !bytes.Equal(got, data) {
		t.Errorf("read: got %d bytes, or wrong ones", len(got))
	}
	errs["read"] = err
	errs["delete"] = st.Delete(t.Context(), m.ID)
	return errs
}

func TestStoreDamage(t *testing.T) {
	_, st, disk, _ := startStore(t, nil)
	m, data := testMeta(), random(1<<20)
	if err := putShard(t.Context(), st, m, data, -1); err != nil {
		t.Fatal(err)
	}
	if err := disk.Corrupt(m.ID, 300_000); err != nil {
		t.Fatal(err)
	}
	got, err := getShard(t.Context(), st, m.ID)
	wantIs(t, err, core.ErrCorrupt)
	if len(got) > 300_000/memstore.BlockSize*memstore.BlockSize {
		t.Errorf("got %d bytes, some of them damaged", len(got))
	}
}

// A disk that is not there says nothing about shards.
func TestMissingDisks(t *testing.T) {
	a, _, _, _ := startStore(t, nil)
	for _, test := range []struct {
		node core.NodeID
		disk core.DiskID
		want error
	}{
		{"n2", 8, core.ErrUnavailable},
		{"n2", 9, core.ErrDiskFailed},
		{"n2", 10, core.ErrUnavailable},
		{"n1", 7, core.ErrUnavailable},
	} {
		st := a.Store(test.node, test.disk)
		_, openErr := st.Open(t.Context(), testMeta().ID)
		for op, err := range map[string]error{
			"open":         openErr,
			"delete":       st.Delete(t.Context(), testMeta().ID),
			"small create": putShard(t.Context(), st, testMeta(), nil, 0),
			"create":       putShard(t.Context(), st, testMeta(), nil, -1),
		} {
			if !errors.Is(err, test.want) || errors.Is(err, core.ErrNotFound) {
				t.Errorf("%s on %v: got %v, want %v", op, st, err, test.want)
			}
		}
	}
}

// A node that is cut off leaves no shard and no open writer behind.
func TestStoreCutOff(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*proxy){"cut": (*proxy).cut, "silent": (*proxy).freeze} {
		t.Run(name, func(t *testing.T) {
			_, st, disk, p := startStore(t, brief)
			m := testMeta()
			w, err := st.Create(t.Context(), m, -1)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(random(1 << 20)); err != nil {
				t.Fatal(err)
			}
			await(t, "bytes on the disk", func() bool { return disk.Stats().Written > 0 })
			lose(p)
			await(t, "the end of the writer", func() bool { return disk.Stats().Writers == 0 })
			if err := w.Commit(t.Context()); !errors.Is(err, core.ErrUnavailable) {
				t.Errorf("commit: got %v, want %v", err, core.ErrUnavailable)
			}
			_ = w.Close()
			if disk.Len() != 0 {
				t.Error("a shard was kept")
			}
			// Nobody is there at all.
			p.thaw()
			_ = p.l.Close()
			p.cut()
			await(t, "the loss", func() bool {
				_, err = st.Open(t.Context(), m.ID)
				return errors.Is(err, core.ErrUnavailable) && errors.Is(err, ErrNotSent)
			})
			wantIs(t, st.Delete(t.Context(), m.ID), core.ErrUnavailable, ErrNotSent)
			_, err = st.Create(t.Context(), m, 10)
			wantIs(t, err, core.ErrUnavailable, ErrNotSent)
		})
	}
}

// The node's own disks are used without a connection.
func TestLocalStore(t *testing.T) {
	disk := memstore.New(clock{})
	a := startNode(t, &directory{}, "n1", setup{transport: func(tr *Transport) {
		tr.ServeStores(func(core.DiskID) (core.Store, error) { return disk, nil })
	}})
	for step, err := range exercise(t, a.Store("n1", 1), random(100_000)) {
		if err != nil {
			t.Errorf("%s: %v", step, err)
		}
	}
	if s := disk.Stats(); s.Commits != 1 || s.Opens != 1 || s.Deletes != 1 || s.Readers+s.Writers != 0 {
		t.Errorf("figures of the disk: %+v, want one of each", s)
	}
}

// fileStore serves one shard, from a file, and what is said to be its verified
// form from memory.
type fileStore struct {
	*memstore.Store
	f    *os.File
	size int
}

func (s fileStore) Open(ctx context.Context, id core.ShardID) (core.ShardReader, error) {
	r, err := s.Store.Open(ctx, id)
	if err != nil {
		return nil, err
	}
	return fileReader{r, s}, nil
}

type fileReader struct {
	core.ShardReader
	s fileStore
}

func (r fileReader) UnverifiedSection(off int64, n int) (*os.File, int64, int, bool, bool) {
	n = max(0, min(n, r.s.size-int(off)))
	return r.s.f, off, n, int(off)+n == r.s.size, true
}

func TestUnverifiedReads(t *testing.T) {
	data := random(2 << 20)
	name := filepath.Join(t.TempDir(), "shard")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	disk := fileStore{memstore.New(clock{}), f, len(data)}
	_, st, _ := startDisk(t, disk, nil)
	m := testMeta()
	if err := putShard(t.Context(), st, m, data, -1); err != nil {
		t.Fatal(err)
	}
	if err := disk.Corrupt(m.ID, 0); err != nil { // as the disk would find it
		t.Fatal(err)
	}
	_, err = getShard(t.Context(), st, m.ID)
	wantIs(t, err, core.ErrCorrupt)
	r, err := st.OpenUnverified(t.Context(), m.ID)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data))
	if n, err := r.ReadAt(t.Context(), got, 0); n != len(data) || !bytes.Equal(got, data) {
		t.Errorf("unverified: got %d bytes, %v", n, err)
	}
	_ = r.Close()
}

func FuzzStoreHeaders(f *testing.F) {
	h, err := createHeader{7, -1, testMeta()}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(h)
	f.Add(openHeader{disk: 7, unverified: true}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := parseCreate(b); err == nil {
			again, err := h.encode()
			if err != nil && len(b) <= MaxHeader {
				t.Fatalf("encode %+v: %v", h, err)
			}
			if got, err := parseCreate(again); err == nil && got != h {
				t.Errorf("got %+v, want %+v", got, h)
			}
		}
		if h, err := parseOpen(b); err == nil {
			if got, err := parseOpen(h.encode()); err != nil || got != h {
				t.Errorf("got %+v, %v, want %+v", got, err, h)
			}
		}
	})
}
