package s3gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/s3gateway/sigv4"
)

// forgetful carries writes out and then says that nobody knows, the first times.
type forgetful struct {
	core.Objects
	mu    sync.Mutex
	times int
	calls int
}

func (f *forgetful) lose() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	f.times--
	return f.times >= 0
}

func (f *forgetful) Put(ctx context.Context, b core.Bucket, key string, body io.Reader, o core.PutOptions) (core.ObjectInfo, error) {
	info, err := f.Objects.Put(ctx, b, key, body, o)
	if err == nil && f.lose() {
		return core.ObjectInfo{}, fmt.Errorf("the answer was lost: %w", core.ErrUnknownOutcome)
	}
	return info, err
}

// invocation gives requests an id and an attempt, as an SDK or as a proxy might.
func invocation(id, request string) func(*s3.Options) {
	return func(o *s3.Options) {
		o.APIOptions = append(o.APIOptions, func(s *middleware.Stack) error {
			return s.Finalize.Insert(middleware.FinalizeMiddlewareFunc("invocation", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
				r, ok := in.Request.(*smithyhttp.Request)
				if !ok {
					return middleware.FinalizeOutput{}, middleware.Metadata{}, errors.New("no HTTP request")
				}
				r.Header.Set("Amz-Sdk-Invocation-Id", id)
				r.Header.Set("Amz-Sdk-Request", request)
				return next.HandleFinalize(ctx, in)
			}), "Signing", middleware.Before)
		})
	}
}

// TestRepeatedInvocation has the SDK repeat a write whose answer was lost, while
// it makes a difference whether the write takes place again.
func TestRepeatedInvocation(t *testing.T) {
	f := &forgetful{times: 1}
	e := serve(t, func(o core.Objects) core.Objects { f.Objects = o; return f }, false)
	b := e.bucket(t, "data")
	k := e.client(func(o *s3.Options) { o.RetryMaxAttempts = 3 })
	// Refused if it took place a second time, since then there is an object.
	if _, err := k.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: aws.String("key"), Body: bytes.NewReader([]byte("one")), IfNoneMatch: aws.String("*")}); err != nil {
		t.Errorf("a write whose first answer was lost: %v", err)
	}
	if f.calls != 2 {
		t.Errorf("%d attempts, want 2", f.calls)
	}
}

// DeleteFirst carries a removal out and loses the answer.
func (f *forgetful) DeleteFirst(ctx context.Context, b core.Bucket, key string, c core.Conditions, r core.RequestID) error {
	err := f.Objects.(core.FirstDeleter).DeleteFirst(ctx, b, key, c, r)
	if err == nil && f.lose() {
		return fmt.Errorf("the answer was lost: %w", core.ErrUnknownOutcome)
	}
	return err
}

// TestRepeatedRemoval has the SDK repeat a removal whose answer was lost: what was
// written between the attempts stays.
func TestRepeatedRemoval(t *testing.T) {
	f := &forgetful{}
	e := serve(t, func(o core.Objects) core.Objects { f.Objects = o; return f }, false)
	b := e.bucket(t, "data")
	put := func(body string) *s3.PutObjectOutput {
		t.Helper()
		out, err := e.client().PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: aws.String("key"), Body: bytes.NewReader([]byte(body))})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	// Refused if it took place a second time, since then there is no object.
	etag := put("one").ETag
	f.times = 1
	k := e.client(func(o *s3.Options) { o.RetryMaxAttempts = 3 })
	if _, err := k.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &b, Key: aws.String("key"), IfMatch: etag}); err != nil {
		t.Errorf("a removal whose first answer was lost: %v", err)
	}
	remove := func(id, request string) {
		t.Helper()
		if _, err := e.client(invocation(id, request)).DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &b, Key: aws.String("key")}); err != nil {
			t.Fatal(err)
		}
	}
	put("one")
	remove("id-1", "attempt=1; max=3")
	put("two")
	remove("id-1", "attempt=2; max=3")
	if _, data, err := e.stored(t, b, "key"); err != nil || string(data) != "two" {
		t.Errorf("after a late repetition there is %q, %v", data, err)
	}
	remove("id-1", "attempt=1; max=3")
	e.wantAbsent(t, b, "key")
}

