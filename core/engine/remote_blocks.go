package engine

import (
	"context"
	"fmt"
	"io"

	"github.com/shoalstore/shoal/core"
)

// has says whether a block is in the cluster: was before, or has been stored. The
// caller holds mu, as in what follows.
func (s *fetchSession) has(i int) bool {
	if s.inline != nil {
		return true
	}
	from := int64(i) * s.block
	to := from + s.length(i)
	if s.base != nil && len(s.base.MissingRuns(from, to)) == 0 {
		return true
	}
	for j := range s.runs {
		if r := &s.runs[j]; r.off <= from && to <= r.off+r.extent.Size {
			return true
		}
	}
	return false
}

// runEnd returns where the data ends that is present from off on; off if there
// is none.
func runEnd(rec *core.Record, off int64) int64 {
	switch missing := rec.MissingRuns(off, rec.Size); {
	case len(missing) == 0:
		return max(off, rec.Size)
	default:
		return max(off, missing[0].Offset)
	}
}

// own returns the run that has a byte and is not in the record yet. As long as
// the whole is to be verified, the session answers from those that are, too: a
// reader who went elsewhere for them would not come back to be told.
func (s *fetchSession) own(off int64) *fetchedRun {
	for j := range s.runs {
		if r := &s.runs[j]; (!r.committed || s.sum.on) && r.off <= off && off < r.off+r.extent.Size {
			return r
		}
	}
	return nil
}

// ahead is how many blocks are fetched at a time for a reader that has read so
// many.
func ahead(done int) int {
	const most = 8
	return min(most, 2<<min(done, 2))
}

// read answers a request: with what is there of the bytes from q.off on, after
// waiting for the first of them. The answer's data is empty where there is none
// yet, or the object ends there.
func (s *fetchSession) read(ctx context.Context, q *fetchRequest) ([]byte, error) {
	if q.off > q.began {
		s.pass()
	}
	limit, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	late := limit.Done()
	select {
	case <-s.opened:
	case <-late:
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return appendAnswer(nil, fetchData, s.number, nil), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if out, done := s.answer(q); done {
			return out, nil
		}
		if r := s.own(q.off); r != nil && q.off < s.limit(q) {
			out, err := s.readRun(ctx, q, *r)
			if err == nil || ctx.Err() != nil {
				return out, err
			}
			continue
		}
		var b *block
		if !s.awaitsSum(q) {
			b = s.blockFor(q) //nolint:contextcheck // what is fetched outlives who asks
		}
		if b != nil && s.given(b, q) > q.off {
			return s.copy(q, b), nil
		}
		if b != nil && b.full {
			b = nil // it is the sum that is waited for, which may need the memory
		}
		s.await(b, late)
		switch {
		case s.ended && s.err == nil:
			return nil, errStopping
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case limit.Err() != nil:
			return appendAnswer(nil, fetchData, s.number, nil), nil
		}
	}
}

// await waits, with b where it is, until something came or it is late.
func (s *fetchSession) await(b *block, late <-chan struct{}) {
	if b != nil {
		s.use(b)
		defer s.done(b)
	}
	changed := s.changed
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-changed:
	case <-late:
	}
}

// answer returns the answers that need no bytes.
func (s *fetchSession) answer(q *fetchRequest) ([]byte, bool) {
	var rec []byte
	if q.describe {
		rec = core.AppendRecord(nil, &s.rec)
	}
	switch {
	case s.err != nil:
		return appendErrorAnswer(s.number, nil, s.err), true
	case q.version != "" && q.version != s.rec.Remote.Version:
		return appendErrorAnswer(s.number, nil, errChanged), true
	case q.off > 0 && q.off >= s.rec.Size:
		return appendErrorAnswer(s.number, rec, fmt.Errorf("%s: byte %d of %d: %w", s, q.off, s.rec.Size, core.ErrRange)), true
	case s.rec.Size == 0:
		return appendAnswer(nil, fetchData, s.number, rec), true
	case s.complete || s.own(q.off) == nil && s.inline == nil && s.has(int(q.off/s.block)):
		return appendAnswer(nil, fetchPresent, s.number, rec), true
	case s.inline != nil && q.off < s.limit(q):
		s.over(q, s.until(q))
		return append(appendAnswer(nil, fetchData, s.number, rec), s.inline[q.off:s.until(q)]...), true
	}
	return nil, false
}

// limit is up to where a reader may be given bytes: while the whole is being
// verified, not the last ones, unless it did not ask for the whole.
func (s *fetchSession) limit(q *fetchRequest) int64 {
	if s.sum.on && q.began == 0 {
		return max(s.rec.Size-heldBack, 0)
	}
	return s.rec.Size
}

