package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalstore/shoal/core"
)

// bubbleClock is the time of a synctest bubble.
type bubbleClock struct{ began time.Time }

func newBubbleClock() *bubbleClock { return &bubbleClock{time.Now()} }

func (c *bubbleClock) Now() time.Time     { return time.Now() }
func (c *bubbleClock) Boot() core.Instant { return core.Instant(time.Since(c.began)) }

func (c *bubbleClock) Wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// scripted is a backend whose methods do what the test says. Errors of errs come
// first, one a request.
type scripted struct {
	core.Backend // of what is not used
	mu           sync.Mutex
	errs         []error
	calls        []string
	at           []time.Time
	active, most int
	during       func(ctx context.Context) error
	get          func(ctx context.Context, n int, o core.RemoteGet) (core.RemoteObject, io.ReadCloser, error)
	put          func(ctx context.Context, o core.RemotePut) error
	closed       atomic.Int32
}

func (s *scripted) enter(ctx context.Context, call string) (n int, err error) {
	s.mu.Lock()
	s.calls = append(s.calls, call)
	s.at = append(s.at, time.Now())
	s.active++
	s.most = max(s.most, s.active)
	n = len(s.calls)
	if len(s.errs) > 0 {
		err, s.errs = s.errs[0], s.errs[1:]
	}
	during := s.during
	s.mu.Unlock()
	if during != nil {
		if e := during(ctx); e != nil {
			err = e
		}
	}
	s.mu.Lock()
	s.active--
	s.mu.Unlock()
	return n, err
}

func (s *scripted) Head(ctx context.Context, _, key string) (core.RemoteObject, error) {
	_, err := s.enter(ctx, "head "+key)
	return core.RemoteObject{Key: key}, err
}

func (s *scripted) Delete(ctx context.Context, _, key string, _ core.RemoteCondition) error {
	_, err := s.enter(ctx, "delete "+key)
	return err
}

func (s *scripted) Get(ctx context.Context, _, key string, o core.RemoteGet) (core.RemoteObject, io.ReadCloser, error) {
	n, err := s.enter(ctx, fmt.Sprintf("get %s %d+%d %s", key, o.Offset, o.Length, o.Version))
	if err != nil {
		return core.RemoteObject{}, nil, err
	}
	return s.get(ctx, n, o)
}

func (s *scripted) Put(ctx context.Context, _, key string, o core.RemotePut) (core.RemoteObject, error) {
	_, err := s.enter(ctx, "put "+key)
	if err == nil && s.put != nil {
		err = s.put(ctx, o)
	}
	return core.RemoteObject{}, err
}

func (s *scripted) PutPart(ctx context.Context, _, _, _ string, number int, _ core.RemotePut) (core.RemotePart, error) {
	_, err := s.enter(ctx, fmt.Sprint("part ", number))
	return core.RemotePart{Number: number}, err
}

func (s *scripted) CreateUpload(context.Context, string, string, core.RemotePut) (string, error) {
	return "", nil
}

func (s *scripted) CompleteUpload(
	ctx context.Context, _, _, _ string, _ []core.RemotePart, _ core.RemoteCondition,
) (core.RemoteObject, error) {
	_, err := s.enter(ctx, "complete")
	return core.RemoteObject{}, err
}

func (s *scripted) AbortUpload(ctx context.Context, _, _, _ string) error {
	_, err := s.enter(ctx, "abort")
	return err
}

func (s *scripted) Close() error { s.closed.Add(1); return nil }

func newTestClient(s *scripted, requests int) *Client {
	return NewClient(s, ClientOptions{Name: "s3", Requests: requests, Clock: newBubbleClock()})
}

func bubble(t *testing.T, f func(t *testing.T, ctx context.Context)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, t.Context()) })
}

