package client

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/shoalstore/shoal/core"
)

// maxKept is how long a request that must not take effect twice is repeated:
// the cluster keeps its answer for longer.
const maxKept = 4 * time.Minute

// ObjectInfo describes an object.
type ObjectInfo struct {
	Key         string            `json:"name"`
	Size        int64             `json:"size"`
	ETag        string            `json:"etag"` // without quotes
	Modified    time.Time         `json:"modified"`
	ContentType string            `json:"content_type,omitempty"`
	Meta        map[string]string `json:"meta,omitempty"`
	// CRC64NVME is the checksum of the whole object in base64, if it has one.
	CRC64NVME string `json:"crc64nvme,omitempty"`
}

func infoOf(key string, h http.Header, size int64) ObjectInfo {
	i := ObjectInfo{
		Key: key, Size: size, ETag: strings.Trim(h.Get("ETag"), `"`), ContentType: h.Get("Content-Type"),
	}
	i.Modified, _ = http.ParseTime(h.Get("Last-Modified"))
	if t := h.Get(checksumType); t == "" || t == wholeObject {
		if v := h.Get(checksumHeader); !strings.Contains(v, "-") {
			i.CRC64NVME = v
		}
	}
	for name, values := range h {
		if m, ok := strings.CutPrefix(strings.ToLower(name), "x-amz-meta-"); ok && len(values) > 0 {
			if i.Meta == nil {
				i.Meta = make(map[string]string)
			}
			i.Meta[m] = values[0]
		}
	}
	return i
}

// Head describes the object. The bucket is named by its alias, here and below.
func (c *Client) Head(ctx context.Context, alias, key string) (ObjectInfo, error) {
	return c.head(ctx, alias, key, false, false)
}

// HeadLatest is Head of the version that the remote has now; with sync, the copy
// of an object that it does not have any more is dropped.
func (c *Client) HeadLatest(ctx context.Context, alias, key string, sync bool) (ObjectInfo, error) {
	return c.head(ctx, alias, key, true, sync)
}

// askLatest asks the gateway to compare with the remote.
func askLatest(h http.Header, latest, sync bool) {
	switch {
	case sync:
		h.Set("X-Shoal-Latest", "sync")
	case latest:
		h.Set("X-Shoal-Latest", "true")
	}
}

func (c *Client) head(ctx context.Context, alias, key string, latest, sync bool) (ObjectInfo, error) {
	h := http.Header{"X-Amz-Checksum-Mode": {"ENABLED"}}
	askLatest(h, latest, sync)
	resp, _, err := c.do(ctx, &request{method: http.MethodHead, path: objectPath(alias, key), header: h})
	if err != nil {
		return ObjectInfo{}, err
	}
	defer resp.Body.Close()
	return infoOf(key, resp.Header, resp.ContentLength), nil
}

// Delete removes the object if its ETag is ifMatch, or in any case if that is
// "". An object that does not exist is no error.
func (c *Client) Delete(ctx context.Context, alias, key, ifMatch string) error {
	h := once()
	if ifMatch != "" {
		h.Set("If-Match", quote(ifMatch))
	}
	resp, repeated, err := c.do(ctx, &request{
		method: http.MethodDelete, path: objectPath(alias, key), header: h, retryFor: c.kept(),
	})
	if err != nil {
		gone := errors.Is(err, core.ErrNotFound) && !errors.Is(err, core.ErrNoSuchBucket)
		if gone || repeated && errors.Is(err, core.ErrPrecondition) && c.absent(ctx, alias, key) {
			return nil
		}
		return err
	}
	return resp.Body.Close()
}

func (c *Client) absent(ctx context.Context, alias, key string) bool {
	_, err := c.Head(ctx, alias, key)
	return errors.Is(err, core.ErrNotFound)
}

// Copy copies an object within the cluster if the source's ETag is ifMatch, or
// in any case if that is "".
func (c *Client) Copy(ctx context.Context, fromAlias, fromKey, ifMatch, toAlias, toKey string) (ObjectInfo, error) {
	h := once()
	h.Set("X-Amz-Copy-Source", objectPath(fromAlias, fromKey))
	if ifMatch != "" {
		h.Set("X-Amz-Copy-Source-If-Match", quote(ifMatch))
	}
	var out struct {
		ETag         string
		LastModified time.Time
		Size         int64
	}
	err := c.xml(ctx, &request{
		method: http.MethodPut, path: objectPath(toAlias, toKey), header: h, patience: time.Minute, retryFor: c.kept(),
	}, &out)
	return ObjectInfo{Key: toKey, ETag: strings.Trim(out.ETag, `"`), Modified: out.LastModified}, err
}

// xml is do for S3 calls with an answer in XML. An error may come under status
// 200, after the server has kept the connection alive for a while.
func (c *Client) xml(ctx context.Context, r *request, out any) error {
	start := c.o.Clock.Boot()
	for {
		resp, _, err := c.do(ctx, r)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err == nil {
			body = withoutControls(body)
			var late struct{ XMLName xml.Name }
			if err = xml.Unmarshal(body, &late); err != nil {
				return fmt.Errorf("%s: malformed answer: %w", r, err)
			}
			if late.XMLName.Local != "Error" {
				return xml.Unmarshal(body, out)
			}
			e := s3Error(http.StatusOK, body)
			if e.err.Code != "unavailable" && e.err.Code != "internal" {
				return e
			}
			err = e
		}
		if ctx.Err() != nil {
			return interrupted(ctx, r.String(), err)
		}
		if spent := c.o.Clock.Boot().Sub(start); spent > c.o.RetryFor {
			return gaveUp(r.String(), spent, err)
		}
		if c.o.Clock.Wait(ctx, 200*time.Millisecond) != nil {
			return interrupted(ctx, r.String(), err)
		}
	}
}

// withoutControls takes out references to control characters. S3 writes keys so
// that have them, and XML does not allow it; here nobody reads keys.
func withoutControls(body []byte) []byte {
	rest := body
	var out []byte
	for {
		i := bytes.Index(rest, []byte("&#x"))
		if i < 0 {
			return append(out, rest...)
		}
		end := i + bytes.IndexByte(rest[i:], ';')
		n, err := strconv.ParseUint(string(rest[i+3:max(end, i+3)]), 16, 32)
		if err != nil || n >= ' ' {
			out, rest = append(out, rest[:i+3]...), rest[i+3:]
			continue
		}
		out, rest = append(append(out, rest[:i]...), '?'), rest[end+1:]
	}
}

// once returns headers that name the request, as the AWS SDKs do: the same in
// every attempt, so that the cluster can give a repeated one its first answer.
func once() http.Header { return http.Header{invocationHeader: {uuid.NewString()}} }

const invocationHeader = "Amz-Sdk-Invocation-Id"

// kept bounds how long such a request is repeated.
func (c *Client) kept() time.Duration { return min(c.o.RetryFor, maxKept) }

func quote(etag string) string { return `"` + etag + `"` }

// byteRange is the value of a Range header for n bytes from off.
func byteRange(off, n int64) string {
	return "bytes=" + strconv.FormatInt(off, 10) + "-" + strconv.FormatInt(off+n-1, 10)
}

func uploadQuery(id string, part int) url.Values {
	q := url.Values{"uploadId": {id}}
	if part > 0 {
		q.Set("partNumber", strconv.Itoa(part))
	}
	return q
}
