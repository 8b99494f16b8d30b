package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// part is what a node does in the cluster or for a job at the moment.
type part string

// The parts by which --strike chooses.
const (
	anyNode part = "random"
	// planner moves the states of jobs: it is the first of the voters.
	planner part = "planner"
	// lister lists a part of a remote source.
	lister part = "lister"
	// spoken is the node that the job was started at, and that tells of it.
	spoken part = "cli"
	// leader leads the bus.
	leader part = "leader"
	// eachPart is not a part: the rounds take them in turn.
	eachPart part = "each"
)

// partsOf are the parts that a node may have while a job runs.
func partsOf(remote bool) []part {
	if remote {
		return []part{planner, lister, spoken, leader}
	}
	return []part{planner, spoken, leader} // nobody lists what the cluster has
}

// checkParts says whether --strike names a part.
func checkParts(p part, remote bool) error {
	known := append(partsOf(remote), anyNode, eachPart)
	switch {
	case slices.Contains(known, p):
		return nil
	case p == lister:
		return usagef("--strike %s: only of a remote source there are nodes that list; give --from and --to", p)
	}
	return usagef("--strike %q: want one of %v", p, known)
}

// struckBooks counts the rounds by part.
type struckBooks struct {
	// Chosen is how often a node was struck because it had the part, Struck how
	// often the one that was struck had it.
	Chosen int `json:"chosen"`
	Struck int `json:"struck"`
}

// partsNow is which nodes have which parts.
type partsNow map[part][]core.NodeID

// of are the parts of a node, in order of name.
func (p partsNow) of(node core.NodeID) []part {
	var out []part
	for x, nodes := range p {
		if slices.Contains(nodes, node) {
			out = append(out, x)
		}
	}
	slices.Sort(out)
	return out
}

// victim is the node to strike.
type victim struct {
	node   core.NodeID
	chosen part
	parts  []part
}

func (v victim) String() string {
	if len(v.parts) == 0 {
		return fmt.Sprintf("%s, chosen as %s", v.node, v.chosen)
	}
	var words []string
	for _, p := range v.parts {
		words = append(words, string(p))
	}
	return fmt.Sprintf("%s, chosen as %s; it is %s", v.node, v.chosen, strings.Join(words, ", "))
}

// partOf is the part by which a round chooses.
func (o *options) partOf(round int) part {
	if o.part != eachPart {
		return o.part
	}
	all := append(partsOf(o.from != ""), anyNode)
	return all[(round-1)%len(all)]
}

// victim chooses among the nodes in service that have the round's part. It waits
// until there is one, false if the job is over before.
func (h *harness) victim(ctx context.Context, rnd *rand.Rand, round int, w *watched) (victim, bool, error) {
	v := victim{chosen: h.o.partOf(round)}
	pick := rnd.Uint64()
	for {
		active, err := h.active(ctx)
		if err != nil {
			return v, false, err
		}
		now, err := h.parts(ctx, w.last())
		if err != nil {
			return v, false, err
		}
		may := active
		if v.chosen != anyNode {
			may = slices.DeleteFunc(slices.Clone(now[v.chosen]), func(n core.NodeID) bool { return !slices.Contains(active, n) })
		}
		if len(may) > 0 {
			v.node = may[pick%uint64(len(may))]
			v.parts = now.of(v.node)
			return v, true, nil
		}
		select {
		case <-w.done:
			return v, false, nil
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return v, false, ctx.Err()
		}
	}
}

// parts asks the cluster who does what. Of what it does not say nobody has the part.
func (h *harness) parts(ctx context.Context, j api.Job) (partsNow, error) {
	now := partsNow{}
	url := h.api.Endpoint()
	var (
		state api.Cluster
		m     *core.Map
		job   api.Job
	)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) { state, err = h.api.Cluster(gctx); return err })
	g.Go(func() (err error) { m, err = h.api.Map(gctx); return err })
	g.Go(func() (err error) { job, err = h.api.Job(gctx, j.ID); return err })
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("who does what: %w", err)
	}
	if len(m.Voters) > 0 {
		now[planner] = []core.NodeID{m.Voters[0].Node}
	}
	now[lister] = job.Listers
	if node := leaderOf(state); node != "" {
		now[leader] = []core.NodeID{node}
	}
	for _, n := range state.Nodes {
		if n.URL == url {
			now[spoken] = []core.NodeID{n.ID}
		}
	}
	return now, nil
}

// leaderOf is the node that leads the bus, "" if none does.
func leaderOf(c api.Cluster) core.NodeID {
	for _, n := range c.Nodes {
		if c.NATSLeader == string(n.ID) || n.Bus != "" && strings.HasSuffix(c.NATSLeader, n.Bus) {
			return n.ID
		}
	}
	return ""
}

// struck enters a round into the books.
func (r *result) struck(v victim) {
	if r.Strikes == nil {
		r.Strikes = map[part]struckBooks{}
	}
	b := r.Strikes[v.chosen]
	b.Chosen++
	r.Strikes[v.chosen] = b
	for _, p := range v.parts {
		b := r.Strikes[p]
		b.Struck++
		r.Strikes[p] = b
	}
}
