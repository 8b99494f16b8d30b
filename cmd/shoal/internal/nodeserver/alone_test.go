package nodeserver

import (
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

// A start has a number above all earlier ones, whatever became of the clock.
func TestBootOf(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	for _, v := range []struct {
		known *core.Node
		want  uint64
	}{
		{nil, 1_700_000_000_000},
		{&core.Node{Boot: 5}, 1_700_000_000_000},
		{&core.Node{Boot: 1_700_000_000_000}, 1_700_000_000_001},
		{&core.Node{Boot: 1_900_000_000_000}, 1_900_000_000_001},
	} {
		if got := bootOf(now, v.known); got != v.want {
			t.Errorf("start after %+v: got %d, want %d", v.known, got, v.want)
		}
	}
	if got := bootOf(time.UnixMilli(-5), nil); got != 1 {
		t.Errorf("before 1970: got %d, want 1", got)
	}
}

// A node ends when the map has a later start of it, and only then.
func TestOvertaken(t *testing.T) {
	s := &server{state: &state{id: identity{Node: "n1"}}, boot: 7}
	for boot, want := range map[uint64]bool{6: false, 7: false, 8: true} {
		m := &core.Map{Nodes: []core.Node{{ID: "n1", Boot: boot}, {ID: "n2", Boot: 99}}}
		if err := s.overtaken(m); (err != nil) != want {
			t.Errorf("a map with start %d: got %v", boot, err)
		}
	}
}

// A disk out of use is not shown any more once another has its place.
func TestReplaced(t *testing.T) {
	m := &core.Map{Disks: []core.Disk{
		{ID: 1, Node: "n1", Name: "d1", State: core.DiskFailed},
		{ID: 2, Node: "n1", Name: "d2", State: core.DiskOK},
		{ID: 3, Node: "n2", Name: "d1", State: core.DiskOK},
		{ID: 4, Node: "n1", Name: "d3", State: core.DiskDetached},
		{ID: 5, Node: "n1", Name: "d3", State: core.DiskFailed},
		{ID: 6, Node: "n1", Name: "d2", State: core.DiskFailed}, // the older one was mounted again
	}}
	for i, want := range []bool{false, false, false, true, false, true} {
		if got := replaced(m, &m.Disks[i]); got != want {
			t.Errorf("disk %d: got %t, want %t", m.Disks[i].ID, got, want)
		}
	}
}
