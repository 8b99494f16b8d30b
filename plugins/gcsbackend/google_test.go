package gcsbackend

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// google stands before fake-gcs-server 1.56.1 and does what Google's storage does
// and that does not (its fakestorage/object.go):
//
//   - deleteObject, composeObject and rewriteObject ignore ifGenerationMatch, and the last
//     ifSourceGenerationMatch; downloadObject the X-Goog-If- headers ("Request
//     preconditions").
//   - composeObject ignores the sources' generations, and answers 500 where one is missing
//     ("Objects: compose"). What is composed onto an object keeps that one's headers
//     (internal/backend/memory.go).
//   - rewriteObject keeps the source's metadata even if it is given other attributes
//     without any ("Objects: rewrite").
type google struct {
	t        *testing.T
	upstream *url.URL
	pass     *httputil.ReverseProxy
	mu       sync.Mutex // makes a check and the write after it one step
}

func newGoogle(t *testing.T, upstream string) *httptest.Server {
	u, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	g := &google{t: t, upstream: u}
	g.pass = &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) { p.Out.URL.Scheme, p.Out.URL.Host = u.Scheme, u.Host },
		Transport: &http.Transport{
			DisableCompression: true, MaxIdleConnsPerHost: 16,
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, _ error) { panic(http.ErrAbortHandler) },
	}
	s := httptest.NewServer(g)
	t.Cleanup(s.Close)
	return s
}

func (g *google) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rest, api := strings.CutPrefix(r.URL.EscapedPath(), "/storage/v1/b/")
	bucket, rest, _ := strings.Cut(rest, "/o/")
	key := unescape(rest)
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodGet && r.Header.Get("X-Goog-If-Generation-Match") != "":
		bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
		if !g.holds(w, r, bucket, unescape(key), r.Header.Get("X-Goog-If-Generation-Match")) {
			return
		}
	case r.Method == http.MethodGet:
	default:
		g.mu.Lock()
		defer g.mu.Unlock()
		if api && strings.HasSuffix(rest, "/compose") {
			key = unescape(strings.TrimSuffix(rest, "/compose"))
			if !g.composable(w, r, bucket) || !g.holds(w, r, bucket, key, q.Get("ifGenerationMatch")) {
				return
			}
			g.remove(r.Context(), bucket, key)
			g.pass.ServeHTTP(w, r)
			return
		}
		if from, to, ok := strings.Cut(rest, "/rewriteTo/b/"); api && ok {
			toBucket, toKey, _ := strings.Cut(to, "/o/")
			if g.holds(w, r, bucket, unescape(from), q.Get("ifSourceGenerationMatch")) && g.holds(w, r, toBucket, unescape(toKey), q.Get("ifGenerationMatch")) {
				g.rewrite(w, r, bucket, unescape(from), toBucket, unescape(toKey))
			}
			return
		}
		if api && !g.holds(w, r, bucket, key, q.Get("ifGenerationMatch")) {
			return
		}
	}
	g.pass.ServeHTTP(w, r)
}

func unescape(s string) string {
	if u, err := url.PathUnescape(s); err == nil {
		return u
	}
	return s
}

func (g *google) refuse(w http.ResponseWriter, status int, words string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": status, "message": words}})
}

// generation of an object, 0 if it is not there.
func (g *google) generation(ctx context.Context, bucket, key string) int64 {
	status, body := g.get(ctx, "/storage/v1/b/"+bucket+"/o/"+url.PathEscape(key))
	var a struct {
		Generation int64 `json:"generation,string"`
	}
	if status == http.StatusOK {
		if err := json.Unmarshal(body, &a); err != nil {
			g.t.Errorf("object %s: %v", key, err)
		}
	}
	return a.Generation
}

