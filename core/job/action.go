package job

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
)

// action does a job's work on one object. Its error is tried again if it may
// pass; see run.persist.
type action func(ctx context.Context, b core.BucketID, f *core.Found, rec *core.Record) (result, error)

// result is how the work on an object ended.
type result struct {
	end end
	out Amount
	why Error
}

type end int

const (
	endDone end = iota
	endSkipped
	endFailed
	endDropped
	endPlanned // counted, in planning
	endLeft    // not counted: the job is not about it
)

// count enters the result into the books.
func (r result) count(b *Books, size int64) {
	switch r.end {
	case endLeft:
		return
	case endPlanned:
		b.Planned.one(size)
		return
	case endDone:
		b.Done.one(size)
	case endSkipped:
		b.Skipped.one(size)
	case endFailed:
		b.Failed.one(size)
	case endDropped:
		b.Dropped.one(size)
	}
	b.Outputs = b.Outputs.Add(r.out)
}

// note returns why a key was not done, false if there is nothing to say.
func (r result) note(key string) (Error, bool) {
	r.why.Key, r.why.Message = key, shortened(r.why.Message)
	return r.why, r.why.Message != ""
}

// codeOf is the machine-readable kind of a failure.
func codeOf(err error) string {
	for _, k := range []struct {
		err  error
		code string
	}{
		{core.ErrCorrupt, "corrupt"},
		{core.ErrNotFound, "not_found"},
		{core.ErrNoSpace, "no_space"},
		{core.ErrPermission, "permission_denied"},
		{core.ErrUnavailable, "unavailable"},
		{core.ErrInvalid, "invalid"},
		{core.ErrThrottled, "throttled"},
		{core.ErrNoSuchBucket, "no_such_bucket"},
	} {
		if errors.Is(err, k.err) {
			return k.code
		}
	}
	return "internal"
}

// Kinds are the kinds of jobs that can be started.
func Kinds() []string {
	return []string{KindCopy, KindETL, KindEvict, KindLRU, KindPrefetch, KindRebalance, KindResilver, KindScrub}
}

// The kinds. Rebalance and resilver are the same act, reconcile, under the
// names that users look for.
const (
	KindCopy      = "copy-bck"
	KindETL       = "etl"
	KindEvict     = "evict"
	KindLRU       = "lru"
	KindPrefetch  = "prefetch"
	KindRebalance = "rebalance"
	KindResilver  = "resilver"
	KindScrub     = "scrub"
)

// action returns what a phase does with each object, and in which buckets.
func (r *run) action(m *core.Map, phase State) (action, []core.BucketID, error) {
	buckets := []core.BucketID{r.spec.FromID}
	if r.spec.FromID == core.SystemBucket {
		buckets = buckets[:0]
		for i := range m.Buckets {
			buckets = append(buckets, m.Buckets[i].ID)
		}
	}
	switch {
	case r.spec.Kind == KindLRU && phase == Verifying:
		return countObject, r.lruBuckets(m), nil
	case r.spec.Kind == KindLRU:
		buckets = r.lruBuckets(m)
		return r.lru(m, buckets, phase), buckets, nil
	case phase == Planning:
		return countObject, buckets, nil
	case phase == Verifying && r.spec.writes():
		return r.countCopied, []core.BucketID{r.spec.ToID}, nil
	case phase == Verifying:
		return countObject, buckets, nil
	case r.spec.Kind == KindCopy:
		act, err := r.copier(m)
		return act, buckets, err
	case r.spec.Kind == KindETL:
		act, err := r.transformer(m)
		return act, buckets, err
	case r.spec.Kind == KindEvict:
		act, err := r.evicter(m)
		return act, buckets, err
	case r.spec.Kind == KindScrub:
		return r.repair(true), buckets, nil
	case r.spec.Kind == KindRebalance, r.spec.Kind == KindResilver:
		return r.repair(false), buckets, nil
	}
	return nil, nil, fmt.Errorf("job kind %q: %w", r.spec.Kind, errors.ErrUnsupported)
}

func countObject(context.Context, core.BucketID, *core.Found, *core.Record) (result, error) {
	return result{end: endPlanned}, nil
}