func TestRepeats(t *testing.T) {
	head := func(ctx context.Context, c *Client) error { _, err := c.Head(ctx, "b", "k"); return err }
	remove := func(ctx context.Context, c *Client) error {
		return c.Delete(ctx, "b", "k", core.RemoteCondition{})
	}
	put := func(ctx context.Context, c *Client) error {
		_, err := c.Put(ctx, "b", "k", core.RemotePut{})
		return err
	}
	part := func(ctx context.Context, c *Client) error {
		_, err := c.PutPart(ctx, "b", "k", "u", 1, core.RemotePut{})
		return err
	}
	complete := func(ctx context.Context, c *Client) error {
		_, err := c.CompleteUpload(ctx, "b", "k", "u", nil, core.RemoteCondition{})
		return err
	}
	abort := func(ctx context.Context, c *Client) error { return c.AbortUpload(ctx, "b", "k", "u") }
	unknown := fmt.Errorf("%w: %w", core.ErrUnknownOutcome, core.ErrUnavailable)
	for _, c := range []struct {
		name string
		call func(context.Context, *Client) error
		err  error
		want int // requests
	}{
		{"head, unavailable", head, core.ErrUnavailable, 2},
		{"head, throttled", head, core.ErrThrottled, 2},
		{"head, outcome unknown", head, core.ErrUnknownOutcome, 2},
		{"head, not found", head, core.ErrNotFound, 1},
		{"head, permission", head, core.ErrPermission, 1},
		{"delete, unavailable", remove, core.ErrUnavailable, 2},
		{"delete, outcome unknown", remove, core.ErrUnknownOutcome, 1},
		{"put, throttled", put, core.ErrThrottled, 2},
		{"put, outcome unknown", put, unknown, 1},
		{"put, precondition", put, core.ErrPrecondition, 1},
		{"part, outcome unknown", part, core.ErrUnknownOutcome, 2},
		{"complete, outcome unknown", complete, core.ErrUnknownOutcome, 1},
		{"complete, unavailable", complete, core.ErrUnavailable, 2},
		{"abort, outcome unknown", abort, core.ErrUnknownOutcome, 2},
	} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			s := &scripted{errs: []error{c.err}}
			err := c.call(ctx, newTestClient(s, 4))
			if len(s.calls) != c.want || (err == nil) != (c.want == 2) || err != nil && !errors.Is(err, c.err) {
				t.Errorf("%s: %d requests, %v; want %d", c.name, len(s.calls), err, c.want)
			}
		})
	}
}

func TestPausesAndPatience(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		s := &scripted{during: func(context.Context) error { return fmt.Errorf("503: %w", core.ErrUnavailable) }}
		c := newTestClient(s, 4)
		began := time.Now()
		_, err := c.Head(ctx, "b", "k")
		if !errors.Is(err, core.ErrUnavailable) || !strings.Contains(err.Error(), "503") {
			t.Errorf("got %v, want what the remote said", err)
		}
		if took := time.Since(began); took > defaultPatience || took < defaultPatience-mostPause {
			t.Errorf("gave up after %v, want nearly %v", took, defaultPatience)
		}
		for i := 1; i < len(s.at); i++ {
			if d := s.at[i].Sub(s.at[i-1]); d > min(leastPause<<min(i, 10), mostPause)+1 {
				t.Errorf("pause %d was %v", i, d)
			}
		}
		if got := c.Stats()[0]; got.Waited <= 0 || got.Errors["unavailable"] != int64(len(s.calls)) || got.Requests != got.Failed() {
			t.Errorf("counted %+v", got)
		}
		s.calls = nil
		if _, err := c.Head(WithPatience(ctx, 0), "b", "k"); !errors.Is(err, core.ErrUnavailable) || len(s.calls) != 1 {
			t.Errorf("without patience: %d requests, %v", len(s.calls), err)
		}
		short, cancel := context.WithTimeoutCause(ctx, 2*time.Second, errors.New("the client has gone"))
		defer cancel()
		began = time.Now()
		if _, err := c.Head(short, "b", "k"); !errors.Is(err, core.ErrUnavailable) || !strings.Contains(err.Error(), "the client has gone") || time.Since(began) != 2*time.Second {
			t.Errorf("after the end of ctx: %v, after %v", err, time.Since(began))
		}
	})
}

func TestObeysRetryAfter(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		s := &scripted{errs: []error{throttle(12 * time.Second)}}
		if _, err := newTestClient(s, 4).Head(ctx, "b", "k"); err != nil {
			t.Fatal(err)
		}
		if d := s.at[1].Sub(s.at[0]); d < 12*time.Second || d > 12*time.Second+leastPause {
			t.Errorf("came again after %v, want 12 s", d)
		}
	})
}

