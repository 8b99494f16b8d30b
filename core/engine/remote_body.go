package engine

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/shoalstore/shoal/core"
)

// remoteBody reads bytes of a remote object: those that are present from their
// shards, the others from the session at the slot's owner.
type remoteBody struct {
	node       *Node
	ctx        context.Context //nolint:containedctx // bounds the reading, as that of core.Store
	bucket     *core.Bucket
	key        string
	found      *remoteFound // what is present, if found.rec is not nil
	rec        *core.Record // what is read
	began, off int64
	end        int64 // -1: the object's, which is not known yet
	sendFile   bool
	whole      io.ReadCloser // the body of what is present whole
	local      io.ReadCloser // the run of present bytes that is being read
	localEnd   int64
	stream     *fetchStream
	early      *fetchAnswer // that has come before there was a stream, to reader
	reader     uint64
	direct     bool // what is present cannot be read: the remote has it, too
	again      int
	err        error
}

// first opens what the body begins with. Errors that wrap errReadAgain are of
// something that has changed since it was looked at.
func (b *remoteBody) first() error {
	if b.found.rec != nil && b.found.rec.Whole() {
		var err error
		b.whole, err = b.node.body(b.ctx, b.bucket, b.key, &b.found.found, b.off, b.end-b.off, b.sendFile)
		if err == nil {
			return nil
		}
		if err = b.unreadable(err); err != nil {
			return err
		}
	}
	if b.rec != nil && b.off == b.end {
		return nil
	}
	return b.next()
}

// unreadable decides what it means that present bytes cannot be read: if the
// record is still the same, the remote is asked for them.
func (b *remoteBody) unreadable(why error) error {
	if b.ctx.Err() != nil {
		return why
	}
	f, err := b.node.remoteRow(b.ctx, b.node.SlotOf(b.bucket.ID, b.key), objectName{b.bucket.ID, b.key}, false)
	switch {
	case err != nil:
		return errors.Join(why, err)
	case f.rec == nil || f.row.Version != b.found.row.Version:
		return errReadAgain
	}
	b.node.log.Warn("what is present of a remote object cannot be read; the remote is", "bucket", b.bucket.Name.String(), "key", b.key, "err", why)
	b.node.healLater(b.bucket.ID, b.key)
	b.closePiece()
	b.direct, b.found = true, &remoteFound{}
	return nil
}

// next opens the next piece of the body, and waits for its first bytes.
func (b *remoteBody) next() error {
	b.closePiece()
	if b.found.rec != nil {
		if to := min(runEnd(b.found.rec, b.off), b.end); to > b.off {
			body, err := b.node.openRuns(b.ctx, b.bucket.ID, b.key, b.found.rec, b.off, to-b.off)
			if err == nil {
				b.local, b.localEnd = body, to
				return nil
			}
			if err = b.unreadable(err); err != nil {
				return err
			}
		}
	}
	s := &fetchStream{body: b, end: b.end}
	if b.found.rec != nil {
		if gap := b.found.rec.MissingRuns(b.off, b.end); len(gap) > 0 {
			s.end = gap[0].End()
		}
	}
	b.stream = s
	return s.fill()
}

// openRuns opens present bytes of an object of which not everything is present.
func (n *Node) openRuns(ctx context.Context, b core.BucketID, key string, rec *core.Record, off, length int64) (io.ReadCloser, error) {
	var es []core.Extent
	start, end := int64(-1), int64(-1)
	for i, run := range rec.ExtentRuns() {
		switch {
		case run.Offset <= off && off < run.End():
			start, end, es = run.Offset, run.End(), append(es, rec.Extents[i])
		case start >= 0 && run.Offset == end && end < off+length:
			end, es = run.End(), append(es, rec.Extents[i])
		}
	}
	return n.openExtents(ctx, b, key, es, off-start, length, false)
}

func (b *remoteBody) closePiece() {
	if b.local != nil {
		_ = b.local.Close()
		b.local = nil
	}
	if b.stream != nil {
		b.stream.close()
		b.stream = nil
	}
}

// Read is part of io.Reader.
func (b *remoteBody) Read(p []byte) (int, error) {
	for b.err == nil {
		switch {
		case b.off == b.end:
			b.err = io.EOF
		case b.local != nil && b.off < b.localEnd, b.stream != nil && b.off != b.stream.end:
			k, err := b.piece(p[:min(int64(len(p)), b.end-b.off)])
			b.off += int64(k)
			if err != nil {
				b.err = b.goOn(err)
			}
			if k > 0 {
				return k, nil
			}
		default:
			if err := b.next(); err != nil {
				b.err = b.goOn(err)
			}
		}
	}
	return 0, b.err
}

// piece reads from what is open.
func (b *remoteBody) piece(p []byte) (int, error) {
	if b.local == nil {
		return b.stream.read(p)
	}
	k, err := b.local.Read(p)
	if errors.Is(err, io.EOF) {
		if err = nil; k == 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	return k, err
}

// goOn decides whether the rest can be read in another way after an error.
func (b *remoteBody) goOn(err error) error {
	if b.local != nil {
		err = b.unreadable(err)
	}
	if errors.Is(err, errReadAgain) && !errors.Is(err, core.ErrPrecondition) && !errors.Is(err, core.ErrNotFound) {
		return b.lookAgain(err)
	}
	return err
}

// lookAgain reads the record anew, since the owner says that it has these bytes.
func (b *remoteBody) lookAgain(why error) error {
	b.closePiece()
	if b.again++; b.again > readTries {
		return fmt.Errorf("%q: neither present nor fetched (%v): %w", b.key, why, core.ErrUnavailable) //nolint:errorlint // it is no reason to read again
	}
	f, err := b.node.remoteRow(b.ctx, b.node.SlotOf(b.bucket.ID, b.key), objectName{b.bucket.ID, b.key}, true)
	if err != nil {
		return err
	}
	if f.rec != nil && remoteVersion(f.rec) != remoteVersion(b.rec) {
		f.data.free()
		f.rec = nil
	}
	b.found = f
	if f.rec == nil {
		b.direct = true // it was present a moment ago
	}
	if f.rec != nil && f.rec.Whole() {
		body, err := b.node.body(b.ctx, b.bucket, b.key, &f.found, b.off, b.end-b.off, false)
		if err != nil {
			return b.unreadable(err)
		}
		b.local, b.localEnd = body, b.end
	}
	return nil
}

// Close is part of io.Closer.
func (b *remoteBody) Close() error {
	b.closePiece()
	if b.whole != nil {
		_ = b.whole.Close()
	}
	if b.err == nil {
		b.err = fmt.Errorf("object %q: read after close: %w", b.key, core.ErrInvalid)
	}
	return nil
}
