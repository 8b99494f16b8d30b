package placement

import "github.com/shoalstore/shoal/core"

// ownership counts how many slots each node owns and how many it should by its
// weight.
type ownership struct {
	p           *Placer
	load, quota []float64 // by index of the node in the map
}

func newOwnership(p *Placer, slots core.SlotTable) *ownership {
	o := &ownership{p: p, load: make([]float64, len(p.nodes)), quota: make([]float64, len(p.nodes))}
	total := 0.0
	for i := range p.disks {
		if c := &p.disks[i]; c.takes {
			o.quota[c.node] += c.weight
			total += c.weight
		}
	}
	for i := range o.quota {
		if total > 0 {
			o.quota[i] *= float64(len(slots)) / total
		}
	}
	for i := range slots {
		if x := p.index(slots[i].Owner()); x >= 0 && p.disks[x].node >= 0 {
			o.load[p.disks[x].node]++
		}
	}
	return o
}

// better returns the place in the in-sync set of the disk that should own the
// slot instead of the present owner, if the nodes' loads come nearer to their
// quotas so, else 0. Each such move lowers the sum of load^2/quota, so that
// repeating them ends.
func (o *ownership) better(insync []int) int {
	const tie = 1e-9
	a := o.p.disks[insync[0]].node
	best, bestRatio := 0, 0.0
	for i, x := range insync[1:] {
		c := &o.p.disks[x]
		if !c.takes || c.node == a || o.quota[c.node] == 0 {
			continue
		}
		ratio := (o.load[c.node] + 0.5) / o.quota[c.node]
		if best == 0 || ratio < bestRatio {
			best, bestRatio = i+1, ratio
		}
	}
	if best > 0 && o.quota[a] > 0 && (o.load[a]-0.5)/o.quota[a] <= bestRatio+tie {
		return 0
	}
	return best
}

// far says whether a node owns over 10 % more or less than its quota.
func (o *ownership) far(node int) bool {
	diff := o.load[node] - o.quota[node]
	return diff > 0.1*o.quota[node]+1 || -diff > 0.1*o.quota[node]+1
}

func (o *ownership) move(from, to int) {
	o.load[o.p.disks[from].node]--
	o.load[o.p.disks[to].node]++
}

// balanceAll gives every slot the owner that balances the nodes best.
func (o *ownership) balanceAll(slots core.SlotTable) {
	var in []int
	for moved := true; moved; {
		moved = false
		for i := range slots {
			in = o.p.indices(in[:0], slots[i].Insync)
			if b := o.better(in); b > 0 {
				o.move(in[0], in[b])
				toFront(slots[i].Insync, b)
				moved = true
			}
		}
	}
}

// indices appends the places of disks in p.disks to dst.
func (p *Placer) indices(dst []int, ids []core.DiskID) []int {
	for _, id := range ids {
		if x := p.index(id); x >= 0 {
			dst = append(dst, x)
		}
	}
	return dst
}
