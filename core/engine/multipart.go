package engine

import (
	"context"
	"crypto/md5" //nolint:gosec // S3's ETag
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/shoalstore/shoal/core"
)

// An upload is a hidden row under its key and id, a part is one under its key,
// the upload's id and its number. Complete replaces all of them by the object,
// in one write of the slot, whose request id is made of the upload's: whoever
// repeats it gets the same answer.

func uploadKey(b core.BucketID, key, id string) core.RowKey {
	return core.RowKey{Bucket: b, Space: core.SpaceUpload, Key: key, Sub: id}
}

func partKey(b core.BucketID, key, id string, number int) core.RowKey {
	return core.RowKey{Bucket: b, Space: core.SpacePart, Key: key, Sub: fmt.Sprintf("%s/%05d", id, number)}
}

// completeRequest is the request id of an upload's end.
func completeRequest(id string) (r core.RequestID) {
	if b, err := hex.DecodeString(id); err == nil {
		copy(r[:], b)
	}
	return r
}

// CreateUpload begins a multipart upload.
func (o *Objects) CreateUpload(ctx context.Context, bucket core.Bucket, key string, opt core.PutOptions) (core.Upload, error) {
	if err := core.ValidateKey(key); err != nil {
		return core.Upload{}, err
	}
	if a := opt.Checksum.Algorithm; a != "" && newChecksum(a) == nil {
		return core.Upload{}, fmt.Errorf("checksum algorithm %q is unknown: %w", a, core.ErrInvalid)
	}
	n := o.node
	if err := n.writable(&bucket); err != nil {
		return core.Upload{}, err
	}
	u := core.Upload{Key: key, ID: core.NewRequestID().String(), Initiated: n.clock.Now().UTC()}
	u.Record = core.Record{
		Modified: u.Initiated, Headers: opt.Headers, Meta: opt.Meta, Tags: opt.Tags, Origin: opt.Origin, Scheme: bucket.Policy.Scheme,
		Checksum: core.Checksum{Algorithm: opt.Checksum.Algorithm, Composite: opt.Checksum.Composite},
	}
	m := n.mutation(&bucket, key, opt.Request)
	m.entry.Rows = []core.Row{{RowKey: uploadKey(bucket.ID, key, u.ID), Value: core.AppendRecord(nil, &u.Record)}}
	_, err := n.write(ctx, m)
	return u, err
}

// upload reads an upload under way.
func (n *Node) upload(ctx context.Context, b core.BucketID, key, id string) (core.Upload, error) {
	u := core.Upload{Key: key, ID: id}
	if err := core.ValidateKey(key); err != nil {
		return u, err
	}
	row, err := n.row(ctx, slotOf(n.driver.effect.Load(), b, key), uploadKey(b, key, id))
	if err != nil {
		return u, err
	}
	rec, err := core.DecodeRecord(row.Value)
	if err != nil {
		return u, fmt.Errorf("upload %q of %q: %w", id, key, err)
	}
	u.Initiated, u.Record = rec.Modified, *rec
	return u, nil
}

// PutPart stores a part.
func (o *Objects) PutPart(ctx context.Context, bucket core.Bucket, key, id string, number int, body io.Reader, opt core.PutOptions) (core.Part, error) {
	if number < 1 || number > core.MaxParts {
		return core.Part{}, fmt.Errorf("part number %d: want 1 to %d: %w", number, core.MaxParts, core.ErrInvalid)
	}
	n := o.node
	u, err := n.upload(ctx, bucket.ID, key, id)
	if err != nil {
		return core.Part{}, err
	}
	asked := u.Record.Checksum.Algorithm
	if opt.Checksum.Algorithm == "" {
		opt.Checksum.Algorithm = asked
	} else if asked != "" && asked != opt.Checksum.Algorithm {
		return core.Part{}, fmt.Errorf("part %d has a %s checksum, the upload %s: %w", number, opt.Checksum.Algorithm, asked, core.ErrInvalid)
	}
	st, err := n.store(ctx, &bucket, key, body, &opt, 0)
	if err != nil {
		return core.Part{}, err
	}
	st.rec.Modified = n.clock.Now().UTC()
	m := n.mutation(&bucket, key, opt.Request)
	m.checks = []check{{kind: checkUpload, row: uploadKey(bucket.ID, key, id)}}
	err = n.writePlaced(ctx, &bucket, key, &st.rec, func() error {
		m.entry.Rows = []core.Row{{RowKey: partKey(bucket.ID, key, id, number), Value: core.AppendRecord(nil, &st.rec)}}
		_, err := n.write(ctx, m)
		return err
	})
	if err != nil {
		if surelyRefused(err) {
			n.garbage.discard(&st.rec)
		}
		return core.Part{}, err
	}
	return partOf(number, &st.rec), nil
}

