package remote

import (
	"container/heap"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "first seed; 0 takes one from the clock")
	countFlag = flag.Int("n", 0, "number of seeds; 0 is 4000")
	traceFlag = flag.Bool("show", false, "print what happens")
)

// The simulation: one key, a remote that others write to as well, owners that follow
// each other and may not know it. A run with a seed is the same every time.

// event is something that happens at a time.
type event struct {
	at  time.Time
	seq int
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	if !e[i].at.Equal(e[j].at) {
		return e[i].at.Before(e[j].at)
	}
	return e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

// past is a state that the remote had, from when on, and who made it: a request, or
// "" for somebody else.
type past struct {
	core.RemoteObject
	exists bool
	by     string
	from   time.Time
}

// call is a client's request.
type call struct {
	id      string
	intent  Intent
	began   time.Time
	started bool
	settled time.Time // when there was an answer
	err     error
}

// simulated is a world under one seed.
type simulated struct {
	*rand.Rand
	trace    func(string, ...any)
	now      time.Time
	queue    events
	seq      int
	steps    int
	rules    sabotage
	abil     core.RemoteAbilities
	etags    bool // versions are ETags, or else generations
	parts    bool
	looks    bool // owners think that objects are there of which they know nothing
	calm     bool
	weather  string
	until    time.Time
	history  []past
	made     int
	record   *core.Record // the slot: committed rows and who may write them
	intent   []byte
	revision int
	tenure   int
	owner    *owner
	calls    []*call
	waiting  []*call
	met      map[string]int
	failure  error
}

// owner is a node in one tenure of the slot.
type owner struct {
	w       *simulated
	tenure  int
	skew    time.Duration
	hung    time.Time // it does nothing before
	dead    bool
	rev     int // of the rows that it knows
	machine *Machine
	call    string
}

func simulate(seed uint64, rules sabotage, trace func(string, ...any)) (map[string]int, error) {
	w := &simulated{Rand: rand.New(rand.NewPCG(seed, 7)), rules: rules, trace: trace, met: map[string]int{}}
	w.now = time.Unix(1_700_000_000, 0).UTC()
	w.etags, w.parts, w.looks = w.IntN(2) == 0, w.IntN(4) == 0, w.IntN(2) == 0
	w.abil = core.RemoteAbilities{PutIf: w.IntN(4) > 0}
	w.abil.DeleteIf = w.abil.PutIf && w.IntN(3) > 0
	w.history = []past{{from: w.now}}
	if w.IntN(2) == 0 {
		w.somebodyElse() // what is there before anybody of the cluster knows
	}
	w.plan()
	w.run(100_000)
	w.calm, w.weather = true, ""
	w.takeOver(true)
	w.run(100_000)
	w.finish()
	if w.failure != nil {
		return w.met, fmt.Errorf("seed %d: %w", seed, w.failure)
	}
	return w.met, nil
}

// plan lays out clients, other writers, readers, changes of owner, and the weather.
func (w *simulated) plan() {
	w.takeOver(false)
	spread := time.Duration(1+w.IntN(600)) * time.Second
	at := func() time.Duration { return time.Duration(w.Int64N(int64(spread))) }
	for i := range 3 + w.IntN(8) {
		w.after(at(), func() { w.client(i) })
	}
	for range w.IntN(5) {
		w.after(at(), w.somebodyElse)
	}
	for range w.IntN(12) {
		w.after(at(), w.reader)
	}
	for range w.IntN(8) {
		w.after(at(), w.evict)
	}
	for range w.IntN(4) {
		w.after(at(), func() { w.takeOver(false) })
	}
	for range w.IntN(5) {
		w.after(at(), func() {
			kinds := []string{"lossy", "lossy", "late", "late", "late", "down", "throttled", "forbidden", "no bucket"}
			w.weather = kinds[w.IntN(len(kinds))]
			w.met[w.weather]++
			long := time.Duration(w.Int64N(int64(2 * time.Minute)))
			if w.weather == "down" && w.IntN(2) == 0 {
				long += 7 * time.Minute
			}
			w.until = w.now.Add(long)
		})
	}
}

func (w *simulated) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, event{w.now.Add(d), w.seq, do})
}

func (w *simulated) run(limit int) {
	for i := 0; len(w.queue) > 0 && w.failure == nil; i++ {
		if i == limit {
			w.fail("no end after %d events", limit)
			return
		}
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		if w.weather != "" && w.now.After(w.until) {
			w.weather = ""
		}
		e.do()
	}
}

