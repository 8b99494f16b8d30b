package sim

import (
	"slices"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/slot"
)

// kind is what a client asks for.
type kind int

const (
	opGet kind = iota
	opPut
	opDelete
	opCreate // a put that must find nothing
	opMove   // names other places for what a version wrote

	kinds // how many there are
)

// request is a client's operation on one key.
type request struct {
	kind  kind
	key   string
	value int
	id    core.RequestID
	// again says that earlier attempts of the request may be on their way.
	again bool
	// places are where the shards of a large value are; version is what a
	// move was made of.
	places  []place
	version core.Version
}

// reply is the answer: the value read, or for a create whether it took place.
type reply struct {
	value int
	took  bool
	err   bool // ask again
}

func keyRow(key string) core.RowKey { return core.RowKey{Bucket: 1, Key: key} }

func slotOf(key string) core.SlotID { return core.SlotID(key[len(key)-1]) % slots }

// serve carries out a request as the engine's owner side does: the key is
// locked, the request looked up, the row read, the lease checked, the write
// proposed.
func (nd *node) serve(q request, answer func(reply)) {
	if q.kind == opGet {
		nd.read(q.key, answer)
		return
	}
	nd.lock(q.key, func() { nd.change(q, answer) })
}

func (nd *node) lock(key string, f func()) {
	q, held := nd.locks[key]
	if held {
		nd.locks[key] = append(q, f)
		return
	}
	nd.locks[key] = []func(){}
	f()
}

func (nd *node) unlock(key string) {
	q := nd.locks[key]
	if len(q) == 0 {
		delete(nd.locks, key)
		return
	}
	f := q[0]
	nd.locks[key] = q[1:]
	nd.w.after(0, func() { f() })
}

// later runs f after the time that a disk read takes.
func (nd *node) later(f func()) {
	w, life := nd.w, nd.life
	d := w.between(50*time.Microsecond, 3*time.Millisecond)
	if w.chance(0.02) {
		d = w.between(5*time.Millisecond, 300*time.Millisecond)
	}
	w.after(d, func() { nd.when(life, f) })
}

// rowAt reads a row under a reading; see engine.Node.rowAt.
func (nd *node) rowAt(g slot.Reading, key string) (core.Row, bool, error) {
	for {
		d := nd.inUse[g.Disk]
		if d == nil {
			return core.Row{}, false, core.ErrDiskFailed
		}
		x := d.store.slot(g.Slot)
		if row, ok := x.get(keyRow(key), g.At); ok {
			return row, !row.Deleted, nil
		}
		if len(x.rows[keyRow(key)]) == 0 {
			return core.Row{}, false, nil
		}
		next, err := nd.node.Serving(nd.boottime(), g.Slot)
		if err != nil {
			return core.Row{}, false, err
		}
		if next.At == g.At {
			return core.Row{}, false, nil
		}
		g = next
	}
}

func (nd *node) read(key string, answer func(reply)) {
	g, ok := nd.node.Rights().Serving(nd.boottime(), slotOf(key))
	if !ok {
		answer(reply{err: true})
		return
	}
	nd.later(func() {
		row, ok, err := nd.rowAt(g, key)
		if err != nil {
			answer(reply{err: true})
			return
		}
		nd.later(func() {
			if !nd.node.Rights().Check(nd.boottime(), g) {
				answer(reply{err: true})
				return
			}
			answer(reply{value: valueOf(row, ok)})
		})
	})
}

func valueOf(row core.Row, ok bool) int {
	if !ok {
		return 0
	}
	v, _ := decodeValue(row.Value)
	return v
}

// change carries out a write with its key locked.
func (nd *node) change(q request, answer func(reply)) {
	stop := func(r reply) { nd.unlock(q.key); answer(r) }
	g, err := nd.node.Serving(nd.boottime(), slotOf(q.key))
	if err != nil {
		stop(reply{err: true})
		return
	}
	nd.later(func() {
		d := nd.inUse[g.Disk]
		if d == nil {
			stop(reply{err: true})
			return
		}
		if e, ok := d.store.slot(g.Slot).answer(q.id); ok {
			if nd.node.Check(nd.boottime(), g) != nil {
				stop(reply{err: true})
				return
			}
			stop(reply{took: len(e.Answer) == 0})
			return
		}
		old, exists, err := nd.rowAt(g, q.key)
		barred := slices.ContainsFunc(q.places, func(p place) bool { return nd.barred[p.id] })
		if err != nil || barred {
			stop(reply{err: true})
			return
		}
		if q.kind == opCreate && exists || q.kind == opMove && (!exists || old.Version != q.version) {
			if nd.node.Check(nd.boottime(), g) != nil {
				stop(reply{err: true})
				return
			}
			if !q.again {
				stop(reply{})
				return
			}
			// The refusal must be what an earlier attempt that is still on
			// its way finds, lest it take place later.
			nd.proposeEntry(q, g, core.Entry{Request: q.id, Answer: []byte("no")}, stop)
			return
		}
		row := core.Row{RowKey: keyRow(q.key), Deleted: q.kind == opDelete}
		if q.kind != opDelete {
			row.Value = encodeValue(q.value, q.places)
		}
		nd.proposeEntry(q, g, core.Entry{Request: q.id, Rows: []core.Row{row}}, func(r reply) {
			if _, named := decodeValue(old.Value); !r.err && exists {
				nd.w.deleteShards(linger, without(named, q.places))
			}
			stop(r)
		})
	})
}

func (nd *node) proposeEntry(q request, g slot.Reading, e core.Entry, stop func(reply)) {
	var id slot.WriteID
	var err error
	nd.do(func(n *slot.Node, now core.Instant) {
		id, err = n.Propose(now, g, e, slot.Need{Domains: 1, Domain: core.DomainNode})
		if err == nil {
			nd.waiters[id] = func(r slot.Result) {
				stop(reply{took: len(e.Answer) == 0, err: r.Err != nil})
			}
		}
	})
	if err != nil {
		stop(reply{err: true})
	}
}

// list returns what the node holds of all keys: the rows of the slots that it
// owned throughout.
func (nd *node) list(keys []string, answer func(held map[core.SlotID]bool, values map[string]int)) {
	readings := map[core.SlotID]slot.Reading{}
	for s := range core.SlotID(slots) {
		if g, err := nd.node.Serving(nd.boottime(), s); err == nil {
			readings[s] = g
		}
	}
	values := map[string]int{}
	// The view is taken at once after the readings; see engine's scan.
	for _, k := range keys {
		if g, ok := readings[slotOf(k)]; ok {
			row, there, err := nd.rowAt(g, k)
			if err != nil {
				delete(readings, slotOf(k))
				continue
			}
			values[k] = valueOf(row, there)
		}
	}
	nd.later(func() {
		held := map[core.SlotID]bool{}
		for s, g := range readings {
			held[s] = nd.node.Check(nd.boottime(), g) == nil
		}
		answer(held, values)
	})
}
