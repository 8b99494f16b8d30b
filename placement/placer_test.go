package placement

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

func policy(scheme string, d core.Domain) core.Policy {
	s, err := core.ParseScheme(scheme)
	if err != nil {
		panic(err)
	}
	return core.Policy{Scheme: s, Domain: d, ETag: "md5"}
}

// deviation returns the largest relative deviation of the counts from shares
// proportional to the weights.
func deviation[K comparable](counts map[K]int, weights map[K]float64) float64 {
	total, sum := 0, 0.0
	for k, w := range weights {
		total += counts[k]
		sum += w
	}
	worst := 0.0
	for k, w := range weights {
		want := float64(total) * w / sum
		worst = max(worst, math.Abs(float64(counts[k])-want)/want)
	}
	return worst
}

// weights returns the weights of nodes and disks.
func weights(m *core.Map) (nodes map[core.NodeID]float64, disks map[core.DiskID]float64) {
	nodes, disks = map[core.NodeID]float64{}, map[core.DiskID]float64{}
	for i := range m.Disks {
		w := weightOf(m.Node(m.Disks[i].Node), &m.Disks[i])
		nodes[m.Disks[i].Node] += w
		disks[m.Disks[i].ID] += w
	}
	return nodes, disks
}

// Slots are few, so chance alone makes their shares differ: of the 4096 x 3
// places a disk of 15 has 819 with a standard deviation of 3.1 %. Objects are
// many.
func TestBalanceOfSlots(t *testing.T) {
	for _, c := range []struct {
		name             string
		s                spec
		node, disk, owns float64 // allowed deviation
	}{
		{"5 nodes x 3 disks", spec{nodes: 5, disks: 3}, 0.05, 0.10, 0.01},
		{"3 nodes x 1 disk", spec{nodes: 3, disks: 1}, 0, 0, 0.01},
		{"12 nodes x 4 disks, 3 zones", spec{nodes: 12, disks: 4, zones: 3}, 0.10, 0.20, 0.01},
		{"disks 1:2:3", spec{nodes: 6, disks: 3, weight: func(_, d int) float64 { return float64(d + 1) }}, 0.05, 0.20, 0.01},
	} {
		m := initial(t, c.s)
		wn, wd := weights(m)
		nodes, disks, owns := map[core.NodeID]int{}, map[core.DiskID]int{}, map[core.NodeID]int{}
		for i, row := range m.Slots {
			for _, d := range row.Insync {
				disks[d]++
				nodes[m.NodeOf(d)]++
			}
			owns[m.OwnerNode(core.SlotID(i))]++
		}
		n, d, o := deviation(nodes, wn), deviation(disks, wd), deviation(owns, wn)
		t.Logf("%s: 4096 slots deviate by %.1f %% over nodes, %.1f %% over disks, owners by %.2f %%", c.name, 100*n, 100*d, 100*o)
		if n > c.node || d > c.disk || o > c.owns {
			t.Errorf("%s: deviations %.3f %.3f %.3f, want at most %.3f %.3f %.3f", c.name, n, d, o, c.node, c.disk, c.owns)
		}
	}
}

