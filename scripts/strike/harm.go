package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// harm is a way to strike.
type harm struct {
	name string
	// choose says what to strike now; nil is nothing this time.
	choose func(context.Context, *chaos, *rand.Rand) (*blow, error)
	// shortest and longest are how long it lasts.
	shortest, longest time.Duration
	// process says that it needs the processes or the files of the nodes,
	// destroys that data without redundancy may go.
	process, destroys bool
}

func (h harm) lasts(rnd *rand.Rand) time.Duration {
	if h.longest <= h.shortest {
		return h.shortest
	}
	return h.shortest + time.Duration(rnd.Int64N(int64(h.longest-h.shortest)))
}

// harms are all of them.
func harms() []harm {
	const s = time.Second
	return []harm{
		{name: "kill a node", choose: ofNode("kill", "start"), longest: 12 * s, process: true},
		{name: "kill the bus's leader", choose: killLeader, longest: 12 * s, process: true},
		{name: "kill a node and start it at once", choose: ofNode("kill", "start"), process: true},
		{name: "freeze a node for 1 s", choose: ofNode("pause", "resume"), shortest: s, process: true},
		{name: "freeze a node for longer than a lease", choose: ofNode("pause", "resume"), shortest: 5 * s, longest: 7 * s, process: true},
		{name: "freeze a node for 10 s", choose: ofNode("pause", "resume"), shortest: 10 * s, process: true},
		{name: "stop a node in order", choose: ofNode("stop", "start"), longest: 8 * s, process: true},
		{name: "detach a disk", choose: ofDisk((*harness).detachedDisk), longest: 8 * s},
		{name: "wipe a disk", choose: ofDisk((*harness).wipedDisk), shortest: 3 * s, longest: 8 * s, process: true, destroys: true},
		{name: "lose sight of a disk's data", choose: ofDisk((*harness).hiddenDisk), shortest: 2 * s, longest: 8 * s, process: true},
		{name: "flip bits of shards", choose: ofDisk(damaged("bit flips in shards of", flipBit)), process: true, destroys: true},
		{name: "truncate shards", choose: ofDisk(damaged("truncated shards of", truncate)), process: true, destroys: true},
		{name: "remove shards", choose: ofDisk(damaged("removed shards of", removeFile)), process: true, destroys: true},
		{name: "maintain a node", choose: maintain, shortest: 2 * s, longest: 10 * s},
		{name: "change a weight", choose: reweigh, shortest: 2 * s, longest: 8 * s},
		{name: "add a node", choose: addNode, process: true},
	}
}

// deck deals the harms in random order, each one once before any a second time.
type deck struct {
	rnd        *rand.Rand
	all, cards []harm
}

func (c *chaos) newDeck() *deck {
	all := slices.DeleteFunc(harms(), func(h harm) bool { return h.process && c.dev == "" })
	if c.o.strike != "" {
		all = append(all, harm{name: "the user's own", choose: func(ctx context.Context, c *chaos, rnd *rand.Rand) (*blow, error) {
			node, err := c.randomNode(ctx, rnd)
			if err != nil {
				return nil, err
			}
			return killNode(ctx, c.harness, rnd, node)
		}, longest: 10 * time.Second})
	}
	return &deck{rnd: c.o.draw("deck", 0), all: all}
}

func (d *deck) draw() harm {
	if len(d.cards) == 0 {
		d.cards = slices.Clone(d.all)
		d.rnd.Shuffle(len(d.cards), func(i, j int) { d.cards[i], d.cards[j] = d.cards[j], d.cards[i] })
	}
	h := d.cards[0]
	d.cards = d.cards[1:]
	return h
}

// ofNode does something to the process of a random node.
func ofNode(verb, back string) func(context.Context, *chaos, *rand.Rand) (*blow, error) {
	return func(ctx context.Context, c *chaos, rnd *rand.Rand) (*blow, error) {
		node, err := c.randomNode(ctx, rnd)
		if err != nil {
			return nil, err
		}
		return c.process(node, verb, back), nil
	}
}

