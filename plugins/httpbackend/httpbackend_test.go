package httpbackend

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/backendtest"
	"github.com/shoalstore/shoal/plugins/cloudtest"
	"github.com/shoalstore/shoal/plugins/cloudtest/cloudsuite"
)

// web is a web server with objects.
type web struct {
	*httptest.Server
	kind string // "" is net/http's own behaviour with strong ETags

	mu      sync.Mutex
	objects map[string]page
	now     time.Time
}

type page struct {
	data     []byte
	modified time.Time
}

func newWeb(t *testing.T, kind string) *web {
	w := &web{kind: kind, objects: map[string]page{}, now: time.Now().Add(-time.Hour).Truncate(time.Second)}
	w.Server = httptest.NewServer(w)
	t.Cleanup(w.Close)
	return w
}

func (w *web) put(key string, data []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(time.Second)
	w.objects[key] = page{data, w.now}
}

func (w *web) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	p, ok := w.objects[strings.TrimPrefix(r.URL.Path, "/")]
	w.mu.Unlock()
	if !ok {
		http.NotFound(out, r)
		return
	}
	etag := fmt.Sprintf(`"%x"`, md5.Sum(append(slices.Clone(p.data), "salt"...)))
	switch w.kind {
	case "times":
	case "weak":
		out.Header().Set("ETag", "W/"+etag)
	case "no ranges", "no HEAD":
		out.Header().Set("ETag", etag)
		r.Header.Del("Range")
		if w.kind == "no HEAD" && r.Method == http.MethodHead {
			out.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
	default:
		out.Header().Set("ETag", etag)
	}
	modified := p.modified
	if w.kind == "no conditions" {
		r.Header.Del("If-Match")
		r.Header.Del("If-Unmodified-Since")
	}
	http.ServeContent(out, r, r.URL.Path, modified, bytes.NewReader(p.data))
}

func (w *web) host() string { return strings.TrimPrefix(w.URL, "http://") }

func open(t *testing.T, allow ...string) *Backend {
	t.Helper()
	b, err := Open(Options{Scheme: core.HTTP, Allow: allow})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// noHost makes DNS say that there is no such host, without DNS.
func noHost(b *Backend, host string) *Backend {
	dial := b.dialer.DialContext
	b.dialer.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if strings.HasPrefix(addr, host+":") {
			return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}}
		}
		return dial(ctx, network, addr)
	}
	return b
}

func TestBackend(t *testing.T) {
	for _, kind := range []string{"", "times", "weak", "no ranges", "no HEAD", "no conditions"} {
		t.Run(kind, func(t *testing.T) {
			w := newWeb(t, kind)
			o := backendtest.Options{
				New: func(t *testing.T) (core.Backend, string) {
					w.mu.Lock()
					clear(w.objects)
					w.mu.Unlock()
					return noHost(open(t, w.URL, "*"), "none.example"), w.host()
				},
				Seed:         func(_ *testing.T, _, key string, data []byte) { w.put(key, data) },
				NoSuchBucket: "none.example", Plain404: true, AnyHead: true,
			}
			if kind == "" {
				o.VersionHeader = "ETag"
			}
			if kind == "" || kind == "times" {
				o.Proxied = func(t *testing.T) (core.Backend, string, backendtest.Proxy) {
					p, err := cloudtest.StartProxy(cloudtest.ProxyOptions{Upstream: w.URL})
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() {
						if err := p.Close(); err != nil {
							t.Error(err)
						}
					})
					w.mu.Lock()
					clear(w.objects)
					w.mu.Unlock()
					return open(t, p.URL()), strings.TrimPrefix(p.URL(), "http://"), cloudsuite.Proxy(p)
				}
			}
			backendtest.Run(t, o)
		})
	}
}

// What stands in the request is what was written, and what cannot stand there is
// escaped.
// TestNoRanges: it is told of an origin that it answers ranges with everything.
func TestNoRanges(t *testing.T) {
	for _, kind := range []string{"", "no ranges"} {
		w := newWeb(t, kind)
		w.put("key", make([]byte, 100))
		for length, ranged := range map[int64]bool{10: true, -1: false} {
			o, body, err := open(t, w.URL).Get(t.Context(), w.host(), "key", core.RemoteGet{Length: length})
			if err != nil {
				t.Fatal(err)
			}
			if want := kind != "" && ranged; o.NoRanges != want {
				t.Errorf("origin %q: NoRanges of %d bytes is %v", kind, length, o.NoRanges)
			}
			_ = body.Close()
		}
	}
}

