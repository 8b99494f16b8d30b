package shardio

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/kofn"
)

// Rank says how much good is expected of a shard; the lower the better.
type Rank int

// The ranks. A shard only ever gets worse within one reader, but one that is
// merely worse is asked again where the better ones do not suffice: damage may
// be in one block only, and an unreachable node may be back.
const (
	Good   Rank = iota
	Slow        // lost against others, by more than the hedge
	Faulty      // returned an error
	Absent      // has no store
)

// Shards are the shards of an extent, opened when they are first needed and
// shared by all readers of the extent.
type Shards struct {
	env     *Env
	extent  core.Extent
	size    int64 // of each shard
	onFault func(int, error)
	derive  func() (context.Context, context.CancelFunc) // for what is to last
	ended   func() error                                 // of that time
	shards  []shard
	order   []int

	mu     sync.Mutex
	closed bool
}

type shard struct {
	store core.Store

	// The rest is guarded by mu of Shards.
	rank    Rank
	fault   error         // the latest
	current *openShard    // nil: not open
	opening chan struct{} // closed when the opening that is under way has ended
}

// openShard is an open reader. It is closed when it is no more the current one
// and its last user is gone.
type openShard struct {
	r      core.ShardReader
	now    core.NowReader // r, if it is one
	cancel context.CancelFunc
	users  int
	stale  bool
}

// NewShards returns the shards of r.Extent, each of that size, not yet opened.
// What is opened lasts until Close, or until ctx ends. Order lists the shards
// by preference.
func (e *Env) NewShards(ctx context.Context, r core.ReadSpec, size int64, order []int) *Shards {
	s := &Shards{
		env: e, extent: r.Extent, size: size, onFault: r.OnFault, order: order,
		derive: func() (context.Context, context.CancelFunc) { return context.WithCancel(ctx) },
		ended:  ctx.Err,
		shards: make([]shard, len(r.Src)),
	}
	for i, st := range r.Src {
		s.shards[i].store = st
		if st == nil {
			s.shards[i].rank, s.shards[i].fault = Absent, errNoStore
		}
	}
	return s
}

var errNoStore = fmt.Errorf("no disk that has it can be reached: %w", core.ErrUnavailable)

// Order returns the shards that have a store, the best first: by rank, then by
// the preference given to NewShards.
func (s *Shards) Order() []int {
	ranks := make([]Rank, len(s.shards))
	s.mu.Lock()
	for i := range s.shards {
		ranks[i] = s.shards[i].rank
	}
	s.mu.Unlock()
	order := slices.DeleteFunc(slices.Clone(s.order), func(i int) bool { return ranks[i] == Absent })
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(ranks[a], ranks[b]) })
	return order
}

// Rank returns the shard's rank.
func (s *Shards) Rank(i int) Rank {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shards[i].rank
}

// Demote notes that the shards were too slow.
func (s *Shards) Demote(slow []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range slow {
		s.shards[i].rank = max(s.shards[i].rank, Slow)
	}
}

// Best returns the shard that comes first in Order, -1 if there is none.
func (s *Shards) Best() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	best := -1
	for _, i := range s.order {
		if r := s.shards[i].rank; r != Absent && (best < 0 || r < s.shards[best].rank) {
			best = i
		}
	}
	return best
}

