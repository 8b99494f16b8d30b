package devcluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoalstore/shoal/cmd/shoal/internal/devcluster/standin"
	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// TestMain makes the test binary stand in for the nodes' program.
func TestMain(m *testing.M) {
	standin.Main()
	os.Exit(m.Run())
}

// manager returns a cluster of stand-ins; whatever of it runs ends with the test.
func manager(t *testing.T, what string) *Cluster {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := New(Options{
		StateDir: filepath.Join(t.TempDir(), "dev"), Name: "test", Executable: exe,
		Env: append(os.Environ(), standin.Variable+"="+what, "AWS_ACCESS_KEY_ID=shoaldev", "SHOAL_ENDPOINT=http://x"),
	})
	t.Cleanup(func() {
		if err := c.Clean(context.Background()); err != nil && !errors.Is(err, core.ErrNotFound) {
			t.Errorf("clean: %v", err)
		}
	})
	return c
}

func plan(nodes int) Plan { return Plan{Nodes: nodes, Disks: 2} }

func up(t *testing.T, nodes int) *Cluster {
	t.Helper()
	c := manager(t, "yes")
	if err := c.Up(t.Context(), plan(nodes)); err != nil {
		t.Fatal(err)
	}
	return c
}

func states(t *testing.T, c *Cluster) string {
	t.Helper()
	nodes, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, n := range nodes {
		out = append(out, n.Node+" "+n.State)
		if (n.PID != 0) != (n.State != Stopped && n.State != Killed) {
			t.Errorf("%s is %s with process %d", n.Node, n.State, n.PID)
		}
	}
	return strings.Join(out, ", ")
}

func want(t *testing.T, c *Cluster, want string) {
	t.Helper()
	if got := states(t, c); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func refused(t *testing.T, err error, text string) {
	t.Helper()
	e, ok := errors.AsType[*api.Error](err)
	if !ok || e.Code != api.CodeRefused || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want it refused: %s", err, text)
	}
}

func TestLifeOfACluster(t *testing.T) {
	c := up(t, 3)
	ctx := t.Context()
	want(t, c, "n1 running, n2 running, n3 running")
	do := func(f func(context.Context, string) error, node string) {
		t.Helper()
		if err := f(ctx, node); err != nil {
			t.Fatal(err)
		}
	}
	do(c.Kill, "n2")
	want(t, c, "n1 running, n2 killed, n3 running")
	refused(t, c.Kill(ctx, "n2"), "n2 does not run (killed)")
	do(c.Pause, "n3")
	want(t, c, "n1 running, n2 killed, n3 paused")
	refused(t, c.Start(ctx, "n3"), "n3 runs already")
	do(func(ctx context.Context, node string) error { return c.Start(ctx, node) }, "n2")
	want(t, c, "n1 running, n2 running, n3 paused")
	do(c.Resume, "n3")
	do(c.Stop, "n1")
	want(t, c, "n1 stopped, n2 running, n3 running")
	do(c.Pause, "n2")
	do(c.Stop, "n2") // a frozen node ends in order, too
	want(t, c, "n1 stopped, n2 stopped, n3 running")
	refused(t, c.Up(ctx, plan(3)), "is running already")

	name, err := c.Add(ctx)
	if err != nil || name != "n4" {
		t.Fatalf("add: got %q, %v", name, err)
	}
	want(t, c, "n1 stopped, n2 stopped, n3 running, n4 running")
	if err := c.Down(ctx); err != nil {
		t.Fatal(err)
	}
	want(t, c, "n1 stopped, n2 stopped, n3 stopped, n4 stopped")
	if err := c.Up(ctx, plan(99)); err != nil { // what exists is started as it is
		t.Fatal(err)
	}
	want(t, c, "n1 running, n2 running, n3 running, n4 running")
	s, err := c.State()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range s.Nodes {
		b, err := os.ReadFile(n.Log)
		if err != nil || !strings.Contains(string(b), "serving") {
			t.Errorf("log of %s: %q, %v", n.Name, b, err)
		}
		if strings.Contains(string(b), "shoaldev") || strings.Contains(string(b), "http://x") {
			t.Errorf("%s got the variables of clients: %q", n.Name, b)
		}
	}
	if err := c.Clean(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.Data); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("clean left %s", s.Data)
	}
	if _, err := c.Status(ctx); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("status after clean: got %v", err)
	}
}

