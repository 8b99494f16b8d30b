package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/client"
)

func newShowCommand(o *options) *cobra.Command {
	return group("show", "Show the cluster, nodes, disks, jobs, performance",
		newShowClusterCommand(o), newShowNodeCommand(o), newShowDiskCommand(o), newShowJobCommand(o),
		newShowPerformanceCommand(o), newShowRebalanceCommand(o))
}

// repeatFlags show something again and again.
type repeatFlags struct {
	refresh durationFlag
	count   int
}

func (r *repeatFlags) add(cmd *cobra.Command) {
	cmd.Flags().Var(&r.refresh, "refresh", "show it again after this time")
	count(cmd.Flags(), &r.count, "count", 0, "with --refresh: so many times (default: until Ctrl-C)")
}

// run calls show once, or repeatedly until ctx ends, which then is no error.
func (r *repeatFlags) run(ctx context.Context, show func() error) error {
	if r.count > 0 && r.refresh == 0 {
		r.refresh = durationFlag(time.Second)
	}
	for n := 1; ; n++ {
		if err := show(); err != nil {
			if r.refresh > 0 && errors.Is(context.Cause(ctx), errInterrupted) {
				return nil
			}
			return err
		}
		if r.refresh == 0 || n == r.count {
			return nil
		}
		timer := time.NewTimer(time.Duration(r.refresh))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// repeated makes a command that shows something, with --refresh and --count.
func (o *options) repeated(cmd *cobra.Command, show func(ctx context.Context, c *client.Client, args []string) error) *cobra.Command {
	var r repeatFlags
	cmd.RunE = o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
		return r.run(ctx, func() error { return show(ctx, c, args) })
	})
	r.add(cmd)
	return cmd
}

func newShowClusterCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "cluster", Short: "Show the state of the whole", Args: exactly(0)}
	return o.repeated(cmd, func(ctx context.Context, c *client.Client, _ []string) error {
		state, err := c.Cluster(ctx)
		if err != nil {
			return err
		}
		return o.printCluster(state)
	})
}

func (o *options) printCluster(s api.Cluster) error {
	if o.json {
		return o.printJSON(s)
	}
	health := "healthy"
	if !s.Healthy {
		health = "degraded"
		if len(s.Problems) == 1 {
			health += ": " + s.Problems[0]
		}
	}
	leader := s.NATSLeader
	if leader == "" {
		leader = "none"
	}
	o.details(
		"Cluster", s.ClusterID, "Health", health, "Epoch", fmt.Sprint(s.Epoch), "Bus leader", leader,
		"Under-replicated", describeLacking(s.UnderReplicated),
		"Unavailable", formatObjects(s.Unavailable.Objects), "Rebalance", describeRebalance(s.Rebalance),
	)
	if len(s.Problems) > 1 {
		fmt.Fprintln(o.out, "\nProblems:")
		for _, p := range s.Problems {
			fmt.Fprintln(o.out, "  - "+p)
		}
	}
	fmt.Fprintln(o.out)
	return o.printNodes(s.Nodes)
}

// describeLacking writes how many objects lack redundancy, and how fast they get
// it back.
func describeLacking(l api.Lacking) string {
	text := formatAmount(api.Amount{Objects: l.Objects, Bytes: l.Bytes})
	if l.Objects > 0 && l.Rate.Objects > 0 {
		text += fmt.Sprintf(", %s objects/s, %s", formatCount(l.Rate.Objects), formatRate(l.Rate.Bytes))
	}
	return text + untilETA(l.ETA)
}

func describeRebalance(r api.Rebalance) string {
	if r.MovedBytes == 0 && r.MinimumBytes == 0 {
		return r.State
	}
	text := fmt.Sprintf("%s, %s moved of at least %s", r.State, formatBytes(r.MovedBytes), formatBytes(r.MinimumBytes))
	if r.LeftBytes > 0 {
		text += fmt.Sprintf(", %s left at %s", formatBytes(r.LeftBytes), formatRate(r.Rate))
	}
	return text + untilETA(r.ETA)
}

// untilETA writes how long something will take yet, nothing if that is unknown.
func untilETA(t *time.Time) string {
	if t == nil {
		return ""
	}
	return ", ETA " + formatDuration(max(0, time.Until(*t)))
}

func (o *options) printNodes(nodes []api.Node) error {
	t := newTable("NODE", "STATE", "ZONE", ">WEIGHT", "VOTER", ">SLOTS", ">DISKS", ">USED", ">CAPACITY", "URL", "VERSION")
	for _, n := range nodes {
		if o.json {
			if err := o.printJSON(n); err != nil {
				return err
			}
			continue
		}
		t.add(string(n.ID), string(n.State), n.Zone, formatWeight(n.Weight), yesNo(n.Voter), strconv.Itoa(n.Slots), strconv.Itoa(n.Disks),
			formatBytes(n.Used), formatBytes(n.Capacity), n.URL, n.Version)
	}
	if o.json {
		return nil
	}
	return o.printTable(t)
}

