package filebackend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/shoalstore/shoal/core"
)

// openObject opens an object's file.
func openObject(r *os.Root, key string) (*os.File, fs.FileInfo, error) {
	if err := plain(r, key); err != nil {
		return nil, nil, err
	}
	// Looked at before it is opened: opening a device may have an effect. A pipe that takes
	// its place in between is opened without waiting for a writer.
	fi, err := r.Lstat(key)
	if err != nil {
		return nil, nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("not a regular file: %w", fs.ErrNotExist)
	}
	f, err := r.OpenFile(key, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	if fi, err = f.Stat(); err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("not a regular file: %w", fs.ErrNotExist)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, fi, nil
}

// open opens an object and describes it; the caller closes the file.
func (b *Backend) open(ctx context.Context, op, bucket, key string) (*os.File, core.RemoteObject, error) {
	none := core.RemoteObject{}
	if err := checkKey(key); err != nil {
		return nil, none, err
	}
	r, err := b.root(ctx, bucket)
	if err != nil {
		return nil, none, err
	}
	defer func() { _ = r.Close() }() // files that were opened in it stay
	f, fi, err := openObject(r, key)
	if err != nil {
		return nil, none, readError(op, bucket, key, err)
	}
	a, err := readAttributes(f)
	if err != nil {
		_ = f.Close()
		return nil, none, readError(op, bucket, key, err)
	}
	o := object(key, fi)
	a.describe(&o)
	return f, o, nil
}

// Head implements [core.Backend].
func (b *Backend) Head(ctx context.Context, bucket, key string) (core.RemoteObject, error) {
	f, o, err := b.open(ctx, "head", bucket, key)
	if err != nil {
		return o, err
	}
	_ = f.Close()
	return o, nil
}

// Get implements [core.Backend].
func (b *Backend) Get(ctx context.Context, bucket, key string, o core.RemoteGet) (core.RemoteObject, io.ReadCloser, error) {
	none := core.RemoteObject{}
	if o.Offset < 0 || o.Length < -1 || o.Length == 0 {
		return none, nil, fmt.Errorf("file: range of %d bytes from %d: %w", o.Length, o.Offset, core.ErrInvalid)
	}
	f, obj, err := b.open(ctx, "get", bucket, key)
	if err != nil {
		return none, nil, err
	}
	whole := o.Offset == 0 && o.Length == -1
	switch {
	case o.Version != "" && o.Version != obj.Version:
		err = fmt.Errorf("file: get %s/%q: %w: asked for version %q, it is %q", bucket, key, core.ErrPrecondition, o.Version, obj.Version)
	case o.Offset >= obj.Size && !whole:
		err = fmt.Errorf("file: get %s/%q: %w: from %d of %d bytes", bucket, key, core.ErrRange, o.Offset, obj.Size)
	}
	if err != nil {
		_ = f.Close()
		return none, nil, err
	}
	n := obj.Size - o.Offset
	if o.Length > 0 {
		n = min(n, o.Length)
	}
	return obj, &body{ctx: ctx, f: f, name: fmt.Sprintf("file: get %s/%q", bucket, key), version: obj.Version, at: o.Offset, left: n}, nil
}

// body is a run of a file that nobody writes into meanwhile.
type body struct {
	ctx      context.Context // of the Get, which bounds the body too
	f        *os.File
	name     string
	version  core.RemoteVersion
	at, left int64
}

func (b *body) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, fmt.Errorf("%s: %w", b.name, err)
	}
	if b.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.f.ReadAt(p, b.at)
	b.at += int64(n)
	b.left -= int64(n)
	if err != nil && (!errors.Is(err, io.EOF) || b.left > 0) {
		return n, fmt.Errorf("%s: %w: %d bytes are missing: %w", b.name, core.ErrUnavailable, b.left, err)
	}
	if b.left > 0 {
		return n, nil
	}
	// The last bytes are given only if all of them are of the version that was opened.
	fi, err := b.f.Stat()
	if err == nil && version(fi) != b.version {
		err = errors.New("somebody wrote into the file while it was read")
	}
	if err != nil {
		b.left += int64(n)
		b.at -= int64(n)
		return 0, fmt.Errorf("%s: %w: %w", b.name, core.ErrUnavailable, err)
	}
	return n, nil
}

func (b *body) Close() error { return b.f.Close() }
