package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/shoalstore/shoal/core"
)

// originMeta is the user metadata by which a job finds again what it wrote to a
// remote.
const originMeta = "copied-by-shoal"

// originMark is its value: the job, and what was copied.
func originMark(o core.Origin) string {
	sum := sha256.Sum256([]byte(o.Key + "\x00" + o.Version + "\x00" + o.Transform))
	return o.Job + ":" + hex.EncodeToString(sum[:16])
}

// copyToRemote is CopyObject to a remote bucket. The remote is asked what it has
// only if it has something.
func (n *Node) copyToRemote(ctx context.Context, t *CopyTask) (CopyEnd, core.ObjectInfo, string, error) {
	fail := func(err error) (CopyEnd, core.ObjectInfo, string, error) { return 0, core.ObjectInfo{}, "", err }
	b, err := n.remote(&t.To)
	if err != nil {
		return fail(err)
	}
	mark := originMark(t.origin())
	f, err := n.remoteRow(ctx, n.SlotOf(t.To.ID, t.ToKey), objectName{t.To.ID, t.ToKey}, false)
	if err != nil {
		return fail(err)
	}
	if f.rec != nil && !f.unsettled && f.rec.Meta[originMeta] == mark {
		return CopiedSoFar, info(&t.To, t.ToKey, f.rec, f.row.Version), "", nil
	}
	cond, there := core.Conditions{IfNoneMatch: []string{"*"}}, core.RemoteCondition{Absent: true}
	past := t.NoCache && f.rec == nil && !f.unsettled && b.client.Abilities().PutIf
	for range readTries {
		var out core.ObjectInfo
		var why string
		var err error
		if past {
			out, why, past, err = n.copyOncePast(ctx, t, b, there)
		}
		if !past {
			out, why, err = n.copyOnceToRemote(ctx, t, cond)
		}
		if why != "" {
			return CopySkipped, core.ObjectInfo{}, why, nil
		}
		if err == nil {
			return Copied, out, "", nil
		}
		if !errors.Is(err, core.ErrPrecondition) && !errors.Is(err, core.ErrNotFound) && !errors.Is(err, core.ErrUnknownOutcome) {
			return fail(err)
		}
		o, headed := b.head(ctx, t.ToKey)
		switch {
		case errors.Is(headed, core.ErrNotFound):
			cond, there = core.Conditions{IfNoneMatch: []string{"*"}}, core.RemoteCondition{Absent: true}
			continue
		case headed != nil:
			return fail(errors.Join(err, headed))
		case o.Meta[originMeta] == mark:
			rec := recordOfRemote(&o, t.To.Policy.Scheme)
			return CopiedSoFar, info(&t.To, t.ToKey, &rec, core.Version{}), "", nil
		case o.Modified.After(t.Started) && !strings.HasPrefix(o.Meta[originMeta], t.Job+":"):
			return CopySkipped, core.ObjectInfo{}, copyForeign, nil
		}
		cond, there = core.Conditions{IfMatch: []string{o.ETag}}, core.RemoteCondition{Version: o.Version}
	}
	return fail(fmt.Errorf("copy to %s/%s: others write it all the time: %w", t.To.Name, t.ToKey, core.ErrUnavailable))
}

// copyOnceToRemote writes the copy through under a condition.
func (n *Node) copyOnceToRemote(ctx context.Context, t *CopyTask, c core.Conditions) (core.ObjectInfo, string, error) {
	src, why, err := n.openSource(ctx, t)
	if err != nil || why != "" {
		return core.ObjectInfo{}, why, err
	}
	defer func() { _ = src.Body.Close() }()
	st, err := n.store(ctx, plainETag(&t.To), t.ToKey, src.Body, &core.PutOptions{Size: src.Length}, t.To.Policy.Inline)
	if err != nil {
		return core.ObjectInfo{}, "", err
	}
	out, err := n.copyThrough(ctx, &t.To, t.ToKey, st, &src.Record, &core.CopyOptions{Put: core.PutOptions{Conditions: c, Origin: t.origin()}})
	return out, "", err
}

// copyOncePast writes the copy past the cluster, under a condition; ok says that it
// could do that. What was brought here of the key meanwhile goes.
func (n *Node) copyOncePast(ctx context.Context, t *CopyTask, b *remoteBucket, c core.RemoteCondition) (out core.ObjectInfo, why string, ok bool, err error) {
	o, why, ok, err := n.sendPast(ctx, t, b, c)
	if err != nil || why != "" || !ok {
		return out, why, ok, err
	}
	rec := recordOfRemote(&o, t.To.Policy.Scheme)
	return info(&t.To, t.ToKey, &rec, core.Version{}), "", true, n.outdated(ctx, &t.To, t.ToKey, o.Version)
}

// WroteCopy says whether what a remote lists under a key, in a version, was written by
// a job. The remote is asked only if the cluster does not know.
func (n *Node) WroteCopy(ctx context.Context, bucket core.Bucket, key string, version core.RemoteVersion, job string) (bool, error) {
	f, err := n.remoteRow(ctx, n.SlotOf(bucket.ID, key), objectName{bucket.ID, key}, false)
	if err != nil {
		return false, err
	}
	if f.rec != nil && !f.unsettled && version != "" && remoteVersion(f.rec) == version {
		return jobOf(f.rec) == job, nil
	}
	_, by, _, err := n.copyAt(ctx, &bucket, key)
	return by == job, err
}
