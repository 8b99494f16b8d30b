package engine

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/shoalstore/shoal/core"
)

// When objects of remote buckets were last used decides which go first when space is
// short. It need not be exact: the owner of an object's slot keeps minutes in memory,
// under 64 bits of a checksum of the name, and the node now and then in a file. What
// is not known, because the slot was somebody else's or the file is lost, counts as
// used when the table began.

const (
	// accessSave is the time between two savings.
	accessSave = 10 * time.Minute
	// accessMost bounds the names that are remembered: about 100 MiB.
	accessMost = 1 << 22
	// accessFormat begins the stored form.
	accessFormat = "shoal access 1\n"
)

// accesses is that table.
type accesses struct {
	clock core.Clock

	mu    sync.Mutex
	at    map[uint64]uint32 // minutes since 1970
	since uint32
	dirty bool
}

func newAccesses(clock core.Clock) *accesses {
	a := &accesses{clock: clock, at: map[uint64]uint32{}}
	a.since = a.minute()
	return a
}

func (a *accesses) minute() uint32 { return uint32(a.clock.Now().Unix() / 60) }

func accessName(b core.BucketID, key string) uint64 {
	return xxh3.HashStringSeed(key, uint64(b))
}

// note remembers that an object is used now.
func (a *accesses) note(b core.BucketID, key string) {
	now, name := a.minute(), accessName(b, key)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.at[name] == now {
		return
	}
	if len(a.at) >= accessMost {
		a.shrink()
	}
	a.at[name], a.dirty = now, true
}

// shrink forgets the older half.
func (a *accesses) shrink() {
	all := make([]uint32, 0, len(a.at))
	for _, m := range a.at {
		all = append(all, m)
	}
	slices.Sort(all)
	middle := all[len(all)/2]
	for name, m := range a.at {
		if m <= middle {
			delete(a.at, name)
		}
	}
	a.since = max(a.since, middle)
}

// forget forgets an object that is gone.
func (a *accesses) forget(b core.BucketID, key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.at, accessName(b, key))
}

// knows says whether an object was used here.
func (a *accesses) knows(b core.BucketID, key string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.at[accessName(b, key)]
	return ok
}

// last says when an object was used.
func (a *accesses) last(b core.BucketID, key string) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	m, ok := a.at[accessName(b, key)]
	if !ok {
		m = a.since
	}
	return time.Unix(int64(m)*60, 0).UTC()
}

// encode returns the stored form: what begins it, the time from which on names are
// remembered, then a name and a time each, and a CRC32C.
func (a *accesses) encode() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	b := make([]byte, 0, len(accessFormat)+4+12*len(a.at)+4)
	b = append(b, accessFormat...)
	b = binary.BigEndian.AppendUint32(b, a.since)
	for name, m := range a.at {
		b = binary.BigEndian.AppendUint64(b, name)
		b = binary.BigEndian.AppendUint32(b, m)
	}
	a.dirty = false
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// decode takes up a stored form.
func (a *accesses) decode(b []byte) error {
	bad := func(why string) error { return fmt.Errorf("access times: %s: %w", why, core.ErrCorrupt) }
	const head = len(accessFormat) + 4
	if len(b) < head+4 || (len(b)-head-4)%12 != 0 || string(b[:len(accessFormat)]) != accessFormat {
		return bad("not in this form")
	}
	body, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	if crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)) != sum {
		return bad("wrong checksum")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.minute()
	a.since = min(binary.BigEndian.Uint32(body[len(accessFormat):]), now)
	for p := body[head:]; len(p) > 0; p = p[12:] {
		name := binary.BigEndian.Uint64(p)
		a.at[name] = max(a.at[name], min(binary.BigEndian.Uint32(p[8:]), now))
	}
	return nil
}

// unsaved says whether there is something to save.
func (a *accesses) unsaved() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.dirty
}

// keepAccesses saves the table now and then, and when the node ends.
func (n *Node) keepAccesses(ctx context.Context) {
	if n.opt.SaveAccess == nil {
		return
	}
	tick := time.NewTicker(accessSave)
	defer tick.Stop()
	for goesOn := true; goesOn; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			goesOn = false
		}
		if !n.accesses.unsaved() {
			continue
		}
		if err := n.opt.SaveAccess(n.accesses.encode()); err != nil {
			n.log.Warn("the times of the last accesses cannot be saved", "err", err)
		}
	}
}

// LastAccess says, to the minute and as far as this node knows, when an object of a
// remote bucket was last read or written.
func (n *Node) LastAccess(b core.BucketID, key string) time.Time { return n.accesses.last(b, key) }

// BytesOnDisks says what of an object of a slot is on which disk: its shards, or its
// record where that holds the data.
func (n *Node) BytesOnDisks(s core.SlotID, rec *core.Record) map[core.DiskID]int64 {
	out := map[core.DiskID]int64{}
	for i := range rec.Extents {
		e := &rec.Extents[i]
		share := int64(math.Ceil(float64(e.Size) / float64(e.Scheme.Data())))
		for _, p := range e.Places {
			if p.Disk != 0 {
				out[p.Disk] += share
			}
		}
	}
	if len(rec.Extents) == 0 {
		if m := n.driver.effect.Load(); m != nil && int(s) < len(m.Slots) {
			for _, d := range m.Slots[s].Insync {
				out[d] += rec.StoredBytes()
			}
		}
	}
	return out
}
