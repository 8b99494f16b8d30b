package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/shoalstore/shoal/core"
)

// maxReads is the number of reads that may be under way on one stream: their
// requests always fit into the socket's buffers.
const maxReads = 32

// readStream is the reading end of a stream from another node.
type readStream struct {
	sc      *streamConn
	release func() bool   // ends the guard of the opening ctx
	slots   chan struct{} // holds a token for each read under way
	opened  chan error    // how the opening ended, from the receiver

	meta  []byte
	first Range   // bytes of the source that are in memory
	whole bool    // there are no others, from first.Off on
	mem   *[]byte // holds them

	mu     sync.Mutex
	last   uint32
	reads  map[uint32]*read // that may still get bytes
	ended  bool             // the other node has closed its end
	closed bool
	err    error // why the connection ended
}

// read is a range that was asked for.
type read struct {
	p    []byte
	n    int // bytes filled
	err  error
	done chan struct{} // closed when n and err are final

	// Guarded by the stream's mu: the receiver writes to p; nobody waits
	// any more, and p must not be written to.
	filling, gone bool
	freed         chan struct{} // closed by the receiver when it leaves p
}

// openReadStream sends the opening and waits for the answer. It gives the
// connection back if that fails.
func openReadStream(ctx context.Context, sc *streamConn, o openRead) (*readStream, error) {
	s := &readStream{
		sc:     sc,
		slots:  make(chan struct{}, maxReads),
		opened: make(chan error, 1),
		reads:  map[uint32]*read{},
	}
	c := sc.c
	if o.first.Len > 0 {
		s.mem = c.t.bulk.get()
		s.reads[0] = &read{p: (*s.mem)[:o.first.Len], done: make(chan struct{})}
	}
	s.first.Off = o.first.Off
	s.release = sc.guard(ctx)
	err := sc.attach(s)
	if err == nil {
		c.setActive(true)
		_ = c.send(o.append(nil)) // if it fails the receiver says so
		err = <-s.opened
	}
	if err == nil {
		if s.ended {
			s.giveBack(true)
		}
		return s, nil
	}
	if s.mem != nil {
		c.t.bulk.put(s.mem)
		s.mem = nil
	}
	failed := (*remoteError)(nil)
	refused := errors.As(err, &failed)
	s.giveBack(refused)
	if refused {
		return nil, err
	}
	return nil, c.r.lost("open a stream from", err, false)
}

// giveBack returns the connection to the pool; clean says that it can be used
// again.
func (s *readStream) giveBack(clean bool) {
	kept := s.release()
	p := &s.sc.c.r.pool
	if clean && kept {
		p.put(s.sc)
	} else {
		p.drop(s.sc, errClosed)
	}
}

// frame is for the receiver.
func (s *readStream) frame(t frameType, n int) error {
	c := s.sc.c
	switch t {
	case frameMeta:
		return s.takeMeta(n)
	case frameFailed:
		failed, err := c.errorBody(n)
		if err != nil {
			return err
		}
		if s.meta != nil {
			return unexpected(t, c.kind)
		}
		s.sc.detach()
		s.opened <- failed
		return nil
	case frameBytes:
		return s.takeBytes(n)
	case frameReadFailed:
		return s.takeFailure(n)
	}
	return unexpected(t, c.kind)
}

func (s *readStream) takeMeta(n int) error {
	b, err := s.sc.c.body(n)
	if err != nil {
		return err
	}
	if len(b) == 0 || s.meta != nil {
		return fmt.Errorf("%w: meta data of %d bytes", errProtocol, len(b))
	}
	s.meta = b[1:]
	s.whole = b[0]&flagEnded != 0
	if s.whole && (s.mem == nil || s.first.Off != 0) {
		return fmt.Errorf("%w: a source that ends before it begins", errProtocol)
	}
	if s.mem == nil {
		s.opened <- nil
	}
	return nil
}

