// Package peer is how nodes talk to each other: messages, calls and streams
// over TCP, with or without TLS, between nodes that prove to each other that
// they know the cluster's secret. PROTOCOL.md specifies what is on the wire.
//
//   - [Transport.Send] sends a small message. It never blocks; messages arrive
//     in order, each at most once, and are lost when a connection breaks.
//   - [Transport.Call] asks and waits for the answer, many at once.
//   - [Transport.OpenWrite] and [Transport.OpenRead] move bulk data, each over
//     a connection of its own, taken from a pool. [Transport.Store] is a
//     [core.Store] of another node made of them.
//
// What is addressed to the node itself is served without a connection.
//
//	t, err := peer.New(peer.Options{
//		Cluster: id, Self: "n1", Secret: secret, Listener: l, Resolve: addresses, Clock: clock,
//	})
//	if err != nil {
//		return err
//	}
//	t.Handle(protocol)
//	t.ServeStores(disks.Store)
//	go t.Run(ctx) // and wait for it
//	...
//	err = t.Store("n2", 7).Delete(ctx, shard)
package peer
