// Package bus is how the nodes of a cluster agree on the cluster map, share
// the control state of jobs, tell the world what happened and answer requests.
// Bytes of objects never travel on it.
//
// A bus offers
//
//   - a [Register]: the cluster map, one value moved by compare-and-set;
//   - a [KV]: specs and states of jobs;
//   - [Events]: CloudEvents, delivered to whoever listens at that moment;
//   - [Services]: requests that any node answers.
//
// Package natsbus implements them over NATS, package membus in memory with
// faults to order, and package bustest holds what both must fulfil. The
// protocol by which a bus grows from one coordinator to three and five is
// described in docs/bus.md.
//
// What a caller must know: a read may return an older value than the newest,
// even one older than an earlier read, because a coordinator that was
// suspended or damaged answers before it learns of that. Only an acknowledged
// write proves anything. Values carry their own epoch and checksum, and
// readers refuse what is older than what they have.
//
//	value, rev, err := reg.Load(ctx)
//	...
//	rev, err = reg.CompareAndSet(ctx, next(value), rev)
//	switch {
//	case errors.Is(err, core.ErrConflict):       // somebody else won: load again
//	case errors.Is(err, core.ErrUnavailable):    // nothing was written
//	case errors.Is(err, core.ErrUnknownOutcome): // load again and look
//	}
package bus
