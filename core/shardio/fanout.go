package shardio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/kofn"
)

// A fan-out is a log of chunks and one lane for each shard, a cursor that moves
// along it. The log keeps a chunk until every lane is past it, and the first
// few chunks a little longer: as long as nothing has left the log a lane can
// start again from its beginning, on another disk. One goroutine per lane, an
// attempt, creates the shard, writes what its cursor passes, and commits.
//
// A lane whose attempt makes no progress is stalled. Its attempt is cancelled
// and forgotten; a substitute starts a new one, or the lane is lost.

// FanoutSpec says what a [Fanout] writes where.
type FanoutSpec struct {
	core.WriteSpec
	Scheme core.Scheme
	// Shards are the numbers of the shards to write; Dst of the WriteSpec is
	// in the same order, and so are the parts of a chunk.
	Shards []int
	// ShardSize is the expected size of a shard, -1 if unknown.
	ShardSize int64
}

// Fanout writes a stream of chunks to several shards. Its methods are for one
// goroutine, and each Fanout ends with one call of Commit or Abort.
type Fanout struct {
	env     *Env
	spec    FanoutSpec
	changed chan struct{} // holds one token once some lane has changed

	substitute sync.Mutex // serialises spec.Substitute

	mu      sync.Mutex
	lanes   []lane
	log     []*chunk // those from number base on
	base    int
	ended   bool            // no chunk will follow
	running []chan struct{} // closed as what was begun ends: attempts, those given up included, and removals
}

type lane struct {
	run    *attempt     // nil: lost, or committed
	target core.Target  // of the attempt
	pos    int          // number of the chunk that it writes next
	since  core.Instant // of its last progress, or of its last idleness
	place  core.Place   // once committed
	err    error        // why the lane is lost
}

func (l *lane) committed() bool { return l.place.Disk != 0 }

type attempt struct {
	lane   int
	wake   chan struct{} // holds one token once there may be work
	cancel context.CancelFunc
}

type chunk struct {
	parts   [][]byte
	refs    atomic.Int32
	release func()
}

func (c *chunk) unref() {
	if c.refs.Add(-1) == 0 {
		c.release()
	}
}

var (
	errNoDisk  = fmt.Errorf("no disk for the shard: %w", core.ErrUnavailable)
	errStalled = fmt.Errorf("no progress: %w", core.ErrUnavailable)
)

