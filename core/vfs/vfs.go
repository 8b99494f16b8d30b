package vfs

import (
	"io"
	"io/fs"
	"os"
)

// Alignment is what the offsets, lengths and memory addresses of writes to a
// file from [FS.CreateDirect] are multiples of.
const Alignment = 4096

// FS is a file system. Names are paths of the operating system. All methods
// may be called concurrently. Errors carry the causes of package syscall and
// io/fs: a missing name matches fs.ErrNotExist, a full device syscall.ENOSPC.
type FS interface {
	// Create makes a new file, open for reading and writing. A name that is
	// taken is fs.ErrExist.
	Create(name string) (File, error)
	// CreateDirect is Create for a file whose writes bypass the page cache;
	// see [Alignment]. Where that cannot be had it fails with
	// errors.ErrUnsupported and leaves nothing behind.
	CreateDirect(name string) (File, error)
	// Open opens a file for reading.
	Open(name string) (File, error)
	// OpenReadWrite opens a file for reading and writing, and makes it if it
	// is not there.
	OpenReadWrite(name string) (File, error)

	// Link gives a file a second name, which must not be taken.
	Link(oldname, newname string) error
	// Rename replaces what newname was, if anything.
	Rename(oldname, newname string) error
	// RenameNew is Rename that fails with fs.ErrExist if newname is taken.
	RenameNew(oldname, newname string) error
	// Remove removes a file or an empty directory.
	Remove(name string) error
	// RemoveAll removes a tree; one that is not there is no error.
	RemoveAll(name string) error
	// MkdirAll makes a directory and its parents as far as they are missing.
	MkdirAll(dir string) error

	// List returns the names in a directory, in no particular order.
	List(dir string) ([]string, error)
	Stat(name string) (fs.FileInfo, error)
	// SyncDir makes the names in a directory durable.
	SyncDir(dir string) error
	// Lock takes an exclusive lock on a file, which is made if it is not
	// there, until the result is closed or the process ends. If another
	// holder has it, in this process or another, it fails with
	// syscall.EWOULDBLOCK at once.
	Lock(name string) (io.Closer, error)
	// Usage returns the size of the file system that holds dir.
	Usage(dir string) (Usage, error)
}

// Usage is how full a file system is, in bytes.
type Usage struct {
	Total int64
	// Free is what an ordinary user may still write.
	Free int64
}

// File is an open file. ReadAt and WriteAt may be called concurrently; Read
// and Write move the file's own position.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.WriterAt
	io.Closer
	// ReadNow is ReadAt for bytes that are in memory already. Where it would
	// have to wait for the device it returns what it has and syscall.EAGAIN;
	// where there is no such thing, errors.ErrUnsupported.
	ReadNow(p []byte, off int64) (int, error)
	Stat() (fs.FileInfo, error)
	Truncate(size int64) error
	// Sync makes the file's bytes and metadata durable. After an error it is
	// unknown which bytes are, and a second Sync proves nothing.
	Sync() error
	// SyncData is Sync without the metadata that no reader needs.
	SyncData() error
	// StartSync begins to write a range to the device and does not wait. It
	// makes nothing durable; where there is no such thing it does nothing.
	StartSync(off, n int64) error
	// Allocate reserves space for a range without changing the file's size.
	// Where there is no such thing it does nothing.
	Allocate(off, n int64) error
	// Prefetch asks for a range to be read ahead of use.
	Prefetch(off, n int64)
	// OSFile is the open file behind this one, or nil if there is none. It
	// must not be closed, nor written.
	OSFile() *os.File
}
