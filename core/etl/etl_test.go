package etl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/bus/membus"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/etl"
	"github.com/shoalstore/shoal/core/memobjects"
)

// clock is a clock that tests set; its waits end with their contexts, or at once
// if they are short.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Boot() core.Instant { return core.Instant(c.Now().UnixNano()) }

func (c *clock) Wait(ctx context.Context, d time.Duration) error {
	if d < time.Minute {
		return ctx.Err()
	}
	<-ctx.Done()
	return ctx.Err()
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// shouter is a runtime whose code is a prefix for objects.
type shouter struct {
	mu      sync.Mutex
	code    map[string]string // installed, by id
	removed int
	resumed []string
	install error // of the next installation
}

func (s *shouter) Check(_ *etl.Spec, code []byte) error {
	if bytes.HasPrefix(code, []byte("bad")) {
		return fmt.Errorf("it is bad: %w", core.ErrInvalid)
	}
	return nil
}

func (s *shouter) Install(_ context.Context, id string, _ *etl.Spec, code []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.install; err != nil {
		s.install = nil
		return err
	}
	if s.code == nil {
		s.code = map[string]string{}
	}
	if _, ok := s.code[id]; ok {
		panic("installed twice: " + id)
	}
	s.code[id] = string(code)
	return nil
}

func (s *shouter) Remove(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.code[id]; !ok {
		panic("removed what is not there: " + id)
	}
	delete(s.code, id)
	s.removed++
	return nil
}

func (s *shouter) Resume(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resumed = append(s.resumed, id)
	return nil
}

func (s *shouter) installed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.code)
}

func (s *shouter) RunTransform(ctx context.Context, c core.TransformCall) (core.TransformResult, error) {
	s.mu.Lock()
	code, ok := s.code[c.Transform.Name]
	s.mu.Unlock()
	if !ok {
		return core.TransformResult{}, fmt.Errorf("id %s: %w", c.Transform.Name, core.ErrNotFound)
	}
	switch {
	case strings.HasPrefix(code, "trap"):
		return core.TransformResult{Failure: &core.TransformFailure{Class: "trap", Message: "unreachable"}}, nil
	case strings.HasPrefix(code, "refuses"):
		return core.TransformResult{Failure: &core.TransformFailure{Class: "exit", Code: 1}, Log: "no input"}, nil
	case strings.HasPrefix(code, "hangs"):
		<-ctx.Done()
		return core.TransformResult{}, context.Cause(ctx)
	}
	out, err := c.Output(ctx, core.TransformOutputInfo{})
	if err != nil {
		return core.TransformResult{}, err
	}
	if _, err := io.WriteString(out, code+string(c.Data)); err != nil {
		return core.TransformResult{}, err
	}
	return core.TransformResult{Outcome: core.TransformDone, Outputs: 1}, out.Close()
}

// cluster is what nodes share.
type cluster struct {
	t       *testing.T
	bus     *membus.Bus
	objects *memobjects.Store
	bucket  core.Bucket
	clock   *clock
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{t: t, bus: membus.New(), clock: &clock{now: time.Unix(1e9, 0)}}
	c.objects = memobjects.New(c.clock)
	var err error
	c.bucket, err = c.objects.CreateBucket(t.Context(), core.BucketName{Provider: core.Shoal, Name: "system"}, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) modules() etl.Modules {
	return etl.Modules{Objects: c.objects, Bucket: func(context.Context, bool) (core.Bucket, error) { return c.bucket, nil }}
}

// node is one node's registry, which runs until the test ends.
func (c *cluster) node(kv bus.KV, change ...func(*etl.Options)) (*etl.Registry, *shouter) {
	rt := &shouter{}
	o := etl.Options{KV: kv, Modules: c.modules(), Runtimes: map[string]etl.Runtime{etl.WASM: rt}, Clock: c.clock}
	for _, f := range change {
		f(&o)
	}
	r := etl.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	c.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Errorf("run: %v", err)
		}
		if n := rt.installed(); n != 0 {
			c.t.Errorf("%d versions are still installed after the end", n)
		}
	})
	return r, rt
}

func spec(name string) etl.Spec { return etl.Spec{Name: name, Type: etl.WASM} }

// buffer is an output in memory.
type buffer struct{ bytes.Buffer }

func (*buffer) Close() error { return nil }
func (*buffer) Abort(error)  {}

func run(ctx context.Context, r core.TransformRunner, ref core.TransformRef, in string) (string, core.TransformResult, error) {
	var out buffer
	res, err := r.RunTransform(ctx, core.TransformCall{
		Transform: ref, Data: []byte(in),
		Output: func(context.Context, core.TransformOutputInfo) (core.TransformOutput, error) { return &out, nil },
	})
	return out.String(), res, err
}

func named(name string) core.TransformRef { return core.TransformRef{Name: name} }

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

