package backendtest

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/shoalstore/shoal/core"
)

func testAbilities(t *testing.T, s *suite) {
	a := s.b.Abilities()
	if !a.NoList && a.PageSize < 1 {
		t.Errorf("a page of %d keys", a.PageSize)
	}
	if is, has := uploads(s.b), a.PartSize > 0 && a.MaxParts > 0; is != has {
		t.Errorf("uploads: %v, but of %d parts of %d bytes", is, a.MaxParts, a.PartSize)
	}
	if a.ReadOnly && (a.PutIf || a.DeleteIf) {
		t.Error("conditions on writes, and no writes")
	}
	if a != s.b.Abilities() {
		t.Error("abilities change")
	}
}

// testReadOnly: what cannot be written is refused.
func testReadOnly(t *testing.T, s *suite) {
	s.seed(t, "key", []byte("data"))
	wantErr(t, "put", put0(t.Context(), s.b, s.bucket, "key", []byte("new"), core.RemotePut{}), errors.ErrUnsupported)
	wantErr(t, "delete", s.b.Delete(t.Context(), s.bucket, "key", core.RemoteCondition{}), errors.ErrUnsupported)
	s.want(t, "key", []byte("data"))
}

func testBuckets(t *testing.T, s *suite) {
	ctx := t.Context()
	if list, err := s.b.Buckets(ctx); err == nil {
		if !slices.Contains(list, s.bucket) {
			t.Errorf("buckets: got %q, want %q among them", list, s.bucket)
		}
	} else {
		wantErr(t, "buckets", err, errors.ErrUnsupported)
	}
	if err := s.b.HeadBucket(ctx, s.bucket); err != nil {
		t.Errorf("head of the bucket: %v", err)
	}
	no := s.o.NoSuchBucket
	wantErr(t, "head of no bucket", s.b.HeadBucket(ctx, no), core.ErrNoSuchBucket)
	// HEAD has no body in which a server could tell one from the other.
	_, err := s.b.Head(ctx, no, "key")
	wantErr(t, "head in no bucket", err, core.ErrNoSuchBucket, core.ErrNotFound)
	_, _, err = s.b.Get(ctx, no, "key", wholeObject())
	wantErr(t, "get in no bucket", err, core.ErrNoSuchBucket)
	if !s.b.Abilities().NoList {
		_, err = s.b.List(ctx, no, core.RemoteListOptions{Max: 10})
		wantErr(t, "list of no bucket", err, core.ErrNoSuchBucket)
	}
	if s.b.Abilities().ReadOnly {
		return
	}
	wantErr(t, "put in no bucket", put0(ctx, s.b, no, "key", []byte("x"), core.RemotePut{}), core.ErrNoSuchBucket)
	wantErr(t, "delete in no bucket", s.b.Delete(ctx, no, "key", core.RemoteCondition{}), core.ErrNoSuchBucket)
	if m, ok := s.b.(core.RemoteBucketMaker); ok {
		fresh := newName("made")
		if err := m.CreateBucket(ctx, fresh); err != nil {
			t.Fatalf("create bucket: %v", err)
		}
		if err := s.b.HeadBucket(ctx, fresh); err != nil {
			t.Errorf("head of the new bucket: %v", err)
		}
		wantErr(t, "create it again", m.CreateBucket(ctx, fresh), core.ErrExists)
	}
}

func testPutGet(t *testing.T, s *suite) {
	s.gone(t, "key")
	if s.b.Abilities().ReadOnly {
		for _, n := range []int{0, 1, 1000, 300 << 10, 6<<20 + 1} {
			data := random(n)
			s.seed(t, "key", data)
			s.want(t, "key", data)
		}
		return
	}
	var last core.RemoteObject
	for _, n := range []int{0, 1, 1000, 300 << 10, 6<<20 + 1} {
		data := random(n)
		obj := s.put(t, "key", data, core.RemotePut{})
		head := s.want(t, "key", data)
		if head.Version != obj.Version || head.ETag != obj.ETag {
			t.Errorf("put said version %q, ETag %q; head says %q, %q", obj.Version, obj.ETag, head.Version, head.ETag)
		}
		if obj.Version == last.Version || obj.ETag == last.ETag {
			t.Errorf("other content, but version %q after %q, ETag %q after %q", obj.Version, last.Version, obj.ETag, last.ETag)
		}
		last = obj
	}
	s.gone(t, "key2")
	s.gone(t, "ke")
}

