package shardio_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/schemetest"
	"github.com/shoalstore/shoal/core/shardio"
)

func TestPool(t *testing.T) {
	var p shardio.Pool
	for n := 1; n < 70<<20; n += n/7 + 1 {
		b := p.Get(n)
		if len(b.B) != n {
			t.Fatalf("get %d: got %d bytes", n, len(b.B))
		}
		if c := cap(b.B); n > 1<<10 && c > n+n/4+1 {
			t.Errorf("get %d: got room for %d, want a quarter more at most", n, c)
		}
		if got := p.InUse(); got != int64(cap(b.B)) {
			t.Errorf("get %d: %d bytes in use, want %d", n, got, cap(b.B))
		}
		p.Put(b)
		p.Put(nil)
		if got := p.InUse(); got != 0 {
			t.Fatalf("get and put %d: %d bytes in use, want 0", n, got)
		}
		// A buffer that comes back serves any size of its class.
		c := p.Get(cap(b.B))
		if len(c.B) != cap(b.B) {
			t.Fatalf("get %d: got %d bytes", cap(b.B), len(c.B))
		}
		p.Put(c)
	}
}

func TestFill(t *testing.T) {
	broken := errors.New("broken")
	for name, test := range map[string]struct {
		src io.Reader
		n   int
		end bool
		err error
	}{
		"full":                       {strings.NewReader("0123456789"), 8, false, nil},
		"ends":                       {strings.NewReader("01234"), 5, true, nil},
		"ends with the last byte":    {iotest.DataErrReader(strings.NewReader("01234567")), 8, true, nil},
		"byte by byte":               {iotest.OneByteReader(strings.NewReader("0123456789")), 8, false, nil},
		"empty":                      {strings.NewReader(""), 0, true, nil},
		"breaks":                     {io.MultiReader(strings.NewReader("012"), iotest.ErrReader(broken)), 3, false, broken},
		"cut off":                    {io.MultiReader(strings.NewReader("012"), iotest.ErrReader(io.ErrUnexpectedEOF)), 3, false, io.ErrUnexpectedEOF},
		"neither delivers nor fails": {idle{}, 0, false, io.ErrNoProgress},
	} {
		n, end, err := shardio.Fill(test.src, make([]byte, 8))
		if n != test.n || end != test.end || !errors.Is(err, test.err) {
			t.Errorf("%s: got %d, %v, %v; want %d, %v, %v", name, n, end, err, test.n, test.end, test.err)
		}
	}
}

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

func TestAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, peak, dropped atomic.Int64
		a := shardio.Ahead[int]{
			N: 10, Depth: 3,
			Fetch: func(ctx context.Context, i int) (int, error) {
				peak.Store(max(peak.Load(), running.Add(1)))
				defer running.Add(-1)
				// Later ones are faster, and yet come in order.
				return i, schemetest.Clock{}.Wait(ctx, time.Duration(10-i)*time.Second)
			},
			Drop: func(int) { dropped.Add(1) },
		}
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 5 {
			got, ok, err := a.Next(ctx)
			if got != i || !ok || err != nil {
				t.Fatalf("item %d: got %d, %v, %v", i, got, ok, err)
			}
		}
		if peak.Load() != 3 {
			t.Errorf("%d fetches ran at once, want 3", peak.Load())
		}
		synctest.Wait()
		cancel()
		a.Close()
		if running.Load() != 0 {
			t.Errorf("%d fetches run after Close", running.Load())
		}
		if _, ok, err := a.Next(ctx); ok || err != nil {
			t.Errorf("next after close: got %v, %v; want the end", ok, err)
		}
	})
}

func TestAheadDropsWhatNobodyWants(t *testing.T) {
	var dropped []int
	a := shardio.Ahead[int]{
		N: 5, Depth: 4,
		Fetch: func(_ context.Context, i int) (int, error) { return i, nil },
		Drop:  func(i int) { dropped = append(dropped, i) },
	}
	if got, ok, err := a.Next(t.Context()); got != 0 || !ok || err != nil {
		t.Fatalf("got %d, %v, %v", got, ok, err)
	}
	a.Close()
	if !slices.Equal(dropped, []int{1, 2, 3}) {
		t.Errorf("dropped %v, want 1 to 3", dropped)
	}
}

