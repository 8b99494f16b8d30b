// Package engine is a node: it drives the pure protocol of core/slot with real
// disks, peers and a bus, and builds the object layer, core.Objects, on it.
//
// A request goes through three parts. The gateway side, on the node that has
// the client, places and streams shards and talks to owners (objects.go,
// router.go). The owner side checks conditions and proposes writes for the
// slots that this node owns (owner.go). The driver turns what the protocol asks
// for into disk batches and messages (driver.go). Beside them run the mapkeeper,
// which proposes changes of the map (mapkeeper.go), the steward, which says
// which changes are due (steward.go), and reconcile, which makes what is stored
// equal to what the map and the policies ask for (reconcile.go).
package engine
