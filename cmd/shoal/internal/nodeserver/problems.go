package nodeserver

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
)

// situation is what there is to judge the cluster by: the map in effect, and
// what those nodes say that answer.
type situation struct {
	m        *core.Map
	statuses map[core.NodeID]engine.Status
	now      time.Time
	grace    time.Duration
}

// problems says, in words for an operator, what is not as it should be, what
// waits for whom, and what to do; nothing if all is well. What stops the most
// comes first.
func problems(s situation) []string {
	var out []string
	for _, f := range []func(situation) []string{
		voterProblems, slotProblems, schemeProblems, nodeProblems, diskProblems, recordProblems, objectProblems,
	} {
		out = append(out, f(s)...)
	}
	return out
}

// answers says whether a node does.
func (s *situation) answers(n core.NodeID) bool {
	_, ok := s.statuses[n]
	return ok
}

// serves says whether a disk could serve now.
func (s *situation) serves(d core.DiskID) bool {
	k := s.m.Disk(d)
	return k != nil && k.State == core.DiskOK && s.answers(k.Node)
}

// voterProblems: without a majority of voters nobody holds a lease.
func voterProblems(s situation) []string {
	var silent []string
	for _, v := range s.m.Voters {
		if !s.answers(v.Node) {
			silent = append(silent, string(v.Node))
		}
	}
	all := len(s.m.Voters)
	if missing := all/2 + 1 - (all - len(silent)); missing > 0 {
		return []string{fmt.Sprintf("no majority of voters: %s of %d %s not answer, so that no node may serve: all requests get 503 and the map cannot change until %d of them %s back; start them, or, if they never will be, `shoal recover`",
			strings.Join(silent, ", "), all, plural(len(silent), "does", "do"), missing, plural(missing, "is", "are"))}
	}
	var out []string
	for i := range s.m.Nodes {
		n := &s.m.Nodes[i]
		if st, ok := s.statuses[n.ID]; ok && !st.Lease && n.State != core.NodeDecommissioned {
			out = append(out, fmt.Sprintf("node %s holds no lease and answers 503: it does not reach a majority of the voters, or has just started", n.ID))
		}
	}
	return out
}

// slotProblems: slots whose records nobody can serve, or not yet.
func slotProblems(s situation) []string {
	gone, changing := 0, 0
	var need []string
	for i := range s.m.Slots {
		row := &s.m.Slots[i]
		switch {
		case s.serves(row.Owner()):
		case slices.ContainsFunc(row.Insync, s.serves):
			changing++
		default:
			gone++
			for _, d := range row.Insync {
				if name := diskLabel(s.m, d); !slices.Contains(need, name) {
					need = append(need, name)
				}
			}
		}
	}
	var out []string
	if gone > 0 {
		slices.Sort(need)
		out = append(out, fmt.Sprintf("%d of %d slots have no owner that could serve: every disk with all of their records is away (%s), and requests for their keys get 503; bring one of these back for each slot, or, if none ever will be, `shoal recover`",
			gone, len(s.m.Slots), few(need)))
	}
	if changing > 0 {
		out = append(out, fmt.Sprintf("%d of %d slots wait for a new owner, since theirs does not answer; this takes seconds", changing, len(s.m.Slots)))
	}
	return out
}

// schemeProblems: buckets that cannot be written with the nodes there are.
func schemeProblems(s situation) []string {
	type kind struct {
		scheme core.Scheme
		domain core.Domain
	}
	var kinds []kind
	buckets := map[kind][]string{}
	for i := range s.m.Buckets {
		b := &s.m.Buckets[i]
		if b.State == core.BucketDeleting {
			continue
		}
		k := kind{b.Policy.Scheme, b.Policy.Domain}
		if buckets[k] == nil {
			kinds = append(kinds, k)
		}
		buckets[k] = append(buckets[k], b.Name.String())
	}
	disks := map[core.NodeID]int{} // that take new data
	total := 0
	for i := range s.m.Disks {
		d := &s.m.Disks[i]
		if s.serves(d.ID) && s.m.Node(d.Node).State == core.NodeActive {
			disks[d.Node]++
			total++
		}
	}
	var out []string
	for _, k := range kinds {
		per, what := k.scheme.PerDomain(), "nodes"
		room := 0
		for _, n := range disks {
			room += min(n, per)
		}
		up := len(disks)
		if k.domain == core.DomainDisk {
			room, up, per, what = total, total, 1, "disks"
		}
		if need := k.scheme.MinWrite(); room < need {
			more := (need - room + per - 1) / per
			out = append(out, fmt.Sprintf("%s cannot be written (%s): %d of its %d shards have a place on the %d %s that take data, %d are needed; new objects too large for their records get 503 until %d more %s up or added",
				k.scheme, few(buckets[k]), room, k.scheme.Width(), up, what, need, more, plural(more, strings.TrimSuffix(what, "s")+" is", what+" are")))
		}
		if n := s.narrowSlots(k.scheme, k.domain); n > 0 {
			out = append(out, fmt.Sprintf("%s cannot be written in %d of %d slots (%s): fewer than %d %s have their records; writes get 503 until others have copied them",
				k.scheme, n, len(s.m.Slots), few(buckets[k]), k.scheme.MinRecordDomains(), what))
		}
	}
	return out
}

