package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/vfs"
)

// Options configure a disk. Dir and Clock are needed, the rest may be zero.
type Options struct {
	// Dir is the disk's directory.
	Dir string
	// Clock times operations and tells the age of shards.
	Clock core.Clock
	// FS holds the directory; nil is the operating system's file system.
	FS vfs.FS
	// Cluster and Node, if not empty, refuse a disk of another one.
	Cluster string
	Node    core.NodeID
	// Cache is shared by the disks of a process; nil asks for a small one
	// of the disk's own.
	Cache *Cache
	Log   *slog.Logger
	// Reserve is the free space in bytes below which no more shards are
	// taken. Rows are taken down to half of it; what frees space goes on
	// working below. Zero asks for a fiftieth of the disk, 1 GiB at most;
	// a negative number for none.
	Reserve int64
	// MemTableSize is the size in bytes up to which fresh rows gather in
	// memory; there can be a few. A quiet disk uses 256 KiB. Zero is 8 MiB.
	MemTableSize uint64
	// DirectFrom is the size in bytes from which a shard is written past
	// the page cache. Zero is 1 MiB, a negative number never.
	DirectFrom int64
	// KeepOpen is the number of shards whose files are kept open for the next
	// reader, with their block tables. Zero is 128, a negative number none.
	KeepOpen int
	// KeepRows is the memory in bytes for rows that were written lately. Zero
	// is 4 MiB, a negative number none.
	KeepRows int64
}

const (
	defaultMemTable   = 8 << 20
	defaultDirectFrom = 1 << 20
	defaultKeepOpen   = 128
	defaultKeepRows   = 4 << 20
	maxReserve        = 1 << 30
	reserveShare      = 50
	ownCacheBytes     = 16 << 20
	ownCacheFiles     = 128
)

// Disk is an open disk. It implements [core.RowStore] and [core.Store]. All
// methods may be called concurrently, but see [core.RowStore].
type Disk struct {
	opt    Options
	dir    string
	id     Identity
	log    *slog.Logger
	clock  core.Clock
	fs     *meter
	fail   *failure
	gate   *gate
	lock   io.Closer
	seal   *seal
	meta   *pebbleFS
	cache  *Cache
	db     *pebble.DB
	sched  *scheduler
	shards *shardDirs
	files  *openFiles
	rows   *rowCache

	// metaDir is where the rows are; creating says that there are none yet.
	metaDir      string
	creating     bool
	opened       atomic.Bool
	broken       atomic.Bool
	corruptions  atomic.Int64
	damaged      atomic.Pointer[error] // rows, by what
	sinceMetrics atomic.Int64
	sinceUsage   atomic.Int64

	progress struct {
		mu sync.Mutex
		ch chan struct{} // closed after a flush or compaction
	}

	slotsMu sync.RWMutex
	slots   map[core.SlotID]*slotRows
	voids   atomic.Int64 // slots with a void mark
	objects atomic.Int64 // versions of rows of objects
}

var (
	_ core.RowStore  = (*Disk)(nil)
	_ core.Store     = (*Disk)(nil)
	_ core.NowOpener = (*Disk)(nil)
)

// Open opens a disk and everything on it. A directory that is not a disk is
// [core.ErrUnformatted] and stays as it is; a disk of another cluster or node is
// [ErrForeign]; one that is open already, here or in another process, is
// [core.ErrLocked]; one whose rows are missing or damaged is [core.ErrCorrupt]
// (see [ResetMeta]). The caller closes the disk.
func Open(ctx context.Context, o Options) (*Disk, error) {
	d, err := newDisk(o)
	if err != nil {
		return nil, err
	}
	if err := d.open(ctx); err != nil {
		return nil, errors.Join(err, d.release())
	}
	return d, nil
}

