package nodeserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/disk"
	"github.com/shoalstore/shoal/core/engine"
	"github.com/shoalstore/shoal/core/vfs"
	"github.com/shoalstore/shoal/plugins/api"
)

// methodDisk asks a node to do something with one of its disks.
const methodDisk uint16 = 97

// diskRequest names a disk of the node's configuration.
type diskRequest struct {
	Action api.DiskAction `json:"action"`
	Disk   string         `json:"disk"`
	// Epoch is that of the map in effect at the node that asks.
	Epoch core.Epoch `json:"epoch"`
}

// serveDisk formats or rebuilds a disk, or opens it anew, and takes it into use.
func (s *server) serveDisk(ctx context.Context, _ core.NodeID, req []byte) ([]byte, error) {
	var r diskRequest
	if err := json.Unmarshal(req, &r); err != nil {
		return nil, fmt.Errorf("disk action: %w: %w", core.ErrInvalid, err)
	}
	i := slices.IndexFunc(s.cfg.Disks, func(d config.Disk) bool {
		return diskName(slices.IndexFunc(s.cfg.Disks, func(e config.Disk) bool { return e.Path == d.Path }), d.Path) == r.Disk
	})
	if i < 0 {
		return nil, fmt.Errorf("the configuration of node %s has no disk %q: %w", s.cfg.Node.Name, r.Disk, core.ErrNotFound)
	}
	s.acting.Lock()
	defer s.acting.Unlock()
	if err := s.awaitEpoch(ctx, r.Epoch); err != nil {
		return nil, err
	}
	for _, d := range s.openDisks() {
		if d.path != s.cfg.Disks[i].Path {
			continue
		}
		uuid := d.disk.Identity().UUID
		state, works := s.diskState(uuid), d.disk.Err() == nil
		switch {
		case r.Action == api.AttachDisk && works && state != core.DiskFailed:
			return nil, s.reinstate(ctx, uuid)
		case works && state == core.DiskOK:
			return nil, fmt.Errorf("disk %s of node %s is in use and works: %w", r.Disk, s.cfg.Node.Name, core.ErrConflict)
		}
		if err := s.release(d); err != nil {
			s.log.Warn("a disk that was given up did not close in order", "path", d.path, "err", err)
		}
	}
	opt := disk.Options{
		Dir: s.cfg.Disks[i].Path, Clock: s.clock, Cluster: s.state.id.Cluster, Node: s.state.id.Node, Cache: s.cache, Log: s.log,
	}
	var err error
	switch r.Action {
	case api.FormatDisk:
		_, err = disk.Format(ctx, disk.FormatOptions{Options: opt, Renew: true})
	case api.ForceFormatDisk:
		_, err = disk.Format(ctx, disk.FormatOptions{Options: opt, Force: true})
	case api.RebuildDisk:
		err = s.rebuild(ctx, opt)
	case api.AttachDisk:
	default:
		err = fmt.Errorf("disk action %q: %w", r.Action, core.ErrInvalid)
	}
	if err != nil {
		return nil, err
	}
	err = s.take(ctx, i, opt)
	if errors.Is(err, disk.ErrForeign) {
		err = occupied{err}
	}
	return nil, err
}

// occupied is that the disk of another node or cluster is where one of this node's is to
// be: to other nodes, which do not know that error, that there is something already.
type occupied struct{ error }

func (occupied) Is(target error) bool { return target == core.ErrExists }
func (o occupied) Unwrap() error      { return o.error }

// awaitEpoch waits until a map of at least that epoch is in effect here.
func (s *server) awaitEpoch(ctx context.Context, e core.Epoch) error {
	for {
		m, changed := s.node.Maps()
		if m != nil && m.Epoch >= e {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("map %d is not in effect on node %s yet: %w: %w", e, s.cfg.Node.Name, core.ErrUnavailable, context.Cause(ctx))
		}
	}
}

// diskState is what the map in effect says of a disk, "" if nothing.
func (s *server) diskState(uuid string) core.DiskState {
	m := s.node.Map()
	if i := slices.IndexFunc(m.Disks, func(d core.Disk) bool { return d.UUID == uuid }); i >= 0 {
		return m.Disks[i].State
	}
	return ""
}

// release takes a disk out of the node and closes it.
func (s *server) release(d *openDisk) error {
	s.node.RemoveDisk(d.disk.Identity().UUID)
	s.mu.Lock()
	s.disks = slices.DeleteFunc(s.disks, func(o *openDisk) bool { return o == d })
	s.mu.Unlock()
	return d.disk.Close()
}

