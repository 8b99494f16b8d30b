package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/shoalstore/shoal/core"
)

// smallShard is the size in bytes up to which a shard is written in one round
// trip, and read in one with its opening.
const smallShard = 64 << 10

// serviceShards is the service of ServeStores.
const serviceShards = FirstReserved

// Store is a disk of any node. It is cheap to make, holds nothing, and may be
// used by many at once. Errors keep their identity; what fails because the node
// cannot be reached, or is lost, is [core.ErrUnavailable].
type Store struct {
	t    *Transport
	node core.NodeID
	disk core.DiskID
}

var _ core.Store = Store{}

// Store returns a disk of a node. Disks of this node are used directly.
func (t *Transport) Store(node core.NodeID, disk core.DiskID) Store {
	return Store{t: t, node: node, disk: disk}
}

func (s Store) String() string { return fmt.Sprintf("disk %d of node %s", s.disk, s.node) }

// Local says whether the disk is this node's.
func (s Store) Local() bool { return s.node == s.t.o.Self }

// local returns the store itself if it is this node's.
func (s Store) local() (core.Store, bool, error) {
	if !s.Local() {
		return nil, false, nil
	}
	st, err := s.t.lookup(s.disk)
	return st, true, err
}

// Create begins a shard. If it is known to be small, the other node learns of it
// with Commit, and refusals come then.
func (s Store) Create(ctx context.Context, m core.ShardMeta, size int64) (core.ShardWriter, error) {
	if st, ok, err := s.local(); ok {
		if err != nil {
			return nil, err
		}
		return st.Create(ctx, m, size)
	}
	h, err := createHeader{s.disk, size, m}.encode()
	if err != nil {
		return nil, err
	}
	confirm := size < 0 || size > smallShard
	w, err := s.t.OpenWrite(ctx, s.node, serviceShards, h, confirm)
	if err != nil {
		return nil, fmt.Errorf("create shard %v on %v: %w", m.ID, s, err)
	}
	return &shardWriter{WriteStream: w}, nil
}

// Open opens a shard and fetches its first 64 KiB.
func (s Store) Open(ctx context.Context, id core.ShardID) (core.ShardReader, error) {
	return s.OpenRange(ctx, id, 0, smallShard)
}

// OpenNow implements [core.NowOpener] for disks of this node.
func (s Store) OpenNow(ctx context.Context, id core.ShardID) (core.ShardReader, bool) {
	st, _, err := s.local()
	if n, ok := st.(core.NowOpener); ok && err == nil {
		return n.OpenNow(ctx, id)
	}
	return nil, false
}

// OpenRange opens a shard and fetches n bytes, at most 256 KiB, from off on
// along with it: reads of them cost no further round trip.
func (s Store) OpenRange(ctx context.Context, id core.ShardID, off int64, n int) (core.ShardReader, error) {
	return s.open(ctx, openHeader{disk: s.disk, id: id}, off, n)
}

// OpenUnverified opens a shard for reading without verification, straight from
// its file where the disk can do that: see [UnverifiedReader]. Otherwise it is Open.
func (s Store) OpenUnverified(ctx context.Context, id core.ShardID) (core.ShardReader, error) {
	return s.open(ctx, openHeader{disk: s.disk, id: id, unverified: true}, 0, 0)
}

func (s Store) open(ctx context.Context, h openHeader, off int64, n int) (core.ShardReader, error) {
	if st, ok, err := s.local(); ok {
		if err != nil {
			return nil, err
		}
		return st.Open(ctx, h.id)
	}
	r, err := s.t.OpenRead(ctx, s.node, serviceShards, h.encode(), Range{Off: off, Len: n})
	if err != nil {
		return nil, fmt.Errorf("open shard %v on %v: %w", h.id, s, err)
	}
	meta := r.Meta()
	if len(meta) < 8 {
		_ = r.Close()
		return nil, fmt.Errorf("open shard %v on %v: %w: %w", h.id, s, core.ErrUnavailable, errProtocol)
	}
	return &shardReader{ReadStream: r, size: int64(binary.LittleEndian.Uint64(meta))}, nil
}

