package httpbackend

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/remotehttp"
)

// Head implements [core.Backend]. Where an origin has no HEAD, or does not say how
// long the object is, the first byte is asked for.
func (b *Backend) Head(ctx context.Context, bucket, key string) (core.RemoteObject, error) {
	if err := core.ValidateKey(key); err != nil {
		return core.RemoteObject{}, err
	}
	res, err := b.ask(ctx, http.MethodHead, bucket, key, nil)
	if err != nil {
		return core.RemoteObject{}, err
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode == http.StatusOK && res.ContentLength >= 0:
		return b.described("head", bucket, key, res, res.ContentLength)
	case res.StatusCode == http.StatusOK, res.StatusCode == http.StatusMethodNotAllowed, res.StatusCode == http.StatusNotImplemented:
		o, body, err := b.Get(ctx, bucket, key, core.RemoteGet{Length: 1})
		if errors.Is(err, core.ErrRange) {
			o, body, err = b.Get(ctx, bucket, key, core.RemoteGet{Length: -1}) // it is empty
		}
		if err != nil {
			return core.RemoteObject{}, err
		}
		return o, body.Close()
	}
	return core.RemoteObject{}, b.refused("head", bucket, key, res)
}

// Get implements [core.Backend].
func (b *Backend) Get(ctx context.Context, bucket, key string, o core.RemoteGet) (core.RemoteObject, io.ReadCloser, error) {
	if err := core.ValidateKey(key); err != nil {
		return core.RemoteObject{}, nil, err
	}
	if o.Offset < 0 || o.Length < -1 || o.Length == 0 {
		return core.RemoteObject{}, nil, fmt.Errorf("get %s://%s/%s: %d bytes at %d: %w", b.scheme, bucket, key, o.Length, o.Offset, core.ErrInvalid)
	}
	h := http.Header{}
	condition(h, o.Version)
	if ranged(o) {
		h.Set("Range", rangeOf(o))
	}
	res, err := b.ask(ctx, http.MethodGet, bucket, key, h)
	if err != nil {
		return core.RemoteObject{}, nil, err
	}
	object, body, err := b.answer(bucket, key, o, res)
	if err != nil {
		_ = res.Body.Close()
		return core.RemoteObject{}, nil, err
	}
	return object, body, nil
}

func ranged(o core.RemoteGet) bool { return o.Offset > 0 || o.Length > 0 }

func rangeOf(o core.RemoteGet) string {
	r := "bytes=" + strconv.FormatInt(o.Offset, 10) + "-"
	if o.Length > 0 {
		r += strconv.FormatInt(o.Offset+o.Length-1, 10)
	}
	return r
}

// answer reads the head of an answer to Get.
func (b *Backend) answer(bucket, key string, o core.RemoteGet, res *http.Response) (core.RemoteObject, io.ReadCloser, error) {
	none := core.RemoteObject{}
	what := fmt.Sprintf("get %s://%s/%s", b.scheme, bucket, key)
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusPartialContent {
		return none, nil, b.refused("get", bucket, key, res)
	}
	if res.StatusCode == http.StatusOK && res.ContentLength < 0 {
		return none, nil, unknownLength(what)
	}
	run, err := remotehttp.ParseContent(res.StatusCode, res.ContentLength, res.Header.Get("Content-Range"))
	if err != nil {
		return none, nil, fmt.Errorf("%s: %w: the answer %w", what, core.ErrUnavailable, err)
	}
	if run.Total < 0 {
		return none, nil, fmt.Errorf("%s: %w: the answer does not say how long the object is", what, core.ErrUnavailable)
	}
	object, err := b.described("get", bucket, key, res, run.Total)
	if err != nil {
		return none, nil, err
	}
	if o.Version != "" && object.Version != o.Version {
		return none, nil, fmt.Errorf("%s: version %s is there, not %s: %w", what, object.Version, o.Version, core.ErrPrecondition)
	}
	switch {
	case res.StatusCode == http.StatusOK && ranged(o):
		return b.skip(what, object, o, res)
	case res.StatusCode == http.StatusPartialContent && (!ranged(o) || !run.Is(o.Offset, o.Length)):
		return none, nil, fmt.Errorf("%s: %w: the answer has %d bytes at %d of %d, which were not asked for", what, core.ErrUnavailable, run.Length, run.Offset, run.Total)
	}
	return object, remotehttp.ExactBody(res.Body, run.Length), nil
}

