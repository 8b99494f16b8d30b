package kofn

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
)

// Patience is how long to wait for answers before doing something else.
type Patience struct {
	// Hedge is the time after which calls without an answer are late, so
	// that others should be asked as well; those are late after the same
	// time again. 0 or less: they never are.
	Hedge time.Duration
	// GiveUp is the time without any answer after which none is expected any
	// more. 0 or less: one is expected for ever.
	GiveUp time.Duration
}

// Event is what [Race.Next] waited for.
type Event int

// The events.
const (
	// Answer is the end of a call.
	Answer Event = iota
	// Late says that the calls under way have passed the time of the hedge.
	Late
	// Silent says that there was no answer for the time to give up.
	Silent
)

// Result is the end of one call of a [Race].
type Result struct {
	// Index is the number that the call was started under.
	Index int
	Err   error
}

// Race runs calls in goroutines of their own and hands back their results as
// they come. Its methods are for one goroutine. Each call is bounded by the ctx
// it was started with: when the owner of the race has what it wants it cancels
// that, calls Close and forgets the race.
type Race struct {
	wg      *sync.WaitGroup
	clock   core.Clock
	results chan Result

	patience Patience
	step     time.Duration // length of the alarm that is set
	silence  time.Duration // time of the alarms since the last answer
	alarm    <-chan struct{}
	stop     context.CancelFunc
}

// NewRace returns a race of about n calls whose goroutines are counted in wg.
func NewRace(wg *sync.WaitGroup, clock core.Clock, p Patience, n int) *Race {
	return &Race{wg: wg, clock: clock, patience: p, results: make(chan Result, n)}
}

// Go starts f. If ctx ends before the result is taken, the result is dropped.
func (r *Race) Go(ctx context.Context, i int, f func(ctx context.Context) error) {
	r.wg.Go(func() {
		res := Result{Index: i, Err: f(ctx)}
		select {
		case r.results <- res:
		case <-ctx.Done():
		}
	})
}

// Next waits for an event. The result is valid with Answer only; the error is
// ctx's. An answer that is there already comes first. The time of the hedge
// counts from the first Next, or from the last event that was Late.
func (r *Race) Next(ctx context.Context) (Event, Result, error) {
	select {
	case res := <-r.results:
		r.silence = 0
		return Answer, res, nil
	default:
	}
	if r.alarm == nil {
		r.arm(ctx)
	}
	select {
	case res := <-r.results:
		r.silence = 0
		return Answer, res, nil
	case <-r.alarm:
	case <-ctx.Done():
		return 0, Result{}, ctx.Err()
	}
	r.Close()
	r.silence += r.step
	if r.patience.GiveUp > 0 && r.silence >= r.patience.GiveUp {
		r.silence = 0
		return Silent, Result{}, nil
	}
	return Late, Result{}, nil
}

// arm sets the alarm for the next thing that would be Late or Silent.
func (r *Race) arm(ctx context.Context) {
	r.step = r.patience.Hedge
	if left := r.patience.GiveUp - r.silence; left > 0 && (r.step <= 0 || r.step > left) {
		r.step = left
	}
	if r.step > 0 {
		r.alarm, r.stop = Alarm(ctx, r.wg, r.clock, r.step)
	}
}

// Close ends the waiting for the next alarm.
func (r *Race) Close() {
	if r.stop != nil {
		r.stop()
		r.alarm, r.stop = nil, nil
	}
}

// ErrSilent is the error of a call that was given up after d.
func ErrSilent(d time.Duration) error {
	return fmt.Errorf("no answer for %v: %w", d, core.ErrUnavailable)
}

// Alarm returns a channel that is closed once d has passed. Stop ends the
// waiting; it must be called.
func Alarm(ctx context.Context, wg *sync.WaitGroup, clock core.Clock, d time.Duration) (ring <-chan struct{}, stop context.CancelFunc) {
	ctx, stop = context.WithCancel(ctx)
	c := make(chan struct{})
	wg.Go(func() {
		if clock.Wait(ctx, d) == nil {
			close(c)
		}
	})
	return c, stop
}
