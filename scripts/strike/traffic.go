package main

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/s3gateway/oneshot"
)

const (
	// keysOfWorker is how many keys a worker has in each bucket.
	keysOfWorker = 12
	// maxOpen is how many writes of a key may be open before another key takes
	// its place.
	maxOpen = 4
	// patience is how long a call may take until nobody waits for it.
	patience = 15 * time.Second
	// minPart is the size of a part that is not the last.
	minPart = core.MinPart
)

// worker makes one call after the other. It alone writes its keys.
type worker struct {
	*chaos
	id   int
	rnd  *rand.Rand
	keys map[*chaosBucket][]*key
	made int // keys, ever
	node *s3.Client
	// served is when a call of a bucket with redundancy last succeeded.
	served time.Time
}

func (c *chaos) newWorker(id int) *worker {
	w := &worker{chaos: c, id: id, rnd: c.o.draw("worker", id), keys: map[*chaosBucket][]*key{}, served: time.Now()}
	w.node = w.anyNode()
	for _, b := range c.buckets {
		for range keysOfWorker {
			w.keys[b] = append(w.keys[b], w.newKey(b))
		}
	}
	return w
}

func (w *worker) newKey(b *chaosBucket) *key {
	w.made++
	return b.add(fmt.Sprintf("%skey-%05d", w.prefix(), w.made))
}

func (w *worker) prefix() string { return fmt.Sprintf("worker-%d/", w.id) }

func (w *worker) anyNode() *s3.Client { return w.s3[w.rnd.IntN(len(w.s3))] }

// run works until ctx ends. A call that has begun is waited for.
func (w *worker) run(ctx context.Context) {
	calls := context.WithoutCancel(ctx)
	for ctx.Err() == nil {
		b := w.buckets[w.rnd.IntN(len(w.buckets))]
		i := w.rnd.IntN(keysOfWorker)
		k := w.keys[b][i]
		if k.openCalls() >= maxOpen {
			k = w.newKey(b)
			w.keys[b][i] = k
		}
		var err error
		if lost := w.lost(); lost != nil {
			b, err = lost.bucket, w.rewrite(calls, lost)
		} else {
			err = w.call(calls, b, k)
		}
		now := time.Now()
		if err == nil {
			if b.scheme.Width() > 1 {
				w.outage.add(now.Sub(w.served))
				w.served = now
			}
			continue
		}
		w.refused.Add(1)
		w.outage.add(now.Sub(w.served))
		w.node = w.anyNode()
		// What refuses at once is not asked again at once.
		_ = wait(ctx, 50*time.Millisecond)
	}
}

// lost is a key of the worker that is to be written anew.
func (w *worker) lost() *key {
	if !w.renewing.Load() {
		return nil
	}
	if keys := w.exposed(w.prefix()); len(keys) > 0 {
		return keys[0]
	}
	return nil
}

func (w *worker) rewrite(ctx context.Context, k *key) error {
	if err := w.put(ctx, k); err != nil {
		return err
	}
	k.expose(false)
	return nil
}

// call is one call of some kind. An error is a refusal, which failures excuse.
func (w *worker) call(ctx context.Context, b *chaosBucket, k *key) error {
	switch n := w.rnd.IntN(100); {
	case n < 40:
		return w.put(ctx, k)
	case n < 50:
		return w.delete(ctx, k)
	case n < 88:
		return w.get(ctx, k)
	case n < 97:
		return w.list(ctx, b)
	}
	return w.multipart(ctx, k)
}

// data is a value that nobody else writes: most fit into a record, others are
// kept as shards.
func (w *worker) data(name string) []byte {
	size := 1 + w.rnd.IntN(3000)
	if w.rnd.IntN(2) == 0 {
		size = inline + w.rnd.IntN(200<<10)
	}
	return content(w.rnd.Uint64(), name, int64(size))
}

func (w *worker) put(ctx context.Context, k *key) error {
	data := w.data(k.name)
	v := value{etagOf(data), int64(len(data))}
	k.begin(v)
	out, err := w.node.PutObject(ctx, &s3.PutObjectInput{Bucket: &k.bucket.alias, Key: &k.name, Body: bytes.NewReader(data)})
	w.end(k, v, err)
	if err != nil {
		return w.refusal("put", k, err)
	}
	if got := oneshot.ETag(out.ETag); got != v.etag {
		w.found.note(&w.found.wrong, "put %s/%s: got ETag %s, want %s", k.bucket.name, k.name, got, v.etag)
	}
	w.written.Add(1)
	w.bytes.Add(v.size)
	return nil
}

func (w *worker) delete(ctx context.Context, k *key) error {
	k.begin(value{})
	_, err := w.node.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &k.bucket.alias, Key: &k.name})
	w.end(k, value{}, err)
	if err != nil {
		return w.refusal("delete", k, err)
	}
	return nil
}

// end notes what came of a write.
func (w *worker) end(k *key, v value, err error) {
	switch {
	case err == nil:
		k.end(v, acknowledged)
	case oneshot.NeverSent(err):
		k.end(v, notSent)
	default:
		k.end(v, unknown)
	}
}

