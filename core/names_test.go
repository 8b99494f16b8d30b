package core

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseURI(t *testing.T) {
	for s, want := range map[string]URI{
		"abc":                      {BucketName{Shoal, "abc"}, ""},
		"abc/":                     {BucketName{Shoal, "abc"}, ""},
		"abc/k":                    {BucketName{Shoal, "abc"}, "k"},
		"shoal://abc/a/b":          {BucketName{Shoal, "abc"}, "a/b"},
		"s3://my.bucket-1":         {BucketName{S3, "my.bucket-1"}, ""},
		"gs://abc//x":              {BucketName{GCS, "abc"}, "/x"},
		"s3://abc/a%20b ?#://\x00": {BucketName{S3, "abc"}, "a%20b ?#://\x00"},
		"gs://a_b":                 {BucketName{GCS, "a_b"}, ""},
		"http://Data.Example.NET:80/a/../b%2Fc?x=/1#f": {BucketName{HTTP, "data.example.net"}, "a/../b%2Fc?x=/1#f"},
		"https://h:0443":          {BucketName{HTTPS, "h"}, ""},
		"https://h:80//":          {BucketName{HTTPS, "h:80"}, "/"},
		"http://127.0.0.1:08080/": {BucketName{HTTP, "127.0.0.1:8080"}, ""},
		"http://[0:0::1]:81/k":    {BucketName{HTTP, "[::1]:81"}, "k"},
		"file://sets/a//b":        {BucketName{File, "sets"}, "a//b"},
		"file://x":                {BucketName{File, "x"}, ""},
	} {
		got, err := ParseURI(s)
		if err != nil || got != want {
			t.Errorf("%q: got %+v, %v; want %+v", s, got, err, want)
		}
	}
	for _, s := range []string{
		"", "/", "ab", "://abc", "ftp://abc", "S3://abc", "s3:///k", "s3://ABC", "s3://a_b", "s3:/abc", "s3://abc:80/k", " abc",
		"http://", "http:///k", "http://u@h/k", "http://h:/k", "http://h:0/k", "http://h:99999/k", "http://h:x/k", "http://h?q", "http://a..b", "http://-a", "http://a.",
		"http://[::1", "http://[::1]x", "http://[fe80::1%25e]", "http://[1.2.3.4]", "http://ä.de", "http://" + strings.Repeat("a", 64), "http://::1/",
		"file://", "file:///mnt/x", "file://-a", "file://A", "file://a b/c",
	} {
		if got, err := ParseURI(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: got %+v, %v; want ErrInvalid", s, got, err)
		}
	}
}

func TestValidateBucket(t *testing.T) {
	for _, s := range []string{"abc", "a-b", "a.b", "a--b", "123", "1.2.3", "1.2.3.4.5", "a.1.2.3", "1.2.3.x", strings.Repeat("a", 63), "0a0"} {
		if err := ValidateBucket(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"", "a", "ab", strings.Repeat("a", 64), "-ab", "ab-", ".ab", "ab.", "a..b", "a_b", "aBc", "a b", "192.168.0.1", "999.9.9.9", "äbc"} {
		if err := ValidateBucket(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: got %v, want ErrInvalid", s, err)
		}
	}
}

func TestBucketNameValidate(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, b := range []BucketName{
		{Shoal, "abc"},
		{S3, "a.b"},
		{GCS, "a_b"},
		{GCS, "a--b"},
		{GCS, "1.2.3"},
		{GCS, long},
		{GCS, long + "." + long + "." + long + "." + long[:30]},
		{HTTP, "h"},
		{HTTP, "a_b.c"},
		{HTTP, "h:81"},
		{HTTPS, "h:80"},
		{HTTPS, "10.0.0.1"},
		{HTTP, "[::1]"},
		{File, "a"},
		{File, "a.b-c_d"},
		{File, long},
	} {
		if err := b.Validate(); err != nil {
			t.Errorf("%s: %v", b, err)
		}
		if u, err := ParseURI(b.String() + "/k"); err != nil || u.Bucket != b || u.Key != "k" {
			t.Errorf("%s: parsed as %+v, %v", b, u, err)
		}
	}
	for _, b := range []BucketName{
		{},
		{"", "abc"},
		{"ftp", "abc"},
		{Shoal, "a_b"},
		{S3, "a_b"},
		{S3, long + "a"},
		{GCS, "ab"},
		{GCS, "aB"},
		{GCS, "_ab"},
		{GCS, "ab_"},
		{GCS, "a..b"},
		{GCS, long + "a"},
		{GCS, long + "a.b"},
		{GCS, "1.2.3.4"},
		{GCS, long + "." + long + "." + long + "." + long[:31]},
		{HTTP, "H"},
		{HTTP, "h:80"},
		{HTTPS, "h:443"},
		{HTTP, "h:081"},
		{HTTP, "h/x"},
		{HTTP, ""},
		{HTTP, "[0::1]"},
		{File, ""},
		{File, ".."},
		{File, "a/b"},
		{File, long + "a"},
	} {
		if err := b.Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", b, err)
		}
	}
	if (BucketName{Shoal, "abc"}).Remote() || !(BucketName{File, "abc"}).Remote() {
		t.Error("remote is mistaken")
	}
}

