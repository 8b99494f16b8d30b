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
				all := []cell{{m, s, n, false}}
				if m == http.MethodGet && s == 64<<20 {
					all = append(all, cell{m, s, n, true})
				}
				for _, x := range all {
					if b.o.cells == "" || slices.Contains(only, x.String()) {
						out = append(out, x)
					}
				}
			}
		}
	}
	return out
}

// target is what the first section is to reach.
func target(c cell) string {
	switch {
	case c.cold:
		return ""
	case c.method == http.MethodPut && c.size == 1<<10 && c.clients == 64:
		return ">= 4"
	case c.method == http.MethodPut && c.size == 16<<10 && c.clients == 64:
		return ">= 2"
	case c.size == 64<<20, c.method == http.MethodGet && c.size == 1<<10:
		return ">= 0.8"
	}
	return ""
}

// table compares a bucket with the baseline, cell by cell. With further
// properties only the loads that have a goal are run.
func (b *bench) table(ctx context.Context, c *cluster, base, scheme, props string, goal func(cell) string) error {
	bucket := "bench-" + strings.NewReplacer("+", "-", "=", "-").Replace(scheme+props)
	all := "scheme=" + scheme + ",inline=128KiB"
	if props != "" {
		all += "," + props
	}
	if _, err := c.run(ctx, "bucket", "create", "shoal://"+bucket, "--props", all); err != nil {
		return err
	}
	ours, theirs := newSide("shoal", bucket, c.endpoints...), newSide("baseline", bucket, base)
	theirs.dirs = []string{b.baseDir}
	for _, n := range c.status(ctx) {
		for _, d := range n.Disks {
			ours.dirs = append(ours.dirs, d.Path)
		}
	}
	b.line("| %s | baseline, /s | Shoal, /s | ratio | target |", scheme)
	b.line("| --- | ---: | ---: | ---: | ---: |")
	for _, x := range b.cells() {
		if props != "" && goal(x) == "" {
			continue
		}
		bs, os, ratio, err := compare(ctx, theirs, ours, x, b.o.rounds, b.o.cell)
		if err != nil {
			return err
		}
		b.line("| %v | %.1f | %.1f | %.2f | %s |", x, bs, os, ratio, goal(x))
	}
	b.line("")
	return nil
}

// withCluster runs f on a cluster of its own, beside the baseline.
func (b *bench) withCluster(ctx context.Context, nodes, disks int, f func(c *cluster, base string) error) error {
	base, dir, stop, err := startBaseline(ctx)
	if err != nil {
		return err
	}
	defer stop()
	b.baseDir = dir
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
	return b.withCluster(ctx, 1, 1, func(c *cluster, base string) error {
		if err := b.table(ctx, c, base, "none", "", target); err != nil {
			return err
		}
		b.line("With `sendfile=on`, where blocks are left to the scrubber:\n")
		return b.table(ctx, c, base, "none", "sendfile=on", func(x cell) string {
			if x.method == http.MethodGet && x.size == 64<<20 && !x.cold {
				return ">= 0.95"
			}
			return ""
		})
	})
}

func (b *bench) cluster(ctx context.Context) error {
	b.line("## Five nodes with three disks each, on the same machine\n")
	b.line("The baseline keeps one copy on one disk; Shoal runs five processes and writes three copies, or four shards, and three records.\n")
	return b.withCluster(ctx, 5, 3, func(c *cluster, base string) error {
		none := func(cell) string { return "" }
		if err := b.table(ctx, c, base, "mirror-3", "", none); err != nil {
			return err
		}
		return b.table(ctx, c, base, "ec-3+1", "", none)
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
