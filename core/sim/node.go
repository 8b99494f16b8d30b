package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/slot"
	"github.com/shoalstore/shoal/placement"
)

// node drives a slot.Node as the engine does, with simulated disks.
type node struct {
	w     *world
	id    core.NodeID
	disks []*disk
	voter slot.VoterState // durable
	saved *core.Map       // durable

	up, paused bool
	life       int // counts starts; what belongs to an earlier one is void
	boot       uint64
	offset     time.Duration
	node       *slot.Node
	inUse      map[core.DiskID]*disk
	parked     []func()

	changes   []core.Change
	proposing bool
	waiters   map[slot.WriteID]func(slot.Result)
	locks     map[string][]func()
	voters    []slot.Persist
	leaving   bool
	barred    map[int]bool // shards that no record may name any more
}

// disk is a device: what is durable, and what is on its way.
type disk struct {
	uuid    string
	id      core.DiskID
	store   *store
	shards  map[int]shard
	pending []slot.Persist
	busy    bool
	gone    bool // for good
	out     bool // for now
	plugged int  // counts how often it was put in
}

// drop loses what was on its way, but for a prefix.
func (d *disk) drop(w *world) {
	made := 0
	if len(d.pending) > 0 {
		made = w.rng.IntN(len(d.pending) + 1)
	}
	for i := range d.pending[:made] {
		d.apply(w, &d.pending[i].Batch)
	}
	d.pending, d.busy = nil, false
	d.plugged++
}

func (d *disk) apply(w *world, b *core.SlotBatch) {
	if wrong := d.store.apply(b); wrong != "" {
		w.fail("disk %d: %s", d.id, wrong)
	}
}

func newNode(w *world, id core.NodeID) *node {
	nd := &node{w: w, id: id}
	nd.voter.Key = w.name("voter")
	w.nodes[id] = nd
	w.order = append(w.order, id)
	slices.Sort(w.order)
	return nd
}

func (w *world) name(what string) string {
	w.nextNo++
	return fmt.Sprintf("%s-%d", what, w.nextNo)
}

func (nd *node) addDisk() *disk {
	d := &disk{uuid: nd.w.name("disk"), store: newStore(), shards: map[int]shard{}}
	nd.disks = append(nd.disks, d)
	return d
}

func (nd *node) boottime() core.Instant { return core.Instant(nd.w.now + nd.offset) }

// start boots the node from what is durable.
func (nd *node) start() {
	w := nd.w
	nd.life++
	nd.up, nd.paused, nd.parked, nd.leaving = true, false, nil, false
	nd.boot = uint64(w.now/time.Millisecond)*100 + uint64(nd.life)
	nd.offset = w.between(time.Hour, 2*time.Hour)
	nd.inUse = map[core.DiskID]*disk{}
	nd.changes, nd.proposing, nd.barred = nil, false, map[int]bool{}
	nd.waiters, nd.locks = map[slot.WriteID]func(slot.Result){}, map[string][]func(){}
	nd.node = slot.New(slot.Config{
		ID: nd.id, Boot: nd.boot, Rules: w.opt.Rules, Voter: nd.voter, Started: nd.boottime(),
		Params: slot.Params{TombstoneAge: 20 * time.Second, CatchupBytes: 3, Streams: 1},
	})
	w.trace("%s starts, boot %d", nd.id, nd.boot)
	if nd.saved != nil {
		nd.seeMap(nd.saved)
	}
	life := nd.life
	nd.every(life, 100*time.Millisecond, nd.tick)
	nd.every(life, 250*time.Millisecond, nd.steward)
	nd.every(life, movesEvery, nd.move)
	nd.every(life, sweepEvery, nd.sweep)
	nd.every(life, 100*time.Millisecond, nd.reclaim)
	nd.every(life, 2*time.Second, func() {
		w.bus.load(func(m *core.Map, _ uint64, err error) {
			if err == nil {
				nd.when(life, func() { nd.seeMap(m) })
			}
		})
	})
}

// every repeats f while the node lives and is not paused.
func (nd *node) every(life int, d time.Duration, f func()) {
	nd.w.after(nd.w.between(d/2, d), func() {
		if nd.life != life || !nd.up {
			return
		}
		if !nd.paused {
			f()
		}
		nd.every(life, d, f)
	})
}

// when runs f in the node's present life, after a pause if there is one.
func (nd *node) when(life int, f func()) {
	switch {
	case !nd.up || nd.life != life:
	case nd.paused:
		nd.parked = append(nd.parked, f)
	default:
		f()
	}
}

// crash stops the node. Of what was on its way to the disks a prefix made it.
func (nd *node) crash() {
	nd.up = false
	nd.life++
	for _, d := range nd.disks {
		d.drop(nd.w)
	}
	if len(nd.voters) > 0 && nd.w.chance(0.5) {
		nd.voter = *nd.voters[0].Voter
	}
	nd.voters = nil
	nd.w.report.Coverage = nd.w.report.Coverage.Add(nd.node.Stats())
	nd.w.trace("%s crashes", nd.id)
}