func (w *simulated) fail(format string, args ...any) {
	if w.failure == nil {
		w.failure = fmt.Errorf(format, args...)
		w.logf("FAILED: %v", w.failure)
	}
}

func (w *simulated) logf(format string, args ...any) {
	if w.trace != nil {
		w.trace("%8.3f "+format, append([]any{w.now.Sub(time.Unix(1_700_000_000, 0)).Seconds()}, args...)...)
	}
}

func (w *simulated) few(d time.Duration) time.Duration { return time.Duration(w.Int64N(int64(d))) }

// The remote.

func (w *simulated) current() *past { return &w.history[len(w.history)-1] }

func (w *simulated) store(by, etag string, meta map[string]string) core.RemoteObject {
	w.made++
	o := core.RemoteObject{Key: "k", Size: 1, ETag: etag, Meta: meta, Modified: w.now, Version: core.RemoteVersion(fmt.Sprint("gen", w.made))}
	if w.etags {
		o.Version = core.RemoteVersion(etag)
	}
	w.history = append(w.history, past{RemoteObject: o, exists: true, by: by, from: w.now})
	return o
}

func (w *simulated) somebodyElse() {
	if w.IntN(3) == 0 {
		if w.current().exists {
			w.history = append(w.history, past{from: w.now})
			w.logf("somebody else deletes it")
		}
		return
	}
	w.made++
	o := w.store("", fmt.Sprint("foreign", w.made), nil)
	w.logf("somebody else writes %s", o.Version)
}

// land carries out a request that has reached the remote.
func (w *simulated) land(do *Action, in *Intent) Answer {
	c := w.current()
	id := name(in.Request)
	w.logf("remote: %v of %s if %+v, having %s", do.Kind, id, do.If, c.Version)
	switch {
	case w.weather == "no bucket" && !w.calm:
		return Answer{Err: core.ErrNoSuchBucket}
	case do.Kind == Head && c.exists:
		return Answer{Object: c.RemoteObject}
	case do.Kind == Head:
		return Answer{Err: core.ErrNotFound}
	case do.Kind == CreateUpload:
		w.made++
		return Answer{Upload: fmt.Sprint("upload", w.made)}
	case do.Kind == PutParts:
		return Answer{ETag: in.Record.ETag + "-2"}
	case do.If.Version != "" && !c.exists:
		return Answer{Err: core.ErrNotFound}
	case do.If.Absent && c.exists, do.If.Version != "" && c.Version != do.If.Version:
		return Answer{Err: core.ErrPrecondition}
	case do.Kind == Delete:
		if c.exists {
			w.history = append(w.history, past{by: id, from: w.now})
		}
		return Answer{}
	}
	etag := in.Record.ETag
	if do.Kind == Complete {
		etag += "-2"
	}
	return Answer{Object: w.store(id, etag, in.Record.Meta)}
}

// throttle is what a remote says that wants fewer requests.
type throttle time.Duration

func (throttle) Error() string               { return "slow down" }
func (throttle) Unwrap() error               { return core.ErrThrottled }
func (t throttle) RetryAfter() time.Duration { return time.Duration(t) }

// send sends a request of an owner, on a day like this.
func (w *simulated) send(o *owner, do Action, in Intent, answer func(Answer)) {
	writes := do.Kind == Put || do.Kind == Delete || do.Kind == Complete
	cut := w.now.Add(time.Minute)
	if writes {
		cut = do.Until.Add(-o.skew)
		if !w.now.Before(cut) {
			answer(Answer{Err: ErrLate})
			return
		}
	}
	weather := w.weather
	if weather == "" && !w.calm && w.IntN(8) == 0 {
		weather = []string{"lossy", "late", "down", "throttled"}[w.IntN(4)]
	}
	fail := func(err error) { w.after(w.few(time.Second), func() { answer(Answer{Err: err}) }) }
	arrives := w.few(200 * time.Millisecond)
	switch weather {
	case "down":
		switch w.IntN(3) {
		case 0:
			fail(core.ErrUnavailable)
		default:
			fail(core.ErrUnknownOutcome)
		}
		return
	case "throttled":
		if w.IntN(2) == 0 {
			fail(throttle(w.few(3 * time.Second)))
			return
		}
	case "forbidden":
		fail(core.ErrPermission)
		return
	case "lossy":
		if w.IntN(2) == 0 {
			w.met["answer lost"]++
			w.after(arrives, func() { w.land(&do, &in) })
			w.after(arrives+w.few(time.Second), func() { answer(Answer{Err: core.ErrUnknownOutcome}) })
			return
		}
	case "late":
		if writes && w.IntN(2) == 0 {
			w.met["late request"]++
			fail(core.ErrUnknownOutcome)
			const inHand = 1900 * time.Millisecond
			most := cut.Sub(w.now) + inHand
			if w.IntN(2) == 0 {
				most = min(most, 20*time.Second)
			}
			w.after(w.few(most), func() { w.land(&do, &in) })
			return
		}
	}
	w.after(arrives, func() {
		a := w.land(&do, &in)
		back := w.few(200 * time.Millisecond)
		if w.now.Add(back).After(cut) {
			a = Answer{Err: core.ErrUnknownOutcome}
		}
		w.after(back, func() { answer(a) })
	})
}

