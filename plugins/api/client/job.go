package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/shoalstore/shoal/plugins/api"
)

// JobKinds lists the kinds of jobs that the cluster can start.
func (c *Client) JobKinds(ctx context.Context) ([]api.JobKind, error) {
	var out api.JobKinds
	_, err := c.call(ctx, request{method: http.MethodGet, path: api.JobKindsPath}, nil, &out)
	return out.Kinds, err
}

// StartJob starts a job, once, however often the request has to be repeated.
func (c *Client) StartJob(ctx context.Context, spec api.JobSpec) (out api.Job, err error) {
	if spec.ClientToken == "" {
		spec.ClientToken = uuid.NewString()
	}
	_, err = c.call(ctx, request{method: http.MethodPost, path: api.JobsPath, patience: time.Minute}, spec, &out)
	return out, err
}

// PreviewJob returns what a job that transforms would make of the first objects.
func (c *Client) PreviewJob(ctx context.Context, spec api.JobSpec) (out api.Preview, err error) {
	_, err = c.call(ctx, request{method: http.MethodPost, path: api.PreviewPath, patience: 2 * time.Minute}, spec, &out)
	return out, err
}

// JobFilter selects jobs.
type JobFilter struct {
	Kind   string
	Bucket string // a URI
	All    bool   // also those that have ended
}

// Jobs lists jobs, newest first.
func (c *Client) Jobs(ctx context.Context, f JobFilter) ([]api.Job, error) {
	q := url.Values{}
	if f.Kind != "" {
		q.Set("kind", f.Kind)
	}
	if f.Bucket != "" {
		q.Set("bucket", f.Bucket)
	}
	if f.All {
		q.Set("all", "true")
	}
	var out api.Jobs
	_, err := c.call(ctx, request{method: http.MethodGet, path: api.JobsPath, query: q}, nil, &out)
	return out.Jobs, err
}

// Job describes a job.
func (c *Client) Job(ctx context.Context, id string) (out api.Job, err error) {
	_, err = c.call(ctx, request{method: http.MethodGet, path: api.JobPath(id)}, nil, &out)
	return out, err
}

// StopJob asks a job to stop. The job it returns may not have done so yet.
func (c *Client) StopJob(ctx context.Context, id string) (out api.Job, err error) {
	_, err = c.call(ctx, request{method: http.MethodPost, path: api.JobPath(id) + "/stop"}, nil, &out)
	return out, err
}

// WatchJob waits until the job has ended and returns it. Meanwhile each is told
// of it every refresh, and once at the end. The death of the node that it asks
// delays it.
func (c *Client) WatchJob(ctx context.Context, id string, refresh time.Duration, each func(api.Job)) (api.Job, error) {
	clock := c.o.Clock
	next := clock.Boot() // when each is to be told again; the first answer comes at once
	var last api.Job
	for {
		wait := min(max(next.Sub(clock.Boot()), 0), poll)
		r := request{
			method: http.MethodGet, path: api.JobPath(id), patience: wait, retryFor: watching,
			query: url.Values{"wait": {wait.String()}},
		}
		var job api.Job
		if _, err := c.call(ctx, r, nil, &job); err != nil {
			return last, err
		}
		last = job
		if job.State.Ended() {
			each(job)
			return job, nil
		}
		if now := clock.Boot(); now >= next {
			each(job)
			next = now.Add(max(refresh, minRefresh))
		}
	}
}

// minRefresh keeps a watch from asking all the time.
const minRefresh = 50 * time.Millisecond

// JobErrors lists up to max objects that failed, in order of key.
func (c *Client) JobErrors(ctx context.Context, id, after string, max int) (out api.JobErrors, err error) {
	q := url.Values{"max": {strconv.Itoa(max)}}
	if after != "" {
		q.Set("after", after)
	}
	_, err = c.call(ctx, request{method: http.MethodGet, path: api.JobPath(id) + "/errors", query: q}, nil, &out)
	return out, err
}
