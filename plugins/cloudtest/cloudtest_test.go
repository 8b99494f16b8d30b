package cloudtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// s3Client speaks to endpoint once per call.
func s3Client(s *Server, endpoint string) *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(endpoint), Region: s.Region(), UsePathStyle: true, Retryer: aws.NopRetryer{}, HTTPClient: s.client(),
		Credentials: credentials.NewStaticCredentialsProvider(s.AccessKey(), s.Secret(), ""),
	})
}

// answer is an answer read to its end.
type answer struct {
	status int
	length int64
	header http.Header
}

// fetch reads what a URL has, without a connection kept, so that net/http does not repeat it.
func fetch(t *testing.T, method, url string, body []byte) (answer, []byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return answer{}, nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.ContentLength, res.Header}, b, err
}

func TestS3ThroughProxy(t *testing.T) {
	s := Serve(t, Options{Buckets: []string{"data"}})
	p := ServeProxy(t, s)
	c := s3Client(s, p.URL())
	ctx, bucket := t.Context(), aws.String("data")
	key := "a b/ä+%20~'()*!/x"
	body := bytes.Repeat([]byte("0123456789"), 10_000)
	if _, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: &key, Body: bytes.NewReader(body)}); err != nil {
		t.Fatal(err)
	}
	got, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(got.Body); err != nil || !bytes.Equal(b, body) {
		t.Errorf("get: %d bytes, %v", len(b), err)
	}
	if _, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: bucket, Key: &key}); err != nil {
		t.Error(err)
	}
	l, err := c.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: bucket})
	if err != nil || len(l.Contents) != 1 || *l.Contents[0].Key != key {
		t.Errorf("list: %+v, %v", l, err)
	}
	up, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.UploadPart(ctx, &s3.UploadPartInput{Bucket: bucket, Key: &key, UploadId: up.UploadId, PartNumber: aws.Int32(1), Body: bytes.NewReader(body)}); err != nil {
		t.Error(err)
	}
	if _, err := c.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: bucket, Key: &key, UploadId: up.UploadId}); err != nil {
		t.Error(err)
	}
	if _, err := c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: bucket, Key: aws.String("copy"), CopySource: aws.String("data/a%20b/%C3%A4%2B%2520~%27()*!/x")}); err != nil {
		t.Error(err)
	}
	if _, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: &key}); err != nil {
		t.Error(err)
	}
	if _, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: bucket, Key: &key}); err == nil {
		t.Error("head of what is deleted: no error")
	}
	if _, err := c.ListBuckets(ctx, &s3.ListBucketsInput{}); err != nil {
		t.Error(err)
	}
	if _, err := c.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: bucket}); err != nil {
		t.Error(err)
	}
	counts := p.Counts()
	for op, want := range map[Op]int64{
		PutObject: 1, GetObject: 1, HeadObject: 2, List: 1, CreateUpload: 1, PutPart: 1, AbortUpload: 1, Copy: 1,
		DeleteObject: 1, ListBuckets: 1, HeadBucket: 1,
	} {
		if n := counts.Of(op); n.Requests != want || n.Passed != want {
			t.Errorf("%s: counted %+v, want %d", op, n, want)
		}
	}
	if all, errs := counts.Of().Requests, counts.Of().Errors; all != 12 || errs != 1 {
		t.Errorf("counted %d requests and %d errors, want 12 and 1: %+v", all, errs, counts.ByOp)
	}
	if in, out := counts.Of(PutObject).In, counts.Of(GetObject).Out; in < int64(len(body)) || out != int64(len(body)) {
		t.Errorf("counted %d bytes in and %d out, of a body of %d", in, out, len(body))
	}
}

