package nodeserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"slices"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/bus/natsbus"
	"github.com/shoalstore/shoal/cmd/shoal/internal/recovery"
	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/disk"
)

// excludedFile names, in a node's directory, the disks that a recovery went on
// without: their content may differ from what the cluster has.
const excludedFile = "excluded-disks.json"

// formerFile lists the nodes that a recovery went on without, so that they can be
// told of it if they come back after all.
const formerFile = "former-nodes.json"

// Stopped are nodes that do not run and cannot be started before Close: their
// directories are held.
type Stopped struct {
	nodes []*stoppedNode
	log   *slog.Logger
}

type stoppedNode struct {
	cfg   config.Config
	state *state
	disks []*disk.Disk
	slots []map[core.SlotID]core.SlotState // of disks
	found recovery.Found
}

// OpenStopped takes hold of the directories of stopped nodes. A node that runs
// is [core.ErrLocked]. The caller closes it.
func OpenStopped(ctx context.Context, nodes []config.Config, log *slog.Logger) (*Stopped, error) {
	s := &Stopped{log: log}
	for _, c := range nodes {
		if err := s.open(ctx, c); err != nil {
			return nil, errors.Join(fmt.Errorf("node %s: %w", c.Node.Name, err), s.Close())
		}
	}
	return s, nil
}

