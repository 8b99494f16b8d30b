package engine

import (
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/slot"
)

// A listing asks every node for its share of a page: the keys, in order, of the
// slots that it owned, with its lease, from before it read until after. The
// page is complete once all slots were seen by somebody.

// scanRequest asks a node for its share.
type scanRequest struct {
	scan  core.Scan
	limit int
	// only, if not nil, lists the slots that are still missing.
	only []core.SlotID
	// brief asks for records without data, for listings.
	brief bool
}

// maxScan bounds the rows of a share.
const maxScan = 100_000

// scanReply is a node's share. Where it stops at the limit, everything up to
// and including its last row is in it.
type scanReply struct {
	held  []core.SlotID
	found []core.Found
	more  bool
}

func appendScan(b []byte, r *scanRequest) []byte {
	s := &r.scan
	b = binary.AppendUvarint(b, uint64(s.Bucket))
	b = append(b, byte(s.Space), boolByte(s.KeysOnly), boolByte(r.brief))
	for _, t := range []string{s.Prefix, s.AfterKey, s.AfterSub, s.Before} {
		b = appendText(b, t)
	}
	b = binary.AppendUvarint(b, uint64(r.limit))
	return appendSlots(b, r.only)
}

func decodeScan(b []byte) (*scanRequest, error) {
	d := reader{b: b}
	r := &scanRequest{}
	r.scan.Bucket = core.BucketID(d.uvarint())
	r.scan.Space = core.Space(d.byte())
	r.scan.KeysOnly, r.brief = d.byte() != 0, d.byte() != 0
	r.scan.Prefix, r.scan.AfterKey, r.scan.AfterSub, r.scan.Before = d.text(), d.text(), d.text(), d.text()
	r.limit = int(min(d.uvarint(), maxScan))
	r.only = d.slots()
	return r, d.err
}

// appendSlots writes a list of slots as differences.
func appendSlots(b []byte, list []core.SlotID) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	last := core.SlotID(0)
	for _, s := range list {
		b = binary.AppendUvarint(b, uint64(s-last))
		last = s
	}
	return b
}

// slots reads a list of slots, which ascends.
func (d *reader) slots() []core.SlotID {
	out := make([]core.SlotID, d.count())
	last := uint64(0)
	for i := range out {
		step := d.uvarint()
		if i > 0 && step == 0 || step > core.MaxSlots || last+step >= core.MaxSlots {
			d.fail()
			return nil
		}
		last += step
		out[i] = core.SlotID(last)
	}
	return out
}

// serveScan answers a scanRequest with a scanReply.
func (n *Node) serveScan(ctx context.Context, req []byte) ([]byte, error) {
	r, err := decodeScan(req)
	if err != nil {
		return nil, err
	}
	rep, err := n.scanOwned(ctx, r)
	if err != nil {
		return nil, err
	}
	return appendScanReply(nil, rep), nil
}

func appendScanReply(b []byte, r *scanReply) []byte {
	b = appendSlots(b, r.held)
	b = append(b, boolByte(r.more))
	b = binary.AppendUvarint(b, uint64(len(r.found)))
	for i := range r.found {
		b = appendFound(b, &r.found[i])
	}
	return b
}

func decodeScanReply(b []byte) (*scanReply, error) {
	d := reader{b: b}
	r := &scanReply{held: d.slots(), more: d.byte() != 0}
	r.found = make([]core.Found, d.count())
	for i := range r.found {
		r.found[i] = d.found()
	}
	return r, d.err
}

// readings are the rights to read of one scan, by slot. They are taken when the
// first disk has opened its view: a version that a commit drops later is in the
// view. Only slots count that were held before the view was opened: a disk that
// was joining then may lack what it has now.
type readings struct {
	node  *Node
	only  slotSet // nil is all
	once  sync.Once
	began slotSet
	// held has a right for each slot that is read, a zero one for others.
	held []slot.Reading
}

// owned calls f with the right to read each slot that the scan is for.
func (r *readings) owned(f func(now core.Instant, slots int, g slot.Reading)) {
	d := r.node.driver
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.node.Map()
	if m == nil {
		return
	}
	now := d.clock.Boot()
	for i := range m.Slots {
		s := core.SlotID(i)
		if r.only != nil && !r.only.has(s) || m.OwnerNode(s) != d.self {
			continue
		}
		if g, err := d.node.Serving(now, s); err == nil {
			f(now, len(m.Slots), g)
		}
	}
}

// begin notes what is held before a view is opened.
func (r *readings) begin() {
	r.owned(func(_ core.Instant, slots int, g slot.Reading) {
		if r.began == nil {
			r.began = newSlotSet(slots)
		}
		r.began.add(g.Slot)
	})
}

func (r *readings) take() {
	r.owned(func(_ core.Instant, slots int, g slot.Reading) {
		if r.held == nil {
			r.held = make([]slot.Reading, slots)
		}
		if r.began.has(g.Slot) {
			r.held[g.Slot] = g
		}
	})
}

