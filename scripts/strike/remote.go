package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/client"
	"github.com/shoalstore/shoal/plugins/cloudtest"
	"github.com/shoalstore/shoal/scripts/clouds"
)

// ends are the remote buckets of copies, on servers that the harness starts, and
// a proxy of ours before each of them.
type ends struct {
	*clouds.Pair
	from, to core.BucketName
	// known are the buckets that a cluster of others was told about.
	known []core.BucketName
}

// remoteNames are the buckets that --from and --to name.
func (o *options) remoteNames() (from, to core.BucketName, err error) {
	for _, f := range []struct {
		flag, uri string
		provider  core.Provider
		to        *core.BucketName
	}{{"--from", o.from, core.S3, &from}, {"--to", o.to, core.GCS, &to}} {
		u, err := core.ParseURI(f.uri)
		if err != nil || u.Bucket.Provider != f.provider || u.Key != "" {
			return from, to, usagef("%s %q: want a bucket, as %s://NAME", f.flag, f.uri, f.provider)
		}
		*f.to = u.Bucket
	}
	return from, to, nil
}

// startEnds starts the servers.
func startEnds(ctx context.Context, o *options) (*ends, error) {
	from, to, err := o.remoteNames()
	if err != nil {
		return nil, err
	}
	p, err := clouds.Start(ctx, clouds.Options{S3Buckets: []string{from.Name}, Proxies: true, Host: o.host})
	if err != nil {
		return nil, cannotf("start the servers: %w", err)
	}
	e := &ends{Pair: p, from: from, to: to}
	if o.endpoint != "" {
		if err := p.Publish(ctx, from.Name); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	e.S3Proxy.SetRules(o.faults()...)
	return e, nil
}

func (e *ends) close() error {
	if e == nil {
		return nil
	}
	return e.Close()
}

// faults are what --faulty does to the source.
func (o *options) faults() []cloudtest.Rule {
	if !o.faulty {
		return nil
	}
	return []cloudtest.Rule{
		{Latency: 50 * time.Millisecond},
		{Share: 0.05, Fault: cloudtest.Answer, Status: 503},
		{Share: 0.01, Fault: cloudtest.ResetBefore},
		{Ops: []cloudtest.Op{cloudtest.GetObject}, Share: 0.01, Fault: cloudtest.ResetBody, At: 700},
		{Share: 0.005, Fault: cloudtest.ResetAfter},
	}
}

// large is the size of the objects that go in parts, one in largeEvery where the
// sizes are mixed.
const (
	large      = 12 << 20
	largeEvery = 500
	mixedMost  = 64 << 10
)

// uploadBooks are the uploads of all rounds, as the proxy before the destination
// counted them.
type uploadBooks struct {
	// Requests wrote an object or were to; Written of them did, Refused met one that
	// was there already.
	Requests int `json:"requests"`
	Written  int `json:"written"`
	Refused  int `json:"refused"`
	// InFlight are the objects that were being uploaded at a strike; Repeated those
	// of them that were written once more after it, which is no fault.
	InFlight int `json:"in_flight"`
	Repeated int `json:"repeated"`
	// Listings are the calls that listed the source.
	Listings int64 `json:"listings"`
}

// remoteRounds is a run of a script between remote buckets.
type remoteRounds struct {
	*rounds
	*ends
}

// run puts the source past the cluster and does the rounds.
func (r *remoteRounds) run(ctx context.Context) (err error) {
	h := r.harness
	began := time.Now()
	if err := r.set.putAt(ctx, r.Source(), r.from.Name); err != nil {
		return err
	}
	h.res.Uploads = &uploadBooks{}
	h.say("%d objects, %s, at %s after %s", len(r.set.names), bytesText(float64(r.set.amount().Bytes)), r.from, tenths(time.Since(began)))
	if r.tasks, err = h.newTasks(ctx, r.set); err != nil {
		return err
	}
	return r.repeat(ctx, "more --objects or a larger --size", r.one)
}

// one is a round: a job over what is not present, a strike at a random moment of
// it, and the comparisons. It does not count if the job was over before.
func (r *remoteRounds) one(ctx context.Context, n, attempt int) (counts bool, err error) {
	rnd := r.o.draw(fmt.Sprintf("round %d", n), attempt)
	// The moment is a part of the uploads, of which one in ten is before the first.
	share := max(0, rnd.Float64()*1.05-0.1)
	t := r.tasks.draw(rnd)
	dst := core.BucketName{Provider: r.to.Provider, Name: fmt.Sprintf("%s-%d-%d", r.to.Name, n, attempt)}
	if err := r.prepare(ctx, dst); err != nil {
		return false, err
	}
	before := r.S3Proxy.Counts()
	jctx, cancel := context.WithTimeout(ctx, r.o.timeout)
	defer cancel()
	j, err := r.api.StartJob(jctx, api.JobSpec{
		Kind: t.kind, Args: t.args, From: r.from.String(), To: dst.String(), All: true, ClientToken: dst.Name, RateLimit: api.RateLimit{Objects: r.o.rate},
	})
	if err != nil {
		return false, fmt.Errorf("start the job: %w", err)
	}
	moment := int(share * float64(len(t.want.names)))
	r.say("round %d: %s (%s) to %s, to be struck at %d uploads", n, j.ID, t.what, dst, moment)
	w := watch(jctx, r.api, j)
	r.await(ctx, w, dst.Name, moment)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	v, b, err := r.aim(ctx, rnd, n, w)
	if err != nil {
		return false, err
	}
	at, was := w.last(), r.GCSProxy.Uploads(dst.Name)
	struck := time.Now()
	if b != nil {
		if err := r.hit(ctx, b); err != nil {
			return false, err
		}
	}
	flying := inFlight(was, r.GCSProxy.Uploads(dst.Name))
	j, course, err := w.result()
	if err != nil {
		return false, r.unended(ctx, j, b, struck, err)
	}
	missed := b == nil || j.Ended != nil && j.Ended.Before(struck)
	if !missed {
		r.res.struck(v)
		m := course.measure(struck)
		r.res.courses = append(r.res.courses, m)
		r.say("round %d: struck at %d uploads (%s); the job is %s %s later; %s",
			n, len(was), at.State, j.State, tenths(time.Since(struck)), m)
	}
	// What is at the ends tells a wrong book from a loss.
	if err := errors.Join(r.judge(j, &t), r.check(ctx, &t, dst, flying)); err != nil {
		return false, err
	}
	r.res.Uploads.Listings += r.S3Proxy.Counts().Sub(before).Of(cloudtest.List).Requests
	if b != nil {
		if err := r.mend(ctx, b); err != nil {
			return false, err
		}
	}
	if missed {
		r.say("round %d: %s was over before the strike; again", n, j.ID)
		return false, nil
	}
	u := r.res.Uploads
	r.say("round %d: all %d objects at %s are what they were, and all %d at %s what they are to be; up to now %d uploads were sent, %d took effect and %d met what was there, %d were under way at a strike and %d of these repeated",
		n, len(r.set.names), r.from, len(t.want.names), dst, u.Requests, u.Written, u.Refused, u.InFlight, u.Repeated)
	return true, r.drop(ctx, dst)
}

// prepare makes the destination, has the cluster keep both buckets by the script's
// scheme, and forget what it has of the source.
func (r *remoteRounds) prepare(ctx context.Context, dst core.BucketName) error {
	if err := r.GCS.CreateBucket(ctx, dst.Name); err != nil {
		return err
	}
	for _, b := range []core.BucketName{r.from, dst} {
		if err := r.tell(ctx, b); err != nil {
			return err
		}
	}
	return r.drop(ctx, r.from)
}

// tell sets a bucket's properties. A cluster that was started before the servers is
// also told where the bucket is, before anything else asks for it.
func (r *remoteRounds) tell(ctx context.Context, b core.BucketName) error {
	small := int64(inline)
	props := api.Props{Inline: &small}
	if r.s.name != "" {
		props.Scheme = &r.s.scheme
	}
	if r.own {
		if _, err := r.api.SetBucket(ctx, b, api.SetBucket{Props: props}); err != nil {
			return fmt.Errorf("set the scheme of %s: %w", b, err)
		}
		return nil
	}
	if slices.Contains(r.known, b) {
		return nil
	}
	at := r.Settings(b.Provider)
	props.Endpoint, props.Region, props.Anonymous = &at.Endpoint, &at.Region, &at.Anonymous
	props.PathStyle, props.Conditions = &at.PathStyle, &at.Conditions
	_, err := r.api.CreateBucket(ctx, b, api.CreateBucket{Props: props})
	switch {
	case errors.Is(err, core.ErrExists):
		return usagef("%s is known to the cluster at --endpoint already: give other names", b)
	case err != nil:
		return fmt.Errorf("tell the cluster of %s at %s: %w", b, at.Endpoint, err)
	}
	r.known = append(r.known, b)
	return nil
}

// forget has a cluster of others forget the buckets, whose servers are to end.
func (e *ends) forget(ctx context.Context, c *client.Client) error {
	if e == nil {
		return nil
	}
	var errs []error
	for _, b := range e.known {
		if err := c.DeleteBucket(ctx, b); err != nil {
			errs = append(errs, fmt.Errorf("forget %s: %w", b, err))
		}
	}
	e.known = nil
	return errors.Join(errs...)
}

// drop removes what the cluster holds of a bucket.
func (r *remoteRounds) drop(ctx context.Context, b core.BucketName) error {
	j, err := r.api.StartJob(ctx, api.JobSpec{Kind: "evict", From: b.String()})
	if err == nil {
		j, err = r.api.WatchJob(ctx, j.ID, 100*time.Millisecond, func(api.Job) {})
	}
	if err != nil {
		return fmt.Errorf("evict %s: %w", b, err)
	}
	if j.State != api.JobDone {
		return fmt.Errorf("evict %s: job %s is %s: %s", b, j.ID, j.State, j.Message)
	}
	return nil
}

// await returns once so many objects have been uploaded, or the job has ended.
func (r *remoteRounds) await(ctx context.Context, w *watched, bucket string, n int) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	group.Go(func() {
		select {
		case <-w.done:
			cancel()
		case <-ctx.Done():
		}
	})
	_ = r.GCSProxy.Await(ctx, func(cloudtest.Counts) bool { return len(r.GCSProxy.Uploads(bucket)) >= n })
}

