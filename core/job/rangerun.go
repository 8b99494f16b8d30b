package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
)

// MethodShare and MethodBatch are the calls by which nodes ask for a part of a
// range, and have keys worked on.
const (
	MethodShare uint16 = 72
	MethodBatch uint16 = 73
)

// Methods are the numbers of the calls of this package.
func Methods() []uint16 { return []uint16{Method, MethodShare, MethodBatch} }

const (
	// rangeWindow is how many pages of a range are under way.
	rangeWindow = 8
	// batchKeys is the most keys of a batch: so many are counted at a time.
	batchKeys = 32
	// lanes is how many ranges a node lists at a time.
	lanes = 2
	// askFor is how long a node waits for a part of a range.
	askFor = 10 * time.Second
	// phaseSoon is how long a batch waits for its node to hear of the job's phase.
	phaseSoon = time.Second
	// batchPause is how long a batch waits that was not answered.
	batchPause = 100 * time.Millisecond
)

// The tables of a job: of the phase in which it plans, runs, or looks at what it has
// written to a remote.
const (
	tableRun    = "run."
	tablePlan   = "plan."
	tableVerify = "verify."
)

// tableOf is the table of ranges that a phase of a job works by, "" if it goes over
// slots.
func (s *Spec) tableOf(phase State) string {
	switch {
	case phase == Verifying && s.writes() && toRemote(s):
		return tableVerify
	case !s.listed():
		return ""
	case phase == Running:
		return tableRun
	case phase == Planning && s.DryRun:
		return tablePlan
	}
	return ""
}

// listed says whether the job goes over a list: of a remote, which may have what is
// not present, or of what failed before.
func (s *Spec) listed() bool {
	if s.RetryOf != "" {
		return true
	}
	u, err := core.ParseURI(s.From)
	return err == nil && u.Bucket.Remote() && (s.Kind == KindPrefetch || (s.Kind == KindCopy || s.Kind == KindETL) && s.All)
}

// rangeRun is this node's part in a phase of a job over ranges: it carries out what
// its machines ask for.
type rangeRun struct {
	r     *run
	phase State
	table string
	slot  core.SlotID
	// bucket is the one whose keys are listed.
	bucket core.BucketID
	list   func(ctx context.Context, after string, limit int) (rangeEvent, error)
	work   listedAction
	sem    chan struct{}   // a token for each object that is worked on
	turn   chan struct{}   // the token of the batch whose objects get the next of those
	ctx    context.Context // that of run, for what calls begin
	group  sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	machines []*rangeMachine
	asks     map[uint64]chan rangeReply
	lastAsk  uint64
	told     bool              // all ranges are through, and who moves the job on was told
	failing  map[int]time.Time // since when a lane cannot list
}

// shareRequest asks for a part of a range.
type shareRequest struct {
	Job   string `json:"job"`
	Table string `json:"table"`
	After []byte `json:"after"`
	Boot  uint64 `json:"boot"`
	// From is the lane that asks, To the one that holds the range.
	From int `json:"from"`
	To   int `json:"to"`
}

// shareReply has the range that was given away, or none.
type shareReply struct {
	Given   bool         `json:"given,omitempty"`
	Again   bool         `json:"again,omitempty"`
	After   []byte       `json:"after,omitempty"`
	Row     []byte       `json:"row,omitempty"`
	Version core.Version `json:"version"`
}

// batchRequest has keys worked on, as the phase of the table wants it.
type batchRequest struct {
	Job   string `json:"job"`
	Table string `json:"table"`
	Items []item `json:"items"`
	Again bool   `json:"again,omitempty"`
}

// batchReply is what became of them.
type batchReply struct {
	Books  Books   `json:"books"`
	Errors []Error `json:"errors,omitempty"`
	// Failed are the keys of the errors, which need not be valid text.
	Failed [][]byte `json:"failed,omitempty"`
}

