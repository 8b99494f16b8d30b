package e2e_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/shoalstore/shoal/plugins/s3gateway/oneshot"
)

const (
	// A round has keys of its own, so that histories stay short.
	roundTime   = 5 * time.Second
	keysOfRound = 4
	callers     = 8
	// maxOpen is how many calls of a key may stay open before it is only read.
	maxOpen = 6
)

// TestLinearizable has clients of S3 write, read, remove and list few keys of a
// cluster whose nodes are killed, frozen and started again, and checks that the
// keys behaved as if they were on one machine.
func TestLinearizable(t *testing.T) {
	rnd := newRand(t)
	c := startCluster(t, 5, 2)
	c.bucket("data-mirror", "mirror-2")
	c.bucket("data-ec", "ec-2+1")

	span := 30 * time.Second
	if text := os.Getenv("SHOAL_E2E_SPAN"); text != "" {
		var err error
		if span, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	w := &workload{c: c, h: newHistory(), start: time.Now(), span: span}
	var wg sync.WaitGroup
	for i := range callers {
		k := &caller{workload: w, id: i, rnd: rand.New(rand.NewPCG(rnd.Uint64(), uint64(i))), seen: map[string]string{}}
		for _, n := range c.nodes {
			k.nodes = append(k.nodes, c.s3(n, 8*time.Second, 0))
		}
		wg.Go(func() { k.run(t.Context()) })
	}
	harm := newHarm(c, rnd)
	harm.run(span)
	harm.heal()
	wg.Wait()
	t.Logf("healthy %s after the last node was back", c.waitHealthy(90*time.Second))
	w.readAll(t)
	t.Logf("%d calls, %d of them open; %d dropped; %s", len(w.h.events), w.opens.Load(), w.dropped.Load(), harm.summary())
	if n := len(w.h.events); n < 100 {
		t.Errorf("got %d calls in %s, want 100 at least", n, span)
	}
	w.h.check(t)
}

// workload is what the callers share.
type workload struct {
	c       *cluster
	h       *history
	start   time.Time
	span    time.Duration
	values  atomic.Uint64
	opens   atomic.Int64
	dropped atomic.Int64
}

// round is the bucket and the prefix of the keys that are in use now.
func (w *workload) round() (bucket, prefix string) { return w.roundAt(time.Since(w.start)) }

func (w *workload) roundAt(at time.Duration) (bucket, prefix string) {
	n := int(at / roundTime)
	return []string{"data-mirror", "data-ec"}[n%2], fmt.Sprintf("round-%02d/", n)
}

func keyOf(prefix string, i int) string { return fmt.Sprintf("%skey-%d", prefix, i) }

// readAll adds what every key holds in the end, from every node.
func (w *workload) readAll(t *testing.T) {
	t.Helper()
	for i, n := range w.c.nodes {
		k := &caller{workload: w, id: 100 + i, nodes: []*s3.Client{w.c.s3(n, 8*time.Second, 0)}, seen: map[string]string{}}
		for at := time.Duration(0); at < w.span+roundTime; at += roundTime {
			bucket, prefix := w.roundAt(at)
			for j := range keysOfRound {
				if err := k.get(t.Context(), k.nodes[0], bucket, keyOf(prefix, j)); err != nil {
					t.Errorf("%s of %s from %s, healthy: %v", keyOf(prefix, j), bucket, n, err)
				}
			}
			if err := k.list(t.Context(), k.nodes[0], bucket, prefix); err != nil {
				t.Errorf("list %s of %s from %s, healthy: %v", prefix, bucket, n, err)
			}
		}
	}
}

// caller is a client that makes one call after the other.
type caller struct {
	*workload
	id    int
	rnd   *rand.Rand
	nodes []*s3.Client
	seen  map[string]string // the last ETag of each key
}

func (k *caller) run(ctx context.Context) {
	node := pick(k.rnd, k.nodes)
	for time.Since(k.start) < k.span {
		bucket, prefix := k.round()
		key := keyOf(prefix, k.rnd.IntN(keysOfRound))
		if err := k.one(ctx, node, bucket, prefix, key); err != nil {
			node = pick(k.rnd, k.nodes)
		}
	}
}

// one makes a call. An error is the node's.
func (k *caller) one(ctx context.Context, node *s3.Client, bucket, prefix, key string) error {
	n := k.rnd.IntN(100)
	if k.h.opened(key) >= maxOpen {
		n = 80 + n%20
	}
	match := k.seen[key]
	switch {
	case n < 30:
		return k.put(ctx, node, bucket, key, call{kind: opPut})
	case n < 42:
		return k.put(ctx, node, bucket, key, call{kind: opCreate})
	case n < 62 && match != "":
		return k.put(ctx, node, bucket, key, call{kind: opSwap, match: match})
	case n < 72:
		return k.delete(ctx, node, bucket, key)
	case n < 92:
		return k.get(ctx, node, bucket, key)
	}
	return k.list(ctx, node, bucket, prefix)
}

// data is a value that nobody else writes, and its ETag: some fit into the
// record, others are kept as shards.
func (k *caller) data() ([]byte, string) {
	n := k.values.Add(1)
	size := 200
	if n%3 == 0 {
		size = 200 << 10
	}
	b := fill(n, size)
	sum := md5.Sum(b)
	return b, hex.EncodeToString(sum[:])
}

func (k *caller) put(ctx context.Context, node *s3.Client, bucket, key string, c call) error {
	data, etag := k.data()
	c.value, c.what = etag, fmt.Sprintf("%d bytes", len(data))
	in := &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: bytes.NewReader(data)}
	switch c.kind {
	case opCreate:
		in.IfNoneMatch = aws.String("*")
	case opSwap:
		in.IfMatch = aws.String(`"` + c.match + `"`)
	}
	began := time.Now()
	out, err := node.PutObject(ctx, in)
	a := answer{took: true}
	switch status := oneshot.Status(err); {
	case err == nil:
		if got := oneshot.ETag(out.ETag); got != etag {
			k.c.t.Errorf("put %s: got ETag %s, want %s", key, got, etag)
		}
		k.seen[key] = etag
	case c.kind == opCreate && status == http.StatusPreconditionFailed,
		c.kind == opSwap && (status == http.StatusPreconditionFailed || status == http.StatusNotFound):
		a, err = answer{}, nil
	case oneshot.NeverSent(err):
		return err
	default:
		k.refusal(err, c.kind, key)
		k.opens.Add(1)
		a = answer{open: true}
	}
	k.h.add(k.id, key, c, a, began)
	return err
}

