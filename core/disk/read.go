package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/cockroachdb/pebble/v2"

	"github.com/shoalstore/shoal/core"
)

// pointOptions are for looking up keys by their prefix.
func pointOptions() *pebble.IterOptions { return &pebble.IterOptions{UseL6Filters: true} }

// Get implements [core.RowStore]. A version that a commit replaced may be
// gone; at a version below the committed mark Get returns the row as of the mark.
func (d *Disk) Get(ctx context.Context, slot core.SlotID, key core.RowKey, at core.Version) (core.Row, error) {
	return d.GetInto(ctx, slot, key, at, nil)
}

// GetInto is Get with memory for the value: it is put into buf if that is large
// enough.
func (d *Disk) GetInto(ctx context.Context, slot core.SlotID, key core.RowKey, at core.Version, buf []byte) (row core.Row, err error) {
	if err := d.read(ctx); err != nil {
		return row, err
	}
	defer d.leave()
	prefix := rowPrefix(&key, slot)
	if row, ok := d.cached(slot, &key, prefix, at, buf); ok {
		return row, nil
	}
	it, err := d.db.NewIter(pointOptions())
	if err != nil {
		return row, d.readError("get", err)
	}
	defer func() {
		if cerr := it.Close(); err == nil && cerr != nil {
			err = d.readError("get", cerr)
		}
	}()
	at = d.atLeastCommitted(slot, at)
	var s suffix
	for ok := it.SeekPrefixGE(appendSeek(prefix, at)); ; ok = it.Next() {
		if !ok {
			if err := it.Error(); err != nil {
				return row, d.readError("get", err)
			}
			return row, fmt.Errorf("row %q of slot %d: %w", key.Key, slot, core.ErrNotFound)
		}
		if s, ok = parseSuffix(it.Key()[len(prefix):]); !ok {
			return row, d.readError("get", malformed("row", it.Key()))
		}
		if !d.isVoid(slot, s.version.Seq) {
			break
		}
	}
	row = core.Row{RowKey: key, Version: s.version, Deleted: s.deleted()}
	if row.Value, err = valueAt(it); err != nil {
		return core.Row{}, d.readError("get", err)
	}
	if row.Value != nil {
		row.Value = append(buf[:0], row.Value...)
	}
	return row, nil
}

// valueAt returns the verified value at the iterator; it is valid until the
// iterator moves. Empty values are nil.
func valueAt(it *pebble.Iterator) ([]byte, error) {
	v, err := it.ValueAndErr()
	if err != nil {
		return nil, err
	}
	p, err := openValue(it.Key(), v)
	if err != nil || len(p) == 0 {
		return nil, err
	}
	return p, nil
}

// Answer implements [core.RowStore].
func (d *Disk) Answer(ctx context.Context, slot core.SlotID, id core.RequestID) (v core.Version, answer []byte, err error) {
	if err := d.read(ctx); err != nil {
		return v, nil, err
	}
	defer d.leave()
	it, err := d.db.NewIter(pointOptions())
	if err != nil {
		return v, nil, d.readError("answer", err)
	}
	defer func() {
		if cerr := it.Close(); err == nil && cerr != nil {
			err = d.readError("answer", cerr)
		}
	}()
	v, answer, err = answerAt(it, slot, id, newest(), func(seq uint64) bool { return d.isVoid(slot, seq) })
	if err != nil && !errors.Is(err, core.ErrNotFound) {
		err = d.readError("answer", err)
	}
	return v, answer, err
}

