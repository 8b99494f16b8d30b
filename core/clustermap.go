package core

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"time"
)

// NodeState is what the map says of a node.
type NodeState string

// The states of a node. Only an active node is given new work; a draining one
// serves what it has until others have it; a down one failed or was stopped.
const (
	NodeJoining        NodeState = "joining"
	NodeActive         NodeState = "active"
	NodeMaintenance    NodeState = "maintenance"
	NodeDraining       NodeState = "draining"
	NodeDown           NodeState = "down"
	NodeDecommissioned NodeState = "decommissioned"
)

// DiskState is what the map says of a disk.
type DiskState string

// The states of a disk.
const (
	DiskNew      DiskState = "new"
	DiskOK       DiskState = "ok"
	DiskFailed   DiskState = "failed"
	DiskDetached DiskState = "detached"
)

// BucketState is a bucket's place between creation and removal.
type BucketState string

// The states of a bucket. Writes are served in BucketOK only, reads in all.
const (
	BucketCreating BucketState = "creating"
	BucketOK       BucketState = "ok"
	BucketDeleting BucketState = "deleting"
)

// Domain is the failure domain over which a bucket spreads its shards.
type Domain string

// The failure domains.
const (
	DomainNode Domain = "node"
	DomainDisk Domain = "disk"
)

// Node is a member of the cluster.
type Node struct {
	ID NodeID `json:"id"`
	// Boot counts the node's starts. A node acts only under a map in effect
	// that carries its present boot.
	Boot uint64 `json:"boot"`
	// Peer, Client, Bus and Route are host:port addresses: of the peer
	// protocol, of S3 and /-/, and of the bus server's two ports, should the
	// node be a coordinator.
	Peer   string `json:"peer"`
	Client string `json:"client"`
	Bus    string `json:"bus,omitempty"`
	Route  string `json:"route,omitempty"`
	// Weight multiplies the weights of the node's disks; 0 counts as 1.
	Weight float64   `json:"weight,omitempty"`
	Zone   string    `json:"zone,omitempty"`
	State  NodeState `json:"state"`
	// Since is when State was set, by the proposer's clock.
	Since time.Time `json:"since"`
}

// Disk is a device that fails as a whole.
type Disk struct {
	ID   DiskID `json:"id"`
	UUID string `json:"uuid"`
	Node NodeID `json:"node"`
	// Name is the disk's name on its node, "d1".
	Name string `json:"name"`
	// Weight is the disk's share of data, by default its capacity in GiB.
	Weight float64   `json:"weight"`
	State  DiskState `json:"state"`
	// Reason says why the disk is not ok, for people.
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
}

// Slot is a row of the slot table. All three fields are replaced together:
// Term is the epoch of the row's last change.
type Slot struct {
	Term Epoch
	// Insync lists the disks that hold all records of the slot, owner first.
	Insync []DiskID
	// Joining lists the disks that are being brought level.
	Joining []DiskID
}

// Owner is the first in-sync disk, 0 where there is none.
func (s Slot) Owner() DiskID {
	if len(s.Insync) == 0 {
		return 0
	}
	return s.Insync[0]
}

// Has says whether the disk is in sync or joining.
func (s Slot) Has(d DiskID) bool {
	return slices.Contains(s.Insync, d) || slices.Contains(s.Joining, d)
}

// Equal says whether two rows are the same.
func (s Slot) Equal(t Slot) bool {
	return s.Term == t.Term && slices.Equal(s.Insync, t.Insync) && slices.Equal(s.Joining, t.Joining)
}

// MaxInline is the most that [Policy.Inline] may be: what is up to it is taken into
// memory whole.
const MaxInline = 1 << 20

