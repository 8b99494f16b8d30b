package core

import (
	"context"
	"io"
)

// Target is a disk for a new shard: its number in the map, which is not 0, and its
// store. A Target without a store stands for no disk.
type Target struct {
	Disk  DiskID
	Store Store
}

// Localizer is an optional ability of a [Store]: to say that its disk is in
// this process. Readers prefer such a store where shards are equal.
type Localizer interface{ Local() bool }

// Coder is a scheme at work: it turns a stream of bytes into the shards of an
// extent and back. It knows stores, not nodes. All methods may be called
// concurrently; a ctx also bounds what was opened under it.
type Coder interface {
	// Scheme is the scheme that the coder implements.
	Scheme() Scheme
	// Write reads src to its end, or to w.Limit bytes, and keeps what it read
	// as one extent. It succeeds once at least w.Min shards are durable; the
	// extent names their places, and those of the others are zero (see
	// [Extent.Missing]). It does not wait for a store that stalls while the
	// rest suffices. With fewer shards it removes what it wrote and returns
	// ErrUnavailable; after an error of src it removes what it wrote and
	// returns that error. A src that is at its end at once is no error: the
	// extent then has Size 0, no places, and nothing is stored.
	Write(ctx context.Context, w WriteSpec, src io.Reader) (Extent, error)
	// Open opens an extent. It returns once as many shards are open as a
	// reader needs, a failing one replaced by another; with fewer it returns
	// ErrCorrupt if shards known to be damaged are the reason, and otherwise
	// ErrUnavailable.
	Open(ctx context.Context, r ReadSpec) (ExtentReader, error)
	// Repair makes the shards that r names anew and returns the extent with
	// their new places. It succeeds once at least r.Min of them are durable;
	// a shard that could not be made keeps its old place in the extent. With
	// fewer it removes what it wrote and returns an error.
	Repair(ctx context.Context, r RepairSpec) (Extent, error)
	// Wait returns once every call to a store has ended that was given up
	// because it did not answer. Call it after the last other call.
	Wait()
}

// WriteSpec says what [Coder.Write] is to write, and where.
type WriteSpec struct {
	// Extent is the extent's name; zero asks for a fresh one.
	Extent ExtentID
	// Meta goes into every shard; ID and Scheme are filled in.
	Meta ShardMeta
	// Dst has a disk for each shard of the scheme, by shard number. A
	// shard whose target has no store is missing from the start.
	Dst []Target
	// Substitute, if not nil, names another disk for a shard whose disk
	// failed or stalled while all of the extent so far is still in memory:
	// always at Create, and to the end for an extent of a few MiB. It is
	// asked again if that disk fails too, until it has none. It must not
	// block; calls do not overlap.
	Substitute func(shard int, failed Target, cause error) (Target, bool)
	// Min is the number of durable shards without which Write fails; 0 means
	// all of them.
	Min int
	// Limit, if above 0, is the largest number of bytes to take from src.
	Limit int64
	// Size is the number of bytes that src is expected to hold, -1 if
	// unknown. It is a hint.
	Size int64
}

// ReadSpec says what [Coder.Open] is to open, and from where.
type ReadSpec struct {
	Extent Extent
	// Src has the store of each shard, by shard number, nil where it is
	// missing or cannot be reached.
	Src []Store
	// OnFault, if not nil, is told once of each shard that turned out to be
	// unreadable, damaged (ErrCorrupt) or gone (ErrNotFound). It may be
	// called from any goroutine and must not block.
	OnFault func(shard int, err error)
}

// RepairSpec says which shards [Coder.Repair] is to make anew.
type RepairSpec struct {
	ReadSpec
	// Shards are the numbers of the shards to make. One that Src still has is
	// copied from there, at the price of reading only itself; without it, or
	// once that fails, it is built from the others.
	Shards []int
	// Dst has a disk for each of Shards, in the same order.
	Dst []Target
	// Substitute, Meta and Min are as in [WriteSpec]; Min 0 means all of
	// Shards.
	Substitute func(shard int, failed Target, cause error) (Target, bool)
	Meta       ShardMeta
	Min        int
}

// ExtentReader reads an open extent. Its readers may be used concurrently with
// each other. The caller closes it after them.
type ExtentReader interface {
	io.Closer
	// Size is the number of bytes in the extent.
	Size() int64
	// Reader reads the n bytes from off on, ahead of the caller within
	// bounds. It ends with io.EOF after exactly n bytes, or with an error. It
	// also is an [io.WriterTo]. It is to be used by one goroutine at a time;
	// the caller closes it.
	Reader(ctx context.Context, off, n int64) io.ReadCloser
}
