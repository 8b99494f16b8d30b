package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/shoalstore/shoal/core"
)

// readTries is how often a read begins anew when what it was about to read has
// changed.
const readTries = 6

// remoteLook is what is known of a remote object when a read of it begins.
type remoteLook struct {
	found *remoteFound
	// rec describes the object: as it is present, or as the remote says; nil
	// if neither is known.
	rec *core.Record
	// asked says that the remote was asked, and rec is of that version.
	asked bool
}

// look reads an object's record, and asks the remote where the record does not
// suffice: because a write is under way, or the reader wants the latest.
func (n *Node) look(ctx context.Context, bucket *core.Bucket, key string, opt *core.GetOptions, ask, data bool) (*remoteLook, error) {
	name := objectName{bucket.ID, key}
	f, err := n.remoteRow(ctx, n.SlotOf(bucket.ID, key), name, data)
	if err != nil {
		return nil, err
	}
	l := &remoteLook{found: f, rec: f.rec}
	if !ask && !opt.Latest && !opt.Sync && !f.unsettled {
		return l, nil
	}
	b, err := n.remote(bucket)
	if err == nil {
		err = n.askRemote(ctx, b, key, opt, l)
	}
	if err != nil {
		f.data.free()
		return nil, err
	}
	return l, nil
}

// askRemote has a look completed by what the remote says.
func (n *Node) askRemote(ctx context.Context, b *remoteBucket, key string, opt *core.GetOptions, l *remoteLook) error {
	o, err := b.head(ctx, key)
	if errors.Is(err, core.ErrNotFound) && opt.Sync && l.found.rec != nil && !l.found.unsettled {
		if gone := n.outdated(ctx, &b.Bucket, key, ""); gone != nil {
			return gone
		}
	}
	if err != nil {
		return err
	}
	if l.asked = true; l.rec == nil || remoteVersion(l.rec) != o.Version {
		if l.found.rec != nil && !l.found.unsettled {
			// Who reads after this must not get what was there before.
			if err := n.outdated(ctx, &b.Bucket, key, o.Version); err != nil {
				return err
			}
		}
		rec := recordOfRemote(&o, b.Policy.Scheme)
		l.rec = &rec
		l.found.rec = nil
		l.found.data.free()
	}
	return nil
}

// outdated removes what is present of an object in another version than the remote
// has; "" if it has none.
func (n *Node) outdated(ctx context.Context, b *core.Bucket, key string, is core.RemoteVersion) error {
	for range readTries {
		f, err := n.remoteRow(ctx, n.SlotOf(b.ID, key), objectName{b.ID, key}, false)
		if err != nil {
			return err
		}
		if f.unsettled || f.rec == nil || remoteVersion(f.rec) == is {
			return nil
		}
		if _, err = n.Evict(ctx, *b, key, f.row.Version, false); err == nil || errors.Is(err, core.ErrNotFound) {
			return nil
		}
		if !errors.Is(err, core.ErrConflict) {
			return fmt.Errorf("the copy that is out of date could not be removed: %w", err)
		}
	}
	return fmt.Errorf("the copy of %q that is out of date changes all the time: %w", key, core.ErrUnavailable)
}

// headRemote is Head of a remote bucket.
func (n *Node) headRemote(ctx context.Context, bucket *core.Bucket, key string, opt *core.GetOptions) (core.ObjectInfo, error) {
	l, err := n.look(ctx, bucket, key, opt, false, false)
	if err == nil && l.rec == nil {
		l, err = n.look(ctx, bucket, key, opt, true, false)
	}
	if err != nil {
		return core.ObjectInfo{}, err
	}
	out := info(bucket, key, l.rec, l.found.row.Version)
	if err := opt.Conditions.CheckRead(l.rec.ETag, l.rec.Modified); err != nil {
		return out, err
	}
	_, _, err = span(l.rec, opt)
	return out, err
}

