package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// edit replaces something in a file.
func edit(t *testing.T, file, from, to string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), from) {
		t.Fatalf("%s does not say %s", file, from)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(b), from, to, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestAddressChanges starts a node under another peer address than the map has:
// the others learn of it, and it serves.
func TestAddressChanges(t *testing.T) {
	c := startCluster(t, 3, 1)
	c.bucket("moved", "mirror-2")
	c.put("moved", "before", fill(1, 300_000))
	n := c.node("n2")
	for _, end := range []struct {
		how  string
		stop func()
	}{
		{"stopped", func() { c.stop(t, "n2") }},
		{"killed", func() { c.kill("n2") }},
	} {
		end.stop()
		addr := freeAddr(t)
		edit(t, n.Config, n.Peer, addr)
		n.Peer = addr
		start := time.Now()
		c.start("n2")
		t.Logf("%s: serves under another address after %s", end.how, since(start))
		c.waitHealthy(60 * time.Second)
		if out := c.must("show", "node", "n2"); !strings.Contains(out, addr) {
			t.Errorf("%s: the cluster does not have the node at %s:\n%s", end.how, addr, out)
		}
	}
	for _, node := range c.nodes {
		got, err := body(t.Context(), c.client(node), "moved", "before")
		if err != nil || string(got) != string(fill(1, 300_000)) {
			t.Errorf("by %s: got %d bytes, %v", node, len(got), err)
		}
	}
}

// TestJoinAgain breaks a join off when disks are formatted and the map has the
// node, and lets it join again.
func TestJoinAgain(t *testing.T) {
	c := startCluster(t, 2, 1)
	n, dir := c.node("n2"), t.TempDir()
	config := c.rewrite(t, "n2", dir, n.Dir, dir, `name: "n2"`, `name: "n9"`)
	state := filepath.Join(dir, "state")
	if err := os.WriteFile(state, []byte("in the way"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := c.shoal("", "cluster", "join", "--config", config); err == nil {
		t.Fatalf("a node joined whose node.data is a file: %s", out)
	}
	disk := readFile(t, filepath.Join(dir, "d1", "shoal.json"))
	if err := os.Remove(state); err != nil {
		t.Fatal(err)
	}
	c.must("cluster", "join", "--config", config)
	if got := readFile(t, filepath.Join(dir, "d1", "shoal.json")); got != disk {
		t.Errorf("the disk, which the map knows, was formatted again")
	}
	// What is not this node's is left alone.
	c.refusedCommand(t, "belongs to a cluster already", "cluster", "join", "--config", config)
}
