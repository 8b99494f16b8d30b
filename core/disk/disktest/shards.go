package disktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/shoalstore/shoal/core"
)

func shardTests() []namedTest {
	return []namedTest{
		{"sizes", testShardSizes, true},
		{"create and commit", testShardLife, true},
		{"listing", testShardListing, false},
		{"sweep", testShardSweep, false},
		{"context", testShardContext, false},
	}
}

// content returns n bytes that a seed decides.
func content(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // repeatable on purpose
	b := make([]byte, n+8)
	for i := 0; i < n; i += 8 {
		v := rng.Uint64()
		for j := range 8 {
			b[i+j] = byte(v >> (8 * j))
		}
	}
	return b[:n]
}

func shardMeta(seed uint64) core.ShardMeta {
	rng := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // as above
	m := core.ShardMeta{
		Bucket: core.BucketID(rng.Uint32()), Key: fmt.Sprint("key/\x00", seed), Scheme: core.ErasureCoded(4, 2),
	}
	for i := range m.ID.Extent {
		m.ID.Extent[i] = byte(rng.Uint32())
	}
	m.ID.Index = byte(rng.IntN(6))
	m.ID.Nonce[0] = byte(rng.Uint32())
	for i := range m.Request {
		m.Request[i] = byte(rng.Uint32())
	}
	return m
}

// writeShard writes a shard in pieces.
func writeShard(ctx context.Context, d Disk, m core.ShardMeta, body []byte, hint int64, piece int) (err error) {
	w, err := d.Create(ctx, m, hint)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	for len(body) > 0 {
		n, err := w.Write(body[:min(piece, len(body))])
		if err != nil {
			return err
		}
		body = body[n:]
	}
	return w.Commit(ctx)
}

// readShard reads all of a shard.
func readShard(ctx context.Context, d Disk, id core.ShardID) (b []byte, err error) {
	r, err := d.Open(ctx, id)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	b = make([]byte, r.Size())
	if n, err := r.ReadAt(ctx, b, 0); n < len(b) {
		return b[:n], err
	}
	return b, nil
}

func testShardSizes(t *testing.T, b *bench) {
	seed := uint64(0)
	for _, size := range []int{
		0, 1, 100, 4000, 65535, 65536, 65537, 100_000, 131072, 262144, 1<<20 - 1, 1 << 20, 1<<20 + 1, 3<<20 + 12345,
	} {
		for i, piece := range []int{1 << 30, 65536, 10_007} {
			if piece == 10_007 && size > 1<<20+1 {
				continue
			}
			seed++
			m, body := shardMeta(seed), content(seed, size)
			hint := []int64{int64(size), -1, int64(size)*2 + 5000}[i]
			must(t, writeShard(t.Context(), b, m, body, hint, piece))
			got, err := readShard(t.Context(), b, m.ID)
			if err != nil || !bytes.Equal(got, body) {
				t.Fatalf("size %d, hint %d, pieces of %d: content differs (%v)", size, hint, piece, err)
			}
			readRanges(t, b, m.ID, body)
			must(t, b.Delete(t.Context(), m.ID))
		}
	}
}

func readRanges(t *testing.T, b *bench, id core.ShardID, body []byte) {
	t.Helper()
	r, err := b.Open(t.Context(), id)
	must(t, err)
	size := len(body)
	if r.Size() != int64(size) {
		t.Fatalf("size: got %d, want %d", r.Size(), size)
	}
	for _, off := range []int{0, 1, size / 2, 65535, 65536, 70_000, size - 1, size, size + 1} {
		for _, n := range []int{0, 1, 1000, 65536, 65537, 200_000} {
			if off < 0 {
				continue
			}
			p := make([]byte, n)
			k, err := r.ReadAt(t.Context(), p, int64(off))
			want := body[min(off, size):min(off+n, size)]
			if !bytes.Equal(p[:k], want) || (err != nil) != (k < n || off >= size) || err != nil && !errors.Is(err, io.EOF) {
				t.Fatalf("ReadAt(%d bytes, %d) of %d: got %d bytes, %v; want %d", n, off, size, k, err, len(want))
			}
		}
	}
	if _, err := r.ReadAt(t.Context(), make([]byte, 1), -1); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("ReadAt(-1): got %v, want an error", err)
	}
	must(t, r.Close())
}

