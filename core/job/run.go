package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/shoalstore/shoal/core"
)

const (
	pageSize       = 1000
	flushEvery     = 2 * time.Second
	followEvery    = 200 * time.Millisecond // while slots are being taken over
	defaultWorkers = 4                      // for each disk
)

// run is this node's share of a job.
type run struct {
	m      *Manager
	spec   *Spec
	cancel context.CancelFunc
	sel    *selector
	limit  *limits
	// transform is the version that the job runs, once it is ready.
	transform pin

	planning sync.Mutex // plan is being made, for a phase
	plan     *lruPlan
	planned  State

	mu      sync.Mutex
	phase   State
	slots   map[core.SlotID]*progress
	waiting map[string]int // what objects wait for, and how many do
	// ranged is the node's part in a phase over ranges, nil in others; trouble is
	// why listings do not go on, by whom.
	ranged  *rangeRun
	trouble map[string]string
}

// progress is how far a slot is in the present phase.
type progress struct {
	cursor  cursor
	version core.Version // of the cursor's row
	loaded  bool
	dirty   bool
	flushed time.Time
	notes   []Error // that are to be written with the cursor
}

// cursor is the record that a job keeps in a slot: everything up to the
// position is through, and counted.
type cursor struct {
	// Bucket, Key and Sub are the position; Finished says that the slot is
	// through.
	Bucket   core.BucketID `json:"bucket"`
	Key      string        `json:"key"`
	Sub      string        `json:"sub,omitempty"`
	Finished bool          `json:"finished,omitempty"`
	Books    Books         `json:"books"`
	Errors   []Error       `json:"errors,omitempty"`
}

// passed says whether a row lies at or before the position.
func (c *cursor) passed(b core.BucketID, key, sub string) bool {
	switch {
	case c.Finished || b < c.Bucket:
		return true
	case b > c.Bucket:
		return false
	case key != c.Key:
		return key < c.Key
	}
	return sub <= c.Sub
}

func newRun(m *Manager, s *Spec, cancel context.CancelFunc) *run {
	return &run{m: m, spec: s, cancel: cancel, slots: map[core.SlotID]*progress{}, waiting: map[string]int{}, trouble: map[string]string{}}
}

// limits are this node's part of the job's bounds.
type limits struct {
	objects, bytes *rate.Limiter
}

func (r *run) newLimits() *limits {
	nodes := 0
	for _, n := range r.m.o.Node.Map().Nodes {
		if n.State == core.NodeActive {
			nodes++
		}
	}
	return newLimits(r.spec, max(nodes, 1))
}

// newLimits gives a node its part. What it may do at once is its part of a
// tenth of a second, so that the nodes together keep to the bound from the start.
func newLimits(s *Spec, nodes int) *limits {
	share := func(perSecond float64) *rate.Limiter {
		if perSecond <= 0 {
			return nil
		}
		mine := perSecond / float64(nodes)
		return rate.NewLimiter(rate.Limit(mine), max(int(mine/10), 1))
	}
	return &limits{objects: share(s.ObjectRate), bytes: share(float64(s.ByteRate))}
}

// wait delays an object as the bounds ask for.
func (l *limits) wait(ctx context.Context, bytes int64) error {
	if l.objects != nil {
		if err := l.objects.Wait(ctx); err != nil {
			return err
		}
	}
	for l.bytes != nil && bytes > 0 {
		k := min(bytes, int64(l.bytes.Burst()))
		if err := l.bytes.WaitN(ctx, int(k)); err != nil {
			return err
		}
		bytes -= k
	}
	return nil
}

