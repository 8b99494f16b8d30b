package engine

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5" //nolint:gosec // what remotes have
	"encoding/base64"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/shoalstore/shoal/core"
)

// heldBack is how many of the last bytes of an object nobody is given before the
// whole was verified.
const heldBack = 1 << 10

// summer computes the checksum of an object whose blocks come in one session, in
// order. A block that had to go before its turn is brought back for it.
type summer struct {
	on    bool         // the whole comes by this session, and readers wait for the sum
	right bool         // it was the right one
	next  int          // the block whose turn it is
	came  map[int]bool // those of later turns that were in memory once
	hash  hash.Hash
	fresh func() hash.Hash
	want  []byte // nil: there is nothing to verify
	what  string
	// read are the extents that were read back and are right.
	read []core.ExtentID
}

// newSummer chooses what to verify of an object, if anything.
func newSummer(o *core.RemoteObject) summer {
	s := summer{came: map[int]bool{}}
	if len(o.MD5) == md5.Size {
		s.fresh, s.want, s.what = md5.New, o.MD5, "MD5"
	} else if h := newChecksum(o.Checksum.Algorithm); h != nil && !o.Checksum.Composite {
		if want, err := base64.StdEncoding.DecodeString(o.Checksum.Value); err == nil && len(want) == h.Size() {
			s.want, s.what = want, o.Checksum.Algorithm
			s.fresh = func() hash.Hash { return newChecksum(o.Checksum.Algorithm) }
		}
	}
	if s.want != nil {
		s.hash = s.fresh()
	}
	return s
}

// check compares the sum of all bytes.
func (s *fetchSession) check(h hash.Hash) error {
	if got := h.Sum(nil); !bytes.Equal(got, s.sum.want) {
		return fmt.Errorf("%s: the remote's bytes have another %s than it says: %x, not %x: %w", s, s.sum.what, got, s.sum.want, core.ErrCorrupt)
	}
	return nil
}

// summed says whether a block is not needed any more for the sum; the caller holds
// mu.
func (s *fetchSession) summed(b *block) bool { return !s.sum.on || b.index < s.sum.next }

// verify sums the blocks as they come, until all are.
func (s *fetchSession) verify() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for int64(s.sum.next)*s.block < s.rec.Size {
		if s.err != nil || s.ended {
			return
		}
		b := s.blocks[s.sum.next]
		if b == nil && s.sum.came[s.sum.next] {
			s.bringBack(s.sum.next)
		}
		if b == nil || !b.full {
			changed := s.changed
			s.mu.Unlock()
			select {
			case <-changed:
			case <-s.life.Done():
			}
			s.mu.Lock()
			continue
		}
		s.use(b)
		s.mu.Unlock()
		_, _ = s.sum.hash.Write(b.buf)
		s.mu.Lock()
		delete(s.sum.came, s.sum.next)
		s.sum.next++
		s.done(b)
		s.wake()
		if s.serial {
			s.tell()
		}
	}
	if err := s.check(s.sum.hash); err != nil {
		s.mu.Unlock()
		s.fail(err, true)
		s.mu.Lock()
		return
	}
	s.sum.on, s.sum.right = false, true
	s.tell()
	s.wake()
}

// bringBack has a block in memory again that went before it was summed: from what
// is stored, or else from the remote, if there is a reader to be told. The caller
// holds mu.
func (s *fetchSession) bringBack(i int) {
	from := int64(i) * s.block
	r := fetchedRun{extent: core.Extent{Size: int64(len(s.inline))}}
	stored := s.inline != nil
	for j := range s.runs {
		if x := &s.runs[j]; !stored && x.off <= from && from+s.length(i) <= x.off+x.extent.Size {
			r, stored = *x, true
		}
	}
	if !stored {
		if len(s.readers) > 0 {
			s.want(i, i+1, from, -1)
		}
		return
	}
	w := s.newWatch()
	w.pause()
	b := s.add(i, 0, w.giveUp)
	b.stored = true
	s.fetches.Go(func() { s.load(w, b, &r, s.inline) })
}

// load fills a block from what was stored. If that cannot be read, the block is
// fetched again.
func (s *fetchSession) load(w *watch, b *block, r *fetchedRun, inline []byte) {
	defer w.end()
	length := s.length(b.index)
	buf, err := s.r.memory.acquire(w.ctx, int(length))
	switch {
	case err != nil:
	case inline != nil:
		copy(buf, inline)
	default:
		err = s.readStored(w.ctx, r, int64(b.index)*s.block, buf)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b.buf = buf
	switch {
	case err == nil:
		b.filled, b.full = int(length), true
	case r.committed && w.ctx.Err() == nil:
		s.mu.Unlock()
		s.fail(fmt.Errorf("%s: what was stored cannot be read: %w", s, err), false)
		s.mu.Lock()
	case w.ctx.Err() == nil:
		s.lose(r, err)
		fallthrough
	default:
		s.remove(b)
	}
	s.done(b)
	s.tell()
	s.wake()
}

// readStored reads from a run. If that is in the record, its shards may have been
// moved meanwhile.
func (s *fetchSession) readStored(ctx context.Context, r *fetchedRun, off int64, buf []byte) error {
	n, length := s.r.node, int64(len(buf))
	read := func(body io.ReadCloser, err error) error {
		if err == nil {
			_, err = io.ReadFull(body, buf)
			_ = body.Close()
		}
		return err
	}
	err := read(n.openExtents(ctx, s.name.bucket, s.name.key, []core.Extent{r.extent}, off-r.off, length, false))
	if err == nil || !r.committed || ctx.Err() != nil {
		return err
	}
	have, again := n.remoteRow(ctx, s.reading.Slot, s.name, false)
	if again != nil || have.rec == nil || remoteVersion(have.rec) != s.rec.Remote.Version || runEnd(have.rec, off) < off+length {
		return err
	}
	return read(n.openRuns(ctx, s.name.bucket, s.name.key, have.rec, off, length))
}

// readBack verifies what is about to become present whole. Unless all of it came by
// this session, and is known to be right, it is read from the disks once.
func (s *fetchSession) readBack(ctx context.Context, rec *core.Record, right bool) error {
	if right || rec.Remote.Partial || rec.Size == 0 || s.sum.want == nil {
		return nil
	}
	var ids []core.ExtentID
	for i := range rec.Extents {
		ids = append(ids, rec.Extents[i].ID)
	}
	if len(ids) > 0 && slices.Equal(ids, s.sum.read) {
		return nil
	}
	h := s.sum.fresh()
	if len(ids) == 0 {
		_, _ = h.Write(s.inline)
	} else {
		body, err := s.r.node.openExtents(ctx, s.name.bucket, s.name.key, rec.Extents, 0, rec.Size, false)
		if err != nil {
			return fmt.Errorf("verify what was fetched: %w", err)
		}
		n, err := io.Copy(h, body)
		_ = body.Close()
		if err != nil || n != rec.Size {
			return fmt.Errorf("verify what was fetched: %d of %d bytes can be read: %w", n, rec.Size, cmp.Or(err, io.ErrUnexpectedEOF))
		}
	}
	if err := s.check(h); err != nil {
		s.fail(err, true)
		return err
	}
	s.sum.read = ids
	return nil
}
