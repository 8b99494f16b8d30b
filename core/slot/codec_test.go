package slot

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

// someMessages is one of each kind, with the fields that it carries.
func someMessages(t testing.TB) []*Message {
	t.Helper()
	v := func(seq uint64) core.Version { return core.Version{Term: 7, Boot: 3, Seq: seq} }
	entries := []core.Entry{
		{
			Version: v(5), Request: core.RequestID{1, 2}, Answer: []byte("yes"), Time: 1_700_000_000_123,
			Rows: []core.Row{
				{RowKey: core.RowKey{Bucket: 1, Key: "a", Sub: "s"}, Version: v(5), Value: []byte("value")},
				{RowKey: core.RowKey{Bucket: 1, Space: core.SpacePart, Key: "b"}, Version: v(5), Deleted: true},
			},
		},
		{Version: v(6), Floor: 4},
	}
	s := newStage(3, 3, 1, 2)
	ballot := core.Ballot{Term: 7, Boot: 3}
	return []*Message{
		{Kind: MsgReport, Epoch: 9, Sum: "abc", Boot: 2, Nonce: 77},
		{Kind: MsgGrant, Key: "k", Epoch: 9, Sum: "abc", Boot: 2, Nonce: 77, Granted: true, Silent: []core.NodeID{"n1", "n2"}},
		{Kind: MsgConfirmed, Key: "k", Epoch: 9, Sum: "abc"},
		{Kind: MsgMapWant, Epoch: 9, Sum: "abc"},
		{Kind: MsgMap, Map: s.maps[0]},
		{Kind: MsgSeal, Slot: 4095, Disk: 12, Ballot: ballot, Joining: true, Attempt: 1 << 40},
		{Kind: MsgSealed, Slot: 1, Disk: 2, Ballot: ballot, Commit: v(4), Last: v(6), Attempt: 9},
		{Kind: MsgSync, Slot: 1, Disk: 2, Ballot: ballot, Prev: v(4), Entries: entries},
		{Kind: MsgAppend, Slot: 1, Disk: 2, Ballot: ballot, Prev: v(4), Entries: entries, Commit: v(3), Last: v(6)},
		{Kind: MsgAck, Slot: 1, Disk: 2, Ballot: ballot, Last: v(6)},
		{Kind: MsgNack, Slot: 1, Disk: 2, Ballot: ballot, Last: v(6), Attempt: 3},
		{Kind: MsgMark, Slot: 1, Disk: 2, Ballot: ballot, Commit: v(6)},
		{Kind: MsgCatchup, Slot: 1, Disk: 2, Ballot: ballot, After: 4, UpTo: v(6), Floor: 4, Entries: entries, Attempt: 3},
		{Kind: MsgCaughtUp, Slot: 1, Disk: 2, Ballot: ballot, Last: v(6), Attempt: 3},
	}
}

func TestMessageRoundTrip(t *testing.T) {
	seen := map[Kind]bool{}
	for _, m := range someMessages(t) {
		seen[m.Kind] = true
		b, err := AppendMessage([]byte("x"), m)
		if err != nil {
			t.Fatalf("kind %d: %v", m.Kind, err)
		}
		got, err := DecodeMessage(b[1:], nil)
		if err != nil {
			t.Fatalf("kind %d: %v", m.Kind, err)
		}
		if m.Map != nil {
			if got.Map.Sum() != m.Map.Sum() {
				t.Errorf("map: got %s, want %s", got.Map.Sum(), m.Map.Sum())
			}
			continue
		}
		if !reflect.DeepEqual(got, m) {
			t.Errorf("kind %d: got %+v, want %+v", m.Kind, got, m)
		}
		for n := range b[1:] {
			if _, err := DecodeMessage(b[1:1+n], nil); !errors.Is(err, core.ErrCorrupt) {
				t.Errorf("kind %d cut to %d bytes: got %v, want ErrCorrupt", m.Kind, n, err)
			}
		}
		if _, err := DecodeMessage(append(bytes.Clone(b[1:]), 0), nil); !errors.Is(err, core.ErrCorrupt) {
			t.Errorf("kind %d with a byte too many: got %v, want ErrCorrupt", m.Kind, err)
		}
	}
	for _, k := range []Kind{1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 16, 17, 18} {
		if !seen[k] {
			t.Errorf("kind %d is not tested", k)
		}
	}
}

// FuzzDecodeMessage feeds the decoder, and what it takes to a node that is part
// of a cluster: neither may panic, and what is encoded again decodes the same.
func FuzzDecodeMessage(f *testing.F) {
	for _, m := range someMessages(f) {
		b, err := AppendMessage(nil, m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeMessage(b, nil)
		if err != nil {
			return
		}
		again, err := AppendMessage(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		m2, err := DecodeMessage(again, nil)
		if err != nil {
			t.Fatalf("encoded again: %v", err)
		}
		if m.Map == nil && !reflect.DeepEqual(m, m2) {
			t.Fatalf("encoded again: got %+v, want %+v", m2, m)
		}
		s := newStage(3, 3, 1, 2)
		s.run(500 * time.Millisecond)
		for _, id := range s.order {
			s.do(id, func(n *Node) { n.Receive(s.now, "n3", m) })
		}
		s.settle()
	})
}

// A map that is known already is not decoded again; any other is.
func TestDecodeKnownMap(t *testing.T) {
	s := newStage(3, 3, 1, 2)
	m := s.maps[0]
	next := m.Clone()
	next.Epoch++
	if err := next.Seal(); err != nil {
		t.Fatal(err)
	}
	for _, sent := range []*core.Map{m, next} {
		b, err := AppendMessage(nil, &Message{Kind: MsgMap, Map: sent})
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeMessage(b, m)
		if err != nil {
			t.Fatal(err)
		}
		if got.Map.Sum() != sent.Sum() || (got.Map == m) != (sent == m) {
			t.Errorf("map %d was sent, %d came", sent.Epoch, got.Map.Epoch)
		}
	}
}
