package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/shoalstore/shoal/core"
)

// dirCount is the number of directories that shards are spread over, by the
// first byte of their names.
const dirCount = 256

// shardDirs are the directories of the shards, and what all shards share.
type shardDirs struct {
	d        *Disk
	dirs     [dirCount]dirSync
	tmpCount atomic.Uint64
	noDirect atomic.Bool
	chunks   sync.Pool
	blocks   sync.Pool

	mu      sync.Mutex
	counted bool
	count   int64
	bytes   int64
}

func newShardDirs(d *Disk) *shardDirs {
	s := &shardDirs{d: d}
	s.blocks.New = func() any { return new([blockSize]byte) }
	s.chunks.New = func() any {
		b := alignedBuffer(chunkSize + tailRoom)
		return &b
	}
	return s
}

func (s *shardDirs) chunk() *[]byte { return s.chunks.Get().(*[]byte) }

func dirName(i int) string {
	return string(strconv.AppendUint(nil, uint64(i)>>4, 16)) + strconv.FormatUint(uint64(i)&15, 16)
}

func (s *shardDirs) name(id core.ShardID) string {
	return s.d.path(dataName, dirName(int(id.Extent[0])), id.String())
}

func (s *shardDirs) tmpName(id core.ShardID) string {
	return s.d.path(dataName, tmpName, id.String()+"."+strconv.FormatUint(s.tmpCount.Add(1), 10))
}

// open removes what was being written when the disk was last in use, and takes
// over the counts of a disk that was closed in good order.
func (s *shardDirs) open() error {
	tmp := s.d.path(dataName, tmpName)
	names, err := s.d.fs.List(tmp)
	if err != nil {
		return fmt.Errorf("disk %s: shards: %w", s.d.dir, err)
	}
	for _, n := range names {
		if err := s.d.fs.Remove(s.d.path(dataName, tmpName, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("disk %s: sweep shards: %w", s.d.dir, err)
		}
	}
	return s.loadCounts()
}

// publish gives a durable file its name.
func (s *shardDirs) publish(tmp string, id core.ShardID, length int64) error {
	if err := s.d.fs.RenameNew(tmp, s.name(id)); err != nil {
		return s.d.writeError(err)
	}
	if err := s.dirs[id.Extent[0]].sync(s.d, int(id.Extent[0])); err != nil {
		return err
	}
	s.add(1, length)
	return nil
}

// discard removes a file that was not committed.
func (s *shardDirs) discard(tmp string) error {
	if s.d.fail.failed() {
		return nil
	}
	if err := s.d.fs.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.d.writeError(err)
	}
	return nil
}

// dirSync makes names in one directory durable, many with one sync: whoever
// comes while a sync runs shares the next one.
type dirSync struct {
	mu      sync.Mutex
	running bool
	next    *dirSyncRun // gathers callers; nil if there are none
}

type dirSyncRun struct {
	turn chan struct{} // holds one token once the run may begin
	done chan struct{}
	err  error
}

func (s *dirSync) sync(d *Disk, dir int) error {
	s.mu.Lock()
	run := s.next
	if run == nil {
		run = &dirSyncRun{turn: make(chan struct{}, 1), done: make(chan struct{})}
		s.next = run
		if !s.running {
			s.running = true
			run.turn <- struct{}{}
		}
	}
	s.mu.Unlock()
	select {
	case <-run.done:
		return run.err
	case <-run.turn: // this caller does it for all of them
	}
	s.mu.Lock()
	s.next = nil
	s.mu.Unlock()
	run.err = s.once(d, dir)
	close(run.done)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != nil {
		s.next.turn <- struct{}{}
	} else {
		s.running = false
	}
	return run.err
}

func (s *dirSync) once(d *Disk, dir int) error {
	if err := d.fail.err(); err != nil {
		return err
	}
	if err := d.fs.SyncDir(d.path(dataName, dirName(dir))); err != nil {
		return d.writeError(err)
	}
	return nil
}

// Delete implements [core.Store]. It is not synced: a shard that a loss of
// power brings back is one that no record names.
func (d *Disk) Delete(ctx context.Context, id core.ShardID) error {
	if err := d.write(ctx); err != nil {
		return err
	}
	defer d.leave()
	name := d.shards.name(id)
	defer d.files.drop(id, nil) // whoever reads it goes on
	st, err := d.fs.Stat(name)
	if err == nil {
		err = d.fs.Remove(name)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("disk %s: delete shard %s: %w", d.id.UUID, id, d.writeError(err))
	}
	d.shards.add(-1, -st.Size())
	return nil
}

