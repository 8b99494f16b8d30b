// Command compare compares every object of two buckets with each other and with
// the files that they were made from, byte by byte.
//
//	compare -source shoal://src -target shoal://dst src=/usr/local/go/src shards=/tmp/shards
//
// PREFIX=DIR says that the objects whose names begin with PREFIX/ were made from
// the files of DIR. SHOAL_ENDPOINT, SHOAL_ACCESS_KEY and SHOAL_SECRET_KEY name
// the cluster. The exit code is 0 if nothing differs, 1 if something does, and 2
// if that could not be found out. A last line of JSON says what was counted.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api/client"
)

// chunk is how much of the three copies is held in memory at a time.
const chunk = 256 << 10

// result is what was found.
type result struct {
	Objects int      `json:"objects"`
	Bytes   int64    `json:"bytes"`
	Differ  []string `json:"differ"`

	mu sync.Mutex
}

func (r *result) differ(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Differ = append(r.Differ, fmt.Sprintf(format, args...))
}

func main() {
	source := flag.String("source", "", "bucket that was copied")
	target := flag.String("target", "", "bucket that it was copied to")
	workers := flag.Int("workers", 16, "objects at once")
	flag.Parse()
	r := &result{Differ: []string{}}
	if err := compare(context.Background(), r, *source, *target, flag.Args(), *workers); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(2)
	}
	slices.Sort(r.Differ)
	for _, d := range r.Differ[:min(len(r.Differ), 20)] {
		fmt.Fprintln(os.Stderr, d)
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(2)
	}
	if len(r.Differ) > 0 {
		os.Exit(1)
	}
}

func compare(ctx context.Context, r *result, source, target string, origins []string, workers int) error {
	c, err := client.New(client.Options{
		Endpoints: strings.Split(os.Getenv("SHOAL_ENDPOINT"), ","),
		AccessKey: os.Getenv("SHOAL_ACCESS_KEY"), SecretKey: os.Getenv("SHOAL_SECRET_KEY"),
	})
	if err != nil {
		return err
	}
	defer c.Close()
	files, err := walk(origins)
	if err != nil {
		return err
	}
	var aliases []string
	for _, uri := range []string{source, target} {
		alias, err := checkNames(ctx, r, c, uri, files)
		if err != nil {
			return err
		}
		aliases = append(aliases, alias)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	for name, path := range files {
		g.Go(func() error { return compareOne(ctx, r, c, name, path, aliases) })
	}
	return g.Wait()
}

// walk finds the files by the names of their objects.
func walk(origins []string) (map[string]string, error) {
	files := map[string]string{}
	for _, o := range origins {
		prefix, dir, ok := strings.Cut(o, "=")
		if !ok {
			return nil, fmt.Errorf("%q: want PREFIX=DIR", o)
		}
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			rel, err := filepath.Rel(dir, path)
			files[prefix+"/"+filepath.ToSlash(rel)] = path
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no files to compare with")
	}
	return files, nil
}

// checkNames compares a listing with the files, and returns the bucket's alias.
func checkNames(ctx context.Context, r *result, c *client.Client, uri string, files map[string]string) (string, error) {
	u, err := core.ParseURI(uri)
	if err != nil {
		return "", err
	}
	b, err := c.Bucket(ctx, u.Bucket)
	if err != nil {
		return "", err
	}
	missing := maps.Clone(files)
	for o, err := range c.List(ctx, u.Bucket, client.ListOptions{NamesOnly: true}) {
		if err != nil {
			return "", err
		}
		if _, ok := missing[o.Name]; !ok {
			r.differ("%s/%s is an object that was never put, or listed twice", uri, o.Name)
		}
		delete(missing, o.Name)
	}
	for name := range missing {
		r.differ("%s/%s is not listed", uri, name)
	}
	return b.Alias, nil
}

// compareOne reads a file and its objects side by side.
func compareOne(ctx context.Context, r *result, c *client.Client, name, path string, aliases []string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	var objects []io.Reader
	for _, alias := range aliases {
		o, err := c.Get(ctx, alias, name, client.GetOptions{})
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			r.differ("%s/%s cannot be read: %v", alias, name, err)
			return nil
		}
		defer func() { _ = o.Close() }()
		objects = append(objects, o)
	}
	want, got := make([]byte, chunk), make([]byte, chunk)
	var size int64
	for {
		n, err := io.ReadFull(f, want)
		size += int64(n)
		last := err == io.EOF || err == io.ErrUnexpectedEOF
		if err != nil && !last {
			return err
		}
		for i, o := range objects {
			// Where the file ends the object has to end, too.
			m, err := io.ReadFull(o, got)
			ended := err == io.EOF || err == io.ErrUnexpectedEOF
			switch {
			case err != nil && !ended:
				r.differ("%s/%s breaks off after %d bytes: %v", aliases[i], name, size-int64(n)+int64(m), err)
				return nil
			case m != n || !bytes.Equal(got[:m], want[:n]):
				r.differ("%s/%s differs from %s behind byte %d", aliases[i], name, path, size-int64(n))
				return nil
			}
		}
		if last {
			break
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Objects++
	r.Bytes += size
	return nil
}