func partOf(number int, rec *core.Record) core.Part {
	return core.Part{Number: number, Size: rec.Size, ETag: rec.ETag, Modified: rec.Modified, Checksum: rec.Checksum}
}

// storedPart is a part with its record and version.
type storedPart struct {
	number int
	row    core.RowKey
	ver    core.Version
	rec    *core.Record
}

// parts reads the parts of an upload above a number, in order.
func (n *Node) parts(ctx context.Context, b core.BucketID, key, id string, after, limit int) ([]storedPart, bool, error) {
	s := slotOf(n.driver.effect.Load(), b, key)
	req := &scanRequest{
		scan:  core.Scan{Bucket: b, Space: core.SpacePart, Prefix: key, AfterKey: key, AfterSub: fmt.Sprintf("%s/%05d", id, after), Before: key + "\x00"},
		limit: limit + 1, only: []core.SlotID{s},
	}
	resp, err := n.call(ctx, s, methodSlotScan, appendScan(nil, req))
	if err != nil {
		return nil, false, err
	}
	rep, err := decodeScanReply(resp)
	if err != nil {
		return nil, false, err
	}
	var out []storedPart
	for i := range rep.found {
		f := &rep.found[i]
		num, ok := strings.CutPrefix(f.Sub, id+"/")
		if f.Key != key || !ok {
			return out, false, nil
		}
		if len(out) == limit {
			return out, true, nil
		}
		number, err := strconv.Atoi(num)
		if err != nil {
			return nil, false, fmt.Errorf("part %q of %q: %w", f.Sub, key, core.ErrCorrupt)
		}
		rec, err := core.DecodeRecord(f.Value)
		if err != nil {
			return nil, false, fmt.Errorf("part %d of %q: %w", number, key, err)
		}
		out = append(out, storedPart{number, f.RowKey, f.Version, rec})
	}
	return out, false, nil
}

// serveSlotScan is serveScan for one slot, which must be held.
func (n *Node) serveSlotScan(ctx context.Context, req []byte) ([]byte, error) {
	r, err := decodeScan(req)
	if err != nil || len(r.only) != 1 {
		return nil, fmt.Errorf("scan of a slot: %w", core.ErrInvalid)
	}
	if _, _, err := n.reading(r.only[0]); err != nil {
		return nil, err
	}
	rep, err := n.scanOwned(ctx, r)
	if err != nil {
		return nil, err
	}
	if len(rep.held) != 1 {
		return nil, fmt.Errorf("slot %d changed hands: %w", r.only[0], core.ErrUnavailable)
	}
	return appendScanReply(nil, rep), nil
}

// allParts reads every part of an upload.
func (n *Node) allParts(ctx context.Context, b core.BucketID, key, id string) (map[int]storedPart, error) {
	out := map[int]storedPart{}
	for after, more := 0, true; more; {
		ps, m, err := n.parts(ctx, b, key, id, after, 1000)
		if err != nil {
			return nil, err
		}
		for _, p := range ps {
			out[p.number] = p
			after = p.number
		}
		more = m
	}
	return out, nil
}

