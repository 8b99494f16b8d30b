package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalstore/shoal/cmd/shoal/internal/nodeserver"
	"github.com/shoalstore/shoal/cmd/shoal/internal/recovery"
	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// recoverOptions are the flags of `shoal recover`.
type recoverOptions struct {
	configs, found     []string
	report, out, apply string
	dryRun             bool
	accept             recovery.Accept
}

const recoverLong = `The last resort, for a cluster that cannot go on by itself: the bus (the coordinators' stores) is lost for good, or a
majority of the voters is, or all in-sync disks of a slot are. From what the nodes shown still have, it makes a new map,
names voters anew, and takes every node and disk that is not shown out of the cluster for good. Then start the nodes.

Stop all nodes first, and show all that survive: --config for each node whose directories are on this machine, --found
for what --report has written on another one. Nodes that are not shown must be gone, or stopped for ever: one that runs
on behind a broken network makes changes that are thrown away. If there are nodes on other machines, write --out here
and carry it out there with --apply.

It refuses to guess: what it cannot know must be accepted, each by its flag.`

const recoverExample = `  shoal recover --config n1.yaml --config n2.yaml --dry-run
  shoal recover --config n2.yaml --report n2.json                     # on n2, then carry the file to n1
  shoal recover --config n1.yaml --found n2.json --out new.json       # on n1, then carry the file to n2
  shoal recover --config n2.yaml --apply new.json                     # on n2`

// newRecoverCommand is the operator's last resort.
func newRecoverCommand(o *options) *cobra.Command {
	var r recoverOptions
	cmd := &cobra.Command{
		Use:   "recover --config FILE [--config FILE ...]",
		Short: "Bring back a cluster that lost its bus, most of its voters, or all copies of a slot",
		Long:  recoverLong, Example: recoverExample,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.runRecover(cmd.Context(), r) },
	}
	f := cmd.Flags()
	f.StringArrayVar(&r.configs, "config", nil, "configuration of a stopped node whose directories are here; may be repeated")
	f.StringArrayVar(&r.found, "found", nil, "what --report has written on another machine; may be repeated")
	f.StringVar(&r.report, "report", "", "only write what the one node has to this file")
	f.StringVar(&r.out, "out", "", "write the new map to this file too, for --apply on other machines")
	f.StringVar(&r.apply, "apply", "", "carry out what --out has written on another machine")
	f.BoolVar(&r.dryRun, "dry-run", false, "only say what is found and what would be done")
	f.StringVar(&r.accept.Map, recovery.FlagMap, "", "go on from the map with this checksum, where the nodes' maps form more than one chain")
	f.BoolVar(&r.accept.OlderMap, recovery.FlagOlderMap, false, "go on though later maps, and what was written under them, may be lost")
	f.BoolVar(&r.accept.LostSlots, recovery.FlagLostSlots, false, "go on with empty or older slots where no in-sync disk is left")
	f.BoolVar(&r.accept.LostDisks, recovery.FlagLostDisks, false, "go on without disks of these nodes that cannot be opened")
	f.BoolVar(&r.accept.Intact, recovery.FlagIntact, false, "recover though the cluster could go on by itself")
	_ = cmd.MarkFlagRequired("config") // cannot fail: the flag exists
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	cmd.MarkFlagsMutuallyExclusive("report", "apply", "out")
	cmd.MarkFlagsMutuallyExclusive("report", "apply", "found")
	o.addYes(cmd)
	return cmd
}

func (o *options) runRecover(ctx context.Context, r recoverOptions) (err error) {
	var nodes []config.Config
	for _, file := range r.configs {
		c, err := config.Load(file, o.environ)
		if err != nil {
			return err
		}
		nodes = append(nodes, c)
	}
	stopped, err := nodeserver.OpenStopped(ctx, nodes, o.recoverLog())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopped.Close()) }()
	switch {
	case r.report != "":
		return o.reportFound(r, stopped)
	case r.apply != "":
		return o.applyOrders(ctx, r, stopped)
	}
	found := stopped.Found()
	for _, file := range r.found {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		f, err := recovery.DecodeFound(b)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		found = append(found, f)
	}
	plan, err := recovery.Decide(found, r.accept, time.Now())
	if err != nil {
		return err
	}
	return o.recover(ctx, r, stopped, found, plan)
}

// recoverLog shows only what an operator must see beside the plan.
func (o *options) recoverLog() *slog.Logger {
	level := slog.LevelWarn
	if o.verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(o.err, &slog.HandlerOptions{Level: level}))
}

func (o *options) reportFound(r recoverOptions, stopped *nodeserver.Stopped) error {
	found := stopped.Found()
	if len(found) != 1 {
		return usagef("--report is about one node: give one --config")
	}
	b, err := recovery.EncodeFound(found[0])
	if err != nil {
		return err
	}
	if err := os.WriteFile(r.report, b, 0o600); err != nil {
		return err
	}
	o.hint("%s says what node %s has; give it to: shoal recover --config FILE --found %s", r.report, found[0].Node, r.report)
	return nil
}

