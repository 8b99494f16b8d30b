package gcsbackend

import (
	"context"
	"errors"
	"fmt"

	"cloud.google.com/go/storage"

	"github.com/shoalstore/shoal/core"
)

// Put implements [core.Backend]. The service checks the MD5 if there is one; the
// CRC32C of what was sent is compared with the answer.
func (b *Backend) Put(ctx context.Context, bucket, key string, o core.RemotePut) (core.RemoteObject, error) {
	if err := writable(bucket, key); err != nil {
		return core.RemoteObject{}, err
	}
	a, err := toGoogle(o.Headers, o.Meta, o.Tags)
	if err != nil {
		return core.RemoteObject{}, err
	}
	q := request{what: "put " + bucket + "/" + key, write: true, missing: core.ErrNoSuchBucket}
	put, err := b.put(ctx, q, bucket, key, a, o)
	if err != nil {
		return core.RemoteObject{}, err
	}
	return q.described(key, put)
}

// mayIf refuses conditions where the server is not known to hold to them.
func (b *Backend) mayIf(bucket, key string, c core.RemoteCondition, holds bool) error {
	if c.IsZero() || holds {
		return nil
	}
	return fmt.Errorf("gs: %s/%s: %s is not known to hold to conditions: %w", bucket, key, b.base.Host, errors.ErrUnsupported)
}

// at is the object, with the condition on what is there.
func (b *Backend) at(bucket, key string, c core.RemoteCondition) (*storage.ObjectHandle, error) {
	o := b.client.Bucket(bucket).Object(key)
	if c.IsZero() {
		return o, nil
	}
	if err := b.mayIf(bucket, key, c, b.holds()); err != nil {
		return nil, err
	}
	conds, ok := conditions(c)
	if !ok {
		return nil, fmt.Errorf("gs: %s/%s: there is no version %q: %w", bucket, key, c.Version, core.ErrPrecondition)
	}
	return o.If(conds), nil
}

// Delete implements [core.Backend].
func (b *Backend) Delete(ctx context.Context, bucket, key string, c core.RemoteCondition) error {
	if err := writable(bucket, key); err != nil {
		return err
	}
	if c.Absent {
		return fmt.Errorf("gs: delete %s/%s, if it is absent: %w", bucket, key, core.ErrInvalid)
	}
	object, err := b.at(bucket, key, c)
	if err != nil {
		return err
	}
	q := request{what: "delete " + bucket + "/" + key, write: true, missing: core.ErrNotFound}
	err = b.objectFailed(ctx, q, bucket, object.Delete(ctx))
	if c.IsZero() && errors.Is(err, core.ErrNotFound) {
		return nil
	}
	return err
}

// Copy implements [core.RemoteCopier]. A large object takes several requests
// where location or storage class change.
func (b *Backend) Copy(ctx context.Context, fromBucket, fromKey string, v core.RemoteVersion, bucket, key string, o core.RemotePut) (core.RemoteObject, error) {
	if err := writable(bucket, key); err != nil {
		return core.RemoteObject{}, err
	}
	if err := readable(fromBucket, fromKey); err != nil {
		return core.RemoteObject{}, err
	}
	at, ok := atVersion(v)
	if !ok {
		return core.RemoteObject{}, fmt.Errorf("gs: copy %s/%s: there is no version %q: %w", fromBucket, fromKey, v, core.ErrPrecondition)
	}
	from := b.client.Bucket(fromBucket).Object(fromKey)
	if v != "" {
		from = from.If(at)
	}
	to, err := b.at(bucket, key, o.If)
	if err != nil {
		return core.RemoteObject{}, err
	}
	c := to.CopierFrom(from)
	if o.Headers != nil || o.Meta != nil || o.Tags != nil || v != "" && !b.holds() {
		// Google replaces all attributes or none. And who ignores conditions may
		// ignore that on the source.
		was, err := b.source(ctx, fromBucket, fromKey, v)
		if err != nil {
			return core.RemoteObject{}, err
		}
		if c.ObjectAttrs, err = merged(was, o); err != nil {
			return core.RemoteObject{}, err
		}
		if c.ContentType == "" {
			// With none at all the library sends no attributes.
			c.ContentType = "application/octet-stream"
		}
	}
	q := request{what: fmt.Sprintf("copy %s/%s to %s/%s", fromBucket, fromKey, bucket, key), write: true, missing: core.ErrNotFound}
	made, err := c.Run(ctx)
	if err != nil {
		// Whose bucket it is that is missing the answer may not say.
		err = b.objectFailed(ctx, q, fromBucket, err)
		if errors.Is(err, core.ErrNotFound) {
			if gone := b.HeadBucket(ctx, bucket); errors.Is(gone, core.ErrNoSuchBucket) {
				err = gone
			}
		}
		return core.RemoteObject{}, err
	}
	return q.described(key, made)
}

// source is what is to be copied, in the version v.
func (b *Backend) source(ctx context.Context, bucket, key string, v core.RemoteVersion) (*storage.ObjectAttrs, error) {
	a, err := b.client.Bucket(bucket).Object(key).Attrs(ctx)
	if err != nil {
		return nil, b.objectFailed(ctx, request{what: "head " + bucket + "/" + key, missing: core.ErrNotFound}, bucket, err)
	}
	if is := version(a.Generation, a.Metageneration); v != "" && is != v {
		return nil, fmt.Errorf("gs: copy %s/%s: version %s is there, not %s: %w", bucket, key, is, v, core.ErrPrecondition)
	}
	return a, nil
}
