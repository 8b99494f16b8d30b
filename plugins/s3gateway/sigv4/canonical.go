package sigv4

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

const upperHex = "0123456789ABCDEF"

// unreserved are the bytes that AWS's UriEncode leaves as they are.
func unreserved(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '-' || b == '_' || b == '.' || b == '~'
}

func appendEncoded(dst []byte, b byte) []byte {
	if unreserved(b) {
		return append(dst, b)
	}
	return append(dst, '%', upperHex[b>>4], upperHex[b&15])
}

// AppendPath appends a decoded path as the canonical URI: every byte is
// percent-encoded once but for the unreserved ones and '/'. S3 does not clean
// paths. The empty path becomes "/".
func AppendPath(dst []byte, path string) []byte {
	if path == "" {
		return append(dst, '/')
	}
	for i := range len(path) {
		if b := path[i]; b == '/' {
			dst = append(dst, b)
		} else {
			dst = appendEncoded(dst, b)
		}
	}
	return dst
}

// unhex returns the value of a hex digit, or 16.
func unhex(b byte) byte {
	switch {
	case b >= '0' && b <= '9':
		return b - '0'
	case b >= 'a' && b <= 'f':
		return b - 'a' + 10
	case b >= 'A' && b <= 'F':
		return b - 'A' + 10
	}
	return 16
}

// decodeAt decodes the byte of a query component that begins at s[i], and
// says how many bytes of s it took; 0 if the escape is malformed.
func decodeAt(s string, i int) (b byte, n int) {
	switch s[i] {
	case '+':
		return ' ', 1
	case '%':
		if i+2 >= len(s) {
			return 0, 0
		}
		hi, lo := unhex(s[i+1]), unhex(s[i+2])
		if hi > 15 || lo > 15 {
			return 0, 0
		}
		return hi<<4 | lo, 3
	}
	return s[i], 1
}

func errBadEscape(s string) error {
	return malformed("InvalidURI", "Couldn't parse the specified URI: the query component \""+s+"\" has a malformed escape.")
}

// appendComponent appends a component of a query, decoded and encoded again.
func appendComponent(dst []byte, s string) ([]byte, error) {
	for i := 0; i < len(s); {
		b, n := decodeAt(s, i)
		if n == 0 {
			return dst, errBadEscape(s)
		}
		dst = appendEncoded(dst, b)
		i += n
	}
	return dst, nil
}

// unescape decodes a component of a query. Without escapes it does not copy.
func unescape(s string) (string, error) {
	if !strings.ContainsAny(s, "%+") {
		return s, nil
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		b, n := decodeAt(s, i)
		if n == 0 {
			return "", errBadEscape(s)
		}
		out = append(out, b)
		i += n
	}
	return string(out), nil
}

// Param is a parameter of a query, decoded.
type Param struct{ Name, Value string }

// Query is a decoded query in the order in which it came.
type Query []Param

// ParseQuery appends the parameters of a raw query to q. '+' stands for a
// space, ';' for itself. A malformed escape is an *Error (InvalidURI).
func ParseQuery(q Query, raw string) (Query, error) {
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		n, err := unescape(name)
		if err != nil {
			return q, err
		}
		v, err := unescape(value)
		if err != nil {
			return q, err
		}
		q = append(q, Param{n, v})
	}
	return q, nil
}

// Lookup returns the first value of a parameter and whether it is there.
func (q Query) Lookup(name string) (string, bool) {
	for i := range q {
		if q[i].Name == name {
			return q[i].Value, true
		}
	}
	return "", false
}

// Get returns the first value of a parameter, "" if it is not there.
func (q Query) Get(name string) string {
	v, _ := q.Lookup(name)
	return v
}

// Has says whether a parameter is there.
func (q Query) Has(name string) bool {
	_, ok := q.Lookup(name)
	return ok
}

// pair is an encoded parameter within a scratch buffer.
type pair struct{ name, value []byte }

