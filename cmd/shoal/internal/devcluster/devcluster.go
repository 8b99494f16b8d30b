// Package devcluster runs a cluster of real processes on this machine, for
// development and tests: it writes the configurations, starts, kills, freezes
// and stops the nodes, and knows them again later, in other processes.
//
//	c := devcluster.New(devcluster.Options{StateDir: dir, Name: "dev", Executable: exe, Env: os.Environ()})
//	if err := c.Up(ctx, devcluster.Plan{Nodes: 5, Disks: 3, BasePort: devcluster.DefaultBasePort}); err != nil {
//		return err
//	}
//	err := c.Kill(ctx, "n2")
//
// A node is a process by its id and start time, so that a process which got the
// id of a dead node is never touched. The state is a file that every call reads
// under a lock; calls of several processes may overlap.
package devcluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// Defaults of clusters.
const (
	DefaultName     = "dev"
	DefaultBasePort = 7070
	DefaultNodes    = 5
	DefaultDisks    = 3
	// MaxNodes keeps the ports of a node's four listeners apart.
	MaxNodes = 100
)

// The distance of a node's other ports from that for clients.
const (
	peerOffset  = 100
	busOffset   = 200
	routeOffset = 300
)

// readyTime is how long nodes may take to serve.
const readyTime = 90 * time.Second

// Options say where a cluster is and what its nodes run.
type Options struct {
	// StateDir holds a directory for each cluster; see [StateDir].
	StateDir string
	Name     string
	// Executable is the program of the nodes: it is called with "init",
	// "server" and "cluster join".
	Executable string
	// Env is the environment from which the nodes' is made.
	Env []string
	// Grace is how long a node that was asked to end may take; 30 seconds if
	// zero.
	Grace time.Duration
	// Report is told what happens, for people; nothing if nil.
	Report func(format string, args ...any)
}

// Cluster is a development cluster, running or not, existing or not.
type Cluster struct {
	o    Options
	http http.Client
}

// New returns the cluster of that name. It touches nothing.
func New(o Options) *Cluster {
	if o.Report == nil {
		o.Report = func(string, ...any) {}
	}
	if o.Grace == 0 {
		o.Grace = 30 * time.Second
	}
	return &Cluster{
		o: o,
		http: http.Client{
			Timeout:   2 * time.Second,
			Transport: &http.Transport{DisableKeepAlives: true},
		},
	}
}

// StateDir is the directory for the state of all development clusters, of the
// variables XDG_STATE_HOME and HOME; "" if both are empty.
func StateDir(xdgStateHome, home string) string {
	switch {
	case xdgStateHome != "":
		return filepath.Join(xdgStateHome, "shoal", "dev")
	case home != "":
		return filepath.Join(home, ".local", "state", "shoal", "dev")
	}
	return ""
}

// Plan is what Up is to make.
type Plan struct {
	Nodes, Disks int
	// Slots is the number of hash slots, 0 for the default.
	Slots int
	// BasePort is the client port of n1; 0 finds free ones.
	BasePort int
	// Data is the directory for the nodes' files; the state's if empty.
	Data     string
	Backends []Backend
	// Fixed says that Nodes and Disks were asked for, and must be those of a
	// cluster that exists.
	Fixed bool
}

// Backend is where the nodes find the remote buckets of a provider.
type Backend struct {
	Provider string `json:"provider"`
	URL      string `json:"url"`
}

// Process states.
const (
	Starting = "starting"
	Running  = "running"
	Paused   = "paused"
	Stopped  = "stopped"
	Killed   = "killed"
)

// NodeStatus is a node as [Cluster.Status] finds it.
type NodeStatus struct {
	Node  string       `json:"node"`
	PID   int          `json:"pid"` // 0 if it does not run
	URL   string       `json:"url"`
	State string       `json:"state"`
	Data  string       `json:"data"`
	Disks []DiskStatus `json:"disks"`
	Log   string       `json:"log"`
}

// DiskStatus is a disk of a node. ID is NODE/DISK; State is filled in by who
// can ask the cluster.
type DiskStatus struct {
	ID    string `json:"id"`
	Path  string `json:"path"`
	State string `json:"state"`
}

// Up makes the cluster, or starts again the one that exists, and returns when
// every node serves. When it fails it leaves no process behind, and nothing at
// all of a cluster that is new.
func (c *Cluster) Up(ctx context.Context, p Plan) error {
	if err := p.check(); err != nil {
		return err
	}
	fresh, err := c.prepare(p)
	if err != nil {
		return err
	}
	if err := c.bringUp(ctx, fresh, p.Slots); err != nil {
		return errors.Join(err, c.undo(context.WithoutCancel(ctx), fresh))
	}
	return nil
}

