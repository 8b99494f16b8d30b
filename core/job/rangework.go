package job

import (
	"context"
	"errors"
	"fmt"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
)

// listedAction does a job's work on one object that was listed, and returns the
// object's size. Its error is tried again if it may pass; see run.persist.
type listedAction func(ctx context.Context, it *item) (result, int64, error)

// listedAction returns what the job does with each object.
func (r *run) listedAction(m *core.Map) (listedAction, error) {
	from := m.Bucket(r.spec.FromID)
	if from == nil {
		return nil, fmt.Errorf("bucket %s: %w", r.spec.From, core.ErrNoSuchBucket)
	}
	switch r.spec.Kind {
	case KindEvict:
		return func(ctx context.Context, it *item) (result, int64, error) {
			res, err := r.evictOne(ctx, from, it.Key)
			return res, 0, err
		}, nil
	case KindPrefetch:
		return r.checked(r.following(*from, nil, r.prefetch(*from))), nil
	case KindETL:
		one, err := r.transformListed(m)
		if err != nil {
			return nil, err
		}
		return r.checked(one), nil
	case KindCopy:
		to := m.Bucket(r.spec.ToID)
		if to == nil {
			return nil, fmt.Errorf("bucket %s: %w", r.spec.To, core.ErrNoSuchBucket)
		}
		return r.checked(r.following(*from, to, r.copyListed(*from, *to))), nil
	}
	return nil, fmt.Errorf("job kind %q over what is listed: %w", r.spec.Kind, errors.ErrUnsupported)
}

// checked refuses keys that the cluster cannot hold, as failures of theirs.
func (r *run) checked(act listedAction) listedAction {
	return func(ctx context.Context, it *item) (result, int64, error) {
		if err := core.ValidateKey(it.Key); err != nil {
			return result{end: endFailed, why: Error{Key: it.Key, Code: codeOf(err), Message: err.Error()}}, it.Size, nil
		}
		return act(ctx, it)
	}
}

// lookAt looks whether an object at the destination was written by the job: done. What
// is of others is dropped.
func (r *run) lookAt(to core.Bucket) listedAction {
	return func(ctx context.Context, it *item) (result, int64, error) {
		ours, err := r.m.o.Node.WroteCopy(ctx, to, it.Key, it.Version, r.spec.ID)
		if err != nil || ours {
			return result{}, it.Size, err
		}
		return result{end: endDropped}, it.Size, nil
	}
}

func (r *run) prefetch(from core.Bucket) listedAction {
	return func(ctx context.Context, it *item) (result, int64, error) {
		began := r.m.o.Clock.Now()
		end, size, why, err := r.m.o.Node.Prefetch(ctx, from, it.Key, string(it.Version))
		r.worked("prefetch", began, size, err)
		size = max(size, it.Size)
		if err != nil || end != engine.CopySkipped {
			return result{}, size, err
		}
		code := codeSkipped
		if why == engine.PrefetchPresent {
			code = codePresent
		}
		return result{end: endSkipped, why: Error{Code: code, Message: why}}, size, nil
	}
}

func (r *run) copyListed(from, to core.Bucket) listedAction {
	return func(ctx context.Context, it *item) (result, int64, error) {
		res, out, err := r.copyOne(ctx, &engine.CopyTask{From: from, To: to, Key: it.Key, Source: string(it.Version)})
		return res, max(it.Size, out), err
	}
}
