package main

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// execute runs the command line and returns the exit code.
func execute(ctx context.Context, o *options, args []string) int {
	root := newRootCommand(o) //nolint:contextcheck // commands get theirs from cobra
	root.SetArgs(args)
	root.SetIn(o.in)
	root.SetOut(o.out)
	root.SetErr(o.err)
	stop := context.CancelFunc(func() {})
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		limited, cancel := o.limited(ctx)
		stop = cancel
		cmd.SetContext(limited)
		return nil
	}
	err := root.ExecuteContext(ctx)
	stop()
	if err != nil {
		for _, prefix := range []string{"unknown command", "required flag", "if any flags in the group"} {
			if strings.HasPrefix(err.Error(), prefix) { // cobra has no types for these
				err = withCode(exitUsage, err)
			}
		}
		o.report(err)
	}
	return exitCode(err)
}

// newRootCommand is the whole command line.
func newRootCommand(o *options) *cobra.Command {
	root := &cobra.Command{
		Use:           "shoal",
		Short:         "A storage cluster for data sets",
		Long:          "Shoal keeps data sets on many nodes and disks, fronts remote buckets, and runs long jobs inside the cluster.\nThis program is its server and its client.",
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noSuchCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("shoal {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%v\nusage: %s", err, cmd.UseLine())
	})
	o.addGlobalFlags(root)
	const data, jobs, cluster, nodes = "data", "jobs", "cluster", "nodes"
	root.AddGroup(
		&cobra.Group{ID: data, Title: "Buckets and objects:"},
		&cobra.Group{ID: jobs, Title: "Jobs:"},
		&cobra.Group{ID: cluster, Title: "The cluster:"},
		&cobra.Group{ID: nodes, Title: "Running nodes:"},
	)
	root.AddCommand(newCompileCommand(o))
	for _, g := range []struct {
		id       string
		commands []*cobra.Command
	}{
		{data, []*cobra.Command{
			newLsCommand(o), newBucketCommand(o), newPutCommand(o), newGetCommand(o), newCatCommand(o), newStatCommand(o),
			newRmCommand(o), newMvCommand(o), newCpCommand(o), newEvictCommand(o), newStorageCommand(o), newGenShardsCommand(o),
		}},
		{jobs, []*cobra.Command{newStartCommand(o), newStopCommand(o), newWaitCommand(o), newEtlCommand(o)}},
		{cluster, []*cobra.Command{newShowCommand(o), newClusterCommand(o), newDiskCommand(o)}},
		{nodes, []*cobra.Command{newDevCommand(o), newServerCommand(o), newInitCommand(o), newRecoverCommand(o), newConfigCommand(o)}},
	} {
		for _, c := range g.commands {
			c.GroupID = g.id
			root.AddCommand(c)
		}
	}
	return root
}

// group is a command that only has others below it.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(children...)
	return cmd
}

// noSuchCommand refuses arguments where a command was expected.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		text += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return usagef("%s", text)
}

// version is the module's, as the build recorded it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
