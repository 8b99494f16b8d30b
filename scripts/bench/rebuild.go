package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// grace is how long a cluster waits for a node that is down; see
// docs/operations.md.
const grace = 60 * time.Second

// clusterView is what these sections read of `shoal show cluster --json`.
type clusterView struct {
	UnderReplicated struct {
		Objects, Bytes int64
	} `json:"under_replicated"`
	Rebalance struct {
		State string
	}
}

func (c *cluster) view(ctx context.Context) (v clusterView, err error) {
	out, err := c.run(ctx, "show", "cluster", "--json", "--timeout", "10")
	if err != nil {
		return v, err
	}
	return v, json.Unmarshal(out, &v)
}

// busy says whether data is still to be built or moved.
func (v *clusterView) busy() bool {
	return v.UnderReplicated.Objects > 0 || v.Rebalance.State != "idle"
}

// atRest waits until a cluster has been idle for a while after a time, and
// returns when it came to be so.
func (c *cluster) atRest(ctx context.Context, notBefore time.Time) (time.Time, error) {
	const quiet = 4 * time.Second
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	since := time.Time{}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		v, err := c.view(ctx)
		now := time.Now()
		switch {
		case err != nil || v.busy():
			since = time.Time{}
		case since.IsZero():
			since = now
		}
		if !since.IsZero() && now.After(notBefore) && now.Sub(since) > quiet {
			return since, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("the cluster does not come to rest: %w", errors.Join(err, context.Cause(ctx)))
		}
	}
}

// used counts what the nodes' directories take on the disk, as du does.
func used(nodes ...nodeStatus) (bytes int64, err error) {
	for _, n := range nodes {
		for _, d := range n.Disks {
			err := filepath.WalkDir(d.Path, func(_ string, e fs.DirEntry, err error) error {
				if errors.Is(err, fs.ErrNotExist) {
					return nil // files come and go
				}
				if err != nil {
					return err
				}
				info, err := e.Info()
				if errors.Is(err, fs.ErrNotExist) {
					return nil
				}
				if err == nil {
					if st, ok := info.Sys().(*syscall.Stat_t); ok {
						bytes += st.Blocks * 512
					}
				}
				return err
			})
			if err != nil {
				return 0, err
			}
		}
	}
	return bytes, nil
}

// load is a data set of the failure sections.
type load struct {
	objects int
	size    int
}

func (l load) String() string { return fmt.Sprintf("%d x %s", l.objects, sizeName(l.size)) }

// filled runs f on five nodes that hold a data set under ec-3+1.
func (b *bench) filled(ctx context.Context, l load, f func(c *cluster, s *side) error) error {
	return b.withCluster(ctx, 5, 3, func(c *cluster, _ string) error {
		if _, err := c.run(ctx, "bucket", "create", "shoal://data", "--props", "scheme=ec-3+1"); err != nil {
			return err
		}
		s := newSide("shoal", "data", c.endpoints...)
		if err := fillWide(ctx, s, l); err != nil {
			return err
		}
		if _, err := c.atRest(ctx, time.Time{}); err != nil {
			return err
		}
		return f(c, s)
	})
}

// fillWide is fill with as many writers as the size bears.
func fillWide(ctx context.Context, s *side, l load) error {
	if l.size <= 1<<20 {
		return fill(ctx, s, l.objects, payload(l.size))
	}
	body := payload(l.size)
	for k := range l.objects {
		if _, err := s.do(ctx, http.MethodPut, keyOf(k), body); err != nil {
			return err
		}
	}
	return nil
}

// rebuild measures the return of redundancy after one of five nodes is gone.
func (b *bench) rebuild(ctx context.Context) error {
	b.line("## Full redundancy after the loss of one of five nodes\n")
	b.line("ec-3+1, records on three disks. From kill -9 the cluster waits 60 s for the node; then what it held is built again on the others. What must move is what the lost node's disks held, what did move is what the others' have grown by (both by du, WAL and indexes included).\n")
	b.line("| data | user bytes | lost with the node | grown elsewhere | ratio | full after the grace |")
	b.line("| --- | ---: | ---: | ---: | ---: | ---: |")
	for _, l := range []load{{10_000, 64 << 10}, {b.o.large, 16 << 20}} {
		err := b.filled(ctx, l, func(c *cluster, _ *side) error {
			nodes := c.status(ctx)
			last := len(nodes) - 1
			lost, err := used(nodes[last])
			if err != nil {
				return err
			}
			before, err := used(nodes[:last]...)
			if err != nil {
				return err
			}
			killed := time.Now()
			if _, err := c.run(ctx, "dev", "kill", nodes[last].Node, "--name", c.name); err != nil {
				return err
			}
			end, err := c.atRest(ctx, killed.Add(grace+10*time.Second))
			if err != nil {
				return err
			}
			after, err := used(nodes[:last]...)
			if err != nil {
				return err
			}
			grown := after - before
			b.line("| %v | %s | %s | %s | %.2f | %.1f s |", l, mib(int64(l.objects*l.size)), mib(lost), mib(grown), float64(grown)/float64(lost), (end.Sub(killed) - grace).Seconds())
			return nil
		})
		if err != nil {
			return err
		}
	}
	b.line("")
	return nil
}

