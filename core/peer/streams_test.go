package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/shoalstore/shoal/core"
)

const bankService = 7

// startPair runs n1, and n2 with a bank behind a proxy.
func startPair(t testing.TB, b *bank, options func(*Options)) (a, n2 *node, p *proxy) {
	t.Helper()
	d := &directory{}
	a = startNode(t, d, "n1", setup{options: options})
	n2 = startNode(t, d, "n2", setup{options: options, transport: func(tr *Transport) {
		tr.HandleStream(bankService, b)
		echoServer(tr)
	}})
	p = newProxy(t, n2.addr)
	d.set("n2", p.addr())
	return a, n2, p
}

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

// write writes a stream in pieces of that size.
func write(ctx context.Context, a *node, to core.NodeID, name string, data []byte, piece int, confirm bool) (string, error) {
	w, err := a.OpenWrite(ctx, to, bankService, []byte(name), confirm)
	if err != nil {
		return "", err
	}
	defer func() { _ = w.Close() }()
	for len(data) > 0 {
		n := min(piece, len(data))
		if _, err := w.Write(data[:n]); err != nil {
			return "", err
		}
		data = data[n:]
	}
	reply, err := w.Commit(ctx)
	return string(reply), err
}

func TestWriteStreams(t *testing.T) {
	b := &bank{}
	a, n2, _ := startPair(t, b, nil)
	data := random(3<<20 + 17)
	i := 0
	for _, n := range []int{0, 1, 100, smallShard, smallShard + 1, packSize, 300_000, len(data)} {
		for _, piece := range []int{1000, 32 << 10, 1 << 20, 4 << 20} {
			for _, confirm := range []bool{false, true} {
				name := fmt.Sprint(n, piece, confirm)
				reply, err := write(t.Context(), a, "n2", name, data[:n], piece, confirm)
				if got, ok := b.get(name); err != nil || !ok || !bytes.Equal(got, data[:n]) || reply != fmt.Sprint(n, " bytes") {
					t.Fatalf("%d bytes in pieces of %d: got %d bytes, %v, reply %q, %v", n, piece, len(got), ok, reply, err)
				}
				i++
			}
		}
	}
	s := statsOf(a, "n2")
	if s.Dials != 1 || s.StreamsOpened != uint64(i) || s.Streams != 0 || s.IdleStreams != 1 {
		t.Errorf("figures: %+v, want %d streams over one connection, which is idle now", s, i)
	}
	if got := statsOf(n2, "n1").StreamsServed; got != uint64(i) {
		t.Errorf("served: got %d streams, want %d", got, i)
	}
}

// A sink gets its bytes in pieces as large as possible, or takes them itself.
func TestSinks(t *testing.T) {
	data := random(4 * bulkSize)
	for _, test := range []struct {
		name string
		wrap func(WriteStream) WriteStream
	}{
		{"plain", nil},
		{"with ReadFrom", func(s WriteStream) WriteStream { return readerFromSink{s} }},
	} {
		b := &bank{wrapSink: test.wrap}
		a, _, _ := startPair(t, b, nil)
		if _, err := write(t.Context(), a, "n2", "x", data, 1000, false); err != nil {
			t.Fatal(err)
		}
		if got, _ := b.get("x"); !bytes.Equal(got, data) {
			t.Errorf("%s: got %d bytes, or wrong ones", test.name, len(got))
		}
		b.mu.Lock()
		if got := b.lastWrite == bulkSize; got != (test.wrap == nil) {
			t.Errorf("%s: the last write had %d bytes", test.name, b.lastWrite)
		}
		b.mu.Unlock()
	}
}

// lazySink claims to have read a stream that it has not.
type lazySink struct{ WriteStream }

func (lazySink) ReadFrom(io.Reader) (int64, error) { return 0, nil }

func TestSinkThatDoesNotRead(t *testing.T) {
	b := &bank{wrapSink: func(s WriteStream) WriteStream { return lazySink{s} }}
	a, _, _ := startPair(t, b, nil)
	_, err := write(t.Context(), a, "n2", "x", random(100_000), 1000, false)
	wantIs(t, err, io.ErrShortWrite)
	if _, ok := b.get("x"); ok {
		t.Error("the stream was committed")
	}
}

