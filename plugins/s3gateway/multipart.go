package s3gateway

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/shoalstore/shoal/core"
)

func sortedNames(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// uploadChecksum reads which checksum an upload is to have (page
// checking-object-integrity-upload, "Multipart uploads").
func (q *request) uploadChecksum() (c core.Checksum, err error) {
	name, kind := first(q.r.Header, "X-Amz-Checksum-Algorithm"), first(q.r.Header, "X-Amz-Checksum-Type")
	if name == "" {
		if kind != "" {
			return c, errInvalidRequest("The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.")
		}
		return c, nil
	}
	a, err := algorithmNamed(name)
	if err != nil {
		return c, err
	}
	c.Algorithm = a.name
	wrong := func() error {
		return errInvalidRequest("The " + kind + " checksum type cannot be used with the " + a.name + " checksum algorithm.")
	}
	switch kind {
	case "":
		c.Composite = a.name != "CRC64NVME"
	case "COMPOSITE":
		if c.Composite = true; a.name == "CRC64NVME" {
			return c, wrong()
		}
	case "FULL_OBJECT":
		if a.name == "SHA1" || a.name == "SHA256" {
			return c, wrong()
		}
	default:
		return c, errInvalidRequest("Value for x-amz-checksum-type header is invalid.")
	}
	return c, nil
}

// createUpload serves CreateMultipartUpload.
func (q *request) createUpload(ctx context.Context) error {
	o := core.PutOptions{Size: -1, Request: q.id}
	if err := q.describeUpload(&o); err != nil {
		return err
	}
	var err error
	if o.Checksum, err = q.uploadChecksum(); err != nil {
		return err
	}
	u, err := q.objects.CreateUpload(ctx, q.bucket, q.key, o)
	if err != nil {
		return err
	}
	if o.Checksum.Algorithm != "" {
		q.set("x-amz-checksum-algorithm", o.Checksum.Algorithm)
		q.set("x-amz-checksum-type", checksumType(o.Checksum))
	}
	x := newDocument("InitiateMultipartUploadResult", true)
	x.text("Bucket", q.alias)
	x.text("Key", q.key)
	x.text("UploadId", u.ID)
	return q.writeXML(http.StatusOK, x.end("InitiateMultipartUploadResult"))
}

// putPart serves UploadPart.
func (q *request) putPart(ctx context.Context) error {
	number, err := parsePartNumber(q.query.Get("partNumber"))
	if err != nil {
		return err
	}
	var o core.PutOptions
	if err := q.openBody(&o); err != nil {
		return err
	}
	p, err := q.objects.PutPart(ctx, q.bucket, q.key, q.query.Get("uploadId"), number, q.body, o)
	if err != nil {
		return err
	}
	q.set("ETag", `"`+p.ETag+`"`)
	for _, a := range checksums() {
		if a.name == p.Checksum.Algorithm && p.Checksum.Value != "" {
			q.set(a.lower, p.Checksum.Value)
		}
	}
	return q.status(http.StatusOK)
}

// completeUpload serves CompleteMultipartUpload.
func (q *request) completeUpload(ctx context.Context) error {
	o, parts, err := q.readComplete()
	if err != nil {
		return err
	}
	return q.slowly(ctx, func(ctx context.Context) ([]byte, error) {
		info, err := q.objects.CompleteUpload(ctx, q.bucket, q.key, q.query.Get("uploadId"), parts, o)
		if err != nil {
			return nil, q.completeError(err, o)
		}
		x := newDocument("CompleteMultipartUploadResult", true)
		x.text("Location", (&url.URL{Scheme: scheme(q.r), Host: q.r.Host, Path: "/" + q.alias + "/" + q.key}).String())
		x.text("Bucket", q.alias)
		x.text("Key", q.key)
		x.etag("ETag", info.ETag)
		x.checksum(info.Checksum, true)
		return x.end("CompleteMultipartUploadResult"), nil
	})
}

func scheme(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// completeError tells the reasons for ErrInvalid apart: everything else about
// the list of parts was checked before.
func (q *request) completeError(err error, o core.PutOptions) error {
	if errors.Is(err, core.ErrInvalid) && o.Size >= 0 {
		return errInvalidRequest("The provided 'x-amz-mp-object-size' header value does not match what was computed.")
	}
	return err
}

// readComplete reads the list of parts and what is asked of the whole. The
// checksum headers are the object's here, not the document's.
func (q *request) readComplete() (o core.PutOptions, parts []core.CompletePart, err error) {
	o.Size, o.Request = -1, q.id
	if o.Conditions, err = q.writeConditions(); err != nil {
		return o, nil, err
	}
	if o.Checksum, _, err = declared(q.r.Header); err != nil {
		return o, nil, err
	}
	switch kind := first(q.r.Header, "X-Amz-Checksum-Type"); kind {
	case "":
	case "COMPOSITE", "FULL_OBJECT":
		o.Checksum.Composite = kind == "COMPOSITE"
	default:
		return o, nil, errInvalidRequest("Value for x-amz-checksum-type header is invalid.")
	}
	if v := first(q.r.Header, "X-Amz-Mp-Object-Size"); v != "" {
		if o.Size, err = strconv.ParseInt(v, 10, 64); err != nil || o.Size < 0 {
			return o, nil, errInvalidRequest("Value for x-amz-mp-object-size header is invalid.")
		}
	}
	body, size, err := q.auth.Body(q.r)
	if err != nil {
		return o, nil, err
	}
	q.body = body
	sum, err := contentMD5(q.r.Header)
	if err != nil {
		return o, nil, err
	}
	doc, err := q.readBody(size, maxCompleteDocument)
	if err == nil {
		err = verifyDocument(doc, core.PutOptions{MD5: sum})
	}
	if err == nil {
		parts, err = parseComplete(doc)
	}
	return o, parts, err
}

// abortUpload serves AbortMultipartUpload.
func (q *request) abortUpload(ctx context.Context) error {
	if err := q.objects.AbortUpload(ctx, q.bucket, q.key, q.query.Get("uploadId")); err != nil {
		return err
	}
	return q.status(http.StatusNoContent)
}

// listParts serves ListParts.
func (q *request) listParts(ctx context.Context) error {
	limit, err := q.limit("max-parts", maxPage, maxPage)
	if err != nil {
		return err
	}
	after, err := q.limit("part-number-marker", 0, core.MaxParts)
	if err != nil {
		return err
	}
	// A page of nothing still says whether the upload exists.
	u, parts, more, err := q.objects.Parts(ctx, q.bucket, q.key, q.query.Get("uploadId"), after, max(limit, 1))
	if err != nil {
		return err
	}
	if limit == 0 {
		parts, more = nil, false
	}
	x := newDocument("ListPartsResult", true)
	x.text("Bucket", q.alias)
	x.text("Key", q.key)
	x.text("UploadId", u.ID)
	x.owner("Initiator")
	x.owner("Owner")
	x.text("StorageClass", "STANDARD")
	x.number("PartNumberMarker", int64(after))
	if more {
		x.number("NextPartNumberMarker", int64(parts[len(parts)-1].Number))
	}
	x.number("MaxParts", int64(limit))
	x.flag("IsTruncated", more)
	x.uploadChecksum(u.Record.Checksum)
	for _, p := range parts {
		x.open("Part")
		x.number("PartNumber", int64(p.Number))
		x.time("LastModified", p.Modified)
		x.etag("ETag", p.ETag)
		x.number("Size", p.Size)
		x.checksum(p.Checksum, false)
		x.close("Part")
	}
	return q.writeXML(http.StatusOK, x.end("ListPartsResult"))
}
