package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalstore/shoal/core"
)

// errChanged says that a remote object is not what it was when it was first
// asked for.
var errChanged = fmt.Errorf("the object was changed at the remote while it was read: %w", core.ErrPrecondition)

// watch bounds the time for which a remote gives nothing. The session looks at it
// every now and then.
type watch struct {
	session *fetchSession
	ctx     context.Context //nolint:containedctx // of the requests that are watched
	cancel  context.CancelCauseFunc
	last    atomic.Int64 // core.Instant of the last progress; 0: nothing is expected
}

// newWatch begins to watch; the caller holds mu.
func (s *fetchSession) newWatch() *watch {
	w := &watch{session: s}
	w.ctx, w.cancel = context.WithCancelCause(s.life)
	w.progress()
	s.watches[w] = true
	return w
}

// progress says that the remote gave something, or is asked only now.
func (w *watch) progress() { w.last.Store(int64(w.session.r.node.clock.Boot())) }

// pause says that nothing is expected of the remote.
func (w *watch) pause() { w.last.Store(0) }

// giveUp ends the requests.
func (w *watch) giveUp() { w.cancel(nil) }

// end ends the watching; the caller does not hold mu.
func (w *watch) end() {
	w.cancel(nil)
	w.session.mu.Lock()
	defer w.session.mu.Unlock()
	delete(w.session.watches, w)
}

// breakOff ends the requests of remotes that have been silent for too long.
func (s *fetchSession) breakOff() {
	now := s.r.node.clock.Boot()
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.watches {
		if last := core.Instant(w.last.Load()); last != 0 && now.Sub(last) > remotePatience {
			w.cancel(errSilentRemote)
		}
	}
}

// open makes the first request, which tells what the object is.
func (s *fetchSession) open(off, end int64) {
	s.mu.Lock()
	w := s.newWatch()
	s.mu.Unlock()
	defer close(s.opened)
	first := off / s.r.block * s.r.block
	at := first + beginAt(off, end, first, s.r.block)
	o, body, err := s.ask(w, at, first+s.r.block-at)
	if err != nil {
		err = remoteError(w.ctx, err)
		w.end()
		s.fail(err, s.base != nil && (errors.Is(err, core.ErrNotFound) || errors.Is(err, core.ErrPrecondition)))
		return
	}
	s.learn(&o, first)
	s.mu.Lock()
	s.serial = o.NoRanges && (at > 0 || s.rec.Size > s.block)
	if body == nil || s.err != nil || s.ended || s.serial {
		s.mu.Unlock()
		if body != nil {
			_ = body.Close()
		}
		w.end()
		return
	}
	defer s.mu.Unlock()
	b := s.add(int(at/s.block), at%s.block, w.giveUp)
	got := min(first+s.r.block, s.rec.Size, (at/s.block+1)*s.block) - at
	s.fetches.Go(func() { s.fetch(w, b, body, got) })
}

// beginAt is where in the block that begins at first the fetch begins for a reader
// of the bytes from off to end, -1 for all: at its beginning, so that it costs one
// request, unless the reader would wait for much. What lies before then takes a second
// one. A range that needs no more than this block and the next costs two in
// any case.
func beginAt(off, end, first, block int64) int64 {
	const little = 8 // th of a block
	next := first + block
	if in := off - first; in > block/little && (end < 0 || end <= next || end > next+block) {
		return in
	}
	return 0
}

// ask opens the first bytes, or finds the object empty.
func (s *fetchSession) ask(w *watch, first, length int64) (core.RemoteObject, io.ReadCloser, error) {
	o, body, err := s.bucket.client.Get(w.ctx, s.bucket.name, s.name.key, core.RemoteGet{Offset: first, Length: length, Version: s.pinned})
	if errors.Is(err, core.ErrRange) {
		// It ends before that, or is empty.
		if o, err = s.bucket.client.Head(w.ctx, s.bucket.name, s.name.key); err == nil && o.Size > first {
			err = fmt.Errorf("%s: the remote refuses a range of an object of %d bytes from %d on: %w", s, o.Size, first, core.ErrCorrupt)
		}
	}
	if err == nil && s.pinned != "" && o.Version != s.pinned {
		err = errChanged
	}
	if err == nil {
		w.progress()
		err = s.bucket.tags(w.ctx, s.name.key, &o)
	}
	if err != nil && body != nil {
		_ = body.Close()
		body = nil
	}
	return o, body, err
}

// learn takes over what the remote says of the object.
func (s *fetchSession) learn(o *core.RemoteObject, first int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.rec = recordOfRemote(o, s.bucket.Policy.Scheme)
	const step = 1 << 20
	if s.block = s.r.block; o.Size > s.block*maxBlocks {
		s.block = (o.Size/maxBlocks + step) / step * step
	}
	if s.base != nil && s.base.Remote.Version != o.Version {
		s.base = nil
	}
	s.sum = newSummer(o)
	if o.Size == 0 {
		s.inline = []byte{}
	} else if first == 0 && (s.base == nil || s.base.MetadataOnly()) && s.sum.want != nil {
		s.sum.on = true
		s.fetches.Go(s.verify)
	}
}

// add begins a block, which the caller has fetched; it holds mu.
func (s *fetchSession) add(i int, from int64, cancel func()) *block {
	b := &block{session: s, index: i, users: 1, cancel: cancel, from: int(from), filled: int(from)}
	s.blocks[i] = b
	return b
}

// want has blocks fetched that a reader at off, who goes on to end, needs now or
// will soon; the caller holds mu.
func (s *fetchSession) want(from, to int, off, end int64) {
	if s.err != nil || s.ended {
		return
	}
	if s.serial {
		s.wantSerial(from, to)
		return
	}
	for i := from; i < to; i++ {
		if s.blocks[i] != nil || s.has(i) {
			continue
		}
		w := s.newWatch()
		var at int64
		if i == from {
			at = beginAt(off, end, int64(i)*s.block, s.block)
		}
		b := s.add(i, at, w.giveUp)
		s.fetches.Go(func() { s.fetch(w, b, nil, 0) })
	}
}

