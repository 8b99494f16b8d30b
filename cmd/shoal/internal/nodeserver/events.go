package nodeserver

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/job"
	"github.com/shoalstore/shoal/plugins/api"
)

// What events are called. Nodes and disks have their states besides: "down",
// "failed"; jobs theirs only.
const (
	eventStarted     = "started"     // a node, anew
	eventAdded       = "added"       // a disk
	eventTakenOver   = "taken-over"  // a slot, by another node
	eventUnavailable = "unavailable" // a slot, of which no in-sync disk is there
	eventAvailable   = "available"   // a slot, again
	eventCreated     = "created"     // a bucket
	eventReady       = "ready"       // a bucket that takes writes now
	eventChanged     = "changed"     // a bucket's properties
	eventDeleting    = "deleting"    // a bucket that takes no more writes
	eventDeleted     = "deleted"     // a bucket
)

// Data of events.
type (
	nodeEvent struct {
		Node  core.NodeID    `json:"node"`
		State core.NodeState `json:"state"`
		Was   core.NodeState `json:"was,omitempty"`
		Epoch core.Epoch     `json:"epoch"`
	}
	diskEvent struct {
		Disk  string         `json:"disk"` // NODE/NAME
		ID    core.DiskID    `json:"id"`
		UUID  string         `json:"uuid"`
		State core.DiskState `json:"state"`
		Was   core.DiskState `json:"was,omitempty"`
		// Reason says why a disk failed.
		Reason string     `json:"reason,omitempty"`
		Epoch  core.Epoch `json:"epoch"`
	}
	slotEvent struct {
		Slot  core.SlotID `json:"slot"`
		Owner core.NodeID `json:"owner"`
		Was   core.NodeID `json:"was,omitempty"`
		Epoch core.Epoch  `json:"epoch"`
	}
	bucketEvent struct {
		Bucket string           `json:"bucket"`
		ID     core.BucketID    `json:"id"`
		State  core.BucketState `json:"state,omitempty"`
		Epoch  core.Epoch       `json:"epoch"`
	}
	jobEvent struct {
		api.Job
		Was job.State `json:"was,omitempty"`
	}
)

// happened is an event before it has a source, an id and a time.
type happened struct {
	kind          bus.EventKind
	subject, what string
	data          any
}

// mapEvents says what happened from a map to its successor: nodes, disks and
// buckets in the order of the map, then slots.
func mapEvents(was, made *core.Map) []happened {
	out := nodeEvents(was, made)
	out = append(out, diskEvents(was, made)...)
	out = append(out, bucketEvents(was, made)...)
	return append(out, slotEvents(was, made)...)
}

func nodeEvents(was, made *core.Map) (out []happened) {
	for i := range made.Nodes {
		n := &made.Nodes[i]
		e := nodeEvent{Node: n.ID, State: n.State, Epoch: made.Epoch}
		old := was.Node(n.ID)
		if old != nil {
			e.Was = old.State
		}
		if old != nil && old.Boot != n.Boot {
			out = append(out, happened{bus.EventNode, string(n.ID), eventStarted, e})
		}
		if e.State != e.Was {
			out = append(out, happened{bus.EventNode, string(n.ID), string(n.State), e})
		}
	}
	return out
}

func diskEvents(was, made *core.Map) (out []happened) {
	for i := range made.Disks {
		d := &made.Disks[i]
		e := diskEvent{Disk: string(d.Node) + "/" + d.Name, ID: d.ID, UUID: d.UUID, State: d.State, Reason: d.Reason, Epoch: made.Epoch}
		switch old := was.Disk(d.ID); {
		case old == nil:
			out = append(out, happened{bus.EventDisk, e.Disk, eventAdded, e})
		case old.State != d.State:
			e.Was = old.State
			out = append(out, happened{bus.EventDisk, e.Disk, string(d.State), e})
		}
	}
	return out
}

func bucketEvents(was, made *core.Map) (out []happened) {
	tell := func(b *core.Bucket, what string, state core.BucketState) {
		out = append(out, happened{bus.EventBucket, b.Name.String(), what, bucketEvent{b.Name.String(), b.ID, state, made.Epoch}})
	}
	for i := range made.Buckets {
		b := &made.Buckets[i]
		old := was.Bucket(b.ID)
		switch {
		case old == nil:
			tell(b, eventCreated, b.State)
		case old.State != b.State && b.State == core.BucketDeleting:
			tell(b, eventDeleting, b.State)
		case old.State != b.State && b.State == core.BucketOK:
			tell(b, eventReady, b.State)
		}
		if old != nil && (old.Policy != b.Policy || old.Alias != b.Alias) {
			tell(b, eventChanged, b.State)
		}
	}
	for i := range was.Buckets {
		if b := &was.Buckets[i]; made.Bucket(b.ID) == nil {
			tell(b, eventDeleted, "")
		}
	}
	return out
}

