package s3gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/shoalstore/shoal/core"
)

func TestBuckets(t *testing.T) {
	e := serve(t, nil, false)
	c := e.client()
	for _, name := range []string{"beta", "alpha", "gamma"} {
		e.bucket(t, name)
	}
	_, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("beta")})
	wantAPI(t, "create again", err, "BucketAlreadyOwnedByYou")
	_, err = c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("other"), CreateBucketConfiguration: &types.CreateBucketConfiguration{
		LocationConstraint: types.BucketLocationConstraintEuWest1,
	}})
	wantAPI(t, "create elsewhere", err, "IllegalLocationConstraintException")
	var names []string
	pages := s3.NewListBucketsPaginator(c, &s3.ListBucketsInput{MaxBuckets: aws.Int32(2)})
	for pages.HasMorePages() {
		out, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range out.Buckets {
			names = append(names, *b.Name)
		}
	}
	if !slices.Equal(names, []string{"alpha", "beta", "gamma"}) {
		t.Errorf("list: got %v", names)
	}
	out, err := c.ListBuckets(t.Context(), &s3.ListBucketsInput{Prefix: aws.String("be")})
	if err != nil || len(out.Buckets) != 1 || out.Buckets[0].CreationDate == nil {
		t.Errorf("list with a prefix: got %+v, %v", out, err)
	}
	head, err := c.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: aws.String("alpha")})
	if err != nil || aws.ToString(head.BucketRegion) != "us-east-1" {
		t.Errorf("head: got %+v, %v", head, err)
	}
	var missing *types.NotFound
	if _, err = c.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: aws.String("absent")}); !errors.As(err, &missing) {
		t.Errorf("head of none: got %v", err)
	}
	if loc, err := c.GetBucketLocation(t.Context(), &s3.GetBucketLocationInput{Bucket: aws.String("alpha")}); err != nil || loc.LocationConstraint != "" {
		t.Errorf("location: got %+v, %v", loc, err)
	}
	if v, err := c.GetBucketVersioning(t.Context(), &s3.GetBucketVersioningInput{Bucket: aws.String("alpha")}); err != nil || v.Status != "" {
		t.Errorf("versioning: got %+v, %v", v, err)
	}
	if acl, err := c.GetBucketAcl(t.Context(), &s3.GetBucketAclInput{Bucket: aws.String("alpha")}); err != nil || len(acl.Grants) != 1 ||
		acl.Grants[0].Permission != types.PermissionFullControl || acl.Grants[0].Grantee.Type != types.TypeCanonicalUser {
		t.Errorf("acl: got %+v, %v", acl, err)
	}
	if _, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("alpha"), Key: aws.String("k")}); err != nil {
		t.Fatal(err)
	}
	_, err = c.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: aws.String("alpha")})
	wantAPI(t, "delete", err, "BucketNotEmpty")
	if _, err = c.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: aws.String("beta")}); err != nil {
		t.Errorf("delete: %v", err)
	}
	_, err = c.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: aws.String("beta")})
	wantAPI(t, "delete again", err, "NoSuchBucket")
	_, err = c.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{Bucket: aws.String("alpha"), VersioningConfiguration: &types.VersioningConfiguration{Status: "Enabled"}})
	wantAPI(t, "enable versions", err, "NotImplemented")
	_, err = c.GetBucketPolicy(t.Context(), &s3.GetBucketPolicyInput{Bucket: aws.String("alpha")})
	wantAPI(t, "policy", err, "NoSuchBucketPolicy")
	_, err = c.ListObjectVersions(t.Context(), &s3.ListObjectVersionsInput{Bucket: aws.String("alpha")})
	wantAPI(t, "versions", err, "NotImplemented")
}

func TestObjects(t *testing.T) {
	e := serve(t, nil, false)
	c, b := e.client(), e.bucket(t, "data")
	key := aws.String("dir/ein Schlüssel+%.txt")
	data := random(100_000)
	expires := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	put, err := c.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: &b, Key: key, Body: bytes.NewReader(data), ContentType: aws.String("text/x"), CacheControl: aws.String("no-store"),
		ContentDisposition: aws.String("attachment"), ContentEncoding: aws.String("gzip"), ContentLanguage: aws.String("de"), Expires: &expires,
		Metadata: map[string]string{"Colour": "blue", "x": "a  b"}, Tagging: aws.String("a=1&b=two%20words"),
	})
	if err != nil || aws.ToString(put.ETag) != quotedMD5(data) {
		t.Fatalf("put: got %+v, %v", put, err)
	}
	get, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(get.Body)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("get: got %d bytes, %v", len(got), err)
	}
	head, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &b, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []struct{ what, get, head, want string }{
		{"type", *get.ContentType, *head.ContentType, "text/x"},
		{"cache", *get.CacheControl, *head.CacheControl, "no-store"},
		{"disposition", *get.ContentDisposition, *head.ContentDisposition, "attachment"},
		{"encoding", *get.ContentEncoding, *head.ContentEncoding, "gzip"},
		{"language", *get.ContentLanguage, *head.ContentLanguage, "de"},
		{"expires", *get.ExpiresString, *head.ExpiresString, expires.Format(http.TimeFormat)},
		{"etag", *get.ETag, *head.ETag, *put.ETag},
		{"meta", fmt.Sprint(get.Metadata), fmt.Sprint(head.Metadata), "map[colour:blue x:a  b]"},
		{"length", fmt.Sprint(*get.ContentLength), fmt.Sprint(*head.ContentLength), "100000"},
		{"tags", fmt.Sprint(*get.TagCount), fmt.Sprint(*head.TagCount), "2"},
		{"modified", get.LastModified.String(), head.LastModified.String(), get.LastModified.String()},
	} {
		if v.get != v.want || v.head != v.want {
			t.Errorf("%s: get has %q, head %q, want %q", v.what, v.get, v.head, v.want)
		}
	}
	over, err := c.GetObject(t.Context(), &s3.GetObjectInput{
		Bucket: &b, Key: key, ResponseContentType: aws.String("text/y"), ResponseCacheControl: aws.String("max-age=1"),
		ResponseContentDisposition: aws.String("inline"), ResponseContentLanguage: aws.String("en"),
	})
	if err != nil || *over.ContentType != "text/y" || *over.CacheControl != "max-age=1" || *over.ContentDisposition != "inline" || *over.ContentLanguage != "en" {
		t.Errorf("overrides: got %+v, %v", over, err)
	}
	_ = over.Body.Close()

	_, err = c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: aws.String("absent")})
	wantAPI(t, "get of nothing", err, "NoSuchKey")
	_, err = c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("absent"), Key: key})
	wantAPI(t, "get from no bucket", err, "NoSuchBucket")
	if _, err := c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &b, Key: key}); err != nil {
		t.Errorf("delete: %v", err)
	}
	if _, err := c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &b, Key: key}); err != nil {
		t.Errorf("delete again: %v", err)
	}
	var missing *types.NotFound
	if _, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &b, Key: key}); !errors.As(err, &missing) {
		t.Errorf("head of nothing: got %v", err)
	}
}

