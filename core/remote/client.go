package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
)

// The times of requests.
const (
	defaultRequests = 64
	defaultPatience = 30 * time.Second
	leastPause      = 50 * time.Millisecond
	mostPause       = 5 * time.Second
	// silence is how long a request that changes nothing may be without an answer,
	// and stall how long a body may be without a byte.
	silence = time.Minute
	stall   = 20 * time.Second
)

// ClientOptions say how a client treats its backend.
type ClientOptions struct {
	// Name is the backend's in statistics; it must come from a small set.
	Name string
	// Requests is the most that are under way at a time; 0 is 64.
	Requests int
	// Patience is for how long a call repeats what may pass; 0 is 30 s. See
	// [WithPatience].
	Patience time.Duration
	Clock    core.Clock
}

// Client is a [core.Backend] that takes care of another one: it limits how many
// requests are made at a time, repeats those that failed for reasons that may pass,
// goes on with bodies that break off, holds bodies to their length, and counts.
//
// What may pass: unavailable and throttled, with full jitter, or as the remote says
// when to come again. An outcome that is unknown is repeated only where that does no
// harm: of what reads, of a part, of the end of an upload without an object. A write
// whose answer was lost is never repeated.
//
// It has all optional abilities. Those that the backend has not return
// [errors.ErrUnsupported]; see [Client.Can].
type Client struct {
	backend core.Backend
	o       ClientOptions
	limit   *limiter
	count   map[Op]*counters

	mu      sync.Mutex
	users   int
	retired bool
}

var (
	_ core.Backend           = (*Client)(nil)
	_ core.RemoteUploader    = (*Client)(nil)
	_ core.RemoteCopier      = (*Client)(nil)
	_ core.RemoteTagger      = (*Client)(nil)
	_ core.RemoteBucketMaker = (*Client)(nil)
)

// NewClient returns a client of a backend.
func NewClient(b core.Backend, o ClientOptions) *Client {
	if o.Requests <= 0 {
		o.Requests = defaultRequests
	}
	if o.Patience <= 0 {
		o.Patience = defaultPatience
	}
	c := &Client{backend: b, o: o, limit: newLimiter(o.Requests), count: map[Op]*counters{}}
	for _, op := range ops() {
		c.count[op] = new(counters)
	}
	return c
}

// Can says which optional abilities the backend has.
func (c *Client) Can() (upload, copies, tags, makeBuckets bool) {
	_, upload = c.backend.(core.RemoteUploader)
	_, copies = c.backend.(core.RemoteCopier)
	_, tags = c.backend.(core.RemoteTagger)
	_, makeBuckets = c.backend.(core.RemoteBucketMaker)
	return upload, copies, tags, makeBuckets
}

// Stats returns, for every operation that was used, what it did so far.
func (c *Client) Stats() []Stats {
	var out []Stats
	for _, op := range ops() {
		if s := c.count[op].snapshot(c.o.Name, op); s.Requests > 0 || s.Waiting > 0 {
			out = append(out, s)
		}
	}
	return out
}

// Allowed is how many requests may be under way at present.
func (c *Client) Allowed() int {
	n, _, _ := c.limit.state()
	return n
}

type patienceKey struct{}

// WithPatience sets for how long calls under the ctx repeat what may pass; 0 is not
// at all.
func WithPatience(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, patienceKey{}, d)
}

// insideKey marks the ctx of what is done within a request, which has a permit.
type insideKey struct{ c *Client }

var (
	errSilent  = fmt.Errorf("no answer for %v: %w", silence, core.ErrUnavailable)
	errStalled = fmt.Errorf("no byte for %v: %w", stall, core.ErrUnavailable)
	errRetired = fmt.Errorf("the backend was closed, since its configuration has changed: %w", core.ErrUnavailable)
)

// enter keeps the backend from being closed until leave.
func (c *Client) enter() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.retired {
		return errRetired
	}
	c.users++
	return nil
}

func (c *Client) leave() {
	c.mu.Lock()
	c.users--
	last := c.retired && c.users == 0
	c.mu.Unlock()
	if last {
		_ = closeBackend(c.backend) // nobody is left to be told
	}
}

// retire closes the backend once its last request has ended, at once if there is
// none.
func (c *Client) retire() error {
	c.mu.Lock()
	was, idle := c.retired, c.users == 0
	c.retired = true
	c.mu.Unlock()
	if was || !idle {
		return nil
	}
	return closeBackend(c.backend)
}

// through says whether the client was retired and its last request has ended.
func (c *Client) through() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.retired && c.users == 0
}

func closeBackend(b core.Backend) error {
	if closer, ok := b.(io.Closer); ok {
		return closer.Close()
	}
	return nil
}

// turn is one request's right to be made.
type turn struct {
	c      *Client
	permit *permit // nil within another request
	t      tally
	ended  bool
}

