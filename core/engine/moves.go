package engine

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/slot"
)

// moves counts what reconcile and joining disks move, and the least that had to
// be moved for that: what the disks hold more in the end. Both are counted
// between two changes of what placement depends on, since what one change moves
// there the next may rightly move back. See RATIONALE.md, "The least that a
// rebalance must move".
type moves struct {
	clock core.Clock

	mu sync.Mutex
	// moved are bytes that reached disks: of shards, and of records.
	shards, records int64
	// before is the least of the periods that are not kept.
	before  int64
	periods []*movePeriod // the present one last; never empty
	// level says how far each joining disk has come.
	level map[diskSlot]uint64
	seen  *core.Map
	// lately is what was done in recent seconds, oldest first.
	lately []doneSecond
}

// movePeriod is the time between two changes of what placement depends on.
type movePeriod struct {
	from core.Epoch // of its first map
	// gain is what disks hold more than at its start, in bytes of shards that
	// this node has placed.
	gain map[core.DiskID]int64
	// taken are the bytes of records that disks of this node have taken, those
	// that they took twice once.
	taken int64
	// arrivals and slots count, over the whole slot table, the disks that came
	// into in-sync sets and how many more of them each disk is in.
	arrivals int64
	slots    map[core.DiskID]int64
}

// diskSlot is a slot on a disk.
type diskSlot struct {
	disk core.DiskID
	slot core.SlotID
}

// doneSecond is what was done within a second: objects made whole, with their
// bytes, and bytes moved.
type doneSecond struct {
	at                    core.Instant
	objects, bytes, moved int64
}

const (
	// periodsKept bounds the periods that are told apart: shards that were under
	// way when one ended are few.
	periodsKept = 16
	// rateOver is over which time rates are taken.
	rateOver = 10 * time.Second
)

func newMoves(c core.Clock) *moves {
	return &moves{clock: c, periods: []*movePeriod{newPeriod(0)}, level: map[diskSlot]uint64{}}
}

func newPeriod(e core.Epoch) *movePeriod {
	return &movePeriod{from: e, gain: map[core.DiskID]int64{}, slots: map[core.DiskID]int64{}}
}

