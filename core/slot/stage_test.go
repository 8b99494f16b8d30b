package slot

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/shoalstore/shoal/core"
)

// stage plays a small cluster step by step: nothing happens that a test does
// not ask for. Every node has one disk of the same number, there is one slot.
type stage struct {
	now    core.Instant
	actors map[core.NodeID]*actor
	order  []core.NodeID
	maps   []*core.Map
	wire   []envelope
	rules  Rules
	cut    map[core.NodeID]bool
	hold   func(envelope) bool // messages that wait, nil for none
	held   []envelope
	out    strings.Builder
	mute   bool
}

// actor is a node with what it keeps durably.
type actor struct {
	id       core.NodeID
	disk     core.DiskID
	boot     uint64
	voter    VoterState
	log      memLog
	node     *Node // nil while down
	persists []Persist
	stalled  bool // persists wait
	read     Reading
}

type envelope struct {
	from, to core.NodeID
	msg      *Message
}

// memLog is a disk's copy of the slot: the state, and the entries of which a
// row is the newest, tombstones above the floor included. An entry has one row.
type memLog struct {
	state   core.SlotState
	entries []core.Entry
}

func (l *memLog) apply(b *core.SlotBatch) error {
	cutAt := func(after, upTo uint64) {
		l.entries = slices.DeleteFunc(l.entries, func(e core.Entry) bool { return e.Version.Seq > after && e.Version.Seq <= upTo })
	}
	if b.Remove {
		l.entries, l.state = nil, core.SlotState{}
	}
	if b.Adopt != nil {
		l.state.Ballot = *b.Adopt
	}
	if b.Undo != nil && b.Undo.Seq <= l.state.Last.Seq {
		cutAt(b.Undo.Seq, ^uint64(0))
		l.state.Last = *b.Undo
		if l.state.Committed.Seq > b.Undo.Seq {
			l.state.Committed = *b.Undo
		}
	}
	if r := b.Replace; r != nil {
		cutAt(r.After, ^uint64(0))
		l.entries = append(l.entries, r.Entries...)
		l.state.Committed, l.state.Last, l.state.Floor = r.UpTo, r.UpTo, r.Floor
	}
	for i := range b.Append {
		if v := b.Append[i].Version; v.Seq != l.state.Last.Seq+1 {
			return fmt.Errorf("entry %v does not follow %v", v, l.state.Last)
		}
		l.entries = append(l.entries, b.Append[i])
		l.state.Last = b.Append[i].Version
	}
	if b.Commit != nil {
		if b.Commit.Seq > l.state.Last.Seq {
			return fmt.Errorf("commit %v is above %v", *b.Commit, l.state.Last)
		}
		for i := range l.entries {
			if e := &l.entries[i]; e.Version.Seq <= b.Commit.Seq {
				l.state.Floor = max(l.state.Floor, e.Floor)
			}
		}
		l.state.Committed = *b.Commit
		l.compact()
	}
	return nil
}

// compact lets go of what later committed entries replace.
func (l *memLog) compact() {
	newest := map[string]bool{}
	for i := len(l.entries) - 1; i >= 0; i-- {
		e := &l.entries[i]
		if e.Version.Seq > l.state.Committed.Seq {
			continue
		}
		key, old := "", true
		if len(e.Rows) > 0 {
			key = e.Rows[0].Key
			old = newest[key] || e.Rows[0].Deleted && e.Version.Seq <= l.state.Floor
		}
		if newest[key] = true; old {
			l.entries = slices.Delete(l.entries, i, i+1)
		}
	}
}

// read is RowStore.Entries; limit counts entries.
func (l *memLog) read(after uint64, upTo core.Version, limit int) core.Entries {
	out := core.Entries{UpTo: upTo}
	for i := range l.entries {
		e := l.entries[i]
		if e.Version.Seq <= after || e.Version.Seq > upTo.Seq {
			continue
		}
		out.List = append(out.List, e)
		if len(out.List) == limit {
			out.UpTo = e.Version
			break
		}
	}
	return out
}

// text writes a log as versions, keys and values: committed | tail.
func (l *memLog) text() string {
	var committed, tail strings.Builder
	for i := range l.entries {
		e := &l.entries[i]
		b := &committed
		if e.Version.Seq > l.state.Committed.Seq {
			b = &tail
		}
		fmt.Fprintf(b, " %v", e.Version)
		for _, r := range e.Rows {
			fmt.Fprintf(b, ":%s=%s", r.Key, r.Value)
		}
	}
	return fmt.Sprintf("to %d:%s |%s", l.state.Committed.Seq, committed.String(), tail.String())
}

