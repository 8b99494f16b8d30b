package job

import (
	"errors"
	"fmt"
	"time"

	"github.com/shoalstore/shoal/core"
)

// A rangeMachine is one node's part in listing what a job is about. It is pure: it
// takes events and returns what is to be done, so that tests can drive many of them
// through every order of events. At any time it holds one range at the most: it
// lists it, page after page, hands the keys out in batches, and moves the range's
// position once all keys before it are through. Without a range it claims one
// that nobody alive holds, or asks a holder for a part of its own.
//
// What others may have changed in the table is noticed by the versions of its rows:
// when a write fails, or may have, the range is let go of and the table read again.
type rangeMachine struct {
	o   rangeOptions
	ops uint64
	// open are the operations under way, by number.
	open map[uint64]pending
	held *heldRange
	// refused remembers how far ranges were whose holders would not share them.
	refused map[string]int64
	pause   time.Duration
	// ended: all ranges are through, or the job has failed.
	ended bool
}

// rangeOptions are what a machine is made of.
type rangeOptions struct {
	self core.NodeID
	boot uint64
	lane int // of those that the node has
	// page is the number of keys of a page, window the number of pages under way,
	// batch the most keys of a batch.
	page, window, batch int
	// skip is the length of the prefix that is listed.
	skip int
	// takes selects keys; planned counts one.
	takes func(key string) bool
	// countOnly: keys are counted, nothing else.
	countOnly bool
	// owner says which node works on a key.
	owner func(key string) core.NodeID
	// middle, if not nil, returns a key in the middle between two, and how many
	// there are, where that is known without asking anybody.
	middle func(after, last string) (mid string, left int64)

	sabotage rangeSabotage
}

// rangeSabotage switches off single rules, to show that the simulation notices.
type rangeSabotage struct {
	noVersion, noCeiling, early, noBudget, keepOnConflict, countTwice, behind, noNotes bool
}

// item is a key that was listed.
type item struct {
	Key     string             `json:"-"`
	Name    []byte             `json:"key"` // Key, which need not be valid text
	Size    int64              `json:"size"`
	Version core.RemoteVersion `json:"version,omitempty"` // "" is any
	Gone    bool               `json:"gone,omitempty"`    // the remote did not name it; see withGone
	other   bool               // the job is not about it, whatever its key
}

// batch are keys for one node to work on.
type batch struct {
	node  core.NodeID
	items []item
	page  *rangePage
	again bool // they were handed out before
}

// rangePage is a page under way.
type rangePage struct {
	until  string
	end    bool // nothing of the range is behind it
	left   int  // batches without an answer
	keys   int64
	books  Books
	errors []Error
}

// heldRange is the range that a machine holds.
type heldRange struct {
	rowOfRange
	head    string // listed up to here
	listed  bool   // to the end
	listing bool
	failing int // listings that failed in a row
	pages   []*rangePage
	writing bool
	shape   shape
	asks    []rangeAsk
	cut     *cutting
}

// rangeAsk is a node that asks for a part of a range.
type rangeAsk struct {
	id   uint64
	from core.NodeID
	boot uint64
	lane int
}

// cutting is the search for a place to cut a range at.
type cutting struct {
	ask   rangeAsk
	table *rangeTable
	// probes were made, lost is how often another node got ahead in writing down
	// that it probes.
	probes, lost int
	guess        guess
	best         *guess
	ready        bool // best is the place, once the row can be written
	budget       rangeBudget
}

// The bounds of the search for one cut.
const (
	maxProbes = 5
	maxLost   = 4
)

// opKind says what an operation was for.
type opKind byte

const (
	opLoad opKind = iota + 1
	opLoadBudget
	opCreate
	opClaim
	opMove
	opBudget
	opCut
	opList
	opProbe
	opBatch
	opAsk
	opWait
	opWaitList
)

// pending is an operation under way.
type pending struct {
	kind  opKind
	held  *heldRange // that it is about
	batch *batch
	row   keyRange // to be written
	other keyRange // to be written as well
	moved int      // pages that the write counts
	after string   // of the range that was asked for
}