func TestSmallStreamsTakeOneRoundTrip(t *testing.T) {
	b := &bank{}
	a, _, p := startPair(t, b, func(o *Options) { o.Ping, o.Timeout = time.Minute, time.Hour })
	data := random(smallShard)
	if _, err := write(t.Context(), a, "n2", "x", data, len(data), false); err != nil {
		t.Fatal(err)
	}
	p.roundTrips()
	if _, err := write(t.Context(), a, "n2", "x", data, 1000, false); err != nil {
		t.Fatal(err)
	}
	if n := p.roundTrips(); n != 1 {
		t.Errorf("write: got %d round trips, want 1", n)
	}
	for _, n := range []int{0, 1, smallShard - 1} {
		b.put("x", data[:n])
		r, err := a.OpenRead(t.Context(), "n2", bankService, []byte("x"), Range{0, smallShard})
		if err != nil {
			t.Fatal(err)
		}
		if err := iotest.TestReader(readerOf(t, r, n), data[:n]); err != nil {
			t.Error(err)
		}
		_ = r.Close()
		if n := p.roundTrips(); n != 1 {
			t.Errorf("read: got %d round trips, want 1", n)
		}
	}
	if s := statsOf(a, "n2"); s.Dials != 1 || s.Streams != 0 {
		t.Errorf("figures: %+v, want one connection and no open stream", s)
	}
}

// readerOf makes a ReadStream of that size one of package io's.
func readerOf(t *testing.T, r ReadStream, size int) *io.SectionReader {
	return io.NewSectionReader(readerAt{t, r}, 0, int64(size))
}

type readerAt struct {
	t *testing.T
	r ReadStream
}

func (r readerAt) ReadAt(p []byte, off int64) (int, error) { return r.r.ReadAt(r.t.Context(), p, off) }

// fileSource serves sections of a file.
type fileSource struct {
	ReadStream
	f    *os.File
	size int
}

func (s fileSource) Section(off int64, n int) (*os.File, int64, int, bool, bool) {
	n = max(0, min(n, s.size-int(off)))
	return s.f, off, n, int(off)+n == s.size, true
}

func sendFiles(t *testing.T, data []byte) func(ReadStream) ReadStream {
	t.Helper()
	name := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return func(s ReadStream) ReadStream { return fileSource{s, f, len(data)} }
}

// Any range read over the network is what a reader in memory returns, from
// memory, by copying and by sendfile.
func TestReadStreams(t *testing.T) {
	data := random(3<<20 + 17)
	files := sendFiles(t, data)
	for name, wrap := range map[string]func(ReadStream) ReadStream{"copied": nil, "from a file": files} {
		t.Run(name, func(t *testing.T) {
			b := &bank{wrapSource: wrap}
			b.put("x", data)
			a, _, _ := startPair(t, b, nil)
			for _, first := range []Range{{}, {0, smallShard}, {1 << 20, maxFirst}, {3 << 20, maxFirst}, {9 << 20, 1}} {
				r, err := a.OpenRead(t.Context(), "n2", bankService, []byte("x"), first)
				if err != nil {
					t.Fatal(err)
				}
				if got := string(r.Meta()); got != fmt.Sprint(len(data)) {
					t.Errorf("meta: got %q", got)
				}
				checkRanges(t, r, data)
				_, err = r.ReadAt(t.Context(), make([]byte, 1), -1)
				wantIs(t, err, core.ErrInvalid)
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			}
			if s := statsOf(a, "n2"); s.Dials != 1 || s.IdleStreams != 1 {
				t.Errorf("figures: %+v, want one connection for all", s)
			}
			if _, sources, _, _ := b.state(); sources > 1 {
				t.Errorf("left open: %d sources", sources)
			}
		})
	}
}

