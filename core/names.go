package core

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Provider says where a bucket lives.
type Provider string

// The providers. HTTP origins and server-side files come with their backends.
const (
	Shoal Provider = "shoal"
	S3    Provider = "s3"
	GCS   Provider = "gs"
)

// MaxKey is the longest key in bytes, as in S3.
const MaxKey = 1024

// BucketName is a bucket as users write it: shoal://b, s3://b, gs://b.
type BucketName struct {
	Provider Provider
	Name     string
}

func (b BucketName) String() string { return string(b.Provider) + "://" + b.Name }

// URI is a bucket and, where given, a key or prefix in it.
type URI struct {
	Bucket BucketName
	Key    string
}

func (u URI) String() string {
	if u.Key == "" {
		return u.Bucket.String()
	}
	return u.Bucket.String() + "/" + u.Key
}

// ParseURI reads shoal://b, s3://b/key, gs://b/prefix. No scheme means shoal://.
// The key is taken as it is, without unescaping.
func ParseURI(s string) (URI, error) {
	p, rest, ok := strings.Cut(s, "://")
	if !ok {
		p, rest = string(Shoal), s
	}
	u := URI{Bucket: BucketName{Provider: Provider(p)}}
	switch u.Bucket.Provider {
	case Shoal, S3, GCS:
	default:
		return URI{}, fmt.Errorf("%q: unknown scheme %q; use shoal://, s3:// or gs://: %w", s, p, ErrInvalid)
	}
	u.Bucket.Name, u.Key, _ = strings.Cut(rest, "/")
	if err := ValidateBucket(u.Bucket.Name); err != nil {
		return URI{}, err
	}
	return u, nil
}

// ValidateBucket holds S3's rules for bucket names (AWS, "Bucket naming
// rules"): 3 to 63 of a-z, 0-9, '.' and '-', a letter or digit at both ends,
// no "..", not the form of an IPv4 address.
func ValidateBucket(name string) error {
	bad := func(why string) error {
		return fmt.Errorf("bucket name %q: %s: %w", name, why, ErrInvalid)
	}
	if len(name) < 3 || len(name) > 63 {
		return bad("want 3 to 63 characters")
	}
	digits := true
	for i, c := range []byte(name) {
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !alnum && c != '.' && c != '-' {
			return bad("only a-z, 0-9, '.' and '-' are allowed")
		}
		if !alnum && (i == 0 || i == len(name)-1) {
			return bad("must start and end with a letter or digit")
		}
		if c != '.' && (c < '0' || c > '9') {
			digits = false
		}
	}
	if strings.Contains(name, "..") {
		return bad("must not contain '..'")
	}
	if digits && strings.Count(name, ".") == 3 {
		return bad("must not look like an IP address")
	}
	return nil
}

// ValidateKey holds S3's rule for keys: 1 to 1,024 bytes of UTF-8. Every
// character is allowed, control characters and NUL included.
func ValidateKey(key string) error {
	switch {
	case key == "":
		return fmt.Errorf("key: must not be empty: %w", ErrInvalid)
	case len(key) > MaxKey:
		return fmt.Errorf("key of %d bytes: the limit is %d: %w", len(key), MaxKey, ErrTooLarge)
	case !utf8.ValidString(key):
		return fmt.Errorf("key %q: not valid UTF-8: %w", key, ErrInvalid)
	}
	return nil
}
