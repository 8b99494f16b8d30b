package client

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/shoalstore/shoal/core"
)

// Defaults of parallel transfers.
const (
	defaultPart = 16 << 20
	defaultWork = 4 // parts at once
)

// wholeLimit is the size above which objects go in parts.
func (c *Client) wholeLimit() int64 { return 2 * c.o.PartSize }

// TransferOptions say how an object is moved.
type TransferOptions struct {
	// Parallel is how many parts move at once; 4 if zero.
	Parallel int
	// Progress is told how many bytes have moved since the last call; a
	// negative number takes back what must move again. It is called by several
	// goroutines.
	Progress func(int64)
	// ContentType and Meta are kept with an uploaded object.
	ContentType string
	Meta        map[string]string
	// Latest and Sync, of downloads, are as in [GetOptions].
	Latest, Sync bool
}

func (o TransferOptions) parallel() int {
	if o.Parallel > 0 {
		return o.Parallel
	}
	return defaultWork
}

func (o TransferOptions) moved(n int64) {
	if o.Progress != nil {
		o.Progress(n)
	}
}

// Download writes an object to dst, large ones in parallel ranges of one
// version, and verifies the checksum that the cluster keeps.
func (c *Client) Download(ctx context.Context, alias, key string, dst io.WriterAt, o TransferOptions) (ObjectInfo, error) {
	first, err := c.Get(ctx, alias, key, GetOptions{Latest: o.Latest, Sync: o.Sync})
	if err != nil {
		return ObjectInfo{}, err
	}
	defer func() { _ = first.Close() }()
	size := c.o.PartSize
	if first.Size <= c.wholeLimit() || first.ETag == "" {
		_, err := io.Copy(&offsetWriter{dst: dst, moved: o.moved}, first)
		return first.ObjectInfo, err
	}
	// The open stream goes on as the first range.
	sums := make([]crc, (first.Size+size-1)/size)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(o.parallel())
	g.Go(func() error {
		w := &offsetWriter{dst: dst, moved: o.moved}
		_, err := io.CopyN(w, first, size)
		_ = first.Close()
		sums[0] = w.sum
		return err
	})
	for i := 1; i < len(sums) && ctx.Err() == nil; i++ {
		g.Go(func() error {
			w := &offsetWriter{dst: dst, off: int64(i) * size, moved: o.moved}
			r, err := c.Get(ctx, alias, key, GetOptions{Offset: w.off, Length: min(size, first.Size-w.off), ETag: first.ETag})
			if err != nil {
				return err
			}
			defer func() { _ = r.Close() }()
			_, err = io.Copy(w, r)
			sums[i] = w.sum
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return first.ObjectInfo, err
	}
	sum := sums[0]
	for i, s := range sums[1:] {
		sum = sum.join(s, min(size, first.Size-int64(i+1)*size))
	}
	if first.CRC64NVME != "" && first.CRC64NVME != sum.String() {
		return first.ObjectInfo, fmt.Errorf("%s/%s: the cluster keeps CRC64NVME %s, what came has %s: %w",
			alias, key, first.CRC64NVME, sum, core.ErrChecksum)
	}
	return first.ObjectInfo, nil
}

// offsetWriter writes a run of bytes at its place.
type offsetWriter struct {
	dst   io.WriterAt
	off   int64
	sum   crc
	moved func(int64)
}

func (w *offsetWriter) Write(p []byte) (int, error) {
	n, err := w.dst.WriteAt(p, w.off)
	w.off += int64(n)
	w.sum = w.sum.add(p[:n])
	w.moved(int64(n))
	return n, err
}
