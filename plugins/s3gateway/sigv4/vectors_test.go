package sigv4

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The credentials, time and requests of the examples in the Amazon S3 API
// Reference, on the pages sig-v4-header-based-auth, sigv4-query-string-auth,
// sigv4-streaming and sigv4-streaming-trailers.
const (
	docKey    = "AKIAIOSFODNN7EXAMPLE"
	docSecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	docDate   = "20130524T000000Z"
)

func docTime() time.Time { return time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC) }

func docVerifier(now time.Time) *Verifier {
	return NewVerifier(Options{
		Lookup: func(k string) (string, bool) { return docSecret, k == docKey },
		Now:    func() time.Time { return now },
	})
}

// request makes a server's request from a request line, header lines and body.
func request(t testing.TB, method, target, headers string, body string) *http.Request {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "examplebucket.s3.amazonaws.com"
	for line := range strings.Lines(headers) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		switch {
		case !ok:
		case strings.EqualFold(name, "host"):
			r.Host = value
		default:
			r.Header.Add(name, strings.TrimSpace(value))
		}
	}
	return r
}

func authorization(signedHeaders, signature string) string {
	return "Authorization:AWS4-HMAC-SHA256 Credential=" + docKey + "/20130524/us-east-1/s3/aws4_request,SignedHeaders=" + signedHeaders + ",Signature=" + signature + "\n"
}

const welcome = "Welcome to Amazon S3."

