package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

// TestMain fails if a goroutine of the package outlives the tests.
func TestMain(m *testing.M) {
	code := m.Run()
	if left := leaked(); code == 0 && left != "" {
		fmt.Fprintf(os.Stderr, "goroutines are left:\n%s\n", left)
		code = 1
	}
	os.Exit(code)
}

func leaked() (left string) {
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); runtime.Gosched() {
		buf := make([]byte, 1<<20)
		left = ""
		for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(g, "core/peer.") && !strings.Contains(g, "core/peer.leaked") {
				left += g + "\n\n"
			}
		}
		if left == "" {
			return ""
		}
	}
	return left
}

type clock struct{}

func (clock) Now() time.Time       { return time.Now() }
func (c clock) Boot() core.Instant { return core.Instant(c.Now().UnixNano()) }

func (clock) Wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// patience is how long tests wait for what must happen.
const patience = 20 * time.Second

// await waits until ok returns true.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	for !ok() {
		if (clock{}).Wait(ctx, time.Millisecond) != nil {
			t.Fatalf("still not: %s", what)
		}
	}
}

// recv receives from a channel within the patience of tests.
func recv[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	select {
	case v := <-c:
		return v
	case <-ctx.Done():
		t.Fatalf("nothing came: %s", what)
		panic("unreachable")
	}
}

// wantIs checks the identity of an error.
func wantIs(t testing.TB, err error, want ...error) {
	t.Helper()
	for _, w := range want {
		if !errors.Is(err, w) {
			t.Errorf("got error %v, want one that is %q", err, w)
		}
	}
}

func wantNot(t testing.TB, err error, not ...error) {
	t.Helper()
	if err == nil {
		t.Error("got no error, want one")
	}
	for _, w := range not {
		if errors.Is(err, w) {
			t.Errorf("got error %v, want one that is not %q", err, w)
		}
	}
}

// directory is the addresses of nodes.
type directory struct {
	mu    sync.Mutex
	addrs map[core.NodeID]string
}

func (d *directory) resolve(id core.NodeID) (string, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a, ok := d.addrs[id]
	return a, ok
}

func (d *directory) set(id core.NodeID, addr string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.addrs == nil {
		d.addrs = map[core.NodeID]string{}
	}
	d.addrs[id] = addr
}

// inbox is a Handler that keeps what comes.
type inbox struct {
	on     func(from core.NodeID, msg []byte) // called first, if set
	onPeer func(node core.NodeID, up bool)    // likewise

	mu   sync.Mutex
	msgs map[core.NodeID][]string
	ups  map[core.NodeID][]bool
	n    atomic.Int64
}

func (h *inbox) Message(from core.NodeID, msg []byte) {
	if h.on != nil {
		h.on(from, msg)
	}
	h.mu.Lock()
	if h.msgs == nil {
		h.msgs = map[core.NodeID][]string{}
	}
	h.msgs[from] = append(h.msgs[from], string(msg))
	h.mu.Unlock()
	h.n.Add(1)
}

func (h *inbox) Peer(node core.NodeID, up bool) {
	if h.onPeer != nil {
		h.onPeer(node, up)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ups == nil {
		h.ups = map[core.NodeID][]bool{}
	}
	h.ups[node] = append(h.ups[node], up)
}

func (h *inbox) from(n core.NodeID) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.msgs[n]...)
}

func (h *inbox) got(n core.NodeID, msg string) bool {
	return slices.Contains(h.from(n), msg)
}

// changes are the calls of Peer for a node.
func (h *inbox) changes(n core.NodeID) []bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]bool(nil), h.ups[n]...)
}

func (h *inbox) up(n core.NodeID) bool {
	c := h.changes(n)
	return len(c) > 0 && c[len(c)-1]
}

// barrier returns a function that waits, and one that ends all waiting, as the
// end of the test does.
func barrier(t testing.TB) (wait, open func()) {
	c := make(chan struct{})
	done := t.Context().Done()
	wait = func() {
		select {
		case <-c:
		case <-done:
		}
	}
	return wait, sync.OnceFunc(func() { close(c) })
}

// node is a running transport.
type node struct {
	*Transport
	in   *inbox
	addr string
	stop func() // ends Run and waits for it
}

const testSecret = "a secret of the cluster, for tests"

// setup changes options before a transport is made, and the transport before
// it runs; either may be nil.
type setup struct {
	options   func(*Options)
	transport func(*Transport)
	message   func(from core.NodeID, msg []byte) // called for each message
	peer      func(node core.NodeID, up bool)    // called for each change
}

