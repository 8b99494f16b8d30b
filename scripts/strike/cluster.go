package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/plugins/api/client"
)

// The environment of the guard.
const (
	guardVar    = "SHOAL_STRIKE_GUARD"
	guardBinVar = "SHOAL_STRIKE_GUARD_BIN"
)

// devNode is a node of a development cluster, as `shoal dev status` tells.
type devNode struct {
	Node  string `json:"node"`
	PID   int    `json:"pid"`
	URL   string `json:"url"`
	State string `json:"state"`
	Data  string `json:"data"`
	Disks []struct {
		ID    string `json:"id"`
		Path  string `json:"path"`
		State string `json:"state"`
	} `json:"disks"`
	Log string `json:"log"`
}

// cluster is what is struck: a development cluster, which can be killed and
// damaged, or any other, which only its API and the user's commands reach.
type cluster struct {
	shoal string // the program
	dev   string // the name of the development cluster, "" if it is none
	own   bool   // started here, and removed in the end
	api   *client.Client
	guard *guardProcess
	env   []string // of the nodes, beside this program's
}

// startCluster starts a development cluster on free ports, before the servers of
// the ends, if there are any.
func startCluster(ctx context.Context, o *options, e *ends) (*cluster, error) {
	shoal, err := filepath.Abs(o.shoal)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(shoal); err != nil {
		return nil, cannotf("no program to run: %w; make build", err)
	}
	c := &cluster{shoal: shoal, own: true, dev: fmt.Sprintf("%s-%d", o.script, os.Getpid())}
	if !o.keep {
		if c.guard, err = startGuard(shoal, c.dev); err != nil {
			return nil, cannotf("start the guard: %w", err)
		}
	}
	up := []string{
		"dev", "up", "-d", "--base-port", "0", "--name", c.dev, "--nodes", fmt.Sprint(o.nodes), "--disks", fmt.Sprint(o.disks),
	}
	if e != nil {
		up, c.env = append(up, e.Flags()...), e.Env()
	}
	if _, err := c.run(ctx, up...); err != nil {
		return nil, errors.Join(cannotf("start a cluster: %w", err), c.guard.dismiss())
	}
	nodes, err := c.status(ctx)
	if err != nil {
		return nil, errors.Join(err, c.remove(ctx))
	}
	var urls []string
	for _, n := range nodes {
		urls = append(urls, n.URL)
	}
	// The one that is spoken to is not always that which leads.
	o.draw("endpoints", 0).Shuffle(len(urls), func(i, j int) { urls[i], urls[j] = urls[j], urls[i] })
	if c.api, err = newClient(urls, config.DevAccessKey, config.DevSecretKey); err != nil {
		return nil, errors.Join(err, c.remove(ctx))
	}
	return c, nil
}

// joinCluster uses a cluster that runs. If it is a development cluster of this
// machine its processes can be killed without the user's commands.
func joinCluster(ctx context.Context, o *options) (*cluster, error) {
	shoal, err := filepath.Abs(o.shoal)
	if err != nil {
		return nil, err
	}
	c := &cluster{shoal: shoal}
	key, secret := c.keys()
	if c.api, err = newClient(o.endpoints(), key, secret); err != nil {
		return nil, usageError{err}
	}
	if _, err := c.api.Cluster(ctx); err != nil {
		c.api.Close()
		return nil, cannotf("no cluster at %s: %w", o.endpoint, err)
	}
	if o.strike == "" {
		c.dev = c.find(ctx, o.endpoints())
	}
	return c, nil
}

// keys are those of the cluster.
func (c *cluster) keys() (access, secret string) {
	access, secret = os.Getenv("SHOAL_ACCESS_KEY"), os.Getenv("SHOAL_SECRET_KEY")
	if c.own || access == "" {
		return config.DevAccessKey, config.DevSecretKey
	}
	return access, secret
}

func newClient(urls []string, key, secret string) (*client.Client, error) {
	return client.New(client.Options{Endpoints: urls, AccessKey: key, SecretKey: secret, UserAgent: "strike"})
}

