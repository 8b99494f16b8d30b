package engine

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/slot"
)

// The methods of calls between nodes. Their numbers are part of the wire
// format.
const (
	methodMutate uint16 = iota + 1
	methodGet
	methodScan
	methodSlotScan
	methodSweep
	methodEpoch
	methodJoin
	methodStatus
	methodJob
	methodNode
	methodRemoteGet
	methodFetch
	methodSettle
	methodMoved
	methodRemoteOpen
	methodTaking
	methodJoined
)

// mutation is a checked write of one slot: the checks are evaluated and the
// rows written while nobody else writes the same key.
type mutation struct {
	// again says that earlier attempts of the request may be on their way:
	// then a refusal is written as well, lest one of them take place later.
	again bool
	// fresh says that no attempt of the request was made before, so that
	// there is no answer to look for. It is not sent: what is on its way may
	// be overtaken by the next attempt.
	fresh bool
	// heals marks reconcile's own writes, and keeps is what the record names that
	// such a write replaces: of that may stay what cannot be moved yet, wherever it
	// is. Neither is sent.
	heals bool
	keeps []core.Extent
	// session is the one that keeps what it fetched. It is not sent.
	session *fetchSession
	// task marks what the task of a remote write commits: its answer is stored as
	// it is. spare says that shards which only the old intent names stay. Neither
	// is sent.
	task, spare bool
	slot        core.SlotID
	need        slot.Need
	checks      []check
	entry       core.Entry
}

// check is a condition on a row's present state.
type check struct {
	kind checkKind
	row  core.RowKey
	// conditions are for checkConditions, version for checkVersion.
	conditions core.Conditions
	version    core.Version
}

type checkKind uint8

const (
	checkConditions checkKind = iota + 1 // core.Conditions.CheckWrite
	checkUpload                          // the row exists, else ErrNoSuchUpload
	checkVersion                         // the row has this version; zero: it does not exist
)

// appendMutation appends the wire form of a mutation to b.
func appendMutation(b []byte, m *mutation) ([]byte, error) {
	b = slices.Grow(b, 64+m.entry.Size())
	b = append(b, boolByte(m.again))
	b = binary.AppendUvarint(b, uint64(m.slot))
	b = binary.AppendUvarint(b, uint64(m.need.Domains))
	b = appendText(b, string(m.need.Domain))
	b = binary.AppendUvarint(b, uint64(len(m.checks)))
	for i := range m.checks {
		c := &m.checks[i]
		b = append(b, byte(c.kind))
		b = appendRowKey(b, c.row)
		b = core.AppendVersion(b, c.version)
		var cond []byte
		if !c.conditions.IsZero() {
			var err error
			if cond, err = json.Marshal(c.conditions); err != nil {
				return nil, fmt.Errorf("encode conditions: %w", err)
			}
		}
		b = appendBlob(b, cond)
	}
	return core.AppendEntry(b, &m.entry), nil
}

// clone returns a copy to carry out: what that changes of the entry is not seen
// by whoever tries again.
func (m *mutation) clone() *mutation {
	c := *m
	c.entry.Rows = append(make([]core.Row, 0, len(m.entry.Rows)+1), m.entry.Rows...)
	return &c
}

// kept says whether a shard is where the replaced record has it.
func (m *mutation) kept(id core.ShardID, on core.DiskID) bool {
	return slices.ContainsFunc(m.keeps, func(e core.Extent) bool {
		i := int(id.Index)
		return e.ID == id.Extent && i < len(e.Places) && e.Places[i] == core.Place{Disk: on, Nonce: id.Nonce}
	})
}

func decodeMutation(b []byte) (*mutation, error) {
	d := reader{b: b}
	m := &mutation{again: d.byte() != 0, slot: core.SlotID(d.uvarint())}
	m.need = slot.Need{Domains: int(d.uvarint()), Domain: core.Domain(d.text())}
	for range d.count() {
		c := check{kind: checkKind(d.byte()), row: d.rowKey(), version: d.version()}
		if cond := d.blob(); len(cond) > 0 && d.err == nil {
			if err := json.Unmarshal(cond, &c.conditions); err != nil {
				d.fail()
			}
		}
		m.checks = append(m.checks, c)
	}
	if d.err != nil {
		return nil, d.err
	}
	var err error
	m.entry, _, err = core.DecodeEntry(d.b)
	return m, err
}

