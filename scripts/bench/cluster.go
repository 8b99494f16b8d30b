package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// cluster is a development cluster that bench has started.
type cluster struct {
	shoal, name string
	endpoints   []string
	env         []string
}

// startCluster starts nodes on free ports.
func startCluster(ctx context.Context, shoal string, nodes, disks int) (*cluster, error) {
	return startClusterWith(ctx, shoal, nodes, disks, nil)
}

// startClusterWith starts nodes with an environment and flags of `shoal dev up`.
func startClusterWith(ctx context.Context, shoal string, nodes, disks int, env []string, flags ...string) (*cluster, error) {
	c := &cluster{shoal: shoal, name: fmt.Sprintf("bench-%d-%d", os.Getpid(), time.Now().Unix()%100000), env: append(os.Environ(), env...)}
	args := []string{"dev", "up", "-d", "--nodes", strconv.Itoa(nodes), "--disks", strconv.Itoa(disks), "--name", c.name, "--base-port", "0"}
	if _, err := c.run(ctx, append(args, flags...)...); err != nil {
		return nil, errors.Join(err, c.stop(ctx))
	}
	for _, n := range c.status(ctx) {
		c.endpoints = append(c.endpoints, n.URL)
	}
	c.env = append(c.env, "SHOAL_ENDPOINT="+strings.Join(c.endpoints, ","), "SHOAL_ACCESS_KEY=shoaldev", "SHOAL_SECRET_KEY=shoaldev-secret")
	return c, nil
}

// nodeStatus is a line of `shoal dev status --json`.
type nodeStatus struct {
	Node, URL, State string
	PID              int
	Disks            []struct{ Path string }
}

func (c *cluster) status(ctx context.Context) []nodeStatus {
	out, err := c.run(ctx, "dev", "status", "--name", c.name, "--json")
	var all []nodeStatus
	if err != nil || json.Unmarshal(out, &all) != nil {
		return nil
	}
	return all
}

// natsLeader is the node that leads the bus.
func (c *cluster) natsLeader(ctx context.Context) (string, error) {
	out, err := c.run(ctx, "show", "cluster", "--json")
	if err != nil {
		return "", err
	}
	var x struct {
		Leader string `json:"nats_leader"`
	}
	return x.Leader, json.Unmarshal(out, &x)
}

// stop ends the cluster and removes it.
func (c *cluster) stop(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	_, err := c.run(ctx, "dev", "down", "--name", c.name)
	_, err2 := c.run(ctx, "dev", "clean", "--name", c.name, "--yes")
	return errors.Join(err, err2)
}

// run runs the binary and returns what it prints.
func (c *cluster) run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, c.shoal, args...)
	cmd.Env = c.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("shoal %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.Bytes(), nil
}

// startBaseline starts the file handler as a process of its own, whose files are in dir.
func startBaseline(ctx context.Context) (endpoint, dir string, stop func(), err error) {
	dir, err = os.MkdirTemp("", "shoal-bench-")
	if err != nil {
		return "", "", nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", nil, err
	}
	addr := l.Addr().String()
	_ = l.Close()
	self, err := os.Executable()
	if err != nil {
		return "", "", nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-baseline", addr, "-dir", dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return "", "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	}
	for range 100 {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			_ = conn.Close()
			return "http://" + addr, dir, stop, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	stop()
	return "", "", nil, errors.New("the baseline does not start")
}

// rss is a process's resident memory in bytes.
func rss(pid int) int64 { return memoryOf(pid, "VmRSS:") }

// peakRSS is the most that it was since resetPeak.
func peakRSS(pid int) int64 { return memoryOf(pid, "VmHWM:") }

// resetPeak begins anew; see proc(5), clear_refs.
func resetPeak(pid int) error {
	return os.WriteFile(filepath.Join("/proc", strconv.Itoa(pid), "clear_refs"), []byte("5"), 0o200)
}

func memoryOf(pid int, name string) int64 {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0
	}
	for l := range strings.SplitSeq(string(b), "\n") {
		if v, ok := strings.CutPrefix(l, name); ok {
			kb, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")), 10, 64)
			return kb << 10
		}
	}
	return 0
}
