package job

import (
	"context"
	"fmt"
	"slices"

	"github.com/shoalstore/shoal/core"
)

// KindRetry starts a job again for what failed in it; see [Manager.Retry]. The new
// job is of the kind of the old one.
const KindRetry = "retry"

// retryKinds are the kinds that are worth a retry: the others find by themselves, when
// they are started again, what is still to be done.
func retryKinds() []string { return []string{KindCopy, KindETL, KindEvict, KindPrefetch} }

// Retry starts a job for exactly the objects that failed in one that has ended, with
// the same source, destination and names. Bounds and patience are those of the old job
// where how has none.
func (m *Manager) Retry(ctx context.Context, id string, how Spec) (Job, error) {
	old, err := m.asItIs(ctx, id)
	if err != nil {
		return Job{}, err
	}
	s := old.Spec
	s.Token, s.RetryOf = how.Token, id
	if s.Token != "" {
		s.ID = newID(&s)
		if j, err := m.Get(ctx, s.ID); err == nil {
			return j, nil
		}
	}
	switch {
	case !slices.Contains(retryKinds(), s.Kind):
		return Job{}, fmt.Errorf("%s needs no retry: start it again, it finds what is still to be done: %w", s.Kind, core.ErrInvalid)
	case !old.Status.State.Ended():
		return Job{}, fmt.Errorf("job %s is %s; wait for its end, or stop it: %w", id, old.Status.State, core.ErrConflict)
	}
	failed, _, err := m.failures(ctx, &old, "", 1)
	switch {
	case err != nil:
		return Job{}, err
	case len(failed) == 0:
		return Job{}, fmt.Errorf("no object failed in job %s, which is %s; to do all of it again start it anew: %w", id, old.Status.State, core.ErrConflict)
	}
	for name, bucket := range map[string]core.BucketID{s.From: s.FromID, s.To: s.ToID} {
		if bucket != 0 && m.o.Node.Map().Bucket(bucket) == nil {
			return Job{}, fmt.Errorf("%s was removed since job %s: %w", name, id, core.ErrNoSuchBucket)
		}
	}
	s.Created = m.o.Clock.Now().UTC()
	s.ID = newID(&s)
	s.ContinueOnError = s.ContinueOnError || how.ContinueOnError
	s.DryRun = how.DryRun
	if how.Workers > 0 {
		s.Workers = how.Workers
	}
	if how.ObjectRate > 0 || how.ByteRate > 0 {
		s.ObjectRate, s.ByteRate = how.ObjectRate, how.ByteRate
	}
	if how.Unavailable > 0 {
		s.Unavailable = how.Unavailable
	}
	return m.begin(ctx, &s)
}

// failures reads a page of the objects that failed in a job which has ended.
func (m *Manager) failures(ctx context.Context, j *Job, after string, limit int) ([]Error, bool, error) {
	return m.notes(ctx, j.Spec.ID, j.Status.Errors, after, limit, (*Error).failed)
}

// listFailed lists what failed in the job that this one tries again.
func (r *run) listFailed(ctx context.Context, after string, limit int) (rangeEvent, error) {
	old, err := r.m.Get(ctx, r.spec.RetryOf)
	if err != nil {
		return rangeEvent{}, err
	}
	page, more, err := r.m.failures(ctx, &old, after, limit)
	if err != nil {
		return rangeEvent{}, err
	}
	e := rangeEvent{more: more}
	for i := range page {
		e.items = append(e.items, item{Key: page[i].Key})
		e.next = page[i].Key
	}
	return e, nil
}
