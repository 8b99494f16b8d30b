package e2e_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// opKind is what a client asks for.
type opKind int

const (
	opRead   opKind = iota // a GET or HEAD, or the key's place in a listing
	opPut                  // without a condition
	opCreate               // PUT with If-None-Match: *
	opSwap                 // PUT with If-Match
	opDelete
)

func (k opKind) String() string { return [...]string{"read", "put", "create", "swap", "delete"}[k] }

// call is a request for one key. A value is the ETag of the data, "" is no
// object: every write brings data that no other brings.
type call struct {
	kind  opKind
	value string
	match string // of swaps
	what  string // for people
}

// answer is what came of a call. It is open if nobody knows: the call may have
// taken effect, may do so later, or never.
type answer struct {
	open  bool
	took  bool   // of conditional writes
	value string // of reads
}

// event is a call with its answer.
type event struct {
	client      int
	key         string
	call        call
	answer      answer
	began, done time.Duration
}

// history is what the clients saw. It is safe for concurrent use.
type history struct {
	start time.Time

	mu     sync.Mutex
	events []event
	open   map[string]int // open calls of each key
}

func newHistory() *history { return &history{start: time.Now(), open: map[string]int{}} }

// add notes what came of a call that began at the time.
func (h *history) add(client int, key string, c call, a answer, began time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a.open {
		h.open[key]++
	}
	h.events = append(h.events, event{client, key, c, a, began.Sub(h.start), time.Since(h.start)})
}

// opened is how many calls of the key are open for ever. A check takes
// exponentially longer with each.
func (h *history) opened(key string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.open[key]
}

// model is one key.
func model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return "" },
		Step: func(state, input, output any) (bool, any) {
			have, c, a := state.(string), input.(call), output.(answer)
			holds := true
			switch c.kind {
			case opRead:
				return a.value == have, have
			case opPut, opDelete:
				return true, c.value
			case opCreate:
				holds = have == ""
			case opSwap:
				holds = have == c.match
			}
			if a.open {
				if holds {
					return true, c.value
				}
				return true, have
			}
			if a.took {
				return holds, c.value
			}
			return !holds, have
		},
	}
}

// check fails the test unless the history of every key is linearizable.
func (h *history) check(t *testing.T) {
	t.Helper()
	byKey := map[string][]porcupine.Operation{}
	for i, e := range h.events {
		op := porcupine.Operation{ClientId: i, Input: e.call, Output: e.answer, Call: int64(e.began), Return: int64(e.done)}
		if e.answer.open {
			op.Return = math.MaxInt64
		}
		byKey[e.key] = append(byKey[e.key], op)
	}
	for key, ops := range byKey {
		switch porcupine.CheckOperationsTimeout(model(), ops, 30*time.Second) {
		case porcupine.Illegal:
			t.Errorf("the history of %s is not linearizable:%s", key, h.of(key))
		case porcupine.Unknown:
			t.Errorf("the history of %s, of %d calls and %d open, was not decided in time", key, len(ops), h.open[key])
		case porcupine.Ok:
		}
	}
}

// of tells the history of a key.
func (h *history) of(key string) string {
	events := slices.DeleteFunc(slices.Clone(h.events), func(e event) bool { return e.key != key })
	slices.SortFunc(events, func(a, b event) int { return int(a.began - b.began) })
	var b strings.Builder
	short := func(v string) string { return v[:min(6, len(v))] }
	for _, e := range events {
		fmt.Fprintf(&b, "\n  %9.4f .. %9.4f  client %2d %-6s %-24s", e.began.Seconds(), e.done.Seconds(), e.client, e.call.kind, e.call.what)
		switch e.call.kind {
		case opRead:
			fmt.Fprintf(&b, " -> %q", short(e.answer.value))
		case opSwap:
			fmt.Fprintf(&b, " %q to %q", short(e.call.match), short(e.call.value))
		default:
			fmt.Fprintf(&b, " %q", short(e.call.value))
		}
		switch {
		case e.answer.open:
			b.WriteString(" OPEN")
		case e.answer.took:
			b.WriteString(" took effect")
		case e.call.kind == opCreate || e.call.kind == opSwap:
			b.WriteString(" refused")
		}
	}
	return b.String()
}

// TestHistoryCheck holds the checker to what it must find.
func TestHistoryCheck(t *testing.T) {
	type step struct {
		c           call
		a           answer
		began, done time.Duration
	}
	put := func(v string, began, done time.Duration) step {
		return step{call{kind: opPut, value: v}, answer{}, began, done}
	}
	read := func(v string, began, done time.Duration) step {
		return step{call{kind: opRead}, answer{value: v}, began, done}
	}
	open := func(s step) step { s.a = answer{open: true}; return s }
	for _, c := range []struct {
		name  string
		steps []step
		want  porcupine.CheckResult
	}{
		{"read after write", []step{put("a", 0, 1), read("a", 2, 3)}, porcupine.Ok},
		{"lost write", []step{put("a", 0, 1), read("", 2, 3)}, porcupine.Illegal},
		{"stale read", []step{put("a", 0, 1), put("b", 2, 3), read("a", 4, 5)}, porcupine.Illegal},
		{"open write comes late", []step{put("a", 0, 1), open(put("b", 2, 3)), read("a", 4, 5), read("b", 6, 7)}, porcupine.Ok},
		{"open write is undone", []step{put("a", 0, 1), open(put("b", 2, 3)), read("b", 4, 5), read("a", 6, 7)}, porcupine.Illegal},
		{"two creates", []step{
			{call{kind: opCreate, value: "a"}, answer{took: true}, 0, 1},
			{call{kind: opCreate, value: "b"}, answer{took: true}, 0, 1},
		}, porcupine.Illegal},
		{"swap of another value", []step{put("a", 0, 1), {call{kind: opSwap, match: "b", value: "c"}, answer{took: true}, 2, 3}}, porcupine.Illegal},
		{"swap refused for nothing", []step{put("a", 0, 1), {call{kind: opSwap, match: "a", value: "c"}, answer{}, 2, 3}}, porcupine.Illegal},
	} {
		t.Run(c.name, func(t *testing.T) {
			var ops []porcupine.Operation
			for i, s := range c.steps {
				op := porcupine.Operation{ClientId: i, Input: s.c, Output: s.a, Call: int64(s.began), Return: int64(s.done)}
				if s.a.open {
					op.Return = math.MaxInt64
				}
				ops = append(ops, op)
			}
			if got := porcupine.CheckOperationsTimeout(model(), ops, 0); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}
