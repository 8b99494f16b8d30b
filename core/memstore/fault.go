package memstore

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/shoalstore/shoal/core"
)

// Op is an operation of a store; several can be combined with |.
type Op int

// The operations.
const (
	Create Op = 1 << iota
	Write
	Commit
	Open
	Read
	Delete
	// Ack is the answer to a Commit that has taken effect.
	Ack
	// Any is all of them: a store that is down.
	Any = Create | Write | Commit | Open | Read | Delete | Ack
)

func (o Op) String() string {
	for i, name := range []string{"create", "write", "commit", "open", "read", "delete", "acknowledge"} {
		if o == 1<<i {
			return name
		}
	}
	return fmt.Sprintf("operations %b", int(o))
}

// Fault is a way to misbehave. With neither Err, Stall nor Delay set it fails
// with ErrUnavailable.
type Fault struct {
	// Op says which operations are hit.
	Op Op
	// Shard restricts the fault to one shard, if set.
	Shard core.ShardID
	// After lets that many bytes of Write or Read pass before the fault shows,
	// the first part of the write that exceeds it included; for operations
	// without bytes, that many calls.
	After int64
	// Times is how many calls are hit; 0: all.
	Times int
	// Err is the error to return, after Delay.
	Err error
	// Delay slows the call down.
	Delay time.Duration
	// Stall blocks the call until the fault is released, or its ctx ends.
	Stall bool
	// Deaf, with Stall, ignores the end of the ctx, as a hung device does; once
	// released the call takes its course.
	Deaf bool
}

type fault struct {
	Fault
	seen     int64
	hits     int
	released chan struct{}
}

// Inject adds a fault. Release takes it back and lets the calls go on that it
// holds up; it may be called more than once.
func (s *Store) Inject(f Fault) (release func()) {
	ft := &fault{Fault: f, released: make(chan struct{})}
	s.mu.Lock()
	s.faults = append(s.faults, ft)
	s.mu.Unlock()
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if i := slices.Index(s.faults, ft); i >= 0 {
			s.faults = slices.Delete(s.faults, i, i+1)
			close(ft.released)
		}
	}
}

// hit says whether the fault strikes at a call about n bytes, and after how
// many of them.
func (f *fault) hit(op Op, id core.ShardID, n int) (pass int, struck bool) {
	if f.Op&op == 0 || f.Shard != (core.ShardID{}) && f.Shard != id || f.Times > 0 && f.hits >= f.Times {
		return n, false
	}
	size := int64(n)
	if op&(Write|Read) == 0 {
		size = 1
	}
	before := f.seen
	f.seen += size
	if f.seen <= f.After {
		return n, false
	}
	f.hits++
	return int(min(max(f.After-before, 0), int64(n))), true
}

// enter begins a call about n bytes: it applies the faults and returns how many
// bytes are to be worked on, with an error if that is not all.
func (s *Store) enter(ctx context.Context, op Op, id core.ShardID, n int) (int, error) {
	s.mu.Lock()
	s.stats.Calls++
	var struck []*fault
	pass := n
	for _, f := range s.faults {
		if p, ok := f.hit(op, id, n); ok {
			struck = append(struck, f)
			pass = min(pass, p)
		}
	}
	s.mu.Unlock()
	defer s.count(func(st *Stats) { st.Calls-- })
	deaf := false
	for _, f := range struck {
		if f.Delay > 0 {
			if err := s.clock.Wait(ctx, f.Delay); err != nil {
				return 0, fmt.Errorf("%v shard %v: %w", op, id, err)
			}
		}
		if f.Stall {
			done := ctx.Done()
			if f.Deaf {
				done, deaf = nil, true
			}
			select {
			case <-f.released:
			case <-done:
			}
		}
		err := f.Err
		if err == nil && !f.Stall && f.Delay == 0 {
			err = core.ErrUnavailable
		}
		if err != nil {
			return pass, fmt.Errorf("%v shard %v: %w", op, id, err)
		}
	}
	if err := ctx.Err(); err != nil && !deaf {
		return 0, fmt.Errorf("%v shard %v: %w", op, id, err)
	}
	return n, nil
}
