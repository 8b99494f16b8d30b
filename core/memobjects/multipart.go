package memobjects

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/shoalstore/shoal/core"
)

type upload struct {
	core.Upload
	// checksum is what Create asked for; Value is "".
	checksum core.Checksum
	parts    map[int]*part
}

type part struct {
	core.Part
	data []byte
}

// CreateUpload implements [core.Objects].
func (s *Store) CreateUpload(ctx context.Context, b core.Bucket, key string, o core.PutOptions) (core.Upload, error) {
	if err := ctx.Err(); err != nil {
		return core.Upload{}, err
	}
	if o.Checksum.Algorithm != "" {
		if _, err := newHash(o.Checksum.Algorithm); err != nil {
			return core.Upload{}, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	in, _, err := s.get(b, key)
	if err != nil {
		return core.Upload{}, err
	}
	rec := newRecord(o)
	rec.Checksum = core.Checksum{Algorithm: o.Checksum.Algorithm, Composite: o.Checksum.Composite}
	u := &upload{
		Upload:   core.Upload{Key: key, ID: core.NewRequestID().String(), Initiated: s.clock.Now().UTC(), Record: rec},
		checksum: rec.Checksum, parts: map[int]*part{},
	}
	in.uploads[u.ID] = u
	return u.Upload, nil
}

// find returns an upload under way; the store's mutex is held.
func (b *bucket) find(key, id string) (*upload, error) {
	if u := b.uploads[id]; u != nil && u.Key == key {
		return u, nil
	}
	return nil, fmt.Errorf("upload %q of %q: %w", id, key, core.ErrNoSuchUpload)
}

// uploadOf is find for a bucket by name.
func (s *Store) uploadOf(b core.Bucket, key, id string) (*bucket, *upload, error) {
	in, _, err := s.get(b, key)
	if err != nil {
		return nil, nil, err
	}
	u, err := in.find(key, id)
	return in, u, err
}

// PutPart implements [core.Objects].
func (s *Store) PutPart(ctx context.Context, b core.Bucket, key, id string, number int, body io.Reader, o core.PutOptions) (core.Part, error) {
	if number < 1 || number > core.MaxParts {
		return core.Part{}, fmt.Errorf("part number %d: want 1 to %d: %w", number, core.MaxParts, core.ErrInvalid)
	}
	asked, err := s.askedChecksum(b, key, id)
	if err != nil {
		return core.Part{}, err
	}
	switch {
	case o.Checksum.Algorithm == "":
		o.Checksum.Algorithm = asked.Algorithm
	case asked.Algorithm != "" && asked.Algorithm != o.Checksum.Algorithm:
		return core.Part{}, fmt.Errorf("part %d has a %s checksum, the upload %s: %w", number, o.Checksum.Algorithm, asked.Algorithm, core.ErrInvalid)
	}
	data, sums, err := readBody(ctx, body, o)
	if err != nil {
		return core.Part{}, fmt.Errorf("put part %d of %s/%s: %w", number, b.Name, key, err)
	}
	return s.addPart(b, key, id, &part{data: data, Part: core.Part{
		Number: number, Size: int64(len(data)), ETag: sums.etag(), Checksum: sums.checksum,
	}})
}

func (s *Store) askedChecksum(b core.Bucket, key, id string) (core.Checksum, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, u, err := s.uploadOf(b, key, id)
	if err != nil {
		return core.Checksum{}, err
	}
	return u.checksum, nil
}

func (s *Store) addPart(b core.Bucket, key, id string, p *part) (core.Part, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, u, err := s.uploadOf(b, key, id)
	if err != nil {
		return core.Part{}, err
	}
	p.Modified = s.clock.Now().UTC()
	u.parts[p.Number] = p
	return p.Part, nil
}

// CopyPart implements [core.Objects].
func (s *Store) CopyPart(ctx context.Context, from core.Bucket, fromKey string, to core.Bucket, toKey, id string, number int, o core.CopyOptions) (core.Part, error) {
	if _, err := s.askedChecksum(to, toKey, id); err != nil {
		return core.Part{}, err
	}
	src, err := s.find(ctx, from, fromKey, core.GetOptions{})
	if err != nil {
		return core.Part{}, err
	}
	if err := o.Source.CheckCopySource(src.ETag, src.Modified); err != nil {
		return core.Part{}, err
	}
	data := src.data
	if o.Range != nil {
		start, length, err := o.Range.Resolve(src.Size)
		if err != nil {
			return core.Part{}, fmt.Errorf("copy part: %w", err)
		}
		data = data[start : start+length]
	}
	o.Put.Size = int64(len(data))
	return s.PutPart(ctx, to, toKey, id, number, bytes.NewReader(data), o.Put)
}

// CompleteUpload implements [core.Objects].
func (s *Store) CompleteUpload(ctx context.Context, b core.Bucket, key, id string, names []core.CompletePart, o core.PutOptions) (core.ObjectInfo, error) {
	rec, data, info, err := s.assemble(b, key, id, names, o)
	if err != nil || info != nil {
		if info != nil {
			return *info, nil
		}
		return core.ObjectInfo{}, fmt.Errorf("complete %s/%s: %w", b.Name, key, err)
	}
	// Between the two steps another Complete may win; commit is repeated by
	// the upload's id as the request, so both get one answer.
	done, err := s.commit(ctx, b, key, core.PutOptions{Conditions: o.Conditions, Request: requestOf(id)}, rec, data)
	if err != nil {
		return core.ObjectInfo{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if in := s.buckets[b.ID]; in != nil {
		delete(in.uploads, id)
		in.completed[id] = done
	}
	return done, nil
}

// requestOf turns an upload id into the request that completes it.
func requestOf(id string) (r core.RequestID) {
	copy(r[:], id)
	return r
}

// assemble checks a Complete and builds the object, or finds the answer of an
// earlier one.
func (s *Store) assemble(b core.Bucket, key, id string, names []core.CompletePart, o core.PutOptions) (core.Record, []byte, *core.ObjectInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fail := func(err error) (core.Record, []byte, *core.ObjectInfo, error) {
		return core.Record{}, nil, nil, err
	}
	in, _, err := s.get(b, key)
	if err != nil {
		return fail(err)
	}
	if info, ok := in.completed[id]; ok && info.Key == key {
		return core.Record{}, nil, &info, nil
	}
	u, err := in.find(key, id)
	if err != nil {
		return fail(err)
	}
	parts, err := u.pick(names)
	if err != nil {
		return fail(err)
	}
	rec := u.Record
	var data []byte
	for _, p := range parts {
		data = append(data, p.data...)
		rec.Parts = append(rec.Parts, p.Size)
	}
	rec.Size = int64(len(data))
	if o.Size >= 0 && o.Size != rec.Size {
		return fail(fmt.Errorf("the parts have %d bytes, want %d: %w", rec.Size, o.Size, core.ErrInvalid))
	}
	if rec.ETag, err = multipartETag(parts); err != nil {
		return fail(err)
	}
	if rec.Checksum, err = u.total(parts, data, o.Checksum); err != nil {
		return fail(err)
	}
	return rec, data, nil, nil
}

// pick returns the parts that a Complete names.
func (u *upload) pick(names []core.CompletePart) ([]*part, error) {
	if len(names) == 0 || len(names) > core.MaxParts {
		return nil, fmt.Errorf("%d parts: want 1 to %d: %w", len(names), core.MaxParts, core.ErrInvalid)
	}
	for i := 1; i < len(names); i++ {
		if a, b := names[i-1].Number, names[i].Number; b <= a {
			return nil, fmt.Errorf("part %d follows part %d: %w", b, a, core.ErrInvalid)
		}
	}
	var out []*part
	for i, n := range names {
		p := u.parts[n.Number]
		switch {
		case p == nil:
			return nil, fmt.Errorf("part %d was not uploaded: %w", n.Number, core.ErrInvalidPart)
		case !sameETag(p.ETag, n.ETag):
			return nil, fmt.Errorf("part %d has the ETag %q, not %q: %w", n.Number, p.ETag, n.ETag, core.ErrInvalidPart)
		case n.Checksum.Value != "" && (n.Checksum.Algorithm != p.Checksum.Algorithm || n.Checksum.Value != p.Checksum.Value):
			return nil, fmt.Errorf("part %d has another checksum: %w", n.Number, core.ErrInvalidPart)
		case i < len(names)-1 && p.Size < core.MinPart:
			return nil, fmt.Errorf("part %d has %d bytes, want %d or more: %w", n.Number, p.Size, core.MinPart, core.ErrPartTooSmall)
		}
		out = append(out, p)
	}
	return out, nil
}

// total is the checksum of the whole object.
func (u *upload) total(parts []*part, data []byte, want core.Checksum) (core.Checksum, error) {
	if u.checksum.Algorithm == "" {
		return core.Checksum{}, nil
	}
	var got core.Checksum
	var err error
	if u.checksum.Composite {
		got, err = composite(u.checksum.Algorithm, parts)
	} else {
		got, err = checksum(u.checksum.Algorithm, data)
	}
	if err != nil {
		return got, err
	}
	if want.Value == "" {
		return got, nil
	}
	value, _, _ := strings.Cut(got.Value, "-")
	given, _, _ := strings.Cut(want.Value, "-")
	if want.Algorithm != got.Algorithm || given != value {
		return got, fmt.Errorf("the object's %s is %s, want %s: %w", got.Algorithm, got.Value, want.Value, core.ErrChecksum)
	}
	return got, nil
}

// AbortUpload implements [core.Objects].
func (s *Store) AbortUpload(ctx context.Context, b core.Bucket, key, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	in, _, err := s.uploadOf(b, key, id)
	if err != nil {
		return err
	}
	delete(in.uploads, id)
	return nil
}

// Parts implements [core.Objects].
func (s *Store) Parts(ctx context.Context, b core.Bucket, key, id string, after, limit int) (core.Upload, []core.Part, bool, error) {
	if err := ctx.Err(); err != nil {
		return core.Upload{}, nil, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, u, err := s.uploadOf(b, key, id)
	if err != nil {
		return core.Upload{}, nil, false, err
	}
	var out []core.Part
	for _, n := range slices.Sorted(maps.Keys(u.parts)) {
		if n <= after {
			continue
		}
		if len(out) == limit {
			return u.Upload, out, true, nil
		}
		out = append(out, u.parts[n].Part)
	}
	return u.Upload, out, false, nil
}

// Uploads implements [core.Objects].
func (s *Store) Uploads(ctx context.Context, b core.Bucket, prefix, afterKey, afterID string, limit int) ([]core.Upload, bool, error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	in, err := s.bucket(b)
	if err != nil {
		return nil, false, err
	}
	order := func(a, b core.Upload) int {
		return cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(a.ID, b.ID))
	}
	var out []core.Upload
	for _, u := range in.uploads {
		if strings.HasPrefix(u.Key, prefix) && order(u.Upload, core.Upload{Key: afterKey, ID: afterID}) > 0 {
			out = append(out, u.Upload)
		}
	}
	slices.SortFunc(out, order)
	if len(out) > limit {
		return out[:limit], true, nil
	}
	return out, false, nil
}
