package s3gateway

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/s3gateway/sigv4"
)

// Keys are bytes: whatever the client escapes, the store gets it unchanged.
func TestOddKeys(t *testing.T) {
	e := serve(t, nil, false)
	c, b := e.client(), e.bucket(t, "data")
	keys := []string{
		"a", "a/", "a//", "/a", "//a", "/", ".", "..", "../a", "a/../b", "a/./b", "./", "a/..", " ", " a ", "a b", "a+b", "a%20b", "a%2Fb", "%",
		"a?b", "a#b", "a&b=c", "a\\b", "a\"b'c<d>", "\x00", "a\x00b", "a\nb", "\r\n", "\t", "\x7f", "ä", "a\u0308", "日本語", "\U0001F41F", "\uffff",
		strings.Repeat("k", core.MaxKey), strings.Repeat("ü", core.MaxKey/2), strings.Repeat("a/", core.MaxKey/2), "-", "~", "?acl", "x?uploads",
	}
	for i, k := range keys {
		data := fmt.Sprint("data ", i)
		if i%2 == 0 {
			e.raw(t, "PUT", "/data/"+strings.TrimPrefix(string(sigv4.AppendPath(nil, k)), ""), nil, data).want(t, k, 200, "")
		} else if _, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: &k, Body: strings.NewReader(data)}); err != nil {
			t.Fatalf("put %q: %v", k, err)
		}
		e.wantStored(t, b, k, []byte(data))
		out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: &k})
		if err != nil || *out.ContentLength != int64(len(data)) {
			t.Errorf("get %q: %v", k, err)
			continue
		}
		_ = out.Body.Close()
	}
	l, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &b, EncodingType: "url"})
	if err != nil || len(l.Contents) != len(keys) {
		t.Errorf("list: got %d keys, %v; want %d", len(l.Contents), err, len(keys))
	}
	for _, k := range keys {
		if _, err := c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &b, Key: &k}); err != nil {
			t.Errorf("delete %q: %v", k, err)
		}
		e.wantAbsent(t, b, k)
	}
	// As they are, unescaped, where HTTP allows it.
	for target, key := range map[string]string{
		"/data/a/../b": "a/../b", "/data//x": "/x", "/data/./y": "./y", "/data/a%2fb": "a/b", "/data/%61": "a", "/data/a+b": "a+b", "/data/a:b@c!$'()*,;=": "a:b@c!$'()*,;=",
	} {
		e.raw(t, "PUT", target, nil, target).want(t, target, 200, "")
		e.wantStored(t, b, key, []byte(target))
	}
	e.raw(t, "PUT", "/data/"+strings.Repeat("k", core.MaxKey+1), nil, "x").want(t, "long key", 400, "KeyTooLongError")
	e.raw(t, "PUT", "/data/%ff", nil, "x").want(t, "key of no UTF-8", 400, "InvalidURI")
	e.raw(t, "PUT", "/data/%c0%af", nil, "x").want(t, "overlong UTF-8", 400, "InvalidURI")
}

