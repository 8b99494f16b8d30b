package engine

import (
	"context"
	"errors"
	"sync"

	"github.com/shoalstore/shoal/core"
)

// health counts what goes wrong with disks.
type health struct {
	mu     sync.Mutex
	faults map[core.DiskID]*diskFaults
}

// diskFaults are counts since the node's start.
type diskFaults struct {
	corrupt, missing, failed int64
}

// shardFailed notes a shard that could not be read or written.
func (h *health) shardFailed(d core.DiskID, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.faults == nil {
		h.faults = map[core.DiskID]*diskFaults{}
	}
	f := h.faults[d]
	if f == nil {
		f = &diskFaults{}
		h.faults[d] = f
	}
	switch {
	case errors.Is(err, core.ErrCorrupt):
		f.corrupt++
	case errors.Is(err, core.ErrNotFound):
		f.missing++
	default:
		f.failed++
	}
}
