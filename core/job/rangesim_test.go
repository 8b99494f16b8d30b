package job

import (
	"container/heap"
	"flag"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

// The simulation drives several machines against a table, a listing and nodes that
// work on keys, all of which fail in every way that the real ones do. Time is
// virtual, and one seed decides everything.

func simSeed() *uint64 {
	return flag.Uint64("ranges.seed", 0, "run the simulation of ranges with this seed only")
}

var onlySeed = simSeed()

// simOptions say what may go wrong.
type simOptions struct {
	nodes     int
	keys      []string
	page      int
	window    int
	countOnly bool
	sabotage  rangeSabotage
	// crashes, hangs, faults of the table, of the listing and of batches.
	crashes, hangs, tableFaults, listFaults, batchFaults bool
	// volatile: this share of the keys comes and goes.
	volatile float64
	takes    func(string) bool
	listTime time.Duration
	workTime time.Duration // for each key
	// writeTime is how long a write of the table may take.
	writeTime time.Duration
	// serial: nobody but the first node takes part.
	serial bool
}

type rangeSim struct {
	t     testing.TB
	o     simOptions
	rng   *rand.Rand
	now   time.Duration
	queue simQueue
	seq   int
	nodes []*simNode
	// calm: nothing fails any more.
	calm bool
	ends time.Duration

	rows      map[string]simRow // by name, the budget under "/budget"
	notes     map[string]int    // of failed keys, and how often each was counted
	version   uint64
	stable    map[string]bool
	here      []string // the source now, sorted
	gone      map[string]bool
	worked    map[string]int
	listCalls int
	fail      error // an invariant that does not hold
	trace     bool
}

type simRow struct {
	row     keyRange
	budget  rangeBudget
	version core.Version
}

type simNode struct {
	id      core.NodeID
	boot    uint64
	up      bool
	hung    time.Duration // until then
	known   bool          // the map says that it is alive
	machine *rangeMachine
	asks    map[uint64]func(rangeReply)
	nextAsk uint64
	queued  time.Duration // the latest event that was put off by a hang
}

type simEvent struct {
	at  time.Duration
	seq int
	f   func()
}

type simQueue []simEvent

func (q simQueue) Len() int { return len(q) }
func (q simQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q simQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *simQueue) Push(x any)   { *q = append(*q, x.(simEvent)) }
func (q *simQueue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

func newRangeSim(t testing.TB, seed uint64, o simOptions) *rangeSim {
	s := &rangeSim{
		t: t, o: o, rng: rand.New(rand.NewPCG(seed, 1)), rows: map[string]simRow{}, stable: map[string]bool{},
		gone: map[string]bool{}, worked: map[string]int{}, notes: map[string]int{},
	}
	if s.o.takes == nil {
		s.o.takes = func(string) bool { return true }
	}
	s.here = slices.Sorted(slices.Values(o.keys))
	s.here = slices.Compact(s.here)
	for _, k := range s.here {
		if s.rng.Float64() >= o.volatile {
			s.stable[k] = true
		}
	}
	for i := range o.nodes {
		n := &simNode{id: core.NodeID(fmt.Sprint("n", i+1)), known: true}
		s.nodes = append(s.nodes, n)
		s.start(n)
		if o.serial {
			break
		}
	}
	return s
}

func (s *rangeSim) after(d time.Duration, f func()) {
	s.seq++
	heap.Push(&s.queue, simEvent{s.now + d, s.seq, f})
}

func (s *rangeSim) chance(p float64) bool { return !s.calm && s.rng.Float64() < p }

// upTo is a time up to d, most often a short one.
func (s *rangeSim) upTo(d time.Duration) time.Duration {
	x := s.rng.Float64()
	return time.Duration(float64(d) * x * x)
}

// weight is what a key counts for: so the sum over all keys that are always there
// tells whether each was counted once.
func (s *rangeSim) weight(key string) int64 {
	if !s.stable[key] {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(key))
	return int64(h.Sum64() >> 24)
}

func (s *rangeSim) start(n *simNode) {
	n.boot++
	n.up, n.hung, n.queued = true, 0, 0
	n.asks = map[uint64]func(rangeReply){}
	n.machine = newRangeMachine(rangeOptions{
		self: n.id, boot: n.boot, page: s.o.page, window: s.o.window, batch: 50, takes: s.o.takes, countOnly: s.o.countOnly,
		owner: s.owner, lanes: s.o.nodes, sabotage: s.o.sabotage,
	})
	s.deliver(n, rangeEvent{kind: evStart})
}

// owner is who works on a key as far as the map knows.
func (s *rangeSim) owner(key string) core.NodeID {
	var alive []core.NodeID
	for _, n := range s.nodes {
		if n.known {
			alive = append(alive, n.id)
		}
	}
	if len(alive) == 0 {
		return s.nodes[0].id
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	return alive[int(h.Sum32())%len(alive)]
}

// deliver gives a node an event, unless it has ended meanwhile; one that hangs
// gets it when it goes on.
func (s *rangeSim) deliver(n *simNode, e rangeEvent) { s.deliverIn(n, 0, e) }

func (s *rangeSim) deliverIn(n *simNode, d time.Duration, e rangeEvent) {
	boot := n.boot
	s.after(d, func() {
		if !n.up || n.boot != boot {
			return
		}
		if n.hung > s.now {
			s.deliverIn(n, n.hung-s.now, e)
			return
		}
		for _, a := range n.machine.step(e) {
			s.act(n, a)
		}
	})
}

func (s *rangeSim) act(n *simNode, a rangeAction) {
	answer := func(d time.Duration, e rangeEvent) {
		e.op = a.op
		s.deliverIn(n, d, e)
	}
	switch a.kind {
	case actLoad:
		s.after(time.Millisecond+s.upTo(3*time.Millisecond), func() {
			e := rangeEvent{kind: evLoaded, table: s.table(), alive: s.alive}
			if s.o.tableFaults && s.chance(0.03) {
				e = rangeEvent{kind: evLoaded, err: core.ErrUnavailable}
			}
			answer(time.Millisecond, e)
		})
	case actWrite:
		s.write(a.write, answer)
	case actList, actProbe:
		s.list(a, answer)
	case actBatch:
		s.work(a, answer)
	case actAsk:
		s.ask(n, a, answer)
	case actWait:
		answer(a.wait, rangeEvent{kind: evWaited})
	case actReply:
		if f := n.asks[a.reply.id]; f != nil {
			delete(n.asks, a.reply.id)
			f(a.reply)
		}
	case actFail:
		s.broken("job failed: %v", a.err)
	}
}

func (s *rangeSim) broken(format string, args ...any) {
	if s.fail == nil {
		s.fail = fmt.Errorf(format, args...)
	}
}

func (s *rangeSim) alive(id core.NodeID, boot uint64) bool {
	for _, n := range s.nodes {
		if n.id == id {
			return n.known && n.boot == boot
		}
	}
	return false
}

func (s *rangeSim) table() *rangeTable {
	t := &rangeTable{}
	for name, r := range s.rows {
		if name == "/budget" {
			t.budget, t.budgetAt = r.budget, r.version
			continue
		}
		t.ranges = append(t.ranges, rowOfRange{r.row, r.version})
	}
	sort.Slice(t.ranges, func(i, k int) bool { return t.ranges[i].After < t.ranges[k].After })
	return t
}

// write carries a write out, now, later, or never, and tells the truth or not.
func (s *rangeSim) write(rows []rangeWrite, answer func(time.Duration, rangeEvent)) {
	d := 2*time.Millisecond + s.upTo(s.o.writeTime)
	if s.o.tableFaults && s.chance(0.03) {
		switch s.rng.IntN(3) {
		case 0: // never carried out
		case 1: // carried out, the answer is lost
			s.after(d, func() { _, _ = s.put(rows) })
		case 2: // carried out long after it was given up
			s.after(d+s.upTo(20*time.Second), func() { _, _ = s.put(rows) })
		}
		answer(d+s.upTo(2*time.Second), rangeEvent{kind: evWritten, err: core.ErrUnknownOutcome})
		return
	}
	s.after(d, func() {
		v, err := s.put(rows)
		answer(s.upTo(2*time.Millisecond), rangeEvent{kind: evWritten, err: err, version: v})
	})
}

func (s *rangeSim) put(rows []rangeWrite) (core.Version, error) {
	name := func(w *rangeWrite) string {
		if w.budget != nil {
			return "/budget"
		}
		return "r" + w.row.After
	}
	for i := range rows {
		if w := &rows[i]; !w.blind && s.rows[name(w)].version != w.version {
			return core.Version{}, core.ErrConflict
		}
	}
	s.version++
	v := core.Version{Term: 1, Boot: 1, Seq: s.version}
	for i := range rows {
		w := &rows[i]
		if w.budget != nil {
			s.rows[name(w)] = simRow{budget: *w.budget, version: v}
			continue
		}
		for _, e := range w.notes {
			s.notes[e.Key]++
		}
		if old, ok := s.rows[name(w)]; ok && w.row.Pos < old.row.Pos {
			s.broken("range %q went back from %q to %q", w.row.After, old.row.Pos, w.row.Pos)
		}
		if w.row.Last != "" && w.row.Pos > w.row.Last {
			s.broken("range %q ends at %q and is through up to %q", w.row.After, w.row.Last, w.row.Pos)
		}
		if b, err := w.row.encode(); err != nil {
			s.broken("%v", err)
		} else if _, err := decodeRange(w.row.After, b); err != nil {
			s.broken("%v", err)
		}
		if len(rows) >= 2 && s.trace {
			i, _ := slices.BinarySearch(s.here, w.row.Pos)
			k, _ := slices.BinarySearch(s.here, w.row.Last)
			if w.row.Last == "" {
				k = len(s.here)
			}
			s.t.Logf("%v cut %d (%q %q] %.3f of all left for %s, guess %d", s.now, w.row.Lane, w.row.After, w.row.Last, float64(k-i)/float64(len(s.here)), w.row.Holder, w.row.Left)
		}
		s.rows[name(w)] = simRow{row: w.row, version: v}
	}
	t := s.table()
	if err := t.check(); err != nil {
		s.broken("%v", err)
	}
	if t.done() && s.ends == 0 {
		s.ends = s.now
	}
	return v, nil
}

func (s *rangeSim) list(a rangeAction, answer func(time.Duration, rangeEvent)) {
	d := s.o.listTime
	if s.o.listFaults && s.chance(0.05) {
		d += s.upTo(3 * time.Second)
	}
	if s.o.listFaults && s.chance(0.05) {
		answer(d, rangeEvent{kind: evListed, err: core.ErrThrottled})
		return
	}
	s.after(d, func() {
		s.listCalls++
		if s.trace && a.kind == actProbe {
			i, _ := slices.BinarySearch(s.here, a.after)
			what := "nothing"
			if i < len(s.here) {
				what = s.here[i]
			}
			s.t.Logf("%v probe behind %q (%.2f): %s", s.now, a.after, float64(i)/float64(len(s.here)), what)
		}
		i, found := slices.BinarySearch(s.here, a.after)
		if found {
			i++
		}
		k := min(i+a.max, len(s.here))
		e := rangeEvent{kind: evListed, more: k < len(s.here)}
		for _, key := range s.here[i:k] {
			e.items = append(e.items, item{Key: key, Size: s.weight(key)})
			e.next = key
		}
		answer(0, e)
	})
}

// breaks says whether the work on a key fails.
func (s *rangeSim) breaks(key string) bool {
	h := fnv.New32a()
	_, _ = h.Write([]byte("breaks" + key))
	return h.Sum32()%50 == 0
}

// work has a node work on keys.
func (s *rangeSim) work(a rangeAction, answer func(time.Duration, rangeEvent)) {
	var n *simNode
	for _, x := range s.nodes {
		if x.id == a.node {
			n = x
		}
	}
	if n == nil || !n.up {
		answer(20*time.Millisecond, rangeEvent{kind: evAnswered, err: core.ErrUnavailable})
		return
	}
	boot := n.boot
	d := time.Duration(len(a.batch.items))*s.o.workTime + s.upTo(20*time.Millisecond)
	lost := s.o.batchFaults && s.chance(0.02)
	s.after(d, func() {
		if !n.up || n.boot != boot || n.hung > s.now {
			answer(s.upTo(time.Second), rangeEvent{kind: evAnswered, err: core.ErrUnavailable})
			return
		}
		var b Books
		var errs []Error
		for _, it := range a.batch.items {
			s.worked[it.Key]++
			b.Passed += keySum(it.Key)
			if s.breaks(it.Key) {
				b.Failed.one(it.Size)
				errs = append(errs, Error{Key: it.Key, Code: "internal"})
				continue
			}
			b.Done.one(it.Size)
		}
		if lost {
			answer(s.upTo(time.Second), rangeEvent{kind: evAnswered, err: core.ErrUnavailable})
			return
		}
		answer(0, rangeEvent{kind: evAnswered, books: b, errors: errs})
	})
}

func (s *rangeSim) ask(from *simNode, a rangeAction, answer func(time.Duration, rangeEvent)) {
	var n *simNode
	for _, x := range s.nodes {
		if x.id == a.node {
			n = x
		}
	}
	answered := false
	reply := func(e rangeEvent) {
		if !answered {
			answered = true
			answer(time.Millisecond, e)
		}
	}
	s.after(10*time.Second, func() { reply(rangeEvent{kind: evAsked, err: core.ErrUnavailable}) })
	if s.o.batchFaults && s.chance(0.05) || n == nil || !n.up {
		return
	}
	boot, asker := n.boot, from.boot
	lost := s.o.batchFaults && s.chance(0.05)
	s.after(time.Millisecond, func() {
		if !n.up || n.boot != boot {
			return
		}
		n.nextAsk++
		id := n.nextAsk
		n.asks[id] = func(r rangeReply) {
			if !lost {
				reply(rangeEvent{kind: evAsked, reply: r})
			}
		}
		s.deliver(n, rangeEvent{kind: evAsk, ask: rangeAsk{id: id, from: from.id, boot: asker}, after: a.after})
	})
}

// trouble makes nodes crash, hang and come back, and keys come and go.
func (s *rangeSim) trouble(d time.Duration) {
	for at := time.Duration(0); at < d; at += 200 * time.Millisecond {
		s.after(at, func() {
			if n := s.nodes[s.rng.IntN(len(s.nodes))]; s.o.crashes && s.chance(0.1) && n.up {
				s.crash(n)
			}
			if n := s.nodes[s.rng.IntN(len(s.nodes))]; s.o.hangs && s.chance(0.1) && n.up && n.hung < s.now {
				s.hang(n)
			}
			s.change()
		})
	}
	s.after(d, func() { s.calm = true })
}

func (s *rangeSim) crash(n *simNode) {
	n.up = false
	boot := n.boot
	s.after(4*time.Second, func() {
		if n.boot == boot {
			n.known = false
		}
	})
	s.after(s.upTo(15*time.Second), func() {
		s.start(n)
		s.after(time.Millisecond, func() { n.known = true })
	})
}

// hang freezes a node; after a while the map says that it is gone, until it is back.
func (s *rangeSim) hang(n *simNode) {
	d := s.upTo(12 * time.Second)
	n.hung = s.now + d
	boot := n.boot
	if d > 4*time.Second {
		s.after(4*time.Second, func() {
			if n.boot == boot {
				n.known = false
			}
		})
		s.after(d+s.upTo(time.Second), func() {
			if n.boot == boot && n.up {
				n.known = true
			}
		})
	}
}

// change takes some volatile keys away and brings others back.
func (s *rangeSim) change() {
	if s.o.volatile == 0 || s.calm {
		return
	}
	for range 20 {
		k := s.o.keys[s.rng.IntN(len(s.o.keys))]
		if s.stable[k] {
			continue
		}
		i, here := slices.BinarySearch(s.here, k)
		if here {
			s.here = slices.Delete(slices.Clone(s.here), i, i+1)
		} else {
			s.here = slices.Insert(slices.Clone(s.here), i, k)
		}
	}
}

// run runs until every machine has ended, and says what did not hold.
func (s *rangeSim) run(troubled, limit time.Duration) error {
	s.trouble(troubled)
	for s.queue.Len() > 0 && s.fail == nil {
		e := heap.Pop(&s.queue).(simEvent)
		s.now = e.at
		if s.now > limit {
			return fmt.Errorf("not through after %v: %s", limit, s.describe())
		}
		e.f()
		if s.ends > 0 && s.calm {
			break
		}
		if s.ends > 0 && troubled == 0 {
			break
		}
	}
	if s.fail != nil {
		return s.fail
	}
	return s.judge()
}

func (s *rangeSim) describe() string {
	out := ""
	for _, r := range s.table().ranges {
		out += fmt.Sprintf("\n  (%q %q] at %q by %s/%d done %t", r.After, r.Last, r.Pos, r.Holder, r.Boot, r.Done)
	}
	return out
}

// judge says whether every key that was always there was counted once.
func (s *rangeSim) judge() error {
	var want, planned, done, failed Amount
	for k := range maps.Keys(s.stable) {
		if !s.o.takes(k) {
			continue
		}
		want.one(s.weight(k))
		if !s.o.countOnly && s.worked[k] == 0 {
			return fmt.Errorf("%q was never worked on", k)
		}
		if n := s.notes[k]; !s.o.countOnly && n > 0 != s.breaks(k) || n > 1 {
			return fmt.Errorf("%q is noted %d times as failed", k, n)
		}
	}
	var all Books
	for _, r := range s.table().ranges {
		all = all.Add(r.Books)
		planned, done, failed = planned.Add(r.Books.Planned), done.Add(r.Books.Done), failed.Add(r.Books.Failed)
	}
	volatile := int64(len(s.o.keys) - len(s.stable))
	check := func(what string, a Amount) error {
		if a.Bytes != want.Bytes || a.Objects < want.Objects || a.Objects > want.Objects+volatile {
			return fmt.Errorf("%s %+v, want %+v and up to %d more objects", what, a, want, volatile)
		}
		return nil
	}
	if err := check("planned", planned); err != nil {
		return err
	}
	if s.o.countOnly {
		return nil
	}
	if err := all.balance(); err != nil {
		return err
	}
	if planned != done.Add(failed) || failed.Objects != int64(len(s.notes)) {
		return fmt.Errorf("planned %+v, done %+v, failed %+v, %d noted", planned, done, failed, len(s.notes))
	}
	return check("done and failed", done.Add(failed))
}
