package core

import (
	"context"
	"time"
)

// Instant is a node's own time in nanoseconds since an arbitrary origin. It
// never goes back and counts time spent suspended (CLOCK_BOOTTIME); instants
// of two nodes or two boots are not comparable.
type Instant int64

// Add returns the instant d later.
func (t Instant) Add(d time.Duration) Instant { return t + Instant(d) }

// Sub returns the time from u to t.
func (t Instant) Sub(u Instant) time.Duration { return time.Duration(t - u) }

// Clock is the passage of time, faked in tests.
type Clock interface {
	// Now is wall-clock time.
	Now() time.Time
	// Boot is the node's own time; see [Instant].
	Boot() Instant
	// Wait returns nil after d, or ctx's error as soon as it ends.
	Wait(ctx context.Context, d time.Duration) error
}
