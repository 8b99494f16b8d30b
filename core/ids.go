package core

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
)

// NodeID is a node's name, chosen by the operator and unique in the cluster:
// 1 to 63 of a-z, 0-9 and '-', not starting or ending with '-'.
type NodeID string

// Validate says whether the name is well formed.
func (n NodeID) Validate() error {
	if len(n) == 0 || len(n) > 63 {
		return fmt.Errorf("node name %q: want 1 to 63 characters: %w", string(n), ErrInvalid)
	}
	for i, c := range []byte(n) {
		ok := c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' && i > 0 && i < len(n)-1
		if !ok {
			return fmt.Errorf("node name %q: only a-z, 0-9 and inner '-' are allowed: %w", string(n), ErrInvalid)
		}
	}
	return nil
}

// DiskID is the number that the map gave a disk when it joined. Numbers are
// never used again: a blank disk in an old slot of the machine is a new one.
// Zero is no disk.
type DiskID uint32

// BucketID is the number that the map gave a bucket when it was created.
// A name created again gets a new one. Zero is the system's own rows.
type BucketID uint32

// SystemBucket is the owner of rows that belong to no user: the cursors of jobs.
const SystemBucket BucketID = 0

// SlotID is a hash slot, 0 to S-1.
type SlotID uint32

// MaxSlots is the largest slot table, as its stored form allows.
const MaxSlots = 1 << 20

// Epoch numbers the maps of a cluster; each map is its predecessor's plus one.
type Epoch uint64

// ExtentID is the random name of a run of an object's data. It is 16 bytes
// from crypto/rand, so that no two writers ever share one.
type ExtentID [16]byte

// NewExtentID returns a fresh random name.
func NewExtentID() (id ExtentID) { _, _ = rand.Read(id[:]); return id }

// ShardID names one shard for ever: its extent, its number within the scheme,
// and a random nonce, so that a shard built again is a new shard.
type ShardID struct {
	Extent ExtentID
	Index  uint8
	Nonce  [3]byte
}

// NewShardID names a new shard of an extent.
func NewShardID(e ExtentID, index int) (id ShardID) {
	id.Extent, id.Index = e, uint8(index)
	_, _ = rand.Read(id.Nonce[:])
	return id
}

// String is the 40 hex digits under which a disk files the shard.
func (s ShardID) String() string {
	var b [20]byte
	copy(b[:], s.Extent[:])
	b[16] = s.Index
	copy(b[17:], s.Nonce[:])
	return hex.EncodeToString(b[:])
}

// ParseShardID is the inverse of [ShardID.String].
func ParseShardID(t string) (s ShardID, err error) {
	b, err := hex.DecodeString(t)
	if err != nil || len(b) != 20 {
		return s, fmt.Errorf("shard id %q: want 40 hex digits: %w", t, ErrInvalid)
	}
	copy(s.Extent[:], b)
	s.Index = b[16]
	copy(s.Nonce[:], b[17:])
	return s, nil
}

// RequestID names a client's request, so that one which is sent again after
// a fail-over gets its first answer. Zero asks for no such memory.
type RequestID [16]byte

// NewRequestID returns a fresh random name.
func NewRequestID() (id RequestID) { _, _ = rand.Read(id[:]); return id }

// IsZero says whether the request asked for no memory.
func (r RequestID) IsZero() bool { return r == RequestID{} }

func (r RequestID) String() string { return hex.EncodeToString(r[:]) }

// Version orders the writes of a slot. Term is the epoch of the slot's last
// change, Boot the owner's start count, Seq counts the slot's writes without
// gaps. The history of a slot has at most one committed version per Seq.
type Version struct {
	Term Epoch  `json:"term"`
	Boot uint64 `json:"boot"`
	Seq  uint64 `json:"seq"`
}

// Compare orders versions by term, boot, seq.
func (v Version) Compare(w Version) int {
	switch {
	case v.Term != w.Term:
		return cmp(uint64(v.Term), uint64(w.Term))
	case v.Boot != w.Boot:
		return cmp(v.Boot, w.Boot)
	}
	return cmp(v.Seq, w.Seq)
}

// IsZero says whether v is the version before every write.
func (v Version) IsZero() bool { return v == Version{} }

func (v Version) String() string {
	return strconv.FormatUint(uint64(v.Term), 10) + "." + strconv.FormatUint(v.Boot, 10) + "." + strconv.FormatUint(v.Seq, 10)
}

// Ballot is the right to write a slot: a term and the owner's boot. A member
// that has adopted one refuses all lower ones.
type Ballot struct {
	Term Epoch
	Boot uint64
}

// Compare orders ballots by term, boot.
func (b Ballot) Compare(c Ballot) int {
	if b.Term != c.Term {
		return cmp(uint64(b.Term), uint64(c.Term))
	}
	return cmp(b.Boot, c.Boot)
}

func (b Ballot) String() string {
	return strconv.FormatUint(uint64(b.Term), 10) + "." + strconv.FormatUint(b.Boot, 10)
}

func cmp(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
