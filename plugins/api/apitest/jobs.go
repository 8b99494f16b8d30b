package apitest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/server"
)

// Jobs are the cluster's jobs. A job of kind copy-bck copies at once, unless
// jobs are held; then the test moves it.
type Jobs struct {
	buckets *Buckets

	mu      sync.Mutex
	held    bool
	jobs    []*api.Job
	tokens  map[string]*api.Job
	errors  map[string][]api.JobError
	changed chan struct{} // closed at the next change
}

func newJobs(b *Buckets) *Jobs {
	return &Jobs{buckets: b, tokens: make(map[string]*api.Job), errors: make(map[string][]api.JobError), changed: make(chan struct{})}
}

// Hold keeps jobs that are started from moving by themselves.
func (j *Jobs) Hold() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.held = true
}

// Change changes the last job that was started, and wakes up who waits for it.
func (j *Jobs) Change(change func(*api.Job)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	change(j.jobs[len(j.jobs)-1])
	j.wake()
}

// Fail adds an object that failed to the last job.
func (j *Jobs) Fail(e api.JobError, bytes int64) {
	j.Change(func(job *api.Job) {
		job.Failed = job.Failed.Add(api.Amount{Objects: 1, Bytes: bytes})
		j.errors[job.ID] = append(j.errors[job.ID], e)
	})
}

// AwaitStart returns when so many jobs have been started, or ctx has ended.
func (j *Jobs) AwaitStart(ctx context.Context, n int) error {
	for {
		j.mu.Lock()
		started, changed := len(j.jobs), j.changed
		j.mu.Unlock()
		if started >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (j *Jobs) wake() {
	close(j.changed)
	j.changed = make(chan struct{})
}

// JobKinds implements server.JobService.
func (j *Jobs) JobKinds(context.Context) ([]api.JobKind, error) {
	pair := []api.JobArg{{Name: api.ArgFrom, Type: "bucket"}, {Name: api.ArgTo, Type: "bucket"}}
	return []api.JobKind{
		{Kind: "copy-bck", Summary: "copies a bucket", Args: pair},
		{Kind: "evict", Summary: "drops copies", Args: pair[:1]},
		{Kind: "rebalance", Summary: "moves data to its places"},
		{Kind: "retry", Summary: "repeats what failed in a job", Args: []api.JobArg{{Name: "job", Type: "job"}}},
	}, nil
}

// StartJob implements server.JobService.
func (j *Jobs) StartJob(ctx context.Context, spec api.JobSpec) (api.Job, error) {
	kinds, _ := j.JobKinds(ctx)
	known := false
	for _, k := range kinds {
		known = known || k.Kind == spec.Kind
	}
	if !known {
		return api.Job{}, api.NotBuilt("jobs of kind " + spec.Kind)
	}
	planned, err := j.plan(ctx, spec)
	if err != nil {
		return api.Job{}, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if old, ok := j.tokens[spec.ClientToken]; ok && spec.ClientToken != "" {
		return *old, nil
	}
	now := time.Now().UTC() //nolint:forbidigo // for tests only
	job := &api.Job{
		ID: "J" + strconv.Itoa(len(j.jobs)+1), Kind: spec.Kind, State: api.JobRunning, From: spec.From, To: spec.To,
		Planned: &planned, Started: &now, Spec: &spec,
	}
	if !j.held {
		job.State, job.Done, job.Outputs, job.Ended = api.JobDone, planned, planned, &now
	}
	j.jobs = append(j.jobs, job)
	j.tokens[spec.ClientToken] = job
	j.wake()
	return *job, nil
}

// PreviewJob implements server.JobService.
func (*Jobs) PreviewJob(context.Context, api.JobSpec) (api.Preview, error) {
	return api.Preview{}, api.NotBuilt("previews")
}

// plan counts a job's objects, and refuses it as the cluster would.
func (j *Jobs) plan(ctx context.Context, spec api.JobSpec) (sum api.Amount, err error) {
	if spec.From == "" {
		return sum, nil
	}
	u, err := core.ParseURI(spec.From)
	if err != nil {
		return sum, err
	}
	all := 0
	for o, err := range j.buckets.Objects(ctx, u.Bucket, server.ListOptions{Prefix: spec.Prefix}) {
		if err != nil {
			return sum, err
		}
		all++
		if o.Cached || spec.All {
			sum = sum.Add(api.Amount{Objects: 1, Bytes: o.Size})
		}
	}
	if sum.Objects == 0 && all > 0 {
		return sum, api.Refused(fmt.Sprintf("0 of %d objects are present; use --all", all), "")
	}
	return sum, nil
}

// Jobs implements server.JobService.
func (j *Jobs) Jobs(_ context.Context, f server.JobFilter) ([]api.Job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []api.Job
	for _, known := range slices.Backward(j.jobs) {
		job := *known
		if (f.All || !job.State.Ended()) && (f.Kind == "" || job.Kind == f.Kind) && (f.Bucket == "" || job.From == f.Bucket || job.To == f.Bucket) {
			out = append(out, job)
		}
	}
	return out, nil
}

func (j *Jobs) find(id string) (*api.Job, error) {
	for _, job := range j.jobs {
		if job.ID == id {
			return job, nil
		}
	}
	return nil, fmt.Errorf("job %s: %w", id, core.ErrNotFound)
}

// AwaitJob implements server.JobService.
func (j *Jobs) AwaitJob(ctx context.Context, id string) (api.Job, error) {
	for {
		j.mu.Lock()
		job, err := j.find(id)
		if err != nil {
			j.mu.Unlock()
			return api.Job{}, err
		}
		now, changed := *job, j.changed
		j.mu.Unlock()
		if now.State.Ended() {
			return now, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return now, nil
		}
	}
}

// StopJob implements server.JobService.
func (j *Jobs) StopJob(_ context.Context, id string) (api.Job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	job, err := j.find(id)
	if err != nil {
		return api.Job{}, err
	}
	if !job.State.Ended() {
		job.State = api.JobStopped
		j.wake()
	}
	return *job, nil
}

// JobErrors implements server.JobService.
func (j *Jobs) JobErrors(_ context.Context, id, after string, max int) (api.JobErrors, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.find(id); err != nil {
		return api.JobErrors{}, err
	}
	var out api.JobErrors
	for _, e := range j.errors[id] {
		if e.Key <= after && after != "" {
			continue
		}
		if len(out.Errors) == max {
			out.More = true
			break
		}
		out.Errors = append(out.Errors, e)
	}
	return out, nil
}
