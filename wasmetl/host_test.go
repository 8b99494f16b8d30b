package wasmetl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/wasmetl"
	w "github.com/shoalstore/shoal/wasmetl/internal/wasmtest"
)

const (
	childArg = "compile-as-a-child"
	// compilerEnv names the program that compiles.
	compilerEnv = "SHOAL_TEST_COMPILER"
)

// The binary of the tests is also the process that compiles; under the race detector
// that is a program of its own without it (see testdata/compiler).
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == childArg {
		if err := wasmetl.CompileChild(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if raceDetector {
		dir, err := os.MkdirTemp("", "compiler")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		compiler := filepath.Join(dir, "compiler")
		// The name of wazero's cache has its version, which binaries of tests do not know.
		build := exec.Command("go", "build", "-trimpath", "-ldflags=-X github.com/tetratelabs/wazero/internal/version.version=dev", "-o", compiler, "./testdata/compiler")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the compiler: %v\n%s", err, out)
			return 1
		}
		if err := os.Setenv(compilerEnv, compiler); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

func child(ctx context.Context) *exec.Cmd {
	if compiler := os.Getenv(compilerEnv); compiler != "" {
		return exec.CommandContext(ctx, compiler)
	}
	return ownChild(ctx)
}

// ownChild is a process of this same program.
func ownChild(ctx context.Context) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], childArg)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0") // or it sleeps for a second
	return cmd
}

type clock struct{}

func (clock) Now() time.Time     { return time.Now() }
func (clock) Boot() core.Instant { return core.Instant(time.Now().UnixNano()) }
func (clock) Wait(ctx context.Context, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ctx.Done()
	return nil
}

// setClock is a clock that a test sets.
type setClock struct {
	clock
	now time.Time
}

func (c *setClock) Now() time.Time { return c.now }

func newHost(t testing.TB, o wasmetl.Options) *wasmetl.Host {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Clock == nil {
		o.Clock = clock{}
	}
	if o.Compile == nil {
		o.Compile = child
	}
	h, err := wasmetl.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := h.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return h
}

func install(t testing.TB, h *wasmetl.Host, spec wasmetl.Spec, wasm []byte) core.TransformRef {
	t.Helper()
	ref, err := h.Install(t.Context(), spec, wasm)
	if err != nil {
		t.Fatalf("install %s: %v", spec.Name, err)
	}
	return ref
}

// sink collects outputs.
type sink struct {
	mu      sync.Mutex
	outputs []*collected
	limit   int // of bytes kept of each, about
}

type collected struct {
	s       *sink
	info    core.TransformOutputInfo
	b       bytes.Buffer
	closed  bool
	aborted error
}

func (s *sink) open(_ context.Context, o core.TransformOutputInfo) (core.TransformOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &collected{s: s, info: o}
	s.outputs = append(s.outputs, c)
	return c, nil
}

func (c *collected) Write(p []byte) (int, error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.closed || c.aborted != nil {
		return 0, errors.New("written after its end")
	}
	if c.b.Len() < c.s.limit {
		c.b.Write(p)
	}
	return len(p), nil
}

func (c *collected) Close() error {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.closed = true
	return nil
}

func (c *collected) Abort(err error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.aborted = err
}

// only is the one output that there has to be, complete.
func (s *sink) only(t *testing.T) string {
	t.Helper()
	if len(s.outputs) != 1 || !s.outputs[0].closed || s.outputs[0].aborted != nil {
		t.Fatalf("%d outputs, want one that is complete", len(s.outputs))
	}
	return s.outputs[0].b.String()
}

// run passes data through a transform.
func run(t testing.TB, h *wasmetl.Host, ref core.TransformRef, data string, change ...func(*core.TransformCall)) (core.TransformResult, *sink) {
	t.Helper()
	s := &sink{limit: 8 << 20}
	c := core.TransformCall{Transform: ref, Data: []byte(data), Output: s.open, Object: core.TransformObject{Bucket: "b", Key: "dir/k.txt"}}
	for _, f := range change {
		f(&c)
	}
	r, err := h.RunTransform(t.Context(), c)
	if err != nil {
		t.Fatalf("run %s: %v", ref, err)
	}
	return r, s
}

// The functions of shoal_v1 as guests made by shoalGuest have them.
const (
	fnRead = iota
	fnWrite
	fnGet
	fnSet
	fnEmit
	fnDrop
	fnLog
	fnFail
)

// shoalGuest is a module whose shoal_transform has this code and three i32
// locals. It has two pages of memory, which begin with data.
func shoalGuest(data string, code ...any) *w.Module {
	m := &w.Module{Memory: &w.Range{Min: 2}, Data: []byte(data)}
	one := func(n int) []byte { return bytes.Repeat([]byte{w.I32}, n) }
	for _, f := range []struct {
		name    string
		arity   int
		results []byte
	}{{"read", 2, one(1)}, {"write", 2, one(1)}, {"get", 4, one(1)}, {"set", 4, one(1)}, {"emit", 2, one(1)}, {"drop", 0, one(1)}, {"log", 3, nil}, {"fail", 3, nil}} {
		m.Import("shoal_v1", f.name, one(f.arity), f.results)
	}
	m.Export("shoal_transform", m.Func(nil, one(1), one(3), w.Code(code...)))
	m.ExportAs("memory", w.KindMemory, 0)
	return m
}

// i is a constant.
func i(v int32) []byte { return w.I32Const(v) }

// ok is the end of a function that returns 0.
var ok = i(0)

