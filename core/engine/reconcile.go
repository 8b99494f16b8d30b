package engine

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
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
type reconciler struct {
	node *Node
	wake chan struct{}

	under       atomic.Int64 // objects that lack shards, as far as counted
	underBytes  atomic.Int64
	unavailable atomic.Int64
	moved       atomic.Int64 // bytes of shards made
	failures    atomic.Int64
	pending     atomic.Bool // a pass is under way or due
	reconciled  atomic.Uint64

	mu    sync.Mutex
	done  map[core.SlotID]slotDone
	asked map[askedKey]bool
}

// slotDone is what a slot was last reconciled to.
type slotDone struct {
	signature uint64
	term      core.Epoch
}

// askedKey is an object that somebody found damaged or incomplete.
type askedKey struct {
	bucket core.BucketID
	key    string
}

func newReconciler(n *Node) *reconciler {
	return &reconciler{node: n, wake: make(chan struct{}, 1), done: map[core.SlotID]slotDone{}, asked: map[askedKey]bool{}}
}

// healLater has an object looked at soon.
func (n *Node) healLater(b core.BucketID, key string) {
	const limit = 100_000 // beyond it the next pass finds them
	n.heal.mu.Lock()
	if len(n.heal.asked) < limit {
		n.heal.asked[askedKey{b, key}] = true
	}
	n.heal.mu.Unlock()
	n.heal.poke()
}

func (h *reconciler) poke() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// run reconciles whenever the map, or time, asks for it.
func (h *reconciler) run(ctx context.Context) {
	const lookAround = 2 * time.Second
	for {
		_, m, changed := h.node.driver.maps()
		if m != nil {
			h.heal(ctx, m)
			h.pass(ctx, m)
		}
		timer := time.NewTimer(lookAround)
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

// heal looks at the objects that somebody asked for, shard by shard.
func (h *reconciler) heal(ctx context.Context, m *core.Map) {
	h.mu.Lock()
	asked := h.asked
	h.asked = map[askedKey]bool{}
	h.mu.Unlock()
	for k := range asked {
		b := m.Bucket(k.bucket)
		if b == nil || ctx.Err() != nil {
			continue
		}
		rec, row, err := h.node.record(ctx, k.bucket, k.key)
		if err == nil {
			err = h.object(ctx, m, b, &row, rec, true)
		}
		if err != nil && !errors.Is(err, core.ErrNotFound) {
			h.failures.Add(1)
			h.node.log.Warn("object could not be repaired yet", "bucket", b.Name.String(), "key", k.key, "err", err)
			h.node.clock.Wait(ctx, 100*time.Millisecond) //nolint:errcheck // ends the wait only
			h.node.healLater(k.bucket, k.key)
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

// due lists the owned slots that were not reconciled under the signature.
func (h *reconciler) due(m *core.Map, sig uint64) map[core.SlotID]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[core.SlotID]bool{}
	for i := range m.Slots {
		s := core.SlotID(i)
		if m.OwnerNode(s) != h.node.id {
			delete(h.done, s)
			continue
		}
		if d, ok := h.done[s]; !ok || d.signature != sig {
			out[s] = true
		}
	}
	return out
}

// pass reconciles all slots that are due, bucket by bucket: first it counts,
// then it repairs.
func (h *reconciler) pass(ctx context.Context, m *core.Map) {
	sig := h.signature(m)
	due := h.due(m, sig)
	if len(due) == 0 {
		if h.pending.Swap(false) {
			h.node.log.Info("all objects are where they should be", "epoch", m.Epoch)
		}
		h.under.Store(0)
		h.underBytes.Store(0)
		h.unavailable.Store(0)
		h.reconciled.Store(uint64(m.Epoch))
		return
	}
	h.pending.Store(true)
	p := &reconcilePass{h: h, m: m, slots: due, failed: map[core.SlotID]bool{}, count: true}
	p.all(ctx)
	h.under.Store(p.under)
	h.underBytes.Store(p.underBytes)
	h.unavailable.Store(p.lost)
	if ctx.Err() != nil {
		return
	}
	p.count = false
	p.all(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range due {
		if !p.failed[s] && ctx.Err() == nil {
			h.done[s] = slotDone{signature: sig, term: m.Slots[s].Term}
		}
	}
}

// reconcilePass goes once over the objects of some slots.
type reconcilePass struct {
	h     *reconciler
	m     *core.Map
	slots map[core.SlotID]bool
	count bool

	mu                      sync.Mutex
	failed                  map[core.SlotID]bool
	under, underBytes, lost int64
}

// workers is how many objects a node repairs at a time.
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
		rep, err := p.h.node.scanOwned(ctx, req)
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
			p.failed[f.Slot] = true
			continue
		}
		if !p.h.needs(p.m, b, f.Key, rec) {
			continue
		}
		if p.count {
			p.under++
			p.underBytes += rec.Size
			if p.h.unreadable(p.m, rec) {
				p.lost++
			}
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

func (p *reconcilePass) one(ctx context.Context, b *core.Bucket, f *core.Found, rec *core.Record) {
	err := p.h.object(ctx, p.m, b, &f.Row, rec, false)
	if err == nil || errors.Is(err, core.ErrNotFound) || errors.Is(err, core.ErrConflict) {
		p.h.under.Add(-1)
		p.h.underBytes.Add(-rec.Size)
		return
	}
	if ctx.Err() == nil && !errors.Is(err, errWaits) {
		p.h.failures.Add(1)
		p.h.node.log.Warn("object could not be repaired yet", "bucket", b.Name.String(), "key", f.Key, "err", err)
	}
	p.mu.Lock()
	p.failed[f.Slot] = true
	p.mu.Unlock()
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

// needs says whether an object's shards are not all where they should be.
func (h *reconciler) needs(m *core.Map, b *core.Bucket, key string, rec *core.Record) bool {
	for i := range rec.Extents {
		e := &rec.Extents[i]
		if e.Scheme != b.Policy.Scheme {
			return true
		}
		for _, p := range e.Places {
			if p.Disk == 0 || !reachable(m, p.Disk) {
				return true
			}
		}
		for j, d := range h.targets(m, b, key, e) {
			if d != 0 && d != e.Places[j].Disk {
				return true
			}
		}
	}
	return false
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
	mut.need.Domains = 1
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
		ReadSpec: core.ReadSpec{Extent: *e, Src: h.node.sources(m, e)},
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
			spec.Dst = append(spec.Dst, t)
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
	body, err := h.node.openExtents(ctx, b.ID, key, []core.Extent{*e}, 0, e.Size)
	if err != nil {
		return *e, err
	}
	defer func() { _ = body.Close() }()
	next, err := h.node.writeExtent(ctx, b, key, body, &core.PutOptions{Size: e.Size})
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
