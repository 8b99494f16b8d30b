package disk

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/shoalstore/shoal/core"
)

// Apply implements [core.RowStore]. Beyond what is said there: after
// ErrInvalid, ErrNoSpace, or an error of ctx nothing has happened and the disk
// is as good as before. ErrNoSpace is returned only to batches that bring rows
// with values, see [Options].Reserve. Batches of one slot may follow each other
// in one call.
func (d *Disk) Apply(ctx context.Context, batches []core.SlotBatch) error {
	if err := d.write(ctx); err != nil {
		return err
	}
	defer d.leave()
	if len(batches) == 0 {
		return nil
	}
	if err := d.admit(ctx, batches); err != nil {
		return err
	}
	claimed, err := d.claim(batches)
	if err != nil {
		return err
	}
	c := d.newChange(claimed)
	if err := c.build(batches); err != nil {
		d.releaseSlots(claimed, nil)
		return d.readError("apply", err)
	}
	if err := c.commit(pebble.Sync); err != nil {
		d.releaseSlots(claimed, nil)
		return fmt.Errorf("disk %s: %w", d.id.UUID, err)
	}
	d.releaseSlots(claimed, c.slots)
	return nil
}

// admit refuses or holds back what the disk has no room for.
func (d *Disk) admit(ctx context.Context, batches []core.SlotBatch) error {
	var all, puts int64
	count := func(entries []core.Entry) {
		for i := range entries {
			all += int64(entries[i].Size())
			for j := range entries[i].Rows {
				if r := &entries[i].Rows[j]; !r.Deleted {
					puts += int64(len(r.Key) + len(r.Sub) + len(r.Value) + 64)
				}
			}
		}
	}
	for i := range batches {
		count(batches[i].Append)
		if batches[i].Replace != nil {
			count(batches[i].Replace.Entries)
		}
	}
	if puts > 0 {
		if err := d.rowRoom(puts); err != nil {
			return err
		}
	}
	return d.throttle(ctx, all)
}

// change is one Apply being built.
type change struct {
	d       *Disk
	b       *pebble.Batch
	it      *pebble.Iterator // over the rows with what b changes; nil until needed
	claimed map[core.SlotID]*slotRows
	slots   map[core.SlotID]*slotWork
	order   []core.SlotID
	rows    map[string][]rowVersion // what it leaves of rows that are known; see rowCache
	key     []byte
	objects int64 // versions of rows of objects that come, less those that go
}

// slotWork is a slot as it will be after the change.
type slotWork struct {
	slot    core.SlotID
	exists  bool
	state   core.SlotState
	pending []pendingEntry
	void    uint64
}

func (d *Disk) newChange(claimed map[core.SlotID]*slotRows) *change {
	return &change{
		d: d, b: d.db.NewIndexedBatch(), claimed: claimed,
		slots: make(map[core.SlotID]*slotWork, len(claimed)),
	}
}

