package core

import (
	"context"
	"io"
	"os"
	"time"
)

// ShardMeta is what a shard's file says of itself, so that a lost index can be
// built again.
type ShardMeta struct {
	ID      ShardID
	Bucket  BucketID
	Key     string
	Request RequestID
	Scheme  Scheme
}

// ShardInfo describes a stored shard.
type ShardInfo struct {
	ShardMeta
	Size int64 // bytes of content
	// Age is the time since the shard was committed, in seconds, by the
	// disk's own reckoning.
	Age int64
}

// Vitals say how a disk fares, since it was opened.
type Vitals struct {
	// Err is why the disk takes no more writes, nil while it does.
	Err error
	// ReadErrors counts reads that the device failed, ReadError is the last of
	// these errors. Damaged is what rows were found to be damaged by, nil if none
	// were; damage of shards does not count, it is mended shard by shard.
	ReadErrors int64
	ReadError  error
	Damaged    error
	// Ops and Busy count the writes and syncs that have ended, and their time.
	Ops  int64
	Busy time.Duration
	// Running names the operations under way, as far as they are followed; a
	// name is never used again.
	Running []uint64
}

// Store keeps immutable shards on one disk, which may be another node's. A
// shard exists from its writer's Commit on. All methods may be called
// concurrently; a ctx also bounds the streams opened under it.
type Store interface {
	// Create begins a shard. It fails with ErrNoSpace, ErrDiskFailed or
	// ErrUnavailable. size is the expected length or -1; it is a hint.
	Create(ctx context.Context, m ShardMeta, size int64) (ShardWriter, error)
	// Open opens a committed shard, or fails with ErrNotFound.
	Open(ctx context.Context, id ShardID) (ShardReader, error)
	// Delete removes a shard; one that is not there is no error. Readers
	// that have it open go on.
	Delete(ctx context.Context, id ShardID) error
}

// ShardWriter writes one shard from front to end. Close without Commit
// discards it. Commit returns once the shard is durable and can be opened; its
// error, or any of Write's, is final.
type ShardWriter interface {
	io.WriteCloser
	Commit(ctx context.Context) error
}

// ShardReader reads a shard; every byte returned has been verified against its
// block's checksum, a mismatch is ErrCorrupt. ReadAt has io.ReaderAt's contract
// and may be called concurrently.
type ShardReader interface {
	io.Closer
	Size() int64
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
}

// NowOpener is an optional ability of a [Store]: to open a shard without waiting
// for a device or another node. Where that cannot be done at once, or the shard
// is not there, it returns false, and nothing is known.
type NowOpener interface {
	OpenNow(ctx context.Context, id ShardID) (ShardReader, bool)
}

// NowReader is an optional ability of a [ShardReader]: to read bytes that are in
// memory already, verified, without waiting. It fills p and returns true, or it
// returns false, p holds anything, and nothing is known. It may be called
// concurrently.
type NowReader interface {
	ReadNow(p []byte, off int64) bool
}

// Sectioner is an optional ability of a [ShardReader] or an [ExtentReader]: to
// give out the file that holds the content, for sending it without reading it.
// Nothing is verified then. The file stays the reader's, which must be closed
// later; until then the file's position is the caller's. ok is false if there is
// no such file.
type Sectioner interface {
	Section() (s Section, ok bool)
}

// Section says where content is: in a file, from Off on.
type Section struct {
	File *os.File
	Off  int64
}
