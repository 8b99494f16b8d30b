package etl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
)

const (
	// prefix is under which transforms are in the KV.
	prefix = "etl"
	// lingering is how long code stays that nobody needs any more.
	lingering  = time.Hour
	cleanEvery = 20 * time.Minute
	retryFirst = time.Second
	retryMost  = 30 * time.Second
	// smokeTime is what a transform may take for an empty object.
	smokeTime = 10 * time.Second
)

// ErrBroken says that a runtime has stopped a version on this node because it failed
// too often in a row. It is [core.ErrUnavailable].
var ErrBroken = fmt.Errorf("%w: it failed too often in a row on this node, and is stopped here", core.ErrUnavailable)

// Runtime runs transforms of a type on this node.
type Runtime interface {
	// RunTransform of a version that is stopped by the runtime is [ErrBroken].
	core.TransformRunner
	// Check says whether code can be a transform, as far as that shows without
	// running it, and completes the spec: limits, interface.
	Check(spec *Spec, code []byte) error
	// Install makes a version ready under an id. It is called again if it failed.
	Install(ctx context.Context, id string, spec *Spec, code []byte) error
	// Remove takes it away; calls that run go on.
	Remove(ctx context.Context, id string) error
	// Resume lets an id run again that the runtime stopped by itself.
	Resume(id string) error
}

// Options are what a registry is made of. OnEntry and Needed may be nil.
type Options struct {
	KV       bus.KV
	Modules  Modules
	Runtimes map[string]Runtime // by type
	Clock    core.Clock
	Log      *slog.Logger
	// Tell gives the other nodes an entry that was just written, for [Registry.Hear]:
	// they know it then by the time that the change is acknowledged.
	Tell func(ctx context.Context, entry []byte)
	// Needed returns the digests that jobs need which have not ended.
	Needed func() []string
}

// Registry keeps transforms; it is safe for concurrent use.
type Registry struct {
	o Options

	mu       sync.Mutex
	names    map[string]*name
	versions map[string]*version // by id
	changed  chan struct{}       // closed and replaced when a name changes
}

// name is what this node knows of a name.
type name struct {
	entry entry
	rev   bus.Revision
	id    string // of entry.Spec
	// held is the version that the node keeps ready for the name.
	held *version
}

// Transform is a transform as users see it.
type Transform struct {
	Spec    Spec
	Stopped bool
}

// New returns a registry that knows of nothing until it is run or asked.
func New(o Options) *Registry {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Registry{o: o, names: map[string]*name{}, versions: map[string]*version{}, changed: make(chan struct{})}
}

func key(name string) string { return prefix + "." + name }

// Run follows what the bus says, keeps the node's versions ready and removes code
// that nobody needs, until ctx ends. Then it gives up what it held.
func (r *Registry) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() {
		for e := range r.o.KV.Watch(ctx, prefix) {
			if err := r.see(e.Value, e.Revision); err != nil && !e.Deleted {
				r.o.Log.Error("the bus holds a damaged transform", "key", e.Key, "err", err)
			}
		}
	})
	wg.Go(func() {
		for r.o.Clock.Wait(ctx, cleanEvery) == nil {
			if err := r.Clean(ctx); err != nil && ctx.Err() == nil {
				r.o.Log.Warn("code of transforms that nobody needs is removed later", "err", err)
			}
		}
	})
	r.keepReady(ctx)
	wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range slices.Collect(maps.Values(r.names)) {
		if v := n.held; v != nil {
			n.held = nil
			r.dropLocked(context.WithoutCancel(ctx), v)
		}
	}
	return nil
}

