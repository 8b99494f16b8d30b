package sigv4

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"slices"
	"strings"
)

// Limits of the framing.
const (
	maxChunkLine   = 4 << 10
	maxTrailerLine = 4 << 10
	maxTrailers    = 16
)

// chunkReader takes the framing off a streamed body and verifies it (pages
// sigv4-streaming and sigv4-streaming-trailers):
//
//	hex-size[;chunk-signature=hex]\r\n data \r\n ... 0[;chunk-signature=hex]\r\n
//	[name:value\r\n ... [x-amz-trailer-signature:hex\r\n]]
//	\r\n
//
// A chunk's data is passed on as it comes; its signature is verified at its
// end. So nothing is believed before io.EOF.
type chunkReader struct {
	src    *bufio.Reader
	left   int64 // decoded bytes still to come
	chunk  int64 // bytes of the present chunk still to come
	inside bool  // a chunk's data has begun and not been closed

	signer *chunkSigner // nil if the chunks are not signed
	sha    hash.Hash    // over the present chunk
	given  string       // the signature that the chunk came with

	trailer  bool   // trailers follow the last chunk
	trailers string // names in x-amz-trailer, lower case, comma separated
	got      Query
}

// Read implements io.Reader; [Body] keeps the error.
func (c *chunkReader) Read(p []byte) (int, error) {
	for c.chunk == 0 {
		if c.inside {
			if err := c.closeChunk(); err != nil {
				return 0, err
			}
		}
		last, err := c.openChunk()
		if err != nil {
			return 0, err
		}
		if last {
			return 0, c.end()
		}
	}
	if len(p) == 0 {
		return 0, nil
	}
	if int64(len(p)) > c.chunk {
		p = p[:c.chunk]
	}
	n, err := c.src.Read(p)
	c.chunk -= int64(n)
	c.left -= int64(n)
	if c.sha != nil {
		_, _ = c.sha.Write(p[:n])
	}
	if err != nil {
		return n, incomplete(err)
	}
	return n, nil
}

// openChunk reads a chunk's header and says whether it is the last.
func (c *chunkReader) openChunk() (last bool, err error) {
	line, err := c.line(maxChunkLine)
	if err != nil {
		return false, err
	}
	head, ext, _ := bytes.Cut(line, []byte{';'})
	size, ok := parseHex(bytes.TrimRight(head, " \t"))
	if !ok {
		return false, errChunk("the size of a chunk is malformed")
	}
	c.given = ""
	if c.signer != nil {
		sig, ok := bytes.CutPrefix(bytes.TrimSpace(ext), []byte("chunk-signature="))
		if !ok {
			return false, errChunk("a chunk has no signature")
		}
		c.given = string(sig)
		c.sha.Reset()
	}
	if size > c.left {
		return false, errChunk("the chunks are longer than x-amz-decoded-content-length says")
	}
	c.chunk = size
	c.inside = size > 0
	return size == 0, nil
}

// closeChunk reads the line end behind a chunk's data and verifies the chunk.
func (c *chunkReader) closeChunk() error {
	if err := c.blank(); err != nil {
		return err
	}
	c.inside = false
	return c.verify()
}

func (c *chunkReader) verify() error {
	if c.signer == nil {
		return nil
	}
	var sum [sha256.Size]byte
	return c.signer.check(chunkAlgorithm, c.sha.Sum(sum[:0]), c.given)
}

// end reads what follows the last chunk's header. It returns io.EOF if all is
// well.
func (c *chunkReader) end() error {
	if err := c.verify(); err != nil {
		return err
	}
	if c.trailer {
		if err := c.readTrailers(); err != nil {
			return err
		}
	} else if err := c.blank(); err != nil {
		return err
	}
	if c.left != 0 {
		return incomplete(nil)
	}
	// Nothing may follow. This also ends the message for net/http.
	if _, err := c.src.ReadByte(); err == nil {
		return errChunk("there is data behind the last chunk")
	} else if !errors.Is(err, io.EOF) {
		return incomplete(err)
	}
	return io.EOF
}

