package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/client"
)

func newCatCommand(o *options) *cobra.Command {
	var offset, length sizeFlag
	var l latestFlags
	cmd := &cobra.Command{
		Use: "cat URI", Short: "Print an object", Args: exactly(1), ValidArgsFunction: o.completeBuckets(1),
	}
	cmd.RunE = o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
		u, err := objectURI(args[0])
		if err != nil {
			return err
		}
		if length == 0 && cmd.Flags().Changed("length") {
			// Of no bytes there is no request, only whether the object is there.
			b, err := c.Bucket(ctx, u.Bucket)
			if err == nil {
				_, err = l.head(ctx, c, b.Alias, u.Key)
			}
			return at(u, err)
		}
		return at(u, o.cat(ctx, c, u, client.GetOptions{Offset: int64(offset), Length: int64(length), Latest: l.latest, Sync: l.sync}))
	})
	cmd.Flags().Var(&offset, "offset", "begin at this byte")
	cmd.Flags().Var(&length, "length", "print at most so much")
	l.add(cmd)
	return cmd
}

func (o *options) cat(ctx context.Context, c *client.Client, u core.URI, g client.GetOptions) error {
	b, err := c.Bucket(ctx, u.Bucket)
	if err != nil {
		return err
	}
	r, err := c.Get(ctx, b.Alias, u.Key, g)
	if err != nil {
		return err
	}
	_, err = io.Copy(o.out, r)
	return errors.Join(err, r.Close())
}

func newStatCommand(o *options) *cobra.Command {
	var l latestFlags
	cmd := &cobra.Command{
		Use: "stat URI", Short: "Show an object's size, ETag and metadata, or a bucket's properties",
		Args: exactly(1), ValidArgsFunction: o.completeBuckets(1),
		RunE: o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			u, err := parseURI(args[0])
			if err != nil {
				return err
			}
			b, err := c.Bucket(ctx, u.Bucket)
			if err != nil {
				return err
			}
			if u.Key == "" {
				return o.showBucket(b)
			}
			info, err := l.head(ctx, c, b.Alias, u.Key)
			if err != nil {
				return at(u, err)
			}
			return o.showObject(ctx, c, u, info)
		}),
	}
	l.add(cmd)
	return cmd
}

func (o *options) showObject(ctx context.Context, c *client.Client, u core.URI, info client.ObjectInfo) error {
	here := api.Object{Cached: true}
	if u.Bucket.Provider != core.Shoal {
		here = api.Object{}
		for line, err := range c.List(ctx, u.Bucket, client.ListOptions{Prefix: u.Key, Max: 1, Presence: api.Cached}) {
			if err != nil {
				return err
			}
			if line.Name == u.Key {
				here = line
			}
		}
	}
	if o.json {
		return o.printJSON(struct {
			client.ObjectInfo
			Bucket string `json:"bucket"`
			Cached bool   `json:"cached"`
			Part   bool   `json:"part,omitempty"`
		}{info, u.Bucket.String(), here.Cached, here.Part})
	}
	o.details(
		"URI", u.String(), "Size", fmt.Sprintf("%d (%s)", info.Size, formatBytes(info.Size)), "ETag", info.ETag,
		"Modified", formatTime(info.Modified), "Type", info.ContentType, "CRC64NVME", info.CRC64NVME, "Cached", cachedText(here),
	)
	for _, name := range sortedKeys(info.Meta) {
		fmt.Fprintf(o.out, "Meta:       %s=%s\n", name, info.Meta[name])
	}
	return nil
}

