package cloudtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// listeningPort is the TCP port that a process listens at, 0 if there is none
// yet. It is found as ss(8) finds it: the process's open sockets among those in
// state LISTEN.
func listeningPort(pid int) (int, error) {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	sockets, err := openSockets(filepath.Join(proc, "fd"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // it has ended, which the caller sees
	}
	if err != nil {
		return 0, err
	}
	f, err := os.Open(filepath.Join(proc, "net", "tcp"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
		const local, state, inode = 1, 3, 9
		f := strings.Fields(lines.Text())
		if len(f) <= inode || f[state] != "0A" || !sockets[f[inode]] {
			continue
		}
		_, hex, _ := strings.Cut(f[local], ":")
		port, err := strconv.ParseUint(hex, 16, 16)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", f[local], err)
		}
		return int(port), nil
	}
	return 0, nil
}

// openSockets are the inodes of the sockets in a /proc/PID/fd.
func openSockets(dir string) (map[string]bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	sockets := map[string]bool{}
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // closed in the meantime
		}
		if inode, ok := strings.CutPrefix(to, "socket:["); ok {
			sockets[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return sockets, nil
}

// pause waits for d, or until ctx ends, whose error it then returns.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-t.Done()
	return ctx.Err()
}
