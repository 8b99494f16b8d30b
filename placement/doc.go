// Package placement says where things are: which slot a key belongs to, which
// disks should keep a slot's records and an object's shards, and how the
// cluster map changes when nodes and disks come, go and fail. All of it is
// pure: the same arguments give the same answer on every node, and time comes
// in as an argument.
//
//	p := placement.New(m)                              // once per map
//	slot := placement.SlotOf(b.ID, key, len(m.Slots))  // whose owner has the record
//	disks := p.Shards(b.ID, key, b.Policy)             // proposed places, by shard number
//
// # Rendezvous hashing
//
// Every disk has a score for every item, and the best ones are chosen (highest
// random weight: Thaler and Ravishankar, "Using Name-Based Mappings to Increase
// Hit Rates", IEEE/ACM Transactions on Networking 6(1), 1998). With h a hash of
// item and disk in (0, 1), the score -w/ln(h) makes a disk of weight w the best
// one with probability w / sum of all w (Schindelhauer and Schomaker, "Weighted
// Distributed Hash Tables", SPAA 2005; Resch, "New Hashing Algorithms for Data
// Storage", SNIA SDC 2015). Compared is its reciprocal, the cost: a sample of
// the exponential distribution with rate w, of which the lowest wins.
//
// The hierarchy of zones, nodes and disks needs no scores of its own. The
// least of several exponential samples is exponential with the sum of their
// rates, so the cost of a node is that of its best disk, and its weight is the
// sum of its disks' weights, all by itself. Disks are chosen one after the
// other: among those on the nodes that have the fewest of the item so far,
// among these in the zones that have the fewest, the one of least cost.
//
// This flat form is what keeps movement minimal. A disk that comes, or whose
// weight grows, takes from each item at most one place, always for itself; a
// disk that goes, or whose weight shrinks, gives each of its places to one
// other disk; nothing else moves. A tree of separately hashed levels does not
// have that property: a new disk would raise its node's share, and three
// quarters of what then moved to a node of four disks would land on the three
// old ones.
//
// Its price is known. Chance spreads what is few: with 4,096 slots a disk that
// should have 819 of the 12,288 places has them within a standard deviation of
// 3 %; with 100,000 objects it is a few tenths of that. And where an item takes
// a large part of all nodes, the nodes' shares lie between their weights and
// equality, because no node is taken twice before all are taken once: exact for
// equal nodes whatever their disks, 5 % off for three replicas on twelve nodes
// of weights 1 to 2, but a node twice as heavy as its four peers holds 0.8 of
// all slots of three replicas, not all of them.
//
// # The map
//
// [Initial] makes the first map, [Apply] the successor of a map by a list of
// changes, and [Plan] says which changes bring the slot table where rendezvous
// hashing wants it, a step at a time, never below the redundancy there is.
package placement
