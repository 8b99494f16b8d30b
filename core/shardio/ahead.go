package shardio

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/shoalstore/shoal/core"
)

// Ahead fetches items 0 to N-1, several at a time, and hands them out in order.
// Its methods are for one goroutine.
type Ahead[T any] struct {
	// N is the number of items, Depth how many are under way or waiting.
	N, Depth int
	// Fetch gets one item. It returns as soon as its ctx ends.
	Fetch func(ctx context.Context, i int) (T, error)
	// Drop gets the items that nobody asked for.
	Drop func(T)

	next    int // to be fetched
	pending []chan fetched[T]
}

type fetched[T any] struct {
	item T
	err  error
}

// Next returns the next item, or false after the last. Fetches begin under the
// ctx of the call; it must be the same each time. After an error, call Close.
func (a *Ahead[T]) Next(ctx context.Context) (item T, ok bool, err error) {
	if len(a.pending) == 0 && a.next == a.N-1 {
		a.next++ // the last or only one: nothing to run beside it
		item, err = a.Fetch(ctx, a.next-1)
		return item, err == nil, err
	}
	for ; len(a.pending) < a.Depth && a.next < a.N; a.next++ {
		// The room for the result lets the goroutine end without us; Close
		// waits for it all the same.
		c := make(chan fetched[T], 1)
		i := a.next
		a.pending = append(a.pending, c)
		go func() {
			item, err := a.Fetch(ctx, i)
			c <- fetched[T]{item, err}
		}()
	}
	if len(a.pending) == 0 {
		return item, false, nil
	}
	f := <-a.pending[0]
	a.pending = a.pending[1:]
	return f.item, f.err == nil, f.err
}

// Close waits for the fetches under way. End their ctx first.
func (a *Ahead[T]) Close() {
	for _, c := range a.pending {
		if f := <-c; f.err == nil {
			a.Drop(f.item)
		}
	}
	a.pending, a.next = nil, a.N
}

// Window is a piece of an extent in memory.
type Window struct {
	// Parts are the bytes, in order.
	Parts [][]byte
	// Release gives the memory back.
	Release func()
}

// Feed says where the bytes of a [Stream] come from.
type Feed struct {
	// Chunk is how much is fetched at once, in bytes: fetches end at its
	// multiples.
	Chunk int64
	// Fetch gets bytes lo to hi. It returns as soon as its ctx ends.
	Fetch func(ctx context.Context, lo, hi int64) (Window, error)
	// Now, if it is not nil, returns bytes from lo on, up to hi at most, if
	// it can do so without waiting. It is asked first, and no more once it
	// could not.
	Now func(lo, hi int64) (Window, bool)
}

// Stream reads a run of bytes as one [io.Reader] and [io.WriterTo]. As long as
// they can be had without waiting they are taken one after the other: the next
// window of a long run while the reader uses the present one, else by the goroutine
// that reads. Once that ends the rest is fetched ahead.
type Stream struct {
	env     *Env
	feed    Feed
	ctx     context.Context // bounds the stream
	cancel  context.CancelFunc
	pos     int64 // of the next window
	end     int64
	ahead   *Ahead[Window] // nil while Now is asked
	soon    chan Window    // of the Now that is under way beside the reader, nil for none
	current Window
	left    int64
	err     error
}

// NewStream returns a stream of n bytes from off on. Nothing is fetched before
// the first read.
func (e *Env) NewStream(ctx context.Context, off, n int64, feed Feed) *Stream {
	return &Stream{env: e, feed: feed, ctx: ctx, pos: off, end: off + n, left: n}
}

// start begins to fetch ahead what is left.
func (s *Stream) start() {
	s.ctx, s.cancel = context.WithCancel(s.ctx)
	chunk, first := s.feed.Chunk, s.pos/s.feed.Chunk
	off, end, fetch := s.pos, s.end, s.feed.Fetch
	s.ahead = &Ahead[Window]{
		N: int((end+chunk-1)/chunk - first), Depth: s.env.ReadAhead,
		Fetch: func(ctx context.Context, i int) (Window, error) {
			begin := (first + int64(i)) * chunk
			return fetch(ctx, max(off, begin), min(end, begin+chunk))
		},
		Drop: func(w Window) { w.Release() },
	}
}

