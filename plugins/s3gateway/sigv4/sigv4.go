// Package sigv4 verifies and makes AWS Signature Version 4 signatures of S3
// requests: in the Authorization header, in the query of a presigned URL, and
// over the chunks and trailers of a streamed body.
//
// The rules are those of the Amazon S3 API Reference, "Authenticating
// Requests (AWS Signature Version 4)", and its pages sig-v4-header-based-auth,
// sigv4-query-string-auth, sigv4-streaming and sigv4-streaming-trailers.
// What S3 refuses is refused with S3's code.
//
//	v := sigv4.NewVerifier(sigv4.Options{Lookup: keys.Secret, Now: clock.Now})
//	auth, err := v.Verify(r)        // an *sigv4.Error carries code and status
//	body, err := auth.Body(r)       // verifies as it is read
//	_, err = io.Copy(dst, body)     // no io.EOF before all was verified
//
// A client signs with [Sign].
package sigv4

import (
	"net/http"
	"time"
)

// Algorithm is the one signature algorithm of this package.
const Algorithm = "AWS4-HMAC-SHA256"

// Special values of x-amz-content-sha256 (page
// sigv4-auth-using-authorization-header). Every other value is the SHA-256 of
// the body in hex.
const (
	UnsignedPayload          = "UNSIGNED-PAYLOAD"
	StreamingSigned          = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	StreamingSignedTrailer   = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
	StreamingUnsignedTrailer = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
)

// EmptyPayload is the SHA-256 of no bytes.
const EmptyPayload = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

const (
	amzDateFormat = "20060102T150405Z"
	scopeEnd      = "aws4_request"

	// DefaultMaxSkew is how far a request's time may be from the server's.
	DefaultMaxSkew = 15 * time.Minute
	// maxExpires is the longest life of a presigned URL: a week.
	maxExpires = 7 * 24 * time.Hour
)

// Error is a refusal by S3's code. It is never retried as it is, but for
// RequestTimeTooSkewed, after which SDKs correct their clock.
type Error struct {
	// Code is S3's error code, Status the HTTP status that goes with it.
	Code    string
	Status  int
	Message string
	// Details are further elements of the error document, in order.
	Details []Detail
	// Cause is what made a body unreadable, if anything did.
	Cause error
}

// Detail is a named value of an error document.
type Detail struct{ Name, Value string }

func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Code + ": " + e.Message + ": " + e.Cause.Error()
	}
	return e.Code + ": " + e.Message
}

func (e *Error) Unwrap() error { return e.Cause }

func refuse(code, message string, details ...Detail) *Error {
	return &Error{Code: code, Status: http.StatusForbidden, Message: message, Details: details}
}

func malformed(code, message string, details ...Detail) *Error {
	return &Error{Code: code, Status: http.StatusBadRequest, Message: message, Details: details}
}

func malformedHeader(why string, details ...Detail) *Error {
	return malformed("AuthorizationHeaderMalformed", "The authorization header is malformed; "+why, details...)
}

func malformedQuery(why string, details ...Detail) *Error {
	return malformed("AuthorizationQueryParametersError", why, details...)
}
