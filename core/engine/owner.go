package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/shardio"
	"github.com/shoalstore/shoal/core/slot"
)

// smallEntry is the size of an entry, in bytes, that is taken even by a disk that
// is nearly full: deletions are.
const smallEntry = 1 << 10

// mutate carries out a checked write of a slot that this node owns.
func (n *Node) mutate(ctx context.Context, m *mutation) (outcome, error) {
	if len(m.entry.Rows) == 0 {
		return outcome{}, fmt.Errorf("a write without rows: %w", core.ErrInvalid)
	}
	if !m.heals {
		defer n.heal.brake.enter()()
	}
	n.driver.awaitOpen(ctx, m.slot, false)
	name := lockName(m.slot, &m.entry.Rows[0].RowKey)
	if err := n.locks.lock(ctx, name); err != nil {
		return outcome{}, fmt.Errorf("waiting for an earlier write of the key: %w: %w", core.ErrUnavailable, err)
	}
	w := &write{node: n, m: m, name: name}
	out, err := w.run(ctx)
	if !w.proposed {
		n.locks.unlock(name)
	}
	return out, err
}

// lockName is what serialises the writes of a key.
func lockName(s core.SlotID, k *core.RowKey) string {
	b := binary.AppendUvarint(nil, uint64(s))
	b = binary.AppendUvarint(b, uint64(k.Bucket))
	return string(b) + k.Key
}

// write is a mutation under way, with its key locked.
type write struct {
	node     *Node
	m        *mutation
	name     string
	reading  slot.Reading
	proposed bool
	replaced []core.Row
}

// room refuses a write for which one of this node's disks has no space, before
// anything is promised. What frees space is small. A full disk of another node
// stays silent, and the slot goes on without it.
func (w *write) room() error {
	size := int64(w.m.entry.Size())
	if size <= smallEntry {
		return nil
	}
	for _, id := range w.node.driver.effect.Load().Slots[w.m.slot].Insync {
		if r, ok := w.node.localDisk(id).(interface{ RowRoom(bytes int64) error }); ok {
			if err := r.RowRoom(size); err != nil {
				return fmt.Errorf("slot %d: %w", w.m.slot, err)
			}
		}
	}
	return nil
}

func (w *write) run(ctx context.Context) (outcome, error) {
	n := w.node
	g, disk, err := n.reading(w.m.slot)
	if err != nil {
		return outcome{}, err
	}
	w.reading = g
	if err := w.room(); err != nil {
		return outcome{}, err
	}
	if out, done, err := w.remembered(ctx, disk); done || err != nil {
		return out, err
	}
	if err := w.check(ctx); err != nil {
		// A refusal is an answer from what was read: it needs the lease.
		if lost := n.driver.answer(ctx, w.reading); lost != nil {
			return outcome{}, lost
		}
		return outcome{}, w.refuse(ctx, err)
	}
	out := outcome{answer: w.m.entry.Answer}
	if !w.m.task {
		w.m.entry.Answer = append([]byte{answerDone}, w.m.entry.Answer...)
	} else if len(out.answer) > 0 {
		out.answer = out.answer[1:]
	}
	out.version, err = w.propose(ctx, w.m.entry, w.m.need)
	return out, err
}

// propose writes an entry, which settles the write.
func (w *write) propose(ctx context.Context, e core.Entry, need slot.Need) (core.Version, error) {
	n := w.node
	e.Time = n.clock.Now().UnixMilli()
	w.proposed = true
	touch := w.m.session == nil && !w.m.heals
	if touch {
		n.remotes.touch(e.Rows)
	}
	return n.driver.propose(ctx, w.reading, e, need, func(r slot.Result) {
		if touch {
			n.remotes.touch(e.Rows)
		}
		n.locks.unlock(w.name)
		if r.Err == nil && len(e.Rows) > 0 {
			n.garbage.replaced(w.replaced, e.Rows)
			if !w.m.heals {
				n.heal.wrote(w.m.slot, e.Rows)
			}
		}
	})
}

