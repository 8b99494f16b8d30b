package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/shoalstore/shoal/core"
)

// ErrChanged says that an object was replaced while it was read.
var ErrChanged = errors.New("the object changed while it was read")

// GetOptions say what to read.
type GetOptions struct {
	// Offset and Length select bytes; Length 0 is up to the end.
	Offset, Length int64
	// ETag, if not empty, is the version to read; another is ErrChanged.
	ETag string
	// Latest asks for the version that the remote has now, where the bucket is
	// remote; Sync also drops the cluster's copy of what it does not have any more.
	Latest, Sync bool
	// Query is added to the request, for inline transforms. Such a read cannot
	// be resumed; it is repeated only as long as nothing was read.
	Query map[string][]string
	// Patience is added to the time that a node may be silent, for an answer that
	// takes time to be made.
	Patience time.Duration
}

// Reader is an open object. When the node dies that serves it, it goes on at
// the same byte from another, with the same version or not at all. At the end
// of a whole object Read compares the checksum that the cluster keeps, if it
// keeps one; a difference is core.ErrChecksum instead of io.EOF.
type Reader struct {
	ObjectInfo
	// Length is the number of bytes that will come, -1 if not known.
	Length int64

	ctx   context.Context // it bounds the stream, as the caller of Get was told
	c     *Client
	alias string
	o     GetOptions
	body  io.ReadCloser
	read  int64
	sum   crc
	since core.Instant // when a byte was last read
	delay *backoff.ExponentialBackOff
}

// Get opens an object. ctx bounds the reading too.
func (c *Client) Get(ctx context.Context, alias, key string, o GetOptions) (*Reader, error) {
	r := &Reader{ctx: ctx, c: c, alias: alias, o: o, delay: newBackOff(), since: c.o.Clock.Boot()}
	r.Key = key
	if err := r.open(); err != nil {
		return nil, err
	}
	return r, nil
}

// open asks for the bytes that are still to be read.
func (r *Reader) open() error {
	h := http.Header{"X-Amz-Checksum-Mode": {"ENABLED"}}
	from := r.o.Offset + r.read
	ranged := from > 0 || r.o.Length > 0
	switch {
	case r.o.Length > 0:
		h.Set("Range", byteRange(from, r.o.Length-r.read))
	case from > 0:
		h.Set("Range", "bytes="+strconv.FormatInt(from, 10)+"-")
	}
	if r.o.ETag != "" {
		h.Set("If-Match", quote(r.o.ETag))
	}
	if r.body == nil {
		// What is read on is of the version that was found then.
		askLatest(h, r.o.Latest, r.o.Sync)
	}
	resp, _, err := r.c.do(r.ctx, &request{method: http.MethodGet, path: objectPath(r.alias, r.Key), query: r.o.Query, header: h, patience: r.o.Patience})
	if err != nil {
		if r.o.ETag != "" && (errors.Is(err, core.ErrPrecondition) || r.read > 0 && errors.Is(err, core.ErrNotFound)) {
			return fmt.Errorf("%s/%s: %w: %w", r.alias, r.Key, ErrChanged, err)
		}
		return err
	}
	if ranged && resp.StatusCode != http.StatusPartialContent {
		_ = resp.Body.Close()
		return fmt.Errorf("%s/%s: the server ignores ranges", r.alias, r.Key)
	}
	if r.read == 0 {
		info := infoOf(r.Key, resp.Header, resp.ContentLength)
		r.Length = resp.ContentLength
		if _, total, ok := strings.Cut(resp.Header.Get("Content-Range"), "/"); ok {
			if n, err := strconv.ParseInt(total, 10, 64); err == nil {
				info.Size = n
			}
		}
		r.ObjectInfo = info
		r.o.ETag = info.ETag
	}
	r.body = resp.Body
	return nil
}

// Read reads on, from another node if it must.
func (r *Reader) Read(p []byte) (int, error) {
	for {
		n, err := r.body.Read(p)
		if n > 0 {
			r.read += int64(n)
			r.sum = r.sum.add(p[:n])
			r.since = r.c.o.Clock.Boot()
			r.delay.Reset()
			return n, nil
		}
		if err == nil {
			continue
		}
		if errors.Is(err, io.EOF) && (r.Length < 0 || r.read == r.Length) {
			return 0, r.verify()
		}
		if err := r.reopen(err); err != nil {
			return 0, err
		}
	}
}

// reopen goes on after the stream broke with the given error.
func (r *Reader) reopen(broken error) error {
	_ = r.body.Close()
	what := "read " + r.alias + "/" + r.Key
	switch {
	case r.ctx.Err() != nil:
		return interrupted(r.ctx, what, broken)
	case r.o.Query != nil && r.read > 0, r.o.ETag == "":
		return fmt.Errorf("%s: broke off after %d bytes: %w", what, r.read, broken)
	}
	if silent := r.c.o.Clock.Boot().Sub(r.since); silent > r.c.o.RetryFor {
		return gaveUp(what, silent, broken)
	}
	r.c.o.Log.Debug("download broke off, going on", "key", r.Key, "offset", r.o.Offset+r.read, "err", broken)
	if r.c.o.Clock.Wait(r.ctx, r.delay.NextBackOff()) != nil {
		return interrupted(r.ctx, what, broken)
	}
	return r.open()
}

func (r *Reader) verify() error {
	whole := r.o.Offset == 0 && r.read == r.Size && r.o.Query == nil
	if whole && r.CRC64NVME != "" && r.CRC64NVME != r.sum.String() {
		return fmt.Errorf("%s/%s: the cluster keeps CRC64NVME %s, what came has %s: %w",
			r.alias, r.Key, r.CRC64NVME, r.sum, core.ErrChecksum)
	}
	return io.EOF
}

// Close ends the reading.
func (r *Reader) Close() error { return r.body.Close() }
