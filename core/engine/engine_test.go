package engine_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/bus/membus"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/disk"
	"github.com/shoalstore/shoal/core/engine"
	"github.com/shoalstore/shoal/core/objectstest"
	"github.com/shoalstore/shoal/core/slot"
	"github.com/shoalstore/shoal/ec"
	"github.com/shoalstore/shoal/mirror"
	"github.com/shoalstore/shoal/placement"
)

// clock is the machine's.
type clock struct{ began time.Time }

func (clock) Now() time.Time       { return time.Now() }
func (c clock) Boot() core.Instant { return core.Instant(time.Hour + time.Since(c.began)) }
func (clock) Wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// network connects the nodes of a test in one process. Messages keep their
// order; those of and to a node that was cut off are lost.
type network struct {
	mu    sync.Mutex
	nodes map[core.NodeID]*engine.Node
	cut   map[core.NodeID]bool
	inbox map[core.NodeID]chan delivery
	// onCall, if not nil, is told of calls before they are made.
	onCall func(from core.NodeID, method uint16)
	// unknown is a method that no node knows, as those of an older version.
	unknown uint16
	// onCreate, if not nil, is told of each shard before it is begun; its error
	// refuses the shard.
	onCreate func(from, to core.NodeID) error
}

type delivery struct {
	from core.NodeID
	msg  []byte
}

// port is a node's way into the network.
type port struct {
	net  *network
	self core.NodeID
}

func (p port) reach(to core.NodeID) (*engine.Node, error) {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	n := p.net.nodes[to]
	if n == nil || to != p.self && (p.net.cut[to] || p.net.cut[p.self]) {
		return nil, fmt.Errorf("node %s cannot be reached: %w", to, core.ErrUnavailable)
	}
	return n, nil
}

func (p port) Send(to core.NodeID, msg []byte) {
	if _, err := p.reach(to); err != nil {
		return
	}
	p.net.mu.Lock()
	in := p.net.inbox[to]
	p.net.mu.Unlock()
	select {
	case in <- delivery{p.self, msg}:
	default: // full: lost
	}
}

func (p port) Call(ctx context.Context, to core.NodeID, method uint16, req []byte) ([]byte, error) {
	n, err := p.reach(to)
	if err != nil {
		return nil, err
	}
	p.net.mu.Lock()
	on, unknown := p.net.onCall, p.net.unknown
	p.net.mu.Unlock()
	if method == unknown {
		return nil, fmt.Errorf("method %d is not known to node %s: %w", method, to, core.ErrInvalid)
	}
	if on != nil {
		on(p.self, method)
	}
	return n.Call(ctx, p.self, method, req)
}

func (p port) Store(node core.NodeID, d core.DiskID) core.Store { return store{p, node, d} }

// store is a disk of any node.
type store struct {
	p    port
	node core.NodeID
	disk core.DiskID
}

func (s store) open() (core.Store, error) {
	n, err := s.p.reach(s.node)
	if err != nil {
		return nil, err
	}
	return n.Store(s.disk)
}

func (s store) Local() bool { return s.node == s.p.self }

func (s store) OpenNow(ctx context.Context, id core.ShardID) (core.ShardReader, bool) {
	st, err := s.open()
	if now, ok := st.(core.NowOpener); ok && err == nil && s.Local() {
		return now.OpenNow(ctx, id)
	}
	return nil, false
}

func (s store) Create(ctx context.Context, m core.ShardMeta, size int64) (core.ShardWriter, error) {
	s.p.net.mu.Lock()
	on := s.p.net.onCreate
	s.p.net.mu.Unlock()
	if on != nil {
		if err := on(s.p.self, s.node); err != nil {
			return nil, err
		}
	}
	st, err := s.open()
	if err != nil {
		return nil, err
	}
	return st.Create(ctx, m, size)
}

func (s store) Open(ctx context.Context, id core.ShardID) (core.ShardReader, error) {
	st, err := s.open()
	if err != nil {
		return nil, err
	}
	return st.Open(ctx, id)
}

func (s store) Delete(ctx context.Context, id core.ShardID) error {
	st, err := s.open()
	if err != nil {
		return err
	}
	return st.Delete(ctx, id)
}

// testCluster is some nodes with real disks in one process.
type testCluster struct {
	net   *network
	nodes []*engine.Node
	// bus is everybody's, by a client for each node.
	bus     *membus.Bus
	clients map[core.NodeID]*membus.Client
	disks   map[core.NodeID][]*disk.Disk
	dirs    []string
	late    []*disk.Disk // added while the cluster runs
}

// placed says whether nothing more is planned for the slot table.
func (tc *testCluster) placed(m *core.Map) bool {
	return len(placement.Plan(m, time.Now(), placement.State{Grace: time.Second})) == 0
}

func startCluster(t *testing.T, nodes, disks int) *testCluster {
	t.Helper()
	return startClusterOf(t, nodes, disks, hooks{})
}

// startClusterWith starts a cluster of nodes with other options.
func startClusterWith(t *testing.T, nodes, disks int, with func(*engine.Options)) *testCluster {
	t.Helper()
	return startClusterOf(t, nodes, disks, hooks{node: with})
}

// hooks change what a cluster is made of; nil ones change nothing. made sees
// each node before it runs. There are 16 slots unless it says otherwise.
type hooks struct {
	slots int
	node  func(*engine.Options)
	disk  func(*disk.Options)
	made  func(*engine.Node, bus.Bus)
}

