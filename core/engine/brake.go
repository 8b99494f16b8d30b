package engine

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/shoalstore/shoal/core"
)

const (
	// yield is how many times as long as it worked reconcile rests while
	// clients are served: its share of the time is then 1/(1+yield), which it
	// always gets.
	yield = 7
	// lingering is how long after a request clients count as being served.
	lingering = 100 * time.Millisecond
	// maxYield bounds one rest, and yieldStep how late the end of the last
	// request is noticed.
	maxYield  = time.Second
	yieldStep = 10 * time.Millisecond
	// minBurst is what may be moved at once under any limit.
	minBurst = 256 << 10
)

// brake holds reconcile back: to a bandwidth, and to a share of the time while
// the node serves clients. Then one object is repaired at a time, and after each
// read and write, and in the end for the rest of what it did, reconcile rests in
// proportion to how long that took; so it yields more where a disk is slow.
type brake struct {
	clock core.Clock
	limit *rate.Limiter // nil for none
	turn  chan struct{} // capacity 1: held by who works while clients are served

	busy atomic.Int64 // requests under way
	last atomic.Int64 // core.Instant at which one ended

	// rested is the time for which whoever moved bytes has paid already.
	rested atomic.Int64
}

// newBrake returns a brake that lets a number of bytes pass in a second, any
// number if it is 0.
func newBrake(c core.Clock, bandwidth int64) *brake {
	b := &brake{clock: c, turn: make(chan struct{}, 1)}
	if bandwidth > 0 {
		b.limit = rate.NewLimiter(rate.Limit(bandwidth), max(minBurst, int(bandwidth/10)))
	}
	return b
}

// enter notes that a request is under way until leave is called.
func (b *brake) enter() (leave func()) {
	b.busy.Add(1)
	return b.leave
}

func (b *brake) leave() {
	b.last.Store(int64(b.clock.Boot()))
	b.busy.Add(-1)
}

// serving says whether clients are being served.
func (b *brake) serving() bool {
	last := core.Instant(b.last.Load())
	return b.busy.Load() > 0 || last != 0 && b.clock.Boot().Sub(last) < lingering
}

// step does one thing that is to be done, such as repairing an object. While
// clients are served it waits for its turn and rests afterwards, as long as it
// has not yet within. The error is that of ctx; did says whether f has run.
func (b *brake) step(ctx context.Context, f func()) (did bool, err error) {
	if !b.serving() {
		f()
		return true, nil
	}
	if taken, err := b.takeTurn(ctx); err != nil {
		return false, err
	} else if !taken {
		f()
		return true, nil
	}
	defer func() { <-b.turn }()
	began, rested := b.clock.Boot(), b.rested.Load()
	f()
	worked := b.clock.Boot().Sub(began) - time.Duration(b.rested.Load()-rested)
	return true, b.rest(ctx, worked)
}

// takeTurn waits for the turn, but not for longer than clients are served: whoever has
// it may be waiting for a node that does not answer.
func (b *brake) takeTurn(ctx context.Context) (taken bool, err error) {
	look := time.NewTicker(lingering)
	defer look.Stop()
	for {
		select {
		case b.turn <- struct{}{}:
			return true, nil
		case <-look.C:
			if !b.serving() {
				return false, nil
			}
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// pay holds the caller back for n bytes that it has moved, which took a while.
func (b *brake) pay(ctx context.Context, n int, took time.Duration) error {
	for b.limit != nil && n > 0 {
		k := min(n, b.limit.Burst())
		if err := b.limit.WaitN(ctx, k); err != nil {
			return err
		}
		n -= k
	}
	began := b.clock.Boot()
	defer func() { b.rested.Add(int64(took) + int64(b.clock.Boot().Sub(began))) }()
	return b.rest(ctx, took)
}

// rest waits in proportion to how long something took, while clients are served.
func (b *brake) rest(ctx context.Context, took time.Duration) error {
	end := b.clock.Boot().Add(min(yield*took, maxYield))
	for b.serving() {
		left := end.Sub(b.clock.Boot())
		if left <= 0 {
			return nil
		}
		if err := b.clock.Wait(ctx, min(left, yieldStep)); err != nil {
			return err
		}
	}
	return nil
}

// sources puts the brake on reading from stores.
func (b *brake) sources(all []core.Store) []core.Store {
	out := make([]core.Store, len(all))
	for i, s := range all {
		if s != nil {
			out[i] = &brakedStore{Store: s, brake: b}
		}
	}
	return out
}

// target puts the brake on writing to a store; wrote, if not nil, is told of the
// bytes that it took.
func (b *brake) target(t core.Target, wrote func(int64)) core.Target {
	t.Store = &brakedStore{Store: t.Store, brake: b, wrote: wrote}
	return t
}

// brakedStore is a store whose shards are read and written with the brake on.
type brakedStore struct {
	core.Store
	brake *brake
	wrote func(int64)
}

// Open is part of core.Store.
func (s *brakedStore) Open(ctx context.Context, id core.ShardID) (core.ShardReader, error) {
	r, err := s.Store.Open(ctx, id)
	if err != nil {
		return nil, err
	}
	return &brakedReader{ShardReader: r, brake: s.brake}, nil
}

// Create is part of core.Store.
func (s *brakedStore) Create(ctx context.Context, m core.ShardMeta, size int64) (core.ShardWriter, error) {
	w, err := s.Store.Create(ctx, m, size)
	if err != nil {
		return nil, err
	}
	return &brakedWriter{ShardWriter: w, brake: s.brake, wrote: s.wrote, ctx: ctx}, nil
}

type brakedReader struct {
	core.ShardReader
	brake *brake
}

// ReadAt is part of core.ShardReader.
func (r *brakedReader) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	began := r.brake.clock.Boot()
	n, err := r.ShardReader.ReadAt(ctx, p, off)
	if perr := r.brake.pay(ctx, n, r.brake.clock.Boot().Sub(began)); perr != nil && err == nil {
		err = perr
	}
	return n, err
}

type brakedWriter struct {
	core.ShardWriter
	brake *brake
	wrote func(int64)
	ctx   context.Context //nolint:containedctx // of Create, which bounds the writer
}

// Write is part of io.Writer.
func (w *brakedWriter) Write(p []byte) (int, error) {
	began := w.brake.clock.Boot()
	n, err := w.ShardWriter.Write(p)
	if w.wrote != nil {
		w.wrote(int64(n))
	}
	if err == nil {
		err = w.brake.pay(w.ctx, n, w.brake.clock.Boot().Sub(began))
	}
	return n, err
}

// reader puts the brake on a stream.
func (b *brake) reader(ctx context.Context, r io.Reader) io.Reader {
	return &brakedStream{r: r, brake: b, ctx: ctx}
}

type brakedStream struct {
	r     io.Reader
	brake *brake
	ctx   context.Context //nolint:containedctx // of the call that reads the stream
}

// Read is part of io.Reader.
func (s *brakedStream) Read(p []byte) (int, error) {
	began := s.brake.clock.Boot()
	n, err := s.r.Read(p)
	if perr := s.brake.pay(s.ctx, n, s.brake.clock.Boot().Sub(began)); perr != nil && err == nil {
		err = perr
	}
	return n, err
}
