package peer

import (
	"bytes"
	"context"
	"net"
	"slices"
	"testing"

	"github.com/shoalstore/shoal/core"
)

// role is what one end of a connection does.
type role byte

const (
	takesMessages role = iota
	sendsMessages
	takesCalls
	makesCalls
	servesStreams
	readsStream
	writesStream
)

func (r role) kind() kind {
	switch r {
	case takesMessages, sendsMessages:
		return kindMessages
	case takesCalls, makesCalls:
		return kindCalls
	}
	return kindStreams
}

// FuzzFrames lets a node that has proved itself say anything, to each role. The
// connection ends, with a reason and without anything left open.
func FuzzFrames(f *testing.F) {
	seed := func(r role, parts ...[]byte) { f.Add(slices.Concat(parts...), byte(r)) }
	head := func(t frameType, n int) []byte { return appendHead(nil, t, n) }
	req := newItem(frameRequest, make([]byte, requestPrefix), []byte("hello"))
	ping, pong := pingFrame(framePing, 1), pingFrame(framePong, 1)
	seed(takesMessages, head(frameMessage, 2), []byte("hi"), ping[:])
	seed(sendsMessages, pong[:])
	seed(takesCalls, req.head[:req.n], req.body, head(frameCancel, 8), make([]byte, 8))
	seed(makesCalls, head(frameReply, 8), make([]byte, 8))
	seed(makesCalls, errorFrame(frameFailure, make([]byte, 8), core.ErrConflict))
	seed(servesStreams, openWrite{7, true, []byte("y")}.append(nil), head(frameData, 3), []byte("abc"), head(frameCommit, 0))
	seed(servesStreams, openWrite{8, false, []byte("y")}.append(nil), head(frameAbort, 0))
	read := readRequest{1, 1, 2}.frame()
	seed(servesStreams, openRead{7, Range{0, 10}, []byte("x")}.append(nil), read[:], head(frameClose, 0))
	seed(servesStreams, openRead{7, Range{0, 1}, []byte("x")}.append(nil), read[:])
	seed(servesStreams, openWrite{FirstReserved, false, make([]byte, createSize)}.append(nil))
	var data [frameHead + bytesPrefix]byte
	putBytesPrefix(data[:], 0, flagLast|flagEOF, 3)
	seed(readsStream, head(frameMeta, 2), []byte{1, 'm'}, data[:], []byte("abc"))
	putBytesPrefix(data[:], 0, flagLast, 3)
	seed(readsStream, head(frameMeta, 2), []byte{0, 'm'}, data[:], []byte("abc"))
	seed(readsStream, errorFrame(frameFailed, nil, core.ErrCorrupt))
	seed(writesStream, head(frameReady, 0), head(frameDone, 2), []byte("ok"))
	seed(writesStream, errorFrame(frameFailed, nil, core.ErrNoSpace))
	f.Fuzz(func(t *testing.T, in []byte, as byte) {
		tr := deaf(t)
		vault := &bank{}
		vault.put("x", []byte("something"))
		tr.HandleStream(7, vault)
		echoServer(tr)
		tr.state = stateRunning
		r := role(as) % (writesStream + 1)
		dialled := r == sendsMessages || r == makesCalls || r >= readsStream
		other := &script{in: bytes.NewReader(in)}
		if r >= readsStream {
			other.asked = make(chan struct{})
		}
		c := newConn(tr, other, r.kind(), dialled)
		c.begin(tr.remote("n1"))
		if err := tr.keep(c); err != nil {
			t.Fatal(err)
		}
		speak(t, r, c)
		if sinks, sources, _, _ := vault.state(); sinks != 0 || sources != 0 {
			t.Errorf("left open: %d sinks, %d sources", sinks, sources)
		}
		if n := len(c.r.pool.slots); n != 0 {
			t.Errorf("left open: %d streams", n)
		}
	})
}

// deaf returns a transport that does not listen.
func deaf(t *testing.T) *Transport {
	tr, err := New(Options{
		Cluster: "c1", Self: "n2", Secret: []byte(testSecret),
		Listener: struct{ net.Listener }{}, Resolve: (&directory{}).resolve, Clock: clock{},
	})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// speak plays a role on a connection until it ends.
func speak(t *testing.T, r role, c *conn) {
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var err error
	switch r {
	case sendsMessages:
		err = c.r.link.receive(c)
	case takesMessages:
		err = c.t.serveMessages(c)
	case makesCalls:
		cc := &callConn{c: c, pending: map[uint64]*pending{0: {done: make(chan struct{})}}}
		err = cc.receive()
	case takesCalls:
		err = c.t.serveCalls(ctx, c, cancel)
	case servesStreams:
		err = c.t.serveStreams(ctx, c, cancel)
	default:
		sc := &streamConn{c: c}
		c.r.pool.slots <- struct{}{}
		done := make(chan struct{})
		go func() { defer close(done); sc.receive() }()
		if r == readsStream {
			readAll(t, sc)
		} else {
			writeAll(t, sc)
		}
		<-done
		return
	}
	c.fail(err)
	if err == nil {
		t.Error("the connection ended without a reason")
	}
}

func readAll(t *testing.T, sc *streamConn) {
	s, err := openReadStream(t.Context(), sc, openRead{7, Range{0, 16}, nil})
	if err != nil {
		return
	}
	if n, err := s.ReadAt(t.Context(), make([]byte, 16), 0); n != 16 && err == nil {
		t.Errorf("read: got %d bytes and no error, want 16 or an error", n)
	}
	_ = s.Close()
}

func writeAll(t *testing.T, sc *streamConn) {
	w := newWriteStream(t.Context(), sc, openWrite{7, true, nil})
	if err := w.confirmed(); err == nil {
		if n, err := w.Write(make([]byte, 100_000)); n != 100_000 && err == nil {
			t.Errorf("write: took %d bytes without an error, want all", n)
		}
		_, _ = w.Commit(t.Context())
	}
	_ = w.Close()
}