// inFlight are the objects of which an upload was under way between two states.
func inFlight(before, after map[string]cloudtest.Upload) map[string]bool {
	out := map[string]bool{}
	for key, u := range after {
		// What was written before had no reason to be written again.
		if was := before[key]; was.Written == 0 && (was.Active > 0 || u.Active > 0 || u.Sent > was.Sent) {
			out[key] = true
		}
	}
	return out
}

// check compares the uploads with what was in flight at the strike, and both ends
// with what was put.
func (r *remoteRounds) check(ctx context.Context, t *task, dst core.BucketName, flying map[string]bool) error {
	uploads := r.GCSProxy.Uploads(dst.Name)
	books, f := r.res.Uploads, &findings{}
	books.InFlight += len(flying)
	for key, u := range uploads {
		if _, ok := t.want.objects[key]; !ok {
			continue // a part of an upload
		}
		books.Requests += u.Sent
		books.Written += u.Written
		books.Refused += u.Refused
		switch {
		case u.Written > 1 && flying[key]:
			books.Repeated++
		case u.Written > 1:
			f.note(&f.duplicated, "%s/%s was uploaded %d times, and not under way at the strike", dst, key, u.Written)
		}
	}
	if err := f.err(); err != nil {
		return err
	}
	return r.compareEnds(ctx, t, dst)
}

