package natsbus

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

// proxy stands between a client and a server and can withhold what the server
// says.
type proxy struct {
	listener net.Listener
	to       string
	mute     atomic.Bool
	wg       sync.WaitGroup
	mu       sync.Mutex
	conns    []net.Conn
}

func newProxy(t testing.TB, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, to: to}
	p.wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			p.wg.Go(func() { _, _ = io.Copy(out, in); _ = out.Close() })
			p.wg.Go(func() {
				buf := make([]byte, 32<<10)
				for {
					n, err := out.Read(buf)
					if err == nil && !p.mute.Load() {
						_, err = in.Write(buf[:n])
					}
					if err != nil {
						_ = in.Close()
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); p.cut(); p.wg.Wait() })
	return p
}

// cut closes all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

// TestUnknownOutcome loses the answers to writes that were carried out.
func TestUnknownOutcome(t *testing.T) {
	t.Parallel()
	b := newTestBus(t, 1)
	b.start()
	b.ready()
	direct := b.client("direct")
	p := newProxy(t, b.members[0].Client)
	c, err := Connect(ClientOptions{
		URLs: []string{"nats://" + p.listener.Addr().String()}, Generation: 1, Cluster: b.cluster, Name: "c", Logger: testLog(t, "c"),
		Credentials: Credentials{User: testUser, Password: testPassword},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	ctx := within(t, 60*time.Second)
	rev, err := c.Map().Create(ctx, []byte("1"))
	if err != nil {
		t.Fatal(err)
	}

	// No answer before the ctx ends: it may have been written, and it was.
	p.mute.Store(true)
	_, err = c.Map().CompareAndSet(within(t, 500*time.Millisecond), []byte("2"), rev)
	if !errors.Is(err, core.ErrUnknownOutcome) || errors.Is(err, core.ErrConflict) || errors.Is(err, core.ErrUnavailable) {
		t.Errorf("no answer: got %v, want %v only", err, core.ErrUnknownOutcome)
	}
	v, rev, err := direct.Map().Load(ctx)
	if err != nil || string(v) != "2" {
		t.Fatalf("after no answer: got %q, %v, want 2", v, err)
	}

	// The connection breaks and comes back: the repeated write is known as the
	// one that was carried out, and returns its revision.
	done := make(chan error, 1)
	go func() {
		got, err := c.Map().CompareAndSet(ctx, []byte("3"), rev)
		if _, want, lost := direct.Map().Load(ctx); err == nil && (lost != nil || got != want) {
			err = fmt.Errorf("got revision %d, want that of the first attempt, %d (%w)", got, want, lost)
		}
		done <- err
	}()
	eventually(t, 20*time.Second, "the first attempt to be carried out", func() error {
		if v, _, err := direct.Map().Load(ctx); err != nil || string(v) != "3" {
			return errors.Join(err, errors.New(string(v)))
		}
		return nil
	})
	p.mute.Store(false)
	p.cut()
	if err := <-done; err != nil {
		t.Errorf("a write whose answer was lost and that was repeated: %v", err)
	}

	// As before, but another write has followed when it is repeated.
	_, rev, err = direct.Map().Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p.mute.Store(true)
	go func() {
		_, err := c.Map().CompareAndSet(ctx, []byte("4"), rev)
		done <- err
	}()
	eventually(t, 20*time.Second, "the first attempt to be carried out", func() error {
		v, r, err := direct.Map().Load(ctx)
		if err != nil || string(v) != "4" {
			return errors.Join(err, errors.New(string(v)))
		}
		_, err = direct.Map().CompareAndSet(ctx, []byte("5"), r)
		return err
	})
	p.mute.Store(false)
	p.cut()
	if err := <-done; err != nil && !errors.Is(err, core.ErrUnknownOutcome) {
		t.Errorf("a write that another followed: got %v, want success or %v", err, core.ErrUnknownOutcome)
	}
	if v, _, err := direct.Map().Load(ctx); err != nil || string(v) != "5" {
		t.Errorf("the repetition overwrote a later value: got %q, %v, want 5", v, err)
	}
}

// TestOutage checks what calls return while no server is there.
func TestOutage(t *testing.T) {
	t.Parallel()
	b := newTestBus(t, 1)
	b.start()
	b.ready()
	c := b.client("c")
	ctx := within(t, 30*time.Second)
	rev, err := c.Map().Create(ctx, []byte("1"))
	if err != nil {
		t.Fatal(err)
	}
	b.stop("n1")
	eventually(t, 10*time.Second, "the client to notice", func() error {
		if _, err := c.Connected(); err == nil {
			return errors.New("connected")
		}
		return nil
	})
	_, err = c.Map().CompareAndSet(within(t, 300*time.Millisecond), []byte("2"), rev)
	if !errors.Is(err, core.ErrUnavailable) || errors.Is(err, core.ErrUnknownOutcome) {
		t.Errorf("write in an outage: got %v, want %v: nothing was sent", err, core.ErrUnavailable)
	}
	if _, _, err := c.Map().Load(within(t, 300*time.Millisecond)); !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("load in an outage: got %v, want %v", err, core.ErrUnavailable)
	}
	b.start()
	if _, err := c.Map().CompareAndSet(ctx, []byte("2"), rev); err != nil {
		t.Errorf("write after the outage: %v", err)
	}
}
