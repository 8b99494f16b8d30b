package engine

import (
	"context"
	"crypto/md5" //nolint:gosec // S3's ETag
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/remote"
)

const (
	// settleAgain is how often a write is made anew that an earlier attempt of the
	// same request was refused for the time being.
	settleAgain = 8
	// settleGap is the longest pause between two questions for an answer: it is
	// remembered for a while only.
	settleGap = 4 * time.Minute
)

// putRemote is Put of a remote bucket.
func (n *Node) putRemote(ctx context.Context, bucket *core.Bucket, key string, st *stored, opt *core.PutOptions) (core.ObjectInfo, error) {
	st.rec.Modified = n.clock.Now().UTC()
	return n.sendThrough(ctx, bucket, key, st, writeIntent(st, opt))
}

// sendThrough writes stored data through. Unless it may have been written, its
// shards go after an error.
func (n *Node) sendThrough(ctx context.Context, bucket *core.Bucket, key string, st *stored, in *remote.Intent) (core.ObjectInfo, error) {
	out, err := n.writeThrough(ctx, bucket, key, in, nil, st.at)
	if err != nil {
		if surelyRefused(err) {
			n.garbage.discard(&st.rec)
		}
		return core.ObjectInfo{}, err
	}
	return answeredObject(bucket, key, &out)
}

// writeIntent is what is to be written, with its data.
func writeIntent(st *stored, opt *core.PutOptions) *remote.Intent {
	rec := st.rec
	if st.data != nil {
		rec.Inline = st.data
	}
	return &remote.Intent{Operation: remote.Write, Request: opt.Request, Conditions: opt.Conditions, Record: &rec}
}

// answeredObject is the object that a write was answered with.
func answeredObject(bucket *core.Bucket, key string, out *outcome) (core.ObjectInfo, error) {
	rec, err := core.DecodeRecord(out.answer)
	if err != nil {
		return core.ObjectInfo{}, fmt.Errorf("answer to the write of %q: %w", key, err)
	}
	return info(bucket, key, rec, out.version), nil
}

// deleteRemote is Delete of a remote bucket.
func (n *Node) deleteRemote(ctx context.Context, bucket *core.Bucket, key string, c core.Conditions, id core.RequestID) error {
	_, err := n.writeThrough(ctx, bucket, key, &remote.Intent{Operation: remote.Remove, Request: id, Conditions: c}, nil, 0)
	return err
}

// writeThrough has the owner of a key's slot write to the remote, and waits until
// that has ended. The data was stored at the given time, 0 for no data.
func (n *Node) writeThrough(ctx context.Context, bucket *core.Bucket, key string, in *remote.Intent, checks []check, at core.Instant) (outcome, error) {
	if _, err := n.remote(bucket); err != nil {
		return outcome{}, err
	}
	again := !in.Request.IsZero()
	if !again {
		in.Request = core.NewRequestID()
	}
	asked := in.Request
	for i := 0; ; i++ {
		out, first, err := n.settle(ctx, bucket, key, in, checks, at)
		// What was refused for the time being before this call is tried again,
		// under an id that follows from the first.
		if !first || !again || i == settleAgain || !forNow(err) {
			return out, err
		}
		sum := sha256.Sum256(append(asked[:], byte(i)))
		copy(in.Request[:], sum[:])
	}
}

// forNow says whether a write did not take place and may later.
func forNow(err error) bool {
	return (errors.Is(err, core.ErrUnavailable) || errors.Is(err, core.ErrThrottled)) && !errors.Is(err, core.ErrUnknownOutcome)
}