// see takes up an entry unless a newer one is known.
func (r *Registry) see(value []byte, rev bus.Revision) error {
	var e entry
	if err := json.Unmarshal(value, &e); err != nil {
		return fmt.Errorf("%w: %w", core.ErrCorrupt, err)
	}
	if CheckName(e.Name) != nil || e.Generation == 0 || e.Spec != nil && e.Spec.Name != e.Name {
		return fmt.Errorf("transform %q, generation %d: %w", e.Name, e.Generation, core.ErrCorrupt)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.names[e.Name]
	if n == nil {
		n = &name{}
		r.names[e.Name] = n
	}
	switch {
	case e.Generation < n.entry.Generation:
		return nil
	case e.Generation == n.entry.Generation:
		if rev != 0 {
			n.rev = rev
		}
		return nil
	}
	resumed := n.entry.Spec != nil && e.Started > n.entry.Started
	n.entry, n.rev, n.id = e, rev, ""
	if e.Spec != nil {
		n.id = e.Spec.id()
	}
	if v := r.versions[n.id]; v != nil && resumed {
		if err := v.runtime.Resume(v.id); err != nil && !errors.Is(err, core.ErrNotFound) {
			r.o.Log.Warn("transform was not started", "transform", e.Name, "err", err)
		}
	}
	close(r.changed)
	r.changed = make(chan struct{})
	return nil
}

// Hear takes what [Options.Tell] of another node said.
func (r *Registry) Hear(entry []byte) error { return r.see(entry, 0) }

// keepReady loads what names stand for, one after the other.
func (r *Registry) keepReady(ctx context.Context) {
	pause := retryFirst
	for ctx.Err() == nil {
		todo, changed := r.unready(ctx)
		failed := false
		for _, spec := range todo {
			v, err := r.acquire(ctx, spec, nil)
			if err != nil {
				failed = true
				if ctx.Err() == nil {
					r.o.Log.Warn("transform is not ready here yet", "transform", spec.Ref().String(), "err", err)
				}
				continue
			}
			r.hold(ctx, spec, v)
		}
		if !failed {
			pause = retryFirst
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		c, cancel := context.WithCancel(ctx)
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			select {
			case <-changed:
				cancel()
			case <-c.Done():
			}
		}()
		if r.o.Clock.Wait(c, pause) == nil {
			pause = min(2*pause, retryMost)
		}
		cancel()
		<-stop
	}
}

// unready lists what names stand for and is not held, and lets go of what they do
// not stand for any more.
func (r *Registry) unready(ctx context.Context) (todo []*Spec, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(r.names)) {
		n := r.names[k]
		if n.held != nil && n.held.id != n.id {
			v := n.held
			n.held = nil
			r.dropLocked(ctx, v)
		}
		if n.held == nil && n.entry.Spec != nil {
			todo = append(todo, n.entry.Spec)
		}
	}
	return todo, r.changed
}

// hold keeps a version that was acquired, if its name still stands for it.
func (r *Registry) hold(ctx context.Context, spec *Spec, v *version) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := r.names[spec.Name]; n != nil && n.id == v.id && n.held == nil {
		n.held = v
		return
	}
	r.dropLocked(ctx, v)
}

// fetch brings a name up to what the bus says.
func (r *Registry) fetch(ctx context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return fmt.Errorf("%w: %w", err, core.ErrNotFound)
	}
	e, err := r.o.KV.Get(ctx, key(name))
	if errors.Is(err, core.ErrNotFound) {
		return fmt.Errorf("transform %s: %w", name, core.ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("transform %s: %w", name, err)
	}
	return r.see(e.Value, e.Revision)
}

// known returns what a name stands for as far as this node knows.
func (r *Registry) known(name string) (e entry, rev bus.Revision, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := r.names[name]; n != nil {
		return n.entry, n.rev, n.id
	}
	return entry{}, 0, ""
}

// Lookup returns what a name stands for. A digest that it does not stand for, or a
// name that stands for nothing, is [core.ErrNotFound], which the bus has confirmed.
func (r *Registry) Lookup(ctx context.Context, ref core.TransformRef) (Transform, error) {
	e, _, _ := r.known(ref.Name)
	if !e.is(ref) {
		if err := r.fetch(ctx, ref.Name); err != nil {
			return Transform{}, err
		}
		var rev bus.Revision
		e, rev, _ = r.known(ref.Name)
		if !e.is(ref) && rev != 0 {
			// Absence is told only if nothing newer was written.
			if err := r.o.KV.Confirm(ctx, key(ref.Name), rev); err != nil {
				return Transform{}, fmt.Errorf("transform %s: %w: %w", ref.Name, core.ErrUnavailable, err)
			}
		}
	}
	switch {
	case e.Spec == nil:
		return Transform{}, fmt.Errorf("transform %s: %w", ref.Name, core.ErrNotFound)
	case !e.is(ref):
		return Transform{}, fmt.Errorf("transform %s is %s now: %w", ref, e.Spec.Digest, core.ErrNotFound)
	}
	return Transform{*e.Spec, e.Stopped}, nil
}

// Resolve returns what a name stands for with its digest, and a name for code and
// settings together.
func (r *Registry) Resolve(ctx context.Context, ref core.TransformRef) (core.TransformRef, string, error) {
	if v := r.readyFor(ref); v != nil {
		defer r.drop(ctx, v)
		_, version := NameOf(v.id)
		return v.spec.Ref(), version, nil
	}
	t, err := r.Lookup(ctx, ref)
	if err != nil {
		return core.TransformRef{}, "", err
	}
	return t.Spec.Ref(), t.Spec.Version(), nil
}

// is says whether the entry is what a reference means.
func (e *entry) is(ref core.TransformRef) bool {
	return e.Spec != nil && (ref.Digest == "" || ref.Digest == e.Spec.Digest)
}

