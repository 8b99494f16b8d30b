package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// sourceObjects is how many objects each source of copies has.
const sourceObjects = 60

// copies copies buckets that do not change, from every scheme to every scheme,
// one job after the other, and checks what comes of it.
type copies struct {
	c    *chaos
	done atomic.Int64

	sources []copySource
	remote  *copySource // at the source of the ends, if there are any
	// gate is held by a copy that reads objects without redundancy, and while
	// such objects are destroyed.
	gate chan struct{}
}

// copySource is a bucket and what it holds.
type copySource struct {
	bucket api.Bucket
	scheme core.Scheme
	set    *dataSet
	tasks  tasks
}

func (c *chaos) newCopies(ctx context.Context) (*copies, error) {
	p := &copies{c: c, gate: make(chan struct{}, 1)}
	for _, b := range c.buckets {
		src, err := c.bucket(ctx, "src-"+b.scheme.String(), b.scheme)
		if err != nil {
			return nil, err
		}
		o := *c.o
		o.objects, o.size = sourceObjects, 24<<10
		s := copySource{bucket: src, scheme: b.scheme, set: newDataSet(&o)}
		if err := s.set.put(ctx, c.api, src); err != nil {
			return nil, err
		}
		if s.tasks, err = c.newTasks(ctx, s.set); err != nil {
			return nil, err
		}
		p.sources = append(p.sources, s)
	}
	if c.ends != nil {
		o := *c.o
		o.objects, o.size = sourceObjects, 0
		p.remote = &copySource{set: newDataSet(&o)}
		if err := p.remote.set.putAt(ctx, c.ends.Source(), c.ends.from.Name); err != nil {
			return nil, err
		}
		var err error
		if p.remote.tasks, err = c.newTasks(ctx, p.remote.set); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// hold waits until no copy reads what has no redundancy, and keeps any from
// beginning until release is called.
func (p *copies) hold(ctx context.Context) (release func(), err error) {
	select {
	case p.gate <- struct{}{}:
		return func() { <-p.gate }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// renew writes the sources without redundancy anew.
func (p *copies) renew(ctx context.Context) error {
	for _, s := range p.sources {
		if s.scheme.Width() == 1 {
			if err := s.set.put(ctx, p.c.api, s.bucket); err != nil {
				return err
			}
		}
	}
	return nil
}

// run copies until ctx ends or something is amiss. The last copy is waited for.
func (p *copies) run(ctx context.Context) error {
	rnd := p.c.o.draw("copies", 0)
	for n := 1; ctx.Err() == nil; n++ {
		from := p.sources[rnd.IntN(len(p.sources))]
		to := p.sources[rnd.IntN(len(p.sources))].scheme
		copied := func() error { return p.one(ctx, n, from, from.tasks.draw(rnd), to) }
		if p.remote != nil {
			copied = func() error { return p.between(ctx, n, p.remote.tasks.draw(rnd)) }
		}
		if err := copied(); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if wait(ctx, time.Second) != nil {
			break
		}
	}
	return nil
}

// between copies from one remote to the other, of which nothing is present, and
// compares both past the cluster.
func (p *copies) between(ctx context.Context, n int, t task) error {
	c := p.c
	r := &remoteRounds{&rounds{harness: c.harness, set: p.remote.set}, c.ends}
	calls := context.WithoutCancel(ctx)
	dst := core.BucketName{Provider: r.to.Provider, Name: fmt.Sprintf("%s-%d", r.to.Name, n)}
	if err := r.prepare(calls, dst); err != nil {
		return err
	}
	jctx, cancel := context.WithTimeout(calls, c.o.timeout)
	defer cancel()
	j, err := c.api.StartJob(jctx, api.JobSpec{
		Kind: t.kind, Args: t.args, From: r.from.String(), To: dst.String(), All: true, ClientToken: dst.Name, RateLimit: api.RateLimit{Objects: sourceObjects / 5},
	})
	if err != nil {
		return fmt.Errorf("start the copy of %s to %s: %w", r.from, dst, err)
	}
	j, _, err = watch(jctx, c.api, j).result()
	if err != nil {
		return fmt.Errorf("job %s from %s to %s has not ended after %s: it is %s (%q), %d of %d objects done: %w",
			j.ID, r.from, dst, c.o.timeout, j.State, j.WaitingFor, j.Done.Objects, sourceObjects, err)
	}
	if err := r.judge(j, &t); err != nil {
		return fmt.Errorf("%s from %s to %s: %w", t.what, r.from, dst, err)
	}
	if err := r.compareEnds(calls, &t, dst); err != nil {
		return fmt.Errorf("%s by job %s: %w", t.what, j.ID, err)
	}
	p.done.Add(1)
	return r.drop(calls, dst)
}

// one copies a bucket and compares the copy with what was written.
func (p *copies) one(ctx context.Context, n int, from copySource, t task, to core.Scheme) error {
	c := p.c
	if from.scheme.Width() == 1 || to.Width() == 1 {
		release, err := p.hold(ctx)
		if err != nil {
			return err
		}
		defer release()
	}
	calls := context.WithoutCancel(ctx)
	dst, err := c.bucket(calls, fmt.Sprintf("copy-%d-%s", n, to), to)
	if err != nil {
		return err
	}
	jctx, cancel := context.WithTimeout(calls, c.o.timeout)
	defer cancel()
	j, err := c.api.StartJob(jctx, api.JobSpec{
		Kind: t.kind, Args: t.args, From: from.bucket.URI, To: dst.URI, ClientToken: dst.Name, RateLimit: api.RateLimit{Objects: sourceObjects / 5},
	})
	if err != nil {
		return fmt.Errorf("start the copy of %s to %s: %w", from.bucket.URI, dst.URI, err)
	}
	w := watch(jctx, c.api, j)
	j, _, err = w.result()
	if err != nil {
		return fmt.Errorf("job %s from %s to %s has not ended after %s: it is %s (%q), %d of %d objects done: %w",
			j.ID, from.scheme, to, c.o.timeout, j.State, j.WaitingFor, j.Done.Objects, sourceObjects, err)
	}
	r := &rounds{harness: c.harness, set: from.set}
	if err := r.judge(j, &t); err != nil {
		return fmt.Errorf("%s from %s to %s: %w", t.what, from.scheme, to, err)
	}
	if err := t.want.compare(calls, c.api, dst); err != nil {
		return fmt.Errorf("%s from %s to %s by job %s: %w", t.what, from.scheme, to, j.ID, err)
	}
	p.done.Add(1)
	if err := removeBucket(calls, c.api, dst); err != nil {
		return errors.Join(err, fmt.Errorf("after the copy from %s to %s", from.scheme, to))
	}
	return nil
}