func (c *chunkReader) readTrailers() error {
	var signature string
	var signed []byte
	for {
		line, err := c.line(maxTrailerLine)
		if err != nil {
			return err
		}
		if len(line) == 0 {
			break
		}
		name, value, ok := bytes.Cut(line, []byte{':'})
		n, v := strings.ToLower(string(bytes.TrimSpace(name))), string(bytes.TrimSpace(value))
		switch {
		case !ok || signature != "" || len(c.got) >= maxTrailers:
			return errTrailer("a line is malformed")
		case n == "x-amz-trailer-signature" && c.signer != nil:
			signature = v
			continue
		case !listed(c.trailers, n) || c.got.Has(n):
			return errTrailer("x-amz-trailer does not announce " + n)
		}
		c.got = append(c.got, Param{n, v})
	}
	for name := range strings.SplitSeq(c.trailers, ",") {
		if name = strings.TrimSpace(name); name != "" && !c.got.Has(name) {
			return errTrailer("the trailer " + name + " is missing")
		}
	}
	if c.signer == nil {
		return nil
	}
	sorted := slices.Clone(c.got)
	slices.SortFunc(sorted, func(a, b Param) int { return strings.Compare(a.Name, b.Name) })
	for _, p := range sorted {
		signed = append(append(append(append(signed, p.Name...), ':'), p.Value...), '\n')
	}
	sum := sha256.Sum256(signed)
	return c.signer.check(trailerAlgorithm, sum[:], signature)
}

// listed says whether a comma-separated list has the name.
func listed(list, name string) bool {
	for n := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(n) == name {
			return true
		}
	}
	return false
}

// line reads a line without its end. The result lasts until the next read.
func (c *chunkReader) line(limit int) ([]byte, error) {
	line, err := c.src.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull) || len(line) > limit:
		return nil, errChunk("a line of the framing is too long")
	case err != nil:
		return nil, incomplete(err)
	}
	line = line[:len(line)-1]
	return bytes.TrimSuffix(line, []byte{'\r'}), nil
}

// blank reads an empty line.
func (c *chunkReader) blank() error {
	line, err := c.line(maxChunkLine)
	if err == nil && len(line) != 0 {
		err = errChunk("a chunk does not end where its size says")
	}
	return err
}

// parseHex reads a size of up to 15 hex digits.
func parseHex(s []byte) (n int64, ok bool) {
	if len(s) == 0 || len(s) > 15 {
		return 0, false
	}
	for _, b := range s {
		d := unhex(b)
		if d > 15 {
			return 0, false
		}
		n = n<<4 | int64(d)
	}
	return n, true
}

func errChunk(why string) error {
	return malformed("InvalidRequest", "The chunked body is malformed: "+why+".")
}

func errTrailer(why string) error {
	return malformed("MalformedTrailerError", "The request contained trailing data that was not well-formed or did not conform to our published schema: "+why+".")
}

const (
	chunkAlgorithm   = "AWS4-HMAC-SHA256-PAYLOAD"
	trailerAlgorithm = "AWS4-HMAC-SHA256-TRAILER"
)

// chunkSigner computes the chain of signatures that begins with the request's.
type chunkSigner struct {
	auth     Auth
	previous signature
	buf      []byte
}

// next signs the SHA-256 of the next link.
func (s *chunkSigner) next(algorithm string, sum []byte) signature {
	b := s.buf[:0]
	b = append(append(b, algorithm...), '\n')
	b = append(append(b, s.auth.amzDate...), '\n')
	b = append(append(b, s.auth.scope...), '\n')
	b = append(append(b, s.previous[:]...), '\n')
	if algorithm == chunkAlgorithm {
		// The hash of the chunk's headers, of which there are none.
		b = append(append(b, EmptyPayload...), '\n')
	}
	b = hex.AppendEncode(b, sum)
	s.buf = b
	s.previous = s.auth.key.sign(b)
	return s.previous
}

func (s *chunkSigner) check(algorithm string, sum []byte, given string) error {
	sig := s.next(algorithm, sum)
	if sig.equals(given) {
		return nil
	}
	return refuse("SignatureDoesNotMatch",
		"The signature of a chunk or of the trailer that we calculated does not match the one that you provided. Check your key and signing method.",
		Detail{"AWSAccessKeyId", s.auth.AccessKey}, Detail{"StringToSign", string(s.buf)}, Detail{"SignatureProvided", given})
}
