package s3gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/s3gateway/sigv4"
)

// discard is a connection that counts what it is sent.
type discard struct {
	header http.Header
	status int
	n      int
}

func (d *discard) Header() http.Header  { return d.header }
func (d *discard) WriteHeader(code int) { d.status = code }
func (d *discard) Write(p []byte) (int, error) {
	d.n += len(p)
	return len(p), nil
}

// benchmark serves one signed request again and again.
func benchmark(b *testing.B, method string, body []byte, header http.Header, wrap func(core.Objects) core.Objects) {
	e := serve(b, wrap, false)
	e.bucket(b, "data")
	e.raw(b, "PUT", "/data/some/key/0001.bin", nil, string(random(1024))).want(b, "put", 200, "")
	g, err := New(Options{Objects: e.objects, Lookup: lookup, Clock: wall{}})
	if err != nil {
		b.Fatal(err)
	}
	r := httptest.NewRequest(method, "/data/some/key/0001.bin?x-id="+method+"Object", nil)
	r.Header = header
	if err := sigv4.Sign(r, sigv4.Credentials{AccessKey: testKey, Secret: testSecret}, "us-east-1", "s3", sigv4.PayloadHash(body), wall{}.Now()); err != nil {
		b.Fatal(err)
	}
	w := &discard{header: http.Header{}}
	reader := bytes.NewReader(body)
	r.Body, r.ContentLength = io.NopCloser(reader), int64(len(body))
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		reader.Reset(body)
		g.ServeHTTP(w, r)
		if w.status != 200 {
			b.Fatalf("got %d", w.status)
		}
	}
}

func BenchmarkGet1KiB(b *testing.B) {
	benchmark(b, "GET", nil, headers("X-Amz-Checksum-Mode", "ENABLED"), nil)
}

func BenchmarkHead(b *testing.B) { benchmark(b, "HEAD", nil, headers(), nil) }

func BenchmarkPut1KiB(b *testing.B) {
	benchmark(b, "PUT", random(1024), headers("Content-Type", "application/octet-stream"), nil)
}

// The gateway alone: the object layer only reads the body.
func BenchmarkPut1KiBGateway(b *testing.B) {
	benchmark(b, "PUT", random(1024), headers("Content-Type", "application/octet-stream"), func(o core.Objects) core.Objects { return reading{o} })
}

type reading struct{ core.Objects }

func (reading) Put(_ context.Context, _ core.Bucket, _ string, body io.Reader, _ core.PutOptions) (core.ObjectInfo, error) {
	buf := make([]byte, 2048)
	for {
		if _, err := body.Read(buf); errors.Is(err, io.EOF) {
			return core.ObjectInfo{Record: core.Record{ETag: "d41d8cd98f00b204e9800998ecf8427e"}}, nil
		} else if err != nil {
			return core.ObjectInfo{}, err
		}
	}
}

// With a connection and net/http's own work.
func benchmarkHTTP(b *testing.B, method string, body []byte) {
	e := serve(b, nil, false)
	e.bucket(b, "data")
	e.raw(b, "PUT", "/data/k", nil, string(random(1024))).want(b, "put", 200, "")
	r := e.request(b, method, "/data/k", nil, "", sigv4.PayloadHash(body))
	b.ReportAllocs()
	for b.Loop() {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		if body == nil {
			r.Body = nil
		}
		resp, err := e.http.Do(r)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
			b.Fatalf("got %d, %v", resp.StatusCode, err)
		}
		_ = resp.Body.Close()
	}
}

func BenchmarkHTTPGet1KiB(b *testing.B) { benchmarkHTTP(b, "GET", nil) }
func BenchmarkHTTPPut1KiB(b *testing.B) { benchmarkHTTP(b, "PUT", random(1024)) }

func BenchmarkList1000(b *testing.B) {
	e := serve(b, nil, false)
	e.bucket(b, "data")
	for i := range 1000 {
		e.raw(b, "PUT", fmt.Sprintf("/data/train/shard-%04d.tar", i), nil, "").want(b, "put", 200, "")
	}
	g, err := New(Options{Objects: e.objects, Lookup: lookup, Clock: wall{}})
	if err != nil {
		b.Fatal(err)
	}
	r := e.request(b, "GET", "/data?list-type=2", nil, "", sigv4.EmptyPayload)
	w := &discard{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		g.ServeHTTP(w, r)
	}
}
