// Package memobjects is an object layer in memory, for tests of gateways and
// of what is built on core.Objects. It keeps the whole contract: one mutex
// makes every call linearizable, bodies are read in full before anything
// changes, and a repeated request gets its first answer. It keeps nothing on
// disk and all data in memory, so it is no store for a cluster.
//
//	objects := memobjects.New(clock)
//	b, err := objects.CreateBucket(ctx, core.BucketName{Provider: core.Shoal, Name: "train"}, nil, "")
//	info, err := objects.Put(ctx, b, "0001.tar", body, core.PutOptions{Size: -1})
package memobjects

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/shoalstore/shoal/core"
)

// Store is an object layer in memory. Use [New].
type Store struct {
	clock core.Clock

	mu         sync.Mutex
	nextBucket core.BucketID
	seq        uint64
	buckets    map[core.BucketID]*bucket
}

var _ core.Objects = (*Store)(nil)

type bucket struct {
	core.Bucket
	objects map[string]*object
	// keys are the sorted keys of objects, nil after a change of the set.
	keys    []string
	uploads map[string]*upload
	// answers are the first answers to requests, by key and request.
	answers map[answerKey]core.ObjectInfo
	// completed are the answers to Complete, by upload id.
	completed map[string]core.ObjectInfo
}

type answerKey struct {
	key     string
	request core.RequestID
}

// object is immutable once it is in a bucket.
type object struct {
	core.ObjectInfo
	data []byte
}

// New returns an empty store that takes the time from clock.
func New(clock core.Clock) *Store {
	return &Store{clock: clock, buckets: map[core.BucketID]*bucket{}}
}

