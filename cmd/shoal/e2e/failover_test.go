package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api/client"
)

// How soon every key must take writes again.
const (
	afterKill       = 15 * time.Second
	afterLeaderKill = 25 * time.Second
)

// TestWritesAfterKill measures how long keys refuse writes after a node was
// killed: each of many writers keeps to keys of its own, which lie in slots of
// all nodes.
func TestWritesAfterKill(t *testing.T) {
	rnd := newRand(t)
	c := startCluster(t, 5, 2)
	b := c.bucket("writes", "mirror-2")
	kept := c.bucket("kept", "ec-3+1")
	set := newDataSet(rnd, 200)
	set.put(t, c.client(""), kept)
	leader := c.leader()
	others := slices.DeleteFunc(slices.Clone(c.nodes), func(n string) bool { return n == leader })
	first := pick(rnd, others)
	c.killAndWrite(t, b, first, afterKill)
	c.start(first)
	t.Logf("healthy %s after %s was back", c.waitHealthy(90*time.Second), first)
	leader = c.leader()
	c.killAndWrite(t, b, leader, afterLeaderKill)
	c.start(leader)
	t.Logf("healthy %s after %s was back", c.waitHealthy(90*time.Second), leader)
	set.compare(t, c.client(leader), kept)
}

// killAndWrite kills a node, writes keys through the others until each has
// been written by a request that began after the kill, and checks what they
// hold then.
func (c *cluster) killAndWrite(t *testing.T, b core.BucketName, node string, bound time.Duration) {
	t.Helper()
	const keys, writers = 256, 16
	nodes := slices.DeleteFunc(slices.Clone(c.nodes), func(n string) bool { return n == node })
	k := c.client(nodes[0])
	what := "a node"
	if bound == afterLeaderKill {
		what = "the leader of the bus"
	}
	began := time.Now()
	c.kill(node)
	var mu sync.Mutex
	wrote := map[string][]byte{}
	var slowest time.Duration
	var wg sync.WaitGroup
	for w := range writers {
		// An attempt that is refused is made again by the test, not hidden.
		s, err := client.New(client.Options{
			Endpoints: []string{c.urls[nodes[w%len(nodes)]]}, RetryFor: time.Millisecond,
			AccessKey: config.DevAccessKey, SecretKey: config.DevSecretKey,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		wg.Go(func() {
			for i := w; i < keys; i += writers {
				key := fmt.Sprintf("after-%s/%04d", node, i)
				data := fill(uint64(i)^uint64(began.UnixNano()), 1000)
				err := until(t.Context(), bound+30*time.Second, func(ctx context.Context) error {
					_, err := s.Upload(ctx, b.Name, key, bytes.NewReader(data), int64(len(data)), client.TransferOptions{})
					return err
				})
				if err != nil {
					t.Errorf("write %s: %v", key, err)
					return
				}
				mu.Lock()
				wrote[key] = data
				slowest = max(slowest, time.Since(began))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%d keys in all slots written %s after the kill of %s (%s)", keys, slowest.Round(10*time.Millisecond), what, node)
	if slowest > bound {
		t.Errorf("a key took no write for %s after the kill of %s, want %s at most", slowest, what, bound)
	}
	for _, key := range slices.Sorted(maps.Keys(wrote)) {
		got, err := body(t.Context(), k, b.Name, key)
		if err != nil || !bytes.Equal(got, wrote[key]) {
			t.Errorf("%s: got %d bytes that were not written, or %v", key, len(got), err)
		}
	}
}

// TestRedundancyReturnsWithoutNode kills a node for good: after the grace all
// that it held is rebuilt elsewhere.
func TestRedundancyReturnsWithoutNode(t *testing.T) {
	if os.Getenv(longVar) == "" {
		t.Skip("takes minutes; " + longVar + "=1 runs it")
	}
	rnd := newRand(t)
	c := startCluster(t, 5, 2)
	b := c.bucket("keep", "ec-3+1")
	set := newDataSet(rnd, 500)
	k := c.client("n1")
	set.put(t, k, b)
	c.kill("n5")
	start := time.Now()
	poll(t, 4*time.Minute, "full redundancy on four nodes", func(ctx context.Context) error {
		s, err := k.Cluster(ctx)
		switch {
		case err != nil:
			return err
		case len(s.Problems) != 1 || s.UnderReplicated.Objects > 0:
			return fmt.Errorf("%d objects lack shards: %q", s.UnderReplicated.Objects, s.Problems)
		}
		return nil
	})
	t.Logf("full redundancy on four nodes %s after the kill", since(start))
	// Nothing is lost with one more.
	c.kill("n4")
	set.compare(t, k, b)
}
