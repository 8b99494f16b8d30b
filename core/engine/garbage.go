package engine

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/remote"
)

// linger is how long the shards of a replaced version are kept for readers that
// have read its record and not opened them yet.
const linger = 15 * time.Second

// garbage deletes shards that no record names any more. What it forgets, by a
// crash or because a disk does not answer, the sweep finds later.
type garbage struct {
	node  *Node
	clock core.Clock
	log   *slog.Logger

	mu    sync.Mutex
	queue []doomed
	ready chan struct{}
	// barred are shards that the sweep found unnamed and is deleting: no
	// record may name them any more.
	barred map[core.ShardID]core.Instant
}

// doomed is a shard to be deleted, not before a time.
type doomed struct {
	disk core.DiskID
	id   core.ShardID
	at   core.Instant
}

func newGarbage(n *Node, clock core.Clock, log *slog.Logger) *garbage {
	return &garbage{node: n, clock: clock, log: log, ready: make(chan struct{}, 1), barred: map[core.ShardID]core.Instant{}}
}

// location is a shard on a disk.
type location struct {
	disk core.DiskID
	id   core.ShardID
}

// locations adds the shards that a record names.
func locations(rec *core.Record, to map[location]bool) {
	for i := range rec.Extents {
		e := &rec.Extents[i]
		for j, p := range e.Places {
			if p.Disk != 0 {
				to[location{p.Disk, e.Shard(j)}] = true
			}
		}
	}
}

// replaced has the shards deleted that only the old rows named. It is called
// after the commit, by the slot's owner.
func (g *garbage) replaced(old, fresh []core.Row) {
	var doomed map[location]bool
	for i := range old {
		if rec := recordOf(&old[i]); rec != nil && len(rec.Extents) > 0 {
			if doomed == nil {
				doomed = map[location]bool{}
			}
			locations(rec, doomed)
		}
	}
	if len(doomed) == 0 {
		return
	}
	named := map[location]bool{}
	for i := range fresh {
		if rec := recordOf(&fresh[i]); rec != nil {
			locations(rec, named)
		}
	}
	for l := range named {
		delete(doomed, l)
	}
	g.doom(doomed, linger)
}

// recordOf decodes the record of a row that has one.
func recordOf(r *core.Row) *core.Record {
	if r.Deleted || r.Space != core.SpaceObject && r.Space != core.SpacePart && r.Space != core.SpaceIntent {
		return nil
	}
	rec, err := namedBy(r)
	if err != nil {
		return nil
	}
	return rec
}

// namedBy decodes the record in a row: of an object, upload or part, or of what
// is being written to a remote.
func namedBy(r *core.Row) (*core.Record, error) {
	if r.Space != core.SpaceIntent {
		return core.DecodeRecord(r.Value)
	}
	in, err := remote.DecodeIntent(r.Value)
	if err != nil {
		return nil, err
	}
	if in.Record == nil {
		return &core.Record{}, nil
	}
	return in.Record, nil
}

// discard has the shards of a record deleted that was not committed.
func (g *garbage) discard(rec *core.Record) {
	doomed := map[location]bool{}
	locations(rec, doomed)
	g.doom(doomed, 0)
}

func (g *garbage) doom(all map[location]bool, after time.Duration) {
	if len(all) == 0 {
		return
	}
	at := g.clock.Boot().Add(after)
	g.mu.Lock()
	for l := range all {
		g.queue = append(g.queue, doomed{l.disk, l.id, at})
	}
	g.mu.Unlock()
	select {
	case g.ready <- struct{}{}:
	default:
	}
}

// condemned says whether a shard is being deleted, so that no record may name it.
func (g *garbage) condemned(id core.ShardID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.barred[id]
	return ok
}

// bar forbids to name a shard from now on.
func (g *garbage) bar(id core.ShardID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.barred[id] = g.clock.Boot()
}

// forget drops bars that are older than any write that might still name them.
func (g *garbage) forget() {
	const age = 2 * time.Hour
	now := g.clock.Boot()
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, at := range g.barred {
		if now.Sub(at) > age {
			delete(g.barred, id)
		}
	}
}

// run deletes what is due until ctx ends.
func (g *garbage) run(ctx context.Context) {
	for {
		due, next := g.due()
		for _, d := range due {
			g.delete(ctx, d)
		}
		if len(due) > 0 {
			continue
		}
		timer, cancel := context.WithTimeout(ctx, next)
		select {
		case <-g.ready:
		case <-timer.Done():
		}
		cancel()
		if ctx.Err() != nil {
			return
		}
	}
}

// due takes what may be deleted now, and says how long to wait for more. The
// queue is in the order of time but for what is due at once.
func (g *garbage) due() ([]doomed, time.Duration) {
	const idle = time.Minute
	now := g.clock.Boot()
	g.mu.Lock()
	defer g.mu.Unlock()
	var due, rest []doomed
	wait := idle
	for _, d := range g.queue {
		if d.at <= now {
			due = append(due, d)
		} else {
			rest = append(rest, d)
			wait = min(wait, d.at.Sub(now))
		}
	}
	g.queue = rest
	return due, wait
}

func (g *garbage) delete(ctx context.Context, d doomed) {
	m := g.node.driver.effect.Load()
	if m == nil {
		return
	}
	node := m.NodeOf(d.disk)
	if node == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err := g.node.net.Store(node, d.disk).Delete(ctx, d.id)
	if err != nil && !errors.Is(err, context.Canceled) {
		g.log.Debug("shard is left to the sweep", "disk", d.disk, "shard", d.id.String(), "err", err)
	}
}

// discardNew has the shards of a deleted that b does not name.
func (g *garbage) discardNew(a, b *core.Record) {
	doomed, named := map[location]bool{}, map[location]bool{}
	locations(a, doomed)
	locations(b, named)
	for l := range named {
		delete(doomed, l)
	}
	g.doom(doomed, 0)
}
