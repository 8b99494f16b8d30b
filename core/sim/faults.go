package sim

import (
	"time"

	"github.com/shoalstore/shoal/core"
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
	case p < 22:
		w.strikeCrash(nd)
	case p < 38:
		w.strikePause(nd)
	case p < 56:
		w.strikeCut(nd)
	case p < 66:
		w.report.Faults["loss"]++
		w.loss = 0.02 + 0.3*w.rng.Float64()
		w.after(w.between(200*time.Millisecond, 4*time.Second), func() { w.loss = 0 })
	case p < 74:
		w.report.Faults["bus"]++
		w.trace("bus away")
		w.bus.away = true
		w.after(w.between(500*time.Millisecond, 9*time.Second), func() { w.bus.away = false; w.trace("bus back") })
	case p < 80:
		w.strikeDisk(nd)
	case p < 90:
		w.strikeMap(nd)
	default:
		w.strikeVoters(nd)
	}
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
		if m.Node(other).State == core.NodeMaintenance {
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
		if other := w.nodes[w.order[i]]; len(voters) < want && other.up && m.Node(other.id).State == core.NodeActive {
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
	}
	w.after(time.Second, func() { w.endMaintenance() })
}

func (w *world) endMaintenance() {
	m := w.check.maps[w.check.top]
	for _, id := range w.order {
		if n := m.Node(id); n.State == core.NodeMaintenance {
			if nd := w.nodes[w.order[0]]; nd.up {
				nd.propose(core.Change{Kind: core.ChangeNodeState, Node: id, State: string(core.NodeActive)})
			}
		}
	}
	w.after(2*time.Second, w.endMaintenance)
}
