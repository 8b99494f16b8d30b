package s3gateway

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

// asked records what reads ask for, and fails as failing does.
type asked struct {
	failing
	latest, sync bool
}

func (a *asked) Get(ctx context.Context, b core.Bucket, key string, o core.GetOptions) (*core.Object, error) {
	a.latest, a.sync = o.Latest, o.Sync
	return a.failing.Get(ctx, b, key, o)
}

func (a *asked) Head(ctx context.Context, b core.Bucket, key string, o core.GetOptions) (core.ObjectInfo, error) {
	a.latest, a.sync = o.Latest, o.Sync
	return a.Objects.Head(ctx, b, key, o)
}

// throttled is a throttled remote's answer.
type throttled struct{ after time.Duration }

func (throttled) Error() string               { return "gs://far: too many requests" }
func (throttled) Unwrap() error               { return core.ErrThrottled }
func (l throttled) RetryAfter() time.Duration { return l.after }

// serveRemote serves a remote bucket under the alias far, and one of the
// cluster's own, data.
func serveRemote(t *testing.T) (*endpoint, *asked) {
	t.Helper()
	f := &asked{}
	e := serve(t, func(o core.Objects) core.Objects { f.Objects = o; return f }, false)
	e.bucket(t, "data")
	if _, err := f.CreateBucket(t.Context(), core.BucketName{Provider: core.GCS, Name: "far"}, nil, ""); err != nil {
		t.Fatal(err)
	}
	return e, f
}

func TestErrorsOfRemotes(t *testing.T) {
	e, f := serveRemote(t)
	for _, v := range []struct {
		err    error
		status int
		code   string
		says   string // in the message
		after  string
	}{
		{fmt.Errorf("gs://far: bucket gone: %w", core.ErrNoSuchBucket), 404, "NoSuchBucket", "gs://far: bucket gone", ""},
		{fmt.Errorf("gs://far: no read access: %w", core.ErrPermission), 403, "AccessDenied", "account of this cluster there: get: gs://far: no read access", ""},
		{fmt.Errorf("it is in eu-west-1: %w", core.ErrWrongRegion), 409, "InvalidBucketState", "eu-west-1", ""},
		{fmt.Errorf("http:// origins are read only: %w", errors.ErrUnsupported), 501, "NotImplemented", "read only", ""},
		{core.ErrThrottled, 503, "SlowDown", "", "1"},
		{throttled{2500 * time.Millisecond}, 503, "SlowDown", "too many requests", "3"},
		{throttled{time.Hour}, 503, "SlowDown", "", "60"},
		{fmt.Errorf("127.0.0.1:1: connection refused: %w", core.ErrUnavailable), 503, "ServiceUnavailable", "127.0.0.1:1", "1"},
	} {
		f.err = v.err
		f.times.Store(2)
		for _, method := range []string{"GET", "PUT"} {
			r := e.raw(t, method, "/far/k", nil, "")
			r.want(t, method+": "+v.err.Error(), v.status, v.code)
			if got := r.header.Get("Retry-After"); got != v.after || !strings.Contains(r.body, v.says) {
				t.Errorf("%v: Retry-After %q, want %q; %s lacks %q", v.err, got, v.after, r.body, v.says)
			}
		}
	}
}

func TestLatest(t *testing.T) {
	e, f := serveRemote(t)
	e.raw(t, "PUT", "/far/k", nil, "data").want(t, "put", 200, "")
	for _, v := range []struct {
		query, header string
		latest, sync  bool
	}{
		{"", "", false, false},
		{"", "false", false, false},
		{"", "true", true, false},
		{"", "sync", true, true},
		{"?x-shoal-latest=true", "", true, false},
		{"?x-shoal-latest=sync", "", true, true},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			h := headers()
			if v.header != "" {
				h.Set("X-Shoal-Latest", v.header)
			}
			f.latest, f.sync = !v.latest, !v.sync
			e.raw(t, method, "/far/k"+v.query, h, "").want(t, method+v.query+v.header, 200, "")
			if f.latest != v.latest || f.sync != v.sync {
				t.Errorf("%s %q %q: asked with %v, %v", method, v.query, v.header, f.latest, f.sync)
			}
		}
	}
	e.raw(t, "GET", "/far/k", headers("X-Shoal-Latest", "yes"), "").want(t, "a wrong value", 400, "InvalidArgument")
}

// Remote buckets are neither created nor removed through S3, and a client that
// creates a bucket never gets another one than it goes on to use.
func TestBucketsOfRemotes(t *testing.T) {
	e, _ := serveRemote(t)
	e.raw(t, "DELETE", "/far", nil, "").want(t, "delete a remote bucket", 409, "InvalidBucketState")
	if r := e.raw(t, "GET", "/", nil, ""); !strings.Contains(r.body, "<Name>far</Name>") {
		t.Errorf("the list of buckets lacks the alias: %s", r.body)
	}
	e.raw(t, "PUT", "/far", nil, "").want(t, "create a bucket of the alias", 409, "BucketAlreadyOwnedByYou")
	all, err := e.objects.Buckets(t.Context())
	if err != nil || len(all) != 2 {
		t.Errorf("%d buckets, %v: %+v", len(all), err, all)
	}
}

// The storage class is the remote's: to others it is refused.
func TestStorageClassOfRemotes(t *testing.T) {
	e, _ := serveRemote(t)
	class := headers("X-Amz-Storage-Class", "GLACIER_IR")
	e.raw(t, "PUT", "/data/k", class, "x").want(t, "own", 501, "NotImplemented")
	e.raw(t, "PUT", "/far/k", class, "x").want(t, "remote", 200, "")
	if got := e.raw(t, "HEAD", "/far/k", nil, "").header.Get("X-Amz-Storage-Class"); got != "GLACIER_IR" {
		t.Errorf("storage class %q, want GLACIER_IR", got)
	}
}
