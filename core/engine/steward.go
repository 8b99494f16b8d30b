package engine

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/placement"
)

// stewardEvery is how often the steward looks whether something is due.
const stewardEvery = 250 * time.Millisecond

// maxJoins is the number of slots that may be joining on a disk at a time. Most
// of them have little or nothing to take; see docs/protocol.md.
const maxJoins = 512

// While clients are served, the steward asks for less at a time than otherwise:
// all nodes work on a changed row at once, and what takes them a tenth of a second
// is what a client's request waits for.
const (
	gentleMoves  = 32
	gentleOwners = 16
)

// steward proposes the changes of the map that nobody has to ask for: failed
// nodes out, replacements in, everything where rendezvous hashing wants it. The
// first voter that is heard does it; should two do it, their proposals meet in
// the bus's compare-and-set.
func (n *Node) steward(ctx context.Context) {
	tick := time.NewTicker(stewardEvery)
	defer tick.Stop()
	var handed handedOver
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		newest, m, _ := n.driver.maps()
		if m == nil || newest != m {
			continue
		}
		silent := n.silent()
		if !n.isSteward(m, silent) {
			continue
		}
		changes := n.plan(ctx, m, silent, &handed)
		if len(changes) == 0 {
			continue
		}
		handed.note(m, changes, n.clock.Boot())
		n.log.Debug("the steward proposes changes", "epoch", m.Epoch, "changes", len(changes))
		c, cancel := context.WithTimeout(ctx, patience)
		if errs, err := n.keeper.propose(c, changes...); err != nil {
			n.log.Warn("changes of the map are not in effect yet", "err", err)
		} else {
			for i, err := range errs {
				if err != nil {
					n.log.Debug("change is void", "kind", changes[i].Kind, "slot", changes[i].Slot, "err", err)
				}
			}
		}
		cancel()
	}
}

// plan is what the steward proposes next. The nodes are asked how much they can take
// before, if there was something to do the last time, and else only if there is now.
func (n *Node) plan(ctx context.Context, m *core.Map, silent []core.NodeID, handed *handedOver) []core.Change {
	state := placement.State{Silent: silent, Grace: n.opt.Grace, MaxJoins: maxJoins}
	if !handed.planned {
		if changes := placement.Plan(m, n.clock.Now(), state); len(changes) == 0 {
			return nil
		}
	}
	said := n.askTaking(ctx, m, silent)
	if serving(said) {
		state.MaxMoves, state.MaxOwners = gentleMoves, gentleOwners
	}
	if handed.still(m, said, n.clock.Boot()) {
		state.MaxOwners = -1
	}
	changes := placement.Plan(m, n.clock.Now(), state)
	handed.planned = len(changes) > 0 || !handed.planned
	return changes
}

// handedOver are the nodes that were given slots by the steward's last plans and
// have not said since that they have taken them over.
type handedOver struct {
	nodes   []core.NodeID
	at      core.Instant
	planned bool // there was something to do the last time
}

// takeOverTime bounds how long others wait for the slots that one node was given.
const takeOverTime = 5 * time.Second

// note adds who is given slots by changes of m.
func (h *handedOver) note(m *core.Map, changes []core.Change, now core.Instant) {
	for i := range changes {
		if id := m.NodeOf(changes[i].Disk); changes[i].Kind == core.ChangeOwner && !slices.Contains(h.nodes, id) {
			h.nodes, h.at = append(h.nodes, id), now
		}
	}
}

// still says whether a node is still taking over what the last plans gave it: no
// more slots change hands until their requests go on.
func (h *handedOver) still(m *core.Map, said map[core.NodeID]taking, now core.Instant) bool {
	if len(h.nodes) > 0 && now.Sub(h.at) > takeOverTime {
		h.nodes = nil
	}
	h.nodes = slices.DeleteFunc(h.nodes, func(id core.NodeID) bool {
		t, ok := said[id]
		return m.Node(id) == nil || ok && (t.old || t.epoch >= m.Epoch && t.left == 0)
	})
	return len(h.nodes) > 0
}

// taking is what a node says before the steward asks more of all nodes.
type taking struct {
	epoch core.Epoch // of the map in effect there
	left  uint64     // slots that it gives to the node and that may not be read yet
	busy  bool       // clients are being served
	old   bool       // it is older than the question
}

// serving says whether clients are being served anywhere.
func serving(said map[core.NodeID]taking) bool {
	for _, t := range said {
		if t.busy {
			return true
		}
	}
	return false
}

// askTaking asks all nodes that are heard. Those that do not answer at once are
// left out.
func (n *Node) askTaking(ctx context.Context, m *core.Map, silent []core.NodeID) map[core.NodeID]taking {
	ctx, cancel := context.WithTimeout(ctx, stewardEvery)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	said := map[core.NodeID]taking{}
	for i := range m.Nodes {
		id := m.Nodes[i].ID
		if m.Nodes[i].State == core.NodeDown || slices.Contains(silent, id) {
			continue
		}
		wg.Go(func() {
			resp, err := n.CallNode(ctx, id, methodTaking, nil)
			t := taking{old: errors.Is(err, errors.ErrUnsupported)}
			if err == nil {
				t, err = decodeTaking(resp)
			}
			if err != nil && !t.old {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			said[id] = t
		})
	}
	wg.Wait()
	return said
}

// serveTaking answers askTaking.
func (n *Node) serveTaking() ([]byte, error) {
	m := n.driver.effect.Load()
	if m == nil {
		return nil, fmt.Errorf("node %s knows no map in effect yet: %w", n.id, core.ErrUnavailable)
	}
	t := taking{epoch: m.Epoch, busy: n.heal.brake.serving()}
	for i := range m.Slots {
		if s := core.SlotID(i); m.OwnerNode(s) == n.id && !n.driver.rights.Open(s, true) {
			t.left++
		}
	}
	return t.append(nil), nil
}

func (t *taking) append(b []byte) []byte {
	b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(t.epoch)), t.left)
	if t.busy {
		return append(b, 1)
	}
	return append(b, 0)
}

