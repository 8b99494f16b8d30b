package main

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/client"
)

// listArchive tells add of the members of an object that is an archive, named
// OBJECT/MEMBER. Of a tar only the headers are fetched as far as its members
// are large, of a zip only its directory; a compressed tar is read whole.
func listArchive(ctx context.Context, c *client.Client, alias string, o api.Object, add func(api.Object) error) error {
	r := &rangeReader{ctx: ctx, c: c, alias: alias, object: o}
	defer r.drop()
	member := func(name string, size int64) error {
		return add(api.Object{Name: o.Name + "/" + name, Size: size, ETag: o.ETag, Cached: o.Cached, Modified: o.Modified})
	}
	var err error
	switch {
	case strings.HasSuffix(o.Name, ".tar"):
		err = listTar(r, member)
	case strings.HasSuffix(o.Name, ".tgz"), strings.HasSuffix(o.Name, ".tar.gz"):
		var z *gzip.Reader
		if z, err = gzip.NewReader(r); err == nil {
			err = listTar(z, member)
		}
	case strings.HasSuffix(o.Name, ".zip"):
		err = listZip(r, member)
	}
	if err != nil {
		return fmt.Errorf("%s: read as an archive: %w", o.Name, err)
	}
	return nil
}

func listTar(r io.Reader, add func(string, int64) error) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeReg {
			if err := add(h.Name, h.Size); err != nil {
				return err
			}
		}
	}
}

func listZip(r *rangeReader, add func(string, int64) error) error {
	z, err := zip.NewReader(r, r.object.Size)
	if err != nil {
		return err
	}
	for _, f := range z.File {
		if f.FileInfo().IsDir() {
			continue
		}
		if err := add(f.Name, int64(f.UncompressedSize64)); err != nil {
			return err
		}
	}
	return nil
}

// rangeReader reads an object by ranges. It keeps one stream open and jumps by
// opening another; a short way forward is read instead.
type rangeReader struct {
	ctx    context.Context // of the listing that reads the archive
	c      *client.Client
	alias  string
	object api.Object

	off    int64
	stream *client.Reader
	at     int64 // where stream is
}

// skipLimit is how far it is cheaper to read on than to ask anew.
const skipLimit = 256 << 10

func (r *rangeReader) Read(p []byte) (int, error) {
	if r.off >= r.object.Size {
		return 0, io.EOF
	}
	if err := r.seek(); err != nil {
		return 0, err
	}
	n, err := r.stream.Read(p)
	r.at += int64(n)
	r.off += int64(n)
	return n, err
}

// seek brings the stream to where reading goes on.
func (r *rangeReader) seek() error {
	if r.stream != nil && r.off >= r.at && r.off-r.at <= skipLimit {
		n, err := io.CopyN(io.Discard, r.stream, r.off-r.at)
		r.at += n
		return err
	}
	r.drop()
	s, err := r.c.Get(r.ctx, r.alias, r.object.Name, client.GetOptions{Offset: r.off, ETag: r.object.ETag})
	if err != nil {
		return err
	}
	r.stream, r.at = s, r.off
	return nil
}

// Seek implements io.Seeker, by which a tar reader passes over members.
func (r *rangeReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.off
	case io.SeekEnd:
		offset += r.object.Size
	}
	if offset < 0 {
		return 0, errors.New("seek before the start")
	}
	r.off = offset
	return offset, nil
}

// ReadAt implements io.ReaderAt, for zip. It is not for concurrent use.
func (r *rangeReader) ReadAt(p []byte, off int64) (int, error) {
	r.off = off
	n, err := io.ReadFull(r, p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

func (r *rangeReader) drop() {
	if r.stream != nil {
		_ = r.stream.Close()
		r.stream = nil
	}
}
