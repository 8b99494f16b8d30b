package disk

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable/block"

	"github.com/shoalstore/shoal/core"
)

// Cache is the memory that the disks of a process share for blocks of rows,
// and the number of Pebble's files that they keep open.
type Cache struct {
	blocks *pebble.Cache
	files  *pebble.FileCache
}

// NewCache returns a cache of that many bytes and open files. Zero asks for
// 64 MiB and 512 files. It should hold the filters that spare lookups of rows
// that are not there: about 13 MB for 10 million rows. Memory in which the fresh
// rows of a busy disk gather counts against it, two or three times
// Options.MemTableSize: room for them is added for that many disks.
func NewCache(bytes int64, files, disks int) *Cache {
	if bytes == 0 {
		bytes = 64 << 20
	}
	if files == 0 {
		files = 512
	}
	bytes += int64(disks) * 2 * defaultMemTable
	return &Cache{blocks: pebble.NewCache(bytes), files: pebble.NewFileCache(1, files)}
}

// Close releases the memory once no disk uses it any more.
func (c *Cache) Close() {
	c.files.Unref()
	c.blocks.Unref()
}

const (
	// separateFrom is the size in bytes from which a value is kept apart from
	// its key, so that compactions and scans of keys do not move it.
	separateFrom = 1 << 10
	// stopAtReadAmp is the number of tables that a read of fresh rows may
	// have to look at before writes wait for compactions.
	stopAtReadAmp = 24
	// blobsPerTable is how many files of values a table may refer to before
	// a compaction moves the values together.
	blobsPerTable = 30
)

// pebbleOptions are what Shoal asks of Pebble. Memory is kept small, for
// fifteen disks may share a machine.
func pebbleOptions(d *Disk) *pebble.Options {
	o := &pebble.Options{
		FS:                          d.meta,
		Cache:                       d.cache.blocks,
		FileCache:                   d.cache.files,
		Comparer:                    comparer(),
		FormatMajorVersion:          pebble.FormatValueSeparation,
		MemTableSize:                d.opt.MemTableSize,
		MemTableStopWritesThreshold: 3,
		// Pebble's own wait for compactions cannot be interrupted, not even by
		// the failure of the disk; Apply waits instead, see [Disk.throttle].
		L0StopWritesThreshold:      1000,
		L0CompactionThreshold:      4,
		LBaseMaxBytes:              64 << 20,
		MaxManifestFileSize:        4 << 20,
		CompactionConcurrencyRange: func() (int, int) { return 1, 1 },
		Logger:                     pebbleLogger{d},
		EventListener:              d.events(),
		ErrorIfNotExists:           !d.creating,
		ErrorIfExists:              d.creating,
	}
	o.Experimental.CompactionScheduler = &scheduler{allowed: d.mayCompact}
	o.Experimental.ReadSamplingMultiplier = -1
	o.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{
			Enabled:               true,
			MinimumSize:           separateFrom,
			MaxBlobReferenceDepth: blobsPerTable,
			TargetGarbageRatio:    0.25,
		}
	}
	for i := range o.Levels {
		// A table's filter is read as a whole, so tables are kept small.
		o.TargetFileSizes[i] = min(int64(2<<20)<<i, 16<<20)
		l := &o.Levels[i]
		l.BlockSize = 16 << 10
		l.FilterPolicy = bloom.FilterPolicy(10)
		l.FilterType = pebble.TableFilter
		l.Compression = compression
	}
	return o
}

// compression spends nothing on values kept apart: they are users' data, which
// seldom shrinks, and records are small.
func compression() *block.CompressionProfile {
	p := *block.FastestCompression
	p.ValueBlocks = block.NoCompression.ValueBlocks
	return &p
}