func TestSilence(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		s := &scripted{}
		first := true
		s.during = func(ctx context.Context) error {
			if !first {
				return nil
			}
			first = false
			<-ctx.Done()
			return ctx.Err()
		}
		began := time.Now()
		_, err := newTestClient(s, 4).Head(WithPatience(ctx, 2*time.Minute), "b", "k")
		if took := time.Since(began); err != nil || took < silence || took > silence+mostPause || len(s.calls) != 2 {
			t.Errorf("%v after %v and %d requests", err, took, len(s.calls))
		}
	})
}

// However many call, so many requests are under way; in order; one that goes away
// leaves the queue.
func TestLimit(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		s := &scripted{during: func(context.Context) error { time.Sleep(time.Second); return nil }}
		c := newTestClient(s, 3)
		var wg sync.WaitGroup
		for i := range 12 {
			wg.Go(func() {
				if _, err := c.Head(ctx, "b", fmt.Sprint(i)); err != nil {
					t.Errorf("%d: %v", i, err)
				}
			})
			synctest.Wait()
			if i == 5 {
				short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
				wg.Go(func() {
					defer cancel()
					if _, err := c.Head(short, "b", "gone"); !errors.Is(err, core.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("gave up with %v", err)
					}
				})
				synctest.Wait()
			}
		}
		if st := c.Stats()[0]; st.InFlight != 3 || st.Waiting != 10 {
			t.Errorf("under way %d, waiting %d", st.InFlight, st.Waiting)
		}
		wg.Wait()
		if s.most != 3 || len(s.calls) != 12 {
			t.Errorf("%d at a time, %d requests", s.most, len(s.calls))
		}
		for i := range 4 { // those of a round run together
			round := s.calls[3*i : 3*i+3]
			for j := range 3 {
				if call := fmt.Sprint("head ", 3*i+j); !slices.Contains(round, call) {
					t.Errorf("%q is not among the requests %q", call, round)
				}
			}
		}
		if st := c.Stats()[0]; st.InFlight != 0 || st.Waiting != 0 || st.Waited <= 0 {
			t.Errorf("in the end: %+v", st)
		}
		if _, used, waiting := c.limit.state(); used != 0 || waiting != 0 {
			t.Errorf("in the end %d are under way, %d wait", used, waiting)
		}
	})
}

// Requests that are throttled together halve the number once; it grows again, up to
// where it was.
func TestThrottling(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		s := &scripted{during: func(context.Context) error { time.Sleep(time.Second); return core.ErrThrottled }}
		c := newTestClient(s, 16)
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() { _, _ = c.Head(WithPatience(ctx, 0), "b", "k") })
		}
		wg.Wait()
		if n := c.Allowed(); n != 8 {
			t.Errorf("%d at a time after the first round, want 8", n)
		}
		for range 20 {
			_, _ = c.Head(WithPatience(ctx, 0), "b", "k")
		}
		if n := c.Allowed(); n != 1 {
			t.Errorf("%d at a time in the end, want 1", n)
		}
		if st := c.Stats()[0]; st.Throttled != 36 {
			t.Errorf("counted %d", st.Throttled)
		}
		s.mu.Lock()
		s.during = nil
		s.mu.Unlock()
		if _, err := c.Head(ctx, "b", "k"); err != nil || c.Allowed() != 2 {
			t.Errorf("after one that went well: %d, %v", c.Allowed(), err)
		}
		for range 16 * 16 {
			_, _ = c.Head(ctx, "b", "k")
		}
		if n := c.Allowed(); n != 16 {
			t.Errorf("%d at a time, want 16 again", n)
		}
	})
}

// pieces is a body that comes in pieces; an error of what stands behind them. A nil
// one stands for ever.
type pieces struct {
	ctx   context.Context
	data  []byte
	end   error
	close *atomic.Int32
}

var errHang = errors.New("hangs")

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		if errors.Is(p.end, errHang) {
			<-p.ctx.Done()
			return 0, p.ctx.Err()
		}
		return 0, p.end
	}
	n := copy(b, p.data[:min(len(p.data), 100)])
	p.data = p.data[n:]
	return n, nil
}

func (p *pieces) Close() error { p.close.Add(1); return nil }

func content(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 / 3)
	}
	return b
}

