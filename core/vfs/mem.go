package vfs

import (
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// Mem is a file system in memory that tells what is durable from what is not.
// [Mem.Crash] returns what a machine finds after it lost power.
type Mem struct {
	now      func() time.Time
	noDirect bool

	mu       sync.Mutex
	root     *node
	locks    map[*node]bool
	capacity int64
	used     int64
}

// MemOptions configure a [Mem].
type MemOptions struct {
	// Now is the clock of modification times; nil leaves them zero.
	Now func() time.Time
	// Capacity, if not 0, is the size in bytes beyond which writes fail with
	// syscall.ENOSPC; see [Mem.SetCapacity].
	Capacity int64
	// NoDirect makes CreateDirect fail as it does where the kernel cannot.
	NoDirect bool
}

// defaultCapacity is what Usage reports where no limit is set.
const defaultCapacity = 1 << 40

// NewMem returns an empty file system whose root directory is durable.
func NewMem(o MemOptions) *Mem {
	m := &Mem{now: o.Now, noDirect: o.NoDirect, root: newDir(), locks: map[*node]bool{}, capacity: o.Capacity}
	if m.now == nil {
		m.now = func() time.Time { return time.Time{} }
	}
	if m.capacity == 0 {
		m.capacity = defaultCapacity
	}
	return m
}

// SetCapacity changes the size of the file system.
func (m *Mem) SetCapacity(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = bytes
}

// node is a file or a directory.
type node struct {
	// children is what a directory holds, durable what it would hold after a
	// crash, and pending the changes that lie between, in order.
	children, durable map[string]*node
	pending           []*dirChange

	// data is what a file holds, stable what of it is durable, and dirty the
	// ranges written in between.
	data, stable []byte
	dirty        []span
	links        int
	mtime        time.Time
}

type span struct{ from, to int64 }

// dirChange is a change of a directory: name now is node, or nothing if node
// is nil. A rename within a directory is one change with a second name that
// goes, and so is atomic; between directories it is two, of which the removal
// does not happen without the addition.
type dirChange struct {
	name  string
	node  *node
	gone  string
	needs *dirChange
	in    *node
	done  bool
}

func newDir() *node { return &node{children: map[string]*node{}, durable: map[string]*node{}} }

func (n *node) isDir() bool { return n.children != nil }

func (n *node) change(c *dirChange) *dirChange {
	c.in = n
	c.apply(n.children)
	n.pending = append(n.pending, c)
	return c
}

func (c *dirChange) apply(to map[string]*node) {
	if c.gone != "" {
		delete(to, c.gone)
	}
	switch {
	case c.name == "":
	case c.node == nil:
		delete(to, c.name)
	default:
		to[c.name] = c.node
	}
}

// settle makes the change durable.
func (c *dirChange) settle() {
	if c.done {
		return
	}
	if c.needs != nil {
		c.needs.settle()
	}
	c.done = true
	c.apply(c.in.durable)
}

func memError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

func split(name string) []string {
	name = path.Clean("/" + filepath.ToSlash(name))
	if name == "/" {
		return nil
	}
	return strings.Split(name[1:], "/")
}

func (m *Mem) find(name string) *node {
	n := m.root
	for _, part := range split(name) {
		if n == nil || !n.isDir() {
			return nil
		}
		n = n.children[part]
	}
	return n
}

// parent returns the directory that holds name, and name's last part.
func (m *Mem) parent(op, name string) (*node, string, error) {
	parts := split(name)
	if len(parts) == 0 {
		return nil, "", memError(op, name, fs.ErrInvalid)
	}
	n := m.root
	for _, part := range parts[:len(parts)-1] {
		if n = n.children[part]; n == nil || !n.isDir() {
			return nil, "", memError(op, name, fs.ErrNotExist)
		}
	}
	return n, parts[len(parts)-1], nil
}

// Create implements [FS].
func (m *Mem) Create(name string) (File, error) { return m.create(name, false) }

// CreateDirect implements [FS]; the file checks the alignment of writes.
func (m *Mem) CreateDirect(name string) (File, error) {
	if m.noDirect {
		return nil, memError("open direct", name, syscall.EOPNOTSUPP)
	}
	return m.create(name, true)
}

func (m *Mem) create(name string, direct bool) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.parent("create", name)
	if err != nil {
		return nil, err
	}
	if dir.children[base] != nil {
		return nil, memError("create", name, fs.ErrExist)
	}
	n := &node{links: 1, mtime: m.now()}
	dir.change(&dirChange{name: base, node: n})
	return &memFile{m: m, n: n, name: name, writable: true, direct: direct}, nil
}

// Open implements [FS].
func (m *Mem) Open(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.find(name)
	if n == nil {
		return nil, memError("open", name, fs.ErrNotExist)
	}
	return &memFile{m: m, n: n, name: name}, nil
}