func newDisk(o Options) (*Disk, error) {
	if o.Clock == nil || o.Dir == "" {
		return nil, fmt.Errorf("open disk: Dir and Clock must be given: %w", core.ErrInvalid)
	}
	if o.FS == nil {
		o.FS = vfs.OS()
	}
	if o.MemTableSize == 0 {
		o.MemTableSize = defaultMemTable
	}
	if o.DirectFrom == 0 {
		o.DirectFrom = defaultDirectFrom
	}
	if o.KeepOpen == 0 {
		o.KeepOpen = defaultKeepOpen
	}
	if o.KeepRows == 0 {
		o.KeepRows = defaultKeepRows
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open disk %s: %w", o.Dir, err)
	}
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d := &Disk{
		opt: o, dir: dir, log: log, clock: o.Clock,
		fs:    &meter{FS: o.FS, clock: o.Clock},
		fail:  newFailure(),
		gate:  newGate(),
		cache: o.Cache,
		slots: map[core.SlotID]*slotRows{},
	}
	d.metaDir = d.path(metaName)
	d.progress.ch = make(chan struct{})
	d.shards = newShardDirs(d)
	d.files = newOpenFiles(d)
	d.rows = newRowCache(o.KeepRows)
	return d, nil
}

func (d *Disk) path(elem ...string) string {
	return filepath.Join(append([]string{d.dir}, elem...)...)
}

func (d *Disk) open(ctx context.Context) error {
	// Nothing is written, not even a lock file, before this is known to be
	// the right disk.
	if err := d.identify(); err != nil {
		return err
	}
	if err := d.takeLock(); err != nil {
		return err
	}
	if err := d.identify(); err != nil {
		return err
	}
	if _, err := d.fs.Stat(d.path(metaName)); errors.Is(err, fs.ErrNotExist) {
		return d.metaLost(err)
	}
	if err := d.openRows(); err != nil {
		return err
	}
	if err := d.checkOwner(); err != nil {
		return err
	}
	if err := errors.Join(d.loadSlots(ctx), d.loadVoids(ctx)); err != nil {
		return d.readError("open", err)
	}
	if err := d.shards.open(); err != nil {
		return err
	}
	if err := d.fail.err(); err != nil {
		return fmt.Errorf("open disk %s: %w", d.dir, err)
	}
	return nil
}

func (d *Disk) metaLost(err error) error {
	return fmt.Errorf("disk %s: its rows are missing; `shoal disk rebuild` starts them anew: %w: %w",
		d.dir, core.ErrCorrupt, err)
}

// identify reads who the disk is and refuses it if it is not wanted here.
func (d *Disk) identify() error {
	id, repair, err := readIdentity(d.fs, d.dir)
	if err != nil {
		return err
	}
	if _, err := d.fs.Stat(d.path(formattingName)); err == nil {
		return fmt.Errorf("formatting %s was interrupted; format it again: %w", d.dir, core.ErrUnformatted)
	}
	if d.opt.Cluster != "" && id.Cluster != d.opt.Cluster {
		return fmt.Errorf("disk %s (%s): %w: cluster %s, not %s", d.dir, id.UUID, ErrForeign, id.Cluster, d.opt.Cluster)
	}
	if d.opt.Node != "" && id.Node != d.opt.Node {
		return fmt.Errorf("disk %s (%s): %w: node %s, not %s", d.dir, id.UUID, ErrForeign, id.Node, d.opt.Node)
	}
	d.id = id
	if repair && d.lock != nil {
		d.log.Warn("a copy of the disk's identity was damaged and is written anew", "disk", id.UUID)
		if err := writeIdentity(d.fs, d.dir, &id); err != nil {
			return fmt.Errorf("disk %s: %w", d.dir, err)
		}
	}
	return nil
}

func (d *Disk) takeLock() error {
	lock, err := d.fs.Lock(d.path(lockName))
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("disk %s: %w", d.dir, core.ErrLocked)
	}
	if err != nil {
		return fmt.Errorf("lock disk %s: %w", d.dir, err)
	}
	d.lock = lock
	return nil
}