func TestBalanceOfObjects(t *testing.T) {
	const many, fewer = 100_000, 30_000
	for _, c := range []struct {
		name       string
		objects    int
		s          spec
		p          core.Policy
		node, disk float64
	}{
		{"ec-4+2, 5 nodes x 3 disks", many, spec{nodes: 5, disks: 3}, policy("ec-4+2", core.DomainNode), 0.01, 0.02},
		{"mirror-2, 5 nodes x 3 disks", fewer, spec{nodes: 5, disks: 3}, policy("mirror-2", core.DomainNode), 0.02, 0.04},
		{"none, weights 1:2:4", many, spec{nodes: 5, disks: 3, weight: func(n, d int) float64 { return float64(int(1) << ((n + d) % 3)) }}, policy("none", core.DomainNode), 0.02, 0.04},
		{"ec-8+3, 12 nodes x 4 disks, 3 zones", fewer, spec{nodes: 12, disks: 4, zones: 3}, policy("ec-8+3", core.DomainNode), 0.01, 0.05},
		{"ec-4+2 by disk, 1 node x 8 disks", fewer, spec{nodes: 1, disks: 8}, policy("ec-4+2", core.DomainDisk), 0.01, 0.01},
		{"mirror-3, disks 1:2:3", fewer, spec{nodes: 6, disks: 3, weight: func(_, d int) float64 { return float64(d + 1) }}, policy("mirror-3", core.DomainNode), 0.01, 0.03},
		// The price of distinct nodes: see the package comment.
		{"mirror-2, nodes 1:1.5:2 of 12", fewer, spec{nodes: 12, disks: 2, weight: func(n, _ int) float64 { return 1 + float64(n%3)/2 }}, policy("mirror-2", core.DomainNode), 0.05, 0.06},
		{"mirror-3, nodes 1:1.5:2 of 12", fewer, spec{nodes: 12, disks: 2, weight: func(n, _ int) float64 { return 1 + float64(n%3)/2 }}, policy("mirror-3", core.DomainNode), 0.10, 0.11},
	} {
		c.s.slots = 1
		m := initial(t, c.s)
		p := New(m)
		wn, wd := weights(m)
		nodes, disks := map[core.NodeID]int{}, map[core.DiskID]int{}
		for i := range c.objects {
			for _, d := range p.Shards(1, fmt.Sprintf("data/%07d.bin", i), c.p) {
				disks[d]++
				nodes[m.NodeOf(d)]++
			}
		}
		n, d := deviation(nodes, wn), deviation(disks, wd)
		t.Logf("%s: %d objects deviate by %.2f %% over nodes, %.2f %% over disks", c.name, c.objects, 100*n, 100*d)
		if n > c.node || d > c.disk {
			t.Errorf("%s: deviations %.4f and %.4f, want at most %.4f and %.4f", c.name, n, d, c.node, c.disk)
		}
	}
}

// checkSpread holds the domain rule and even spreading for one set of places.
func checkSpread(t *testing.T, m *core.Map, what string, places []core.DiskID, width, limit int) {
	t.Helper()
	free := map[core.NodeID]int{} // eligible disks
	zones := map[string]int{}     // eligible nodes
	for i := range m.Disks {
		d := &m.Disks[i]
		n := m.Node(d.Node)
		if d.State == core.DiskOK && n.State == core.NodeActive {
			if free[n.ID] == 0 {
				zones[n.Zone]++
			}
			free[n.ID]++
		}
	}
	possible := 0
	for _, n := range free {
		possible += min(n, limit)
	}
	onNode, inZone, seen, placed := map[core.NodeID]int{}, map[string]int{}, map[core.DiskID]bool{}, 0
	for _, d := range places {
		if d == 0 {
			continue
		}
		n := m.Node(m.NodeOf(d))
		if seen[d] || free[n.ID] == 0 || m.Disk(d).State != core.DiskOK {
			t.Fatalf("%s: disk %d of %s is not to be used (twice: %v)", what, d, n.ID, seen[d])
		}
		seen[d] = true
		placed++
		if onNode[n.ID]++; onNode[n.ID] == 1 {
			inZone[n.Zone]++
		}
	}
	if want := min(width, possible); placed != want {
		t.Fatalf("%s: %v: %d placed, want %d", what, places, placed, want)
	}
	for n, k := range onNode {
		if k > limit {
			t.Fatalf("%s: %v: %d on node %s, at most %d allowed", what, places, k, n, limit)
		}
		for o := range free {
			if k > onNode[o]+1 && onNode[o] < min(free[o], limit) {
				t.Fatalf("%s: %v: %d on node %s, but only %d on %s", what, places, k, n, onNode[o], o)
			}
		}
	}
	for z, k := range inZone {
		for o := range zones {
			if k > inZone[o]+1 && inZone[o] < zones[o] {
				t.Fatalf("%s: %v: %d nodes of zone %q, but only %d of %q", what, places, k, z, inZone[o], o)
			}
		}
	}
}