// answers is a get of an object whose bodies end as ends says, each after cut bytes.
func answers(data []byte, cut int, closed *atomic.Int32, ends ...error) func(context.Context, int, core.RemoteGet) (core.RemoteObject, io.ReadCloser, error) {
	return func(ctx context.Context, n int, o core.RemoteGet) (core.RemoteObject, io.ReadCloser, error) {
		b := data[o.Offset:]
		if o.Length >= 0 {
			b = b[:o.Length]
		}
		end := io.EOF
		if n <= len(ends) {
			b, end = b[:min(len(b), cut)], ends[n-1]
		}
		return core.RemoteObject{Size: int64(len(data)), Version: "v1", ETag: "e"}, &pieces{ctx, b, end, closed}, nil
	}
}

func TestBodyGoesOn(t *testing.T) {
	data := content(10_000)
	reset := errors.New("connection reset")
	for _, c := range []struct {
		name  string
		ends  []error
		calls string
		took  time.Duration
	}{
		{"whole", nil, "get k 0+-1 ", 0},
		{"reset", []error{reset}, "get k 0+-1 , get k 1000+9000 v1", 0},
		{"ends early", []error{io.EOF, io.EOF}, "get k 0+-1 , get k 1000+9000 v1, get k 2000+8000 v1", 0},
		{"stalls", []error{errHang}, "get k 0+-1 , get k 1000+9000 v1", stall},
	} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			var closed atomic.Int32
			s := &scripted{get: answers(data, 1000, &closed, c.ends...)}
			client := newTestClient(s, 1)
			var cost Cost
			began := time.Now()
			obj, body, err := client.Get(WithCost(ctx, &cost), "b", "k", core.RemoteGet{Length: -1})
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(body)
			if err != nil || !bytes.Equal(got, data) || obj.Size != int64(len(data)) {
				t.Errorf("%s: %d bytes, %v", c.name, len(got), err)
			}
			if calls := strings.Join(s.calls, ", "); calls != c.calls {
				t.Errorf("%s: %s", c.name, calls)
			}
			if took := time.Since(began); took != c.took {
				t.Errorf("%s: took %v, want %v", c.name, took, c.took)
			}
			if err := body.Close(); err != nil || int(closed.Load()) != len(s.calls) {
				t.Errorf("%s: %d of %d bodies closed, %v", c.name, closed.Load(), len(s.calls), err)
			}
			st := client.Stats()[0]
			if st.BytesIn != int64(len(data)) || st.InFlight != 0 || cost.Totals().BytesIn != st.BytesIn || cost.Totals().Requests != int64(len(s.calls)) {
				t.Errorf("%s: counted %+v and %+v", c.name, st, cost.Totals())
			}
		})
	}
}

func TestBodyRefuses(t *testing.T) {
	data := content(10_000)
	var closed atomic.Int32
	never := make([]error, 100)
	for i := range never {
		never[i] = io.EOF
	}
	changed := func(ctx context.Context, n int, o core.RemoteGet) (core.RemoteObject, io.ReadCloser, error) {
		obj, body, err := answers(data, 1000, &closed, io.EOF)(ctx, n, o)
		if n > 1 {
			obj.ETag = "other"
		}
		return obj, body, err
	}
	longer := func(ctx context.Context, n int, o core.RemoteGet) (core.RemoteObject, io.ReadCloser, error) {
		obj, body, err := answers(data, 0, &closed)(ctx, n, core.RemoteGet{Length: -1})
		obj.Size = 9_000
		return obj, body, err
	}
	gone := func(ctx context.Context, n int, o core.RemoteGet) (core.RemoteObject, io.ReadCloser, error) {
		if n > 1 {
			return core.RemoteObject{}, nil, core.ErrPrecondition
		}
		return answers(data, 1000, &closed, io.EOF)(ctx, n, o)
	}
	for _, c := range []struct {
		name  string
		get   func(context.Context, int, core.RemoteGet) (core.RemoteObject, io.ReadCloser, error)
		o     core.RemoteGet
		want  error
		calls int
	}{
		{"always breaks at once", answers(data, 0, &closed, never...), core.RemoteGet{Length: -1}, core.ErrUnavailable, 1 + maxReopens},
		{"changed meanwhile", changed, core.RemoteGet{Length: -1}, core.ErrPrecondition, 2},
		{"replaced meanwhile", gone, core.RemoteGet{Length: -1}, core.ErrPrecondition, 2},
		{"longer than said", longer, core.RemoteGet{Length: -1}, core.ErrCorrupt, 1},
		{"range longer than asked for", longer, core.RemoteGet{Length: 100}, core.ErrCorrupt, 1},
	} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			s := &scripted{get: c.get}
			client := newTestClient(s, 1)
			_, body, err := client.Get(ctx, "b", "k", c.o)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(body)
			if !errors.Is(err, c.want) || len(s.calls) != c.calls || !bytes.HasPrefix(data, got) {
				t.Errorf("%s: %d bytes, %d requests, %v", c.name, len(got), len(s.calls), err)
			}
			if n := client.Stats()[0].InFlight; n != 0 {
				t.Errorf("%s: %d requests still under way", c.name, n)
			}
		})
	}
}

