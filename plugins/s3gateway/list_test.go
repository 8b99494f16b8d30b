package s3gateway

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/s3gateway/sigv4"
)

// sparing returns less than it is asked for, as an object layer may.
type sparing struct{ core.Objects }

func (s sparing) List(ctx context.Context, b core.Bucket, o core.ListOptions) (core.Listing, error) {
	o.Max = min(o.Max, 2)
	return s.Objects.List(ctx, b, o)
}

func (s sparing) Uploads(ctx context.Context, b core.Bucket, prefix, key, id string, limit int) ([]core.Upload, bool, error) {
	return s.Objects.Uploads(ctx, b, prefix, key, id, min(limit, 2))
}

// listed is a listing to its end: keys, and groups with a mark.
func listed(keys []types.Object, groups []types.CommonPrefix, decode bool) (out []string) {
	name := func(s string) string {
		if decode {
			s, _ = url.PathUnescape(s)
		}
		return s
	}
	for _, k := range keys {
		out = append(out, name(*k.Key))
	}
	for _, g := range groups {
		out = append(out, "group "+name(*g.Prefix))
	}
	return out
}

// wanted lists by the definition.
func wanted(keys []string, prefix, delimiter, after string) (out []string) {
	for _, k := range keys {
		rest, ok := strings.CutPrefix(k, prefix)
		if !ok || k <= after {
			continue
		}
		item := k
		if i := strings.Index(rest, delimiter); delimiter != "" && i >= 0 {
			item = "group " + prefix + rest[:i+len(delimiter)]
		}
		if !slices.Contains(out, item) {
			out = append(out, item)
		}
	}
	slices.Sort(out)
	return out
}

