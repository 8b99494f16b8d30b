package remote

import (
	"slices"
	"testing"

	"github.com/shoalstore/shoal/core"
)

func TestPlanParts(t *testing.T) {
	s3 := core.RemoteAbilities{PartSize: 5 << 20, MaxParts: 10_000}
	const mib = 1 << 20
	for _, c := range []struct {
		name  string
		size  int64
		came  []int64
		a     core.RemoteAbilities
		count int
		first int64
	}{
		{"small", mib, nil, s3, 0, 0},
		{"empty", 0, nil, s3, 0, 0},
		{"at the limit", onePut, nil, s3, 0, 0},
		{"beyond the limit", onePut + 1, nil, s3, 3, usualPart},
		{"no uploads", 1 << 40, nil, core.RemoteAbilities{}, 0, 0},
		{"large parts only", 100 * mib, nil, core.RemoteAbilities{PartSize: 64 * mib, MaxParts: 10}, 2, 64 * mib},
		{"few parts only", 100 * mib, nil, core.RemoteAbilities{MaxParts: 3}, 3, 34 * mib},
		{"5 TiB", 5 << 40, nil, s3, 9987, 525 * mib},
		{"the client's", 11 * mib, []int64{5 * mib, 5 * mib, mib}, s3, 3, 5 * mib},
		{"the client's one", mib, []int64{mib}, s3, 1, mib},
		{"the client's are too small", 40 * mib, []int64{8 * mib, 32 * mib}, core.RemoteAbilities{PartSize: 16 * mib, MaxParts: 100}, 3, 16 * mib},
		{"the client's are too many", 40 * mib, []int64{10 * mib, 10 * mib, 20 * mib}, core.RemoteAbilities{MaxParts: 2}, 2, 20 * mib},
		{"the client's do not add up", 11 * mib, []int64{5 * mib, 5 * mib}, s3, 0, 0},
	} {
		got := PlanParts(&core.Record{Size: c.size, Parts: c.came}, c.a)
		var sum int64
		for _, n := range got {
			sum += n
		}
		if len(got) != c.count || c.count > 0 && (got[0] != c.first || sum != c.size || slices.Max(got) != got[0] && c.came == nil) {
			t.Errorf("%s: %d parts, the first of %v, want %d of %d", c.name, len(got), got[:min(1, len(got))], c.count, c.first)
		}
	}
}