// appendQuery appends the canonical query: components encoded, sorted by name
// and then value, without X-Amz-Signature.
func (s *scratch) appendQuery(raw string) error {
	if raw == "" {
		return nil
	}
	s.encoded = slices.Grow(s.encoded[:0], 3*len(raw)) // never moved below
	s.pairs = s.pairs[:0]
	for raw != "" {
		var one string
		one, raw, _ = strings.Cut(raw, "&")
		if one == "" {
			continue
		}
		name, value, _ := strings.Cut(one, "=")
		a := len(s.encoded)
		var err error
		if s.encoded, err = appendComponent(s.encoded, name); err != nil {
			return err
		}
		b := len(s.encoded)
		if s.encoded, err = appendComponent(s.encoded, value); err != nil {
			return err
		}
		if string(s.encoded[a:b]) != "X-Amz-Signature" {
			s.pairs = append(s.pairs, pair{s.encoded[a:b], s.encoded[b:]})
		}
	}
	slices.SortStableFunc(s.pairs, func(a, b pair) int {
		if c := bytes.Compare(a.name, b.name); c != 0 {
			return c
		}
		return bytes.Compare(a.value, b.value)
	})
	for i, p := range s.pairs {
		if i > 0 {
			s.buf = append(s.buf, '&')
		}
		s.buf = append(s.buf, p.name...)
		s.buf = append(s.buf, '=')
		s.buf = append(s.buf, p.value...)
	}
	return nil
}

// canonicalKey is the name under which net/http files a header, given in lower
// case. It saves the copy for the usual ones.
func canonicalKey(lower string) string {
	switch lower {
	case "x-amz-date":
		return "X-Amz-Date"
	case "x-amz-content-sha256":
		return "X-Amz-Content-Sha256"
	case "x-amz-checksum-crc32":
		return "X-Amz-Checksum-Crc32"
	case "x-amz-checksum-crc64nvme":
		return "X-Amz-Checksum-Crc64nvme"
	case "x-amz-checksum-mode":
		return "X-Amz-Checksum-Mode"
	case "x-amz-sdk-checksum-algorithm":
		return "X-Amz-Sdk-Checksum-Algorithm"
	case "x-amz-decoded-content-length":
		return "X-Amz-Decoded-Content-Length"
	case "x-amz-trailer":
		return "X-Amz-Trailer"
	case "amz-sdk-invocation-id":
		return "Amz-Sdk-Invocation-Id"
	case "amz-sdk-request":
		return "Amz-Sdk-Request"
	}
	return http.CanonicalHeaderKey(lower)
}

// appendHeader appends "name:value\n" of one signed header. Those that
// net/http takes out of the header map are put back.
func (s *scratch) appendHeader(r *http.Request, name string) {
	s.buf = append(s.buf, name...)
	s.buf = append(s.buf, ':')
	values := r.Header[canonicalKey(name)]
	if len(values) == 0 {
		switch name {
		case "host":
			s.appendValue(host(r))
		case "content-length":
			s.buf = strconv.AppendInt(s.buf, max(r.ContentLength, 0), 10)
		case "transfer-encoding":
			s.appendValue(strings.Join(r.TransferEncoding, ","))
		}
	}
	for i, v := range values {
		if i > 0 {
			s.buf = append(s.buf, ',')
		}
		s.appendValue(v)
	}
	s.buf = append(s.buf, '\n')
}

// host is the Host header as it was, or will be, sent.
func host(r *http.Request) string {
	if r.Host == "" && r.URL != nil {
		return r.URL.Host
	}
	return r.Host
}

// appendValue appends a header's value trimmed, runs of spaces made one.
func (s *scratch) appendValue(v string) {
	v = strings.Trim(v, " \t")
	if !strings.Contains(v, "  ") {
		s.buf = append(s.buf, v...)
		return
	}
	for i := range len(v) {
		if v[i] != ' ' || v[i-1] != ' ' {
			s.buf = append(s.buf, v[i])
		}
	}
}

// canonicalRequest builds the canonical request in s.buf (page
// sig-v4-header-based-auth, "Task 1: Create a Canonical Request").
func (s *scratch) canonicalRequest(r *http.Request, signedHeaders, payload string) error {
	s.buf = append(s.buf[:0], r.Method...)
	s.buf = append(s.buf, '\n')
	s.buf = AppendPath(s.buf, r.URL.Path)
	s.buf = append(s.buf, '\n')
	if err := s.appendQuery(r.URL.RawQuery); err != nil {
		return fmt.Errorf("canonical query: %w", err)
	}
	s.buf = append(s.buf, '\n')
	for list := signedHeaders; list != ""; {
		var name string
		name, list, _ = strings.Cut(list, ";")
		s.appendHeader(r, name)
	}
	s.buf = append(s.buf, '\n')
	s.buf = append(s.buf, signedHeaders...)
	s.buf = append(s.buf, '\n')
	s.buf = append(s.buf, payload...)
	return nil
}
