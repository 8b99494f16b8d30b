package s3backend

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/shoalstore/shoal/core"
)

// List implements [core.Backend]. It goes by start-after, so any page can be asked
// for by anybody.
func (b *Backend) List(ctx context.Context, bucket string, o core.RemoteListOptions) (core.RemoteListing, error) {
	most := o.Max
	if most <= 0 || most > pageSize {
		most = pageSize
	}
	in := &s3.ListObjectsV2Input{Bucket: &bucket, MaxKeys: aws.Int32(int32(most)), EncodingType: types.EncodingTypeUrl}
	if o.Prefix != "" {
		in.Prefix = &o.Prefix
	}
	if o.Delimiter != "" {
		in.Delimiter = &o.Delimiter
	}
	if o.After != "" {
		in.StartAfter = &o.After
	}
	c := &call{b: b, op: "list", bucket: bucket}
	out, err := b.client.ListObjectsV2(c.trace(ctx), in)
	if err != nil {
		return core.RemoteListing{}, c.fail(ctx, err)
	}
	l, err := b.listing(o, out)
	if err != nil {
		return core.RemoteListing{}, fmt.Errorf("%s: %w: %w", c, core.ErrUnavailable, err)
	}
	return l, nil
}

// listing reads a page.
func (b *Backend) listing(o core.RemoteListOptions, out *s3.ListObjectsV2Output) (l core.RemoteListing, err error) {
	if out.Name == nil || out.IsTruncated == nil {
		return l, fmt.Errorf("the answer is not a listing")
	}
	decode := func(s *string) (string, error) {
		if out.EncodingType != types.EncodingTypeUrl {
			return aws.ToString(s), nil
		}
		key, err := url.QueryUnescape(aws.ToString(s))
		if err == nil && !utf8.ValidString(key) {
			err = fmt.Errorf("key %q is not UTF-8", key)
		}
		return key, err
	}
	l.More = *out.IsTruncated
	for i := range out.Contents {
		obj := &out.Contents[i]
		key, err := decode(obj.Key)
		if err != nil {
			return l, fmt.Errorf("the listing has a key that cannot be read: %w", err)
		}
		l.Next = max(l.Next, key)
		if o.Until != "" && key >= o.Until {
			l.More = false
			continue
		}
		etag := unquote(aws.ToString(obj.ETag))
		r := core.RemoteObject{
			Key: key, Size: aws.ToInt64(obj.Size), Version: core.RemoteVersion(etag), ETag: etag, Modified: aws.ToTime(obj.LastModified),
		}
		// What is not named has "", any version.
		_ = b.identify(&r)
		if obj.StorageClass != "" {
			r.Headers = map[string]string{storageClass: string(obj.StorageClass)}
		}
		l.Objects = append(l.Objects, r)
	}
	for _, p := range out.CommonPrefixes {
		prefix, err := decode(p.Prefix)
		if err != nil {
			return l, fmt.Errorf("the listing has a prefix that cannot be read: %w", err)
		}
		l.Next = max(l.Next, afterPrefix(prefix))
		if o.Until != "" && prefix >= o.Until {
			l.More = false
			continue
		}
		l.Prefixes = append(l.Prefixes, prefix)
	}
	if l.More && l.Next <= o.After {
		return l, fmt.Errorf("the listing goes on after %q, but does not get beyond it", o.After)
	}
	if !l.More {
		l.Next = ""
	}
	return l, nil
}

// afterPrefix is the highest key that begins with prefix, so that a listing that
// goes on after it does not begin with the same prefix again.
func afterPrefix(prefix string) string {
	var b strings.Builder
	b.WriteString(prefix)
	for _, r := range []string{"\U0010ffff", "\uffff", "\u07ff", "\x7f"} {
		for b.Len()+len(r) <= core.MaxKey {
			b.WriteString(r)
		}
	}
	return b.String()
}
