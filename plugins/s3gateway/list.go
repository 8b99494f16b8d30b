package s3gateway

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/shoalstore/shoal/core"
)

// afterAll is above every continuation of a key: keys are UTF-8, which has no
// byte 0xff.
const afterAll = "\xff"

// maxPage is the longest page of a listing.
const maxPage = 1000

// listing is what both versions of ListObjects share.
type listing struct {
	options core.ListOptions
	limit   int // max-keys
	url     bool
	page    core.Listing
}

// readListing reads the common parameters.
func (q *request) readListing() (l listing, err error) {
	l.options.Prefix, l.options.Delimiter = q.query.Get("prefix"), q.query.Get("delimiter")
	if l.limit, err = q.limit("max-keys", maxPage, maxPage); err != nil {
		return l, err
	}
	l.url, err = q.encodesURL()
	return l, err
}

func (q *request) encodesURL() (bool, error) {
	switch v := q.query.Get("encoding-type"); v {
	case "":
		return false, nil
	case "url":
		return true, nil
	default:
		return false, errInvalidArgument("encoding-type", v, "Invalid Encoding Method specified in Request")
	}
}

// fill asks the object layer until the page is full or the listing ends. A
// layer may return less than it was asked for, but not less than something.
func (q *request) fill(ctx context.Context, l *listing) error {
	o := l.options
	for o.Max = l.limit; o.Max > 0; {
		page, err := q.objects.List(ctx, q.bucket, o)
		if err != nil {
			return err
		}
		if l.page.Objects == nil {
			l.page.Objects = page.Objects
		} else {
			l.page.Objects = append(l.page.Objects, page.Objects...)
		}
		l.page.Prefixes = append(l.page.Prefixes, page.Prefixes...)
		l.page.More, l.page.Next = page.More, page.Next
		if !page.More {
			break
		}
		o.After = page.Next
		o.Max -= len(page.Objects) + len(page.Prefixes)
	}
	return nil
}

// last is the last key or common prefix of the page in their one order.
func (l *listing) last() (last string) {
	if n := len(l.page.Objects); n > 0 {
		last = l.page.Objects[n-1].Key
	}
	if n := len(l.page.Prefixes); n > 0 {
		last = max(last, l.page.Prefixes[n-1])
	}
	return last
}

// afterMarker is where a listing goes on behind a marker. A marker that is
// itself a common prefix of the listing stands for all keys of its group: it
// is what the page before ended with.
func afterMarker(o core.ListOptions, marker string) string {
	rest, ok := strings.CutPrefix(marker, o.Prefix)
	if ok && o.Delimiter != "" && strings.Index(rest, o.Delimiter) == len(rest)-len(o.Delimiter) && len(rest) >= len(o.Delimiter) {
		return marker + afterAll
	}
	return marker
}

// listObjects serves ListObjects and ListObjectsV2.
func (q *request) listObjects(ctx context.Context) error {
	switch v, ok := q.query.Lookup("list-type"); {
	case !ok:
		return q.listV1(ctx)
	case v == "2":
		return q.listV2(ctx)
	default:
		return errInvalidArgument("list-type", v, "Invalid List Type specified in Request")
	}
}

func (q *request) listV1(ctx context.Context) error {
	l, err := q.readListing()
	if err != nil {
		return err
	}
	marker := q.query.Get("marker")
	l.options.After = afterMarker(l.options, marker)
	if err := q.fill(ctx, &l); err != nil {
		return err
	}
	x := q.beginListing(&l)
	x.name("Marker", marker)
	if l.page.More && l.options.Delimiter != "" {
		x.name("NextMarker", l.last())
	}
	q.writeEntries(x, &l, true)
	return q.writeXML(http.StatusOK, x.end("ListBucketResult"))
}

func (q *request) listV2(ctx context.Context) error {
	l, err := q.readListing()
	if err != nil {
		return err
	}
	startAfter := q.query.Get("start-after")
	if l.options.After, err = q.token("continuation-token"); err != nil {
		return err
	}
	l.options.After = max(l.options.After, startAfter)
	if err := q.fill(ctx, &l); err != nil {
		return err
	}
	x := q.beginListing(&l)
	x.number("KeyCount", int64(len(l.page.Objects)+len(l.page.Prefixes)))
	if v, ok := q.query.Lookup("continuation-token"); ok {
		x.text("ContinuationToken", v)
	}
	if l.page.More {
		x.text("NextContinuationToken", makeToken(l.page.Next))
	}
	if startAfter != "" {
		x.name("StartAfter", startAfter)
	}
	q.writeEntries(x, &l, q.query.Get("fetch-owner") == "true")
	return q.writeXML(http.StatusOK, x.end("ListBucketResult"))
}

func (q *request) beginListing(l *listing) *document {
	x := newDocument("ListBucketResult", true)
	x.b = slices.Grow(x.b, 320*len(l.page.Objects)+100*len(l.page.Prefixes))
	x.url = l.url
	x.text("Name", q.alias)
	x.name("Prefix", l.options.Prefix)
	x.number("MaxKeys", int64(l.limit))
	if l.options.Delimiter != "" {
		x.name("Delimiter", l.options.Delimiter)
	}
	if l.url {
		x.text("EncodingType", "url")
	}
	x.flag("IsTruncated", l.page.More)
	return x
}