func (o *options) applyOrders(ctx context.Context, r recoverOptions, stopped *nodeserver.Stopped) error {
	b, err := os.ReadFile(r.apply)
	if err != nil {
		return err
	}
	orders, m, err := recovery.DecodeOrders(b)
	if err != nil {
		return fmt.Errorf("%s: %w", r.apply, err)
	}
	if r.dryRun {
		o.hint("map %d of cluster %s would be taken; nothing was changed", m.Epoch, m.Cluster)
		return nil
	}
	if err := o.confirm(ctx, fmt.Sprintf("Take map %d of cluster %s?", m.Epoch, m.Cluster)); err != nil {
		return err
	}
	if err := stopped.Take(ctx, orders); err != nil {
		return err
	}
	objects, err := lostObjects(ctx, stopped, m)
	if err != nil {
		return err
	}
	if o.json {
		return o.printJSON(recovered{Plan: &recovery.Plan{Cluster: m.Cluster, Epoch: m.Epoch, Checksum: m.Sum(), Bus: m.Bus}, LostObjects: objects})
	}
	o.printLost(objects)
	o.hint("Now start the nodes.")
	return nil
}

// recovered is the JSON document of the command.
type recovered struct {
	*recovery.Plan
	DryRun bool `json:"dry_run"`
	// LostObjects are those whose records are there and whose data is not, of
	// the slots that the nodes on this machine own.
	LostObjects []nodeserver.LostObject `json:"lost_objects"`
	// Applied are the nodes that have the new map now.
	Applied []core.NodeID `json:"applied"`
}

// recover says what the plan is, and carries it out if nothing speaks against it.
func (o *options) recover(ctx context.Context, r recoverOptions, stopped *nodeserver.Stopped, found []recovery.Found, plan *recovery.Plan) error {
	doc := recovered{Plan: plan, DryRun: r.dryRun, LostObjects: []nodeserver.LostObject{}, Applied: []core.NodeID{}}
	objects, err := lostObjects(ctx, stopped, plan.Map)
	if err != nil {
		return err
	}
	doc.LostObjects = append(doc.LostObjects, objects...)
	if !o.json {
		if err := o.printPlan(found, plan, objects); err != nil {
			return err
		}
	}
	refusals := plan.Refusals()
	switch {
	case len(refusals) > 0:
		if o.json {
			if err := o.printJSON(doc); err != nil {
				return err
			}
		}
		var flags []string
		for _, x := range refusals {
			flags = append(flags, "--"+x.Flag)
		}
		slices.Sort(flags)
		return api.Refused("recovery would have to guess, or lose something: "+refusals[0].Message,
			"nothing was changed; to go on all the same: "+strings.Join(slices.Compact(flags), " "))
	case !r.dryRun:
		if err := o.confirm(ctx, "The nodes and disks that are not shown leave the cluster for good. Recover?"); err != nil {
			return err
		}
		if r.out != "" {
			b, err := recovery.EncodeOrders(plan.Orders)
			if err != nil {
				return err
			}
			if err := os.WriteFile(r.out, b, 0o600); err != nil {
				return err
			}
		}
		if err := stopped.Take(ctx, plan.Orders); err != nil {
			return err
		}
		for _, f := range stopped.Found() {
			doc.Applied = append(doc.Applied, f.Node)
		}
	}
	if o.json {
		return o.printJSON(doc)
	}
	o.hint("%s", nextStep(r, plan, doc.Applied))
	return nil
}

// lostObjects lists them in the order of their names.
func lostObjects(ctx context.Context, stopped *nodeserver.Stopped, m *core.Map) ([]nodeserver.LostObject, error) {
	var out []nodeserver.LostObject
	if err := stopped.LostObjects(ctx, m, func(l nodeserver.LostObject) { out = append(out, l) }); err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b nodeserver.LostObject) int {
		return cmp.Or(strings.Compare(a.Bucket, b.Bucket), strings.Compare(a.Key, b.Key))
	})
	return slices.CompactFunc(out, func(a, b nodeserver.LostObject) bool { return a.Bucket == b.Bucket && a.Key == b.Key }), nil
}

// printLost names some of the objects that are lost.
func (o *options) printLost(objects []nodeserver.LostObject) {
	const some = 20
	if len(objects) == 0 {
		return
	}
	fmt.Fprintf(o.out, "Lost objects  %d whose records are there and whose data is not; they are listed, and reading them fails\n", len(objects))
	for _, l := range objects[:min(some, len(objects))] {
		fmt.Fprintf(o.out, "              %s/%s\n", l.Bucket, l.Key)
	}
	if len(objects) > some {
		fmt.Fprintln(o.out, "              ... (--json names all)")
	}
}

