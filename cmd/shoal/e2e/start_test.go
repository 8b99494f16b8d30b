package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/shoalstore/shoal/cmd/shoal/internal/devcluster"
	"github.com/shoalstore/shoal/core"
)

// The exit code of what is refused.
const exitRefused = 4

// TestStart starts servers that must not run, or not with all of their disks:
// each says what is wrong, and changes nothing.
func TestStart(t *testing.T) {
	c := startCluster(t, 2, 2)
	b := c.bucket("kept", "mirror-2")
	data := fill(1, 3<<20)
	c.put(b.Name, "k", data)
	t.Run("running already", c.alreadyRunning)
	t.Run("copy", c.copied)
	t.Run("name in use", c.nameInUse)
	t.Run("disks", c.wrongDisks)
	t.Run("state", c.wrongState)
	c.waitHealthy(60 * time.Second)
	if got, err := body(t.Context(), c.client(""), b.Name, "k"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("after all that: got %d bytes, %v", len(got), err)
	}
}

// alreadyRunning starts a server with the configuration of one that runs.
func (c *cluster) alreadyRunning(t *testing.T) {
	n := c.node("n1")
	c.refused(t, n.Config, "another process runs this node")
	// With another node.data, but the same disks.
	dir := t.TempDir()
	copyTree(t, filepath.Join(n.Dir, "state"), filepath.Join(dir, "state"))
	config := c.rewrite(t, "n1", dir, filepath.Join(n.Dir, "state"), filepath.Join(dir, "state"))
	before := top(t, n.Disks[0].Path)
	c.refused(t, config, "runs already, at "+n.Peer)
	// And as another node, before it has joined and after.
	dir = t.TempDir()
	config = c.rewrite(t, "n1", dir, filepath.Join(n.Dir, "state"), filepath.Join(dir, "state"), `name: "n1"`, `name: "n9"`)
	c.refusedCommand(t, "already exists", "cluster", "join", "--config", config)
	if _, err := os.Stat(filepath.Join(dir, "state", "node.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused join left node.json: %v", err)
	}
	if got := top(t, n.Disks[0].Path); got != before {
		t.Errorf("the disk in use holds %s, held %s", got, before)
	}
}

