// Package objectstest checks that an object layer keeps the contract of
// core.Objects. The test of an implementation is a few lines:
//
//	func TestObjects(t *testing.T) {
//		objectstest.Run(t, func(t *testing.T) core.Objects { return open(t) })
//	}
//
// The suite makes buckets of its own names and needs nothing else, so it also
// runs against a cluster that is in use.
package objectstest

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/shoalstore/shoal/core"
)

// Sizes of bodies: nothing, inline, above every bucket's inline limit and
// above one stripe of every scheme.
const (
	small = 1000
	large = 300 << 10
	huge  = 3<<20 + 17
)

// Run runs the whole suite. open returns the object layer under test; it is
// called once for each group of tests.
func Run(t *testing.T, open func(t *testing.T) core.Objects) {
	for _, group := range []struct {
		name string
		run  func(t *testing.T, s *suite)
	}{
		{"Buckets", testBuckets},
		{"PutGet", testPutGet},
		{"Keys", testKeys},
		{"Ranges", testRanges},
		{"Conditions", testConditions},
		{"Delete", testDelete},
		{"Checksums", testChecksums},
		{"FailedBodies", testFailedBodies},
		{"Repeats", testRepeats},
		{"NotFound", testNotFound},
		{"Listing", testListing},
		{"Copy", testCopy},
		{"Multipart", testMultipart},
		{"MultipartErrors", testMultipartErrors},
		{"MultipartLists", testMultipartLists},
		{"CopyPart", testCopyPart},
		{"Concurrency", testConcurrency},
	} {
		t.Run(group.name, func(t *testing.T) {
			s := &suite{objects: open(t)}
			s.bucket = s.newBucket(t)
			group.run(t, s)
		})
	}
}

// suite is an object layer and a bucket for one group of tests.
type suite struct {
	objects core.Objects
	bucket  core.Bucket
}

// newBucket makes an empty bucket, and removes it and its objects at the end.
func (s *suite) newBucket(t *testing.T) core.Bucket {
	t.Helper()
	id := core.NewRequestID().String()
	b, err := s.objects.CreateBucket(t.Context(), core.BucketName{Provider: core.Shoal, Name: "t-" + id}, nil, "")
	if err != nil {
		t.Fatalf("create bucket: %v", err)
	}
	t.Cleanup(func() { s.dropBucket(t, b) })
	return b
}

func (s *suite) dropBucket(t *testing.T, b core.Bucket) {
	ctx := context.WithoutCancel(t.Context())
	uploads, _, err := s.objects.Uploads(ctx, b, "", "", "", 1000)
	if errors.Is(err, core.ErrNoSuchBucket) {
		return
	}
	for _, u := range uploads {
		if err := s.objects.AbortUpload(ctx, b, u.Key, u.ID); err != nil {
			t.Errorf("abort upload of %q: %v", u.Key, err)
		}
	}
	l, err := s.objects.List(ctx, b, core.ListOptions{Max: 1000})
	for ; err == nil && len(l.Objects) > 0; l, err = s.objects.List(ctx, b, core.ListOptions{Max: 1000}) {
		for _, o := range l.Objects {
			if err := s.objects.Delete(ctx, b, o.Key, core.Conditions{}, core.NewRequestID()); err != nil {
				t.Fatalf("delete %q: %v", o.Key, err)
			}
		}
	}
	if err != nil {
		t.Fatalf("list for removal: %v", err)
	}
	if err := s.objects.DeleteBucket(ctx, b.Alias); err != nil {
		t.Errorf("delete bucket: %v", err)
	}
}

// put stores data with defaults and fails the test on an error.
func (s *suite) put(t *testing.T, key string, data []byte) core.ObjectInfo {
	t.Helper()
	info, err := s.objects.Put(t.Context(), s.bucket, key, bytes.NewReader(data),
		core.PutOptions{Size: int64(len(data)), Request: core.NewRequestID()})
	if err != nil {
		t.Fatalf("put %q of %d bytes: %v", key, len(data), err)
	}
	return info
}

// read returns the data that a Get delivers, and fails the test if the body is
// not as announced.
func (s *suite) read(t *testing.T, key string, o core.GetOptions) (*core.Object, []byte, error) {
	t.Helper()
	obj, err := s.objects.Get(t.Context(), s.bucket, key, o)
	if err != nil {
		return nil, nil, err
	}
	data, err := io.ReadAll(obj.Body)
	if err != nil {
		t.Fatalf("read %q: %v", key, err)
	}
	if err := obj.Body.Close(); err != nil {
		t.Errorf("close body of %q: %v", key, err)
	}
	if int64(len(data)) != obj.Length {
		t.Errorf("read %q: got %d bytes, Length said %d", key, len(data), obj.Length)
	}
	return obj, data, nil
}

// want checks that the key holds data.
func (s *suite) want(t *testing.T, key string, data []byte) core.ObjectInfo {
	t.Helper()
	obj, got, err := s.read(t, key, core.GetOptions{})
	if err != nil {
		t.Fatalf("get %q: %v", key, err)
	}
	if !bytes.Equal(got, data) {
		t.Fatalf("get %q: got %d bytes, want other %d bytes", key, len(got), len(data))
	}
	if obj.Size != int64(len(data)) || obj.Start != 0 || obj.Length != obj.Size || obj.Key != key || obj.Bucket != s.bucket.Name {
		t.Errorf("get %q: got size %d, start %d, length %d, key %q, bucket %s", key, obj.Size, obj.Start, obj.Length, obj.Key, obj.Bucket)
	}
	head, err := s.objects.Head(t.Context(), s.bucket, key, core.GetOptions{})
	if err != nil || head.Size != obj.Size || head.ETag != obj.ETag || head.Version != obj.Version {
		t.Errorf("head %q: got size %d, ETag %s, version %s, %v; get said %d, %s, %s",
			key, head.Size, head.ETag, head.Version, err, obj.Size, obj.ETag, obj.Version)
	}
	return obj.ObjectInfo
}

// wantAbsent checks that the key is known to hold nothing, in reads and lists.
func (s *suite) wantAbsent(t *testing.T, key string) {
	t.Helper()
	if _, err := s.objects.Head(t.Context(), s.bucket, key, core.GetOptions{}); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("head %q: got %v, want ErrNotFound", key, err)
	}
	l, err := s.objects.List(t.Context(), s.bucket, core.ListOptions{Prefix: key, Max: 10})
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	for _, o := range l.Objects {
		if o.Key == key {
			t.Errorf("list: %q is there, want it absent", key)
		}
	}
}

// wantErr checks the identity of an error.
func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// random returns n random bytes.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func md5Of(b []byte) []byte {
	s := md5.Sum(b)
	return s[:]
}

func md5Hex(b []byte) string { return hex.EncodeToString(md5Of(b)) }

// wantMD5 checks an ETag where the bucket's policy promises an MD5.
func (s *suite) wantMD5(t *testing.T, etag string, data []byte) {
	t.Helper()
	if p := s.bucket.Policy.ETag; p != "" && p != "md5" {
		return
	}
	if want := md5Hex(data); etag != want {
		t.Errorf("ETag of %d bytes: got %s, want %s", len(data), etag, want)
	}
}

func sized(n int) string { return fmt.Sprintf("%d bytes", n) }
