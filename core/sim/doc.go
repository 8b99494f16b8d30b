// Package sim runs whole clusters of slot.Node in one goroutine, under a fake
// clock and a seeded source of chance: disks that lose what was not synced,
// messages that are lost, repeated and overtake each other, partitions, pauses,
// restarts, a bus that is away or answers stale, and maps that change all the
// time. A run with a seed is the same every time.
//
//	report, err := sim.Run(sim.Options{Seed: 42})
//
// It checks, while it runs, that every committed record is on every in-sync
// disk, that at most one node per slot would answer a read, that maps in effect
// form one chain, that an in-sync set grows by its owner's word only, that disks
// apply without gaps, and that no shard of a committed record is deleted;
// afterwards, that the history of each key is linearizable (listings included,
// as reads of every key), that the cluster recovers by itself, and that all
// in-sync copies agree. An alarm of the protocol is a failure, unless the bus
// forgot what it had taken.
package sim
