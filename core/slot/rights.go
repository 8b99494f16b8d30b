package slot

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/shoalstore/shoal/core"
)

// Rights says what a node may read, as of the last [Node.Take]. Unlike the Node
// it may be asked at any time from anywhere, so that reads do not wait while the
// protocol works on a map with thousands of changed rows.
//
// It is as good as asking the Node: whatever a step takes away is gone from here
// before anything that the step says can reach another node, and what a step
// commits is seen here before anybody is told so.
type Rights struct {
	// until is the core.Instant from which on the lease does not hold.
	until atomic.Int64
	slots atomic.Pointer[[]atomic.Pointer[Reading]]
}

// Serving is [Node.Serving] for a slot that may be read. A slot that may not be
// read is for the Node to say why.
func (x *Rights) Serving(now core.Instant, s core.SlotID) (Reading, bool) {
	g := x.at(now, s)
	if g == nil {
		return Reading{}, false
	}
	return *g, true
}

// Check says whether what was read may be answered; see [Node.Check]. The time
// must have been taken before the call.
func (x *Rights) Check(now core.Instant, g Reading) bool {
	has := x.at(now, g.Slot)
	return has != nil && has.tenure == g.tenure
}

// Open says whether the node owns a slot and takes writes of it, or with reads is
// enough whether it may be read; the lease aside.
func (x *Rights) Open(s core.SlotID, reads bool) bool {
	all := x.slots.Load()
	if all == nil || int(s) >= len(*all) {
		return false
	}
	g := (*all)[s].Load()
	return g != nil && (reads || g.active)
}

// at returns the right to read a slot, nil if there is none. The lease must hold
// before and after it is looked up: tell changes the slots first, so that the
// lease of after a step never meets a right of before it.
func (x *Rights) at(now core.Instant, s core.SlotID) *Reading {
	held := func() bool { return now < core.Instant(x.until.Load()) }
	if !held() {
		return nil
	}
	all := x.slots.Load()
	if all == nil || int(s) >= len(*all) {
		return nil
	}
	g := (*all)[s].Load()
	if !held() {
		return nil
	}
	return g
}

// Rights returns the node's rights.
func (n *Node) Rights() *Rights { return &n.rights }

// touch has the right to read a slot told anew.
func (n *Node) touch(s core.SlotID) { n.touched = append(n.touched, s) }

// tell brings the rights up to date.
func (n *Node) tell() {
	x := &n.rights
	defer func() { x.until.Store(int64(n.leaseUntil())) }()
	if n.effect == nil {
		return
	}
	all := x.slots.Load()
	if all == nil || len(*all) != len(n.effect.Slots) {
		list := make([]atomic.Pointer[Reading], len(n.effect.Slots))
		all, n.touchedAll = &list, true
	}
	if n.touchedAll {
		for s := range *all {
			n.tellSlot(*all, core.SlotID(s))
		}
	} else {
		for _, s := range n.touched {
			if int(s) < len(*all) {
				n.tellSlot(*all, s)
			}
		}
	}
	n.touched, n.touchedAll = n.touched[:0], false
	x.slots.Store(all)
}

func (n *Node) tellSlot(all []atomic.Pointer[Reading], s core.SlotID) {
	g, ok := n.right(s)
	has := all[s].Load()
	switch {
	case !ok && has != nil:
		all[s].Store(nil)
	case ok && (has == nil || *has != g):
		all[s].Store(&g)
	}
}

// right is the right to read a slot while the lease holds.
func (n *Node) right(s core.SlotID) (Reading, bool) {
	r := n.owned(s)
	if r == nil || !n.mayOwn(r) || r.owner.phase != active && !r.owner.continued {
		return Reading{}, false
	}
	return Reading{Slot: s, Disk: r.disk, At: r.state.Committed, tenure: r.owner.tenure, active: r.owner.phase == active}, true
}

// leaseUntil is when the lease ends that the node holds by the grants it has,
// 0 if it holds none.
//
// While a change of voters is under way, reports from before it was seen count
// with the voters in effect, as they always did: once the change is in effect a
// majority of those grants no such report any more. Later ones must be granted
// by a majority of both sets.
func (n *Node) leaseUntil() core.Instant {
	if n.rules.NoLease {
		return core.Instant(1<<63 - 1)
	}
	if n.effect == nil {
		return 0
	}
	l := &n.lease
	until := l.sent.until(n.effect.Voters, n.p.LeaseUse)
	if n.newest != n.effect {
		until = min(until, l.sent.until(n.newest.Voters, n.p.LeaseUse))
	}
	if l.turned != 0 {
		until = max(until, l.before.until(n.effect.Voters, n.p.LeaseUse))
	}
	return until
}

// until is when the last majority of the voters ends of those that granted a
// report sent within d, 0 if there is none.
func (g grants) until(voters []core.Voter, d time.Duration) core.Instant {
	sent := make([]core.Instant, 0, len(voters))
	for _, v := range voters {
		if t, ok := g[v]; ok {
			sent = append(sent, t)
		}
	}
	need := len(voters)/2 + 1
	if len(sent) < need {
		return 0
	}
	slices.Sort(sent)
	return sent[len(sent)-need].Add(d)
}
