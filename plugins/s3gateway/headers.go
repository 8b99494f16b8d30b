package s3gateway

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/s3gateway/sigv4"
)

// Limits of S3 (pages UsingMetadata and object-tagging of the user guide).
const (
	maxMeta     = 2 << 10
	maxTags     = 10
	maxTagKey   = 128
	maxTagValue = 256
	maxPut      = 5 << 30
)

// first returns the first value of a header under its canonical name.
func first(h http.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// checkHeaders refuses headers that ask for what is not built, so that nobody
// takes an object for encrypted or locked that is not.
func (q *request) checkHeaders() error {
	for name, values := range q.r.Header {
		if len(name) < 6 || name[:6] != "X-Amz-" || len(values) == 0 {
			continue
		}
		if err := checkHeader(name, values[0]); err != nil {
			return err
		}
	}
	return nil
}

func checkHeader(name, value string) error {
	switch name {
	case "X-Amz-Acl":
		switch value {
		case "private", "bucket-owner-full-control", "bucket-owner-read", "":
			return nil
		}
		return bad("AccessControlListNotSupported", "The bucket does not allow ACLs")
	case "X-Amz-Expected-Bucket-Owner", "X-Amz-Source-Expected-Bucket-Owner":
		if value != ownerID {
			return refuse(http.StatusForbidden, "AccessDenied", "Access Denied: the bucket's owner is \""+ownerID+"\".")
		}
	case "X-Amz-Object-Ownership":
		if value != "BucketOwnerEnforced" {
			return errNotImplemented("the object ownership " + value)
		}
	case "X-Amz-Bucket-Object-Lock-Enabled":
		if !strings.EqualFold(value, "false") {
			return errNotImplemented("Object Lock")
		}
	case "X-Amz-Website-Redirect-Location", "X-Amz-Write-Offset-Bytes", "X-Amz-Rename-Source",
		"X-Amz-If-Match-Last-Modified-Time", "X-Amz-If-Match-Size":
		return errNotImplemented("the header " + strings.ToLower(name))
	}
	return checkHeaderFamily(name)
}

// checkStorageClass refuses the storage class of an object in a bucket of the
// cluster's own. To a remote it goes as it is.
func (q *request) checkStorageClass() error {
	value := first(q.r.Header, "X-Amz-Storage-Class")
	if q.bucket.Name.Remote() {
		return nil
	}
	switch value {
	case "STANDARD", "":
		return nil
	case "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER", "DEEP_ARCHIVE",
		"OUTPOSTS", "GLACIER_IR", "SNOW", "EXPRESS_ONEZONE", "FSX_OPENZFS":
		return errNotImplemented("the storage class " + value + " (a bucket's scheme says how its objects are kept)")
	}
	return bad("InvalidStorageClass", "The storage class you specified is not valid", sigv4.Detail{Name: "StorageClassRequested", Value: value})
}

func checkHeaderFamily(name string) error {
	for _, prefix := range []string{
		"X-Amz-Server-Side-Encryption", "X-Amz-Copy-Source-Server-Side-Encryption", "X-Amz-Object-Lock-", "X-Amz-Grant-",
	} {
		if strings.HasPrefix(name, prefix) {
			return errNotImplemented("the header " + strings.ToLower(name))
		}
	}
	if rest, ok := strings.CutPrefix(name, "X-Amz-Checksum-"); ok {
		switch rest {
		case "Algorithm", "Type", "Mode":
			return nil
		}
		for i := range checksums() {
			if checksums()[i].header == name {
				return nil
			}
		}
		return errNotImplemented("the checksum " + strings.ToLower(rest))
	}
	return nil
}

// describeUpload reads what is kept with an object: headers, metadata, tags.
func (q *request) describeUpload(o *core.PutOptions) error {
	size := 0
	for name, values := range q.r.Header {
		if len(values) == 0 {
			continue
		}
		switch name {
		case "Content-Type", "Cache-Control", "Content-Disposition", "Content-Language", "Expires":
			keep(&o.Headers, name, values[0])
		case "Content-Encoding":
			keep(&o.Headers, name, withoutChunked(strings.Join(values, ",")))
		case "X-Amz-Storage-Class":
			if q.bucket.Name.Remote() {
				keep(&o.Headers, name, values[0])
			}
		case "X-Amz-Tagging":
			tags, err := parseTagging(values[0])
			if err != nil {
				return err
			}
			o.Tags = tags
		default:
			if meta, ok := strings.CutPrefix(name, "X-Amz-Meta-"); ok {
				value := strings.Join(values, ",")
				size += len(meta) + len(value)
				if o.Meta == nil {
					o.Meta = map[string]string{}
				}
				o.Meta[strings.ToLower(meta)] = value
			}
		}
	}
	if size > maxMeta {
		return bad("MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size",
			sigv4.Detail{Name: "Size", Value: strconv.Itoa(size)}, sigv4.Detail{Name: "MaxSizeAllowed", Value: strconv.Itoa(maxMeta)})
	}
	return nil
}

func keep(m *map[string]string, name, value string) {
	if value == "" {
		return
	}
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[name] = value
}

// withoutChunked takes the framing out of Content-Encoding.
func withoutChunked(v string) string {
	if !strings.Contains(v, "aws-chunked") {
		return v
	}
	var left []string
	for e := range strings.SplitSeq(v, ",") {
		if e = strings.TrimSpace(e); e != "" && e != "aws-chunked" {
			left = append(left, e)
		}
	}
	return strings.Join(left, ",")
}

// parseTagging reads the query string of x-amz-tagging.
func parseTagging(v string) (map[string]string, error) {
	q, err := url.ParseQuery(v)
	if err != nil {
		return nil, errInvalidArgument("x-amz-tagging", v, "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.")
	}
	tags := map[string]string{}
	for name, values := range q {
		if len(values) != 1 {
			return nil, errInvalidArgument("x-amz-tagging", v, "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.")
		}
		tags[name] = values[0]
	}
	return tags, checkTags(tags)
}

func checkTags(tags map[string]string) error {
	if len(tags) > maxTags {
		return bad("BadRequest", "Object tags cannot be greater than 10")
	}
	length := func(s string) int { return len(utf16.Encode([]rune(s))) }
	for name, value := range tags {
		switch {
		case name == "" || length(name) > maxTagKey || strings.HasPrefix(strings.ToLower(name), "aws:"):
			return bad("InvalidTag", "The TagKey you have provided is invalid", sigv4.Detail{Name: "TagKey", Value: name})
		case length(value) > maxTagValue:
			return bad("InvalidTag", "The TagValue you have provided is invalid", sigv4.Detail{Name: "TagKey", Value: name}, sigv4.Detail{Name: "TagValue", Value: value})
		}
	}
	return nil
}

// contentMD5 reads Content-MD5; nil if there is none.
func contentMD5(h http.Header) ([]byte, error) {
	v, ok := h["Content-Md5"]
	if !ok {
		return nil, nil
	}
	sum, err := base64.StdEncoding.DecodeString(first(h, "Content-Md5"))
	if err != nil || len(sum) != 16 {
		return nil, bad("InvalidDigest", "The Content-MD5 you specified was invalid.", sigv4.Detail{Name: "Content-MD5", Value: strings.Join(v, ",")})
	}
	return sum, nil
}

// readConditions reads conditional headers, with a prefix for those of a copy's
// source. A date that is none is ignored, as RFC 9110 asks.
func readConditions(h http.Header, prefix string) core.Conditions {
	var c core.Conditions
	if v, ok := h[prefix+"If-Match"]; ok {
		c.IfMatch = parseETags(strings.Join(v, ","))
	}
	if v, ok := h[prefix+"If-None-Match"]; ok {
		c.IfNoneMatch = parseETags(strings.Join(v, ","))
	}
	date := func(name string) (t time.Time) {
		if v, ok := h[name]; ok && len(v) > 0 {
			t, _ = http.ParseTime(v[0])
		}
		return t
	}
	c.IfModifiedSince = date(prefix + "If-Modified-Since")
	c.IfUnmodifiedSince = date(prefix + "If-Unmodified-Since")
	return c
}

// parseETags reads a list of ETags, with or without quotes and weakness.
func parseETags(v string) []string {
	var out []string
	for e := range strings.SplitSeq(v, ",") {
		if e = unquote(strings.TrimPrefix(strings.TrimSpace(e), "W/")); e != "" {
			out = append(out, e)
		}
	}
	if out == nil {
		// A condition on no ETag holds for none.
		out = []string{""}
	}
	return out
}

func unquote(etag string) string {
	etag = strings.TrimSpace(etag)
	if len(etag) >= 2 && etag[0] == '"' && etag[len(etag)-1] == '"' {
		return etag[1 : len(etag)-1]
	}
	return etag
}

// writeConditions reads the conditions of a write. S3 has If-Match, and
// If-None-Match with "*" (page conditional-writes).
func (q *request) writeConditions() (core.Conditions, error) {
	c := readConditions(q.r.Header, "")
	switch {
	case !c.IfModifiedSince.IsZero(), !c.IfUnmodifiedSince.IsZero():
		return c, errNotImplemented("conditions on dates for writes")
	case len(c.IfNoneMatch) > 0 && (len(c.IfNoneMatch) != 1 || c.IfNoneMatch[0] != "*"):
		return c, errNotImplemented("If-None-Match with anything but * for writes")
	}
	return c, nil
}

// parseRange reads a Range header. What is not one range of bytes is ignored,
// as RFC 9110 asks and S3 does: then the whole object is meant (nil).
func parseRange(v string) *core.ByteRange {
	unit, spec, ok := strings.Cut(v, "=")
	if !ok || !strings.EqualFold(strings.TrimSpace(unit), "bytes") || strings.Contains(spec, ",") {
		return nil
	}
	from, to, ok := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok {
		return nil
	}
	start, hasStart, ok1 := parseOffset(from)
	end, hasEnd, ok2 := parseOffset(to)
	switch {
	case !ok1 || !ok2 || !hasStart && !hasEnd:
		return nil
	case !hasStart:
		return &core.ByteRange{Start: -1, End: end}
	case !hasEnd:
		return &core.ByteRange{Start: start, End: -1}
	case end < start:
		return nil
	}
	return &core.ByteRange{Start: start, End: end}
}

// parseOffset reads digits. A number beyond int64 counts as the largest.
func parseOffset(s string) (n int64, given, ok bool) {
	if s == "" {
		return 0, false, true
	}
	const largest = 1<<63 - 1
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, true, false
		}
		if n > (largest-9)/10 {
			n = largest
			continue
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true, true
}