// resync measures what a node that was away for 30 s has to catch up with.
func (b *bench) resync(ctx context.Context) error {
	b.line("## A node back after 30 s\n")
	return b.filled(ctx, load{10_000, 64 << 10}, func(c *cluster, s *side) error {
		nodes := c.status(ctx)
		last := nodes[len(nodes)-1]
		full, err := used(last)
		if err != nil {
			return err
		}
		if _, err := c.run(ctx, "dev", "kill", last.Node, "--name", c.name); err != nil {
			return err
		}
		s.endpoints = slices.Delete(slices.Clone(s.endpoints), len(nodes)-1, len(nodes))
		killed := time.Now()
		wrote := 0
		for time.Since(killed) < 30*time.Second {
			if _, err := s.do(ctx, http.MethodPut, fmt.Sprintf("away-%d", wrote), payload(64<<10)); err == nil {
				wrote++
			}
		}
		began := time.Now()
		if _, err := c.run(ctx, "dev", "start", last.Node, "--name", c.name); err != nil {
			return err
		}
		if _, err := c.run(ctx, "cluster", "wait", "--healthy", "--timeout", "120"); err != nil {
			return err
		}
		took := time.Since(began)
		after, err := used(last)
		if err != nil {
			return err
		}
		b.line("%d objects of 64 KiB were written while it was away. Healthy again %.1f s after its start; its disks grew by %s, of %s that a full copy would take.\n", wrote, took.Seconds(), mib(after-full), mib(full))
		return nil
	})
}

// latency measures reads at a fixed load, quiet and while data moves.
func (b *bench) latency(ctx context.Context) error {
	b.line("## GET at 30 %% load, quiet and while data moves\n")
	l := load{10_000, 64 << 10}
	return b.filled(ctx, l, func(c *cluster, s *side) error {
		get := func(k int) error {
			_, err := s.do(ctx, http.MethodGet, keyOf(k%l.objects), nil)
			return err
		}
		most, err := closedLoop(ctx, 16, 5*time.Second, get)
		if err != nil {
			return err
		}
		rate := most * 0.3
		quiet, err := openLoop(ctx, rate, 20*time.Second, get)
		if err != nil {
			return fmt.Errorf("at rest: %w", err)
		}
		leave := "n5"
		s.endpoints = slices.Delete(slices.Clone(s.endpoints), 4, 5)
		began := time.Now()
		if _, err := c.run(ctx, "cluster", "decommission", leave, "--yes"); err != nil {
			return err
		}
		moving, err := openLoop(ctx, rate, 20*time.Second, get)
		if err != nil {
			return fmt.Errorf("while data moves: %w", err)
		}
		v, err := c.view(ctx)
		if err != nil {
			return err
		}
		state := "data still moved"
		if !v.busy() {
			state = "the move had ended by then"
		}
		b.line("%.0f GET/s of 64 KiB, 30 %% of %.0f: p50 %.1f ms, p99 %.1f ms quiet; p50 %.1f ms, p99 %.1f ms in the %.0f s after `cluster decommission n5` began (%s). Ratio of p99: %.2f (target <= 2).\n",
			rate, most, ms(quiet.p50), ms(quiet.p99), ms(moving.p50), ms(moving.p99), time.Since(began).Seconds(), state, moving.p99.Seconds()/quiet.p99.Seconds())
		return nil
	})
}

func ms(d time.Duration) float64 { return d.Seconds() * 1e3 }

func mib(n int64) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }

// closedLoop calls f from some clients for a while and returns calls a second.
func closedLoop(ctx context.Context, clients int, d time.Duration, f func(int) error) (float64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	began := time.Now()
	counts := make([]int, clients)
	var wg sync.WaitGroup
	for w := range clients {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(w)))
			for time.Since(began) < d && ctx.Err() == nil {
				if err := f(rng.IntN(1 << 30)); err != nil {
					cancel(err)
					return
				}
				counts[w]++
			}
		})
	}
	wg.Wait()
	total := 0
	for _, n := range counts {
		total += n
	}
	return float64(total) / time.Since(began).Seconds(), context.Cause(ctx)
}

// quantiles of some calls.
type quantiles struct{ p50, p99 time.Duration }

// openLoop calls f at a rate, whatever the calls take; their time counts from
// when they were due.
func openLoop(ctx context.Context, rate float64, d time.Duration, f func(int) error) (quantiles, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	n := int(rate * d.Seconds())
	took := make([]time.Duration, n)
	began := time.Now()
	rng := rand.New(rand.NewPCG(2, 2))
	var wg sync.WaitGroup
	for i := range n {
		due := began.Add(time.Duration(float64(i) / rate * float64(time.Second)))
		timer := time.NewTimer(time.Until(due))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			wg.Wait()
			return quantiles{}, context.Cause(ctx)
		}
		k := rng.IntN(1 << 30)
		wg.Go(func() {
			if err := f(k); err != nil {
				cancel(err)
				return
			}
			took[i] = time.Since(due)
		})
	}
	wg.Wait()
	slices.Sort(took)
	if n == 0 {
		return quantiles{}, errors.New("a load of nothing")
	}
	return quantiles{took[n/2], took[n*99/100]}, context.Cause(ctx)
}
