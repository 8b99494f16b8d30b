package ec

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/kofn"
	"github.com/shoalstore/shoal/core/shardio"
)

const maxWidth = core.MaxData + core.MaxParity

// A gathering brings given spans of some shards into memory. It reads them from
// where they are; those that cannot be had so, or not in time, it rebuilds from
// the same range of K others. Each event (a read ended, the time of the hedge
// has passed) changes the state below, and launch then starts what is missing.
type gathering struct {
	x     *extent
	n     int
	order []int // shards that have a store, the best first

	need   [maxWidth]span  // what is wanted
	have   [maxWidth]piece // what is here
	busy   [maxWidth]*read // what is under way
	shun   [maxWidth]bool  // has a bad rank: asked only where the others do not suffice
	late   [maxWidth]bool  // its read takes longer than the hedge
	failed [maxWidth]bool  // not asked any more
}

// piece is a span of a shard in memory.
type piece struct {
	span
	buf *shardio.Buffer
}

// bytes returns a part of the piece.
func (p piece) bytes(s span) []byte { return p.buf.B[s.lo-p.lo : s.hi-p.lo] }

// read is a read under way. Its buffer belongs to whoever moves state from
// reading: its goroutine when done, or the gathering when it gives it up.
type read struct {
	piece
	state atomic.Int32
}

const (
	reading int32 = iota
	done
	abandoned
)

