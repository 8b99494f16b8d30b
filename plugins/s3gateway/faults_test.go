package s3gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/memobjects"
	"github.com/shoalstore/shoal/plugins/s3gateway/sigv4"
)

// failing fails the calls on objects with err, the first times of them.
type failing struct {
	core.Objects
	err   error
	times atomic.Int32
	calls atomic.Int32
}

func (f *failing) fail() error {
	f.calls.Add(1)
	if f.times.Add(-1) >= 0 {
		return fmt.Errorf("get: %w", f.err)
	}
	return nil
}

func (f *failing) Get(ctx context.Context, b core.Bucket, key string, o core.GetOptions) (*core.Object, error) {
	if err := f.fail(); err != nil {
		return nil, err
	}
	return f.Objects.Get(ctx, b, key, o)
}

func (f *failing) Put(ctx context.Context, b core.Bucket, key string, body io.Reader, o core.PutOptions) (core.ObjectInfo, error) {
	if err := f.fail(); err != nil {
		return core.ObjectInfo{}, err
	}
	return f.Objects.Put(ctx, b, key, body, o)
}

func TestErrorCodes(t *testing.T) {
	f := &failing{}
	e := serve(t, func(o core.Objects) core.Objects { f.Objects = o; return f }, false)
	b := e.bucket(t, "data")
	for _, v := range []struct {
		err    error
		status int
		code   string
	}{
		{core.ErrNotFound, 404, "NoSuchKey"},
		{core.ErrNoSuchBucket, 404, "NoSuchBucket"},
		{core.ErrNoSuchUpload, 404, "NoSuchUpload"},
		{core.ErrPrecondition, 412, "PreconditionFailed"},
		{core.ErrRange, 416, "InvalidRange"},
		{core.ErrConflict, 409, "OperationAborted"},
		{core.ErrInvalid, 400, "InvalidArgument"},
		{core.ErrChecksum, 400, "BadDigest"},
		{core.ErrTooLarge, 400, "EntityTooLarge"},
		{core.ErrInvalidPart, 400, "InvalidPart"},
		{core.ErrPartTooSmall, 400, "EntityTooSmall"},
		{core.ErrPermission, 403, "AccessDenied"},
		{core.ErrUnavailable, 503, "ServiceUnavailable"},
		{core.ErrUnknownOutcome, 503, "ServiceUnavailable"},
		{core.ErrNotOwner, 503, "ServiceUnavailable"},
		{core.ErrDiskFailed, 503, "ServiceUnavailable"},
		{context.DeadlineExceeded, 503, "ServiceUnavailable"},
		{core.ErrNoSpace, 507, "InsufficientStorage"},
		{core.ErrCorrupt, 500, "InternalError"},
		{errors.New("disk 7 said EIO"), 500, "InternalError"},
	} {
		f.err = v.err
		f.times.Store(1 << 20)
		for _, method := range []string{"GET", "PUT"} {
			r := e.raw(t, method, "/data/k", nil, "")
			r.want(t, method+": "+v.err.Error(), v.status, v.code)
			if (v.status == 503) != (r.header.Get("Retry-After") == "1") {
				t.Errorf("%v: Retry-After is %q", v.err, r.header.Get("Retry-After"))
			}
			if strings.Contains(r.body, "EIO") {
				t.Errorf("%v: tells the client %s", v.err, r.body)
			}
		}
		f.times.Store(0)
		e.wantAbsent(t, b, "k")
	}
	// SDKs try again after what may pass, and not after what is final.
	for err, attempts := range map[error]int32{core.ErrUnavailable: 3, core.ErrUnknownOutcome: 3, core.ErrCorrupt: 3, core.ErrNoSpace: 1, core.ErrPrecondition: 1} {
		f.err = err
		f.times.Store(2)
		f.calls.Store(0)
		c := e.client(func(o *s3.Options) {
			o.RetryMaxAttempts = 5
			o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = 5, time.Millisecond })
		})
		_, got := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: aws.String("k"), Body: strings.NewReader("data")})
		if f.calls.Load() != attempts || (got == nil) != (attempts == 3) {
			t.Errorf("%v: %d attempts, %v; want %d", err, f.calls.Load(), got, attempts)
		}
	}
}

// slow copies as late as it is told.
type slow struct {
	core.Objects
	gate chan error
}

func (s slow) Copy(ctx context.Context, from core.Bucket, fromKey string, to core.Bucket, toKey string, o core.CopyOptions) (core.ObjectInfo, error) {
	select {
	case err := <-s.gate:
		if err != nil {
			return core.ObjectInfo{}, err
		}
	case <-ctx.Done():
		return core.ObjectInfo{}, ctx.Err()
	}
	return s.Objects.Copy(ctx, from, fromKey, to, toKey, o)
}

