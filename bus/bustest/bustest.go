// Package bustest holds what every bus must fulfil. A bus's test is a call:
//
//	bustest.Run(t, func(t *testing.T) (a, b bus.Bus) { ... })
package bustest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
)

// limit bounds each wait; reaching it is a failure.
const limit = 30 * time.Second

// Open returns two nodes' views of a fresh bus whose register is empty. The
// test's cleanup closes them.
type Open func(t *testing.T) (a, b bus.Bus)

// Run runs the suite.
func Run(t *testing.T, open Open) {
	t.Helper()
	for name, f := range map[string]func(context.Context, *testing.T, bus.Bus, bus.Bus){
		"register":        testRegister,
		"register/counts": testNoLostUpdate,
		"register/watch":  testRegisterWatch,
		"register/older":  testRestore,
		"kv":              testKV,
		"kv/keys":         testKeys,
		"kv/list":         testList,
		"kv/watch":        testWatch,
		"events":          testEvents,
		"request":         testRequest,
		"request/spread":  testSpread,
		"request/slow":    testSlow,
		"request/leaving": testLeaving,
	} {
		t.Run(name, func(t *testing.T) {
			a, b := open(t)
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			f(ctx, t, a, b)
		})
	}
}

func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func want(t *testing.T, what string, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("%s: got %v, want %v", what, err, target)
	}
}