// nextStep says what the operator does next.
func nextStep(r recoverOptions, plan *recovery.Plan, applied []core.NodeID) string {
	if r.dryRun {
		return "Nothing was changed (--dry-run)."
	}
	left := slices.DeleteFunc(slices.Clone(plan.Nodes), func(n core.NodeID) bool {
		return slices.Contains(applied, n) || plan.Map.Node(n) == nil
	})
	if len(left) > 0 {
		return fmt.Sprintf("Now carry out --apply on %s, and start all nodes.", joinNodes(left))
	}
	return "Now start the nodes."
}

func (o *options) printPlan(found []recovery.Found, p *recovery.Plan, objects []nodeserver.LostObject) error {
	t := newTable("NODE", ">MAP", "CHECKSUM", ">CONFIRMED", "CHECKSUM", ">DISKS", ">FAILED", "BUS")
	for _, f := range found {
		seen, confirmed := [2]string{"-", "-"}, [2]string{"-", "-"}
		for _, m := range p.Maps {
			if slices.Contains(m.SeenBy, f.Node) {
				seen = [2]string{fmt.Sprint(m.Epoch), m.Checksum[:12]}
			}
			if slices.Contains(m.ConfirmedBy, f.Node) {
				confirmed = [2]string{fmt.Sprint(m.Epoch), m.Checksum[:12]}
			}
		}
		failed := 0
		for _, d := range f.Disks {
			if d.Error != "" {
				failed++
			}
		}
		generations := make([]string, len(f.Bus))
		for i, g := range f.Bus {
			generations[i] = strconv.FormatUint(g, 10)
		}
		bus := strings.Join(generations, ",")
		if bus == "" {
			bus = "-"
		}
		t.add(string(f.Node), seen[0], seen[1], confirmed[0], confirmed[1], strconv.Itoa(len(f.Disks)), strconv.Itoa(failed), bus)
	}
	if err := o.printTable(t); err != nil {
		return err
	}
	fmt.Fprintln(o.out)
	for _, m := range p.Maps {
		if m.Base {
			effect := "the voters shown do not tell whether it was in effect"
			if m.InEffect {
				effect = "in effect"
			}
			fmt.Fprintf(o.out, "From map      %d (%.12s), made %s, %s\n", m.Epoch, m.Checksum, m.Made.Format(time.RFC3339), effect)
		}
	}
	fmt.Fprintf(o.out, "New map       %d (%.12s), voters %s, bus generation %d\n", p.Epoch, p.Checksum, joinNodes(p.Voters), p.Bus)
	if len(p.LostNodes) > 0 {
		fmt.Fprintf(o.out, "Lost nodes    %s\n", joinNodes(p.LostNodes))
	}
	if len(p.LostDisks) > 0 {
		names := make([]string, len(p.LostDisks))
		for i, d := range p.LostDisks {
			names[i] = fmt.Sprintf("%s/%s", d.Node, d.Name)
		}
		fmt.Fprintf(o.out, "Lost disks    %s\n", strings.Join(names, ", "))
	}
	if len(p.LostSlots) > 0 {
		fmt.Fprintf(o.out, "Lost slots    %s\n", ranges(p.LostSlots))
	}
	if len(p.StaleSlots) > 0 {
		stale := make([]core.SlotID, len(p.StaleSlots))
		for i, s := range p.StaleSlots {
			stale[i] = s.Slot
		}
		fmt.Fprintf(o.out, "Stale slots   %s\n", ranges(stale))
	}
	o.printLost(objects)
	if p.LostJobs {
		fmt.Fprintln(o.out, "Lost jobs     all that there were, and their history: start again what was running")
	}
	if len(p.Transforms) > 0 {
		fmt.Fprintf(o.out, "Transforms    %s\n", strings.Join(p.Transforms, " "))
	}
	if len(p.StoppedJobs) > 0 {
		fmt.Fprintf(o.out, "Stopped jobs  %s: start them again, what they have done stays\n", strings.Join(p.StoppedJobs, " "))
	}
	for _, x := range p.Objections {
		how := "refused without --" + x.Flag
		if x.Accepted {
			how = "accepted"
		}
		fmt.Fprintf(o.out, "\n! %s\n  (%s)\n", x.Message, how)
	}
	_, err := fmt.Fprintln(o.out)
	return err
}

// ranges writes sorted numbers as 1-3,7.
func ranges(l []core.SlotID) string {
	var out []string
	for i := 0; i < len(l); {
		j := i
		for j+1 < len(l) && l[j+1] == l[j]+1 {
			j++
		}
		if text := fmt.Sprint(l[i]); i == j {
			out = append(out, text)
		} else {
			out = append(out, fmt.Sprintf("%s-%d", text, l[j]))
		}
		i = j + 1
	}
	return strings.Join(out, ",")
}
