package meter_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/shoalstore/shoal/core"
	w "github.com/shoalstore/shoal/wasmetl/internal/wasmtest"
	"github.com/shoalstore/shoal/wasmetl/meter"
)

func newRuntime(t testing.TB) wazero.Runtime {
	t.Helper()
	r := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigInterpreter())
	t.Cleanup(func() { _ = r.Close(t.Context()) })
	return r
}

func rewrite(t testing.TB, wasm []byte, o meter.Options) []byte {
	t.Helper()
	m, err := meter.Parse(wasm, meter.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return m.Rewrite(o)
}

// outcome is what can be seen of a run.
func outcome(t *testing.T, r wazero.Runtime, wasm []byte) string {
	t.Helper()
	ctx := t.Context()
	mod, err := r.InstantiateWithConfig(ctx, wasm, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		t.Fatalf("instantiate: %v", err)
	}
	defer func() { _ = mod.Close(ctx) }()
	var b strings.Builder
	for _, args := range [][]uint64{{0, 1}, {77, 0xffffffff}} {
		v, err := mod.ExportedFunction("run").Call(ctx, args...)
		fmt.Fprintln(&b, v, firstLine(err))
	}
	mem, _ := mod.Memory().Read(0, mod.Memory().Size())
	h := uint64(14695981039346656037)
	for _, c := range mem[:4096] {
		h = (h ^ uint64(c)) * 1099511628211
	}
	fmt.Fprintln(&b, len(mem), h, mod.ExportedGlobal("g0").Get(), mod.ExportedGlobal("g1").Get())
	return b.String()
}

// Generated modules do the same, metered or not, and call the poll.
func TestGenerated(t *testing.T) {
	plain, metered := newRuntime(t), newRuntime(t)
	polls := 0
	poll(t, metered, &polls)
	ended, trapped, polled := 0, 0, 0
	for seed := range uint64(400) {
		wasm := w.Generate(seed)
		before := polls
		want, got := outcome(t, plain, wasm), outcome(t, metered, rewrite(t, wasm, meter.Options{Interval: 1}))
		if got != want {
			t.Errorf("seed %d: got\n%swant\n%s", seed, got, want)
		}
		if polls > before {
			polled++
		}
		if strings.Contains(want, "wasm error") {
			trapped++
		} else {
			ended++
		}
	}
	t.Logf("%d ended, %d trapped, %d called the poll, %d times", ended, trapped, polled, polls)
	if ended < 100 || trapped < 50 || polled < 350 {
		t.Errorf("%d ended, %d trapped, %d called the poll: not a fair sample", ended, trapped, polled)
	}
}

// Modules that use up their fuel end, and those that are called again then, too: the
// fuzzer has no other bound.
func TestGeneratedEnd(t *testing.T) {
	for _, seed := range []uint64{39426, 39831, 39935} {
		ctx := t.Context()
		mod, err := newRuntime(t).InstantiateWithConfig(ctx, w.Generate(seed), wazero.NewModuleConfig().WithName("").WithStartFunctions())
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for call := range 3 {
			_, err := mod.ExportedFunction("run").Call(ctx, 0, 1)
			if fuel := int32(mod.ExportedGlobal("fuel").Get()); fuel != 0 || err == nil || !strings.Contains(err.Error(), "unreachable") {
				t.Errorf("seed %d, call %d: fuel %d and %v, want a trap for want of fuel", seed, call, fuel, err)
			}
		}
	}
}

var errStop = errors.New("stopped")

// stopping gives a runtime a poll that ends the guest at its nth call.
func stopping(t *testing.T, r wazero.Runtime, n int, polls *int) {
	t.Helper()
	_, err := r.NewHostModuleBuilder(meter.PollModule).NewFunctionBuilder().
		WithGoFunction(api.GoFunc(func(context.Context, []uint64) {
			if *polls++; *polls >= n {
				panic(errStop)
			}
		}), nil, nil).Export(meter.PollName).Instantiate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
}

// forever are functions that do not end by themselves.
func forever() map[string]*w.Module {
	modules := map[string]*w.Module{}
	add := func(name string, code []byte) {
		m := &w.Module{Memory: &w.Range{Min: 16, Max: 16}, Table: &w.Range{Min: 1000}}
		m.Export("run", m.Func(nil, nil, []byte{w.I32}, code))
		modules[name] = m
	}
	add("empty loop", w.Code(w.Loop, w.Void, w.Br(0), w.End))
	add("loop of a table", w.Code(w.Loop, w.Void, w.I32Const(5), w.BrTable(0, 0), w.End))
	add("conditional loop", w.Code(w.Loop, w.Void, w.I32Const(1), w.BrIf(0), w.End))
	add("loops in a loop", w.Code(w.Loop, w.Void, w.Loop, w.Void, w.I32Const(0), w.BrIf(0), w.End, w.Br(0), w.End))
	add("loop left from inside", w.Code(w.Loop, w.Void, w.Block, w.Void, w.Loop, w.Void, w.Br(1), w.End, w.End, w.Br(0), w.End))
	add("branch over a loop", w.Code(w.Loop, w.Void, w.Loop, w.Void, w.Br(1), w.End, w.End))
	add("fill", w.Code(w.Loop, w.Void, w.I32Const(0), w.I32Const(1), w.I32Const(1<<20), w.MemoryFill(), w.Br(0), w.End))
	add("copy", w.Code(w.Loop, w.Void, w.I32Const(0), w.I32Const(1), w.I32Const(1<<19), w.MemoryCopy(), w.Br(0), w.End))
	add("table fill", w.Code(w.Loop, w.Void, w.I32Const(0), w.RefNull(), w.I32Const(1000), w.TableFill(), w.Br(0), w.End))
	add("grow", w.Code(w.Loop, w.Void, w.I32Const(0), w.MemoryGrow(), w.Drop, w.Br(0), w.End))
	add("table grow", w.Code(w.Loop, w.Void, w.RefNull(), w.I32Const(1), w.TableGrow(), w.Drop, w.Br(0), w.End))
	add("straight code", w.Code(w.Loop, w.Void, bytes.Repeat([]byte{w.Nop}, 100_000), w.Br(0), w.End))

	m := &w.Module{}
	unary := m.Type([]byte{w.I32}, []byte{w.I32})
	m.Export("run", m.Func(nil, nil, nil, w.Code(w.I32Const(1), w.Loop, w.S64(int64(unary)), w.Br(0), w.End, w.Drop)))
	modules["loop with a parameter"] = m

	m = &w.Module{Globals: []w.Global{{Type: w.I32, Init: w.I32Const(40)}}}
	// f: if depth: depth--; f(); f(); depth++
	m.Export("run", m.Func(nil, nil, nil, w.Code(
		w.GlobalGet(0), w.If, w.Void,
		w.GlobalGet(0), w.I32Const(1), w.I32Sub, w.GlobalSet(0), w.Call(0), w.Call(0),
		w.GlobalGet(0), w.I32Const(1), w.I32Add, w.GlobalSet(0), w.End)))
	modules["exponential recursion"] = m
	return modules
}

// What does not end is ended by the poll, which is called often enough: within
// so many executed steps.
func TestForever(t *testing.T) {
	for name, m := range forever() {
		t.Run(name, func(t *testing.T) {
			r, polls := newRuntime(t), 0
			stopping(t, r, 3, &polls)
			mod, err := r.Instantiate(t.Context(), rewrite(t, m.Bytes(), meter.Options{Interval: 1000}))
			if err != nil {
				t.Fatal(err)
			}
			if _, err = mod.ExportedFunction("run").Call(t.Context()); !errors.Is(err, errStop) {
				t.Errorf("got %v, want it stopped by the poll", err)
			}
		})
	}
}

// Whichever way a loop is left, what it took has been counted.
func TestLeaving(t *testing.T) {
	down := w.Code(w.LocalGet(0), w.I32Const(1), w.I32Sub, w.LocalTee(0), w.I32Eqz)
	again := w.Code(w.LocalGet(0), w.BrIf(0))
	for way, code := range map[string][]byte{
		"end":                     w.Code(w.Loop, w.Void, down, w.Drop, again, w.End),
		"end with a value":        w.Code(w.Loop, w.I32, w.I32Const(3), down, w.Drop, w.LocalGet(0), w.BrIf(0), w.End, w.Drop),
		"br":                      w.Code(w.Block, w.Void, w.Loop, w.Void, down, w.If, w.Void, w.Br(2), w.End, w.Br(0), w.End, w.End),
		"br_if":                   w.Code(w.Block, w.Void, w.Loop, w.Void, down, w.BrIf(1), w.Br(0), w.End, w.End),
		"br_if from the function": w.Code(w.Loop, w.Void, down, w.BrIf(1), w.Br(0), w.End),
		"br_table":                w.Code(w.Block, w.Void, w.Loop, w.Void, down, w.BrTable(0, 1), w.End, w.End),
		"return":                  w.Code(w.Loop, w.Void, down, w.If, w.Void, w.Return, w.End, w.Br(0), w.End),
		"to a block in a loop":    w.Code(w.Loop, w.Void, w.Block, w.Void, w.Loop, w.Void, down, w.BrIf(1), w.Br(0), w.End, w.End, w.End),
		"from a block":            w.Code(w.Block, w.Void, w.Loop, w.Void, w.Block, w.Void, w.Block, w.Void, down, w.BrIf(3), w.End, w.End, w.Br(0), w.End, w.End),
		"a call in it":            w.Code(w.Loop, w.Void, w.Call(1), down, w.Drop, again, w.End),
		"a fill in it":            w.Code(w.Loop, w.Void, w.I32Const(0), w.I32Const(0), w.I32Const(640), w.MemoryFill(), down, w.Drop, again, w.End),
	} {
		m := &w.Module{Memory: &w.Range{Min: 1}}
		m.Export("run", m.Func(nil, nil, []byte{w.I32}, w.Code(w.I32Const(50), w.LocalSet(0), code)))
		m.Func(nil, nil, nil, bytes.Repeat([]byte{w.Nop}, 300)) // of five steps
		r, polls := newRuntime(t), 0
		poll(t, r, &polls)
		mod, err := r.Instantiate(t.Context(), rewrite(t, m.Bytes(), meter.Options{Interval: 100}))
		if err != nil {
			t.Fatalf("%s: %v", way, err)
		}
		for range 100 {
			if _, err := mod.ExportedFunction("run").Call(t.Context()); err != nil {
				t.Fatalf("%s: %v", way, err)
			}
		}
		// A hundred runs, each of one step and fifty times those of the loop.
		want := 1 + 50*1
		switch way {
		case "a call in it":
			want = 1 + 50*(1+5)
		case "a fill in it":
			want = 1 + 50*(1+11)
		}
		if slack := want / 10; polls < want-slack || polls > want {
			t.Errorf("%s: %d polls, want about %d", way, polls, want)
		}
	}
}

// The weight of a step grows with the work that it pays for.
func TestWeights(t *testing.T) {
	polls := func(code []byte, runs int) int {
		m := &w.Module{Memory: &w.Range{Min: 16}}
		m.Export("run", m.Func(nil, nil, nil, code))
		r, n := newRuntime(t), 0
		poll(t, r, &n)
		mod, err := r.Instantiate(t.Context(), rewrite(t, m.Bytes(), meter.Options{Interval: 100}))
		if err != nil {
			t.Fatal(err)
		}
		for range runs {
			if _, err := mod.ExportedFunction("run").Call(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		return n
	}
	fill := func(n int32) []byte {
		return w.Code(w.I32Const(0), w.I32Const(0), w.I32Const(n), w.MemoryFill())
	}
	for _, tt := range []struct {
		what      string
		code      []byte
		runs      int
		low, high int
	}{
		{"leaf", w.Code(w.Nop), 1000, 0, 0},
		{"short loop", w.Code(w.Loop, w.Void, w.End), 1000, 19, 20},
		{"6,400 instructions", bytes.Repeat([]byte{w.Nop}, 6400), 100, 100, 101},
		{"64 KiB filled", fill(64 << 10), 100, 100, 101},
		{"6 KiB filled", fill(6 << 10), 100, 50, 100},
		{"growth", w.Code(w.I32Const(0), w.MemoryGrow(), w.Drop), 10, 10, 10},
	} {
		if n := polls(tt.code, tt.runs); n < tt.low || n > tt.high {
			t.Errorf("%s: %d polls in %d runs, want %d to %d", tt.what, n, tt.runs, tt.low, tt.high)
		}
	}
}

// A module cannot reach what the rewriter adds: such indices are refused.
func TestAddedThingsAreOutOfReach(t *testing.T) {
	base := func() *w.Module {
		return &w.Module{Globals: []w.Global{{Type: w.I32, Init: w.I32Const(0)}}, Table: &w.Range{Min: 5}}
	}
	for what, m := range map[string]*w.Module{
		"the counter, set":      with(base(), w.Code(w.I32Const(0x7fffffff), w.GlobalSet(1))),
		"the counter, read":     with(base(), w.Code(w.GlobalGet(1), w.Drop)),
		"the local":             with(base(), w.Code(w.LocalGet(0), w.Drop)),
		"the refill":            with(base(), w.Code(w.Call(1))),
		"a reference to it":     with(base(), w.Code(w.RefFunc(1), w.Drop)),
		"the type":              with(base(), w.Code(w.Block, w.S64(1), w.End)),
		"the type, indirectly":  with(base(), w.Code(w.I32Const(0), w.CallIndirect(1))),
		"the refill, in tables": func() *w.Module { m := with(base(), nil); m.Elements = []uint32{1}; return m }(),
		"the refill, exported":  func() *w.Module { m := with(base(), nil); m.Export("x", 1); return m }(),
		"the counter, exported": func() *w.Module { m := with(base(), nil); m.ExportAs("x", w.KindGlobal, 1); return m }(),
		"the refill, started":   func() *w.Module { m := with(base(), nil); one := uint32(1); m.Start = &one; return m }(),
	} {
		if _, err := meter.Parse(m.Bytes(), meter.Limits{}); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%s: got %v, want it refused", what, err)
		}
	}
}

func with(m *w.Module, code []byte) *w.Module {
	m.Export("run", m.Func(nil, nil, nil, code))
	return m
}

func TestRefused(t *testing.T) {
	valid := with(&w.Module{}, nil).Bytes()
	for _, tt := range []struct {
		what   string
		wasm   []byte
		limits meter.Limits
		kind   error
		say    string
	}{
		{"nothing", nil, meter.Limits{}, core.ErrInvalid, "magic"},
		{"text", []byte("(module)"), meter.Limits{}, core.ErrInvalid, "magic"},
		{"component", []byte("\x00asm\x0d\x00\x01\x00"), meter.Limits{}, core.ErrInvalid, "component"},
		{"version", []byte("\x00asm\x02\x00\x00\x00"), meter.Limits{}, core.ErrInvalid, "version"},
		{"size", valid, meter.Limits{Size: 10}, core.ErrTooLarge, "bytes in the module"},
		{"functions", manyFunctions(300_000), meter.Limits{}, core.ErrTooLarge, "functions"},
		{"locals", append(w.Code([]byte("\x00asm\x01\x00\x00\x00"), 1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0, 10, 10, 1, 8, 1), w.Code(w.U32(1<<30), w.I32, w.End)...), meter.Limits{}, core.ErrTooLarge, "locals"},
		{"nesting", with(&w.Module{}, w.Code(bytes.Repeat([]byte{w.Block, w.Void}, 60_000), bytes.Repeat([]byte{w.End}, 60_000))).Bytes(), meter.Limits{}, core.ErrTooLarge, "blocks"},
		{"a body", with(&w.Module{}, bytes.Repeat([]byte{w.Nop}, 1000)).Bytes(), meter.Limits{Body: 1000}, core.ErrTooLarge, "bytes in function"},
		{"table", (&w.Module{Table: &w.Range{Min: 1 << 31}}).Bytes(), meter.Limits{}, core.ErrTooLarge, "elements in tables"},
		{"atomics", with(&w.Module{}, []byte{0xfe, 3, 0}).Bytes(), meter.Limits{}, core.ErrInvalid, "threads are off"},
		{"tail call", with(&w.Module{}, []byte{0x12, 0}).Bytes(), meter.Limits{}, core.ErrInvalid, "tail calls are off"},
		{"exceptions", with(&w.Module{}, []byte{0x06, 0x40, w.End}).Bytes(), meter.Limits{}, core.ErrInvalid, "exceptions are off"},
		{"tags", append(slices.Clone(valid), 13, 3, 1, 0, 0), meter.Limits{}, core.ErrInvalid, "exceptions are off"},
		{"relaxed vectors", with(&w.Module{}, []byte{0xfd, 0x80, 2}).Bytes(), meter.Limits{}, core.ErrInvalid, "relaxed SIMD"},
		{"a shared memory", append([]byte("\x00asm\x01\x00\x00\x00"), 5, 4, 1, 3, 1, 1), meter.Limits{}, core.ErrInvalid, "threads are off"},
		{"a 64-bit memory", append([]byte("\x00asm\x01\x00\x00\x00"), 5, 3, 1, 4, 1), meter.Limits{}, core.ErrInvalid, "64-bit"},
		{"sections in disorder", append([]byte("\x00asm\x01\x00\x00\x00"), 3, 1, 0, 1, 1, 0), meter.Limits{}, core.ErrInvalid, "out of order"},
		{"left-over bytes", append([]byte("\x00asm\x01\x00\x00\x00"), 1, 2, 0, 0), meter.Limits{}, core.ErrInvalid, "left over"},
		{"a huge count", append([]byte("\x00asm\x01\x00\x00\x00"), 1, 5, 0xff, 0xff, 0xff, 0xff, 0x0f), meter.Limits{}, core.ErrTooLarge, "types"},
	} {
		_, err := meter.Parse(tt.wasm, tt.limits)
		if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.say) {
			t.Errorf("%s: got %v, want %q", tt.what, err, tt.say)
		}
	}
	for n := range valid {
		if _, err := meter.Parse(valid[:n], meter.Limits{}); n != 8 && n != 14 && err == nil {
			t.Errorf("the first %d of %d bytes were taken for a module", n, len(valid))
		}
	}
}

func manyFunctions(n uint32) []byte {
	var m w.Module
	for range n {
		m.Func(nil, nil, nil, nil)
	}
	return m.Bytes()
}

// Tables get a maximum; custom sections other than names are dropped; names
// follow the functions.
func TestSections(t *testing.T) {
	m := &w.Module{Table: &w.Range{Min: 5}, Custom: map[string][]byte{"junk": make([]byte, 1<<20)}}
	m.Import("env", "f", nil, nil)
	m.Export("run", m.Func(nil, nil, nil, w.Code(w.Unreachable)))
	m.Custom["name"] = w.Code(1, 14, 2, 0, 5, []byte("theim"), 1, 4, []byte("boom"), 2, 1, 0)
	out := rewrite(t, m.Bytes(), meter.Options{MaxTable: 50})
	if len(out) > 1000 {
		t.Errorf("%d bytes, want the custom section gone", len(out))
	}
	again, err := meter.Parse(out, meter.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if got := again.Tables[0]; got != (meter.Range{Min: 5, Max: 50, Bounded: true}) {
		t.Errorf("table %+v, want a maximum of 50", got)
	}
	if last := again.Imports[len(again.Imports)-1]; last.Module != meter.PollModule || last.Signature != "() -> ()" {
		t.Errorf("imports %v, want the poll at the end", again.Imports)
	}
	r, polls := newRuntime(t), 0
	poll(t, r, &polls)
	if _, err := r.NewHostModuleBuilder("env").NewFunctionBuilder().WithFunc(func() {}).Export("f").Instantiate(t.Context()); err != nil {
		t.Fatal(err)
	}
	mod, err := r.Instantiate(t.Context(), out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mod.ExportedFunction("run").Call(t.Context()); err == nil || !strings.Contains(err.Error(), "boom") {
		t.Errorf("got %v, want a trap that names the function", err)
	}
}

// Whatever the bytes are, parsing ends without a panic, and what the compiler
// takes as it is it takes metered; what it refuses does not become valid.
func FuzzRewrite(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(w.Generate(seed))
	}
	r := wazero.NewRuntimeWithConfig(context.Background(), wazero.NewRuntimeConfigInterpreter().WithMemoryLimitPages(16))
	f.Fuzz(func(t *testing.T, wasm []byte) {
		m, err := meter.Parse(wasm, meter.Limits{Functions: 1000, Locals: 1000, TableSize: 1000})
		if err != nil {
			if !errors.Is(err, core.ErrInvalid) && !errors.Is(err, core.ErrTooLarge) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		valid := compiles(r, wasm)
		if metered := compiles(r, m.Rewrite(meter.Options{})); (valid == nil) != (metered == nil) {
			t.Errorf("as it is: %v; metered: %v", valid, metered)
		}
	})
}

func compiles(r wazero.Runtime, wasm []byte) error {
	ctx := context.Background()
	c, err := r.CompileModule(ctx, wasm)
	if err == nil {
		err = c.Close(ctx)
	}
	return err
}

// Every generated module does the same, metered or not.
func FuzzGenerated(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		plain, metered := newRuntime(t), newRuntime(t)
		polls := 0
		poll(t, metered, &polls)
		wasm := w.Generate(seed)
		if want, got := outcome(t, plain, wasm), outcome(t, metered, rewrite(t, wasm, meter.Options{Interval: 1})); got != want {
			t.Errorf("seed %d: got\n%swant\n%s", seed, got, want)
		}
	})
}

// Mutations of generated modules, as the fuzzer makes them, in every run of the tests.
func TestMutated(t *testing.T) {
	r := newRuntime(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	parsed := 0
	for seed := range uint64(3000) {
		wasm := w.Generate(seed % 50)
		for range 1 + rnd.IntN(3) {
			wasm[8+rnd.IntN(len(wasm)-8)] = byte(rnd.Uint32())
		}
		m, err := meter.Parse(wasm, meter.Limits{Locals: 1000, TableSize: 1000})
		if err != nil {
			continue
		}
		parsed++
		if valid, metered := compiles(r, wasm), compiles(r, m.Rewrite(meter.Options{})); (valid == nil) != (metered == nil) {
			t.Errorf("seed %d: as it is: %v; metered: %v", seed, valid, metered)
		}
	}
	if parsed < 100 {
		t.Errorf("only %d mutants were parsed", parsed)
	}
}
