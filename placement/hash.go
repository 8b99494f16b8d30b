package placement

import (
	"encoding/binary"
	"math"

	"github.com/zeebo/xxh3"

	"github.com/shoalstore/shoal/core"
)

// slotSeed separates the hashes of slots from those of keys.
const slotSeed = 0x736c6f74

// SlotOf returns the slot of a key in a cluster of that many slots. It is part
// of the format on disk: records are filed by slot.
func SlotOf(bucket core.BucketID, key string, slots int) core.SlotID {
	return core.SlotID(keyItem(bucket, key) % uint64(slots))
}

// keyItem is the item that an object is to rendezvous hashing: the hash of the
// bucket's number, four bytes little endian, and the key.
func keyItem(bucket core.BucketID, key string) uint64 {
	// Keys are short as a rule; clearing room for the longest would cost
	// more than the hash.
	const usual = 128
	if len(key) <= usual {
		var buf [4 + usual]byte
		return hashKey(buf[:0], bucket, key)
	}
	var buf [4 + core.MaxKey]byte
	return hashKey(buf[:0], bucket, key)
}

func hashKey(buf []byte, bucket core.BucketID, key string) uint64 {
	buf = binary.LittleEndian.AppendUint32(buf, uint32(bucket))
	return xxh3.Hash(append(buf, key...))
}

// slotItem is the item that a slot is to rendezvous hashing.
func slotItem(s core.SlotID) uint64 {
	var buf [4]byte
	binary.LittleEndian.PutUint32(buf[:], uint32(s))
	return xxh3.HashSeed(buf[:], slotSeed)
}

// cost is the reciprocal of the score -w/ln(h); the disk of least cost is the
// best. The last bit of a logarithm may differ between processor architectures;
// that changes an order once in some 10^15 comparisons, and then what is
// proposed, never what a map or record has decided.
func cost(item uint64, uuid string, weight float64) float64 {
	return -math.Log(unit(xxh3.HashStringSeed(uuid, item))) / weight
}

// unit maps a hash into (0, 1), both ends excluded.
func unit(h uint64) float64 { return (float64(h>>12) + 0.5) / (1 << 52) }

// weightOf is a disk's weight for placement; what is not a positive number
// counts as 1.
func weightOf(n *core.Node, d *core.Disk) float64 {
	return orOne(n.Weight) * orOne(d.Weight)
}

func orOne(w float64) float64 {
	if w > 0 && !math.IsInf(w, 1) {
		return w
	}
	return 1
}
