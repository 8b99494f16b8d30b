package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
)

// Status is what a node says of itself.
type Status struct {
	Node     core.NodeID `json:"node"`
	Boot     uint64      `json:"boot"`
	Epoch    core.Epoch  `json:"epoch"`
	Lease    bool        `json:"lease"`
	VoterKey string      `json:"voter_key"`
	Slots    int         `json:"slots"` // that it owns
	// Under counts the objects of its slots that lack shards, or records that
	// hold their data. HealRate and HealBytes are those made whole in a second.
	Under       int64   `json:"under"`
	UnderBytes  int64   `json:"under_bytes"`
	HealRate    float64 `json:"heal_rate,omitempty"`
	HealBytes   float64 `json:"heal_bytes,omitempty"`
	Unavailable int64   `json:"unavailable"`
	// Moved are the bytes of shards and records that were moved since the start,
	// Least those that had to be for that, Left the bytes of shards yet to be.
	Moved int64 `json:"moved"`
	Least int64 `json:"least"`
	Left  int64 `json:"left"`
	// MoveRate is how many bytes were moved in a second of late.
	MoveRate float64 `json:"move_rate,omitempty"`
	// Away counts, by disk, the objects that cannot be read for what is on it.
	Away map[core.DiskID]int64 `json:"away,omitempty"`
	// Sole counts, by node, the objects that lack shards already and could not
	// be read without the node.
	Sole    map[core.NodeID]int64 `json:"sole,omitempty"`
	Pending bool                  `json:"pending"` // reconcile has work or is counting
	Scans   int64                 `json:"scans"`   // times that reconcile went over a slot
	// Reconciled is the epoch of the map under which all objects of its slots
	// were last found where they should be.
	Reconciled core.Epoch `json:"reconciled"`
	Alarms     int64      `json:"alarms"`
	// SentFiles are the bytes of shards that went from their files to clients
	// unverified, for buckets with sendfile=on.
	SentFiles int64 `json:"sent_files"`
}

// Status describes this node.
func (n *Node) Status() Status {
	s := Status{
		Node: n.id, Boot: n.opt.Boot, Under: n.heal.under.Load(), UnderBytes: n.heal.underBytes.Load(),
		Unavailable: n.heal.unavailable.Load(), Left: n.heal.left.Load(), Scans: n.heal.scans.Load(), Pending: n.heal.pending.Load(),
		Alarms: n.driver.metrics.alarms.Load(), Reconciled: core.Epoch(n.heal.reconciled.Load()), SentFiles: n.sent.Load(),
	}
	s.Moved, s.Least = n.heal.moves.totals()
	s.HealRate, s.HealBytes, s.MoveRate = n.heal.moves.rates()
	s.Away, s.Sole = n.heal.awayFrom(), n.heal.soleOn()
	if m := n.driver.effect.Load(); m != nil {
		objects, bytes := n.heal.inShort(m)
		s.Under, s.UnderBytes = s.Under+objects, s.UnderBytes+bytes
	}
	n.driver.mu.Lock()
	defer n.driver.mu.Unlock()
	s.Lease = n.driver.node.HoldsLease(n.clock.Boot())
	s.VoterKey = n.driver.node.Voter().Key
	if m := n.driver.node.Map(); m != nil {
		s.Epoch = m.Epoch
		for i := range m.Slots {
			if m.OwnerNode(core.SlotID(i)) == n.id {
				s.Slots++
			}
		}
	}
	return s
}

func (n *Node) serveStatus(context.Context) ([]byte, error) { return json.Marshal(n.Status()) }

// Statuses asks every node of the map for its status; those that do not answer
// in time are left out.
func (n *Node) Statuses(ctx context.Context) map[core.NodeID]Status {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	out := map[core.NodeID]Status{}
	m := n.driver.effect.Load()
	if m == nil {
		return out
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range m.Nodes {
		id := m.Nodes[i].ID
		if m.Nodes[i].State == core.NodeDown && id != n.id {
			continue
		}
		wg.Go(func() {
			b, err := n.CallNode(ctx, id, methodStatus, nil)
			var s Status
			if err != nil || json.Unmarshal(b, &s) != nil {
				return
			}
			mu.Lock()
			out[id] = s
			mu.Unlock()
		})
	}
	wg.Wait()
	return out
}

// Join asks a member to enter a node with its disks in the map, and returns the
// map that has them.
func Join(ctx context.Context, t Transport, member core.NodeID, node core.Node, disks []core.Disk) (*core.Map, error) {
	req, err := json.Marshal(joinRequest{Node: node, Disks: disks})
	if err != nil {
		return nil, fmt.Errorf("encode request to join: %w", err)
	}
	resp, err := t.Call(ctx, member, methodJoin, req)
	if err != nil {
		return nil, err
	}
	return core.DecodeMap(resp)
}

// joinRequest asks a member to add a new node.
type joinRequest struct {
	Node  core.Node   `json:"node"`
	Disks []core.Disk `json:"disks"`
}

// serveJoin adds a node to the map.
func (n *Node) serveJoin(ctx context.Context, req []byte) ([]byte, error) {
	var r joinRequest
	if err := json.Unmarshal(req, &r); err != nil {
		return nil, fmt.Errorf("request to join: %w: %w", core.ErrInvalid, err)
	}
	m, err := n.fresh(ctx)
	if err != nil {
		return nil, err
	}
	switch have := m.Node(r.Node.ID); {
	case have != nil && (have.Peer != r.Node.Peer || have.State != core.NodeJoining):
		return nil, fmt.Errorf("a node called %s is in the cluster already, at %s; choose another name: %w", have.ID, have.Peer, core.ErrExists)
	case have == nil && len(r.Disks) == 0:
		return m.Encode() // it only asks whether it may
	case have == nil:
		r.Node.State = core.NodeJoining
		if err := n.keeper.one(ctx, core.Change{Kind: core.ChangeAddNode, Nodes: []core.Node{r.Node}, Disks: r.Disks}); err != nil {
			return nil, err
		}
	}
	return n.driver.effect.Load().Encode()
}
