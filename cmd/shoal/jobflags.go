package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/job"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/client"
)

// jobFlags are the flags of every command that starts a job.
type jobFlags struct {
	*options
	jobSpec   api.JobSpec
	listFile  string
	ext       []string
	rate      string
	patience  durationFlag
	progress  bool
	refresh   durationFlag
	detach    bool
	startOnly bool // return after the start unless --progress
}

func (j *jobFlags) add(cmd *cobra.Command) {
	f, s := cmd.Flags(), &j.jobSpec
	f.BoolVar(&s.All, "all", false, "also objects that are not present in the cluster")
	f.StringVar(&s.Prefix, "prefix", "", "only names that begin so")
	f.StringSliceVar(&s.List, "list", nil, "only these names, with commas")
	f.StringVar(&s.Template, "template", "", "only names of this form, as 'shard-{0001..0999..2}.tar'")
	f.StringVar(&j.listFile, "list-file", "", "only the names in this file, one a line (- is standard input)")
	f.StringVar(&s.Regex, "regex", "", "only names that match")
	f.BoolVar(&s.Latest, "latest", false, "of a remote source: what it has now, even if another version is present in the cluster")
	f.BoolVar(&s.Sync, "sync", false, "as --latest, and remove what the source does not have any more: its copies here, and what cp wrote to the destination before")
	f.BoolVar(&s.NoCache, "no-cache", false, "of a copy: keep nothing of remote buckets in the cluster")
	f.StringVar(&s.Prepend, "prepend", "", "put this before every destination name")
	f.StringSliceVar(&j.ext, "ext", nil, "replace extensions, as jpg:webp,txt:gz")
	f.BoolVar(&s.Create, "create", false, "create a remote destination that does not exist")
	f.BoolVar(&s.DryRun, "dry-run", false, "count, and write nothing; etl bucket shows what the first objects would become")
	count(f, &s.NumWorkers, "num-workers", 0, "workers for each disk (default: the cluster's choice)")
	f.StringVar(&j.rate, "rate-limit", "", "at most so many objects (100) or bytes (64MiB) a second in the whole cluster")
	f.BoolVar(&s.ContinueOnError, "cont-on-err", false, "go on after an object that failed")
	f.Var(&j.patience, "unavailable-timeout", "fail objects without a reachable copy after this time (default: wait)")
	f.StringVar(&s.ClientToken, "client-token", "", "start the job only once under this token")
	f.BoolVar(&j.progress, "progress", false, "wait for the job and show its progress")
	f.Var(&j.refresh, "refresh", "time between two reports of progress")
	f.BoolVar(&j.detach, "detach", false, "print the job's id and return")
	cmd.MarkFlagsMutuallyExclusive("progress", "detach")
}

// spec makes the job's specification of the flags.
func (j *jobFlags) spec(*cobra.Command) (api.JobSpec, error) {
	s := j.jobSpec
	var err error
	if s.Ext, err = parseExt(j.ext); err != nil {
		return s, err
	}
	if s.RateLimit, err = parseRate(j.rate); err != nil {
		return s, err
	}
	if j.patience > 0 {
		s.UnavailableTimeout = time.Duration(j.patience).String()
	}
	if s.Template != "" {
		if _, err := job.Expand(s.Template); err != nil {
			return s, err
		}
	}
	if j.listFile != "" {
		names, err := j.readList()
		if err != nil {
			return s, err
		}
		s.List = append(s.List, names...)
	}
	if s.ClientToken == "" {
		s.ClientToken = uuid.NewString()
	}
	return s, nil
}

func (j *jobFlags) readList() ([]string, error) {
	r := j.in
	if j.listFile != "-" {
		f, err := os.Open(j.listFile)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		r = f
	}
	var names []string
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if name := strings.TrimSuffix(lines.Text(), "\r"); name != "" {
			names = append(names, name)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", j.listFile, err)
	}
	if len(names) == 0 {
		// An empty list would mean every object.
		return nil, usagef("--list-file %s: holds no names", j.listFile)
	}
	return names, nil
}

