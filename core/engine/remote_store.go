package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"time"

	"github.com/shoalstore/shoal/core"
)

const (
	// An extent is of up to longRun blocks; shortRun of them are not kept
	// waiting for more.
	longRun  = 8
	shortRun = 4
	// commitBlocks is after how many blocks a record is committed, commitAfter
	// after what time at the latest.
	commitBlocks = 64
	commitAfter  = 5 * time.Minute
)

// small says whether the object's data is kept beside its record; the caller
// holds mu, as in what follows.
func (s *fetchSession) small() bool {
	return s.rec.Size <= min(s.bucket.Policy.Inline, s.block)
}

// batch chooses neighbours that are to be stored now, and takes them in use.
func (s *fetchSession) batch() []*block {
	if !s.keep || s.err != nil || s.ended {
		return nil
	}
	var ready []*block
	for _, b := range s.blocks {
		if b.full && !b.stored && !b.storing {
			ready = append(ready, b)
		}
	}
	sort.Slice(ready, func(i, j int) bool { return ready[i].index < ready[j].index })
	hurry := len(s.readers) == 0 || s.r.memory.wanted()
	for len(ready) > 0 {
		n := 1
		for n < min(len(ready), longRun) && ready[n].index == ready[n-1].index+1 {
			n++
		}
		next := s.blocks[ready[n-1].index+1]
		if hurry || n >= shortRun || next == nil || next.full {
			for _, b := range ready[:n] {
				b.storing = true
				s.use(b)
			}
			return ready[:n]
		}
		ready = ready[n:]
	}
	return nil
}

// store puts a run of blocks on the disks.
func (s *fetchSession) store(batch []*block) {
	run := fetchedRun{off: int64(batch[0].index) * s.block}
	var src []io.Reader
	var size int64
	for _, b := range batch {
		src = append(src, bytes.NewReader(b.buf))
		size += int64(len(b.buf))
	}
	var small []byte
	var err error
	if s.small() {
		small = bytes.Clone(batch[0].buf)
	} else {
		run.extent, err = s.r.node.writeExtent(s.life, &s.bucket.Bucket, s.name.key, io.MultiReader(src...), &core.PutOptions{Size: size})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		s.stopKeeping(err)
	case small != nil:
		s.inline = small
	default:
		if len(s.runs) == 0 || s.pending() == 0 {
			s.at = s.r.node.clock.Boot()
		}
		s.runs = append(s.runs, run)
	}
	for _, b := range batch {
		b.storing, b.stored = false, err == nil
		s.done(b)
	}
	s.tell()
}

// pending counts the blocks that are stored and not in the record.
func (s *fetchSession) pending() (n int) {
	for i := range s.runs {
		if r := &s.runs[i]; !r.committed {
			n += int((r.extent.Size + s.block - 1) / s.block)
		}
	}
	return n
}

// commitDue says whether the record is to be written.
func (s *fetchSession) commitDue() bool {
	if !s.keep || s.complete || s.err != nil {
		return false
	}
	n := s.pending()
	if s.inline != nil || n > 0 && s.whole() {
		return !s.sum.on
	}
	return n >= commitBlocks || n > 0 && (len(s.readers) == 0 && !s.active() || s.r.node.clock.Boot().Sub(s.at) > commitAfter)
}

// whole says whether everything is stored.
func (s *fetchSession) whole() bool {
	for i := 0; int64(i)*s.block < s.rec.Size; i++ {
		if !s.has(i) {
			return false
		}
	}
	return true
}

// stopKeeping goes on without storing anything. What is not in the record yet is
// fetched again if somebody wants it.
func (s *fetchSession) stopKeeping(why error) {
	if s.keep {
		s.r.node.log.Warn("what a remote object's readers fetch is not kept", "bucket", s.bucket.Name.String(), "key", s.name.key, "err", why)
	}
	s.keep = false
	if !s.complete {
		s.inline = nil
	}
	for i := range s.runs {
		if r := &s.runs[i]; !r.committed {
			s.r.node.garbage.discard(&core.Record{Extents: []core.Extent{r.extent}})
		}
	}
	s.runs = slices.DeleteFunc(s.runs, func(r fetchedRun) bool { return !r.committed })
	for _, b := range s.blocks {
		if b.stored {
			b.stored = false
		}
		s.settle(b)
	}
}

// lose forgets a run that cannot be read.
func (s *fetchSession) lose(run *fetchedRun, why error) {
	s.r.node.log.Warn("a block that was just stored cannot be read", "bucket", s.bucket.Name.String(), "key", s.name.key, "err", why)
	s.runs = slices.DeleteFunc(s.runs, func(r fetchedRun) bool {
		gone := !r.committed && r.extent.ID == run.extent.ID
		if gone {
			s.r.node.garbage.discard(&core.Record{Extents: []core.Extent{r.extent}})
		}
		return gone
	})
}

// commit writes the record of what is stored, together with what was present of
// the same version.
func (s *fetchSession) commit() {
	const tries = 5
	var err error
	for range tries {
		if err = s.commitOnce(); !errors.Is(err, core.ErrConflict) || s.stale.Load() {
			break
		}
	}
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stopKeeping(fmt.Errorf("commit: %w", err))
	}
}