// settle asks the owner, whoever it is, until the write has ended. first says
// that the first answer said so already.
func (n *Node) settle(ctx context.Context, bucket *core.Bucket, key string, in *remote.Intent, checks []check, at core.Instant) (out outcome, first bool, err error) {
	m := n.mutation(bucket, key, in.Request)
	m.checks = checks
	m.entry.Rows = []core.Row{{RowKey: intentKey(objectName{bucket.ID, key}), Value: remote.AppendIntent(nil, in)}}
	req, err := appendMutation(nil, m)
	if err != nil {
		return outcome{}, false, err
	}
	for i := 0; ; i++ {
		asked := n.clock.Boot()
		if at != 0 && asked.Sub(at) > commitWithin {
			return outcome{}, false, fmt.Errorf("%q was stored more than %v ago and not written: %w", key, commitWithin, core.ErrUnknownOutcome)
		}
		var resp []byte
		resp, err = n.call(ctx, m.slot, methodSettle, req)
		if err != nil {
			if i > 0 || retryable(err) || ctx.Err() != nil {
				err = fmt.Errorf("write of %q: %w: %w", key, core.ErrUnknownOutcome, err)
			}
			return outcome{}, false, err
		}
		out, done, err := decodeSettled(resp)
		if done || err != nil {
			return out, i == 0, err
		}
		if n.clock.Boot().Sub(asked) > settleGap {
			return outcome{}, false, fmt.Errorf("write of %q: nobody asked for its answer for %v: %w", key, settleGap, core.ErrUnknownOutcome)
		}
	}
}

// completeRemote ends a multipart upload to a remote bucket.
func (n *Node) completeRemote(ctx context.Context, bucket *core.Bucket, key string, st *stored, m *mutation, opt *core.PutOptions) (core.ObjectInfo, error) {
	rec := st.rec
	in := &remote.Intent{Operation: remote.Write, Request: m.entry.Request, Conditions: opt.Conditions, Record: &rec}
	out, err := n.writeThrough(ctx, bucket, key, in, m.checks, 0)
	if err != nil {
		return core.ObjectInfo{}, err
	}
	return answeredObject(bucket, key, &out)
}

// writable says whether a bucket's remote takes writes at all, before a body is
// read. Shoal's own buckets do.
func (n *Node) writable(bucket *core.Bucket) error {
	if !bucket.Name.Remote() {
		return nil
	}
	b, err := n.remote(bucket)
	if err == nil && b.client.Abilities().ReadOnly {
		err = fmt.Errorf("bucket %s is only read: %w", bucket.Name, errors.ErrUnsupported)
	}
	return err
}

// plainETag has the MD5 of what is stored computed: by it the remote's object is
// recognised.
func plainETag(b *core.Bucket) *core.Bucket {
	plain := *b
	plain.Policy.ETag = "md5"
	return &plain
}

// copyThrough writes a copy to a remote bucket.
func (n *Node) copyThrough(ctx context.Context, to *core.Bucket, key string, st *stored, src *core.Record, opt *core.CopyOptions) (core.ObjectInfo, error) {
	sum, err := hex.DecodeString(st.rec.ETag)
	describeCopy(&st.rec, src, opt)
	if o := opt.Put.Origin; o.Job != "" {
		if st.rec.Meta == nil {
			st.rec.Meta = map[string]string{}
		}
		st.rec.Meta[originMeta] = originMark(o)
	}
	st.rec.Modified = n.clock.Now().UTC()
	in := writeIntent(st, &opt.Put)
	in.Repeatable = opt.Put.Origin.Job != "" // what it wrote is known by its mark
	if err == nil && len(sum) == md5.Size {
		in.Sums = append(in.Sums, remote.MD5Sum(sum))
	}
	return n.sendThrough(ctx, to, key, st, in)
}

// forgoing refuses to change parts of which an object is being made, with their
// key locked.
func (w *write) forgoing(ctx context.Context, old *core.Row) error {
	if old.Space != core.SpacePart || w.m.task {
		return nil
	}
	b := w.node.driver.effect.Load().Bucket(old.Bucket)
	if b == nil || !b.Name.Remote() {
		return nil
	}
	row, err := w.node.rowAt(ctx, w.m.slot, intentKey(objectName{old.Bucket, old.Key}), &w.reading, nil)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	mine, theirs := map[location]bool{}, map[location]bool{}
	if in := recordOf(&row); in != nil {
		locations(in, theirs)
	}
	if part := recordOf(old); part != nil {
		locations(part, mine)
	}
	for l := range mine {
		if theirs[l] {
			return fmt.Errorf("upload of %q: it is being completed: %w", old.Key, core.ErrConflict)
		}
	}
	return nil
}