func (s *stage) printf(format string, args ...any) {
	if !s.mute {
		fmt.Fprintf(&s.out, format+"\n", args...)
	}
}

// newStage makes nodes n1 ... nN, of which the first are voters, and a map in
// which the given disks are in sync.
func newStage(nodes, voters int, insync ...core.DiskID) *stage {
	s := &stage{now: core.Instant(time.Hour), actors: map[core.NodeID]*actor{}, cut: map[core.NodeID]bool{}}
	m := &core.Map{
		Cluster: "c", Epoch: 1, Replicas: 3, Bus: 1, NextDisk: core.DiskID(nodes) + 1,
		Slots: core.SlotTable{{Term: 1, Insync: insync}},
	}
	for i := range nodes {
		id := core.NodeID(fmt.Sprintf("n%d", i+1))
		a := &actor{id: id, disk: core.DiskID(i + 1), boot: 1, voter: VoterState{Key: "k" + string(id)}}
		s.actors[id] = a
		s.order = append(s.order, id)
		m.Nodes = append(m.Nodes, core.Node{ID: id, Boot: 1, State: core.NodeActive})
		m.Disks = append(m.Disks, core.Disk{ID: a.disk, UUID: fmt.Sprint("u", i), Node: id, State: core.DiskOK})
		if i < voters {
			m.Voters = append(m.Voters, core.Voter{Node: id, Key: a.voter.Key})
		}
	}
	s.seal(m)
	for _, id := range s.order {
		if a := s.actors[id]; m.IsVoter(id, a.voter.Key) {
			a.voter.Map = m
		}
		s.start(id)
	}
	return s
}

// seal finishes a map and keeps it as the newest.
func (s *stage) seal(m *core.Map) *core.Map {
	if err := m.Seal(); err != nil {
		panic(err)
	}
	s.maps = append(s.maps, m)
	return m
}

// next makes the successor of the newest map.
func (s *stage) next(change func(m *core.Map)) *core.Map {
	was := s.maps[len(s.maps)-1]
	m := was.Clone()
	m.Epoch, m.Prev, m.OldVoters = was.Epoch+1, was.Sum(), slices.Clone(was.Voters)
	change(m)
	if !slices.Equal(m.Voters, m.OldVoters) {
		m.Bus++
	}
	return s.seal(m)
}

func (s *stage) start(id core.NodeID) {
	a := s.actors[id]
	a.node = New(Config{
		ID: id, Boot: a.boot, Voter: a.voter, Started: s.now, Rules: s.rules,
		Params: Params{CatchupBytes: 2, TombstoneAge: 10 * time.Second},
	})
	a.node.SeeMap(s.now, s.maps[0])
	a.node.AddDisk(s.now, a.disk, a.loaded())
	s.take(a)
}

// crash stops a node; keep of its waiting batches have reached the disk.
func (s *stage) crash(id core.NodeID, keep int) {
	a := s.actors[id]
	for _, p := range a.persists[:min(keep, len(a.persists))] {
		s.write(a, &p)
	}
	a.persists, a.node, a.stalled = nil, nil, false
}

// replug takes a node's disk out, with the batches that wait, and puts it back.
func (s *stage) replug(id core.NodeID) {
	a := s.actors[id]
	a.persists, a.stalled = nil, false
	s.do(id, func(n *Node) { n.RemoveDisk(s.now, a.disk) })
	s.do(id, func(n *Node) { n.AddDisk(s.now, a.disk, a.loaded()) })
}

// reclaim has a node forget the slot.
func (s *stage) reclaim(id core.NodeID) {
	a := s.actors[id]
	s.do(id, func(n *Node) {
		if !n.Reclaim(s.now, a.disk, 0) {
			s.printf("%s keeps it", id)
		}
	})
}

// loaded is what the node's disk holds.
func (a *actor) loaded() map[core.SlotID]Loaded {
	return map[core.SlotID]Loaded{0: {
		State: a.log.state, Tail: a.log.read(a.log.state.Committed.Seq, a.log.state.Last, 1<<30).List,
	}}
}

func (s *stage) write(a *actor, p *Persist) {
	if p.Voter != nil {
		a.voter = *p.Voter
	} else if err := a.log.apply(&p.Batch); err != nil {
		s.printf("%s BROKEN LOG: %v", a.id, err)
	}
}