// copied starts a copy of a node with all that it has.
func (c *cluster) copied(t *testing.T) {
	n := c.node("n2")
	c.stop(t, "n2")
	dir := t.TempDir()
	copyTree(t, n.Dir, filepath.Join(dir, "n2"))
	c.start("n2")
	config := c.rewrite(t, "n2", dir, n.Dir, filepath.Join(dir, "n2"))
	c.refused(t, config, "node n2 runs already, at "+n.Peer)

	// Where the first one does not answer at first, it is noticed later.
	if err := c.Pause(t.Context(), "n2"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	p := startServer(ctx, t, config)
	poll(t, 30*time.Second, "the copy runs", func(context.Context) error { return p.said("at another address") })
	if err := c.Resume(t.Context(), "n2"); err != nil {
		t.Fatal(err)
	}
	p.wantRefused(t, "node n2 runs already, at "+n.Peer)
	c.waitHealthy(60 * time.Second)
}

// nameInUse lets a new node join under the name of a member.
func (c *cluster) nameInUse(t *testing.T) {
	n, dir := c.node("n2"), t.TempDir()
	config := c.rewrite(t, "n2", dir, n.Dir, dir)
	c.refusedCommand(t, "a node called n2 is in the cluster already, at "+n.Peer, "cluster", "join", "--config", config)
	if left := top(t, dir); left != "node.yaml" {
		t.Errorf("a refused join left %s", left)
	}
}

// wrongDisks gives a node other disks than its own. It runs with what is right.
func (c *cluster) wrongDisks(t *testing.T) {
	n := c.node("n2")
	d1, away := n.Disks[0].Path, n.Disks[0].Path+".away"
	other := readFile(t, filepath.Join(c.node("n1").Disks[0].Path, "shoal.json"))
	own := readFile(t, filepath.Join(d1, "shoal.json"))
	foreign := strings.Replace(other, `"node": "n1"`, `"node": "n2"`, 1)
	for name, v := range map[string]struct {
		copies []string // shoal.json and its backup
		says   string
	}{
		"not mounted":              {nil, "has no shoal.json"},
		"of another node":          {[]string{other, other}, "belongs elsewhere: node n1, not n2"},
		"both copies damaged":      {[]string{foreign, own[:40]}, "both copies of its identity are damaged"},
		"of a later version":       {[]string{sealed(t, own, `"format":1`, `"format":7`), ""}, "made by a newer version"},
		"with unknown features":    {[]string{sealed(t, own, `"features":0`, `"features":2`), ""}, "made by a newer version"},
		"of another cluster":       {[]string{sealed(t, own, `"cluster":"`, `"cluster":"0`), ""}, "belongs elsewhere: cluster 0"},
		"without meta":             {[]string{own, own}, "shoal disk rebuild"},
		"formatted only by halves": {[]string{own, own, "formatting"}, "interrupted"},
	} {
		t.Run(name, func(t *testing.T) {
			c.stop(t, "n2")
			rename(t, d1, away)
			if err := os.Mkdir(d1, 0o700); err != nil {
				t.Fatal(err)
			}
			for i, text := range v.copies {
				if text != "" {
					writeFile(t, filepath.Join(d1, []string{"shoal.json", "shoal.json.bak", "formatting"}[i]), text)
				}
			}
			before := contents(t, d1)
			c.start("n2")
			if d := c.awaitDisk(t, "n2/d1", core.DiskFailed); !strings.Contains(d.Problem, v.says) || d.Path != d1 {
				t.Errorf("shown as %+v, want it failed for %q", d, v.says)
			}
			if log := readFile(t, n.Log); !strings.Contains(log, "disk cannot be used") || !strings.Contains(log, "hint=") {
				t.Errorf("the log lacks it")
			}
			after := contents(t, d1)
			delete(after, "lock") // which changes nothing in a disk of the node's own
			if !maps.Equal(after, before) {
				t.Errorf("the directory holds %v, held %v", after, before)
			}
			if d := c.disk(t, "n2/d2"); d.State != core.DiskOK {
				t.Errorf("the other disk is %s: %s", d.State, d.Problem)
			}
			if name == "not mounted" {
				c.refusedCommand(t, "has no shoal.json", "disk", "attach", "n2/d1")
				c.refusedCommand(t, "has no shoal.json", "disk", "rebuild", "n2/d1")
			}
			removeAll(t, d1)
			rename(t, away, d1)
			if name == "not mounted" {
				// Mounted, it is attached without a restart.
				c.must("disk", "attach", "n2/d1")
				c.waitHealthy(60 * time.Second)
			}
		})
	}
	c.stop(t, "n2")
	// One damaged copy is repaired.
	writeFile(t, filepath.Join(d1, "shoal.json"), "{")
	removeAll(t, filepath.Join(n.Disks[1].Path, "shoal.json.bak"))
	c.start("n2")
	c.waitHealthy(60 * time.Second)
	if got := readFile(t, filepath.Join(d1, "shoal.json")); got != own {
		t.Errorf("shoal.json holds %q, want %q", got, own)
	}
	if a, b := readFile(t, filepath.Join(n.Disks[1].Path, "shoal.json")), readFile(t, filepath.Join(n.Disks[1].Path, "shoal.json.bak")); a != b {
		t.Errorf("the missing copy holds %q, the other %q", b, a)
	}
}

// wrongState starts a node whose node.data is not as it should be.
func (c *cluster) wrongState(t *testing.T) {
	n := c.node("n2")
	c.stop(t, "n2")
	state := filepath.Join(n.Dir, "state")
	kept := filepath.Join(t.TempDir(), "state")
	copyTree(t, state, kept)
	file := func(name string) string { return filepath.Join(state, name) }
	newer := func(name string) { // a map of a later format
		writeFile(t, file(name), strings.Replace(readFile(t, file(name)), "shoal-map-1 ", "shoal-map-2 ", 1))
	}
	for name, v := range map[string]struct {
		spoil func()
		says  string
	}{
		"map of a later version": {func() { newer("map") }, "made by a newer version"},
		"voter's map of a later version": {func() {
			writeFile(t, file("voter"), readFile(t, file("map")))
			newer("voter")
		}, "made by a newer version"},
		"node.json of a later version": {func() {
			writeFile(t, file("node.json"), strings.Replace(readFile(t, file("node.json")), `"format": 1`, `"format": 2`, 1))
		}, "made by a newer version"},
		"no maps": {func() { removeAll(t, file("map")); removeAll(t, file("voter")) }, "the stored maps are lost or damaged"},
		"damaged": {func() { writeFile(t, file("node.json"), "{") }, "corrupt"},
		"nothing": {func() { removeAll(t, state) }, "shoal cluster join"},
		"a file":  {func() { removeAll(t, state); writeFile(t, state, "") }, "node.data"},
		"a directory in the lock's place": {func() {
			removeAll(t, file("lock"))
			if err := os.Mkdir(file("lock"), 0o700); err != nil {
				t.Fatal(err)
			}
		}, "must be able to write it"},
	} {
		v.spoil()
		before := contents(t, state)
		p := startServer(t.Context(), t, n.Config)
		if code, text := p.wait(t); code == 0 || !strings.Contains(text, v.says) {
			t.Errorf("%s: exit code %d, %s; want %q", name, code, text, v.says)
		}
		// A voter that has lost its state gets a new key, which is in node.json.
		if after := contents(t, state); name != "no maps" && !maps.Equal(after, before) {
			t.Errorf("%s: node.data holds %v, held %v", name, after, before)
		}
		removeAll(t, state)
		copyTree(t, kept, state)
	}
	// As another node.
	config := c.rewrite(t, "n2", t.TempDir(), `name: "n2"`, `name: "n3"`)
	p := startServer(t.Context(), t, config)
	if code, text := p.wait(t); code == 0 || !strings.Contains(text, `belongs to node "n2"`) {
		t.Errorf("under another name: exit code %d, %s", code, text)
	}
	c.start("n2")
}

// server is a server that a test has started itself.
type server struct {
	cmd  *exec.Cmd
	text *lockedBuffer
	end  chan struct{} // closed when it has ended
}

// startServer starts a server which ends with the test, or with ctx.
func startServer(ctx context.Context, t *testing.T, config string) *server {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	p := &server{cmd: exec.CommandContext(ctx, os.Getenv(binVar), "server", "--config", config), text: new(lockedBuffer), end: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.text, p.text
	if err := p.cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	go func() { defer close(p.end); _ = p.cmd.Wait() }()
	t.Cleanup(func() { cancel(); <-p.end })
	return p
}

// said returns an error as long as the server has not written that.
func (p *server) said(what string) error {
	if text := p.text.String(); !strings.Contains(text, what) {
		return fmt.Errorf("%q is not in %s", what, text)
	}
	return nil
}

// wait waits for the server's end by itself, soon.
func (p *server) wait(t *testing.T) (int, string) {
	t.Helper()
	timer := time.NewTimer(30 * time.Second)
	defer timer.Stop()
	select {
	case <-p.end:
		return p.cmd.ProcessState.ExitCode(), p.text.String()
	case <-timer.C:
		t.Fatalf("the server still runs: %s", p.text.String())
		return 0, ""
	}
}

func (p *server) wantRefused(t *testing.T, says string) {
	t.Helper()
	if code, text := p.wait(t); code != exitRefused || !strings.Contains(text, says) {
		t.Errorf("exit code %d, %s; want %d and %q", code, text, exitRefused, says)
	}
}

// refused starts a server that must end by itself with that message.
func (c *cluster) refused(t *testing.T, config, says string) {
	t.Helper()
	startServer(t.Context(), t, config).wantRefused(t, says)
}

// refusedCommand runs a command that must be refused with that message.
func (c *cluster) refusedCommand(t *testing.T, says string, args ...string) {
	t.Helper()
	_, err := c.shoal("", args...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitRefused || !strings.Contains(err.Error(), says) {
		t.Errorf("shoal %s: got %v, want exit code %d and %q", strings.Join(args, " "), err, exitRefused, says)
	}
}

// rewrite writes a node's configuration with other texts and ports to a
// directory.
func (c *cluster) rewrite(t *testing.T, node, dir string, oldnew ...string) string {
	t.Helper()
	n := c.node(node)
	for _, addr := range []string{n.Client, n.Peer, n.Bus, n.Route} {
		oldnew = append(oldnew, `"`+addr+`"`, `"`+freeAddr(t)+`"`)
	}
	text := readFile(t, n.Config)
	head, seeds, _ := strings.Cut(text, "cluster:")
	file := filepath.Join(dir, "node.yaml")
	text = strings.NewReplacer(oldnew...).Replace(head) + "cluster:" + seeds
	if node == "n2" || strings.Contains(text, `"n9"`) {
		// Whoever wants to join asks a member that is not himself.
		text = regexp.MustCompile(`(?s)  seeds:.*credentials:`).ReplaceAllString(text, "  seeds:\n    - \""+c.node("n1").Peer+"\"\ncredentials:")
	}
	writeFile(t, file, text)
	return file
}

// node is what is known of a node.
func (c *cluster) node(name string) devcluster.Node {
	c.t.Helper()
	s, err := c.State()
	if err != nil {
		c.t.Fatal(err)
	}
	for _, n := range s.Nodes {
		if n.Name == name {
			return n
		}
	}
	c.t.Fatalf("no node %s", name)
	return devcluster.Node{}
}
