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
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalstore/shoal/core"
)

// Upload writes an object from src, which it reads once. size is the number of
// bytes that will come, -1 if that is not known; another number is an error.
// Small objects go in one request, large ones in parallel parts. Each request
// carries the checksum of its bytes and is sent again, elsewhere, when it
// fails; it takes effect once. Nothing is visible before the whole object is.
func (c *Client) Upload(ctx context.Context, alias, key string, src io.Reader, size int64, o TransferOptions) (ObjectInfo, error) {
	first, more, err := readPart(src, c.firstPart(size), size)
	if err != nil {
		return ObjectInfo{}, fmt.Errorf("%s/%s: %w", alias, key, err)
	}
	if more {
		return c.uploadParts(ctx, alias, key, first, src, size, o)
	}
	if err := checkSize(alias, key, size, int64(len(first))); err != nil {
		return ObjectInfo{}, err
	}
	sum := crc(0).add(first)
	h := once()
	describe(h, o)
	h.Set(checksumHeader, sum.String())
	resp, _, err := c.do(ctx, &request{
		method: http.MethodPut, path: objectPath(alias, key), header: h, body: first, data: true, progress: o.Progress,
		retryFor: c.kept(),
	})
	if err != nil {
		return ObjectInfo{}, err
	}
	defer resp.Body.Close()
	info := infoOf(key, resp.Header, int64(len(first)))
	info.ContentType = o.ContentType
	return info, verifySum(alias, key, info.CRC64NVME, sum)
}

func describe(h http.Header, o TransferOptions) {
	if o.ContentType != "" {
		h.Set("Content-Type", o.ContentType)
	}
	for name, value := range o.Meta {
		h.Set("X-Amz-Meta-"+name, value)
	}
}

func verifySum(alias, key, kept string, sum crc) error {
	if kept != "" && kept != sum.String() {
		return fmt.Errorf("%s/%s: sent CRC64NVME %s, the cluster has %s: %w", alias, key, sum, kept, core.ErrChecksum)
	}
	return nil
}

func checkSize(alias, key string, want, got int64) error {
	if want >= 0 && want != got {
		return fmt.Errorf("%s/%s: the source has %d bytes, not %d; did it change?", alias, key, got, want)
	}
	return nil
}

// firstPart is how much is read before it is known whether parts are needed.
func (c *Client) firstPart(size int64) int64 {
	if size <= c.wholeLimit() {
		return c.wholeLimit()
	}
	return c.partOf(size, 0)
}

// partOf is the size of part i, from 0: such that the parts are at most 10,000,
// also where the size is not known; then they double every 1,000.
func (c *Client) partOf(size int64, i int) int64 {
	if size >= 0 {
		n := c.o.PartSize
		for n*core.MaxParts < size {
			n *= 2
		}
		return n
	}
	return c.o.PartSize << min(i/1000, 5)
}

// readPart reads up to n bytes. more says that there are others behind them.
// expected is the number of bytes that src is believed to have, -1 if unknown:
// no more than that is allocated ahead.
func readPart(src io.Reader, n, expected int64) (part []byte, more bool, err error) {
	room := min(n, defaultPart)
	if expected >= 0 {
		room = min(room, expected)
	}
	var b bytes.Buffer
	b.Grow(int(room) + bytes.MinRead) // a read that finds the end needs room too
	got, err := io.Copy(&b, io.LimitReader(src, n))
	if err != nil {
		return nil, false, fmt.Errorf("read the source: %w", err)
	}
	return b.Bytes(), got == n, nil
}

// part is a part that is uploaded.
type part struct {
	number int
	size   int64
	etag   string
	sum    crc
}

// uploadParts uploads first and what follows it as one object.
func (c *Client) uploadParts(ctx context.Context, alias, key string, first []byte, src io.Reader, size int64, o TransferOptions) (ObjectInfo, error) {
	id, err := c.createUpload(ctx, alias, key, o)
	if err != nil {
		return ObjectInfo{}, err
	}
	parts, err := c.sendParts(ctx, alias, key, id, first, src, size, o)
	var info ObjectInfo
	if err == nil {
		info, err = c.completeUpload(ctx, alias, key, id, parts)
	}
	if err != nil && !errors.Is(err, core.ErrUnavailable) || err != nil && ctx.Err() != nil {
		c.abandon(ctx, alias, key, id)
	}
	info.ContentType = o.ContentType
	return info, err
}

