package remotehttp

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

func TestStatus(t *testing.T) {
	words := errors.New("the server's words")
	for _, c := range []struct {
		code        int
		after       string
		read, write error
		wait        time.Duration
	}{
		{400, "", core.ErrInvalid, core.ErrInvalid, 0},
		{401, "", core.ErrPermission, core.ErrPermission, 0},
		{403, "", core.ErrPermission, core.ErrPermission, 0},
		{404, "", core.ErrNotFound, core.ErrNotFound, 0},
		{408, "", core.ErrUnavailable, core.ErrUnknownOutcome, 0},
		{409, "", core.ErrConflict, core.ErrConflict, 0},
		{412, "", core.ErrPrecondition, core.ErrPrecondition, 0},
		{416, "", core.ErrRange, core.ErrRange, 0},
		{418, "", core.ErrInvalid, core.ErrInvalid, 0},
		{429, "", core.ErrThrottled, core.ErrThrottled, 0},
		{429, "7", core.ErrThrottled, core.ErrThrottled, 7 * time.Second},
		{500, "", core.ErrUnavailable, core.ErrUnknownOutcome, 0},
		{501, "", errors.ErrUnsupported, errors.ErrUnsupported, 0},
		{502, "9", core.ErrUnavailable, core.ErrUnknownOutcome, 0},
		{503, "", core.ErrUnavailable, core.ErrUnavailable, 0},
		{503, "3", core.ErrThrottled, core.ErrThrottled, 3 * time.Second},
		{503, "Fri, 02 Jan 2026 03:05:05 GMT", core.ErrThrottled, core.ErrThrottled, time.Minute},
		{503, "Fri, 02 Jan 2026 03:03:05 GMT", core.ErrThrottled, core.ErrThrottled, 0},
		{503, "soon", core.ErrThrottled, core.ErrThrottled, 0},
		{599, "", core.ErrUnavailable, core.ErrUnknownOutcome, 0},
		{300, "", core.ErrUnavailable, core.ErrUnknownOutcome, 0},
	} {
		h := http.Header{"Date": {"Fri, 02 Jan 2026 03:04:05 GMT"}}
		if c.after != "" {
			h.Set("Retry-After", c.after)
		}
		read, write := Status(c.code, h, words, false), Status(c.code, h, words, true)
		if !errors.Is(read, c.read) || !errors.Is(write, c.write) || !errors.Is(read, words) {
			t.Errorf("%d: got %v and %v, want %v and %v", c.code, read, write, c.read, c.write)
		}
		var r core.RetryAfter
		if errors.As(write, &r) != errors.Is(c.write, core.ErrThrottled) || r != nil && r.RetryAfter() != c.wait {
			t.Errorf("%d, Retry-After %q: got %v, want %v", c.code, c.after, r, c.wait)
		}
	}
}

func TestFailed(t *testing.T) {
	other := errors.New("reset")
	for _, c := range []struct {
		err   error
		write bool
		want  error
	}{
		{nil, true, nil},
		{other, false, core.ErrUnavailable},
		{other, true, core.ErrUnknownOutcome},
		{core.ErrPermission, true, core.ErrPermission},
	} {
		if got := Failed(c.err, c.write); !errors.Is(got, c.want) || got != nil && c.want == nil || c.err != nil && !errors.Is(got, c.err) {
			t.Errorf("%v, write %v: got %v, want %v", c.err, c.write, got, c.want)
		}
	}
}
