package placement

import (
	"slices"
	"time"

	"github.com/shoalstore/shoal/core"
)

// Defaults of [State].
const (
	// DefaultGrace is how long a node that went down is waited for before
	// others get its slots.
	DefaultGrace = 60 * time.Second
	// DefaultMaxJoins is the number of slots that may be joining on a disk.
	DefaultMaxJoins = 32
	// DefaultMaxOwners is the number of slots that change their owner in a
	// step. While one does, its requests wait.
	DefaultMaxOwners = 64
	// DefaultMaxMoves is the number of rows that join disks at a time, and of
	// those that drop one in a step, though they have all the members they
	// should have, only not the right ones. All nodes work on a changed row at
	// once, and serve clients less well meanwhile.
	DefaultMaxMoves = 256
)

// State is what the steward knows beyond the map.
type State struct {
	// Silent are the nodes that a majority of voters does not hear.
	Silent []core.NodeID
	// Grace, MaxJoins, MaxOwners and MaxMoves have their defaults where 0; a
	// negative Grace or MaxOwners is none.
	Grace     time.Duration
	MaxJoins  int
	MaxOwners int
	MaxMoves  int
}

// Plan says what to do next so that the slot table becomes what rendezvous
// hashing wants of the nodes and disks there are. It returns nothing when
// nothing is to be done, or nothing can be until joining disks are in sync.
//
//   - Nodes that are silent and disks that failed are taken out of all rows
//     that keep another living member.
//   - A row that lacks disks of its target (the first R by rendezvous hashing)
//     joins them, rows with the fewest in-sync disks first. A node that is down
//     for less than the grace keeps its place in the target, unless without it
//     a row spans fewer nodes than writes need and another node can help.
//   - A row with more in-sync disks than its target gives up one that is not
//     in the target; if that is the owner, another becomes it first. So nothing
//     leaves before what replaces it is level, be it for balance, maintenance
//     or drain.
//   - Owners move where a node owns 10 % more or less than its share.
//   - Of what makes no row safer only so much is done at a time.
//   - Buckets that wait for more replicas get them, and then are opened.
//
// Every change but a Join is the only one for its row.
func Plan(m *core.Map, now time.Time, s State) []core.Change {
	pl := newPlanner(m, now, s)
	pl.failures()
	pl.rows()
	pl.join()
	pl.owners()
	pl.buckets()
	return pl.out
}

type planner struct {
	m   *core.Map
	s   State
	p   *Placer
	cut time.Time // nodes down since then are waited for
	out []core.Change

	// By index in p.disks:
	gone  []bool // failed, or its node is down or silent
	fails []bool // this plan takes it out of rows
	joins []int  // slots that it is joining

	// What may yet be done of what does not hurry; see DefaultMaxMoves.
	ownersLeft, joinsLeft, dropsLeft int

	minNodes int // that the in-sync set of a row should span
	wants    []want
	settled  []core.SlotID // rows that are as they should be

	in, jo, target []int // scratch: members and target of one row
}

// want is a row that should join disks.
type want struct {
	slot  core.SlotID
	rank  int   // rows of lower rank come first
	disks []int // best first
	count int   // how many of them
}

func newPlanner(m *core.Map, now time.Time, s State) *planner {
	if s.Grace == 0 {
		s.Grace = DefaultGrace
	}
	s.Grace = max(s.Grace, 0)
	if s.MaxJoins <= 0 {
		s.MaxJoins = DefaultMaxJoins
	}
	if s.MaxOwners == 0 {
		s.MaxOwners = DefaultMaxOwners
	}
	if s.MaxMoves <= 0 {
		s.MaxMoves = DefaultMaxMoves
	}
	p := newPlacer(m, s.Silent, now)
	pl := &planner{m: m, s: s, p: p, cut: now.Add(-s.Grace)}
	pl.ownersLeft, pl.joinsLeft, pl.dropsLeft = s.MaxOwners, s.MaxMoves, s.MaxMoves
	pl.gone = make([]bool, len(p.disks))
	pl.fails = make([]bool, len(p.disks))
	pl.joins = make([]int, len(p.disks))
	for i := range p.disks {
		n := m.Node(m.Disks[i].Node)
		pl.gone[i] = m.Disks[i].State == core.DiskFailed || n == nil || pl.lost(n)
	}
	for i := range m.Slots {
		for _, d := range m.Slots[i].Joining {
			if x := p.index(d); x >= 0 {
				pl.joins[x]++
			}
		}
		if len(m.Slots[i].Joining) > 0 {
			pl.joinsLeft--
		}
	}
	pl.minNodes = min(2, m.Replicas)
	for i := range m.Buckets {
		if b := &m.Buckets[i]; b.State == core.BucketOK && b.Policy.Domain == core.DomainNode {
			pl.minNodes = max(pl.minNodes, b.Policy.Scheme.MinRecordDomains())
		}
	}
	return pl
}

