package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// blow is a failure that can be taken back.
type blow struct {
	what    string // for people, as "kill -9 n3"
	node    core.NodeID
	strike  func(context.Context) error
	restore func(context.Context) error
	// mend, if not nil, is what has the cluster find the damage, once what it
	// cannot mend was written anew.
	mend func(context.Context) error
}

// hit strikes, and remembers to take it back.
func (h *harness) hit(ctx context.Context, b *blow) error {
	h.blows = append(h.blows, b)
	h.say("*** %s", b.what)
	// An interrupt does not leave it half done.
	if err := b.strike(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("%s: %w", b.what, err)
	}
	return nil
}

// undo takes a strike back.
func (h *harness) undo(ctx context.Context, b *blow) error {
	h.blows = slices.DeleteFunc(h.blows, func(x *blow) bool { return x == b })
	if err := b.restore(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("take back %s: %w", b.what, err)
	}
	return nil
}

// restoreAll takes back all that is struck, the newest first.
func (h *harness) restoreAll(ctx context.Context) error {
	var errs []error
	for len(h.blows) > 0 {
		b := h.blows[len(h.blows)-1]
		h.say("taking back %s", b.what)
		errs = append(errs, h.undo(ctx, b))
	}
	return errors.Join(errs...)
}

// killNode kills a node's process.
func killNode(_ context.Context, h *harness, _ *rand.Rand, node core.NodeID) (*blow, error) {
	if h.o.strike != "" {
		return h.commands(node, ""), nil
	}
	if h.dev == "" {
		return nil, cannotf("the processes at %s are not of a development cluster of this machine: give --strike-cmd and --restore-cmd", h.o.endpoint)
	}
	return h.process(node, "kill", "start"), nil
}

// process is something done to a node's process and what takes it back.
func (h *harness) process(node core.NodeID, verb, back string) *blow {
	what := verb + " " + string(node)
	if verb == "kill" {
		what = "kill -9 " + string(node)
	}
	return &blow{
		what: what, node: node,
		strike:  func(ctx context.Context) error { return h.act(ctx, verb, string(node)) },
		restore: func(ctx context.Context) error { return h.act(ctx, back, string(node)) },
	}
}

// maintainNode puts a node into maintenance.
func maintainNode(_ context.Context, h *harness, _ *rand.Rand, node core.NodeID) (*blow, error) {
	if h.o.strike != "" {
		return h.commands(node, ""), nil
	}
	return h.maintenance(node), nil
}

func (h *harness) maintenance(node core.NodeID) *blow {
	action := func(a api.NodeAction) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := h.api.NodeAction(ctx, node, a)
			return err
		}
	}
	return &blow{
		what: "maintenance of " + string(node), node: node,
		strike: action(api.MaintenanceStart), restore: action(api.MaintenanceStop),
	}
}

// loseDisk takes a random disk from a node: it is detached, or, where its files can
// be reached, they are all removed while the node uses them.
func loseDisk(ctx context.Context, h *harness, rnd *rand.Rand, node core.NodeID) (*blow, error) {
	disk, err := h.diskOf(ctx, rnd, node)
	if err != nil {
		return nil, err
	}
	remove := rnd.IntN(2) == 0
	switch {
	case h.o.strike != "":
		return h.commands(disk.Node, disk.Name), nil
	case remove && h.dev != "":
		return h.wipedDisk(disk), nil
	}
	return h.detachedDisk(disk), nil
}

func (h *harness) detachedDisk(disk api.Disk) *blow {
	return &blow{
		what: "detach of " + disk.ID, node: disk.Node,
		strike:  h.diskAction(disk, api.DetachDisk),
		restore: h.diskAction(disk, api.AttachDisk),
	}
}

func (h *harness) diskAction(disk api.Disk, a api.DiskAction) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := h.api.DiskAction(ctx, disk.Node, disk.Name, a)
		return err
	}
}

// wipedDisk is a disk all of whose files are gone; a blank one takes its place.
func (h *harness) wipedDisk(disk api.Disk) *blow {
	return &blow{
		what: "loss of all files of " + disk.ID, node: disk.Node,
		strike: func(ctx context.Context) error {
			path, err := h.diskPath(ctx, disk)
			if err != nil {
				return err
			}
			return removeContents(path)
		},
		restore: func(ctx context.Context) error {
			path, err := h.diskPath(ctx, disk)
			if err != nil {
				return err
			}
			if err := removeContents(path); err != nil {
				return err
			}
			return h.diskAction(disk, api.FormatDisk)(ctx)
		},
	}
}

// diskPath is where a disk of the development cluster is.
func (h *harness) diskPath(ctx context.Context, disk api.Disk) (string, error) {
	n, err := h.node(ctx, string(disk.Node))
	if err != nil {
		return "", err
	}
	for _, d := range n.Disks {
		if d.ID == disk.ID {
			return d.Path, nil
		}
	}
	return "", fmt.Errorf("the development cluster has no disk %s", disk.ID)
}

// removeContents empties a directory that a node may be writing to.
func removeContents(dir string) error {
	const tries = 100
	for i := 0; ; i++ {
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) == 0 {
			return err
		}
		for _, e := range entries {
			if err = os.RemoveAll(filepath.Join(dir, e.Name())); err != nil && i == tries {
				return err
			}
		}
	}
}

// randomNode chooses among the nodes in service.
func (h *harness) randomNode(ctx context.Context, rnd *rand.Rand) (core.NodeID, error) {
	nodes, err := h.active(ctx)
	if err != nil {
		return "", err
	}
	return nodes[rnd.IntN(len(nodes))], nil
}

// randomDisk chooses among the disks in use.
func (h *harness) randomDisk(ctx context.Context, rnd *rand.Rand) (api.Disk, error) {
	node, err := h.randomNode(ctx, rnd)
	if err != nil {
		return api.Disk{}, err
	}
	return h.diskOf(ctx, rnd, node)
}

// diskOf chooses among the disks in use of a node.
func (h *harness) diskOf(ctx context.Context, rnd *rand.Rand, node core.NodeID) (api.Disk, error) {
	disks, err := h.api.Disks(ctx, node)
	if err != nil {
		return api.Disk{}, err
	}
	disks = slices.DeleteFunc(disks, func(d api.Disk) bool { return d.State != core.DiskOK })
	if len(disks) == 0 {
		return api.Disk{}, fmt.Errorf("node %s has no disk in use", node)
	}
	slices.SortFunc(disks, func(a, b api.Disk) int { return strings.Compare(a.ID, b.ID) })
	return disks[rnd.IntN(len(disks))], nil
}

// commands are the user's own ways to strike and to restore.
func (h *harness) commands(node core.NodeID, disk string) *blow {
	target := string(node)
	if disk != "" {
		target += "/" + disk
	}
	return &blow{
		what: "loss of " + target, node: node,
		strike:  func(ctx context.Context) error { return h.command(ctx, h.o.strike, node, disk, target) },
		restore: func(ctx context.Context) error { return h.command(ctx, h.o.restore, node, disk, target) },
	}
}

// command runs a command of the user with what it is about in the environment.
// A command without any variable gets it as its argument.
func (h *harness) command(ctx context.Context, text string, node core.NodeID, disk, target string) error {
	if !strings.Contains(text, "$") {
		text += ` "$1"`
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", text, "strike", target)
	cmd.Env = append(os.Environ(), "STRIKE_TARGET="+target, "STRIKE_NODE="+string(node), "STRIKE_DISK="+disk)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", text, err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}
