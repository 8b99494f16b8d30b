package etl

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/shoalstore/shoal/core"
)

// version is a version that this node has ready, gets ready, or gives up.
type version struct {
	id      string
	spec    *Spec
	runtime Runtime

	ready chan struct{} // closed once err is known
	err   error
	// Guarded by the registry's mu. At 0 refs it is given up, and gone is closed
	// when the runtime has removed it.
	refs int
	gone chan struct{}
}

// acquire gets a version ready and counts its use. Code, if not nil, is what the
// digest names; otherwise it is fetched.
func (r *Registry) acquire(ctx context.Context, spec *Spec, code []byte) (*version, error) {
	rt, err := r.runtime(spec.Type)
	if err != nil {
		return nil, fmt.Errorf("transform %s: %w", spec.Name, err)
	}
	id := spec.id()
	for {
		r.mu.Lock()
		v := r.versions[id]
		if v == nil {
			v = &version{id: id, spec: spec, runtime: rt, ready: make(chan struct{}), gone: make(chan struct{}), refs: 1}
			r.versions[id] = v
			r.mu.Unlock()
			v.err = r.load(ctx, v, code)
			if v.err != nil {
				r.mu.Lock()
				delete(r.versions, id)
				r.mu.Unlock()
			}
			close(v.ready)
			return v, v.err
		}
		if v.refs == 0 {
			r.mu.Unlock()
			select {
			case <-v.gone:
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
			continue
		}
		v.refs++
		r.mu.Unlock()
		select {
		case <-v.ready:
		case <-ctx.Done():
			r.drop(context.WithoutCancel(ctx), v)
			return nil, context.Cause(ctx)
		}
		switch {
		case v.err == nil:
			return v, nil
		case errors.Is(v.err, context.Canceled), errors.Is(v.err, context.DeadlineExceeded):
			// Who loaded it was called off; that is no answer for us.
		default:
			return nil, v.err
		}
	}
}

// load fetches code if need be and installs it.
func (r *Registry) load(ctx context.Context, v *version, code []byte) error {
	if code == nil {
		var err error
		if code, err = r.o.Modules.Get(ctx, v.spec.Digest, v.spec.Size); err != nil {
			return fmt.Errorf("transform %s: %w", v.spec.Name, err)
		}
	}
	return v.runtime.Install(ctx, v.id, v.spec, code)
}

// drop takes back what acquire gave.
func (r *Registry) drop(ctx context.Context, v *version) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropLocked(ctx, v)
}

func (r *Registry) dropLocked(ctx context.Context, v *version) {
	if v.refs--; v.refs > 0 || r.versions[v.id] != v {
		return
	}
	select {
	case <-v.ready:
	default:
		// Its loader has a use of its own, so that this cannot be.
		return
	}
	r.mu.Unlock()
	if err := v.runtime.Remove(context.WithoutCancel(ctx), v.id); err != nil {
		r.o.Log.Warn("transform was not removed here", "transform", v.spec.Ref().String(), "err", err)
	}
	r.mu.Lock()
	delete(r.versions, v.id)
	close(v.gone)
}

// Pinned is a version that stays ready until it is released, whatever happens to
// its name.
type Pinned struct {
	r *Registry
	v *version
}

// Pin gets a version ready, and keeps it.
func (r *Registry) Pin(ctx context.Context, spec *Spec) (*Pinned, error) {
	v, err := r.acquire(ctx, spec, nil)
	if err != nil {
		return nil, err
	}
	return &Pinned{r, v}, nil
}

// Release gives the version up. It is called once, when no call runs.
func (p *Pinned) Release(ctx context.Context) { p.r.drop(ctx, p.v) }

// RunTransform passes an object through the version, whatever the call names.
func (p *Pinned) RunTransform(ctx context.Context, c core.TransformCall) (core.TransformResult, error) {
	if e, _, id := p.r.known(p.v.spec.Name); e.Stopped && id == p.v.id {
		return core.TransformResult{}, errStopped(p.v.spec.Name)
	}
	return p.v.run(ctx, c)
}

func errStopped(name string) error {
	return fmt.Errorf("transform %s is stopped; `shoal etl start %s` lets it run again: %w", name, name, core.ErrUnavailable)
}

func (v *version) run(ctx context.Context, c core.TransformCall) (core.TransformResult, error) {
	c.Transform = core.TransformRef{Name: v.id}
	if out := c.Output; v.spec.ContentType != "" {
		c.Output = func(ctx context.Context, o core.TransformOutputInfo) (core.TransformOutput, error) {
			if o.ContentType == "" {
				o.ContentType = v.spec.ContentType
			}
			return out(ctx, o)
		}
	}
	res, err := v.runtime.RunTransform(ctx, c)
	if errors.Is(err, ErrBroken) {
		err = fmt.Errorf("transform %s: %w; `shoal etl errors %[1]s` says why, `shoal etl start %[1]s` lets it run again", v.spec.Name, err)
	}
	res.Transform = v.spec.Ref()
	return res, err
}

