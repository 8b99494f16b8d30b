package membus_test

import (
	"context"
	"errors"
	"testing"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/bus/bustest"
	"github.com/shoalstore/shoal/bus/membus"
	"github.com/shoalstore/shoal/core"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	bustest.Run(t, func(*testing.T) (bus.Bus, bus.Bus) {
		b := membus.New()
		return b.Client(), b.Client()
	})
}

func TestFaults(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := membus.New()
	c := b.Client()
	rev, err := c.Map().Create(ctx, []byte("1"))
	if err != nil {
		t.Fatal(err)
	}
	set := func(f membus.Fault) {
		b.SetFaults(func(op membus.Op) membus.Fault {
			if op.Kind == "write" && op.Client == c {
				return f
			}
			return membus.None
		})
	}
	load := func() string {
		t.Helper()
		v, r, err := c.Map().Load(ctx)
		if err != nil {
			t.Fatal(err)
		}
		rev = r
		return string(v)
	}
	for _, x := range []struct {
		fault membus.Fault
		err   error
		value string
	}{
		{membus.Unavailable, core.ErrUnavailable, "1"},
		{membus.Conflict, core.ErrConflict, "1"},
		{membus.LostRequest, core.ErrUnknownOutcome, "1"},
		{membus.LostAnswer, core.ErrUnknownOutcome, "2"},
		{membus.None, nil, "2"},
	} {
		set(x.fault)
		if _, err := c.Map().CompareAndSet(ctx, []byte("2"), rev); !errors.Is(err, x.err) {
			t.Errorf("fault %d: got %v, want %v", x.fault, err, x.err)
		}
		if v := load(); v != x.value {
			t.Errorf("fault %d: value %q, want %q", x.fault, v, x.value)
		}
	}
	b.SetFaults(nil)
	b.SetDown(true)
	if _, _, err := c.Map().Load(ctx); !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("load in an outage: %v", err)
	}
	b.SetDown(false)
}

func TestStaleRollbackFork(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := membus.New()
	x, y := b.Client(), b.Client()
	var revs []bus.Revision
	rev, err := x.Map().Create(ctx, []byte("a"))
	for _, v := range []string{"b", "c", "d"} {
		if err != nil {
			t.Fatal(err)
		}
		revs = append(revs, rev)
		rev, err = x.Map().CompareAndSet(ctx, []byte(v), rev)
	}
	get := func(c *membus.Client) string {
		t.Helper()
		v, _, err := c.Map().Load(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return string(v)
	}
	b.SetStale(2)
	if v := get(x); v != "b" {
		t.Errorf("stale by two: got %q, want b", v)
	}
	b.SetStale(0)
	b.Fork(y)
	if _, err := y.Map().CompareAndSet(ctx, []byte("y"), rev); err != nil {
		t.Fatal(err)
	}
	if got := get(x) + get(y); got != "dy" {
		t.Errorf("after a fork: got %q, want dy", got)
	}
	b.Rejoin(y)
	b.Rollback(1)
	if got := get(x) + get(y); got != "cc" {
		t.Errorf("after a rollback: got %q, want cc", got)
	}
	// The number of the forgotten write is given again.
	again, err := x.Map().CompareAndSet(ctx, []byte("e"), revs[2])
	if err != nil || again != rev {
		t.Errorf("write after a rollback: got revision %d, %v, want %d", again, err, rev)
	}
}

// A watcher learns of a rollback: the older value comes again.
func TestWatchSeesRollback(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b := membus.New()
	c := b.Client()
	rev, err := c.Map().Create(ctx, []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	var got string
	for v := range c.Map().Watch(ctx) {
		got += string(v)
		switch got {
		case "a":
			if _, err := c.Map().CompareAndSet(ctx, []byte("b"), rev); err != nil {
				t.Fatal(err)
			}
		case "ab":
			b.Rollback(1)
		case "aba":
			return
		default:
			t.Fatalf("watch: got %q, want aba", got)
		}
	}
}