// stop is where a reader will stop.
func (s *fetchSession) stop(q *fetchRequest) int64 {
	if q.end >= 0 {
		return min(q.end, s.rec.Size)
	}
	return s.rec.Size
}

// until is where the answer to a request ends at the latest.
func (s *fetchSession) until(q *fetchRequest) int64 {
	return min(q.off+maxAnswer, s.stop(q), s.limit(q))
}

// over notes that a reader has been given everything, if so.
func (s *fetchSession) over(q *fetchRequest, upto int64) {
	if upto >= s.stop(q) {
		s.pass()
		delete(s.readers, q.reader)
		s.wake()
	}
}

// blockFor returns the block that a reader needs, and has it and the next ones
// fetched. These begin once the reader has its first bytes, which they would delay.
func (s *fetchSession) blockFor(q *fetchRequest) *block {
	i := int(q.off / s.block)
	to := i + 1
	switch last := int((s.stop(q) + s.block - 1) / s.block); {
	case q.off >= s.limit(q): // the sum needs all
		to = int((s.rec.Size + s.block - 1) / s.block)
	case s.serial && s.keep:
		to = min(last, i+2)
	case s.serial: // what is read ahead and lost would have to come again, with all before it
	case q.off > q.began:
		to = max(to, min(last, i+ahead(int((q.off-q.began)/s.block))))
	}
	s.want(i, to, q.off, q.end)
	return s.blocks[i]
}

// awaitsSum says whether a reader waits for the whole to be verified, of which the
// rest has been there: it is brought back when its turn comes.
func (s *fetchSession) awaitsSum(q *fetchRequest) bool {
	if !s.sum.on || q.off < s.limit(q) {
		return false
	}
	for i := int(q.off / s.block); int64(i)*s.block < s.rec.Size; i++ {
		if i >= s.sum.next && !s.sum.came[i] {
			return false
		}
	}
	return true
}

// given says up to where a reader may be given a block's bytes.
func (s *fetchSession) given(b *block, q *fetchRequest) int64 {
	first := int64(b.index) * s.block
	to := b.filled
	if s.atOnce() && (!b.full || s.sum.on) {
		to = b.from // two answers take longer than what is missing
	}
	if q.off < first+int64(b.from) && b.head < b.from {
		to = b.head
	}
	return min(first+int64(to), s.limit(q))
}

// atOnce says whether the object is so small that readers are given nothing before all
// of it is here.
func (s *fetchSession) atOnce() bool {
	const small = 128 // th of a block
	return s.rec.Size <= s.block/small
}

// copy makes an answer of a block's bytes.
func (s *fetchSession) copy(q *fetchRequest, b *block) []byte {
	var rec []byte
	if q.describe {
		rec = core.AppendRecord(nil, &s.rec)
	}
	from := q.off - int64(b.index)*s.block
	to := min(s.given(b, q), s.until(q))
	n := to - q.off
	s.over(q, to)
	s.use(b)
	s.mu.Unlock()
	// What append allocates is not cleared first.
	out := append(appendAnswer(nil, fetchData, s.number, rec), b.buf[from:from+n]...)
	s.mu.Lock()
	s.done(b)
	return out
}

// answerHead is about what comes before an answer's bytes.
const answerHead = 32

// readRun answers from a run that the session has stored. One that cannot be read
// is forgotten; if it is in the record, its shards may just have been moved.
func (s *fetchSession) readRun(ctx context.Context, q *fetchRequest, r fetchedRun) ([]byte, error) {
	var rec []byte
	if q.describe {
		rec = core.AppendRecord(nil, &s.rec)
	}
	to := min(s.until(q), r.off+r.extent.Size)
	n := int(to - q.off)
	s.mu.Unlock()
	out := appendAnswer(make([]byte, 0, answerHead+len(rec)+n), fetchData, s.number, rec)
	head := len(out)
	out = append(out, make([]byte, n)...)
	body, err := s.r.node.openExtents(ctx, s.name.bucket, s.name.key, []core.Extent{r.extent}, q.off-r.off, int64(n), false)
	if err == nil {
		_, err = io.ReadFull(body, out[head:])
		_ = body.Close()
	}
	s.mu.Lock()
	if err == nil {
		s.over(q, to)
	} else if ctx.Err() == nil && r.committed {
		return appendAnswer(nil, fetchPresent, s.number, rec), nil
	} else if ctx.Err() == nil {
		s.lose(&r, err)
	}
	return out, err
}
