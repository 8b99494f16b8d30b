package s3backend

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/shoalstore/shoal/core"
)

// fail says what an error of the SDK means; nil stays nil.
func (c *call) fail(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if c.body != nil {
		if e := c.body.failed(); e != nil {
			return fmt.Errorf("%s: read the body: %w", c, e)
		}
	}
	if res := response(err); res != nil {
		return c.answered(err, res)
	}
	var cred *credentialsError
	var send *smithyhttp.RequestSendError
	switch {
	case ctx.Err() != nil && c.write && c.sent.Load():
		return fmt.Errorf("%s: %w: given up: %w", c, core.ErrUnknownOutcome, context.Cause(ctx))
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", c, context.Cause(ctx))
	case errors.As(err, &cred) && cred.had:
		return fmt.Errorf("%s: %w: credentials cannot be renewed: %w", c, core.ErrUnavailable, cred.err)
	case errors.As(err, &cred):
		return fmt.Errorf("%s: %w: no credentials: give keys or a profile, or set anonymous: %w", c, core.ErrPermission, cred.err)
	case !errors.As(err, &send):
		return fmt.Errorf("%s: %w: %w", c, core.ErrInvalid, err) // refused by the SDK
	case c.write && c.sent.Load():
		return fmt.Errorf("%s: %w: no answer: %w", c, core.ErrUnknownOutcome, send.Err)
	case c.sent.Load():
		return fmt.Errorf("%s: %w: no answer: %w", c, core.ErrUnavailable, send.Err)
	}
	return fmt.Errorf("%s: %w: no connection: %w", c, core.ErrUnavailable, send.Err)
}

// response is the answer that an error of the SDK is about, if any.
func response(err error) *smithyhttp.Response {
	var re *smithyhttp.ResponseError
	if errors.As(err, &re) && re.Response != nil && re.Response.Response != nil && re.Response.StatusCode != 0 {
		return re.Response
	}
	return nil
}

// answered says what an answer that is an error means.
func (c *call) answered(err error, res *smithyhttp.Response) error {
	code, words := "", ""
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		code, words = api.ErrorCode(), api.ErrorMessage()
	}
	status := res.StatusCode
	if status < http.StatusMultipleChoices {
		// It was done, perhaps; but the answer is no answer.
		if de, ok := errors.AsType[*smithy.DeserializationError](err); ok {
			err = de.Err
		}
		return fmt.Errorf("%s: %w: answer with status %d that is not S3's: %w", c, c.unknown(), status, err)
	}
	text := strings.TrimSpace(strings.Join(nonEmpty(code, words), ": "))
	if text == "" {
		text = http.StatusText(status)
	}
	m := c.meaning(status, code, res)
	if m.hint != "" {
		m.hint = " (" + m.hint + ")"
	}
	e := fmt.Errorf("%s: %w%s: status %d: %s", c, m.kind, m.hint, status, text)
	if d := retryAfter(res.Header); d > 0 {
		return &laterError{error: e, after: d}
	}
	return e
}