// Whatever is lost, and in whatever order, the rules hold as far as there are
// domains, for new places and for those that are reassigned.
func TestSpreadUnderLosses(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := spec{
			nodes: 1 + r.IntN(9), zones: r.IntN(4), slots: 1, clusterIDSeeds: seed,
			disksOn: func(int) int { return 1 + r.IntN(4) }, weight: func(int, int) float64 { return 1 + 9*r.Float64() },
		}
		m := initial(t, s)
		schemes := []string{"none", "mirror-2", "mirror-3", "ec-4+2", "ec-2+1", "ec-8+3", "mirror-10", "ec-16+8"}
		pol := policy(schemes[r.IntN(len(schemes))], []core.Domain{core.DomainNode, core.DomainDisk}[r.IntN(2)])
		width, limit := pol.Scheme.Width(), perNode(pol)
		current := map[string][]core.DiskID{}
		for step := range 8 {
			p := New(m)
			for k := range 20 {
				key := fmt.Sprint("k", k)
				what := fmt.Sprintf("seed %d step %d %s %s %s", seed, step, pol.Scheme, pol.Domain, key)
				places := p.Shards(1, key, pol)
				checkSpread(t, m, what, places, width, limit)
				checkSpread(t, m, what+" slot", p.Slot(core.SlotID(k), 3), 3, math.MaxInt)
				again := p.Reassign(1, key, pol, current[key], t0, 0)
				checkSpread(t, m, what+" reassigned", again, width, limit)
				checkKept(t, what, p, current[key], places, again)
				if rerun := p.Reassign(1, key, pol, again, t0, 0); !slices.Equal(rerun, again) {
					t.Fatalf("%s: reassigned twice: %v, then %v", what, again, rerun)
				}
				current[key] = again
				checkSubstitutes(t, m, what, p, key, pol, again)
			}
			m = m.Clone()
			if r.IntN(2) == 0 {
				m.Nodes[r.IntN(len(m.Nodes))].State = []core.NodeState{core.NodeDown, core.NodeActive, core.NodeDraining}[r.IntN(3)]
			} else {
				m.Disks[r.IntN(len(m.Disks))].State = []core.DiskState{core.DiskFailed, core.DiskOK, core.DiskDetached}[r.IntN(3)]
			}
		}
	}
}

// checkKept says that shards stay exactly where the proposal has their disks.
func checkKept(t *testing.T, what string, p *Placer, current, proposed, again []core.DiskID) {
	t.Helper()
	for i, d := range current {
		if d != 0 && slices.Contains(proposed, d) && again[i] != d {
			t.Fatalf("%s: shard %d moved from %d: %v -> %v, proposed %v", what, i, d, current, again, proposed)
		}
	}
	a, b := slices.Sorted(slices.Values(proposed)), slices.Sorted(slices.Values(again))
	if !slices.Equal(a, b) {
		t.Fatalf("%s: reassigned to %v, proposed %v", what, again, proposed)
	}
}

// checkSubstitutes lets one place after the other fail for good.
func checkSubstitutes(t *testing.T, m *core.Map, what string, p *Placer, key string, pol core.Policy, places []core.DiskID) {
	t.Helper()
	for shard := range places {
		var tried []core.DiskID
		for {
			d, ok := p.Substitute(1, key, pol, places, shard, tried)
			if !ok {
				break
			}
			if d == 0 || slices.Contains(tried, d) || slices.Contains(places, d) {
				t.Fatalf("%s: substitute %d for shard %d of %v, tried %v", what, d, shard, places, tried)
			}
			onNode := 0
			for i, o := range places {
				if i != shard && o != 0 && m.NodeOf(o) == m.NodeOf(d) {
					onNode++
				}
			}
			if onNode >= perNode(pol) {
				t.Fatalf("%s: substitute %d for shard %d of %v: node %s has %d already", what, d, shard, places, m.NodeOf(d), onNode)
			}
			tried = append(tried, d)
		}
		// Nothing that would have done was left out.
		for i := range m.Disks {
			d := &m.Disks[i]
			if slices.Contains(places, d.ID) || slices.Contains(tried, d.ID) || d.State != core.DiskOK || m.Node(d.Node).State != core.NodeActive {
				continue
			}
			onNode := 0
			for i, o := range places {
				if i != shard && o != 0 && m.NodeOf(o) == d.Node {
					onNode++
				}
			}
			if onNode < perNode(pol) {
				t.Fatalf("%s: disk %d was never offered for shard %d of %v", what, d.ID, shard, places)
			}
		}
	}
}

