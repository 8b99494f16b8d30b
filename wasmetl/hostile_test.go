package wasmetl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/wasmetl"
	w "github.com/shoalstore/shoal/wasmetl/internal/wasmtest"
)

// soon is how long a hostile call may take in these tests, whose machine may be
// busy; its own limits are far below.
const soon = 20 * time.Second

type hostile struct {
	name  string
	wasm  []byte
	class string // of the failure; "" is done, "dropped" is dropped
	say   string // in the message
	spec  wasmetl.Spec
	// run changes the call.
	run func(*core.TransformCall)
}

// spin never ends.
var spin = w.Code(w.Loop, w.Void, w.Br(0), w.End)

// trapping is a guest that traps, with a table of two functions.
func trapping(code ...any) []byte {
	m := shoalGuest("", append(code, ok)...)
	m.Table = &w.Range{Min: 3}
	m.Elements = []uint32{fnRead, 8}
	return m.Bytes()
}

// deep calls itself without an end; doubling calls itself twice, 60 levels deep.
func deep() []byte {
	m := shoalGuest("", w.Call(9), ok)
	m.Func(nil, nil, nil, w.Code(w.Call(9), w.I32Const(1), w.Drop))
	return m.Bytes()
}

func doubling() []byte {
	m := shoalGuest("", i(60), w.Call(9), ok)
	m.Func([]byte{w.I32}, nil, nil, w.Code(w.LocalGet(0), w.If, w.Void,
		w.LocalGet(0), i(1), w.I32Sub, w.Call(9), w.LocalGet(0), i(1), w.I32Sub, w.Call(9), w.End))
	return m.Bytes()
}

