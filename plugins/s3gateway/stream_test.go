package s3gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/s3gateway/sigv4"
)

func mac(key []byte, s string) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = h.Write([]byte(s))
	return h.Sum(nil)
}

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

// framed signs the chunks of a body by the book, apart from package sigv4.
type framed struct {
	key                  []byte
	amzDate, scope, prev string
}

func newFramed(r *http.Request) *framed {
	f := &framed{amzDate: r.Header.Get("X-Amz-Date")}
	auth := r.Header.Get("Authorization")
	_, f.prev, _ = strings.Cut(auth, "Signature=")
	f.scope = f.amzDate[:8] + "/us-east-1/s3/aws4_request"
	f.key = mac(mac(mac(mac([]byte("AWS4"+testSecret), f.amzDate[:8]), "us-east-1"), "s3"), "aws4_request")
	return f
}

func (f *framed) chunk(data string) string {
	f.prev = hex.EncodeToString(mac(f.key, strings.Join([]string{"AWS4-HMAC-SHA256-PAYLOAD", f.amzDate, f.scope, f.prev, sum(""), sum(data)}, "\n")))
	head := fmt.Sprintf("%x;chunk-signature=%s\r\n", len(data), f.prev)
	if data == "" {
		return head
	}
	return head + data + "\r\n"
}

func (f *framed) trailer(name, value string) string {
	f.prev = hex.EncodeToString(mac(f.key, strings.Join([]string{"AWS4-HMAC-SHA256-TRAILER", f.amzDate, f.scope, f.prev, sum(name + ":" + value + "\n")}, "\n")))
	return name + ":" + value + "\r\nx-amz-trailer-signature:" + f.prev + "\r\n"
}

func crc32Of(s string) string {
	c := crc32.ChecksumIEEE([]byte(s))
	return base64.StdEncoding.EncodeToString([]byte{byte(c >> 24), byte(c >> 16), byte(c >> 8), byte(c)})
}

// upload sends a streamed body of one of the three kinds over plain HTTP.
// change may spoil the wire format.
func (e *endpoint) upload(t *testing.T, target, payload, data string, change func(wire string) string) reply {
	t.Helper()
	h := headers("X-Amz-Decoded-Content-Length", fmt.Sprint(len(data)), "Content-Encoding", "aws-chunked")
	if payload != sigv4.StreamingSigned {
		h.Set("X-Amz-Trailer", "x-amz-checksum-crc32")
	}
	r := e.request(t, "PUT", target, h, "", payload)
	f := newFramed(r)
	var wire strings.Builder
	for rest := data; rest != ""; {
		n := min(len(rest), 8192)
		if payload == sigv4.StreamingUnsignedTrailer {
			fmt.Fprintf(&wire, "%x\r\n%s\r\n", n, rest[:n])
		} else {
			wire.WriteString(f.chunk(rest[:n]))
		}
		rest = rest[n:]
	}
	switch payload {
	case sigv4.StreamingSigned:
		wire.WriteString(f.chunk("") + "\r\n")
	case sigv4.StreamingSignedTrailer:
		wire.WriteString(f.chunk("") + f.trailer("x-amz-checksum-crc32", crc32Of(data)) + "\r\n")
	default:
		wire.WriteString("0\r\nx-amz-checksum-crc32:" + crc32Of(data) + "\r\n\r\n")
	}
	setBody(r, change(wire.String()))
	return e.send(t, r)
}

// opaque says nothing of why a write failed.
type opaque struct{ core.Objects }

func (o opaque) Put(ctx context.Context, b core.Bucket, key string, body io.Reader, po core.PutOptions) (core.ObjectInfo, error) {
	info, err := o.Objects.Put(ctx, b, key, body, po)
	if err != nil && !errors.Is(err, core.ErrChecksum) {
		err = fmt.Errorf("put: %s: %w", err.Error(), core.ErrUnavailable)
	}
	return info, err
}

