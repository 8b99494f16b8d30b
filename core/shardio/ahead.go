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

// Stream reads a run of windows as one [io.Reader] and [io.WriterTo].
type Stream struct {
	ctx     context.Context // bounds the stream from its creation to Close
	cancel  context.CancelFunc
	ahead   Ahead[Window]
	current Window
	left    int64
	err     error
}

// NewStream returns a stream of n bytes, which come in that number of windows.
// Nothing is fetched before the first read.
func (e *Env) NewStream(ctx context.Context, n int64, windows int, fetch func(ctx context.Context, i int) (Window, error)) *Stream {
	s := &Stream{left: n, ahead: Ahead[Window]{
		N: windows, Depth: e.ReadAhead, Fetch: fetch, Drop: func(w Window) { w.Release() },
	}}
	s.ctx, s.cancel = context.WithCancel(ctx)
	return s
}

// FailedStream returns a stream that has only an error.
func FailedStream(err error) *Stream {
	return &Stream{err: err, cancel: func() {}}
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
		w, ok, err := s.ahead.Next(s.ctx)
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
	s.cancel()
	s.ahead.Close()
	s.release()
	if s.err == nil || errors.Is(s.err, io.EOF) {
		s.err = fmt.Errorf("read after close: %w", core.ErrInvalid)
	}
	return nil
}