// newStream returns a stream over text in windows of 10 bytes, cut into parts of 3.
func newStream(t *testing.T, text string, claimed int64, fail int) *shardio.Stream {
	return streamOf(t, text, claimed, fail, nil)
}

func streamOf(t *testing.T, text string, claimed int64, fail int, now func(lo, hi int64) (shardio.Window, bool)) *shardio.Stream {
	env := shardio.NewEnv(shardio.Options{Clock: schemetest.Clock{}})
	return env.NewStream(t.Context(), 0, claimed, shardio.Feed{Chunk: 10, Now: now, Fetch: func(_ context.Context, lo, hi int64) (shardio.Window, error) {
		if fail >= 0 && lo >= int64(fail)*10 {
			return shardio.Window{}, core.ErrCorrupt
		}
		return windowOf(text, lo, hi), nil
	}})
}

func windowOf(text string, lo, hi int64) shardio.Window {
	w := shardio.Window{Release: func() {}}
	for part := range slices.Chunk([]byte(text[lo:min(int64(len(text)), hi)]), 3) {
		w.Parts = append(w.Parts, part)
	}
	return w
}

// TestStreamNow takes what is there without waiting, and from the first time
// that it is not goes on by fetching.
func TestStreamNow(t *testing.T) {
	const text = "the quick brown fox jumps over the lazy dog"
	for there := range int64(len(text)) + 1 {
		asked, refused := 0, 0
		s := streamOf(t, text, int64(len(text)), -1, func(lo, hi int64) (shardio.Window, bool) {
			asked++
			if lo >= there {
				refused++
				return shardio.Window{}, false
			}
			return windowOf(text, lo, min(hi, lo+7)), true
		})
		got, err := io.ReadAll(s)
		if err != nil || string(got) != text {
			t.Errorf("%d bytes there: got %q, %v", there, got, err)
		}
		if want := (int(there) + 6) / 7; asked-refused != want || refused > 1 {
			t.Errorf("%d bytes there: got %d windows and was refused %d times, want %d windows and one refusal", there, asked-refused, refused, want)
		}
		must := s.Close()
		if _, err := s.Read(make([]byte, 1)); must != nil || err == nil || errors.Is(err, io.EOF) {
			t.Errorf("read after close: got %v, want an error", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := shardio.NewEnv(shardio.Options{Clock: schemetest.Clock{}}).NewStream(ctx, 0, 20, shardio.Feed{Chunk: 10, Now: func(lo, _ int64) (shardio.Window, bool) {
		cancel()
		return windowOf(text, lo, lo+10), true
	}})
	if got, err := io.ReadAll(s); !errors.Is(err, context.Canceled) || string(got) != text[:10] {
		t.Errorf("cancelled: got %q, %v; want what came before", got, err)
	}
}

func TestStream(t *testing.T) {
	const text = "the quick brown fox jumps over the lazy dog"
	if err := iotest.TestReader(newStream(t, text, int64(len(text)), -1), []byte(text)); err != nil {
		t.Error(err)
	}
	var b bytes.Buffer
	if n, err := newStream(t, text, int64(len(text)), -1).WriteTo(&b); err != nil || n != int64(len(text)) || b.String() != text {
		t.Errorf("WriteTo: got %q, %d, %v", b.String(), n, err)
	}
	if got, err := io.ReadAll(newStream(t, text, int64(len(text)), 2)); !errors.Is(err, core.ErrCorrupt) || string(got) != text[:20] {
		t.Errorf("failing window: got %q, %v; want the 20 bytes before it and its error", got, err)
	}
	if got, err := io.ReadAll(newStream(t, text, int64(len(text))+1, -1)); !errors.Is(err, io.ErrUnexpectedEOF) || string(got) != text {
		t.Errorf("windows that are too short: got %q, %v; want io.ErrUnexpectedEOF", got, err)
	}
	full := errors.New("full")
	if n, err := newStream(t, text, int64(len(text)), -1).WriteTo(failingWriter{full}); n != 0 || !errors.Is(err, full) {
		t.Errorf("WriteTo a failing writer: got %d, %v; want its error", n, err)
	}
	if _, err := newStream(t, text, int64(len(text)), -1).WriteTo(failingWriter{nil}); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("WriteTo a writer that takes nothing: got %v; want io.ErrShortWrite", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

// TestShardsCloseInOrder: a stream that is closed before its context ends leaves
// its connection to the next one.
func TestShardsCloseInOrder(t *testing.T) {
	env := shardio.NewEnv(shardio.Options{Clock: schemetest.Clock{}})
	stores := []*openedStore{{}, {}}
	extent := core.Extent{Size: 10, Scheme: core.Mirror(2), Places: []core.Place{{Disk: 1}, {Disk: 2}}}
	s := env.NewShards(t.Context(), core.ReadSpec{Extent: extent, Src: []core.Store{stores[0], stores[1]}}, 10, []int{0, 1})
	if err := s.OpenSome(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	for i, st := range stores {
		if err := st.opened.Err(); err != nil {
			t.Errorf("shard %d: the context of the open shard has ended: %v", i, err)
		}
	}
	s.Close()
	env.Wait()
	for i, st := range stores {
		switch {
		case !st.closed:
			t.Errorf("shard %d was not closed", i)
		case st.atClose != nil:
			t.Errorf("shard %d was cancelled before it was closed: %v", i, st.atClose)
		case st.opened.Err() == nil:
			t.Errorf("shard %d: its context has not ended", i)
		}
	}
}

// openedStore is a store and its one shard.
type openedStore struct {
	core.Store
	opened  context.Context //nolint:containedctx // it is what is tested
	closed  bool
	atClose error
}

func (s *openedStore) Open(ctx context.Context, _ core.ShardID) (core.ShardReader, error) {
	s.opened = ctx
	return s, nil
}

func (*openedStore) Size() int64 { return 10 }

func (*openedStore) ReadAt(context.Context, []byte, int64) (int, error) { return 0, io.EOF }

func (s *openedStore) Close() error {
	s.closed, s.atClose = true, s.opened.Err()
	return nil
}

// TestStreamBeside reads a long run of which everything is there without waiting, or
// only so much, to its end or to somewhere before it: the bytes are the right ones, two
// windows are in memory at the most, and none is left.
func TestStreamBeside(t *testing.T) {
	const size, step = 8 << 20, 100_000
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i * 7919 >> 8)
	}
	for _, there := range []int64{size, size / 2, step, 0} {
		for _, stop := range []int64{size, size - 1, size / 3, 1} {
			var held, most atomic.Int64
			window := func(lo, hi int64) shardio.Window {
				most.Store(max(most.Load(), held.Add(1)))
				return shardio.Window{Parts: [][]byte{data[lo:hi]}, Release: func() { held.Add(-1) }}
			}
			env := shardio.NewEnv(shardio.Options{Clock: schemetest.Clock{}, ReadAhead: 1})
			s := env.NewStream(t.Context(), 0, size, shardio.Feed{
				Chunk: 1 << 20,
				Now: func(lo, hi int64) (shardio.Window, bool) {
					if lo >= there {
						return shardio.Window{}, false
					}
					return window(lo, min(hi, lo+step)), true
				},
				Fetch: func(_ context.Context, lo, hi int64) (shardio.Window, error) { return window(lo, hi), nil },
			})
			got, err := io.ReadAll(io.LimitReader(s, stop))
			if err != nil || !bytes.Equal(got, data[:stop]) {
				t.Errorf("%d bytes there: got %d of %d, %v", there, len(got), stop, err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if held.Load() != 0 || most.Load() > 2 {
				t.Errorf("%d bytes there, %d read: %d windows are left, %d at the most were held", there, stop, held.Load(), most.Load())
			}
		}
	}
}
