package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/shoalstore/shoal/core"
)

// Code is the machine-readable kind of an error.
type Code string

// The codes.
const (
	CodeNotFound     Code = "not_found"
	CodeNoSuchBucket Code = "no_such_bucket"
	CodeExists       Code = "exists"
	CodeNotEmpty     Code = "not_empty"
	CodeConflict     Code = "conflict"
	// CodeRefused says that the request is well formed and the present state
	// forbids it; the message says what to do.
	CodeRefused      Code = "refused"
	CodePrecondition Code = "precondition_failed"
	CodeInvalid      Code = "invalid"
	CodeTooLarge     Code = "too_large"
	CodeForbidden    Code = "forbidden"
	CodeNotBuilt     Code = "not_built"
	CodeUnavailable  Code = "unavailable"
	CodeTimedOut     Code = "timed_out"
	CodeCorrupt      Code = "corrupt"
	CodeInternal     Code = "internal"
	// CodeThrottled, CodeWrongRegion and CodeRemote are about the remote of a
	// bucket: it asks for fewer requests, has the bucket in another region, or
	// does not answer the cluster, which has tried for a while: who repeats the
	// request at another node will hear the same.
	CodeThrottled   Code = "throttled"
	CodeWrongRegion Code = "wrong_region"
	CodeRemote      Code = "remote_unavailable"
)

// Error is an error as it travels. Message is for people and complete by
// itself; Hint, if not empty, is what to do, often a command.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// ErrorBody is the envelope of an error.
type ErrorBody struct {
	Error *Error `json:"error"`
}

func (e *Error) Error() string { return e.Message }

// Is makes errors.Is find core's sentinel of the same meaning.
func (e *Error) Is(target error) bool {
	for _, k := range kinds() {
		if k.code == e.Code && k.sentinel == target {
			return true
		}
	}
	return e.Code == CodeNoSuchBucket && target == core.ErrNotFound
}

// Status is the HTTP status of an error of that code.
func (e *Error) Status() int {
	for _, k := range kinds() {
		if k.code == e.Code {
			return k.status
		}
	}
	return http.StatusInternalServerError
}

// kind ties a code to its status and to the sentinel that it travels for.
type kind struct {
	code     Code
	status   int
	sentinel error
}

// kinds are all codes. Where errors wrap several sentinels the first one here
// names them; where a code stands for several sentinels the first is preferred.
func kinds() []kind {
	return []kind{
		{CodeNoSuchBucket, http.StatusNotFound, core.ErrNoSuchBucket},
		{CodeNotFound, http.StatusNotFound, core.ErrNotFound},
		{CodeExists, http.StatusConflict, core.ErrExists},
		{CodeNotEmpty, http.StatusConflict, core.ErrNotEmpty},
		{CodePrecondition, http.StatusPreconditionFailed, core.ErrPrecondition},
		{CodeConflict, http.StatusConflict, core.ErrConflict},
		{CodeRefused, http.StatusConflict, nil},
		{CodeTooLarge, http.StatusRequestEntityTooLarge, core.ErrTooLarge},
		{CodeInvalid, http.StatusBadRequest, core.ErrInvalid},
		{CodeInvalid, http.StatusBadRequest, core.ErrUnformatted},
		{CodeForbidden, http.StatusForbidden, core.ErrPermission},
		{CodeNotBuilt, http.StatusNotImplemented, errors.ErrUnsupported},
		{CodeThrottled, http.StatusServiceUnavailable, core.ErrThrottled},
		{CodeWrongRegion, http.StatusConflict, core.ErrWrongRegion},
		{CodeUnavailable, http.StatusServiceUnavailable, core.ErrUnavailable},
		{CodeUnavailable, http.StatusServiceUnavailable, core.ErrUnknownOutcome},
		{CodeUnavailable, http.StatusServiceUnavailable, core.ErrNotOwner},
		{CodeUnavailable, http.StatusServiceUnavailable, core.ErrNoSpace},
		{CodeTimedOut, http.StatusGatewayTimeout, context.DeadlineExceeded},
		{CodeRemote, http.StatusBadGateway, core.ErrUnavailable},
		{CodeCorrupt, http.StatusInternalServerError, core.ErrCorrupt},
		{CodeInternal, http.StatusInternalServerError, nil},
	}
}

// FromError returns the form in which an error travels: the [Error] within it,
// if there is one, otherwise one by core's sentinels.
func FromError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	for _, k := range kinds() {
		if k.sentinel != nil && errors.Is(err, k.sentinel) {
			return &Error{Code: k.code, Message: err.Error()}
		}
	}
	return &Error{Code: CodeInternal, Message: err.Error()}
}

// NotBuilt refuses what this version does not have.
func NotBuilt(what string) *Error {
	return &Error{Code: CodeNotBuilt, Message: "not built yet in this version: " + what}
}

// Refused refuses what the present state forbids.
func Refused(message, hint string) *Error {
	return &Error{Code: CodeRefused, Message: message, Hint: hint}
}
