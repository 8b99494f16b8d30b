package engine

import (
	"context"
	"slices"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/placement"
)

// stewardEvery is how often the steward looks whether something is due.
const stewardEvery = 250 * time.Millisecond

// maxJoins is the number of slots that may be joining on a disk at a time. Most
// of them have little or nothing to take; see docs/protocol.md.
const maxJoins = 512

// steward proposes the changes of the map that nobody has to ask for: failed
// nodes out, replacements in, everything where rendezvous hashing wants it. The
// first voter that is heard does it; should two do it, their proposals meet in
// the bus's compare-and-set.
func (n *Node) steward(ctx context.Context) {
	tick := time.NewTicker(stewardEvery)
	defer tick.Stop()
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
		changes := placement.Plan(m, n.clock.Now(), placement.State{Silent: silent, Grace: n.opt.Grace, MaxJoins: maxJoins})
		if len(changes) == 0 {
			continue
		}
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

func (n *Node) silent() []core.NodeID {
	n.driver.mu.Lock()
	defer n.driver.mu.Unlock()
	return n.driver.node.Silent(n.clock.Boot())
}

// isSteward says whether this node is the first voter that is heard.
func (n *Node) isSteward(m *core.Map, silent []core.NodeID) bool {
	for _, v := range m.Voters {
		if slices.Contains(silent, v.Node) {
			continue
		}
		if node := m.Node(v.Node); node != nil && node.State != core.NodeDown {
			return v.Node == n.id
		}
	}
	return false
}

// Keeps says whether this node is the one that looks after what concerns the
// whole cluster: the first voter that is heard.
func (n *Node) Keeps() bool {
	_, m, _ := n.driver.maps()
	return m != nil && n.isSteward(m, n.silent())
}