// actionKind says what a machine asks for.
type actionKind byte

// The actions. All but actReply and actFail are answered by one event each, with
// the same op.
const (
	actLoad  actionKind = iota + 1 // read the table: evLoaded
	actWrite                       // write rows that have these versions, all or none: evWritten
	actList                        // list a page behind after: evListed
	actProbe                       // the first key behind after: evListed
	actBatch                       // work on keys: evAnswered
	actAsk                         // ask the node for a part of the range: evAsked
	actWait                        // evWaited
	actReply                       // answer an evAsk
	actFail                        // the job cannot go on: err
)

// rangeAction is what a machine asks for.
type rangeAction struct {
	kind  actionKind
	op    uint64
	after string
	max   int
	batch *batch
	node  core.NodeID
	lane  int
	write []rangeWrite
	wait  time.Duration
	reply rangeReply
	err   error
}

// rangeWrite is a row to be written if it has the version.
type rangeWrite struct {
	row     keyRange
	budget  *rangeBudget // instead of row
	notes   []Error      // of the keys that the row counts anew
	version core.Version
	blind   bool // sabotage: whatever the version
}

// rangeReply answers a node that asked for a part of a range: it got row, or it
// didn't. Again says that the table has changed, so that it is worth looking again.
type rangeReply struct {
	id    uint64
	row   *rowOfRange
	again bool
}

// rangeEvent is what happened.
type rangeEvent struct {
	kind eventKind
	op   uint64
	err  error
	// evLoaded
	table *rangeTable
	alive func(core.NodeID, uint64) bool
	// evWritten
	version core.Version
	// evListed
	items []item
	more  bool
	next  string
	// evAnswered
	books  Books
	errors []Error
	// evAsked
	reply rangeReply
	// evAsk
	ask   rangeAsk
	after string
}

type eventKind byte

const (
	evStart eventKind = iota
	evLoaded
	evWritten
	evListed
	evAnswered
	evAsked
	evWaited
	evAsk
)

const (
	firstRangePause = 50 * time.Millisecond
	maxRangePause   = time.Second
	firstListPause  = 200 * time.Millisecond
	maxListPause    = 5 * time.Second
)

func newRangeMachine(o rangeOptions) *rangeMachine {
	return &rangeMachine{o: o, open: map[uint64]pending{}, refused: map[string]int64{}, pause: firstRangePause}
}

// steps collects the actions of one event.
type steps struct {
	m   *rangeMachine
	out []rangeAction
}

// do adds an action that is answered.
func (s *steps) do(a rangeAction, p pending) {
	s.m.ops++
	a.op = s.m.ops
	s.m.open[a.op] = p
	s.out = append(s.out, a)
}

func (s *steps) load() { s.do(rangeAction{kind: actLoad}, pending{kind: opLoad}) }

func (s *steps) wait(d time.Duration, p pending) { s.do(rangeAction{kind: actWait, wait: d}, p) }

// step takes an event and returns what is to be done now.
func (m *rangeMachine) step(e rangeEvent) []rangeAction {
	s := &steps{m: m}
	if m.ended {
		if e.kind == evAsk {
			s.refuse(e.ask, false)
		}
		return s.out
	}
	switch e.kind {
	case evStart:
		s.load()
		return s.out
	case evAsk:
		s.asked(&e)
		s.goOn()
		return s.out
	}
	p, ok := m.open[e.op]
	if !ok {
		return nil
	}
	delete(m.open, e.op)
	if p.held != nil && p.held != m.held {
		return nil // about a range that was let go of
	}
	switch p.kind {
	case opLoad:
		s.loaded(&e)
	case opCreate, opClaim:
		s.claimed(&p, &e)
	case opMove, opCut:
		s.written(&p, &e)
	case opLoadBudget:
		s.reckon(&e)
	case opBudget:
		s.charged(&p, &e)
	case opList:
		s.listed(&e)
	case opProbe:
		s.probed(&e)
	case opBatch:
		s.answered(&p, &e)
	case opAsk:
		s.askAnswered(&p, &e)
	case opWait:
		s.load()
	case opWaitList:
		m.held.listing = false
	}
	s.goOn()
	return s.out
}

