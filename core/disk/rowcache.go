package disk

import (
	"container/list"
	"slices"
	"sync"

	"github.com/shoalstore/shoal/core"
)

const (
	// keepValue is the size in bytes up to which a row's value is kept: that of
	// a record with a small object in it.
	keepValue = 4 << 10
	// keepVersions is how many versions of a row are kept. More than two are
	// there only while a slot cannot commit.
	keepVersions = 4
	// rowOverhead is roughly what a row that is kept takes beside its key and
	// its values.
	rowOverhead = 256
)

// rowCache keeps rows that were written lately: which versions of them there are
// on the disk, and the small values. A write looks up what it replaces twice,
// when it is checked and when it is committed; where a row is written again soon
// neither has to ask Pebble, which costs as much as all else that a small write
// does on a disk.
//
// Only who has claimed a slot changes its rows (see [Disk.claim]). That one hides
// the rows that it changes before Pebble sees the change, and shows them as they
// are now behind it. So what is found here is what is on the disk at that very
// moment, whoever owned the slot when; and what is not found is looked up there.
type rowCache struct {
	limit int64

	mu    sync.Mutex
	rows  map[string]*list.Element // of *cachedRow, by prefix
	lru   list.List                // the last used first
	bytes int64
}

// cachedRow is a row with all versions of it that are on the disk, but for void
// ones, the newest first. No version: it is being changed. The slice that is
// here is never changed.
type cachedRow struct {
	prefix   string
	versions []rowVersion
}

// rowVersion is one version of a row. What it stands for must not be changed.
type rowVersion struct {
	suffix
	// value is as in Pebble, with its checksum; nil if it is not kept.
	value []byte
}

func newRowCache(limit int64) *rowCache {
	return &rowCache{limit: limit, rows: map[string]*list.Element{}}
}

// keeps says whether the cache is in use.
func (c *rowCache) keeps() bool { return c.limit > 0 }

// get returns the versions of a row, none if they are not known.
func (c *rowCache) get(prefix []byte) []rowVersion {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.rows[string(prefix)]
	if e == nil {
		return nil
	}
	c.lru.MoveToFront(e)
	return e.Value.(*cachedRow).versions
}

// hide makes what is known of the rows unknown.
func (c *rowCache) hide(rows map[string][]rowVersion) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for prefix := range rows {
		if e := c.rows[prefix]; e != nil {
			r := e.Value.(*cachedRow)
			c.bytes -= r.size()
			r.versions = nil
			c.bytes += r.size()
		}
	}
}

// show makes the rows known as they are on the disk.
func (c *rowCache) show(rows map[string][]rowVersion) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for prefix, versions := range rows {
		e := c.rows[prefix]
		if len(versions) == 0 || len(versions) > keepVersions {
			c.drop(e)
			continue
		}
		if e == nil {
			e = c.lru.PushFront(&cachedRow{prefix: prefix})
			c.rows[prefix] = e
			c.bytes += e.Value.(*cachedRow).size()
		} else {
			c.lru.MoveToFront(e)
		}
		r := e.Value.(*cachedRow)
		c.bytes -= r.size()
		r.versions = versions
		c.bytes += r.size()
	}
	for c.bytes > c.limit {
		c.drop(c.lru.Back())
	}
}

func (c *rowCache) drop(e *list.Element) {
	if e == nil {
		return
	}
	r := c.lru.Remove(e).(*cachedRow)
	delete(c.rows, r.prefix)
	c.bytes -= r.size()
}

func (r *cachedRow) size() int64 {
	n := rowOverhead + len(r.prefix)
	for i := range r.versions {
		n += len(r.versions[i].value)
	}
	return int64(n)
}

// cached is Get from memory; ok is false if Pebble must be asked.
func (d *Disk) cached(slot core.SlotID, key *core.RowKey, prefix []byte, at core.Version, buf []byte) (row core.Row, ok bool) {
	versions := d.rows.get(prefix)
	if len(versions) == 0 {
		return row, false
	}
	at = d.atLeastCommitted(slot, at)
	for i := range versions {
		v := &versions[i]
		if v.version.Compare(at) > 0 || d.isVoid(slot, v.version.Seq) {
			continue
		}
		if v.value == nil {
			return row, false
		}
		value, err := openValue(appendSuffix(prefix, v.version, v.flags, v.n), v.value)
		if err != nil {
			return row, false
		}
		row = core.Row{RowKey: *key, Version: v.version, Deleted: v.deleted()}
		if len(value) > 0 {
			row.Value = append(buf[:0], value...)
		}
		return row, true
	}
	return row, false
}

// row returns the versions of a row as the change leaves them so far; ok is
// false if they are not known.
func (c *change) row(prefix []byte) (versions []rowVersion, ok bool) {
	if versions, ok = c.rows[string(prefix)]; ok {
		return versions, true
	}
	versions = c.d.rows.get(prefix)
	return versions, len(versions) > 0
}

// setRow notes the versions of a row, which the caller gives away.
func (c *change) setRow(prefix []byte, versions []rowVersion) {
	if c.rows == nil {
		c.rows = map[string][]rowVersion{}
	}
	c.rows[string(prefix)] = versions
}

// addVersion notes that the change writes a version of a row. The values of
// older ones are not kept: they will hardly be asked for.
func (c *change) addVersion(prefix []byte, v rowVersion) {
	old, ok := c.row(prefix)
	if !ok {
		return
	}
	versions := make([]rowVersion, 0, len(old)+1)
	for _, o := range old {
		switch cmp := o.version.Compare(v.version); {
		case cmp > 0:
			v.value = nil
			versions = append(versions, o)
		case cmp < 0:
			o.value = nil
			versions = append(versions, o)
		}
	}
	versions = append(versions, v)
	slices.SortFunc(versions, func(a, b rowVersion) int { return b.version.Compare(a.version) })
	c.setRow(prefix, versions)
}

// dropVersion notes that the change removes a version of a row.
func (c *change) dropVersion(prefix []byte, s suffix) {
	versions, ok := c.row(prefix)
	if !ok {
		return
	}
	left := make([]rowVersion, 0, len(versions))
	for _, v := range versions {
		if v.suffix != s {
			left = append(left, v)
		}
	}
	c.setRow(prefix, left)
}

// learn notes what there is of a row whose versions below that of w's n-th
// pending entry are gone: that one, and those of pending entries behind it.
func (c *change) learn(w *slotWork, prefix []byte, n int) {
	if !c.d.rows.keeps() {
		return
	}
	var versions []rowVersion
	for i := len(w.pending) - 1; i >= n; i-- {
		p := &w.pending[i]
		for j := range p.rows {
			if r := &p.rows[j]; string(r.prefix) == string(prefix) {
				v := r.of(p.version)
				if len(versions) > 0 {
					v.value = nil
				}
				versions = append(versions, v)
			}
		}
	}
	c.setRow(prefix, versions)
}

// of is the version that an entry wrote.
func (r *pendingRow) of(v core.Version) rowVersion {
	return rowVersion{suffix: suffix{version: v, flags: r.flags, n: r.n}, value: r.value}
}