// follow compares each map in effect with the one before.
func (h *reconciler) follow(ctx context.Context) {
	var was *core.Map
	for {
		_, m, changed := h.node.driver.maps()
		if m != nil && m != was {
			h.moves.see(m)
			if was != nil {
				h.filled(was, m)
			}
			was = m
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// see takes the next map in effect.
func (v *moves) see(m *core.Map) {
	v.mu.Lock()
	defer v.mu.Unlock()
	was := v.seen
	if was == m {
		return
	}
	v.seen = m
	if was == nil {
		return
	}
	if !sameTopology(was, m) {
		v.begin(m.Epoch)
	}
	now := v.now()
	for i := range m.Slots {
		if i >= len(was.Slots) || was.Slots[i].Term == m.Slots[i].Term {
			continue
		}
		for _, d := range m.Slots[i].Insync {
			now.slots[d]++
			if !slices.Contains(was.Slots[i].Insync, d) {
				now.arrivals++
			}
		}
		for _, d := range was.Slots[i].Insync {
			now.slots[d]--
		}
		for _, d := range was.Slots[i].Joining {
			if !slices.Contains(m.Slots[i].Joining, d) {
				delete(v.level, diskSlot{d, core.SlotID(i)})
			}
		}
	}
}

// begin starts a new period. What the oldest ones needed is added up, if there
// are too many.
func (v *moves) begin(e core.Epoch) {
	if len(v.periods) == periodsKept {
		v.before += v.periods[0].least()
		v.periods = slices.Delete(v.periods, 0, 1)
	}
	v.periods = append(v.periods, newPeriod(e))
}

func (v *moves) now() *movePeriod { return v.periods[len(v.periods)-1] }

// sameTopology says whether placement wants the same of two maps.
func sameTopology(a, b *core.Map) bool {
	if a.Replicas != b.Replicas {
		return false
	}
	return slices.EqualFunc(a.Nodes, b.Nodes, func(x, y core.Node) bool {
		return x.ID == y.ID && x.State == y.State && x.Weight == y.Weight && x.Zone == y.Zone
	}) && slices.EqualFunc(a.Disks, b.Disks, func(x, y core.Disk) bool {
		return x.ID == y.ID && x.Node == y.Node && x.State == y.State && x.Weight == y.Weight
	})
}

// least is the least that had to be moved in a period.
func (p *movePeriod) least() int64 {
	sum := gains(p.gain)
	if p.arrivals == 0 {
		return sum + p.taken // joins that are not through
	}
	// The slots are alike, so what part of the arrivals was needed is also what
	// part of the bytes was.
	return sum + int64(float64(p.taken)*float64(gains(p.slots))/float64(p.arrivals))
}

// gains adds up what disks have more than before.
func gains(of map[core.DiskID]int64) (sum int64) {
	for _, n := range of {
		sum += max(n, 0)
	}
	return sum
}

// arrival is a shard that was made on a disk, in place of one on another that
// is still good, or of none.
type arrival struct {
	to, from core.DiskID
	bytes    int64
}

// wrote counts bytes of shards that reached a disk.
func (v *moves) wrote(n int64) {
	v.mu.Lock()
	v.shards += n
	v.done(0, 0, n)
	v.mu.Unlock()
}

// placed takes shards whose new places, which the map of that epoch asked for,
// are committed.
func (v *moves) placed(e core.Epoch, list []arrival) {
	v.mu.Lock()
	defer v.mu.Unlock()
	i := len(v.periods) - 1
	for i > 0 && v.periods[i].from > e {
		i--
	}
	gain := v.periods[i].gain
	for _, a := range list {
		gain[a.to] += a.bytes
		if a.from != 0 {
			gain[a.from] -= a.bytes
		}
	}
}

// took counts a stretch of history that a joining disk has stored. One that it
// gets again is moved, but was not needed.
func (v *moves) took(d core.DiskID, b *core.SlotBatch) {
	r := b.Replace
	var n int64
	for i := range r.Entries {
		for j := range r.Entries[i].Rows {
			row := &r.Entries[i].Rows[j]
			n += int64(len(row.Key) + len(row.Sub) + len(row.Value))
		}
	}
	at := diskSlot{d, b.Slot}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.records += n
	v.done(0, 0, n)
	if r.After >= v.level[at] {
		v.now().taken += n
	}
	v.level[at] = max(v.level[at], r.UpTo.Seq)
}

// tookAll counts what a disk has stored of a queue.
func (v *moves) tookAll(d core.DiskID, queue []slot.Persist) {
	for i := range queue {
		if queue[i].Batch.Replace != nil {
			v.took(d, &queue[i].Batch)
		}
	}
}

// totals returns the bytes moved, and the least that was needed for that.
func (v *moves) totals() (moved, least int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	least = v.before
	for _, p := range v.periods {
		least += p.least()
	}
	return v.shards + v.records, least
}

// heal notes that objects were made whole.
func (v *moves) heal(objects, bytes int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.done(objects, bytes, 0)
}

// done adds to the present second.
func (v *moves) done(objects, bytes, moved int64) {
	now := v.clock.Boot()
	k := len(v.lately) - 1
	if k < 0 || now.Sub(v.lately[k].at) >= time.Second {
		v.forget(now)
		v.lately = append(v.lately, doneSecond{at: now})
		k = len(v.lately) - 1
	}
	v.lately[k].objects += objects
	v.lately[k].bytes += bytes
	v.lately[k].moved += moved
}

func (v *moves) forget(now core.Instant) {
	v.lately = slices.DeleteFunc(v.lately, func(s doneSecond) bool { return now.Sub(s.at) > rateOver })
}

// rates are how many objects and bytes are made whole, and how many bytes moved,
// in a second of late.
func (v *moves) rates() (objects, bytes, moved float64) {
	now := v.clock.Boot()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.forget(now)
	if len(v.lately) == 0 {
		return 0, 0, 0
	}
	for _, s := range v.lately {
		objects, bytes, moved = objects+float64(s.objects), bytes+float64(s.bytes), moved+float64(s.moved)
	}
	over := max(now.Sub(v.lately[0].at), time.Second).Seconds()
	return objects / over, bytes / over, moved / over
}
