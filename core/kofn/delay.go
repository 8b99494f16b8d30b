package kofn

import (
	"sync/atomic"
	"time"
)

// Delay is an adaptive time for hedging: a multiple of the mean time that
// recent answers took, within bounds. The lower bound is far above what an
// answer from memory or an idle disk takes, so hedges are rare while all is
// well; the mean rises when everything is slow, so an overloaded cluster is not
// loaded further by hedges. The zero Delay is ready to use.
type Delay struct {
	mean atomic.Int64 // of recent answers, in nanoseconds
}

// The bounds of a Delay and its ratio to the mean.
const (
	MinDelay   = 20 * time.Millisecond
	MaxDelay   = time.Second
	delayRatio = 4
	delayDecay = 16 // an answer moves the mean by a sixteenth
)

// Observe tells of an answer that took d.
func (d *Delay) Observe(took time.Duration) {
	mean := d.mean.Load()
	// A lost update among concurrent ones is one sample fewer.
	d.mean.CompareAndSwap(mean, mean+(int64(took)-mean)/delayDecay)
}

// Get returns the time after which an answer is late.
func (d *Delay) Get() time.Duration {
	return min(max(MinDelay, delayRatio*time.Duration(d.mean.Load())), MaxDelay)
}
