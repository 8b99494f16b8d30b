package memstore_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/memstore"
	"github.com/shoalstore/shoal/core/schemetest"
)

func put(t *testing.T, s *memstore.Store, data []byte) core.ShardID {
	t.Helper()
	id := core.NewShardID(core.NewExtentID(), 3)
	w, err := s.Create(t.Context(), core.ShardMeta{ID: id, Key: "k"}, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	for len(data) > 0 {
		n := min(len(data), 10_000)
		if m, err := w.Write(data[:n]); m != n || err != nil {
			t.Fatalf("write %d: got %d, %v", n, m, err)
		}
		data = data[n:]
	}
	if _, err := s.Open(t.Context(), id); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("open before commit: got error %v, want ErrNotFound", err)
	}
	if err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return id
}

func get(t *testing.T, s *memstore.Store, id core.ShardID, n int, off int64) ([]byte, error) {
	t.Helper()
	r, err := s.Open(t.Context(), id)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	b := make([]byte, n)
	m, err := r.ReadAt(t.Context(), b, off)
	return b[:m], err
}

func TestShards(t *testing.T) {
	s := memstore.New(schemetest.Clock{})
	data := schemetest.Data(3*memstore.BlockSize+123, 1)
	id := put(t, s, data)
	for _, c := range [][2]int{{0, len(data)}, {0, 1}, {memstore.BlockSize - 1, 2}, {memstore.BlockSize + 5, 2 * memstore.BlockSize}, {len(data) - 1, 1}} {
		got, err := get(t, s, id, c[1], int64(c[0]))
		if err != nil || !bytes.Equal(got, data[c[0]:c[0]+c[1]]) {
			t.Errorf("read %v: got %d bytes, error %v", c, len(got), err)
		}
	}
	if got, err := get(t, s, id, 10, int64(len(data))-4); !errors.Is(err, io.EOF) || len(got) != 4 {
		t.Errorf("read past the end: got %d bytes and error %v, want 4 and io.EOF", len(got), err)
	}
	var list []core.ShardInfo
	for info := range s.List(core.ShardID{}) {
		list = append(list, info)
	}
	if len(list) != 1 || list[0].ID != id || list[0].Size != int64(len(data)) || list[0].Key != "k" {
		t.Errorf("list: got %+v", list)
	}
	for info := range s.List(id) {
		t.Errorf("list after the last: got %+v", info)
	}

	r, err := s.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // a second time is no error
		if err := s.Delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Open(t.Context(), id); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("open after delete: got error %v, want ErrNotFound", err)
	}
	if n, err := r.ReadAt(t.Context(), make([]byte, 10), 0); n != 10 || err != nil {
		t.Errorf("read of a deleted shard that is open: got %d, %v; want it to go on", n, err)
	}
	_ = r.Close()
	if _, err := r.ReadAt(t.Context(), make([]byte, 10), 0); err == nil {
		t.Error("read after close: got no error")
	}
	if st := s.Stats(); st.Readers != 0 || st.Writers != 0 || st.Calls != 0 || s.Len() != 0 {
		t.Errorf("at the end: got %+v and %d shards, want nothing open", st, s.Len())
	}
}

func TestDiscard(t *testing.T) {
	s := memstore.New(schemetest.Clock{})
	w, err := s.Create(t.Context(), core.ShardMeta{}, -1)
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("write after close: got no error")
	}
	if err := w.Commit(t.Context()); err == nil || s.Len() != 0 {
		t.Errorf("commit after close: got error %v and %d shards, want an error and none", err, s.Len())
	}
}

func TestRestart(t *testing.T) {
	s := memstore.New(schemetest.Clock{})
	id := put(t, s, []byte("content"))
	r, err := s.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.Create(t.Context(), core.ShardMeta{}, 17)
	if err != nil || s.Stats().SizeHint != 17 {
		t.Fatalf("create: got error %v and hint %d, want none and 17", err, s.Stats().SizeHint)
	}
	s.Restart()
	if _, err := r.ReadAt(t.Context(), make([]byte, 7), 0); !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("read after a restart: got error %v, want ErrUnavailable", err)
	}
	if err := w.Commit(t.Context()); !errors.Is(err, core.ErrUnavailable) || s.Len() != 1 {
		t.Errorf("commit after a restart: got error %v and %d shards, want ErrUnavailable and the old one", err, s.Len())
	}
	_, _ = r.Close(), w.Close()
	if got, err := get(t, s, id, 7, 0); err != nil || string(got) != "content" {
		t.Errorf("opened anew: got %q, %v", got, err)
	}
}