// What is not built says so, and changes nothing.
func TestNotImplemented(t *testing.T) {
	e := serve(t, nil, false)
	b := e.bucket(t, "data")
	e.raw(t, "PUT", "/data/k", nil, "data").want(t, "put", 200, "")
	for _, v := range []struct {
		method, target string
		header         http.Header
		status         int
		code           string
	}{
		{"PUT", "/data?acl", nil, 501, "NotImplemented"},
		{"PUT", "/data?policy", nil, 501, "NotImplemented"},
		{"PUT", "/data?versioning", nil, 501, "NotImplemented"},
		{"PUT", "/data?lifecycle", nil, 501, "NotImplemented"},
		{"PUT", "/data?encryption", nil, 501, "NotImplemented"},
		{"DELETE", "/data?policy", nil, 501, "NotImplemented"},
		{"GET", "/data?versions", nil, 501, "NotImplemented"},
		{"GET", "/data?notification", nil, 501, "NotImplemented"},
		{"GET", "/data?inventory", nil, 501, "NotImplemented"},
		{"POST", "/data", nil, 501, "NotImplemented"},
		{"GET", "/data?cors", nil, 404, "NoSuchCORSConfiguration"},
		{"GET", "/data?lifecycle", nil, 404, "NoSuchLifecycleConfiguration"},
		{"GET", "/data?object-lock", nil, 404, "ObjectLockConfigurationNotFoundError"},
		{"GET", "/absent?policy", nil, 404, "NoSuchBucket"},
		{"PUT", "/data/k?acl", nil, 501, "NotImplemented"},
		{"PUT", "/data/k?retention", nil, 501, "NotImplemented"},
		{"PUT", "/data/k?legal-hold", nil, 501, "NotImplemented"},
		{"GET", "/data/k?attributes", nil, 501, "NotImplemented"},
		{"GET", "/data/k?torrent", nil, 501, "NotImplemented"},
		{"POST", "/data/k?restore", nil, 501, "NotImplemented"},
		{"POST", "/data/k?select", nil, 501, "NotImplemented"},
		{"POST", "/data/k", nil, 501, "NotImplemented"},
		{"GET", "/data/k?versionId=3", nil, 400, "InvalidArgument"},
		{"GET", "/data/k?versionId=null", nil, 200, ""},
		{"PATCH", "/data/k", nil, 405, "MethodNotAllowed"},
		{"PATCH", "/data", nil, 405, "MethodNotAllowed"},
		{"PUT", "/", nil, 405, "MethodNotAllowed"},
		{"OPTIONS", "/data/k", nil, 403, "AccessForbidden"},
		{"GET", "/NoBucket", nil, 400, "InvalidBucketName"},
		{"PUT", "/a_b/k", nil, 400, "InvalidBucketName"},
		{"PUT", "//k", nil, 400, "InvalidBucketName"},
		{"PUT", "/absent/k", nil, 404, "NoSuchBucket"},

		{"PUT", "/data/k", headers("x-amz-server-side-encryption", "AES256"), 501, "NotImplemented"},
		{"PUT", "/data/k", headers("x-amz-server-side-encryption-customer-algorithm", "AES256"), 501, "NotImplemented"},
		{"PUT", "/data/k", headers("x-amz-object-lock-mode", "GOVERNANCE"), 501, "NotImplemented"},
		{"PUT", "/data/k", headers("x-amz-website-redirect-location", "/x"), 501, "NotImplemented"},
		{"PUT", "/data/k", headers("x-amz-write-offset-bytes", "4"), 501, "NotImplemented"},
		{"PUT", "/data/k", headers("x-amz-grant-read", "id=x"), 501, "NotImplemented"},
		{"PUT", "/data/k", headers("x-amz-acl", "public-read"), 400, "AccessControlListNotSupported"},
		{"PUT", "/data/k", headers("x-amz-storage-class", "GLACIER"), 501, "NotImplemented"},
		{"PUT", "/data/k", headers("x-amz-storage-class", "GOLD"), 400, "InvalidStorageClass"},
		{"PUT", "/data/k", headers("x-amz-expected-bucket-owner", "111122223333"), 403, "AccessDenied"},
		{"PUT", "/data/k", headers("x-amz-checksum-xxhash3", "AAAA"), 501, "NotImplemented"},
		{"PUT", "/data/k", headers("x-amz-checksum-crc32", "AAAA"), 400, "InvalidRequest"},
		{"PUT", "/data/k", headers("x-amz-checksum-crc32", "AAAAAA==", "x-amz-checksum-sha1", "98O8HYCOBHMq32eZZczDTKeuNEE="), 400, "InvalidRequest"},
		{"PUT", "/data/k", headers("x-amz-sdk-checksum-algorithm", "CRC32"), 400, "InvalidRequest"},
		{"PUT", "/data/k", headers("x-amz-trailer", "x-amz-checksum-crc32"), 400, "InvalidRequest"},
		{"PUT", "/data/k", headers("x-amz-meta-a", strings.Repeat("x", 2048)), 400, "MetadataTooLarge"},
		{"PUT", "/newbucket", headers("x-amz-bucket-object-lock-enabled", "true"), 501, "NotImplemented"},
		{"PUT", "/newbucket", headers("x-amz-acl", "public-read"), 400, "AccessControlListNotSupported"},
	} {
		r := e.raw(t, v.method, v.target, v.header, "")
		what := fmt.Sprint(v.method, " ", v.target, " ", v.header)
		r.want(t, what, v.status, v.code)
		if len(r.header.Get("x-amz-request-id")) != 32 || r.header.Get("Server") != "Shoal" || r.header.Get("Date") == "" {
			t.Errorf("%s: headers %v", what, r.header)
		}
		if v.code != "" && (!strings.Contains(r.body, "<RequestId>"+r.header.Get("x-amz-request-id")) || r.header.Get("Content-Type") != "application/xml") {
			t.Errorf("%s: got %s", what, r.body)
		}
	}
	e.wantStored(t, b, "k", []byte("data"))
	if bs, err := e.objects.Buckets(t.Context()); err != nil || len(bs) != 1 {
		t.Errorf("buckets: got %+v, %v", bs, err)
	}
	// At the limits it still works.
	e.raw(t, "PUT", "/data/meta", headers("x-amz-meta-a", strings.Repeat("x", 2047), "x-amz-storage-class", "STANDARD", "x-amz-acl", "private"), "x").want(t, "2 KiB of metadata", 200, "")
	if info := e.wantStored(t, b, "meta", []byte("x")); len(info.Meta["a"]) != 2047 {
		t.Errorf("stored %d bytes of metadata", len(info.Meta["a"]))
	}
	r := e.raw(t, "GET", "/data/meta", nil, "")
	if r.header.Get("x-amz-meta-a") != strings.Repeat("x", 2047) || r.header.Get("Content-Type") != defaultType || r.header.Get("Accept-Ranges") != "bytes" {
		t.Errorf("get: headers %v", r.header)
	}
}

