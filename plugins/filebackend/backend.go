// Package filebackend keeps objects in directories on the servers: local disks, or
// a file system that all nodes have mounted.
//
//	b, err := filebackend.Open(filebackend.Options{Roots: map[string]string{"photos": "/mnt/nfs/photos"}})
//	obj, body, err := b.Get(ctx, "photos", "2026/cat.jpg", core.RemoteGet{Length: -1})
//
// A bucket is a root that the configuration names; there are no others. A key is
// the path of a file below it. What is no regular file does not exist: symbolic links are not
// followed, neither out of the root nor within it. Keys that cannot be paths are
// refused: those with empty, "." or ".." components, a NUL, a slash at the end, a component of
// more than 255 bytes, or one that begins with [tempPrefix]; and a key below an
// object, or one that is a directory.
//
// # Versions
//
// A version is made of inode, size and time of modification, so that it changes
// also when others write. The ETag is derived from it. It has the form of an upload in parts,
// "...-1", so that nobody takes it for an MD5. Headers, metadata, tags, and the MD5 if it was given,
// are in an extended attribute of the file, [attribute]. Where the file system
// has none they are lost; Open's log says so.
//
// # Writes
//
// A write makes a temporary file beside the object, flushes it, renames it, and
// flushes the directory. There are no conditions: between a look and a rename another
// program can write, and no lock holds those that do not ask for it.
//
// # Mounts
//
// A call whose file system hangs hangs as well: mount NFS with softerr. Name a
// directory below the mount point, not the mount point itself: else everything seems to be
// gone when nothing is mounted.
package filebackend

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shoalstore/shoal/core"
)

const (
	// tempPrefix begins the names of files that are being written.
	tempPrefix = ".shoal-"
	// maxName is the most bytes of a component of a path.
	maxName  = 255
	pageSize = 1000
)

// Options of [Open].
type Options struct {
	// Roots are the buckets: names with absolute paths.
	Roots map[string]string
	// Log is told once for each root that cannot keep metadata. By default nothing is logged.
	Log *slog.Logger
	// Now is the time of writes, by default the machine's.
	Now func() time.Time
}

// Backend is a set of directories.
type Backend struct {
	o    Options
	dirs *dirCache
	keep func(f *os.File, a attributes) (kept bool, err error) // writeAttributes

	mu     sync.Mutex
	warned map[string]bool // roots of which the log was told
}

var (
	_ core.Backend      = (*Backend)(nil)
	_ core.RemoteCopier = (*Backend)(nil)
)

// Open prepares a backend. It does not look whether the directories are there.
func Open(o Options) (*Backend, error) {
	for name, path := range o.Roots {
		if name == "" || !filepath.IsAbs(path) {
			return nil, fmt.Errorf("file: root %q: path %q is not absolute: %w", name, path, core.ErrInvalid)
		}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now //nolint:forbidigo // the default
	}
	return &Backend{o: o, dirs: newDirCache(), keep: writeAttributes, warned: map[string]bool{}}, nil
}

// Abilities implements [core.Backend].
func (b *Backend) Abilities() core.RemoteAbilities { return core.RemoteAbilities{PageSize: pageSize} }

// Buckets implements [core.Backend].
func (b *Backend) Buckets(context.Context) ([]string, error) {
	return slices.Sorted(maps.Keys(b.o.Roots)), nil
}

// HeadBucket implements [core.Backend].
func (b *Backend) HeadBucket(ctx context.Context, bucket string) error {
	r, err := b.root(ctx, bucket)
	if err != nil {
		return err
	}
	return r.Close()
}

// root opens a bucket's directory. A configured one that is not there is
// unavailable: perhaps it is not mounted.
func (b *Backend) root(ctx context.Context, bucket string) (*os.Root, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("file: %s: %w", bucket, err)
	}
	path, ok := b.o.Roots[bucket]
	if !ok {
		return nil, fmt.Errorf("file: %w: %q is none of the configured roots", core.ErrNoSuchBucket, bucket)
	}
	r, err := os.OpenRoot(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("file: %s: %w: %w", bucket, core.ErrPermission, err)
	}
	if err != nil {
		return nil, fmt.Errorf("file: %s: %w: is it mounted? %w", bucket, core.ErrUnavailable, err)
	}
	return r, nil
}

// checkKey refuses keys that are no paths.
func checkKey(key string) error {
	if err := core.ValidateKey(key); err != nil {
		return err
	}
	for part := range strings.SplitSeq(key, "/") {
		why := ""
		switch {
		case part == "":
			why = "an empty component"
		case part == "." || part == "..":
			why = "the component " + part
		case len(part) > maxName:
			why = "a component of more than 255 bytes"
		case strings.HasPrefix(part, tempPrefix):
			why = "a component that begins with " + tempPrefix
		case strings.Contains(part, "\x00"):
			why = "a NUL"
		default:
			continue
		}
		return fmt.Errorf("file: key %q: %s: %w", key, why, core.ErrInvalid)
	}
	return nil
}

// ancestors are the directories that a path is in, outermost first.
func ancestors(path string) (dirs []string) {
	for i, c := range []byte(path) {
		if c == '/' {
			dirs = append(dirs, path[:i])
		}
	}
	return dirs
}

// errNoDirectory says that something which a path goes through is none.
var errNoDirectory = errors.New("not a directory")

// plain checks that a path's directories are directories, not links to some.
func plain(r *os.Root, path string) error {
	for _, dir := range ancestors(path) {
		fi, err := r.Lstat(dir)
		if err != nil {
			return err
		}
		if !fi.IsDir() {
			return fmt.Errorf("%s: %w", dir, errNoDirectory)
		}
	}
	return nil
}

// version is made of what changes when a file is written.
func version(fi fs.FileInfo) core.RemoteVersion {
	inode := uint64(0)
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		inode = st.Ino
	}
	return core.RemoteVersion(fmt.Sprintf("%x.%x.%x", inode, fi.Size(), fi.ModTime().UnixNano()))
}

func object(key string, fi fs.FileInfo) core.RemoteObject {
	v := version(fi)
	sum := sha256.Sum256([]byte(v))
	return core.RemoteObject{
		Key: key, Size: fi.Size(), Version: v, ETag: hex.EncodeToString(sum[:16]) + "-1", Modified: fi.ModTime().UTC(),
	}
}

// readError says what an error of a read means.
func readError(op, bucket, key string, err error) error {
	kind := core.ErrUnavailable
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) || errors.Is(err, errNoDirectory):
		kind = core.ErrNotFound
	case errors.Is(err, fs.ErrPermission):
		kind = core.ErrPermission
	case errors.Is(err, syscall.ENAMETOOLONG):
		kind = core.ErrInvalid
	}
	return fmt.Errorf("file: %s %s/%q: %w: %w", op, bucket, key, kind, err)
}

// writeError says what an error of a write means. done says that the write may have
// taken effect.
func writeError(op, bucket, key string, done bool, err error) error {
	kind := core.ErrUnavailable
	switch {
	case done:
		kind = core.ErrUnknownOutcome
	case errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS):
		kind = core.ErrPermission
	case errors.Is(err, errNoDirectory) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR) ||
		errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.ENAMETOOLONG) || errors.Is(err, syscall.EILSEQ) || errors.Is(err, syscall.EINVAL):
		kind = core.ErrInvalid
	}
	return fmt.Errorf("file: %s %s/%q: %w: %w", op, bucket, key, kind, err)
}
