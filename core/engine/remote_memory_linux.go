package engine

import "syscall"

// mapMemory returns n bytes outside of the Go heap, which the kernel provides as they
// are touched; nil if it does not.
func mapMemory(n int) []byte {
	b, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON|syscall.MAP_NORESERVE)
	if err != nil {
		return nil
	}
	return b
}

// forgetMemory gives the memory behind what was mapped back to the kernel. If that
// will not have it, it stays.
func forgetMemory(b []byte) { _ = syscall.Madvise(b, syscall.MADV_DONTNEED) }