func TestEscape(t *testing.T) {
	for key, want := range map[string]string{
		"a/b": "/a/b", "a%2Fb": "/a%2Fb", "a b": "/a%20b", "a?b=c&d=%20": "/a?b=c&d=%20", "a#b": "/a%23b", "100%": "/100%25", "%zz": "/%25zz", "ü": "/%C3%BC",
		"//x": "///x", "a/../b": "/a/../b", "./a": "/./a", "a?": "/a?", "a[1]": "/a%5B1%5D", "a\nb": "/a%0Ab", "a:b@c": "/a:b@c", "\x00": "/%00", `a\b`: "/a%5Cb",
	} {
		var got string
		s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.RequestURI }))
		_, err := open(t, s.URL).Head(t.Context(), strings.TrimPrefix(s.URL, "http://"), key)
		s.Close()
		if got != want {
			t.Errorf("%q: asked for %q, want %q (%v)", key, got, want, err)
		}
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("a b%2F?x#y")
	f.Fuzz(func(t *testing.T, key string) {
		e := escape(key)
		u, err := url.Parse("http://h/" + e)
		if err != nil || u.Host != "h" || u.User != nil || u.Fragment != "" || u.RequestURI() != "/"+e || escape(e) != e {
			t.Errorf("%q: %q, %+v, %v", key, e, u, err)
		}
	})
}

// Users cannot have servers ask what they should not reach.
func TestWhoIsAsked(t *testing.T) {
	secret := newWeb(t, "")
	secret.put("key", []byte("secret"))
	_, port, _ := net.SplitHostPort(secret.host())
	var to string
	public := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Referer") != "" {
			t.Error("a Referer was sent")
		}
		http.Redirect(w, r, to, http.StatusFound)
	}))
	defer public.Close()
	get := func(b *Backend, bucket string) error {
		_, body, err := b.Get(t.Context(), bucket, "key?token=private", core.RemoteGet{Length: -1})
		if err == nil {
			_ = body.Close()
		}
		return err
	}
	host := strings.TrimPrefix(public.URL, "http://")
	for name, c := range map[string]struct {
		allow  []string
		bucket string
		to     string
		ok     bool
	}{
		"loopback":                    {nil, secret.host(), "", false},
		"loopback by name":            {nil, "localhost:" + port, "", false},
		"loopback, with *":            {[]string{"*"}, secret.host(), "", false},
		"another is listed":           {[]string{public.URL}, secret.host(), "", false},
		"another port":                {[]string{"http://127.0.0.1:1"}, secret.host(), "", false},
		"another scheme":              {[]string{"https://" + secret.host()}, secret.host(), "", false},
		"listed":                      {[]string{secret.URL}, secret.host(), "", true},
		"listed by name":              {[]string{"http://localhost:" + port + "/"}, "localhost:" + port, "", true},
		"listed by another name":      {[]string{"http://localhost:" + port, "*"}, secret.host(), "", false},
		"redirect to loopback":        {[]string{public.URL, "*"}, host, secret.URL + "/key", false},
		"redirect to what is listed":  {[]string{public.URL, secret.URL}, host, secret.URL + "/key", true},
		"redirect to metadata":        {[]string{public.URL, "*"}, host, "http://169.254.169.254/latest/meta-data/", false},
		"redirect to IPv6 metadata":   {[]string{public.URL, "*"}, host, "http://[fd00:ec2::254]/", false},
		"redirect with a password":    {[]string{public.URL, secret.URL}, host, "http://u:p@" + secret.host() + "/key", false},
		"redirect to a file":          {[]string{public.URL, "*"}, host, "file:///etc/passwd", false},
		"redirects in a circle":       {[]string{public.URL}, host, "/again", false},
		"an address in another form":  {nil, "2130706433", "", false},
		"a private address":           {nil, "10.255.255.1", "", false},
		"unspecified, which is local": {nil, "0.0.0.0:" + port, "", false},
	} {
		to = c.to
		err := get(open(t, c.allow...), c.bucket)
		if c.ok && err != nil || !c.ok && err == nil {
			t.Errorf("%s: got %v", name, err)
		}
		if err != nil && !errors.Is(err, core.ErrPermission) && name != "an address in another form" {
			t.Errorf("%s: got %v, want ErrPermission", name, err)
		}
	}
	secure := httptest.NewTLSServer(http.RedirectHandler(secret.URL+"/key", http.StatusFound))
	defer secure.Close()
	b, err := Open(Options{Scheme: core.HTTPS, Allow: []string{secure.URL, secret.URL}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.client.CloseIdleConnections()
	b.dialer.TLSClientConfig = secure.Client().Transport.(*http.Transport).TLSClientConfig
	if err := get(b, strings.TrimPrefix(secure.URL, "https://")); !errors.Is(err, core.ErrPermission) || !strings.Contains(err.Error(), "from https") {
		t.Errorf("redirect from https to http: %v", err)
	}
}

func TestPolicy(t *testing.T) {
	p, err := newPolicy([]string{"https://*.example.net", "http://h:81", "http://169.254.1.1", "https://Big.example.org:443", "https://small"})
	if err != nil {
		t.Fatal(err)
	}
	for u, want := range map[string]bool{
		"https://a.example.net/": true, "https://a.b.example.net": true, "https://A.EXAMPLE.NET:443": true, "https://example.net": false, "https://xexample.net": false,
		"https://a.example.net:444": false, "http://a.example.net": false, "http://h:81": true, "http://h": false, "https://big.example.org": true, "ftp://h:81": false,
	} {
		parsed, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.check(parsed); (err == nil) != want {
			t.Errorf("%s: %v, want %v", u, err, want)
		}
	}
	for _, c := range []struct {
		host, at string
		ok       bool
	}{
		{"a.example.net:443", "10.0.0.1:443", true},
		{"a.example.net:443", "169.254.169.254:443", false},
		{"other.net:443", "10.0.0.1:443", false},
		{"other.net:443", "8.8.8.8:443", true},
		{"169.254.1.1:80", "169.254.1.1:80", true},
		{"169.254.1.2:80", "169.254.1.2:80", false},
		{"169.254.1.1:81", "169.254.1.1:81", false},
	} {
		if err := p.dial(c.host, netip.MustParseAddrPort(c.at)); (err == nil) != c.ok {
			t.Errorf("%s at %s: %v, want %v", c.host, c.at, err, c.ok)
		}
	}
	if got := p.origins(core.HTTPS); !slices.Equal(got, []string{"big.example.org", "small"}) {
		t.Errorf("origins %q", got)
	}
	if got := p.origins(core.HTTP); !slices.Equal(got, []string{"169.254.1.1", "h:81"}) {
		t.Errorf("origins %q", got)
	}
	for _, bad := range []string{"", "h", "ftp://h", "http://", "http://h/x", "http://u@h", "shoal://abc", "http://*", "http://*.*.h"} {
		if _, err := newPolicy([]string{bad}); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%q was accepted: %v", bad, err)
		}
	}
}