// The slot: a register that only the present owner may write.

func (w *simulated) present() *Intent {
	if w.intent == nil {
		return nil
	}
	in, err := DecodeIntent(w.intent)
	if err != nil {
		w.fail("intent: %v", err)
	}
	return in
}

// commit writes rows if the owner is the owner and the rows are the ones it knows.
func (w *simulated) commit(o *owner, apply func()) bool {
	if o.tenure != w.tenure || o.rev != w.revision {
		w.met["commit refused"]++
		return false
	}
	apply()
	w.revision++
	o.rev = w.revision
	w.check()
	return true
}

func (w *simulated) takeOver(calm bool) {
	w.tenure++
	if old := w.owner; old != nil {
		if w.met["take-over"]++; old.machine != nil {
			w.met["take-over in a write"]++
		}
		old.dead = calm || w.IntN(2) == 0
	}
	o := &owner{w: w, tenure: w.tenure, skew: w.few(8*time.Second) - 4*time.Second}
	w.owner = o
	w.logf("owner %d, skew %v", o.tenure, o.skew)
	w.after(w.few(5*time.Second), o.work)
}

// later has the owner do something, after a hang if there is one.
func (o *owner) later(d time.Duration, do func()) {
	w := o.w
	w.after(d, func() {
		if !w.calm && w.IntN(60) == 0 {
			w.met["hang"]++
			o.hung = w.now.Add(w.few(2 * time.Minute))
		}
		if w.now.Before(o.hung) {
			o.later(o.hung.Sub(w.now), do)
			return
		}
		if !o.dead {
			do()
		}
	})
}

func (o *owner) now() time.Time { return o.w.now.Add(o.skew) }

func (o *owner) options() Options {
	return Options{Abilities: o.w.abil, Parts: o.w.parts, HeadFirst: o.w.looks, sabotage: o.w.rules}
}

// work takes up the intent that is there, or else the next request.
func (o *owner) work() {
	w := o.w
	if o.machine != nil || o.tenure != w.tenure || o.dead {
		return
	}
	o.rev = w.revision
	in := w.present()
	if in.Pending() && (!w.rules.noExclusion || len(w.waiting) == 0) {
		w.met["resumed"]++
		o.call = name(in.Request)
		o.machine = Resume(in, o.options())
		o.step(Answer{})
		return
	}
	for len(w.waiting) > 0 {
		c := w.waiting[0]
		w.waiting = w.waiting[1:]
		if w.now.Sub(c.began) > 30*time.Second {
			continue // nobody waits for it any more
		}
		c.intent.Before = BeforeOf(w.record)
		m, err := Start(in, c.intent, o.options())
		if err != nil {
			w.fail("start: %v", err)
			return
		}
		c.started = true
		o.call, o.machine = c.id, m
		o.step(Answer{})
		return
	}
}

// stop ends the machine and begins anew, if this still is the owner.
func (o *owner) stop() {
	o.machine = nil
	o.later(o.w.few(time.Second), o.work)
}

func (o *owner) step(a Answer) {
	w, m := o.w, o.machine
	if m == nil {
		return
	}
	if w.steps++; w.steps > 20_000 {
		w.fail("%s goes on for ever: last %v", o.call, m.asked.Kind)
		return
	}
	do := m.Next(o.now(), a)
	w.logf("owner %d, %s: %v if %+v err %v", o.tenure, o.call, do.Kind, do.If, do.Err)
	next := func(a Answer) {
		o.later(0, func() {
			if o.machine == m {
				o.step(a)
			}
		})
	}
	switch {
	case do.Kind == Wait:
		o.later(max(do.At.Sub(o.now()), 0), func() {
			if o.machine == m {
				o.step(Answer{})
			}
		})
	case do.Kind == Announce || do.Kind.Ends():
		o.later(w.few(10*time.Millisecond), func() { o.write(m, do, next) })
	default:
		in := m.in
		o.later(w.few(5*time.Millisecond), func() { w.send(o, do, in, next) })
	}
}

