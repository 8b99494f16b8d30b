package sigv4

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

func TestRefusals(t *testing.T) {
	get := docExamples()["get object"]
	presigned := docExamples()["presigned get"]
	replace := func(s, from, to string) string {
		if !strings.Contains(s, from) {
			t.Fatalf("%q has no %q", s, from)
		}
		return strings.Replace(s, from, to, 1)
	}
	for _, c := range []struct {
		name            string
		target, headers string
		now             time.Duration
		code            string
		status          int
	}{
		{"no signature", "/k", "", 0, "AccessDenied", 403},
		{"signature version 2", "/k", "Authorization: AWS AKIA:sig", 0, "InvalidRequest", 400},
		{"signature version 2 in the query", "/k?AWSAccessKeyId=x&Signature=y&Expires=1", "", 0, "InvalidRequest", 400},
		{"signature version 4a", "/k", "Authorization: AWS4-ECDSA-P256-SHA256 Credential=x", 0, "InvalidRequest", 400},
		{"basic", "/k", "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", 0, "InvalidArgument", 400},
		{"empty", "/k", "Authorization: ", 0, "InvalidArgument", 400},
		{"both", presigned.target, get.headers, 0, "InvalidArgument", 400},
		{"no signed headers", get.target, replace(get.headers, "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,", ""), 0, "AuthorizationHeaderMalformed", 400},
		{"no credential", get.target, replace(get.headers, "Credential=", "Credence="), 0, "AuthorizationHeaderMalformed", 400},
		{"short credential", get.target, replace(get.headers, "/20130524/us-east-1", ""), 0, "AuthorizationHeaderMalformed", 400},
		{"bad end of scope", get.target, replace(get.headers, "aws4_request", "aws5_request"), 0, "AuthorizationHeaderMalformed", 400},
		{"bad date in scope", get.target, replace(get.headers, "/20130524/", "/2013-5-24/"), 0, "AuthorizationHeaderMalformed", 400},
		{"other date in scope", get.target, replace(get.headers, "/20130524/", "/20130525/"), 0, "AuthorizationHeaderMalformed", 400},
		{"other region", get.target, replace(get.headers, "us-east-1", "eu-west-1"), 0, "AuthorizationHeaderMalformed", 400},
		{"other service", get.target, replace(get.headers, "/s3/", "/ec2/"), 0, "AuthorizationHeaderMalformed", 400},
		{"short signature", get.target, replace(get.headers, "Signature=f0", "Signature="), 0, "AuthorizationHeaderMalformed", 400},
		{"upper case in signed headers", get.target, replace(get.headers, "host;range", "Host;range"), 0, "AuthorizationHeaderMalformed", 400},
		{"too many signed headers", get.target, replace(get.headers, "host;range", strings.Repeat("a;", 2000)+"host;range"), 0, "AuthorizationHeaderMalformed", 400},
		{"a component twice", get.target, replace(get.headers, "Signature=", "Signature=x,Signature="), 0, "AuthorizationHeaderMalformed", 400},
		{"unknown key", get.target, replace(get.headers, docKey, "AKIAOTHER"), 0, "InvalidAccessKeyId", 403},
		{"wrong signature", get.target, replace(get.headers, "Signature=f0", "Signature=00"), 0, "SignatureDoesNotMatch", 403},
		{"no payload hash", get.target, replace(get.headers, "x-amz-content-sha256:", "x-amz-content-md4:"), 0, "InvalidRequest", 400},
		{"bad payload hash", get.target, replace(get.headers, EmptyPayload, "xyz"), 0, "InvalidArgument", 400},
		{"no date", get.target, replace(get.headers, "x-amz-date:2", "x-amz-dates:2"), 0, "AccessDenied", 403},
		{"bad date", get.target, replace(get.headers, "x-amz-date:2", "x-amz-date:x"), 0, "AccessDenied", 403},
		{"token", get.target, get.headers + "x-amz-security-token:t\n", 0, "InvalidToken", 400},
		{"header not signed", get.target, get.headers + "x-amz-acl:public-read\n", 0, "AccessDenied", 403},
		{"16 minutes late", get.target, get.headers, 16 * time.Minute, "RequestTimeTooSkewed", 403},
		{"16 minutes early", get.target, get.headers, -16 * time.Minute, "RequestTimeTooSkewed", 403},
		{"14 minutes late", get.target, get.headers, 14 * time.Minute, "", 0},
		{"14 minutes early", get.target, get.headers, -14 * time.Minute, "", 0},
		{"malformed query", get.target + "?a=%zz", get.headers, 0, "InvalidURI", 400},

		{"presigned, in its last second", presigned.target, "", 24 * time.Hour, "", 0},
		{"presigned, expired", presigned.target, "", 24*time.Hour + time.Second, "AccessDenied", 403},
		{"presigned, too early", presigned.target, "", -16 * time.Minute, "AccessDenied", 403},
		{"presigned, unknown key", replace(presigned.target, docKey, "AKIAOTHER"), "", 0, "InvalidAccessKeyId", 403},
		{"presigned, wrong signature", replace(presigned.target, "Signature=ae", "Signature=00"), "", 0, "SignatureDoesNotMatch", 403},
		{"presigned, longer life", replace(presigned.target, "Expires=86400", "Expires=86401"), "", 0, "SignatureDoesNotMatch", 403},
		{"presigned, over a week", replace(presigned.target, "Expires=86400", "Expires=604801"), "", 0, "AuthorizationQueryParametersError", 400},
		{"presigned, negative life", replace(presigned.target, "Expires=86400", "Expires=-1"), "", 0, "AuthorizationQueryParametersError", 400},
		{"presigned, life of no number", replace(presigned.target, "Expires=86400", "Expires=day"), "", 0, "AuthorizationQueryParametersError", 400},
		{"presigned, no life", replace(presigned.target, "X-Amz-Expires=86400&", ""), "", 0, "AuthorizationQueryParametersError", 400},
		{"presigned, no algorithm", replace(presigned.target, "X-Amz-Algorithm=AWS4-HMAC-SHA256&", ""), "", 0, "AuthorizationQueryParametersError", 400},
		{"presigned, other algorithm", replace(presigned.target, "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA512"), "", 0, "AuthorizationQueryParametersError", 400},
		{"presigned, other region", replace(presigned.target, "us-east-1", "eu-west-1"), "", 0, "AuthorizationQueryParametersError", 400},
		{"presigned, bad credential", replace(presigned.target, "%2Faws4_request", ""), "", 0, "AuthorizationQueryParametersError", 400},
		{"presigned, bad date", replace(presigned.target, "X-Amz-Date=2013", "X-Amz-Date=x"), "", 0, "AuthorizationQueryParametersError", 400},
		{"presigned, bad signature", replace(presigned.target, "Signature=ae", "Signature=zz"), "", 0, "AuthorizationQueryParametersError", 400},
		{"presigned, token", presigned.target + "&X-Amz-Security-Token=t", "", 0, "InvalidToken", 400},
		{"presigned, header not signed", presigned.target, "x-amz-acl:public-read\n", 0, "AccessDenied", 403},
		{"presigned, malformed query", presigned.target + "&a=%", "", 0, "InvalidURI", 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := request(t, "GET", "/", c.headers, "")
			r.URL.Path, r.URL.RawQuery, _ = strings.Cut(c.target, "?")
			_, err := docVerifier(docTime().Add(c.now)).Verify(r)
			if c.code == "" {
				if err != nil {
					t.Errorf("got %v, want success", err)
				}
				return
			}
			wantCode(t, "verify", err, c.code, c.status)
		})
	}
}

