package recovery

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/placement"
)

// Where a recovered map begins: a past that was lost counts neither as many
// epochs nor as many disks, buckets and sets of voters.
const (
	epochBits  = 32
	busStride  = 1 << 10
	diskStride = 1 << 10
	// bucketStride leaves room for the buckets that a lost map may have had.
	bucketStride = 1 << 16
)

// IsFirst says whether the map is one that recovery made, before any change.
func IsFirst(m *core.Map) bool { return m.Epoch > 0 && m.Epoch&(1<<epochBits-1) == 0 }

// Accept is what the operator takes upon himself.
type Accept struct {
	// Map is the checksum, or the beginning of it, of the map to go on from.
	Map string
	// OlderMap accepts that later maps, and what was written under them, may
	// be lost.
	OlderMap bool
	// LostSlots accepts that slots are empty, or older than they were.
	LostSlots bool
	// LostDisks accepts to go on without disks that cannot be opened.
	LostDisks bool
	// Intact accepts to recover a cluster that could go on by itself.
	Intact bool
}

// Objection is a reason not to go on, and the flag that accepts it.
type Objection struct {
	Flag     string `json:"flag"`
	Message  string `json:"message"`
	Accepted bool   `json:"accepted"`
}

// MapInfo names a map that was found.
type MapInfo struct {
	Epoch    core.Epoch `json:"epoch"`
	Checksum string     `json:"checksum"`
	Made     time.Time  `json:"made"`
	// SeenBy and ConfirmedBy are the nodes that hold it as their newest, or as
	// the last that their voter confirmed.
	SeenBy      []core.NodeID `json:"seen_by"`
	ConfirmedBy []core.NodeID `json:"confirmed_by"`
	// InEffect says that the voters that were shown put it in effect.
	InEffect bool `json:"in_effect"`
	// Base says that recovery goes on from it.
	Base bool `json:"base"`

	m *core.Map
}

// StaleSlot is a slot that goes on with what an old copy has.
type StaleSlot struct {
	Slot core.SlotID  `json:"slot"`
	Disk core.DiskID  `json:"disk"`
	Has  core.Version `json:"has"`
}

// LostDisk is a disk that the new map does not have any more.
type LostDisk struct {
	ID   core.DiskID `json:"id"`
	UUID string      `json:"uuid"`
	Node core.NodeID `json:"node"`
	Name string      `json:"name"`
}

// Plan is what recovery would do.
type Plan struct {
	Cluster    string        `json:"cluster_id"`
	Maps       []MapInfo     `json:"maps"` // newest first
	Nodes      []core.NodeID `json:"nodes"`
	LostNodes  []core.NodeID `json:"lost_nodes"`
	LostDisks  []LostDisk    `json:"lost_disks"`
	LostSlots  []core.SlotID `json:"lost_slots"`
	StaleSlots []StaleSlot   `json:"stale_slots"`
	// LostJobs says that no node has a copy of any job or transform, so that those
	// which there were are lost with the bus, their history included.
	LostJobs bool `json:"lost_jobs"`
	// Transforms are those that are kept; StoppedJobs had not ended, as far as is
	// known, and do not go on.
	Transforms  []string    `json:"transforms"`
	StoppedJobs []string    `json:"stopped_jobs"`
	Objections  []Objection `json:"objections"`
	// Epoch, Checksum, Voters and Bus are the new map's.
	Epoch    core.Epoch    `json:"epoch"`
	Checksum string        `json:"checksum"`
	Voters   []core.NodeID `json:"voters"`
	Bus      uint64        `json:"bus"`

	// Map is the new map, sealed, and Orders what goes with it.
	Map    *core.Map `json:"-"`
	Orders Orders    `json:"-"`
}

// Refusals are the objections that were not accepted.
func (p *Plan) Refusals() []Objection {
	return slices.DeleteFunc(slices.Clone(p.Objections), func(o Objection) bool { return o.Accepted })
}

// Flags of objections.
const (
	FlagMap       = "accept-map"
	FlagOlderMap  = "accept-older-map"
	FlagLostSlots = "accept-lost-slots"
	FlagLostDisks = "accept-lost-disks"
	FlagIntact    = "accept-intact"
)

