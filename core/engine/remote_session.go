package engine

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/slot"
)

// fetchSession brings one version of a remote object, or some blocks of it, for
// all who read it meanwhile, and keeps what it brings. It lives at the slot's
// owner until its last reader is gone.
type fetchSession struct {
	r       *remotes
	number  uint64
	name    objectName
	bucket  *remoteBucket
	reading slot.Reading       // the right to the slot when it began
	pinned  core.RemoteVersion // that was asked for; "" for any
	base    *core.Record       // of the same version that was present, or nil
	beside  bool               // nothing is to be kept, and what is present does not matter
	stale   atomic.Bool        // a write of the object came in between
	life    context.Context    //nolint:containedctx // that of run
	cancel  context.CancelFunc // ends life
	fetches sync.WaitGroup     // what run waits for
	event   chan struct{}      // capacity 1: something has changed for run
	opened  chan struct{}      // closed once rec and block are known, or err
	// passed is closed once a reader has its first bytes, since it asks for more or is
	// gone. Until then, but not for long, no more is taken from the remote: on a busy
	// machine that would delay them.
	passed     chan struct{}
	passedOnce sync.Once

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when something came
	rec     core.Record   // of the remote's object, without data
	block   int64         // size of a block
	blocks  map[int]*block
	watches map[*watch]bool
	readers map[uint64]core.Instant // when each was here last
	keep    bool                    // what comes is stored
	serial  bool                    // the remote knows no ranges
	through *serialRead             // that is under way
	upto    int                     // the block before which it waits
	sum     summer
	err     error // why nothing more comes
	drop    bool  // what was kept before err is wrong, too
	ended   bool

	runs     []fetchedRun
	inline   []byte // a small object, whole
	at       core.Instant
	complete bool // everything is committed
}

// fetchedRun is a run of blocks on the disks.
type fetchedRun struct {
	extent    core.Extent
	off       int64
	committed bool
}

// block is a block of a session's object that is on its way, or in memory. Its
// fields are guarded by the session's mu, but for the bytes of buf: those that are
// filled do not change while somebody uses the block.
type block struct {
	session *fetchSession
	index   int
	buf     []byte // nil before there is memory for it
	from    int    // where a reader began, whom what lies before does not keep waiting
	filled  int    // up to where it is filled from there on
	head    int    // how much there is of what lies before from
	full    bool
	stored  bool // on disks, or not to be
	storing bool
	gone    bool // not in the session any more
	// users are those who fill, sum, store or read it, or wait for it.
	users  int
	cancel context.CancelFunc // of its fetch
	idle   *list.Element      // guarded by the memory's mu
}

const (
	// silentReader is after what time a reader that is not heard of is forgotten.
	silentReader = 30 * time.Second
	// passWithin is for how long the rest waits for the first bytes to reach a reader.
	passWithin = 5 * time.Millisecond
	// lookEvery is how often a session looks for what is silent.
	lookEvery = 5 * time.Second
)

// wake has run look again.
func (s *fetchSession) wake() {
	select {
	case s.event <- struct{}{}:
	default:
	}
}

// tell wakes everybody who waits for bytes; the caller holds mu.
func (s *fetchSession) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// join finds the session for a request or begins one. The caller has found that
// no write of the object is under way.
func (r *remotes) join(q *fetchRequest, b *remoteBucket, g slot.Reading, base *core.Record) (*fetchSession, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.life == nil {
		return nil, errStopping
	}
	name := objectName{q.bucket, q.key}
	for _, s := range r.sessions[name] {
		if s.suits(q) && s.enter(q.reader) {
			return s, nil
		}
	}
	if q.version != "" && q.keep && q.off == q.began {
		// Somebody has asked the remote: what others fetch is out of date.
		for _, s := range r.sessions[name] {
			s.stale.Store(true)
		}
	}
	r.last++
	s := &fetchSession{
		r: r, number: r.last, name: name, bucket: b, reading: g, pinned: q.version, base: base, keep: q.keep, beside: !q.keep,
		event: make(chan struct{}, 1), opened: make(chan struct{}), passed: make(chan struct{}), changed: make(chan struct{}),
		blocks: map[int]*block{}, watches: map[*watch]bool{}, readers: map[uint64]core.Instant{q.reader: r.node.clock.Boot()},
	}
	r.sessions[name] = append(r.sessions[name], s)
	r.numbers[s.number] = s
	r.count.Add(1)
	s.life, s.cancel = context.WithCancel(r.node.countFor(r.life, q.job))
	r.group.Go(func() { s.run(q.off, q.end) })
	return s, nil
}