// The first disk that is offered for a shard is the one that the object would
// get if the failed disk were not there.
func TestSubstituteIsTheNextBest(t *testing.T) {
	m := initial(t, spec{nodes: 5, disks: 3, slots: 1})
	pol := policy("mirror-2", core.DomainNode)
	p := New(m)
	for i := range 500 {
		key := fmt.Sprint("k", i)
		places := p.Shards(1, key, pol)
		got, ok := p.Substitute(1, key, pol, places, 0, nil)
		without := m.Clone()
		without.Disk(places[0]).State = core.DiskFailed
		want := slices.DeleteFunc(New(without).Shards(1, key, pol), func(d core.DiskID) bool { return d == places[1] })
		if !ok || len(want) != 1 || got != want[0] {
			t.Fatalf("%s: substitute for %d of %v: got %d, want %v", key, places[0], places, got, want)
		}
	}
}

func TestReassignWaitsForNodesThatAreAway(t *testing.T) {
	m := initial(t, spec{nodes: 5, disks: 3, slots: 1})
	pol := policy("ec-4+2", core.DomainNode)
	before := New(m)
	down := apply(t, m, t0, core.Change{Kind: core.ChangeFail, Node: "n2"})
	p := New(down)
	moved := 0
	for i := range 300 {
		key := fmt.Sprint("k", i)
		at := before.Shards(1, key, pol)
		if got := p.Reassign(1, key, pol, at, t0.Add(59*time.Second), time.Minute); !slices.Equal(got, at) {
			t.Fatalf("%s: moved within the grace: %v -> %v", key, at, got)
		}
		late := p.Reassign(1, key, pol, at, t0.Add(61*time.Second), time.Minute)
		for j, d := range at {
			onLost := m.NodeOf(d) == "n2"
			if onLost == (late[j] == d) || m.NodeOf(late[j]) == "n2" {
				t.Fatalf("%s: after the grace shard %d goes from %d to %d", key, j, d, late[j])
			}
			if onLost {
				moved++
			}
		}
		// A shard that is missing is not given to a node that is away.
		for j := range at {
			hole := slices.Clone(at)
			hole[j] = 0
			got := p.Reassign(1, key, pol, hole, t0.Add(time.Second), time.Minute)
			if got[j] == 0 || m.NodeOf(got[j]) == "n2" {
				t.Fatalf("%s: missing shard %d of %v goes to %d", key, j, hole, got[j])
			}
			for k := range at {
				if k != j && got[k] != at[k] {
					t.Fatalf("%s: shard %d moved: %v -> %v", key, k, hole, got)
				}
			}
		}
		// Nor are several.
		got := p.Reassign(1, key, pol, nil, t0.Add(time.Second), time.Minute)
		checkSpread(t, down, key+", all missing", got, 6, 2)
		if !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(p.Shards(1, key, pol)))) {
			t.Fatalf("%s: all missing: to be rebuilt on %v, proposed %v", key, got, p.Shards(1, key, pol))
		}
	}
	if moved == 0 {
		t.Fatal("no object had a shard on the lost node")
	}
}

