package peer

import (
	"encoding/binary"
	"fmt"
	"io"
)

// frameType says what a frame carries. A frame is its type, one byte, the
// length of its payload, four bytes, and the payload. All integers are
// little-endian.
type frameType uint8

// The frames; PROTOCOL.md has their payloads. Their numbers are part of the
// protocol. Frames from frameIgnorable on are passed over by who does not know
// them.
const (
	frameBeat frameType = 1
	framePing frameType = 2
	framePong frameType = 3

	frameMessage frameType = 16

	frameRequest frameType = 32
	frameReply   frameType = 33
	frameFailure frameType = 34
	frameCancel  frameType = 35

	frameOpenWrite frameType = 48
	frameReady     frameType = 49
	frameData      frameType = 50
	frameCommit    frameType = 51
	frameAbort     frameType = 52
	frameDone      frameType = 53
	frameFailed    frameType = 54

	frameOpenRead   frameType = 64
	frameMeta       frameType = 65
	frameRead       frameType = 66
	frameBytes      frameType = 67
	frameReadFailed frameType = 68
	frameClose      frameType = 69

	frameIgnorable frameType = 128
)

const (
	frameHead = 5
	// maxChunk is the most bulk data that one frame carries.
	maxChunk = 1 << 20
	// maxPrefix bounds the fixed part of any payload.
	maxPrefix = 32
	// maxRead is the most bytes that one read frame asks for.
	maxRead = 1 << 30
	// maxFirst is the longest range that can be had with the opening.
	maxFirst = 256 << 10

	requestPrefix   = 12 // id, method, two bytes for the future
	openWritePrefix = 3
	openReadPrefix  = 14
	readSize        = 16
	bytesPrefix     = 5
)

// Flags of frames.
const (
	flagConfirm = 1 << 0 // openWrite: answer with ready before any data

	flagEnded = 1 << 0 // meta: what follows is all there is, the stream is closed

	flagLast = 1 << 0 // bytes: no more will come for this read
	flagEOF  = 1 << 1 // bytes: the source ends here
)

// frameLimit is the longest payload that a frame of that type may have.
func frameLimit(t frameType) int {
	switch t {
	case frameBeat, framePing, framePong, frameCommit, frameAbort, frameReady, frameClose, frameCancel, frameRead:
		return maxPrefix
	case frameMessage, frameRequest, frameReply, frameFailure:
		return MaxMessage + maxPrefix
	case frameData, frameBytes:
		return maxChunk + maxPrefix
	}
	return MaxHeader + maxPrefix
}

func appendHead(b []byte, t frameType, n int) []byte {
	return binary.LittleEndian.AppendUint32(append(b, byte(t)), uint32(n))
}

func putHead(b []byte, t frameType, n int) {
	b[0] = byte(t)
	binary.LittleEndian.PutUint32(b[1:], uint32(n))
}

// next returns the type and length of the next frame that means something to
// the caller; it passes over beats and frames of the future.
func (c *conn) next() (frameType, int, error) {
	for {
		h, err := c.br.Peek(frameHead)
		if err != nil {
			if len(h) > 0 && err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return 0, 0, err
		}
		t, n := frameType(h[0]), binary.LittleEndian.Uint32(h[1:])
		if n > uint32(frameLimit(t)) {
			return 0, 0, fmt.Errorf("%w: frame of type %d with %d bytes", errProtocol, t, n)
		}
		if _, err := c.br.Discard(frameHead); err != nil {
			return 0, 0, err
		}
		if t != frameBeat && t < frameIgnorable {
			return t, int(n), nil
		}
		if _, err := c.br.Discard(int(n)); err != nil {
			return 0, 0, err
		}
	}
}

// body reads the n bytes of a payload into memory of its own. Long ones are
// believed as they come.
func (c *conn) body(n int) ([]byte, error) {
	const step = 4 << 20
	if n == 0 {
		return nil, nil
	}
	b := make([]byte, min(n, step))
	for at := 0; ; {
		m, err := io.ReadFull(c.br, b[at:])
		if err != nil {
			return nil, noEOF(err)
		}
		if at += m; at == n {
			return b, nil
		}
		b = append(b, make([]byte, min(n-at, at))...)
	}
}

// fixed reads the fixed part of a payload of n bytes; one that is shorter is
// malformed.
func (c *conn) fixed(b []byte, t frameType, n int) error {
	if n < len(b) {
		return fmt.Errorf("%w: frame of type %d with %d bytes", errProtocol, t, n)
	}
	_, err := io.ReadFull(c.br, b)
	return noEOF(err)
}

