package s3backend

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/shoalstore/shoal/core"
)

const (
	metaPrefix   = "X-Amz-Meta-"
	storageClass = "X-Amz-Storage-Class"
	tagCount     = "X-Amz-Tagging-Count"
)

// keptHeaders are the standard headers that S3 keeps with an object.
func keptHeaders() []string {
	return []string{
		"Content-Type", "Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Expires",
		"X-Amz-Website-Redirect-Location",
	}
}

// headers are the answer's own.
func headers(m middleware.Metadata) http.Header {
	if res, ok := awsmiddleware.GetRawResponse(m).(*smithyhttp.Response); ok && res.Response != nil {
		return res.Header
	}
	return http.Header{}
}

// describe reads an object's description from the headers of an answer, all but
// its size.
func describe(bucket, key string, h http.Header) core.RemoteObject {
	etag := unquote(h.Get("Etag"))
	o := core.RemoteObject{Key: key, Version: core.RemoteVersion(etag), ETag: etag}
	if t, err := http.ParseTime(h.Get("Last-Modified")); err == nil {
		o.Modified = t
	}
	for _, name := range append(keptHeaders(), storageClass, tagCount) {
		if v := h.Get(name); v != "" && (name != tagCount || v != "0") {
			set(&o.Headers, name, v)
		}
	}
	for name, v := range h {
		if len(name) > len(metaPrefix) && strings.EqualFold(name[:len(metaPrefix)], metaPrefix) {
			set(&o.Meta, strings.ToLower(name[len(metaPrefix):]), decodeMeta(strings.Join(v, ",")))
		}
	}
	o.Checksum = checksumOf(h)
	o.MD5 = md5Of(bucket, etag, h)
	return o
}

func set(m *map[string]string, name, v string) {
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[name] = v
}

func checksumOf(h http.Header) core.Checksum {
	for _, name := range []string{"CRC64NVME", "CRC32C", "CRC32", "SHA256", "SHA1"} {
		if v := h.Get("X-Amz-Checksum-" + name); v != "" {
			composite := strings.EqualFold(h.Get("X-Amz-Checksum-Type"), string(types.ChecksumTypeComposite)) || strings.Contains(v, "-")
			return core.Checksum{Algorithm: name, Value: v, Composite: composite}
		}
	}
	return core.Checksum{}
}

// md5Of is the MD5 that an ETag is, where it is one: not of uploads in parts, of
// what is encrypted with keys of one's own, and of directory buckets.
func md5Of(bucket, etag string, h http.Header) []byte {
	const hexMD5 = 32
	if len(etag) != hexMD5 || strings.HasSuffix(bucket, "--x-s3") || h.Get("X-Amz-Server-Side-Encryption-Customer-Algorithm") != "" ||
		strings.HasPrefix(h.Get("X-Amz-Server-Side-Encryption"), "aws:kms") {
		return nil
	}
	sum, err := hex.DecodeString(etag)
	if err != nil {
		return nil
	}
	return sum
}

// attributes are an object's headers, metadata and tags as requests have them.
type attributes struct {
	headers map[string]string
	meta    map[string]string
	tags    *string
	class   types.StorageClass
}

func attributesOf(o core.RemotePut) (a attributes, err error) {
	a.headers = map[string]string{}
	for name, v := range o.Headers {
		if !fieldValue(v) {
			return a, fmt.Errorf("header %s: %q cannot be sent: %w", name, v, core.ErrInvalid)
		}
		if name == storageClass {
			a.class = types.StorageClass(v)
			continue
		}
		for _, kept := range keptHeaders() {
			if name == kept {
				a.headers[name] = v
			}
		}
	}
	for name, v := range o.Meta {
		if !token(name) {
			return a, fmt.Errorf("metadata: the name %q cannot be sent: %w", name, core.ErrInvalid)
		}
		set(&a.meta, name, encodeMeta(v))
	}
	if len(o.Tags) > 0 {
		q := url.Values{}
		for name, v := range o.Tags {
			q.Set(name, v)
		}
		s := q.Encode()
		a.tags = &s
	}
	return a, nil
}

// send sets the headers on a request.
func (a attributes) send(o *s3.Options) {
	for name, v := range a.headers {
		o.APIOptions = append(o.APIOptions, smithyhttp.SetHeaderValue(name, v))
	}
}

// fieldValue says whether v can be sent in a header as it is.
func fieldValue(v string) bool {
	for _, c := range []byte(v) {
		if c < ' ' || c == 0x7f {
			return false
		}
	}
	return v != "" && strings.TrimSpace(v) == v
}

// token says whether name can be part of a header's name, in lower case.
func token(name string) bool {
	for _, c := range []byte(name) {
		if c >= 'A' && c <= 'Z' || c <= ' ' || c >= 0x7f || strings.IndexByte("()<>@,;:\\\"/[]?={}", c) >= 0 {
			return false
		}
	}
	return name != ""
}

const encodedUTF8 = "=?UTF-8?B?"

// encodeMeta writes a value of metadata. S3 answers with what is not ASCII as
// encoded words (RFC 2047), so it is sent in this form, and so is what a header cannot
// hold otherwise.
func encodeMeta(v string) string {
	plain := fieldValue(v) && !strings.Contains(v, "=?")
	for _, c := range []byte(v) {
		plain = plain && c < 0x80
	}
	if plain {
		return v
	}
	return encodedUTF8 + base64.StdEncoding.EncodeToString([]byte(v)) + "?="
}

// decodeMeta undoes encodeMeta and what S3 does by itself.
func decodeMeta(v string) string {
	if rest, ok := strings.CutPrefix(v, encodedUTF8); ok {
		if b, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(rest, "?=")); err == nil {
			return string(b)
		}
	}
	if s, err := new(mime.WordDecoder).DecodeHeader(v); err == nil {
		return s
	}
	return v
}

// Tags implements [core.RemoteTagger].
func (b *Backend) Tags(ctx context.Context, bucket, key string) (map[string]string, error) {
	if err := core.ValidateKey(key); err != nil {
		return nil, err
	}
	c := &call{b: b, op: "tags of", bucket: bucket, key: key}
	out, err := b.client.GetObjectTagging(c.trace(ctx), &s3.GetObjectTaggingInput{Bucket: &bucket, Key: &key})
	if err != nil {
		return nil, c.fail(ctx, err)
	}
	var tags map[string]string
	for _, t := range out.TagSet {
		if t.Key != nil && t.Value != nil {
			set(&tags, *t.Key, *t.Value)
		}
	}
	return tags, nil
}
