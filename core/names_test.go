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
	} {
		got, err := ParseURI(s)
		if err != nil || got != want {
			t.Errorf("%q: got %+v, %v; want %+v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "/", "ab", "://abc", "http://abc", "S3://abc", "s3:///k", "s3://ABC", "s3://a_b", "s3:/abc", "s3://abc:80/k", " abc"} {
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

// Every URI that is accepted prints as one that means the same, and names a
// bucket that S3 would take.
func FuzzParseURI(f *testing.F) {
	for _, s := range []string{"abc", "s3://abc/k", "gs://a.b/x/", "shoal://abc", "http://x", "s3://", "abc//", "\x00", "s3://1.2.3.4"} {
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
		if err != nil || again != u {
			t.Fatalf("%q: %+v prints as %q, which is %+v, %v", s, u, u, again, err)
		}
		if n := u.Bucket.Name; len(n) < 3 || len(n) > 63 || strings.ToLower(n) != n || strings.Contains(n, "/") || !utf8.ValidString(n) {
			t.Fatalf("%q: accepted bucket name %q", s, n)
		}
		if !strings.HasSuffix(s, u.Key) {
			t.Fatalf("%q: key %q was changed", s, u.Key)
		}
	})
}