func TestRanges(t *testing.T) {
	e := serve(t, nil, false)
	c, b := e.client(), e.bucket(t, "data")
	data := random(1000)
	for key, d := range map[string][]byte{"k": data, "empty": nil} {
		if _, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: aws.String(key), Body: bytes.NewReader(d)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range []struct {
		key, header string
		status      int
		from, to    int // of data
	}{
		{"k", "bytes=0-0", 206, 0, 1},
		{"k", "bytes=0-", 206, 0, 1000},
		{"k", "bytes=10-19", 206, 10, 20},
		{"k", "bytes=999-", 206, 999, 1000},
		{"k", "bytes=990-2000", 206, 990, 1000},
		{"k", "bytes=-1", 206, 999, 1000},
		{"k", "bytes=-5000", 206, 0, 1000},
		{"k", "Bytes=5-6", 206, 5, 7},
		{"k", "bytes=5-99999999999999999999999999", 206, 5, 1000},
		{"k", "bytes=0-1,5-6", 200, 0, 1000},
		{"k", "bytes=6-5", 200, 0, 1000},
		{"k", "bytes=a-b", 200, 0, 1000},
		{"k", "bytes=", 200, 0, 1000},
		{"k", "bytes=-", 200, 0, 1000},
		{"k", "lines=1-2", 200, 0, 1000},
		{"k", "bytes=1000-", 416, 0, 0},
		{"k", "bytes=1000-1001", 416, 0, 0},
		{"k", "bytes=99999999999999999999999999-", 416, 0, 0},
		{"k", "bytes=-0", 416, 0, 0},
		{"empty", "bytes=0-", 416, 0, 0},
		{"empty", "bytes=-1", 416, 0, 0},
		{"empty", "", 200, 0, 0},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			h := headers()
			if v.header != "" {
				h.Set("Range", v.header)
			}
			r := e.raw(t, method, "/data/"+v.key, h, "")
			what := method + " " + v.key + " " + v.header
			if r.status != v.status {
				t.Errorf("%s: got %d, want %d", what, r.status, v.status)
				continue
			}
			want := string(data[v.from:v.to])
			contentRange := ""
			switch {
			case v.status == 206:
				contentRange = fmt.Sprintf("bytes %d-%d/1000", v.from, v.to-1)
			case v.status == 416 && v.key == "k":
				contentRange = "bytes */1000"
			case v.status == 416:
				contentRange = "bytes */0"
			}
			if r.header.Get("Content-Range") != contentRange {
				t.Errorf("%s: Content-Range is %q, want %q", what, r.header.Get("Content-Range"), contentRange)
			}
			if method == "HEAD" {
				if v.status != 416 && r.header.Get("Content-Length") != fmt.Sprint(len(want)) {
					t.Errorf("%s: Content-Length is %s, want %d", what, r.header.Get("Content-Length"), len(want))
				}
				continue
			}
			if v.status == 416 {
				r.want(t, what, 416, "InvalidRange")
			} else if r.body != want {
				t.Errorf("%s: got %d bytes, want %d", what, len(r.body), len(want))
			}
		}
	}
	r := e.raw(t, "GET", "/data/k", headers("Range", "bytes=0-1", "If-Range", `"x"`), "")
	if r.status != 200 || len(r.body) != 1000 {
		t.Errorf("If-Range: got %d and %d bytes", r.status, len(r.body))
	}
}