func (pl *planner) lost(n *core.Node) bool {
	return n.State == core.NodeDown || n.State == core.NodeJoining || slices.Contains(pl.s.Silent, n.ID)
}

// failures plans Fail for active nodes that are silent, and for all that is
// gone and yet in a row that could do without it.
func (pl *planner) failures() {
	removable := make([]bool, len(pl.p.disks)) // from some row
	holds := make([]bool, len(pl.p.disks))     // a place in some row
	isGone := func(x int) bool { return pl.gone[x] }
	for i := range pl.m.Slots {
		pl.load(core.SlotID(i))
		survives := slices.ContainsFunc(pl.in, func(x int) bool { return !isGone(x) })
		for _, x := range pl.in {
			holds[x] = true
			removable[x] = removable[x] || isGone(x) && survives
		}
		for _, x := range pl.jo {
			removable[x] = removable[x] || isGone(x)
		}
	}
	var nodes, kept []core.NodeID
	for i := range pl.m.Nodes {
		n := &pl.m.Nodes[i]
		if !pl.lost(n) {
			continue
		}
		of := func(flag []bool) bool {
			for x := range flag {
				if flag[x] && pl.p.disks[x].node == i {
					return true
				}
			}
			return false
		}
		switch {
		case n.State == core.NodeActive || of(removable):
			nodes = append(nodes, n.ID)
		case of(holds):
			kept = append(kept, n.ID)
		}
	}
	if len(nodes) > 0 {
		// Apply keeps the in-sync set of a row of which nobody is left. It
		// must know all who are gone.
		nodes = append(nodes, kept...)
	}
	for _, n := range nodes {
		pl.out = append(pl.out, core.Change{Kind: core.ChangeFail, Node: n})
	}
	for x := range pl.p.disks {
		d := &pl.m.Disks[x]
		if slices.Contains(nodes, d.Node) {
			pl.fails[x] = true
		} else if removable[x] {
			pl.fails[x] = true
			pl.out = append(pl.out, core.Change{Kind: core.ChangeFail, Disk: d.ID})
		}
	}
}

// load reads the members of a row.
func (pl *planner) load(s core.SlotID) {
	pl.in = pl.p.indices(pl.in[:0], pl.m.Slots[s].Insync)
	pl.jo = pl.p.indices(pl.jo[:0], pl.m.Slots[s].Joining)
}

// rows plans what rows should drop, and notes which should join disks and
// which are settled.
func (pl *planner) rows() {
	failing := func(x int) bool { return pl.fails[x] }
	for i := range pl.m.Slots {
		s := core.SlotID(i)
		pl.load(s)
		switch {
		case len(pl.in) == 0 || pl.gone[pl.in[0]]:
			continue // nobody could bring a disk level
		case slices.ContainsFunc(pl.in, failing) || slices.ContainsFunc(pl.jo, failing):
			continue
		}
		pl.target = pl.p.slot(pl.target[:0], s, pl.m.Replicas, pl.cut)
		if len(pl.target) > 0 && !pl.cancel(s) && !pl.surplus(s) && !pl.missing(s) && !pl.shortage(s) {
			if len(pl.jo) == 0 && len(pl.in) == len(pl.target) && pl.contains(pl.in, pl.target) {
				pl.settled = append(pl.settled, s)
			}
		}
	}
}

// contains says whether all of b are in a.
func (pl *planner) contains(a, b []int) bool {
	return !slices.ContainsFunc(b, func(x int) bool { return !slices.Contains(a, x) })
}

func (pl *planner) dropFrom(s core.SlotID, x int) {
	b := pl.m.SlotBallot(s)
	pl.out = append(pl.out, core.Change{Kind: core.ChangeDrop, Slot: s, Term: b.Term, Boot: b.Boot, Disk: pl.p.disks[x].id})
}

// cancel drops a joining disk that is not wanted, or must not have data, any
// more. One that may stand in for a disk that is away goes on.
func (pl *planner) cancel(s core.SlotID) bool {
	enough := len(pl.in) >= len(pl.target) && !slices.ContainsFunc(pl.target, func(x int) bool {
		return !pl.p.disks[x].takes && !slices.Contains(pl.in, x)
	})
	for _, x := range pl.jo {
		if !slices.Contains(pl.target, x) && (enough || !pl.p.disks[x].takes) {
			pl.dropFrom(s, x)
			return true
		}
	}
	return false
}