// OpenSome opens k shards, the best that it can get.
func (s *Shards) OpenSome(ctx context.Context, k int) error {
	if s.openNow(k) { //nolint:contextcheck // the shards stay open after the call
		return nil
	}
	out, ok, err := s.env.First(ctx, k, s.Order(), func(ctx context.Context, i int) error {
		o, err := s.acquire(ctx, i)
		if err == nil {
			s.release(o)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("open extent %x: %w", s.extent.ID, err)
	}
	s.Note(out)
	if !ok {
		return s.Unreadable()
	}
	return nil
}

// openNow opens the first k shards if that takes no waiting.
func (s *Shards) openNow(k int) bool {
	for _, i := range s.order[:min(k, len(s.order))] {
		sh := &s.shards[i]
		opener, ok := sh.store.(core.NowOpener)
		if !ok {
			return false
		}
		s.mu.Lock()
		free := sh.current == nil && sh.opening == nil && sh.rank == Good && !s.closed
		s.mu.Unlock()
		if !free {
			return false
		}
		life, cancel := s.derive()
		r, ok := opener.OpenNow(life, s.extent.Shard(i))
		if !ok {
			cancel()
			return false
		}
		o := newOpenShard(r, cancel)
		if r.Size() != s.size {
			o.close()
			return false
		}
		s.mu.Lock()
		if free = sh.current == nil && !s.closed; free {
			sh.current = o
		}
		s.mu.Unlock()
		if !free {
			o.close()
		}
	}
	return len(s.order) >= k
}

// ReadNow fills p from a shard that is open and in order, if that takes no
// waiting. If it returns false nothing is known.
func (s *Shards) ReadNow(i int, p []byte, off int64) bool {
	s.mu.Lock()
	sh := &s.shards[i]
	o := sh.current
	if s.closed || o == nil || o.now == nil || sh.rank != Good {
		s.mu.Unlock()
		return false
	}
	o.users++
	s.mu.Unlock()
	defer s.release(o)
	return o.now.ReadNow(p, off)
}

// Section returns the file that holds a shard which is open and in order; see
// [core.Sectioner]. The shard must stay open meanwhile.
func (s *Shards) Section(i int) (core.Section, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := &s.shards[i]
	if s.closed || sh.current == nil || sh.rank != Good {
		return core.Section{}, false
	}
	if sec, is := sh.current.r.(core.Sectioner); is {
		return sec.Section()
	}
	return core.Section{}, false
}

// ReadAt reads len(p) bytes of a shard, all or an error. An error that is not
// merely the end of ctx makes the shard faulty.
func (s *Shards) ReadAt(ctx context.Context, i int, p []byte, off int64) error {
	o, err := s.acquire(ctx, i)
	if err != nil {
		return err
	}
	defer s.release(o)
	began := s.env.Clock.Now()
	n, err := o.r.ReadAt(ctx, p, off)
	if n == len(p) && (err == nil || errors.Is(err, io.EOF)) {
		s.env.delay.Observe(s.env.Clock.Now().Sub(began))
		return nil
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case s.ended() != nil:
		return s.ended()
	case err == nil || errors.Is(err, io.EOF):
		err = fmt.Errorf("%d bytes at %d are missing: %w", len(p)-n, off, core.ErrCorrupt)
	}
	if !errors.Is(err, core.ErrCorrupt) {
		s.retire(i, o)
	}
	return s.fault(i, err)
}

// Note ranks the shards by what came of asking them.
func (s *Shards) Note(out kofn.Outcome) {
	s.Demote(out.Late)
	for _, i := range out.Silent {
		s.Silent(i)
	}
}

// Silent notes that a shard was given up because it did not answer.
func (s *Shards) Silent(i int) { _ = s.fault(i, kofn.ErrSilent(s.env.StallAfter)) }

// fault makes a shard faulty and tells of it at the first time.
func (s *Shards) fault(i int, err error) error {
	s.mu.Lock()
	sh := &s.shards[i]
	first := sh.rank < Faulty
	sh.rank, sh.fault = Faulty, err
	s.mu.Unlock()
	if first && s.onFault != nil {
		s.onFault(i, err)
	}
	return err
}

// Unreadable returns the error of an extent of which too few shards can be
// read: ErrCorrupt if no disk's return would change that, else ErrUnavailable.
// The causes are only spelled out: that a shard is not found does not mean
// that the object is not.
func (s *Shards) Unreadable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	corrupt := 0
	var why []string
	for i := range s.shards {
		sh := &s.shards[i]
		if sh.rank < Faulty {
			continue
		}
		if errors.Is(sh.fault, core.ErrCorrupt) {
			corrupt++
		}
		why = append(why, fmt.Sprintf("shard %d on disk %d: %v", i, s.extent.Places[i].Disk, sh.fault))
	}
	class := core.ErrUnavailable
	if corrupt > s.extent.Scheme.M {
		class = core.ErrCorrupt
	}
	return fmt.Errorf("read extent %x: fewer than %d of %d shards are readable (%s): %w",
		s.extent.ID, s.extent.Scheme.MinRead(), len(s.shards), strings.Join(why, "; "), class)
}

// Damaged says whether some shard was found to be damaged. The damage may be in
// one block only, so that smaller pieces of the extent can still be read.
func (s *Shards) Damaged() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.shards, func(sh shard) bool { return errors.Is(sh.fault, core.ErrCorrupt) })
}