// refuse answers with a refusal. Where earlier attempts may be on their way it
// is written first, as an entry without rows.
func (w *write) refuse(ctx context.Context, why error) error {
	answer, final := refusalOf(why)
	if !final || !w.m.again || w.m.entry.Request.IsZero() || errors.Is(why, errPlaceAgain) {
		return why
	}
	if _, err := w.propose(ctx, core.Entry{Request: w.m.entry.Request, Answer: answer}, slot.Need{Domains: 1, Domain: w.m.need.Domain}); err != nil {
		return err
	}
	return why
}

// remembered returns the answer that the same request got before.
func (w *write) remembered(ctx context.Context, disk Disk) (outcome, bool, error) {
	if w.m.fresh || w.m.entry.Request.IsZero() {
		return outcome{}, false, nil
	}
	v, answer, err := disk.Answer(ctx, w.m.slot, w.m.entry.Request)
	if errors.Is(err, core.ErrNotFound) {
		return outcome{}, false, nil
	}
	if err != nil {
		return outcome{}, false, err
	}
	// With the key locked, what was written under this id is settled.
	if err := w.node.driver.answer(ctx, w.reading); err != nil {
		return outcome{}, false, err
	}
	out, err := answered(v, answer)
	return out, true, err
}

// check evaluates the checks, the bucket's state and the places named, and
// completes the rows by what the replaced ones ask for.
func (w *write) check(ctx context.Context) error {
	if err := w.checkBucket(ctx); err != nil {
		return err
	}
	if w.m.session != nil {
		if err := w.m.session.guard(); err != nil {
			return err
		}
	}
	for i := range w.m.checks {
		c := &w.m.checks[i]
		row, err := w.node.rowAt(ctx, w.m.slot, c.row, &w.reading, nil)
		if err != nil && !absent(err) {
			return err
		}
		if err := c.eval(&row, err == nil); err != nil {
			return err
		}
	}
	rows := w.m.entry.Rows
	for i := range rows {
		if rows[i].Space == core.SpaceData {
			continue // it goes with its record
		}
		old, err := w.node.rowAt(ctx, w.m.slot, rows[i].RowKey, &w.reading, nil)
		if absent(err) {
			continue
		}
		if err != nil {
			return err
		}
		if err := w.forgoing(ctx, &old); err != nil {
			return err
		}
		if old.Space == core.SpaceIntent && w.m.spare {
			continue
		}
		w.replaced = append(w.replaced, old)
	}
	return w.dropData()
}

// dropData adds the tombstone of a data row that the new object does not
// replace.
func (w *write) dropData() error {
	for i := range w.replaced {
		old := &w.replaced[i]
		if old.Space != core.SpaceObject {
			continue
		}
		rec, err := core.DecodeRecord(old.Value)
		if err != nil {
			return fmt.Errorf("record of %q: %w", old.Key, err)
		}
		data := dataKey(old.RowKey)
		if hasDataRow(rec) && !writes(w.m.entry.Rows, data) {
			w.m.entry.Rows = append(w.m.entry.Rows, core.Row{RowKey: data, Deleted: true})
		}
	}
	return nil
}

func writes(rows []core.Row, k core.RowKey) bool {
	for i := range rows {
		if rows[i].RowKey == k {
			return true
		}
	}
	return false
}

func (c *check) eval(row *core.Row, exists bool) error {
	switch c.kind {
	case checkConditions:
		if !exists {
			return c.conditions.CheckWrite(nil)
		}
		rec, err := core.DecodeRecord(row.Value)
		if err != nil {
			return fmt.Errorf("record of %q: %w", row.Key, err)
		}
		return c.conditions.CheckWrite(rec)
	case checkUpload:
		if !exists {
			return fmt.Errorf("upload %q of %q: %w", c.row.Sub, c.row.Key, core.ErrNoSuchUpload)
		}
	case checkVersion:
		if moved := exists && row.Version != c.version || !exists && !c.version.IsZero(); moved && c.row.Space == core.SpaceIntent {
			return errReplaced
		} else if moved {
			return fmt.Errorf("%q was changed meanwhile: %w", c.row.Key, core.ErrConflict)
		}
	default:
		return fmt.Errorf("unknown check %d: %w", c.kind, core.ErrInvalid)
	}
	return nil
}

