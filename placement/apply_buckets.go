package placement

import (
	"fmt"

	"github.com/shoalstore/shoal/core"
)

// addBucket creates a bucket. Without an alias it gets its own name if that is
// free, else one made of provider and name. Its writes wait, in state creating,
// while its scheme needs more replicas of records than the slots have.
func (d *draft) addBucket(c *core.Change) error {
	if c.Bucket == nil {
		return fmt.Errorf("no bucket is given: %w", core.ErrInvalid)
	}
	b := *c.Bucket
	if err := b.Name.Validate(); err != nil {
		return err
	}
	if err := b.Remote.Validate(b.Name.Provider); err != nil {
		return fmt.Errorf("bucket %s: %w", b.Name, err)
	}
	b.Policy.Scheme = stable(b.Policy.Scheme)
	if err := d.checkPolicy(b.Policy); err != nil {
		return fmt.Errorf("bucket %s: %w", b.Name, err)
	}
	if d.m.BucketNamed(b.Name) != nil {
		return fmt.Errorf("bucket %s: %w", b.Name, core.ErrExists)
	}
	if err := d.chooseAlias(&b); err != nil {
		return err
	}
	b.ID = d.m.NextBucket
	d.m.NextBucket++
	b.State = core.BucketOK
	if b.Policy.Scheme.M+1 > d.m.Replicas {
		b.State = core.BucketCreating
	}
	if b.Created.IsZero() {
		b.Created = d.now
	}
	b.Created = b.Created.Round(0).UTC()
	d.m.Buckets = append(d.m.Buckets, b)
	d.dirty = true
	return nil
}

func (d *draft) chooseAlias(b *core.Bucket) error {
	if b.Alias == "" {
		b.Alias = b.Name.Alias(func(alias string) bool { return d.m.BucketAlias(alias) != nil })
	} else if err := core.ValidateBucket(b.Alias); err != nil {
		return fmt.Errorf("alias: %w", err)
	}
	if other := d.m.BucketAlias(b.Alias); other != nil {
		return fmt.Errorf("alias %q is that of bucket %s; choose another: %w", b.Alias, other.Name, core.ErrExists)
	}
	return nil
}

// stable is the scheme as it is read back from the stored map: the zero Scheme
// is none.
func stable(s core.Scheme) core.Scheme {
	s.K = s.Data()
	return s
}

func (d *draft) checkPolicy(p core.Policy) error {
	if s, err := core.ParseScheme(p.Scheme.String()); err != nil || s.Width() != p.Scheme.Width() {
		return fmt.Errorf("scheme %s is out of bounds: %w", p.Scheme, core.ErrInvalid)
	}
	if p.Domain != core.DomainNode && p.Domain != core.DomainDisk {
		return fmt.Errorf("domain %q: want node or disk: %w", p.Domain, core.ErrInvalid)
	}
	if p.Inline < 0 || p.Inline > core.MaxInline {
		return fmt.Errorf("inline size %d: want 0 to %d bytes: %w", p.Inline, core.MaxInline, core.ErrInvalid)
	}
	switch p.ETag {
	case "", "md5", "fast":
	default:
		return fmt.Errorf("etag %q: want md5 or fast: %w", p.ETag, core.ErrInvalid)
	}
	if need, have, ok := Holds(d.m, p.Scheme, p.Domain); !ok {
		return fmt.Errorf("scheme %s with domain %s needs %d %ss, the cluster has %d: %w",
			p.Scheme, p.Domain, need, p.Domain, have, core.ErrInvalid)
	}
	return nil
}

func (d *draft) bucket(c *core.Change) (*core.Bucket, error) {
	if c.Bucket == nil {
		return nil, fmt.Errorf("no bucket is given: %w", core.ErrInvalid)
	}
	var b *core.Bucket
	if c.Bucket.ID != 0 {
		b = d.m.Bucket(c.Bucket.ID)
	} else {
		b = d.m.BucketNamed(c.Bucket.Name)
	}
	if b == nil {
		return nil, fmt.Errorf("bucket %d %s: %w: %w", c.Bucket.ID, c.Bucket.Name, core.ErrNoSuchBucket, core.ErrNotFound)
	}
	return b, nil
}

// setBucket replaces a bucket's alias, state, policy and remote settings; an
// alias or state that is not given stays. With Change.State it sets only the
// state, and only if the bucket still is what Change.Bucket says.
func (d *draft) setBucket(c *core.Change) error {
	b, err := d.bucket(c)
	if err != nil {
		return err
	}
	want := *b
	if c.State != "" {
		if !sameBucket(*b, *c.Bucket) {
			return fmt.Errorf("bucket %s has changed: %w", b.Name, core.ErrConflict)
		}
		want.State = core.BucketState(c.State)
	} else {
		want.Policy, want.Remote = c.Bucket.Policy, c.Bucket.Remote
		want.Policy.Scheme = stable(want.Policy.Scheme)
		if c.Bucket.State != "" {
			want.State = c.Bucket.State
		}
		if c.Bucket.Alias != "" && c.Bucket.Alias != b.Alias {
			want.Alias = c.Bucket.Alias
			if err := d.chooseAlias(&want); err != nil {
				return err
			}
		}
	}
	switch want.State {
	case core.BucketCreating, core.BucketOK, core.BucketDeleting:
	default:
		return fmt.Errorf("bucket %s: no such state %q: %w", b.Name, want.State, core.ErrInvalid)
	}
	if want.Policy != b.Policy {
		if err := d.checkPolicy(want.Policy); err != nil {
			return fmt.Errorf("bucket %s: %w", b.Name, err)
		}
	}
	if want.Remote != b.Remote {
		if err := want.Remote.Validate(b.Name.Provider); err != nil {
			return fmt.Errorf("bucket %s: %w", b.Name, err)
		}
	}
	if want.State == core.BucketOK && want.Policy.Scheme.M+1 > d.m.Replicas {
		want.State = core.BucketCreating
	}
	if want != *b {
		*b, d.dirty = want, true
	}
	return nil
}

func sameBucket(a, b core.Bucket) bool {
	created := a.Created.Equal(b.Created)
	a.Created = b.Created
	return created && a == b
}

func (d *draft) removeBucket(c *core.Change) error {
	b, err := d.bucket(c)
	if err != nil {
		return err
	}
	if b.State != core.BucketDeleting {
		return fmt.Errorf("bucket %s is %s; only one in state deleting is removed: %w", b.Name, b.State, core.ErrConflict)
	}
	id := b.ID
	kept := d.m.Buckets[:0]
	for _, b := range d.m.Buckets {
		if b.ID != id {
			kept = append(kept, b)
		}
	}
	d.m.Buckets = kept
	d.dirty = true
	return nil
}