func (k *caller) delete(ctx context.Context, node *s3.Client, bucket, key string) error {
	began := time.Now()
	_, err := node.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &bucket, Key: &key})
	if oneshot.NeverSent(err) {
		return err
	}
	if err != nil {
		k.refusal(err, opDelete, key)
		k.opens.Add(1)
	}
	k.h.add(k.id, key, call{kind: opDelete}, answer{open: err != nil}, began)
	return err
}

func (k *caller) get(ctx context.Context, node *s3.Client, bucket, key string) error {
	began := time.Now()
	out, err := node.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	value := ""
	if err == nil {
		var data []byte
		data, err = io.ReadAll(out.Body)
		_ = out.Body.Close()
		if err == nil {
			sum := md5.Sum(data)
			value = hex.EncodeToString(sum[:])
			if got := oneshot.ETag(out.ETag); got != value {
				k.c.t.Errorf("get %s: data of ETag %s under ETag %s", key, value, got)
			}
		}
	}
	if err != nil && oneshot.Status(err) != http.StatusNotFound {
		k.refusal(err, opRead, key)
		k.dropped.Add(1)
		return err
	}
	k.seen[key] = value
	k.h.add(k.id, key, call{kind: opRead, what: "get"}, answer{value: value}, began)
	return nil
}

// list reads every key of the round at once.
func (k *caller) list(ctx context.Context, node *s3.Client, bucket, prefix string) error {
	began := time.Now()
	out, err := node.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: &prefix})
	if err != nil {
		k.refusal(err, opRead, prefix)
		k.dropped.Add(1)
		return err
	}
	values := map[string]string{}
	for _, o := range out.Contents {
		values[aws.ToString(o.Key)] = oneshot.ETag(o.ETag)
	}
	for i := range keysOfRound {
		key := keyOf(prefix, i)
		k.h.add(k.id, key, call{kind: opRead, what: "list"}, answer{value: values[key]}, began)
		delete(values, key)
	}
	if len(values) > 0 {
		k.c.t.Errorf("list %s: got %d keys that nobody wrote: %v", prefix, len(values), values)
	}
	return nil
}

// refusal fails the test on an answer that no failure of nodes excuses.
func (k *caller) refusal(err error, kind opKind, key string) {
	if s := oneshot.Status(err); s != 0 && s != http.StatusServiceUnavailable {
		k.c.t.Errorf("%s %s: got %v, want success or 503", kind, key, err)
	}
}
