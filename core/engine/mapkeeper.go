package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/slot"
	"github.com/shoalstore/shoal/placement"
)

// busTimeout bounds one exchange with the bus; after a coordinator's death its
// writes resume within 5 to 9 s, and a call that hangs longer is tried anew.
const busTimeout = 3 * time.Second

// mapkeeper watches the map on the bus and proposes its changes. A change is
// made on top of a map in effect only, so that a map's existence proves its
// predecessor to be in effect; all changes that wait are made in one map.
type mapkeeper struct {
	driver *driver
	clock  core.Clock
	log    *slog.Logger
	reg    bus.Register
	// onMap, if not nil, is told of each map that a proposal of this node made.
	onMap func(was, made *core.Map)
	// saveMap keeps the newest map for the node's next start.
	saveMap func(*core.Map) error

	mu    sync.Mutex
	queue []*proposal
	asked map[askedChange]bool // by the protocol, waiting or under way
	ready chan struct{}        // capacity 1
}

// askedChange is what tells one change of a row from another.
type askedChange struct {
	kind core.ChangeKind
	slot core.SlotID
	disk core.DiskID
	term core.Epoch
	boot uint64
}

func askedOf(c *core.Change) askedChange {
	return askedChange{kind: c.Kind, slot: c.Slot, disk: c.Disk, term: c.Term, boot: c.Boot}
}

// proposal is a group of changes somebody waits for.
type proposal struct {
	changes []core.Change
	errs    []error
	epoch   core.Epoch // of the map that made them, 0 if it made none
	err     error      // the bus did not take them
	done    chan struct{}
}

func newMapkeeper(d *driver, clock core.Clock, log *slog.Logger, reg bus.Register, save func(*core.Map) error) *mapkeeper {
	return &mapkeeper{driver: d, clock: clock, log: log, reg: reg, saveMap: save, asked: map[askedChange]bool{}, ready: make(chan struct{}, 1)}
}

// enqueue adds a proposal that is made as soon as the bus takes it.
func (k *mapkeeper) enqueue(changes []core.Change) *proposal {
	p := &proposal{changes: changes, errs: make([]error, len(changes)), done: make(chan struct{})}
	k.mu.Lock()
	k.queue = append(k.queue, p)
	k.mu.Unlock()
	select {
	case k.ready <- struct{}{}:
	default:
	}
	return p
}

// ask takes what the protocol proposes, which it does again and again until a map
// answers: what is waiting already, while the bus is away, is not added.
func (k *mapkeeper) ask(changes []core.Change) {
	var fresh []core.Change
	k.mu.Lock()
	for i := range changes {
		if a := askedOf(&changes[i]); !k.asked[a] {
			k.asked[a] = true
			fresh = append(fresh, changes[i])
		}
	}
	k.mu.Unlock()
	if len(fresh) > 0 {
		k.enqueue(fresh)
	}
}

// propose makes changes and waits until the map with them is in effect. The
// errors are those of the single changes, in order.
func (k *mapkeeper) propose(ctx context.Context, changes ...core.Change) ([]error, error) {
	p := k.enqueue(changes)
	select {
	case <-p.done:
	case <-ctx.Done():
		return nil, fmt.Errorf("change of the map: %w: %w", core.ErrUnknownOutcome, context.Cause(ctx))
	}
	if p.err != nil || p.epoch == 0 {
		return p.errs, p.err
	}
	_, err := k.driver.awaitMap(ctx, func(m *core.Map) bool { return m.Epoch >= p.epoch })
	if err != nil {
		err = fmt.Errorf("change of the map: written, but not confirmed by the voters yet: %w", err)
	}
	return p.errs, err
}

// one is propose for a single change.
func (k *mapkeeper) one(ctx context.Context, c core.Change) error {
	errs, err := k.propose(ctx, c)
	if err != nil {
		return err
	}
	return errs[0]
}

// watch hands every map that the bus has to the protocol.
func (k *mapkeeper) watch(ctx context.Context) {
	for value := range k.reg.Watch(ctx) {
		m, err := core.DecodeMap(value)
		if err != nil {
			k.log.Error("the map on the bus cannot be read", "err", err)
			continue
		}
		k.driver.step(func(n *slot.Node, now core.Instant) { n.SeeMap(now, m) })
	}
}

