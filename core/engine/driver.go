package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/slot"
)

// tickEvery is how often the protocol is told that time has passed.
const tickEvery = 100 * time.Millisecond

// fullRetry is how often a full disk is tried again.
const fullRetry = 500 * time.Millisecond

// maxSkew is by how much the boot clock and the wall clock may part between two
// ticks before the node gives up its lease: one of them was set or stood still.
const maxSkew = 500 * time.Millisecond

// driver owns the node's slot.Node: everything that happens to the protocol
// happens in step, under one lock, and what the protocol asks for is handed on
// in that order.
type driver struct {
	clock core.Clock
	log   *slog.Logger
	net   Transport
	self  core.NodeID
	// saveVoter makes the voter's state durable.
	saveVoter func(slot.VoterState) error
	// onChanges takes proposals for the map, onDisk a failed disk. They must
	// not block or call back.
	onChanges func([]core.Change)
	onDisk    func(core.DiskID, error)
	// onTaken is told of the batches that a disk has stored. It must not block.
	onTaken func(core.DiskID, []slot.Persist)
	// holdBack carries out what joiners wait for, in its turn; see brake.step.
	holdBack func(ctx context.Context, f func()) (did bool, err error)

	effect  atomic.Pointer[core.Map]
	seen    atomic.Pointer[seenMaps]
	rights  *slot.Rights
	opened  atomic.Pointer[chan struct{}] // closed and replaced when a slot becomes active
	metrics driverMetrics
	// mute says that nothing is sent to other nodes; see tellMoved.
	mute atomic.Bool
	// confirms, if not nil, says that reads are confirmed; guarded by mu.
	confirms *confirms

	mu      sync.Mutex
	node    *slot.Node
	waiters map[slot.WriteID]chan slot.Result
	disks   map[core.DiskID]*diskIO
	loop    []*slot.Message // for this node itself
	voters  []slot.Persist
	work    chan struct{} // capacity 1: loop or voters are not empty
	group   sync.WaitGroup
	closed  bool
}

// seenMaps are the newest map and the one in effect, and a channel that closes
// when either changes.
type seenMaps struct {
	newest, effect *core.Map
	changed        chan struct{}
	at             core.Instant // when they became so
}

// driverMetrics counts what the protocol did; read with atomics.
type driverMetrics struct {
	alarms, results, badMessages atomic.Int64
}

func newDriver(clock core.Clock, log *slog.Logger, net Transport, cfg slot.Config) *driver {
	d := &driver{
		clock: clock, log: log, net: net, self: cfg.ID, node: slot.New(cfg),
		waiters: map[slot.WriteID]chan slot.Result{},
		disks:   map[core.DiskID]*diskIO{},
		work:    make(chan struct{}, 1),
	}
	d.rights = d.node.Rights()
	d.noteOpened()
	d.noteMaps() // a lone voter knows it from the start
	return d
}

func (d *driver) noteOpened() {
	next := make(chan struct{})
	if was := d.opened.Swap(&next); was != nil {
		close(*was)
	}
}

// noteMaps makes known which maps the protocol has.
func (d *driver) noteMaps() {
	was := d.seen.Load()
	d.effect.Store(d.node.Map())
	d.seen.Store(&seenMaps{d.node.Newest(), d.node.Map(), make(chan struct{}), d.clock.Boot()})
	if was != nil {
		close(was.changed)
	}
}

// step lets f tell the protocol something and carries out what follows.
func (d *driver) step(f func(n *slot.Node, now core.Instant)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.clock.Boot()
	f(d.node, now)
	if d.confirms != nil {
		d.confirms.settle(d.node, now)
	}
	d.dispatch(d.node.Take())
}

