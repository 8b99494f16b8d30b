package remote

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/shoalstore/shoal/core"
)

// Operation is what an intent does.
type Operation byte

// The operations. Their numbers are part of the format on disk.
const (
	// None: nothing is under way; what is left are attempts that may yet reach the
	// remote.
	None Operation = 0
	// Write puts an object.
	Write Operation = 1
	// Remove deletes one.
	Remove Operation = 2
)

// Intent is a write to a remote bucket that is under way: the value of a row in
// [core.SpaceIntent]. Only one is under way of a key at any time.
type Intent struct {
	Operation Operation
	// Request is the client's. The answer is kept under it.
	Request core.RequestID
	// Conditions are the client's. They are asked of the remote.
	Conditions core.Conditions
	// Before is what the remote had, as far as the cluster knew when the write
	// began.
	Before Before
	// Record is what a Write will leave, but for what the remote says: its data, in
	// Inline or in Extents, is what is sent.
	Record *core.Record
	// Sums are checksums of the whole content beside those in Record, MD5 under
	// that name: by them an object at the remote is recognised.
	Sums []core.Checksum
	// Upload is the remote's name of a multipart upload that was begun.
	Upload string
	// Attempts are requests that may have reached the remote, or yet may. They may
	// be of earlier intents of the key.
	Attempts []Attempt
	// Perhaps: an attempt that is forgotten may have taken effect, and nobody will
	// ever know.
	Perhaps bool
	// Repeatable: whoever asked does not mind if the write takes effect twice, if
	// somebody else has removed the object in between; the conditions hold each time.
	Repeatable bool
	// Unknown are fields of later versions.
	Unknown []byte
}

// Before is what the cluster knew of the remote's object before a write.
type Before struct {
	// Known: nothing else is set otherwise, and nothing is known.
	Known bool
	// Version is that of the object, "" if there was none.
	Version core.RemoteVersion
	// ETag, Size and Modified are what the client's conditions are about.
	ETag     string
	Size     int64
	Modified time.Time
}

// BeforeOf returns what a present record says. Without one nothing is known.
func BeforeOf(r *core.Record) Before {
	if r == nil || r.Remote == nil || r.Remote.Version == "" {
		return Before{}
	}
	return Before{Known: true, Version: r.Remote.Version, ETag: r.ETag, Size: r.Size, Modified: r.Modified}
}

// Attempt is leave to send requests: it is committed before the first of them, so
// that whoever comes later knows what may reach the remote, and until when.
type Attempt struct {
	// Request is that of the intent whose attempt it is.
	Request core.RequestID
	// If is the condition that all of its requests carry.
	If core.RemoteCondition
	// Until is when they are cut off, by the clock of the owner that sends them.
	Until time.Time
	// ETag and Sum are what the object will have if the attempt succeeds, where
	// that is known only now, since it was uploaded in parts.
	ETag string
	Sum  core.Checksum
}

// Pending says whether the write is still under way: then reads of the key ask the
// remote. Otherwise the row only keeps attempts from being forgotten.
func (in *Intent) Pending() bool { return in != nil && in.Operation != None }

// Expired says whether nothing is under way and nothing may reach the remote any
// more: the row can go.
func (in *Intent) Expired(now time.Time) bool {
	return !in.Pending() && len(alive(in.Attempts, now)) == 0
}

// Result is the record that a Write leaves once the remote has said what it has.
func (in *Intent) Result(o core.RemoteObject) *core.Record {
	r := *in.Record
	r.Remote = &core.RemoteCopy{Version: o.Version}
	if o.ETag != "" {
		r.ETag = o.ETag
	}
	if !o.Modified.IsZero() {
		r.Modified = o.Modified
	}
	return &r
}

// alive returns the attempts whose requests may yet reach the remote.
func alive(as []Attempt, now time.Time) []Attempt {
	var out []Attempt
	for _, a := range as {
		if a.alive(now) {
			out = append(out, a)
		}
	}
	return out
}

