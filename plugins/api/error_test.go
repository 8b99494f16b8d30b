package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/shoalstore/shoal/core"
)

func TestErrorsTravel(t *testing.T) {
	for _, tt := range []struct {
		err    error
		code   Code
		status int
	}{
		{core.ErrNoSuchBucket, CodeNoSuchBucket, 404},
		{core.ErrNotFound, CodeNotFound, 404},
		{core.ErrExists, CodeExists, 409},
		{core.ErrNotEmpty, CodeNotEmpty, 409},
		{core.ErrConflict, CodeConflict, 409},
		{core.ErrPrecondition, CodePrecondition, 412},
		{core.ErrInvalid, CodeInvalid, 400},
		{core.ErrPermission, CodeForbidden, 403},
		{core.ErrUnavailable, CodeUnavailable, 503},
		{core.ErrUnknownOutcome, CodeUnavailable, 503},
		{core.ErrCorrupt, CodeCorrupt, 500},
		{errors.New("odd"), CodeInternal, 500},
		{Refused("no", "do"), CodeRefused, 409},
		{NotBuilt("dsort"), CodeNotBuilt, 501},
	} {
		sent := FromError(fmt.Errorf("bucket x: %w", tt.err))
		b, err := json.Marshal(ErrorBody{sent})
		if err != nil {
			t.Fatal(err)
		}
		var got ErrorBody
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		if got.Error.Code != tt.code || got.Error.Status() != tt.status {
			t.Errorf("%v: got %s, status %d, want %s, %d", tt.err, got.Error.Code, got.Error.Status(), tt.code, tt.status)
		}
		var e *Error
		if !errors.As(tt.err, &e) && tt.status != http.StatusInternalServerError && !errors.Is(got.Error, tt.err) {
			t.Errorf("%v: what arrives is not it: %#v", tt.err, got.Error)
		}
	}
	if !errors.Is(&Error{Code: CodeNoSuchBucket}, core.ErrNotFound) {
		t.Error("no such bucket is not found")
	}
	if errors.Is(&Error{Code: CodeNotFound}, core.ErrNoSuchBucket) {
		t.Error("not found is no such bucket")
	}
}
