// Package sim runs whole clusters of slot.Node in one goroutine, under a fake
// clock and a seeded source of chance: disks that lose what was not synced,
// messages that are lost, repeated and overtake each other, partitions, pauses,
// restarts, a bus that is away or answers stale, and maps that change all the
// time. A run with a seed is the same every time.
//
//	report, err := sim.Run(sim.Options{Seed: 42})
//
// It checks, while it runs, that every committed record is on every in-sync
// disk, that at most one node per slot would answer a read, and that maps in
// effect form one chain; afterwards, that the history of each key is
// linearizable (listings included, as reads of every key), that the cluster
// recovers by itself, and that all in-sync copies agree.
package sim
