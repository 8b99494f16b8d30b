package natsbus

import (
	"testing"
	"time"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/bus/bustest"
)

// ready makes the bus's first generation.
func (b *testBus) ready() {
	b.t.Helper()
	if err := b.client("init").Import(within(b.t, 30*time.Second), bus.Snapshot{}, len(b.members)); err != nil {
		b.t.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	bustest.Run(t, func(t *testing.T) (bus.Bus, bus.Bus) {
		b := newTestBus(t, 1)
		b.start()
		b.ready()
		return b.client("a"), b.client("b")
	})
}
