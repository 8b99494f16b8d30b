package engine

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/shoalstore/shoal/core"
)

// serialRead reads an object once through, from its beginning, of a remote that knows
// no ranges: it would send the same again for each block. Blocks are kept as they pass.
// It goes no further than readers want; who wants what it has passed, and nobody has any
// more, waits until it has nothing else to do, and has it begin anew.
type serialRead struct {
	next  int  // the block behind the last one that it has begun or passed
	again bool // somebody wants one that it has passed
}

// wantSerial is want for a remote without ranges; the caller holds mu.
func (s *fetchSession) wantSerial(from, to int) {
	further := to > s.upto
	s.upto = max(s.upto, to)
	for i := from; i < to; i++ {
		if s.blocks[i] != nil || s.has(i) {
			continue
		}
		if s.through == nil {
			s.through = &serialRead{}
			w := s.newWatch()
			s.fetches.Go(func() { s.readSerial(w) })
		} else if i < s.through.next && !s.through.again {
			s.through.again, further = true, true
		}
	}
	if further {
		s.tell()
	}
}

// readSerial reads the object until it ends, nobody wants more, or somebody wants what
// lies behind.
func (s *fetchSession) readSerial(w *watch) {
	defer w.end()
	err := s.serially(w)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.through, s.upto = nil, 0
	if gaveUp := context.Cause(w.ctx); err != nil && (gaveUp == nil || errors.Is(gaveUp, errSilentRemote)) {
		s.mu.Unlock()
		s.broken(w, err)
		s.mu.Lock()
	}
	s.tell()
	s.wake()
}

// serially is what readSerial does. Errors of filling a block are told with it.
func (s *fetchSession) serially(w *watch) error {
	o, body, err := s.bucket.client.Get(w.ctx, s.bucket.name, s.name.key, core.RemoteGet{Length: -1, Version: s.rec.Remote.Version})
	if err != nil {
		return s.refused(err)
	}
	defer func() { _ = body.Close() }()
	if err := s.same(&o); err != nil {
		return err
	}
	for i := 0; int64(i)*s.block < s.size(); i++ {
		b, on := s.nextSerial(w, i)
		switch {
		case !on:
			return nil
		case b == nil:
			if n, err := io.CopyN(io.Discard, watched{body, w}, s.length(i)); errors.Is(err, io.EOF) {
				return fmt.Errorf("%s: the remote's answer ends after %d of %d bytes: %w", s, int64(i)*s.block+n, s.size(), core.ErrCorrupt)
			} else if err != nil {
				return err
			}
			continue
		}
		err := s.fillSerial(w, b, body)
		s.filled(w, b, err)
		if err != nil {
			return nil
		}
	}
	return s.ends(body)
}

// nextSerial waits until block i is wanted, or one behind it, and begins it; nil if it
// is there. It returns false if the reading is to end.
func (s *fetchSession) nextSerial(w *watch, i int) (b *block, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.pause()
	for (i >= s.upto || s.aheadOfSum(i)) && !s.through.again && s.err == nil && !s.ended && w.ctx.Err() == nil {
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-w.ctx.Done():
		}
		s.mu.Lock()
	}
	w.progress()
	if i >= s.upto || s.err != nil || s.ended || w.ctx.Err() != nil {
		return nil, false
	}
	s.through.next = i + 1
	if s.blocks[i] != nil || s.has(i) {
		return nil, true
	}
	return s.add(i, 0, w.giveUp), true
}

// aheadOfSum says whether block i may have to go before it is summed, and would have to
// come again; the caller holds mu.
func (s *fetchSession) aheadOfSum(i int) bool { return !s.keep && s.sum.on && i > s.sum.next+1 }

// fillSerial fills a block from a body that goes on.
func (s *fetchSession) fillSerial(w *watch, b *block, body io.Reader) error {
	w.pause()
	buf, err := s.r.memory.acquire(w.ctx, int(s.length(b.index)))
	w.progress()
	if err != nil {
		return err
	}
	s.mu.Lock()
	b.buf = buf
	s.mu.Unlock()
	return s.takeSome(&b.filled, body, buf, w)
}

// watched notes that what is read goes on.
type watched struct {
	io.Reader
	w *watch
}

func (r watched) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 {
		r.w.progress()
	}
	return n, err
}