func (q *request) writeEntries(x *document, l *listing, owner bool) {
	for i := range l.page.Objects {
		o := &l.page.Objects[i]
		x.open("Contents")
		x.name("Key", o.Key)
		x.time("LastModified", o.Modified)
		x.etag("ETag", o.ETag)
		if o.Checksum.Value != "" {
			x.text("ChecksumAlgorithm", o.Checksum.Algorithm)
			x.text("ChecksumType", checksumType(o.Checksum))
		}
		x.number("Size", o.Size)
		if owner {
			x.owner("Owner")
		}
		x.text("StorageClass", "STANDARD")
		x.close("Contents")
	}
	x.prefixes(l.page.Prefixes)
}

func (x *document) prefixes(list []string) {
	for _, p := range list {
		x.open("CommonPrefixes")
		x.name("Prefix", p)
		x.close("CommonPrefixes")
	}
}

// uploadsPage is a page of ListMultipartUploads.
type uploadsPage struct {
	uploads  []core.Upload
	prefixes []string
	more     bool
	// nextKey and nextID are the last entry's; nextID is "" for a prefix.
	nextKey, nextID string
}

// fillUploads collects a page. The object layer does not group uploads, so
// groups are made here: behind the first upload of a group the listing goes on
// behind the group.
func (q *request) fillUploads(ctx context.Context, prefix, delimiter, afterKey, afterID string, limit int) (p uploadsPage, err error) {
	for n := 0; n < limit; {
		page, more, err := q.objects.Uploads(ctx, q.bucket, prefix, afterKey, afterID, limit-n)
		if err != nil {
			return p, err
		}
		p.more = more
		for i, u := range page {
			n++
			rest := strings.TrimPrefix(u.Key, prefix)
			j := strings.Index(rest, delimiter)
			if delimiter == "" || j < 0 {
				p.uploads = append(p.uploads, u)
				p.nextKey, p.nextID = u.Key, u.ID
				afterKey, afterID = u.Key, u.ID
				continue
			}
			group := prefix + rest[:j+len(delimiter)]
			p.prefixes = append(p.prefixes, group)
			p.nextKey, p.nextID = group, ""
			afterKey, afterID = group+afterAll, ""
			p.more = more || i+1 < len(page)
			break
		}
		if !p.more || len(page) == 0 {
			return p, nil
		}
	}
	if p.more && limit > 0 {
		// The rest of the last group is no reason to go on.
		page, _, err := q.objects.Uploads(ctx, q.bucket, prefix, afterKey, afterID, 1)
		if err != nil {
			return p, err
		}
		p.more = len(page) > 0
	}
	return p, nil
}

// listUploads serves ListMultipartUploads.
func (q *request) listUploads(ctx context.Context) error {
	limit, err := q.limit("max-uploads", maxPage, maxPage)
	if err != nil {
		return err
	}
	url, err := q.encodesURL()
	if err != nil {
		return err
	}
	prefix, delimiter := q.query.Get("prefix"), q.query.Get("delimiter")
	keyMarker, idMarker := q.query.Get("key-marker"), q.query.Get("upload-id-marker")
	afterKey, afterID := keyMarker, idMarker
	if idMarker == "" && keyMarker != "" {
		// Without an id the marker stands for all uploads of its key, or
		// group.
		afterKey = afterMarker(core.ListOptions{Prefix: prefix, Delimiter: delimiter}, keyMarker)
		afterID = afterAll
	}
	p, err := q.fillUploads(ctx, prefix, delimiter, afterKey, afterID, limit)
	if err != nil {
		return err
	}
	x := newDocument("ListMultipartUploadsResult", true)
	x.url = url
	x.text("Bucket", q.alias)
	x.name("KeyMarker", keyMarker)
	x.text("UploadIdMarker", idMarker)
	if p.more {
		x.name("NextKeyMarker", p.nextKey)
		x.text("NextUploadIdMarker", p.nextID)
	}
	x.name("Prefix", prefix)
	if delimiter != "" {
		x.name("Delimiter", delimiter)
	}
	if url {
		x.text("EncodingType", "url")
	}
	x.number("MaxUploads", int64(limit))
	x.flag("IsTruncated", p.more)
	for i := range p.uploads {
		u := &p.uploads[i]
		x.open("Upload")
		x.name("Key", u.Key)
		x.text("UploadId", u.ID)
		x.owner("Initiator")
		x.owner("Owner")
		x.text("StorageClass", "STANDARD")
		x.time("Initiated", u.Initiated)
		x.uploadChecksum(u.Record.Checksum)
		x.close("Upload")
	}
	x.prefixes(p.prefixes)
	return q.writeXML(http.StatusOK, x.end("ListMultipartUploadsResult"))
}

// uploadChecksum writes which checksum an upload will have.
func (x *document) uploadChecksum(c core.Checksum) {
	if c.Algorithm != "" {
		x.text("ChecksumAlgorithm", c.Algorithm)
		x.text("ChecksumType", checksumType(c))
	}
}