func testRegister(ctx context.Context, t *testing.T, a, b bus.Bus) {
	_, _, err := a.Map().Load(ctx)
	want(t, "load of an empty register", err, bus.ErrNoValue)
	want(t, "load of an empty register", err, core.ErrUnavailable)
	_, err = a.Map().CompareAndSet(ctx, []byte("x"), 0)
	want(t, "compare-and-set at revision 0", err, core.ErrInvalid)

	r1 := must[bus.Revision](t)(a.Map().Create(ctx, []byte("one")))
	_, err = b.Map().Create(ctx, []byte("other"))
	want(t, "second create", err, core.ErrExists)
	v, rev, err := b.Map().Load(ctx)
	if err != nil || string(v) != "one" || rev != r1 {
		t.Fatalf("load: got %q at %d, %v, want %q at %d", v, rev, err, "one", r1)
	}
	r2 := must[bus.Revision](t)(b.Map().CompareAndSet(ctx, []byte("two"), r1))
	_, err = a.Map().CompareAndSet(ctx, []byte("three"), r1)
	want(t, "compare-and-set at a former revision", err, core.ErrConflict)
	_, err = a.Map().CompareAndSet(ctx, []byte("three"), r2+1)
	want(t, "compare-and-set at a later revision", err, core.ErrConflict)
	v, rev, err = a.Map().Load(ctx)
	if err != nil || string(v) != "two" || rev != r2 {
		t.Fatalf("load: got %q at %d, %v, want %q at %d", v, rev, err, "two", r2)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, _, err = a.Map().Load(ended)
	want(t, "load with an ended ctx", err, core.ErrUnavailable)
}

// testNoLostUpdate counts: every acknowledged increment must be in the sum.
func testNoLostUpdate(ctx context.Context, t *testing.T, a, b bus.Bus) {
	must[bus.Revision](t)(a.Map().Create(ctx, []byte("0")))
	const writers, each = 4, 25
	var wg sync.WaitGroup
	for i := range writers {
		r := []bus.Bus{a, b}[i%2].Map()
		wg.Go(func() {
			for n := 0; n < each; {
				v, rev, err := r.Load(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				k, err := strconv.Atoi(string(v))
				if err != nil {
					t.Error(err)
					return
				}
				_, err = r.CompareAndSet(ctx, []byte(strconv.Itoa(k+1)), rev)
				switch {
				case err == nil:
					n++
				case !errors.Is(err, core.ErrConflict):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	v, _, err := b.Map().Load(ctx)
	if err != nil || string(v) != strconv.Itoa(writers*each) {
		t.Fatalf("got %q, %v, want %d", v, err, writers*each)
	}
}

func testRegisterWatch(ctx context.Context, t *testing.T, a, b bus.Bus) {
	rev := must[bus.Revision](t)(a.Map().Create(ctx, []byte("0")))
	const last = 20
	started := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		n := 0
		for v, r := range b.Map().Watch(ctx) {
			if n++; n == 1 {
				close(started)
			}
			if r == 0 {
				t.Errorf("watch: revision 0 with %q", v)
			}
			if string(v) == strconv.Itoa(last) {
				return
			}
		}
		t.Error("watch ended before the final value")
	})
	<-started
	for i := 1; i <= last; i++ {
		rev = must[bus.Revision](t)(a.Map().CompareAndSet(ctx, []byte(strconv.Itoa(i)), rev))
	}
	wg.Wait()
	// A watch ends with its ctx.
	short, cancel := context.WithCancel(ctx)
	defer cancel()
	for range b.Map().Watch(short) {
		cancel()
	}
	if ctx.Err() != nil {
		t.Fatal("a watch did not end with its ctx")
	}
}

func testRestore(ctx context.Context, t *testing.T, a, b bus.Bus) {
	epoch := func(v []byte) (uint64, error) {
		n, err := strconv.ParseUint(string(v), 10, 64)
		switch {
		case string(v) == "newer":
			return 0, core.ErrNewer
		case err != nil:
			return 0, core.ErrCorrupt
		}
		return n, nil
	}
	check := func(give, wantValue string) {
		t.Helper()
		if err := bus.Restore(ctx, a.Map(), []byte(give), epoch); err != nil {
			t.Fatalf("restore %s: %v", give, err)
		}
		v, _, err := b.Map().Load(ctx)
		if err != nil || string(v) != wantValue {
			t.Fatalf("after restore %s: got %q, %v, want %q", give, v, err, wantValue)
		}
	}
	check("5", "5") // where nothing was
	check("7", "7")
	check("6", "7")
	_, rev, err := b.Map().Load(ctx)
	if err == nil {
		_, err = b.Map().CompareAndSet(ctx, []byte("damaged"), rev)
	}
	if err != nil {
		t.Fatal(err)
	}
	check("3", "3") // anything is better than what cannot be read
	want(t, "restore of a damaged value", bus.Restore(ctx, a.Map(), []byte("no"), epoch), core.ErrCorrupt)
	_, rev, err = b.Map().Load(ctx)
	if err == nil {
		_, err = b.Map().CompareAndSet(ctx, []byte("newer"), rev)
	}
	if err != nil {
		t.Fatal(err)
	}
	want(t, "restore over a value of a newer version", bus.Restore(ctx, a.Map(), []byte("9"), epoch), core.ErrNewer)
}

func testKV(ctx context.Context, t *testing.T, a, b bus.Bus) {
	ka, kb := a.Jobs(), b.Jobs()
	_, err := ka.Get(ctx, "spec.j1")
	want(t, "get of nothing", err, core.ErrNotFound)
	if err := ka.Confirm(ctx, "spec.j1", 0); err != nil {
		t.Fatalf("confirm of nothing: %v", err)
	}
	r1 := must[bus.Revision](t)(ka.Create(ctx, "spec.j1", []byte("s")))
	_, err = kb.Create(ctx, "spec.j1", []byte("t"))
	want(t, "second create", err, core.ErrExists)
	want(t, "confirm of nothing", kb.Confirm(ctx, "spec.j1", 0), core.ErrConflict)
	if err := kb.Confirm(ctx, "spec.j1", r1); err != nil {
		t.Fatalf("confirm: %v", err)
	}
	_, err = kb.Update(ctx, "spec.j1", []byte("u"), r1+7)
	want(t, "update at a wrong revision", err, core.ErrConflict)
	_, err = kb.Update(ctx, "spec.j1", []byte("u"), 0)
	want(t, "update at revision 0", err, core.ErrInvalid)
	r2 := must[bus.Revision](t)(kb.Update(ctx, "spec.j1", []byte("u"), r1))
	want(t, "confirm of a former revision", ka.Confirm(ctx, "spec.j1", r1), core.ErrConflict)
	e := must[bus.Entry](t)(ka.Get(ctx, "spec.j1"))
	if e.Key != "spec.j1" || string(e.Value) != "u" || e.Revision != r2 || e.Deleted {
		t.Fatalf("get: got %+v, want u at %d", e, r2)
	}
	want(t, "delete at a former revision", ka.Delete(ctx, "spec.j1", r1), core.ErrConflict)
	if err := ka.Delete(ctx, "spec.j1", r2); err != nil {
		t.Fatal(err)
	}
	_, err = kb.Get(ctx, "spec.j1")
	want(t, "get of what was deleted", err, core.ErrNotFound)
	if err := kb.Confirm(ctx, "spec.j1", 0); err != nil {
		t.Fatalf("confirm of what was deleted: %v", err)
	}
	must[bus.Revision](t)(kb.Create(ctx, "spec.j1", []byte("again")))
	if e := must[bus.Entry](t)(ka.Get(ctx, "spec.j1")); string(e.Value) != "again" {
		t.Fatalf("get of what was created again: got %q", e.Value)
	}
	if e := must[bus.Revision](t)(ka.Create(ctx, "empty", nil)); e == 0 {
		t.Fatal("revision 0 for an empty value")
	}
	if e := must[bus.Entry](t)(kb.Get(ctx, "empty")); len(e.Value) != 0 {
		t.Fatalf("empty value: got %q", e.Value)
	}
}

func testKeys(ctx context.Context, t *testing.T, a, _ bus.Bus) {
	for _, key := range []string{"", ".", "a.", ".a", "a..b", "a b", "a*", "a.>", "_own", "ä", string(make([]byte, 600)), "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q"} {
		_, err := a.Jobs().Create(ctx, key, []byte("x"))
		want(t, fmt.Sprintf("create %.20q", key), err, core.ErrInvalid)
		_, err = a.Jobs().Get(ctx, key)
		want(t, fmt.Sprintf("get %.20q", key), err, core.ErrInvalid)
	}
	must[bus.Revision](t)(a.Jobs().Create(ctx, "A-z_0=/x.y._z", []byte("x")))
}

func testList(ctx context.Context, t *testing.T, a, b bus.Bus) {
	if got := must[[]bus.Entry](t)(a.Jobs().List(ctx, "")); len(got) != 0 {
		t.Fatalf("list of nothing: got %v", got)
	}
	revs := map[string]bus.Revision{}
	for _, k := range []string{"spec.a", "spec.b", "spec.c", "state.a", "specx.d", "spec"} {
		revs[k] = must[bus.Revision](t)(a.Jobs().Create(ctx, k, []byte(k)))
	}
	if err := a.Jobs().Delete(ctx, "spec.b", revs["spec.b"]); err != nil {
		t.Fatal(err)
	}
	revs["spec.a"] = must[bus.Revision](t)(b.Jobs().Update(ctx, "spec.a", []byte("spec.a"), revs["spec.a"]))
	for prefix, keys := range map[string][]string{
		"":       {"spec", "spec.a", "spec.c", "specx.d", "state.a"},
		"spec":   {"spec.a", "spec.c"},
		"spec.a": {},
		"sp":     {},
	} {
		got := []string{}
		for _, e := range must[[]bus.Entry](t)(b.Jobs().List(ctx, prefix)) {
			if e.Revision != revs[e.Key] || string(e.Value) != e.Key {
				t.Errorf("list: got %+v, want revision %d", e, revs[e.Key])
			}
			got = append(got, e.Key)
		}
		slices.Sort(got)
		if !slices.Equal(got, keys) {
			t.Errorf("list %q: got %v, want %v", prefix, got, keys)
		}
	}
	_, err := a.Jobs().List(ctx, "a.>")
	want(t, "list of a pattern", err, core.ErrInvalid)
}

func testWatch(ctx context.Context, t *testing.T, a, b bus.Bus) {
	r := must[bus.Revision](t)(a.Jobs().Create(ctx, "state.j1", []byte("pending")))
	must[bus.Revision](t)(a.Jobs().Create(ctx, "spec.j1", []byte("not asked for")))
	seen := make(chan bus.Entry, 100)
	watch, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for e := range b.Jobs().Watch(watch, "state") {
			seen <- e
		}
		close(seen)
	})
	expect := func(key, value string, deleted bool) {
		t.Helper()
		for {
			select {
			case e := <-seen:
				if e.Key == key && string(e.Value) == value && e.Deleted == deleted {
					return
				}
				if e.Key != "state.j1" && e.Key != "state.j2" {
					t.Fatalf("watch of state: got %+v", e)
				}
			case <-ctx.Done():
				t.Fatalf("watch: %s = %q (deleted %v) did not come", key, value, deleted)
			}
		}
	}
	expect("state.j1", "pending", false)
	r = must[bus.Revision](t)(a.Jobs().Update(ctx, "state.j1", []byte("running"), r))
	expect("state.j1", "running", false)
	must[bus.Revision](t)(b.Jobs().Create(ctx, "state.j2", []byte("pending")))
	expect("state.j2", "pending", false)
	if err := a.Jobs().Delete(ctx, "state.j1", r); err != nil {
		t.Fatal(err)
	}
	expect("state.j1", "", true)
	must[bus.Revision](t)(a.Jobs().Create(ctx, "state.j1", []byte("again")))
	expect("state.j1", "again", false)
	cancel()
	wg.Wait()
}

func testEvents(ctx context.Context, t *testing.T, a, b bus.Bus) {
	jobs := must[func(func(bus.Event) bool)](t)(subscribe(ctx, b, "shoal.event.job.>"))
	one := must[func(func(bus.Event) bool)](t)(subscribe(ctx, b, "shoal.event.bucket.*.created"))
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	send := func(kind bus.EventKind, subject, what string) bus.Event {
		t.Helper()
		e := must[bus.Event](t)(bus.NewEvent(kind, subject, what, "/test/nodes/n1", at, map[string]string{"k": "v"}))
		if err := a.Publish(ctx, e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	send(bus.EventNode, "n1", "down")
	e1 := send(bus.EventJob, "j1", "finished")
	send(bus.EventBucket, "shoal://a.b", "removed")
	e2 := send(bus.EventBucket, "shoal://a.b", "created")
	for _, c := range []struct {
		got  func(func(bus.Event) bool)
		want bus.Event
	}{{jobs, e1}, {one, e2}} {
		c.got(func(e bus.Event) bool {
			if e.ID != c.want.ID || e.Subject != c.want.Subject || e.Kind != c.want.Kind || e.What != c.want.What ||
				!e.Time.Equal(at) || string(e.Data) != `{"k":"v"}` || e.Source != "/test/nodes/n1" {
				t.Errorf("event: got %+v, want %+v", e, c.want)
			}
			return false
		})
	}
	if ctx.Err() != nil {
		t.Fatal("events did not come")
	}
	want(t, "publish of a broken event", a.Publish(ctx, bus.Event{Kind: "job"}), core.ErrInvalid)
}

func subscribe(ctx context.Context, b bus.Bus, pattern string) (func(func(bus.Event) bool), error) {
	return b.Subscribe(ctx, pattern)
}

// serve runs a service of one endpoint until ctx, the test or stop ends it.
func serve(ctx context.Context, t *testing.T, b bus.Bus, subject string, h bus.Handler) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		err := b.Serve(ctx, bus.Service{
			Name: "shoal", Version: "1.0.0", Description: "test",
			Endpoints: []bus.Endpoint{{Name: "test", Subject: subject, Handler: h}},
		})
		if err != nil {
			t.Error(err)
		}
	})
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return stop
}

func testRequest(ctx context.Context, t *testing.T, a, b bus.Bus) {
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	_, err := b.Request(short, "shoal.test.nobody", nil)
	want(t, "request to nobody", err, core.ErrUnavailable)

	serve(ctx, t, a, "shoal.test.echo", func(_ context.Context, req []byte) (any, error) {
		switch string(req) {
		case "missing":
			return nil, &hinted{fmt.Errorf("job %q: %w", "j1", core.ErrNotFound)}
		case "broken":
			return nil, errors.New("something else")
		}
		return map[string]string{"echo": string(req)}, nil
	})
	got := must[[]byte](t)(b.Request(ctx, "shoal.test.echo", []byte("hello")))
	if string(got) != `{"echo":"hello"}` {
		t.Fatalf("request: got %s", got)
	}
	_, err = b.Request(ctx, "shoal.test.echo", []byte("missing"))
	want(t, "request answered by an error", err, core.ErrNotFound)
	f, ok := errors.AsType[*bus.Fault](err)
	if !ok || f.Code != "not_found" || f.Hint != "look elsewhere" || f.Status != 404 {
		t.Fatalf("request answered by an error: got %#v", err)
	}
	_, err = b.Request(ctx, "shoal.test.echo", []byte("broken"))
	if f, ok := errors.AsType[*bus.Fault](err); !ok || f.Code != "internal" || f.Message != "something else" {
		t.Fatalf("request answered by another error: got %#v", err)
	}
}

type hinted struct{ error }

func (h *hinted) Hint() string  { return "look elsewhere" }
func (h *hinted) Unwrap() error { return h.error }

// testSpread checks that both nodes that offer a service get requests.
func testSpread(ctx context.Context, t *testing.T, a, b bus.Bus) {
	for name, n := range map[string]bus.Bus{"a": a, "b": b} {
		serve(ctx, t, n, "shoal.test.spread", func(context.Context, []byte) (any, error) { return name, nil })
	}
	seen := map[string]bool{}
	for len(seen) < 2 {
		var name string
		if err := json.Unmarshal(must[[]byte](t)(a.Request(ctx, "shoal.test.spread", nil)), &name); err != nil {
			t.Fatal(err)
		}
		seen[name] = true
	}
}

// testSlow checks that a request that waits holds up no other, and that one
// which takes longer than a dead node is given is still answered.
func testSlow(ctx context.Context, t *testing.T, a, b bus.Bus) {
	release := make(chan struct{})
	calls := make(chan struct{}, 10)
	serve(ctx, t, a, "shoal.test.slow", func(ctx context.Context, req []byte) (any, error) {
		calls <- struct{}{}
		if string(req) == "wait" {
			select {
			case <-release:
			case <-ctx.Done():
			}
		}
		return string(req), nil
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		if got, err := b.Request(ctx, "shoal.test.slow", []byte("wait")); err != nil || string(got) != `"wait"` {
			t.Errorf("slow request: got %s, %v", got, err)
		}
	})
	<-calls
	must[[]byte](t)(b.Request(ctx, "shoal.test.slow", []byte("quick")))
	// Longer than a client waits for a node that gives no sign of life.
	long, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	<-long.Done()
	close(release)
	wg.Wait()
	if n := len(calls); n != 1 {
		t.Errorf("the slow request was sent %d times more", n-1)
	}
}

// testLeaving checks that a request whose node leaves goes to another.
func testLeaving(ctx context.Context, t *testing.T, a, b bus.Bus) {
	taken := make(chan struct{}, 10)
	stop := serve(ctx, t, a, "shoal.test.leaving", func(ctx context.Context, _ []byte) (any, error) {
		taken <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		got, err := b.Request(ctx, "shoal.test.leaving", nil)
		if err != nil || string(got) != `"b"` {
			t.Errorf("request to a node that leaves: got %s, %v, want the other's answer", got, err)
		}
	})
	<-taken
	serve(ctx, t, b, "shoal.test.leaving", func(context.Context, []byte) (any, error) { return "b", nil })
	stop()
	wg.Wait()
}
