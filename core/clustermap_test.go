package core

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func testMap(t testing.TB) *Map {
	t.Helper()
	at := time.Date(2025, 1, 2, 3, 4, 5, 6, time.UTC)
	m := &Map{
		Cluster: "c1", Epoch: 7, Prev: "aa", Made: at, Replicas: 3,
		Nodes: []Node{
			{ID: "n2", Boot: 4, Peer: "127.0.0.1:7171", State: NodeDown, Since: at},
			{ID: "n1", Boot: 2, Peer: "127.0.0.1:7170", Zone: "z", Weight: 2, State: NodeActive, Since: at},
		},
		Disks: []Disk{
			{ID: 9, UUID: "u9", Node: "n2", Name: "d1", Weight: 10, State: DiskOK, Since: at},
			{ID: 3, UUID: "u3", Node: "n1", Name: "d1", Weight: 10, State: DiskOK, Since: at},
			{ID: 4, UUID: "u4", Node: "n1", Name: "d2", Weight: 10.5, State: DiskFailed, Since: at},
		},
		Voters: []Voter{{Node: "n1", Key: "k"}}, OldVoters: []Voter{{Node: "n2", Key: "l"}},
		Bus: 2, NextDisk: 10, NextBucket: 3,
		Buckets: []Bucket{
			{ID: 2, Name: BucketName{S3, "data"}, Alias: "s3--data", State: BucketCreating, Policy: Policy{Scheme: None()}, Created: at},
			{ID: 1, Name: BucketName{Shoal, "data"}, Alias: "data", State: BucketOK, Policy: Policy{Scheme: ErasureCoded(4, 2), Domain: DomainNode, ETag: "md5"}, Created: at},
		},
		Slots: SlotTable{
			{Term: 1, Insync: []DiskID{3, 9}},
			{Term: 7, Insync: []DiskID{9}, Joining: []DiskID{3, 4}},
			{Term: 300},
		},
	}
	if err := m.Seal(); err != nil {
		t.Fatal(err)
	}
	return m
}

// stored makes the stored form of a map's JSON, with a checksum that is right.
func stored(body []byte) []byte {
	s := sha256.Sum256(body)
	return append([]byte(mapMagic+hex.EncodeToString(s[:])+"\n"), body...)
}

// throughStore returns a map's stored form and what is read from it.
func throughStore(t *testing.T, m *Map) ([]byte, *Map) {
	t.Helper()
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeMap(b)
	if err != nil {
		t.Fatal(err)
	}
	return b, got
}

func TestMapRoundTrip(t *testing.T) {
	m := testMap(t)
	b, got := throughStore(t, m)
	if !reflect.DeepEqual(got, m) {
		t.Errorf("got  %+v\nwant %+v", got, m)
	}
	if again, _ := got.Encode(); !bytes.Equal(again, b) {
		t.Error("encoded again it differs")
	}
	if !bytes.Contains(b, []byte(m.Sum())) {
		t.Error("the stored form does not carry the map's checksum")
	}
}

func TestMapIsSealed(t *testing.T) {
	m := testMap(t)
	c := m.Clone()
	if c.Sum() != "" {
		t.Error("a clone is sealed")
	}
	if err := c.Seal(); err != nil || c.Sum() != m.Sum() {
		t.Errorf("an equal map has another checksum: %v", err)
	}
	c.Slots[0].Insync[0] = 4
	c.Nodes[0].Boot++
	c.Buckets[0].Alias = "other"
	c.Voters[0].Key = "x"
	c.OldVoters[0].Key = "x"
	c.Disks[0].Weight++
	if err := c.Seal(); err != nil || c.Sum() == m.Sum() {
		t.Errorf("another map has the same checksum: %v", err)
	}
	if !reflect.DeepEqual(m, testMap(t)) {
		t.Error("a change of a clone reached the map")
	}
}

func TestDecodeMapRefuses(t *testing.T) {
	b, err := testMap(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		d := slices.Clone(b)
		d[i] ^= 1
		if _, err := DecodeMap(d); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d flipped: got %v, want ErrCorrupt", i, err)
		}
	}
	for i := range b {
		if _, err := DecodeMap(b[:i]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut to %d bytes: got %v, want ErrCorrupt", i, err)
		}
	}
	for name, change := range map[string]func(*Map){
		"no cluster":      func(m *Map) { m.Cluster = "" },
		"epoch 0":         func(m *Map) { m.Epoch = 0 },
		"no slots":        func(m *Map) { m.Slots = nil },
		"no voters":       func(m *Map) { m.Voters = nil },
		"node twice":      func(m *Map) { m.Nodes[1].ID = m.Nodes[0].ID },
		"disk twice":      func(m *Map) { m.Disks[1].ID = m.Disks[0].ID },
		"disk 0":          func(m *Map) { m.Disks[0].ID = 0 },
		"homeless disk":   func(m *Map) { m.Disks[0].Node = "n9" },
		"bucket twice":    func(m *Map) { m.Buckets[1].ID = m.Buckets[0].ID },
		"bucket 0":        func(m *Map) { m.Buckets[0].ID = 0 },
		"unknown in sync": func(m *Map) { m.Slots[0].Insync[0] = 77 },
		"unknown joining": func(m *Map) { m.Slots[1].Joining[0] = 77 },
		"long list":       func(m *Map) { m.Slots[0].Insync = make([]DiskID, 65) },
	} {
		m := testMap(t).Clone()
		change(m)
		b, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeMap(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: got %v, want ErrCorrupt", name, err)
		}
	}
}