// kept returns the slots that are still held.
func (r *readings) kept() []core.SlotID {
	r.once.Do(r.take)
	d := r.node.driver
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.clock.Boot()
	var out []core.SlotID
	for i := range r.held {
		if g := &r.held[i]; g.Disk != 0 && d.node.Check(now, *g) == nil {
			out = append(out, g.Slot)
		}
	}
	return out
}

// scanOwned merges what the local disks have for the slots that they own.
func (n *Node) scanOwned(ctx context.Context, r *scanRequest) (*scanReply, error) {
	rep := &scanReply{}
	var streams scanHeap
	defer func() { streams.stop() }()
	var rights []*readings
	for id, disk := range n.localDisks() {
		own := &readings{node: n}
		if len(r.only) > 0 {
			own.only = setOfSlots(r.only)
		}
		if len(rights) == 0 {
			own.begin()
		} else {
			own.began = rights[0].began
		}
		rights = append(rights, own)
		s := r.scan
		s.Visible = func(id core.DiskID) func(core.SlotID) (core.Version, bool) {
			return func(s core.SlotID) (core.Version, bool) {
				own.once.Do(own.take)
				if int(s) >= len(own.held) || own.held[s].Disk != id {
					return core.Version{}, false
				}
				return own.held[s].At, true
			}
		}(id)
		if err := streams.open(disk.Scan(ctx, s)); err != nil {
			return nil, err
		}
	}
	heap.Init(&streams)
	for streams.Len() > 0 {
		if len(rep.found) == r.limit {
			rep.more = true
			break
		}
		top := streams[0]
		f := top.head
		f.Value = briefValue(f, r)
		rep.found = append(rep.found, f)
		if err := streams.advance(); err != nil {
			return nil, err
		}
	}
	if n.driver.confirms != nil {
		if err := n.driver.confirm(ctx); err != nil {
			return nil, err
		}
	}
	rep.held = kept(rights)
	rep.found = onlyHeld(rep.found, rep.held)
	return rep, nil
}

// briefValue copies a row's value, which is valid only until the next step.
func briefValue(f core.Found, r *scanRequest) []byte {
	if r.scan.KeysOnly {
		return nil
	}
	if !r.brief {
		return append([]byte(nil), f.Value...)
	}
	rec, err := core.DecodeRecord(f.Value)
	if err != nil {
		return append([]byte(nil), f.Value...)
	}
	b := &core.Record{
		Size: rec.Size, ETag: rec.ETag, Modified: rec.Modified, Checksum: core.Checksum{Algorithm: rec.Checksum.Algorithm, Composite: rec.Checksum.Composite},
		Scheme: rec.Scheme, Remote: rec.Remote,
	}
	if rec.Remote != nil && rec.Remote.Partial {
		b.Extents = rec.Extents // which say how much is present
	}
	return core.AppendRecord(nil, b)
}

// kept intersects what the disks' readings still hold: each holds the slots of
// all disks, so a slot counts if every disk's view was taken under it.
func kept(rights []*readings) []core.SlotID {
	var out []core.SlotID
	for i, r := range rights {
		held := r.kept()
		if i == 0 {
			out = held
			continue
		}
		also := setOfSlots(held)
		out = slices.DeleteFunc(out, func(s core.SlotID) bool { return !also.has(s) })
	}
	return out
}

func onlyHeld(found []core.Found, held []core.SlotID) []core.Found {
	ok := setOfSlots(held)
	return slices.DeleteFunc(found, func(f core.Found) bool { return !ok.has(f.Slot) })
}

// scanStream is a disk's or a node's part of a merge.
type scanStream struct {
	head core.Found
	next func() (core.Found, error, bool)
	stop func()
}

type scanHeap []*scanStream

