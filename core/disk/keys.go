package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"

	"github.com/cockroachdb/pebble/v2"

	"github.com/shoalstore/shoal/core"
)

// Keys in Pebble; docs/disk-format.md says what they look like and why.

// The first byte of a key says what it is.
const (
	kindState   = 's'
	kindRow     = 'r'
	kindIndex   = 'i'
	kindHead    = 'h'
	kindAnswer  = 'q'
	kindVoid    = 'v'
	kindAboutIt = 'm'
)

// noSuffix ends keys without a suffix, and the prefix of those with one.
const noSuffix = 0

// Flags of a version of a row.
const (
	flagAlways  = 0x80
	flagDeleted = 0x01
)

// Strings within keys: a zero byte is escaped, and the end is marked so that
// what follows cannot change the order.
const (
	escape     = 0x00
	escapeZero = 0xff
	escapeEnd  = 0x01
	// afterEnd is above the end of a string and below any way to go on.
	afterEnd = 0x02
)

// newest is above every version.
func newest() core.Version {
	return core.Version{Term: math.MaxUint64, Boot: math.MaxUint64, Seq: math.MaxUint64}
}

func appendEscaped(b []byte, s string) []byte {
	for i := range len(s) {
		b = append(b, s[i])
		if s[i] == escape {
			b = append(b, escapeZero)
		}
	}
	return b
}

func appendKeyString(b []byte, s string) []byte {
	return append(appendEscaped(b, s), escape, escapeEnd)
}

// takeKeyString reads a string from the front of b.
func takeKeyString(b []byte) (s string, rest []byte, ok bool) {
	var buf []byte
	for from := 0; ; {
		i := bytes.IndexByte(b[from:], escape)
		if i < 0 || from+i+1 >= len(b) {
			return "", nil, false
		}
		end := from + i
		switch b[end+1] {
		case escapeEnd:
			if buf == nil {
				return string(b[:end]), b[end+2:], true
			}
			return string(append(buf, b[from:end]...)), b[end+2:], true
		case escapeZero:
			buf = append(buf, b[from:end+1]...)
			from = end + 2
		default:
			return "", nil, false
		}
	}
}

// appendDescending writes v so that larger numbers sort first.
func appendDescending(b []byte, v uint64) []byte {
	n := (bits.Len64(v) + 7) / 8
	b = append(b, byte(0xff-n))
	for i := n - 1; i >= 0; i-- {
		b = append(b, ^byte(v>>(8*i)))
	}
	return b
}

func takeDescending(b []byte) (v uint64, rest []byte, ok bool) {
	if len(b) == 0 || b[0] < 0xff-8 {
		return 0, nil, false
	}
	n := int(0xff - b[0])
	if len(b) < 1+n || n > 0 && b[1] == 0xff {
		return 0, nil, false
	}
	for _, c := range b[1 : 1+n] {
		v = v<<8 | uint64(^c)
	}
	return v, b[1+n:], true
}

func appendDescendingVersion(b []byte, v core.Version) []byte {
	b = appendDescending(b, uint64(v.Term))
	b = appendDescending(b, v.Boot)
	return appendDescending(b, v.Seq)
}

// appendSuffix completes a key for one version of what the prefix names.
func appendSuffix(prefix []byte, v core.Version, flags byte, n uint16) []byte {
	from := len(prefix)
	b := appendDescendingVersion(prefix, v)
	b = append(b, flagAlways|flags)
	b = binary.BigEndian.AppendUint16(b, n)
	return append(b, byte(len(b)-from+1))
}

// appendSeek completes a key to the place of the newest version not above v.
func appendSeek(prefix []byte, v core.Version) []byte {
	from := len(prefix)
	b := appendDescendingVersion(prefix, v)
	return append(b, byte(len(b)-from+1))
}

// appendSeekOlder completes a key to the place of the newest version below v.
func appendSeekOlder(prefix []byte, v core.Version) []byte {
	from := len(prefix)
	b := appendDescendingVersion(prefix, v)
	b = append(b, 0xff)
	return append(b, byte(len(b)-from+1))
}

// suffix is what a key says of the version that it stands for.
type suffix struct {
	version core.Version
	flags   byte
	n       uint16
}

func (s suffix) deleted() bool { return s.flags&flagDeleted != 0 }

