package nodeserver

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
	"github.com/shoalstore/shoal/plugins/api"
)

// spare is what there is to judge by whether the cluster can do without a node:
// the map in effect, and what those nodes say that answer.
type spare struct {
	m        *core.Map
	statuses map[core.NodeID]engine.Status
	locals   map[core.NodeID]local
	node     core.NodeID
}

// check refuses to bring the node into a state in which it is to hold nothing.
// It goes on serving what it has until others have it, so nothing is lost at
// once; what is refused is what could not end, or would leave a last copy on a
// node that somebody is about to stop.
func (s spare) check(state core.NodeState) error {
	for _, f := range []func(core.NodeState) error{s.isThere, s.othersHold, s.noLastRecords, s.noLastShards, s.roomElsewhere} {
		if err := f(state); err != nil {
			return err
		}
	}
	return nil
}

// isThere: a node that is down has nothing to move. It can be decommissioned
// once what it had is elsewhere.
func (s spare) isThere(state core.NodeState) error {
	n := s.m.Node(s.node)
	_, answers := s.statuses[s.node]
	if n.State != core.NodeDown && answers {
		return nil
	}
	if state == core.NodeMaintenance {
		return api.Refused(fmt.Sprintf("node %s is down and has nothing to hand over", s.node), "start it first, or `shoal cluster decommission` it if it never comes back")
	}
	var waiting int64
	for _, st := range s.statuses {
		for d, k := range st.Away {
			if s.m.NodeOf(d) == s.node {
				waiting += k
			}
		}
	}
	if waiting > 0 {
		return api.Refused(fmt.Sprintf("%d objects are on %s only, which is down; they would be lost", waiting, s.node),
			"start the node; or write or delete these objects first: a scrub (`shoal start scrub`) names them")
	}
	return nil
}

// others lists the active nodes but this one.
func (s spare) others() (out []core.NodeID) {
	for i := range s.m.Nodes {
		if n := &s.m.Nodes[i]; n.ID != s.node && n.State == core.NodeActive {
			out = append(out, n.ID)
		}
	}
	return out
}

// othersHold: the buckets' schemes must fit on the nodes that are left.
func (s spare) othersHold(core.NodeState) error {
	others := s.others()
	if len(others) == 0 {
		return api.Refused(fmt.Sprintf("%s is the last active node", s.node), "add a node first")
	}
	disks := 0
	for i := range s.m.Disks {
		if d := &s.m.Disks[i]; d.State == core.DiskOK && slices.Contains(others, d.Node) {
			disks++
		}
	}
	for i := range s.m.Buckets {
		p, name := s.m.Buckets[i].Policy, s.m.Buckets[i].Name
		switch need := p.Scheme.MinDomains(); {
		case p.Domain == core.DomainNode && need > len(others):
			return api.Refused(fmt.Sprintf("bucket %s (%s) needs %d nodes; without %s there are %d", name, p.Scheme, need, s.node, len(others)),
				"add a node first, or change the bucket's scheme")
		case p.Scheme.Width() > disks:
			return api.Refused(fmt.Sprintf("bucket %s (%s) needs %d disks; without %s there are %d", name, p.Scheme, p.Scheme.Width(), s.node, disks),
				"add disks first, or change the bucket's scheme")
		}
	}
	return nil
}

// noLastRecords: the records of each slot must be on a disk of another node.
func (s spare) noLastRecords(core.NodeState) error {
	last := 0
	for i := range s.m.Slots {
		elsewhere, here := false, false
		for _, d := range s.m.Slots[i].Insync {
			k := s.m.Disk(d)
			_, answers := s.statuses[k.Node]
			here = here || k.Node == s.node
			elsewhere = elsewhere || k.Node != s.node && k.State == core.DiskOK && answers
		}
		if here && !elsewhere {
			last++
		}
	}
	if last > 0 && len(s.m.Nodes) > 1 {
		return api.Refused(fmt.Sprintf("of %d of %d slots only %s has the records, so that its loss would be theirs", last, len(s.m.Slots), s.node),
			s.waitHint())
	}
	return nil
}

