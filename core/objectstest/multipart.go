package objectstest

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/shoalstore/shoal/core"
)

// begin starts an upload.
func (s *suite) begin(t *testing.T, key string, o core.PutOptions) core.Upload {
	t.Helper()
	o.Request = core.NewRequestID()
	u, err := s.objects.CreateUpload(t.Context(), s.bucket, key, o)
	if err != nil {
		t.Fatalf("create upload of %q: %v", key, err)
	}
	if u.ID == "" || u.Key != key || u.Initiated.IsZero() {
		t.Errorf("create upload of %q: got %+v", key, u)
	}
	return u
}

// part uploads a part.
func (s *suite) part(t *testing.T, u core.Upload, number int, data []byte) core.CompletePart {
	t.Helper()
	p, err := s.objects.PutPart(t.Context(), s.bucket, u.Key, u.ID, number, bytes.NewReader(data),
		core.PutOptions{Size: int64(len(data)), MD5: md5Of(data), Request: core.NewRequestID()})
	if err != nil {
		t.Fatalf("put part %d of %q: %v", number, u.Key, err)
	}
	if p.Number != number || p.Size != int64(len(data)) || p.ETag == "" {
		t.Errorf("put part %d of %q: got %+v", number, u.Key, p)
	}
	s.wantMD5(t, p.ETag, data)
	return core.CompletePart{Number: number, ETag: p.ETag}
}

func (s *suite) complete(t *testing.T, u core.Upload, parts []core.CompletePart, o core.PutOptions) (core.ObjectInfo, error) {
	t.Helper()
	o.Request = core.NewRequestID()
	return s.objects.CompleteUpload(t.Context(), s.bucket, u.Key, u.ID, parts, o)
}

// anySize asks for no size.
func anySize() core.PutOptions { return core.PutOptions{Size: -1} }

func testMultipart(t *testing.T, s *suite) {
	datas := [][]byte{random(core.MinPart), random(core.MinPart + 1), random(small)}
	old := s.put(t, "key", []byte("old"))
	o := core.PutOptions{
		Headers: map[string]string{"Content-Type": "text/x"}, Meta: map[string]string{"m": "1"}, Tags: map[string]string{"t": "2"},
	}
	u := s.begin(t, "key", o)
	// Numbers need not be dense, nor come in order; the last one of a number counts.
	third := s.part(t, u, 9, datas[2])
	s.part(t, u, 2, random(small))
	second := s.part(t, u, 2, datas[1])
	first := s.part(t, u, 1, datas[0])
	s.part(t, u, 5, random(small)) // not named by the Complete
	if now := s.want(t, "key", []byte("old")); now.Version != old.Version {
		t.Errorf("parts made version %s", now.Version)
	}
	parts := []core.CompletePart{first, second, third}
	info, err := s.complete(t, u, parts, anySize())
	if err != nil {
		t.Fatalf("complete: %v", err)
	}
	data := slices.Concat(datas...)
	got := s.want(t, "key", data)
	if got.ETag != info.ETag || got.Version != info.Version || !strings.HasSuffix(got.ETag, "-3") {
		t.Errorf("complete: got ETag %s, version %s; get has %s, %s", info.ETag, info.Version, got.ETag, got.Version)
	}
	s.wantMultipartETag(t, got.ETag, datas)
	if !maps.Equal(got.Headers, o.Headers) || !maps.Equal(got.Meta, o.Meta) || !maps.Equal(got.Tags, o.Tags) {
		t.Errorf("complete: got headers %v, meta %v, tags %v", got.Headers, got.Meta, got.Tags)
	}
	if want := []int64{core.MinPart, core.MinPart + 1, small}; !slices.Equal(got.Parts, want) {
		t.Errorf("complete: got parts %v, want %v", got.Parts, want)
	}
	for i, d := range datas {
		obj, b, err := s.read(t, "key", core.GetOptions{Part: i + 1})
		if err != nil || !bytes.Equal(b, d) || obj.Size != int64(len(data)) {
			t.Errorf("part %d: got %d bytes, %v; want %d", i+1, len(b), err, len(d))
		}
	}
	_, _, err = s.read(t, "key", core.GetOptions{Part: 4})
	wantErr(t, "part 4", err, core.ErrRange)
	across := &core.ByteRange{Start: core.MinPart - 10, End: 2*core.MinPart + 10}
	if _, b, err := s.read(t, "key", core.GetOptions{Range: across}); err != nil || !bytes.Equal(b, data[across.Start:across.End+1]) {
		t.Errorf("range across parts: got %d bytes, %v", len(b), err)
	}

	// The same upload id gets the same answer, even after another write.
	s.put(t, "key", []byte("newer"))
	again, err := s.complete(t, u, parts, anySize())
	if err != nil || again.ETag != info.ETag || again.Version != info.Version {
		t.Errorf("complete again: got %s, %s, %v; want %s, %s", again.ETag, again.Version, err, info.ETag, info.Version)
	}
	s.want(t, "key", []byte("newer"))
	testMultipartChecksums(t, s)
}

