package core

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"slices"
	"testing"
)

func testEntry() *Entry {
	v := Version{Term: 300, Boot: 2, Seq: 1 << 40}
	return &Entry{
		Version: v, Request: RequestID{1, 2, 3}, Answer: []byte("yes"), Time: 1735689600123, Floor: 77,
		Rows: []Row{
			{RowKey: RowKey{Bucket: 5, Key: "a\x00b"}, Version: v, Value: []byte("record")},
			{RowKey: RowKey{Bucket: 1 << 31, Space: SpacePart, Key: "k", Sub: "u/1"}, Version: v, Deleted: true},
			{RowKey: RowKey{Space: SpaceCursor, Key: "job"}, Version: v, Value: []byte{0}},
		},
	}
}

func TestEntryRoundTrip(t *testing.T) {
	for name, e := range map[string]*Entry{"full": testEntry(), "empty": {}} {
		b := AppendEntry(nil, e)
		got, rest, err := DecodeEntry(append(slices.Clone(b), "rest"...))
		if err != nil || string(rest) != "rest" || !reflect.DeepEqual(&got, e) {
			t.Errorf("%s: %v, rest %q\ngot  %+v\nwant %+v", name, err, rest, got, *e)
		}
		if e.Size() < len(b) {
			t.Errorf("%s: said to take %d bytes, is written in %d", name, e.Size(), len(b))
		}
	}
}

// The bytes on disk and on the wire must not change.
func TestEntryGolden(t *testing.T) {
	const want = "ac02028080808080200102030000000000000000000000000003796573fbf8a5f9c1324d03" +
		"0500000361006200067265636f7264" + "80808080080201016b03752f3100" + "000300036a6f62000100"
	if got := hex.EncodeToString(AppendEntry(nil, testEntry())); got != want {
		t.Errorf("the format changed; got\n%s", got)
	}
}

func TestEntryRefuses(t *testing.T) {
	b := AppendEntry(nil, testEntry())
	for i := range b {
		if e, _, err := DecodeEntry(b[:i]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut to %d bytes: %+v, %v; want ErrCorrupt", i, e, err)
		}
	}
	many := AppendEntry(nil, &Entry{})
	many = append(many[:len(many)-1], 0xff, 0xff, 0xff, 0x7f)
	if _, _, err := DecodeEntry(many); !errors.Is(err, ErrCorrupt) {
		t.Errorf("more rows than bytes: %v, want ErrCorrupt", err)
	}
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(AppendEntry(nil, testEntry()))
	f.Add(AppendEntry(nil, &Entry{}))
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := slices.Clone(b)
		e, rest, err := DecodeEntry(b)
		if !bytes.Equal(in, b) {
			t.Fatal("decoding changed its input")
		}
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		if !bytes.HasSuffix(b, rest) {
			t.Fatalf("rest %x is not the end of %x", rest, b)
		}
		for i := range e.Rows {
			if e.Rows[i].Version != e.Version {
				t.Fatalf("row %d has version %v, the entry %v", i, e.Rows[i].Version, e.Version)
			}
		}
		w := AppendEntry(nil, &e)
		again, rest, err := DecodeEntry(w)
		if err != nil || len(rest) != 0 || !reflect.DeepEqual(again, e) {
			t.Fatalf("%v, rest %x\nread    %+v\nwritten %+v", err, rest, again, e)
		}
	})
}
