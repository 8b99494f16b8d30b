package engine

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalstore/shoal/core"
)

// reconciler makes what is stored equal to what the map and the policies ask
// for. Rebalance, resilver, re-encoding and the repair after a loss are the
// same act: for each object of the slots that this node owns, compute where its
// shards should be, make those that are missing, commit the record with the new
// places; the owner deletes the surplus ones.
//
// A slot is gone over when what the places of shards depend on has changed
// since the last time. Objects that wait for a node within its grace, or for
// another disk, then wait for the next such change; what could not be done is
// tried again after a while.
type reconciler struct {
	node  *Node
	wake  chan struct{}
	brake *brake

	under       atomic.Int64 // objects that lack shards, as far as counted
	underBytes  atomic.Int64
	unavailable atomic.Int64
	moved       atomic.Int64 // bytes of shards made
	scans       atomic.Int64 // times that a slot was gone over
	failures    atomic.Int64
	pending     atomic.Bool // a pass is under way or due, or something waits
	reconciled  atomic.Uint64

	mu    sync.Mutex
	slots map[core.SlotID]*slotHealth
	asked map[askedKey]askedFor
}

// slotHealth is what is known of an owned slot since it was last gone over.
type slotHealth struct {
	signature uint64
	// under, underBytes and lost count its objects that lack shards, and of
	// these those that cannot be read.
	under, underBytes, lost int64
	// again is when to go over it again though nothing has changed, 0 for
	// never; tries counts how often that did not help.
	again core.Instant
	tries int
	// recount is when to count again because of what was written, or 0.
	recount core.Instant
	// counting says that a count of the slot is under way, written that
	// something was written into it since the count began: what the count finds
	// to be lacking may have been replaced.
	counting, written bool
}

// askedKey is an object that somebody found damaged or incomplete.
type askedKey struct {
	bucket core.BucketID
	key    string
}

// askedFor says when an object is to be looked at, and how often it was.
type askedFor struct {
	at    core.Instant
	tries int
}

const (
	// healAfter leaves a write that lacks a shard the time to be committed.
	healAfter = time.Second
	// retryFrom and retryTo bound how long after a failure another try is made.
	retryFrom = 2 * time.Second
	retryTo   = time.Minute
	// recountPart is which part of the grace passes until a slot is counted
	// again into which a write fell while objects in it lacked shards.
	recountPart = 6
	// findTries is how often an object is looked for that is not there.
	findTries = 5
	// maxAsked bounds the objects remembered that somebody asked for; beyond
	// it the next pass finds them.
	maxAsked = 100_000
	// farOff is a wait for nothing in particular.
	farOff = time.Hour
)

// retryAfter is how long to wait after a number of failures.
func retryAfter(tries int) time.Duration {
	return min(retryFrom<<min(tries, 10), retryTo)
}

func newReconciler(n *Node) *reconciler {
	return &reconciler{
		node: n, wake: make(chan struct{}, 1), brake: newBrake(n.clock, n.opt.ReconcileBandwidth),
		slots: map[core.SlotID]*slotHealth{}, asked: map[askedKey]askedFor{},
	}
}

// healLater has an object looked at soon.
func (n *Node) healLater(b core.BucketID, key string) {
	n.heal.ask(askedKey{b, key}, askedFor{at: n.clock.Boot().Add(healAfter)})
	n.heal.poke()
}

func (h *reconciler) ask(k askedKey, f askedFor) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.asked[k]; !ok && len(h.asked) < maxAsked {
		h.asked[k] = f
	}
}