// takeBytes reads bytes to where they are wanted.
func (s *readStream) takeBytes(n int) error {
	c := s.sc.c
	var prefix [bytesPrefix]byte
	if err := c.fixed(prefix[:], frameBytes, n); err != nil {
		return err
	}
	n -= bytesPrefix
	id, flags := binary.LittleEndian.Uint32(prefix[:]), prefix[4]
	s.mu.Lock()
	r := s.reads[id]
	if r == nil || s.meta == nil || n > len(r.p)-r.n {
		s.mu.Unlock()
		return fmt.Errorf("%w: %d bytes for read %d", errProtocol, n, id)
	}
	gone := r.gone
	r.filling = !gone
	s.mu.Unlock()
	var err error
	if gone {
		_, err = c.br.Discard(n)
	} else {
		_, err = io.ReadFull(c.br, r.p[r.n:r.n+n])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.filling = false
	if r.freed != nil {
		close(r.freed)
		r.freed = nil
		c.hurry.Store(false)
	}
	if err != nil {
		return noEOF(err)
	}
	r.n += n
	if flags&flagLast != 0 {
		if flags&flagEOF != 0 {
			r.err = io.EOF
		}
		s.complete(id, r)
	}
	return nil
}

// takeFailure ends a read with an error.
func (s *readStream) takeFailure(n int) error {
	b, err := s.sc.c.body(n)
	if err != nil {
		return err
	}
	if len(b) < 4 {
		return fmt.Errorf("%w: failure of %d bytes", errProtocol, len(b))
	}
	failed, err := parseError(b[4:], s.sc.c.r.id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := binary.LittleEndian.Uint32(b)
	r := s.reads[id]
	if r == nil || s.meta == nil {
		return fmt.Errorf("%w: failure for read %d", errProtocol, id)
	}
	r.err = failed
	s.complete(id, r)
	return nil
}

// complete ends a read; the caller holds mu.
func (s *readStream) complete(id uint32, r *read) {
	delete(s.reads, id)
	close(r.done)
	if id != 0 {
		<-s.slots
		return
	}
	// If the first range failed, its bytes are asked for again when they are
	// wanted, and the failure is seen then.
	s.first.Len = r.n
	if s.whole {
		if s.whole = errors.Is(r.err, io.EOF); s.whole {
			s.ended = true
			s.sc.detach()
		}
	}
	s.opened <- nil
}

// lost is for the receiver.
func (s *readStream) lost(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = why
	for id, r := range s.reads {
		delete(s.reads, id)
		r.err = why
		if id != 0 {
			r.err = s.fault(why)
		}
		close(r.done)
	}
	select {
	case s.opened <- why:
	default:
	}
}

func (s *readStream) fault(why error) error { return s.sc.c.r.lost("read from", why, false) }

// Meta is what the source said of itself.
func (s *readStream) Meta() []byte { return s.meta }

// ReadAt reads from memory, then from the other node.
func (s *readStream) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read at %d: %w", off, core.ErrInvalid)
	}
	n, done, err := s.fromMemory(p, off)
	for !done {
		want := p[n:min(len(p), n+maxRead)]
		var m int
		m, err = s.readRange(ctx, want, off+int64(n))
		n += m
		done = err != nil || n == len(p)
	}
	return n, err
}

// fromMemory serves what it can of a range; done says that it was all.
func (s *readStream) fromMemory(p []byte, off int64) (n int, done bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, true, fmt.Errorf("read from a closed stream: %w", core.ErrInvalid)
	}
	end := s.first.Off + int64(s.first.Len)
	if s.mem != nil && off >= s.first.Off && off < end {
		n = copy(p, (*s.mem)[off-s.first.Off:s.first.Len])
	}
	switch {
	case n == len(p):
		return n, true, nil
	case s.whole && off >= s.first.Off:
		return n, true, io.EOF
	}
	return n, false, nil
}

// ReadNow implements [core.NowReader] for what came with the opening.
func (s *readStream) ReadNow(p []byte, off int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := off - s.first.Off
	if s.closed || s.mem == nil || from < 0 || from+int64(len(p)) > int64(s.first.Len) {
		return false
	}
	copy(p, (*s.mem)[from:s.first.Len])
	return true
}

// readRange asks the other node for a range and waits for it.
func (s *readStream) readRange(ctx context.Context, p []byte, off int64) (int, error) {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return 0, s.fault(ctx.Err())
	case <-s.sc.c.done:
		return 0, s.fault(s.sc.c.why)
	}
	r := &read{p: p, done: make(chan struct{})}
	s.mu.Lock()
	err := s.err
	if s.closed {
		err = errClosed
	}
	if err != nil {
		s.mu.Unlock()
		<-s.slots
		return 0, s.fault(err)
	}
	if s.last++; s.last == 0 {
		s.last++
	}
	id := s.last
	s.reads[id] = r
	s.mu.Unlock()
	frame := readRequest{id, off, len(p)}.frame()
	if err := s.sc.c.send(frame[:]); err != nil {
		<-r.done // the receiver fails all reads
		return r.n, r.err
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		if s.giveUp(r) {
			return 0, s.fault(ctx.Err())
		}
	}
	return r.n, r.err
}

// giveUp makes sure that nothing will be written to a read's bytes. It returns
// false if the read is complete.
func (s *readStream) giveUp(r *read) bool {
	s.mu.Lock()
	select {
	case <-r.done:
		s.mu.Unlock()
		return false
	default:
	}
	r.gone = true
	if !r.filling {
		s.mu.Unlock()
		return true
	}
	freed := make(chan struct{})
	r.freed = freed
	s.sc.c.hurry.Store(true) // until the receiver, holding mu, takes it back
	s.mu.Unlock()
	<-freed
	return true
}

// Close ends the stream. If the other node has nothing more to say the
// connection is used again.
func (s *readStream) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	mem, ended, idle := s.mem, s.ended, len(s.reads) == 0 && s.err == nil
	s.mem = nil
	s.mu.Unlock()
	if mem != nil {
		s.sc.c.t.bulk.put(mem)
	}
	if ended {
		return nil // given back when it was opened
	}
	if idle {
		s.sc.detach()
		var head [frameHead]byte
		putHead(head[:], frameClose, 0)
		idle = s.sc.c.send(head[:]) == nil
	}
	s.giveBack(idle)
	return nil
}
