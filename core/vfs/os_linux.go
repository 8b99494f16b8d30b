package vfs

import (
	"errors"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

func (osFS) CreateDirect(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_DIRECT, filePerm)
	if errors.Is(err, unix.EINVAL) {
		// Some file systems make the file before they refuse the flag.
		if rerr := os.Remove(name); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			return nil, rerr
		}
		return nil, &os.PathError{Op: "open direct", Path: name, Err: errors.ErrUnsupported}
	}
	return wrapOS(f, err)
}

func renameNoReplace(oldname, newname string) error {
	err := unix.Renameat2(unix.AT_FDCWD, oldname, unix.AT_FDCWD, newname, unix.RENAME_NOREPLACE)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return errors.ErrUnsupported
	}
	return &os.LinkError{Op: "rename", Old: oldname, New: newname, Err: err}
}

func lockFile(f *os.File) error {
	return control(f, "flock", func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
}

func (osFS) Usage(dir string) (Usage, error) {
	var s unix.Statfs_t
	if err := retryEINTR(func() error { return unix.Statfs(dir, &s) }); err != nil {
		return Usage{}, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	unit := int64(s.Frsize) //nolint:unconvert // it is an int32 on 32-bit machines
	return Usage{Total: int64(s.Blocks) * unit, Free: int64(s.Bavail) * unit}, nil
}

// ReadNow calls preadv2 with RWF_NOWAIT. Interrupted reads are not tried again:
// to wait is what the caller does not want.
func (f osFile) ReadNow(p []byte, off int64) (int, error) {
	for n := 0; ; {
		if n == len(p) {
			return n, nil
		}
		m, err := unix.Preadv2(int(f.Fd()), [][]byte{p[n:]}, off+int64(n), unix.RWF_NOWAIT)
		runtime.KeepAlive(f.File)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return n, unix.EAGAIN
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return n, &os.PathError{Op: "preadv2", Path: f.Name(), Err: errors.ErrUnsupported}
		case err != nil:
			return n, &os.PathError{Op: "preadv2", Path: f.Name(), Err: err}
		case m == 0:
			return n, io.EOF
		}
		n += m
	}
}

func (f osFile) SyncData() error {
	return control(f.File, "fdatasync", unix.Fdatasync)
}

func (f osFile) StartSync(off, n int64) error {
	return control(f.File, "sync_file_range", func(fd int) error {
		return unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE)
	})
}

func (f osFile) Allocate(off, n int64) error {
	err := control(f.File, "fallocate", func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

func (f osFile) Prefetch(off, n int64) {
	_ = control(f.File, "fadvise", func(fd int) error {
		return unix.Fadvise(fd, off, n, unix.FADV_WILLNEED)
	})
}

// control runs a system call on an open file that cannot be closed meanwhile.
func control(f *os.File, op string, call func(fd int) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return &os.PathError{Op: op, Path: f.Name(), Err: err}
	}
	var cerr error
	if err := c.Control(func(fd uintptr) {
		cerr = retryEINTR(func() error { return call(int(fd)) })
	}); err != nil {
		return &os.PathError{Op: op, Path: f.Name(), Err: err}
	}
	if cerr != nil {
		return &os.PathError{Op: op, Path: f.Name(), Err: cerr}
	}
	return nil
}

func retryEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
