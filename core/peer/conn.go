package peer

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// readBuffer returns the size in bytes of a connection's read buffer. Frames for
// messages and calls come many at once. Bulk data passes the buffer by, and there
// are many connections for it. Only pongs come to who sends messages.
func readBuffer(k kind, dialled bool) int {
	switch {
	case k == kindStreams:
		return 16 << 10
	case k == kindMessages && dialled:
		return 512
	}
	return packSize
}

// kind is what a connection is for.
type kind uint8

const (
	kindMessages kind = 1
	kindCalls    kind = 2
	kindStreams  kind = 3
	kindAsk      kind = 4 // only asks which node of which cluster is here
)

func (k kind) String() string {
	switch k {
	case kindMessages:
		return "messages"
	case kindCalls:
		return "calls"
	case kindStreams:
		return "streams"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// conn is a connection to another node. One goroutine reads from it, through
// br; any may write whole frames.
type conn struct {
	welcomed []byte // what came with the welcome, of an end that dialled
	t        *Transport
	r        *remote // nil until the other end has proved who it is
	kind     kind
	dialled  bool

	nc  net.Conn // what bytes go through: raw, or TLS over it
	raw net.Conn
	sys syscall.RawConn // of raw, nil if it has none
	br  *bufio.Reader   // set by begin

	wmu sync.Mutex // held while writing frames

	// active says that the other end is expected to show signs of life, as
	// this one does. A stream's connection is active while a stream is open.
	active atomic.Bool
	// hurry asks to give the connection up if a read does not go on.
	hurry   atomic.Bool
	pingDue atomic.Bool

	reads  atomic.Uint64 // odd while a read is under way
	writes atomic.Uint64 // finished writes

	pulse pulseState

	once sync.Once
	done chan struct{} // closed by fail
	why  error         // set before done is closed
}

func newConn(t *Transport, raw net.Conn, k kind, dialled bool) *conn {
	c := &conn{t: t, kind: k, dialled: dialled, nc: raw, raw: raw, done: make(chan struct{})}
	if s, ok := raw.(syscall.Conn); ok {
		if sys, err := s.SyscallConn(); err == nil {
			c.sys = sys
		}
	}
	return c
}

// begin makes c ready for frames, after the handshake.
func (c *conn) begin(r *remote) {
	c.r = r
	c.active.Store(c.kind != kindStreams)
	c.br = bufio.NewReaderSize(c, readBuffer(c.kind, c.dialled))
}

// encrypted says whether bytes pass through TLS.
func (c *conn) encrypted() bool { _, ok := c.nc.(*tls.Conn); return ok }

// Read is for br.
func (c *conn) Read(p []byte) (int, error) {
	c.reads.Add(1)
	n, err := c.nc.Read(p)
	c.reads.Add(1)
	if c.r != nil {
		c.r.received.Add(uint64(n))
	}
	return n, err
}

// Write is for buffers in front of the connection; the caller holds wmu.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.nc.Write(p)
	c.wrote(int64(n))
	return n, err
}

func (c *conn) wrote(n int64) {
	c.writes.Add(1)
	if c.r != nil {
		c.r.sent.Add(uint64(n))
	}
}

// send writes whole frames, which may be cut into parts anywhere. An error ends
// the connection and is the reason for its end.
func (c *conn) send(parts ...[]byte) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return c.sendLocked(parts...)
}

func (c *conn) sendLocked(parts ...[]byte) error {
	bufs := net.Buffers(parts)
	n, err := bufs.WriteTo(c.nc)
	c.wrote(n)
	return c.check(err)
}

// check ends the connection if err is set, and returns why it ended.
func (c *conn) check(err error) error {
	if err == nil {
		return nil
	}
	c.fail(err)
	return c.why
}

// fail ends the connection; the first reason counts.
func (c *conn) fail(err error) {
	c.once.Do(func() {
		if errors.Is(err, io.EOF) {
			err = errHungUp
		}
		c.why = err
		close(c.done)
		if tcp, ok := c.raw.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // what is not sent yet is not wanted any more
		}
		// The raw connection: closing TLS could block on a full socket.
		_ = c.raw.Close()
		c.t.forget(c)
	})
}

// keepAliveCount is the number of the kernel's probes, one a second, that may
// stay without an answer.
func keepAliveCount(timeout time.Duration) int {
	return int(min(max(timeout/time.Second, 2), 100)) - 1
}

// failed returns why the connection ended, nil if it did not.
func (c *conn) failed() error {
	select {
	case <-c.done:
		return c.why
	default:
		return nil
	}
}

// setActive begins or ends a time in which both ends show signs of life.
func (c *conn) setActive(active bool) {
	c.reads.Add(2) // silence until now does not count
	c.active.Store(active)
}

// pulseState belongs to the transport's pulse. It counts ticks instead of time,
// so that a process which was stopped for a while does not take all its peers
// for dead when it goes on.
type pulseState struct {
	reads, writes        uint64
	silent, quiet, pings int
}

// ticksPerPing is the number of the pulse's ticks per Options.Ping.
const ticksPerPing = 4

// tick shows the other end that this one is alive, and ends a connection whose
// other end does not.
func (c *conn) tick() {
	p, o := &c.pulse, &c.t.o
	every := o.Ping / ticksPerPing
	if r := c.reads.Load(); r != p.reads || r%2 == 0 {
		p.reads, p.silent = r, 0
	} else {
		p.silent++
	}
	if w := c.writes.Load(); w != p.writes {
		p.writes, p.quiet = w, 0
	} else {
		p.quiet++
	}
	silent := time.Duration(p.silent) * every
	if !c.active.Load() {
		c.tickIdle(silent)
		return
	}
	if silent >= o.Timeout || c.hurry.Load() && p.silent > 1 {
		c.fail(errSilent)
		return
	}
	if p.pings++; c.dialled && c.kind == kindMessages && p.pings >= ticksPerPing {
		p.pings = 0
		c.pingDue.Store(true)
	}
	if p.quiet >= ticksPerPing || c.pingDue.Load() {
		c.beat()
	}
}

// tickIdle ends a stream's connection that was not used for too long. The
// dialling end does so earlier, so that it does not open a stream on a
// connection that is being closed.
func (c *conn) tickIdle(silent time.Duration) {
	switch {
	case !c.dialled && silent >= 2*c.t.o.IdleTimeout:
		c.fail(errIdle)
	case c.dialled && silent >= c.t.o.IdleTimeout:
		c.r.pool.expire(c)
	}
}

// beat writes a beat, or a ping if one is due, unless that would have to wait:
// then there are other bytes on their way.
func (c *conn) beat() {
	if !c.wmu.TryLock() {
		return
	}
	defer c.wmu.Unlock()
	if c.sys != nil && !writable(c.sys) {
		return
	}
	if c.pingDue.Swap(false) {
		f := pingFrame(framePing, uint64(c.t.o.Clock.Boot()))
		_ = c.sendLocked(f[:])
		return
	}
	var f [frameHead]byte
	putHead(f[:], frameBeat, 0)
	_ = c.sendLocked(f[:])
}