func TestLayout(t *testing.T) {
	c := manager(t, "yes")
	data := filepath.Join(t.TempDir(), "data")
	p := plan(2)
	p.Data, p.Backends = data, []Backend{{"s3", "http://127.0.0.1:9000"}, {"gs", "http://127.0.0.1:4443"}}
	if err := c.Up(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	s, err := c.State()
	if err != nil {
		t.Fatal(err)
	}
	addr := func(n int) string { return fmt.Sprintf("127.0.0.1:%d", s.BasePort+n) }
	n := s.Nodes[1]
	if n.Client != addr(1) || n.Peer != addr(101) || n.Bus != addr(201) || n.Route != addr(301) {
		t.Errorf("ports of n2: %+v, base %d", n, s.BasePort)
	}
	if n.Disks[1].Path != filepath.Join(data, "n2", "d2") {
		t.Errorf("disk: got %s", n.Disks[1].Path)
	}
	conf, err := config.Load(n.Config, nil)
	if err != nil {
		t.Fatal(err)
	}
	if conf.Cluster.Seeds[0] != addr(100) || conf.Backends.S3.Endpoint != "http://127.0.0.1:9000" || !conf.Backends.S3.PathStyle || conf.Disks[0].Weight != 1 || len(conf.Cluster.Secret) < 32 {
		t.Errorf("configuration: %+v", conf)
	}
	if gs := conf.Backends.GS; gs.Endpoint != "http://127.0.0.1:4443" || !gs.Anonymous || gs.Conditions || !gs.UploadConditions {
		t.Errorf("configuration of gs: %+v", gs)
	}
	if info, err := os.Stat(n.Config); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the configuration holds a secret: %v, %v", info.Mode(), err)
	}
	if got := s.Endpoints(); got[0] != "http://"+addr(0) || len(got) != 2 {
		t.Errorf("endpoints: %v", got)
	}
	foreign := filepath.Join(data, "mine")
	if err := os.WriteFile(foreign, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(data); err != nil || len(entries) != 1 {
		t.Errorf("clean must leave what is not the cluster's: %v, %v", entries, err)
	}
}

func TestSideBySide(t *testing.T) {
	a := up(t, 1)
	b := New(a.o)
	b.o.Name = "other"
	t.Cleanup(func() { _ = b.Clean(context.Background()) })
	if err := b.Up(t.Context(), plan(1)); err != nil {
		t.Fatal(err)
	}
	if err := a.Kill(t.Context(), "n1"); err != nil {
		t.Fatal(err)
	}
	want(t, a, "n1 killed")
	want(t, b, "n1 running")
}

// TestUpFails wants nothing left of a new cluster that cannot come up, and the
// reason told.
func TestUpFails(t *testing.T) {
	for what, text := range map[string]string{
		"init-fails": "init does not want to",
		"n2-dies":    "this node dies at once",
	} {
		c := manager(t, what)
		err := c.Up(t.Context(), plan(2))
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: got %v, want %q", what, err, text)
		}
		if _, err := os.Stat(c.dir()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %s is left (%v)", what, c.dir(), err)
		}
	}
}

// TestUpInterrupted ends a start that would last for ever.
func TestUpInterrupted(t *testing.T) {
	c := manager(t, "never-ready")
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 1)
	go func() { errs <- c.Up(ctx, plan(2)) }()
	err := await(t.Context(), func() (bool, error) {
		nodes, err := c.Status(t.Context())
		return err == nil && len(nodes) == 2 && nodes[1].State == Starting, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.State()
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	for _, n := range s.Nodes {
		if alive, _ := n.Process.alive(); alive {
			t.Errorf("%s still runs", n.Name)
		}
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c := manager(t, "yes")
	p := plan(1)
	p.BasePort = l.Addr().(*net.TCPAddr).Port
	if p.BasePort > 65000 {
		t.Skip("the system chose a port too high for this test")
	}
	refused(t, c.Up(t.Context(), p), "which is in use")
	if _, err := c.State(); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("a cluster is left: %v", err)
	}
}

func TestBadPlansAndNames(t *testing.T) {
	c := manager(t, "yes")
	for _, p := range []Plan{{Nodes: 0, Disks: 1}, {Nodes: 101, Disks: 1}, {Nodes: 1, Disks: 0}, {Nodes: 1, Disks: 1, BasePort: 65300}} {
		if err := c.Up(t.Context(), p); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%+v: got %v", p, err)
		}
	}
	p := plan(1)
	p.Data = t.TempDir()
	if err := os.WriteFile(filepath.Join(p.Data, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, c.Up(t.Context(), p), "is not empty")
	for _, name := range []string{"", "..", "a/b", "A"} {
		bad := New(Options{StateDir: t.TempDir(), Name: name})
		if _, err := bad.State(); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("name %q: got %v", name, err)
		}
	}
	if err := c.Kill(t.Context(), "n1"); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("kill without a cluster: got %v", err)
	}
	if _, err := os.Stat(c.dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory was made for no cluster")
	}
}