// splitKey is Pebble's Split: the length of the prefix.
func splitKey(k []byte) int {
	if len(k) == 0 {
		return 0
	}
	n := int(k[len(k)-1])
	if n > len(k) {
		return len(k)
	}
	return len(k) - n
}

func parseSuffix(b []byte) (s suffix, ok bool) {
	if len(b) == 0 || int(b[len(b)-1]) != len(b) {
		return s, false
	}
	b = b[:len(b)-1]
	var term uint64
	if term, b, ok = takeDescending(b); !ok {
		return s, false
	}
	s.version.Term = core.Epoch(term)
	if s.version.Boot, b, ok = takeDescending(b); !ok {
		return s, false
	}
	if s.version.Seq, b, ok = takeDescending(b); !ok {
		return s, false
	}
	if len(b) != 3 || b[0]&flagAlways == 0 {
		return s, false
	}
	s.flags = b[0] &^ flagAlways
	s.n = binary.BigEndian.Uint16(b[1:])
	return s, true
}

func appendSlot(b []byte, kind byte, slot core.SlotID) []byte {
	return binary.BigEndian.AppendUint32(append(b, kind), uint32(slot))
}

func stateKey(slot core.SlotID) []byte { return append(appendSlot(nil, kindState, slot), noSuffix) }

func voidKey(slot core.SlotID) []byte { return append(appendSlot(nil, kindVoid, slot), noSuffix) }

func aboutKey(name string) []byte {
	return append(append([]byte{kindAboutIt}, name...), noSuffix)
}

// slotBounds are the first key of a kind and slot, and the first key behind.
func slotBounds(kind byte, slot core.SlotID) (from, to []byte) {
	from = append(appendSlot(nil, kind, slot), noSuffix)
	if slot == math.MaxUint32 {
		return from, []byte{kind + 1, noSuffix}
	}
	return from, append(appendSlot(nil, kind, slot+1), noSuffix)
}

// seqBounds are the first key of a slot's index or heads with a sequence
// number above after, and the first key behind upTo.
func seqBounds(kind byte, slot core.SlotID, after, upTo uint64) (from, to []byte) {
	return seqAfter(kind, slot, after), seqAfter(kind, slot, upTo)
}

// seqAfter is the first key of a slot behind those of a sequence number.
func seqAfter(kind byte, slot core.SlotID, seq uint64) []byte {
	if seq == math.MaxUint64 {
		_, to := slotBounds(kind, slot)
		return to
	}
	b := binary.BigEndian.AppendUint64(appendSlot(nil, kind, slot), seq+1)
	return append(b, noSuffix)
}

func indexKey(slot core.SlotID, seq uint64, n uint16) []byte {
	b := binary.BigEndian.AppendUint64(appendSlot(make([]byte, 0, 16), kindIndex, slot), seq)
	b = binary.BigEndian.AppendUint16(b, n)
	return append(b, noSuffix)
}

func headKey(slot core.SlotID, seq uint64) []byte {
	b := binary.BigEndian.AppendUint64(appendSlot(make([]byte, 0, 14), kindHead, slot), seq)
	return append(b, noSuffix)
}

func answerPrefix(slot core.SlotID, id core.RequestID) []byte {
	b := append(appendSlot(make([]byte, 0, 64), kindAnswer, slot), id[:]...)
	return append(b, noSuffix)
}

// parseSeq reads the sequence number of an index or head key, and the rest.
func parseSeq(k []byte) (seq uint64, rest []byte, ok bool) {
	if len(k) < 1+4+8+1 {
		return 0, nil, false
	}
	return binary.BigEndian.Uint64(k[5:]), k[13:], true
}

// parseIndexN reads which of its entry's rows an index key stands for.
func parseIndexN(rest []byte) (n uint16, ok bool) {
	if len(rest) != 3 {
		return 0, false
	}
	return binary.BigEndian.Uint16(rest), true
}

// slotOfKey reads the slot of the key of a state or a void mark.
func slotOfKey(k []byte) (core.SlotID, bool) {
	if len(k) != 1+4+1 {
		return 0, false
	}
	return core.SlotID(binary.BigEndian.Uint32(k[1:])), true
}

func appendSpace(b []byte, bucket core.BucketID, space core.Space) []byte {
	b = binary.BigEndian.AppendUint32(append(b, kindRow), uint32(bucket))
	return append(b, byte(space))
}