// decodeTaking reads what append wrote. A node of before does not say whether it
// serves clients.
func decodeTaking(b []byte) (t taking, err error) {
	epoch, k := binary.Uvarint(b)
	if k <= 0 {
		return t, fmt.Errorf("a node's answer to what it is taking over: %w", core.ErrInvalid)
	}
	left, l := binary.Uvarint(b[k:])
	if l <= 0 {
		return t, fmt.Errorf("a node's answer to what it is taking over: %w", core.ErrInvalid)
	}
	return taking{epoch: core.Epoch(epoch), left: left, busy: len(b) > k+l && b[k+l] == 1}, nil
}

func (n *Node) silent() []core.NodeID {
	n.driver.mu.Lock()
	defer n.driver.mu.Unlock()
	return n.driver.node.Silent(n.clock.Boot())
}

// isSteward says whether this node is the first voter that is heard.
func (n *Node) isSteward(m *core.Map, silent []core.NodeID) bool {
	return stewardOf(m, silent) == n.id
}

// stewardOf is the first voter that is heard, "" if none is.
func stewardOf(m *core.Map, silent []core.NodeID) core.NodeID {
	for _, v := range m.Voters {
		if slices.Contains(silent, v.Node) {
			continue
		}
		if node := m.Node(v.Node); node != nil && node.State != core.NodeDown {
			return v.Node
		}
	}
	return ""
}

// passPatience is how long a node waits for the steward to make joiners members
// before it does so itself.
const passPatience = 2 * time.Second

// passJoined asks the steward to make joiners members of this node's slots.
func (n *Node) passJoined(ctx context.Context, joined []core.Change) bool {
	m := n.driver.effect.Load()
	if m == nil {
		return false
	}
	to := stewardOf(m, n.silent())
	if to == "" || to == n.id {
		return false
	}
	req, err := json.Marshal(joined)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, passPatience)
	defer cancel()
	_, err = n.net.Call(ctx, to, methodJoined, req)
	return err == nil
}

// serveJoined makes joiners members of another node's slots.
func (n *Node) serveJoined(ctx context.Context, req []byte) ([]byte, error) {
	var joined []core.Change
	if err := json.Unmarshal(req, &joined); err != nil {
		return nil, fmt.Errorf("joiners that have caught up: %w: %w", core.ErrInvalid, err)
	}
	if slices.ContainsFunc(joined, func(c core.Change) bool { return c.Kind != core.ChangeJoined }) {
		return nil, fmt.Errorf("joiners that have caught up: another change is among them: %w", core.ErrInvalid)
	}
	_, err := n.keeper.propose(ctx, joined...)
	return nil, err
}

// Keeps says whether this node is the one that looks after what concerns the
// whole cluster: the first voter that is heard.
func (n *Node) Keeps() bool {
	_, m, _ := n.driver.maps()
	return m != nil && n.isSteward(m, n.silent())
}

// stewardVoters keeps the right number of voters, and ends drains that are
// through, where this node is the steward.
func (n *Node) stewardVoters(ctx context.Context) {
	const every = time.Second
	for n.clock.Wait(ctx, every) == nil {
		newest, m, _ := n.driver.maps()
		if m == nil || newest != m || !n.Keeps() {
			continue
		}
		statuses := n.Statuses(ctx)
		keys := map[core.NodeID]string{}
		for id, s := range statuses {
			if node := m.Node(id); node != nil && node.State == core.NodeActive && s.Lease {
				keys[id] = s.VoterKey
			}
		}
		var changes []core.Change
		if c := placement.PlanVoters(m, keys, n.clock.Now(), n.opt.Grace); c != nil {
			changes = append(changes, *c)
		}
		changes = append(changes, n.drained(m, statuses)...)
		if len(changes) == 0 {
			continue
		}
		c, cancel := context.WithTimeout(ctx, patience)
		errs, err := n.keeper.propose(c, changes...)
		cancel()
		if err = errors.Join(append(errs, err)...); err != nil {
			n.log.Warn("voters are not as they should be yet", "err", err)
		} else {
			n.log.Info("nodes of the map changed", "kind", string(changes[0].Kind), "voters", len(changes[0].Voters))
		}
	}
}

// drained decommissions nodes from which everything is gone: no slot names one
// of their disks, and every owner has gone over its objects under this map or a
// later one.
func (n *Node) drained(m *core.Map, statuses map[core.NodeID]Status) []core.Change {
	var out []core.Change
	for i := range m.Nodes {
		id := m.Nodes[i].ID
		if m.Nodes[i].State != core.NodeDraining || holdsSlots(m, id) || isVoter(m, id) {
			continue
		}
		done := true
		for s := range m.Slots {
			owner := m.OwnerNode(core.SlotID(s))
			st, ok := statuses[owner]
			done = done && ok && !st.Pending && st.Reconciled == m.Epoch
		}
		if done {
			out = append(out, core.Change{Kind: core.ChangeNodeState, Node: id, State: string(core.NodeDecommissioned)})
		}
	}
	return out
}

func holdsSlots(m *core.Map, id core.NodeID) bool {
	for s := range m.Slots {
		for _, list := range [][]core.DiskID{m.Slots[s].Insync, m.Slots[s].Joining} {
			for _, d := range list {
				if m.NodeOf(d) == id {
					return true
				}
			}
		}
	}
	return false
}

func isVoter(m *core.Map, id core.NodeID) bool {
	return slices.ContainsFunc(m.Voters, func(v core.Voter) bool { return v.Node == id })
}
