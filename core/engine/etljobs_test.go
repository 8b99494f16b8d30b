package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
	"github.com/shoalstore/shoal/core/etl"
	"github.com/shoalstore/shoal/core/job"
)

// guests is a runtime whose transforms do what the keys say: "drop" in one drops the
// object, "bad" fails on it, "many" makes three of it, and all others get a text that is
// another one each time.
type guests struct {
	runs   atomic.Int64
	mended atomic.Bool // nothing is bad any more
	broken atomic.Bool // the runtime has stopped it
	// before is called before each run, if it is not nil.
	before func(ctx context.Context, node core.NodeID, key string) error
}

// guestsOf is the runtime of a node.
type guestsOf struct {
	*guests
	node core.NodeID
}

func (guestsOf) Check(*etl.Spec, []byte) error                            { return nil }
func (guestsOf) Install(context.Context, string, *etl.Spec, []byte) error { return nil }
func (guestsOf) Remove(context.Context, string) error                     { return nil }
func (g guestsOf) Resume(string) error                                    { g.broken.Store(false); return nil }

func (g guestsOf) text(c *core.TransformCall, n int64) string {
	return fmt.Sprintf("%s of %d bytes by %s, run %d", c.Object.Key, c.Object.Size, g.node, n)
}

func (g guestsOf) output(ctx context.Context, c *core.TransformCall, info core.TransformOutputInfo, text string) error {
	out, err := c.Output(ctx, info)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(out, text); err != nil {
		return err
	}
	return out.Close()
}

func (g guestsOf) RunTransform(ctx context.Context, c core.TransformCall) (res core.TransformResult, err error) {
	if c.Body != nil {
		defer func() { err = errors.Join(err, c.Body.Close()) }()
	}
	if c.Object.Bucket == "smoke-run" {
		return core.TransformResult{Outcome: core.TransformDropped}, nil
	}
	if g.broken.Load() {
		return res, etl.ErrBroken
	}
	n, key := g.runs.Add(1), c.Object.Key
	if g.before != nil {
		if err := g.before(ctx, g.node, key); err != nil {
			return res, err
		}
	}
	switch {
	case strings.Contains(key, "drop"):
		return core.TransformResult{Outcome: core.TransformDropped}, nil
	case strings.Contains(key, "bad") && !g.mended.Load():
		return core.TransformResult{Failure: &core.TransformFailure{Class: "exit", Code: 3, Message: "exit code 3"}, Log: "cannot parse line 7\n"}, nil
	case strings.Contains(key, "many"):
		for i := range 2 {
			if err := g.output(ctx, &c, core.TransformOutputInfo{Name: fmt.Sprint("part", i)}, "part"); err != nil {
				return res, err
			}
		}
	}
	return core.TransformResult{Outcome: core.TransformDone}, g.output(ctx, &c, core.TransformOutputInfo{}, g.text(&c, n))
}

// etlJobs is a cluster with a transform.
type etlJobs struct {
	t        *testing.T
	tc       *testCluster
	remote   *fakeRemote
	guests   *guests
	jobs     []*job.Manager
	etl      []*etl.Registry
	from, to core.Bucket
	spec     etl.Spec
}

