package engine

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/shoalstore/shoal/core"
)

// maxAnswer is the most bytes of an object that one call gets.
const maxAnswer = 1 << 20

// fetchRequest asks the owner of a slot for bytes of a remote object.
type fetchRequest struct {
	slot   core.SlotID
	bucket core.BucketID
	key    string
	// version is the one that is asked for; "" is what the remote has.
	version core.RemoteVersion
	// reader names who asks, session that which answered it before, or 0.
	reader, session uint64
	// began is where the reader began, off where it is, end where it will stop;
	// -1 is the object's end.
	began, off, end int64
	// keep asks for what is fetched to be kept, describe for the object's
	// record. leave says that the reader is gone.
	keep, describe, leave bool
	// job is for whom it is asked, "" for nobody that counts.
	job string
}

func (q *fetchRequest) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(q.slot))
	b = binary.AppendUvarint(b, uint64(q.bucket))
	b = appendText(b, q.key)
	b = appendText(b, string(q.version))
	b = binary.AppendUvarint(b, q.reader)
	b = binary.AppendUvarint(b, q.session)
	b = binary.AppendUvarint(b, uint64(q.began))
	b = binary.AppendUvarint(b, uint64(q.off))
	b = binary.AppendVarint(b, q.end)
	b = append(b, boolByte(q.keep), boolByte(q.describe), boolByte(q.leave))
	return appendText(b, q.job)
}

func decodeFetch(b []byte) (*fetchRequest, error) {
	d := reader{b: b}
	q := &fetchRequest{slot: core.SlotID(d.uvarint()), bucket: core.BucketID(d.uvarint()), key: d.text(), version: core.RemoteVersion(d.text())}
	q.reader, q.session = d.uvarint(), d.uvarint()
	q.began, q.off, q.end = int64(d.uvarint()), int64(d.uvarint()), d.varint()
	q.keep, q.describe, q.leave = d.byte() != 0, d.byte() != 0, d.byte() != 0
	q.job = d.text()
	if q.began < 0 || q.off < q.began || q.end >= 0 && q.end < q.off {
		d.fail()
	}
	return q, d.err
}

func (d *reader) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// fetchState is what an answer to a fetchRequest is.
type fetchState byte

const (
	fetchData      fetchState = iota + 1 // bytes follow; none: ask again, unless the object ends here
	fetchPresent                         // the cluster has these bytes: read the record
	fetchUnsettled                       // a write is under way: ask the remote which version to read
	fetchError                           // the remote's error follows
)

// fetchAnswer is the answer to a fetchRequest.
type fetchAnswer struct {
	state   fetchState
	session uint64
	rec     *core.Record // if it was asked for and is known
	data    []byte
	err     error
}

// appendAnswer begins an answer whose data is appended to it.
func appendAnswer(b []byte, state fetchState, session uint64, rec []byte) []byte {
	b = append(b, byte(state))
	b = binary.AppendUvarint(b, session)
	return appendBlob(b, rec)
}

func appendErrorAnswer(session uint64, rec []byte, err error) []byte {
	return appendRefusal(appendAnswer(nil, fetchError, session, rec), err)
}

// appendRefusal appends an error with what it is, of what a remote may say.
func appendRefusal(b []byte, err error) []byte {
	var is []byte
	for i, s := range remoteErrors() {
		if errors.Is(err, s) {
			is = append(is, byte(i))
		}
	}
	return append(appendBlob(b, is), err.Error()...)
}

// parseRefusal is the inverse of appendRefusal.
func parseRefusal(b []byte) error {
	d := reader{b: b}
	e := &toldError{}
	for _, i := range d.blob() {
		if all := remoteErrors(); int(i) < len(all) {
			e.is = append(e.is, all[i])
		}
	}
	if d.err != nil {
		return d.err
	}
	e.text = string(d.b)
	return e
}

func decodeAnswer(b []byte) (*fetchAnswer, error) {
	d := reader{b: b}
	a := &fetchAnswer{state: fetchState(d.byte()), session: d.uvarint()}
	if rec := d.blob(); len(rec) > 0 {
		var err error
		if a.rec, err = core.DecodeRecord(rec); err != nil {
			return nil, err
		}
	}
	if a.state == fetchError {
		a.err = parseRefusal(d.b)
		return a, d.err
	}
	a.data = d.b
	if a.state < fetchData || a.state > fetchError {
		d.fail()
	}
	return a, d.err
}

// remoteErrors are the errors of remotes that keep their identity on the wire and
// on disk, in the order of their numbers.
func remoteErrors() []error {
	return []error{
		core.ErrNotFound, core.ErrNoSuchBucket, core.ErrPermission, core.ErrPrecondition, core.ErrRange, core.ErrWrongRegion,
		core.ErrThrottled, core.ErrInvalid, errors.ErrUnsupported, core.ErrUnavailable, core.ErrUnknownOutcome, core.ErrCorrupt, core.ErrTooLarge,
		core.ErrConflict, core.ErrNoSuchUpload, core.ErrInvalidPart, core.ErrNotOwner,
	}
}

// toldError is an error of a remote that the owner met.
type toldError struct {
	text string
	is   []error
}

func (e *toldError) Error() string   { return e.text }
func (e *toldError) Unwrap() []error { return e.is }

// remoteFound is an object's record, nil for none, with whether a write of the
// object is under way.
type remoteFound struct {
	found
	// unsettled says that a write of the object is under way, intent the version
	// of its row, zero for none.
	unsettled bool
	intent    core.Version
}

func appendRemoteFound(b []byte, s core.SlotID, f *remoteFound) []byte {
	b = append(b, boolByte(f.unsettled))
	b = core.AppendVersion(b, f.intent)
	b = append(b, boolByte(f.rec != nil))
	if f.rec == nil {
		return b
	}
	b = appendFound(b, &core.Found{Slot: s, Row: f.row})
	if f.data.b != nil {
		b = appendBlob(b, f.data.b)
	}
	return b
}

// What an answer to a read that begins is.
const (
	openFound byte = iota // a remoteFound follows
	openCold              // nothing is present; the version of the intent's row and a fetchAnswer follow
)

// decodeOpened decodes an answer to a read that begins, unless there is none.
func decodeOpened(b []byte, err error) (*remoteFound, *fetchAnswer, error) {
	if err != nil {
		return nil, nil, err
	}
	d := reader{b: b}
	switch is := d.byte(); {
	case d.err == nil && is == openFound:
		f, err := decodeRemoteFound(d.b)
		return f, nil, err
	case is == openCold:
		f := &remoteFound{intent: d.version()}
		if d.err != nil {
			return nil, nil, d.err
		}
		a, err := decodeAnswer(d.b)
		return f, a, err
	default:
		d.fail()
	}
	return nil, nil, d.err
}

func decodeRemoteFound(b []byte) (*remoteFound, error) {
	d := reader{b: b}
	f := &remoteFound{unsettled: d.byte() != 0, intent: d.version()}
	if d.byte() == 0 {
		return f, d.err
	}
	f.row = d.found().Row
	if len(d.b) > 0 {
		f.data.b = d.blob()
	}
	if d.err != nil {
		return nil, d.err
	}
	var err error
	if f.rec, err = core.DecodeRecord(f.row.Value); err != nil {
		return nil, fmt.Errorf("record of %q: %w", f.row.Key, err)
	}
	return f, nil
}