func (c *change) build(batches []core.SlotBatch) (err error) {
	defer func() { err = c.built(err) }()
	for i := range batches {
		if err := c.apply(&batches[i]); err != nil {
			return fmt.Errorf("slot %d: %w", batches[i].Slot, err)
		}
	}
	for _, slot := range c.order {
		key := stateKey(slot)
		w := c.slots[slot]
		switch {
		case w.exists:
			err = c.b.Set(key, encodeState(key, &w.state), nil)
		case c.claimed[slot].readAt.Load() != nil:
			err = c.b.Delete(key, nil)
		}
		if err == nil {
			err = c.putVoid(w)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// built ends the building of a change, which came to err.
func (c *change) built(err error) error {
	if c.it != nil {
		err = closeIter(c.it, err)
		c.it = nil
	}
	if err != nil {
		_ = c.b.Close()
	}
	return err
}

// commit makes the change visible, and with pebble.Sync durable.
func (c *change) commit(o *pebble.WriteOptions) error {
	for slot, w := range c.slots {
		s := c.claimed[slot]
		if mark := s.readAt.Load(); mark != nil && w.state.Committed.Compare(*mark) > 0 {
			v := w.state.Committed
			s.readAt.Store(&v)
		}
	}
	c.d.rows.hide(c.rows)
	err := c.b.Commit(o)
	// Pebble is not told of errors of its log (see pebbleFS): they are here.
	if ferr := c.d.fail.err(); ferr != nil {
		return ferr
	}
	if err != nil {
		err = c.d.readError("commit", err)
		c.d.fail.fail(err)
		return err
	}
	c.d.rows.show(c.rows)
	c.d.objects.Add(c.objects)
	return c.b.Close()
}

func (c *change) work(slot core.SlotID) *slotWork {
	w := c.slots[slot]
	if w == nil {
		s := c.claimed[slot]
		w = &slotWork{slot: slot, exists: s.readAt.Load() != nil, state: s.state, pending: slices.Clip(s.pending), void: s.void}
		c.slots[slot] = w
		c.order = append(c.order, slot)
	}
	return w
}

func (c *change) apply(b *core.SlotBatch) error {
	w := c.work(b.Slot)
	if b.Remove {
		// What it has becomes void; see reclaim.go.
		*w = slotWork{slot: w.slot, void: max(w.void, w.state.Last.Seq)}
	}
	if b.Adopt != nil {
		w.exists = true
		if b.Adopt.Compare(w.state.Ballot) > 0 {
			w.state.Ballot = *b.Adopt
		}
	}
	if b.Undo != nil {
		if err := c.undo(w, *b.Undo); err != nil {
			return fmt.Errorf("undo above %v: %w", *b.Undo, err)
		}
	}
	if b.Replace != nil {
		w.exists = true
		if err := c.replace(w, b.Replace); err != nil {
			return fmt.Errorf("replace (%d, %d]: %w", b.Replace.After, b.Replace.UpTo.Seq, err)
		}
	}
	for i := range b.Append {
		w.exists = true
		if err := c.append(w, &b.Append[i]); err != nil {
			return fmt.Errorf("append %v: %w", b.Append[i].Version, err)
		}
	}
	if b.Commit != nil {
		if err := c.raise(w, *b.Commit); err != nil {
			return fmt.Errorf("commit %v: %w", *b.Commit, err)
		}
	}
	return nil
}

// append adds an entry behind the last one.
func (c *change) append(w *slotWork, e *core.Entry) error {
	if e.Version.Seq != w.state.Last.Seq+1 || e.Version.Compare(w.state.Last) <= 0 {
		return fmt.Errorf("does not follow %v: %w", w.state.Last, core.ErrInvalid)
	}
	if err := c.passVoid(w, e.Version.Seq); err != nil {
		return err
	}
	p, err := c.put(w.slot, e, true, 0)
	if err != nil {
		return err
	}
	w.pending = append(w.pending, p)
	w.state.Last = e.Version
	return nil
}

// put writes an entry. Of one that is not pending, a head without an answer
// is left out, and tombstones up to the floor too.
func (c *change) put(slot core.SlotID, e *core.Entry, pending bool, floor uint64) (pendingEntry, error) {
	p := pendingEntry{version: e.Version, floor: e.Floor, request: e.Request}
	if len(e.Rows) > 1<<16-1 {
		return p, fmt.Errorf("%d rows in one entry: %w", len(e.Rows), core.ErrTooLarge)
	}
	p.rows = make([]pendingRow, 0, len(e.Rows))
	var seen map[string]bool
	if len(e.Rows) > 1 {
		seen = make(map[string]bool, len(e.Rows))
	}
	for i := range e.Rows {
		r := &e.Rows[i]
		row := pendingRow{prefix: rowPrefix(&r.RowKey, slot), n: uint16(i)}
		if r.Deleted {
			row.flags |= flagDeleted
		}
		if seen != nil {
			if seen[string(row.prefix)] {
				return p, fmt.Errorf("row %q is written twice: %w", r.Key, core.ErrInvalid)
			}
			seen[string(row.prefix)] = true
		}
		if !pending {
			if _, err := c.dropVersions(slot, row.prefix, newest()); err != nil {
				return p, err
			}
			if r.Deleted && e.Version.Seq <= floor {
				continue
			}
		}
		if err := c.putRow(slot, e, r, &row); err != nil {
			return p, err
		}
		p.rows = append(p.rows, row)
	}
	p.head = !e.Request.IsZero() || pending && (e.Floor != 0 || len(e.Rows) == 0)
	return p, c.putHead(slot, e, p.head)
}

func (c *change) putRow(slot core.SlotID, e *core.Entry, r *core.Row, row *pendingRow) error {
	c.key = appendSuffix(append(c.key[:0], row.prefix...), e.Version, row.flags, row.n)
	op := c.b.SetDeferred(len(c.key), sumSize+len(r.Value))
	copy(op.Key, c.key)
	copy(op.Value[sumSize:], r.Value)
	sealValue(op.Key, op.Value)
	if c.d.rows.keeps() && len(r.Value) <= keepValue {
		row.value = bytes.Clone(op.Value)
	}
	if err := op.Finish(); err != nil {
		return err
	}
	c.addVersion(row.prefix, row.of(e.Version))
	if isObject(row.prefix, row.flags) {
		c.objects++
	}
	key := indexKey(slot, e.Version.Seq, row.n)
	return c.b.Set(key, encodeIndex(key, &indexEntry{
		flags: row.flags, term: e.Version.Term, boot: e.Version.Boot, time: e.Time, prefix: row.prefix,
	}), nil)
}

func (c *change) putHead(slot core.SlotID, e *core.Entry, needed bool) error {
	if !needed {
		return nil
	}
	key := headKey(slot, e.Version.Seq)
	h := head{term: e.Version.Term, boot: e.Version.Boot, time: e.Time, floor: e.Floor, request: e.Request}
	if err := c.b.Set(key, encodeHead(key, &h), nil); err != nil {
		return err
	}
	if e.Request.IsZero() {
		return nil
	}
	key = appendSuffix(answerPrefix(slot, e.Request), e.Version, 0, 0)
	return c.b.Set(key, encodeAnswer(key, e.Time, e.Answer), nil)
}

// raise moves the committed mark up to the last entry that is not above it.
func (c *change) raise(w *slotWork, mark core.Version) error {
	floor := w.state.Floor
	n := 0
	for ; n < len(w.pending) && w.pending[n].version.Compare(mark) <= 0; n++ {
		p := &w.pending[n]
		for _, r := range p.rows {
			known, err := c.dropVersions(w.slot, r.prefix, p.version)
			if err != nil {
				return err
			}
			if !known {
				c.learn(w, r.prefix, n)
			}
			if r.flags&flagDeleted == 0 || p.version.Seq > w.state.Floor {
				continue
			}
			// A joiner's floor is ahead of its mark until it is level.
			if err := c.dropRow(w.slot, r.prefix, suffix{version: p.version, flags: r.flags, n: r.n}); err != nil {
				return err
			}
		}
		if p.head && p.request.IsZero() {
			if err := c.b.Delete(headKey(w.slot, p.version.Seq), nil); err != nil {
				return err
			}
		}
		floor = max(floor, p.floor)
	}
	if n == 0 {
		return nil
	}
	w.state.Committed = w.pending[n-1].version
	w.pending = w.pending[n:]
	return c.raiseFloor(w, floor, w.state.Committed.Seq)
}

// raiseFloor lets tombstones go, of the entries up to limit.
func (c *change) raiseFloor(w *slotWork, floor, limit uint64) error {
	if floor <= w.state.Floor {
		return nil
	}
	err := c.index(w.slot, w.state.Floor, min(floor, limit), func(seq uint64, n uint16, e *indexEntry) error {
		if e.flags&flagDeleted == 0 {
			return nil
		}
		return c.dropRow(w.slot, e.prefix, suffix{version: e.version(seq), flags: e.flags, n: n})
	})
	w.state.Floor = floor
	return err
}

// undo removes the entries above v.
func (c *change) undo(w *slotWork, v core.Version) error {
	n := len(w.pending)
	for ; n > 0 && w.pending[n-1].above(v); n-- {
		p := &w.pending[n-1]
		for _, r := range p.rows {
			if err := c.dropRow(w.slot, r.prefix, suffix{version: p.version, flags: r.flags, n: r.n}); err != nil {
				return err
			}
		}
		if err := c.dropHead(w.slot, p.head, p.version, p.request); err != nil {
			return err
		}
	}
	w.pending = slices.Clip(w.pending[:n])
	if last := w.state.Last; last.Seq <= v.Seq && last.Compare(v) <= 0 {
		return nil
	}
	if w.state.Committed.Seq > v.Seq || w.state.Committed.Compare(v) > 0 {
		// A joiner that starts anew: what lay under what goes is gone.
		if err := c.dropStretch(w, v.Seq, newest().Seq); err != nil {
			return err
		}
		w.state.Committed = v
	}
	w.state.Last = v
	return nil
}

// replace makes a stretch of history what another disk says it is. What is not
// committed here is undone first, and what lies above the stretch goes.
func (c *change) replace(w *slotWork, r *core.Replace) error {
	prev := r.After
	for i := range r.Entries {
		seq := r.Entries[i].Version.Seq
		if seq <= prev || seq > r.UpTo.Seq {
			return fmt.Errorf("entry %v is out of order: %w", r.Entries[i].Version, core.ErrInvalid)
		}
		prev = seq
	}
	if r.UpTo.Seq < r.After {
		return fmt.Errorf("it ends before it begins: %w", core.ErrInvalid)
	}
	if err := c.undo(w, w.state.Committed); err != nil {
		return err
	}
	if err := c.undo(w, r.UpTo); err != nil {
		return err
	}
	if err := c.passVoid(w, r.After); err != nil {
		return err
	}
	if err := c.dropStretch(w, r.After, r.UpTo.Seq); err != nil {
		return err
	}
	floor := r.Floor
	if r.After == 0 {
		w.state.Floor = min(w.state.Floor, floor)
	}
	for i := range r.Entries {
		floor = max(floor, r.Entries[i].Floor)
	}
	floor = max(floor, w.state.Floor)
	for i := range r.Entries {
		if _, err := c.put(w.slot, &r.Entries[i], false, floor); err != nil {
			return fmt.Errorf("entry %v: %w", r.Entries[i].Version, err)
		}
	}
	w.state.Committed, w.state.Last = r.UpTo, r.UpTo
	return c.raiseFloor(w, floor, r.After)
}

// dropStretch removes the entries with sequence numbers in (after, upTo],
// their rows' versions, heads and answers.
func (c *change) dropStretch(w *slotWork, after, upTo uint64) error {
	err := c.index(w.slot, after, upTo, func(seq uint64, n uint16, e *indexEntry) error {
		return c.dropRow(w.slot, e.prefix, suffix{version: e.version(seq), flags: e.flags, n: n})
	})
	if err != nil {
		return err
	}
	return c.heads(w.slot, after, upTo, func(seq uint64, h *head) error {
		return c.dropHead(w.slot, true, h.version(seq), h.request)
	})
}

// dropRow removes a version of a row.
func (c *change) dropRow(slot core.SlotID, prefix []byte, s suffix) error {
	if isObject(prefix, s.flags) {
		c.objects--
	}
	c.key = appendSuffix(append(c.key[:0], prefix...), s.version, s.flags, s.n)
	if err := c.b.Delete(c.key, nil); err != nil {
		return err
	}
	c.dropVersion(prefix, s)
	return c.b.Delete(indexKey(slot, s.version.Seq, s.n), nil)
}

func (c *change) dropHead(slot core.SlotID, there bool, v core.Version, request core.RequestID) error {
	if !there {
		return nil
	}
	if err := c.b.Delete(headKey(slot, v.Seq), nil); err != nil {
		return err
	}
	if request.IsZero() {
		return nil
	}
	return c.b.Delete(appendSuffix(answerPrefix(slot, request), v, 0, 0), nil)
}

// iter returns an iterator over the rows as the change leaves them so far.
// Positioned once, it does not see what is changed after that.
func (c *change) iter(o *pebble.IterOptions) (*pebble.Iterator, error) {
	if c.it != nil {
		c.it.SetOptions(o)
		return c.it, nil
	}
	it, err := c.b.NewIter(o)
	c.it = it
	return it, err
}

// dropVersions removes the versions of a row that are older than v. It says
// whether they were known without a look.
func (c *change) dropVersions(slot core.SlotID, prefix []byte, v core.Version) (known bool, err error) {
	if versions, ok := c.row(prefix); ok {
		for i := range versions {
			if versions[i].version.Compare(v) >= 0 {
				continue
			}
			if err := c.dropRow(slot, prefix, versions[i].suffix); err != nil {
				return true, err
			}
		}
		return true, nil
	}
	it, err := c.iter(pointOptions())
	if err != nil {
		return false, err
	}
	c.key = appendSeekOlder(append(c.key[:0], prefix...), v)
	for ok := it.SeekPrefixGE(c.key); ok; ok = it.Next() {
		s, ok := parseSuffix(it.Key()[len(prefix):])
		if !ok {
			return false, malformed("row", it.Key())
		}
		if err := c.dropRow(slot, prefix, s); err != nil {
			return false, err
		}
	}
	return false, it.Error()
}

// index visits the index of the entries with sequence numbers in (after, upTo].
// visit may change the batch; it must not use the change's iterator.
func (c *change) index(slot core.SlotID, after, upTo uint64, visit func(seq uint64, n uint16, e *indexEntry) error) error {
	return c.walk(kindIndex, slot, after, upTo, func(key, value []byte, seq uint64, rest []byte) error {
		n, ok := parseIndexN(rest)
		if !ok {
			return malformed("index entry", key)
		}
		e, err := decodeIndex(key, value)
		if err != nil {
			return err
		}
		e.prefix = append([]byte(nil), e.prefix...)
		return visit(seq, n, &e)
	})
}

// heads is index for heads.
func (c *change) heads(slot core.SlotID, after, upTo uint64, visit func(seq uint64, h *head) error) error {
	return c.walk(kindHead, slot, after, upTo, func(key, value []byte, seq uint64, _ []byte) error {
		h, err := decodeHead(key, value)
		if err != nil {
			return err
		}
		return visit(seq, &h)
	})
}

func (c *change) walk(kind byte, slot core.SlotID, after, upTo uint64, visit func(key, value []byte, seq uint64, rest []byte) error) error {
	if after >= upTo {
		return nil
	}
	from, to := seqBounds(kind, slot, after, upTo)
	it, err := c.iter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		key := it.Key()
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		seq, rest, ok := parseSeq(key)
		if !ok {
			return malformed("entry", key)
		}
		if err := visit(key, value, seq, rest); err != nil {
			return err
		}
	}
	return it.Error()
}
