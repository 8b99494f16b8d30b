package wasmetl

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/shoalstore/shoal/core"
)

// queue lets others wait at a gate, and notes in which order they come in.
type queue struct {
	t     *testing.T
	g     *gate
	order []string
}

func (q *queue) wait(name string, n int64, c class) {
	go func() {
		if err := q.g.acquire(q.t.Context(), n, c, false); err == nil {
			q.order = append(q.order, name)
		}
	}()
	synctest.Wait()
}

func (q *queue) got(want ...string) {
	q.t.Helper()
	synctest.Wait()
	if !slices.Equal(q.order, want) {
		q.t.Errorf("let in %v, want %v", q.order, want)
	}
	q.order = nil
}

func TestGateTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate("turns", 1, 10)
		q := &queue{t: t, g: g}
		q.wait("first", 1, inline)
		q.got("first")
		q.wait("call 1", 1, inline)
		q.wait("call 2", 1, inline)
		q.wait("job 1", 1, job)
		q.wait("job 2", 1, job)
		q.wait("job again", 1, jobResumed)
		q.wait("call again", 1, inlineResumed)
		for _, want := range []struct {
			name   string
			before bool // a job goes
		}{{"call again", false}, {"job again", false}, {"job 1", true}, {"call 1", true}, {"job 2", false}, {"call 2", true}} {
			g.release(1, want.before)
			q.got(want.name)
		}
	})
}

func TestGateKeepsHalfForCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate("turns", 4, 10)
		q := &queue{t: t, g: g}
		for _, name := range []string{"job 1", "job 2", "job 3"} {
			q.wait(name, 1, job)
		}
		q.got("job 1", "job 2")
		q.wait("call 1", 1, inline)
		q.wait("call 2", 1, inline)
		q.got("call 1", "call 2")
		g.release(1, false)
		q.got()
		g.release(1, true)
		q.got("job 3")
		// One that needs more than there is free is waited for, not passed by.
		q.wait("large", 3, inline)
		q.wait("small", 1, inline)
		q.got()
		g.release(1, false)
		g.release(1, true)
		q.got("large")
		g.release(1, true)
		q.got("small")
	})
}

func TestGateTrades(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate("bytes", 10, 10)
		q := &queue{t: t, g: g}
		q.wait("job 1", 4, job)
		q.wait("job 2", 4, job) // it would fit, but for the share of jobs
		q.got("job 1")
		if !g.trade(4, 1, true) {
			t.Error("a job that waits for the share of jobs had what was to be kept")
		}
		q.got("job 2")
		q.wait("call", 6, inline)
		q.got()
		if !g.trade(4, 1, true) {
			t.Error("not kept, though there is enough for all")
		}
		q.got("call")
		q.wait("another call", 6, inline)
		if g.trade(6, 5, false) {
			t.Error("kept, though somebody waits for it")
		}
		q.got()
		g.release(6, false)
		q.got("another call")
		if g.release(6, false); g.free != 8 || g.jobs != 0 || g.missing() != 0 {
			t.Errorf("%d free, %d of jobs, want 8 and 0", g.free, g.jobs)
		}
		q.wait("large call", 10, inline)
		q.wait("small call", 1, inline)
		if q.got(); g.missing() != 2 {
			t.Errorf("%d missing, want 2", g.missing())
		}
	})
}

func TestGateIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate("turns", 1, 1)
		q := &queue{t: t, g: g}
		q.wait("first", 1, inline)
		q.wait("second", 1, inline)
		if err := g.acquire(t.Context(), 1, inline, false); !errors.Is(err, core.ErrUnavailable) {
			t.Errorf("beyond the queue: got %v", err)
		}
		if err := g.acquire(t.Context(), 2, inline, false); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("more than there is: got %v", err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("why")
		var err error
		go func() { err = g.acquire(ctx, 1, inline, true) }()
		synctest.Wait()
		cancel(why)
		synctest.Wait()
		if !errors.Is(err, why) {
			t.Errorf("called off: got %v", err)
		}
		g.release(1, false)
		q.got("first", "second")
		g.release(1, false)
		if q.wait("third", 1, inline); len(q.order) != 1 {
			t.Error("the gate is not as it was")
		}
	})
}

// The list of WASI's functions is the one that the host gives.
func TestFunctionsOfWASI(t *testing.T) {
	r := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigInterpreter())
	c, err := wasi_snapshot_preview1.NewBuilder(r).Compile(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	known := wasiFunctions()
	there := c.ExportedFunctions()
	if len(there) != len(known) {
		t.Errorf("%d functions, want %d", len(known), len(there))
	}
	names := func(types []api.ValueType) (s string) {
		for i, v := range types {
			if i > 0 {
				s += ", "
			}
			s += api.ValueTypeName(v)
		}
		return s
	}
	for name, f := range there {
		want := "(" + names(f.ParamTypes()) + ") -> ()"
		if len(f.ResultTypes()) == 1 {
			want = "(" + names(f.ParamTypes()) + ") -> " + names(f.ResultTypes())
		}
		if known[name] != want {
			t.Errorf("%s: %q, want %q", name, known[name], want)
		}
	}
}

// Whatever is uploaded, the check ends with a report or an error of a kind.
func FuzzCheck(f *testing.F) {
	f.Add([]byte("\x00asm\x01\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, wasm []byte) {
		r, err := Check(wasm, 0, 0)
		if err != nil {
			if !errors.Is(err, core.ErrInvalid) && !errors.Is(err, core.ErrTooLarge) {
				t.Errorf("an error of no kind: %v", err)
			}
		} else if r.Digest == "" || r.ABI == 0 {
			t.Errorf("report %+v", r)
		}
	})
}
