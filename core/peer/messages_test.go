package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

func TestMessagesArriveInOrder(t *testing.T) {
	d := &directory{}
	ids := []core.NodeID{"n1", "n2", "n3"}
	var nodes []*node
	for _, id := range ids {
		nodes = append(nodes, startNode(t, d, id, setup{}))
	}
	const count = 3000
	var want []string
	for i := range count {
		want = append(want, strconv.Itoa(i))
	}
	var wg sync.WaitGroup
	for _, from := range nodes {
		for _, to := range ids { // itself included
			wg.Go(func() {
				for _, m := range want {
					from.Send(to, []byte(m))
				}
			})
		}
	}
	wg.Wait()
	for _, n := range nodes {
		await(t, "all messages", func() bool { return n.in.n.Load() == 3*count })
		for _, from := range ids {
			if got := n.in.from(from); !slices.Equal(got, want) {
				t.Errorf("messages from %s: got %d, out of order or not the ones sent", from, len(got))
			}
		}
	}
	for _, to := range ids[1:] {
		s := statsOf(nodes[0], to)
		if s.MessagesSent != count || s.MessagesReceived != count || s.MessagesDropped != 0 || s.Queued != 0 || !s.Up {
			t.Errorf("figures of %s: %+v, want %d sent and received, none dropped or queued", to, s, count)
		}
	}
}

func TestMessageOfAnySize(t *testing.T) {
	d := &directory{}
	a, b := startNode(t, d, "n1", setup{}), startNode(t, d, "n2", setup{})
	sizes := []int{0, 1, packSize - frameHead, packSize, 1<<20 + 1, MaxMessage, MaxMessage + 1, 2}
	for _, n := range sizes {
		a.Send("n2", make([]byte, n))
	}
	sizes = slices.DeleteFunc(sizes, func(n int) bool { return n > MaxMessage })
	await(t, "all messages", func() bool { return b.in.n.Load() == int64(len(sizes)) })
	for i, m := range b.in.from("n1") {
		if len(m) != sizes[i] {
			t.Errorf("message %d: got %d bytes, want %d", i, len(m), sizes[i])
		}
	}
	if got := statsOf(a, "n2").MessagesDropped; got != 1 {
		t.Errorf("dropped: got %d, want 1, the one that is too long", got)
	}
}

// startSlow runs a node whose handler waits for the release.
func startSlow(t *testing.T, d *directory, id core.NodeID, options func(*Options)) (n *node, release func()) {
	wait, open := barrier(t)
	n = startNode(t, d, id, setup{options: options, message: func(core.NodeID, []byte) { wait() }})
	return n, open
}

// A node that does not take messages holds up nobody, and costs no more memory
// than the queue may have.
func TestQueueIsBounded(t *testing.T) {
	d := &directory{}
	const limit = 1 << 20
	a := startNode(t, d, "n1", setup{options: func(o *Options) { o.QueueBytes = limit }})
	b, release := startSlow(t, d, "n2", nil)
	c := startNode(t, d, "n3", setup{})
	const size, count = 64 << 10, 400 // more than all the buffers in between
	for i := range count {
		m := make([]byte, size)
		copy(m, fmt.Sprintf("%06d", i))
		a.Send("n2", m)
		if q := statsOf(a, "n2").Queued; q > limit {
			t.Fatalf("queued: got %d bytes, want at most %d", q, limit)
		}
	}
	a.Send("n3", []byte("hello"))
	await(t, "a message to another node", func() bool { return c.in.got("n1", "hello") })
	dropped := statsOf(a, "n2").MessagesDropped
	if dropped == 0 {
		t.Fatal("nothing was dropped")
	}
	release()
	await(t, "the rest", func() bool { return b.in.n.Load() == count-int64(dropped) })
	if !slices.IsSorted(b.in.from("n1")) {
		t.Error("messages are out of order")
	}
}

func TestQueueToSelfIsBounded(t *testing.T) {
	d := &directory{}
	a, release := startSlow(t, d, "n1", func(o *Options) { o.QueueBytes = 1000 })
	for range 100 {
		a.Send("n1", make([]byte, 100))
	}
	s := statsOf(a, "n1")
	release()
	await(t, "the rest", func() bool { return a.in.n.Load() == 100-int64(s.MessagesDropped) })
	if got := 100 - s.MessagesDropped; got < 5 || got > 15 {
		t.Errorf("taken: got %d messages of 100 bytes, want about ten", got)
	}
}