// appendRowPrefix appends the prefix of the keys of all versions of a row. It
// leaves room for a suffix.
func appendRowPrefix(b []byte, k *core.RowKey, slot core.SlotID) []byte {
	b = appendSpace(b, k.Bucket, k.Space)
	b = appendKeyString(b, k.Key)
	b = appendKeyString(b, k.Sub)
	b = binary.BigEndian.AppendUint32(b, uint32(slot))
	return append(b, noSuffix)
}

func rowPrefix(k *core.RowKey, slot core.SlotID) []byte {
	return appendRowPrefix(make([]byte, 0, len(k.Key)+len(k.Sub)+48), k, slot)
}

// rowPrefixSlot is the slot that a row's prefix ends with.
func rowPrefixSlot(prefix []byte) (core.SlotID, bool) {
	const tail = 4 + 1
	if len(prefix) < 1+4+1+2+2+tail {
		return 0, false
	}
	return core.SlotID(binary.BigEndian.Uint32(prefix[len(prefix)-tail:])), true
}

func parseRowPrefix(p []byte) (k core.RowKey, slot core.SlotID, err error) {
	bad := func() (core.RowKey, core.SlotID, error) {
		return core.RowKey{}, 0, fmt.Errorf("malformed row key %x: %w", p, core.ErrCorrupt)
	}
	if len(p) < 1+4+1 || p[0] != kindRow {
		return bad()
	}
	k.Bucket, k.Space = core.BucketID(binary.BigEndian.Uint32(p[1:])), core.Space(p[5])
	rest, ok := p[6:], false
	if k.Key, rest, ok = takeKeyString(rest); !ok {
		return bad()
	}
	if k.Sub, rest, ok = takeKeyString(rest); !ok {
		return bad()
	}
	if len(rest) != 5 || rest[4] != noSuffix {
		return bad()
	}
	return k, core.SlotID(binary.BigEndian.Uint32(rest)), nil
}

// scanBounds are the bounds of a scan; to is nil for none.
func scanBounds(s *core.Scan) (from, to []byte) {
	space := appendSpace(nil, s.Bucket, s.Space)
	from = append(appendEscaped(bytes.Clone(space), s.Prefix), noSuffix)
	to = append(successor(appendEscaped(bytes.Clone(space), s.Prefix)), noSuffix)
	if s.AfterKey != "" || s.AfterSub != "" {
		after := appendEscaped(appendKeyString(bytes.Clone(space), s.AfterKey), s.AfterSub)
		after = append(after, escape, afterEnd, noSuffix)
		if bytes.Compare(after, from) > 0 {
			from = after
		}
	}
	if s.Before != "" {
		before := append(appendEscaped(space, s.Before), noSuffix)
		if bytes.Compare(before, to) < 0 {
			to = before
		}
	}
	return from, to
}

// successor is the first string of bytes that is behind all those that begin
// with b. It may write to b. A row's space never has only 0xff in front.
func successor(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == 0xff {
		b = b[:len(b)-1]
	}
	if len(b) > 0 {
		b[len(b)-1]++
	}
	return b
}

// comparer tells Pebble how keys are ordered and split. Its name is part of
// the format.
func comparer() *pebble.Comparer {
	c := *pebble.DefaultComparer
	c.Name = "shoal.rows.1"
	c.Split = splitKey
	c.Separator = separator
	c.Successor = func(dst, a []byte) []byte { return append(dst, a...) }
	c.ImmediateSuccessor = immediateSuccessor
	return &c
}

// immediateSuccessor returns the first prefix behind all keys with prefix a.
// Keys compare by their bytes, so the byte that ends a must change.
func immediateSuccessor(dst, a []byte) []byte {
	return append(append(dst, a[:len(a)-1]...), noSuffix+1, noSuffix)
}

// separator returns a short key k with a <= k < b: a prefix that differs from
// a's in one byte, or a itself.
func separator(dst, a, b []byte) []byte {
	pa, pb := a[:splitKey(a)], b[:splitKey(b)]
	n := 0
	for n < len(pa) && n < len(pb) && pa[n] == pb[n] {
		n++
	}
	if n < len(pa) && n < len(pb) && pa[n] < 0xff && pa[n]+1 < pb[n] {
		return append(dst, append(append(bytes.Clone(pa[:n]), pa[n]+1), noSuffix)...)
	}
	return append(dst, a...)
}
