package engine

import (
	"context"
	"errors"
	"fmt"
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
	// early is what the owner of a cold object has answered to the request that
	// begins the read; nil if it was not asked.
	early  *fetchAnswer
	reader uint64
}

// look reads an object's record, and asks the remote where the record does not
// suffice: because a write is under way, or the reader wants the latest.
func (n *Node) look(ctx context.Context, bucket *core.Bucket, key string, opt *core.GetOptions, ask, data bool) (*remoteLook, error) {
	f, err := n.remoteRow(ctx, n.SlotOf(bucket.ID, key), objectName{bucket.ID, key}, data)
	if err != nil {
		return nil, err
	}
	return n.lookOn(ctx, bucket, key, opt, ask, f)
}

// lookToRead is look for a read that begins, which what is cold is fetched for at once.
func (n *Node) lookToRead(ctx context.Context, bucket *core.Bucket, key string, opt *core.GetOptions, ask bool) (*remoteLook, error) {
	if ask || opt.Latest || opt.Sync || needsHead(opt) {
		return n.look(ctx, bucket, key, opt, ask, true)
	}
	q := &fetchRequest{
		slot: n.SlotOf(bucket.ID, key), bucket: bucket.ID, key: key, reader: rand.Uint64(), end: -1,
		keep: true, describe: true, job: jobIn(ctx),
	}
	if opt.Range != nil {
		q.off = opt.Range.Start
		if opt.Range.End >= 0 {
			q.end = opt.Range.End + 1
		}
	}
	q.began = q.off
	f, early, err := n.openRow(ctx, q)
	if err != nil {
		return nil, err
	}
	l, err := n.lookOn(ctx, bucket, key, opt, false, f)
	if err == nil {
		l.early, l.reader = early, q.reader
	}
	return l, err
}

// lookOn completes a look that has found f.
func (n *Node) lookOn(ctx context.Context, bucket *core.Bucket, key string, opt *core.GetOptions, ask bool, f *remoteFound) (*remoteLook, error) {
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
		l, err := n.lookToRead(ctx, bucket, key, &opt, ask)
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
		body.early, body.reader = l.early, l.reader
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