// countCopied counts what the job has written, at its destination.
func (r *run) countCopied(_ context.Context, _ core.BucketID, _ *core.Found, rec *core.Record) (result, error) {
	if rec.Origin.Job == r.spec.ID {
		return result{end: endPlanned}, nil
	}
	return result{end: endDropped}, nil
}

// copier copies objects from one bucket to another.
func (r *run) copier(m *core.Map) (action, error) {
	from, to := m.Bucket(r.spec.FromID), m.Bucket(r.spec.ToID)
	if from == nil || to == nil {
		return nil, fmt.Errorf("a bucket of the job was removed: %w", core.ErrNoSuchBucket)
	}
	latest := r.following(*from, to, r.copyListed(*from, *to))
	return func(ctx context.Context, _ core.BucketID, f *core.Found, rec *core.Record) (result, error) {
		if r.spec.asks() {
			res, _, err := latest(ctx, &item{Key: f.Key, Size: rec.Size})
			return res, err
		}
		source := engine.ContentOf(rec)
		if rec.Remote != nil {
			source = string(rec.Remote.Version)
		}
		res, _, err := r.copyOne(ctx, &engine.CopyTask{From: *from, To: *to, Key: f.Key, Source: source})
		return res, err
	}, nil
}

// about says whether a job is about an object that its selection takes: of a
// remote bucket only what is present counts, and not what is merely known.
func (s *Spec) about(rec *core.Record) bool {
	switch {
	case !rec.MetadataOnly():
		return true
	case s.Kind == KindCopy, s.Kind == KindETL:
		return false
	}
	return s.Kind != KindEvict || !s.KeepMetadata
}

// evicter drops the copies of a remote bucket's objects.
func (r *run) evicter(m *core.Map) (action, error) {
	b := m.Bucket(r.spec.FromID)
	if b == nil {
		return nil, fmt.Errorf("the bucket of the job was removed: %w", core.ErrNoSuchBucket)
	}
	return func(ctx context.Context, _ core.BucketID, f *core.Found, _ *core.Record) (result, error) {
		return r.evictOne(ctx, b, f.Key)
	}, nil
}

func (r *run) evictOne(ctx context.Context, b *core.Bucket, key string) (result, error) {
	const tries = 5
	for i := 0; ; i++ {
		_, err := r.m.o.Node.Evict(ctx, *b, key, core.Version{}, r.spec.KeepMetadata)
		switch {
		case errors.Is(err, core.ErrNotFound):
			return result{}, nil // somebody else dropped it
		case !errors.Is(err, core.ErrConflict):
			return result{}, err
		case i == tries:
			return result{end: endSkipped, why: Error{Code: codeSkipped, Message: "it is being written"}}, nil
		}
	}
}

// copyOne copies an object as a task says, which it completes, and returns how many
// bytes the copy has.
func (r *run) copyOne(ctx context.Context, t *engine.CopyTask) (result, int64, error) {
	began := r.m.o.Clock.Now()
	t.ToKey, t.Job, t.Started, t.NoCache = r.spec.destKey(t.Key), r.spec.ID, r.spec.Created, r.spec.NoCache
	if r.spec.Kind == KindCopy && t.From.ID == t.To.ID && t.ToKey == t.Key {
		return result{end: endSkipped, why: Error{Code: codeSkipped, Message: "it would be copied onto itself"}}, 0, nil
	}
	end, out, why, err := r.m.o.Node.CopyObject(ctx, t)
	r.worked("copy", began, out.Size, err)
	switch {
	case err != nil:
		return result{}, 0, err
	case end == engine.CopySkipped:
		return result{end: endSkipped, why: Error{Code: codeSkipped, Message: why}}, 0, nil
	}
	return result{out: Amount{1, out.Size}}, out.Size, nil
}

// worked tells whoever wants to know of every object.
func (r *run) worked(op string, began time.Time, bytes int64, err error) {
	if r.m.o.OnObject != nil {
		r.m.o.OnObject(op, began, bytes, err)
	}
}

// repair brings objects to where they should be.
func (r *run) repair(deep bool) action {
	return func(ctx context.Context, b core.BucketID, f *core.Found, _ *core.Record) (result, error) {
		return result{}, r.m.o.Node.Repair(ctx, b, f, deep)
	}
}