// checkRanges compares reads, many at once, with those of a bytes.Reader.
func checkRanges(t *testing.T, r interface {
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
}, data []byte,
) {
	t.Helper()
	want := bytes.NewReader(data)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(g)))
			for range 10 {
				off := rnd.Int64N(int64(len(data)) + 100)
				n := rnd.IntN(1 << uint(rnd.IntN(22)))
				if rnd.IntN(5) == 0 {
					n = max(0, len(data)-int(off)) // up to the end
				}
				got, exp := make([]byte, n), make([]byte, n)
				gotN, gotErr := r.ReadAt(t.Context(), got, off)
				expN, expErr := want.ReadAt(exp, off)
				// At the very end both nil and EOF are allowed.
				if gotN == n && errors.Is(gotErr, io.EOF) {
					gotErr = nil
				}
				if gotN == n && errors.Is(expErr, io.EOF) {
					expErr = nil
				}
				if gotN != expN || !errors.Is(gotErr, expErr) || !bytes.Equal(got[:gotN], exp[:expN]) {
					t.Errorf("read of %d bytes at %d: got %d, %v, want %d, %v", n, off, gotN, gotErr, expN, expErr)
				}
			}
		})
	}
	wg.Wait()
}

// A hundred MiB pass in each direction through buffers of bounded size.
func TestBigStreamsTakeLittleMemory(t *testing.T) {
	const size, limit = 100 << 20, 16 << 20
	piece := random(1 << 20)
	crc := crc64.MakeTable(crc64.ECMA)
	b := &bank{
		drop:       true,
		wrapSink:   func(s WriteStream) WriteStream { return &hashedSink{s, crc, 0} },
		wrapSource: func(s ReadStream) ReadStream { return repeated{s, piece, size} },
	}
	a, _, _ := startPair(t, b, nil)
	var want, got uint64
	var reply []byte
	used := allocated(func() {
		w, err := a.OpenWrite(t.Context(), "n2", bankService, []byte("x"), true)
		if err != nil {
			t.Fatal(err)
		}
		for range size / len(piece) {
			if _, err := w.Write(piece); err != nil {
				t.Fatal(err)
			}
			want = crc64.Update(want, crc, piece)
		}
		if reply, err = w.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
	})
	if sum := fmt.Sprint(want); string(reply) != sum || used > limit {
		t.Errorf("write: %d bytes of memory were allocated, want at most %d; checksum %s, want %s", used, limit, reply, sum)
	}
	b.put("y", nil)
	used = allocated(func() {
		r, err := a.OpenRead(t.Context(), "n2", bankService, []byte("y"), Range{})
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1<<20)
		for off := int64(0); ; off += int64(len(buf)) {
			n, err := r.ReadAt(t.Context(), buf, off)
			got = crc64.Update(got, crc, buf[:n])
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		_ = r.Close()
	})
	if got != want || used > limit {
		t.Errorf("read: %d bytes of memory were allocated, want at most %d; checksum %x, want %x", used, limit, got, want)
	}
}

// allocated returns the bytes that f allocates in all.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// hashedSink replies with the checksum of its bytes.
type hashedSink struct {
	WriteStream
	crc *crc64.Table
	sum uint64
}

func (s *hashedSink) Write(p []byte) (int, error) {
	s.sum = crc64.Update(s.sum, s.crc, p)
	return s.WriteStream.Write(p)
}

func (s *hashedSink) Commit(ctx context.Context) ([]byte, error) {
	_, err := s.WriteStream.Commit(ctx)
	return fmt.Append(nil, s.sum), err
}

// repeated is a source that repeats a piece.
type repeated struct {
	ReadStream
	piece []byte
	size  int64
}

