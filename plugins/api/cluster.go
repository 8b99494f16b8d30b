package api

import (
	"time"

	"github.com/shoalstore/shoal/core"
)

// Amount counts objects and their bytes.
type Amount struct {
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

// Add returns the sum.
func (a Amount) Add(b Amount) Amount { return Amount{a.Objects + b.Objects, a.Bytes + b.Bytes} }

// Cluster is the state of the whole.
type Cluster struct {
	ClusterID string     `json:"cluster_id"`
	Epoch     core.Epoch `json:"epoch"`
	// NATSLeader is the coordinator that leads the bus, "" if there is none.
	NATSLeader string `json:"nats_leader"`
	// Healthy says that every node is active, every disk is ok, every slot
	// has all its members in sync, nothing is under-replicated or
	// unavailable, and no rebalance runs. Problems say why it is not so.
	Healthy         bool      `json:"healthy"`
	Problems        []string  `json:"problems,omitempty"`
	UnderReplicated Lacking   `json:"under_replicated"`
	Unavailable     Objects   `json:"unavailable"`
	Rebalance       Rebalance `json:"rebalance"`
	Nodes           []Node    `json:"nodes"`
}

// Objects is a count of objects of unknown size.
type Objects struct {
	Objects int64 `json:"objects"`
}

// Lacking counts objects that lack redundancy: shards, or copies of the records
// that hold their data.
type Lacking struct {
	Amount
	// Rate is how many get it back in a second, over the last seconds.
	Rate Rate `json:"rate"`
	// ETA is when none is left at that rate; nil if that is not known.
	ETA *time.Time `json:"eta"`
}

// Rebalance says how far the move of data to its places is. State is idle or
// running.
type Rebalance struct {
	State string `json:"state"`
	// MovedBytes are the bytes of shards and records that reached disks to make
	// what is stored what the map asks for, since the nodes' starts. MinimumBytes
	// is the least with which that could be done, what is left included.
	MovedBytes   int64 `json:"moved_bytes"`
	MinimumBytes int64 `json:"minimum_bytes"`
	// LeftBytes are the bytes of shards yet to be moved, Rate those moved in a
	// second of late, ETA when none is left; nil if that is not known.
	LeftBytes int64      `json:"left_bytes"`
	Rate      float64    `json:"rate"`
	ETA       *time.Time `json:"eta"`
}

// Node is a member of the cluster.
type Node struct {
	ID    core.NodeID    `json:"id"`
	State core.NodeState `json:"state"`
	Since time.Time      `json:"since"`
	Zone  string         `json:"zone"`
	// Weight multiplies those of the disks.
	Weight float64 `json:"weight"`
	// URL is the address for clients, Peer and Bus those of the protocols.
	URL  string `json:"url"`
	Peer string `json:"peer"`
	Bus  string `json:"bus"`
	// Voter says that its confirmation puts maps in effect.
	Voter bool `json:"voter"`
	// Lease says that the node holds its lease now.
	Lease   bool       `json:"lease"`
	Epoch   core.Epoch `json:"epoch"` // of the map that it has reported
	Boot    uint64     `json:"boot"`
	Version string     `json:"version"`
	Started *time.Time `json:"started"`
	// Slots is the number of slots that the node owns.
	Slots    int   `json:"slots"`
	Disks    int   `json:"disks"`
	Capacity int64 `json:"capacity"`
	Used     int64 `json:"used"`
}

// Nodes is the answer to a listing of nodes.
type Nodes struct {
	Nodes []Node `json:"nodes"`
}

// Disk is a disk of a node.
type Disk struct {
	// ID is NODE/NAME, as commands take it; Number is the map's.
	ID       string         `json:"id"`
	Number   core.DiskID    `json:"number"`
	Node     core.NodeID    `json:"node"`
	Name     string         `json:"name"`
	Path     string         `json:"path"`
	UUID     string         `json:"uuid"`
	State    core.DiskState `json:"state"`
	Since    time.Time      `json:"since"`
	Weight   float64        `json:"weight"`
	Capacity int64          `json:"capacity"`
	Used     int64          `json:"used"`
	// Slots is the number of slots of which the disk keeps the records.
	Slots int `json:"slots"`
	// Objects is the number of objects of which it has the records, Shards
	// that of the pieces of objects on it.
	Objects int64 `json:"objects"`
	Shards  int64 `json:"shards"`
	Errors  int64 `json:"errors"` // of I/O, since the node's start
	// Problem says why the node cannot use the disk, where it cannot.
	Problem string `json:"problem,omitempty"`
}

// Disks is the answer to a listing of disks.
type Disks struct {
	Disks []Disk `json:"disks"`
}

// Placement changes how much data a node or a disk gets. Nil leaves a value.
type Placement struct {
	Weight *float64 `json:"weight,omitempty"`
	Zone   *string  `json:"zone,omitempty"` // of nodes only
}

// NodeAction is what can be done to a node.
type NodeAction string

// The actions on nodes.
const (
	MaintenanceStart NodeAction = "maintenance-start"
	MaintenanceStop  NodeAction = "maintenance-stop"
	Decommission     NodeAction = "decommission"
)

// DiskAction is what can be done to a disk.
type DiskAction string

// The actions on disks.
const (
	DetachDisk  DiskAction = "detach"
	AttachDisk  DiskAction = "attach"
	FormatDisk  DiskAction = "format"
	RebuildDisk DiskAction = "rebuild"
	// ForceFormatDisk formats a directory that holds what is no part of a disk,
	// or the disk of another cluster, too.
	ForceFormatDisk DiskAction = "format-force"
)
