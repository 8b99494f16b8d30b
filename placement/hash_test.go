package placement

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/zeebo/xxh3"

	"github.com/shoalstore/shoal/core"
)

// SlotOf is part of the format on disk: these values must never change.
func TestSlotOfGolden(t *testing.T) {
	if got, want := xxh3.HashString(""), uint64(0x2d06800538d394c2); got != want {
		t.Fatalf("xxh3 of nothing: got %x, want %x", got, want)
	}
	for _, c := range []struct {
		bucket core.BucketID
		key    string
		slots  int
		want   core.SlotID
	}{
		{1, "a", 4096, 1907},
		{2, "a", 4096, 3287},
		{1, "b", 4096, 789},
		{0, "job-1", 4096, 2422},
		{7, "train/0001.tar", 4096, 198},
		{7, "train/0001.tar", 64, 6},
		{7, "train/0001.tar", 1000, 398},
		{1 << 31, strings.Repeat("x", 128), 4096, 435},
		{1 << 31, strings.Repeat("x", 129), 4096, 2854},
		{9, strings.Repeat("é", 512), 4096, 1760},
		{9, strings.Repeat("k", 1025), 4096, 1172},
		{9, "\x00", 4096, 1518},
	} {
		if got := SlotOf(c.bucket, c.key, c.slots); got != c.want {
			t.Errorf("SlotOf(%d, %.20q, %d) = %d, want %d", c.bucket, c.key, c.slots, got, c.want)
		}
	}
}

// The short and the long way of hashing a key must agree with the definition.
func TestSlotOfIsTheHashOfBucketAndKey(t *testing.T) {
	for n := range 1100 {
		key := strings.Repeat("ab", n/2+1)[:n]
		want := core.SlotID(xxh3.Hash(append([]byte{0x78, 0x56, 0x34, 0x12}, key...)) % 4096)
		if got := SlotOf(0x12345678, key, 4096); got != want {
			t.Fatalf("key of %d bytes: slot %d, want %d", n, got, want)
		}
	}
}

// Nodes of one cluster must propose the same places, whatever their build.
func TestPlacesGolden(t *testing.T) {
	m := initial(t, spec{nodes: 5, disks: 3, zones: 2, weight: func(n, d int) float64 { return float64(1 + n + d) }})
	p := New(m)
	var b strings.Builder
	for i := range 6 {
		fmt.Fprintln(&b, p.Slot(core.SlotID(i), 3), p.Shards(3, fmt.Sprintf("key-%d", i), policy("ec-4+2", core.DomainNode)))
	}
	const want = `[6 13 12] [14 10 7 5 3 12]
[11 3 13] [14 10 6 3 9 12]
[10 14 4] [6 3 15 11 9 10]
[6 14 9] [7 12 13 6 3 5]
[12 15 6] [11 15 9 6 3 12]
[7 4 3] [15 6 8 12 2 5]
`
	if b.String() != want {
		t.Errorf("places changed; got\n%s", b.String())
	}
}

// The order in which the map lists things, or is built, does not matter.
func TestPlacesDoNotDependOnNumbers(t *testing.T) {
	a := initial(t, spec{nodes: 5, disks: 3})
	var nodes []core.Node
	var disks []core.Disk
	for i := range 5 {
		n, d := makeNode(4-i, spec{disks: 3})
		nodes, disks = append(nodes, n), append(disks, d...)
	}
	slices.Reverse(disks)
	b, err := Initial("c2", 4096, 3, nodes, disks, a.Voters, t0)
	if err != nil {
		t.Fatal(err)
	}
	uuids := func(m *core.Map, l []core.DiskID) (out []string) {
		for _, d := range l {
			out = append(out, m.Disk(d).UUID)
		}
		return out
	}
	pa, pb := New(a), New(b)
	for i := range 200 {
		if x, y := uuids(a, pa.Slot(core.SlotID(i), 3)), uuids(b, pb.Slot(core.SlotID(i), 3)); !slices.Equal(x, y) {
			t.Fatalf("slot %d: %v and %v", i, x, y)
		}
	}
}

func TestCost(t *testing.T) {
	for _, h := range []uint64{0, 1, math.MaxUint64} {
		if u := unit(h); u <= 0 || u >= 1 {
			t.Errorf("hash %x maps to %v, outside (0, 1)", h, u)
		}
	}
	// The cost is exponential with the weight as its rate: mean 1/w, and
	// half of the values below ln 2 / w.
	const n, w = 200000, 4.0
	sum, below := 0.0, 0
	for i := range uint64(n) {
		c := cost(slotItem(core.SlotID(i)), "4b0c2f1e-7a5d-4c1a-9d3e-0f1e2d3c4b5a", w)
		sum += c
		if c < math.Ln2/w {
			below++
		}
	}
	if mean := sum / n; math.Abs(mean*w-1) > 0.01 {
		t.Errorf("mean cost %v, want %v", mean, 1/w)
	}
	if f := float64(below) / n; math.Abs(f-0.5) > 0.005 {
		t.Errorf("%v of the costs lie below the median, want 0.5", f)
	}
}

func BenchmarkSlotOf(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		SlotOf(7, "train/images/000000123456.jpg", 4096)
	}
}
