package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/slot"
	"github.com/shoalstore/shoal/placement"
)

// Options say what to run. Zero fields have defaults.
type Options struct {
	Seed  uint64
	Rules slot.Rules
	// Ops and Faults are how many client operations and faults there are at
	// the least; 240 and 24.
	Ops, Faults int
	// Trace, if not nil, is told what happens.
	Trace func(format string, args ...any)
}

// Report is what a run has met.
type Report struct {
	Seed     uint64
	Ops      int // that got an answer
	Open     int // with an unknown outcome
	Faults   map[string]int
	Events   int
	SimTime  time.Duration
	Coverage slot.Stats
	// VoterChanges and Maps count maps in effect; Alarms are those that were
	// asked for.
	VoterChanges, Maps, Alarms int
	// Shards were written, deleted, moved by reconcile, and disowned.
	Shards, ShardsDeleted, ShardsMoved, ShardsSwept int
}

// world is a cluster under simulation.
type world struct {
	opt     Options
	rng     *rand.Rand
	now     time.Duration
	events  eventQueue
	eventNo uint64
	nodes   map[core.NodeID]*node
	order   []core.NodeID
	bus     *register
	cut     map[[2]core.NodeID]bool
	loss    float64
	first   *core.Map
	report  Report
	history history
	check   checker
	failure error
	quiet   bool // no more faults: the cluster is to recover
	still   bool // no more writes either
	coord   map[core.NodeID]bool
	clients []*client
	nextVal int
	nextNo  int
}

const (
	slots    = 4
	replicas = 3
)

type event struct {
	at time.Duration
	no uint64
	f  func()
}

type eventQueue []*event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].no < q[j].no
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push is part of heap.Interface.
func (q *eventQueue) Push(x any) { *q = append(*q, x.(*event)) }

// Pop is part of heap.Interface.
func (q *eventQueue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

// after runs f when d has passed.
func (w *world) after(d time.Duration, f func()) {
	w.eventNo++
	heap.Push(&w.events, &event{at: w.now + d, no: w.eventNo, f: f})
}

func (w *world) trace(format string, args ...any) {
	if w.opt.Trace != nil {
		w.opt.Trace("%10s "+format, append([]any{w.now.Truncate(time.Microsecond * 10)}, args...)...)
	}
}

func (w *world) fail(format string, args ...any) {
	if w.failure == nil {
		w.failure = fmt.Errorf("seed %d at %v: "+format, append([]any{w.opt.Seed, w.now}, args...)...)
		w.trace("FAILURE %v", w.failure)
	}
}

// between is a random time.
func (w *world) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(w.rng.Int64N(int64(hi-lo)+1))
}

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

// Run runs one seed.
func Run(o Options) (Report, error) {
	w := newWorld(o)
	w.startClients()
	w.startFaults()
	w.loop(func() bool { return w.clientsDone() && w.quiet })
	w.recover()
	w.finish()
	return w.report, w.failure
}

// newWorld starts a cluster of which nobody asks anything yet.
func newWorld(o Options) *world {
	if o.Ops == 0 {
		o.Ops = 240
	}
	if o.Faults == 0 {
		o.Faults = 24
	}
	w := &world{
		opt: o, rng: rand.New(rand.NewPCG(o.Seed, 0x5110a1)), nodes: map[core.NodeID]*node{},
		cut: map[[2]core.NodeID]bool{}, coord: map[core.NodeID]bool{},
	}
	w.report = Report{Seed: o.Seed, Faults: map[string]int{}}
	w.check.init(w)
	w.build()
	return w
}

// maxSim bounds a run; reaching it is a failure.
const maxSim = 15 * time.Minute

func (w *world) loop(done func() bool) {
	for w.failure == nil && !done() {
		if len(w.events) == 0 {
			w.fail("nothing happens any more")
			return
		}
		e := heap.Pop(&w.events).(*event)
		w.now = e.at
		w.report.Events++
		e.f()
		w.check.step()
		if w.now > maxSim {
			w.fail("the run does not end: %s", w.stuck())
		}
	}
	w.report.SimTime = w.now
}

// build makes the first map and starts its nodes.
func (w *world) build() {
	var nodes []core.Node
	var disks []core.Disk
	var voters []core.Voter
	n := 3 + 2*w.rng.IntN(2)
	for i := range n {
		id := core.NodeID(fmt.Sprintf("n%d", i+1))
		nd := newNode(w, id)
		nodes = append(nodes, core.Node{ID: id, Peer: string(id), Client: string(id), State: core.NodeActive})
		for d := range 1 + w.rng.IntN(2) {
			disk := nd.addDisk()
			disks = append(disks, core.Disk{UUID: disk.uuid, Node: id, Name: fmt.Sprintf("d%d", d+1), Weight: 1})
		}
		if i < 3 {
			voters = append(voters, core.Voter{Node: id, Key: nd.voter.Key})
		}
	}
	m, err := placement.Initial("sim", slots, replicas, nodes, disks, voters, w.wall())
	if err != nil {
		w.fail("first map: %v", err)
		return
	}
	w.first = m
	w.bus = &register{w: w, value: m, rev: 1}
	for _, id := range w.order {
		nd := w.nodes[id]
		nd.saved = m
		if m.IsVoter(id, nd.voter.Key) {
			nd.voter.Map = m
		}
		nd.start()
	}
}

// wall is the wall clock.
func (w *world) wall() time.Time { return time.Unix(1_700_000_000, 0).UTC().Add(w.now) }

// send carries a message, or loses it.
func (w *world) send(from, to core.NodeID, m *slot.Message) {
	if from == to {
		w.after(w.between(0, 50*time.Microsecond), func() { w.deliver(from, to, m, w.nodes[to].life) })
		return
	}
	if w.cut[[2]core.NodeID{from, to}] || w.chance(w.loss) {
		return
	}
	copies := 1
	if w.chance(0.01) {
		copies = 2
	}
	for range copies {
		d := w.between(100*time.Microsecond, 8*time.Millisecond)
		switch p := w.rng.IntN(2000); {
		case p < 20:
			d = w.between(10*time.Millisecond, 900*time.Millisecond)
		case p < 21:
			d = w.between(time.Second, 2*time.Minute)
		}
		w.after(d, func() {
			if nd := w.nodes[to]; nd != nil {
				w.deliver(from, to, m, nd.life)
			}
		})
	}
}

// deliver hands a message over, once the node is not paused.
func (w *world) deliver(from, to core.NodeID, m *slot.Message, life int) {
	nd := w.nodes[to]
	nd.when(life, func() { nd.do(func(n *slot.Node, now core.Instant) { n.Receive(now, from, m) }) })
}