// errBody is what a body under test fails with.
var errBody = errors.New("body broke")

func testBodies(t *testing.T, s *suite) {
	old := []byte("old")
	s.put(t, "key", old, core.RemotePut{})
	for _, n := range []int{10, 300 << 10, 3 << 20} {
		data := random(n)
		for what, b := range map[string]*body{
			"cannot be opened":        {openErr: errBody},
			"fails at once":           {err: errBody},
			"fails in the middle":     {data: data[:n/2], err: errBody},
			"fails in place of EOF":   {data: data[:n-1], err: errBody},
			"ends too early":          {data: data[:n-1]},
			"ends in the beginning":   {},
			"ends at half the length": {data: data[:n/2]},
		} {
			for _, sum := range [][]byte{nil, md5Of(data)} {
				_, err := s.b.Put(t.Context(), s.bucket, "key", core.RemotePut{Size: int64(n), Open: b.open, MD5: sum})
				b.check(t, what)
				if failing := b.err != nil || b.openErr != nil; err == nil || failing && !errors.Is(err, errBody) {
					t.Errorf("a body of %d bytes that %s: got %v", n, what, err)
				}
				if errors.Is(err, core.ErrUnknownOutcome) {
					t.Errorf("a body of %d bytes that %s: got %v; nothing can have been written", n, what, err)
				}
			}
			s.want(t, "key", old)
		}
	}
}

func testRanges(t *testing.T, s *suite) {
	const n = 1000
	data := pattern(n)
	s.seed(t, "key", data)
	s.seed(t, "empty", nil)
	for _, r := range []struct{ offset, length, end int64 }{
		{0, -1, n}, {0, 1, 1}, {0, n, n}, {0, n + 1, n}, {0, 8 << 20, n}, {999, 1, n}, {999, 5, n}, {500, -1, n}, {10, 20, 30}, {990, 100, n},
	} {
		obj, got, err := s.get(t, "key", core.RemoteGet{Offset: r.offset, Length: r.length})
		if want := data[r.offset:r.end]; err != nil || !bytes.Equal(got, want) {
			t.Errorf("range %d+%d: got %s, %v; want %s", r.offset, r.length, show(got), err, show(want))
		}
		if obj.Size != n || obj.Key != "key" || obj.Version == "" || obj.ETag == "" || obj.Modified.IsZero() {
			t.Errorf("range %d+%d: got %+v, want the whole object's size %d", r.offset, r.length, obj, n)
		}
		if obj.MD5 != nil && !bytes.Equal(obj.MD5, md5Of(data)) {
			t.Errorf("range %d+%d: MD5 %x is not the whole object's", r.offset, r.length, obj.MD5)
		}
		wantChecksum(t, "range", obj.Checksum, data)
	}
	for _, r := range []struct {
		key            string
		offset, length int64
	}{
		{"key", n, -1},
		{"key", n, 1},
		{"key", 5000, -1},
		{"key", 5000, 10},
		{"key", 1 << 40, 1},
		{"empty", 0, 1},
		{"empty", 0, 8 << 20},
		{"empty", 1, -1},
		{"empty", 7, 1},
	} {
		_, _, err := s.get(t, r.key, core.RemoteGet{Offset: r.offset, Length: r.length})
		wantErr(t, "range outside of "+r.key, err, core.ErrRange)
	}
	if obj, got, err := s.get(t, "empty", wholeObject()); err != nil || len(got) != 0 || obj.Size != 0 {
		t.Errorf("the whole of an empty object: got %+v, %q, %v", obj, got, err)
	}
	for _, r := range []core.RemoteGet{{Offset: -1, Length: 5}, {Offset: 0, Length: -2}, {Offset: 0, Length: 0}} {
		_, _, err := s.get(t, "key", r)
		wantErr(t, "a range that is none", err, core.ErrInvalid)
	}
	_, _, err := s.get(t, "no", core.RemoteGet{Offset: 5, Length: 5})
	wantErr(t, "range of no object", err, core.ErrNotFound)
}