// docExamples are the documented single-chunk requests.
func docExamples() map[string]struct{ method, target, headers, body string } {
	return map[string]struct{ method, target, headers, body string }{
		"get object": {
			"GET", "/test.txt",
			"Range:bytes=0-9\nx-amz-content-sha256:" + EmptyPayload + "\nx-amz-date:" + docDate + "\n" +
				authorization("host;range;x-amz-content-sha256;x-amz-date", "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
			"",
		},
		"put object": {
			"PUT", "/test$file.text",
			"Date:Fri, 24 May 2013 00:00:00 GMT\nx-amz-date:" + docDate + "\nx-amz-storage-class:REDUCED_REDUNDANCY\n" +
				"x-amz-content-sha256:44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072\n" +
				authorization("date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class", "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"),
			welcome,
		},
		"get lifecycle": {
			"GET", "/?lifecycle",
			"x-amz-date:" + docDate + "\nx-amz-content-sha256:" + EmptyPayload + "\n" +
				authorization("host;x-amz-content-sha256;x-amz-date", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
			"",
		},
		"list objects": {
			"GET", "/?max-keys=2&prefix=J",
			"x-amz-date:" + docDate + "\nx-amz-content-sha256:" + EmptyPayload + "\n" +
				authorization("host;x-amz-content-sha256;x-amz-date", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
			"",
		},
		"presigned get": {
			"GET", "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request" +
				"&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host" +
				"&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404", "", "",
		},
	}
}

func TestDocumentedExamples(t *testing.T) {
	for name, e := range docExamples() {
		t.Run(name, func(t *testing.T) {
			r := request(t, e.method, e.target, e.headers, e.body)
			auth, err := docVerifier(docTime()).Verify(r)
			if err != nil {
				t.Fatalf("verify: %v", err)
			}
			if auth.AccessKey != docKey || auth.Presigned != (name == "presigned get") {
				t.Errorf("verify: got %q, presigned %v", auth.AccessKey, auth.Presigned)
			}
			body, _, err := auth.Body(r)
			if err != nil {
				t.Fatalf("body: %v", err)
			}
			if got, err := io.ReadAll(body); err != nil || string(got) != e.body {
				t.Errorf("body: got %q, %v; want %q", got, err, e.body)
			}
			// Every part of the request counts.
			for what, change := range map[string]func(*http.Request){
				"method": func(r *http.Request) { r.Method = "DELETE" },
				"path":   func(r *http.Request) { r.URL.Path += "x" },
				"query":  func(r *http.Request) { r.URL.RawQuery += "&x=y" },
				"host":   func(r *http.Request) { r.Host = "other" },
			} {
				r := request(t, e.method, e.target, e.headers, e.body)
				change(r)
				_, err := docVerifier(docTime()).Verify(r)
				wantCode(t, "changed "+what, err, "SignatureDoesNotMatch", 403)
			}
		})
	}
}

func wantCode(t *testing.T, what string, err error, code string, status int) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Code != code || e.Status != status {
		t.Errorf("%s: got %v, want %s", what, err, code)
	}
}

// chunked frames a body as the documents show, from the given signatures.
func chunked(body string, sizes []int, signatures []string, tail string) string {
	var b strings.Builder
	for i, n := range sizes {
		fmt.Fprintf(&b, "%x;chunk-signature=%s\r\n%s\r\n", n, signatures[i], body[:n])
		body = body[n:]
	}
	fmt.Fprintf(&b, "0;chunk-signature=%s\r\n", signatures[len(sizes)])
	return b.String() + tail
}

// streamExamples are the two documented uploads in chunks of 64 KiB, 1 KiB
// and nothing, without and with a trailer.
func streamExamples() map[string]struct{ headers, body string } {
	data := strings.Repeat("a", 66560)
	sizes := []int{65536, 1024}
	return map[string]struct{ headers, body string }{
		"signed": {
			"host:s3.amazonaws.com\nx-amz-date:" + docDate + "\nx-amz-storage-class:REDUCED_REDUNDANCY\nContent-Encoding:aws-chunked\n" +
				"x-amz-content-sha256:" + StreamingSigned + "\nx-amz-decoded-content-length:66560\nContent-Length:66824\n" +
				authorization("content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class",
					"4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"),
			chunked(data, sizes, []string{
				"ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
				"0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
				"b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
			}, "\r\n"),
		},
		"signed trailer": {
			"host:s3.amazonaws.com\nx-amz-date:" + docDate + "\nx-amz-storage-class:REDUCED_REDUNDANCY\nContent-Encoding:aws-chunked\n" +
				"x-amz-content-sha256:" + StreamingSignedTrailer + "\nx-amz-decoded-content-length:66560\nx-amz-trailer:x-amz-checksum-crc32c\n" +
				authorization("content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class;x-amz-trailer",
					"106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"),
			chunked(data, sizes, []string{
				"b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
				"1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
				"2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
			}, "x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"),
		},
	}
}

// open verifies a streamed upload and returns its body.
func open(t *testing.T, headers, wire string) (*Body, error) {
	t.Helper()
	r := request(t, "PUT", "/examplebucket/chunkObject.txt", headers, wire)
	auth, err := docVerifier(docTime()).Verify(r)
	if err != nil {
		t.Fatalf("verify: %v", err)
	}
	body, n, err := auth.Body(r)
	if err == nil && n != 66560 {
		t.Errorf("length: got %d", n)
	}
	return body, err
}

func TestDocumentedStreams(t *testing.T) {
	want := bytes.Repeat([]byte("a"), 66560)
	for name, e := range streamExamples() {
		t.Run(name, func(t *testing.T) {
			body, err := open(t, e.headers, e.body)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(body)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("body: got %d bytes, %v", len(got), err)
			}
			if v, err := body.Trailer("x-amz-checksum-crc32c"); name == "signed trailer" && (err != nil || v != "sOO8/Q==") {
				t.Errorf("trailer: got %q, %v", v, err)
			}
			body.Release()

			// Any single changed byte of the wire is noticed before io.EOF,
			// and so is every truncation.
			for i := range e.body {
				if bytes.Count([]byte(e.body[max(i-150, 0):min(i+150, len(e.body))]), []byte("a")) == 300 && i%4999 != 0 {
					continue // deep inside the data
				}
				wire := []byte(e.body)
				wire[i] ^= 1
				body, err := open(t, e.headers, string(wire))
				if err != nil {
					t.Fatal(err)
				}
				if _, err = io.ReadAll(body); err == nil && !harmless(e.body, i) {
					t.Errorf("byte %d (%q) changed: not noticed", i, e.body[i])
				}
				body.Release()
				if body, err = open(t, e.headers, e.body[:i]); err != nil {
					t.Fatal(err)
				}
				_, err = io.ReadAll(body)
				wantCode(t, "cut at "+strconv.Itoa(i), err, "IncompleteBody", 400)
				body.Release()
			}
		})
	}
}

// harmless says whether a changed byte cannot matter: the carriage return of a
// line end, of which only the newline counts.
func harmless(wire string, i int) bool { return wire[i] == '\r' }

func TestSignedByDocumentedKey(t *testing.T) {
	k := deriveKey(docSecret, "20130524", "us-east-1", "s3")
	if got := fmt.Sprintf("%x", k.key); got != "dbb893acc010964918f1fd433add87c70e8b0db6be30c1fbeafefa5ec6ba8378" {
		t.Errorf("signing key: got %s", got)
	}
}
