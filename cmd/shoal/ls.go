package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/client"
)

// lsOptions are the flags of ls.
type lsOptions struct {
	*options
	all, cached, notCached bool
	summary                bool
	prefix                 string
	noHeaders              bool
	archive                bool
	max                    int
	after                  string
}

func newLsCommand(o *options) *cobra.Command {
	l := &lsOptions{options: o}
	cmd := &cobra.Command{
		Use:   "ls [URI]",
		Short: "List buckets, or the objects of a bucket",
		Long: `Without an argument, all buckets of the cluster. "shoal ls s3" (or gs, shoal) lists
those of one provider, with --all also remote ones that the cluster could use. With a bucket, its objects
in order of name; what follows the bucket is a prefix. Of a remote bucket it lists what the remote has; the
column CACHED says whether the cluster stores it: yes, no, or part of it.`,
		Example: `  shoal ls
  shoal ls s3 --all
  shoal ls shoal://train/2026/ --no-headers
  shoal ls s3://src --not-cached
  shoal ls shoal://train --archive --prefix shard-0`,
		Args:              between(0, 1),
		ValidArgsFunction: o.completeBuckets(1),
		RunE:              o.withClient(l.run),
	}
	f := cmd.Flags()
	f.BoolVar(&l.all, "all", false, "buckets: also remote ones that were not used yet; objects: also those not present")
	f.BoolVar(&l.cached, "cached", false, "only objects that are stored in the cluster, at least in part; does not ask the remote")
	f.BoolVar(&l.notCached, "not-cached", false, "only objects of which nothing is stored in the cluster")
	f.BoolVar(&l.summary, "summary", false, "count objects and bytes")
	f.StringVar(&l.prefix, "prefix", "", "only names that begin so")
	f.BoolVar(&l.noHeaders, "no-headers", false, "names only, nothing else")
	f.BoolVar(&l.archive, "archive", false, "also what is in .tar, .tgz, .tar.gz and .zip objects")
	count(f, &l.max, "max", 0, "at most so many objects")
	f.StringVar(&l.after, "after", "", "only names above this one")
	cmd.MarkFlagsMutuallyExclusive("cached", "not-cached")
	cmd.MarkFlagsMutuallyExclusive("summary", "archive")
	return cmd
}

func (l *lsOptions) run(ctx context.Context, c *client.Client, args []string) error {
	if len(args) == 0 {
		return l.buckets(ctx, c, "")
	}
	if p, ok := providerOf(args[0]); ok {
		return l.buckets(ctx, c, p)
	}
	u, err := parseURI(args[0])
	if err != nil {
		return err
	}
	if l.summary {
		return l.totals(ctx, c, u)
	}
	return l.objects(ctx, c, u)
}

func (l *lsOptions) buckets(ctx context.Context, c *client.Client, p core.Provider) error {
	if !l.all {
		buckets, err := c.Buckets(ctx, p)
		if err != nil {
			return err
		}
		return printBuckets(ctx, l, c, p, buckets)
	}
	all, err := c.AllBuckets(ctx, p)
	if err != nil {
		return err
	}
	// What could be listed is shown, but does not pass for all.
	failed := l.unlisted(p, all)
	if failed != nil && len(all.Buckets) == 0 {
		return failed
	}
	return errors.Join(printBuckets(ctx, l, c, p, all.Buckets), failed)
}

// listBuckets lists buckets, with all those that the cluster could use.
func (o *options) listBuckets(ctx context.Context, c *client.Client, p core.Provider, all bool) ([]api.Bucket, error) {
	if !all {
		return c.Buckets(ctx, p)
	}
	list, err := c.AllBuckets(ctx, p)
	if err != nil {
		return nil, err
	}
	return list.Buckets, o.unlisted(p, list)
}

// unlisted is the error of a listing of all buckets that lacks those of an
// account. Where no provider was named, those without any account are only
// pointed out.
func (o *options) unlisted(p core.Provider, all api.Buckets) error {
	var failed error
	for _, e := range all.Unlisted {
		if p == "" {
			o.hint("%s", e.Message)
		} else if failed == nil {
			failed = e
		}
	}
	return failed
}

// printBuckets prints a listing of buckets, with --summary what they hold.
func printBuckets(ctx context.Context, l *lsOptions, c *client.Client, p core.Provider, buckets []api.Bucket) error {
	headers := []string{"NAME", "ALIAS", "SCHEME", "DOMAIN", "STATE", "CREATED"}
	if l.summary {
		headers = append(headers, ">OBJECTS", ">SIZE")
	}
	t := newTable(headers...)
	for _, b := range buckets {
		var sum *api.Summary
		if l.summary && b.Known() {
			s, err := c.Summary(ctx, core.BucketName{Provider: b.Provider, Name: b.Name}, client.SummaryOptions{Presence: api.Cached})
			if err != nil {
				return err
			}
			sum = &s
		}
		switch {
		case l.json:
			out := struct {
				api.Bucket
				Present *api.Amount `json:"present,omitempty"`
			}{Bucket: b}
			if sum != nil {
				out.Present = &sum.Present
			}
			if err := l.printJSON(out); err != nil {
				return err
			}
		case l.noHeaders:
			fmt.Fprintln(l.out, b.URI)
		default:
			t.add(bucketRow(b, sum, l.summary)...)
		}
	}
	switch {
	case l.json, l.noHeaders:
		return nil
	case len(t.rows) > 0:
		return l.printTable(t)
	}
	fmt.Fprintln(l.out, noBuckets(p, l.all))
	return nil
}

