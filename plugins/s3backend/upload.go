package s3backend

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/shoalstore/shoal/core"
)

// CreateUpload implements [core.RemoteUploader].
func (b *Backend) CreateUpload(ctx context.Context, bucket, key string, o core.RemotePut) (string, error) {
	if err := core.ValidateKey(key); err != nil {
		return "", err
	}
	a, err := attributesOf(o)
	if err != nil {
		return "", err
	}
	c := &call{b: b, op: "create upload to", bucket: bucket, key: key, write: true}
	out, err := b.client.CreateMultipartUpload(c.trace(ctx), &s3.CreateMultipartUploadInput{
		Bucket: &bucket, Key: &key, Metadata: a.meta, Tagging: a.tags, StorageClass: a.class,
	}, a.send)
	if err != nil {
		return "", c.fail(ctx, err)
	}
	if aws.ToString(out.UploadId) == "" {
		return "", fmt.Errorf("%s: %w: the answer has no upload id", c, core.ErrUnknownOutcome)
	}
	return *out.UploadId, nil
}

// PutPart implements [core.RemoteUploader].
func (b *Backend) PutPart(ctx context.Context, bucket, key, upload string, number int, o core.RemotePut) (core.RemotePart, error) {
	none := core.RemotePart{}
	if err := checkPart(key, upload, number); err != nil {
		return none, err
	}
	if err := ctx.Err(); err != nil {
		return none, err
	}
	c := &call{b: b, op: fmt.Sprintf("put part %d of", number), bucket: bucket, key: key, write: true}
	sum, err := c.contentMD5(ctx, o)
	if err != nil {
		return none, err
	}
	if err := c.open(ctx, o); err != nil {
		return none, err
	}
	defer c.close()
	out, err := b.client.UploadPart(c.trace(ctx), &s3.UploadPartInput{
		Bucket: &bucket, Key: &key, UploadId: &upload, PartNumber: aws.Int32(int32(number)),
		Body: c.body.reader(), ContentLength: &o.Size, ContentMD5: sum,
	}, unsigned)
	if err != nil {
		return none, c.fail(ctx, err)
	}
	etag := unquote(aws.ToString(out.ETag))
	if etag == "" {
		return none, fmt.Errorf("%s: %w: the answer has no ETag", c, core.ErrUnknownOutcome)
	}
	return core.RemotePart{Number: number, Size: o.Size, ETag: etag}, nil
}

func checkPart(key, upload string, number int) error {
	if err := core.ValidateKey(key); err != nil {
		return err
	}
	if upload == "" || number < 1 || number > maxParts {
		return fmt.Errorf("part %d of upload %q: want 1 to %d: %w", number, upload, maxParts, core.ErrInvalid)
	}
	return nil
}

// CompleteUpload implements [core.RemoteUploader].
func (b *Backend) CompleteUpload(ctx context.Context, bucket, key, upload string, parts []core.RemotePart, cond core.RemoteCondition) (core.RemoteObject, error) {
	none := core.RemoteObject{}
	if err := core.ValidateKey(key); err != nil {
		return none, err
	}
	if len(parts) == 0 {
		return none, fmt.Errorf("upload %s: no parts: %w", upload, core.ErrInvalidPart)
	}
	match, noneMatch, err := b.condition(ctx, bucket, key, b.abilities.PutIf, cond)
	if err != nil {
		return none, err
	}
	var size int64
	done := make([]types.CompletedPart, len(parts))
	for i, p := range parts {
		size += p.Size
		done[i] = types.CompletedPart{PartNumber: aws.Int32(int32(p.Number)), ETag: ifMatch(core.RemoteVersion(p.ETag))}
	}
	c := &call{b: b, op: "complete upload to", bucket: bucket, key: key, write: true}
	out, err := b.client.CompleteMultipartUpload(c.trace(ctx), &s3.CompleteMultipartUploadInput{
		Bucket: &bucket, Key: &key, UploadId: &upload, MultipartUpload: &types.CompletedMultipartUpload{Parts: done},
		IfMatch: match, IfNoneMatch: noneMatch,
	})
	if err != nil {
		return none, c.fail(ctx, err)
	}
	etag := unquote(aws.ToString(out.ETag))
	return c.written(core.RemoteObject{Key: key, ETag: etag, Version: core.RemoteVersion(etag)}, size)
}

// AbortUpload implements [core.RemoteUploader].
func (b *Backend) AbortUpload(ctx context.Context, bucket, key, upload string) error {
	if err := core.ValidateKey(key); err != nil {
		return err
	}
	c := &call{b: b, op: "abort upload to", bucket: bucket, key: key, write: true}
	_, err := b.client.AbortMultipartUpload(c.trace(ctx), &s3.AbortMultipartUploadInput{Bucket: &bucket, Key: &key, UploadId: &upload})
	if err = c.fail(ctx, err); errors.Is(err, core.ErrNoSuchUpload) {
		return nil
	}
	return err
}
