// Package memstore keeps shards in memory, for tests and simulation, and fails
// on demand: see [Store.Inject].
//
//	s := memstore.New(clock)
//	release := s.Inject(memstore.Fault{Op: memstore.Write, After: 1 << 20, Stall: true})
//	defer release()
//
// Like a disk it keeps a checksum per block of 64 KiB, writes shards under no
// name before their Commit, and lets readers go on that have a deleted shard
// open. [Store.Stats] counts what was asked of it, and what is still open.
package memstore

import (
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/shoalstore/shoal/core"
)

// BlockSize is the number of bytes under one checksum.
const BlockSize = 64 << 10

// Stats counts what a Store was asked to do and did.
type Stats struct {
	Creates, Commits, Opens, Deletes int
	// Written and Read are bytes of content; Reads the number of ReadAt calls.
	Written, Read int64
	Reads         int
	// Writers and Readers are the numbers of open ones.
	Writers, Readers int
	// Calls is the number of calls that have not returned.
	Calls int
	// SizeHint is the size that the last Create was given.
	SizeHint int64
}

// Store implements [core.Store] in memory.
type Store struct {
	clock core.Clock
	crc   *crc32.Table

	mu     sync.Mutex
	local  bool
	now    bool
	shards map[core.ShardID]*shard
	faults []*fault
	stats  Stats
	starts int
}

var (
	_ core.Store     = (*Store)(nil)
	_ core.Localizer = (*Store)(nil)
	_ core.NowOpener = (*Store)(nil)
)

type shard struct {
	meta      core.ShardMeta
	size      int64
	blocks    [][]byte
	sums      []uint32
	committed core.Instant
}

// New returns an empty store. The clock serves delays and the age of shards.
func New(clock core.Clock) *Store {
	return &Store{clock: clock, crc: crc32.MakeTable(crc32.Castagnoli), shards: map[core.ShardID]*shard{}}
}

// SetLocal sets what Local returns.
func (s *Store) SetLocal(local bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.local = local
}

// Local implements [core.Localizer].
func (s *Store) Local() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.local
}

// SetNow sets whether shards can be opened and read without waiting; at first
// they cannot. Faults do not apply to that.
func (s *Store) SetNow(now bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now
}

// Stats returns the counts so far.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// List returns the shards that are there, in order of id, from the first above
// after on.
func (s *Store) List(after core.ShardID) iter.Seq[core.ShardInfo] {
	return func(yield func(core.ShardInfo) bool) {
		s.mu.Lock()
		all := maps.Clone(s.shards)
		now := s.clock.Boot()
		s.mu.Unlock()
		byName := func(a, b core.ShardID) int { return strings.Compare(a.String(), b.String()) }
		for _, id := range slices.SortedFunc(maps.Keys(all), byName) {
			if after != (core.ShardID{}) && byName(id, after) <= 0 {
				continue
			}
			sh := all[id]
			age := int64(now.Sub(sh.committed).Seconds())
			if !yield(core.ShardInfo{ShardMeta: sh.meta, Size: sh.size, Age: age}) {
				return
			}
		}
	}
}

// Len is the number of shards.
func (s *Store) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.shards)
}

// Corrupt damages the block that holds byte off of a shard.
func (s *Store) Corrupt(id core.ShardID, off int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.shards[id]
	if sh == nil || off < 0 || off >= sh.size {
		return fmt.Errorf("corrupt shard %v at %d: %w", id, off, core.ErrNotFound)
	}
	// A copy, since open readers may be looking at the old block.
	b := slices.Clone(sh.blocks[off/BlockSize])
	b[off%BlockSize] ^= 0xff
	sh.blocks[off/BlockSize] = b
	return nil
}

// Restart breaks what is open, as the restart of a node does: its readers and
// writers return ErrUnavailable from now on.
func (s *Store) Restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starts++
}

// broken says whether the store was restarted since that start.
func (s *Store) broken(start int, id core.ShardID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.starts != start {
		return fmt.Errorf("shard %v: connection lost: %w", id, core.ErrUnavailable)
	}
	return nil
}

// Create implements [core.Store].
func (s *Store) Create(ctx context.Context, m core.ShardMeta, size int64) (core.ShardWriter, error) {
	if _, err := s.enter(ctx, Create, m.ID, 0); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Creates++
	s.stats.Writers++
	s.stats.SizeHint = size
	return &writer{store: s, start: s.starts, ctx: ctx, shard: &shard{meta: m}}, nil
}

// Open implements [core.Store].
func (s *Store) Open(ctx context.Context, id core.ShardID) (core.ShardReader, error) {
	if _, err := s.enter(ctx, Open, id, 0); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.shards[id]
	if sh == nil {
		return nil, fmt.Errorf("open shard %v: %w", id, core.ErrNotFound)
	}
	s.stats.Opens++
	s.stats.Readers++
	return &reader{store: s, start: s.starts, ctx: ctx, shard: sh}, nil
}

// OpenNow implements [core.NowOpener].
func (s *Store) OpenNow(ctx context.Context, id core.ShardID) (core.ShardReader, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.shards[id]
	if sh == nil || !s.now {
		return nil, false
	}
	s.stats.Opens++
	s.stats.Readers++
	return &reader{store: s, start: s.starts, ctx: ctx, shard: sh}, true
}

