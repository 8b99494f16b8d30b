package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
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
	// passOn hands joiners that have caught up to the steward and says whether
	// it has made them members; see [mapkeeper.passJoined].
	passOn func(context.Context, []core.Change) bool

	mu     sync.Mutex
	queue  []*proposal
	joined []core.Change        // by the protocol, to be passed on
	asked  map[askedChange]bool // by the protocol, waiting or under way
	ready  chan struct{}        // capacity 1: queue is not empty
	caught chan struct{}        // capacity 1: joined is not empty
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
	return &mapkeeper{driver: d, clock: clock, log: log, reg: reg, saveMap: save, asked: map[askedChange]bool{}, ready: make(chan struct{}, 1), caught: make(chan struct{}, 1)}
}

// enqueue adds a proposal that is made as soon as the bus takes it.
func (k *mapkeeper) enqueue(changes []core.Change) *proposal {
	p := &proposal{changes: changes, errs: make([]error, len(changes)), done: make(chan struct{})}
	k.mu.Lock()
	k.queue = append(k.queue, p)
	k.mu.Unlock()
	poke(k.ready)
	return p
}

// ask takes what the protocol proposes, which it does again and again until a map
// answers: what is waiting already, while the bus is away, is not added.
func (k *mapkeeper) ask(changes []core.Change) {
	var fresh []core.Change
	k.mu.Lock()
	for i := range changes {
		a := askedOf(&changes[i])
		switch {
		case k.asked[a]:
			continue
		case a.kind == core.ChangeJoined && k.passOn != nil:
			k.joined = append(k.joined, changes[i])
		default:
			fresh = append(fresh, changes[i])
		}
		k.asked[a] = true
	}
	caught := len(k.joined) > 0
	k.mu.Unlock()
	if len(fresh) > 0 {
		k.enqueue(fresh)
	}
	if caught {
		poke(k.caught)
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// passJoined has joiners that have caught up made members. When much data moves
// many do, on all nodes at once; were each node to put its own into maps there
// would be a map for every few of them, which all nodes would have to read and
// store. So the steward is asked, which puts those of all nodes into one map
// together with what comes next. Where it does not answer, this node goes on as
// with all other changes. It does not matter if both do it.
func (k *mapkeeper) passJoined(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.caught:
		}
		k.mu.Lock()
		joined := k.joined
		k.joined = nil
		k.mu.Unlock()
		if len(joined) == 0 {
			continue
		}
		if !k.passOn(ctx, joined) {
			k.enqueue(joined)
			continue
		}
		k.forget(joined)
	}
}

// forget lets the protocol ask for changes again.
func (k *mapkeeper) forget(changes []core.Change) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range changes {
		delete(k.asked, askedOf(&changes[i]))
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
		if newest, _, _ := k.driver.maps(); newest != nil && newest.IsEncoded(value) {
			continue
		}
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
		k.gather(ctx)
		k.mu.Lock()
		queue := k.queue
		k.queue = nil
		k.mu.Unlock()
		if len(queue) > 0 {
			k.make(ctx, queue)
		}
	}
}

// calm is how old the newest map should be before the next is made for nothing
// but joiners that have caught up.
const calm = 250 * time.Millisecond

// gather waits while there is nothing else to do than to make joiners members and
// the newest map is young: more will have caught up.
func (k *mapkeeper) gather(ctx context.Context) {
	for ctx.Err() == nil && !k.hurries() {
		left := calm - k.clock.Boot().Sub(k.driver.seen.Load().at)
		if left <= 0 {
			return
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-k.ready:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// hurries says whether something waits that is not put off.
func (k *mapkeeper) hurries() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.ContainsFunc(k.queue, func(p *proposal) bool {
		return slices.ContainsFunc(p.changes, func(c core.Change) bool { return c.Kind != core.ChangeJoined })
	})
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
	k.forget(changes)
	answer(queue, epoch, errs, err)
}

// answer tells those who wait for proposals that went into one map what became of
// their changes, each in a slice of its own: they append to it.
func answer(queue []*proposal, epoch core.Epoch, errs []error, err error) {
	for _, p := range queue {
		if err != nil {
			p.err = err
		} else {
			p.errs, errs = slices.Clip(errs[:len(p.changes)]), errs[len(p.changes):]
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
	if m.IsEncoded(value) {
		return false, nil
	}
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
	if next.IsEncoded(value) {
		k.driver.step(func(n *slot.Node, now core.Instant) { n.SeeMap(now, next) })
		return next.Epoch, errs, nil
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