// One disk more or less, or one heavier or lighter, moves only what goes to it
// or comes from it.
func TestMovementIsMinimal(t *testing.T) {
	schemes := []string{"none", "mirror-2", "mirror-3", "ec-4+2", "ec-8+3"}
	for seed := range uint64(80) {
		r := rand.New(rand.NewPCG(seed, 2))
		s := spec{
			nodes: 2 + r.IntN(8), zones: r.IntN(4), slots: 1, clusterIDSeeds: seed,
			disksOn: func(int) int { return 1 + r.IntN(4) }, weight: func(int, int) float64 { return 1 + 9*r.Float64() },
		}
		m := initial(t, s)
		next, what := m.Clone(), ""
		node := m.Nodes[r.IntN(len(m.Nodes))].ID
		disk := m.Disks[r.IntN(len(m.Disks))].ID
		var gains, loses func(core.DiskID) bool // one of them is set
		ofNode := func(d core.DiskID) bool { return next.NodeOf(d) == node }
		isDisk := func(d core.DiskID) bool { return d == disk }
		switch r.IntN(7) {
		case 0:
			what, loses = "lose node", ofNode
			next.Node(node).State = core.NodeDown
		case 1:
			what, loses = "lose disk", isDisk
			next.Disk(disk).State = core.DiskFailed
		case 2:
			what, gains = "heavier disk", isDisk
			next.Disk(disk).Weight *= 2
		case 3:
			what, loses = "lighter disk", isDisk
			next.Disk(disk).Weight /= 3
		case 4:
			what, gains = "heavier node", ofNode
			next.Node(node).Weight = 1.7
		case 5:
			what, gains = "new node", ofNode
			n, disks := makeNode(len(m.Nodes), s)
			n.ID = "nz" // the last by name
			next.Nodes = append(next.Nodes, n)
			node = n.ID
			for i := range disks {
				disks[i].ID = core.DiskID(1000 + i)
				disks[i].State, disks[i].Node = core.DiskOK, node
			}
			next.Disks = append(next.Disks, disks...)
		case 6:
			what, gains = "new disk", isDisk
			disk = 1000
			next.Disks = append(next.Disks, core.Disk{ID: disk, UUID: uuid(99, 0, seed), Node: node, Weight: 5, State: core.DiskOK})
		}
		a, b := New(m), New(next)
		check := func(item string, from, to []core.DiskID) {
			t.Helper()
			for _, d := range to {
				if d != 0 && !slices.Contains(from, d) && (gains != nil && !gains(d) || loses != nil && !slices.ContainsFunc(from, loses)) {
					t.Fatalf("seed %d %s: %s: disk %d gained: %v -> %v", seed, what, item, d, from, to)
				}
			}
			for _, d := range from {
				if d != 0 && !slices.Contains(to, d) && loses != nil && !loses(d) {
					t.Fatalf("seed %d %s: %s: disk %d lost: %v -> %v", seed, what, item, d, from, to)
				}
			}
		}
		pol := policy(schemes[r.IntN(len(schemes))], []core.Domain{core.DomainNode, core.DomainDisk}[r.IntN(2)])
		for i := range 400 {
			key := fmt.Sprint("k", i)
			at := a.Shards(1, key, pol)
			check(key, at, b.Reassign(1, key, pol, at, t0, 0))
			check(fmt.Sprint("slot ", i), a.Slot(core.SlotID(i), 3), b.Slot(core.SlotID(i), 3))
		}
	}
}

func TestHolds(t *testing.T) {
	for _, c := range []struct {
		nodes, disks int
		scheme       string
		domain       core.Domain
		need, have   int
		ok           bool
	}{
		{5, 3, "ec-4+2", core.DomainNode, 3, 5, true},
		{3, 3, "ec-4+2", core.DomainNode, 3, 3, true},
		{3, 1, "ec-4+2", core.DomainNode, 6, 3, false},
		{2, 3, "ec-4+2", core.DomainNode, 3, 2, false},
		{6, 1, "ec-4+2", core.DomainNode, 3, 6, true},
		{1, 6, "ec-4+2", core.DomainNode, 3, 1, false},
		{1, 6, "ec-4+2", core.DomainDisk, 6, 6, true},
		{1, 5, "ec-4+2", core.DomainDisk, 6, 5, false},
		{2, 1, "mirror-3", core.DomainNode, 3, 2, false},
		{3, 1, "mirror-3", core.DomainNode, 3, 3, true},
		{1, 1, "none", core.DomainNode, 1, 1, true},
		{4, 4, "ec-8+3", core.DomainNode, 4, 4, true},
		{3, 9, "ec-8+3", core.DomainNode, 4, 3, false},
	} {
		m := initial(t, spec{nodes: c.nodes, disks: c.disks, slots: 1})
		s, _ := core.ParseScheme(c.scheme)
		need, have, ok := Holds(m, s, c.domain)
		if need != c.need || have != c.have || ok != c.ok {
			t.Errorf("%d nodes x %d disks, %s by %s: got %d %d %v, want %d %d %v",
				c.nodes, c.disks, c.scheme, c.domain, need, have, ok, c.need, c.have, c.ok)
		}
		// It agrees with what is proposed.
		missing := slices.Contains(New(m).Shards(1, "k", core.Policy{Scheme: s, Domain: c.domain}), 0)
		if missing == ok {
			t.Errorf("%d nodes x %d disks, %s by %s: held %v, but places missing %v", c.nodes, c.disks, c.scheme, c.domain, ok, missing)
		}
	}
}