// A body counts as a request until it is closed, and ends with its ctx.
func TestBodyHoldsItsTurn(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var closed atomic.Int32
		s := &scripted{get: answers(content(1000), 100, &closed, errHang)}
		c := newTestClient(s, 1)
		under, cancel := context.WithCancel(ctx)
		_, body, err := c.Get(under, "b", "k", core.RemoteGet{Length: -1})
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan error, 1)
		go func() { _, err := c.Head(ctx, "b", "k"); got <- err }()
		synctest.Wait()
		if n := c.Stats(); len(n) != 2 || n[0].Op != OpHead || n[0].Waiting != 1 {
			t.Errorf("the other request does not wait: %+v", n)
		}
		read := make(chan error, 1)
		go func() { _, err := io.Copy(io.Discard, body); read <- err }()
		synctest.Wait()
		cancel()
		if err := <-read; !errors.Is(err, context.Canceled) || errors.Is(err, core.ErrUnavailable) {
			t.Errorf("after its ctx has ended the body says %v, %d requests", err, len(s.calls))
		}
		if err := <-got; err != nil {
			t.Error(err)
		}
		if err := body.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestSentBodies(t *testing.T) {
	broken := errors.New("shard unreadable")
	for _, c := range []struct {
		name string
		size int64
		body func() io.Reader
		want error
		says string
	}{
		{"as declared", 1000, func() io.Reader { return bytes.NewReader(content(1000)) }, nil, ""},
		{"empty", 0, func() io.Reader { return bytes.NewReader(nil) }, nil, ""},
		{"short", 1001, func() io.Reader { return bytes.NewReader(content(1000)) }, core.ErrUnavailable, "ended after 1000 of 1001"},
		{"long", 999, func() io.Reader { return bytes.NewReader(content(1000)) }, core.ErrUnavailable, "longer than 999"},
		{"broken", 1000, func() io.Reader {
			return io.MultiReader(bytes.NewReader(content(500)), iotestErr{broken})
		}, broken, "shard unreadable"},
	} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			got := int64(0)
			s := &scripted{put: func(ctx context.Context, o core.RemotePut) error {
				r, err := o.Open(ctx)
				if err != nil {
					return err
				}
				defer r.Close()
				if got, err = io.Copy(io.Discard, r); err != nil {
					return fmt.Errorf("the connection broke: %w", core.ErrUnknownOutcome)
				}
				return nil
			}}
			client := newTestClient(s, 2)
			opens := 0
			_, err := client.Put(WithPatience(ctx, 0), "b", "k", core.RemotePut{Size: c.size, Open: func(context.Context) (io.ReadCloser, error) {
				opens++
				return io.NopCloser(c.body()), nil
			}})
			if (c.want == nil) != (err == nil) || !errors.Is(err, c.want) || errors.Is(err, core.ErrUnknownOutcome) || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", c.name, err)
			}
			if c.want == nil && got != c.size || c.want != nil && got >= c.size {
				t.Errorf("%s: the remote got %d bytes", c.name, got)
			}
			if opens != 1 || client.Stats()[0].BytesOut != got {
				t.Errorf("%s: opened %d times, counted %d bytes of %d", c.name, opens, client.Stats()[0].BytesOut, got)
			}
		})
	}
}

