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
}

// serveDisk formats or rebuilds a disk and takes it into use.
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
	for _, d := range s.openDisks() {
		if d.path == s.cfg.Disks[i].Path && d.disk.Err() == nil {
			return nil, fmt.Errorf("disk %s of node %s is in use and works: %w", r.Disk, s.cfg.Node.Name, core.ErrConflict)
		}
	}
	opt := disk.Options{
		Dir: s.cfg.Disks[i].Path, Clock: s.clock, Cluster: s.state.id.Cluster, Node: s.state.id.Node, Cache: s.cache, Log: s.log,
	}
	var err error
	switch r.Action {
	case api.FormatDisk:
		_, err = disk.Format(ctx, disk.FormatOptions{Options: opt, Force: true})
	case api.RebuildDisk:
		err = s.rebuild(ctx, opt)
	default:
		err = fmt.Errorf("disk action %q: %w", r.Action, core.ErrInvalid)
	}
	if err != nil {
		return nil, err
	}
	return nil, s.take(ctx, i, opt)
}

// rebuild gives a disk whose index is lost an empty one. Its records come back
// from the other members of its slots; its shards are counted again, since the
// disk keeps its number.
func (s *server) rebuild(ctx context.Context, o disk.Options) error {
	id, err := disk.ReadIdentity(vfs.OS(), o.Dir)
	if err != nil {
		return err
	}
	m := s.node.Map()
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
	opened, err := disk.Open(context.WithoutCancel(ctx), o)
	if err != nil {
		return err
	}
	c := s.cfg.Disks[i]
	d := &openDisk{name: diskName(i, c.Path), path: c.Path, weight: weightOf(c), disk: opened}
	s.mu.Lock()
	s.disks = append(s.disks, d)
	s.mu.Unlock()
	s.node.AddDisk(engine.LocalDisk{UUID: opened.Identity().UUID, Name: d.name, Weight: d.weight, Disk: opened})
	m := s.node.Map()
	for j := range m.Disks {
		if k := &m.Disks[j]; k.UUID == opened.Identity().UUID && k.State != core.DiskOK {
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
	req, err := json.Marshal(diskRequest{a, name})
	if err != nil {
		return fmt.Errorf("encode disk action: %w", err)
	}
	_, err = s.node.CallNode(ctx, node, methodDisk, req)
	if errors.Is(err, core.ErrConflict) {
		return api.Refused(err.Error(), "shoal disk detach takes a disk out of use")
	}
	return err
}