// ofDisk does something to a random disk in use.
func ofDisk(do func(*harness, api.Disk) *blow) func(context.Context, *chaos, *rand.Rand) (*blow, error) {
	return func(ctx context.Context, c *chaos, rnd *rand.Rand) (*blow, error) {
		disk, err := c.randomDisk(ctx, rnd)
		if err != nil {
			return nil, err
		}
		return do(c.harness, disk), nil
	}
}

// killLeader kills the node that leads the bus.
func killLeader(ctx context.Context, c *chaos, rnd *rand.Rand) (*blow, error) {
	state, err := c.api.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	if node := leaderOf(state); node != "" {
		return c.process(node, "kill", "start"), nil
	}
	return ofNode("kill", "start")(ctx, c, rnd)
}

func maintain(ctx context.Context, c *chaos, rnd *rand.Rand) (*blow, error) {
	node, err := c.randomNode(ctx, rnd)
	if err != nil {
		return nil, err
	}
	return c.maintenance(node), nil
}

// reweigh makes a node's share of the data smaller or larger for a while.
func reweigh(ctx context.Context, c *chaos, rnd *rand.Rand) (*blow, error) {
	node, err := c.randomNode(ctx, rnd)
	if err != nil {
		return nil, err
	}
	set := func(weight float64) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := c.api.SetNode(ctx, node, api.Placement{Weight: &weight})
			return err
		}
	}
	weight := []float64{0.5, 2}[rnd.IntN(2)]
	return &blow{what: fmt.Sprintf("weight %v of %s", weight, node), node: node, strike: set(weight), restore: set(1)}, nil
}

// mostAdded is how many nodes join at the most: each is a process.
const mostAdded = 1

// addNode adds a node for good.
func addNode(ctx context.Context, c *chaos, _ *rand.Rand) (*blow, error) {
	nodes, err := c.status(ctx)
	if err != nil {
		return nil, err
	}
	if !c.own || len(nodes) >= c.o.nodes+mostAdded {
		return nil, nil
	}
	name := fmt.Sprintf("n%d", len(nodes)+1)
	return &blow{
		what: "a new node, " + name, node: core.NodeID(name),
		strike: func(ctx context.Context) error {
			out, err := c.run(ctx, "-q", "dev", "add", "--name", c.dev)
			if got := strings.TrimSpace(string(out)); err == nil && got != name {
				return fmt.Errorf("got node %s, want %s", got, name)
			}
			return err
		},
		restore: func(context.Context) error { return nil },
	}, nil
}

// damaged spoils some shards of a disk, which a scrub finds and mends.
func damaged(what string, spoil func(path string, rnd *rand.Rand) error) func(*harness, api.Disk) *blow {
	return func(h *harness, disk api.Disk) *blow {
		return &blow{
			what: what + " " + disk.ID, node: disk.Node,
			strike: func(ctx context.Context) error {
				path, err := h.diskPath(ctx, disk)
				if err != nil {
					return err
				}
				return spoilShards(path, h.o.draw("damage "+what, len(h.res.courses)), spoil)
			},
			restore: func(context.Context) error { return nil },
			mend:    h.scrub,
		}
	}
}

// scrub has everything read and mended.
func (h *harness) scrub(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, h.o.timeout)
	defer cancel()
	j, err := h.api.StartJob(ctx, api.JobSpec{Kind: "scrub"})
	if err != nil {
		return err
	}
	if j, err = h.api.WatchJob(ctx, j.ID, time.Second, func(api.Job) {}); err != nil {
		return fmt.Errorf("scrub %s, %s: %w", j.ID, j.State, err)
	}
	if j.State != api.JobDone {
		return fmt.Errorf("scrub %s ended as %s: %s", j.ID, j.State, j.Message)
	}
	return nil
}
