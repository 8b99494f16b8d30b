package wasmetl

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/wasmetl/meter"
)

// Defaults.
const (
	DefaultTimeout = 45 * time.Second
	// DefaultRate is added to the timeout, as the time of the object's size, in
	// bytes a second.
	DefaultRate = 4 << 20

	defaultStall   = 30 * time.Second
	defaultLog     = 16 << 10
	defaultOutputs = 10_000
	defaultOutput  = 64 << 20 // or outputRatio times the input
	outputRatio    = 16
	defaultBudget  = 2 << 30
	defaultQueue   = 256
	// stackReserve is what an instance's stack may take of the Go heap: wazero
	// doubles it up to 84 MB, and copies it.
	stackReserve = 128 << 20
	maxCalls     = 10_000 // of a pooled instance
	maxFailures  = 20     // in a row
	defaultCache = 1 << 30
	digestPrefix = "sha256:"
)

// Options say how to run transforms. The zero value of a field is its default;
// Dir, Compile and Clock have none.
type Options struct {
	// Dir keeps compiled code. It survives restarts, and may be removed while
	// no host uses it.
	Dir string
	// CacheSize is what Dir may hold, in bytes, beside the code of modules that
	// are loaded; 1 GiB. What was not needed for longest goes first.
	CacheSize int64
	// Compile gives a process of this same program that calls [CompileChild]
	// and exits with 0, or 1 if that gives an error.
	Compile func(ctx context.Context) *exec.Cmd
	Clock   core.Clock
	Logger  *slog.Logger
	// Budget is what all instances may take of the node's memory, in bytes.
	Budget int64
	// Running is the number of guests that run at a time: GOMAXPROCS-1, at
	// least one.
	Running int
	// Queue is how many calls, and as many jobs, may wait; 256.
	Queue int
	// Stall is how long neither the source nor the output may move; 30 s.
	Stall time.Duration
	// MaxModule is the size of the largest module, in bytes; 64 MiB.
	MaxModule int
	// MaxOutput is what a call may write in all, in bytes, if that is more than
	// 16 times its input; 64 MiB.
	MaxOutput int64
	// MaxOutputs is how many outputs an object may become; 10,000.
	MaxOutputs int
	// CompileCPU and CompileMemory limit the compilation of a module; 30 s and
	// 2 GiB.
	CompileCPU    time.Duration
	CompileMemory int64
}

// Spec is a transform: a module by a name, with settings.
type Spec struct {
	Name string
	// Memory is the limit of an instance's memory in bytes; 64 MiB.
	Memory int64
	// Timeout is the time for an object, to which that of its size at
	// [DefaultRate] is added; 45 s.
	Timeout time.Duration
	Args    map[string]string
	Env     map[string]string
	// Fresh says that every object gets an instance of its own, as with WASI.
	Fresh bool
}

// ErrStopped refuses a transform that is stopped. It is [core.ErrUnavailable].
var ErrStopped = fmt.Errorf("%w: the transform is stopped", core.ErrUnavailable)

// Host keeps transforms and runs them. It is safe for concurrent use.
type Host struct {
	dir        string
	cacheSize  int64
	compiler   compiler
	clock      core.Clock
	log        *slog.Logger
	stall      time.Duration
	maxModule  int
	maxOutput  int64
	maxOutputs int
	buffers    sync.Pool // of *[bufferSize]byte
	chunks     sync.Pool // of *[readAheadSize]byte
	ledger     *gate
	turns      *gate

	mu       sync.Mutex
	names    map[string]*transform            // what a name stands for
	versions map[core.TransformRef]*transform // those, and what is pinned
	modules  map[string]*loading              // by digest
	idle     int                              // instances in pools
	ended    sync.Cond                        // on mu: something is not used any more
	closed   bool
}

var _ core.TransformRunner = (*Host)(nil)

// loading is a module that is there, or will be once ready is closed.
type loading struct {
	ready chan struct{}
	m     *module
	err   error
	refs  int
}