func newRmCommand(o *options) *cobra.Command {
	var recursive bool
	var workers int
	cmd := &cobra.Command{
		Use:     "rm URI",
		Short:   "Remove an object, or with -r all whose names begin so",
		Example: "  shoal rm shoal://train/0001.tar\n  shoal rm -r shoal://train/old/ --yes",
		Args:    exactly(1), ValidArgsFunction: o.completeBuckets(1),
		RunE: o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			if recursive {
				u, err := parseURI(args[0])
				if err != nil {
					return err
				}
				if err := o.confirm(ctx, fmt.Sprintf("Remove every object whose name begins with %s?", u)); err != nil {
					return err
				}
				return o.removeAll(ctx, c, u, workers)
			}
			u, err := objectURI(args[0])
			if err != nil && u.Bucket.Name != "" {
				return fmt.Errorf("%w; -r removes all whose names begin so", err)
			}
			if err != nil {
				return err
			}
			return at(u, o.remove(ctx, c, u))
		}),
	}
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "all objects whose names begin so")
	count(cmd.Flags(), &workers, "num-workers", 32, "requests at once, with -r")
	o.addYes(cmd)
	return cmd
}

// remove removes one object. That it is not there is an error here: somebody
// may have mistyped its name.
func (o *options) remove(ctx context.Context, c *client.Client, u core.URI) error {
	b, err := c.Bucket(ctx, u.Bucket)
	if err != nil {
		return err
	}
	if _, err := c.Head(ctx, b.Alias, u.Key); err != nil {
		return err
	}
	if err := c.Delete(ctx, b.Alias, u.Key, ""); err != nil {
		return err
	}
	if o.json {
		return o.printJSON(map[string]string{"removed": u.String()})
	}
	o.hint("removed %s", u)
	return nil
}

func (o *options) removeAll(ctx context.Context, c *client.Client, u core.URI, workers int) error {
	b, err := c.Bucket(ctx, u.Bucket)
	if err != nil {
		return err
	}
	var removed atomic.Int64
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(workers, 1))
	for object, err := range c.List(gctx, u.Bucket, client.ListOptions{Prefix: u.Key, NamesOnly: true}) {
		if err != nil {
			return errors.Join(err, ignoreCanceled(g.Wait()))
		}
		g.Go(func() error {
			if err := c.Delete(gctx, b.Alias, object.Name, ""); err != nil {
				return at(core.URI{Bucket: u.Bucket, Key: object.Name}, err)
			}
			removed.Add(1)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if o.json {
		return o.printJSON(map[string]any{"removed": u.String(), "objects": removed.Load()})
	}
	fmt.Fprintf(o.out, "removed %s\n", formatObjects(removed.Load()))
	return nil
}

// ignoreCanceled drops what a group reports only because it was ended.
func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func newMvCommand(o *options) *cobra.Command {
	j := &jobFlags{options: o}
	cmd := &cobra.Command{
		Use:   "mv SRC DST",
		Short: "Move an object",
		Long: `It is copied within the cluster and then removed, unless it has changed meanwhile.
To move a bucket is not built yet: "shoal cp", then "shoal rm -r".`,
		Example: "  shoal mv shoal://train/a.tar shoal://train/b.tar",
		Args:    exactly(2), ValidArgsFunction: o.completeBuckets(2),
	}
	cmd.RunE = o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
		from, to, err := twoURIs(args)
		if err != nil {
			return err
		}
		if from.Key == "" {
			return j.runPair(ctx, c, cmd, "move-bck", from, to)
		}
		if to.Key, err = destinationKey(from.Key, to.Key); err != nil {
			return err
		}
		if from == to {
			return usagef("%s: source and destination are the same", from)
		}
		info, err := o.copyObject(ctx, c, from, to, latestFlags{j.jobSpec.Latest, j.jobSpec.Sync})
		if err != nil {
			return at(from, err)
		}
		b, err := c.Bucket(ctx, from.Bucket)
		if err != nil {
			return err
		}
		if err := c.Delete(ctx, b.Alias, from.Key, info.sourceETag); err != nil {
			return fmt.Errorf("%s: copied to %s, not removed: %w", from, to, err)
		}
		return o.copied("moved", from, to, info)
	})
	j.add(cmd)
	return cmd
}

// copiedObject is the outcome of a copy.
type copiedObject struct {
	client.ObjectInfo
	sourceETag string
}

