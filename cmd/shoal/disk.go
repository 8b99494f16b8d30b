package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/client"
)

func newDiskCommand(o *options) *cobra.Command {
	return group("disk", "Show, detach, attach, format and rebuild disks",
		newDiskLsCommand(o),
		newDiskActionCommand(o, "detach", "Stop using a disk; its data is rebuilt elsewhere", api.DetachDisk),
		newDiskActionCommand(o, "attach", "Use a disk again that was detached, or is mounted or repaired now", api.AttachDisk),
		newDiskActionCommand(o, "format", "Make a directory of the node's configuration a new, empty disk", api.FormatDisk),
		newDiskActionCommand(o, "rebuild", "Rebuild a disk's lost index from its data", api.RebuildDisk),
		newRandomDiskCommand(o))
}

func newDiskLsCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "ls [NODE[/DISK]]", Short: "List the disks, of all nodes, of one, or one disk", Args: between(0, 1), ValidArgsFunction: o.completeDisks,
		RunE: o.withClient(o.listDisks),
	}
}

func newDiskActionCommand(o *options, name, short string, action api.DiskAction) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: name + " NODE/DISK", Short: short, Args: exactly(1), ValidArgsFunction: o.completeDisks,
		RunE: o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			node, disk, err := diskArg(args[0])
			if err != nil {
				return err
			}
			if action == api.FormatDisk {
				if err := o.confirm(ctx, fmt.Sprintf("Format disk %s/%s? Whatever it holds is lost.", node, disk)); err != nil {
					return err
				}
			}
			do := action
			if force {
				do = api.ForceFormatDisk
			}
			d, err := c.DiskAction(ctx, node, disk, do)
			if err != nil {
				return err
			}
			if o.json {
				return o.printJSON(d)
			}
			fmt.Fprintf(o.out, "%s %s\n", d.ID, d.State)
			return nil
		}),
	}
	if action == api.FormatDisk {
		o.addYes(cmd)
		cmd.Flags().BoolVar(&force, "force", false, "also where there are files that are no part of a disk, or a disk of another cluster")
	}
	return cmd
}

func newRandomDiskCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "random NODE", Short: "Print NODE/DISK of a disk in use, chosen at random", Args: exactly(1), ValidArgsFunction: o.completeNodes,
		RunE: o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			node, err := nodeArg(args[0])
			if err != nil {
				return err
			}
			disks, err := c.Disks(ctx, node)
			if err != nil {
				return err
			}
			var names []string
			for _, d := range disks {
				if d.State == core.DiskOK {
					names = append(names, d.ID)
				}
			}
			return o.printRandom("disk", names)
		}),
	}
}
