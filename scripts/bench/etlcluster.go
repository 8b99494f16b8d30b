package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// oneNode is a cluster of one node for transforms, with a bucket "etl".
type oneNode struct {
	*cluster
	*side
	pid int // of the node
}

// onNode starts a node, and ends it after use.
func (b *bench) onNode(ctx context.Context, env []string, use func(*transforms, *oneNode) error) (err error) {
	t := &transforms{bench: b}
	defer t.close()
	c, err := startClusterWith(ctx, b.o.shoal, 1, 1, env)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop(ctx)) }()
	if _, err := c.run(ctx, "bucket", "create", "shoal://etl", "--props", "scheme=none"); err != nil {
		return err
	}
	n := &oneNode{cluster: c, side: newSide("shoal", "etl", c.endpoints...)}
	for _, x := range c.status(ctx) {
		n.pid = x.PID
	}
	return use(t, n)
}

// register uploads a module.
func (t *transforms) register(ctx context.Context, n *oneNode, name string, wasm []byte, flags ...string) error {
	dir, err := t.temp()
	if err != nil {
		return err
	}
	file := filepath.Join(dir, name+".wasm")
	if err := os.WriteFile(file, wasm, 0o600); err != nil {
		return err
	}
	_, err = n.run(ctx, append([]string{"etl", "init", "wasm", "--name", name, "--from-file", file}, flags...)...)
	return err
}

// etlCluster compares reads that pass through identity with plain ones.
func (b *bench) etlCluster(ctx context.Context) error {
	return b.onNode(ctx, nil, func(t *transforms, n *oneNode) error { return t.reads(ctx, n) })
}

// etlJobs compares jobs.
func (b *bench) etlJobs(ctx context.Context) error {
	return b.onNode(ctx, nil, func(t *transforms, n *oneNode) error { return t.jobs(ctx, n) })
}

// etlNode measures what a node feels of transforms. For its garbage collector another
// one collects often; see [transforms.nodeCollector].
func (b *bench) etlNode(ctx context.Context) error {
	err := b.onNode(ctx, nil, func(t *transforms, n *oneNode) error { return t.upload(ctx, n) })
	if err != nil {
		return err
	}
	return b.onNode(ctx, []string{"GOGC=5"}, func(t *transforms, n *oneNode) error { return t.nodeCollector(ctx, n) })
}

// reads compares reads by one client.
func (t *transforms) reads(ctx context.Context, n *oneNode) error {
	names := []string{"identity", "identitywasi", "identitygo"}
	for i, guest := range []func() ([]byte, error){
		func() ([]byte, error) { return cGuest("identity") },
		func() ([]byte, error) { return cGuest("identitywasi") },
		func() ([]byte, error) { return t.goGuest(ctx, "identity") },
	} {
		wasm, err := guest()
		if err != nil {
			return err
		}
		if err := t.register(ctx, n, names[i], wasm); err != nil {
			return err
		}
	}
	t.line("## Reads through a transform against plain ones\n")
	t.line("GET of one node over HTTP, one client; CPU is of node and client.\n")
	t.line("| object | plain, /s | CPU, us | shoal_v1 in C, /s | CPU, us | ratio | wasi in C, /s | CPU, us | ratio | shoal_v1 in Go, /s | CPU, us | ratio |")
	t.line("| --- | %s", strings.Repeat("---: | ", 11))
	for _, size := range []int{1 << 10, 4 << 10, 64 << 10, 1 << 20} {
		key := fmt.Sprintf("get-%d", size)
		if _, err := n.do(ctx, http.MethodPut, key, payload(size)); err != nil {
			return err
		}
		subjects := []subject{n.reads(key, size, n.pid)}
		for _, name := range names {
			subjects = append(subjects, n.reads(key+"?transform="+name, size, n.pid))
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
	return nil
}

// jobs compares a bucket passed through identity with a copy of it. The jobs take turns
// in being first: what one leaves to be written back is to the cost of the next.
func (t *transforms) jobs(ctx context.Context, n *oneNode) error {
	const objects, size = 2000, 64 << 10
	wasm, err := cGuest("identity")
	if err != nil {
		return err
	}
	if err := t.register(ctx, n, "identity", wasm); err != nil {
		return err
	}
	data := payload(size)
	for i := range objects {
		if _, err := n.do(ctx, http.MethodPut, fmt.Sprintf("job/%04d", i), data); err != nil {
			return err
		}
	}
	identity := []string{"etl", "bucket", "identity"}
	kinds := []struct {
		name, props string
		args        []string
		got         []speed
	}{
		{name: "copy", props: "scheme=none", args: []string{"cp"}},
		{name: "identity", props: "scheme=none", args: identity},
		{name: "identity, into a bucket with `etag=fast`", props: "scheme=none,etag=fast", args: identity},
	}
	for round := range t.o.rounds + 1 { // the first is for warmth
		for turn := range kinds {
			i := (turn + round) % len(kinds)
			k := &kinds[i]
			to := fmt.Sprintf("shoal://etl-%d-%d", round, i)
			if _, err := n.run(ctx, "bucket", "create", to, "--props", k.props); err != nil {
				return err
			}
			began, cpu := time.Now(), cpuOf(n.pid)
			if _, err := n.run(ctx, append(k.args, "shoal://etl", to, "--prefix", "job/")...); err != nil {
				return err
			}
			took := speed{objects / time.Since(began).Seconds(), float64((cpuOf(n.pid) - cpu).Microseconds()) / objects}
			if round > 0 {
				k.got = append(k.got, took)
			}
		}
	}
	t.line("## A bucket through identity against a copy of it\n")
	t.line("%d objects of %s on one node and one disk, in a job; medians of %d, of ratios too. A copy keeps the ETag of its source; a result has one of its own, by default an MD5. CPU is of the node. Target: >= 0.9.\n", objects, sizeName(size), t.o.rounds)
	t.line("| job | objects/s | CPU, us | ratio | ratio of CPU |")
	t.line("| --- | ---: | ---: | ---: | ---: |")
	for _, k := range kinds {
		var rates, cpus, ratios, cheaper []float64
		for i, g := range k.got {
			copied := kinds[0].got[i]
			rates, cpus = append(rates, g.rate), append(cpus, g.cpu)
			ratios, cheaper = append(ratios, g.rate/copied.rate), append(cheaper, copied.cpu/g.cpu)
		}
		t.line("| %s | %.0f | %.0f | %.2f | %.2f |", k.name, median(rates), median(cpus), median(ratios), median(cheaper))
	}
	t.line("")
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
