package job

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
)

// Where a disk is fuller than its high watermark, copies of what remotes have go, those
// that nobody has used for longest first, until it is down to its low one. Each node
// frees its part, by the number of its slots: it adds up its objects by the minute of the
// last use and the disks that they are on, which says how many of each group must go, and
// goes over them once.

const (
	// spaceEvery is how often the keeper looks at the disks, if nothing else is said.
	spaceEvery = 30 * time.Second
	// lruPause is the least time between two evictions that start by themselves: what
	// they order deleted goes a little later.
	lruPause = 10 * time.Minute
)

// DiskUse is how full a disk is, in bytes of its file system.
type DiskUse struct {
	Disk           core.DiskID
	Capacity, Used int64
}

// Space says when to evict.
type Space struct {
	// Low and High are the watermarks, parts of a disk's capacity. With a High of 0
	// nothing is evicted by itself.
	Low, High float64
	// Every is how often the keeper looks at the disks; 0 is 30 seconds.
	Every time.Duration
	// Usage returns how full the disks of the cluster are; nil is not known.
	Usage func(ctx context.Context) ([]DiskUse, error)
}

// over returns the bytes to be freed to be down at a part of the capacity.
func (u *DiskUse) over(part float64) int64 {
	return max(u.Used-int64(part*float64(u.Capacity)), 0)
}

// lruGroup are objects that were last used in the same minute and are on the same
// disks.
type lruGroup struct {
	used  int64  // in seconds since 1970
	disks string // sorted
}

func groupOf(used time.Time, on map[core.DiskID]int64) lruGroup {
	var disks []byte
	for _, d := range slices.Sorted(maps.Keys(on)) {
		disks = binary.BigEndian.AppendUint64(disks, uint64(d))
	}
	return lruGroup{used.Unix(), string(disks)}
}

// held adds up the objects of a group, and their bytes by disk.
type held struct {
	objects int64
	bytes   map[core.DiskID]int64
}

// lruPlan is how many objects of which group a node has yet to evict.
type lruPlan struct {
	mu   sync.Mutex
	left map[lruGroup]int64
}

// takes says whether an object that was last used at a time, and has bytes on disks, is
// to go, and counts it.
func (p *lruPlan) takes(used time.Time, on map[core.DiskID]int64) bool {
	g := groupOf(used, on)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left[g] == 0 {
		return false
	}
	p.left[g]--
	return true
}

// newLRUPlan takes the groups in order of the last use, and of each as many objects as
// it takes to free so many bytes of every disk. It changes free.
func newLRUPlan(free map[core.DiskID]int64, have map[lruGroup]*held) *lruPlan {
	p := &lruPlan{left: map[lruGroup]int64{}}
	for _, g := range slices.SortedFunc(maps.Keys(have), func(a, b lruGroup) int {
		return cmp.Or(cmp.Compare(a.used, b.used), cmp.Compare(a.disks, b.disks))
	}) {
		h := have[g]
		var n int64
		for d, bytes := range h.bytes {
			if each := bytes / h.objects; free[d] > 0 && each > 0 {
				n = max(n, (free[d]+each-1)/each)
			}
		}
		if n = min(n, h.objects); n == 0 {
			continue
		}
		p.left[g] = n
		for d, bytes := range h.bytes {
			free[d] -= bytes / h.objects * n
		}
	}
	return p
}

// lruBuckets are the buckets that the job evicts from: the one that it names, or all
// whose copies may go by themselves.
func (r *run) lruBuckets(m *core.Map) []core.BucketID {
	if r.spec.FromID != core.SystemBucket {
		return []core.BucketID{r.spec.FromID}
	}
	var out []core.BucketID
	for i := range m.Buckets {
		if b := &m.Buckets[i]; b.Name.Remote() && b.Policy.LRU {
			out = append(out, b.ID)
		}
	}
	return out
}

// lru evicts what has not been used for longest.
func (r *run) lru(m *core.Map, buckets []core.BucketID, phase State) action {
	return func(ctx context.Context, id core.BucketID, f *core.Found, rec *core.Record) (result, error) {
		b := m.Bucket(id)
		if b == nil || rec.StoredBytes() == 0 {
			return result{end: endLeft}, nil
		}
		p, err := r.planLRU(ctx, buckets, phase)
		if err != nil {
			return result{}, err
		}
		n := r.m.o.Node
		if !p.takes(n.LastAccess(id, f.Key), n.BytesOnDisks(f.Slot, rec)) {
			return result{end: endLeft}, nil
		}
		if phase == Planning {
			return result{end: endPlanned}, nil
		}
		return r.evictOne(ctx, b, f.Key)
	}
}