// find returns the name of the development cluster that serves at one of the
// endpoints, "" if there is none.
func (c *cluster) find(ctx context.Context, endpoints []string) string {
	state := os.Getenv("XDG_STATE_HOME")
	if state == "" {
		state = filepath.Join(os.Getenv("HOME"), ".local", "state")
	}
	entries, err := os.ReadDir(filepath.Join(state, "shoal", "dev"))
	if err != nil {
		return ""
	}
	for _, e := range entries {
		nodes, err := (&cluster{shoal: c.shoal, dev: e.Name()}).status(ctx)
		if err == nil && slices.ContainsFunc(nodes, func(n devNode) bool { return slices.Contains(endpoints, n.URL) }) {
			return e.Name()
		}
	}
	return ""
}

// status is what the nodes' processes do.
func (c *cluster) status(ctx context.Context) ([]devNode, error) {
	out, err := c.run(ctx, "dev", "status", "--json", "--name", c.dev)
	if err != nil {
		return nil, err
	}
	var nodes []devNode
	if err := json.Unmarshal(out, &nodes); err != nil {
		return nil, fmt.Errorf("shoal dev status: %w", err)
	}
	return nodes, nil
}

// node is one of them.
func (c *cluster) node(ctx context.Context, name string) (devNode, error) {
	nodes, err := c.status(ctx)
	if err != nil {
		return devNode{}, err
	}
	for _, n := range nodes {
		if n.Node == name {
			return n, nil
		}
	}
	return devNode{}, fmt.Errorf("cluster %s has no node %s", c.dev, name)
}

// act does something to a node's process: kill, stop, pause, resume or start.
func (c *cluster) act(ctx context.Context, verb, node string) error {
	_, err := c.run(ctx, "-q", "dev", verb, node, "--name", c.dev)
	return err
}

// remove ends a cluster that was started here, with all that it has.
func (c *cluster) remove(ctx context.Context) error {
	if c.api != nil {
		c.api.Close()
	}
	if !c.own {
		return nil
	}
	_, err := c.run(context.WithoutCancel(ctx), "-q", "dev", "clean", "--yes", "--name", c.dev)
	return errors.Join(err, c.guard.dismiss())
}

// saveLogs copies the nodes' logs. Those of a cluster that is removed afterwards
// end with what every goroutine was doing.
func (c *cluster) saveLogs(ctx context.Context, dir string) (string, error) {
	nodes, err := c.status(context.WithoutCancel(ctx))
	if err != nil {
		return "", err
	}
	if c.own {
		c.dump(nodes)
	}
	if dir == "" {
		if dir, err = os.MkdirTemp("", c.dev+"-logs-"); err != nil {
			return "", err
		}
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	var errs []error
	for _, n := range nodes {
		text, err := os.ReadFile(n.Log)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, n.Node+".log"), text, 0o600)
		}
		errs = append(errs, err)
	}
	return dir, errors.Join(errs...)
}

// dumpTime is how long a node's process has to tell what it was doing.
const dumpTime = 10 * time.Second

// dump ends the nodes' processes in the way that has them tell, in their logs, what
// every goroutine was doing. One that has not ended in time has told less.
func (c *cluster) dump(nodes []devNode) {
	limit := time.Now().Add(dumpTime)
	for _, n := range nodes {
		if n.State != "running" || syscall.Kill(n.PID, syscall.SIGQUIT) != nil {
			continue
		}
		for syscall.Kill(n.PID, 0) == nil && time.Now().Before(limit) {
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// run runs the program and returns what it prints. An interrupt of this
// program is not one of that: what it has begun it ends.
func (c *cluster) run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, c.shoal, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	cmd.Env = append(os.Environ(), c.env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("shoal %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.Bytes(), nil
}

// guardProcess removes a cluster once this program has ended, in whatever way.
type guardProcess struct {
	cmd *exec.Cmd
	end io.WriteCloser
}

func startGuard(shoal, name string) (*guardProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), guardVar+"="+name, guardBinVar+"="+shoal)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // out of reach of Ctrl-C
	end, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &guardProcess{cmd, end}, nil
}

// dismiss ends the guard, which then finds nothing to remove.
func (g *guardProcess) dismiss() error {
	if g == nil {
		return nil
	}
	return errors.Join(g.end.Close(), g.cmd.Wait())
}

// guard waits for the end of its parent and removes the cluster of that name if
// it is still there.
func guard(name string) int {
	_, _ = io.Copy(io.Discard, os.Stdin) // ends with the parent
	c := &cluster{shoal: os.Getenv(guardBinVar), dev: name, own: true}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := c.status(ctx); err != nil {
		return 0
	}
	if err := c.remove(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "strike guard:", err)
		return 1
	}
	return 0
}