// An answer that takes long begins before it is known; SDKs read both ends.
func TestSlowAnswers(t *testing.T) {
	ticks, gate := make(chan struct{}), make(chan error, 1)
	objects := slow{memobjects.New(wall{}), gate}
	e := serveWith(t, Options{Objects: objects, Lookup: lookup, Clock: wall{ticks}}, false)
	c, b := e.client(), e.bucket(t, "data")
	e.raw(t, "PUT", "/data/src", nil, "data").want(t, "put", 200, "")
	for _, late := range []int{0, 1, 3} {
		for _, fault := range []error{nil, core.ErrUnavailable, core.ErrPrecondition} {
			var wg sync.WaitGroup
			wg.Go(func() {
				for range late {
					ticks <- struct{}{}
				}
				gate <- fault
			})
			out, err := c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: &b, Key: aws.String("dst"), CopySource: aws.String("data/src")})
			wg.Wait()
			switch {
			case fault == nil && (err != nil || *out.CopyObjectResult.ETag != quotedMD5([]byte("data"))):
				t.Errorf("after %d ticks: got %+v, %v", late, out, err)
			case fault != nil:
				wantAPI(t, fmt.Sprint("after ", late, " ticks"), err, map[error]string{
					core.ErrUnavailable: "ServiceUnavailable", core.ErrPrecondition: "PreconditionFailed",
				}[fault])
			}
		}
	}
	// The client goes away: the copy ends, and so does the request.
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { ticks <- struct{}{}; cancel() })
	_, err := c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: &b, Key: aws.String("dst"), CopySource: aws.String("data/src")})
	if err == nil {
		t.Error("abandoned copy: succeeded")
	}
	wg.Wait()
}

// sink takes and makes large objects without keeping them.
type sink struct{ core.Objects }

const sinkSize = 128 << 20

func (sink) Put(_ context.Context, _ core.Bucket, _ string, body io.Reader, o core.PutOptions) (core.ObjectInfo, error) {
	n, err := io.Copy(struct{ io.Writer }{io.Discard}, body)
	if err == nil && n != o.Size {
		err = io.ErrUnexpectedEOF
	}
	return core.ObjectInfo{Record: core.Record{ETag: "e", Size: n}}, err
}

func (sink) Get(context.Context, core.Bucket, string, core.GetOptions) (*core.Object, error) {
	return &core.Object{
		ObjectInfo: core.ObjectInfo{Record: core.Record{ETag: "e", Size: sinkSize}}, Length: sinkSize,
		Body: io.NopCloser(zeros(sinkSize)),
	}, nil
}

// zeros is a body of n zero bytes.
func zeros(n int64) io.Reader { return struct{ io.Reader }{io.LimitReader(zero{}, n)} }

type zero struct{}

func (zero) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// Memory does not grow with the object.
func TestMemoryIsBounded(t *testing.T) {
	e := serve(t, func(o core.Objects) core.Objects { return sink{o} }, false)
	e.bucket(t, "data")
	allocated := func(f func()) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	const limit = 8 << 20
	if n := allocated(func() {
		r := e.request(t, "PUT", "/data/k", nil, "", sigv4.UnsignedPayload)
		r.Body, r.ContentLength = io.NopCloser(zeros(sinkSize)), sinkSize
		e.send(t, r).want(t, "put", 200, "")
	}); n > limit {
		t.Errorf("put of 128 MiB allocated %d bytes", n)
	}
	if n := allocated(func() {
		// In chunks of which the client sends one enormous one.
		h := headers("X-Amz-Decoded-Content-Length", fmt.Sprint(sinkSize))
		r := e.request(t, "PUT", "/data/k", h, "", sigv4.StreamingUnsignedTrailer)
		r.Body = io.NopCloser(io.MultiReader(strings.NewReader(fmt.Sprintf("%x\r\n", sinkSize)), zeros(sinkSize), strings.NewReader("\r\n0\r\n\r\n")))
		r.ContentLength = sinkSize + int64(len(fmt.Sprintf("%x\r\n\r\n0\r\n\r\n", sinkSize)))
		e.send(t, r).want(t, "put in chunks", 200, "")
	}); n > limit {
		t.Errorf("put of 128 MiB in a chunk allocated %d bytes", n)
	}
	if n := allocated(func() {
		resp, err := e.http.Do(e.request(t, "GET", "/data/k", nil, "", sigv4.EmptyPayload))
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil || n != sinkSize {
			t.Errorf("get: %d bytes, %v", n, err)
		}
	}); n > limit {
		t.Errorf("get of 128 MiB allocated %d bytes", n)
	}
}

// Many clients at once get their own data.
func TestParallelClients(t *testing.T) {
	e := serve(t, nil, false)
	c, b := e.client(), e.bucket(t, "data")
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := range 20 {
				key, data := aws.String(fmt.Sprintf("w%d/%d", w, i)), bytes.Repeat([]byte{byte(w), byte(i)}, 1+i*w*100)
				if _, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: key, Body: bytes.NewReader(data), Metadata: map[string]string{"w": fmt.Sprint(w)}}); err != nil {
					t.Errorf("put: %v", err)
					return
				}
				out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: key})
				if err != nil {
					t.Errorf("get: %v", err)
					return
				}
				got, err := io.ReadAll(out.Body)
				if err != nil || !bytes.Equal(got, data) || out.Metadata["w"] != fmt.Sprint(w) {
					t.Errorf("get: %d bytes, %v, %v", len(got), out.Metadata, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("New without an object layer: got no error")
	}
	var h http.Handler = new(Gateway)
	_ = h
}
