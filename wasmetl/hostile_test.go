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
		{name: "deep recursion with large frames", wasm: wideFrames(), class: "stack", say: "stack overflow"},
		{name: "a text too long to fail with", wasm: shoalGuest(strings.Repeat("x", 65536), i(1), i(0), i(2*65536), w.Call(fnFail), ok).Bytes(), class: "error", say: "xxx"},
		{name: "flood of metadata", wasm: shoalGuest("meta:k", w.Loop, w.Void, call(fnSet, 0, 6, 1000, 100), w.I32Eqz, w.BrIf(0), w.End, ok).Bytes()},
		{name: "a key too long", wasm: shoalGuest("", call(fnGet, 0, 1<<16, 0, 0), i(-5), w.I32Sub).Bytes()},
		{name: "a jump of 100,000 ways", wasm: shoalGuest("", w.Block, w.Void, i(7), w.BrTable(make([]uint32, 100_000)...), w.End, ok).Bytes()},
		{name: "10,000 blocks in each other", wasm: shoalGuest("", bytes.Repeat([]byte{w.Block, w.Void}, 10_000), bytes.Repeat([]byte{w.End}, 10_000), ok).Bytes()},
		{name: "remainder of nothing", wasm: trapping(i(1), i(0), 0x6f /* rem_s */, w.Drop), class: "trap", say: "divide by zero"},
		{name: "the last address", wasm: trapping(i(-1), w.I32Load(0xffffffff), w.Drop), class: "trap", say: "out of bounds"},
		{name: "copy out of bounds", wasm: trapping(i(0), i(1), i(2*65536), w.MemoryCopy()), class: "trap", say: "out of bounds"},
		{name: "table fill out of bounds", wasm: trapping(i(2), w.RefNull(), i(9), w.TableFill()), class: "trap", say: "table"},
		{name: "table read out of bounds", wasm: trapping(i(3), 0x25 /* table.get */, 0, w.Drop), class: "trap", say: "table"},
		{name: "init out of bounds", wasm: func() []byte {
			m := shoalGuest("data", i(0), i(3), i(2), w.MemoryInit(), ok)
			m.DataCount = true
			return m.Bytes()
		}(), class: "trap", say: "out of bounds"},
	}
}

// calling is a WASI command of which some functions take so many i32 and give one.
func calling(data string, functions []string, arities []int, code ...any) []byte {
	m := &w.Module{Memory: &w.Range{Min: 2}, Data: []byte(data)}
	for n, f := range functions {
		m.Import("wasi_snapshot_preview1", f, bytes.Repeat([]byte{w.I32}, arities[n]), []byte{w.I32})
	}
	m.Export("_start", m.Func(nil, nil, nil, w.Code(code...)))
	m.ExportAs("memory", w.KindMemory, 0)
	return m.Bytes()
}

// expect traps unless a function returned this.
func expect(code []byte, want int32) []byte {
	return w.Code(code, i(want), 0x47 /* ne */, w.If, w.Void, w.Unreachable, w.End)
}

// refused traps if a function returned no error.
func refused(code []byte) []byte {
	return w.Code(code, w.I32Eqz, w.If, w.Void, w.Unreachable, w.End)
}

