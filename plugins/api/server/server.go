// Package server is the HTTP side of package api: it reads requests, calls a
// [Service] and writes answers. It knows neither keys nor signatures; whoever
// mounts it checks those first.
//
//	mux.Handle(api.Prefix+"/", authenticated(server.New(service, log)))
package server

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// Limits of requests.
const (
	maxBody = 64 << 20 // a transform's module is the largest
	maxWait = time.Minute
	maxPage = 1000
)

// ListOptions say which objects to list. A Max of 0 is no bound.
type ListOptions struct {
	Prefix, After string
	Max           int
	Presence      api.Presence
	// NamesOnly says that nothing else of the objects will be used.
	NamesOnly bool
}

// SummaryOptions say what to count.
type SummaryOptions struct {
	// Presence api.Cached leaves the remote alone.
	Presence api.Presence
	// All counts what the remote has, whatever that costs; otherwise it is
	// counted where that costs a few requests.
	All bool
	// After, if not "", counts only what the remote has above that name: what is
	// present was counted before.
	After string
}

// JobFilter selects jobs.
type JobFilter struct {
	Kind, Bucket string
	All          bool
}

// Services are the parts of the interface. A part that is nil answers that it is
// not built yet. Their errors are api errors or wrap core's sentinels. Calls may
// be repeated by clients; see package api.
type Services struct {
	Cluster     ClusterService
	Buckets     BucketService
	Jobs        JobService
	Performance PerformanceService
	Transforms  TransformService
}

// ClusterService is about nodes, disks and the map.
type ClusterService interface {
	Cluster(ctx context.Context) (api.Cluster, error)
	// AwaitHealthy returns once the cluster is healthy, or, without an error,
	// the state as it is when ctx's deadline is reached.
	AwaitHealthy(ctx context.Context) (api.Cluster, error)
	Nodes(ctx context.Context) ([]api.Node, error)
	Node(ctx context.Context, id core.NodeID) (api.Node, error)
	SetNode(ctx context.Context, id core.NodeID, p api.Placement) (api.Node, error)
	NodeAction(ctx context.Context, id core.NodeID, a api.NodeAction) (api.Node, error)
	// Disks lists the disks of a node, of all for "".
	Disks(ctx context.Context, node core.NodeID) ([]api.Disk, error)
	Disk(ctx context.Context, node core.NodeID, disk string) (api.Disk, error)
	SetDisk(ctx context.Context, node core.NodeID, disk string, p api.Placement) (api.Disk, error)
	DiskAction(ctx context.Context, node core.NodeID, disk string, a api.DiskAction) (api.Disk, error)
	Map(ctx context.Context) (*core.Map, error)
}

// BucketService is about buckets and what is in them. A remote bucket that is
// named for the first time is made known to the cluster, if it is accessible.
type BucketService interface {
	// Buckets lists those of a provider, of all for "", in order of URI; with all
	// also those that the cluster's accounts at remotes may list.
	Buckets(ctx context.Context, provider core.Provider, all bool) (api.Buckets, error)
	Bucket(ctx context.Context, b core.BucketName) (api.Bucket, error)
	// Resolve reads a URI, of which file:///path is by the servers' configuration.
	Resolve(ctx context.Context, uri string) (api.Resolved, error)
	CreateBucket(ctx context.Context, b core.BucketName, in api.CreateBucket) (api.Bucket, error)
	SetBucket(ctx context.Context, b core.BucketName, in api.SetBucket) (api.Bucket, error)
	// DeleteBucket removes an empty bucket. A remote one is forgotten, with all
	// that is present of it; nothing is removed at the remote.
	DeleteBucket(ctx context.Context, b core.BucketName) error
	// Summary counts. It calls tell now and then while it does; see
	// [api.SummaryPart].
	Summary(ctx context.Context, b core.BucketName, o SummaryOptions, tell func(api.SummaryPart)) (api.Summary, error)
	// Objects lists in order of name. An error ends the sequence; one that
	// comes first decides the status of the answer.
	Objects(ctx context.Context, b core.BucketName, o ListOptions) iter.Seq2[api.Object, error]
}

// JobService is about jobs.
type JobService interface {
	JobKinds(ctx context.Context) ([]api.JobKind, error)
	StartJob(ctx context.Context, spec api.JobSpec) (api.Job, error)
	// PreviewJob runs a job's transform on a few objects and writes nothing.
	PreviewJob(ctx context.Context, spec api.JobSpec) (api.Preview, error)
	Jobs(ctx context.Context, f JobFilter) ([]api.Job, error)
	// AwaitJob returns the job once it has ended, or, without an error, as it
	// is when ctx's deadline is reached.
	AwaitJob(ctx context.Context, id string) (api.Job, error)
	StopJob(ctx context.Context, id string) (api.Job, error)
	JobErrors(ctx context.Context, id, after string, max int) (api.JobErrors, error)
}

// PerformanceService is about what the nodes have done of late.
type PerformanceService interface {
	Performance(ctx context.Context) (api.Performance, error)
}

// TransformService is about transforms.
type TransformService interface {
	Transforms(ctx context.Context) ([]api.Transform, error)
	Transform(ctx context.Context, name string) (api.Transform, error)
	PutTransform(ctx context.Context, t api.Transform) (api.Transform, error)
	DeleteTransform(ctx context.Context, name string) error
	// TransformAction starts or stops a transform.
	TransformAction(ctx context.Context, name, action string) (api.Transform, error)
	TransformErrors(ctx context.Context, name, job string) ([]api.JobError, error)
	TransformLogs(ctx context.Context, name string) ([]api.TransformLog, error)
}

