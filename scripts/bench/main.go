// Command bench measures Shoal against simple baselines and writes
// docs/benchmarks.md. Every figure is a ratio: both sides run in turns on the
// same machine in one run, with the same client, authentication, checksums and
// fsync, and the median of the turns counts.
//
//	go run ./scripts/bench -shoal bin/shoal            # everything
//	go run ./scripts/bench -only node -rounds 5        # one node against a file handler
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/shoalstore/shoal/wasmetl"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// options are the flags.
type options struct {
	shoal, out, only, cells, baseline, dir string
	rounds, kills, list, objects, large    int
	remote                                 int
	cell                                   time.Duration
}

func run(ctx context.Context, args []string) int {
	var o options
	f := flag.NewFlagSet("bench", flag.ExitOnError)
	f.StringVar(&o.shoal, "shoal", "bin/shoal", "the binary to measure")
	f.StringVar(&o.out, "out", "docs/benchmarks.md", "where the report goes; - for stdout")
	f.StringVar(&o.only, "only", "", "sections to run, comma-separated: node, cluster, copy, list, failover, memory, rebuild, resync, latency, remote, cloudcopy, cloudcopy-slow, etl, etl-cluster, etl-jobs, etl-node; empty for all but those of etl")
	f.StringVar(&o.cells, "cells", "", "loads of the sections node and cluster, comma-separated, such as \"PUT 1 KiB x 64,GET 1 MiB x 1\"; empty for all")
	f.IntVar(&o.rounds, "rounds", 5, "turns of each pair")
	f.DurationVar(&o.cell, "cell", 2*time.Second, "time of one turn")
	f.IntVar(&o.kills, "kills", 10, "kills of the fail-over section")
	f.IntVar(&o.list, "list", 100_000, "keys of the listing section")
	f.IntVar(&o.objects, "objects", 300_000, "objects of the memory section")
	f.IntVar(&o.large, "large", 128, "objects of 16 MiB of the rebuild section")
	f.IntVar(&o.remote, "remote", 1024, "MiB of the largest object of the remote section")
	f.StringVar(&o.baseline, "baseline", "", "serve the baseline at this address (used by bench itself)")
	f.StringVar(&o.dir, "dir", "", "directory of the baseline")
	sidecar := f.Bool("sidecar", false, "answer with what is sent, until standard input ends (used by bench itself)")
	compile := f.Bool("compile", false, "compile a module, as told on standard input (used by bench itself)")
	if err := f.Parse(args); err != nil {
		return 2
	}
	switch {
	case o.baseline != "":
		return report(serveBaseline(ctx, o.baseline, o.dir))
	case *sidecar:
		return report(serveSidecar(ctx, os.Stdin, os.Stdout))
	case *compile:
		return report(wasmetl.CompileChild(ctx, os.Stdin, os.Stdout))
	}
	b := &bench{o: o}
	if err := b.all(ctx); err != nil {
		return report(err)
	}
	return report(b.write())
}

func report(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	return 1
}

// bench gathers the report.
type bench struct {
	o       options
	doc     strings.Builder
	baseDir string // where the baseline's files are
}

// wants says whether a section is to be run.
func (b *bench) wants(section string) bool {
	return b.o.only == "" && !strings.HasPrefix(section, "etl") || slices.Contains(strings.Split(b.o.only, ","), section)
}

func (b *bench) all(ctx context.Context) error {
	if strings.HasPrefix(b.o.only, "etl") {
		b.etlHead()
	} else {
		b.head()
	}
	for _, s := range []struct {
		name string
		f    func(context.Context) error
	}{
		{"node", b.oneNode},
		{"cluster", b.cluster},
		{"copy", b.copyJob},
		{"list", b.listing},
		{"failover", b.failOver},
		{"memory", b.memory},
		{"rebuild", b.rebuild},
		{"resync", b.resync},
		{"latency", b.latency},
		{"remote", b.remote},
		{"cloudcopy", b.cloudCopy},
		{"cloudcopy-slow", b.slowCloudCopy},
		{"etl", b.etl},
		{"etl-cluster", b.etlCluster},
		{"etl-jobs", b.etlJobs},
		{"etl-node", b.etlNode},
	} {
		if !b.wants(s.name) {
			continue
		}
		fmt.Fprintln(os.Stderr, "section", s.name)
		if err := s.f(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// line adds a line to the report, and shows it.
func (b *bench) line(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	fmt.Fprintln(&b.doc, text)
	fmt.Fprintln(os.Stderr, text)
}

func (b *bench) head() {
	b.line("# Benchmarks\n")
	b.line("Written by `make bench`. Ratios above 1 are in Shoal's favour. Each pair ran in turns of %v on one machine, %d rounds; medians.\n", b.o.cell, b.o.rounds)
	b.line("The baseline of PUT and GET is a net/http handler that verifies the same signatures, writes a temporary file, fdatasyncs and renames it, fsyncs the directory, computes the MD5, and serves with `http.ServeContent` (scripts/bench/baseline.go).\n")
}

func (b *bench) write() error {
	if b.o.out == "-" {
		fmt.Print(b.doc.String())
		return nil
	}
	return os.WriteFile(b.o.out, []byte(b.doc.String()), 0o644)
}
