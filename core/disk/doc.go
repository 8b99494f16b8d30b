// Package disk keeps a Shoal disk: a directory with the records of slots, in a
// Pebble store, and with shards, one file each. [Disk] implements
// [core.RowStore] and [core.Store]; docs/disk-format.md specifies what is on it.
//
//	id, err := disk.Format(ctx, disk.FormatOptions{
//		Options: disk.Options{Dir: dir, Clock: clock, Cluster: cluster, Node: "n1"},
//	})
//	...
//	d, err := disk.Open(ctx, disk.Options{Dir: dir, Clock: clock, Cluster: cluster, Node: "n1"})
//	...
//	err = d.Apply(ctx, []core.SlotBatch{{Slot: 7, Append: entries}}) // durable now
//
// # What a disk promises
//
// What Apply or Commit returned for is there after a loss of power; what they
// did not return for may be there or not, but never in part. Bytes that were
// damaged are never returned as good: reads verify checksums, and fail with
// [core.ErrCorrupt]. What of a log can be damaged without a trace is said in
// docs/disk-format.md, under meta.seal.
//
// # Failure
//
// The first write, sync or change of a name that fails ends the disk's life as
// one that is written to: nothing is tried again, every later write fails with
// [core.ErrDiskFailed], and nothing more reaches the device. Reads go on. Only
// opening the disk anew, which is for the caller to decide, makes it take writes
// again. A full disk is no failure: writes are refused with [core.ErrNoSpace]
// while a reserve is still free, so that deletions go on working.
//
// # Reading
//
// Versions of a row that a committed one replaced are deleted with the commit.
// So a reader that asks for a version below the committed mark is given the row
// as of the mark, rather than nothing.
package disk
