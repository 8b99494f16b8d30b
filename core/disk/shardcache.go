package disk

import (
	"container/list"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/vfs"
)

const (
	// keepTable is the size in bytes of the largest table that is kept: that
	// of a shard of 128 MiB. For more the opening does not matter.
	keepTable = 16 << 10
	// lookEvery is how long a file is taken for the one under its name by those
	// who do not want to wait.
	lookEvery = time.Second
	// keepFor is how long a file's description is believed before it is read
	// and verified again.
	keepFor = time.Minute
)

// openFiles are the files of shards that are open. Each is shared by its
// readers, and those used last are kept for the next ones: to open a file costs
// as much as a small answer. A file is compared with what is under its name, so
// that one which was taken away, replaced or changed behind the disk's back is
// noticed as it is without them; for those who do not want to wait, once a second.
type openFiles struct {
	d *Disk

	mu   sync.Mutex
	kept map[core.ShardID]*list.Element // of *openFile
	lru  list.List                      // of *openFile, the last used first
	shut bool
}

// openFile is an open shard file. Its description is verified.
type openFile struct {
	id    core.ShardID
	f     vfs.File
	stat  fs.FileInfo
	until core.Instant
	size  int64
	table []byte

	// The rest is guarded by mu of openFiles.
	users int
	kept  bool
	// looked is when the file was last seen under its name.
	looked core.Instant
	// lent says that a reader uses the file's position.
	lent bool
}

func newOpenFiles(d *Disk) *openFiles {
	return &openFiles{d: d, kept: map[core.ShardID]*list.Element{}}
}

// get returns a shard's file if it is kept and still the one under the
// shard's name, or was a moment ago. The caller puts it back.
func (c *openFiles) get(id core.ShardID, lately bool) *openFile {
	c.mu.Lock()
	e := c.kept[id]
	if e == nil {
		c.mu.Unlock()
		return nil
	}
	o := e.Value.(*openFile)
	o.users++
	c.lru.MoveToFront(e)
	looked := o.looked
	c.mu.Unlock()
	now := c.d.clock.Boot()
	if lately && now < min(o.until, looked.Add(lookEvery)) {
		return o
	}
	if now < o.until {
		if st, err := c.d.fs.Stat(c.d.shards.name(id)); err == nil && sameFile(st, o.stat) {
			c.mu.Lock()
			o.looked = now
			c.mu.Unlock()
			return o
		}
	}
	c.drop(id, o)
	_ = c.put(o) // it was only read
	return nil
}

// sameFile says whether nothing has happened to a file.
func sameFile(a, b fs.FileInfo) bool {
	if a.Size() != b.Size() || !a.ModTime().Equal(b.ModTime()) {
		return false
	}
	return os.SameFile(a, b) || a.Sys() == nil && b.Sys() == nil // a file system in memory has no more to say
}

// add takes over a file that was just opened, for one user.
func (c *openFiles) add(id core.ShardID, f vfs.File, info shardInfo) *openFile {
	now := c.d.clock.Boot()
	o := &openFile{
		id: id, f: f, stat: info.stat, until: now.Add(keepFor), looked: now,
		size: info.footer.size, table: info.table, users: 1,
	}
	c.mu.Lock()
	var idle vfs.File
	if !c.shut && c.d.opt.KeepOpen > 0 && len(o.table) <= keepTable && c.kept[id] == nil {
		o.kept = true
		c.kept[id] = c.lru.PushFront(o)
		if c.lru.Len() > c.d.opt.KeepOpen {
			idle = c.forget(c.lru.Back())
		}
	}
	c.mu.Unlock()
	closeIdle(idle)
	return o
}

// forget stops keeping a file, which it returns if nobody uses it: then the
// caller, who holds mu, is to close it later.
func (c *openFiles) forget(e *list.Element) vfs.File {
	o := c.lru.Remove(e).(*openFile)
	delete(c.kept, o.id)
	o.kept = false
	if o.users > 0 {
		return nil
	}
	return o.f
}

// closeIdle closes files of which nil ones are none.
func closeIdle(files ...vfs.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close() // it was only read
		}
	}
}

// drop stops keeping a shard's file: o, or with nil whichever it is.
func (c *openFiles) drop(id core.ShardID, o *openFile) {
	c.mu.Lock()
	var idle vfs.File
	if e := c.kept[id]; e != nil && (o == nil || e.Value.(*openFile) == o) {
		idle = c.forget(e)
	}
	c.mu.Unlock()
	closeIdle(idle)
}

// put ends a use.
func (c *openFiles) put(o *openFile) error {
	c.mu.Lock()
	o.users--
	last := o.users == 0 && !o.kept
	c.mu.Unlock()
	if last {
		return o.f.Close()
	}
	return nil
}

// lend gives the use of the file's position to one reader at a time. It returns
// false if it is lent already.
func (c *openFiles) lend(o *openFile) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o.lent {
		return false
	}
	o.lent = true
	return true
}

func (c *openFiles) giveBack(o *openFile) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o.lent = false
}

// close closes all files that nobody uses; the others are closed by their last
// users.
func (c *openFiles) close() {
	c.mu.Lock()
	c.shut = true
	var idle []vfs.File
	for e := c.lru.Front(); e != nil; e = c.lru.Front() {
		idle = append(idle, c.forget(e))
	}
	c.mu.Unlock()
	closeIdle(idle...)
}
