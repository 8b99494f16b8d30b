package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/zeebo/xxh3"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/vfs"
)

// tailGuess is how much of a file's end is read at once: enough for all but
// the content of a shard of 24 MiB.
const tailGuess = 4 << 10

// Open implements [core.Store]. A shard whose footer, trailer or table is
// damaged fails with [core.ErrCorrupt]. The reader also implements [Section].
func (d *Disk) Open(ctx context.Context, id core.ShardID) (core.ShardReader, error) {
	if err := d.read(ctx); err != nil {
		return nil, err
	}
	defer d.leave()
	f, info, err := d.openShard(id)
	if err != nil {
		return nil, err
	}
	return &shardReader{ctx: ctx, d: d, f: f, id: id, size: info.footer.size, table: info.table}, nil
}

// shardInfo is what a shard's file says of itself.
type shardInfo struct {
	footer shardFooter
	meta   core.ShardMeta
	table  []byte
	age    int64
}

func (d *Disk) openShard(id core.ShardID) (f vfs.File, info shardInfo, err error) {
	f, err = d.fs.Open(d.shards.name(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, info, fmt.Errorf("disk %s: shard %s: %w", d.id.UUID, id, core.ErrNotFound)
	}
	if err != nil {
		return nil, info, fmt.Errorf("disk %s: shard %s: %w", d.id.UUID, id, err)
	}
	info, err = d.readShardInfo(f, id)
	if err == nil {
		return f, info, nil
	}
	if errors.Is(err, core.ErrCorrupt) {
		err = d.corrupt(id, -1, err.Error())
	} else {
		err = fmt.Errorf("disk %s: shard %s: %w", d.id.UUID, id, err)
	}
	return nil, info, errors.Join(err, f.Close())
}

func (d *Disk) corrupt(id core.ShardID, block int64, what string) error {
	d.corruptions.Add(1)
	return &CorruptError{Disk: d.id.UUID, Shard: id, Block: block, What: what}
}

// readShardInfo reads and verifies all but the content.
func (d *Disk) readShardInfo(f vfs.File, id core.ShardID) (info shardInfo, err error) {
	st, err := f.Stat()
	if err != nil {
		return info, err
	}
	length := st.Size()
	if length < footerSize {
		return info, fmt.Errorf("the file has %d bytes only: %w", length, core.ErrCorrupt)
	}
	info.age = max(int64(d.clock.Now().Sub(st.ModTime()).Seconds()), 0)
	end := make([]byte, min(tailGuess, length))
	if _, err := f.ReadAt(end, length-int64(len(end))); err != nil && !errors.Is(err, io.EOF) {
		return info, err
	}
	if info.footer, err = decodeFooter(end[len(end)-footerSize:], length); err != nil {
		return info, err
	}
	tail := make([]byte, info.footer.tailLength())
	if from := length - int64(len(end)); from <= info.footer.tailOffset() {
		copy(tail, end[info.footer.tailOffset()-from:])
	} else if _, err := f.ReadAt(tail, info.footer.tailOffset()); err != nil {
		return info, err
	}
	trailer := tail[len(tail)-info.footer.trailer:]
	info.table = tail[:len(tail)-len(trailer)]
	switch {
	case xxh3.Hash(trailer) != info.footer.trailerSum:
		return info, fmt.Errorf("trailer: checksum mismatch: %w", core.ErrCorrupt)
	case xxh3.Hash(info.table) != info.footer.tableSum:
		return info, fmt.Errorf("block table: checksum mismatch: %w", core.ErrCorrupt)
	}
	if info.meta, err = decodeTrailer(trailer); err != nil {
		return info, err
	}
	if info.meta.ID != id {
		return info, fmt.Errorf("the file holds shard %s: %w", info.meta.ID, core.ErrCorrupt)
	}
	return info, nil
}

// Section is an optional ability of a [core.ShardReader]: to give out the
// file itself, for sending it without reading it. Nothing is verified then.
type Section interface {
	// Section returns the file, which stays the reader's, and where in it
	// the whole content is. ok is false if there is no such file.
	Section() (f *os.File, off, n int64, ok bool)
}

// shardReader reads a shard.
type shardReader struct {
	ctx   context.Context //nolint:containedctx // it bounds the stream; see [core.Store]
	d     *Disk
	f     vfs.File
	id    core.ShardID
	size  int64
	table []byte

	closing sync.Once
	err     error
}

func (r *shardReader) Size() int64 { return r.size }

func (r *shardReader) Section() (*os.File, int64, int64, bool) {
	f := r.f.OSFile()
	return f, 0, r.size, f != nil
}

func (r *shardReader) Close() error {
	r.closing.Do(func() { r.err = r.f.Close() })
	return r.err
}

// ReadAt implements [core.ShardReader].
func (r *shardReader) ReadAt(ctx context.Context, p []byte, off int64) (n int, err error) {
	for _, c := range []context.Context{r.ctx, ctx} {
		if err := c.Err(); err != nil {
			return 0, err
		}
	}
	if off < 0 {
		return 0, fmt.Errorf("shard %s: offset %d: %w", r.id, off, core.ErrInvalid)
	}
	if off >= r.size {
		return 0, io.EOF
	}
	short := int64(len(p)) > r.size-off
	if short {
		p = p[:r.size-off]
	}
	for len(p) > 0 {
		k, err := r.readSome(p, off)
		n += k
		if err != nil {
			return n, err
		}
		p, off = p[k:], off+int64(k)
	}
	if short {
		return n, io.EOF
	}
	return n, nil
}

// readSome reads the beginning of p: the whole blocks in it at once and in
// place, or a part of one block through a buffer.
func (r *shardReader) readSome(p []byte, off int64) (int, error) {
	block := off / blockSize
	if off%blockSize == 0 {
		n := int64(len(p))
		if off+n < r.size {
			n -= n % blockSize
		}
		if n > 0 {
			return r.readBlocks(p[:n], block)
		}
	}
	buf := r.d.shards.blocks.Get().(*[blockSize]byte)
	defer r.d.shards.blocks.Put(buf)
	whole := buf[:min(r.size-block*blockSize, blockSize)]
	if _, err := r.readBlocks(whole, block); err != nil {
		return 0, err
	}
	return copy(p, whole[off-block*blockSize:]), nil
}

// readBlocks fills p with whole blocks and verifies them. It returns how many
// bytes are good.
func (r *shardReader) readBlocks(p []byte, block int64) (int, error) {
	n, err := r.f.ReadAt(p, block*blockSize)
	if n < len(p) {
		if err == nil || errors.Is(err, io.EOF) {
			return 0, r.d.corrupt(r.id, block, "the file is cut short")
		}
		return 0, fmt.Errorf("disk %s: shard %s: block %d: %w", r.d.id.UUID, r.id, block, err)
	}
	for good := 0; good < len(p); block++ {
		b := p[good:min(good+blockSize, len(p))]
		if xxh3.Hash(b) != binary.LittleEndian.Uint64(r.table[block*sumSize:]) {
			return good, r.d.corrupt(r.id, block, fmt.Sprintf("block %d: checksum mismatch", block))
		}
		good += len(b)
	}
	return len(p), nil
}