// When a connection breaks, what was on its way may be lost; nothing comes
// twice or late.
func TestMessagesLostWithTheConnection(t *testing.T) {
	d := &directory{}
	a, b := startNode(t, d, "n1", setup{}), startNode(t, d, "n2", setup{})
	p := newProxy(t, b.addr)
	d.set("n2", p.addr())
	next := 0
	send := func(n int) {
		for range n {
			a.Send("n2", fmt.Appendf(make([]byte, 0, 1000), "%08d", next))
			next++
		}
	}
	for round := range 5 {
		// Until a message of this round gets through.
		first := next
		send(1)
		await(t, "connection", func() bool {
			if a.in.up("n2") {
				send(1)
			}
			got := b.in.from("n1")
			return len(got) > 0 && got[len(got)-1] >= fmt.Sprintf("%08d", first)
		})
		send(2000)
		p.cut()
		await(t, "news of the loss", func() bool { return len(a.in.changes("n2")) >= 2*round+2 })
	}
	a.stop()
	got := b.in.from("n1")
	if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
		t.Error("messages came out of order or twice")
	}
	for i, up := range a.in.changes("n2") {
		if up != (i%2 == 0) {
			t.Fatalf("calls of Peer: got %v, want up and down in turn", a.in.changes("n2"))
		}
	}
	if a.in.up("n2") {
		t.Error("the last call of Peer says up, want down once Run has ended")
	}
}

// When Peer says down, nothing is left in the queue.
func TestQueueIsDroppedWithTheConnection(t *testing.T) {
	d := &directory{}
	left := make(chan int64, 10)
	var a *node
	ready, open := barrier(t)
	a = startNode(t, d, "n1", setup{peer: func(_ core.NodeID, up bool) {
		if ready(); !up {
			left <- statsOf(a, "n2").Queued
		}
	}})
	open()
	b, _ := startSlow(t, d, "n2", nil)
	p := newProxy(t, b.addr)
	d.set("n2", p.addr())
	await(t, "a queue", func() bool { // more than all the buffers in between
		a.Send("n2", make([]byte, 256<<10))
		return a.in.up("n2") && statsOf(a, "n2").Queued > 32<<20
	})
	p.cut()
	if n := recv(t, "down", left); n != 0 {
		t.Errorf("queued when told of the loss: got %d bytes, want none", n)
	}
}

// A node that connects anew is heard at once, even if its last connection has
// not been found dead, and nothing comes late over that.
func TestNewConnectionReplacesTheLast(t *testing.T) {
	d := &directory{}
	a := startNode(t, d, "n1", setup{options: brief})
	wait, release := barrier(t)
	b := startNode(t, d, "n2", setup{
		options: func(o *Options) { o.Timeout = time.Hour },
		message: func(core.NodeID, []byte) { wait() },
	})
	p := newProxy(t, b.addr)
	d.set("n2", p.addr())
	a.Send("n2", []byte("one"))
	a.Send("n2", []byte("two"))
	count := func() (n int) {
		for _, c := range b.snapshot(nil) {
			if c.kind == kindMessages {
				n++
			}
		}
		return n
	}
	await(t, "a connection", func() bool { return count() == 1 && statsOf(a, "n2").MessagesSent == 2 })
	old := b.snapshot(nil)[0]
	p.freeze()
	d.set("n2", b.addr)
	await(t, "the end of the old connection", func() bool { return old.failed() != nil })
	await(t, "the new connection", func() bool { return a.in.up("n2") && count() == 1 })
	a.Send("n2", []byte("three"))
	release()
	await(t, "the message of the new connection", func() bool { return b.in.got("n1", "three") })
	if got := b.in.from("n1"); !slices.Equal(got, []string{"one", "three"}) {
		t.Errorf("messages: got %q, want the one being handled, and the new one", got)
	}
}

// A node that comes back, even elsewhere, is reached again without being sent
// anything.
func TestReconnect(t *testing.T) {
	d := &directory{}
	a, b := startNode(t, d, "n1", setup{}), startNode(t, d, "n2", setup{})
	a.Send("n2", []byte("one"))
	await(t, "first message", func() bool { return b.in.got("n1", "one") })
	b.stop()
	await(t, "down", func() bool { return !a.in.up("n2") })
	a.Send("n2", []byte("lost"))
	await(t, "drop", func() bool { return statsOf(a, "n2").MessagesDropped > 0 })
	if s := statsOf(a, "n2"); s.Up || s.LastError == "" {
		t.Errorf("figures: %+v, want down and a reason", s)
	}
	b = startNode(t, d, "n2", setup{})
	await(t, "up again", func() bool { return a.in.up("n2") })
	a.Send("n2", []byte("two"))
	await(t, "second message", func() bool { return b.in.got("n1", "two") })
	if b.in.got("n1", "lost") {
		t.Error("a message came that was sent while the node was down")
	}
}

