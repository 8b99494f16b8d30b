package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/shardio"
	"github.com/shoalstore/shoal/core/slot"
	"github.com/shoalstore/shoal/placement"
)

// Options are what a node is made of.
type Options struct {
	// Self is the node as it registers itself: name, addresses, weight, zone.
	Self core.Node
	// Boot is this start's number: above all earlier ones, the same never
	// twice.
	Boot      uint64
	Transport Transport
	Register  bus.Register
	Clock     core.Clock
	Log       *slog.Logger
	// Voter is the voter's persisted state, SaveVoter makes a new one
	// durable before it returns. Map is the newest map that was kept by
	// SaveMap, nil for none.
	Voter     slot.VoterState
	SaveVoter func(slot.VoterState) error
	Map       *core.Map
	SaveMap   func(*core.Map) error
	// OnMap, if not nil, is told of each map that this node's proposals made,
	// with its predecessor, once it is written; it may not be in effect yet.
	// It must not block.
	OnMap func(was, made *core.Map)
	// Coder returns the coder of a scheme.
	Coder func(core.Scheme) core.Coder
	// Defaults are the properties of buckets that ask for none; zero fields
	// follow from the size of the cluster.
	Defaults core.Policy
	// Grace is how long a node that is down is waited for before its data is
	// built again elsewhere; 0 is a minute.
	Grace time.Duration
	// ReconcileBandwidth bounds, in bytes per second, what this node's
	// reconcile reads and writes together; 0 is no limit.
	ReconcileBandwidth int64
	// Stall is how long an operation of a disk may take before the disk is taken
	// for failed, if others of the node go on meanwhile; 0 is eight seconds. Where
	// none goes on it is four times as long.
	Stall time.Duration
	// ConfirmReads asks a majority of voters before each answer, once for all
	// reads that wait, instead of trusting the lease: for machines that may be
	// frozen together with their clocks.
	ConfirmReads bool
	// Remote opens the remotes of buckets that others keep; nil refuses such
	// buckets. RemoteMemory bounds, in bytes, what the node has of their objects
	// in memory, 0 is 256 MiB. RemoteBlock is what is fetched at a time, 0 is 8
	// MiB.
	Remote       OpenRemote
	RemoteMemory int64
	RemoteBlock  int64
	// Access is what SaveAccess, if not nil, kept of when objects of remote buckets
	// were last used; nil for nothing.
	Access     []byte
	SaveAccess func([]byte) error
	// Params and Rules are the protocol's; leave them zero.
	Params slot.Params
}

// LocalDisk is a disk of this node.
type LocalDisk struct {
	UUID, Name string
	Weight     float64
	Disk       Disk
}

// Node is a member of the cluster; see the package comment. Use [New], then
// [Node.Run].
type Node struct {
	id      core.NodeID
	opt     Options
	clock   core.Clock
	log     *slog.Logger
	net     Transport
	driver  *driver
	keeper  *mapkeeper
	garbage *garbage
	health  *health
	heal    *reconciler
	remotes *remotes
	// accesses are those to objects of remote buckets.
	accesses *accesses
	writers  *writers
	costs    jobCosts
	locks    keyLocks
	buffers  shardio.Pool // for the data of small objects
	sent     atomic.Int64 // bytes of files that were sent without reading them
	placed   atomic.Pointer[placedMap]
	leaving  atomic.Bool
	newDisk  chan struct{} // capacity 1
	extra    map[uint16]func(context.Context, core.NodeID, []byte) ([]byte, error)

	mu     sync.Mutex
	byUUID map[string]*LocalDisk
	disks  map[core.DiskID]*LocalDisk
}

// placedMap is a map with what placement made of it.
type placedMap struct {
	m *core.Map
	p *placement.Placer
}