func (s repeated) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) && off < s.size {
		m := copy(p[n:min(len(p), n+int(s.size-off))], s.piece[off%int64(len(s.piece)):])
		n += m
		off += int64(m)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// However a writer goes, without its commit nothing is kept.
func TestAborts(t *testing.T) {
	t.Parallel()
	big := random(1 << 20)
	for _, test := range []struct {
		name string
		data []byte
		end  func(w WriteStream, cancel func(), p *proxy)
	}{
		{"closed before anything was sent", big[:10], func(w WriteStream, _ func(), _ *proxy) { _ = w.Close() }},
		{"closed", big, func(w WriteStream, _ func(), _ *proxy) { _ = w.Close() }},
		{"cancelled", big, func(_ WriteStream, cancel func(), _ *proxy) { cancel() }},
		{"cut off", big, func(_ WriteStream, _ func(), p *proxy) { p.cut() }},
		{"silent", big, func(_ WriteStream, _ func(), p *proxy) { p.freeze() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := &bank{}
			a, _, p := startPair(t, b, brief)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w, err := a.OpenWrite(ctx, "n2", bankService, []byte("x"), len(test.data) > 1000)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(test.data); err != nil {
				t.Fatal(err)
			}
			sent := len(test.data) > 1000
			if sent {
				await(t, "bytes at the sink", func() bool { _, _, _, n := b.state(); return n > 0 })
			}
			test.end(w, cancel, p)
			if sent {
				await(t, "the end of the sink", func() bool {
					sinks, _, aborted, _ := b.state()
					return sinks == 0 && aborted == 1
				})
			}
			_ = w.Close()
			if _, ok := b.get("x"); ok || b.opened != 0 && !sent {
				t.Error("the stream was kept, or opened for nothing")
			}
			p.thaw()
			await(t, "the next stream", func() bool {
				_, err := write(t.Context(), a, "n2", "y", big, 1<<20, false)
				return err == nil
			})
			if s := statsOf(a, "n2"); s.Streams != 0 || !sent && s.Dials != 1 {
				t.Errorf("figures: %+v, want no open stream", s)
			}
		})
	}
}

// Refusals and failures come with their identity, and leave the connection fit
// for use.
func TestWriteErrors(t *testing.T) {
	data := random(4 << 20)
	fail := fmt.Errorf("%w: %w", core.ErrNoSpace, errBank)
	for _, test := range []struct {
		name string
		bank *bank
		size []int
	}{
		{"open", &bank{onOpen: func(context.Context, string) error { return fail }}, []int{0, 10, len(data)}},
		{"write", &bank{onWrite: func(_ context.Context, _ string, n int) error {
			if n >= bulkSize {
				return fail
			}
			return nil
		}}, []int{2 * bulkSize, len(data)}},
		{"commit", &bank{onCommit: func(context.Context, string) error { return fail }}, []int{0, 10, len(data)}},
	} {
		for _, size := range test.size {
			for _, confirm := range []bool{false, true} {
				t.Run(fmt.Sprint(test.name, size, confirm), func(t *testing.T) {
					b := test.bank
					a, _, _ := startPair(t, b, nil)
					for range 3 {
						_, err := write(t.Context(), a, "n2", "x", data[:size], 64<<10, confirm)
						wantIs(t, err, core.ErrNoSpace)
						wantNot(t, err, core.ErrUnavailable)
					}
					await(t, "the end of all sinks", func() bool { n, _, _, _ := b.state(); return n == 0 })
					if _, ok := b.get("x"); ok {
						t.Error("the stream was kept")
					}
					s := statsOf(a, "n2")
					if s.Dials != 1 || s.Streams != 0 {
						t.Errorf("figures: %+v, want one connection for all", s)
					}
				})
			}
		}
	}
}

func TestUnknownService(t *testing.T) {
	a, _, _ := startPair(t, &bank{}, nil)
	for _, to := range []core.NodeID{"n1", "n2"} {
		_, err := a.OpenWrite(t.Context(), to, 99, nil, true)
		wantIs(t, err, core.ErrInvalid, ErrNotSent)
		_, err = a.OpenRead(t.Context(), to, 99, nil, Range{})
		wantIs(t, err, core.ErrInvalid, ErrNotSent)
	}
	_, err := a.OpenRead(t.Context(), "n2", bankService, nil, Range{Len: maxFirst + 1})
	wantIs(t, err, core.ErrInvalid)
	_, err = a.OpenWrite(t.Context(), "n2", bankService, make([]byte, MaxHeader+1), false)
	wantIs(t, err, core.ErrTooLarge)
	if _, err := write(t.Context(), a, "n2", string(make([]byte, MaxHeader)), nil, 1, false); err != nil {
		t.Errorf("longest header: %v", err)
	}
}

// What goes wrong while reading is told, and the stream goes on.
func TestReadErrors(t *testing.T) {
	data := random(1 << 20)
	b := &bank{onRead: func(_ context.Context, _ string, off int64) error {
		if off >= 512<<10 {
			return fmt.Errorf("block: %w", core.ErrCorrupt)
		}
		return nil
	}}
	b.put("x", data)
	a, _, _ := startPair(t, b, nil)
	_, err := a.OpenRead(t.Context(), "n2", bankService, []byte("none"), Range{0, 10})
	wantIs(t, err, core.ErrNotFound)
	wantNot(t, err, core.ErrUnavailable)
	for _, first := range []Range{{}, {0, smallShard}, {512 << 10, 100}} {
		r, err := a.OpenRead(t.Context(), "n2", bankService, []byte("x"), first)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, len(data))
		n, err := r.ReadAt(t.Context(), buf, 0)
		wantIs(t, err, core.ErrCorrupt)
		if n != 512<<10 || !bytes.Equal(buf[:n], data[:n]) {
			t.Errorf("read up to the damage: got %d bytes, want %d", n, 512<<10)
		}
		_, err = r.ReadAt(t.Context(), buf[:10], 600<<10)
		wantIs(t, err, core.ErrCorrupt)
		if n, err := r.ReadAt(t.Context(), buf[:1000], 1000); n != 1000 || err != nil || !bytes.Equal(buf[:n], data[1000:2000]) {
			t.Errorf("read elsewhere: got %d, %v", n, err)
		}
		_ = r.Close()
		_, err = r.ReadAt(t.Context(), buf[:1], 0)
		wantIs(t, err, core.ErrInvalid)
	}
	if s := statsOf(a, "n2"); s.Dials != 1 {
		t.Errorf("figures: %+v, want one connection for all", s)
	}
}

