package slot

import (
	"fmt"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

// bigNode is one of five nodes with three disks each, 4,096 slots on three
// disks, of which it owns a fifth.
func bigNode(b *testing.B) (*Node, *core.Map, core.Instant) {
	b.Helper()
	const slots = 4096
	m := &core.Map{Cluster: "c", Epoch: 1, Replicas: 3, Bus: 1, NextDisk: 16, Slots: make(core.SlotTable, slots)}
	for i := range 5 {
		id := core.NodeID(fmt.Sprintf("n%d", i+1))
		m.Nodes = append(m.Nodes, core.Node{ID: id, Boot: 1, State: core.NodeActive})
		m.Voters = append(m.Voters, core.Voter{Node: id, Key: "k" + string(id)})
		for d := range 3 {
			m.Disks = append(m.Disks, core.Disk{ID: core.DiskID(3*i + d + 1), UUID: fmt.Sprint(i, d), Node: id, State: core.DiskOK})
		}
	}
	for s := range m.Slots {
		disk := func(k int) core.DiskID { return core.DiskID((3*((s+k)%5) + s/5%3) + 1) }
		m.Slots[s] = core.Slot{Term: 1, Insync: []core.DiskID{disk(0), disk(1), disk(2)}}
	}
	if err := m.Seal(); err != nil {
		b.Fatal(err)
	}
	now := core.Instant(time.Hour)
	n := New(Config{ID: "n1", Boot: 1, Started: now, Voter: VoterState{Key: "kn1", Map: m}})
	for _, d := range []core.DiskID{1, 2, 3} {
		n.AddDisk(now, d, nil)
	}
	for i := range 5 {
		v := m.Voters[i]
		n.Receive(now, v.Node, &Message{Kind: MsgConfirmed, Key: v.Key, Epoch: 1, Sum: m.Sum()})
	}
	if n.Map() != m {
		b.Fatal("the map is not in effect")
	}
	answer(n, now)
	return n, m, now
}

// answer plays the disks and the members until everything is active.
func answer(n *Node, now core.Instant) {
	for {
		out := n.Take()
		if len(out.Persists) == 0 && len(out.Sends) == 0 {
			return
		}
		for _, p := range out.Persists {
			n.Persisted(now, p.ID, nil)
		}
		for _, s := range out.Sends {
			if m := s.Msg; m.Kind == MsgSeal {
				n.Receive(now, s.To, &Message{Kind: MsgSealed, Slot: m.Slot, Disk: m.Disk, Ballot: m.Ballot})
			}
		}
	}
}

// BenchmarkTick is a tick of a node that has 820 slots of its own and nothing
// to do.
func BenchmarkTick(b *testing.B) {
	n, _, now := bigNode(b)
	for range 100 {
		now = now.Add(100 * time.Millisecond)
		n.Tick(now)
		n.Take()
	}
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(100 * time.Millisecond)
		n.Tick(now)
		n.Take()
	}
}

// BenchmarkSeeMap is a map that changes one row, seen and put in effect.
func BenchmarkSeeMap(b *testing.B) {
	n, m, now := bigNode(b)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		next := m.Clone()
		next.Epoch, next.Prev, next.OldVoters = m.Epoch+1, m.Sum(), m.Voters
		next.Slots[7].Term = next.Epoch
		if err := next.Seal(); err != nil {
			b.Fatal(err)
		}
		m = next
		b.StartTimer()
		n.SeeMap(now, m)
		for _, v := range m.Voters {
			n.Receive(now, v.Node, &Message{Kind: MsgConfirmed, Key: v.Key, Epoch: m.Epoch, Sum: m.Sum()})
		}
		b.StopTimer()
		if n.Map() != m {
			b.Fatal("the map is not in effect")
		}
		answer(n, now)
		b.StartTimer()
	}
}