// Close closes the shards, each once its last read has ended.
func (s *Shards) Close() {
	s.mu.Lock()
	s.closed = true
	var idle []*openShard
	for i := range s.shards {
		if o := s.shards[i].current; o != nil {
			s.shards[i].current = nil
			o.stale = true
			if o.users == 0 {
				idle = append(idle, o)
			}
		}
	}
	s.mu.Unlock()
	for _, o := range idle {
		o.close()
	}
}

func newOpenShard(r core.ShardReader, cancel context.CancelFunc) *openShard {
	o := &openShard{r: r, cancel: cancel}
	o.now, _ = r.(core.NowReader)
	return o
}

// close ends the reader before its context: a stream that is closed in order
// leaves its connection to the next one, one that is cancelled does not.
func (o *openShard) close() {
	_ = o.r.Close()
	o.cancel()
}

// acquire returns the shard opened; the caller must release it.
func (s *Shards) acquire(ctx context.Context, i int) (*openShard, error) {
	sh := &s.shards[i]
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return nil, fmt.Errorf("extent %x is closed: %w", s.extent.ID, core.ErrInvalid)
		}
		if o := sh.current; o != nil {
			o.users++
			s.mu.Unlock()
			return o, nil
		}
		if opening := sh.opening; opening != nil {
			s.mu.Unlock()
			select {
			case <-opening:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			continue
		}
		opening := make(chan struct{})
		sh.opening = opening
		s.mu.Unlock()

		o, err := s.open(ctx, i)

		s.mu.Lock()
		sh.opening = nil
		close(opening)
		if err == nil {
			o.users = 1
			if s.closed {
				o.stale = true
			} else {
				sh.current = o
			}
		}
		s.mu.Unlock()
		switch {
		case err == nil:
			return o, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case s.ended() != nil:
			return nil, s.ended()
		}
		return nil, s.fault(i, err)
	}
}

// open opens a shard for the life of s, though it gives up when ctx ends.
func (s *Shards) open(ctx context.Context, i int) (*openShard, error) {
	life, cancel := s.derive()
	stop := context.AfterFunc(ctx, cancel)
	r, err := s.shards[i].store.Open(life, s.extent.Shard(i)) //nolint:contextcheck // the shard stays open after the call
	if err != nil {
		stop()
		cancel()
		return nil, fmt.Errorf("open: %w", err)
	}
	o := newOpenShard(r, cancel)
	if !stop() { // ctx has ended, and life with it
		o.close()
		return nil, ctx.Err()
	}
	if r.Size() != s.size {
		o.close()
		return nil, fmt.Errorf("open: size is %d, not %d: %w", r.Size(), s.size, core.ErrCorrupt)
	}
	return o, nil
}

// retire takes an open shard that failed out of use.
func (s *Shards) retire(i int, o *openShard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shards[i].current == o {
		s.shards[i].current = nil
	}
	o.stale = true
}

func (s *Shards) release(o *openShard) {
	s.mu.Lock()
	o.users--
	last := o.stale && o.users == 0
	s.mu.Unlock()
	if last {
		o.close()
	}
}