// ranges does the node's part in a phase over ranges, until all of them are
// through, the phase changes, or ctx ends.
func (r *run) ranges(ctx context.Context, phase State, table string) error {
	rr, err := r.newRangeRun(phase, table)
	if err != nil {
		return r.cannotList(ctx, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rr.ctx = ctx
	r.mu.Lock()
	r.ranged = rr
	r.mu.Unlock()
	r.m.mu.Lock()
	r.m.stir() // batches may wait for it
	r.m.mu.Unlock()
	for i := range rr.machines {
		rr.post(i, rangeEvent{kind: evStart}) //nolint:contextcheck // what is begun ends with the run, rr.ctx
	}
	for ctx.Err() == nil {
		_, st, _, changed, _ := r.m.snapshot(r.spec.ID)
		if now := phaseOf(st.State); now != phase {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	cancel()
	rr.mu.Lock()
	rr.closed = true
	rr.mu.Unlock()
	rr.group.Wait()
	r.mu.Lock()
	r.ranged = nil
	r.mu.Unlock()
	return nil
}

// phaseOf is the phase of a state: a job that waits runs.
func phaseOf(s State) State {
	if s == Waiting {
		return Running
	}
	return s
}

// cannotList ends the job if there is no use in trying again.
func (r *run) cannotList(ctx context.Context, err error) error {
	if finalListing(err) {
		return r.m.failed(ctx, r.spec.ID, err)
	}
	return err
}

func (r *run) newRangeRun(phase State, table string) (*rangeRun, error) {
	n := r.m.o.Node
	id, prefix, takes := r.spec.FromID, r.spec.Prefix, r.sel.takes
	if phase == Verifying {
		id, prefix, takes = r.spec.ToID, r.spec.Prepend, func(string) bool { return true }
	}
	from := n.Map().Bucket(id)
	if from == nil {
		return nil, fmt.Errorf("bucket %d of the job was removed: %w", id, core.ErrNoSuchBucket)
	}
	rr := &rangeRun{
		r: r, phase: phase, table: table, slot: n.SlotOf(core.SystemBucket, r.spec.ID), sem: make(chan struct{}, r.workers()), turn: make(chan struct{}, 1),
		asks: map[uint64]chan rangeReply{}, failing: map[int]time.Time{}, bucket: id,
	}
	o := rangeOptions{
		self: n.ID(), boot: n.Boot(), page: pageSize, window: rangeWindow, batch: batchKeys, skip: len(prefix),
		takes: takes, countOnly: phase == Planning, owner: rr.owner,
	}
	switch {
	case phase != Verifying && r.spec.RetryOf != "":
		rr.list, o.takes, o.skip = r.listFailed, func(string) bool { return true }, 0
	case phase != Verifying && r.sel.keys != nil:
		rr.list, o.middle = r.sel.page, r.sel.middle
	default:
		page, err := n.CanList(*from)
		if err != nil {
			return nil, err
		}
		if page > 0 {
			o.page = min(page, pageSize)
		}
		rr.list = func(ctx context.Context, after string, limit int) (rangeEvent, error) {
			return rr.listRemote(ctx, *from, prefix, after, limit)
		}
		if r.spec.Sync && phase == Running {
			rr.list = rr.withGone(*from, rr.list)
		}
	}
	for i := range n.Map().Nodes {
		if n.Map().Nodes[i].State == core.NodeActive {
			o.lanes += lanes
		}
	}
	switch phase {
	case Running:
		var err error
		if rr.work, err = r.listedAction(n.Map()); err != nil {
			return nil, err
		}
	case Verifying:
		rr.work = r.lookAt(*from)
	}
	for lane := range lanes {
		o.lane = lane
		rr.machines = append(rr.machines, newRangeMachine(o))
	}
	return rr, nil
}

// owner is the node that works on a key: the one that owns its slot.
func (rr *rangeRun) owner(key string) core.NodeID {
	n := rr.r.m.o.Node
	return n.Map().OwnerNode(n.SlotOf(rr.bucket, key))
}

// alive says whether a start of a node may hold a range.
func (rr *rangeRun) alive(id core.NodeID, boot uint64) bool {
	n := rr.r.m.o.Node.Map().Node(id)
	return n != nil && n.Boot == boot && n.State != core.NodeDown && n.State != core.NodeDecommissioned
}

// post gives a machine an event and carries out what it asks for.
func (rr *rangeRun) post(lane int, e rangeEvent) {
	rr.mu.Lock()
	defer rr.mu.Unlock()
	if rr.closed {
		return
	}
	for _, a := range rr.machines[lane].step(e) {
		switch a.kind {
		case actReply:
			if c := rr.asks[a.reply.id]; c != nil {
				delete(rr.asks, a.reply.id)
				c <- a.reply // it has room
			}
		case actFail:
			rr.group.Go(func() { rr.fail(a.err) })
		default:
			rr.group.Go(func() {
				out := rr.do(lane, &a)
				out.op = a.op
				if rr.ctx.Err() == nil {
					rr.post(lane, out)
				}
			})
		}
	}
}

// fail ends the job.
func (rr *rangeRun) fail(err error) {
	for rr.ctx.Err() == nil {
		if rr.r.m.failed(rr.ctx, rr.r.spec.ID, err) == nil {
			return
		}
		_ = rr.r.m.o.Clock.Wait(rr.ctx, time.Second)
	}
}

// failed ends a job that cannot go on.
func (m *Manager) failed(ctx context.Context, id string, why error) error {
	p := m.poll(ctx, id)
	return m.update(ctx, id, func(s *Status) bool {
		now := m.o.Clock.Now().UTC()
		if s.State == Verifying {
			// All is done and counted, but for looking at it once more.
			s.State, s.Ended, s.Message = Done, &now, fmt.Sprintf("what was written could not be listed: %v", why)
			if s.Books.Failed.Objects > 0 {
				s.State = Failed
			}
			return true
		}
		s.State, s.Ended, s.Message, s.Books, s.Errors = Failed, &now, why.Error(), p.shown, someErrors(nil, endErrors, p.errors...)
		return true
	})
}

// do carries out one action and returns the event that answers it.
func (rr *rangeRun) do(lane int, a *rangeAction) rangeEvent {
	clock := rr.r.m.o.Clock
	switch a.kind {
	case actLoad:
		t, err := rr.r.m.table(rr.ctx, rr.r.spec.ID, rr.table)
		if err == nil && t.done() {
			rr.through()
		}
		return rangeEvent{kind: evLoaded, table: t, err: err, alive: rr.alive}
	case actWrite:
		v, err := rr.write(a.write)
		return rangeEvent{kind: evWritten, version: v, err: err}
	case actList, actProbe:
		e, err := rr.list(rr.ctx, a.after, a.max)
		e.kind, e.err = evListed, rr.listed(lane, err)
		return e
	case actBatch:
		return rr.send(a.batch)
	case actAsk:
		reply, err := rr.ask(lane, a)
		return rangeEvent{kind: evAsked, reply: reply, err: err}
	}
	_ = clock.Wait(rr.ctx, a.wait)
	return rangeEvent{kind: evWaited}
}

// through has the job moved on, once.
func (rr *rangeRun) through() {
	rr.mu.Lock()
	defer rr.mu.Unlock()
	if rr.told || rr.closed {
		return
	}
	rr.told = true
	rr.group.Go(func() { rr.r.m.nudge(rr.ctx, rr.r.spec.ID, rr.phase) })
}

// table reads a job's table of ranges.
func (m *Manager) table(ctx context.Context, id, table string) (*rangeTable, error) {
	rows, err := m.o.Node.RowsOf(ctx, m.o.Node.SlotOf(core.SystemBucket, id), id)
	if err != nil {
		return nil, fmt.Errorf("ranges of job %s: %w", id, err)
	}
	return decodeTable(table, rows)
}

func (rr *rangeRun) write(rows []rangeWrite) (core.Version, error) {
	out := make([]core.Row, len(rows))
	var notes []core.Row
	for i := range rows {
		w := &rows[i]
		if len(w.notes) > 0 && rr.table == tableRun {
			more, err := noteRows(rr.r.spec.ID, w.notes)
			if err != nil {
				return core.Version{}, err
			}
			notes = append(notes, more...)
		}
		row := core.Row{RowKey: rangeKey(rr.r.spec.ID, rr.table, w.row.After), Version: w.version}
		var err error
		if w.budget != nil {
			row.RowKey = budgetKey(rr.r.spec.ID, rr.table)
			row.Value, err = json.Marshal(w.budget)
		} else {
			row.Value, err = w.row.encode()
		}
		if err != nil {
			return core.Version{}, err
		}
		out[i] = row
	}
	return rr.r.m.o.Node.PutRows(rr.ctx, rr.slot, out, notes...)
}

// clocksDiffer is by how much the clock of a remote may be behind: with more than
// that it would not take signed requests.
const clocksDiffer = 15 * time.Minute

// listRemote asks the remote for a page.
func (rr *rangeRun) listRemote(ctx context.Context, b core.Bucket, prefix, after string, limit int) (rangeEvent, error) {
	verifying := rr.table == tableVerify
	l, err := rr.r.m.o.Node.ListSource(ctx, b, core.RemoteListOptions{Prefix: prefix, After: after, Max: limit, Meta: verifying})
	if err != nil {
		return rangeEvent{}, fmt.Errorf("listing %s behind %q: %w", b.Name, after, err)
	}
	e := rangeEvent{more: l.More, next: l.Next, items: make([]item, len(l.Objects))}
	for i := range l.Objects {
		o := &l.Objects[i]
		e.items[i] = item{Key: o.Key, Size: o.Size, Version: o.Version}
		switch {
		case verifying && l.Meta:
			// The listing shows the mark by which a copy is known: nobody has to look.
			e.items[i].through = engine.CopyOf(o) == rr.r.spec.ID
			e.items[i].other = !e.items[i].through
		case verifying:
			// What is older than the job was not written by it.
			e.items[i].other = !o.Modified.IsZero() && o.Modified.Before(rr.r.spec.Created.Add(-clocksDiffer))
		}
	}
	return e, nil
}

// listed notes that a listing fails or goes on, for whoever looks at the job.
func (rr *rangeRun) listed(lane int, err error) error {
	r := rr.r
	rr.mu.Lock()
	since, failing := rr.failing[lane]
	now := r.m.o.Clock.Now()
	switch {
	case err == nil:
		delete(rr.failing, lane)
	case !failing:
		since = now
		rr.failing[lane] = now
	}
	rr.mu.Unlock()
	r.note(fmt.Sprint("lane ", lane), err)
	if limit := r.spec.Unavailable; err != nil && limit > 0 && now.Sub(since) > limit {
		return fmt.Errorf("%w: %w", errWaitedLong, err)
	}
	return err
}

// send has a node work on a batch. Where that fails it is tried elsewhere, after a
// moment.
func (rr *rangeRun) send(b *batch) rangeEvent {
	reply, err := rr.call(b)
	if err != nil {
		_ = rr.r.pause(rr.ctx, batchPause)
		return rangeEvent{kind: evAnswered, err: err}
	}
	return rangeEvent{kind: evAnswered, books: reply.Books, errors: reply.Errors}
}

func (rr *rangeRun) call(b *batch) (reply batchReply, err error) {
	for i := range b.items {
		b.items[i].Name = []byte(b.items[i].Key)
	}
	req, err := json.Marshal(batchRequest{Job: rr.r.spec.ID, Table: rr.table, Items: b.items, Again: b.again})
	if err != nil {
		return reply, fmt.Errorf("encode batch: %w", err)
	}
	resp, err := rr.r.m.callAlive(rr.ctx, b.node, MethodBatch, req)
	if err == nil {
		err = json.Unmarshal(resp, &reply)
	}
	for i := range reply.Errors {
		if i < len(reply.Failed) {
			reply.Errors[i].Key = string(reply.Failed[i])
		}
	}
	return reply, err
}

// callAlive calls a node until it answers or the map says that it is gone.
func (m *Manager) callAlive(ctx context.Context, id core.NodeID, method uint16, req []byte) ([]byte, error) {
	mp, changed := m.o.Node.Maps()
	node := mp.Node(id)
	if node == nil {
		return nil, fmt.Errorf("no node has the keys now: %w", core.ErrUnavailable)
	}
	boot := node.Boot
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		for ctx.Err() == nil {
			if now := mp.Node(id); now == nil || now.Boot != boot || now.State == core.NodeDown {
				cancel(fmt.Errorf("node %s is gone: %w", id, core.ErrUnavailable))
				return
			}
			select {
			case <-changed:
				mp, changed = m.o.Node.Maps()
			case <-ctx.Done():
			}
		}
	})
	defer watching.Wait()
	defer cancel(nil)
	return m.o.Node.CallNode(ctx, id, method, req)
}

// ask asks another lane, of any node, for a part of its range.
func (rr *rangeRun) ask(lane int, a *rangeAction) (rangeReply, error) {
	ctx, cancel := context.WithTimeout(rr.ctx, askFor)
	defer cancel()
	n := rr.r.m.o.Node
	req, err := json.Marshal(shareRequest{Job: rr.r.spec.ID, Table: rr.table, After: []byte(a.after), Boot: n.Boot(), From: lane, To: a.lane})
	if err != nil {
		return rangeReply{}, fmt.Errorf("encode request: %w", err)
	}
	resp, err := rr.r.m.callAlive(ctx, a.node, MethodShare, req)
	if err != nil {
		return rangeReply{}, err
	}
	var reply shareReply
	if err := json.Unmarshal(resp, &reply); err != nil || !reply.Given {
		return rangeReply{again: reply.Again}, err
	}
	row, err := decodeRange(string(reply.After), reply.Row)
	return rangeReply{row: &rowOfRange{row, reply.Version}}, err
}

// serveShare answers a node that asks for a part of a range.
func (m *Manager) serveShare(ctx context.Context, from core.NodeID, req []byte) ([]byte, error) {
	var q shareRequest
	if err := json.Unmarshal(req, &q); err != nil {
		return nil, fmt.Errorf("share of a range: %w: %w", core.ErrInvalid, err)
	}
	rr := m.rangeRun(q.Job)
	if rr == nil || rr.table != q.Table || q.To < 0 || q.To >= len(rr.machines) {
		return nil, fmt.Errorf("job %s does not list here yet: %w", q.Job, core.ErrUnavailable)
	}
	c := make(chan rangeReply, 1)
	rr.mu.Lock()
	rr.lastAsk++
	id := rr.lastAsk
	rr.asks[id] = c
	rr.mu.Unlock()
	defer func() {
		rr.mu.Lock()
		delete(rr.asks, id)
		rr.mu.Unlock()
	}()
	ask := rangeAsk{id: id, from: from, boot: q.Boot, lane: q.From}
	rr.post(q.To, rangeEvent{kind: evAsk, ask: ask, after: string(q.After)}) //nolint:contextcheck // what is begun ends with the run, rr.ctx
	select {
	case r := <-c:
		out := shareReply{Again: r.again}
		if r.row != nil {
			row, err := r.row.encode()
			if err != nil {
				return nil, err
			}
			out.Given, out.After, out.Row, out.Version = true, []byte(r.row.After), row, r.row.version
		}
		return json.Marshal(out)
	case <-rr.ctx.Done():
		return nil, fmt.Errorf("job %s stops here: %w", q.Job, core.ErrUnavailable)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// rangeRun returns this node's part in a job over ranges, nil if there is none now.
func (m *Manager) rangeRun(id string) *rangeRun {
	m.mu.Lock()
	var r *run
	if j := m.jobs[id]; j != nil {
		r = j.run
	}
	m.mu.Unlock()
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ranged
}

// serveBatch works on keys that another node has listed.
func (m *Manager) serveBatch(ctx context.Context, _ core.NodeID, req []byte) ([]byte, error) {
	var q batchRequest
	if err := json.Unmarshal(req, &q); err != nil {
		return nil, fmt.Errorf("batch of a job: %w: %w", core.ErrInvalid, err)
	}
	rr, err := m.awaitWorker(ctx, &q)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(rr.ctx, cancel)() //nolint:contextcheck // either ends the work
	ctx = m.o.Node.ForJob(ctx, q.Job)
	reply, err := rr.workOn(ctx, q.Items)
	if err != nil {
		return nil, fmt.Errorf("job %s stops here: %w: %w", q.Job, core.ErrUnavailable, err)
	}
	return json.Marshal(reply)
}

// awaitWorker is worker for a node that will be in that phase in a moment.
func (m *Manager) awaitWorker(ctx context.Context, q *batchRequest) (*rangeRun, error) {
	ctx, cancel := context.WithTimeout(ctx, phaseSoon)
	defer cancel()
	for {
		m.mu.Lock()
		changed := m.changed
		m.mu.Unlock()
		rr, err := m.worker(q)
		if err == nil {
			return rr, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, err
		}
	}
}

// worker returns who works on a batch. A node learns of a job's next phase a moment
// sooner or later than another: what one lists to see what was written, this one
// must not take for keys to write.
func (m *Manager) worker(q *batchRequest) (*rangeRun, error) {
	rr := m.rangeRun(q.Job)
	if rr == nil || rr.work == nil || rr.table != q.Table {
		return nil, fmt.Errorf("job %s is not in that phase here: %w", q.Job, core.ErrUnavailable)
	}
	return rr, nil
}

// workOn works on the keys of a batch, as many at a time as the node's workers
// allow. Batches have them in the order in which they came: a batch counts when all
// of it is done, so that all of them half done would be nothing done, to see and
// to go on from.
func (rr *rangeRun) workOn(ctx context.Context, items []item) (batchReply, error) {
	select {
	case rr.turn <- struct{}{}:
	case <-ctx.Done():
		return batchReply{}, ctx.Err()
	}
	var mu sync.Mutex
	var out batchReply
	var failed error
	var wg sync.WaitGroup
	for i := range items {
		it := &items[i]
		it.Key = string(it.Name)
		select {
		case rr.sem <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-rr.sem }()
			res, size, err := rr.one(ctx, it)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
				return
			}
			res.count(&out.Books, size)
			out.Books.Passed += keySum(it.Key)
			if e, ok := res.note(it.Key); ok {
				out.Errors = append(out.Errors, e)
				out.Failed = append(out.Failed, []byte(it.Key))
			}
		})
	}
	<-rr.turn // all of it has begun
	wg.Wait()
	return out, errors.Join(ctx.Err(), failed)
}

// one works on one key until it has an end that counts.
func (rr *rangeRun) one(ctx context.Context, it *item) (result, int64, error) {
	if rr.table == tableRun {
		if err := rr.r.limit.wait(ctx, it.Size); err != nil {
			return result{}, 0, err
		}
	}
	size := it.Size
	res, err := rr.r.persist(ctx, it.Key, func() (res result, err error) {
		res, size, err = rr.work(ctx, it)
		return res, err
	})
	return res, size, err
}

// page lists the keys that the job names.
func (s *selector) page(_ context.Context, after string, limit int) (rangeEvent, error) {
	i, found := slices.BinarySearch(s.keys, after)
	if found {
		i++
	}
	e := rangeEvent{}
	for ; i < len(s.keys) && len(e.items) < limit; i++ {
		if strings.HasPrefix(s.keys[i], s.prefix) && s.keys[i] != "" {
			e.items = append(e.items, item{Key: s.keys[i]})
			e.next = s.keys[i]
		}
	}
	e.more = i < len(s.keys)
	if e.next == "" {
		e.more = false
	}
	return e, nil
}

// middle returns the key in the middle of those that the job names, and how many
// there are.
func (s *selector) middle(after, last string) (string, int64) {
	i, found := slices.BinarySearch(s.keys, after)
	if found {
		i++
	}
	k := len(s.keys)
	if last != "" {
		k, found = slices.BinarySearch(s.keys, last)
		if found {
			k++
		}
	}
	if i >= k {
		return "", 0
	}
	return s.keys[(i+k)/2], int64(k - i)
}

// liveRange is a range as its holder sees it now.
type liveRange struct {
	After  []byte  `json:"after,omitempty"`
	Books  Books   `json:"books"`
	Listed bool    `json:"listed,omitempty"`
	Errors []Error `json:"errors,omitempty"`
}

// live returns the ranges that the node holds.
func (rr *rangeRun) live() []liveRange {
	rr.mu.Lock()
	defer rr.mu.Unlock()
	var out []liveRange
	for _, m := range rr.machines {
		if r, listed, ok := m.live(); ok {
			out = append(out, liveRange{After: []byte(r.After), Books: r.Books, Listed: listed, Errors: r.Errors})
		}
	}
	return out
}

// pollRanges sums up the ranges of a job: as their holders see them, and those that
// nobody holds as they are in the table.
func (m *Manager) pollRanges(ctx context.Context, id string, mp *core.Map, table string, p *polled) {
	t, err := m.table(ctx, id, table)
	if err != nil {
		p.waiting = append(p.waiting, err.Error())
		p.shown = p.books.shown(m.know(id, p.phase, Books{}), false)
		return
	}
	nodes := map[core.NodeID]bool{}
	for i := range mp.Nodes {
		if n := &mp.Nodes[i]; n.State != core.NodeDown && n.State != core.NodeDecommissioned && n.State != core.NodeJoining {
			nodes[n.ID] = true
		}
	}
	live := map[heldBy]liveRange{}
	known := m.know(id, p.phase, Books{})
	for node, rep := range m.askAll(ctx, id, p.phase, nodes) {
		switch {
		case rep == nil:
			p.waiting = append(p.waiting, fmt.Sprintf("node %s does not answer", node))
		case rep.Phase == p.phase:
			known = known.atLeast(rep.Known)
			p.waiting = append(p.waiting, rep.Waiting...)
			for _, r := range rep.Ranges {
				live[heldBy{node, string(r.After)}] = r
			}
		}
	}
	slices.Sort(p.waiting)
	p.addRanges(t, live)
	known = m.know(id, p.phase, known.atLeast(p.books))
	p.shown = p.books.shown(known, p.whole)
}

// heldBy names a range that a node says it holds.
type heldBy struct {
	node  core.NodeID
	after string
}

// addRanges sums up the ranges of a table, as their holders see those that live has.
func (p *polled) addRanges(t *rangeTable, live map[heldBy]liveRange) {
	p.through, p.listed, p.whole = t.done(), len(t.ranges) > 0, true
	for i := range t.ranges {
		r := &t.ranges[i]
		now, ok := live[heldBy{r.Holder, r.After}]
		switch {
		case r.Done:
			now = liveRange{Books: r.Books, Errors: r.Errors, Listed: true}
		case ok:
			p.listers = append(p.listers, r.Holder)
		default:
			now = liveRange{Books: r.Books, Errors: r.Errors}
			p.whole = false
		}
		p.books = p.books.Add(now.Books)
		p.errors = append(p.errors, now.Errors...)
		p.listed = p.listed && now.Listed
	}
	slices.Sort(p.listers)
	p.listers = slices.Compact(p.listers)
}
