package wasmetl

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
)

const (
	readAheadSize   = 256 << 10
	readAheadChunks = 2
	// smallBody is read before the guest starts.
	smallBody = 64 << 10
)

// source is the object on its way to the guest: bytes that are there, or a body
// that a goroutine reads ahead.
type source struct {
	rest  []byte // of the current chunk, if there is one
	chunk *[readAheadSize]byte
	err   error // after rest

	body  io.ReadCloser
	once  sync.Once
	pool  *sync.Pool
	free  chan *[readAheadSize]byte
	full  chan chunk
	quit  chan struct{}
	ended sync.WaitGroup
}

type chunk struct {
	b   *[readAheadSize]byte
	n   int
	err error
}

func newSource(data []byte, body io.ReadCloser) *source {
	if body == nil {
		return &source{rest: data, err: io.EOF}
	}
	return &source{body: body}
}

func (s *source) isSmall(size int64) bool { return s.body != nil && size >= 0 && size <= smallBody }

// small reads a body that says that it is small, without a goroutine. One that
// is larger goes on in the other way.
func (s *source) small(size int64) {
	buffer := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
	n, err := io.Copy(buffer, io.LimitReader(s.body, smallBody+1))
	s.rest = buffer.Bytes()
	switch {
	case err != nil:
		s.err = err
	case n <= smallBody:
		s.err = io.EOF
	}
}

// start begins to read ahead, if need be.
func (s *source) start(pool *sync.Pool) {
	if s.err != nil {
		return
	}
	s.pool = pool
	s.free, s.full = make(chan *[readAheadSize]byte, readAheadChunks), make(chan chunk, readAheadChunks)
	s.quit = make(chan struct{})
	for range readAheadChunks {
		s.free <- nil
	}
	s.ended.Go(s.readAhead)
}

func (s *source) readAhead() {
	for {
		var b *[readAheadSize]byte
		select {
		case b = <-s.free:
		case <-s.quit:
			return
		}
		if b == nil {
			b, _ = s.pool.Get().(*[readAheadSize]byte)
		}
		if b == nil {
			b = new([readAheadSize]byte)
		}
		n, err := fill(s.body, b[:])
		s.full <- chunk{b, n, err} // there is a place for each buffer
		if err != nil {
			return
		}
	}
}

// fill reads something, or gives an error.
func fill(r io.Reader, b []byte) (int, error) {
	for range 100 {
		if n, err := r.Read(b); n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

// read gives the next bytes to the goroutine that runs the guest.
func (s *source) read(c *call, p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		if s.chunk != nil {
			s.free <- s.chunk
			s.chunk = nil
		}
		var next chunk
		select {
		case next = <-s.full:
		default:
			c.waiting(func(ctx context.Context) {
				select {
				case next = <-s.full:
				case <-ctx.Done():
					// What is there now is not lost: the call is at its end.
				}
			})
		}
		if s.chunk = next.b; next.b != nil {
			s.rest = next.b[:next.n]
		}
		s.err = next.err
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// close ends reading, also one that is going on. It may be called again, by any
// goroutine.
func (s *source) close() {
	if s.body == nil {
		return
	}
	s.once.Do(func() { _ = s.body.Close() })
}

// wait closes, and returns when nobody uses the body any more.
func (s *source) wait() {
	s.close()
	if s.quit == nil {
		return
	}
	close(s.quit)
	s.ended.Wait()
	close(s.free)
	close(s.full)
	for b := range s.free {
		s.giveBack(b)
	}
	for c := range s.full {
		s.giveBack(c.b)
	}
	s.giveBack(s.chunk)
}

func (s *source) giveBack(b *[readAheadSize]byte) {
	if b != nil {
		s.pool.Put(b)
	}
}

// tail keeps the end of what is written.
type tail struct {
	limit int
	b     []byte
	cut   bool
}

func (t *tail) write(p []byte) {
	if len(p) >= t.limit {
		t.cut = t.cut || len(p) > t.limit || len(t.b) > 0
		t.b = append(t.b[:0], p[len(p)-t.limit:]...)
		return
	}
	// The buffer is twice as long, so that not every write moves it.
	if len(t.b)+len(p) > 2*t.limit {
		n := copy(t.b, t.b[len(t.b)-t.limit:])
		t.b, t.cut = t.b[:n], true
	}
	t.b = append(t.b, p...)
}

func (t *tail) String() string {
	b := t.b
	if len(b) > t.limit {
		b = b[len(b)-t.limit:]
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}

// lastLine is ": " and the last line, as part of a message.
func (t *tail) lastLine() string {
	text := strings.TrimSpace(t.String())
	if text == "" {
		return ""
	}
	if i := strings.LastIndexByte(text, '\n'); i >= 0 {
		text = text[i+1:]
	}
	return ": " + text[:min(len(text), maxMessage)]
}
