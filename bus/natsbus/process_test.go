package natsbus

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// The tests that kill coordinators run each in a process of its own: this test
// binary, told by the environment to be a node instead.
const nodeEnv = "SHOAL_BUS_TEST_NODE"

func TestMain(m *testing.M) {
	if spec := os.Getenv(nodeEnv); spec != "" {
		if err := runNode([]byte(spec)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// These tests wait for elections most of their time.
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// nodeSpec configures a node's process.
type nodeSpec struct {
	Member
	Cluster string
	Dir     string
	Log     bool
}

// runNode follows the targets that come on standard input, a JSON value a
// line, until that ends.
func runNode(spec []byte) error {
	var n nodeSpec
	if err := json.Unmarshal(spec, &n); err != nil {
		return err
	}
	level := slog.LevelWarn
	if n.Log {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("node", n.Name)
	client, err := Connect(ClientOptions{
		URLs: []string{ClientURL(n.Client, false)}, Cluster: n.Cluster, Name: n.Name, Logger: log,
		Credentials: Credentials{User: testUser, Password: testPassword},
	})
	if err != nil {
		return err
	}
	defer client.Close()
	c, err := NewCoordinator(CoordinatorOptions{
		Client: client, Clock: wallClock{}, Logger: log,
		Server: ServerOptions{
			Name: n.Name, Cluster: n.Cluster, Dir: n.Dir, ClientAddr: n.Client, RouteAddr: n.Route,
			User: testUser, Password: testPassword, RouteSecret: "routes",
		},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		defer cancel()
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			var t Target
			if err := json.Unmarshal(in.Bytes(), &t); err != nil {
				log.Error("bad target", "err", err)
				return
			}
			c.Follow(t)
		}
	}()
	return c.Run(ctx)
}

// processes are nodes in processes of their own.
type processes struct {
	t       testing.TB
	cluster string
	specs   map[string]nodeSpec
	running map[string]*process
	target  Target
}

type process struct {
	cmd *exec.Cmd
	in  *json.Encoder
}

// newProcesses prepares n nodes.
func newProcesses(t testing.TB, n int) *processes {
	t.Helper()
	p := &processes{t: t, cluster: newCluster(), specs: map[string]nodeSpec{}, running: map[string]*process{}}
	ports := freePorts(t, 2*n)
	dir := t.TempDir()
	for i := range n {
		name := fmt.Sprintf("n%d", i+1)
		p.specs[name] = nodeSpec{
			Member:  Member{Name: name, Client: ports[2*i], Route: ports[2*i+1]},
			Cluster: p.cluster, Dir: filepath.Join(dir, name), Log: os.Getenv("SHOAL_TEST_LOG") != "",
		}
	}
	t.Cleanup(func() {
		for name := range p.running {
			p.kill(name)
		}
	})
	return p
}

func (p *processes) names() []string {
	var out []string
	for n := range p.specs {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// start starts nodes, with the present target.
func (p *processes) start(names ...string) {
	p.t.Helper()
	for _, name := range names {
		spec, err := json.Marshal(p.specs[name])
		if err != nil {
			p.t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), nodeEnv+"="+string(spec), "GOMAXPROCS=2")
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			p.t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			p.t.Fatal(err)
		}
		p.running[name] = &process{cmd: cmd, in: json.NewEncoder(in)}
		if p.target.Generation != 0 {
			p.tell(name)
		}
	}
}

// kill ends a node as kill -9 does, and waits until it is gone.
func (p *processes) kill(name string) {
	p.t.Helper()
	r := p.running[name]
	delete(p.running, name)
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

func (p *processes) signal(name string, s syscall.Signal) {
	p.t.Helper()
	if err := p.running[name].cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

func (p *processes) tell(name string) {
	p.t.Helper()
	if err := p.running[name].in.Encode(p.target); err != nil {
		p.t.Logf("node %s is not told: %v", name, err)
	}
}

// follow sets the target of all nodes that run, and of those to come.
func (p *processes) follow(generation uint64, members ...string) {
	p.t.Helper()
	p.target = Target{Generation: generation}
	for _, m := range members {
		p.target.Members = append(p.target.Members, p.specs[m].Member)
	}
	for name := range p.running {
		p.tell(name)
	}
}

func (p *processes) urls() []string {
	var out []string
	for _, m := range p.target.Members {
		out = append(out, ClientURL(m.Client, false))
	}
	return out
}

// client connects to the present target.
func (p *processes) client(name string) *Client {
	p.t.Helper()
	c, err := Connect(ClientOptions{
		URLs: p.urls(), Generation: p.target.Generation, Cluster: p.cluster, Name: name, Logger: testLog(p.t, name),
		Credentials: Credentials{User: testUser, Password: testPassword},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(c.Close)
	return c
}

// waitReady waits until the client's generation is in use.
func waitReady(t testing.TB, c *Client, limit time.Duration) {
	t.Helper()
	eventually(t, limit, "the bus to be ready", func() error { return c.Ready(within(t, 2*time.Second)) })
}