func testVersions(t *testing.T, s *suite) {
	one, two := []byte("content one"), []byte("content two, longer")
	s.seed(t, "key", one)
	first, err := s.b.Head(t.Context(), s.bucket, "key")
	if err != nil {
		t.Fatal(err)
	}
	read := func(v core.RemoteVersion, offset int64) ([]byte, error) {
		_, got, err := s.get(t, "key", core.RemoteGet{Offset: offset, Length: -1, Version: v})
		return got, err
	}
	if got, err := read(first.Version, 0); err != nil || !bytes.Equal(got, one) {
		t.Errorf("get of the version: got %q, %v", got, err)
	}
	s.seed(t, "key", two)
	second, err := s.b.Head(t.Context(), s.bucket, "key")
	if err != nil {
		t.Fatal(err)
	}
	for _, offset := range []int64{0, 3} {
		if got, err := read(second.Version, offset); err != nil || !bytes.Equal(got, two[offset:]) {
			t.Errorf("get of the new version: got %q, %v", got, err)
		}
		_, err := read(first.Version, offset)
		wantErr(t, "get of a version that was replaced", err, core.ErrPrecondition)
	}
	if s.b.Abilities().ReadOnly {
		return
	}
	if err := s.b.Delete(t.Context(), s.bucket, "key", core.RemoteCondition{}); err != nil {
		t.Fatal(err)
	}
	_, err = read(second.Version, 0)
	wantErr(t, "get of a version that was deleted", err, core.ErrNotFound, core.ErrPrecondition)
}

func testDelete(t *testing.T, s *suite) {
	s.put(t, "key", []byte("x"), core.RemotePut{})
	s.put(t, "key2", []byte("y"), core.RemotePut{})
	for range 2 {
		if err := s.b.Delete(t.Context(), s.bucket, "key", core.RemoteCondition{}); err != nil {
			t.Errorf("delete: %v", err)
		}
		s.gone(t, "key")
	}
	s.want(t, "key2", []byte("y"))
	if err := s.b.Delete(t.Context(), s.bucket, "never/was", core.RemoteCondition{}); err != nil {
		t.Errorf("delete of what never was: %v", err)
	}
}

// oddKeys are keys that S3 allows, some of which others may mangle.
func oddKeys() []string {
	return []string{
		"plain", "a b", " lead", "trail ", "a+b", "a%20b", "a%2Fb", "%", "%zz", "q?a=b&c", "h#ash", "semi;colon", "it's (1) [x]~!*", "<&>\"",
		`back\slash`, "ä-日本語-🐟", "\u00e4", "a\u0308", "UPPER", "upper", "d/ir/x", "d/ir/y/", "d", "t/", "a//b", "a/b", "//c", "/c", "c/",
		".", "..", "./x", "../x", "e/./f", "e/../f", "e/f/..", "e/f", "...", "new\nline", "tab\t", "nul\x00", "soh\x01", "esc\x1b[1m", "del\x7f", "c1\u0085", "line\u2028sep",
		"cr\r", "\ufffd", "\U0010ffff", ".hidden", "-dash", "~tilde", "$dollar", "con:1", "a\ufeff", strings.Repeat("n", 200) + "/" + strings.Repeat("m", 200),
		strings.Repeat("long/", 200) + "end", strings.Repeat("w", 1024), ".shoal-", "x.tmp", "file.lock",
	}
}

