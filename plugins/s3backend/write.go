package s3backend

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/shoalstore/shoal/core"
)

// Put implements [core.Backend].
func (b *Backend) Put(ctx context.Context, bucket, key string, o core.RemotePut) (core.RemoteObject, error) {
	none := core.RemoteObject{}
	if err := core.ValidateKey(key); err != nil {
		return none, err
	}
	match, noneMatch, err := b.condition(ctx, bucket, key, b.abilities.PutIf, o.If)
	if err != nil {
		return none, err
	}
	a, err := attributesOf(o)
	if err != nil {
		return none, err
	}
	if err := ctx.Err(); err != nil {
		return none, err
	}
	c := &call{b: b, op: "put", bucket: bucket, key: key, write: true}
	sum, err := c.contentMD5(ctx, o)
	if err != nil {
		return none, err
	}
	if err := c.open(ctx, o); err != nil {
		return none, err
	}
	defer c.close()
	out, err := b.client.PutObject(c.trace(ctx), &s3.PutObjectInput{
		Bucket: &bucket, Key: &key, Body: c.body.reader(), ContentLength: &o.Size, ContentMD5: sum,
		Metadata: a.meta, Tagging: a.tags, StorageClass: a.class, IfMatch: match, IfNoneMatch: noneMatch,
	}, unsigned, a.send)
	if err != nil {
		return none, c.fail(ctx, err)
	}
	return c.written(describe(bucket, key, headers(out.ResultMetadata)), o.Size)
}

// written completes the description of what was written from the answer's headers.
func (c *call) written(obj core.RemoteObject, size int64) (core.RemoteObject, error) {
	if obj.ETag == "" {
		return core.RemoteObject{}, fmt.Errorf("%s: %w: the answer has no ETag", c, core.ErrUnknownOutcome)
	}
	return core.RemoteObject{
		Key: obj.Key, Size: size, Version: obj.Version, ETag: obj.ETag, Checksum: obj.Checksum, MD5: obj.MD5,
	}, nil
}

// Delete implements [core.Backend].
func (b *Backend) Delete(ctx context.Context, bucket, key string, cond core.RemoteCondition) error {
	if err := core.ValidateKey(key); err != nil {
		return err
	}
	if cond.Absent {
		return fmt.Errorf("delete if absent: %w", core.ErrInvalid)
	}
	match, _, err := b.condition(ctx, bucket, key, b.abilities.DeleteIf, cond)
	if err != nil {
		return err
	}
	c := &call{b: b, op: "delete", bucket: bucket, key: key, write: true}
	_, err = b.client.DeleteObject(c.trace(ctx), &s3.DeleteObjectInput{Bucket: &bucket, Key: &key, IfMatch: match})
	if err == nil {
		return nil
	}
	if res := response(err); res != nil && cond.IsZero() && isNoSuchKey(err) {
		return nil // AWS answers 204, others 404
	}
	return c.fail(ctx, err)
}
