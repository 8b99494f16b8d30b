package disk

import (
	"bytes"
	"fmt"

	"github.com/shoalstore/shoal/core"
)

// CheckRows compares what is kept of rows in memory with what Pebble has, and
// returns how many there are.
func (d *Disk) CheckRows() (known int, err error) {
	c := d.rows
	c.mu.Lock()
	defer c.mu.Unlock()
	// What is not hidden now cannot have been changed before the view is taken.
	it, err := d.db.NewIter(pointOptions())
	if err != nil {
		return 0, err
	}
	defer func() { err = closeIter(it, err) }()
	var size int64
	for prefix, e := range c.rows {
		r := e.Value.(*cachedRow)
		size += r.size()
		if r.prefix != prefix {
			return 0, fmt.Errorf("row %q is kept as %q", r.prefix, prefix)
		}
		if len(r.versions) == 0 {
			continue
		}
		known++
		if err := d.checkRow(it, r); err != nil {
			return 0, fmt.Errorf("row %q: %w", prefix, err)
		}
	}
	if size != c.bytes || size > c.limit || len(c.rows) != c.lru.Len() {
		return 0, fmt.Errorf("%d rows of %d bytes are kept, %d of %d are accounted for, the limit is %d", len(c.rows), size, c.lru.Len(), c.bytes, c.limit)
	}
	return known, nil
}

func (d *Disk) checkRow(it prefixIterator, r *cachedRow) error {
	left := r.versions
	for ok := it.SeekPrefixGE(appendSeek([]byte(r.prefix), newest())); ok; ok = it.Next() {
		s, ok := parseSuffix(it.Key()[len(r.prefix):])
		if !ok {
			return malformed("row", it.Key())
		}
		if slot, _ := rowPrefixSlot([]byte(r.prefix)); len(left) == 0 || left[0].suffix != s {
			if d.isVoid(slot, s.version.Seq) {
				continue
			}
			return fmt.Errorf("the disk has %v where %v is kept", s, left)
		}
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if kept := left[0].value; kept != nil && !bytes.Equal(kept, v) {
			return fmt.Errorf("version %v: %d other bytes: %w", s, len(kept), core.ErrCorrupt)
		}
		left = left[1:]
	}
	if len(left) > 0 {
		return fmt.Errorf("%v is kept and not on the disk", left)
	}
	return it.Error()
}

// prefixIterator is what checkRow uses of Pebble's iterator.
type prefixIterator interface {
	SeekPrefixGE(key []byte) bool
	Next() bool
	Key() []byte
	ValueAndErr() ([]byte, error)
	Error() error
}
