package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/plugins/cloudtest"
)

// bucketOf is the bucket of each server; its alias in the cluster is its name.
func bucketOf(k cloudtest.Kind) string { return "bench-" + string(k) }

// cloud is a server of others behind a proxy, and the two ways to its objects:
// past the cluster, and through it. Both pass the proxy.
type cloud struct {
	c            *cluster
	kind         cloudtest.Kind
	server       *cloudtest.Server
	proxy        *cloudtest.Proxy
	direct, ours party
	seedTo       party // past the proxy, too
	pids         []int
}

// party is one of the two. It makes a request of an object.
type party struct {
	*side
	make func(ctx context.Context, method, key string, body io.Reader, size int64) (*http.Request, error)
}

// gcsParty speaks to a GCS server, as [side] does to one of S3.
func gcsParty(name, bucket, endpoint string) party {
	s := newSide(name, bucket, endpoint)
	return party{s, func(ctx context.Context, method, key string, body io.Reader, size int64) (*http.Request, error) {
		where := endpoint + "/storage/v1/b/" + bucket + "/o/" + url.PathEscape(key) + "?alt=media"
		if method == http.MethodPut {
			method, where = http.MethodPost, endpoint+"/upload/storage/v1/b/"+bucket+"/o?uploadType=media&name="+url.QueryEscape(key)
		}
		r, err := http.NewRequestWithContext(ctx, method, where, body)
		if err == nil {
			r.ContentLength = size
		}
		return r, err
	}}
}

func s3Party(name, bucket string, endpoints ...string) party {
	s := newSide(name, bucket, endpoints...)
	return party{s, s.request}
}

// slow is the second setting of the proxy.
func slow() cloudtest.Rule {
	return cloudtest.Rule{Latency: 50 * time.Millisecond, Bandwidth: 32 << 20}
}

// remote compares the cluster before a cloud with the cloud itself.
func (b *bench) remote(ctx context.Context) error {
	b.line("## Remote buckets\n")
	b.line("Five nodes with three disks each before versitygw and fake-gcs-server on the same machine, all through a proxy (plugins/cloudtest) that counts requests and can be slow: 50 ms before each request, and 32 MiB/s in each direction of a connection. The cluster keeps what it reads in two copies (mirror-2); who reads directly keeps nothing. Clients ask the nodes in turns, so that four of five requests come to a node that does not own the key. *Cold* is not present in the cluster, *warm* was read before. *Peak* is the largest resident memory of any node while the line was measured. Medians of %d rounds (objects of %d MiB: %d).\n", b.o.rounds, b.o.remote, b.hugeRounds())
	return b.withClouds(ctx, func(s3, gcs *cloud) error {
		for _, l := range []*cloud{s3, gcs} {
			for _, rules := range [][]cloudtest.Rule{nil, {slow()}} {
				if err := b.cloudReads(ctx, l, rules); err != nil {
					return err
				}
				if err := b.cloudWrites(ctx, l, rules); err != nil {
					return err
				}
			}
		}
		return b.cloudRequests(ctx, s3)
	})
}

func (b *bench) hugeRounds() int { return min(b.o.rounds, 3) }

// withClouds runs f on a cluster before both servers.
func (b *bench) withClouds(ctx context.Context, f func(s3, gcs *cloud) error) (err error) {
	var clouds []*cloud
	env := []string{
		"SHOAL_BACKENDS_S3_ACCESS_KEY=" + config.DevAccessKey, "SHOAL_BACKENDS_S3_SECRET_KEY=" + config.DevSecretKey,
		"SHOAL_BACKENDS_S3_REGION=us-east-1", "SHOAL_BACKENDS_S3_CONDITIONS=true",
	}
	var flags []string
	for kind, provider := range map[cloudtest.Kind]string{cloudtest.S3: "s3", cloudtest.GCS: "gs"} {
		l := &cloud{kind: kind}
		if l.server, err = cloudtest.Start(ctx, cloudtest.Options{
			Kind: kind, Memory: true, AccessKey: config.DevAccessKey, Secret: config.DevSecretKey, Buckets: []string{bucketOf(kind)},
		}); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, l.server.Close()) }()
		if l.proxy, err = cloudtest.StartProxy(cloudtest.ProxyOptions{Kind: kind, Upstream: l.server.URL()}); err != nil { //nolint:contextcheck // a proxy lives until Close
			return err
		}
		defer func() { err = errors.Join(err, l.proxy.Close()) }()
		flags = append(flags, "--backend", provider+"="+l.proxy.URL())
		clouds = append(clouds, l)
	}
	slices.SortFunc(clouds, func(x, y *cloud) int { return -strings.Compare(string(x.kind), string(y.kind)) })
	c, err := startClusterWith(ctx, b.o.shoal, 5, 3, env, flags...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop(ctx)) }()
	for _, l := range clouds {
		if err := l.attach(ctx, c); err != nil {
			return err
		}
	}
	return f(clouds[0], clouds[1])
}