// multipart writes an object of two parts.
func (w *worker) multipart(ctx context.Context, k *key) error {
	data := content(w.rnd.Uint64(), k.name, minPart+1+int64(w.rnd.IntN(100<<10)))
	parts := [][]byte{data[:minPart], data[minPart:]}
	v := value{partsETag(parts), int64(len(data))}
	bucket, name := &k.bucket.alias, &k.name
	up, err := w.node.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: name})
	if err != nil {
		return w.refusal("create upload of", k, err)
	}
	var done []types.CompletedPart
	for i, p := range parts {
		number := aws.Int32(int32(i + 1))
		out, err := w.node.UploadPart(ctx, &s3.UploadPartInput{Bucket: bucket, Key: name, UploadId: up.UploadId, PartNumber: number, Body: bytes.NewReader(p)})
		if err != nil {
			return w.refusal("upload part of", k, err)
		}
		done = append(done, types.CompletedPart{ETag: out.ETag, PartNumber: number})
	}
	k.begin(v)
	out, err := w.node.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: bucket, Key: name, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: done},
	})
	w.end(k, v, err)
	if err != nil {
		return w.refusal("complete upload of", k, err)
	}
	if got := oneshot.ETag(out.ETag); got != v.etag {
		w.found.note(&w.found.wrong, "complete upload of %s/%s: got ETag %s, want %s", k.bucket.name, k.name, got, v.etag)
	}
	w.written.Add(1)
	w.bytes.Add(v.size)
	return nil
}

// get reads an object whole and checks that it holds what it may.
func (w *worker) get(ctx context.Context, k *key) error {
	v, err := getValue(ctx, w.node, k)
	if err != nil {
		return w.refusal("get", k, err)
	}
	if err := k.observe(v); err != nil {
		w.amiss(v, err)
	}
	w.read.Add(1)
	w.bytes.Add(v.size)
	return nil
}

// getValue reads what a key holds.
func getValue(ctx context.Context, node *s3.Client, k *key) (value, error) {
	out, err := node.GetObject(ctx, &s3.GetObjectInput{Bucket: &k.bucket.alias, Key: &k.name})
	if oneshot.Status(err) == http.StatusNotFound {
		if _, ok := errors.AsType[*types.NoSuchKey](err); !ok {
			return value{}, fmt.Errorf("not a missing key: %w", err)
		}
		return value{}, nil
	}
	if err != nil {
		return value{}, err
	}
	defer out.Body.Close()
	data, err := io.ReadAll(out.Body)
	if err != nil {
		return value{}, err
	}
	// The ETag is computed from the bytes, not taken from the answer.
	v := value{etagOf(data), int64(len(data))}
	if len(data) > minPart {
		v.etag = partsETag([][]byte{data[:minPart], data[minPart:]})
	}
	if got := oneshot.ETag(out.ETag); got != v.etag {
		v.etag += " under ETag " + got // which no key may hold
	}
	return v, nil
}

// list lists the worker's own keys, which nobody writes meanwhile.
func (w *worker) list(ctx context.Context, b *chaosBucket) error {
	held := map[string]value{}
	prefix := w.prefix()
	in := &s3.ListObjectsV2Input{Bucket: &b.alias, Prefix: &prefix, MaxKeys: aws.Int32(int32(5 + w.rnd.IntN(500)))}
	for {
		out, err := w.node.ListObjectsV2(ctx, in)
		if err != nil {
			return w.refusal("list", &key{bucket: b, name: prefix}, err)
		}
		for _, o := range out.Contents {
			name := aws.ToString(o.Key)
			if _, twice := held[name]; twice {
				w.found.note(&w.found.duplicated, "%s lists %s twice", b.name, name)
			}
			held[name] = value{oneshot.ETag(o.ETag), aws.ToInt64(o.Size)}
		}
		if !aws.ToBool(out.IsTruncated) {
			break
		}
		in.ContinuationToken = out.NextContinuationToken
	}
	for _, k := range b.withPrefix(prefix) {
		v := held[k.name]
		delete(held, k.name)
		if err := k.observe(v); err != nil {
			w.amiss(v, fmt.Errorf("listing: %w", err))
		}
	}
	for name := range held {
		w.found.note(&w.found.wrong, "%s lists %s, which nobody wrote", b.name, name)
	}
	w.listed.Add(1)
	return nil
}

// amiss notes a value that a key may not hold.
func (c *chaos) amiss(v value, err error) {
	count := &c.found.wrong
	if v == (value{}) {
		count = &c.found.lost
	}
	c.found.note(count, "%v", err)
}

// refusal passes an error on that failures excuse, and notes any other: an
// answer other than 503.
func (w *worker) refusal(what string, k *key, err error) error {
	switch status := oneshot.Status(err); {
	case status == 0 || status == http.StatusServiceUnavailable:
	case k.exposed():
	default:
		w.found.note(&w.found.wrong, "%s %s/%s: got %v, want success or 503", what, k.bucket.name, k.name, err)
	}
	return err
}

// counters are what the traffic has done.
type counters struct {
	written, read, listed, refused, bytes atomic.Int64
	outage                                outage
}

// outage is the longest time without an answer for a worker, since the last
// strike and ever.
type outage struct {
	mu          sync.Mutex
	since, ever time.Duration
}

func (o *outage) add(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.since, o.ever = max(o.since, d), max(o.ever, d)
}

// next begins to count for another strike.
func (o *outage) next() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.since = 0
}

func (o *outage) sinceStrike() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.since
}

func (o *outage) worst() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ever
}

func etagOf(data []byte) string {
	sum := md5.Sum(data)
	return hex.EncodeToString(sum[:])
}

// partsETag is the ETag of a multipart object.
func partsETag(parts [][]byte) string {
	h := md5.New()
	for _, p := range parts {
		sum := md5.Sum(p)
		_, _ = h.Write(sum[:]) // never fails
	}
	return fmt.Sprintf("%x-%d", h.Sum(nil), len(parts))
}

// wait waits for a while, or for the end of ctx.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