func formatWeight(w float64) string { return strconv.FormatFloat(w, 'f', -1, 64) }

func newShowNodeCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "node [NODE]", Short: "Show the nodes, or one", Args: between(0, 1), ValidArgsFunction: o.completeNodes}
	return o.repeated(cmd, func(ctx context.Context, c *client.Client, args []string) error {
		if len(args) == 0 {
			nodes, err := c.Nodes(ctx)
			if err != nil {
				return err
			}
			return o.printNodes(nodes)
		}
		id, err := nodeArg(args[0])
		if err != nil {
			return err
		}
		node, err := c.Node(ctx, id)
		if err != nil {
			return err
		}
		return o.describeNode(ctx, c, node)
	})
}

func (o *options) describeNode(ctx context.Context, c *client.Client, n api.Node) error {
	if o.json {
		return o.printJSON(n)
	}
	o.details(
		"Node", string(n.ID), "State", fmt.Sprintf("%s since %s", n.State, formatTime(n.Since)), "Zone", n.Zone, "Weight", formatWeight(n.Weight),
		"URL", n.URL, "Peer", n.Peer, "Bus", n.Bus, "Voter", yesNo(n.Voter), "Lease", yesNo(n.Lease), "Epoch", fmt.Sprint(n.Epoch),
		"Boot", fmt.Sprint(n.Boot), "Version", n.Version, "Started", formatTimePtr(n.Started), "Slots", strconv.Itoa(n.Slots),
		"Used", formatBytes(n.Used)+" of "+formatBytes(n.Capacity),
	)
	disks, err := c.Disks(ctx, n.ID)
	if err != nil {
		return err
	}
	fmt.Fprintln(o.out)
	return o.printDisks(disks)
}

func newShowDiskCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "disk [NODE[/DISK]]", Short: "Show the disks, of all nodes, of one, or one disk", Args: between(0, 1), ValidArgsFunction: o.completeDisks}
	return o.repeated(cmd, func(ctx context.Context, c *client.Client, args []string) error {
		return o.listDisks(ctx, c, args)
	})
}

func (o *options) listDisks(ctx context.Context, c *client.Client, args []string) error {
	node, one := core.NodeID(""), ""
	if len(args) == 1 {
		name, disk, _ := strings.Cut(args[0], "/")
		var err error
		if node, err = nodeArg(name); err != nil {
			return err
		}
		if disk != "" {
			one = args[0]
		}
	}
	disks, err := c.Disks(ctx, node)
	if err != nil {
		return err
	}
	if one != "" {
		disks = slices.DeleteFunc(disks, func(d api.Disk) bool { return d.ID != one })
		if len(disks) == 0 {
			return fmt.Errorf("disk %s: %w", one, core.ErrNotFound)
		}
	}
	return o.printDisks(disks)
}

func (o *options) printDisks(disks []api.Disk) error {
	t := newTable("DISK", "STATE", ">WEIGHT", ">SLOTS", ">OBJECTS", ">SHARDS", ">USED", ">CAPACITY", ">ERRORS", "PATH")
	for _, d := range disks {
		if o.json {
			if err := o.printJSON(d); err != nil {
				return err
			}
			continue
		}
		t.add(d.ID, string(d.State), formatWeight(d.Weight), strconv.Itoa(d.Slots), strconv.FormatInt(d.Objects, 10), strconv.FormatInt(d.Shards, 10),
			formatBytes(d.Used), formatBytes(d.Capacity), strconv.FormatInt(d.Errors, 10), d.Path)
	}
	if o.json {
		return nil
	}
	if err := o.printTable(t); err != nil {
		return err
	}
	for _, d := range disks {
		if d.Problem != "" {
			fmt.Fprintf(o.out, "\n%s cannot be used: %s\n", d.ID, d.Problem)
		}
	}
	return nil
}

func newShowRebalanceCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "rebalance", Short: "Show how far data has moved to its places", Args: exactly(0)}
	return o.repeated(cmd, func(ctx context.Context, c *client.Client, _ []string) error {
		state, err := c.Cluster(ctx)
		if err != nil {
			return err
		}
		if o.json {
			return o.printJSON(struct {
				api.Rebalance
				UnderReplicated api.Lacking `json:"under_replicated"`
			}{state.Rebalance, state.UnderReplicated})
		}
		r := state.Rebalance
		left := ""
		if r.LeftBytes > 0 {
			left = fmt.Sprintf("%s at %s%s", formatBytes(r.LeftBytes), formatRate(r.Rate), untilETA(r.ETA))
		}
		o.details("State", r.State, "Moved", formatBytes(r.MovedBytes), "Minimum", formatBytes(r.MinimumBytes), "Left", left,
			"Under-replicated", describeLacking(state.UnderReplicated))
		return nil
	})
}