// attach makes a cloud's bucket known to the cluster.
func (l *cloud) attach(ctx context.Context, c *cluster) error {
	l.c = c
	bucket := bucketOf(l.kind)
	l.ours = s3Party("the cluster", bucket, c.endpoints...)
	provider := "s3"
	if l.kind == cloudtest.GCS {
		provider = "gs"
		l.direct, l.seedTo = gcsParty("the server", bucket, l.proxy.URL()), gcsParty("the server", bucket, l.server.URL())
	} else {
		l.direct, l.seedTo = s3Party("the server", bucket, l.proxy.URL()), s3Party("the server", bucket, l.server.URL())
	}
	if _, err := c.run(ctx, "bucket", "create", provider+"://"+bucket); err != nil {
		return err
	}
	for _, n := range c.status(ctx) {
		l.pids = append(l.pids, n.PID)
	}
	// Each node makes its connections and the first of everything.
	const first = 64 << 10
	for i := range c.endpoints {
		key := fmt.Sprintf("first-%d", i)
		if err := l.seed(ctx, first, key); err != nil {
			return err
		}
		for _, p := range []party{l.direct, l.ours} {
			if _, err := p.get(ctx, key, first); err != nil {
				return err
			}
		}
	}
	return nil
}

// seed writes objects to the server alone.
func (l *cloud) seed(ctx context.Context, size int64, keys ...string) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, k := range keys {
		g.Go(func() error {
			_, err := l.seedTo.put(ctx, k, size)
			return err
		})
	}
	return g.Wait()
}

// evict makes an object of the cluster cold again.
func (l *cloud) evict(ctx context.Context, prefix string) error {
	uri := "s3://"
	if l.kind == cloudtest.GCS {
		uri = "gs://"
	}
	_, err := l.c.run(ctx, "evict", uri+bucketOf(l.kind), "--prefix", prefix, "--yes", "--keep-md")
	return err
}

// pattern is a body of n bytes that costs nothing to make.
type pattern struct {
	block []byte
	left  int64
}

func newPattern(n int64) io.Reader {
	return &pattern{payload(int(min(n, 1<<20))), n}
}

func (p *pattern) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	// Not aligned, so that no two blocks of an object are the same.
	from := int(p.left % int64(len(p.block)))
	n := copy(b[:min(int64(len(b)), p.left)], p.block[from:])
	p.left -= int64(n)
	return n, nil
}

// timing is how long a request took.
type timing struct{ first, whole time.Duration }