// CreateBucket implements [core.Objects].
func (s *Store) CreateBucket(ctx context.Context, n core.BucketName, p *core.Policy, alias string) (core.Bucket, error) {
	if err := ctx.Err(); err != nil {
		return core.Bucket{}, err
	}
	if err := n.Validate(); err != nil {
		return core.Bucket{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := map[string]bool{}
	for _, b := range s.buckets {
		if b.Name == n {
			return core.Bucket{}, fmt.Errorf("bucket %s: %w", n, core.ErrExists)
		}
		taken[b.Alias] = true
	}
	if alias == "" {
		alias = n.Alias(func(alias string) bool { return taken[alias] })
	}
	if taken[alias] {
		return core.Bucket{}, fmt.Errorf("bucket alias %q: %w", alias, core.ErrExists)
	}
	policy := core.Policy{Scheme: core.None(), Domain: core.DomainDisk, ETag: "md5"}
	if p != nil {
		policy = *p
	}
	s.nextBucket++
	b := &bucket{
		Bucket: core.Bucket{
			ID: s.nextBucket, Name: n, Alias: alias, State: core.BucketOK,
			Policy: policy, Created: s.clock.Now().UTC(),
		},
		objects:   map[string]*object{},
		uploads:   map[string]*upload{},
		answers:   map[answerKey]core.ObjectInfo{},
		completed: map[string]core.ObjectInfo{},
	}
	s.buckets[b.ID] = b
	return b.Bucket, nil
}

// Bucket implements [core.Objects].
func (s *Store) Bucket(ctx context.Context, alias string) (core.Bucket, error) {
	if err := ctx.Err(); err != nil {
		return core.Bucket{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.buckets {
		if b.Alias == alias {
			return b.Bucket, nil
		}
	}
	return core.Bucket{}, fmt.Errorf("bucket %q: %w", alias, core.ErrNoSuchBucket)
}

// Buckets implements [core.Objects].
func (s *Store) Buckets(ctx context.Context) ([]core.Bucket, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]core.Bucket, 0, len(s.buckets))
	for _, b := range s.buckets {
		out = append(out, b.Bucket)
	}
	slices.SortFunc(out, func(a, b core.Bucket) int { return strings.Compare(a.Alias, b.Alias) })
	return out, nil
}

// DeleteBucket implements [core.Objects].
func (s *Store) DeleteBucket(ctx context.Context, alias string) error {
	b, err := s.Bucket(ctx, alias)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	in, err := s.bucket(b)
	if err != nil {
		return err
	}
	if len(in.objects) > 0 {
		return fmt.Errorf("bucket %q holds %d objects: %w", alias, len(in.objects), core.ErrNotEmpty)
	}
	delete(s.buckets, b.ID)
	return nil
}

// bucket returns the live bucket; the mutex is held.
func (s *Store) bucket(b core.Bucket) (*bucket, error) {
	if in := s.buckets[b.ID]; in != nil {
		return in, nil
	}
	return nil, fmt.Errorf("bucket %s: %w", b.Name, core.ErrNoSuchBucket)
}

// get returns the live bucket and what the key holds, nil for nothing; the
// mutex is held.
func (s *Store) get(b core.Bucket, key string) (*bucket, *object, error) {
	if err := core.ValidateKey(key); err != nil {
		return nil, nil, err
	}
	in, err := s.bucket(b)
	if err != nil {
		return nil, nil, err
	}
	return in, in.objects[key], nil
}

func (o *object) record() *core.Record {
	if o == nil {
		return nil
	}
	return &o.Record
}

// Put implements [core.Objects].
func (s *Store) Put(ctx context.Context, b core.Bucket, key string, body io.Reader, o core.PutOptions) (core.ObjectInfo, error) {
	if info, done, err := s.before(b, key, o); done || err != nil {
		return info, err
	}
	data, sums, err := readBody(ctx, body, o)
	if err != nil {
		return core.ObjectInfo{}, fmt.Errorf("put %s/%s: %w", b.Name, key, err)
	}
	rec := newRecord(o)
	rec.Size, rec.ETag, rec.Checksum = int64(len(data)), sums.etag(), sums.checksum
	return s.commit(ctx, b, key, o, rec, data)
}

func newRecord(o core.PutOptions) core.Record {
	return core.Record{
		Headers: maps.Clone(o.Headers), Meta: maps.Clone(o.Meta), Tags: maps.Clone(o.Tags),
		Origin: o.Origin, Scheme: core.None(),
	}
}

// before refuses a write that has no chance before its body is read, and
// finds the answer of a repeated one.
func (s *Store) before(b core.Bucket, key string, o core.PutOptions) (info core.ObjectInfo, done bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in, present, err := s.get(b, key)
	if err != nil {
		return info, false, err
	}
	if info, done = in.answers[answerKey{key, o.Request}]; done && !o.Fresh {
		return info, true, nil
	}
	return info, false, o.Conditions.CheckWrite(present.record())
}

// commit puts a finished object in place.
func (s *Store) commit(ctx context.Context, b core.Bucket, key string, o core.PutOptions, rec core.Record, data []byte) (core.ObjectInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in, present, err := s.get(b, key)
	if err != nil {
		return core.ObjectInfo{}, err
	}
	if info, done := in.answers[answerKey{key, o.Request}]; done && !o.Fresh {
		return info, nil
	}
	if err := o.Conditions.CheckWrite(present.record()); err != nil {
		return core.ObjectInfo{}, fmt.Errorf("put %s/%s: %w", b.Name, key, err)
	}
	if err := ctx.Err(); err != nil {
		return core.ObjectInfo{}, fmt.Errorf("put %s/%s: %w", b.Name, key, err)
	}
	s.seq++
	rec.Modified = s.clock.Now().UTC()
	obj := &object{data: data, ObjectInfo: core.ObjectInfo{
		Bucket: in.Name, Key: key, Record: rec, Version: core.Version{Term: 1, Boot: 1, Seq: s.seq},
	}}
	if present == nil {
		in.keys = nil
	}
	in.objects[key] = obj
	in.remember(key, o.Request, obj.ObjectInfo)
	return obj.ObjectInfo, nil
}

func (b *bucket) remember(key string, r core.RequestID, info core.ObjectInfo) {
	if !r.IsZero() {
		b.answers[answerKey{key, r}] = info
	}
}

// find returns the object that a read asks for and checks its conditions.
func (s *Store) find(ctx context.Context, b core.Bucket, key string, o core.GetOptions) (*object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, obj, err := s.get(b, key)
	if err != nil {
		return nil, err
	}
	if obj == nil {
		return nil, fmt.Errorf("%s/%s: %w", b.Name, key, core.ErrNotFound)
	}
	return obj, o.Conditions.CheckRead(obj.ETag, obj.Modified)
}

// Get implements [core.Objects].
func (s *Store) Get(ctx context.Context, b core.Bucket, key string, o core.GetOptions) (*core.Object, error) {
	obj, err := s.find(ctx, b, key, o)
	if err != nil {
		return nil, err
	}
	start, length, err := obj.extent(o)
	if err != nil {
		return nil, fmt.Errorf("get %s/%s: %w", b.Name, key, err)
	}
	return &core.Object{
		ObjectInfo: obj.ObjectInfo, Start: start, Length: length,
		Body: io.NopCloser(bytes.NewReader(obj.data[start : start+length])),
	}, nil
}

// extent returns which bytes of the object a read delivers.
func (o *object) extent(g core.GetOptions) (start, length int64, err error) {
	switch {
	case g.Part == 1 && len(o.Parts) == 0:
		return 0, o.Size, nil
	case g.Part != 0:
		if g.Part < 0 || g.Part > len(o.Parts) {
			return 0, 0, fmt.Errorf("part %d of %d: %w", g.Part, len(o.Parts), core.ErrRange)
		}
		for _, n := range o.Parts[:g.Part-1] {
			start += n
		}
		return start, o.Parts[g.Part-1], nil
	case g.Range != nil:
		return g.Range.Resolve(o.Size)
	}
	return 0, o.Size, nil
}

// Head implements [core.Objects].
func (s *Store) Head(ctx context.Context, b core.Bucket, key string, o core.GetOptions) (core.ObjectInfo, error) {
	obj, err := s.find(ctx, b, key, o)
	if err != nil {
		return core.ObjectInfo{}, err
	}
	if _, _, err := obj.extent(o); err != nil {
		return core.ObjectInfo{}, fmt.Errorf("head %s/%s: %w", b.Name, key, err)
	}
	return obj.ObjectInfo, nil
}

// Delete implements [core.Objects].
func (s *Store) Delete(ctx context.Context, b core.Bucket, key string, c core.Conditions, r core.RequestID) error {
	return s.remove(ctx, b, key, c, r, false)
}

// DeleteFirst implements [core.FirstDeleter].
func (s *Store) DeleteFirst(ctx context.Context, b core.Bucket, key string, c core.Conditions, r core.RequestID) error {
	return s.remove(ctx, b, key, c, r, true)
}

func (s *Store) remove(ctx context.Context, b core.Bucket, key string, c core.Conditions, r core.RequestID, fresh bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	in, obj, err := s.get(b, key)
	if err != nil {
		return err
	}
	if _, done := in.answers[answerKey{key, r}]; done && !fresh {
		return nil
	}
	if err := c.CheckWrite(obj.record()); err != nil {
		return fmt.Errorf("delete %s/%s: %w", b.Name, key, err)
	}
	if obj != nil {
		s.seq++
		delete(in.objects, key)
		in.keys = nil
	}
	in.remember(key, r, core.ObjectInfo{})
	return nil
}

// Copy implements [core.Objects].
func (s *Store) Copy(ctx context.Context, from core.Bucket, fromKey string, to core.Bucket, toKey string, o core.CopyOptions) (core.ObjectInfo, error) {
	if info, done, err := s.before(to, toKey, o.Put); done || err != nil {
		return info, err
	}
	src, err := s.find(ctx, from, fromKey, core.GetOptions{})
	if err != nil {
		return core.ObjectInfo{}, fmt.Errorf("copy: %w", err)
	}
	if err := o.Source.CheckCopySource(src.ETag, src.Modified); err != nil {
		return core.ObjectInfo{}, err
	}
	rec := src.Record
	rec.Origin = o.Put.Origin
	if o.Replace {
		rec.Headers, rec.Meta = maps.Clone(o.Put.Headers), maps.Clone(o.Put.Meta)
	}
	if o.ReplaceTags {
		rec.Tags = maps.Clone(o.Put.Tags)
	}
	if a := o.Put.Checksum.Algorithm; a != "" {
		if rec.Checksum, err = checksum(a, src.data); err != nil {
			return core.ObjectInfo{}, fmt.Errorf("copy: %w", err)
		}
	}
	return s.commit(ctx, to, toKey, o.Put, rec, src.data)
}

// List implements [core.Objects].
func (s *Store) List(ctx context.Context, b core.Bucket, o core.ListOptions) (core.Listing, error) {
	if err := ctx.Err(); err != nil {
		return core.Listing{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	in, err := s.bucket(b)
	if err != nil {
		return core.Listing{}, err
	}
	if in.keys == nil {
		in.keys = slices.Sorted(maps.Keys(in.objects))
	}
	limit := o.Max
	if limit <= 0 {
		limit = 1000
	}
	var l core.Listing
	from := max(o.Prefix, o.After)
	i, _ := slices.BinarySearch(in.keys, from)
	for ; i < len(in.keys); i++ {
		key := in.keys[i]
		rest, ok := strings.CutPrefix(key, o.Prefix)
		if !ok {
			break
		}
		if key <= o.After {
			continue
		}
		if len(l.Objects)+len(l.Prefixes) == limit {
			l.More = true
			break
		}
		if j := strings.Index(rest, o.Delimiter); o.Delimiter != "" && j >= 0 {
			group := key[:len(o.Prefix)+j+len(o.Delimiter)]
			l.Prefixes = append(l.Prefixes, group)
			// No key contains 0xff, so this is behind the whole group.
			l.Next = group + "\xff"
			next, _ := slices.BinarySearch(in.keys, l.Next)
			i = next - 1
			continue
		}
		l.Objects = append(l.Objects, in.objects[key].ObjectInfo)
		l.Next = key
	}
	if !l.More {
		l.Next = ""
	}
	return l, nil
}
