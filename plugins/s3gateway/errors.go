package s3gateway

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"unicode/utf8"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/s3gateway/sigv4"
)

// The gateway's errors are of the type of the signatures' errors: S3's code,
// its status and message (page ErrorResponses of the Amazon S3 API Reference).

func refuse(status int, code, message string, details ...sigv4.Detail) error {
	return &sigv4.Error{Code: code, Status: status, Message: message, Details: details}
}

func bad(code, message string, details ...sigv4.Detail) error {
	return refuse(http.StatusBadRequest, code, message, details...)
}

func errInvalidURI() error { return bad("InvalidURI", "Couldn't parse the specified URI.") }

func errInvalidBucketName(name string) error {
	return bad("InvalidBucketName", "The specified bucket is not valid.", sigv4.Detail{Name: "BucketName", Value: name})
}

func errInvalidArgument(name, value, message string) error {
	return bad("InvalidArgument", message, sigv4.Detail{Name: "ArgumentName", Value: name}, sigv4.Detail{Name: "ArgumentValue", Value: value})
}

func errInvalidRequest(message string) error { return bad("InvalidRequest", message) }

func errMalformedXML(why string) error {
	return bad("MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema: "+why)
}

func errMethodNotAllowed(method string) error {
	return refuse(http.StatusMethodNotAllowed, "MethodNotAllowed", "The specified method is not allowed against this resource.",
		sigv4.Detail{Name: "Method", Value: method})
}

func errNotImplemented(what string) error {
	return refuse(http.StatusNotImplemented, "NotImplemented", "This server does not implement "+what+".")
}

func errNoCORS() error {
	return refuse(http.StatusForbidden, "AccessForbidden", "CORSResponse: CORS is not enabled for this bucket.")
}

// errNotConfigured is the true answer for a property of buckets that no bucket
// has here; nil if sub is none of those.
func errNotConfigured(sub string) error {
	none := func(code, message string) error { return refuse(http.StatusNotFound, code, message) }
	switch sub {
	case "policy", "policyStatus":
		return none("NoSuchBucketPolicy", "The bucket policy does not exist")
	case "cors":
		return none("NoSuchCORSConfiguration", "The CORS configuration does not exist")
	case "lifecycle":
		return none("NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist")
	case "tagging":
		return none("NoSuchTagSet", "The TagSet does not exist")
	case "website":
		return none("NoSuchWebsiteConfiguration", "The specified bucket does not have a website configuration")
	case "encryption":
		return none("ServerSideEncryptionConfigurationNotFoundError", "The server side encryption configuration was not found")
	case "replication":
		return none("ReplicationConfigurationNotFoundError", "The replication configuration was not found")
	case "object-lock":
		return none("ObjectLockConfigurationNotFoundError", "Object Lock configuration does not exist for this bucket")
	case "publicAccessBlock":
		return none("NoSuchPublicAccessBlockConfiguration", "The public access block configuration was not found")
	case "ownershipControls":
		return none("OwnershipControlsNotFoundError", "The bucket ownership controls were not found")
	}
	return nil
}

// checkKey refuses what is no key of an object.
func checkKey(key string) error {
	switch {
	case len(key) > core.MaxKey:
		return bad("KeyTooLongError", "Your key is too long", sigv4.Detail{Name: "Size", Value: strconv.Itoa(len(key))},
			sigv4.Detail{Name: "MaxSizeAllowed", Value: strconv.Itoa(core.MaxKey)})
	case !utf8.ValidString(key):
		return errInvalidURI()
	}
	return nil
}

// describe finds S3's error for any error.
func (q *request) describe(err error) *sigv4.Error {
	// What a body ended with is said best by the body itself.
	if q.body != nil {
		if berr := q.body.Err(); berr != nil {
			err = berr
		}
	}
	if q.trailerErr != nil {
		err = q.trailerErr
	}
	if e, ok := errors.AsType[*sigv4.Error](err); ok {
		return e
	}
	return q.translate(err)
}

