package natsbus

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestChaos kills and restarts coordinators, one at a time and the leader
// every second time, under load and with watchers.
func TestChaos(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	p := newProcesses(t, 3)
	c, l, end := p.begin(3)

	w := newWitness(t, p.client("watcher"))
	for round := range 3 {
		l.goesOn(60 * time.Second)
		victim := p.names()[rnd.IntN(3)]
		if round%2 == 0 {
			victim = leaderOf(t, c)
		}
		began := time.Now()
		p.kill(victim)
		l.goesOn(60 * time.Second)
		t.Logf("killed %s, writes went on within %v", victim, time.Since(began).Round(time.Millisecond))
		p.start(victim)
	}
	l.goesOn(60 * time.Second)
	end()
	l.check(c)
	w.check(c, l)
}

// witness watches the bus.
type witness struct {
	t      testing.TB
	client *Client
	newest atomic.Int64
	mu     sync.Mutex
	jobs   map[string]bool
}

func newWitness(t testing.TB, c *Client) *witness {
	t.Helper()
	w := &witness{t: t, client: c, jobs: map[string]bool{}}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	wg.Go(func() {
		for v := range c.Map().Watch(ctx) {
			if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
				w.newest.Store(n)
			}
		}
	})
	wg.Go(func() {
		for e := range c.Jobs().Watch(ctx, "spec") {
			w.mu.Lock()
			w.jobs[e.Key] = !e.Deleted
			w.mu.Unlock()
		}
	})
	return w
}

// check waits until the watches have seen the final state of all.
func (w *witness) check(c *Client, l *ledger) {
	w.t.Helper()
	want, _, err := c.Map().Load(within(w.t, 10*time.Second))
	if err != nil {
		w.t.Fatal(err)
	}
	eventually(w.t, 15*time.Second, "watches to see what is final", func() error {
		if n := w.newest.Load(); strconv.FormatInt(n, 10) != string(want) {
			return fmt.Errorf("register: watched %d, is %s", n, want)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, k := range l.jobs {
			if !w.jobs[k] {
				return fmt.Errorf("job %s not seen", k)
			}
		}
		return nil
	})
}

// TestPausedLeader freezes the leader for longer than the others wait for it.
// They go on, and when it wakes nothing that was acknowledged is lost.
func TestPausedLeader(t *testing.T) {
	t.Parallel()
	p := newProcesses(t, 3)
	c, l, end := p.begin(3)
	l.goesOn(30 * time.Second)
	victim := leaderOf(t, c)
	p.signal(victim, syscall.SIGSTOP)
	began := time.Now()
	l.goesOn(60 * time.Second)
	t.Logf("leader frozen, writes went on within %v", time.Since(began).Round(time.Millisecond))
	p.signal(victim, syscall.SIGCONT)
	// The client that only knows the frozen one may be told old values, but
	// none that would let it write.
	l.goesOn(30 * time.Second)
	end()
	l.check(c)
}

// leaderOf returns the node that leads the map's stream.
func leaderOf(t testing.TB, c *Client) string {
	t.Helper()
	var leader string
	eventually(t, 30*time.Second, "a leader", func() error {
		st, err := c.Status(within(t, 5*time.Second))
		if err == nil && st.Leader == "" {
			err = fmt.Errorf("none")
		}
		leader = st.Leader
		return err
	})
	return leader
}

// TestResume measures how long writes and reads pause when the leader dies.
func TestResume(t *testing.T) {
	if os.Getenv("SHOAL_TEST_MEASURE") == "" {
		t.Skip("set SHOAL_TEST_MEASURE=1 to measure")
	}
	t.Parallel()
	p := newProcesses(t, 3)
	c, l, end := p.begin(3)
	l.goesOn(30 * time.Second)
	var reads, writes []time.Duration
	for range 2 {
		victim := leaderOf(t, c)
		p.kill(victim)
		killed := time.Now()
		eventually(t, time.Minute, "a read", func() error {
			_, _, err := c.Map().Load(within(t, time.Second))
			return err
		})
		reads = append(reads, time.Since(killed))
		l.goesOn(time.Minute)
		writes = append(writes, time.Duration(l.longest.Swap(0)))
		p.start(victim)
		l.goesOn(time.Minute)
	}
	end()
	slices.Sort(reads)
	slices.Sort(writes)
	t.Logf("after kill -9 of the leader: first read after %v, longest pause of writes %v", reads, writes)
	l.check(c)
}