// idle waits, longer each time, before it looks at the table again.
func (s *steps) idle() {
	s.wait(s.m.pause, pending{kind: opWait})
	s.m.pause = min(2*s.m.pause, maxRangePause)
}

// loaded looks for a range to hold.
func (s *steps) loaded(e *rangeEvent) {
	m := s.m
	if e.err != nil {
		s.idle()
		return
	}
	if len(e.table.ranges) == 0 {
		row := keyRange{Holder: m.o.self, Boot: m.o.boot, Lane: m.o.lane, Left: int64(muchPages * m.o.page)}
		s.do(rangeAction{kind: actWrite, write: []rangeWrite{{row: row}}}, pending{kind: opCreate, row: row})
		return
	}
	if e.table.done() {
		m.ended = true
		return
	}
	var most *rowOfRange
	for i := range e.table.ranges {
		r := &e.table.ranges[i]
		switch {
		case r.Done:
		case r.Holder == m.o.self && r.Boot == m.o.boot && r.Lane == m.o.lane:
			s.hold(*r) // given to this node, or let go of in doubt
			return
		case r.Holder == "" || !e.alive(r.Holder, r.Boot):
			row := r.keyRange
			row.Holder, row.Boot, row.Lane = m.o.self, m.o.boot, m.o.lane
			s.do(rangeAction{kind: actWrite, write: []rangeWrite{{row: row, version: r.version, blind: m.o.sabotage.noVersion}}}, pending{kind: opClaim, row: row})
			return
		case r.Left < int64(littlePages*m.o.page):
		case most == nil || r.Left > most.Left:
			if pages, ok := m.refused[r.After]; !ok || r.Pages >= pages+2 {
				most = r
			}
		}
	}
	if most == nil || !e.table.affords(2, m.o.page) && m.o.middle == nil && !m.o.sabotage.noBudget {
		s.idle()
		return
	}
	s.do(rangeAction{kind: actAsk, node: most.Holder, lane: most.Lane, after: most.After}, pending{kind: opAsk, after: most.After, row: most.keyRange})
}

func (s *steps) claimed(p *pending, e *rangeEvent) {
	if e.err != nil {
		s.idle()
		return
	}
	s.hold(rowOfRange{p.row, e.version})
}

// hold begins with a range, at its position.
func (s *steps) hold(r rowOfRange) {
	m := s.m
	h := &heldRange{rowOfRange: r, head: max(r.Pos, r.After)}
	h.shape.skip, h.shape.size = m.o.skip, m.o.page
	m.held, m.pause = h, firstRangePause
	clear(m.refused)
}

// drop lets go of the range.
func (s *steps) drop() {
	h := s.m.held
	s.m.held = nil
	for _, a := range h.asks {
		s.refuse(a, true)
	}
	if h.cut != nil {
		s.refuse(h.cut.ask, true)
	}
}

func (s *steps) refuse(a rangeAsk, again bool) {
	s.out = append(s.out, rangeAction{kind: actReply, reply: rangeReply{id: a.id, again: again}})
}

// goOn does all that the range held has waited for.
func (s *steps) goOn() {
	m, h := s.m, s.m.held
	if h == nil {
		return
	}
	if !h.listing && !h.listed && len(h.pages) < m.o.window {
		h.listing = true
		s.do(rangeAction{kind: actList, after: h.head, max: m.o.page}, pending{kind: opList, held: h})
	}
	if h.cut == nil && len(h.asks) > 0 {
		s.consider()
	}
	if h.writing {
		return
	}
	if h.cut != nil && h.cut.ready {
		s.cut()
		return
	}
	s.move()
}

