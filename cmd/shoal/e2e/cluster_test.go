package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/shoalstore/shoal/cmd/shoal/internal/devcluster"
	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/client"
	"github.com/shoalstore/shoal/plugins/s3gateway/oneshot"
)

// cluster is a development cluster of real processes for one test.
type cluster struct {
	*devcluster.Cluster
	t     *testing.T
	name  string
	nodes []string
	urls  map[string]string
	logs  map[string]string
}

// startCluster starts a cluster that ends with the test. If the test has failed
// by then, the ends of the nodes' logs are shown.
func startCluster(t *testing.T, nodes, disks int) *cluster {
	t.Helper()
	return startClusterOf(t, os.Getenv(binVar), nodes, disks)
}

// startClusterOf is startCluster with a program for the nodes.
func startClusterOf(t *testing.T, program string, nodes, disks int) *cluster {
	t.Helper()
	return startPlan(t, program, devcluster.Plan{Nodes: nodes, Disks: disks})
}

// startPlan is startClusterOf that makes all of a plan, with more of an
// environment.
func startPlan(t *testing.T, program string, p devcluster.Plan, env ...string) *cluster {
	t.Helper()
	name := strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
	c := &cluster{
		Cluster: devcluster.New(devcluster.Options{
			StateDir: os.Getenv(stateVar), Name: name, Executable: program, Env: append(os.Environ(), env...), Report: t.Logf,
		}),
		t: t, name: name, urls: map[string]string{}, logs: map[string]string{},
	}
	start := time.Now()
	if err := c.Up(t.Context(), p); err != nil {
		t.Fatalf("start a cluster: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			c.showLogs()
		}
		if err := c.Clean(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	s, err := c.State()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range s.Nodes {
		c.nodes = append(c.nodes, n.Name)
		c.urls[n.Name], c.logs[n.Name] = n.URL(), n.Log
	}
	t.Logf("%d nodes of %d disks ready after %s", p.Nodes, p.Disks, since(start))
	return c
}

// showLogs shows warnings and errors of the nodes, the newest of many.
func (c *cluster) showLogs() {
	const limit = 12 << 10
	for _, n := range c.nodes {
		text, err := os.ReadFile(c.logs[n])
		if err != nil {
			c.t.Logf("log of %s: %v", n, err)
			continue
		}
		var out []byte
		for line := range bytes.Lines(text) {
			if !bytes.Contains(line, []byte("level=INFO")) && !bytes.Contains(line, []byte(`"level":"INFO"`)) {
				out = append(out, line...)
			}
		}
		c.t.Logf("log of %s, without INFO:\n%s", n, out[max(0, len(out)-limit):])
	}
	if dir := os.Getenv("SHOAL_E2E_LOGS"); dir != "" {
		for _, n := range c.nodes {
			if text, err := os.ReadFile(c.logs[n]); err == nil {
				_ = os.WriteFile(filepath.Join(dir, c.name+"-"+n+".log"), text, 0o600)
			}
		}
	}
}

// endpoints are the nodes' URLs, beginning with that of first if it is not
// empty.
func (c *cluster) endpoints(first string) []string {
	var out []string
	for _, n := range c.nodes {
		if n == first {
			out = slices.Insert(out, 0, c.urls[n])
		} else {
			out = append(out, c.urls[n])
		}
	}
	return out
}

// client is a client of Shoal's own that prefers a node.
func (c *cluster) client(first string) *client.Client {
	c.t.Helper()
	k, err := client.New(client.Options{
		Endpoints: c.endpoints(first), AccessKey: config.DevAccessKey, SecretKey: config.DevSecretKey,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(k.Close)
	return k
}

// shoal runs the command line and returns what it wrote to its standard output.
func (c *cluster) shoal(first string, args ...string) (string, error) {
	cmd := exec.CommandContext(c.t.Context(), os.Getenv(binVar), args...)
	cmd.Env = append(os.Environ(), "SHOAL_ENDPOINT="+strings.Join(c.endpoints(first), ","),
		"SHOAL_ACCESS_KEY="+config.DevAccessKey, "SHOAL_SECRET_KEY="+config.DevSecretKey)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("shoal %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.String(), nil
}

// s3 is an S3 client of one node. It sends each request once, unless retries
// asks for the SDK's standard behaviour.
func (c *cluster) s3(node string, timeout time.Duration, retries int) *s3.Client {
	return oneshot.New(oneshot.Options{
		URL: c.urls[node], AccessKey: config.DevAccessKey, Secret: config.DevSecretKey, Timeout: timeout, Retries: retries,
	})
}

// bucket makes a bucket of shoal://.
func (c *cluster) bucket(name, scheme string) core.BucketName {
	c.t.Helper()
	if _, err := c.shoal("", "bucket", "create", "shoal://"+name, "--props", "scheme="+scheme); err != nil {
		c.t.Fatal(err)
	}
	return core.BucketName{Provider: core.Shoal, Name: name}
}

// leader is the node whose bus server leads the coordinators.
func (c *cluster) leader() string {
	c.t.Helper()
	s, err := c.State()
	if err != nil {
		c.t.Fatal(err)
	}
	k := c.client("")
	var name string
	poll(c.t, 30*time.Second, "a leader of the bus", func(ctx context.Context) error {
		v, err := k.Cluster(ctx)
		if err != nil {
			return err
		}
		for _, n := range s.Nodes {
			if strings.HasSuffix(v.NATSLeader, n.Bus) || v.NATSLeader == n.Name {
				name = n.Name
				return nil
			}
		}
		return fmt.Errorf("leader %q is no node", v.NATSLeader)
	})
	return name
}

// kill ends a node at once.
func (c *cluster) kill(node string) {
	c.t.Helper()
	if err := c.Kill(c.t.Context(), node); err != nil {
		c.t.Fatalf("kill %s: %v", node, err)
	}
}

// start starts a node and waits until it serves.
func (c *cluster) start(node string) {
	c.t.Helper()
	if err := c.Start(c.t.Context(), node); err != nil {
		c.t.Fatalf("start %s: %v", node, err)
	}
}

// waitHealthy waits until the cluster says that nothing is amiss, as an
// operator does, and says how long that took.
func (c *cluster) waitHealthy(limit time.Duration) time.Duration {
	c.t.Helper()
	start := time.Now()
	if out, err := c.shoal("", "cluster", "wait", "--healthy", "--timeout", strconv.Itoa(int(limit.Seconds()))); err != nil {
		c.t.Fatalf("not healthy after %s: %v %s", since(start), err, out)
	}
	return since(start)
}

// poll calls check until it returns nil, and fails the test if that takes
// longer than limit.
func poll(t *testing.T, limit time.Duration, what string, check func(context.Context) error) {
	t.Helper()
	if err := until(t.Context(), limit, check); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// until calls check until it returns nil, for limit at most.
func until(ctx context.Context, limit time.Duration, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %w", limit, err)
		}
	}
}

// newRand is a source of choices; its seed is logged.
func newRand(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv(seedVar); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v", seedVar, err)
		}
	}
	t.Logf("seed %d; again with %s=%d", seed, seedVar, seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// pick chooses one of a list.
func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// fill returns n bytes that only a source of that seed gives.
func fill(seed uint64, n int) []byte {
	var s [32]byte
	for i := range 8 {
		s[i] = byte(seed >> (8 * i))
	}
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(s).Read(b) // never fails
	return b
}

// since is the time since start, in tenths of a second.
func since(start time.Time) time.Duration { return time.Since(start).Round(100 * time.Millisecond) }

// body reads an object whole.
func body(ctx context.Context, k *client.Client, bucket, key string) ([]byte, error) {
	r, err := k.Get(ctx, bucket, key, client.GetOptions{})
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	return io.ReadAll(r)
}

// names lists the objects of a bucket with their sizes.
func names(t *testing.T, k *client.Client, b core.BucketName) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	for o, err := range k.List(t.Context(), b, client.ListOptions{}) {
		if err != nil {
			t.Fatalf("list %s: %v", b, err)
		}
		out[o.Name] = o.Size
	}
	return out
}

// balance says what is wrong with the books of a job.
func balance(j api.Job) error {
	if j.Planned == nil {
		return fmt.Errorf("nothing is planned")
	}
	if got := j.Done.Add(j.Skipped).Add(j.Failed).Add(j.Dropped); got != *j.Planned {
		return fmt.Errorf("planned %+v, but done %+v + skipped %+v + failed %+v + dropped %+v", *j.Planned, j.Done, j.Skipped, j.Failed, j.Dropped)
	}
	return nil
}