// RunTransform implements [core.TransformRunner]: a name is what it stands for now.
func (r *Registry) RunTransform(ctx context.Context, c core.TransformCall) (core.TransformResult, error) {
	refused := func(err error) (core.TransformResult, error) {
		if c.Body != nil {
			err = errors.Join(err, c.Body.Close())
		}
		return core.TransformResult{Transform: c.Transform}, err
	}
	v := r.readyFor(c.Transform)
	if v == nil {
		t, err := r.Lookup(ctx, c.Transform)
		if err != nil {
			return refused(err)
		}
		if t.Stopped {
			return refused(errStopped(t.Spec.Name))
		}
		if v, err = r.acquire(ctx, &t.Spec, nil); err != nil {
			return refused(err)
		}
	}
	defer r.drop(ctx, v)
	return v.run(ctx, c)
}

// readyFor returns the version that is held for a reference, and counts its use;
// nil if there is none.
func (r *Registry) readyFor(ref core.TransformRef) *version {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.names[ref.Name]
	if n == nil || n.held == nil || n.held.id != n.id || n.entry.Stopped || !n.entry.is(ref) {
		return nil
	}
	n.held.refs++
	return n.held
}

// Smoke is how a transform ended that was given an empty object.
type Smoke struct {
	Outcome core.TransformOutcome
	Failure *core.TransformFailure
	Log     string
}

// Register checks code, gets it ready here, has it transform an empty object,
// stores it, and makes the name stand for it. The same again changes nothing.
// Errors that are the transform's fault are [core.ErrInvalid] or [core.ErrTooLarge].
func (r *Registry) Register(ctx context.Context, s Spec, code []byte) (Transform, Smoke, error) {
	fail := func(err error) (Transform, Smoke, error) { return Transform{}, Smoke{}, err }
	rt, err := r.runtime(s.Type)
	if err != nil {
		return fail(err)
	}
	if err := s.validate(); err != nil {
		return fail(err)
	}
	if err := rt.Check(&s, code); err != nil {
		return fail(fmt.Errorf("transform %s: %w", s.Name, err))
	}
	s.Digest, s.Size, s.Created = digestOf(code), int64(len(code)), r.o.Clock.Now().UTC()
	v, err := r.acquire(ctx, &s, code)
	if err != nil {
		return fail(err)
	}
	held := false
	defer func() {
		if !held {
			r.drop(ctx, v)
		}
	}()
	smoke, err := r.smoke(ctx, v)
	if err != nil {
		return Transform{}, smoke, err
	}
	if err := r.o.Modules.Put(ctx, s.Digest, code); err != nil {
		return Transform{}, smoke, fmt.Errorf("transform %s: %w", s.Name, err)
	}
	e, err := r.change(ctx, s.Name, func(e *entry) (bool, error) {
		if e.Spec != nil && e.Spec.id() == v.id && !e.Stopped {
			return false, nil
		}
		e.leave(s.Created)
		e.Spec, e.Stopped = &s, false
		return true, nil
	})
	if err != nil {
		return Transform{}, smoke, err
	}
	held = true
	r.hold(ctx, &s, v)
	return Transform{*e.Spec, e.Stopped}, smoke, nil
}

// smoke gives a transform an empty object. One that returns an error may be right
// to do so; one that breaks down or does not end is refused.
func (r *Registry) smoke(ctx context.Context, v *version) (Smoke, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, smokeTime, fmt.Errorf("an empty object took the transform more than %v: %w", smokeTime, core.ErrInvalid))
	defer cancel()
	res, err := v.run(ctx, core.TransformCall{
		Object: core.TransformObject{Bucket: "smoke-run", Key: "empty"},
		Output: func(context.Context, core.TransformOutputInfo) (core.TransformOutput, error) {
			return discard{io.Discard}, nil
		},
	})
	s := Smoke{Outcome: res.Outcome, Failure: res.Failure, Log: res.Log}
	if err != nil {
		return s, fmt.Errorf("transform %s: smoke run on an empty object: %w", v.spec.Name, err)
	}
	if f := res.Failure; f != nil && f.Class != "exit" && f.Class != "error" {
		return s, fmt.Errorf("transform %s: smoke run on an empty object: %w%s: %w", v.spec.Name, f, tailOf(res.Log), core.ErrInvalid)
	}
	return s, nil
}

func tailOf(log string) string {
	if log == "" {
		return ""
	}
	return "; its log ends: " + log
}

// discard is an output that nobody wants.
type discard struct{ io.Writer }

// Close is part of core.TransformOutput.
func (discard) Close() error { return nil }

// Abort is part of core.TransformOutput.
func (discard) Abort(error) {}
