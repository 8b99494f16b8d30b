package peer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

func TestCalls(t *testing.T) {
	d := &directory{}
	serve := setup{transport: func(tr *Transport) {
		tr.HandleCall(1, func(_ context.Context, from core.NodeID, req []byte) ([]byte, error) {
			return append([]byte(from+":"), req...), nil
		})
		tr.HandleCall(2, func(context.Context, core.NodeID, []byte) ([]byte, error) { return nil, nil })
	}}
	a := startNode(t, d, "n1", serve)
	startNode(t, d, "n2", serve)
	for _, to := range []core.NodeID{"n1", "n2"} {
		for _, n := range []int{0, 1, 100_000, MaxMessage - 3} {
			req := bytes.Repeat([]byte{7}, n)
			got, err := a.Call(t.Context(), to, 1, req)
			if err != nil || string(got[:3]) != "n1:" || !bytes.Equal(got[3:], req) {
				t.Errorf("call of %s with %d bytes: got %d bytes, %v", to, n, len(got), err)
			}
		}
		if got, err := a.Call(t.Context(), to, 2, nil); len(got) != 0 || err != nil {
			t.Errorf("empty answer of %s: got %q, %v", to, got, err)
		}
		_, err := a.Call(t.Context(), to, 1, make([]byte, MaxMessage))
		wantIs(t, err, core.ErrTooLarge) // the answer
		wantNot(t, err, ErrNotSent)
		_, err = a.Call(t.Context(), to, 1, make([]byte, MaxMessage+1))
		wantIs(t, err, core.ErrTooLarge, ErrNotSent)
		_, err = a.Call(t.Context(), to, 3, nil)
		wantIs(t, err, core.ErrInvalid, ErrNotSent)
		if err == nil || !strings.Contains(err.Error(), "method 3 is not known to node "+string(to)) {
			t.Errorf("unknown method: got %v", err)
		}
	}
}

