package s3gateway

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"hash"
	"hash/crc32"
	"net/http"
	"strings"

	"github.com/minio/crc64nvme"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/s3gateway/sigv4"
)

// algorithm is a checksum of S3 (page checking-object-integrity of the user
// guide).
type algorithm struct {
	name    string // as in core.Checksum and in x-amz-checksum-algorithm
	header  string // as net/http files it
	lower   string // as AWS writes it, and as a trailer
	element string // in XML
	size    int    // of the value, in bytes
}

// checksums lists what S3 offers.
func checksums() *[5]algorithm {
	return &[5]algorithm{
		{"CRC32", "X-Amz-Checksum-Crc32", "x-amz-checksum-crc32", "ChecksumCRC32", 4},
		{"CRC32C", "X-Amz-Checksum-Crc32c", "x-amz-checksum-crc32c", "ChecksumCRC32C", 4},
		{"CRC64NVME", "X-Amz-Checksum-Crc64nvme", "x-amz-checksum-crc64nvme", "ChecksumCRC64NVME", 8},
		{"SHA1", "X-Amz-Checksum-Sha1", "x-amz-checksum-sha1", "ChecksumSHA1", 20},
		{"SHA256", "X-Amz-Checksum-Sha256", "x-amz-checksum-sha256", "ChecksumSHA256", 32},
	}
}

// algorithmNamed finds an algorithm by S3's name for it.
func algorithmNamed(name string) (algorithm, error) {
	for _, a := range checksums() {
		if strings.EqualFold(a.name, name) {
			return a, nil
		}
	}
	switch strings.ToUpper(name) {
	case "SHA512", "MD5", "XXHASH64", "XXHASH3", "XXHASH128":
		return algorithm{}, errNotImplemented("the checksum algorithm " + name)
	}
	return algorithm{}, bad("InvalidRequest", "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]")
}

func newHash(name string) hash.Hash {
	switch name {
	case "CRC32":
		return crc32.NewIEEE()
	case "CRC32C":
		return crc32.New(crc32.MakeTable(crc32.Castagnoli))
	case "CRC64NVME":
		return crc64nvme.New()
	case "SHA1":
		return sha1.New()
	}
	return sha256.New()
}

// valid says whether v is a value of the algorithm, with or without the number
// of parts behind it.
func (a algorithm) valid(v string) bool {
	v, _, _ = strings.Cut(v, "-")
	b, err := base64.StdEncoding.DecodeString(v)
	return err == nil && len(b) == a.size
}

// declared reads the checksum that a request declares for its body: by a
// header, or by a trailer of the name that it returns.
func declared(h http.Header) (c core.Checksum, trailer string, err error) {
	for _, a := range checksums() {
		v, ok := h[a.header]
		if !ok {
			continue
		}
		if c.Algorithm != "" || len(v) > 1 {
			return c, "", errInvalidRequest("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
		}
		if !a.valid(v[0]) {
			return c, "", errInvalidRequest("Value for " + a.lower + " header is invalid.")
		}
		c = core.Checksum{Algorithm: a.name, Value: v[0], Composite: strings.Contains(v[0], "-")}
	}
	names, ok := h["X-Amz-Trailer"]
	if !ok {
		return c, "", declaredByNothing(h, c)
	}
	if c.Algorithm != "" || len(names) > 1 {
		return c, "", errInvalidRequest("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
	}
	trailer = strings.ToLower(strings.TrimSpace(names[0]))
	for _, a := range checksums() {
		if a.lower == trailer {
			c.Algorithm = a.name
			return c, trailer, nil
		}
	}
	if strings.HasPrefix(trailer, "x-amz-checksum-") {
		return c, "", errNotImplemented("the trailer " + trailer)
	}
	return c, "", errInvalidRequest("The value specified in the x-amz-trailer header is not supported")
}

// declaredByNothing refuses an announced checksum that does not come.
func declaredByNothing(h http.Header, c core.Checksum) error {
	if first(h, "X-Amz-Sdk-Checksum-Algorithm") != "" && c.Algorithm == "" {
		return errInvalidRequest("x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found.")
	}
	return nil
}

// setChecksum puts a request's checksum into the options of its write. The
// value of a trailer is there only once body has been read.
func (q *request) setChecksum(o *core.PutOptions, body *sigv4.Body) error {
	c, trailer, err := declared(q.r.Header)
	if err != nil {
		return err
	}
	o.Checksum = c
	if trailer == "" {
		return nil
	}
	switch q.auth.Payload {
	case sigv4.StreamingSignedTrailer, sigv4.StreamingUnsignedTrailer:
	default:
		return errInvalidRequest("x-amz-trailer is set, but x-amz-content-sha256 announces no trailer.")
	}
	o.Trailer = func() (core.Checksum, error) {
		v, err := body.Trailer(trailer)
		if err != nil {
			return c, err
		}
		if a, err := algorithmNamed(c.Algorithm); err != nil || !a.valid(v) {
			q.trailerErr = errInvalidRequest("Value for " + trailer + " trailing header is invalid.")
			return c, q.trailerErr
		}
		return core.Checksum{Algorithm: c.Algorithm, Value: v}, nil
	}
	return nil
}

// verifyDocument checks a small body against what the request declares.
func verifyDocument(doc []byte, o core.PutOptions) error {
	mismatch := func() error {
		return bad("BadDigest", "The Content-MD5 or checksum value that you specified did not match what the server received.")
	}
	if o.MD5 != nil {
		if sum := md5.Sum(doc); subtle.ConstantTimeCompare(sum[:], o.MD5) != 1 {
			return mismatch()
		}
	}
	c := o.Checksum
	if o.Trailer != nil {
		var err error
		if c, err = o.Trailer(); err != nil {
			return err
		}
	}
	if c.Value == "" {
		return nil
	}
	h := newHash(c.Algorithm)
	_, _ = h.Write(doc)
	if base64.StdEncoding.EncodeToString(h.Sum(nil)) != c.Value {
		return mismatch()
	}
	return nil
}

// checksumType is S3's word for what a checksum is over.
func checksumType(c core.Checksum) string {
	if c.Composite {
		return "COMPOSITE"
	}
	return "FULL_OBJECT"
}

// setChecksumHeaders tells the client the checksum that was stored.
func (q *request) setChecksumHeaders(c core.Checksum) {
	if c.Value == "" {
		return
	}
	for _, a := range checksums() {
		if a.name == c.Algorithm {
			q.set(a.lower, c.Value)
			q.set("x-amz-checksum-type", checksumType(c))
		}
	}
}

// checksum writes a checksum's elements.
func (x *document) checksum(c core.Checksum, withType bool) {
	if c.Value == "" {
		return
	}
	for _, a := range checksums() {
		if a.name == c.Algorithm {
			x.text(a.element, c.Value)
		}
	}
	if withType {
		x.text("ChecksumType", checksumType(c))
	}
}