func corpus() []hostile {
	brief := wasmetl.Spec{Timeout: 100 * time.Millisecond}
	grow := w.Code(w.Loop, w.Void, i(1), w.MemoryGrow(), i(-1), 0x47 /* ne */, w.If, w.Void,
		0x3f, 0, i(1), w.I32Sub, i(16), 0x74 /* shl */, i(7), w.I32Store(0), w.Br(1), w.End, w.End)
	tableBomb := shoalGuest("", w.Loop, w.Void, w.RefNull(), i(1<<16), w.TableGrow(), i(-1), 0x47, w.BrIf(0), w.End, ok)
	tableBomb.Table = &w.Range{Min: 1}
	start := shoalGuest("", ok)
	startAt := start.Func(nil, nil, nil, spin)
	start.Start = &startAt
	initSpin := shoalGuest("", ok)
	initSpin.Export("shoal_init", initSpin.Func(nil, []byte{w.I32}, nil, w.Code(spin, ok)))
	initReads := shoalGuest("", ok)
	initReads.Export("shoal_init", initReads.Func(nil, []byte{w.I32}, nil, w.Code(i(0), i(9), w.Call(fnRead))))
	return []hostile{
		{name: "infinite loop", wasm: shoalGuest("", spin, ok).Bytes(), class: "timeout", spec: brief},
		{name: "infinite loop, wasi", wasm: wasiGuest("", spin).Bytes(), class: "timeout", spec: brief},
		{name: "infinite start", wasm: start.Bytes(), class: "timeout", spec: brief},
		{name: "infinite init", wasm: initSpin.Bytes(), class: "timeout", spec: brief},
		{name: "reading init", wasm: initReads.Bytes(), class: "error", say: "shoal_init returned -6"},
		{name: "exponential recursion", wasm: doubling(), class: "timeout", spec: brief},
		{name: "deep recursion", wasm: deep(), class: "stack", say: "stack overflow"},
		{name: "memory bomb", wasm: shoalGuest("", grow, ok).Bytes()},
		{name: "table bomb", wasm: tableBomb.Bytes()},
		{name: "filling", wasm: shoalGuest("", w.Loop, w.Void, i(0), i(1), i(2*65536), w.MemoryFill(), w.Br(0), w.End, ok).Bytes(), class: "timeout", spec: brief},
		{name: "flood that ignores errors", wasm: shoalGuest("", w.Loop, w.Void, i(0), i(65536), w.Call(fnWrite), w.Drop, w.Br(0), w.End, ok).Bytes(), class: "output-limit", say: "67108864"},
		{name: "flood that ignores errors, wasi", wasm: wasiGuest("\x00\x00\x00\x00\x00\x00\x01\x00", w.Loop, w.Void, i(1), i(0), i(1), i(8), w.Call(1), w.Drop, w.Br(0), w.End).Bytes(), class: "output-limit"},
		{name: "flood of the log", wasm: shoalGuest("", i(1000), w.LocalSet(0), w.Loop, w.Void, i(1), i(0), i(65536), w.Call(fnLog), w.LocalGet(0), i(1), w.I32Sub, w.LocalTee(0), w.BrIf(0), w.End, ok).Bytes()},
		{name: "never reads", wasm: shoalGuest("", ok).Bytes(), run: streaming(io.NopCloser(endless{}))},
		{name: "never ends to read", wasm: shoalGuest("", w.Loop, w.Void, i(0), i(65536), w.Call(fnRead), w.BrIf(0), w.End, ok).Bytes(), class: "timeout", spec: brief, run: streaming(io.NopCloser(endless{}))},
		{name: "stalled source", wasm: identity(), class: "stalled", run: func(c *core.TransformCall) { streaming(newStalled())(c) }},
		{name: "stalled source, wasi", wasm: wasiIdentity(), class: "stalled", run: func(c *core.TransformCall) { streaming(newStalled())(c) }},
		{name: "stalled small source", wasm: identity(), class: "stalled", run: func(c *core.TransformCall) { streaming(newStalled())(c); c.Object.Size = 10 }},
		{name: "unreachable", wasm: trapping(w.Unreachable), class: "trap", say: "unreachable"},
		{name: "divide by zero", wasm: trapping(i(1), i(0), w.I32DivS, w.Drop), class: "trap", say: "divide by zero"},
		{name: "overflow", wasm: trapping(i(-1<<31), i(-1), w.I32DivS, w.Drop), class: "trap", say: "overflow"},
		{name: "conversion", wasm: trapping([]byte{0x43, 0, 0, 0xc0, 0x7f, 0xa8}, w.Drop), class: "trap", say: "conversion"},
		{name: "memory out of bounds", wasm: trapping(i(-4), w.I32Load(100), w.Drop), class: "trap", say: "out of bounds"},
		{name: "fill out of bounds", wasm: trapping(i(0), i(0), i(-1), w.MemoryFill()), class: "trap", say: "out of bounds"},
		{name: "no such element", wasm: trapping(i(0), i(0), i(7), w.CallIndirect(0), w.Drop), class: "trap", say: "table"},
		{name: "null element", wasm: trapping(i(0), i(0), i(2), w.CallIndirect(0), w.Drop), class: "trap", say: "table"},
		{name: "wrong type", wasm: trapping(i(0), i(0), i(1), w.CallIndirect(0), w.Drop), class: "trap", say: "type mismatch"},
		{name: "data out of bounds", wasm: shoalGuest(strings.Repeat("x", 3*65536), ok).Bytes(), class: "trap"},
		{name: "huge custom section", wasm: func() []byte {
			m := shoalGuest("", ok)
			m.Custom = map[string][]byte{"name": make([]byte, 8<<20), "x": make([]byte, 8<<20)}
			return m.Bytes()
		}()},
		{name: "lies about pointers", wasm: shoalGuest("name", sumOf(
			call(fnRead, -1, 10), call(fnRead, 0, -1), call(fnWrite, 2*65536-1, 2), call(fnGet, 0, 4, 2*65536, 1),
			call(fnGet, -5, 4, 0, 0), call(fnSet, -1, 1, 0, 0), call(fnEmit, -1, 5)),
			i(-21), w.I32Sub).Bytes()},
		{name: "log and fail of nothing", wasm: shoalGuest("", i(9), i(-1), i(-1), w.Call(fnLog), i(3), i(-1), i(-1), w.Call(fnFail), ok).Bytes(), class: "error"},
		{name: "writes after drop", wasm: shoalGuest("name", sumOf(call(fnDrop), call(fnWrite, 0, 4), call(fnEmit, 0, 4), call(fnSet, 0, 4, 0, 1)),
			i(-18), w.I32Sub).Bytes(), class: "dropped"},
		{name: "drops after a write", wasm: shoalGuest("name", sumOf(call(fnWrite, 0, 4), call(fnDrop)), i(4-6), w.I32Sub).Bytes()},
		{name: "10,001 outputs", wasm: shoalGuest("name", w.Loop, w.Void, call(fnEmit, 0, 4), w.Drop, w.Br(0), w.End, ok).Bytes(), class: "output-limit", say: "10000 outputs"},
		{name: "up and away", wasm: shoalGuest("a/../../b", call(fnEmit, 0, 9)).Bytes(), class: "name"},
		{name: "absolute", wasm: shoalGuest("/etc", call(fnEmit, 0, 4)).Bytes(), class: "name"},
		{name: "no name", wasm: shoalGuest("", call(fnEmit, 0, 0)).Bytes(), class: "name"},
		{name: "a name in no code", wasm: shoalGuest("a\xff", call(fnEmit, 0, 2)).Bytes(), class: "name"},
		{name: "a long name", wasm: shoalGuest(strings.Repeat("n", 2000), call(fnEmit, 0, 2000)).Bytes(), class: "name"},
		{name: "a header in a type", wasm: shoalGuest("content-typea\r\nb", sumOf(call(fnSet, 0, 12, 12, 4)), i(-6), w.I32Sub).Bytes()},
		{name: "exit", wasm: wasiGuest("", i(3), w.Call(2)).Bytes(), class: "exit", say: "exit code 3"},
		{name: "exit 0 in a loop", wasm: wasiGuest("", w.Loop, w.Void, i(0), w.Call(2), w.Br(0), w.End).Bytes()},
		{name: "exit to drop", wasm: wasiGuest("", i(77), w.Call(2)).Bytes(), class: "dropped"},
		{name: "exit of a reactor", wasm: func() []byte {
			m := &w.Module{Memory: &w.Range{Min: 1}}
			m.Import("wasi_snapshot_preview1", "proc_exit", []byte{w.I32}, nil)
			m.Export("shoal_transform", m.Func(nil, []byte{w.I32}, nil, w.Code(i(5), w.Call(0), ok)))
			m.ExportAs("memory", w.KindMemory, 0)
			return m.Bytes()
		}(), class: "exit", say: "exit code 5"},
		{name: "error without a word", wasm: shoalGuest("", i(-9)).Bytes(), class: "error", say: "-9"},
	}
}

