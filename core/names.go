package core

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Provider says where a bucket lives.
type Provider string

// The providers. To all but Shoal the bucket is remote: see [Backend].
const (
	Shoal Provider = "shoal"
	S3    Provider = "s3"
	GCS   Provider = "gs"
	// HTTP and HTTPS are origins that are only read. The bucket is host[:port],
	// the key what the request asks for, without the first slash.
	HTTP  Provider = "http"
	HTTPS Provider = "https"
	// File is a directory on the servers. The bucket is the name that the
	// configuration gives it, the key a path below it.
	File Provider = "file"
)

// Providers lists all providers.
func Providers() []Provider { return []Provider{Shoal, S3, GCS, HTTP, HTTPS, File} }

// MaxKey is the longest key in bytes, as in S3.
const MaxKey = 1024

// BucketName is a bucket as users write it: shoal://b, s3://b, gs://b,
// https://example.net, file://datasets.
type BucketName struct {
	Provider Provider
	Name     string
}

func (b BucketName) String() string { return string(b.Provider) + "://" + b.Name }

// Remote says whether others keep the bucket.
func (b BucketName) Remote() bool { return b.Provider != Shoal }

// SystemBucketName is the bucket, shoal://shoal--system, in which the cluster keeps
// what is its own and larger than a record: the code of transforms. Users do not
// see it.
const SystemBucketName = "shoal--system"

// System says whether the bucket is the cluster's own; see [SystemBucketName].
func (b BucketName) System() bool { return b.Provider == Shoal && b.Name == SystemBucketName }

// Validate holds the provider's rules for names: [ValidateBucket] for Shoal's
// own and S3's, Google's for gs://, a host in its canonical form for http://.
func (b BucketName) Validate() error {
	bad := func(why string) error { return fmt.Errorf("bucket %s: %s: %w", b, why, ErrInvalid) }
	why := ""
	switch b.Provider {
	case Shoal, S3:
		return ValidateBucket(b.Name)
	case GCS:
		why = badGoogleName(b.Name)
	case HTTP, HTTPS:
		if name, w := originName(b.Provider, b.Name); w != "" {
			why = w
		} else if name != b.Name {
			why = "want " + name
		}
	case File:
		why = badRootName(b.Name)
	default:
		why = "unknown provider"
	}
	if why != "" {
		return bad(why)
	}
	return nil
}

// Alias returns the name by which S3 clients know the bucket if nobody chooses
// one: its own, else with the provider before it, else, where S3 would not take
// that, something like it with a checksum of the name. It is the first that is
// not taken, or the last.
func (b BucketName) Alias(taken func(alias string) bool) string {
	long := string(b.Provider) + "--" + b.Name
	for _, alias := range []string{b.Name, long} {
		if ValidateBucket(alias) == nil && !taken(alias) {
			return alias
		}
	}
	sum := sha256.Sum256([]byte(b.String()))
	tail := "-" + hex.EncodeToString(sum[:4])
	short := strings.Map(func(c rune) rune {
		if isAlnum(byte(c)) && c < utf8.RuneSelf || c == '.' {
			return c
		}
		return '-'
	}, long)
	return strings.TrimRight(short[:min(len(short), maxBucket-len(tail))], ".-") + tail
}

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

// ParseURI reads shoal://b, s3://b/key, gs://b/prefix, https://host:port/path?query,
// file://root/path. No scheme means shoal://. The key is taken as it is, without
// unescaping: of a web address, too, so that it is the one that was written, and
// a%2Fb is not a/b. Of a host the case, and the port that its scheme has anyway,
// are dropped: one origin is one bucket.
func ParseURI(s string) (URI, error) {
	p, rest, ok := strings.Cut(s, "://")
	if !ok {
		p, rest = string(Shoal), s
	}
	u := URI{Bucket: BucketName{Provider: Provider(p)}}
	if !slices.Contains(Providers(), u.Bucket.Provider) {
		return URI{}, fmt.Errorf("%q: unknown scheme %q; use shoal://, s3://, gs://, http://, https:// or file://: %w", s, p, ErrInvalid)
	}
	u.Bucket.Name, u.Key, _ = strings.Cut(rest, "/")
	switch u.Bucket.Provider {
	case HTTP, HTTPS:
		if name, why := originName(u.Bucket.Provider, u.Bucket.Name); why == "" {
			u.Bucket.Name = name
		}
	case File:
		if u.Bucket.Name == "" && u.Key != "" {
			return URI{}, fmt.Errorf("%q: want file://ROOT/path, ROOT being a name of the servers' configuration (backends.file.roots): %w", s, ErrInvalid)
		}
	}
	if err := u.Bucket.Validate(); err != nil {
		return URI{}, err
	}
	return u, nil
}

