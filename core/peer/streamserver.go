package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// streamServer is the serving end of a connection for streams.
type streamServer struct {
	t *Transport
	c *conn
}

// serveStreams serves another node's streams, one after the other, until the
// connection ends.
func (t *Transport) serveStreams(ctx context.Context, c *conn, cancel context.CancelCauseFunc) error {
	s := &streamServer{t: t, c: c}
	// A handler at work does not read from the connection: that it broke is
	// noticed by the beats.
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(errClosed)
	wg.Go(func() {
		select {
		case <-c.done:
			cancel(c.why)
		case <-ctx.Done():
		}
	})
	for {
		f, n, err := c.next()
		if err != nil {
			return err
		}
		if f != frameOpenWrite && f != frameOpenRead {
			return unexpected(f, c.kind)
		}
		body, err := c.body(n)
		if err != nil {
			return err
		}
		c.r.streamsServed.Add(1)
		c.setActive(true)
		if f == frameOpenWrite {
			err = s.write(ctx, body)
		} else {
			err = s.read(ctx, body)
		}
		if err != nil {
			return err
		}
		c.setActive(false)
	}
}

// write serves a stream of bytes from the other node. Its error is the
// connection's.
func (s *streamServer) write(ctx context.Context, body []byte) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o, err := parseOpenWrite(body)
	if err != nil {
		return err
	}
	in := &payload{c: s.c}
	reply, err := s.takeStream(ctx, o, in)
	if in.broken() {
		return in.end
	}
	if err != nil {
		return s.refuse(in, err)
	}
	return s.c.send(append(appendHead(nil, frameDone, len(reply)), reply...))
}

// takeStream hands the bytes to the service, up to the commit. An error leaves
// nothing behind.
func (s *streamServer) takeStream(ctx context.Context, o openWrite, in *payload) (reply []byte, err error) {
	h, err := s.t.service(o.service)
	if err != nil {
		return nil, err
	}
	sink, err := h.OpenWrite(ctx, s.c.r.id, o.header)
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := sink.Close(); e != nil && err == nil {
			err = e
		}
	}()
	if o.confirm {
		if err := s.c.send(appendHead(nil, frameReady, 0)); err != nil {
			in.end = err
			return nil, err
		}
	}
	if err := s.copy(sink, in); err != nil {
		return nil, err
	}
	reply, err = sink.Commit(ctx)
	if err == nil && len(reply) > MaxHeader {
		return nil, fmt.Errorf("reply of %d bytes, the limit is %d", len(reply), MaxHeader)
	}
	return reply, err
}

// copy moves the bytes, in pieces as large as possible. It returns nil only if
// all of them were taken and the other node has committed.
func (s *streamServer) copy(sink io.Writer, in *payload) error {
	if rf, ok := sink.(io.ReaderFrom); ok {
		if _, err := rf.ReadFrom(in); err != nil {
			return err
		}
		if !in.committed() {
			return fmt.Errorf("the stream was not read to its end: %w", io.ErrShortWrite)
		}
		return nil
	}
	buf := s.t.bulk.get()
	defer s.t.bulk.put(buf)
	for {
		n, err := io.ReadFull(in, (*buf)[:bulkSize])
		if err != nil && !in.committed() {
			return in.end
		}
		if n > 0 {
			if m, err := sink.Write((*buf)[:n]); err != nil {
				return err
			} else if m < n {
				return io.ErrShortWrite
			}
		}
		if err != nil {
			return nil
		}
	}
}

// refuse tells the other node that its stream failed, and waits for it to stop.
func (s *streamServer) refuse(in *payload, err error) error {
	if err := s.c.send(errorFrame(frameFailed, nil, err)); err != nil {
		return err
	}
	for in.end == nil {
		_, _ = in.skip()
	}
	if in.broken() {
		return in.end
	}
	return nil
}

// payload reads the bytes of a stream out of its frames. It ends with io.EOF
// after a commit, with errAborted after an abort, else with the connection's
// error.
type payload struct {
	c    *conn
	left int // bytes of the present frame
	end  error
}

func (in *payload) committed() bool { return in.end == io.EOF } //nolint:errorlint // set by this type only

func (in *payload) broken() bool {
	return in.end != nil && !in.committed() && !errors.Is(in.end, errAborted)
}

// fill gets at the next bytes.
func (in *payload) fill() {
	for in.left == 0 && in.end == nil {
		f, n, err := in.c.next()
		if errors.Is(err, io.EOF) {
			err = errHungUp // not the end of the stream
		}
		switch {
		case err != nil:
			in.end = err
		case f == frameData && n <= maxChunk:
			in.left = n
		case f == frameCommit:
			in.finish(n, io.EOF)
		case f == frameAbort:
			in.finish(n, errAborted)
		default:
			in.end = unexpected(f, in.c.kind)
		}
	}
}

// finish ends the payload with a frame of n bytes.
func (in *payload) finish(n int, end error) {
	if _, err := in.c.br.Discard(n); err != nil {
		end = noEOF(err)
	}
	in.end = end
}

// Read reads bytes of the stream.
func (in *payload) Read(p []byte) (int, error) {
	in.fill()
	if in.end != nil {
		return 0, in.end
	}
	n, err := in.c.br.Read(p[:min(len(p), in.left)])
	in.left -= n
	if err != nil {
		in.end = noEOF(err)
		return n, in.end
	}
	return n, nil
}

// skip passes over bytes of the stream.
func (in *payload) skip() (int, error) {
	in.fill()
	if in.end != nil {
		return 0, in.end
	}
	n, err := in.c.br.Discard(in.left)
	in.left -= n
	if err != nil {
		in.end = noEOF(err)
	}
	return n, in.end
}

