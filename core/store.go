package core

import (
	"context"
	"io"
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
