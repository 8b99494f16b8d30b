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
	// tenure names the unbroken run of ownerships of a slot, 0 if it cannot be read.
	tenure func(core.SlotID) uint64

	under       atomic.Int64 // objects that lack shards, as far as counted
	underBytes  atomic.Int64
	unavailable atomic.Int64
	left        atomic.Int64 // bytes of shards to be made, as far as counted
	moves       *moves
	scans       atomic.Int64 // times that a slot was gone over
	failures    atomic.Int64
	pending     atomic.Bool // a pass is under way or due, or something waits
	reconciled  atomic.Uint64

	mu    sync.Mutex
	slots map[core.SlotID]*slotHealth
	asked map[askedKey]askedFor
	// unsure says that for some slot it could not be told whether it is due.
	unsure bool
}

// slotHealth is what is known of an owned slot since it was last gone over.
type slotHealth struct {
	signature uint64
	// tenure is the one in which the count began. What happened to the slot while
	// another node owned it, this one was not told.
	tenure uint64
	// wrong counts its objects that are not as they should be; under and
	// underBytes of these those that lack shards, lost those that cannot be
	// read. left are the bytes of shards that can be made now.
	wrong, under, underBytes, lost, left int64
	// inRecords and inRecordsBytes count the objects whose data is in their
	// records: they lack redundancy while the slot has too few members.
	inRecords, inRecordsBytes int64
	// away counts, by disk, the objects that cannot be read for what is on it;
	// nil if there are none.
	away map[core.DiskID]int64
	// sole counts, by node, the objects that lack shards and could not be read
	// without it.
	sole map[core.NodeID]int64
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
		node: n, wake: make(chan struct{}, 1), brake: newBrake(n.clock, n.opt.ReconcileBandwidth), moves: newMoves(n.clock),
		slots: map[core.SlotID]*slotHealth{}, asked: map[askedKey]askedFor{},
		tenure: func(s core.SlotID) uint64 { return n.driver.tenure(s) },
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
	if x.recount == 0 && (lacks || x.wrong > 0) {
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
	if h.unsure {
		wait = min(wait, retryFrom)
	}
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
		case h.forgoes(ctx, m, b, &row, rec):
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

// due lists the owned slots that were not reconciled under the signature, have
// been another node's since, or are to be looked at again.
func (h *reconciler) due(m *core.Map, sig uint64) map[core.SlotID]bool {
	now := h.node.clock.Boot()
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[core.SlotID]bool{}
	h.unsure = false
	for i := range m.Slots {
		s := core.SlotID(i)
		if m.OwnerNode(s) != h.node.id {
			delete(h.slots, s)
			continue
		}
		x := h.slots[s]
		if x == nil || x.signature != sig || x.again != 0 && x.again <= now || x.recount != 0 && x.recount <= now {
			out[s] = true
			continue
		}
		if t := h.tenure(s); t == 0 {
			h.unsure = true
		} else if t != x.tenure {
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
	clean = clean && !h.unsure
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

// sum adds up what the slots lack, and says whether all is as it should be.
func (h *reconciler) sum() bool {
	var t slotHealth
	h.mu.Lock()
	for _, x := range h.slots {
		t.wrong, t.under, t.underBytes = t.wrong+x.wrong, t.under+x.under, t.underBytes+x.underBytes
		t.lost, t.left = t.lost+x.lost, t.left+x.left
	}
	h.mu.Unlock()
	h.under.Store(t.under)
	h.underBytes.Store(t.underBytes)
	h.unavailable.Store(t.lost)
	h.left.Store(t.left)
	return t.wrong == 0
}

// short says whether a row has fewer members in sync than it could have, were
// all nodes and disks well.
func short(m *core.Map, s core.SlotID, members int) bool { return len(m.Slots[s].Insync) < members }

// members is how many disks a row should have in sync, were all well.
func members(m *core.Map) int {
	could := 0
	for i := range m.Disks {
		d := &m.Disks[i]
		n := m.Node(d.Node)
		if (d.State == core.DiskOK || d.State == core.DiskFailed) && (n.State == core.NodeActive || n.State == core.NodeDown) {
			could++
		}
	}
	return min(m.Replicas, could)
}

// inShort counts the objects whose data is in records of owned slots that have
// too few members.
func (h *reconciler) inShort(m *core.Map) (objects, bytes int64) {
	n := members(m)
	h.mu.Lock()
	defer h.mu.Unlock()
	for s, x := range h.slots {
		if int(s) < len(m.Slots) && short(m, s, n) && m.OwnerNode(s) == h.node.id {
			objects, bytes = objects+x.inRecords, bytes+x.inRecordsBytes
		}
	}
	return objects, bytes
}

// filled notes the objects of owned slots that have got all their members back.
func (h *reconciler) filled(was, m *core.Map) {
	before, now := members(was), members(m)
	var objects, bytes int64
	h.mu.Lock()
	for s, x := range h.slots {
		if int(s) < len(was.Slots) && int(s) < len(m.Slots) && short(was, s, before) && !short(m, s, now) && m.OwnerNode(s) == h.node.id {
			objects, bytes = objects+x.inRecords, bytes+x.inRecordsBytes
		}
	}
	h.mu.Unlock()
	if objects > 0 {
		h.moves.heal(objects, bytes)
	}
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
		p.health[s] = &slotHealth{signature: sig, tenure: h.tenure(s), tries: was.tries}
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
			if found.recount = x.recount; found.recount == 0 && x.written && found.wrong > 0 {
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
			if !p.count && x.left > 0 && x.recount == 0 {
				// What could be made was neither made nor did it fail: it was another
				// object, or by another map, when its turn came.
				x.recount = h.recountAt()
			}
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
		if !p.onward(req, rep) {
			return
		}
	}
}

// onward makes the request for the page after a reply's, if there is one. Where
// nothing is left of a page because its slots were lost while it was read, it is
// not known how far the others came.
func (p *reconcilePass) onward(req *scanRequest, rep *scanReply) bool {
	if !rep.more {
		return false
	}
	if len(rep.found) == 0 {
		p.failAll()
		return false
	}
	last := &rep.found[len(rep.found)-1]
	req.scan.AfterKey, req.scan.AfterSub = last.Key, last.Sub
	return true
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
	m := p.m
	if !p.count {
		// What the map of the count asked for may be moot: nothing is moved that
		// the present one would have moved back.
		if m = p.h.node.driver.effect.Load(); m.Bucket(b.ID) == nil {
			return
		}
		b = m.Bucket(b.ID)
	}
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
		n := p.h.needs(m, b, f.Key, rec)
		if n.lacks && b.Name.Remote() && f.Space == core.SpaceObject && p.h.lostForGood(m, rec) && p.h.forget(ctx, b, &f.Row) == nil {
			continue
		}
		if p.count {
			p.note(f.Slot, rec, n)
			continue
		}
		if !n.able {
			continue
		}
		sem <- struct{}{}
		wg.Go(func() {
			defer func() { <-sem }()
			p.one(ctx, m, b, f, rec, n)
		})
	}
	wg.Wait()
}

// note counts an object.
func (p *reconcilePass) note(s core.SlotID, rec *core.Record, n needed) {
	x := p.health[s]
	if x == nil {
		return
	}
	if len(rec.Extents) == 0 {
		x.inRecords++
		x.inRecordsBytes += rec.StoredBytes()
	}
	if !n.lacks && !n.moves {
		return
	}
	x.wrong++
	x.left += n.bytes
	if n.lacks {
		x.under++
		x.underBytes += rec.Size
		if away := unreadable(p.m, rec); away != nil {
			x.lost++
			if x.away == nil {
				x.away = map[core.DiskID]int64{}
			}
			for _, d := range away {
				x.away[d]++
			}
		} else {
			for _, node := range keepers(p.m, rec) {
				if x.sole == nil {
					x.sole = map[core.NodeID]int64{}
				}
				x.sole[node]++
			}
		}
	}
	if n.able {
		p.work[s] = true
	}
}

func (p *reconcilePass) one(ctx context.Context, m *core.Map, b *core.Bucket, f *core.Found, rec *core.Record, n needed) {
	var err error
	if did, _ := p.h.brake.step(ctx, func() {
		if err = p.still(ctx, f); err == nil {
			err = p.h.object(ctx, m, b, &f.Row, rec, false)
		}
	}); !did {
		return
	}
	switch {
	case err == nil || moot(err):
		p.h.repaired(f.Slot, rec, n)
	case errors.Is(err, errWaits) || ctx.Err() != nil:
	case errors.Is(err, errMoved):
		p.mu.Lock()
		p.failed[f.Slot] = true
		p.mu.Unlock()
	case p.h.forgoes(ctx, m, b, &f.Row, rec):
		p.h.repaired(f.Slot, rec, n)
	default:
		p.h.failures.Add(1)
		p.h.node.log.Warn("object could not be repaired yet", "bucket", b.Name.String(), "key", f.Key, "err", err)
		p.mu.Lock()
		p.failed[f.Slot] = true
		p.mu.Unlock()
	}
}

// still says whether an object is as it was when its page was read, and this
// node's to repair. Where its slot has moved the new owner goes over the same
// objects in the same order: what both move is moved twice.
func (p *reconcilePass) still(ctx context.Context, f *core.Found) error {
	n := p.h.node
	g, ok := n.driver.rights.Serving(n.clock.Boot(), f.Slot)
	if !ok || g.Tenure() != p.health[f.Slot].tenure {
		return errMoved
	}
	row, err := n.rowAt(ctx, f.Slot, f.RowKey, &g, nil)
	if err == nil && row.Version != f.Version {
		err = fmt.Errorf("%q was changed meanwhile: %w", f.Key, core.ErrConflict)
	}
	return err
}

// moot says that an object was replaced or removed while it was repaired.
func moot(err error) bool {
	return (errors.Is(err, core.ErrNotFound) || errors.Is(err, core.ErrConflict)) && !isPlaceAgain(err)
}

// repaired counts an object off.
func (h *reconciler) repaired(s core.SlotID, rec *core.Record, n needed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.slots[s]
	if x == nil || x.wrong == 0 {
		return
	}
	x.wrong--
	gone := min(n.bytes, x.left)
	x.left -= gone
	h.left.Add(-gone)
	if !n.lacks || x.under == 0 {
		return
	}
	for _, node := range keepers(h.node.driver.effect.Load(), rec) {
		if x.sole[node] > 1 {
			x.sole[node]--
		} else {
			delete(x.sole, node)
		}
	}
	gone = min(rec.Size, x.underBytes)
	x.under--
	x.underBytes -= gone
	h.under.Add(-1)
	h.underBytes.Add(-gone)
	h.moves.heal(1, rec.Size)
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

// needed is what is to be done about an object.
type needed struct {
	// lacks says that shards of it are gone or cannot be reached, moves that
	// some are to be elsewhere; able that something can be done now.
	lacks, moves, able bool
	bytes              int64 // of shards that can be made now
}

// needs says what is to be done about an object.
func (h *reconciler) needs(m *core.Map, b *core.Bucket, key string, rec *core.Record) (n needed) {
	for i := range rec.Extents {
		e := &rec.Extents[i]
		if e.Scheme != b.Policy.Scheme {
			n.moves, n.able = true, true
			n.lacks = n.lacks || e.Scheme.M < b.Policy.Scheme.M
			n.bytes += int64(b.Policy.Scheme.Width()) * shardBytes(e.Size, b.Policy.Scheme)
			continue
		}
		for j, d := range h.targets(m, b, key, e) {
			p := e.Places[j]
			moves := d != 0 && d != p.Disk
			n.lacks = n.lacks || p.Disk == 0 || !reachable(m, p.Disk)
			n.moves = n.moves || moves
			if moves && reachable(m, d) {
				n.able = true
				n.bytes += shardBytes(e.Size, e.Scheme)
			}
		}
	}
	return n
}

// shardBytes is about how much of a number of bytes is in one shard.
func shardBytes(size int64, s core.Scheme) int64 {
	k := int64(s.Data())
	return (size + k - 1) / k
}

func (h *reconciler) targets(m *core.Map, b *core.Bucket, key string, e *core.Extent) []core.DiskID {
	return h.node.placer(m).Reassign(b.ID, key, b.Policy, current(e), h.node.clock.Now(), h.node.opt.Grace)
}

// unreadable lists the disks out of reach that an object needs of which too few
// shards are within reach; nil for others. It is empty if they are on none.
func unreadable(m *core.Map, rec *core.Record) (away []core.DiskID) {
	for i := range rec.Extents {
		have := 0
		var gone []core.DiskID
		for _, p := range rec.Extents[i].Places {
			switch {
			case p.Disk == 0:
			case reachable(m, p.Disk):
				have++
			case !slices.Contains(away, p.Disk):
				gone = append(gone, p.Disk)
			}
		}
		if have < rec.Extents[i].Scheme.MinRead() {
			away = append(away, gone...)
			if away == nil {
				away = []core.DiskID{}
			}
		}
	}
	return away
}

// keepers lists the nodes of which each could not be taken away without making
// an object that can be read now one that cannot.
func keepers(m *core.Map, rec *core.Record) (nodes []core.NodeID) {
	for i := range rec.Extents {
		have, on := 0, map[core.NodeID]int{}
		for _, p := range rec.Extents[i].Places {
			if p.Disk != 0 && reachable(m, p.Disk) {
				have++
				on[m.NodeOf(p.Disk)]++
			}
		}
		for node, n := range on {
			if have-n < rec.Extents[i].Scheme.MinRead() && !slices.Contains(nodes, node) {
				nodes = append(nodes, node)
			}
		}
	}
	return nodes
}

// soleOn counts, by node, the objects that lack shards and could not be read
// without it.
func (h *reconciler) soleOn() map[core.NodeID]int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[core.NodeID]int64{}
	for _, x := range h.slots {
		for n, k := range x.sole {
			out[n] += k
		}
	}
	return out
}

// awayFrom counts, by disk, the objects that cannot be read for what is on it.
func (h *reconciler) awayFrom() map[core.DiskID]int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[core.DiskID]int64{}
	for _, x := range h.slots {
		for d, n := range x.away {
			out[d] += n
		}
	}
	return out
}

// errWaits says that an object cannot be completed before something else
// happens: a node within its grace comes back, or another disk joins.
var errWaits = errors.New("waits for a node or disk")

// leftOver adds up what is left to be done of an object: to be tried again weighs
// more than to wait.
func leftOver(a, b error) error {
	if a == nil || b != nil && errors.Is(a, errWaits) {
		return b
	}
	return a
}

// object brings the shards of one object or part to where they should be. With
// deep every shard is read and verified first. Where only some of them could be
// made their places are committed, and the error says what is left.
func (h *reconciler) object(ctx context.Context, m *core.Map, b *core.Bucket, row *core.Row, rec *core.Record, deep bool) error {
	next := *rec
	next.Extents = append([]core.Extent(nil), rec.Extents...)
	fresh := &core.Record{}
	changed := false
	var left error
	var made []arrival
	for i := range next.Extents {
		e, did, rest, err := h.extent(ctx, m, b, row.Key, &rec.Extents[i], deep, &made)
		if err != nil {
			h.node.garbage.discardNew(fresh, rec)
			return err
		}
		next.Extents[i] = e
		fresh.Extents = append(fresh.Extents, e)
		changed, left = changed || did, leftOver(left, rest)
	}
	if changed {
		next.Scheme = b.Policy.Scheme
		if err := h.commit(ctx, b, row, rec, &next); err != nil {
			if surelyRefused(err) {
				h.node.garbage.discardNew(fresh, rec)
			}
			return err
		}
		h.moves.placed(m.Epoch, made)
	}
	return left
}

// commit replaces the record if nobody has changed the object meanwhile.
func (h *reconciler) commit(ctx context.Context, b *core.Bucket, row *core.Row, was, rec *core.Record) error {
	mut := h.node.mutation(b, row.Key, core.RequestID{})
	mut.need.Domains, mut.heals, mut.keeps = 1, true, was.Extents
	mut.checks = []check{{kind: checkVersion, row: row.RowKey, version: row.Version}}
	mut.entry.Rows = []core.Row{{RowKey: row.RowKey, Value: core.AppendRecord(nil, rec)}}
	_, err := h.node.write(ctx, mut)
	return err
}

// extent makes an extent's missing and misplaced shards, which it adds to made.
// left says why some are not made: errWaits, or that they are to be tried again.
func (h *reconciler) extent(ctx context.Context, m *core.Map, b *core.Bucket, key string, e *core.Extent, deep bool, made *[]arrival) (next core.Extent, changed bool, left, err error) {
	if e.Scheme != b.Policy.Scheme {
		next, err = h.encodeAgain(ctx, b, key, e, made)
		return next, err == nil, nil, err
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
	var wrote []*atomic.Int64
	for i, p := range e.Places {
		if bad[i] {
			spec.Src[i] = nil
		}
		switch {
		case targets[i] == 0:
			if p.Disk == 0 || bad[i] || !reachable(m, p.Disk) {
				left = errWaits
			}
		case targets[i] != p.Disk || bad[i]:
			t := h.node.target(m, targets[i])
			if t.Store == nil || !reachable(m, targets[i]) {
				left = errWaits
				continue
			}
			spec.Shards = append(spec.Shards, i)
			n := new(atomic.Int64)
			wrote = append(wrote, n)
			spec.Dst = append(spec.Dst, h.brake.target(t, func(k int64) { n.Add(k); h.moves.wrote(k) }))
		case !reachable(m, p.Disk):
			left = errWaits
		}
	}
	if len(spec.Shards) == 0 {
		return *e, false, left, nil
	}
	next, err = h.node.coder(e.Scheme).Repair(ctx, spec)
	if err != nil {
		return next, false, left, fmt.Errorf("data of %q: %w", key, err)
	}
	unmade := 0
	for k, i := range spec.Shards {
		was, now := e.Places[i], next.Places[i]
		if now == was {
			unmade++
			continue
		}
		a := arrival{to: now.Disk, bytes: wrote[k].Load()}
		if !bad[i] && reachable(m, was.Disk) {
			a.from = was.Disk
		}
		*made = append(*made, a)
	}
	if unmade > 0 {
		left = fmt.Errorf("data of %q: %d of %d shards could not be made: %w", key, unmade, len(spec.Shards), core.ErrUnavailable)
	}
	return next, true, left, nil
}

// encodeAgain writes an extent anew under the bucket's present scheme.
func (h *reconciler) encodeAgain(ctx context.Context, b *core.Bucket, key string, e *core.Extent, made *[]arrival) (core.Extent, error) {
	body, err := h.node.openExtents(ctx, b.ID, key, []core.Extent{*e}, 0, e.Size, false)
	if err != nil {
		return *e, err
	}
	defer func() { _ = body.Close() }()
	next, err := h.node.writeExtent(ctx, b, key, h.brake.reader(ctx, body), &core.PutOptions{Size: e.Size})
	if err == nil && next.Size != e.Size {
		err = fmt.Errorf("data of %q: read %d of %d bytes: %w", key, next.Size, e.Size, core.ErrCorrupt)
	}
	if err != nil {
		return next, err
	}
	for _, p := range next.Places {
		if p.Disk != 0 {
			n := shardBytes(next.Size, next.Scheme)
			h.moves.wrote(n)
			*made = append(*made, arrival{to: p.Disk, bytes: n})
		}
	}
	return next, nil
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
