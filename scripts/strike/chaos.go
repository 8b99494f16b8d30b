package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sync/errgroup"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/client"
	"github.com/shoalstore/shoal/plugins/s3gateway/oneshot"
)

const (
	// chaosName is the name of the script.
	chaosName = "chaos"
	// workers is how many callers there are at once.
	workers = 4
	// outageLimit is how long no call of a worker may succeed while only one
	// node or disk is missing.
	outageLimit = time.Minute
)

// schemesOf are the schemes under which so many nodes can keep data.
func schemesOf(nodes int) []core.Scheme {
	all := []core.Scheme{core.None(), core.Mirror(2), core.Mirror(3), core.ErasureCoded(2, 1), core.ErasureCoded(3, 1), core.ErasureCoded(3, 2)}
	return slices.DeleteFunc(all, func(s core.Scheme) bool { return s.MinDomains() > nodes-1 })
}

// chaosBucket is a bucket of the traffic.
type chaosBucket struct {
	api.Bucket
	name   string
	alias  string
	scheme core.Scheme

	mu   sync.Mutex
	keys map[string]*key
}

// add adds a key that does not exist yet.
func (b *chaosBucket) add(name string) *key {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := &key{bucket: b, name: name, allowed: []value{{}}}
	b.keys[name] = k
	return k
}

// withPrefix are the keys whose names begin so, ever.
func (b *chaosBucket) withPrefix(prefix string) []*key {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []*key
	for name, k := range b.keys {
		if strings.HasPrefix(name, prefix) {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b *key) int { return strings.Compare(a.name, b.name) })
	return out
}

// chaos is traffic on all schemes while everything fails, one thing at a time.
type chaos struct {
	*harness
	counters

	prefix  string
	s3      []*s3.Client
	buckets []*chaosBucket
	sources *copies
	found   findings
	// renewing has the workers write the keys that are exposed.
	renewing atomic.Bool
}

func runChaos(ctx context.Context, h *harness) error {
	c := &chaos{harness: h, prefix: fmt.Sprintf("chaos-%d-%d", os.Getpid(), h.o.seed)}
	if err := c.prepare(ctx); err != nil {
		return err
	}
	err := c.rage(ctx)
	h.res.Objects, h.res.Bytes = c.written.Load(), c.bytes.Load()
	h.say("%d writes, %d reads, %d listings, %d copies; %d calls refused, %s the longest time without an answer for a worker",
		c.written.Load(), c.read.Load(), c.listed.Load(), c.sources.done.Load(), c.refused.Load(), tenths(c.outage.worst()))
	if err != nil {
		h.res.add(err)
		return err
	}
	if worst := c.outage.worst(); worst > outageLimit {
		return fmt.Errorf("a worker had no answer for %s, want %s at most", tenths(worst), outageLimit)
	}
	return nil
}

// prepare makes the buckets and what is copied.
func (c *chaos) prepare(ctx context.Context) error {
	nodes, err := c.api.Nodes(ctx)
	if err != nil {
		return err
	}
	access, secret := c.keys()
	for _, n := range nodes {
		if n.State == core.NodeActive {
			c.s3 = append(c.s3, oneshot.New(oneshot.Options{URL: n.URL, AccessKey: access, Secret: secret, Timeout: patience}))
		}
	}
	for _, s := range schemesOf(len(c.s3)) {
		b, err := c.bucket(ctx, s.String(), s)
		if err != nil {
			return err
		}
		c.buckets = append(c.buckets, &chaosBucket{Bucket: b, name: b.URI, alias: b.Alias, scheme: s, keys: map[string]*key{}})
	}
	c.sources, err = c.newCopies(ctx)
	return err
}

// bucket creates a bucket of which only the smallest objects have no shards.
func (c *chaos) bucket(ctx context.Context, name string, s core.Scheme) (api.Bucket, error) {
	small := int64(inline)
	name = c.prefix + "-" + strings.ReplaceAll(name, "+", "-")
	b, err := c.api.CreateBucket(ctx, core.BucketName{Provider: core.Shoal, Name: name}, api.CreateBucket{Props: api.Props{Scheme: &s, Inline: &small}})
	if err != nil {
		return b, fmt.Errorf("create bucket %s (%s): %w", name, s, err)
	}
	return b, nil
}

