package engine

import "context"

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