// Many calls at once, answered in any order, over one connection.
func TestConcurrentCalls(t *testing.T) {
	d := &directory{}
	var most, now atomic.Int64
	a := startNode(t, d, "n1", setup{options: func(o *Options) { o.MaxCalls = 200 }})
	startNode(t, d, "n2", setup{
		options: func(o *Options) { o.MaxHandlers, o.MaxCalls = 16, 200 },
		transport: func(tr *Transport) {
			tr.HandleCall(1, func(ctx context.Context, _ core.NodeID, req []byte) ([]byte, error) {
				n := now.Add(1)
				defer now.Add(-1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				d := time.Duration(binary.LittleEndian.Uint32(req)%7) * 100 * time.Microsecond
				return req, (clock{}).Wait(ctx, d)
			})
		},
	})
	var wg sync.WaitGroup
	for g := range 400 {
		wg.Go(func() {
			for i := range 20 {
				req := binary.LittleEndian.AppendUint32(nil, uint32(g*1000+i))
				got, err := a.Call(t.Context(), "n2", 1, req)
				if err != nil || !bytes.Equal(got, req) {
					t.Errorf("call %d of %d: got %v, %v", i, g, got, err)
				}
			}
		})
	}
	wg.Wait()
	if m := most.Load(); m != 16 {
		t.Errorf("served at once: got up to %d, want 16", m)
	}
	s := statsOf(a, "n2")
	if s.CallsMade != 8000 || s.CallsFailed != 0 || s.Calls != 0 || s.Dials != 1 {
		t.Errorf("figures: %+v, want 8000 calls over one connection", s)
	}
}

// A call that takes long holds up neither other calls nor messages.
func TestSlowCall(t *testing.T) {
	d := &directory{}
	wait, release := barrier(t)
	a := startNode(t, d, "n1", setup{})
	b := startNode(t, d, "n2", setup{transport: func(tr *Transport) {
		echoServer(tr)
		tr.HandleCall(2, func(context.Context, core.NodeID, []byte) ([]byte, error) { wait(); return []byte("done"), nil })
	}})
	slow := make(chan string, 1)
	go func() {
		got, err := a.Call(t.Context(), "n2", 2, nil)
		slow <- fmt.Sprint(string(got), err)
	}()
	await(t, "the slow call", func() bool { return statsOf(b, "n1").CallsServed == 1 })
	if _, err := a.Call(t.Context(), "n2", 1, nil); err != nil {
		t.Error(err)
	}
	a.Send("n2", []byte("hello"))
	await(t, "message", func() bool { return b.in.got("n1", "hello") })
	release()
	if got := recv(t, "the slow answer", slow); got != "done<nil>" {
		t.Errorf("slow call: got %s", got)
	}
}

func TestCallCancelled(t *testing.T) {
	d := &directory{}
	began, ended := make(chan struct{}, 10), make(chan error, 10)
	a := startNode(t, d, "n1", setup{})
	b := startNode(t, d, "n2", setup{
		options: func(o *Options) { o.MaxHandlers = 1 },
		transport: func(tr *Transport) {
			echoServer(tr)
			tr.HandleCall(2, func(ctx context.Context, _ core.NodeID, _ []byte) ([]byte, error) {
				began <- struct{}{}
				<-ctx.Done()
				ended <- ctx.Err()
				return nil, ctx.Err()
			})
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 2)
	for range 2 { // the second waits for the first
		go func() {
			_, err := a.Call(ctx, "n2", 2, nil)
			errs <- err
		}()
	}
	recv(t, "a call served", began)
	cancel()
	for range 2 {
		err := recv(t, "the end of a call", errs)
		wantIs(t, err, context.Canceled)
		wantNot(t, err, core.ErrUnavailable)
	}
	if err := recv(t, "the end of the handler", ended); !errors.Is(err, context.Canceled) {
		t.Errorf("handler's ctx: got %v, want %v", err, context.Canceled)
	}
	// The one handler is free again, and the call that waited was not served.
	if _, err := a.Call(t.Context(), "n2", 1, nil); err != nil {
		t.Error(err)
	}
	if n := statsOf(b, "n1").CallsServed; n > 3 || len(began) > 0 && n != 3 {
		t.Errorf("calls served: got %d", n)
	}
}

// Calls that are lost with the connection say whether they may have been
// carried out.
func TestCallsLost(t *testing.T) {
	t.Parallel()
	d := &directory{}
	began, ended := make(chan struct{}, 1), make(chan struct{}, 1)
	a := startNode(t, d, "n1", setup{options: brief})
	b := startNode(t, d, "n2", setup{options: brief, transport: func(tr *Transport) {
		tr.HandleCall(1, func(ctx context.Context, _ core.NodeID, _ []byte) ([]byte, error) {
			began <- struct{}{}
			<-ctx.Done()
			ended <- struct{}{}
			return nil, nil
		})
	}})
	for name, lose := range map[string]func(*proxy){"cut": (*proxy).cut, "silent": (*proxy).freeze} {
		p := newProxy(t, b.addr)
		d.set("n2", p.addr())
		errs := make(chan error, 1)
		go func() {
			_, err := a.Call(t.Context(), "n2", 1, nil)
			errs <- err
		}()
		recv(t, name+": the call", began)
		lose(p)
		err := recv(t, name+": the caller's error", errs)
		wantIs(t, err, core.ErrUnavailable)
		wantNot(t, err, ErrNotSent, context.Canceled, context.DeadlineExceeded)
		recv(t, name+": the end of the handler's ctx", ended)
		p.thaw()
		p.cut()
	}
	d.set("n2", "127.0.0.1:1")
	_, err := a.Call(t.Context(), "n2", 1, nil)
	wantIs(t, err, core.ErrUnavailable, ErrNotSent)
	wantNot(t, err, context.Canceled, context.DeadlineExceeded)
}

// A request that never left the queue was surely not carried out: here because
// the other end does not read.
func TestCallsNotSent(t *testing.T) {
	d := &directory{}
	a := startNode(t, d, "n1", setup{options: func(o *Options) { o.Timeout = time.Minute }})
	b := startNode(t, d, "n2", setup{transport: echoServer})
	p := newProxy(t, b.addr)
	d.set("n2", p.addr())
	if _, err := a.Call(t.Context(), "n2", 1, nil); err != nil {
		t.Fatal(err)
	}
	p.freeze()
	errs := make(chan error, 8)
	ctx, cancel := context.WithCancel(t.Context())
	for range cap(errs) { // more than all the buffers in between
		go func() {
			_, err := a.Call(ctx, "n2", 1, make([]byte, MaxMessage))
			errs <- err
		}()
	}
	await(t, "all calls", func() bool { return statsOf(a, "n2").Calls == cap(errs) })
	cancel()
	unsent := 0
	for range cap(errs) {
		err := recv(t, "the end of a call", errs)
		wantIs(t, err, context.Canceled)
		if errors.Is(err, ErrNotSent) {
			unsent++
		}
	}
	if unsent == 0 || unsent == cap(errs) {
		t.Errorf("surely not carried out: got %d of %d, want some", unsent, cap(errs))
	}
	go func() {
		_, err := a.Call(t.Context(), "n2", 1, nil)
		errs <- err
	}()
	await(t, "the last call", func() bool { return statsOf(a, "n2").Calls == 1 })
	p.thaw()
	p.cut()
	wantIs(t, recv(t, "the end of the last call", errs), ErrNotSent, core.ErrUnavailable)
}

// A node that asks for more than the other end is ready to keep is refused.
func TestTooManyCalls(t *testing.T) {
	d := &directory{}
	wait, release := barrier(t)
	a := startNode(t, d, "n1", setup{})
	b := startNode(t, d, "n2", setup{
		options: func(o *Options) { o.MaxHandlers, o.MaxCalls = 2, 3 },
		transport: func(tr *Transport) {
			tr.HandleCall(1, func(context.Context, core.NodeID, []byte) ([]byte, error) { wait(); return nil, nil })
		},
	})
	errs := make(chan error, 10)
	for range cap(errs) {
		go func() {
			_, err := a.Call(t.Context(), "n2", 1, nil)
			errs <- err
		}()
	}
	for range 5 {
		err := recv(t, "a refusal", errs)
		wantIs(t, err, core.ErrUnavailable, ErrNotSent)
	}
	release()
	for range 5 {
		if err := recv(t, "an answer", errs); err != nil {
			t.Error(err)
		}
	}
	if n := statsOf(b, "n1").CallsServed; n != 5 {
		t.Errorf("served: got %d calls, want 5", n)
	}
}

// One's own calls beyond the limit wait, as long as one has patience.
func TestCallsWaitForTheirTurn(t *testing.T) {
	d := &directory{}
	wait, release := barrier(t)
	a := startNode(t, d, "n1", setup{options: func(o *Options) { o.MaxCalls = 1 }})
	b := startNode(t, d, "n2", setup{transport: func(tr *Transport) {
		tr.HandleCall(1, func(context.Context, core.NodeID, []byte) ([]byte, error) { wait(); return nil, nil })
	}})
	errs := make(chan error, 2)
	call := func(ctx context.Context) {
		_, err := a.Call(ctx, "n2", 1, nil)
		errs <- err
	}
	go call(t.Context())
	await(t, "the first call", func() bool { return statsOf(b, "n1").CallsServed == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	go call(ctx)
	await(t, "the second call", func() bool { return statsOf(a, "n2").CallsMade == 2 })
	cancel()
	wantIs(t, recv(t, "the end of the second", errs), context.Canceled, ErrNotSent)
	release()
	if err := recv(t, "the end of the first", errs); err != nil {
		t.Error(err)
	}
}

// sentinels returns the names of the errors of package core.
func sentinels(t *testing.T) []string {
	t.Helper()
	f, err := parser.ParseFile(gotoken.NewFileSet(), "../errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Err") {
			names = append(names, v.Names[0].Name)
		}
		return true
	})
	return names
}

func TestErrorsKeepTheirIdentity(t *testing.T) {
	ours := 0
	codes := map[uint16]bool{}
	for _, w := range wireErrors() {
		if codes[w.code] {
			t.Errorf("code %d is used twice", w.code)
		}
		codes[w.code] = true
		if w.code < 64 {
			ours++
		}
	}
	if names := sentinels(t); len(names) != ours {
		t.Errorf("errors of package core: got codes for %d, want one for each of %v", ours, names)
	}

	// Nor is what looks like it, as time-outs of the operating system do.
	wantNot(t, &failure{cause: fmt.Errorf("dial: %w", context.DeadlineExceeded)}, context.DeadlineExceeded)

	d := &directory{}
	var fail atomic.Pointer[error]
	a := startNode(t, d, "n1", setup{})
	startNode(t, d, "n2", setup{transport: func(tr *Transport) {
		tr.HandleCall(1, func(context.Context, core.NodeID, []byte) ([]byte, error) { return nil, *fail.Load() })
	}})
	remote := func(err error) error {
		t.Helper()
		fail.Store(&err)
		_, got := a.Call(t.Context(), "n2", 1, nil)
		if got == nil || !strings.Contains(got.Error(), err.Error()) && len(err.Error()) < maxErrorText {
			t.Errorf("got %v, want the text of %v", got, err)
		}
		return got
	}
	for _, w := range wireErrors() {
		got := remote(fmt.Errorf("disk 7: %w", w.err))
		for _, other := range wireErrors() {
			if is := errors.Is(got, other.err); is != errors.Is(w.err, other.err) {
				t.Errorf("%v: is %q: got %v", got, other.err, is)
			}
		}
	}
	wantIs(t, remote(errors.Join(core.ErrUnavailable, fmt.Errorf("key: %w", core.ErrUnknownOutcome))), core.ErrUnavailable, core.ErrUnknownOutcome)
	// The end of a context over there is not the end of one here.
	for _, err := range []error{context.Canceled, context.DeadlineExceeded} {
		got := remote(fmt.Errorf("flush: %w", err))
		wantIs(t, got, core.ErrUnavailable)
		wantNot(t, got, context.Canceled, context.DeadlineExceeded)
	}
	wantNot(t, remote(errors.New("out of cheese")), core.ErrUnavailable, core.ErrNotFound, ErrNotSent)
	if got := remote(errors.New(strings.Repeat("ä", maxErrorText))); len(got.Error()) > maxErrorText+100 {
		t.Errorf("long text: got %d bytes", len(got.Error()))
	}
}

func FuzzParseError(f *testing.F) {
	f.Add(appendError(nil, fmt.Errorf("disk 7: %w", core.ErrNoSpace)))
	f.Add([]byte{200, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseError(b, "n1")
		if err != nil {
			return
		}
		again, err := parseError(appendError(nil, &remoteError{msg: e.msg, is: e.is}), "n1")
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range wireErrors() {
			if errors.Is(e, w.err) != errors.Is(again, w.err) {
				t.Errorf("%v: lost its identity on the second way", e)
			}
		}
	})
}
