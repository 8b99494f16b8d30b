// Package backendtest checks that a backend keeps the contract of
// [core.Backend]. The test of an implementation is a few lines:
//
//	func TestBackend(t *testing.T) {
//		backendtest.Run(t, backendtest.Options{
//			New: func(t *testing.T) (core.Backend, string) { return open(t), newBucket(t) },
//		})
//	}
//
// With a [Proxy] between the backend and its server, the suite also breaks what
// they say to each other.
package backendtest

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

// Options say what is tested. Only New must be given.
type Options struct {
	// New returns the backend and an empty bucket that it may write to. It is
	// called once for each group of tests.
	New func(t *testing.T) (b core.Backend, bucket string)
	// Proxied is New with a proxy between the backend and the bucket's server.
	Proxied func(t *testing.T) (b core.Backend, bucket string, p Proxy)
	// Seed writes an object by other means, for backends that are read-only.
	Seed func(t *testing.T, bucket, key string, data []byte)
	// Failing are backends of which every method fails.
	Failing func(t *testing.T) []Failing
	// NoSuchBucket is the name of a bucket that is not there, where any other
	// than the default would do as well.
	NoSuchBucket string
	// VersionHeader is the header of an answer in which the server tells an
	// object's version.
	VersionHeader string
	// CannotHold says why the server under test, not the backend, cannot keep a
	// key although it does not refuse it; "" if it can.
	CannotHold func(key string) (why string)
	// NoHeaders, NoMeta and NoTags: these are not kept.
	NoHeaders, NoMeta, NoTags bool
	// Plain404: status 404 says that an object is not there, whatever comes with it. (Of
	// other servers it must be in words that only they use.)
	Plain404 bool
	// AnyHead: HeadBucket takes a refusal for an answer, as of a web server whose root
	// nobody may read.
	AnyHead bool
	// Groups are those that are run; none: all.
	Groups []string
	// Weak names conditions that the server under test checks, but not in one step
	// with the write, so that of two writes at once both may pass: "put", "complete",
	// "copy", "delete".
	Weak []string
}

// Failing is a backend whose methods all fail with Want.
type Failing struct {
	Name    string
	Backend core.Backend
	Bucket  string
	Want    error
	// Words, if not "", is what the errors must speak of.
	Words string
	// Skip are methods that this does not hold for: "Head" ...
	Skip []string
}

// Run runs the whole suite.
func Run(t *testing.T, o Options) {
	if o.NoSuchBucket == "" {
		o.NoSuchBucket = newName("no-such-bucket")
	}
	for _, g := range groups() {
		if len(o.Groups) > 0 && !slices.Contains(o.Groups, g.name) {
			continue
		}
		t.Run(g.name, func(t *testing.T) {
			s := &suite{o: o}
			s.b, s.bucket = o.New(t)
			if g.needs(s.b) {
				g.run(t, s)
			}
		})
	}
	if o.Failing != nil {
		t.Run("Failing", func(t *testing.T) { testFailing(t, o) })
	}
	if o.Proxied == nil {
		return
	}
	t.Run("Proxied", func(t *testing.T) {
		for _, g := range proxiedGroups() {
			t.Run(g.name, func(t *testing.T) {
				s := &suite{o: o}
				s.b, s.bucket, s.proxy = o.Proxied(t)
				if g.needs(s.b) {
					g.run(t, s)
				}
			})
		}
	})
}

// newName is the name of a bucket that nobody has.
func newName(prefix string) string { return prefix + "-" + strings.ToLower(rand.Text())[:12] }

// group is a test of what a backend that has what it needs must do.
type group struct {
	name  string
	needs func(b core.Backend) bool
	run   func(t *testing.T, s *suite)
}

func all(core.Backend) bool        { return true }
func writable(b core.Backend) bool { return !b.Abilities().ReadOnly }
func readOnly(b core.Backend) bool { return b.Abilities().ReadOnly }
func lists(b core.Backend) bool    { return !b.Abilities().NoList }

func uploads(b core.Backend) bool {
	_, ok := b.(core.RemoteUploader)
	return ok && writable(b)
}

func copies(b core.Backend) bool {
	_, ok := b.(core.RemoteCopier)
	return ok && writable(b)
}

