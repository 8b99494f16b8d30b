package natsbus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
)

// ledger is a load on the bus that knows what was acknowledged to it.
type ledger struct {
	t       testing.TB
	counter int // the newest value of the register that was acknowledged
	doubt   int // the newest that may have been written
	jobs    []string
	acked   atomic.Int64
	unknown int
	longest atomic.Int64 // time between two acknowledgements, ns
}

// write counts the register up by compare-and-set and creates a job at every
// tenth value, until ctx ends.
func (l *ledger) write(ctx context.Context, c *Client) {
	last := time.Now()
	for ctx.Err() == nil {
		v, rev, err := c.Map().Load(ctx)
		if err != nil {
			continue
		}
		n, err := strconv.Atoi(string(v))
		if err != nil {
			l.t.Errorf("the register holds %q", v)
			return
		}
		if n < l.counter {
			// A stale read; the write at this revision must fail.
			l.t.Logf("stale read: %d after %d", n, l.counter)
		}
		_, err = c.Map().CompareAndSet(ctx, []byte(strconv.Itoa(n+1)), rev)
		switch {
		case err == nil:
			if n+1 <= l.counter {
				l.t.Errorf("the register went back: %d was acknowledged after %d", n+1, l.counter)
			}
			l.counter = n + 1
			l.acked.Add(1)
			if d := int64(time.Since(last)); d > l.longest.Load() {
				l.longest.Store(d)
			}
			last = time.Now()
		case errors.Is(err, core.ErrUnknownOutcome):
			l.unknown++
			l.doubt = n + 1
			continue
		case errors.Is(err, core.ErrConflict) || errors.Is(err, core.ErrUnavailable):
			continue
		default:
			l.t.Errorf("compare-and-set: %v", err)
			return
		}
		if n%10 == 0 {
			key := fmt.Sprintf("spec.job%d", n)
			if _, err := c.Jobs().Create(ctx, key, []byte("job")); err == nil {
				l.jobs = append(l.jobs, key)
			}
		}
	}
}

// goesOn waits for a write after this moment.
func (l *ledger) goesOn(limit time.Duration) {
	l.t.Helper()
	from := l.acked.Load()
	eventually(l.t, limit, "further writes", func() error {
		if n := l.acked.Load(); n < from+50 {
			return fmt.Errorf("%d since", n-from)
		}
		return nil
	})
}

// check compares the bus with what was acknowledged.
func (l *ledger) check(c *Client) {
	l.t.Helper()
	ctx := within(l.t, 30*time.Second)
	v, rev, err := c.Map().Load(ctx)
	for err == nil {
		// Proves that it is the newest; a write in doubt may still come.
		if _, err = c.Map().CompareAndSet(ctx, v, rev); !errors.Is(err, core.ErrConflict) {
			break
		}
		v, rev, err = c.Map().Load(ctx)
	}
	n, bad := strconv.Atoi(string(v))
	if err != nil || bad != nil || n < l.counter || n > max(l.counter, l.doubt) {
		l.t.Errorf("register: got %q, %v, want %d (up to %d in doubt)", v, err, l.counter, l.doubt)
	}
	have := map[string]bool{}
	entries, err := c.Jobs().List(ctx, "spec")
	if err != nil {
		l.t.Fatal(err)
	}
	for _, e := range entries {
		have[e.Key] = true
	}
	for _, k := range l.jobs {
		if !have[k] {
			l.t.Errorf("job %s was acknowledged and is lost", k)
		}
	}
	l.t.Logf("%d writes and %d jobs acknowledged, %d outcomes unknown, longest pause %v", l.acked.Load(), len(l.jobs), l.unknown, time.Duration(l.longest.Load()).Round(time.Millisecond))
}

// begin starts a bus of the first n nodes and a load on it; the returned
// function ends the load.
func (p *processes) begin(n int) (*Client, *ledger, func()) {
	p.t.Helper()
	p.start(p.names()...)
	p.follow(1, p.names()[:n]...)
	c := p.client("writer")
	if err := c.Import(within(p.t, 30*time.Second), bus.Snapshot{}, n); err != nil {
		p.t.Fatal(err)
	}
	if _, err := c.Map().Create(within(p.t, 10*time.Second), []byte("0")); err != nil {
		p.t.Fatal(err)
	}
	l := &ledger{t: p.t}
	ctx, cancel := context.WithCancel(p.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { l.write(ctx, c) })
	end := func() { cancel(); wg.Wait() }
	p.t.Cleanup(end)
	return c, l, end
}

// move makes the given nodes the coordinators, the clients included.
func (p *processes) move(generation uint64, members []string, clients ...*Client) {
	p.t.Helper()
	p.follow(generation, members...)
	for _, c := range clients {
		if err := c.Use(generation, p.urls()); err != nil {
			p.t.Fatal(err)
		}
	}
}

// TestGrowth grows a bus from one coordinator to three and five under load,
// and moves it to other nodes.
func TestGrowth(t *testing.T) {
	t.Parallel()
	p := newProcesses(t, 5)
	c, l, end := p.begin(1)
	w := newWitness(t, p.client("watcher"))
	l.goesOn(10 * time.Second)
	for g, members := range [][]string{{"n1", "n2", "n3"}, {"n1", "n2", "n3", "n4", "n5"}, {"n3", "n4", "n5"}} {
		began := time.Now()
		p.move(uint64(g+2), members, c, w.client)
		waitReady(t, c, 60*time.Second)
		t.Logf("%d coordinators after %v", len(members), time.Since(began).Round(time.Millisecond))
		l.goesOn(20 * time.Second)
	}
	end()
	l.check(c)
	w.check(c, l)
	// What the former generations left behind goes.
	eventually(t, 20*time.Second, "old stores to be removed", func() error {
		for name, spec := range p.specs {
			stores, err := generations(spec.Dir, "bus-")
			if err != nil {
				return err
			}
			if len(stores) > 0 && stores[0] < 4 {
				return fmt.Errorf("%s has %v", name, stores)
			}
		}
		return nil
	})
}

// TestGrowthKills does so while one node after another is killed at a random
// moment of each move and started again.
func TestGrowthKills(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("SHOAL_TEST_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("SHOAL_TEST_SEED=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	p := newProcesses(t, 5)
	c, l, end := p.begin(1)
	for g, members := range [][]string{{"n1", "n2", "n3"}, {"n1", "n2", "n3", "n4", "n5"}} {
		p.move(uint64(g+2), members, c)
		stop := time.Now().Add(4 * time.Second)
		for time.Now().Before(stop) {
			_ = wallClock{}.Wait(t.Context(), time.Duration(rnd.IntN(2000))*time.Millisecond)
			victim := p.names()[rnd.IntN(5)]
			t.Logf("generation %d: kill %s", p.target.Generation, victim)
			p.kill(victim)
			_ = wallClock{}.Wait(t.Context(), time.Duration(rnd.IntN(1500))*time.Millisecond)
			p.start(victim)
		}
		waitReady(t, c, 90*time.Second)
		l.goesOn(60 * time.Second)
	}
	end()
	l.check(c)
}