// Decide says how the cluster goes on with the nodes that were found. Nodes that
// are not among them count as lost for good. It fails where no plan can be made
// whatever is accepted; a plan may be carried out only if it has no Refusals.
func Decide(found []Found, a Accept, now time.Time) (*Plan, error) {
	d := &decision{accept: a, now: now.Round(0).UTC(), plan: &Plan{}}
	if err := d.read(found); err != nil {
		return nil, err
	}
	if err := d.choose(); err != nil {
		return nil, err
	}
	d.survivors()
	if len(d.next.Nodes) == 0 || len(d.disks) == 0 {
		return nil, fmt.Errorf("recover: none of the nodes shown is a member with a usable disk by map %d: %w", d.base.Epoch, core.ErrInvalid)
	}
	if err := d.voters(); err != nil {
		return nil, err
	}
	if err := d.slots(); err != nil {
		return nil, err
	}
	d.older()
	d.intact()
	return d.finish()
}

// decision is a plan in the making.
type decision struct {
	accept Accept
	now    time.Time
	plan   *Plan

	found []Found                    // by node
	voted map[core.NodeID]*core.Map  // the last map confirmed by a voter
	base  *core.Map                  // to go on from
	next  *core.Map                  // the new map
	disks map[core.DiskID]*FoundDisk // of the new map
	// ahead lists disks that have taken part in terms that base does not know.
	ahead []string
}

// object adds an objection.
func (d *decision) object(flag string, accepted bool, format string, args ...any) {
	d.plan.Objections = append(d.plan.Objections, Objection{Flag: flag, Accepted: accepted, Message: fmt.Sprintf(format, args...)})
}

// read decodes what was found and collects the maps.
func (d *decision) read(found []Found) error {
	if len(found) == 0 {
		return fmt.Errorf("recover: no node is shown: %w", core.ErrInvalid)
	}
	d.found = slices.Clone(found)
	sort.Slice(d.found, func(i, j int) bool { return d.found[i].Node < d.found[j].Node })
	d.voted = map[core.NodeID]*core.Map{}
	d.plan.Cluster = d.found[0].Cluster
	for i := range d.found {
		f := &d.found[i]
		switch {
		case i > 0 && d.found[i-1].Node == f.Node:
			return fmt.Errorf("recover: node %s is shown twice: %w", f.Node, core.ErrInvalid)
		case f.Cluster != d.plan.Cluster:
			return fmt.Errorf("recover: node %s belongs to cluster %s, node %s to %s: %w", f.Node, f.Cluster, d.found[0].Node, d.plan.Cluster, core.ErrInvalid)
		}
		d.plan.Nodes = append(d.plan.Nodes, f.Node)
		for _, stored := range [][]byte{f.Map, f.Voter} {
			if _, err := core.DecodeMap(stored); errors.Is(err, core.ErrNewer) {
				return fmt.Errorf("recover: node %s: %w", f.Node, err)
			}
		}
		if m, err := core.DecodeMap(f.Map); err == nil && m.Cluster == f.Cluster {
			info := d.info(m)
			info.SeenBy = append(info.SeenBy, f.Node)
		}
		if m, err := core.DecodeMap(f.Voter); err == nil && m.Cluster == f.Cluster {
			info := d.info(m)
			info.ConfirmedBy = append(info.ConfirmedBy, f.Node)
			d.voted[f.Node] = m
		}
	}
	sort.SliceStable(d.plan.Maps, func(i, j int) bool { return d.plan.Maps[i].Epoch > d.plan.Maps[j].Epoch })
	for i := range d.plan.Maps {
		info := &d.plan.Maps[i]
		confirmed := func(v core.Voter) bool { return d.shown(v) && d.voted[v.Node].Sum() == info.Checksum }
		old := info.m.OldVoters
		if len(old) == 0 {
			old = info.m.Voters
		}
		info.InEffect = core.Majority(info.m.Voters, confirmed) && core.Majority(old, confirmed)
	}
	return nil
}

// info returns the entry of a map among those found.
func (d *decision) info(m *core.Map) *MapInfo {
	for i := range d.plan.Maps {
		if d.plan.Maps[i].Checksum == m.Sum() {
			return &d.plan.Maps[i]
		}
	}
	d.plan.Maps = append(d.plan.Maps, MapInfo{Epoch: m.Epoch, Checksum: m.Sum(), Made: m.Made, m: m})
	return &d.plan.Maps[len(d.plan.Maps)-1]
}

// node returns what was found of a node, or nil.
func (d *decision) node(id core.NodeID) *Found {
	for i := range d.found {
		if d.found[i].Node == id {
			return &d.found[i]
		}
	}
	return nil
}

// shown says whether the voter's own state was found.
func (d *decision) shown(v core.Voter) bool {
	f := d.node(v.Node)
	return f != nil && f.VoterKey == v.Key && d.voted[v.Node] != nil
}

