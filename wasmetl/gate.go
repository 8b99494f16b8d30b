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
	job     bool
	granted chan struct{}
}

func newGate(what string, capacity int64, queue int) *gate {
	return &gate{what: what, capacity: capacity, free: capacity, queue: queue}
}

// fits says whether there is room for w now. A job that is alone may have more
// than half.
func (g *gate) fits(w *waiter) bool {
	return w.n <= g.free && (!w.job || g.jobs == 0 || g.jobs+w.n <= g.capacity/2)
}

func (g *gate) take(w *waiter) {
	g.free -= w.n
	if w.job {
		g.jobs += w.n
	}
}

// try takes n if there is room and nobody waits.
func (g *gate) try(n int64, isJob bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	w := waiter{n: n, job: isJob}
	if g.crowded() || !g.fits(&w) {
		return false
	}
	g.take(&w)
	return true
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
	if n > g.capacity {
		return fmt.Errorf("%w: a transform that takes %d of %s, the node has %d", core.ErrInvalid, n, g.what, g.capacity)
	}
	w := &waiter{n: n, job: c.job()}
	g.mu.Lock()
	if !g.crowded() && g.fits(w) {
		g.take(w)
		g.mu.Unlock()
		return nil
	}
	if !again && len(g.waiting[c]) >= g.queue {
		g.mu.Unlock()
		return fmt.Errorf("%w: too many transforms wait for %s: try again later", core.ErrUnavailable, g.what)
	}
	w.granted = make(chan struct{})
	g.waiting[c] = append(g.waiting[c], w)
	g.grant()
	g.mu.Unlock()
	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.waiting[c], w); i >= 0 {
		g.waiting[c] = slices.Delete(g.waiting[c], i, i+1)
		g.grant()
		return context.Cause(ctx)
	}
	g.put(n, c.job())
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

// missing is how much is not free of n.
func (g *gate) missing(n int64) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return max(0, n-g.free)
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
		c, ok := g.next()
		if !ok {
			return
		}
		w := g.waiting[c][0]
		g.waiting[c] = g.waiting[c][1:]
		if c == inline || c == job {
			g.last = c
		}
		g.take(w)
		close(w.granted)
	}
}

func (g *gate) next() (class, bool) {
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
			return c, true
		}
		if w.n > g.free {
			return 0, false
		}
	}
	return 0, false
}
