package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/job"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/client"
)

// shardFlags say what gen-shards makes.
type shardFlags struct {
	transferFlags
	size  sizeFlag
	count int
	seed  uint64
}

func newGenShardsCommand(o *options) *cobra.Command {
	s := &shardFlags{transferFlags: transferFlags{options: o}, size: 1 << 10}
	cmd := &cobra.Command{
		Use:   "gen-shards 'shoal://b/shard-{001..999}.tar'",
		Short: "Store tar files of random data, the same for the same seed",
		Long:  "Every tar has --fcount files of --fsize bytes. A shoal:// bucket that does not exist is created.",
		Args:  exactly(1), ValidArgsFunction: o.completeBuckets(1),
		RunE: o.withClient(func(ctx context.Context, c *client.Client, args []string) error { return s.run(ctx, c, args[0]) }),
	}
	f := cmd.Flags()
	f.Var(&s.size, "fsize", "size of each file in a shard")
	count(f, &s.count, "fcount", 5, "files in a shard")
	f.Uint64Var(&s.seed, "seed", 1, "of the random data")
	count(f, &s.workers, "num-workers", 8, "shards at once")
	f.BoolVar(&s.show, "progress", false, "show progress")
	f.Var(&s.refresh, "refresh", "time between two reports of progress")
	return cmd
}

func (s *shardFlags) run(ctx context.Context, c *client.Client, arg string) error {
	u, err := objectURI(arg)
	if err != nil {
		return err
	}
	names, err := job.Expand(u.Key)
	if err != nil {
		return err
	}
	if _, err := c.Bucket(ctx, u.Bucket); u.Bucket.Provider == core.Shoal && errors.Is(err, core.ErrNoSuchBucket) {
		if _, err := c.CreateBucket(ctx, u.Bucket, api.CreateBucket{IfAbsent: true}); err != nil {
			return err
		}
		s.hint("created %s", u.Bucket)
	}
	m, err := s.mover(ctx, c, u.Bucket, "Stored")
	if err != nil {
		return err
	}
	s.recursive = true // one line of summary at the end
	m.bar.plan(int64(len(names)), int64(len(names))*shardSize(int64(s.size), s.count))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(s.workers, 1))
	for _, name := range names {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			data, err := makeShard(name, int64(s.size), s.count, s.seed)
			if err != nil {
				return err
			}
			return m.upload(gctx, bytes.NewReader(data), int64(len(data)), core.URI{Bucket: u.Bucket, Key: name})
		})
	}
	return m.finish(firstCause(g.Wait(), context.Cause(ctx)), "stored")
}

// shardSize is the size of a tar of so many files.
func shardSize(size int64, count int) int64 {
	return int64(count)*(512+(size+511)/512*512) + 1024
}

// makeShard makes a tar whose bytes depend on its name, the sizes and the seed
// only.
func makeShard(name string, size int64, count int, seed uint64) ([]byte, error) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // a hash takes everything
	random := rand.NewPCG(seed, h.Sum64())
	base := strings.TrimSuffix(path.Base(name), path.Ext(name))
	b := bytes.NewBuffer(make([]byte, 0, shardSize(size, count)))
	w := tar.NewWriter(b)
	data := make([]byte, (size+7)/8*8)
	for i := range count {
		for off := 0; off < len(data); off += 8 {
			binary.LittleEndian.PutUint64(data[off:], random.Uint64())
		}
		header := &tar.Header{
			Name: fmt.Sprintf("%s-%06d.bin", base, i), Size: size, Mode: 0o644, Typeflag: tar.TypeReg,
			ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR,
		}
		if len(header.Name) > 100 {
			header.Name = fmt.Sprintf("%06d.bin", i)
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(data[:size]); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
