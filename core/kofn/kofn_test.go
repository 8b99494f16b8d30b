package kofn_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/kofn"
	"github.com/shoalstore/shoal/core/schemetest"
)

const (
	hedge  = 50 * time.Millisecond
	giveUp = time.Second
)

// candidate answers with err after a time, or never if that is negative. A deaf
// one does not notice that it is cancelled.
type candidate struct {
	after time.Duration
	err   error
	deaf  bool
}

type trial struct {
	candidates []candidate
	clock      schemetest.Clock
	wg         sync.WaitGroup
	release    chan struct{} // frees the deaf

	mu        sync.Mutex
	asked     []int
	at        []time.Duration
	cancelled []int
}

func (tr *trial) run(ctx context.Context, k int) (out kofn.Outcome, ok bool, took time.Duration, err error) {
	tr.release = make(chan struct{})
	began := tr.clock.Now()
	plan := kofn.Plan{K: k, Patience: kofn.Patience{Hedge: hedge, GiveUp: giveUp}}
	for i := range tr.candidates {
		plan.Order = append(plan.Order, i)
	}
	out, ok, err = kofn.First(ctx, &tr.wg, tr.clock, plan, func(ctx context.Context, i int) error {
		tr.mu.Lock()
		tr.asked = append(tr.asked, i)
		tr.at = append(tr.at, tr.clock.Now().Sub(began))
		tr.mu.Unlock()
		c := tr.candidates[i]
		if c.deaf {
			<-tr.release
		}
		if c.after < 0 {
			c.after = time.Hour
		}
		if err := tr.clock.Wait(ctx, c.after); err != nil {
			tr.mu.Lock()
			tr.cancelled = append(tr.cancelled, i)
			tr.mu.Unlock()
			return err
		}
		return c.err
	})
	took = tr.clock.Now().Sub(began)
	close(tr.release)
	tr.wg.Wait()
	return out, ok, took, err
}

func TestFirst(t *testing.T) {
	bad := errors.New("bad")
	const ms = time.Millisecond
	ok, fails, hangs, deaf := candidate{after: ms}, candidate{after: ms, err: bad}, candidate{after: -1}, candidate{deaf: true}
	slow := candidate{after: 3 * hedge}
	for name, test := range map[string]struct {
		k          int
		candidates []candidate
		ok         bool
		won, late  []int
		asked      []int // in any order
		failed     int
		silent     []int
		took       time.Duration
	}{
		"the first k are enough":        {2, []candidate{ok, ok, ok}, true, []int{0, 1}, nil, []int{0, 1}, 0, nil, ms},
		"a failure brings in the next":  {2, []candidate{fails, ok, ok, ok}, true, []int{1, 2}, nil, []int{0, 1, 2}, 1, nil, 2 * ms},
		"one after the other":           {1, []candidate{fails, fails, ok, ok}, true, []int{2}, nil, []int{0, 1, 2}, 2, nil, 3 * ms},
		"too many fail":                 {2, []candidate{fails, ok, fails}, false, []int{1}, nil, []int{0, 1, 2}, 2, nil, 2 * ms},
		"too few candidates":            {2, []candidate{ok}, false, nil, nil, []int{0}, 0, nil, 0},
		"none":                          {1, nil, false, nil, nil, nil, 0, nil, 0},
		"the hedge brings in the next":  {2, []candidate{ok, hangs, ok, ok}, true, []int{0, 2}, []int{1}, []int{0, 1, 2}, 0, nil, hedge + ms},
		"the hedge is repeated":         {1, []candidate{hangs, hangs, ok, ok}, true, []int{2}, []int{0, 1}, []int{0, 1, 2}, 0, nil, 2*hedge + ms},
		"one hedge for each late":       {2, []candidate{hangs, hangs, ok, ok, ok}, true, []int{2, 3}, []int{0, 1}, []int{0, 1, 2, 3}, 0, nil, hedge + ms},
		"late, but first":               {1, []candidate{slow, hangs}, true, []int{0}, []int{1}, []int{0, 1}, 0, nil, 3 * hedge},
		"late, and a failing spare":     {1, []candidate{slow, fails, ok}, true, []int{2}, []int{0}, []int{0, 1, 2}, 1, nil, hedge + 2*ms},
		"late, and only failing spares": {1, []candidate{slow, fails, fails}, true, []int{0}, nil, []int{0, 1, 2}, 2, nil, 3 * hedge},
		"given up":                      {1, []candidate{hangs, fails}, false, nil, nil, []int{0, 1}, 1, []int{0}, giveUp + hedge},
		"the deaf are left behind":      {1, []candidate{deaf, ok}, true, []int{1}, []int{0}, []int{0, 1}, 0, nil, hedge + ms},
		"all deaf":                      {1, []candidate{deaf, deaf}, false, nil, nil, []int{0, 1}, 0, []int{0, 1}, giveUp},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := trial{candidates: test.candidates}
				out, ok, took, err := tr.run(t.Context(), test.k)
				if ok != test.ok || err != nil {
					t.Errorf("got %v and error %v, want %v and none", ok, err, test.ok)
				}
				for _, s := range [][]int{out.Won, out.Late, out.Silent, tr.asked} {
					slices.Sort(s)
				}
				if !slices.Equal(out.Won, test.won) || !slices.Equal(out.Late, test.late) || !slices.Equal(out.Silent, test.silent) {
					t.Errorf("won %v, late %v, silent %v; want %v, %v, %v", out.Won, out.Late, out.Silent, test.won, test.late, test.silent)
				}
				if !slices.Equal(tr.asked, test.asked) {
					t.Errorf("asked %v, want %v", tr.asked, test.asked)
				}
				if len(out.Failed) != test.failed {
					t.Errorf("failed: got %v, want %d", out.Failed, test.failed)
				}
				// An answer before the hedge makes the silence begin anew.
				if took < test.took || took > test.took+ms {
					t.Errorf("it took %v, want %v", took, test.took)
				}
			})
		})
	}
}

