package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalstore/shoal/cmd/shoal/internal/devcluster"
	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/client"
)

// devFlags are what every dev command takes.
type devFlags struct {
	*options
	name string
}

func newDevCommand(o *options) *cobra.Command {
	d := &devFlags{options: o}
	cmd := group("dev", "Run a cluster of real processes on this machine",
		newDevUpCommand(d), newDevStatusCommand(d), newDevEnvCommand(d), newDevAddCommand(d),
		d.nodeCommand("kill", "End a node at once (SIGKILL)", "killed", (*devcluster.Cluster).Kill),
		d.nodeCommand("stop", "End a node in order (SIGTERM)", "stopped", (*devcluster.Cluster).Stop),
		d.nodeCommand("pause", "Freeze a node (SIGSTOP)", "paused", (*devcluster.Cluster).Pause),
		d.nodeCommand("resume", "Let a frozen node go on", "resumed", (*devcluster.Cluster).Resume),
		newDevStartCommand(d), newDevDownCommand(d), newDevCleanCommand(d))
	cmd.PersistentFlags().StringVar(&d.name, "name", devcluster.DefaultName, "name of the cluster")
	return cmd
}

// cluster is the cluster that the flags name.
func (d *devFlags) cluster() (*devcluster.Cluster, error) {
	executable, err := d.executable()
	if err != nil {
		return nil, fmt.Errorf("find the program itself: %w", err)
	}
	return devcluster.New(devcluster.Options{
		StateDir: d.stateDir(), Name: d.name, Executable: executable, Env: d.environ, Report: d.hint,
	}), nil
}

// upFlags are the flags of `dev up`.
type upFlags struct {
	*devFlags
	plan     devcluster.Plan
	detach   bool
	backends []string
}

func newDevUpCommand(d *devFlags) *cobra.Command {
	u := &upFlags{devFlags: d}
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a cluster; a new one, or the one that exists",
		Long: `Without -d it stays in the foreground and Ctrl-C ends the cluster. Node i serves clients on the base port + i - 1.
With --backend the nodes ask that endpoint for the provider's buckets. Their credentials there are those of the
environment from which they are started, as the provider's SDK finds them (AWS_ACCESS_KEY_ID, AWS_PROFILE ...) or as
SHOAL_BACKENDS_S3_ACCESS_KEY and the like say; what "shoal dev env" sets for clients is left out. The cluster remembers
them, in its own directory, for nodes that are started or added later from an environment without. gs=URL is asked
without credentials, as an emulator wants it, and is taken to hold to preconditions of uploads in one request, as
fake-gcs-server does (SHOAL_BACKENDS_GS_UPLOAD_CONDITIONS=false if it does not).`,
		Example: `  shoal dev up -d --nodes 5 --disks 3
  AWS_ACCESS_KEY_ID=key AWS_SECRET_ACCESS_KEY=secret shoal dev up -d --backend s3=http://127.0.0.1:9000 --backend gs=http://127.0.0.1:4443`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			u.plan.Fixed = cmd.Flags().Changed("nodes") || cmd.Flags().Changed("disks")
			return u.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&u.detach, "detach", "d", false, "return when the cluster serves")
	f.IntVar(&u.plan.Nodes, "nodes", devcluster.DefaultNodes, "number of nodes")
	f.IntVar(&u.plan.Disks, "disks", devcluster.DefaultDisks, "disks of each node")
	f.StringVar(&u.plan.Data, "data", "", "new or empty directory for the nodes' files (default: below $XDG_STATE_HOME/shoal/dev)")
	f.IntVar(&u.plan.BasePort, "base-port", devcluster.DefaultBasePort, "client port of n1; 0 finds free ports")
	f.StringArrayVar(&u.backends, "backend", nil, "where remote buckets are, as s3=URL or gs=URL; may be repeated")
	return cmd
}

func (u *upFlags) run(ctx context.Context) error {
	for _, b := range u.backends {
		provider, address, ok := strings.Cut(b, "=")
		where, err := url.Parse(address)
		if !ok || err != nil || where.Host == "" || provider != string(core.S3) && provider != string(core.GCS) {
			return usagef("--backend %q: want s3=URL or gs=URL", b)
		}
		u.plan.Backends = append(u.plan.Backends, devcluster.Backend{Provider: provider, URL: address})
	}
	c, err := u.cluster()
	if err != nil {
		return err
	}
	start := time.Now()
	if err := c.Up(ctx, u.plan); err != nil {
		return err
	}
	if err := u.announce(ctx, c, time.Since(start)); err != nil {
		return err
	}
	if u.detach {
		return nil
	}
	u.hint("Ctrl-C ends the cluster.")
	err = c.Wait(ctx)
	if ctx.Err() == nil {
		return err // ended from elsewhere
	}
	u.hint("ending %d nodes", u.plan.Nodes)
	if err := c.Down(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	if errors.Is(err, errInterrupted) || errors.Is(context.Cause(ctx), errInterrupted) {
		return nil
	}
	return err
}

func (u *upFlags) announce(ctx context.Context, c *devcluster.Cluster, took time.Duration) error {
	if u.json {
		return u.status(ctx, c)
	}
	s, err := c.State()
	if err != nil {
		return err
	}
	name := ""
	if u.name != devcluster.DefaultName {
		name = " --name " + u.name
	}
	fmt.Fprintf(u.out, "cluster %q: %d nodes of %d disks, ready in %s\n", u.name, len(s.Nodes), len(s.Nodes[0].Disks), formatDuration(took))
	u.details("  endpoints", strings.Join(s.Endpoints(), ","), "  data", s.Data,
		"  to use it", fmt.Sprintf(`eval "$(shoal dev env%s)"`, name), "  to end it", "shoal dev down"+name)
	return nil
}

func newDevStatusCommand(d *devFlags) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show the nodes' processes", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := d.cluster()
			if err != nil {
				return err
			}
			return d.status(cmd.Context(), c)
		},
	}
}

