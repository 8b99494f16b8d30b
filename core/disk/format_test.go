package disk

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/shoalstore/shoal/core"
)

func randomVersion(rng *rand.Rand) core.Version {
	n := func() uint64 { return rng.Uint64() >> (rng.IntN(9) * 8) }
	if rng.IntN(3) == 0 {
		n = func() uint64 { return rng.Uint64N(3) }
	}
	return core.Version{Term: core.Epoch(n()), Boot: n(), Seq: n()}
}

// TestVersionOrder: of one row, newer versions sort first, and seeking finds the
// newest that is not above a version, or below it.
func TestVersionOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	key := core.RowKey{Bucket: 7, Key: "k\x00\xff", Sub: "s"}
	prefix := rowPrefix(&key, 9)
	versions := []core.Version{{}, newest(), {Term: 255}, {Term: 256}, {Boot: 255}, {Seq: math.MaxUint64}}
	for range 300 {
		versions = append(versions, randomVersion(rng))
	}
	for _, v := range versions {
		flags, n := byte(rng.IntN(2)), uint16(rng.Uint32())
		k := appendSuffix(bytes.Clone(prefix), v, flags, n)
		if splitKey(k) != len(prefix) {
			t.Fatalf("split of %x: got %d, want %d", k, splitKey(k), len(prefix))
		}
		s, ok := parseSuffix(k[len(prefix):])
		if !ok || s != (suffix{version: v, flags: flags, n: n}) {
			t.Fatalf("suffix of %v: got %+v, %v", v, s, ok)
		}
		for _, w := range versions {
			if got, want := bytes.Compare(k, appendSuffix(bytes.Clone(prefix), w, 0, 0)), w.Compare(v); want != 0 && got != want {
				t.Fatalf("%v and %v: keys compare %d, want %d", v, w, got, want)
			}
			if got, want := bytes.Compare(k, appendSeek(bytes.Clone(prefix), w)) >= 0, v.Compare(w) <= 0; got != want {
				t.Fatalf("seek to %v finds %v: got %v, want %v", w, v, got, want)
			}
			if got, want := bytes.Compare(k, appendSeekOlder(bytes.Clone(prefix), w)) >= 0, v.Compare(w) < 0; got != want {
				t.Fatalf("seek below %v finds %v: got %v, want %v", w, v, got, want)
			}
		}
		if bytes.Compare(immediateSuccessor(nil, prefix), k) <= 0 {
			t.Fatalf("the successor of the prefix is not behind %x", k)
		}
	}
}

func randomRowKey(rng *rand.Rand) core.RowKey {
	str := func() string {
		b := make([]byte, rng.IntN(4))
		for i := range b {
			b[i] = []byte{0, 1, 2, 0xfe, 0xff, 'a'}[rng.IntN(6)]
		}
		return string(b)
	}
	return core.RowKey{Bucket: core.BucketID(rng.IntN(3)), Space: core.Space(rng.IntN(3)), Key: str(), Sub: str()}
}

func compareRows(a, b core.RowKey) int {
	return cmp.Or(cmp.Compare(a.Bucket, b.Bucket), cmp.Compare(a.Space, b.Space), strings.Compare(a.Key, b.Key), strings.Compare(a.Sub, b.Sub))
}

// TestComparer holds the comparer to what Pebble asks of one, over all the kinds
// of keys there are.
func TestComparer(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	c := comparer().EnsureDefaults()
	var keys [][]byte
	for range 200 {
		k := randomRowKey(rng)
		slot := core.SlotID(rng.IntN(3))
		p := rowPrefix(&k, slot)
		keys = append(keys, p, appendSuffix(bytes.Clone(p), randomVersion(rng), 0, 1), appendSeek(bytes.Clone(p), randomVersion(rng)))
		q := answerPrefix(slot, core.RequestID{byte(rng.Uint32())})
		keys = append(keys, q, appendSuffix(bytes.Clone(q), randomVersion(rng), 0, 0))
		keys = append(keys, indexKey(slot, rng.Uint64(), uint16(rng.Uint32())), headKey(slot, rng.Uint64()), stateKey(slot))
		from, to := scanBounds(&core.Scan{Bucket: k.Bucket, Space: k.Space, Prefix: k.Key, AfterKey: k.Sub, Before: k.Key})
		keys = append(keys, from, to)
	}
	for _, a := range keys {
		pa := a[:c.Split(a)]
		if c.Split(pa) != len(pa) {
			t.Fatalf("the prefix %x of %x splits again, at %d", pa, a, c.Split(pa))
		}
		if len(pa) < len(a) && c.Compare(pa, a) >= 0 {
			t.Fatalf("prefix %x is not before %x", pa, a)
		}
		succ := c.ImmediateSuccessor(nil, pa)
		if c.Split(succ) != len(succ) || c.Compare(a, succ) >= 0 {
			t.Fatalf("successor of %x: got %x", a, succ)
		}
		for _, b := range keys {
			pb := b[:c.Split(b)]
			want := bytes.Compare(pa, pb)
			if want == 0 {
				want = c.ComparePointSuffixes(a[len(pa):], b[len(pb):])
			}
			if got := c.Compare(a, b); got != want {
				t.Fatalf("%x and %x: compare %d, by prefix and suffix %d", a, b, got, want)
			}
			if c.Compare(a, b) < 0 {
				s := c.Separator(nil, a, b)
				if c.Compare(a, s) > 0 || c.Compare(s, b) >= 0 || c.Split(s) > len(s) {
					t.Fatalf("separator of %x and %x: got %x", a, b, s)
				}
			}
		}
	}
}

func TestRowKeyOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	var keys []core.RowKey
	for range 400 {
		keys = append(keys, randomRowKey(rng))
	}
	for _, a := range keys {
		k, slot, err := parseRowPrefix(rowPrefix(&a, 5))
		if err != nil || k != a || slot != 5 {
			t.Fatalf("%q: got %q in slot %d, %v", a.Key, k.Key, slot, err)
		}
		for _, b := range keys {
			if got, want := bytes.Compare(rowPrefix(&a, 1), rowPrefix(&b, 1)), compareRows(a, b); got != want {
				t.Fatalf("%q/%q and %q/%q: keys compare %d, want %d", a.Key, a.Sub, b.Key, b.Sub, got, want)
			}
		}
	}
}

func FuzzKeys(f *testing.F) {
	key := core.RowKey{Bucket: 1, Key: "a\x00b", Sub: "s"}
	f.Add(appendSuffix(rowPrefix(&key, 3), core.Version{Term: 1, Seq: 300}, 1, 2))
	f.Add(indexKey(1, 2, 3))
	f.Add([]byte{0})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		n := splitKey(b)
		if n < 0 || n > len(b) {
			t.Fatalf("split: got %d of %d", n, len(b))
		}
		if k, slot, err := parseRowPrefix(b[:n]); err == nil {
			if again := rowPrefix(&k, slot); !bytes.Equal(again, b[:n]) {
				t.Fatalf("row key %x reads as %q and is written as %x", b[:n], k.Key, again)
			}
		}
		if s, ok := parseSuffix(b[n:]); ok {
			again := appendSuffix(nil, s.version, s.flags, s.n)
			if !bytes.Equal(again, b[n:]) {
				t.Fatalf("suffix %x reads as %+v and is written as %x", b[n:], s, again)
			}
		}
		_, _, _ = parseSeq(b)
		_, _ = parseIndexN(b)
		_, _ = slotOfKey(b)
		_, _ = rowPrefixSlot(b)
	})
}

// FuzzValues reads damaged values: none passes unless its checksum is right, and
// with a right one nothing breaks.
func FuzzValues(f *testing.F) {
	key := []byte("key\x00")
	f.Add(encodeState(key, &core.SlotState{Ballot: core.Ballot{Term: 1, Boot: 2}, Last: core.Version{Seq: 3}, Floor: 4})[sumSize:])
	f.Add(encodeIndex(key, &indexEntry{term: 1, boot: 2, time: 3, prefix: []byte("r")})[sumSize:])
	f.Add(encodeHead(key, &head{term: 1, request: core.RequestID{1}})[sumSize:])
	f.Add(encodeAnswer(key, 5, []byte("answer"))[sumSize:])
	f.Add(encodeCounts(key, 5, 6, 7)[sumSize:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, payload []byte) {
		v := sealValue(key, append(make([]byte, sumSize), payload...))
		if s, err := decodeState(key, v); err == nil && !sameAfter(v, encodeState(key, &s)) {
			t.Errorf("state %+v", s)
		}
		if e, err := decodeIndex(key, v); err == nil && e.flags&flagAlways != 0 {
			t.Errorf("index entry %+v", e)
		}
		if h, err := decodeHead(key, v); err == nil && !sameAfter(v, encodeHead(key, &h)) {
			t.Errorf("head %+v", h)
		}
		_, _, _ = decodeAnswer(key, v)
		if n, bytes, objects, err := decodeCounts(key, v); err == nil && (n < 0 || bytes < 0 || objects < 0) {
			t.Errorf("counts %d, %d, %d", n, bytes, objects)
		}
		v[len(v)/2] ^= 4
		for _, err := range []error{
			second(decodeState(key, v)), second(decodeIndex(key, v)), second(decodeHead(key, v)),
		} {
			if err == nil {
				t.Error("a flipped bit was not noticed")
			}
		}
		if _, err := openValue([]byte("other"), sealValue(key, v)); err == nil {
			t.Error("a value under another key was not noticed")
		}
	})
}

