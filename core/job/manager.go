package job

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
	"github.com/shoalstore/shoal/core/etl"
)

// Method is the call by which nodes are asked how far they are.
const Method uint16 = 64

// prefix is under which jobs are in the KV: job.ID.spec and job.ID.status.
const prefix = "job"

// Options are what a manager is made of.
type Options struct {
	Node  *engine.Node
	KV    bus.KV
	Clock core.Clock
	Log   *slog.Logger
	// Transforms gets the transforms ready that jobs run; nil if there are none.
	Transforms *etl.Registry
	Space      Space
	// KeepEvery is how often the keeper asks the nodes how far they are; by default 400
	// ms.
	KeepEvery time.Duration
	// OnChange, if not nil, is told of every change of a job's state that this
	// node made, its beginning included, where was is "". It must not block.
	OnChange func(j Job, was State)
	// OnObject, if not nil, is told of every object that this node has worked
	// on: the operation ("copy"), when it began, the bytes written, and what
	// went wrong. It must not block.
	OnObject func(op string, began time.Time, written int64, err error)
}

// Manager runs this node's share of all jobs and starts, stops and shows them.
type Manager struct {
	o Options

	mu      sync.Mutex
	jobs    map[string]*entry
	changed chan struct{} // closed and replaced when a job changes, or this node's share of it
}

// entry is what the node knows of a job.
type entry struct {
	spec     *Spec
	status   Status
	revision bus.Revision
	run      *run
	meter    meter
	// known is what is done in a phase at least: slots that change hands are
	// not counted for a while, but what was done stays done.
	knownPhase State
	known      Books
	costs      costs
}

// New returns a manager that does nothing until it is run. It registers its
// call with the node, which must not run yet.
func New(o Options) *Manager {
	if o.KeepEvery == 0 {
		o.KeepEvery = keepEvery
	}
	m := &Manager{o: o, jobs: map[string]*entry{}, changed: make(chan struct{})}
	o.Node.Handle(Method, m.serveProgress)
	o.Node.Handle(MethodShare, m.serveShare)
	o.Node.Handle(MethodBatch, m.serveBatch)
	return m
}

// Run works until ctx ends, and returns after its last goroutine has.
func (m *Manager) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { m.watch(ctx) })
	wg.Go(func() { m.keep(ctx) })
	wg.Go(func() { m.admit(ctx) })
	wg.Go(func() { m.watchSpace(ctx) })
	m.drive(ctx)
	wg.Wait()
	return nil
}

// watch follows the KV.
func (m *Manager) watch(ctx context.Context) {
	for e := range m.o.KV.Watch(ctx, prefix) {
		if e.Deleted {
			continue
		}
		if err := m.see(e); err != nil {
			m.o.Log.Error("the bus holds a damaged job", "key", e.Key, "err", err)
		}
	}
}