// rebuild gives a disk whose index is lost an empty one. Its records come back
// from the other members of its slots; its shards are counted again, since the
// disk keeps its number.
func (s *server) rebuild(ctx context.Context, o disk.Options) error {
	id, err := disk.ReadIdentity(vfs.OS(), o.Dir)
	if err != nil {
		return err
	}
	m, err := (clusterService{s}).mapNow()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(m.Disks, func(d core.Disk) bool { return d.UUID == id.UUID })
	if i < 0 {
		return fmt.Errorf("disk %s is not in the map; format it instead: %w", id.UUID, core.ErrNotFound)
	}
	number := m.Disks[i].ID
	if m.Disks[i].State == core.DiskOK {
		if err := (clusterService{s}).change(ctx, core.Change{Kind: core.ChangeFail, Disk: number}); err != nil {
			return err
		}
	}
	for slot, row := range s.node.Map().Slots {
		if slices.Contains(row.Insync, number) {
			return fmt.Errorf("the disk is the last one that holds all records of slot %d; what it has must be saved first: %w", slot, core.ErrConflict)
		}
	}
	_, err = disk.ResetMeta(ctx, o, id.UUID)
	return err
}

// take opens a disk and has it used.
func (s *server) take(ctx context.Context, i int, o disk.Options) error {
	c := s.cfg.Disks[i]
	opened, err := disk.Open(context.WithoutCancel(ctx), o)
	if err == nil {
		err = s.state.mayUse(opened)
	}
	s.note(c.Path, err)
	if err != nil {
		return err
	}
	d := &openDisk{name: diskName(i, c.Path), path: c.Path, weight: weightOf(c), disk: opened}
	s.mu.Lock()
	s.disks = append(s.disks, d)
	s.mu.Unlock()
	s.node.AddDisk(engine.LocalDisk{UUID: opened.Identity().UUID, Name: d.name, Weight: d.weight, Disk: opened})
	return s.reinstate(ctx, opened.Identity().UUID)
}

// reinstate makes a disk that the map has as failed or detached one in use.
func (s *server) reinstate(ctx context.Context, uuid string) error {
	m := s.node.Map()
	for j := range m.Disks {
		if k := &m.Disks[j]; k.UUID == uuid && k.State != core.DiskOK {
			return (clusterService{s}).change(ctx, core.Change{Kind: core.ChangeDiskState, Disk: k.ID, State: string(core.DiskOK)})
		}
	}
	return nil
}

// openDisks are the disks that are open now.
func (s *server) openDisks() []*openDisk {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.disks)
}

// askDisk has a node do something with one of its disks.
func (s *server) askDisk(ctx context.Context, node core.NodeID, a api.DiskAction, name string) error {
	m, err := (clusterService{s}).mapNow()
	if err != nil {
		return err
	}
	n := m.Node(node)
	if n == nil {
		return fmt.Errorf("node %s: %w", node, core.ErrNotFound)
	}
	req, err := json.Marshal(diskRequest{a, name, m.Epoch})
	if err != nil {
		return fmt.Errorf("encode disk action: %w", err)
	}
	_, err = s.node.CallNode(ctx, node, methodDisk, req)
	return refusedDisk(n, name, err)
}

// refusedDisk makes of the error of an action on a disk what a user can do about it.
func refusedDisk(n *core.Node, name string, err error) error {
	id := string(n.ID) + "/" + name
	switch {
	case n.State == core.NodeDown && errors.Is(err, core.ErrUnavailable):
		return api.Refused(fmt.Sprintf("node %s is down; only it can look at its disks", n.ID), "start it first")
	case errors.Is(err, core.ErrNotEmpty), errors.Is(err, core.ErrExists):
		return api.Refused(err.Error(), "look what it is; `shoal disk format "+id+" --force` formats it nevertheless: what has the name of a disk's part is lost, the rest stays")
	case errors.Is(err, core.ErrConflict):
		return api.Refused(err.Error(), "`shoal disk detach "+id+"` takes a disk out of use")
	case errors.Is(err, core.ErrUnformatted):
		return api.Refused(err.Error(), "mount the disk; where it is to be a new one: `shoal disk format "+id+"`")
	case errors.Is(err, core.ErrCorrupt):
		return api.Refused(err.Error(), "`shoal disk rebuild "+id+"` keeps its data; `shoal disk format "+id+"` begins anew")
	}
	return err
}