func (s *suite) wantMultipartETag(t *testing.T, etag string, datas [][]byte) {
	t.Helper()
	if p := s.bucket.Policy.ETag; p != "" && p != "md5" {
		return
	}
	h := md5.New()
	for _, d := range datas {
		_, _ = h.Write(md5Of(d))
	}
	if want := fmt.Sprintf("%s-%d", hex.EncodeToString(h.Sum(nil)), len(datas)); etag != want {
		t.Errorf("multipart ETag: got %s, want %s", etag, want)
	}
}

func testMultipartChecksums(t *testing.T, s *suite) {
	for _, c := range []struct {
		sum, want core.Checksum
	}{
		// Of one part, "123456789": its own checksum, or that of it.
		{core.Checksum{Algorithm: "CRC64NVME"}, core.Checksum{Algorithm: "CRC64NVME", Value: "rosUhgp5mIg="}},
		{core.Checksum{Algorithm: "CRC32"}, core.Checksum{Algorithm: "CRC32", Value: "y/Q5Jg=="}},
		{core.Checksum{Algorithm: "SHA256", Composite: true}, core.Checksum{Algorithm: "SHA256", Value: "KSsNAHVmgy25S/rmic1w0at3KBH9RLn0nYVQ7p6mpJQ=-1", Composite: true}},
	} {
		u := s.begin(t, "sums", core.PutOptions{Checksum: c.sum})
		var part core.Checksum
		for _, k := range knownSums() {
			if k.Algorithm == c.sum.Algorithm {
				part = k
			}
		}
		p, err := s.objects.PutPart(t.Context(), s.bucket, u.Key, u.ID, 1, strings.NewReader(knownBody),
			core.PutOptions{Size: -1, Checksum: part, Request: core.NewRequestID()})
		if err != nil || p.Checksum != part {
			t.Fatalf("part with %+v: got %+v, %v", part, p.Checksum, err)
		}
		wrong := c.want
		wrong.Value = "AAAA" + wrong.Value[4:]
		named := []core.CompletePart{{Number: 1, ETag: p.ETag, Checksum: part}}
		_, err = s.complete(t, u, named, core.PutOptions{Size: -1, Checksum: wrong})
		wantErr(t, "complete with a wrong checksum", err, core.ErrChecksum)
		s.wantAbsent(t, "sums")
		badPart := named[0]
		badPart.Checksum.Value = "AAAA" + badPart.Checksum.Value[4:]
		_, err = s.complete(t, u, []core.CompletePart{badPart}, anySize())
		wantErr(t, "complete with a part's wrong checksum", err, core.ErrInvalidPart)
		info, err := s.complete(t, u, named, core.PutOptions{Size: int64(len(knownBody)), Checksum: c.want})
		if err != nil || info.Checksum != c.want {
			t.Errorf("complete with %+v: got %+v, %v; want %+v", c.sum, info.Checksum, err, c.want)
		}
		if err := s.objects.Delete(t.Context(), s.bucket, "sums", core.Conditions{}, core.NewRequestID()); err != nil {
			t.Fatalf("delete: %v", err)
		}
	}
}

