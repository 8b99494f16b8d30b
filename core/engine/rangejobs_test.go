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
	var jobs []*job.Manager
	tc, f, b := startRemoteOf(t, nodes, 1, hooks{node: with, made: func(n *engine.Node, b bus.Bus) {
		jobs = append(jobs, job.New(job.Options{Node: n, KV: b.Jobs(), Clock: clock{time.Now()}, Log: slog.New(slog.DiscardHandler)}))
	}})
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
		if speed := serial.Seconds() / took.Seconds(); speed < 2 { // far less than it is, for machines that are busy
			t.Errorf("%s: only %.2f times as fast as one lister", name, speed)
		}
		t.Logf("%s: %v, %.2f times as fast as one lister; %d calls of %d at the most", name, took, serial.Seconds()/took.Seconds(), calls, most)
		if calls > most {
			t.Errorf("%s: %d calls, want %d at the most", name, calls, most)
		}
	}
}
