package s3gateway

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/shoalstore/shoal/core"
)

// source is what a copy is from.
type source struct {
	bucket core.Bucket
	key    string
}

// copySource reads x-amz-copy-source and its conditions. As S3 does, '+' there
// stands for a space (clients escape it).
func (q *request) copySource(ctx context.Context) (s source, c core.Conditions, err error) {
	v := first(q.r.Header, "X-Amz-Copy-Source")
	path, query, hasQuery := strings.Cut(v, "?")
	invalid := func(why string) (source, core.Conditions, error) {
		return s, c, errInvalidArgument("x-amz-copy-source", v, why)
	}
	if hasQuery && query != "versionId=null" {
		return invalid("Invalid version id specified: versions are not kept; every object has the version \"null\".")
	}
	if strings.HasPrefix(path, "arn:") {
		return s, c, errNotImplemented("access points as the source of a copy")
	}
	path, err = url.QueryUnescape(path)
	if err != nil {
		return invalid("Copy Source must mention the source bucket and key: sourcebucket/sourcekey, URL-encoded")
	}
	alias, key, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if alias == "" || key == "" {
		return invalid("Copy Source must mention the source bucket and key: sourcebucket/sourcekey")
	}
	if core.ValidateBucket(alias) != nil {
		return s, c, errInvalidBucketName(alias)
	}
	if err := checkKey(key); err != nil {
		return s, c, err
	}
	s.key = key
	s.bucket, err = q.objects.Bucket(ctx, alias)
	return s, readConditions(q.r.Header, "X-Amz-Copy-Source-"), err
}

// directive reads a header that is COPY or REPLACE.
func (q *request) directive(name string) (replace bool, err error) {
	switch v := first(q.r.Header, name); v {
	case "", "COPY":
		return false, nil
	case "REPLACE":
		return true, nil
	default:
		return false, errInvalidArgument(strings.ToLower(name), v, "Unknown directive; it must be COPY or REPLACE.")
	}
}

// copyObject serves CopyObject.
func (q *request) copyObject(ctx context.Context) error {
	from, conditions, err := q.copySource(ctx)
	if err != nil {
		return err
	}
	o := core.CopyOptions{Source: conditions}
	if o.Replace, err = q.directive("X-Amz-Metadata-Directive"); err != nil {
		return err
	}
	if o.ReplaceTags, err = q.directive("X-Amz-Tagging-Directive"); err != nil {
		return err
	}
	if !o.Replace && from.bucket.ID == q.bucket.ID && from.key == q.key {
		return errInvalidRequest("This copy request is illegal because it is trying to copy an object to itself without changing " +
			"the object's metadata, storage class, website redirect location or encryption attributes.")
	}
	if err := q.describeUpload(&o.Put); err != nil {
		return err
	}
	if o.Put.Conditions, err = q.writeConditions(); err != nil {
		return err
	}
	if name := first(q.r.Header, "X-Amz-Checksum-Algorithm"); name != "" {
		a, err := algorithmNamed(name)
		if err != nil {
			return err
		}
		o.Put.Checksum.Algorithm = a.name
	}
	o.Put.Size = -1
	o.Put.Request, o.Put.Fresh = q.writeID()
	return q.slowly(ctx, func(ctx context.Context) ([]byte, error) {
		info, err := q.objects.Copy(ctx, from.bucket, from.key, q.bucket, q.key, o)
		if err != nil {
			return nil, err
		}
		x := newDocument("CopyObjectResult", true)
		x.time("LastModified", info.Modified)
		x.etag("ETag", info.ETag)
		x.checksum(info.Checksum, true)
		return x.end("CopyObjectResult"), nil
	})
}

// copyPart serves UploadPartCopy.
func (q *request) copyPart(ctx context.Context) error {
	number, err := parsePartNumber(q.query.Get("partNumber"))
	if err != nil {
		return err
	}
	from, conditions, err := q.copySource(ctx)
	if err != nil {
		return err
	}
	o := core.CopyOptions{Source: conditions}
	if v, ok := q.r.Header["X-Amz-Copy-Source-Range"]; ok {
		if o.Range, err = q.copyRange(ctx, from, strings.Join(v, ",")); err != nil {
			return err
		}
	}
	o.Put.Size = -1
	o.Put.Request, o.Put.Fresh = q.writeID()
	upload := q.query.Get("uploadId")
	return q.slowly(ctx, func(ctx context.Context) ([]byte, error) {
		p, err := q.objects.CopyPart(ctx, from.bucket, from.key, q.bucket, q.key, upload, number, o)
		if err != nil {
			return nil, err
		}
		x := newDocument("CopyPartResult", true)
		x.time("LastModified", p.Modified)
		x.etag("ETag", p.ETag)
		x.checksum(p.Checksum, false)
		return x.end("CopyPartResult"), nil
	})
}

// copyRange reads x-amz-copy-source-range: both ends must be there, and lie
// within the source.
func (q *request) copyRange(ctx context.Context, from source, v string) (*core.ByteRange, error) {
	r := parseRange(v)
	if r == nil || r.Start < 0 || r.End < 0 {
		return nil, errInvalidArgument("x-amz-copy-source-range", v,
			"The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy")
	}
	info, err := q.objects.Head(ctx, from.bucket, from.key, core.GetOptions{})
	if err != nil {
		return nil, err
	}
	if r.End >= info.Size {
		return nil, errInvalidArgument("x-amz-copy-source-range", v, "Range specified is not valid for source object of size: "+detail("", info.Size).Value)
	}
	return r, nil
}

// changeTags replaces an object's tags. It is a copy onto itself that keeps
// all else; a concurrent write of the object makes it start anew.
func (q *request) changeTags(ctx context.Context, tags map[string]string) error {
	for range 10 {
		info, err := q.objects.Head(ctx, q.bucket, q.key, core.GetOptions{})
		if err != nil {
			return err
		}
		same := core.Conditions{IfMatch: []string{info.ETag}}
		_, err = q.objects.Copy(ctx, q.bucket, q.key, q.bucket, q.key, core.CopyOptions{
			Source: same, ReplaceTags: true,
			Put: core.PutOptions{Size: -1, Tags: tags, Conditions: same, Request: core.NewRequestID()},
		})
		if !errors.Is(err, core.ErrPrecondition) && !errors.Is(err, core.ErrConflict) {
			return err
		}
	}
	return refuse(http.StatusConflict, "OperationAborted", "A conflicting conditional operation is currently in progress against this resource. Try again.")
}

// putTags serves PutObjectTagging.
func (q *request) putTags(ctx context.Context) error {
	doc, err := q.readDocument(maxSmallDocument)
	if err != nil {
		return err
	}
	tags, err := parseTags(doc)
	if err != nil {
		return err
	}
	if err := q.changeTags(ctx, tags); err != nil {
		return err
	}
	return q.status(http.StatusOK)
}

// deleteTags serves DeleteObjectTagging.
func (q *request) deleteTags(ctx context.Context) error {
	if err := q.changeTags(ctx, nil); err != nil {
		return err
	}
	return q.status(http.StatusNoContent)
}

// getTags serves GetObjectTagging.
func (q *request) getTags(ctx context.Context) error {
	info, err := q.objects.Head(ctx, q.bucket, q.key, core.GetOptions{})
	if err != nil {
		return err
	}
	x := newDocument("Tagging", true)
	x.open("TagSet")
	for _, name := range sortedNames(info.Tags) {
		x.open("Tag")
		x.text("Key", name)
		x.text("Value", info.Tags[name])
		x.close("Tag")
	}
	x.close("TagSet")
	return q.writeXML(http.StatusOK, x.end("Tagging"))
}