// sdkSign signs like a client of aws-sdk-go-v2.
func sdkSign(t *testing.T, r *http.Request, payload string, at time.Time) {
	t.Helper()
	r.Header.Set("X-Amz-Content-Sha256", payload)
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	err := signer.SignHTTP(context.Background(), aws.Credentials{AccessKeyID: docKey, SecretAccessKey: docSecret}, r, payload, "s3", "us-east-1", at)
	if err != nil {
		t.Fatal(err)
	}
}

// wire passes a request over the wire, as a server gets it.
func wire(t *testing.T, r *http.Request) *http.Request {
	t.Helper()
	var got *http.Request
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r }))
	defer s.Close()
	signedFor := r.Host
	if signedFor == "" {
		signedFor = r.URL.Host
	}
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	r.URL.Scheme, r.URL.Host, r.Host = "http", u.Host, signedFor
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if got == nil {
		t.Fatalf("the server refused the request: %s", resp.Status)
	}
	return got
}

// Requests that are odd in every way have the same signature by the SDK's
// signer and by Sign, as seen by the server.
func TestSignersAgree(t *testing.T) {
	paths := []string{
		"/", "/b", "/b/", "/b//k", "//b/k", "/b/../k", "/b/./k", "/b/a b", "/b/a+b", "/b/a%b", "/b/ä/日本", "/b/\x00\x01\n", "/b/~-_.!*'()",
		"/b/a;b=c&d", "/b/a?b#c", "/b/%2F", "/b/" + strings.Repeat("x", 900),
	}
	queries := []string{
		"", "a", "a=", "b=2&a=1", "a=2&a=1", "a=%20&b=%2B", "prefix=a/b&delimiter=%2F", "a-b=1&a=2", "A=1&a=2&%61b=3", "x=%C3%A4&y=~",
		"partNumber=1&uploadId=abc%3D%3D", "list-type=2&prefix=%00%01", "a=%3Bb", "x-id=PutObject",
	}
	sdk := func(t *testing.T, r *http.Request) { sdkSign(t, r, UnsignedPayload, docTime()) }
	own := func(t *testing.T, r *http.Request) {
		if err := Sign(r, Credentials{docKey, docSecret}, "us-east-1", "s3", UnsignedPayload, docTime()); err != nil {
			t.Fatal(err)
		}
	}
	try := func(t *testing.T, what, path, query string, sign func(*testing.T, *http.Request)) {
		t.Helper()
		r := &http.Request{
			Method: "PUT", URL: &url.URL{Scheme: "http", Host: "h:7070", Path: path, RawQuery: query},
			Header: http.Header{"X-Amz-Meta-A": {" two  spaces ", "second"}, "Content-Type": {"text/plain"}, "Range": {"bytes=0-1"}},
		}
		// As an SDK does: everything but the unreserved bytes is escaped.
		r.URL.RawPath = string(AppendPath(nil, path))
		sign(t, r)
		if _, err := docVerifier(docTime()).Verify(wire(t, r)); err != nil {
			t.Errorf("%s: %q ? %q: %v", what, path, query, err)
		}
	}
	for _, p := range paths {
		try(t, "sdk", p, "x-id=GetObject", sdk)
		try(t, "own", p, "x-id=GetObject", own)
	}
	for _, q := range queries {
		try(t, "sdk", "/b/k", q, sdk)
		try(t, "own", "/b/k", q, own)
	}
}

