package core

import (
	"encoding/binary"
	"fmt"
	"sort"
	"time"
)

// Record is the metadata of one version of an object, or of one part of a
// multipart upload. Its data is either inline or in extents.
type Record struct {
	Size     int64
	ETag     string // without quotes
	Modified time.Time
	// Headers are the standard headers that S3 keeps with an object
	// (Content-Type, Cache-Control ...), under their canonical names.
	Headers map[string]string
	// Meta is the user's metadata, names in lower case without x-amz-meta-.
	Meta map[string]string
	Tags map[string]string
	// Checksum is the S3 checksum that the client asked for, if any.
	Checksum Checksum
	// Scheme under which the object was written.
	Scheme Scheme
	// Inline is the data of a small object; nil if it is in Extents.
	Inline []byte
	// Extents hold the data in order.
	Extents []Extent
	// Parts are the sizes of a multipart object's parts, in order.
	Parts []int64
	// Origin is what a job wrote the object from.
	Origin Origin
	// Remote says what the object is a copy of, in the bucket of a [Backend];
	// nil in the cluster's own buckets.
	Remote *RemoteCopy
	// Deletion-free extra fields of later versions are kept by Unknown.
	Unknown []byte
}

// Checksum is an S3 object checksum (AWS, "Checking object integrity").
type Checksum struct {
	// Algorithm is CRC32, CRC32C, CRC64NVME, SHA1 or SHA256; "" for none.
	Algorithm string
	// Value is base64, with "-N" behind it for a composite one of N parts.
	Value string
	// Composite says that Value is the checksum of the parts' checksums.
	Composite bool
}

// Origin says which job copied which version of which source object here, so
// that the same copy is recognised as done.
type Origin struct {
	Job       string
	Key       string
	Version   string
	Transform string
}

// Extent is a run of an object's data that was written under one name.
type Extent struct {
	ID     ExtentID
	Size   int64 // bytes of user data
	Scheme Scheme
	// Unit is the size in bytes of one shard's piece of a stripe.
	Unit int
	// Places says which disk holds which shard, by shard number. A zero
	// Disk marks a shard that is missing.
	Places []Place
}

// Place is where a shard is.
type Place struct {
	Disk  DiskID
	Nonce [3]byte
}

// Shard returns the name of shard i.
func (e *Extent) Shard(i int) ShardID {
	return ShardID{Extent: e.ID, Index: uint8(i), Nonce: e.Places[i].Nonce}
}

// Missing counts the shards that have no place.
func (e *Extent) Missing() (n int) {
	for _, p := range e.Places {
		if p.Disk == 0 {
			n++
		}
	}
	return n
}

// Limits of decoded records, so that damaged or hostile input cannot ask for
// unbounded memory.
const (
	maxHeaders = 4096
	maxExtents = 10000
)

// The record's fields are written as tag, length, content in rising order of
// tag; readers keep what they do not know.
const (
	tagSize = iota + 1
	tagETag
	tagModified
	tagHeaders
	tagMeta
	tagTags
	tagChecksum
	tagScheme
	tagInline
	tagExtents
	tagParts
	tagOrigin
	tagRemote
	tagEnd
)

// AppendRecord appends the record's binary form to b.
func AppendRecord(b []byte, r *Record) []byte {
	field := func(tag int, content []byte) {
		if len(content) > 0 {
			b = binary.AppendUvarint(b, uint64(tag))
			b = appendBytes(b, content)
		}
	}
	number := func(tag int, v uint64) {
		if v != 0 {
			field(tag, binary.AppendUvarint(nil, v))
		}
	}
	number(tagSize, uint64(r.Size))
	field(tagETag, []byte(r.ETag))
	if !r.Modified.IsZero() {
		number(tagModified, uint64(r.Modified.UnixNano()))
	}
	field(tagHeaders, appendStrings(nil, r.Headers))
	field(tagMeta, appendStrings(nil, r.Meta))
	field(tagTags, appendStrings(nil, r.Tags))
	if r.Checksum.Algorithm != "" {
		c := appendString(nil, r.Checksum.Algorithm)
		c = appendString(c, r.Checksum.Value)
		field(tagChecksum, append(c, flag(r.Checksum.Composite)))
	}
	field(tagScheme, []byte(r.Scheme.String()))
	if r.Inline != nil {
		b = binary.AppendUvarint(b, tagInline)
		b = appendBytes(b, r.Inline)
	}
	field(tagExtents, appendExtents(nil, r.Extents))
	if len(r.Parts) > 0 {
		p := binary.AppendUvarint(nil, uint64(len(r.Parts)))
		for _, n := range r.Parts {
			p = binary.AppendUvarint(p, uint64(n))
		}
		field(tagParts, p)
	}
	if r.Origin != (Origin{}) {
		o := appendString(nil, r.Origin.Job)
		o = appendString(o, r.Origin.Key)
		o = appendString(o, r.Origin.Version)
		field(tagOrigin, appendString(o, r.Origin.Transform))
	}
	if r.Remote != nil {
		field(tagRemote, appendRemoteCopy(nil, r.Remote))
	}
	return append(b, r.Unknown...)
}