// What is read while it is sent to the same backend needs no second turn.
func TestReadWhileSending(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var closed atomic.Int32
		s := &scripted{get: answers(content(1000), 0, &closed)}
		s.put = func(ctx context.Context, o core.RemotePut) error {
			r, err := o.Open(ctx)
			if err != nil {
				return err
			}
			defer r.Close()
			_, err = io.Copy(io.Discard, r)
			return err
		}
		c := newTestClient(s, 1)
		_, err := c.Put(ctx, "b", "to", core.RemotePut{Size: 1000, Open: func(ctx context.Context) (io.ReadCloser, error) {
			_, body, err := c.Get(ctx, "b", "from", core.RemoteGet{Length: -1})
			return body, err
		}})
		if err != nil {
			t.Error(err)
		}
	})
}

type iotestErr struct{ err error }

func (r iotestErr) Read([]byte) (int, error) { return 0, r.err }

func TestUnsupported(t *testing.T) {
	c := NewClient(struct{ core.Backend }{}, ClientOptions{Clock: newBubbleClock()})
	_, tags := c.Tags(t.Context(), "b", "k")
	_, copies := c.Copy(t.Context(), "b", "k", "", "b", "k", core.RemotePut{})
	_, upload := c.CreateUpload(t.Context(), "b", "k", core.RemotePut{})
	for _, err := range []error{tags, copies, upload, c.CreateBucket(t.Context(), "b"), c.AbortUpload(t.Context(), "b", "k", "u")} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("got %v", err)
		}
	}
	if u, _, _, _ := c.Can(); u {
		t.Error("it says that it can upload in parts")
	}
}

func TestPool(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var opened []*scripted
		fail := errors.New("no credentials")
		p := NewPool(func(pr core.Provider, s core.RemoteSettings) (core.Backend, error) {
			if s.Account == "bad" {
				return nil, fail
			}
			b := &scripted{}
			opened = append(opened, b)
			return b, nil
		}, PoolOptions{Client: ClientOptions{Clock: newBubbleClock()}, Requests: func(core.Provider, core.RemoteSettings) int { return 7 }})
		get := func(pr core.Provider, s core.RemoteSettings) *Client {
			t.Helper()
			c, err := p.Client(pr, s)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		a := get(core.S3, core.RemoteSettings{})
		if get(core.S3, core.RemoteSettings{Name: "other"}) != a || get(core.GCS, core.RemoteSettings{}) == a || get(core.S3, core.RemoteSettings{Account: "x"}) == a || len(opened) != 3 {
			t.Errorf("%d backends for three kinds of settings", len(opened))
		}
		if a.Allowed() != 7 {
			t.Errorf("%d requests at a time", a.Allowed())
		}
		if _, err := p.Client(core.S3, core.RemoteSettings{Account: "bad"}); !errors.Is(err, fail) {
			t.Errorf("got %v", err)
		}
		// One is in use while the configuration changes.
		release := make(chan struct{})
		opened[0].during = func(context.Context) error { <-release; return nil }
		done := make(chan error, 1)
		go func() { _, err := a.Head(ctx, "b", "k"); done <- err }()
		synctest.Wait()
		if err := p.Reset(); err != nil {
			t.Error(err)
		}
		if opened[0].closed.Load() != 0 || opened[1].closed.Load() != 1 || opened[2].closed.Load() != 1 {
			t.Error("what is in use is closed, or what is not is open")
		}
		if _, err := a.Head(ctx, "b", "k"); !errors.Is(err, core.ErrUnavailable) {
			t.Errorf("a client of before says %v", err)
		}
		b := get(core.S3, core.RemoteSettings{})
		if _, err := b.Head(ctx, "b", "k"); err != nil || b == a {
			t.Errorf("%v", err)
		}
		if st := p.Stats(); len(st) != 1 || st[0].Requests != 2 || st[0].InFlight != 1 || st[0].Backend != "s3" {
			t.Errorf("counted %+v", st)
		}
		close(release)
		if err := <-done; err != nil || opened[0].closed.Load() != 1 {
			t.Errorf("the request that was under way: %v, closed %d times", err, opened[0].closed.Load())
		}
		if err := p.Close(); err != nil || opened[3].closed.Load() != 1 {
			t.Errorf("%v", err)
		}
		if st := p.Stats(); len(st) != 1 || st[0].Requests != 2 || st[0].InFlight != 0 {
			t.Errorf("counted %+v", st)
		}
		if _, err := p.Client(core.S3, core.RemoteSettings{}); !errors.Is(err, core.ErrUnavailable) {
			t.Errorf("after the end: %v", err)
		}
	})
}