// wrote is told of a committed write in an owned slot: where shards are missing,
// or objects of the slot lacked some before, it is counted again soon.
func (h *reconciler) wrote(s core.SlotID, rows []core.Row) {
	lacks := false
	if slices.ContainsFunc(rows, func(r core.Row) bool { return r.Space == core.SpaceData }) {
		rows = nil // the data is beside the record, not in shards
	}
	for i := range rows {
		if rec := recordOf(&rows[i]); rec != nil {
			for j := range rec.Extents {
				lacks = lacks || rec.Extents[j].Missing() > 0
			}
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.slots[s]
	if x == nil {
		return
	}
	x.written = x.written || x.counting
	if x.recount == 0 && (lacks || x.under > 0) {
		x.recount = h.recountAt()
		h.poke()
	}
}

// recountAt is when a slot is counted again into which something was written.
func (h *reconciler) recountAt() core.Instant {
	return h.node.clock.Boot().Add(h.node.opt.Grace / recountPart)
}

func (h *reconciler) poke() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// run reconciles whenever the map, or time, asks for it.
func (h *reconciler) run(ctx context.Context) {
	for {
		_, m, changed := h.node.driver.maps()
		if m != nil {
			h.heal(ctx, m)
			h.pass(ctx, m)
		}
		timer := time.NewTimer(h.rest(m))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-h.wake:
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// rest is how long nothing is to be done unless the map changes or somebody
// asks: until a grace ends, or something is to be tried again.
func (h *reconciler) rest(m *core.Map) time.Duration {
	wait := farOff
	if m == nil {
		return wait
	}
	now := h.node.clock.Now()
	for i := range m.Nodes {
		if n := &m.Nodes[i]; n.State == core.NodeDown {
			if left := h.node.opt.Grace - now.Sub(n.Since); left >= 0 {
				wait = min(wait, left+time.Millisecond)
			}
		}
	}
	boot := h.node.clock.Boot()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, x := range h.slots {
		for _, at := range []core.Instant{x.again, x.recount} {
			if at != 0 {
				wait = min(wait, at.Sub(boot))
			}
		}
	}
	for _, f := range h.asked {
		wait = min(wait, f.at.Sub(boot))
	}
	return max(wait, 0)
}

// takeAsked takes the objects that are to be looked at now.
func (h *reconciler) takeAsked() map[askedKey]askedFor {
	now := h.node.clock.Boot()
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[askedKey]askedFor{}
	for k, f := range h.asked {
		if f.at <= now {
			out[k] = f
			delete(h.asked, k)
		}
	}
	return out
}

// heal looks at the objects that somebody asked for, shard by shard. Those that
// wait for a node or disk are found again by the next pass of their slot.
func (h *reconciler) heal(ctx context.Context, m *core.Map) {
	for k, f := range h.takeAsked() {
		b := m.Bucket(k.bucket)
		if b == nil || ctx.Err() != nil {
			continue
		}
		rec, row, err := h.node.record(ctx, k.bucket, k.key)
		if err == nil {
			err = h.object(ctx, m, b, &row, rec, true)
		}
		f.tries++
		f.at = h.node.clock.Boot().Add(retryAfter(f.tries - 1))
		switch {
		case err == nil || errors.Is(err, errWaits) || ctx.Err() != nil:
		case errors.Is(err, core.ErrNotFound):
			if f.tries < findTries { // it may not be committed yet
				h.ask(k, f)
			}
		default:
			h.failures.Add(1)
			h.node.log.Warn("object could not be repaired yet", "bucket", b.Name.String(), "key", k.key, "tries", f.tries, "err", err)
			h.ask(k, f)
		}
	}
}

// signature is what the places of shards depend on: a slot whose objects were
// all seen under it need not be looked at again.
func (h *reconciler) signature(m *core.Map) uint64 {
	f := fnv.New64a()
	now := h.node.clock.Now()
	for i := range m.Nodes {
		n := &m.Nodes[i]
		late := n.State == core.NodeDown && now.Sub(n.Since) > h.node.opt.Grace
		fmt.Fprintln(f, n.ID, n.State, n.Weight, n.Zone, late)
	}
	for i := range m.Disks {
		d := &m.Disks[i]
		fmt.Fprintln(f, d.ID, d.Node, d.State, d.Weight)
	}
	for i := range m.Buckets {
		fmt.Fprintln(f, m.Buckets[i].ID, m.Buckets[i].Policy.Scheme, m.Buckets[i].Policy.Domain)
	}
	return f.Sum64()
}

// due lists the owned slots that were not reconciled under the signature, or
// are to be looked at again.
func (h *reconciler) due(m *core.Map, sig uint64) map[core.SlotID]bool {
	now := h.node.clock.Boot()
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[core.SlotID]bool{}
	for i := range m.Slots {
		s := core.SlotID(i)
		if m.OwnerNode(s) != h.node.id {
			delete(h.slots, s)
			continue
		}
		if x := h.slots[s]; x == nil || x.signature != sig || x.again != 0 && x.again <= now || x.recount != 0 && x.recount <= now {
			out[s] = true
		}
	}
	return out
}

// pass reconciles all slots that are due, bucket by bucket: first it counts,
// then it repairs what can be.
func (h *reconciler) pass(ctx context.Context, m *core.Map) {
	sig := h.signature(m)
	due := h.due(m, sig)
	if len(due) > 0 {
		h.pending.Store(true)
		h.passOver(ctx, m, sig, due)
	}
	clean := h.sum()
	h.mu.Lock()
	for _, x := range h.slots {
		clean = clean && x.again == 0 && x.recount == 0 && x.signature == sig
	}
	h.mu.Unlock()
	if !clean || ctx.Err() != nil {
		h.pending.Store(true)
		return
	}
	if h.pending.Swap(false) {
		h.node.log.Info("all objects are where they should be", "epoch", m.Epoch)
	}
	h.reconciled.Store(uint64(m.Epoch))
}

// sum adds up what the slots lack, and says whether that is nothing.
func (h *reconciler) sum() bool {
	var under, bytes, lost int64
	h.mu.Lock()
	for _, x := range h.slots {
		under, bytes, lost = under+x.under, bytes+x.underBytes, lost+x.lost
	}
	h.mu.Unlock()
	h.under.Store(under)
	h.underBytes.Store(bytes)
	h.unavailable.Store(lost)
	return under == 0
}

// passOver goes over some slots: once to count, and again over those in which
// anything can be repaired.
func (h *reconciler) passOver(ctx context.Context, m *core.Map, sig uint64, due map[core.SlotID]bool) {
	p := &reconcilePass{
		h: h, m: m, slots: due, count: true,
		health: map[core.SlotID]*slotHealth{}, work: map[core.SlotID]bool{}, failed: map[core.SlotID]bool{},
	}
	h.begin(p, sig)
	h.scans.Add(int64(len(due)))
	p.all(ctx)
	if ctx.Err() != nil {
		return
	}
	h.settle(p)
	h.sum()
	if len(p.work) == 0 {
		return
	}
	p.slots, p.count = p.work, false
	h.scans.Add(int64(len(p.slots)))
	p.all(ctx)
	if ctx.Err() == nil {
		h.settle(p)
	}
}

// begin notes that a count of a pass's slots begins.
func (h *reconciler) begin(p *reconcilePass, sig uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range p.slots {
		was := h.slots[s]
		if was == nil {
			was = &slotHealth{}
			h.slots[s] = was
		}
		was.recount, was.counting, was.written = 0, true, false // writes from here on count
		p.health[s] = &slotHealth{signature: sig, tries: was.tries}
	}
}

// settle notes what a pass has found of its slots, or done in them.
func (h *reconciler) settle(p *reconcilePass) {
	now := h.node.clock.Boot()
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range p.slots {
		x := h.slots[s]
		if p.count {
			found := p.health[s]
			if found.recount = x.recount; found.recount == 0 && x.written && found.under > 0 {
				found.recount = h.recountAt()
			}
			x = found
			h.slots[s] = x
		}
		switch {
		case p.count && p.work[s]:
			x.again = now // the repair that follows settles it
		case p.failed[s]:
			x.again = now.Add(retryAfter(x.tries))
			x.tries++
		default:
			x.again, x.tries = 0, 0
		}
	}
}

// reconcilePass goes over the objects of some slots, to count or to repair.
type reconcilePass struct {
	h     *reconciler
	m     *core.Map
	slots map[core.SlotID]bool
	count bool

	// health is what the count finds; work are the slots with objects that can
	// be repaired now.
	health map[core.SlotID]*slotHealth
	work   map[core.SlotID]bool

	mu     sync.Mutex
	failed map[core.SlotID]bool
}

// reconcileWorkers is how many objects a node repairs at a time.
const reconcileWorkers = 4

func (p *reconcilePass) all(ctx context.Context) {
	for i := range p.m.Buckets {
		for _, space := range []core.Space{core.SpaceObject, core.SpacePart} {
			p.bucket(ctx, &p.m.Buckets[i], space)
		}
	}
}

// bucket goes over the rows of one bucket, a page at a time.
func (p *reconcilePass) bucket(ctx context.Context, b *core.Bucket, space core.Space) {
	const pageSize = 500
	req := &scanRequest{scan: core.Scan{Bucket: b.ID, Space: space}, limit: pageSize}
	for s := range core.SlotID(len(p.m.Slots)) {
		if p.slots[s] {
			req.only = append(req.only, s)
		}
	}
	for ctx.Err() == nil {
		var rep *scanReply
		var err error
		if did, _ := p.h.brake.step(ctx, func() { rep, err = p.h.node.scanOwned(ctx, req) }); !did {
			return
		}
		if err != nil {
			p.h.node.log.Warn("reconcile cannot read a bucket", "bucket", b.Name.String(), "err", err)
			p.failAll()
			return
		}
		p.lostSlots(req.only, rep.held)
		p.page(ctx, b, rep.found)
		if !rep.more || len(rep.found) == 0 {
			return
		}
		last := &rep.found[len(rep.found)-1]
		req.scan.AfterKey, req.scan.AfterSub = last.Key, last.Sub
	}
}

func (p *reconcilePass) failAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.slots {
		p.failed[s] = true
	}
}

// lostSlots marks the slots that were not held while a page was read.
func (p *reconcilePass) lostSlots(asked, held []core.SlotID) {
	if len(asked) == len(held) {
		return
	}
	have := make(map[core.SlotID]bool, len(held))
	for _, s := range held {
		have[s] = true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range asked {
		if !have[s] {
			p.failed[s] = true
		}
	}
}

// page handles a page of rows, several at a time.
func (p *reconcilePass) page(ctx context.Context, b *core.Bucket, found []core.Found) {
	sem := make(chan struct{}, reconcileWorkers)
	var wg sync.WaitGroup
	for i := range found {
		f := &found[i]
		rec, err := core.DecodeRecord(f.Value)
		if err != nil {
			p.h.node.log.Error("record is damaged", "bucket", b.Name.String(), "key", f.Key, "err", err)
			p.mu.Lock()
			p.failed[f.Slot] = true
			p.mu.Unlock()
			continue
		}
		lacks, able := p.h.needs(p.m, b, f.Key, rec)
		if !lacks {
			continue
		}
		if p.count {
			p.note(f.Slot, rec, able)
			continue
		}
		if !able {
			continue
		}
		sem <- struct{}{}
		wg.Go(func() {
			defer func() { <-sem }()
			p.one(ctx, b, f, rec)
		})
	}
	wg.Wait()
}

// note counts an object that lacks shards.
func (p *reconcilePass) note(s core.SlotID, rec *core.Record, able bool) {
	x := p.health[s]
	if x == nil {
		return
	}
	x.under++
	x.underBytes += rec.Size
	if p.h.unreadable(p.m, rec) {
		x.lost++
	}
	if able {
		p.work[s] = true
	}
}

func (p *reconcilePass) one(ctx context.Context, b *core.Bucket, f *core.Found, rec *core.Record) {
	var err error
	if did, _ := p.h.brake.step(ctx, func() { err = p.h.object(ctx, p.m, b, &f.Row, rec, false) }); !did {
		return
	}
	switch {
	case err == nil || errors.Is(err, core.ErrNotFound) || errors.Is(err, core.ErrConflict):
		p.h.repaired(f.Slot, rec)
	case errors.Is(err, errWaits) || ctx.Err() != nil:
	default:
		p.h.failures.Add(1)
		p.h.node.log.Warn("object could not be repaired yet", "bucket", b.Name.String(), "key", f.Key, "err", err)
		p.mu.Lock()
		p.failed[f.Slot] = true
		p.mu.Unlock()
	}
}

// repaired counts an object off.
func (h *reconciler) repaired(s core.SlotID, rec *core.Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if x := h.slots[s]; x != nil && x.under > 0 {
		x.under--
		x.underBytes = max(0, x.underBytes-rec.Size)
		h.under.Add(-1)
		h.underBytes.Add(-rec.Size)
	}
}

// current lists an extent's places by disk.
func current(e *core.Extent) []core.DiskID {
	out := make([]core.DiskID, len(e.Places))
	for i, p := range e.Places {
		out[i] = p.Disk
	}
	return out
}

// reachable says whether the disk can be read, as far as the map knows.
func reachable(m *core.Map, id core.DiskID) bool {
	d := m.Disk(id)
	if d == nil || d.State != core.DiskOK {
		return false
	}
	n := m.Node(d.Node)
	return n != nil && n.State != core.NodeDown && n.State != core.NodeDecommissioned
}

// needs says whether an object's shards are not all where they should be, and
// whether anything can be done about it now.
func (h *reconciler) needs(m *core.Map, b *core.Bucket, key string, rec *core.Record) (lacks, able bool) {
	for i := range rec.Extents {
		e := &rec.Extents[i]
		if e.Scheme != b.Policy.Scheme {
			return true, true
		}
		for j, d := range h.targets(m, b, key, e) {
			p := e.Places[j]
			away := p.Disk == 0 || !reachable(m, p.Disk)
			moves := d != 0 && d != p.Disk
			lacks = lacks || away || moves
			able = able || moves && reachable(m, d)
		}
	}
	return lacks, able
}

func (h *reconciler) targets(m *core.Map, b *core.Bucket, key string, e *core.Extent) []core.DiskID {
	return h.node.placer(m).Reassign(b.ID, key, b.Policy, current(e), h.node.clock.Now(), h.node.opt.Grace)
}

// unreadable says whether too few shards of the object are within reach.
func (h *reconciler) unreadable(m *core.Map, rec *core.Record) bool {
	for i := range rec.Extents {
		have := 0
		for _, p := range rec.Extents[i].Places {
			if p.Disk != 0 && reachable(m, p.Disk) {
				have++
			}
		}
		if have < rec.Extents[i].Scheme.MinRead() {
			return true
		}
	}
	return false
}

// errWaits says that an object cannot be completed before something else
// happens: a node within its grace comes back, or another disk joins.
var errWaits = errors.New("waits for a node or disk")

// object brings the shards of one object or part to where they should be. With
// deep every shard is read and verified first.
func (h *reconciler) object(ctx context.Context, m *core.Map, b *core.Bucket, row *core.Row, rec *core.Record, deep bool) error {
	next := *rec
	next.Extents = append([]core.Extent(nil), rec.Extents...)
	fresh := &core.Record{}
	changed, waits := false, false
	for i := range next.Extents {
		e, did, wait, err := h.extent(ctx, m, b, row.Key, &rec.Extents[i], deep)
		if err != nil {
			h.node.garbage.discardNew(fresh, rec)
			return err
		}
		next.Extents[i] = e
		fresh.Extents = append(fresh.Extents, e)
		changed, waits = changed || did, waits || wait
	}
	if changed {
		next.Scheme = b.Policy.Scheme
		if err := h.commit(ctx, b, row, &next); err != nil {
			if surelyRefused(err) {
				h.node.garbage.discardNew(fresh, rec)
			}
			return err
		}
	}
	if waits {
		return errWaits
	}
	return nil
}

// commit replaces the record if nobody has changed the object meanwhile.
func (h *reconciler) commit(ctx context.Context, b *core.Bucket, row *core.Row, rec *core.Record) error {
	mut := h.node.mutation(b, row.Key, core.RequestID{})
	mut.need.Domains, mut.heals = 1, true
	mut.checks = []check{{kind: checkVersion, row: row.RowKey, version: row.Version}}
	mut.entry.Rows = []core.Row{{RowKey: row.RowKey, Value: core.AppendRecord(nil, rec)}}
	_, err := h.node.write(ctx, mut)
	return err
}

// extent makes an extent's missing and misplaced shards. waits says that some
// are left for later.
func (h *reconciler) extent(ctx context.Context, m *core.Map, b *core.Bucket, key string, e *core.Extent, deep bool) (next core.Extent, changed, waits bool, err error) {
	if e.Scheme != b.Policy.Scheme {
		next, err = h.encodeAgain(ctx, m, b, key, e)
		return next, err == nil, false, err
	}
	spec := core.RepairSpec{
		ReadSpec: core.ReadSpec{Extent: *e, Src: h.brake.sources(h.node.sources(m, e))},
		Meta:     core.ShardMeta{Bucket: b.ID, Key: key},
		Min:      1,
	}
	bad := make([]bool, len(e.Places))
	if deep {
		bad = h.verify(ctx, e, spec.Src)
	}
	targets := h.targets(m, b, key, e)
	for i, p := range e.Places {
		if bad[i] {
			spec.Src[i] = nil
		}
		switch {
		case targets[i] == 0:
			waits = waits || p.Disk == 0 || bad[i] || !reachable(m, p.Disk)
		case targets[i] != p.Disk || bad[i]:
			t := h.node.target(m, targets[i])
			if t.Store == nil || !reachable(m, targets[i]) {
				waits = true
				continue
			}
			spec.Shards = append(spec.Shards, i)
			spec.Dst = append(spec.Dst, h.brake.target(t))
		case !reachable(m, p.Disk):
			waits = true
		}
	}
	if len(spec.Shards) == 0 {
		return *e, false, waits, nil
	}
	next, err = h.node.coder(e.Scheme).Repair(ctx, spec)
	if err != nil {
		return next, false, waits, fmt.Errorf("data of %q: %w", key, err)
	}
	h.moved.Add(int64(len(spec.Shards)) * (e.Size / int64(e.Scheme.Data())))
	return next, true, waits, nil
}

// encodeAgain writes an extent anew under the bucket's present scheme.
func (h *reconciler) encodeAgain(ctx context.Context, _ *core.Map, b *core.Bucket, key string, e *core.Extent) (core.Extent, error) {
	body, err := h.node.openExtents(ctx, b.ID, key, []core.Extent{*e}, 0, e.Size, false)
	if err != nil {
		return *e, err
	}
	defer func() { _ = body.Close() }()
	next, err := h.node.writeExtent(ctx, b, key, h.brake.reader(ctx, body), &core.PutOptions{Size: e.Size})
	if err == nil && next.Size != e.Size {
		err = fmt.Errorf("data of %q: read %d of %d bytes: %w", key, next.Size, e.Size, core.ErrCorrupt)
	}
	if err == nil {
		h.moved.Add(next.Size)
	}
	return next, err
}

// verify reads every shard of an extent and says which are damaged or gone.
func (h *reconciler) verify(ctx context.Context, e *core.Extent, src []core.Store) []bool {
	bad := make([]bool, len(src))
	var wg sync.WaitGroup
	for i, s := range src {
		if s == nil || e.Places[i].Disk == 0 {
			continue
		}
		wg.Go(func() {
			err := readShard(ctx, s, e.Shard(i))
			bad[i] = errors.Is(err, core.ErrCorrupt) || errors.Is(err, core.ErrNotFound)
		})
	}
	wg.Wait()
	return bad
}

// readShard reads a shard to its end, which verifies it.
func readShard(ctx context.Context, s core.Store, id core.ShardID) error {
	r, err := s.Open(ctx, id)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	buf := make([]byte, 256<<10)
	for off := int64(0); off < r.Size(); {
		k, err := r.ReadAt(ctx, buf[:min(int64(len(buf)), r.Size()-off)], off)
		off += int64(k)
		if err != nil && off < r.Size() {
			return err
		}
	}
	return nil
}

// placeAgain moves the shards of an uncommitted record off disks that take no
// new data. The old ones are left to the sweep: an earlier attempt of the write
// may be on its way and name them.
func (n *Node) placeAgain(ctx context.Context, b *core.Bucket, key string, rec *core.Record) error {
	newest, m, _ := n.driver.maps()
	for i := range rec.Extents {
		e := &rec.Extents[i]
		spec := core.RepairSpec{
			ReadSpec: core.ReadSpec{Extent: *e, Src: n.sources(m, e)},
			Meta:     core.ShardMeta{Bucket: b.ID, Key: key}, Min: 1,
		}
		targets := n.placer(newest).Reassign(b.ID, key, b.Policy, current(e), n.clock.Now(), n.opt.Grace)
		for j, p := range e.Places {
			if p.Disk != 0 && !takesData(newest, p.Disk) && targets[j] != 0 && targets[j] != p.Disk {
				spec.Shards = append(spec.Shards, j)
				spec.Dst = append(spec.Dst, n.target(m, targets[j]))
			}
		}
		if len(spec.Shards) == 0 {
			continue
		}
		next, err := n.coder(e.Scheme).Repair(ctx, spec)
		if err != nil {
			return fmt.Errorf("data of %q: %w", key, err)
		}
		rec.Extents[i] = next
	}
	return nil
}