func testMultipartErrors(t *testing.T, s *suite) {
	ctx := t.Context()
	u := s.begin(t, "key", core.PutOptions{})
	little := s.part(t, u, 1, random(small))
	last := s.part(t, u, 2, random(small))
	for name, c := range map[string]struct {
		parts []core.CompletePart
		o     core.PutOptions
		want  error
	}{
		"no parts":         {nil, anySize(), core.ErrInvalid},
		"small part":       {[]core.CompletePart{little, last}, anySize(), core.ErrPartTooSmall},
		"wrong order":      {[]core.CompletePart{last, little}, anySize(), core.ErrInvalid},
		"twice":            {[]core.CompletePart{last, last}, anySize(), core.ErrInvalid},
		"unknown part":     {[]core.CompletePart{{Number: 3, ETag: last.ETag}}, anySize(), core.ErrInvalidPart},
		"wrong ETag":       {[]core.CompletePart{{Number: 2, ETag: little.ETag}}, anySize(), core.ErrInvalidPart},
		"another size":     {[]core.CompletePart{last}, core.PutOptions{Size: small + 1}, core.ErrInvalid},
		"failed condition": {[]core.CompletePart{last}, core.PutOptions{Size: -1, Conditions: core.Conditions{IfMatch: []string{"x"}}}, core.ErrNotFound},
	} {
		_, err := s.complete(t, u, c.parts, c.o)
		wantErr(t, "complete with "+name, err, c.want)
	}
	s.wantAbsent(t, "key")
	for _, n := range []int{0, -1, core.MaxParts + 1} {
		_, err := s.objects.PutPart(ctx, s.bucket, u.Key, u.ID, n, strings.NewReader("x"), core.PutOptions{Size: 1})
		wantErr(t, fmt.Sprint("part ", n), err, core.ErrInvalid)
	}
	// A part whose body fails does not replace what was there.
	_, err := s.objects.PutPart(ctx, s.bucket, u.Key, u.ID, 2, &failing{r: strings.NewReader("xyz"), err: errBody},
		core.PutOptions{Size: 3, Request: core.NewRequestID()})
	wantErr(t, "part with a failing body", err, errBody)
	_, err = s.objects.PutPart(ctx, s.bucket, u.Key, u.ID, 3, strings.NewReader("xyz"),
		core.PutOptions{Size: 3, MD5: md5Of(nil), Request: core.NewRequestID()})
	wantErr(t, "part with another MD5", err, core.ErrChecksum)
	_, parts, more, err := s.objects.Parts(ctx, s.bucket, u.Key, u.ID, 0, 10)
	if err != nil || more || len(parts) != 2 || parts[1].ETag != last.ETag {
		t.Errorf("parts: got %+v, %v, %v; want the two", parts, more, err)
	}
	// It can still be completed after all these.
	if _, err := s.complete(t, u, []core.CompletePart{last}, anySize()); err != nil {
		t.Errorf("complete: %v", err)
	}

	u = s.begin(t, "aborted", core.PutOptions{})
	p := s.part(t, u, 1, random(small))
	if err := s.objects.AbortUpload(ctx, s.bucket, u.Key, u.ID); err != nil {
		t.Fatalf("abort: %v", err)
	}
	for name, try := range map[string]func(key, id string) error{
		"put part": func(key, id string) error {
			_, err := s.objects.PutPart(ctx, s.bucket, key, id, 1, strings.NewReader("x"), core.PutOptions{Size: 1, Request: core.NewRequestID()})
			return err
		},
		"complete": func(key, id string) error {
			_, err := s.objects.CompleteUpload(ctx, s.bucket, key, id, []core.CompletePart{p}, anySize())
			return err
		},
		"parts": func(key, id string) error { _, _, _, err := s.objects.Parts(ctx, s.bucket, key, id, 0, 10); return err },
		"abort": func(key, id string) error { return s.objects.AbortUpload(ctx, s.bucket, key, id) },
	} {
		wantErr(t, name+" after the abort", try(u.Key, u.ID), core.ErrNoSuchUpload)
		wantErr(t, name+" of an unknown id", try(u.Key, "nonsense"), core.ErrNoSuchUpload)
	}
	live := s.begin(t, "live", core.PutOptions{})
	wantErr(t, "abort under another key", s.objects.AbortUpload(ctx, s.bucket, "other", live.ID), core.ErrNoSuchUpload)
	s.wantAbsent(t, "aborted")
}

