package s3gateway

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/memobjects"
	"github.com/shoalstore/shoal/plugins/s3gateway/sigv4"
)

// wantRefusal checks that an error is one that a client understands.
func wantRefusal(t *testing.T, err error) {
	t.Helper()
	var e *sigv4.Error
	if !errors.As(err, &e) || e.Status < 400 || e.Status > 599 || e.Code == "" {
		t.Fatalf("got %v, want an *Error", err)
	}
}

// FuzzRange compares the parser with what a range means: the bytes that it
// selects are those between its two numbers.
func FuzzRange(f *testing.F) {
	for _, v := range []string{"bytes=0-1", "bytes=-5", "bytes=5-", "bytes=1-0", "bytes=0-1,2-3", "bytes=99999999999999999999-", "x=1-2", "bytes=--1"} {
		f.Add(v, int64(10))
	}
	f.Fuzz(func(t *testing.T, v string, size int64) {
		r := parseRange(v)
		if r == nil || size < 0 {
			return
		}
		if !strings.Contains(strings.ToLower(v), "bytes") || strings.Contains(v, ",") || r.Start < -1 || r.End < -1 || r.Start == -1 && r.End == -1 {
			t.Fatalf("%q: accepted as %+v", v, r)
		}
		start, length, err := r.Resolve(size)
		if err != nil {
			if !errors.Is(err, core.ErrRange) {
				t.Fatalf("%q of %d: %v", v, size, err)
			}
			return
		}
		if start < 0 || length < 1 || start > size-length || r.Start >= 0 && start != r.Start {
			t.Fatalf("%q of %d: %d bytes from %d", v, size, length, start)
		}
	})
}

// FuzzDocuments feeds the readers of XML bodies. They end, and accept nothing
// that S3's limits forbid.
func FuzzDocuments(f *testing.F) {
	for _, doc := range []string{
		"<Delete><Quiet>true</Quiet><Object><Key>a&#xD;b</Key><VersionId>null</VersionId></Object></Delete>",
		"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>&quot;x&quot;</ETag><ChecksumCRC32>AAAAAA==</ChecksumCRC32></Part></CompleteMultipartUpload>",
		"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>",
		"<CreateBucketConfiguration xmlns='x'><LocationConstraint>eu</LocationConstraint></CreateBucketConfiguration>",
		"<!DOCTYPE a [<!ENTITY b 'c'>]><Delete>&b;</Delete>", "<?xml version='1.1'?><Delete/>", "<Delete", "",
	} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		if d, err := parseDelete(doc); err != nil {
			wantRefusal(t, err)
		} else if len(d.objects) == 0 || len(d.objects) > maxDelete {
			t.Fatalf("%d objects", len(d.objects))
		}
		if parts, err := parseComplete(doc); err != nil {
			wantRefusal(t, err)
		} else {
			for i, p := range parts {
				if p.Number < 1 || p.Number > core.MaxParts || p.ETag == "" || i > 0 && p.Number <= parts[i-1].Number {
					t.Fatalf("parts %+v", parts)
				}
			}
		}
		if tags, err := parseTags(doc); err != nil {
			wantRefusal(t, err)
		} else if len(tags) > maxTags || checkTags(tags) != nil {
			t.Fatalf("tags %v", tags)
		}
		if _, err := parseLocation(doc); err != nil {
			wantRefusal(t, err)
		}
	})
}

// FuzzText checks that what is written into a document is read again as it
// was, where XML can carry it.
func FuzzText(f *testing.F) {
	for _, s := range []string{"a<b>&\"'", "\r\n\t", "\x00", "\uffff", "ä日🐟", "]]>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) {
			return
		}
		x := newDocument("a", false)
		x.text("b", s)
		doc := x.end("a")
		var got struct {
			B string `xml:"b"`
		}
		err := xml.Unmarshal(doc, &got)
		carried := strings.IndexFunc(s, func(r rune) bool {
			return r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xfffe || r == 0xffff
		}) < 0
		if carried && (err != nil || got.B != s) {
			t.Fatalf("%q: read %q, %v from %s", s, got.B, err, doc)
		}
		if !carried && err == nil {
			t.Fatalf("%q: was read as %q", s, got.B)
		}
		x = newDocument("a", false)
		x.url = true
		x.name("b", s)
		if err := xml.Unmarshal(x.end("a"), &got); err != nil {
			t.Fatal(err)
		}
		if name, err := url.PathUnescape(got.B); err != nil || name != s {
			t.Fatalf("%q: encoded as %q, read %q, %v", s, got.B, name, err)
		}
	})
}

