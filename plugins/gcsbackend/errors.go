package gcsbackend

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"cloud.google.com/go/auth"
	"google.golang.org/api/googleapi"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/remotehttp"
)

// request is what an error needs to know of the request that it is about.
type request struct {
	what  string // "get bucket/key"
	write bool
	// missing is what a 404 says, unless it names the bucket.
	missing error
}

// failed gives an error of the library its meaning in [core.Backend]'s words.
func (q request) failed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("gs: %s: %w", q.what, q.meaning(err))
}

func (q request) meaning(err error) error {
	var answer *googleapi.Error
	var signIn *auth.Error
	switch {
	case errors.As(err, &answer):
		return q.status(answer)
	case errors.As(err, &signIn):
		// The request itself was not sent.
		if r := signIn.Response; r != nil && r.StatusCode >= 400 && r.StatusCode < 500 && r.StatusCode != http.StatusTooManyRequests {
			return fmt.Errorf("sign in: %w: %w", core.ErrPermission, err)
		}
		return fmt.Errorf("sign in: %w: %w", core.ErrUnavailable, err)
	}
	return remotehttp.Failed(err, q.write)
}

// status is for an answer of the server.
func (q request) status(e *googleapi.Error) error {
	limited := slices.ContainsFunc(e.Errors, func(i googleapi.ErrorItem) bool {
		return i.Reason == "rateLimitExceeded" || i.Reason == "userRateLimitExceeded"
	})
	code := e.Code
	switch {
	case code == http.StatusForbidden && limited:
		code = http.StatusTooManyRequests
	case says(e, http.StatusNotFound, "bucket does not exist", "<Code>NoSuchBucket</Code>"):
		return fmt.Errorf("%w: %w", core.ErrNoSuchBucket, short(e))
	case code == http.StatusNotFound && !authentic(e):
		return remotehttp.Failed(fmt.Errorf("something that is not the storage says %w", short(e)), q.write)
	case code == http.StatusNotFound && q.missing != nil:
		return fmt.Errorf("%w: %w", q.missing, short(e))
	case says(e, http.StatusBadRequest, "match calculated MD5", "match calculated CRC32C"):
		return fmt.Errorf("%w: %w", core.ErrChecksum, short(e))
	case code >= 300 && code < 400:
		// Redirects are not followed: credentials stay here.
		return fmt.Errorf("%w: sent elsewhere: %w", core.ErrUnavailable, short(e))
	}
	return remotehttp.Status(code, e.Header, short(e), q.write)
}

// says looks for the words of the JSON interface, or the code of the XML one.
func says(e *googleapi.Error, code int, words ...string) bool {
	return e.Code == code && slices.ContainsFunc(words, func(w string) bool {
		return strings.Contains(e.Message, w) || strings.Contains(e.Body, w)
	})
}

// authentic says whether a 404 is the storage's own: what is between here and there
// does not know what is there.
func authentic(e *googleapi.Error) bool {
	body := strings.TrimSpace(e.Body)
	return strings.HasPrefix(body, "{") && strings.Contains(body, `"error"`) || strings.Contains(body, "<Error>") ||
		strings.EqualFold(body, "Not Found") // fake-gcs-server's downloadObject
}

// objectFailed is failed for a request about an object. A 404 may be about the bucket:
// Google says so; where a server does not the bucket is asked for.
func (b *Backend) objectFailed(ctx context.Context, q request, bucket string, err error) error {
	out := q.failed(err)
	var answer *googleapi.Error
	if !errors.Is(out, core.ErrNotFound) || errors.As(err, &answer) && says(answer, http.StatusNotFound, "No such object", "<Code>NoSuchKey</Code>") {
		return out
	}
	if gone := b.HeadBucket(ctx, bucket); errors.Is(gone, core.ErrNoSuchBucket) {
		return gone
	}
	return out
}

// short is the server's own words, bounded.
func short(e *googleapi.Error) error {
	words := e.Message
	if words == "" {
		words = e.Body
	}
	if words = strings.Join(strings.Fields(words), " "); len(words) > 512 {
		words = strings.ToValidUTF8(words[:512], "") + " ..."
	}
	if words == "" {
		words = http.StatusText(e.Code)
	}
	return fmt.Errorf("%d %s", e.Code, words)
}
