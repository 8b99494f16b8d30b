package devcluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/shoalstore/shoal/core"
)

// State is what is kept of a cluster between calls.
type State struct {
	Name     string    `json:"name"`
	BasePort int       `json:"base_port"`
	Data     string    `json:"data"`
	Secret   string    `json:"secret"`
	Backends []Backend `json:"backends,omitempty"`
	Nodes    []Node    `json:"nodes"`
	// Env are settings of the environment of Up, for nodes that are started later.
	Env []string `json:"env,omitempty"`
}

// Node is a node's place on this machine.
type Node struct {
	Name    string  `json:"name"`
	Dir     string  `json:"dir"`
	Config  string  `json:"config"`
	Log     string  `json:"log"`
	Client  string  `json:"client"`
	Peer    string  `json:"peer"`
	Bus     string  `json:"bus"`
	Route   string  `json:"route"`
	Disks   []Disk  `json:"disks"`
	Process Process `json:"process"`
	// Ready says that the process has served since its start.
	Ready bool `json:"ready"`
	// Ended is what the node is once the process has ended: stopped if it was
	// asked to.
	Ended string `json:"ended"`
}

// Disk is a disk of a node.
type Disk struct {
	Name string `json:"name"`
	Path string `json:"path"`
}

// URL is the node's address for clients.
func (n Node) URL() string { return "http://" + n.Client }

// ended is the state of a node that does not run. One that ended by itself
// counts as killed.
func (n Node) ended() string {
	if n.Ended == "" && n.Process.PID != 0 {
		return Killed
	}
	if n.Ended == "" {
		return Stopped
	}
	return n.Ended
}

// Endpoints are the URLs of all nodes.
func (s *State) Endpoints() []string {
	var out []string
	for _, n := range s.Nodes {
		out = append(out, n.URL())
	}
	return out
}

// BusURLs are the addresses under which the nodes serve the bus, where they are
// coordinators.
func (s *State) BusURLs() []string {
	var out []string
	for _, n := range s.Nodes {
		out = append(out, "nats://"+n.Bus)
	}
	return out
}

func (s *State) names() []string {
	var out []string
	for _, n := range s.Nodes {
		out = append(out, n.Name)
	}
	return out
}

// plan lays out node number i, from 1.
func (s *State) plan(i, disks int) Node {
	name := "n" + strconv.Itoa(i)
	dir := filepath.Join(s.Data, name)
	at := func(offset int) string { return "127.0.0.1:" + strconv.Itoa(s.BasePort+i-1+offset) }
	n := Node{
		Name: name, Dir: dir, Config: filepath.Join(dir, "node.yaml"), Log: filepath.Join(dir, "node.log"),
		Client: at(0), Peer: at(peerOffset), Bus: at(busOffset), Route: at(routeOffset),
	}
	for j := range disks {
		d := "d" + strconv.Itoa(j+1)
		n.Disks = append(n.Disks, Disk{Name: d, Path: filepath.Join(dir, d)})
	}
	return n
}

// Find reads the state of a cluster. One that does not exist is
// core.ErrNotFound.
func Find(stateDir, name string) (*State, error) {
	c := New(Options{StateDir: stateDir, Name: name})
	return c.State()
}

func (c *Cluster) dir() string { return filepath.Join(c.o.StateDir, c.o.Name) }

func (c *Cluster) file() string { return filepath.Join(c.dir(), "cluster.json") }

// State reads the state. A cluster that does not exist is core.ErrNotFound.
func (c *Cluster) State() (*State, error) {
	s, err := c.read()
	if err != nil {
		return nil, err
	}
	if len(s.Nodes) == 0 {
		return nil, c.noCluster()
	}
	return s, nil
}

// read returns an empty state of a cluster that does not exist.
func (c *Cluster) read() (*State, error) {
	if err := checkName(c.o.Name); err != nil {
		return nil, err
	}
	if c.o.StateDir == "" {
		return nil, errors.New("no place for the state of development clusters: set HOME or XDG_STATE_HOME")
	}
	b, err := os.ReadFile(c.file())
	if errors.Is(err, os.ErrNotExist) {
		return &State{Name: c.o.Name}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("state of cluster %q: %w", c.o.Name, err)
	}
	s := new(State)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("state of cluster %q in %s: %w", c.o.Name, c.file(), err)
	}
	return s, nil
}

// checkName keeps a name from leaving the directory.
func checkName(name string) error {
	if err := core.NodeID(name).Validate(); err != nil {
		return fmt.Errorf("cluster name %q: want 1 to 63 of a-z, 0-9 and inner '-': %w", name, core.ErrInvalid)
	}
	return nil
}

// update changes the state of a cluster that exists, under the lock. An error of
// change leaves it as it was.
func (c *Cluster) update(change func(*State) error) error {
	if _, err := c.State(); err != nil {
		return err
	}
	return c.updateAny(change)
}

// updateAny is update for a cluster that may not exist yet.
func (c *Cluster) updateAny(change func(*State) error) error {
	if _, err := c.read(); err != nil {
		return err
	}
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	s, err := c.read()
	if err != nil {
		return err
	}
	known := len(s.Nodes) > 0
	if err := change(s); err != nil {
		if !known {
			// Nothing is left of a cluster that was not to be.
			err = errors.Join(err, os.RemoveAll(c.dir()))
		}
		return err
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	temporary := c.file() + ".new"
	if err := os.WriteFile(temporary, b, 0o600); err != nil {
		return fmt.Errorf("state of cluster %q: %w", c.o.Name, err)
	}
	return os.Rename(temporary, c.file())
}

// lock keeps other processes from changing the state. The lock's file goes with
// the cluster, so whoever gets the lock of a file that is gone tries again.
func (c *Cluster) lock() (unlock func(), err error) {
	for {
		if err := os.MkdirAll(c.dir(), 0o700); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(filepath.Join(c.dir(), "lock"), os.O_CREATE|os.O_RDWR, 0o600)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := flock(f); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("lock cluster %q: %w", c.o.Name, err)
		}
		if sameFile(f) {
			return func() { _ = f.Close() }, nil
		}
		_ = f.Close()
	}
}

func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func sameFile(f *os.File) bool {
	held, err := f.Stat()
	if err != nil {
		return false
	}
	now, err := os.Stat(f.Name())
	return err == nil && os.SameFile(held, now)
}