func TestExistingClusterOfAnotherShape(t *testing.T) {
	c := up(t, 1)
	if err := c.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := plan(2)
	p.Fixed = true
	refused(t, c.Up(t.Context(), p), "exists, with 1 nodes of 2 disks")
	if err := c.Kill(t.Context(), "n9"); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("unknown node: got %v", err)
	}
}

// TestForeignProcess gives a node the id of another process, as happens when
// ids are used again: that process must live on.
func TestForeignProcess(t *testing.T) {
	c := up(t, 1)
	if err := c.Kill(t.Context(), "n1"); err != nil {
		t.Fatal(err)
	}
	other := exec.Command("sleep", "60")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	err := c.update(func(s *State) error {
		s.Nodes[0].Process.PID = other.Process.Pid
		s.Nodes[0].Ended = ""
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want(t, c, "n1 killed")
	refused(t, c.Kill(t.Context(), "n1"), "does not run")
	s, err := c.State()
	if err != nil {
		t.Fatal(err)
	}
	p := s.Nodes[0].Process
	if err := p.signal(sigKill); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal: got %v", err)
	}
	real, err := identify(other.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if alive, _ := real.alive(); !alive {
		t.Error("the foreign process was ended")
	}
	real.Boot = "another boot"
	if alive, _ := real.alive(); alive {
		t.Error("a process of another boot is taken for this one")
	}
	if err := c.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if alive, _ := p.alive(); alive {
		t.Error("the node's identity fits the foreign process")
	}
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the foreign process has ended: %v", err)
	}
}

// TestCrashedNode ends a node behind the manager's back.
func TestCrashedNode(t *testing.T) {
	c := up(t, 2)
	// That it was stopped once says nothing of a later end.
	if err := errors.Join(c.Stop(t.Context(), "n1"), c.Start(t.Context(), "n1")); err != nil {
		t.Fatal(err)
	}
	s, err := c.State()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Nodes[0].Process.signal(sigKill); err != nil {
		t.Fatal(err)
	}
	if err := s.Nodes[0].Process.wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, c, "n1 killed, n2 running")
	if err := c.Start(t.Context(), "n1"); err != nil {
		t.Fatal(err)
	}
	want(t, c, "n1 running, n2 running")
}

// TestStubbornNode does not end when it is asked to.
func TestStubbornNode(t *testing.T) {
	c := manager(t, "ignores-term")
	c.o.Grace = 200 * time.Millisecond
	if err := c.Up(t.Context(), plan(1)); err != nil {
		t.Fatal(err)
	}
	err := c.Stop(t.Context(), "n1")
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "shoal dev kill n1") {
		t.Errorf("stop: got %v", err)
	}
	want(t, c, "n1 running")
	if err := c.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, c, "n1 stopped")
}

// TestWait returns when the last node has ended.
func TestWait(t *testing.T) {
	c := up(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Wait(t.Context()) }()
	if err := c.Kill(t.Context(), "n1"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestStateDir(t *testing.T) {
	for _, tt := range [][3]string{
		{"/x", "/home/u", "/x/shoal/dev"},
		{"", "/home/u", "/home/u/.local/state/shoal/dev"},
		{"", "", ""},
	} {
		if got := StateDir(tt[0], tt[1]); got != tt[2] {
			t.Errorf("got %s, want %s", got, tt[2])
		}
	}
}

// TestFreePortsStayFree finds ports that the kernel gives to no outgoing
// connection: such a one would keep a node that was killed from coming back.
func TestFreePortsStayFree(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Fatal(err)
	}
	var from, to int
	if _, err := fmt.Sscan(string(text), &from, &to); err != nil {
		t.Fatal(err)
	}
	if from < 12000 && to > 63000 {
		t.Logf("the kernel takes ports from %d to %d and leaves none", from, to)
		return
	}
	for range 20 {
		base, err := findPorts(5)
		if err != nil {
			t.Fatal(err)
		}
		if last := base + routeOffset + 5; base <= to && last >= from {
			t.Fatalf("got ports %d to %d, want none of those from %d to %d", base, last, from, to)
		}
	}
}
