package placement

import (
	"math"
	"slices"
	"time"

	"github.com/shoalstore/shoal/core"
)

// perNode is the largest number of an object's shards on one node.
func perNode(p core.Policy) int {
	if p.Domain == core.DomainDisk {
		return math.MaxInt
	}
	return p.Scheme.PerDomain()
}

// Shards proposes a disk for each shard of an object, by shard number: distinct
// disks, under domain node at most Scheme.PerDomain on one node, spread as
// evenly over nodes and zones as there are any. Only disks that are ok on active
// nodes are proposed. Where they are too few the last places are 0.
func (p *Placer) Shards(bucket core.BucketID, key string, policy core.Policy) []core.DiskID {
	var b room
	s := p.selection(&b, keyItem(bucket, key), time.Time{}, perNode(policy))
	out := make([]core.DiskID, policy.Scheme.Width())
	for i := range out {
		d := s.next()
		if d < 0 {
			break
		}
		s.take(d)
		out[i] = p.disks[d].id
	}
	return out
}

// Substitute returns the next best disk for the shard of that number, whose
// place failed: one that keeps the domain rule beside the other places (0 where
// there is none) and is not in tried. It is false if there is no such disk.
func (p *Placer) Substitute(bucket core.BucketID, key string, policy core.Policy, places []core.DiskID, shard int, tried []core.DiskID) (core.DiskID, bool) {
	var b room
	s := p.selection(&b, keyItem(bucket, key), time.Time{}, perNode(policy))
	for i, d := range places {
		x := p.index(d)
		switch {
		case x < 0:
		case i == shard:
			s.refuse(x)
		default:
			s.take(x)
		}
	}
	for _, d := range tried {
		if x := p.index(d); x >= 0 {
			s.refuse(x)
		}
	}
	d := s.next()
	if d < 0 {
		return 0, false
	}
	return p.disks[d].id, true
}

// Reassign says where the shards of an object should be, given where they are
// (0 for a missing one), moving as few as it can: a shard stays where it is if
// its disk is among those that rendezvous hashing gives the object, whatever
// the shard's number. A disk whose node went down less than grace before now
// keeps its shards, but is given none. A place of 0 says that there is no disk
// for the shard now; what there is of it should stay.
func (p *Placer) Reassign(bucket core.BucketID, key string, policy core.Policy, current []core.DiskID, now time.Time, grace time.Duration) []core.DiskID {
	item, limit, width := keyItem(bucket, key), perNode(policy), policy.Scheme.Width()
	cut := now.Add(-grace)

	var b room
	var targetRoom, keptRoom [core.MaxData + core.MaxParity]int
	target, kept := targetRoom[:0], keptRoom[:0] // target: not yet given to a shard
	s := p.selection(&b, item, cut, limit)
	for range width {
		d := s.next()
		if d < 0 {
			break
		}
		s.take(d)
		target = append(target, d)
	}

	out := make([]core.DiskID, width)
	for i := range min(width, len(current)) {
		if t := slices.Index(target, p.index(current[i])); t >= 0 {
			kept = append(kept, target[t])
			target = slices.Delete(target, t, t+1)
			out[i] = current[i]
		}
	}
	var away bool
	target = slices.DeleteFunc(target, func(d int) bool {
		away = away || !p.disks[d].takes
		return !p.disks[d].takes
	})
	if away {
		// Some of the proposed disks are away: others stand in for them.
		b = room{}
		s = p.selection(&b, item, time.Time{}, limit)
		for _, d := range kept {
			s.take(d)
		}
		for _, d := range target {
			s.take(d)
		}
		for len(kept)+len(target) < width {
			d := s.next()
			if d < 0 {
				break
			}
			s.take(d)
			target = append(target, d)
		}
	}
	for i := range out {
		if out[i] == 0 && len(target) > 0 {
			out[i], target = p.disks[target[0]].id, target[1:]
		}
	}
	return out
}

// Holds says whether the nodes can hold a scheme under a domain rule, and how
// many domains (nodes or disks) it needs and there are. Counted are the nodes
// that belong to the cluster, those that are down for the moment included, and
// their disks that did not fail. Where the nodes are enough but their disks are
// too few, need counts nodes such as the best of those present.
func Holds(m *core.Map, scheme core.Scheme, domain core.Domain) (need, have int, ok bool) {
	disks := make(map[core.NodeID]int, len(m.Nodes))
	total := 0
	for i := range m.Disks {
		d := &m.Disks[i]
		n := m.Node(d.Node)
		if n == nil || n.State == core.NodeDraining || n.State == core.NodeDecommissioned {
			continue
		}
		if d.State == core.DiskOK || d.State == core.DiskNew {
			disks[d.Node]++
			total++
		}
	}
	width := scheme.Width()
	if domain == core.DomainDisk {
		return width, total, total >= width
	}
	fits, most := 0, 0
	for _, n := range disks {
		fits += min(n, scheme.PerDomain())
		most = max(most, n)
	}
	have = len(disks)
	if fits >= width {
		return scheme.MinDomains(), have, true
	}
	per := min(scheme.PerDomain(), max(most, 1))
	return max(scheme.MinDomains(), have+(width-fits+per-1)/per), have, false
}