func TestGCSThroughProxy(t *testing.T) {
	for _, memory := range []bool{true, false} {
		s := Serve(t, Options{Kind: GCS, Memory: memory, Buckets: []string{"data"}})
		p := ServeProxy(t, s)
		want := []byte("hello")
		at := p.URL() + "/upload/storage/v1/b/data/o?uploadType=media&name=a%2Fb"
		if res, b, err := fetch(t, http.MethodPost, at, want); err != nil || res.status != http.StatusOK {
			t.Fatalf("upload: %v, %s", err, b)
		}
		for _, path := range []string{"/storage/v1/b/data/o/a%2Fb?alt=media", "/download/storage/v1/b/data/o/a%2Fb?alt=media", "/data/a/b"} {
			if res, b, err := fetch(t, http.MethodGet, p.URL()+path, nil); err != nil || res.status != http.StatusOK || !bytes.Equal(b, want) {
				t.Errorf("get %s: %v, %q", path, err, b)
			}
		}
		if _, b, err := fetch(t, http.MethodGet, p.URL()+"/storage/v1/b/data/o/a%2Fb", nil); err != nil || !strings.Contains(string(b), `"size":"5"`) {
			t.Errorf("head: %v, %s", err, b)
		}
		if _, b, err := fetch(t, http.MethodGet, p.URL()+"/storage/v1/b/data/o", nil); err != nil || !strings.Contains(string(b), `"a/b"`) {
			t.Errorf("list: %v, %s", err, b)
		}
		res, _, err := fetch(t, http.MethodPost, p.URL()+"/upload/storage/v1/b/data/o?uploadType=resumable&name=c", []byte("{}"))
		if err != nil || !strings.HasPrefix(res.header.Get("Location"), p.URL()) {
			t.Fatalf("resumable upload: %v, location %q, want one at %s", err, res.header.Get("Location"), p.URL())
		}
		if res, b, err := fetch(t, http.MethodPut, res.header.Get("Location"), want); err != nil || res.status != http.StatusOK {
			t.Errorf("chunk: %v, %s", err, b)
		}
		counts := p.Counts()
		for op, want := range map[Op]int64{PutObject: 1, GetObject: 3, HeadObject: 1, List: 1, CreateUpload: 1, PutPart: 1, Other: 0} {
			if n := counts.Of(op).Requests; n != want {
				t.Errorf("%s: counted %d, want %d", op, n, want)
			}
		}
	}
}