// read serves ranges of a source. Its error is the connection's.
func (s *streamServer) read(ctx context.Context, body []byte) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o, err := parseOpenRead(body)
	if err != nil {
		return err
	}
	src, err := s.openSource(ctx, o)
	if err != nil {
		return s.c.send(errorFrame(frameFailed, nil, err))
	}
	defer func() { _ = src.Close() }() // it was only read
	ended, err := s.sendFirst(ctx, src, o.first)
	if err != nil || ended {
		return err
	}
	for {
		f, n, err := s.c.next()
		if err != nil {
			return err
		}
		switch f {
		case frameRead:
			var b [readSize]byte
			if err := s.c.fixed(b[:], f, n); err != nil {
				return err
			}
			if _, err := s.c.br.Discard(n - readSize); err != nil {
				return err
			}
			req, err := parseRead(b[:])
			if err != nil {
				return err
			}
			if err := s.sendRange(ctx, src, req); err != nil {
				return err
			}
		case frameClose:
			_, err := s.c.br.Discard(n)
			return err
		default:
			return unexpected(f, s.c.kind)
		}
	}
}

func (s *streamServer) openSource(ctx context.Context, o openRead) (ReadStream, error) {
	h, err := s.t.service(o.service)
	if err != nil {
		return nil, err
	}
	src, err := h.OpenRead(ctx, s.c.r.id, o.header)
	if err != nil {
		return nil, err
	}
	if n := len(src.Meta()); n > MaxHeader {
		_ = src.Close()
		return nil, fmt.Errorf("meta data of %d bytes, the limit is %d", n, MaxHeader)
	}
	return src, nil
}

// sendFirst sends the meta data and the first range. If that is the whole
// source the stream has ended.
func (s *streamServer) sendFirst(ctx context.Context, src ReadStream, first Range) (ended bool, err error) {
	meta := src.Meta()
	head := append(appendHead(nil, frameMeta, 1+len(meta)), 0)
	head = append(head, meta...)
	if first.Len == 0 {
		return false, s.c.send(head)
	}
	buf := s.t.bulk.get()
	defer s.t.bulk.put(buf)
	n, readErr := src.ReadAt(ctx, (*buf)[:first.Len], first.Off)
	flags, err := readFlags(n, first.Len, readErr)
	if err != nil {
		return false, s.c.send(head, errorFrame(frameReadFailed, make([]byte, 4), err))
	}
	ended = flags&flagEOF != 0 && first.Off == 0
	if ended {
		head[frameHead] = flagEnded
	}
	var prefix [frameHead + bytesPrefix]byte
	putBytesPrefix(prefix[:], 0, flags|flagLast, n)
	return ended, s.c.send(append(head, prefix[:]...), (*buf)[:n])
}

// readFlags judges what ReadAt returned for a range of that length.
func readFlags(n, length int, err error) (flags byte, failed error) {
	switch {
	case errors.Is(err, io.EOF):
		return flagEOF, nil
	case err == nil && n < length:
		return 0, io.ErrNoProgress
	}
	return 0, err
}

// sendRange answers a read.
func (s *streamServer) sendRange(ctx context.Context, src ReadStream, req readRequest) error {
	if sec, ok := src.(Sectioner); ok && !s.c.encrypted() && s.c.sys != nil {
		sent, err := s.sendSection(sec, req)
		if sent || err != nil {
			return err
		}
	}
	const room = bulkRoom
	buf := s.t.bulk.get()
	defer s.t.bulk.put(buf)
	for {
		// Up to the next multiple of bulkSize: sources have blocks.
		want := min(req.n, bulkSize-int(req.off%bulkSize))
		n, readErr := src.ReadAt(ctx, (*buf)[room:room+want], req.off)
		flags, err := readFlags(n, want, readErr)
		req.n -= n
		if err == nil && (req.n == 0 || flags&flagEOF != 0) {
			flags |= flagLast
		}
		putBytesPrefix(*buf, req.id, flags, n)
		if sendErr := s.c.send((*buf)[:room+n]); sendErr != nil {
			return sendErr
		}
		if err != nil {
			return s.c.send(errorFrame(frameReadFailed, binary.LittleEndian.AppendUint32(nil, req.id), err))
		}
		if flags&flagLast != 0 {
			return nil
		}
		req.off += int64(n)
	}
}

// sendSection answers a read straight from a file. It returns false, having sent
// nothing, if that is not possible.
func (s *streamServer) sendSection(sec Sectioner, req readRequest) (bool, error) {
	f, at, n, eof, ok := sec.Section(req.off, req.n)
	if !ok {
		return false, nil
	}
	if n < 0 || n > req.n || n < req.n && !eof {
		return true, s.c.send(errorFrame(frameReadFailed, binary.LittleEndian.AppendUint32(nil, req.id), io.ErrNoProgress))
	}
	s.c.wmu.Lock()
	defer s.c.wmu.Unlock()
	for {
		m := min(n, maxChunk)
		n -= m
		var flags byte
		if n == 0 {
			flags = flagLast
			if eof {
				flags |= flagEOF
			}
		}
		var prefix [frameHead + bytesPrefix]byte
		putBytesPrefix(prefix[:], req.id, flags, m)
		if err := s.c.sendLocked(prefix[:]); err != nil {
			return true, err
		}
		sent, err := sendFile(s.c.sys, f, at, int64(m))
		s.c.wrote(sent)
		if errors.Is(err, errors.ErrUnsupported) {
			_, err = io.CopyN(s.c, io.NewSectionReader(f, at, int64(m)), int64(m))
		}
		if err != nil {
			return true, s.c.check(err) // the frame cannot be completed
		}
		at += int64(m)
		if n == 0 {
			return true, nil
		}
	}
}
