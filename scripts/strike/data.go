package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/client"
)

// atOnce is how many objects are written or read at a time.
const atOnce = 16

// checksum is the harness's own, of what it wrote.
type checksum [sha256.Size]byte

// object is what a key is to hold.
type object struct {
	size int64
	sum  checksum
}

// dataSet is what a bucket is to hold.
type dataSet struct {
	seed    uint64
	names   []string
	sizes   map[string]int64
	objects map[string]object
}

// newDataSet plans n objects of a size, 0 for mixed ones. Names are of several
// lengths and depths.
func newDataSet(o *options) *dataSet {
	d := &dataSet{seed: o.seed, sizes: map[string]int64{}, objects: map[string]object{}}
	rnd := o.draw("names", 0)
	for i := range o.objects {
		name := fmt.Sprintf("part-%d/%x/object-%06d", i%7, rnd.IntN(256), i)
		d.names = append(d.names, name)
		switch d.sizes[name] = int64(o.size); {
		case o.size > 0:
		case i%largeEvery == largeEvery/2:
			d.sizes[name] = large
		default:
			d.sizes[name] = 1 + rnd.Int64N(mixedMost)
		}
	}
	return d
}

// amount is what the set holds.
func (d *dataSet) amount() api.Amount {
	a := api.Amount{Objects: int64(len(d.names))}
	for _, size := range d.sizes {
		a.Bytes += size
	}
	return a
}

// content is the data of a name: bytes that no other name and seed have.
func content(seed uint64, name string, size int64) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "%d %s", seed, name))).Read(b) // never fails
	return b
}

// put writes the set into a bucket and keeps the checksums.
func (d *dataSet) put(ctx context.Context, c *client.Client, b api.Bucket) error {
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, name := range d.names {
		g.Go(func() error {
			data := content(d.seed, name, d.sizes[name])
			if _, err := c.Upload(ctx, b.Alias, name, bytes.NewReader(data), d.sizes[name], client.TransferOptions{}); err != nil {
				return fmt.Errorf("put %s/%s: %w", b.URI, name, err)
			}
			mu.Lock()
			defer mu.Unlock()
			d.objects[name] = object{d.sizes[name], sha256.Sum256(data)}
			return nil
		})
	}
	return g.Wait()
}

// findings are the differences between what should be and what is.
type findings struct {
	mu                      sync.Mutex
	lost, wrong, duplicated int64
	lines                   []string
}

// note counts a difference and keeps the first ones for people.
func (f *findings) note(count *int64, format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*count++
	if len(f.lines) < 20 {
		f.lines = append(f.lines, fmt.Sprintf(format, args...))
	}
}

// err is nil if there are none.
func (f *findings) err() error {
	if f.lost+f.wrong+f.duplicated == 0 {
		return nil
	}
	return &differenceError{lost: f.lost, wrong: f.wrong, duplicated: f.duplicated, lines: f.lines}
}

// differenceError says what differs.
type differenceError struct {
	lost, wrong, duplicated int64
	lines                   []string
}

func (e *differenceError) Error() string {
	s := fmt.Sprintf("%d lost, %d wrong, %d duplicated", e.lost, e.wrong, e.duplicated)
	if len(e.lines) == 0 {
		return s
	}
	return s + ": " + strings.Join(e.lines, "\n  ")
}

// compare lists a bucket and reads every byte of it. It returns an error if
// that could not be done, and notes what differs from the set.
func (d *dataSet) compare(ctx context.Context, c *client.Client, bucket api.Bucket) error {
	name, err := bucketName(bucket)
	if err != nil {
		return err
	}
	return d.compareWith(ctx, bucket.URI, c.List(ctx, name, client.ListOptions{}), func(ctx context.Context, key string) (object, error) {
		return read(ctx, c, bucket.Alias, key)
	})
}

// compareWith does so by whatever lists and reads a bucket.
func (d *dataSet) compareWith(ctx context.Context, bucket string, list iter.Seq2[api.Object, error], read func(ctx context.Context, key string) (object, error)) error {
	f := &findings{}
	seen := make(map[string]bool, len(d.names))
	for o, err := range list {
		if err != nil {
			return fmt.Errorf("list %s: %w", bucket, err)
		}
		want, ok := d.objects[o.Name]
		switch {
		case !ok:
			f.note(&f.wrong, "%s lists %s, which nobody wrote", bucket, o.Name)
		case seen[o.Name]:
			f.note(&f.duplicated, "%s lists %s twice", bucket, o.Name)
		case o.Size != want.size:
			f.note(&f.wrong, "%s lists %s with %d bytes, want %d", bucket, o.Name, o.Size, want.size)
		}
		seen[o.Name] = true
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for key, want := range d.objects {
		if !seen[key] {
			f.note(&f.lost, "%s does not list %s", bucket, key)
		}
		g.Go(func() error {
			got, err := read(gctx, key)
			switch {
			case gctx.Err() != nil:
				return gctx.Err()
			case errors.Is(err, core.ErrChecksum) || errors.Is(err, core.ErrCorrupt):
				f.note(&f.wrong, "%s/%s: %v", bucket, key, err)
			case err != nil:
				f.note(&f.lost, "%s/%s: %v", bucket, key, err)
			case got != want:
				f.note(&f.wrong, "%s/%s: %d bytes of checksum %x, want %d of %x", bucket, key, got.size, got.sum[:4], want.size, want.sum[:4])
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return f.err()
}

// read reads an object whole.
func read(ctx context.Context, c *client.Client, alias, key string) (object, error) {
	r, err := c.Get(ctx, alias, key, client.GetOptions{})
	if err != nil {
		return object{}, err
	}
	defer func() { _ = r.Close() }()
	return sumOf(r)
}

// sumOf reads to the end.
func sumOf(r io.Reader) (object, error) {
	sum := sha256.New()
	n, err := io.Copy(sum, r)
	return object{n, checksum(sum.Sum(nil))}, err
}

// bucketName is the name in the form of requests.
func bucketName(b api.Bucket) (core.BucketName, error) {
	u, err := core.ParseURI(b.URI)
	return u.Bucket, err
}

// removeBucket deletes all objects of a bucket, and the bucket.
func removeBucket(ctx context.Context, c *client.Client, b api.Bucket) error {
	name, err := bucketName(b)
	if err != nil {
		return err
	}
	var keys []string
	for o, err := range c.List(ctx, name, client.ListOptions{NamesOnly: true}) {
		if err != nil {
			return fmt.Errorf("list %s: %w", b.URI, err)
		}
		keys = append(keys, o.Name)
	}
	slices.Sort(keys)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, k := range keys {
		g.Go(func() error {
			if err := c.Delete(gctx, b.Alias, k, ""); err != nil {
				return fmt.Errorf("delete %s/%s: %w", b.URI, k, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := c.DeleteBucket(ctx, name); err != nil {
		return fmt.Errorf("delete the empty bucket %s: %w", b.URI, err)
	}
	return nil
}