func flag(v bool) byte {
	if v {
		return 1
	}
	return 0
}

func appendStrings(b []byte, m map[string]string) []byte {
	if len(m) == 0 {
		return b
	}
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	sort.Strings(names)
	b = binary.AppendUvarint(b, uint64(len(names)))
	for _, n := range names {
		b = appendString(b, n)
		b = appendString(b, m[n])
	}
	return b
}

func appendExtents(b []byte, es []Extent) []byte {
	if len(es) == 0 {
		return b
	}
	b = binary.AppendUvarint(b, uint64(len(es)))
	for i := range es {
		e := &es[i]
		b = append(b, e.ID[:]...)
		b = binary.AppendUvarint(b, uint64(e.Size))
		b = append(b, flag(e.Scheme.EC), byte(e.Scheme.K), byte(e.Scheme.M))
		b = binary.AppendUvarint(b, uint64(e.Unit))
		b = append(b, byte(len(e.Places)))
		for _, p := range e.Places {
			b = binary.AppendUvarint(b, uint64(p.Disk))
			b = append(b, p.Nonce[:]...)
		}
	}
	return b
}

// DecodeRecord reads a record. The result aliases b where it holds inline data.
func DecodeRecord(b []byte) (*Record, error) {
	r := new(Record)
	d := decoder{b: b}
	last := uint64(0)
	for len(d.b) > 0 && d.err == nil {
		rest := d.b
		tag := d.uvarint()
		f := decoder{b: d.bytes()}
		if d.err != nil {
			break
		}
		if tag <= last {
			return nil, fmt.Errorf("record: fields out of order: %w", ErrCorrupt)
		}
		last = tag
		if tag >= tagEnd {
			r.Unknown = append(r.Unknown, rest[:len(rest)-len(d.b)]...)
			continue
		}
		r.decodeField(tag, &f)
		if f.err != nil || len(f.b) != 0 {
			return nil, fmt.Errorf("record: field %d malformed: %w", tag, ErrCorrupt)
		}
	}
	if d.err != nil {
		return nil, fmt.Errorf("record: %w", d.err)
	}
	if err := r.checkRuns(); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Record) decodeField(tag uint64, f *decoder) {
	rest := func() []byte { b := f.b; f.b = nil; return b }
	switch tag {
	case tagSize:
		r.Size = int64(f.uvarint())
	case tagETag:
		r.ETag = string(rest())
	case tagModified:
		r.Modified = time.Unix(0, int64(f.uvarint())).UTC()
	case tagHeaders:
		r.Headers = f.strings()
	case tagMeta:
		r.Meta = f.strings()
	case tagTags:
		r.Tags = f.strings()
	case tagChecksum:
		r.Checksum.Algorithm, r.Checksum.Value = f.string(), f.string()
		r.Checksum.Composite = f.uvarint() != 0
	case tagScheme:
		s, err := ParseScheme(string(rest()))
		if err != nil {
			f.fail()
		}
		r.Scheme = s
	case tagInline:
		r.Inline = rest()
		if r.Inline == nil {
			r.Inline = []byte{}
		}
	case tagExtents:
		r.Extents = f.extents()
	case tagParts:
		r.Parts = make([]int64, f.count(maxExtents, 1))
		for i := range r.Parts {
			r.Parts[i] = int64(f.uvarint())
		}
	case tagOrigin:
		r.Origin = Origin{Job: f.string(), Key: f.string(), Version: f.string(), Transform: f.string()}
	case tagRemote:
		r.Remote = f.remoteCopy()
	}
}

func (d *decoder) strings() map[string]string {
	n := d.count(maxHeaders, 2)
	m := make(map[string]string, n)
	for range n {
		k := d.string()
		m[k] = d.string()
	}
	return m
}

func (d *decoder) extents() []Extent {
	es := make([]Extent, d.count(maxExtents, 22))
	for i := range es {
		e := &es[i]
		d.fixed(e.ID[:])
		e.Size = int64(d.uvarint())
		var s [3]byte
		d.fixed(s[:])
		e.Scheme = Scheme{EC: s[0] != 0, K: int(s[1]), M: int(s[2])}
		e.Unit = int(d.uvarint())
		e.Places = make([]Place, d.count(MaxData+MaxParity, 4))
		for j := range e.Places {
			e.Places[j].Disk = DiskID(d.uvarint())
			d.fixed(e.Places[j].Nonce[:])
		}
		if d.err == nil && (len(e.Places) != e.Scheme.Width() || e.Size < 0) {
			d.fail()
		}
	}
	return es
}
