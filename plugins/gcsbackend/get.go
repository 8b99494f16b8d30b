package gcsbackend

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"cloud.google.com/go/storage"
	"google.golang.org/api/googleapi"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/remotehttp"
)

// Head implements [core.Backend].
func (b *Backend) Head(ctx context.Context, bucket, key string) (core.RemoteObject, error) {
	if err := readable(bucket, key); err != nil {
		return core.RemoteObject{}, err
	}
	q := request{what: "head " + bucket + "/" + key, missing: core.ErrNotFound}
	a, err := b.client.Bucket(bucket).Object(key).Attrs(ctx)
	if err != nil {
		return core.RemoteObject{}, b.objectFailed(ctx, q, bucket, err)
	}
	return q.described(key, a)
}

// described is what the server says of an object, if it is of this one.
func (q request) described(key string, a *storage.ObjectAttrs) (core.RemoteObject, error) {
	if a.Name != key || a.Generation <= 0 {
		return core.RemoteObject{}, q.failed(fmt.Errorf("the answer is about %.100q, generation %d", a.Name, a.Generation))
	}
	return whole(a), nil
}

// Get implements [core.Backend]. It speaks the XML interface: the JSON one does not
// tell metadata with the data.
func (b *Backend) Get(ctx context.Context, bucket, key string, o core.RemoteGet) (core.RemoteObject, io.ReadCloser, error) {
	if err := readable(bucket, key); err != nil {
		return core.RemoteObject{}, nil, err
	}
	q := request{what: "get " + bucket + "/" + key, missing: core.ErrNotFound}
	at, ok := atVersion(o.Version)
	if !ok {
		return core.RemoteObject{}, nil, fmt.Errorf("gs: get %s/%s: there is no version %q: %w", bucket, key, o.Version, core.ErrPrecondition)
	}
	if o.Offset < 0 || o.Length < -1 || o.Length == 0 {
		return core.RemoteObject{}, nil, fmt.Errorf("gs: get %s/%s: %d bytes at %d: %w", bucket, key, o.Length, o.Offset, core.ErrInvalid)
	}
	u := b.base
	u.Path, u.RawPath = "/"+bucket+"/"+key, "/"+url.PathEscape(bucket)+"/"+url.PathEscape(key)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return core.RemoteObject{}, nil, fmt.Errorf("gs: get %s/%s: %w: %w", bucket, key, core.ErrInvalid, err)
	}
	// Without this what is stored compressed comes decompressed, and whole.
	req.Header.Set("Accept-Encoding", "gzip")
	if o.Offset > 0 || o.Length > 0 {
		req.Header.Set("Range", rangeOf(o))
	}
	if at.GenerationMatch != 0 {
		req.Header.Set("X-Goog-If-Generation-Match", strconv.FormatInt(at.GenerationMatch, 10))
		req.Header.Set("X-Goog-If-Metageneration-Match", strconv.FormatInt(at.MetagenerationMatch, 10))
	}
	res, err := b.http.Do(req)
	if err != nil {
		return core.RemoteObject{}, nil, q.failed(err)
	}
	object, body, err := b.answer(ctx, q, bucket, key, o, res)
	if err != nil {
		_ = res.Body.Close()
		return core.RemoteObject{}, nil, err
	}
	return object, body, nil
}

func rangeOf(o core.RemoteGet) string {
	r := "bytes=" + strconv.FormatInt(o.Offset, 10) + "-"
	if o.Length > 0 {
		r += strconv.FormatInt(o.Offset+o.Length-1, 10)
	}
	return r
}

// answer reads the head of an answer to Get.
func (b *Backend) answer(ctx context.Context, q request, bucket, key string, o core.RemoteGet, res *http.Response) (core.RemoteObject, io.ReadCloser, error) {
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusPartialContent {
		return core.RemoteObject{}, nil, b.objectFailed(ctx, q, bucket, refused(res))
	}
	object, err := headers(key, res.Header)
	if err != nil {
		return core.RemoteObject{}, nil, q.failed(err)
	}
	if o.Version != "" && object.Version != o.Version {
		return core.RemoteObject{}, nil, fmt.Errorf("gs: %s: version %s is there, not %s: %w", q.what, object.Version, o.Version, core.ErrPrecondition)
	}
	ranged := o.Offset > 0 || o.Length > 0
	run, err := remotehttp.ParseContent(res.StatusCode, res.ContentLength, res.Header.Get("Content-Range"))
	switch {
	case err != nil:
		return core.RemoteObject{}, nil, q.failed(fmt.Errorf("the answer %w", err))
	case ranged && res.StatusCode == http.StatusOK && run.Total == 0:
		return core.RemoteObject{}, nil, fmt.Errorf("gs: %s: the object is empty: %w", q.what, core.ErrRange)
	case run.Total < 0, ranged && !run.Is(o.Offset, o.Length), !ranged && run.Length != run.Total:
		return core.RemoteObject{}, nil, q.failed(fmt.Errorf("the answer has %d bytes at %d of %d, which were not asked for", run.Length, run.Offset, run.Total))
	}
	object.Size = run.Total
	return object, remotehttp.ExactBody(res.Body, run.Length), nil
}

// refused is an answer that is none, with what it says.
func refused(res *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(res.Body, 4096)) // whatever there is of it
	return &googleapi.Error{Code: res.StatusCode, Header: res.Header, Body: string(text)}
}

// headers reads what those of an answer say of the object.
func headers(key string, h http.Header) (o core.RemoteObject, err error) {
	o.Key = key
	generation, err := strconv.ParseInt(h.Get("X-Goog-Generation"), 10, 64)
	if err != nil {
		return o, errors.New("the answer names no generation")
	}
	// Emulators leave the metageneration out.
	metageneration, err := strconv.ParseInt(h.Get("X-Goog-Metageneration"), 10, 64)
	if err != nil {
		metageneration = 1
	}
	o.Version = version(generation, metageneration)
	if o.Modified, err = http.ParseTime(h.Get("Last-Modified")); err != nil {
		return o, errors.New("the answer says no time")
	}
	for _, line := range h.Values("X-Goog-Hash") {
		for part := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
			sum, err := base64.StdEncoding.DecodeString(value)
			switch {
			case err != nil:
			case name == "md5" && len(sum) == 16:
				o.MD5 = sum
			case name == "crc32c" && len(sum) == 4:
				o.Checksum = crc32cChecksum(binary.BigEndian.Uint32(sum))
			}
		}
	}
	o.ETag = etag(o.MD5, generation)
	kept := map[string]string{classHeader: h.Get("X-Goog-Storage-Class")}
	for _, name := range []string{"Content-Type", "Content-Encoding", "Content-Language", "Content-Disposition", "Cache-Control"} {
		kept[name] = h.Get(name)
	}
	switch kept["Cache-Control"] {
	case "private, max-age=0", "public, max-age=3600":
		// What Google says for objects without one (Cloud Storage, "Cache-Control").
		delete(kept, "Cache-Control")
	}
	metadata := map[string]string{}
	for name, v := range h {
		if name, ok := strings.CutPrefix(name, "X-Goog-Meta-"); ok {
			metadata[name] = v[0]
		}
	}
	o.Headers, o.Meta, o.Tags = fromGoogle(kept, metadata)
	return o, nil
}