// skip makes a range of an answer that has everything. What is before it is read
// with the first byte of the range, so that Get itself does not take long.
func (b *Backend) skip(what string, object core.RemoteObject, o core.RemoteGet, res *http.Response) (core.RemoteObject, io.ReadCloser, error) {
	left := object.Size - o.Offset
	if left <= 0 {
		return core.RemoteObject{}, nil, fmt.Errorf("%s: %d bytes: %w", what, object.Size, core.ErrRange)
	}
	if o.Length > 0 {
		left = min(left, o.Length)
	}
	object.NoRanges = true
	before := remotehttp.ExactBody(res.Body, o.Offset)
	return object, &skipping{before: before, ReadCloser: remotehttp.ExactBody(res.Body, left)}, nil
}

// skipping throws away what is before.
type skipping struct {
	io.ReadCloser
	before io.Reader // nil when it was read
}

func (s *skipping) Read(p []byte) (int, error) {
	if s.before != nil {
		if _, err := io.Copy(io.Discard, s.before); err != nil {
			return 0, err
		}
		s.before = nil
	}
	return s.ReadCloser.Read(p)
}

func unknownLength(what string) error {
	return fmt.Errorf("%s: the origin does not say how long this is; such answers cannot be kept: %w", what, errors.ErrUnsupported)
}

// described is what an answer says of the object of that size.
func (b *Backend) described(verb, bucket, key string, res *http.Response, size int64) (core.RemoteObject, error) {
	what := fmt.Sprintf("%s %s://%s/%s", verb, b.scheme, bucket, key)
	if size < 0 {
		return core.RemoteObject{}, unknownLength(what)
	}
	o := core.RemoteObject{Key: key, Size: size, Modified: time.Unix(0, 0).UTC(), Headers: map[string]string{}}
	modified, err := http.ParseTime(res.Header.Get("Last-Modified"))
	if err == nil {
		o.Modified = modified.UTC()
	}
	if o.Version = version(res.Header.Get("ETag"), modified, size); o.Version == "" {
		return core.RemoteObject{}, fmt.Errorf("%s: the origin tells neither ETag nor Last-Modified, so that its versions cannot be told apart: %w", what, errors.ErrUnsupported)
	}
	// An ETag of 32 hex digits that is no MD5 would be taken for one.
	sum := sha256.Sum256([]byte(o.Version))
	o.ETag = hex.EncodeToString(sum[:16]) + "-1"
	for _, name := range []string{"Content-Type", "Content-Encoding", "Content-Language", "Content-Disposition", "Cache-Control", "Expires"} {
		if v := res.Header.Get(name); v != "" {
			o.Headers[name] = v
		}
	}
	return o, nil
}

// version names a state; see the package's comment.
func version(etag string, modified time.Time, size int64) core.RemoteVersion {
	if strong(etag) {
		return core.RemoteVersion(etag)
	}
	if !strings.HasPrefix(etag, "W/") {
		etag = "" // none, or one that is not well formed
	}
	if etag == "" && modified.IsZero() {
		return ""
	}
	t := ""
	if !modified.IsZero() {
		t = strconv.FormatInt(modified.Unix(), 10)
	}
	return core.RemoteVersion(t + "+" + strconv.FormatInt(size, 10) + etag)
}

func strong(etag string) bool {
	return len(etag) > 2 && etag[0] == '"' && etag[len(etag)-1] == '"' && !strings.ContainsAny(etag[1:len(etag)-1], "\"\r\n")
}

// condition asks for a version, as far as HTTP can. What comes is compared with it
// in any case.
func condition(h http.Header, v core.RemoteVersion) {
	if strong(string(v)) {
		h.Set("If-Match", string(v))
		return
	}
	seconds, _, _ := strings.Cut(string(v), "+")
	if t, err := strconv.ParseInt(seconds, 10, 64); err == nil {
		h.Set("If-Unmodified-Since", time.Unix(t, 0).UTC().Format(http.TimeFormat))
	}
}