func call(f uint32, args ...int32) []byte {
	var b []byte
	for _, a := range args {
		b = append(b, i(a)...)
	}
	return append(b, w.Call(f)...)
}

func sumOf(values ...[]byte) []byte {
	sum := values[0]
	for _, v := range values[1:] {
		sum = w.Code(sum, v, w.I32Add)
	}
	return sum
}

func streaming(body io.ReadCloser) func(*core.TransformCall) {
	return func(c *core.TransformCall) { c.Data, c.Body, c.Object.Size = nil, body, -1 }
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// stalled gives something, and then nothing until it is closed.
type stalled struct {
	first  bool
	closed chan struct{}
}

func newStalled() *stalled { return &stalled{closed: make(chan struct{})} }

func (s *stalled) Read(p []byte) (int, error) {
	if !s.first {
		s.first = true
		return 1, nil
	}
	<-s.closed
	return 0, errors.New("closed")
}

func (s *stalled) Close() error { close(s.closed); return nil }

// Every hostile module fails its own object, in time, and nothing else: a
// bystander is served with the same single turn throughout, and afterwards.
func TestHostile(t *testing.T) {
	patient, brief := newHost(t, wasmetl.Options{Running: 1}), newHost(t, wasmetl.Options{Running: 1, Stall: 200 * time.Millisecond})
	bystanders := map[*wasmetl.Host]core.TransformRef{}
	for _, h := range []*wasmetl.Host{patient, brief} {
		bystanders[h] = install(t, h, wasmetl.Spec{Name: "bystander"}, identity())
	}
	for _, tt := range corpus() {
		t.Run(tt.name, func(t *testing.T) {
			tt.spec.Name = "hostile"
			h := patient
			if tt.class == "stalled" {
				h = brief
			}
			bystander := bystanders[h]
			ref, err := h.Install(t.Context(), tt.spec, tt.wasm)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				began := time.Now()
				r, s := run(t, h, ref, "an object", func(c *core.TransformCall) {
					if tt.run != nil {
						tt.run(c)
					}
				})
				if d := time.Since(began); d > soon {
					t.Errorf("took %v", d)
				}
				checkHostile(t, tt, r, s)
			}()
			for running := true; running; {
				select {
				case <-done:
					running = false
				default:
				}
				if r, s := run(t, h, bystander, "bytes"); r.Outcome != core.TransformDone || s.only(t) != "bytes" {
					t.Errorf("the bystander: %v %v", r.Outcome, r.Failure)
				}
			}
		})
	}
	for h := range bystanders {
		if u := h.Usage(); u.Running != 0 || u.Waiting != 0 || u.Memory > 1<<20 {
			t.Errorf("afterwards: %+v, want only what is idle", u)
		}
	}
}

