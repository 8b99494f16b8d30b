package core

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// TransformRef names a transform. Digest ("sha256:" and hexadecimal) pins what
// it is; empty, it is what the name stands for now.
type TransformRef struct {
	Name, Digest string
}

// String is the form of the reply's header: name@digest.
func (r TransformRef) String() string {
	if r.Digest == "" {
		return r.Name
	}
	return r.Name + "@" + r.Digest
}

// A TransformRunner passes objects through transforms: one implementation runs
// WebAssembly modules in the node, others may use containers.
type TransformRunner interface {
	// RunTransform passes one object through a transform, and returns when
	// neither the call's source nor its outputs are used any more. What goes
	// wrong with the transform or by its will is a result. An error is about
	// everything else: [ErrNotFound] for a transform that does not exist,
	// [ErrUnavailable] if the node is busy (nothing was read or written),
	// [ErrInvalid] for a bad call, ctx's cause, or the error of the source or
	// of an output.
	RunTransform(ctx context.Context, c TransformCall) (TransformResult, error)
}

// TransformCall is one object on its way through a transform.
type TransformCall struct {
	Transform TransformRef
	Object    TransformObject
	// Args are added to those of the transform, and win.
	Args map[string]string
	// Data is the object if Body is nil.
	Data []byte
	// Body is the object. It is closed when the transform has ended or is
	// ended, also while it is being read, and Close makes a Read return.
	Body io.ReadCloser
	// Output opens what the transform writes: first the object itself (without
	// a name), then whatever it emits. It is called when the first byte is
	// there, or there is certainly none; never two at a time.
	Output func(ctx context.Context, o TransformOutputInfo) (TransformOutput, error)
	// Job says that nobody waits for this object alone. Jobs have at most half
	// of what a node has for transforms.
	Job bool
}

// StoppableBody returns a body as [TransformCall] wants it, of one whose Close may
// not be called while Read is running. Stop makes such a Read return: it ends the
// context that the body was opened with.
func StoppableBody(body io.ReadCloser, stop context.CancelFunc) io.ReadCloser {
	return &stoppableBody{body: body, stop: stop}
}

type stoppableBody struct {
	stop context.CancelFunc

	mu     sync.Mutex // held while body is used
	body   io.ReadCloser
	closed bool
}

var errBodyClosed = errors.New("read of a body that was closed")

// Read is part of io.Reader.
func (b *stoppableBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, errBodyClosed
	}
	return b.body.Read(p)
}

// Close is part of io.Closer.
func (b *stoppableBody) Close() error {
	b.stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	return b.body.Close()
}

// TransformObject is what a transform is told of an object.
type TransformObject struct {
	Bucket, Key string
	Size        int64 // in bytes; -1 if unknown
	ContentType string
	ETag        string
	// Member is the name within an archive whose members are transformed.
	Member string
	Meta   map[string]string
}

// TransformOutputInfo is what a transform says of an output before it writes.
type TransformOutputInfo struct {
	// Name is empty for the object itself. Others are relative, in Unicode,
	// without empty, "." or ".." elements.
	Name        string
	ContentType string
	// Ext replaces the extension of the object's name; without a dot.
	Ext  string
	Meta map[string]string
}

// TransformOutput takes an output. Either Close or Abort is the last call.
type TransformOutput interface {
	io.Writer
	// Close says that the output is complete. The transform as a whole may still
	// fail: who publishes outputs waits for its result.
	Close() error
	// Abort discards the output. It may be called while Write or Close is
	// running, which then returns.
	Abort(cause error)
}

// TransformOutcome is how a transform of an object ended.
type TransformOutcome int

// The outcomes.
const (
	TransformFailed TransformOutcome = iota
	TransformDone
	// TransformDropped says that the transform wants no output for this object.
	TransformDropped
)

// String is the outcome in a word.
func (o TransformOutcome) String() string {
	switch o {
	case TransformDone:
		return "done"
	case TransformDropped:
		return "dropped"
	default:
		return "failed"
	}
}

// TransformFailure says why a transform failed.
type TransformFailure struct {
	// Class is one word: trap, exit, error, timeout, stalled, output-limit,
	// stack, memory, name.
	Class string
	// Code is the exit code or what the transform returned, if it did.
	Code int32
	// Message is the transform's own, or says what it did.
	Message string
}

// Error implements error.
func (f *TransformFailure) Error() string { return f.Class + ": " + f.Message }

// TransformResult is what came of a call.
type TransformResult struct {
	// Transform has the digest of what ran.
	Transform TransformRef
	Outcome   TransformOutcome
	// Failure is set if the outcome is [TransformFailed].
	Failure *TransformFailure
	// Log is the end of what the transform logged.
	Log string
	// Outputs counts opened outputs; BytesIn is what the transform read,
	// BytesOut what it wrote.
	Outputs           int
	BytesIn, BytesOut int64
	// Queued is the time before the start, Wall that from start to end, and CPU
	// the part of it in which the transform was not waiting.
	Queued, Wall, CPU time.Duration
	// Memory is how large the transform's memory became, in bytes.
	Memory int64
	// Reused says that an instance from the pool was used.
	Reused bool
}
