package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/client"
)

func newBucketCommand(o *options) *cobra.Command {
	return group("bucket", "Create, show, change and remove buckets",
		newBucketCreateCommand(o), newBucketLsCommand(o), newBucketShowCommand(o), newBucketSetCommand(o), newBucketRmCommand(o))
}

// propsHelp says what --props takes.
const propsHelp = "properties, as scheme=ec-4+2,domain=node|disk,inline=128KiB,etag=md5|fast,sendfile=on|off,lru=on|off; of remote buckets also account=NAME,endpoint=URL,region=R,profile=P,anonymous=on|off,path_style=on|off,conditions=on|off,name=NAME-AT-THE-REMOTE (endpoint= takes it back)"

func newBucketCreateCommand(o *options) *cobra.Command {
	var props []string
	var in api.CreateBucket
	cmd := &cobra.Command{
		Use:   "create URI",
		Short: "Create a bucket, or take a remote one into use",
		Long: `A remote bucket must be there and accessible with the servers' credentials. It is taken into use by itself
when it is named for the first time; this command does so with properties and an S3 name of your choice.`,
		Example: "  shoal bucket create shoal://train --props scheme=ec-4+2\n  shoal bucket create s3://src --alias src",
		Args:    exactly(1),
		RunE: o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			b, err := bucketURI(args[0])
			if err != nil {
				return err
			}
			if in.Props, err = parseProps(props); err != nil {
				return err
			}
			created, err := c.CreateBucket(ctx, b, in)
			if err != nil {
				return err
			}
			if o.json {
				return o.printJSON(created)
			}
			verb := "created"
			if b.Provider != core.Shoal && !in.Create {
				verb = "in use:"
			}
			fmt.Fprintf(o.out, "%s %s%s\n", verb, created.URI, describeProps(created))
			return nil
		}),
	}
	cmd.Flags().StringSliceVar(&props, "props", nil, propsHelp)
	cmd.Flags().StringVar(&in.Alias, "alias", "", "the bucket's name for S3 clients")
	cmd.Flags().BoolVar(&in.Create, "create", false, "make the bucket at the remote if there is none")
	cmd.Flags().BoolVar(&in.IfAbsent, "if-absent", false, "leave a bucket that exists as it is, without an error")
	return cmd
}

func describeProps(b api.Bucket) string {
	if b.Props == nil {
		return ""
	}
	text := " (" + b.Props.Scheme.String()
	if b.Alias != "" && b.Alias != b.Name {
		text += ", S3 name " + b.Alias
	}
	return text + ")"
}

func newBucketLsCommand(o *options) *cobra.Command {
	l := &lsOptions{options: o}
	cmd := &cobra.Command{
		Use: "ls [PROVIDER]", Short: "List buckets", Args: between(0, 1), ValidArgs: []string{"shoal", "s3", "gs"},
		RunE: o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			if len(args) == 0 {
				return l.buckets(ctx, c, "")
			}
			p, ok := providerOf(args[0])
			if !ok {
				return usagef("%q: want shoal, s3 or gs; `shoal ls %s` lists objects", args[0], args[0])
			}
			return l.buckets(ctx, c, p)
		}),
	}
	cmd.Flags().BoolVar(&l.all, "all", false, "also remote buckets that were not used yet")
	cmd.Flags().BoolVar(&l.summary, "summary", false, "count objects and bytes")
	cmd.Flags().BoolVar(&l.noHeaders, "no-headers", false, "names only, nothing else")
	return cmd
}

func newBucketShowCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "show URI", Short: "Show a bucket's properties", Args: exactly(1), ValidArgsFunction: o.completeBuckets(1),
		RunE: o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			b, err := bucketURI(args[0])
			if err != nil {
				return err
			}
			found, err := c.Bucket(ctx, b)
			if err != nil {
				return err
			}
			return o.showBucket(found)
		}),
	}
}

func (o *options) showBucket(b api.Bucket) error {
	if o.json {
		return o.printJSON(b)
	}
	p := core.Policy{}
	if b.Props != nil {
		p = *b.Props
	}
	rows := []string{
		"URI", b.URI, "S3 name", b.Alias, "State", string(b.State), "Created", formatTimePtr(b.Created),
		"scheme", p.Scheme.String(), "domain", string(p.Domain), "inline", config.Size(p.Inline).String(),
		"etag", p.ETag, "sendfile", onOff(p.Sendfile), "lru", onOff(p.LRU),
	}
	if b.Remote != nil {
		rows = append(rows, remoteRows(*b.Remote)...)
	}
	o.details(rows...)
	return nil
}

// remoteRows are the settings that a remote bucket has of its own.
func remoteRows(r core.RemoteSettings) (rows []string) {
	for _, row := range [][2]string{
		{"account", r.Account},
		{"endpoint", r.Endpoint},
		{"region", r.Region},
		{"profile", r.Profile},
		{"name", r.Name},
		{"anonymous", onOff(r.Anonymous)},
		{"path_style", onOff(r.PathStyle)},
		{"conditions", onOff(r.Conditions)},
	} {
		if row[1] != "" && row[1] != "off" {
			rows = append(rows, row[0], row[1])
		}
	}
	return rows
}

