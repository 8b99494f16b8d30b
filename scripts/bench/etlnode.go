package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// upload is the time from `etl init` of a module that the cluster has never seen to
// the first result that a client has.
func (t *transforms) upload(ctx context.Context, n *oneNode) error {
	guests, err := t.coldGuests(ctx)
	if err != nil {
		return err
	}
	t.line("## From an upload to the first result, cold\n")
	t.line("`shoal etl init` of a module that the node has never seen, its smoke run included, and a GET through it. Targets: a C module < 2 s, a Go one of 4 MiB < 6 s.\n")
	t.line("| module | bytes | s |")
	t.line("| --- | ---: | ---: |")
	for i, g := range guests {
		key := fmt.Sprintf("cold-%d", i)
		if _, err := n.do(ctx, http.MethodPut, key, g.object); err != nil {
			return err
		}
		query := url.Values{}
		for k, v := range g.args {
			query.Set("arg."+k, v)
		}
		var times []float64
		for round := range t.o.rounds {
			name := fmt.Sprintf("cold-%d-%d", i, round)
			wasm := neverSeen(g.wasm)
			began := time.Now()
			if err := t.register(ctx, n, name, wasm); err != nil {
				return err
			}
			query.Set("transform", name)
			if _, err := n.do(ctx, http.MethodGet, key+"?"+query.Encode(), nil); err != nil {
				return err
			}
			times = append(times, time.Since(began).Seconds())
		}
		t.line("| %s | %d | %.2f |", g.name, len(g.wasm), median(times))
	}
	t.line("")
	return nil
}

// neverSeen is a module of another digest that does the same: it ends with a custom
// section of its own.
func neverSeen(wasm []byte) []byte {
	section := append([]byte("\x04once"), rand.Text()...)
	return append(slices.Clone(wasm), slices.Concat([]byte{0, byte(len(section))}, section)...)
}

// spinsOn is a module that never ends with an object that is not empty: with an empty
// one it is registered.
const spinsOn = "\x00asm\x01\x00\x00\x00" +
	"\x01\x0b\x02\x60\x02\x7f\x7f\x01\x7f\x60\x00\x01\x7f" + // (i32, i32) -> i32, () -> i32
	"\x02\x11\x01\x08shoal_v1\x04read\x00\x00" +
	"\x03\x02\x01\x01" +
	"\x05\x03\x01\x00\x01" +
	"\x07\x1c\x02\x0fshoal_transform\x00\x01\x06memory\x02\x00" +
	"\x0a\x17\x01\x15\x00\x41\x00\x41\x01\x10\x00\x41\x00\x4a\x04\x40\x03\x40\x0c\x00\x0b\x0b\x41\x00\x0b"

// nodeCollector is how long the garbage collector of a node stops it while it serves,
// without guests and while they spin. The node collects often, by GOGC: the metrics
// tell of its last 256 pauses.
func (t *transforms) nodeCollector(ctx context.Context, n *oneNode) error {
	const pauses, size = 256, 64 << 10
	if err := t.register(ctx, n, "spins", []byte(spinsOn), "--timeout", "1h"); err != nil {
		return err
	}
	if _, err := n.do(ctx, http.MethodPut, "x", payload(size)); err != nil {
		return err
	}
	// Reads until that many collections have been.
	busy := func() (map[string]float64, error) {
		first, err := gcPauses(ctx, n.cluster)
		for last := first; ; {
			if err != nil || last["count"] >= first["count"]+pauses {
				return last, err
			}
			for range 100 {
				if _, err := n.do(ctx, http.MethodGet, "x", nil); err != nil {
					return nil, err
				}
			}
			last, err = gcPauses(ctx, n.cluster)
		}
	}
	alone, err := busy()
	if err != nil {
		return err
	}
	spinning, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = n.do(spinning, http.MethodGet, "x?transform=spins", nil) // it ends with its context
	}()
	defer func() {
		cancel()
		<-ended
	}()
	for running := 0.0; running == 0; {
		m, err := metrics(ctx, n.cluster, "shoal_transforms_running")
		if err != nil {
			return err
		}
		running = m["shoal_transforms_running"]
	}
	guests, err := busy()
	if err != nil {
		return err
	}
	t.line("## The garbage collector of a node while a guest spins\n")
	t.line("The last %d times that the node stopped its world, under reads of %s by one client.\n", pauses, sizeName(size))
	t.line("| | p50, ms | p75, ms | longest, ms |")
	t.line("| --- | ---: | ---: | ---: |")
	for _, r := range []struct {
		what string
		m    map[string]float64
	}{{"no guests", alone}, {"a guest spins", guests}} {
		t.line("| %s | %.2f | %.2f | %.2f |", r.what, r.m["0.5"]*1e3, r.m["0.75"]*1e3, r.m["1"]*1e3)
	}
	t.line("")
	return nil
}

// gcPauses are quantiles of a node's pauses in seconds, and "count".
func gcPauses(ctx context.Context, c *cluster) (map[string]float64, error) {
	all, err := metrics(ctx, c, "go_gc_duration_seconds")
	out := map[string]float64{}
	for name, v := range all {
		if q, ok := strings.CutPrefix(name, `go_gc_duration_seconds{quantile="`); ok {
			out[strings.TrimSuffix(q, `"}`)] = v
		}
	}
	out["count"] = all["go_gc_duration_seconds_count"]
	if err == nil && len(out) < 6 {
		err = fmt.Errorf("the node's metrics of its garbage collector are %v", all)
	}
	return out, err
}

// metrics are those of a cluster's first node whose name begins so.
func metrics(ctx context.Context, c *cluster, prefix string) (map[string]float64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.endpoints[0]+"/-/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	out := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if strings.HasPrefix(name, prefix) {
			if out[name], err = strconv.ParseFloat(value, 64); err != nil {
				return nil, err
			}
		}
	}
	return out, lines.Err()
}