// outcome is what a mutation answers: the version that the write got, and the
// answer that its entry carries, or that of the first write with its id.
type outcome struct {
	version core.Version
	answer  []byte
}

// An entry's answer begins with a byte that says what it is.
const (
	answerDone    = 0 // what the mutation asked to be answered follows
	answerRefused = 1 // the sentinel's number and the message follow
	answerRemote  = 2 // why a write to a remote did not take place; see appendRefusal
)

// refusals are the sentinels that a write is refused with for good. Their order
// is part of the format on disk.
func refusals() []error {
	return []error{
		core.ErrPrecondition, core.ErrNotFound, core.ErrNoSuchUpload, core.ErrNoSuchBucket, core.ErrConflict, core.ErrInvalid,
	}
}

// refusalOf encodes a refusal; ok is false if the error is none.
func refusalOf(err error) (answer []byte, ok bool) {
	for i, s := range refusals() {
		if errors.Is(err, s) {
			return append([]byte{answerRefused, byte(i)}, err.Error()...), true
		}
	}
	return nil, false
}

// answered decodes what an entry answered.
func answered(v core.Version, b []byte) (outcome, error) {
	switch {
	case len(b) > 0 && b[0] == answerDone:
		return outcome{version: v, answer: b[1:]}, nil
	case len(b) > 0 && b[0] == answerRemote:
		return outcome{version: v}, parseRefusal(b[1:])
	case len(b) > 1 && b[0] == answerRefused && int(b[1]) < len(refusals()):
		return outcome{}, fmt.Errorf("%s: %w", b[2:], refusals()[b[1]])
	}
	return outcome{}, fmt.Errorf("remembered answer of %d bytes: %w", len(b), core.ErrCorrupt)
}

func appendOutcome(b []byte, o outcome) []byte {
	return append(core.AppendVersion(b, o.version), o.answer...)
}

func decodeOutcome(b []byte) (outcome, error) {
	d := reader{b: b}
	o := outcome{version: d.version()}
	o.answer = d.b
	return o, d.err
}

// appendGet is the request for a row; with data the row that holds an object's
// data comes along.
func appendGet(b []byte, s core.SlotID, k core.RowKey, data bool) []byte {
	b = appendRowKey(binary.AppendUvarint(b, uint64(s)), k)
	return append(b, boolByte(data))
}

func decodeGet(b []byte) (s core.SlotID, k core.RowKey, data bool, err error) {
	d := reader{b: b}
	s = core.SlotID(d.uvarint())
	k = d.rowKey()
	data = d.byte() != 0
	return s, k, data, d.err
}

// appendFound appends a row with its slot.
func appendFound(b []byte, f *core.Found) []byte {
	b = binary.AppendUvarint(b, uint64(f.Slot))
	b = appendRowKey(b, f.RowKey)
	b = core.AppendVersion(b, f.Version)
	return appendBlob(b, f.Value)
}

func (d *reader) found() core.Found {
	f := core.Found{Slot: core.SlotID(d.uvarint())}
	f.RowKey = d.rowKey()
	f.Version = d.version()
	f.Value = d.blob()
	return f
}

func appendRowKey(b []byte, k core.RowKey) []byte {
	b = binary.AppendUvarint(b, uint64(k.Bucket))
	b = append(b, byte(k.Space))
	b = appendText(b, k.Key)
	return appendText(b, k.Sub)
}

func appendText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendBlob(b, v []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

func boolByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// reader reads varints and byte strings; its first error sticks.
type reader struct {
	b   []byte
	err error
}

func (d *reader) fail() {
	if d.err == nil {
		d.err = fmt.Errorf("malformed call: %w", core.ErrInvalid)
	}
	d.b = nil
}

func (d *reader) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *reader) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

// count reads a number of items of at least one byte each.
func (d *reader) count() int {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.fail()
		return 0
	}
	return int(n)
}

// blob returns the next byte string; it aliases the input.
func (d *reader) blob() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

func (d *reader) text() string { return string(d.blob()) }

func (d *reader) version() core.Version {
	return core.Version{Term: core.Epoch(d.uvarint()), Boot: d.uvarint(), Seq: d.uvarint()}
}

func (d *reader) rowKey() core.RowKey {
	return core.RowKey{Bucket: core.BucketID(d.uvarint()), Space: core.Space(d.byte()), Key: d.text(), Sub: d.text()}
}
