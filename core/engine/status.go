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
	Node        core.NodeID `json:"node"`
	Boot        uint64      `json:"boot"`
	Epoch       core.Epoch  `json:"epoch"`
	Lease       bool        `json:"lease"`
	VoterKey    string      `json:"voter_key"`
	Slots       int         `json:"slots"` // that it owns
	Under       int64       `json:"under"` // objects of its slots that lack shards
	UnderBytes  int64       `json:"under_bytes"`
	Unavailable int64       `json:"unavailable"`
	Moved       int64       `json:"moved"`
	Pending     bool        `json:"pending"` // reconcile has work or is counting
	Scans       int64       `json:"scans"`   // times that reconcile went over a slot
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
		Unavailable: n.heal.unavailable.Load(), Moved: n.heal.moved.Load(), Scans: n.heal.scans.Load(), Pending: n.heal.pending.Load(),
		Alarms: n.driver.metrics.alarms.Load(), Reconciled: core.Epoch(n.heal.reconciled.Load()), SentFiles: n.sent.Load(),
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