// FuzzTagging compares with net/url.
func FuzzTagging(f *testing.F) {
	f.Add("a=1&b=2")
	f.Add("a=%zz&=;")
	f.Fuzz(func(t *testing.T, v string) {
		tags, err := parseTagging(v)
		if err != nil {
			wantRefusal(t, err)
			return
		}
		if len(tags) > maxTags || checkTags(tags) != nil {
			t.Fatalf("%q: accepted %v", v, tags)
		}
	})
}

// FuzzRequest sends requests that are correctly signed and odd in all else.
// The gateway answers every one, keys arrive as they were sent, and a GET
// returns what was PUT.
func FuzzRequest(f *testing.F) {
	f.Add("PUT", "/data/k", "", "", "", "body")
	f.Add("GET", "/data/a/../b", "partNumber=1", "Range", "bytes=0-1", "")
	f.Add("POST", "/data", "delete", "Content-Md5", "x", "<Delete/>")
	f.Add("PUT", "/data/k", "tagging", "X-Amz-Tagging", "a=b", "<Tagging/>")
	f.Add("PUT", "/data/k", "", "X-Amz-Copy-Source", "/data/%zz", "")
	f.Add("GET", "/data", "list-type=2&continuation-token=MQ", "If-Match", `W/"x`, "")
	f.Add("DELETE", "/data//", "versionId=null", "If-Match", "*", "")
	f.Fuzz(func(t *testing.T, method, path, query, name, value, body string) {
		objects := memobjects.New(wall{})
		g, err := New(Options{Objects: objects, Lookup: lookup, Clock: wall{}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := objects.CreateBucket(t.Context(), core.BucketName{Provider: core.Shoal, Name: "data"}, nil, ""); err != nil {
			t.Fatal(err)
		}
		send := func(method, query, name, value, body string) *httptest.ResponseRecorder {
			r := &http.Request{
				Method: method, URL: &url.URL{Path: path, RawQuery: query}, Host: "h", Header: http.Header{},
				Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
			}
			if name != "" {
				r.Header.Set(name, value)
			}
			if sigv4.Sign(r, sigv4.Credentials{AccessKey: testKey, Secret: testSecret}, "us-east-1", "s3", sigv4.PayloadHash([]byte(body)), wall{}.Now()) != nil {
				return nil // a query that cannot be signed
			}
			w := httptest.NewRecorder()
			g.ServeHTTP(w, r.WithContext(context.WithoutCancel(t.Context())))
			return w
		}
		w := send(method, query, name, value, body)
		if w == nil {
			return
		}
		if w.Code < 200 || w.Code > 599 || w.Code == http.StatusInternalServerError {
			t.Fatalf("%s %q ? %q, %s: %q: got %d %s", method, path, query, name, value, w.Code, w.Body)
		}
		key, ok := strings.CutPrefix(path, "/data/")
		if !ok || key == "" || core.ValidateKey(key) != nil {
			return
		}
		if w = send("PUT", "", "", "", body); w.Code != 200 {
			t.Fatalf("put %q: got %d %s", key, w.Code, w.Body)
		}
		if w = send("GET", "", "", "", ""); w.Code != 200 || !bytes.Equal(w.Body.Bytes(), []byte(body)) {
			t.Fatalf("get %q: got %d %q, want %q", key, w.Code, w.Body, body)
		}
		bucket, err := objects.Bucket(t.Context(), "data")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := objects.Head(t.Context(), bucket, key, core.GetOptions{}); err != nil {
			t.Fatalf("%q is not stored: %v", key, err)
		}
	})
}