func (h scanHeap) Len() int           { return len(h) }
func (h scanHeap) Less(i, j int) bool { return before(&h[i].head, &h[j].head) }
func (h scanHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push is part of heap.Interface.
func (h *scanHeap) Push(x any) { *h = append(*h, x.(*scanStream)) }

// Pop is part of heap.Interface.
func (h *scanHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

func before(a, b *core.Found) bool {
	if a.Key != b.Key {
		return a.Key < b.Key
	}
	return a.Sub < b.Sub
}

// open adds a stream unless it is empty.
func (h *scanHeap) open(seq iter.Seq2[core.Found, error]) error {
	next, stop := iter.Pull2(seq)
	s := &scanStream{next: next, stop: stop}
	f, err, ok := next()
	if err != nil || !ok {
		stop()
		return err
	}
	s.head = f
	*h = append(*h, s)
	return nil
}

// advance steps the first stream.
func (h *scanHeap) advance() error {
	top := (*h)[0]
	f, err, ok := top.next()
	if err != nil {
		return err
	}
	if !ok {
		top.stop()
		heap.Pop(h)
		return nil
	}
	top.head = f
	heap.Fix(h, 0)
	return nil
}

func (h *scanHeap) stop() {
	for _, s := range *h {
		s.stop()
	}
}

// page returns rows after a point, of all slots and in order, or an error. They
// are about as many as wanted: some more or fewer, as the shares of the nodes
// happen to end. more says that there may be further ones, after the last.
func (n *Node) page(ctx context.Context, scan core.Scan, want int, brief bool) (found []core.Found, more bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not every slot had an owner that answered for %v: %w", patience, core.ErrUnavailable))
	defer cancel()
	_, m, _ := n.driver.maps()
	if m == nil {
		return nil, false, fmt.Errorf("this node knows no map in effect yet: %w", core.ErrUnavailable)
	}
	p := &pageMerge{missing: newSlotSet(len(m.Slots)), left: len(m.Slots)}
	for s := range m.Slots {
		p.missing.add(core.SlotID(s))
	}
	req := &scanRequest{scan: scan, brief: brief}
	for {
		_, m, changed := n.driver.maps()
		p.round(ctx, n, m, req, want)
		if p.left == 0 {
			return p.result()
		}
		if p.err != nil && !retryable(p.err) {
			return nil, false, p.err
		}
		timer := time.NewTimer(50 * time.Millisecond)
		select {
		case <-changed:
			timer.Stop()
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, false, fmt.Errorf("listing: %d of %d slots have no owner that answers: %w", p.left, len(m.Slots), errors.Join(p.err, context.Cause(ctx)))
		}
	}
}

// pageMerge gathers the nodes' shares of a page.
type pageMerge struct {
	mu      sync.Mutex
	missing slotSet
	left    int // slots that are missing
	shares  [][]core.Found
	// cut says that some share stopped at its limit; everything up to the
	// least such end is complete.
	cut bool
	end core.Found
	err error
}

// round asks the owners of the missing slots, each for its own, and for as many
// rows as make a page together if they are spread like the slots.
func (p *pageMerge) round(ctx context.Context, n *Node, m *core.Map, req *scanRequest, want int) {
	ask := map[core.NodeID][]core.SlotID{}
	for s := range m.Slots {
		if id := core.SlotID(s); p.missing.has(id) {
			if owner := m.OwnerNode(id); owner != "" {
				ask[owner] = append(ask[owner], id)
			}
		}
	}
	p.err = nil
	var wg sync.WaitGroup
	for node, slots := range ask {
		wg.Go(func() {
			r := *req
			r.limit = want
			if len(slots) < len(m.Slots) {
				r.only = slots
				r.limit = min(want, want*len(slots)/len(m.Slots)*9/8+16)
			}
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			rep, err := n.scanNode(ctx, node, &r)
			p.mu.Lock()
			defer p.mu.Unlock()
			if err != nil {
				p.err = err
				return
			}
			p.add(rep)
		})
	}
	wg.Wait()
}

func (n *Node) scanNode(ctx context.Context, node core.NodeID, r *scanRequest) (*scanReply, error) {
	if node == n.id {
		return n.scanOwned(ctx, r)
	}
	resp, err := n.net.Call(ctx, node, methodScan, appendScan(nil, r))
	if err != nil {
		return nil, err
	}
	return decodeScanReply(resp)
}

// add takes a share. Only rows of slots that were missing count.
func (p *pageMerge) add(rep *scanReply) {
	rep.held = slices.DeleteFunc(rep.held, func(s core.SlotID) bool { return !p.missing.has(s) })
	took := setOfSlots(rep.held)
	rep.found = slices.DeleteFunc(rep.found, func(f core.Found) bool { return !took.has(f.Slot) })
	if rep.more {
		if len(rep.found) == 0 {
			return // all rows up to the limit were of slots that were lost
		}
		if last := &rep.found[len(rep.found)-1]; !p.cut || before(last, &p.end) {
			p.cut, p.end = true, *last
		}
	}
	for _, s := range rep.held {
		p.missing.remove(s)
		p.left--
	}
	p.shares = append(p.shares, rep.found)
}

// result merges the shares and cuts them where the first of them ends.
func (p *pageMerge) result() ([]core.Found, bool, error) {
	total := 0
	for i, share := range p.shares {
		if p.cut {
			end := sort.Search(len(share), func(k int) bool { return before(&p.end, &share[k]) })
			share = share[:end]
			p.shares[i] = share
		}
		total += len(share)
	}
	out := make([]core.Found, 0, total)
	for len(out) < total {
		first := -1
		for i, share := range p.shares {
			if len(share) > 0 && (first < 0 || before(&share[0], &p.shares[first][0])) {
				first = i
			}
		}
		out = append(out, p.shares[first][0])
		p.shares[first] = p.shares[first][1:]
	}
	return out, p.cut, nil
}
