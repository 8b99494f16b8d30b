package main

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// cells are the loads of the first two sections, or those asked for.
func (b *bench) cells() []cell {
	var out []cell
	only := strings.Split(b.o.cells, ",")
	for _, m := range []string{http.MethodPut, http.MethodGet} {
		for _, s := range []int{1 << 10, 16 << 10, 256 << 10, 1 << 20, 64 << 20} {
			for _, n := range []int{1, 64} {
				if s == 64<<20 && n > 4 {
					n = 4 // 64 streams of 64 MiB measure the page cache
				}
				if x := (cell{m, s, n}); b.o.cells == "" || slices.Contains(only, x.String()) {
					out = append(out, x)
				}
			}
		}
	}
	return out
}

// target is what the first section is to reach.
func target(c cell) string {
	switch {
	case c.method == http.MethodPut && c.size == 1<<10 && c.clients == 64:
		return ">= 4"
	case c.method == http.MethodPut && c.size == 16<<10 && c.clients == 64:
		return ">= 2"
	case c.size == 64<<20, c.method == http.MethodGet && c.size == 1<<10:
		return ">= 0.8"
	}
	return ""
}

// table compares a bucket with the baseline, cell by cell.
func (b *bench) table(ctx context.Context, c *cluster, base, scheme string, targets bool) error {
	bucket := "bench-" + strings.NewReplacer("+", "-").Replace(scheme)
	if _, err := c.run(ctx, "bucket", "create", "shoal://"+bucket, "--props", "scheme="+scheme+",inline=128KiB"); err != nil {
		return err
	}
	ours, theirs := newSide("shoal", bucket, c.endpoints...), newSide("baseline", bucket, base)
	b.line("| %s | baseline, /s | Shoal, /s | ratio | target |", scheme)
	b.line("| --- | ---: | ---: | ---: | ---: |")
	for _, x := range b.cells() {
		bs, os, ratio, err := compare(ctx, theirs, ours, x, b.o.rounds, b.o.cell)
		if err != nil {
			return err
		}
		goal := ""
		if targets {
			goal = target(x)
		}
		b.line("| %v | %.1f | %.1f | %.2f | %s |", x, bs, os, ratio, goal)
	}
	b.line("")
	return nil
}

// withCluster runs f on a cluster of its own, beside the baseline.
func (b *bench) withCluster(ctx context.Context, nodes, disks int, f func(c *cluster, base string) error) error {
	base, stop, err := startBaseline(ctx)
	if err != nil {
		return err
	}
	defer stop()
	c, err := startCluster(ctx, b.o.shoal, nodes, disks)
	if err != nil {
		return err
	}
	err = f(c, base)
	if serr := c.stop(ctx); err == nil {
		err = serr
	}
	return err
}

func (b *bench) oneNode(ctx context.Context) error {
	b.line("## One node with one disk\n")
	return b.withCluster(ctx, 1, 1, func(c *cluster, base string) error { return b.table(ctx, c, base, "none", true) })
}

func (b *bench) cluster(ctx context.Context) error {
	b.line("## Five nodes with three disks each, on the same machine\n")
	b.line("The baseline keeps one copy on one disk; Shoal runs five processes and writes three copies, or four shards, and three records.\n")
	return b.withCluster(ctx, 5, 3, func(c *cluster, base string) error {
		if err := b.table(ctx, c, base, "mirror-3", false); err != nil {
			return err
		}
		return b.table(ctx, c, base, "ec-3+1", false)
	})
}