// New returns the handler of everything below api.Prefix.
func New(s Services, log *slog.Logger) http.Handler {
	h := handler{s: s, log: log, mux: http.NewServeMux()}
	h.part(s.Cluster != nil, "the interface to nodes and disks", h.clusterRoutes, api.ClusterPath, api.NodesPath, api.DisksPath, api.MapPath)
	h.part(s.Buckets != nil, "the interface to buckets", h.bucketRoutes, api.BucketsPath)
	h.part(s.Jobs != nil, "jobs", h.jobRoutes, api.JobsPath)
	h.part(s.Performance != nil, "performance figures", h.performanceRoutes, api.PerformancePath)
	h.part(s.Transforms != nil, "transforms", h.transformRoutes, api.TransformsPath)
	h.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		h.fail(w, r, &api.Error{Code: api.CodeNotFound, Message: fmt.Sprintf("%s %s: no such resource", r.Method, r.URL.Path)})
	})
	return h.mux
}

type handler struct {
	s   Services
	log *slog.Logger
	mux *http.ServeMux
}

// part mounts the routes of a part, or what says that it is not there.
func (h handler) part(there bool, what string, routes func(), paths ...string) {
	if there {
		routes()
		return
	}
	missing := func(w http.ResponseWriter, r *http.Request) { h.fail(w, r, api.NotBuilt(what)) }
	for _, p := range paths {
		h.mux.HandleFunc(p, missing)
		h.mux.HandleFunc(p+"/", missing)
	}
}

// answer is what a route does: its result goes as JSON, nil as no content.
type answer func(r *http.Request) (any, error)

func (h handler) get(path string, a answer)    { h.route(http.MethodGet, path, a) }
func (h handler) post(path string, a answer)   { h.route(http.MethodPost, path, a) }
func (h handler) put(path string, a answer)    { h.route(http.MethodPut, path, a) }
func (h handler) patch(path string, a answer)  { h.route(http.MethodPatch, path, a) }
func (h handler) remove(path string, a answer) { h.route(http.MethodDelete, path, a) }

func (h handler) route(method, path string, a answer) {
	h.mux.HandleFunc(method+" "+path, func(w http.ResponseWriter, r *http.Request) {
		out, err := a(r)
		h.reply(w, r, out, err)
	})
}

// reply answers with a document, with nothing if out is nil, or with an error.
func (h handler) reply(w http.ResponseWriter, r *http.Request, out any, err error) {
	if err != nil {
		h.fail(w, r, err)
		return
	}
	if out == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	body, err := json.Marshal(out)
	if err != nil {
		h.fail(w, r, fmt.Errorf("encode the answer: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if _, err := w.Write(body); err != nil {
		h.log.DebugContext(r.Context(), "answer not delivered", "path", r.URL.Path, "err", err)
	}
}

func (h handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := api.FromError(err)
	if e.Code == api.CodeInternal || e.Code == api.CodeCorrupt {
		h.log.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	body, err := json.Marshal(api.ErrorBody{Error: e})
	if err != nil {
		h.log.ErrorContext(r.Context(), "error not encoded", "err", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Status())
	if _, err := w.Write(body); err != nil {
		h.log.DebugContext(r.Context(), "answer not delivered", "path", r.URL.Path, "err", err)
	}
}

// read reads a request's JSON. Unknown fields are refused: they would be wishes
// that nobody fulfils.
func read[T any](r *http.Request) (in T, err error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return in, fmt.Errorf("read the request: %w", err)
	}
	if len(body) > maxBody {
		return in, fmt.Errorf("the request has more than %d bytes: %w", maxBody, core.ErrTooLarge)
	}
	if len(body) == 0 {
		return in, nil
	}
	return in, strict(body, &in)
}

func bucketName(r *http.Request) (core.BucketName, error) {
	b := core.BucketName{Provider: core.Provider(r.PathValue("provider")), Name: r.PathValue("bucket")}
	u, err := core.ParseURI(b.String())
	if err != nil {
		return b, err
	}
	if u.Bucket != b || u.Key != "" {
		return b, fmt.Errorf("%q is not a bucket: %w", b, core.ErrInvalid)
	}
	return b, nil
}

func boolean(r *http.Request, name string) (bool, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return false, nil
	}
	v, err := strconv.ParseBool(s)
	if err != nil {
		return false, fmt.Errorf("%s=%s: want true or false: %w", name, s, core.ErrInvalid)
	}
	return v, nil
}

func integer(r *http.Request, name string, otherwise, most int) (int, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > most {
		return 0, fmt.Errorf("%s=%s: want 0 to %d: %w", name, s, most, core.ErrInvalid)
	}
	return n, nil
}

func presence(r *http.Request) (api.Presence, error) {
	switch p := api.Presence(r.URL.Query().Get("presence")); p {
	case api.AnyPresence, api.Cached, api.NotCached:
		return p, nil
	default:
		return "", fmt.Errorf("presence=%s: want %s or %s: %w", p, api.Cached, api.NotCached, core.ErrInvalid)
	}
}

// patience is how long the request says that it waits for an event.
func patience(r *http.Request) (time.Duration, error) {
	s := r.URL.Query().Get("wait")
	if s == "" {
		s = "0"
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("wait=%s: want a duration such as 20s: %w", s, core.ErrInvalid)
	}
	return min(d, maxWait), nil
}
