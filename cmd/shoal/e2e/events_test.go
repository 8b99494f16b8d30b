package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/plugins/api/client"
)

// heard is an event as any NATS client gets it.
type heard struct {
	SpecVersion string `json:"specversion"`
	ID          string `json:"id"`
	Source      string `json:"source"`
	Type        string `json:"type"`
	Subject     string `json:"subject"`
	Data        struct {
		Epoch uint64 `json:"epoch"`
		Owner string `json:"owner"`
	} `json:"data"`
}

// TestEvents listens to what a cluster says of itself while buckets, jobs, nodes
// and disks change; each thing is said once.
func TestEvents(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, 2)
	s, err := c.State()
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(strings.Join(s.BusURLs(), ","), nats.UserInfo(config.DevAccessKey, config.DevSecretKey), nats.MaxReconnects(-1))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	var mu sync.Mutex
	var all []heard
	if _, err := nc.Subscribe("shoal.event.>", func(m *nats.Msg) {
		var e heard
		err := json.Unmarshal(m.Data, &e)
		mu.Lock()
		defer mu.Unlock()
		if err != nil || e.SpecVersion != "1.0" || m.Header.Get("Content-Type") != "application/cloudevents+json" {
			t.Errorf("%s: %v: %.200s", m.Subject, err, m.Data)
		}
		all = append(all, e)
	}); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	await := func(kind, subject string) {
		t.Helper()
		poll(t, 30*time.Second, kind+" of "+subject, func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			if !slices.ContainsFunc(all, func(e heard) bool { return e.Type == kind && e.Subject == subject }) {
				return fmt.Errorf("not among %d events", len(all))
			}
			return nil
		})
	}
	must := func(args ...string) {
		t.Helper()
		if _, err := c.shoal("", args...); err != nil {
			t.Fatal(err)
		}
	}
	c.bucket("from", "mirror-2")
	c.bucket("into", "mirror-2")
	await("shoal.bucket.created", "shoal://from")
	if _, err := c.client("").Upload(t.Context(), "from", "key", bytes.NewReader(fill(1, 100)), 100, client.TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	must("cp", "shoal://from", "shoal://into")
	must("rm", "-r", "shoal://into", "--yes")
	must("bucket", "rm", "shoal://into", "--yes")
	await("shoal.bucket.deleted", "shoal://into")
	jobs, err := c.client("").Jobs(t.Context(), client.JobFilter{All: true})
	if err != nil || len(jobs) != 1 {
		t.Fatalf("%d jobs, %v, want 1", len(jobs), err)
	}
	for _, state := range []string{"pending", "planning", "running", "verifying", "done"} {
		await("shoal.job."+state, jobs[0].ID)
	}
	c.kill("n3")
	await("shoal.node.down", "n3")
	c.start("n3")
	await("shoal.node.active", "n3")
	must("disk", "detach", "n3/d2")
	await("shoal.disk.detached", "n3/d2")
	mu.Lock()
	defer mu.Unlock()
	said, ids, taken := map[string]bool{}, map[string]bool{}, 0
	for _, e := range all {
		what := fmt.Sprintf("%s of %s in epoch %d", e.Type, e.Subject, e.Data.Epoch)
		if said[what] || ids[e.Source+e.ID] {
			t.Errorf("%s is said twice", what)
		}
		said[what], ids[e.Source+e.ID] = true, true
		if e.Type == "shoal.slot.taken-over" && e.Data.Owner != "n3" {
			taken++
		}
	}
	if taken < 1000 {
		t.Errorf("%d slots were said to be taken over from n3, want about 1365", taken)
	}
}