func TestListings(t *testing.T) {
	e := serve(t, func(o core.Objects) core.Objects { return sparing{o} }, false)
	c, b := e.client(), e.bucket(t, "data")
	bucket, err := e.objects.Bucket(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, dir := range []string{"", "a/", "a/b/", "a b/", "c/", "c//", "ä/", "x+%&<"} {
		for _, name := range []string{"1", "2", "a", "z/", "z/1", "\U0001F41F"} {
			keys = append(keys, dir+name)
		}
	}
	for _, k := range keys {
		if _, err := e.objects.Put(t.Context(), bucket, k, strings.NewReader(k), core.PutOptions{Size: int64(len(k))}); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(keys)
	for _, prefix := range []string{"", "a", "a/", "a/b/", "c/", "x+", "none"} {
		for _, delimiter := range []string{"", "/", "//", "b/"} {
			for _, after := range []string{"", "a", "a/", "a/1", "c/z/1", "zzz"} {
				for _, size := range []int32{1, 3, 1000} {
					for _, encoding := range []types.EncodingType{"", types.EncodingTypeUrl} {
						what := fmt.Sprintf("prefix %q, delimiter %q, after %q, pages of %d, encoding %q", prefix, delimiter, after, size, encoding)
						var got []string
						pages := s3.NewListObjectsV2Paginator(c, &s3.ListObjectsV2Input{
							Bucket: &b, Prefix: &prefix, Delimiter: &delimiter, StartAfter: &after, MaxKeys: &size, EncodingType: encoding,
						})
						for pages.HasMorePages() {
							out, err := pages.NextPage(t.Context())
							if err != nil {
								t.Fatalf("%s: %v", what, err)
							}
							n := len(out.Contents) + len(out.CommonPrefixes)
							if n > int(size) || int(*out.KeyCount) != n || *out.IsTruncated && n < int(size) {
								t.Fatalf("%s: a page of %d, KeyCount %d, truncated %v", what, n, *out.KeyCount, *out.IsTruncated)
							}
							got = append(got, listed(out.Contents, out.CommonPrefixes, encoding != "")...)
						}
						slices.Sort(got)
						if want := wanted(keys, prefix, delimiter, after); !slices.Equal(got, want) {
							t.Fatalf("%s: got %q, want %q", what, got, want)
						}
					}
				}
			}
			for _, size := range []int32{1, 2, 1000} {
				listV1(t, c, b, keys, prefix, delimiter, size)
			}
		}
	}
}

// listV1 pages by markers as clients of the first version do.
func listV1(t *testing.T, c *s3.Client, b string, keys []string, prefix, delimiter string, size int32) {
	t.Helper()
	var got []string
	in := &s3.ListObjectsInput{Bucket: &b, Prefix: &prefix, Delimiter: &delimiter, MaxKeys: &size}
	for {
		out, err := c.ListObjects(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, listed(out.Contents, out.CommonPrefixes, false)...)
		if !*out.IsTruncated {
			break
		}
		in.Marker = out.NextMarker
		if (out.NextMarker == nil) != (delimiter == "") {
			t.Fatalf("next marker is %v with delimiter %q", out.NextMarker, delimiter)
		}
		if in.Marker == nil {
			in.Marker = out.Contents[len(out.Contents)-1].Key
		}
	}
	slices.Sort(got)
	if want := wanted(keys, prefix, delimiter, ""); !slices.Equal(got, want) {
		t.Fatalf("version 1, prefix %q, delimiter %q, pages of %d: got %q, want %q", prefix, delimiter, size, got, want)
	}
}

func TestListDetails(t *testing.T) {
	e := serve(t, nil, false)
	c, b := e.client(), e.bucket(t, "data")
	if _, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: aws.String("k"), Body: strings.NewReader("data")}); err != nil {
		t.Fatal(err)
	}
	for _, owner := range []bool{true, false} {
		out, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &b, FetchOwner: &owner})
		if err != nil || len(out.Contents) != 1 {
			t.Fatalf("list: %+v, %v", out, err)
		}
		o := out.Contents[0]
		if *o.Size != 4 || *o.ETag != quotedMD5([]byte("data")) || o.LastModified == nil || o.StorageClass != "STANDARD" ||
			(o.Owner != nil) != owner || !slices.Equal(o.ChecksumAlgorithm, []types.ChecksumAlgorithm{"CRC32"}) {
			t.Errorf("list: got %+v", o)
		}
	}
	for _, v := range []struct {
		query  string
		status int
		code   string
	}{
		{"max-keys=0", 200, ""},
		{"list-type=2&max-keys=0", 200, ""},
		{"max-keys=5000", 200, ""},
		{"max-keys=-1", 400, "InvalidArgument"},
		{"max-keys=x", 400, "InvalidArgument"},
		{"max-keys=99999999999999999999", 400, "InvalidArgument"},
		{"encoding-type=base64", 400, "InvalidArgument"},
		{"list-type=3", 400, "InvalidArgument"},
		{"list-type=2&continuation-token=nonsense", 400, "InvalidArgument"},
		{"list-type=2&continuation-token=", 400, "InvalidArgument"},
		{"uploads&max-uploads=x", 400, "InvalidArgument"},
	} {
		r := e.raw(t, "GET", "/data?"+v.query, nil, "")
		r.want(t, v.query, v.status, v.code)
		if strings.Contains(v.query, "max-keys=0") && (!strings.Contains(r.body, "<IsTruncated>false") || strings.Contains(r.body, "<Key>")) {
			t.Errorf("%s: got %s", v.query, r.body)
		}
	}
	r := e.request(t, "GET", "/data", nil, "", sigv4.EmptyPayload)
	r.URL.RawQuery = "prefix=%zz"
	e.send(t, r).want(t, "malformed query", 400, "InvalidURI")
	// Names that XML cannot carry are never shown as other names.
	bucket, err := e.objects.Bucket(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	odd := "\x00\x01\r\n\t\uffff\ufffe]]>"
	if _, err := e.objects.Put(t.Context(), bucket, odd, strings.NewReader(""), core.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	got := e.raw(t, "GET", "/data?list-type=2", nil, "")
	if want := "<Key>&#x0;&#x1;&#xd;&#xa;&#x9;&#xffff;&#xfffe;]]&gt;</Key>"; !strings.Contains(got.body, want) {
		t.Errorf("odd key: got %s, want %s in it", got.body, want)
	}
	got = e.raw(t, "GET", "/data?list-type=2&encoding-type=url", nil, "")
	if want := "<Key>%00%01%0D%0A%09%EF%BF%BF%EF%BF%BE%5D%5D%3E</Key>"; !strings.Contains(got.body, want) {
		t.Errorf("odd key: got %s, want %s in it", got.body, want)
	}
}

func TestListUploads(t *testing.T) {
	e := serve(t, func(o core.Objects) core.Objects { return sparing{o} }, false)
	c, b := e.client(), e.bucket(t, "data")
	var keys []string
	for _, k := range []string{"a/1", "a/1", "a/2", "a/b/1", "a/b/2", "a/b/3", "b", "b", "b", "c/1", "c/2"} {
		if _, err := c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &b, Key: &k, ChecksumAlgorithm: "CRC32"}); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	for _, prefix := range []string{"", "a/", "b", "none"} {
		for _, delimiter := range []string{"", "/"} {
			for _, size := range []int32{1, 2, 3, 1000} {
				var got []string
				pages := s3.NewListMultipartUploadsPaginator(c, &s3.ListMultipartUploadsInput{Bucket: &b, Prefix: &prefix, Delimiter: &delimiter, MaxUploads: &size})
				for pages.HasMorePages() {
					out, err := pages.NextPage(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					if n := len(out.Uploads) + len(out.CommonPrefixes); n > int(size) || n == 0 && *out.IsTruncated {
						t.Fatalf("a page of %d, want %d", n, size)
					}
					for _, u := range out.Uploads {
						got = append(got, *u.Key)
						if u.Initiated == nil || *u.UploadId == "" || u.ChecksumAlgorithm != "CRC32" || u.ChecksumType != "COMPOSITE" {
							t.Errorf("got %+v", u)
						}
					}
					for _, g := range out.CommonPrefixes {
						got = append(got, "group "+*g.Prefix)
					}
				}
				var want []string
				for _, k := range keys {
					rest, ok := strings.CutPrefix(k, prefix)
					i := strings.Index(rest, delimiter)
					switch {
					case !ok:
					case delimiter == "" || i < 0:
						want = append(want, k)
					case !slices.Contains(want, "group "+prefix+rest[:i+1]):
						want = append(want, "group "+prefix+rest[:i+1])
					}
				}
				slices.Sort(got)
				slices.Sort(want)
				if !slices.Equal(got, want) {
					t.Errorf("prefix %q, delimiter %q, pages of %d: got %q, want %q", prefix, delimiter, size, got, want)
				}
			}
		}
	}
	// A key marker without an id leaves out all uploads of the key.
	out, err := c.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &b, KeyMarker: aws.String("b")})
	if err != nil || len(out.Uploads) != 2 || *out.Uploads[0].Key != "c/1" {
		t.Errorf("after b: got %+v, %v", out, err)
	}
}