// Signatures are refused with S3's codes before anything is done.
func TestUnauthorized(t *testing.T) {
	e := serve(t, nil, false)
	b := e.bucket(t, "data")
	e.raw(t, "PUT", "/data/k", nil, "data").want(t, "put", 200, "")
	try := func(what string, status int, code string, change func(*http.Request)) {
		r := e.request(t, "PUT", "/data/k", nil, "evil", sigv4.PayloadHash([]byte("evil")))
		change(r)
		e.send(t, r).want(t, what, status, code)
		e.wantStored(t, b, "k", []byte("data"))
	}
	sign := func(r *http.Request, key, secret, region string) {
		if err := sigv4.Sign(r, sigv4.Credentials{AccessKey: key, Secret: secret}, region, "s3", sigv4.PayloadHash([]byte("evil")), wall{}.Now()); err != nil {
			t.Fatal(err)
		}
	}
	try("no signature", 403, "AccessDenied", func(r *http.Request) { r.Header.Del("Authorization") })
	try("unknown key", 403, "InvalidAccessKeyId", func(r *http.Request) { sign(r, "who", testSecret, "us-east-1") })
	try("wrong secret", 403, "SignatureDoesNotMatch", func(r *http.Request) { sign(r, testKey, "x", "us-east-1") })
	try("other region", 400, "AuthorizationHeaderMalformed", func(r *http.Request) { sign(r, testKey, testSecret, "mars-1") })
	try("other key", 403, "SignatureDoesNotMatch", func(r *http.Request) { r.URL.Path = "/data/k2" })
	try("other query", 403, "SignatureDoesNotMatch", func(r *http.Request) { r.URL.RawQuery = "tagging" })
	try("unsigned header", 403, "AccessDenied", func(r *http.Request) { r.Header.Set("x-amz-meta-a", "b") })
	try("other body", 400, "XAmzContentSHA256Mismatch", func(r *http.Request) { r.Body = http.NoBody; r.ContentLength = 0; setBody(r, "EVIL") })
	e.send(t, func() *http.Request { r := e.request(t, "DELETE", "/data/k", nil, "", "x"); return r }()).want(t, "bad hash", 400, "InvalidArgument")
	e.wantStored(t, b, "k", []byte("data"))
	late := serveWith(t, Options{Objects: e.objects, Lookup: lookup, Clock: later{wall{}, 16 * 60e9}}, false)
	r := late.raw(t, "GET", "/data/k", nil, "")
	r.want(t, "late", 403, "RequestTimeTooSkewed")
	if !strings.Contains(r.body, "<MaxAllowedSkewMilliseconds>900000</MaxAllowedSkewMilliseconds>") {
		t.Errorf("late: got %s", r.body)
	}
	elsewhere := serveWith(t, Options{Objects: e.objects, Lookup: lookup, Clock: wall{}, Region: "eu-north-1"}, false)
	out, err := elsewhere.client(func(o *s3.Options) { o.Region = "eu-north-1" }).GetBucketLocation(t.Context(), &s3.GetBucketLocationInput{Bucket: aws.String("data")})
	if err != nil || out.LocationConstraint != "eu-north-1" {
		t.Errorf("location: got %+v, %v", out, err)
	}
	_, err = elsewhere.client().ListBuckets(t.Context(), &s3.ListBucketsInput{})
	wantAPI(t, "client of another region", err, "AuthorizationHeaderMalformed")
}

func setBody(r *http.Request, body string) {
	n, err := http.NewRequest(r.Method, r.URL.String(), strings.NewReader(body))
	if err == nil {
		r.Body, r.ContentLength, r.GetBody = n.Body, n.ContentLength, n.GetBody
	}
}

// What the repeated headers of one name mean.
func TestMetadataForms(t *testing.T) {
	e := serve(t, nil, false)
	b := e.bucket(t, "data")
	h := headers("X-Amz-Meta-List", "a", "X-Amz-Meta-List", "b", "x-amz-meta-UPPER_case", "v", "x-amz-meta-utf8", "\u00e4", "Content-Encoding", "aws-chunked, gzip",
		"Content-Type", "", "x-amz-meta-", "nameless")
	e.raw(t, "PUT", "/data/k", h, "x").want(t, "put", 200, "")
	info := e.wantStored(t, b, "k", []byte("x"))
	want := map[string]string{"list": "a,b", "upper_case": "v", "utf8": "\u00e4", "": "nameless"}
	if fmt.Sprint(info.Meta) != fmt.Sprint(want) || fmt.Sprint(info.Headers) != "map[Content-Encoding:gzip]" {
		t.Errorf("stored %q and %q", info.Meta, info.Headers)
	}
	r := e.raw(t, "GET", "/data/k", nil, "")
	if !slices.Equal(r.header["X-Amz-Meta-List"], []string{"a,b"}) || r.header.Get("X-Amz-Meta-Upper_case") != "v" || r.header.Get("X-Amz-Meta-Utf8") != "\u00e4" {
		t.Errorf("get: headers %q", r.header)
	}
}
