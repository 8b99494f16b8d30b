package engine

import (
	"context"

	"github.com/shoalstore/shoal/core"
)

// Transport is how a node reaches the others and itself. Messages may be lost;
// those that arrive from one sender arrive in order.
type Transport interface {
	// Send queues a message; it never blocks.
	Send(to core.NodeID, msg []byte)
	// Call asks another node, or this one. Errors keep their identity
	// (core's sentinels). A broken connection is core.ErrUnavailable.
	Call(ctx context.Context, to core.NodeID, method uint16, req []byte) ([]byte, error)
	// Store is the store of a disk on another node, or on this one.
	Store(node core.NodeID, disk core.DiskID) core.Store
}

// Disk is a local disk.
type Disk interface {
	core.RowStore
	core.Store
}