func checkHostile(t *testing.T, tt hostile, r core.TransformResult, s *sink) {
	t.Helper()
	want := core.TransformFailed
	switch tt.class {
	case "":
		want = core.TransformDone
	case "dropped":
		want = core.TransformDropped
	}
	if r.Outcome != want {
		t.Errorf("got %v (%v), want %v", r.Outcome, r.Failure, want)
		return
	}
	if want == core.TransformFailed && (r.Failure.Class != tt.class || !strings.Contains(r.Failure.Message, tt.say)) {
		t.Errorf("failed with %v, want %s with %q", r.Failure, tt.class, tt.say)
	}
	if r.Memory > 64<<20 || len(r.Log) > 16<<10 {
		t.Errorf("%d bytes of memory, %d of log", r.Memory, len(r.Log))
	}
	if len(s.outputs) > 10_000 {
		t.Errorf("%d outputs", len(s.outputs))
	}
	for n, o := range s.outputs {
		last := n == len(s.outputs)-1
		if want == core.TransformDone && (!o.closed || o.aborted != nil) {
			t.Errorf("output %d is not complete: %v", n, o.aborted)
		}
		if want != core.TransformDone && last && o.aborted == nil && !o.closed {
			t.Errorf("output %d was left open", n)
		}
	}
}

// A guest that spins, and one that waits for its source, leave the only turn to
// others. They are called off only after those have been served.
func TestBystander(t *testing.T) {
	h := newHost(t, wasmetl.Options{Running: 1})
	bystander := install(t, h, wasmetl.Spec{Name: "bystander"}, identity())
	for name, wasm := range map[string][]byte{
		"spins": shoalGuest("", call(fnRead, 0, 1), w.Drop, spin, ok).Bytes(),
		"waits": identity(),
	} {
		t.Run(name, func(t *testing.T) {
			ref := install(t, h, wasmetl.Spec{Name: name}, wasm)
			ctx, cancel := context.WithCancelCause(t.Context())
			calledOff := errors.New("called off")
			source := &signalling{stalled: newStalled(), read: make(chan struct{})}
			done := make(chan error, 1)
			go func() {
				s := &sink{}
				r, err := h.RunTransform(ctx, core.TransformCall{Transform: ref, Body: source, Object: core.TransformObject{Size: -1}, Output: s.open})
				if err == nil {
					err = r.Failure
				}
				done <- err
			}()
			<-source.read
			for range 5 {
				if r, s := run(t, h, bystander, "bytes"); r.Outcome != core.TransformDone || s.only(t) != "bytes" {
					t.Errorf("the bystander: %v", r.Failure)
				}
			}
			cancel(calledOff)
			if err := <-done; !errors.Is(err, calledOff) {
				t.Errorf("the guest ended before the bystander was served: %v", err)
			}
		})
	}
}

