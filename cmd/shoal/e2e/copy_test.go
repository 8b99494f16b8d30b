package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/client"
)

// dataSet are objects that can be made again to compare with.
type dataSet struct {
	sizes map[string]int
	seeds map[string]uint64
}

// newDataSet plans n objects: most are small, one in eight is kept as shards,
// some are empty.
func newDataSet(rnd *rand.Rand, n int) *dataSet {
	d := &dataSet{sizes: map[string]int{}, seeds: map[string]uint64{}}
	for i := range n {
		name := fmt.Sprintf("dir-%d/object-%05d", i%7, i)
		size := 1 + rnd.IntN(16<<10)
		switch {
		case i%8 == 0:
			size = 130<<10 + rnd.IntN(400<<10)
		case i%101 == 0:
			size = 0
		}
		d.sizes[name], d.seeds[name] = size, rnd.Uint64()
	}
	return d
}

// amount is what the set holds, counted here.
func (d *dataSet) amount() api.Amount {
	var a api.Amount
	for _, n := range d.sizes {
		a = a.Add(api.Amount{Objects: 1, Bytes: int64(n)})
	}
	return a
}

// put stores the set.
func (d *dataSet) put(t *testing.T, k *client.Client, b core.BucketName) {
	t.Helper()
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(32)
	for name, size := range d.sizes {
		g.Go(func() error {
			_, err := k.Upload(ctx, b.Name, name, bytes.NewReader(fill(d.seeds[name], size)), int64(size), client.TransferOptions{})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatalf("put: %v", err)
	}
}

// compare reads the whole bucket and fails the test unless it holds the set and
// nothing else.
func (d *dataSet) compare(t *testing.T, k *client.Client, b core.BucketName) {
	t.Helper()
	got := names(t, k, b)
	for name, size := range got {
		if want, ok := d.sizes[name]; !ok || int64(want) != size {
			t.Errorf("%s lists %s of %d bytes, want %d (%t)", b, name, size, want, ok)
		}
	}
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(16)
	var bad atomic.Int64
	for name, size := range d.sizes {
		if _, ok := got[name]; !ok {
			t.Errorf("%s does not list %s", b, name)
		}
		g.Go(func() error {
			data, err := body(ctx, k, b.Name, name)
			if err != nil || !bytes.Equal(data, fill(d.seeds[name], size)) {
				if bad.Add(1) <= 20 {
					t.Errorf("%s/%s: got %d bytes that are not the %d put, or %v", b, name, len(data), size, err)
				}
			}
			return nil
		})
	}
	_ = g.Wait()
}

// TestCopyWhileNodeDies kills a node in the middle of a copy: the one that the
// client has started the job at, the one that leads the bus, and any. The job
// ends by itself, its books balance, and every object is equal.
func TestCopyWhileNodeDies(t *testing.T) {
	rnd := newRand(t)
	c := startCluster(t, 5, 3)
	src := c.bucket("source", "mirror-2")
	set := newDataSet(rnd, 1200)
	k := c.client("n2")
	set.put(t, k, src)
	if s, err := k.Summary(t.Context(), src, client.SummaryOptions{}); err != nil || s.Present != set.amount() {
		t.Fatalf("before: got %+v, %v, want %+v", s.Present, err, set.amount())
	}
	for i, victim := range []struct {
		name   string
		choose func() string
	}{
		{"client's node", func() string { return "n1" }},
		{"leader of the bus", c.leader},
		{"any node", func() string { return pick(rnd, c.nodes) }},
	} {
		t.Run(victim.name, func(t *testing.T) {
			dst := c.bucket(fmt.Sprintf("copy-%d", i), "ec-3+1")
			killed := victim.choose()
			first := killed
			if i == 2 {
				first = pick(rnd, c.nodes)
			}
			c.copyAndKill(t, src, dst, set, killed, first, 20+rnd.IntN(50))
			set.compare(t, k, dst)
			c.start(killed)
			t.Logf("healthy %s after the node was back", c.waitHealthy(2*time.Minute))
			set.compare(t, c.client(killed), dst)
		})
	}
	set.compare(t, k, src)
	if out, err := c.shoal("", "show", "job", "copy-bck", "--all", "--timeout", "20"); err != nil || strings.Count(out, "copy-bck-") < 3 {
		t.Errorf("show job copy-bck: got %v, want the three jobs:\n%s", err, out)
	}
	if _, err := k.Job(t.Context(), "nobody-has-this"); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("a job that does not exist: got %v, want not found", err)
	}
}

// copyAndKill copies with a client that prefers the node first and kills a node
// when so many percent are done. The job must end well within two minutes.
func (c *cluster) copyAndKill(t *testing.T, src, dst core.BucketName, set *dataSet, killed, first string, percent int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	k := c.client(first)
	start := time.Now()
	j, err := k.StartJob(ctx, api.JobSpec{Kind: "copy-bck", From: src.String(), To: dst.String(), ClientToken: dst.Name})
	if err != nil {
		t.Fatalf("start the copy: %v", err)
	}
	var once sync.Once
	want := set.amount()
	var at int64 = -1
	j, err = k.WatchJob(ctx, j.ID, 50*time.Millisecond, func(j api.Job) {
		if j.Done.Objects*100 >= want.Objects*int64(percent) && !j.State.Ended() {
			once.Do(func() {
				at = j.Done.Objects
				c.kill(killed)
			})
		}
	})
	if err != nil {
		t.Fatalf("the copy did not end within two minutes after %s was killed at %d objects: %v", killed, at, err)
	}
	if at < 0 {
		t.Fatalf("the copy ended before %s could be killed", killed)
	}
	t.Logf("%s killed at %d of %d objects (%d %% asked for), job %s after %s", killed, at, want.Objects, percent, j.State, since(start))
	if j.State != api.JobDone {
		t.Errorf("job is %s, want done: %s", j.State, j.Message)
	}
	if err := balance(j); err != nil {
		t.Error(err)
	}
	if *j.Planned != want || j.Done.Add(j.Skipped) != want || j.Failed.Objects != 0 {
		t.Errorf("books: planned %+v, done %+v, skipped %+v, failed %+v; want %+v, counted before", *j.Planned, j.Done, j.Skipped, j.Failed, want)
	}
}
