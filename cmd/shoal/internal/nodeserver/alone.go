package nodeserver

import (
	"context"
	"fmt"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/peer"
)

// askPatience is how long an address may take to say who is there.
const askPatience = 2 * time.Second

// alone refuses to run a node that runs already, from a copy of its directories
// or on another machine: two that take themselves for the same node would take
// turns in the place of one, and what others believe to be stored on it would be
// on neither. It asks at the address that the map has for the node and at the
// one that it is about to use.
func (s *server) alone(ctx context.Context, known *core.Map) error {
	addrs := []string{s.cfg.AdvertisedPeer()}
	if other := s.otherAddr(known); other != "" {
		addrs = append(addrs, other)
	}
	return s.nobodyAt(ctx, addrs...)
}

// otherAddr is where the map has this node, "" if that is its own address.
func (s *server) otherAddr(m *core.Map) string {
	if n := m.Node(s.state.id.Node); n != nil && n.Peer != s.cfg.AdvertisedPeer() {
		return n.Peer
	}
	return ""
}

// nobodyAt returns an error if this node answers at one of the addresses.
func (s *server) nobodyAt(ctx context.Context, addrs ...string) error {
	_, peerTLS, err := tlsConfigs(s.cfg)
	if err != nil {
		return err
	}
	for _, addr := range addrs {
		ctx, cancel := context.WithTimeout(ctx, askPatience)
		there, err := peer.Ask(ctx, peer.AskOptions{
			Addr: addr, Self: s.state.id.Node, Secret: []byte(s.cfg.Cluster.Secret), TLS: peerTLS, Clock: s.clock,
		})
		cancel()
		if err == nil && there.Cluster == s.state.id.Cluster && there.Node == s.state.id.Node {
			return fmt.Errorf("node %s runs already, at %s: stop it there before it runs here; a new node needs a node.name and a node.data of its own, and `shoal cluster join`: %w",
				there.Node, addr, core.ErrLocked)
		}
	}
	return nil
}

// stayAlone goes on asking where the map has this node, if that is elsewhere,
// until this start is in effect: who was frozen or cut off at first may answer
// later.
func (s *server) stayAlone(ctx context.Context) error {
	const pause = 2 * time.Second
	for warned := false; ; {
		if m := s.node.NewestMap(); m != nil {
			other := s.otherAddr(m)
			if n := m.Node(s.state.id.Node); other == "" || n.Boot == s.boot {
				return waitEnd(ctx)
			}
			if !warned {
				warned = true
				s.log.Warn("the cluster has this node at another address; it is registered here when it is not heard there any more", "map", other, "configured", s.cfg.AdvertisedPeer())
			}
			if err := s.nobodyAt(ctx, other); err != nil {
				return err
			}
		}
		if s.clock.Wait(ctx, pause) != nil {
			return nil
		}
	}
}

// overtaken returns an error once a map has a later start of this node than
// this one, which then must not go on.
func (s *server) overtaken(m *core.Map) error {
	if n := m.Node(s.state.id.Node); n != nil && n.Boot > s.boot {
		return fmt.Errorf("node %s was started elsewhere, at %s, while this process ran: a node may run once only; this process ends: %w",
			n.ID, n.Peer, core.ErrLocked)
	}
	return nil
}

// bootOf is the number of a start: the time, but above that of the start which
// the map knows, in case the machine's clock was set back.
func bootOf(now time.Time, known *core.Node) uint64 {
	boot := uint64(max(now.UnixMilli(), 1))
	if known != nil {
		boot = max(boot, known.Boot+1)
	}
	return boot
}