func bucketRow(b api.Bucket, sum *api.Summary, counted bool) []string {
	row := []string{b.URI, b.Alias, "", "", string(b.State), formatTimePtr(b.Created)}
	if b.Props != nil && b.Known() {
		row[2], row[3] = b.Props.Scheme.String(), string(b.Props.Domain)
	}
	if !counted {
		return row
	}
	if sum == nil {
		return append(row, "", "")
	}
	return append(row, strconv.FormatInt(sum.Present.Objects, 10), formatBytes(sum.Present.Bytes))
}

func noBuckets(p core.Provider, all bool) string {
	kind := ""
	if p != "" {
		kind = string(p) + ":// "
	}
	switch {
	case all:
		return fmt.Sprintf("No %sbuckets are accessible.", kind)
	case p == core.Shoal:
		return fmt.Sprintf("No %sbuckets in the cluster. Create one: shoal bucket create shoal://NAME", kind)
	}
	return fmt.Sprintf("No %sbuckets in the cluster. Use --all to list all accessible buckets.", kind)
}

func (l *lsOptions) presence() api.Presence {
	switch {
	case l.cached:
		return api.Cached
	case l.notCached:
		return api.NotCached
	}
	return api.AnyPresence
}

// objectPrinter prints objects as they come.
type objectPrinter struct {
	l      *lsOptions
	w      *bufio.Writer
	remote bool
	line   []byte
	// first are the objects before the width of the names is settled.
	first []api.Object
	ready bool
	width int
}

// settle is how many objects decide on the width of the columns: listings may
// have millions, and the first should not wait for the last.
const settle = 500

func (l *lsOptions) objects(ctx context.Context, c *client.Client, u core.URI) error {
	if l.archive && l.presence() != api.AnyPresence && u.Bucket.Provider == core.Shoal {
		return usagef("--archive reads the objects; --cached and --not-cached do not go with it")
	}
	p := &objectPrinter{l: l, w: bufio.NewWriterSize(l.out, 64<<10), remote: u.Bucket.Provider != core.Shoal}
	alias := ""
	if l.archive {
		b, err := c.Bucket(ctx, u.Bucket)
		if err != nil {
			return err
		}
		alias = b.Alias
	}
	list := client.ListOptions{
		Prefix: u.Key + l.prefix, After: l.after, Max: l.max, Presence: l.presence(),
		NamesOnly: l.noHeaders && !l.json && !l.archive,
	}
	for object, err := range c.List(ctx, u.Bucket, list) {
		if err == nil {
			err = p.add(object)
		}
		if err == nil && l.archive {
			err = listArchive(ctx, c, alias, object, p.add)
		}
		if err != nil {
			return errors.Join(p.flush(), err)
		}
	}
	return p.flush()
}

func (p *objectPrinter) add(o api.Object) error {
	switch {
	case p.l.json:
		p.line = api.AppendObject(p.line[:0], &o)
		_, err := p.w.Write(p.line)
		return err
	case p.l.noHeaders:
		p.line = append(append(p.line[:0], o.Name...), '\n')
		_, err := p.w.Write(p.line)
		return err
	case !p.ready:
		p.first = append(p.first, o)
		if len(p.first) < settle {
			return nil
		}
		return p.begin()
	}
	return p.row(o)
}

// begin prints the headers and what has been kept back.
func (p *objectPrinter) begin() error {
	p.ready = true
	p.width = len("NAME")
	for _, o := range p.first {
		p.width = min(max(p.width, len(o.Name)), 100)
	}
	cached := ""
	if p.remote {
		cached = "   CACHED"
	}
	if _, err := fmt.Fprintf(p.w, "%-*s   %12s%s   MODIFIED\n", p.width, "NAME", "SIZE", cached); err != nil {
		return err
	}
	for _, o := range p.first {
		if err := p.row(o); err != nil {
			return err
		}
	}
	p.first = nil
	return nil
}

func (p *objectPrinter) row(o api.Object) error {
	cached := ""
	if p.remote {
		cached = fmt.Sprintf("   %-6s", cachedText(o))
	}
	_, err := fmt.Fprintf(p.w, "%-*s   %12s%s   %s\n", p.width, printable(o.Name), formatBytes(o.Size), cached, formatTime(o.Modified))
	return err
}

// cachedText says how much of an object is stored in the cluster.
func cachedText(o api.Object) string {
	if o.Part {
		return "part"
	}
	return yesNo(o.Cached)
}

// printable keeps a name with control characters from breaking a table.
func printable(name string) string {
	for _, r := range name {
		if r < ' ' || r == 0x7f {
			return strconv.Quote(name)
		}
	}
	return name
}

func (p *objectPrinter) flush() error {
	if len(p.first) > 0 {
		if err := p.begin(); err != nil {
			return err
		}
	}
	return p.w.Flush()
}

// totals counts a listing, or asks for the bucket's summary where it is of all.
func (l *lsOptions) totals(ctx context.Context, c *client.Client, u core.URI) error {
	var sum api.Amount
	list := client.ListOptions{Prefix: u.Key + l.prefix, After: l.after, Max: l.max, Presence: l.presence()}
	for o, err := range c.List(ctx, u.Bucket, list) {
		if err != nil {
			return err
		}
		sum = sum.Add(api.Amount{Objects: 1, Bytes: o.Size})
	}
	if l.json {
		return l.printJSON(struct {
			Bucket string `json:"bucket"`
			Prefix string `json:"prefix,omitempty"`
			api.Amount
		}{u.Bucket.String(), list.Prefix, sum})
	}
	_, err := fmt.Fprintf(l.out, "%s: %s\n", core.URI{Bucket: u.Bucket, Key: list.Prefix}, formatAmount(sum))
	return err
}
