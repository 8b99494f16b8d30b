package engine

import (
	"encoding/binary"
	"testing"

	"github.com/shoalstore/shoal/core"
)

// A node of before does not say whether it serves clients, nor does what is cut short
// count as an answer.
func TestTakingAnswers(t *testing.T) {
	for _, want := range []taking{{epoch: 7, left: 300, busy: true}, {epoch: 1 << 40}, {busy: true}} {
		if got, err := decodeTaking(want.append(nil)); err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
	old := binary.AppendUvarint(binary.AppendUvarint(nil, 9), 2)
	if got, err := decodeTaking(old); err != nil || got != (taking{epoch: 9, left: 2}) {
		t.Errorf("an answer of before: %+v, %v", got, err)
	}
	for _, b := range [][]byte{nil, {0x80}, {1}, {1, 0x80}} {
		if got, err := decodeTaking(b); err == nil {
			t.Errorf("% x: got %+v", b, got)
		}
	}
}

// No more slots change hands until those who were given some have them, or are gone, or
// have had time enough.
func TestHandedOver(t *testing.T) {
	m := &core.Map{Epoch: 5, Nodes: []core.Node{{ID: "n1"}, {ID: "n2"}}, Disks: []core.Disk{{ID: 1, Node: "n1"}, {ID: 2, Node: "n2"}}}
	given := func() *handedOver {
		h := &handedOver{}
		h.note(m, []core.Change{{Kind: core.ChangeOwner, Disk: 1}, {Kind: core.ChangeDrop, Disk: 2}}, 1)
		return h
	}
	for _, c := range []struct {
		name string
		said map[core.NodeID]taking
		now  core.Instant
		want bool
	}{
		{"no answer", nil, 2, true},
		{"of an older map", map[core.NodeID]taking{"n1": {epoch: 4}}, 2, true},
		{"still taking", map[core.NodeID]taking{"n1": {epoch: 5, left: 1}}, 2, true},
		{"taken", map[core.NodeID]taking{"n1": {epoch: 5}}, 2, false},
		{"cannot say", map[core.NodeID]taking{"n1": {old: true}}, 2, false},
		{"too long", nil, 2 + core.Instant(takeOverTime), false},
	} {
		if got := given().still(m, c.said, c.now); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	h := given()
	if m := (&core.Map{Epoch: 6, Nodes: m.Nodes[1:]}); h.still(m, nil, 2) {
		t.Error("a node that is gone is waited for")
	}
}