// write commits what the machine asks for.
func (o *owner) write(m *Machine, do Action, next func(Answer)) {
	w := o.w
	if o.machine != m {
		return
	}
	ok := w.commit(o, func() {
		if do.Kind == Announce {
			w.intent = AppendIntent(nil, do.Intent)
			return
		}
		w.met[do.Kind.String()]++
		w.intent = nil
		if do.Left != nil {
			w.met["attempts kept"]++
			w.intent = AppendIntent(nil, do.Left)
		}
		switch {
		case do.Kind == Commit:
			w.record = do.Record
		case do.Kind == Drop, do.Outdated(w.record):
			w.record = nil
		}
		w.lost(o, m, &do)
		w.answer(o.call, do.Err)
	})
	switch {
	case !ok, !w.calm && w.IntN(40) == 0: // refused, or nobody was told
		o.stop()
	case do.Kind == Announce:
		next(Answer{})
	default:
		o.stop()
	}
}

func (w *simulated) answer(id string, err error) {
	for _, c := range w.calls {
		if c.id == id && c.settled.IsZero() {
			c.settled, c.err = w.now, err
			w.logf("answer to %s: %v", id, err)
		}
	}
}

// lost checks that a write without conditions is given up only if the remote does not
// take it, or somebody else has written after the machine began or what it knew.
func (w *simulated) lost(o *owner, m *Machine, do *Action) {
	if do.Kind != Drop || !m.in.Conditions.IsZero() || m.cause != nil || m.blind != nil {
		return
	}
	if errors.Is(do.Err, core.ErrUnavailable) || errors.Is(do.Err, core.ErrThrottled) || errors.Is(do.Err, core.ErrPermission) || errors.Is(do.Err, core.ErrNoSuchBucket) {
		return // it did not take the next attempt
	}
	since := w.now
	for _, c := range w.calls {
		if c.id == o.call {
			since = c.began
		}
	}
	from, knew := since, m.in.Before
	if knew.Known {
		for _, h := range w.history {
			if h.exists == (knew.Version != "") && h.Version == knew.Version {
				from = h.from // the first time, if it came again
				break
			}
		}
	}
	for _, h := range w.history {
		if h.by != o.call && h.from.After(from) {
			return // also a late request of an earlier write
		}
	}
	w.fail("%s, which has no condition, was given up although nobody else wrote: %v", o.call, do.Err)
}

// reader reads the key. What it had to fetch is kept, if nothing was written.
func (w *simulated) reader() {
	o, rev := w.owner, w.revision
	if w.present().Pending() {
		return
	}
	w.after(w.few(300*time.Millisecond), func() {
		got := *w.current()
		w.after(w.few(300*time.Millisecond), func() {
			if w.revision != rev && !w.rules.noFetchCheck || o.tenure != w.tenure || o.dead {
				return
			}
			if o.rev = rev; w.rules.noFetchCheck {
				o.rev = w.revision
			}
			w.met["fetched"]++
			w.commit(o, func() {
				w.record = nil
				if got.exists {
					w.record = &core.Record{
						Size: got.Size, ETag: got.ETag, Meta: got.Meta, Modified: got.Modified, Remote: &core.RemoteCopy{Version: got.Version},
					}
				}
			})
			if o.machine != nil {
				o.stop()
			}
		})
	})
}

// evict drops what is present, unless it is being written.
func (w *simulated) evict() {
	if w.record == nil || w.present().Pending() {
		return
	}
	w.met["evicted"]++
	w.record = nil
	w.revision++ // who works on the key finds out and begins anew
	if w.owner.machine != nil {
		w.owner.stop()
	}
}

func name(r core.RequestID) string { return strings.TrimRight(string(r[:]), "\x00") }

