package s3backend

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/backendtest"
	"github.com/shoalstore/shoal/plugins/cloudtest"
	"github.com/shoalstore/shoal/plugins/cloudtest/cloudsuite"
)

func open(t *testing.T, o Options) *Backend {
	t.Helper()
	b, err := Open(t.Context(), o)
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

// options are those of a backend at the endpoint of a server or a proxy.
func options(s *cloudtest.Server, endpoint string) Options {
	o := Options{Settings: s.Settings(endpoint), AccessKey: s.AccessKey(), SecretKey: s.Secret()}
	o.Settings.Conditions = true
	return o
}

func bucket(t *testing.T, s *cloudtest.Server) string {
	t.Helper()
	name := "t-" + core.NewRequestID().String()
	if err := s.CreateBucket(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestBackend(t *testing.T) {
	s := cloudtest.Serve(t, cloudtest.Options{})
	backendtest.Run(t, backendtest.Options{
		New: func(t *testing.T) (core.Backend, string) { return open(t, options(s, s.URL())), bucket(t, s) },
		Proxied: func(t *testing.T) (core.Backend, string, backendtest.Proxy) {
			p := cloudtest.ServeProxy(t, s)
			return open(t, options(s, p.URL())), bucket(t, s), cloudsuite.Proxy(p)
		},
		Failing:       func(t *testing.T) []backendtest.Failing { return failing(t, s) },
		VersionHeader: "ETag",
		CannotHold:    versitygwCannotHold,
		Weak:          []string{"delete"},
	})
}

// Of a server that may not know conditions none is asked for.
func TestWithoutConditions(t *testing.T) {
	s := cloudtest.Serve(t, cloudtest.Options{})
	backendtest.Run(t, backendtest.Options{
		New: func(t *testing.T) (core.Backend, string) {
			o := options(s, s.URL())
			o.Settings.Conditions = false
			return open(t, o), bucket(t, s)
		},
		Groups: []string{"Abilities", "PutConditions", "DeleteConditions", "Copy"},
	})
}

// Copies by parts are as others.
func TestCopyByParts(t *testing.T) {
	s := cloudtest.Serve(t, cloudtest.Options{})
	backendtest.Run(t, backendtest.Options{
		New: func(t *testing.T) (core.Backend, string) {
			b := open(t, options(s, s.URL()))
			b.maxCopy, b.partCopy = 1000, minPart
			return b, bucket(t, s)
		},
		Groups: []string{"Copy"},
	})
	b, name := open(t, options(s, s.URL())), bucket(t, s)
	b.maxCopy, b.partCopy = 1<<20, minPart
	data := strings.Repeat("0123456789abcdef", 12<<20/16) + "end"
	put(t, b, name, "from", data)
	obj, err := b.Copy(t.Context(), name, "from", "", name, "to", core.RemotePut{})
	if err != nil || obj.Size != int64(len(data)) || !strings.HasSuffix(obj.ETag, "-3") {
		t.Fatalf("copy of 12 MiB by parts of 5 MiB: got %+v, %v", obj, err)
	}
	_, body, err := b.Get(t.Context(), name, "to", core.RemoteGet{Offset: 6 << 20, Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if got := read(t, body); got != data[6<<20:] {
		t.Errorf("the copy differs: %d bytes", len(got))
	}
}

// versitygwCannotHold: its keys are paths of files, cleaned.
func versitygwCannotHold(key string) string {
	if strings.Contains(key, "\x00") {
		return "it fails (500)"
	}
	if strings.ContainsFunc(key, func(r rune) bool { return r < ' ' && !strings.ContainsRune("\t\n\r", r) }) {
		return "its listings are XML without encoding-type, so they have U+FFFD for it"
	}
	for i, part := range strings.Split(key, "/") {
		if part == "." || part == ".." || part == "" && i < strings.Count(key, "/") {
			return "it cleans the path"
		}
	}
	return ""
}

// alone clears what the SDK would find on this machine.
func alone(t *testing.T) {
	t.Helper()
	for _, name := range []string{
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION",
		"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
		"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN",
	} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", t.TempDir()+"/none")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", t.TempDir()+"/none")
}

func failing(t *testing.T, s *cloudtest.Server) []backendtest.Failing {
	alone(t)
	name := bucket(t, s)
	with := func(f func(o *Options)) core.Backend {
		o := options(s, s.URL())
		f(&o)
		return open(t, o)
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<html><body>Welcome to our web server</body></html>"))
	}))
	t.Cleanup(web.Close)
	absent := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(absent.Close)
	heads := []string{"Head", "HeadBucket"} // whose answers have no words
	writes := []string{"Put", "Put of more", "Delete", "AbortUpload"}
	return []backendtest.Failing{
		{Name: "another access key", Backend: with(func(o *Options) { o.AccessKey = "another" }), Bucket: name, Want: core.ErrPermission},
		{Name: "another access key, in words", Backend: with(func(o *Options) { o.AccessKey = "another" }), Bucket: name, Want: core.ErrPermission, Words: "not known there", Skip: heads},
		{Name: "another secret", Backend: with(func(o *Options) { o.SecretKey = "another" }), Bucket: name, Want: core.ErrPermission},
		{Name: "another secret, in words", Backend: with(func(o *Options) { o.SecretKey = "another" }), Bucket: name, Want: core.ErrPermission, Words: "the secret key is another one", Skip: heads},
		{Name: "nobody", Backend: with(func(o *Options) { o.AccessKey = ""; o.Settings.Anonymous = true }), Bucket: name, Want: core.ErrPermission},
		{Name: "no credentials", Backend: with(func(o *Options) { o.AccessKey = "" }), Bucket: name, Want: core.ErrPermission, Words: "give keys or a profile"},
		{Name: "another region", Backend: with(func(o *Options) { o.Settings.Region = "eu-west-1" }), Bucket: name, Want: core.ErrWrongRegion, Words: "us-east-1", Skip: heads},
		{Name: "nobody listens", Backend: with(func(o *Options) { o.Settings.Endpoint = gone.URL }), Bucket: name, Want: core.ErrUnavailable, Words: "refused"},
		{Name: "no such host", Backend: with(func(o *Options) { o.Settings.Endpoint = "http://nowhere.invalid" }), Bucket: name, Want: core.ErrUnavailable, Words: "nowhere.invalid"},
		{Name: "a web server", Backend: with(func(o *Options) { o.Settings.Endpoint = web.URL }), Bucket: name, Want: core.ErrUnavailable, Skip: slices.Concat(writes, []string{"HeadBucket"})},
		{Name: "a web server, written to", Backend: with(func(o *Options) { o.Settings.Endpoint = web.URL }), Bucket: name, Want: core.ErrUnknownOutcome, Skip: []string{"Head", "Get", "List", "HeadBucket", "Delete", "AbortUpload"}},
		{Name: "a web server with nothing", Backend: with(func(o *Options) { o.Settings.Endpoint = absent.URL }), Bucket: name, Want: core.ErrUnavailable, Skip: writes},
		{Name: "a web server with nothing, written to", Backend: with(func(o *Options) { o.Settings.Endpoint = absent.URL }), Bucket: name, Want: core.ErrUnknownOutcome, Skip: []string{"Head", "Get", "List", "HeadBucket"}},
	}
}

func xmlError(code, message string) string {
	return "<?xml version=\"1.0\"?><Error><Code>" + code + "</Code><Message>" + message + "</Message></Error>"
}

// Answers that the test servers do not give.
func TestAnswers(t *testing.T) {
	alone(t)
	for _, c := range []struct {
		name   string
		status int
		header map[string]string
		body   string
		head   error // of HEAD, nil if it is not asked
		get    error
		put    error
		words  string
	}{
		{"moved", 301, map[string]string{"X-Amz-Bucket-Region": "eu-west-1"}, xmlError("PermanentRedirect", "use the endpoint"), core.ErrWrongRegion, core.ErrWrongRegion, core.ErrWrongRegion, "eu-west-1"},
		{"moved for now", 307, map[string]string{"X-Amz-Bucket-Region": "eu-west-1", "Location": "http://127.0.0.1:1/"}, xmlError("TemporaryRedirect", "use the endpoint"), core.ErrWrongRegion, core.ErrWrongRegion, core.ErrWrongRegion, "eu-west-1"},
		{"malformed", 400, map[string]string{"X-Amz-Bucket-Region": "eu-west-1"}, xmlError("AuthorizationHeaderMalformed", "expecting eu-west-1"), core.ErrWrongRegion, core.ErrWrongRegion, core.ErrWrongRegion, "eu-west-1"},
		{"malformed, of this region", 400, map[string]string{"X-Amz-Bucket-Region": "us-east-1"}, xmlError("InvalidArgument", "no"), core.ErrInvalid, core.ErrInvalid, core.ErrInvalid, ""},
		{"slow down", 503, map[string]string{"Retry-After": "4"}, xmlError("SlowDown", "reduce your rate"), nil, core.ErrThrottled, core.ErrThrottled, "reduce your rate"},
		{"unavailable", 503, nil, xmlError("ServiceUnavailable", "later"), core.ErrUnavailable, core.ErrUnavailable, core.ErrUnavailable, ""},
		{"internal", 500, nil, xmlError("InternalError", "again"), core.ErrUnavailable, core.ErrUnavailable, core.ErrUnknownOutcome, ""},
		{"conflict", 409, nil, xmlError("ConditionalRequestConflict", "at once"), nil, core.ErrUnavailable, core.ErrUnavailable, ""},
		{"timeout of the body", 400, nil, xmlError("RequestTimeout", "your socket was idle"), nil, core.ErrUnavailable, core.ErrUnavailable, ""},
		{"clock", 403, nil, xmlError("RequestTimeTooSkewed", "the difference is too large"), core.ErrPermission, core.ErrPermission, core.ErrPermission, ""},
		{"archived", 403, nil, xmlError("InvalidObjectState", "glacier"), nil, core.ErrPermission, core.ErrPermission, "restored"},
		{"not there", 404, map[string]string{"X-Amz-Request-Id": "1"}, xmlError("NoSuchKey", "the key"), core.ErrNotFound, core.ErrNotFound, core.ErrNotFound, ""},
		{"not there, says one without request ids", 404, nil, xmlError("NoSuchKey", "the key"), core.ErrNotFound, core.ErrNotFound, core.ErrNotFound, ""},
		{"not there, says somebody else", 404, nil, "404 page not found", core.ErrUnavailable, core.ErrUnavailable, core.ErrUnknownOutcome, ""},
		{"not implemented", 501, nil, xmlError("NotImplemented", "a header"), errors.ErrUnsupported, errors.ErrUnsupported, errors.ErrUnsupported, ""},
		{"a code of its own", 418, nil, xmlError("Teapot", "short and stout"), core.ErrInvalid, core.ErrInvalid, core.ErrInvalid, "short and stout"},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for name, v := range c.header {
				w.Header().Set(name, v)
			}
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte(c.body))
		}))
		b := open(t, Options{Settings: core.RemoteSettings{Endpoint: srv.URL, PathStyle: true, Region: "us-east-1"}, AccessKey: "a", SecretKey: "s"})
		_, headErr := b.Head(t.Context(), "bucket", "key")
		_, _, getErr := b.Get(t.Context(), "bucket", "key", core.RemoteGet{Length: -1})
		_, putErr := b.Put(t.Context(), "bucket", "key", core.RemotePut{Size: 4, Open: opener("data")})
		srv.Close()
		for _, x := range []struct {
			name      string
			got, want error
		}{{"head", headErr, c.head}, {"get", getErr, c.get}, {"put", putErr, c.put}} {
			if x.want != nil && !errors.Is(x.got, x.want) {
				t.Errorf("%s, %s: got %v, want %v", c.name, x.name, x.got, x.want)
			}
		}
		if !strings.Contains(getErr.Error(), c.words) {
			t.Errorf("%s: %q does not speak of %q", c.name, getErr, c.words)
		}
		var again core.RetryAfter
		if seconds := c.header["Retry-After"]; seconds != "" && (!errors.As(getErr, &again) || again.RetryAfter() != 4*time.Second) {
			t.Errorf("%s: %v does not say when to come again", c.name, getErr)
		}
	}
}

