package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/placement"
)

// keepEvery is how often the keeper asks the nodes how far they are. Where all goes
// well it need not: a new job is seen by the keeper at once, and whoever is through
// with a phase looks whether all are; see [Manager.nudge].
const keepEvery = 400 * time.Millisecond

// progressRequest asks a node how far its share of a phase is.
type progressRequest struct {
	Job string `json:"job"`
	// Phase and Known are what the asker knows to be done at least.
	Phase State `json:"phase,omitempty"`
	Known Books `json:"known"`
	Costs costs `json:"costs,omitempty"`
}

// progressReply says which slots a node owns that are through in the phase, and
// the sum of the books of all slots that it owns and has read, which are Slots.
type progressReply struct {
	Phase State `json:"phase"`
	// Owners is the sum of who owns what by the map that the node went by; see
	// [ownersSum].
	Owners   uint64        `json:"owners"`
	Finished []core.SlotID `json:"finished,omitempty"`
	Slots    int           `json:"slots"`
	Books    Books         `json:"books"`
	Known    Books         `json:"known"` // what the node knows to be done at least
	Errors   []Error       `json:"errors,omitempty"`
	Waiting  []string      `json:"waiting,omitempty"`
	// Ranges are those that the node lists; see [rangeRun].
	Ranges []liveRange `json:"ranges,omitempty"`
	// Costs are what the node knows of all nodes.
	Costs costs `json:"costs,omitempty"`
}

// ownersSum is a checksum of which node owns which slot by a map.
func ownersSum(m *core.Map) uint64 {
	h := xxh3.New()
	for s := range m.Slots {
		_, _ = h.WriteString(string(m.OwnerNode(core.SlotID(s))) + "\n")
	}
	return h.Sum64()
}

// serveProgress answers how far this node's share is.
func (m *Manager) serveProgress(_ context.Context, _ core.NodeID, req []byte) ([]byte, error) {
	var q progressRequest
	if err := json.Unmarshal(req, &q); err != nil {
		return nil, fmt.Errorf("job progress: %w: %w", core.ErrInvalid, err)
	}
	m.mu.Lock()
	j := m.jobs[q.Job]
	var r *run
	if j != nil {
		r = j.run
	}
	m.mu.Unlock()
	known := m.cost(q.Job, q.Costs)
	if r == nil {
		return json.Marshal(progressReply{Costs: known})
	}
	rep := r.progress(m.o.Node.Map(), m.o.Node.ID())
	if q.Phase == rep.Phase {
		rep.Known = m.know(q.Job, q.Phase, q.Known)
	}
	rep.Costs = known
	return json.Marshal(rep)
}