// TestInvocationIDs checks what an id that comes again is taken for.
func TestInvocationIDs(t *testing.T) {
	e := serve(t, nil, false)
	b := e.bucket(t, "data")
	put := func(key, body, id, request string) {
		t.Helper()
		if _, err := e.client(invocation(id, request)).PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: &key, Body: bytes.NewReader([]byte(body))}); err != nil {
			t.Fatalf("put %s: %v", key, err)
		}
	}
	holds := func(what, key, want string) {
		t.Helper()
		out, err := e.client().GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: &key})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		got, err := io.ReadAll(out.Body)
		_ = out.Body.Close()
		if err != nil || string(got) != want {
			t.Errorf("%s: %s holds %q, %v, want %q", what, key, got, err, want)
		}
	}
	put("a", "one", "id-1", "attempt=1; max=3")
	put("a", "two", "id-2", "attempt=1; max=3")
	put("a", "one", "id-1", "attempt=2; max=3")
	holds("a late repetition does not undo what came between", "a", "two")
	put("b", "other", "id-1", "attempt=2; max=3")
	holds("another key under the same id", "b", "other")
	put("a", "six", "id-1", "attempt=2; max=3")
	holds("another body of the same length under the same id", "a", "six")
	put("c", "one", "same", "attempt=1; max=1")
	put("c", "two", "other", "attempt=1; max=1")
	put("c", "one", "same", "attempt=1; max=1")
	holds("a client that uses an id for ever", "c", "one")
	put("d", "one", "id-4", "")
	put("d", "two", "id-5", "")
	put("d", "one", "id-4", "")
	holds("a client that does not count", "d", "one")
}

func TestAttempt(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]int{
		"attempt=1; max=3": 1, "attempt=12": 12, "ttl=20260101T000000Z; attempt=2; max=3": 2, "": 0, "max=3": 0, "attempt=": 0,
		"attempt=x": 0, "attempt=-1": 0, "attempt=99999": 0, "attempt=0; max=3": 0,
	} {
		if got := attempt(header); got != want {
			t.Errorf("%q: got %d, want %d", header, got, want)
		}
	}
}

// TestWriteIDs checks that what tells requests apart is in the id.
func TestWriteIDs(t *testing.T) {
	t.Parallel()
	base := func() *request {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://h/b/k", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Amz-Sdk-Invocation-Id", "i")
		r.Header.Set("Amz-Sdk-Request", "attempt=2; max=3")
		q := &request{r: r, id: core.NewRequestID(), key: "k", bucket: core.Bucket{ID: 1}}
		q.auth.AccessKey = "user"
		return q
	}
	first, fresh := base().writeID()
	if again, _ := base().writeID(); again != first || fresh {
		t.Errorf("the same attempt twice: got %x and %x, fresh %v", first, again, fresh)
	}
	for what, change := range map[string]func(*request){
		"user":       func(q *request) { q.auth.AccessKey = "user2" },
		"bucket":     func(q *request) { q.bucket.ID = 2 },
		"key":        func(q *request) { q.key = "l" },
		"invocation": func(q *request) { q.r.Header.Set("Amz-Sdk-Invocation-Id", "j") },
		"length":     func(q *request) { q.r.ContentLength = 5 },
		"body":       func(q *request) { q.r.Header.Set("X-Amz-Content-Sha256", "x") },
		"checksum":   func(q *request) { q.r.Header.Set("X-Amz-Checksum-Crc32", "x") },
		"condition":  func(q *request) { q.r.Header.Set("If-None-Match", "*") },
		"source":     func(q *request) { q.r.Header.Set("X-Amz-Copy-Source", "b/x") },
		"upload":     func(q *request) { q.query = sigv4.Query{{Name: "uploadId", Value: "u"}} },
		"part":       func(q *request) { q.query = sigv4.Query{{Name: "partNumber", Value: "2"}} },
		"nobody":     func(q *request) { q.auth.AccessKey = "" },
		"no id":      func(q *request) { q.r.Header.Del("Amz-Sdk-Invocation-Id") },
		"no count":   func(q *request) { q.r.Header.Del("Amz-Sdk-Request") },
	} {
		q := base()
		change(q)
		if id, _ := q.writeID(); id == first {
			t.Errorf("another %s: the same id", what)
		}
	}
}