func TestConditions(t *testing.T) {
	e := serve(t, nil, false)
	c, b := e.client(), e.bucket(t, "data")
	if _, err := c.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: &b, Key: aws.String("k"), Body: strings.NewReader("data"), CacheControl: aws.String("max-age=9"),
	}); err != nil {
		t.Fatal(err)
	}
	etag := quotedMD5([]byte("data"))
	past, future := time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat), time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
	for _, v := range []struct {
		name   string
		header http.Header
		status int
	}{
		{"if-match", headers("If-Match", etag), 200},
		{"if-match, bare", headers("If-Match", strings.Trim(etag, `"`)), 200},
		{"if-match, list", headers("If-Match", `"x", `+etag), 200},
		{"if-match, any", headers("If-Match", "*"), 200},
		{"if-match, other", headers("If-Match", `"x"`), 412},
		{"if-match, empty", headers("If-Match", ""), 412},
		{"if-none-match", headers("If-None-Match", etag), 304},
		{"if-none-match, weak", headers("If-None-Match", "W/"+etag), 304},
		{"if-none-match, two", headers("If-None-Match", `"x"`, "If-None-Match", etag), 304},
		{"if-none-match, other", headers("If-None-Match", `"x"`), 200},
		{"if-modified-since past", headers("If-Modified-Since", past), 200},
		{"if-modified-since future", headers("If-Modified-Since", future), 304},
		{"if-modified-since never", headers("If-Modified-Since", "never"), 200},
		{"if-unmodified-since past", headers("If-Unmodified-Since", past), 412},
		{"if-unmodified-since future", headers("If-Unmodified-Since", future), 200},
		{"if-match beats date", headers("If-Match", etag, "If-Unmodified-Since", past), 200},
		{"if-none-match beats date", headers("If-None-Match", `"x"`, "If-Modified-Since", future), 200},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			r := e.raw(t, method, "/data/k", v.header, "")
			if r.status != v.status {
				t.Errorf("%s %s: got %d, want %d", method, v.name, r.status, v.status)
			}
			if r.status == 304 && (r.body != "" || r.header.Get("ETag") != etag || r.header.Get("Last-Modified") == "" || r.header.Get("Cache-Control") != "max-age=9") {
				t.Errorf("%s %s: got body %q and headers %v", method, v.name, r.body, r.header)
			}
			if r.status == 412 && method == "GET" {
				r.want(t, v.name, 412, "PreconditionFailed")
			}
		}
	}
	put := func(key string, in s3.PutObjectInput) error {
		in.Bucket, in.Key, in.Body = &b, &key, strings.NewReader("new")
		_, err := c.PutObject(t.Context(), &in)
		return err
	}
	wantAPI(t, "create over", put("k", s3.PutObjectInput{IfNoneMatch: aws.String("*")}), "PreconditionFailed")
	wantAPI(t, "replace another", put("k", s3.PutObjectInput{IfMatch: aws.String(`"x"`)}), "PreconditionFailed")
	wantAPI(t, "replace nothing", put("new", s3.PutObjectInput{IfMatch: aws.String(etag)}), "NoSuchKey")
	wantAPI(t, "if-none-match with an ETag", put("k", s3.PutObjectInput{IfNoneMatch: aws.String(etag)}), "NotImplemented")
	e.raw(t, "PUT", "/data/k", headers("If-Unmodified-Since", past), "x").want(t, "put with a date", 501, "NotImplemented")
	e.wantStored(t, b, "k", []byte("data"))
	e.wantAbsent(t, b, "new")
	if err := put("new", s3.PutObjectInput{IfNoneMatch: aws.String("*")}); err != nil {
		t.Errorf("create: %v", err)
	}
	if err := put("k", s3.PutObjectInput{IfMatch: aws.String(etag)}); err != nil {
		t.Errorf("replace: %v", err)
	}
	e.wantStored(t, b, "k", []byte("new"))

	e.raw(t, "DELETE", "/data/k", headers("If-Match", etag), "").want(t, "delete another", 412, "PreconditionFailed")
	e.raw(t, "DELETE", "/data/absent", headers("If-Match", "*"), "").want(t, "delete any, absent", 412, "PreconditionFailed")
	e.raw(t, "DELETE", "/data/absent", headers("If-Match", etag), "").want(t, "delete absent", 404, "NoSuchKey")
	e.raw(t, "DELETE", "/data/k", headers("If-None-Match", etag), "").want(t, "delete if-none-match", 501, "NotImplemented")
	e.wantStored(t, b, "k", []byte("new"))
	e.raw(t, "DELETE", "/data/k", headers("If-Match", quotedMD5([]byte("new"))), "").want(t, "delete", 204, "")
	e.wantAbsent(t, b, "k")
}