// CompleteUpload makes an object of the parts named.
//
// Parts are moved as objects are, when nodes and disks come and go: where that
// came in between they are read again.
func (o *Objects) CompleteUpload(ctx context.Context, bucket core.Bucket, key, id string, names []core.CompletePart, opt core.PutOptions) (core.ObjectInfo, error) {
	if err := core.ValidateKey(key); err != nil {
		return core.ObjectInfo{}, err
	}
	const tries = 5
	for i := 1; ; i++ {
		out, err := o.node.complete(ctx, bucket, key, id, names, opt)
		if !errors.Is(err, core.ErrConflict) || i == tries {
			return out, err
		}
	}
}

func (n *Node) complete(ctx context.Context, bucket core.Bucket, key, id string, names []core.CompletePart, opt core.PutOptions) (core.ObjectInfo, error) {
	m := n.mutation(&bucket, key, completeRequest(id))
	u, err := n.upload(ctx, bucket.ID, key, id)
	if errors.Is(err, core.ErrNoSuchUpload) {
		return n.completed(ctx, &bucket, key, m, err)
	}
	if err != nil {
		return core.ObjectInfo{}, err
	}
	all, err := n.allParts(ctx, bucket.ID, key, id)
	if err != nil {
		return core.ObjectInfo{}, err
	}
	st, err := assemble(&u, all, names, &opt)
	if errors.Is(err, core.ErrInvalidPart) {
		// Another Complete may have taken the parts since the upload was read.
		if _, gone := n.upload(ctx, bucket.ID, key, id); errors.Is(gone, core.ErrNoSuchUpload) {
			return n.completed(ctx, &bucket, key, m, gone)
		}
	}
	if err != nil {
		return core.ObjectInfo{}, fmt.Errorf("complete %s/%s: %w", bucket.Name, key, err)
	}
	st.rec.Modified = n.clock.Now().UTC()
	m.checks = []check{{kind: checkUpload, row: uploadKey(bucket.ID, key, id)}}
	if !opt.Conditions.IsZero() && !bucket.Name.Remote() {
		m.checks = append(m.checks, check{kind: checkConditions, row: objectKey(bucket.ID, key), conditions: opt.Conditions})
	}
	for _, c := range names {
		p := all[c.Number]
		m.checks = append(m.checks, check{kind: checkVersion, row: p.row, version: p.ver})
	}
	if bucket.Name.Remote() {
		return n.completeRemote(ctx, &bucket, key, st, m, &opt)
	}
	m.entry.Rows = n.endOfUpload(bucket.ID, key, id, all)
	return n.finishUpload(ctx, &bucket, key, st, m)
}

// finishUpload writes the object. Its shards belong to the parts, so nothing
// is discarded when that is refused; those of a disk that is leaving are put
// somewhere else first, and are left to the sweep then.
func (n *Node) finishUpload(ctx context.Context, bucket *core.Bucket, key string, st *stored, m *mutation) (core.ObjectInfo, error) {
	brief := st.rec
	brief.Inline, brief.Extents = nil, nil
	m.entry.Answer = core.AppendRecord(nil, &brief)
	end := m.entry.Rows
	var out outcome
	err := n.writePlaced(ctx, bucket, key, &st.rec, func() (err error) {
		m.entry.Rows = append(objectRows(bucket.ID, key, st), end...)
		out, err = n.write(ctx, m)
		return err
	})
	if err != nil {
		return core.ObjectInfo{}, err
	}
	rec, err := core.DecodeRecord(out.answer)
	if err != nil {
		return core.ObjectInfo{}, fmt.Errorf("answer to the write of %q: %w", key, err)
	}
	return info(bucket, key, rec, out.version), nil
}

