package memobjects

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"strconv"
	"strings"

	"github.com/shoalstore/shoal/core"
)

// nvme is the polynomial of CRC-64/NVME, reversed.
const nvme = 0x9a6c9329ac4bc9b5

func newHash(algorithm string) (hash.Hash, error) {
	switch algorithm {
	case "CRC32":
		return crc32.NewIEEE(), nil
	case "CRC32C":
		return crc32.New(crc32.MakeTable(crc32.Castagnoli)), nil
	case "CRC64NVME":
		return crc64.New(crc64.MakeTable(nvme)), nil
	case "SHA1":
		return sha1.New(), nil
	case "SHA256":
		return sha256.New(), nil
	}
	return nil, fmt.Errorf("checksum algorithm %q is unknown: %w", algorithm, core.ErrInvalid)
}

func checksum(algorithm string, data ...[]byte) (core.Checksum, error) {
	h, err := newHash(algorithm)
	if err != nil {
		return core.Checksum{}, err
	}
	for _, d := range data {
		_, _ = h.Write(d)
	}
	return core.Checksum{Algorithm: algorithm, Value: base64.StdEncoding.EncodeToString(h.Sum(nil))}, nil
}

// composite is the checksum of the parts' checksums.
func composite(algorithm string, parts []*part) (core.Checksum, error) {
	sums := make([][]byte, len(parts))
	for i, p := range parts {
		b, err := base64.StdEncoding.DecodeString(p.Checksum.Value)
		if err != nil {
			return core.Checksum{}, fmt.Errorf("checksum of part %d: %w", p.Number, err)
		}
		sums[i] = b
	}
	c, err := checksum(algorithm, sums...)
	c.Value += "-" + strconv.Itoa(len(parts))
	c.Composite = true
	return c, err
}

// sums is what was computed over a body.
type sums struct {
	md5      []byte
	checksum core.Checksum
}

func (s sums) etag() string { return hex.EncodeToString(s.md5) }

// readBody reads a body to its end and verifies all that is known of it.
func readBody(ctx context.Context, body io.Reader, o core.PutOptions) ([]byte, sums, error) {
	var s sums
	if body == nil {
		body = bytes.NewReader(nil)
	}
	if o.Size >= 0 {
		// One byte more, to find a body that is too long.
		body = io.LimitReader(body, o.Size+1)
	}
	data, err := io.ReadAll(bounded(ctx, body))
	if err != nil {
		return nil, s, fmt.Errorf("read body: %w", err)
	}
	if o.Size >= 0 && int64(len(data)) != o.Size {
		return nil, s, fmt.Errorf("body: got %d bytes or more, want %d: %w", len(data), o.Size, core.ErrInvalid)
	}
	m := md5.Sum(data)
	s.md5 = m[:]
	if o.MD5 != nil && !bytes.Equal(o.MD5, s.md5) {
		return nil, s, fmt.Errorf("body: MD5 %x, want %x: %w", s.md5, o.MD5, core.ErrChecksum)
	}
	want := o.Checksum
	if o.Trailer != nil {
		if want, err = o.Trailer(); err != nil {
			return nil, s, fmt.Errorf("trailer: %w", err)
		}
	}
	if want.Algorithm == "" {
		return data, s, nil
	}
	if s.checksum, err = checksum(want.Algorithm, data); err != nil {
		return nil, s, err
	}
	if want.Value != "" && want.Value != s.checksum.Value {
		return nil, s, fmt.Errorf("body: %s %s, want %s: %w", want.Algorithm, s.checksum.Value, want.Value, core.ErrChecksum)
	}
	return data, s, nil
}

// readFunc is a reader made of a closure.
type readFunc func(p []byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// bounded returns a reader that ends with ctx's error as soon as it is done.
func bounded(ctx context.Context, r io.Reader) io.Reader {
	return readFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
}

func multipartETag(parts []*part) (string, error) {
	h := md5.New()
	for _, p := range parts {
		b, err := hex.DecodeString(p.ETag)
		if err != nil {
			return "", fmt.Errorf("ETag of part %d: %w", p.Number, err)
		}
		_, _ = h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil)) + "-" + strconv.Itoa(len(parts)), nil
}

func sameETag(a, b string) bool { return strings.EqualFold(a, b) }
