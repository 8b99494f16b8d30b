package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"github.com/zeebo/xxh3"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/vfs"
)

// tailGuess is how much of a file's end is read at once: enough for all but
// the content of a shard of 24 MiB.
const tailGuess = 4 << 10

// Open implements [core.Store]. A shard whose footer, trailer or table is
// damaged fails with [core.ErrCorrupt]. The reader also implements
// [core.NowReader] and [core.Sectioner].
func (d *Disk) Open(ctx context.Context, id core.ShardID) (core.ShardReader, error) {
	if err := d.read(ctx); err != nil {
		return nil, err
	}
	defer d.leave()
	o := d.files.get(id, false)
	if o == nil {
		f, info, err := d.openShard(id)
		if err != nil {
			return nil, err
		}
		o = d.files.add(id, f, info)
	}
	return &shardReader{ctx: ctx, d: d, o: o}, nil
}

// OpenNow implements [core.NowOpener]: it opens a shard whose file is open
// already.
func (d *Disk) OpenNow(ctx context.Context, id core.ShardID) (core.ShardReader, bool) {
	if err := d.read(ctx); err != nil {
		return nil, false
	}
	defer d.leave()
	o := d.files.get(id, true)
	if o == nil {
		return nil, false
	}
	return &shardReader{ctx: ctx, d: d, o: o}, true
}

// shardInfo is what a shard's file says of itself.
type shardInfo struct {
	stat   fs.FileInfo
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
	info.stat = st
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

// shardReader reads a shard.
type shardReader struct {
	ctx context.Context //nolint:containedctx // it bounds the stream; see [core.Store]
	d   *Disk
	o   *openFile
	// own is a file of the reader's own, for its position, where that of the
	// shared one is in use; borrowed says that it has the shared one's.
	own      vfs.File
	borrowed bool

	closing sync.Once
	err     error
}

func (r *shardReader) Size() int64 { return r.o.size }

// Section implements [core.Sectioner]. A shard's content is at the front of
// its file.
func (r *shardReader) Section() (core.Section, bool) {
	if r.own == nil && !r.borrowed {
		if r.o.f.OSFile() == nil {
			return core.Section{}, false
		}
		if r.borrowed = r.d.files.lend(r.o); !r.borrowed {
			f, err := r.d.fs.Open(r.d.shards.name(r.o.id))
			if err != nil {
				return core.Section{}, false
			}
			r.own = f
		}
	}
	if r.own != nil {
		return core.Section{File: r.own.OSFile()}, true
	}
	return core.Section{File: r.o.f.OSFile()}, true
}

func (r *shardReader) Close() error {
	r.closing.Do(func() {
		if r.borrowed {
			r.d.files.giveBack(r.o)
		}
		if r.own != nil {
			r.err = r.own.Close()
		}
		r.err = errors.Join(r.err, r.d.files.put(r.o))
	})
	return r.err
}

// ReadNow implements [core.NowReader].
func (r *shardReader) ReadNow(p []byte, off int64) bool {
	if off < 0 || off > r.o.size || int64(len(p)) > r.o.size-off {
		return false
	}
	for len(p) > 0 {
		n, ok := r.someNow(p, off)
		if !ok {
			return false
		}
		p, off = p[n:], off+int64(n)
	}
	return true
}

// someNow is readSome without waiting.
func (r *shardReader) someNow(p []byte, off int64) (int, bool) {
	block := off / blockSize
	if n := r.wholeBlocks(off, len(p)); n > 0 {
		return n, r.blocksNow(p[:n], block)
	}
	buf := r.d.shards.blocks.Get().(*[blockSize]byte)
	defer r.d.shards.blocks.Put(buf)
	whole := buf[:min(r.o.size-block*blockSize, blockSize)]
	if !r.blocksNow(whole, block) {
		return 0, false
	}
	return copy(p, whole[off-block*blockSize:]), true
}

// blocksNow fills p with whole blocks. Damage is left for a reader that waits to
// find, and to tell.
func (r *shardReader) blocksNow(p []byte, block int64) bool {
	n, _ := r.o.f.ReadNow(p, block*blockSize)
	return n == len(p) && r.verify(p, block) == len(p)
}

// ReadAt implements [core.ShardReader].
func (r *shardReader) ReadAt(ctx context.Context, p []byte, off int64) (n int, err error) {
	for _, c := range []context.Context{r.ctx, ctx} {
		if err := c.Err(); err != nil {
			return 0, err
		}
	}
	if off < 0 {
		return 0, fmt.Errorf("shard %s: offset %d: %w", r.o.id, off, core.ErrInvalid)
	}
	if off >= r.o.size {
		return 0, io.EOF
	}
	short := int64(len(p)) > r.o.size-off
	if short {
		p = p[:r.o.size-off]
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

// wholeBlocks is how many of n bytes from off on are whole blocks that begin
// there.
func (r *shardReader) wholeBlocks(off int64, n int) int {
	if off%blockSize != 0 {
		return 0
	}
	if off+int64(n) < r.o.size {
		n -= n % blockSize
	}
	return n
}

// readSome reads the beginning of p: the whole blocks in it at once and in
// place, or a part of one block through a buffer.
func (r *shardReader) readSome(p []byte, off int64) (int, error) {
	block := off / blockSize
	if n := r.wholeBlocks(off, len(p)); n > 0 {
		return r.readBlocks(p[:n], block)
	}
	buf := r.d.shards.blocks.Get().(*[blockSize]byte)
	defer r.d.shards.blocks.Put(buf)
	whole := buf[:min(r.o.size-block*blockSize, blockSize)]
	if _, err := r.readBlocks(whole, block); err != nil {
		return 0, err
	}
	return copy(p, whole[off-block*blockSize:]), nil
}

// readBlocks fills p with whole blocks and verifies them. It returns how many
// bytes are good.
func (r *shardReader) readBlocks(p []byte, block int64) (int, error) {
	n, err := r.o.f.ReadAt(p, block*blockSize)
	if n < len(p) {
		if err == nil || errors.Is(err, io.EOF) {
			return 0, r.d.corrupt(r.o.id, block, "the file is cut short")
		}
		return 0, fmt.Errorf("disk %s: shard %s: block %d: %w", r.d.id.UUID, r.o.id, block, err)
	}
	if good := r.verify(p, block); good < len(p) {
		block += int64(good / blockSize)
		return good, r.d.corrupt(r.o.id, block, fmt.Sprintf("block %d: checksum mismatch", block))
	}
	return len(p), nil
}

// verify returns how many bytes of p, which are whole blocks, are good.
func (r *shardReader) verify(p []byte, block int64) int {
	for good := 0; good < len(p); block++ {
		b := p[good:min(good+blockSize, len(p))]
		if xxh3.Hash(b) != binary.LittleEndian.Uint64(r.o.table[block*sumSize:]) {
			return good
		}
		good += len(b)
	}
	return len(p)
}
