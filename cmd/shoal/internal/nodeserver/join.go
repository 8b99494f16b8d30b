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
	"github.com/shoalstore/shoal/core/engine"
	"github.com/shoalstore/shoal/core/peer"
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
	disks, err := formatDisks(ctx, c, member.Cluster, false, log)
	if err != nil {
		return err
	}
	m, err := engine.Join(ctx, t, member.Node, me, disks)
	if err != nil {
		return err
	}
	return createState(c.Node.Data, identity{Cluster: member.Cluster, Node: me.ID, VoterKey: core.NewRequestID().String()}, m, false)
}