// OpenReadWrite implements [FS].
func (m *Mem) OpenReadWrite(name string) (File, error) {
	m.mu.Lock()
	n := m.find(name)
	m.mu.Unlock()
	if n == nil {
		return m.create(name, false)
	}
	if n.isDir() {
		return nil, memError("open", name, syscall.EISDIR)
	}
	return &memFile{m: m, n: n, name: name, writable: true}, nil
}

// Link implements [FS].
func (m *Mem) Link(oldname, newname string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.find(oldname)
	dir, base, err := m.parent("link", newname)
	switch {
	case err != nil:
		return err
	case n == nil || n.isDir():
		return memError("link", oldname, fs.ErrNotExist)
	case dir.children[base] != nil:
		return memError("link", newname, fs.ErrExist)
	}
	n.links++
	dir.change(&dirChange{name: base, node: n})
	return nil
}

// Rename implements [FS].
func (m *Mem) Rename(oldname, newname string) error { return m.rename(oldname, newname, true) }

// RenameNew implements [FS].
func (m *Mem) RenameNew(oldname, newname string) error { return m.rename(oldname, newname, false) }

func (m *Mem) rename(oldname, newname string, replace bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	from, oldBase, err := m.parent("rename", oldname)
	if err != nil {
		return err
	}
	to, newBase, err := m.parent("rename", newname)
	if err != nil {
		return err
	}
	n := from.children[oldBase]
	if n == nil {
		return memError("rename", oldname, fs.ErrNotExist)
	}
	if old := to.children[newBase]; old != nil {
		switch {
		case !replace:
			return memError("rename", newname, fs.ErrExist)
		case old == n:
			return nil
		case old.isDir() && len(old.children) > 0:
			return memError("rename", newname, syscall.ENOTEMPTY)
		}
		m.unlink(old)
	}
	if from == to {
		to.change(&dirChange{name: newBase, node: n, gone: oldBase})
		return nil
	}
	add := to.change(&dirChange{name: newBase, node: n})
	from.change(&dirChange{gone: oldBase, needs: add})
	return nil
}

func (m *Mem) unlink(n *node) {
	if n.links--; n.links == 0 && !n.isDir() {
		m.used -= int64(len(n.data))
	}
}

// Remove implements [FS].
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.remove(name)
}

func (m *Mem) remove(name string) error {
	dir, base, err := m.parent("remove", name)
	if err != nil {
		return err
	}
	n := dir.children[base]
	switch {
	case n == nil:
		return memError("remove", name, fs.ErrNotExist)
	case n.isDir() && len(n.children) > 0:
		return memError("remove", name, syscall.ENOTEMPTY)
	}
	m.unlink(n)
	dir.change(&dirChange{name: base})
	return nil
}

// RemoveAll implements [FS].
func (m *Mem) RemoveAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.removeAll(name)
}

func (m *Mem) removeAll(name string) error {
	n := m.find(name)
	if n == nil {
		return nil
	}
	for _, c := range sortedNames(n.children) {
		if err := m.removeAll(path.Join(name, c)); err != nil {
			return err
		}
	}
	return m.remove(name)
}

func sortedNames(children map[string]*node) []string {
	names := make([]string, 0, len(children))
	for c := range children {
		names = append(names, c)
	}
	slices.Sort(names)
	return names
}

// MkdirAll implements [FS].
func (m *Mem) MkdirAll(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.root
	for _, part := range split(dir) {
		c := n.children[part]
		if c == nil {
			c = newDir()
			n.change(&dirChange{name: part, node: c})
		}
		if !c.isDir() {
			return memError("mkdir", dir, syscall.ENOTDIR)
		}
		n = c
	}
	return nil
}

// List implements [FS].
func (m *Mem) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.find(dir)
	if n == nil || !n.isDir() {
		return nil, memError("list", dir, fs.ErrNotExist)
	}
	return sortedNames(n.children), nil
}

// Stat implements [FS].
func (m *Mem) Stat(name string) (fs.FileInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.find(name)
	if n == nil {
		return nil, memError("stat", name, fs.ErrNotExist)
	}
	return n.info(name), nil
}

// SyncDir implements [FS].
func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.find(dir)
	if n == nil || !n.isDir() {
		return memError("sync", dir, fs.ErrNotExist)
	}
	for _, c := range n.pending {
		c.settle()
	}
	n.pending = nil
	return nil
}

// Lock implements [FS].
func (m *Mem) Lock(name string) (io.Closer, error) {
	f, err := m.OpenReadWrite(name)
	if err != nil {
		return nil, err
	}
	n := f.(*memFile).n
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locks[n] {
		return nil, memError("lock", name, syscall.EWOULDBLOCK)
	}
	m.locks[n] = true
	return &memLock{m: m, n: n}, nil
}

