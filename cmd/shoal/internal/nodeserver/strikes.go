package nodeserver

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// strikes remembers what happened to nodes and disks, as this node saw it in the
// maps, so that a dip in throughput can be read together with its cause. Every
// node sees everything, so that the loss of one loses nothing of it.
type strikes struct {
	clock core.Clock

	mu     sync.Mutex
	was    *core.Map
	recent []api.Event // oldest first
	counts map[string]int64
}

const (
	// strikesKept bounds the events remembered, and history their age.
	strikesKept = 200
	// sameStrike is within which two nodes see the same thing.
	sameStrike = 15 * time.Second
)

// Kinds of events beside those of nodes and disks, which are "node_" or "disk_"
// and the state.
const (
	strikeTakenOver   = "slots_taken_over"
	strikeUnavailable = "slots_unavailable"
	strikeAvailable   = "slots_available"
)

func newStrikes(c core.Clock) *strikes { return &strikes{clock: c, counts: map[string]int64{}} }

// see takes the next map in effect.
func (k *strikes) see(m *core.Map) {
	k.mu.Lock()
	defer k.mu.Unlock()
	was := k.was
	k.was = m
	if was == nil || was.Epoch >= m.Epoch {
		return
	}
	now := k.clock.Now()
	note := func(kind, subject, text string, times int) {
		k.counts[kind] += int64(times)
		k.recent = append(k.recent, api.Event{Time: now.UTC(), Kind: kind, Subject: subject, Text: text, Epoch: m.Epoch})
	}
	for _, e := range nodeEvents(was, m) {
		note("node_"+e.what, e.subject, e.subject+" "+e.what, 1)
	}
	for _, e := range diskEvents(was, m) {
		text := e.subject + " " + e.what
		if d, ok := e.data.(diskEvent); ok && d.Reason != "" {
			text += ": " + d.Reason
		}
		note("disk_"+e.what, e.subject, text, 1)
	}
	k.seeSlots(was, m, note)
	k.recent = slices.DeleteFunc(k.recent, func(e api.Event) bool { return now.Sub(e.Time) > history })
	if n := len(k.recent) - strikesKept; n > 0 {
		k.recent = slices.Delete(k.recent, 0, n)
	}
}

// seeSlots notes the slots that have another owner, or none, by the node that had
// them.
func (k *strikes) seeSlots(was, m *core.Map, note func(kind, subject, text string, times int)) {
	type group struct {
		kind string
		node core.NodeID
	}
	counts := map[group]int{}
	for _, e := range slotEvents(was, m) {
		d, ok := e.data.(slotEvent)
		if !ok {
			continue
		}
		switch e.what {
		case eventTakenOver:
			// Slots that move for balance are counted, but nobody was struck.
			k.counts[strikeTakenOver]++
			if !stillThere(m, was.Slots[d.Slot].Owner()) {
				counts[group{strikeTakenOver, d.Was}]++
			}
		case eventUnavailable:
			counts[group{strikeUnavailable, d.Was}]++
		case eventAvailable:
			counts[group{strikeAvailable, d.Owner}]++
		}
	}
	groups := slices.SortedFunc(maps.Keys(counts), func(a, b group) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.node, b.node))
	})
	for _, g := range groups {
		n := counts[g]
		var text string
		switch g.kind {
		case strikeTakenOver:
			text = fmt.Sprintf("%d slots of %s have other owners", n, g.node)
		case strikeUnavailable:
			text = fmt.Sprintf("%d slots of %s cannot be served", n, g.node)
		default:
			text = fmt.Sprintf("%d slots are served again, by %s", n, g.node)
		}
		times := n
		if g.kind == strikeTakenOver {
			times = 0 // they are counted already
		}
		note(g.kind, string(g.node), text, times)
	}
}

// stillThere says whether the map expects a disk to be there.
func stillThere(m *core.Map, id core.DiskID) bool {
	d := m.Disk(id)
	if d == nil || d.State != core.DiskOK {
		return false
	}
	n := m.Node(d.Node)
	return n != nil && n.State != core.NodeDown
}

// list returns what is remembered, oldest first.
func (k *strikes) list() []api.Event {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.recent)
}

// totals counts events by kind since the node's start.
func (k *strikes) totals() map[string]int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.counts)
}

// mergeEvents puts together what several nodes saw: each thing once, when the
// first of them saw it.
func mergeEvents(lists ...[]api.Event) []api.Event {
	var all, out []api.Event
	for _, l := range lists {
		all = append(all, l...)
	}
	slices.SortStableFunc(all, func(a, b api.Event) int { return a.Time.Compare(b.Time) })
	for _, e := range all {
		// A node that has missed a map sees what it brought with a later one.
		known := slices.ContainsFunc(out, func(o api.Event) bool {
			return o.Kind == e.Kind && o.Subject == e.Subject && o.Text == e.Text && (o.Epoch == e.Epoch || e.Time.Sub(o.Time) < sameStrike)
		})
		if !known {
			out = append(out, e)
		}
	}
	return out
}
