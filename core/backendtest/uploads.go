package backendtest

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/shoalstore/shoal/core"
)

// putPart uploads a part.
func (s *suite) putPart(t *testing.T, key, upload string, number int, data []byte, o core.RemotePut) (core.RemotePart, error) {
	t.Helper()
	b := &body{data: data}
	o.Size, o.Open = int64(len(data)), b.open
	p, err := s.b.(core.RemoteUploader).PutPart(t.Context(), s.bucket, key, upload, number, o)
	b.check(t, "part")
	if err == nil && (p.Number != number || p.Size != int64(len(data)) || p.ETag == "") {
		t.Errorf("part %d of %d bytes: got %+v", number, len(data), p)
	}
	return p, err
}

// upload uploads an object in parts.
func (s *suite) upload(t *testing.T, key string, parts [][]byte, o core.RemotePut, c core.RemoteCondition) (core.RemoteObject, error) {
	t.Helper()
	u := s.b.(core.RemoteUploader)
	for _, p := range parts {
		o.Size += int64(len(p))
	}
	id, err := u.CreateUpload(t.Context(), s.bucket, key, o)
	if err != nil {
		return core.RemoteObject{}, err
	}
	var done []core.RemotePart
	for i, p := range parts {
		part, err := s.putPart(t, key, id, i+1, p, core.RemotePut{})
		if err != nil {
			return core.RemoteObject{}, err
		}
		done = append(done, part)
	}
	obj, err := u.CompleteUpload(t.Context(), s.bucket, key, id, done, c)
	if err != nil {
		if e := u.AbortUpload(t.Context(), s.bucket, key, id); e != nil {
			t.Errorf("abort: %v", e)
		}
	}
	return obj, err
}

func testUploads(t *testing.T, s *suite) {
	u := s.b.(core.RemoteUploader)
	size := int(s.b.Abilities().PartSize)
	parts := [][]byte{random(size), random(size + 7), random(11)}
	whole := slices.Concat(parts...)
	meta, tags := map[string]string{"one": "1"}, map[string]string{"t": "v"}
	s.put(t, "key", []byte("old"), core.RemotePut{})
	id, err := u.CreateUpload(t.Context(), s.bucket, "key", core.RemotePut{Size: int64(len(whole)), Headers: headers(), Meta: meta, Tags: tags})
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	done := make([]core.RemotePart, 3)
	for _, i := range []int{2, 0, 1} {
		o := core.RemotePut{}
		if i == 0 {
			o.MD5 = md5Of(parts[0])
			if _, err := s.putPart(t, "key", id, 1, random(size), core.RemotePut{}); err != nil {
				t.Errorf("part 1, replaced later: %v", err)
			}
		}
		if done[i], err = s.putPart(t, "key", id, i+1, parts[i], o); err != nil {
			t.Fatalf("part %d: %v", i+1, err)
		}
	}
	s.want(t, "key", []byte("old"))
	if !s.b.Abilities().NoList {
		if got := s.listAll(t, core.RemoteListOptions{}); !slices.Equal(got, []string{"key"}) {
			t.Errorf("list while an upload is under way: %q", got)
		}
	}
	obj, err := u.CompleteUpload(t.Context(), s.bucket, "key", id, done, core.RemoteCondition{})
	if err != nil {
		t.Fatalf("complete: %v", err)
	}
	head := s.want(t, "key", whole)
	if obj.Key != "key" || obj.Version != head.Version || obj.ETag != head.ETag || obj.Size != head.Size {
		t.Errorf("complete said %+v, HEAD says %+v", obj, head)
	}
	s.wantMeta(t, "key", headers(), meta, tags)
	for _, r := range []core.RemoteGet{{Offset: int64(size) - 5, Length: 10}, {Offset: int64(len(whole)) - 3, Length: -1, Version: obj.Version}} {
		end := int64(len(whole))
		if r.Length > 0 {
			end = r.Offset + r.Length
		}
		if _, got, err := s.get(t, "key", r); err != nil || !bytes.Equal(got, whole[r.Offset:end]) {
			t.Errorf("range %+v: got %s, %v", r, show(got), err)
		}
	}
	if _, err := s.upload(t, "small", [][]byte{[]byte("one small part")}, core.RemotePut{}, core.RemoteCondition{}); err != nil {
		t.Errorf("an upload of one part: %v", err)
	}
	s.want(t, "small", []byte("one small part"))
	if !s.b.Abilities().NoList {
		if got := s.listAll(t, core.RemoteListOptions{}); !slices.Equal(got, []string{"key", "small"}) {
			t.Errorf("list after the uploads: %q", got)
		}
	}
}

