package s3gateway

import (
	"io"
	"net/http"
	"time"
)

// A body that is refused while it comes is read a little further, so that its
// client, who is still writing, sees the answer and not a broken connection:
// closing one with bytes unread resets it, and a reset takes the answer along.
const (
	drainBytes  = 16 << 20
	drainWithin = 3 * time.Second
)

// rawBody is a request's body as net/http has it. Reading it asks a client that
// expects 100 to send, so one that was not begun is left alone.
type rawBody struct {
	io.ReadCloser
	begun, ended bool
}

// Read is part of io.Reader.
func (b *rawBody) Read(p []byte) (int, error) {
	b.begun = true
	n, err := b.ReadCloser.Read(p)
	b.ended = b.ended || err != nil
	return n, err
}

// drain reads what is left of a body that was begun, within bounds.
func (q *request) drain() {
	if !q.raw.begun || q.raw.ended {
		return
	}
	if err := http.NewResponseController(q.w).SetReadDeadline(q.clock.Now().Add(drainWithin)); err != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, &q.raw, drainBytes) // what is not read now is lost with the connection
}
