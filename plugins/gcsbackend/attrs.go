package gcsbackend

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/storage"

	"github.com/shoalstore/shoal/core"
)

// What Google has no place for is kept in the object's metadata under these
// names: all tags, in the form of a query, and a header each.
const (
	reserved     = "shoal-"
	tagsKey      = "shoal-tags"
	headerPrefix = "shoal-header-"
)

const classHeader = "X-Amz-Storage-Class"

// version is the name of a state of an object.
func version(generation, metageneration int64) core.RemoteVersion {
	v := strconv.FormatInt(generation, 10)
	if metageneration > 1 {
		v += "." + strconv.FormatInt(metageneration, 10)
	}
	return core.RemoteVersion(v)
}

// conditions are those of a write. A version that is none of Google's cannot be
// there: false.
func conditions(c core.RemoteCondition) (storage.Conditions, bool) {
	if c.Absent {
		return storage.Conditions{DoesNotExist: true}, c.Version == ""
	}
	return atVersion(c.Version)
}

// atVersion asks for a state of an object; for the zero one nothing is asked.
func atVersion(v core.RemoteVersion) (c storage.Conditions, ok bool) {
	if v == "" {
		return c, true
	}
	generation, meta, more := strings.Cut(string(v), ".")
	if !more {
		meta = "1"
	}
	g, err := strconv.ParseInt(generation, 10, 64)
	m, err2 := strconv.ParseInt(meta, 10, 64)
	return storage.Conditions{GenerationMatch: g, MetagenerationMatch: m}, err == nil && err2 == nil && g > 0 && m > 0
}

// etag is what S3 clients are shown.
func etag(md5 []byte, generation int64) string {
	if len(md5) > 0 {
		return hex.EncodeToString(md5)
	}
	return fmt.Sprintf("%032x-1", generation)
}

// listed is an object as a listing has it.
func listed(a *storage.ObjectAttrs) core.RemoteObject {
	return core.RemoteObject{
		Key: a.Name, Size: a.Size, Version: version(a.Generation, a.Metageneration), ETag: etag(a.MD5, a.Generation),
		// The other interface has whole seconds.
		Modified: a.Updated.Truncate(time.Second).UTC(), Checksum: crc32cChecksum(a.CRC32C), MD5: a.MD5,
	}
}

// whole is an object with all that is known of it.
func whole(a *storage.ObjectAttrs) core.RemoteObject {
	o := listed(a)
	h := map[string]string{
		"Content-Type": a.ContentType, "Content-Encoding": a.ContentEncoding, "Content-Language": a.ContentLanguage,
		"Content-Disposition": a.ContentDisposition, "Cache-Control": a.CacheControl, classHeader: a.StorageClass,
	}
	o.Headers, o.Meta, o.Tags = fromGoogle(h, a.Metadata)
	return o
}

// fromGoogle tells headers, metadata and tags apart.
func fromGoogle(h, metadata map[string]string) (headers, meta, tags map[string]string) {
	headers = make(map[string]string)
	for name, v := range h {
		if v != "" && (name != classHeader || v != "STANDARD") {
			headers[name] = v
		}
	}
	for name, v := range metadata {
		name = strings.ToLower(name)
		if name == tagsKey {
			tags = parseTags(v)
		} else if header, ok := strings.CutPrefix(name, headerPrefix); ok {
			headers[http.CanonicalHeaderKey(header)] = plain(v)
		} else {
			if meta == nil {
				meta = make(map[string]string)
			}
			meta[name] = plain(v)
		}
	}
	return headers, meta, tags
}

func parseTags(s string) map[string]string {
	q, err := url.ParseQuery(s)
	if err != nil || len(q) == 0 {
		return nil // somebody else wrote it
	}
	tags := make(map[string]string, len(q))
	for name := range q {
		tags[name] = q.Get(name)
	}
	return tags
}

// toGoogle is what a write sets.
func toGoogle(headers, meta, tags map[string]string) (a storage.ObjectAttrs, err error) {
	bad := func(format string, args ...any) (storage.ObjectAttrs, error) {
		return storage.ObjectAttrs{}, fmt.Errorf("gs: "+format+": %w", append(args, core.ErrInvalid)...)
	}
	a.Metadata = make(map[string]string, len(meta))
	for name, v := range meta {
		if strings.HasPrefix(strings.ToLower(name), reserved) {
			return bad("metadata %q: names that begin with %s have a meaning of their own", name, reserved)
		}
		if !token(name) {
			return bad("metadata %q: want a name of a header", name)
		}
		a.Metadata[strings.ToLower(name)] = encoded(v)
	}
	fields := map[string]*string{
		"Content-Type": &a.ContentType, "Content-Encoding": &a.ContentEncoding, "Content-Language": &a.ContentLanguage,
		"Content-Disposition": &a.ContentDisposition, "Cache-Control": &a.CacheControl,
	}
	for name, v := range headers {
		if strings.ContainsFunc(v, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			return bad("header %s: control characters", name)
		}
		if f, ok := fields[name]; ok {
			*f = v
		} else if name == classHeader {
			if a.StorageClass = storageClass(v); a.StorageClass == "" {
				return bad("storage class %q: there is none like it", v)
			}
		} else {
			a.Metadata[headerPrefix+strings.ToLower(name)] = encoded(v)
		}
	}
	if len(tags) > 0 {
		q := make(url.Values, len(tags))
		for name, v := range tags {
			q.Set(name, v)
		}
		a.Metadata[tagsKey] = q.Encode()
	}
	if len(a.Metadata) == 0 {
		a.Metadata = nil
	}
	return a, nil
}

// Values that would not come through a header as they are, are written as one
// word of RFC 2047, as S3 does.
const wordStart, wordEnd = "=?utf-8?b?", "?="

func encoded(v string) string {
	safe := v != "" && strings.TrimSpace(v) == v && !strings.HasPrefix(v, "=?") &&
		!strings.ContainsFunc(v, func(c rune) bool { return c < ' ' || c >= 0x7f })
	if safe {
		return v
	}
	return wordStart + base64.StdEncoding.EncodeToString([]byte(v)) + wordEnd
}

func plain(v string) string {
	word, ok := strings.CutPrefix(v, wordStart)
	word, ok2 := strings.CutSuffix(word, wordEnd)
	if b, err := base64.StdEncoding.DecodeString(word); ok && ok2 && err == nil {
		return string(b)
	}
	return v
}

// token says whether a name can be that of a header.
func token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return c <= ' ' || c >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, c)
	})
}

// storageClass is Google's name of a storage class, "" if there is none like it.
func storageClass(s string) string {
	switch s {
	case "STANDARD", "REDUCED_REDUNDANCY", "INTELLIGENT_TIERING", "EXPRESS_ONEZONE":
		return "STANDARD"
	case "NEARLINE", "STANDARD_IA", "ONEZONE_IA":
		return "NEARLINE"
	case "COLDLINE", "GLACIER_IR":
		return "COLDLINE"
	case "ARCHIVE", "GLACIER", "DEEP_ARCHIVE":
		return "ARCHIVE"
	}
	return ""
}

// merged is what an object has after a copy: what o says, the rest as before.
func merged(was *storage.ObjectAttrs, o core.RemotePut) (storage.ObjectAttrs, error) {
	old := whole(was)
	headers, meta, tags := old.Headers, old.Meta, old.Tags
	if o.Headers != nil {
		headers = maps.Clone(o.Headers)
	}
	if o.Meta != nil {
		meta = o.Meta
	}
	if o.Tags != nil {
		tags = o.Tags
	}
	return toGoogle(headers, meta, tags)
}