func TestFirstCancelsLosers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := trial{candidates: []candidate{{after: -1}, {after: 0}}}
		if _, ok, _, err := tr.run(t.Context(), 1); !ok || err != nil {
			t.Fatalf("got %v, %v", ok, err)
		}
		if !slices.Equal(tr.cancelled, []int{0}) {
			t.Errorf("cancelled %v, want 0", tr.cancelled)
		}
	})
}

func TestFirstCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), hedge/2)
		defer cancel()
		tr := trial{candidates: []candidate{{deaf: true}, {deaf: true}}}
		_, ok, took, err := tr.run(ctx, 1)
		if ok || !errors.Is(err, context.DeadlineExceeded) || took != hedge/2 {
			t.Errorf("got %v, error %v after %v; want the context's error after %v", ok, err, took, hedge/2)
		}
	})
}

func TestWithoutPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		clock := schemetest.Clock{}
		out, ok, err := kofn.First(t.Context(), &wg, clock, kofn.Plan{K: 1, Order: []int{0, 1}}, func(ctx context.Context, _ int) error {
			return clock.Wait(ctx, time.Hour)
		})
		if !ok || err != nil || !slices.Equal(out.Won, []int{0}) {
			t.Errorf("got %+v, %v, %v; want the first to win, however long it takes", out, ok, err)
		}
		wg.Wait()
	})
}

func TestErrSilent(t *testing.T) {
	if err := kofn.ErrSilent(time.Second); !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

func TestDelay(t *testing.T) {
	var d kofn.Delay
	if got := d.Get(); got != kofn.MinDelay {
		t.Errorf("at first: got %v, want %v", got, kofn.MinDelay)
	}
	for range 1000 {
		d.Observe(100 * time.Millisecond)
	}
	if got := d.Get(); got < 390*time.Millisecond || got > 400*time.Millisecond {
		t.Errorf("after answers of 100ms: got %v, want some 400ms", got)
	}
	for range 1000 {
		d.Observe(time.Minute)
	}
	if got := d.Get(); got != kofn.MaxDelay {
		t.Errorf("after answers of a minute: got %v, want %v", got, kofn.MaxDelay)
	}
	for range 1000 {
		d.Observe(time.Millisecond)
	}
	if got := d.Get(); got != kofn.MinDelay {
		t.Errorf("after answers of 1ms: got %v, want %v", got, kofn.MinDelay)
	}
}

// What ends because the caller's context did is not a verdict on the candidates.
func TestCancelledWhileTheLastFails(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	_, ok, err := kofn.First(ctx, &wg, schemetest.Clock{}, kofn.Plan{K: 1, Order: []int{0}, Patience: kofn.Patience{Hedge: hedge, GiveUp: giveUp}},
		func(ctx context.Context, _ int) error {
			cancel()
			<-ctx.Done()
			return ctx.Err()
		})
	if ok || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, %v; want the context's error", ok, err)
	}
}
