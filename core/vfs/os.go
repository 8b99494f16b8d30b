package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// OS is the operating system's file system.
func OS() FS { return osFS{} }

type osFS struct{}

const (
	filePerm = 0o640
	dirPerm  = 0o750
)

func (osFS) Create(name string) (File, error) {
	return wrapOS(os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, filePerm))
}

func (osFS) Open(name string) (File, error) { return wrapOS(os.Open(name)) }

func (osFS) OpenReadWrite(name string) (File, error) {
	return wrapOS(os.OpenFile(name, os.O_RDWR|os.O_CREATE, filePerm))
}

func (osFS) Link(oldname, newname string) error   { return os.Link(oldname, newname) }
func (osFS) Rename(oldname, newname string) error { return os.Rename(oldname, newname) }

// RenameNew is an atomic rename where the kernel and the file system have one
// that does not replace; elsewhere a link, which never does.
func (osFS) RenameNew(oldname, newname string) error {
	err := renameNoReplace(oldname, newname)
	if !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if err := os.Link(oldname, newname); err != nil {
		return err
	}
	return os.Remove(oldname)
}

func (osFS) Remove(name string) error    { return os.Remove(name) }
func (osFS) RemoveAll(name string) error { return os.RemoveAll(name) }
func (osFS) MkdirAll(dir string) error   { return os.MkdirAll(dir, dirPerm) }

func (osFS) List(dir string) (names []string, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return f.Readdirnames(-1)
}

func (osFS) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }

func (osFS) SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, filePerm)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

type osFile struct{ *os.File }

func wrapOS(f *os.File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (f osFile) OSFile() *os.File { return f.File }