// gather returns the spans that need names, by shard.
func (x *extent) gather(ctx context.Context, need []span) (*gathering, error) {
	g := &gathering{x: x, n: len(need), order: x.shards.Order()}
	copy(g.need[:], need)
	for i := range need {
		g.shun[i] = x.shards.Rank(i) != shardio.Good
	}
	if g.now() {
		return g, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	race := x.c.env.NewRace(g.n)
	defer race.Close()
	err := g.run(ctx, race)
	g.abandon()
	if err != nil {
		g.release()
		return nil, err
	}
	return g, nil
}

// now takes what can be read without waiting and says whether that was all.
func (g *gathering) now() bool {
	all := true
	for i := range g.n {
		s := g.need[i]
		if s.empty() {
			continue
		}
		buf := g.x.c.env.Pool.Get(s.len())
		if g.x.shards.ReadNow(i, buf.B, s.lo) {
			g.have[i] = piece{s, buf}
			continue
		}
		g.x.c.env.Pool.Put(buf)
		all = false
	}
	return all
}

func (g *gathering) run(ctx context.Context, race *kofn.Race) error {
	for {
		missing := g.missing()
		if missing.empty() {
			return nil
		}
		if g.suffices(missing) {
			return g.rebuild(missing)
		}
		if !g.launch(ctx, race) {
			if err := ctx.Err(); err != nil {
				return err
			}
			return g.x.shards.Unreadable()
		}
		event, res, err := race.Next(ctx)
		if err != nil {
			return err
		}
		switch event {
		case kofn.Answer:
			g.answer(res)
		case kofn.Late:
			for i := range g.n {
				g.late[i] = g.late[i] || g.busy[i] != nil
			}
		case kofn.Silent:
			for i := range g.n {
				if g.busy[i] != nil {
					g.giveUp(i)
					g.failed[i] = true
					g.x.shards.Silent(i)
				}
			}
		}
	}
}

func (g *gathering) lacks(i int) bool { return !g.have[i].covers(g.need[i]) }

// missing is the hull of the spans that are not here yet.
func (g *gathering) missing() (s span) {
	for i := range g.n {
		if g.lacks(i) {
			s = s.hull(g.need[i])
		}
	}
	return s
}

// launch starts the reads by which the gathering can end, if they are not under
// way. It returns false if there are none.
func (g *gathering) launch(ctx context.Context, race *kofn.Race) bool {
	var lost span // what is to be rebuilt
	for i := range g.n {
		if g.lacks(i) && (g.shun[i] || g.late[i] || g.failed[i]) {
			lost = lost.hull(g.need[i])
		}
	}
	for i := range g.n {
		if g.lacks(i) && !g.shun[i] && !g.failed[i] && g.busy[i] == nil {
			g.start(ctx, race, i, g.need[i].hull(lost))
		}
	}
	if lost.empty() {
		return true
	}
	sure := 0
	for i := range g.n {
		if g.have[i].covers(lost) || g.busy[i] != nil && g.busy[i].covers(lost) && !g.late[i] {
			sure++
		}
	}
	for _, i := range g.order {
		if sure < g.x.c.k && g.busy[i] == nil && !g.failed[i] && !g.have[i].covers(lost) {
			g.start(ctx, race, i, g.need[i].hull(lost))
			sure++
		}
	}
	possible, hopeless := 0, false
	for i := range g.n {
		if g.have[i].covers(lost) || g.busy[i] != nil {
			possible++
		} else if g.lacks(i) {
			hopeless = true // unless it is rebuilt
		}
	}
	return possible >= g.x.c.k || !hopeless
}

// start reads a span of a shard.
func (g *gathering) start(ctx context.Context, race *kofn.Race, i int, s span) {
	pool, shards := &g.x.c.env.Pool, g.x.shards
	r := &read{piece: piece{span: s, buf: pool.Get(s.len())}}
	g.busy[i] = r
	race.Go(ctx, i, func(ctx context.Context) error {
		err := shards.ReadAt(ctx, i, r.buf.B, r.lo)
		if !r.state.CompareAndSwap(reading, done) {
			pool.Put(r.buf)
		}
		return err
	})
}

// answer takes the result of a read.
func (g *gathering) answer(res kofn.Result) {
	i := res.Index
	r := g.busy[i]
	if r == nil {
		return // it was given up
	}
	g.busy[i], g.late[i] = nil, false
	if res.Err != nil {
		g.failed[i] = true
		g.x.c.env.Pool.Put(r.buf)
		return
	}
	g.x.c.env.Pool.Put(g.have[i].buf)
	g.have[i] = r.piece
}

// suffices says whether what is missing can be computed.
func (g *gathering) suffices(missing span) bool {
	here := 0
	for i := range g.n {
		if g.have[i].covers(missing) {
			here++
		}
	}
	return here >= g.x.c.k
}

// rebuild computes all that is missing.
func (g *gathering) rebuild(missing span) error {
	var units [maxWidth][]byte
	var required [maxWidth]bool
	var bufs [maxWidth]*shardio.Buffer
	for i := range g.n {
		if g.have[i].covers(missing) {
			units[i] = g.have[i].bytes(missing)
		} else if g.lacks(i) {
			bufs[i] = g.x.c.env.Pool.Get(missing.len())
			units[i], required[i] = bufs[i].B[:0], true
		}
	}
	err := g.x.c.rs.ReconstructSome(units[:g.n], required[:g.n])
	for i, b := range bufs {
		switch {
		case b == nil:
		case err != nil:
			g.x.c.env.Pool.Put(b)
		default:
			g.x.c.env.Pool.Put(g.have[i].buf)
			g.have[i] = piece{missing, b}
		}
	}
	if err != nil {
		return fmt.Errorf("rebuild extent %x: %w", g.x.spec.Extent.ID, err)
	}
	return nil
}

// giveUp leaves a read to its goroutine.
func (g *gathering) giveUp(i int) {
	r := g.busy[i]
	g.busy[i] = nil
	if !r.state.CompareAndSwap(reading, abandoned) {
		g.x.c.env.Pool.Put(r.buf)
	}
}

// abandon gives up the reads that are under way, and notes which were late.
func (g *gathering) abandon() {
	var slow []int
	for i := range g.n {
		if g.busy[i] == nil {
			continue
		}
		g.giveUp(i)
		if g.late[i] {
			slow = append(slow, i)
		}
	}
	if len(slow) > 0 {
		g.x.shards.Demote(slow)
	}
}

// release gives the memory back.
func (g *gathering) release() {
	for i := range g.n {
		g.x.c.env.Pool.Put(g.have[i].buf)
		g.have[i] = piece{}
	}
}
