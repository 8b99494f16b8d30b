package membus

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
)

type kv struct {
	*Client
	name string
}

func (k kv) Get(ctx context.Context, key string) (bus.Entry, error) {
	if err := bus.CheckKey(key); err != nil {
		return bus.Entry{}, err
	}
	m, err := k.read(ctx, "load", k.name, key)
	if err != nil {
		return bus.Entry{}, err
	}
	s := m[key]
	if s.rev == 0 || s.deleted {
		// A stale read may miss the key; its absence must be proven.
		k.bus.mu.Lock()
		s = k.at().bucket(k.name)[key]
		k.bus.mu.Unlock()
	}
	if s.rev == 0 || s.deleted {
		return bus.Entry{}, fmt.Errorf("bus %s %q: %w", k.name, key, core.ErrNotFound)
	}
	return bus.Entry{Key: key, Value: slices.Clone(s.value), Revision: s.rev}, nil
}

func (k kv) Confirm(ctx context.Context, key string, rev bus.Revision) error {
	k.bus.mu.Lock()
	defer k.bus.mu.Unlock()
	if _, err := k.begin(ctx, "confirm", k.name, key); err != nil {
		return err
	}
	if have := k.revision(k.name, key); have != rev {
		return fmt.Errorf("bus %s %q is at revision %d, not %d: %w", k.name, key, have, rev, core.ErrConflict)
	}
	return nil
}

func (k kv) Create(ctx context.Context, key string, value []byte) (bus.Revision, error) {
	if err := bus.CheckKey(key); err != nil {
		return 0, err
	}
	rev, err := k.write(ctx, k.name, key, value, 0, false)
	if errors.Is(err, core.ErrConflict) {
		return 0, fmt.Errorf("bus %s %q: %w", k.name, key, core.ErrExists)
	}
	return rev, err
}

func (k kv) Update(ctx context.Context, key string, value []byte, rev bus.Revision) (bus.Revision, error) {
	if err := checkUpdate(key, rev); err != nil {
		return 0, err
	}
	return k.write(ctx, k.name, key, value, rev, false)
}

func (k kv) Delete(ctx context.Context, key string, rev bus.Revision) error {
	if err := checkUpdate(key, rev); err != nil {
		return err
	}
	_, err := k.write(ctx, k.name, key, nil, rev, true)
	return err
}

func checkUpdate(key string, rev bus.Revision) error {
	if rev == 0 {
		return fmt.Errorf("bus key %q: a write that expects no value is a Create: %w", key, core.ErrInvalid)
	}
	return bus.CheckKey(key)
}

func (k kv) List(ctx context.Context, prefix string) ([]bus.Entry, error) {
	if err := bus.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	m, err := k.read(ctx, "list", k.name, prefix)
	if err != nil {
		return nil, err
	}
	var out []bus.Entry
	for key, s := range m {
		if under(key, prefix) && !s.deleted {
			out = append(out, bus.Entry{Key: key, Value: slices.Clone(s.value), Revision: s.rev})
		}
	}
	return out, nil
}

func (k kv) Watch(ctx context.Context, prefix string) iter.Seq[bus.Entry] {
	return k.watch(ctx, func(key string) bool { return under(key, prefix) })
}

// watch yields the entries whose key matches, whenever they differ from what
// it yielded last.
func (k kv) watch(ctx context.Context, match func(string) bool) iter.Seq[bus.Entry] {
	return func(yield func(bus.Entry) bool) {
		type version struct {
			rev   bus.Revision
			value string
		}
		seen := map[string]version{}
		for {
			k.bus.mu.Lock()
			changed := k.bus.changed
			var news []bus.Entry
			if !k.bus.down && !k.down {
				now := k.at().bucket(k.name)
				for key := range seen {
					if s, ok := now[key]; !ok || s.deleted {
						news = append(news, bus.Entry{Key: key, Revision: s.rev, Deleted: true})
						delete(seen, key)
					}
				}
				for key, s := range now {
					v := version{rev: s.rev, value: string(s.value)}
					if s.deleted || !match(key) || seen[key] == v {
						continue
					}
					seen[key] = v
					news = append(news, bus.Entry{Key: key, Value: slices.Clone(s.value), Revision: s.rev})
				}
			}
			k.bus.mu.Unlock()
			for _, e := range news {
				if ctx.Err() != nil || !yield(e) {
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

// register is a bucket's key "map".
type register struct{ kv }

const registerKey = "map"

func (r register) Load(ctx context.Context) ([]byte, bus.Revision, error) {
	m, err := r.read(ctx, "load", r.name, registerKey)
	if err != nil {
		return nil, 0, err
	}
	s := m[registerKey]
	if s.rev == 0 {
		return nil, 0, fmt.Errorf("bus %s: %w", r.name, bus.ErrNoValue)
	}
	return slices.Clone(s.value), s.rev, nil
}

func (r register) Create(ctx context.Context, value []byte) (bus.Revision, error) {
	return r.kv.Create(ctx, registerKey, value)
}

func (r register) CompareAndSet(ctx context.Context, value []byte, rev bus.Revision) (bus.Revision, error) {
	return r.Update(ctx, registerKey, value, rev)
}

func (r register) Watch(ctx context.Context) iter.Seq2[[]byte, bus.Revision] {
	return func(yield func([]byte, bus.Revision) bool) {
		for e := range r.watch(ctx, func(key string) bool { return key == registerKey }) {
			if !e.Deleted && !yield(e.Value, e.Revision) {
				return
			}
		}
	}
}
