// Package apitest is a cluster for tests of clients: some endpoints on loopback
// ports that serve S3 and the own interface over one object layer in memory.
// Endpoints can be killed, frozen, made unavailable and made to break off, while
// the others go on with the same state.
//
//	f := apitest.New(t, 3)
//	c, err := client.New(client.Options{Endpoints: f.URLs(), AccessKey: apitest.AccessKey, SecretKey: apitest.SecretKey})
//	f.Kill(0)
package apitest

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/memobjects"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/server"
	"github.com/shoalstore/shoal/plugins/s3gateway"
	"github.com/shoalstore/shoal/plugins/s3gateway/sigv4"
)

// The keys of the cluster.
const (
	AccessKey = "shoaldev"
	SecretKey = "shoaldev-secret"
)

// Cluster is the fake.
type Cluster struct {
	Objects *memobjects.Store
	Jobs    *Jobs
	Nodes   *Nodes
	Buckets *Buckets

	endpoints []*endpoint
}

// clock is the machine's.
type clock struct{}

func (clock) Now() time.Time                                  { return time.Now() }                          //nolint:forbidigo // for tests only
func (clock) Boot() core.Instant                              { return core.Instant(time.Now().UnixNano()) } //nolint:forbidigo // for tests only
func (clock) Wait(ctx context.Context, _ time.Duration) error { <-ctx.Done(); return ctx.Err() }

// New starts a cluster of so many endpoints; it ends with the test.
func New(t testing.TB, endpoints int) *Cluster {
	t.Helper()
	c := &Cluster{Objects: memobjects.New(clock{})}
	c.Buckets = &Buckets{objects: c.Objects, remote: make(map[core.BucketName][]api.Object), refused: make(map[core.BucketName]*api.Error)}
	c.Nodes = newNodes(endpoints)
	c.Jobs = newJobs(c.Buckets)
	lookup := func(key string) (string, bool) { return SecretKey, key == AccessKey }
	gateway, err := s3gateway.New(s3gateway.Options{Objects: c.Objects, Lookup: lookup, Clock: clock{}})
	if err != nil {
		t.Fatal(err)
	}
	verifier := sigv4.NewVerifier(sigv4.Options{Lookup: lookup, Now: clock{}.Now})
	own := authenticated(verifier, server.New(server.Services{
		Cluster: c.Nodes, Buckets: c.Buckets, Jobs: c.Jobs, Performance: c.Nodes,
	}, slog.New(slog.DiscardHandler)))
	for i := range endpoints {
		e := newEndpoint(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == api.ReadyPath || r.URL.Path == api.LivePath:
				w.WriteHeader(http.StatusOK)
			case strings.HasPrefix(r.URL.Path, "/-/"):
				own.ServeHTTP(w, r)
			default:
				gateway.ServeHTTP(w, r)
			}
		}))
		c.endpoints = append(c.endpoints, e)
		c.Nodes.setURL(i, e.server.URL)
		t.Cleanup(e.close)
	}
	return c
}

