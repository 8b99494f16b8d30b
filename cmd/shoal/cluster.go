package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/client"
)

func newClusterCommand(o *options) *cobra.Command {
	return group("cluster", "Maintain, grow and shrink the cluster",
		group("maintenance", "Take a node out of service for a while, and back",
			newNodeActionCommand(o, "start", "Prepare a node for maintenance: what it owns goes to others, its data stays", api.MaintenanceStart),
			newNodeActionCommand(o, "stop", "Put a node back into service", api.MaintenanceStop)),
		newNodeActionCommand(o, "decommission", "Move everything off a node and remove it for good", api.Decommission),
		newClusterWaitCommand(o), newRandomNodeCommand(o), newClusterSetCommand(o), newJoinCommand(o))
}

func newNodeActionCommand(o *options, name, short string, action api.NodeAction) *cobra.Command {
	cmd := &cobra.Command{
		Use: name + " NODE", Short: short, Args: exactly(1), ValidArgsFunction: o.completeNodes,
		RunE: o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			id, err := nodeArg(args[0])
			if err != nil {
				return err
			}
			if action == api.Decommission {
				if err := o.confirm(ctx, fmt.Sprintf("Move everything off node %s and remove it for good?", id)); err != nil {
					return err
				}
			}
			node, err := c.NodeAction(ctx, id, action)
			if err != nil {
				return err
			}
			if o.json {
				return o.printJSON(node)
			}
			fmt.Fprintf(o.out, "%s %s\n", node.ID, node.State)
			if node.State == core.NodeDraining || action == api.MaintenanceStop {
				o.hint("  to wait:  shoal cluster wait --healthy")
			}
			return nil
		}),
	}
	if action == api.Decommission {
		o.addYes(cmd)
	}
	return cmd
}

func newClusterWaitCommand(o *options) *cobra.Command {
	var healthy bool
	cmd := &cobra.Command{
		Use: "wait --healthy", Short: "Wait until the cluster is healthy: full redundancy, no move of data under way", Args: exactly(0),
		RunE: o.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			if !healthy {
				return usagef("say what to wait for: --healthy")
			}
			state, err := c.WaitHealthy(ctx, func(s api.Cluster) {
				o.hint("not yet: %s", strings.Join(s.Problems, "; "))
			})
			if err != nil {
				if len(state.Problems) > 0 {
					return fmt.Errorf("not healthy (%s): %w", strings.Join(state.Problems, "; "), err)
				}
				return err
			}
			if o.json {
				return o.printJSON(state)
			}
			fmt.Fprintln(o.out, "healthy")
			return nil
		}),
	}
	cmd.Flags().BoolVar(&healthy, "healthy", false, "until the cluster is healthy")
	return cmd
}

func newRandomNodeCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "random-node", Short: "Print the name of an active node, chosen at random", Args: exactly(0),
		RunE: o.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			nodes, err := c.Nodes(ctx)
			if err != nil {
				return err
			}
			var names []string
			for _, n := range nodes {
				if n.State == core.NodeActive {
					names = append(names, string(n.ID))
				}
			}
			return o.printRandom("node", names)
		}),
	}
}

// printRandom prints one of some names.
func (o *options) printRandom(what string, names []string) error {
	if len(names) == 0 {
		return fmt.Errorf("no %s is in service: %w", what, core.ErrNotFound)
	}
	name := names[rand.IntN(len(names))]
	if o.json {
		return o.printJSON(map[string]string{what: name})
	}
	_, err := fmt.Fprintln(o.out, name)
	return err
}

func newClusterSetCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:               "set NODE[/DISK] weight=W,zone=Z",
		Short:             "Change a node's weight and zone, or a disk's weight",
		Long:              "The weight of a node multiplies those of its disks; that of a disk is its share of the data, by default its capacity in GiB.",
		Example:           "  shoal cluster set n1 weight=2,zone=rack-1\n  shoal cluster set n1/d2 weight=500",
		Args:              exactly(2),
		ValidArgsFunction: o.completeNodes,
		RunE: o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			p, err := parsePlacement(args[1])
			if err != nil {
				return err
			}
			if strings.Contains(args[0], "/") {
				node, disk, err := diskArg(args[0])
				if err != nil {
					return err
				}
				d, err := c.SetDisk(ctx, node, disk, p)
				if err != nil {
					return err
				}
				return o.printDisks([]api.Disk{d})
			}
			node, err := nodeArg(args[0])
			if err != nil {
				return err
			}
			n, err := c.SetNode(ctx, node, p)
			if err != nil {
				return err
			}
			return o.printNodes([]api.Node{n})
		}),
	}
}

func parsePlacement(s string) (p api.Placement, err error) {
	for item := range strings.SplitSeq(s, ",") {
		name, value, ok := strings.Cut(item, "=")
		switch {
		case ok && name == "weight":
			w, err := strconv.ParseFloat(value, 64)
			if err != nil || !(w >= 0) {
				return p, usagef("%s: want a number, 0 or above", item)
			}
			p.Weight = &w
		case ok && name == "zone":
			p.Zone = &value
		default:
			return p, usagef("%q: want weight=W, zone=Z, or both with a comma", item)
		}
	}
	return p, nil
}
