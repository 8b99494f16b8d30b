package peer

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/shoalstore/shoal/core"
)

// WriteStream takes a stream of bytes. Its methods are for one goroutine.
type WriteStream interface {
	// Write takes bytes; it does not keep p. An error may concern bytes that
	// were written before, and is final.
	io.Writer
	// Commit ends the stream and returns the reply of who took it. After an
	// error of the connection or of ctx the outcome is unknown.
	Commit(ctx context.Context) (reply []byte, err error)
	// Close must be called at last; without Commit it aborts the stream.
	io.Closer
}

// ReadStream reads ranges of a source.
type ReadStream interface {
	// Meta is what the source says of itself, at most MaxHeader bytes.
	Meta() []byte
	// ReadAt has io.ReaderAt's contract and may be called concurrently.
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
	// Close must be called at last. Reads under way fail.
	io.Closer
}

// Sectioner is what a ReadStream of a [StreamHandler] may also be, to have bytes
// sent straight from a file.
type Sectioner interface {
	// Section returns a file and the place in it of m bytes of the source, from
	// off on; m is n, or fewer where the source ends, then eof is set. The
	// file must stay open until the stream is closed. If ok is false, or
	// the connection is encrypted, ReadAt is used.
	Section(off int64, n int) (f *os.File, at int64, m int, eof, ok bool)
}

// StreamHandler serves streams that other nodes open. Errors arrive there with
// their text, and match the sentinels of package core that they match here.
type StreamHandler interface {
	// OpenWrite begins to take a stream. ctx bounds the stream, which is
	// always closed. If the other node is lost or gives up there is no Commit.
	// If the stream has ReadFrom (see io.ReaderFrom) that is used.
	OpenWrite(ctx context.Context, from core.NodeID, header []byte) (WriteStream, error)
	// OpenRead opens a source. ctx bounds it, and it is always closed.
	OpenRead(ctx context.Context, from core.NodeID, header []byte) (ReadStream, error)
}

// HandleStream registers who serves the streams of a service.
func (t *Transport) HandleStream(service uint16, h StreamHandler) {
	t.register(fmt.Sprintf("service %d", service), t.services[service] != nil || service >= FirstReserved)
	t.services[service] = h
}

func (t *Transport) service(id uint16) (StreamHandler, error) {
	if h := t.services[id]; h != nil {
		return h, nil
	}
	return nil, fmt.Errorf("service %d is not known to node %s, which may be of an older version: %w: %w",
		id, t.o.Self, core.ErrInvalid, ErrNotSent)
}

// Range is bytes Off to Off+Len-1.
type Range struct {
	Off int64
	Len int
}

// OpenWrite opens a stream to a service of another node. If confirm is set it waits until the service has accepted the header.
// Otherwise nothing is sent before a buffer is full or the stream ends: a small
// stream costs one round trip in all, and refusals are seen later. ctx bounds
// the stream. Errors are as with [Transport.Call].
func (t *Transport) OpenWrite(ctx context.Context, to core.NodeID, service uint16, header []byte, confirm bool) (WriteStream, error) {
	r := t.remote(to)
	if err := t.mayOpen(ctx, r, header); err != nil {
		return nil, err
	}
	if to == t.o.Self {
		h, err := t.service(service)
		if err != nil {
			return nil, err
		}
		return h.OpenWrite(ctx, to, header)
	}
	sc, err := r.pool.get(ctx)
	if err != nil {
		return nil, r.lost("open a stream to", err, true)
	}
	r.streamsOpened.Add(1)
	w := newWriteStream(ctx, sc, openWrite{service, confirm, header})
	if confirm {
		if err := w.confirmed(); err != nil {
			_ = w.Close()
			return nil, err
		}
	}
	return w, nil
}

// OpenRead opens a source of another node's. The first range, which may be empty
// and has at most 256 KiB, is fetched along with the answer, and later reads of
// it are served from memory. ctx bounds the stream. Errors are as with
// [Transport.Call].
func (t *Transport) OpenRead(ctx context.Context, to core.NodeID, service uint16, header []byte, first Range) (ReadStream, error) {
	r := t.remote(to)
	if err := t.mayOpen(ctx, r, header); err != nil {
		return nil, err
	}
	if first.Off < 0 || first.Len < 0 || first.Len > maxFirst {
		return nil, fmt.Errorf("open a stream from node %s: first range of %d bytes at %d: %w", to, first.Len, first.Off, core.ErrInvalid)
	}
	if to == t.o.Self {
		h, err := t.service(service)
		if err != nil {
			return nil, err
		}
		return h.OpenRead(ctx, to, header)
	}
	sc, err := r.pool.get(ctx)
	if err != nil {
		return nil, r.lost("open a stream from", err, true)
	}
	r.streamsOpened.Add(1)
	s, err := openReadStream(ctx, sc, openRead{service, first, header})
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (t *Transport) mayOpen(ctx context.Context, r *remote, header []byte) error {
	const op = "open a stream with"
	if len(header) > MaxHeader {
		return fmt.Errorf("%s node %s: header of %d bytes, the limit is %d: %w", op, r.id, len(header), MaxHeader, core.ErrTooLarge)
	}
	if !t.running() {
		return r.lost(op, errStopped, true)
	}
	if err := ctx.Err(); err != nil {
		return r.lost(op, err, true)
	}
	return nil
}

// streamConn is the dialling end of a connection for streams. It carries one
// exchange at a time. Its receiver is the only one to read.
type streamConn struct {
	c *conn

	mu     sync.Mutex
	ex     exchange
	broken bool
}

// exchange is a stream's end of the connection. Both methods are called by the
// connection's receiver, lost at most once and as the last.
type exchange interface {
	// frame takes a frame with n bytes, of which it reads all.
	frame(t frameType, n int) error
	// lost says that the connection has ended.
	lost(why error)
}

// attach begins an exchange.
func (sc *streamConn) attach(ex exchange) error {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	if sc.broken {
		return sc.c.why
	}
	sc.ex = ex
	return nil
}

// detach ends the exchange: nothing more will come for it.
func (sc *streamConn) detach() {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	sc.ex = nil
}

// receive reads until the connection ends.
func (sc *streamConn) receive() {
	c := sc.c
	for {
		f, n, err := c.next()
		if err == nil {
			sc.mu.Lock()
			ex := sc.ex
			sc.mu.Unlock()
			if ex == nil {
				err = unexpected(f, c.kind)
			} else {
				err = ex.frame(f, n)
			}
		}
		if err != nil {
			c.fail(err)
			break
		}
	}
	c.r.pool.remove(c)
	sc.mu.Lock()
	sc.broken = true
	ex := sc.ex
	sc.ex = nil
	sc.mu.Unlock()
	if ex != nil {
		ex.lost(c.why)
	}
}

// guard ends the connection when ctx ends. release returns false if it did.
func (sc *streamConn) guard(ctx context.Context) (release func() bool) {
	return context.AfterFunc(ctx, func() { sc.c.fail(ctx.Err()) })
}