// New returns a node that does nothing until it is run. Its Message and Call
// methods are to be registered with the transport before that.
func New(o Options) *Node {
	if o.Grace == 0 {
		o.Grace = placement.DefaultGrace
	}
	if o.Stall == 0 {
		o.Stall = defaultStall
	}
	n := &Node{
		id: o.Self.ID, opt: o, clock: o.Clock, log: o.Log, net: o.Transport, health: &health{},
		extra:  map[uint16]func(context.Context, core.NodeID, []byte) ([]byte, error){},
		byUUID: map[string]*LocalDisk{}, disks: map[core.DiskID]*LocalDisk{}, newDisk: make(chan struct{}, 1),
	}
	n.driver = newDriver(o.Clock, o.Log, o.Transport, slot.Config{
		ID: o.Self.ID, Boot: o.Boot, Params: o.Params, Voter: o.Voter, Started: o.Clock.Boot(),
	})
	if o.ConfirmReads {
		n.driver.confirms = &confirms{}
	}
	n.keeper = newMapkeeper(n.driver, o.Clock, o.Log, o.Register, o.SaveMap)
	n.keeper.onMap = o.OnMap
	n.keeper.passOn = n.passJoined
	n.driver.saveVoter = o.SaveVoter
	n.driver.onChanges = func(c []core.Change) { n.keeper.ask(c) }
	n.driver.onDisk = func(id core.DiskID, err error) { n.diskFailed(id, err) }
	n.driver.mute.Store(n.hasMoved())
	n.garbage = newGarbage(n, o.Clock, o.Log)
	n.heal = newReconciler(n)
	n.driver.holdBack = n.heal.brake.step
	n.driver.onTaken = n.heal.moves.tookAll
	n.remotes = newRemotes(n)
	n.accesses = newAccesses(o.Clock)
	if o.Access != nil {
		if err := n.accesses.decode(o.Access); err != nil {
			o.Log.Warn("when remote objects were last used is not known any more", "err", err)
		}
	}
	n.writers = &writers{node: n, tasks: map[objectName]*writeTask{}}
	return n
}

// Message takes a protocol message from a peer.
func (n *Node) Message(from core.NodeID, b []byte) { n.driver.Message(from, b) }

// Call answers a call of a peer.
func (n *Node) Call(ctx context.Context, from core.NodeID, method uint16, req []byte) ([]byte, error) {
	return n.serve(ctx, from, method, req)
}

// Handle adds a method of the layers above, which is called as [Node.CallNode]
// does. Methods below 64 are the engine's own.
func (n *Node) Handle(method uint16, f func(ctx context.Context, from core.NodeID, req []byte) ([]byte, error)) {
	n.extra[method] = f
}

// CallNode calls a method of a node, which may be this one.
func (n *Node) CallNode(ctx context.Context, to core.NodeID, method uint16, req []byte) ([]byte, error) {
	if to == n.id {
		return n.serve(ctx, n.id, method, req)
	}
	return n.net.Call(ctx, to, method, req)
}

func (n *Node) serveOther(ctx context.Context, from core.NodeID, method uint16, req []byte) ([]byte, error) {
	switch method {
	case methodStatus:
		return n.serveStatus(ctx)
	case methodJoin:
		return n.serveJoin(ctx, req)
	case methodMoved:
		return n.serveMoved(ctx, from, req)
	case methodTaking:
		return n.serveTaking()
	case methodJoined:
		return n.serveJoined(ctx, req)
	}
	if method >= methodRemoteGet && method <= methodSettle || method == methodRemoteOpen {
		return n.serveRemote(ctx, method, req)
	}
	if f := n.extra[method]; f != nil {
		return f(ctx, from, req)
	}
	return nil, fmt.Errorf("unknown method %d: this node is older than node %s: %w", method, from, errors.ErrUnsupported)
}

// PeerDown is told by the transport whether a peer can be reached.
func (n *Node) PeerDown(id core.NodeID, down bool) {
	n.driver.step(func(s *slot.Node, now core.Instant) { s.PeerDown(now, id, down) })
}

// Objects returns the object layer.
func (n *Node) Objects() *Objects { return &Objects{node: n} }

// ID is the node's name.
func (n *Node) ID() core.NodeID { return n.id }

// Map returns the map in effect, nil before there is one.
func (n *Node) Map() *core.Map { return n.driver.effect.Load() }

// Maps returns the map in effect and a channel that closes when it may have
// changed.
func (n *Node) Maps() (*core.Map, <-chan struct{}) {
	_, m, changed := n.driver.maps()
	return m, changed
}

// Change proposes changes of the map and waits until they are in effect.
func (n *Node) Change(ctx context.Context, c ...core.Change) ([]error, error) {
	return n.keeper.propose(ctx, c...)
}

// Run runs the node until ctx ends. The transport must run longer.
func (n *Node) Run(ctx context.Context) error {
	// The protocol's own loops end last, so that what waits for them ends.
	inner, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	var core1, group sync.WaitGroup
	core1.Go(func() { n.driver.run(inner) })
	if n.opt.Map != nil {
		n.driver.step(func(s *slot.Node, now core.Instant) { s.SeeMap(now, n.opt.Map) })
	}
	for _, f := range []func(context.Context){
		n.keeper.watch, n.keeper.keep, n.keeper.run, n.keeper.passJoined, n.garbage.run, n.heal.run, n.heal.follow, n.steward, n.register, n.sweep, n.stewardVoters, n.reclaim, n.watchDisks, n.remotes.run, n.writers.run, n.tellMoved, n.keepAccesses,
	} {
		group.Go(func() { f(ctx) })
	}
	<-ctx.Done()
	group.Wait()
	n.mu.Lock()
	disks := maps.Clone(n.disks)
	n.mu.Unlock()
	for id := range disks {
		n.driver.removeDisk(id)
	}
	stop(context.Cause(ctx))
	core1.Wait()
	return nil
}

