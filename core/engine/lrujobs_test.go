package engine_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
	"github.com/shoalstore/shoal/core/job"
)

// fullness is how full the disks of a test are: what of a bucket is on them, and a
// capacity.
type fullness struct {
	node     atomic.Pointer[engine.Node]
	bucket   atomic.Pointer[core.Bucket]
	capacity atomic.Int64
}

func (u *fullness) usage(ctx context.Context) ([]job.DiskUse, error) {
	n, b := u.node.Load(), u.bucket.Load()
	if n == nil || b == nil {
		return nil, errors.New("not known yet")
	}
	on, err := onDisks(ctx, n, *b)
	var out []job.DiskUse
	for d, bytes := range on {
		out = append(out, job.DiskUse{Disk: d, Capacity: u.capacity.Load(), Used: bytes})
	}
	return out, err
}

// onDisks adds up what each disk has of a bucket: everything is mirrored on two of three.
func onDisks(ctx context.Context, n *engine.Node, b core.Bucket) (map[core.DiskID]int64, error) {
	out := map[core.DiskID]int64{}
	all, err := records(ctx, n, b)
	for key, rec := range all {
		for d, bytes := range n.BytesOnDisks(n.SlotOf(b.ID, key), rec) {
			out[d] += bytes
		}
	}
	return out, err
}

// records are those of all objects that are present.
func records(ctx context.Context, n *engine.Node, b core.Bucket) (map[string]*core.Record, error) {
	out := map[string]*core.Record{}
	var err error
	n.ListAll(ctx, b, "", "", true, func(key string, _ *core.Record, e error) bool {
		if err = e; e != nil {
			return false
		}
		row, e := n.Row(ctx, n.SlotOf(b.ID, key), core.RowKey{Bucket: b.ID, Space: core.SpaceObject, Key: key})
		if errors.Is(e, core.ErrNotFound) {
			return true // it went meanwhile
		}
		if err = e; e == nil {
			out[key], err = core.DecodeRecord(row.Value)
		}
		return err == nil
	})
	return out, err
}

// setLRU lets a bucket's copies go by themselves.
func setLRU(t *testing.T, tc *testCluster, b core.Bucket) {
	t.Helper()
	if _, err := tc.nodes[0].Objects().SetBucket(t.Context(), b.ID, func(b *core.Bucket) { b.Policy.LRU = true }); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "all nodes to know", func() error {
		for _, n := range tc.nodes {
			if !n.Map().Bucket(b.ID).Policy.LRU {
				return errors.New("one does not")
			}
		}
		return nil
	})
}