// answerAt looks up the newest answer to a request not above at that is not void.
func answerAt(
	it *pebble.Iterator, slot core.SlotID, id core.RequestID, at core.Version, void func(seq uint64) bool,
) (core.Version, []byte, error) {
	prefix := answerPrefix(slot, id)
	var s suffix
	for ok := it.SeekPrefixGE(appendSeek(prefix, at)); ; ok = it.Next() {
		if !ok {
			if err := it.Error(); err != nil {
				return core.Version{}, nil, err
			}
			return core.Version{}, nil, fmt.Errorf("request %s of slot %d: %w", id, slot, core.ErrNotFound)
		}
		if s, ok = parseSuffix(it.Key()[len(prefix):]); !ok {
			return core.Version{}, nil, malformed("answer", it.Key())
		}
		if !void(s.version.Seq) {
			break
		}
	}
	v, err := it.ValueAndErr()
	if err != nil {
		return core.Version{}, nil, err
	}
	_, answer, err := decodeAnswer(it.Key(), v)
	if err != nil || len(answer) == 0 {
		return s.version, nil, err
	}
	return s.version, bytes.Clone(answer), nil
}

// entryReader goes through what is left of a slot's entries, in order: its
// index and its heads side by side, in one view of the store.
type entryReader struct {
	d             *Disk
	index, headIt *pebble.Iterator
	slot          core.SlotID
	indexOK       bool
	headOK        bool

	// Of the entry that next stands at:
	version core.Version
	time    int64
	rows    []pendingRow
	hasHead bool
	head    head
	err     error
}

// newEntryReader stands before the first entry with a sequence number above
// after.
func (d *Disk) newEntryReader(slot core.SlotID, after uint64) (*entryReader, error) {
	from, to := seqBounds(kindIndex, slot, after, newest().Seq)
	index, err := d.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return nil, err
	}
	from, to = seqBounds(kindHead, slot, after, newest().Seq)
	headIt, err := index.Clone(pebble.CloneOptions{IterOptions: &pebble.IterOptions{LowerBound: from, UpperBound: to}})
	if err != nil {
		return nil, errors.Join(err, index.Close())
	}
	return &entryReader{d: d, index: index, headIt: headIt, slot: slot, indexOK: index.First(), headOK: headIt.First()}, nil
}

func (r *entryReader) close() error { return errors.Join(r.index.Close(), r.headIt.Close()) }

// next goes to the next entry.
func (r *entryReader) next() bool {
	if r.err != nil {
		return false
	}
	if r.err = errors.Join(r.index.Error(), r.headIt.Error()); r.err != nil || !r.indexOK && !r.headOK {
		return false
	}
	seq := newest().Seq
	for _, side := range []struct {
		ok bool
		it *pebble.Iterator
	}{{r.indexOK, r.index}, {r.headOK, r.headIt}} {
		if !side.ok {
			continue
		}
		s, _, ok := parseSeq(side.it.Key())
		if !ok {
			r.err = malformed("entry", side.it.Key())
			return false
		}
		seq = min(seq, s)
	}
	r.rows, r.hasHead = r.rows[:0], false
	r.err = errors.Join(r.readHead(seq), r.readRows(seq))
	return r.err == nil
}

func (r *entryReader) readHead(seq uint64) error {
	if !r.headOK {
		return nil
	}
	key := r.headIt.Key()
	if s, _, _ := parseSeq(key); s != seq {
		return nil
	}
	v, err := r.headIt.ValueAndErr()
	if err != nil {
		return err
	}
	if r.head, err = decodeHead(key, v); err != nil {
		return err
	}
	r.hasHead, r.version, r.time = true, r.head.version(seq), r.head.time
	r.headOK = r.headIt.Next()
	return nil
}

func (r *entryReader) readRows(seq uint64) error {
	for ; r.indexOK; r.indexOK = r.index.Next() {
		key := r.index.Key()
		s, rest, ok := parseSeq(key)
		n, nok := parseIndexN(rest)
		if !ok || !nok {
			return malformed("index entry", key)
		}
		if s != seq {
			return nil
		}
		v, err := r.index.ValueAndErr()
		if err != nil {
			return err
		}
		e, err := decodeIndex(key, v)
		if err != nil {
			return err
		}
		r.version, r.time = e.version(seq), e.time
		r.rows = append(r.rows, pendingRow{prefix: bytes.Clone(e.prefix), flags: e.flags, n: n})
	}
	return nil
}