// The back-off ends when the other node calls.
func TestReconnectAtOnce(t *testing.T) {
	d := &directory{}
	slow := func(o *Options) { o.BackoffMin, o.BackoffMax = time.Hour, time.Hour }
	a := startNode(t, d, "n1", setup{options: slow})
	free := testOptions(t, d, "n2")
	d.set("n2", free.Listener.Addr().String())
	_ = free.Listener.Close()
	a.Send("n2", []byte("lost"))
	await(t, "drop", func() bool { return statsOf(a, "n2").MessagesDropped == 1 })
	_, err := a.Call(t.Context(), "n2", 1, nil)
	wantIs(t, err, core.ErrUnavailable, ErrNotSent)
	if n := statsOf(a, "n2").DialFailures; n != 1 {
		t.Errorf("failed dials: got %d, want 1, the call being spared one", n)
	}
	b := startNode(t, d, "n2", setup{})
	b.Send("n1", []byte("I am back"))
	await(t, "up", func() bool { return a.in.up("n2") })
	a.Send("n2", []byte("two"))
	await(t, "second message", func() bool { return b.in.got("n1", "two") })
}

func TestUnknownNode(t *testing.T) {
	d := &directory{}
	a := startNode(t, d, "n1", setup{})
	a.Send("n2", []byte("lost"))
	await(t, "drop", func() bool { return statsOf(a, "n2").MessagesDropped == 1 })
	_, err := a.Call(t.Context(), "n2", 1, nil)
	wantIs(t, err, core.ErrUnavailable, ErrNotSent)
	b := startNode(t, d, "n2", setup{})
	await(t, "message", func() bool {
		a.Send("n2", []byte("hello"))
		return b.in.got("n1", "hello")
	})
}

// A peer that shows no sign of life, like a machine without power, is given up
// after the time-out; pings alone keep a quiet connection.
func TestSilentPeer(t *testing.T) {
	t.Parallel()
	d := &directory{}
	a, b := startNode(t, d, "n1", setup{options: brief}), startNode(t, d, "n2", setup{options: brief})
	p := newProxy(t, b.addr)
	d.set("n2", p.addr())
	a.Send("n2", []byte("one"))
	await(t, "a ping", func() bool { return statsOf(a, "n2").RTT > 0 })
	outlast(t, a)
	if got := a.in.changes("n2"); !slices.Equal(got, []bool{true}) {
		t.Fatalf("calls of Peer while quiet: got %v, want one, up", got)
	}
	began := time.Now()
	p.freeze()
	await(t, "down", func() bool { return !a.in.up("n2") })
	if took := time.Since(began); took < time.Second/2 {
		t.Errorf("given up after %v, want about the time-out, 1 s", took)
	}
	// The far end gives the connection up, too.
	await(t, "the far end's notice", func() bool {
		for _, c := range b.snapshot(nil) {
			if c.kind == kindMessages {
				return false
			}
		}
		return true
	})
	p.thaw()
	p.cut()
	await(t, "up again", func() bool { return a.in.up("n2") })
}

// A handler that takes its time is not a dead node.
func TestSlowHandlerKeepsTheConnection(t *testing.T) {
	t.Parallel()
	d := &directory{}
	a := startNode(t, d, "n1", setup{options: brief})
	startSlow(t, d, "n2", brief)
	a.Send("n2", []byte("one"))
	a.Send("n2", []byte("two"))
	await(t, "up", func() bool { return a.in.up("n2") })
	outlast(t, a)
	if got := a.in.changes("n2"); !slices.Equal(got, []bool{true}) {
		t.Fatalf("calls of Peer: got %v, want one, up", got)
	}
}

// A listener that accepts and never says a word.
func TestMuteListener(t *testing.T) {
	d := &directory{}
	a := startNode(t, d, "n1", setup{options: func(o *Options) { o.DialTimeout = 100 * time.Millisecond }})
	mute := testOptions(t, d, "n2").Listener
	t.Cleanup(func() { _ = mute.Close() })
	d.set("n2", mute.Addr().String())
	a.Send("n2", []byte("lost"))
	_, err := a.Call(t.Context(), "n2", 1, nil)
	wantIs(t, err, core.ErrUnavailable, ErrNotSent)
	wantNot(t, err, context.DeadlineExceeded, context.Canceled)
	await(t, "drop", func() bool { return statsOf(a, "n2").MessagesDropped == 1 })
	// One's own patience may end earlier.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = a.Call(ctx, "n2", 1, nil)
	wantIs(t, err, context.Canceled, ErrNotSent)
	wantNot(t, err, core.ErrUnavailable)
}