func (d *driver) dispatch(out slot.Output) {
	for i := range out.Persists {
		p := out.Persists[i]
		if p.Voter != nil {
			d.voters = append(d.voters, p)
			d.poke()
		} else if io := d.disks[p.Disk]; io != nil {
			io.enqueue(p)
		}
	}
	for _, s := range out.Sends {
		if s.To == d.self {
			d.loop = append(d.loop, s.Msg)
			d.poke()
			continue
		}
		if d.mute.Load() {
			continue
		}
		b, err := slot.AppendMessage(nil, s.Msg)
		if err != nil {
			d.log.Error("message cannot be encoded", "node", s.To, "err", err)
			continue
		}
		d.net.Send(s.To, b)
	}
	for _, r := range out.Reads {
		d.read(r)
	}
	for _, r := range out.Results {
		d.metrics.results.Add(1)
		if w := d.waiters[r.ID]; w != nil {
			delete(d.waiters, r.ID)
			w <- r
		}
	}
	for _, a := range out.Alarms {
		d.metrics.alarms.Add(1)
		d.log.Error("protocol alarm", "alarm", a)
	}
	if len(out.Changes) > 0 {
		d.onChanges(out.Changes)
	}
	if out.MapChanged {
		d.noteMaps()
	}
	if out.Opened {
		d.noteOpened()
	}
}

func (d *driver) poke() {
	select {
	case d.work <- struct{}{}:
	default:
	}
}

// read carries out a Read beside the protocol.
func (d *driver) read(r slot.Read) {
	io := d.disks[r.Disk]
	if io == nil || d.closed {
		return
	}
	d.group.Go(func() {
		var e core.Entries
		var err error
		if did, gone := d.holdBack(io.ctx, func() {
			e, err = io.disk.Entries(io.ctx, r.Slot, r.After, r.UpTo, r.Bytes)
		}); !did {
			err = gone
		}
		d.step(func(n *slot.Node, now core.Instant) { n.ReadDone(now, r.ID, e, err) })
	})
}

// Message takes a protocol message from a peer; see [Transport].
func (d *driver) Message(from core.NodeID, b []byte) {
	m, err := slot.DecodeMessage(b, d.seen.Load().newest)
	if err != nil {
		d.metrics.badMessages.Add(1)
		d.log.Warn("malformed message", "node", from, "err", err)
		return
	}
	d.step(func(n *slot.Node, now core.Instant) { n.Receive(now, from, m) })
}

// run ticks, delivers the node's messages to itself and stores the voter's
// state, until ctx ends.
func (d *driver) run(ctx context.Context) {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	skew := d.skew()
	for {
		select {
		case <-ctx.Done():
			d.mu.Lock()
			d.closed = true
			d.mu.Unlock()
			d.group.Wait()
			return
		case <-tick.C:
			now := d.skew()
			parted := (now - skew).Abs() > maxSkew
			skew = now
			d.step(func(n *slot.Node, now core.Instant) {
				if parted {
					n.DropLease()
				}
				n.Tick(now)
			})
			if parted {
				d.log.Warn("wall clock and boot clock parted; lease given up")
			}
		case <-d.work:
			d.ownWork()
		}
	}
}

// skew is the difference of the node's two clocks.
func (d *driver) skew() time.Duration {
	return time.Duration(d.clock.Now().UnixNano() - int64(d.clock.Boot()))
}

func (d *driver) ownWork() {
	d.mu.Lock()
	loop, voters := d.loop, d.voters
	d.loop, d.voters = nil, nil
	d.mu.Unlock()
	for _, p := range voters {
		err := d.saveVoter(*p.Voter)
		d.step(func(n *slot.Node, now core.Instant) { n.Persisted(now, p.ID, err) })
	}
	for _, m := range loop {
		d.step(func(n *slot.Node, now core.Instant) { n.Receive(now, d.self, m) })
	}
}