// see takes up what the KV holds of a job. An entry may be older than what is known:
// the watch may have brought what others made of a status by the time that who wrote it
// is told so, and the bus may have forgotten it. A state that has ended is final.
func (m *Manager) see(e bus.Entry) error {
	id, what, ok := strings.Cut(strings.TrimPrefix(e.Key, prefix+"."), ".")
	if !ok {
		return fmt.Errorf("key %q: %w", e.Key, core.ErrInvalid)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	j := m.jobs[id]
	if j == nil {
		j = &entry{}
		m.jobs[id] = j
	}
	switch what {
	case "spec":
		s := new(Spec)
		if err := json.Unmarshal(e.Value, s); err != nil {
			return err
		}
		j.spec = s
	case "status":
		var st Status
		if err := json.Unmarshal(e.Value, &st); err != nil {
			return err
		}
		if j.status.State.Ended() && !st.State.Ended() || st.Change < j.status.Change {
			return nil
		}
		j.status, j.revision = st, e.Revision
		j.costs = j.costs.join(st.Costs)
	}
	m.stir()
	return nil
}

// stir wakes those who wait for a change; the caller holds mu.
func (m *Manager) stir() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// drive starts and ends this node's share of each job.
func (m *Manager) drive(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		m.mu.Lock()
		changed := m.changed
		for id, j := range m.jobs {
			switch active := j.spec != nil && j.status.State != "" && !j.status.State.Ended(); {
			case active && j.run == nil:
				c, cancel := context.WithCancel(ctx)
				j.run = newRun(m, j.spec, cancel)
				wg.Go(func() {
					if err := j.run.loop(c); err != nil && c.Err() == nil {
						m.o.Log.Error("job cannot go on here", "job", id, "err", err)
					}
				})
			case !active && j.run != nil:
				j.run.cancel()
				j.run = nil
			}
		}
		m.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// snapshot returns what is known of a job.
func (m *Manager) snapshot(id string) (spec *Spec, st Status, rev bus.Revision, changed <-chan struct{}, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	j := m.jobs[id]
	if j == nil || j.spec == nil || j.status.State == "" {
		return nil, Status{}, 0, m.changed, false
	}
	return j.spec, j.status, j.revision, m.changed, true
}

// Start begins a job, or returns the one that the same token began.
func (m *Manager) Start(ctx context.Context, s Spec) (Job, error) {
	s.Created = m.o.Clock.Now().UTC()
	s.ID = newID(&s)
	if s.Token != "" {
		if j, err := m.Get(ctx, s.ID); err == nil {
			return j, nil
		}
	}
	if err := m.prepare(ctx, &s); err != nil {
		return Job{}, err
	}
	return m.begin(ctx, &s)
}

// begin writes down a job, from which on it runs.
func (m *Manager) begin(ctx context.Context, s *Spec) (Job, error) {
	spec, err := json.Marshal(s)
	if err != nil {
		return Job{}, fmt.Errorf("encode job: %w", err)
	}
	status, err := json.Marshal(Status{State: Pending})
	if err != nil {
		return Job{}, fmt.Errorf("encode job: %w", err)
	}
	if _, err := m.create(ctx, key(s.ID, "spec"), spec); err != nil {
		return Job{}, err
	}
	made, err := m.create(ctx, key(s.ID, "status"), status)
	if err != nil {
		return Job{}, err
	}
	if made {
		m.tell(s.ID, Status{State: Pending}, "")
	}
	return m.Get(ctx, s.ID)
}

// create writes a key that a repeated start may have written already, and says
// whether it did.
func (m *Manager) create(ctx context.Context, key string, value []byte) (made bool, err error) {
	for {
		rev, err := m.o.KV.Create(ctx, key, value)
		switch {
		case err == nil:
			return true, m.see(bus.Entry{Key: key, Value: value, Revision: rev})
		case errors.Is(err, core.ErrExists):
			e, err := m.o.KV.Get(ctx, key)
			if err != nil {
				return false, err
			}
			return false, m.see(e)
		case errors.Is(err, core.ErrUnknownOutcome) && ctx.Err() == nil:
		default:
			return false, fmt.Errorf("start job: %w", err)
		}
	}
}

func key(id, what string) string { return prefix + "." + id + "." + what }

// newID names a job: by its token, so that a repeated start finds it, or at
// random.
func newID(s *Spec) string {
	if s.Token != "" {
		sum := sha256.Sum256([]byte(s.Token))
		return s.Kind + "-" + hex.EncodeToString(sum[:5])
	}
	id := core.NewRequestID()
	return s.Kind + "-" + hex.EncodeToString(id[:5])
}

// update moves a job's status by compare-and-set. f returns false to leave it.
func (m *Manager) update(ctx context.Context, id string, f func(*Status) bool) error {
	for {
		_, st, rev, _, ok := m.snapshot(id)
		if !ok {
			return notFound(id)
		}
		was := st.State
		if was.Ended() || !f(&st) {
			return nil
		}
		st.Change++
		st.Costs = m.cost(id, nil)
		value, err := json.Marshal(st)
		if err != nil {
			return fmt.Errorf("encode job: %w", err)
		}
		next, err := m.o.KV.Update(ctx, key(id, "status"), value, rev)
		switch {
		case err == nil:
			if err := m.see(bus.Entry{Key: key(id, "status"), Value: value, Revision: next}); err != nil {
				return err
			}
			if st.State != was {
				m.tell(id, st, was)
			}
			return nil
		case errors.Is(err, core.ErrConflict), errors.Is(err, core.ErrUnknownOutcome):
			e, err := m.o.KV.Get(ctx, key(id, "status"))
			if err != nil {
				return err
			}
			if err := m.see(e); err != nil {
				return err
			}
			m.writeOver(id, e.Revision)
		default:
			return fmt.Errorf("job %s: %w", id, err)
		}
	}
}

// writeOver makes the next change of a status one of what the KV holds, even if that is
// older than what is known here: then the bus has forgotten, and is brought up to it.
func (m *Manager) writeOver(id string, rev bus.Revision) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if j := m.jobs[id]; j != nil {
		j.revision = rev
	}
}

func (m *Manager) tell(id string, st Status, was State) {
	if m.o.OnChange == nil {
		return
	}
	if spec, _, _, _, ok := m.snapshot(id); ok {
		m.o.OnChange(Job{Spec: *spec, Status: st}, was)
	}
}

func notFound(id string) error {
	return fmt.Errorf("job %q: %w", id, core.ErrNotFound)
}

// Get returns a job with its present books.
func (m *Manager) Get(ctx context.Context, id string) (Job, error) {
	if _, _, _, _, ok := m.snapshot(id); !ok {
		if err := m.fetch(ctx, id); err != nil {
			return Job{}, err
		}
	}
	spec, st, _, _, ok := m.snapshot(id)
	if !ok {
		return Job{}, notFound(id)
	}
	j := Job{Spec: *spec, Status: st}
	if st.State == Running || st.State == Waiting || st.State == Planning {
		p := m.poll(ctx, id)
		j.Status.Books = p.shown
		if st.Planned != nil {
			j.Status.Books.Planned = *st.Planned
		}
		if len(p.waiting) > 0 {
			j.Status.Waiting = p.waiting
		}
		j.Rate, j.ETA = m.measure(id, &j.Status)
		j.Listers = p.listers
	}
	j.Cloud = m.cost(id, nil).sum()
	return j, nil
}

// fetch reads a job from the KV that the watch has not brought yet.
func (m *Manager) fetch(ctx context.Context, id string) error {
	if bus.CheckKey(key(id, "spec")) != nil {
		return notFound(id)
	}
	for _, what := range []string{"spec", "status"} {
		e, err := m.o.KV.Get(ctx, key(id, what))
		if errors.Is(err, core.ErrNotFound) {
			return notFound(id)
		}
		if err != nil {
			return err
		}
		if err := m.see(e); err != nil {
			return err
		}
	}
	return nil
}

// Transforms lists the digests of the transforms that jobs run which have not ended.
func (m *Manager) Transforms() (digests []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, j := range m.jobs {
		if j.spec != nil && j.spec.Transform != nil && !j.status.State.Ended() {
			digests = append(digests, j.spec.Transform.Digest)
		}
	}
	return digests
}

// List returns the jobs, newest first, those that have not ended with their
// present books.
func (m *Manager) List(ctx context.Context, take func(*Spec, *Status) bool) ([]Job, error) {
	m.mu.Lock()
	var ids []string
	created := map[string]time.Time{}
	for id, j := range m.jobs {
		if j.spec != nil && j.status.State != "" && take(j.spec, &j.status) {
			ids = append(ids, id)
			created[id] = j.spec.Created
		}
	}
	m.mu.Unlock()
	slices.SortFunc(ids, func(a, b string) int {
		if c := created[b].Compare(created[a]); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	out := make([]Job, 0, len(ids))
	for _, id := range ids {
		j, err := m.Get(ctx, id)
		if err != nil {
			return nil, err
		}
		out = append(out, j)
	}
	return out, nil
}

// Await returns the job once it has ended, or as it is when ctx ends.
func (m *Manager) Await(ctx context.Context, id string) (Job, error) {
	// A ctx that has ended already asks for the job as it is. Whether there is
	// such a job must be known even then.
	if _, err := m.Get(context.WithoutCancel(ctx), id); err != nil {
		return Job{}, err
	}
	for {
		_, st, _, changed, _ := m.snapshot(id)
		if st.State.Ended() {
			return m.Get(ctx, id)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return m.Get(context.WithoutCancel(ctx), id)
		}
	}
}

// Stop ends a job where it is. What it has written stays.
func (m *Manager) Stop(ctx context.Context, id string) (Job, error) {
	j, err := m.Get(ctx, id)
	if err != nil || j.Status.State.Ended() {
		return j, err
	}
	p := m.poll(ctx, id)
	err = m.update(ctx, id, func(st *Status) bool {
		now := m.o.Clock.Now().UTC()
		st.State, st.Ended, st.Message = Stopped, &now, "stopped on request"
		st.Books, st.Errors = j.Status.Books.shown(p.shown, false), someErrors(nil, endErrors, p.errors...)
		return true
	})
	if err != nil {
		return j, err
	}
	return m.Get(ctx, id)
}

// meter turns counts into rates.
type meter struct {
	samples []sample
}

type sample struct {
	at     time.Time
	passed Amount
}

// measure adds a sample and returns the rate over the last ten seconds.
func (m *Manager) measure(id string, st *Status) (Rate, time.Time) {
	const window = 10 * time.Second
	now := m.o.Clock.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	j := m.jobs[id]
	t := &j.meter
	t.samples = append(t.samples, sample{now, st.Books.passed()})
	for len(t.samples) > 2 && now.Sub(t.samples[0].at) > window {
		t.samples = t.samples[1:]
	}
	first, last := t.samples[0], t.samples[len(t.samples)-1]
	if len(t.samples) == 1 && st.Started != nil {
		first = sample{at: *st.Started}
	}
	s := last.at.Sub(first.at).Seconds()
	if s <= 0 {
		return Rate{}, time.Time{}
	}
	r := Rate{float64(last.passed.Objects-first.passed.Objects) / s, float64(last.passed.Bytes-first.passed.Bytes) / s}
	if st.Planned == nil || r.Objects <= 0 {
		return r, time.Time{}
	}
	left := float64(st.Planned.Objects - last.passed.Objects)
	return r, now.Add(time.Duration(max(left, 0) / r.Objects * float64(time.Second)))
}