type memLock struct {
	m *Mem
	n *node
}

func (l *memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.n != nil {
		delete(l.m.locks, l.n)
	}
	l.n = nil
	return nil
}

// Usage implements [FS].
func (m *Mem) Usage(string) (Usage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Usage{Total: m.capacity, Free: max(m.capacity-m.used, 0)}, nil
}

// Corrupt flips the bits of mask in the byte at off of a file, behind the back
// of whoever has it open.
func (m *Mem) Corrupt(name string, off int64, mask byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.find(name)
	if n == nil || n.isDir() || off >= int64(len(n.data)) {
		return memError("corrupt", name, fs.ErrNotExist)
	}
	n.data[off] ^= mask
	if off < int64(len(n.stable)) {
		n.stable[off] ^= mask
	}
	return nil
}

// memFile is an open file. Its position is guarded by m.mu as all else is.
type memFile struct {
	m        *Mem
	n        *node
	name     string
	writable bool
	direct   bool
	pos      int64
	closed   bool
}

func (f *memFile) check(op string, write bool) error {
	switch {
	case f.closed:
		return memError(op, f.name, fs.ErrClosed)
	case write && !f.writable, f.n.isDir():
		return memError(op, f.name, syscall.EBADF)
	}
	return nil
}

func (f *memFile) Read(p []byte) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	n, err := f.readAt(p, f.pos)
	f.pos += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return f.readAt(p, off)
}

// ReadNow implements [File]: all is in memory.
func (f *memFile) ReadNow(p []byte, off int64) (int, error) { return f.ReadAt(p, off) }

func (f *memFile) readAt(p []byte, off int64) (int, error) {
	if err := f.check("read", false); err != nil {
		return 0, err
	}
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) Write(p []byte) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	n, err := f.writeAt(p, f.pos)
	f.pos += int64(n)
	return n, err
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return f.writeAt(p, off)
}

func (f *memFile) writeAt(p []byte, off int64) (int, error) {
	if err := f.check("write", true); err != nil {
		return 0, err
	}
	if f.direct && len(p) > 0 {
		addr := uintptr(unsafe.Pointer(unsafe.SliceData(p))) //nolint:gosec // only its alignment is of interest
		if addr%Alignment != 0 || off%Alignment != 0 || len(p)%Alignment != 0 {
			return 0, memError("write", f.name, syscall.EINVAL)
		}
	}
	if len(p) == 0 {
		return 0, nil
	}
	end := off + int64(len(p))
	if grow := end - int64(len(f.n.data)); grow > 0 {
		room := f.m.capacity - f.m.used
		if grow > room {
			// As the kernel does: what fits is written.
			if p = p[:max(int64(len(p))-(grow-max(room, 0)), 0)]; len(p) == 0 {
				return 0, memError("write", f.name, syscall.ENOSPC)
			}
			end = off + int64(len(p))
			f.put(p, off, end)
			return len(p), memError("write", f.name, syscall.ENOSPC)
		}
	}
	f.put(p, off, end)
	return len(p), nil
}

func (f *memFile) put(p []byte, off, end int64) {
	n := f.n
	if grow := end - int64(len(n.data)); grow > 0 {
		n.data = append(n.data, make([]byte, grow)...)
		if n.links > 0 {
			f.m.used += grow
		}
	}
	copy(n.data[off:], p)
	n.mtime = f.m.now()
	if k := len(n.dirty); k > 0 && n.dirty[k-1].to == off {
		n.dirty[k-1].to = end
		return
	}
	n.dirty = append(n.dirty, span{off, end})
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return memError("close", f.name, fs.ErrClosed)
	}
	f.closed = true
	return nil
}

func (f *memFile) Stat() (fs.FileInfo, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return nil, memError("stat", f.name, fs.ErrClosed)
	}
	return f.n.info(f.name), nil
}

func (f *memFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.check("truncate", true); err != nil {
		return err
	}
	n := f.n
	old := int64(len(n.data))
	if size > old {
		f.put(make([]byte, size-old), old, size)
		return nil
	}
	n.data = n.data[:size:size]
	if n.links > 0 {
		f.m.used -= old - size
	}
	for i := range n.dirty {
		n.dirty[i].from, n.dirty[i].to = min(n.dirty[i].from, size), min(n.dirty[i].to, size)
	}
	return nil
}

func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.check("sync", false); err != nil {
		return err
	}
	f.n.settle()
	return nil
}

func (f *memFile) SyncData() error            { return f.Sync() }
func (f *memFile) StartSync(_, _ int64) error { return nil }
func (f *memFile) Prefetch(_, _ int64)        {}
func (f *memFile) OSFile() *os.File           { return nil }
func (f *memFile) Allocate(off, n int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if grow := off + n - int64(len(f.n.data)); grow > f.m.capacity-f.m.used {
		return memError("allocate", f.name, syscall.ENOSPC)
	}
	return nil
}