func TestChecksums(t *testing.T) {
	for _, tls := range []bool{false, true} {
		e := serve(t, nil, tls)
		c, b := e.client(), e.bucket(t, "data")
		for _, a := range checksums() {
			for _, n := range []int{0, 10, 200_000} {
				key, data := fmt.Sprint(a.name, n), random(n)
				put, err := c.PutObject(t.Context(), &s3.PutObjectInput{
					Bucket: &b, Key: &key, Body: bytes.NewReader(data), ChecksumAlgorithm: types.ChecksumAlgorithm(a.name),
				})
				if err != nil {
					t.Fatalf("tls %v, %s: %v", tls, key, err)
				}
				info := e.wantStored(t, b, key, data)
				if info.Checksum.Algorithm != a.name || !a.valid(info.Checksum.Value) || len(info.Headers["Content-Encoding"]) != 0 {
					t.Errorf("tls %v, %s: stored with %+v and %v", tls, key, info.Checksum, info.Headers)
				}
				if put.ChecksumType != types.ChecksumTypeFullObject {
					t.Errorf("%s: checksum type %q", key, put.ChecksumType)
				}
				// The SDK verifies the body against the header.
				get, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: &key, ChecksumMode: types.ChecksumModeEnabled})
				if err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(get.Body); err != nil || !bytes.Equal(got, data) {
					t.Errorf("get %s: %d bytes, %v", key, len(got), err)
				}
				head, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &b, Key: &key, ChecksumMode: types.ChecksumModeEnabled})
				if err != nil {
					t.Fatal(err)
				}
				values := map[string][2]*string{
					"CRC32": {get.ChecksumCRC32, head.ChecksumCRC32}, "CRC32C": {get.ChecksumCRC32C, head.ChecksumCRC32C},
					"CRC64NVME": {get.ChecksumCRC64NVME, head.ChecksumCRC64NVME}, "SHA1": {get.ChecksumSHA1, head.ChecksumSHA1},
					"SHA256": {get.ChecksumSHA256, head.ChecksumSHA256},
				}[a.name]
				if aws.ToString(values[0]) != info.Checksum.Value || aws.ToString(values[1]) != info.Checksum.Value {
					t.Errorf("%s: get says %s, head %s, want %s", key, aws.ToString(values[0]), aws.ToString(values[1]), info.Checksum.Value)
				}
				// A range comes without the checksum of the whole.
				part, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: &key, ChecksumMode: types.ChecksumModeEnabled, Range: aws.String("bytes=0-4")})
				if n == 0 {
					wantAPI(t, "range of nothing", err, "InvalidRange")
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(part.Body); err != nil || !bytes.Equal(got, data[:5]) {
					t.Errorf("get a range of %s: %d bytes, %v", key, len(got), err)
				}
			}
		}
		// A stream that cannot seek: over TLS the SDK sends it in unsigned
		// chunks with a trailer.
		body := io.MultiReader(strings.NewReader("hello "), bytes.NewReader(make([]byte, 300_000)))
		_, err := c.PutObject(t.Context(), &s3.PutObjectInput{
			Bucket: &b, Key: aws.String("stream"), Body: body, ContentLength: aws.Int64(300_006), ChecksumAlgorithm: types.ChecksumAlgorithmCrc32c,
		})
		if tls {
			if err != nil {
				t.Fatalf("stream: %v", err)
			}
			if info := e.wantStored(t, b, "stream", append([]byte("hello "), make([]byte, 300_000)...)); info.Checksum.Algorithm != "CRC32C" {
				t.Errorf("stream: stored with %+v", info.Checksum)
			}
		}
		// Unsigned payload.
		_, err = c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: aws.String("unsigned"), Body: strings.NewReader("x")},
			s3.WithAPIOptions(v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware))
		if err != nil {
			t.Errorf("unsigned: %v", err)
		}
		_, err = c.PutObject(t.Context(), &s3.PutObjectInput{
			Bucket: &b, Key: aws.String("wrong"), Body: strings.NewReader("hello"), ChecksumSHA256: aws.String("LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCA="),
		})
		wantAPI(t, "wrong checksum", err, "BadDigest")
		e.wantAbsent(t, b, "wrong")
		_, err = c.PutObject(t.Context(), &s3.PutObjectInput{
			Bucket: &b, Key: aws.String("wrong"), Body: strings.NewReader("hello"), ContentMD5: aws.String("XrY7u+Ae7tCTyyK7j1rNww=="),
		})
		wantAPI(t, "wrong MD5", err, "BadDigest")
		_, err = c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: aws.String("wrong"), Body: strings.NewReader("hello"), ContentMD5: aws.String("nonsense")})
		wantAPI(t, "malformed MD5", err, "InvalidDigest")
		_, err = c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: aws.String("wrong"), Body: strings.NewReader("hello"), ChecksumAlgorithm: types.ChecksumAlgorithmSha512})
		wantAPI(t, "SHA-512", err, "NotImplemented")
		e.wantAbsent(t, b, "wrong")
	}
}

func TestPresigned(t *testing.T) {
	e := serve(t, nil, false)
	c, b := e.client(), e.bucket(t, "data")
	p := s3.NewPresignClient(c, s3.WithPresignExpires(time.Minute))
	key := aws.String("a key/mit ä")
	put, err := p.PresignPutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: key, Metadata: map[string]string{"a": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	send := func(method, url string, h http.Header, body string) reply {
		r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header = h.Clone()
		return e.send(t, r)
	}
	send(put.Method, put.URL, put.SignedHeader, "presigned").want(t, "put", 200, "")
	if info := e.wantStored(t, b, *key, []byte("presigned")); info.Meta["a"] != "b" {
		t.Errorf("put: stored with %v", info.Meta)
	}
	get, err := p.PresignGetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: key, ResponseContentType: aws.String("text/z")})
	if err != nil {
		t.Fatal(err)
	}
	if r := send("GET", get.URL, http.Header{}, ""); r.status != 200 || r.body != "presigned" || r.header.Get("Content-Type") != "text/z" {
		t.Errorf("get: got %+v", r)
	}
	send("GET", strings.Replace(get.URL, "X-Amz-Signature=", "X-Amz-Signature=0", 1), http.Header{}, "").want(t, "changed", 400, "AuthorizationQueryParametersError")
	send("DELETE", get.URL, http.Header{}, "").want(t, "other method", 403, "SignatureDoesNotMatch")
	send("GET", get.URL, headers("x-amz-meta-b", "c"), "").want(t, "other header", 403, "AccessDenied")
	e.wantStored(t, b, *key, []byte("presigned"))

	late := serveWith(t, Options{Objects: e.objects, Lookup: lookup, Clock: later{wall{}, 2 * time.Minute}}, false)
	r := send("GET", strings.Replace(get.URL, e.url, late.url, 1), http.Header{"Host": nil}, "")
	if r.status != 403 {
		t.Errorf("expired: got %d %s", r.status, r.body)
	}
}

// later is a clock that is ahead.
type later struct {
	wall
	by time.Duration
}

func (l later) Now() time.Time { return time.Now().Add(l.by) }

