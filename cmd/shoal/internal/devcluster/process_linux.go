package devcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Process is a process that is known again later: ids are used again, an id
// with its start time within one boot of the machine is not.
type Process struct {
	PID int `json:"pid"`
	// Start is the start time in clock ticks since the boot.
	Start uint64 `json:"start"`
	Boot  string `json:"boot"`
}

const (
	sigKill = unix.SIGKILL
	sigTerm = unix.SIGTERM
	sigStop = unix.SIGSTOP
	sigCont = unix.SIGCONT
)

// identify returns the process that has the id now.
func identify(pid int) (Process, error) {
	boot, err := bootID()
	if err != nil {
		return Process{}, err
	}
	start, _, err := stat(pid)
	return Process{PID: pid, Start: start, Boot: boot}, err
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// stat reads a process's start time and its state letter.
func stat(pid int) (start uint64, state byte, err error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, err
	}
	// The second field is the command in parentheses, which may hold anything.
	_, rest, ok := strings.Cut(string(b[max(strings.LastIndexByte(string(b), ')'), 0):]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return 0, 0, fmt.Errorf("process %d: unknown form of stat", pid)
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return start, fields[0][0], err
}

// alive says whether the process runs, and whether it is frozen. One that has
// ended and was not reaped does not run.
func (p Process) alive() (alive, paused bool) {
	if p.PID <= 0 {
		return false, false
	}
	if boot, err := bootID(); err != nil || boot != p.Boot {
		return false, false
	}
	start, state, err := stat(p.PID)
	if err != nil || start != p.Start || state == 'Z' || state == 'X' {
		return false, false
	}
	return true, state == 'T'
}

// open returns a descriptor of the process, or os.ErrProcessDone. The
// descriptor is of whoever has the id; that this is the process is checked
// after it is held, so that no other process can get the id in between.
func (p Process) open() (int, error) {
	if p.PID <= 0 {
		return -1, os.ErrProcessDone
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return -1, os.ErrProcessDone
	}
	if err != nil {
		return -1, fmt.Errorf("process %d: %w", p.PID, err)
	}
	now, err := identify(p.PID)
	if err != nil || now != p {
		_ = unix.Close(fd)
		return -1, os.ErrProcessDone
	}
	return fd, nil
}

// signal sends a signal to this process and no other. A process that has ended
// is os.ErrProcessDone.
func (p Process) signal(s unix.Signal) error {
	fd, err := p.open()
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	err = unix.PidfdSendSignal(fd, s, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// wait returns when the process has ended, reaped or not.
func (p Process) wait(ctx context.Context) error {
	fd, err := p.open()
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	for ctx.Err() == nil {
		// The descriptor becomes readable at the end; ctx is looked at in between.
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 50)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for process %d: %w", p.PID, err)
		}
		if n > 0 {
			return nil
		}
	}
	return context.Cause(ctx)
}

// reap takes the exit status of a process that this one has started, if it has
// ended.
func (p Process) reap() {
	if p.PID > 0 {
		var status unix.WaitStatus
		_, _ = unix.Wait4(p.PID, &status, unix.WNOHANG, nil) // no child: nothing to do
	}
}
