package engine

import (
	"bytes"
	"crypto/md5"  //nolint:gosec // S3's ETag
	"crypto/sha1" //nolint:gosec // an S3 checksum
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"github.com/minio/crc64nvme"
	"github.com/zeebo/xxh3"

	"github.com/shoalstore/shoal/core"
)

// ingest reads a body once and computes what S3 wants to know of it on the way:
// length, ETag, checksums. Large bodies are hashed beside the stream.
type ingest struct {
	src    io.Reader
	whole  []byte // the body, if all of it is in memory
	opt    *core.PutOptions
	size   int64
	hashes []hash.Hash
	md5    hash.Hash
	fast   *xxh3.Hasher
	sum    hash.Hash
	feed   chan []byte
	spare  chan []byte
	blocks int // that there are, in all
	done   chan struct{}
}

// The ways to an object's ETag: etagFast is a bucket's choice, etagKeep that of
// copies, which keep their source's.
const (
	etagFast = "fast"
	etagKeep = "keep"
)

// hashBlock is the unit in which bodies are handed to the hashes, in bytes; hashDepth
// of them may wait.
const (
	hashBlock = 256 << 10
	hashDepth = 4
)

func newIngest(src io.Reader, bucket *core.Bucket, opt *core.PutOptions) *ingest {
	in := &ingest{src: src, opt: opt}
	if m, ok := src.(*memoryReader); ok {
		in.whole = m.whole
	}
	if bucket.Policy.ETag != etagFast && bucket.Policy.ETag != etagKeep || len(opt.MD5) > 0 {
		in.md5 = md5.New() //nolint:gosec // S3's ETag
		in.hashes = append(in.hashes, in.md5)
	}
	if bucket.Policy.ETag == etagFast {
		in.fast = xxh3.New()
		in.hashes = append(in.hashes, in.fast)
	}
	if in.sum = newChecksum(opt.Checksum.Algorithm); in.sum != nil {
		in.hashes = append(in.hashes, in.sum)
	}
	return in
}

// newChecksum returns the hash of an S3 checksum algorithm, nil for none.
func newChecksum(algorithm string) hash.Hash {
	switch algorithm {
	case "CRC32":
		return crc32.NewIEEE()
	case "CRC32C":
		return crc32.New(crc32.MakeTable(crc32.Castagnoli))
	case "CRC64NVME":
		return crc64nvme.New()
	case "SHA1":
		return sha1.New() //nolint:gosec // an S3 checksum
	case "SHA256":
		return sha256.New()
	}
	return nil
}

// head reads up to limit bytes and says whether that is the whole body.
func (in *ingest) head(limit int64) ([]byte, bool, error) {
	if in.opt.Size > limit {
		return nil, false, nil
	}
	in.whole = nil // what is read here is hashed here
	var buf bytes.Buffer
	if in.opt.Size >= 0 {
		buf.Grow(int(in.opt.Size) + bytes.MinRead)
	}
	_, err := io.Copy(&buf, io.LimitReader(in.src, limit+1))
	if err != nil {
		return nil, false, err
	}
	head := buf.Bytes()
	if int64(len(head)) > limit {
		return head, false, in.hash(head)
	}
	return head, true, in.hash(head)
}

// hash counts and hashes bytes that were read by head.
func (in *ingest) hash(b []byte) error {
	in.size += int64(len(b))
	for _, h := range in.hashes {
		_, _ = h.Write(b)
	}
	if in.opt.Size >= 0 && in.size > in.opt.Size {
		return in.tooLong()
	}
	return nil
}

func (in *ingest) tooLong() error {
	return fmt.Errorf("the body is longer than the %d bytes declared: %w", in.opt.Size, core.ErrInvalid)
}

// memoryReader is a body that is in memory. Whoever stores it is done with the bytes
// when it returns.
type memoryReader struct {
	bytes.Reader
	whole []byte
}

func newMemoryReader(b []byte) *memoryReader {
	return &memoryReader{Reader: *bytes.NewReader(b), whole: b}
}