// List returns all transforms, in order of name.
func (r *Registry) List(ctx context.Context) ([]Transform, error) {
	all, err := r.o.KV.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("transforms: %w", err)
	}
	for _, e := range all {
		if err := r.see(e.Value, e.Revision); err != nil {
			return nil, fmt.Errorf("transforms: %s: %w", e.Key, err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []Transform{}
	for _, k := range slices.Sorted(maps.Keys(r.names)) {
		if e := r.names[k].entry; e.Spec != nil {
			out = append(out, Transform{*e.Spec, e.Stopped})
		}
	}
	return out, nil
}

// change writes a name's entry by compare-and-set. f changes the present one, whose
// Generation is 0 if there is none; false leaves it.
func (r *Registry) change(ctx context.Context, name string, f func(e *entry) (bool, error)) (entry, error) {
	fail := func(err error) (entry, error) { return entry{}, fmt.Errorf("transform %s: %w", name, err) }
	for {
		if err := r.fetch(ctx, name); err != nil && !errors.Is(err, core.ErrNotFound) {
			return entry{}, err
		}
		e, rev, _ := r.known(name)
		e.Name, e.Former = name, slices.Clone(e.Former)
		if rev == 0 && e.Generation != 0 {
			// Another node told it, and the bus has not said it yet.
			if err := r.o.Clock.Wait(ctx, 50*time.Millisecond); err != nil {
				return fail(err)
			}
			continue
		}
		do, err := f(&e)
		if err != nil || !do {
			return e, err
		}
		e.Generation++
		value, err := json.Marshal(&e)
		if err != nil {
			return fail(err)
		}
		var next bus.Revision
		if rev == 0 {
			next, err = r.o.KV.Create(ctx, key(name), value)
		} else {
			next, err = r.o.KV.Update(ctx, key(name), value, rev)
		}
		switch {
		case err == nil:
			if err := r.see(value, next); err != nil {
				return fail(err)
			}
			if r.o.Tell != nil {
				r.o.Tell(ctx, value)
			}
			return e, nil
		case ctx.Err() != nil:
			return fail(err)
		case errors.Is(err, core.ErrConflict), errors.Is(err, core.ErrExists), errors.Is(err, core.ErrUnknownOutcome):
		default:
			return fail(err)
		}
	}
}

// Remove takes a name away. Jobs that began with it go on.
func (r *Registry) Remove(ctx context.Context, name string) error {
	_, err := r.change(ctx, name, func(e *entry) (bool, error) {
		if e.Spec == nil {
			return false, fmt.Errorf("transform %s: %w", name, core.ErrNotFound)
		}
		e.leave(r.o.Clock.Now().UTC())
		e.Spec, e.Stopped = nil, false
		return true, nil
	})
	return err
}

// SetStopped refuses calls of a transform from now on, those of jobs too, which
// wait; or allows them again, also where a node has stopped it by itself.
func (r *Registry) SetStopped(ctx context.Context, name string, stopped bool) (Transform, error) {
	e, err := r.change(ctx, name, func(e *entry) (bool, error) {
		if e.Spec == nil {
			return false, fmt.Errorf("transform %s: %w", name, core.ErrNotFound)
		}
		if stopped && e.Stopped {
			return false, nil
		}
		if e.Stopped = stopped; !stopped {
			e.Started++
		}
		return true, nil
	})
	if err != nil {
		return Transform{}, err
	}
	return Transform{*e.Spec, e.Stopped}, nil
}

// Clean removes code that no name and no job has needed for an hour.
func (r *Registry) Clean(ctx context.Context) error {
	now := r.o.Clock.Now()
	jobs := map[string]bool{}
	if r.o.Needed != nil {
		for _, d := range r.o.Needed() {
			jobs[d] = true
		}
	}
	all, err := r.o.KV.List(ctx, prefix)
	if err != nil {
		return fmt.Errorf("transforms: %w", err)
	}
	needed := jobs
	for _, x := range all {
		var e entry
		if err := json.Unmarshal(x.Value, &e); err != nil {
			return fmt.Errorf("transforms: %s: %w: %w", x.Key, core.ErrCorrupt, err)
		}
		if e.Spec != nil {
			needed[e.Spec.Digest] = true
		}
		for _, f := range e.Former {
			if now.Sub(f.Until) < lingering {
				needed[f.Digest] = true
			}
		}
	}
	return r.o.Modules.Clean(ctx, now.Add(-lingering), func(d string) bool { return needed[d] })
}

// runtime finds what runs a type.
func (r *Registry) runtime(typ string) (Runtime, error) {
	if rt := r.o.Runtimes[typ]; rt != nil {
		return rt, nil
	}
	if typ == Container {
		return nil, fmt.Errorf("no Kubernetes is configured in this cluster, and without one containers cannot run; compile the transform to WebAssembly and use `shoal etl init wasm`: %w", errors.ErrUnsupported)
	}
	return nil, fmt.Errorf("transforms of type %q are not built; there are %s: %w", typ,
		strings.Join(slices.Sorted(maps.Keys(r.o.Runtimes)), ", "), errors.ErrUnsupported)
}