func TestMultipart(t *testing.T) {
	e := serve(t, nil, false)
	c, b := e.client(), e.bucket(t, "data")
	for _, v := range []struct {
		algorithm types.ChecksumAlgorithm
		kind      types.ChecksumType
		want      types.ChecksumType
	}{
		{"", "", ""},
		{"CRC32", "", "COMPOSITE"},
		{"CRC32C", "FULL_OBJECT", "FULL_OBJECT"},
		{"CRC64NVME", "", "FULL_OBJECT"},
		{"SHA1", "", "COMPOSITE"},
		{"SHA256", "COMPOSITE", "COMPOSITE"},
	} {
		t.Run(fmt.Sprint(v.algorithm, " ", v.kind), func(t *testing.T) {
			key := "multi " + string(v.algorithm)
			datas := [][]byte{random(core.MinPart), random(core.MinPart), random(100)}
			up, err := c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{
				Bucket: &b, Key: &key, ContentType: aws.String("text/x"), Metadata: map[string]string{"m": "1"},
				ChecksumAlgorithm: v.algorithm, ChecksumType: v.kind,
			})
			if err != nil {
				t.Fatal(err)
			}
			if v.algorithm != "" && (up.ChecksumAlgorithm != v.algorithm || up.ChecksumType != v.want) {
				t.Errorf("create: got %s, %s", up.ChecksumAlgorithm, up.ChecksumType)
			}
			var parts []types.CompletedPart
			for i, d := range datas {
				n := aws.Int32(int32(i + 1))
				p, err := c.UploadPart(t.Context(), &s3.UploadPartInput{
					Bucket: &b, Key: &key, UploadId: up.UploadId, PartNumber: n, Body: bytes.NewReader(d), ChecksumAlgorithm: v.algorithm,
				})
				if err != nil {
					t.Fatal(err)
				}
				parts = append(parts, types.CompletedPart{
					PartNumber: n, ETag: p.ETag, ChecksumCRC32: p.ChecksumCRC32, ChecksumCRC32C: p.ChecksumCRC32C,
					ChecksumCRC64NVME: p.ChecksumCRC64NVME, ChecksumSHA1: p.ChecksumSHA1, ChecksumSHA256: p.ChecksumSHA256,
				})
			}
			var listed []int32
			pages := s3.NewListPartsPaginator(c, &s3.ListPartsInput{Bucket: &b, Key: &key, UploadId: up.UploadId, MaxParts: aws.Int32(2)})
			for pages.HasMorePages() {
				out, err := pages.NextPage(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range out.Parts {
					listed = append(listed, *p.PartNumber)
				}
			}
			if !slices.Equal(listed, []int32{1, 2, 3}) {
				t.Errorf("list parts: got %v", listed)
			}
			done, err := c.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{
				Bucket: &b, Key: &key, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}, ChecksumType: v.kind,
			})
			if err != nil || !strings.HasSuffix(aws.ToString(done.ETag), `-3"`) || done.ChecksumType != v.want {
				t.Fatalf("complete: got %+v, %v", done, err)
			}
			data := slices.Concat(datas...)
			if info := e.wantStored(t, b, key, data); info.Headers["Content-Type"] != "text/x" || info.Meta["m"] != "1" {
				t.Errorf("stored with %v and %v", info.Headers, info.Meta)
			}
			for i, d := range datas {
				get, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: &key, PartNumber: aws.Int32(int32(i + 1)), ChecksumMode: types.ChecksumModeEnabled})
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(get.Body)
				if err != nil || !bytes.Equal(got, d) || aws.ToInt32(get.PartsCount) != 3 {
					t.Errorf("part %d: got %d bytes of %d parts, %v", i+1, len(got), aws.ToInt32(get.PartsCount), err)
				}
				head, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &b, Key: &key, PartNumber: aws.Int32(int32(i + 1))})
				if err != nil || *head.ContentLength != int64(len(d)) || aws.ToInt32(head.PartsCount) != 3 {
					t.Errorf("head of part %d: got %+v, %v", i+1, head, err)
				}
			}
			e.raw(t, "GET", "/data/multi%20"+string(v.algorithm)+"?partNumber=4", nil, "").want(t, "part 4", 416, "InvalidPartNumber")
			get, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: &key, ChecksumMode: types.ChecksumModeEnabled})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(get.Body); err != nil || !bytes.Equal(got, data) {
				t.Errorf("get: %d bytes, %v", len(got), err)
			}
			// Again the same answer.
			again, err := c.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{
				Bucket: &b, Key: &key, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
			})
			if err != nil || *again.ETag != *done.ETag {
				t.Errorf("complete again: got %+v, %v", again, err)
			}
		})
	}
}