// Entries implements [core.RowStore]. Entries above the committed mark come
// whole, so that they can be sent to others as they are.
func (d *Disk) Entries(
	ctx context.Context, slot core.SlotID, after uint64, upTo core.Version, maxBytes int,
) (out core.Entries, err error) {
	if err := d.read(ctx); err != nil {
		return out, err
	}
	defer d.leave()
	committed := d.committed(slot)
	r, err := d.newEntryReader(slot, after)
	if err != nil {
		return out, d.readError("entries", err)
	}
	rows, err := r.index.Clone(pebble.CloneOptions{IterOptions: pointOptions()})
	if err != nil {
		return out, d.readError("entries", errors.Join(err, r.close()))
	}
	defer func() {
		if cerr := errors.Join(rows.Close(), r.close()); err == nil && cerr != nil {
			err = d.readError("entries", cerr)
		}
	}()
	out.UpTo = upTo
	size := 0
	for r.next() && r.version.Compare(upTo) <= 0 && !d.isVoid(slot, r.version.Seq) {
		if err := ctx.Err(); err != nil {
			return core.Entries{}, err
		}
		whole := r.version.Compare(committed) > 0
		e, err := r.entry(rows, upTo, whole)
		if err != nil {
			return core.Entries{}, d.readError(fmt.Sprintf("entry %v of slot %d", r.version, slot), err)
		}
		if !whole && len(e.Rows) == 0 && e.Request.IsZero() {
			continue
		}
		out.List = append(out.List, e)
		if size += e.Size(); size >= maxBytes {
			out.UpTo = e.Version
			break
		}
	}
	if r.err != nil {
		return core.Entries{}, d.readError("entries", r.err)
	}
	return out, nil
}

// entry reads the entry that r stands at: all of its rows or those that are the
// newest at a version.
func (r *entryReader) entry(rows *pebble.Iterator, at core.Version, whole bool) (core.Entry, error) {
	e := core.Entry{Version: r.version, Time: r.time}
	if whole {
		at = r.version
	}
	if r.hasHead {
		e.Floor, e.Request = r.head.floor, r.head.request
		if !e.Request.IsZero() {
			v, answer, err := answerAt(rows, r.slot, e.Request, r.version, func(uint64) bool { return false })
			if err == nil && v != r.version {
				err = fmt.Errorf("the answer to request %s is missing: %w", e.Request, core.ErrCorrupt)
			}
			if err != nil {
				return e, notFoundIsCorrupt(err)
			}
			e.Answer = answer
		}
	}
	var key []byte
	for i := range r.rows {
		row := &r.rows[i]
		name, _, err := parseRowPrefix(row.prefix)
		if err != nil {
			return e, err
		}
		key = appendSeek(append(key[:0], row.prefix...), at)
		var s suffix
		for ok := rows.SeekPrefixGE(key); ; ok = rows.Next() {
			if !ok {
				if err := rows.Error(); err != nil {
					return e, err
				}
				return e, fmt.Errorf("row %q is in the index only: %w", name.Key, core.ErrCorrupt)
			}
			if s, ok = parseSuffix(rows.Key()[len(row.prefix):]); !ok {
				return e, malformed("row", rows.Key())
			}
			if !r.d.isVoid(r.slot, s.version.Seq) {
				break
			}
		}
		switch {
		case s.version != r.version && whole:
			return e, fmt.Errorf("row %q is in the index only: %w", name.Key, core.ErrCorrupt)
		case s.version != r.version:
			continue
		}
		value, err := valueAt(rows)
		if err != nil {
			return e, err
		}
		e.Rows = append(e.Rows, core.Row{
			RowKey: name, Version: r.version, Deleted: s.deleted(), Value: bytes.Clone(value),
		})
	}
	return e, nil
}

// notFoundIsCorrupt is for what must be there because something refers to it.
func notFoundIsCorrupt(err error) error {
	if errors.Is(err, core.ErrNotFound) {
		return fmt.Errorf("%w: %s", core.ErrCorrupt, err.Error())
	}
	return err
}

