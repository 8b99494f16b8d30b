package client

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/shoalstore/shoal/core"
)

// Sizes of parallel transfers.
const (
	partSize    = 16 << 20
	wholeLimit  = 32 << 20 // larger objects go in parts
	defaultWork = 4        // parts at once
)

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
	first, err := c.Get(ctx, alias, key, GetOptions{})
	if err != nil {
		return ObjectInfo{}, err
	}
	defer func() { _ = first.Close() }()
	if first.Size <= wholeLimit || first.ETag == "" {
		_, err := io.Copy(&offsetWriter{dst: dst, moved: o.moved}, first)
		return first.ObjectInfo, err
	}
	// The open stream goes on as the first range.
	sums := make([]crc, (first.Size+partSize-1)/partSize)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(o.parallel())
	g.Go(func() error {
		w := &offsetWriter{dst: dst, moved: o.moved}
		_, err := io.CopyN(w, first, partSize)
		_ = first.Close()
		sums[0] = w.sum
		return err
	})
	for i := 1; i < len(sums) && ctx.Err() == nil; i++ {
		g.Go(func() error {
			w := &offsetWriter{dst: dst, off: int64(i) * partSize, moved: o.moved}
			r, err := c.Get(ctx, alias, key, GetOptions{Offset: w.off, Length: min(partSize, first.Size-w.off), ETag: first.ETag})
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
		sum = sum.join(s, min(partSize, first.Size-int64(i+1)*partSize))
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
