package e2e_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/plugins/s3gateway/sigv4"
)

// TestOneNode asks a node of six disks for what needs no other.
func TestOneNode(t *testing.T) {
	c := startCluster(t, 1, 6)
	t.Run("stored bytes", c.storedBytes)
	t.Run("bad puts", c.badPuts)
}

// storedBytes counts, as du does, what objects over 1 MiB take on the disks.
func (c *cluster) storedBytes(t *testing.T) {
	var dirs []string
	for _, d := range c.node("n1").Disks {
		dirs = append(dirs, d.Path)
	}
	used := func() (n int64) {
		for _, d := range dirs {
			n += bytesIn(t, d)
		}
		return n
	}
	for _, v := range []struct {
		scheme string
		most   float64
	}{{"ec-4+2", 1.52}, {"ec-3+1", 1.36}} {
		b := c.bucket("stored-"+v.scheme[3:4], v.scheme)
		empty := used()
		var bytes int64
		for i := range 16 {
			n := 1<<20 + 1 + i*i*20_011 // up to 5.3 MiB, of no round size
			c.put(b.Name, fmt.Sprint("k", i), fill(uint64(i), n))
			bytes += int64(n)
		}
		c.waitHealthy(60 * time.Second)
		ratio := float64(used()-empty) / float64(bytes)
		t.Logf("%s: %d bytes take %.3f times as much", v.scheme, bytes, ratio)
		if ratio > v.most || ratio < 1 {
			t.Errorf("%s: %.3f times the bytes are stored, want at most %.2f", v.scheme, ratio, v.most)
		}
	}
}

// badPuts sends uploads with which something is wrong. Each gets its error, and
// leaves neither an object nor a part, nor a file on any disk.
func (c *cluster) badPuts(t *testing.T) {
	b := c.bucket("spoilt", "ec-4+2").Name
	k := c.s3("n1", 30*time.Second, 0)
	const size = 1<<20 + 12_345
	data := fill(7, size)
	c.put(b, "kept", data)
	shards := func() (n int) {
		t.Helper()
		for _, d := range c.node("n1").Disks {
			files, err := filepath.Glob(filepath.Join(d.Path, "data", "??", "*"))
			if err != nil {
				t.Fatal(err)
			}
			n += len(files)
		}
		return n
	}
	var before int
	poll(t, 30*time.Second, "all shards of earlier tests are gone", func(context.Context) error {
		if now := shards(); now != before {
			before = now
			return errors.New("they change")
		}
		return nil
	})
	put := func(key string, body io.Reader, payload string, change func(*http.Request)) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, c.urls["n1"]+"/"+b+"/"+key, body)
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = size
		if b, ok := body.(*bytes.Buffer); ok {
			r.ContentLength = int64(b.Len())
		}
		at := time.Now()
		if payload == "old" {
			payload, at = sigv4.UnsignedPayload, at.Add(-16*time.Minute)
		}
		if payload == sigv4.StreamingUnsignedTrailer {
			r.Header.Set("Content-Encoding", "aws-chunked")
			r.Header.Set("X-Amz-Decoded-Content-Length", fmt.Sprint(size))
			r.Header.Set("X-Amz-Trailer", "x-amz-checksum-crc32")
		}
		change(r)
		cred := sigv4.Credentials{AccessKey: config.DevAccessKey, Secret: config.DevSecretKey}
		if key == "signature" {
			cred.Secret = "x"
		}
		if err := sigv4.Sign(r, cred, "us-east-1", "s3", payload, at); err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Expect", "100-continue")
		resp, err := (&http.Transport{DisableKeepAlives: true, ExpectContinueTimeout: time.Minute}).RoundTrip(r)
		if err != nil {
			return 0, err.Error()
		}
		defer func() { _ = resp.Body.Close() }()
		text, _ := io.ReadAll(resp.Body)
		_, code, _ := strings.Cut(string(text), "<Code>")
		code, _, _ = strings.Cut(code, "<")
		return resp.StatusCode, code
	}
	same := func(*http.Request) {}
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	otherMD5 := md5.Sum(data[1:])
	chunked := func(length int, sum string) io.Reader {
		b := bytes.NewBufferString(fmt.Sprintf("%x\r\n", length))
		b.Write(fill(7, length))
		b.WriteString("\r\n0\r\nx-amz-checksum-crc32:" + sum + "\r\n\r\n")
		return b
	}
	for _, v := range []struct {
		key     string
		body    io.Reader
		payload string
		change  func(*http.Request)
		status  int
		code    string
	}{
		{"md5", bytes.NewReader(data), sigv4.UnsignedPayload, header("Content-MD5", base64.StdEncoding.EncodeToString(otherMD5[:])), 400, "BadDigest"},
		{"crc32", bytes.NewReader(data), sigv4.UnsignedPayload, header("x-amz-checksum-crc32", "AAAAAA=="), 400, "BadDigest"},
		{"sha256", bytes.NewReader(data), sigv4.PayloadHash([]byte("other")), same, 400, "XAmzContentSHA256Mismatch"},
		{"signature", bytes.NewReader(data), sigv4.UnsignedPayload, same, 403, "SignatureDoesNotMatch"},
		{"skew", bytes.NewReader(data), "old", same, 403, "RequestTimeTooSkewed"},
		{strings.Repeat("k", 1025), bytes.NewReader(data), sigv4.UnsignedPayload, same, 400, "KeyTooLongError"},
		{"trailer", chunked(size, "AAAAAA=="), sigv4.StreamingUnsignedTrailer, same, 400, "BadDigest"},
		{"short-chunk", chunked(size-1000, "AAAAAA=="), sigv4.StreamingUnsignedTrailer, same, 400, "IncompleteBody"},
		{"long-chunk", chunked(size+1000, "AAAAAA=="), sigv4.StreamingUnsignedTrailer, same, 400, ""},
		{"condition", bytes.NewReader(data), sigv4.UnsignedPayload, header("If-Match", `"0"`), 404, "NoSuchKey"},
		{"kept", bytes.NewReader(data), sigv4.UnsignedPayload, header("If-None-Match", "*"), 412, "PreconditionFailed"},
		{"kept", bytes.NewReader(data), sigv4.UnsignedPayload, header("Content-MD5", base64.StdEncoding.EncodeToString(otherMD5[:])), 400, "BadDigest"},
	} {
		if status, code := put(v.key, v.body, v.payload, v.change); status != v.status || v.code != "" && code != v.code {
			t.Errorf("%.20s: got %d %s, want %d %s", v.key, status, code, v.status, v.code)
		}
	}
	// A client that is gone in the middle of its body.
	for range 3 {
		if status, _ := put("cut", io.MultiReader(bytes.NewReader(data[:size/2]), failing{}), sigv4.UnsignedPayload, same); status == 200 {
			t.Error("half a body was taken")
		}
	}
	c.badParts(t, k, b, data)

	for _, at := range []string{"bytes=99999999999999999999-", "bytes=5000000-", "bytes=-0", "bytes=9223372036854775807-9223372036854775807"} {
		_, err := k.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: aws.String("kept"), Range: &at})
		if n, code := status(err); n != http.StatusRequestedRangeNotSatisfiable || code != "InvalidRange" {
			t.Errorf("range %s: got %v, want InvalidRange", at, err)
		}
	}
	if got, err := body(t.Context(), c.client(""), b, "kept"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("kept: %d bytes, %v", len(got), err)
	}
	if l, err := k.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &b}); err != nil || len(l.Contents) != 1 {
		t.Errorf("listed: %+v, %v", l, err)
	}
	if l, err := k.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &b}); err != nil || len(l.Uploads) != 0 {
		t.Errorf("uploads: %+v, %v", l, err)
	}
	poll(t, 40*time.Second, "no shard is left behind", func(context.Context) error {
		if now := shards(); now != before {
			return fmt.Errorf("%d shards, before %d", now, before)
		}
		return nil
	})
	for _, d := range c.node("n1").Disks {
		if left := top(t, filepath.Join(d.Path, "data", "tmp")); left != "" {
			t.Errorf("%s is left in %s", left, d.Path)
		}
	}
}

