package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"time"
)

// etlCluster compares reads that pass through identity with plain ones, in a cluster
// of one node.
func (b *bench) etlCluster(ctx context.Context) (err error) {
	t := &transforms{bench: b}
	c, err := startCluster(ctx, b.o.shoal, 1, 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop(ctx)) }()
	names := []string{"identity", "identitywasi"}
	for _, name := range names {
		if _, err := c.run(ctx, "etl", "init", "wasm", "--name", name, "--from-file", filepath.Join("wasmetl", "testdata", "c", name+".wasm")); err != nil {
			return err
		}
	}
	if _, err := c.run(ctx, "bucket", "create", "shoal://etl", "--props", "scheme=none"); err != nil {
		return err
	}
	s := newSide("shoal", "etl", c.endpoints...)
	pid := 0
	for _, n := range c.status(ctx) {
		pid = n.PID
	}
	t.line("## Reads through a transform against plain ones\n")
	t.line("GET of one node over HTTP, one client; CPU is of node and client.\n")
	t.line("| object | plain, /s | CPU, us | shoal_v1 in C, /s | CPU, us | ratio | wasi in C, /s | CPU, us | ratio |")
	t.line("| --- | %s", strings.Repeat("---: | ", 8))
	for _, size := range []int{1 << 10, 4 << 10, 64 << 10, 1 << 20} {
		key := fmt.Sprintf("get-%d", size)
		if _, err := s.do(ctx, http.MethodPut, key, payload(size)); err != nil {
			return err
		}
		subjects := []subject{s.reads(key, size, pid)}
		for _, name := range names {
			subjects = append(subjects, s.reads(key+"?transform="+name, size, pid))
		}
		got, err := t.turns(ctx, 1, subjects...)
		if err != nil {
			return err
		}
		row := []string{fmt.Sprintf("| %s | %.0f | %.0f |", sizeName(size), got[0].rate, got[0].cpu)}
		for _, g := range got[1:] {
			row = append(row, fmt.Sprintf(" %.0f | %.0f | %.2f |", g.rate, g.cpu, g.rate/got[0].rate))
		}
		t.line("%s", strings.Join(row, ""))
	}
	t.line("")
	return t.jobs(ctx, c, s)
}

// jobs compares a bucket passed through identity with a copy of it.
func (t *transforms) jobs(ctx context.Context, c *cluster, s *side) error {
	const objects, size = 2000, 64 << 10
	data := payload(size)
	for i := range objects {
		if _, err := s.do(ctx, http.MethodPut, fmt.Sprintf("job/%04d", i), data); err != nil {
			return err
		}
	}
	var copies, transforms, ratios []float64
	for round := range t.o.rounds {
		var took [2]float64
		for i, args := range [][]string{{"cp"}, {"etl", "bucket", "identity"}} {
			to := fmt.Sprintf("shoal://etl-%d-%d", round, i)
			if _, err := c.run(ctx, "bucket", "create", to, "--props", "scheme=none"); err != nil {
				return err
			}
			began := time.Now()
			if _, err := c.run(ctx, append(args, "shoal://etl", to, "--prefix", "job/")...); err != nil {
				return err
			}
			took[i] = time.Since(began).Seconds()
		}
		copies, transforms, ratios = append(copies, objects/took[0]), append(transforms, objects/took[1]), append(ratios, took[0]/took[1])
	}
	t.line("A bucket of %d objects of %s: copied %.0f/s, through identity %.0f/s, ratio %.2f (target: >= 0.9).\n", objects, sizeName(size), median(copies), median(transforms), median(ratios))
	return nil
}

// reads is a subject that reads an object of a known size.
func (s *side) reads(key string, size, pid int) subject {
	return subject{pid: pid, do: func(ctx context.Context) error {
		resp, err := s.send(ctx, http.MethodGet, key, nil)
		if err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, resp.Body)
		switch {
		case err == nil && n != int64(size):
			err = fmt.Errorf("%s: %d bytes, want %d", key, n, size)
		case err == nil && strings.Contains(key, "?") && resp.Header.Get("X-Shoal-Transform") == "":
			err = fmt.Errorf("%s: the answer was not transformed", key)
		}
		return errors.Join(err, resp.Body.Close())
	}}
}
