package e2e_test

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/shoalstore/shoal/cmd/shoal/internal/devcluster"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/cloudtest"
)

// TestListInParallel has five nodes list 200,000 keys of a server that takes 50 ms for
// each page: they count every key once, in at most 1.1 times the pages and 16 calls.
// How much faster than one lister they are is logged; four times at least is asked for
// with SHOAL_E2E_LONG only, since processes that wait for processors are slow: see
// TestRangeSpeed of core/job, whose time is virtual.
func TestListInParallel(t *testing.T) {
	const n, page, pageTime = 200_000, 1000, 50 * time.Millisecond
	measured := os.Getenv(longVar) != ""
	buckets := map[string][]string{}
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
		for i := range n {
			buckets[name] = append(buckets[name], key(i))
		}
		slices.Sort(buckets[name])
	}
	server := cloudtest.ServeLists(t, pageTime, buckets)
	c := startPlan(t, os.Getenv(binVar), devcluster.Plan{Nodes: 5, Disks: 1, Backends: []devcluster.Backend{{Provider: "s3", URL: server.URL()}}},
		"AWS_ACCESS_KEY_ID=anyone", "AWS_SECRET_ACCESS_KEY=anything", "AWS_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true")
	for name, keys := range buckets {
		want := api.Amount{Objects: n}
		for _, k := range keys {
			want.Bytes += int64(len(k))
		}
		tries := 1
		if measured {
			tries = 3 // the machine may be busy for a moment
		}
		best := 0.0
		for range tries {
			server.Took(name)
			j := c.job("start", "prefetch", "s3://"+name, "--dry-run", "--progress")
			calls, took := server.Took(name)
			if j.Planned == nil || *j.Planned != want {
				t.Errorf("%s: planned %+v, want %+v", name, j.Planned, want)
			}
			if most := n/page*11/10 + 16; calls > most {
				t.Errorf("%s: %d calls, want %d at the most", name, calls, most)
			}
			speed := float64(n/page) * pageTime.Seconds() / took.Seconds()
			t.Logf("%s: %v, %.1f times as fast as one lister at its best, %d calls", name, took, speed, calls)
			if best = max(best, speed); best >= 4 {
				break
			}
		}
		if measured && best < 4 {
			t.Errorf("%s: only %.2f times as fast as one lister", name, best)
		}
	}
}
