package engine

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/shoalstore/shoal/core"
)

// extentsBody reads a run of bytes that spans extents. The first extent is open
// from the start, each further one is opened when its turn comes.
type extentsBody struct {
	node   *Node
	ctx    context.Context //nolint:containedctx // bounds the open streams, as core.Store says
	bucket core.BucketID
	key    string
	rest   []piece
	// sendFile says that files may be sent unverified.
	sendFile bool

	reader core.ExtentReader
	body   io.ReadCloser
	now    piece // that body reads
	begun  bool  // bytes of it were read
	err    error
}

// piece is the part of an extent that is to be read.
type piece struct {
	extent *core.Extent
	off, n int64
}

// openExtents opens the bytes from start on.
func (n *Node) openExtents(ctx context.Context, b core.BucketID, key string, es []core.Extent, start, length int64, sendFile bool) (io.ReadCloser, error) {
	body := &extentsBody{node: n, ctx: ctx, bucket: b, key: key, rest: pieces(es, start, length), sendFile: sendFile}
	if err := body.next(); err != nil {
		return nil, err
	}
	return body, nil
}

func pieces(es []core.Extent, start, length int64) []piece {
	var out []piece
	for i := range es {
		e := &es[i]
		if start >= e.Size {
			start -= e.Size
			continue
		}
		k := min(e.Size-start, length)
		if k <= 0 {
			break
		}
		out = append(out, piece{e, start, k})
		start, length = 0, length-k
	}
	return out
}

// next opens the next extent; io.EOF after the last.
func (b *extentsBody) next() error {
	b.closeCurrent()
	if len(b.rest) == 0 {
		return io.EOF
	}
	p := b.rest[0]
	b.rest = b.rest[1:]
	n := b.node
	m := n.driver.effect.Load()
	var err error
	b.reader, err = n.coder(p.extent.Scheme).Open(b.ctx, core.ReadSpec{
		Extent: *p.extent, Src: n.sources(m, p.extent), OnFault: n.faults(b.bucket, b.key, p.extent),
	})
	if err != nil {
		return err
	}
	b.body = b.reader.Reader(b.ctx, p.off, p.n)
	b.now, b.begun = p, false
	return nil
}

func (b *extentsBody) closeCurrent() {
	if b.body != nil {
		_ = b.body.Close()
		_ = b.reader.Close()
		b.body, b.reader = nil, nil
	}
}

// Read is part of io.Reader.
func (b *extentsBody) Read(p []byte) (int, error) {
	for b.err == nil {
		b.begun = true
		k, err := b.body.Read(p)
		if errors.Is(err, io.EOF) {
			err = b.next()
		}
		b.err = err
		if k > 0 {
			return k, nil
		}
	}
	return 0, b.err
}

// WriteTo is part of io.WriterTo.
func (b *extentsBody) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for b.err == nil {
		k, err := b.writePiece(w)
		total += k
		if err == nil {
			err = b.next()
		}
		b.err = err
	}
	if errors.Is(b.err, io.EOF) {
		return total, nil
	}
	return total, b.err
}

// writePiece writes the rest of the present extent's piece.
func (b *extentsBody) writePiece(w io.Writer) (int64, error) {
	to, ok := w.(io.ReaderFrom)
	sec, file := b.reader.(core.Sectioner)
	if !ok || !file || !b.sendFile || b.begun {
		return io.Copy(w, b.body)
	}
	s, ok := sec.Section()
	if ok {
		_, err := s.File.Seek(s.Off+b.now.off, io.SeekStart)
		ok = err == nil
	}
	if !ok {
		return io.Copy(w, b.body)
	}
	k, err := to.ReadFrom(&io.LimitedReader{R: s.File, N: b.now.n})
	b.node.sent.Add(k)
	if err == nil && k < b.now.n {
		b.node.healLater(b.bucket, b.key)
		err = fmt.Errorf("object %q: a file ends %d bytes early: %w", b.key, b.now.n-k, core.ErrCorrupt)
	}
	return k, err
}

// Close is part of io.Closer.
func (b *extentsBody) Close() error {
	b.closeCurrent()
	if b.err == nil {
		b.err = fmt.Errorf("object %q: read after close: %w", b.key, core.ErrInvalid)
	}
	return nil
}

// faults has damaged and missing shards of an extent repaired.
func (n *Node) faults(b core.BucketID, key string, e *core.Extent) func(int, error) {
	return func(shard int, err error) {
		n.health.shardFailed(e.Places[shard].Disk, err)
		if errors.Is(err, core.ErrCorrupt) || errors.Is(err, core.ErrNotFound) {
			n.log.Warn("shard is damaged or gone", "bucket", b, "key", key, "shard", shard, "disk", e.Places[shard].Disk, "err", err)
			n.healLater(b, key)
		}
	}
}
