package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/apitest"
	"github.com/shoalstore/shoal/plugins/api/server"
)

// answer sends a request to a handler and returns status and body.
func answer(t *testing.T, h http.Handler, method, path, body string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body)))
	return w.Code, w.Body.String()
}

// code is the code of an error's body.
func code(t *testing.T, body string) api.Code {
	t.Helper()
	var e api.ErrorBody
	if err := json.Unmarshal([]byte(body), &e); err != nil || e.Error == nil {
		t.Fatalf("%q is no error: %v", body, err)
	}
	return e.Error.Code
}

func handler(t *testing.T) http.Handler {
	f := apitest.New(t, 1)
	return server.New(server.Services{Cluster: f.Nodes, Buckets: f.Buckets, Jobs: f.Jobs, Performance: f.Nodes}, slog.New(slog.DiscardHandler))
}

func TestRefusals(t *testing.T) {
	h := handler(t)
	for _, tt := range []struct {
		method, path, body string
		status             int
		code               api.Code
	}{
		{"GET", "/nothing", "", 404, api.CodeNotFound},
		{"GET", "/nodes/N!", "", 400, api.CodeInvalid},
		{"GET", "/nodes/n9", "", 404, api.CodeNotFound},
		{"POST", "/nodes/n1/dance", "", 400, api.CodeInvalid},
		{"PATCH", "/nodes/n1", `{"weight":-1}`, 400, api.CodeInvalid},
		{"PATCH", "/nodes/n1", `{"wait":1}`, 400, api.CodeInvalid},
		{"PATCH", "/nodes/n1", `{`, 400, api.CodeInvalid},
		{"PATCH", "/nodes/n1", `{} {}`, 400, api.CodeInvalid},
		{"PATCH", "/disks/n1/d1", `{"zone":"x"}`, 400, api.CodeInvalid},
		{"POST", "/disks/n1/d1/eat", "", 400, api.CodeInvalid},
		{"GET", "/disks/n1/d9", "", 404, api.CodeNotFound},
		{"GET", "/buckets/shoal/none", "", 404, api.CodeNoSuchBucket},
		{"GET", "/buckets/ftp/data", "", 400, api.CodeInvalid},
		{"GET", "/buckets/shoal/a%2Fb", "", 400, api.CodeInvalid},
		{"PUT", "/buckets/shoal/data", `{"props":{"scheme":"ec-1+1"}}`, 400, api.CodeInvalid},
		{"PUT", "/buckets/shoal/data", `{"colour":"red"}`, 400, api.CodeInvalid},
		{"GET", "/buckets?all=perhaps", "", 400, api.CodeInvalid},
		{"GET", "/buckets/shoal/none/objects", "", 404, api.CodeNoSuchBucket},
		{"GET", "/buckets/shoal/none/objects?max=-1", "", 400, api.CodeInvalid},
		{"GET", "/buckets/shoal/none/objects?presence=odd", "", 400, api.CodeInvalid},
		{"GET", "/jobs/none", "", 404, api.CodeNotFound},
		{"GET", "/jobs/none?wait=long", "", 400, api.CodeInvalid},
		{"GET", "/cluster?healthy=true&wait=-1s", "", 400, api.CodeInvalid},
		{"POST", "/jobs", `{"kind":"dsort"}`, 501, api.CodeNotBuilt},
		{"GET", "/transforms", "", 501, api.CodeNotBuilt},
		{"PUT", "/transforms/x", "{}", 501, api.CodeNotBuilt},
	} {
		status, body := answer(t, h, tt.method, api.Prefix+tt.path, tt.body)
		if status != tt.status || code(t, body) != tt.code {
			t.Errorf("%s %s: got %d, %s, want %d, %s", tt.method, tt.path, status, body, tt.status, tt.code)
		}
	}
	if status, _ := answer(t, h, "POST", api.ClusterPath, ""); status != http.StatusMethodNotAllowed && status != http.StatusNotFound {
		t.Errorf("POST of the cluster: got %d", status)
	}
}