func (a *Attempt) alive(now time.Time) bool { return !now.After(a.end()) }

// end is when the last of the attempt's requests has surely reached the remote, if
// it ever does.
func (a *Attempt) end() time.Time { return a.Until.Add(Slack) }

// Limits of decoded intents, so that damaged or hostile input cannot ask for
// unbounded memory.
const (
	maxListed   = 1000
	maxAttempts = 64
	maxSums     = 16
)

// The fields are written as tag, length, content in rising order of tag; readers
// keep what they do not know.
const (
	tagOperation = iota + 1
	tagRequest
	tagConditions
	tagBefore
	tagRecord
	tagSums
	tagUpload
	tagAttempts
	tagPerhaps
	tagRepeatable
	tagEnd
)

// AppendIntent appends the intent's binary form to b.
func AppendIntent(b []byte, in *Intent) []byte {
	field := func(tag int, content []byte) {
		if len(content) > 0 {
			b = binary.AppendUvarint(b, uint64(tag))
			b = appendBytes(b, content)
		}
	}
	if in.Operation != None {
		field(tagOperation, []byte{byte(in.Operation)})
	}
	if !in.Request.IsZero() {
		field(tagRequest, in.Request[:])
	}
	if c := &in.Conditions; !c.IsZero() {
		f := appendStrings(nil, c.IfMatch)
		f = appendStrings(f, c.IfNoneMatch)
		f = appendTime(f, c.IfModifiedSince)
		field(tagConditions, appendTime(f, c.IfUnmodifiedSince))
	}
	if in.Before.Known {
		f := appendString(nil, string(in.Before.Version))
		f = appendString(f, in.Before.ETag)
		f = binary.AppendUvarint(f, uint64(in.Before.Size))
		field(tagBefore, appendTime(f, in.Before.Modified))
	}
	if in.Record != nil {
		field(tagRecord, core.AppendRecord(nil, in.Record))
	}
	if len(in.Sums) > 0 {
		f := binary.AppendUvarint(nil, uint64(len(in.Sums)))
		for _, s := range in.Sums {
			f = appendSum(f, s)
		}
		field(tagSums, f)
	}
	field(tagUpload, []byte(in.Upload))
	if len(in.Attempts) > 0 {
		f := binary.AppendUvarint(nil, uint64(len(in.Attempts)))
		for i := range in.Attempts {
			f = appendAttempt(f, &in.Attempts[i])
		}
		field(tagAttempts, f)
	}
	if in.Perhaps {
		field(tagPerhaps, []byte{1})
	}
	if in.Repeatable {
		field(tagRepeatable, []byte{1})
	}
	return append(b, in.Unknown...)
}

func appendAttempt(b []byte, a *Attempt) []byte {
	b = append(b, a.Request[:]...)
	b = append(b, oneByte(a.If.Absent))
	b = appendString(b, string(a.If.Version))
	b = appendTime(b, a.Until)
	b = appendString(b, a.ETag)
	return appendSum(b, a.Sum)
}

func appendSum(b []byte, c core.Checksum) []byte {
	b = appendString(b, c.Algorithm)
	b = appendString(b, c.Value)
	return append(b, oneByte(c.Composite))
}

func appendStrings(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = appendString(b, s)
	}
	return b
}

// appendTime writes nanoseconds since 1970, 0 for the zero time.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, 0)
	}
	return binary.AppendUvarint(b, uint64(t.UnixNano()))
}

