package natsbus

import (
	"fmt"
	"sort"
	"testing"
	"time"

	"github.com/shoalstore/shoal/bus"
)

func TestFirst(t *testing.T) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t0 := time.Now()
			b := newTestBus(t, n)
			b.start()
			t.Log("started", time.Since(t0))
			c := b.client("c")
			ctx := within(t, 60*time.Second)
			if err := c.WaitConnected(ctx); err != nil {
				t.Fatal(err)
			}
			t.Log("connected", time.Since(t0))
			if err := c.Import(ctx, bus.Snapshot{}, n); err != nil {
				t.Fatal(err)
			}
			t.Log("imported", time.Since(t0))
			v := make([]byte, 80<<10)
			rev, err := c.Map().Create(ctx, v)
			if err != nil {
				t.Fatal(err)
			}
			var d []time.Duration
			for range 300 {
				t1 := time.Now()
				rev, err = c.Map().CompareAndSet(ctx, v, rev)
				if err != nil {
					t.Fatal(err)
				}
				d = append(d, time.Since(t1))
			}
			sort.Slice(d, func(i, j int) bool { return d[i] < d[j] })
			t.Log(n, "cas p50", d[150], "p99", d[297])
			t0 = time.Now()
			for _, m := range b.members {
				b.stop(m.Name)
			}
			t.Log("stopped", time.Since(t0))
		})
	}
}