// take waits for the right to make a request.
func (c *Client) take(ctx context.Context, op Op) (*turn, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	t := &turn{c: c, t: newTally(ctx, c.count[op])}
	if ctx.Value(insideKey{c}) == nil {
		n := t.t.c
		n.waiting.Add(1)
		began := c.o.Clock.Boot()
		p, err := c.limit.acquire(ctx)
		n.waited.Add(int64(c.o.Clock.Boot().Sub(began)))
		n.waiting.Add(-1)
		if err != nil {
			c.leave()
			return nil, fmt.Errorf("waiting for one of the %d requests at a time: %w: %w", c.Allowed(), core.ErrUnavailable, err)
		}
		t.permit = p
	}
	t.t.c.inFlight.Add(1)
	t.t.request()
	return t, nil
}

// tell takes in what came of the request.
func (t *turn) tell(err error) {
	if err != nil {
		t.t.failed(err)
	}
	if t.permit == nil {
		return
	}
	switch {
	case errors.Is(err, core.ErrThrottled):
		t.permit.tell(throttled)
	case err == nil, errors.Is(err, core.ErrNotFound), errors.Is(err, core.ErrPrecondition):
		t.permit.tell(well)
	}
}

// end gives the right back.
func (t *turn) end() {
	if t.ended {
		return
	}
	t.ended = true
	t.t.c.inFlight.Add(-1)
	if t.permit != nil {
		t.permit.release()
	}
	t.c.leave()
}

// effect says what it does to repeat a request.
type effect byte

const (
	// harmless: it may be repeated whatever came of it, and is given up when nothing
	// is heard of it.
	harmless effect = iota
	// idempotent: it may be repeated whatever came of it.
	idempotent
	// once: it may be repeated only if it surely did nothing.
	once
)

// passing says whether a request that failed so may go well the next time.
func (e effect) passing(err error) bool {
	if errors.Is(err, core.ErrUnknownOutcome) {
		return e != once
	}
	return errors.Is(err, core.ErrUnavailable) || errors.Is(err, core.ErrThrottled)
}

// do makes a request, as often as it takes. The request keeps the turn if it
// returns true.
func (c *Client) do(ctx context.Context, op Op, e effect, request func(context.Context, *turn) (keep bool, err error)) error {
	patience := c.o.Patience
	if d, ok := ctx.Value(patienceKey{}).(time.Duration); ok {
		patience = d
	}
	began := c.o.Clock.Boot()
	var last error
	for n := 1; ; n++ {
		err := c.one(ctx, op, e, request)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			if last != nil { // which says nothing about this request's outcome
				err = fmt.Errorf("%w; before that: %s", err, last.Error())
			}
			return err
		}
		if !e.passing(err) {
			return err
		}
		pause := pauseAfter(n, err)
		if gone := c.o.Clock.Boot().Sub(began); gone+pause > patience {
			if n > 1 {
				err = fmt.Errorf("tried %d times in %v: %w", n, gone.Round(time.Millisecond), err)
			}
			return err
		}
		at := c.o.Clock.Boot()
		ended := c.o.Clock.Wait(ctx, pause)
		c.count[op].waited.Add(int64(c.o.Clock.Boot().Sub(at)))
		if ended != nil {
			return fmt.Errorf("%w; no time to try again: %w", err, context.Cause(ctx))
		}
		last = err
	}
}

// one makes a request once.
func (c *Client) one(ctx context.Context, op Op, e effect, request func(context.Context, *turn) (bool, error)) error {
	t, err := c.take(ctx, op)
	if err != nil {
		return err
	}
	kept := false
	defer func() {
		if !kept {
			t.end()
		}
	}()
	if e == harmless && op != OpGet { // a body lives on under its ctx
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, silence, errSilent)
		defer cancel()
	}
	kept, err = request(context.WithValue(ctx, insideKey{c}, true), t)
	if err != nil && errors.Is(context.Cause(ctx), errSilent) {
		err = fmt.Errorf("%w: %w", errSilent, err)
	}
	t.tell(err)
	return err
}

// pauseAfter is how long to wait after the nth request failed.
func pauseAfter(n int, err error) time.Duration {
	if later, ok := errors.AsType[core.RetryAfter](err); ok && later.RetryAfter() > 0 {
		return later.RetryAfter() + rand.N(leastPause)
	}
	return rand.N(min(leastPause<<min(n, 10), mostPause)) + 1
}

// simple is do for a request that has ended when it returns.
func (c *Client) simple(ctx context.Context, op Op, e effect, request func(context.Context) error) error {
	return c.do(ctx, op, e, func(ctx context.Context, _ *turn) (bool, error) { return false, request(ctx) })
}

// Abilities are the backend's.
func (c *Client) Abilities() core.RemoteAbilities { return c.backend.Abilities() }

// Buckets implements [core.Backend].
func (c *Client) Buckets(ctx context.Context) (out []string, err error) {
	err = c.simple(ctx, OpBuckets, harmless, func(ctx context.Context) (err error) {
		out, err = c.backend.Buckets(ctx)
		return err
	})
	return out, err
}

// HeadBucket implements [core.Backend].
func (c *Client) HeadBucket(ctx context.Context, bucket string) error {
	return c.simple(ctx, OpHeadBucket, harmless, func(ctx context.Context) error { return c.backend.HeadBucket(ctx, bucket) })
}

