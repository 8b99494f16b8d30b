package wasmetl

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/shoalstore/shoal/core"
)

// RunTransform implements [core.TransformRunner].
func (h *Host) RunTransform(ctx context.Context, tc core.TransformCall) (core.TransformResult, error) {
	body := newSource(tc.Data, tc.Body)
	if tc.Output == nil {
		body.close()
		return core.TransformResult{}, fmt.Errorf("%w: a transform without a place for its output", core.ErrInvalid)
	}
	if err := validArgs(tc.Args); err != nil {
		body.close()
		return core.TransformResult{}, err
	}
	t, err := h.use(tc.Transform)
	if err != nil {
		body.close()
		return core.TransformResult{}, err
	}
	defer h.release(context.WithoutCancel(ctx), t)
	c := &call{host: h, t: t, TransformCall: tc, source: body, log: tail{limit: defaultLog}, out: &output{}}
	if c.Body == nil {
		c.Object.Size = int64(len(c.Data))
	}
	c.args = t.spec.Args
	if len(tc.Args) > 0 {
		c.args = maps.Clone(t.spec.Args)
		if c.args == nil {
			c.args = map[string]string{}
		}
		maps.Copy(c.args, tc.Args)
	}
	result, err := c.run(ctx)
	if err != nil {
		err = fmt.Errorf("transform %s of %s/%s: %w", t.ref, c.Object.Bucket, c.Object.Key, err)
	}
	t.stats.add(h.clock.Now(), c.Object, result, err)
	h.judge(ctx, t, result, err)
	return result, err
}

// judge stops a transform that fails again and again by its own fault.
func (h *Host) judge(ctx context.Context, t *transform, r core.TransformResult, err error) {
	h.mu.Lock()
	stopped := false
	switch {
	case err != nil:
	case r.Failure != nil && (r.Failure.Class == classTrap || r.Failure.Class == classStack):
		t.failures++
		stopped = t.failures >= maxFailures && !t.stopped
		t.stopped = t.stopped || stopped
	default:
		t.failures = 0
	}
	h.mu.Unlock()
	if stopped {
		h.log.ErrorContext(ctx, "transform stopped: it failed too often in a row", "transform", t.ref.String(), "err", r.Failure)
	}
}

// run takes the call through its stages: memory, the object, a turn, an instance,
// the guest, its output.
func (c *call) run(parent context.Context) (core.TransformResult, error) {
	h := c.host
	arrived := h.clock.Now()
	base, cancel := context.WithCancelCause(parent)
	c.ctx, c.cancel = base, cancel
	defer cancel(context.Canceled)
	defer c.giveBack()
	defer c.source.wait()

	if err := h.admit(base, c); err != nil {
		return c.result(arrived, arrived, err)
	}
	c.reserved = c.t.spec.Memory + stackReserve
	defer c.unreserve()
	// Who has memory has been let in; how many those are the ledger limits.
	if err := h.turns.acquire(base, 1, classOf(c.Job, false), true); err != nil {
		return c.result(arrived, arrived, err)
	}
	c.since = h.clock.Now()
	begun := c.since
	c.queued = begun.Sub(arrived)

	timeout := c.t.spec.Timeout + time.Duration(max(0, c.Object.Size)/DefaultRate)*time.Second
	ctx, done := context.WithTimeoutCause(base, timeout, failure(classTimeout, 0, "not done after %v", timeout))
	defer done()
	c.ctx = ctx
	defer c.abortAtEnd(ctx)()

	c.outLimit = max(h.maxOutput, outputRatio*max(0, c.Object.Size))
	c.gather()              //nolint:contextcheck // a call has a context of its own, made from the caller's
	err := c.withInstance() //nolint:contextcheck // as above
	// The instance is closed, or idle: others may have theirs while this one's
	// output is written.
	c.unreserve()
	c.leave()
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil && !c.dropped && (c.out.begun || c.emitted == 0 || c.out.info.Name != "") {
		c.unlessStalled(func(ctx context.Context) { err = c.finish(ctx) }) //nolint:contextcheck // as above
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx) // what was said of the output follows from that
		}
	}
	if err == nil && c.dropped && c.out.sink != nil {
		c.abort(errDropped)
	}
	if err != nil {
		c.abort(err)
	}
	return c.result(arrived, begun, err)
}

// gather makes the object ready to be read: a small one is read at once, others
// are read ahead.
func (c *call) gather() {
	if c.source.isSmall(c.Object.Size) {
		c.leave()
		c.unlessStalled(func(context.Context) { c.source.small(c.Object.Size) })
		c.enter(classOf(c.Job, true))
	}
	c.source.start(&c.host.chunks)
}

// giveBack returns what the call had from the pools, once nobody uses it any more.
func (c *call) giveBack() {
	if c.buffer != nil {
		c.host.buffers.Put(c.buffer)
	}
}

var errDropped = errors.New("the transform dropped the object after all")

// abortAtEnd aborts the call when ctx ends. The function that it returns, to be
// called once, takes that back, or returns when it has been done: outputs must not
// be aborted after RunTransform has returned.
func (c *call) abortAtEnd(ctx context.Context) (forget func()) {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		c.abort(context.Cause(ctx))
	})
	return func() {
		if !stop() {
			<-done
		}
	}
}