func testMultipartLists(t *testing.T, s *suite) {
	ctx := t.Context()
	u := s.begin(t, "parts", core.PutOptions{Headers: map[string]string{"Content-Type": "text/x"}})
	var want []int
	for _, n := range []int{7, 1, core.MaxParts, 3, 20} {
		s.part(t, u, n, random(n%50))
		want = append(want, n)
	}
	slices.Sort(want)
	var got []int
	for after, more := 0, true; more; {
		var parts []core.Part
		var err error
		var up core.Upload
		up, parts, more, err = s.objects.Parts(ctx, s.bucket, u.Key, u.ID, after, 2)
		if err != nil || len(parts) > 2 || len(parts) == 0 {
			t.Fatalf("parts after %d: got %d, %v", after, len(parts), err)
		}
		if up.ID != u.ID || up.Key != u.Key {
			t.Errorf("parts: got upload %q of %q", up.ID, up.Key)
		}
		for _, p := range parts {
			if p.Size != int64(p.Number%50) || p.Modified.IsZero() {
				t.Errorf("parts: got %+v", p)
			}
			got = append(got, p.Number)
			after = p.Number
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("parts: got %v, want %v", got, want)
	}

	type name struct{ key, id string }
	var uploads []name
	for _, k := range []string{"p/a", "p/b", "p/a", "p/c", "q", "p/a"} {
		uploads = append(uploads, name{k, s.begin(t, k, core.PutOptions{}).ID})
	}
	slices.SortFunc(uploads, func(a, b name) int {
		if c := strings.Compare(a.key, b.key); c != 0 {
			return c
		}
		return strings.Compare(a.id, b.id)
	})
	list := func(prefix string, limit int) (out []name) {
		var last name
		for more := true; more; {
			var page []core.Upload
			var err error
			page, more, err = s.objects.Uploads(ctx, s.bucket, prefix, last.key, last.id, limit)
			if err != nil || len(page) > limit || more && len(page) == 0 {
				t.Fatalf("uploads: got %d, more %v, %v", len(page), more, err)
			}
			for _, u := range page {
				last = name{u.Key, u.ID}
				out = append(out, last)
			}
		}
		return out
	}
	for limit := 1; limit < 7; limit++ {
		if got := list("p/", limit); !slices.Equal(got, uploads[:5]) {
			t.Errorf("uploads, pages of %d: got %v, want %v", limit, got, uploads[:5])
		}
	}
	if got := list("", 100); len(got) != 7 {
		t.Errorf("uploads: got %d, want 7", len(got))
	}
	// Objects listings do not show uploads.
	if got := s.pages(t, core.ListOptions{Max: 10}); len(got) != 0 {
		t.Errorf("list: got %q, want nothing", got)
	}
}

func testCopyPart(t *testing.T, s *suite) {
	data := random(core.MinPart + large)
	src := s.put(t, "src", data)
	u := s.begin(t, "dst", core.PutOptions{})
	copyPart := func(number int, o core.CopyOptions) (core.Part, error) {
		o.Put.Request = core.NewRequestID()
		return s.objects.CopyPart(t.Context(), s.bucket, "src", s.bucket, u.Key, u.ID, number, o)
	}
	whole, err := copyPart(1, core.CopyOptions{Source: core.Conditions{IfMatch: []string{src.ETag}}})
	if err != nil || whole.Size != int64(len(data)) {
		t.Fatalf("copy part: got %+v, %v", whole, err)
	}
	some, err := copyPart(2, core.CopyOptions{Range: &core.ByteRange{Start: 10, End: 99_999}})
	if err != nil || some.Size != 99_990 {
		t.Fatalf("copy part of a range: got %+v, %v", some, err)
	}
	_, err = copyPart(3, core.CopyOptions{Range: &core.ByteRange{Start: int64(len(data)), End: -1}})
	wantErr(t, "copy part beyond the end", err, core.ErrRange)
	_, err = copyPart(3, core.CopyOptions{Source: core.Conditions{IfNoneMatch: []string{src.ETag}}})
	wantErr(t, "copy part under a failed condition", err, core.ErrPrecondition)
	_, err = s.objects.CopyPart(t.Context(), s.bucket, "absent", s.bucket, u.Key, u.ID, 3, core.CopyOptions{})
	wantErr(t, "copy part of nothing", err, core.ErrNotFound)
	_, err = s.objects.CopyPart(t.Context(), s.bucket, "src", s.bucket, u.Key, "nonsense", 3, core.CopyOptions{})
	wantErr(t, "copy part to no upload", err, core.ErrNoSuchUpload)
	if errors.Is(err, core.ErrNotFound) {
		t.Error("copy part to no upload: also says ErrNotFound")
	}
	_, err = s.complete(t, u, []core.CompletePart{{Number: 1, ETag: whole.ETag}, {Number: 2, ETag: some.ETag}}, anySize())
	if err != nil {
		t.Fatalf("complete: %v", err)
	}
	s.want(t, "dst", slices.Concat(data, data[10:100_000]))
}