// transform is a version of a transform.
type transform struct {
	ref    core.TransformRef
	spec   Spec
	module *module
	stats  stats

	// Guarded by the host's mu.
	refs     int // calls, pins, and the name
	idle     []*instance
	stopped  bool
	failures int // in a row
}

// New returns a host without transforms. It starts nothing.
func New(o Options) (*Host, error) {
	if o.Dir == "" || o.Compile == nil || o.Clock == nil {
		return nil, fmt.Errorf("%w: a host of transforms needs a directory, a way to compile and a clock", core.ErrInvalid)
	}
	logger := o.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	queue := or(o.Queue, defaultQueue)
	h := &Host{
		dir:        o.Dir,
		cacheSize:  or(o.CacheSize, defaultCache),
		clock:      o.Clock,
		log:        logger,
		stall:      or(o.Stall, defaultStall),
		maxModule:  o.MaxModule,
		maxOutput:  or(o.MaxOutput, defaultOutput),
		maxOutputs: or(o.MaxOutputs, defaultOutputs),
		ledger:     newGate("bytes of memory", or(o.Budget, defaultBudget), queue),
		turns:      newGate("turns to run", int64(or(o.Running, max(1, runtime.GOMAXPROCS(0)-1))), queue),
		names:      map[string]*transform{},
		versions:   map[core.TransformRef]*transform{},
		modules:    map[string]*loading{},
		compiler: compiler{
			command: o.Compile,
			cpu:     or(o.CompileCPU, compileCPU), wall: compileWall,
			memory: or(o.CompileMemory, compileMemory),
			one:    make(chan struct{}, 1),
		},
	}
	h.ended.L = &h.mu
	return h, nil
}