// narrowSlots counts the slots whose in-sync sets span too few domains for
// writes under a scheme.
func (s *situation) narrowSlots(scheme core.Scheme, domain core.Domain) (count int) {
	for i := range s.m.Slots {
		var spans []core.NodeID
		n := 0
		for _, d := range s.m.Slots[i].Insync {
			node := s.m.NodeOf(d)
			if domain == core.DomainDisk || !slices.Contains(spans, node) {
				spans = append(spans, node)
				n++
			}
		}
		if n < scheme.MinRecordDomains() {
			count++
		}
	}
	return count
}

func nodeProblems(s situation) []string {
	var out []string
	for i := range s.m.Nodes {
		n := &s.m.Nodes[i]
		since := n.Since.Local().Format(time.TimeOnly)
		switch left := s.grace - s.now.Sub(n.Since); {
		case n.State == core.NodeDecommissioned:
		case n.State == core.NodeDown && left > 0:
			out = append(out, fmt.Sprintf("node %s is down since %s: in %v its data is built again elsewhere, unless it is back before", n.ID, since, left.Round(time.Second)))
		case n.State == core.NodeDown:
			out = append(out, fmt.Sprintf("node %s is down since %s: start it, or `shoal cluster decommission %s` if it never comes back", n.ID, since, n.ID))
		case n.State == core.NodeMaintenance:
			out = append(out, fmt.Sprintf("node %s is in maintenance; `shoal cluster maintenance stop %s` ends that", n.ID, n.ID))
		case n.State == core.NodeDraining:
			out = append(out, fmt.Sprintf("node %s is draining: %d slots still name it", n.ID, s.slotsWith(n.ID)))
		case n.State != core.NodeActive:
			out = append(out, fmt.Sprintf("node %s is %s: it has not started yet", n.ID, n.State))
		case !s.answers(n.ID):
			out = append(out, fmt.Sprintf("node %s does not answer", n.ID))
		}
	}
	return out
}

// slotsWith counts the rows that name a disk of the node.
func (s *situation) slotsWith(id core.NodeID) (count int) {
	of := func(d core.DiskID) bool { return s.m.NodeOf(d) == id }
	for i := range s.m.Slots {
		if slices.ContainsFunc(s.m.Slots[i].Insync, of) || slices.ContainsFunc(s.m.Slots[i].Joining, of) {
			count++
		}
	}
	return count
}

func diskProblems(s situation) []string {
	var out []string
	for i := range s.m.Disks {
		d := &s.m.Disks[i]
		if d.State == core.DiskOK || replaced(s.m, d) || s.m.Node(d.Node).State == core.NodeDecommissioned {
			continue
		}
		text := fmt.Sprintf("disk %s/%s is %s", d.Node, d.Name, d.State)
		if d.Reason != "" {
			text += ": " + d.Reason
		}
		out = append(out, text)
	}
	return out
}

// recordProblems: slots with fewer copies of their records than there could be.
func recordProblems(s situation) []string {
	usable := 0
	for i := range s.m.Disks {
		if d := &s.m.Disks[i]; d.State == core.DiskOK && s.m.Node(d.Node).State == core.NodeActive {
			usable++
		}
	}
	want, short, joining := min(s.m.Replicas, usable), 0, 0
	for _, row := range s.m.Slots {
		if len(row.Insync) < want {
			short++
		}
		if len(row.Joining) > 0 {
			joining++
		}
	}
	var out []string
	if short > 0 {
		out = append(out, fmt.Sprintf("%d of %d slots have fewer than %d copies of their records", short, len(s.m.Slots), want))
	}
	if joining > 0 {
		out = append(out, fmt.Sprintf("records of %d slots are being copied", joining))
	}
	return out
}

// objectProblems: objects that lack redundancy, or cannot be read at all.
func objectProblems(s situation) []string {
	var under, lost int64
	away := map[core.DiskID]int64{}
	for _, st := range s.statuses {
		under, lost = under+st.Under, lost+st.Unavailable
		for d, n := range st.Away {
			away[d] += n
		}
	}
	var out []string
	if lost > 0 {
		var on []string
		for d := range away {
			on = append(on, diskLabel(s.m, d))
		}
		slices.Sort(on)
		text := fmt.Sprintf("%d objects cannot be read", lost)
		if len(on) > 0 {
			text += ": they wait for " + few(on)
		}
		out = append(out, text)
	}
	if under > 0 {
		out = append(out, fmt.Sprintf("%d objects lack redundancy", under))
	}
	return out
}

// diskLabel names a disk, and says what keeps it away.
func diskLabel(m *core.Map, id core.DiskID) string {
	d := m.Disk(id)
	if d == nil {
		return fmt.Sprintf("disk %d, which is no more", id)
	}
	name := string(d.Node) + "/" + d.Name
	if d.State != core.DiskOK {
		name += " " + string(d.State)
	} else if n := m.Node(d.Node); n.State == core.NodeDown {
		name += " down"
	}
	return name
}

// few lists the first of some names.
func few(names []string) string {
	const most = 6
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

func plural(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}