func newShowPerformanceCommand(o *options) *cobra.Command {
	var series, nodes bool
	shown := map[api.Event]bool{}
	cmd := &cobra.Command{
		Use: "performance [NODE]", Short: "Show throughput and latencies of the last seconds", Args: between(0, 1), ValidArgsFunction: o.completeNodes,
	}
	cmd.Flags().BoolVar(&series, "series", false, "the last minutes instead")
	cmd.Flags().BoolVar(&nodes, "nodes", false, "each node, too")
	return o.repeated(cmd, func(ctx context.Context, c *client.Client, args []string) error {
		p, err := c.Performance(ctx)
		if err != nil {
			return err
		}
		if o.json {
			return o.printJSON(p)
		}
		parts := []api.NodePerformance{p.Total}
		if nodes {
			parts = append(parts, p.Nodes...)
		}
		if len(args) == 1 {
			if parts = onlyNode(p.Nodes, args[0]); len(parts) == 0 {
				return fmt.Errorf("node %s: has no figures: %w", args[0], core.ErrNotFound)
			}
		}
		if len(p.Missing) > 0 {
			o.hint("without nodes that did not answer: %s", joinNodes(p.Missing))
		}
		if series {
			return o.printSeries(parts, p.Events)
		}
		o.printEvents(p, shown)
		return o.printPerformance(parts)
	})
}

// printEvents writes what happened of late and was not shown before, a line each.
func (o *options) printEvents(p api.Performance, shown map[api.Event]bool) {
	const late = time.Minute
	for _, e := range p.Events {
		key := e // one thing, whoever was the first to see it
		key.Time = time.Time{}
		if !shown[key] && p.Time.Sub(e.Time) < late {
			fmt.Fprintln(o.out, e.Time.Local().Format(time.TimeOnly), e.Text)
		}
		shown[key] = true
	}
}

func onlyNode(nodes []api.NodePerformance, id string) []api.NodePerformance {
	for _, n := range nodes {
		if string(n.Node) == id {
			return []api.NodePerformance{n}
		}
	}
	return nil
}

func joinNodes(ids []core.NodeID) string {
	var out []string
	for _, id := range ids {
		out = append(out, string(id))
	}
	return strings.Join(out, ", ")
}

func nodeName(n core.NodeID) string {
	if n == "" {
		return "all"
	}
	return string(n)
}

func (o *options) printPerformance(parts []api.NodePerformance) error {
	t := newTable("NODE", "OPERATION", ">OPS/S", ">THROUGHPUT", ">ERRORS", ">P50", ">P90", ">P99", ">MAX")
	for _, part := range parts {
		for _, op := range part.Ops {
			t.add(nodeName(part.Node), op.Op, formatCount(op.Rate), formatRate(op.Bytes), strconv.FormatInt(op.Errors, 10),
				formatLatency(op.P50), formatLatency(op.P90), formatLatency(op.P99), formatLatency(op.Max))
		}
	}
	remotes := newTable("NODE", "BACKEND", "REQUEST", ">REQUESTS/S", ">IN", ">OUT", ">ERRORS", ">THROTTLED", ">IN FLIGHT", ">WAITING")
	for _, part := range parts {
		for _, r := range part.Remotes {
			remotes.add(nodeName(part.Node), r.Backend, r.Op, formatCount(r.Rate), formatRate(r.BytesIn), formatRate(r.BytesOut), strconv.FormatInt(r.Errors, 10),
				strconv.FormatInt(r.Throttled, 10), strconv.Itoa(r.InFlight), strconv.Itoa(r.Waiting))
		}
	}
	switch {
	case len(t.rows) == 0 && len(remotes.rows) == 0:
		fmt.Fprintln(o.out, "No operations of late.")
		return nil
	case len(remotes.rows) == 0:
		return o.printTable(t)
	case len(t.rows) > 0:
		if err := o.printTable(t); err != nil {
			return err
		}
		fmt.Fprintln(o.out)
	}
	return o.printTable(remotes)
}

// printSeries writes a line a second, each with what happened in it.
func (o *options) printSeries(parts []api.NodePerformance, events []api.Event) error {
	t := newTable("NODE", "TIME", ">OPS/S", ">ERRORS/S", ">IN", ">OUT", ">P99", "EVENTS")
	for _, part := range parts {
		for _, s := range part.Series {
			var happened []string
			for _, e := range events {
				if e.Time.Unix() == s.Time.Unix() {
					happened = append(happened, e.Text)
				}
			}
			t.add(nodeName(part.Node), s.Time.Local().Format("15:04:05"), formatCount(s.Ops), formatCount(s.Errors),
				formatRate(s.BytesIn), formatRate(s.BytesOut), formatLatency(s.P99), strings.Join(happened, ", "))
		}
	}
	return o.printTable(t)
}