func TestSDKPresign(t *testing.T) {
	r, err := http.NewRequest("PUT", "http://h:7070/b/a%20key?X-Amz-Expires=60&x=y%2Fz", nil)
	if err != nil {
		t.Fatal(err)
	}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	target, header, err := signer.PresignHTTP(context.Background(), aws.Credentials{AccessKeyID: docKey, SecretAccessKey: docSecret},
		r, UnsignedPayload, "s3", "us-east-1", docTime())
	if err != nil {
		t.Fatal(err)
	}
	send := func() *http.Request {
		r, err := http.NewRequest("PUT", target, strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header = header.Clone()
		return wire(t, r)
	}
	auth, err := docVerifier(docTime().Add(time.Minute)).Verify(send())
	if err != nil || !auth.Presigned || auth.Payload != UnsignedPayload {
		t.Errorf("verify: got %+v, %v", auth, err)
	}
	_, err = docVerifier(docTime().Add(time.Minute + time.Second)).Verify(send())
	wantCode(t, "a second later", err, "AccessDenied", 403)
}

// A key's secret may change, and days do.
func TestKeyCache(t *testing.T) {
	secret, now := docSecret, docTime()
	v := NewVerifier(Options{Lookup: func(string) (string, bool) { return secret, true }, Now: func() time.Time { return now }})
	signed := func(secret string) *http.Request {
		r := httptest.NewRequest("GET", "/b/k", nil)
		if err := Sign(r, Credentials{docKey, secret}, "us-east-1", "s3", EmptyPayload, now); err != nil {
			t.Fatal(err)
		}
		return r
	}
	for range 2 {
		if _, err := v.Verify(signed(docSecret)); err != nil {
			t.Errorf("verify: %v", err)
		}
		if _, err := v.Verify(signed("other")); err == nil {
			t.Error("verify: a wrong secret is accepted")
		}
	}
	secret = "other"
	if _, err := v.Verify(signed(docSecret)); err == nil {
		t.Error("verify: the old secret is accepted")
	}
	if _, err := v.Verify(signed("other")); err != nil {
		t.Errorf("verify: new secret: %v", err)
	}
	now = now.Add(24 * time.Hour)
	if _, err := v.Verify(signed("other")); err != nil {
		t.Errorf("verify: next day: %v", err)
	}
}

func TestPlainBodies(t *testing.T) {
	sign := func(body, payload string, length int64) *http.Request {
		r := httptest.NewRequest("PUT", "/b/k", io.MultiReader(strings.NewReader(body)))
		r.ContentLength = length
		if err := Sign(r, Credentials{docKey, docSecret}, "us-east-1", "s3", payload, docTime()); err != nil {
			t.Fatal(err)
		}
		return r
	}
	hash := PayloadHash([]byte(welcome))
	for _, c := range []struct {
		name, body, payload string
		length              int64
		code                string
		status              int
	}{
		{"signed", welcome, hash, 21, "", 0},
		{"signed in upper case", welcome, strings.ToUpper(hash), 21, "", 0},
		{"unsigned", welcome, UnsignedPayload, 21, "", 0},
		{"empty", "", EmptyPayload, 0, "", 0},
		{"other body", "welcome to Amazon S3.", hash, 21, "XAmzContentSHA256Mismatch", 400},
		{"other empty body", "", hash, 0, "XAmzContentSHA256Mismatch", 400},
		{"short, signed", welcome[:20], hash, 21, "IncompleteBody", 400},
		{"short, unsigned", welcome[:20], UnsignedPayload, 21, "IncompleteBody", 400},
		{"no length", welcome, UnsignedPayload, -1, "MissingContentLength", 411},
	} {
		r := sign(c.body, c.payload, c.length)
		auth, err := docVerifier(docTime()).Verify(r)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		body, _, err := auth.Body(r)
		var got []byte
		if err == nil {
			got, err = io.ReadAll(oneByte{body})
			if (err == nil) != (body.Err() == nil) {
				t.Errorf("%s: Err is %v, Read said %v", c.name, body.Err(), err)
			}
			body.Release()
		}
		if c.code == "" {
			if err != nil || string(got) != c.body {
				t.Errorf("%s: got %q, %v", c.name, got, err)
			}
			continue
		}
		wantCode(t, c.name, err, c.code, c.status)
	}
}

// oneByte reads byte by byte.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }

func TestUnsignedTrailer(t *testing.T) {
	open := func(wire, trailers, length string) (*Body, error) {
		r := httptest.NewRequest("PUT", "/b/k", strings.NewReader(wire))
		r.Header.Set("X-Amz-Decoded-Content-Length", length)
		if trailers != "" {
			r.Header.Set("X-Amz-Trailer", trailers)
		}
		if err := Sign(r, Credentials{docKey, docSecret}, "us-east-1", "s3", StreamingUnsignedTrailer, docTime()); err != nil {
			t.Fatal(err)
		}
		auth, err := docVerifier(docTime()).Verify(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _, err := auth.Body(r)
		return body, err
	}
	const crc = "x-amz-checksum-crc32"
	for _, c := range []struct {
		name, wire, trailers, length string
		body, trailer                string
		code                         string
	}{
		{"usual", "5\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n", crc, "11", "hello world", "DUoRhQ==", ""},
		{"spaces and case", "B \r\nhello world\r\n0\r\nX-Amz-Checksum-CRC32: DUoRhQ== \r\n\r\n", "X-AMZ-Checksum-crc32", "11", "hello world", "DUoRhQ==", ""},
		{"chunk extension", "b;a=b\r\nhello world\r\n000\r\n\r\n", "", "11", "hello world", "", ""},
		{"bare newlines", "b\nhello world\n0\n\n", "", "11", "hello world", "", ""},
		{"empty", "0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n", crc, "0", "", "AAAAAA==", ""},
		{"no trailer", "b\r\nhello world\r\n0\r\n\r\n", crc, "11", "", "", "MalformedTrailerError"},
		{"unannounced trailer", "b\r\nhello world\r\n0\r\nx-amz-meta-a:b\r\n\r\n", "", "11", "", "", "MalformedTrailerError"},
		{"trailer twice", "0\r\nx-amz-checksum-crc32:a\r\nx-amz-checksum-crc32:b\r\n\r\n", crc, "0", "", "", "MalformedTrailerError"},
		{"trailer of no form", "0\r\nx-amz-checksum-crc32\r\n\r\n", crc, "0", "", "", "MalformedTrailerError"},
		{"trailer cut", "b\r\nhello world\r\n0\r\nx-amz-checksum-crc32:DUo", crc, "11", "", "", "IncompleteBody"},
		{"endless trailer", "0\r\nx-amz-checksum-crc32:" + strings.Repeat("a", 5000) + "\r\n\r\n", crc, "0", "", "", "InvalidRequest"},
		{"too short", "5\r\nhello\r\n0\r\n\r\n", "", "11", "", "", "IncompleteBody"},
		{"too long", "b\r\nhello world\r\n1\r\n!\r\n0\r\n\r\n", "", "11", "", "", "InvalidRequest"},
		{"much too long", "fffffffffffffff\r\nhello world", "", "11", "", "", "InvalidRequest"},
		{"size of too many digits", "fffffffffffffffff\r\nhello world", "", "11", "", "", "InvalidRequest"},
		{"negative size", "-1\r\nhello world", "", "11", "", "", "InvalidRequest"},
		{"no size", "\r\nhello world", "", "11", "", "", "InvalidRequest"},
		{"chunk without end", "b\r\nhello worldX\r\n0\r\n\r\n", "", "11", "", "", "InvalidRequest"},
		{"data behind the end", "b\r\nhello world\r\n0\r\n\r\nX", "", "11", "", "", "InvalidRequest"},
		{"endless line", strings.Repeat("0", 100_000), "", "11", "", "", "InvalidRequest"},
		{"no body", "", "", "11", "", "", "IncompleteBody"},
		{"no end", "b\r\nhello world\r\n", "", "11", "", "", "IncompleteBody"},
		{"bad length", "0\r\n\r\n", "", "eleven", "", "", "InvalidArgument"},
		{"no length", "0\r\n\r\n", "", "", "", "", "MissingContentLength"},
	} {
		body, err := open(c.wire, c.trailers, c.length)
		var got []byte
		if err == nil {
			got, err = io.ReadAll(oneByte{body})
		}
		if c.code != "" {
			status := 400
			if c.code == "MissingContentLength" {
				status = 411
			}
			wantCode(t, c.name, err, c.code, status)
			continue
		}
		if err != nil || string(got) != c.body {
			t.Errorf("%s: got %q, %v; want %q", c.name, got, err, c.body)
			continue
		}
		if v, err := body.Trailer(crc); c.trailer != "" && (v != c.trailer || err != nil) {
			t.Errorf("%s: trailer: got %q, %v; want %q", c.name, v, err, c.trailer)
		}
		body.Release()
	}
}

// A trailer can not be had early.
func TestTrailerWaits(t *testing.T) {
	e := streamExamples()["signed trailer"]
	body, err := open(t, e.headers, e.body)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(body, make([]byte, 66560)); err != nil {
		t.Fatal(err)
	}
	if v, err := body.Trailer("x-amz-checksum-crc32c"); err == nil {
		t.Errorf("trailer before the end: got %q", v)
	}
}

func TestStringsThatAreCompared(t *testing.T) {
	if s := new(signature); s.equals(strings.Repeat("0", 64)) || s.equals("") {
		t.Error("a signature of nothing equals something")
	}
	if !bytes.Equal(AppendPath(nil, ""), []byte("/")) {
		t.Error("the empty path is not /")
	}
}
