package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/shoalstore/shoal/cmd/shoal/internal/devcluster"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// load is what clients do all the time.
type load struct {
	calls, failed atomic.Int64
	stop          func()
}

// startLoad has workers write, read and list through all nodes, with the SDK's
// standard retries. Calls that fail fail the test, until the load is stopped.
func startLoad(c *cluster, bucket string, workers int, rnd *rand.Rand) *load {
	l := &load{}
	ctx, cancel := context.WithCancel(c.t.Context())
	var wg sync.WaitGroup
	for w := range workers {
		rnd := rand.New(rand.NewPCG(rnd.Uint64(), uint64(w)))
		var nodes []*s3.Client
		for _, n := range c.nodes {
			nodes = append(nodes, c.s3(n, 30*time.Second, 2))
		}
		wg.Go(func() {
			last := map[string]uint64{}
			for n := uint64(0); ctx.Err() == nil; n++ {
				at := rnd.IntN(len(nodes))
				prefix := fmt.Sprintf("worker-%d/", w)
				what := fmt.Sprintf("%skey-%02d", prefix, rnd.IntN(20))
				began := time.Now()
				var err error
				if n%8 == 7 {
					what, err = prefix, wantListed(ctx, nodes[at], bucket, prefix, len(last))
				} else {
					err = rollingCall(ctx, nodes[at], bucket, what, last, uint64(w)<<32|n)
				}
				if ctx.Err() != nil {
					return
				}
				l.calls.Add(1)
				if err != nil && l.failed.Add(1) <= 10 {
					c.t.Errorf("%s through %s after %s: %v", what, c.nodes[at], since(began), err)
				}
			}
		})
	}
	l.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	c.t.Cleanup(l.stop)
	return l
}

func wantListed(ctx context.Context, k *s3.Client, bucket, prefix string, want int) error {
	out, err := k.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: &prefix})
	if err == nil && len(out.Contents) != want {
		err = fmt.Errorf("%d keys are listed, want %d", len(out.Contents), want)
	}
	return err
}

// TestChange takes one node into maintenance and another out of the cluster for
// good while clients write, read and list and jobs copy: one that runs when it
// begins and one that starts in its midst. Nothing fails. Then a node is killed,
// which show performance shows.
func TestChange(t *testing.T) {
	rnd := newRand(t)
	// While clients are served rows change a few at a time, however many there are.
	c := startPlan(t, os.Getenv(binVar), devcluster.Plan{Nodes: 5, Disks: 1, Slots: 1024})
	k := c.client("")
	from, load := c.bucket("from", "mirror-2"), c.bucket("load", "mirror-2")
	var to []core.BucketName
	for i := range 2 {
		to = append(to, c.bucket(fmt.Sprint("copy-", i), "ec-2+1"))
	}
	set := newDataSet(rnd, 200)
	set.put(t, k, from)
	c.must("gen-shards", "shoal://tars/shard-{01..04}.tar", "--fsize", "3KiB", "--fcount", "4")
	if got := names(t, k, core.BucketName{Provider: core.Shoal, Name: "tars"}); len(got) != 4 || got["shard-03.tar"] < 4*3<<10 {
		t.Errorf("gen-shards made %v", got)
	}
	c.wantCompletions()

	clients := startLoad(c, load.Name, 3, rnd)
	start := func(i int) string {
		return strings.TrimSpace(c.must("start", "copy-bck", from.String(), to[i].String(), "--rate-limit", "40"))
	}
	began := time.Now()
	first := start(0)
	c.must("cluster", "maintenance", "start", "n2")
	second := start(1)
	c.awaitNode("n2", core.NodeMaintenance)
	t.Logf("in maintenance after %s, %d calls", since(began), clients.calls.Load())
	c.must("cluster", "maintenance", "stop", "n2")
	c.must("cluster", "decommission", "n5", "--yes")
	c.awaitNode("n5", core.NodeDecommissioned)
	t.Logf("decommissioned after %s, %d calls", since(began), clients.calls.Load())
	for i, id := range []string{first, second} {
		c.must("wait", id, "--timeout", "90")
		var j api.Job
		if err := json.Unmarshal([]byte(c.must("show", "job", id, "--json")), &j); err != nil {
			t.Fatal(err)
		}
		if err := balance(j); err != nil || j.State != api.JobDone || j.Done != set.amount() {
			t.Errorf("job %d is %s: done %+v of %+v, %v", i, j.State, j.Done, set.amount(), err)
		}
	}
	c.waitHealthy(60 * time.Second)
	t.Logf("healthy after %s, %d calls", since(began), clients.calls.Load())
	for _, b := range to {
		set.compare(t, k, b)
	}
	if n := clients.failed.Load(); n > 0 {
		t.Errorf("%d of %d calls failed", n, clients.calls.Load())
	}
	clients.stop()
	c.dip(load.Name, "n3")
}