// AddDisk gives the node a disk. It serves once a map in effect knows it; one
// that no map knows is proposed as a new one.
func (n *Node) AddDisk(d LocalDisk) {
	n.mu.Lock()
	n.byUUID[d.UUID] = &d
	n.mu.Unlock()
	select {
	case n.newDisk <- struct{}{}:
	default:
	}
}

// RemoveDisk takes a disk away that AddDisk gave. Nothing uses it when RemoveDisk
// returns, and the caller may close it.
func (n *Node) RemoveDisk(uuid string) {
	n.mu.Lock()
	delete(n.byUUID, uuid)
	var found []core.DiskID
	for id, d := range n.disks {
		if d.UUID == uuid {
			found = append(found, id)
			delete(n.disks, id)
		}
	}
	n.mu.Unlock()
	for _, id := range found {
		n.driver.removeDisk(id)
	}
}

// register keeps the node and its disks in the map: it proposes the start, and
// disks that are new, and takes its disks into use once they have a number.
func (n *Node) register(ctx context.Context) {
	for ctx.Err() == nil {
		_, m, changed := n.driver.maps()
		if m != nil {
			n.useDisks(ctx, m)
			if changes := n.announce(m); len(changes) > 0 {
				if errs, err := n.keeper.propose(ctx, changes...); err != nil || errors.Join(errs...) != nil {
					n.log.Warn("the node is not registered yet", "err", errors.Join(append(errs, err)...))
					if n.clock.Wait(ctx, time.Second) != nil {
						return
					}
				}
				continue
			}
		}
		select {
		case <-changed:
		case <-n.newDisk:
		case <-ctx.Done():
		}
	}
}

