package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/blob"
	pvfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/vfs"
)

// pebbleFS is the file system as Pebble sees it. It serves two ends.
//
// Pebble ends the process where it cannot write: by design for its log and
// manifest (where some paths unlock a mutex that is not locked, which nothing can
// recover from), by a nil pointer where the last write of a blob file fails. A
// disk must fail alone. So the first error of a write is not shown to Pebble: it
// marks the disk failed, and from then on nothing that Pebble does reaches the
// disk. Logs are swallowed, tables go to memory, so that the store keeps serving
// reads while all that made it to the disk stays as it was. Whoever waits for a
// commit looks at the mark afterwards; see [Disk.Apply].
//
// And each sync of a log is noted in the seal.
type pebbleFS struct {
	fs   vfs.FS
	dir  string
	fail *failure
	seal *seal

	mu sync.Mutex
	// over holds the files that were made after the failure.
	over  pvfs.FS
	names map[string]bool
}

func newPebbleFS(fsys vfs.FS, dir string, fail *failure, s *seal) *pebbleFS {
	return &pebbleFS{fs: fsys, dir: dir, fail: fail, seal: s, names: map[string]bool{}}
}

// change runs an operation that changes the disk. It always succeeds: see
// [pebbleFS].
func (p *pebbleFS) change(run func() error) error {
	if p.fail.failed() {
		return nil
	}
	if err := run(); err != nil {
		p.fail.fail(err)
	}
	return nil
}

// overlay makes a file in memory.
func (p *pebbleFS) overlay(name string) (pvfs.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over == nil {
		p.over = pvfs.NewMem()
		if err := p.over.MkdirAll(p.dir, 0o750); err != nil {
			return nil, err
		}
	}
	p.names[name] = true
	return p.over.Create(name, pvfs.WriteCategoryUnspecified)
}

// overlaid returns the file system in memory if name is there.
func (p *pebbleFS) overlaid(name string) pvfs.FS {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.names[name] {
		return p.over
	}
	return nil
}

// isTable says whether Pebble reads a file back while it is open.
func isTable(name string) bool {
	return strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob")
}

func (p *pebbleFS) create(name string, open func() (vfs.File, error)) (pvfs.File, error) {
	if p.fail.failed() {
		return p.overlay(name)
	}
	f, err := open()
	if err != nil {
		p.fail.fail(err)
		return p.overlay(name)
	}
	out := &pebbleFile{f: f, p: p, name: name, table: isTable(name)}
	if k := logKindOf(filepath.Base(name)); k != notALog {
		out.log = &logState{kind: k, noted: -1}
	}
	return out, nil
}

func (p *pebbleFS) Create(name string, _ pvfs.DiskWriteCategory) (pvfs.File, error) {
	return p.create(name, func() (vfs.File, error) {
		f, err := p.fs.Create(name)
		if errors.Is(err, fs.ErrExist) {
			if err := p.fs.Remove(name); err != nil {
				return nil, err
			}
			f, err = p.fs.Create(name)
		}
		return f, err
	})
}

func (p *pebbleFS) ReuseForWrite(oldname, newname string, _ pvfs.DiskWriteCategory) (pvfs.File, error) {
	return p.create(newname, func() (vfs.File, error) {
		if err := p.fs.Rename(oldname, newname); err != nil {
			return nil, err
		}
		return p.fs.OpenReadWrite(newname)
	})
}

func (p *pebbleFS) OpenReadWrite(name string, _ pvfs.DiskWriteCategory, _ ...pvfs.OpenOption) (pvfs.File, error) {
	return p.create(name, func() (vfs.File, error) { return p.fs.OpenReadWrite(name) })
}

func (p *pebbleFS) Open(name string, opts ...pvfs.OpenOption) (pvfs.File, error) {
	if over := p.overlaid(name); over != nil {
		return over.Open(name, opts...)
	}
	f, err := p.fs.Open(name)
	if strings.HasSuffix(name, ".blob") {
		f, err = checkedBlob(f, err)
	}
	if err != nil {
		return nil, err
	}
	out := &pebbleFile{f: f, p: p, name: name}
	for _, o := range opts {
		o.Apply(out)
	}
	return out, nil
}