func (g *google) get(ctx context.Context, path string) (int, []byte) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.upstream.String()+path, http.NoBody)
	if err != nil {
		return 0, nil
	}
	req.Header.Set("Accept-Encoding", "gzip")
	res, err := g.pass.Transport.RoundTrip(req)
	if err != nil {
		return 0, nil
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return res.StatusCode, body
}

func (g *google) remove(ctx context.Context, bucket, key string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, g.upstream.String()+"/storage/v1/b/"+bucket+"/o/"+url.PathEscape(key), http.NoBody)
	if err == nil {
		if res, err := g.pass.Transport.RoundTrip(req); err == nil {
			_ = res.Body.Close()
		}
	}
}

func (g *google) holds(w http.ResponseWriter, r *http.Request, bucket, key, generation string) bool {
	if generation == "" {
		return true
	}
	want, err := strconv.ParseInt(generation, 10, 64)
	if is := g.generation(r.Context(), bucket, key); err != nil || is != want {
		g.refuse(w, http.StatusPreconditionFailed, "At least one of the pre-conditions you specified did not hold.")
		return false
	}
	return true
}

func (g *google) composable(w http.ResponseWriter, r *http.Request, bucket string) bool {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var in struct {
		SourceObjects []struct {
			Name       string `json:"name"`
			Generation int64  `json:"generation,string"`
		} `json:"sourceObjects"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		g.t.Errorf("compose: %v", err)
	}
	if n := len(in.SourceObjects); n < 1 || n > 32 {
		g.t.Errorf("compose of %d objects", n)
	}
	for _, s := range in.SourceObjects {
		if is := g.generation(r.Context(), bucket, s.Name); is == 0 || s.Generation != 0 && s.Generation != is {
			g.refuse(w, http.StatusNotFound, "No such object: "+bucket+"/"+s.Name)
			return false
		}
	}
	return true
}

// rewrite copies by an upload.
func (g *google) rewrite(w http.ResponseWriter, r *http.Request, bucket, key, toBucket, toKey string) {
	path := "/b/" + bucket + "/o/" + url.PathEscape(key)
	status, attrs := g.get(r.Context(), "/storage/v1"+path)
	if status != http.StatusOK {
		g.refuse(w, http.StatusNotFound, "Not Found")
		return
	}
	_, content := g.get(r.Context(), "/download/storage/v1"+path+"?alt=media")
	given, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	kept := map[string]json.RawMessage{}
	if len(bytes.TrimSpace(given)) > 2 {
		attrs = given
	}
	if err := json.Unmarshal(attrs, &kept); err != nil {
		g.t.Errorf("rewrite: %v", err)
	}
	to := map[string]json.RawMessage{}
	for _, name := range []string{"metadata", "contentType", "contentEncoding", "contentDisposition", "contentLanguage", "cacheControl", "storageClass"} {
		if v, ok := kept[name]; ok {
			to[name] = v
		}
	}
	g.upload(w, r, toBucket, toKey, to, content)
}

func (g *google) upload(w http.ResponseWriter, r *http.Request, bucket, key string, attrs map[string]json.RawMessage, content []byte) {
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	part, _ := m.CreatePart(textproto.MIMEHeader{"Content-Type": {"application/json"}})
	_ = json.NewEncoder(part).Encode(attrs)
	var kind string
	_ = json.Unmarshal(attrs["contentType"], &kind)
	part, _ = m.CreatePart(textproto.MIMEHeader{"Content-Type": {kind}})
	_, _ = part.Write(content)
	_ = m.Close()
	to := fmt.Sprintf("%s/upload/storage/v1/b/%s/o?uploadType=multipart&name=%s", g.upstream, bucket, url.QueryEscape(key))
	req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, to, &b)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	req.Header.Set("Content-Type", "multipart/related; boundary="+m.Boundary())
	res, err := g.pass.Transport.RoundTrip(req)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusOK {
		w.WriteHeader(res.StatusCode)
		_, _ = w.Write(body)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "storage#rewriteResponse", "done": true, "resource": json.RawMessage(body)})
}
