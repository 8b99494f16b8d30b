package main

import (
	"context"
	"fmt"
	"time"
)

// memory reads the nodes' resident memory at rest, and what objects add to it.
func (b *bench) memory(ctx context.Context) error {
	b.line("## Memory\n")
	if err := b.idleMemory(ctx); err != nil {
		return err
	}
	return b.filledMemory(ctx)
}

// idleMemory measures six nodes that hold nothing.
func (b *bench) idleMemory(ctx context.Context) error {
	return b.withCluster(ctx, 6, 3, func(c *cluster, _ string) error {
		if _, err := c.run(ctx, "cluster", "wait", "--healthy", "--timeout", "120s"); err != nil {
			return err
		}
		if err := rest(ctx); err != nil {
			return err
		}
		var voters, others []float64
		for i, n := range c.status(ctx) {
			if m := float64(rss(n.PID)) / (1 << 20); i < 5 {
				voters = append(voters, m)
			} else {
				others = append(others, m)
			}
		}
		b.line("Six idle nodes with three disks: voters %.0f MiB (target <= 90), the non-voter %.0f MiB (target <= 60).\n", median(voters), median(others))
		return nil
	})
}

// rest lets the nodes finish what they do in the background.
func rest(ctx context.Context) error {
	select {
	case <-time.After(10 * time.Second):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// filledMemory measures what a node's memory grows by with what it holds.
func (b *bench) filledMemory(ctx context.Context) error {
	return b.withCluster(ctx, 1, 1, func(c *cluster, _ string) error {
		if _, err := c.run(ctx, "bucket", "create", "shoal://many", "--props", "scheme=none,inline=128KiB"); err != nil {
			return err
		}
		s := newSide("shoal", "many", c.endpoints...)
		// What the first writes allocate is not due to their number.
		if err := fill(ctx, s, b.o.objects/10, payload(1<<10)); err != nil {
			return err
		}
		measure := func() (float64, error) {
			if err := rest(ctx); err != nil {
				return 0, err
			}
			nodes := c.status(ctx)
			if len(nodes) != 1 {
				return 0, fmt.Errorf("got the status of %d nodes, want 1", len(nodes))
			}
			return float64(rss(nodes[0].PID)) / (1 << 20), nil
		}
		few, err := measure()
		if err != nil {
			return err
		}
		if err := fill(ctx, s, b.o.objects, payload(1<<10)); err != nil {
			return err
		}
		many, err := measure()
		if err != nil {
			return err
		}
		grown := float64(b.o.objects-b.o.objects/10) / 1e6
		b.line("One node, one disk: %.0f MiB with %d objects of 1 KiB, %.0f MiB with %d: %.0f MiB a million.\n", few, b.o.objects/10, many, b.o.objects, (many-few)/grown)
		return nil
	})
}