// Whatever is taken, an alias is a name that S3 clients can use, and two buckets
// have two.
func TestAlias(t *testing.T) {
	long := strings.Repeat("a", 63)
	taken := map[string]bool{}
	for _, c := range []struct {
		b    BucketName
		want string
	}{
		{BucketName{Shoal, "abc"}, "abc"},
		{BucketName{S3, "abc"}, "s3--abc"},
		{BucketName{GCS, "abc"}, "gs--abc"},
		{BucketName{File, "sets"}, "sets"},
		{BucketName{File, "a"}, "file--a"},
		{BucketName{HTTPS, "example.net"}, "example.net"},
		{BucketName{HTTP, "example.net"}, "http--example.net"},
		{BucketName{HTTP, "example.net:81"}, "http--example.net-81-"},
		{BucketName{HTTP, "[::1]:81"}, "http-----1--81-"},
		{BucketName{GCS, "a_b"}, "gs--a-b-"},
		{BucketName{GCS, "a_-"}, "gs--a-"},
		{BucketName{Shoal, long}, long},
		{BucketName{S3, long}, "s3--" + long[:50] + "-"},
		{BucketName{GCS, long}, "gs--" + long[:50] + "-"},
	} {
		got := c.b.Alias(func(a string) bool { return taken[a] })
		if !strings.HasPrefix(got, c.want) || taken[got] || ValidateBucket(got) != nil {
			t.Errorf("%s: got alias %q (%v), want %q", c.b, got, ValidateBucket(got), c.want)
		}
		taken[got] = true
	}
}

func TestResolveURI(t *testing.T) {
	roots := map[string]string{"nfs": "/mnt/nfs", "deep": "/mnt/nfs/a/b/", "same": "/mnt/nfs", "top": "/srv"}
	for s, want := range map[string]string{
		"file:///mnt/nfs/x/y":   "file://nfs/x/y",
		"file:///mnt/nfs":       "file://nfs",
		"file:///mnt/nfs/":      "file://nfs",
		"file:///mnt/nfs/x/":    "file://nfs/x/",
		"file:///mnt/nfs/a/b/c": "file://deep/c",
		"file:///mnt/nfs/a/bc":  "file://nfs/a/bc",
		"file:///srv/x":         "file://top/x",
		"file://top/mnt/nfs/x":  "file://top/mnt/nfs/x",
		"s3://abc/k":            "s3://abc/k",
	} {
		if got, err := ResolveURI(s, roots); err != nil || got.String() != want {
			t.Errorf("%s: got %s, %v; want %s", s, got, err, want)
		}
	}
	for _, s := range []string{"file:///mnt/nfsx/y", "file:///mnt", "file:///etc/passwd", "file:///"} {
		if got, err := ResolveURI(s, roots); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, %v; want ErrInvalid", s, got, err)
		}
	}
	if got, err := ResolveURI("file:///etc/passwd", map[string]string{"all": "/"}); err != nil || got.String() != "file://all/etc/passwd" {
		t.Errorf("the root of roots: %v, %v", got, err)
	}
}