func TestRetryAfterDate(t *testing.T) {
	h := http.Header{"Date": {"Mon, 23 Nov 2026 12:00:00 GMT"}, "Retry-After": {"Mon, 23 Nov 2026 12:01:30 GMT"}}
	if d := retryAfter(h); d != 90*time.Second {
		t.Errorf("got %s", d)
	}
	h.Set("Retry-After", "soon")
	if d := retryAfter(h); d != 0 {
		t.Errorf("got %s", d)
	}
}

// An ETag is taken for an MD5 only where it is one.
func TestMD5OfETag(t *testing.T) {
	const sum = "900150983cd24fb0d6963f7d28e17f72"
	for _, c := range []struct {
		bucket, etag, name, value string
		want                      bool
	}{
		{"b", sum, "", "", true},
		{"b", sum, "X-Amz-Server-Side-Encryption", "AES256", true},
		{"b", sum, "X-Amz-Server-Side-Encryption", "aws:kms", false},
		{"b", sum, "X-Amz-Server-Side-Encryption", "aws:kms:dsse", false},
		{"b", sum, "X-Amz-Server-Side-Encryption-Customer-Algorithm", "AES256", false},
		{"b", sum + "-3", "", "", false},
		{"b--use1-az4--x-s3", sum, "", "", false},
		{"b", "z" + sum[1:], "", "", false},
	} {
		h := http.Header{}
		h.Set(c.name, c.value)
		if got := md5Of(c.bucket, c.etag, h); (got != nil) != c.want {
			t.Errorf("%+v: got %x", c, got)
		}
	}
}

func TestAbilities(t *testing.T) {
	alone(t)
	for endpoint, want := range map[string]bool{
		"": true, "https://s3.eu-west-1.amazonaws.com": true, "https://s3.cn-north-1.amazonaws.com.cn": true,
		"https://s3.example.net": false, "https://amazonaws.com.example.net": false, "http://127.0.0.1:9000": false,
	} {
		a := open(t, Options{Settings: core.RemoteSettings{Endpoint: endpoint}}).Abilities()
		if a.PutIf != want || a.DeleteIf != want {
			t.Errorf("%q: got %+v, want conditions %v", endpoint, a, want)
		}
	}
	for _, endpoint := range []string{"s3.example.net", "ftp://x", "http://", ":", "/path"} {
		if _, err := Open(t.Context(), Options{Settings: core.RemoteSettings{Endpoint: endpoint}}); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("endpoint %q: got %v", endpoint, err)
		}
	}
	if _, err := Open(t.Context(), Options{Settings: core.RemoteSettings{Profile: "no-such-profile"}}); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("a profile that is not there: got %v", err)
	}
}