// errPlaceAgain says that a shard was put on a disk that takes no new data.
var errPlaceAgain = fmt.Errorf("a disk that was chosen is leaving: %w", core.ErrConflict)

// checkBucket refuses writes to a bucket that is not there or not ready, and
// records that name a disk which takes no new data.
func (w *write) checkBucket(ctx context.Context) error {
	newest, m, _ := w.node.driver.maps()
	id := w.m.entry.Rows[0].Bucket
	if id == core.SystemBucket {
		return nil
	}
	if m.Bucket(id) == nil {
		// It may just have been created: only the newest map can say no.
		if _, err := w.node.fresh(ctx); err != nil {
			return err
		}
		newest, m, _ = w.node.driver.maps()
	}
	for _, m := range []*core.Map{newest, m} {
		b := m.Bucket(id)
		switch {
		case forgets(b, w.m.entry.Rows):
		case b == nil || b.State == core.BucketDeleting:
			return fmt.Errorf("bucket %d: %w", id, core.ErrNoSuchBucket)
		case b.State != core.BucketOK:
			return fmt.Errorf("bucket %s is not ready yet (state %s): %w", b.Name, b.State, core.ErrUnavailable)
		}
	}
	for i := range w.m.entry.Rows {
		r := &w.m.entry.Rows[i]
		if r.Deleted || r.Space == core.SpaceData {
			continue
		}
		rec, err := namedBy(r)
		if err != nil {
			return fmt.Errorf("record of %q: %w: %w", r.Key, core.ErrInvalid, err)
		}
		for j := range rec.Extents {
			for k, p := range rec.Extents[j].Places {
				if p.Disk == 0 {
					continue
				}
				id := rec.Extents[j].Shard(k)
				if !takesData(newest, p.Disk) && !w.m.kept(id, p.Disk) || w.node.garbage.condemned(id) {
					return errPlaceAgain
				}
			}
		}
	}
	return nil
}

// takesData says whether new shards may be put on the disk.
func takesData(m *core.Map, id core.DiskID) bool {
	d := m.Disk(id)
	if d == nil || d.State != core.DiskOK {
		return false
	}
	switch m.Node(d.Node).State {
	case core.NodeActive, core.NodeDown:
		return true
	}
	return false
}

// reading asks for the right to read a slot, with the disk to read it from.
func (n *Node) reading(s core.SlotID) (slot.Reading, Disk, error) {
	g, err := n.driver.serving(s)
	if err != nil {
		return g, nil, err
	}
	d := n.localDisk(g.Disk)
	if d == nil {
		return g, nil, fmt.Errorf("disk %d: %w", g.Disk, core.ErrDiskFailed)
	}
	return g, d, nil
}

// rowAt returns the row's committed state under a right to read, or ErrNotFound.
// If the row was replaced meanwhile it may be the newer version: see
// [core.RowStore]. The value may be put into buf.
func (n *Node) rowAt(ctx context.Context, s core.SlotID, k core.RowKey, g *slot.Reading, buf *shardio.Buffer) (row core.Row, err error) {
	d := n.localDisk(g.Disk)
	if d == nil {
		return core.Row{}, fmt.Errorf("disk %d: %w", g.Disk, core.ErrDiskFailed)
	}
	if into, ok := d.(intoGetter); ok && buf != nil {
		row, err = into.GetInto(ctx, s, k, g.At, buf.B)
	} else {
		row, err = d.Get(ctx, s, k, g.At)
	}
	if errors.Is(err, core.ErrNotFound) || err == nil && row.Deleted {
		return core.Row{}, notFound(k)
	}
	return row, err
}