// choose picks the map to go on from: the newest, unless the operator names one.
func (d *decision) choose() error {
	maps := d.plan.Maps
	if len(maps) == 0 {
		return fmt.Errorf("recover: no node shown has a map that can be read; show more nodes: %w", core.ErrNotFound)
	}
	at := 0
	if d.accept.Map != "" {
		var hits []int
		for i := range maps {
			if strings.HasPrefix(maps[i].Checksum, d.accept.Map) {
				hits = append(hits, i)
			}
		}
		if len(hits) != 1 {
			return fmt.Errorf("recover: --%s %s: %d of the maps found have such a checksum, want 1: %w", FlagMap, d.accept.Map, len(hits), core.ErrInvalid)
		}
		at = hits[0]
		if at > 0 && maps[0].Epoch > maps[at].Epoch {
			d.object(FlagOlderMap, d.accept.OlderMap, "map %d (%.12s) was chosen, but there is a newer one, %d (%.12s)",
				maps[at].Epoch, maps[at].Checksum, maps[0].Epoch, maps[0].Checksum)
		}
	}
	maps[at].Base = true
	d.base = maps[at].m
	// Equal numbers, or a successor that names another predecessor, are two
	// chains. Of maps that are further apart nothing can be said.
	for i := range maps {
		for j := range i {
			switch {
			case maps[i].Epoch == maps[j].Epoch:
				d.object(FlagMap, d.accept.Map != "", "two maps have the epoch %d, %.12s (of %s) and %.12s (of %s): the nodes' maps form more than one chain; name the one to go on from",
					maps[i].Epoch, maps[j].Checksum, holders(&maps[j]), maps[i].Checksum, holders(&maps[i]))
			case maps[i].Epoch+1 == maps[j].Epoch && maps[j].m.Prev != maps[i].Checksum:
				d.object(FlagMap, d.accept.Map != "", "map %d (%.12s, of %s) does not follow map %d (%.12s, of %s): the nodes' maps form more than one chain; name the one to go on from",
					maps[j].Epoch, maps[j].Checksum, holders(&maps[j]), maps[i].Epoch, maps[i].Checksum, holders(&maps[i]))
			}
		}
	}
	return nil
}

func holders(i *MapInfo) string {
	all := slices.Concat(i.SeenBy, i.ConfirmedBy)
	slices.Sort(all)
	return join(slices.Compact(all))
}

func join(ids []core.NodeID) string {
	s := make([]string, len(ids))
	for i, id := range ids {
		s[i] = string(id)
	}
	return strings.Join(s, ", ")
}

// survivors begins the new map with the nodes and disks that were found. What is
// missing is taken out for good: a node that comes back after all is no member,
// and a disk's number is never given again.
func (d *decision) survivors() {
	d.next = d.base.Clone()
	n := d.next
	n.Epoch = (d.base.Epoch>>epochBits + 1) << epochBits
	n.Prev, n.Made = d.base.Sum(), d.now
	n.Bus = (d.base.Bus/busStride + 1) * busStride
	n.NextDisk += diskStride
	n.NextBucket += bucketStride
	n.Nodes = slices.DeleteFunc(n.Nodes, func(k core.Node) bool {
		if d.node(k.ID) != nil {
			return false
		}
		d.plan.LostNodes = append(d.plan.LostNodes, k.ID)
		d.plan.Orders.Former = append(d.plan.Orders.Former, k)
		return true
	})
	for i := range n.Nodes {
		if n.Nodes[i].State == core.NodeDown {
			n.Nodes[i].State, n.Nodes[i].Since = core.NodeActive, d.now
		}
	}
	d.disks = map[core.DiskID]*FoundDisk{}
	n.Disks = slices.DeleteFunc(n.Disks, func(k core.Disk) bool {
		if f := d.node(k.Node); f != nil {
			for i := range f.Disks {
				if f.Disks[i].Error == "" && f.Disks[i].UUID == k.UUID {
					d.disks[k.ID] = &f.Disks[i]
					return false
				}
			}
			if k.State == core.DiskOK {
				d.object(FlagLostDisks, d.accept.LostDisks, "disk %s/%s (%s) is not among the disks that could be opened%s; mount it, or go on without it for good",
					k.Node, k.Name, k.UUID, f.failures())
			}
			d.plan.Orders.Exclude = append(d.plan.Orders.Exclude, k.UUID)
		}
		d.plan.LostDisks = append(d.plan.LostDisks, LostDisk{ID: k.ID, UUID: k.UUID, Node: k.Node, Name: k.Name})
		return true
	})
}

// failures says why disks of the node could not be opened.
func (f *Found) failures() string {
	var out []string
	for i := range f.Disks {
		if f.Disks[i].Error != "" {
			out = append(out, f.Disks[i].Path+": "+f.Disks[i].Error)
		}
	}
	if len(out) == 0 {
		return ""
	}
	return " (" + strings.Join(out, "; ") + ")"
}

