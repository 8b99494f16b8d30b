package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/client"
)

// transferFlags are the flags of put and get.
type transferFlags struct {
	*options
	recursive bool
	workers   int
	show      bool
	refresh   durationFlag
	latestFlags
}

// latestFlags are the flags of what reads objects.
type latestFlags struct{ latest, sync bool }

func (l *latestFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&l.latest, "latest", false, "of a remote bucket: the version that the remote has now")
	cmd.Flags().BoolVar(&l.sync, "sync", false, "as --latest, and drop the copy of what the remote does not have any more")
}

func (t *transferFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVarP(&t.recursive, "recursive", "r", false, "a directory, or all objects whose names begin so")
	count(f, &t.workers, "num-workers", 8, "files at once")
	f.BoolVar(&t.show, "progress", false, "show progress")
	f.Var(&t.refresh, "refresh", "time between two reports of progress")
}

func newPutCommand(o *options) *cobra.Command {
	t := &transferFlags{options: o}
	cmd := &cobra.Command{
		Use:   "put SRC URI",
		Short: "Store a file, a directory (-r) or standard input (-)",
		Long: `A URI without a key, or one that ends in "/", keeps the file's name. Large files go in parallel parts.
Every request carries a checksum of its data and is repeated at another node when one fails.`,
		Example: "  shoal put 0001.tar shoal://train/2026/\n  shoal put -r ./shards shoal://train/2026\n  tar c . | shoal put - shoal://train/all.tar",
		Args:    exactly(2), ValidArgsFunction: o.completeFileThenBucket,
		RunE: o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			return t.put(ctx, c, args[0], args[1])
		}),
	}
	t.add(cmd)
	return cmd
}

func newGetCommand(o *options) *cobra.Command {
	t := &transferFlags{options: o}
	cmd := &cobra.Command{
		Use:   "get URI DST",
		Short: "Fetch an object to a file, a directory or standard output (-)",
		Long: `The file appears under its name only when it is complete and its checksum is right. A download goes on
at another node when one fails.`,
		Example: "  shoal get shoal://train/0001.tar .\n  shoal get -r shoal://train/2026/ ./shards",
		Args:    exactly(2), ValidArgsFunction: o.completeBuckets(1),
		RunE: o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			return t.get(ctx, c, args[0], args[1])
		}),
	}
	t.add(cmd)
	t.latestFlags.add(cmd)
	return cmd
}

// head describes an object, as the flags say.
func (l *latestFlags) head(ctx context.Context, c *client.Client, alias, key string) (client.ObjectInfo, error) {
	if l.latest || l.sync {
		return c.HeadLatest(ctx, alias, key, l.sync)
	}
	return c.Head(ctx, alias, key)
}

// mover moves many objects at once and counts them.
type mover struct {
	t     *transferFlags
	c     *client.Client
	alias string
	bar   *transferProgress

	mu   sync.Mutex
	done api.Amount
}

func (t *transferFlags) mover(ctx context.Context, c *client.Client, b core.BucketName, verb string) (*mover, error) {
	bucket, err := c.Bucket(ctx, b)
	if err != nil {
		return nil, err
	}
	m := &mover{t: t, c: c, alias: bucket.Alias}
	if t.show && !t.quiet {
		m.bar = t.newTransferProgress(verb, t.refresh)
	}
	return m, nil
}

// finish ends the progress and prints what was moved.
func (m *mover) finish(err error, verb string) error {
	m.bar.stop()
	if err != nil {
		return err
	}
	if m.t.json {
		return m.t.printJSON(m.done)
	}
	if m.t.recursive {
		fmt.Fprintf(m.t.out, "%s %s\n", verb, formatAmount(m.done))
	}
	return nil
}

func (m *mover) count(bytes int64) {
	m.bar.object()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done = m.done.Add(api.Amount{Objects: 1, Bytes: bytes})
}

func (t *transferFlags) put(ctx context.Context, c *client.Client, src, dst string) error {
	u, err := parseURI(dst)
	if err != nil {
		return err
	}
	var info fs.FileInfo
	if src == "-" {
		if u.Key == "" || strings.HasSuffix(u.Key, "/") {
			return usagef("%s: standard input has no name: want an object, as %s/KEY", u, u.Bucket)
		}
	} else {
		if src, err = localFile(src); err != nil {
			return err
		}
		if info, err = os.Stat(src); err != nil {
			return err
		}
		if info.IsDir() && !t.recursive {
			return usagef("%s is a directory: add -r", src)
		}
	}
	m, err := t.mover(ctx, c, u.Bucket, "Stored")
	if err != nil {
		return err
	}
	switch {
	case src == "-":
		err = m.upload(ctx, t.in, -1, u)
	case info.IsDir():
		err = m.putTree(ctx, src, u)
	default:
		if u.Key == "" || strings.HasSuffix(u.Key, "/") {
			u.Key += filepath.Base(src)
		}
		m.bar.plan(1, info.Size())
		err = m.putFile(ctx, src, u)
	}
	return m.finish(err, "stored")
}

// putTree stores every regular file below dir under its path there.
func (m *mover) putTree(ctx context.Context, dir string, u core.URI) error {
	prefix := u.Key
	if prefix != "" && !strings.HasSuffix(prefix, "/") {
		prefix += "/"
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(m.t.workers, 1))
	walk := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || gctx.Err() != nil {
			return errors.Join(err, gctx.Err())
		}
		if d.IsDir() {
			return nil
		}
		info, err := os.Stat(file) // a link stands for what it points to
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			m.t.hint("%s: not a regular file, left out", file)
			return nil
		}
		rel, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		m.bar.plan(1, info.Size())
		g.Go(func() error {
			return m.putFile(gctx, file, core.URI{Bucket: u.Bucket, Key: prefix + filepath.ToSlash(rel)})
		})
		return nil
	})
	return firstCause(g.Wait(), walk)
}

