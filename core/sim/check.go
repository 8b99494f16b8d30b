package sim

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/shoalstore/shoal/core"
)

// checker looks for broken promises while the run goes on.
type checker struct {
	w    *world
	maps map[core.Epoch]*core.Map // in effect, as some node believed
	// committed is the newest committed version of each slot that a client was
	// told of, or that an owner knew.
	committed map[core.SlotID]core.Version
	joined    map[joinedBy]bool
	// next and nextShards are when all slots and shards are due to be checked.
	next, nextShards time.Duration
	top              core.Epoch
}

func (c *checker) init(w *world) {
	c.w = w
	c.maps = map[core.Epoch]*core.Map{}
	c.committed = map[core.SlotID]core.Version{}
	c.joined = map[joinedBy]bool{}
}

// effect is told of a map that a node takes to be in effect: there is one per
// epoch.
func (c *checker) effect(nd *node, m *core.Map) {
	have := c.maps[m.Epoch]
	if have != nil && have.Sum() != m.Sum() {
		c.w.fail("%s has another map %d in effect than others", nd.id, m.Epoch)
		return
	}
	if have != nil {
		return
	}
	c.maps[m.Epoch] = m
	c.w.report.Maps++
	if p := c.maps[m.Epoch-1]; p != nil {
		if p.Sum() != m.Prev {
			c.w.fail("map %d does not follow map %d", m.Epoch, p.Epoch)
		}
		if fmt.Sprint(p.Voters) != fmt.Sprint(m.Voters) {
			c.w.report.VoterChanges++
		}
		for s := range core.SlotID(slots) {
			c.growth(s, p, m)
		}
	}
	if m.Epoch > c.top {
		c.top = m.Epoch
		c.w.trace("map %d in effect: %s", m.Epoch, describe(m))
		for s := range core.SlotID(slots) {
			c.onAllInsync(s)
		}
	}
}

// growth: a disk comes into an in-sync set only from joining, by a proposal of
// the owner under the ballot that was in effect.
func (c *checker) growth(s core.SlotID, was, is *core.Map) {
	for _, d := range is.Slots[s].Insync {
		a, b := was.Slots[s], is.Slots[s]
		if slices.Contains(a.Insync, d) {
			continue
		}
		if !slices.Contains(a.Joining, d) || !c.joined[joinedBy{s, d, was.SlotBallot(s)}] {
			c.w.fail("slot %d: map %d puts disk %d in sync: %v after %v", s, is.Epoch, d, b, a)
		}
	}
}

// joinedBy is what an owner proposed.
type joinedBy struct {
	slot   core.SlotID
	disk   core.DiskID
	ballot core.Ballot
}

// proposed notes what owners say of joiners.
func (c *checker) proposed(changes []core.Change) {
	for i := range changes {
		if x := &changes[i]; x.Kind == core.ChangeJoined {
			c.joined[joinedBy{x.Slot, x.Disk, core.Ballot{Term: x.Term, Boot: x.Boot}}] = true
		}
	}
}

func describe(m *core.Map) string {
	var b strings.Builder
	for i, s := range m.Slots {
		fmt.Fprintf(&b, "%d:t%d%v", i, s.Term, s.Insync)
		if len(s.Joining) > 0 {
			fmt.Fprintf(&b, "+%v", s.Joining)
		}
		b.WriteByte(' ')
	}
	for i := range m.Nodes {
		if m.Nodes[i].State != core.NodeActive {
			fmt.Fprintf(&b, "%s=%s ", m.Nodes[i].ID, m.Nodes[i].State)
		}
	}
	for _, v := range m.Voters {
		fmt.Fprintf(&b, "v:%s ", v.Node)
	}
	return b.String()
}

