package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"unsafe"

	"github.com/zeebo/xxh3"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/vfs"
)

const (
	// chunkSize is how much of a shard is written at once.
	chunkSize = 1 << 20
	// pushEvery is how much of a shard that goes through the page cache may
	// wait there before it is pushed to the device.
	pushEvery = 8 << 20
	// tailRoom is what table, trailer and footer of a shard of one chunk
	// may need.
	tailRoom = 8 << 10
)

// Create implements [core.Store]. The id must be new: one that is there already
// makes Commit fail with [core.ErrExists].
func (d *Disk) Create(ctx context.Context, m core.ShardMeta, size int64) (core.ShardWriter, error) {
	if err := d.write(ctx); err != nil {
		return nil, err
	}
	defer d.leave()
	if len(m.Key) > maxTrailer-256 || m.Scheme.K > core.MaxData || m.Scheme.M > core.MaxData {
		return nil, fmt.Errorf("shard %s: key or scheme out of bounds: %w", m.ID, core.ErrInvalid)
	}
	if err := d.room(max(size, 0), 1); err != nil {
		return nil, err
	}
	d.sinceUsage.Add(-max(size, usageEvery/16)) // rows share the space
	return &shardWriter{ctx: ctx, d: d, meta: m, hint: size}, nil
}

// shardWriter writes one shard. Up to a chunk it keeps in memory, so that a
// small shard is one write.
type shardWriter struct {
	ctx  context.Context //nolint:containedctx // it bounds the stream; see [core.Store]
	d    *Disk
	meta core.ShardMeta
	hint int64

	f         vfs.File
	tmp       string
	direct    bool
	allocated int64
	pushed    int64

	buf   []byte // content that is not in the file; len is what is used
	chunk *[]byte
	size  int64 // bytes of content so far
	table []byte
	err   error
	done  bool
}

// Write implements [core.ShardWriter].
func (w *shardWriter) Write(p []byte) (int, error) {
	if err := w.check(w.ctx); err != nil {
		return 0, err
	}
	if err := w.d.write(w.ctx); err != nil {
		return 0, w.fail(err)
	}
	defer w.d.leave()
	total := len(p)
	for len(p) > 0 {
		n, err := w.take(p)
		if err != nil {
			return total - len(p), w.fail(err)
		}
		p = p[n:]
	}
	return total, nil
}