// authenticated lets signed requests through.
func authenticated(v *sigv4.Verifier, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		auth, err := v.Verify(r)
		if err == nil {
			var body *sigv4.Body
			if body, _, err = auth.Body(r); err == nil {
				defer body.Release()
				r.Body = io.NopCloser(body)
			}
		}
		if err != nil {
			w.WriteHeader(http.StatusForbidden)
			_ = json.NewEncoder(w).Encode(api.ErrorBody{Error: &api.Error{Code: api.CodeForbidden, Message: err.Error()}})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// URLs are the endpoints.
func (c *Cluster) URLs() []string {
	var out []string
	for _, e := range c.endpoints {
		out = append(out, e.server.URL)
	}
	return out
}

// Requests is how many requests endpoint i has got.
func (c *Cluster) Requests(i int) int64 { return c.endpoints[i].requests.Load() }

// Kill ends endpoint i: its connections break, new ones are refused.
func (c *Cluster) Kill(i int) { c.endpoints[i].close() }

// Freeze makes endpoint i take requests and answer none, until the test ends.
func (c *Cluster) Freeze(i int) { c.endpoints[i].fault.Store(&fault{freeze: true}) }

// Unavailable makes endpoint i answer the next n requests with 503.
func (c *Cluster) Unavailable(i, n int) {
	f := &fault{}
	f.unavailable.Store(int64(n))
	c.endpoints[i].fault.Store(f)
}

// BreakAfter makes endpoint i break each of the next n answers, or bodies that
// it is sent, after so many bytes.
func (c *Cluster) BreakAfter(i, n int, bytes int64) {
	f := &fault{after: bytes}
	f.breaks.Store(int64(n))
	c.endpoints[i].fault.Store(f)
}

// Corrupt makes endpoint i change a byte of each body of the next n requests, of
// what it gets and of what it sends.
func (c *Cluster) Corrupt(i, n int) {
	f := &fault{}
	f.corrupts.Store(int64(n))
	c.endpoints[i].fault.Store(f)
}

// Heal ends the fault of endpoint i.
func (c *Cluster) Heal(i int) { c.endpoints[i].fault.Store(nil) }

// endpoint is a server with faults.
type endpoint struct {
	server   *httptest.Server
	requests atomic.Int64
	fault    atomic.Pointer[fault]
	next     http.Handler
	end      chan struct{}
	closing  sync.Once
}

// fault is what is wrong with an endpoint.
type fault struct {
	freeze      bool
	unavailable atomic.Int64
	breaks      atomic.Int64
	corrupts    atomic.Int64
	after       int64
}

func newEndpoint(next http.Handler) *endpoint {
	e := &endpoint{next: next, end: make(chan struct{})}
	e.server = httptest.NewUnstartedServer(e)
	e.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	e.server.Start()
	return e
}

func (e *endpoint) close() {
	e.closing.Do(func() {
		close(e.end)
		_ = e.server.Listener.Close()
		e.server.CloseClientConnections()
		e.server.Close()
	})
}

// ServeHTTP implements http.Handler.
func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.requests.Add(1)
	f := e.fault.Load()
	switch {
	case f == nil:
	case f.freeze:
		select {
		case <-e.end:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	case f.unavailable.Add(-1) >= 0:
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case f.breaks.Add(-1) >= 0:
		b := &breaker{left: f.after}
		r.Body = &breakingBody{breaker: b, readCloser: r.Body}
		w = &breakingWriter{breaker: b, ResponseWriter: w}
	case f.corrupts.Add(-1) >= 0:
		r.Body = corruptBody{r.Body}
		w = &corruptWriter{ResponseWriter: w}
	}
	e.next.ServeHTTP(w, r)
}

// breaker ends a request after so many bytes.
type breaker struct {
	mu   sync.Mutex
	left int64
}

func (b *breaker) pass(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left -= int64(n); b.left < 0 {
		panic(http.ErrAbortHandler)
	}
}

type breakingWriter struct {
	*breaker
	http.ResponseWriter
}

func (w *breakingWriter) Write(p []byte) (int, error) {
	w.pass(0)
	w.mu.Lock()
	n := min(int64(len(p)), w.left+1)
	w.mu.Unlock()
	if _, err := w.ResponseWriter.Write(p[:n]); err != nil {
		return 0, err
	}
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
	w.pass(len(p))
	return len(p), nil
}

type breakingBody struct {
	*breaker
	readCloser
}

type readCloser interface {
	Read(p []byte) (int, error)
	Close() error
}

func (b *breakingBody) Read(p []byte) (int, error) {
	n, err := b.readCloser.Read(p)
	b.pass(n)
	return n, err
}

// corruptBody changes the first byte of every read.
type corruptBody struct{ io.ReadCloser }

func (b corruptBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		p[0] ^= 1
	}
	return n, err
}

// corruptWriter changes the first byte that is written.
type corruptWriter struct {
	http.ResponseWriter
	done bool
}

func (w *corruptWriter) Write(p []byte) (int, error) {
	if w.done || len(p) == 0 {
		return w.ResponseWriter.Write(p)
	}
	w.done = true
	changed := append([]byte{p[0] ^ 1}, p[1:]...)
	return w.ResponseWriter.Write(changed)
}