// What cannot be kept is said, not guessed.
func TestOrigins(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request)
		want   error
		words  string
	}{
		"no version": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "data") }, errors.ErrUnsupported, "neither ETag nor"},
		"no length": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `"a"`)
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, "data")
		}, errors.ErrUnsupported, "how long"},
		"forbidden": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not for you", http.StatusForbidden) }, core.ErrPermission, "not for you"},
		"gone":      {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "gone", http.StatusGone) }, core.ErrNotFound, "gone"},
		"several ranges": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `"a"`)
			w.Header().Set("Content-Type", "multipart/byteranges; boundary=x")
			w.WriteHeader(206)
			_, _ = io.WriteString(w, "--x\r\n")
		}, core.ErrUnavailable, "Content-Range"},
		"nothing": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, core.ErrUnavailable, "204"},
	} {
		s := httptest.NewServer(http.HandlerFunc(c.answer))
		b := open(t, s.URL)
		_, _, err := b.Get(t.Context(), strings.TrimPrefix(s.URL, "http://"), "key", core.RemoteGet{Offset: 1, Length: 2})
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: get: %v", name, err)
		}
		if name != "several ranges" && name != "nothing" {
			if _, err = b.Head(t.Context(), strings.TrimPrefix(s.URL, "http://"), "key"); !errors.Is(err, c.want) {
				t.Errorf("%s: head: %v", name, err)
			}
		}
		s.Close()
	}
	w := newWeb(t, "")
	w.put("a.html", []byte("<p>"))
	o, err := open(t, w.URL).Head(t.Context(), w.host(), "a.html")
	if err != nil || !strings.HasPrefix(o.Headers["Content-Type"], "text/html") || !strings.HasSuffix(o.ETag, "-1") {
		t.Errorf("got %+v, %v", o, err)
	}
	for _, bucket := range []string{"H", "h:80", "a/b", "", "u@h"} {
		if _, err := open(t).Head(t.Context(), bucket, "key"); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("origin %q: %v", bucket, err)
		}
	}
}

func TestVersion(t *testing.T) {
	at := time.Unix(1700000000, 0)
	for _, c := range []struct {
		etag string
		at   time.Time
		want core.RemoteVersion
	}{
		{`"a"`, at, `"a"`},
		{`"a"`, time.Time{}, `"a"`},
		{`W/"a"`, at, `1700000000+5W/"a"`},
		{`W/"a"`, time.Time{}, `+5W/"a"`},
		{"", at, "1700000000+5"},
		{"bare", at, "1700000000+5"},
		{`"`, at, "1700000000+5"},
		{`""`, at, "1700000000+5"},
		{`"a"b"`, at, "1700000000+5"},
		{"", time.Time{}, ""},
		{"bare", time.Time{}, ""},
	} {
		if got := version(c.etag, c.at, 5); got != c.want {
			t.Errorf("%s, %v: got %s, want %s", c.etag, c.at, got, c.want)
		}
	}
}