// cost takes in what others know of a job's cost, and this node's own, and returns all
// that is known.
func (m *Manager) cost(id string, others costs) costs {
	var own costs
	if t := m.o.Node.CostOf(id); t.Requests > 0 {
		own = costs{fmt.Sprintf("%s/%d", m.o.Node.ID(), m.o.Node.Boot()): {Requests: t.Requests, BytesIn: t.BytesIn, BytesOut: t.BytesOut}}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	j := m.jobs[id]
	if j == nil {
		return others.join(own)
	}
	j.costs = j.costs.join(others).join(own)
	return j.costs
}

// know remembers what is done in a phase of a job at least, and returns the most
// that is known.
func (m *Manager) know(id string, phase State, b Books) Books {
	m.mu.Lock()
	defer m.mu.Unlock()
	j := m.jobs[id]
	if j == nil {
		return b
	}
	if j.knownPhase != phase {
		j.knownPhase, j.known = phase, Books{}
	}
	j.known = j.known.atLeast(b)
	return j.known
}

// progress sums up the slots that the map gives to the node. What it still holds
// of others, which have moved on, somebody else counts. A node that has just started
// knows no map yet, and says nothing.
func (r *run) progress(m *core.Map, self core.NodeID) progressReply {
	if m == nil {
		return progressReply{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := progressReply{Phase: r.phase, Owners: ownersSum(m)}
	for s, pr := range r.slots {
		if m.OwnerNode(s) != self {
			continue
		}
		if pr.loaded || r.phase != Running {
			p.Slots++
		}
		p.Books = p.Books.Add(pr.cursor.Books)
		p.Errors = append(p.Errors, pr.cursor.Errors...)
		if pr.cursor.Finished && !pr.dirty {
			p.Finished = append(p.Finished, s)
		}
	}
	for why := range r.waiting {
		if len(p.Waiting) < errorsKept {
			p.Waiting = append(p.Waiting, why)
		}
	}
	for _, why := range r.trouble {
		if !slices.Contains(p.Waiting, why) {
			p.Waiting = append(p.Waiting, why)
		}
	}
	if r.ranged != nil {
		p.Ranges = r.ranged.live()
	}
	slices.Sort(p.Finished)
	slices.Sort(p.Waiting)
	return p
}

// polled is what all nodes together say.
type polled struct {
	phase State
	// books is the sum of what the owners of slots say now; agreed says that all
	// went by the same map, so that no slot is in it twice, whole that they spoke
	// for all slots. shown is what to show of it, see [Books.shown].
	books, shown  Books
	agreed, whole bool
	errors        []Error
	waiting       []string
	// listers are the nodes that hold ranges which are not through, in order.
	listers []core.NodeID
	// through says that every slot's owner says that it is through with the
	// phase, and that books has each slot once, or that all ranges are; listed that
	// the ranges were listed to their ends.
	through, listed bool
}

// poll asks the owners of all slots how far they are, or all who list.
func (m *Manager) poll(ctx context.Context, id string) polled {
	mp := m.o.Node.Map()
	spec, st, _, _, ok := m.snapshot(id)
	phase := phaseOf(st.State)
	p := polled{phase: phase}
	if mp == nil || !ok {
		return p
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if table := spec.tableOf(phase); table != "" {
		m.pollRanges(ctx, id, mp, table, &p)
		return p
	}
	nodes := map[core.NodeID]bool{}
	for s := range mp.Slots {
		nodes[mp.OwnerNode(core.SlotID(s))] = true
	}
	known := m.know(id, phase, Books{})
	replies := m.askAll(ctx, id, phase, nodes)
	p = tally(mp, phase, replies)
	if p.agreed {
		known = known.atLeast(p.books)
	}
	for _, rep := range replies {
		if rep != nil && rep.Phase == phase {
			known = known.atLeast(rep.Known)
		}
	}
	known = m.know(id, phase, known)
	p.shown = p.books.shown(known, p.whole)
	return p
}

// askAll asks nodes how far they are in a phase. Of those that do not answer there is
// a nil.
func (m *Manager) askAll(ctx context.Context, id string, phase State, nodes map[core.NodeID]bool) map[core.NodeID]*progressReply {
	replies := map[core.NodeID]*progressReply{}
	for node := range nodes {
		replies[node] = nil
	}
	req, err := json.Marshal(progressRequest{Job: id, Phase: phase, Known: m.know(id, phase, Books{}), Costs: m.cost(id, nil)})
	if err != nil {
		return replies
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for node := range nodes {
		wg.Go(func() {
			b, err := m.o.Node.CallNode(ctx, node, Method, req)
			rep := new(progressReply)
			if err != nil || json.Unmarshal(b, rep) != nil {
				return
			}
			m.cost(id, rep.Costs)
			mu.Lock()
			defer mu.Unlock()
			replies[node] = rep
		})
	}
	wg.Wait()
	return replies
}

// tally sums up what the owners of slots replied, nil for one that did not. While
// slots change hands two nodes may speak for the same one, or nobody: only what is
// said by the same map adds up.
func tally(m *core.Map, phase State, replies map[core.NodeID]*progressReply) polled {
	p := polled{phase: phase, agreed: true}
	owners := ownersSum(m)
	slots := 0
	finished := map[core.SlotID]bool{}
	for _, owner := range slices.Sorted(maps.Keys(replies)) {
		rep := replies[owner]
		switch {
		case rep == nil:
			p.waiting = append(p.waiting, fmt.Sprintf("node %s does not answer", owner))
			p.agreed = false
			continue
		case rep.Phase != phase:
			p.agreed = false
			continue
		case rep.Owners != owners:
			p.agreed = false
		}
		p.books = p.books.Add(rep.Books)
		slots += rep.Slots
		p.errors = append(p.errors, rep.Errors...)
		p.waiting = append(p.waiting, rep.Waiting...)
		for _, s := range rep.Finished {
			if m.OwnerNode(s) == owner {
				finished[s] = true
			}
		}
	}
	p.through = p.agreed && len(finished) == len(m.Slots)
	p.whole = p.agreed && slots == len(m.Slots)
	return p
}

// keep moves the states of all jobs now and then while this node is the keeper.
func (m *Manager) keep(ctx context.Context) {
	for m.o.Clock.Wait(ctx, m.o.KeepEvery) == nil {
		m.advanceAll(ctx, func(s State) bool { return !s.Ended() })
	}
}

// admit moves jobs on that have just begun while this node is the keeper.
func (m *Manager) admit(ctx context.Context) {
	for ctx.Err() == nil {
		m.mu.Lock()
		changed := m.changed
		m.mu.Unlock()
		m.advanceAll(ctx, func(s State) bool { return s == Pending })
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// advanceAll moves the jobs on whose states are as asked for, if this node is the
// keeper.
func (m *Manager) advanceAll(ctx context.Context, which func(State) bool) {
	if !m.o.Node.Keeps() {
		return
	}
	m.mu.Lock()
	var ids []string
	for id, j := range m.jobs {
		if j.spec != nil && j.status.State != "" && which(j.status.State) {
			ids = append(ids, id)
		}
	}
	m.mu.Unlock()
	slices.Sort(ids)
	for _, id := range ids {
		if err := m.advance(ctx, id); err != nil && ctx.Err() == nil {
			m.o.Log.Warn("job cannot be moved on yet", "job", id, "err", err)
		}
	}
}

// nudge moves a job on, if it still is in the phase with which this node is through:
// all others may be as well. Nobody waits for that: what it does not do the keeper does.
func (m *Manager) nudge(ctx context.Context, id string, phase State) {
	if _, st, _, _, ok := m.snapshot(id); !ok || phaseOf(st.State) != phase {
		return
	}
	if err := m.advance(ctx, id); err != nil && ctx.Err() == nil {
		m.o.Log.Debug("job is left to the keeper", "job", id, "err", err)
	}
}

// advance moves one job's state as far as the nodes' answers allow.
func (m *Manager) advance(ctx context.Context, id string) error {
	spec, st, _, _, ok := m.snapshot(id)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	now := m.o.Clock.Now().UTC()
	if st.State == Pending {
		first := Planning
		if (spec.listed() || spec.Kind == KindLRU) && !spec.DryRun {
			first = Running // it plans as it goes
		}
		return m.move(ctx, id, Pending, func(s *Status) { s.State, s.Started = first, &now })
	}
	p := m.poll(ctx, id)
	switch st.State {
	case Planning:
		if planned := p.books.Planned; p.through && spec.DryRun {
			return m.move(ctx, id, Planning, func(s *Status) {
				s.State, s.Ended, s.Planned, s.Books.Planned = Done, &now, &planned, planned
				s.Message = "dry run: nothing was written"
			})
		} else if p.through {
			return m.move(ctx, id, Planning, func(s *Status) { s.State, s.Planned = Running, &planned })
		}
	case Running, Waiting:
		return m.advanceRunning(ctx, spec, &st, p)
	case Verifying:
		if p.through {
			return m.verify(ctx, spec, p)
		}
	}
	return nil
}

// move changes the status if it still is in the state.
func (m *Manager) move(ctx context.Context, id string, from State, f func(*Status)) error {
	return m.update(ctx, id, func(s *Status) bool {
		if s.State != from {
			return false
		}
		f(s)
		return true
	})
}

func (m *Manager) advanceRunning(ctx context.Context, spec *Spec, st *Status, p polled) error {
	now := m.o.Clock.Now().UTC()
	switch {
	case p.books.Failed.Objects > 0 && !spec.ContinueOnError:
		return m.move(ctx, spec.ID, st.State, func(s *Status) {
			s.State, s.Ended, s.Books, s.Errors = Failed, &now, p.books, someErrors(nil, endErrors, p.errors...)
			if s.Planned != nil {
				s.Books.Planned = *s.Planned
			}
			s.Message = "stopped at the first object that failed; --cont-on-err goes on"
			if len(p.errors) > 0 {
				s.Message = fmt.Sprintf("%s failed: %s; --cont-on-err goes on", p.errors[0].Key, p.errors[0].Message)
			}
		})
	case p.through && spec.tableOf(Running) != "" && p.books.balance() != nil:
		err := p.books.balance()
		return m.move(ctx, spec.ID, st.State, func(s *Status) {
			s.State, s.Ended, s.Books = Failed, &now, p.books
			s.Message = fmt.Sprintf("the books do not balance: %v; start the job again, what is done stays", err)
		})
	case p.through:
		// What passed the cursors is what the job was about: keys that came
		// or went since the plan are told apart by nothing else.
		return m.move(ctx, spec.ID, st.State, func(s *Status) {
			s.State, s.Books = Verifying, p.books
			passed := p.books.passed()
			s.Books.Planned, s.Planned, s.Waiting = passed, &passed, nil
		})
	case p.listed && st.Planned == nil:
		planned := p.books.Planned
		return m.move(ctx, spec.ID, st.State, func(s *Status) { s.Planned = &planned })
	case len(p.waiting) > 0 && st.State == Running:
		return m.move(ctx, spec.ID, Running, func(s *Status) { s.State, s.Waiting = Waiting, p.waiting })
	case len(p.waiting) == 0 && st.State == Waiting:
		return m.move(ctx, spec.ID, Waiting, func(s *Status) { s.State, s.Waiting = Running, nil })
	}
	return nil
}

// verify ends a job: well, if what was counted independently is what the books
// say.
func (m *Manager) verify(ctx context.Context, spec *Spec, p polled) error {
	now := m.o.Clock.Now().UTC()
	return m.move(ctx, spec.ID, Verifying, func(s *Status) {
		s.State, s.Ended = Done, &now
		if s.Books.Failed.Objects > 0 {
			s.State = Failed
			s.Message = fmt.Sprintf("%d objects failed; see `shoal show job %s --errors`", s.Books.Failed.Objects, spec.ID)
		}
		found, want := p.books.Planned.Objects, s.Books.Done.Objects
		if spec.Kind == KindETL {
			want = s.Books.Outputs.Objects
		}
		if toRemote(spec) {
			found = p.books.Done.Objects
			unseen := p.books.Failed.Objects
			if unseen > 0 && s.Message == "" {
				s.Message = fmt.Sprintf("%d objects at the destination could not be looked at", unseen)
			}
			found += min(unseen, max(want-found, 0))
		}
		if spec.writes() && found != want {
			s.State = Failed
			s.Message = fmt.Sprintf("the job wrote %d objects, %d of them are at the destination: the others were overwritten or deleted by somebody else, or are lost", want, found)
		}
	})
}

// toRemote says whether the job writes to a remote: then it is listed to see what the
// job has written, which need not be present.
func toRemote(s *Spec) bool {
	u, err := core.ParseURI(s.To)
	return err == nil && u.Bucket.Remote()
}

// prepare checks a spec and fills in what follows from it.
func (m *Manager) prepare(ctx context.Context, s *Spec) error {
	if !slices.Contains(Kinds(), s.Kind) {
		return fmt.Errorf("job kind %q is not built yet in this version; there are %s: %w", s.Kind, strings.Join(Kinds(), " "), errors.ErrUnsupported)
	}
	if _, err := newSelector(s); err != nil {
		return err
	}
	objects := m.o.Node.Objects()
	if s.From != "" {
		u, err := core.ParseURI(s.From)
		if err != nil {
			return err
		}
		b, err := objects.BucketNamed(ctx, u.Bucket)
		if err != nil {
			return err
		}
		s.FromID, s.From = b.ID, u.Bucket.String()
		if u.Key != "" && s.Prefix == "" {
			s.Prefix = u.Key
		}
	}
	if err := errors.Join(s.checkSync(), s.checkNoCache(), m.prepareSource(ctx, s)); err != nil {
		return err
	}
	if s.Kind == KindETL && (s.Transform == nil || s.From == "") {
		return fmt.Errorf("%s needs a transform and a source bucket: %w", s.Kind, core.ErrInvalid)
	}
	if !s.writes() {
		if s.To != "" {
			return fmt.Errorf("%s takes no destination: %w", s.Kind, core.ErrInvalid)
		}
		return nil
	}
	return m.prepareCopy(ctx, s)
}

// prepareSource refuses a source that the kind of job has no use for.
func (m *Manager) prepareSource(ctx context.Context, s *Spec) error {
	if s.Kind != KindPrefetch && s.Kind != KindEvict && !s.listed() && (s.Kind != KindLRU || s.From == "") {
		return nil
	}
	u, err := core.ParseURI(s.From)
	if err != nil || !u.Bucket.Remote() {
		return fmt.Errorf("%s needs a bucket of a remote, such as s3://NAME, not %q: what other buckets have is the only copy: %w", s.Kind, s.From, core.ErrInvalid)
	}
	if !s.listed() || len(s.List) > 0 || s.Template != "" {
		return nil
	}
	b, err := m.o.Node.Objects().BucketNamed(ctx, u.Bucket)
	if err != nil {
		return err
	}
	_, err = m.o.Node.CanList(b)
	return err
}

// prepareCopy finds or creates the destination.
func (m *Manager) prepareCopy(ctx context.Context, s *Spec) error {
	if s.From == "" || s.To == "" {
		return fmt.Errorf("%s needs a source and a destination bucket: %w", s.Kind, core.ErrInvalid)
	}
	u, err := core.ParseURI(s.To)
	if err != nil {
		return err
	}
	if u.Key != "" && s.Prepend == "" {
		s.Prepend = u.Key
	}
	s.To = u.Bucket.String()
	if s.From == s.To && s.Prepend == "" && len(s.Ext) == 0 {
		return fmt.Errorf("source and destination are the same, %s; use --prepend to stay within a bucket: %w", s.From, core.ErrInvalid)
	}
	if named := len(s.List) > 0 || s.Template != "" || s.Regex != ""; s.From == s.To && s.Prepend != "" && strings.HasPrefix(s.Prepend, s.Prefix) && !named {
		return fmt.Errorf("the source %s/%s holds the destination %s/%s: what is written would be found again, without end; use --prefix or --regex to leave it out: %w",
			s.From, s.Prefix, s.To, s.Prepend, core.ErrInvalid)
	}
	objects := m.o.Node.Objects()
	to, err := objects.BucketNamed(ctx, u.Bucket)
	if errors.Is(err, core.ErrNoSuchBucket) && s.DryRun {
		return nil // a real run would create it, or was refused before
	}
	if errors.Is(err, core.ErrNoSuchBucket) && u.Bucket.Provider == core.Shoal {
		from := m.o.Node.Map().Bucket(s.FromID)
		if from == nil {
			return fmt.Errorf("bucket %s: %w", s.From, core.ErrNoSuchBucket)
		}
		policy := from.Policy
		if _, _, ok := placement.Holds(m.o.Node.Map(), policy.Scheme, policy.Domain); !ok {
			policy = m.o.Node.DefaultPolicy()
		}
		if to, err = objects.CreateBucket(ctx, u.Bucket, &policy, ""); errors.Is(err, core.ErrExists) {
			to, err = objects.BucketNamed(ctx, u.Bucket)
		}
	}
	if err != nil {
		return err
	}
	s.ToID = to.ID
	return nil
}