// step runs after each event. Every node that would answer a read of a slot is
// the only one, and what it knows to be committed is on every disk that the
// newest map in effect calls in sync, gone ones excepted.
func (c *checker) step() {
	w := c.w
	var reader [slots]core.NodeID
	for _, id := range w.order {
		nd := w.nodes[id]
		if !nd.up || nd.paused || nd.node.Map() == nil {
			continue
		}
		now, m := nd.boottime(), nd.node.Map()
		for s := range core.SlotID(slots) {
			if m.OwnerNode(s) != id {
				continue
			}
			g, err := nd.node.Serving(now, s)
			if told, ok := nd.node.Rights().Serving(now, s); ok != (err == nil) || told != g {
				w.fail("slot %d at %s: its rights say %v (%v), the protocol %v (%v)", s, id, told, ok, g, err)
			}
			if err != nil {
				continue
			}
			if reader[s] != "" {
				w.fail("slot %d would be read at %s and %s", s, reader[s], id)
			}
			reader[s] = id
			if g.At.Seq > c.committed[s].Seq {
				c.committed[s] = g.At
				c.onAllInsync(s)
			}
		}
	}
	if w.now >= c.next {
		c.next = w.now + 20*time.Millisecond
		for s := range core.SlotID(slots) {
			c.onAllInsync(s)
		}
	}
	if w.now >= c.nextShards {
		c.nextShards = w.now + 250*time.Millisecond
		c.shardsThere()
	}
}

// onAllInsync checks the disks that are in sync by the newest map in effect.
func (c *checker) onAllInsync(s core.SlotID) {
	w, m := c.w, c.maps[c.top]
	if m == nil {
		return
	}
	for _, d := range m.Slots[s].Insync {
		if disk := w.disk(m, d); disk != nil {
			if x := disk.store.slot(s); x.state.Last.Seq < c.committed[s].Seq {
				w.fail("slot %d: disk %d of %s is in sync by map %d and holds %v, committed is %v",
					s, d, m.NodeOf(d), m.Epoch, x.state.Last, c.committed[s])
			}
		}
	}
}

// disk finds the device behind a disk of the map.
func (w *world) disk(m *core.Map, id core.DiskID) *disk {
	md := m.Disk(id)
	for _, d := range w.nodes[md.Node].disks {
		if d.uuid == md.UUID && !d.gone {
			return d
		}
	}
	return nil
}

// recover lets the cluster come to rest: everything up, connected, and every
// slot served with full redundancy.
func (w *world) recover() {
	if w.failure != nil {
		return
	}
	w.trace("everything comes back")
	w.heal()
	limit := w.now + 4*time.Minute
	w.loop(func() bool {
		if w.now > limit {
			w.fail("the cluster does not recover: %s", w.stuck())
		}
		return w.rested()
	})
}

// rested says whether every slot has an owner that serves and nothing is joining
// that could be in sync.
func (w *world) rested() bool {
	m := w.check.maps[w.check.top]
	for s := range core.SlotID(slots) {
		row := m.Slots[s]
		if len(row.Insync) != min(replicas, w.usable(m)) || len(row.Joining) > 0 {
			return false
		}
		for _, d := range row.Insync {
			if w.disk(m, d) == nil {
				return false // lost, and the map does not say so yet
			}
		}
		owner := w.nodes[m.OwnerNode(s)]
		if owner == nil || !owner.up {
			return false
		}
		if _, err := owner.node.Serving(owner.boottime(), s); err != nil {
			return false
		}
	}
	return true
}

// usable counts the disks on which records may be.
func (w *world) usable(m *core.Map) int {
	n := 0
	for i := range m.Disks {
		if m.Disks[i].State == core.DiskOK && m.Node(m.Disks[i].Node).State == core.NodeActive {
			n++
		}
	}
	return n
}

