package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// run carries out o and prints the report. It returns errTestsFailed if the outcome is
// bad, and another error if the tests could not be run at all.
func run(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	skips, err := readAllowedSkips(o.allowedSkips)
	if err != nil {
		return err
	}
	stages, err := plan(ctx, o, stderr)
	if err != nil {
		return err
	}
	raw := io.Discard
	if o.logPath != "" {
		f, err := os.Create(o.logPath)
		if err != nil {
			return fmt.Errorf("the log of events: %w", err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		raw = f
	}
	r := newReport(stdout, skips, o.enforceSkips)
	for _, s := range stages {
		if len(s.packages) == 0 {
			continue
		}
		r.stage(s.title, len(s.packages))
		if err := s.run(ctx, o, r, raw, stderr); err != nil {
			r.broken(fmt.Sprintf("%s: %v", s.title, err))
		}
	}
	if !r.close() {
		return errTestsFailed
	}
	return nil
}

// A stage is one run of go test.
type stage struct {
	title    string
	flags    []string
	packages []string
}

// plan divides the packages between the run with the race detector and the one without.
func plan(ctx context.Context, o options, stderr io.Writer) ([]stage, error) {
	all, err := listPackages(ctx, o.dir, o.packages, stderr)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no packages match %s", strings.Join(o.packages, " "))
	}
	if !o.race {
		return []stage{{title: "go test", packages: all}}, nil
	}
	var slow []string
	if o.noRaceList != "" {
		patterns, err := readList(o.noRaceList)
		if err != nil {
			return nil, err
		}
		for _, pattern := range patterns {
			matched, err := listPackages(ctx, o.dir, []string{pattern}, stderr)
			if err != nil {
				return nil, err
			}
			if len(matched) == 0 {
				return nil, fmt.Errorf("%s names %q, which is no package: correct or remove that line", o.noRaceList, pattern)
			}
			slow = append(slow, matched...)
		}
	}
	isSlow := func(pkg string) bool { return slices.Contains(slow, pkg) }
	stages := []stage{{
		title:    "go test -race",
		flags:    []string{"-race"},
		packages: slices.DeleteFunc(slices.Clone(all), isSlow),
	}}
	if !o.onlyRace {
		stages = append(stages, stage{
			title:    "go test (too slow under the race detector)",
			packages: slices.DeleteFunc(all, func(pkg string) bool { return !isSlow(pkg) }),
		})
	}
	return stages, nil
}

// listPackages expands package patterns. A package that cannot be loaded is in the
// answer all the same, because go test says what is wrong with it; one whose folder does
// not exist is not.
func listPackages(ctx context.Context, dir string, patterns []string, stderr io.Writer) ([]string, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-e", "-f", "{{if .Dir}}{{.ImportPath}}{{end}}", "--"}, patterns...)...)
	cmd.Dir, cmd.Stderr = dir, stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w", strings.Join(patterns, " "), err)
	}
	return strings.Fields(string(out)), nil
}

// readList returns the lines of a file without comments (from a "#" at the start of a
// line or after white space) and without empty lines.
func readList(path string) ([]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(" "+strings.ReplaceAll(line, "\t", " "), " #")
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

// run runs the stage's packages and feeds the report; the error says that go test did
// not do its work, not that a test failed.
func (s stage) run(ctx context.Context, o options, r *report, raw, stderr io.Writer) error {
	args := slices.Concat(
		[]string{"test", "-json", "-count=1", "-p", strconv.Itoa(o.parallel), "-timeout", o.timeout.String()},
		s.flags, o.testFlags, s.packages)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Stderr = o.dir, stderr
	// go does not pass an interrupt on to the tests that it runs, so all of them are one
	// process group, which gets it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 20 * time.Second
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := s.consume(pipe, o.heartbeat, r, raw)
	waitErr := cmd.Wait()
	if ctx.Err() != nil {
		// What did not heed the interrupt; none left is no error.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	failed := r.endStage()
	switch exit := (*exec.ExitError)(nil); {
	case ctx.Err() != nil:
		return fmt.Errorf("interrupted: %w", context.Cause(ctx))
	case readErr != nil:
		return fmt.Errorf("reading what go test says: %w", readErr)
	case errors.As(waitErr, &exit) && exit.ExitCode() == 1 && failed:
		return nil // that is how go test says that a test failed
	default:
		return waitErr
	}
}

// consume reads events from in to its end and hands them to r, one goroutine at a time.
func (s stage) consume(in io.Reader, heartbeat time.Duration, r *report, raw io.Writer) error {
	lines := make(chan []byte)
	var readErr error
	go func() {
		defer close(lines)
		reader := bufio.NewReader(in)
		for {
			line, err := reader.ReadBytes('\n')
			if len(line) > 0 {
				lines <- line
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					readErr = err
				}
				return
			}
		}
	}()
	quiet := time.NewTicker(heartbeat)
	defer quiet.Stop()
	var rawErr error
	for {
		select {
		case line, more := <-lines:
			if !more {
				return errors.Join(readErr, rawErr)
			}
			if _, err := raw.Write(line); err != nil && rawErr == nil {
				rawErr = fmt.Errorf("the log of events: %w", err)
			}
			if r.line(bytes.TrimRight(line, "\n")) {
				quiet.Reset(heartbeat)
			}
		case <-quiet.C:
			r.heartbeat(time.Now())
		}
	}
}
