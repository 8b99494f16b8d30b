package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

// FaultKind is a way in which requests go wrong.
type FaultKind int

// The faults.
const (
	// Answer: with Status and Body in place of the server, which sees nothing.
	Answer FaultKind = iota
	// ResetBefore: the connection breaks; the server sees nothing.
	ResetBefore
	// ResetAfter: it breaks after the server did what it was asked to.
	ResetAfter
	// Hang: no answer; the server sees nothing.
	Hang
	// Truncate: the answer's body ends after At bytes, and so does the connection.
	Truncate
	// ResetBody: the connection breaks there.
	ResetBody
	// Stall: nothing more comes after At bytes.
	Stall
	// Shorten: the body ends after At bytes, as Content-Length says.
	Shorten
	// Lie: headers of the answer are replaced.
	Lie
)

// Fault is what a [Proxy] does to requests.
type Fault struct {
	Kind       FaultKind
	At         int64
	Status     int
	Body       string
	RetryAfter time.Duration
	Header     map[string]string
}

// Proxy is between a backend and its server.
type Proxy interface {
	// Break has all requests from now on suffer the fault; Mend ends that.
	Break(f Fault)
	Mend()
	// Down refuses connections, until Up.
	Down() error
	Up() error
	// Requests is the number of requests up to now.
	Requests() int
	// AwaitActive returns once n requests are under way.
	AwaitActive(ctx context.Context, n int) error
}

func proxiedGroups() []group {
	return []group{
		{"PutGet", all, testPutGet},
		{"Ranges", all, testRanges},
		{"Listing", lists, testProxiedListing},
		{"OneRequest", all, testOneRequest},
		{"Refusals", all, testRefusals},
		{"Resets", all, testResets},
		{"LostAnswers", writable, testLostAnswers},
		{"Unreachable", all, testUnreachable},
		{"BrokenBodies", all, testBrokenBodies},
		{"Lies", all, testLies},
		{"BrokenListings", lists, testBrokenListings},
		{"Hangs", all, testHangs},
		{"Stalls", all, testStalls},
		{"Leaks", all, testLeaks},
	}
}

