package core

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"
)

func testRecord() *Record {
	return &Record{
		Size: 1 << 40, ETag: "d41d8cd98f00b204e9800998ecf8427e-3",
		Modified: time.Date(2025, 6, 7, 8, 9, 10, 11, time.UTC),
		Headers:  map[string]string{"Content-Type": "image/png", "Cache-Control": ""},
		Meta:     map[string]string{"b": "2", "a": "1", "ü": "\x00"},
		Tags:     map[string]string{"t": "v"},
		Checksum: Checksum{Algorithm: "CRC64NVME", Value: "AAAAAAAAAAA=-2", Composite: true},
		Scheme:   ErasureCoded(2, 1),
		Extents: []Extent{
			{ID: ExtentID{1, 2, 3}, Size: 1 << 39, Scheme: ErasureCoded(2, 1), Unit: 256 << 10, Places: []Place{{7, [3]byte{1, 2, 3}}, {0, [3]byte{}}, {1 << 31, [3]byte{9, 9, 9}}}},
			{ID: ExtentID{4}, Size: 0, Scheme: None(), Unit: 1, Places: []Place{{1, [3]byte{1}}}},
		},
		Parts:  []int64{5 << 20, 1},
		Origin: Origin{Job: "j1", Key: "k", Version: "v", Transform: "sha256:00"},
	}
}

func TestRecordRoundTrip(t *testing.T) {
	small := &Record{Size: 3, ETag: "x", Modified: time.Unix(1, 2).UTC(), Scheme: Mirror(2), Inline: []byte("abc")}
	empty := &Record{Scheme: None(), Inline: []byte{}}
	copied := &Record{Size: 9, ETag: "x", Scheme: Mirror(2), Remote: &RemoteCopy{Version: "7"}}
	metadata := &Record{Size: 9, ETag: "x", Scheme: Mirror(2), Remote: &RemoteCopy{Version: "7", Partial: true}}
	future := &Record{Size: 1, Scheme: None(), Unknown: appendBytes(binary.AppendUvarint(nil, tagEnd+3), []byte("later"))}
	for name, r := range map[string]*Record{"large": testRecord(), "small": small, "empty": empty, "copied": copied, "metadata only": metadata, "in part": partialRecord(), "from a later version": future} {
		b := AppendRecord(nil, r)
		got, err := DecodeRecord(b)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%s: %v\ngot  %+v\nwant %+v", name, err, got, r)
		}
		if again := AppendRecord([]byte("front"), got); !bytes.Equal(again, append([]byte("front"), b...)) {
			t.Errorf("%s: written again it differs", name)
		}
	}
	if r, err := DecodeRecord(AppendRecord(nil, &Record{Scheme: None()})); err != nil || r.Inline != nil {
		t.Errorf("no inline data became %v, %v", r.Inline, err)
	}
}

// The bytes on disk must not change.
func TestRecordGolden(t *testing.T) {
	r := testRecord()
	r.Extents = r.Extents[:1]
	const want = "0106808080808020022264343164386364393866303062323034653938303039393865636638343237652d33" +
		"03098bf8f390d789ada3180427020d43616368652d436f6e74726f6c000c436f6e74656e742d5479706509696d6167652f706e67" +
		"050e03016101310162013202c3bc010006050101740176071a0943524336344e564d450e41414141414141414141413d2d3201" +
		"080665632d322b310a2e010102030000000000000000000000000080808080801001020180801003070102030000000080808080080909090b06028080c00201" +
		"0c11026a31016b0176097368613235363a3030"
	if got := hex.EncodeToString(AppendRecord(nil, r)); got != want {
		t.Errorf("the format changed; got\n%s", got)
	}
}

