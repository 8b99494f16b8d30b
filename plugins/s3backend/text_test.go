package s3backend

import (
	"context"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/shoalstore/shoal/core"
)

func opener(data string) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(data)), nil }
}

func put(t *testing.T, b *Backend, bucket, key, data string) {
	t.Helper()
	if _, err := b.Put(t.Context(), bucket, key, core.RemotePut{Size: int64(len(data)), Open: opener(data)}); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func FuzzMeta(f *testing.F) {
	for _, v := range []string{"", "plain", " a ", "ü", "=?UTF-8?B?YQ==?=", "=?iso-8859-1?Q?=E4?=", "\x00\r\n", "a=?b", "\xff"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		e := encodeMeta(v)
		if !fieldValue(e) {
			t.Errorf("%q becomes %q, which is no header", v, e)
		}
		if got := decodeMeta(e); got != v {
			t.Errorf("%q comes back as %q", v, got)
		}
	})
}

// What S3 answers for values that others put raw is understood.
func TestDecodeMeta(t *testing.T) {
	for in, want := range map[string]string{
		"=?UTF-8?Q?gr=C3=BC=C3=9Fe?=": "grüße", "=?UTF-8?B?Z3LDvMOfZQ==?=": "grüße", "plain": "plain", "=?nonsense": "=?nonsense",
		"=?UTF-8?B?w6Q=?= =?UTF-8?B?w7Y=?=": "äö",
	} {
		if got := decodeMeta(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func FuzzAfterPrefix(f *testing.F) {
	f.Add("dir/", "\U0010ffff\U0010ffff")
	f.Add(strings.Repeat("x", 1021), "\u07ff\x7f")
	f.Fuzz(func(t *testing.T, prefix, rest string) {
		if len(prefix) > core.MaxKey || !utf8.ValidString(prefix) {
			return
		}
		after := afterPrefix(prefix)
		if err := core.ValidateKey(after); err != nil {
			t.Errorf("%q: %v", prefix, err)
		}
		if key := prefix + rest; core.ValidateKey(key) == nil && key > after {
			t.Errorf("%q is above %q", key, after)
		}
	})
}

// Keys come as they are or encoded, as the answer says; what is no listing is none.
func TestListingAnswer(t *testing.T) {
	page := func(encoding types.EncodingType, keys ...string) *s3.ListObjectsV2Output {
		out := &s3.ListObjectsV2Output{Name: aws.String("b"), IsTruncated: aws.Bool(true), EncodingType: encoding}
		for _, k := range keys {
			out.Contents = append(out.Contents, types.Object{Key: &k, ETag: aws.String(`"e"`)})
		}
		return out
	}
	l, err := new(Backend).listing(core.RemoteListOptions{}, page(types.EncodingTypeUrl, "a+b%2Bc%01/%C3%BC", "b"))
	if err != nil || len(l.Objects) != 2 || l.Objects[0].Key != "a b+c\x01/ü" || !l.More || l.Next != "b" || l.Objects[0].ETag != "e" {
		t.Errorf("encoded: %+v, %v", l, err)
	}
	if l, err := new(Backend).listing(core.RemoteListOptions{}, page("", "a+b%2B")); err != nil || l.Objects[0].Key != "a+b%2B" {
		t.Errorf("as it is: %+v, %v", l, err)
	}
	for what, out := range map[string]*s3.ListObjectsV2Output{
		"nothing": {}, "bad escape": page(types.EncodingTypeUrl, "a%zz"), "not UTF-8": page(types.EncodingTypeUrl, "a%ff"), "no progress": page(""),
	} {
		if l, err := new(Backend).listing(core.RemoteListOptions{}, out); err == nil {
			t.Errorf("%s: %+v", what, l)
		}
	}
	if l, err := new(Backend).listing(core.RemoteListOptions{After: "k"}, page("", "a", "b")); err == nil {
		t.Errorf("a page before what was asked for: %+v", l)
	}
}

func FuzzContentRange(f *testing.F) {
	for _, v := range []string{"bytes 0-9/10", "bytes 5-4/10", "bytes 0-10/10", "bytes */10", "bytes 0-9/*", "0-9/10", "bytes -1-9/10"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		first, last, size, err := parseContentRange(v)
		if err == nil && (first < 0 || last < first || last >= size) {
			t.Errorf("%q: %d-%d/%d", v, first, last, size)
		}
	})
}

func TestCopySource(t *testing.T) {
	if got, want := copySource("b", "a b/ü+%?&#=\n"), "b/a%20b/%C3%BC%2B%25%3F&%23=%0A"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