// move writes the position down, once pages are through.
func (s *steps) move() {
	m, h := s.m, s.m.held
	n := 0
	row := h.keyRange
	var notes []Error
	for n < len(h.pages) && (h.pages[n].left == 0 || m.o.sabotage.early) && len(notes) < notesTogether {
		p := h.pages[n]
		row.Pos = p.until
		row.Pages++
		row.Keys += p.keys
		row.Books = row.Books.Add(p.books)
		notes = append(notes, p.errors...)
		row.Errors = someErrors(row.Errors, errorsKept, p.errors...)
		row.Done = p.end
		n++
	}
	if n == 0 {
		return
	}
	row.Left = m.left(h)
	h.writing = true
	if m.o.sabotage.noNotes {
		notes = nil
	}
	w := rangeWrite{row: row, notes: notes, version: h.version, blind: m.o.sabotage.noVersion}
	s.do(rangeAction{kind: actWrite, write: []rangeWrite{w}}, pending{kind: opMove, held: h, row: row, moved: n})
}

// left is about how many keys are left behind what was listed.
func (m *rangeMachine) left(h *heldRange) int64 {
	switch {
	case h.listed:
		return 0
	case m.o.middle != nil:
		_, left := m.o.middle(h.head, h.Last)
		return left
	}
	return h.shape.left(h.end())
}

// end is behind all keys that there may be in the range.
func (h *heldRange) end() string {
	if h.Last != "" && (h.Bound == "" || h.Last < h.Bound) {
		return h.Last
	}
	return h.Bound
}

// written goes on after the range's row was written.
func (s *steps) written(p *pending, e *rangeEvent) {
	m, h := s.m, s.m.held
	h.writing = false
	if e.err != nil && !m.o.sabotage.keepOnConflict {
		// The range may be somebody else's, or the write may yet take effect.
		s.drop()
		s.idle()
		return
	}
	if p.kind == opCut {
		h.keyRange, h.version = p.row, e.version
		s.out = append(s.out, rangeAction{kind: actReply, reply: rangeReply{id: h.cut.ask.id, row: &rowOfRange{p.other, e.version}}})
		h.cut = nil
		for _, a := range h.asks {
			s.refuse(a, true) // the part that went may be the larger one
		}
		h.asks = nil
		return
	}
	h.keyRange, h.version = p.row, e.version
	if !m.o.sabotage.countTwice {
		h.pages = h.pages[p.moved:]
	}
	if h.Done {
		s.drop()
		s.load()
	}
}

// listed takes in a page.
func (s *steps) listed(e *rangeEvent) {
	m, h := s.m, s.m.held
	if err := e.err; err == nil {
		e.err = orderly(h.head, e)
	}
	if e.err != nil {
		if finalListing(e.err) {
			m.ended = true
			s.out = append(s.out, rangeAction{kind: actFail, err: e.err})
			return
		}
		d := min(firstListPause<<min(h.failing, 10), maxListPause)
		h.failing++
		s.wait(d, pending{kind: opWaitList, held: h})
		return
	}
	h.failing, h.listing = 0, false
	p := &rangePage{until: e.next, end: !e.more}
	if !e.more && len(e.items) > 0 {
		p.until = e.items[len(e.items)-1].Key
	} else if !e.more {
		p.until = h.head
	}
	keys := make([]string, 0, len(e.items))
	var take []item
	for _, it := range e.items {
		if h.Last != "" && it.Key > h.Last {
			break
		}
		keys = append(keys, it.Key)
		if !it.other && m.o.takes(it.Key) {
			take = append(take, it)
			p.books.Planned.one(it.Size)
		}
	}
	if h.Last != "" && p.until >= h.Last {
		p.until, p.end = h.Last, true
	}
	p.keys = int64(len(keys))
	h.head, h.listed = p.until, p.end
	h.shape.page(keys)
	h.pages = append(h.pages, p)
	if !m.o.countOnly {
		s.hand(p, take, false)
	}
	if h.listed && h.cut == nil {
		for _, a := range h.asks {
			s.refuse(a, false)
		}
		h.asks = nil
	}
}

