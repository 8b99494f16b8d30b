package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/shoalstore/shoal/plugins/api"
)

// request is what is sent, perhaps more than once. Every request of this
// package may be repeated; see package api.
type request struct {
	method string
	// path is escaped as it is to be sent and signed.
	path   string
	query  url.Values
	header http.Header
	body   []byte
	// data says that body is an object's data, covered by a checksum header
	// that is signed, and need not be hashed for the signature as well.
	data bool
	// progress is told the bytes of the body as they are sent, and a negative
	// number when they must be sent again.
	progress func(int64)
	// patience is added to the time that the endpoint may be silent.
	patience time.Duration
	// retryFor overrides the client's.
	retryFor time.Duration
	attempts int // made so far
}

func (r *request) String() string { return r.method + " " + r.path }

// response is an answer of status 2xx, 304 or whatever the caller accepts. Its
// Body must be closed.
type response struct {
	*http.Response
	// repeated says that an earlier attempt may have taken effect.
	repeated bool
}

// statusError is an answer that is an error.
type statusError struct {
	// retry says that it may be of the moment; fault, that it more likely
	// stays.
	retry, fault bool
	retryAfter   time.Duration
	err          *api.Error
}

func newStatusError(status int, err *api.Error) *statusError {
	e := &statusError{err: err}
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		// The cluster has tried a remote for long enough before it says this.
		e.retry = err.Code != api.CodeRemote && err.Code != api.CodeThrottled
	case http.StatusInternalServerError:
		e.retry = err.Code != api.CodeCorrupt
		e.fault = true
	}
	return e
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// do sends the request until an endpoint answers it. An error of the request
// itself (4xx) ends it at once; what may be the endpoint's or the moment's
// fault is tried again elsewhere, and with back-off once all have been tried.
// The second result says, on errors too, whether an earlier attempt may have
// taken effect.
func (c *Client) do(ctx context.Context, r *request) (*response, bool, error) {
	retryFor := c.o.RetryFor
	if r.retryFor > 0 {
		retryFor = r.retryFor
	}
	start := c.o.Clock.Boot()
	delay := newBackOff()
	tried := make(map[*endpoint]bool)
	faults := 0 // answers that say that the server is broken
	rounds := 0 // how often all endpoints have been tried
	repeated := false
	for {
		e := c.endpoints.pick(tried)
		tried[e] = true
		r.count()
		resp, err := c.attempt(ctx, e, r, c.silence(r, rounds)) //nolint:bodyclose // the caller closes it
		if err == nil {
			c.endpoints.good(e)
			return &response{resp, repeated}, repeated, nil
		}
		if ctx.Err() != nil {
			return nil, repeated, interrupted(ctx, r.String(), err)
		}
		var status *statusError
		answered := errors.As(err, &status)
		if answered && status.fault {
			faults++
		}
		if answered && !status.retry || faults > maxFaults {
			c.endpoints.good(e)
			return nil, repeated, err
		}
		c.endpoints.bad(e, answered)
		repeated = repeated || mayHaveArrived(err)
		c.o.Log.Debug("request failed, trying again", "request", r.String(), "endpoint", e.url.Host, "err", err)
		if len(tried) < len(c.endpoints.all) {
			continue
		}
		clear(tried)
		rounds++
		spent := c.o.Clock.Boot().Sub(start)
		if spent > retryFor || spent > firstContact && !c.endpoints.everAnswered() {
			return nil, repeated, gaveUp(r.String(), spent, fmt.Errorf("%s: %w", e.url.Host, err))
		}
		wait := delay.NextBackOff()
		if answered {
			wait = max(wait, min(status.retryAfter, 5*time.Second))
		}
		if c.o.Clock.Wait(ctx, wait) != nil {
			return nil, repeated, interrupted(ctx, r.String(), err)
		}
	}
}

// count numbers the attempts of a request that has a name, as the AWS SDKs do:
// only one that says that it is not the first gets the first one's answer.
func (r *request) count() {
	if r.header.Get(invocationHeader) != "" {
		r.attempts++
		r.header.Set("Amz-Sdk-Request", fmt.Sprintf("attempt=%d", r.attempts))
	}
}

// silence is how long an endpoint may be silent. What only reads is cheap to ask
// elsewhere, so it leaves a frozen node soon; but each round is more patient,
// lest a slow cluster looks like a dead one.
func (c *Client) silence(r *request, rounds int) time.Duration {
	d := c.o.Silence
	if r.method == http.MethodGet || r.method == http.MethodHead {
		d = min(d/3*time.Duration(1+rounds), d)
	}
	return d + r.patience + c.o.Patience
}

// maxFaults is how many answers like "internal error" a request bears.
const maxFaults = 3

// interrupted is the error of a request whose context ended. What was wrong
// until then is told, not wrapped.
func interrupted(ctx context.Context, what string, last error) error {
	if errors.Is(last, context.Canceled) || errors.Is(last, context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
	return fmt.Errorf("%s: %w (%v)", what, context.Cause(ctx), last) //nolint:errorlint // the cause is what counts
}

func newBackOff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = 100 * time.Millisecond
	b.MaxInterval = 2 * time.Second
	b.Reset()
	return b
}