func testShardLife(t *testing.T, b *bench) {
	m, body := shardMeta(1), content(1, 200_000)
	w, err := b.Create(t.Context(), m, -1)
	must(t, err)
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	_, err = b.Open(t.Context(), m.ID)
	wantErr(t, "open before commit", err, core.ErrNotFound)
	must(t, w.Commit(t.Context()))
	if _, err := w.Write(body); err == nil {
		t.Error("write after commit: no error")
	}
	if err := w.Commit(t.Context()); err == nil {
		t.Error("second commit: no error")
	}
	must(t, w.Close())
	must(t, w.Close())

	// The id is taken now, and what it names does not change.
	err = writeShard(t.Context(), b, m, []byte("other"), 5, 5)
	wantErr(t, "commit of an id that is there", err, core.ErrExists)
	got, err := readShard(t.Context(), b, m.ID)
	if err != nil || !bytes.Equal(got, body) {
		t.Fatalf("content differs after a second commit was refused (%v)", err)
	}

	r, err := b.Open(t.Context(), m.ID)
	must(t, err)
	must(t, b.Delete(t.Context(), m.ID))
	must(t, b.Delete(t.Context(), m.ID))
	_, err = b.Open(t.Context(), m.ID)
	wantErr(t, "open after delete", err, core.ErrNotFound)
	p := make([]byte, len(body))
	if n, err := r.ReadAt(t.Context(), p, 0); n != len(p) || !bytes.Equal(p, body) {
		t.Errorf("reading on after delete: got %d bytes, %v", n, err)
	}
	must(t, r.Close())

	w, err = b.Create(t.Context(), m, 10)
	must(t, err)
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	must(t, w.Close())
	_, err = b.Open(t.Context(), m.ID)
	wantErr(t, "open of what was not committed", err, core.ErrNotFound)
	if err := w.Commit(t.Context()); err == nil {
		t.Error("commit after close: no error")
	}
	b.reopen()
	_, err = b.Open(t.Context(), m.ID)
	wantErr(t, "the same, opened again", err, core.ErrNotFound)
}

func testShardListing(t *testing.T, b *bench) {
	want := map[core.ShardID]core.ShardInfo{}
	for seed := range uint64(30) {
		m := shardMeta(100 + seed)
		size := int(seed * 3000)
		must(t, writeShard(t.Context(), b, m, content(seed, size), int64(size), 1<<20))
		want[m.ID] = core.ShardInfo{ShardMeta: m, Size: int64(size)}
	}
	list := func(after core.ShardID) (ids []core.ShardID) {
		for info, err := range b.Shards(t.Context(), after) {
			must(t, err)
			if info.Age < 0 {
				t.Errorf("age: got %d", info.Age)
			}
			info.Age = 0
			if info != want[info.ID] {
				t.Errorf("shard: got %+v, want %+v", info, want[info.ID])
			}
			ids = append(ids, info.ID)
		}
		return ids
	}
	all := list(core.ShardID{})
	if len(all) != len(want) {
		t.Fatalf("shards: got %d, want %d", len(all), len(want))
	}
	for i, id := range all {
		if i > 0 && all[i-1].String() >= id.String() {
			t.Errorf("shards are out of order: %s, %s", all[i-1], id)
		}
		if got := list(id); len(got) != len(all)-i-1 {
			t.Errorf("shards after number %d: got %d, want %d", i, len(got), len(all)-i-1)
		}
	}
}

func testShardSweep(t *testing.T, b *bench) {
	m := shardMeta(1)
	w, err := b.Create(t.Context(), m, -1)
	must(t, err)
	if _, err := w.Write(content(1, 3<<20)); err != nil {
		t.Fatal(err)
	}
	free := func() int64 {
		u, err := b.fsys.Usage(b.dir)
		must(t, err)
		return u.Free
	}
	b.reopen() // with the writer open
	if _, err := w.Write(content(1, 3<<20)); err == nil {
		t.Error("write to a disk that was closed: no error")
	}
	if err := w.Commit(t.Context()); err == nil {
		t.Error("commit to a disk that was closed: no error")
	}
	_ = w.Close()
	for info, err := range b.Shards(t.Context(), core.ShardID{}) {
		t.Errorf("shard: got %v, %v; want none", info, err)
	}
	if free() == 0 {
		t.Error("no space left")
	}
	must(t, writeShard(t.Context(), b, m, content(2, 1000), -1, 100))
}

func testShardContext(t *testing.T, b *bench) {
	ctx, cancel := context.WithCancel(t.Context())
	m := shardMeta(1)
	must(t, writeShard(t.Context(), b, m, content(1, 1000), 1000, 1000))
	w, err := b.Create(ctx, shardMeta(2), -1)
	must(t, err)
	r, err := b.Open(ctx, m.ID)
	must(t, err)
	cancel()
	_, err = w.Write([]byte("x"))
	wantErr(t, "write", err, context.Canceled)
	wantErr(t, "commit", w.Commit(t.Context()), context.Canceled)
	_, err = r.ReadAt(t.Context(), make([]byte, 1), 0)
	wantErr(t, "read", err, context.Canceled)
	_, err = b.Create(ctx, shardMeta(3), -1)
	wantErr(t, "create", err, context.Canceled)
	_, err = b.Open(ctx, m.ID)
	wantErr(t, "open", err, context.Canceled)
	wantErr(t, "delete", b.Delete(ctx, m.ID), context.Canceled)
	wantErr(t, "apply", b.Apply(ctx, []core.SlotBatch{{Slot: 1, Remove: true}}), context.Canceled)
	must(t, w.Close())
	must(t, r.Close())
	if _, err := readShard(t.Context(), b, m.ID); err != nil {
		t.Errorf("the disk after all that: %v", err)
	}
}
