package main

import (
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/shoalstore/shoal/config"
)

// newServerCommand runs a node until it is told to end (SIGTERM, Ctrl-C).
func newServerCommand(o *options) *cobra.Command {
	var file string
	var withoutDisks bool
	cmd := &cobra.Command{
		Use: "server --config FILE", Short: "Run a node", Args: exactly(0),
		Long: "The configuration's keys are shown by `shoal config example`; SHOAL_A_B overrides a.b.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(file, o.environ)
			if err != nil {
				return err
			}
			return runServer(cmd.Context(), c, withoutDisks, o.serverLog(c))
		},
	}
	addConfigFlag(cmd, &file)
	cmd.Flags().BoolVar(&withoutDisks, "without-disks", false, "start even if none of the disks can be used: they count as failed, and can be formatted")
	return cmd
}

// initOptions are what `shoal init` decides for the whole life of a cluster.
type initOptions struct {
	// Slots is S, Replicas R; 0 is the default.
	Slots, Replicas int
	// Force formats disks that hold another cluster's data.
	Force bool
}

// newInitCommand makes a cluster: it formats the disks of the nodes whose
// configurations it is given and writes the first map, which lists them all,
// into the state directory of each. So it must run where all those directories
// are: on the first node of a cluster that others join later, or on the machine
// of a development cluster.
func newInitCommand(o *options) *cobra.Command {
	var files []string
	var in initOptions
	cmd := &cobra.Command{
		Use:   "init --config FILE [--config FILE ...]",
		Short: "Make a new cluster of the nodes with these configurations",
		Long: `The disks are formatted and the first map, which lists all the nodes, is written to the data directory of each.
Nodes on other machines join later: shoal cluster join.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var nodes []config.Config
			for _, file := range files {
				c, err := config.Load(file, o.environ)
				if err != nil {
					return err
				}
				nodes = append(nodes, c)
			}
			id, err := runInit(cmd.Context(), nodes, in, o.serverLog(nodes[0]))
			if err != nil {
				return err
			}
			if o.json {
				return o.printJSON(map[string]string{"cluster_id": id})
			}
			fmt.Fprintf(o.out, "cluster %s\n", id)
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&files, "config", nil, "configuration of a node; may be repeated")
	count(cmd.Flags(), &in.Slots, "slots", 0, "number of hash slots, fixed for ever (default 4096)")
	count(cmd.Flags(), &in.Replicas, "replicas", 0, "disks that keep the records of a slot (default 3)")
	cmd.Flags().BoolVar(&in.Force, "force", false, "format disks that belong to another cluster")
	_ = cmd.MarkFlagRequired("config") // cannot fail: the flag exists
	return cmd
}

// newJoinCommand formats a node's disks and adds it to the cluster that its
// seeds belong to. The node is started afterwards.
func newJoinCommand(o *options) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "join --config FILE", Short: "Add this node to the cluster of its seeds; then start it", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(file, o.environ)
			if err != nil {
				return err
			}
			if err := runJoin(cmd.Context(), c, o.serverLog(c)); err != nil {
				return err
			}
			if o.json {
				return o.printJSON(map[string]string{"node": c.Node.Name})
			}
			fmt.Fprintf(o.out, "node %s has joined; start it: shoal server --config %s\n", c.Node.Name, file)
			return nil
		},
	}
	addConfigFlag(cmd, &file)
	return cmd
}

func addConfigFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "config", "", "the node's configuration")
	_ = cmd.MarkFlagRequired("config") // cannot fail: the flag exists
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
}

// serverLog is the log that the configuration asks for, on stderr.
func (o *options) serverLog(c config.Config) *slog.Logger {
	var level slog.Level
	if level.UnmarshalText([]byte(c.Log.Level)) != nil {
		level = slog.LevelInfo // validated before, so never
	}
	opts := &slog.HandlerOptions{Level: level}
	if c.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(o.err, opts))
	}
	return slog.New(slog.NewTextHandler(o.err, opts))
}
