package objectstest

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

func testBuckets(t *testing.T, s *suite) {
	ctx := t.Context()
	b := s.newBucket(t)
	got, err := s.objects.Bucket(ctx, b.Alias)
	if err != nil || got.ID != b.ID || got.Name != b.Name {
		t.Fatalf("bucket %q: got %+v, %v; want %+v", b.Alias, got, err, b)
	}
	if b.Alias != b.Name.Name || b.Created.IsZero() {
		t.Errorf("new bucket: got alias %q, created %v", b.Alias, b.Created)
	}
	all, err := s.objects.Buckets(ctx)
	if err != nil || !slices.ContainsFunc(all, func(x core.Bucket) bool { return x.ID == b.ID }) {
		t.Errorf("buckets: got %d and %v, want the new one among them", len(all), err)
	}
	_, err = s.objects.CreateBucket(ctx, b.Name, nil, "")
	wantErr(t, "create again", err, core.ErrExists)
	_, err = s.objects.CreateBucket(ctx, core.BucketName{Provider: core.Shoal, Name: b.Name.Name + "x"}, nil, b.Alias)
	wantErr(t, "create under a taken alias", err, core.ErrExists)
	_, err = s.objects.CreateBucket(ctx, core.BucketName{Provider: core.Shoal, Name: "No"}, nil, "")
	wantErr(t, "create with a bad name", err, core.ErrInvalid)
	_, err = s.objects.Bucket(ctx, b.Alias+"-not")
	wantErr(t, "unknown bucket", err, core.ErrNoSuchBucket)
	wantErr(t, "delete an unknown bucket", s.objects.DeleteBucket(ctx, b.Alias+"-not"), core.ErrNoSuchBucket)

	s.bucket = b
	s.put(t, "k", []byte("x"))
	wantErr(t, "delete a full bucket", s.objects.DeleteBucket(ctx, b.Alias), core.ErrNotEmpty)
	if err := s.objects.Delete(ctx, b, "k", core.Conditions{}, core.NewRequestID()); err != nil {
		t.Fatalf("delete: %v", err)
	}
	if err := s.objects.DeleteBucket(ctx, b.Alias); err != nil {
		t.Fatalf("delete the empty bucket: %v", err)
	}
	_, err = s.objects.Bucket(ctx, b.Alias)
	wantErr(t, "bucket after its removal", err, core.ErrNoSuchBucket)
	// A handle of the removed bucket must not reach one of the same name.
	again, err := s.objects.CreateBucket(ctx, b.Name, nil, "")
	if err != nil {
		t.Fatalf("create the name again: %v", err)
	}
	t.Cleanup(func() { s.dropBucket(t, again) })
	if again.ID == b.ID {
		t.Errorf("the name created again has the old id %d", b.ID)
	}
	_, err = s.objects.Put(ctx, b, "k", strings.NewReader("x"), core.PutOptions{Size: 1, Request: core.NewRequestID()})
	wantErr(t, "put by an old handle", err, core.ErrNoSuchBucket)
}