func TestCorrupt(t *testing.T) {
	s := memstore.New(schemetest.Clock{})
	id := put(t, s, schemetest.Data(2*memstore.BlockSize, 2))
	if err := s.Corrupt(id, memstore.BlockSize+7); err != nil {
		t.Fatal(err)
	}
	if _, err := get(t, s, id, memstore.BlockSize, 0); err != nil {
		t.Errorf("block without damage: got error %v", err)
	}
	got, err := get(t, s, id, memstore.BlockSize, 100)
	if !errors.Is(err, core.ErrCorrupt) || len(got) != memstore.BlockSize-100 {
		t.Errorf("damaged block: got %d bytes and error %v, want those before the block and ErrCorrupt", len(got), err)
	}
	if err := s.Corrupt(id, 2*memstore.BlockSize); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("corrupt beyond the end: got error %v, want ErrNotFound", err)
	}
}

func TestFaults(t *testing.T) {
	s := memstore.New(schemetest.Clock{})
	release := s.Inject(memstore.Fault{Op: memstore.Write, After: 100, Err: core.ErrNoSpace})
	w, err := s.Create(t.Context(), core.ShardMeta{}, -1)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := w.Write(make([]byte, 60)); n != 60 || err != nil {
		t.Errorf("write within the limit: got %d, %v", n, err)
	}
	if n, err := w.Write(make([]byte, 60)); n != 40 || !errors.Is(err, core.ErrNoSpace) {
		t.Errorf("write beyond the limit: got %d, %v; want 40 and ErrNoSpace", n, err)
	}
	release()
	release()
	if err := w.Commit(t.Context()); !errors.Is(err, core.ErrNoSpace) {
		t.Errorf("commit after a failed write: got %v, want its error", err)
	}
	_ = w.Close()

	s.Inject(memstore.Fault{Op: memstore.Create | memstore.Open, Times: 2})
	for i := range 3 {
		_, err := s.Open(t.Context(), core.ShardID{})
		want := core.ErrUnavailable
		if i == 2 {
			want = core.ErrNotFound
		}
		if !errors.Is(err, want) {
			t.Errorf("call %d: got error %v, want %v", i, err, want)
		}
	}

	s.Inject(memstore.Fault{Op: memstore.Ack})
	w, err = s.Create(t.Context(), core.ShardMeta{}, -1)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(t.Context()); !errors.Is(err, core.ErrUnavailable) || s.Len() != 1 {
		t.Errorf("commit without an answer: got error %v and %d shards, want ErrUnavailable and the shard", err, s.Len())
	}
	_ = w.Close()
}

func TestStallAndDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New(schemetest.Clock{})
		id := put(t, s, []byte("content"))
		elapsed := func(ctx context.Context) time.Duration {
			began := schemetest.Clock{}.Now()
			r, err := s.Open(ctx, id)
			if err == nil {
				_ = r.Close()
			}
			return schemetest.Clock{}.Now().Sub(began)
		}
		release := s.Inject(memstore.Fault{Op: memstore.Open, Delay: time.Minute})
		if got := elapsed(t.Context()); got != time.Minute {
			t.Errorf("delay: took %v, want a minute", got)
		}
		release()

		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		release = s.Inject(memstore.Fault{Op: memstore.Open, Stall: true})
		if got := elapsed(short); got != time.Second {
			t.Errorf("stall: took %v, want the context's second", got)
		}
		go func() {
			_ = schemetest.Clock{}.Wait(t.Context(), time.Hour)
			release()
		}()
		if got := elapsed(t.Context()); got != time.Hour {
			t.Errorf("stall: took %v, want the hour to its release", got)
		}

		release = s.Inject(memstore.Fault{Op: memstore.Open, Stall: true, Deaf: true})
		go func() {
			_ = schemetest.Clock{}.Wait(t.Context(), time.Hour)
			release()
		}()
		if got := elapsed(short); got != time.Hour {
			t.Errorf("deaf stall: took %v, want the hour to its release", got)
		}
	})
}
