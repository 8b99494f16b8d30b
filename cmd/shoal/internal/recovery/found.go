package recovery

import (
	"encoding/json"
	"fmt"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
)

// Found is what the directories of one stopped node hold. It is JSON, so that
// it can be carried from machine to machine.
type Found struct {
	Cluster string      `json:"cluster"`
	Node    core.NodeID `json:"node"`
	// VoterKey is the name of the voter's state.
	VoterKey string `json:"voter_key"`
	// Map and Voter are the stored forms of the newest map that the node saw
	// and of the last one that its voter confirmed; empty where there is none.
	Map   []byte `json:"map,omitempty"`
	Voter []byte `json:"voter,omitempty"`
	// Bus lists the generations of the bus of which the node has a store with
	// content, or what the generation is made from.
	Bus []uint64 `json:"bus,omitempty"`
	// OutsideBus says that the node is configured for a bus that Shoal does
	// not run.
	OutsideBus bool `json:"outside_bus,omitempty"`
	// Kept is what the node has copied of the transforms and jobs on the bus.
	Kept  []bus.KeyValue `json:"kept,omitempty"`
	Disks []FoundDisk    `json:"disks"`
}

// FoundDisk is a disk of the node's configuration.
type FoundDisk struct {
	Path string `json:"path"`
	// UUID is empty, and Error says why, where the disk could not be opened.
	UUID  string `json:"uuid,omitempty"`
	Error string `json:"error,omitempty"`
	// Slots is what the disk keeps of each slot that it has.
	Slots map[core.SlotID]core.SlotState `json:"slots,omitempty"`
}

// Orders are what a node has to carry out besides taking the new map. They are
// JSON, like Found.
type Orders struct {
	// Map is the stored form of the new map.
	Map []byte `json:"map"`
	// Remove lists, by the disks' UUIDs, the slots of which a disk must forget
	// what it has, because it may differ from what the slot goes on with.
	Remove map[string][]core.SlotID `json:"remove,omitempty"`
	// Exclude lists the UUIDs of disks that must not be used any more.
	Exclude []string `json:"exclude,omitempty"`
	// Former are the nodes that the new map does not have any more.
	Former []core.Node `json:"former,omitempty"`
	// Kept is what the new bus holds beside the map.
	Kept []bus.KeyValue `json:"kept,omitempty"`
	// Keys are the names of the voters' states, by node.
	Keys map[core.NodeID]string `json:"keys"`
}

// EncodeFound and DecodeFound are the form in which Found is carried around.
func EncodeFound(f Found) ([]byte, error) { return encode(f) }

// DecodeFound is the inverse of EncodeFound.
func DecodeFound(b []byte) (f Found, err error) {
	if err = json.Unmarshal(b, &f); err == nil && f.Node == "" {
		err = fmt.Errorf("it names no node")
	}
	if err != nil {
		return f, fmt.Errorf("not what `shoal recover --report` writes: %w: %w", core.ErrInvalid, err)
	}
	return f, nil
}

// EncodeOrders is the form in which Orders are carried around.
func EncodeOrders(o Orders) ([]byte, error) { return encode(o) }

// DecodeOrders is the inverse of EncodeOrders; it verifies the map.
func DecodeOrders(b []byte) (o Orders, m *core.Map, err error) {
	if err = json.Unmarshal(b, &o); err == nil {
		m, err = core.DecodeMap(o.Map)
	}
	if err != nil {
		return o, nil, fmt.Errorf("not what `shoal recover --out` writes: %w: %w", core.ErrInvalid, err)
	}
	return o, m, nil
}

func encode(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode for recovery: %w", err)
	}
	return append(b, '\n'), nil
}
