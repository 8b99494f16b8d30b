package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// randomHistory is of one key: calls of a few clients against a key that is written at
// some time within each call, or for open ones at any time after it began, or never.
// If it lies, one read says something else.
func randomHistory(rng *rand.Rand, n int, open float64, lies bool) *history {
	const key = "k"
	h := &history{}
	value, next := 0, 0
	type late struct {
		at time.Duration
		op *operation
	}
	var pending []late
	apply := func(op *operation) {
		switch op.q.kind {
		case opPut:
			value = op.q.value
		case opDelete:
			value = 0
		case opCreate:
			if op.r.took = value == 0; op.r.took {
				value = op.q.value
			}
		default:
			op.r.value = value
		}
	}
	var reads []*operation
	for i := range n {
		now := time.Duration(i*10 + 1)
		for j := 0; j < len(pending); {
			if pending[j].at < now {
				apply(pending[j].op)
				pending = append(pending[:j], pending[j+1:]...)
				continue
			}
			j++
		}
		q := request{kind: kind(rng.IntN(int(opCreate) + 1)), key: key}
		if q.kind == opPut || q.kind == opCreate {
			next++
			q.value = next
		}
		op := h.begin(i, q, now-time.Duration(rng.IntN(30)))
		if q.kind != opGet && rng.Float64() < open {
			if rng.IntN(2) == 0 {
				pending = append(pending, late{now + time.Duration(rng.IntN(100)), op})
			}
			continue
		}
		apply(op)
		op.back, op.answered = now+time.Duration(rng.IntN(30)), true
		if q.kind == opGet {
			reads = append(reads, op)
		}
	}
	if lies && len(reads) > 0 {
		reads[rng.IntN(len(reads))].r.value = rng.IntN(next + 1)
	}
	return h
}

// TestHistoryCheck compares the check with one that tries every order: it must find the
// same histories impossible.
func TestHistoryCheck(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	found := map[porcupine.CheckResult]int{}
	for i := range 4000 {
		h := randomHistory(rng, 14, 0.4, i%2 == 1)
		var plain []porcupine.Operation
		for i, op := range h.ops {
			p := porcupine.Operation{ClientId: i, Input: call{request: op.q}, Call: int64(op.call), Return: int64(op.back), Output: op.r}
			if !op.answered {
				p.Return, p.Output = math.MaxInt64, nil
			}
			plain = append(plain, p)
		}
		want := porcupine.CheckOperationsTimeout(model(), plain, 0)
		got := porcupine.CheckOperationsTimeout(model(), operations(h.byKey()["k"]), 0)
		if got != want {
			t.Fatalf("history %d: got %s, want %s:%s", i, got, want, h.of("k"))
		}
		found[want]++
	}
	if found[porcupine.Ok] < 2000 || found[porcupine.Illegal] < 500 {
		t.Errorf("too few of a kind: %v", found)
	}
}

// TestHistoryOfManyOpen holds the check to a bounded time whatever the number of calls
// that nobody had an answer to.
func TestHistoryOfManyOpen(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := randomHistory(rand.New(rand.NewPCG(seed, 3)), 300, 0.5, false)
			if err := h.linearizable(); err != nil {
				t.Error(err)
			}
		})
	}
}