func TestMultipartRefusals(t *testing.T) {
	e := serve(t, nil, false)
	c, b := e.client(), e.bucket(t, "data")
	up, err := c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &b, Key: aws.String("k")})
	if err != nil {
		t.Fatal(err)
	}
	id := aws.ToString(up.UploadId)
	at := "/data/k?uploadId=" + id
	etags := map[int]string{}
	for _, n := range []int{1, 2} {
		r := e.raw(t, "PUT", fmt.Sprintf("%s&partNumber=%d", at, n), nil, fmt.Sprint("part ", n))
		r.want(t, "part", 200, "")
		etags[n] = r.header.Get("ETag")
	}
	part := func(n int, etag string) string {
		return fmt.Sprintf("<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", n, etag)
	}
	doc := func(parts ...string) string {
		return "<CompleteMultipartUpload xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>" + strings.Join(parts, "") + "</CompleteMultipartUpload>"
	}
	var tooMany []string
	for n := range 10_001 {
		tooMany = append(tooMany, part(n+1, "x"))
	}
	for _, v := range []struct {
		name, doc string
		header    http.Header
		status    int
		code      string
	}{
		{"too small", doc(part(1, etags[1]), part(2, etags[2])), nil, 400, "EntityTooSmall"},
		{"order", doc(part(2, etags[2]), part(1, etags[1])), nil, 400, "InvalidPartOrder"},
		{"twice", doc(part(2, etags[2]), part(2, etags[2])), nil, 400, "InvalidPartOrder"},
		{"unknown part", doc(part(3, etags[2])), nil, 400, "InvalidPart"},
		{"wrong ETag", doc(part(2, etags[1])), nil, 400, "InvalidPart"},
		{"no parts", doc(), nil, 400, "MalformedXML"},
		{"part 0", doc(part(0, etags[1])), nil, 400, "MalformedXML"},
		{"part 10001", doc(part(10_001, etags[1])), nil, 400, "MalformedXML"},
		{"10,001 parts", doc(tooMany...), nil, 400, "MalformedXML"},
		{"no ETag", doc("<Part><PartNumber>1</PartNumber></Part>"), nil, 400, "MalformedXML"},
		{"no number", doc("<Part><PartNumber>one</PartNumber><ETag>x</ETag></Part>"), nil, 400, "MalformedXML"},
		{"other root", "<Complete></Complete>", nil, 400, "MalformedXML"},
		{"empty", "", nil, 400, "MalformedXML"},
		{"cut", doc(part(2, etags[2]))[:100], nil, 400, "MalformedXML"},
		{"wrong size", doc(part(2, etags[2])), headers("x-amz-mp-object-size", "7"), 400, "InvalidRequest"},
		{"wrong condition", doc(part(2, etags[2])), headers("If-Match", "*"), 404, "NoSuchKey"},
		{"wrong MD5", doc(part(2, etags[2])), headers("Content-MD5", "XrY7u+Ae7tCTyyK7j1rNww=="), 400, "BadDigest"},
		{"checksum of no kind", doc(part(2, etags[2])), headers("x-amz-checksum-crc32", "AAA"), 400, "InvalidRequest"},
	} {
		e.raw(t, "POST", at, v.header, v.doc).want(t, v.name, v.status, v.code)
	}
	e.wantAbsent(t, b, "k")
	for _, n := range []string{"0", "10001", "-1", "x", ""} {
		e.raw(t, "PUT", at+"&partNumber="+n, nil, "x").want(t, "part number "+n, 400, "InvalidArgument")
	}
	for _, method := range []string{"GET", "DELETE"} {
		e.raw(t, method, "/data/k?uploadId=nonsense", nil, "").want(t, method+" of an unknown upload", 404, "NoSuchUpload")
		e.raw(t, method, "/data/other?uploadId="+id, nil, "").want(t, method+" under another key", 404, "NoSuchUpload")
	}
	e.raw(t, "PUT", "/data/k?partNumber=1&uploadId=nonsense", nil, "x").want(t, "part of an unknown upload", 404, "NoSuchUpload")
	e.raw(t, "POST", at, headers("x-amz-mp-object-size", "6"), doc(part(2, "&quot;"+strings.Trim(etags[2], `"`)+"&quot;"))).want(t, "complete", 200, "")
	e.wantStored(t, b, "k", []byte("part 2"))
	e.raw(t, "DELETE", at, nil, "").want(t, "abort after completion", 404, "NoSuchUpload")

	up, err = c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &b, Key: aws.String("aborted")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.AbortMultipartUpload(t.Context(), &s3.AbortMultipartUploadInput{Bucket: &b, Key: aws.String("aborted"), UploadId: up.UploadId}); err != nil {
		t.Errorf("abort: %v", err)
	}
	for _, v := range []struct{ algorithm, kind string }{{"CRC64NVME", "COMPOSITE"}, {"SHA1", "FULL_OBJECT"}, {"CRC32", "OTHER"}, {"CRC99", ""}, {"", "COMPOSITE"}} {
		h := headers()
		if v.algorithm != "" {
			h.Set("x-amz-checksum-algorithm", v.algorithm)
		}
		if v.kind != "" {
			h.Set("x-amz-checksum-type", v.kind)
		}
		e.raw(t, "POST", "/data/k?uploads", h, "").want(t, fmt.Sprint("upload with ", v), 400, "InvalidRequest")
	}
}

func TestCopies(t *testing.T) {
	e := serve(t, nil, false)
	c, b := e.client(), e.bucket(t, "data")
	other := e.bucket(t, "other")
	key, data := "src/ä +%", random(1000)
	if _, err := c.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: &b, Key: &key, Body: bytes.NewReader(data), ContentType: aws.String("text/x"), Metadata: map[string]string{"m": "1"}, Tagging: aws.String("t=1"),
	}); err != nil {
		t.Fatal(err)
	}
	source := aws.String("/data/src/%C3%A4%20%2B%25")
	cp, err := c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: &other, Key: aws.String("dst"), CopySource: source})
	if err != nil || *cp.CopyObjectResult.ETag != quotedMD5(data) || cp.CopyObjectResult.LastModified == nil {
		t.Fatalf("copy: got %+v, %v", cp, err)
	}
	if info := e.wantStored(t, other, "dst", data); info.Meta["m"] != "1" || info.Headers["Content-Type"] != "text/x" || info.Tags["t"] != "1" {
		t.Errorf("copy: stored %+v", info.Record)
	}
	_, err = c.CopyObject(t.Context(), &s3.CopyObjectInput{
		Bucket: &other, Key: aws.String("dst2"), CopySource: source, MetadataDirective: types.MetadataDirectiveReplace, ContentType: aws.String("text/y"),
		Metadata: map[string]string{"n": "2"}, TaggingDirective: types.TaggingDirectiveReplace, Tagging: aws.String("u=2"), ChecksumAlgorithm: "SHA256",
	})
	if err != nil {
		t.Fatal(err)
	}
	if info := e.wantStored(t, other, "dst2", data); info.Meta["n"] != "2" || info.Meta["m"] != "" || info.Headers["Content-Type"] != "text/y" ||
		info.Tags["u"] != "2" || info.Tags["t"] != "" || info.Checksum.Algorithm != "SHA256" {
		t.Errorf("copy with other metadata: stored %+v", info.Record)
	}
	_, err = c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: &b, Key: &key, CopySource: source})
	wantAPI(t, "copy onto itself", err, "InvalidRequest")
	if _, err = c.CopyObject(t.Context(), &s3.CopyObjectInput{
		Bucket: &b, Key: &key, CopySource: source, MetadataDirective: types.MetadataDirectiveReplace, Metadata: map[string]string{"m": "3"},
	}); err != nil {
		t.Errorf("copy onto itself with metadata: %v", err)
	}
	if info := e.wantStored(t, b, key, data); info.Meta["m"] != "3" || info.Tags["t"] != "1" {
		t.Errorf("copy onto itself: stored %+v", info.Record)
	}
	etag, past, future := quotedMD5(data), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	for name, in := range map[string]s3.CopyObjectInput{
		"if-match":            {CopySourceIfMatch: aws.String(`"x"`)},
		"if-none-match":       {CopySourceIfNoneMatch: &etag},
		"if-modified-since":   {CopySourceIfModifiedSince: &future},
		"if-unmodified-since": {CopySourceIfUnmodifiedSince: &past},
	} {
		in.Bucket, in.Key, in.CopySource = &other, aws.String("no"), source
		_, err := c.CopyObject(t.Context(), &in)
		wantAPI(t, name, err, "PreconditionFailed")
	}
	for _, v := range []struct {
		name   string
		header http.Header
		status int
		code   string
	}{
		{"absent source", headers("x-amz-copy-source", "/data/absent"), 404, "NoSuchKey"},
		{"source in no bucket", headers("x-amz-copy-source", "/absent/k"), 404, "NoSuchBucket"},
		{"no key", headers("x-amz-copy-source", "/data"), 400, "InvalidArgument"},
		{"bad escape", headers("x-amz-copy-source", "/data/%zz"), 400, "InvalidArgument"},
		{"bad bucket", headers("x-amz-copy-source", "/NO/k"), 400, "InvalidBucketName"},
		{"version", headers("x-amz-copy-source", "/data/k?versionId=1"), 400, "InvalidArgument"},
		{"access point", headers("x-amz-copy-source", "arn:aws:s3:::x/object/y"), 501, "NotImplemented"},
		{"directive", headers("x-amz-copy-source", "/data/k", "x-amz-metadata-directive", "MOVE"), 400, "InvalidArgument"},
		{"encrypted source", headers("x-amz-copy-source", "/data/k", "x-amz-copy-source-server-side-encryption-customer-algorithm", "AES256"), 501, "NotImplemented"},
	} {
		e.raw(t, "PUT", "/other/no", v.header, "").want(t, v.name, v.status, v.code)
	}
	e.wantAbsent(t, other, "no")
}

