package slot

import (
	"time"

	"github.com/shoalstore/shoal/core"
)

// Params are the protocol's times and sizes. The zero value of a field means
// its default. Grant, LeaseUse and ReportEvery must be the same on all nodes.
type Params struct {
	ReportEvery time.Duration // between lease reports; 0.5 s
	Grant       time.Duration // for which a voter grants; 4 s from receipt
	LeaseUse    time.Duration // for which a node uses a grant; 3.5 s from sending
	RetryEvery  time.Duration // until an unanswered message is sent again; 0.3 s
	AckTimeout  time.Duration // until a silent member is dropped; 3 s
	DownTimeout time.Duration // the same where the connection is known to be down; 0.5 s
	MarkAfter   time.Duration // until an idle slot's commit mark is spread; 0.5 s
	// TombstoneAge is how long deletions are remembered; 10 min.
	TombstoneAge time.Duration
	CatchupBytes int // of one message to a joining disk; 1 MiB
	BridgeBytes  int // of writes held in memory while a joiner catches up; 4 MiB
	// Streams is how many joiners are sent history at a time; 8. Each holds
	// CatchupBytes here and there until they are durable; the others wait.
	Streams int
}

func (p Params) withDefaults() Params {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&p.ReportEvery, 500*time.Millisecond)
	def(&p.Grant, 4*time.Second)
	def(&p.LeaseUse, 3500*time.Millisecond)
	def(&p.RetryEvery, 300*time.Millisecond)
	def(&p.AckTimeout, 3*time.Second)
	def(&p.DownTimeout, 500*time.Millisecond)
	def(&p.MarkAfter, 500*time.Millisecond)
	def(&p.TombstoneAge, 10*time.Minute)
	if p.CatchupBytes == 0 {
		p.CatchupBytes = 1 << 20
	}
	if p.BridgeBytes == 0 {
		p.BridgeBytes = 4 << 20
	}
	if p.Streams == 0 {
		p.Streams = 8
	}
	return p
}

// Rules switches single checks off, so that tests can show that each of them
// is needed. The zero value has all checks on and is the only one for use.
type Rules struct {
	NoTermCheck   bool // members accept any ballot
	NoAllInsync   bool // a write commits once the owner alone has it
	NoMapConfirm  bool // a map counts as soon as it is seen
	NoRestartWait bool // a restarted voter confirms losses at once
	NoLease       bool // reads do not check the lease
	NoFsync       bool // members acknowledge before their disk has
	NoDropConfirm bool // an owner drops silent members though no voter hears it
	// NoReclaimCheck forgets what the map in effect alone says is not needed.
	NoReclaimCheck bool
}

// Config is what a Node starts with.
type Config struct {
	ID core.NodeID
	// Boot is this start's number, above those of all earlier ones. The node
	// acts once a map in effect carries it.
	Boot   uint64
	Params Params
	Rules  Rules
	// Voter is the persisted state of the node's voter. Its Key is chosen at
	// random where there is none yet.
	Voter VoterState
	// Started is the present time.
	Started core.Instant
}

// Loaded is what a disk holds of a slot when it is added: the state, and the
// entries above the committed mark.
type Loaded struct {
	State core.SlotState
	Tail  []core.Entry
}

// Node is the protocol's state on one node; see the package comment.
type Node struct {
	id    core.NodeID
	boot  uint64
	p     Params
	rules Rules
	now   core.Instant

	newest, effect *core.Map
	confirms       map[core.Voter]confirmation
	lease          lease
	voter          voter
	disks          map[core.DiskID]*disk
	down           map[core.NodeID]bool

	busy           []*replica
	streams, queue []stream // of history to joiners, and who waits for one
	waits          map[uint64]func(error)
	reads          map[uint64]func(core.Entries, error)
	nextID         uint64
	out            Output
	stats          Stats

	rights     Rights
	touched    []core.SlotID // whose rights may have changed since they were told
	touchedAll bool
}

