package s3gateway

import (
	"context"
	"io"
	"net"
)

// net/http gathers 4 KiB of an answer before it writes, so the head of an answer
// and a large body leave in two writes: the client is woken, for little, and then
// again. Connections that come by way of [Listen] can put the two together.

const (
	// gathered is how much net/http gathers.
	gathered = 4 << 10
	// worthHolding is the size of a body's first piece, in bytes, of which
	// enough is left behind what is gathered to be written at once.
	worthHolding = 2 * gathered
)

// Listen returns a listener whose connections an [http.Server] should serve with
// [ConnContext]. It is for plain TCP; others are left as they are.
func Listen(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

// Accept is part of net.Listener.
func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok && err == nil {
		return &conn{TCPConn: tcp}, nil
	}
	return c, err
}

type connKey struct{}

// ConnContext is the ConnContext of the server.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if own, ok := c.(*conn); ok {
		return context.WithValue(ctx, connKey{}, own)
	}
	return ctx
}

// connOf returns the connection that a request came by, nil if that is not one
// of Listen's.
func connOf(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}

// conn can hold back what is written for the next write to take along. Only the
// handler that writes the answer uses it.
type conn struct {
	*net.TCPConn
	holding bool
	held    []byte
	memory  [gathered]byte
}

// hold makes the next write wait for the one behind it, if it is small.
func (c *conn) hold() { c.holding = true }

// release writes what is held still.
func (c *conn) release() error {
	c.holding = false
	if len(c.held) == 0 {
		return nil
	}
	_, err := c.TCPConn.Write(c.held)
	c.held = nil
	return err
}

// Write implements [io.Writer].
func (c *conn) Write(p []byte) (int, error) {
	holding := c.holding
	c.holding = false
	if holding && len(p) <= gathered {
		c.held = append(c.memory[:0], p...)
		return len(p), nil
	}
	if len(c.held) == 0 {
		return c.TCPConn.Write(p)
	}
	both := net.Buffers{c.held, p}
	n, err := both.WriteTo(c.TCPConn)
	n -= int64(len(c.held))
	c.held = nil
	return int(max(n, 0)), err
}

// ReadFrom implements [io.ReaderFrom]: files are sent by the kernel.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	if err := c.release(); err != nil {
		return 0, err
	}
	return c.TCPConn.ReadFrom(r)
}
