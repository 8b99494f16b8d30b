package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

// failOver kills a node again and again and measures for how long some key
// could not be written.
func (b *bench) failOver(ctx context.Context) error {
	b.line("## Fail-over\n")
	return b.withCluster(ctx, 5, 3, func(c *cluster, _ string) error {
		if _, err := c.run(ctx, "bucket", "create", "shoal://fail", "--props", "scheme=mirror-3"); err != nil {
			return err
		}
		var times, leader []float64
		for i := range b.o.kills {
			if _, err := c.run(ctx, "cluster", "wait", "--healthy", "--timeout", "120s"); err != nil {
				return err
			}
			node := fmt.Sprintf("n%d", i%5+1)
			led, err := c.natsLeader(ctx)
			if err != nil {
				return err
			}
			if _, err := c.run(ctx, "dev", "kill", node, "--name", c.name); err != nil {
				return err
			}
			d, err := writable(ctx, c, i%5)
			if err != nil {
				return err
			}
			if led == node {
				leader = append(leader, d.Seconds())
			} else {
				times = append(times, d.Seconds())
			}
			if _, err := c.run(ctx, "dev", "start", node, "--name", c.name); err != nil {
				return err
			}
		}
		b.line("kill -9 of each node in turn, until each of 200 keys could be written again:\n")
		b.line("| killed | times | median | worst | target |")
		b.line("| --- | ---: | ---: | ---: | ---: |")
		for _, row := range []struct {
			what, goal string
			t          []float64
		}{{"a node", "<= 15 s", times}, {"the bus's leader", "<= 25 s", leader}} {
			if len(row.t) > 0 {
				b.line("| %s | %d | %.1f s | %.1f s | %s |", row.what, len(row.t), median(row.t), slices.Max(row.t), row.goal)
			}
		}
		b.line("")
		return nil
	})
}

// writable waits until 200 keys, spread over the slots, could be written.
func writable(ctx context.Context, c *cluster, dead int) (time.Duration, error) {
	endpoints := slices.Delete(slices.Clone(c.endpoints), dead, dead+1)
	s := newSide("shoal", "fail", endpoints...)
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	var once sync.Once
	var failed error
	for k := range 200 {
		wg.Go(func() {
			for {
				_, err := s.do(ctx, http.MethodPut, fmt.Sprintf("k%d", k), []byte("x"))
				if err == nil {
					return
				}
				if ctx.Err() != nil {
					once.Do(func() { failed = err })
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began), failed
}