// copyAll is a loop that writes what it reads, in pieces of 4 KiB.
func copyAll() []byte {
	return w.Code(w.Block, w.Void, w.Loop, w.Void,
		i(1024), i(4096), w.Call(fnRead), w.LocalTee(0), i(1), 0x48 /* lt_s */, w.BrIf(1),
		i(1024), w.LocalGet(0), w.Call(fnWrite), i(0), 0x48, w.BrIf(1),
		w.Br(0), w.End, w.End)
}

func identity() []byte { return shoalGuest("", copyAll(), ok).Bytes() }

// wasiGuest is a command whose _start has this code. It has fd_read, fd_write,
// proc_exit.
func wasiGuest(data string, code ...any) *w.Module {
	m := &w.Module{Memory: &w.Range{Min: 2}, Data: []byte(data)}
	four := []byte{w.I32, w.I32, w.I32, w.I32}
	m.Import("wasi_snapshot_preview1", "fd_read", four, []byte{w.I32})
	m.Import("wasi_snapshot_preview1", "fd_write", four, []byte{w.I32})
	m.Import("wasi_snapshot_preview1", "proc_exit", []byte{w.I32}, nil)
	m.Export("_start", m.Func(nil, nil, []byte{w.I32, w.I32}, w.Code(code...)))
	m.ExportAs("memory", w.KindMemory, 0)
	return m
}

// wasiIdentity copies standard input to standard output. An iovec is at 0, the
// count at 8, the buffer at 1024.
func wasiIdentity() []byte {
	return wasiGuest("", i(0), i(1024), w.I32Store(0), w.Block, w.Void, w.Loop, w.Void,
		i(4), i(4096), w.I32Store(0),
		i(0), i(0), i(1), i(8), w.Call(0), w.BrIf(1),
		i(8), w.I32Load(0), w.LocalTee(0), w.I32Eqz, w.BrIf(1),
		i(4), w.LocalGet(0), w.I32Store(0),
		i(1), i(0), i(1), i(8), w.Call(1), w.BrIf(1),
		w.Br(0), w.End, w.End).Bytes()
}

func TestIdentity(t *testing.T) {
	h := newHost(t, wasmetl.Options{})
	big := strings.Repeat("a longer object that takes several chunks. ", 60_000)
	for name, wasm := range map[string][]byte{"v1": identity(), "wasi": wasiIdentity()} {
		ref := install(t, h, wasmetl.Spec{Name: name}, wasm)
		for _, data := range []string{"", "a", "hello", big} {
			for _, stream := range []bool{false, true} {
				r, s := run(t, h, ref, data, func(c *core.TransformCall) {
					if stream {
						c.Data, c.Body, c.Object.Size = nil, io.NopCloser(iotestReader{strings.NewReader(data)}), int64(len(data))
					}
				})
				if got := s.only(t); r.Outcome != core.TransformDone || got != data {
					t.Errorf("%s, %d bytes, stream %v: %v (%v), %d bytes", name, len(data), stream, r.Outcome, r.Failure, len(got))
				}
				if r.BytesIn != int64(len(data)) || r.BytesOut != int64(len(data)) || r.Transform != ref {
					t.Errorf("%s: result %+v", name, r)
				}
			}
		}
	}
	for _, l := range h.List() {
		if reused := l.Stats.Reused; l.Stats.Calls != 8 || l.Stats.Done != 8 || (l.Ref.Name == "v1") != (reused == 7) {
			t.Errorf("%s: %d calls, %d done, %d with an instance of the pool", l.Ref, l.Stats.Calls, l.Stats.Done, reused)
		}
	}
}

// iotestReader gives odd pieces.
type iotestReader struct{ r io.Reader }

func (r iotestReader) Read(p []byte) (int, error) { return r.r.Read(p[:min(len(p), 777)]) }

// together is an output that is complete once all are there.
type together struct {
	discard
	ctx  context.Context
	here chan<- struct{}
	all  <-chan struct{}
}

func (o together) Close() error {
	select {
	case o.here <- struct{}{}:
		<-o.all
		return nil
	case <-o.ctx.Done():
		return o.ctx.Err()
	}
}

// While the output of a call is stored others have its memory, and its instance.
func TestMemoryWhileStoring(t *testing.T) {
	const calls = 6
	h := newHost(t, wasmetl.Options{Budget: 200 << 20}) // one at a time
	ref := install(t, h, wasmetl.Spec{Name: "x"}, identity())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	here, all := make(chan struct{}), make(chan struct{})
	results := make(chan core.TransformResult, calls)
	for range calls {
		go func() {
			r, err := h.RunTransform(ctx, core.TransformCall{Transform: ref, Data: []byte("text"), Job: true, Output: func(context.Context, core.TransformOutputInfo) (core.TransformOutput, error) {
				return together{ctx: ctx, here: here, all: all}, nil
			}})
			if err != nil || r.Outcome != core.TransformDone {
				t.Errorf("got %v, %v", r.Failure, err)
			}
			results <- r
		}()
	}
	for n := range calls {
		select {
		case <-here:
		case <-ctx.Done():
			close(all)
			t.Fatalf("%d outputs of %d came so far as to be stored", n, calls)
		}
	}
	if u := h.Usage(); u.Running != 0 || u.Idle != 1 || u.Memory > 1<<20 {
		t.Errorf("while all is stored: %+v", u)
	}
	close(all)
	reused := 0
	for range calls {
		if r := <-results; r.Reused {
			reused++
		}
	}
	if reused != calls-1 {
		t.Errorf("%d calls of %d found the instance", reused, calls)
	}
}
