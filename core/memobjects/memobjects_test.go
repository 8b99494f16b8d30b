package memobjects

import (
	"context"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/objectstest"
)

// wall is the machine's clock.
type wall struct{}

func (wall) Now() time.Time                                  { return time.Now() }
func (wall) Boot() core.Instant                              { return core.Instant(time.Now().UnixNano()) }
func (wall) Wait(ctx context.Context, _ time.Duration) error { <-ctx.Done(); return ctx.Err() }

func TestObjects(t *testing.T) {
	objectstest.Run(t, func(*testing.T) core.Objects { return New(wall{}) })
}