func TestCopyParts(t *testing.T) {
	e := serve(t, nil, false)
	c, b := e.client(), e.bucket(t, "data")
	data := random(core.MinPart + 1000)
	if _, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: aws.String("src"), Body: bytes.NewReader(data)}); err != nil {
		t.Fatal(err)
	}
	up, err := c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &b, Key: aws.String("dst")})
	if err != nil {
		t.Fatal(err)
	}
	var parts []types.CompletedPart
	for i, r := range []string{"", "bytes=10-99"} {
		in := &s3.UploadPartCopyInput{Bucket: &b, Key: aws.String("dst"), UploadId: up.UploadId, PartNumber: aws.Int32(int32(i + 1)), CopySource: aws.String("data/src")}
		if r != "" {
			in.CopySourceRange = &r
		}
		p, err := c.UploadPartCopy(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, types.CompletedPart{PartNumber: in.PartNumber, ETag: p.CopyPartResult.ETag})
	}
	for _, r := range []string{"bytes=0-", "bytes=-5", "0-5", "bytes=5-1", "bytes=0-1,3-4", "bytes=0-99999999"} {
		_, err := c.UploadPartCopy(t.Context(), &s3.UploadPartCopyInput{
			Bucket: &b, Key: aws.String("dst"), UploadId: up.UploadId, PartNumber: aws.Int32(3), CopySource: aws.String("data/src"), CopySourceRange: &r,
		})
		wantAPI(t, "range "+r, err, "InvalidArgument")
	}
	if _, err := c.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{
		Bucket: &b, Key: aws.String("dst"), UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	}); err != nil {
		t.Fatal(err)
	}
	e.wantStored(t, b, "dst", slices.Concat(data, data[10:100]))
}

func TestTagging(t *testing.T) {
	e := serve(t, nil, false)
	c, b := e.client(), e.bucket(t, "data")
	key := aws.String("k")
	if _, err := c.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: &b, Key: key, Body: strings.NewReader("data"), Metadata: map[string]string{"m": "1"}, Tagging: aws.String("a=1"),
	}); err != nil {
		t.Fatal(err)
	}
	tags := func() string {
		out, err := c.GetObjectTagging(t.Context(), &s3.GetObjectTaggingInput{Bucket: &b, Key: key})
		if err != nil {
			t.Fatal(err)
		}
		var s []string
		for _, tag := range out.TagSet {
			s = append(s, *tag.Key+"="+*tag.Value)
		}
		return strings.Join(s, "&")
	}
	if got := tags(); got != "a=1" {
		t.Errorf("tags: got %s", got)
	}
	put := func(pairs ...string) error {
		var set []types.Tag
		for i := 0; i < len(pairs); i += 2 {
			set = append(set, types.Tag{Key: &pairs[i], Value: &pairs[i+1]})
		}
		_, err := c.PutObjectTagging(t.Context(), &s3.PutObjectTaggingInput{Bucket: &b, Key: key, Tagging: &types.Tagging{TagSet: set}})
		return err
	}
	if err := put("x", "<&>", "ä", ""); err != nil {
		t.Fatal(err)
	}
	if got := tags(); got != "x=<&>&ä=" {
		t.Errorf("tags: got %s", got)
	}
	if info := e.wantStored(t, b, "k", []byte("data")); info.Meta["m"] != "1" || `"`+info.ETag+`"` != quotedMD5([]byte("data")) {
		t.Errorf("tagging changed %+v", info.Record)
	}
	wantAPI(t, "two of a name", put("a", "1", "a", "2"), "InvalidTag")
	wantAPI(t, "no name", put("", "1"), "InvalidTag")
	wantAPI(t, "long name", put(strings.Repeat("k", 129), "1"), "InvalidTag")
	wantAPI(t, "long value", put("k", strings.Repeat("v", 257)), "InvalidTag")
	wantAPI(t, "system tag", put("aws:x", "1"), "InvalidTag")
	wantAPI(t, "eleven", put("1", "", "2", "", "3", "", "4", "", "5", "", "6", "", "7", "", "8", "", "9", "", "10", "", "11", ""), "BadRequest")
	for _, v := range []string{"a=1&a=2", "a=%zz"} {
		e.raw(t, "PUT", "/data/no", headers("x-amz-tagging", v), "x").want(t, v, 400, "InvalidArgument")
	}
	if _, err := c.DeleteObjectTagging(t.Context(), &s3.DeleteObjectTaggingInput{Bucket: &b, Key: key}); err != nil {
		t.Fatal(err)
	}
	if got := tags(); got != "" {
		t.Errorf("tags: got %s", got)
	}
	_, err := c.GetObjectTagging(t.Context(), &s3.GetObjectTaggingInput{Bucket: &b, Key: aws.String("absent")})
	wantAPI(t, "tags of nothing", err, "NoSuchKey")
	if acl, err := c.GetObjectAcl(t.Context(), &s3.GetObjectAclInput{Bucket: &b, Key: key}); err != nil || len(acl.Grants) != 1 {
		t.Errorf("acl: got %+v, %v", acl, err)
	}
	_, err = c.GetObjectAcl(t.Context(), &s3.GetObjectAclInput{Bucket: &b, Key: aws.String("absent")})
	wantAPI(t, "acl of nothing", err, "NoSuchKey")
}