func TestATransformReachesEveryNode(t *testing.T) {
	c := newCluster(t)
	a, _ := c.node(c.bus.Client().Jobs())
	b, rt := c.node(c.bus.Client().Jobs())
	made, smoke, err := a.Register(t.Context(), spec("hey"), []byte("hey "))
	if err != nil || smoke.Outcome != core.TransformDone {
		t.Fatalf("register: %+v, %v", smoke, err)
	}
	for _, r := range []*etl.Registry{a, b} {
		out, res, err := run(t.Context(), r, named("hey"), "you")
		if err != nil || out != "hey you" || res.Transform != made.Spec.Ref() {
			t.Errorf("run: %q, %v, %v", out, res.Transform, err)
		}
	}
	eventually(t, "the other node has it ready", func() bool { return rt.installed() == 1 })
	if _, _, err := run(t.Context(), b, core.TransformRef{Name: "hey", Digest: "sha256:00"}, ""); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("another digest: %v", err)
	}

	// A later node, and one that the bus tells nothing, run it just as well.
	late, _ := c.node(c.bus.Client().Jobs())
	if out, _, err := run(t.Context(), late, made.Spec.Ref(), "!"); err != nil || out != "hey !" {
		t.Errorf("a later node: %q, %v", out, err)
	}
	if list, err := late.List(t.Context()); err != nil || len(list) != 1 || list[0].Spec.Digest != made.Spec.Digest {
		t.Errorf("list: %v, %v", list, err)
	}
}

func TestANameStandsForTheLastThing(t *testing.T) {
	c := newCluster(t)
	var b *etl.Registry
	var first []byte
	a, rt := c.node(c.bus.Client().Jobs(), func(o *etl.Options) {
		o.Tell = func(_ context.Context, e []byte) {
			if first == nil {
				first = e
			}
			if err := b.Hear(e); err != nil {
				t.Error(err)
			}
		}
	})
	deaf := c.bus.Client()
	b, brt := c.node(deaf.Jobs())
	old, _, err := a.Register(t.Context(), spec("x"), []byte("one "))
	if err != nil {
		t.Fatal(err)
	}
	pinned, err := b.Pin(t.Context(), &old.Spec)
	if err != nil {
		t.Fatal(err)
	}
	s := spec("x")
	s.Args = map[string]string{"k": "v"}
	if _, _, err := a.Register(t.Context(), s, []byte("two ")); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*etl.Registry{a, b} {
		if out, _, err := run(t.Context(), r, named("x"), ""); err != nil || out != "two " {
			t.Errorf("the new one: %q, %v", out, err)
		}
	}
	if err := b.Hear(first); err != nil {
		t.Fatal(err)
	}
	if out, _, err := run(t.Context(), b, named("x"), ""); err != nil || out != "two " {
		t.Errorf("after old news: %q, %v", out, err)
	}
	if out, _, err := run(t.Context(), pinned, core.TransformRef{}, ""); err != nil || out != "one " {
		t.Errorf("the pinned one: %q, %v", out, err)
	}
	eventually(t, "the old one goes where nobody has it pinned", func() bool { return rt.installed() == 1 })
	eventually(t, "the new one is ready beside the pinned one", func() bool { return brt.installed() == 2 })

	if err := a.Remove(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*etl.Registry{a, b} {
		if _, _, err := run(t.Context(), r, named("x"), ""); !errors.Is(err, core.ErrNotFound) {
			t.Errorf("after the removal: %v", err)
		}
	}
	if out, _, err := run(t.Context(), pinned, core.TransformRef{}, ""); err != nil || out != "one " {
		t.Errorf("the pinned one after the removal: %q, %v", out, err)
	}
	pinned.Release(t.Context())
	eventually(t, "nothing is installed any more", func() bool { return rt.installed()+brt.installed() == 0 })
	if err := a.Remove(t.Context(), "x"); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("removed again: %v", err)
	}
	// What comes under the name later is newer than the removal.
	if _, _, err := a.Register(t.Context(), spec("x"), []byte("three ")); err != nil {
		t.Fatal(err)
	}
	if out, _, err := run(t.Context(), b, named("x"), ""); err != nil || out != "three " {
		t.Errorf("registered again: %q, %v", out, err)
	}
}

func TestStopAndStart(t *testing.T) {
	c := newCluster(t)
	r, rt := c.node(c.bus.Client().Jobs())
	made, _, err := r.Register(t.Context(), spec("x"), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	pinned, err := r.Pin(t.Context(), &made.Spec)
	if err != nil {
		t.Fatal(err)
	}
	defer pinned.Release(t.Context())
	if got, err := r.SetStopped(t.Context(), "x", true); err != nil || !got.Stopped {
		t.Fatalf("stop: %+v, %v", got, err)
	}
	if _, _, err := run(t.Context(), r, named("x"), ""); !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("stopped: %v", err)
	}
	if _, _, err := run(t.Context(), pinned, named("x"), ""); !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("stopped, in a job: %v", err)
	}
	if got, err := r.SetStopped(t.Context(), "x", false); err != nil || got.Stopped {
		t.Fatalf("start: %+v, %v", got, err)
	}
	if _, _, err := run(t.Context(), r, named("x"), ""); err != nil {
		t.Errorf("started: %v", err)
	}
	if len(rt.resumed) != 1 {
		t.Errorf("the runtime was told %d times", len(rt.resumed))
	}
	if _, err := r.SetStopped(t.Context(), "nobody", true); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("stop of what is not there: %v", err)
	}
}

