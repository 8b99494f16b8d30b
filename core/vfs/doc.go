// Package vfs is the part of a file system that a Shoal disk needs, as an
// interface, so that tests can put something else in its place: [OS] is the
// real one, [NewMem] one in memory that knows what a loss of power leaves
// behind, and [WithHook] wraps either so that a test sees, fails or drops every
// single operation.
//
//	m := vfs.NewMem(vfs.MemOptions{})
//	n := 0
//	faulty := vfs.WithHook(m, func(op vfs.Op) error {
//		if n++; n == 7 {
//			return syscall.EIO // the seventh operation fails
//		}
//		return nil
//	})
//	... use faulty, then m.Crash(nil) to see what was durable
//
// Durability is that of POSIX read strictly: bytes are durable after Sync or
// SyncData of their file, names after SyncDir of their directory, and a new
// file needs both.
package vfs
