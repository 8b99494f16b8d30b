// Package slot is the protocol by which a slot's records stay one truth: a
// primary with an in-sync set that a chain of maps keeps, after PacificA (Lin
// et al., 2008), with leases from voters.
//
// It is pure: a [Node] takes maps, messages, ticks and completions, each with
// the node's own time, and gives messages to send, changes to make durable,
// stretches of history to read and changes of the map to propose. It starts no
// goroutine, reads no clock, does no I/O. The engine drives it with real disks
// and peers, the simulator (core/sim) with faulty ones; both run this code.
//
//	n := slot.New(slot.Config{ID: "n1", Boot: boot})
//	n.AddDisk(now, 1, loaded)
//	n.SeeMap(now, m)
//	g, err := n.Serving(now, s) // then look at the rows
//	id, err := n.Propose(now, g, core.Entry{Rows: rows}, slot.Need{Domains: 2})
//	for _, m := range n.Take().Sends { ... }
//
// The protocol is described in docs/protocol.md, which names the rules that the
// comments here refer to. A Node is not safe for concurrent use.
package slot
