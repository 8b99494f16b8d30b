package natsbus

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
)

// kv is a bucket as [bus.KV].
type kv struct{ *bucket }

func (k kv) Get(ctx context.Context, key string) (bus.Entry, error) {
	if err := bus.CheckKey(key); err != nil {
		return bus.Entry{}, err
	}
	ctx, cancel := k.client.bound(ctx)
	defer cancel()
	for {
		s, err := k.use(ctx)
		if err != nil {
			return bus.Entry{}, err
		}
		m, err := k.last(ctx, s, key)
		if err == nil && !m.deleted {
			return bus.Entry{Key: key, Value: m.value, Revision: s.revision(m.seq)}, nil
		}
		if err == nil || errors.Is(err, errAbsent) {
			// m.seq is 0 or that of the deletion.
			if err = k.prove(ctx, s, key, m.seq); err == nil {
				return bus.Entry{}, k.fail("load", key, core.ErrNotFound)
			}
		}
		if !errors.Is(err, core.ErrConflict) && !errors.Is(err, errMoved) {
			return bus.Entry{}, err
		}
	}
}

func (k kv) Confirm(ctx context.Context, key string, rev bus.Revision) error {
	if err := bus.CheckKey(key); err != nil {
		return err
	}
	ctx, cancel := k.client.bound(ctx)
	defer cancel()
	s, seq, err := k.expect(ctx, "confirm", key, rev)
	if err != nil {
		return err
	}
	err = k.prove(ctx, s, key, seq)
	if rev != 0 || !errors.Is(err, core.ErrConflict) {
		return err
	}
	// No value may also mean a deleted one.
	m, err := k.last(ctx, s, key)
	switch {
	case err != nil:
		return err
	case !m.deleted:
		return k.fail("confirm", key, core.ErrConflict)
	}
	return k.prove(ctx, s, key, m.seq)
}

// expect returns the stream and the sequence number of a revision. One of
// another generation is in conflict; revision 0 is number 0.
func (b *bucket) expect(ctx context.Context, op, key string, rev bus.Revision) (*stream, uint64, error) {
	s, err := b.use(ctx)
	if err != nil {
		return nil, 0, err
	}
	generation, seq := splitRevision(rev)
	if rev != 0 && generation != s.generation {
		return nil, 0, b.fail(op, key, fmt.Errorf("revision of generation %d, the bus is at %d: %w", generation, s.generation, core.ErrConflict))
	}
	return s, seq, nil
}

func (k kv) Create(ctx context.Context, key string, value []byte) (bus.Revision, error) {
	if err := bus.CheckKey(key); err != nil {
		return 0, err
	}
	return k.create(ctx, key, value)
}

func (b *bucket) create(ctx context.Context, key string, value []byte) (bus.Revision, error) {
	ctx, cancel := b.client.bound(ctx)
	defer cancel()
	var expect uint64
	for {
		s, err := b.use(ctx)
		if err != nil {
			return 0, err
		}
		seq, err := b.write(ctx, s, write{key: key, value: value, expect: expect})
		switch {
		case err == nil:
			return s.revision(seq), nil
		case errors.Is(err, errMoved):
			expect = 0
			continue
		case !errors.Is(err, core.ErrConflict):
			return 0, err
		}
		m, err := b.last(ctx, s, key)
		switch {
		case errors.Is(err, errAbsent):
			expect = 0
		case err != nil:
			return 0, err
		case !m.deleted:
			return 0, b.fail("create", key, core.ErrExists)
		default:
			expect = m.seq
		}
	}
}

func (k kv) Update(ctx context.Context, key string, value []byte, rev bus.Revision) (bus.Revision, error) {
	return k.update(ctx, write{key: key, value: value}, rev)
}

func (k kv) Delete(ctx context.Context, key string, rev bus.Revision) error {
	_, err := k.update(ctx, write{key: key, deleted: true}, rev)
	return err
}

func (b *bucket) update(ctx context.Context, w write, rev bus.Revision) (bus.Revision, error) {
	if err := bus.CheckKey(w.key); err != nil {
		return 0, err
	}
	if rev == 0 {
		return 0, b.fail("write", w.key, fmt.Errorf("a write that expects no value is a Create: %w", core.ErrInvalid))
	}
	ctx, cancel := b.client.bound(ctx)
	defer cancel()
	s, seq, err := b.expect(ctx, "write", w.key, rev)
	if err != nil {
		return 0, err
	}
	w.expect = seq
	got, err := b.write(ctx, s, w)
	if err != nil {
		return 0, err
	}
	return s.revision(got), nil
}

func (k kv) List(ctx context.Context, prefix string) ([]bus.Entry, error) {
	if err := bus.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	ctx, cancel := k.client.bound(ctx)
	defer cancel()
	for {
		s, err := k.use(ctx)
		if err != nil {
			return nil, err
		}
		found := map[string]bus.Entry{}
		_, err = k.scan(ctx, s, 1, filter(prefix), func(m message) error {
			if m.internal() {
				return nil
			}
			found[m.key] = bus.Entry{Key: m.key, Value: m.value, Revision: s.revision(m.seq), Deleted: m.deleted}
			return nil
		})
		if errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out := make([]bus.Entry, 0, len(found))
		for _, e := range found {
			if !e.Deleted {
				out = append(out, e)
			}
		}
		return out, nil
	}
}

func (k kv) Watch(ctx context.Context, prefix string) iter.Seq[bus.Entry] {
	return k.watch(ctx, filter(prefix))
}

// filter is the NATS subject, below the bucket's root, of the keys under a
// prefix.
func filter(prefix string) string {
	if prefix == "" {
		return ">"
	}
	return prefix + ".>"
}

// register is a bucket's key "map" as [bus.Register].
type register struct{ *bucket }

const registerKey = "map"

func (r register) Load(ctx context.Context) ([]byte, bus.Revision, error) {
	ctx, cancel := r.client.bound(ctx)
	defer cancel()
	for {
		s, err := r.use(ctx)
		if err != nil {
			return nil, 0, err
		}
		m, err := r.last(ctx, s, registerKey)
		switch {
		case err == nil && !m.deleted:
			return m.value, s.revision(m.seq), nil
		case err == nil, errors.Is(err, errAbsent):
			return nil, 0, r.fail("load", registerKey, bus.ErrNoValue)
		case !errors.Is(err, errMoved):
			return nil, 0, err
		}
	}
}

func (r register) Create(ctx context.Context, value []byte) (bus.Revision, error) {
	return r.create(ctx, registerKey, value)
}

func (r register) CompareAndSet(ctx context.Context, value []byte, rev bus.Revision) (bus.Revision, error) {
	return r.update(ctx, write{key: registerKey, value: value}, rev)
}

func (r register) Watch(ctx context.Context) iter.Seq2[[]byte, bus.Revision] {
	return func(yield func([]byte, bus.Revision) bool) {
		for e := range r.watch(ctx, registerKey) {
			if !e.Deleted && !yield(e.Value, e.Revision) {
				return
			}
		}
	}
}
