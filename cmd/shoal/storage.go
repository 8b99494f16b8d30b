package main

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/client"
)

func newStorageCommand(o *options) *cobra.Command {
	return group("storage", "What buckets hold", newStorageSummaryCommand(o))
}

func newStorageSummaryCommand(o *options) *cobra.Command {
	var all, cached bool
	cmd := &cobra.Command{
		Use:   "summary [URI]",
		Short: "Count a bucket's objects and bytes, in the cluster and remote",
		Long: `What a remote has is counted where that takes a few requests, with --all in any case: one request for every
1,000 objects. Where the remote cannot be asked the command says why, and its exit code too.`,
		Args: between(0, 1), ValidArgsFunction: o.completeBuckets(1),
		RunE: o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			count := client.SummaryOptions{All: all}
			if cached {
				count.Presence = api.Cached
			}
			names, err := o.summaryBuckets(ctx, c, args, all)
			if err != nil {
				return err
			}
			var sums []api.Summary
			for _, b := range names {
				s, err := c.Summary(ctx, b, count)
				if err != nil {
					return err
				}
				sums = append(sums, s)
			}
			if err := o.printSummaries(sums, len(args) == 1); err != nil {
				return err
			}
			if len(sums) == 1 && names[0].Provider != core.Shoal && sums[0].Remote == nil && !cached {
				o.hint("The remote has many objects; to count them all: shoal storage summary %s --all", sums[0].Bucket)
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&all, "all", false, "count all that a remote has; without a bucket, also buckets that were not used yet")
	cmd.Flags().BoolVar(&cached, "cached", false, "only what is stored in the cluster; does not ask the remote")
	cmd.MarkFlagsMutuallyExclusive("all", "cached")
	return cmd
}

// summaryBuckets are the buckets to count: the one named, or all.
func (o *options) summaryBuckets(ctx context.Context, c *client.Client, args []string, all bool) ([]core.BucketName, error) {
	provider := core.Provider("")
	if len(args) == 1 {
		p, ok := providerOf(args[0])
		if !ok {
			b, err := bucketURI(args[0])
			return []core.BucketName{b}, err
		}
		provider = p
	}
	list, err := o.listBuckets(ctx, c, provider, all)
	if err != nil {
		return nil, err
	}
	var out []core.BucketName
	for _, b := range list {
		out = append(out, core.BucketName{Provider: b.Provider, Name: b.Name})
	}
	return out, nil
}

func (o *options) printSummaries(sums []api.Summary, one bool) error {
	var refused *api.Error
	shown := sums[:0:0]
	for _, s := range sums {
		if s.Reason != nil && refused == nil {
			refused = s.Reason
		}
		if one && s.Reason != nil && s.Present == (api.Amount{}) {
			continue // there are no numbers
		}
		shown = append(shown, s)
	}
	switch {
	case o.json:
		for _, s := range sums {
			if err := o.printJSON(s); err != nil {
				return err
			}
		}
	case len(sums) == 0 && !one:
		fmt.Fprintln(o.out, noBuckets("", false))
	case len(shown) > 0:
		if _, err := fmt.Fprint(o.out, formatSummaries(shown)); err != nil {
			return err
		}
		for _, s := range shown {
			if s.Reason != nil && s.Reason != refused {
				fmt.Fprintf(o.out, "%s is not accessible: %s\n", s.Bucket, s.Reason.Message)
			}
		}
	}
	if refused != nil {
		return refused
	}
	return nil
}

// formatSummaries lays the two numbers of a column under its header, each
// aligned on its right.
func formatSummaries(sums []api.Summary) string {
	type row struct{ name, objects, remoteObjects, size, remoteSize string }
	name, remoteObjects, remoteSize := len("NAME"), 4, 4
	rows := make([]row, 0, len(sums))
	for _, s := range sums {
		r := row{name: s.Bucket, objects: fmt.Sprint(s.Present.Objects), size: formatBytes(s.Present.Bytes), remoteObjects: "-", remoteSize: "-"}
		if s.Remote != nil {
			r.remoteObjects, r.remoteSize = fmt.Sprint(s.Remote.Objects), formatBytes(s.Remote.Bytes)
		}
		name = max(name, utf8.RuneCountInString(r.name))
		remoteObjects = max(remoteObjects, len(r.remoteObjects))
		remoteSize = max(remoteSize, len(r.remoteSize))
		rows = append(rows, r)
	}
	const objectsHeader, sizeHeader = "OBJECTS (cached, remote)", "SIZE (cached, remote)"
	const objectsWidth, sizeWidth = len(objectsHeader) - 1, len(sizeHeader) + 3
	var b strings.Builder
	fmt.Fprintf(&b, "%-*s    %s    %s\n", name, "NAME", objectsHeader, sizeHeader)
	for _, r := range rows {
		objects := fmt.Sprintf("%s  %*s", r.objects, remoteObjects, r.remoteObjects)
		size := fmt.Sprintf("%s   %*s", r.size, remoteSize, r.remoteSize)
		fmt.Fprintf(&b, "%-*s    %*s%*s\n", name, r.name, objectsWidth, objects, sizeWidth, size)
	}
	return b.String()
}