// put writes an object.
func (p party) put(ctx context.Context, key string, size int64) (timing, error) {
	began := time.Now()
	r, err := p.make(ctx, http.MethodPut, key, newPattern(size), size)
	if err != nil {
		return timing{}, err
	}
	resp, err := p.answer(r)
	if err != nil {
		return timing{}, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return timing{whole: time.Since(began)}, errors.Join(err, resp.Body.Close())
}

// get reads an object, which must have so many bytes.
func (p party) get(ctx context.Context, key string, size int64) (timing, error) {
	return p.send(ctx, http.MethodGet, key, "", size)
}

// send makes a request without a body, of a range if that is not "", and reads
// the answer to its end.
func (p party) send(ctx context.Context, method, key, ranged string, size int64) (timing, error) {
	began := time.Now()
	r, err := p.make(ctx, method, key, http.NoBody, 0)
	if err != nil {
		return timing{}, err
	}
	if ranged != "" {
		r.Header.Set("Range", ranged)
	}
	resp, err := p.answer(r)
	if err != nil {
		return timing{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	var t timing
	var got int64
	buf := make([]byte, 256<<10)
	for err == nil {
		var n int
		n, err = resp.Body.Read(buf)
		if got == 0 {
			t.first = time.Since(began)
		}
		got += int64(n)
	}
	t.whole = time.Since(began)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err == nil && size >= 0 && got != size {
		err = fmt.Errorf("%s %s of %s: %d bytes, want %d", method, key, p.name, got, size)
	}
	return t, err
}

// series are the timings of one party.
type series []timing

// firstByte is the median, in milliseconds.
func (s series) firstByte() float64 {
	var v []float64
	for _, t := range s {
		v = append(v, t.first.Seconds()*1e3)
	}
	return median(v)
}

// rate is the median of what went through, in MiB per second.
func (s series) rate(size int64) float64 {
	var v []float64
	for _, t := range s {
		v = append(v, float64(size)/(1<<20)/t.whole.Seconds())
	}
	return median(v)
}

// cloudSize is one size of an object, with how it is measured.
type cloudSize struct {
	bytes  int64
	rounds int
	each   int // objects in a round
}

func (b *bench) cloudSizes(k cloudtest.Kind) []cloudSize {
	out := []cloudSize{{64 << 10, b.o.rounds, 8}, {16 << 20, b.o.rounds, 1}}
	if k == cloudtest.S3 {
		out = append(out, cloudSize{int64(b.o.remote) << 20, b.hugeRounds(), 1})
	}
	return out
}

// huge says whether there is one object of this size, which is evicted between the
// rounds.
func (s cloudSize) huge() bool { return s.bytes > 16<<20 }

// keys are those of a round.
func (s cloudSize) keys(round int, what string) (out []string) {
	if s.huge() {
		return []string{"huge"}
	}
	for i := range s.each {
		out = append(out, fmt.Sprintf("%s-%d-%d-%d", what, s.bytes, round, i))
	}
	return out
}

// resetPeaks and peak measure the nodes' memory.
func (l *cloud) resetPeaks() error {
	for _, pid := range l.pids {
		if err := resetPeak(pid); err != nil {
			return err
		}
	}
	return nil
}

func (l *cloud) peak() float64 {
	var most int64
	for _, pid := range l.pids {
		most = max(most, peakRSS(pid))
	}
	return float64(most) / (1 << 20)
}

func (l *cloud) title(what string, rules []cloudtest.Rule) string {
	setting := "0 ms"
	if len(rules) > 0 {
		setting = "50 ms, 32 MiB/s per connection"
	}
	return fmt.Sprintf("%s, %s: %s", l.kind.Program(), setting, what)
}

// label tells settings apart in keys.
func label(rules []cloudtest.Rule) string {
	if len(rules) > 0 {
		return "slow"
	}
	return "fast"
}

// cloudReads compares GETs.
func (b *bench) cloudReads(ctx context.Context, l *cloud, rules []cloudtest.Rule) error {
	b.line("| %s | first byte, ms: direct | cold | target | warm | MiB/s: direct | cold | warm | cold : direct | target | peak, MiB |", l.title("GET", rules))
	b.line("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
	for _, size := range b.cloudSizes(l.kind) {
		var d, c, w series
		if err := l.settle(ctx); err != nil {
			return err
		}
		for round := range size.rounds {
			keys := size.keys(round, "get-"+label(rules))
			l.proxy.SetRules()
			if !size.huge() || round == 0 && len(rules) == 0 {
				if err := l.seed(ctx, size.bytes, keys...); err != nil {
					return err
				}
			} else if err := l.evict(ctx, "huge"); err != nil {
				return err
			}
			if round == 0 {
				if err := l.resetPeaks(); err != nil {
					return err
				}
			}
			l.proxy.SetRules(rules...)
			turns := []func() error{
				func() error { return l.direct.getAll(ctx, keys, size.bytes, &d) },
				func() error {
					if err := l.ours.getAll(ctx, keys, size.bytes, &c); err != nil {
						return err
					}
					if err := l.settle(ctx); err != nil {
						return err
					}
					return l.ours.getAll(ctx, keys, size.bytes, &w)
				},
			}
			if round%2 == 1 {
				slices.Reverse(turns)
			}
			for _, turn := range turns {
				if err := turn(); err != nil {
					return err
				}
			}
		}
		goal := ""
		if size.huge() && len(rules) > 0 {
			goal = ">= 4"
		}
		b.line("| %s | %.1f | %.1f | <= %.1f | %.1f | %.1f | %.1f | %.1f | %.2f | %s | %.0f |", sizeName(int(size.bytes)),
			d.firstByte(), c.firstByte(), 1.2*d.firstByte()+2, w.firstByte(),
			d.rate(size.bytes), c.rate(size.bytes), w.rate(size.bytes), c.rate(size.bytes)/d.rate(size.bytes), goal, l.peak())
	}
	l.proxy.SetRules()
	b.line("")
	return nil
}

// getAll reads objects one after the other.
func (p party) getAll(ctx context.Context, keys []string, size int64, into *series) error {
	for _, k := range keys {
		t, err := p.get(ctx, k, size)
		if err != nil {
			return err
		}
		*into = append(*into, t)
	}
	return nil
}

// putAll writes objects one after the other.
func (p party) putAll(ctx context.Context, keys []string, size int64, into *series) error {
	for _, k := range keys {
		t, err := p.put(ctx, k, size)
		if err != nil {
			return err
		}
		*into = append(*into, t)
	}
	return nil
}

// settle waits until nothing has been asked of the server for a while, so that
// what was fetched is stored.
func (l *cloud) settle(ctx context.Context) error {
	const quiet, look = 500 * time.Millisecond, 50 * time.Millisecond
	tick := time.NewTicker(look)
	defer tick.Stop()
	before, since := l.proxy.Counts().Of(), time.Now()
	for {
		select {
		case now := <-tick.C:
			c := l.proxy.Counts()
			if is := c.Of(); c.Active > 0 || is != before {
				before, since = is, now
			} else if now.Sub(since) > quiet {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// cloudWrites compares PUTs: written to the server, or through the cluster, which
// answers when it and the server have the object.
func (b *bench) cloudWrites(ctx context.Context, l *cloud, rules []cloudtest.Rule) error {
	b.line("| %s | ms: direct | through | MiB/s: direct | through | through : direct | peak, MiB |", l.title("PUT", rules))
	b.line("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
	for _, size := range b.cloudSizes(l.kind) {
		var d, t series
		if size.huge() && len(rules) > 0 {
			size.rounds = 1 // half a minute each
		}
		if err := l.resetPeaks(); err != nil {
			return err
		}
		l.proxy.SetRules(rules...)
		for round := range size.rounds {
			var direct, through []string
			for i := range size.each {
				direct = append(direct, fmt.Sprintf("put-direct-%d-%d", size.bytes, i))
				through = append(through, fmt.Sprintf("put-through-%d-%d", size.bytes, i))
			}
			turns := []func() error{
				func() error { return l.direct.putAll(ctx, direct, size.bytes, &d) },
				func() error { return l.ours.putAll(ctx, through, size.bytes, &t) },
			}
			if round%2 == 1 {
				slices.Reverse(turns)
			}
			for _, turn := range turns {
				if err := turn(); err != nil {
					return err
				}
			}
		}
		b.line("| %s | %.1f | %.1f | %.1f | %.1f | %.2f | %.0f |", sizeName(int(size.bytes)), d.wholeMS(), t.wholeMS(),
			d.rate(size.bytes), t.rate(size.bytes), t.rate(size.bytes)/d.rate(size.bytes), l.peak())
	}
	l.proxy.SetRules()
	b.line("")
	return nil
}

// wholeMS is the median of the whole time, in milliseconds.
func (s series) wholeMS() float64 {
	var v []float64
	for _, t := range s {
		v = append(v, t.whole.Seconds()*1e3)
	}
	return median(v)
}