// client asks for a write.
func (w *simulated) client(i int) {
	c := &call{id: fmt.Sprint("w", i), began: w.now}
	in := Intent{Operation: Write}
	copy(in.Request[:], c.id)
	if w.IntN(3) == 0 {
		in.Operation = Remove
	} else {
		etag := fmt.Sprintf("content%d", w.IntN(2)) // so that a content comes again
		in.Record = &core.Record{Size: 1, ETag: etag, Inline: []byte("x"), Meta: map[string]string{"w": c.id}}
	}
	switch w.IntN(4) {
	case 0:
		if in.Operation == Write {
			in.Conditions.IfNoneMatch = []string{"*"}
		}
	case 1:
		etag := w.current().ETag
		if w.record != nil && w.IntN(2) == 0 {
			etag = w.record.ETag
		}
		if etag != "" {
			in.Conditions.IfMatch = []string{etag}
		}
	}
	in.Repeatable = w.IntN(3) == 0
	c.intent = in
	w.logf("client: %s, operation %d, %+v, %v", c.id, in.Operation, in.Conditions, in.Record)
	w.calls = append(w.calls, c)
	w.waiting = append(w.waiting, c)
	if w.IntN(8) == 0 {
		w.after(w.few(5*time.Second), w.somebodyElse)
	}
	if w.IntN(8) == 0 {
		w.after(w.few(5*time.Second), func() { w.takeOver(false) })
	}
	if w.owner.machine == nil || w.rules.noExclusion {
		if w.rules.noExclusion {
			w.owner.machine = nil
		}
		w.owner.later(0, w.owner.work)
	}
}

// The checks.

// effects are where in the history a write changed something.
func (w *simulated) effects(c *call) (at []int) {
	for i := 1; i < len(w.history); i++ {
		h, before := &w.history[i], &w.history[i-1]
		if h.by == c.id && (!h.exists || before.by != c.id || !before.exists) {
			at = append(at, i)
		}
	}
	return at
}

// told counts effects that a condition could tell apart. A version may be that of a
// content: where others have brought back, after a first effect, the version that was
// there before it, nobody can see that it took place.
func (w *simulated) told(c *call, effects []int) (n int) {
	for i, at := range effects {
		before := &w.history[at-1]
		if i == 0 || !before.exists || before.by == c.id || before.Version != w.history[effects[0]-1].Version {
			n++
		}
	}
	return n
}

// took is where in the history an acknowledged write took effect, -1 for nowhere.
func (w *simulated) took(c *call) int {
	if at := w.effects(c); len(at) > 0 {
		return at[0]
	}
	if c.intent.Operation == Remove {
		ended := c.settled
		for i, h := range slices.Backward(w.history) {
			if !h.exists && !h.from.After(c.settled) && !ended.Before(c.began) {
				return i
			}
			ended = h.from
		}
	}
	return -1
}

// copied is the last state of which the record is a copy, -1 for none.
func (w *simulated) copied() int {
	for i := len(w.history) - 1; i >= 0; i-- {
		h := &w.history[i]
		if h.exists && h.Version == w.record.Remote.Version && h.Meta["w"] == w.record.Meta["w"] && h.ETag == w.record.ETag {
			return i
		}
	}
	return -1
}

// check looks at the slot after a change.
func (w *simulated) check() {
	newest, by := 0, ""
	for _, c := range w.calls {
		if c.settled.IsZero() || c.err != nil {
			continue
		}
		at := w.took(c)
		if at < 0 {
			w.fail("%s was acknowledged and is not in the remote", c.id)
			return
		}
		if at > newest {
			newest, by = at, c.id
		}
	}
	if w.record == nil || w.present().Pending() {
		return
	}
	switch at := w.copied(); {
	case at < 0:
		w.fail("the record, of version %s, is a copy of nothing that was", w.record.Remote.Version)
	case at < newest:
		w.fail("the record, of version %s, is a copy of what was before %s was acknowledged", w.record.Remote.Version, by)
	}
}

// finish checks what must hold in the end.
func (w *simulated) finish() {
	if w.failure != nil {
		return
	}
	w.check()
	if w.present().Pending() {
		w.fail("an intent was not settled")
	}
	for _, c := range w.calls {
		if c.started {
			w.finishCall(c)
		}
	}
	if w.record != nil {
		at := w.copied()
		if others := slices.ContainsFunc(w.history[at+1:], func(h past) bool { return h.by == "" }); at != len(w.history)-1 && !others {
			w.fail("the record, of version %s, is not what the remote has: %s", w.record.Remote.Version, w.current().Version)
		}
	}
	w.undone()
}