func nonEmpty(list ...string) (out []string) {
	for _, s := range list {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}

// unknown is what a request that was sent and not answered properly ends with.
func (c *call) unknown() error {
	if c.write {
		return core.ErrUnknownOutcome
	}
	return core.ErrUnavailable
}

// meaning is what an answer means, with a hint where the server's words may not be
// plain.
type meaning struct {
	kind error
	hint string
}

func (c *call) meaning(status int, code string, res *smithyhttp.Response) meaning {
	if region := c.otherRegion(status, code, res); region != "" {
		return meaning{core.ErrWrongRegion, region}
	}
	if m := byCode(code); m.kind != nil {
		return m
	}
	return meaning{c.byStatus(status), ""}
}

// byStatus is for answers without a code that is known: those to HEAD, which
// have no body, and those of something between here and S3.
func (c *call) byStatus(status int) error {
	switch {
	case status == http.StatusNotFound && c.head && c.key == "":
		return core.ErrNoSuchBucket
	case status == http.StatusNotFound && c.head:
		return core.ErrNotFound
	case status == http.StatusNotFound:
		return c.unknown() // S3 would have said what it is that is not there
	case status == http.StatusPreconditionFailed:
		return core.ErrPrecondition
	case status == http.StatusRequestedRangeNotSatisfiable:
		return core.ErrRange
	case status == http.StatusTooManyRequests:
		return core.ErrThrottled
	case status == http.StatusServiceUnavailable:
		return core.ErrUnavailable
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return core.ErrPermission
	case status == http.StatusNotImplemented || status == http.StatusMethodNotAllowed:
		return errors.ErrUnsupported
	case status >= http.StatusInternalServerError || status < http.StatusBadRequest:
		return c.unknown()
	}
	return core.ErrInvalid
}

// byCode is what S3's error codes mean, and what other servers' do; the zero meaning
// for others.
func byCode(code string) meaning {
	switch code {
	case "NoSuchKey", "NoSuchVersion":
		return meaning{core.ErrNotFound, ""}
	case "NoSuchBucket":
		return meaning{core.ErrNoSuchBucket, ""}
	case "NoSuchUpload":
		return meaning{core.ErrNoSuchUpload, ""}
	case "InvalidPart", "InvalidPartOrder":
		return meaning{core.ErrInvalidPart, ""}
	case "EntityTooSmall":
		return meaning{core.ErrPartTooSmall, ""}
	case "EntityTooLarge", "KeyTooLongError", "MetadataTooLarge":
		return meaning{core.ErrTooLarge, ""}
	case "BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch":
		return meaning{core.ErrChecksum, ""}
	case "InvalidRange":
		return meaning{core.ErrRange, ""}
	case "PreconditionFailed":
		return meaning{core.ErrPrecondition, ""}
	case "BucketAlreadyExists", "BucketAlreadyOwnedByYou":
		return meaning{core.ErrExists, ""}
	case "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "TooManyRequestsException", "BandwidthLimitExceeded":
		return meaning{core.ErrThrottled, ""}
	case "ConditionalRequestConflict", "OperationAborted", "RequestTimeout", "IncompleteBody", "ServiceUnavailable":
		return meaning{core.ErrUnavailable, ""} // nothing was done; it may be tried again
	case "InvalidAccessKeyId", "XAdminUserNotFound":
		return meaning{core.ErrPermission, "the access key is not known there"}
	case "SignatureDoesNotMatch":
		return meaning{core.ErrPermission, "the secret key is another one"}
	case "RequestTimeTooSkewed":
		return meaning{core.ErrPermission, "this machine's clock is wrong"}
	case "ExpiredToken", "InvalidToken", "TokenRefreshRequired":
		return meaning{core.ErrPermission, "the session token is not valid any more"}
	case "InvalidObjectState":
		return meaning{core.ErrPermission, "the object is archived and must be restored first"}
	case "AccessDenied", "AllAccessDisabled", "AccountProblem", "NotSignedUp":
		return meaning{core.ErrPermission, ""}
	case "NotImplemented", "MethodNotAllowed":
		return meaning{errors.ErrUnsupported, ""}
	case "ObjectParentIsFile", "ExistingObjectIsDirectory":
		return meaning{core.ErrInvalid, "the server keeps objects in directories"} // versitygw
	}
	return meaning{}
}

// otherRegion says in which region the bucket is, if that is what the answer
// means; "" if not.
func (c *call) otherRegion(status int, code string, res *smithyhttp.Response) string {
	is := res.Header.Get("X-Amz-Bucket-Region")
	redirected := status == http.StatusMovedPermanently || status == http.StatusTemporaryRedirect
	switch code {
	case "AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException", "TemporaryRedirect", "InvalidRegionName":
	default:
		// An answer to HEAD has no code.
		if !redirected && (status != http.StatusBadRequest || is == "" || is == c.b.region) {
			return ""
		}
	}
	if is == "" {
		return "asked as " + c.b.region
	}
	return fmt.Sprintf("it is in %s, asked as %s", is, c.b.region)
}

// laterError says when to come again.
type laterError struct {
	error
	after time.Duration
}

func (e *laterError) Unwrap() error             { return e.error }
func (e *laterError) RetryAfter() time.Duration { return e.after }

// retryAfter reads the header, which has seconds or a date.
func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if n, err := strconv.ParseInt(v, 10, 32); err == nil {
		return time.Duration(n) * time.Second
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return 0
	}
	return at.Sub(now)
}

// isNoSuchKey says whether the server says that there is no such object.
func isNoSuchKey(err error) bool {
	api, ok := errors.AsType[smithy.APIError](err)
	return ok && api.ErrorCode() == "NoSuchKey"
}

// doubtful says whether an answer to HEAD that something is not there may mean
// something else. AWS is believed, if it was AWS, which names each request. Others were seen to
// answer so to an access key that they do not know (versitygw 1.8.0).
func (b *Backend) doubtful(err error) bool {
	res := response(err)
	return res != nil && res.StatusCode == http.StatusNotFound && (!b.aws || res.Header.Get("X-Amz-Request-Id") == "")
}
