package engine

import (
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
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
	r.limit = int(d.uvarint())
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

func (d *reader) slots() []core.SlotID {
	out := make([]core.SlotID, d.count())
	last := core.SlotID(0)
	for i := range out {
		last += core.SlotID(d.uvarint())
		out[i] = last
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

// readings are the rights to read of one scan. They are taken when the first
// disk has opened its view: a version that a commit drops later is in the view.
// Only slots count that were held before the view was opened: a disk that was
// joining then may lack what it has now.
type readings struct {
	node  *Node
	only  map[core.SlotID]bool
	once  sync.Once
	began map[core.SlotID]slot.Reading
	held  map[core.SlotID]slot.Reading
}

func (r *readings) begin() {
	r.began = r.serving(func(core.Instant, core.SlotID) bool { return true })
}

func (r *readings) take() {
	d := r.node.driver
	r.held = r.serving(func(now core.Instant, s core.SlotID) bool {
		g, ok := r.began[s]
		return ok && d.node.Check(now, g) == nil
	})
}

// serving returns the rights to read of the slots that the scan is for.
func (r *readings) serving(also func(core.Instant, core.SlotID) bool) map[core.SlotID]slot.Reading {
	out := map[core.SlotID]slot.Reading{}
	d := r.node.driver
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.node.Map()
	if m == nil {
		return out
	}
	now := d.clock.Boot()
	for i := range m.Slots {
		s := core.SlotID(i)
		if m.OwnerNode(s) != d.self || r.only != nil && !r.only[s] {
			continue
		}
		if g, err := d.node.Serving(now, s); err == nil && also(now, s) {
			out[s] = g
		}
	}
	return out
}

// kept returns the slots that are still held.
func (r *readings) kept() []core.SlotID {
	r.once.Do(r.take)
	d := r.node.driver
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.clock.Boot()
	var out []core.SlotID
	for i := range core.SlotID(len(d.node.Map().Slots)) {
		if g, ok := r.held[i]; ok && d.node.Check(now, g) == nil {
			out = append(out, i)
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
			own.only = map[core.SlotID]bool{}
			for _, s := range r.only {
				own.only[s] = true
			}
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
				g, ok := own.held[s]
				return g.At, ok && g.Disk == id
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
	return core.AppendRecord(nil, &core.Record{
		Size: rec.Size, ETag: rec.ETag, Modified: rec.Modified, Checksum: core.Checksum{Algorithm: rec.Checksum.Algorithm, Composite: rec.Checksum.Composite},
		Scheme: rec.Scheme,
	})
}

// kept intersects what the disks' readings still hold: each holds the slots of
// all disks, so a slot counts if every disk's view was taken under it.
func kept(rights []*readings) []core.SlotID {
	count := map[core.SlotID]int{}
	var last []core.SlotID
	for _, r := range rights {
		last = r.kept()
		for _, s := range last {
			count[s]++
		}
	}
	out := last[:0]
	for _, s := range last {
		if count[s] == len(rights) {
			out = append(out, s)
		}
	}
	return out
}

func onlyHeld(found []core.Found, held []core.SlotID) []core.Found {
	ok := make(map[core.SlotID]bool, len(held))
	for _, s := range held {
		ok[s] = true
	}
	out := found[:0]
	for i := range found {
		if ok[found[i].Slot] {
			out = append(out, found[i])
		}
	}
	return out
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

// page returns the first limit rows after a point, from all slots, or an error.
// more says that there may be further ones.
func (n *Node) page(ctx context.Context, scan core.Scan, limit int, brief bool) (found []core.Found, more bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not every slot had an owner that answered for %v: %w", patience, core.ErrUnavailable))
	defer cancel()
	_, m, _ := n.driver.maps()
	if m == nil {
		return nil, false, fmt.Errorf("this node knows no map in effect yet: %w", core.ErrUnavailable)
	}
	p := &pageMerge{missing: make(map[core.SlotID]bool, len(m.Slots))}
	for s := range m.Slots {
		p.missing[core.SlotID(s)] = true
	}
	req := &scanRequest{scan: scan, limit: limit, brief: brief}
	for {
		_, m, changed := n.driver.maps()
		p.round(ctx, n, m, req)
		if len(p.missing) == 0 {
			return p.result(limit)
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
			return nil, false, fmt.Errorf("listing: %d of %d slots have no owner that answers: %w", len(p.missing), len(m.Slots), errors.Join(p.err, context.Cause(ctx)))
		}
	}
}

// pageMerge gathers the nodes' shares of a page.
type pageMerge struct {
	mu      sync.Mutex
	missing map[core.SlotID]bool
	found   []core.Found
	// cut says that some share stopped at its limit; everything up to the
	// least such end is complete.
	cut    bool
	endKey string
	endSub string
	err    error
}

// round asks the owners of the missing slots, each for its own.
func (p *pageMerge) round(ctx context.Context, n *Node, m *core.Map, req *scanRequest) {
	ask := map[core.NodeID][]core.SlotID{}
	for s := range m.Slots {
		if id := core.SlotID(s); p.missing[id] {
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
			if len(slots) < len(m.Slots) {
				r.only = slots
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
	took := make(map[core.SlotID]bool, len(rep.held))
	for _, s := range rep.held {
		if p.missing[s] {
			took[s] = true
			delete(p.missing, s)
		}
	}
	if rep.more && len(rep.held) > 0 {
		if len(rep.found) == 0 {
			// All rows up to the limit were of slots that were lost.
			for s := range took {
				p.missing[s] = true
			}
			return
		}
		last := &rep.found[len(rep.found)-1]
		if !p.cut || last.Key < p.endKey || last.Key == p.endKey && last.Sub < p.endSub {
			p.cut, p.endKey, p.endSub = true, last.Key, last.Sub
		}
	}
	for i := range rep.found {
		if took[rep.found[i].Slot] {
			p.found = append(p.found, rep.found[i])
		}
	}
}

// result sorts the shares and cuts them where the first of them ends.
func (p *pageMerge) result(limit int) ([]core.Found, bool, error) {
	sortFound(p.found)
	k := len(p.found)
	if p.cut {
		for k > 0 && (p.found[k-1].Key > p.endKey || p.found[k-1].Key == p.endKey && p.found[k-1].Sub > p.endSub) {
			k--
		}
	}
	more := p.cut || k > limit
	return p.found[:min(k, limit)], more, nil
}
