// Package e2e holds tests that run real clusters: processes of the program,
// started, killed, frozen and restarted, with ordinary clients before them.
//
//	go test ./cmd/shoal/e2e
//
// SHOAL_BIN names the program to test; it is built if that is unset.
// SHOAL_E2E_SEED repeats the random choices of an earlier run, and
// SHOAL_E2E_LONG=1 also runs what takes minutes.
package e2e