func TestDeleteObjects(t *testing.T) {
	e := serve(t, nil, false)
	c, b := e.client(), e.bucket(t, "data")
	bucket, err := e.objects.Bucket(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	var list []types.ObjectIdentifier
	for i := range 1000 {
		key := fmt.Sprintf("k%04d <ä>\r\n", i)
		if _, err := e.objects.Put(t.Context(), bucket, key, strings.NewReader("x"), core.PutOptions{Size: 1}); err != nil {
			t.Fatal(err)
		}
		list = append(list, types.ObjectIdentifier{Key: &key})
	}
	del := func(quiet bool, list ...types.ObjectIdentifier) (*s3.DeleteObjectsOutput, error) {
		return c.DeleteObjects(t.Context(), &s3.DeleteObjectsInput{Bucket: &b, Delete: &types.Delete{Objects: list, Quiet: &quiet}})
	}
	out, err := del(false, list[:400]...)
	if err != nil || len(out.Deleted) != 400 || len(out.Errors) != 0 || *out.Deleted[7].Key != *list[7].Key {
		t.Fatalf("delete: got %+v, %v", out, err)
	}
	out, err = del(true, list...)
	if err != nil || len(out.Deleted) != 0 || len(out.Errors) != 0 {
		t.Errorf("quiet: got %+v, %v", out, err)
	}
	l, err := e.objects.List(t.Context(), bucket, core.ListOptions{Max: 10})
	if err != nil || len(l.Objects) != 0 {
		t.Errorf("left: %d, %v", len(l.Objects), err)
	}
	_, err = del(false, append(list, list[0])...)
	wantAPI(t, "1,001 keys", err, "MalformedXML")

	if _, err := e.objects.Put(t.Context(), bucket, "kept", strings.NewReader("x"), core.PutOptions{Size: 1}); err != nil {
		t.Fatal(err)
	}
	out, err = del(true,
		types.ObjectIdentifier{Key: aws.String("kept"), ETag: aws.String(`"x"`)},
		types.ObjectIdentifier{Key: aws.String("kept"), VersionId: aws.String("7")},
		types.ObjectIdentifier{Key: aws.String(strings.Repeat("k", 1025))},
		types.ObjectIdentifier{Key: aws.String("")})
	var codes []string
	if err == nil {
		for _, e := range out.Errors {
			codes = append(codes, *e.Code)
		}
	}
	if !slices.Equal(codes, []string{"PreconditionFailed", "NoSuchVersion", "KeyTooLongError", "InvalidArgument"}) {
		t.Errorf("errors: got %v, %v", codes, err)
	}
	e.wantStored(t, b, "kept", []byte("x"))
	for name, v := range map[string]struct {
		doc    string
		header http.Header
		code   string
	}{
		"no XML":       {"hello", nil, "MalformedXML"},
		"other root":   {"<Remove/>", nil, "MalformedXML"},
		"open":         {"<Delete><Object><Key>kept</Key></Object>", nil, "MalformedXML"},
		"two roots":    {"<Delete><Object><Key>a</Key></Object></Delete><Delete/>", nil, "MalformedXML"},
		"text behind":  {"<Delete><Object><Key>a</Key></Object></Delete>x", nil, "MalformedXML"},
		"entity":       {"<!DOCTYPE x [<!ENTITY e 'kept'>]><Delete><Object><Key>&e;</Key></Object></Delete>", nil, "MalformedXML"},
		"no object":    {"<Delete><Quiet>true</Quiet></Delete>", nil, "MalformedXML"},
		"wrong MD5":    {"<Delete><Object><Key>kept</Key></Object></Delete>", headers("Content-MD5", "XrY7u+Ae7tCTyyK7j1rNww=="), "BadDigest"},
		"wrong sum":    {"<Delete><Object><Key>kept</Key></Object></Delete>", headers("x-amz-checksum-crc32", "AAAAAA=="), "BadDigest"},
		"enormous":     {"<Delete>" + strings.Repeat(" ", maxDeleteDocument) + "</Delete>", nil, "MaxMessageLengthExceeded"},
		"many objects": {"<Delete>" + strings.Repeat("<Object/>", 500_000) + "</Delete>", nil, "MalformedXML"},
		"deep":         {"<Delete>" + strings.Repeat("<a>", 500_000), nil, "MalformedXML"},
	} {
		e.raw(t, "POST", "/data?delete", v.header, v.doc).want(t, name, 400, v.code)
	}
	e.wantStored(t, b, "kept", []byte("x"))
}