// Signatures cover host, path, query and headers as the client wrote them.
func TestRequestsPassAsTheyAre(t *testing.T) {
	seen := make(chan *http.Request, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r }))
	defer srv.Close()
	p, err := StartProxy(ProxyOptions{Upstream: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, uri := range []string{"/b/a%20b/%27%28x%29%21%2A", "/b/'(x)!*~", "/b/%7e/%2F//x/../y", "/b/?list-type=2&prefix=a%2Fb+c&empty", "/"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(p.URL(), "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.WriteString(conn, "GET "+uri+" HTTP/1.1\r\nHost: bucket.example.net\r\nX-Amz-Date: 1\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n")
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(conn); err != nil || !bytes.HasPrefix(b, []byte("HTTP/1.1 200")) {
			t.Fatalf("%s: %v, %s", uri, err, b)
		}
		_ = conn.Close()
		r := <-seen
		if r.RequestURI != uri || r.Host != "bucket.example.net" || r.Header.Get("X-Amz-Date") != "1" || r.Header.Get("Accept-Encoding") != "identity" || len(r.Header["User-Agent"]) > 0 {
			t.Errorf("%s arrived as %s at %s with %v", uri, r.RequestURI, r.Host, r.Header)
		}
	}
}

// upstream is a server behind a proxy, with the object "k".
type upstream struct {
	t *testing.T
	p *Proxy
}

const whole = "0123456789"

func newUpstream(t *testing.T) *upstream {
	u := &upstream{t: t}
	s := Serve(t, Options{Kind: GCS, Memory: true, Buckets: []string{"bbb"}})
	u.p = ServeProxy(t, s)
	if _, b, err := u.put("k", whole); err != nil {
		t.Fatalf("%v, %s", err, b)
	}
	return u
}

func (u *upstream) put(key, body string) (answer, []byte, error) {
	return fetch(u.t, http.MethodPost, u.p.URL()+"/upload/storage/v1/b/bbb/o?uploadType=media&name="+key, []byte(body))
}

func (u *upstream) get(key string) (answer, string, error) {
	res, b, err := fetch(u.t, http.MethodGet, u.p.URL()+"/storage/v1/b/bbb/o/"+key+"?alt=media", nil)
	return res, string(b), err
}

// has says whether the server itself has an object.
func (u *upstream) has(key string) bool {
	u.p.SetRules()
	res, _, err := u.get(key)
	if err != nil {
		u.t.Fatal(err)
	}
	return res.status == http.StatusOK
}

func TestFaultsOfRequests(t *testing.T) {
	u := newUpstream(t)
	for _, c := range []struct {
		name   string
		rule   Rule
		status int // 0: no answer
		done   bool
	}{
		{"none", Rule{}, 200, true},
		{"for others", Rule{Ops: []Op{GetObject}, Fault: ResetBefore}, 200, true},
		{"for another bucket", Rule{Bucket: "c", Fault: ResetBefore}, 200, true},
		{"for other keys", Rule{KeyPrefix: "zz", Fault: ResetBefore}, 200, true},
		{"not yet", Rule{Skip: 1, Fault: ResetBefore}, 200, true},
		{"answer", Rule{Fault: Answer}, 503, false},
		{"answer 429", Rule{Fault: Answer, Status: 429, RetryAfter: 1500 * time.Millisecond}, 429, false},
		{"reset before", Rule{Ops: []Op{PutObject}, Fault: ResetBefore}, 0, false},
		{"reset after", Rule{Fault: ResetAfter}, 0, true},
	} {
		key := strings.ReplaceAll(c.name, " ", "-")
		u.p.SetRules(c.rule)
		res, b, err := u.put(key, strings.Repeat("x", 300<<10))
		if c.status == 0 {
			if err == nil {
				t.Errorf("%s: got %v, want no answer", c.name, res)
			}
		} else if err != nil || res.status != c.status {
			t.Errorf("%s: got %v, %v; want %d: %s", c.name, res, err, c.status, b)
		}
		if c.status == 429 && (res.header.Get("Retry-After") != "2" || !strings.Contains(string(b), "rateLimitExceeded")) {
			t.Errorf("%s: Retry-After %q, %s", c.name, res.header.Get("Retry-After"), b)
		}
		if done := u.has(key); done != c.done {
			t.Errorf("%s: the server has done it: %v, want %v", c.name, done, c.done)
		}
	}
}

func TestLateRequest(t *testing.T) {
	u := newUpstream(t)
	u.p.SetRules(Rule{Fault: Late, Delay: 50 * time.Millisecond})
	before := u.p.Counts()
	if _, _, err := u.put("late", whole); err == nil {
		t.Error("no error")
	}
	if err := u.p.Await(t.Context(), func(c Counts) bool { return c.Sub(before).Of(PutObject).Passed == 1 && c.Active == 0 }); err != nil {
		t.Fatal(err)
	}
	if !u.has("late") {
		t.Error("what is late never comes")
	}
}

func TestFaultsOfBodies(t *testing.T) {
	u := newUpstream(t)
	u.p.SetRules(Rule{Fault: Shorten, At: 4})
	if res, b, err := u.get("k"); err != nil || b != whole[:4] || res.length != 4 {
		t.Errorf("shorten: got %q, %v", b, err)
	}
	u.p.SetRules(Rule{Fault: Flip, At: 3})
	if _, b, err := u.get("k"); err != nil || b != "0122456789" {
		t.Errorf("flip: got %q, %v", b, err)
	}
	u.p.SetRules(Rule{Header: map[string]string{"ETag": `"other"`, "content-length": "5", "X-Goog-Generation": ""}})
	if res, b, err := u.get("k"); err != nil || b != whole[:5] || res.header.Get("ETag") != `"other"` || res.header.Get("X-Goog-Generation") != "" {
		t.Errorf("lies: got %q, %v, %v", b, err, res.header)
	}
	u.p.SetRules(Rule{Header: map[string]string{"Content-Length": "15"}})
	if _, b, err := u.get("k"); !errors.Is(err, io.ErrUnexpectedEOF) || b != whole {
		t.Errorf("a longer Content-Length: got %q, %v", b, err)
	}
	for fault, want := range map[Fault]error{Truncate: io.ErrUnexpectedEOF, ResetBody: syscall.ECONNRESET} {
		u.p.SetRules(Rule{Fault: fault, At: 7})
		if _, b, err := u.get("k"); !errors.Is(err, want) || !strings.HasPrefix(whole[:7], b) {
			t.Errorf("fault %d: got %q, %v; want %v", fault, b, err, want)
		}
	}
}

// A stall, a hang and a lost answer last until the client goes.
func TestWaitingFaults(t *testing.T) {
	u := newUpstream(t)
	for fault, passed := range map[Fault]int64{Stall: 1, Hang: 0, HangAfter: 1} {
		// A client has its answer a little before the proxy is through with the request.
		if err := u.p.Await(t.Context(), func(c Counts) bool { return c.Active == 0 }); err != nil {
			t.Fatal(err)
		}
		u.p.SetRules(Rule{Fault: fault, At: 3})
		before := u.p.Counts()
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.p.URL()+"/storage/v1/b/bbb/o/k?alt=media", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		got, reading := make(chan string, 1), make(chan struct{})
		go func() {
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				got <- fmt.Sprint(errors.Is(err, context.Canceled))
				return
			}
			defer res.Body.Close()
			b := make([]byte, 3)
			_, err = io.ReadFull(res.Body, b)
			close(reading)
			_, last := res.Body.Read(make([]byte, 1))
			got <- fmt.Sprint(string(b), err, errors.Is(last, context.Canceled))
		}()
		err = u.p.Await(ctx, func(c Counts) bool {
			n := c.Sub(before).Of(GetObject)
			return n.Requests == 1 && n.Passed == passed && (fault != Stall || n.Out == 3)
		})
		if err != nil {
			t.Fatal(err)
		}
		if c := u.p.Counts(); c.Active != 1 {
			t.Errorf("fault %d: %d requests under way, want 1", fault, c.Active)
		}
		if fault == Stall {
			<-reading
		}
		cancel()
		want := "true"
		if fault == Stall {
			want = "012<nil> true"
		}
		if g := <-got; g != want {
			t.Errorf("fault %d: got %s, want %s", fault, g, want)
		}
		if err := u.p.Await(t.Context(), func(c Counts) bool { return c.Active == 0 }); err != nil {
			t.Error(err)
		}
	}
}

func TestShareAndTimes(t *testing.T) {
	u := newUpstream(t)
	failed := func(n int) (sum int) {
		for range n {
			if res, _, err := u.get("k"); err != nil {
				t.Fatal(err)
			} else if res.status != http.StatusOK {
				sum++
			}
		}
		return sum
	}
	u.p.SetRules(Rule{Skip: 2, Times: 3, Fault: Answer})
	if n := failed(10); n != 3 {
		t.Errorf("3 times after 2: %d failed", n)
	}
	u.p.SetRules(Rule{Share: 0.5, Fault: Answer})
	if n := failed(40); n < 8 || n > 32 {
		t.Errorf("half of 40: %d failed", n)
	}
}

func TestLatencyAndBandwidth(t *testing.T) {
	u := newUpstream(t)
	u.p.SetRules()
	body := strings.Repeat("x", 200<<10)
	if _, b, err := u.put("big", body); err != nil {
		t.Fatalf("%v, %s", err, b)
	}
	took := func(f func()) time.Duration { start := time.Now(); f(); return time.Since(start) }
	get := func() {
		if _, b, err := u.get("big"); err != nil || b != body {
			t.Errorf("get: %d bytes, %v", len(b), err)
		}
	}
	u.p.SetRules(Rule{Latency: 60 * time.Millisecond}, Rule{Latency: 60 * time.Millisecond})
	if d := took(get); d < 120*time.Millisecond {
		t.Errorf("latency of 120 ms: took %s", d)
	}
	u.p.SetRules(Rule{Bandwidth: 1 << 20})
	if d := took(get); d < 190*time.Millisecond {
		t.Errorf("200 KiB at 1 MiB/s: took %s", d)
	}
	if d := took(func() { _, _, _ = u.put("big", body) }); d < 190*time.Millisecond {
		t.Errorf("upload of 200 KiB at 1 MiB/s: took %s", d)
	}
}

func TestDownAndUp(t *testing.T) {
	u := newUpstream(t)
	url := u.p.URL()
	if err := u.p.Down(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := u.get("k"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("down: got %v, want refused", err)
	}
	if err := u.p.Up(); err != nil || u.p.URL() != url {
		t.Fatalf("up at %s, want %s: %v", u.p.URL(), url, err)
	}
	if _, b, err := u.get("k"); err != nil || b != whole {
		t.Errorf("up: %q, %v", b, err)
	}
}

// A server does not outlive the process that started it, however that ends.
func TestServerEndsWithItsParent(t *testing.T) {
	if os.Getenv("CLOUDTEST_CHILD") != "" {
		s, err := Start(t.Context(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("\nserver %d %s\n", s.PID(), s.dir)
		<-t.Context().Done() // until it is killed
		return
	}
	Serve(t, Options{}) // or skip
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestServerEndsWithItsParent$")
	cmd.Env = append(os.Environ(), "CLOUDTEST_CHILD=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid, dir := 0, ""
	for lines := bufio.NewScanner(out); pid == 0 && lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "server %d %s", &pid, &dir)
	}
	if err := cmd.Process.Kill(); err != nil || pid == 0 {
		t.Fatalf("kill: %v; server %d", err, pid)
	}
	_ = cmd.Wait()
	defer func() { _ = os.RemoveAll(dir) }()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	for running(pid) {
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			t.Fatalf("the server still runs: %v", err)
		}
	}
}

// running says whether a process does: one that has ended may wait for its parent.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && bytes.Contains(stat, []byte("(versitygw)")) && !bytes.Contains(stat, []byte(") Z "))
}

func TestServerEnds(t *testing.T) {
	s := Serve(t, Options{})
	other, err := Start(t.Context(), Options{Program: s.o.Program, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(other.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-other.ended
	if err := other.Close(); err == nil {
		t.Error("the end of a server that was killed is not told")
	}
	if _, err := os.Stat(other.dir); err != nil {
		t.Errorf("a directory of the caller's is gone: %v", err)
	}
	if _, err := Start(t.Context(), Options{Program: "/bin/false"}); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("a program that ends: %v", err)
	}
	if _, err := FindProgram("no-such-program-anywhere"); !errors.Is(err, ErrNoProgram) {
		t.Errorf("no program: %v", err)
	}
}