func groups() []group {
	return []group{
		{"Abilities", all, testAbilities},
		{"ReadOnly", readOnly, testReadOnly},
		{"Buckets", all, testBuckets},
		{"PutGet", all, testPutGet},
		{"Bodies", writable, testBodies},
		{"Ranges", all, testRanges},
		{"Versions", all, testVersions},
		{"Delete", writable, testDelete},
		{"Keys", writable, testKeys},
		{"Metadata", writable, testMetadata},
		{"Checksums", writable, testChecksums},
		{"PutConditions", writable, testPutConditions},
		{"DeleteConditions", writable, testDeleteConditions},
		{"Races", writable, testRaces},
		{"Listing", all, testListing},
		{"ListingPages", lists, testListingPages},
		{"ListingMeta", writable, testListingMeta},
		{"Uploads", uploads, testUploads},
		{"UploadErrors", uploads, testUploadErrors},
		{"Copy", copies, testCopy},
		{"Concurrency", writable, testConcurrency},
		{"Canceled", all, testCanceled},
		{"Leaks", all, testLeaks},
	}
}

// suite is a backend and a bucket for one group of tests.
type suite struct {
	o      Options
	b      core.Backend
	bucket string
	proxy  Proxy // of proxied groups
}

// body is data to put; it counts how often it was opened and closed.
type body struct {
	data           []byte
	opened, closed atomic.Int32
	err            error // in place of io.EOF
	openErr        error
}

func (b *body) open(context.Context) (io.ReadCloser, error) {
	if b.openErr != nil {
		return nil, b.openErr
	}
	b.opened.Add(1)
	return &openBody{r: bytes.NewReader(b.data), b: b}, nil
}

// openBody is only a reader: a backend must not count on more.
type openBody struct {
	r    io.Reader
	b    *body
	done atomic.Bool
}

func (o *openBody) Read(p []byte) (int, error) {
	if o.done.Load() {
		return 0, errors.New("read of a body that was closed")
	}
	n, err := o.r.Read(p)
	if errors.Is(err, io.EOF) && o.b.err != nil {
		return n, o.b.err
	}
	return n, err
}

func (o *openBody) Close() error {
	if !o.done.Swap(true) {
		o.b.closed.Add(1)
	}
	return nil
}

// check says whether whatever was opened was closed.
func (b *body) check(t *testing.T, what string) {
	t.Helper()
	if o, c := b.opened.Load(), b.closed.Load(); o != c {
		t.Errorf("%s: the body was opened %d times and closed %d times", what, o, c)
	}
}

// put0 puts without judging the outcome.
func put0(ctx context.Context, b core.Backend, bucket, key string, data []byte, o core.RemotePut) error {
	body := &body{data: data}
	o.Size, o.Open = int64(len(data)), body.open
	_, err := b.Put(ctx, bucket, key, o)
	return err
}

// tryPut puts data and checks that the body was closed.
func (s *suite) tryPut(t *testing.T, key string, data []byte, o core.RemotePut) (core.RemoteObject, error) {
	t.Helper()
	b := &body{data: data}
	o.Size, o.Open = int64(len(data)), b.open
	obj, err := s.b.Put(t.Context(), s.bucket, key, o)
	b.check(t, "put "+key)
	return obj, err
}

// put is tryPut for what must succeed.
func (s *suite) put(t *testing.T, key string, data []byte, o core.RemotePut) core.RemoteObject {
	t.Helper()
	obj, err := s.tryPut(t, key, data, o)
	if err != nil {
		t.Fatalf("put %q of %d bytes: %v", key, len(data), err)
	}
	if obj.Key != key || obj.Size != int64(len(data)) || obj.Version == "" || obj.ETag == "" {
		t.Errorf("put %q of %d bytes: got %+v, want its key, size, a version and an ETag", key, len(data), obj)
	}
	if strings.Contains(obj.ETag, `"`) {
		t.Errorf("put %q: ETag %s has quotes", key, obj.ETag)
	}
	return obj
}

// seed stores data, also in what is read-only.
func (s *suite) seed(t *testing.T, key string, data []byte) {
	t.Helper()
	if s.b.Abilities().ReadOnly || s.o.Seed != nil {
		if s.o.Seed == nil {
			t.Fatal("a read-only backend needs Options.Seed")
		}
		s.o.Seed(t, s.bucket, key, data)
		return
	}
	s.put(t, key, data, core.RemotePut{})
}

