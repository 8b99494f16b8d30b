// Package httpbackend is [core.Backend] on web servers, which are only read. A
// bucket is an origin (host[:port]), a key what is asked for there: path and query
// without the first slash.
//
//	b, err := httpbackend.Open(httpbackend.Options{Scheme: core.HTTPS})
//	object, body, err := b.Get(ctx, "example.net", "sets/a.tar?v=2", core.RemoteGet{Length: -1})
//
// The key goes into the request as it is; what cannot stand there (a space, "#", letters
// beyond ASCII, a lone "%") is escaped. There are no listings.
//
// # Versions
//
// A version is a strong ETag, quotes included. Where there is none it is made of the
// Last-Modified time, the size and a weak ETag; then a change within one second that
// leaves the size alone is not seen. An origin that tells neither time nor ETag, or not how
// long its answer is, cannot be used: parts of two states could not be told apart.
//
// # Ranges
//
// An origin that answers a range with everything is read from the beginning, and what is
// before the range is thrown away: there is no way to read just a part of it. So the
// further behind a range is, the more it costs; [core.RemoteObject.NoRanges] says so, and
// who wants several reads the whole once instead.
//
// # Who is asked
//
// Users name URLs and the servers ask them. So origins are asked at public addresses only,
// unless the configuration lists them; see [Options.Allow]. This holds for every redirect, too;
// at most five are followed, and none from https to http.
package httpbackend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/remotehttp"
)

// maxRedirects is how many redirects of one request are followed.
const maxRedirects = 5

// Options of [Open].
type Options struct {
	// Scheme is [core.HTTP] or [core.HTTPS].
	Scheme core.Provider
	// Allow lists the origins that may be asked: http://host:port,
	// https://*.example.net (not example.net itself), "*" for every one. Empty is
	// "*". An origin that only "*" matches is asked at public addresses; a listed one at
	// private and loopback ones as well. Link-local addresses, where clouds keep
	// credentials, are asked only where the list has the address itself.
	Allow []string
}

// Backend asks the origins of one scheme.
type Backend struct {
	scheme core.Provider
	allow  policy
	client *http.Client
	dialer *http.Transport
}

var _ core.Backend = (*Backend)(nil)

// Open returns a backend. It makes no request.
func Open(o Options) (*Backend, error) {
	if o.Scheme != core.HTTP && o.Scheme != core.HTTPS {
		return nil, fmt.Errorf("scheme %q: want http or https: %w", o.Scheme, core.ErrInvalid)
	}
	allow, err := newPolicy(o.Allow)
	if err != nil {
		return nil, err
	}
	b := &Backend{scheme: o.Scheme, allow: allow, dialer: remotehttp.Transport(allow.dial)}
	b.client = &http.Client{Transport: b.dialer, CheckRedirect: b.redirect}
	return b, nil
}

// Close lets connections go.
func (b *Backend) Close() error {
	b.client.CloseIdleConnections()
	return nil
}

// Abilities implements [core.Backend].
func (b *Backend) Abilities() core.RemoteAbilities {
	return core.RemoteAbilities{ReadOnly: true, NoList: true}
}

func (b *Backend) unsupported(what, bucket string) error {
	return fmt.Errorf("%s %s://%s: origins are only read, and not listed: %w", what, b.scheme, bucket, errors.ErrUnsupported)
}

// Buckets implements [core.Backend]: the origins that are listed one by one.
func (b *Backend) Buckets(context.Context) ([]string, error) {
	return b.allow.origins(b.scheme), nil
}

// List implements [core.Backend].
func (b *Backend) List(_ context.Context, bucket string, _ core.RemoteListOptions) (core.RemoteListing, error) {
	return core.RemoteListing{}, b.unsupported("list", bucket)
}

// Put implements [core.Backend].
func (b *Backend) Put(_ context.Context, bucket, _ string, _ core.RemotePut) (core.RemoteObject, error) {
	return core.RemoteObject{}, b.unsupported("put to", bucket)
}

// Delete implements [core.Backend].
func (b *Backend) Delete(_ context.Context, bucket, _ string, _ core.RemoteCondition) error {
	return b.unsupported("delete in", bucket)
}

// HeadBucket implements [core.Backend]: an origin is there if it answers. What it
// says of its root says nothing of the rest; many refuse just that.
func (b *Backend) HeadBucket(ctx context.Context, bucket string) error {
	res, err := b.ask(ctx, http.MethodHead, bucket, "", nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests {
		return b.refused("head", bucket, "", res)
	}
	return nil
}

// ask makes a request.
func (b *Backend) ask(ctx context.Context, method, bucket, key string, h http.Header) (*http.Response, error) {
	what := fmt.Sprintf("%s %s://%s/%s", strings.ToLower(method), b.scheme, bucket, key)
	if err := (core.BucketName{Provider: b.scheme, Name: bucket}).Validate(); err != nil {
		return nil, err
	}
	u, err := url.Parse(string(b.scheme) + "://" + bucket + "/" + escape(key))
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", what, core.ErrInvalid, err)
	}
	if err := b.allow.check(u); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", what, core.ErrInvalid, err)
	}
	req.Header = h
	if h == nil {
		req.Header = http.Header{}
	}
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "shoal")
	res, err := b.client.Do(req)
	var dns *net.DNSError
	switch {
	case err == nil:
		return res, nil
	case errors.As(err, &dns) && dns.IsNotFound:
		return nil, fmt.Errorf("%s: %w: %s", what, core.ErrNoSuchBucket, dns.Error())
	}
	// Its words hold the whole URL again.
	if of, ok := errors.AsType[*url.Error](err); ok {
		err = of.Err
	}
	return nil, fmt.Errorf("%s: %w", what, remotehttp.Failed(err, false))
}

// redirect says whether a redirect is followed.
func (b *Backend) redirect(req *http.Request, via []*http.Request) error {
	req.Header.Del("Referer") // a URL may be a secret
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("more than %d redirects: %w", maxRedirects, core.ErrPermission)
	case req.URL.User != nil:
		return fmt.Errorf("redirect with a password to %s: %w", req.URL.Host, core.ErrPermission)
	case via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https":
		return fmt.Errorf("redirect from https to %s://%s: %w", req.URL.Scheme, req.URL.Host, core.ErrPermission)
	}
	return b.allow.check(req.URL)
}

// refused is the error of an answer that is none.
func (b *Backend) refused(what, bucket, key string, res *http.Response) error {
	words := ""
	if kind := res.Header.Get("Content-Type"); strings.HasPrefix(kind, "text/plain") || strings.HasPrefix(kind, "application/json") {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 512)) // whatever there is of it
		words = ": " + strings.Join(strings.Fields(strings.ToValidUTF8(string(text), "")), " ")
	}
	err := fmt.Errorf("%s%s", res.Status, words)
	return fmt.Errorf("%s %s://%s/%s: %w", what, b.scheme, bucket, key, remotehttp.Status(res.StatusCode, res.Header, err, false))
}

// escape makes of a key what can stand in a request, leaving the rest as it is.
func escape(key string) string {
	const hex = "0123456789ABCDEF"
	isHex := func(i int) bool { return i < len(key) && strings.IndexByte("0123456789abcdefABCDEF", key[i]) >= 0 }
	var out strings.Builder
	for i, c := range []byte(key) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~/?:@!$&'()*+,;=", c) >= 0,
			c == '%' && isHex(i+1) && isHex(i+2):
			out.WriteByte(c)
		default:
			out.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return out.String()
}
