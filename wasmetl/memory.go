package wasmetl

import (
	"fmt"
	"syscall"

	"github.com/tetratelabs/wazero/experimental"

	"github.com/shoalstore/shoal/core"
)

// memory is the linear memory of an instance: a mapping as large as it may grow,
// outside of the Go heap, that the kernel fills as it is touched. Nothing is
// copied when it grows.
type memory struct {
	region []byte
	size   uint64
}

var _ interface {
	experimental.MemoryAllocator
	experimental.LinearMemory
} = (*memory)(nil)

func newMemory(limit int64) (*memory, error) {
	region, err := syscall.Mmap(-1, 0, int(limit), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON|mapNoReserve)
	if err != nil {
		return nil, fmt.Errorf("%w: map %d bytes for a transform: %w", core.ErrUnavailable, limit, err)
	}
	return &memory{region: region}, nil
}

// Allocate implements [experimental.MemoryAllocator].
func (m *memory) Allocate(uint64, uint64) experimental.LinearMemory { return m }

// Reallocate implements [experimental.LinearMemory]. Nil means that the memory
// cannot grow so far, which the guest sees.
func (m *memory) Reallocate(size uint64) []byte {
	if size > uint64(len(m.region)) {
		return nil
	}
	m.size = size
	return m.region[:size:size]
}

// Free implements [experimental.LinearMemory]. It may be called again.
func (m *memory) Free() {
	if m.region == nil {
		return
	}
	region := m.region
	m.region = nil
	if err := syscall.Munmap(region); err != nil {
		panic(fmt.Sprintf("wasmetl: unmap a memory: %v", err)) // it was mapped by newMemory
	}
}
