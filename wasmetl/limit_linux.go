package wasmetl

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// limitProcess lets this process use so many seconds of CPU time in all, and so
// many more bytes of address space than it has.
func limitProcess(cpuSeconds, memory int64) error {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(statm), " ")
	pages, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return fmt.Errorf("/proc/self/statm: %w", err)
	}
	space := uint64(pages*int64(os.Getpagesize()) + memory)
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: space, Max: space}); err != nil {
		return fmt.Errorf("address space: %w", err)
	}
	cpu := uint64(cpuSeconds)
	if err := syscall.Setrlimit(syscall.RLIMIT_CPU, &syscall.Rlimit{Cur: cpu, Max: cpu}); err != nil {
		return fmt.Errorf("CPU time: %w", err)
	}
	// The node's work comes first. A process that may not give way works all the same.
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, 5)
	return nil
}
