// Package job runs jobs: work on many objects that is too long for a request.
//
// A job is a spec, which never changes, and a state that is moved by
// compare-and-set, both in the bus's KV. There is no scheduler. Every node sees
// the job and does the part that falls to it by the map: the objects of the
// slots that it owns. How far a slot is, and the counts, are a record in that
// slot, its cursor, so whoever owns the slot next goes on from there. What was
// done since the cursor was last written is done again, and is recognised as
// done by what its destination says of itself.
//
//	m := job.New(job.Options{Node: n, KV: client.Jobs(), Clock: clock, Log: log})
//	j, err := m.Start(ctx, job.Spec{Kind: "copy-bck", From: "shoal://a", To: "shoal://b"})
//
// The first voter that is heard keeps the books: it asks all nodes how far they
// are and moves the state, from planning to running when every slot was
// counted, to verifying when every slot is through, and to its end when an
// independent count agrees.
package job
