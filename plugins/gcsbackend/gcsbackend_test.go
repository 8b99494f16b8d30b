package gcsbackend

import (
	"fmt"
	"sync/atomic"
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
			t.Errorf("close: %v", err)
		}
	})
	return b
}

// servers starts fake-gcs-server once, and names buckets.
type servers struct {
	fake *cloudtest.Server
	n    atomic.Int32
}

func newServers(t *testing.T) *servers {
	return &servers{fake: cloudtest.Serve(t, cloudtest.Options{Kind: cloudtest.GCS, Memory: true})}
}

func (s *servers) bucket(t *testing.T) string {
	name := fmt.Sprintf("bucket_%d", s.n.Add(1))
	if err := s.fake.CreateBucket(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestBackend(t *testing.T) {
	for _, conditions := range []bool{true, false} {
		t.Run(fmt.Sprintf("conditions %v", conditions), func(t *testing.T) {
			s := newServers(t)
			backendtest.Run(t, backendtest.Options{
				New: func(t *testing.T) (core.Backend, string) {
					g := newGoogle(t, s.fake.URL())
					return open(t, Options{Endpoint: g.URL, Anonymous: true, Conditions: conditions}), s.bucket(t)
				},
				Proxied: func(t *testing.T) (core.Backend, string, backendtest.Proxy) {
					server := newGoogle(t, s.fake.URL())
					p, err := cloudtest.StartProxy(cloudtest.ProxyOptions{Kind: cloudtest.GCS, Upstream: server.URL})
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() {
						if err := p.Close(); err != nil {
							t.Errorf("close the proxy: %v", err)
						}
					})
					b := open(t, Options{Endpoint: p.URL(), Anonymous: true, Conditions: conditions})
					return b, s.bucket(t), cloudsuite.Proxy(p)
				},
				VersionHeader: "X-Goog-Generation",
			})
		})
	}
}
