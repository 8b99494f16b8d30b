package cloudtest

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// ListServer is an S3 server that has keys and nothing behind them: it answers
// listings (ListObjectsV2) out of memory, each page after the same time. So what is
// measured against it is how fast somebody lists. It asks nobody who they are.
type ListServer struct {
	pageTime time.Duration
	server   *httptest.Server

	mu      sync.Mutex
	buckets map[string][]string // sorted keys
	calls   map[string]int
	began   map[string]time.Time // the first listing
	ended   map[string]time.Time // the last one's answer
}

// ServeLists starts a server that takes so long for each page, until the test ends.
// Each bucket has the keys that are given, which must be sorted.
func ServeLists(t *testing.T, pageTime time.Duration, buckets map[string][]string) *ListServer {
	t.Helper()
	s := &ListServer{pageTime: pageTime, buckets: buckets, calls: map[string]int{}, began: map[string]time.Time{}, ended: map[string]time.Time{}}
	s.server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.server.Close)
	return s
}

// URL is where the server listens.
func (s *ListServer) URL() string { return s.server.URL }

// Took returns how many listings of a bucket were answered since the last call, and the
// time from the first request to the last answer.
func (s *ListServer) Took(bucket string) (calls int, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls, d = s.calls[bucket], s.ended[bucket].Sub(s.began[bucket])
	delete(s.calls, bucket)
	delete(s.began, bucket)
	return calls, d
}

// listPage is how many keys a page has at the most.
const listPage = 1000

func (s *ListServer) serve(w http.ResponseWriter, r *http.Request) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	keys, ok := s.buckets[bucket]
	q := r.URL.Query()
	switch {
	case !ok:
		s.fail(w, http.StatusNotFound, "NoSuchBucket")
	case key == "" && r.Method == http.MethodHead:
		w.WriteHeader(http.StatusOK)
	case key == "" && r.Method == http.MethodGet && q.Get("list-type") == "2":
		s.list(w, r, bucket, keys)
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		s.fail(w, http.StatusNotFound, "NoSuchKey")
	default:
		s.fail(w, http.StatusNotImplemented, "NotImplemented")
	}
}

func (s *ListServer) fail(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code><Message>it has listings only</Message></Error>", code)
}

func (s *ListServer) list(w http.ResponseWriter, r *http.Request, bucket string, keys []string) {
	s.mu.Lock()
	if s.began[bucket].IsZero() {
		s.began[bucket] = time.Now() //nolint:forbidigo // real time is what is measured
	}
	s.mu.Unlock()
	if pause(r.Context(), s.pageTime) != nil {
		return
	}
	q := r.URL.Query()
	prefix, startAfter, encoding := q.Get("prefix"), q.Get("start-after"), q.Get("encoding-type")
	most := listPage
	if n, err := strconv.Atoi(q.Get("max-keys")); err == nil {
		most = min(n, listPage)
	}
	after := max(startAfter, q.Get("continuation-token"))
	i, found := slices.BinarySearch(keys, max(after, prefix))
	if found && after >= prefix && after != "" {
		i++
	}
	end := i
	for end < len(keys) && end-i < most && strings.HasPrefix(keys[end], prefix) {
		end++
	}
	more := end < len(keys) && strings.HasPrefix(keys[end], prefix)
	// Written by hand: encoding/xml takes as long as whoever reads it.
	var b bytes.Buffer
	field := func(name, value string) {
		b.WriteString("<" + name + ">")
		_ = xml.EscapeText(&b, []byte(value))
		b.WriteString("</" + name + ">")
	}
	name := func(key string) string { return key }
	if encoding == "url" {
		name = url.QueryEscape
	}
	b.WriteString(xml.Header + `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">`)
	field("Name", bucket)
	field("Prefix", name(prefix))
	field("StartAfter", name(startAfter))
	field("KeyCount", strconv.Itoa(end-i))
	field("MaxKeys", strconv.Itoa(most))
	if encoding != "" {
		field("EncodingType", encoding)
	}
	field("IsTruncated", strconv.FormatBool(more))
	if more && end > i {
		field("NextContinuationToken", keys[end-1])
	}
	for _, k := range keys[i:end] {
		b.WriteString("<Contents>")
		field("Key", name(k))
		b.WriteString("<LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>" +
			strconv.Itoa(len(k)) + "</Size><StorageClass>STANDARD</StorageClass></Contents>")
	}
	b.WriteString("</ListBucketResult>")
	w.Header().Set("Content-Type", "application/xml")
	_, _ = w.Write(b.Bytes())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[bucket]++
	s.ended[bucket] = time.Now() //nolint:forbidigo // real time is what is measured
}