func second[T any](_ T, err error) error { return err }

// sameAfter says whether two values decode alike; varints may be padded.
func sameAfter(a, b []byte) bool { return len(b) <= len(a) }

func FuzzShardFooter(f *testing.F) {
	m := core.ShardMeta{ID: core.ShardID{Index: 3}, Bucket: 9, Key: "key", Request: core.RequestID{1}, Scheme: core.ErasureCoded(4, 2)}
	trailer := appendTrailer(nil, &m)
	foot := shardFooter{size: 100_000, trailer: len(trailer), tableSum: 1, trailerSum: 2}
	f.Add(foot.append(nil), trailer, foot.fileLength())
	f.Add(make([]byte, footerSize), []byte{}, int64(4096))
	f.Fuzz(func(t *testing.T, b, trailer []byte, length int64) {
		if len(b) == footerSize {
			// The checksum stands between fuzzed bytes and the parser.
			b = bytes.Clone(b)
			copy(b, shardMagic)
			s := xxh3.Hash(b[:56])
			for i := range 8 {
				b[56+i] = byte(s >> (8 * i))
			}
		}
		if foot, err := decodeFooter(b, length); err == nil {
			if foot.size < 0 || foot.tailLength() < 0 || foot.tailOffset()+foot.tailLength()+footerSize > length {
				t.Errorf("footer %+v of a file of %d bytes", foot, length)
			}
		}
		if m, err := decodeTrailer(trailer); err == nil {
			if again, err := decodeTrailer(appendTrailer(nil, &m)); err != nil || again != m {
				t.Errorf("trailer: got %+v, %v after %+v", again, err, m)
			}
		}
	})
}

func FuzzIdentity(f *testing.F) {
	id := Identity{Format: 1, Generation: 2, Cluster: "c", Node: "n1", UUID: "u", Created: time.Unix(1, 0).UTC()}
	b, err := id.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"disk":{},"checksum":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := decodeIdentity(b)
		if err != nil {
			return
		}
		enc, err := id.encode()
		if err != nil {
			t.Fatalf("encode %+v: %v", id, err)
		}
		if again, err := decodeIdentity(enc); err != nil || again != id {
			t.Errorf("got %+v, %v after %+v", again, err, id)
		}
	})
}

func FuzzSealNote(f *testing.F) {
	n := sealNote{note: 1, length: 2, hash: 3, name: "000004.log"}
	f.Add(n.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, ok := decodeSealNote(b); ok && !bytes.Equal(n.encode(), b) {
			// Bytes behind the name are covered by the checksum, not used.
			if again, ok := decodeSealNote(n.encode()); !ok || again != n {
				t.Errorf("note %+v", n)
			}
		}
	})
}

// TestNewerFormat: a disk of a later program is refused with a message that
// says so.
func TestNewerFormat(t *testing.T) {
	for _, id := range []Identity{{Format: 2}, {Format: 0}, {Format: 1, Features: 4}} {
		if err := id.supported(); !errors.Is(err, core.ErrNewer) {
			t.Errorf("%+v: got %v", id, err)
		}
	}
	body, err := json.Marshal(map[string]any{"format": 1, "uuid": "u", "later": true})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(identityFile{Disk: body, Checksum: identitySum(body)})
	if err != nil {
		t.Fatal(err)
	}
	if id, err := decodeIdentity(b); err != nil || id.UUID != "u" {
		t.Errorf("fields of a later version that need not be known: got %+v, %v", id, err)
	}
	foot := (&shardFooter{size: 1, trailer: 60}).append(nil)
	foot[8] = 2
	s := xxh3.Hash(foot[:56])
	for i := range 8 {
		foot[56+i] = byte(s >> (8 * i))
	}
	if _, err := decodeFooter(foot, 4096); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("shard of a later version: got %v", err)
	}
}

// TestDirNames: shards are filed under the first byte of their names.
func TestDirNames(t *testing.T) {
	var names []string
	for i := range dirCount {
		id := core.ShardID{Extent: core.ExtentID{byte(i)}}
		if n := dirName(i); n != id.String()[:2] {
			t.Errorf("directory %d: got %q, want %q", i, n, id.String()[:2])
		}
		names = append(names, dirName(i))
	}
	if !slices.IsSorted(names) {
		t.Error("directories are not in the order of ids")
	}
}