// badParts spoils a multipart upload in every way and aborts it.
func (c *cluster) badParts(t *testing.T, k *s3.Client, b string, data []byte) {
	key := aws.String("parts")
	u, err := k.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &b, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	var parts []types.CompletedPart
	for n := range int32(2) {
		p, err := k.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: &b, Key: key, UploadId: u.UploadId, PartNumber: aws.Int32(n + 1), Body: bytes.NewReader(data)})
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, types.CompletedPart{PartNumber: aws.Int32(n + 1), ETag: p.ETag})
	}
	_, err = k.UploadPart(t.Context(), &s3.UploadPartInput{
		Bucket: &b, Key: key, UploadId: u.UploadId, PartNumber: aws.Int32(1), Body: bytes.NewReader(data), ContentMD5: aws.String("XrY7u+Ae7tCTyyK7j1rNww=="),
	})
	if _, code := status(err); code != "BadDigest" {
		t.Errorf("part with a wrong MD5: %v", err)
	}
	_, err = k.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: &b, Key: key, UploadId: u.UploadId, PartNumber: aws.Int32(10_001), Body: bytes.NewReader(data)})
	if _, code := status(err); code != "InvalidArgument" {
		t.Errorf("part 10,001: %v", err)
	}
	var tooMany []types.CompletedPart
	for n := range int32(10_001) {
		tooMany = append(tooMany, types.CompletedPart{PartNumber: aws.Int32(n + 1), ETag: parts[0].ETag})
	}
	for want, list := range map[string][]types.CompletedPart{
		"EntityTooSmall": parts, "InvalidPartOrder": {parts[1], parts[0]}, "InvalidPart": {parts[0], {PartNumber: aws.Int32(7), ETag: parts[0].ETag}}, "MalformedXML": tooMany,
	} {
		_, err := k.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{
			Bucket: &b, Key: key, UploadId: u.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: list},
		})
		if _, code := status(err); code != want {
			t.Errorf("complete: got %v, want %s", err, want)
		}
	}
	if _, err := k.AbortMultipartUpload(t.Context(), &s3.AbortMultipartUploadInput{Bucket: &b, Key: key, UploadId: u.UploadId}); err != nil {
		t.Errorf("abort: %v", err)
	}
}

// failing is a body that breaks off.
type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the client is gone") }