// Read passes the body on and has it hashed beside.
func (in *ingest) Read(p []byte) (int, error) {
	if in.whole != nil && in.done == nil && len(in.hashes) > 0 {
		in.hashWhole()
	}
	k, err := in.src.Read(p)
	in.size += int64(k)
	if in.opt.Size >= 0 && in.size > in.opt.Size {
		return 0, in.tooLong()
	}
	if k > 0 && in.whole == nil && len(in.hashes) > 0 {
		in.aside(p[:k])
	}
	return k, err
}

// hashWhole hashes a body in memory beside the stream, where it lies.
func (in *ingest) hashWhole() {
	in.done = make(chan struct{})
	go func() {
		defer close(in.done)
		for _, h := range in.hashes {
			_, _ = h.Write(in.whole)
		}
	}()
}

// aside gives a copy of the bytes to the hashing goroutine.
func (in *ingest) aside(b []byte) {
	if in.feed == nil {
		in.feed, in.spare, in.done = make(chan []byte, hashDepth), make(chan []byte, hashDepth+2), make(chan struct{})
		go func() {
			defer close(in.done)
			for b := range in.feed {
				for _, h := range in.hashes {
					_, _ = h.Write(b)
				}
				in.spare <- b[:0]
			}
		}()
	}
	for len(b) > 0 {
		buf := in.block()
		k := min(len(b), cap(buf))
		in.feed <- append(buf, b[:k]...)
		b = b[k:]
	}
}

// block gives an empty block: one that was hashed, or a new one while there are few.
func (in *ingest) block() []byte {
	select {
	case b := <-in.spare:
		return b
	default:
	}
	if in.blocks == hashDepth+2 {
		return <-in.spare
	}
	in.blocks++
	if in.opt.Size >= 0 {
		return make([]byte, 0, min(in.opt.Size, hashBlock))
	}
	return make([]byte, 0, hashBlock)
}

// close waits for the hashing goroutine.
func (in *ingest) close() {
	if in.feed != nil {
		close(in.feed)
	}
	if in.done != nil {
		<-in.done
	}
	in.feed = nil
}

// finish verifies what was declared and fills in what was computed.
func (in *ingest) finish(rec *core.Record) error {
	in.close()
	if in.opt.Size >= 0 && in.size != in.opt.Size {
		return fmt.Errorf("the body ended after %d of %d bytes: %w", in.size, in.opt.Size, core.ErrInvalid)
	}
	rec.Size = in.size
	if in.md5 != nil {
		sum := in.md5.Sum(nil)
		if len(in.opt.MD5) > 0 && !bytes.Equal(sum, in.opt.MD5) {
			return fmt.Errorf("content-md5: the body has %s: %w", base64.StdEncoding.EncodeToString(sum), core.ErrChecksum)
		}
		rec.ETag = hex.EncodeToString(sum)
	}
	if in.fast != nil {
		s := in.fast.Sum128().Bytes()
		rec.ETag = hex.EncodeToString(s[:]) + "-1"
	}
	return in.finishChecksum(rec)
}

// finishChecksum compares the S3 checksum with the one declared, which may
// come in a trailer.
func (in *ingest) finishChecksum(rec *core.Record) error {
	want := in.opt.Checksum
	if in.opt.Trailer != nil {
		t, err := in.opt.Trailer()
		if err != nil {
			return err
		}
		if t.Algorithm != "" {
			if want.Algorithm != "" && t.Algorithm != want.Algorithm {
				return fmt.Errorf("trailer with a %s checksum where %s was announced: %w", t.Algorithm, want.Algorithm, core.ErrInvalid)
			}
			want = t
		}
	}
	if want.Algorithm == "" {
		return nil
	}
	if in.sum == nil {
		return fmt.Errorf("checksum algorithm %q was not announced or is not known: %w", want.Algorithm, core.ErrInvalid)
	}
	got := base64.StdEncoding.EncodeToString(in.sum.Sum(nil))
	if want.Value != "" && want.Value != got {
		return fmt.Errorf("%s checksum: declared %s, the body has %s: %w", want.Algorithm, want.Value, got, core.ErrChecksum)
	}
	rec.Checksum = core.Checksum{Algorithm: want.Algorithm, Value: got}
	return nil
}