func (nd *node) pause() {
	nd.paused = true
	nd.w.trace("%s pauses", nd.id)
}

func (nd *node) resume() {
	if !nd.up || !nd.paused {
		return
	}
	nd.paused = false
	nd.w.trace("%s resumes", nd.id)
	parked := nd.parked
	nd.parked = nil
	for _, f := range parked {
		f()
	}
}

// do lets something happen to the protocol and carries out what follows.
func (nd *node) do(f func(n *slot.Node, now core.Instant)) {
	f(nd.node, nd.boottime())
	out := nd.node.Take()
	w, life := nd.w, nd.life
	for _, p := range out.Persists {
		if p.Voter != nil {
			nd.saveVoter(p)
		} else if d := nd.inUse[p.Disk]; d != nil {
			d.pending = append(d.pending, p)
			nd.write(d)
		}
	}
	for _, s := range out.Sends {
		w.send(nd.id, s.To, s.Msg)
	}
	for _, r := range out.Reads {
		w.after(w.between(100*time.Microsecond, 20*time.Millisecond), func() {
			nd.when(life, func() {
				d := nd.inUse[r.Disk]
				if d == nil {
					return
				}
				e := d.store.slot(r.Slot).entries(r.After, r.UpTo, r.Bytes)
				nd.do(func(n *slot.Node, now core.Instant) { n.ReadDone(now, r.ID, e, nil) })
			})
		})
	}
	for _, r := range out.Results {
		if f := nd.waiters[r.ID]; f != nil {
			delete(nd.waiters, r.ID)
			f(r)
		}
	}
	for _, a := range out.Alarms {
		// A bus that forgot what it had taken is what some alarms are for.
		if w.report.Faults["rollback"] == 0 {
			w.fail("%s: alarm: %s", nd.id, a)
		}
		w.report.Alarms++
	}
	w.check.proposed(out.Changes)
	nd.changes = append(nd.changes, out.Changes...)
	if out.MapChanged {
		nd.mapChanged()
	}
	nd.kick()
}

// write makes the next batches of a disk durable, as many as are waiting.
func (nd *node) write(d *disk) {
	if d.busy || len(d.pending) == 0 {
		return
	}
	w, life := nd.w, nd.life
	d.busy = true
	delay := w.between(200*time.Microsecond, 5*time.Millisecond)
	switch p := w.rng.IntN(2000); {
	case p < 20:
		delay = w.between(50*time.Millisecond, 1500*time.Millisecond)
	case p < 21:
		delay = w.between(2*time.Second, 10*time.Second)
	}
	k, plugged := len(d.pending), d.plugged
	w.after(delay, func() {
		// The device goes on while the process is paused.
		if nd.life != life || !nd.up || d.gone || d.plugged != plugged {
			return
		}
		done := d.pending[:k:k]
		for i := range done {
			d.apply(w, &done[i].Batch)
		}
		d.pending, d.busy = slices.Clone(d.pending[k:]), false
		nd.when(life, func() {
			for i := range done {
				nd.do(func(n *slot.Node, now core.Instant) { n.Persisted(now, done[i].ID, nil) })
			}
		})
		nd.write(d)
	})
}

func (nd *node) saveVoter(p slot.Persist) {
	w, life := nd.w, nd.life
	nd.voters = append(nd.voters, p)
	w.after(w.between(time.Millisecond, 5*time.Millisecond), func() {
		if nd.life != life || !nd.up {
			return
		}
		nd.voters = nd.voters[1:]
		nd.voter = *p.Voter
		nd.when(life, func() { nd.do(func(n *slot.Node, now core.Instant) { n.Persisted(now, p.ID, nil) }) })
	})
}

func (nd *node) tick() {
	nd.do(func(n *slot.Node, now core.Instant) { n.Tick(now) })
}

// reclaim forgets what is on disks that are no members, often much sooner than
// anybody would.
func (nd *node) reclaim() {
	for _, x := range nd.node.Strays() {
		if nd.w.chance(0.5) {
			nd.do(func(n *slot.Node, now core.Instant) { n.Reclaim(now, x.Disk, x.Slot) })
		}
	}
}

func (nd *node) seeMap(m *core.Map) {
	nd.do(func(n *slot.Node, now core.Instant) { n.SeeMap(now, m) })
}