func or[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

// Install checks a module, has it compiled, loads it, and makes the name stand
// for it. Calls that run, and pins, go on with what the name stood for before.
// Errors are [core.ErrInvalid] or [core.ErrTooLarge] if it is the module's fault.
func (h *Host) Install(ctx context.Context, spec Spec, wasm []byte) (core.TransformRef, error) {
	spec.Memory, spec.Timeout = or(spec.Memory, DefaultMemory), or(spec.Timeout, DefaultTimeout)
	if err := spec.validate(); err != nil {
		return core.TransformRef{}, err
	}
	if need := spec.Memory + stackReserve; need > h.ledger.capacity {
		return core.TransformRef{}, fmt.Errorf("%w: an instance takes %d MiB, the node has %d MiB for transforms: lower --memory, or give the node more", core.ErrInvalid, need>>20, h.ledger.capacity>>20)
	}
	report, err := Check(wasm, spec.Memory, h.maxModule)
	if err != nil {
		return core.TransformRef{}, fmt.Errorf("transform %s: %w", spec.Name, err)
	}
	ref := core.TransformRef{Name: spec.Name, Digest: report.Digest}
	h.mu.Lock()
	same := h.names[spec.Name]
	h.mu.Unlock()
	if same != nil && same.ref == ref && reflect.DeepEqual(same.spec, spec) {
		return ref, nil
	}
	m, err := h.acquire(ctx, report)
	if err != nil {
		return core.TransformRef{}, fmt.Errorf("transform %s: %w", spec.Name, err)
	}
	t := &transform{ref: ref, spec: spec, module: m, refs: 1}
	h.mu.Lock()
	before := h.names[spec.Name]
	h.names[spec.Name], h.versions[ref] = t, t
	h.mu.Unlock()
	if before != nil {
		h.release(context.WithoutCancel(ctx), before)
	}
	return ref, nil
}

func (s Spec) validate() error {
	if s.Name == "" || strings.ContainsAny(s.Name, "@&?/ \x00>") {
		return fmt.Errorf("%w: the name %q of a transform: use letters, digits, - and _", core.ErrInvalid, s.Name)
	}
	if s.Timeout < 0 {
		return fmt.Errorf("%w: a timeout of %v", core.ErrInvalid, s.Timeout)
	}
	for k, v := range s.Env {
		if k == "" || strings.ContainsAny(k, "=\x00") || strings.Contains(v, "\x00") {
			return fmt.Errorf("%w: the variable %q", core.ErrInvalid, k)
		}
	}
	return validArgs(s.Args)
}

func validArgs(args map[string]string) error {
	for k, v := range args {
		if k == "" || strings.ContainsAny(k, "=\x00") || strings.Contains(v, "\x00") {
			return fmt.Errorf("%w: the argument %q", core.ErrInvalid, k)
		}
	}
	return nil
}

// acquire gives the loaded module of a digest, and counts its use.
func (h *Host) acquire(ctx context.Context, report *Report) (*module, error) {
	digest := report.Digest
	for {
		h.mu.Lock()
		if h.closed {
			h.mu.Unlock()
			return nil, fmt.Errorf("%w: the host of transforms is closed", core.ErrUnavailable)
		}
		l := h.modules[digest]
		if l == nil {
			l = &loading{ready: make(chan struct{}), refs: 1}
			h.modules[digest] = l
			h.mu.Unlock()
			l.m, l.err = h.load(ctx, report)
			h.mu.Lock()
			if l.err != nil {
				delete(h.modules, digest)
			}
			h.mu.Unlock()
			close(l.ready)
			return l.m, l.err
		}
		l.refs++
		h.mu.Unlock()
		select {
		case <-l.ready:
		case <-ctx.Done():
			<-l.ready // its use is counted, so that it cannot be left now
			h.releaseModule(context.WithoutCancel(ctx), digest, l)
			return nil, context.Cause(ctx)
		}
		if l.err == nil {
			return l.m, nil
		}
		if !errors.Is(l.err, context.Canceled) && !errors.Is(l.err, context.DeadlineExceeded) {
			return nil, l.err
		}
		// Who loaded it was called off; that is no answer for us.
	}
}

func (h *Host) load(ctx context.Context, report *Report) (*module, error) {
	metered := report.module.Rewrite(meter.Options{})
	report.module = nil // the bytes are not needed any more
	sum, err := hex.DecodeString(strings.TrimPrefix(report.Digest, digestPrefix))
	if err != nil {
		return nil, fmt.Errorf("digest: %w", err)
	}
	dir := filepath.Join(h.dir, hex.EncodeToString(sum))
	if err := h.compiler.compile(ctx, dir, metered); err != nil {
		return nil, err
	}
	m, err := load(context.WithoutCancel(ctx), dir, report, metered)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(h.used(dir), h.prune(ctx)); err != nil && ctx.Err() == nil {
		h.log.WarnContext(ctx, "compiled code of transforms cannot be bounded", "dir", h.dir, "err", err)
	}
	return m, nil
}

// releaseModule takes back what acquire gave.
func (h *Host) releaseModule(ctx context.Context, digest string, l *loading) {
	h.mu.Lock()
	l.refs--
	last := l.refs == 0 && l.err == nil
	if last {
		delete(h.modules, digest)
	}
	h.mu.Unlock()
	if !last {
		return
	}
	if err := l.m.close(ctx); err != nil {
		h.log.ErrorContext(ctx, "close the code of a transform", "digest", digest, "err", err)
	}
}

// use finds what a reference means, and counts its use.
func (h *Host) use(ref core.TransformRef) (*transform, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.names[ref.Name]
	if ref.Digest != "" {
		t = h.versions[ref]
	}
	switch {
	case h.closed:
		return nil, fmt.Errorf("%w: the host of transforms is closed", core.ErrUnavailable)
	case t == nil:
		return nil, fmt.Errorf("transform %s: %w", ref, core.ErrNotFound)
	}
	t.refs++
	return t, nil
}

// release takes back what use gave. A version that nobody uses any more is
// given up, with its instances.
func (h *Host) release(ctx context.Context, t *transform) {
	h.mu.Lock()
	t.refs--
	if t.refs > 0 {
		h.mu.Unlock()
		return
	}
	if h.versions[t.ref] == t {
		delete(h.versions, t.ref)
	}
	idle := t.idle
	t.idle = nil
	h.idle -= len(idle)
	l := h.modules[t.ref.Digest]
	h.mu.Unlock()
	for _, in := range idle {
		h.closeIdle(ctx, in)
	}
	h.releaseModule(ctx, t.ref.Digest, l)
	h.mu.Lock()
	h.ended.Broadcast()
	h.mu.Unlock()
}

// Pin keeps a version, also if it is replaced or removed, until release is called.
func (h *Host) Pin(ctx context.Context, ref core.TransformRef) (pinned core.TransformRef, release func(), err error) {
	t, err := h.use(ref)
	if err != nil {
		return core.TransformRef{}, nil, err
	}
	return t.ref, sync.OnceFunc(func() { h.release(context.WithoutCancel(ctx), t) }), nil
}

// Remove takes a name away. Calls that run, and pins, go on.
func (h *Host) Remove(ctx context.Context, name string) error {
	h.mu.Lock()
	t := h.names[name]
	delete(h.names, name)
	h.mu.Unlock()
	if t == nil {
		return fmt.Errorf("transform %s: %w", name, core.ErrNotFound)
	}
	h.release(context.WithoutCancel(ctx), t)
	return nil
}

// Stop refuses calls of a transform from now on; those that run go on. Start
// allows them again.
func (h *Host) Stop(name string) error { return h.setStopped(name, true) }

// Start allows calls of a transform that was stopped, by [Host.Stop] or because
// it failed too often.
func (h *Host) Start(name string) error { return h.setStopped(name, false) }

func (h *Host) setStopped(name string, stopped bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.names[name]
	if t == nil {
		return fmt.Errorf("transform %s: %w", name, core.ErrNotFound)
	}
	t.stopped, t.failures = stopped, 0
	return nil
}

// Transform describes a transform that is there.
type Transform struct {
	Ref     core.TransformRef
	Spec    Spec
	Report  Report
	Stopped bool
	Idle    int // instances in its pool
	Stats   Stats
}

// List describes all transforms that names stand for, in their order.
func (h *Host) List() []Transform {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := make([]Transform, 0, len(h.names))
	for _, name := range slices.Sorted(maps.Keys(h.names)) {
		t := h.names[name]
		list = append(list, Transform{
			Ref: t.ref, Spec: t.spec, Report: *t.module.report,
			Stopped: t.stopped, Idle: len(t.idle), Stats: t.stats.snapshot(),
		})
	}
	return list
}

// Usage is what transforms take of the node.
type Usage struct {
	// Memory is reserved for instances, of Budget, in bytes.
	Memory, Budget int64
	// Running guests have a turn, of Turns; Waiting ones want one.
	Running, Turns int64
	Waiting        int
	Idle           int // instances in pools
}

// Usage tells what transforms take now.
func (h *Host) Usage() Usage {
	h.mu.Lock()
	idle := h.idle
	h.mu.Unlock()
	memory, waitMemory := h.ledger.usage()
	running, waitTurn := h.turns.usage()
	return Usage{
		Memory: memory, Budget: h.ledger.capacity, Running: running, Turns: h.turns.capacity,
		Waiting: waitMemory + waitTurn, Idle: idle,
	}
}

func (g *gate) usage() (used int64, waiting int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range g.waiting {
		waiting += len(w)
	}
	return g.capacity - g.free, waiting
}

// Close removes all transforms, and waits until all calls and pins have ended.
func (h *Host) Close(ctx context.Context) error {
	h.mu.Lock()
	h.closed = true
	names := slices.Collect(maps.Keys(h.names))
	h.mu.Unlock()
	for _, name := range names {
		if err := h.Remove(ctx, name); err != nil && !errors.Is(err, core.ErrNotFound) {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.ended.Broadcast()
	})
	defer stop()
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.modules) > 0 {
		if ctx.Err() != nil {
			return fmt.Errorf("transforms still run: %w", context.Cause(ctx))
		}
		h.ended.Wait()
	}
	return nil
}
