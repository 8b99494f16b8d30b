package bus

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sort"

	"github.com/shoalstore/shoal/core"
)

// Snapshot is all that a generation of the bus kept, to be carried over into
// the next one.
type Snapshot struct {
	// Generation is the one it was taken from; 0 for the empty snapshot from
	// which a cluster's first bus is made.
	Generation uint64 `json:"generation"`
	// Buckets, by name.
	Buckets []BucketSnapshot `json:"buckets"`
}

// BucketSnapshot is the content of one bucket.
type BucketSnapshot struct {
	Name    string     `json:"name"`
	Entries []KeyValue `json:"entries"` // by key
}

// KeyValue is a key with its value.
type KeyValue struct {
	Key   string `json:"key"`
	Value []byte `json:"value"`
}

// Bucket returns the entries of a bucket, nil if there is none of that name.
func (s Snapshot) Bucket(name string) []KeyValue {
	for _, b := range s.Buckets {
		if b.Name == name {
			return b.Entries
		}
	}
	return nil
}

const snapshotMagic = "shoal-bus-snapshot-1 sha256:"

// Encode returns the stored form: a line with a magic word and the checksum,
// then JSON. Equal content has equal form.
func (s Snapshot) Encode() ([]byte, error) {
	body, err := s.body()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	out := make([]byte, 0, len(snapshotMagic)+65+len(body))
	out = append(out, snapshotMagic...)
	out = hex.AppendEncode(out, sum[:])
	out = append(out, '\n')
	return append(out, body...), nil
}

// Sum is the checksum of the stored form, in hex.
func (s Snapshot) Sum() (string, error) {
	body, err := s.body()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:]), nil
}

func (s Snapshot) body() ([]byte, error) {
	c := Snapshot{Generation: s.Generation, Buckets: append([]BucketSnapshot{}, s.Buckets...)}
	sort.Slice(c.Buckets, func(i, j int) bool { return c.Buckets[i].Name < c.Buckets[j].Name })
	for i, b := range c.Buckets {
		e := append([]KeyValue{}, b.Entries...)
		sort.Slice(e, func(i, j int) bool { return e[i].Key < e[j].Key })
		c.Buckets[i].Entries = e
	}
	body, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode the snapshot of bus generation %d: %w", s.Generation, err)
	}
	return body, nil
}

// DecodeSnapshot is the inverse of Encode. A damaged snapshot is
// [core.ErrCorrupt].
func DecodeSnapshot(b []byte) (Snapshot, error) {
	head, body, ok := bytes.Cut(b, []byte{'\n'})
	want, magic := bytes.CutPrefix(head, []byte(snapshotMagic))
	sum := sha256.Sum256(body)
	if !ok || !magic || hex.EncodeToString(sum[:]) != string(want) {
		return Snapshot{}, fmt.Errorf("bus snapshot: unknown format or checksum mismatch: %w", core.ErrCorrupt)
	}
	var s Snapshot
	if err := json.Unmarshal(body, &s); err != nil {
		return Snapshot{}, fmt.Errorf("bus snapshot: %w: %w", core.ErrCorrupt, err)
	}
	return s, nil
}