// What the client did wrong is told even if the object layer does not say it.
func TestStreams(t *testing.T) {
	e := serve(t, func(o core.Objects) core.Objects { return opaque{o} }, false)
	b := e.bucket(t, "data")
	same := func(s string) string { return s }
	for _, payload := range []string{sigv4.StreamingSigned, sigv4.StreamingSignedTrailer, sigv4.StreamingUnsignedTrailer} {
		for _, n := range []int{0, 1, 8192, 100_000} {
			key := fmt.Sprint(payload, n)
			data := string(random(n))
			r := e.upload(t, "/data/"+key, payload, data, same)
			r.want(t, key, 200, "")
			info := e.wantStored(t, b, key, []byte(data))
			if payload != sigv4.StreamingSigned && (info.Checksum != core.Checksum{Algorithm: "CRC32", Value: crc32Of(data)} || r.header.Get("x-amz-checksum-crc32") != crc32Of(data)) {
				t.Errorf("%s: stored with %+v, answered %s", key, info.Checksum, r.header.Get("x-amz-checksum-crc32"))
			}
			if len(info.Headers) != 0 {
				t.Errorf("%s: stored with %v", key, info.Headers)
			}
		}
		for name, v := range map[string]struct {
			change func(string) string
			code   string
		}{
			"changed data": {func(s string) string { return strings.Replace(s, "secret", "sECRET", 1) }, map[string]string{
				sigv4.StreamingUnsignedTrailer: "BadDigest",
			}[payload]},
			"cut":           {func(s string) string { return s[:len(s)-1] }, "IncompleteBody"},
			"cut in a half": {func(s string) string { return s[:len(s)/2] }, "IncompleteBody"},
			"more":          {func(s string) string { return s + "0\r\n\r\n" }, "InvalidRequest"},
			"other trailer": {func(s string) string { return strings.Replace(s, "x-amz-checksum-crc32:", "x-amz-checksum-crc33:", 1) }, "MalformedTrailerError"},
			"other sum": {func(s string) string { return strings.Replace(s, "crc32:", "crc32:AAAA", 1) }, map[string]string{
				sigv4.StreamingUnsignedTrailer: "InvalidRequest",
			}[payload]},
		} {
			if payload == sigv4.StreamingSigned && strings.HasPrefix(name, "other") {
				continue
			}
			if v.code == "" {
				v.code = "SignatureDoesNotMatch"
			}
			status := map[string]int{"SignatureDoesNotMatch": 403}[v.code]
			if status == 0 {
				status = 400
			}
			e.upload(t, "/data/spoilt", payload, strings.Repeat("some secret data ", 2000), v.change).want(t, payload+" "+name, status, v.code)
			e.wantAbsent(t, b, "spoilt")
		}
	}
}

// dial sends the head of a signed request over a connection of its own.
func (e *endpoint) dial(t *testing.T, r *http.Request) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(e.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	var head bytes.Buffer
	fmt.Fprintf(&head, "%s %s HTTP/1.1\r\nHost: %s\r\n", r.Method, r.URL.RequestURI(), r.URL.Host)
	if err := r.Header.Write(&head); err != nil {
		t.Fatal(err)
	}
	head.WriteString("\r\n")
	if _, err := c.Write(head.Bytes()); err != nil {
		t.Fatal(err)
	}
	return c, bufio.NewReader(c)
}

