package wasmetl

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/wasmetl/meter"
)

// module is compiled code that is loaded, with the host's functions for it. It
// has a runtime of its own, so that closing it touches nothing else.
type module struct {
	report   *Report
	runtime  wazero.Runtime
	cache    wazero.CompilationCache
	compiled wazero.CompiledModule
}

// load takes compiled code from dir, where it has just been made sure of.
func load(ctx context.Context, dir string, report *Report, metered []byte) (m *module, err error) {
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cache of compiled code: %w", err)
	}
	m = &module{report: report, cache: cache, runtime: wazero.NewRuntimeWithConfig(ctx, runtimeConfig().WithCompilationCache(cache))}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.close(ctx))
			m = nil
		}
	}()
	if err := m.hostModules(ctx); err != nil {
		return m, fmt.Errorf("host functions: %w", err)
	}
	if m.compiled, err = m.runtime.CompileModule(ctx, metered); err != nil {
		return m, fmt.Errorf("load compiled code: %w", err)
	}
	return m, nil
}

func (m *module) close(ctx context.Context) error {
	return errors.Join(m.runtime.Close(ctx), m.cache.Close(ctx))
}

func (m *module) hostModules(ctx context.Context) error {
	poll := m.runtime.NewHostModuleBuilder(meter.PollModule).NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(pollFunction), nil, nil).Export(meter.PollName)
	if _, err := poll.Instantiate(ctx); err != nil {
		return err
	}
	wasi := m.runtime.NewHostModuleBuilder(wasiModule)
	wasi_snapshot_preview1.NewFunctionExporter().ExportFunctions(wasi)
	// wazero's own closes the instance, which is for the one who runs it to do.
	wasi.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(exitFunction), []api.ValueType{api.ValueTypeI32}, nil).Export("proc_exit")
	if _, err := wasi.Instantiate(ctx); err != nil {
		return err
	}
	shoal := m.runtime.NewHostModuleBuilder(shoalModule)
	for _, f := range shoalFunctions() {
		shoal.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, mod api.Module, stack []uint64) {
			c := callOf(ctx)
			c.check()
			code := int32(codeInvalid)
			if c.started || !f.object {
				code = f.do(c, mod.Memory(), stack)
			}
			if f.result {
				stack[0] = api.EncodeI32(code)
			}
		}), f.params(), f.results()).Export(f.name)
	}
	_, err := shoal.Instantiate(ctx)
	return err
}

func pollFunction(ctx context.Context, _ api.Module, _ []uint64) {
	callOf(ctx).poll() //nolint:contextcheck // a call has a context of its own, made from the caller's
}

func exitFunction(_ context.Context, _ api.Module, stack []uint64) {
	panic(sys.NewExitError(uint32(stack[0])))
}

// instance is a module's instance with its memory. One goroutine uses it at a
// time, and only that one closes it.
type instance struct {
	mod   api.Module
	mem   *memory
	calls int
	base  int64 // size of the memory after its initialization
	// call is what it works on.
	call *call
}

// guestContext is the context with which guests are called: host functions
// find the call by it.
type guestContext struct {
	context.Context
	in *instance
}

func callOf(ctx context.Context) *call { return ctx.(guestContext).in.call }

// instantiate makes an instance for a call, and initializes it.
func (m *module) instantiate(c *call) (in *instance, err error) {
	in = &instance{call: c}
	if in.mem, err = newMemory(c.t.spec.Memory); err != nil {
		return nil, err
	}
	ctx := guestContext{experimental.WithMemoryAllocator(c.ctx, in.mem), in}
	in.mod, err = m.runtime.InstantiateModule(ctx, m.compiled, c.moduleConfig(in))
	if err == nil {
		err = in.initialize(ctx, m.report)
	}
	if err != nil {
		return nil, errors.Join(err, in.close(ctx))
	}
	in.base = int64(in.mem.size)
	return in, nil
}

func (in *instance) initialize(ctx context.Context, r *Report) error {
	if r.init {
		if _, err := in.mod.ExportedFunction("_initialize").Call(ctx); err != nil {
			return err
		}
	}
	if r.setup {
		result, err := in.mod.ExportedFunction("shoal_init").Call(ctx)
		if err != nil {
			return err
		}
		if code := api.DecodeI32(result[0]); code != 0 {
			return &core.TransformFailure{Class: classError, Code: code, Message: fmt.Sprintf("shoal_init returned %d", code)}
		}
	}
	return nil
}

// close gives everything back. Failing instantiations may have left the memory.
func (in *instance) close(ctx context.Context) error {
	var err error
	if in.mod != nil {
		err = in.mod.Close(ctx)
	}
	in.mem.Free()
	return err
}

// moduleConfig is what a guest sees through WASI.
func (c *call) moduleConfig(in *instance) wazero.ModuleConfig {
	config := wazero.NewModuleConfig().WithName("").WithStartFunctions().
		WithSysWalltime().WithSysNanotime().
		WithRandSource(randomSource{in}).WithStderr(guestLog{in})
	if c.t.module.report.ABI == ShoalV1 {
		config = config.WithArgs(c.t.ref.Name).WithStdout(guestLog{in})
		for _, k := range sortedKeys(c.t.spec.Env) {
			config = config.WithEnv(k, c.t.spec.Env[k])
		}
		return config
	}
	args := []string{c.t.ref.Name}
	for _, k := range sortedKeys(c.args) {
		args = append(args, k+"="+c.args[k])
	}
	config = config.WithArgs(args...).WithStdin(guestInput{in}).WithStdout(guestOutput{in})
	env := c.environment()
	for _, k := range sortedKeys(env) {
		config = config.WithEnv(k, env[k])
	}
	return config
}

// randomSource is real randomness, in pieces.
type randomSource struct{ in *instance }

func (r randomSource) Read(p []byte) (int, error) {
	r.in.call.check()
	return rand.Read(p[:min(len(p), 64<<10)])
}

type guestLog struct{ in *instance }

func (l guestLog) Write(p []byte) (int, error) {
	l.in.call.check()
	l.in.call.log.write(p)
	return len(p), nil
}

type guestInput struct{ in *instance }

func (i guestInput) Read(p []byte) (int, error) {
	c := i.in.call
	c.check()
	if len(p) == 0 {
		return 0, nil
	}
	n := c.read(p)
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

type guestOutput struct{ in *instance }

func (o guestOutput) Write(p []byte) (int, error) {
	c := o.in.call
	c.check()
	c.write(p)
	return len(p), nil
}
