package core

import "encoding/binary"

// Space divides a bucket's rows by what they are. Only objects are listed.
type Space byte

// The spaces. Their numbers are part of the format on disk.
const (
	// SpaceObject rows are objects: Key is the object's key, the value a [Record].
	SpaceObject Space = 0
	// SpaceUpload rows are multipart uploads: Key is the object's key, Sub
	// the upload id, the value a [Record] with the headers to be.
	SpaceUpload Space = 1
	// SpacePart rows are parts: Sub is the upload id and the part number.
	SpacePart Space = 2
	// SpaceCursor rows are a job's progress in a slot: Key is the job's id.
	SpaceCursor Space = 3
	// SpaceData rows hold the data of small objects that is too large for
	// the record: listings read the records only.
	SpaceData Space = 4
	// SpaceIntent rows are writes to a remote bucket that are under way: Key is
	// the object's key, the value an intent of core/remote.
	SpaceIntent Space = 5
)

// RowKey names a row of a slot. Rows are ordered by bucket, space, key, sub;
// strings compare by bytes.
type RowKey struct {
	Bucket BucketID
	Space  Space
	Key    string
	Sub    string
}

// Row is one version of a row. Its slot is that of its bucket and key, but for
// cursors, which say their slot by where they are.
type Row struct {
	RowKey
	// Version is that of the entry that wrote the row.
	Version Version
	// Deleted marks a tombstone.
	Deleted bool
	// Value is opaque to the protocol.
	Value []byte
}

// Entry is one write of a slot: rows that change together, under one version.
type Entry struct {
	Version Version
	// Request and Answer remember what a client was told; see [RequestID].
	Request RequestID
	Answer  []byte
	// Time is the owner's wall clock in milliseconds since 1970.
	Time int64
	// Rows to be put or deleted; their Version is the entry's.
	Rows []Row
	// Floor, if not 0, lets every tombstone whose Seq is not above it go.
	Floor uint64
}

// Size is roughly what the entry takes in memory and on the wire, in bytes.
func (e *Entry) Size() int {
	n := 64 + len(e.Answer)
	for i := range e.Rows {
		n += 48 + len(e.Rows[i].Key) + len(e.Rows[i].Sub) + len(e.Rows[i].Value)
	}
	return n
}

const (
	maxRows = 1 << 16
)

// AppendVersion appends the version's binary form to b.
func AppendVersion(b []byte, v Version) []byte {
	b = binary.AppendUvarint(b, uint64(v.Term))
	b = binary.AppendUvarint(b, v.Boot)
	return binary.AppendUvarint(b, v.Seq)
}

func (d *decoder) version() Version {
	return Version{Term: Epoch(d.uvarint()), Boot: d.uvarint(), Seq: d.uvarint()}
}

// AppendEntry appends the entry's binary form to b.
func AppendEntry(b []byte, e *Entry) []byte {
	b = AppendVersion(b, e.Version)
	b = append(b, e.Request[:]...)
	b = appendBytes(b, e.Answer)
	b = binary.AppendUvarint(b, uint64(e.Time))
	b = binary.AppendUvarint(b, e.Floor)
	b = binary.AppendUvarint(b, uint64(len(e.Rows)))
	for i := range e.Rows {
		r := &e.Rows[i]
		b = binary.AppendUvarint(b, uint64(r.Bucket))
		b = append(b, byte(r.Space), flag(r.Deleted))
		b = appendString(b, r.Key)
		b = appendString(b, r.Sub)
		b = appendBytes(b, r.Value)
	}
	return b
}

// DecodeEntry reads an entry from the front of b and returns the rest. Values
// alias b.
func DecodeEntry(b []byte) (e Entry, rest []byte, err error) {
	d := decoder{b: b}
	e.Version = d.version()
	d.fixed(e.Request[:])
	if a := d.bytes(); len(a) > 0 {
		e.Answer = a
	}
	e.Time = int64(d.uvarint())
	e.Floor = d.uvarint()
	n := d.count(maxRows, 6)
	if n > 0 {
		e.Rows = make([]Row, n)
	}
	for i := range e.Rows {
		r := &e.Rows[i]
		r.Version = e.Version
		r.Bucket = BucketID(d.uvarint())
		var f [2]byte
		d.fixed(f[:])
		r.Space, r.Deleted = Space(f[0]), f[1] != 0
		r.Key, r.Sub = d.string(), d.string()
		if v := d.bytes(); len(v) > 0 {
			r.Value = v
		}
	}
	return e, d.b, d.err
}
