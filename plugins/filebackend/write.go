package filebackend

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/shoalstore/shoal/core"
)

var errNoConditions = fmt.Errorf("file: conditions on writes: %w", errors.ErrUnsupported)

// Put implements [core.Backend].
func (b *Backend) Put(ctx context.Context, bucket, key string, o core.RemotePut) (core.RemoteObject, error) {
	w := &write{b: b, op: "put", bucket: bucket, key: key, a: attributes{Headers: o.Headers, Meta: o.Meta, Tags: o.Tags, MD5: o.MD5}}
	return w.run(ctx, o.If, func(f *os.File) error {
		src, err := o.Open(ctx)
		if err != nil {
			return &bodyError{fmt.Errorf("open the body: %w", err)}
		}
		err = fill(ctx, f, src, o)
		_ = src.Close()
		return err
	})
}

// bodyError marks what is wrong with a body, not with the file system.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// fill writes the body to a file, and checks it.
func fill(ctx context.Context, f *os.File, src io.Reader, o core.RemotePut) error {
	var h hash.Hash
	to := io.Writer(f)
	if len(o.MD5) > 0 {
		h = md5.New()
		to = io.MultiWriter(f, h)
	}
	n, err := io.CopyBuffer(onlyWriter{to}, &bounded{ctx: ctx, r: src, left: o.Size}, make([]byte, 1<<20))
	switch {
	case err != nil:
		return err
	case n != o.Size:
		return &bodyError{fmt.Errorf("the body ended after %d of %d bytes: %w", n, o.Size, io.ErrUnexpectedEOF)}
	case h != nil && !bytes.Equal(h.Sum(nil), o.MD5):
		return &bodyError{fmt.Errorf("%w: the content's MD5 is %x, not %x", core.ErrChecksum, h.Sum(nil), o.MD5)}
	}
	return nil
}

// onlyWriter hides what would make io.CopyBuffer use a buffer of its own.
type onlyWriter struct{ io.Writer }

// bounded reads up to so many bytes, until ctx ends.
type bounded struct {
	ctx  context.Context
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	if b.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &bodyError{fmt.Errorf("read the body: %w", err)}
	}
	return n, err
}

// write is one write of an object.
type write struct {
	b           *Backend
	op          string
	bucket, key string
	a           attributes
}

// run writes the object; fill fills the file.
func (w *write) run(ctx context.Context, c core.RemoteCondition, fill func(f *os.File) error) (core.RemoteObject, error) {
	none := core.RemoteObject{}
	if err := checkKey(w.key); err != nil {
		return none, err
	}
	if !c.IsZero() {
		return none, errNoConditions
	}
	r, err := w.b.root(ctx, w.bucket)
	if err != nil {
		return none, err
	}
	defer func() { _ = r.Close() }()
	temp, f, err := w.create(r)
	if err != nil {
		return none, writeError(w.op, w.bucket, w.key, false, err)
	}
	o, err := w.prepare(r, temp, f, fill)
	if err == nil {
		err = ctx.Err() // the last moment at which it can be left
	}
	if err != nil {
		err = errors.Join(err, r.Remove(temp))
		removeEmpty(r, path.Dir(w.key))
		if be, ok := errors.AsType[*bodyError](err); ok {
			return none, fmt.Errorf("file: %s %s/%q: %w", w.op, w.bucket, w.key, be.err)
		}
		if errors.Is(err, core.ErrInvalid) || ctx.Err() != nil {
			return none, fmt.Errorf("file: %s %s/%q: %w", w.op, w.bucket, w.key, err)
		}
		return none, writeError(w.op, w.bucket, w.key, false, err)
	}
	if err := w.publish(r, temp); err != nil {
		return none, err
	}
	return o, nil
}

// attempts is how often a directory is made again that somebody removed because it was
// empty.
const attempts = 10