func (p Plan) check() error {
	switch {
	case p.Nodes < 1 || p.Nodes > MaxNodes:
		return fmt.Errorf("%d nodes: want 1 to %d: %w", p.Nodes, MaxNodes, core.ErrInvalid)
	case p.Disks < 1 || p.Disks > 64:
		return fmt.Errorf("%d disks a node: want 1 to 64: %w", p.Disks, core.ErrInvalid)
	case p.BasePort < 0 || p.BasePort+routeOffset+p.Nodes > 65535:
		return fmt.Errorf("base port %d: want 1 to %d, or 0 for free ones: %w", p.BasePort, 65535-routeOffset-p.Nodes, core.ErrInvalid)
	}
	return nil
}

// prepare lays out a new cluster, or checks the one that is there.
func (c *Cluster) prepare(p Plan) (fresh bool, err error) {
	err = c.updateAny(func(s *State) error {
		s.Env = remembered(withRemembered(nodeEnv(c.o.Env), s.Env))
		if len(s.Nodes) == 0 {
			fresh = true
			return c.layOut(s, p)
		}
		for _, n := range s.Nodes {
			if alive, _ := n.Process.alive(); alive {
				return api.Refused(fmt.Sprintf("cluster %q is running already", c.o.Name), "shoal dev status --name "+c.o.Name)
			}
		}
		if p.Fixed && (p.Nodes != len(s.Nodes) || p.Disks != len(s.Nodes[0].Disks)) {
			return api.Refused(fmt.Sprintf("cluster %q exists, with %d nodes of %d disks", c.o.Name, len(s.Nodes), len(s.Nodes[0].Disks)),
				fmt.Sprintf("to start it as it is, leave out --nodes and --disks; to remove it: shoal dev clean --name %s", c.o.Name))
		}
		return portsFree(s.Nodes)
	})
	return fresh, err
}

func (c *Cluster) bringUp(ctx context.Context, fresh bool, slots int) error {
	s, err := c.State()
	if err != nil {
		return err
	}
	if fresh {
		args := []string{"init"}
		for _, n := range s.Nodes {
			args = append(args, "--config", n.Config)
		}
		if slots > 0 {
			args = append(args, "--slots", strconv.Itoa(slots))
		}
		if err := c.run(ctx, args...); err != nil {
			return err
		}
	}
	for _, n := range s.Nodes {
		if err := c.launch(n.Name); err != nil {
			return err
		}
	}
	return c.awaitReady(ctx, s.names()...)
}

// undo ends what bringUp has begun.
func (c *Cluster) undo(ctx context.Context, fresh bool) error {
	err := c.Down(ctx)
	if fresh {
		err = errors.Join(err, c.remove())
	}
	return err
}

// Add adds a node to the running cluster and returns its name when it serves.
func (c *Cluster) Add(ctx context.Context) (string, error) {
	var node Node
	err := c.update(func(s *State) error {
		if len(s.Nodes) == MaxNodes {
			return api.Refused(fmt.Sprintf("cluster %q has %d nodes, the most that fit", c.o.Name, MaxNodes), "")
		}
		node = s.plan(len(s.Nodes)+1, len(s.Nodes[0].Disks))
		if err := portsFree([]Node{node}); err != nil {
			return err
		}
		s.Nodes = append(s.Nodes, node)
		return s.writeNode(node)
	})
	if err != nil {
		return "", err
	}
	if err := c.run(ctx, "cluster", "join", "--config", node.Config); err != nil {
		return "", errors.Join(err, c.forget(node))
	}
	if err := c.launch(node.Name); err != nil {
		return "", err
	}
	return node.Name, c.awaitReady(ctx, node.Name)
}

// forget removes a node that did not join.
func (c *Cluster) forget(node Node) error {
	return c.update(func(s *State) error {
		s.Nodes = s.Nodes[:len(s.Nodes)-1]
		return os.RemoveAll(node.Dir)
	})
}

// Kill ends a node's process at once (SIGKILL).
func (c *Cluster) Kill(ctx context.Context, name string) error {
	n, err := c.signal(name, Killed, func(p Process) error { return p.signal(sigKill) })
	if err != nil {
		return err
	}
	return n.Process.wait(ctx)
}

// Stop ends a node in order (SIGTERM) and returns when it has ended.
func (c *Cluster) Stop(ctx context.Context, name string) error {
	n, err := c.signal(name, Stopped, terminate)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.o.Grace)
	defer cancel()
	if err := n.Process.wait(ctx); err != nil {
		return fmt.Errorf("%s has not ended yet; to end it at once: shoal dev kill %s --name %s: %w", name, name, c.o.Name, err)
	}
	return nil
}

// terminate asks a process to end; a frozen one is woken up for that.
func terminate(p Process) error {
	if err := p.signal(sigTerm); err != nil {
		return err
	}
	return p.signal(sigCont)
}

// Pause freezes a node (SIGSTOP) and returns when it stands still.
func (c *Cluster) Pause(ctx context.Context, name string) error {
	n, err := c.signal(name, "", func(p Process) error { return p.signal(sigStop) })
	if err != nil {
		return err
	}
	return await(ctx, func() (bool, error) {
		alive, paused := n.Process.alive()
		if !alive {
			return false, fmt.Errorf("%s has ended", name)
		}
		return paused, nil
	})
}

