package wasmetl_test

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/wasmetl"
	w "github.com/shoalstore/shoal/wasmetl/internal/wasmtest"
	"github.com/shoalstore/shoal/wasmetl/meter"
)

// discard is an output that goes nowhere.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }
func (discard) Abort(error)                 {}

func openDiscard(context.Context, core.TransformOutputInfo) (core.TransformOutput, error) {
	return discard{}, nil
}

// BenchmarkCall is a whole call, by guest and size of the object.
func BenchmarkCall(b *testing.B) {
	h := newHost(b, wasmetl.Options{})
	for _, g := range []struct {
		name string
		wasm func() []byte
	}{
		{"v1-identity-hand", identity},
		{"v1-identity-c", func() []byte { return cGuest(b, "identity") }},
		{"v1-upper-c-simd", func() []byte { return cGuest(b, "upper") }},
		{"v1-upper-c", func() []byte { return cGuest(b, "upper-scalar") }},
		{"wasi-identity-hand", wasiIdentity},
		{"wasi-upper-c", func() []byte { return cGuest(b, "upperwasi") }},
		{"v1-identity-go", func() []byte { return goGuest(b, "identity") }},
		{"wasi-upper-go", func() []byte { return goGuest(b, "upperwasi") }},
	} {
		var ref core.TransformRef
		for _, size := range []int{1 << 10, 4 << 10, 64 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("%s/%dKiB", g.name, size>>10), func(b *testing.B) {
				if ref.Name == "" {
					ref = install(b, h, wasmetl.Spec{Name: g.name}, g.wasm())
				}
				data := make([]byte, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				defer cpu(b)()
				for b.Loop() {
					r, err := h.RunTransform(b.Context(), core.TransformCall{Transform: ref, Data: data, Output: openDiscard})
					if err != nil || r.Outcome != core.TransformDone {
						b.Fatal(r.Failure, err)
					}
				}
			})
		}
	}
}