func startETL(t *testing.T, nodes int) *etlJobs {
	t.Helper()
	x := &etlJobs{t: t, guests: &guests{}}
	log := slog.New(slog.DiscardHandler)
	x.tc, x.remote, _ = startRemoteOf(t, nodes, 1, hooks{made: func(n *engine.Node, b bus.Bus) {
		bucket := func(ctx context.Context, create bool) (core.Bucket, error) {
			name := core.BucketName{Provider: core.Shoal, Name: "modules"}
			made, err := n.Objects().BucketNamed(ctx, name)
			if errors.Is(err, core.ErrNoSuchBucket) && create {
				return n.Objects().CreateBucket(ctx, name, nil, "")
			}
			return made, err
		}
		r := etl.New(etl.Options{
			KV: b.Jobs(), Clock: clock{time.Now()}, Log: log, Modules: etl.Modules{Objects: n.Objects(), Bucket: bucket},
			Runtimes: map[string]etl.Runtime{etl.WASM: guestsOf{x.guests, n.ID()}},
		})
		x.etl = append(x.etl, r)
		x.jobs = append(x.jobs, job.New(job.Options{Node: n, KV: b.Jobs(), Clock: clock{time.Now()}, Log: log, Transforms: r}))
	}})
	x.remote.clock = time.Now
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range x.jobs {
		for _, run := range []func(context.Context) error{x.jobs[i].Run, x.etl[i].Run} {
			wg.Go(func() {
				if err := run(ctx); err != nil {
					t.Error(err)
				}
			})
		}
	}
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	made, _, err := x.etl[0].Register(t.Context(), etl.Spec{Name: "x", Type: etl.WASM}, []byte("code"))
	if err != nil {
		t.Fatal(err)
	}
	x.spec = made.Spec
	x.from, x.to = x.bucket("from"), x.bucket("into")
	return x
}

func (x *etlJobs) bucket(name string) core.Bucket {
	x.t.Helper()
	b, err := x.tc.nodes[0].Objects().CreateBucket(x.t.Context(), core.BucketName{Provider: core.Shoal, Name: name}, nil, "")
	if err != nil {
		x.t.Fatal(err)
	}
	return b
}

// put stores objects of ten bytes.
func (x *etlJobs) put(n int, key func(i int) string) {
	x.t.Helper()
	for i := range n {
		if _, err := x.tc.nodes[i%len(x.tc.nodes)].Objects().Put(x.t.Context(), x.from, key(i), strings.NewReader("ten bytes."), core.PutOptions{Size: 10}); err != nil {
			x.t.Fatal(err)
		}
	}
}

// start starts a job that transforms from into to.
func (x *etlJobs) start(change func(*job.Spec)) job.Job {
	x.t.Helper()
	s := job.Spec{Kind: job.KindETL, From: "shoal://from", To: "shoal://into", Transform: &x.spec}
	if change != nil {
		change(&s)
	}
	j, err := x.jobs[0].Start(x.t.Context(), s)
	if err != nil {
		x.t.Fatal(err)
	}
	return j
}

// written reads what is at the destination.
func (x *etlJobs) written(n *engine.Node) map[string]string {
	x.t.Helper()
	out := map[string]string{}
	n.ListAll(x.t.Context(), x.to, "", "", true, func(key string, _ *core.Record, err error) bool {
		if err != nil {
			x.t.Error(err)
			return false
		}
		out[key] = ""
		return true
	})
	for key := range out {
		o, err := n.Objects().Get(x.t.Context(), x.to, key, core.GetOptions{})
		if err != nil {
			x.t.Errorf("%s: %v", key, err)
			continue
		}
		b, err := io.ReadAll(o.Body)
		if err = errors.Join(err, o.Body.Close()); err != nil {
			x.t.Errorf("%s: %v", key, err)
		}
		out[key] = string(b)
	}
	return out
}