// next returns the next window.
func (s *Stream) next() (Window, bool, error) {
	if s.ahead == nil {
		if err := s.ctx.Err(); err != nil {
			return Window{}, false, err
		}
		if w, ok := s.now(); ok {
			for _, p := range w.Parts {
				s.pos += int64(len(p))
			}
			s.beside()
			return w, true, nil
		}
		s.start()
	}
	return s.ahead.Next(s.ctx)
}

// besideFrom is from how many bytes on that are left the next window is had beside the
// reader's use of the present one.
const besideFrom = 2 << 20

// now returns the next window if it can be had without waiting for more than another
// core.
func (s *Stream) now() (Window, bool) {
	if s.soon != nil {
		w, ok := <-s.soon
		s.soon = nil
		return w, ok
	}
	if s.feed.Now == nil {
		return Window{}, false
	}
	return s.feed.Now(s.pos, s.end)
}

// beside begins to get the window after the present one.
func (s *Stream) beside() {
	if s.end-s.pos < besideFrom {
		return
	}
	soon, now, pos, end := make(chan Window, 1), s.feed.Now, s.pos, s.end
	s.soon = soon
	go func() {
		defer close(soon)
		if w, ok := now(pos, end); ok {
			soon <- w
		}
	}()
}

// FailedStream returns a stream that has only an error.
func FailedStream(err error) *Stream {
	return &Stream{err: err}
}

// CheckRange says whether n bytes from off on lie within an extent of a size.
func CheckRange(off, n, size int64) error {
	if off < 0 || n < 0 || off > size || n > size-off {
		return fmt.Errorf("read %d bytes at %d of an extent of %d: %w", n, off, size, core.ErrRange)
	}
	return nil
}

// advance makes current a window with at least one part, or returns the error
// with which the stream ends.
func (s *Stream) advance() error {
	for s.err == nil && len(s.current.Parts) == 0 {
		s.release()
		if s.left == 0 {
			s.err = io.EOF
			break
		}
		w, ok, err := s.next()
		switch {
		case err != nil:
			s.err = err
		case !ok:
			s.err = io.ErrUnexpectedEOF
		default:
			s.current = w
		}
	}
	return s.err
}

func (s *Stream) release() {
	if s.current.Release != nil {
		s.current.Release()
	}
	s.current = Window{}
}

// Read implements [io.Reader].
func (s *Stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := s.advance(); err != nil {
		return 0, err
	}
	n := copy(p, s.current.Parts[0])
	s.consume(n)
	return n, nil
}

// consume takes n bytes off the first part of the current window.
func (s *Stream) consume(n int) {
	s.left -= int64(n)
	if n < len(s.current.Parts[0]) {
		s.current.Parts[0] = s.current.Parts[0][n:]
		return
	}
	s.current.Parts = s.current.Parts[1:]
}

// WriteTo implements [io.WriterTo], without copying.
func (s *Stream) WriteTo(w io.Writer) (written int64, err error) {
	for {
		if err := s.advance(); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return written, err
		}
		part := s.current.Parts[0]
		n, err := w.Write(part)
		written += int64(n)
		if err == nil && n < len(part) {
			err = io.ErrShortWrite
		}
		s.consume(n)
		if err != nil {
			return written, err
		}
	}
}

// Close ends the reading ahead and gives the memory back.
func (s *Stream) Close() error {
	if s.ahead != nil {
		s.cancel()
		s.ahead.Close()
		s.ahead = nil
	}
	if s.soon != nil {
		if w, ok := <-s.soon; ok {
			w.Release()
		}
		s.soon = nil
	}
	s.feed.Now = nil
	s.release()
	if s.err == nil || errors.Is(s.err, io.EOF) {
		s.err = fmt.Errorf("read after close: %w", core.ErrInvalid)
	}
	return nil
}