// compareEnds compares both ends with what they are to hold, past the cluster.
func (r *remoteRounds) compareEnds(ctx context.Context, t *task, dst core.BucketName) error {
	for _, end := range []struct {
		store  clouds.Store
		bucket core.BucketName
		set    *dataSet
	}{{r.Source(), r.from, r.set}, {r.Destination(), dst, t.want}} {
		if err := end.set.compareAt(ctx, end.store, end.bucket); err != nil {
			return fmt.Errorf("%s: %w", end.bucket, err)
		}
	}
	return nil
}

// putAt writes the set past the cluster.
func (d *dataSet) putAt(ctx context.Context, s clouds.Store, bucket string) error {
	for _, name := range d.names {
		d.objects[name] = object{d.sizes[name], sha256.Sum256(content(d.seed, name, d.sizes[name]))}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, name := range d.names {
		g.Go(func() error {
			if err := s.Put(ctx, bucket, name, bytes.NewReader(content(d.seed, name, d.sizes[name]))); err != nil {
				return fmt.Errorf("put %s/%s: %w", bucket, name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// compareAt lists a bucket past the cluster and reads every byte of it.
func (d *dataSet) compareAt(ctx context.Context, s clouds.Store, bucket core.BucketName) error {
	list := func(yield func(api.Object, error) bool) {
		for o, err := range s.List(ctx, bucket.Name) {
			if !yield(api.Object{Name: o.Key, Size: o.Size}, err) {
				return
			}
		}
	}
	return d.compareWith(ctx, bucket.String(), list, func(ctx context.Context, key string) (object, error) {
		r, err := s.Open(ctx, bucket.Name, key)
		if err != nil {
			return object{}, err
		}
		defer func() { _ = r.Close() }()
		return sumOf(r)
	})
}