// Delete implements [core.Store].
func (s *Store) Delete(ctx context.Context, id core.ShardID) error {
	if _, err := s.enter(ctx, Delete, id, 0); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Deletes++
	delete(s.shards, id)
	return nil
}

type writer struct {
	store *Store
	start int
	ctx   context.Context // bounds the stream, as core.Store says
	shard *shard
	err   error // final
	ended bool
}

// Write implements [io.Writer].
func (w *writer) Write(p []byte) (int, error) {
	if w.err != nil || w.ended {
		return 0, w.final("write")
	}
	n, err := w.store.enter(w.ctx, Write, w.shard.meta.ID, len(p))
	if err == nil {
		err = w.store.broken(w.start, w.shard.meta.ID)
	}
	if err != nil {
		w.err = err
	}
	for rest := p[:n]; len(rest) > 0; {
		last := len(w.shard.blocks) - 1
		if last < 0 || len(w.shard.blocks[last]) == BlockSize {
			w.shard.blocks = append(w.shard.blocks, make([]byte, 0, min(BlockSize, len(rest))))
			last++
		}
		m := min(len(rest), BlockSize-len(w.shard.blocks[last]))
		w.shard.blocks[last] = append(w.shard.blocks[last], rest[:m]...)
		rest = rest[m:]
	}
	w.shard.size += int64(n)
	w.store.count(func(st *Stats) { st.Written += int64(n) })
	return n, err
}

func (w *writer) final(op string) error {
	if w.err != nil {
		return w.err
	}
	return fmt.Errorf("%s shard %v after its end: %w", op, w.shard.meta.ID, core.ErrInvalid)
}

// Commit implements [core.ShardWriter].
func (w *writer) Commit(ctx context.Context) error {
	if w.err != nil || w.ended {
		return w.final("commit")
	}
	_, err := w.store.enter(ctx, Commit, w.shard.meta.ID, 0)
	if err == nil {
		err = w.store.broken(w.start, w.shard.meta.ID)
	}
	if err != nil {
		w.err = err
		return err
	}
	for _, b := range w.shard.blocks {
		w.shard.sums = append(w.shard.sums, crc32.Checksum(b, w.store.crc))
	}
	s := w.store
	s.count(func(st *Stats) {
		w.end(st)
		st.Commits++
		w.shard.committed = s.clock.Boot()
		s.shards[w.shard.meta.ID] = w.shard
	})
	if _, err := s.enter(ctx, Ack, w.shard.meta.ID, 0); err != nil {
		w.err = err
		return err
	}
	return nil
}

func (w *writer) end(st *Stats) {
	if !w.ended {
		w.ended = true
		st.Writers--
	}
}

// Close implements [io.Closer].
func (w *writer) Close() error {
	w.store.count(w.end)
	return nil
}

type reader struct {
	store *Store
	start int
	ctx   context.Context // bounds the stream, as core.Store says
	shard *shard

	mu     sync.Mutex
	closed bool
}

// Size implements [core.ShardReader].
func (r *reader) Size() int64 { return r.shard.size }

// ReadAt implements [core.ShardReader].
func (r *reader) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	id := r.shard.meta.ID
	if off < 0 {
		return 0, fmt.Errorf("read shard %v at %d: %w", id, off, core.ErrInvalid)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)() //nolint:contextcheck // both bound the call
	n, err := r.store.enter(ctx, Read, id, len(p))
	if err == nil {
		err = r.store.broken(r.start, id)
	}
	if err != nil {
		return 0, err
	}
	r.mu.Lock()
	closed := r.closed
	r.mu.Unlock()
	if closed {
		return 0, fmt.Errorf("read shard %v after close: %w", id, core.ErrInvalid)
	}
	read, err := r.copy(p[:n], off)
	if err != nil {
		return read, err
	}
	r.store.count(func(st *Stats) { st.Read += int64(read); st.Reads++ })
	if read < len(p) {
		return read, io.EOF
	}
	return read, nil
}

// ReadNow implements [core.NowReader]. It is counted in the bytes read only.
func (r *reader) ReadNow(p []byte, off int64) bool {
	r.store.mu.Lock()
	now := r.store.now && r.store.starts == r.start
	r.store.mu.Unlock()
	if !now || off < 0 {
		return false
	}
	n, err := r.copy(p, off)
	if n < len(p) || err != nil {
		return false
	}
	r.store.count(func(st *Stats) { st.Read += int64(n) })
	return true
}

// copy fills p with verified bytes, as far as there are any.
func (r *reader) copy(p []byte, off int64) (read int, err error) {
	for read < len(p) && off < r.shard.size {
		r.store.mu.Lock()
		b := r.shard.blocks[off/BlockSize]
		r.store.mu.Unlock()
		if crc32.Checksum(b, r.store.crc) != r.shard.sums[off/BlockSize] {
			return read, fmt.Errorf("read shard %v: block at %d: %w", r.shard.meta.ID, off/BlockSize*BlockSize, core.ErrCorrupt)
		}
		m := copy(p[read:], b[off%BlockSize:])
		read += m
		off += int64(m)
	}
	return read, nil
}

// Close implements [io.Closer].
func (r *reader) Close() error {
	r.mu.Lock()
	closed := r.closed
	r.closed = true
	r.mu.Unlock()
	if !closed {
		r.store.count(func(st *Stats) { st.Readers-- })
	}
	return nil
}

func (s *Store) count(f func(*Stats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.stats)
}