func onOff(v bool) string {
	if v {
		return "on"
	}
	return "off"
}

func newBucketSetCommand(o *options) *cobra.Command {
	var props []string
	var in api.SetBucket
	cmd := &cobra.Command{
		Use:   "set URI",
		Short: "Change a bucket's properties or alias",
		Long:  "Objects that are there already are brought to a new scheme in the background; `shoal show job` shows it.",
		Args:  exactly(1), ValidArgsFunction: o.completeBuckets(1),
		RunE: o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			b, err := bucketURI(args[0])
			if err != nil {
				return err
			}
			if len(props) == 0 && in.Alias == "" {
				return usagef("nothing to set: --props or --alias")
			}
			if in.Props, err = parseProps(props); err != nil {
				return err
			}
			changed, err := c.SetBucket(ctx, b, in)
			if err != nil {
				return err
			}
			return o.showBucket(changed)
		}),
	}
	cmd.Flags().StringSliceVar(&props, "props", nil, propsHelp)
	cmd.Flags().StringVar(&in.Alias, "alias", "", "the bucket's name for S3 clients")
	return cmd
}

func newBucketRmCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rm URI",
		Short: "Remove an empty bucket; a remote one only from the cluster",
		Long:  "Of a remote bucket the cluster's copies and its properties go; nothing is removed at the remote.",
		Args:  exactly(1), ValidArgsFunction: o.completeBuckets(1),
		RunE: o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			b, err := bucketURI(args[0])
			if err != nil {
				return err
			}
			question := fmt.Sprintf("Remove %s?", b)
			if b.Provider != core.Shoal {
				question = fmt.Sprintf("Forget %s, with the cluster's copies of its objects? Nothing is removed at the remote.", b)
			}
			if err := o.confirm(ctx, question); err != nil {
				return err
			}
			err = c.DeleteBucket(ctx, b)
			if errors.Is(err, core.ErrNotEmpty) {
				return fmt.Errorf("%w; `shoal rm -r %s` removes them", err, b)
			}
			if err != nil {
				return err
			}
			if o.json {
				return o.printJSON(map[string]string{"removed": b.String()})
			}
			if b.Provider != core.Shoal {
				fmt.Fprintf(o.out, "forgot %s; nothing was removed at the remote\n", b)
				return nil
			}
			fmt.Fprintf(o.out, "removed %s\n", b)
			return nil
		}),
	}
	o.addYes(cmd)
	return cmd
}

// parseProps reads properties of the form name=value.
func parseProps(list []string) (p api.Props, err error) {
	known := map[string]func(string) error{
		"scheme": func(v string) error {
			s, err := core.ParseScheme(v)
			p.Scheme = &s
			return err
		},
		"domain": func(v string) error {
			d := core.Domain(v)
			p.Domain = &d
			return oneOf(v, string(core.DomainNode), string(core.DomainDisk))
		},
		"inline": func(v string) error {
			s, err := config.ParseSize(v)
			n := int64(s)
			p.Inline = &n
			return err
		},
		"etag":     func(v string) error { p.ETag = &v; return oneOf(v, "md5", "fast") },
		"sendfile": func(v string) error { return parseSwitch(v, &p.Sendfile) },
		"lru":      func(v string) error { return parseSwitch(v, &p.LRU) },

		"account":    func(v string) error { p.Account = &v; return nil },
		"endpoint":   func(v string) error { p.Endpoint = &v; return nil },
		"region":     func(v string) error { p.Region = &v; return nil },
		"profile":    func(v string) error { p.Profile = &v; return nil },
		"name":       func(v string) error { p.Name = &v; return nil },
		"anonymous":  func(v string) error { return parseSwitch(v, &p.Anonymous) },
		"path_style": func(v string) error { return parseSwitch(v, &p.PathStyle) },
		"conditions": func(v string) error { return parseSwitch(v, &p.Conditions) },
	}
	for _, item := range list {
		name, value, ok := strings.Cut(item, "=")
		set, exists := known[name]
		if !ok || !exists {
			names := make([]string, 0, len(known))
			for n := range known {
				names = append(names, n)
			}
			slices.Sort(names)
			return p, usagef("property %q: want name=value, with a name of: %s", item, strings.Join(names, ", "))
		}
		if err := set(value); err != nil {
			return p, usagef("property %s: %v", item, err)
		}
	}
	return p, nil
}

func oneOf(v string, allowed ...string) error {
	if !slices.Contains(allowed, v) {
		return fmt.Errorf("want one of %s", strings.Join(allowed, ", "))
	}
	return nil
}

func parseSwitch(v string, to **bool) error {
	on := v == "on" || v == "true"
	*to = &on
	return oneOf(v, "on", "off", "true", "false")
}
