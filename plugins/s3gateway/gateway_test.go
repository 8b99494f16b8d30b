package s3gateway

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/memobjects"
	"github.com/shoalstore/shoal/plugins/s3gateway/sigv4"
)

const (
	testKey    = "shoaldev"
	testSecret = "shoaldev-secret"
)

// wall is the machine's clock. Slow answers are driven by ticks, if set.
type wall struct{ ticks chan struct{} }

func (wall) Now() time.Time     { return time.Now() }
func (wall) Boot() core.Instant { return core.Instant(time.Now().UnixNano()) }
func (c wall) Wait(ctx context.Context, _ time.Duration) error {
	select {
	case <-c.ticks:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func lookup(key string) (string, bool) { return testSecret, key == testKey }

// endpoint is a gateway over a memory store, as clients reach it.
type endpoint struct {
	url     string
	objects core.Objects
	http    *http.Client
	close   func() // waits for the requests under way
}

// serve starts a gateway; wrap may put something between it and the store.
func serve(t testing.TB, wrap func(core.Objects) core.Objects, tls bool) *endpoint {
	t.Helper()
	var objects core.Objects = memobjects.New(wall{})
	if wrap != nil {
		objects = wrap(objects)
	}
	return serveWith(t, Options{Objects: objects, Lookup: lookup, Clock: wall{}}, tls)
}

func serveWith(t testing.TB, o Options, tls bool) *endpoint {
	t.Helper()
	g, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(g)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.Config.ConnContext = ConnContext
	if tls {
		s.StartTLS()
	} else {
		s.Listener = Listen(s.Listener)
		s.Start()
	}
	t.Cleanup(s.Close)
	return &endpoint{url: s.URL, objects: o.Objects, http: s.Client(), close: s.Close}
}

// client is an unpatched SDK client.
func (e *endpoint) client(change ...func(*s3.Options)) *s3.Client {
	o := s3.Options{
		BaseEndpoint: aws.String(e.url), UsePathStyle: true, Region: "us-east-1",
		Credentials: credentials.NewStaticCredentialsProvider(testKey, testSecret, ""),
		HTTPClient:  e.http, RetryMaxAttempts: 1,
		// As config.LoadDefaultConfig sets them.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenSupported,
	}
	return s3.New(o, change...)
}

// bucket makes a bucket.
func (e *endpoint) bucket(t testing.TB, name string) string {
	t.Helper()
	if _, err := e.client().CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatalf("create bucket: %v", err)
	}
	return name
}

// reply is what a raw request got.
type reply struct {
	status int
	header http.Header
	body   string
	code   string // of an error document
}

// raw sends a signed request with a target that is taken as it is.
func (e *endpoint) raw(t testing.TB, method, target string, header http.Header, body string) reply {
	t.Helper()
	return e.send(t, e.request(t, method, target, header, body, sigv4.PayloadHash([]byte(body))))
}

func (e *endpoint) request(t testing.TB, method, target string, header http.Header, body, payload string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, e.url+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept-Encoding", "identity")
	for name, values := range header {
		for _, v := range values {
			r.Header.Add(name, v)
		}
	}
	if err := sigv4.Sign(r, sigv4.Credentials{AccessKey: testKey, Secret: testSecret}, "us-east-1", "s3", payload, time.Now()); err != nil {
		t.Fatal(err)
	}
	return r
}

func (e *endpoint) send(t testing.TB, r *http.Request) reply {
	t.Helper()
	resp, err := e.http.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: read: %v", r.Method, r.URL, err)
	}
	out := reply{status: resp.StatusCode, header: resp.Header, body: string(b)}
	if _, rest, ok := strings.Cut(out.body, "<Error><Code>"); ok {
		out.code, _, _ = strings.Cut(rest, "<")
	}
	return out
}

func (r reply) want(t testing.TB, what string, status int, code string) {
	t.Helper()
	if r.status != status || r.code != code {
		t.Errorf("%s: got %d %s %s; want %d %s", what, r.status, r.code, r.body, status, code)
	}
}

func headers(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

// wantAPI checks the code of an SDK's error.
func wantAPI(t testing.TB, what string, err error, code string) {
	t.Helper()
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() != code {
		t.Errorf("%s: got %v, want %s", what, err, code)
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func quotedMD5(b []byte) string { return fmt.Sprintf("%q", fmt.Sprintf("%x", md5.Sum(b))) }

// stored returns what the store holds.
func (e *endpoint) stored(t testing.TB, bucket, key string) (core.ObjectInfo, []byte, error) {
	t.Helper()
	b, err := e.objects.Bucket(t.Context(), bucket)
	if err != nil {
		t.Fatal(err)
	}
	o, err := e.objects.Get(t.Context(), b, key, core.GetOptions{})
	if err != nil {
		return core.ObjectInfo{}, nil, err
	}
	data, err := io.ReadAll(o.Body)
	if err != nil {
		t.Fatal(err)
	}
	return o.ObjectInfo, data, nil
}

func (e *endpoint) wantStored(t testing.TB, bucket, key string, data []byte) core.ObjectInfo {
	t.Helper()
	info, got, err := e.stored(t, bucket, key)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%s/%q holds %d bytes, %v; want %d", bucket, key, len(got), err, len(data))
	}
	return info
}

func (e *endpoint) wantAbsent(t testing.TB, bucket, key string) {
	t.Helper()
	if _, _, err := e.stored(t, bucket, key); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("%s/%q: got %v, want it absent", bucket, key, err)
	}
}
