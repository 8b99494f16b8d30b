package job

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
	"github.com/shoalstore/shoal/core/etl"
)

// pin is the version of a transform that this node's share of a job keeps ready.
type pin struct {
	mu sync.Mutex
	p  *etl.Pinned
}

// get returns the version, and gets it ready first if it is not.
func (p *pin) get(ctx context.Context, r *run) (*etl.Pinned, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.p != nil {
		return p.p, nil
	}
	if r.m.o.Transforms == nil || r.spec.Transform == nil {
		return nil, fmt.Errorf("this node runs no transforms: %w", errors.ErrUnsupported)
	}
	var err error
	p.p, err = r.m.o.Transforms.Pin(ctx, r.spec.Transform)
	return p.p, err
}

// release gives the version up, when nothing runs any more.
func (p *pin) release(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.p != nil {
		p.p.Release(ctx)
		p.p = nil
	}
}

// etlBuckets are the buckets of an etl job; the destination is the zero value where
// nothing is written.
func (r *run) etlBuckets(m *core.Map) (from, to core.Bucket, err error) {
	f, t := m.Bucket(r.spec.FromID), m.Bucket(r.spec.ToID)
	if f == nil || t == nil && r.spec.writes() {
		return from, to, fmt.Errorf("a bucket of the job was removed: %w", core.ErrNoSuchBucket)
	}
	if from = *f; t != nil {
		to = *t
	}
	return from, to, nil
}

// transformer transforms objects that are present.
func (r *run) transformer(m *core.Map) (action, error) {
	from, to, err := r.etlBuckets(m)
	if err != nil {
		return nil, err
	}
	latest := r.following(from, &to, r.transformVersion(from, to))
	return func(ctx context.Context, _ core.BucketID, f *core.Found, rec *core.Record) (result, error) {
		if r.spec.asks() {
			res, _, err := latest(ctx, &item{Key: f.Key, Size: rec.Size})
			return res, err
		}
		source := engine.ContentOf(rec)
		if rec.Remote != nil {
			source = string(rec.Remote.Version)
		}
		return r.transformOne(ctx, &engine.CopyTask{From: from, To: to, Key: f.Key, Source: source})
	}, nil
}

// transformListed transforms what was listed.
func (r *run) transformListed(m *core.Map) (listedAction, error) {
	from, to, err := r.etlBuckets(m)
	if err != nil {
		return nil, err
	}
	return r.following(from, &to, r.transformVersion(from, to)), nil
}

// transformVersion transforms an object in the version that was listed.
func (r *run) transformVersion(from, to core.Bucket) listedAction {
	return func(ctx context.Context, it *item) (result, int64, error) {
		res, err := r.transformOne(ctx, &engine.CopyTask{From: from, To: to, Key: it.Key, Source: string(it.Version)})
		return res, it.Size, err
	}
}

// transformOne transforms an object as a task says, which it completes.
func (r *run) transformOne(ctx context.Context, t *engine.CopyTask) (result, error) {
	p, err := r.transform.get(ctx, r)
	if err != nil {
		return result{}, err
	}
	began := r.m.o.Clock.Now()
	t.ToKey, t.Job, t.Started = r.spec.destKey(t.Key), r.spec.ID, r.spec.Created
	t.Transform = r.spec.Transform.Ref().String() + "#" + r.spec.Transform.Version()
	out, err := r.m.o.Node.TransformObject(ctx, &engine.TransformTask{
		CopyTask: *t, Run: p, Inspect: r.spec.Inspect,
		KeyOf: func(ext string) string { return r.spec.destKeyAs(t.Key, ext) },
	})
	r.worked("transform", began, out.Bytes, err)
	if errors.Is(err, etl.ErrBroken) {
		// Nobody knows whether somebody mends it, and jobs end.
		return result{end: endFailed, why: Error{Code: "transform_stopped", Message: fmt.Sprintf("not tried: %v, and `shoal start retry %s` then does this object", err, r.spec.ID)}}, nil
	}
	if err != nil {
		return result{}, err
	}
	res := result{out: Amount{out.Outputs, out.Bytes}}
	switch out.End {
	case engine.CopySkipped:
		res.end, res.why = endSkipped, Error{Code: codeSkipped, Message: out.Why}
	case engine.TransformDropped:
		res.end = endDropped
	case engine.TransformRefused:
		res.end = endFailed
		res.why = refusal(out.Failure, out.Log)
	}
	return res, nil
}

// maxLog is how much of a transform's log an error carries, in bytes.
const maxLog = 1 << 10

// refusal is why a transform failed on an object, with the end of its log.
func refusal(f *core.TransformFailure, log string) Error {
	e := Error{Code: f.Class, Message: f.Message}
	if log = strings.TrimSpace(log); log != "" {
		log = log[max(0, len(log)-maxLog):]
		e.Message += "; its log ends: " + strings.ToValidUTF8(log, "?")
	}
	return e
}
