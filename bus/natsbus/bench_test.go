package natsbus

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoalstore/shoal/bus"
)

// BenchmarkCompareAndSet writes an 80 KiB map, as of a cluster with 4,096
// slots, one write after another.
func BenchmarkCompareAndSet(b *testing.B) {
	for _, n := range []int{1, 3, 5} {
		b.Run(fmt.Sprintf("coordinators=%d", n), func(b *testing.B) {
			p := newProcesses(b, n)
			p.start(p.names()...)
			p.follow(1, p.names()...)
			c := p.client("writer")
			ctx := b.Context()
			if err := c.Import(within(b, time.Minute), bus.Snapshot{}, n); err != nil {
				b.Fatal(err)
			}
			value := make([]byte, 80<<10)
			rev, err := c.Map().Create(ctx, value)
			if err != nil {
				b.Fatal(err)
			}
			var took []time.Duration
			for b.Loop() {
				began := time.Now()
				if rev, err = c.Map().CompareAndSet(ctx, value, rev); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(took[len(took)/2].Seconds()*1000, "p50-ms")
			b.ReportMetric(took[len(took)*99/100].Seconds()*1000, "p99-ms")
		})
	}
}

// BenchmarkWatch measures the time from a write's acknowledgement until
// another node's watch has the value.
func BenchmarkWatch(b *testing.B) {
	p := newProcesses(b, 3)
	p.start(p.names()...)
	p.follow(1, p.names()...)
	c, w := p.client("writer"), p.client("watcher")
	ctx := b.Context()
	if err := c.Import(within(b, time.Minute), bus.Snapshot{}, 3); err != nil {
		b.Fatal(err)
	}
	rev, err := c.Map().Create(ctx, []byte("0"))
	if err != nil {
		b.Fatal(err)
	}
	seen := make(chan string, 16)
	go func() {
		for v := range w.Map().Watch(ctx) {
			seen <- string(v)
		}
	}()
	<-seen
	var took []time.Duration
	for n := 1; b.Loop(); n++ {
		if rev, err = c.Map().CompareAndSet(ctx, []byte(strconv.Itoa(n)), rev); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		for v := <-seen; v != strconv.Itoa(n); v = <-seen {
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds()*1000, "p50-ms")
	b.ReportMetric(took[len(took)*99/100].Seconds()*1000, "p99-ms")
}

// TestMemory prints what a coordinator's process takes, idle and after ten
// thousand writes.
func TestMemory(t *testing.T) {
	if os.Getenv("SHOAL_TEST_MEASURE") == "" {
		t.Skip("set SHOAL_TEST_MEASURE=1 to measure")
	}
	p := newProcesses(t, 3)
	p.start(p.names()...)
	p.follow(1, p.names()...)
	c := p.client("writer")
	if err := c.Import(within(t, time.Minute), bus.Snapshot{}, 3); err != nil {
		t.Fatal(err)
	}
	rss := func(when string) {
		_ = wallClock{}.Wait(t.Context(), 5*time.Second)
		for name, r := range p.running {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(b)) {
				if strings.HasPrefix(line, "VmRSS") {
					t.Logf("%s: %s %s", when, name, strings.TrimSpace(line))
				}
			}
		}
	}
	rss("idle")
	value := make([]byte, 80<<10)
	rev, err := c.Map().Create(t.Context(), value)
	for range 3000 {
		if err != nil {
			t.Fatal(err)
		}
		rev, err = c.Map().CompareAndSet(t.Context(), value, rev)
	}
	rss("after 3000 maps")
	for i := range 3000 {
		if _, err := c.Jobs().Create(t.Context(), fmt.Sprintf("spec.j%d", i), value[:1024]); err != nil {
			t.Fatal(err)
		}
	}
	rss("after 3000 jobs")
	began := time.Now()
	l, err := c.Jobs().List(t.Context(), "")
	t.Logf("list of %d: %v, %v", len(l), time.Since(began), err)
}
