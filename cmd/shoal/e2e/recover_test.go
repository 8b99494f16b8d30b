package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/job"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/client"
)

// recovered is what `shoal recover --json` prints, as far as it matters here.
type recovered struct {
	LostNodes  []string      `json:"lost_nodes"`
	LostSlots  []core.SlotID `json:"lost_slots"`
	StaleSlots []any         `json:"stale_slots"`
	// LostObjects are those of which the record is left only.
	LostObjects []struct {
		Key string `json:"key"`
	} `json:"lost_objects"`
	Objections []struct {
		Flag     string `json:"flag"`
		Accepted bool   `json:"accepted"`
	} `json:"objections"`
	Voters  []string   `json:"voters"`
	Epoch   core.Epoch `json:"epoch"`
	Applied []string   `json:"applied"`
}

// recover runs `shoal recover` for the nodes.
func (c *cluster) recover(nodes []string, flags ...string) (out recovered, err error) {
	args := append([]string{"recover", "--json", "--yes"}, flags...)
	for _, n := range nodes {
		args = append(args, "--config", c.configOf(n))
	}
	text, err := c.shoal("", args...)
	if text != "" {
		if e := json.Unmarshal([]byte(text), &out); e != nil {
			c.t.Fatalf("recover printed %.300s: %v", text, e)
		}
	}
	return out, err
}

// configOf is the file of a node's configuration, dirOf its directory.
func (c *cluster) configOf(node string) string { return filepath.Join(c.dirOf(node), "node.yaml") }

func (c *cluster) dirOf(node string) string {
	c.t.Helper()
	s, err := c.State()
	if err != nil {
		c.t.Fatal(err)
	}
	for _, n := range s.Nodes {
		if n.Name == node {
			return n.Dir
		}
	}
	c.t.Fatalf("no node %s", node)
	return ""
}

// startAll starts nodes together: none may be able to serve alone.
func (c *cluster) startAll(nodes ...string) {
	c.t.Helper()
	errs := make(chan error)
	for _, n := range nodes {
		go func() { errs <- c.Start(c.t.Context(), n) }()
	}
	var all error
	for range nodes {
		all = errors.Join(all, <-errs)
	}
	if all != nil {
		c.t.Fatalf("start %v: %v", nodes, all)
	}
}

// TestRecoverMajorityLost loses three of five nodes for good, a majority of the
// voters. What has a copy on the others is there again afterwards, what has none
// is named, and a lost node that comes back does nothing.
func TestRecoverMajorityLost(t *testing.T) {
	t.Parallel()
	rnd := newRand(t)
	c := startCluster(t, 5, 2)
	b := c.bucket("kept", "mirror-3")
	k := c.client("")
	sizes := map[string]int{}
	for i := range 120 {
		key := fmt.Sprintf("key-%03d", i)
		sizes[key] = 100 + rnd.IntN(2000)
		if i%10 == 0 {
			sizes[key] = 300_000 // in shards
		}
		if _, err := k.Upload(t.Context(), b.Name, key, bytes.NewReader(fill(uint64(i), sizes[key])), int64(sizes[key]), client.TransferOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	lost := []string{"n2", "n4", "n5"}
	kept := []string{"n1", "n3"}
	for _, n := range append(slices.Clone(lost), kept...) {
		c.kill(n)
	}
	back := filepath.Join(t.TempDir(), "n5")
	if err := os.Rename(c.dirOf("n5"), back); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"n2", "n4"} {
		if err := os.RemoveAll(c.dirOf(n)); err != nil {
			t.Fatal(err)
		}
	}
	// Nothing is guessed, and nothing changed before it is accepted.
	plan, err := c.recover(kept)
	if err == nil || !strings.Contains(err.Error(), "--accept-lost-slots --accept-older-map") {
		t.Fatalf("recover without flags: got %v, want a refusal that names the flags", err)
	}
	if len(plan.Applied) != 0 || len(plan.LostSlots) == 0 || !slices.Equal(plan.LostNodes, lost) {
		t.Fatalf("plan: applied %v, %d lost slots, lost nodes %v; want none, some, %v", plan.Applied, len(plan.LostSlots), plan.LostNodes, lost)
	}
	done, err := c.recover(kept, "--accept-lost-slots", "--accept-older-map")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(done.Applied, kept) || !slices.Equal(done.LostSlots, plan.LostSlots) || len(done.StaleSlots) != 0 {
		t.Fatalf("recovered: applied %v, %d lost slots, stale %v; want %v, %d, none", done.Applied, len(done.LostSlots), done.StaleSlots, kept, len(plan.LostSlots))
	}
	c.nodes = kept
	start := time.Now()
	c.startAll(kept...)
	t.Logf("epoch %d, %d slots lost, serves %s after the start", done.Epoch, len(done.LostSlots), since(start))
	k = c.client("")
	found := names(t, k, b)
	noData := map[string]bool{}
	for _, o := range done.LostObjects {
		noData[o.Key] = true
		if _, ok := found[o.Key]; !ok || sizes[o.Key] < 300_000 {
			t.Errorf("%s is named as an object without data; listed: %v, %d bytes", o.Key, ok, sizes[o.Key])
		}
	}
	if len(noData) > 6 {
		t.Errorf("%d of 12 objects in shards are lost; want about a tenth", len(noData))
	}
	gone := 0
	for i := range 120 {
		key := fmt.Sprintf("key-%03d", i)
		if _, ok := found[key]; !ok {
			gone++
			continue
		}
		if noData[key] {
			continue
		}
		got, err := body(t.Context(), k, b.Name, key)
		if err != nil || !bytes.Equal(got, fill(uint64(i), sizes[key])) {
			t.Errorf("%s is listed, but reading it gives %d bytes, %v", key, len(got), err)
		}
	}
	// A slot lies on three of five nodes: one in ten on the lost ones only.
	if share := float64(len(done.LostSlots)) / 4096; share < 0.05 || share > 0.15 || gone > 40 {
		t.Errorf("%d of 120 keys and %.3f of the slots are gone; want about a tenth", gone, share)
	}
	t.Logf("%d of 120 keys were in lost slots, %d more have lost their data", gone, len(noData))
	// Redundancy comes back as far as two nodes go, and changes are possible.
	if _, err := c.shoal("", "bucket", "create", "shoal://later", "--props", "scheme=mirror-2"); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		key := fmt.Sprintf("later-%02d", i)
		if _, err := k.Upload(t.Context(), "later", key, bytes.NewReader(fill(uint64(i), 500)), 500, client.TransferOptions{}); err != nil {
			t.Errorf("put %s: %v", key, err)
		}
	}
	c.lostNodeComesBack(back)
	for i := range 20 {
		key := fmt.Sprintf("later-%02d", i)
		if got, err := body(t.Context(), k, "later", key); err != nil || !bytes.Equal(got, fill(uint64(i), 500)) {
			t.Errorf("%s after n5 came back: %d bytes, %v", key, len(got), err)
		}
	}
}

