package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// TestRollingRestart stops and starts every node in order while S3 clients
// read and write. The SDK repeats what is refused with 503, as it does by
// default; no request may fail beyond that. A client of a node moves on before
// that node stops, as a load balancer would have it.
func TestRollingRestart(t *testing.T) {
	rnd := newRand(t)
	c := startCluster(t, 5, 2)
	b := c.bucket("rolling", "mirror-2")
	const workers = 6
	var stopping atomic.Int64 // the node that stops, counted from 0
	stopping.Store(-1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var calls, failed atomic.Int64
	var slowest atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		rnd := rand.New(rand.NewPCG(rnd.Uint64(), uint64(w)))
		var nodes []*s3.Client
		for _, n := range c.nodes {
			nodes = append(nodes, c.s3(n, 30*time.Second, 5))
		}
		wg.Go(func() {
			last := map[string]uint64{}
			for n := uint64(0); ctx.Err() == nil; n++ {
				at := rnd.IntN(len(nodes))
				for int64(at) == stopping.Load() {
					at = rnd.IntN(len(nodes))
				}
				key := fmt.Sprintf("worker-%d/key-%02d", w, rnd.IntN(30))
				began := time.Now()
				err := rollingCall(context.WithoutCancel(ctx), nodes[at], b.Name, key, last, uint64(w)<<32|n)
				took := time.Since(began)
				calls.Add(1)
				for old := slowest.Load(); int64(took) > old && !slowest.CompareAndSwap(old, int64(took)); old = slowest.Load() {
				}
				if err != nil && failed.Add(1) <= 10 {
					t.Errorf("%s through %s after %s: %v", key, c.nodes[at], since(began), err)
				}
			}
		})
	}
	start := time.Now()
	for i, n := range c.nodes {
		stopping.Store(int64(i))
		stop := time.Now()
		if err := c.Stop(t.Context(), n); err != nil {
			t.Errorf("stop %s: %v", n, err)
		}
		stopped := since(stop)
		c.start(n)
		stopping.Store(-1)
		t.Logf("%s stopped in %s, serves again after %s, healthy %s later; %d calls so far", n, stopped, since(stop), c.waitHealthy(90*time.Second), calls.Load())
	}
	cancel()
	wg.Wait()
	t.Logf("%d calls in %s, %d failed, the slowest took %s", calls.Load(), since(start), failed.Load(), time.Duration(slowest.Load()).Round(10*time.Millisecond))
}

// rollingCall writes a key that nobody else writes, or checks what it holds.
func rollingCall(ctx context.Context, k *s3.Client, bucket, key string, last map[string]uint64, n uint64) error {
	const size = 5000
	if v, ok := last[key]; ok && n%3 != 0 {
		out, err := k.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
		if err != nil {
			return err
		}
		got, err := io.ReadAll(out.Body)
		_ = out.Body.Close()
		if err == nil && !bytes.Equal(got, fill(v, size)) {
			err = fmt.Errorf("got %d bytes that are not the last ones written", len(got))
		}
		return err
	}
	_, err := k.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: bytes.NewReader(fill(n, size))})
	if err != nil {
		delete(last, key) // nobody knows
		return err
	}
	last[key] = n
	return nil
}