// mayHaveArrived says whether the request of a failed attempt may have taken
// effect: not if there was no connection.
func mayHaveArrived(err error) bool {
	var op *net.OpError
	return !errors.As(err, &op) || op.Op != "dial"
}

// attempt sends the request to one endpoint. The answer's body is guarded. Once
// attempt has returned, nobody reads the request's body any more.
func (c *Client) attempt(ctx context.Context, e *endpoint, r *request, silence time.Duration) (*http.Response, error) {
	g := newGuard(ctx, c.o.Clock, silence)
	body := &requestBody{data: r.body, g: g, progress: r.progress}
	resp, err := c.send(g, e, r, body)
	if err == nil && resp.StatusCode/100 == 2 {
		body.detach(false)
		resp.Body = guardedBody{guardedReader{r: resp.Body, g: g}, resp.Body}
		return resp, nil
	}
	body.detach(true)
	if err == nil {
		err = readError(r, resp)
		_ = resp.Body.Close()
	}
	err = g.why(err)
	g.stop()
	return nil, err
}

func (c *Client) send(g *guard, e *endpoint, r *request, body *requestBody) (*http.Response, error) {
	path, err := url.PathUnescape(r.path)
	if err != nil {
		return nil, fmt.Errorf("path %q: %w", r.path, err)
	}
	req, err := http.NewRequestWithContext(g.ctx, r.method, e.url.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	req.URL = &url.URL{Scheme: e.url.Scheme, Host: e.url.Host, Path: path, RawPath: r.path, RawQuery: r.query.Encode()}
	if r.header != nil {
		req.Header = r.header.Clone()
	}
	req.Header.Set("User-Agent", c.o.UserAgent)
	hash := "UNSIGNED-PAYLOAD"
	if !r.data {
		sum := sha256.Sum256(r.body)
		hash = hex.EncodeToString(sum[:])
	}
	if len(r.body) > 0 {
		req.ContentLength = int64(len(r.body))
		req.Body = body
		req.GetBody = func() (io.ReadCloser, error) { return body.again(), nil }
	}
	req.Header.Set("X-Amz-Content-Sha256", hash)
	if err := c.signer.SignHTTP(g.ctx, c.creds, req, hash, "s3", c.o.Region, c.o.Clock.Now(), unescaped); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return c.http.Do(req)
}

// readError makes an error of an answer, from the body of either interface.
func readError(r *request, resp *http.Response) error {
	var retryAfter time.Duration
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
		retryAfter = time.Duration(s) * time.Second
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil && len(body) == 0 && r.method != http.MethodHead {
		return fmt.Errorf("read the answer of status %d: %w", resp.StatusCode, err)
	}
	var own api.ErrorBody
	var e *statusError
	switch {
	case json.Unmarshal(body, &own) == nil && own.Error != nil:
		e = newStatusError(resp.StatusCode, own.Error)
	case !strings.HasPrefix(r.path, api.Prefix):
		e = s3Error(resp.StatusCode, body)
	default:
		e = newStatusError(resp.StatusCode, &api.Error{
			Code: codeOf(resp.StatusCode), Message: fmt.Sprintf("%s: the server answered %s", r, resp.Status),
		})
	}
	e.retryAfter = retryAfter
	return e
}

// codeOf is the code for an answer that brings none.
func codeOf(status int) api.Code {
	switch status {
	case http.StatusBadRequest:
		return api.CodeInvalid
	case http.StatusUnauthorized, http.StatusForbidden:
		return api.CodeForbidden
	case http.StatusNotFound:
		return api.CodeNotFound
	case http.StatusConflict:
		return api.CodeConflict
	case http.StatusPreconditionFailed:
		return api.CodePrecondition
	case http.StatusRequestEntityTooLarge:
		return api.CodeTooLarge
	case http.StatusNotImplemented:
		return api.CodeNotBuilt
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusBadGateway:
		return api.CodeUnavailable
	case http.StatusGatewayTimeout, http.StatusRequestTimeout:
		return api.CodeTimedOut
	}
	return api.CodeInternal
}

// call is do for the own interface: in, if not nil, goes as JSON, and the
// answer is read into out, if not nil.
func (c *Client) call(ctx context.Context, r request, in, out any) (repeated bool, err error) {
	if in != nil {
		if r.body, err = json.Marshal(in); err != nil {
			return false, fmt.Errorf("%s: %w", &r, err)
		}
		r.header = http.Header{"Content-Type": {"application/json"}}
	}
	start := c.o.Clock.Boot()
	for {
		resp, again, err := c.do(ctx, &r)
		repeated = repeated || again
		if err != nil {
			return repeated, err
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err == nil {
			if out == nil {
				return repeated, nil
			}
			if err := json.Unmarshal(body, out); err != nil {
				return repeated, fmt.Errorf("%s: malformed answer: %w", &r, err)
			}
			return repeated, nil
		}
		// The node died while it answered.
		repeated = true
		if ctx.Err() != nil {
			return true, fmt.Errorf("%s: %w", &r, context.Cause(ctx))
		}
		if spent := c.o.Clock.Boot().Sub(start); spent > c.o.RetryFor {
			return true, gaveUp(r.String(), spent, err)
		}
	}
}