func (d *devFlags) status(ctx context.Context, c *devcluster.Cluster) error {
	nodes, err := c.Status(ctx)
	if err != nil {
		return err
	}
	d.askDisks(ctx, nodes)
	if d.json {
		return d.printJSON(nodes)
	}
	t := newTable("NODE", "STATE", ">PID", "URL", ">DISKS", "DATA")
	for _, n := range nodes {
		pid := ""
		if n.PID > 0 {
			pid = fmt.Sprint(n.PID)
		}
		t.add(n.Node, n.State, pid, n.URL, fmt.Sprint(len(n.Disks)), n.Data)
	}
	return d.printTable(t)
}

// askDisks fills in what the cluster says of the disks, if a node answers soon.
func (d *devFlags) askDisks(ctx context.Context, nodes []devcluster.NodeStatus) {
	var urls []string
	for _, n := range nodes {
		if n.State == devcluster.Running {
			urls = append(urls, n.URL)
		}
	}
	if len(urls) == 0 {
		return
	}
	c, err := client.New(client.Options{Endpoints: urls, AccessKey: config.DevAccessKey, SecretKey: config.DevSecretKey})
	if err != nil {
		return
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	disks, err := c.Disks(ctx, "")
	if err != nil {
		return
	}
	states := make(map[string]api.Disk)
	for _, disk := range disks {
		states[disk.ID] = disk
	}
	for _, n := range nodes {
		for i := range n.Disks {
			if disk, ok := states[n.Disks[i].ID]; ok {
				n.Disks[i].State = string(disk.State)
			}
		}
	}
}

func newDevEnvCommand(d *devFlags) *cobra.Command {
	return &cobra.Command{
		Use: "env", Short: `Print what makes clients use the cluster: eval "$(shoal dev env)"`, Args: exactly(0),
		RunE: func(*cobra.Command, []string) error {
			c, err := d.cluster()
			if err != nil {
				return err
			}
			s, err := c.State()
			if err != nil {
				return err
			}
			vars := [][2]string{
				{"SHOAL_ENDPOINT", strings.Join(s.Endpoints(), ",")},
				{"SHOAL_ACCESS_KEY", config.DevAccessKey},
				{"SHOAL_SECRET_KEY", config.DevSecretKey},
				{"AWS_ENDPOINT_URL", s.Endpoints()[0]},
				{"AWS_ACCESS_KEY_ID", config.DevAccessKey},
				{"AWS_SECRET_ACCESS_KEY", config.DevSecretKey},
				{"AWS_REGION", config.Default().Region},
				{"NATS_URL", strings.Join(s.BusURLs(), ",")},
				{"NATS_USER", config.DevAccessKey},
				{"NATS_PASSWORD", config.DevSecretKey},
			}
			if d.json {
				doc := make(map[string]string)
				for _, v := range vars {
					doc[v[0]] = v[1]
				}
				return d.printJSON(doc)
			}
			for _, v := range vars {
				fmt.Fprintf(d.out, "export %s=%s\n", v[0], v[1]) // no value needs quotes
			}
			return nil
		},
	}
}

func newDevAddCommand(d *devFlags) *cobra.Command {
	return &cobra.Command{
		Use: "add", Short: "Add a node to the running cluster, and print its name when it serves", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := d.cluster()
			if err != nil {
				return err
			}
			name, err := c.Add(cmd.Context())
			if err != nil {
				return err
			}
			if d.json {
				return d.printJSON(map[string]string{"node": name})
			}
			fmt.Fprintln(d.out, name)
			return nil
		},
	}
}

// nodeCommand is a command that does something to one node.
func (d *devFlags) nodeCommand(verb, short, done string, do func(*devcluster.Cluster, context.Context, string) error) *cobra.Command {
	return &cobra.Command{
		Use: verb + " NODE", Short: short, Args: exactly(1), ValidArgsFunction: d.completeDevNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := d.cluster()
			if err != nil {
				return err
			}
			if err := do(c, cmd.Context(), args[0]); err != nil {
				return err
			}
			if d.json {
				return d.printJSON(map[string]string{"node": args[0], "state": done})
			}
			d.hint("%s %s", args[0], done)
			return nil
		},
	}
}

func newDevStartCommand(d *devFlags) *cobra.Command {
	var withoutDisks bool
	cmd := d.nodeCommand("start", "Start a node that has ended; returns when it serves again", "running",
		func(c *devcluster.Cluster, ctx context.Context, node string) error {
			var flags []string
			if withoutDisks {
				flags = append(flags, "--without-disks")
			}
			return c.Start(ctx, node, flags...)
		})
	cmd.Flags().BoolVar(&withoutDisks, "without-disks", false, "also if none of its disks can be used, so that they can be formatted")
	return cmd
}

func (d *devFlags) completeDevNodes(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	s, err := devcluster.Find(d.stateDir(), d.name)
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, n := range s.Nodes {
		out = append(out, n.Name)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func newDevDownCommand(d *devFlags) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "End all nodes in order; their data stays", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := d.cluster()
			if err != nil {
				return err
			}
			return c.Down(cmd.Context())
		},
	}
}

func newDevCleanCommand(d *devFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "clean", Short: "End all nodes and remove all that the cluster has on this machine", Args: exactly(0),
		Long: "It does not ask: a development cluster holds nothing that is dear.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := d.cluster()
			if err != nil {
				return err
			}
			return c.Clean(cmd.Context())
		},
	}
	d.addYes(cmd)
	return cmd
}