// A read that is given up returns at once, and nothing is written to its bytes
// from then on; other reads of the stream go on.
func TestReadCancelled(t *testing.T) {
	data := random(1 << 20)
	wait, release := barrier(t)
	asked := make(chan struct{}, 1)
	b := &bank{onRead: func(_ context.Context, _ string, off int64) error {
		if off == 0 {
			asked <- struct{}{}
			wait()
		}
		return nil
	}}
	b.put("x", data)
	a, _, _ := startPair(t, b, nil)
	r, err := a.OpenRead(t.Context(), "n2", bankService, []byte("x"), Range{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	buf := make([]byte, len(data))
	errs := make(chan error, 1)
	go func() {
		_, err := r.ReadAt(ctx, buf, 0)
		errs <- err
	}()
	recv(t, "the read", asked)
	cancel()
	err = recv(t, "its end", errs)
	wantIs(t, err, context.Canceled)
	wantNot(t, err, core.ErrUnavailable)
	clear(buf)
	release()
	other := make([]byte, 1000)
	if n, err := r.ReadAt(t.Context(), other, 5000); n != 1000 || err != nil || !bytes.Equal(other, data[5000:6000]) {
		t.Errorf("another read: got %d, %v", n, err)
	}
	if !bytes.Equal(buf, make([]byte, len(buf))) {
		t.Error("the bytes of the read were written to after its end")
	}
	_ = r.Close()
}

// A read that is given up while its bytes come in, and come no further.
func TestReadCancelledHalfWay(t *testing.T) {
	data := bytes.Repeat([]byte{1}, 200_000)
	b := &bank{}
	b.put("x", data)
	a, _, p := startPair(t, b, func(o *Options) { o.Timeout = time.Hour })
	r, err := a.OpenRead(t.Context(), "n2", bankService, []byte("x"), Range{})
	if err != nil {
		t.Fatal(err)
	}
	resume := p.hold(100_000)
	defer resume()
	ctx, cancel := context.WithCancel(t.Context())
	buf := make([]byte, len(data))
	errs := make(chan error, 1)
	go func() {
		_, err := r.ReadAt(ctx, buf, 0)
		errs <- err
	}()
	s := r.(*readStream)
	await(t, "the first half", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.reads[1] != nil && s.reads[1].filling && statsOf(a, "n2").BytesReceived >= 100_000
	})
	cancel()
	wantIs(t, recv(t, "the end of the read", errs), context.Canceled)
	clear(buf)
	resume()
	await(t, "the end of the connection", func() bool { return s.sc.c.failed() != nil })
	_ = r.Close()
	if got, err := a.OpenRead(t.Context(), "n2", bankService, []byte("x"), Range{0, 10}); err != nil {
		t.Error(err)
	} else {
		_ = got.Close()
	}
	if !bytes.Equal(buf, make([]byte, len(buf))) {
		t.Error("the bytes of the read were written to after its end")
	}
}

// A stream that is closed while answers are still to come takes its connection
// with it: they must not reach the next stream.
func TestReadStreamClosedEarly(t *testing.T) {
	data := random(1 << 20)
	wait, release := barrier(t)
	asked := make(chan struct{}, 10)
	b := &bank{onRead: func(_ context.Context, name string, _ int64) error {
		if name == "slow" {
			asked <- struct{}{}
			wait()
		}
		return nil
	}}
	b.put("slow", data)
	b.put("x", data)
	a, _, _ := startPair(t, b, nil)
	r, err := a.OpenRead(t.Context(), "n2", bankService, []byte("slow"), Range{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 2)
	read := func(ctx context.Context) {
		_, err := r.ReadAt(ctx, make([]byte, len(data)), 0)
		errs <- err
	}
	go read(ctx)
	recv(t, "the first read", asked)
	go read(t.Context())
	await(t, "the second read", func() bool {
		s := r.(*readStream)
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.reads) == 2
	})
	cancel()
	wantIs(t, recv(t, "the end of the first", errs), context.Canceled)
	_ = r.Close()
	wantIs(t, recv(t, "the end of the second", errs), core.ErrUnavailable)
	release()
	r, err = a.OpenRead(t.Context(), "n2", bankService, []byte("x"), Range{})
	if err != nil {
		t.Fatal(err)
	}
	checkRanges(t, r, data)
	_ = r.Close()
	if s := statsOf(a, "n2"); s.Dials != 2 || s.Streams != 0 {
		t.Errorf("figures: %+v, want a connection for each of the two streams", s)
	}
}

// Reads that are given up at any moment, over and over.
func TestReadCancelledAnyTime(t *testing.T) {
	data := random(4 << 20)
	b := &bank{}
	b.put("x", data)
	a, _, _ := startPair(t, b, nil)
	r, err := a.OpenRead(t.Context(), "n2", bankService, []byte("x"), Range{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			buf := make([]byte, len(data))
			for i := range 30 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i*g)*100*time.Microsecond)
				n, err := r.ReadAt(ctx, buf, 0)
				cancel()
				switch {
				case err == nil || errors.Is(err, io.EOF):
					if n != len(data) || !bytes.Equal(buf, data) {
						t.Errorf("read: got %d bytes, or wrong ones", n)
					}
				case errors.Is(err, context.DeadlineExceeded):
					clear(buf) // it is the caller's again: the race detector watches
				default:
					t.Errorf("read: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if n, err := r.ReadAt(t.Context(), make([]byte, 10), 0); n != 10 || err != nil {
		t.Errorf("the stream afterwards: got %d, %v", n, err)
	}
	_ = r.Close()
}

// The end of the opening ctx ends the stream, and what the other node does for
// it.
func TestStreamsEndWithTheirContext(t *testing.T) {
	b := &bank{onRead: func(ctx context.Context, _ string, _ int64) error { <-ctx.Done(); return ctx.Err() }}
	b.onWrite = func(ctx context.Context, _ string, _ int) error { <-ctx.Done(); return ctx.Err() }
	b.put("x", random(100))
	a, _, _ := startPair(t, b, nil)
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 3)
	r, err := a.OpenRead(ctx, "n2", bankService, []byte("x"), Range{})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := r.ReadAt(t.Context(), make([]byte, 10), 0)
		errs <- err
	}()
	go func() { // the opening waits for the first range
		_, err := a.OpenRead(ctx, "n2", bankService, []byte("x"), Range{0, 10})
		errs <- err
	}()
	w, err := a.OpenWrite(ctx, "n2", bankService, []byte("y"), true)
	if err != nil {
		t.Fatal(err)
	}
	go func() { // more than all the buffers in between
		var err error
		for err == nil {
			_, err = w.Write(make([]byte, 1<<20))
		}
		errs <- err
	}()
	await(t, "all streams", func() bool { sinks, sources, _, _ := b.state(); return sinks == 1 && sources == 2 })
	cancel()
	for range 3 {
		err := recv(t, "the end of a stream", errs)
		wantIs(t, err, context.Canceled)
		wantNot(t, err, core.ErrUnavailable)
	}
	_, _ = w.Close(), r.Close()
	await(t, "the end of the handlers", func() bool { sinks, sources, _, _ := b.state(); return sinks+sources == 0 })
	if s := statsOf(a, "n2"); s.Streams != 0 {
		t.Errorf("figures: %+v, want no open stream", s)
	}
}