func notFound(k core.RowKey) error {
	if k.Space == core.SpaceUpload {
		return fmt.Errorf("upload %q of %q: %w", k.Sub, k.Key, core.ErrNoSuchUpload)
	}
	return fmt.Errorf("key %q: %w", k.Key, core.ErrNotFound)
}

// absent says whether an error of rowAt is that there is no such row.
func absent(err error) bool {
	return errors.Is(err, core.ErrNotFound) || errors.Is(err, core.ErrNoSuchUpload)
}

// get answers a linearizable read of a row of a slot that this node owns.
func (n *Node) get(ctx context.Context, s core.SlotID, k core.RowKey) (core.Row, error) {
	f, err := n.getRows(ctx, s, k, false)
	return f.row, err
}

// found is a row that was read, and for an object what belongs to it.
type found struct {
	row  core.Row
	rec  *core.Record // of the row, nil if it was not decoded
	data blob
}

// maxPooled is the size in bytes up to which memory for the data of a small
// object is kept. It bounds what a damaged record can ask for.
const maxPooled = 1 << 20

// blob is the data of a small object, if it is in a row of its own. It may be
// from a pool: whoever has it last calls free.
type blob struct {
	b    []byte
	buf  *shardio.Buffer
	pool *shardio.Pool
}

func (b *blob) free() {
	if b.buf != nil {
		b.pool.Put(b.buf)
	}
	*b = blob{}
}

// getRows is get, and with data what a small object keeps in a row of its own.
func (n *Node) getRows(ctx context.Context, s core.SlotID, k core.RowKey, data bool) (f found, err error) {
	defer n.heal.brake.enter()()
	g, _, err := n.reading(s)
	if err != nil {
		return found{}, err
	}
	f.row, err = n.rowAt(ctx, s, k, &g, nil)
	if err == nil && data {
		err = n.dataOf(ctx, s, &f, &g)
	}
	if err == nil || absent(err) {
		if lost := n.driver.answer(ctx, g); lost != nil {
			err = lost
		}
	}
	if err != nil {
		f.data.free()
		return found{}, err
	}
	return f, nil
}

// dataOf reads the data row of an object's row, if it has one. Both must be of
// one version: between them the object may have been replaced.
func (n *Node) dataOf(ctx context.Context, s core.SlotID, f *found, g *slot.Reading) error {
	for {
		var err error
		if f.rec, err = core.DecodeRecord(f.row.Value); err != nil {
			return fmt.Errorf("record of %q: %w", f.row.Key, err)
		}
		if !hasDataRow(f.rec) {
			return nil
		}
		f.data = blob{pool: &n.buffers}
		if f.rec.Size <= maxPooled {
			f.data.buf = n.buffers.Get(int(f.rec.Size))
		}
		d, err := n.rowAt(ctx, s, dataKey(f.row.RowKey), g, f.data.buf)
		if err == nil && d.Version == f.row.Version {
			f.data.b = d.Value
			return nil
		}
		f.data.free()
		if err != nil && !errors.Is(err, core.ErrNotFound) {
			return err
		}
		was := f.row.Version
		if f.row, err = n.rowAt(ctx, s, f.row.RowKey, g, nil); err != nil {
			return err
		}
		if f.row.Version == was {
			return fmt.Errorf("data of %q is missing: %w", f.row.Key, core.ErrCorrupt)
		}
	}
}

// dataKey names the row with the data of a small object.
func dataKey(k core.RowKey) core.RowKey {
	k.Space = core.SpaceData
	return k
}

// hasDataRow says whether the object's data is in a row of its own.
func hasDataRow(r *core.Record) bool {
	return r.Inline == nil && len(r.Extents) == 0 && r.Size > 0 && !r.MetadataOnly()
}