// Delete removes a shard.
func (s Store) Delete(ctx context.Context, id core.ShardID) error {
	if st, ok, err := s.local(); ok {
		if err != nil {
			return err
		}
		return st.Delete(ctx, id)
	}
	if _, err := s.t.Call(ctx, s.node, methodDelete, openHeader{disk: s.disk, id: id}.encode()); err != nil {
		return fmt.Errorf("delete shard %v on %v: %w", id, s, err)
	}
	return nil
}

// shardWriter is a stream as a core.ShardWriter.
type shardWriter struct{ WriteStream }

func (w *shardWriter) Commit(ctx context.Context) error {
	_, err := w.WriteStream.Commit(ctx)
	return err
}

// shardReader is a stream as a core.ShardReader.
type shardReader struct {
	ReadStream
	size int64
}

func (r *shardReader) Size() int64 { return r.size }

// ReadNow implements [core.NowReader].
func (r *shardReader) ReadNow(p []byte, off int64) bool {
	n, ok := r.ReadStream.(core.NowReader)
	return ok && n.ReadNow(p, off)
}

// createHeader asks for a shard to be created.
type createHeader struct {
	disk core.DiskID
	size int64
	meta core.ShardMeta
}

const (
	shardIDSize  = 20
	createSize   = 4 + 8 + shardIDSize + 4 + 16 + 3
	openSize     = 4 + 1 + shardIDSize
	flagEC       = 1 << 0
	flagUnproved = 1 << 0
)

func appendShardID(b []byte, id core.ShardID) []byte {
	b = append(b, id.Extent[:]...)
	return append(append(b, id.Index), id.Nonce[:]...)
}

func parseShardID(b []byte) (id core.ShardID) {
	copy(id.Extent[:], b)
	id.Index = b[16]
	copy(id.Nonce[:], b[17:])
	return id
}

func (h createHeader) encode() ([]byte, error) {
	m := h.meta
	if m.Scheme.K < 0 || m.Scheme.K > 255 || m.Scheme.M < 0 || m.Scheme.M > 255 || len(m.Key) > MaxHeader-createSize {
		return nil, fmt.Errorf("create shard %v: scheme %v or key of %d bytes: %w", m.ID, m.Scheme, len(m.Key), core.ErrInvalid)
	}
	b := make([]byte, 0, createSize+len(m.Key))
	b = binary.LittleEndian.AppendUint32(b, uint32(h.disk))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.size))
	b = appendShardID(b, m.ID)
	b = binary.LittleEndian.AppendUint32(b, uint32(m.Bucket))
	b = append(b, m.Request[:]...)
	var flags byte
	if m.Scheme.EC {
		flags = flagEC
	}
	b = append(b, byte(m.Scheme.K), byte(m.Scheme.M), flags)
	return append(b, m.Key...), nil
}

func parseCreate(b []byte) (h createHeader, err error) {
	if len(b) < createSize {
		return h, fmt.Errorf("%w: create of %d bytes", errProtocol, len(b))
	}
	h.disk = core.DiskID(binary.LittleEndian.Uint32(b))
	h.size = int64(binary.LittleEndian.Uint64(b[4:]))
	b = b[12:]
	h.meta.ID = parseShardID(b)
	b = b[shardIDSize:]
	h.meta.Bucket = core.BucketID(binary.LittleEndian.Uint32(b))
	copy(h.meta.Request[:], b[4:])
	b = b[20:]
	h.meta.Scheme = core.Scheme{K: int(b[0]), M: int(b[1]), EC: b[2]&flagEC != 0}
	h.meta.Key = string(b[3:])
	return h, nil
}

// openHeader names a shard to be opened or deleted.
type openHeader struct {
	disk       core.DiskID
	id         core.ShardID
	unverified bool
}

func (h openHeader) encode() []byte {
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, openSize), uint32(h.disk))
	var flags byte
	if h.unverified {
		flags = flagUnproved
	}
	return appendShardID(append(b, flags), h.id)
}

func parseOpen(b []byte) (h openHeader, err error) {
	if len(b) < openSize {
		return h, fmt.Errorf("%w: open of %d bytes", errProtocol, len(b))
	}
	h.disk = core.DiskID(binary.LittleEndian.Uint32(b))
	h.unverified = b[4]&flagUnproved != 0
	h.id = parseShardID(b[5:])
	return h, nil
}