// stuck says what is not as it should be.
func (w *world) stuck() string {
	m := w.check.maps[w.check.top]
	var out strings.Builder
	fmt.Fprintf(&out, "map %d: %s;", m.Epoch, describe(m))
	for _, id := range w.order {
		nd := w.nodes[id]
		fmt.Fprintf(&out, " %s up=%v paused=%v", id, nd.up, nd.paused)
		if !nd.up {
			continue
		}
		fmt.Fprintf(&out, " voter %s confirmed %d=%s, newest %s, proposing=%v;", nd.voter.Key, nd.node.Confirmed(), named(nd.voter.Map), named(nd.node.Newest()), nd.proposing)
		if nd.node.Map() == nil {
			continue
		}
		fmt.Fprintf(&out, " effect=%d newest=%d lease=%v changes=%d proposing=%v;",
			nd.node.Map().Epoch, nd.node.Newest().Epoch, nd.node.HoldsLease(nd.boottime()), len(nd.changes), nd.proposing)
		for s := range core.SlotID(slots) {
			if nd.node.Map().OwnerNode(s) == id {
				_, err := nd.node.Serving(nd.boottime(), s)
				fmt.Fprintf(&out, " slot %d: %v;", s, err)
			}
		}
	}
	return out.String()
}

func named(m *core.Map) string {
	if m == nil {
		return "none"
	}
	return fmt.Sprintf("%d:%.6s after %.6s of %v, before of %v", m.Epoch, m.Sum(), m.Prev, m.Voters, m.OldVoters)
}

// finish reads every key once more and compares the copies.
func (w *world) finish() {
	for _, id := range w.order {
		if nd := w.nodes[id]; nd.up {
			w.report.Coverage = w.report.Coverage.Add(nd.node.Stats())
		}
	}
	if w.failure != nil {
		return
	}
	// Let writes end and marks spread.
	w.still = true
	limit, since := w.now+2*time.Minute, w.now
	w.loop(func() bool {
		if w.now > limit {
			w.fail("writes do not end: %s", w.stuck())
		}
		if !w.rested() || !w.settled() {
			since = w.now
		}
		// By then what was about to be proposed is.
		return w.now-since > 2*time.Second
	})
	for i, k := range w.keys() {
		c := &client{w: w, no: 1000 + i}
		q := request{kind: opGet, key: k}
		op := w.history.begin(c.no, q, w.now)
		done := false
		c.ask(q, func(r reply) { w.history.end(op, r, w.now); done = true }, func() { w.fail("%s cannot be read at the end", k) })
		w.loop(func() bool { return done })
	}
	if w.failure == nil {
		w.sameCopies()
	}
	if w.failure == nil {
		if err := w.history.linearizable(); err != nil {
			w.fail("%v", err)
		}
	}
}

// settled says whether all in-sync disks have what is committed, and no more.
func (w *world) settled() bool {
	m := w.check.maps[w.check.top]
	for s := range core.SlotID(slots) {
		owner := w.nodes[m.OwnerNode(s)]
		g, err := owner.node.Serving(owner.boottime(), s)
		if err != nil {
			return false
		}
		for _, d := range m.Slots[s].Insync {
			if w.disk(m, d).store.slot(s).state.Last != g.At {
				return false
			}
		}
	}
	return true
}

// sameCopies: all in-sync disks of a slot show the same rows.
func (w *world) sameCopies() {
	m := w.check.maps[w.check.top]
	for s := range core.SlotID(slots) {
		first, floor := "", uint64(0)
		for _, d := range m.Slots[s].Insync {
			floor = max(floor, w.disk(m, d).store.slot(s).state.Floor)
		}
		for i, d := range m.Slots[s].Insync {
			x := w.disk(m, d).store.slot(s)
			var rows []string
			for k := range x.rows {
				if r, ok := x.get(k, x.state.Last); ok && (!r.Deleted || r.Version.Seq > floor) {
					rows = append(rows, fmt.Sprintf("%s@%v %v %s", k.Key, r.Version, r.Deleted, r.Value))
				}
			}
			sort.Strings(rows)
			text := strings.Join(rows, "\n")
			if i == 0 {
				first = text
			} else if text != first {
				w.fail("slot %d: disks %d and %d differ at rest:\n%s\n--\n%s", s, m.Slots[s].Insync[0], d, first, text)
			}
		}
	}
}
