package disk

import (
	"errors"
	"io"
	"io/fs"
	"math/bits"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/vfs"
)

// LatencyBuckets is the number of buckets in an [OpStats]. Bucket i counts
// operations that took less than 2^i microseconds and not less than half of
// that; the last one counts all slower ones.
const LatencyBuckets = 24

// OpStats counts the operations of one kind on a disk since it was opened.
type OpStats struct {
	Count int64
	// Errors are those of the device; a missing file is none, a full disk
	// neither.
	Errors  int64
	Bytes   int64
	Total   time.Duration
	Max     time.Duration
	Latency [LatencyBuckets]int64
}

// opMeter counts operations of one kind.
type opMeter struct {
	count, errors, bytes, total, max atomic.Int64
	latency                          [LatencyBuckets]atomic.Int64
}

func (m *opMeter) add(n int, d time.Duration, err error) {
	m.count.Add(1)
	m.bytes.Add(int64(n))
	if isIOError(err) && err != io.EOF { //nolint:errorlint // files return it bare
		m.errors.Add(1)
	}
	d = max(d, 0)
	m.total.Add(int64(d))
	for {
		old := m.max.Load()
		if int64(d) <= old || m.max.CompareAndSwap(old, int64(d)) {
			break
		}
	}
	m.latency[min(bits.Len64(uint64(d/time.Microsecond)), LatencyBuckets-1)].Add(1)
}

func (m *opMeter) stats() OpStats {
	s := OpStats{
		Count: m.count.Load(), Errors: m.errors.Load(), Bytes: m.bytes.Load(),
		Total: time.Duration(m.total.Load()), Max: time.Duration(m.max.Load()),
	}
	for i := range s.Latency {
		s.Latency[i] = m.latency[i].Load()
	}
	return s
}

// meter counts and times what passes through it: reads, writes, and syncs of
// files and directories. Changes of names count as writes without bytes.
type meter struct {
	vfs.FS
	clock               core.Clock
	reads, writes, sync opMeter

	begun   atomic.Uint64
	running [followed]atomic.Uint64 // names of operations under way, 0 for none
	// readError is the last error of a read.
	readError atomic.Pointer[error]
}

// followed is how many operations are followed at a time: one that hangs is soon
// among them.
const followed = 64

// begin names an operation that is about to run; end takes what it returns.
func (m *meter) begin() *atomic.Uint64 {
	const tries = 8
	name := m.begun.Add(1)
	for i := range uint64(tries) {
		if at := &m.running[(name+i)%followed]; at.CompareAndSwap(0, name) {
			return at
		}
	}
	return nil
}

func (*meter) end(at *atomic.Uint64) {
	if at != nil {
		at.Store(0)
	}
}

// vitals are what the meter knows of how the disk fares.
func (m *meter) vitals() core.Vitals {
	v := core.Vitals{
		ReadErrors: m.reads.errors.Load(), Ops: m.writes.count.Load() + m.sync.count.Load(),
		Busy: time.Duration(m.writes.total.Load() + m.sync.total.Load()),
	}
	if err := m.readError.Load(); err != nil {
		v.ReadError = *err
	}
	for i := range m.running {
		if name := m.running[i].Load(); name != 0 {
			v.Running = append(v.Running, name)
		}
	}
	return v
}

// note keeps the error of a read.
func (m *meter) note(o *opMeter, err error) {
	if o == &m.reads && isIOError(err) && err != io.EOF { //nolint:errorlint // files return it bare
		m.readError.Store(&err)
	}
}

func (m *meter) timed(o *opMeter, run func() error) error {
	from, at := m.clock.Now(), m.begin()
	err := run()
	m.end(at)
	m.note(o, err)
	o.add(0, m.clock.Now().Sub(from), err)
	return err
}

func (m *meter) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &meterFile{File: f, m: m}, nil
}

func (m *meter) open(o *opMeter, open func(string) (vfs.File, error), name string) (f vfs.File, err error) {
	_ = m.timed(o, func() error { f, err = open(name); return err })
	return m.file(f, err)
}

func (m *meter) Create(name string) (vfs.File, error) { return m.open(&m.writes, m.FS.Create, name) }
func (m *meter) Open(name string) (vfs.File, error)   { return m.open(&m.reads, m.FS.Open, name) }

func (m *meter) CreateDirect(name string) (vfs.File, error) {
	return m.open(&m.writes, m.FS.CreateDirect, name)
}

func (m *meter) OpenReadWrite(name string) (vfs.File, error) {
	return m.open(&m.writes, m.FS.OpenReadWrite, name)
}

func (m *meter) Link(oldname, newname string) error {
	return m.timed(&m.writes, func() error { return m.FS.Link(oldname, newname) })
}

func (m *meter) Rename(oldname, newname string) error {
	return m.timed(&m.writes, func() error { return m.FS.Rename(oldname, newname) })
}

func (m *meter) RenameNew(oldname, newname string) error {
	return m.timed(&m.writes, func() error { return m.FS.RenameNew(oldname, newname) })
}

func (m *meter) Remove(name string) error {
	return m.timed(&m.writes, func() error { return m.FS.Remove(name) })
}

func (m *meter) SyncDir(dir string) error {
	return m.timed(&m.sync, func() error { return m.FS.SyncDir(dir) })
}

func (m *meter) Stat(name string) (i fs.FileInfo, err error) {
	_ = m.timed(&m.reads, func() error { i, err = m.FS.Stat(name); return err })
	return i, err
}

type meterFile struct {
	vfs.File
	m *meter
}

func (f *meterFile) timed(o *opMeter, p []byte, run func([]byte) (int, error)) (int, error) {
	from, at := f.m.clock.Now(), f.m.begin()
	n, err := run(p)
	f.m.end(at)
	f.m.note(o, err)
	o.add(n, f.m.clock.Now().Sub(from), err)
	return n, err
}

func (f *meterFile) Read(p []byte) (int, error)  { return f.timed(&f.m.reads, p, f.File.Read) }
func (f *meterFile) Write(p []byte) (int, error) { return f.timed(&f.m.writes, p, f.File.Write) }

func (f *meterFile) ReadAt(p []byte, off int64) (int, error) {
	return f.timed(&f.m.reads, p, func(p []byte) (int, error) { return f.File.ReadAt(p, off) })
}

// ReadNow counts what was read; what would have to wait is read again.
func (f *meterFile) ReadNow(p []byte, off int64) (int, error) {
	from := f.m.clock.Now()
	n, err := f.File.ReadNow(p, off)
	if errors.Is(err, syscall.EIO) {
		f.m.note(&f.m.reads, err)
		f.m.reads.add(0, f.m.clock.Now().Sub(from), err)
	}
	if n > 0 {
		f.m.reads.add(n, f.m.clock.Now().Sub(from), nil)
	}
	return n, err
}

func (f *meterFile) WriteAt(p []byte, off int64) (int, error) {
	return f.timed(&f.m.writes, p, func(p []byte) (int, error) { return f.File.WriteAt(p, off) })
}

func (f *meterFile) Sync() error     { return f.m.timed(&f.m.sync, f.File.Sync) }
func (f *meterFile) SyncData() error { return f.m.timed(&f.m.sync, f.File.SyncData) }