// Keys are kept as they are, or refused.
func testKeys(t *testing.T, s *suite) {
	kept := map[string][]byte{}
	for _, key := range oddKeys() {
		if s.o.CannotHold != nil && s.o.CannotHold(key) != "" {
			continue
		}
		data := []byte("content of " + key)
		obj, err := s.tryPut(t, key, data, core.RemotePut{})
		switch {
		case err == nil:
			kept[key] = data
			if obj.Key != key {
				t.Errorf("put %q: got key %q", key, obj.Key)
			}
		case errors.Is(err, core.ErrInvalid) || errors.Is(err, core.ErrTooLarge):
			_, e := s.b.Head(t.Context(), s.bucket, key)
			wantErr(t, "head of a key that cannot be", e, core.ErrNotFound, core.ErrInvalid, core.ErrTooLarge)
		default:
			t.Errorf("put %q: got %v, want it kept or ErrInvalid", key, err)
		}
	}
	if len(kept) < 12 {
		t.Errorf("only %d of %d keys were kept", len(kept), len(oddKeys()))
	}
	for key, data := range kept {
		s.want(t, key, data)
	}
	if !s.b.Abilities().NoList {
		if got, want := s.listAll(t, core.RemoteListOptions{}), slices.Sorted(maps.Keys(kept)); !slices.Equal(got, want) {
			t.Errorf("list: got %q, want %q", got, want)
		}
	}
	for key := range kept {
		if err := s.b.Delete(t.Context(), s.bucket, key, core.RemoteCondition{}); err != nil {
			t.Errorf("delete %q: %v", key, err)
		}
		s.gone(t, key)
	}
	if !s.b.Abilities().NoList {
		if got := s.listAll(t, core.RemoteListOptions{}); len(got) > 0 {
			t.Errorf("list after all was deleted: got %q", got)
		}
	}
	for what, key := range map[string]string{"empty": "", "not UTF-8": "a\xffb", "too long": strings.Repeat("x", 1025)} {
		_, err := s.tryPut(t, key, []byte("x"), core.RemotePut{})
		wantErr(t, "put to a key that is "+what, err, core.ErrInvalid, core.ErrTooLarge)
		_, err = s.b.Head(t.Context(), s.bucket, key)
		wantErr(t, "head of a key that is "+what, err, core.ErrInvalid, core.ErrTooLarge)
		wantErr(t, "delete of a key that is "+what, s.b.Delete(t.Context(), s.bucket, key, core.RemoteCondition{}), core.ErrInvalid, core.ErrTooLarge)
	}
	if utf8.ValidString("a\xffb") {
		t.Fatal("the test's own key is wrong")
	}
}

func headers() map[string]string {
	return map[string]string{
		"Content-Type": "text/x-test; charset=utf-8", "Cache-Control": "max-age=60, private", "Content-Disposition": `attachment; filename="a b.txt"`,
		"Content-Encoding": "x-test", "Content-Language": "de-CH",
	}
}

// has checks that got has all of want.
func has(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for name, v := range want {
		if got[name] != v {
			t.Errorf("%s: %s is %q, want %q (of %v)", what, name, got[name], v, got)
		}
	}
}

// tags are an object's, by whichever way the backend tells them.
func (s *suite) tags(t *testing.T, o core.RemoteObject) map[string]string {
	t.Helper()
	tagger, ok := s.b.(core.RemoteTagger)
	if !ok {
		return o.Tags
	}
	m, err := tagger.Tags(t.Context(), s.bucket, o.Key)
	if err != nil {
		t.Errorf("tags of %q: %v", o.Key, err)
	}
	if n := o.Headers["X-Amz-Tagging-Count"]; (n != "") != (len(m) > 0) {
		t.Errorf("X-Amz-Tagging-Count is %q, there are %d tags", n, len(m))
	}
	return m
}

// wantMeta checks what an object carries; nil means that it must carry nothing.
func (s *suite) wantMeta(t *testing.T, key string, headers, meta, tags map[string]string) {
	t.Helper()
	head, err := s.b.Head(t.Context(), s.bucket, key)
	if err != nil {
		t.Fatalf("head %q: %v", key, err)
	}
	obj, _, err := s.get(t, key, core.RemoteGet{Length: -1})
	if err != nil {
		t.Fatalf("get %q: %v", key, err)
	}
	for what, o := range map[string]core.RemoteObject{"head of " + key: head, "get of " + key: obj} {
		if !s.o.NoHeaders {
			has(t, what, o.Headers, headers)
			for name := range headersOnly(o.Headers) {
				if _, ok := headers[name]; !ok && name != "Content-Type" {
					t.Errorf("%s: has %s: %q, which was not put", what, name, o.Headers[name])
				}
			}
		}
		if !s.o.NoMeta && !maps.Equal(o.Meta, meta) {
			t.Errorf("%s: got metadata %v, want %v", what, o.Meta, meta)
		}
	}
	if got := s.tags(t, head); !s.o.NoTags && !maps.Equal(got, tags) {
		t.Errorf("%q: got tags %v, want %v", key, got, tags)
	}
}

// headersOnly leaves out what a server adds.
func headersOnly(m map[string]string) map[string]string {
	m = maps.Clone(m)
	delete(m, "X-Amz-Tagging-Count")
	delete(m, "X-Amz-Storage-Class")
	return m
}