// noLastShards: no object that lacks shards already may hang on this node.
// Objects without redundancy (scheme none) are as they should be, and move.
func (s spare) noLastShards(core.NodeState) error {
	var sole int64
	counting := false
	for _, st := range s.statuses {
		sole += st.Sole[s.node]
		counting = counting || st.Pending
	}
	if sole > 0 {
		return api.Refused(fmt.Sprintf("%d objects lack shards and could not be read without %s", sole, s.node), s.waitHint())
	}
	if lost := s.lost(); counting && len(lost) > 0 {
		return api.Refused(fmt.Sprintf("what was on %s is still being counted or built again, and %s may have the last of it", strings.Join(lost, ", "), s.node), s.waitHint())
	}
	return nil
}

// lost lists nodes and disks of which something may be missing.
func (s spare) lost() (out []string) {
	for i := range s.m.Nodes {
		n := &s.m.Nodes[i]
		_, answers := s.statuses[n.ID]
		if n.ID != s.node && n.State != core.NodeDecommissioned && n.State != core.NodeJoining && (n.State == core.NodeDown || !answers) {
			out = append(out, string(n.ID))
		}
	}
	for i := range s.m.Disks {
		if d := &s.m.Disks[i]; d.State != core.DiskOK && d.Node != s.node {
			out = append(out, string(d.Node)+"/"+d.Name)
		}
	}
	return out
}

// waitHint says what brings redundancy back.
func (s spare) waitHint() string {
	const wait = "wait until redundancy is back: `shoal cluster wait --healthy`, `shoal show cluster`"
	if lost := s.lost(); len(lost) > 0 {
		return "bring back " + strings.Join(lost, ", ") + ", or " + wait
	}
	return wait
}

// roomElsewhere: what the node holds must fit on the other nodes' disks, by their
// weights.
func (s spare) roomElsewhere(core.NodeState) error {
	var holds int64
	for _, d := range s.locals[s.node].Disks {
		holds += d.Used
	}
	type target struct {
		disk   *core.Disk
		weight float64
		room   int64
	}
	var to []target
	var total float64
	var room int64
	for _, id := range s.others() {
		n := s.m.Node(id)
		for _, l := range s.locals[id].Disks {
			i := slices.IndexFunc(s.m.Disks, func(d core.Disk) bool { return d.UUID == l.UUID && d.State == core.DiskOK })
			if i < 0 {
				continue
			}
			d := &s.m.Disks[i]
			w := orOne(d.Weight) * orOne(n.Weight)
			to = append(to, target{d, w, l.Room})
			total += w
			room += l.Room
		}
	}
	const hint = "add a node or disks first, or delete something"
	if holds > room {
		return api.Refused(fmt.Sprintf("%s holds %s, and there are %s free on the other nodes", s.node, sizeText(holds), sizeText(room)), hint)
	}
	for _, t := range to {
		if share := int64(float64(holds) * t.weight / total); share > t.room {
			return api.Refused(fmt.Sprintf("%s holds %s; by its weight %s/%s would have to take about %s of that and has %s free",
				s.node, sizeText(holds), t.disk.Node, t.disk.Name, sizeText(share), sizeText(t.room)), hint+"; `shoal cluster set` changes weights")
		}
	}
	return nil
}

// orOne is a weight as placement takes it.
func orOne(w float64) float64 {
	if w <= 0 {
		return 1
	}
	return w
}

// sizeText writes a size for people.
func sizeText(n int64) string {
	const units = "KMGTPE"
	v, i := float64(n), -1
	for v >= 1024 && i+1 < len(units) {
		v /= 1024
		i++
	}
	if i < 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.2f %ciB", v, units[i])
}
