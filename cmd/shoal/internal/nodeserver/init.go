package nodeserver

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/google/uuid"

	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/disk"
	"github.com/shoalstore/shoal/placement"
)

// Defaults of a new cluster.
const (
	defaultSlots    = 4096
	defaultReplicas = 3
)

// InitOptions are what is decided for the whole life of a cluster.
type InitOptions struct {
	Slots, Replicas int
	// Force formats disks and overwrites state that exist.
	Force bool
}

// Init makes a cluster of nodes whose directories are all on this machine, and
// returns its id.
func Init(ctx context.Context, nodes []config.Config, o InitOptions, log *slog.Logger) (string, error) {
	if o.Slots == 0 {
		o.Slots = defaultSlots
	}
	if o.Replicas == 0 {
		o.Replicas = defaultReplicas
	}
	cluster := uuid.NewString()
	clock := systemClock{}
	var members []core.Node
	var disks []core.Disk
	var voters []core.Voter
	ids := make([]identity, len(nodes))
	for i, c := range nodes {
		if stateExists(c.Node.Data) && !o.Force {
			return "", fmt.Errorf("node.data %s of node %s belongs to a cluster already; --force makes a new one of it: %w", c.Node.Data, c.Node.Name, core.ErrExists)
		}
		ids[i] = identity{Cluster: cluster, Node: core.NodeID(c.Node.Name), VoterKey: core.NewRequestID().String()}
		n := self(c)
		n.State, n.Boot = core.NodeActive, 1
		members = append(members, n)
		if i < votersOf(len(nodes)) {
			voters = append(voters, core.Voter{Node: n.ID, Key: ids[i].VoterKey})
		}
	}
	for _, c := range nodes {
		made, err := formatDisks(ctx, c, cluster, o.Force, log)
		if err != nil {
			return "", err
		}
		disks = append(disks, made...)
	}
	m, err := placement.Initial(cluster, o.Slots, o.Replicas, members, disks, voters, clock.Now())
	if err != nil {
		return "", err
	}
	for i, c := range nodes {
		if err := createState(c.Node.Data, ids[i], m, m.IsVoter(ids[i].Node, ids[i].VoterKey)); err != nil {
			return "", fmt.Errorf("node.data of node %s: %w", c.Node.Name, err)
		}
	}
	return cluster, nil
}

// votersOf is how many voters a cluster of that many nodes has.
func votersOf(nodes int) int {
	switch {
	case nodes < 3:
		return 1
	case nodes < 5:
		return 3
	}
	return 5
}

// self is a node as its configuration describes it.
func self(c config.Config) core.Node {
	return core.Node{
		ID: core.NodeID(c.Node.Name), Zone: c.Node.Zone, Weight: c.Node.Weight,
		Peer: c.AdvertisedPeer(), Client: c.AdvertisedClient(), Bus: c.AdvertisedBus(), Route: c.AdvertisedRoute(),
	}
}

// formatDisks makes the disks of a configuration new ones.
func formatDisks(ctx context.Context, c config.Config, cluster string, force bool, log *slog.Logger) ([]core.Disk, error) {
	var out []core.Disk
	for i := range c.Disks {
		made, err := formatDisk(ctx, c, i, cluster, force, log)
		if err != nil {
			return nil, err
		}
		out = append(out, made)
	}
	return out, nil
}

func formatDisk(ctx context.Context, c config.Config, i int, cluster string, force bool, log *slog.Logger) (core.Disk, error) {
	d := c.Disks[i]
	id, err := disk.Format(ctx, disk.FormatOptions{
		Options: disk.Options{Dir: d.Path, Clock: systemClock{}, Cluster: cluster, Node: core.NodeID(c.Node.Name), Log: log},
		Force:   force,
	})
	if err != nil {
		return core.Disk{}, fmt.Errorf("disks[%d] of node %s: %w", i, c.Node.Name, err)
	}
	return core.Disk{UUID: id.UUID, Node: core.NodeID(c.Node.Name), Name: diskName(i, d.Path), Weight: weightOf(d)}, nil
}

// diskName is the name of a disk on its node: its directory's, where that is
// unlike "data" and the like, and numbered otherwise.
func diskName(i int, path string) string {
	if base := filepath.Base(path); len(base) == 2 && base[0] == 'd' {
		return base
	}
	return fmt.Sprintf("d%d", i+1)
}

// weightOf is a disk's weight: the configured one, or its capacity in GiB.
func weightOf(d config.Disk) float64 {
	if d.Weight > 0 {
		return d.Weight
	}
	var st unix.Statfs_t
	if err := unix.Statfs(d.Path, &st); err != nil {
		return 1
	}
	return max(float64(st.Blocks)*float64(st.Bsize)/(1<<30), 1)
}
