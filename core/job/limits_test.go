package job

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestRateLimit has the nodes of a cluster do a job's objects as fast as its
// bounds let them: together they stay below them from the first second on.
func TestRateLimit(t *testing.T) {
	const nodes, size = 5, 10_000
	for name, spec := range map[string]Spec{
		"objects": {ObjectRate: 100},
		"bytes":   {ByteRate: 100 * size},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				var done [nodes]int
				for i := range nodes {
					l := newLimits(&spec, nodes)
					go func() {
						for l.wait(ctx, size) == nil {
							done[i]++
						}
					}()
				}
				<-ctx.Done()
				synctest.Wait()
				sum := 0
				for _, n := range done {
					sum += n
				}
				if sum < 250 || sum > 330 {
					t.Errorf("got %d objects in 3 s, want about 300", sum)
				}
			})
		})
	}
}
