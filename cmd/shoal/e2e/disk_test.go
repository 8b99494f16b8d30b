package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// allocated is the space that a file takes.
func allocated(name string) (int64, error) {
	info, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // removed meanwhile
	}
	if err != nil {
		return 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fmt.Errorf("%s: no blocks are known", name)
	}
	return st.Blocks * 512, nil
}

// must runs a command line that must end well.
func (c *cluster) must(args ...string) string {
	c.t.Helper()
	out, err := c.shoal("", args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

func (c *cluster) stop(t *testing.T, node string) {
	t.Helper()
	if err := c.Stop(t.Context(), node); err != nil {
		t.Fatalf("stop %s: %v", node, err)
	}
}

// put stores an object.
func (c *cluster) put(bucket, key string, data []byte) {
	c.t.Helper()
	file := filepath.Join(c.t.TempDir(), "data")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		c.t.Fatal(err)
	}
	c.must("put", file, "shoal://"+bucket+"/"+key)
}

// disk is what the cluster says of a disk.
func (c *cluster) disk(t *testing.T, id string) api.Disk {
	t.Helper()
	node, _, _ := strings.Cut(id, "/")
	for line := range strings.Lines(c.must("show", "disk", node, "--json")) {
		var d api.Disk
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			t.Fatal(err)
		}
		if d.ID == id {
			return d
		}
	}
	t.Fatalf("no disk %s", id)
	return api.Disk{}
}

// awaitDisk waits until a disk has that state, which the map gives it soon
// after its node has started.
func (c *cluster) awaitDisk(t *testing.T, id string, want core.DiskState) (d api.Disk) {
	t.Helper()
	poll(t, 20*time.Second, id+" "+string(want), func(context.Context) error {
		if d = c.disk(t, id); d.State != want {
			return fmt.Errorf("it is %s", d.State)
		}
		return nil
	})
	return d
}

// blankNode gives a node new disks only: it wants to be told to start so.
func (c *cluster) blankNode(t *testing.T, name string) {
	t.Helper()
	c.stop(t, name)
	disks := c.node(name).Disks
	for _, d := range disks {
		removeAll(t, d.Path)
		if err := os.Mkdir(d.Path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Start(t.Context(), name); err == nil || !strings.Contains(err.Error(), "start the node once with --without-disks") {
		t.Errorf("started without disks: %v", err)
	}
	if err := c.Start(t.Context(), name, "--without-disks"); err != nil {
		t.Fatal(err)
	}
	for i := range disks {
		id := fmt.Sprintf("%s/d%d", name, i+1)
		c.awaitDisk(t, id, core.DiskFailed)
		c.must("disk", "format", id, "--yes")
	}
}

// TestDisks takes disks of a running cluster out of use, formats and rebuilds
// them. Everything can be read all the time, and in the end everything is
// redundant again.
func TestDisks(t *testing.T) {
	c := startCluster(t, 3, 2)
	k := c.client("")
	objects := map[string]map[string]uint64{}
	for seed, v := range []struct{ bucket, scheme string }{{"coded", "ec-2+1"}, {"mirrored", "mirror-2"}} {
		c.bucket(v.bucket, v.scheme)
		objects[v.bucket] = map[string]uint64{}
		for i, n := range []int{1000, 300_000, 3 << 20} {
			key := fmt.Sprint("k", n)
			id := uint64(10*seed + i)
			c.put(v.bucket, key, fill(id, n))
			objects[v.bucket][key] = id
		}
	}
	check := func(when string) {
		t.Helper()
		for b, keys := range objects {
			for key, id := range keys {
				got, err := body(t.Context(), k, b, key)
				if err != nil || string(got) != string(fill(id, len(got))) || key != fmt.Sprint("k", len(got)) {
					t.Errorf("%s: %s/%s: got %d bytes, %v", when, b, key, len(got), err)
				}
			}
		}
	}
	healthy := func(when string) {
		t.Helper()
		c.waitHealthy(90 * time.Second)
		check(when)
	}
	state := func(id string, want core.DiskState) {
		t.Helper()
		if d := c.disk(t, id); d.State != want {
			t.Errorf("%s is %s: %s; want it %s", id, d.State, d.Problem, want)
		}
	}

	c.refusedCommand(t, "is in use and works", "disk", "format", "n2/d1", "--yes")
	c.refusedCommand(t, "is in use and works", "disk", "rebuild", "n2/d1")
	for _, args := range [][]string{{"detach", "n2/d7"}, {"rebuild", "n2/d7"}, {"format", "n7/d1", "--yes"}, {"attach", "n7/d1"}} {
		if out, err := c.shoal("", append([]string{"disk"}, args...)...); err == nil || !strings.Contains(err.Error(), "not found") && !strings.Contains(err.Error(), "has no disk") {
			t.Errorf("%v: got %s, %v", args, out, err)
		}
	}
	check("after what was refused")

	c.must("disk", "detach", "n2/d1")
	state("n2/d1", core.DiskDetached)
	check("detached")
	c.must("disk", "attach", "n2/d1")
	state("n2/d1", core.DiskOK)
	healthy("attached again")

	before := c.disk(t, "n2/d1").UUID
	c.must("disk", "detach", "n2/d1")
	if _, err := c.shoal("", "disk", "format", "n2/d1"); err == nil || !strings.Contains(err.Error(), "--yes") {
		t.Errorf("format without --yes: %v", err)
	}
	foreign := filepath.Join(c.node("n2").Disks[0].Path, "photos")
	writeFile(t, foreign, "not a disk's")
	c.refusedCommand(t, "which is no part of a disk", "disk", "format", "n2/d1", "--yes")
	if err := os.Remove(foreign); err != nil {
		t.Fatal(err)
	}
	c.must("disk", "format", "n2/d1", "--yes")
	state("n2/d1", core.DiskOK)
	if c.disk(t, "n2/d1").UUID == before {
		t.Error("a formatted disk has its old identity")
	}
	healthy("formatted")

	c.blankNode(t, "n2")
	healthy("all disks of a node are new")

	// A lost index is built again, with the shards that are there.
	d2 := c.node("n3").Disks[1].Path
	shards := func() (n int) {
		files, err := filepath.Glob(filepath.Join(d2, "data", "??", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	c.stop(t, "n3")
	removeAll(t, filepath.Join(d2, "meta"))
	had := shards()
	c.start("n3")
	if d := c.awaitDisk(t, "n3/d2", core.DiskFailed); !strings.Contains(d.Problem, "shoal disk rebuild") {
		t.Errorf("without meta it is shown as %+v", d)
	}
	check("without meta")
	c.must("disk", "rebuild", "n3/d2")
	state("n3/d2", core.DiskOK)
	healthy("rebuilt")
	if now := shards(); now < had {
		t.Errorf("%d shards are left of %d", now, had)
	}
	// What was built again is needed without another node.
	c.kill("n1")
	for b, keys := range objects {
		for key, id := range keys {
			poll(t, 30*time.Second, "read without n1", func(ctx context.Context) error {
				got, err := body(ctx, k, b, key)
				if err == nil && string(got) != string(fill(id, len(got))) {
					t.Errorf("%s/%s without n1: wrong bytes", b, key)
				}
				return err
			})
		}
	}
}
