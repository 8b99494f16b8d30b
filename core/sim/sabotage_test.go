package sim

import (
	"testing"

	"github.com/shoalstore/shoal/core/slot"
)

// TestSabotage switches off one check of the protocol at a time. Some seed must
// fail then, or the simulator would not notice if the check were broken.
func TestSabotage(t *testing.T) {
	for _, c := range []struct {
		name  string
		rules slot.Rules
		seeds int
	}{
		{"term", slot.Rules{NoTermCheck: true}, 500},
		{"all-in-sync wait", slot.Rules{NoAllInsync: true}, 500},
		{"map confirmation", slot.Rules{NoMapConfirm: true}, 500},
		{"restart wait", slot.Rules{NoRestartWait: true}, 500},
		{"lease", slot.Rules{NoLease: true}, 500},
		{"fsync", slot.Rules{NoFsync: true}, 500},
		{"reclaim check", slot.Rules{NoReclaimCheck: true}, 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := uint64(1); seed <= uint64(c.seeds); seed++ {
				if _, err := Run(Options{Seed: seed, Rules: c.rules}); err != nil {
					t.Logf("after %d seeds: %v", seed, err)
					return
				}
			}
			t.Errorf("%d seeds pass without the check", c.seeds)
		})
	}
}