// completed answers a Complete of an upload that is not there any more: with
// the object if it was completed, else with why.
func (n *Node) completed(ctx context.Context, bucket *core.Bucket, key string, m *mutation, why error) (core.ObjectInfo, error) {
	m.checks = []check{{kind: checkUpload, row: uploadKey(bucket.ID, key, m.entry.Request.String())}}
	m.entry.Rows = []core.Row{{RowKey: uploadKey(bucket.ID, key, m.entry.Request.String()), Deleted: true}}
	out, err := n.write(ctx, m)
	if err != nil {
		if errors.Is(err, core.ErrNoSuchUpload) {
			err = why
		}
		return core.ObjectInfo{}, err
	}
	rec, err := core.DecodeRecord(out.answer)
	if err != nil || rec.ETag == "" {
		return core.ObjectInfo{}, why
	}
	return info(bucket, key, rec, out.version), nil
}

// endOfUpload are the tombstones of an upload and its parts.
func (n *Node) endOfUpload(b core.BucketID, key, id string, all map[int]storedPart) []core.Row {
	rows := []core.Row{{RowKey: uploadKey(b, key, id), Deleted: true}}
	for _, p := range all {
		rows = append(rows, core.Row{RowKey: p.row, Deleted: true})
	}
	return rows
}

// assemble checks a Complete and builds the object's record.
func assemble(u *core.Upload, all map[int]storedPart, names []core.CompletePart, opt *core.PutOptions) (*stored, error) {
	picked, err := pick(all, names)
	if err != nil {
		return nil, err
	}
	st := &stored{rec: u.Record}
	rec := &st.rec
	etag := md5.New() //nolint:gosec // S3's ETag
	for _, p := range picked {
		rec.Size += p.rec.Size
		rec.Parts = append(rec.Parts, p.rec.Size)
		rec.Extents = append(rec.Extents, p.rec.Extents...)
		sum, _, _ := strings.Cut(p.rec.ETag, "-")
		b, err := hex.DecodeString(sum)
		if err != nil {
			return nil, fmt.Errorf("ETag of part %d: %w", p.number, core.ErrCorrupt)
		}
		_, _ = etag.Write(b)
	}
	if rec.Size == 0 {
		rec.Inline = []byte{}
	}
	rec.ETag = hex.EncodeToString(etag.Sum(nil)) + "-" + strconv.Itoa(len(picked))
	if opt.Size >= 0 && opt.Size != rec.Size {
		return nil, fmt.Errorf("the parts have %d bytes, want %d: %w", rec.Size, opt.Size, core.ErrInvalid)
	}
	rec.Checksum, err = totalChecksum(u.Record.Checksum, picked, opt.Checksum)
	return st, err
}

// pick returns the parts that a Complete names, which must be uploaded, in
// order, and all but the last at least core.MinPart long.
func pick(all map[int]storedPart, names []core.CompletePart) ([]storedPart, error) {
	if len(names) == 0 || len(names) > core.MaxParts {
		return nil, fmt.Errorf("%d parts: want 1 to %d: %w", len(names), core.MaxParts, core.ErrInvalid)
	}
	var out []storedPart
	for i, c := range names {
		if i > 0 && c.Number <= names[i-1].Number {
			return nil, fmt.Errorf("part %d follows part %d: %w", c.Number, names[i-1].Number, core.ErrInvalid)
		}
		p, ok := all[c.Number]
		switch {
		case !ok:
			return nil, fmt.Errorf("part %d was not uploaded: %w", c.Number, core.ErrInvalidPart)
		case strings.Trim(c.ETag, `"`) != p.rec.ETag:
			return nil, fmt.Errorf("part %d has the ETag %q, not %q: %w", c.Number, p.rec.ETag, c.ETag, core.ErrInvalidPart)
		case c.Checksum.Value != "" && (c.Checksum.Algorithm != p.rec.Checksum.Algorithm || c.Checksum.Value != p.rec.Checksum.Value):
			return nil, fmt.Errorf("part %d has another checksum: %w", c.Number, core.ErrInvalidPart)
		}
		out = append(out, p)
	}
	for _, p := range out[:len(out)-1] {
		if p.rec.Size < core.MinPart {
			return nil, fmt.Errorf("part %d has %d bytes, want %d or more: %w", p.number, p.rec.Size, core.MinPart, core.ErrPartTooSmall)
		}
	}
	return out, nil
}

