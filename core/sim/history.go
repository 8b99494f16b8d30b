package sim

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// history is what the clients saw.
type history struct {
	ops []*operation
}

type operation struct {
	client     int
	q          request
	r          reply
	call, back time.Duration
	answered   bool
	void       bool
}

func (h *history) begin(client int, q request, now time.Duration) *operation {
	op := &operation{client: client, q: q, call: now}
	h.ops = append(h.ops, op)
	return op
}

func (h *history) end(op *operation, r reply, now time.Duration) {
	op.r, op.back, op.answered = r, now, true
}

// forget takes a read out that got no answer.
func (h *history) forget(client int, q request) {
	for _, op := range slices.Backward(h.ops) {
		if op.q.key == q.key && op.q.kind == opGet && op.client == client && !op.answered && !op.void {
			op.void = true
			return
		}
	}
}

// read adds a read that a listing made.
func (h *history) read(client int, key string, value int, call, back time.Duration) {
	h.ops = append(h.ops, &operation{
		client: client, q: request{kind: opGet, key: key}, r: reply{value: value}, call: call, back: back, answered: true,
	})
}

// state is a key's value and how many of each kind of interchangeable calls have
// taken effect.
type state struct {
	value int
	used  [kinds]int
}

// call is a request as the check sees it. Calls without an answer whose values nobody
// has read are interchangeable within their kind: all of them may take effect at any
// time since they were made, with the same effect. In any order that explains the
// history they can change places until they are in the order in which they were made,
// so that only this one is tried. Without that a check takes exponentially longer with
// each of them.
type call struct {
	request
	alike bool // one of the interchangeable calls of its kind, the nth
	nth   int
}

// unread stands for all values that nobody has read.
const unread = -1

// model is a key that can be read, written, removed and created.
func model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return state{} },
		Step: func(was, input, output any) (bool, any) {
			s, q := was.(state), input.(call)
			if q.alike {
				if s.used[q.kind] != q.nth {
					return false, s
				}
				s.used[q.kind]++
			}
			r, answered := output.(reply)
			have := s.value
			switch q.kind {
			case opGet:
				return r.value == have, s
			case opPut:
				s.value = q.value
				return true, s
			case opDelete:
				s.value = 0
				return true, s
			}
			if have == 0 && (!answered || r.took) {
				s.value = q.value
			}
			return !answered || r.took == (have == 0), s
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
	}
}

// linearizable checks the history of each key. Operations without an answer may
// have taken place at any time since, or never.
func (h *history) linearizable() error {
	for key, ops := range h.byKey() {
		switch porcupine.CheckOperationsTimeout(model(), operations(ops), 20*time.Second) {
		case porcupine.Illegal:
			return fmt.Errorf("the history of %s is not linearizable: %s", key, h.of(key))
		case porcupine.Unknown:
			return fmt.Errorf("the history of %s could not be decided", key)
		}
	}
	return nil
}

// byKey are the operations of each key in the order in which they began.
func (h *history) byKey() map[string][]*operation {
	all := map[string][]*operation{}
	for _, op := range h.ops {
		if !op.void {
			all[op.q.key] = append(all[op.q.key], op)
		}
	}
	for _, ops := range all {
		slices.SortStableFunc(ops, func(a, b *operation) int { return cmp.Compare(a.call, b.call) })
	}
	return all
}

// operations are those of one key, in the order in which they began, for the check.
func operations(ops []*operation) []porcupine.Operation {
	read := map[int]bool{0: true}
	for _, op := range ops {
		if op.q.kind == opGet && op.answered {
			read[op.r.value] = true
		}
	}
	var made [kinds]int
	out := make([]porcupine.Operation, len(ops))
	for i, op := range ops {
		c := call{request: op.q}
		if op.q.kind != opGet && !read[op.q.value] {
			c.value = unread
		}
		p := porcupine.Operation{ClientId: i, Call: int64(op.call), Return: int64(op.back), Output: op.r}
		if !op.answered {
			p.Return, p.Output = math.MaxInt64, nil
			if op.q.kind == opDelete || c.value == unread {
				c.alike, c.nth = true, made[op.q.kind]
				made[op.q.kind]++
			}
		}
		p.Input = c
		out[i] = p
	}
	return out
}

func (h *history) of(key string) string {
	var out strings.Builder
	names := []string{"get", "put", "delete", "create"}
	for _, op := range h.ops {
		if op.q.key != key || op.void {
			continue
		}
		end := "open"
		if op.answered {
			end = fmt.Sprintf("%v %+v", op.back, op.r)
		}
		fmt.Fprintf(&out, "\n  c%d %v..%s %s %d", op.client, op.call, end, names[op.q.kind], op.q.value)
	}
	return out.String()
}
