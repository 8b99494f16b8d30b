package core

// ChangeKind names a change of the map.
type ChangeKind string

// The changes. Package placement defines what each does.
const (
	// ChangeBoot registers a node's start: its new boot and addresses.
	ChangeBoot ChangeKind = "boot"
	// ChangeAddNode adds a node with its disks.
	ChangeAddNode ChangeKind = "add-node"
	// ChangeAddDisk adds a disk to a node.
	ChangeAddDisk ChangeKind = "add-disk"
	// ChangeFail takes a node or a disk that is gone out of all in-sync sets
	// that keep another member.
	ChangeFail ChangeKind = "fail"
	// ChangeDrop takes a disk out of one slot; only the slot's active owner
	// may ask, and the change is void if Term or Boot do not match.
	ChangeDrop ChangeKind = "drop"
	// ChangeJoined makes a joining disk in sync, under the same conditions.
	ChangeJoined ChangeKind = "joined"
	// ChangeRenew gives a slot a new term and changes nothing else; its owner
	// asks for it, under the same conditions.
	ChangeRenew ChangeKind = "renew"
	// ChangeJoin adds a joining disk to a slot.
	ChangeJoin ChangeKind = "join"
	// ChangeNodeState and ChangeDiskState set a state.
	ChangeNodeState ChangeKind = "node-state"
	ChangeDiskState ChangeKind = "disk-state"
	// ChangeWeight sets the weight and zone of a node or disk.
	ChangeWeight ChangeKind = "weight"
	// ChangeOwner makes an in-sync disk the owner of a slot.
	ChangeOwner ChangeKind = "owner"
	// ChangeVoters replaces the voters.
	ChangeVoters ChangeKind = "voters"
	// ChangeAddBucket, ChangeSetBucket and ChangeRemoveBucket change the
	// bucket table.
	ChangeAddBucket    ChangeKind = "add-bucket"
	ChangeSetBucket    ChangeKind = "set-bucket"
	ChangeRemoveBucket ChangeKind = "remove-bucket"
	// ChangeReplicas sets R.
	ChangeReplicas ChangeKind = "replicas"
)

// Change asks for a change of the map. Which fields matter depends on Kind.
type Change struct {
	Kind   ChangeKind `json:"kind"`
	Slot   SlotID     `json:"slot,omitempty"`
	Term   Epoch      `json:"term,omitempty"`
	Boot   uint64     `json:"boot,omitempty"`
	Disk   DiskID     `json:"disk,omitempty"`
	Node   NodeID     `json:"node,omitempty"`
	Nodes  []Node     `json:"nodes,omitempty"`
	Disks  []Disk     `json:"disks,omitempty"`
	Voters []Voter    `json:"voters,omitempty"`
	Bucket *Bucket    `json:"bucket,omitempty"`
	State  string     `json:"state,omitempty"`
	// Reason says, for people, why a disk fails.
	Reason string   `json:"reason,omitempty"`
	Weight *float64 `json:"weight,omitempty"`
	Zone   *string  `json:"zone,omitempty"`
	Count  int      `json:"count,omitempty"`
}
