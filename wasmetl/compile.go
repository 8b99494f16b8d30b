package wasmetl

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/shoalstore/shoal/core"
)

// Limits of a compilation.
const (
	compileCPU    = 30 * time.Second
	compileWall   = 3 * time.Minute
	compileMemory = 2 << 30
)

// ErrCompileLimit says that compiling a module takes more time or memory than it
// may. It is [core.ErrTooLarge].
var ErrCompileLimit = fmt.Errorf("%w: compiling the module takes too much", core.ErrTooLarge)

// compiler compiles metered modules into directories of wazero's cache, in child
// processes.
type compiler struct {
	command func(ctx context.Context) *exec.Cmd
	cpu     time.Duration
	wall    time.Duration
	memory  int64
	one     chan struct{} // one child at a time
}

// compileOrder goes before the module on the child's standard input, with its
// length in four bytes.
type compileOrder struct {
	Dir    string `json:"dir"`
	CPU    int64  `json:"cpu_seconds"`
	Memory int64  `json:"memory_bytes"`
}

// compileAnswer is the child's standard output.
type compileAnswer struct {
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
}

// compile makes sure that dir has the compiled code of a module, for this machine
// and this version. It starts a child even if dir has something: only the same
// program can tell whether it will do.
func (c *compiler) compile(ctx context.Context, dir string, metered []byte) error {
	select {
	case c.one <- struct{}{}:
		defer func() { <-c.one }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("directory for compiled transforms: %w", err)
	}
	before, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("directory for compiled transforms: %w", err)
	}
	err = c.child(ctx, dir, metered)
	if err == nil || len(before) == 0 || ctx.Err() != nil {
		return err
	}
	// What was there may be damaged.
	if rmErr := os.RemoveAll(dir); rmErr != nil {
		return fmt.Errorf("compiled code that cannot be used (%w) and not be removed: %w", err, rmErr)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("directory for compiled transforms: %w", err)
	}
	return c.child(ctx, dir, metered)
}

func (c *compiler) child(ctx context.Context, dir string, metered []byte) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.wall, ErrCompileLimit)
	defer cancel()
	order, err := json.Marshal(compileOrder{Dir: dir, CPU: int64((c.cpu + time.Second - 1) / time.Second), Memory: c.memory})
	if err != nil {
		return fmt.Errorf("compile: %w", err)
	}
	head := append(binary.LittleEndian.AppendUint32(nil, uint32(len(order))), order...)
	var stdout, stderr limitedBuffer
	cmd := c.command(ctx)
	cmd.Stdin = io.MultiReader(bytes.NewReader(head), bytes.NewReader(metered))
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 5 * time.Second
	runErr := cmd.Run()

	var answer compileAnswer
	if json.Unmarshal(stdout.b, &answer) == nil && (answer.OK || answer.Error != "") {
		if answer.OK {
			return nil
		}
		return &ModuleError{[]string{answer.Error}}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("compile: %w", context.Cause(ctx))
	}
	if state := cmd.ProcessState; state != nil && (killed(state) || outOfMemory(stderr.b)) {
		return fmt.Errorf("%w: limits are %v of CPU time and %d MiB; it had %v (split large functions, or build with less inlining)",
			ErrCompileLimit, c.cpu, c.memory>>20, state.UserTime()+state.SystemTime())
	}
	return fmt.Errorf("the process that compiles transforms ended without an answer: %w%s", errors.Join(runErr, core.ErrUnavailable), lastLine(stderr.b))
}

// killed says that the kernel ended the child: its CPU time was up, or the machine
// had no memory for it. The times that it then tells may be below the limit.
func killed(state *os.ProcessState) bool {
	status, ok := state.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && (status.Signal() == syscall.SIGKILL || status.Signal() == syscall.SIGXCPU)
}

func outOfMemory(stderr []byte) bool {
	return bytes.Contains(stderr, []byte("out of memory")) || bytes.Contains(stderr, []byte("cannot allocate memory"))
}

func lastLine(b []byte) string {
	text := strings.TrimSpace(string(b))
	if text == "" {
		return ""
	}
	first, _, _ := strings.Cut(text, "\n")
	return " (" + first + ")"
}

// limitedBuffer keeps the beginning of what is written.
type limitedBuffer struct{ b []byte }

func (l *limitedBuffer) Write(p []byte) (int, error) {
	l.b = append(l.b, p[:min(len(p), 64<<10-len(l.b))]...)
	return len(p), nil
}

// CompileChild is the whole of a process that [Options.Compile] starts: it takes
// its orders from stdin, limits itself, compiles, and answers on stdout. An error
// means that there is no answer.
func CompileChild(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	var length [4]byte
	if _, err := io.ReadFull(stdin, length[:]); err != nil {
		return fmt.Errorf("read the order to compile: %w", err)
	}
	n := binary.LittleEndian.Uint32(length[:])
	if n > 1<<20 {
		return fmt.Errorf("%w: an order to compile of %d bytes", core.ErrInvalid, n)
	}
	raw := make([]byte, n)
	var order compileOrder
	if _, err := io.ReadFull(stdin, raw); err != nil {
		return fmt.Errorf("read the order to compile: %w", err)
	}
	if err := json.Unmarshal(raw, &order); err != nil {
		return fmt.Errorf("%w: an order to compile: %w", core.ErrInvalid, err)
	}
	runtime.GOMAXPROCS(1)
	debug.SetMemoryLimit(order.Memory * 3 / 4)
	if err := limitProcess(order.CPU, order.Memory); err != nil {
		return fmt.Errorf("limit the process that compiles: %w", err)
	}
	metered, err := io.ReadAll(stdin)
	if err != nil {
		return fmt.Errorf("read the module to compile: %w", err)
	}
	answer := compileAnswer{OK: true}
	if err := compileInto(ctx, order.Dir, metered); err != nil {
		answer = compileAnswer{Error: err.Error()}
	}
	return json.NewEncoder(stdout).Encode(answer)
}

func compileInto(ctx context.Context, dir string, metered []byte) (err error) {
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return fmt.Errorf("cache of compiled code: %w", err)
	}
	defer func() { err = errors.Join(err, cache.Close(ctx)) }()
	r := wazero.NewRuntimeWithConfig(ctx, runtimeConfig().WithCompilationCache(cache))
	defer func() { err = errors.Join(err, r.Close(ctx)) }()
	if _, err := r.CompileModule(ctx, metered); err != nil {
		return fmt.Errorf("the module is not valid: %w", err)
	}
	return nil
}

// runtimeConfig is the same for the child and the node, or they would not find
// each other's code.
func runtimeConfig() wazero.RuntimeConfig {
	return wazero.NewRuntimeConfig().
		WithCoreFeatures(api.CoreFeaturesV2).
		WithDebugInfoEnabled(false).
		WithCloseOnContextDone(false)
}
