package remotehttp

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/shoalstore/shoal/core"
)

// NotSent says whether a request that failed with err was not even sent, because
// no connection came about.
func NotSent(err error) bool {
	var op *net.OpError
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	var noTLS tls.RecordHeaderError
	return errors.As(err, &op) && op.Op == "dial" || errors.As(err, &dns) || errors.As(err, &certificate) || errors.As(err, &noTLS)
}

// Failed gives an error of an exchange that got no answer its meaning in
// [core.Backend]'s words. write says whether the request would have changed
// something; then an answer that did not come is an unknown outcome.
func Failed(err error, write bool) error {
	if err == nil || errors.Is(err, core.ErrPermission) || errors.Is(err, core.ErrInvalid) {
		return err
	}
	kind := core.ErrUnavailable
	if write && !NotSent(err) {
		kind = core.ErrUnknownOutcome
	}
	if errors.Is(err, kind) {
		return err
	}
	return fmt.Errorf("%w: %w", kind, err)
}

// Status gives an answer's status its meaning in [core.Backend]'s words. err
// holds the server's own words.
func Status(code int, h http.Header, err error, write bool) error {
	kind := core.ErrUnavailable
	switch code {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		kind = core.ErrPermission
	case http.StatusNotFound, http.StatusGone:
		kind = core.ErrNotFound
	case http.StatusConflict:
		kind = core.ErrConflict
	case http.StatusPreconditionFailed:
		kind = core.ErrPrecondition
	case http.StatusRequestedRangeNotSatisfiable:
		kind = core.ErrRange
	case http.StatusTooManyRequests:
		return throttled(err, h)
	case http.StatusServiceUnavailable:
		if h.Get("Retry-After") != "" {
			return throttled(err, h)
		}
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		kind = errors.ErrUnsupported
	case http.StatusRequestTimeout, http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout:
		if write {
			kind = core.ErrUnknownOutcome
		}
	default:
		switch {
		case code >= 400 && code < 500:
			kind = core.ErrInvalid
		case write:
			kind = core.ErrUnknownOutcome
		}
	}
	return fmt.Errorf("%w: %w", kind, err)
}

// Throttle says that the server asks for fewer requests; after is when to come
// again, 0 if it did not say.
type Throttle struct {
	after time.Duration
	err   error
}

func throttled(err error, h http.Header) error {
	return &Throttle{after: retryAfter(h), err: fmt.Errorf("%w: %w", core.ErrThrottled, err)}
}

// RetryAfter implements [core.RetryAfter].
func (t *Throttle) RetryAfter() time.Duration { return t.after }
func (t *Throttle) Error() string             { return t.err.Error() }
func (t *Throttle) Unwrap() error             { return t.err }

// retryAfter reads seconds, or a date, which is by the server's own clock.
func retryAfter(h http.Header) time.Duration {
	s := strings.TrimSpace(h.Get("Retry-After"))
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	t, err := http.ParseTime(s)
	now, err2 := http.ParseTime(h.Get("Date"))
	if err == nil && err2 == nil && t.After(now) {
		return t.Sub(now)
	}
	return 0
}
