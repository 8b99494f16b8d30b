package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/slot"
)

// startFaults strikes at random until there were enough faults and the clients
// are through.
func (w *world) startFaults() {
	left := w.opt.Faults
	var next func()
	next = func() {
		if left <= 0 && w.clientsDone() {
			w.quiet = true
			return
		}
		left--
		w.strike()
		w.after(w.between(200*time.Millisecond, 5*time.Second), next)
	}
	w.after(w.between(2*time.Second, 4*time.Second), next)
}

// strike is one fault.
func (w *world) strike() {
	id := w.order[w.rng.IntN(len(w.order))]
	nd := w.nodes[id]
	switch p := w.rng.IntN(100); {
	case p < 18:
		w.strikeCrash(nd)
	case p < 30:
		w.strikePause(nd)
	case p < 45:
		w.strikeCut(nd)
	case p < 49:
		w.strikeReplug(nd)
	case p < 52:
		w.strikeVoterState(nd)
	case p < 54:
		w.strikeStop(nd)
	case p < 56:
		w.strikeAdd(nd)
	case p < 58:
		w.report.Faults["clock"]++
		nd.do(func(n *slot.Node, _ core.Instant) { n.DropLease() })
	case p < 64:
		w.strikeBlink(nd)
	case p < 66:
		w.report.Faults["rollback"]++
		w.trace("the bus forgets map %d", w.bus.value.Epoch)
		w.bus.rollBack()
	case p < 72:
		w.report.Faults["loss"]++
		w.loss = 0.02 + 0.3*w.rng.Float64()
		w.after(w.between(200*time.Millisecond, 4*time.Second), func() { w.loss = 0 })
	case p < 79:
		w.report.Faults["bus"]++
		w.trace("bus away")
		w.bus.away = true
		w.after(w.between(500*time.Millisecond, 9*time.Second), func() { w.bus.away = false; w.trace("bus back") })
	case p < 85:
		w.strikeDisk(nd)
	case p < 93:
		w.strikeMap(nd)
	default:
		w.strikeVoters(nd)
	}
}

// strikeReplug takes a disk out and puts it back, without what was not synced.
// At times nobody is told.
func (w *world) strikeReplug(nd *node) {
	for _, d := range nd.disks {
		if d.gone || d.out || d.id == 0 || !nd.up || nd.paused || nd.inUse[d.id] != d {
			continue
		}
		w.report.Faults["replug"]++
		w.trace("%s: disk %d is taken out", nd.id, d.id)
		nd.unplug(d)
		if w.chance(0.5) {
			nd.propose(core.Change{Kind: core.ChangeFail, Disk: d.id})
		}
		w.after(w.between(time.Millisecond, 5*time.Second), func() { w.plug(nd, d) })
		return
	}
}

// plug puts a disk in again.
func (w *world) plug(nd *node, d *disk) {
	if d.gone || !d.out {
		return
	}
	w.trace("%s: disk %d is put in", nd.id, d.id)
	d.out = false
	w.attach(nd, d)
}

// attach says that a disk which failed is good again, until the map says so too.
func (w *world) attach(nd *node, d *disk) {
	m := w.check.maps[w.check.top]
	md := m.Disk(d.id)
	if d.gone || d.out || md == nil || nd.inUse[d.id] == d && md.State == core.DiskOK {
		return
	}
	if nd.up && !nd.paused && nd.node.Map() != nil {
		if md.State == core.DiskFailed {
			nd.propose(core.Change{Kind: core.ChangeDiskState, Disk: d.id, State: string(core.DiskOK)})
		}
		nd.mapChanged()
	}
	w.after(time.Second, func() { w.attach(nd, d) })
}

// strikeBlink cuts a node off while the others lose power for a moment; somebody
// is quick to say that the node is gone.
func (w *world) strikeBlink(nd *node) {
	w.report.Faults["blink"]++
	w.trace("%s is cut off, the others blink", nd.id)
	for _, id := range w.order {
		other := w.nodes[id]
		if other == nd {
			continue
		}
		w.cutFor(nd.id, id, w.between(4*time.Second, 12*time.Second))
		if !other.up || other.paused {
			continue
		}
		other.crash()
		w.after(w.between(10*time.Millisecond, 300*time.Millisecond), func() {
			if !other.up {
				other.start()
			}
		})
	}
	w.after(w.between(300*time.Millisecond, 900*time.Millisecond), func() {
		for _, id := range w.order {
			if other := w.nodes[id]; other != nd && other.up && !other.paused {
				other.propose(core.Change{Kind: core.ChangeFail, Node: nd.id})
				return
			}
		}
	})
}

// cutFor cuts the link between two nodes, both ways.
func (w *world) cutFor(a, b core.NodeID, d time.Duration) {
	ab, ba := [2]core.NodeID{a, b}, [2]core.NodeID{b, a}
	w.cut[ab], w.cut[ba] = true, true
	w.after(d, func() {
		delete(w.cut, ab)
		delete(w.cut, ba)
	})
}