// events turns what Pebble finds out in the background into the disk's state.
func (d *Disk) events() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(err error) {
			switch {
			case errors.Is(err, pebble.ErrCancelledCompaction), d.fail.failed():
			default:
				d.log.Error("rows cannot be maintained; the disk takes no more writes", "err", err)
				d.fail.fail(d.readError("rows", err))
			}
		},
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			d.corruptions.Add(1)
			d.log.Error("damaged file of rows", "path", i.Path, "err", i.Details)
		},
		CompactionEnd: func(pebble.CompactionInfo) { d.compacted() },
		FlushEnd:      func(pebble.FlushInfo) { d.compacted() },
	}
}

// pebbleLogger passes on what Pebble has to say.
type pebbleLogger struct{ d *Disk }

func (l pebbleLogger) Infof(format string, args ...any) {
	l.d.log.Debug("pebble", "text", text{format, args})
}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.d.log.Warn("pebble reports an error", "text", text{format, args})
}

// Fatalf is where Pebble would end the process. If a write failed before, this
// is a consequence that does no harm any more. Otherwise Pebble has found itself
// inconsistent: nothing that it says from now on can be believed.
func (l pebbleLogger) Fatalf(format string, args ...any) {
	l.d.log.Error("pebble gives up", "text", text{format, args})
	if !l.d.fail.failed() {
		l.d.broken.Store(true)
		l.d.fail.fail(fmt.Errorf("pebble: "+format, args...))
	}
}

// text is formatted only if it is logged.
type text struct {
	format string
	args   []any
}

func (t text) LogValue() slog.Value { return slog.StringValue(fmt.Sprintf(t.format, t.args...)) }

// scheduler runs one compaction at a time, and none while the disk does not
// allow any. Pebble's own keeps a goroutine and a ticker per store.
type scheduler struct {
	allowed func() bool

	db pebble.DBForCompaction

	mu       sync.Mutex
	idle     sync.Cond // granting is false
	running  bool
	granting bool
	// refused is set when a compaction was turned down, and so may be waiting.
	refused bool
	closed  bool
}

func (s *scheduler) Register(_ int, db pebble.DBForCompaction) {
	s.idle.L = &s.mu
	s.db = db
}

func (s *scheduler) Unregister() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for s.granting {
		s.idle.Wait()
	}
}

func (s *scheduler) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.running || s.granting || !s.allowed() {
		s.refused = true
		return false, nil
	}
	s.running = true
	return true, s
}

func (s *scheduler) UpdateGetAllowedWithoutPermission() {}

func (s *scheduler) Started()                                          {}
func (s *scheduler) MeasureCPU(pebble.CompactionGoroutineKind)         {}
func (s *scheduler) CumulativeStats(pebble.CompactionGrantHandleStats) {}

// Done ends a compaction and starts the next one if it is due. It is called
// without locks.
func (s *scheduler) Done() {
	s.mu.Lock()
	s.running = false
	s.mu.Unlock()
	s.offer()
}

// offer starts a compaction that was refused before.
func (s *scheduler) offer() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.refused && !s.closed && !s.running && !s.granting && s.allowed() {
		// The lock is not held while Pebble is asked, for it takes its own.
		s.refused, s.granting, s.running = false, true, true
		s.mu.Unlock()
		taken := false
		if waiting, _ := s.db.GetWaitingCompaction(); waiting {
			taken = s.db.Schedule(s)
		}
		s.mu.Lock()
		s.granting = false
		if taken {
			s.refused = true // more may be waiting behind it
		} else {
			s.running = false
		}
		s.idle.Broadcast()
	}
}

// readError says what is wrong with rows that could not be read.
func (d *Disk) readError(what string, err error) error {
	switch {
	case errors.Is(err, core.ErrCorrupt):
		d.corruptions.Add(1)
		err = fmt.Errorf("disk %s: %s: %w", d.id.UUID, what, err)
	case pebble.IsCorruptionError(err):
		err = fmt.Errorf("disk %s: %s: %w: %w", d.id.UUID, what, core.ErrCorrupt, err)
	default:
		return fmt.Errorf("disk %s: %s: %w", d.id.UUID, what, err)
	}
	d.damaged.Store(&err)
	return err
}
