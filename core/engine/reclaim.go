package engine

import (
	"context"
	"slices"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/slot"
)

const (
	// reclaimRows and reclaimPause bound what giving back the space of removed
	// slots takes from a disk: a few milliseconds of deletions, without a sync,
	// fifty times a second at most.
	reclaimRows  = 256
	reclaimPause = 20 * time.Millisecond
	// maxForget is how many histories a node forgets in one go.
	maxForget = 64
)

// reclaim forgets, until ctx ends, what the local disks keep of slots that they
// do not belong to any more. The protocol says when that is safe; here it is
// said when nobody will want it: the slot has had all its members elsewhere for
// the grace, and rendezvous hashing does not name the disk, which otherwise is
// about to join again by its mark.
func (n *Node) reclaim(ctx context.Context) {
	every := min(max(n.opt.Grace/4, 50*time.Millisecond), 10*time.Second)
	since := map[slot.Stray]core.Instant{}
	for n.clock.Wait(ctx, every) == nil {
		n.forgetStrays(since)
	}
}

// forgetStrays forgets what is due; since says from when on each was not wanted.
func (n *Node) forgetStrays(since map[slot.Stray]core.Instant) {
	var strays []slot.Stray
	newest, m, _ := n.driver.maps()
	if m == nil || newest != m || !n.mayForget(m) {
		clear(since)
		return
	}
	n.driver.mu.Lock()
	strays = n.driver.node.Strays()
	n.driver.mu.Unlock()
	p := n.placer(m)
	strays = slices.DeleteFunc(strays, func(x slot.Stray) bool {
		return slices.Contains(p.Slot(x.Slot, m.Replicas), x.Disk)
	})
	known := make(map[slot.Stray]bool, len(strays))
	forgot := 0
	for _, x := range strays {
		known[x] = true
		if since[x] == 0 {
			since[x] = n.clock.Boot()
			continue
		}
		n.driver.step(func(s *slot.Node, now core.Instant) {
			if forgot < maxForget && now.Sub(since[x]) >= n.opt.Grace && s.Map() == m && s.Reclaim(now, x.Disk, x.Slot) {
				forgot++
			}
		})
	}
	for x := range since {
		if !known[x] {
			delete(since, x)
		}
	}
	if forgot > 0 {
		n.log.Info("records of slots that have moved away are removed", "slots", forgot)
	}
}

// mayForget says whether this node's disks are where they are to stay, or to
// leave: a node in maintenance gets its slots back.
func (n *Node) mayForget(m *core.Map) bool {
	me := m.Node(n.id)
	return me != nil && me.Boot == n.opt.Boot && (me.State == core.NodeActive || me.State == core.NodeDraining)
}
