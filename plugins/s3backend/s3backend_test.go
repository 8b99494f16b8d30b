package s3backend

import (
	"strings"
	"testing"

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
		VersionHeader: "ETag",
		CannotHold:    versitygwCannotHold,
		Weak:          []string{"delete"},
	})
}

// versitygwCannotHold: its keys are paths of files, cleaned.
func versitygwCannotHold(key string) string {
	if strings.Contains(key, "\x00") {
		return "it fails (500)"
	}
	for i, part := range strings.Split(key, "/") {
		if part == "." || part == ".." || part == "" && i < strings.Count(key, "/") {
			return "it cleans the path"
		}
	}
	return ""
}