func (c *Client) createUpload(ctx context.Context, alias, key string, o TransferOptions) (string, error) {
	h := once()
	describe(h, o)
	h.Set("X-Amz-Checksum-Algorithm", checksumName)
	h.Set(checksumType, wholeObject)
	var out struct {
		UploadID string `xml:"UploadId"`
	}
	err := c.xml(ctx, &request{
		method: http.MethodPost, path: objectPath(alias, key), query: url.Values{"uploads": {""}}, header: h, retryFor: c.kept(),
	}, &out)
	return out.UploadID, err
}

func (c *Client) sendParts(ctx context.Context, alias, key, id string, first []byte, src io.Reader, size int64, o TransferOptions) ([]part, error) {
	var mu sync.Mutex
	var parts []part
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(o.parallel())
	total := int64(0)
	var readErr error
	for data, number, more := first, 1, true; len(data) > 0 && gctx.Err() == nil; number++ {
		total += int64(len(data))
		body, n := data, number
		g.Go(func() error {
			p, err := c.sendPart(gctx, alias, key, id, n, body, o)
			mu.Lock()
			defer mu.Unlock()
			parts = append(parts, p)
			return err
		})
		if !more {
			break
		}
		data, more, readErr = readPart(src, c.partOf(size, number), -1)
		if readErr != nil {
			break
		}
	}
	if err := errors.Join(g.Wait(), readErr); err != nil {
		return nil, err
	}
	slices.SortFunc(parts, func(a, b part) int { return a.number - b.number })
	return parts, checkSize(alias, key, size, total)
}

func (c *Client) sendPart(ctx context.Context, alias, key, id string, number int, data []byte, o TransferOptions) (part, error) {
	p := part{number: number, size: int64(len(data)), sum: crc(0).add(data)}
	h := once()
	h.Set(checksumHeader, p.sum.String())
	resp, _, err := c.do(ctx, &request{
		method: http.MethodPut, path: objectPath(alias, key), query: uploadQuery(id, number), header: h,
		body: data, data: true, progress: o.Progress,
	})
	if err != nil {
		return p, fmt.Errorf("part %d: %w", number, err)
	}
	defer resp.Body.Close()
	p.etag = strings.Trim(resp.Header.Get("ETag"), `"`)
	return p, verifySum(alias, key, resp.Header.Get(checksumHeader), p.sum)
}

// completion is the body of a Complete request.
type completion struct {
	XMLName xml.Name `xml:"CompleteMultipartUpload"`
	Parts   []completionPart
}

type completionPart struct {
	XMLName    xml.Name `xml:"Part"`
	PartNumber int
	ETag       string
	Checksum   string `xml:"ChecksumCRC64NVME"`
}

func (c *Client) completeUpload(ctx context.Context, alias, key, id string, parts []part) (ObjectInfo, error) {
	sum, size := crc(0), int64(0)
	var body completion
	for _, p := range parts {
		sum = sum.join(p.sum, p.size)
		size += p.size
		body.Parts = append(body.Parts, completionPart{PartNumber: p.number, ETag: quote(p.etag), Checksum: p.sum.String()})
	}
	b, err := xml.Marshal(body)
	if err != nil {
		return ObjectInfo{}, err
	}
	h := once()
	h.Set("Content-Type", "application/xml")
	h.Set(checksumHeader, sum.String())
	h.Set(checksumType, wholeObject)
	var out struct {
		ETag     string
		Checksum string `xml:"ChecksumCRC64NVME"`
	}
	err = c.xml(ctx, &request{
		method: http.MethodPost, path: objectPath(alias, key), query: uploadQuery(id, 0), header: h, body: b, patience: time.Minute,
	}, &out)
	if err != nil {
		return ObjectInfo{}, err
	}
	info := ObjectInfo{Key: key, Size: size, ETag: strings.Trim(out.ETag, `"`), CRC64NVME: out.Checksum}
	return info, verifySum(alias, key, out.Checksum, sum)
}

// abandon removes an upload that will not be completed, as far as the cluster
// can be reached within a moment; it expires otherwise. It works on after ctx
// has ended.
func (c *Client) abandon(ctx context.Context, alias, key, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), firstContact)
	defer cancel()
	resp, _, err := c.do(ctx, &request{method: http.MethodDelete, path: objectPath(alias, key), query: uploadQuery(id, 0)})
	if err != nil {
		c.o.Log.Debug("upload not abandoned", "key", key, "upload", id, "err", err)
		return
	}
	_ = resp.Body.Close()
}
