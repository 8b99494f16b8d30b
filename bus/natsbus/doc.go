// Package natsbus is the bus over NATS: the only package that imports NATS.
//
// [Start] runs an embedded NATS server with JetStream, a coordinator of the
// bus. [Connect] gives a [Client], which every node has; with `bus.url` it is
// all there is. A [Coordinator] does what the cluster map in effect asks of a
// node: it runs the node's server, if it is to be one, carries the content of
// the bus over when the set of coordinators changes, and points the client to
// the present one. docs/bus.md describes that protocol.
//
//	client, err := natsbus.Connect(natsbus.ClientOptions{URLs: urls, Generation: 1, Name: "n1"})
//	if err != nil { ... }
//	defer client.Close()
//	value, rev, err := client.Map().Load(ctx)
package natsbus
