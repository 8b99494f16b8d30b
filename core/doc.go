// Package core is Shoal's vocabulary: names, versions, the cluster map, an
// object's record, error values and the few interfaces that more than one
// package implements. It does no I/O and imports the standard library only.
//
// The words are those of the design: an object is a [Record], kept by every
// disk of its slot's in-sync set, and shards, immutable pieces of its data
// that the record names by disk. The [Map] says which disks serve which slot.
//
//	b, _ := core.ParseURI("shoal://data/train/0001.tar")
//	fmt.Println(b.Bucket, b.Key) // shoal://data train/0001.tar
package core
