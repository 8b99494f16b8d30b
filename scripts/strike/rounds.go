package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// copyScript is a script that strikes while a job copies a bucket.
type copyScript struct {
	name, short string
	scheme      core.Scheme
	choose      func(context.Context, *harness, *rand.Rand, core.NodeID) (*blow, error)
	// without says that the job has to go on without the node that is struck.
	without bool
}

func copyScripts() []copyScript {
	return []copyScript{
		{"cp-rmnode-ec", "Copy to ec-3+1 while a node is killed (kill -9)", core.ErasureCoded(3, 1), killNode, true},
		{"cp-rmnode-rebalance", "Copy without redundancy while a node goes into maintenance", core.None(), maintainNode, false},
		{"cp-rmdisk", "Copy to mirror-3 while a random disk is lost", core.Mirror(3), loseDisk, false},
	}
}

const (
	// inline is the size up to which the scripts' buckets keep objects in
	// their records; what is larger has shards to lose.
	inline = 4 << 10
	// misses is how many jobs in a row may be over before the strike.
	misses = 10
)

// run puts the source and does the rounds.
func (s copyScript) run(ctx context.Context, h *harness) error {
	nodes, err := h.active(ctx)
	if err != nil {
		return err
	}
	if need := s.scheme.MinWrite() + 1; s.without && len(nodes) < need {
		return cannotf("%d nodes: writes to %s go on without one of them if there are %d", len(nodes), s.scheme, need)
	}
	r := &rounds{harness: h, s: s, set: newDataSet(h.o), prefix: fmt.Sprintf("strike-%d-%d", os.Getpid(), h.o.seed)}
	if h.ends != nil {
		return (&remoteRounds{r, h.ends}).run(ctx)
	}
	if r.src, err = r.bucket(ctx, "src"); err != nil {
		return err
	}
	began := time.Now()
	if err := r.set.put(ctx, h.api, r.src); err != nil {
		return err
	}
	h.say("%d objects of %s in %s (%s) after %s", len(r.set.names), h.o.sizeText(), r.src.URI, s.scheme, tenths(time.Since(began)))
	if r.tasks, err = h.newTasks(ctx, r.set); err != nil {
		return err
	}
	if err := r.repeat(ctx, "more --objects, a larger --size or a lower --rate-limit", r.one); err != nil {
		return err
	}
	if h.own || h.o.keep {
		return nil
	}
	return removeBucket(ctx, h.api, r.src)
}

// repeat does a round until as many as asked count. Hint is what to change if none does.
func (r *rounds) repeat(ctx context.Context, hint string, one func(ctx context.Context, n, attempt int) (counts bool, err error)) error {
	missed := 0
	for n := 1; n <= r.o.rounds; {
		counts, err := one(ctx, n, missed)
		if err != nil {
			r.res.add(err)
			return fmt.Errorf("round %d: %w", n, err)
		}
		if counts {
			r.res.Rounds++
			r.res.Objects += r.set.amount().Objects
			r.res.Bytes += r.set.amount().Bytes
			n, missed = n+1, 0
			continue
		}
		if missed++; missed == misses {
			return cannotf("round %d: %d jobs in a row were over before the strike: want %s", n, misses, hint)
		}
	}
	return nil
}

// rounds is a run of such a script.
type rounds struct {
	*harness
	s      copyScript
	set    *dataSet // of the source
	tasks  tasks
	prefix string
	src    api.Bucket
}

// bucket creates a bucket of the script's scheme.
func (r *rounds) bucket(ctx context.Context, name string) (api.Bucket, error) {
	small := int64(inline)
	b, err := r.api.CreateBucket(ctx, core.BucketName{Provider: core.Shoal, Name: r.prefix + "-" + name},
		api.CreateBucket{Props: api.Props{Scheme: &r.s.scheme, Inline: &small}})
	if e, ok := errors.AsType[*api.Error](err); ok && e.Code == api.CodeRefused {
		return b, cannotf("create a bucket: %w", err)
	}
	if err != nil {
		return b, fmt.Errorf("create a bucket: %w", err)
	}
	return b, nil
}