// keep stores each newest map for the next start.
func (k *mapkeeper) keep(ctx context.Context) {
	var saved core.Epoch
	for {
		newest, _, changed := k.driver.maps()
		if newest != nil && newest.Epoch > saved {
			if err := k.saveMap(newest); err != nil {
				k.log.Error("map cannot be stored", "epoch", newest.Epoch, "err", err)
			} else {
				saved = newest.Epoch
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// run makes the proposals, one map at a time.
func (k *mapkeeper) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			k.fail(context.Cause(ctx))
			return
		case <-k.ready:
		}
		k.mu.Lock()
		queue := k.queue
		k.queue = nil
		k.mu.Unlock()
		if len(queue) > 0 {
			k.make(ctx, queue)
		}
	}
}

// fail ends the proposals that will not be made any more.
func (k *mapkeeper) fail(cause error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.queue {
		p.err = fmt.Errorf("change of the map: the node is stopping: %w: %w", core.ErrUnavailable, cause)
		close(p.done)
	}
	k.queue = nil
}

// make puts the proposals into one map and has the bus take it, however long
// that lasts: whoever does not want to wait has a ctx of his own.
func (k *mapkeeper) make(ctx context.Context, queue []*proposal) {
	var changes []core.Change
	for _, p := range queue {
		changes = append(changes, p.changes...)
	}
	epoch, errs, err := k.try(ctx, changes)
	for err != nil && ctx.Err() == nil {
		k.log.Debug("change of the map is tried again", "err", err)
		if k.clock.Wait(ctx, 100*time.Millisecond) != nil {
			break
		}
		epoch, errs, err = k.try(ctx, changes)
	}
	k.mu.Lock()
	for i := range changes {
		delete(k.asked, askedOf(&changes[i]))
	}
	k.mu.Unlock()
	for _, p := range queue {
		if err != nil {
			p.err = err
		} else {
			p.errs, errs = errs[:len(p.changes)], errs[len(p.changes):]
			p.epoch = epoch
		}
		close(p.done)
	}
}

// try makes the changes on top of the map in effect once. An epoch of 0 without
// an error says that no change applied.
func (k *mapkeeper) try(ctx context.Context, changes []core.Change) (core.Epoch, []error, error) {
	m, err := k.settled(ctx)
	if err != nil {
		return 0, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	value, rev, err := k.reg.Load(ctx)
	if err != nil && !errors.Is(err, bus.ErrNoValue) {
		return 0, nil, err
	}
	if behind, err := k.compare(ctx, m, value); behind || err != nil {
		return 0, nil, err
	}
	next, errs := placement.Apply(m, k.clock.Now(), changes)
	if next == nil {
		return 0, errs, nil
	}
	enc, err := next.Encode()
	if err != nil {
		return 0, nil, err
	}
	if _, err := k.reg.CompareAndSet(ctx, enc, rev); err != nil {
		if !errors.Is(err, core.ErrUnknownOutcome) {
			return 0, nil, err
		}
		if epoch, errs, err := k.lookAgain(ctx, next, errs, err); err != nil {
			return epoch, errs, err
		}
	} else {
		k.driver.step(func(n *slot.Node, now core.Instant) { n.SeeMap(now, next) })
	}
	if k.onMap != nil {
		k.onMap(m, next)
	}
	return next.Epoch, errs, nil
}

// errStale says that the attempt was made on top of an old map.
var errStale = fmt.Errorf("the map has moved on: %w", core.ErrConflict)

// compare holds what the bus has against the map in effect. A newer map is
// taken up; a bus that is older is brought up to it.
func (k *mapkeeper) compare(ctx context.Context, m *core.Map, value []byte) (behind bool, err error) {
	stored, damaged := core.DecodeMap(value)
	switch {
	case errors.Is(damaged, core.ErrNewer):
		return true, fmt.Errorf("the bus: %w", damaged)
	case damaged == nil && stored.Sum() == m.Sum():
		return false, nil
	case damaged == nil && stored.Cluster != m.Cluster:
		return true, fmt.Errorf("the bus holds the map of another cluster, %s: %w", stored.Cluster, core.ErrInvalid)
	case damaged == nil && stored.Epoch > m.Epoch:
		k.driver.step(func(n *slot.Node, now core.Instant) { n.SeeMap(now, stored) })
		return true, errStale
	}
	k.log.Warn("the bus holds an older map than the one in effect; it is brought up", "epoch", m.Epoch)
	enc, err := m.Encode()
	if err != nil {
		return true, err
	}
	if err := bus.Restore(ctx, k.reg, enc, mapEpoch); err != nil {
		return true, err
	}
	return true, errStale
}

// mapEpoch reads a map's epoch for [bus.Restore].
func mapEpoch(value []byte) (uint64, error) {
	m, err := core.DecodeMap(value)
	if err != nil {
		return 0, err
	}
	return uint64(m.Epoch), nil
}

// lookAgain finds out whether a write with an unknown outcome took place.
func (k *mapkeeper) lookAgain(ctx context.Context, next *core.Map, errs []error, cause error) (core.Epoch, []error, error) {
	value, _, err := k.reg.Load(ctx)
	if err != nil {
		return 0, nil, errors.Join(cause, err)
	}
	if m, err := core.DecodeMap(value); err == nil && m.Sum() == next.Sum() {
		k.driver.step(func(n *slot.Node, now core.Instant) { n.SeeMap(now, m) })
		return m.Epoch, errs, nil
	}
	return 0, nil, cause
}

// settled waits until the newest map is in effect and returns it.
func (k *mapkeeper) settled(ctx context.Context) (*core.Map, error) {
	for {
		newest, effect, changed := k.driver.maps()
		if effect != nil && newest == effect {
			return effect, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("no map in effect: %w: %w", core.ErrUnavailable, context.Cause(ctx))
		}
	}
}
