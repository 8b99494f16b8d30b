package remotehttp

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/shoalstore/shoal/core"
)

// Content is which bytes of an object an answer has.
type Content struct {
	// Total is the object's size, -1 if the answer does not tell.
	Offset, Length, Total int64
}

// Is says whether the answer has what was asked for: length bytes from offset, -1
// for all that follow, or as many as there are.
func (c Content) Is(offset, length int64) bool {
	if c.Total < 0 {
		return c.Offset == offset && length >= 0 && c.Length <= length
	}
	want := c.Total - offset
	if length >= 0 {
		want = min(want, length)
	}
	return c.Offset == offset && c.Length == want
}

// ParseContent reads which bytes an answer has: of its status, 200 or 206, its
// length, -1 if it is not known, and its Content-Range. An answer that does not say
// how long it is, or contradicts itself, is an error.
func ParseContent(status int, length int64, text string) (c Content, err error) {
	if status == http.StatusOK {
		if length < 0 {
			return c, errors.New("does not say how long it is")
		}
		return Content{Length: length, Total: length}, nil
	}
	rest, ok := strings.CutPrefix(text, "bytes ")
	run, total, ok2 := strings.Cut(rest, "/")
	first, last, ok3 := strings.Cut(run, "-")
	a, err1 := strconv.ParseUint(first, 10, 62)
	z, err2 := strconv.ParseUint(last, 10, 62)
	n, err3 := strconv.ParseUint(total, 10, 62)
	c = Content{Offset: int64(a), Length: int64(z) - int64(a) + 1, Total: int64(n)}
	if total == "*" {
		c.Total, err3 = -1, nil
	}
	if !ok || !ok2 || !ok3 || err1 != nil || err2 != nil || err3 != nil || c.Length < 1 || c.Total >= 0 && int64(z) >= c.Total {
		return Content{}, fmt.Errorf("has the bad Content-Range %.100q", text)
	}
	if length >= 0 && length != c.Length {
		return Content{}, fmt.Errorf("has Content-Range %q and %d bytes", text, length)
	}
	return c, nil
}

// ExactBody returns a body that has n bytes or fails: with [core.ErrUnavailable]
// if there are fewer.
func ExactBody(body io.ReadCloser, n int64) io.ReadCloser { return &exact{body, n} }

type exact struct {
	body io.ReadCloser
	left int64
}

func (e *exact) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.body.Read(p[:min(int64(len(p)), e.left)])
	e.left -= int64(n)
	switch {
	case e.left == 0:
		return n, nil
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
		fallthrough
	case err != nil:
		return n, fmt.Errorf("body: %d bytes are missing: %w: %w", e.left, core.ErrUnavailable, err)
	}
	return n, nil
}

func (e *exact) Close() error { return e.body.Close() }