// one is a round: a job, a strike, and the comparisons. It does not count if
// the job was over before the strike.
func (r *rounds) one(ctx context.Context, n, attempt int) (counts bool, err error) {
	rnd := r.o.draw(fmt.Sprintf("round %d", n), attempt)
	delay := time.Duration(rnd.Int64N(int64(strikeWindow)))
	t := r.tasks.draw(rnd)
	dst, err := r.bucket(ctx, fmt.Sprintf("dst-%d-%d", n, attempt))
	if err != nil {
		return false, err
	}
	jctx, cancel := context.WithTimeout(ctx, r.o.timeout)
	defer cancel()
	j, err := r.api.StartJob(jctx, api.JobSpec{
		Kind: t.kind, Args: t.args, From: r.src.URI, To: dst.URI, ClientToken: dst.Name, RateLimit: api.RateLimit{Objects: r.o.rate},
	})
	if err != nil {
		return false, fmt.Errorf("start the job: %w", err)
	}
	r.say("round %d: %s (%s), to be struck after %s", n, j.ID, t.what, tenths(delay))
	w := watch(jctx, r.api, j)
	select {
	case <-time.After(delay):
	case <-w.done:
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	v, b, err := r.aim(ctx, rnd, n, w)
	if err != nil {
		return false, err
	}
	before := w.last()
	struck := time.Now()
	if b != nil {
		if err := r.hit(ctx, b); err != nil {
			return false, err
		}
	}
	j, course, err := w.result()
	if err != nil {
		return false, r.unended(ctx, j, b, struck, err)
	}
	if b == nil || j.Ended != nil && j.Ended.Before(struck) {
		r.say("round %d: %s was over before the strike; again", n, j.ID)
		if b != nil {
			err = r.mend(ctx, b)
		}
		return false, errors.Join(err, removeBucket(ctx, r.api, dst))
	}
	r.res.struck(v)
	m := course.measure(struck)
	r.res.courses = append(r.res.courses, m)
	r.say("round %d: struck at %d of %d objects (%s); the job is %s %s later; %s",
		n, before.Done.Objects, len(r.set.names), before.State, j.State, tenths(time.Since(struck)), m)
	if err := r.judge(j, &t); err != nil {
		return false, err
	}
	if err := r.compare(ctx, &t, dst, "while "+b.what+" lasts"); err != nil {
		return false, err
	}
	if err := r.mend(ctx, b); err != nil {
		return false, err
	}
	if err := r.compare(ctx, &t, dst, "healthy again"); err != nil {
		return false, err
	}
	if err := removeBucket(ctx, r.api, dst); err != nil {
		return false, err
	}
	r.say("round %d: all %d objects of the source are what they were, and all %d of the destination what they are to be; the destination is deleted", n, len(r.set.names), len(t.want.names))
	return true, nil
}

// aim chooses whom to strike now; the blow is nil if the job is over.
func (r *rounds) aim(ctx context.Context, rnd *rand.Rand, n int, w *watched) (victim, *blow, error) {
	if w.last().State.Ended() {
		return victim{}, nil, nil
	}
	v, found, err := r.victim(ctx, rnd, n, w)
	if err != nil || !found {
		return v, nil, err
	}
	b, err := r.s.choose(ctx, r.harness, rnd, v.node)
	if err == nil {
		r.say("round %d: %s", n, v)
	}
	return v, b, err
}

// unended is the error of a job that has not ended in time.
func (r *rounds) unended(ctx context.Context, j api.Job, b *blow, struck time.Time, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	after := ""
	if b != nil {
		after = fmt.Sprintf(" %s after %s", tenths(time.Since(struck)), b.what)
	}
	return fmt.Errorf("job %s has not ended%s: it is %s (%q), %d of %d objects done: %w",
		j.ID, after, j.State, j.WaitingFor, j.Done.Objects, len(r.set.names), err)
}

// mend takes a strike back and waits until everything is fully redundant.
func (r *rounds) mend(ctx context.Context, b *blow) error {
	began := time.Now()
	if err := r.undo(ctx, b); err != nil {
		return err
	}
	back := time.Since(began)
	took, err := r.healthy(ctx)
	if err != nil {
		return fmt.Errorf("after %s was taken back: %w", b.what, err)
	}
	r.say("%s taken back in %s, fully redundant %s later", b.what, tenths(back), tenths(took))
	return nil
}

// judge checks a job's end and its books against what the harness wrote.
func (r *rounds) judge(j api.Job, t *task) error {
	planned, done, dropped, outputs := t.books(r.set)
	switch {
	case j.State != api.JobDone:
		return fmt.Errorf("job %s ended as %s: %s", j.ID, j.State, j.Message)
	case j.Planned == nil || *j.Planned != planned:
		return fmt.Errorf("job %s planned %+v, want %+v", j.ID, j.Planned, planned)
	case j.Done != done || j.Dropped != dropped || j.Skipped.Objects+j.Failed.Objects != 0:
		return fmt.Errorf("job %s: want %+v done and %+v dropped, but done %+v, skipped %+v, failed %+v, dropped %+v",
			j.ID, done, dropped, j.Done, j.Skipped, j.Failed, j.Dropped)
	case j.Outputs.Objects > outputs.Objects:
		return &differenceError{duplicated: j.Outputs.Objects - outputs.Objects, lines: []string{
			fmt.Sprintf("job %s wrote %+v for %+v", j.ID, j.Outputs, outputs),
		}}
	case j.Outputs != outputs:
		return fmt.Errorf("job %s: got outputs %+v, want %+v", j.ID, j.Outputs, outputs)
	}
	return nil
}

// compare compares source and destination with what they are to hold.
func (r *rounds) compare(ctx context.Context, t *task, dst api.Bucket, when string) error {
	for _, end := range []struct {
		b   api.Bucket
		set *dataSet
	}{{r.src, r.set}, {dst, t.want}} {
		if err := end.set.compare(ctx, r.api, end.b); err != nil {
			return fmt.Errorf("%s, %s: %w", end.b.URI, when, err)
		}
	}
	return nil
}

// bytesText is a number of bytes for people.
func bytesText(n float64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%.1f KiB", n/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", n/(1<<20))
}