// signalling tells when it is read.
type signalling struct {
	*stalled
	read chan struct{}
	once sync.Once
}

func (s *signalling) Read(p []byte) (int, error) {
	s.once.Do(func() { close(s.read) })
	return s.stalled.Read(p)
}

// What is no module, or not one that can be run here, is refused when it is
// uploaded, and it is said why.
func TestRefusedAtUpload(t *testing.T) {
	h := newHost(t, wasmetl.Options{MaxModule: 4 << 20})
	rnd := rand.New(rand.NewPCG(1, 2))
	random := make([]byte, 5000)
	for n := range random {
		random[n] = byte(rnd.Uint32())
	}
	imports := &w.Module{Memory: &w.Range{Min: 1}}
	imports.Import("shoal_v1", "raed", []byte{w.I32, w.I32}, []byte{w.I32})
	imports.Import("env", "write", []byte{w.I32, w.I32}, []byte{w.I32})
	imports.Import("wasi_snapshot_preview1", "fd_write", []byte{w.I32}, nil)
	imports.Import("wasi:io/streams@0.2.0", "[method]output-stream.check-write", nil, nil)
	imports.Export("_start", imports.Func(nil, nil, nil, nil))
	many := shoalGuest("", ok)
	for range 300_000 {
		many.Func(nil, nil, nil, nil)
	}
	wide := shoalGuest("", ok)
	wide.Memory.Min = 2000
	table := shoalGuest("", ok)
	table.Table = &w.Range{Min: 1 << 30}
	padded := shoalGuest("", ok)
	padded.Custom = map[string][]byte{"padding": make([]byte, 5<<20)}
	for _, tt := range []struct {
		name string
		wasm []byte
		kind error
		say  []string
	}{
		{"empty", nil, core.ErrInvalid, []string{"magic"}},
		{"random", random, core.ErrInvalid, []string{"magic"}},
		{"random after the header", append([]byte("\x00asm\x01\x00\x00\x00"), random...), core.ErrInvalid, nil},
		{"truncated", identity()[:100], core.ErrInvalid, []string{"unexpected end"}},
		{"a component", []byte("\x00asm\x0d\x00\x01\x00"), core.ErrInvalid, []string{"component", "wasm32-wasip1"}},
		{"unknown imports", imports.Bytes(), core.ErrInvalid, []string{`"shoal_v1.raed"`, `nearest is "shoal_v1.read"`, `"env.write"`, `nearest is "shoal_v1.write"`, "it is (i32, i32, i32, i32) -> i32", "preview 2", `does not export its memory`}},
		{"no entry", (&w.Module{Memory: &w.Range{Min: 1}}).Bytes(), core.ErrInvalid, []string{"_start", "shoal_transform"}},
		{"300,000 functions", many.Bytes(), core.ErrTooLarge, []string{"functions"}},
		{"much memory", wide.Bytes(), core.ErrInvalid, []string{"--memory"}},
		{"a large table", table.Bytes(), core.ErrTooLarge, []string{"tables"}},
		{"too large", padded.Bytes(), core.ErrTooLarge, []string{"bytes in the module"}},
		{"wrong types", shoalGuest("", w.Code(w.I32Add, w.I32Add)).Bytes(), core.ErrInvalid, []string{"not valid"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := h.Install(t.Context(), wasmetl.Spec{Name: "x"}, tt.wasm)
			if !errors.Is(err, tt.kind) {
				t.Fatalf("got %v, want %v", err, tt.kind)
			}
			for _, say := range tt.say {
				if !strings.Contains(err.Error(), say) {
					t.Errorf("%q does not say %q", err, say)
				}
			}
		})
	}
	if l := h.List(); len(l) != 0 {
		t.Errorf("%d transforms are there", len(l))
	}
}