func TestBucketLifeAsJSON(t *testing.T) {
	h := handler(t)
	const path = api.BucketsPath + "/shoal/data"
	status, body := answer(t, h, "PUT", path, `{"props":{"scheme":"ec-2+1","inline":4096,"lru":true},"alias":"other"}`)
	if status != 200 || !strings.Contains(body, `"alias":"other"`) || !strings.Contains(body, `"scheme":"ec-2+1"`) || !strings.Contains(body, `"inline":4096`) {
		t.Errorf("create: got %d, %s", status, body)
	}
	if status, body := answer(t, h, "PATCH", path, `{"props":{"etag":"fast"}}`); status != 200 || !strings.Contains(body, `"etag":"fast"`) || !strings.Contains(body, `"inline":4096`) {
		t.Errorf("set: got %d, %s", status, body)
	}
	if status, body := answer(t, h, "GET", api.BucketsPath, ""); status != 200 || strings.Count(body, `"uri"`) != 1 {
		t.Errorf("list: got %d, %s", status, body)
	}
	if status, body := answer(t, h, "DELETE", path, ""); status != 204 || body != "" {
		t.Errorf("remove: got %d, %s", status, body)
	}
	if status, body := answer(t, h, "GET", api.BucketsPath, ""); body != `{"buckets":[]}` {
		t.Errorf("list of none: got %d, %s", status, body)
	}
}

// numbers lists the objects 0 to n-1, then ends with err.
type numbers struct {
	server.BucketService
	n   int
	err error
	got server.ListOptions
}

func (s *numbers) Objects(_ context.Context, _ core.BucketName, o server.ListOptions) iter.Seq2[api.Object, error] {
	s.got = o
	return func(yield func(api.Object, error) bool) {
		n := s.n
		if o.Max > 0 {
			n = min(n, o.Max)
		}
		for i := range n {
			if !yield(api.Object{Name: fmt.Sprint(i)}, nil) {
				return
			}
		}
		if s.err != nil {
			yield(api.Object{}, s.err)
		}
	}
}

func TestListings(t *testing.T) {
	const path = api.BucketsPath + "/shoal/data/objects"
	for _, tt := range []struct {
		n     int
		err   error
		query string
		lines int
		last  string
	}{
		{0, nil, "", 1, `{"end":true}`},
		{3, nil, "", 4, `{"end":true}`},
		{3, nil, "?max=3", 4, `{"end":true}`},
		{4, nil, "?max=3", 4, `{"end":true,"more":true}`},
		{2, core.ErrUnavailable, "", 3, `{"end":true,"error":{"code":"unavailable","message":"unavailable"}}`},
	} {
		s := &numbers{n: tt.n, err: tt.err}
		status, body := answer(t, server.New(server.Services{Buckets: s}, slog.New(slog.DiscardHandler)), "GET", path+tt.query, "")
		lines := strings.Split(strings.TrimSuffix(body, "\n"), "\n")
		if status != 200 || len(lines) != tt.lines || lines[len(lines)-1] != tt.last {
			t.Errorf("%d objects%s: got %d, %q, want %d lines, the last %s", tt.n, tt.query, status, lines, tt.lines, tt.last)
		}
	}
	s := &numbers{err: core.ErrUnavailable}
	status, body := answer(t, server.New(server.Services{Buckets: s}, slog.New(slog.DiscardHandler)), "GET", path, "")
	if status != 503 || code(t, body) != api.CodeUnavailable {
		t.Errorf("an error before the first object: got %d, %s", status, body)
	}
	s = &numbers{n: 1}
	_, _ = answer(t, server.New(server.Services{Buckets: s}, slog.New(slog.DiscardHandler)), "GET", path+"?prefix=a%2F&after=b&presence=cached&names=true&max=5", "")
	if want := (server.ListOptions{Prefix: "a/", After: "b", Max: 6, Presence: api.Cached, NamesOnly: true}); s.got != want {
		t.Errorf("got %+v, want %+v", s.got, want)
	}
}
