package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// copyScript is a script that strikes while a job copies a bucket.
type copyScript struct {
	name, short string
	scheme      core.Scheme
	choose      func(context.Context, *harness, *rand.Rand) (*blow, error)
	// without says that the job has to go on without the node that is struck.
	without bool
}

func copyScripts() []copyScript {
	return []copyScript{
		{"cp-rmnode-ec", "Copy to ec-3+1 while a random node is killed (kill -9)", core.ErasureCoded(3, 1), killNode, true},
		{"cp-rmnode-rebalance", "Copy without redundancy while a random node goes into maintenance", core.None(), maintainNode, false},
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

// copyKind is the kind of job whose outcome the scripts know: the destination
// holds what the source held.
const copyKind = "copy-bck"

// kindsToCome are those that clusters will have.
func kindsToCome() []string {
	return []string{
		"cleanup", "download", "dsort", "ec-encode", "etl", "evict", "lru", "mirror", "move-bck",
		"prefetch", "rebalance", "resilver", "retry", "scrub", "warm-up-metadata",
	}
}

// checkJob says whether the scripts can judge what a job of that kind makes.
func checkJob(kind string) error {
	switch {
	case kind == copyKind:
		return nil
	case slices.Contains(kindsToCome(), kind):
		return cannotf("--job %s: there is no such job that reads one bucket and writes another in this version; %s is one", kind, copyKind)
	}
	return usagef("--job %q: there is no such kind of job; want %s", kind, copyKind)
}

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
	missed := 0
	for n := 1; n <= h.o.rounds; {
		counts, err := r.one(ctx, n, missed)
		if err != nil {
			h.res.add(err)
			return fmt.Errorf("round %d: %w", n, err)
		}
		if counts {
			h.res.Rounds++
			h.res.Objects += r.set.amount().Objects
			h.res.Bytes += r.set.amount().Bytes
			n, missed = n+1, 0
			continue
		}
		if missed++; missed == misses {
			return cannotf("round %d: %d jobs in a row were over before the strike: want more --objects, a larger --size or a lower --rate-limit", n, misses)
		}
	}
	if h.own || h.o.keep {
		return nil
	}
	return removeBucket(ctx, h.api, r.src)
}

// rounds is a run of such a script.
type rounds struct {
	*harness
	s      copyScript
	set    *dataSet
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

// one is a round: a copy, a strike, and the comparisons. It does not count if
// the job was over before the strike.
func (r *rounds) one(ctx context.Context, n, attempt int) (counts bool, err error) {
	rnd := r.o.draw(fmt.Sprintf("round %d", n), attempt)
	delay := time.Duration(rnd.Int64N(int64(strikeWindow)))
	b, err := r.s.choose(ctx, r.harness, rnd)
	if err != nil {
		return false, err
	}
	dst, err := r.bucket(ctx, fmt.Sprintf("dst-%d-%d", n, attempt))
	if err != nil {
		return false, err
	}
	jctx, cancel := context.WithTimeout(ctx, r.o.timeout)
	defer cancel()
	j, err := r.api.StartJob(jctx, api.JobSpec{
		Kind: r.o.job, From: r.src.URI, To: dst.URI, ClientToken: dst.Name, RateLimit: api.RateLimit{Objects: r.o.rate},
	})
	if err != nil {
		return false, fmt.Errorf("start the job: %w", err)
	}
	r.say("round %d: %s, to be struck after %s", n, j.ID, tenths(delay))
	w := watch(jctx, r.api, j)
	select {
	case <-time.After(delay):
	case <-w.done:
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	before := w.last()
	struck := time.Now()
	if !before.State.Ended() {
		if err := r.hit(ctx, b); err != nil {
			return false, err
		}
	}
	j, course, err := w.result()
	if err != nil {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		return false, fmt.Errorf("job %s has not ended %s after %s: it is %s, %d of %d objects done: %w",
			j.ID, tenths(time.Since(struck)), b.what, j.State, j.Done.Objects, len(r.set.names), err)
	}
	if before.State.Ended() || j.Ended != nil && j.Ended.Before(struck) {
		r.say("round %d: %s was over before the strike; again", n, j.ID)
		if !before.State.Ended() {
			err = r.mend(ctx, b)
		}
		return false, errors.Join(err, removeBucket(ctx, r.api, dst))
	}
	m := course.measure(struck)
	r.res.courses = append(r.res.courses, m)
	r.say("round %d: struck at %d of %d objects (%s); the job is %s %s later; %s",
		n, before.Done.Objects, len(r.set.names), before.State, j.State, tenths(time.Since(struck)), m)
	if err := r.judge(j); err != nil {
		return false, err
	}
	if err := r.compare(ctx, dst, "while "+b.what+" lasts"); err != nil {
		return false, err
	}
	if err := r.mend(ctx, b); err != nil {
		return false, err
	}
	if err := r.compare(ctx, dst, "healthy again"); err != nil {
		return false, err
	}
	if err := removeBucket(ctx, r.api, dst); err != nil {
		return false, err
	}
	r.say("round %d: all %d objects are equal in source and destination; the destination is deleted", n, len(r.set.names))
	return true, nil
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
func (r *rounds) judge(j api.Job) error {
	want := r.set.amount()
	switch {
	case j.State != api.JobDone:
		return fmt.Errorf("job %s ended as %s: %s", j.ID, j.State, j.Message)
	case j.Planned == nil || *j.Planned != want:
		return fmt.Errorf("job %s planned %+v, want %+v", j.ID, j.Planned, want)
	case j.Done != want || j.Skipped.Objects+j.Failed.Objects+j.Dropped.Objects != 0:
		return fmt.Errorf("job %s: want %+v done, but done %+v, skipped %+v, failed %+v, dropped %+v", j.ID, want, j.Done, j.Skipped, j.Failed, j.Dropped)
	case j.Outputs.Objects > want.Objects:
		return &differenceError{duplicated: j.Outputs.Objects - want.Objects, lines: []string{
			fmt.Sprintf("job %s wrote %+v for %+v", j.ID, j.Outputs, want),
		}}
	case j.Outputs != want:
		return fmt.Errorf("job %s: got outputs %+v, want %+v", j.ID, j.Outputs, want)
	}
	return nil
}

// compare compares source and destination with what was written.
func (r *rounds) compare(ctx context.Context, dst api.Bucket, when string) error {
	for _, b := range []api.Bucket{r.src, dst} {
		if err := r.set.compare(ctx, r.api, b); err != nil {
			return fmt.Errorf("%s, %s: %w", b.URI, when, err)
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