func TestSlotTableRefuses(t *testing.T) {
	for _, j := range []string{`""`, `"!"`, `7`, `"AQ=="`, `"AQEAAAA="`, `"/////w8="`} {
		var st SlotTable
		if err := json.Unmarshal([]byte(j), &st); err == nil {
			t.Errorf("%s: decoded to %+v", j, st)
		}
	}
}

func TestMapLookups(t *testing.T) {
	m := testMap(t)
	if n := m.Node("n2"); n == nil || n.Boot != 4 {
		t.Errorf("node n2: %+v", n)
	}
	if d := m.Disk(4); d == nil || d.UUID != "u4" {
		t.Errorf("disk 4: %+v", d)
	}
	if m.Node("n3") != nil || m.Node("") != nil || m.Disk(5) != nil || m.Disk(0) != nil || m.Bucket(3) != nil || m.Bucket(0) != nil {
		t.Error("something was found that is not there")
	}
	if b := m.BucketNamed(BucketName{S3, "data"}); b == nil || b.ID != 2 {
		t.Errorf("s3://data: %+v", b)
	}
	if b := m.BucketAlias("data"); b == nil || b.ID != 1 {
		t.Errorf("alias data: %+v", b)
	}
	if m.BucketAlias("none") != nil || m.BucketNamed(BucketName{GCS, "data"}) != nil {
		t.Error("a bucket was found that is not there")
	}
	if n := m.OwnerNode(1); n != "n2" || m.OwnerNode(2) != "" || m.NodeOf(0) != "" {
		t.Errorf("owner of slot 1 %q, of slot 2 %q", n, m.OwnerNode(2))
	}
	if b := m.SlotBallot(1); b != (Ballot{7, 4}) {
		t.Errorf("ballot of slot 1: %v, want 7.4", b)
	}
	if b := m.SlotBallot(2); b != (Ballot{300, 0}) {
		t.Errorf("ballot of slot 2, which has no owner: %v, want 300.0", b)
	}
	if !m.IsVoter("n1", "k") || m.IsVoter("n1", "l") || m.IsVoter("n2", "k") {
		t.Error("voters are mistaken")
	}
	if s := m.Slots[1]; !s.Has(9) || !s.Has(4) || s.Has(5) || s.Owner() != 9 || !s.Equal(m.Slots[1]) || s.Equal(m.Slots[0]) {
		t.Errorf("slot 1: %+v", s)
	}
}