type disk struct {
	id     core.DiskID
	failed bool
	slots  map[core.SlotID]*replica
}

// confirmation is the last map that a voter is known to have confirmed.
type confirmation struct {
	epoch core.Epoch
	sum   string
}

// Output is what a Node wants done. Persists for one disk must be carried out,
// and their completions reported, in order; everything else may be lost,
// delayed or reordered, Persists and Reads only by a crash.
type Output struct {
	Sends    []Send
	Persists []Persist
	Reads    []Read
	Results  []Result
	// Changes are proposals for the map.
	Changes []core.Change
	// Alarms name violations of what the protocol relies on. An operator
	// must look.
	Alarms []string
	// MapChanged says that the map in effect or the newest one changed.
	MapChanged bool
	// Opened says that a slot which was being taken over is active now.
	Opened bool
}

// Send is a message for a node, which may be the sender.
type Send struct {
	To  core.NodeID
	Msg *Message
}

// Persist is a change to be made durable, on a disk or, if Voter is set, in the
// node's own state. Report its end by [Node.Persisted].
type Persist struct {
	ID    uint64
	Disk  core.DiskID
	Batch core.SlotBatch
	Voter *VoterState
}

// Read asks for a stretch of a slot's history; answer with [Node.ReadDone].
type Read struct {
	ID    uint64
	Disk  core.DiskID
	Slot  core.SlotID
	After uint64
	UpTo  core.Version
	Bytes int
}

// Result is the end of a proposed write. Err is nil once it is committed,
// otherwise it wraps core.ErrUnknownOutcome.
type Result struct {
	ID      WriteID
	Version core.Version
	Err     error
}

// WriteID names a proposed write on its node.
type WriteID uint64

// New returns a node that knows no map and has no disks.
func New(c Config) *Node {
	n := &Node{
		id: c.ID, boot: c.Boot, p: c.Params.withDefaults(), rules: c.Rules, now: c.Started,
		confirms: map[core.Voter]confirmation{},
		disks:    map[core.DiskID]*disk{},
		down:     map[core.NodeID]bool{},
		waits:    map[uint64]func(error){},
		reads:    map[uint64]func(core.Entries, error){},
	}
	n.lease.init()
	n.voter.init(c.Voter, c.Started)
	if m := n.voter.state.Map; m != nil {
		n.newest = m
		n.confirms[n.Voter()] = confirmation{m.Epoch, m.Sum()}
		n.tally()
	}
	return n
}

// Take returns what the node wants done since the last call, and brings its
// [Rights] up to date.
func (n *Node) Take() Output {
	n.tell()
	out := n.out
	n.out = Output{}
	return out
}

// AddDisk gives the node a disk with what it holds. The disk's number is its
// number in the map.
func (n *Node) AddDisk(now core.Instant, id core.DiskID, slots map[core.SlotID]Loaded) {
	n.now = now
	d := &disk{id: id, slots: make(map[core.SlotID]*replica, len(slots))}
	n.disks[id] = d
	n.touchedAll = true
	for s, l := range slots {
		d.slots[s] = &replica{
			slot: s, disk: id, state: l.State, durable: l.State.Last, marked: l.State.Committed,
			tail: l.Tail,
		}
	}
	if n.effect != nil {
		for s := range n.effect.Slots {
			if n.effect.Slots[s].Owner() == id {
				n.reconfigure(core.SlotID(s))
			}
		}
	}
}

// RemoveDisk tells the node that a disk does not serve any more. Its slots stop
// at once; the steward takes it out of the map.
func (n *Node) RemoveDisk(now core.Instant, id core.DiskID) {
	n.now = now
	d := n.disks[id]
	if d == nil {
		return
	}
	d.failed = true
	for s := range n.slotsInOrder(d) {
		n.stepDown(d.slots[s])
	}
	delete(n.disks, id)
	n.touchedAll = true
}

