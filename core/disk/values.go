package disk

import (
	"encoding/binary"
	"fmt"

	"github.com/zeebo/xxh3"

	"github.com/shoalstore/shoal/core"
)

// Values in Pebble; see docs/disk-format.md. Each begins with the checksum of
// its key and of what follows.
const sumSize = 8

func valueSum(key, payload []byte) uint64 { return xxh3.HashSeed(payload, xxh3.Hash(key)) }

// openValue returns the payload of a value read under key; it aliases v.
func openValue(key, v []byte) ([]byte, error) {
	if len(v) < sumSize || binary.LittleEndian.Uint64(v) != valueSum(key, v[sumSize:]) {
		return nil, fmt.Errorf("value of key %x: checksum mismatch: %w", key, core.ErrCorrupt)
	}
	return v[sumSize:], nil
}

// sealValue fills in the checksum of a value whose payload is in place.
func sealValue(key, v []byte) []byte {
	binary.LittleEndian.PutUint64(v, valueSum(key, v[sumSize:]))
	return v
}

// fields reads a payload's varints; what is missing makes ok false.
type fields struct {
	b  []byte
	ok bool
}

func (f *fields) next() uint64 {
	v, n := binary.Uvarint(f.b)
	if n <= 0 {
		f.b, f.ok = nil, false
		return 0
	}
	f.b = f.b[n:]
	return v
}

func (f *fields) version() core.Version {
	return core.Version{Term: core.Epoch(f.next()), Boot: f.next(), Seq: f.next()}
}

func malformed(what string, key []byte) error {
	return fmt.Errorf("%s under key %x is malformed: %w", what, key, core.ErrCorrupt)
}

func encodeState(key []byte, s *core.SlotState) []byte {
	b := make([]byte, sumSize, sumSize+64)
	b = binary.AppendUvarint(b, uint64(s.Ballot.Term))
	b = binary.AppendUvarint(b, s.Ballot.Boot)
	b = core.AppendVersion(b, s.Committed)
	b = core.AppendVersion(b, s.Last)
	return sealValue(key, binary.AppendUvarint(b, s.Floor))
}

func decodeState(key, v []byte) (s core.SlotState, err error) {
	p, err := openValue(key, v)
	if err != nil {
		return s, err
	}
	f := fields{b: p, ok: true}
	s.Ballot = core.Ballot{Term: core.Epoch(f.next()), Boot: f.next()}
	s.Committed, s.Last = f.version(), f.version()
	s.Floor = f.next()
	if !f.ok || len(f.b) != 0 {
		return s, malformed("slot state", key)
	}
	return s, nil
}

func encodeVoid(key []byte, seq uint64) []byte {
	return sealValue(key, binary.AppendUvarint(make([]byte, sumSize, sumSize+10), seq))
}

func decodeVoid(key, v []byte) (seq uint64, err error) {
	p, err := openValue(key, v)
	if err != nil {
		return 0, err
	}
	f := fields{b: p, ok: true}
	if seq = f.next(); !f.ok || len(f.b) != 0 {
		return 0, malformed("void mark", key)
	}
	return seq, nil
}

// indexEntry says which row an entry wrote.
type indexEntry struct {
	flags  byte
	term   core.Epoch
	boot   uint64
	time   int64
	prefix []byte // of the row's key
}

func (e *indexEntry) version(seq uint64) core.Version {
	return core.Version{Term: e.term, Boot: e.boot, Seq: seq}
}

func encodeIndex(key []byte, e *indexEntry) []byte {
	b := make([]byte, sumSize, sumSize+32+len(e.prefix))
	b = append(b, flagAlways|e.flags)
	b = binary.AppendUvarint(b, uint64(e.term))
	b = binary.AppendUvarint(b, e.boot)
	b = binary.AppendUvarint(b, uint64(e.time))
	return sealValue(key, append(b, e.prefix...))
}

// decodeIndex reads an index entry; its prefix aliases v.
func decodeIndex(key, v []byte) (e indexEntry, err error) {
	p, err := openValue(key, v)
	if err != nil {
		return e, err
	}
	if len(p) == 0 {
		return e, malformed("index entry", key)
	}
	e.flags = p[0] &^ flagAlways
	f := fields{b: p[1:], ok: true}
	e.term, e.boot, e.time = core.Epoch(f.next()), f.next(), int64(f.next())
	e.prefix = f.b
	if !f.ok || len(e.prefix) == 0 {
		return e, malformed("index entry", key)
	}
	return e, nil
}

// head is what is kept of an entry beside its rows.
type head struct {
	term    core.Epoch
	boot    uint64
	time    int64
	floor   uint64
	request core.RequestID
}

func (h *head) version(seq uint64) core.Version {
	return core.Version{Term: h.term, Boot: h.boot, Seq: seq}
}

func encodeHead(key []byte, h *head) []byte {
	b := make([]byte, sumSize, sumSize+40+len(h.request))
	b = binary.AppendUvarint(b, uint64(h.term))
	b = binary.AppendUvarint(b, h.boot)
	b = binary.AppendUvarint(b, uint64(h.time))
	b = binary.AppendUvarint(b, h.floor)
	return sealValue(key, append(b, h.request[:]...))
}

func decodeHead(key, v []byte) (h head, err error) {
	p, err := openValue(key, v)
	if err != nil {
		return h, err
	}
	f := fields{b: p, ok: true}
	h.term, h.boot, h.time, h.floor = core.Epoch(f.next()), f.next(), int64(f.next()), f.next()
	if !f.ok || len(f.b) != len(h.request) {
		return h, malformed("entry head", key)
	}
	copy(h.request[:], f.b)
	return h, nil
}

func encodeAnswer(key []byte, time int64, answer []byte) []byte {
	b := make([]byte, sumSize, sumSize+10+len(answer))
	b = binary.AppendUvarint(b, uint64(time))
	return sealValue(key, append(b, answer...))
}

// decodeAnswer reads an answer; it aliases v.
func decodeAnswer(key, v []byte) (time int64, answer []byte, err error) {
	p, err := openValue(key, v)
	if err != nil {
		return 0, nil, err
	}
	f := fields{b: p, ok: true}
	time = int64(f.next())
	if !f.ok {
		return 0, nil, malformed("answer", key)
	}
	return time, f.b, nil
}

func encodeCounts(key []byte, shards, bytes, objects int64) []byte {
	b := make([]byte, sumSize, sumSize+20)
	b = binary.AppendUvarint(b, uint64(shards))
	b = binary.AppendUvarint(b, uint64(bytes))
	return sealValue(key, binary.AppendUvarint(b, uint64(objects)))
}

func decodeCounts(key, v []byte) (shards, bytes, objects int64, err error) {
	p, err := openValue(key, v)
	if err != nil {
		return 0, 0, 0, err
	}
	f := fields{b: p, ok: true}
	shards, bytes, objects = int64(f.next()), int64(f.next()), int64(f.next())
	if !f.ok || shards < 0 || bytes < 0 || objects < 0 {
		return 0, 0, 0, malformed("counts", key)
	}
	return shards, bytes, objects, nil
}
