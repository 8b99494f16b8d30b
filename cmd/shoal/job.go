package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/client"
)

func newCpCommand(o *options) *cobra.Command {
	j := &jobFlags{options: o}
	cmd := &cobra.Command{
		Use:   "cp SRC DST",
		Short: "Copy a bucket by a job, or an object, or a file",
		Long: `Two buckets: a job of the cluster copies the objects; Ctrl-C leaves it running. A shoal:// destination that
does not exist is created with the source's properties. Two objects: copied within the cluster. A side that is
written as a path (/x, ./x, -) is a file here: as "shoal put" and "shoal get". file:///path is a file or directory of
the servers, within a root of their configuration; the names of what is copied begin at the root.`,
		Example: `  shoal cp s3://src gs://dst --progress --refresh 3 --all
  shoal cp file:///data/set gs://dst --all
  shoal cp shoal://train shoal://sample --template 'shard-{000..009}.tar'
  shoal cp shoal://train/a.tar shoal://archive/
  shoal cp ./a.tar shoal://train/`,
		Args: exactly(2), ValidArgsFunction: o.completeBuckets(2),
	}
	cmd.RunE = o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
		t := &transferFlags{options: o, workers: 8, show: j.progress, refresh: j.refresh}
		switch localFrom, localTo := isLocal(args[0]), isLocal(args[1]); {
		case localFrom && localTo:
			return usagef("both are files here; at least one must be in the cluster")
		case localFrom:
			return t.put(ctx, c, args[0], args[1])
		case localTo:
			return t.get(ctx, c, args[0], args[1])
		}
		from, to, err := twoURIs(args)
		if err != nil {
			return err
		}
		if from.Key == "" || isDirectory(from) {
			if err := j.directories(from, &to); err != nil {
				return err
			}
			return j.runPair(ctx, c, cmd, "copy-bck", from, to)
		}
		if to.Key, err = destinationKey(from.Key, to.Key); err != nil {
			return err
		}
		if j.jobSpec.NoCache {
			return usagef("--no-cache is for copies of buckets; for one object: --list %s", from.Key)
		}
		info, err := o.copyObject(ctx, c, from, to, latestFlags{j.jobSpec.Latest, j.jobSpec.Sync})
		if err != nil {
			return at(from, err)
		}
		return o.copied("copied", from, to, info)
	})
	j.add(cmd)
	return cmd
}

func newStartCommand(o *options) *cobra.Command {
	j := &jobFlags{options: o, startOnly: true}
	cmd := &cobra.Command{
		Use:   "start JOB [ARGS]",
		Short: "Start a job, and print its id",
		Long:  "The kinds of jobs and their arguments are the cluster's: `shoal start` lists them. With --progress it waits for the job's end.",
		Example: `  shoal start copy-bck shoal://a shoal://b
  shoal start rebalance --progress
  shoal start retry JOB`,
		ValidArgsFunction: o.completeStart,
	}
	cmd.RunE = o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
		kinds, err := c.JobKinds(ctx)
		if err != nil {
			return err
		}
		if len(args) == 0 {
			return o.printKinds(kinds)
		}
		kind, ok := findKind(kinds, args[0])
		if !ok {
			return api.NotBuilt(fmt.Sprintf("jobs of kind %q; there are: %s", args[0], kindNames(kinds)))
		}
		spec, err := j.spec(cmd)
		if err != nil {
			return err
		}
		spec.Kind = kind.Kind
		if err := fillArgs(&spec, kind, args[1:]); err != nil {
			return err
		}
		return j.runJob(ctx, c, spec)
	})
	j.add(cmd)
	return cmd
}

func (o *options) printKinds(kinds []api.JobKind) error {
	t := newTable("JOB", "ARGUMENTS", "WHAT IT DOES")
	for _, k := range kinds {
		if o.json {
			if err := o.printJSON(k); err != nil {
				return err
			}
			continue
		}
		t.add(k.Kind, describeArgs(k), k.Summary)
	}
	if o.json {
		return nil
	}
	return o.printTable(t)
}

func describeArgs(k api.JobKind) string {
	var out []string
	for _, a := range k.Args {
		name := strings.ToUpper(a.Name)
		if a.Optional {
			name = "[" + name + "]"
		}
		out = append(out, name)
	}
	return strings.Join(out, " ")
}

func findKind(kinds []api.JobKind, name string) (api.JobKind, bool) {
	for _, k := range kinds {
		if k.Kind == name {
			return k, true
		}
	}
	return api.JobKind{}, false
}