// voters names the new voters from the survivors, those that were before first.
func (d *decision) voters() error {
	var can []core.Node
	for _, k := range d.next.Nodes {
		if k.State == core.NodeActive || k.State == core.NodeMaintenance {
			can = append(can, k)
		}
	}
	if len(can) == 0 {
		return fmt.Errorf("recover: none of the nodes shown is active by map %d, so none can vote: %w", d.base.Epoch, core.ErrInvalid)
	}
	count := 1
	switch {
	case len(can) >= 5:
		count = 5
	case len(can) >= 3:
		count = 3
	}
	was := func(k *core.Node) bool {
		return slices.ContainsFunc(d.base.Voters, func(v core.Voter) bool { return v.Node == k.ID })
	}
	zones := map[string]int{}
	var out []core.Voter
	d.plan.Orders.Keys = map[core.NodeID]string{}
	for len(out) < count {
		best := 0
		for i := range can {
			switch a, b := &can[i], &can[best]; {
			case zones[a.Zone] != zones[b.Zone]:
				if zones[a.Zone] < zones[b.Zone] {
					best = i
				}
			case was(a) && !was(b):
				best = i
			}
		}
		k := can[best]
		can = slices.Delete(can, best, best+1)
		zones[k.Zone]++
		key := d.node(k.ID).VoterKey
		if key == "" {
			return fmt.Errorf("recover: node %s has no voter key: %w", k.ID, core.ErrCorrupt)
		}
		out = append(out, core.Voter{Node: k.ID, Key: key})
		d.plan.Orders.Keys[k.ID] = key
		d.plan.Voters = append(d.plan.Voters, k.ID)
	}
	d.next.Voters, d.next.OldVoters = out, slices.Clone(out)
	return nil
}

// older objects if a map later than the one to go on from may have been in
// effect.
func (d *decision) older() {
	var missing []core.NodeID
	for _, v := range d.base.Voters {
		if !d.shown(v) {
			missing = append(missing, v.Node)
		}
	}
	if len(missing) > len(d.base.Voters)/2 {
		d.object(FlagOlderMap, d.accept.OlderMap, "%d of the %d voters of map %d are not shown with their state (%s): they may have put later maps in effect, and what was written under those may be lost without being named here",
			len(missing), len(d.base.Voters), d.base.Epoch, join(missing))
	}
	if len(d.ahead) > 0 {
		d.object(FlagOlderMap, d.accept.OlderMap, "%d slots on the disks took part in terms that map %d does not know, the first of them %s: a later map was in effect and is lost; such slots go on with the most recent copy shown",
			len(d.ahead), d.base.Epoch, d.ahead[0])
	}
}

// intact objects if the cluster could go on by itself.
func (d *decision) intact() {
	voters, bus := 0, 0
	outside := false
	for _, v := range d.base.Voters {
		if d.shown(v) {
			voters++
		}
		if f := d.node(v.Node); f != nil && slices.Contains(f.Bus, d.base.Bus) {
			bus++
		}
	}
	for i := range d.found {
		outside = outside || d.found[i].OutsideBus
	}
	need := len(d.base.Voters)/2 + 1
	busLost := !outside && bus < need
	if !outside {
		d.plan.Orders.Kept, d.plan.Transforms, d.plan.StoppedJobs = keep(d.found, d.now)
		d.plan.LostJobs = len(d.plan.Orders.Kept) == 0
	}
	if voters >= need && !busLost && len(d.plan.LostSlots) == 0 && len(d.plan.StaleSlots) == 0 {
		d.object(FlagIntact, d.accept.Intact, "%d of %d voters are here with their state and the bus, and every slot has an in-sync disk: start these nodes, the cluster heals by itself",
			voters, len(d.base.Voters))
	}
}

// finish seals the map.
func (d *decision) finish() (*Plan, error) {
	if err := d.next.Seal(); err != nil {
		return nil, err
	}
	enc, err := d.next.Encode()
	if err != nil {
		return nil, err
	}
	if _, err := core.DecodeMap(enc); err != nil {
		return nil, fmt.Errorf("recover: the new map is not sound: %w", err)
	}
	p := d.plan
	p.Map, p.Orders.Map = d.next, enc
	p.Epoch, p.Checksum, p.Bus = d.next.Epoch, d.next.Sum(), d.next.Bus
	return p, nil
}

// placer is what rendezvous hashing wants of the survivors.
func (d *decision) placer() (*placement.Placer, error) {
	c := d.next.Clone()
	if err := c.Seal(); err != nil { // sorts the tables
		return nil, err
	}
	return placement.New(c), nil
}