// A module that would take minutes to compile is given up, in the child, and the
// node stays usable.
func TestCompileLimit(t *testing.T) {
	h := newHost(t, wasmetl.Options{CompileCPU: time.Second})
	began := time.Now()
	_, err := h.Install(t.Context(), wasmetl.Spec{Name: "slow"}, slowToCompile())
	if !errors.Is(err, wasmetl.ErrCompileLimit) || !errors.Is(err, core.ErrTooLarge) {
		t.Errorf("after %v: got %v, want it given up", time.Since(began), err)
	}
	install(t, h, wasmetl.Spec{Name: "x"}, identity())
}

// slowToCompile has one function with many locals that live through many blocks.
func slowToCompile() []byte {
	const locals, blocks = 2000, 6000
	var code bytes.Buffer
	for n := range uint32(blocks) {
		code.Write(w.Code(w.LocalGet(n%locals), w.If, w.Void,
			w.LocalGet((n*7+1)%locals), w.LocalGet((n*13+5)%locals), w.I32Add, w.LocalSet((n*31+3)%locals), w.End))
	}
	m := shoalGuest("", ok)
	m.Func(nil, nil, bytes.Repeat([]byte{w.I32}, locals), w.Code(w.Loop, w.Void, code.Bytes(), w.LocalGet(0), w.BrIf(0), w.End))
	return m.Bytes()
}

// A thousand runs of what fails and what does not leave no maps, goroutines or
// memory behind.
func TestNoLeaks(t *testing.T) {
	h := newHost(t, wasmetl.Options{Running: 1, Stall: 5 * time.Millisecond})
	quick := wasmetl.Spec{Timeout: time.Millisecond}
	var refs []core.TransformRef
	add := func(name string, wasm []byte, spec wasmetl.Spec) {
		spec.Name = name
		refs = append(refs, install(t, h, spec, wasm))
	}
	add("identity", identity(), wasmetl.Spec{})
	add("wasi", wasiIdentity(), wasmetl.Spec{})
	add("fresh", identity(), wasmetl.Spec{Fresh: true})
	add("traps", trapping(w.Unreachable), wasmetl.Spec{})
	add("deep", deep(), wasmetl.Spec{})
	add("spins", shoalGuest("", spin, ok).Bytes(), quick)
	add("data", shoalGuest(strings.Repeat("x", 3*65536), ok).Bytes(), wasmetl.Spec{})
	add("exits", wasiGuest("", i(1), w.Call(2)).Bytes(), wasmetl.Spec{})
	round := func(n int) {
		for k := range n {
			ref := refs[k%len(refs)]
			if ref.Name == "deep" && k > 100 {
				ref = refs[0] // 84 MB of stack each
			}
			if err := h.Start(ref.Name); err != nil {
				t.Fatal(err)
			}
			run(t, h, ref, strings.Repeat("x", 100_000), func(c *core.TransformCall) {
				switch k % 3 {
				case 0:
					streaming(io.NopCloser(bytes.NewReader(c.Data)))(c)
				case 1:
					if ref.Name != "fresh" {
						streaming(newStalled())(c)
					}
				}
			})
		}
	}
	round(100)
	before := footprint(t)
	round(1000)
	after := footprint(t)
	t.Logf("%+v, then %+v", before, after)
	// Adjacent mappings count as one; that they are gone is seen in the space.
	if after.maps > before.maps+20 || after.goroutines > before.goroutines ||
		after.resident > before.resident+(64<<20) || after.space > before.space+(1<<30) {
		t.Errorf("%+v, then %+v", before, after)
	}
}

// used is what this process takes.
type used struct {
	maps, goroutines int
	space, resident  int64 // bytes
}

func footprint(t *testing.T) used {
	t.Helper()
	debug.FreeOSMemory()
	raw, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Skip("no /proc")
	}
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(statm), &size, &resident); err != nil {
		t.Fatal(err)
	}
	page := int64(os.Getpagesize())
	return used{bytes.Count(raw, []byte("\n")), runtime.NumGoroutine(), size * page, resident * page}
}
