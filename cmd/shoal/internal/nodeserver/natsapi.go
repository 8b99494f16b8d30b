package nodeserver

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	apiserver "github.com/shoalstore/shoal/plugins/api/server"
)

// serveBus offers the same interface as HTTP over NATS request subjects.
func (s *server) serveBus(ctx context.Context) error {
	services := []bus.Service{s.clusterSubjects(), s.jobSubjects(), s.bucketSubjects(), s.etlSubjects()}
	errs := make(chan error, len(services))
	for _, service := range services {
		go func() { errs <- s.bus.Serve(ctx, service) }()
	}
	var first error
	for range services {
		if err := <-errs; first == nil {
			first = err
		}
	}
	return first
}

const serviceVersion = "1.0.0"

func (s *server) clusterSubjects() bus.Service {
	return bus.Service{
		Name: "shoal-cluster", Version: serviceVersion, Description: "Nodes, disks and health of the cluster",
		Metadata: map[string]string{"node": s.cfg.Node.Name},
		Endpoints: []bus.Endpoint{{Name: "status", Subject: "shoal.cluster.status", Handler: func(ctx context.Context, _ []byte) (any, error) {
			return clusterService{s}.Cluster(ctx)
		}}},
	}
}

func (s *server) jobSubjects() bus.Service {
	jobs := jobService{s}
	return bus.Service{
		Name: "shoal-job", Version: serviceVersion, Description: "Start, stop, wait for and show jobs",
		Metadata: map[string]string{"node": s.cfg.Node.Name},
		Endpoints: []bus.Endpoint{
			{Name: "start", Subject: "shoal.job.start", Handler: jsonHandler(jobs.StartJob)},
			{Name: "stop", Subject: "shoal.job.stop", Handler: jsonHandler(func(ctx context.Context, r jobRequest) (any, error) { return jobs.StopJob(ctx, r.ID) })},
			{Name: "status", Subject: "shoal.job.status", Handler: jsonHandler(func(ctx context.Context, r jobRequest) (any, error) {
				done, cancel := context.WithCancel(ctx)
				cancel()
				return jobs.AwaitJob(done, r.ID)
			})},
			{Name: "wait", Subject: "shoal.job.wait", Handler: jsonHandler(func(ctx context.Context, r jobRequest) (any, error) {
				wait := 20 * time.Second
				if r.Timeout != "" {
					d, err := time.ParseDuration(r.Timeout)
					if err != nil {
						return nil, fmt.Errorf("timeout: %w: %w", core.ErrInvalid, err)
					}
					wait = d
				}
				ctx, cancel := context.WithTimeout(ctx, wait)
				defer cancel()
				return jobs.AwaitJob(ctx, r.ID)
			})},
			{Name: "list", Subject: "shoal.job.list", Handler: jsonHandler(func(ctx context.Context, f listRequest) (any, error) {
				all, err := jobs.Jobs(ctx, apiserver.JobFilter{Kind: f.Kind, Bucket: f.Bucket, All: f.All})
				return api.Jobs{Jobs: all}, err
			})},
		},
	}
}

// jobRequest names a job; Timeout, a duration, bounds a wait.
type jobRequest struct {
	ID      string `json:"id"`
	Timeout string `json:"timeout,omitempty"`
}

// listRequest selects jobs; those that have ended are shown with all.
type listRequest struct {
	Kind   string `json:"kind,omitempty"`
	Bucket string `json:"bucket,omitempty"`
	All    bool   `json:"all,omitempty"`
}

// jsonHandler decodes a request; an empty one is the zero value.
func jsonHandler[In, Out any](f func(context.Context, In) (Out, error)) bus.Handler {
	return func(ctx context.Context, req []byte) (any, error) {
		var in In
		if len(req) > 0 {
			if err := json.Unmarshal(req, &in); err != nil {
				return nil, fmt.Errorf("request: %w: %w", core.ErrInvalid, err)
			}
		}
		return f(ctx, in)
	}
}