// orderly refuses a page that is not what was asked for: to go on from it would
// leave keys out, or go round in circles.
func orderly(after string, e *rangeEvent) error {
	last := after
	for i := range e.items {
		if e.items[i].Key <= last {
			return fmt.Errorf("the listing behind %q names %q after %q: %w", after, e.items[i].Key, last, core.ErrUnavailable)
		}
		last = e.items[i].Key
	}
	if e.more && (e.next < last || e.next <= after) {
		return fmt.Errorf("the listing behind %q goes on at %q, though it has come to %q: %w", after, e.next, last, core.ErrUnavailable)
	}
	return nil
}

// finalListing says whether there is no use in listing again.
func finalListing(err error) bool {
	for _, final := range []error{
		core.ErrNoSuchBucket, core.ErrPermission, core.ErrWrongRegion, core.ErrInvalid, core.ErrNotFound, errors.ErrUnsupported, errWaitedLong,
	} {
		if errors.Is(err, final) {
			return true
		}
	}
	return false
}

// errWaitedLong ends a job whose listing has been waited for as long as was asked.
var errWaitedLong = errors.New("waited as long as --unavailable-timeout allows")

// hand gives keys to the nodes that are to work on them.
func (s *steps) hand(p *rangePage, items []item, again bool) {
	m := s.m
	by := map[core.NodeID][]item{}
	var order []core.NodeID
	for _, it := range items {
		n := m.o.owner(it.Key)
		if by[n] == nil {
			order = append(order, n)
		}
		by[n] = append(by[n], it)
	}
	for _, n := range order {
		for list := by[n]; len(list) > 0; {
			k := min(len(list), m.o.batch)
			b := &batch{node: n, items: list[:k:k], page: p, again: again}
			list = list[k:]
			p.left++
			s.do(rangeAction{kind: actBatch, node: n, batch: b}, pending{kind: opBatch, held: m.held, batch: b})
		}
	}
}

// answered takes in what became of a batch. One that was not answered goes to
// whoever owns its keys now.
func (s *steps) answered(p *pending, e *rangeEvent) {
	page := p.batch.page
	page.left--
	if e.err != nil {
		s.hand(page, p.batch.items, true)
		return
	}
	page.books = page.books.Add(e.books)
	for _, err := range e.errors {
		page.errors = noted(page.errors, err)
	}
}

// asked notes that a node asks for a part of the range.
func (s *steps) asked(e *rangeEvent) {
	h := s.m.held
	if h == nil || h.listed || h.After != e.after {
		s.refuse(e.ask, h != nil && h.After != e.after)
		return
	}
	h.asks = append(h.asks, e.ask)
}

// consider begins to look for a place to cut, for the first node that asks.
func (s *steps) consider() {
	m, h := s.m, s.m.held
	if h.shape.seen == 0 && m.o.middle == nil {
		return // nothing is known yet
	}
	a := h.asks[0]
	h.asks = h.asks[1:]
	switch {
	case h.listed || len(h.pages) >= m.o.window:
		s.refuse(a, false) // it is not the listing that is waited for
	case m.o.middle != nil:
		mid, left := m.o.middle(h.head, h.Last)
		if left < int64(littlePages*m.o.page) {
			s.refuse(a, false)
			return
		}
		h.cut = &cutting{ask: a, best: &guess{key: mid}, ready: true}
	default:
		h.cut = &cutting{ask: a}
		s.do(rangeAction{kind: actLoad}, pending{kind: opLoadBudget, held: h})
	}
}

// giveUpCut ends the search without a cut.
func (s *steps) giveUpCut() {
	h := s.m.held
	s.refuse(h.cut.ask, false)
	h.cut = nil
}

// reckon looks whether the job may spend more on probes.
func (s *steps) reckon(e *rangeEvent) {
	h := s.m.held
	if e.err != nil {
		s.giveUpCut()
		return
	}
	h.cut.table = e.table
	s.search()
}