func slotEvents(was, made *core.Map) (out []happened) {
	for i := range made.Slots {
		s := core.SlotID(i)
		if i >= len(was.Slots) {
			break
		}
		e := slotEvent{Slot: s, Owner: made.OwnerNode(s), Was: was.OwnerNode(s), Epoch: made.Epoch}
		served, serves := isServed(was, s), isServed(made, s)
		subject := fmt.Sprint(s)
		if served && !serves {
			out = append(out, happened{bus.EventSlot, subject, eventUnavailable, e})
		}
		if serves && e.Owner != e.Was {
			out = append(out, happened{bus.EventSlot, subject, eventTakenOver, e})
		}
		if !served && serves {
			out = append(out, happened{bus.EventSlot, subject, eventAvailable, e})
		}
	}
	return out
}

// isServed says whether the map expects the slot's owner to be there.
func isServed(m *core.Map, s core.SlotID) bool {
	return stillThere(m, m.Slots[s].Owner())
}

// eventsKept is how many changes may wait for being published; what comes beyond
// is not.
const eventsKept = 1024

// publisher publishes what this node brought about: the maps that it proposed,
// and the states that it moved jobs to. So each event has one publisher.
type publisher struct {
	source string
	bus    bus.Events
	clock  core.Clock
	log    *slog.Logger
	// maps returns the map in effect and a channel that closes when it changes.
	maps func() (*core.Map, <-chan struct{})

	mu    sync.Mutex
	queue []change
	lost  int
	ready chan struct{} // capacity 1
}

// change is what may have brought about events: a map, or one event.
type change struct {
	was, made *core.Map
	event     happened
}

// onMap takes a map that this node proposed; see [engine.Options].
func (p *publisher) onMap(was, made *core.Map) { p.add(change{was: was, made: made}) }

// onJob takes a state that this node moved a job to; see [job.Options].
func (p *publisher) onJob(j job.Job, was job.State) {
	p.add(change{event: happened{bus.EventJob, j.Spec.ID, string(j.Status.State), jobEvent{jobOf(j), was}}})
}

func (p *publisher) add(c change) {
	p.mu.Lock()
	if len(p.queue) < eventsKept {
		p.queue = append(p.queue, c)
	} else {
		p.lost++
	}
	p.mu.Unlock()
	select {
	case p.ready <- struct{}{}:
	default:
	}
}

// run publishes until ctx ends, and then what is left without waiting.
func (p *publisher) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			p.flush(ctx)
			return nil
		case <-p.ready:
			p.flush(ctx)
		}
	}
}

func (p *publisher) flush(ctx context.Context) {
	p.mu.Lock()
	queue, lost := p.queue, p.lost
	p.queue, p.lost = nil, 0
	p.mu.Unlock()
	for _, c := range queue {
		if c.made == nil {
			p.publish(ctx, c.event)
			continue
		}
		p.await(ctx, c.made.Epoch)
		for _, e := range mapEvents(c.was, c.made) {
			p.publish(ctx, e)
		}
	}
	if lost > 0 {
		p.log.Warn("events were not published: too many at once", "lost", lost)
	}
}

// await waits until the map is in effect, or overtaken by one that is: only then
// it has happened.
func (p *publisher) await(ctx context.Context, e core.Epoch) {
	for {
		m, changed := p.maps()
		if m != nil && m.Epoch >= e {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func (p *publisher) publish(ctx context.Context, h happened) {
	e, err := bus.NewEvent(h.kind, h.subject, h.what, p.source, p.clock.Now().UTC(), h.data)
	if err == nil {
		err = p.bus.Publish(ctx, e)
	}
	if err != nil {
		p.log.Debug("event not published", "kind", string(h.kind), "subject", h.subject, "what", h.what, "err", err)
	}
}

func newPublisher(s *server) *publisher {
	return &publisher{
		source: fmt.Sprintf("/%s/nodes/%s", s.state.id.Cluster, s.state.id.Node), bus: s.bus, clock: s.clock, log: s.log,
		maps: func() (*core.Map, <-chan struct{}) { return s.node.Maps() }, ready: make(chan struct{}, 1),
	}
}
