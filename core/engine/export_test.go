package engine

import (
	"context"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/remote"
)

// CommitIntent commits the intent of a key as an owner does that knows its row in a
// version.
func CommitIntent(ctx context.Context, n *Node, b core.Bucket, key string, knows core.Version, in *remote.Intent) error {
	bucket, err := n.remote(&b)
	if err != nil {
		return err
	}
	t := &writeTask{w: n.writers, name: objectName{b.ID, key}, slot: n.SlotOf(b.ID, key)}
	x := &remoteWrite{task: t, node: n, bucket: bucket, version: knows, intent: in}
	return x.write(ctx, core.Entry{}, in, false)
}

// What the steward asks of all nodes at a time while clients are served.
const (
	GentleMoves  = gentleMoves
	GentleOwners = gentleOwners
)

// ErrReplaced is the error of who does not know the present row.
var ErrReplaced = errReplaced

// SweepNow sweeps a node's disks of all shards that nobody names, however young.
func SweepNow(ctx context.Context, n *Node) error {
	for id, d := range n.localDisks() {
		if err := n.sweepDisk(ctx, id, d, 0); err != nil {
			return err
		}
	}
	return nil
}

// Doomed counts the shards that a node is about to delete.
func Doomed(n *Node) int {
	n.garbage.mu.Lock()
	defer n.garbage.mu.Unlock()
	return len(n.garbage.queue)
}

// MethodMutate is the call by which rows are written, MethodRemoteOpen that by which
// reads of remote objects begin.
const (
	MethodMutate     = methodMutate
	MethodRemoteOpen = methodRemoteOpen
)

// Used has a node take an object as last used at a time, zero: at no time that it
// knows.
func Used(n *Node, b core.BucketID, key string, at time.Time) {
	n.accesses.mu.Lock()
	defer n.accesses.mu.Unlock()
	if name := accessName(b, key); at.IsZero() {
		delete(n.accesses.at, name)
	} else {
		n.accesses.at[name] = uint32(at.Unix() / 60)
	}
}

// Reads says whether a call reads an object.
func Reads(method uint16) bool {
	return method == methodGet || method == methodRemoteGet || method == methodRemoteOpen || method == methodFetch
}
