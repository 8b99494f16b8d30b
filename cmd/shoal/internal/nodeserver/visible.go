package nodeserver

import (
	"context"
	"fmt"
	"slices"

	"github.com/shoalstore/shoal/core"
)

// visible is the object layer without what is the cluster's own.
type visible struct{ core.Objects }

// noSuchBucket is what users hear of the cluster's own bucket.
func noSuchBucket(name string) error { return fmt.Errorf("bucket %q: %w", name, core.ErrNoSuchBucket) }

// reserved refuses to let users have the name.
func reserved(b core.BucketName, alias string) error {
	if b.System() || alias == core.SystemBucketName {
		return fmt.Errorf("bucket %s: the name %s is the cluster's own: %w", b, core.SystemBucketName, core.ErrInvalid)
	}
	return nil
}

// CreateBucket is part of core.Objects.
func (v visible) CreateBucket(ctx context.Context, b core.BucketName, p *core.Policy, alias string) (core.Bucket, error) {
	if err := reserved(b, alias); err != nil {
		return core.Bucket{}, err
	}
	return v.Objects.CreateBucket(ctx, b, p, alias)
}

// Bucket is part of core.Objects.
func (v visible) Bucket(ctx context.Context, alias string) (core.Bucket, error) {
	b, err := v.Objects.Bucket(ctx, alias)
	if err == nil && b.Name.System() {
		return core.Bucket{}, noSuchBucket(alias)
	}
	return b, err
}

// Buckets is part of core.Objects.
func (v visible) Buckets(ctx context.Context) ([]core.Bucket, error) {
	list, err := v.Objects.Buckets(ctx)
	return slices.DeleteFunc(list, func(b core.Bucket) bool { return b.Name.System() }), err
}

// DeleteBucket is part of core.Objects.
func (v visible) DeleteBucket(ctx context.Context, alias string) error {
	if _, err := v.Bucket(ctx, alias); err != nil {
		return err
	}
	return v.Objects.DeleteBucket(ctx, alias)
}

// DeleteFirst is part of core.FirstDeleter.
func (v visible) DeleteFirst(ctx context.Context, b core.Bucket, key string, c core.Conditions, r core.RequestID) error {
	if first, ok := v.Objects.(core.FirstDeleter); ok {
		return first.DeleteFirst(ctx, b, key, c, r)
	}
	return v.Delete(ctx, b, key, c, r)
}