// firstCause prefers the error that ended a group to what it made of others.
func firstCause(group, walk error) error {
	if group != nil {
		return group
	}
	return walk
}

func (m *mover) putFile(ctx context.Context, file string, u core.URI) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if !info.Mode().IsRegular() {
		size = -1
	}
	return m.upload(ctx, f, size, u)
}

func (m *mover) upload(ctx context.Context, src io.Reader, size int64, u core.URI) error {
	if err := core.ValidateKey(u.Key); err != nil {
		return err
	}
	info, err := m.c.Upload(ctx, m.alias, u.Key, src, size, client.TransferOptions{
		Progress: m.bar.bytes, ContentType: mime.TypeByExtension(path.Ext(u.Key)),
	})
	if err != nil {
		return at(u, err)
	}
	m.count(info.Size)
	return nil
}

func (t *transferFlags) get(ctx context.Context, c *client.Client, src, dst string) error {
	u, err := parseURI(src)
	if err != nil {
		return err
	}
	if u.Key == "" && !t.recursive {
		return usagef("%s is a bucket: name an object, or add -r", u)
	}
	if dst, err = localFile(dst); err != nil {
		return err
	}
	if dst == "-" {
		if t.recursive {
			return usagef("-r needs a directory to write to")
		}
		return at(u, t.cat(ctx, c, u, client.GetOptions{Latest: t.latest, Sync: t.sync}))
	}
	m, err := t.mover(ctx, c, u.Bucket, "Fetched")
	if err != nil {
		return err
	}
	if t.recursive {
		err = m.getAll(ctx, u, dst)
	} else {
		if isDir(dst) || strings.HasSuffix(dst, string(filepath.Separator)) {
			dst = filepath.Join(dst, baseKey(u.Key))
		}
		err = m.getFile(ctx, u, dst, false)
	}
	return m.finish(err, "fetched")
}

// getAll fetches every object whose name begins so. Below dst they get the
// names that they have below the prefix's last "/".
func (m *mover) getAll(ctx context.Context, u core.URI, dst string) error {
	strip := u.Key[:strings.LastIndexByte(u.Key, '/')+1]
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(m.t.workers, 1))
	for object, err := range m.c.List(gctx, u.Bucket, client.ListOptions{Prefix: u.Key}) {
		if err != nil {
			return firstCause(g.Wait(), err)
		}
		name := strings.TrimPrefix(object.Name, strip)
		if !filepath.IsLocal(filepath.FromSlash(name)) || strings.HasSuffix(name, "/") {
			err := fmt.Errorf("%s: cannot be a file below %s; fetch it by its name", core.URI{Bucket: u.Bucket, Key: object.Name}, dst)
			return errors.Join(err, ignoreCanceled(g.Wait()))
		}
		m.bar.plan(1, object.Size)
		g.Go(func() error {
			return m.getFile(gctx, core.URI{Bucket: u.Bucket, Key: object.Name}, filepath.Join(dst, filepath.FromSlash(name)), true)
		})
	}
	return g.Wait()
}

// getFile fetches an object to a temporary file beside dst and gives it its
// name once it is complete. planned says that it is in the progress already.
func (m *mover) getFile(ctx context.Context, u core.URI, dst string, planned bool) error {
	if m.bar != nil && !planned {
		info, err := m.t.head(ctx, m.c, m.alias, u.Key)
		if err != nil {
			return at(u, err)
		}
		m.bar.plan(1, info.Size)
	}
	if isSpecial(dst) {
		return at(u, m.stream(ctx, u.Key, dst))
	}
	var info client.ObjectInfo
	err := writeWhole(dst, func(f *os.File) (err error) {
		info, err = m.c.Download(ctx, m.alias, u.Key, f, client.TransferOptions{Progress: m.bar.bytes, Latest: m.t.latest, Sync: m.t.sync})
		return err
	})
	if err != nil {
		return at(u, err)
	}
	m.count(info.Size)
	return nil
}

// writeWhole makes a file that has its name only once fill has written all of it.
// Directories that lack are made.
func writeWhole(name string, fill func(*os.File) error) error {
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	temporary := filepath.Join(dir, ".shoal-"+uuid.NewString())
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o666)
	if err != nil {
		return fmt.Errorf("create a file in %s: %w", dir, errors.Unwrap(err))
	}
	if err = errors.Join(fill(f), f.Close()); err == nil {
		err = os.Rename(temporary, name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return nil
}

// stream writes an object to what is no regular file: a pipe, a device.
func (m *mover) stream(ctx context.Context, key, dst string) error {
	f, err := os.OpenFile(dst, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	r, err := m.c.Get(ctx, m.alias, key, client.GetOptions{Latest: m.t.latest, Sync: m.t.sync})
	if err != nil {
		return errors.Join(err, f.Close())
	}
	n, err := io.Copy(f, r)
	m.bar.bytes(n)
	m.count(n)
	return errors.Join(err, r.Close(), f.Close())
}

func isSpecial(name string) bool {
	info, err := os.Stat(name)
	return err == nil && !info.Mode().IsRegular() && !info.IsDir()
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// baseKey is the last part of a key.
func baseKey(key string) string { return key[strings.LastIndexByte(key, '/')+1:] }