func testMetadata(t *testing.T, s *suite) {
	meta := map[string]string{"one": "1", "two-words": "a value, with = and ;", "empty-ish": "x"}
	tags := map[string]string{"team": "a b", "k+=._:/@-": "v+=._:/@- "}
	s.put(t, "key", []byte("x"), core.RemotePut{Headers: headers(), Meta: meta, Tags: tags})
	s.wantMeta(t, "key", headers(), meta, tags)
	s.put(t, "key", []byte("y"), core.RemotePut{})
	s.wantMeta(t, "key", nil, nil, nil)
	s.put(t, "class", []byte("y"), core.RemotePut{Headers: map[string]string{"X-Amz-Storage-Class": "STANDARD"}})
	s.want(t, "class", []byte("y"))
	if s.o.NoMeta {
		return
	}
	for _, v := range []string{"grüße", "日本", "line\nbreak", " lead", "trail ", "", "nul\x00", "cr\r\nX-Injected: 1", "=?UTF-8?Q?a?="} {
		_, err := s.tryPut(t, "odd", []byte("z"), core.RemotePut{Meta: map[string]string{"odd": v, "even": "2"}})
		if err != nil {
			wantErr(t, "put with metadata that cannot be", err, core.ErrInvalid)
			continue
		}
		head, err := s.b.Head(t.Context(), s.bucket, "odd")
		if got, ok := head.Meta["odd"]; err != nil || got != v || !ok || head.Meta["even"] != "2" || len(head.Meta) != 2 {
			t.Errorf("metadata %q: got %q, %v", v, head.Meta, err)
		}
	}
	for _, name := range []string{"", "a b", "ü", "a:b", "a\nb", "a\r\nx: y"} {
		_, err := s.tryPut(t, "odd2", []byte("z"), core.RemotePut{Meta: map[string]string{name: "v"}})
		if err != nil {
			wantErr(t, "put with metadata whose name cannot be", err, core.ErrInvalid)
			continue
		}
		if head, err := s.b.Head(t.Context(), s.bucket, "odd2"); err != nil || head.Meta[name] != "v" || len(head.Meta) != 1 {
			t.Errorf("metadata of name %q: got %q, %v", name, head.Meta, err)
		}
	}
}

// wantChecksum checks a checksum of the whole object, if there is one.
func wantChecksum(t *testing.T, what string, c core.Checksum, data []byte) {
	t.Helper()
	if c.Algorithm == "" || c.Composite {
		return
	}
	const nvme = 0x9a6c9329ac4bc9b5
	var h hash.Hash
	switch c.Algorithm {
	case "CRC32":
		h = crc32.NewIEEE()
	case "CRC32C":
		h = crc32.New(crc32.MakeTable(crc32.Castagnoli))
	case "CRC64NVME":
		h = crc64.New(crc64.MakeTable(nvme))
	case "SHA1":
		h = sha1.New()
	case "SHA256":
		h = sha256.New()
	default:
		t.Errorf("%s: unknown checksum %+v", what, c)
		return
	}
	_, _ = h.Write(data)
	if want := base64.StdEncoding.EncodeToString(h.Sum(nil)); c.Value != want {
		t.Errorf("%s: %s %s is not that of the content, %s", what, c.Algorithm, c.Value, want)
	}
}

func testChecksums(t *testing.T, s *suite) {
	for _, n := range []int{0, 1, 300 << 10} {
		data := random(n)
		obj := s.put(t, "key", data, core.RemotePut{MD5: md5Of(data)})
		if obj.MD5 != nil && !bytes.Equal(obj.MD5, md5Of(data)) {
			t.Errorf("put said MD5 %x, want %x", obj.MD5, md5Of(data))
		}
		wantChecksum(t, "put", obj.Checksum, data)
		s.want(t, "key", data)
		_, err := s.tryPut(t, "key", random(n+1), core.RemotePut{MD5: md5Of(data)})
		wantErr(t, "put of content with another MD5", err, core.ErrChecksum)
		s.want(t, "key", data)
		_, err = s.tryPut(t, "new", random(n+1), core.RemotePut{MD5: md5Of(data)})
		wantErr(t, "put of content with another MD5", err, core.ErrChecksum)
		s.gone(t, "new")
	}
}

// A reader that is closed before its end ends the request.
func (s *suite) readSome(t *testing.T, key string, n int) {
	t.Helper()
	_, r, err := s.b.Get(t.Context(), s.bucket, key, wholeObject())
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	if _, err := io.ReadFull(r, make([]byte, n)); err != nil {
		t.Errorf("read: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}
