package shardio

import (
	"context"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/kofn"
)

// Options tune a coder. Only Clock must be set.
type Options struct {
	Clock core.Clock
	// StallAfter is the time without progress after which a store is given
	// up: 10 s if 0.
	StallAfter time.Duration
	// Hedge is the time that a read waits for a shard before it asks another
	// one as well. 0: adaptive, see [kofn.Delay]; below 0: never.
	Hedge time.Duration
	// InFlight is the number of chunks that a shard's writer may be behind
	// the fastest: 3 if 0. A Write keeps one chunk more in memory.
	InFlight int
	// ReadAhead is the number of windows that a reader fetches at once: 3 if
	// 0. So much of a stream is in memory.
	ReadAhead int
	// ChunkSize is about how much of an object, in bytes, is written or read
	// in one step: 1 MiB if 0, else a multiple of 4 KiB. That is enough to
	// make the cost of a step small against the bytes, and little enough to
	// stay in a core's cache with the parity.
	ChunkSize int64
}

// BlockSize is the number of bytes over which disks keep a checksum: a piece of
// which not more are damaged need not cost more.
const BlockSize = 64 << 10

// nowSize is how much is read without waiting in one step, in bytes: little
// enough to be in a core's own cache still when it is sent.
const nowSize = 256 << 10

// NowEnd is where a read without waiting that begins at lo is to end.
func NowEnd(lo int64) int64 { return (lo/nowSize + 1) * nowSize }

// Env is what the calls of one coder share.
type Env struct {
	Options
	Pool  Pool
	delay kofn.Delay
	calls sync.WaitGroup // goroutines that may outlive the call that began them
}

// NewEnv returns an Env with the defaults filled in.
func NewEnv(o Options) *Env {
	if o.StallAfter == 0 {
		o.StallAfter = 10 * time.Second
	}
	if o.InFlight == 0 {
		o.InFlight = 3
	}
	if o.ReadAhead == 0 {
		o.ReadAhead = 3
	}
	if o.ChunkSize == 0 {
		o.ChunkSize = 1 << 20
	}
	return &Env{Options: o}
}

// Wait returns once every call to a store that was given up has ended.
func (e *Env) Wait() { e.calls.Wait() }

// Patience is how long reads wait for a shard.
func (e *Env) Patience() kofn.Patience {
	p := kofn.Patience{Hedge: e.Hedge, GiveUp: e.StallAfter}
	if e.Hedge == 0 {
		p.Hedge = e.delay.Get()
	}
	return p
}

// NewRace returns a race of about n reads.
func (e *Env) NewRace(n int) *kofn.Race { return kofn.NewRace(&e.calls, e.Clock, e.Patience(), n) }

// First calls f for candidates, the best first, until k have succeeded; see
// [kofn.First].
func (e *Env) First(ctx context.Context, k int, order []int, f func(ctx context.Context, i int) error) (kofn.Outcome, bool, error) {
	return kofn.First(ctx, &e.calls, e.Clock, kofn.Plan{K: k, Order: order, Patience: e.Patience()}, f)
}
