package sim

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoalstore/shoal/core"
)

// Large values are shards on some disks, named by the record; see the engine's
// garbage, reconcile and sweep, whose rules are played here.
const (
	// sweepAge is how old a shard must be before its owner is asked whether a
	// record names it; no write names one as late as that.
	sweepAge   = 60 * time.Second
	sweepEvery = 5 * time.Second
	movesEvery = time.Second
	linger     = 500 * time.Millisecond
)

// shard is a piece of data on a device.
type shard struct {
	key  string
	born time.Duration
}

// place is where a record says that a shard is.
type place struct {
	disk core.DiskID
	id   int
}

// encodeValue writes a row's value: the number, then the places of its shards.
func encodeValue(v int, places []place) []byte {
	b := strconv.AppendInt(nil, int64(v), 10)
	for _, p := range places {
		b = append(b, ';')
		b = strconv.AppendUint(b, uint64(p.disk), 10)
		b = append(b, ':')
		b = strconv.AppendInt(b, int64(p.id), 10)
	}
	return b
}

func decodeValue(b []byte) (v int, places []place) {
	words := strings.Split(string(b), ";")
	v, _ = strconv.Atoi(words[0])
	for _, w := range words[1:] {
		d, id, _ := strings.Cut(w, ":")
		disk, _ := strconv.ParseUint(d, 10, 32)
		n, _ := strconv.Atoi(id)
		places = append(places, place{core.DiskID(disk), n})
	}
	return v, places
}

// device finds a disk by its number, as long as it is there.
func (w *world) device(id core.DiskID) *disk {
	for _, n := range w.order {
		for _, d := range w.nodes[n].disks {
			if d.id == id && !d.gone {
				return d
			}
		}
	}
	return nil
}

// putShards stores a key's data on two disks, and calls done once it is there.
func (w *world) putShards(key string, done func([]place)) {
	var disks []*disk
	m := w.check.maps[w.check.top]
	for _, i := range w.rng.Perm(len(m.Disks)) {
		if d := w.device(m.Disks[i].ID); d != nil && m.Disks[i].State == core.DiskOK && len(disks) < 2 {
			disks = append(disks, d)
		}
	}
	w.after(w.between(time.Millisecond, 50*time.Millisecond), func() {
		var places []place
		for _, d := range disks {
			places = append(places, w.putShard(d, key))
		}
		done(places)
	})
}

func (w *world) putShard(d *disk, key string) place {
	w.nextNo++
	d.shards[w.nextNo] = shard{key: key, born: w.now}
	w.report.Shards++
	return place{d.id, w.nextNo}
}

// deleteShards deletes shards after a while.
func (w *world) deleteShards(after time.Duration, places []place) {
	if len(places) == 0 {
		return
	}
	w.after(after, func() {
		for _, p := range places {
			if d := w.device(p.disk); d != nil {
				delete(d.shards, p.id)
				w.report.ShardsDeleted++
			}
		}
	})
}

// without returns the places that are not among others.
func without(places, others []place) []place {
	return slices.DeleteFunc(slices.Clone(places), func(p place) bool { return slices.Contains(others, p) })
}

// move is reconcile: the owner of a key has one of its shards made elsewhere and
// names that, if nobody changed the record meanwhile; then the old one goes.
func (nd *node) move() {
	w := nd.w
	if w.still {
		return
	}
	keys := w.keys()
	key := keys[w.rng.IntN(len(keys))]
	g, err := nd.node.Serving(nd.boottime(), slotOf(key))
	if err != nil {
		return
	}
	row, ok, err := nd.rowAt(g, key)
	v, places := decodeValue(row.Value)
	if err != nil || !ok || len(places) == 0 {
		return
	}
	i := w.rng.IntN(len(places))
	life := nd.life
	w.putShards(key, func(fresh []place) {
		fresh = slices.DeleteFunc(fresh, func(p place) bool {
			return slices.ContainsFunc(places, func(q place) bool { return q.disk == p.disk })
		})
		if len(fresh) == 0 || w.still {
			return
		}
		next := slices.Clone(places)
		next[i] = fresh[0]
		q := request{kind: opMove, key: key, value: v, places: next, version: row.Version}
		for j := range q.id {
			q.id[j] = byte(w.rng.Uint32())
		}
		nd.when(life, func() {
			nd.serve(q, func(r reply) {
				if w.chance(0.05) {
					r = reply{err: true} // the answer is lost
				}
				if !r.err && !r.took {
					w.deleteShards(0, fresh[:1]) // it will never be named
				}
				if !r.err && r.took {
					w.report.ShardsMoved++
				}
			})
		})
	})
}

// sweep asks the owners for the old shards on this node's disks, and deletes
// those that they disown.
func (nd *node) sweep() {
	w := nd.w
	for _, d := range nd.disks {
		ids := make([]int, 0, len(d.shards))
		for id, s := range d.shards {
			if w.now-s.born > sweepAge {
				ids = append(ids, id)
			}
		}
		slices.Sort(ids)
		for _, id := range ids {
			key := d.shards[id].key
			owner := w.ownerBy(key)
			if d.gone || owner == nil {
				continue
			}
			at, life := place{d.id, id}, owner.life
			w.after(w.between(100*time.Microsecond, 10*time.Millisecond), func() {
				owner.when(life, func() { owner.disown(key, at) })
			})
		}
	}
}

// disown deletes a shard that no record names, and bars records from naming it.
func (nd *node) disown(key string, p place) {
	nd.lock(key, func() {
		g, err := nd.node.Serving(nd.boottime(), slotOf(key))
		if err != nil {
			nd.unlock(key)
			return
		}
		nd.later(func() {
			defer nd.unlock(key)
			row, ok, err := nd.rowAt(g, key)
			if err != nil || nd.node.Check(nd.boottime(), g) != nil {
				return
			}
			if _, named := decodeValue(row.Value); ok && slices.Contains(named, p) {
				return
			}
			nd.barred[p.id] = true
			nd.w.report.ShardsSwept++
			nd.w.deleteShards(nd.w.between(time.Millisecond, time.Second), []place{p})
		})
	})
}

// shardsThere: no shard that a committed record names was deleted.
func (c *checker) shardsThere() {
	w := c.w
	for _, id := range w.order {
		nd := w.nodes[id]
		if !nd.up || nd.paused {
			continue
		}
		for _, key := range w.keys() {
			g, err := nd.node.Serving(nd.boottime(), slotOf(key))
			if err != nil {
				continue
			}
			row, ok := nd.inUse[g.Disk].store.slot(g.Slot).get(keyRow(key), g.At)
			if !ok || row.Deleted {
				continue
			}
			_, places := decodeValue(row.Value)
			for _, p := range places {
				if d := w.device(p.disk); d != nil {
					if _, there := d.shards[p.id]; !there {
						w.fail("%s at %v names shard %d on disk %d, which was deleted", key, row.Version, p.id, p.disk)
					}
				}
			}
		}
	}
}
