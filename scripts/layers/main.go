// Layers checks the linter's own configuration: it breaks every rule of
// .golangci.yml that this repository made for itself, once, in a throw-away module,
// and fails if the linter does not notice, or if it objects to what is allowed.
//
// A layer rule that is misspelt passes everything and looks like a clean tree; this
// program is what tells the two apart. It runs as part of `make check`:
//
//	go run ./scripts/layers -config .golangci.yml -linter .tools/bin/golangci-lint
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

func main() {
	config := flag.String("config", ".golangci.yml", "the configuration to check")
	linter := flag.String("linter", ".tools/bin/golangci-lint", "the golangci-lint to run")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, *config, *linter)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "layers: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, config, linter string) error {
	// Absolute, because the linter runs in the throw-away module.
	linter, err := filepath.Abs(linter)
	if err != nil {
		return err
	}
	rules, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	total := 0
	for _, s := range suites() {
		wrong, err := s.run(ctx, rules, linter)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if len(wrong) > 0 {
			return fmt.Errorf("%s: the rules of %s do not do what they say:\n  %s",
				s.name, config, strings.Join(wrong, "\n  "))
		}
		total += len(s.probes)
	}
	fmt.Fprintf(out, "layers: %d probes, every rule fires and lets pass what it should\n", total)
	return nil
}

// A suite is a set of probes that one run of the linter covers.
type suite struct {
	name    string
	linters []string
	// marks says what in an issue's text identifies the rule that fired.
	marks  func(issue) string
	probes []probe
}

// A probe is one file of the throw-away module.
type probe struct {
	file   string
	source string
	// want is the rules that must fire for this file, sorted; none means that the
	// linter must have nothing to say.
	want []string
}

// An issue is what this program reads of one entry of golangci-lint's JSON report.
type issue struct {
	FromLinter string
	Text       string
	Pos        struct{ Filename string }
}

// run lays the probes out as a module, lints it and returns what differs from what
// the probes want.
func (s suite) run(ctx context.Context, rules []byte, linter string) (wrong []string, err error) {
	dir, err := os.MkdirTemp("", "layers-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	files := map[string]string{
		".golangci.yml": string(rules),
		"go.mod":        "module " + module + "\n\ngo 1.26\n",
	}
	for _, p := range s.probes {
		if _, taken := files[p.file]; taken {
			return nil, fmt.Errorf("two probes are called %s", p.file)
		}
		files[p.file] = p.source
	}
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return nil, err
		}
	}

	issues, err := s.lint(ctx, dir, linter)
	if err != nil {
		return nil, err
	}
	fired := map[string][]string{}
	for _, i := range issues {
		name := filepath.ToSlash(i.Pos.Filename)
		fired[name] = append(fired[name], s.marks(i))
	}
	for _, p := range s.probes {
		got := slices.Compact(slices.Sorted(slices.Values(fired[p.file])))
		if !slices.Equal(got, p.want) {
			wrong = append(wrong, fmt.Sprintf("%s: got %q, want %q, for\n\t%s",
				p.file, got, p.want, strings.ReplaceAll(strings.TrimSpace(p.source), "\n", "\n\t")))
		}
	}
	return wrong, nil
}

// lint runs the suite's linters in dir.
func (s suite) lint(ctx context.Context, dir, linter string) ([]issue, error) {
	cmd := exec.CommandContext(ctx, linter, "run",
		"--enable-only", strings.Join(s.linters, ","),
		"--uniq-by-line=false", "--issues-exit-code=0",
		"--show-stats=false", "--output.json.path=stdout", "./...")
	cmd.Dir = dir
	// The module's imports need not exist: nothing is to be fetched for them.
	cmd.Env = append(os.Environ(), "GOPROXY=off", "GOFLAGS=-mod=mod", "GOWORK=off")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", linter, err, stderr.Bytes())
	}
	var report struct{ Issues []issue }
	if err := json.Unmarshal(stdout.Bytes(), &report); err != nil {
		return nil, fmt.Errorf("the report of %s: %w\n%s", linter, err, stdout.Bytes())
	}
	return report.Issues, nil
}
