package s3backend

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/cloudtest"
)

// recorder is a server that notes the last request.
func recorder(t *testing.T, body string) (*httptest.Server, func() *http.Request) {
	t.Helper()
	seen := make(chan *http.Request, 10)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r
		w.Header().Set("ETag", `"0123"`)
		if r.Method == http.MethodHead {
			w.Header().Set("Content-Length", "100")
			return
		}
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(srv.Close)
	return srv, func() *http.Request {
		var last *http.Request
		for len(seen) > 0 {
			last = <-seen
		}
		return last
	}
}

// What AWS is asked, and others are not.
func TestConditionsOfAWS(t *testing.T) {
	srv, last := recorder(t, "<CopyObjectResult><ETag>&quot;0123&quot;</ETag></CopyObjectResult>")
	b := open(t, Options{Settings: core.RemoteSettings{Endpoint: srv.URL, PathStyle: true, Region: "us-east-1"}, AccessKey: "a", SecretKey: "s"})
	b.aws, b.abilities.PutIf, b.abilities.DeleteIf = true, true, true
	if err := b.Delete(t.Context(), "bucket", "key", core.RemoteCondition{Version: "77"}); err != nil {
		t.Errorf("delete: %v", err)
	}
	if r := last(); r.Method != http.MethodDelete || r.Header.Get("If-Match") != `"77"` {
		t.Errorf("delete: %s with If-Match %s", r.Method, r.Header.Get("If-Match"))
	}
	for _, c := range []struct {
		cond            core.RemoteCondition
		match, notMatch string
	}{{core.RemoteCondition{Version: "77"}, `"77"`, ""}, {core.RemoteCondition{Absent: true}, "", "*"}} {
		if o, err := b.Copy(t.Context(), "bucket", "a b", "", "bucket", "to", core.RemotePut{If: c.cond}); err != nil || o.Size != 100 || o.ETag != "0123" {
			t.Errorf("copy: %+v, %v", o, err)
		}
		r := last()
		if h := r.Header; h.Get("X-Amz-Copy-Source") != "bucket/a%20b" || h.Get("X-Amz-Copy-Source-If-Match") != `"0123"` || h.Get("If-Match") != c.match || h.Get("If-None-Match") != c.notMatch {
			t.Errorf("copy: %v", h)
		}
	}
	// Its bodies are read once, also without an MD5; and they are not signed.
	opened := 0
	_, err := b.Put(t.Context(), "bucket", "key", core.RemotePut{Size: 4, Open: func(ctx context.Context) (io.ReadCloser, error) {
		opened++
		return opener("data")(ctx)
	}})
	if err != nil || opened != 1 {
		t.Errorf("put: %v, the body was opened %d times", err, opened)
	}
	if h := last().Header; h.Get("X-Amz-Content-Sha256") != "UNSIGNED-PAYLOAD" || h.Get("Content-Md5") != "" || h.Get("Content-Encoding") != "" {
		t.Errorf("put: %v", h)
	}
}

// versitygw checks If-Match of a delete, too, if not in one step with it.
func TestDeleteIfMatch(t *testing.T) {
	s := cloudtest.Serve(t, cloudtest.Options{})
	b, name := open(t, options(s, s.URL())), bucket(t, s)
	b.abilities.DeleteIf = true
	put(t, b, name, "key", "old")
	old, err := b.Head(t.Context(), name, "key")
	if err != nil {
		t.Fatal(err)
	}
	put(t, b, name, "key", "new")
	if err := b.Delete(t.Context(), name, "key", core.RemoteCondition{Version: old.Version}); !errors.Is(err, core.ErrPrecondition) {
		t.Errorf("delete of an old version: %v", err)
	}
	now, err := b.Head(t.Context(), name, "key")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(t.Context(), name, "key", core.RemoteCondition{Version: now.Version}); err != nil {
		t.Errorf("delete of the version: %v", err)
	}
}

// Without path style the bucket is in the host's name.
func TestVirtualHost(t *testing.T) {
	srv, last := recorder(t, "x")
	b := open(t, Options{Settings: core.RemoteSettings{Endpoint: "http://s3.example.net", Region: "us-east-1"}, AccessKey: "a", SecretKey: "s"})
	b.transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, strings.TrimPrefix(srv.URL, "http://"))
	}
	if _, err := b.Head(t.Context(), "bucket", "a/b"); err != nil {
		t.Fatal(err)
	}
	if r := last(); r.Host != "bucket.s3.example.net" || r.URL.Path != "/a/b" {
		t.Errorf("got %s at %s", r.URL.Path, r.Host)
	}
}

// Profiles and certificates are where the SDK looks for them.
func TestSharedSettings(t *testing.T) {
	alone(t)
	s := cloudtest.Serve(t, cloudtest.Options{Region: "eu-central-7", Buckets: []string{"data"}})
	file := filepath.Join(t.TempDir(), "config")
	text := "[profile lab]\nregion = eu-central-7\naws_access_key_id = " + s.AccessKey() + "\naws_secret_access_key = " + s.Secret() + "\nendpoint_url = " + s.URL() + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CONFIG_FILE", file)
	b := open(t, Options{Settings: core.RemoteSettings{Profile: "lab", PathStyle: true}})
	if err := b.HeadBucket(t.Context(), "data"); err != nil {
		t.Error(err)
	}
	if b.Abilities().PutIf {
		t.Error("a server that the profile names is taken for AWS")
	}

	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(xmlError("NoSuchKey", "no")))
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	get := func() error {
		b := open(t, Options{Settings: core.RemoteSettings{Endpoint: srv.URL, PathStyle: true, Region: "x"}, AccessKey: "a", SecretKey: "s"})
		_, _, err := b.Get(t.Context(), "bucket", "key", core.RemoteGet{Length: -1})
		return err
	}
	if err := get(); !errors.Is(err, core.ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate of nobody: %v", err)
	}
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(bundle, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CA_BUNDLE", bundle)
	if err := get(); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("a certificate of the bundle: %v", err)
	}
}