// BenchmarkMeter is the cost of the counter: the same guests with and without.
func BenchmarkMeter(b *testing.B) {
	kernel := &w.Module{}
	kernel.Export("run", kernel.Func(nil, []byte{w.I32}, []byte{w.I32, w.I32}, w.Code(i(1<<22), w.LocalSet(0), w.Loop, w.Void,
		w.LocalGet(1), i(31), w.I32Mul, w.LocalGet(0), w.I32Add, w.LocalSet(1),
		w.LocalGet(0), i(1), w.I32Sub, w.LocalTee(0), w.BrIf(0), w.End, w.LocalGet(1))))
	calls := &w.Module{}
	calls.Export("run", calls.Func(nil, []byte{w.I32}, nil, w.Code(i(30), w.Call(1))))
	calls.Func([]byte{w.I32}, []byte{w.I32}, nil, w.Code(w.LocalGet(0), i(2), w.I32LtU, w.If, w.I32, i(1), w.Else,
		w.LocalGet(0), i(1), w.I32Sub, w.Call(1), w.LocalGet(0), i(2), w.I32Sub, w.Call(1), w.I32Add, w.End))
	for _, g := range []struct {
		name string
		wasm func() []byte
	}{
		{"loop", kernel.Bytes},
		{"recursion", calls.Bytes},
		{"upper-c", func() []byte { return cGuest(b, "upper-scalar") }},
		{"upper-c-simd", func() []byte { return cGuest(b, "upper") }},
		{"grep-c", func() []byte { return cGuest(b, "grep") }},
	} {
		for _, metered := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/metered=%v", g.name, metered), func(b *testing.B) {
				wasm := g.wasm()
				if metered {
					m, err := meter.Parse(wasm, meter.Limits{})
					if err != nil {
						b.Fatal(err)
					}
					wasm = m.Rewrite(meter.Options{})
				}
				f := bare(b, wasm)
				defer cpu(b)()
				for b.Loop() {
					if _, err := f.Call(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// bare instantiates a guest with a host that gives it 4 MiB of the same bytes.
func bare(b *testing.B, wasm []byte) api.Function {
	ctx := b.Context()
	r := wazero.NewRuntime(ctx)
	b.Cleanup(func() { _ = r.Close(context.WithoutCancel(ctx)) })
	left := 0
	one := []api.ValueType{api.ValueTypeI32}
	host := r.NewHostModuleBuilder("shoal_v1")
	add := func(name string, arity int, f api.GoModuleFunc) {
		host.NewFunctionBuilder().WithGoModuleFunction(f, slices.Repeat(one, arity), one).Export(name)
	}
	text := []byte("some text with words, and lines\n")
	add("read", 2, func(_ context.Context, mod api.Module, stack []uint64) {
		if left == 0 {
			left = 64
		}
		if left--; left == 0 {
			stack[0] = 0
			return
		}
		p, _ := mod.Memory().Read(uint32(stack[0]), uint32(stack[1]))
		for n := 0; n < len(p); n += copy(p[n:], text) {
		}
		stack[0] = uint64(len(p))
	})
	add("write", 2, func(_ context.Context, _ api.Module, stack []uint64) { stack[0] = stack[1] })
	add("get", 4, func(_ context.Context, mod api.Module, stack []uint64) {
		mod.Memory().WriteString(uint32(stack[2]), "word")
		stack[0] = 4
	})
	add("drop", 0, func(_ context.Context, _ api.Module, stack []uint64) { stack[0] = 0 })
	host.NewFunctionBuilder().WithFunc(func(int32, int32, int32) {}).Export("fail")
	if _, err := host.Instantiate(ctx); err != nil {
		b.Fatal(err)
	}
	if _, err := r.NewHostModuleBuilder(meter.PollModule).NewFunctionBuilder().WithFunc(func() {}).Export(meter.PollName).Instantiate(ctx); err != nil {
		b.Fatal(err)
	}
	mod, err := r.Instantiate(ctx, wasm)
	if err != nil {
		b.Fatal(err)
	}
	if f := mod.ExportedFunction("run"); f != nil {
		return f
	}
	return mod.ExportedFunction("shoal_transform")
}

// BenchmarkCollector is how long a collection of garbage takes while a guest spins.
func BenchmarkCollector(b *testing.B) {
	h := newHost(b, wasmetl.Options{})
	ref := install(b, h, wasmetl.Spec{Name: "spins"}, shoalGuest("", spin, ok).Bytes())
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = h.RunTransform(ctx, core.TransformCall{Transform: ref, Output: openDiscard})
	}()
	for h.Usage().Running == 0 {
		runtime.Gosched()
	}
	var times []time.Duration
	for b.Loop() {
		began := time.Now()
		runtime.GC()
		times = append(times, time.Since(began))
	}
	cancel()
	<-done
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-us")
}

// BenchmarkInstances is what a live instance takes: 200 wait for their objects.
func BenchmarkInstances(b *testing.B) {
	h := newHost(b, wasmetl.Options{Budget: 64 << 30})
	ref := install(b, h, wasmetl.Spec{Name: "x"}, identity())
	for b.Loop() {
		debug.FreeOSMemory()
		before := resident(b)
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan struct{}, 200)
		for range 200 {
			go func() {
				_, _ = h.RunTransform(ctx, core.TransformCall{Transform: ref, Body: newStalled(), Object: core.TransformObject{Size: -1}, Output: openDiscard})
				done <- struct{}{}
			}()
		}
		for h.Usage().Memory < 200*(64<<20) || h.Usage().Running+int64(h.Usage().Waiting) > 0 {
			runtime.Gosched()
		}
		b.ReportMetric(float64(resident(b)-before)/200/1024, "KiB/instance")
		cancel()
		for range 200 {
			<-done
		}
	}
}

// cpu reports the CPU time of the process for each operation: other work on the
// machine does not count.
func cpu(b *testing.B) func() {
	used := func() int64 {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op") }
}

func resident(b *testing.B) int64 {
	b.Helper()
	var size, pages int64
	if _, err := fmt.Sscan(string(readFile(b, "/proc/self/statm")), &size, &pages); err != nil {
		b.Fatal(err)
	}
	return pages * 4096
}
