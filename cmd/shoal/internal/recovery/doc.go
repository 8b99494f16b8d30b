// Package recovery decides how a cluster goes on that has lost for good what
// its own rules need: the bus, a majority of its voters, or all in-sync disks of
// a slot. It is pure: what the surviving nodes hold goes in as [Found], and a
// [Plan] comes out, with a new map and a list of what the operator must accept.
// Reading and writing the nodes' directories is nodeserver's.
//
// Why the outcome is safe is said in docs/protocol.md, "Recovery".
//
//	plan, err := recovery.Decide(found, recovery.Accept{OlderMap: true}, now)
//	if err == nil && len(plan.Refusals()) == 0 {
//		// write plan.Map to every node of it
//	}
package recovery
