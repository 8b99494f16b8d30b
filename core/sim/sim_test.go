package sim

import (
	"flag"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core/slot"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "first seed; 0 takes one from the clock")
	countFlag = flag.Int("n", 0, "number of seeds; 0 is 200, or 2000 where CI is set")
	traceFlag = flag.Bool("trace", false, "print what happens")
)

// TestSim runs seeds. A failing one is printed and replays with
// make sim SEED=... N=1.
func TestSim(t *testing.T) {
	first := *seedFlag
	if first == 0 {
		first = uint64(time.Now().UnixNano()) % 1_000_000_000
	}
	count := *countFlag
	if count == 0 {
		count = 200
		if os.Getenv("CI") != "" {
			count = 2000
		}
	}
	t.Logf("seeds %d to %d", first, first+uint64(count)-1)
	total := runSeeds(t, first, count, slot.Rules{}, func(r Report, err error) {
		if err != nil {
			t.Errorf("%v\nreplay: make sim SEED=%d N=1", err, r.Seed)
		}
	})
	t.Logf("%+v", total)
	if count < 100 {
		return
	}
	c := total.Coverage
	met := map[string]int{
		"take-overs with writes in flight": c.TakeOversInFlight, "members that undid": c.Undone, "joins": c.Joins,
		"joins of all records": c.JoinsFromFloor, "drops": c.Drops, "voter changes": total.VoterChanges,
		"histories forgotten": c.Reclaimed, "joins after that": c.JoinsReclaimed,
		"shards deleted": total.ShardsDeleted, "shards moved": total.ShardsMoved, "shards disowned": total.ShardsSwept,
	}
	for _, f := range []string{
		"crash", "pause", "cut", "loss", "bus", "rollback", "blink", "disk", "replug", "map", "voters", "voter state", "stop",
		"new disk", "new node", "clock",
	} {
		met["fault "+f] = total.Faults[f]
	}
	for what, n := range met {
		if n == 0 {
			t.Errorf("never met: %s", what)
		}
	}
}

// runSeeds runs seeds on all processors and adds up what they met.
func runSeeds(t *testing.T, first uint64, n int, rules slot.Rules, each func(Report, error)) Report {
	t.Helper()
	var mu sync.Mutex
	total := Report{Faults: map[string]int{}}
	next := make(chan uint64)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for seed := range next {
				o := Options{Seed: seed, Rules: rules}
				if *traceFlag {
					o.Trace = t.Logf
				}
				r, err := Run(o)
				mu.Lock()
				total.Ops += r.Ops
				total.Open += r.Open
				total.Events += r.Events
				total.SimTime += r.SimTime
				total.Maps += r.Maps
				total.VoterChanges += r.VoterChanges
				total.Alarms += r.Alarms
				total.Shards += r.Shards
				total.ShardsDeleted += r.ShardsDeleted
				total.ShardsMoved += r.ShardsMoved
				total.ShardsSwept += r.ShardsSwept
				total.Coverage = total.Coverage.Add(r.Coverage)
				for k, v := range r.Faults {
					total.Faults[k] += v
				}
				each(r, err)
				mu.Unlock()
			}
		})
	}
	for i := range n {
		next <- first + uint64(i)
	}
	close(next)
	wg.Wait()
	return total
}
