package gcsbackend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
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

// TestUploadConditions holds fake-gcs-server itself, without what stands in for
// Google before it, to what is taken for granted of it: preconditions on uploads in one
// request, also of many at once.
func TestUploadConditions(t *testing.T) {
	for _, memory := range []bool{true, false} {
		t.Run(fmt.Sprintf("memory %v", memory), func(t *testing.T) {
			fake := cloudtest.Serve(t, cloudtest.Options{Kind: cloudtest.GCS, Memory: memory, Buckets: []string{"bucket"}})
			b := open(t, Options{Endpoint: fake.URL(), Anonymous: true, UploadConditions: true})
			if a := b.Abilities(); !a.PutIf || a.DeleteIf || a.MaxParts != 0 {
				t.Errorf("abilities %+v", a)
			}
			put := func(key, body string, c core.RemoteCondition) (core.RemoteObject, error) {
				return b.Put(t.Context(), "bucket", key, core.RemotePut{
					Size: int64(len(body)), If: c,
					Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil },
				})
			}
			first, err := put("key", "one", core.RemoteCondition{Absent: true})
			if err != nil {
				t.Fatal(err)
			}
			second, err := put("key", "two", core.RemoteCondition{Version: first.Version})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range []core.RemoteCondition{{Absent: true}, {Version: first.Version}} {
				if _, err := put("key", "three", c); !errors.Is(err, core.ErrPrecondition) {
					t.Errorf("%+v: got %v, want ErrPrecondition", c, err)
				}
			}
			if _, err := put("none", "x", core.RemoteCondition{Version: first.Version}); !errors.Is(err, core.ErrPrecondition) {
				t.Errorf("a version of nothing: got %v, want ErrPrecondition", err)
			}
			if err := b.Delete(t.Context(), "bucket", "key", core.RemoteCondition{Version: second.Version}); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("a removal under a condition: got %v, want ErrUnsupported", err)
			}
			var won atomic.Int32
			var wg sync.WaitGroup
			for i := range 16 {
				wg.Go(func() {
					_, err := put("key", strings.Repeat(fmt.Sprint(i), 1<<20), core.RemoteCondition{Version: second.Version})
					if err == nil {
						won.Add(1)
					} else if !errors.Is(err, core.ErrPrecondition) {
						t.Errorf("writer %d: %v", i, err)
					}
				})
			}
			wg.Wait()
			if won.Load() != 1 {
				t.Errorf("%d of 16 writers under one precondition succeeded", won.Load())
			}
			_, body, err := b.Get(t.Context(), "bucket", "key", core.RemoteGet{Length: -1})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = body.Close() }()
			if got, err := io.ReadAll(body); err != nil || bytes.Equal(got, []byte("two")) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
		})
	}
}
