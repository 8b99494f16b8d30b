package peer

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/shoalstore/shoal/core"
)

// Stats is what a node has had to do with another one since it started. All
// numbers but Queued, Calls, Streams, IdleStreams and RTT only grow.
type Stats struct {
	Node core.NodeID
	// Up says that messages reach the node, LastError why they do not.
	Up        bool
	LastError string
	// RTT is the time that the last ping took, 0 if there was none yet. It
	// includes the time in which the node handled the messages before it.
	RTT time.Duration

	// Bytes on all connections, with what the protocol adds.
	BytesSent, BytesReceived uint64
	// Messages; those sent may still be lost with the connection, those
	// dropped were not sent. Queued is in bytes.
	MessagesSent, MessagesReceived, MessagesDropped uint64
	Queued                                          int64
	// Calls made and answered here; Calls is the number under way.
	CallsMade, CallsFailed, CallsServed uint64
	Calls                               int
	// Streams opened to the node and served for it; Streams is the number
	// open to it.
	StreamsOpened, StreamsServed uint64
	Streams, IdleStreams         int
	// Dials and DialFailures count attempts to connect to the node.
	Dials, DialFailures uint64
}

type counters struct {
	sent, received                                  atomic.Uint64
	messagesSent, messagesReceived, messagesDropped atomic.Uint64
	callsMade, callsFailed, callsServed             atomic.Uint64
	streamsOpened, streamsServed                    atomic.Uint64
	dials, dialFailures                             atomic.Uint64
	up                                              atomic.Bool
	rtt                                             atomic.Int64 // nanoseconds
}

// Stats returns the figures of all nodes that this one has had to do with, by
// name.
func (t *Transport) Stats() []Stats {
	t.mu.Lock()
	remotes := make([]*remote, 0, len(t.remotes))
	for _, r := range t.remotes {
		remotes = append(remotes, r)
	}
	t.mu.Unlock()
	all := make([]Stats, 0, len(remotes))
	for _, r := range remotes {
		all = append(all, r.stats())
	}
	slices.SortFunc(all, func(a, b Stats) int { return strings.Compare(string(a.Node), string(b.Node)) })
	return all
}

func (r *remote) stats() Stats {
	s := Stats{
		Node:             r.id,
		Up:               r.up.Load(),
		RTT:              time.Duration(r.rtt.Load()),
		BytesSent:        r.sent.Load(),
		BytesReceived:    r.received.Load(),
		MessagesSent:     r.messagesSent.Load(),
		MessagesReceived: r.messagesReceived.Load(),
		MessagesDropped:  r.messagesDropped.Load(),
		Queued:           r.link.q.size(),
		CallsMade:        r.callsMade.Load(),
		CallsFailed:      r.callsFailed.Load(),
		CallsServed:      r.callsServed.Load(),
		Calls:            len(r.calls.slots),
		StreamsOpened:    r.streamsOpened.Load(),
		StreamsServed:    r.streamsServed.Load(),
		Streams:          len(r.pool.slots),
		IdleStreams:      r.pool.idleCount(),
		Dials:            r.dials.Load(),
		DialFailures:     r.dialFailures.Load(),
	}
	if err := r.gate.last(); err != nil {
		s.LastError = err.Error()
	}
	return s
}