// strikeVoterState has a voter lose its state in a restart. It spares clusters in
// which another voter has lost its own and was not replaced yet, and those whose
// voters are about to change: a change that waits or is on its way, or a map that
// the bus has lost and some voters have confirmed, may leave it the only one.
func (w *world) strikeVoterState(nd *node) {
	if w.bus.flying > 0 {
		return
	}
	votes := false
	maps := []*core.Map{w.check.maps[w.check.top], w.bus.value}
	for _, id := range w.order {
		other := w.nodes[id]
		if slices.ContainsFunc(other.changes, func(c core.Change) bool { return c.Kind == core.ChangeVoters }) {
			return
		}
		for _, m := range []*core.Map{other.node.Newest(), other.saved, other.voter.Map} {
			if m != nil && m.Epoch > w.check.top {
				maps = append(maps, m)
			}
		}
	}
	for _, m := range maps {
		if len(m.Voters) < 3 || !slices.Equal(m.Voters, m.OldVoters) {
			return
		}
		for _, v := range m.Voters {
			votes = votes || v.Node == nd.id
			if !w.nodes[v.Node].up || w.nodes[v.Node].voter.Key != v.Key {
				return
			}
		}
	}
	if !votes || nd.paused {
		return
	}
	w.report.Faults["voter state"]++
	nd.crash()
	nd.voter = slot.VoterState{Key: w.name("voter")}
	nd.start()
}

// strikeStop stops a node as an operator does: it hands over what it owns.
func (w *world) strikeStop(nd *node) {
	if !nd.up || nd.paused || nd.node.Map() == nil {
		return
	}
	w.report.Faults["stop"]++
	w.trace("%s is to stop", nd.id)
	nd.leaving = true
	nd.propose(core.Change{Kind: core.ChangeFail, Node: nd.id, State: "stop"})
	life := nd.life
	w.after(w.between(50*time.Millisecond, 2*time.Second), func() {
		if nd.life != life || !nd.up {
			return
		}
		nd.resume()
		nd.crash()
		w.after(w.between(100*time.Millisecond, 15*time.Second), func() {
			if !nd.up {
				nd.start()
			}
		})
	})
}

// strikeAdd adds a disk, or a node with one.
func (w *world) strikeAdd(nd *node) {
	if !nd.up || nd.paused || nd.node.Map() == nil {
		return
	}
	if w.chance(0.5) && len(nd.disks) < 4 {
		w.report.Faults["new disk"]++
		nd.addDisk()
		nd.register(nd.node.Map())
		return
	}
	if len(w.order) >= 6 {
		return
	}
	w.report.Faults["new node"]++
	id := core.NodeID(fmt.Sprintf("n%d", len(w.order)+1))
	fresh := newNode(w, id)
	d := fresh.addDisk()
	fresh.start()
	var join func()
	join = func() {
		if stateOf(w.check.maps[w.check.top], id) != "" {
			return
		}
		if by := w.nodes[w.order[w.rng.IntN(len(w.order))]]; by.up && !by.paused && by.node.Map() != nil {
			by.propose(core.Change{
				Kind: core.ChangeAddNode, Nodes: []core.Node{{ID: id, Peer: string(id), Client: string(id)}},
				Disks: []core.Disk{{UUID: d.uuid, Name: "d1", Weight: 1}},
			})
		}
		w.after(time.Second, join)
	}
	join()
}

// stateOf is a node's state in a map, "" if it is not there.
func stateOf(m *core.Map, id core.NodeID) core.NodeState {
	if n := m.Node(id); n != nil {
		return n.State
	}
	return ""
}

func (w *world) strikeCrash(nd *node) {
	if !nd.up {
		return
	}
	w.report.Faults["crash"]++
	nd.crash()
	d := w.between(10*time.Millisecond, 2*time.Second)
	switch {
	case w.chance(0.3):
		d = w.between(4*time.Second, 30*time.Second)
	case w.chance(0.1):
		d = w.between(30*time.Second, 60*time.Second)
	}
	w.after(d, func() {
		if !nd.up {
			nd.start()
		}
	})
}

func (w *world) strikePause(nd *node) {
	if !nd.up || nd.paused {
		return
	}
	w.report.Faults["pause"]++
	nd.pause()
	d := w.between(10*time.Millisecond, 1500*time.Millisecond)
	if w.chance(0.4) {
		d = w.between(3*time.Second, 15*time.Second)
	}
	w.after(d, nd.resume)
}

// strikeCut cuts links: of a node to all or some others, one way or both.
func (w *world) strikeCut(nd *node) {
	w.report.Faults["cut"]++
	var pairs [][2]core.NodeID
	some := w.chance(0.5)
	way := w.rng.IntN(3)
	for _, other := range w.order {
		if other == nd.id || some && w.chance(0.5) {
			continue
		}
		if way != 1 {
			pairs = append(pairs, [2]core.NodeID{nd.id, other})
		}
		if way != 0 {
			pairs = append(pairs, [2]core.NodeID{other, nd.id})
		}
	}
	w.trace("cut %v", pairs)
	for _, p := range pairs {
		w.cut[p] = true
	}
	w.after(w.between(300*time.Millisecond, 12*time.Second), func() {
		for _, p := range pairs {
			delete(w.cut, p)
		}
	})
}