// NewFanout starts writing shards. The ctx bounds all of it.
func (e *Env) NewFanout(ctx context.Context, spec FanoutSpec) *Fanout {
	if spec.Min <= 0 || spec.Min > len(spec.Shards) {
		spec.Min = len(spec.Shards)
	}
	f := &Fanout{
		env: e, spec: spec,
		changed: make(chan struct{}, 1),
		lanes:   make([]lane, len(spec.Shards)),
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, t := range spec.Dst {
		if t.Store == nil {
			f.lanes[i].err = errNoDisk
			continue
		}
		f.start(ctx, i, t, nil)
	}
	return f
}

// start begins an attempt for a lane, at t, or, if cause is set, at a
// substitute for t. The caller holds mu.
func (f *Fanout) start(ctx context.Context, i int, t core.Target, cause error) {
	ctx, cancel := context.WithCancel(ctx)
	a := &attempt{lane: i, wake: make(chan struct{}, 1), cancel: cancel}
	l := &f.lanes[i]
	l.run, l.target, l.pos, l.since = a, t, 0, f.env.Clock.Boot()
	f.begin(func() {
		defer cancel()
		f.attempt(ctx, a, t, cause)
	})
}

// begin runs do in a goroutine for which Abort waits. The caller holds mu.
func (f *Fanout) begin(do func()) {
	ended := make(chan struct{})
	f.running = append(f.running, ended)
	f.env.calls.Go(func() {
		defer close(ended)
		do()
	})
}

// Push hands over a chunk: parts has a part for each shard, and release is
// called once none of them is used any more, also after an error. It waits
// while some shard is too far behind, but gives a stalled one up if the rest
// suffices. An error means that too few shards are left, or that ctx ended.
func (f *Fanout) Push(ctx context.Context, parts [][]byte, release func()) error {
	c := &chunk{parts: parts, release: release}
	c.refs.Store(1)
	room := func() bool {
		head := f.base + len(f.log)
		for i := range f.lanes {
			if l := &f.lanes[i]; l.run != nil && head-l.pos >= f.env.InFlight {
				return false
			}
		}
		return true
	}
	err := f.await(ctx, room)
	if err != nil {
		c.unref()
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wake()
	f.log = append(f.log, c)
	f.trim()
	return nil
}

// wake tells the lanes that there is something to do; those that were idle
// begin to count their time. The caller holds mu.
func (f *Fanout) wake() {
	now, head := f.env.Clock.Boot(), f.base+len(f.log)
	for i := range f.lanes {
		if l := &f.lanes[i]; l.run != nil {
			if l.pos == head {
				l.since = now
			}
			token(l.run.wake)
		}
	}
}

// Commit ends the stream and returns the places of the shards that are durable,
// at least Min of them. If there are fewer it removes them and returns an error.
func (f *Fanout) Commit(ctx context.Context) ([]core.Place, error) {
	f.mu.Lock()
	f.ended = true
	f.wake()
	f.mu.Unlock()
	err := f.await(ctx, func() bool {
		return !slices.ContainsFunc(f.lanes, func(l lane) bool { return l.run != nil })
	})
	if err != nil {
		return nil, f.Abort(ctx, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drop()
	places := make([]core.Place, len(f.lanes))
	for i := range f.lanes {
		places[i] = f.lanes[i].place
	}
	return places, nil
}

// Abort ends the writing, removes what was written and returns cause. It waits
// for the removal no longer than for a stalled store.
func (f *Fanout) Abort(ctx context.Context, cause error) error {
	f.mu.Lock()
	for i := range f.lanes {
		l := &f.lanes[i]
		if l.run != nil {
			l.run.cancel()
			l.run = nil
		}
		if l.committed() {
			f.remove(ctx, l.target.Store, f.shardID(i, l.place))
			l.place = core.Place{}
		}
	}
	f.drop()
	f.mu.Unlock()

	ring, stop := kofn.Alarm(context.WithoutCancel(ctx), &f.env.calls, f.env.Clock, f.env.StallAfter)
	defer stop()
	for i := 0; ; i++ {
		f.mu.Lock()
		if i == len(f.running) { // it grows as long as an attempt is under way
			f.mu.Unlock()
			return cause
		}
		ended := f.running[i]
		f.mu.Unlock()
		select {
		case <-ended:
		case <-ring:
			return cause
		}
	}
}

// remove deletes a shard that no record will name, in the background. If that
// fails the shard is one of those that its disk will report as unnamed. The
// caller holds mu.
func (f *Fanout) remove(ctx context.Context, s core.Store, id core.ShardID) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f.env.calls.Go(func() {
		if f.env.Clock.Wait(ctx, f.env.StallAfter) == nil {
			cancel()
		}
	})
	f.begin(func() {
		defer cancel()
		_ = s.Delete(ctx, id)
	})
}

func (f *Fanout) shardID(lane int, p core.Place) core.ShardID {
	return core.ShardID{Extent: f.spec.Extent, Index: uint8(f.spec.Shards[lane]), Nonce: p.Nonce}
}

// await waits until ok, which is called with mu held. It fails once fewer
// than Min lanes are left, and gives stalled lanes up.
func (f *Fanout) await(ctx context.Context, ok func() bool) error {
	var ring <-chan struct{}
	stop := func() {}
	defer func() { stop() }()
	for ctx.Err() == nil {
		f.mu.Lock()
		wait := f.judge(ctx)
		done, err := ok(), f.enough()
		f.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			continue // which is also why lanes failed
		case err != nil || done:
			return err
		}
		if ring == nil {
			ring, stop = kofn.Alarm(ctx, &f.env.calls, f.env.Clock, wait)
		}
		select {
		case <-f.changed:
		case <-ring: // deadlines only move away, so one alarm is never too late
			stop()
			ring = nil
		case <-ctx.Done():
		}
	}
	return fmt.Errorf("write extent %x: %w", f.spec.Extent, ctx.Err())
}

// mercy is how many times as long a stalled lane is waited for when too few
// others go on without it.
const mercy = 3

// judge gives up the lanes that are stalled, if they can start again, or if the
// others suffice, or if it took too long. It returns the time until it should be
// called again. The caller holds mu.
func (f *Fanout) judge(ctx context.Context) time.Duration {
	now, head := f.env.Clock.Boot(), f.base+len(f.log)
	going, wait := 0, f.env.StallAfter
	var stalled []int
	for i := range f.lanes {
		l := &f.lanes[i]
		idle := now.Sub(l.since)
		switch {
		case l.committed():
			going++
		case l.run == nil:
		case (l.pos < head || f.ended) && idle >= f.env.StallAfter:
			stalled = append(stalled, i)
		default:
			going++
			if left := f.env.StallAfter - idle; left > 0 {
				wait = min(wait, left)
			}
		}
	}
	for _, i := range stalled {
		l := &f.lanes[i]
		idle := now.Sub(l.since)
		cause := fmt.Errorf("%w for %v", errStalled, idle)
		switch {
		case f.replayable():
			l.run.cancel()
			f.start(ctx, i, l.target, cause)
		case going >= f.spec.Min || idle >= mercy*f.env.StallAfter:
			l.run.cancel()
			l.run, l.err = nil, cause
			f.trim()
		default:
			wait = min(wait, mercy*f.env.StallAfter-idle)
		}
	}
	return wait
}

// enough returns an error if fewer than Min lanes are left. The caller holds mu.
func (f *Fanout) enough() error {
	left, full := 0, true
	var why []string
	for i := range f.lanes {
		l := &f.lanes[i]
		if l.run != nil || l.committed() {
			left++
			continue
		}
		full = full && errors.Is(l.err, core.ErrNoSpace)
		why = append(why, fmt.Sprintf("shard %d: %v", f.spec.Shards[i], l.err))
	}
	if left >= f.spec.Min {
		return nil
	}
	class := core.ErrUnavailable
	if full {
		class = core.ErrNoSpace
	}
	return fmt.Errorf("write extent %x as %v: only %d of %d shards can be written and %d are needed (%s): %w",
		f.spec.Extent, f.spec.Scheme, left, len(f.lanes), f.spec.Min, strings.Join(why, "; "), class)
}

// replayable says whether a lane can start again. The caller holds mu.
func (f *Fanout) replayable() bool { return f.base == 0 && f.spec.Substitute != nil }

// trim lets chunks go that no lane will write any more. The caller holds mu.
func (f *Fanout) trim() {
	head := f.base + len(f.log)
	if head <= f.env.InFlight {
		return // a lane may yet have to start again
	}
	low := head
	for i := range f.lanes {
		if l := &f.lanes[i]; l.run != nil {
			low = min(low, l.pos)
		}
	}
	for ; f.base < low; f.base++ {
		f.log[0].unref()
		f.log = slices.Delete(f.log, 0, 1)
	}
}

// drop lets all chunks go. The caller holds mu.
func (f *Fanout) drop() {
	for _, c := range f.log {
		c.unref()
	}
	f.base += len(f.log)
	f.log = nil
}

// attempt writes one lane, at t and after a failure at substitutes for it, for
// as long as there is one.
func (f *Fanout) attempt(ctx context.Context, a *attempt, t core.Target, cause error) {
	for {
		if cause != nil {
			var ok bool
			if t, ok = f.another(ctx, a, t, cause); !ok {
				return
			}
		}
		if cause = f.write(ctx, a, t); cause == nil {
			return
		}
	}
}

// another returns a substitute for the target at which the attempt failed. If
// there is none the lane is lost.
func (f *Fanout) another(ctx context.Context, a *attempt, t core.Target, cause error) (core.Target, bool) {
	l := &f.lanes[a.lane]
	f.mu.Lock()
	defer f.mu.Unlock()
	if l.run != a {
		return core.Target{}, false
	}
	if f.replayable() && ctx.Err() == nil {
		l.pos = 0 // nothing leaves the log meanwhile
		f.mu.Unlock()
		f.substitute.Lock()
		s, ok := f.spec.Substitute(f.spec.Shards[a.lane], t, cause)
		f.substitute.Unlock()
		f.mu.Lock()
		if l.run != a {
			return core.Target{}, false
		}
		if ok && s.Store != nil && s.Disk != 0 {
			l.target, l.since = s, f.env.Clock.Boot()
			return s, true
		}
	}
	l.run, l.err = nil, cause
	f.trim()
	token(f.changed)
	return core.Target{}, false
}

// write writes one shard from the beginning of the log and commits it.
func (f *Fanout) write(ctx context.Context, a *attempt, t core.Target) error {
	m := f.spec.Meta
	m.ID = core.NewShardID(f.spec.Extent, f.spec.Shards[a.lane])
	m.Scheme = f.spec.Scheme
	w, err := t.Store.Create(ctx, m, f.spec.ShardSize)
	if err != nil {
		return fmt.Errorf("create on disk %d: %w", t.Disk, err)
	}
	defer func() { _ = w.Close() }() // without a Commit it discards the shard
	f.moved(a, 0)
	if err := f.fill(ctx, a, w); err != nil {
		return fmt.Errorf("write to disk %d: %w", t.Disk, err)
	}
	err = w.Commit(ctx)

	f.mu.Lock()
	defer f.mu.Unlock()
	l := &f.lanes[a.lane]
	if err != nil || l.run != a {
		// After an error the shard may be there all the same.
		f.remove(ctx, t.Store, m.ID)
	}
	if err != nil {
		return fmt.Errorf("commit on disk %d: %w", t.Disk, err)
	}
	if l.run == a {
		l.run, l.place = nil, core.Place{Disk: t.Disk, Nonce: m.ID.Nonce}
		token(f.changed)
	}
	return nil
}

var errGivenUp = errors.New("given up")

// fill writes the lane's part of all chunks.
func (f *Fanout) fill(ctx context.Context, a *attempt, w io.Writer) error {
	for {
		c, err := f.take(ctx, a)
		if err != nil || c == nil {
			return err
		}
		part := c.parts[a.lane]
		n, err := w.Write(part)
		c.unref()
		if err == nil && n < len(part) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return err
		}
		f.moved(a, 1)
	}
}

// take waits for the lane's next chunk and returns a reference to it, or nil
// at the end of the stream.
func (f *Fanout) take(ctx context.Context, a *attempt) (*chunk, error) {
	for {
		f.mu.Lock()
		l := &f.lanes[a.lane]
		switch {
		case l.run != a:
			f.mu.Unlock()
			return nil, errGivenUp
		case l.pos < f.base+len(f.log):
			c := f.log[l.pos-f.base]
			c.refs.Add(1)
			f.mu.Unlock()
			return c, nil
		case f.ended:
			f.mu.Unlock()
			return nil, nil
		}
		f.mu.Unlock()
		select {
		case <-a.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// moved notes that the lane got on, by n chunks.
func (f *Fanout) moved(a *attempt, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l := &f.lanes[a.lane]; l.run == a {
		l.pos += n
		l.since = f.env.Clock.Boot()
		f.trim()
		token(f.changed)
	}
}

// token puts a token into a channel that holds one.
func token(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