// numbered finds the session that answered a reader before.
func (r *remotes) numbered(q *fetchRequest) *fetchSession {
	if q.session == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.numbers[q.session]
	if s == nil || s.name != (objectName{q.bucket, q.key}) || q.version != "" && !s.brings(q.version) || !s.enter(q.reader) {
		return nil
	}
	return s
}

// wrong returns why the session that answered a reader before was broken off, if
// its bytes were wrong: no other session may go on for the reader, as if they had
// been right.
func (r *remotes) wrong(q *fetchRequest) error {
	if q.session == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	name := objectName{q.bucket, q.key}
	if b, ok := r.broken[q.session]; ok && b.name == name {
		return b.err
	}
	s := r.numbers[q.session]
	if s == nil || s.name != name {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drop {
		return s.err
	}
	return nil
}

// remember keeps why a session was broken off; the caller holds r.mu.
func (r *remotes) remember(s *fetchSession) {
	now := r.node.clock.Boot()
	for number, b := range r.broken {
		if now.Sub(b.at) > keepBroken {
			delete(r.broken, number)
		}
	}
	r.broken[s.number] = brokenSession{s.name, s.err, now}
}

// suits says whether a request may be answered by the session. One that asks for
// any version gets none from before a write.
func (s *fetchSession) suits(q *fetchRequest) bool {
	if q.version == "" {
		return s.pinned == "" && !s.stale.Load()
	}
	return s.beside == !q.keep && s.brings(q.version)
}

// brings says whether the session is known to bring a version.
func (s *fetchSession) brings(v core.RemoteVersion) bool {
	if s.pinned != "" {
		return s.pinned == v
	}
	select {
	case <-s.opened:
		return remoteVersion(&s.rec) == v
	default:
		return false
	}
}

// enter adds a reader, unless the session has ended.
func (s *fetchSession) enter(reader uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.err != nil {
		return false
	}
	if len(s.readers) == 0 && s.sum.on {
		s.tell() // somebody to be told what the whole is
	}
	s.readers[reader] = s.r.node.clock.Boot()
	return true
}

// pass notes that a reader has its first bytes.
func (s *fetchSession) pass() { s.passedOnce.Do(func() { close(s.passed) }) }

// leave removes a reader.
func (s *fetchSession) leave(reader uint64) {
	s.pass()
	s.mu.Lock()
	delete(s.readers, reader)
	s.mu.Unlock()
	s.wake()
}

// end ends the session unless somebody came meanwhile.
func (s *fetchSession) end() bool {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && len(s.readers) > 0 {
		return false
	}
	s.ended = true
	s.tell()
	all := s.r.sessions[s.name]
	kept := make([]*fetchSession, 0, len(all))
	for _, x := range all {
		if x != s {
			kept = append(kept, x)
		}
	}
	if s.r.sessions[s.name] = kept; len(kept) == 0 {
		delete(s.r.sessions, s.name)
	}
	delete(s.r.numbers, s.number)
	if s.drop {
		s.r.remember(s)
	}
	s.r.count.Add(-1)
	return true
}

// run leads the session from its first request, for the bytes from off to end, to
// its end.
func (s *fetchSession) run(off, end int64) {
	stop := context.AfterFunc(s.life, func() { s.fail(errStopping, false) })
	defer func() {
		stop()
		s.cancel()
		s.fetches.Wait()
		s.giveBack()
	}()
	s.fetches.Go(func() { s.open(off, end) })
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for !s.step() {
		select {
		case <-s.event:
		case <-tick.C:
			s.forgetSilent()
			s.breakOff()
		}
	}
}

// step does what is to be done, and says whether the session has ended.
func (s *fetchSession) step() (ended bool) {
	for {
		s.mu.Lock()
		failed, drop := s.err != nil, s.drop
		batch := s.batch()
		due := len(batch) == 0 && s.commitDue()
		quiet := len(batch) == 0 && len(s.readers) == 0 && !s.active()
		s.mu.Unlock()
		switch {
		case failed:
			s.conclude(drop)
			return s.end()
		case len(batch) > 0:
			s.store(batch)
		case due:
			s.commit()
		case quiet:
			if s.end() {
				return true
			}
		default:
			return false
		}
	}
}

// active says whether blocks are on their way, or to be summed; the caller holds
// mu. Without readers those that have not begun are given up.
func (s *fetchSession) active() bool {
	active := s.sum.on && s.keep && s.whole()
	for _, b := range s.blocks {
		switch {
		case !b.full && b.buf == nil && !b.stored && len(s.readers) == 0:
			b.cancel()
			s.remove(b)
		case !b.full, s.sum.on && b.index == s.sum.next, b.users > 0:
			active = true
		}
	}
	return active
}

// forgetSilent removes readers that have not been heard of.
func (s *fetchSession) forgetSilent() {
	now := s.r.node.clock.Boot()
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, at := range s.readers {
		if now.Sub(at) > silentReader {
			delete(s.readers, id)
		}
	}
}

// fail ends the session with an error for all readers. With drop what was kept
// of it goes as well.
func (s *fetchSession) fail(err error, drop bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && !s.ended {
		s.err, s.drop = err, drop
		s.tell()
		s.wake()
	}
}

// giveBack returns the memory of all blocks, after the last fetch has ended.
func (s *fetchSession) giveBack() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.blocks {
		s.remove(b)
	}
}

