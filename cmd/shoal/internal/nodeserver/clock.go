package nodeserver

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalstore/shoal/core"
)

// systemClock is the machine's time.
type systemClock struct{}

var _ core.Clock = systemClock{}

// Now is part of core.Clock.
func (systemClock) Now() time.Time { return time.Now() }

// Boot is CLOCK_BOOTTIME, which goes on while the machine sleeps.
func (systemClock) Boot() core.Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("clock_gettime(CLOCK_BOOTTIME): " + err.Error())
	}
	return core.Instant(ts.Nano())
}

// Wait is part of core.Clock.
func (systemClock) Wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// SystemClock is the machine's time.
func SystemClock() core.Clock { return systemClock{} }