// announce lists the changes that make the map right about this node.
func (n *Node) announce(m *core.Map) []core.Change {
	node := m.Node(n.id)
	if node == nil {
		return nil // joining goes through a member: see Join
	}
	var out []core.Change
	if node.Boot < n.opt.Boot {
		out = append(out, core.Change{Kind: core.ChangeBoot, Node: n.id, Boot: n.opt.Boot, Nodes: []core.Node{n.opt.Self}})
	}
	if node.Boot == n.opt.Boot && node.State == core.NodeDown && !n.leaving.Load() {
		// The node was given up while it hung, and is there after all.
		out = append(out, core.Change{Kind: core.ChangeNodeState, Node: n.id, State: string(core.NodeActive)})
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	known := map[string]bool{}
	for i := range m.Disks {
		d := &m.Disks[i]
		known[d.UUID] = true
		if d.Node == n.id && d.State == core.DiskOK && n.byUUID[d.UUID] == nil {
			out = append(out, core.Change{Kind: core.ChangeFail, Disk: d.ID, Reason: "its node started without it"})
		}
	}
	if node.Boot < n.opt.Boot {
		// A disk that had failed or was not mounted is there again, and could
		// be opened: it starts anew with the node.
		for i := range m.Disks {
			if d := &m.Disks[i]; d.State == core.DiskFailed && d.Node == n.id && n.byUUID[d.UUID] != nil {
				out = append(out, core.Change{Kind: core.ChangeDiskState, Disk: d.ID, State: string(core.DiskOK)})
			}
		}
	}
	for uuid, d := range n.byUUID {
		if !known[uuid] {
			out = append(out, core.Change{Kind: core.ChangeAddDisk, Node: n.id, Disks: []core.Disk{{UUID: uuid, Name: d.Name, Weight: d.Weight}}})
		}
	}
	return out
}

// useDisks takes the local disks into use that the map knows, and lets go of
// those that it says are failed or detached.
func (n *Node) useDisks(ctx context.Context, m *core.Map) {
	n.mu.Lock()
	local := maps.Clone(n.byUUID)
	inUse := maps.Clone(n.disks)
	n.mu.Unlock()
	for i := range m.Disks {
		d := &m.Disks[i]
		ld := local[d.UUID]
		switch {
		case ld == nil || d.Node != n.id:
		case inUse[d.ID] == nil && d.State == core.DiskOK:
			n.mu.Lock()
			n.disks[d.ID] = ld
			n.mu.Unlock()
			if err := n.driver.addDisk(context.WithoutCancel(ctx), d.ID, ld.Disk); err != nil {
				n.diskFailed(d.ID, err)
			}
		case inUse[d.ID] != nil && d.State != core.DiskOK:
			n.driver.removeDisk(d.ID)
			n.mu.Lock()
			delete(n.disks, d.ID)
			n.mu.Unlock()
		}
	}
}

// diskFailed takes a disk out of use at once and tells the cluster.
func (n *Node) diskFailed(id core.DiskID, err error) {
	n.driver.mu.Lock()
	closed := n.driver.closed
	n.driver.mu.Unlock()
	if closed {
		return
	}
	n.mu.Lock()
	d := n.disks[id]
	if d != nil {
		// Its state is in doubt: it must be opened anew to be used again.
		delete(n.byUUID, d.UUID)
	}
	delete(n.disks, id)
	n.mu.Unlock()
	if d == nil {
		return // it is out of use already
	}
	n.log.Error("disk failed; its data is built again elsewhere", "disk", id, "err", err)
	n.driver.group.Go(func() { n.driver.removeDisk(id) })
	n.keeper.enqueue([]core.Change{{Kind: core.ChangeFail, Disk: id, Reason: reason(err)}})
}

// reason is an error as the map keeps it.
func reason(err error) string {
	const most = 300
	text := []rune(err.Error())
	if len(text) > most {
		text = append(text[:most], '…')
	}
	return string(text)
}

// localDisk returns a disk of this node that is in use, or nil.
func (n *Node) localDisk(id core.DiskID) Disk {
	n.mu.Lock()
	defer n.mu.Unlock()
	if d := n.disks[id]; d != nil {
		return d.Disk
	}
	return nil
}

// localDisks returns the disks in use.
func (n *Node) localDisks() map[core.DiskID]Disk {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make(map[core.DiskID]Disk, len(n.disks))
	for id, d := range n.disks {
		out[id] = d.Disk
	}
	return out
}

// Store returns the store of a local disk, for the transport.
func (n *Node) Store(id core.DiskID) (core.Store, error) {
	if d := n.localDisk(id); d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("disk %d is not in use on node %s: %w", id, n.id, core.ErrDiskFailed)
}

// placer returns what placement makes of a map.
func (n *Node) placer(m *core.Map) *placement.Placer {
	if c := n.placed.Load(); c != nil && c.m == m {
		return c.p
	}
	c := &placedMap{m: m, p: placement.New(m)}
	n.placed.Store(c)
	return c.p
}

func (n *Node) coder(s core.Scheme) core.Coder { return n.opt.Coder(s) }

// Ready says whether the node serves: its start is in effect and it holds its
// lease. The error says what it waits for.
func (n *Node) Ready() error {
	_, m, _ := n.driver.maps()
	if m == nil {
		return fmt.Errorf("no map in effect is known yet: %w", core.ErrUnavailable)
	}
	node := m.Node(n.id)
	switch {
	case node == nil:
		return fmt.Errorf("node %s is not a member of the cluster yet: %w", n.id, core.ErrUnavailable)
	case node.Boot != n.opt.Boot:
		return fmt.Errorf("the start of node %s is not in effect yet: %w", n.id, core.ErrUnavailable)
	}
	n.driver.mu.Lock()
	defer n.driver.mu.Unlock()
	if !n.driver.node.HoldsLease(n.clock.Boot()) {
		return fmt.Errorf("node %s holds no lease from a majority of voters: %w", n.id, core.ErrUnavailable)
	}
	return nil
}

// Leave hands everything that the node owns to others, before it stops.
func (n *Node) Leave(ctx context.Context) error {
	m := n.driver.effect.Load()
	if m == nil || m.Node(n.id) == nil || m.Node(n.id).Boot != n.opt.Boot {
		return nil
	}
	n.leaving.Store(true)
	return n.keeper.one(ctx, core.Change{Kind: core.ChangeFail, Node: n.id, State: "stop"})
}

// NewestMap returns the newest map seen, which may not be in effect yet; nil
// before there is one.
func (n *Node) NewestMap() *core.Map {
	m, _, _ := n.driver.maps()
	return m
}

// Methods are the numbers of the engine's own calls.
func Methods() []uint16 {
	const last = methodJoined
	out := make([]uint16, 0, last)
	for m := methodMutate; m <= last; m++ {
		out = append(out, m)
	}
	return out
}