// awaitNode waits until a node has that state and owns nothing.
func (c *cluster) awaitNode(node string, want core.NodeState) {
	c.t.Helper()
	k := c.client("n1")
	poll(c.t, 60*time.Second, node+" "+string(want), func(ctx context.Context) error {
		n, err := k.Node(ctx, core.NodeID(node))
		if err == nil && (n.State != want || n.Slots > 0) {
			err = fmt.Errorf("it is %s and owns %d slots", n.State, n.Slots)
		}
		return err
	})
}

// wantCompletions asks the shell completion for what only the cluster knows.
func (c *cluster) wantCompletions() {
	c.t.Helper()
	for _, v := range []struct {
		args []string
		want string
	}{
		{[]string{"start", ""}, "copy-bck"},
		{[]string{"ls", "shoal://"}, "//tars"},
		{[]string{"show", "node", ""}, "n4"},
		{[]string{"disk", "detach", ""}, "n3/d1"},
	} {
		if out := c.must(append([]string{"__complete"}, v.args...)...); !strings.Contains(out, v.want) {
			c.t.Errorf("completion of %q: %q is not in %q", v.args, v.want, out)
		}
	}
}

// dip kills a node under load and reads off show performance that the cluster
// did less for some seconds, and then as much as before.
func (c *cluster) dip(bucket, node string) {
	c.t.Helper()
	k := c.s3("n1", 30*time.Second, 0)
	ctx, cancel := context.WithCancel(c.t.Context())
	var wg sync.WaitGroup
	defer func() { cancel(); wg.Wait() }()
	for w := range 4 {
		wg.Go(func() {
			for n := uint64(0); ctx.Err() == nil; n++ {
				_ = rollingCall(ctx, k, bucket, fmt.Sprintf("dip-%d/%d", w, n%50), map[string]uint64{}, n) // some fail meanwhile
			}
		})
	}
	performance := func() (p api.Performance) {
		c.t.Helper()
		if err := json.Unmarshal([]byte(c.must("show", "performance", "--json", "--endpoint", c.urls["n1"])), &p); err != nil {
			c.t.Fatal(err)
		}
		return p
	}
	// rates are the operations per second of the whole seconds from that time
	// on, newest last.
	rates := func(p api.Performance, from time.Time) (out []float64) {
		for _, s := range p.Total.Series {
			if s.Time.After(from) && s.Time.Before(p.Time.Add(-time.Second)) {
				out = append(out, s.Ops)
			}
		}
		return out
	}
	var usual float64
	begin := time.Now()
	poll(c.t, 30*time.Second, "some seconds of load", func(context.Context) error {
		r := rates(performance(), begin)
		if len(r) < 5 {
			return errors.New("too few points")
		}
		slices.Sort(r)
		usual = r[len(r)/2]
		return nil
	})
	killed := time.Now()
	c.kill(node)
	poll(c.t, 60*time.Second, "a dip in the performance and its end", func(context.Context) error {
		p := performance()
		r := rates(p, killed)
		if len(r) == 0 || usual == 0 {
			return errors.New("no points")
		}
		low := slices.Index(r, slices.Min(r))
		if r[low] > usual/2 || slices.Max(r[low:]) < usual/2 {
			return fmt.Errorf("usually %.0f operations a second, now %.0f", usual, r)
		}
		c.t.Logf("usually %.0f operations a second, after the kill %.0f", usual, r)
		return nil
	})
}