// settle makes a file's bytes durable.
func (n *node) settle() {
	size := int64(len(n.data))
	if int64(len(n.stable)) > size {
		n.stable = n.stable[:size]
	}
	if grow := size - int64(len(n.stable)); grow > 0 {
		n.stable = append(n.stable, make([]byte, grow)...)
	}
	for _, d := range n.dirty {
		copy(n.stable[d.from:d.to], n.data[d.from:d.to])
	}
	n.dirty = n.dirty[:0]
}

func (n *node) info(name string) fs.FileInfo {
	return memInfo{name: path.Base(filepath.ToSlash(name)), size: int64(len(n.data)), dir: n.isDir(), mtime: n.mtime}
}

type memInfo struct {
	name  string
	size  int64
	dir   bool
	mtime time.Time
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) ModTime() time.Time { return i.mtime }
func (i memInfo) IsDir() bool        { return i.dir }
func (i memInfo) Sys() any           { return nil }
func (i memInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | dirPerm
	}
	return filePerm
}

// Crash returns the file system as a machine finds it after it lost power now.
// With a nil rng everything that was not synced is gone. With one, a random
// part of it is there: of every file any of the sectors written, of every
// directory its changes up to some point, as with a journal.
//
// m itself stays as it is and can be used further; the two share nothing.
func (m *Mem) Crash(rng *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := NewMem(MemOptions{Now: m.now, Capacity: m.capacity, NoDirect: m.noDirect})
	keep := map[*dirChange]bool{}
	if rng != nil {
		m.root.walk(map[*node]bool{}, func(n *node) {
			for _, ch := range n.pending[:rng.IntN(len(n.pending)+1)] {
				keep[ch] = true
			}
		})
	}
	cr := crash{rng: rng, keep: keep, copies: map[*node]*node{}, out: c}
	c.root = cr.copy(m.root)
	return c
}

// Clone returns a copy of the file system as it is.
func (m *Mem) Clone() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := NewMem(MemOptions{Now: m.now, Capacity: m.capacity, NoDirect: m.noDirect})
	cl := crash{whole: true, copies: map[*node]*node{}, out: c}
	c.root = cl.copy(m.root)
	return c
}

func (n *node) walk(seen map[*node]bool, visit func(*node)) {
	if seen[n] || !n.isDir() {
		return
	}
	seen[n] = true
	visit(n)
	for _, c := range sortedNames(n.children) {
		n.children[c].walk(seen, visit)
	}
	for _, ch := range n.pending {
		if ch.node != nil {
			ch.node.walk(seen, visit)
		}
	}
}

// crash copies what survives.
type crash struct {
	rng    *rand.Rand
	whole  bool
	keep   map[*dirChange]bool
	copies map[*node]*node
	out    *Mem
}

func (c *crash) copy(n *node) *node {
	if d := c.copies[n]; d != nil {
		d.links++
		return d
	}
	if !n.isDir() {
		d := &node{data: c.content(n), links: 1, mtime: n.mtime}
		d.stable = slices.Clone(d.data)
		c.out.used += int64(len(d.data))
		c.copies[n] = d
		return d
	}
	d := newDir()
	c.copies[n] = d
	children := n.children
	if !c.whole {
		children = maps.Clone(n.durable)
		for _, ch := range n.pending {
			if !ch.done && c.keep[ch] && (ch.needs == nil || ch.needs.done || c.keep[ch.needs]) {
				ch.apply(children)
			}
		}
	}
	for _, name := range sortedNames(children) {
		child := c.copy(children[name])
		d.children[name], d.durable[name] = child, child
	}
	return d
}

// sector is the unit in which a torn write is torn.
const sector = 512

func (c *crash) content(n *node) []byte {
	if c.whole {
		return slices.Clone(n.data)
	}
	out := slices.Clone(n.stable)
	if c.rng == nil {
		return out
	}
	have, want := int64(len(n.stable)), int64(len(n.data))
	size := want
	if have != want {
		lo, hi := min(have, want), max(have, want)
		switch c.rng.IntN(3) {
		case 0:
			size = have
		case 1:
			size = lo + c.rng.Int64N(hi-lo+1)
		}
	}
	if size <= have {
		out = out[:size]
	} else {
		out = append(out, make([]byte, size-have)...)
	}
	odds := []float64{0, 0.3, 0.7, 1}[c.rng.IntN(4)]
	for _, d := range n.dirty {
		for from := d.from; from < d.to; {
			to := min(from-from%sector+sector, d.to)
			if c.rng.Float64() < odds && from < size {
				copy(out[from:min(to, size)], n.data[from:min(to, want)])
			}
			from = to
		}
	}
	return out
}