// ResolveURI is [ParseURI] for who knows the roots, names with the directories
// they stand for: file:///mnt/nfs/x is the same as file://ROOT/x, ROOT being the
// innermost root around it.
func ResolveURI(s string, roots map[string]string) (URI, error) {
	file, ok := strings.CutPrefix(s, "file:///")
	if !ok {
		return ParseURI(s)
	}
	best, key := "", ""
	for name, dir := range roots {
		dir = strings.Trim(path.Clean("/"+dir), "/")
		under, in := strings.CutPrefix(file+"/", dir+"/")
		switch {
		case dir == "":
			under = file + "/"
		case !in:
			continue
		}
		// Of two names for one directory it is always the same one.
		if best == "" || len(under) < len(key) || len(under) == len(key) && name < best {
			best, key = name, under
		}
	}
	if best == "" {
		return URI{}, fmt.Errorf("%q: lies in no directory that the servers' configuration names (backends.file.roots): %w", s, ErrInvalid)
	}
	u := URI{Bucket: BucketName{Provider: File, Name: best}, Key: strings.TrimSuffix(key, "/")}
	return u, u.Bucket.Validate()
}

// badGoogleName says what is wrong with a bucket's name by Google's rules
// (Cloud Storage, "Bucket naming requirements"), but for those that only say
// which names nobody is given.
func badGoogleName(name string) string {
	most := maxBucket
	if strings.Contains(name, ".") {
		most = 222
	}
	if len(name) < minBucket || len(name) > most {
		return fmt.Sprintf("want %d to %d characters", minBucket, most)
	}
	for _, c := range []byte(name) {
		if !isAlnum(c) && c != '.' && c != '-' && c != '_' {
			return "only a-z, 0-9, '.', '-' and '_' are allowed"
		}
	}
	if !isAlnum(name[0]) || !isAlnum(name[len(name)-1]) {
		return "must start and end with a letter or digit"
	}
	for part := range strings.SplitSeq(name, ".") {
		if part == "" || len(part) > maxBucket {
			return "want 1 to 63 characters between dots"
		}
	}
	if looksLikeIPv4(name) {
		return "must not look like an IP address"
	}
	return ""
}

// originName returns the canonical form of host[:port], or what is wrong with it.
func originName(p Provider, name string) (canonical, why string) {
	const want = "want a host name or address, with a port or without"
	host, port := strings.ToLower(name), ""
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host, port = host[:i], host[i+1:]
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return "", "want a port from 1 to 65535"
		}
		port = strconv.FormatUint(n, 10)
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		a, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || !a.Is6() || a.Zone() != "" || !strings.HasSuffix(inner, "]") {
			return "", want
		}
		host = "[" + a.String() + "]"
	} else {
		for label := range strings.SplitSeq(host, ".") {
			if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
				return "", want
			}
		}
		for _, c := range []byte(host) {
			if !isAlnum(c) && c != '.' && c != '-' && c != '_' {
				return "", want + " (of other letters the xn-- form)"
			}
		}
		if len(host) > 253 {
			return "", want
		}
	}
	if port == "" || p == HTTP && port == "80" || p == HTTPS && port == "443" {
		return host, ""
	}
	return host + ":" + port, ""
}

// badRootName says what is wrong with the name of a server-side directory.
func badRootName(name string) string {
	for i, c := range []byte(name) {
		inner := (c == '.' || c == '-' || c == '_') && i > 0 && i < len(name)-1
		if !isAlnum(c) && !inner {
			return "want 1 to 63 of a-z, 0-9 and inner '.', '-' and '_'"
		}
	}
	if name == "" || len(name) > maxBucket {
		return "want 1 to 63 characters"
	}
	return ""
}

func isAlnum(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

func looksLikeIPv4(name string) bool {
	return strings.Count(name, ".") == 3 && strings.Trim(name, "0123456789.") == ""
}

// The shortest and the longest name of a bucket of S3.
const (
	minBucket = 3
	maxBucket = 63
)

// ValidateBucket holds S3's rules for bucket names (AWS, "Bucket naming
// rules"): 3 to 63 of a-z, 0-9, '.' and '-', a letter or digit at both ends,
// no "..", not the form of an IPv4 address.
func ValidateBucket(name string) error {
	bad := func(why string) error {
		return fmt.Errorf("bucket name %q: %s: %w", name, why, ErrInvalid)
	}
	if len(name) < minBucket || len(name) > maxBucket {
		return bad("want 3 to 63 characters")
	}
	for i, c := range []byte(name) {
		if !isAlnum(c) && c != '.' && c != '-' {
			return bad("only a-z, 0-9, '.' and '-' are allowed")
		}
		if !isAlnum(c) && (i == 0 || i == len(name)-1) {
			return bad("must start and end with a letter or digit")
		}
	}
	if strings.Contains(name, "..") {
		return bad("must not contain '..'")
	}
	if looksLikeIPv4(name) {
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
