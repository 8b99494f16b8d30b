package slot

import (
	"encoding/binary"
	"fmt"

	"github.com/shoalstore/shoal/core"
)

// Limits of decoded messages.
const (
	maxEntries = 1 << 16
	maxSilent  = 1 << 12
)

// AppendMessage appends the wire form of a message: the kind, then the fields
// that the kind uses, as varints and byte strings with their length in front.
// A message whose map cannot be encoded is an error.
func AppendMessage(b []byte, m *Message) ([]byte, error) {
	b = append(b, byte(m.Kind))
	switch m.Kind {
	case MsgReport, MsgGrant, MsgConfirmed, MsgMapWant:
		b = appendBytes(b, []byte(m.Key))
		b = binary.AppendUvarint(b, uint64(m.Epoch))
		b = appendBytes(b, []byte(m.Sum))
		b = binary.AppendUvarint(b, m.Boot)
		b = binary.AppendUvarint(b, uint64(m.Nonce))
		b = append(b, bit(m.Granted))
		b = binary.AppendUvarint(b, uint64(len(m.Silent)))
		for _, s := range m.Silent {
			b = appendBytes(b, []byte(s))
		}
		return b, nil
	case MsgMap:
		e, err := m.Map.Encode()
		return appendBytes(b, e), err
	}
	b = binary.AppendUvarint(b, uint64(m.Slot))
	b = binary.AppendUvarint(b, uint64(m.Disk))
	b = binary.AppendUvarint(b, uint64(m.Ballot.Term))
	b = binary.AppendUvarint(b, m.Ballot.Boot)
	b = append(b, bit(m.Joining))
	for _, v := range []core.Version{m.Prev, m.Commit, m.Last, m.UpTo} {
		b = core.AppendVersion(b, v)
	}
	b = binary.AppendUvarint(b, m.After)
	b = binary.AppendUvarint(b, m.Floor)
	b = binary.AppendUvarint(b, m.Attempt)
	b = binary.AppendUvarint(b, uint64(len(m.Entries)))
	for i := range m.Entries {
		b = core.AppendEntry(b, &m.Entries[i])
	}
	return b, nil
}

// DecodeMessage reads a message. Entries alias b. A message that brings known,
// which may be nil, has that: several peers send each map, and decoding one takes
// as long as a hundred other messages.
func DecodeMessage(b []byte, known *core.Map) (*Message, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("empty message: %w", core.ErrCorrupt)
	}
	m := &Message{Kind: Kind(b[0])}
	d := decoder{b: b[1:]}
	switch m.Kind {
	case MsgReport, MsgGrant, MsgConfirmed, MsgMapWant:
		d.lease(m)
	case MsgMap:
		enc := d.bytes()
		switch {
		case d.err != nil:
		case known != nil && known.IsEncoded(enc):
			m.Map = known
		default:
			m.Map, d.err = core.DecodeMap(enc)
		}
	case MsgSeal, MsgSealed, MsgSync, MsgAppend, MsgAck, MsgNack, MsgMark, MsgCatchup, MsgCaughtUp:
		d.slot(m)
	default:
		return nil, fmt.Errorf("message of unknown kind %d: %w", m.Kind, core.ErrCorrupt)
	}
	if d.err == nil && len(d.b) != 0 {
		d.fail()
	}
	if d.err != nil {
		return nil, fmt.Errorf("message of kind %d: %w", m.Kind, d.err)
	}
	return m, nil
}

func (d *decoder) lease(m *Message) {
	m.Key = string(d.bytes())
	m.Epoch = core.Epoch(d.uvarint())
	m.Sum = string(d.bytes())
	m.Boot = d.uvarint()
	m.Nonce = core.Instant(d.uvarint())
	m.Granted = d.byte() != 0
	for range d.count(maxSilent) {
		m.Silent = append(m.Silent, core.NodeID(d.bytes()))
	}
}

func (d *decoder) slot(m *Message) {
	m.Slot = core.SlotID(d.uvarint())
	m.Disk = core.DiskID(d.uvarint())
	m.Ballot = core.Ballot{Term: core.Epoch(d.uvarint()), Boot: d.uvarint()}
	m.Joining = d.byte() != 0
	for _, v := range []*core.Version{&m.Prev, &m.Commit, &m.Last, &m.UpTo} {
		*v = d.version()
	}
	m.After, m.Floor, m.Attempt = d.uvarint(), d.uvarint(), d.uvarint()
	for range d.count(maxEntries) {
		if d.err != nil {
			return
		}
		var e core.Entry
		e, d.b, d.err = core.DecodeEntry(d.b)
		m.Entries = append(m.Entries, e)
	}
}

// decoder reads varints and byte strings; its first error sticks.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail() {
	if d.err == nil {
		d.err = fmt.Errorf("malformed: %w", core.ErrCorrupt)
	}
	d.b = nil
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

// count reads a number of items of at least one byte each.
func (d *decoder) count(limit int) int {
	n := d.uvarint()
	if n > uint64(limit) || n > uint64(len(d.b)) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) version() core.Version {
	return core.Version{Term: core.Epoch(d.uvarint()), Boot: d.uvarint(), Seq: d.uvarint()}
}

func appendBytes(b, v []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

func bit(v bool) byte {
	if v {
		return 1
	}
	return 0
}