// systems are modules that are hostile to the functions of WASI.
func systems() []hostile {
	brief := wasmetl.Spec{Timeout: 100 * time.Millisecond}
	const badf, fault, inval = 8, 21, 28
	hour := make([]byte, 48) // a subscription to a clock
	hour[16] = 1             // the monotonic one
	copy(hour[24:], []byte{0, 0xa0, 0xb8, 0x30, 0x46, 3, 0, 0})
	initExits := func(code int32) []byte {
		m := &w.Module{Memory: &w.Range{Min: 1}}
		m.Import("wasi_snapshot_preview1", "proc_exit", []byte{w.I32}, nil)
		m.Export("_initialize", m.Func(nil, nil, nil, w.Code(i(code), w.Call(0))))
		m.Export("shoal_transform", m.Func(nil, []byte{w.I32}, nil, ok))
		m.ExportAs("memory", w.KindMemory, 0)
		return m.Bytes()
	}
	start := func(code ...any) []byte {
		m := shoalGuest("", ok)
		at := m.Func(nil, nil, nil, w.Code(code...))
		m.Start = &at
		return m.Bytes()
	}
	return []hostile{
		{name: "sleeps for ever", wasm: calling(string(hour), []string{"poll_oneoff"}, []int{4}, w.Loop, w.Void, expect(call(0, 0, 64, 1, 128), 0), w.Br(0), w.End), class: "timeout", spec: brief},
		{name: "waits for its input for ever", wasm: calling(string(append([]byte{8: 1}, make([]byte, 39)...)), []string{"poll_oneoff"}, []int{4}, w.Loop, w.Void, call(0, 0, 64, 1, 128), w.Drop, w.Br(0), w.End), class: "timeout", spec: brief},
		{name: "polls for more than there is", wasm: calling("", []string{"poll_oneoff"}, []int{4}, expect(call(0, 0, 0, 1<<20, 0), fault), expect(call(0, 0, 0, 0, 0), inval))},
		{name: "polls for as much as wraps", wasm: calling("", []string{"poll_oneoff"}, []int{4}, call(0, 0, 0, 1<<28, 64), w.Drop), class: "trap"},
		{name: "polls for as much as wraps to little", wasm: calling("", []string{"poll_oneoff"}, []int{4}, call(0, 0, 0, 89478486, 64), w.Drop)},
		{name: "yields for ever", wasm: calling("", []string{"sched_yield"}, []int{0}, w.Loop, w.Void, call(0), w.Drop, w.Br(0), w.End), class: "timeout", spec: brief},
		{name: "random for ever", wasm: calling("", []string{"random_get"}, []int{2}, w.Loop, w.Void, expect(call(0, 0, 2*65536), 0), w.Br(0), w.End), class: "timeout", spec: brief},
		{name: "lies to WASI", wasm: calling("", []string{"random_get", "args_get", "environ_get", "args_sizes_get", "fd_write", "fd_read"}, []int{2, 2, 2, 2, 4, 4},
			expect(call(0, 2*65536-1, 2), fault), expect(call(0, -1, -1), fault), expect(call(1, -4, -4), fault), expect(call(2, -4, -4), fault), expect(call(3, -4, 0), fault),
			expect(call(4, 1, -8, 1, 0), fault), expect(call(5, 0, -8, 1, 0), fault), expect(call(4, 99, 0, 1, 0), badf), expect(call(4, -1, 0, 1, 0), badf),
			expect(call(4, 1, 0, 1<<29, 16), 0) /* wraps to no pieces */, expect(call(5, 0, 0, 1<<29, -4), fault))},
		{name: "pieces beyond the memory", wasm: calling("\x00\x00\x00\x00\x00\x00\x02\x00\xff\xff\xff\xff\xff\xff\xff\xff", []string{"fd_write"}, []int{4}, expect(call(0, 1, 8, 1, 64), fault))},
		{name: "closes what it was given", wasm: calling("\x00\x00\x00\x00\x01\x00\x00\x00", []string{"fd_close", "fd_write", "fd_renumber"}, []int{1, 4, 2},
			call(2, 1, 0), w.Drop, call(0, 1), w.Drop, call(0, 0), w.Drop, call(0, 2), w.Drop, expect(call(1, 1, 0, 1, 64), badf))},
		{name: "looks for the world", wasm: calling("/etc/passwd", []string{"sock_accept", "sock_shutdown", "path_unlink_file", "path_create_directory", "fd_prestat_get", "proc_raise"}, []int{3, 2, 3, 3, 2, 1},
			refused(call(0, 3, 0, 64)), refused(call(1, 3, 0)), refused(call(2, 3, 0, 11)), refused(call(3, 3, 0, 11)), refused(call(4, 3, 64)), refused(call(5, 9)))},
		{name: "exits before its object", wasm: initExits(0), class: "exit", say: "before it was given the object"},
		{name: "drops before its object", wasm: initExits(77), class: "exit", say: "before it was given the object"},
		{name: "traps at its start", wasm: start(w.Unreachable), class: "trap", say: "unreachable"},
		{name: "uses the object at its start", wasm: start(expect(call(fnRead, 0, 9), -6), expect(call(fnWrite, 0, 9), -6), expect(call(fnEmit, 0, 9), -6), expect(call(fnDrop), -6), expect(call(fnSet, 0, 3, 0, 3), -6))},
	}
}