func (s *Stopped) open(ctx context.Context, c config.Config) error {
	st, err := openState(c.Node.Data)
	if errors.Is(err, core.ErrLocked) {
		return fmt.Errorf("the node must be stopped: %w", err)
	}
	if err != nil {
		return err
	}
	n := &stoppedNode{cfg: c, state: st}
	s.nodes = append(s.nodes, n)
	if got := string(st.id.Node); got != c.Node.Name {
		return fmt.Errorf("node.data %s belongs to node %q: %w", c.Node.Data, got, core.ErrInvalid)
	}
	f := &n.found
	f.Cluster, f.Node, f.VoterKey, f.OutsideBus = st.id.Cluster, st.id.Node, st.id.VoterKey, c.Bus.URL != ""
	for name, to := range map[string]*[]byte{"map": &f.Map, "voter": &f.Voter} {
		if *to, err = os.ReadFile(st.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if f.Bus, err = natsbus.Generations(st.file("bus")); err != nil {
		return err
	}
	if err := eachCopied(st.file(busCopyDir), func(_ string, e bus.KeyValue) { f.Kept = append(f.Kept, e) }); err != nil {
		return err
	}
	for _, k := range c.Disks {
		fd := recovery.FoundDisk{Path: k.Path}
		d, err := disk.Open(ctx, disk.Options{Dir: k.Path, Clock: systemClock{}, Cluster: st.id.Cluster, Node: st.id.Node, Log: s.log})
		if err == nil {
			err = st.mayUse(d)
		}
		switch {
		case errors.Is(err, core.ErrLocked):
			return fmt.Errorf("the node must be stopped: %w", err)
		case err != nil:
			fd.Error = err.Error()
		default:
			n.disks = append(n.disks, d)
			fd.UUID = d.Identity().UUID
			if fd.Slots, err = d.Slots(ctx); err != nil {
				return err
			}
			n.slots = append(n.slots, fd.Slots)
		}
		f.Disks = append(f.Disks, fd)
	}
	return nil
}

// Found is what the nodes' directories hold.
func (s *Stopped) Found() []recovery.Found {
	out := make([]recovery.Found, 0, len(s.nodes))
	for _, n := range s.nodes {
		out = append(out, n.found)
	}
	return out
}

// Take gives all nodes the new map and carries out what it asks for. It can be
// repeated after a crash. Nodes that the map does not have, or whose voter has
// another name by now, are refused before anything is written.
func (s *Stopped) Take(ctx context.Context, o recovery.Orders) error {
	m, err := core.DecodeMap(o.Map)
	if err != nil {
		return err
	}
	for _, n := range s.nodes {
		if err := n.mayTake(m, o); err != nil {
			return fmt.Errorf("node %s: %w", n.found.Node, err)
		}
	}
	for _, n := range s.nodes {
		if err := n.take(ctx, m, o); err != nil {
			return fmt.Errorf("node %s: %w", n.found.Node, err)
		}
		s.log.Info("node has the recovered map", "node", string(n.found.Node), "epoch", uint64(m.Epoch))
	}
	return nil
}

func (n *stoppedNode) mayTake(m *core.Map, o recovery.Orders) error {
	f := &n.found
	switch {
	case m.Cluster != f.Cluster:
		return fmt.Errorf("the map is of cluster %s, the node of %s: %w", m.Cluster, f.Cluster, core.ErrInvalid)
	case m.Node(f.Node) == nil:
		return fmt.Errorf("the recovered map goes on without it; format its disks and let it join anew: %w", core.ErrConflict)
	case o.Keys[f.Node] != "" && o.Keys[f.Node] != f.VoterKey:
		return fmt.Errorf("it was started since its report was made; make the report again: %w", core.ErrConflict)
	}
	if have, err := core.DecodeMap(f.Map); err == nil && have.Epoch >= m.Epoch && have.Sum() != m.Sum() {
		return fmt.Errorf("it has map %d already, which is not older than map %d; make its report again: %w", have.Epoch, m.Epoch, core.ErrConflict)
	}
	return nil
}

// take writes what a start reads last of all: until then the node is what it
// was.
func (n *stoppedNode) take(ctx context.Context, m *core.Map, o recovery.Orders) error {
	// No ballot of the past is taken for these slots any more.
	fence := core.Ballot{Term: m.Epoch - 1, Boot: math.MaxUint64}
	for _, d := range n.disks {
		var batches []core.SlotBatch
		for _, s := range o.Remove[d.Identity().UUID] {
			batches = append(batches, core.SlotBatch{Slot: s, Remove: true, Adopt: &fence})
		}
		if len(batches) == 0 {
			continue
		}
		if err := d.Apply(ctx, batches); err != nil {
			return err
		}
	}
	if err := n.state.exclude(o.Exclude); err != nil {
		return err
	}
	if err := n.state.saveFormer(o.Former); err != nil {
		return err
	}
	if n.cfg.Bus.URL == "" {
		snap := bus.Snapshot{Generation: m.Bus - 1, Buckets: []bus.BucketSnapshot{
			{Name: "map", Entries: []bus.KeyValue{{Key: "map", Value: o.Map}}},
			{Name: "jobs", Entries: o.Kept},
		}}
		if err := natsbus.WriteSnapshot(n.state.file("bus"), snap); err != nil {
			return err
		}
	}
	// Whoever voted before moves on too: it grants and confirms nothing of the
	// past any more.
	if m.IsVoter(n.found.Node, n.found.VoterKey) || len(n.found.Voter) > 0 {
		if err := n.state.saveMapAs("voter", m); err != nil {
			return err
		}
	}
	return n.state.saveMap(m)
}

// LostObject is an object of which too little is left to read it, though its
// record is there.
type LostObject struct {
	Bucket string `json:"bucket"` // with its scheme
	Key    string `json:"key"`
	Size   int64  `json:"size"`
}

// LostObjects finds the objects whose shards are on disks that the map does not
// have, in the slots whose first disk is open here. It calls each for every one,
// in no particular order; an object may come twice.
func (s *Stopped) LostObjects(ctx context.Context, m *core.Map, each func(LostObject)) error {
	for _, n := range s.nodes {
		for i, d := range n.disks {
			if err := lostObjects(ctx, m, d, n.slots[i], each); err != nil {
				return fmt.Errorf("node %s: %w", n.found.Node, err)
			}
		}
	}
	return nil
}

func lostObjects(ctx context.Context, m *core.Map, d *disk.Disk, states map[core.SlotID]core.SlotState, each func(LostObject)) error {
	at := slices.IndexFunc(m.Disks, func(k core.Disk) bool { return k.UUID == d.Identity().UUID })
	if at < 0 {
		return nil
	}
	owner := m.Disks[at].ID
	visible := func(s core.SlotID) (core.Version, bool) {
		return states[s].Last, int(s) < len(m.Slots) && m.Slots[s].Owner() == owner
	}
	for i := range m.Buckets {
		b := &m.Buckets[i]
		for _, space := range []core.Space{core.SpaceObject, core.SpacePart} {
			for f, err := range d.Scan(ctx, core.Scan{Bucket: b.ID, Space: space, Visible: visible}) {
				if err != nil {
					return err
				}
				if rec, err := core.DecodeRecord(f.Value); err != nil || !readable(m, rec) {
					o := LostObject{Bucket: b.Name.String(), Key: f.Key}
					if err == nil {
						o.Size = rec.Size
					}
					each(o)
				}
			}
		}
	}
	return nil
}

// readable says whether enough shards of the object are on disks of the map.
func readable(m *core.Map, rec *core.Record) bool {
	for i := range rec.Extents {
		have := 0
		for _, p := range rec.Extents[i].Places {
			if p.Disk != 0 && m.Disk(p.Disk) != nil {
				have++
			}
		}
		if have < rec.Extents[i].Scheme.MinRead() {
			return false
		}
	}
	return true
}

// Close lets go of the directories.
func (s *Stopped) Close() (err error) {
	for _, n := range s.nodes {
		for _, d := range n.disks {
			err = errors.Join(err, d.Close())
		}
		err = errors.Join(err, n.state.close())
	}
	s.nodes = nil
	return err
}

// excluded lists the UUIDs of the disks that a recovery went on without.
func (s *state) excluded() (out []string, err error) {
	err = s.readList(excludedFile, &out)
	return out, err
}

// exclude adds disks to those that must not be used any more.
func (s *state) exclude(uuids []string) error {
	all, err := s.excluded()
	if err != nil || len(uuids) == 0 {
		return err
	}
	all = append(all, uuids...)
	slices.Sort(all)
	return s.saveList(excludedFile, slices.Compact(all))
}

// former lists the nodes that recoveries went on without.
func (s *state) former() (out []core.Node, err error) {
	err = s.readList(formerFile, &out)
	return out, err
}

// saveFormer adds nodes to those.
func (s *state) saveFormer(nodes []core.Node) error {
	all, err := s.former()
	if err != nil || len(nodes) == 0 {
		return err
	}
	all = slices.DeleteFunc(all, func(k core.Node) bool {
		return slices.ContainsFunc(nodes, func(n core.Node) bool { return n.ID == k.ID })
	})
	return s.saveList(formerFile, append(all, nodes...))
}

// readList reads a list of the node's directory; there need be none.
func (s *state) readList(name string, to any) error {
	b, err := os.ReadFile(s.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, to)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.file(name), err)
	}
	return nil
}

func (s *state) saveList(name string, list any) error {
	b, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	return writeDurably(s.file(name), append(b, '\n'))
}

// errExcluded says that a recovery went on without a disk.
var errExcluded = fmt.Errorf("`shoal recover` went on without it, so that what it holds may be wrong: %w", core.ErrConflict)

// mayUse closes a disk that a recovery went on without, and says so.
func (s *state) mayUse(d *disk.Disk) error {
	excluded, err := s.excluded()
	if err == nil && slices.Contains(excluded, d.Identity().UUID) {
		err = fmt.Errorf("disk %s: %w", d.Identity().UUID, errExcluded)
	}
	if err != nil {
		return errors.Join(err, d.Close())
	}
	return nil
}
