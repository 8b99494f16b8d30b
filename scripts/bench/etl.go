package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/wasmetl"
)

// etl measures transforms in a host in this process.
func (b *bench) etl(ctx context.Context) error {
	t := &transforms{bench: b}
	defer t.close()
	for _, f := range []func(context.Context) error{t.overhead, t.native, t.meter, t.collector, t.instances, t.cold} {
		if err := f(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) etlHead() {
	b.line("# Benchmarks of transforms\n")
	b.line("Written by `make bench-etl` on %d cores. Every figure is a ratio of two sides that ran in turns of %v in one run, %d rounds, medians; CPU is of all processes of a side. What is slow on a busy machine is slow for both.\n", runtime.NumCPU(), b.o.cell, b.o.rounds)
}

// transforms are those that are measured, in hosts of their own.
type transforms struct {
	*bench
	ends []func() error
}

func (t *transforms) close() {
	for _, end := range slices.Backward(t.ends) {
		if err := end(); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}
	t.ends = nil
}

func (t *transforms) temp() (string, error) {
	dir, err := os.MkdirTemp("", "shoal-bench-")
	if err == nil {
		t.ends = append(t.ends, func() error { return os.RemoveAll(dir) })
	}
	return dir, err
}

// host makes a host whose children are this program.
func (t *transforms) host(ctx context.Context, o wasmetl.Options) (*wasmetl.Host, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if o.Dir, err = t.temp(); err != nil {
		return nil, err
	}
	o.Clock = wallClock{}
	o.Compile = func(ctx context.Context) *exec.Cmd { return exec.CommandContext(ctx, self, "-compile") }
	h, err := wasmetl.New(o)
	if err != nil {
		return nil, err
	}
	t.ends = append(t.ends, func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		return h.Close(ctx)
	})
	return h, nil
}

// wallClock is the machine's.
type wallClock struct{}

func (wallClock) Now() time.Time     { return time.Now() }
func (wallClock) Boot() core.Instant { return core.Instant(time.Now().UnixNano()) }
func (wallClock) Wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// cGuest is an example in C, as it is kept for the tests.
func cGuest(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join("wasmetl", "testdata", "c", name+".wasm"))
}

// goGuest builds an example in Go.
func (t *transforms) goGuest(ctx context.Context, name string, flags ...string) ([]byte, error) {
	dir, err := t.temp()
	if err != nil {
		return nil, err
	}
	out := filepath.Join(dir, name+".wasm")
	args := slices.Concat([]string{"build", "-buildmode=c-shared", "-o", out}, flags, []string{"./wasmetl/guest/go/examples/" + name})
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w: %s", name, err, text)
	}
	return os.ReadFile(out)
}

// subject is something that is measured: what one operation does, and which other
// process it keeps busy.
type subject struct {
	do  func(ctx context.Context) error
	pid int
}

// speed is how fast a subject was.
type speed struct {
	rate float64 // operations a second
	cpu  float64 // microseconds each, of all processes
}

// turn runs a subject by some clients for a while.
func (s subject) turn(ctx context.Context, clients int, d time.Duration) (speed, error) {
	began, cpu := time.Now(), cpuOf(s.pid)
	var count atomic.Int64
	errs := make([]error, clients)
	var wg sync.WaitGroup
	for w := range clients {
		wg.Go(func() {
			for i := 0; i == 0 || time.Since(began) < d; i++ {
				if errs[w] = s.do(ctx); errs[w] != nil {
					return
				}
				count.Add(1)
			}
		})
	}
	wg.Wait()
	n := float64(count.Load())
	return speed{n / time.Since(began).Seconds(), float64((cpuOf(s.pid) - cpu).Microseconds()) / n}, errors.Join(errs...)
}

// turns runs subjects in turns, and gives the medians of each.
func (t *transforms) turns(ctx context.Context, clients int, subjects ...subject) ([]speed, error) {
	rates, cpus := make([][]float64, len(subjects)), make([][]float64, len(subjects))
	for range t.o.rounds {
		for i, s := range subjects {
			got, err := s.turn(ctx, clients, t.o.cell)
			if err != nil {
				return nil, err
			}
			rates[i], cpus[i] = append(rates[i], got.rate), append(cpus[i], got.cpu)
		}
	}
	out := make([]speed, len(subjects))
	for i := range subjects {
		out[i] = speed{median(rates[i]), median(cpus[i])}
	}
	return out, nil
}

// cpuOf is the CPU time of this process and another one (0: none).
func cpuOf(pid int) time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	used := time.Duration(u.Utime.Nano() + u.Stime.Nano())
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if pid == 0 || err != nil {
		return used
	}
	// User and system time are fields 14 and 15, in ticks of 10 ms; the second may
	// have blanks and ends in the last parenthesis.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	for _, f := range fields[11:13] {
		ticks, _ := strconv.ParseInt(f, 10, 64)
		used += time.Duration(ticks) * 10 * time.Millisecond
	}
	return used
}