func TestRecordRefuses(t *testing.T) {
	b := AppendRecord(nil, testRecord())
	whole := map[int]bool{0: true} // where fields end
	for d := (decoder{b: b}); len(d.b) > 0; whole[len(b)-len(d.b)] = true {
		d.uvarint()
		d.bytes()
	}
	for i := range b {
		if _, err := DecodeRecord(b[:i]); whole[i] != (err == nil) || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut to %d bytes, after a field %v: got %v", i, whole[i], err)
		}
	}
	field := func(tag uint64, content ...byte) []byte {
		return appendBytes(binary.AppendUvarint(nil, tag), content)
	}
	extent := func(scheme [3]byte, places byte) []byte {
		e := append(make([]byte, 0, 64), 1)
		e = append(e, make([]byte, 16)...)
		e = append(e, 9)
		e = append(e, scheme[:]...)
		e = append(e, 1, places)
		for range places {
			e = append(e, 1, 0, 0, 0)
		}
		return e
	}
	for name, b := range map[string][]byte{
		"fields out of order":      append(field(tagETag, 'x'), field(tagSize, 1)...),
		"a field twice":            append(field(tagSize, 1), field(tagSize, 1)...),
		"a number too long":        field(tagSize, 1, 2),
		"tag 0":                    field(0, 1),
		"bad scheme":               field(tagScheme, 'x'),
		"too many headers":         field(tagHeaders, 0xff, 0xff, 0x7f),
		"header without value":     field(tagMeta, 1, 1, 'a'),
		"too few places":           field(tagExtents, extent([3]byte{1, 4, 2}, 5)...),
		"too many places":          field(tagExtents, extent([3]byte{1, 4, 2}, 7)...),
		"more extents than bytes":  field(tagExtents, 200, 1),
		"length beyond the end":    {tagETag, 200, 'x'},
		"varint without an end":    {0xff, 0xff},
		"varint of eleven bytes":   bytes.Repeat([]byte{0xff}, 11),
		"a run without an extent":  append(field(tagSize, 9), field(tagRemote, 0, 1, 1, 0, 9)...),
		"an extent without a run":  append(append(field(tagSize, 9), field(tagExtents, extent([3]byte{0, 1, 0}, 1)...)...), field(tagRemote, 0, 1, 0)...),
		"a run beyond the end":     append(append(field(tagSize, 9), field(tagExtents, extent([3]byte{0, 1, 0}, 1)...)...), field(tagRemote, 0, 1, 1, 1, 9)...),
		"a run of another size":    append(append(field(tagSize, 9), field(tagExtents, extent([3]byte{0, 1, 0}, 1)...)...), field(tagRemote, 0, 1, 1, 0, 8)...),
		"negative size of extents": field(tagExtents, append(append([]byte{1}, make([]byte, 16)...), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 1, 0, 1, 1, 1, 0, 0, 0)...),
	} {
		if r, err := DecodeRecord(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: got %+v, %v; want ErrCorrupt", name, r, err)
		}
	}
}

func TestExtent(t *testing.T) {
	e := testRecord().Extents[0]
	if e.Missing() != 1 {
		t.Errorf("%d shards are missing, want 1", e.Missing())
	}
	if s := e.Shard(2); s.Extent != e.ID || s.Index != 2 || s.Nonce != [3]byte{9, 9, 9} {
		t.Errorf("shard 2 is %+v", s)
	}
}

// Maps must be written in one order only, or equal records would differ.
func TestRecordIsDeterministic(t *testing.T) {
	want := AppendRecord(nil, testRecord())
	for range 50 {
		r := testRecord()
		r.Meta = maps.Clone(r.Meta)
		if got := AppendRecord(nil, r); !bytes.Equal(got, want) {
			t.Fatal("the same record was written in two ways")
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(AppendRecord(nil, testRecord()))
	f.Add(AppendRecord(nil, &Record{Size: 3, Scheme: Mirror(2), Inline: []byte("abc")}))
	f.Add(AppendRecord(nil, partialRecord()))
	f.Add([]byte{})
	f.Add([]byte{tagHeaders, 1, 0})
	f.Add([]byte{40, 1, 'x', 41, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		in := slices.Clone(b)
		r, err := DecodeRecord(b)
		if !bytes.Equal(in, b) {
			t.Fatal("decoding changed its input")
		}
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		for i := range r.Extents {
			e := &r.Extents[i]
			if e.Missing() > len(e.Places) || e.Size < 0 || len(e.Places) != e.Scheme.Width() {
				t.Fatalf("extent %+v", e)
			}
		}
		missing := int64(0)
		for _, run := range r.MissingRuns(0, r.Size) {
			missing += run.Size
		}
		if r.Size >= 0 && missing+r.StoredBytes() != r.Size || r.Remote != nil && r.Remote.Partial && len(r.ExtentRuns()) != len(r.Extents) {
			t.Fatalf("%d of %d bytes are missing, %d here; %+v", missing, r.Size, r.StoredBytes(), r.Remote)
		}
		// What was understood survives being written and read.
		w := AppendRecord(nil, r)
		again, err := DecodeRecord(w)
		if err != nil {
			t.Fatalf("%+v: written, but cannot be read: %v", r, err)
		}
		if w2 := AppendRecord(nil, again); !bytes.Equal(w, w2) {
			t.Fatalf("written twice it differs:\n%x\n%x", w, w2)
		}
	})
}
