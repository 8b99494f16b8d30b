package job

import (
	"testing"

	"github.com/shoalstore/shoal/core"
)

// TestAwaits: a node that a map has just given slots goes on asking for them
// until it serves them, since nobody tells it then. A job stood still until the
// next change of the map, a minute later.
func TestAwaits(t *testing.T) {
	m := &core.Map{
		Nodes: []core.Node{{ID: "n1"}, {ID: "n2"}},
		Disks: []core.Disk{{ID: 1, Node: "n1"}, {ID: 2, Node: "n2"}},
		Slots: core.SlotTable{{Insync: []core.DiskID{1, 2}}, {Insync: []core.DiskID{2, 1}}, {Insync: []core.DiskID{1}}, {}},
	}
	for _, tt := range []struct {
		self   core.NodeID
		served int
		want   bool
	}{
		{"n1", 2, false},
		{"n1", 1, true}, // one is being taken over
		{"n1", 0, true}, // no lease
		{"n2", 1, false},
		{"n3", 0, false},
	} {
		if got := awaits(m, tt.self, tt.served); got != tt.want {
			t.Errorf("%s serves %d: got %t, want %t", tt.self, tt.served, got, tt.want)
		}
	}
}