// discard is an output that goes nowhere.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }
func (discard) Abort(error)                 {}

func toNowhere(context.Context, core.TransformOutputInfo) (core.TransformOutput, error) {
	return discard{}, nil
}

// transform is a subject that passes data through a guest.
func transform(h *wasmetl.Host, ref core.TransformRef, data []byte, args map[string]string) subject {
	return subject{do: func(ctx context.Context) error {
		r, err := h.RunTransform(ctx, core.TransformCall{Transform: ref, Data: data, Args: args, Output: toNowhere})
		if err == nil && r.Outcome != core.TransformDone {
			err = fmt.Errorf("%s: %v %w", ref.Name, r.Outcome, r.Failure)
		}
		return err
	}}
}

// overhead compares identity by each interface with the same by a process that is
// asked over HTTP.
func (t *transforms) overhead(ctx context.Context) error {
	h, err := t.host(ctx, wasmetl.Options{})
	if err != nil {
		return err
	}
	goIdentity, err := t.goGuest(ctx, "identity")
	if err != nil {
		return err
	}
	var refs []core.TransformRef
	for _, g := range []struct{ name, file string }{{"shoal_v1 in C", "identity"}, {"wasi in C", "identitywasi"}, {"shoal_v1 in Go", ""}} {
		wasm := goIdentity
		if g.file != "" {
			if wasm, err = cGuest(g.file); err != nil {
				return err
			}
		}
		ref, err := h.Install(ctx, wasmetl.Spec{Name: strings.ReplaceAll(g.name, " ", "-")}, wasm)
		if err != nil {
			return err
		}
		refs = append(refs, ref)
	}
	url, pid, err := t.sidecar(ctx)
	if err != nil {
		return err
	}
	t.line("## What a transform costs, against one in a process that is asked over HTTP\n")
	t.line("Identity, one client. The sidecar is a net/http server on loopback that reads a body and answers with it, on connections that are kept. Targets: shoal_v1 >= 3 times the sidecar up to 64 KiB, and at most 30 us of CPU at 1 KiB.\n")
	t.line("| object | sidecar, /s | CPU, us | shoal_v1 in C, /s | CPU, us | ratio | wasi in C, /s | CPU, us | ratio | shoal_v1 in Go, /s | CPU, us | ratio |")
	t.line("| --- | %s", strings.Repeat("---: | ", 11))
	for _, size := range []int{1 << 10, 4 << 10, 64 << 10, 1 << 20} {
		data := payload(size)
		subjects := []subject{{do: asker(url, data), pid: pid}}
		for _, ref := range refs {
			subjects = append(subjects, transform(h, ref, data, nil))
		}
		got, err := t.turns(ctx, 1, subjects...)
		if err != nil {
			return err
		}
		row := []string{fmt.Sprintf("| %s | %.0f | %.0f |", sizeName(size), got[0].rate, got[0].cpu)}
		for _, g := range got[1:] {
			row = append(row, fmt.Sprintf(" %.0f | %.1f | %.1f |", g.rate, g.cpu, g.rate/got[0].rate))
		}
		t.line("%s", strings.Join(row, ""))
	}
	t.line("")
	return nil
}

// sidecar starts this program as a server that answers with what it is sent.
func (t *transforms) sidecar(ctx context.Context) (url string, pid int, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", 0, err
	}
	cmd := exec.CommandContext(ctx, self, "-sidecar")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", 0, err
	}
	in, err := cmd.StdinPipe() // its end is the sidecar's
	if err != nil {
		return "", 0, err
	}
	if err := cmd.Start(); err != nil {
		return "", 0, err
	}
	t.ends = append(t.ends, func() error { return errors.Join(in.Close(), cmd.Wait()) })
	if _, err := fmt.Fscanln(out, &url); err != nil {
		return "", 0, fmt.Errorf("the sidecar does not start: %w", err)
	}
	return url, cmd.Process.Pid, nil
}

// serveSidecar serves until standard input ends.
func serveSidecar(ctx context.Context, in io.Reader, out io.Writer) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	pool := sync.Pool{New: func() any { return new(bytes.Buffer) }}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b := pool.Get().(*bytes.Buffer)
		defer pool.Put(b)
		b.Reset()
		if _, err := b.ReadFrom(r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
		_, _ = w.Write(b.Bytes())
	})}
	go func() {
		_, _ = io.Copy(io.Discard, in)
		_ = s.Close()
	}()
	fmt.Fprintf(out, "http://%s/\n", l.Addr())
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// asker sends data to a sidecar and reads the answer.
func asker(url string, data []byte) func(context.Context) error {
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	return func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodPut, url, bytes.NewReader(data))
		if err != nil {
			return err
		}
		resp, err := client.Do(r)
		if err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, resp.Body)
		if err == nil && n != int64(len(data)) {
			err = fmt.Errorf("the sidecar answered with %d bytes of %d", n, len(data))
		}
		return errors.Join(err, resp.Body.Close())
	}
}