// openRemote is open for a remote bucket.
func (n *Node) openRemote(ctx context.Context, bucket *core.Bucket, key string, opt core.GetOptions, checkCond func(*core.Conditions, string, time.Time) error) (*core.Object, error) {
	ask := false
	for i := 0; ; i++ {
		l, err := n.look(ctx, bucket, key, &opt, ask, true)
		if err != nil {
			return nil, err
		}
		if l.rec == nil && needsHead(&opt) {
			ask = true
			continue
		}
		obj, err := n.openLooked(ctx, bucket, key, &opt, l, checkCond)
		if !errors.Is(err, errReadAgain) {
			return obj, err
		}
		if i == readTries {
			return nil, fmt.Errorf("%q changes all the time: %w (%s)", key, core.ErrUnavailable, err.Error())
		}
		// What was there a moment ago says nothing: the remote decides.
		ask = errors.Is(err, core.ErrPrecondition) || errors.Is(err, core.ErrNotFound) || i > readTries/2
	}
}

// needsHead says whether a read cannot begin before it is known what the object
// is.
func needsHead(opt *core.GetOptions) bool {
	return !opt.Conditions.IsZero() || opt.Part > 0 || opt.Range != nil && opt.Range.Start < 0
}

// errReadAgain says that the record is to be read again.
var errReadAgain = errors.New("the object changed while it was opened")

// openLooked opens an object of which it is known what is present.
func (n *Node) openLooked(ctx context.Context, bucket *core.Bucket, key string, opt *core.GetOptions, l *remoteLook, checkCond func(*core.Conditions, string, time.Time) error) (*core.Object, error) {
	body := &remoteBody{node: n, ctx: ctx, bucket: bucket, key: key, end: -1, sendFile: opt.SendFile, found: l.found, rec: l.rec}
	obj := &core.Object{}
	if l.rec == nil {
		if opt.Range != nil {
			body.off = opt.Range.Start
			if opt.Range.End >= 0 {
				body.end = opt.Range.End + 1
			}
		}
		body.began = body.off
		if err := body.first(); err != nil {
			_ = body.Close()
			if errors.Is(err, core.ErrRange) {
				return n.outOfRange(ctx, bucket, key, opt, err)
			}
			return nil, err
		}
	}
	obj.ObjectInfo = info(bucket, key, body.rec, l.found.row.Version)
	err := checkCond(&opt.Conditions, body.rec.ETag, body.rec.Modified)
	if err == nil {
		obj.Start, obj.Length, err = span(body.rec, opt)
	}
	if err != nil {
		_ = body.Close()
		return obj, err
	}
	if l.rec != nil {
		body.off, body.began = obj.Start, obj.Start
	}
	body.end = obj.Start + obj.Length
	if l.rec != nil && obj.Length > 0 || l.rec != nil && l.found.rec != nil {
		if err := body.first(); err != nil {
			_ = body.Close()
			return nil, err
		}
	}
	obj.Body = body
	if w := body.whole; w != nil {
		obj.Body = w
	}
	return obj, nil
}

// outOfRange answers a read that begins beyond the object's end.
func (n *Node) outOfRange(ctx context.Context, bucket *core.Bucket, key string, opt *core.GetOptions, why error) (*core.Object, error) {
	l, err := n.look(ctx, bucket, key, opt, true, false)
	if err != nil {
		return nil, err
	}
	obj := &core.Object{ObjectInfo: info(bucket, key, l.rec, l.found.row.Version)}
	if _, _, err = span(l.rec, opt); err == nil {
		err = fmt.Errorf("%w (%v)", errReadAgain, why) //nolint:errorlint // it is not out of range any more
	}
	return obj, err
}

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

// fetchStream reads bytes that are not present. The next ones are asked for
// before those that are there were read.
type fetchStream struct {
	body    *remoteBody
	end     int64 // -1: the object's
	reader  uint64
	session uint64
	asked   int64 // up to where bytes have come, or are under way from
	chunk   []byte
	coming  chan *fetchAnswer // nil: nothing is under way
	failed  error
	cancel  context.CancelFunc
	ctx     context.Context //nolint:containedctx // of the calls under way
}

// fill waits for the first bytes. It learns what the object is, if that was not
// known.
func (s *fetchStream) fill() error {
	b := s.body
	s.reader = rand.Uint64()
	s.asked = b.off
	s.ctx, s.cancel = context.WithCancel(b.ctx)
	for {
		a, err := s.call(s.ctx)
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
			s.ask()
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
		keep: !b.direct, describe: b.rec == nil,
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
	s.chunk = s.chunk[k:]
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
