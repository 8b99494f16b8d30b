package nodeserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/disk"
	"github.com/shoalstore/shoal/core/engine"
	"github.com/shoalstore/shoal/core/peer"
	"github.com/shoalstore/shoal/core/vfs"
)

// Join adds a node to the cluster that its seeds belong to: it asks them for the
// cluster's id, formats the node's disks, and has the node entered in the map.
// The node is to be started afterwards.
func Join(ctx context.Context, c config.Config, log *slog.Logger) error {
	if stateExists(c.Node.Data) {
		return fmt.Errorf("node.data %s belongs to a cluster already: %w", c.Node.Data, core.ErrExists)
	}
	if len(c.Cluster.Seeds) == 0 {
		return fmt.Errorf("cluster.seeds is empty; name the peer address of a member: %w", core.ErrInvalid)
	}
	var failed error
	for _, seed := range c.Cluster.Seeds {
		err := joinBy(ctx, c, seed, log)
		if err == nil {
			return nil
		}
		failed = errors.Join(failed, fmt.Errorf("seed %s: %w", seed, err))
		if !errors.Is(err, core.ErrUnavailable) {
			break
		}
	}
	return failed
}

// joinBy joins through one member.
func joinBy(ctx context.Context, c config.Config, seed string, log *slog.Logger) error {
	_, peerTLS, err := tlsConfigs(c)
	if err != nil {
		return err
	}
	me := self(c)
	member, err := peer.Ask(ctx, peer.AskOptions{Addr: seed, Self: me.ID, Secret: []byte(c.Cluster.Secret), TLS: peerTLS, Clock: systemClock{}})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", c.Listen.Peer)
	if err != nil {
		return fmt.Errorf("listen.peer: %w", err)
	}
	t, err := peer.New(peer.Options{
		Cluster: member.Cluster, Self: me.ID, Secret: []byte(c.Cluster.Secret), Listener: l, TLS: peerTLS, Clock: systemClock{}, Log: log,
		Resolve: func(id core.NodeID) (string, bool) { return seed, id == member.Node },
	})
	if err != nil {
		_ = l.Close()
		return err
	}
	running := startLayer(ctx, "peers", t.Run)
	return errors.Join(enter(ctx, c, member, transport{t}, log), running.end())
}

// enter has the node entered in the map and writes its state.
func enter(ctx context.Context, c config.Config, member peer.Member, t transport, log *slog.Logger) error {
	me := self(c)
	may := func() error {
		_, err := engine.Join(ctx, t, member.Node, me, nil)
		return err
	}
	err := may()
	for i := 0; i < 20 && errors.Is(err, core.ErrUnavailable); i++ {
		// The transport may just be starting, or a slot changing hands.
		if werr := (systemClock{}).Wait(ctx, 100*time.Millisecond); werr != nil {
			return werr
		}
		err = may()
	}
	if err != nil {
		return err
	}
	disks, err := joinDisks(ctx, c, member.Cluster, log)
	if err != nil {
		return err
	}
	m, err := engine.Join(ctx, t, member.Node, me, disks)
	if err != nil {
		return err
	}
	return createState(c.Node.Data, identity{Cluster: member.Cluster, Node: me.ID, VoterKey: core.NewRequestID().String()}, m, false)
}

// joinDisks makes the disks of a configuration new ones. Those that an attempt
// which was broken off has made already, and nobody has used, are taken as they
// are: the map may know them.
func joinDisks(ctx context.Context, c config.Config, cluster string, log *slog.Logger) ([]core.Disk, error) {
	var out []core.Disk
	for i, d := range c.Disks {
		uuid, err := unusedDisk(ctx, c, d.Path, cluster, log)
		if err != nil {
			return nil, fmt.Errorf("disks[%d] of node %s: %w", i, c.Node.Name, err)
		}
		if uuid != "" {
			out = append(out, core.Disk{UUID: uuid, Node: core.NodeID(c.Node.Name), Name: diskName(i, d.Path), Weight: weightOf(d)})
			continue
		}
		made, err := formatDisk(ctx, c, i, cluster, false, log)
		if err != nil {
			return nil, err
		}
		out = append(out, made)
	}
	return out, nil
}

// unusedDisk returns the id of a disk that was formatted for this node and holds
// nothing, "" if the directory is something else.
func unusedDisk(ctx context.Context, c config.Config, dir, cluster string, log *slog.Logger) (string, error) {
	id, err := disk.ReadIdentity(vfs.OS(), dir)
	if err != nil || id.Cluster != cluster || string(id.Node) != c.Node.Name {
		return "", nil // Format says what is in the way
	}
	d, err := disk.Open(ctx, disk.Options{Dir: dir, Clock: systemClock{}, Cluster: cluster, Node: id.Node, Log: log})
	if errors.Is(err, core.ErrUnformatted) {
		return "", nil // formatting it was interrupted
	}
	if err != nil {
		return "", err
	}
	err = d.Count(ctx)
	st, serr := d.Stats(ctx)
	if err := errors.Join(err, serr, d.Close()); err != nil {
		return "", err
	}
	if st.Slots > 0 || st.Shards > 0 {
		return "", nil
	}
	return id.UUID, nil
}