// totalChecksum is the checksum of the whole object: composite, or of all
// bytes, which for CRCs follows from those of the parts.
func totalChecksum(asked core.Checksum, parts []storedPart, want core.Checksum) (core.Checksum, error) {
	if asked.Algorithm == "" {
		return core.Checksum{}, nil
	}
	got := core.Checksum{Algorithm: asked.Algorithm, Composite: asked.Composite}
	sums := make([][]byte, len(parts))
	for i, p := range parts {
		b, err := base64.StdEncoding.DecodeString(p.rec.Checksum.Value)
		if err != nil {
			return got, fmt.Errorf("checksum of part %d: %w", p.number, core.ErrCorrupt)
		}
		sums[i] = b
	}
	if asked.Composite {
		h := newChecksum(asked.Algorithm)
		for _, s := range sums {
			_, _ = h.Write(s)
		}
		got.Value = base64.StdEncoding.EncodeToString(h.Sum(nil)) + "-" + strconv.Itoa(len(parts))
	} else {
		sizes := make([]int64, len(parts))
		for i, p := range parts {
			sizes[i] = p.rec.Size
		}
		total, err := combineCRC(asked.Algorithm, sums, sizes)
		if err != nil {
			return got, err
		}
		got.Value = base64.StdEncoding.EncodeToString(total)
	}
	if want.Value != "" {
		value, _, _ := strings.Cut(got.Value, "-")
		given, _, _ := strings.Cut(want.Value, "-")
		if want.Algorithm != got.Algorithm || given != value {
			return got, fmt.Errorf("the object's %s is %s, want %s: %w", got.Algorithm, got.Value, want.Value, core.ErrChecksum)
		}
	}
	return got, nil
}

// AbortUpload ends an upload without an object.
func (o *Objects) AbortUpload(ctx context.Context, bucket core.Bucket, key, id string) error {
	if err := core.ValidateKey(key); err != nil {
		return err
	}
	n := o.node
	all, err := n.allParts(ctx, bucket.ID, key, id)
	if err != nil {
		return err
	}
	m := n.mutation(&bucket, key, core.RequestID{})
	m.checks = []check{{kind: checkUpload, row: uploadKey(bucket.ID, key, id)}}
	m.entry.Rows = n.endOfUpload(bucket.ID, key, id, all)
	_, err = n.write(ctx, m)
	return err
}

// Parts lists an upload's parts.
func (o *Objects) Parts(ctx context.Context, bucket core.Bucket, key, id string, after, limit int) (core.Upload, []core.Part, bool, error) {
	u, err := o.node.upload(ctx, bucket.ID, key, id)
	if err != nil {
		return u, nil, false, err
	}
	ps, more, err := o.node.parts(ctx, bucket.ID, key, id, after, limit)
	if err != nil {
		return u, nil, false, err
	}
	var out []core.Part
	for _, p := range ps {
		out = append(out, partOf(p.number, p.rec))
	}
	return u, out, more, nil
}

// Uploads lists uploads under way.
func (o *Objects) Uploads(ctx context.Context, bucket core.Bucket, prefix, afterKey, afterID string, limit int) ([]core.Upload, bool, error) {
	if err := o.node.known(ctx, bucket); err != nil {
		return nil, false, err
	}
	found, more, err := o.node.page(ctx, core.Scan{
		Bucket: bucket.ID, Space: core.SpaceUpload, Prefix: prefix, AfterKey: afterKey, AfterSub: afterID,
	}, limit, false)
	if err != nil {
		return nil, false, err
	}
	if len(found) > limit {
		found, more = found[:limit], true
	}
	out := make([]core.Upload, 0, len(found))
	for i := range found {
		rec, err := core.DecodeRecord(found[i].Value)
		if err != nil {
			return nil, false, fmt.Errorf("upload %q of %q: %w", found[i].Sub, found[i].Key, err)
		}
		out = append(out, core.Upload{Key: found[i].Key, ID: found[i].Sub, Initiated: rec.Modified, Record: *rec})
	}
	return out, more, nil
}
