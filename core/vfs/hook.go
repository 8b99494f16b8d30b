package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// OpKind names an operation of a file system.
type OpKind string

// The operations.
const (
	OpCreate   OpKind = "create"
	OpOpen     OpKind = "open"
	OpRead     OpKind = "read"
	OpWrite    OpKind = "write"
	OpTruncate OpKind = "truncate"
	OpAllocate OpKind = "allocate"
	OpSync     OpKind = "sync"
	OpSyncDir  OpKind = "syncdir"
	OpRename   OpKind = "rename"
	OpLink     OpKind = "link"
	OpRemove   OpKind = "remove"
	OpMkdir    OpKind = "mkdir"
	OpList     OpKind = "list"
	OpStat     OpKind = "stat"
	OpLock     OpKind = "lock"
	OpUsage    OpKind = "usage"
	OpClose    OpKind = "close"
)

// Changes says whether the operation can change what is stored.
func (k OpKind) Changes() bool {
	switch k {
	case OpCreate, OpWrite, OpTruncate, OpAllocate, OpSync, OpSyncDir, OpRename, OpLink, OpRemove, OpMkdir:
		return true
	default:
		return false
	}
}

// Op is an operation about to happen.
type Op struct {
	Kind OpKind
	// Name is the file or directory; the new name of a rename or link.
	Name string
}

// ErrSkip is what a hook returns to leave an operation out and report success:
// a disk that lies.
var ErrSkip = errors.New("operation left out")

// ErrTorn is what a hook returns to make an [OpWrite] write half of its bytes
// and fail. Other operations just fail with it.
var ErrTorn = errors.New("operation torn")

// WithHook calls hook before each operation on fsys. An error that it returns
// becomes the operation's, which then does not happen. The hook must be safe
// for concurrent use.
func WithHook(fsys FS, hook func(Op) error) FS { return hookFS{fsys, hook} }

type hookFS struct {
	fs   FS
	hook func(Op) error
}

// do runs an operation that returns an error only.
func (h hookFS) do(kind OpKind, name string, run func() error) error {
	switch err := h.hook(Op{kind, name}); {
	case errors.Is(err, ErrSkip):
		return nil
	case err != nil:
		return &fs.PathError{Op: string(kind), Path: name, Err: err}
	}
	return run()
}

// get runs an operation that cannot be left out.
func get[T any](h hookFS, kind OpKind, name string, run func() (T, error)) (T, error) {
	if err := h.hook(Op{kind, name}); err != nil {
		var none T
		return none, &fs.PathError{Op: string(kind), Path: name, Err: err}
	}
	return run()
}

func (h hookFS) open(kind OpKind, name string, open func(string) (File, error)) (File, error) {
	f, err := get(h, kind, name, func() (File, error) { return open(name) })
	if err != nil {
		return nil, err
	}
	return &hookFile{f: f, h: h, name: name}, nil
}

func (h hookFS) Create(name string) (File, error) { return h.open(OpCreate, name, h.fs.Create) }
func (h hookFS) Open(name string) (File, error)   { return h.open(OpOpen, name, h.fs.Open) }

func (h hookFS) CreateDirect(name string) (File, error) {
	return h.open(OpCreate, name, h.fs.CreateDirect)
}

func (h hookFS) OpenReadWrite(name string) (File, error) {
	return h.open(OpCreate, name, h.fs.OpenReadWrite)
}

func (h hookFS) Link(oldname, newname string) error {
	return h.do(OpLink, newname, func() error { return h.fs.Link(oldname, newname) })
}

func (h hookFS) Rename(oldname, newname string) error {
	return h.do(OpRename, newname, func() error { return h.fs.Rename(oldname, newname) })
}

func (h hookFS) RenameNew(oldname, newname string) error {
	return h.do(OpRename, newname, func() error { return h.fs.RenameNew(oldname, newname) })
}