// create makes the temporary file, and the directories that it is in.
func (w *write) create(r *os.Root) (temp string, f *os.File, err error) {
	dir := path.Dir(w.key)
	temp = path.Join(dir, tempPrefix+rand.Text())
	for range attempts {
		if err = makeDirs(r, w.key); err != nil {
			return "", nil, err
		}
		// What is a directory, or a link, is not written over.
		fi, e := r.Lstat(w.key)
		if e == nil && !fi.Mode().IsRegular() {
			return "", nil, fmt.Errorf("something else than an object is there: %w", errNoDirectory)
		}
		f, err = r.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return temp, f, err
}

// makeDirs makes the directories that a path is in, durably.
func makeDirs(r *os.Root, p string) error {
	for _, dir := range ancestors(p) {
		err := r.Mkdir(dir, 0o755)
		if err == nil {
			err = syncDir(r, path.Dir(dir))
		}
		if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	err := plain(r, p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed meanwhile; the caller finds out
	}
	return err
}

// prepare fills the file and makes it durable; it is closed in any case.
func (w *write) prepare(r *os.Root, temp string, f *os.File, fill func(f *os.File) error) (o core.RemoteObject, err error) {
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := fill(f); err != nil {
		return o, err
	}
	// The file system's own clock is coarse: with an inode that is used again, two writes
	// could have the same version.
	now := w.b.o.Now()
	if err := r.Chtimes(temp, time.Time{}, now); err != nil {
		return o, err
	}
	fi, err := f.Stat()
	if err != nil {
		return o, err
	}
	o = object(w.key, fi)
	w.a.Of = o.Version
	kept, err := w.b.keep(f, w.a)
	if err != nil {
		return o, err
	}
	if kept {
		o.MD5 = bytes.Clone(w.a.MD5)
	} else {
		w.b.warn(w.bucket)
	}
	return o, f.Sync()
}

// warn tells the log once that a root keeps no metadata.
func (b *Backend) warn(bucket string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.warned[bucket] {
		b.warned[bucket] = true
		b.o.Log.Warn("the file system has no extended attributes: metadata of objects is lost", "bucket", bucket)
	}
}

// publish puts the file in its place.
func (w *write) publish(r *os.Root, temp string) error {
	if err := r.Rename(temp, w.key); err != nil {
		// A local file system says for sure that it did not do it, NFS does not.
		_, gone := r.Lstat(temp)
		done := errors.Is(gone, fs.ErrNotExist)
		return writeError(w.op, w.bucket, w.key, done, errors.Join(err, removeIf(r, temp, !done)))
	}
	if err := syncDir(r, path.Dir(w.key)); err != nil {
		return writeError(w.op, w.bucket, w.key, true, err)
	}
	return nil
}

func removeIf(r *os.Root, name string, is bool) error {
	if !is {
		return nil
	}
	return r.Remove(name)
}

// syncDir makes a directory's entries durable.
func syncDir(r *os.Root, dir string) error {
	d, err := r.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil // a file system whose directories need none
	}
	return errors.Join(err, d.Close())
}

// Delete implements [core.Backend]. Directories that are empty then are removed.
func (b *Backend) Delete(ctx context.Context, bucket, key string, c core.RemoteCondition) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if !c.IsZero() {
		return errNoConditions
	}
	r, err := b.root(ctx, bucket)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	err = plain(r, key)
	var fi fs.FileInfo
	if err == nil {
		fi, err = r.Lstat(key)
	}
	switch {
	case err == nil && !fi.Mode().IsRegular():
		return nil // no object
	case err == nil:
		err = r.Remove(key)
	}
	if err != nil {
		if err = readError("delete", bucket, key, err); errors.Is(err, core.ErrNotFound) {
			return nil
		}
		return err
	}
	if err := syncDir(r, path.Dir(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return writeError("delete", bucket, key, true, err)
	}
	removeEmpty(r, path.Dir(key))
	return nil
}

// removeEmpty removes a directory and those that it is in, as far as they are empty.
func removeEmpty(r *os.Root, dir string) {
	for ; dir != "." && !strings.HasPrefix(dir, "/"); dir = path.Dir(dir) {
		if r.Remove(dir) != nil { // refuses one that is not empty
			return
		}
	}
}

// Copy implements [core.RemoteCopier]. The bytes do not leave the file system, where it
// can copy by itself.
func (b *Backend) Copy(ctx context.Context, fromBucket, fromKey string, v core.RemoteVersion, bucket, key string, o core.RemotePut) (core.RemoteObject, error) {
	none := core.RemoteObject{}
	src, from, err := b.open(ctx, "copy from", fromBucket, fromKey)
	if err != nil {
		return none, err
	}
	defer func() { _ = src.Close() }()
	if v != "" && v != from.Version {
		return none, fmt.Errorf("file: copy from %s/%q: %w: asked for version %q, it is %q", fromBucket, fromKey, core.ErrPrecondition, v, from.Version)
	}
	w := &write{b: b, op: "copy to", bucket: bucket, key: key, a: attributes{Headers: from.Headers, Meta: from.Meta, Tags: from.Tags, MD5: from.MD5}}
	if o.Headers != nil {
		w.a.Headers = o.Headers
	}
	if o.Meta != nil {
		w.a.Meta = o.Meta
	}
	if o.Tags != nil {
		w.a.Tags = o.Tags
	}
	return w.run(ctx, o.If, func(f *os.File) error { return copyFile(ctx, f, src, from) })
}

// copyFile copies a file, in pieces so that ctx can end it.
func copyFile(ctx context.Context, f, src *os.File, from core.RemoteObject) error {
	const piece = 64 << 20
	for left := from.Size; left > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.CopyN(f, src, min(left, piece))
		left -= n
		if err != nil {
			return fmt.Errorf("%d bytes are missing: %w", left, err)
		}
	}
	fi, err := src.Stat()
	if err == nil && version(fi) != from.Version {
		err = errors.New("somebody wrote into the source while it was copied")
	}
	return err
}