func kindNames(kinds []api.JobKind) string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.Kind)
	}
	return strings.Join(names, " ")
}

// fillArgs puts positional arguments where the kind wants them.
func fillArgs(spec *api.JobSpec, kind api.JobKind, args []string) error {
	if len(args) > len(kind.Args) {
		return usagef("usage: shoal start %s %s", kind.Kind, describeArgs(kind))
	}
	for i, a := range kind.Args {
		if i >= len(args) {
			if !a.Optional {
				return usagef("usage: shoal start %s %s", kind.Kind, describeArgs(kind))
			}
			break
		}
		value := args[i]
		if a.Type == "bucket" {
			u, err := parseURI(value)
			if err != nil {
				return err
			}
			value = u.String()
		}
		switch a.Name {
		case api.ArgFrom:
			spec.From = value
		case api.ArgTo:
			spec.To = value
		default:
			if spec.Args == nil {
				spec.Args = make(map[string]string)
			}
			spec.Args[a.Name] = value
		}
	}
	return nil
}

func newStopCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "stop ID...", Short: "Stop jobs", Args: atLeast(1), ValidArgsFunction: o.completeJobs,
		RunE: o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			for _, id := range args {
				job, err := c.StopJob(ctx, id)
				if err != nil {
					return err
				}
				if o.json {
					if err := o.printJSON(job); err != nil {
						return err
					}
					continue
				}
				state := "stopping"
				if job.State.Ended() {
					state = string(job.State)
				}
				fmt.Fprintf(o.out, "%s[%s] %s\n", job.Kind, job.ID, state)
			}
			return nil
		}),
	}
}

func newWaitCommand(o *options) *cobra.Command {
	var w watchFlags
	cmd := &cobra.Command{
		Use:               "wait ID|KIND",
		Short:             "Wait for the end of a job, or of all running jobs of a kind",
		Long:              "The exit code is the job's outcome; 5 after --timeout. Ctrl-C leaves the job running.",
		Args:              exactly(1),
		ValidArgsFunction: o.completeJobsAndKinds,
		RunE: o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			jobs, err := findJobs(ctx, c, args[0])
			if err != nil {
				return err
			}
			if len(jobs) == 0 {
				o.hint("No %s jobs are running.", args[0])
				return nil
			}
			var worst error
			for _, job := range jobs {
				err := o.watch(ctx, c, job, w)
				if err != nil && exitCode(err) != exitJobFailed && exitCode(err) != exitJobStopped {
					return err
				}
				if worst == nil {
					worst = err
				}
			}
			return worst
		}),
	}
	cmd.Flags().BoolVar(&w.progress, "progress", false, "show progress")
	cmd.Flags().Var(&w.refresh, "refresh", "time between two reports of progress")
	return cmd
}

// findJobs are the job of that id, or the running ones of that kind.
func findJobs(ctx context.Context, c *client.Client, what string) ([]api.Job, error) {
	job, err := c.Job(ctx, what)
	if err == nil {
		return []api.Job{job}, nil
	}
	if !errors.Is(err, core.ErrNotFound) {
		return nil, err
	}
	kinds, kindsErr := c.JobKinds(ctx)
	if kindsErr != nil {
		return nil, kindsErr
	}
	if _, ok := findKind(kinds, what); !ok {
		return nil, fmt.Errorf("%s: no such job and no such kind of jobs: %w", what, core.ErrNotFound)
	}
	return c.Jobs(ctx, client.JobFilter{Kind: what})
}

// showJobFlags are the flags of `show job`.
type showJobFlags struct {
	*options
	all, errors, verbose bool
	bucket               string
	repeat               repeatFlags
}

func newShowJobCommand(o *options) *cobra.Command {
	s := &showJobFlags{options: o}
	cmd := &cobra.Command{
		Use:               "job [ID|KIND]",
		Short:             "Show jobs: those that run, with --all also those that have ended",
		Args:              between(0, 1),
		ValidArgsFunction: o.completeJobsAndKinds,
		RunE: o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			return s.repeat.run(ctx, func() error { return s.run(ctx, c, args) })
		}),
	}
	cmd.Flags().BoolVar(&s.all, "all", false, "also jobs that have ended")
	cmd.Flags().BoolVar(&s.errors, "errors", false, "list the objects that failed, with reasons")
	cmd.Flags().BoolVar(&s.verbose, "verbose", false, "all that is known of each job")
	cmd.Flags().StringVar(&s.bucket, "bucket", "", "only jobs of this bucket")
	s.repeat.add(cmd)
	return cmd
}