func (f Failing) check(t *testing.T) {
	for name, op := range ops(f.Backend, f.Bucket) {
		if slices.Contains(f.Skip, name) {
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		err := op(ctx)
		cancel()
		if name == "Put of more" && errors.Is(err, core.ErrUnknownOutcome) {
			continue // the connection was reset while the body was sent, and the answer with it
		}
		wantErr(t, name, err, f.Want)
		if err != nil && !strings.Contains(err.Error(), f.Words) {
			t.Errorf("%s: error %q does not speak of %q", name, err, f.Words)
		}
	}
}

// A page costs one request, which checkPage counts.
func testProxiedListing(t *testing.T, s *suite) {
	var keys []string
	for i := range 20 {
		keys = append(keys, fmt.Sprintf("k%02d", i))
	}
	s.seedAll(t, keys)
	for _, most := range []int{3, 20, 100} {
		if got := s.listAll(t, core.RemoteListOptions{Max: most}); !slices.Equal(got, keys) {
			t.Errorf("pages of %d: got %q", most, got)
		}
	}
}

// Every call makes one request, whatever comes of it.
func testOneRequest(t *testing.T, s *suite) {
	s.seed(t, "key", []byte("data"))
	for _, broken := range []bool{false, true} {
		for name, op := range ops(s.b, s.bucket) {
			if broken {
				s.proxy.Break(Fault{Kind: Answer, Status: 503})
			}
			before := s.proxy.Requests()
			err := op(t.Context())
			if n := s.proxy.Requests() - before; n > 1 || n == 0 && name != "AbortUpload" {
				t.Errorf("%s, broken %v: %d requests, want 1 (%v)", name, broken, n, err)
			}
			s.proxy.Mend()
			if name == "Delete" || name == "Put of more" {
				s.seed(t, "key", []byte("data"))
			}
		}
	}
}

func testRefusals(t *testing.T, s *suite) {
	data := []byte("data")
	s.seed(t, "key", data)
	for _, c := range []struct {
		fault Fault
		read  []error
		write []error
	}{
		{Fault{Status: 503}, []error{core.ErrUnavailable, core.ErrThrottled}, []error{core.ErrUnavailable, core.ErrThrottled}},
		{Fault{Status: 503, RetryAfter: 3 * time.Second}, []error{core.ErrUnavailable, core.ErrThrottled}, []error{core.ErrUnavailable, core.ErrThrottled}},
		{Fault{Status: 429}, []error{core.ErrThrottled}, []error{core.ErrThrottled}},
		{Fault{Status: 429, RetryAfter: 7 * time.Second}, []error{core.ErrThrottled}, []error{core.ErrThrottled}},
		{Fault{Status: 403}, []error{core.ErrPermission}, []error{core.ErrPermission}},
		{Fault{Status: 500}, []error{core.ErrUnavailable}, []error{core.ErrUnknownOutcome}},
		{Fault{Status: 502, Body: "<html>bad gateway</html>"}, []error{core.ErrUnavailable}, []error{core.ErrUnknownOutcome}},
		{Fault{Status: 504, Body: "nobody there"}, []error{core.ErrUnavailable}, []error{core.ErrUnknownOutcome}},
		// Something between here and the server, which does not know what is there.
		{Fault{Status: 404, Body: "<html>no such page</html>"}, []error{core.ErrUnavailable}, []error{core.ErrUnavailable, core.ErrUnknownOutcome}},
	} {
		if c.fault.Status == 404 && s.o.Plain404 {
			continue
		}
		for name, op := range ops(s.b, s.bucket) {
			if name == "AbortUpload" || name == "HeadBucket" && s.o.AnyHead && c.fault.Status < 429 {
				continue
			}
			s.proxy.Break(c.fault)
			err := op(t.Context())
			s.proxy.Mend()
			want := c.read
			if changes(name) {
				want = c.write
			}
			what := fmt.Sprintf("%s answered with %d", name, c.fault.Status)
			wantErr(t, what, err, want...)
			var again core.RetryAfter
			if got := errors.As(err, &again); c.fault.RetryAfter > 0 && (!got || again.RetryAfter() != c.fault.RetryAfter) {
				t.Errorf("%s: error %v does not say when to come again", what, err)
			}
		}
		s.want(t, "key", data)
	}
}

func testResets(t *testing.T, s *suite) {
	data := []byte("data")
	s.seed(t, "key", data)
	for name, op := range ops(s.b, s.bucket) {
		if name == "AbortUpload" {
			continue
		}
		s.proxy.Break(Fault{Kind: ResetBefore})
		err := op(t.Context())
		s.proxy.Mend()
		want := core.ErrUnavailable
		if changes(name) {
			want = core.ErrUnknownOutcome
		}
		wantErr(t, name+" with the connection reset", err, want)
		s.want(t, "key", data)
	}
}

func testLostAnswers(t *testing.T, s *suite) {
	s.proxy.Break(Fault{Kind: ResetAfter})
	_, err := s.tryPut(t, "key", []byte("data"), core.RemotePut{})
	s.proxy.Mend()
	wantErr(t, "put whose answer was lost", err, core.ErrUnknownOutcome)
	s.want(t, "key", []byte("data"))
	s.proxy.Break(Fault{Kind: ResetAfter})
	err = s.b.Delete(t.Context(), s.bucket, "key", core.RemoteCondition{})
	s.proxy.Mend()
	wantErr(t, "delete whose answer was lost", err, core.ErrUnknownOutcome)
	s.gone(t, "key")
	u, ok := s.b.(core.RemoteUploader)
	if !ok {
		return
	}
	id, err := u.CreateUpload(t.Context(), s.bucket, "key", core.RemotePut{Size: 4})
	if err != nil {
		t.Fatal(err)
	}
	part, err := s.putPart(t, "key", id, 1, []byte("data"), core.RemotePut{})
	if err != nil {
		t.Fatal(err)
	}
	s.proxy.Break(Fault{Kind: ResetAfter})
	_, err = u.CompleteUpload(t.Context(), s.bucket, "key", id, []core.RemotePart{part}, core.RemoteCondition{})
	s.proxy.Mend()
	wantErr(t, "complete whose answer was lost", err, core.ErrUnknownOutcome)
	s.want(t, "key", []byte("data"))
}

// What cannot be reached has surely done nothing.
func testUnreachable(t *testing.T, s *suite) {
	s.seed(t, "key", []byte("data"))
	if err := s.proxy.Down(); err != nil {
		t.Fatal(err)
	}
	for name, op := range ops(s.b, s.bucket) {
		for round := range 2 {
			err := op(t.Context())
			if name == "AbortUpload" && err == nil {
				continue
			}
			want := []error{core.ErrUnavailable}
			if round == 0 && changes(name) {
				// A connection that was kept may not know yet that it is broken.
				want = append(want, core.ErrUnknownOutcome)
			}
			wantErr(t, name+" of what is not reachable", err, want...)
		}
	}
	if err := s.proxy.Up(); err != nil {
		t.Fatal(err)
	}
	s.want(t, "key", []byte("data"))
}

// brokenGet reads through a fault: what comes must be a beginning of want, and an
// error must follow, not io.EOF.
func (s *suite) brokenGet(t *testing.T, what string, o core.RemoteGet, f Fault, want []byte) error {
	t.Helper()
	s.proxy.Break(f)
	defer s.proxy.Mend()
	_, got, err := s.get(t, "key", o)
	if err == nil {
		t.Errorf("%s: no error, %d bytes of %d", what, len(got), len(want))
	}
	if !bytes.HasPrefix(want, got) {
		t.Errorf("%s: other bytes than the object's: %s", what, show(got))
	}
	return err
}

func testBrokenBodies(t *testing.T, s *suite) {
	data := pattern(600_000)
	s.seed(t, "key", data)
	for _, kind := range []FaultKind{Truncate, ResetBody} {
		for _, at := range []int64{0, 1, 1000, 500_000, 599_999} {
			what := fmt.Sprintf("fault %d after %d bytes", kind, at)
			err := s.brokenGet(t, what, wholeObject(), Fault{Kind: kind, At: at}, data)
			wantErr(t, what, err, core.ErrUnavailable)
		}
		what := fmt.Sprintf("fault %d of a range", kind)
		err := s.brokenGet(t, what, core.RemoteGet{Offset: 1000, Length: 5000}, Fault{Kind: kind, At: 4000}, data[1000:6000])
		wantErr(t, what, err, core.ErrUnavailable)
	}
	for _, o := range []core.RemoteGet{{Offset: 1000, Length: 5000}, {Offset: 590_000, Length: -1}, {Offset: 0, Length: 5000}} {
		want := data[o.Offset:]
		if o.Length > 0 {
			want = want[:o.Length]
		}
		_ = s.brokenGet(t, fmt.Sprintf("a range %+v with less than was asked for", o), o, Fault{Kind: Shorten, At: 4000}, want)
	}
	s.want(t, "key", data)
}

func testLies(t *testing.T, s *suite) {
	data := pattern(10_000)
	s.seed(t, "key", data)
	head, err := s.b.Head(t.Context(), s.bucket, "key")
	if err != nil {
		t.Fatal(err)
	}
	r := core.RemoteGet{Offset: 1000, Length: 100}
	lie := func(name, v string) Fault { return Fault{Kind: Lie, Header: map[string]string{name: v}} }
	for what, f := range map[string]Fault{
		"another range":    lie("Content-Range", "bytes 2000-2099/10000"),
		"a shorter range":  lie("Content-Range", "bytes 1000-1049/10000"),
		"a longer range":   lie("Content-Range", "bytes 1000-1199/10000"),
		"no range at all":  lie("Content-Range", ""),
		"a range of junk":  lie("Content-Range", "junk"),
		"an unknown size":  lie("Content-Range", "bytes 1000-1099/*"),
		"a shorter length": lie("Content-Length", "60"),
	} {
		_ = s.brokenGet(t, "an answer with "+what, r, f, data[1000:1100])
	}
	if s.o.VersionHeader != "" {
		other := lie(s.o.VersionHeader, "1234567890123456")
		if s.o.VersionHeader == "ETag" {
			other = lie("ETag", `"00000000000000000000000000000000"`)
		}
		r.Version = head.Version
		err := s.brokenGet(t, "an answer in another version", r, other, data[1000:1100])
		wantErr(t, "an answer in another version", err, core.ErrPrecondition)
	}
	s.want(t, "key", data)
}

// A listing that did not come whole is an error, never a shorter one.
func testBrokenListings(t *testing.T, s *suite) {
	for i := range 5 {
		s.seed(t, fmt.Sprint("key", i), []byte("data"))
	}
	for what, f := range map[string]Fault{
		"truncated at once":    {Kind: Truncate, At: 0},
		"truncated":            {Kind: Truncate, At: 400},
		"reset":                {Kind: ResetBody, At: 400},
		"cut":                  {Kind: Shorten, At: 400},
		"empty":                {Kind: Answer, Status: 200, Body: " "},
		"not what was asked":   {Kind: Answer, Status: 200, Body: "<html><body>Log in to this network</body></html>"},
		"not even that":        {Kind: Answer, Status: 200, Body: "hello"},
		"of another kind, too": {Kind: Answer, Status: 200, Body: `{"kind":"other"}`},
	} {
		s.proxy.Break(f)
		l, err := s.b.List(t.Context(), s.bucket, core.RemoteListOptions{})
		s.proxy.Mend()
		if err == nil {
			t.Errorf("a listing that is %s: no error, %d keys", what, len(l.Objects))
			continue
		}
		wantErr(t, "a listing that is "+what, err, core.ErrUnavailable)
	}
	if got := s.listAll(t, core.RemoteListOptions{}); len(got) != 5 {
		t.Errorf("list: %q", got)
	}
}

// A call returns soon after its context has ended.
func testHangs(t *testing.T, s *suite) {
	data := []byte("data")
	s.seed(t, "key", data)
	for name, op := range ops(s.b, s.bucket) {
		if name == "AbortUpload" {
			continue
		}
		waiting, stop := context.WithTimeout(t.Context(), soon)
		// A client has its answer a little before the proxy is through with the request.
		if err := s.proxy.AwaitActive(waiting, 0); err != nil {
			t.Fatalf("%s: requests before it are still under way: %v", name, err)
		}
		s.proxy.Break(Fault{Kind: Hang})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- op(ctx) }()
		if err := s.proxy.AwaitActive(waiting, 1); err != nil {
			t.Fatalf("%s: no request came: %v", name, err)
		}
		cancel()
		select {
		case err := <-done:
			if changes(name) {
				wantErr(t, name+" given up", err, core.ErrUnknownOutcome)
			} else if !errors.Is(err, context.Canceled) {
				t.Errorf("%s given up: got %v", name, err)
			}
		case <-waiting.Done():
			t.Fatalf("%s does not return though its context has ended", name)
		}
		if err := s.proxy.AwaitActive(waiting, 0); err != nil {
			t.Errorf("%s: its request is still under way: %v", name, err)
		}
		stop()
		s.proxy.Mend()
		s.want(t, "key", data)
	}
}

func testStalls(t *testing.T, s *suite) {
	data := pattern(100_000)
	s.seed(t, "key", data)
	for _, close := range []bool{false, true} {
		s.proxy.Break(Fault{Kind: Stall, At: 5000})
		ctx, cancel := context.WithCancel(t.Context())
		_, r, err := s.b.Get(ctx, s.bucket, "key", wholeObject())
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5000)
		if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, data[:5000]) {
			t.Errorf("before the stall: %v", err)
		}
		if close {
			if err := r.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			cancel()
		} else {
			done := make(chan error, 1)
			go func() { _, err := r.Read(make([]byte, 1)); done <- err }()
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("read of what stalls: got %v", err)
			}
			_ = r.Close()
		}
		waiting, stop := context.WithTimeout(t.Context(), soon)
		if err := s.proxy.AwaitActive(waiting, 0); err != nil {
			t.Errorf("closed %v: the request is still under way: %v", close, err)
		}
		stop()
		s.proxy.Mend()
	}
}
