package peer

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/shoalstore/shoal/core"
)

// writeStream is the writing end of a stream to another node. Small writes are
// gathered in buf, as frames; large ones go out from where they are.
type writeStream struct {
	sc      *streamConn
	release func() bool // ends the guard of the opening ctx

	pack    *[]byte // where buf came from
	buf     []byte  // whole frames but for the length of the last
	data    int     // where in buf the last frame begins, if it is a data frame; else -1
	flushed bool    // something was sent
	closed  bool
	err     error // why the stream cannot go on
	refused bool  // err is the other node's answer

	ending atomic.Bool   // the commit is being sent
	ready  chan struct{} // closed by the receiver when the opening is confirmed
	result chan result   // the other node's last word, or the loss of it
}

type result struct {
	reply  []byte
	failed *remoteError // the other node's error
	lost   error        // the connection's
}

func newWriteStream(ctx context.Context, sc *streamConn, o openWrite) *writeStream {
	w := &writeStream{
		sc: sc, data: -1,
		pack:   sc.c.t.packs.get(),
		ready:  make(chan struct{}),
		result: make(chan result, 1),
	}
	w.buf = o.append((*w.pack)[:0])
	w.release = sc.guard(ctx)
	if err := sc.attach(w); err != nil {
		w.err = w.fault(err)
	}
	return w
}

func (w *writeStream) fault(cause error) error {
	return w.sc.c.r.lost("write to", cause, !w.flushed)
}

// frame is for the receiver.
func (w *writeStream) frame(t frameType, n int) error {
	c := w.sc.c
	switch t {
	case frameReady:
		select {
		case <-w.ready:
			return unexpected(t, c.kind)
		default:
			close(w.ready)
		}
		_, err := c.br.Discard(n)
		return err
	case frameDone:
		if !w.ending.Load() {
			return fmt.Errorf("%w: a stream is done before its end", errProtocol)
		}
		reply, err := c.body(n)
		if err != nil {
			return err
		}
		w.sc.detach()
		w.result <- result{reply: reply}
		return nil
	case frameFailed:
		failed, err := c.errorBody(n)
		if err != nil {
			return err
		}
		w.sc.detach()
		w.result <- result{failed: failed}
		return nil
	}
	return unexpected(t, c.kind)
}

// lost is for the receiver.
func (w *writeStream) lost(why error) { w.result <- result{lost: why} }

// confirmed sends the opening and waits until it is accepted.
func (w *writeStream) confirmed() error {
	if err := w.flush(); err != nil {
		return err
	}
	select {
	case <-w.ready:
		return nil
	case r := <-w.result:
		return w.settle(r)
	}
}

// settle makes the other node's last word the stream's error.
func (w *writeStream) settle(r result) error {
	switch {
	case r.lost != nil:
		w.err = w.fault(r.lost)
	case r.failed != nil:
		w.err, w.refused = r.failed, true
	}
	return w.err
}

// check returns why the stream cannot go on, if so.
func (w *writeStream) check() error {
	if w.err != nil {
		return w.err
	}
	if w.closed {
		return fmt.Errorf("write to a closed stream: %w", core.ErrInvalid)
	}
	select {
	case r := <-w.result:
		return w.settle(r)
	default:
		return nil
	}
}

// Write gathers or sends bytes.
func (w *writeStream) Write(p []byte) (int, error) {
	if err := w.check(); err != nil {
		return 0, err
	}
	if len(p) == 0 || w.gather(p) {
		return len(p), nil
	}
	n := 0
	for n < len(p) {
		chunk := p[n:min(n+maxChunk, len(p))]
		var head [frameHead]byte
		putHead(head[:], frameData, len(chunk))
		if err := w.flush(head[:], chunk); err != nil {
			return n, err
		}
		n += len(chunk)
	}
	return n, nil
}

// gather adds bytes to the buffer if they fit.
func (w *writeStream) gather(p []byte) bool {
	need := len(p)
	if w.data < 0 {
		need += frameHead
	}
	if len(w.buf)+need > cap(w.buf) {
		return false
	}
	if w.data < 0 {
		w.data = len(w.buf)
		w.buf = appendHead(w.buf, frameData, 0)
	}
	w.buf = append(w.buf, p...)
	return true
}

// flush sends what was gathered, and then whole frames of the caller's.
func (w *writeStream) flush(frames ...[]byte) error {
	if w.err != nil {
		return w.err
	}
	c := w.sc.c
	if w.data >= 0 {
		putHead(w.buf[w.data:], frameData, len(w.buf)-w.data-frameHead)
		w.data = -1
	}
	if !w.flushed {
		w.flushed = true
		c.setActive(true)
	}
	parts := frames
	if len(w.buf) > 0 {
		parts = append([][]byte{w.buf}, frames...)
	}
	err := c.send(parts...)
	w.buf = w.buf[:0]
	if err != nil {
		w.err = w.fault(err)
	}
	return w.err
}

// Commit sends the rest and waits for the reply.
func (w *writeStream) Commit(ctx context.Context) ([]byte, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	release := w.sc.guard(ctx)
	var head [frameHead]byte
	putHead(head[:], frameCommit, 0)
	w.ending.Store(true)
	err := w.flush(head[:])
	var reply []byte
	if err == nil {
		r := <-w.result
		err = w.settle(r)
		reply = r.reply
	}
	kept := release()
	w.finish(kept && (err == nil || w.refused))
	return reply, err
}

// Close aborts the stream unless it was committed.
func (w *writeStream) Close() error {
	if w.closed {
		return nil
	}
	if w.err == nil {
		_ = w.check() // it may have been refused by now
	}
	switch {
	case w.refused:
		// The other node waits for the end, which leaves the connection clean.
		var head [frameHead]byte
		putHead(head[:], frameAbort, 0)
		w.finish(w.sc.c.send(head[:]) == nil)
	case !w.flushed && w.err == nil:
		w.sc.detach()
		w.finish(true)
	default:
		w.finish(false)
	}
	return nil
}

// finish gives the connection back; clean says that it can be used again.
func (w *writeStream) finish(clean bool) {
	w.closed = true
	if w.pack != nil {
		w.sc.c.t.packs.put(w.pack)
		w.pack, w.buf = nil, nil
	}
	kept := w.release()
	p := &w.sc.c.r.pool
	if clean && kept {
		p.put(w.sc)
	} else {
		p.drop(w.sc, errAborted)
	}
}
