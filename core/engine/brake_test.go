package engine

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalstore/shoal/core"
)

// bubbleClock is the time of a synctest bubble.
type bubbleClock struct{ began time.Time }

func (bubbleClock) Now() time.Time       { return time.Now() }
func (c bubbleClock) Boot() core.Instant { return core.Instant(time.Hour + time.Since(c.began)) }
func (bubbleClock) Wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// paid is how long it takes to pay.
func paid(t *testing.T, b *brake, n int, took time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	if err := b.pay(t.Context(), n, took); err != nil {
		t.Fatal(err)
	}
	return time.Since(began)
}

func TestBrakeBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 1 << 20
		b := newBrake(bubbleClock{time.Now()}, limit)
		var all time.Duration
		for range 40 {
			all += paid(t, b, limit/4, time.Millisecond)
		}
		// Ten seconds' worth, less what may be moved at once.
		if want := 9750 * time.Millisecond; all < want || all > want+100*time.Millisecond {
			t.Errorf("10 MiB at 1 MiB/s took %v, want %v", all, want)
		}
		if took := paid(t, newBrake(bubbleClock{time.Now()}, 0), 1<<40, time.Hour); took != 0 {
			t.Errorf("without a limit and clients it took %v", took)
		}
	})
}

// TestBrakeTakesTurns: while clients are served, the share is that of all workers
// together.
func TestBrakeTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrake(bubbleClock{time.Now()}, 0)
		leave := b.enter()
		began := time.Now()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 5 {
					did, err := b.step(t.Context(), func() {
						// Half of it is reading, which is paid for at once.
						for _, read := range []bool{true, false} {
							if err := b.clock.Wait(t.Context(), 5*time.Millisecond); err != nil {
								t.Error(err)
							}
							if read {
								paid(t, b, 1, 5*time.Millisecond)
							}
						}
					})
					if err != nil || !did {
						t.Error(did, err)
					}
				}
			})
		}
		wg.Wait()
		if got, want := time.Since(began), 20*(1+yield)*10*time.Millisecond; got != want {
			t.Errorf("4 workers did 20 steps of 10 ms in %v, want %v", got, want)
		}
		leave()
	})
}

func TestBrakeYields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrake(bubbleClock{time.Now()}, 0)
		leave := b.enter()
		if got, want := paid(t, b, 1, 20*time.Millisecond), yield*20*time.Millisecond; got != want {
			t.Errorf("rest while a request is under way: got %v, want %v", got, want)
		}
		if got := paid(t, b, 1, time.Hour); got != maxYield {
			t.Errorf("rest after an hour of work: got %v, want %v", got, maxYield)
		}
		leave()
		if got := paid(t, b, 1, time.Minute); got < lingering || got > lingering+yieldStep {
			t.Errorf("rest after the last request: got %v, want about %v", got, lingering)
		}
		if got := paid(t, b, 1, time.Minute); got != 0 {
			t.Errorf("rest without requests: got %v", got)
		}
	})
}

// TestBrakeTurnThatIsHeld: once no client is served any more nobody waits for whoever has
// the turn, which may be waiting for a node that does not answer.
func TestBrakeTurnThatIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrake(bubbleClock{time.Now()}, 0)
		leave := b.enter()
		answer := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = b.step(t.Context(), func() { <-answer }) })
		synctest.Wait()
		began := time.Now()
		time.AfterFunc(time.Second, leave)
		if did, err := b.step(t.Context(), func() {}); !did || err != nil {
			t.Error(did, err)
		}
		if took := time.Since(began); took < time.Second || took > time.Second+2*lingering {
			t.Errorf("it waited %v for a turn that nobody gives up, want about a second", took)
		}
		close(answer)
		wg.Wait()
	})
}
