package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/shoalstore/shoal/core"
)

// maxReopens is how often in a row a body is gone on with without having brought
// progress bytes.
const (
	maxReopens = 5
	progress   = 1 << 20
)

// Get implements [core.Backend]. A body that stalls or breaks off is opened again
// from where it was, under the same version. One that turns out to be longer than
// the object is [core.ErrCorrupt]. Until it is closed, or has come to its end, it
// counts as a request under way.
func (c *Client) Get(ctx context.Context, bucket, key string, o core.RemoteGet) (core.RemoteObject, io.ReadCloser, error) {
	b := &body{c: c, bucket: bucket, key: key, ctx: ctx}
	obj, err := b.open(o)
	if err != nil {
		return core.RemoteObject{}, nil, err
	}
	b.object, b.offset = obj, o.Offset
	b.left = obj.Size - o.Offset
	if o.Length >= 0 {
		b.left = min(b.left, o.Length)
	}
	if b.left < 0 {
		b.shut()
		return core.RemoteObject{}, nil, fmt.Errorf("get %s: the remote sends bytes from %d on of an object of %d: %w", key, o.Offset, obj.Size, core.ErrCorrupt)
	}
	return obj, b, nil
}

// body is the body of an object, through as many requests as it takes.
type body struct {
	c           *Client
	bucket, key string
	ctx         context.Context // that of Get bounds the body, too
	object      core.RemoteObject
	offset      int64 // of the next byte
	left        int64 // bytes to come

	src     io.ReadCloser
	turn    *turn
	cancel  context.CancelCauseFunc
	open1   context.Context // of src
	timer   *time.Timer
	reopens int
	since   int64 // bytes since src was opened
	ended   error
}

// open makes the request for what is asked for.
func (b *body) open(o core.RemoteGet) (obj core.RemoteObject, err error) {
	err = b.c.do(b.ctx, OpGet, harmless, func(ctx context.Context, t *turn) (bool, error) {
		ctx, cancel := context.WithCancelCause(ctx)
		timer := time.AfterFunc(silence, func() { cancel(errSilent) })
		var src io.ReadCloser
		obj, src, err = b.c.backend.Get(ctx, b.bucket, b.key, o)
		timer.Stop()
		if err != nil {
			if errors.Is(context.Cause(ctx), errSilent) {
				err = fmt.Errorf("%w: %w", errSilent, err)
			}
			cancel(nil)
			return false, err
		}
		b.src, b.turn, b.cancel, b.open1 = src, t, cancel, ctx
		b.timer = time.AfterFunc(stall, func() { cancel(errStalled) })
		b.timer.Stop()
		b.since = 0
		return true, nil
	})
	return obj, err
}

// shut ends the present request.
func (b *body) shut() {
	if b.src == nil {
		return
	}
	b.timer.Stop()
	b.cancel(nil)
	b.src.Close()
	b.turn.end()
	b.src = nil
}

// Close ends the body.
func (b *body) Close() error {
	b.shut()
	if b.ended == nil {
		b.ended = errClosed
	}
	return nil
}

var errClosed = errors.New("the body was closed")

func (b *body) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, b.ended
	}
	for b.ended == nil {
		n, err := b.once(p)
		if n > 0 {
			return n, nil
		}
		if err != nil {
			b.ended = err
			b.shut()
		}
	}
	return 0, b.ended
}

// once reads once. Neither bytes nor an error mean that it is to be tried again.
func (b *body) once(p []byte) (int, error) {
	last := b.left == 0
	if last {
		p = make([]byte, 1) // there must be nothing more
	}
	b.timer.Reset(stall)
	n, err := b.src.Read(p[:min(int64(len(p)), max(b.left, 1))])
	b.timer.Stop()
	switch {
	case last && n > 0:
		return 0, fmt.Errorf("get %s: the body is longer than the object's %d bytes: %w", b.key, b.object.Size, core.ErrCorrupt)
	case last && err != nil:
		return 0, io.EOF // all is here, whatever the connection says
	case last:
		return 0, nil
	case n > 0:
		b.offset += int64(n)
		b.left -= int64(n)
		b.since += int64(n)
		b.turn.t.bytesIn(n)
		return n, nil
	case err == nil:
		return 0, nil
	case b.ctx.Err() != nil:
		return 0, fmt.Errorf("get %s: %w: %w", b.key, err, context.Cause(b.ctx))
	}
	return 0, b.again(err)
}

