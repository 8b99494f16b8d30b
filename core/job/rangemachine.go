package job

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/zeebo/xxh3"

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
	// lanes is about how many there are in the cluster.
	lanes int
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
	through bool               // it is done: there is nothing to work on
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

// cutting is the search for places to cut a range at.
type cutting struct {
	asks   []rangeAsk // one for each part, or more
	points []string   // where, once that is known
	table  *rangeTable
	// probes were made, lost is how often another node got ahead in writing down
	// that it probes.
	probes, lost int
	guess        guess
	best         *guess
	// end is behind what is looked at, if that is known; beyond says that there is
	// something else behind it.
	end    string
	beyond bool
	// letter is how far keys go at the best level; sure is that it goes to the end.
	letter *letter
	sure   bool
	ready  bool // the points are paid for: now the rows can be written
	budget rangeBudget
}

// The bounds of the search for one cut.
const (
	maxProbes = 7
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
	kind   opKind
	held   *heldRange // that it is about
	batch  *batch
	row    keyRange   // to be written
	others []keyRange // to be written as well
	moved  int        // pages that the write counts
	after  string     // of the range that was asked for
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
	maxRangePause   = 400 * time.Millisecond
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
	var free []*rowOfRange
	for i := range e.table.ranges {
		r := &e.table.ranges[i]
		switch {
		case r.Done:
		case r.Holder == m.o.self && r.Boot == m.o.boot && r.Lane == m.o.lane:
			s.hold(*r) // given to this node, or let go of in doubt
			return
		case r.Holder == "" || !e.alive(r.Holder, r.Boot):
			free = append(free, r)
		case r.Left < int64(littlePages*m.o.page):
		case most == nil || r.Left > most.Left:
			if pages, ok := m.refused[r.After]; !ok || r.Pages >= pages+2 {
				most = r
			}
		}
	}
	if len(free) > 0 {
		// Others claim, too: not all the same one.
		r := free[xxh3.HashString(fmt.Sprint(m.o.self, m.o.lane))%uint64(len(free))]
		row := r.keyRange
		row.Holder, row.Boot, row.Lane = m.o.self, m.o.boot, m.o.lane
		s.do(rangeAction{kind: actWrite, write: []rangeWrite{{row: row, version: r.version, blind: m.o.sabotage.noVersion}}}, pending{kind: opClaim, row: row})
		return
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
		for _, a := range h.cut.asks {
			s.refuse(a, true)
		}
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

// end is behind all keys that there may be in the range, or in the part of it that is
// known to be full; near says that keys go on about to there, as far as is known.
func (h *heldRange) end() (key string, near bool) {
	key = h.Bound
	if h.Last != "" && (key == "" || h.Last < key) {
		key, near = h.Last, true
	}
	if h.Edge > h.head && (key == "" || h.Edge <= key) {
		key, near = h.Edge, true
	}
	return key, near
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
		for i, a := range h.cut.asks {
			if i < len(p.others) {
				s.out = append(s.out, rangeAction{kind: actReply, reply: rangeReply{id: a.id, row: &rowOfRange{p.others[i], e.version}}})
			} else {
				s.refuse(a, true)
			}
		}
		h.cut = nil
		for _, a := range h.asks {
			s.refuse(a, true) // the parts that went may be larger ones
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
		if it.other || !m.o.takes(it.Key) {
			continue
		}
		p.books.Planned.one(it.Size)
		p.books.Found += keySum(it.Key)
		if it.through {
			p.books.Done.one(it.Size)
			p.books.Passed += keySum(it.Key)
			continue
		}
		take = append(take, it)
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

// consider begins to look for places to cut, for all nodes that ask.
func (s *steps) consider() {
	m, h := s.m, s.m.held
	if h.shape.seen == 0 && m.o.middle == nil {
		return // nothing is known yet
	}
	asks := h.asks
	h.asks = nil
	switch {
	case h.listed || len(h.pages) >= m.o.window:
		for _, a := range asks {
			s.refuse(a, false) // it is not the listing that is waited for
		}
	case m.o.middle != nil:
		h.cut = &cutting{asks: asks}
		mid, left := m.o.middle(h.head, h.Last)
		if left < int64(littlePages*m.o.page) {
			s.giveUpCut()
			return
		}
		h.cut.points, h.cut.ready = []string{mid}, true
	default:
		h.cut = &cutting{asks: asks}
		s.do(rangeAction{kind: actLoad}, pending{kind: opLoadBudget, held: h})
	}
}

// giveUpCut ends the search without a cut.
func (s *steps) giveUpCut() {
	h := s.m.held
	for _, a := range h.cut.asks {
		s.refuse(a, false)
	}
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

// search guesses the next place to probe, until it is known how far the keys go.
func (s *steps) search() {
	m, h := s.m, s.m.held
	c := h.cut
	end, near := h.end()
	if near && c.probes == 0 {
		s.divide() // nothing has to be found out
		return
	}
	if c.end != "" {
		end = c.end
	}
	var g guess
	ok := false
	if c.letter == nil {
		g, ok = h.shape.guess(end, c.best)
		if !ok && c.best != nil && c.best.open {
			if l, found := h.shape.letterAt(c.best.key, end); found {
				c.letter = &l
				g, ok = h.shape.halve(l, true)
			}
		}
	} else if !c.sure {
		g, ok = h.shape.halve(*c.letter, false)
	}
	ok = ok && !h.listed && g.key > h.head && (end == "" || g.key < end)
	switch {
	case ok && c.probes < maxProbes && (c.table.affords(2, m.o.page) || m.o.sabotage.noBudget):
		c.guess = g
		s.charge(1)
	default:
		if c.letter != nil {
			h.Edge = h.shape.endOf(*c.letter)
		} else if c.end != "" {
			h.Edge = c.end
		}
		s.divide()
	}
}

// charge writes down that so many more calls are to be made.
func (s *steps) charge(calls int64) {
	h := s.m.held
	c := h.cut
	c.budget = rangeBudget{c.table.budget.Spent + calls}
	w := rangeWrite{budget: &c.budget, version: c.table.budgetAt}
	s.do(rangeAction{kind: actWrite, write: []rangeWrite{w}}, pending{kind: opBudget, held: h})
}

// divide cuts into as many parts as nodes want, if there is enough for them. Each
// costs a page that need not be full.
func (s *steps) divide() {
	m, h := s.m, s.m.held
	c := h.cut
	idle := m.o.lanes
	for i := range c.table.ranges {
		if !c.table.ranges[i].Done {
			idle--
		}
	}
	want := int64(max(len(c.asks), idle))
	afford := func(n int64) bool { return c.table.affords(n, m.o.page) || m.o.sabotage.noBudget }
	edge := c.beyond && h.Edge > h.head && afford(1) && (h.Last == "" || h.Edge < h.Last)
	if edge {
		want--
	}
	n := min(want, m.left(h)/int64(littlePages*m.o.page))
	for n > 0 && !afford(n+1) {
		n--
	}
	if n > 0 && !h.listed {
		end, near := h.end()
		c.points = h.shape.cuts(end, near, int(n))
	}
	if edge && (len(c.points) == 0 || c.points[len(c.points)-1] < h.Edge) {
		c.points = append(c.points, h.Edge)
	}
	if len(c.points) == 0 {
		s.giveUpCut()
		return
	}
	s.charge(int64(len(c.points)))
}

// charged goes on once it is written down what it costs.
func (s *steps) charged(_ *pending, e *rangeEvent) {
	h := s.m.held
	c := h.cut
	if e.err != nil {
		c.points = nil
		if c.lost++; c.lost > maxLost {
			s.giveUpCut()
			return
		}
		s.do(rangeAction{kind: actLoad}, pending{kind: opLoadBudget, held: h})
		return
	}
	c.table.budget, c.table.budgetAt = c.budget, e.version
	if len(c.points) > 0 {
		c.ready = true
		return
	}
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
	case len(e.items) == 0 || h.Last != "" && e.items[0].Key > h.Last:
		h.Bound = c.guess.key
		c.missed()
	default:
		found := e.items[0].Key
		at := commonPrefix(h.shape.last, found)
		switch {
		case at < c.guess.at && c.guess.at < len(h.shape.last):
			// What is left of the branch ends here, and something else begins.
			c.beyond = true
			c.missed()
		case c.letter != nil:
			before := c.letter.letters.count()
			if l, ok := h.shape.letterAt(found, h.shape.endOf(*c.letter)); ok {
				c.letter = &l
			}
			c.sure = c.letter.letters.count() <= before/4 || c.letter.letters.count() < 2
		default:
			c.best = &guess{key: found, at: at, counts: c.guess.counts, open: c.guess.open}
			if !c.guess.open {
				s.divide()
				return
			}
		}
	}
	s.search()
}

// missed takes in that the guess is the end of what was looked at.
func (c *cutting) missed() {
	if c.end == "" || c.guess.key < c.end {
		c.end = c.guess.key
	}
	if c.letter == nil {
		return
	}
	r, _ := utf8.DecodeRuneInString(c.guess.key[c.letter.at:])
	c.letter.letters = c.letter.letters.upTo(r)
}

// cut divides the range: all parts are written as one entry.
func (s *steps) cut() {
	m, h := s.m, s.m.held
	c := h.cut
	points := c.points
	for len(points) > 0 && points[0] <= h.head && !m.o.sabotage.behind {
		points = points[1:] // the listing has come by
	}
	if h.listed && !m.o.sabotage.behind || len(points) == 0 {
		s.giveUpCut()
		s.move()
		return
	}
	left := m.left(h) / int64(len(points)+1)
	row := h.keyRange
	row.Last, row.Bound, row.Edge, row.Left = points[0], "", "", left
	w := []rangeWrite{{row: row, version: h.version, blind: m.o.sabotage.noVersion}}
	var others []keyRange
	for i, at := range points {
		other := keyRange{After: at, Last: h.Last, Pos: at, Left: left, Bound: h.Bound, Edge: h.Edge}
		if i < len(c.asks) { // the rest is for whoever comes first
			a := c.asks[i]
			other.Holder, other.Boot, other.Lane = a.from, a.boot, a.lane
		}
		if i+1 < len(points) {
			other.Last, other.Bound, other.Edge = points[i+1], "", ""
		}
		others = append(others, other)
		w = append(w, rangeWrite{row: other})
	}
	if !m.o.sabotage.noCeiling {
		// From now on nothing behind it counts as listed here.
		h.Last = row.Last
	}
	h.writing = true
	s.do(rangeAction{kind: actWrite, write: w}, pending{kind: opCut, held: h, row: row, others: others})
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