// A client that is still sending what is refused gets its answer, which a reset
// of the connection would take along.
func TestRefusedWhileSending(t *testing.T) {
	e := serve(t, nil, false)
	b := e.bucket(t, "data")
	const size, more = 1 << 20, 8 << 20 // more than the kernel would keep for a server that no longer reads
	c, in := e.dial(t, e.request(t, "PUT", "/data/k", headers(
		"Content-Encoding", "aws-chunked", "X-Amz-Decoded-Content-Length", fmt.Sprint(size),
		"X-Amz-Trailer", "x-amz-checksum-crc32", "Content-Length", fmt.Sprint(size+more+len("900000\r\n")),
	), "", sigv4.StreamingUnsignedTrailer))
	if _, err := fmt.Fprintf(c, "%x\r\n%s", size+more, strings.Repeat("x", size+more)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 400 {
		t.Errorf("got %d, %v", resp.StatusCode, err)
	}
	e.wantAbsent(t, b, "k")
}

// A client that waits for "100 Continue" gets its error instead of it.
func TestExpectContinue(t *testing.T) {
	e := serve(t, nil, false)
	e.bucket(t, "data")
	length := headers("Expect", "100-continue", "Content-Length", "1000000")
	for name, v := range map[string]struct {
		target string
		header http.Header
		status int
	}{
		"no bucket":           {"/absent/k", length, 404},
		"long key":            {"/data/" + strings.Repeat("k", 1025), length, 400},
		"not built":           {"/data/k", headers("Expect", "100-continue", "Content-Length", "1", "x-amz-object-lock-mode", "x"), 501},
		"too large":           {"/data/k", headers("Expect", "100-continue", "Content-Length", fmt.Sprint(maxPut+1)), 400},
		"bad MD5":             {"/data/k", headers("Expect", "100-continue", "Content-Length", "1", "Content-MD5", "x"), 400},
		"failed if":           {"/data/absent", headers("Expect", "100-continue", "Content-Length", "1", "If-Match", "x"), 404},
		"no upload":           {"/data/k?partNumber=1&uploadId=x", length, 404},
		"enormous XML":        {"/data?delete", headers("Expect", "100-continue", "Content-Length", "100000000"), 400},
		"nothing to wait for": {"/data/k", headers("Expect", "100-continue", "Content-Length", "0"), 100},
		"what is wanted":      {"/data/k", headers("Expect", "100-continue", "Content-Length", "3"), 100},
	} {
		method := "PUT"
		if name == "enormous XML" {
			method = "POST"
		}
		c, in := e.dial(t, e.request(t, method, v.target, v.header, "", sigv4.UnsignedPayload))
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.StatusCode != v.status {
			t.Errorf("%s: got %+v, %v; want %d", name, resp, err, v.status)
			continue
		}
		_ = resp.Body.Close()
		if v.status != 100 {
			continue
		}
		body := "abc"
		if v.header.Get("Content-Length") == "0" {
			body = ""
		}
		if _, err := io.WriteString(c, body); err != nil {
			t.Fatal(err)
		}
		if resp, err = http.ReadResponse(in, nil); err != nil || resp.StatusCode != 200 {
			t.Errorf("%s: got %+v, %v", name, resp, err)
		}
		_ = resp.Body.Close()
		e.wantStored(t, "data", "k", []byte(body))
	}
}

// watched tells what became of each Put.
type watched struct {
	core.Objects
	results chan error
}

func (w watched) Put(ctx context.Context, b core.Bucket, key string, body io.Reader, o core.PutOptions) (core.ObjectInfo, error) {
	info, err := w.Objects.Put(ctx, b, key, body, o)
	w.results <- err
	return info, err
}

// A client that hangs up, or half closes, in its body leaves nothing.
func TestHangUp(t *testing.T) {
	results := make(chan error, 1)
	e := serve(t, func(o core.Objects) core.Objects { return watched{o, results} }, false)
	b := e.bucket(t, "data")
	for _, half := range []bool{false, true} {
		c, in := e.dial(t, e.request(t, "PUT", "/data/k", headers("Content-Length", "1000000"), "", sigv4.UnsignedPayload))
		if _, err := c.Write(random(1000)); err != nil {
			t.Fatal(err)
		}
		if half {
			tcp, ok := c.(*net.TCPConn)
			if !ok {
				t.Fatal("not TCP")
			}
			if err := tcp.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(in, nil)
			if err == nil {
				body, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != 400 || !strings.Contains(string(body), "IncompleteBody") {
					t.Errorf("half closed: got %d %s", resp.StatusCode, body)
				}
			}
		} else if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-results; err == nil {
			t.Error("put succeeded")
		}
		e.wantAbsent(t, b, "k")
	}
	// Without a length there is no telling what is whole.
	r := e.request(t, "PUT", "/data/k", nil, "", sigv4.UnsignedPayload)
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader("abc")), -1
	e.send(t, r).want(t, "no length", 411, "MissingContentLength")
	e.wantAbsent(t, b, "k")
}

// broken returns bodies that fail after some bytes.
type broken struct {
	core.Objects
	after  int
	err    error
	open   *atomic.Int32
	writes bool // by WriteTo
}

type brokenBody struct {
	io.Reader
	open *atomic.Int32
}

func (b brokenBody) Close() error { b.open.Add(-1); return nil }

// writerBody writes itself.
type writerBody struct{ brokenBody }

func (b writerBody) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, b.Reader) }

func (b broken) Get(ctx context.Context, bucket core.Bucket, key string, o core.GetOptions) (*core.Object, error) {
	obj, err := b.Objects.Get(ctx, bucket, key, o)
	if err != nil {
		return nil, err
	}
	end := iotest.ErrReader(b.err)
	if b.err == nil {
		end = strings.NewReader("")
	}
	b.open.Add(1)
	body := brokenBody{io.MultiReader(io.LimitReader(obj.Body, int64(b.after)), end), b.open}
	obj.Body = body
	if b.writes {
		obj.Body = writerBody{body}
	}
	return obj, nil
}