// Shards lists the committed shards behind an id in the order of their ids,
// each with what its file says of itself, so that a lost index can be built
// again. A shard whose description is damaged comes as its id and a
// [CorruptError], and the listing goes on; any other error ends it. Shards
// written or deleted meanwhile may be listed or not.
func (d *Disk) Shards(ctx context.Context, after core.ShardID) iter.Seq2[core.ShardInfo, error] {
	return func(yield func(core.ShardInfo, error) bool) {
		for dir := int(after.Extent[0]); dir < dirCount; dir++ {
			if !d.listShards(ctx, dir, after, yield) {
				return
			}
		}
	}
}

func (d *Disk) listShards(ctx context.Context, dir int, after core.ShardID, yield func(core.ShardInfo, error) bool) bool {
	ids, err := d.shardIDs(ctx, dir)
	if err != nil {
		yield(core.ShardInfo{}, err)
		return false
	}
	for _, id := range ids {
		if compareShards(id, after) <= 0 && after != (core.ShardID{}) {
			continue
		}
		info, err := d.statShard(ctx, id)
		if errors.Is(err, core.ErrNotFound) {
			continue
		}
		if !yield(info, err) || err != nil && !errors.Is(err, core.ErrCorrupt) {
			return false
		}
	}
	return true
}

// shardIDs returns the ids of the shards in a directory, in order. Names that
// are not those of shards are left alone.
func (d *Disk) shardIDs(ctx context.Context, dir int) ([]core.ShardID, error) {
	if err := d.read(ctx); err != nil {
		return nil, err
	}
	defer d.leave()
	names, err := d.fs.List(d.path(dataName, dirName(dir)))
	if err != nil {
		return nil, fmt.Errorf("disk %s: list shards: %w", d.id.UUID, err)
	}
	ids := make([]core.ShardID, 0, len(names))
	for _, n := range names {
		if id, err := core.ParseShardID(n); err == nil {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, compareShards)
	return ids, nil
}

func (d *Disk) statShard(ctx context.Context, id core.ShardID) (core.ShardInfo, error) {
	none := core.ShardInfo{ShardMeta: core.ShardMeta{ID: id}}
	if err := d.read(ctx); err != nil {
		return none, err
	}
	defer d.leave()
	f, info, err := d.openShard(id)
	if err != nil {
		return none, err
	}
	if err := f.Close(); err != nil {
		return none, fmt.Errorf("disk %s: shard %s: %w", d.id.UUID, id, err)
	}
	return core.ShardInfo{ShardMeta: info.meta, Size: info.footer.size, Age: info.age}, nil
}

func compareShards(a, b core.ShardID) int {
	if c := slices.Compare(a.Extent[:], b.Extent[:]); c != 0 {
		return c
	}
	if a.Index != b.Index {
		return int(a.Index) - int(b.Index)
	}
	return slices.Compare(a.Nonce[:], b.Nonce[:])
}

// aboutCounts is the key of the counts of a disk that is closed.
const aboutCounts = "counts"

// loadCounts takes the counts and removes them, so that they are not taken
// again after a crash.
func (s *shardDirs) loadCounts() error {
	key := aboutKey(aboutCounts)
	v, closer, err := s.d.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		return s.d.readError("meta", err)
	}
	count, bytes, objects, err := decodeCounts(key, v)
	if cerr := closer.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return s.d.readError("meta", err)
	}
	if err := s.d.db.Delete(key, pebble.Sync); err != nil {
		return s.d.readError("meta", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counted, s.count, s.bytes = true, count, bytes
	s.d.objects.Store(objects)
	return nil
}

func (s *shardDirs) saveCounts() error {
	s.mu.Lock()
	counted, count, bytes := s.counted, s.count, s.bytes
	s.mu.Unlock()
	if !counted {
		return nil
	}
	key := aboutKey(aboutCounts)
	if err := s.d.db.Set(key, encodeCounts(key, count, bytes, max(0, s.d.objects.Load())), pebble.Sync); err != nil {
		return s.d.readError("meta", err)
	}
	return s.d.fail.err()
}

// add counts a shard that came or went.
func (s *shardDirs) add(n, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count += n
	s.bytes += bytes
}

// Count goes through all shards and rows and counts them, which [Stats] then
// knows. It is needed only where the disk was not closed in good order. It takes
// a system call per shard; writes and deletes meanwhile may be counted twice or
// not at all, until the next Count.
func (d *Disk) Count(ctx context.Context) error {
	if err := d.countObjects(ctx); err != nil {
		return err
	}
	var count, bytes int64
	for dir := range dirCount {
		ids, err := d.shardIDs(ctx, dir)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := d.read(ctx); err != nil {
				return err
			}
			st, err := d.fs.Stat(d.shards.name(id))
			d.leave()
			switch {
			case errors.Is(err, fs.ErrNotExist):
				continue
			case err != nil:
				return fmt.Errorf("disk %s: count shards: %w", d.id.UUID, err)
			}
			count++
			bytes += st.Size()
		}
	}
	d.shards.mu.Lock()
	defer d.shards.mu.Unlock()
	d.shards.counted, d.shards.count, d.shards.bytes = true, count, bytes
	return nil
}
