package placement

import (
	"math"
	"slices"
	"time"

	"github.com/shoalstore/shoal/core"
)

// Placer proposes disks under one map. It is immutable and may be used by many
// goroutines; make a new one for a new map.
type Placer struct {
	disks []candidate // by ID
	nodes int
	zones int
}

// candidate is a disk with what placing needs to know of it.
type candidate struct {
	id     core.DiskID
	uuid   string
	weight float64
	node   int // index in the map's nodes
	zone   int
	takes  bool // is given new data
	// down is when the node of an otherwise good disk went down, else zero:
	// until the grace is over the disk is counted on to come back.
	down time.Time
}

// away says whether the disk is gone for less than the grace. cut is now less
// the grace, zero for no grace.
func (c *candidate) away(cut time.Time) bool {
	return !cut.IsZero() && c.down.After(cut)
}

// New prepares a map for placing.
func New(m *core.Map) *Placer { return newPlacer(m, nil, time.Time{}) }

// newPlacer counts active nodes named in silent as down since now.
func newPlacer(m *core.Map, silent []core.NodeID, now time.Time) *Placer {
	p := &Placer{disks: make([]candidate, len(m.Disks)), nodes: len(m.Nodes)}
	zones := map[string]int{}
	zoneOf := make([]int, len(m.Nodes))
	for i := range m.Nodes {
		z, ok := zones[m.Nodes[i].Zone]
		if !ok {
			z = len(zones)
			zones[m.Nodes[i].Zone] = z
		}
		zoneOf[i] = z
	}
	p.zones = len(zones)
	for i := range m.Disks {
		d := &m.Disks[i]
		ni, ok := slices.BinarySearchFunc(m.Nodes, d.Node, func(n core.Node, id core.NodeID) int {
			return compare(n.ID, id)
		})
		if !ok {
			p.disks[i] = candidate{id: d.ID, node: -1, zone: -1}
			continue
		}
		n := &m.Nodes[ni]
		c := candidate{id: d.ID, uuid: d.UUID, weight: weightOf(n, d), node: ni, zone: zoneOf[ni]}
		switch {
		case d.State != core.DiskOK:
		case n.State == core.NodeActive && slices.Contains(silent, n.ID):
			c.down = now
		case n.State == core.NodeActive:
			c.takes = true
		case n.State == core.NodeDown:
			c.down = n.Since
		}
		p.disks[i] = c
	}
	return p
}

func compare(a, b core.NodeID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// index returns the disk's place in p.disks, or -1.
func (p *Placer) index(id core.DiskID) int {
	i, ok := slices.BinarySearchFunc(p.disks, id, func(c candidate, id core.DiskID) int {
		return int(int64(c.id) - int64(id))
	})
	if !ok {
		return -1
	}
	return i
}

// Slot returns the disks that should keep the slot's records, best first: r of
// them, fewer only where there are fewer disks, on distinct nodes as far as
// there are nodes and over as many zones as these nodes allow. The first one
// is the owner that rendezvous hashing prefers.
func (p *Placer) Slot(s core.SlotID, r int) []core.DiskID {
	return p.ids(p.slot(nil, s, r, time.Time{}))
}

// slot is Slot with the disks away since cut counted in, as indices appended
// to dst.
func (p *Placer) slot(dst []int, s core.SlotID, r int, cut time.Time) []int {
	var b room
	sel := p.selection(&b, slotItem(s), cut, math.MaxInt)
	for range r {
		i := sel.next()
		if i < 0 {
			break
		}
		sel.take(i)
		dst = append(dst, i)
	}
	return dst
}

func (p *Placer) ids(idx []int) []core.DiskID {
	out := make([]core.DiskID, len(idx))
	for i, x := range idx {
		out[i] = p.disks[x].id
	}
	return out
}

// room is memory for a selection among the usual number of disks.
type room struct {
	cost   [48]float64
	counts [48]int
}

// selection chooses disks for one item, one after the other.
type selection struct {
	p *Placer
	// cost by index in p.disks; infinite where the disk cannot be chosen.
	cost []float64
	// perNode and perZone count what was taken.
	perNode, perZone []int
	limit            int // of disks per node
}

func (p *Placer) selection(b *room, item uint64, cut time.Time, limit int) selection {
	s := selection{p: p, limit: limit}
	if n := len(p.disks); n <= len(b.cost) {
		s.cost = b.cost[:n]
	} else {
		s.cost = make([]float64, n)
	}
	counts := b.counts[:]
	if n := p.nodes + p.zones; n > len(counts) {
		counts = make([]int, n)
	}
	s.perNode, s.perZone = counts[:p.nodes], counts[p.nodes:p.nodes+p.zones]
	for i := range p.disks {
		c := &p.disks[i]
		if c.takes || c.away(cut) {
			s.cost[i] = cost(item, c.uuid, c.weight)
		} else {
			s.cost[i] = math.Inf(1)
		}
	}
	return s
}

// next returns the best disk not taken yet, or -1: the fewest on its node,
// then the fewest in its zone, then the least cost.
func (s *selection) next() int {
	best, bestNode, bestZone := -1, s.limit, 0
	for i, c := range s.cost {
		if math.IsInf(c, 1) {
			continue
		}
		d := &s.p.disks[i]
		onNode, inZone := s.perNode[d.node], s.perZone[d.zone]
		if onNode >= s.limit || onNode > bestNode {
			continue
		}
		if best < 0 || onNode < bestNode || inZone < bestZone || inZone == bestZone && c < s.cost[best] {
			best, bestNode, bestZone = i, onNode, inZone
		}
	}
	return best
}

// take counts a disk as taken, whether or not it could have been chosen.
func (s *selection) take(i int) {
	d := &s.p.disks[i]
	s.cost[i] = math.Inf(1)
	if d.node >= 0 {
		s.perNode[d.node]++
		s.perZone[d.zone]++
	}
}

// refuse leaves a disk out.
func (s *selection) refuse(i int) { s.cost[i] = math.Inf(1) }