func TestValidateKey(t *testing.T) {
	for _, s := range []string{"a", "/", "..", "\x00", "a\nb", "ключ", strings.Repeat("k", MaxKey)} {
		if err := ValidateKey(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for s, want := range map[string]error{"": ErrInvalid, "\xff": ErrInvalid, "a\xc3": ErrInvalid, strings.Repeat("k", MaxKey+1): ErrTooLarge} {
		if err := ValidateKey(s); !errors.Is(err, want) {
			t.Errorf("%.20q: got %v, want %v", s, err, want)
		}
	}
}

func TestNodeID(t *testing.T) {
	for _, s := range []NodeID{"a", "n1", "node-1", "1", NodeID(strings.Repeat("a", 63))} {
		if err := s.Validate(); err != nil {
			t.Errorf("%q: %v", string(s), err)
		}
	}
	for _, s := range []NodeID{"", "-a", "a-", "A", "a.b", "a b", "ä", NodeID(strings.Repeat("a", 64))} {
		if err := s.Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: got %v, want ErrInvalid", string(s), err)
		}
	}
}

func TestShardID(t *testing.T) {
	e := NewExtentID()
	a, b := NewShardID(e, 5), NewShardID(e, 5)
	if a == b || a.Extent != e || a.Index != 5 {
		t.Errorf("%+v and %+v", a, b)
	}
	if got, err := ParseShardID(a.String()); err != nil || got != a || len(a.String()) != 40 {
		t.Errorf("%s parses to %v, %v", a, got, err)
	}
	for _, s := range []string{"", "00", strings.Repeat("0", 39), strings.Repeat("0", 42), strings.Repeat("g", 40)} {
		if _, err := ParseShardID(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: got %v, want ErrInvalid", s, err)
		}
	}
}

func TestOrder(t *testing.T) {
	rising := []Version{{}, {0, 0, 1}, {0, 1, 0}, {1, 0, 0}, {1, 0, 9}, {1, 2, 0}, {1, 2, 1}, {2, 0, 0}, {1 << 63, 0, 0}}
	for i, v := range rising {
		for j, w := range rising {
			want := cmp(uint64(i), uint64(j))
			if got := v.Compare(w); got != want {
				t.Errorf("%v and %v: %d, want %d", v, w, got, want)
			}
			b, c := Ballot{v.Term, v.Boot}, Ballot{w.Term, w.Boot}
			if got := b.Compare(c); (got == 0) != (b == c) || got*want < 0 {
				t.Errorf("ballots %v and %v: %d", b, c, got)
			}
		}
	}
	if !rising[0].IsZero() || rising[1].IsZero() || rising[1].String() != "0.0.1" {
		t.Error("versions are mistaken")
	}
}

// Every URI that is accepted prints as one that means the same, names a bucket
// by its canonical name, which S3 clients get a name for, and has the key that
// was written.
func FuzzParseURI(f *testing.F) {
	for _, s := range []string{
		"abc", "s3://abc/k", "gs://a.b/x/", "shoal://abc", "http://x", "s3://", "abc//", "\x00", "s3://1.2.3.4",
		"https://H:443/a?b#c", "http://[::1]:80/", "file://a/../b", "file:///x", "gs://a_b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURI(s)
		if err != nil {
			if !errors.Is(err, ErrInvalid) || u != (URI{}) {
				t.Fatalf("%q: got %+v and an error of another kind: %v", s, u, err)
			}
			return
		}
		again, err := ParseURI(u.String())
		if err != nil || again != u || u.Bucket.Validate() != nil {
			t.Fatalf("%q: %+v prints as %q, which is %+v, %v", s, u, u, again, err)
		}
		n := u.Bucket.Name
		if n == "" || len(n) > 260 || strings.ToLower(n) != n || strings.ContainsAny(n, "/?#@ ") || !utf8.ValidString(n) {
			t.Fatalf("%q: accepted bucket name %q", s, n)
		}
		if p := u.Bucket.Provider; (p == Shoal || p == S3) && ValidateBucket(n) != nil {
			t.Fatalf("%q: accepted bucket name %q", s, n)
		}
		for _, all := range []bool{false, true} {
			if alias := u.Bucket.Alias(func(string) bool { return all }); ValidateBucket(alias) != nil {
				t.Fatalf("%q: alias %q", s, alias)
			}
		}
		if !strings.HasSuffix(s, u.Key) {
			t.Fatalf("%q: key %q was changed", s, u.Key)
		}
	})
}
