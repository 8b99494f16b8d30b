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
