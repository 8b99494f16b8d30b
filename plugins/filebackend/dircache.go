package filebackend

import (
	"os"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
)

const (
	// cachedNames is how many names of directories are kept in memory.
	cachedNames = 1 << 20
	// leastCached is the size of a directory from which on keeping it is worth it.
	leastCached = 2 * pageSize
	// settled is how long ago a directory must have changed last for its time to
	// tell every later change, with the coarsest clocks.
	settled = 3 * time.Second
)

// dirCache keeps the names of large directories, so that a listing page by page
// does not read and sort all of them for each page.
type dirCache struct {
	mu    sync.Mutex
	dirs  map[dirKey]cachedDir
	order []dirKey // oldest first
	names int
}

type dirKey struct{ bucket, at string }

type cachedDir struct {
	version core.RemoteVersion
	entries []entry // never changed
}

func newDirCache() *dirCache { return &dirCache{dirs: map[dirKey]cachedDir{}} }

// read reads a directory, or remembers it. The result is not to be changed.
func (c *dirCache) read(r *os.Root, bucket, at string, now time.Time) ([]entry, error) {
	fi, err := r.Stat(".")
	if err != nil {
		return nil, err
	}
	key, v := dirKey{bucket, at}, version(fi)
	if entries, ok := c.get(key, v); ok {
		return entries, nil
	}
	entries, err := readDir(r, at, now)
	if err == nil && len(entries) >= leastCached && now.Sub(fi.ModTime()) > settled {
		c.put(key, cachedDir{v, entries})
	}
	return entries, err
}

func (c *dirCache) get(key dirKey, v core.RemoteVersion) ([]entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d, ok := c.dirs[key]
	return d.entries, ok && d.version == v
}

func (c *dirCache) put(key dirKey, d cachedDir) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.dirs[key]; ok {
		c.names -= len(old.entries)
	} else {
		c.order = append(c.order, key)
	}
	c.dirs[key] = d
	c.names += len(d.entries)
	for c.names > cachedNames && len(c.order) > 1 {
		oldest := c.order[0]
		c.order = c.order[1:]
		c.names -= len(c.dirs[oldest].entries)
		delete(c.dirs, oldest)
	}
}