func TestWhatIsRefused(t *testing.T) {
	c := newCluster(t)
	r, rt := c.node(c.bus.Client().Jobs())
	long := spec("long")
	long.Args = map[string]string{"a": strings.Repeat("x", etl.MaxSettings)}
	container := spec("pod")
	container.Type = etl.Container
	for name, tt := range map[string]struct {
		spec etl.Spec
		code string
		want error
	}{
		"a name":            {spec("../x"), "", core.ErrInvalid},
		"long settings":     {long, "", core.ErrTooLarge},
		"what Check says":   {spec("x"), "bad", core.ErrInvalid},
		"a trap":            {spec("x"), "trap", core.ErrInvalid},
		"a container":       {container, "kind: Pod", errors.ErrUnsupported},
		"a negative memory": {etl.Spec{Name: "x", Type: etl.WASM, Memory: -1}, "", core.ErrInvalid},
	} {
		if _, _, err := r.Register(t.Context(), tt.spec, []byte(tt.code)); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
	if _, smoke, err := r.Register(t.Context(), spec("shy"), []byte("refuses")); err != nil || smoke.Failure == nil || smoke.Log != "no input" {
		t.Errorf("one that refuses an empty object: %+v, %v", smoke, err)
	}
	if list, err := r.List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("list: %v, %v", list, err)
	}
	eventually(t, "what was refused is gone", func() bool { return rt.installed() == 1 })
	if _, err := r.Lookup(t.Context(), named("nobody")); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("a name that was never there: %v", err)
	}
}

func TestCodeIsVerifiedAndCleaned(t *testing.T) {
	c := newCluster(t)
	var needed []string
	r, _ := c.node(c.bus.Client().Jobs(), func(o *etl.Options) { o.Needed = func() []string { return needed } })
	made, _, err := r.Register(t.Context(), spec("x"), []byte("code"))
	if err != nil {
		t.Fatal(err)
	}
	m := c.modules()
	there := func() bool {
		_, err := m.Get(t.Context(), made.Spec.Digest, 4)
		return err == nil
	}
	clean := func(want bool, when string) {
		t.Helper()
		if err := r.Clean(t.Context()); err != nil {
			t.Fatal(err)
		}
		if there() != want {
			t.Errorf("%s: there is %v, want %v", when, there(), want)
		}
	}
	c.clock.add(2 * time.Hour)
	clean(true, "a name stands for it")
	if err := r.Remove(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	clean(true, "a name stood for it just now")
	needed = []string{made.Spec.Digest}
	c.clock.add(2 * time.Hour)
	clean(true, "a job needs it")
	needed = nil
	if err := m.Put(t.Context(), made.Spec.Digest, []byte("code")); err != nil {
		t.Fatal(err)
	}
	clean(true, "it was stored again just now")
	c.clock.add(2 * time.Hour)
	clean(false, "nobody needs it")

	if err := m.Put(t.Context(), made.Spec.Digest, []byte("evil")); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Get(t.Context(), made.Spec.Digest, 4); !errors.Is(err, core.ErrCorrupt) {
		t.Errorf("code of another digest: %v", err)
	}
}

func TestLoadingThatFailsIsTriedAgain(t *testing.T) {
	c := newCluster(t)
	a, _ := c.node(c.bus.Client().Jobs())
	b, rt := c.node(c.bus.Client().Jobs(), func(o *etl.Options) {
		rt := o.Runtimes[etl.WASM].(*shouter)
		rt.install = fmt.Errorf("no memory: %w", core.ErrUnavailable)
	})
	if _, _, err := a.Register(t.Context(), spec("x"), []byte("x")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second attempt succeeds", func() bool { return rt.installed() == 1 })
	if out, _, err := run(t.Context(), b, named("x"), "y"); err != nil || out != "xy" {
		t.Errorf("run: %q, %v", out, err)
	}
}

func TestManyAtOnce(t *testing.T) {
	c := newCluster(t)
	r, _ := c.node(c.bus.Client().Jobs())
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 20 {
				if _, _, err := r.Register(t.Context(), spec("x"), fmt.Appendf(nil, "%d ", (i+j)%3)); err != nil {
					t.Errorf("register: %v", err)
				}
				out, _, err := run(t.Context(), r, named("x"), "z")
				if err != nil || !strings.HasSuffix(out, " z") {
					t.Errorf("run: %q, %v", out, err)
				}
			}
		})
	}
	wg.Wait()
}