func testUploadErrors(t *testing.T, s *suite) {
	u := s.b.(core.RemoteUploader)
	ctx := t.Context()
	id, err := u.CreateUpload(ctx, s.bucket, "key", core.RemotePut{Size: 5})
	if err != nil {
		t.Fatal(err)
	}
	part, err := s.putPart(t, "key", id, 1, []byte("data"), core.RemotePut{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.putPart(t, "key", id, 1, []byte("other"), core.RemotePut{MD5: md5Of([]byte("data"))})
	wantErr(t, "a part with another MD5", err, core.ErrChecksum)
	b := &body{data: []byte("da"), err: errBody}
	_, err = u.PutPart(ctx, s.bucket, "key", id, 1, core.RemotePut{Size: 4, Open: b.open})
	if !errors.Is(err, errBody) {
		t.Errorf("a part whose body fails: got %v", err)
	}
	b.check(t, "a part whose body fails")
	bad := part
	bad.ETag, bad.Version = "0123456789abcdef0123456789abcdef", "123456789"
	_, err = u.CompleteUpload(ctx, s.bucket, "key", id, []core.RemotePart{bad}, core.RemoteCondition{})
	wantErr(t, "complete with a part of another ETag", err, core.ErrInvalidPart)
	s.gone(t, "key")
	missing := part
	missing.Number = 2
	_, err = u.CompleteUpload(ctx, s.bucket, "key", id, []core.RemotePart{part, missing}, core.RemoteCondition{})
	wantErr(t, "complete with a part that is not there", err, core.ErrInvalidPart, core.ErrPartTooSmall)
	s.gone(t, "key")
	for range 2 {
		if err := u.AbortUpload(ctx, s.bucket, "key", id); err != nil {
			t.Errorf("abort: %v", err)
		}
	}
	_, err = u.CompleteUpload(ctx, s.bucket, "key", id, []core.RemotePart{part}, core.RemoteCondition{})
	wantErr(t, "complete after abort", err, core.ErrNoSuchUpload, core.ErrInvalidPart)
	s.gone(t, "key")
	if !s.b.Abilities().NoList {
		if got := s.listAll(t, core.RemoteListOptions{}); len(got) > 0 {
			t.Errorf("list after abort: %q", got)
		}
	}
	_, err = u.CreateUpload(ctx, s.o.NoSuchBucket, "key", core.RemotePut{Size: 5})
	if err == nil {
		_, err = u.PutPart(ctx, s.o.NoSuchBucket, "key", id, 1, core.RemotePut{Size: 0, Open: (&body{}).open})
	}
	wantErr(t, "upload to no bucket", err, core.ErrNoSuchBucket)
}

func testCopy(t *testing.T, s *suite) {
	c := s.b.(core.RemoteCopier)
	ctx := t.Context()
	data := pattern(100_000)
	from := "dir/from ü+%20"
	meta, tags := map[string]string{"one": "1"}, map[string]string{"t": "v"}
	src := s.put(t, from, data, core.RemotePut{Headers: headers(), Meta: meta, Tags: tags})
	obj, err := c.Copy(ctx, s.bucket, from, src.Version, s.bucket, "to", core.RemotePut{})
	if err != nil {
		t.Fatalf("copy: %v", err)
	}
	head := s.want(t, "to", data)
	if obj.Key != "to" || obj.Version != head.Version || obj.ETag != head.ETag || obj.Size != head.Size {
		t.Errorf("copy said %+v, HEAD says %+v", obj, head)
	}
	s.wantMeta(t, "to", headers(), meta, tags)
	if _, err := c.Copy(ctx, s.bucket, from, "", s.bucket, "to2", core.RemotePut{}); err != nil {
		t.Errorf("copy of any version: %v", err)
	}
	s.want(t, "to2", data)
	other := core.RemotePut{Headers: map[string]string{"Content-Type": "text/other"}, Meta: map[string]string{"two": "2"}, Tags: map[string]string{"u": "w"}}
	if _, err := c.Copy(ctx, s.bucket, from, src.Version, s.bucket, "to", other); err != nil {
		t.Errorf("copy with other metadata: %v", err)
	}
	s.want(t, "to", data)
	s.wantMeta(t, "to", other.Headers, other.Meta, other.Tags)
	if _, err := c.Copy(ctx, s.bucket, from, src.Version, s.bucket, "to", core.RemotePut{Meta: map[string]string{"two": "2"}}); err != nil {
		t.Errorf("copy with some other metadata: %v", err)
	}
	s.wantMeta(t, "to", headers(), map[string]string{"two": "2"}, tags)
	none := map[string]string{}
	if _, err := c.Copy(ctx, s.bucket, from, src.Version, s.bucket, "to", core.RemotePut{Headers: none, Meta: none, Tags: none}); err != nil {
		t.Errorf("copy without metadata: %v", err)
	}
	s.wantMeta(t, "to", nil, nil, nil)
	_, err = c.Copy(ctx, s.bucket, "no", "", s.bucket, "to3", core.RemotePut{})
	wantErr(t, "copy of nothing", err, core.ErrNotFound)
	_, err = c.Copy(ctx, s.o.NoSuchBucket, "no", "", s.bucket, "to3", core.RemotePut{})
	wantErr(t, "copy out of no bucket", err, core.ErrNoSuchBucket, core.ErrNotFound)
	_, err = c.Copy(ctx, s.bucket, from, "", s.o.NoSuchBucket, "to3", core.RemotePut{})
	wantErr(t, "copy into no bucket", err, core.ErrNoSuchBucket)
	s.put(t, from, []byte("new"), core.RemotePut{})
	_, err = c.Copy(ctx, s.bucket, from, src.Version, s.bucket, "to3", core.RemotePut{})
	wantErr(t, "copy of a version that was replaced", err, core.ErrPrecondition)
	s.gone(t, "to3")
}