// Nodes that are down for the moment count, those that are to leave do not,
// nor do disks that failed.
func TestHoldsCountsMembers(t *testing.T) {
	m := initial(t, spec{nodes: 4, disks: 2, slots: 1})
	m = apply(t, m, t0, core.Change{Kind: core.ChangeFail, Node: "n1"}, core.Change{Kind: core.ChangeNodeState, Node: "n2", State: "maintenance"})
	if need, have, ok := Holds(m, core.Mirror(4), core.DomainNode); need != 4 || have != 4 || !ok {
		t.Errorf("one down, one in maintenance: %d %d %v, want 4 4 true", need, have, ok)
	}
	left := apply(t, m, t0, core.Change{Kind: core.ChangeNodeState, Node: "n3", State: "draining"}, core.Change{Kind: core.ChangeNodeState, Node: "n4", State: "decommissioned"})
	if need, have, ok := Holds(left, core.Mirror(3), core.DomainNode); need != 3 || have != 2 || ok {
		t.Errorf("one drains, one is gone: %d %d %v, want 3 2 false", need, have, ok)
	}
	bad := apply(t, m, t0, core.Change{Kind: core.ChangeFail, Disk: 1}, core.Change{Kind: core.ChangeDiskState, Disk: 3, State: "detached"})
	if need, have, ok := Holds(bad, core.Mirror(7), core.DomainDisk); need != 7 || have != 6 || ok {
		t.Errorf("two disks less: %d %d %v, want 7 6 false", need, have, ok)
	}
}

func TestMoreDisksThanUsual(t *testing.T) {
	m := initial(t, spec{nodes: 30, disks: 4, zones: 5, slots: 64})
	p := New(m)
	for i := range 100 {
		checkSpread(t, m, "120 disks", p.Shards(1, fmt.Sprint(i), policy("ec-8+3", core.DomainNode)), 11, 3)
	}
}

func BenchmarkShards(b *testing.B) {
	for _, c := range []struct {
		nodes, disks int
		scheme       string
	}{{5, 3, "ec-4+2"}, {5, 3, "mirror-2"}, {16, 12, "ec-8+3"}, {100, 24, "ec-8+3"}} {
		b.Run(fmt.Sprintf("%dx%d/%s", c.nodes, c.disks, c.scheme), func(b *testing.B) {
			m := initial(b, spec{nodes: c.nodes, disks: c.disks, slots: 1})
			p, pol := New(m), policy(c.scheme, core.DomainNode)
			b.ReportAllocs()
			for b.Loop() {
				p.Shards(7, "train/images/000000123456.jpg", pol)
			}
		})
	}
}

func BenchmarkNew(b *testing.B) {
	m := initial(b, spec{nodes: 5, disks: 3, slots: 1})
	b.ReportAllocs()
	for b.Loop() {
		New(m)
	}
}

func BenchmarkReassign(b *testing.B) {
	m := initial(b, spec{nodes: 5, disks: 3, slots: 1})
	p, pol := New(m), policy("ec-4+2", core.DomainNode)
	at := p.Shards(7, "train/images/000000123456.jpg", pol)
	b.ReportAllocs()
	for b.Loop() {
		p.Reassign(7, "train/images/000000123456.jpg", pol, at, t0, time.Minute)
	}
}
