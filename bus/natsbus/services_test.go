package natsbus

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
)

// TestCommandLine looks at the services with NATS's own tool.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	tool, err := filepath.Abs("../../.tools/bin/nats")
	if err == nil {
		_, err = os.Stat(tool)
	}
	if err != nil {
		t.Skipf("the nats command is not installed: %v", err)
	}
	b := newTestBus(t, 1)
	b.start()
	b.ready()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, name := range []string{"n1", "n2"} {
		c := b.client(name)
		wg.Go(func() {
			err := c.Serve(ctx, bus.Service{
				Name: "shoal", Version: "0.1.0", Description: "a node of a Shoal cluster", Metadata: map[string]string{"node": name},
				Endpoints: []bus.Endpoint{
					{Name: "cluster-status", Subject: "shoal.cluster.status", Handler: func(context.Context, []byte) (any, error) {
						return map[string]any{"epoch": 7}, nil
					}},
					{Name: "job-status", Subject: "shoal.job.status", Handler: func(_ context.Context, req []byte) (any, error) {
						return nil, fmt.Errorf("job %s: %w", req, core.ErrNotFound)
					}},
				},
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	c := b.client("c")
	if _, err := c.Map().Create(within(t, 10*time.Second), []byte("the map")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Request(within(t, 10*time.Second), "shoal.cluster.status", nil); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(within(t, 30*time.Second), tool, append([]string{"--server", b.urls()[0], "--user", testUser, "--password", testPassword, "--no-context"}, args...)...)
		cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "XDG_CONFIG_HOME="+t.TempDir())
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("nats %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	contains := func(out string, words ...string) {
		t.Helper()
		for _, w := range words {
			if !strings.Contains(out, w) {
				t.Errorf("want %q in:\n%s", w, out)
			}
		}
	}
	eventually(t, 10*time.Second, "both instances", func() error {
		if n := strings.Count(run("micro", "ping"), "shoal"); n < 2 {
			return fmt.Errorf("%d answered", n)
		}
		return nil
	})
	contains(run("micro", "ls"), "shoal", "0.1.0", "a node of a Shoal cluster")
	contains(run("micro", "info", "shoal"), "cluster-status", "shoal.cluster.status", "job-status", "node")
	contains(run("req", "shoal.cluster.status", ""), `{"epoch":7}`)
	contains(run("req", "shoal.job.status", "j1"), "Nats-Service-Error-Code: 404", `Nats-Service-Error: job j1: not found`,
		`{"error":{"code":"not_found","message":"job j1: not found"}}`)
	contains(run("micro", "stats", "shoal"), "cluster-status", "job-status")
	contains(run("kv", "ls"), "shoal_map_1", "shoal_jobs_1")
	contains(run("kv", "get", "shoal_map_1", "map", "--raw"), "the map")
}

// TestRequestNodeKilled kills the process of a node that works on a request.
func TestRequestNodeKilled(t *testing.T) {
	t.Parallel()
	b := newTestBus(t, 1)
	b.start()
	alive, dying := b.client("alive"), b.client("dying")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	taken := make(chan struct{}, 8)
	wg.Go(func() {
		// Ends with an error when its client is cut off.
		_ = dying.Serve(ctx, bus.Service{Name: "s", Version: "1.0.0", Endpoints: []bus.Endpoint{
			{Name: "e", Subject: "shoal.test.e", Handler: func(ctx context.Context, _ []byte) (any, error) {
				taken <- struct{}{}
				<-ctx.Done()
				return nil, ctx.Err()
			}},
		}})
	})
	answers := make(chan string, 1)
	wg.Go(func() {
		got, err := b.client("asking").Request(ctx, "shoal.test.e", nil)
		answers <- fmt.Sprint(string(got), err)
	})
	<-taken
	wg.Go(func() {
		if err := alive.Serve(ctx, bus.Service{Name: "s", Version: "1.0.0", Endpoints: []bus.Endpoint{
			{Name: "e", Subject: "shoal.test.e", Handler: func(context.Context, []byte) (any, error) { return "alive", nil }},
		}}); err != nil {
			t.Error(err)
		}
	})
	began := time.Now()
	dying.nc.Close() // as the death of its process does: no farewell
	if got := <-answers; got != `"alive"<nil>` {
		t.Errorf("got %s, want the other node's answer", got)
	}
	t.Logf("answered by the other node after %v", time.Since(began).Round(time.Millisecond))
}