// withInstance runs the guest in an instance of the pool, or in a new one.
func (c *call) withInstance() error {
	h := c.host
	ctx := context.WithoutCancel(c.ctx)
	in := h.takeIdle(c.t)
	c.reused = in != nil
	if in == nil {
		var err error
		if in, err = c.t.module.instantiate(c); err != nil {
			if err = c.explain(err); err != nil {
				return err
			}
			return failure(classExit, 0, "the module exited before it was given the object%s", c.log.lastLine())
		}
	}
	in.call = c
	err := c.guest(in)
	in.call = nil
	in.calls++
	c.memory = int64(in.mem.size)
	clean := err == nil && c.t.module.report.ABI == ShoalV1 && !c.t.spec.Fresh &&
		in.calls < maxCalls && c.memory <= 2*in.base
	if clean && c.keep(in) {
		return nil
	}
	if closeErr := in.close(ctx); closeErr != nil {
		h.log.WarnContext(ctx, "close an instance of a transform", "transform", c.t.ref.String(), "err", closeErr)
	}
	return err
}

func (c *call) result(arrived, begun time.Time, err error) (core.TransformResult, error) {
	now := c.host.clock.Now()
	r := core.TransformResult{
		Transform: c.t.ref, Log: c.log.String(), Outputs: c.outputs,
		BytesIn: c.bytesIn, BytesOut: c.bytesOut,
		Queued: c.queued, Wall: now.Sub(begun), CPU: c.cpu, Memory: c.memory, Reused: c.reused,
	}
	var failed *core.TransformFailure
	switch {
	case errors.As(err, &failed):
		r.Failure = failed
		return r, nil
	case err != nil:
		return r, err
	case c.dropped:
		r.Outcome = core.TransformDropped
	default:
		r.Outcome = core.TransformDone
	}
	return r, nil
}

// admit waits for the memory of an instance. Idle ones give way.
func (h *Host) admit(ctx context.Context, c *call) error {
	h.mu.Lock()
	stopped := c.t.stopped
	h.mu.Unlock()
	if stopped {
		return fmt.Errorf("%w: shoal etl start %s", ErrStopped, c.t.ref.Name)
	}
	w, err := h.ledger.enter(c.t.spec.Memory+stackReserve, classOf(c.Job, false), false)
	if err != nil {
		return err
	}
	h.makeRoom(ctx)
	if err := h.ledger.wait(ctx, w); err != nil {
		h.makeRoom(ctx) // for who is the next in line now
		return err
	}
	return nil
}

// makeRoom closes idle instances for who waits for memory, if that is enough to let
// him in. If it is not, others have the rest and make room at their end. It is to be
// called whenever somebody came to wait, or left, or gave memory back.
func (h *Host) makeRoom(ctx context.Context) {
	for missing := h.ledger.missing(); missing > 0; missing = h.ledger.missing() {
		victims := h.takeVictims(missing)
		if len(victims) == 0 {
			return
		}
		for _, in := range victims {
			h.closeIdle(context.WithoutCancel(ctx), in)
		}
	}
}

// takeVictims takes idle instances that have n bytes together out of their pools, or
// none.
func (h *Host) takeVictims(n int64) []*instance {
	h.mu.Lock()
	defer h.mu.Unlock()
	idle := int64(0)
	for _, t := range h.versions {
		for _, in := range t.idle {
			idle += int64(in.mem.size)
		}
	}
	if idle < n {
		return nil
	}
	var victims []*instance
	for _, t := range h.versions {
		for n > 0 && len(t.idle) > 0 {
			victims = append(victims, t.idle[0])
			n -= int64(t.idle[0].mem.size)
			t.idle = t.idle[1:]
			h.idle--
		}
	}
	return victims
}

// closeIdle closes an instance that was taken out of a pool.
func (h *Host) closeIdle(ctx context.Context, in *instance) {
	size := int64(in.mem.size)
	if err := in.close(ctx); err != nil {
		h.log.WarnContext(ctx, "close an idle instance of a transform", "err", err)
	}
	h.ledger.release(size, false)
}

func (h *Host) takeIdle(t *transform) *instance {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(t.idle) == 0 {
		return nil
	}
	in := t.idle[len(t.idle)-1]
	t.idle = t.idle[:len(t.idle)-1]
	h.idle--
	h.ledger.release(int64(in.mem.size), false)
	return in
}

// unreserve gives the memory of the call back, if that has not been done.
func (c *call) unreserve() {
	c.host.ledger.release(c.reserved, c.Job)
	c.reserved = 0
	c.host.makeRoom(c.ctx)
}

// keep puts the call's instance into the pool, for which the call gives its memory
// back. If somebody waits for what the instance has, it is to be closed instead.
func (c *call) keep(in *instance) bool {
	h := c.host
	h.mu.Lock() // over the trade: whom it lets in is to find the instance
	defer h.mu.Unlock()
	if !h.ledger.trade(c.reserved, int64(in.mem.size), c.Job) {
		return false
	}
	c.reserved = 0
	c.t.idle = append(c.t.idle, in)
	h.idle++
	return true
}