func (w *shardWriter) check(ctx context.Context) error {
	switch {
	case w.err != nil:
		return w.err
	case w.done:
		return fmt.Errorf("shard %s: write after its end: %w", w.meta.ID, fs.ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return w.fail(err)
	}
	return nil
}

// fail makes the first error final.
func (w *shardWriter) fail(err error) error {
	if w.err == nil {
		w.err = fmt.Errorf("disk %s: shard %s: %w", w.d.id.UUID, w.meta.ID, err)
	}
	return w.err
}

// take uses the beginning of p: whole chunks go from the caller's memory to
// the device, the rest is gathered.
func (w *shardWriter) take(p []byte) (int, error) {
	if len(w.buf) == 0 && len(p) >= chunkSize && (!w.goesDirect() || isAligned(p)) {
		n := len(p) / chunkSize * chunkSize
		w.size += int64(n)
		return n, w.flush(p[:n])
	}
	w.grow(len(p))
	n := copy(w.buf[len(w.buf):min(cap(w.buf), chunkSize)], p)
	w.buf = w.buf[:len(w.buf)+n]
	w.size += int64(n)
	if len(w.buf) < chunkSize {
		return n, nil
	}
	if err := w.flush(w.buf); err != nil {
		return n, err
	}
	w.buf = w.buf[:0]
	return n, nil
}

// grow makes room for at least one more byte. A shard that is known to be
// small, or turns out to be, does not get a whole chunk.
func (w *shardWriter) grow(n int) {
	if cap(w.buf) > len(w.buf) {
		return
	}
	want := max(len(w.buf)+n, 2*len(w.buf), 4<<10)
	if w.hint > 0 && w.hint < chunkSize {
		want = max(want, int(w.hint))
	}
	if want+tailRoom < chunkSize/2 {
		w.buf = append(make([]byte, 0, want), w.buf...)
		return
	}
	w.chunk = w.d.shards.chunk()
	w.buf = append((*w.chunk)[:0], w.buf...)
}

func (w *shardWriter) goesDirect() bool {
	from := w.d.opt.DirectFrom
	if w.f != nil {
		return w.direct
	}
	return from >= 0 && !w.d.shards.noDirect.Load() && max(w.hint, w.size) >= from
}

// begin makes the file.
func (w *shardWriter) begin() error {
	w.direct = w.goesDirect()
	w.tmp = w.d.shards.tmpName(w.meta.ID)
	err := errors.ErrUnsupported
	if w.direct {
		w.f, err = w.d.fs.CreateDirect(w.tmp)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		if w.direct {
			w.d.shards.noDirect.Store(true)
			w.direct = false
		}
		w.f, err = w.d.fs.Create(w.tmp)
	}
	if err != nil {
		w.f = nil
		return w.d.writeError(err)
	}
	if w.hint >= chunkSize {
		f := shardFooter{size: w.hint, trailer: len(appendTrailer(nil, &w.meta))}
		if err := w.f.Allocate(0, f.fileLength()); err != nil {
			return w.d.writeError(err)
		}
		w.allocated = f.fileLength()
	}
	return nil
}

// flush writes whole blocks behind what is in the file.
func (w *shardWriter) flush(b []byte) error {
	if w.f == nil {
		if err := w.begin(); err != nil {
			return err
		}
	}
	off := int64(len(w.table)/sumSize) * blockSize
	w.sum(b)
	if _, err := w.f.WriteAt(b, off); err != nil {
		return w.d.writeError(err)
	}
	if end := off + int64(len(b)); !w.direct && end-w.pushed >= pushEvery {
		if err := w.f.StartSync(w.pushed, end-w.pushed); err != nil {
			return w.d.writeError(err)
		}
		w.pushed = end
	}
	return nil
}

// sum adds the blocks of b to the table.
func (w *shardWriter) sum(b []byte) {
	if w.table == nil && w.hint > 0 {
		w.table = make([]byte, 0, min(blocks(w.hint)*sumSize, 1<<20))
	}
	for len(b) > 0 {
		n := min(len(b), blockSize)
		w.table = binary.LittleEndian.AppendUint64(w.table, xxh3.Hash(b[:n]))
		b = b[n:]
	}
}

// Commit implements [core.ShardWriter].
func (w *shardWriter) Commit(ctx context.Context) error {
	if err := w.check(ctx); err != nil {
		return err
	}
	if err := w.d.write(ctx); err != nil {
		return w.fail(err)
	}
	defer w.d.leave()
	length, err := w.finish()
	if err == nil {
		err = w.d.shards.publish(w.tmp, w.meta.ID, length)
	}
	if err != nil {
		return w.fail(err)
	}
	w.done = true
	w.free()
	return nil
}

// finish makes the file whole and durable.
func (w *shardWriter) finish() (length int64, err error) {
	if w.f == nil {
		if err := w.begin(); err != nil {
			return 0, err
		}
	}
	off := int64(len(w.table)/sumSize) * blockSize
	w.sum(w.buf)
	tail, length := w.tail()
	if _, err := w.f.WriteAt(tail, off); err != nil {
		return 0, w.d.writeError(err)
	}
	if w.allocated > length {
		if err := w.f.Truncate(length); err != nil {
			return 0, w.d.writeError(err)
		}
	}
	if err := w.f.SyncData(); err != nil {
		return 0, w.d.writeError(err)
	}
	err = w.f.Close()
	w.f = nil
	if err != nil {
		return 0, w.d.writeError(err)
	}
	return length, nil
}

// tail is what is left to write: content that is not in the file yet, the
// table, the trailer and the footer.
func (w *shardWriter) tail() (tail []byte, length int64) {
	rest := len(w.buf)
	trailer := appendTrailer(nil, &w.meta)
	f := shardFooter{
		size: w.size, trailer: len(trailer),
		tableSum: xxh3.Hash(w.table), trailerSum: xxh3.Hash(trailer),
	}
	length = f.fileLength()
	n := int(length-w.size) + rest
	b := w.buf
	switch {
	case n <= cap(b) && (!w.direct || isAligned(b[:1])):
	case w.direct:
		b = append(alignedBuffer(n)[:0], b...)
	default:
		b = slices.Grow(b, n-rest)
	}
	b = append(append(b, w.table...), trailer...)
	b = append(b, make([]byte, n-footerSize-len(b))...)
	return f.append(b), length
}

// Close implements [core.ShardWriter]. It is not an error to close a writer of
// a disk that has failed.
func (w *shardWriter) Close() error {
	defer w.free()
	if w.done {
		return nil
	}
	w.done = true
	if w.f != nil {
		err := w.f.Close()
		w.f = nil
		if err != nil {
			return w.d.writeError(err)
		}
	}
	if w.tmp == "" {
		return nil
	}
	if err := w.d.gate.enter(); err != nil {
		return nil // what lies in tmp goes when the disk is opened next
	}
	defer w.d.leave()
	return w.d.shards.discard(w.tmp)
}

func (w *shardWriter) free() {
	if w.chunk != nil {
		w.d.shards.chunks.Put(w.chunk)
		w.chunk = nil
	}
	w.buf, w.table = nil, nil
}

func isAligned(b []byte) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(b)))%vfs.Alignment == 0 //nolint:gosec // only the address matters
}

// alignedBuffer returns n bytes at an address that a direct write may use.
func alignedBuffer(n int) []byte {
	b := make([]byte, n+vfs.Alignment)
	skip := 0
	if over := int(uintptr(unsafe.Pointer(unsafe.SliceData(b))) % vfs.Alignment); over != 0 { //nolint:gosec // as above
		skip = vfs.Alignment - over
	}
	return b[skip : skip+n : skip+n]
}

// writeError turns an error of a write into what a caller gets to see. All but
// a lack of space and a name that is taken end the disk.
func (d *Disk) writeError(err error) error {
	switch {
	case isNoSpace(err):
		return fmt.Errorf("%w: %w", core.ErrNoSpace, err)
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%w: %w", core.ErrExists, err)
	case errors.Is(err, core.ErrDiskFailed):
		return err
	}
	d.fail.fail(err)
	return d.fail.err()
}
