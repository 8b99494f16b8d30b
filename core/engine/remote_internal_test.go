package engine

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/shoalstore/shoal/core"
)

// TestBlockMemory: no more is given than there is, in the order in which it is asked
// for, and what nobody waits for any more goes to the next.
func TestBlockMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pressed := 0
		m := newBlockMemory(30, 10)
		m.pressed = func() { pressed++ }
		var held [][]byte
		for range 3 {
			b, err := m.acquire(t.Context(), 10)
			if err != nil || len(b) != 10 {
				t.Fatal(len(b), err)
			}
			held = append(held, b)
		}
		order := make(chan int, 3)
		ask := func(ctx context.Context, i, n int) {
			go func() {
				b, err := m.acquire(ctx, n)
				if err == nil && len(b) != n || err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("%d: %d bytes, %v", i, len(b), err)
				}
				if err == nil {
					order <- i
				}
			}()
			synctest.Wait()
		}
		gone, leave := context.WithCancel(t.Context())
		ask(t.Context(), 1, 20)
		ask(gone, 2, 10)
		ask(t.Context(), 3, 5)
		if len(order) > 0 || pressed != 3 {
			t.Fatalf("%d were given what was not there; pressed %d times", len(order), pressed)
		}
		m.release(held[0])
		synctest.Wait()
		if len(order) > 0 {
			t.Fatalf("%d came before the first, who needs more", <-order)
		}
		m.release(held[1])
		synctest.Wait()
		if len(order) != 1 || <-order != 1 {
			t.Fatal("the first one was not served")
		}
		leave()
		synctest.Wait()
		m.release(held[2])
		synctest.Wait()
		if len(order) != 1 || <-order != 3 {
			t.Fatal("who came behind one that left was not served")
		}
		if m.free != 5 {
			t.Errorf("%d bytes are free", m.free)
		}
	})
}

// TestBlockMemoryAgain: the memory of large blocks is used again, by one at a time, and
// holds nothing once none is in use.
func TestBlockMemoryAgain(t *testing.T) {
	const usual = 64 << 10
	m := newBlockMemory(3*usual, usual)
	get := func(n int) []byte {
		t.Helper()
		b, err := m.acquire(t.Context(), n)
		if err != nil || len(b) != n {
			t.Fatal(len(b), err)
		}
		return b
	}
	small, x, y := get(usual/2), get(usual), get(usual/2+1)
	if &x[0] == &y[0] {
		t.Fatal("two blocks have the same memory")
	}
	x[7], y[7], small[7] = 1, 2, 3
	m.release(x)
	z := get(usual)
	if x[7] != 1 || y[7] != 2 {
		t.Error("memory that is in use was cleared")
	}
	m.release(y)
	m.release(small)
	m.release(z)
	if m.free != m.total {
		t.Errorf("%d of %d bytes are free", m.free, m.total)
	}
	if x, y := get(usual), get(usual); x[7] != 0 || y[7] != 0 || &x[0] == &y[0] {
		t.Errorf("memory that nobody used has %d and %d", x[7], y[7])
	}
}

// TestForgoesNothing: of an object whose slot has no owner just now the record is not
// known; that is no reason to let it go.
func TestForgoesNothing(t *testing.T) {
	b := core.Bucket{Name: core.BucketName{Provider: core.S3, Name: "b"}}
	if new(reconciler).forgoes(t.Context(), &core.Map{}, &b, &core.Row{}, nil) {
		t.Error("it was let go of")
	}
}
