package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/shoalstore/shoal/core"
)

// errAsked ends a connection that only asked.
var errAsked = errors.New("asked who is here")

// Member is a node of a cluster.
type Member struct {
	Cluster string
	Node    core.NodeID
}

// AskOptions say whom to ask, and as whom.
type AskOptions struct {
	Addr   string
	Self   core.NodeID
	Secret []byte
	TLS    *tls.Config
	Clock  core.Clock
}

// Ask asks which node of which cluster has an address. Both ends prove that they
// know the cluster's secret first, so that a node which is to join a cluster
// learns its id from a member and from nobody else.
func Ask(ctx context.Context, o AskOptions) (Member, error) {
	const patience = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", o.Addr)
	if err != nil {
		return Member{}, fmt.Errorf("%w: %w", core.ErrUnavailable, err)
	}
	defer func() { _ = raw.Close() }()
	hangUp := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer hangUp()
	t, err := New(Options{
		Cluster: "none yet", Self: o.Self, Secret: o.Secret, Listener: noListener{}, Clock: o.Clock, TLS: o.TLS,
		Resolve: func(core.NodeID) (string, bool) { return "", false },
	})
	if err != nil {
		return Member{}, err
	}
	c := newConn(t, raw, kindAsk, true)
	host, _, err := net.SplitHostPort(o.Addr)
	if err != nil {
		return Member{}, fmt.Errorf("address %q: want host:port: %w", o.Addr, core.ErrInvalid)
	}
	if err := c.encrypt(ctx, host); err != nil {
		return Member{}, err
	}
	if err := t.dialHandshake(c, "whoever"); err != nil {
		return Member{}, fmt.Errorf("%s: %w", o.Addr, err)
	}
	cluster, node, ok := bytes.Cut(c.welcomed, []byte{0})
	if !ok || core.NodeID(node).Validate() != nil {
		return Member{}, fmt.Errorf("%s: %w: answer without cluster and node", o.Addr, errProtocol)
	}
	return Member{Cluster: string(cluster), Node: core.NodeID(node)}, nil
}

// whoAmI is the answer to Ask: the cluster's id, a zero byte, the node's name.
func (t *Transport) whoAmI() []byte {
	return append(append([]byte(t.o.Cluster), 0), t.o.Self...)
}

// noListener is for a transport that only asks.
type noListener struct{}

func (noListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (noListener) Close() error              { return nil }
func (noListener) Addr() net.Addr            { return &net.TCPAddr{} }