// copyJob compares the copy job with `cp -r` and a sync of every file.
func (b *bench) copyJob(ctx context.Context) error {
	b.line("## Copy job against cp -r with fsync\n")
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return err
	}
	src := filepath.Join(strings.TrimSpace(string(root)), "src", "cmd")
	var bytes int64
	err = filepath.WalkDir(src, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if i, err := d.Info(); err == nil {
				bytes += i.Size()
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	return b.withCluster(ctx, 5, 3, func(c *cluster, _ string) error {
		for _, args := range [][]string{
			{"bucket", "create", "shoal://source", "--props", "scheme=mirror-3"}, {"put", src, "shoal://source", "-r"},
		} {
			if _, err := c.run(ctx, args...); err != nil {
				return err
			}
		}
		var cp, job, ratio []float64
		for i := range b.o.rounds {
			t, err := copyFiles(ctx, src)
			if err != nil {
				return err
			}
			dst := fmt.Sprintf("shoal://copy-%d", i)
			if _, err := c.run(ctx, "bucket", "create", dst, "--props", "scheme=ec-3+1"); err != nil {
				return err
			}
			began := time.Now()
			if _, err := c.run(ctx, "cp", "shoal://source", dst); err != nil {
				return err
			}
			d := time.Since(began)
			cp, job = append(cp, float64(bytes)/1e6/t.Seconds()), append(job, float64(bytes)/1e6/d.Seconds())
			ratio = append(ratio, t.Seconds()/d.Seconds())
		}
		b.line("%.1f MB in small files (the Go tree's src/cmd), mirror-3 to ec-3+1 on five nodes: job %.1f MB/s, cp -r with fsync %.1f MB/s, ratio %.2f.\n", float64(bytes)/1e6, median(job), median(cp), median(ratio))
		return nil
	})
}

// copyFiles is cp -r followed by a sync of each file.
func copyFiles(ctx context.Context, src string) (time.Duration, error) {
	dir, err := os.MkdirTemp("", "shoal-bench-cp-")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	began := time.Now()
	err = exec.CommandContext(ctx, "sh", "-c", `cp -r "$1" "$2" && find "$2" -type f -exec sync {} +`, "sh", src, dir).Run()
	return time.Since(began), err
}

// listing lists many keys through the own API and through S3.
func (b *bench) listing(ctx context.Context) error {
	b.line("## Listing\n")
	return b.withCluster(ctx, 5, 3, func(c *cluster, _ string) error {
		if _, err := c.run(ctx, "bucket", "create", "shoal://many", "--props", "scheme=mirror-2"); err != nil {
			return err
		}
		s := newSide("shoal", "many", c.endpoints...)
		if err := fill(ctx, s, b.o.list); err != nil {
			return err
		}
		var rates []float64
		for range b.o.rounds {
			began := time.Now()
			out, err := c.run(ctx, "ls", "shoal://many", "--no-headers")
			if err != nil {
				return err
			}
			if n := strings.Count(string(out), "\n"); n != b.o.list {
				return fmt.Errorf("listed %d of %d keys", n, b.o.list)
			}
			rates = append(rates, float64(b.o.list)/time.Since(began).Seconds())
		}
		b.line("%d keys on five nodes through the own API, start of the command included: %.0f keys/s (target >= 100000).\n", b.o.list, median(rates))
		return nil
	})
}

// fill writes n small objects.
func fill(ctx context.Context, s *side, n int) error {
	keys := make(chan int)
	var wg sync.WaitGroup
	var once sync.Once
	var failed error
	for range 64 {
		wg.Go(func() {
			for k := range keys {
				if _, err := s.do(ctx, http.MethodPut, fmt.Sprintf("dir-%03d/key-%07d", k%500, k), []byte("x")); err != nil {
					once.Do(func() { failed = err })
				}
			}
		})
	}
	for k := range n {
		keys <- k
	}
	close(keys)
	wg.Wait()
	return failed
}

// failOver kills a node again and again and measures for how long some key
// could not be written.
func (b *bench) failOver(ctx context.Context) error {
	b.line("## Fail-over\n")
	return b.withCluster(ctx, 5, 3, func(c *cluster, _ string) error {
		if _, err := c.run(ctx, "bucket", "create", "shoal://fail", "--props", "scheme=mirror-3"); err != nil {
			return err
		}
		var times []float64
		for i := range b.o.kills {
			if _, err := c.run(ctx, "cluster", "wait", "--healthy", "--timeout", "120s"); err != nil {
				return err
			}
			node := fmt.Sprintf("n%d", i%5+1)
			if _, err := c.run(ctx, "dev", "kill", node, "--name", c.name); err != nil {
				return err
			}
			d, err := writable(ctx, c, i%5)
			if err != nil {
				return err
			}
			times = append(times, d.Seconds())
			if _, err := c.run(ctx, "dev", "start", node, "--name", c.name); err != nil {
				return err
			}
		}
		b.line("%d kills -9 in turn over all nodes, the bus's leader included: writes to all of 200 keys succeeded again after %.1f s (median), %.1f s (worst); target 15 s, 25 s with the leader.\n", len(times), median(times), slices.Max(times))
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

// memory reads the nodes' resident memory at rest.
func (b *bench) memory(ctx context.Context) error {
	b.line("## Memory at rest\n")
	return b.withCluster(ctx, 6, 3, func(c *cluster, _ string) error {
		if _, err := c.run(ctx, "cluster", "wait", "--healthy", "--timeout", "120s"); err != nil {
			return err
		}
		select {
		case <-time.After(10 * time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
		var voters, others []float64
		for i, n := range c.status(ctx) {
			if m := float64(rss(n.PID)) / (1 << 20); i < 5 {
				voters = append(voters, m)
			} else {
				others = append(others, m)
			}
		}
		b.line("Six idle nodes with three disks: voters %.0f MiB (target <= 90), the non-voter %.0f MiB (target <= 60).\n", median(voters), median(others))
		return nil
	})
}