// calm says whether nothing else is wrong just now: what would be lost together
// with a disk for good cannot come back.
func (w *world) calm() bool {
	if len(w.cut) > 0 || w.loss > 0 || w.bus.away {
		return false
	}
	for _, id := range w.order {
		nd := w.nodes[id]
		if !nd.up || nd.paused || nd.proposing || len(nd.changes) > 0 {
			return false
		}
	}
	return true
}

// strikeDisk takes a disk away for good; a blank one comes in its place. It
// spares a disk without which a slot would have nothing left.
func (w *world) strikeDisk(nd *node) {
	m := w.check.maps[w.check.top]
	if m == nil {
		return
	}
	if !w.calm() {
		w.after(w.between(100*time.Millisecond, time.Second), func() {
			if !w.quiet && w.chance(0.9) {
				w.strikeDisk(nd)
			}
		})
		return
	}
	for _, d := range nd.disks {
		if d.gone || d.id == 0 || nd.inUse[d.id] == nil || w.lastCopy(d) {
			continue
		}
		w.report.Faults["disk"]++
		w.trace("%s loses disk %d", nd.id, d.id)
		d.gone = true
		id := d.id
		delete(nd.inUse, id)
		nd.node.RemoveDisk(nd.boottime(), id)
		nd.tick()
		nd.propose(core.Change{Kind: core.ChangeFail, Disk: id})
		nd.addDisk()
		return
	}
}

// lastCopy says whether losing the disk might lose a slot: in some map in
// effect or under way, no other disk that is there is in sync with it.
func (w *world) lastCopy(d *disk) bool {
	for _, m := range []*core.Map{w.check.maps[w.check.top], w.bus.value} {
		for s := range core.SlotID(slots) {
			row := m.Slots[s]
			mine, others := false, 0
			for _, x := range row.Insync {
				other := w.disk(m, x)
				if other == d {
					mine = true
				} else if other != nil {
					others++
				}
			}
			if mine && others < 2 {
				return true
			}
		}
	}
	return false
}

// strikeMap changes the map on purpose: another owner, weights, maintenance.
func (w *world) strikeMap(nd *node) {
	if !nd.up || nd.paused || nd.node.Map() == nil {
		return
	}
	m := nd.node.Map()
	w.report.Faults["map"]++
	switch w.rng.IntN(3) {
	case 0:
		s := core.SlotID(w.rng.IntN(slots))
		if row := m.Slots[s]; len(row.Insync) > 1 {
			nd.propose(core.Change{Kind: core.ChangeOwner, Slot: s, Term: row.Term, Disk: row.Insync[1+w.rng.IntN(len(row.Insync)-1)]})
		}
	case 1:
		weight := 0.2 + 3*w.rng.Float64()
		nd.propose(core.Change{Kind: core.ChangeWeight, Node: w.order[w.rng.IntN(len(w.order))], Weight: &weight})
	case 2:
		other := w.order[w.rng.IntN(len(w.order))]
		state := core.NodeMaintenance
		if stateOf(m, other) == core.NodeMaintenance {
			state = core.NodeActive
		}
		nd.propose(core.Change{Kind: core.ChangeNodeState, Node: other, State: string(state)})
	}
}

// strikeVoters replaces a voter, or changes their number.
func (w *world) strikeVoters(nd *node) {
	if !nd.up || nd.paused || nd.node.Map() == nil {
		return
	}
	m := nd.node.Map()
	want := []int{1, 3, 3, 5}[w.rng.IntN(4)]
	if want > len(w.order) {
		want = 3
	}
	var voters []core.Voter
	for _, i := range w.rng.Perm(len(w.order)) {
		if other := w.nodes[w.order[i]]; len(voters) < want && other.up && stateOf(m, other.id) == core.NodeActive {
			voters = append(voters, core.Voter{Node: other.id, Key: other.voter.Key})
		}
	}
	if len(voters) == want {
		w.report.Faults["voters"]++
		nd.propose(core.Change{Kind: core.ChangeVoters, Voters: voters})
	}
}

// heal ends all faults.
func (w *world) heal() {
	w.loss = 0
	w.bus.away = false
	clear(w.cut)
	for _, id := range w.order {
		nd := w.nodes[id]
		nd.resume()
		if !nd.up {
			nd.start()
		}
		nd.leaving = false
		for _, d := range nd.disks {
			w.plug(nd, d)
			w.attach(nd, d)
		}
	}
	w.after(time.Second, func() { w.endMaintenance() })
}

func (w *world) endMaintenance() {
	m := w.check.maps[w.check.top]
	for _, id := range w.order {
		if stateOf(m, id) == core.NodeMaintenance {
			if nd := w.nodes[w.order[0]]; nd.up {
				nd.propose(core.Change{Kind: core.ChangeNodeState, Node: id, State: string(core.NodeActive)})
			}
		}
	}
	w.after(2*time.Second, w.endMaintenance)
}
