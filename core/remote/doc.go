// Package remote stands between the cluster and the backends of remote buckets.
// It has two halves, which docs/remote.md explains.
//
// The first is pure: what a write to a remote bucket does next. An [Intent] is the
// row that says that a key is being written; a [Machine] takes what came of the last
// step and says the next one. The owner of the key's slot carries them out:
//
//	m, err := remote.Start(present, intent, options) // or remote.Resume(intent, options)
//	var last remote.Answer
//	for {
//		do := m.Next(now(), last)
//		switch do.Kind {
//		case remote.Announce: // commit do.Intent as the key's intent, if it is still the one known
//		case remote.Head:     // last.Object, last.Err = backend.Head(...)
//		case remote.Put:      // send it under do.If, cut off at do.Until
//		case remote.Commit:   // one entry: the new record, do.Left as the intent, the answer
//		...
//		}
//	}
//
// The second half makes the requests: a [Client] limits, repeats and counts those
// to one backend, and a [Pool] opens backends as they are needed.
package remote