// fetch fills a block, first from a body of n bytes if there is one.
func (s *fetchSession) fetch(w *watch, b *block, body io.ReadCloser, n int64) {
	defer w.end()
	s.filled(w, b, s.fill(w, b, body, n))
}

// filled notes what came of filling a block.
func (s *fetchSession) filled(w *watch, b *block, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		b.full = true
	case b.gone: // nobody wants it any more
	default:
		s.mu.Unlock()
		s.broken(w, err)
		s.mu.Lock()
	}
	s.done(b)
	s.tell()
	s.wake()
}

// broken ends the session with an error of the remote.
func (s *fetchSession) broken(w *watch, err error) {
	err = remoteError(w.ctx, err)
	s.fail(err, errors.Is(err, core.ErrPrecondition) || errors.Is(err, core.ErrNotFound) || errors.Is(err, core.ErrCorrupt))
}

func (s *fetchSession) fill(w *watch, b *block, body io.ReadCloser, n int64) error {
	length := s.length(b.index)
	w.pause()
	buf, err := s.r.memory.acquire(w.ctx, int(length))
	w.progress()
	if err != nil {
		if body != nil {
			_ = body.Close()
		}
		return err
	}
	s.mu.Lock()
	b.buf = buf
	s.mu.Unlock()
	if b.from == 0 {
		return s.fillRun(w.ctx, w, b, body, n, 0, length, &b.filled)
	}
	g, ctx := errgroup.WithContext(w.ctx)
	defer context.AfterFunc(ctx, w.giveUp)() // body is not bounded by ctx
	g.Go(func() error { return s.fillRun(ctx, w, b, body, n, int64(b.from), length, &b.filled) })
	g.Go(func() error { return s.fillRun(ctx, w, b, nil, 0, 0, int64(b.from), &b.head) })
	return g.Wait()
}

// fillRun fills the bytes of a block from off to end, first from a body of n bytes
// if there is one. filled, which mu guards, says how far it has come.
func (s *fetchSession) fillRun(ctx context.Context, w *watch, b *block, body io.ReadCloser, n, off, end int64, filled *int) error {
	for off < end {
		if body == nil {
			n = end - off
			o, got, err := s.bucket.client.Get(ctx, s.bucket.name, s.name.key, core.RemoteGet{
				Offset: int64(b.index)*s.block + off, Length: n, Version: s.rec.Remote.Version,
			})
			if err != nil {
				return s.refused(err)
			}
			if err := s.same(&o); err != nil {
				_ = got.Close()
				return err
			}
			body = got
		}
		err := s.take(filled, body, b.buf[off:min(off+n, end)], w)
		_ = body.Close()
		if err != nil {
			return err
		}
		off += n
		body = nil
	}
	return nil
}

// refused says what it means that a remote does not give a range of what it had.
func (s *fetchSession) refused(err error) error {
	switch {
	case errors.Is(err, core.ErrPrecondition), errors.Is(err, core.ErrNotFound):
		return fmt.Errorf("%s: %w (%v)", s, errChanged, err) //nolint:errorlint // that it is not there now does not say that it was not
	case errors.Is(err, core.ErrRange):
		return fmt.Errorf("%s: the remote refuses a range of what has %d bytes: %w", s, s.rec.Size, core.ErrCorrupt)
	}
	return err
}

// same verifies that an answer is of the object that the first one was of.
func (s *fetchSession) same(o *core.RemoteObject) error {
	if o.Version != s.rec.Remote.Version || o.Size != s.rec.Size || o.ETag != s.rec.ETag {
		return fmt.Errorf("%s: asked for version %q of %d bytes, the remote answers with %q of %d: %w",
			s, s.rec.Remote.Version, s.rec.Size, o.Version, o.Size, errChanged)
	}
	return nil
}

// letPass waits until a reader has the first bytes.
func (s *fetchSession) letPass(w *watch) {
	select {
	case <-s.passed:
		return
	default:
	}
	if !s.atOnce() {
		late := time.NewTimer(passWithin)
		defer late.Stop()
		select {
		case <-s.passed:
		case <-late.C:
		case <-w.ctx.Done():
		}
	}
	s.pass()
}

// take reads exactly len(p) bytes, with which the body ends, and tells readers of
// them as they come, by filled.
func (s *fetchSession) take(filled *int, body io.Reader, p []byte, w *watch) error {
	if err := s.takeSome(filled, body, p, w); err != nil {
		return err
	}
	return s.ends(body)
}

// ends makes sure that a body has no more than was asked for.
func (s *fetchSession) ends(body io.Reader) error {
	var more [1]byte
	if k, _ := body.Read(more[:]); k > 0 {
		return fmt.Errorf("%s: the remote's answer is longer than what was asked for: %w", s, core.ErrCorrupt)
	}
	return nil
}

// takeSome is take where the body may go on.
func (s *fetchSession) takeSome(filled *int, body io.Reader, p []byte, w *watch) error {
	for len(p) > 0 {
		k, err := body.Read(p)
		if k > 0 {
			w.progress()
			p = p[k:]
			s.mu.Lock()
			*filled += k
			s.tell()
			s.mu.Unlock()
			s.letPass(w)
		}
		if err != nil && len(p) > 0 {
			if errors.Is(err, io.EOF) {
				return fmt.Errorf("%s: the remote's answer ends %d bytes early: %w", s, len(p), core.ErrCorrupt)
			}
			return err
		}
	}
	return nil
}
