package peer

import (
	"context"
	"encoding/binary"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalstore/shoal/core"
)

// Handler takes what other nodes send.
type Handler interface {
	// Message takes a message. The messages of one node come one at a time,
	// in the order in which they were sent; while Message does not return,
	// further ones of that node wait, here and, in the end, there. Neither
	// side may change msg.
	Message(from core.NodeID, msg []byte)
	// Peer tells that messages to a node have begun to get through (up), or
	// that the connection is broken and all that waited were dropped. Calls
	// for one node come one at a time and alternate; it begins as down. There
	// is none for this node itself. Once something was sent to a node the
	// transport keeps trying to reach it as long as it has an address.
	Peer(node core.NodeID, up bool)
}

type noHandler struct{}

func (noHandler) Message(core.NodeID, []byte) {}
func (noHandler) Peer(core.NodeID, bool)      {}

// Handle registers the handler of messages.
func (t *Transport) Handle(h Handler) {
	_, none := t.handler.(noHandler)
	t.register("the handler of messages", !none)
	t.handler = h
}

// Send sends a message to a node. It does not wait. Messages to one node arrive
// in the order in which they were sent; those that cannot be delivered now, or
// do not fit into the queue, are dropped and counted, and so are messages
// longer than MaxMessage. Nobody may change msg afterwards.
func (t *Transport) Send(to core.NodeID, msg []byte) {
	r := t.remote(to)
	switch {
	case len(msg) > MaxMessage:
		t.o.Log.Error("message is too long and was dropped",
			slog.String("node", string(to)), slog.Int("bytes", len(msg)))
		r.messagesDropped.Add(1)
	case !t.running():
		r.messagesDropped.Add(1)
	case to == t.o.Self:
		if !t.local.push(newItem(frameMessage, nil, msg), t.o.QueueBytes) {
			r.messagesDropped.Add(1)
		}
	default:
		r.link.send(msg)
	}
}

// deliverLocal hands over the messages of the node to itself.
func (t *Transport) deliverLocal(ctx context.Context) {
	var batch []item
	r := t.remote(t.o.Self)
	for {
		if batch = t.local.take(batch[:0]); len(batch) == 0 {
			select {
			case <-ctx.Done():
				return
			case <-t.local.wake:
				continue
			}
		}
		for i := range batch {
			if ctx.Err() != nil {
				return
			}
			t.handler.Message(t.o.Self, batch[i].body)
			t.local.written(batch[i].size())
			batch[i] = item{}
			r.messagesSent.Add(1)
			r.messagesReceived.Add(1)
		}
	}
}

// link is the connection over which this node sends messages to another one.
type link struct {
	r       *remote
	q       queue
	started atomic.Bool
}

func (l *link) send(msg []byte) {
	if !l.q.push(newItem(frameMessage, nil, msg), l.r.t.o.QueueBytes) {
		l.r.messagesDropped.Add(1)
	}
	if !l.started.Load() && l.started.CompareAndSwap(false, true) && !l.r.t.start(l.run) {
		l.drop()
	}
}

func (l *link) drop() { l.r.messagesDropped.Add(uint64(l.q.drop())) }

// run keeps the connection until ctx ends.
func (l *link) run(ctx context.Context) {
	r, t := l.r, l.r.t
	defer l.drop()
	log := t.o.Log.With(slog.String("node", string(r.id)))
	var said string // the last failure that was logged
	for ctx.Err() == nil {
		if _, ok := t.o.Resolve(r.id); !ok {
			l.drop()
			select {
			case <-l.q.wake: // somebody believes that there is such a node
				r.gate.wait(ctx)
			case <-ctx.Done():
			}
		}
		c, err := t.dial(ctx, r, kindMessages)
		if err != nil {
			l.drop()
			if ctx.Err() == nil && err.Error() != said {
				said = err.Error()
				log.WarnContext(ctx, "peer is not reachable", slog.Any("err", err))
			}
			r.gate.wait(ctx)
			continue
		}
		said = ""
		log.InfoContext(ctx, "peer connected")
		began := t.o.Clock.Boot()
		r.up.Store(true)
		t.handler.Peer(r.id, true)
		err = l.serve(c)
		r.up.Store(false)
		l.drop()
		t.handler.Peer(r.id, false)
		if ctx.Err() != nil {
			return
		}
		log.WarnContext(ctx, "peer lost", slog.Any("err", err))
		if t.o.Clock.Boot().Sub(began) < t.o.Timeout {
			r.gate.failed(err) // one that always hangs up at once
			r.gate.wait(ctx)
		}
	}
}

// serve uses a connection until it ends, and returns why.
func (l *link) serve(c *conn) error {
	r := l.r
	var wg sync.WaitGroup
	wg.Go(func() { c.fail(l.receive(c)) })
	c.transmit(&l.q,
		func(n int) { r.messagesSent.Add(uint64(n)) },
		func(n int) { r.messagesDropped.Add(uint64(n)) })
	wg.Wait()
	return c.why
}

// receive reads the answers to pings.
func (l *link) receive(c *conn) error {
	for {
		t, n, err := c.next()
		if err != nil {
			return err
		}
		var b [pingSize]byte
		if t != framePong {
			return unexpected(t, c.kind)
		}
		if err := c.fixed(b[:], t, n); err != nil {
			return err
		}
		if _, err := c.br.Discard(n - pingSize); err != nil {
			return err
		}
		sent := core.Instant(binary.LittleEndian.Uint64(b[:]))
		l.r.rtt.Store(max(1, int64(l.r.t.o.Clock.Boot().Sub(sent)/time.Nanosecond)))
	}
}

// pingSize is the payload of pings and pongs: a number of the sender's choice.
const pingSize = 8

func pingFrame(t frameType, v uint64) (b [frameHead + pingSize]byte) {
	putHead(b[:], t, pingSize)
	binary.LittleEndian.PutUint64(b[frameHead:], v)
	return b
}

// serveMessages delivers another node's messages until the connection ends.
func (t *Transport) serveMessages(c *conn) error {
	in := &c.r.inbound
	in.replace(c)
	in.turn.Lock() // the connection before this one has delivered its last
	defer in.turn.Unlock()
	for {
		f, n, err := c.next()
		if err != nil {
			return err
		}
		switch f {
		case frameMessage:
			msg, err := c.body(n)
			if err != nil {
				return err
			}
			if err := c.failed(); err != nil {
				return err // what is left is of the past
			}
			c.r.messagesReceived.Add(1)
			t.handler.Message(c.r.id, msg)
		case framePing:
			var b [pingSize]byte
			if err := c.fixed(b[:], f, n); err != nil {
				return err
			}
			if _, err := c.br.Discard(n - pingSize); err != nil {
				return err
			}
			pong := pingFrame(framePong, binary.LittleEndian.Uint64(b[:]))
			if err := c.send(pong[:]); err != nil {
				return err
			}
		default:
			return unexpected(f, c.kind)
		}
	}
}
