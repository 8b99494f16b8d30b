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
	nodes []site      // as in the map
	zones int
}

// site is a node with what placing needs to know of it.
type site struct {
	zone  int
	disks []int // indices in Placer.disks
}

// candidate is a disk with what placing needs to know of it.
type candidate struct {
	id     core.DiskID
	uuid   string
	weight float64
	node   int  // index in the map's nodes, -1 for none
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
	p := &Placer{disks: make([]candidate, len(m.Disks)), nodes: make([]site, len(m.Nodes))}
	zones := map[string]int{}
	for i := range m.Nodes {
		z, ok := zones[m.Nodes[i].Zone]
		if !ok {
			z = len(zones)
			zones[m.Nodes[i].Zone] = z
		}
		p.nodes[i].zone = z
	}
	p.zones = len(zones)
	for i := range m.Disks {
		d := &m.Disks[i]
		ni, ok := slices.BinarySearchFunc(m.Nodes, d.Node, func(n core.Node, id core.NodeID) int {
			return compare(n.ID, id)
		})
		if !ok {
			p.disks[i] = candidate{id: d.ID, node: -1}
			continue
		}
		n := &m.Nodes[ni]
		c := candidate{id: d.ID, uuid: d.UUID, weight: weightOf(n, d), node: ni}
		p.nodes[ni].disks = append(p.nodes[ni].disks, i)
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

// room is memory for a selection in a cluster of the usual size.
type room struct {
	cost  [48]float64
	nodes [16]tally
	zones [8]int
}

// tally is what a selection knows of a node.
type tally struct {
	taken int
	best  int // the disk of least cost that can be taken, -1 for none
}

// selection chooses disks for one item, one after the other.
type selection struct {
	p *Placer
	// cost by index in p.disks; infinite where the disk cannot be taken.
	cost  []float64
	nodes []tally // by index in p.nodes
	zones []int   // disks taken
	limit int     // of disks per node
}

// selection begins to choose for an item among the disks that take data and
// those away since cut. b must be zero; it is in use as long as the selection.
func (p *Placer) selection(b *room, item uint64, cut time.Time, limit int) selection {
	s := selection{p: p, limit: limit}
	s.cost = fit(b.cost[:], len(p.disks))
	s.nodes = fit(b.nodes[:], len(p.nodes))
	s.zones = fit(b.zones[:], p.zones)
	for i := range p.disks {
		c := &p.disks[i]
		if c.takes || c.away(cut) {
			s.cost[i] = cost(item, c.uuid, c.weight)
		} else {
			s.cost[i] = math.Inf(1)
		}
	}
	for n := range s.nodes {
		s.rank(n)
	}
	return s
}

// fit returns a slice of n zero elements, in the room given if that is enough.
func fit[E any](room []E, n int) []E {
	if n <= len(room) {
		return room[:n]
	}
	return make([]E, n)
}

// rank finds the best disk of a node.
func (s *selection) rank(node int) {
	best, least := -1, math.Inf(1)
	for _, i := range s.p.nodes[node].disks {
		if s.cost[i] < least {
			best, least = i, s.cost[i]
		}
	}
	s.nodes[node].best = best
}

// next returns the best disk not taken yet, or -1: the fewest on its node,
// then the fewest in its zone, then the least cost.
func (s *selection) next() int {
	best, fewest, fewestInZone := -1, s.limit, 0
	for n := range s.nodes {
		t := &s.nodes[n]
		if t.best < 0 || t.taken >= s.limit || t.taken > fewest {
			continue
		}
		inZone := s.zones[s.p.nodes[n].zone]
		if best < 0 || t.taken < fewest || inZone < fewestInZone || inZone == fewestInZone && s.cost[t.best] < s.cost[best] {
			best, fewest, fewestInZone = t.best, t.taken, inZone
		}
	}
	return best
}

// take counts a disk as taken, whether or not it could have been chosen.
func (s *selection) take(i int) {
	if n := s.p.disks[i].node; n >= 0 {
		s.nodes[n].taken++
		s.zones[s.p.nodes[n].zone]++
	}
	s.refuse(i)
}

// refuse leaves a disk out.
func (s *selection) refuse(i int) {
	s.cost[i] = math.Inf(1)
	if n := s.p.disks[i].node; n >= 0 && s.nodes[n].best == i {
		s.rank(n)
	}
}