// The end of the time to connect is not that of the caller's patience.
func TestNoWayToTheNode(t *testing.T) {
	d := &directory{}
	d.set("n2", "192.0.2.1:1")
	a := startNode(t, d, "n1", setup{options: func(o *Options) {
		o.DialTimeout = 20 * time.Millisecond
		o.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
	}})
	_, err := a.Call(t.Context(), "n2", 1, nil)
	wantIs(t, err, core.ErrUnavailable, ErrNotSent)
	wantNot(t, err, context.DeadlineExceeded, context.Canceled)
	await(t, "the end of the back-off", func() bool {
		_, err = a.OpenWrite(t.Context(), "n2", 1, nil, true)
		return statsOf(a, "n2").DialFailures > 1
	})
	wantIs(t, err, core.ErrUnavailable, ErrNotSent)
	wantNot(t, err, context.DeadlineExceeded, context.Canceled)
	ended := make(chan error, 1)
	await(t, "the end of the back-off", func() bool { return a.remote("n2").gate.check() == nil })
	a.o.DialTimeout = time.Hour
	go func() {
		_, err := a.Call(t.Context(), "n2", 1, nil)
		ended <- err
	}()
	await(t, "a call", func() bool { return statsOf(a, "n2").Calls == 1 })
	a.stop()
	err = recv(t, "its end", ended)
	wantIs(t, err, core.ErrUnavailable, ErrNotSent)
	wantNot(t, err, context.DeadlineExceeded, context.Canceled)
}

func TestBlockOneWay(t *testing.T) {
	d := &directory{}
	echo := setup{transport: func(t *Transport) {
		t.HandleCall(1, func(_ context.Context, _ core.NodeID, req []byte) ([]byte, error) { return req, nil })
	}}
	a, b := startNode(t, d, "n1", echo), startNode(t, d, "n2", echo)
	both := func(round string) {
		t.Helper()
		await(t, "messages both ways", func() bool {
			a.Send("n2", []byte(round))
			b.Send("n1", []byte(round))
			return b.in.got("n1", round) && a.in.got("n2", round)
		})
	}
	both("before")
	for _, cut := range []struct {
		name string
		do   func(bool)
	}{
		{"outbound at n1", func(on bool) { a.Block("n2", false, on) }},
		{"inbound at n2", func(on bool) { b.Block("n1", on, false) }},
	} {
		cut.do(true)
		await(t, cut.name+": down", func() bool { return !a.in.up("n2") })
		a.Send("n2", []byte(cut.name))
		_, err := a.Call(t.Context(), "n2", 1, nil)
		wantIs(t, err, core.ErrUnavailable, ErrNotSent)
		if got, err := b.Call(t.Context(), "n1", 1, []byte("x")); err != nil || string(got) != "x" {
			t.Errorf("%s: call the other way: got %q, %v, want it to work", cut.name, got, err)
		}
		failed := statsOf(a, "n2").DialFailures
		await(t, cut.name+": attempts to connect", func() bool { return statsOf(a, "n2").DialFailures > failed+1 })
		b.Send("n1", []byte(cut.name))
		await(t, cut.name+": message the other way", func() bool { return a.in.got("n2", cut.name) })
		if b.in.got("n1", cut.name) {
			t.Errorf("%s: a message got through", cut.name)
		}
		cut.do(false)
		both("after " + cut.name)
	}
}

func TestRunEnds(t *testing.T) {
	d := &directory{}
	a, b := startNode(t, d, "n1", setup{}), startNode(t, d, "n2", setup{})
	a.Send("n2", []byte("one"))
	await(t, "message", func() bool { return b.in.got("n1", "one") })
	a.stop()
	a.Send("n2", []byte("two"))
	a.Send("n1", []byte("two"))
	if got := statsOf(a, "n2").MessagesDropped; got != 1 {
		t.Errorf("dropped after the end: got %d, want 1", got)
	}
	_, err := a.Call(t.Context(), "n2", 1, nil)
	wantIs(t, err, core.ErrUnavailable, ErrNotSent)
	_, err = a.OpenWrite(t.Context(), "n2", 1, nil, false)
	wantIs(t, err, core.ErrUnavailable, ErrNotSent)
	if err := a.Run(t.Context()); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("second Run: got %v, want %v", err, core.ErrInvalid)
	}
}

func TestListenerFails(t *testing.T) {
	o := testOptions(t, &directory{}, "n1")
	tr, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	_ = o.Listener.Close()
	if err := tr.Run(t.Context()); err == nil {
		t.Error("Run with a closed listener: got no error")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for name, spoil := range map[string]func(*Options){
		"cluster":  func(o *Options) { o.Cluster = "" },
		"self":     func(o *Options) { o.Self = "Not a name" },
		"secret":   func(o *Options) { o.Secret = o.Secret[:MinSecret-1] },
		"listener": func(o *Options) { o.Listener = nil },
		"resolve":  func(o *Options) { o.Resolve = nil },
		"clock":    func(o *Options) { o.Clock = nil },
		"timeout":  func(o *Options) { o.Timeout = o.Ping },
	} {
		o := testOptions(t, &directory{}, "n1")
		_ = o.Listener.Close()
		spoil(&o)
		if _, err := New(o); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%s: got %v, want %v", name, err, core.ErrInvalid)
		}
	}
}
