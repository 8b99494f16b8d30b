package sigv4

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// Body is a request's body as the client meant it, without the framing of
// chunks. It returns io.EOF only after everything that was claimed about it
// has been verified: its length, the SHA-256 or the chunks' signatures, and
// the trailers. Every other end is an error, an *Error where the client is to
// blame. A Body is not safe for concurrent use.
type Body struct {
	src  io.Reader
	left int64 // bytes still to come
	err  error // the end, once reached

	sha  hash.Hash // over the whole body, nil if it is not signed
	want string
	sum  [sha256.Size]byte

	chunks *chunkReader
	pools  *bodyPools
}

// bodyPools hold what is costly to make.
type bodyPools struct {
	sha     sync.Pool // of hash.Hash
	buffers sync.Pool // of *bufio.Reader
}

func (p *bodyPools) hash() hash.Hash {
	if h, ok := p.sha.Get().(hash.Hash); ok {
		h.Reset()
		return h
	}
	return sha256.New()
}

func (p *bodyPools) buffer(r io.Reader) *bufio.Reader {
	if b, ok := p.buffers.Get().(*bufio.Reader); ok {
		b.Reset(r)
		return b
	}
	return bufio.NewReaderSize(r, 64<<10)
}

// Body returns the body of the request that a belongs to and its length. The
// length must be known beforehand: S3 wants Content-Length or, for a streamed
// body, x-amz-decoded-content-length, and answers MissingContentLength
// without. Reading from it is what makes net/http send "100 Continue". The
// caller calls [Body.Release] when nothing reads it any more.
func (a *Auth) Body(r *http.Request) (*Body, int64, error) {
	b := &Body{src: r.Body, pools: &a.v.bytes, left: r.ContentLength}
	if b.src == nil {
		b.src = http.NoBody
	}
	switch a.Payload {
	case UnsignedPayload:
	case StreamingSigned, StreamingSignedTrailer, StreamingUnsignedTrailer:
		n, err := decodedLength(r.Header)
		if err != nil {
			return nil, 0, err
		}
		b.left = n
		b.chunks = &chunkReader{
			src: b.pools.buffer(b.src), left: n,
			trailers: strings.ToLower(first(r.Header, "X-Amz-Trailer")),
			trailer:  a.Payload != StreamingSigned,
		}
		if a.Payload != StreamingUnsignedTrailer {
			b.chunks.signer = &chunkSigner{auth: *a, previous: a.seed}
			b.chunks.sha = b.pools.hash()
		}
	default:
		b.sha, b.want = b.pools.hash(), a.Payload
	}
	if b.left < 0 {
		b.Release()
		return nil, 0, &Error{Code: "MissingContentLength", Status: http.StatusLengthRequired, Message: "You must provide the Content-Length HTTP header."}
	}
	return b, b.left, nil
}

func decodedLength(h http.Header) (int64, error) {
	s := first(h, "X-Amz-Decoded-Content-Length")
	if s == "" {
		return -1, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, malformed("InvalidArgument", "x-amz-decoded-content-length must be a number of bytes.",
			Detail{"ArgumentName", "x-amz-decoded-content-length"}, Detail{"ArgumentValue", s})
	}
	return n, nil
}

// Read implements io.Reader.
func (b *Body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.chunks != nil {
		n, err := b.chunks.Read(p)
		b.err = err
		return n, err
	}
	if b.left == 0 {
		b.err = b.finish()
		return 0, b.err
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.src.Read(p)
	b.left -= int64(n)
	if b.sha != nil {
		_, _ = b.sha.Write(p[:n])
	}
	switch {
	case err == nil:
	case errors.Is(err, io.EOF) && b.left == 0:
		b.err = b.finish()
	default:
		b.err = incomplete(err)
	}
	return n, b.err
}

// finish verifies the whole body and returns io.EOF if it is what was signed.
func (b *Body) finish() error {
	if b.sha == nil {
		return io.EOF
	}
	var got signature
	hex.Encode(got[:], b.sha.Sum(b.sum[:0]))
	if !got.equals(b.want) {
		return malformed("XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was computed.",
			Detail{"ClientComputedContentSHA256", b.want}, Detail{"S3ComputedContentSHA256", string(got[:])})
	}
	return io.EOF
}

// incomplete is what becomes of a body that ends too early.
func incomplete(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	e := malformed("IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header")
	e.Cause = err
	return e
}

// Err returns the error that the body ended with; nil while it has not ended
// and if it ended as it should. A gateway prefers it to what became of it on
// its way through other layers.
func (b *Body) Err() error {
	if errors.Is(b.err, io.EOF) {
		return nil
	}
	return b.err
}

// Trailer returns a trailing header of a body that has ended with io.EOF; name
// is in lower case.
func (b *Body) Trailer(name string) (string, error) {
	if !errors.Is(b.err, io.EOF) {
		return "", fmt.Errorf("trailer %s: the body has not ended", name)
	}
	if b.chunks != nil {
		if v, ok := b.chunks.got.Lookup(name); ok {
			return v, nil
		}
	}
	return "", errTrailer("the trailer " + name + " is missing")
}

// Release gives the body's buffers back. The body must not be read after it.
func (b *Body) Release() {
	if b.sha != nil {
		b.pools.sha.Put(b.sha)
		b.sha = nil
	}
	if c := b.chunks; c != nil {
		c.src.Reset(nil)
		b.pools.buffers.Put(c.src)
		if c.sha != nil {
			b.pools.sha.Put(c.sha)
		}
		c.src, c.sha = nil, nil
	}
	if b.err == nil {
		b.err = errors.New("sigv4: read of a released body")
	}
}
