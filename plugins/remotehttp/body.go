package remotehttp

import (
	"bytes"
	"context"
	"fmt"
	"hash"
	"io"
	"net/http"
	"sync"

	"github.com/shoalstore/shoal/core"
)

// SendBody is the body of one request that writes an object: Head, Size bytes, Tail.
// If the object's bytes fail, are too few or too many the request is broken off,
// so that no server takes it for whole. It is used once.
type SendBody struct {
	Head, Tail []byte
	Size       int64
	// Open opens the object's bytes, as [core.RemotePut] has it.
	Open func(ctx context.Context) (io.ReadCloser, error)
	// Sum, if any, becomes the checksum of the object's bytes.
	Sum hash.Hash

	mu    sync.Mutex
	body  io.ReadCloser // nil after Done
	whole io.Reader
	err   error
}

// Attach opens the bytes and makes them the request's body. Then [SendBody.Done]
// must be called.
func (s *SendBody) Attach(req *http.Request) error {
	if err := s.open(req.Context()); err != nil {
		return err
	}
	req.Body = sending{s}
	req.ContentLength = int64(len(s.Head)) + s.Size + int64(len(s.Tail))
	// For a connection that turns out to be closed before anything was sent.
	req.GetBody = func() (io.ReadCloser, error) { //nolint:contextcheck // it is the request's own
		_ = s.Done()
		if err := s.open(req.Context()); err != nil {
			return nil, err
		}
		return sending{s}, nil
	}
	return nil
}

func (s *SendBody) open(ctx context.Context) error {
	body, err := s.Open(ctx)
	if err != nil {
		return fmt.Errorf("open the body: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Sum != nil {
		s.Sum.Reset()
	}
	s.body, s.err = body, nil
	s.whole = io.MultiReader(bytes.NewReader(s.Head), &counted{s: s, left: s.Size}, bytes.NewReader(s.Tail))
	return nil
}

// Done closes the bytes, which the transport may otherwise read on after it has
// answered, and returns what was wrong with them.
func (s *SendBody) Done() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.body != nil {
		_ = s.body.Close() // it was only read
		s.body = nil
	}
	return s.err
}

// sending is what the transport has.
type sending struct{ s *SendBody }

func (b sending) Read(p []byte) (int, error) {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if b.s.body == nil {
		return 0, http.ErrBodyReadAfterClose
	}
	return b.s.whole.Read(p)
}

// Close leaves it to Done.
func (b sending) Close() error { return nil }

// counted are the object's own bytes.
type counted struct {
	s    *SendBody
	left int64
}

func (c *counted) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := c.s.body.Read(p)
	if c.left -= int64(n); c.left < 0 {
		n, err = 0, fmt.Errorf("it has more than %d bytes: %w", c.s.Size, core.ErrInvalid)
	}
	if err == io.EOF && c.left > 0 { //nolint:errorlint // readers return it as it is
		err = fmt.Errorf("%d of %d bytes are missing: %w", c.left, c.s.Size, io.ErrUnexpectedEOF)
	}
	if c.s.Sum != nil {
		_, _ = c.s.Sum.Write(p[:n]) // never fails
	}
	if err != nil && err != io.EOF { //nolint:errorlint // as above
		c.s.err = fmt.Errorf("body: %w", err)
		return n, c.s.err
	}
	return n, err
}