// get reads a run to its end.
func (s *suite) get(t *testing.T, key string, o core.RemoteGet) (core.RemoteObject, []byte, error) {
	t.Helper()
	obj, r, err := s.b.Get(t.Context(), s.bucket, key, o)
	if err != nil {
		return obj, nil, err
	}
	data, err := io.ReadAll(r)
	if e := r.Close(); e != nil && err == nil {
		t.Errorf("close body of %q: %v", key, e)
	}
	return obj, data, err
}

func wholeObject() core.RemoteGet { return core.RemoteGet{Length: -1} }

// want checks that the key holds data, and that Get and Head agree.
func (s *suite) want(t *testing.T, key string, data []byte) core.RemoteObject {
	t.Helper()
	obj, got, err := s.get(t, key, wholeObject())
	if err != nil {
		t.Fatalf("get %q: %v", key, err)
	}
	if !bytes.Equal(got, data) {
		t.Errorf("get %q: got %s, want %s", key, show(got), show(data))
	}
	head, err := s.b.Head(t.Context(), s.bucket, key)
	if err != nil {
		t.Fatalf("head %q: %v", key, err)
	}
	for what, o := range map[string]core.RemoteObject{"get": obj, "head": head} {
		if o.Key != key || o.Size != int64(len(data)) || o.Version == "" || o.ETag == "" || o.Modified.IsZero() {
			t.Errorf("%s %q: got %+v, want the key, size %d, a version, an ETag and a time", what, key, o, len(data))
		}
		if sum := md5.Sum(data); o.MD5 != nil && !bytes.Equal(o.MD5, sum[:]) {
			t.Errorf("%s %q: MD5 %x is not that of the content, %x", what, key, o.MD5, sum)
		}
		wantChecksum(t, what+" "+key, o.Checksum, data)
	}
	if obj.Version != head.Version || obj.ETag != head.ETag || !obj.Modified.Equal(head.Modified) {
		t.Errorf("get and head of %q differ: %+v and %+v", key, obj, head)
	}
	return head
}

// gone checks that there is no such object.
func (s *suite) gone(t *testing.T, key string) {
	t.Helper()
	_, err := s.b.Head(t.Context(), s.bucket, key)
	wantErr(t, fmt.Sprintf("head %q", key), err, core.ErrNotFound)
	_, _, err = s.get(t, key, wholeObject())
	wantErr(t, fmt.Sprintf("get %q", key), err, core.ErrNotFound)
}

// sentinels are the errors that a backend may return.
func sentinels() []error {
	return []error{
		core.ErrNotFound, core.ErrNoSuchBucket, core.ErrPermission, core.ErrPrecondition, core.ErrRange, core.ErrWrongRegion,
		core.ErrThrottled, core.ErrInvalid, errors.ErrUnsupported, core.ErrUnavailable, core.ErrUnknownOutcome,
		core.ErrNoSuchUpload, core.ErrInvalidPart, core.ErrPartTooSmall, core.ErrChecksum, core.ErrTooLarge,
	}
}

// wantErr checks that err is one of wants and nothing else that callers tell apart.
func wantErr(t *testing.T, what string, err error, wants ...error) {
	t.Helper()
	found := false
	for _, w := range wants {
		if found = errors.Is(err, w); found {
			break
		}
	}
	if !found {
		t.Errorf("%s: got error %v, want %v", what, err, wants)
		return
	}
	for _, other := range sentinels() {
		if errors.Is(err, other) && !isAny(other, wants) {
			t.Errorf("%s: error %v is also %q", what, err, other)
		}
	}
}

func isAny(err error, list []error) bool {
	for _, e := range list {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func show(b []byte) string {
	if len(b) <= 40 {
		return fmt.Sprintf("%q", b)
	}
	return fmt.Sprintf("%d bytes %q...", len(b), b[:40])
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// pattern is n bytes of which every run tells where it is from.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i/251)
	}
	return b
}

func md5Of(b []byte) []byte {
	s := md5.Sum(b)
	return s[:]
}

// soon is how long anything may take that should be at once; the machine may be busy.
const soon = 20 * time.Second

// pause waits for d.
func pause(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ctx.Done()
}

// eventually checks that f says true soon.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	for !f() {
		if ctx.Err() != nil {
			t.Errorf("%s: still not so after %s", what, soon)
			return
		}
		pause(ctx, 2*time.Millisecond)
	}
}