// planLRU makes the node's plan once for a phase.
func (r *run) planLRU(ctx context.Context, buckets []core.BucketID, phase State) (*lruPlan, error) {
	r.planning.Lock()
	defer r.planning.Unlock()
	if r.plan != nil && r.planned == phase {
		return r.plan, nil
	}
	space := &r.m.o.Space
	if space.Usage == nil {
		return nil, fmt.Errorf("it is not known how full the disks are: %w", errors.ErrUnsupported)
	}
	uses, err := space.Usage(ctx)
	if err != nil {
		return nil, fmt.Errorf("how full the disks are: %w", err)
	}
	n := r.m.o.Node
	owned := n.OwnedSlots()
	part := float64(len(owned)) / float64(max(len(n.Map().Slots), 1))
	free := map[core.DiskID]int64{}
	for i := range uses {
		if over := uses[i].over(space.Low); over > 0 {
			free[uses[i].Disk] = int64(part * float64(over))
		}
	}
	have := map[lruGroup]*held{}
	if len(free) > 0 {
		if have, err = heldBytes(ctx, n, buckets, slices.Sorted(maps.Keys(owned))); err != nil {
			return nil, err
		}
	}
	r.plan, r.planned = newLRUPlan(free, have), phase
	return r.plan, nil
}

// heldBytes adds up the objects of slots of this node.
func heldBytes(ctx context.Context, n *engine.Node, buckets []core.BucketID, slots []core.SlotID) (map[lruGroup]*held, error) {
	have := map[lruGroup]*held{}
	for _, id := range buckets {
		scan := core.Scan{Bucket: id, Space: core.SpaceObject}
		for more := true; more; {
			page, err := n.ScanOwned(ctx, scan, pageSize, slots)
			if err != nil {
				return nil, err
			}
			for i := range page.Found {
				f := &page.Found[i]
				rec, err := core.DecodeRecord(f.Value)
				if err != nil {
					return nil, fmt.Errorf("record of %q: %w", f.Key, err)
				}
				scan.AfterKey, scan.AfterSub = f.Key, f.Sub
				if rec.StoredBytes() == 0 {
					continue
				}
				on := n.BytesOnDisks(f.Slot, rec)
				g := groupOf(n.LastAccess(id, f.Key), on)
				h := have[g]
				if h == nil {
					h = &held{bytes: map[core.DiskID]int64{}}
					have[g] = h
				}
				h.objects++
				for d, bytes := range on {
					h.bytes[d] += bytes
				}
			}
			more = page.More && len(page.Found) > 0
		}
	}
	return have, nil
}

// watchSpace starts evictions while this node is the keeper.
func (m *Manager) watchSpace(ctx context.Context) {
	if m.o.Space.Usage == nil || m.o.Space.High <= 0 {
		return
	}
	for m.o.Clock.Wait(ctx, cmp.Or(m.o.Space.Every, spaceEvery)) == nil {
		if !m.o.Node.Keeps() {
			continue
		}
		if err := m.evictIfFull(ctx); err != nil && ctx.Err() == nil {
			m.o.Log.Warn("whether disks are full cannot be told, or nothing evicted", "err", err)
		}
	}
}

// evictIfFull starts an eviction if a disk is at its high watermark, none is under way,
// and there is something that may go.
func (m *Manager) evictIfFull(ctx context.Context) error {
	mp := m.o.Node.Map()
	if mp == nil {
		return nil
	}
	evictable := slices.ContainsFunc(mp.Buckets, func(b core.Bucket) bool { return b.Name.Remote() && b.Policy.LRU })
	if !evictable || m.evictedOfLate() {
		return nil
	}
	uses, err := m.o.Space.Usage(ctx)
	if err != nil {
		return err
	}
	for i := range uses {
		if u := &uses[i]; u.Capacity > 0 && float64(u.Used) >= m.o.Space.High*float64(u.Capacity) {
			j, err := m.Start(ctx, Spec{Kind: KindLRU})
			if err == nil {
				m.o.Log.Info("a disk is at its high watermark: copies of remote objects are evicted", "disk", u.Disk, "job", j.Spec.ID)
			}
			return err
		}
	}
	return nil
}

// evictedOfLate says whether an eviction by use is under way or has just ended.
func (m *Manager) evictedOfLate() bool {
	now := m.o.Clock.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, j := range m.jobs {
		if j.spec == nil || j.spec.Kind != KindLRU || j.spec.DryRun {
			continue
		}
		if !j.status.State.Ended() || j.status.Ended != nil && now.Sub(*j.status.Ended) < lruPause {
			return true
		}
	}
	return false
}