func startClusterOf(t *testing.T, nodes, disks int, h hooks) *testCluster {
	t.Helper()
	open := map[core.NodeID][]*disk.Disk{}
	var dirs []string
	c := clock{time.Now()}
	log := slog.New(slog.DiscardHandler)
	net := &network{nodes: map[core.NodeID]*engine.Node{}, cut: map[core.NodeID]bool{}, inbox: map[core.NodeID]chan delivery{}}
	var members []core.Node
	var mapDisks []core.Disk
	var voters []core.Voter
	local := map[core.NodeID][]engine.LocalDisk{}
	for i := range nodes {
		id := core.NodeID(fmt.Sprintf("n%d", i+1))
		members = append(members, core.Node{ID: id, Peer: string(id), Client: string(id), State: core.NodeActive, Boot: 1})
		if i == 0 || i < 3 && nodes >= 3 {
			voters = append(voters, core.Voter{Node: id, Key: "key-" + string(id)})
		}
		for j := range disks {
			o := disk.Options{Dir: filepath.Join(t.TempDir(), "disk"), Clock: c, Cluster: "test", Node: id, Reserve: -1}
			if h.disk != nil {
				h.disk(&o)
			}
			ident, err := disk.Format(t.Context(), disk.FormatOptions{Options: o})
			if err != nil {
				t.Fatal(err)
			}
			d, err := disk.Open(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			})
			open[id], dirs = append(open[id], d), append(dirs, o.Dir)
			name := fmt.Sprintf("d%d", j+1)
			mapDisks = append(mapDisks, core.Disk{UUID: ident.UUID, Node: id, Name: name, Weight: 1})
			local[id] = append(local[id], engine.LocalDisk{UUID: ident.UUID, Name: name, Weight: 1, Disk: d})
		}
	}
	m, err := placement.Initial("test", cmp.Or(h.slots, 16), 3, members, mapDisks, voters, c.Now())
	if err != nil {
		t.Fatal(err)
	}
	enc, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	b := membus.New()
	if _, err := b.Client().Map().Create(t.Context(), enc); err != nil {
		t.Fatal(err)
	}
	tc := &testCluster{net: net, bus: b, clients: map[core.NodeID]*membus.Client{}, disks: open, dirs: dirs}
	t.Cleanup(func() { // once no node runs any more
		for _, d := range tc.late {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	for _, member := range members {
		client := b.Client()
		tc.clients[member.ID] = client
		voter := slot.VoterState{Key: "key-" + string(member.ID)}
		if m.IsVoter(member.ID, voter.Key) {
			voter.Map = m
		}
		o := engine.Options{
			Self: member, Boot: 2, Transport: port{net, member.ID}, Register: client.Map(), Clock: c, Log: log,
			Voter: voter, SaveVoter: func(slot.VoterState) error { return nil }, Map: m, SaveMap: func(*core.Map) error { return nil },
			Coder: func(s core.Scheme) core.Coder { return coder(t, s, c) },
		}
		if h.node != nil {
			h.node(&o)
		}
		n := engine.New(o)
		if h.made != nil {
			h.made(n, client)
		}
		for _, d := range local[member.ID] {
			n.AddDisk(d)
		}
		in := make(chan delivery, 1<<16)
		net.mu.Lock()
		net.nodes[member.ID], net.inbox[member.ID] = n, in
		net.mu.Unlock()
		tc.nodes = append(tc.nodes, n)
		tc.run(t, n, in)
	}
	for _, n := range tc.nodes {
		waitFor(t, "node "+string(n.ID())+" to be ready", func() error { return n.Ready() })
	}
	return tc
}

// run runs a node until the test ends.
func (tc *testCluster) run(t *testing.T, n *engine.Node, in <-chan delivery) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case d := <-in:
				n.Message(d.from, d.msg)
			case <-ctx.Done():
				return
			}
		}
	})
	wg.Go(func() {
		if err := n.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

// coder returns the coder of a scheme; it outlives the test.
func coder(t *testing.T, s core.Scheme, c core.Clock) core.Coder {
	var k core.Coder
	var err error
	if s.EC {
		k, err = ec.New(s, ec.Options{Clock: c})
	} else {
		k, err = mirror.New(s, mirror.Options{Clock: c})
	}
	if err != nil {
		t.Error(err)
	}
	return k
}

// waitFor polls until f has no objection.
func waitFor(t *testing.T, what string, f func() error) {
	t.Helper()
	const limit = time.Minute
	end := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("waiting %v for %s: %v", limit, what, err)
		}
		timer := time.NewTimer(20 * time.Millisecond)
		<-timer.C
	}
}

// TestObjectsOneNode holds the object layer of a lone node to its contract.
func TestObjectsOneNode(t *testing.T) {
	tc := startCluster(t, 1, 3)
	objectstest.Run(t, func(*testing.T) core.Objects { return tc.nodes[0].Objects() })
}

// TestObjectsThreeNodes does the same on three nodes.
func TestObjectsThreeNodes(t *testing.T) {
	tc := startCluster(t, 3, 1)
	objectstest.Run(t, func(*testing.T) core.Objects { return tc.nodes[1].Objects() })
}

// creating has f told of each shard before it is begun.
func (n *network) creating(f func(from, to core.NodeID) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.onCreate = f
}

// cutOff loses all messages from and to a node.
func (n *network) cutOff(id core.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[id] = true
}

// mend ends what cutOff did.
func (n *network) mend(id core.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cut, id)
}
