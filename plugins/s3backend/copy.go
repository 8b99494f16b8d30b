package s3backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/shoalstore/shoal/core"
)

// copiers is the number of parts of a copy under way at a time.
const copiers = 8

// Copy implements [core.RemoteCopier].
func (b *Backend) Copy(ctx context.Context, fromBucket, fromKey string, v core.RemoteVersion, bucket, key string, o core.RemotePut) (core.RemoteObject, error) {
	none := core.RemoteObject{}
	if err := errors.Join(core.ValidateKey(fromKey), core.ValidateKey(key), checkVersion(v)); err != nil {
		return none, err
	}
	match, noneMatch, err := b.condition(ctx, bucket, key, b.abilities.PutIf, o.If)
	if err != nil {
		return none, err
	}
	src, err := b.Head(ctx, fromBucket, fromKey)
	if err != nil {
		return none, fmt.Errorf("source of a copy: %w", err)
	}
	if v != "" && src.Version != v {
		return none, fmt.Errorf("s3: copy %s/%q: asked for version %q, it is %q: %w", fromBucket, fromKey, v, src.Version, core.ErrPrecondition)
	}
	replaceMeta := o.Headers != nil || o.Meta != nil
	if o.Headers == nil {
		o.Headers = src.Headers
	}
	if o.Meta == nil {
		o.Meta = src.Meta
	}
	a, err := attributesOf(o)
	if err != nil {
		return none, err
	}
	source := copySource(fromBucket, fromKey)
	if src.Size > b.maxCopy || !o.If.IsZero() && !b.aws {
		if o.Tags == nil && src.Headers[tagCount] != "" {
			if o.Tags, err = b.Tags(ctx, fromBucket, fromKey); err != nil {
				return none, err
			}
		}
		return b.copyParts(ctx, source, src, bucket, key, o)
	}
	in := &s3.CopyObjectInput{
		Bucket: &bucket, Key: &key, CopySource: &source, CopySourceIfMatch: ifMatch(src.Version), CopySourceIfUnmodifiedSince: unmodified(src),
		StorageClass: a.class, IfMatch: match, IfNoneMatch: noneMatch,
	}
	if replaceMeta {
		in.MetadataDirective, in.Metadata = types.MetadataDirectiveReplace, a.meta
	}
	if o.Tags != nil {
		in.TaggingDirective, in.Tagging = types.TaggingDirectiveReplace, a.tags
	}
	c := &call{b: b, op: "copy to", bucket: bucket, key: key, write: true}
	out, err := b.client.CopyObject(c.trace(ctx), in, func(s *s3.Options) {
		if replaceMeta {
			a.send(s)
		}
	})
	if err != nil {
		return none, c.fail(ctx, err)
	}
	if out.CopyObjectResult == nil {
		return none, fmt.Errorf("%s: %w: the answer has no result", c, core.ErrUnknownOutcome)
	}
	etag := unquote(aws.ToString(out.CopyObjectResult.ETag))
	obj := core.RemoteObject{Key: key, ETag: etag, Version: core.RemoteVersion(etag), MD5: md5Of(bucket, etag, headers(out.ResultMetadata))}
	return c.written(obj, src.Size)
}

// copySource is a source as its header has it.
func copySource(bucket, key string) string {
	parts := strings.Split(key, "/")
	for i, p := range parts {
		parts[i] = strings.ReplaceAll(url.PathEscape(p), "+", "%2B")
	}
	return bucket + "/" + strings.Join(parts, "/")
}

// copyParts copies by an upload whose parts are ranges of the source.
func (b *Backend) copyParts(ctx context.Context, source string, src core.RemoteObject, bucket, key string, o core.RemotePut) (core.RemoteObject, error) {
	if src.Size == 0 { // which has no range
		o.Size, o.Open = 0, func(context.Context) (io.ReadCloser, error) { return http.NoBody, nil }
		return b.Put(ctx, bucket, key, o)
	}
	upload, err := b.CreateUpload(ctx, bucket, key, o)
	if err != nil {
		return core.RemoteObject{}, err
	}
	obj, err := b.fillUpload(ctx, source, src, bucket, key, upload, o.If)
	if err != nil && !errors.Is(err, core.ErrUnknownOutcome) {
		// Also where ctx is why it failed: parts that stay cost money.
		if e := b.AbortUpload(context.WithoutCancel(ctx), bucket, key, upload); e != nil {
			err = fmt.Errorf("%w (its upload %s stays: %v)", err, upload, e) //nolint:errorlint // the first is what callers tell apart
		}
	}
	return obj, err
}

func (b *Backend) fillUpload(ctx context.Context, source string, src core.RemoteObject, bucket, key, upload string, cond core.RemoteCondition) (core.RemoteObject, error) {
	size := max(b.partCopy, (src.Size+maxParts-1)/maxParts)
	parts := make([]core.RemotePart, (src.Size+size-1)/size)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(copiers)
	for i := range parts {
		first := int64(i) * size
		last := min(first+size, src.Size) - 1
		g.Go(func() error {
			c := &call{b: b, op: fmt.Sprintf("copy part %d of", i+1), bucket: bucket, key: key} // a part by itself changes nothing
			out, err := b.client.UploadPartCopy(c.trace(gctx), &s3.UploadPartCopyInput{
				Bucket: &bucket, Key: &key, UploadId: &upload, PartNumber: aws.Int32(int32(i + 1)), CopySource: &source,
				CopySourceIfMatch: ifMatch(src.Version), CopySourceIfUnmodifiedSince: unmodified(src),
				CopySourceRange: aws.String(fmt.Sprintf("bytes=%d-%d", first, last)),
			})
			if err != nil {
				return c.fail(gctx, err)
			}
			if out.CopyPartResult == nil || aws.ToString(out.CopyPartResult.ETag) == "" {
				return fmt.Errorf("%s: %w: the answer has no ETag", c, core.ErrUnavailable)
			}
			parts[i] = core.RemotePart{Number: i + 1, Size: last - first + 1, ETag: unquote(*out.CopyPartResult.ETag)}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return core.RemoteObject{}, err
	}
	return b.CompleteUpload(ctx, bucket, key, upload, parts, cond)
}