// again goes on with a body that broke off.
func (b *body) again(why error) error {
	switch {
	case errors.Is(context.Cause(b.open1), errStalled):
		why = errStalled
	case errors.Is(why, io.EOF):
		why = fmt.Errorf("the body ended %d bytes early: %w", b.left, io.ErrUnexpectedEOF)
	}
	why = fmt.Errorf("get %s: after %d of %d bytes: %w", b.key, b.offset, b.object.Size, why)
	if b.since >= progress {
		b.reopens = 0
	}
	b.turn.t.failed(why)
	b.shut()
	if b.reopens++; b.reopens > maxReopens {
		return fmt.Errorf("%w: %d times in a row: %w", core.ErrUnavailable, b.reopens, why)
	}
	obj, err := b.open(core.RemoteGet{Offset: b.offset, Length: b.left, Version: b.object.Version})
	if err != nil {
		return fmt.Errorf("%w; before that: %w", err, why)
	}
	if was := &b.object; obj.Version != was.Version || obj.Size != was.Size || obj.ETag != was.ETag ||
		obj.Version == "" && !obj.Modified.Equal(was.Modified) {
		return fmt.Errorf("get %s: the object was changed while it was read: %w", b.key, core.ErrPrecondition)
	}
	return nil
}

// sending is do for a request with a body: it counts the bytes and holds the body to
// its length. Where that does not keep to it the remote cannot have taken it.
func (c *Client) sending(ctx context.Context, op Op, e effect, o *core.RemotePut, request func(context.Context, core.RemotePut) error) error {
	return c.do(ctx, op, e, func(ctx context.Context, t *turn) (bool, error) {
		put := *o
		var broken atomic.Pointer[error]
		if o.Open != nil {
			put.Open = func(ctx context.Context) (io.ReadCloser, error) {
				broken.Store(nil)
				src, err := o.Open(context.WithValue(ctx, insideKey{c}, true))
				if err != nil {
					broken.Store(&err)
					return nil, err
				}
				return &sent{src: src, left: o.Size, size: o.Size, t: t.t, broken: &broken}, nil
			}
		}
		err := request(ctx, put)
		if why := broken.Load(); err != nil && why != nil && ctx.Err() == nil {
			err = fmt.Errorf("reading what was to be sent: %w: %w", core.ErrUnavailable, *why)
		}
		return false, err
	})
}

// sent is a body on its way out. Its last bytes are only given away once the source
// has ended with them, so that a longer one is not taken for whole.
type sent struct {
	src        io.ReadCloser
	left, size int64
	t          tally
	broken     *atomic.Pointer[error]
}

func (s *sent) Close() error { return s.src.Close() }

func (s *sent) Read(p []byte) (int, error) {
	if s.left == 0 && s.size > 0 {
		return 0, io.EOF
	}
	n, err := s.src.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	switch {
	case s.left == 0 && (err == nil || errors.Is(err, io.EOF)):
		err = s.probe(err)
	case errors.Is(err, io.EOF):
		err = fmt.Errorf("the body ended after %d of %d bytes: %w", s.size-s.left, s.size, io.ErrUnexpectedEOF)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		s.broken.Store(&err)
		return 0, err
	}
	s.t.bytesOut(n)
	return n, err
}

// probe makes sure that the source has ended.
func (s *sent) probe(err error) error {
	var more [1]byte
	for err == nil {
		var n int
		if n, err = s.src.Read(more[:]); n > 0 {
			return fmt.Errorf("the body is longer than %d bytes: %w", s.size, core.ErrInvalid)
		}
	}
	return err
}