// lostNodeComesBack starts n5 with what it had, and expects that it learns that
// the cluster went on without it and serves nothing.
func (c *cluster) lostNodeComesBack(dir string) {
	c.t.Helper()
	s, err := c.State()
	if err != nil {
		c.t.Fatal(err)
	}
	node := s.Nodes[4]
	if err := os.Rename(dir, node.Dir); err != nil {
		c.t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(os.Getenv(binVar), "server", "--config", node.Config)
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var last string
	err = until(c.t.Context(), 30*time.Second, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, node.URL()+"/-/ready", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		last = string(b)
		if resp.StatusCode == http.StatusOK {
			c.t.Errorf("a node that recovery went on without says that it is ready")
			return nil
		}
		stored, merr := os.ReadFile(filepath.Join(node.Dir, "state", "map"))
		m, derr := core.DecodeMap(stored)
		if err := errors.Join(err, merr, derr); err != nil {
			return err
		}
		if m.Epoch < 1<<32 || m.Node("n5") != nil {
			return fmt.Errorf("n5 knows map %d only", m.Epoch)
		}
		return nil
	})
	_ = cmd.Process.Kill()
	if <-ended == nil {
		c.t.Error("n5 ended well, though it was killed")
	}
	if err != nil {
		c.t.Errorf("n5 back: %v; it says %s; log:\n%s", err, last, log.Bytes()[max(0, log.Len()-4000):])
	}
}

// recoverBus recovers all nodes, the third of three as if it were on another
// machine.
func (c *cluster) recoverBus() recovered {
	c.t.Helper()
	must := func(_ string, err error) {
		if err != nil {
			c.t.Fatal(err)
		}
	}
	here, flags := c.nodes, []string(nil)
	there, found, orders := c.configOf(c.nodes[len(c.nodes)-1]), filepath.Join(c.t.TempDir(), "found"), filepath.Join(c.t.TempDir(), "orders")
	if len(c.nodes) == 3 {
		must(c.shoal("", "recover", "--config", there, "--report", found))
		here, flags = c.nodes[:2], []string{"--found", found, "--out", orders}
	}
	done, err := c.recover(here, flags...)
	must("", err)
	if !slices.Equal(done.Applied, here) {
		c.t.Errorf("the new map was given to %v, want %v", done.Applied, here)
	}
	if len(c.nodes) == 3 {
		must(c.shoal("", "recover", "--config", there, "--apply", orders, "--yes"))
	}
	return done
}