// mapChanged keeps the newest map, takes disks into use and registers.
func (nd *node) mapChanged() {
	w := nd.w
	if w.chance(0.7) {
		nd.saved = nd.node.Newest()
	}
	m := nd.node.Map()
	if m == nil {
		return
	}
	w.check.effect(nd, m)
	known := map[string]core.DiskID{}
	for i := range m.Disks {
		if m.Disks[i].State == core.DiskOK {
			known[m.Disks[i].UUID] = m.Disks[i].ID
		}
	}
	for _, d := range nd.disks {
		if d.id != 0 && nd.inUse[d.id] == d && known[d.uuid] == 0 {
			// Somebody said that it failed. It is let go, and an operator
			// puts it back, whatever has become of the process.
			nd.unplug(d)
			w.after(w.between(time.Second, 5*time.Second), func() { w.plug(nd, d) })
		}
	}
	for _, d := range nd.disks {
		id := known[d.uuid]
		if id == 0 || nd.inUse[id] != nil || d.gone || d.out {
			continue
		}
		d.id = id
		nd.inUse[id] = d
		loaded := map[core.SlotID]slot.Loaded{}
		for s, x := range d.store.slots {
			loaded[s] = slot.Loaded{State: x.state, Tail: x.entries(x.state.Committed.Seq, x.state.Last, 1<<30).List}
		}
		nd.do(func(n *slot.Node, now core.Instant) { n.AddDisk(now, id, loaded) })
	}
	nd.register(m)
}

// unplug takes a disk out, with what was not synced.
func (nd *node) unplug(d *disk) {
	d.out = true
	d.drop(nd.w)
	delete(nd.inUse, d.id)
	nd.do(func(n *slot.Node, now core.Instant) { n.RemoveDisk(now, d.id) })
}

// register proposes the node's start and its new disks.
func (nd *node) register(m *core.Map) {
	me := m.Node(nd.id)
	if me == nil {
		return
	}
	if me.Boot < nd.boot {
		nd.propose(core.Change{Kind: core.ChangeBoot, Node: nd.id, Boot: nd.boot, Nodes: []core.Node{{ID: nd.id, Peer: string(nd.id), Client: string(nd.id)}}})
	}
	if me.Boot == nd.boot && me.State == core.NodeDown && !nd.leaving {
		nd.propose(core.Change{Kind: core.ChangeNodeState, Node: nd.id, State: string(core.NodeActive)})
	}
	known := map[string]bool{}
	for i := range m.Disks {
		d := &m.Disks[i]
		known[d.UUID] = true
		if d.Node == nd.id && d.State == core.DiskOK && nd.inUse[d.ID] == nil {
			nd.propose(core.Change{Kind: core.ChangeFail, Disk: d.ID})
		}
	}
	for _, d := range nd.disks {
		if !known[d.uuid] && !d.gone {
			nd.propose(core.Change{Kind: core.ChangeAddDisk, Node: nd.id, Disks: []core.Disk{{UUID: d.uuid, Name: d.uuid, Weight: 1}}})
		}
	}
}

func (nd *node) propose(c core.Change) {
	nd.changes = append(nd.changes, c)
	nd.kick()
}

// steward does what is due if this node is the first voter that is heard.
func (nd *node) steward() {
	m := nd.node.Map()
	if m == nil || nd.node.Newest() != m {
		return
	}
	nd.register(m)
	silent := nd.node.Silent(nd.boottime())
	for _, v := range m.Voters {
		if slices.Contains(silent, v.Node) || stateOf(m, v.Node) == core.NodeDown {
			continue
		}
		if v.Node == nd.id {
			candidates := map[core.NodeID]string{}
			for id, other := range nd.w.nodes {
				if other.up && !slices.Contains(silent, id) {
					candidates[id] = other.voter.Key
				}
			}
			if c := placement.PlanVoters(m, candidates, nd.w.wall(), 10*time.Second); c != nil {
				nd.propose(*c)
			}
			for _, c := range placement.Plan(m, nd.w.wall(), placement.State{Silent: silent, Grace: 10 * time.Second}) {
				nd.propose(c)
			}
		}
		return
	}
}

// kick proposes what waits, on top of a map in effect.
func (nd *node) kick() {
	if nd.proposing || len(nd.changes) == 0 || nd.node.Map() == nil || nd.node.Newest() != nd.node.Map() {
		return
	}
	w, life := nd.w, nd.life
	nd.proposing = true
	end := func() {
		nd.proposing = false
		w.after(w.between(10*time.Millisecond, 100*time.Millisecond), func() { nd.when(life, nd.kick) })
	}
	w.bus.load(func(stored *core.Map, rev uint64, err error) {
		nd.when(life, func() {
			m := nd.node.Map()
			switch {
			case err != nil || nd.node.Newest() != m:
				end()
				return
			case stored.Sum() != m.Sum():
				if stored.Epoch > m.Epoch {
					nd.seeMap(stored)
					end()
				} else {
					// The bus is older than the map in effect.
					w.bus.cas(m, rev, func(bool) { nd.when(life, end) })
				}
				return
			}
			changes := nd.changes
			nd.changes = nil
			next, _ := placement.Apply(m, w.wall(), changes)
			if next == nil {
				end()
				return
			}
			w.bus.cas(next, rev, func(ok bool) {
				nd.when(life, func() {
					if ok {
						nd.seeMap(next)
					}
					end()
				})
			})
		})
	})
}