// TestETLBooks: what is done, dropped and failed is counted apart, in objects and in
// bytes; what failed says why, with the end of its log, and a retry is about that only.
func TestETLBooks(t *testing.T) {
	x := startETL(t, 3)
	kinds := []string{"plain", "drop", "many", "plain", "bad"}
	x.put(100, func(i int) string { return fmt.Sprintf("%s/%03d", kinds[i%5], i) })
	j := finish(t, x.jobs[2], x.start(func(s *job.Spec) { s.ContinueOnError = true }).Spec.ID)
	b := j.Status.Books
	want := job.Books{
		Planned: job.Amount{Objects: 100, Bytes: 1000}, Done: job.Amount{Objects: 60, Bytes: 600},
		Dropped: job.Amount{Objects: 20, Bytes: 200}, Failed: job.Amount{Objects: 20, Bytes: 200},
	}
	want.Outputs = b.Outputs
	if b != want || b.Outputs.Objects != 40+20*3 || j.Status.State != job.Failed {
		t.Errorf("%s %q, %+v; want %+v with 100 outputs", j.Status.State, j.Status.Message, b, want)
	}
	written := x.written(x.tc.nodes[1])
	sum := int64(0)
	for _, text := range written {
		sum += int64(len(text))
	}
	if len(written) != 100 || sum != b.Outputs.Bytes {
		t.Errorf("%d objects of %d bytes are there, the books say %+v", len(written), sum, b.Outputs)
	}
	errs, _, err := x.jobs[1].Errors(t.Context(), j.Spec.ID, "", 1000)
	if err != nil || len(errs) != 20 {
		t.Fatalf("%d errors, %v", len(errs), err)
	}
	for _, e := range errs {
		if !strings.HasPrefix(e.Key, "bad/") || e.Code != "exit" || !strings.Contains(e.Message, "exit code 3") || !strings.Contains(e.Message, "cannot parse line 7") {
			t.Errorf("error %+v", e)
		}
	}
	x.guests.mended.Store(true)
	again, err := x.jobs[1].Retry(t.Context(), j.Spec.ID, job.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	wantBooks(t, finish(t, x.jobs[0], again.Spec.ID), 20, 0, 0)
	if got := x.written(x.tc.nodes[0]); len(got) != 120 {
		t.Errorf("%d objects after the retry", len(got))
	}
}

// TestETLEndsAtTheFirstFailure, and writes of that object nothing.
func TestETLEndsAtTheFirstFailure(t *testing.T) {
	x := startETL(t, 1)
	x.put(3, func(i int) string { return fmt.Sprintf("bad/%d", i) })
	j := finish(t, x.jobs[0], x.start(nil).Spec.ID)
	if j.Status.State != job.Failed || !strings.Contains(j.Status.Message, "cannot parse line 7") || !strings.Contains(j.Status.Message, "--cont-on-err") {
		t.Errorf("%s %q", j.Status.State, j.Status.Message)
	}
	if got := x.written(x.tc.nodes[0]); len(got) != 0 {
		t.Errorf("written: %v", got)
	}
}

// TestETLStopped: a transform that somebody stops has its job wait, and say for what; one
// that failed too often has the objects fail, and they say what to do.
func TestETLStopped(t *testing.T) {
	x := startETL(t, 3)
	x.put(30, func(i int) string { return fmt.Sprintf("plain/%03d", i) })
	if _, err := x.etl[0].SetStopped(t.Context(), "x", true); err != nil {
		t.Fatal(err)
	}
	for _, r := range x.etl {
		waitFor(t, "a node to know", func() error {
			if list, err := r.List(t.Context()); err != nil || len(list) != 1 || !list[0].Stopped {
				return fmt.Errorf("%+v, %w", list, err)
			}
			return nil
		})
	}
	j := x.start(nil)
	waitFor(t, "the job to wait", func() error {
		got, err := x.jobs[1].Get(t.Context(), j.Spec.ID)
		if err == nil && (got.Status.State != job.Waiting || !strings.Contains(strings.Join(got.Status.Waiting, ""), "shoal etl start x")) {
			err = fmt.Errorf("it is %+v", got.Status)
		}
		return err
	})
	if _, err := x.etl[1].SetStopped(t.Context(), "x", false); err != nil {
		t.Fatal(err)
	}
	wantBooks(t, finish(t, x.jobs[0], j.Spec.ID), 30, 0, 0)

	x.guests.broken.Store(true)
	j = finish(t, x.jobs[0], x.start(func(s *job.Spec) { s.ContinueOnError, s.Prepend = true, "again/" }).Spec.ID)
	if b := j.Status.Books; j.Status.State != job.Failed || b.Failed.Objects != 30 || b.Planned.Objects != 30 {
		t.Errorf("%s, %+v", j.Status.State, b)
	}
	errs, _, err := x.jobs[1].Errors(t.Context(), j.Spec.ID, "", 1000)
	if err != nil || len(errs) != 30 || errs[0].Code != "transform_stopped" || !strings.Contains(errs[0].Message, "shoal etl start x") || !strings.Contains(errs[0].Message, "shoal start retry") {
		t.Errorf("%d errors, %+v, %v", len(errs), errs[:min(1, len(errs))], err)
	}
	if _, err := x.etl[2].SetStopped(t.Context(), "x", false); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "it to run again", func() error {
		if x.guests.broken.Load() {
			return errors.New("it does not")
		}
		return nil
	})
	again, err := x.jobs[0].Retry(t.Context(), j.Spec.ID, job.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	wantBooks(t, finish(t, x.jobs[0], again.Spec.ID), 30, 0, 0)
}

// TestETLTakeOver: the slots of a node that is cut off in the middle are gone on with,
// and what was written stands, though the transform makes something else each time.
func TestETLTakeOver(t *testing.T) {
	x := startETL(t, 4)
	const objects = 200
	kinds := []string{"plain", "drop", "many", "plain"}
	x.put(objects, func(i int) string { return fmt.Sprintf("%s/%03d", kinds[i%4], i) })
	last := x.tc.nodes[3].ID()
	lost := make(chan struct{})
	var mine atomic.Int64
	x.guests.before = func(ctx context.Context, node core.NodeID, key string) error {
		if node != last || strings.HasPrefix(key, "drop/") || mine.Add(1) <= 10 {
			return nil
		}
		// The node's first objects are written, and no cursor says so yet.
		select {
		case <-lost:
		case <-ctx.Done():
		}
		return ctx.Err()
	}
	j := x.start(func(s *job.Spec) { s.Workers = 2 })
	waitFor(t, "the node to be in the middle of it", func() error {
		if mine.Load() <= 10 {
			return errors.New("it is not")
		}
		return nil
	})
	before := x.written(x.tc.nodes[0])
	x.tc.net.cutOff(last)
	j = finish(t, x.jobs[0], j.Spec.ID)
	close(lost)
	b := j.Status.Books
	if j.Status.State != job.Done || b.Done.Objects != 150 || b.Dropped.Objects != 50 || b.Planned.Objects != objects || b.Outputs.Objects != 100+50*3 {
		t.Errorf("%s %q, %+v", j.Status.State, j.Status.Message, b)
	}
	after := x.written(x.tc.nodes[1])
	if len(after) != 250 || len(before) == 0 {
		t.Errorf("%d objects at the end, %d when the node was lost", len(after), len(before))
	}
	byLost := 0
	for key, text := range before {
		if after[key] != text {
			t.Errorf("%s was %q, and is %q", key, text, after[key])
		}
		if strings.Contains(text, "by "+string(last)) {
			byLost++
		}
	}
	if byLost == 0 {
		t.Error("the node that was lost had written nothing")
	}
}

// TestETLFirstWriterWins: of two attempts at the same time, each with another result,
// one stands, and both count the same.
func TestETLFirstWriterWins(t *testing.T) {
	x := startETL(t, 3)
	x.put(1, func(int) string { return "many/1" })
	var both sync.WaitGroup
	both.Add(2)
	var first sync.Map
	x.guests.before = func(_ context.Context, node core.NodeID, _ string) error {
		if _, again := first.LoadOrStore(node, true); !again {
			both.Done()
		}
		both.Wait()
		return nil
	}
	var outs [2]engine.TransformedObject
	var wg sync.WaitGroup
	for i := range outs {
		wg.Go(func() {
			p, err := x.etl[i].Pin(t.Context(), &x.spec)
			if err != nil {
				t.Error(err)
				return
			}
			defer p.Release(t.Context())
			outs[i], err = x.tc.nodes[i].TransformObject(t.Context(), &engine.TransformTask{
				CopyTask: engine.CopyTask{From: x.from, To: x.to, Key: "many/1", ToKey: "one", Job: "etl-1", Transform: "x", Started: time.Now()}, Run: p,
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	ends := []engine.CopyEnd{outs[0].End, outs[1].End}
	slices.Sort(ends)
	if !slices.Equal(ends, []engine.CopyEnd{engine.Copied, engine.CopiedSoFar}) || outs[0].Outputs != 3 || outs[1].Outputs != 3 {
		t.Errorf("got %+v and %+v", outs[0], outs[1])
	}
	winner := slices.IndexFunc(outs[:], func(o engine.TransformedObject) bool { return o.End == engine.Copied })
	if got := x.written(x.tc.nodes[2]); len(got) != 3 || !strings.Contains(got["one"], "by "+string(x.tc.nodes[winner].ID())) {
		t.Errorf("there is %q, written by %s", got, x.tc.nodes[winner].ID())
	}
}

// TestETLLatest: of a remote, what it has now is transformed, with and without what is
// not present; deletions are not followed.
func TestETLLatest(t *testing.T) {
	x := startETL(t, 3)
	fill(x.remote, 20, func(i int) string { return fmt.Sprintf("k%02d", i) })
	wantBooks(t, runJob(t, x.jobs, job.Spec{Kind: job.KindPrefetch, From: "s3://remote", Prefix: "k0"}), 10, 0, 0)
	x.remote.set("k03", []byte("changed"))
	x.remote.unset("k04")
	var seen sync.Map
	x.guests.before = func(_ context.Context, _ core.NodeID, key string) error {
		seen.Store(key, true)
		return nil
	}
	old := func(s *job.Spec) { s.From = "s3://remote" }
	j := finish(t, x.jobs[0], x.start(func(s *job.Spec) { old(s); s.Latest = true }).Spec.ID)
	wantBooks(t, j, 9, 1, 0)
	if got := x.written(x.tc.nodes[0])["k03"]; !strings.Contains(got, "of 7 bytes") {
		t.Errorf("%q was made, want it of what the remote has now", got)
	}
	if _, ok := seen.Load("k04"); ok {
		t.Error("what is gone was transformed")
	}
	wantBooks(t, finish(t, x.jobs[0], x.start(func(s *job.Spec) { old(s); s.Latest, s.All, s.Prepend = true, true, "all/" }).Spec.ID), 19, 0, 0)
	wantBooks(t, finish(t, x.jobs[0], x.start(func(s *job.Spec) {
		old(s)
		s.Latest, s.All, s.List, s.Prepend = true, true, []string{"k03", "k04", "k19"}, "named/"
	}).Spec.ID), 2, 1, 0)
	if _, err := x.jobs[0].Start(t.Context(), job.Spec{Kind: job.KindETL, From: "s3://remote", To: "shoal://into", Transform: &x.spec, Sync: true}); !errors.Is(err, core.ErrInvalid) || !strings.Contains(err.Error(), "--latest") {
		t.Errorf("--sync: %v", err)
	}
}

// TestETLPreview: what a dry run shows is what the job would write, and nothing is
// written.
func TestETLPreview(t *testing.T) {
	x := startETL(t, 3)
	kinds := []string{"plain", "drop", "many", "bad"}
	x.put(12, func(i int) string { return fmt.Sprintf("%s/%02d.txt", kinds[i%4], i) })
	spec := job.Spec{Kind: job.KindETL, From: "shoal://from", To: "shoal://into", Transform: &x.spec, Prepend: "p/", Ext: map[string]string{"txt": "up"}}
	preview := func(n int, change func(*job.Spec)) string {
		t.Helper()
		s := spec
		if change != nil {
			change(&s)
		}
		list, more, err := x.jobs[1].Preview(t.Context(), s, n)
		if err != nil {
			t.Error(err)
		}
		var b strings.Builder
		for _, o := range list {
			fmt.Fprintf(&b, "%s %d:", o.Key, o.Size)
			for _, out := range o.Outputs {
				fmt.Fprintf(&b, " %s %t", out.Key, out.Size > 0)
			}
			if o.Dropped {
				b.WriteString(" dropped")
			}
			if o.Why.Message != "" {
				fmt.Fprintf(&b, " %s %t", o.Why.Code, strings.Contains(o.Why.Message, "line 7"))
			}
			fmt.Fprintf(&b, " %.7s\n", o.Head)
		}
		if more {
			b.WriteString("more\n")
		}
		return b.String()
	}
	for _, tt := range []struct {
		name   string
		n      int
		change func(*job.Spec)
		want   string
	}{
		{"the first", 1, nil, "bad/03.txt 10: exit true \nmore\n"},
		{"a prefix", 3, func(s *job.Spec) { s.Prefix = "many/" }, "" +
			"many/02.txt 10: p/many/02.up/part0 true p/many/02.up/part1 true p/many/02.up true part\n" +
			"many/06.txt 10: p/many/06.up/part0 true p/many/06.up/part1 true p/many/06.up true part\n" +
			"many/10.txt 10: p/many/10.up/part0 true p/many/10.up/part1 true p/many/10.up true part\n"},
		{"a list", 2, func(s *job.Spec) { s.List = []string{"drop/01.txt", "plain/0", "plain/04.txt", "plain/08.txt"} }, "" +
			"drop/01.txt 10: dropped \nplain/04.txt 10: p/plain/04.up true plain/0\nmore\n"},
		{"an expression", 9, func(s *job.Spec) { s.Regex = "^plain/.*8" }, "plain/08.txt 10: p/plain/08.up true plain/0\n"},
		{"nothing", 9, func(s *job.Spec) { s.Prefix = "x" }, ""},
	} {
		if got := preview(tt.n, tt.change); got != tt.want {
			t.Errorf("%s: got\n%swant\n%s", tt.name, got, tt.want)
		}
	}
	if got := x.written(x.tc.nodes[0]); len(got) != 0 {
		t.Errorf("written: %v", got)
	}

	fill(x.remote, 5, func(i int) string { return fmt.Sprintf("k%d", i) })
	wantBooks(t, runJob(t, x.jobs, job.Spec{Kind: job.KindPrefetch, From: "s3://remote", Prefix: "k0"}), 1, 0, 0)
	x.remote.set("k0", []byte("now"))
	of := func(change func(*job.Spec)) func(*job.Spec) {
		return func(s *job.Spec) {
			s.From = "s3://remote"
			change(s)
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*job.Spec)
		want   string
	}{ // what they read becomes present
		{"what is present", func(*job.Spec) {}, "k0 100: p/k0 true k0 of 1\n"},
		{"what there is now", func(s *job.Spec) { s.Latest = true }, "k0 3: p/k0 true k0 of 3\n"},
		{"what a remote has", func(s *job.Spec) { s.All = true }, "k0 3: p/k0 true k0 of 3\nk1 3100: p/k1 true k1 of 3\nmore\n"},
		{"what is not there", func(s *job.Spec) { s.All, s.List = true, []string{"none"} }, "none -1: skipped false \n"},
		{"a name of what is not present", func(s *job.Spec) { s.All, s.List = true, []string{"k3"} }, "k3 9100: p/k3 true k3 of 9\n"},
	} {
		if got := preview(2, of(tt.change)); got != tt.want {
			t.Errorf("%s: got\n%swant\n%s", tt.name, got, tt.want)
		}
	}
	if _, _, err := x.jobs[0].Preview(t.Context(), job.Spec{Kind: job.KindCopy, From: "shoal://from", To: "shoal://into"}, 1); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("a copy: %v", err)
	}
}
