package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/shoalstore/shoal/core"
)

// fetchStream reads bytes that are not present. The next ones are asked for
// before those that are there were read, but for the first ones: those are to be on
// their way before others compete with them.
type fetchStream struct {
	body    *remoteBody
	end     int64 // -1: the object's
	reader  uint64
	session uint64
	asked   int64 // up to where bytes have come, or are under way from
	chunk   []byte
	coming  chan *fetchAnswer // nil: nothing is under way
	begun   bool              // something was read
	failed  error
	cancel  context.CancelFunc
	ctx     context.Context //nolint:containedctx // of the calls under way
}

// fill waits for the first bytes. It learns what the object is, if that was not
// known.
func (s *fetchStream) fill() error {
	b := s.body
	early := b.early
	if s.reader = b.reader; early == nil {
		s.reader = rand.Uint64()
	}
	b.early = nil
	s.asked = b.off
	s.ctx, s.cancel = context.WithCancel(b.ctx)
	for {
		a, err := early, error(nil)
		if early = nil; a == nil {
			a, err = s.call(s.ctx)
		}
		if err == nil {
			err = s.take(a)
		}
		if err != nil {
			return err
		}
		if a.rec != nil && b.rec == nil {
			b.rec = a.rec
			if b.end < 0 || b.end > b.rec.Size {
				b.end = b.rec.Size
			}
			s.end = b.end
		}
		if len(s.chunk) > 0 || b.rec != nil && b.rec.Size == 0 {
			return nil
		}
	}
}

// call asks the owner for the bytes from asked on.
func (s *fetchStream) call(ctx context.Context) (*fetchAnswer, error) {
	b := s.body
	q := fetchRequest{
		slot: b.node.SlotOf(b.bucket.ID, b.key), bucket: b.bucket.ID, key: b.key,
		reader: s.reader, session: s.session, began: b.began, off: s.asked, end: s.end,
		keep: !b.direct, describe: b.rec == nil, job: jobIn(ctx),
	}
	if b.rec != nil {
		q.version = remoteVersion(b.rec)
	}
	return b.node.fetchCall(ctx, &q)
}

// ask has the next bytes fetched, beside.
func (s *fetchStream) ask() {
	if s.asked == s.end || s.coming != nil {
		return
	}
	c := make(chan *fetchAnswer, 1)
	if s.body.node.remotes.start(s.ctx, func(ctx context.Context) {
		a, err := s.call(ctx)
		if err != nil {
			a = &fetchAnswer{state: fetchError, err: err}
		}
		c <- a
	}) {
		s.coming = c
	} else {
		s.failed = errStopping
	}
}

// take takes an answer over.
func (s *fetchStream) take(a *fetchAnswer) error {
	if a.session != 0 {
		s.session = a.session
	}
	switch a.state {
	case fetchPresent, fetchUnsettled:
		return errReadAgain
	case fetchError:
		if s.body.off == s.body.began && (errors.Is(a.err, core.ErrPrecondition) || errors.Is(a.err, core.ErrNotFound) && s.body.rec != nil) {
			return fmt.Errorf("%w: %w", errReadAgain, a.err)
		}
		return a.err
	}
	s.chunk = a.data
	s.asked += int64(len(a.data))
	return nil
}

// read delivers what has come, after waiting for it.
func (s *fetchStream) read(p []byte) (int, error) {
	for len(s.chunk) == 0 {
		if s.failed != nil {
			return 0, s.failed
		}
		if s.asked == s.end {
			return 0, io.EOF
		}
		s.ask()
		if s.coming == nil {
			continue
		}
		a := <-s.coming
		s.coming = nil
		if s.failed = s.take(a); s.failed == nil && len(s.chunk) > 0 {
			s.ask()
		}
	}
	k := copy(p, s.chunk)
	if s.chunk = s.chunk[k:]; !s.begun {
		s.begun = true
		s.ask()
	}
	return k, nil
}

// close lets go of the session.
func (s *fetchStream) close() {
	s.cancel()
	if s.session == 0 || s.asked == s.end {
		return
	}
	b := s.body
	q := fetchRequest{
		slot: b.node.SlotOf(b.bucket.ID, b.key), bucket: b.bucket.ID, key: b.key, reader: s.reader, session: s.session,
		end: -1, leave: true,
	}
	select {
	case b.node.remotes.leaving <- &q:
	default: // the session will notice
	}
}

// sayLeave tells a slot's owner that a reader has gone.
func (n *Node) sayLeave(ctx context.Context, q *fetchRequest) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	if m := n.driver.effect.Load(); m != nil {
		_, _ = n.attempt(ctx, m, q.slot, methodFetch, q.append(nil))
	}
}

// fetchCall asks a slot's owner for bytes, whoever that is.
func (n *Node) fetchCall(ctx context.Context, q *fetchRequest) (*fetchAnswer, error) {
	var resp []byte
	err := n.ask(ctx, q.slot, func(ctx context.Context, m *core.Map) (err error) {
		if m.OwnerNode(q.slot) != n.id {
			select {
			case n.remotes.calls <- struct{}{}:
				defer func() { <-n.remotes.calls }()
			case <-ctx.Done():
				return fmt.Errorf("waiting for other readers: %w", context.Cause(ctx))
			}
		}
		resp, err = n.attempt(ctx, m, q.slot, methodFetch, q.append(nil))
		return err
	})
	if err != nil {
		return nil, err
	}
	return decodeAnswer(resp)
}