func (s *fetchSession) commitOnce() error {
	n := s.r.node
	have, err := n.remoteRow(s.life, s.reading.Slot, s.name, false)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if have.rec != nil && remoteVersion(have.rec) != s.rec.Remote.Version {
		s.mu.Unlock()
		return fmt.Errorf("%s: another version is present: %w", s, core.ErrPrecondition)
	}
	rec, mine := s.record(have.rec)
	right := s.sum.right && !slices.ContainsFunc(rec.Extents, func(e core.Extent) bool {
		return !slices.ContainsFunc(s.runs, func(r fetchedRun) bool { return r.extent.ID == e.ID })
	})
	st := &stored{rec: rec}
	if s.inline != nil {
		if st.rec.Inline = s.inline; len(s.inline) > inlineInRecord {
			st.rec.Inline, st.data = nil, s.inline
		}
	}
	s.mu.Unlock()
	if err := s.readBack(s.life, &rec, right); err != nil {
		return err
	}
	m := n.mutation(&s.bucket.Bucket, s.name.key, core.NewRequestID())
	m.fresh, m.session = true, s
	m.checks = []check{{kind: checkVersion, row: objectKey(s.name.bucket, s.name.key), version: have.row.Version}}
	err = n.writePlaced(s.life, &s.bucket.Bucket, s.name.key, &st.rec, func() error {
		m.entry.Rows = objectRows(s.name.bucket, s.name.key, st)
		_, err := n.mutate(s.life, m.clone())
		return err
	})
	if err != nil {
		if !surelyRefused(err) {
			// It may be committed: what it names is left to the sweep.
			s.mu.Lock()
			s.runs = slices.DeleteFunc(s.runs, func(r fetchedRun) bool { return !r.committed })
			s.mu.Unlock()
		}
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.runs {
		if r := &s.runs[i]; slices.Contains(mine, r.extent.ID) {
			r.committed = true
		}
	}
	s.complete = !st.rec.Remote.Partial
	s.tell()
	return nil
}

// record makes the object's record of what is stored and, if not nil, of what
// was present of the same version. mine are the extents that are new in it.
func (s *fetchSession) record(have *core.Record) (rec core.Record, mine []core.ExtentID) {
	rec = s.rec
	rec.Remote = &core.RemoteCopy{Version: s.rec.Remote.Version, Partial: s.inline == nil}
	if s.inline != nil {
		return rec, nil
	}
	var runs []fetchedRun
	for _, r := range s.runs {
		if !r.committed {
			runs = append(runs, r)
			mine = append(mine, r.extent.ID)
		}
	}
	own := len(runs)
	if have != nil {
		for i, at := range have.ExtentRuns() {
			if !slices.ContainsFunc(runs[:own], func(r fetchedRun) bool { return r.off < at.End() && at.Offset < r.off+r.extent.Size }) {
				runs = append(runs, fetchedRun{extent: have.Extents[i], off: at.Offset})
			}
		}
	}
	sort.Slice(runs, func(i, j int) bool { return runs[i].off < runs[j].off })
	for _, r := range runs {
		rec.Extents = append(rec.Extents, r.extent)
		rec.Remote.Runs = append(rec.Remote.Runs, core.Run{Offset: r.off, Size: r.extent.Size})
	}
	if rec.Whole() {
		rec.Remote.Partial, rec.Remote.Runs = false, nil
	}
	return rec, mine
}

// conclude ends a session that failed. What was wrong from the start is removed,
// what came whole before is kept.
func (s *fetchSession) conclude(drop bool) {
	s.mu.Lock()
	keep := !drop && s.keep && s.pending() > 0
	s.mu.Unlock()
	if keep && s.life.Err() == nil {
		s.commit()
		return
	}
	s.mu.Lock()
	committed := s.base != nil
	for i := range s.runs {
		committed = committed || s.runs[i].committed
	}
	s.keep = false
	s.stopKeeping(s.err)
	s.mu.Unlock()
	if !drop || !committed || s.life.Err() != nil {
		return
	}
	if err := s.removeRecord(s.life); err != nil {
		s.r.node.log.Warn("what is present of a remote object is out of date and was not removed", "bucket", s.bucket.Name.String(), "key", s.name.key, "err", err)
	}
}

// removeRecord removes the record of what is present, if it is of the session's
// version.
func (s *fetchSession) removeRecord(ctx context.Context) error {
	n := s.r.node
	version := s.pinned
	if version == "" {
		version = s.rec.Remote.Version
	}
	have, err := n.remoteRow(ctx, s.reading.Slot, s.name, false)
	if err != nil || have.rec == nil || remoteVersion(have.rec) != version {
		return err
	}
	m := n.mutation(&s.bucket.Bucket, s.name.key, core.NewRequestID())
	m.fresh, m.session = true, s
	k := objectKey(s.name.bucket, s.name.key)
	m.checks = []check{{kind: checkVersion, row: k, version: have.row.Version}}
	m.entry.Rows = []core.Row{{RowKey: k, Deleted: true}}
	_, err = n.mutate(ctx, m)
	return err
}

// guard is asked with the object's key locked: it refuses what a session wants
// to write if a write came in between, or the slot was somebody else's.
func (s *fetchSession) guard() error {
	if s.stale.Load() {
		return fmt.Errorf("%s was written meanwhile: %w", s, core.ErrConflict)
	}
	return s.r.node.driver.check(s.reading)
}