func testPutGet(t *testing.T, s *suite) {
	for _, n := range []int{0, 1, small, large, huge} {
		for _, declared := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, size declared %v", sized(n), declared), func(t *testing.T) {
				data := random(n)
				o := core.PutOptions{
					Size:    -1,
					Headers: map[string]string{"Content-Type": "text/plain", "Cache-Control": "no-cache"},
					Meta:    map[string]string{"colour": "blue", "empty": ""},
					Tags:    map[string]string{"a": "1", "b": ""},
					MD5:     md5Of(data), Request: core.NewRequestID(),
				}
				if declared {
					o.Size = int64(n)
				}
				info, err := s.objects.Put(t.Context(), s.bucket, "key", io.MultiReader(bytes.NewReader(data)), o)
				if err != nil {
					t.Fatalf("put: %v", err)
				}
				s.wantMD5(t, info.ETag, data)
				got := s.want(t, "key", data)
				if got.ETag != info.ETag || got.Version != info.Version || !got.Modified.Equal(info.Modified) {
					t.Errorf("get: got ETag %s, version %s, modified %s; put said %s, %s, %s",
						got.ETag, got.Version, got.Modified, info.ETag, info.Version, info.Modified)
				}
				if age := got.Modified.Sub(s.bucket.Created); age.Abs() > time.Hour {
					t.Errorf("modified: got %s, want about %s", got.Modified, s.bucket.Created)
				}
				if !maps.Equal(got.Headers, o.Headers) || !maps.Equal(got.Meta, o.Meta) || !maps.Equal(got.Tags, o.Tags) {
					t.Errorf("get: got headers %v, meta %v, tags %v", got.Headers, got.Meta, got.Tags)
				}
			})
		}
	}
	first := s.put(t, "versions", []byte("a"))
	second := s.put(t, "versions", []byte("b"))
	if second.Version.Compare(first.Version) <= 0 {
		t.Errorf("version: got %s after %s, want a later one", second.Version, first.Version)
	}
	info := s.want(t, "versions", []byte("b"))
	if len(info.Headers) != 0 || len(info.Meta) != 0 || len(info.Tags) != 0 {
		t.Errorf("put without metadata: got headers %v, meta %v, tags %v", info.Headers, info.Meta, info.Tags)
	}
}

// oddKeys are keys that only a store which takes keys as bytes keeps apart.
func oddKeys() []string {
	return []string{
		"a", "a/", "a//", "/a", "//a", "/", ".", "..", "../a", "a/../b", "a/./b",
		" ", " a ", "a b", "a+b", "a%20b", "a%2Fb", "a?b", "a#b", "a&b=c", "a\\b", "a\"b'c<d>",
		"\x00", "a\x00b", "a\nb", "\r\n", "\t", "\x7f", "\u00a0", "ä", "a\u0308", "日本語", "\U0001F41F", "\uffff", "\uFFFD",
		strings.Repeat("k", core.MaxKey), strings.Repeat("ü", core.MaxKey/2), strings.Repeat("a/", core.MaxKey/2),
	}
}

func testKeys(t *testing.T, s *suite) {
	keys := oddKeys()
	for i, k := range keys {
		s.put(t, k, []byte(fmt.Sprint("data of ", i)))
	}
	for i, k := range keys {
		s.want(t, k, []byte(fmt.Sprint("data of ", i)))
	}
	l, err := s.objects.List(t.Context(), s.bucket, core.ListOptions{Max: 1000})
	if err != nil || l.More {
		t.Fatalf("list: got more %v, %v", l.More, err)
	}
	var got []string
	for _, o := range l.Objects {
		got = append(got, o.Key)
	}
	slices.Sort(keys)
	if !slices.Equal(got, keys) {
		t.Errorf("list: got %q, want %q", got, keys)
	}
	_, err = s.objects.Put(t.Context(), s.bucket, strings.Repeat("k", core.MaxKey+1), strings.NewReader(""), core.PutOptions{})
	wantErr(t, "put of a long key", err, core.ErrTooLarge)
	for _, k := range []string{"", "\xff", "a\xc0\xaf"} {
		_, err = s.objects.Put(t.Context(), s.bucket, k, strings.NewReader(""), core.PutOptions{})
		wantErr(t, fmt.Sprintf("put of key %q", k), err, core.ErrInvalid)
	}
}