// List implements [core.Backend].
func (c *Client) List(ctx context.Context, bucket string, o core.RemoteListOptions) (out core.RemoteListing, err error) {
	err = c.simple(ctx, OpList, harmless, func(ctx context.Context) (err error) {
		out, err = c.backend.List(ctx, bucket, o)
		return err
	})
	return out, err
}

// Head implements [core.Backend].
func (c *Client) Head(ctx context.Context, bucket, key string) (out core.RemoteObject, err error) {
	err = c.simple(ctx, OpHead, harmless, func(ctx context.Context) (err error) {
		out, err = c.backend.Head(ctx, bucket, key)
		return err
	})
	return out, err
}

// Put implements [core.Backend]. A body that breaks off, or is not as long as
// declared, fails as unavailable, since the remote cannot have taken it.
func (c *Client) Put(ctx context.Context, bucket, key string, o core.RemotePut) (out core.RemoteObject, err error) {
	err = c.sending(ctx, OpPut, once, &o, func(ctx context.Context, o core.RemotePut) (err error) {
		out, err = c.backend.Put(ctx, bucket, key, o)
		return err
	})
	return out, err
}

// Delete implements [core.Backend].
func (c *Client) Delete(ctx context.Context, bucket, key string, cond core.RemoteCondition) error {
	return c.simple(ctx, OpDelete, once, func(ctx context.Context) error { return c.backend.Delete(ctx, bucket, key, cond) })
}

func (c *Client) unsupported(what string) error {
	return fmt.Errorf("backend %s cannot %s: %w", c.o.Name, what, errors.ErrUnsupported)
}

// CreateUpload implements [core.RemoteUploader].
func (c *Client) CreateUpload(ctx context.Context, bucket, key string, o core.RemotePut) (out string, err error) {
	u, ok := c.backend.(core.RemoteUploader)
	if !ok {
		return "", c.unsupported("upload in parts")
	}
	err = c.simple(ctx, OpCreateUpload, once, func(ctx context.Context) (err error) {
		out, err = u.CreateUpload(ctx, bucket, key, o)
		return err
	})
	return out, err
}

// PutPart implements [core.RemoteUploader].
func (c *Client) PutPart(ctx context.Context, bucket, key, upload string, number int, o core.RemotePut) (out core.RemotePart, err error) {
	u, ok := c.backend.(core.RemoteUploader)
	if !ok {
		return out, c.unsupported("upload in parts")
	}
	err = c.sending(ctx, OpPutPart, idempotent, &o, func(ctx context.Context, o core.RemotePut) (err error) {
		out, err = u.PutPart(ctx, bucket, key, upload, number, o)
		return err
	})
	return out, err
}

// CompleteUpload implements [core.RemoteUploader].
func (c *Client) CompleteUpload(
	ctx context.Context, bucket, key, upload string, parts []core.RemotePart, cond core.RemoteCondition,
) (out core.RemoteObject, err error) {
	u, ok := c.backend.(core.RemoteUploader)
	if !ok {
		return out, c.unsupported("upload in parts")
	}
	err = c.simple(ctx, OpComplete, once, func(ctx context.Context) (err error) {
		out, err = u.CompleteUpload(ctx, bucket, key, upload, parts, cond)
		return err
	})
	return out, err
}

// AbortUpload implements [core.RemoteUploader].
func (c *Client) AbortUpload(ctx context.Context, bucket, key, upload string) error {
	u, ok := c.backend.(core.RemoteUploader)
	if !ok {
		return c.unsupported("upload in parts")
	}
	return c.simple(ctx, OpAbort, idempotent, func(ctx context.Context) error { return u.AbortUpload(ctx, bucket, key, upload) })
}

// Copy implements [core.RemoteCopier].
func (c *Client) Copy(
	ctx context.Context, fromBucket, fromKey string, v core.RemoteVersion, bucket, key string, o core.RemotePut,
) (out core.RemoteObject, err error) {
	u, ok := c.backend.(core.RemoteCopier)
	if !ok {
		return out, c.unsupported("copy")
	}
	err = c.simple(ctx, OpCopy, once, func(ctx context.Context) (err error) {
		out, err = u.Copy(ctx, fromBucket, fromKey, v, bucket, key, o)
		return err
	})
	return out, err
}

// Tags implements [core.RemoteTagger].
func (c *Client) Tags(ctx context.Context, bucket, key string) (out map[string]string, err error) {
	u, ok := c.backend.(core.RemoteTagger)
	if !ok {
		return nil, c.unsupported("be asked for tags")
	}
	err = c.simple(ctx, OpTags, harmless, func(ctx context.Context) (err error) {
		out, err = u.Tags(ctx, bucket, key)
		return err
	})
	return out, err
}

// CreateBucket implements [core.RemoteBucketMaker].
func (c *Client) CreateBucket(ctx context.Context, bucket string) error {
	u, ok := c.backend.(core.RemoteBucketMaker)
	if !ok {
		return c.unsupported("create buckets")
	}
	return c.simple(ctx, OpCreateBucket, once, func(ctx context.Context) error { return u.CreateBucket(ctx, bucket) })
}