// search guesses the next place to probe, or takes the best one.
func (s *steps) search() {
	m, h := s.m, s.m.held
	c := h.cut
	g, ok := h.shape.guess(h.end(), c.best)
	ok = ok && !h.listed && g.key > h.head && (h.end() == "" || g.key < h.end())
	cost := int64(1)
	if c.probes == 0 {
		cost = 2 // the page at the end of the part as well
	}
	switch {
	case ok && c.probes < maxProbes && (c.table.affords(cost, m.o.page) || m.o.sabotage.noBudget):
		c.guess = g
		c.budget = rangeBudget{c.table.budget.Spent + cost}
		w := rangeWrite{budget: &c.budget, version: c.table.budgetAt}
		s.do(rangeAction{kind: actWrite, write: []rangeWrite{w}}, pending{kind: opBudget, held: h})
	case c.best != nil:
		c.ready = true
	default:
		s.giveUpCut()
	}
}

// charged probes, once that is written down.
func (s *steps) charged(_ *pending, e *rangeEvent) {
	h := s.m.held
	c := h.cut
	if e.err != nil {
		if c.lost++; c.lost > maxLost {
			s.giveUpCut()
			return
		}
		s.do(rangeAction{kind: actLoad}, pending{kind: opLoadBudget, held: h})
		return
	}
	c.table.budget, c.table.budgetAt = c.budget, e.version
	c.probes++
	s.do(rangeAction{kind: actProbe, after: c.guess.key, max: 1}, pending{kind: opProbe, held: h})
}

// probed takes in whether there is something behind the guess.
func (s *steps) probed(e *rangeEvent) {
	h := s.m.held
	c := h.cut
	switch {
	case e.err != nil:
		s.giveUpCut()
		return
	case len(e.items) > 0 && (h.Last == "" || e.items[0].Key <= h.Last):
		at := commonPrefix(h.shape.last, e.items[0].Key)
		c.best = &guess{key: c.guess.key, at: at, counts: c.guess.counts, fine: c.guess.fine}
		if !c.guess.open {
			c.ready = true
			return
		}
	default:
		h.Bound = c.guess.key
		if c.best != nil && c.guess.fine {
			c.best.fine = true
		}
	}
	s.search()
}

// cut divides the range: both parts are written as one entry.
func (s *steps) cut() {
	m, h := s.m, s.m.held
	c := h.cut
	if (h.listed || c.best.key <= h.head) && !m.o.sabotage.behind {
		s.giveUpCut() // the listing has come by
		s.move()
		return
	}
	row := h.keyRange
	row.Last, row.Bound, row.Left = c.best.key, "", m.left(h)/2
	other := keyRange{After: c.best.key, Last: h.Last, Pos: c.best.key, Holder: c.ask.from, Boot: c.ask.boot, Lane: c.ask.lane, Left: row.Left, Bound: h.Bound}
	if !m.o.sabotage.noCeiling {
		// From now on nothing behind it counts as listed here.
		h.Last = row.Last
	}
	h.writing = true
	w := []rangeWrite{{row: row, version: h.version, blind: m.o.sabotage.noVersion}, {row: other}}
	s.do(rangeAction{kind: actWrite, write: w}, pending{kind: opCut, held: h, row: row, other: other})
}

// askAnswered takes the part of a range that this node got, or looks elsewhere.
func (s *steps) askAnswered(p *pending, e *rangeEvent) {
	m := s.m
	switch {
	case e.err == nil && e.reply.row != nil:
		s.hold(*e.reply.row)
	case e.err == nil && e.reply.again:
		s.load()
	default:
		m.refused[p.after] = p.row.Pages
		s.idle()
	}
}

// live returns the range that is held, with what is through behind its position,
// and whether all of it was listed. Planned is what was found.
func (m *rangeMachine) live() (r rowOfRange, listed, ok bool) {
	h := m.held
	if h == nil {
		return rowOfRange{}, false, false
	}
	r = h.rowOfRange
	for _, p := range h.pages {
		r.Books = r.Books.Add(p.books)
		r.Errors = someErrors(r.Errors, endErrors, p.errors...)
	}
	return r, h.listed, true
}