// translate finds S3's error for one of the object layer.
func (q *request) translate(err error) *sigv4.Error {
	e := func(status int, code, message string) *sigv4.Error {
		return &sigv4.Error{Status: status, Code: code, Message: message, Cause: err}
	}
	has := func(target error) bool { return errors.Is(err, target) }
	switch {
	case has(core.ErrNoSuchBucket) && q.bucket.Name.Remote():
		return e(http.StatusNotFound, "NoSuchBucket", "The specified bucket does not exist: "+err.Error())
	case has(core.ErrNoSuchBucket):
		return e(http.StatusNotFound, "NoSuchBucket", "The specified bucket does not exist")
	case has(core.ErrNoSuchUpload):
		return e(http.StatusNotFound, "NoSuchUpload", "The specified multipart upload does not exist. "+
			"The upload ID might be invalid, or the multipart upload might have been aborted or completed.")
	case has(core.ErrNotFound):
		return e(http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
	case has(core.ErrNotModified):
		return e(http.StatusNotModified, "NotModified", "Not Modified")
	case has(core.ErrPrecondition):
		return e(http.StatusPreconditionFailed, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
	case has(core.ErrRange):
		return e(http.StatusRequestedRangeNotSatisfiable, "InvalidRange", "The requested range is not satisfiable")
	case has(core.ErrExists):
		return e(http.StatusConflict, "BucketAlreadyOwnedByYou", "Your previous request to create the named bucket succeeded and you already own it.")
	case has(core.ErrNotEmpty):
		return e(http.StatusConflict, "BucketNotEmpty", "The bucket you tried to delete is not empty")
	case has(core.ErrConflict):
		return e(http.StatusConflict, "OperationAborted", "A conflicting conditional operation is currently in progress against this resource. Try again.")
	case has(core.ErrChecksum):
		return e(http.StatusBadRequest, "BadDigest", "The Content-MD5 or checksum value that you specified did not match what the server received.")
	case has(core.ErrInvalidPart):
		return e(http.StatusBadRequest, "InvalidPart", "One or more of the specified parts could not be found. "+
			"The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.")
	case has(core.ErrPartTooSmall):
		return e(http.StatusBadRequest, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size")
	case has(core.ErrTooLarge):
		return e(http.StatusBadRequest, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
	case has(core.ErrPermission):
		// Who sends this request may do so; the account may not by which the
		// cluster reaches a remote.
		return e(http.StatusForbidden, "AccessDenied", "Access Denied by the remote, to the account of this cluster there: "+err.Error())
	case has(core.ErrWrongRegion):
		return e(http.StatusConflict, "InvalidBucketState", "The cluster asks the remote in the wrong region: "+err.Error())
	case has(errors.ErrUnsupported):
		return e(http.StatusNotImplemented, "NotImplemented", "This is not supported: "+err.Error())
	case has(core.ErrInvalid):
		return e(http.StatusBadRequest, "InvalidArgument", "Invalid Argument: "+err.Error())
	}
	return q.translateFault(err, e)
}

// translateFault finds S3's error for what is not the client's fault. SDKs
// send the request again after 500 and 503.
func (q *request) translateFault(err error, e func(int, string, string) *sigv4.Error) *sigv4.Error {
	has := func(target error) bool { return errors.Is(err, target) }
	switch {
	case has(core.ErrThrottled):
		return e(http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate.")
	case has(core.ErrUnknownOutcome):
		return e(http.StatusServiceUnavailable, "ServiceUnavailable", "The write may or may not take effect. Please try again.")
	case has(core.ErrNoSpace):
		// Not retried: space does not come back in seconds.
		return e(http.StatusInsufficientStorage, "InsufficientStorage", "There is not enough free space in the cluster.")
	case has(core.ErrUnavailable), has(core.ErrNotOwner), has(core.ErrDiskFailed), has(context.DeadlineExceeded), has(context.Canceled):
		return e(http.StatusServiceUnavailable, "ServiceUnavailable", "Service is unable to handle request. Please try again.")
	}
	return e(http.StatusInternalServerError, "InternalError", "We encountered an internal error. Please try again.")
}

// fail sends an error as S3 does.
func (q *request) fail(ctx context.Context, err error) {
	e := q.describe(err)
	if e.Status >= http.StatusInternalServerError && e.Status != http.StatusNotImplemented && ctx.Err() == nil {
		q.log.Warn("s3 request failed", "method", q.r.Method, "bucket", q.alias, "key", q.key,
			"request_id", string(q.idHex[:]), "code", e.Code, "err", err)
	}
	switch e.Status {
	case http.StatusNotModified:
		q.notModified(ctx)
		return
	case http.StatusRequestedRangeNotSatisfiable:
		e = q.rangeDetails(ctx, e)
	case http.StatusServiceUnavailable:
		q.set("Retry-After", retryAfter(e.Cause))
	}
	_ = q.writeXML(e.Status, q.errorDocument(e))
}

// retryAfter is the header of that name, in seconds: as a remote has said, at
// least 1, at most 60.
func retryAfter(err error) string {
	seconds := 1.0
	if later, ok := errors.AsType[core.RetryAfter](err); ok {
		seconds = min(max(math.Ceil(later.RetryAfter().Seconds()), 1), 60)
	}
	return strconv.Itoa(int(seconds))
}

// notModified answers 304 with the headers that a cache wants, if the object
// is still the one that was not modified.
func (q *request) notModified(ctx context.Context) {
	o, err := q.getOptions()
	if err == nil {
		info, err := q.objects.Head(ctx, q.bucket, q.key, core.GetOptions{})
		if err == nil && errors.Is(o.Conditions.CheckRead(info.ETag, info.Modified), core.ErrNotModified) {
			q.set("ETag", `"`+info.ETag+`"`)
			q.set("Last-Modified", info.Modified.UTC().Format(http.TimeFormat))
			for _, name := range []string{"Cache-Control", "Expires"} {
				if v, ok := info.Headers[name]; ok {
					q.set(name, v)
				}
			}
		}
	}
	q.w.WriteHeader(http.StatusNotModified)
}

// rangeDetails says how large the object is.
func (q *request) rangeDetails(ctx context.Context, e *sigv4.Error) *sigv4.Error {
	out := *e
	if q.query.Has("partNumber") {
		out.Code, out.Message = "InvalidPartNumber", "The requested partnumber is not satisfiable"
		return &out
	}
	out.Details = append(out.Details, sigv4.Detail{Name: "RangeRequested", Value: q.r.Header.Get("Range")})
	if info, err := q.objects.Head(ctx, q.bucket, q.key, core.GetOptions{}); err == nil {
		q.set("Content-Range", fmt.Sprintf("bytes */%d", info.Size))
		out.Details = append(out.Details, sigv4.Detail{Name: "ActualObjectSize", Value: strconv.FormatInt(info.Size, 10)})
	}
	return &out
}

// errorDocument is the body of an error.
func (q *request) errorDocument(e *sigv4.Error) []byte {
	x := newDocument("Error", false)
	x.text("Code", e.Code)
	x.text("Message", q.message(e))
	for _, d := range e.Details {
		x.text(d.Name, d.Value)
	}
	if q.alias != "" {
		x.text("BucketName", q.alias)
	}
	if q.key != "" {
		x.text("Key", q.key)
	}
	x.text("Resource", q.r.URL.Path)
	x.text("RequestId", string(q.idHex[:]))
	return x.end("Error")
}

// message adds to S3's text what an operator wants to know of a fault.
func (q *request) message(e *sigv4.Error) string {
	if e.Status == http.StatusServiceUnavailable && e.Cause != nil {
		return e.Message + " (" + e.Cause.Error() + ")"
	}
	return e.Message
}