// noEOF makes an end within a frame an unexpected one.
func noEOF(err error) error {
	if err == io.EOF { //nolint:errorlint // io.ReadFull returns it bare
		return io.ErrUnexpectedEOF
	}
	return err
}

func unexpected(t frameType, k kind) error {
	return fmt.Errorf("%w: frame of type %d on a connection for %s", errProtocol, t, k)
}

// openWrite is the payload of frameOpenWrite.
type openWrite struct {
	service uint16
	confirm bool
	header  []byte
}

func (o openWrite) append(b []byte) []byte {
	b = appendHead(b, frameOpenWrite, openWritePrefix+len(o.header))
	b = binary.LittleEndian.AppendUint16(b, o.service)
	var flags byte
	if o.confirm {
		flags |= flagConfirm
	}
	return append(append(b, flags), o.header...)
}

func parseOpenWrite(b []byte) (o openWrite, err error) {
	if len(b) < openWritePrefix || len(b)-openWritePrefix > MaxHeader {
		return o, fmt.Errorf("%w: open for writing of %d bytes", errProtocol, len(b))
	}
	o.service = binary.LittleEndian.Uint16(b)
	o.confirm = b[2]&flagConfirm != 0
	o.header = b[openWritePrefix:]
	return o, nil
}

// openRead is the payload of frameOpenRead.
type openRead struct {
	service uint16
	first   Range
	header  []byte
}

func (o openRead) append(b []byte) []byte {
	b = appendHead(b, frameOpenRead, openReadPrefix+len(o.header))
	b = binary.LittleEndian.AppendUint16(b, o.service)
	b = binary.LittleEndian.AppendUint64(b, uint64(o.first.Off))
	b = binary.LittleEndian.AppendUint32(b, uint32(o.first.Len))
	return append(b, o.header...)
}

func parseOpenRead(b []byte) (o openRead, err error) {
	if len(b) < openReadPrefix || len(b)-openReadPrefix > MaxHeader {
		return o, fmt.Errorf("%w: open for reading of %d bytes", errProtocol, len(b))
	}
	o.service = binary.LittleEndian.Uint16(b)
	o.first.Off = int64(binary.LittleEndian.Uint64(b[2:]))
	o.first.Len = int(binary.LittleEndian.Uint32(b[10:]))
	o.header = b[openReadPrefix:]
	if o.first.Off < 0 || o.first.Len > maxFirst {
		return o, fmt.Errorf("%w: first range of %d bytes at %d", errProtocol, o.first.Len, o.first.Off)
	}
	return o, nil
}

// readRequest is the payload of frameRead.
type readRequest struct {
	id  uint32
	off int64
	n   int
}

func (r readRequest) frame() (b [frameHead + readSize]byte) {
	putHead(b[:], frameRead, readSize)
	binary.LittleEndian.PutUint32(b[frameHead:], r.id)
	binary.LittleEndian.PutUint64(b[frameHead+4:], uint64(r.off))
	binary.LittleEndian.PutUint32(b[frameHead+12:], uint32(r.n))
	return b
}

func parseRead(b []byte) (r readRequest, err error) {
	r.id = binary.LittleEndian.Uint32(b)
	r.off = int64(binary.LittleEndian.Uint64(b[4:]))
	r.n = int(binary.LittleEndian.Uint32(b[12:]))
	if r.id == 0 || r.off < 0 || r.n > maxRead {
		return r, fmt.Errorf("%w: read %d of %d bytes at %d", errProtocol, r.id, r.n, r.off)
	}
	return r, nil
}

// putBytesPrefix writes the head and prefix of a bytes frame with n bytes.
func putBytesPrefix(b []byte, id uint32, flags byte, n int) {
	putHead(b, frameBytes, bytesPrefix+n)
	binary.LittleEndian.PutUint32(b[frameHead:], id)
	b[frameHead+4] = flags
}

// errorFrame is a frame that carries an error behind a prefix.
func errorFrame(t frameType, prefix []byte, err error) []byte {
	b := appendHead(nil, t, 0)
	b = appendError(append(b, prefix...), err)
	putHead(b, t, len(b)-frameHead)
	return b
}

// errorBody reads a payload of n bytes that is an error.
func (c *conn) errorBody(n int) (*remoteError, error) {
	b, err := c.body(n)
	if err != nil {
		return nil, err
	}
	return parseError(b, c.r.id)
}