// ctxEvery is the number of rows after which a scan looks at its ctx.
const ctxEvery = 512

// Scan implements [core.RowStore]. All rows are of one moment, that at which the
// iteration began; Visible should return a slot's committed mark as it is when
// it is called. As with Get, no mark below the one on this disk is needed.
func (d *Disk) Scan(ctx context.Context, s core.Scan) iter.Seq2[core.Found, error] {
	return func(yield func(core.Found, error) bool) {
		stopped := false
		err := d.scan(ctx, &s, func(f core.Found) bool {
			stopped = !yield(f, nil)
			return !stopped
		})
		if err != nil && !stopped {
			yield(core.Found{}, err)
		}
	}
}

func (d *Disk) scan(ctx context.Context, s *core.Scan, yield func(core.Found) bool) (err error) {
	if err := d.read(ctx); err != nil {
		return err
	}
	defer d.leave()
	from, to := scanBounds(s)
	if bytes.Compare(from, to) >= 0 {
		return nil
	}
	it, err := d.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return d.readError("scan", err)
	}
	defer func() {
		if cerr := it.Close(); err == nil && cerr != nil {
			err = d.readError("scan", cerr)
		}
	}()
	ok := it.First()
	for n := 1; ok; n++ {
		if n%ctxEvery == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		split := splitKey(it.Key())
		slot, sok := rowPrefixSlot(it.Key()[:split])
		if !sok {
			return d.readError("scan", malformed("row", it.Key()))
		}
		at, visible := s.Visible(slot)
		if !visible {
			ok = it.NextPrefix()
			continue
		}
		v, state, err := d.version(it, split, slot, at)
		if err != nil {
			return d.readError("scan", err)
		}
		if state == rowPassed {
			ok = it.Valid()
			continue
		}
		if state == rowThere {
			f := core.Found{Slot: slot}
			if f.Row, err = rowAt(it, split, s.KeysOnly); err != nil {
				return d.readError("scan", err)
			}
			f.Version = v
			if !yield(f) {
				return nil
			}
		}
		ok = it.NextPrefix()
	}
	if err := it.Error(); err != nil {
		return d.readError("scan", err)
	}
	return nil
}

// rowState says what a scan found of a row.
type rowState int

const (
	// rowThere: the iterator stands at the version to return.
	rowThere rowState = iota
	// rowDeleted: it stands at a tombstone.
	rowDeleted
	// rowPassed: no version is visible, and the iterator stands at the next
	// row already.
	rowPassed
)

// version moves the iterator, which stands at the newest version of a row, to
// the one that is visible at a version.
func (d *Disk) version(it *pebble.Iterator, split int, slot core.SlotID, at core.Version) (core.Version, rowState, error) {
	s, ok := parseSuffix(it.Key()[split:])
	if ok && s.version.Compare(at) > 0 {
		at = d.atLeastCommitted(slot, at)
	}
	passed := func() bool { return s.version.Compare(at) > 0 || d.isVoid(slot, s.version.Seq) }
	if ok && passed() {
		// What is above the mark is in flight: seldom more than a version or
		// two.
		prefix := bytes.Clone(it.Key()[:split])
		for ok && passed() {
			if !it.Next() || splitKey(it.Key()) != split || !bytes.Equal(it.Key()[:split], prefix) {
				return s.version, rowPassed, it.Error()
			}
			s, ok = parseSuffix(it.Key()[split:])
		}
	}
	switch {
	case !ok:
		return s.version, rowPassed, malformed("row", it.Key())
	case s.deleted():
		return s.version, rowDeleted, nil
	}
	return s.version, rowThere, nil
}

// rowAt reads the row at the iterator.
func rowAt(it *pebble.Iterator, split int, keysOnly bool) (row core.Row, err error) {
	if row.RowKey, _, err = parseRowPrefix(it.Key()[:split]); err == nil && !keysOnly {
		row.Value, err = valueAt(it)
	}
	return row, err
}