// remove takes a block out of the session; its memory is given back by who uses
// it last. The caller holds mu, as in what follows.
func (s *fetchSession) remove(b *block) {
	if !b.gone {
		b.gone = true
		delete(s.blocks, b.index)
	}
	if b.users == 0 && b.buf != nil {
		s.r.memory.setBusy(b)
		s.r.memory.release(b.buf)
		b.buf = nil
	}
}

// use keeps a block's bytes where they are until done.
func (s *fetchSession) use(b *block) {
	b.users++
	s.r.memory.setBusy(b)
}

// done ends the use of a block.
func (s *fetchSession) done(b *block) {
	if b.users--; b.users == 0 {
		s.settle(b)
	}
}

// settle decides what becomes of a block that nobody uses.
func (s *fetchSession) settle(b *block) {
	switch {
	case b.users > 0:
	case b.gone || !b.full || b.stored && s.summed(b):
		s.remove(b)
	case s.keep && !b.stored:
		s.wake() // it is to be stored
	case s.sum.on && b.index == s.sum.next: // it is about to be summed
	case !s.r.memory.setIdle(b):
		s.forget(b)
	}
}

// forget drops a block that may be fetched again.
func (s *fetchSession) forget(b *block) {
	if !s.summed(b) {
		s.sum.came[b.index] = true
	}
	s.remove(b)
}

// dropIdle is forget for the memory, which others wait for.
func (s *fetchSession) dropIdle(b *block) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.users == 0 && !b.gone {
		s.forget(b)
	}
}

// size is the object's; the session is open.
func (s *fetchSession) size() int64 { return s.rec.Size }

// length is that of a block.
func (s *fetchSession) length(i int) int64 {
	return min(s.block, s.size()-int64(i)*s.block)
}

// String names the session's object in messages.
func (s *fetchSession) String() string {
	return fmt.Sprintf("%s/%s", s.bucket.Name, s.name.key)
}