func (h hookFS) Remove(name string) error {
	return h.do(OpRemove, name, func() error { return h.fs.Remove(name) })
}

func (h hookFS) RemoveAll(name string) error {
	return h.do(OpRemove, name, func() error { return h.fs.RemoveAll(name) })
}

func (h hookFS) MkdirAll(dir string) error {
	return h.do(OpMkdir, dir, func() error { return h.fs.MkdirAll(dir) })
}

func (h hookFS) SyncDir(dir string) error {
	return h.do(OpSyncDir, dir, func() error { return h.fs.SyncDir(dir) })
}

func (h hookFS) List(dir string) ([]string, error) {
	return get(h, OpList, dir, func() ([]string, error) { return h.fs.List(dir) })
}

func (h hookFS) Stat(name string) (fs.FileInfo, error) {
	return get(h, OpStat, name, func() (fs.FileInfo, error) { return h.fs.Stat(name) })
}

func (h hookFS) Lock(name string) (io.Closer, error) {
	return get(h, OpLock, name, func() (io.Closer, error) { return h.fs.Lock(name) })
}

func (h hookFS) Usage(dir string) (Usage, error) {
	return get(h, OpUsage, dir, func() (Usage, error) { return h.fs.Usage(dir) })
}

type hookFile struct {
	f    File
	h    hookFS
	name string
}

func (f *hookFile) transfer(kind OpKind, p []byte, run func([]byte) (int, error)) (int, error) {
	switch err := f.h.hook(Op{kind, f.name}); {
	case errors.Is(err, ErrSkip):
		return len(p), nil
	case errors.Is(err, ErrTorn) && kind == OpWrite:
		n, werr := run(p[:len(p)/2])
		return n, errors.Join(&fs.PathError{Op: string(kind), Path: f.name, Err: err}, werr)
	case err != nil:
		return 0, &fs.PathError{Op: string(kind), Path: f.name, Err: err}
	}
	return run(p)
}

func (f *hookFile) Read(p []byte) (int, error)  { return f.transfer(OpRead, p, f.f.Read) }
func (f *hookFile) Write(p []byte) (int, error) { return f.transfer(OpWrite, p, f.f.Write) }

func (f *hookFile) ReadAt(p []byte, off int64) (int, error) {
	return f.transfer(OpRead, p, func(p []byte) (int, error) { return f.f.ReadAt(p, off) })
}

func (f *hookFile) ReadNow(p []byte, off int64) (int, error) {
	return f.transfer(OpRead, p, func(p []byte) (int, error) { return f.f.ReadNow(p, off) })
}

func (f *hookFile) WriteAt(p []byte, off int64) (int, error) {
	return f.transfer(OpWrite, p, func(p []byte) (int, error) { return f.f.WriteAt(p, off) })
}

func (f *hookFile) Stat() (fs.FileInfo, error) { return get(f.h, OpStat, f.name, f.f.Stat) }
func (f *hookFile) Sync() error                { return f.h.do(OpSync, f.name, f.f.Sync) }
func (f *hookFile) SyncData() error            { return f.h.do(OpSync, f.name, f.f.SyncData) }

func (f *hookFile) Truncate(size int64) error {
	return f.h.do(OpTruncate, f.name, func() error { return f.f.Truncate(size) })
}

// StartSync is not an operation of its own: it promises nothing.
func (f *hookFile) StartSync(off, n int64) error { return f.f.StartSync(off, n) }

func (f *hookFile) Allocate(off, n int64) error {
	return f.h.do(OpAllocate, f.name, func() error { return f.f.Allocate(off, n) })
}

func (f *hookFile) Prefetch(off, n int64) { f.f.Prefetch(off, n) }
func (f *hookFile) OSFile() *os.File      { return f.f.OSFile() }

// Close closes the file whatever the hook says, so that tests leak nothing.
func (f *hookFile) Close() error {
	err := f.f.Close()
	return f.h.do(OpClose, f.name, func() error { return err })
}