func parseExt(list []string) (map[string]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	out := make(map[string]string)
	for _, item := range list {
		from, to, ok := strings.Cut(item, ":")
		if !ok || from == "" || to == "" {
			return nil, usagef("--ext %q: want old:new, as jpg:webp", item)
		}
		out[strings.TrimPrefix(from, ".")] = strings.TrimPrefix(to, ".")
	}
	return out, nil
}

func parseRate(s string) (api.RateLimit, error) {
	if s == "" {
		return api.RateLimit{}, nil
	}
	if n, err := strconv.ParseFloat(s, 64); err == nil && n > 0 {
		return api.RateLimit{Objects: n}, nil
	}
	n, err := config.ParseSize(strings.TrimSuffix(s, "/s"))
	if err != nil || n == 0 {
		return api.RateLimit{}, usagef("--rate-limit %q: want objects a second, as 100, or bytes a second, as 64MiB", s)
	}
	return api.RateLimit{Bytes: int64(n)}, nil
}

// twoURIs reads a source and a destination.
func twoURIs(args []string) (from, to core.URI, err error) {
	if from, err = parseURI(args[0]); err != nil {
		return from, to, err
	}
	to, err = parseURI(args[1])
	return from, to, err
}

// isDirectory says whether a URI is of a directory of the servers'; see
// resolveFiles.
func isDirectory(u core.URI) bool {
	return u.Bucket.Provider == core.File && strings.HasSuffix(u.Key, "/")
}

// directories has a job take only what is in a directory of the servers', if from is
// one, and put what it writes into another one.
func (j *jobFlags) directories(from core.URI, to *core.URI) error {
	j.jobSpec.Prefix = from.Key + j.jobSpec.Prefix
	if to.Bucket.Provider == core.File && to.Key != "" {
		if j.jobSpec.Prepend != "" {
			return usagef("%s: a directory and --prepend; want one of them", to)
		}
		j.jobSpec.Prepend, to.Key = strings.TrimSuffix(to.Key, "/")+"/", ""
	}
	return nil
}

// runPair runs a job of two buckets.
func (j *jobFlags) runPair(ctx context.Context, c *client.Client, cmd *cobra.Command, kind string, from, to core.URI) error {
	if to.Key != "" {
		return usagef("%s: the destination of a bucket is a bucket; --prepend puts something before the names", to)
	}
	spec, err := j.spec(cmd)
	if err != nil {
		return err
	}
	spec.Kind, spec.From, spec.To = kind, from.Bucket.String(), to.Bucket.String()
	return j.runJob(ctx, c, spec)
}

// runJob starts a job and, unless told otherwise, waits for its end.
func (j *jobFlags) runJob(ctx context.Context, c *client.Client, spec api.JobSpec) error {
	started, err := c.StartJob(ctx, spec)
	if err != nil {
		if ctx.Err() != nil {
			j.hint("Whether the job was started is not known; to see: shoal show job %s", spec.Kind)
		}
		return err
	}
	if j.detach || j.startOnly && !j.progress {
		if j.json {
			return j.printJSON(started)
		}
		fmt.Fprintln(j.out, started.ID)
		j.hint("%s", nextCommands(started.ID))
		return nil
	}
	w := watchFlags{progress: j.progress, refresh: j.refresh}
	if spec.Kind == job.KindETL && spec.DryRun && spec.To != "" {
		return j.preview(ctx, c, spec, started, w)
	}
	return j.watch(ctx, c, started, w)
}

func nextCommands(id string) string {
	return fmt.Sprintf("  to wait:  shoal wait %s --progress\n  to stop:  shoal stop %s", id, id)
}

// watchFlags say how a job is watched.
type watchFlags struct {
	progress bool
	refresh  durationFlag
}

// watch waits for a job's end, prints its outcome and returns it as an error; see
// [options.await].
func (o *options) watch(ctx context.Context, c *client.Client, running api.Job, w watchFlags) error {
	last, err := o.await(ctx, c, running, w)
	if err != nil {
		return err
	}
	return o.outcome(last)
}