// TestLRU: copies that were not used for longest go, down to the low watermark, of
// buckets that allow it, and nothing goes that is the only copy.
func TestLRU(t *testing.T) {
	u := &fullness{}
	// One node, whose part is all of it, keeps exactly to the order.
	tc, f, b, jobs := startJobsOf(t, 1, nil, job.Options{Space: job.Space{Low: 0.5, Usage: u.usage}})
	const objects = 90
	now := time.Now()
	for i := range objects {
		f.set(fmt.Sprintf("k%02d", i), remoteBytes(uint64(i), fakeBlock+i%2*fakeBlock))
	}
	f.set("small", []byte("beside its record"))
	wantBooks(t, runJob(t, jobs, job.Spec{Kind: job.KindPrefetch, From: "s3://remote"}), objects+1, 0, 0)
	n := tc.nodes[0]
	for _, n := range tc.nodes {
		engine.Used(n, b.ID, "small", time.Time{}) // nobody knows
		for i := range objects {
			engine.Used(n, b.ID, fmt.Sprintf("k%02d", i), now.Add(-time.Duration(i)*time.Minute))
		}
	}
	before, err := onDisks(t.Context(), n, b)
	if err != nil || len(before) != 3 {
		t.Fatalf("on %d disks: %v", len(before), err)
	}
	var most int64
	for _, bytes := range before {
		most = max(most, bytes)
	}
	u.capacity.Store(most)
	u.node.Store(n)
	u.bucket.Store(&b)
	own, err := n.Objects().CreateBucket(t.Context(), core.BucketName{Provider: core.Shoal, Name: "own"}, &core.Policy{Scheme: core.Mirror(2), Domain: core.DomainDisk, ETag: "md5"}, "")
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the bucket to be open", func() error {
		if b, err := n.Objects().Bucket(t.Context(), "own"); err != nil || b.State != core.BucketOK {
			return fmt.Errorf("it is %s, %w", b.State, err)
		}
		return nil
	})
	putBody(t, n.Objects(), own, "key", 4*fakeBlock)
	if j, err := jobs[0].Start(t.Context(), job.Spec{Kind: job.KindLRU, From: own.Name.String()}); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("of a bucket of the cluster's own: %+v, %v", j.Status, err)
	}
	wantBooks(t, runJob(t, jobs, job.Spec{Kind: job.KindLRU}), 0, 0, 0) // the bucket does not allow it
	setLRU(t, tc, b)
	dry := runJob(t, jobs, job.Spec{Kind: job.KindLRU, DryRun: true})
	j := runJob(t, jobs, job.Spec{Kind: job.KindLRU})
	gone := j.Status.Books.Done.Objects
	if j.Status.State != job.Done || gone < objects/3 || gone > objects*2/3 || *j.Status.Planned != j.Status.Books.Done {
		t.Errorf("got %+v", j.Status)
	}
	if dry.Status.Planned == nil || dry.Status.Planned.Objects != gone {
		t.Errorf("a dry run counted %+v, %d objects went", dry.Status.Planned, gone)
	}
	after, err := onDisks(t.Context(), n, b)
	if err != nil {
		t.Fatal(err)
	}
	for d, bytes := range after {
		if limit := most / 2; bytes > limit {
			t.Errorf("disk %d has %d bytes, want %d at the most", d, bytes, limit)
		}
		if bytes < most/5 { // it goes down with others that are fuller
			t.Errorf("disk %d has %d bytes of %d", d, bytes, before[d])
		}
	}
	left, err := records(t.Context(), n, b)
	if err != nil || int64(len(left)) != objects+1-gone {
		t.Fatalf("%d objects are present, %v", len(left), err)
	}
	for i := range objects / 4 {
		if left[fmt.Sprintf("k%02d", i)] == nil {
			t.Errorf("k%02d is gone, used %d minutes ago", i, i)
		}
		if key := fmt.Sprintf("k%02d", objects-1-i); left[key] != nil {
			t.Errorf("%s is present, unused for %d minutes", key, objects-1-i)
		}
	}
	if left["small"] == nil {
		t.Error("what counts as used since the node began is gone")
	}
	wantBooks(t, runJob(t, jobs, job.Spec{Kind: job.KindEvict, From: "s3://remote"}), int64(len(left)), 0, 0)
	if rec := present(t, n, own, "key"); rec == nil {
		t.Error("an only copy is gone")
	}
	if f.count("delete", "put") > 0 {
		t.Error("the remote was changed")
	}
}

// TestLRUByItself: a disk at its high watermark has an eviction start, and one below it
// does not.
func TestLRUByItself(t *testing.T) {
	u := &fullness{}
	tc, f, b, jobs := startJobsOf(t, 3, nil, job.Options{Space: job.Space{Low: 0.5, High: 0.9, Every: 20 * time.Millisecond, Usage: u.usage}})
	for i := range 30 {
		f.set(fmt.Sprint("k", i), remoteBytes(uint64(i), fakeBlock))
	}
	wantBooks(t, runJob(t, jobs, job.Spec{Kind: job.KindPrefetch, From: "s3://remote"}), 30, 0, 0)
	setLRU(t, tc, b)
	before, err := onDisks(t.Context(), tc.nodes[0], b)
	if err != nil {
		t.Fatal(err)
	}
	var most int64
	for _, bytes := range before {
		most = max(most, bytes)
	}
	u.capacity.Store(most * 5 / 4) // 80 %
	u.node.Store(tc.nodes[0])
	u.bucket.Store(&b)
	started := func() (out []job.Job) {
		for _, m := range jobs {
			list, err := m.List(t.Context(), func(s *job.Spec, _ *job.Status) bool { return s.Kind == job.KindLRU })
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, list...)
		}
		return out
	}
	wantBooks(t, runJob(t, jobs, job.Spec{Kind: job.KindScrub, From: "s3://remote"}), 30, 0, 0) // many looks long
	if l := started(); len(l) > 0 {
		t.Fatalf("%d evictions of disks that are not full", len(l))
	}
	u.capacity.Store(most)
	waitFor(t, "an eviction to start", func() error {
		if len(started()) == 0 {
			return errors.New("there is none")
		}
		return nil
	})
	if j := finish(t, jobs[0], started()[0].Spec.ID); j.Status.State != job.Done || j.Status.Books.Done.Objects < 10 {
		t.Errorf("got %+v", j.Status)
	}
}
