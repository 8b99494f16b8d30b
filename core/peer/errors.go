package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/shoalstore/shoal/core"
)

// ErrNotSent says of a failed call or stream that the other node surely did
// nothing about it: it was not reached, or refused the work before it began.
// Where a failure is [core.ErrUnavailable] but not ErrNotSent, the work may have
// been done.
var ErrNotSent = errors.New("surely not carried out")

// Reasons for which two nodes do not talk to each other. An operator has to
// act; errors that carry them are [core.ErrUnavailable] and [ErrNotSent], too.
var (
	// ErrOtherCluster says that the nodes belong to different clusters.
	ErrOtherCluster = errors.New("other cluster")
	// ErrWrongSecret says that the nodes do not have the same secret.
	ErrWrongSecret = errors.New("wrong cluster secret")
	// ErrOtherNode says that the address belongs to another node.
	ErrOtherNode = errors.New("other node")
	// ErrVersion says that the nodes have no version of the protocol in common.
	ErrVersion = errors.New("no common protocol version")
)

// Why a connection ended.
var (
	errHungUp   = errors.New("the other end closed the connection")
	errSilent   = errors.New("nothing heard from the node for too long")
	errStopped  = errors.New("the transport is not running")
	errBlocked  = errors.New("cut for a test")
	errIdle     = errors.New("not used for a while")
	errReplaced = errors.New("the node connected anew")
	errClosed   = errors.New("stream closed before its end")
	errProtocol = errors.New("malformed input from the node")
)

var errAborted = errors.New("aborted by the writer")

// failure is an error of reaching a node or losing it.
type failure struct {
	op      string
	node    core.NodeID
	cause   error
	notSent bool
}

func (e *failure) Error() string {
	s := fmt.Sprintf("%s node %s: %v", e.op, e.node, e.cause)
	if e.notSent {
		s += " (" + ErrNotSent.Error() + ")"
	}
	return s
}

// Unwrap hides the causes of the operating system: some claim to be a
// context's error, which callers take for their own.
func (e *failure) Unwrap() []error {
	var is []error
	if e.notSent {
		is = append(is, ErrNotSent)
	}
	for _, ended := range []error{context.Canceled, context.DeadlineExceeded} {
		if e.cause == ended { //nolint:errorlint // identity tells the caller's own context from look-alikes
			return append(is, ended)
		}
	}
	for _, why := range []error{ErrOtherCluster, ErrWrongSecret, ErrOtherNode, ErrVersion} {
		if errors.Is(e.cause, why) {
			is = append(is, why)
		}
	}
	return append(is, core.ErrUnavailable)
}

// remoteError is an error that another node reported.
type remoteError struct {
	node core.NodeID
	msg  string
	is   []error
}

func (e *remoteError) Error() string   { return "node " + string(e.node) + ": " + e.msg }
func (e *remoteError) Unwrap() []error { return e.is }

// maxErrorText bounds the text of an error on the wire, in bytes.
const maxErrorText = 4 << 10

type wireError struct {
	code uint16
	err  error
}

// wireErrors is the part of the protocol that gives errors their numbers. A
// number is never used again.
func wireErrors() [31]wireError {
	return [...]wireError{
		{1, core.ErrNotFound},
		{2, core.ErrNoSuchBucket},
		{3, core.ErrNoSuchUpload},
		{4, core.ErrExists},
		{5, core.ErrNotEmpty},
		{6, core.ErrPrecondition},
		{7, core.ErrNotModified},
		{8, core.ErrConflict},
		{9, core.ErrInvalid},
		{10, core.ErrRange},
		{codeUnavailable, core.ErrUnavailable},
		{12, core.ErrUnknownOutcome},
		{13, core.ErrNotOwner},
		{14, core.ErrCorrupt},
		{15, core.ErrNoSpace},
		{16, core.ErrDiskFailed},
		{17, core.ErrUnformatted},
		{18, core.ErrLocked},
		{19, core.ErrChecksum},
		{20, core.ErrTooLarge},
		{21, core.ErrPermission},
		{22, core.ErrInvalidPart},
		{23, core.ErrPartTooSmall},
		{24, core.ErrNewer},
		{25, core.ErrThrottled},
		{26, core.ErrWrongRegion},
		{64, ErrNotSent},
		{65, io.EOF},
		{66, io.ErrUnexpectedEOF},
		{67, io.ErrShortWrite},
		{68, errAborted},
	}
}

const codeUnavailable = 11

// appendError encodes an error: the number of its codes, the codes, its text.
func appendError(b []byte, err error) []byte {
	at := len(b)
	b = append(b, 0)
	for _, w := range wireErrors() {
		if errors.Is(err, w.err) {
			b = binary.LittleEndian.AppendUint16(b, w.code)
			b[at]++
		}
	}
	// The end of a context here is not the end of one there.
	if b[at] == 0 && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		b = binary.LittleEndian.AppendUint16(b, codeUnavailable)
		b[at]++
	}
	text := err.Error()
	if len(text) > maxErrorText {
		text = strings.ToValidUTF8(text[:maxErrorText], "") + "..."
	}
	return append(b, text...)
}

// parseError is the inverse of appendError. Codes that this version does not
// know are passed over.
func parseError(b []byte, from core.NodeID) (*remoteError, error) {
	if len(b) == 0 || len(b) < 1+2*int(b[0]) {
		return nil, fmt.Errorf("%w: error of %d bytes", errProtocol, len(b))
	}
	codes, text := b[1:1+2*int(b[0])], b[1+2*int(b[0]):]
	e := &remoteError{node: from, msg: string(text)}
	known := wireErrors()
	for ; len(codes) > 0; codes = codes[2:] {
		code := binary.LittleEndian.Uint16(codes)
		for _, w := range known {
			if w.code == code {
				e.is = append(e.is, w.err)
			}
		}
	}
	return e, nil
}
