package sim

import (
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

// model is a key that can be read, written, removed and created.
func model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return 0 },
		Step: func(state, input, output any) (bool, any) {
			have := state.(int)
			q := input.(request)
			r, answered := output.(reply)
			switch q.kind {
			case opGet:
				return r.value == have, have
			case opPut:
				return true, q.value
			case opDelete:
				return true, 0
			}
			if !answered {
				if have == 0 {
					return true, q.value
				}
				return true, have
			}
			if r.took {
				return have == 0, q.value
			}
			return have != 0, have
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
	}
}

// linearizable checks the history of each key. Operations without an answer may
// have taken place at any time since, or never.
func (h *history) linearizable() error {
	byKey := map[string][]porcupine.Operation{}
	for i, op := range h.ops {
		if op.void {
			continue
		}
		p := porcupine.Operation{ClientId: i, Input: op.q, Call: int64(op.call), Return: int64(op.back), Output: op.r}
		if !op.answered {
			p.Return, p.Output = math.MaxInt64, nil
		}
		byKey[op.q.key] = append(byKey[op.q.key], p)
	}
	for key, ops := range byKey {
		switch porcupine.CheckOperationsTimeout(model(), ops, 20*time.Second) {
		case porcupine.Illegal:
			return fmt.Errorf("the history of %s is not linearizable: %s", key, h.of(key))
		case porcupine.Unknown:
			return fmt.Errorf("the history of %s could not be decided", key)
		}
	}
	return nil
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
