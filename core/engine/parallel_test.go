package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/disk"
	"github.com/shoalstore/shoal/core/engine"
	"github.com/shoalstore/shoal/core/job"
	"github.com/shoalstore/shoal/core/vfs"
)

// slowFS is a disk of some bytes a second for the data of shards.
type slowFS struct {
	vfs.FS
	limit *rate.Limiter
}

func (s slowFS) slow(f vfs.File, err error, name string) (vfs.File, error) {
	if err != nil || !strings.Contains(name, "/data/") {
		return f, err
	}
	return slowFile{f, s.limit}, nil
}

func (s slowFS) Create(name string) (vfs.File, error) {
	f, err := s.FS.Create(name)
	return s.slow(f, err, name)
}

func (s slowFS) CreateDirect(name string) (vfs.File, error) {
	f, err := s.FS.CreateDirect(name)
	return s.slow(f, err, name)
}

func (s slowFS) Open(name string) (vfs.File, error) {
	f, err := s.FS.Open(name)
	return s.slow(f, err, name)
}

func (s slowFS) OpenReadWrite(name string) (vfs.File, error) {
	f, err := s.FS.OpenReadWrite(name)
	return s.slow(f, err, name)
}

type slowFile struct {
	vfs.File
	limit *rate.Limiter
}

func (f slowFile) pay(n int, err error) (int, error) {
	if n > 0 {
		_ = f.limit.WaitN(context.Background(), n)
	}
	return n, err
}

func (f slowFile) Read(p []byte) (int, error)               { return f.pay(f.File.Read(p)) }
func (f slowFile) ReadAt(p []byte, off int64) (int, error)  { return f.pay(f.File.ReadAt(p, off)) }
func (f slowFile) Write(p []byte) (int, error)              { return f.pay(f.File.Write(p)) }
func (f slowFile) WriteAt(p []byte, off int64) (int, error) { return f.pay(f.File.WriteAt(p, off)) }

// OSFile hides the file, past which nothing may be read.
func (slowFile) OSFile() *os.File { return nil }

// TestDisksInParallel copies a bucket on one disk and on three that are as
// slow: three are three times as fast.
func TestDisksInParallel(t *testing.T) {
	const (
		bandwidth = 4 << 20 // bytes a second and disk
		objects   = 120
		size      = 256 << 10
	)
	took := map[int]time.Duration{}
	for _, disks := range []int{1, 3} {
		var jobs *job.Manager
		var limits []*rate.Limiter
		tc := startClusterOf(t, 1, disks, hooks{
			disk: func(o *disk.Options) {
				l := rate.NewLimiter(rate.Inf, 1<<20)
				limits = append(limits, l)
				o.FS = slowFS{vfs.OS(), l}
			},
			made: func(n *engine.Node, b bus.Bus) {
				jobs = job.New(job.Options{Node: n, KV: b.Jobs(), Clock: clock{time.Now()}, Log: slog.New(slog.DiscardHandler)})
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := jobs.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		t.Cleanup(func() {
			cancel()
			wg.Wait()
		})

		o := tc.nodes[0].Objects()
		policy := core.Policy{Scheme: core.Scheme{}, Domain: core.DomainDisk, Inline: 4 << 10}
		from, err := o.CreateBucket(t.Context(), core.BucketName{Provider: core.Shoal, Name: "source"}, &policy, "")
		if err != nil {
			t.Fatal(err)
		}
		body := bytes.Repeat([]byte("slow"), size/4)
		var puts sync.WaitGroup
		for i := range objects {
			puts.Go(func() {
				if _, err := o.Put(t.Context(), from, fmt.Sprint("key", i), bytes.NewReader(body), core.PutOptions{Size: size}); err != nil {
					t.Error(err)
				}
			})
		}
		puts.Wait()
		for _, l := range limits {
			l.SetLimit(bandwidth)
		}
		// What a job takes that finds nothing is no matter of disks.
		took[disks] = copyTime(t, jobs, "", objects) - copyTime(t, jobs, "none", 0)
	}
	ratio := took[1].Seconds() / took[3].Seconds()
	t.Logf("%v on one disk, %v on three: %.2f times as fast", took[1], took[3], ratio)
	if ratio < 2 {
		t.Errorf("three disks are %.2f times as fast as one, want about 3", ratio)
	}
}

// copyTime is how long a copy of the objects with a prefix takes.
func copyTime(t *testing.T, jobs *job.Manager, prefix string, objects int64) time.Duration {
	t.Helper()
	began := time.Now()
	j, err := jobs.Start(t.Context(), job.Spec{Kind: job.KindCopy, From: "shoal://source", To: "shoal://target", Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	if j, err = jobs.Await(t.Context(), j.Spec.ID); err != nil {
		t.Fatal(err)
	}
	if j.Status.State != job.Done || j.Status.Books.Done.Objects != objects {
		t.Fatalf("got %+v", j.Status)
	}
	return time.Since(began)
}