func (s *showJobFlags) run(ctx context.Context, c *client.Client, args []string) error {
	var jobs []api.Job
	one := false
	filter := client.JobFilter{Bucket: s.bucket, All: s.all}
	if len(args) == 1 {
		job, err := c.Job(ctx, args[0])
		switch {
		case err == nil:
			jobs, one = []api.Job{job}, true
		case !errors.Is(err, core.ErrNotFound):
			return err
		default:
			if _, err := findJobs(ctx, c, args[0]); err != nil {
				return err
			}
			filter.Kind = args[0]
		}
	}
	if !one {
		var err error
		if jobs, err = c.Jobs(ctx, filter); err != nil {
			return err
		}
	}
	if s.errors {
		return s.printErrors(ctx, c, jobs)
	}
	return s.print(jobs, one)
}

func (s *showJobFlags) print(jobs []api.Job, one bool) error {
	if s.json {
		for _, j := range jobs {
			if err := s.printJSON(j); err != nil {
				return err
			}
		}
		return nil
	}
	if one || s.verbose {
		for i, j := range jobs {
			if i > 0 {
				fmt.Fprintln(s.out)
			}
			s.describe(j)
		}
		return nil
	}
	if len(jobs) == 0 {
		if s.all {
			fmt.Fprintln(s.out, "No jobs.")
		} else {
			fmt.Fprintln(s.out, "No jobs are running. Use --all to show those that have ended.")
		}
		return nil
	}
	t := newTable("JOB", "KIND", "STATE", "FROM", "TO", ">OBJECTS", ">SIZE", ">FAILED", "STARTED", "ETA")
	for _, j := range jobs {
		b := booksOf(j)
		eta := ""
		if b.eta > 0 {
			eta = formatDuration(b.eta)
		}
		t.add(j.ID, j.Kind, string(j.State), j.From, j.To, countObjects(b), countBytes(b), strconv.FormatInt(j.Failed.Objects, 10), formatTimePtr(j.Started), eta)
	}
	return s.printTable(t)
}

func (s *showJobFlags) describe(j api.Job) {
	amount := func(a api.Amount) string {
		if a == (api.Amount{}) {
			return ""
		}
		return formatAmount(a)
	}
	planned, cloud, rate := "not known yet", "", ""
	if j.Planned != nil {
		planned = formatAmount(*j.Planned)
	}
	if j.Cloud != nil {
		cloud = fmt.Sprintf("%d requests, %s in, %s out", j.Cloud.Requests, formatBytes(j.Cloud.BytesIn), formatBytes(j.Cloud.BytesOut))
	}
	if !j.State.Ended() {
		rate = speedOf(booksOf(j))
	}
	s.details(
		"Job", j.ID, "Kind", j.Kind, "State", string(j.State), "Retry of", j.RetryOf, "From", j.From, "To", j.To, "Planned", planned, "Done", amount(j.Done),
		"Skipped", amount(j.Skipped), "Failed", amount(j.Failed), "Dropped", amount(j.Dropped), "Outputs", amount(j.Outputs),
		"Rate", rate, "Listed by", joinNodes(j.Listers), "Waiting for", strings.Join(j.WaitingFor, ", "), "Message", j.Message, "Cloud", cloud,
		"Started", formatTimePtr(j.Started), "Ended", formatTimePtr(j.Ended), "ETA", formatTimePtr(j.ETA),
	)
}

// errorsPage is how many failures one request asks for.
const errorsPage = 1000

func (s *showJobFlags) printErrors(ctx context.Context, c *client.Client, jobs []api.Job) error {
	t := newTable("NAME", "CODE", "MESSAGE")
	some := false
	for _, j := range jobs {
		for after := ""; ; {
			page, err := c.JobErrors(ctx, j.ID, after, errorsPage)
			if err != nil {
				return err
			}
			for _, e := range page.Errors {
				after = e.Key
				if s.json {
					if err := s.printJSON(e); err != nil {
						return err
					}
					continue
				}
				t.add(printable(e.Key), e.Code, e.Message)
			}
			some = some || len(t.rows) > 0
			if !page.More || len(page.Errors) == 0 {
				break
			}
			if s.json {
				continue
			}
			if err := s.printTable(t); err != nil { // there may be millions
				return err
			}
			t.rows = nil
		}
	}
	switch {
	case s.json:
		return nil
	case !some:
		fmt.Fprintln(s.out, "No objects failed.")
		for _, j := range jobs {
			if j.Message != "" {
				fmt.Fprintf(s.out, "%s %s: %s\n", j.ID, j.State, j.Message)
			}
		}
		return nil
	}
	return s.printTable(t)
}
