package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"syscall"

	"github.com/shoalstore/shoal/core"
)

// ErrForeign says that a disk belongs to another cluster or node than the one
// that opens it, or that its parts belong to different disks.
var ErrForeign = errors.New("belongs elsewhere")

// ErrIdentity says that both copies of a disk's identity are damaged, so that
// nobody knows which disk it is. It comes with [core.ErrCorrupt].
var ErrIdentity = errors.New("both copies of its identity are damaged")

// CorruptError says where stored bytes do not match their checksum. It matches
// [core.ErrCorrupt].
type CorruptError struct {
	// Disk is the UUID of the disk.
	Disk string
	// Shard is the damaged shard, if it is one.
	Shard core.ShardID
	// Block is the number of the shard's damaged block, or -1 if what
	// describes the shard is damaged.
	Block int64
	// What is the part that is damaged, for people.
	What string
}

func (e *CorruptError) Error() string {
	if e.Shard == (core.ShardID{}) {
		return fmt.Sprintf("disk %s: %s: %v", e.Disk, e.What, core.ErrCorrupt)
	}
	return fmt.Sprintf("disk %s: shard %s: %s: %v", e.Disk, e.Shard, e.What, core.ErrCorrupt)
}

func (e *CorruptError) Unwrap() error { return core.ErrCorrupt }

// failure is the state from which a disk does not come back: the first error
// of a write stops all later ones, for what the device has after it is unknown.
type failure struct {
	mu    sync.Mutex
	cause error
	done  chan struct{}
}

func newFailure() *failure { return &failure{done: make(chan struct{})} }

// fail marks the disk failed unless it is already.
func (f *failure) fail(cause error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cause == nil {
		f.cause = cause
		close(f.done)
	}
}

func (f *failure) failed() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// err is nil, or what a caller gets to see: ErrDiskFailed and the cause.
func (f *failure) err() error {
	if !f.failed() {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if isNoSpace(f.cause) {
		return fmt.Errorf("%w: a write failed; open the disk again once there is space: %w: %w",
			core.ErrDiskFailed, core.ErrNoSpace, f.cause)
	}
	return fmt.Errorf("%w: a write failed; the disk must be checked and opened again: %w", core.ErrDiskFailed, f.cause)
}

// isNoSpace says whether an operation failed for want of space, which leaves
// what was stored before as it was.
func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// isIOError says whether err tells something about the device, rather than
// about a name.
func isIOError(err error) bool {
	return err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) &&
		!errors.Is(err, fs.ErrClosed) && !errors.Is(err, errors.ErrUnsupported) && !isNoSpace(err)
}

// gate lets Close wait for the calls under way and refuses later ones.
type gate struct {
	mu     sync.Mutex
	inside int
	closed bool
	empty  chan struct{} // closed when the last call has left a closed gate
}

func newGate() *gate { return &gate{empty: make(chan struct{})} }

func (g *gate) enter() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return fmt.Errorf("the disk is closed: %w", core.ErrUnavailable)
	}
	g.inside++
	return nil
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside--; g.closed && g.inside == 0 {
		close(g.empty)
	}
}

// shut closes the gate, waits until nobody is inside, and says whether this
// call was the one that closed it.
func (g *gate) shut() bool {
	g.mu.Lock()
	first := !g.closed
	g.closed = true
	if first && g.inside == 0 {
		close(g.empty)
	}
	g.mu.Unlock()
	<-g.empty
	return first
}
