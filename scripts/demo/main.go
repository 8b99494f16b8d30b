// Command demo does for scripts/demo.sh what a shell is no good at:
//
//	demo serve SRC DST <pipe            starts an S3 server with the bucket SRC and a server of Google Cloud Storage with
//	                                    DST, prints their settings, a variable a line and then "end", and ends the
//	                                    servers when its input ends, or on SIGTERM
//	demo put DIR SRC <list              puts the files that the list names, relative to DIR, into the S3 server
//	demo compare DIR SRC DST <list      compares each object of both servers with its file, byte by byte
//
// put and compare speak to the servers that serve's variables name, and not to
// the cluster. The exit code is 0 if all is well, 1 if something differs, 2 if
// that could not be found out.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/shoalstore/shoal/scripts/clouds"
)

// atOnce is how many objects are written or compared at a time.
const atOnce = 16

// errDiffers says that something does.
var errDiffers = errors.New("the objects differ")

func main() {
	// Ctrl-C at the terminal is for the script, which then ends this.
	signal.Ignore(os.Interrupt)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "demo:", err)
	if errors.Is(err, errDiffers) {
		os.Exit(1)
	}
	os.Exit(2)
}

func run(ctx context.Context, args []string) error {
	usage := errors.New("want serve SRC DST, put DIR SRC or compare DIR SRC DST")
	if len(args) < 3 {
		return usage
	}
	s3 := clouds.OpenS3(os.Getenv("S3_URL"), os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"))
	gcs := clouds.OpenGCS(os.Getenv("GCS_URL"))
	switch {
	case args[0] == "serve" && len(args) == 3:
		return serve(ctx, args[1], args[2])
	case args[0] == "put" && len(args) == 3:
		return put(ctx, args[1], s3, args[2])
	case args[0] == "compare" && len(args) == 4:
		return compare(ctx, args[1], map[string]side{"s3": {s3, args[2]}, "gs": {gcs, args[3]}})
	}
	return usage
}

// serve runs the servers until its input ends, which it does with the script,
// whatever ends that.
func serve(ctx context.Context, src, dst string) error {
	p, err := clouds.Start(ctx, clouds.Options{S3Buckets: []string{src}, GCSBuckets: []string{dst}})
	if err != nil {
		return err
	}
	s3, gcs := p.URLs()
	fmt.Printf("S3_URL=%s\nGCS_URL=%s\n", s3, gcs)
	for _, e := range p.Env() {
		fmt.Println(e)
	}
	fmt.Println("end")
	ended := make(chan struct{})
	go func() { // ends with the program
		defer close(ended)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	return p.Close()
}

// list reads the names of files below a directory and finds their sizes.
func list(dir string, names io.Reader) (map[string]int64, error) {
	files := map[string]int64{}
	lines := bufio.NewScanner(names)
	for lines.Scan() {
		name := strings.TrimPrefix(lines.Text(), "./")
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		files[name] = info.Size()
	}
	if lines.Err() == nil && len(files) == 0 {
		return nil, errors.New("the list of files is empty")
	}
	return files, lines.Err()
}

func put(ctx context.Context, dir string, s clouds.Store, bucket string) error {
	files, err := list(dir, os.Stdin)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	var total int64
	for name, size := range files {
		total += size
		g.Go(func() error {
			f, err := os.Open(filepath.Join(dir, name))
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			if err := s.Put(ctx, bucket, name, f); err != nil {
				return fmt.Errorf("put %s: %w", name, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	fmt.Printf("%d objects, %.1f MB\n", len(files), float64(total)/1e6)
	return nil
}

// side is one of the buckets that are compared.
type side struct {
	clouds.Store
	bucket string
}

// differences are those found up to now.
type differences struct {
	mu    sync.Mutex
	lines []string
}

func (d *differences) add(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
}

func compare(ctx context.Context, dir string, sides map[string]side) error {
	files, err := list(dir, os.Stdin)
	if err != nil {
		return err
	}
	d := &differences{}
	for scheme, s := range sides {
		seen := map[string]bool{}
		for o, err := range s.List(ctx, s.bucket) {
			if err != nil {
				return err
			}
			uri := scheme + "://" + s.bucket + "/" + o.Key
			switch size, ok := files[o.Key]; {
			case !ok:
				d.add("%s is an object that nobody put", uri)
			case seen[o.Key]:
				d.add("%s is listed twice", uri)
			case size != o.Size:
				d.add("%s is listed with %d bytes, want %d", uri, o.Size, size)
			}
			seen[o.Key] = true
		}
		for name := range files {
			if !seen[name] {
				d.add("%s://%s/%s is not listed", scheme, s.bucket, name)
			}
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for name := range files {
		g.Go(func() error {
			want, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				return err
			}
			for scheme, s := range sides {
				got, err := read(gctx, s, name)
				if gctx.Err() != nil {
					return gctx.Err()
				}
				if err != nil {
					d.add("%s://%s/%s cannot be read: %v", scheme, s.bucket, name, err)
				} else if !bytes.Equal(got, want) {
					d.add("%s://%s/%s: %d bytes that are not the file's %d", scheme, s.bucket, name, len(got), len(want))
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	slices.Sort(d.lines)
	for _, l := range d.lines[:min(len(d.lines), 20)] {
		fmt.Fprintln(os.Stderr, l)
	}
	if len(d.lines) > 0 {
		return fmt.Errorf("%d findings: %w", len(d.lines), errDiffers)
	}
	fmt.Printf("%d objects are equal in both servers and to their files\n", len(files))
	return nil
}

// read reads an object whole.
func read(ctx context.Context, s side, name string) ([]byte, error) {
	r, err := s.Open(ctx, s.bucket, name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	return io.ReadAll(r)
}
