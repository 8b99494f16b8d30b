package sigv4

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// What is parsed can be written again and means the same; nothing is accepted
// that is not well formed.
func FuzzParseHeader(f *testing.F) {
	for _, e := range docExamples() {
		if _, v, ok := strings.Cut(e.headers, "Authorization:"); ok {
			f.Add(v)
		}
	}
	f.Add("AWS4-HMAC-SHA256 Credential=a/b/c/d/e/aws4_request, SignedHeaders=;;;, Signature=")
	f.Fuzz(func(t *testing.T, v string) {
		c, err := parseHeader(v)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Status != http.StatusBadRequest {
				t.Fatalf("got %v, want an *Error of status 400", err)
			}
			return
		}
		if len(c.signature) != 64 || len(c.date) != 8 || c.accessKey == "" || strings.ContainsAny(c.signedHeaders, "\n\r ,") {
			t.Errorf("accepted %+v", c)
		}
		again, err := parseHeader(Algorithm + " Signature=" + c.signature + " , SignedHeaders=" + c.signedHeaders +
			",Credential=" + c.accessKey + "/" + c.scope)
		if err != nil || again != c {
			t.Errorf("written again: got %+v, %v; want %+v", again, err, c)
		}
	})
}

// The decoded query is what net/url says, and its canonical form has the same
// parameters in order.
func FuzzQuery(f *testing.F) {
	for _, q := range []string{"a=1&b=2", "a=%20+&a", "%zz", "X-Amz-Signature=1&b", "a-b=1&a=2", "=&==&a=b=c", "%C3%A4=ä"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := ParseQuery(nil, raw)
		var s scratch
		cerr := s.appendQuery(raw)
		if (err == nil) != (cerr == nil) {
			t.Fatalf("parse: %v, canonical: %v", err, cerr)
		}
		if err != nil {
			return
		}
		if !strings.Contains(raw, ";") {
			want, werr := url.ParseQuery(raw)
			if werr != nil {
				t.Fatalf("net/url refuses it: %v", werr)
			}
			for name, values := range want {
				if got := q.Get(name); got != values[0] || !q.Has(name) {
					t.Errorf("%q: got %q, want %q", name, got, values[0])
				}
			}
		}
		canonical := string(s.buf)
		again, err := ParseQuery(nil, canonical)
		if err != nil {
			t.Fatalf("canonical %q: %v", canonical, err)
		}
		n := 0
		for _, p := range q {
			if p.Name != "X-Amz-Signature" {
				n++
			}
		}
		if len(again) != n {
			t.Errorf("canonical %q has %d parameters, want %d", canonical, len(again), n)
		}
		var twice scratch
		if err := twice.appendQuery(canonical); err != nil || string(twice.buf) != canonical {
			t.Errorf("canonical %q is made %q, %v", canonical, twice.buf, err)
		}
	})
}

// The decoder of chunks never accepts another body than the one that was
// framed, never reads beyond its length, and always ends.
func FuzzChunks(f *testing.F) {
	v := docVerifier(docTime())
	f.Add([]byte(chunked("hello world", []int{5, 6}, []string{EmptyPayload, EmptyPayload, EmptyPayload},
		"x-amz-checksum-crc32:AAAA\r\nx-amz-trailer-signature:"+EmptyPayload+"\r\n\r\n")), int64(11), true)
	f.Add([]byte("5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n"), int64(5), false)
	f.Add([]byte("5;chunk-signature=00\r\nhello\r\n0\r\n\r\n"), int64(5), true)
	f.Fuzz(func(t *testing.T, wire []byte, length int64, signed bool) {
		if length < 0 {
			return
		}
		r := httptest.NewRequest("PUT", "/b/k", bytes.NewReader(wire))
		auth := Auth{AccessKey: docKey, Payload: StreamingUnsignedTrailer, v: v, amzDate: docDate, scope: "20130524/us-east-1/s3/aws4_request"}
		auth.key = deriveKey(docSecret, "20130524", "us-east-1", "s3")
		if signed {
			auth.Payload = StreamingSignedTrailer
		}
		body := &Body{src: r.Body, pools: &v.bytes}
		body.chunks = &chunkReader{src: body.pools.buffer(r.Body), left: length, trailers: "x-amz-checksum-crc32", trailer: true}
		if signed {
			body.chunks.signer = &chunkSigner{auth: auth}
			body.chunks.sha = body.pools.hash()
		}
		got, err := io.ReadAll(body)
		defer body.Release()
		if int64(len(got)) > length || len(got) > len(wire) {
			t.Fatalf("%d bytes of %d, wire %d", len(got), length, len(wire))
		}
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Fatalf("got %v, want an *Error", err)
			}
			return
		}
		if signed {
			t.Fatal("accepted without a known signature")
		}
		if int64(len(got)) != length {
			t.Fatalf("accepted %d bytes, want %d", len(got), length)
		}
	})
}

// A path is encoded so that it decodes to itself, byte by byte.
func FuzzPath(f *testing.F) {
	for _, p := range []string{"/", "/a b/../c", "/ä", "/%41", "//", "/\x00"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		encoded := string(AppendPath(nil, p))
		decoded, err := url.PathUnescape(encoded)
		if p == "" {
			p = "/"
		}
		if err != nil || decoded != p {
			t.Errorf("%q: encoded %q, decoded %q, %v", p, encoded, decoded, err)
		}
		if slices.ContainsFunc([]byte(encoded), func(b byte) bool { return b != '/' && b != '%' && !unreserved(b) }) {
			t.Errorf("%q: encoded %q", p, encoded)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	r := httptest.NewRequest("GET", "/bucket/some/key/0001.bin?x-id=GetObject", nil)
	r.Header.Set("User-Agent", "x")
	r.Header.Set("X-Amz-Checksum-Mode", "ENABLED")
	if err := Sign(r, Credentials{docKey, docSecret}, "us-east-1", "s3", EmptyPayload, docTime()); err != nil {
		b.Fatal(err)
	}
	v := docVerifier(docTime())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(r); err != nil {
			b.Fatal(err)
		}
	}
}