// A download that fails is an error if that is still possible, and breaks the
// connection if not. It never ends as if it were whole.
func TestBrokenDownload(t *testing.T) {
	for _, writes := range []bool{false, true} {
		for _, n := range []int{100, 300_000} {
			for _, after := range []int{0, 1, n - 1, n} {
				for _, fault := range []error{core.ErrUnavailable, core.ErrCorrupt, nil} {
					if after == n && (fault == nil || writes) {
						continue // that is the whole, or the body's own duty
					}
					open := new(atomic.Int32)
					e := serve(t, func(o core.Objects) core.Objects { return broken{o, after, fault, open, writes} }, false)
					e.bucket(t, "data")
					e.raw(t, "PUT", "/data/k", nil, string(random(n))).want(t, "put", 200, "")
					r := e.request(t, "GET", "/data/k", nil, "", sigv4.EmptyPayload)
					resp, err := e.http.Do(r)
					what := fmt.Sprintf("%d of %d bytes, then %v, by WriteTo %v", after, n, fault, writes)
					if after == 0 && err != nil {
						t.Errorf("%s: got %v, want an error document", what, err)
					}
					if err == nil {
						var body []byte
						body, err = io.ReadAll(resp.Body)
						_ = resp.Body.Close()
						switch {
						case resp.StatusCode == 200 && err == nil:
							t.Errorf("%s: got %d bytes and success", what, len(body))
						case after == 0 && (resp.StatusCode < 500 || err != nil):
							t.Errorf("%s: got %d, %v; want an error document", what, resp.StatusCode, err)
						case after > 0 && after < n && err == nil:
							t.Errorf("%s: got %d %s", what, resp.StatusCode, body)
						}
					}
					e.close()
					if open.Load() != 0 {
						t.Errorf("%s: %d bodies are left open", what, open.Load())
					}
				}
			}
		}
	}
}

// Downloads of all sizes come whole, by both ways.
func TestDownload(t *testing.T) {
	for _, writes := range []bool{false, true} {
		e := serve(t, func(o core.Objects) core.Objects { return broken{o, 1 << 30, nil, new(atomic.Int32), writes} }, false)
		e.bucket(t, "data")
		for _, n := range []int{0, 1, 1000, copyBuffer - 1, copyBuffer, copyBuffer + 1, 1 << 20} {
			data := random(n)
			e.raw(t, "PUT", "/data/k", nil, string(data)).want(t, "put", 200, "")
			r := e.raw(t, "GET", "/data/k", nil, "")
			if r.status != 200 || r.body != string(data) || r.header.Get("Content-Length") != fmt.Sprint(n) {
				t.Errorf("%d bytes, by WriteTo %v: got %d, %d bytes", n, writes, r.status, len(r.body))
			}
		}
	}
}

// A client that goes away ends the read.
func TestDownloadAbandoned(t *testing.T) {
	closed := new(atomic.Int32)
	done := make(chan struct{})
	e := serve(t, func(o core.Objects) core.Objects { return endless{o, closed, done} }, false)
	e.bucket(t, "data")
	e.raw(t, "PUT", "/data/k", nil, "x").want(t, "put", 200, "")
	ctx, cancel := context.WithCancel(t.Context())
	resp, err := e.http.Do(e.request(t, "GET", "/data/k", nil, "", sigv4.EmptyPayload).WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	cancel()
	_ = resp.Body.Close()
	<-done
}

// endless has bodies without end.
type endless struct {
	core.Objects
	closed *atomic.Int32
	done   chan struct{}
}

type endlessBody struct{ done chan struct{} }

func (endlessBody) Read(p []byte) (int, error) { return len(p), nil }
func (b endlessBody) Close() error             { close(b.done); return nil }

func (b endless) Get(ctx context.Context, bucket core.Bucket, key string, o core.GetOptions) (*core.Object, error) {
	obj, err := b.Objects.Get(ctx, bucket, key, o)
	if err != nil {
		return nil, err
	}
	obj.Size, obj.Length, obj.Body = 1<<50, 1<<50, endlessBody{b.done}
	return obj, nil
}
