package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalstore/shoal/core"
)

// errSilent ends an attempt whose endpoint has stopped moving bytes.
var errSilent = errors.New("the node does not move")

// guard cancels an attempt in which nothing has moved for some time. A frozen
// node keeps its connections, so no other error would come.
type guard struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	last   atomic.Int64 // core.Instant of the last movement
	clock  core.Clock
	done   chan struct{}
}

func newGuard(ctx context.Context, clock core.Clock, silence time.Duration) *guard {
	g := &guard{clock: clock, done: make(chan struct{})}
	g.ctx, g.cancel = context.WithCancelCause(ctx)
	g.moved()
	go g.watch(silence)
	return g
}

func (g *guard) watch(silence time.Duration) {
	defer close(g.done)
	for {
		rest := silence - g.clock.Boot().Sub(core.Instant(g.last.Load()))
		if rest <= 0 {
			g.cancel(fmt.Errorf("%w: silent for %s", errSilent, silence))
			return
		}
		if g.clock.Wait(g.ctx, rest) != nil {
			return
		}
	}
}

// moved says that bytes have passed.
func (g *guard) moved() { g.last.Store(int64(g.clock.Boot())) }

// stop ends the guard and waits for it.
func (g *guard) stop() {
	g.cancel(context.Canceled)
	<-g.done
}

// why replaces the error of an attempt that the guard cancelled by the reason.
func (g *guard) why(err error) error {
	if cause := context.Cause(g.ctx); cause != nil && errors.Is(cause, errSilent) {
		return cause
	}
	return err
}

// guardedReader tells the guard of every byte.
type guardedReader struct {
	r io.Reader
	g *guard
}

func (r guardedReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if n > 0 {
		r.g.moved()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = r.g.why(err)
	}
	return n, err
}

// guardedBody is the body of an answer; closing it ends the guard.
type guardedBody struct {
	guardedReader
	body io.Closer
}

func (b guardedBody) Close() error {
	err := b.body.Close()
	b.g.stop()
	return err
}

// requestBody is the body of one attempt. A transport may go on reading it after
// it has returned, so it can be cut off from the data.
type requestBody struct {
	g        *guard
	progress func(int64) // may be nil

	mu   sync.Mutex
	data []byte
	off  int
	gone bool
}

func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone {
		return 0, errors.New("the attempt is over")
	}
	if b.off == len(b.data) {
		return 0, io.EOF
	}
	n := copy(p, b.data[b.off:])
	b.off += n
	b.g.moved()
	if b.progress != nil {
		b.progress(int64(n))
	}
	return n, nil
}

// Close does nothing: a transport that sends the body again goes on with it.
func (b *requestBody) Close() error { return nil }

// again rewinds the body for a transport that starts anew on a fresh
// connection, having sent nothing that counts.
func (b *requestBody) again() io.ReadCloser {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rewind()
	return b
}

func (b *requestBody) rewind() {
	if b.progress != nil {
		b.progress(int64(-b.off))
	}
	b.off = 0
}

// detach ends the reading; undo takes back what progress was told.
func (b *requestBody) detach(undo bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if undo {
		b.rewind()
	}
	b.gone = true
	b.data = nil
}