func testOptions(t testing.TB, d *directory, id core.NodeID) Options {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Cluster: "c1", Self: id, Secret: []byte(testSecret),
		Listener: l, Resolve: d.resolve, Clock: clock{},
		Ping: 40 * time.Millisecond, Timeout: 10 * time.Second, DialTimeout: 10 * time.Second,
		BackoffMin: 5 * time.Millisecond, BackoffMax: 50 * time.Millisecond,
	}
}

// brief makes silence noticed early; other tests have patience with a machine
// that is busy.
func brief(o *Options) { o.Timeout = time.Second }

// startNode runs a node until the test ends, and enters it into the directory.
func startNode(t testing.TB, d *directory, id core.NodeID, s setup) *node {
	t.Helper()
	o := testOptions(t, d, id)
	if s.options != nil {
		s.options(&o)
	}
	tr, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Transport: tr, in: &inbox{on: s.message, onPeer: s.peer}, addr: o.Listener.Addr().String()}
	tr.Handle(n.in)
	if s.transport != nil {
		s.transport(tr)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- tr.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := recv(t, fmt.Sprintf("the end of node %s", id), done); err != nil {
			t.Errorf("node %s: Run returned %v, want nil", id, err)
		}
	})
	t.Cleanup(n.stop)
	await(t, "running", tr.running)
	d.set(id, n.addr)
	return n
}

// statsOf returns a node's figures of another one.
func statsOf(n *node, of core.NodeID) Stats {
	for _, s := range n.Stats() {
		if s.Node == of {
			return s
		}
	}
	return Stats{}
}

// outlast waits until a silent peer would have been given up.
func outlast(t testing.TB, n *node) {
	t.Helper()
	began := time.Now()
	await(t, "twice the time-out", func() bool { return time.Since(began) > 2*n.o.Timeout })
}

// proxy forwards connections to a node. It can stop to do so, like a network
// without a sign, and counts round trips.
type proxy struct {
	l      net.Listener
	target string
	wg     sync.WaitGroup

	mu     sync.Mutex
	conns  []net.Conn
	frozen bool
	thawed chan struct{}
	last   string // direction of the last bytes
	turns  int    // changes of direction
	budget int    // bytes that may pass back before it holds; -1: any number
	held   chan struct{}
}

func newProxy(t testing.TB, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l, target: target, thawed: make(chan struct{}), budget: -1}
	p.wg.Go(p.run)
	t.Cleanup(func() {
		_ = l.Close()
		p.thaw()
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.l.Addr().String() }

func (p *proxy) run() {
	for {
		a, err := p.l.Accept()
		if err != nil {
			return
		}
		b, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = a.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, a, b)
		p.mu.Unlock()
		p.wg.Go(func() { p.pipe(b, a, "there") })
		p.wg.Go(func() { p.pipe(a, b, "back") })
	}
}

func (p *proxy) pipe(to, from net.Conn, dir string) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buf := make([]byte, 256<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			p.mu.Lock()
			frozen, thawed := p.frozen, p.thawed
			if p.last != dir {
				p.last = dir
				p.turns++
			}
			p.mu.Unlock()
			if frozen {
				<-thawed
				return
			}
			pass, held := n, (chan struct{})(nil)
			if dir == "back" {
				pass, held = p.spend(n)
			}
			if _, err := to.Write(buf[:pass]); err != nil {
				return
			}
			if held != nil {
				<-held
				if _, err := to.Write(buf[pass:n]); err != nil {
					return
				}
			}
		}
		if err != nil {
			return
		}
	}
}

// hold lets n bytes pass back from the node, and the rest after resume.
func (p *proxy) hold(n int) (resume func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	held := make(chan struct{})
	p.budget, p.held = n, held
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.budget = -1
		close(held)
	})
}

// spend returns how many of n bytes may pass, and what to wait for with the
// rest.
func (p *proxy) spend(n int) (pass int, held chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.budget < 0 || n <= p.budget {
		p.budget -= min(n, max(p.budget, 0))
		return n, nil
	}
	pass, p.budget = p.budget, 0
	return pass, p.held
}

// freeze keeps connections open and lets nothing pass any more.
func (p *proxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = true
}

func (p *proxy) thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen {
		close(p.thawed)
	}
	p.frozen, p.thawed = false, make(chan struct{})
}

// cut breaks all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

// roundTrips returns the number of round trips since the last call.
func (p *proxy) roundTrips() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := (p.turns + 1) / 2
	p.turns, p.last = 0, ""
	return n
}

// selfSigned returns a TLS configuration with a certificate that it trusts.
func selfSigned(t testing.TB) *tls.Config {
	t.Helper()
	cert, pool := testCertificate(t)
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: pool, MinVersion: tls.VersionTLS13}
}