// loop does the node's share of each phase until ctx ends.
func (r *run) loop(ctx context.Context) error {
	defer r.m.o.Node.CountCost(r.spec.ID)()
	ctx = r.m.o.Node.ForJob(ctx, r.spec.ID)
	var err error
	if r.sel, err = newSelector(r.spec); err != nil {
		return err
	}
	for m, changed := r.m.o.Node.Maps(); m == nil; m, changed = r.m.o.Node.Maps() {
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	r.awaitBuckets(ctx)
	r.limit = r.newLimits()
	defer r.transform.release(ctx)
	var following sync.WaitGroup
	defer following.Wait()
	following.Go(func() { r.follow(ctx) })
	var told State // the phase with which this node was seen to be through
	for ctx.Err() == nil {
		_, st, _, changed, _ := r.m.snapshot(r.spec.ID)
		phase := phaseOf(st.State)
		r.enter(phase)
		m, mapChanged := r.m.o.Node.Maps()
		table := r.spec.tableOf(phase)
		if table != "" || phase == Planning || phase == Running || phase == Verifying {
			if err := r.part(ctx, m, phase, table); err != nil && ctx.Err() == nil {
				r.m.o.Log.Warn("share of a job is tried again", "job", r.spec.ID, "err", err)
			} else if err == nil && table == "" && told != phase && !r.unfinished() {
				told = phase
				r.m.nudge(ctx, r.spec.ID, phase)
			}
		}
		if moved, err := r.rest(ctx, phase); err != nil {
			break
		} else if moved || table != "" || r.unfinished() {
			continue
		}
		select {
		case <-changed:
		case <-mapChanged:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// awaitBuckets waits until the node's map has the job's buckets: a destination may have
// been created just before the job. One that does not come was removed.
func (r *run) awaitBuckets(ctx context.Context) {
	const soon = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	for ctx.Err() == nil {
		m, changed := r.m.o.Node.Maps()
		known := func(id core.BucketID) bool { return id == core.SystemBucket || m.Bucket(id) != nil }
		if known(r.spec.FromID) && known(r.spec.ToID) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// rest waits a moment, unless the job is in another phase by then.
func (r *run) rest(ctx context.Context, phase State) (moved bool, err error) {
	const moment = 50 * time.Millisecond
	c, cancel := context.WithCancel(ctx)
	defer cancel()
	var watching sync.WaitGroup
	watching.Go(func() {
		for c.Err() == nil {
			_, st, _, changed, _ := r.m.snapshot(r.spec.ID)
			if moved = phaseOf(st.State) != phase; moved {
				cancel()
				return
			}
			select {
			case <-changed:
			case <-c.Done():
			}
		}
	})
	_ = r.m.o.Clock.Wait(c, moment)
	cancel()
	watching.Wait()
	return moved, ctx.Err()
}

// enter begins a phase: what is known of slots belongs to one phase only.
func (r *run) enter(phase State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.phase != phase {
		r.phase = phase
		r.slots = map[core.SlotID]*progress{}
		clear(r.waiting)
	}
}

// adopt brings the list of slots up to what the node owns now.
func (r *run) adopt(owned map[core.SlotID]core.Epoch) []core.SlotID {
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := range r.slots {
		if _, ok := owned[s]; !ok {
			delete(r.slots, s)
		}
	}
	var todo []core.SlotID
	for s := range owned {
		p := r.slots[s]
		if p == nil {
			p = &progress{}
			r.slots[s] = p
		}
		if !p.cursor.Finished {
			todo = append(todo, s)
		}
	}
	slices.Sort(todo)
	return todo
}

// unfinished says whether some slot of the node is not through yet, or will
// have to be gone through.
func (r *run) unfinished() bool {
	r.mu.Lock()
	phase := r.phase
	r.mu.Unlock()
	if phase != Planning && phase != Running && phase != Verifying {
		return false
	}
	served := r.m.o.Node.OwnedSlots()
	return len(r.adopt(served)) > 0 || awaits(r.m.o.Node.Map(), r.m.o.Node.ID(), len(served))
}

// awaits says whether the map gives a node more slots than it serves: those it
// is taking over, or all while it has no lease. Nobody tells when that is over.
func awaits(m *core.Map, self core.NodeID, served int) bool {
	given := 0
	for s := range m.Slots {
		if m.OwnerNode(core.SlotID(s)) == self {
			given++
		}
	}
	return given > served
}

// part does the node's part in a phase, over ranges where it has a table of them.
func (r *run) part(ctx context.Context, m *core.Map, phase State, table string) error {
	if table != "" {
		return r.ranges(ctx, phase, table)
	}
	return r.share(ctx, m, phase)
}

// share goes over the node's slots that are not through yet.
func (r *run) share(ctx context.Context, m *core.Map, phase State) error {
	todo := r.adopt(r.m.o.Node.OwnedSlots())
	if len(todo) == 0 {
		return nil
	}
	act, buckets, err := r.action(m, phase)
	if err != nil {
		return err
	}
	if phase == Running {
		if todo, err = r.load(ctx, todo); err != nil {
			return err
		}
	}
	p := &pass{r: r, act: act, held: map[core.SlotID]*progress{}, keep: phase == Running, prefix: r.spec.Prefix, takes: r.sel.takes}
	if phase == Verifying && r.spec.writes() {
		p.prefix, p.takes = r.spec.Prepend, func(string) bool { return true }
	}
	for _, s := range todo {
		if pr := r.get(s); pr != nil {
			p.held[s] = pr
		}
	}
	for _, b := range buckets {
		if err := p.bucket(ctx, b); err != nil {
			return err
		}
	}
	return p.finish(ctx)
}

// load reads the cursors of slots that were taken over or not begun.
func (r *run) load(ctx context.Context, todo []core.SlotID) ([]core.SlotID, error) {
	out := todo[:0]
	for _, s := range todo {
		p := r.get(s)
		if p == nil {
			continue
		}
		finished, err := r.read(ctx, s, p)
		if err != nil {
			return nil, err
		}
		if !finished {
			out = append(out, s)
		}
	}
	return out, nil
}

// read reads a slot's cursor unless it was, and says whether the slot is through.
func (r *run) read(ctx context.Context, s core.SlotID, p *progress) (finished bool, err error) {
	r.mu.Lock()
	loaded, finished := p.loaded, p.cursor.Finished
	r.mu.Unlock()
	if loaded {
		return finished, nil
	}
	row, err := r.m.o.Node.Row(ctx, s, cursorKey(r.spec.ID))
	if err != nil && !errors.Is(err, core.ErrNotFound) {
		return false, fmt.Errorf("cursor of slot %d: %w", s, err)
	}
	var c cursor
	if err == nil {
		if err := json.Unmarshal(row.Value, &c); err != nil {
			return false, fmt.Errorf("cursor of slot %d: %w: %w", s, core.ErrCorrupt, err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !p.loaded {
		p.cursor, p.version, p.loaded = c, row.Version, true
	}
	return p.cursor.Finished, nil
}

// follow reads the cursors of slots that come to the node while a pass goes on,
// which is about other slots, so that the job's figures have them.
func (r *run) follow(ctx context.Context) {
	for ctx.Err() == nil {
		m, changed := r.m.o.Node.Maps()
		served := r.m.o.Node.OwnedSlots()
		for s, p := range r.newcomers(served) {
			if _, err := r.read(ctx, s, p); err != nil {
				break // the next pass reads it
			}
		}
		if awaits(m, r.m.o.Node.ID(), len(served)) {
			if r.m.o.Clock.Wait(ctx, followEvery) != nil {
				return
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// newcomers adds the slots that the node owns and that no pass is about yet.
func (r *run) newcomers(owned map[core.SlotID]core.Epoch) map[core.SlotID]*progress {
	out := map[core.SlotID]*progress{}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.phase != Running || len(r.slots) == 0 {
		return out
	}
	for s := range owned {
		if r.slots[s] == nil {
			r.slots[s] = &progress{}
			out[s] = r.slots[s]
		}
	}
	return out
}

func cursorKey(id string) core.RowKey {
	return core.RowKey{Bucket: core.SystemBucket, Space: core.SpaceCursor, Key: id}
}

func (r *run) get(s core.SlotID) *progress {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.slots[s]
}

// pass is one way over the rows of some slots.
type pass struct {
	r   *run
	act action
	// held are the slots that it is about and what was known of them when it
	// began: what is read again later belongs to a later pass.
	held map[core.SlotID]*progress
	keep bool // cursors are written
	// prefix and takes select the rows.
	prefix string
	takes  func(key string) bool
}

// bucket goes over one bucket, in key order.
func (p *pass) bucket(ctx context.Context, b core.BucketID) error {
	scan := core.Scan{Bucket: b, Space: core.SpaceObject, Prefix: p.prefix}
	for ctx.Err() == nil {
		only := slices.Sorted(maps.Keys(p.held))
		if len(only) == 0 {
			return nil
		}
		page, err := p.r.m.o.Node.ScanOwned(ctx, scan, pageSize, only)
		if err != nil {
			return err
		}
		p.lose(page.Held)
		if err := p.page(ctx, b, page.Found); err != nil {
			return err
		}
		if !page.More || len(page.Found) == 0 {
			return nil
		}
		last := &page.Found[len(page.Found)-1]
		scan.AfterKey, scan.AfterSub = last.Key, last.Sub
	}
	return ctx.Err()
}

// lose leaves out the slots that were not held throughout.
func (p *pass) lose(held []core.SlotID) {
	ok := make(map[core.SlotID]bool, len(held))
	for _, s := range held {
		ok[s] = true
	}
	for s := range p.held {
		if !ok[s] {
			delete(p.held, s)
		}
	}
}

// page works on a page of rows, several at a time, and advances the cursors.
func (p *pass) page(ctx context.Context, b core.BucketID, found []core.Found) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	sem := make(chan struct{}, p.r.workers())
	var wg sync.WaitGroup
	for i := range found {
		f := &found[i]
		pr := p.r.get(f.Slot)
		if pr == nil || pr != p.held[f.Slot] || pr.cursor.passed(b, f.Key, f.Sub) || !p.takes(f.Key) {
			continue
		}
		sem <- struct{}{}
		if ctx.Err() != nil {
			<-sem
			break
		}
		wg.Go(func() {
			defer func() { <-sem }()
			if err := p.one(ctx, b, pr, f); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		p.abandon(found)
		return context.Cause(ctx)
	}
	p.r.mu.Lock()
	for i := range found {
		f := &found[i]
		if pr := p.r.slots[f.Slot]; pr != nil && pr == p.held[f.Slot] && !pr.cursor.passed(b, f.Key, f.Sub) {
			pr.cursor.Bucket, pr.cursor.Key, pr.cursor.Sub = b, f.Key, f.Sub
			pr.dirty = true
		}
	}
	p.r.mu.Unlock()
	return p.flush(ctx, false)
}

// abandon forgets what was counted of an interrupted page: its slots are read
// again from their cursors.
func (p *pass) abandon(found []core.Found) {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	for i := range found {
		delete(p.r.slots, found[i].Slot)
	}
}

func (r *run) workers() int {
	k := r.spec.Workers
	if k <= 0 {
		k = defaultWorkers
	}
	return max(k*r.m.o.Node.DiskCount(), 1)
}

// one works on one object until it has an end that counts.
func (p *pass) one(ctx context.Context, b core.BucketID, pr *progress, f *core.Found) error {
	rec, err := core.DecodeRecord(f.Value)
	if err != nil {
		return fmt.Errorf("record of %q: %w", f.Key, err)
	}
	if !p.r.spec.about(rec) {
		return nil
	}
	if p.keep {
		if err := p.r.limit.wait(ctx, rec.Size); err != nil {
			return err
		}
	}
	res, err := p.r.persist(ctx, f.Key, func() (result, error) { return p.act(ctx, b, f, rec) })
	if err != nil {
		return err
	}
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	res.count(&pr.cursor.Books, rec.Size)
	if e, ok := res.note(f.Key); ok {
		pr.notes = noted(pr.notes, e)
		pr.cursor.Errors = someErrors(pr.cursor.Errors, errorsKept, e)
	}
	return nil
}

// persist tries an object again while what it needs is unavailable.
func (r *run) persist(ctx context.Context, key string, act func() (result, error)) (result, error) {
	const tries = 3
	began := r.m.o.Clock.Now()
	for i := 1; ; i++ {
		res, err := act()
		if err == nil {
			return res, nil
		}
		if ctx.Err() != nil {
			return res, ctx.Err()
		}
		transient := errors.Is(err, core.ErrUnavailable) || errors.Is(err, core.ErrUnknownOutcome) ||
			errors.Is(err, core.ErrDiskFailed) || errors.Is(err, core.ErrConflict) || errors.Is(err, core.ErrNotOwner) ||
			errors.Is(err, core.ErrThrottled)
		waited := r.m.o.Clock.Now().Sub(began)
		if !transient && i >= tries || transient && r.spec.Unavailable > 0 && waited > r.spec.Unavailable {
			return result{end: endFailed, why: Error{Key: key, Code: codeOf(err), Message: err.Error()}}, nil
		}
		r.wait(err, 1)
		stop := r.pause(ctx, min(time.Duration(i)*200*time.Millisecond, 2*time.Second))
		r.wait(err, -1)
		if stop != nil {
			return res, stop
		}
	}
}

// pause waits, but no longer than until the map changes: what was missing may be
// there then.
func (r *run) pause(ctx context.Context, d time.Duration) error {
	const least = 20 * time.Millisecond
	_, changed := r.m.o.Node.Maps()
	c, cancel := context.WithCancel(ctx)
	defer cancel()
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-changed:
			cancel()
		case <-c.Done():
		}
	})
	err := r.m.o.Clock.Wait(c, d)
	cancel()
	watching.Wait()
	if err != nil && ctx.Err() == nil {
		return r.m.o.Clock.Wait(ctx, min(d, least))
	}
	return ctx.Err()
}

// wait notes that an object waits for something.
func (r *run) wait(err error, by int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting[err.Error()] += by; r.waiting[err.Error()] <= 0 {
		delete(r.waiting, err.Error())
	}
}

// note remembers why somebody's listing does not go on, nil that it does.
func (r *run) note(who string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if delete(r.trouble, who); err != nil {
		r.trouble[who] = err.Error()
	}
}

// flush writes the cursors that have moved: now and then, or all.
func (p *pass) flush(ctx context.Context, all bool) error {
	if !p.keep {
		return nil
	}
	now := p.r.m.o.Clock.Now()
	type item struct {
		slot core.SlotID
		pr   *progress
	}
	var due []item
	p.r.mu.Lock()
	for s, held := range p.held {
		if pr := p.r.slots[s]; pr != nil && pr == held && pr.dirty && (all || now.Sub(pr.flushed) > flushEvery || len(pr.notes) >= notesTogether) {
			due = append(due, item{s, pr})
		}
	}
	p.r.mu.Unlock()
	const together = 64
	sem := make(chan struct{}, together)
	var wg sync.WaitGroup
	for _, d := range due {
		sem <- struct{}{}
		wg.Go(func() {
			defer func() { <-sem }()
			p.write(ctx, d.slot, d.pr)
		})
	}
	wg.Wait()
	return ctx.Err()
}

// write stores one cursor. Where that fails the slot is read again.
func (p *pass) write(ctx context.Context, s core.SlotID, pr *progress) {
	p.r.mu.Lock()
	value, err := json.Marshal(pr.cursor)
	version, notes := pr.version, pr.notes
	pr.dirty, pr.flushed, pr.notes = false, p.r.m.o.Clock.Now(), nil
	p.r.mu.Unlock()
	var also []core.Row
	if err == nil {
		also, err = noteRows(p.r.spec.ID, notes)
	}
	if err == nil {
		row := core.Row{RowKey: cursorKey(p.r.spec.ID), Version: version, Value: value}
		version, err = p.r.m.o.Node.PutRows(ctx, s, []core.Row{row}, also...)
	}
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			p.r.m.o.Log.Debug("cursor is read again", "job", p.r.spec.ID, "slot", uint32(s), "err", err)
		}
		if p.r.slots[s] == pr {
			delete(p.r.slots, s)
		}
		return
	}
	pr.version = version
}

// finish marks the slots that were held to the end as through.
func (p *pass) finish(ctx context.Context) error {
	p.r.mu.Lock()
	for s, held := range p.held {
		if pr := p.r.slots[s]; pr != nil && pr == held {
			pr.cursor.Finished = true
			pr.dirty = p.keep && (pr.dirty || pr.cursor.Books != (Books{}))
		}
	}
	p.r.mu.Unlock()
	return p.flush(ctx, true)
}