// await waits for a job's end. The end of ctx detaches from the job.
func (o *options) await(ctx context.Context, c *client.Client, running api.Job, w watchFlags) (api.Job, error) {
	refresh := time.Duration(w.refresh)
	if refresh == 0 {
		refresh = o.defaultRefresh()
	}
	each, end := func(api.Job) {}, func(bool) {}
	switch {
	case w.progress && o.json:
		each = func(j api.Job) { printLine(o.err, j) }
	case w.progress && !o.quiet:
		d := o.newDisplay(verbOf(running.Kind))
		each = func(j api.Job) { d.show(booksOf(j)) }
		end = d.end
	}
	last, err := c.WatchJob(ctx, running.ID, refresh, each)
	end(err == nil && last.State == api.JobDone)
	if err != nil {
		o.hint("Detached; %s[%s] goes on in the cluster.\n%s", running.Kind, running.ID, nextCommands(running.ID))
		if errors.Is(err, errInterrupted) {
			return last, withCode(exitDetached, errSilent)
		}
		return last, fmt.Errorf("watch %s[%s]: %w", running.Kind, running.ID, err)
	}
	return last, nil
}

// booksOf are a job's numbers for a display. What was skipped, dropped or
// failed has passed, too.
func booksOf(j api.Job) books {
	b := books{
		planned: j.Planned, found: j.Found, passed: j.Done.Add(j.Skipped).Add(j.Failed).Add(j.Dropped), failed: j.Failed.Objects, rate: j.Rate,
	}
	if j.ETA != nil && !j.State.Ended() {
		b.eta = max(time.Until(*j.ETA), 0)
	}
	switch j.State {
	case api.JobWaiting:
		b.note = "waiting for " + strings.Join(j.WaitingFor, ", ")
	case api.JobPending, api.JobPlanning, api.JobVerifying:
		b.note = string(j.State)
	}
	return b
}

// verbOf is what a kind of job does with objects, in the past.
func verbOf(kind string) string {
	verb, ok := map[string]string{
		"copy-bck": "Copied", "move-bck": "Moved", "etl": "Transformed", "prefetch": "Prefetched", "evict": "Evicted",
		"download": "Downloaded", "scrub": "Verified", "lru": "Evicted", "cleanup": "Removed",
	}[kind]
	if !ok {
		return "Processed"
	}
	return verb
}

// outcome prints how a job ended and returns the error of its exit code.
func (o *options) outcome(j api.Job) error {
	if o.json {
		if err := o.printJSON(j); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(o.out, describeOutcome(j))
		if j.Failed.Objects > 0 {
			o.hint("  the failures:  shoal show job %s --errors\n  to try again:  shoal start retry %s", j.ID, j.ID)
		}
	}
	switch {
	case j.State == api.JobStopped:
		return withCode(exitJobStopped, errSilent)
	case j.Failed.Objects > 0:
		return withCode(exitJobFailed, errSilent)
	case j.State == api.JobFailed:
		return fmt.Errorf("%s[%s] failed: %s", j.Kind, j.ID, j.Message)
	}
	return nil
}

func describeOutcome(j api.Job) string {
	verb := strings.ToLower(verbOf(j.Kind))
	if j.Kind == job.KindETL && j.To == "" {
		verb = "inspected"
	}
	if j.DryRun && j.Planned != nil {
		return fmt.Sprintf("%s[%s] %s: dry run, %s would be %s", j.Kind, j.ID, j.State, formatAmount(*j.Planned), verb)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s[%s] %s: %s %s", j.Kind, j.ID, j.State, verb, formatAmount(j.Done))
	for _, part := range []struct {
		name string
		a    api.Amount
	}{{"skipped", j.Skipped}, {"failed", j.Failed}, {"dropped", j.Dropped}} {
		if part.a.Objects > 0 {
			fmt.Fprintf(&text, "; %s %d, %s", part.name, part.a.Objects, formatBytes(part.a.Bytes))
		}
	}
	if j.Started != nil && j.Ended != nil {
		text.WriteString(" in " + formatDuration(j.Ended.Sub(*j.Started)))
	}
	return text.String()
}

// printLine prints a JSON line to a stream other than stdout.
func printLine(w io.Writer, v any) {
	o := options{out: w}
	if err := o.printJSON(v); err != nil {
		fmt.Fprintf(w, "shoal: %v\n", err)
	}
}