// rage has traffic and strikes until the time or the rounds are over, and
// checks everything once more at rest.
func (c *chaos) rage(ctx context.Context) error {
	traffic, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	for i := range workers {
		w := c.newWorker(i)
		wg.Go(func() { w.run(traffic) })
	}
	wg.Go(func() { c.lister(traffic) })
	copying := make(chan error, 1)
	wg.Go(func() { copying <- c.sources.run(traffic) })
	err := c.strikes(ctx, copying)
	stop()
	wg.Wait()
	select {
	case cerr := <-copying:
		err = errors.Join(err, cerr)
	default:
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// What the traffic saw explains more than what a strike ran into.
	if err := errors.Join(c.found.err(), err); err != nil {
		return err
	}
	if took, err := c.healthy(ctx); err != nil {
		return err
	} else {
		c.say("at rest; fully redundant %s later", tenths(took))
	}
	if err := c.checkAll(ctx, "at rest"); err != nil {
		return err
	}
	if c.dev == "" {
		return nil
	}
	return c.prove(ctx)
}

// prove reads everything once more without a node: what is fully redundant
// bears that.
func (c *chaos) prove(ctx context.Context) error {
	node, err := c.randomNode(ctx, c.o.draw("proof", 0))
	if err != nil {
		return err
	}
	b := c.process(node, "kill", "start")
	if err := c.hit(ctx, b); err != nil {
		return err
	}
	c.exposeAll()
	if err := c.checkAll(ctx, "without "+string(node)); err != nil {
		return err
	}
	return c.undo(ctx, b)
}

// exposeAll says that objects without redundancy may be unreadable.
func (c *chaos) exposeAll() {
	for _, b := range c.buckets {
		if b.scheme.Width() == 1 {
			for _, k := range b.withPrefix("") {
				k.expose(true)
			}
		}
	}
}

// exposed are a worker's keys that may be unreadable; "" stands for all workers.
func (c *chaos) exposed(prefix string) []*key {
	var out []*key
	for _, b := range c.buckets {
		if b.scheme.Width() == 1 {
			out = append(out, slices.DeleteFunc(b.withPrefix(prefix), func(k *key) bool { return !k.exposed() })...)
		}
	}
	return out
}

// renew has all objects without redundancy written anew, after some of them
// were destroyed: nothing else brings them back.
func (c *chaos) renew(ctx context.Context) error {
	c.exposeAll() // also what was written in the meantime
	if err := c.sources.renew(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.o.timeout)
	defer cancel()
	c.renewing.Store(true)
	defer c.renewing.Store(false)
	for {
		left := len(c.exposed(""))
		if left == 0 {
			return nil
		}
		if wait(ctx, 50*time.Millisecond) != nil {
			return fmt.Errorf("%d objects of scheme none cannot be written anew: %w", left, ctx.Err())
		}
	}
}

// checkAll lists every bucket and reads every key.
func (c *chaos) checkAll(ctx context.Context, when string) error {
	began := time.Now()
	for _, b := range c.buckets {
		if err := c.listAll(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", when, err)
		}
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(atOnce)
		for _, k := range b.withPrefix("") {
			g.Go(func() error {
				v, err := c.readValue(gctx, k)
				switch {
				case err == nil:
					if err := k.observe(v); err != nil {
						c.amiss(v, fmt.Errorf("%s: %w", when, err))
					}
				case gctx.Err() != nil:
					return gctx.Err()
				case !k.exposed():
					c.found.note(&c.found.lost, "%s: %s/%s cannot be read: %v", when, b.name, k.name, err)
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	if err := c.found.err(); err != nil {
		return err
	}
	c.say("%s: all keys of %d buckets are as they were written (%s)", when, len(c.buckets), tenths(time.Since(began)))
	return nil
}

// readValue reads a key until some node answers.
func (c *chaos) readValue(ctx context.Context, k *key) (value, error) {
	limit := time.Now().Add(outageLimit)
	for i := 0; ; i++ {
		v, err := getValue(ctx, c.s3[i%len(c.s3)], k)
		if err == nil || ctx.Err() != nil || time.Now().After(limit) || k.exposed() && i >= len(c.s3) {
			return v, err
		}
		_ = wait(ctx, 100*time.Millisecond)
	}
}

// lister lists whole buckets while others write them.
func (c *chaos) lister(ctx context.Context) {
	rnd := c.o.draw("lister", 0)
	calls := context.WithoutCancel(ctx)
	for ctx.Err() == nil {
		if err := c.listAll(calls, c.buckets[rnd.IntN(len(c.buckets))]); err != nil {
			c.refused.Add(1)
		}
		_ = wait(ctx, 200*time.Millisecond)
	}
}

// listAll lists a bucket and checks each key that was there, or not there, all
// the time.
func (c *chaos) listAll(ctx context.Context, b *chaosBucket) error {
	before := map[*key]snapshot{}
	for _, k := range b.withPrefix("") {
		before[k] = k.snapshot()
	}
	name, err := bucketName(b.Bucket)
	if err != nil {
		return err
	}
	held := map[string]value{}
	for o, err := range c.api.List(ctx, name, client.ListOptions{}) {
		if err != nil {
			return fmt.Errorf("list %s: %w", b.name, err)
		}
		if _, twice := held[o.Name]; twice {
			c.found.note(&c.found.duplicated, "%s lists %s twice", b.name, o.Name)
		}
		held[o.Name] = value{o.ETag, o.Size}
	}
	for k, s := range before {
		v := held[k.name]
		if err := k.listed(s, v); err != nil {
			c.amiss(v, err)
		}
	}
	// Keys made since then are in the bucket's table before they are written.
	b.mu.Lock()
	defer b.mu.Unlock()
	for n := range held {
		if b.keys[n] == nil {
			c.found.note(&c.found.wrong, "%s lists %s, which nobody wrote", b.name, n)
		}
	}
	c.listed.Add(1)
	return nil
}

// strikes strikes, heals, and strikes again.
func (c *chaos) strikes(ctx context.Context, copying <-chan error) error {
	end := time.Now().Add(time.Duration(c.o.minutes * float64(time.Minute)))
	deck := c.newDeck()
	for n := 1; ctx.Err() == nil; n++ {
		if c.o.minutes > 0 && !time.Now().Before(end) || c.o.minutes == 0 && n > c.o.rounds {
			return nil
		}
		if err := c.strikeOnce(ctx, deck.draw(), n); err != nil {
			return fmt.Errorf("strike %d: %w", n, err)
		}
		c.res.Rounds++
		select {
		case err := <-copying:
			return err
		default:
		}
		if c.found.err() != nil {
			return nil // the caller tells
		}
	}
	return ctx.Err()
}

// strikeOnce does one harm, takes it back, and waits until all is redundant.
func (c *chaos) strikeOnce(ctx context.Context, h harm, n int) error {
	rnd := c.o.draw("strike", n)
	if err := wait(ctx, time.Duration(500+rnd.IntN(1500))*time.Millisecond); err != nil {
		return err
	}
	if h.destroys {
		release, err := c.sources.hold(ctx)
		if err != nil {
			return err
		}
		defer release()
	}
	b, err := h.choose(ctx, c, rnd)
	if err != nil {
		return fmt.Errorf("%s: %w", h.name, err)
	}
	if b == nil {
		return nil
	}
	if h.destroys {
		c.exposeAll()
	}
	course, sampled := c.sample(ctx)
	c.outage.next()
	struck := time.Now()
	if err := c.hit(ctx, b); err != nil {
		return err
	}
	if err := wait(ctx, h.lasts(rnd)); err != nil {
		return err
	}
	if err := c.undo(ctx, b); err != nil {
		return err
	}
	lasted := time.Since(struck)
	if h.destroys {
		if err := c.renew(ctx); err != nil {
			return fmt.Errorf("%s: %w", b.what, err)
		}
	}
	if b.mend != nil {
		if err := b.mend(ctx); err != nil {
			return fmt.Errorf("%s: %w", b.what, err)
		}
	}
	took, err := c.healthy(ctx)
	sampled()
	if err != nil {
		return fmt.Errorf("%s: %w", b.what, err)
	}
	m := course().measure(struck)
	c.res.courses = append(c.res.courses, m)
	c.say("strike %d: %s lasted %s, fully redundant %s later; no answer for %s at most; %s",
		n, b.what, tenths(lasted), tenths(took), tenths(c.outage.sinceStrike()), m)
	return nil
}

// sample follows how much the traffic moves until stop is called.
func (c *chaos) sample(ctx context.Context) (result func() course, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var out course
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			out = out.add(time.Now(), c.bytes.Load())
			if wait(ctx, 100*time.Millisecond) != nil {
				return
			}
		}
	}()
	// The strike comes after what is needed to compare with.
	_ = wait(ctx, 2*time.Second)
	return func() course { <-done; return out }, cancel
}