func (w *simulated) finishCall(c *call) {
	effects := w.effects(c)
	conditional := !c.intent.Conditions.IsZero()
	holds := w.abil.PutIf && (c.intent.Operation == Write || w.abil.DeleteIf)
	switch {
	case c.settled.IsZero():
		// Nobody was left to begin it.
		if len(effects) > 0 {
			w.fail("%s took effect without having been settled", c.id)
		}
	case c.err == nil && conditional && (len(effects) == 0 || w.told(c, effects) > 1 && !c.intent.Repeatable) && (holds || c.intent.Operation == Write):
		w.fail("%s is conditional, was acknowledged, and took effect %d times", c.id, len(effects))
	case c.err == nil && conditional && holds:
		for _, at := range effects {
			before := &w.history[at-1]
			var r *core.Record
			if before.exists {
				r = &core.Record{ETag: before.ETag, Modified: before.Modified}
			}
			if err := c.intent.Conditions.CheckWrite(r); err != nil {
				w.fail("%s was acknowledged although %v", c.id, err)
			}
		}
	case c.err != nil && !errors.Is(c.err, core.ErrUnknownOutcome) && len(effects) > 0:
		w.fail("%s was refused (%v) and took effect", c.id, c.err)
	}
}

// undone looks for writes that took effect after they were settled and undid a later
// one, without anybody else having written in between.
func (w *simulated) undone() {
	for _, c := range w.calls {
		if c.settled.IsZero() {
			continue
		}
		for _, at := range w.effects(c) {
			if !w.history[at].from.After(c.settled) {
				continue
			}
			for i := at - 1; i > 0 && w.history[i].by != ""; i-- {
				for _, d := range w.calls {
					if d.id == w.history[i].by && d != c && d.began.After(c.settled) && d.err == nil && !d.settled.IsZero() && w.took(d) == i {
						w.fail("%s, settled before, undid %s, which was acknowledged", c.id, d.id)
					}
				}
			}
		}
	}
}

// TestSimulation runs seeds. A failing one is printed and replays with
// go test ./core/remote -run TestSimulation -v -args -seed ... -n 1 -show.
func TestSimulation(t *testing.T) {
	first, count := *seedFlag, *countFlag
	if first == 0 {
		first = uint64(time.Now().UnixNano()) % 1_000_000_000
	}
	if count == 0 {
		count = 4000
	}
	t.Logf("seeds %d to %d", first, first+uint64(count)-1)
	var trace func(string, ...any)
	if *traceFlag {
		trace = t.Logf
	}
	total := map[string]int{}
	for seed := first; seed < first+uint64(count); seed++ {
		met, err := simulate(seed, sabotage{}, trace)
		if err != nil {
			t.Errorf("%v\nreplay: go test ./core/remote -run TestSimulation -v -args -seed %d -n 1 -show", err, seed)
		}
		for k, v := range met {
			total[k] += v
		}
	}
	t.Log(total)
	if count < 1000 {
		return
	}
	for _, what := range []string{
		"lossy", "late", "down", "throttled", "forbidden", "no bucket", "answer lost", "late request", "take-over in a write", "hang",
		"resumed", "commit refused", "commit", "cancel", "drop", "attempts kept", "fetched",
	} {
		if total[what] == 0 {
			t.Errorf("never met: %s", what)
		}
	}
}

// TestSabotage switches off one rule at a time. Some seed must fail then, or the
// simulation would not notice if the rule were broken.
func TestSabotage(t *testing.T) {
	for _, c := range []struct {
		name  string
		rules sabotage
	}{
		{"preconditions", sabotage{noCondition: true}},
		{"waiting for late requests", sabotage{noUntil: true}},
		{"asking before settling", sabotage{noHead: true}},
		{"one intent at a time", sabotage{noExclusion: true}},
		{"announcing attempts", sabotage{noAnnounce: true}},
		{"keeping attempts", sabotage{noKept: true}},
		{"keeping what was fetched only if nothing was written", sabotage{noFetchCheck: true}},
		{"no second attempt of a careful write", sabotage{noSureWait: true}},
		{"going on over what nobody knew of", sabotage{noGuess: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			const seeds = 12000
			for seed := uint64(1); seed <= seeds; seed++ {
				if _, err := simulate(seed, c.rules, nil); err != nil {
					t.Logf("%v", err)
					return
				}
			}
			t.Errorf("%d seeds pass without the rule", seeds)
		})
	}
}