// addDisk gives the protocol a disk. run carries out its batches until ctx ends.
func (d *driver) addDisk(ctx context.Context, id core.DiskID, disk core.RowStore) error {
	states, err := disk.Slots(ctx)
	if err != nil {
		return fmt.Errorf("disk %d: %w", id, err)
	}
	loaded := make(map[core.SlotID]slot.Loaded, len(states))
	for s, st := range states {
		l := slot.Loaded{State: st}
		if st.Last.Seq > st.Committed.Seq {
			e, err := disk.Entries(ctx, s, st.Committed.Seq, st.Last, 1<<40)
			if err != nil {
				return fmt.Errorf("disk %d: tail of slot %d: %w", id, s, err)
			}
			if got := uint64(len(e.List)); got != st.Last.Seq-st.Committed.Seq {
				return fmt.Errorf("disk %d: slot %d has %d of %d uncommitted entries: %w",
					id, s, got, st.Last.Seq-st.Committed.Seq, core.ErrCorrupt)
			}
			l.Tail = e.List
		}
		loaded[s] = l
	}
	io := newDiskIO(ctx, id, disk, d)
	d.step(func(n *slot.Node, now core.Instant) {
		d.disks[id] = io
		n.AddDisk(now, id, loaded)
	})
	d.group.Go(io.run)
	return nil
}

// removeDisk ends the use of a disk.
func (d *driver) removeDisk(id core.DiskID) {
	d.mu.Lock()
	io := d.disks[id]
	d.mu.Unlock()
	if io == nil {
		return
	}
	io.stop()
	d.step(func(n *slot.Node, now core.Instant) {
		delete(d.disks, id)
		n.RemoveDisk(now, id)
	})
}

// propose writes an entry in a slot that this node owns, on the ground of what was read
// with g, and waits for its end.
// settled runs once the write is settled, which after an end of ctx is later
// than the return; it must not block.
func (d *driver) propose(ctx context.Context, g slot.Reading, e core.Entry, need slot.Need, settled func(slot.Result)) (core.Version, error) {
	end := make(chan slot.Result, 1)
	var err error
	d.step(func(n *slot.Node, now core.Instant) {
		var id slot.WriteID
		if id, err = n.Propose(now, g, e, need); err == nil {
			d.waiters[id] = end
		}
	})
	if err != nil {
		settled(slot.Result{Err: err})
		return core.Version{}, err
	}
	select {
	case r := <-end:
		settled(r)
		return r.Version, r.Err
	case <-ctx.Done():
	}
	d.group.Go(func() { settled(<-end) })
	return core.Version{}, fmt.Errorf("write of slot %d: %w: %w", g.Slot, core.ErrUnknownOutcome, context.Cause(ctx))
}