// ServeStores registers who knows this node's disks. A disk that is not there
// must be an error other than [core.ErrNotFound]: it says nothing of shards.
func (t *Transport) ServeStores(disk func(core.DiskID) (core.Store, error)) {
	t.register("the stores", false)
	t.stores = disk
}

func noStores(disk core.DiskID) (core.Store, error) {
	return nil, fmt.Errorf("disk %d: this node serves no disks: %w", disk, core.ErrUnavailable)
}

// lookup returns a disk of this node. Whatever goes wrong, it is not "not
// found", which would be said of the shard.
func (t *Transport) lookup(disk core.DiskID) (core.Store, error) {
	st, err := t.stores(disk)
	switch {
	case err == nil && st == nil:
		return nil, fmt.Errorf("disk %d is not served by node %s: %w", disk, t.o.Self, core.ErrUnavailable)
	case errors.Is(err, core.ErrNotFound):
		return nil, fmt.Errorf("disk %d of node %s: %w: %v", disk, t.o.Self, core.ErrUnavailable, err) //nolint:errorlint // its identity is hidden on purpose
	case err != nil:
		return nil, fmt.Errorf("disk %d of node %s: %w", disk, t.o.Self, err)
	}
	return st, nil
}

func (t *Transport) serveDelete(ctx context.Context, _ core.NodeID, req []byte) ([]byte, error) {
	h, err := parseOpen(req)
	if err != nil {
		return nil, err
	}
	st, err := t.lookup(h.disk)
	if err != nil {
		return nil, err
	}
	return nil, st.Delete(ctx, h.id)
}

// shardService is the transport as the StreamHandler of its node's stores.
type shardService Transport

func (s *shardService) OpenWrite(ctx context.Context, _ core.NodeID, header []byte) (WriteStream, error) {
	h, err := parseCreate(header)
	if err != nil {
		return nil, err
	}
	st, err := (*Transport)(s).lookup(h.disk)
	if err != nil {
		return nil, err
	}
	w, err := st.Create(ctx, h.meta, h.size)
	if err != nil {
		return nil, err
	}
	sink := shardSink{w}
	if rf, ok := w.(io.ReaderFrom); ok {
		return struct {
			shardSink
			io.ReaderFrom
		}{sink, rf}, nil
	}
	return sink, nil
}

// shardSink is a core.ShardWriter as a stream.
type shardSink struct{ core.ShardWriter }

func (w shardSink) Commit(ctx context.Context) ([]byte, error) {
	return nil, w.ShardWriter.Commit(ctx)
}

// UnverifiedReader is what a core.ShardReader may also be, for buckets that want
// their bytes sent straight from the file: see [Sectioner].
type UnverifiedReader interface {
	UnverifiedSection(off int64, n int) (f *os.File, at int64, m int, eof, ok bool)
}

func (s *shardService) OpenRead(ctx context.Context, _ core.NodeID, header []byte) (ReadStream, error) {
	h, err := parseOpen(header)
	if err != nil {
		return nil, err
	}
	st, err := (*Transport)(s).lookup(h.disk)
	if err != nil {
		return nil, err
	}
	r, err := st.Open(ctx, h.id)
	if err != nil {
		return nil, err
	}
	src := shardSource{ShardReader: r, meta: binary.LittleEndian.AppendUint64(nil, uint64(r.Size()))}
	if u, ok := r.(UnverifiedReader); ok && h.unverified {
		return unverifiedSource{src, u}, nil
	}
	return src, nil
}

// shardSource is a core.ShardReader as a stream.
type shardSource struct {
	core.ShardReader
	meta []byte
}

func (r shardSource) Meta() []byte { return r.meta }

// ReadAt says that the shard ends as soon as it does, so that one that was read
// whole with its opening needs no further word.
func (r shardSource) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := r.ShardReader.ReadAt(ctx, p, off)
	if err == nil && off+int64(n) == r.Size() {
		err = io.EOF
	}
	return n, err
}

type unverifiedSource struct {
	shardSource
	u UnverifiedReader
}

func (r unverifiedSource) Section(off int64, n int) (f *os.File, at int64, m int, eof, ok bool) {
	return r.u.UnverifiedSection(off, n)
}