// openRows opens Pebble, or makes its store if d.creating is set.
func (d *Disk) openRows() (err error) {
	if d.seal, err = openSeal(d.fs, d.path(sealName), d.metaDir); err != nil {
		return fmt.Errorf("disk %s: %w", d.dir, err)
	}
	if d.cache == nil {
		d.cache = NewCache(ownCacheBytes, ownCacheFiles, 1)
	}
	d.meta = newPebbleFS(d.fs, d.metaDir, d.fail, d.seal)
	o := pebbleOptions(d)
	d.sched = o.Experimental.CompactionScheduler.(*scheduler)
	db, err := pebble.Open(d.metaDir, o)
	if errors.Is(err, pebble.ErrDBDoesNotExist) {
		return d.metaLost(err)
	}
	if err != nil {
		return fmt.Errorf("open rows: %w", d.readError("meta", err))
	}
	d.db = db
	d.opened.Store(true)
	d.sched.offer()
	if err := d.fail.err(); err != nil {
		return fmt.Errorf("open rows of disk %s: %w", d.dir, err)
	}
	return nil
}

// aboutUUID is the key under which the rows say which disk they belong to.
const aboutUUID = "uuid"

func (d *Disk) checkOwner() error {
	key := aboutKey(aboutUUID)
	v, err := d.about(key)
	if err != nil {
		return err
	}
	if string(v) != d.id.UUID {
		return fmt.Errorf("disk %s: %w: meta/ is that of disk %q, shoal.json names %q", d.dir, ErrForeign, v, d.id.UUID)
	}
	return nil
}

// about reads a fact about the store; the result is the caller's.
func (d *Disk) about(key []byte) ([]byte, error) {
	v, closer, err := d.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, d.readError("meta", err)
	}
	p, err := openValue(key, append([]byte(nil), v...))
	if cerr := closer.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, d.readError("meta", err)
	}
	return p, nil
}

// Close waits for the calls under way, makes the rows independent of the log
// and releases the disk. Shards that are open for reading stay so. After a
// failure it releases the disk as it is. A second Close does nothing.
func (d *Disk) Close() error {
	if !d.gate.shut() {
		return nil
	}
	var err error
	if !d.fail.failed() {
		err = d.settle()
	}
	return errors.Join(err, d.release())
}

// settle leaves nothing in the log.
func (d *Disk) settle() error {
	if err := d.shards.saveCounts(); err != nil {
		return err
	}
	if err := d.db.Flush(); err != nil {
		return fmt.Errorf("flush rows of disk %s: %w", d.dir, err)
	}
	return nil
}

// release gives back all that open took, as far as it came.
func (d *Disk) release() error {
	var errs []error
	d.files.close()
	if d.db != nil {
		errs = append(errs, d.db.Close())
	}
	if d.seal != nil {
		if !d.fail.failed() {
			errs = append(errs, d.seal.sync())
		}
		errs = append(errs, d.seal.close())
	}
	if d.cache != nil && d.opt.Cache == nil {
		d.cache.Close()
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close disk %s: %w", d.dir, err)
	}
	return nil
}

// Identity says which disk this is.
func (d *Disk) Identity() Identity { return d.id }

// Failed is closed when the disk stops taking writes; [Disk.Err] says why.
func (d *Disk) Failed() <-chan struct{} { return d.fail.done }

// Err is nil while the disk takes writes, then [core.ErrDiskFailed] with the
// cause.
func (d *Disk) Err() error { return d.fail.err() }

// Vitals say how the disk fares.
func (d *Disk) Vitals() core.Vitals {
	v := d.fs.vitals()
	v.Err = d.fail.err()
	if err := d.damaged.Load(); err != nil {
		v.Damaged = *err
	}
	return v
}

// read lets a call in that does not write. The caller calls leave.
func (d *Disk) read(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if d.broken.Load() {
		return d.fail.err()
	}
	return d.gate.enter()
}

// write lets a call in that writes. The caller calls leave.
func (d *Disk) write(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := d.fail.err(); err != nil {
		return fmt.Errorf("disk %s: %w", d.id.UUID, err)
	}
	return d.gate.enter()
}

func (d *Disk) leave() { d.gate.leave() }
