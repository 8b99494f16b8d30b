package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/client"
)

// completer is cobra's type of a function that completes an argument.
type completer = func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective)

// completionTime bounds what a shell waits for.
const completionTime = 2 * time.Second

// ask asks the cluster for completions. One that does not answer has none.
func (o *options) ask(cmd *cobra.Command, f func(ctx context.Context, c *client.Client) ([]string, error)) []string {
	c, err := o.connect(0)
	if err != nil {
		return nil
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	out, err := f(ctx, c)
	if err != nil {
		return nil
	}
	return out
}

// completeBuckets completes the first n arguments with URIs of buckets.
func (o *options) completeBuckets(n int) completer {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= n {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return o.bucketNames(cmd), cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
	}
}

func (o *options) bucketNames(cmd *cobra.Command) []string {
	return o.ask(cmd, func(ctx context.Context, c *client.Client) ([]string, error) {
		buckets, err := c.Buckets(ctx, "")
		var out []string
		for _, b := range buckets {
			out = append(out, b.URI)
		}
		return out, err
	})
}

// completeFileThenBucket completes SRC URI.
func (o *options) completeFileThenBucket(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) != 1 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return o.bucketNames(cmd), cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
}

func (o *options) completeNodes(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return o.ask(cmd, nodeNames), cobra.ShellCompDirectiveNoFileComp
}

// completeTransform completes the name of a transform, then n buckets.
func (o *options) completeTransform(n int) completer {
	buckets := o.completeBuckets(n)
	return func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 && n > 0 {
			return buckets(cmd, args[1:], toComplete)
		}
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return o.ask(cmd, func(ctx context.Context, c *client.Client) ([]string, error) {
			list, err := c.Transforms(ctx)
			var out []string
			for _, t := range list {
				out = append(out, t.Name)
			}
			return out, err
		}), cobra.ShellCompDirectiveNoFileComp
	}
}

func nodeNames(ctx context.Context, c *client.Client) ([]string, error) {
	nodes, err := c.Nodes(ctx)
	var out []string
	for _, n := range nodes {
		out = append(out, string(n.ID))
	}
	return out, err
}

func (o *options) completeDisks(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return o.ask(cmd, func(ctx context.Context, c *client.Client) ([]string, error) {
		disks, err := c.Disks(ctx, "")
		var out []string
		for _, d := range disks {
			out = append(out, d.ID)
		}
		return out, err
	}), cobra.ShellCompDirectiveNoFileComp
}

func (o *options) completeJobs(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return o.ask(cmd, jobIDs), cobra.ShellCompDirectiveNoFileComp
}

func jobIDs(ctx context.Context, c *client.Client) ([]string, error) {
	return listJobIDs(ctx, c, client.JobFilter{})
}

func listJobIDs(ctx context.Context, c *client.Client, f client.JobFilter) ([]string, error) {
	jobs, err := c.Jobs(ctx, f)
	var out []string
	for _, j := range jobs {
		out = append(out, j.ID+"\t"+strings.TrimSpace(j.Kind+" "+j.From+" "+j.To))
	}
	return out, err
}

func jobKinds(ctx context.Context, c *client.Client) ([]string, error) {
	kinds, err := c.JobKinds(ctx)
	var out []string
	for _, k := range kinds {
		out = append(out, k.Kind+"\t"+k.Summary)
	}
	return out, err
}

func (o *options) completeJobsAndKinds(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return append(o.ask(cmd, jobIDs), o.ask(cmd, jobKinds)...), cobra.ShellCompDirectiveNoFileComp
}

// completeStart completes a kind of job, then what its arguments are.
func (o *options) completeStart(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return o.ask(cmd, jobKinds), cobra.ShellCompDirectiveNoFileComp
	}
	var arg api.JobArg
	o.ask(cmd, func(ctx context.Context, c *client.Client) ([]string, error) {
		kinds, err := c.JobKinds(ctx)
		if k, ok := findKind(kinds, args[0]); ok && len(args) <= len(k.Args) {
			arg = k.Args[len(args)-1]
		}
		return nil, err
	})
	switch arg.Type {
	case "bucket":
		return o.bucketNames(cmd), cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
	case "node":
		return o.completeNodes(cmd, nil, toComplete)
	case "disk":
		return o.completeDisks(cmd, nil, toComplete)
	case "job":
		// What has ended is retried.
		return o.ask(cmd, func(ctx context.Context, c *client.Client) ([]string, error) {
			return listJobIDs(ctx, c, client.JobFilter{All: true})
		}), cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}
