package gcsbackend

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/backendtest"
	"github.com/shoalstore/shoal/plugins/cloudtest"
)

func bytesPut(data string) core.RemotePut {
	return core.RemotePut{Size: int64(len(data)), Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(data)), nil }}
}

func read(t *testing.T, b *Backend, bucket, key string) string {
	t.Helper()
	_, r, err := b.Get(t.Context(), bucket, key, core.RemoteGet{Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// More parts than are composed at a time make a tree; nothing of it stays.
func TestManyParts(t *testing.T) {
	s := newServers(t)
	p := cloudtest.ServeProxy(t, s.fake)
	bucket := s.bucket(t)
	b := open(t, Options{Endpoint: p.URL(), Anonymous: true})
	o := core.RemotePut{Headers: map[string]string{"Content-Type": "text/x", classHeader: "GLACIER_IR"}, Meta: map[string]string{"one": "1"}, Tags: map[string]string{"a b": "c&d"}}
	u, err := b.CreateUpload(t.Context(), bucket, "key", o)
	if err != nil || p.Counts().Of().Requests != 0 {
		t.Fatalf("create: %v, %d requests", err, p.Counts().Of().Requests)
	}
	var parts []core.RemotePart
	want := ""
	for n := 1; n <= 70; n++ {
		data := fmt.Sprintf("part %d;", n*3)
		want += data
		part, err := b.PutPart(t.Context(), bucket, "key", u, n*3, bytesPut(data))
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, part)
	}
	parts[0], parts[69] = parts[69], parts[0] // the numbers say the order
	if l, err := b.List(t.Context(), bucket, core.RemoteListOptions{Delimiter: "/"}); err != nil || len(l.Objects)+len(l.Prefixes) != 0 || l.More {
		t.Errorf("parts are listed: %+v, %v", l, err)
	}
	if err := b.Delete(t.Context(), bucket, TempPrefix+"x", core.RemoteCondition{}); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("delete of a part: %v", err)
	}
	p.ResetCounts()
	obj, err := b.CompleteUpload(t.Context(), bucket, "key", u, parts, core.RemoteCondition{})
	if err != nil {
		t.Fatal(err)
	}
	if n := p.Counts().Of(cloudtest.CompleteUpload).Requests; n != 4 {
		t.Errorf("%d compositions, want 3 and 1", n)
	}
	if got := read(t, b, bucket, "key"); got != want {
		t.Errorf("got %q", got)
	}
	if obj.Size != int64(len(want)) || obj.Headers[classHeader] != "COLDLINE" || obj.Headers["Content-Type"] != "text/x" || obj.Meta["one"] != "1" || obj.Tags["a b"] != "c&d" {
		t.Errorf("got %+v", obj)
	}
	left, _, err := b.page(t.Context(), bucket, core.RemoteListOptions{Max: pageSize})
	if err != nil || len(left) != 1 {
		t.Errorf("%d objects are left, %v", len(left), err)
	}
	for name, id := range map[string]string{"none": "", "junk": "x.y", "another key's": upload{id: strings.Repeat("0", 32), key: "other"}.String()} {
		if _, err := b.CompleteUpload(t.Context(), bucket, "key", id, parts, core.RemoteCondition{}); !errors.Is(err, core.ErrNoSuchUpload) {
			t.Errorf("complete of an upload that is %s: %v", name, err)
		}
	}
}

// A listing tells metadata to whoever asks: a job need not look at each object to know
// which ones it wrote.
func TestListingTellsMetadata(t *testing.T) {
	s := newServers(t)
	bucket := s.bucket(t)
	b := open(t, Options{Endpoint: s.fake.URL(), Anonymous: true})
	o := bytesPut("data")
	o.Meta, o.Tags = map[string]string{"one": "ä"}, map[string]string{"a": "b"}
	if _, err := b.Put(t.Context(), bucket, "key", o); err != nil {
		t.Fatal(err)
	}
	l, err := b.List(t.Context(), bucket, core.RemoteListOptions{Meta: true})
	if err != nil || !l.Meta || len(l.Objects) != 1 || len(l.Objects[0].Meta) != 1 || l.Objects[0].Meta["one"] != "ä" {
		t.Errorf("got %+v, %v", l, err)
	}
}

// What Google does not have comes back all the same, through either interface.
func TestKept(t *testing.T) {
	s := newServers(t)
	bucket := s.bucket(t)
	b := open(t, Options{Endpoint: s.fake.URL(), Anonymous: true})
	o := bytesPut("x")
	o.Headers = map[string]string{"Expires": "Thu, 01 Dec 2030 16:00:00 GMT", "Cache-Control": "no-store", classHeader: "STANDARD_IA"}
	o.Meta = map[string]string{"plain": "a=b;c", "grown": "grüße 日本", "empty": "", "lead": " x ", "line": "a\r\nb: c", "word": "=?utf-8?b?eA==?="}
	o.Tags = map[string]string{"team": "a b", "k+=._:/@-": "v&=", "ü": ""}
	put, err := b.Put(t.Context(), bucket, "key", o)
	if err != nil {
		t.Fatal(err)
	}
	head, err := b.Head(t.Context(), bucket, "key")
	if err != nil {
		t.Fatal(err)
	}
	got, r, err := b.Get(t.Context(), bucket, "key", core.RemoteGet{Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	for what, obj := range map[string]core.RemoteObject{"put": put, "head": head, "get": got} {
		if !maps.Equal(obj.Meta, o.Meta) || !maps.Equal(obj.Tags, o.Tags) || obj.Headers["Expires"] != o.Headers["Expires"] || obj.Headers["Cache-Control"] != "no-store" {
			t.Errorf("%s: %q %q %q", what, obj.Headers, obj.Meta, obj.Tags)
		}
		if class := obj.Headers[classHeader]; what != "get" && class != "NEARLINE" { // its downloadObject does not tell
			t.Errorf("%s: storage class %q", what, class)
		}
	}
	for what, o := range map[string]core.RemotePut{
		"a class":         {Headers: map[string]string{classHeader: "OUTPOSTS"}},
		"a reserved name": {Meta: map[string]string{"Shoal-Tags": "x"}},
		"a header":        {Headers: map[string]string{"Content-Type": "a\r\nX: y"}},
	} {
		o.Open, o.Size = bytesPut("x").Open, 1
		if _, err := b.Put(t.Context(), bucket, "key", o); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%s that cannot be: %v", what, err)
		}
	}
}

func TestVersions(t *testing.T) {
	for v, want := range map[core.RemoteVersion][2]int64{"17.3": {17, 3}, "17": {17, 1}, "": {0, 0}} {
		c, ok := atVersion(v)
		if !ok || c.GenerationMatch != want[0] || c.MetagenerationMatch != want[1] {
			t.Errorf("%q: %+v, %v", v, c, ok)
		}
		if v != "" && version(want[0], want[1]) != v {
			t.Errorf("%v: %q", want, version(want[0], want[1]))
		}
	}
	for _, v := range []core.RemoteVersion{"0", "-1", "1.0", "x", "1.x", "1.2.3", ".", "0123456789abcdef0123456789abcdef"} {
		if _, ok := atVersion(v); ok {
			t.Errorf("%q was taken for a version", v)
		}
	}
	if e := etag(nil, 1700000000000000); len(strings.TrimSuffix(e, "-1")) != 32 || !strings.HasSuffix(e, "-1") {
		t.Errorf("ETag of a composed object: %s", e)
	}
}

// answers with one status and body to everything.
func answering(t *testing.T, status int, body string) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestFailing(t *testing.T) {
	for _, f := range []struct {
		name   string
		status int
		body   string
		want   error
		words  string
	}{
		{"anonymous", 401, `{"error":{"code":401,"message":"Anonymous caller does not have storage.objects.get access"}}`, core.ErrPermission, "Anonymous caller"},
		{"forbidden", 403, `{"error":{"code":403,"message":"no access","errors":[{"reason":"forbidden"}]}}`, core.ErrPermission, "no access"},
		{"rate", 429, `{"error":{"code":429,"message":"rate limit"}}`, core.ErrThrottled, "rate limit"},
		{"no bucket", 404, `{"error":{"code":404,"message":"The specified bucket does not exist."}}`, core.ErrNoSuchBucket, "does not exist"},
		{"no bucket, XML", 404, `<?xml version='1.0'?><Error><Code>NoSuchBucket</Code></Error>`, core.ErrNoSuchBucket, ""},
		{"sent elsewhere", 307, "go", core.ErrUnavailable, "sent elsewhere"},
	} {
		t.Run(f.name, func(t *testing.T) {
			b := open(t, Options{Endpoint: answering(t, f.status, f.body), Anonymous: true})
			backendtest.Run(t, backendtest.Options{
				Groups: []string{"Failing"},
				New:    func(t *testing.T) (core.Backend, string) { return b, "bucket" },
				Failing: func(*testing.T) []backendtest.Failing {
					return []backendtest.Failing{{Name: f.name, Backend: b, Bucket: "bucket", Want: f.want, Words: f.words, Skip: []string{"AbortUpload"}}}
				},
			})
		})
	}
	b := open(t, Options{Endpoint: answering(t, 403, `{"error":{"code":403,"message":"slow","errors":[{"reason":"userRateLimitExceeded"}]}}`), Anonymous: true})
	if _, err := b.Head(t.Context(), "bucket", "key"); !errors.Is(err, core.ErrThrottled) {
		t.Errorf("a rate limit of 403: %v", err)
	}
}

// serviceAccount is a file of credentials whose tokens come from a server of ours.
func serviceAccount(t *testing.T, tokens string) string {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": "p1", "private_key_id": "k1", "client_email": "a@example.net", "token_uri": tokens,
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestCredentials(t *testing.T) {
	t.Setenv("STORAGE_EMULATOR_HOST", "127.0.0.1:1") // must not matter
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"good","token_type":"Bearer","expires_in":3600}`)
	}))
	defer tokens.Close()
	var seen []string
	var asked []string
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Get("Authorization"))
		asked = append(asked, r.Method+" "+r.URL.Path+"?"+r.URL.RawQuery)
		_, _ = io.WriteString(w, `{"kind":"storage#objects"}`)
	}))
	defer storage.Close()
	b := open(t, Options{Endpoint: storage.URL, CredentialsFile: serviceAccount(t, tokens.URL)})
	if _, err := b.List(t.Context(), "bucket", core.RemoteListOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := b.Buckets(t.Context()); err != nil {
		t.Error(err)
	}
	if len(seen) != 2 || seen[0] != "Bearer good" || seen[1] != "Bearer good" || !strings.Contains(asked[1], "project=p1") {
		t.Errorf("asked %q with %q", asked, seen)
	}

	refused := open(t, Options{Endpoint: storage.URL, CredentialsFile: serviceAccount(t, answering(t, 400, `{"error":"invalid_grant"}`))})
	if err := refused.HeadBucket(t.Context(), "bucket"); !errors.Is(err, core.ErrPermission) {
		t.Errorf("credentials that are refused: %v", err)
	}
	unreachable := open(t, Options{Endpoint: storage.URL, CredentialsFile: serviceAccount(t, "http://127.0.0.1:1")})
	if err := unreachable.Delete(t.Context(), "bucket", "key", core.RemoteCondition{}); !errors.Is(err, core.ErrUnavailable) || errors.Is(err, core.ErrUnknownOutcome) {
		t.Errorf("tokens that cannot be had: %v", err)
	}
	if len(seen) != 2 {
		t.Errorf("%d requests without a token", len(seen)-2)
	}

	junk := filepath.Join(t.TempDir(), "junk")
	if err := os.WriteFile(junk, []byte("a secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		o    Options
		want error
	}{
		"clear":    {Options{Endpoint: "http://storage.example.net", CredentialsFile: serviceAccount(t, tokens.URL)}, core.ErrInvalid},
		"path":     {Options{Endpoint: "http://127.0.0.1/x", Anonymous: true}, core.ErrInvalid},
		"scheme":   {Options{Endpoint: "127.0.0.1:80", Anonymous: true}, core.ErrInvalid},
		"user":     {Options{Endpoint: "http://u:secret@127.0.0.1", Anonymous: true}, core.ErrInvalid},
		"no file":  {Options{CredentialsFile: "/does/not/exist"}, core.ErrPermission},
		"bad file": {Options{CredentialsFile: junk}, core.ErrPermission},
	} {
		if _, err := Open(t.Context(), c.o); !errors.Is(err, c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", junk)
	def := open(t, Options{Endpoint: storage.URL})
	if _, err := def.Head(t.Context(), "bucket", "key"); !errors.Is(err, core.ErrPermission) || strings.Contains(err.Error(), "secret") {
		t.Errorf("default credentials that are none: %v", err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", serviceAccount(t, tokens.URL))
	if _, err := def.List(t.Context(), "bucket", core.RemoteListOptions{}); err != nil || seen[len(seen)-1] != "Bearer good" {
		t.Errorf("default credentials, later: %v", err)
	}
	if a := open(t, Options{Anonymous: true}).Abilities(); !a.PutIf || !a.DeleteIf {
		t.Error("Google holds to conditions")
	}
	if _, err := open(t, Options{Anonymous: true}).Buckets(t.Context()); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("buckets of no project: %v", err)
	}
}

// Against the bare emulator the everyday things work, too.
func TestEmulator(t *testing.T) {
	s := newServers(t)
	b := open(t, Options{Endpoint: s.fake.URL() + "/storage/v1/", Anonymous: true})
	if err := b.CreateBucket(t.Context(), "made"); err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("0123456789"), 100_000)
	obj, err := b.Put(t.Context(), "made", "a/b c", bytesPut(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, b, "made", "a/b c"); got != string(data) {
		t.Errorf("%d bytes", len(got))
	}
	if _, err := b.Copy(t.Context(), "made", "a/b c", obj.Version, "made", "copy", core.RemotePut{}); err != nil {
		t.Errorf("copy: %v", err)
	}
	if _, err := b.Put(t.Context(), "made", "key", core.RemotePut{If: core.RemoteCondition{Absent: true}, Open: bytesPut("").Open}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a condition that it may ignore: %v", err)
	}
	if err := b.Delete(t.Context(), "made", "a/b c", core.RemoteCondition{}); err != nil {
		t.Errorf("delete: %v", err)
	}
}