// take collects what a node wants done.
func (s *stage) take(a *actor) {
	out := a.node.Take()
	for _, m := range out.Sends {
		e := envelope{a.id, m.To, m.Msg}
		if s.hold != nil && s.hold(e) {
			s.held = append(s.held, e)
		} else {
			s.wire = append(s.wire, e)
		}
	}
	a.persists = append(a.persists, out.Persists...)
	for _, r := range out.Reads {
		a.node.ReadDone(s.now, r.ID, a.log.read(r.After, r.UpTo, r.Bytes), nil)
	}
	for _, r := range out.Results {
		if r.Err == nil {
			s.printf("%s write %v committed", a.id, r.Version)
		} else {
			s.printf("%s write: %v", a.id, r.Err)
		}
	}
	for _, c := range out.Changes {
		s.printf("%s proposes %s disk %d, term %d, boot %d", a.id, c.Kind, c.Disk, c.Term, c.Boot)
	}
	for _, t := range out.Alarms {
		s.printf("%s ALARM %s", a.id, t)
	}
	if len(out.Reads) > 0 {
		s.take(a)
	}
}

// do lets something happen to a node that is up.
func (s *stage) do(id core.NodeID, f func(n *Node)) {
	if a := s.actors[id]; a.node != nil {
		f(a.node)
		s.take(a)
	}
}

func (s *stage) deliver(e envelope) {
	if !s.cut[e.from] && !s.cut[e.to] {
		s.do(e.to, func(n *Node) { n.Receive(s.now, e.from, e.msg) })
	}
}

// settle delivers all messages and carries out all batches, in order, until
// there are none.
func (s *stage) settle() {
	for range 10_000 {
		quiet := true
		for _, id := range s.order {
			a := s.actors[id]
			for a.node != nil && !a.stalled && len(a.persists) > 0 {
				p := a.persists[0]
				a.persists = a.persists[1:]
				s.write(a, &p)
				s.do(id, func(n *Node) { n.Persisted(s.now, p.ID, nil) })
				quiet = false
			}
		}
		if len(s.wire) > 0 {
			e := s.wire[0]
			s.wire = s.wire[1:]
			s.deliver(e)
			quiet = false
		}
		if quiet {
			return
		}
	}
	s.printf("NO REST")
}

// run lets time pass, with ticks every 100 ms.
func (s *stage) run(d time.Duration) {
	for end := s.now.Add(d); s.now < end; {
		s.now = s.now.Add(100 * time.Millisecond)
		for _, id := range s.order {
			s.do(id, func(n *Node) { n.Tick(s.now) })
		}
		s.settle()
	}
}

// show hands the newest map to nodes, to all if none are named.
func (s *stage) show(ids ...core.NodeID) {
	if len(ids) == 0 {
		ids = s.order
	}
	m := s.maps[len(s.maps)-1]
	for _, id := range ids {
		s.do(id, func(n *Node) { n.SeeMap(s.now, m) })
	}
}

// read takes a right to read, on the ground of which the node's next writes are made.
func (s *stage) read(id core.NodeID) {
	s.do(id, func(n *Node) { s.actors[id].read, _ = n.right(0) })
}

// propose writes a value, on the ground of the last read.
func (s *stage) propose(id core.NodeID, key, value string) {
	s.do(id, func(n *Node) {
		row := core.Row{RowKey: core.RowKey{Bucket: 1, Key: key}, Value: []byte(value), Deleted: value == ""}
		if _, err := n.Propose(s.now, s.actors[id].read, core.Entry{Rows: []core.Row{row}}, Need{Domains: 1, Domain: core.DomainNode}); err != nil {
			s.printf("%s refuses: %v", id, err)
		}
	})
}

// serving lists the nodes that would answer a read.
func (s *stage) serving() string {
	var out []string
	for _, id := range s.order {
		s.do(id, func(n *Node) {
			if g, err := n.Serving(s.now, 0); err == nil {
				out = append(out, fmt.Sprintf("%s at %v", id, g.At))
			}
		})
	}
	sort.Strings(out)
	return strings.Join(out, ", ")
}

// print writes what disks hold and who serves.
func (s *stage) print() {
	for _, id := range s.order {
		a := s.actors[id]
		s.printf("%s disk %d: ballot %v, floor %d: %s", id, a.disk, a.log.state.Ballot, a.log.state.Floor, a.log.text())
	}
	s.printf("serving: %s", s.serving())
}

// printMaps writes which maps are the newest, in effect and confirmed.
func (s *stage) printMaps() {
	epoch := func(m *core.Map) core.Epoch {
		if m == nil {
			return 0
		}
		return m.Epoch
	}
	for _, id := range s.order {
		s.do(id, func(n *Node) {
			s.printf("%s: newest %d, in effect %d, confirmed %d", id, epoch(n.Newest()), epoch(n.Map()), n.Confirmed())
		})
	}
	s.printf("serving: %s", s.serving())
}
