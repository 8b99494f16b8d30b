package engine

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/slot"
)

func wireSamples(t interface{ Fatal(...any) }) map[string][]byte {
	version := core.Version{Term: 3, Boot: 2, Seq: 9}
	row := core.RowKey{Bucket: 7, Space: core.SpaceObject, Key: "key", Sub: "sub"}
	m := &mutation{
		slot: 5, again: true, need: slot.Need{Domains: 2, Domain: core.DomainNode},
		checks: []check{{kind: checkUpload, row: row, version: version, conditions: core.Conditions{IfMatch: []string{"etag"}}}},
		entry:  core.Entry{Version: version, Request: core.RequestID{1}, Rows: []core.Row{{RowKey: row, Version: version, Value: []byte("value")}}},
	}
	mutated, err := appendMutation(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	found := core.Found{Slot: 5, Row: core.Row{RowKey: row, Version: version, Value: []byte("value")}}
	return map[string][]byte{
		"mutation": mutated,
		"outcome":  appendOutcome(nil, outcome{version: version, answer: []byte("answer")}),
		"get":      appendGet(nil, 5, row, true),
		"scan": appendScan(nil, &scanRequest{
			scan:  core.Scan{Bucket: 7, Space: core.SpaceObject, Prefix: "p", AfterKey: "a", AfterSub: "s", Before: "z"},
			limit: 100, only: []core.SlotID{0, 5, 4095}, brief: true,
		}),
		"reply": appendScanReply(nil, &scanReply{held: []core.SlotID{1, 5}, found: []core.Found{found, found}, more: true}),
	}
}

// decodings decodes and encodes again, by kind of message.
func decodings() map[string]func([]byte) ([]byte, error) {
	return map[string]func([]byte) ([]byte, error){
		"mutation": func(b []byte) ([]byte, error) {
			m, err := decodeMutation(b)
			if err != nil {
				return nil, err
			}
			return appendMutation(nil, m)
		},
		"outcome": func(b []byte) ([]byte, error) {
			o, err := decodeOutcome(b)
			return appendOutcome(nil, o), err
		},
		"get": func(b []byte) ([]byte, error) {
			s, k, data, err := decodeGet(b)
			return appendGet(nil, s, k, data), err
		},
		"scan": func(b []byte) ([]byte, error) {
			r, err := decodeScan(b)
			if err != nil {
				return nil, err
			}
			return appendScan(nil, r), nil
		},
		"reply": func(b []byte) ([]byte, error) {
			r, err := decodeScanReply(b)
			if err != nil {
				return nil, err
			}
			return appendScanReply(nil, r), nil
		},
	}
}

// TestWire: what peers send each other comes out as it went in, and a message
// that was cut off anywhere is refused.
func TestWire(t *testing.T) {
	for kind, b := range wireSamples(t) {
		again, err := decodings()[kind](b)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%s: got %x, %v, want %x", kind, again, err, b)
		}
		if kind == "outcome" {
			continue // its answer is all that follows
		}
		for n := range b {
			if _, err := decodings()[kind](b[:n]); err == nil {
				t.Errorf("%s: %d of %d bytes are taken for a message", kind, n, len(b))
			}
		}
	}
}

// FuzzWire feeds each decoder with anything. What is taken for a message is the
// same after another turn, and its slots can be used as indexes.
func FuzzWire(f *testing.F) {
	for _, b := range wireSamples(f) {
		f.Add(b)
	}
	f.Add([]byte{0, 0, 0, 0, 2, 9, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		for kind, turn := range decodings() {
			first, err := turn(b)
			if err != nil {
				continue
			}
			second, err := turn(first)
			if err != nil || !reflect.DeepEqual(first, second) {
				t.Errorf("%s: got %x, %v, then %x", kind, first, err, second)
			}
		}
		if r, err := decodeScan(b); err == nil {
			for _, s := range r.only {
				if !setOfSlots(r.only).has(s) {
					t.Errorf("slot %d of %v is lost", s, r.only)
				}
			}
		}
	})
}
