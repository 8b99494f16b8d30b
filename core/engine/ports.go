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

// Disk is a local disk. It may further be able to say whether it has room, and
// to read a row into memory of the caller's: see core/disk.
type Disk interface {
	core.RowStore
	core.Store
}

// intoGetter is a disk that reads a row's value into buf if it is large enough.
type intoGetter interface {
	GetInto(ctx context.Context, s core.SlotID, k core.RowKey, at core.Version, buf []byte) (core.Row, error)
}