// Commit has a ctx of its own.
func TestCommitCancelled(t *testing.T) {
	b := &bank{onCommit: func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }}
	a, _, _ := startPair(t, b, nil)
	w, err := a.OpenWrite(t.Context(), "n2", bankService, []byte("x"), false)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		await(t, "the sink", func() bool { n, _, _, _ := b.state(); return n == 1 })
		cancel()
	}()
	_, err = w.Commit(ctx)
	wantIs(t, err, context.Canceled)
	_ = w.Close()
	await(t, "the end of the sink", func() bool { n, _, _, _ := b.state(); return n == 0 })
}

// A sink that does not take its bytes holds up its own stream only; that lives
// on as long as the node shows signs of life.
func TestStalledStream(t *testing.T) {
	t.Parallel()
	wait, release := barrier(t)
	b := &bank{onWrite: func(_ context.Context, name string, _ int) error {
		if name == "slow" {
			wait()
		}
		return nil
	}}
	a, n2, _ := startPair(t, b, func(o *Options) { o.Timeout = 2 * time.Second })
	slow, err := a.OpenWrite(t.Context(), "n2", bankService, []byte("slow"), true)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	data := random(24 << 20) // more than all the buffers in between
	go func() {
		_, err := slow.Write(data)
		if err == nil {
			_, err = slow.Commit(t.Context())
		}
		done <- err
	}()
	await(t, "the stall", func() bool { n, _, _, _ := b.state(); return n == 1 })
	if _, err := write(t.Context(), a, "n2", "fast", data[:1<<20], 1<<18, true); err != nil {
		t.Error(err)
	}
	if _, err := a.Call(t.Context(), "n2", 1, nil); err != nil {
		t.Error(err)
	}
	a.Send("n2", []byte("hello"))
	await(t, "message", func() bool { return n2.in.got("n1", "hello") })
	outlast(t, a)
	release()
	if err := recv(t, "the end of the slow stream", done); err != nil {
		t.Errorf("slow stream: %v", err)
	}
	_ = slow.Close()
	if got, _ := b.get("slow"); !bytes.Equal(got, data) {
		t.Errorf("slow stream: got %d bytes, want %d", len(got), len(data))
	}
}