// Resume lets a frozen node go on.
func (c *Cluster) Resume(ctx context.Context, name string) error {
	n, err := c.signal(name, "", func(p Process) error { return p.signal(sigCont) })
	if err != nil {
		return err
	}
	return await(ctx, func() (bool, error) {
		_, paused := n.Process.alive()
		return !paused, nil
	})
}

// signal does something to the process of a node that runs. If ends is not
// empty it is what the node will be after that.
func (c *Cluster) signal(name, ends string, do func(Process) error) (Node, error) {
	var node Node
	err := c.update(func(s *State) error {
		n, err := c.node(s, name)
		if err != nil {
			return err
		}
		node = *n
		if alive, _ := n.Process.alive(); !alive {
			return api.Refused(fmt.Sprintf("%s does not run (%s)", name, n.ended()), fmt.Sprintf("shoal dev start %s --name %s", name, c.o.Name))
		}
		if ends != "" {
			n.Ended = ends
		}
		if err := do(n.Process); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
	return node, err
}

// Start starts a node that does not run, with further flags of `shoal server`,
// and returns when it serves.
func (c *Cluster) Start(ctx context.Context, name string, flags ...string) error {
	if err := c.launch(name, flags...); err != nil {
		return err
	}
	return c.awaitReady(ctx, name)
}

// Down ends every node in order, and at once what has not ended then.
func (c *Cluster) Down(ctx context.Context) error {
	s, err := c.State()
	if err != nil {
		return err
	}
	var running []Node
	for _, name := range s.names() {
		n, err := c.signal(name, Stopped, terminate)
		if _, refused := errors.AsType[*api.Error](err); refused {
			continue // does not run
		}
		if err != nil {
			return err
		}
		running = append(running, n)
	}
	grace, cancel := context.WithTimeout(ctx, c.o.Grace)
	defer cancel()
	for _, n := range running {
		if n.Process.wait(grace) == nil {
			continue
		}
		c.o.Report("%s has not ended, killing it", n.Name)
		if err := n.Process.signal(sigKill); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
		if err := n.Process.wait(context.WithoutCancel(ctx)); err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
	}
	return nil
}

// Clean ends every node and removes all that the cluster has on this machine.
func (c *Cluster) Clean(ctx context.Context) error {
	if err := c.Down(ctx); err != nil {
		return err
	}
	return c.remove()
}

// remove removes the files of a cluster that does not run.
func (c *Cluster) remove() error {
	s, err := c.State()
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range s.Nodes {
		errs = append(errs, os.RemoveAll(n.Dir))
	}
	if s.Data != c.dir() {
		// The directory is the user's; only what is empty goes.
		if err := os.Remove(s.Data); err != nil && !errors.Is(err, os.ErrNotExist) {
			c.o.Report("%s is left in place: it holds other files", s.Data)
		}
	}
	return errors.Join(append(errs, os.RemoveAll(c.dir()))...)
}

// Status finds out what the nodes do.
func (c *Cluster) Status(ctx context.Context) ([]NodeStatus, error) {
	s, err := c.State()
	if err != nil {
		return nil, err
	}
	var out []NodeStatus
	for _, n := range s.Nodes {
		st := NodeStatus{Node: n.Name, URL: n.URL(), Data: n.Dir, Log: n.Log, State: n.ended()}
		for _, d := range n.Disks {
			st.Disks = append(st.Disks, DiskStatus{ID: n.Name + "/" + d.Name, Path: d.Path, State: "unknown"})
		}
		if alive, paused := n.Process.alive(); alive {
			st.PID = n.Process.PID
			switch {
			case paused:
				st.State = Paused
			case n.Ready || c.ready(ctx, n):
				st.State = Running
			default:
				st.State = Starting
			}
		}
		out = append(out, st)
	}
	return out, nil
}

// Wait returns when no node runs any more, or when ctx ends. It reaps nodes
// that this process has started.
func (c *Cluster) Wait(ctx context.Context) error {
	t := time.NewTicker(500 * time.Millisecond)
	defer t.Stop()
	for {
		s, err := c.State()
		if err != nil {
			return err
		}
		running := false
		for _, n := range s.Nodes {
			n.Process.reap()
			alive, _ := n.Process.alive()
			running = running || alive
		}
		if !running {
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *Cluster) noCluster() error {
	return fmt.Errorf("no development cluster %q; make one: shoal dev up -d%s: %w", c.o.Name, c.nameFlag(), core.ErrNotFound)
}

func (c *Cluster) nameFlag() string {
	if c.o.Name == DefaultName {
		return ""
	}
	return " --name " + c.o.Name
}

func (c *Cluster) node(s *State, name string) (*Node, error) {
	if len(s.Nodes) == 0 {
		return nil, c.noCluster()
	}
	for i := range s.Nodes {
		if s.Nodes[i].Name == name {
			return &s.Nodes[i], nil
		}
	}
	return nil, fmt.Errorf("cluster %q has no node %q, only %s: %w", c.o.Name, name, strings.Join(s.names(), " "), core.ErrNotFound)
}
