package engine_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
	"github.com/shoalstore/shoal/core/job"
)

// startJobs starts a cluster with a remote bucket and a manager of jobs on each
// node.
func startJobs(t *testing.T, nodes int, with func(*engine.Options)) (*testCluster, *fakeRemote, core.Bucket, []*job.Manager) {
	t.Helper()
	return startJobsOf(t, nodes, with, job.Options{})
}

// startJobsOf does so with options beside those that a test always has.
func startJobsOf(t *testing.T, nodes int, with func(*engine.Options), o job.Options) (*testCluster, *fakeRemote, core.Bucket, []*job.Manager) {
	t.Helper()
	var jobs []*job.Manager
	disks := 1
	if nodes == 1 {
		disks = 3
	}
	tc, f, b := startRemoteOf(t, nodes, disks, hooks{node: with, made: func(n *engine.Node, b bus.Bus) {
		o.Node, o.KV, o.Clock, o.Log = n, b.Jobs(), clock{time.Now()}, slog.New(slog.DiscardHandler)
		jobs = append(jobs, job.New(o))
	}})
	f.clock = time.Now
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, m := range jobs {
		wg.Go(func() {
			if err := m.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return tc, f, b, jobs
}

// finish waits for a job.
func finish(t *testing.T, m *job.Manager, id string) job.Job {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	j, err := m.Await(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if !j.Status.State.Ended() {
		t.Fatalf("the job has not ended: %+v", j.Status)
	}
	return j
}

// fill puts objects into the remote.
func fill(f *fakeRemote, n int, name func(i int) string) map[string][]byte {
	want := map[string][]byte{}
	for i := range n {
		data := remoteBytes(uint64(i), 100+i%5*3000)
		want[name(i)] = data
		f.set(name(i), data)
	}
	return want
}

// TestRemoteCopyAll copies a bucket of which nothing is present.
func TestRemoteCopyAll(t *testing.T) {
	tc, f, from, jobs := startJobs(t, 3, nil)
	want := fill(f, 250, func(i int) string { return fmt.Sprintf("d%d/k%03d", i%7, i) })
	j, err := jobs[1].Start(t.Context(), job.Spec{Kind: job.KindCopy, From: "s3://remote", To: "shoal://copy", All: true, Prepend: "x/"})
	if err != nil {
		t.Fatal(err)
	}
	j = finish(t, jobs[0], j.Spec.ID)
	books := j.Status.Books
	if j.Status.State != job.Done || books.Done.Objects != 250 || books.Planned != books.Done || books.Outputs != books.Done {
		t.Fatalf("got %+v", j.Status)
	}
	to, err := tc.nodes[2].Objects().Bucket(t.Context(), "copy")
	if err != nil {
		t.Fatal(err)
	}
	for key, data := range want {
		mustGet(t, tc.nodes[2], to, "x/"+key, data)
	}
	if n := f.count("list"); n > 1+16 {
		t.Errorf("%d listings of 250 keys", n)
	}
	if n := f.count("get"); n != 250 {
		t.Errorf("%d objects were fetched by %d requests", 250, n)
	}
	// What was read is present now: the same is done again without the remote.
	for key := range want {
		awaitPresent(t, tc.nodes[0], from, key, int64(len(want[key])))
	}
}

// listServer is a remote that lists what keys were generated, slowly, and does
// nothing else.
type listServer struct {
	core.Backend
	keys  []string // sorted
	takes time.Duration
	calls atomic.Int64

	mu          sync.Mutex
	first, last time.Time // call
}

func (s *listServer) Abilities() core.RemoteAbilities { return core.RemoteAbilities{PageSize: 1000} }

func (s *listServer) List(ctx context.Context, _ string, o core.RemoteListOptions) (core.RemoteListing, error) {
	s.calls.Add(1)
	s.mu.Lock()
	if s.first.IsZero() {
		s.first = time.Now()
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.last = time.Now()
		s.mu.Unlock()
	}()
	if s.takes > 0 {
		t := time.NewTimer(s.takes)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return core.RemoteListing{}, ctx.Err()
		}
	}
	i, found := slices.BinarySearch(s.keys, max(o.After, o.Prefix))
	if found && o.After >= o.Prefix {
		i++
	}
	var l core.RemoteListing
	for ; i < len(s.keys) && strings.HasPrefix(s.keys[i], o.Prefix); i++ {
		if len(l.Objects) == min(o.Max, 1000) {
			l.More = true
			break
		}
		l.Objects = append(l.Objects, core.RemoteObject{Key: s.keys[i], Size: int64(len(s.keys[i]))})
		l.Next = s.keys[i]
	}
	return l, nil
}

// TestRemoteListInParallel: five nodes list much faster than one lister could, in
// hardly more calls, and count every key once.
func TestRemoteListInParallel(t *testing.T) {
	const n, page = 200_000, 50 * time.Millisecond
	server := &listServer{takes: page}
	_, _, _, jobs := startJobs(t, 5, func(o *engine.Options) {
		o.Remote = func(core.BucketName, core.RemoteSettings) (core.Backend, error) { return server, nil }
	})
	for name, key := range map[string]func(i int) string{
		"flat": func(i int) string { return fmt.Sprintf("img-%08d.jpg", i) },
		"deep": func(i int) string { return fmt.Sprintf("data/train/class%03d/part%d/sample-%06d.tar", i%97, i/97%7, i) },
		"skewed": func(i int) string {
			if i < 260 {
				return fmt.Sprintf("%c/%d", 'a'+i%26, i/26)
			}
			return fmt.Sprintf("m/big/%07d", i)
		},
	} {
		server.keys = server.keys[:0]
		var want job.Amount
		for i := range n {
			server.keys = append(server.keys, key(i))
			want = want.Add(job.Amount{Objects: 1, Bytes: int64(len(key(i)))})
		}
		slices.Sort(server.keys)
		server.calls.Store(0)
		server.first = time.Time{}
		j, err := jobs[0].Start(t.Context(), job.Spec{Kind: job.KindPrefetch, From: "s3://remote", DryRun: true})
		if err != nil {
			t.Fatal(err)
		}
		j = finish(t, jobs[0], j.Spec.ID)
		if j.Status.Planned == nil || *j.Status.Planned != want {
			t.Errorf("%s: planned %+v, want %+v", name, j.Status.Planned, want)
		}
		serial := time.Duration(math.Ceil(n/1000)) * page
		took := server.last.Sub(server.first)
		calls, most := server.calls.Load(), int64(math.Ceil(n/1000)*1.1+16)
		if speed := serial.Seconds() / took.Seconds(); speed < 1.3 { // far less than it is, for machines that are busy; see TestRangeSpeed of core/job
			t.Errorf("%s: only %.2f times as fast as one lister", name, speed)
		}
		t.Logf("%s: %v, %.2f times as fast as one lister; %d calls of %d at the most", name, took, serial.Seconds()/took.Seconds(), calls, most)
		if calls > most {
			t.Errorf("%s: %d calls, want %d at the most", name, calls, most)
		}
	}
}

// TestRemotePrefetch brings what is selected into the cluster, once.
func TestRemotePrefetch(t *testing.T) {
	tc, f, b, jobs := startJobs(t, 3, nil)
	want := fill(f, 120, func(i int) string { return fmt.Sprintf("shard-%04d.tar", i) })
	for _, c := range []struct {
		name          string
		spec          job.Spec
		done, skipped int64
		lists         bool
	}{
		{"by prefix and pattern", job.Spec{Prefix: "shard-000", Regex: `[02468]\.tar$`}, 5, 0, true},
		{"by name, one of which is not there", job.Spec{List: []string{"shard-0001.tar", "shard-0002.tar", "none"}}, 1, 2, false},
		{"by template", job.Spec{Template: "shard-{0100..0119..2}.tar"}, 10, 0, false},
		{"all", job.Spec{}, 104, 16, true},
		{"all again", job.Spec{}, 0, 120, true},
	} {
		f.reset()
		c.spec.Kind, c.spec.From, c.spec.ContinueOnError = job.KindPrefetch, "s3://remote", true
		j, err := jobs[2].Start(t.Context(), c.spec)
		if err != nil {
			t.Fatal(err)
		}
		j = finish(t, jobs[2], j.Spec.ID)
		books := j.Status.Books
		if j.Status.State != job.Done || books.Done.Objects != c.done || books.Skipped.Objects != c.skipped {
			t.Errorf("%s: got %+v", c.name, j.Status)
		}
		if n := f.count("list"); (n > 0) != c.lists {
			t.Errorf("%s: %d listings", c.name, n)
		}
		if n := int64(f.count("get")); n < c.done || n > c.done+1 {
			t.Errorf("%s: %d objects were fetched", c.name, n)
		}
	}
	for key, data := range want {
		if rec := present(t, tc.nodes[0], b, key); rec == nil || !rec.Whole() || rec.Size != int64(len(data)) {
			t.Errorf("%s is not present: %+v", key, rec)
		}
	}
}

// TestRemoteListingFails: a listing that fails for a while holds the job up, and it
// says why; one that cannot go on ends it.
func TestRemoteListingFails(t *testing.T) {
	_, f, _, jobs := startJobs(t, 3, nil)
	fill(f, 30, func(i int) string { return fmt.Sprint("k", i) })
	var failure atomic.Pointer[error]
	fail := func(err error) { failure.Store(&err) }
	f.answer(func(_ context.Context, op, _ string) error {
		if err := failure.Load(); op == "list" && *err != nil {
			return *err
		}
		return nil
	})
	fail(fmt.Errorf("slow down: %w", core.ErrThrottled))
	start := func() string {
		j, err := jobs[0].Start(t.Context(), job.Spec{Kind: job.KindPrefetch, From: "s3://remote", ContinueOnError: true})
		if err != nil {
			t.Fatal(err)
		}
		return j.Spec.ID
	}
	id := start()
	waitFor(t, "the job to say what it waits for", func() error {
		j, err := jobs[1].Get(t.Context(), id)
		if err == nil && (j.Status.State != job.Waiting || !strings.Contains(strings.Join(j.Status.Waiting, ""), "slow down")) {
			err = fmt.Errorf("it is %s, for %q", j.Status.State, j.Status.Waiting)
		}
		return err
	})
	fail(nil)
	if j := finish(t, jobs[1], id); j.Status.State != job.Done || j.Status.Books.Done.Objects != 30 {
		t.Errorf("got %+v", j.Status)
	}
	fail(fmt.Errorf("the bucket is gone: %w", core.ErrNoSuchBucket))
	if j := finish(t, jobs[1], start()); j.Status.State != job.Failed || !strings.Contains(j.Status.Message, "the bucket is gone") {
		t.Errorf("got %+v", j.Status)
	}
	fail(core.ErrUnavailable)
	id = start()
	if j, err := jobs[2].Stop(t.Context(), id); err != nil || j.Status.State != job.Stopped {
		t.Errorf("got %+v, %v", j.Status, err)
	}
}

// TestRemoteCopySourceChanges: what was replaced or removed since it was listed is
// skipped, and named.
func TestRemoteCopySourceChanges(t *testing.T) {
	_, f, _, jobs := startJobs(t, 3, nil)
	fill(f, 40, func(i int) string { return fmt.Sprintf("in/%02d", i) })
	var once sync.Once
	f.answer(func(_ context.Context, op, _ string) error {
		if op == "get" || op == "head" {
			once.Do(func() {
				f.set("in/38", []byte("another"))
				f.unset("in/39")
			})
		}
		return nil
	})
	j, err := jobs[0].Start(t.Context(), job.Spec{
		Kind: job.KindCopy, From: "s3://remote", To: "s3://remote", Prefix: "in/", Prepend: "out/", All: true, Workers: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	j = finish(t, jobs[0], j.Spec.ID)
	if b := j.Status.Books; j.Status.State != job.Done || b.Done.Objects != 38 || b.Skipped.Objects != 2 || b.Planned.Objects != 40 {
		t.Fatalf("got %+v", j.Status)
	}
	errs, _, err := jobs[1].Errors(t.Context(), j.Spec.ID, "", 0)
	if err != nil || len(errs) != 2 || errs[0].Key != "in/38" || errs[1].Key != "in/39" {
		t.Errorf("got %v, %v", errs, err)
	}
}

// TestJobsMoveOnByEvents: a job on which nothing fails goes from phase to phase without
// waiting for anybody to look, over ranges as over slots.
func TestJobsMoveOnByEvents(t *testing.T) {
	_, f, _, jobs := startJobsOf(t, 3, nil, job.Options{KeepEvery: time.Hour})
	fill(f, 40, func(i int) string { return fmt.Sprintf("in/%02d", i) })
	for _, s := range []job.Spec{
		{Kind: job.KindCopy, From: "s3://remote", To: "s3://remote", Prefix: "in/", Prepend: "out/", All: true},
		{Kind: job.KindCopy, From: "s3://remote", To: "shoal://copy", Prefix: "in/", All: true},
		{Kind: job.KindCopy, From: "shoal://copy", To: "shoal://second"},
		{Kind: job.KindEvict, From: "s3://remote"},
	} {
		j, err := jobs[2].Start(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		j = finish(t, jobs[1], j.Spec.ID)
		if want := int64(40); j.Status.State != job.Done || j.Status.Books.Done.Objects < want {
			t.Errorf("%s: got %+v", s.To, j.Status)
		}
	}
}

// TestRemoteCopyVerified: what is gone from the destination before the job has ended
// is missed. Where the listing tells who wrote an object nothing else is asked.
func TestRemoteCopyVerified(t *testing.T) {
	_, f, _, jobs := startJobs(t, 3, nil)
	fill(f, 20, func(i int) string { return fmt.Sprintf("in/%02d", i) })
	for _, x := range []struct {
		out           string
		tells, noKeep bool
		heads         int
	}{{"plain/", false, false, 0}, {"told/", true, false, 0}, {"past/", false, true, 19}, {"past-told/", true, true, 0}} {
		f.reset()
		f.answer(func(_ context.Context, op, prefix string) error {
			if op == "list" && prefix == x.out {
				f.unset(x.out + "in/07")
			}
			return nil
		})
		f.listsMeta.Store(x.tells)
		j, err := jobs[0].Start(t.Context(), job.Spec{Kind: job.KindCopy, From: "s3://remote", To: "s3://remote", Prefix: "in/", Prepend: x.out, All: true, NoCache: x.noKeep})
		if err != nil {
			t.Fatal(err)
		}
		j = finish(t, jobs[0], j.Spec.ID)
		if j.Status.State != job.Failed || !strings.Contains(j.Status.Message, "wrote 20 objects, 19 of them") {
			t.Errorf("%s: got %+v", x.out, j.Status)
		}
		if n := f.count("head"); n != x.heads {
			t.Errorf("%s: the remote was asked about %d objects, want %d", x.out, n, x.heads)
		}
	}
}

// TestRemoteCopyNodesDie cuts two of five nodes off while all copy within a remote:
// the others go on, every object arrives, and is counted once. Whose writes they had
// begun need not wait until no request of theirs can reach the remote any more.
func TestRemoteCopyNodesDie(t *testing.T) {
	const objects = 400
	tc, f, _, jobs := startJobs(t, 5, nil)
	waitFor(t, "five voters, of whom two can go", func() error {
		if v := tc.nodes[2].Map().Voters; len(v) != 5 {
			return fmt.Errorf("there are %d", len(v))
		}
		return nil
	})
	want := map[string][]byte{}
	for i := range objects { // as parts of records, which are on three nodes: the bucket's two replicas may go with two
		key := fmt.Sprintf("in/%03d", i)
		want[key] = remoteBytes(uint64(i), 100+i%5*1500)
		f.set(key, want[key])
	}
	dead := make(chan struct{})
	var puts atomic.Int64
	f.answer(func(ctx context.Context, op, key string) error {
		if op == "put" && strings.HasPrefix(key, "out/") && puts.Add(1) == objects/4 {
			close(dead)
		}
		return ctx.Err()
	})
	j, err := jobs[4].Start(t.Context(), job.Spec{
		Kind: job.KindCopy, From: "s3://remote", To: "s3://remote", Prefix: "in/", Prepend: "out/", All: true, Workers: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	<-dead
	for _, id := range []core.NodeID{"n1", "n2"} { // n1 keeps the books
		tc.net.cutOff(id)
		defer tc.net.mend(id)
	}
	tc.bus.Fork(tc.clients["n1"], tc.clients["n2"])
	defer tc.bus.Rejoin(tc.clients["n1"], tc.clients["n2"])
	j = finish(t, jobs[2], j.Spec.ID)
	if b := j.Status.Books; j.Status.State != job.Done || b.Done.Objects != objects || b.Planned != b.Done || b.Failed.Objects+b.Skipped.Objects != 0 {
		t.Fatalf("got %+v", j.Status)
	}
	for key, data := range want {
		if got := f.data("out/" + key); string(got) != string(data) {
			t.Errorf("%s: %d bytes arrived of %d", key, len(got), len(data))
		}
	}
	t.Logf("%d uploads of %d objects", puts.Load(), objects)
}
