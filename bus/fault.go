package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/shoalstore/shoal/core"
)

// Fault is an error as requests are answered with it, over NATS and HTTP
// alike: {"error":{"code","message","hint"}}.
type Fault struct {
	// Status is the HTTP status that goes with Code.
	Status int `json:"-"`
	// Code is a stable word, as "not_found".
	Code    string `json:"code"`
	Message string `json:"message"`
	// Hint says what to do, where there is something.
	Hint string `json:"hint,omitempty"`

	cause error
}

// Hinter is an error that knows what its reader can do about it.
type Hinter interface {
	error
	Hint() string
}

type faultCode struct {
	err    error
	code   string
	status int
}

// faultCodes lists the sentinels with their codes, the specific before the
// general. The first one with a code is what the code stands for.
func faultCodes() []faultCode {
	return []faultCode{
		{core.ErrNoSuchBucket, "no_such_bucket", http.StatusNotFound},
		{core.ErrNoSuchUpload, "no_such_upload", http.StatusNotFound},
		{core.ErrNotFound, "not_found", http.StatusNotFound},
		{core.ErrExists, "exists", http.StatusConflict},
		{core.ErrNotEmpty, "not_empty", http.StatusConflict},
		{core.ErrConflict, "conflict", http.StatusConflict},
		{core.ErrPrecondition, "precondition_failed", http.StatusPreconditionFailed},
		{core.ErrNotModified, "not_modified", http.StatusNotModified},
		{core.ErrRange, "range_not_satisfiable", http.StatusRequestedRangeNotSatisfiable},
		{core.ErrTooLarge, "too_large", http.StatusRequestEntityTooLarge},
		{core.ErrPermission, "permission_denied", http.StatusForbidden},
		{core.ErrChecksum, "checksum_mismatch", http.StatusBadRequest},
		{core.ErrInvalid, "invalid", http.StatusBadRequest},
		{core.ErrUnknownOutcome, "outcome_unknown", http.StatusServiceUnavailable},
		{core.ErrNoSpace, "no_space", http.StatusInsufficientStorage},
		{core.ErrUnavailable, "unavailable", http.StatusServiceUnavailable},
		{core.ErrNotOwner, "unavailable", http.StatusServiceUnavailable},
		{core.ErrCorrupt, "corrupt", http.StatusInternalServerError},
		{context.DeadlineExceeded, "timeout", http.StatusServiceUnavailable},
		{context.Canceled, "unavailable", http.StatusServiceUnavailable},
	}
}

// FaultOf turns an error into its answer. What no sentinel covers is
// "internal", status 500.
func FaultOf(err error) Fault {
	f := Fault{Code: "internal", Status: http.StatusInternalServerError, Message: err.Error()}
	for _, c := range faultCodes() {
		if errors.Is(err, c.err) {
			f.Code, f.Status = c.code, c.status
			break
		}
	}
	if h, ok := errors.AsType[Hinter](err); ok {
		f.Hint = h.Hint()
	}
	return f
}

// Encode returns the JSON document.
func (f Fault) Encode() []byte {
	b, err := json.Marshal(struct {
		Error Fault `json:"error"`
	}{f})
	if err != nil {
		panic(err) // strings only: cannot fail
	}
	return b
}

// DecodeFault reads the JSON document back, as an error that matches the
// sentinel of its code.
func DecodeFault(b []byte) error {
	var doc struct {
		Error Fault `json:"error"`
	}
	if err := json.Unmarshal(b, &doc); err != nil || doc.Error.Code == "" {
		return fmt.Errorf("an error answer that is no {\"error\":{\"code\",\"message\"}}: %.200q: %w", b, core.ErrCorrupt)
	}
	f := doc.Error
	f.Status = http.StatusInternalServerError
	for _, c := range faultCodes() {
		if c.code == f.Code {
			f.Status, f.cause = c.status, c.err
			break
		}
	}
	return &f
}

// Error is the message.
func (f *Fault) Error() string { return f.Message }

// Unwrap returns the sentinel of the code, nil for "internal".
func (f *Fault) Unwrap() error { return f.cause }