// checkedBlob stands between Pebble and a blob file that is missing or has a
// damaged footer: either makes it end the process, unless the error is of a kind
// that it does not know.
func checkedBlob(f vfs.File, err error) (vfs.File, error) {
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", core.ErrCorrupt, err.Error())
	}
	if err != nil {
		return nil, err
	}
	r, err := sstable.NewSimpleReadable(blobFile{f})
	if err == nil {
		// The reader that this makes takes nothing that has to be given back.
		ctx := context.Background() //nolint:forbidigo // Pebble's interface of a file system knows no ctx
		_, err = blob.NewFileReader(ctx, r, blob.FileReaderOptions{})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s", core.ErrCorrupt, err.Error()), f.Close())
	}
	return f, nil
}

// blobFile is a file as Pebble's reader of blobs wants it.
type blobFile struct{ vfs.File }

func (f blobFile) Stat() (pvfs.FileInfo, error) {
	i, err := f.File.Stat()
	return pebbleInfo{i}, err
}

func (p *pebbleFS) OpenDir(name string) (pvfs.File, error) { return pebbleDir{p: p, name: name}, nil }

func (p *pebbleFS) Remove(name string) error {
	if over := p.overlaid(name); over != nil {
		return over.Remove(name)
	}
	if p.fail.failed() {
		return nil
	}
	err := p.fs.Remove(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	p.fail.fail(err)
	return nil
}

func (p *pebbleFS) RemoveAll(name string) error {
	return p.change(func() error { return p.fs.RemoveAll(name) })
}

func (p *pebbleFS) Link(oldname, newname string) error {
	return p.change(func() error { return p.fs.Link(oldname, newname) })
}

func (p *pebbleFS) Rename(oldname, newname string) error {
	return p.change(func() error { return p.fs.Rename(oldname, newname) })
}

func (p *pebbleFS) MkdirAll(dir string, _ os.FileMode) error {
	return p.change(func() error { return p.fs.MkdirAll(dir) })
}

// Lock does nothing: the disk's own lock covers all of it.
func (p *pebbleFS) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

func (p *pebbleFS) List(dir string) ([]string, error) { return p.fs.List(dir) }

func (p *pebbleFS) Stat(name string) (pvfs.FileInfo, error) {
	if over := p.overlaid(name); over != nil {
		return over.Stat(name)
	}
	i, err := p.fs.Stat(name)
	if err != nil {
		return nil, err
	}
	return pebbleInfo{i}, nil
}

func (p *pebbleFS) PathBase(name string) string    { return filepath.Base(name) }
func (p *pebbleFS) PathJoin(elem ...string) string { return filepath.Join(elem...) }
func (p *pebbleFS) PathDir(name string) string     { return filepath.Dir(name) }
func (p *pebbleFS) Unwrap() pvfs.FS                { return nil }
func (p *pebbleFS) GetDiskUsage(name string) (pvfs.DiskUsage, error) {
	u, err := p.fs.Usage(name)
	if err != nil {
		return pvfs.DiskUsage{}, err
	}
	return pvfs.DiskUsage{
		AvailBytes: uint64(u.Free), TotalBytes: uint64(u.Total), UsedBytes: uint64(u.Total - u.Free),
	}, nil
}

// pebbleInfo adds what Pebble wants to know and Shoal does not use.
type pebbleInfo struct{ fs.FileInfo }

func (pebbleInfo) DeviceID() pvfs.DeviceID { return pvfs.DeviceID{} }

// pebbleFile is a file of Pebble's on the disk. As with Pebble's own, calls that
// write must not overlap.
type pebbleFile struct {
	f     vfs.File
	p     *pebbleFS
	name  string
	table bool
	log   *logState
	// written is how much has been written in good order, over the file in
	// memory that has taken this one's place.
	written int64
	over    pvfs.File
}

func (f *pebbleFile) Read(p []byte) (int, error)              { return f.f.Read(p) }
func (f *pebbleFile) ReadAt(p []byte, off int64) (int, error) { return f.f.ReadAt(p, off) }
func (f *pebbleFile) Prefetch(off, n int64) error             { f.f.Prefetch(off, n); return nil }

func (f *pebbleFile) Stat() (pvfs.FileInfo, error) {
	if f.over != nil {
		return f.over.Stat()
	}
	i, err := f.f.Stat()
	if err != nil {
		return nil, err
	}
	return pebbleInfo{i}, nil
}

func (f *pebbleFile) Fd() uintptr {
	if o := f.f.OSFile(); o != nil {
		return o.Fd()
	}
	return pvfs.InvalidFd
}

// change runs a write or sync of the file, or if that cannot be any more,
// instead on the file in memory where one is needed.
func (f *pebbleFile) change(run func() error, instead func(pvfs.File) error) error {
	if !f.p.fail.failed() {
		err := run()
		if err == nil {
			return nil
		}
		f.p.fail.fail(fmt.Errorf("meta/%s: %w", filepath.Base(f.name), err))
	}
	if !f.table {
		return nil
	}
	if f.over == nil {
		if err := f.toMemory(); err != nil {
			return err
		}
	}
	return instead(f.over)
}

// toMemory puts a file in memory in this one's place, with what was written so
// far as far as it can be read. A reader's checksums tell if it could not.
func (f *pebbleFile) toMemory() (err error) {
	if f.over, err = f.p.overlay(f.name); err != nil {
		return err
	}
	b := make([]byte, f.written)
	_, _ = f.f.ReadAt(b, 0)
	_, err = f.over.Write(b)
	return err
}

func (f *pebbleFile) Write(p []byte) (int, error) {
	err := f.change(func() error {
		if _, err := f.f.Write(p); err != nil {
			return err
		}
		f.written += int64(len(p))
		if f.log != nil {
			f.log.wrote(p)
		}
		return nil
	}, func(over pvfs.File) error {
		_, err := over.Write(p)
		return err
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteAt is not used by Pebble for anything that Shoal uses.
func (f *pebbleFile) WriteAt([]byte, int64) (int, error) {
	return 0, fmt.Errorf("write at an offset of %s: %w", f.name, errors.ErrUnsupported)
}

func (f *pebbleFile) Sync() error {
	return f.change(func() error { return f.synced(f.f.Sync) }, pvfs.File.Sync)
}

func (f *pebbleFile) SyncData() error {
	return f.change(func() error { return f.synced(f.f.SyncData) }, pvfs.File.SyncData)
}

func (f *pebbleFile) synced(sync func() error) error {
	if err := sync(); err != nil {
		return err
	}
	if l := f.log; l != nil && l.noted != l.length {
		l.noted = l.length
		return f.p.seal.record(l.kind, filepath.Base(f.name), l.length, l.hash.Sum64())
	}
	return nil
}

func (f *pebbleFile) SyncTo(length int64) (bool, error) {
	return false, f.change(func() error { return f.f.StartSync(0, length) }, func(pvfs.File) error { return nil })
}

// Preallocate is a hint; a disk that is too full for it may yet have room for
// what is written.
func (f *pebbleFile) Preallocate(off, n int64) error {
	if f.p.fail.failed() {
		return nil
	}
	if err := f.f.Allocate(off, n); err != nil && !isNoSpace(err) {
		f.p.fail.fail(fmt.Errorf("meta/%s: %w", filepath.Base(f.name), err))
	}
	return nil
}

func (f *pebbleFile) Close() error {
	err := f.f.Close()
	if f.over != nil {
		return f.over.Close()
	}
	if err != nil && !f.p.fail.failed() {
		f.p.fail.fail(fmt.Errorf("meta/%s: %w", filepath.Base(f.name), err))
	}
	return nil
}

// pebbleDir is an open directory, which is good for Sync only.
type pebbleDir struct {
	pvfs.File
	p    *pebbleFS
	name string
}

func (d pebbleDir) Sync() error  { return d.p.change(func() error { return d.p.fs.SyncDir(d.name) }) }
func (d pebbleDir) Close() error { return nil }
