package wasmetl

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/shoalstore/shoal/core"
)

// class is who waits at a gate. Jobs have at most half of the capacity. Who goes
// on after waiting for its source or output comes before who begins.
type class int

const (
	inline class = iota // somebody waits for the answer
	job
	inlineResumed
	jobResumed
	classes
)

func (c class) job() bool { return c == job || c == jobResumed }

func classOf(isJob, resumed bool) class {
	switch {
	case isJob && resumed:
		return jobResumed
	case isJob:
		return job
	case resumed:
		return inlineResumed
	}
	return inline
}

// gate shares a capacity: memory in bytes, or guests that run. Those of a class
// come in order; calls and jobs take turns. It is safe for concurrent use.
type gate struct {
	what     string
	capacity int64
	queue    int // calls, and jobs, that may wait

	mu      sync.Mutex
	free    int64
	jobs    int64 // what jobs have
	waiting [classes][]*waiter
	last    class // whose turn it was
}

type waiter struct {
	n       int64
	class   class
	granted chan struct{} // nil: without waiting
}

func newGate(what string, capacity int64, queue int) *gate {
	return &gate{what: what, capacity: capacity, free: capacity, queue: queue}
}

// fits says whether there is room for w now. A job that is alone may have more
// than half.
func (g *gate) fits(w *waiter) bool {
	return w.n <= g.free && (!w.class.job() || g.jobs == 0 || g.jobs+w.n <= g.capacity/2)
}

func (g *gate) take(w *waiter) {
	g.free -= w.n
	if w.class.job() {
		g.jobs += w.n
	}
}

func (g *gate) crowded() bool {
	for _, w := range g.waiting {
		if len(w) > 0 {
			return true
		}
	}
	return false
}

// contended says that somebody waits.
func (g *gate) contended() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.crowded()
}

// acquire waits in the line of a class. Whoever has been let in before (again)
// waits however long the line is.
func (g *gate) acquire(ctx context.Context, n int64, c class, again bool) error {
	w, err := g.enter(n, c, again)
	if err != nil {
		return err
	}
	return g.wait(ctx, w)
}

// enter joins the line of a class: wait is to follow.
func (g *gate) enter(n int64, c class, again bool) (*waiter, error) {
	if n > g.capacity {
		return nil, fmt.Errorf("%w: a transform that takes %d of %s, the node has %d", core.ErrInvalid, n, g.what, g.capacity)
	}
	w := &waiter{n: n, class: c}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.crowded() && g.fits(w) {
		g.take(w)
		return w, nil
	}
	if !again && len(g.waiting[c]) >= g.queue {
		return nil, fmt.Errorf("%w: too many transforms wait for %s: try again later", core.ErrUnavailable, g.what)
	}
	w.granted = make(chan struct{})
	g.waiting[c] = append(g.waiting[c], w)
	g.grant()
	return w, nil
}

// wait returns once w is let in. If ctx ends before, w has left the line.
func (g *gate) wait(ctx context.Context, w *waiter) error {
	if w.granted == nil {
		return nil
	}
	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	line := g.waiting[w.class]
	if i := slices.Index(line, w); i >= 0 {
		g.waiting[w.class] = slices.Delete(line, i, i+1)
		g.grant()
		return context.Cause(ctx)
	}
	g.put(w.n, w.class.job())
	return context.Cause(ctx)
}

func (g *gate) release(n int64, isJob bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.put(n, isJob)
}

// trade gives n back but for keep, which counts as no job's from then on. If then
// somebody waited who needs more than is free, it does nothing and says false; a job
// that waits because jobs have their share does not need it.
func (g *gate) trade(n, keep int64, isJob bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range g.waiting {
		if len(w) > 0 && w[0].n > g.free+n-keep {
			return false
		}
	}
	g.free -= keep
	g.put(n, isJob)
	return true
}

// missing is how much is not free of what the next to be let in waits for: 0 if
// nobody waits for that.
func (g *gate) missing() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w, _ := g.next(); w != nil {
		return max(0, w.n-g.free)
	}
	return 0
}

func (g *gate) put(n int64, isJob bool) {
	g.free += n
	if isJob {
		g.jobs -= n
	}
	g.grant()
}

// grant lets in whom there is room for. The first of a class that does not fit
// is waited for, unless it is a job that would have more than its share.
func (g *gate) grant() {
	for {
		w, fits := g.next()
		if !fits {
			return
		}
		g.waiting[w.class] = g.waiting[w.class][1:]
		if w.class == inline || w.class == job {
			g.last = w.class
		}
		g.take(w)
		close(w.granted)
	}
}

// next is who is the next to be let in, if anybody, and whether there is room for him.
func (g *gate) next() (w *waiter, fits bool) {
	order := [classes]class{inlineResumed, jobResumed, inline, job}
	if g.last == inline {
		order = [classes]class{inlineResumed, jobResumed, job, inline}
	}
	for _, c := range order {
		if len(g.waiting[c]) == 0 {
			continue
		}
		w := g.waiting[c][0]
		if g.fits(w) {
			return w, true
		}
		if w.n > g.free {
			return w, false
		}
	}
	return nil, false
}
