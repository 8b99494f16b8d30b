package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/slot"
)

// A node that starts under another peer address than the map has is heard by
// nobody: the others answer where they take it to be. It learns of no map in
// effect, so that it could not even register its new address. But it can call
// them, and the answer to a call comes back on the same connection. So it asks
// one of them to register its start, as `shoal cluster join` does for a new node.
// They do so once the node is not heard at its old address any more. Until then
// it sends nothing else: voters would take that for a sign of life of whoever was
// there before, which may be the node itself, of which this one is a copy.

// movedPause is how long after a round in vain the members are asked again.
const movedPause = time.Second

// movedRequest registers the start of a node that is at another address now.
type movedRequest struct {
	Node core.Node `json:"node"`
	Boot uint64    `json:"boot"`
}

// hasMoved says whether the map that the node knows from its earlier life has it
// at another address. A lone voter needs nobody to tell it which map is in effect,
// and calls the others itself.
func (n *Node) hasMoved() bool {
	if n.opt.Map == nil || n.driver.effect.Load() != nil {
		return false
	}
	known := n.opt.Map.Node(n.id)
	return known != nil && known.Peer != n.opt.Self.Peer
}

// tellMoved asks members to register the node's start, if it has moved.
func (n *Node) tellMoved(ctx context.Context) {
	if !n.driver.mute.Load() {
		return
	}
	defer n.driver.mute.Store(false)
	req, err := json.Marshal(movedRequest{n.opt.Self, n.opt.Boot})
	if err != nil {
		n.log.Error("request to register another address cannot be encoded", "err", err)
		return
	}
	for ctx.Err() == nil {
		for i := range n.opt.Map.Nodes {
			if n.registered() {
				return
			}
			if id := n.opt.Map.Nodes[i].ID; id != n.id && n.askMoved(ctx, id, req) == nil {
				n.log.Info("the node is at another address now, and another has registered that", "was", n.opt.Map.Node(n.id).Peer, "peer", n.opt.Self.Peer, "by", id)
				return
			}
		}
		if n.clock.Wait(ctx, movedPause) != nil {
			return
		}
	}
}

// registered says whether a map in effect has this start.
func (n *Node) registered() bool {
	m := n.driver.effect.Load()
	return m != nil && m.Node(n.id) != nil && m.Node(n.id).Boot == n.opt.Boot
}

// askMoved asks one member, and takes the map that it answers.
func (n *Node) askMoved(ctx context.Context, member core.NodeID, req []byte) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	resp, err := n.net.Call(ctx, member, methodMoved, req)
	if err != nil {
		n.log.Debug("another address is not registered yet", "by", member, "err", err)
		return err
	}
	m, err := core.DecodeMap(resp)
	if err != nil {
		return err
	}
	n.driver.step(func(s *slot.Node, now core.Instant) { s.SeeMap(now, m) })
	return nil
}

// serveMoved registers the start of a node that is at another address now, and
// answers the map that has it.
func (n *Node) serveMoved(ctx context.Context, from core.NodeID, req []byte) ([]byte, error) {
	var r movedRequest
	if err := json.Unmarshal(req, &r); err != nil {
		return nil, fmt.Errorf("request to register another address: %w: %w", core.ErrInvalid, err)
	}
	if r.Node.ID != from {
		return nil, fmt.Errorf("node %s asks for another address of node %s: %w", from, r.Node.ID, core.ErrInvalid)
	}
	m, err := n.fresh(ctx)
	if err != nil {
		return nil, err
	}
	have := m.Node(from)
	switch {
	case have == nil:
		return nil, fmt.Errorf("node %s is not a member: %w", from, core.ErrNotFound)
	case have.Boot > r.Boot:
		return nil, fmt.Errorf("node %s was started later, at %s: %w", from, have.Peer, core.ErrConflict)
	case have.Boot < r.Boot && have.State != core.NodeDown && have.State != core.NodeJoining && !slices.Contains(n.silent(), from):
		// It may be a copy, started beside the node itself: as long as that is
		// counted on, what it has acknowledged is taken to be there.
		return nil, fmt.Errorf("node %s is still counted on at %s; it can move when it is not heard there any more: %w", from, have.Peer, core.ErrUnavailable)
	case have.Boot < r.Boot:
		if err := n.keeper.one(ctx, core.Change{Kind: core.ChangeBoot, Node: from, Boot: r.Boot, Nodes: []core.Node{r.Node}}); err != nil {
			return nil, err
		}
	}
	return n.driver.effect.Load().Encode()
}
