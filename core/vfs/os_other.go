//go:build unix && !linux

package vfs

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func (osFS) CreateDirect(name string) (File, error) {
	return nil, &os.PathError{Op: "open direct", Path: name, Err: errors.ErrUnsupported}
}

func renameNoReplace(_, _ string) error { return errors.ErrUnsupported }

func lockFile(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }

func (osFS) Usage(dir string) (Usage, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return Usage{}, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	unit := int64(s.Bsize)
	return Usage{Total: int64(s.Blocks) * unit, Free: int64(s.Bavail) * unit}, nil
}

func (f osFile) ReadNow([]byte, int64) (int, error) {
	return 0, &os.PathError{Op: "read now", Path: f.Name(), Err: errors.ErrUnsupported}
}

func (f osFile) SyncData() error          { return f.Sync() }
func (osFile) StartSync(_, _ int64) error { return nil }
func (osFile) Allocate(_, _ int64) error  { return nil }
func (osFile) Prefetch(_, _ int64)        {}
