package disk

import (
	"encoding/binary"
	"fmt"

	"github.com/zeebo/xxh3"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/vfs"
)

// The form of a shard's file; see docs/disk-format.md.
const (
	shardMagic    = "SHOALSHD"
	shardVersion  = 1
	blockBits     = 16
	blockSize     = 1 << blockBits
	footerSize    = 64
	maxTrailer    = 1 << 20
	trailerMinLen = len(core.ExtentID{}) + 4 + len(core.RequestID{}) + 5
)

// blocks is the number of blocks of a shard with that many bytes.
func blocks(size int64) int64 { return (size + blockSize - 1) / blockSize }

// shardFooter is the end of a shard's file, decoded.
type shardFooter struct {
	size       int64
	trailer    int
	tableSum   uint64
	trailerSum uint64
}

// fileLength is the length of the whole file.
func (f *shardFooter) fileLength() int64 {
	n := f.size + blocks(f.size)*sumSize + int64(f.trailer) + footerSize
	return (n + vfs.Alignment - 1) / vfs.Alignment * vfs.Alignment
}

// tailOffset is where the block table begins; tailLength covers it and the
// trailer.
func (f *shardFooter) tailOffset() int64 { return f.size }
func (f *shardFooter) tailLength() int64 { return blocks(f.size)*sumSize + int64(f.trailer) }

func (f *shardFooter) append(b []byte) []byte {
	from := len(b)
	b = append(b, shardMagic...)
	b = binary.LittleEndian.AppendUint16(b, shardVersion)
	b = append(b, blockBits, 0, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(f.size))
	b = binary.LittleEndian.AppendUint32(b, uint32(f.trailer))
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint64(b, f.tableSum)
	b = binary.LittleEndian.AppendUint64(b, f.trailerSum)
	b = binary.LittleEndian.AppendUint64(b, 0)
	return binary.LittleEndian.AppendUint64(b, xxh3.Hash(b[from:]))
}

// decodeFooter reads the footer of a file of that length.
func decodeFooter(b []byte, length int64) (f shardFooter, err error) {
	bad := func(why string) (shardFooter, error) {
		return shardFooter{}, fmt.Errorf("footer: %s: %w", why, core.ErrCorrupt)
	}
	if len(b) != footerSize || string(b[:8]) != shardMagic {
		return bad("not that of a shard")
	}
	if binary.LittleEndian.Uint64(b[56:]) != xxh3.Hash(b[:56]) {
		return bad("checksum mismatch")
	}
	if v := binary.LittleEndian.Uint16(b[8:]); v != shardVersion || b[10] != blockBits {
		return f, fmt.Errorf("shard format version %d with blocks of 2^%d bytes is unknown to this program: %w",
			v, b[10], core.ErrInvalid)
	}
	f.size = int64(binary.LittleEndian.Uint64(b[16:]))
	f.trailer = int(binary.LittleEndian.Uint32(b[24:]))
	f.tableSum = binary.LittleEndian.Uint64(b[32:])
	f.trailerSum = binary.LittleEndian.Uint64(b[40:])
	if f.size < 0 || f.size > length || f.trailer > maxTrailer || f.fileLength() != length {
		return bad("the file is not as long as it says")
	}
	return f, nil
}

func appendTrailer(b []byte, m *core.ShardMeta) []byte {
	b = append(b, m.ID.Extent[:]...)
	b = append(b, m.ID.Index)
	b = append(b, m.ID.Nonce[:]...)
	b = append(b, m.Request[:]...)
	b = binary.AppendUvarint(b, uint64(m.Bucket))
	ec := byte(0)
	if m.Scheme.EC {
		ec = 1
	}
	b = append(b, ec)
	b = binary.AppendUvarint(b, uint64(m.Scheme.K))
	b = binary.AppendUvarint(b, uint64(m.Scheme.M))
	b = binary.AppendUvarint(b, uint64(len(m.Key)))
	return append(b, m.Key...)
}

func decodeTrailer(b []byte) (m core.ShardMeta, err error) {
	bad := func() (core.ShardMeta, error) {
		return core.ShardMeta{}, fmt.Errorf("trailer: malformed: %w", core.ErrCorrupt)
	}
	if len(b) < trailerMinLen {
		return bad()
	}
	b = b[copy(m.ID.Extent[:], b):]
	m.ID.Index = b[0]
	b = b[1:]
	b = b[copy(m.ID.Nonce[:], b):]
	b = b[copy(m.Request[:], b):]
	f := fields{b: b, ok: true}
	bucket := f.next()
	if len(f.b) == 0 {
		return bad()
	}
	m.Scheme.EC = f.b[0] != 0
	f.b = f.b[1:]
	k, parity, n := f.next(), f.next(), f.next()
	if !f.ok || bucket > 1<<32-1 || k > core.MaxData || parity > core.MaxData || n > uint64(len(f.b)) {
		return bad()
	}
	m.Bucket = core.BucketID(bucket)
	m.Scheme.K, m.Scheme.M = int(k), int(parity)
	m.Key = string(f.b[:n])
	return m, nil
}