// serving asks for the right to read a slot.
func (d *driver) serving(s core.SlotID) (g slot.Reading, err error) {
	if g, ok := d.rights.Serving(d.clock.Boot(), s); ok {
		return g, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.node.Serving(d.clock.Boot(), s)
}

// tenure names the unbroken run of ownerships of a slot, 0 if it cannot be read
// here now.
func (d *driver) tenure(s core.SlotID) uint64 {
	g, _ := d.rights.Serving(d.clock.Boot(), s)
	return g.Tenure()
}

// handOver bounds how long a request waits at the node of an owner that is
// taking a slot over or giving it away; then who asked tries again.
const handOver = 250 * time.Millisecond

// awaitOpen waits while a slot that the map in effect gives to this node is being
// taken over, or a newer map takes it away: for reads until it may be read, else
// until it takes writes. So a request goes on as soon as it can rather than when
// whoever asked has slept. Afterwards, ask whether it is so.
func (d *driver) awaitOpen(ctx context.Context, s core.SlotID, reads bool) {
	var bound <-chan time.Time
	for {
		opened, seen := *d.opened.Load(), d.seen.Load()
		if m := seen.effect; d.rights.Open(s, reads) || m == nil || int(s) >= len(m.Slots) || m.OwnerNode(s) != d.self {
			return
		}
		if bound == nil {
			t := time.NewTimer(handOver)
			defer t.Stop()
			bound = t.C
		}
		select {
		case <-opened:
		case <-seen.changed:
		case <-bound:
			return
		case <-ctx.Done():
			return
		}
	}
}

// check says whether what was read may be answered.
func (d *driver) check(g slot.Reading) error {
	if d.rights.Check(d.clock.Boot(), g) {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.node.Check(d.clock.Boot(), g)
}

// maps returns the newest map, the one in effect, and a channel that closes
// when either changes. They are nil before there are any.
func (d *driver) maps() (newest, effect *core.Map, changed <-chan struct{}) {
	m := d.seen.Load()
	return m.newest, m.effect, m.changed
}

// awaitMap waits until a map in effect satisfies ok.
func (d *driver) awaitMap(ctx context.Context, ok func(*core.Map) bool) (*core.Map, error) {
	for {
		_, m, changed := d.maps()
		if m != nil && ok(m) {
			return m, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for a map: %w: %w", core.ErrUnavailable, context.Cause(ctx))
		}
	}
}

// diskIO carries out the protocol's batches on one disk, in order, as many at
// a time as are waiting: one sync serves them all.
type diskIO struct {
	id     core.DiskID
	disk   core.RowStore
	driver *driver
	ctx    context.Context //nolint:containedctx // the life of the worker itself
	stop   context.CancelFunc

	mu    sync.Mutex
	queue []slot.Persist
	ready chan struct{}
}

func newDiskIO(ctx context.Context, id core.DiskID, disk core.RowStore, d *driver) *diskIO {
	io := &diskIO{id: id, disk: disk, driver: d, ready: make(chan struct{}, 1)}
	io.ctx, io.stop = context.WithCancel(ctx)
	return io
}

// enqueue is called in the order of the protocol.
func (io *diskIO) enqueue(p slot.Persist) {
	io.mu.Lock()
	io.queue = append(io.queue, p)
	io.mu.Unlock()
	select {
	case io.ready <- struct{}{}:
	default:
	}
}

func (io *diskIO) run() {
	more := true // to reclaim, of what an earlier run may have left
	pause := time.NewTicker(reclaimPause)
	defer pause.Stop()
	for {
		if !more {
			pause.Stop()
		}
		select {
		case <-io.ctx.Done():
			return
		case <-io.ready:
		case <-pause.C:
			var err error
			if more, err = io.disk.Reclaim(io.ctx, reclaimRows); err != nil && !errors.Is(err, context.Canceled) {
				io.driver.onDisk(io.id, err)
				return
			}
			continue
		}
		io.mu.Lock()
		queue := io.queue
		io.queue = nil
		io.mu.Unlock()
		if len(queue) == 0 {
			continue
		}
		if !more && slices.ContainsFunc(queue, func(p slot.Persist) bool { return p.Batch.Remove }) {
			more = true
			pause.Reset(reclaimPause)
		}
		if err := io.apply(queue); err != nil {
			if !errors.Is(err, context.Canceled) {
				io.driver.onDisk(io.id, err)
			}
			return
		}
	}
}

// apply makes the batches durable and reports them. An empty batch waits for
// those before it only.
func (io *diskIO) apply(queue []slot.Persist) error {
	batches := make([]core.SlotBatch, 0, len(queue))
	for i := range queue {
		if b := &queue[i].Batch; !isEmpty(b) {
			batches = append(batches, *b)
		}
	}
	if len(batches) > 0 {
		err := io.disk.Apply(io.ctx, batches)
		for errors.Is(err, core.ErrNoSpace) {
			// Nothing was applied. Until there is room this disk stays silent,
			// and owners elsewhere go on without it.
			if werr := io.driver.clock.Wait(io.ctx, fullRetry); werr != nil {
				return werr
			}
			err = io.disk.Apply(io.ctx, batches)
		}
		if err != nil {
			return err
		}
	}
	io.driver.onTaken(io.id, queue)
	io.driver.step(func(n *slot.Node, now core.Instant) {
		for i := range queue {
			n.Persisted(now, queue[i].ID, nil)
		}
	})
	return nil
}

func isEmpty(b *core.SlotBatch) bool {
	return !b.Remove && b.Adopt == nil && b.Undo == nil && b.Replace == nil && len(b.Append) == 0 && b.Commit == nil
}