// Policy is what a bucket asks for its objects.
type Policy struct {
	Scheme Scheme `json:"scheme"`
	Domain Domain `json:"domain"`
	// Inline is the size in bytes up to which an object's data is kept in
	// its record, at most [MaxInline].
	Inline int64 `json:"inline"`
	// ETag is "md5" or "fast".
	ETag string `json:"etag"`
	// Sendfile serves large bodies without verifying them on the way.
	Sendfile bool `json:"sendfile,omitempty"`
	// LRU lets the cluster drop copies that a backend still has.
	LRU bool `json:"lru,omitempty"`
}

// Bucket is a row of the map's bucket table.
type Bucket struct {
	ID      BucketID    `json:"id"`
	Name    BucketName  `json:"name"`
	Alias   string      `json:"alias"`
	State   BucketState `json:"state"`
	Policy  Policy      `json:"policy"`
	Created time.Time   `json:"created"`
	// Remote is how to reach a bucket that is not Shoal's own, as far as it
	// says otherwise than the nodes' configuration.
	Remote RemoteSettings `json:"remote,omitzero"`
}

// Voter is a node whose confirmation puts maps in effect. Key is the random
// name of the voter's own persisted state: one that lost its state has a new
// key and does not vote until a map names it anew.
type Voter struct {
	Node NodeID `json:"node"`
	Key  string `json:"key"`
}

// Map is the one self-contained value from which every node decides by itself
// where things are. Maps form a chain: each carries its predecessor's checksum.
// A Map is immutable once made; change a [Map.Clone].
type Map struct {
	// Features are the bits of what was added to the format that a reader
	// must know; see [DecodeMap].
	Features uint64    `json:"features,omitempty"`
	Cluster  string    `json:"cluster"`
	Epoch    Epoch     `json:"epoch"`
	Prev     string    `json:"prev"`
	Made     time.Time `json:"made"`
	// Replicas is R, the number of disks that keep a slot's records.
	Replicas int    `json:"replicas"`
	Nodes    []Node `json:"nodes"` // by ID
	Disks    []Disk `json:"disks"` // by ID
	// Voters are the present voters; OldVoters those of the predecessor. A
	// map is in effect by a majority of each.
	Voters    []Voter `json:"voters"`
	OldVoters []Voter `json:"old_voters"`
	// Bus numbers the bus's set of coordinators: one per set of voters.
	Bus        uint64    `json:"bus"`
	NextDisk   DiskID    `json:"next_disk"`
	NextBucket BucketID  `json:"next_bucket"`
	Buckets    []Bucket  `json:"buckets"` // by ID
	Slots      SlotTable `json:"slots"`

	// sum is the checksum of the encoded map and body its JSON, set by Seal
	// and DecodeMap.
	sum  string
	body []byte
}

// SlotTable is the slot table; in JSON it is base64 of its binary form.
type SlotTable []Slot

// A stored map begins with the version of its format, then its checksum.
const (
	mapWord    = "shoal-map-"
	mapVersion = 1
	mapMagic   = mapWord + "1 sha256:"
	// knownMapFeatures are the feature bits that this package understands.
	knownMapFeatures = mapRemote
	// mapRemote: a bucket has Remote. Who does not know that would ask
	// another server.
	mapRemote = 1
)

// Sum is the map's own checksum: the SHA-256 of its JSON, in hex.
func (m *Map) Sum() string { return m.sum }