// wideFrames calls itself without an end, with a thousand values that it needs after.
func wideFrames() []byte {
	const locals = 1000
	var before, after []byte
	for n := range uint32(locals) {
		before = w.Code(before, w.LocalGet(0), i(int32(n)), w.I32Mul, w.LocalSet(n+1))
		after = w.Code(after, w.LocalGet(n+1), w.I32Add)
	}
	m := shoalGuest("", i(1), w.Call(9))
	m.Func([]byte{w.I32}, []byte{w.I32}, bytes.Repeat([]byte{w.I32}, locals), w.Code(before, w.LocalGet(0), w.Call(9), after))
	return m.Bytes()
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
	for _, tt := range append(corpus(), systems()...) {
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
	if r.Failure != nil && len(r.Failure.Message) > 4<<10 {
		t.Errorf("a message of %d bytes", len(r.Failure.Message))
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
	raw := func(sections string) []byte { return []byte("\x00asm\x01\x00\x00\x00" + sections) }
	imported := &w.Module{Memory: &w.Range{Min: 1}}
	for n := range 1001 {
		imported.Import("shoal_v1", fmt.Sprint("f", n), nil, nil)
	}
	twice := shoalGuest("", ok)
	twice.Export("shoal_transform", 0)
	signature := shoalGuest("", ok)
	signature.Export("shoal_init", fnWrite)
	nested := shoalGuest("", bytes.Repeat([]byte{w.Block, w.Void}, 60_000), bytes.Repeat([]byte{w.End}, 60_000), ok)
	roomy := shoalGuest("", ok)
	roomy.Func(nil, nil, bytes.Repeat([]byte{w.I64}, 60_000), nil)
	for _, tt := range []struct {
		name string
		wasm []byte
		kind error
		say  []string
	}{
		{"text", []byte("(module)"), core.ErrInvalid, []string{"magic"}},
		{"compressed", []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"), core.ErrInvalid, []string{"magic"}},
		{"another memory's", raw("\x02\x0f\x01\x03env\x06memory\x02\x00\x01"), core.ErrInvalid, []string{"imports the memory", "functions only"}},
		{"a shared memory", raw("\x05\x04\x01\x03\x01\x02"), core.ErrInvalid, nil},
		{"a memory of 64 bits", raw("\x05\x03\x01\x04\x01"), core.ErrInvalid, nil},
		{"two memories", raw("\x05\x05\x02\x00\x01\x00\x01"), core.ErrTooLarge, []string{"2 memories"}},
		{"exceptions", raw("\x01\x04\x01\x60\x00\x00\x0d\x03\x01\x00\x00"), core.ErrInvalid, nil},
		{"a section twice", raw("\x01\x01\x00\x01\x01\x00"), core.ErrInvalid, nil},
		{"a section longer than the rest", raw("\x01\x7f\x00"), core.ErrInvalid, []string{"unexpected end"}},
		{"a length that goes on", raw("\x01\xff\xff\xff\xff\xff\x01"), core.ErrInvalid, nil},
		{"1,001 imports", imported.Bytes(), core.ErrTooLarge, []string{"imports"}},
		{"a name twice", twice.Bytes(), core.ErrInvalid, nil},
		{"an init with parameters", signature.Bytes(), core.ErrInvalid, []string{"exports shoal_init as (i32, i32) -> i32, it has to be () -> i32"}},
		{"60,000 blocks in each other", nested.Bytes(), core.ErrTooLarge, nil},
		{"60,000 locals", roomy.Bytes(), core.ErrTooLarge, []string{"locals"}},
		{"a tail call", shoalGuest("", 0x12 /* return_call */, fnRead).Bytes(), core.ErrInvalid, nil},
		{"an atomic instruction", shoalGuest("", 0xfe, 3, 0, ok).Bytes(), core.ErrInvalid, nil},
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
	whole := identity()
	data := len(whole) - len("\x0b\x06\x01\x00\x41\x00\x0b\x00") // all before the section of data is a module, too
	for n := range whole {
		if _, err := wasmetl.Check(whole[:n], 0, 0); n != data && !errors.Is(err, core.ErrInvalid) {
			t.Errorf("the first %d bytes: got %v", n, err)
		}
	}
}

// A call goes on with its version while the name is given another and then taken away.
func TestReplacedWhileRunning(t *testing.T) {
	h := newHost(t, wasmetl.Options{})
	one := install(t, h, wasmetl.Spec{Name: "x"}, identity())
	body, source := io.Pipe()
	type ended struct {
		r   core.TransformResult
		err error
	}
	done := make(chan ended, 1)
	s := &sink{limit: 100}
	go func() {
		r, err := h.RunTransform(t.Context(), core.TransformCall{Transform: core.TransformRef{Name: "x"}, Body: body, Object: core.TransformObject{Size: -1}, Output: s.open, Job: true})
		done <- ended{r, err}
	}()
	if _, err := source.Write([]byte("before ")); err != nil { // the call has begun
		t.Fatal(err)
	}
	if two := install(t, h, wasmetl.Spec{Name: "x"}, constant("two")); two == one {
		t.Fatal("both are one version")
	}
	if _, s := run(t, h, core.TransformRef{Name: "x"}, ""); s.only(t) != "two" {
		t.Errorf("the new version says %q", s.only(t))
	}
	if err := h.Remove(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	_, werr := source.Write([]byte("and after"))
	if err := errors.Join(werr, source.Close()); err != nil {
		t.Fatal(err)
	}
	if e := <-done; e.err != nil || e.r.Transform != one || s.only(t) != "before and after" {
		t.Errorf("got %+v, %v, %q", e.r, e.err, s.only(t))
	}
	if u := h.Usage(); u.Memory != 0 || u.Idle != 0 {
		t.Errorf("afterwards: %+v", u)
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
			if ref.Name == "deep" && k > 40 {
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

// Nor do a thousand runs of all that is hostile; fewer where each takes ten times as long.
func TestNoLeaksOfTheHostile(t *testing.T) {
	h := newHost(t, wasmetl.Options{Running: 1, Stall: 5 * time.Millisecond, MaxOutput: 1 << 20, MaxOutputs: 100})
	type guest struct {
		ref core.TransformRef
		run func(*core.TransformCall)
	}
	var guests []guest
	add := func(name string, wasm []byte, spec wasmetl.Spec, run func(*core.TransformCall)) {
		spec.Name = name
		guests = append(guests, guest{install(t, h, spec, wasm), run})
	}
	add("identity", identity(), wasmetl.Spec{}, nil)
	add("wasi", wasiIdentity(), wasmetl.Spec{}, nil)
	add("fresh", identity(), wasmetl.Spec{Fresh: true}, nil)
	for n, x := range append(corpus(), systems()...) {
		if x.spec.Timeout > 0 {
			x.spec.Timeout = time.Millisecond
		}
		if !strings.HasPrefix(x.name, "deep recursion") { // 84 MB of stack each; see TestNoLeaks
			add(fmt.Sprint("hostile-", n), x.wasm, x.spec, x.run)
		}
	}
	round := func(n int) {
		for k := range n {
			g := guests[k%len(guests)]
			if err := h.Start(g.ref.Name); err != nil {
				t.Fatal(err)
			}
			run(t, h, g.ref, strings.Repeat("x", 100_000), func(c *core.TransformCall) {
				switch turn := k / len(guests) % 3; {
				case g.run != nil:
					g.run(c)
				case turn == 0:
					streaming(io.NopCloser(bytes.NewReader(c.Data)))(c)
				case turn == 1 && g.ref.Name != "fresh":
					streaming(newStalled())(c)
				}
			})
		}
	}
	first, runs, most := 2*len(guests), 1000, int64(64<<20)
	if raceDetector {
		first, runs, most = len(guests), len(guests), 256<<20 // the detector keeps what it has touched
	}
	round(first)
	before := footprint(t)
	round(runs)
	after := footprint(t)
	t.Logf("%d guests: %+v, then %+v", len(guests), before, after)
	// Adjacent mappings count as one; that they are gone is seen in the space.
	if after.maps > before.maps+20 || after.goroutines > before.goroutines ||
		after.resident > before.resident+most || after.space > before.space+(1<<30) {
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