func TestLosers(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Map)
		want   []NodeID
	}{
		"nothing":             {func(*Map) {}, nil},
		"a joiner":            {func(m *Map) { m.Slots[0].Joining = []DiskID{4} }, nil},
		"a member":            {func(m *Map) { m.Slots[0].Insync = []DiskID{3} }, nil},
		"another owner":       {func(m *Map) { m.Slots[0].Insync = []DiskID{9, 3} }, []NodeID{"n1"}},
		"other disk, same":    {func(m *Map) { m.Slots[0].Insync = []DiskID{4} }, []NodeID{"n1"}},
		"both":                {func(m *Map) { m.Slots[0].Insync, m.Slots[1].Insync = []DiskID{9}, []DiskID{3} }, []NodeID{"n1", "n2"}},
		"a slot gets one":     {func(m *Map) { m.Slots[2].Insync = []DiskID{3} }, nil},
		"the disk moves":      {func(m *Map) { m.Disk(3).Node = "n2" }, []NodeID{"n1"}},
		"a bucket closes":     {func(m *Map) { m.Bucket(1).State = BucketDeleting }, []NodeID{"n1", "n2"}},
		"a policy changes":    {func(m *Map) { m.Bucket(1).Policy.Inline = 9 }, []NodeID{"n1", "n2"}},
		"a bucket goes":       {func(m *Map) { m.Buckets = m.Buckets[1:] }, []NodeID{"n1", "n2"}},
		"a bucket opens":      {func(m *Map) { m.Bucket(2).State = BucketOK }, nil},
		"a bucket comes":      {func(m *Map) { m.Buckets = append(m.Buckets, Bucket{ID: 8}) }, nil},
		"an alias is changed": {func(m *Map) { m.Bucket(1).Alias = "x" }, nil},
	} {
		m := testMap(t)
		next := m.Clone()
		c.change(next)
		if got := m.Losers(next); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestMajority(t *testing.T) {
	for n := range 6 {
		voters := make([]Voter, n)
		for yes := range n + 1 {
			left := yes
			got := Majority(voters, func(Voter) bool { left--; return left >= 0 })
			if want := 2*yes > n; got != want {
				t.Errorf("%d of %d: %v, want %v", yes, n, got, want)
			}
		}
	}
}

// Whatever the bytes, decoding returns a map that can be used, or ErrCorrupt.
func FuzzDecodeMap(f *testing.F) {
	b, err := testMap(f).Encode()
	if err != nil {
		f.Fatal(err)
	}
	_, body, _ := bytes.Cut(b, []byte("\n"))
	f.Add(body)
	f.Add([]byte(strings.Replace(string(body), `"epoch":7`, `"epoch":0`, 1)))
	f.Add([]byte(`{"cluster":"c","epoch":1,"voters":[{}],"slots":"AQEAAA=="}`))
	f.Add([]byte(`{"slots":"gICAgBA="}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := DecodeMap(body); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatalf("error of another kind: %v", err)
		}
		m, err := DecodeMap(stored(body))
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		for i := range m.Slots {
			m.SlotBallot(SlotID(i))
			for _, d := range m.Slots[i].Insync {
				if m.Disk(d) == nil || m.Node(m.NodeOf(d)) == nil {
					t.Fatalf("slot %d names disk %d, which is nowhere", i, d)
				}
			}
		}
		m.Losers(m.Clone())
		// What it says survives being written and read.
		b, err := m.Encode()
		if err != nil {
			t.Fatalf("decoded, but cannot be encoded: %v", err)
		}
		again, err := DecodeMap(b)
		if err != nil {
			t.Fatalf("encoded, but cannot be decoded: %v", err)
		}
		if b2, err := again.Encode(); err != nil || !bytes.Equal(b, b2) {
			t.Fatalf("encoded twice it differs: %v\n%s\n%s", err, b, b2)
		}
	})
}

// A map of a later version is told from a damaged one, whatever else became of
// its form.
func TestMapOfNewerVersion(t *testing.T) {
	b, err := testMap(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := bytes.Cut(b, []byte{'\n'})
	var fields map[string]any
	if err := json.Unmarshal(body, &fields); err != nil {
		t.Fatal(err)
	}
	change := func(k string, v any) []byte {
		was := fields[k]
		defer func() { fields[k] = was }()
		fields[k] = v
		out, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	fields["features"] = uint64(1) << 40
	for name, v := range map[string][]byte{
		"format":                   []byte("shoal-map-2 xxh3:00\nwhatever"),
		"format, far":              []byte("shoal-map-100 \n"),
		"features":                 stored(change("cluster", "c1")),
		"features and other types": stored(change("slots", map[string]int{"a": 1})),
		"features and less":        stored(change("voters", nil)),
	} {
		if _, err := DecodeMap(v); !errors.Is(err, ErrNewer) || errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: got %v, want ErrNewer", name, err)
		}
	}
	for _, head := range []string{"shoal-map- x\n", "shoal-map--2 x\n", "shoal-map-0 x\n", "shoal-map-2\n", "shoal-map-1 sha256:00\n", "shoal-map-99999999999999 x\n"} {
		if _, err := DecodeMap([]byte(head + "{}")); !errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNewer) {
			t.Errorf("%q: got %v, want ErrCorrupt", head, err)
		}
	}
	if b := stored(change("features", 1)); !errors.Is(func() error { _, err := DecodeMap(append(b, ' ')); return err }(), ErrCorrupt) {
		t.Error("a damaged map with feature bits is not ErrCorrupt")
	}
}

// Who has a map knows its stored form without decoding it, and takes nothing else
// for it.
func TestMapIsEncoded(t *testing.T) {
	m := testMap(t)
	b, got := throughStore(t, m)
	if !m.IsEncoded(b) || !got.IsEncoded(b) {
		t.Error("a map does not know its own stored form")
	}
	again, err := got.Encode()
	if err != nil || !bytes.Equal(again, b) {
		t.Errorf("encoded again, a decoded map is another (%v)", err)
	}
	b[0] ^= 1
	if m.IsEncoded(b) {
		t.Error("another magic word is taken for the map's")
	}
	b[0] ^= 1
	b[len(b)-2] ^= 1
	if m.IsEncoded(b) {
		t.Error("a damaged map is taken for the map")
	}
	next := m.Clone()
	next.Epoch++
	if next.IsEncoded(again) {
		t.Error("a map that is not sealed has a stored form")
	}
	if err := next.Seal(); err != nil {
		t.Fatal(err)
	}
	if next.IsEncoded(again) || m.Epoch == next.Epoch {
		t.Error("the predecessor's stored form is taken for the map's")
	}
	next.Slots[1].Joining = append(next.Slots[1].Joining, 9)
	next.Slots[0].Insync[0] = 4
	if m.Slots[0].Insync[0] != 3 || len(m.Slots[1].Joining) != 2 || len(next.Slots[2].Insync) != 0 {
		t.Error("a clone shares its lists")
	}
}
