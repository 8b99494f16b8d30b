package peer

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/shoalstore/shoal/core"
)

// Limits of the protocol, in bytes.
const (
	// MaxMessage is the longest message, request or response of a call.
	MaxMessage = 16 << 20
	// MaxHeader is the longest header, meta data or reply of a stream.
	MaxHeader = 64 << 10
	// MinSecret is the shortest secret that a cluster may have.
	MinSecret = 16
)

// Options configure a [Transport]. Cluster, Self, Secret, Listener, Resolve and
// Clock must be set; the rest has defaults.
type Options struct {
	// Cluster is the cluster's id; nodes of another one are refused.
	Cluster string
	// Self is this node.
	Self core.NodeID
	// Secret is what all nodes of the cluster know and nobody else does.
	Secret []byte
	// Listener accepts connections on the node's peer address. The transport
	// closes it when Run ends.
	Listener net.Listener
	// Resolve returns a node's peer address, host:port, and false for a node
	// that is not in the map. It is asked before each attempt to connect, and
	// must not block.
	Resolve func(core.NodeID) (addr string, ok bool)
	// Clock tells the time.
	Clock core.Clock

	// TLS, if set, encrypts all connections, with TLS 1.3. It is used for
	// both roles. An empty ServerName stands for the host of the address.
	TLS *tls.Config
	// Log takes what an operator should know; nil for nothing.
	Log *slog.Logger
	// Dial replaces the plain dialler.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// QueueBytes is the number of bytes of messages that may wait for a node,
	// 64 MiB by default.
	QueueBytes int64
	// MaxCalls is the number of calls to one node that may be under way, 1,024
	// by default. Further ones wait.
	MaxCalls int
	// MaxHandlers is the number of calls of one node that are served at once,
	// 256 by default. Further ones wait; those beyond MaxCalls are refused.
	MaxHandlers int
	// MaxStreams is the number of streams to one node that may be open, 512 by
	// default. Further ones fail with ErrUnavailable and ErrNotSent. Twice as
	// many connections for streams are accepted from a node.
	MaxStreams int
	// IdleStreams is the number of unused stream connections kept per node, 64
	// by default, and IdleTimeout how long, one minute by default.
	IdleStreams int
	IdleTimeout time.Duration

	// Ping is the time after which a quiet end of a connection in use shows
	// that it is alive, 1 s by default. A peer from which nothing came for
	// Timeout, 3.5 s by default, is taken for dead.
	Ping    time.Duration
	Timeout time.Duration
	// DialTimeout bounds connecting and the handshake, 3 s by default.
	DialTimeout time.Duration
	// BackoffMin and BackoffMax bound the time between two attempts to reach
	// a node, 50 ms and 1 s by default.
	BackoffMin, BackoffMax time.Duration
}

// withDefaults returns the options with the gaps filled in.
func (o Options) withDefaults() (Options, error) {
	bad := func(what string) (Options, error) {
		return o, fmt.Errorf("peer options: %s: %w", what, core.ErrInvalid)
	}
	switch {
	case o.Cluster == "" || len(o.Cluster) > 255:
		return bad("want a cluster id of 1 to 255 bytes")
	case len(o.Secret) < MinSecret:
		return bad(fmt.Sprintf("the cluster's secret has %d bytes; want at least %d", len(o.Secret), MinSecret))
	case o.Listener == nil || o.Resolve == nil || o.Clock == nil:
		return bad("Listener, Resolve and Clock must be set")
	}
	if err := o.Self.Validate(); err != nil {
		return o, fmt.Errorf("peer options: %w", err)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	if o.TLS != nil {
		o.TLS = o.TLS.Clone()
		o.TLS.MinVersion = tls.VersionTLS13
	}
	orDefault(&o.QueueBytes, 64<<20)
	orDefault(&o.MaxCalls, 1024)
	orDefault(&o.MaxHandlers, 256)
	orDefault(&o.MaxStreams, 512)
	orDefault(&o.IdleStreams, 64)
	orDefault(&o.IdleTimeout, time.Minute)
	orDefault(&o.Ping, time.Second)
	orDefault(&o.Timeout, 3500*time.Millisecond)
	orDefault(&o.DialTimeout, 3*time.Second)
	orDefault(&o.BackoffMin, 50*time.Millisecond)
	orDefault(&o.BackoffMax, time.Second)
	if o.Timeout < 2*o.Ping {
		return bad(fmt.Sprintf("a Timeout of %v leaves no room for a lost Ping of %v", o.Timeout, o.Ping))
	}
	return o, nil
}

func orDefault[T ~int | ~int64](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}
