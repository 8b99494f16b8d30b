package clouds

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/cloudtest"
)

// TestPublish reads a bucket without keys, which is refused before.
func TestPublish(t *testing.T) {
	p, err := Start(t.Context(), Options{S3Buckets: []string{"src"}, Proxies: true, Host: "127.0.0.1"})
	if errors.Is(err, cloudtest.ErrNoProgram) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := p.Source().Put(t.Context(), "src", "a/b", strings.NewReader("data")); err != nil {
		t.Fatal(err)
	}
	at := p.Settings(core.S3)
	if !at.Anonymous || at.Endpoint != p.S3Proxy.URL() {
		t.Errorf("got %+v, want the proxy, without keys", at)
	}
	if status, _ := get(t.Context(), t, at.Endpoint+"/src/a/b"); status != http.StatusForbidden {
		t.Errorf("before: got status %d, want %d", status, http.StatusForbidden)
	}
	if err := p.Publish(t.Context(), "src"); err != nil {
		t.Fatal(err)
	}
	if status, data := get(t.Context(), t, at.Endpoint+"/src/a/b"); status != http.StatusOK || data != "data" {
		t.Errorf("got status %d and %q, want the object", status, data)
	}
}

func get(ctx context.Context, t *testing.T, url string) (status int, data string) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}