// A writer that takes its time is not a dead node.
func TestIdleWriter(t *testing.T) {
	t.Parallel()
	b := &bank{}
	a, n2, _ := startPair(t, b, brief)
	w, err := a.OpenWrite(t.Context(), "n2", bankService, []byte("x"), true)
	if err != nil {
		t.Fatal(err)
	}
	outlast(t, n2)
	if _, err := w.Write([]byte("late")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	_ = w.Close()
}

// A node that has gone silent fails the streams that wait for it.
func TestSilentPeerEndsStreams(t *testing.T) {
	t.Parallel()
	wait, _ := barrier(t)
	b := &bank{onCommit: func(context.Context, string) error { wait(); return nil }}
	a, _, p := startPair(t, b, brief)
	errs := make(chan error, 1)
	go func() {
		_, err := write(t.Context(), a, "n2", "x", nil, 1, true)
		errs <- err
	}()
	await(t, "the sink", func() bool { n, _, _, _ := b.state(); return n == 1 })
	p.freeze()
	err := recv(t, "the loss", errs)
	wantIs(t, err, core.ErrUnavailable)
	wantNot(t, err, ErrNotSent, context.Canceled, context.DeadlineExceeded)
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	short := func(o *Options) { o.IdleStreams, o.IdleTimeout = 2, 100*time.Millisecond }
	for _, test := range []struct {
		name      string
		near, far func(*Options)
		idle      int
	}{
		{"by who dialled", short, nil, 2},
		{"by the other end", nil, short, 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := &directory{}
			b := &bank{}
			a := startNode(t, d, "n1", setup{options: test.near})
			startNode(t, d, "n2", setup{options: test.far, transport: func(tr *Transport) { tr.HandleStream(bankService, b) }})
			var all []WriteStream
			for i := range 4 {
				w, err := a.OpenWrite(t.Context(), "n2", bankService, fmt.Append(nil, i), true)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, w)
			}
			for _, w := range all {
				if _, err := w.Commit(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if s := statsOf(a, "n2"); s.IdleStreams != test.idle || s.Dials != 4 {
				t.Errorf("figures: %+v, want 4 dials and %d idle connections", s, test.idle)
			}
			await(t, "no idle connections", func() bool { return statsOf(a, "n2").IdleStreams == 0 })
			await(t, "no connections at all", func() bool { return len(a.snapshot(nil)) == 0 })
		})
	}
}

// Connections that the other node has closed are not used again.
func TestIdleConnectionsBreak(t *testing.T) {
	b := &bank{}
	a, _, p := startPair(t, b, nil)
	if _, err := write(t.Context(), a, "n2", "x", nil, 1, true); err != nil {
		t.Fatal(err)
	}
	p.cut()
	await(t, "no idle connections", func() bool { return statsOf(a, "n2").IdleStreams == 0 })
	if _, err := write(t.Context(), a, "n2", "x", nil, 1, true); err != nil {
		t.Error(err)
	}
}

// Streams beyond the limit fail at once, and work again when others have ended.
func TestTooManyStreams(t *testing.T) {
	b := &bank{}
	a, _, _ := startPair(t, b, func(o *Options) { o.MaxStreams = 2 })
	var open []WriteStream
	for range 2 {
		w, err := a.OpenWrite(t.Context(), "n2", bankService, []byte("x"), true)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, w)
	}
	_, err := a.OpenWrite(t.Context(), "n2", bankService, []byte("y"), false)
	wantIs(t, err, core.ErrUnavailable, ErrNotSent)
	_, err = a.OpenRead(t.Context(), "n2", bankService, []byte("y"), Range{})
	wantIs(t, err, core.ErrUnavailable, ErrNotSent)
	_ = open[0].Close()
	if _, err := write(t.Context(), a, "n2", "z", nil, 1, false); err != nil {
		t.Error(err)
	}
	_ = open[1].Close()
}