func testRanges(t *testing.T, s *suite) {
	for _, n := range []int{0, 1, small, large, huge} {
		key := sized(n)
		data := random(n)
		s.put(t, key, data)
		m := int64(n)
		for _, r := range []core.ByteRange{
			{Start: 0, End: 0},
			{Start: 0, End: -1},
			{Start: 0, End: m - 1},
			{Start: 0, End: m},
			{Start: 1, End: 1},
			{Start: m / 2, End: -1},
			{Start: m / 3, End: 2 * m / 3},
			{Start: m - 1, End: -1},
			{Start: m, End: -1},
			{Start: m + 1, End: m + 2},
			{Start: 65535, End: 65536},
			{Start: 65536, End: 200000},
			{Start: 262143, End: 262145},
			{Start: 1<<20 - 1, End: 1<<20 + 1},
			{Start: -1, End: 0},
			{Start: -1, End: 1},
			{Start: -1, End: m},
			{Start: -1, End: m + 1},
			{Start: -1, End: 70000},
		} {
			obj, got, err := s.read(t, key, core.GetOptions{Range: &r})
			start, length, want := r.Resolve(m)
			if want != nil {
				wantErr(t, fmt.Sprintf("%s, range %+v", key, r), err, core.ErrRange)
				continue
			}
			if err != nil {
				t.Errorf("%s, range %+v: %v", key, r, err)
				continue
			}
			if obj.Start != start || obj.Length != length || obj.Size != m || !bytes.Equal(got, data[start:start+length]) {
				t.Errorf("%s, range %+v: got %d bytes, start %d, size %d; want the %d from %d",
					key, r, len(got), obj.Start, obj.Size, length, start)
			}
		}
		obj, got, err := s.read(t, key, core.GetOptions{Part: 1})
		if err != nil || obj.Start != 0 || !bytes.Equal(got, data) {
			t.Errorf("%s, part 1: got %d bytes, %v; want all", key, len(got), err)
		}
		_, _, err = s.read(t, key, core.GetOptions{Part: 2})
		wantErr(t, key+", part 2", err, core.ErrRange)
	}
	// A body that is closed early leaves nothing behind that hinders others.
	obj, err := s.objects.Get(t.Context(), s.bucket, sized(huge), core.GetOptions{})
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	if _, err := io.ReadFull(obj.Body, make([]byte, 100)); err != nil {
		t.Errorf("read 100 bytes: %v", err)
	}
	if err := obj.Body.Close(); err != nil {
		t.Errorf("close early: %v", err)
	}
}

func testConditions(t *testing.T, s *suite) {
	info := s.put(t, "key", []byte("first"))
	past, future := info.Modified.Add(-time.Hour), info.Modified.Add(time.Hour)
	for _, c := range []struct {
		name string
		c    core.Conditions
		want error
	}{
		{"if-match", core.Conditions{IfMatch: []string{"x", info.ETag}}, nil},
		{"if-match any", core.Conditions{IfMatch: []string{"*"}}, nil},
		{"if-match other", core.Conditions{IfMatch: []string{"x"}}, core.ErrPrecondition},
		{"if-none-match", core.Conditions{IfNoneMatch: []string{info.ETag}}, core.ErrNotModified},
		{"if-none-match any", core.Conditions{IfNoneMatch: []string{"*"}}, core.ErrNotModified},
		{"if-none-match other", core.Conditions{IfNoneMatch: []string{"x"}}, nil},
		{"if-modified-since past", core.Conditions{IfModifiedSince: past}, nil},
		{"if-modified-since future", core.Conditions{IfModifiedSince: future}, core.ErrNotModified},
		{"if-unmodified-since past", core.Conditions{IfUnmodifiedSince: past}, core.ErrPrecondition},
		{"if-unmodified-since future", core.Conditions{IfUnmodifiedSince: future}, nil},
		{"etag overrides date", core.Conditions{IfMatch: []string{info.ETag}, IfUnmodifiedSince: past}, nil},
	} {
		_, _, err := s.read(t, "key", core.GetOptions{Conditions: c.c})
		wantErr(t, "get "+c.name, err, c.want)
		_, err = s.objects.Head(t.Context(), s.bucket, "key", core.GetOptions{Conditions: c.c})
		wantErr(t, "head "+c.name, err, c.want)
	}
	// A range is looked at after the conditions.
	_, _, err := s.read(t, "key", core.GetOptions{Range: &core.ByteRange{Start: 100, End: -1}, Conditions: core.Conditions{IfMatch: []string{"x"}}})
	wantErr(t, "range and failed condition", err, core.ErrPrecondition)

	put := func(key, data string, c core.Conditions) error {
		_, err := s.objects.Put(t.Context(), s.bucket, key, strings.NewReader(data),
			core.PutOptions{Size: int64(len(data)), Conditions: c, Request: core.NewRequestID()})
		return err
	}
	wantErr(t, "put if-none-match any", put("key", "second", core.Conditions{IfNoneMatch: []string{"*"}}), core.ErrPrecondition)
	wantErr(t, "put if-match other", put("key", "second", core.Conditions{IfMatch: []string{"x"}}), core.ErrPrecondition)
	s.want(t, "key", []byte("first"))
	wantErr(t, "put if-match", put("key", "second", core.Conditions{IfMatch: []string{info.ETag}}), nil)
	wantErr(t, "put if-match the old ETag", put("key", "third", core.Conditions{IfMatch: []string{info.ETag}}), core.ErrPrecondition)
	s.want(t, "key", []byte("second"))
	wantErr(t, "put if-match any, absent", put("absent", "x", core.Conditions{IfMatch: []string{"*"}}), core.ErrNotFound)
	s.wantAbsent(t, "absent")
	wantErr(t, "put if-none-match any, absent", put("absent", "x", core.Conditions{IfNoneMatch: []string{"*"}}), nil)
	s.want(t, "absent", []byte("x"))
}