func appendBytes(b, v []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

func appendString(b []byte, v string) []byte {
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

func oneByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// DecodeIntent reads an intent. The result aliases b where it holds inline data.
func DecodeIntent(b []byte) (*Intent, error) {
	in := new(Intent)
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
			return nil, fmt.Errorf("intent: fields out of order: %w", core.ErrCorrupt)
		}
		last = tag
		if tag >= tagEnd {
			in.Unknown = append(in.Unknown, rest[:len(rest)-len(d.b)]...)
			continue
		}
		in.decodeField(tag, &f)
		if f.err != nil || len(f.b) != 0 {
			return nil, fmt.Errorf("intent: field %d malformed: %w", tag, core.ErrCorrupt)
		}
	}
	if d.err != nil {
		return nil, fmt.Errorf("intent: %w", d.err)
	}
	switch in.Operation {
	case None, Remove:
	case Write:
		if in.Record == nil {
			return nil, fmt.Errorf("intent: a write without a record: %w", core.ErrCorrupt)
		}
	default:
		return nil, fmt.Errorf("intent: operation %d: %w", in.Operation, core.ErrNewer)
	}
	return in, nil
}

func (in *Intent) decodeField(tag uint64, f *decoder) {
	switch tag {
	case tagOperation:
		in.Operation = Operation(f.byte())
	case tagRequest:
		f.fixed(in.Request[:])
	case tagConditions:
		c := &in.Conditions
		c.IfMatch, c.IfNoneMatch = f.strings(), f.strings()
		c.IfModifiedSince, c.IfUnmodifiedSince = f.time(), f.time()
	case tagBefore:
		in.Before = Before{Known: true, Version: core.RemoteVersion(f.string()), ETag: f.string(), Size: int64(f.uvarint()), Modified: f.time()}
	case tagRecord:
		r, err := core.DecodeRecord(f.rest())
		if err != nil {
			f.fail()
		}
		in.Record = r
	case tagSums:
		in.Sums = make([]core.Checksum, f.count(maxSums, 3))
		for i := range in.Sums {
			in.Sums[i] = f.sum()
		}
	case tagUpload:
		in.Upload = string(f.rest())
	case tagPerhaps:
		in.Perhaps = f.byte() != 0
	case tagRepeatable:
		in.Repeatable = f.byte() != 0
	case tagAttempts:
		in.Attempts = make([]Attempt, f.count(maxAttempts, 23))
		for i := range in.Attempts {
			a := &in.Attempts[i]
			f.fixed(a.Request[:])
			a.If.Absent = f.byte() != 0
			a.If.Version = core.RemoteVersion(f.string())
			a.Until, a.ETag, a.Sum = f.time(), f.string(), f.sum()
		}
	}
}

// decoder reads unsigned varints and byte strings with their length in front. Its
// first error sticks, so that a caller checks once.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail() {
	if d.err == nil {
		d.err = fmt.Errorf("malformed binary form: %w", core.ErrCorrupt)
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

// count reads a number of items that take at least size bytes each.
func (d *decoder) count(limit, size int) int {
	n := d.uvarint()
	if n > uint64(limit) || n > uint64(len(d.b)/size) {
		d.fail()
		return 0
	}
	return int(n)
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

func (d *decoder) rest() []byte {
	b := d.b
	d.b = nil
	return b
}

func (d *decoder) string() string { return string(d.bytes()) }

func (d *decoder) byte() byte {
	var b [1]byte
	d.fixed(b[:])
	return b[0]
}

func (d *decoder) fixed(dst []byte) {
	if len(d.b) < len(dst) {
		d.fail()
		return
	}
	copy(dst, d.b)
	d.b = d.b[len(dst):]
}

func (d *decoder) strings() []string {
	n := d.count(maxListed, 1)
	if n == 0 {
		return nil
	}
	out := make([]string, n)
	for i := range out {
		out[i] = d.string()
	}
	return out
}

func (d *decoder) sum() core.Checksum {
	return core.Checksum{Algorithm: d.string(), Value: d.string(), Composite: d.byte() != 0}
}

func (d *decoder) time() time.Time {
	if v := d.uvarint(); v != 0 {
		return time.Unix(0, int64(v)).UTC()
	}
	return time.Time{}
}