// slotsInOrder iterates in an order that does not depend on the run.
func (n *Node) slotsInOrder(d *disk) func(yield func(core.SlotID) bool) {
	return func(yield func(core.SlotID) bool) {
		count := 0
		if n.effect != nil {
			count = len(n.effect.Slots)
		}
		for s := range core.SlotID(count) {
			if d.slots[s] != nil && !yield(s) {
				return
			}
		}
	}
}

// PeerDown tells the node whether the connection to another is known to be
// down, so that it need not wait as long for answers.
func (n *Node) PeerDown(now core.Instant, id core.NodeID, down bool) {
	n.now = now
	if down {
		n.down[id] = true
	} else {
		delete(n.down, id)
	}
}

// Persisted reports the end of a [Persist]. After an error of a disk the
// caller must not carry out further Persists of that disk and calls RemoveDisk.
func (n *Node) Persisted(now core.Instant, id uint64, err error) {
	n.now = now
	if f := n.waits[id]; f != nil {
		delete(n.waits, id)
		f(err)
	}
}

// ReadDone answers a [Read].
func (n *Node) ReadDone(now core.Instant, id uint64, e core.Entries, err error) {
	n.now = now
	if f := n.reads[id]; f != nil {
		delete(n.reads, id)
		f(e, err)
	}
}

// Tick lets time pass. Call it every 100 ms or so.
func (n *Node) Tick(now core.Instant) {
	n.now = now
	n.tickLease()
	n.voterStep()
	busy := n.busy
	n.busy = nil
	for _, r := range busy {
		r.inBusy = false
		n.tickReplica(r)
	}
	n.nextStreams()
}

// Receive takes a message from another node, or from this one.
func (n *Node) Receive(now core.Instant, from core.NodeID, m *Message) {
	n.now = now
	switch m.Kind {
	case MsgReport:
		n.onReport(from, m)
	case MsgGrant:
		n.onGrant(from, m)
	case MsgConfirmed:
		n.onConfirmed(from, m)
	case MsgMapWant:
		n.onMapWant(from, m)
	case MsgMap:
		n.SeeMap(now, m.Map)
	case MsgSeal, MsgSync, MsgAppend, MsgMark, MsgCatchup:
		n.onMember(from, m)
	case MsgSealed, MsgAck, MsgNack, MsgCaughtUp:
		n.onOwner(from, m)
	}
}

// Map returns the map in effect, nil before there is one.
func (n *Node) Map() *core.Map { return n.effect }

// Newest returns the newest map seen, which may not be in effect yet.
func (n *Node) Newest() *core.Map { return n.newest }

func (n *Node) send(to core.NodeID, m *Message) {
	if to != "" {
		n.out.Sends = append(n.out.Sends, Send{To: to, Msg: m})
	}
}

func (n *Node) alarm(text string) { n.out.Alarms = append(n.out.Alarms, text) }

// persist asks for a durable change and runs done at its end. done must check
// that the world it was made for still stands.
func (n *Node) persist(disk core.DiskID, b core.SlotBatch, done func(error)) {
	n.nextID++
	n.out.Persists = append(n.out.Persists, Persist{ID: n.nextID, Disk: disk, Batch: b})
	if done == nil {
		return
	}
	if n.rules.NoFsync {
		done(nil)
		return
	}
	n.waits[n.nextID] = done
}

// replica returns the disk's copy of a slot, an empty one where there is none,
// or nil if the disk is not here.
func (n *Node) replica(d core.DiskID, s core.SlotID) *replica {
	disk := n.disks[d]
	if disk == nil || disk.failed {
		return nil
	}
	r := disk.slots[s]
	if r == nil {
		r = &replica{slot: s, disk: d}
		disk.slots[s] = r
	}
	return r
}

// wake has the replica looked at in the next ticks, until it is idle.
func (n *Node) wake(r *replica) {
	if !r.inBusy {
		r.inBusy = true
		n.busy = append(n.busy, r)
	}
}