// A node that opens more streams than it may is refused the next.
func TestTooManyStreamsFromANode(t *testing.T) {
	d := &directory{}
	b := &bank{}
	a := startNode(t, d, "n1", setup{})
	startNode(t, d, "n2", setup{
		options:   func(o *Options) { o.MaxStreams = 1 },
		transport: func(tr *Transport) { tr.HandleStream(bankService, b) },
	})
	var open []WriteStream
	var err error
	for err == nil && len(open) < 10 {
		var w WriteStream
		if w, err = a.OpenWrite(t.Context(), "n2", bankService, []byte("x"), true); err == nil {
			open = append(open, w)
		}
	}
	wantIs(t, err, core.ErrUnavailable, ErrNotSent)
	if len(open) != 2 {
		t.Errorf("opened: got %d streams, want 2", len(open))
	}
	for _, w := range open {
		_ = w.Close()
	}
}

func TestStreamsToSelf(t *testing.T) {
	b := &bank{}
	a := startNode(t, &directory{}, "n1", setup{transport: func(tr *Transport) { tr.HandleStream(bankService, b) }})
	data := random(1 << 20)
	if reply, err := write(t.Context(), a, "n1", "x", data, 1<<16, true); err != nil || reply != "1048576 bytes" {
		t.Errorf("write: got %q, %v", reply, err)
	}
	r, err := a.OpenRead(t.Context(), "n1", bankService, []byte("x"), Range{0, 100})
	if err != nil {
		t.Fatal(err)
	}
	checkRanges(t, r, data)
	_ = r.Close()
}

// Streams of the other node end when Run does.
func TestRunEndsStreams(t *testing.T) {
	b := &bank{}
	a, n2, _ := startPair(t, b, nil)
	w, err := a.OpenWrite(t.Context(), "n2", bankService, []byte("x"), true)
	if err != nil {
		t.Fatal(err)
	}
	n2.stop()
	if n, _, aborted, _ := b.state(); n != 0 || aborted != 1 {
		t.Errorf("sinks after the end of Run: got %d open, %d aborted, want one aborted", n, aborted)
	}
	await(t, "the writer's notice", func() bool {
		_, err = w.Write([]byte("x"))
		return err != nil
	})
	wantIs(t, err, core.ErrUnavailable)
	_ = w.Close()
	r, err := a.OpenRead(t.Context(), "n2", bankService, []byte("x"), Range{})
	if err == nil {
		_ = r.Close()
	}
	wantIs(t, err, core.ErrUnavailable, ErrNotSent)
}