func testDelete(t *testing.T, s *suite) {
	del := func(key string, c core.Conditions) error {
		return s.objects.Delete(t.Context(), s.bucket, key, c, core.NewRequestID())
	}
	wantErr(t, "delete what is absent", del("absent", core.Conditions{}), nil)
	for _, n := range []int{0, small, large} {
		info := s.put(t, "key", random(n))
		wantErr(t, "delete if-match other", del("key", core.Conditions{IfMatch: []string{"x"}}), core.ErrPrecondition)
		if _, err := s.objects.Head(t.Context(), s.bucket, "key", core.GetOptions{}); err != nil {
			t.Errorf("head after a refused delete: %v", err)
		}
		wantErr(t, "delete if-match", del("key", core.Conditions{IfMatch: []string{info.ETag}}), nil)
		s.wantAbsent(t, "key")
		wantErr(t, "delete if-match, absent", del("key", core.Conditions{IfMatch: []string{info.ETag}}), core.ErrNotFound)
	}
	s.put(t, "key", []byte("again"))
	s.want(t, "key", []byte("again"))
	wantErr(t, "delete", del("key", core.Conditions{}), nil)
	s.wantAbsent(t, "key")
}

func testNotFound(t *testing.T, s *suite) {
	ctx := t.Context()
	_, err := s.objects.Get(ctx, s.bucket, "absent", core.GetOptions{})
	wantErr(t, "get", err, core.ErrNotFound)
	_, err = s.objects.Get(ctx, s.bucket, "absent", core.GetOptions{Conditions: core.Conditions{IfMatch: []string{"x"}}})
	wantErr(t, "conditional get", err, core.ErrNotFound)
	_, err = s.objects.Copy(ctx, s.bucket, "absent", s.bucket, "to", core.CopyOptions{Put: core.PutOptions{Request: core.NewRequestID()}})
	wantErr(t, "copy", err, core.ErrNotFound)
	s.wantAbsent(t, "to")

	gone := core.Bucket{ID: 1 << 31, Name: core.BucketName{Provider: core.Shoal, Name: "gone"}, Alias: "gone", State: core.BucketOK}
	_, err = s.objects.Get(ctx, gone, "k", core.GetOptions{})
	wantErr(t, "get of no bucket", err, core.ErrNoSuchBucket)
	_, err = s.objects.List(ctx, gone, core.ListOptions{Max: 1})
	wantErr(t, "list of no bucket", err, core.ErrNoSuchBucket)
	wantErr(t, "delete in no bucket", s.objects.Delete(ctx, gone, "k", core.Conditions{}, core.NewRequestID()), core.ErrNoSuchBucket)
	_, err = s.objects.CreateUpload(ctx, gone, "k", core.PutOptions{})
	wantErr(t, "upload to no bucket", err, core.ErrNoSuchBucket)
}