// Seal finishes a map after its last change: it sorts the tables and computes
// the checksum.
func (m *Map) Seal() error {
	sort.Slice(m.Nodes, func(i, j int) bool { return m.Nodes[i].ID < m.Nodes[j].ID })
	sort.Slice(m.Disks, func(i, j int) bool { return m.Disks[i].ID < m.Disks[j].ID })
	sort.Slice(m.Buckets, func(i, j int) bool { return m.Buckets[i].ID < m.Buckets[j].ID })
	m.Features &^= mapRemote
	for i := range m.Buckets {
		if m.Buckets[i].Remote != (RemoteSettings{}) {
			m.Features |= mapRemote
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode map %d: %w", m.Epoch, err)
	}
	s := sha256.Sum256(b)
	m.sum, m.body = hex.EncodeToString(s[:]), b
	return nil
}

// Encode returns the map's stored form: a line with a magic word and the
// checksum, then JSON.
func (m *Map) Encode() ([]byte, error) {
	b, sum := m.body, m.sum
	if b == nil {
		var err error
		if b, err = json.Marshal(m); err != nil {
			return nil, fmt.Errorf("encode map %d: %w", m.Epoch, err)
		}
		s := sha256.Sum256(b)
		sum = hex.EncodeToString(s[:])
	}
	out := make([]byte, 0, len(mapMagic)+len(sum)+1+len(b))
	out = append(out, mapMagic...)
	out = append(out, sum...)
	out = append(out, '\n')
	return append(out, b...), nil
}

// IsEncoded says whether b is the stored form of m, which must be sealed. Who
// has m need not decode b then.
func (m *Map) IsEncoded(b []byte) bool {
	head, body, ok := bytes.Cut(b, []byte{'\n'})
	sum, magic := bytes.CutPrefix(head, []byte(mapMagic))
	return ok && magic && m.sum != "" && string(sum) == m.sum && bytes.Equal(body, m.body)
}

// DecodeMap reads the stored form and verifies its checksum and its inner
// consistency. A damaged map is ErrCorrupt; one of a later format, or with
// feature bits that are not known here, is ErrNewer.
func DecodeMap(b []byte) (*Map, error) {
	head, body, ok := bytes.Cut(b, []byte{'\n'})
	sum, magic := bytes.CutPrefix(head, []byte(mapMagic))
	if !ok || !magic {
		if v := mapFormat(head); v > mapVersion {
			return nil, fmt.Errorf("map: format version %d, this program knows up to %d; use a newer one: %w", v, mapVersion, ErrNewer)
		}
		return nil, fmt.Errorf("map: not a map of a known format: %w", ErrCorrupt)
	}
	s := sha256.Sum256(body)
	if hex.EncodeToString(s[:]) != string(sum) {
		return nil, fmt.Errorf("map: checksum mismatch: %w", ErrCorrupt)
	}
	m := new(Map)
	err := json.Unmarshal(body, m)
	if f := m.Features &^ knownMapFeatures; f != 0 {
		return nil, fmt.Errorf("map %d: feature bits %#x are unknown to this program; use a newer one: %w", m.Epoch, f, ErrNewer)
	}
	if err != nil {
		return nil, fmt.Errorf("map: %w: %w", ErrCorrupt, err)
	}
	m.sum, m.body = string(sum), bytes.Clone(body)
	return m, m.check()
}

// mapFormat reads the version of the format out of a map's first line; 0 if
// that is no such line.
func mapFormat(head []byte) uint64 {
	v, ok := bytes.CutPrefix(head, []byte(mapWord))
	v, _, more := bytes.Cut(v, []byte{' '})
	n, err := strconv.ParseUint(string(v), 10, 32)
	if !ok || !more || err != nil {
		return 0
	}
	return n
}

// check verifies what every reader of a map relies on.
func (m *Map) check() error {
	bad := func(why string) error { return fmt.Errorf("map %d: %s: %w", m.Epoch, why, ErrCorrupt) }
	if m.Cluster == "" || m.Epoch == 0 || len(m.Slots) == 0 || len(m.Voters) == 0 {
		return bad("cluster, epoch, slots or voters are missing")
	}
	for i := range m.Nodes {
		if i > 0 && m.Nodes[i-1].ID >= m.Nodes[i].ID {
			return bad("nodes are not in order")
		}
	}
	for i := range m.Disks {
		if i > 0 && m.Disks[i-1].ID >= m.Disks[i].ID || m.Disks[i].ID == 0 {
			return bad("disks are not in order")
		}
		if m.Node(m.Disks[i].Node) == nil {
			return bad("a disk names no node")
		}
	}
	for i := range m.Buckets {
		if i > 0 && m.Buckets[i-1].ID >= m.Buckets[i].ID || m.Buckets[i].ID == 0 {
			return bad("buckets are not in order")
		}
	}
	known := make(map[DiskID]bool, len(m.Disks))
	for i := range m.Disks {
		known[m.Disks[i].ID] = true
	}
	for i := range m.Slots {
		for _, l := range [...][]DiskID{m.Slots[i].Insync, m.Slots[i].Joining} {
			for _, d := range l {
				if !known[d] {
					return bad(fmt.Sprintf("slot %d names disk %d, which is not in the map", i, d))
				}
			}
		}
	}
	return nil
}

// Clone returns a copy that shares nothing with m, for making a successor.
func (m *Map) Clone() *Map {
	c := *m
	c.Nodes = slices.Clone(m.Nodes)
	c.Disks = slices.Clone(m.Disks)
	c.Voters = slices.Clone(m.Voters)
	c.OldVoters = slices.Clone(m.OldVoters)
	c.Buckets = slices.Clone(m.Buckets)
	c.Slots = m.Slots.clone()
	c.sum, c.body = "", nil
	return &c
}

// clone copies the table; the lists share one array, without room to grow.
func (t SlotTable) clone() SlotTable {
	n := 0
	for i := range t {
		n += len(t[i].Insync) + len(t[i].Joining)
	}
	all := make([]DiskID, 0, n)
	part := func(l []DiskID) []DiskID {
		if l == nil {
			return nil
		}
		from := len(all)
		all = append(all, l...)
		return all[from:len(all):len(all)]
	}
	out := make(SlotTable, len(t))
	for i := range t {
		out[i] = Slot{Term: t[i].Term, Insync: part(t[i].Insync), Joining: part(t[i].Joining)}
	}
	return out
}

// Node returns the node with that name, or nil. The caller must not change it
// unless m is its own clone.
func (m *Map) Node(id NodeID) *Node {
	i := sort.Search(len(m.Nodes), func(i int) bool { return m.Nodes[i].ID >= id })
	if i == len(m.Nodes) || m.Nodes[i].ID != id {
		return nil
	}
	return &m.Nodes[i]
}

// Disk returns the disk with that number, or nil; see [Map.Node].
func (m *Map) Disk(id DiskID) *Disk {
	i := sort.Search(len(m.Disks), func(i int) bool { return m.Disks[i].ID >= id })
	if i == len(m.Disks) || m.Disks[i].ID != id {
		return nil
	}
	return &m.Disks[i]
}

// Bucket returns the bucket with that number, or nil; see [Map.Node].
func (m *Map) Bucket(id BucketID) *Bucket {
	i := sort.Search(len(m.Buckets), func(i int) bool { return m.Buckets[i].ID >= id })
	if i == len(m.Buckets) || m.Buckets[i].ID != id {
		return nil
	}
	return &m.Buckets[i]
}

// BucketNamed returns the bucket of that name, or nil.
func (m *Map) BucketNamed(n BucketName) *Bucket {
	for i := range m.Buckets {
		if m.Buckets[i].Name == n {
			return &m.Buckets[i]
		}
	}
	return nil
}

// BucketAlias returns the bucket that S3 clients know by that name, or nil.
func (m *Map) BucketAlias(alias string) *Bucket {
	for i := range m.Buckets {
		if m.Buckets[i].Alias == alias {
			return &m.Buckets[i]
		}
	}
	return nil
}

// NodeOf returns the name of the node that has the disk, "" for no disk.
func (m *Map) NodeOf(d DiskID) NodeID {
	if disk := m.Disk(d); disk != nil {
		return disk.Node
	}
	return ""
}

// OwnerNode returns the node that owns the slot, "" where there is none.
func (m *Map) OwnerNode(s SlotID) NodeID { return m.NodeOf(m.Slots[s].Owner()) }

// SlotBallot is the ballot under which the slot's owner acts: the slot's term
// and the boot of the owner's node.
func (m *Map) SlotBallot(s SlotID) Ballot {
	b := Ballot{Term: m.Slots[s].Term}
	if n := m.Node(m.OwnerNode(s)); n != nil {
		b.Boot = n.Boot
	}
	return b
}

// IsVoter says whether the node votes under that key in m.
func (m *Map) IsVoter(n NodeID, key string) bool {
	return slices.Contains(m.Voters, Voter{Node: n, Key: key})
}

// Losers returns the nodes from which next takes something that m gave: the
// ownership of a slot, or the right to write under a bucket's row as it was.
// A voter confirms next only when none of them can still act under m.
func (m *Map) Losers(next *Map) []NodeID {
	lost := map[NodeID]bool{}
	moved := map[DiskID]bool{} // to another node
	for i := range m.Disks {
		if d := &m.Disks[i]; next.NodeOf(d.ID) != d.Node {
			moved[d.ID] = true
		}
	}
	for i := range m.Slots {
		was := m.Slots[i].Owner()
		if i < len(next.Slots) && next.Slots[i].Owner() == was && (len(moved) == 0 || !moved[was]) {
			continue
		}
		if n := m.NodeOf(was); n != "" {
			lost[n] = true
		}
	}
	for i := range m.Buckets {
		b := next.Bucket(m.Buckets[i].ID)
		if b != nil && b.State == m.Buckets[i].State && b.Policy == m.Buckets[i].Policy && b.Remote == m.Buckets[i].Remote {
			continue
		}
		if b != nil && m.Buckets[i].State == BucketCreating {
			continue
		}
		for j := range m.Nodes {
			lost[m.Nodes[j].ID] = true
		}
	}
	out := make([]NodeID, 0, len(lost))
	for n := range lost {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// Majority says whether more than half of the voters satisfy ok.
func Majority(voters []Voter, ok func(Voter) bool) bool {
	n := 0
	for _, v := range voters {
		if ok(v) {
			n++
		}
	}
	return n > len(voters)/2
}

// MarshalJSON writes the table's binary form: for each slot the term, then the
// two lists, each a count and disk numbers, all as unsigned varints.
func (t SlotTable) MarshalJSON() ([]byte, error) {
	b := binary.AppendUvarint(nil, uint64(len(t)))
	for _, s := range t {
		b = binary.AppendUvarint(b, uint64(s.Term))
		for _, l := range [][]DiskID{s.Insync, s.Joining} {
			b = binary.AppendUvarint(b, uint64(len(l)))
			for _, d := range l {
				b = binary.AppendUvarint(b, uint64(d))
			}
		}
	}
	return json.Marshal(base64.StdEncoding.EncodeToString(b))
}

// UnmarshalJSON is the inverse of MarshalJSON. It refuses tables of more than
// 1 Mi slots and lists of more than 64 disks.
func (t *SlotTable) UnmarshalJSON(j []byte) error {
	var s string
	if err := json.Unmarshal(j, &s); err != nil {
		return err
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return fmt.Errorf("slot table: %w", err)
	}
	d := decoder{b: b}
	n := d.count(1<<20, 3)
	out := make(SlotTable, n)
	all := make([]DiskID, 0, len(b)) // a disk takes a byte at the least
	for i := range out {
		out[i].Term = Epoch(d.uvarint())
		out[i].Insync, all = d.disks(all)
		out[i].Joining, all = d.disks(all)
	}
	if d.err != nil || len(d.b) != 0 {
		return fmt.Errorf("slot table: malformed: %w", ErrCorrupt)
	}
	*t = out
	return nil
}

// disks reads a list behind those in all, which has room for it.
func (d *decoder) disks(all []DiskID) (list, more []DiskID) {
	n := d.count(64, 1)
	if n == 0 {
		return nil, all
	}
	from := len(all)
	for range n {
		all = append(all, DiskID(d.uvarint()))
	}
	return all[from:len(all):len(all)], all
}