// transformsAndJobs registers a transform, runs a job to its end and begins one that
// takes long, and returns once every node has a copy of all that.
func (c *cluster) transformsAndJobs(k *client.Client, b core.BucketName) (ended, running string) {
	t, ctx := c.t, c.t.Context()
	t.Helper()
	if _, err := k.Upload(ctx, b.Name, "text", strings.NewReader("shout"), 5, client.TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.PutTransform(ctx, api.Transform{Name: "upper", Type: "wasm", Code: module(t, "upper")}); err != nil {
		t.Fatal(err)
	}
	done, err := k.StartJob(ctx, api.JobSpec{Kind: "etl", From: b.String(), Prefix: "text", Args: map[string]string{"transform": "upper", "inspect": "true"}})
	if err == nil {
		done, err = k.WatchJob(ctx, done.ID, time.Second, func(api.Job) {})
	}
	if err != nil || done.State != api.JobDone {
		t.Fatalf("job: %+v, %v", done, err)
	}
	slow, err := k.StartJob(ctx, api.JobSpec{Kind: "scrub", From: b.String(), RateLimit: api.RateLimit{Objects: 0.01}})
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range c.nodes {
		dir := filepath.Join(c.dirOf(node), "state", "bus-copy")
		poll(t, 20*time.Second, node+" has a copy of the bus", func(context.Context) error {
			all := ""
			files, err := os.ReadDir(dir)
			for _, f := range files {
				one, rerr := os.ReadFile(filepath.Join(dir, f.Name()))
				var e bus.KeyValue
				var st job.Status
				if rerr == nil && json.Unmarshal(one, &e) == nil {
					all += e.Key + " "
					if strings.HasSuffix(e.Key, ".status") && json.Unmarshal(e.Value, &st) == nil {
						all += string(st.State)
					}
					all += "\n"
				}
			}
			for _, want := range []string{"etl.upper", "job." + done.ID + ".status " + string(job.Done), "job." + slow.ID + ".spec"} {
				if err == nil && !strings.Contains(all, want) {
					err = fmt.Errorf("it lacks %s", want)
				}
			}
			return err
		})
	}
	return done.ID, slow.ID
}

// TestRecoverBusLost wipes the bus of every coordinator; all else is there. The
// only coordinator of a small cluster says so instead of starting an empty bus.
func TestRecoverBusLost(t *testing.T) {
	t.Parallel()
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d-nodes", nodes), func(t *testing.T) {
			t.Parallel()
			c := startCluster(t, nodes, 2)
			scheme := map[int]string{1: "none", 3: "mirror-2"}[nodes]
			b := c.bucket("kept", scheme)
			k := c.client("")
			for i := range 30 {
				if _, err := k.Upload(t.Context(), b.Name, fmt.Sprintf("key-%02d", i), bytes.NewReader(fill(uint64(i), 20_000)), 20_000, client.TransferOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			ended, running := c.transformsAndJobs(k, b)
			if _, err := c.recover(c.nodes); err == nil || !strings.Contains(err.Error(), "must be stopped") {
				t.Errorf("recover while the nodes run: got %v, want a refusal", err)
			}
			for _, n := range c.nodes {
				c.kill(n)
			}
			if _, err := c.recover(c.nodes); err == nil || !strings.Contains(err.Error(), "--accept-intact") {
				t.Errorf("recover of an intact cluster: got %v, want a refusal", err)
			}
			for _, n := range c.nodes {
				if err := os.RemoveAll(filepath.Join(c.dirOf(n), "state", "bus")); err != nil {
					t.Fatal(err)
				}
			}
			if nodes == 1 {
				out, err := exec.CommandContext(t.Context(), os.Getenv(binVar), "server", "--config", c.configOf("n1")).CombinedOutput()
				if err == nil || !strings.Contains(string(out), "shoal recover") {
					t.Errorf("a coordinator without its store: got %v, %s; want a refusal that names shoal recover", err, out)
				}
			}
			done := c.recoverBus()
			if len(done.LostSlots)+len(done.LostNodes) != 0 || len(done.Voters) != nodes {
				t.Errorf("recovered: %d lost slots, nodes %v, voters %v; want none lost, %d voters", len(done.LostSlots), done.LostNodes, done.Voters, nodes)
			}
			c.startAll(c.nodes...)
			c.waitHealthy(time.Minute)
			k = c.client("")
			if got := names(t, k, b); len(got) != 31 {
				t.Errorf("%d objects are listed, want 31", len(got))
			}
			for i := range 30 {
				if got, err := body(t.Context(), k, b.Name, fmt.Sprintf("key-%02d", i)); err != nil || !bytes.Equal(got, fill(uint64(i), 20_000)) {
					t.Errorf("key-%02d: got %d bytes, %v", i, len(got), err)
				}
			}
			// Transforms and the history of jobs are there again; nothing runs.
			if got, err := through(t.Context(), k, b.Name, "text", "upper"); err != nil || got != "SHOUT" {
				t.Errorf("a transform after recovery: %q, %v", got, err)
			}
			for id, want := range map[string]api.JobState{ended: api.JobDone, running: api.JobStopped} {
				if j, err := k.Job(t.Context(), id); err != nil || j.State != want {
					t.Errorf("job %s is %s, %v; want it %s", id, j.State, err, want)
				}
			}
			// The new bus carries jobs and changes of the map.
			if _, err := c.shoal("", "bucket", "create", "shoal://copy", "--props", "scheme="+scheme); err != nil {
				t.Error(err)
			}
			if out, err := c.shoal("", "cp", "shoal://kept", "shoal://copy"); err != nil {
				t.Errorf("a job after recovery: %v %s", err, out)
			}
		})
	}
}