// copyObject copies one version of an object within the cluster.
func (o *options) copyObject(ctx context.Context, c *client.Client, from, to core.URI, l latestFlags) (copiedObject, error) {
	src, err := c.Bucket(ctx, from.Bucket)
	if err != nil {
		return copiedObject{}, err
	}
	dst, err := c.Bucket(ctx, to.Bucket)
	if err != nil {
		return copiedObject{}, err
	}
	was, err := l.head(ctx, c, src.Alias, from.Key)
	if err != nil {
		return copiedObject{}, err
	}
	info, err := c.Copy(ctx, src.Alias, from.Key, was.ETag, dst.Alias, to.Key)
	info.Size = was.Size
	return copiedObject{info, was.ETag}, err
}

func (o *options) copied(verb string, from, to core.URI, info copiedObject) error {
	if o.json {
		return o.printJSON(map[string]any{"from": from.String(), "to": to.String(), "size": info.Size, "etag": info.ETag})
	}
	o.hint("%s %s to %s (%s)", verb, from, to, formatBytes(info.Size))
	return nil
}

func newEvictCommand(o *options) *cobra.Command {
	j := &jobFlags{options: o}
	cmd := &cobra.Command{
		Use:   "evict URI",
		Short: "Drop the cluster's copies of a remote bucket's objects",
		Long: `What follows the bucket is a prefix. Nothing is removed at the remote, and no copy of what the remote may not
have yet. Of a whole bucket, without --keep-md, the cluster forgets the bucket too, as "shoal bucket rm" does.`,
		Example: "  shoal evict s3://src --yes\n  shoal evict s3://src/2025/ --keep-md\n  shoal evict s3://src --template 'shard-{000..099}.tar'",
		Args:    exactly(1), ValidArgsFunction: o.completeBuckets(1),
	}
	cmd.RunE = o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
		u, err := parseURI(args[0])
		if err != nil {
			return err
		}
		if u.Bucket.Provider == core.Shoal {
			return withCode(exitRefused, fmt.Errorf("%s: has no remote copy to fall back on; to remove objects: shoal rm -r", u))
		}
		spec, err := j.spec(cmd)
		if err != nil {
			return err
		}
		spec.Kind, spec.From, spec.Prefix = "evict", u.Bucket.String(), u.Key+spec.Prefix
		whole := spec.Prefix == "" && len(spec.List) == 0 && spec.Template == "" && spec.Regex == ""
		forget := whole && !spec.KeepMetadata && !spec.DryRun
		if !spec.DryRun {
			if err := o.confirm(ctx, evictQuestion(u, whole, forget)); err != nil {
				return err
			}
		}
		if forget && j.detach {
			return usagef("--detach would leave the bucket in the cluster: add --keep-md, or wait")
		}
		if err := j.runJob(ctx, c, spec); err != nil || !forget {
			return err
		}
		if err := c.DeleteBucket(ctx, u.Bucket); err != nil {
			return err
		}
		o.hint("forgot %s; nothing was removed at the remote", u.Bucket)
		return nil
	})
	cmd.Flags().BoolVar(&j.jobSpec.KeepMetadata, "keep-md", false, "keep the bucket, and what is known of its objects")
	j.add(cmd)
	o.addYes(cmd)
	return cmd
}

func evictQuestion(u core.URI, whole, forget bool) string {
	switch {
	case forget:
		return fmt.Sprintf("Forget %s, with the cluster's copies of its objects? Nothing is removed at the remote.", u.Bucket)
	case whole:
		return fmt.Sprintf("Drop the cluster's copies of all objects of %s?", u.Bucket)
	}
	return fmt.Sprintf("Drop the cluster's copies of the selected objects of %s?", u)
}

// destinationKey is the key of a destination: the source's last part where it
// names none, or a prefix with "/".
func destinationKey(from, to string) (string, error) {
	if to == "" || to[len(to)-1] == '/' {
		name := baseKey(from)
		if name == "" {
			return "", usagef("%q: names no object; to copy by prefix use --prefix with two buckets", from)
		}
		return to + name, nil
	}
	return to, nil
}

func sortedKeys(m map[string]string) []string {
	return slices.Sorted(maps.Keys(m))
}
