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
	cmd, err := root.ExecuteContextC(ctx)
	stop()
	if err != nil {
		err = wrongFlags(cmd, err)
		o.report(err)
	}
	return exitCode(err)
}

// wrongFlags puts cobra's words about commands and flags, for which it has no types,
// into ours.
func wrongFlags(cmd *cobra.Command, err error) error {
	text := err.Error()
	if flags, ok := strings.CutPrefix(text, "required flag(s) "); ok {
		flags = strings.ReplaceAll(strings.TrimSuffix(flags, " not set"), `"`, "")
		return wrongUse(cmd, fmt.Errorf("missing --%s", strings.ReplaceAll(flags, ", ", " --")))
	}
	if _, flags, ok := strings.Cut(text, "none of the others can be; ["); ok {
		flags, _, _ = strings.Cut(flags, "]")
		return wrongUse(cmd, fmt.Errorf("--%s exclude each other", strings.Join(strings.Fields(flags), " and --")))
	}
	if strings.HasPrefix(text, "unknown command") {
		return withCode(exitUsage, err)
	}
	return err
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
	root.SetFlagErrorFunc(flagError)
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