// surplus lets go of an in-sync disk that is not in the target when there are
// enough without it; first one that shares its node with another.
func (pl *planner) surplus(s core.SlotID) bool {
	if len(pl.in) <= len(pl.target) {
		return false
	}
	if !slices.Contains(pl.target, pl.in[0]) {
		for _, x := range pl.target {
			if !slices.Contains(pl.in, x) || pl.gone[x] {
				continue
			}
			if pl.ownersLeft > 0 {
				pl.ownersLeft--
				pl.out = append(pl.out, core.Change{Kind: core.ChangeOwner, Slot: s, Term: pl.m.Slots[s].Term, Disk: pl.p.disks[x].id})
			}
			return true
		}
		return false
	}
	if pl.dropsLeft == 0 {
		return true
	}
	pl.dropsLeft--
	drop, shared := -1, false
	for _, x := range pl.in {
		if slices.Contains(pl.target, x) {
			continue
		}
		shares := slices.ContainsFunc(pl.in, func(y int) bool {
			return y != x && pl.p.disks[y].node == pl.p.disks[x].node
		})
		if drop < 0 || shares && !shared {
			drop, shared = x, shares
		}
	}
	pl.dropFrom(s, drop)
	return true
}

// missing notes the disks of the target that the row lacks.
func (pl *planner) missing(s core.SlotID) bool {
	w := want{slot: s, rank: len(pl.in), count: max(1, len(pl.target)-len(pl.in))}
	if len(pl.in) >= len(pl.target) {
		w.rank = maxRow // it has enough, only not the right ones
	}
	for _, x := range pl.target {
		switch {
		case slices.Contains(pl.jo, x):
			w.count--
		case !slices.Contains(pl.in, x) && pl.p.disks[x].takes:
			w.disks = append(w.disks, x)
		}
	}
	if len(w.disks) == 0 {
		return false
	}
	if len(pl.in) >= pl.m.Replicas && len(pl.jo) > 0 {
		w.count = 0 // one at a time
	}
	pl.wants = append(pl.wants, w)
	return true
}

// shortage notes a disk to stand in for one that is away, where the row spans
// too few nodes without it.
func (pl *planner) shortage(s core.SlotID) bool {
	spans := func(l []int, node int) bool {
		return slices.ContainsFunc(l, func(x int) bool { return pl.p.disks[x].node == node })
	}
	nodes := 0
	for i, x := range pl.in {
		if !spans(pl.in[:i], pl.p.disks[x].node) {
			nodes++
		}
	}
	if nodes >= pl.minNodes || len(pl.jo) > 0 || pl.contains(pl.in, pl.target) {
		return false
	}
	for _, x := range pl.p.slot(nil, s, pl.m.Replicas, time.Time{}) {
		if !spans(pl.in, pl.p.disks[x].node) {
			pl.wants = append(pl.wants, want{slot: s, rank: len(pl.in), disks: []int{x}, count: 1})
			return true
		}
	}
	return false
}

// join plans the joins that rows want, as many as the disks may have at a time.
func (pl *planner) join() {
	slices.SortStableFunc(pl.wants, func(a, b want) int { return a.rank - b.rank })
	for _, w := range pl.wants {
		hurries := w.rank < maxRow
		for _, x := range w.disks {
			if w.count > 0 && pl.joins[x] < pl.s.MaxJoins && (hurries || pl.joinsLeft > 0) {
				w.count--
				pl.joins[x]++
				pl.joinsLeft--
				pl.out = append(pl.out, core.Change{Kind: core.ChangeJoin, Slot: w.slot, Disk: pl.p.disks[x].id})
			}
		}
	}
}

// owners moves a few owners of settled rows to nodes that own too little. While
// nodes fail there is more urgent work for a new owner's peers.
func (pl *planner) owners() {
	if slices.Contains(pl.fails, true) {
		return
	}
	o := newOwnership(pl.p, pl.m.Slots)
	for _, s := range pl.settled {
		if pl.ownersLeft <= 0 {
			return
		}
		pl.load(s)
		b := o.better(pl.in)
		if b == 0 || !o.far(pl.p.disks[pl.in[0]].node) && !o.far(pl.p.disks[pl.in[b]].node) {
			continue
		}
		o.move(pl.in[0], pl.in[b])
		pl.out = append(pl.out, core.Change{
			Kind: core.ChangeOwner, Slot: s, Term: pl.m.Slots[s].Term, Disk: pl.p.disks[pl.in[b]].id,
		})
		pl.ownersLeft--
	}
}

// buckets grows R for the buckets that wait for it, and opens those for which
// every slot has enough members.
func (pl *planner) buckets() {
	members := len(pl.p.disks)
	for i := range pl.m.Slots {
		members = min(members, len(pl.m.Slots[i].Insync))
	}
	r := pl.m.Replicas
	for i := range pl.m.Buckets {
		b := pl.m.Buckets[i]
		need := b.Policy.Scheme.M + 1
		switch {
		case b.State != core.BucketCreating:
		case need > pl.m.Replicas:
			r = max(r, need)
		case members >= need:
			pl.out = append(pl.out, core.Change{Kind: core.ChangeSetBucket, Bucket: &b, State: string(core.BucketOK)})
		}
	}
	if r > pl.m.Replicas {
		pl.out = append(pl.out, core.Change{Kind: core.ChangeReplicas, Count: r})
	}
}
