package objectstest

import (
	"maps"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

// describe stores an object with metadata of all kinds.
func (s *suite) describe(t *testing.T, key string, data []byte) core.ObjectInfo {
	t.Helper()
	info, err := s.objects.Put(t.Context(), s.bucket, key, &failingNever{data}, core.PutOptions{
		Size: int64(len(data)), Headers: map[string]string{"Content-Type": "text/x-old"},
		Meta: map[string]string{"m": "old"}, Tags: map[string]string{"t": "old"}, Request: core.NewRequestID(),
	})
	if err != nil {
		t.Fatalf("put: %v", err)
	}
	return info
}

func testCopy(t *testing.T, s *suite) {
	other := s.newBucket(t)
	in := func(b core.Bucket) *suite { return &suite{objects: s.objects, bucket: b} }
	for _, n := range []int{0, small, huge} {
		data := random(n)
		src := s.describe(t, "src", data)
		o := core.CopyOptions{Put: core.PutOptions{Request: core.NewRequestID()}}
		info, err := s.objects.Copy(t.Context(), s.bucket, "src", other, "dst", o)
		if err != nil {
			t.Fatalf("copy of %d bytes: %v", n, err)
		}
		got := in(other).want(t, "dst", data)
		if got.ETag != info.ETag || got.Version != info.Version {
			t.Errorf("copy: get has ETag %s, version %s; copy said %s, %s", got.ETag, got.Version, info.ETag, info.Version)
		}
		if !maps.Equal(got.Headers, src.Headers) || !maps.Equal(got.Meta, src.Meta) || !maps.Equal(got.Tags, src.Tags) {
			t.Errorf("copy: got headers %v, meta %v, tags %v; want the source's", got.Headers, got.Meta, got.Tags)
		}
		// Repeated, it has the first answer though the source has changed.
		s.put(t, "src", []byte("changed"))
		again, err := s.objects.Copy(t.Context(), s.bucket, "src", other, "dst", o)
		if err != nil || again.Version != info.Version {
			t.Errorf("copy again: got %s, %v; want %s", again.Version, err, info.Version)
		}
		in(other).want(t, "dst", data)

		// Onto itself: the data and its ETag stay.
		src = s.describe(t, "src", data)
		o = core.CopyOptions{ReplaceTags: true, Put: core.PutOptions{Tags: map[string]string{"t": "new"}, Request: core.NewRequestID()}}
		if _, err = s.objects.Copy(t.Context(), s.bucket, "src", s.bucket, "src", o); err != nil {
			t.Fatalf("copy onto itself: %v", err)
		}
		got = s.want(t, "src", data)
		if got.Tags["t"] != "new" || got.Meta["m"] != "old" || got.Headers["Content-Type"] != "text/x-old" || got.ETag != src.ETag {
			t.Errorf("new tags: got %v, meta %v, headers %v, ETag %s", got.Tags, got.Meta, got.Headers, got.ETag)
		}
		o = core.CopyOptions{Replace: true, Put: core.PutOptions{
			Headers: map[string]string{"Content-Type": "text/x-new"}, Meta: map[string]string{"n": "new"}, Request: core.NewRequestID(),
		}}
		if _, err = s.objects.Copy(t.Context(), s.bucket, "src", s.bucket, "src", o); err != nil {
			t.Fatalf("copy onto itself: %v", err)
		}
		got = s.want(t, "src", data)
		if got.Tags["t"] != "new" || got.Meta["n"] != "new" || got.Meta["m"] != "" || got.Headers["Content-Type"] != "text/x-new" || got.ETag != src.ETag {
			t.Errorf("new metadata: got tags %v, meta %v, headers %v, ETag %s", got.Tags, got.Meta, got.Headers, got.ETag)
		}
	}
	testCopyConditions(t, s, other)
}

func testCopyConditions(t *testing.T, s *suite, to core.Bucket) {
	src := s.put(t, "src", []byte(knownBody))
	past, future := src.Modified.Add(-time.Hour), src.Modified.Add(time.Hour)
	attempt := func(key string, source, put core.Conditions) error {
		_, err := s.objects.Copy(t.Context(), s.bucket, "src", to, key,
			core.CopyOptions{Source: source, Put: core.PutOptions{Conditions: put, Request: core.NewRequestID()}})
		return err
	}
	none := core.Conditions{}
	for name, c := range map[string]struct {
		source, put core.Conditions
		want        error
	}{
		"source if-match":                 {core.Conditions{IfMatch: []string{src.ETag}}, none, nil},
		"source if-match other":           {core.Conditions{IfMatch: []string{"x"}}, none, core.ErrPrecondition},
		"source if-none-match":            {core.Conditions{IfNoneMatch: []string{src.ETag}}, none, core.ErrPrecondition},
		"source if-modified-since past":   {core.Conditions{IfModifiedSince: past}, none, nil},
		"source if-modified-since future": {core.Conditions{IfModifiedSince: future}, none, core.ErrPrecondition},
		"source if-unmodified-since past": {core.Conditions{IfUnmodifiedSince: past}, none, core.ErrPrecondition},
		"source if-match beats date":      {core.Conditions{IfMatch: []string{src.ETag}, IfUnmodifiedSince: past}, none, nil},
		"if-none-match any, absent":       {none, core.Conditions{IfNoneMatch: []string{"*"}}, nil},
		"if-match, absent":                {none, core.Conditions{IfMatch: []string{"*"}}, core.ErrNotFound},
	} {
		wantErr(t, name, attempt(name, c.source, c.put), c.want)
		copied := &suite{objects: s.objects, bucket: to}
		if c.want != nil {
			copied.wantAbsent(t, name)
			continue
		}
		copied.want(t, name, []byte(knownBody))
		wantErr(t, name+", again with if-none-match any", attempt(name, none, core.Conditions{IfNoneMatch: []string{"*"}}), core.ErrPrecondition)
	}
	// A checksum that the source does not have is computed on the way.
	for _, sum := range knownSums() {
		info, err := s.objects.Copy(t.Context(), s.bucket, "src", to, "sum", core.CopyOptions{
			Put: core.PutOptions{Checksum: core.Checksum{Algorithm: sum.Algorithm}, Request: core.NewRequestID()},
		})
		if err != nil || info.Checksum != sum {
			t.Errorf("copy with %s: got %+v, %v", sum.Algorithm, info.Checksum, err)
		}
	}
}
