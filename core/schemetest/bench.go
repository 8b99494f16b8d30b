package schemetest

import (
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/shardio"
)

// ramStore is a disk that costs nothing: it forgets what is written, and all its
// shards are zeros of the size that it is set to. Missing ones fail to open.
type ramStore struct {
	size    int64
	missing bool
}

func (s *ramStore) Create(context.Context, core.ShardMeta, int64) (core.ShardWriter, error) {
	return ramShard{}, nil
}

func (s *ramStore) Open(context.Context, core.ShardID) (core.ShardReader, error) {
	if s.missing {
		return nil, core.ErrNotFound
	}
	return ramShard{s.size}, nil
}

func (s *ramStore) Delete(context.Context, core.ShardID) error { return nil }

type ramShard struct{ size int64 }

func (ramShard) Write(p []byte) (int, error)                              { return len(p), nil }
func (ramShard) Commit(context.Context) error                             { return nil }
func (ramShard) Close() error                                             { return nil }
func (s ramShard) Size() int64                                            { return s.size }
func (ramShard) ReadAt(_ context.Context, p []byte, _ int64) (int, error) { return len(p), nil }

// zeros is an endless source that costs nothing.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// Bench measures what a coder itself costs: disks, source and sink are free.
func Bench(b *testing.B, create New, s core.Scheme) {
	c, err := create(s, shardio.Options{Clock: Clock{}})
	if err != nil {
		b.Fatal(err)
	}
	ctx := b.Context()
	w := core.WriteSpec{Dst: make([]core.Target, s.Width())}
	disks := make([]*ramStore, s.Width())
	src := make([]core.Store, s.Width())
	for i := range disks {
		disks[i] = new(ramStore)
		w.Dst[i] = core.Target{Disk: core.DiskID(i + 1), Store: disks[i]}
		src[i] = disks[i]
	}
	write := func(b *testing.B, size int64) core.Extent {
		w.Size = size
		e, err := c.Write(ctx, w, io.LimitReader(zeros{}, size))
		if err != nil {
			b.Fatal(err)
		}
		return e
	}
	read := func(b *testing.B, e core.Extent, off, n int64) {
		x, err := c.Open(ctx, core.ReadSpec{Extent: e, Src: src})
		if err != nil {
			b.Fatal(err)
		}
		r := x.Reader(ctx, off, n)
		if m, err := r.(io.WriterTo).WriteTo(io.Discard); err != nil || m != n {
			b.Fatalf("read %d bytes: got %d and error %v", n, m, err)
		}
		_ = r.Close()
		_ = x.Close()
	}
	for _, size := range []int64{1 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 64 << 20} {
		name := fmt.Sprintf("%dKiB", size>>10)
		b.Run("write/"+name, func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				write(b, size)
			}
		})
		e := write(b, size)
		for i := range disks {
			disks[i].size = shardSize(e)
		}
		for lost := range min(s.M, 2) + 1 {
			for i := range disks {
				disks[i].missing = i < lost
			}
			b.Run(fmt.Sprintf("read-lost-%d/%s", lost, name), func(b *testing.B) {
				b.SetBytes(size)
				b.ReportAllocs()
				for b.Loop() {
					read(b, e, 0, size)
				}
			})
		}
		disks[0].missing, disks[min(1, len(disks)-1)].missing = false, false
	}
	c.Wait()
}

// shardSize is the size of the shards of an extent, as the layouts have it.
func shardSize(e core.Extent) int64 {
	if !e.Scheme.EC {
		return e.Size
	}
	stripe := int64(e.Unit * e.Scheme.K)
	tail := (e.Size%stripe + int64(e.Scheme.K) - 1) / int64(e.Scheme.K)
	return e.Size/stripe*int64(e.Unit) + (tail+63)/64*64
}
