package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

func echoServer(t *Transport) {
	t.HandleCall(1, func(_ context.Context, _ core.NodeID, req []byte) ([]byte, error) { return req, nil })
}

// Each pair of nodes that must not talk says why, at both ends, and talks once
// that is put right.
func TestRefusals(t *testing.T) {
	secure := selfSigned(t)
	for _, test := range []struct {
		name  string
		spoil func(*Options) // of the calling node
		want  error
		says  string
		logs  string // at the called node
	}{
		{
			"wrong secret", func(o *Options) { o.Secret = []byte("some other secret") }, ErrWrongSecret,
			"nodes n1 and n2 do not have the same cluster secret", "do not have the same cluster secret",
		},
		{
			"other cluster", func(o *Options) { o.Cluster = "c2" }, ErrOtherCluster,
			`node n1 belongs to cluster "c2", node n2 at this address to "c1"`, "belongs to cluster",
		},
		{
			"own address", func(o *Options) { o.Self = "n2" }, ErrOtherNode,
			"this address belongs to node n2, not to n3", "belongs to node n2",
		},
		{
			"TLS on one side", func(o *Options) { o.TLS = secure }, nil,
			"the other end does not use TLS", "the caller uses TLS and this node does not",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := &directory{}
			var log logBuffer
			b := startNode(t, d, "n2", setup{transport: echoServer, options: func(o *Options) { o.Log = log.logger() }})
			a := startNode(t, d, "n1", setup{options: func(o *Options) {
				test.spoil(o)
				// Another secret must not be noticed as late as a time-out.
				o.DialTimeout = time.Minute
			}})
			d.set("n2", b.addr)
			d.set("n3", b.addr)
			to := core.NodeID("n2")
			if a.o.Self == "n2" {
				to = "n3"
			}
			_, err := a.Call(t.Context(), to, 1, nil)
			wantIs(t, err, core.ErrUnavailable, ErrNotSent)
			if test.want != nil {
				wantIs(t, err, test.want)
			}
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got error %v, want one that says %q", err, test.says)
			}
			await(t, "a line in the log: "+test.logs, func() bool { return strings.Contains(log.String(), test.logs) })
			c := startNode(t, d, "n4", setup{})
			if got, err := c.Call(t.Context(), "n2", 1, []byte("x")); err != nil || string(got) != "x" {
				t.Errorf("a proper node: got %q, %v", got, err)
			}
		})
	}
}

func TestAddressOfAnotherNode(t *testing.T) {
	d := &directory{}
	a, b := startNode(t, d, "n1", setup{}), startNode(t, d, "n2", setup{transport: echoServer})
	d.set("n3", b.addr)
	_, err := a.Call(t.Context(), "n3", 1, nil)
	wantIs(t, err, ErrOtherNode, core.ErrUnavailable, ErrNotSent)
	startNode(t, d, "n3", setup{transport: echoServer})
	await(t, "the right address", func() bool {
		_, err := a.Call(t.Context(), "n3", 1, nil)
		return err == nil
	})
}

func TestTLS(t *testing.T) {
	d := &directory{}
	cfg := selfSigned(t)
	with := setup{options: func(o *Options) { o.TLS = cfg }, transport: func(t *Transport) {
		echoServer(t)
		t.HandleStream(7, &bank{})
	}}
	a, b := startNode(t, d, "n1", with), startNode(t, d, "n2", with)
	a.Send("n2", []byte("hello"))
	await(t, "message", func() bool { return b.in.got("n1", "hello") })
	big := bytes.Repeat([]byte("0123456789abcdef"), 100_000)
	if got, err := a.Call(t.Context(), "n2", 1, big); err != nil || !bytes.Equal(got, big) {
		t.Errorf("call: got %d bytes, %v", len(got), err)
	}
	w, err := a.OpenWrite(t.Context(), "n2", 7, []byte("x"), true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(big); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := a.OpenRead(t.Context(), "n2", 7, []byte("x"), Range{0, 1000})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(big))
	if n, err := r.ReadAt(t.Context(), got, 0); n != len(big) || !bytes.Equal(got, big) {
		t.Errorf("read: got %d bytes, %v", n, err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}

	plain := startNode(t, d, "n3", setup{options: func(o *Options) { o.DialTimeout = time.Minute }})
	_, err = plain.Call(t.Context(), "n2", 1, nil)
	wantIs(t, err, core.ErrUnavailable, ErrNotSent)
	other := selfSigned(t)
	stranger := startNode(t, d, "n4", setup{options: func(o *Options) { o.TLS = other }})
	if _, err = stranger.Call(t.Context(), "n2", 1, nil); err == nil || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("a node that does not trust the certificate: got %v, want a TLS error", err)
	}
}

// Somebody in the middle whose certificate both ends accept, and who passes the
// handshake on: the proofs belong to another TLS session.
func TestTLSRelay(t *testing.T) {
	d := &directory{}
	cfg := selfSigned(t)
	careless := setup{transport: echoServer, options: func(o *Options) {
		o.TLS = cfg.Clone()
		o.TLS.InsecureSkipVerify = true
	}}
	a, b := startNode(t, d, "n1", careless), startNode(t, d, "n2", careless)
	if _, err := a.Call(t.Context(), "n2", 1, nil); err != nil {
		t.Fatal(err)
	}
	middle := selfSigned(t)
	middle.InsecureSkipVerify = true
	l, err := tls.Listen("tcp", "127.0.0.1:0", middle)
	if err != nil {
		t.Fatal(err)
	}
	relay(t, l, func() (net.Conn, error) { return tls.Dial("tcp", b.addr, middle) }, io.Discard)
	c := startNode(t, d, "n3", careless)
	d.set("n2", l.Addr().String())
	_, err = c.Call(t.Context(), "n2", 1, nil)
	wantIs(t, err, ErrWrongSecret)
}

func TestAsk(t *testing.T) {
	cfg := selfSigned(t)
	for name, with := range map[string]func(*Options){"plain": func(*Options) {}, "TLS": func(o *Options) { o.TLS = cfg }} {
		t.Run(name, func(t *testing.T) {
			var log logBuffer
			b := startNode(t, &directory{}, "n2", setup{options: func(o *Options) { with(o); o.Log = log.logger() }})
			ask := AskOptions{Addr: b.addr, Self: "n9", Secret: []byte(testSecret), TLS: b.o.TLS, Clock: clock{}}
			got, err := Ask(t.Context(), ask)
			if want := (Member{Cluster: "c1", Node: "n2"}); err != nil || got != want {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
			if log.String() != "" {
				t.Errorf("a proper question was logged: %s", log.String())
			}
			ask.Secret = []byte("some other secret")
			_, err = Ask(t.Context(), ask)
			wantIs(t, err, ErrWrongSecret)
		})
	}
	_, err := Ask(t.Context(), AskOptions{Addr: "127.0.0.1:1", Self: "n9", Secret: []byte(testSecret), Clock: clock{}})
	wantIs(t, err, core.ErrUnavailable)
}

// rawDial connects without a transport.
func rawDial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

func readPart(c net.Conn) (helloPart, []byte, error) {
	var head [3]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return 0, nil, err
	}
	body := make([]byte, binary.LittleEndian.Uint16(head[1:]))
	_, err := io.ReadFull(c, body)
	return helloPart(head[0]), body, err
}

// What a node said once to prove itself is of no use to who has overheard it.
func TestReplay(t *testing.T) {
	d := &directory{}
	a, b := startNode(t, d, "n1", setup{}), startNode(t, d, "n2", setup{transport: echoServer})
	var heard bytes.Buffer
	d.set("n2", tap(t, b.addr, &heard))
	if _, err := a.Call(t.Context(), "n2", 1, nil); err != nil {
		t.Fatal(err)
	}
	a.stop()
	c := rawDial(t, b.addr)
	if _, err := c.Write(heard.Bytes()); err != nil {
		t.Fatal(err)
	}
	if part, _, err := readPart(c); part != partChallenge {
		t.Fatalf("answer to an old hello: got part %d, %v, want a challenge", part, err)
	}
	part, body, err := readPart(c)
	if part != partRefusal || len(body) == 0 || refusalCode(body[0]) != refusedSecret {
		t.Errorf("answer to an old proof: got part %d %q, %v, want a refusal", part, body, err)
	}
}

// tap forwards one connection and keeps what the caller says.
func tap(t *testing.T, target string, heard *bytes.Buffer) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	relay(t, l, func() (net.Conn, error) { return net.Dial("tcp", target) }, heard)
	return l.Addr().String()
}

// relay passes on what comes by one connection of a listener, until the test ends, and
// writes to heard what the caller says.
func relay(t *testing.T, l net.Listener, dial func() (net.Conn, error), heard io.Writer) {
	t.Helper()
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		in, err := l.Accept()
		if err != nil {
			return
		}
		out, err := dial()
		if err != nil {
			_ = in.Close()
			return
		}
		back := make(chan struct{})
		go func() { _, _ = io.Copy(in, out); _ = in.Close(); close(back) }()
		_, _ = io.Copy(out, io.TeeReader(in, heard))
		_ = out.Close()
		<-back
	}()
}

func TestHelloVersions(t *testing.T) {
	d := &directory{}
	b := startNode(t, d, "n2", setup{})
	for _, test := range []struct {
		min, max uint8
		want     helloPart
	}{
		{1, 1, partChallenge},
		{1, 9, partChallenge}, // a newer node speaks the old version, too
		{2, 9, partRefusal},
		{0, 0, partRefusal},
		{9, 1, partRefusal},
	} {
		h := hello{minVersion: test.min, maxVersion: test.max, kind: kindCalls, cluster: "c1", from: "n1", to: "n2"}
		c := rawDial(t, b.addr)
		body := append(h.encode(), "of the future"...)
		head := binary.LittleEndian.AppendUint16([]byte{byte(partHello)}, uint16(len(body)))
		if _, err := c.Write(append(head, body...)); err != nil {
			t.Fatal(err)
		}
		part, body, err := readPart(c)
		if part != test.want {
			t.Errorf("versions %d to %d: got part %d %q, %v, want %d", test.min, test.max, part, body, err, test.want)
		}
		if part == partRefusal && refusalCode(body[0]) != refusedVersion {
			t.Errorf("versions %d to %d: got %q, want a refusal for the version", test.min, test.max, body)
		}
	}
}

// Strangers are hung up on, and do not keep the node from its work.
func TestStrangers(t *testing.T) {
	t.Parallel()
	d := &directory{}
	a := startNode(t, d, "n1", setup{})
	startNode(t, d, "n2", setup{transport: echoServer, options: func(o *Options) { o.DialTimeout = 300 * time.Millisecond }})
	addr, _ := d.resolve("n2")
	for _, said := range []string{"", "GET / HTTP/1.1\r\n\r\n", "\x01", "\x01\xff\xff", "\x01\x05\x00hello", "\x16\x03\x01\x02\x00"} {
		c := rawDial(t, addr)
		if _, err := io.WriteString(c, said); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: not hung up on", said)
		}
	}
	if _, err := a.Call(t.Context(), "n2", 1, nil); err != nil {
		t.Error(err)
	}
}

func TestManyStrangers(t *testing.T) {
	t.Parallel()
	d := &directory{}
	b := startNode(t, d, "n2", setup{transport: echoServer, options: func(o *Options) { o.DialTimeout = time.Second }})
	var conns []net.Conn
	for range maxGreeting + 10 {
		conns = append(conns, rawDial(t, b.addr))
	}
	// All are gone in the end, and the node works.
	for _, c := range conns {
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("a stranger is not hung up on")
		}
	}
	a := startNode(t, d, "n1", setup{})
	if _, err := a.Call(t.Context(), "n2", 1, nil); err != nil {
		t.Error(err)
	}
}

func FuzzHello(f *testing.F) {
	f.Add(hello{minVersion: 1, maxVersion: 1, kind: kindStreams, cluster: "c1", from: "n1", to: "n2"}.encode())
	f.Add([]byte(helloMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHello(b)
		if err != nil {
			return
		}
		if got := h.encode(); !bytes.HasPrefix(b, got) {
			t.Errorf("hello %+v: encoded %q, want the beginning of %q", h, got, b)
		}
	})
}

// FuzzHandshake says anything to a node that accepts, and to one that dialled.
func FuzzHandshake(f *testing.F) {
	good := hello{minVersion: 1, maxVersion: 1, kind: kindCalls, cluster: "c1", from: "n1", to: "n2"}.encode()
	f.Add(append(binary.LittleEndian.AppendUint16([]byte{byte(partHello)}, uint16(len(good))), good...), false)
	f.Add(append([]byte{byte(partChallenge), 32 + challengeSize, 0}, make([]byte, 32+challengeSize)...), true)
	f.Add([]byte{byte(partRefusal), 3, 0, 5, 'n', 'o'}, true)
	f.Fuzz(func(t *testing.T, in []byte, dialled bool) {
		tr := deaf(t)
		var err error
		c := newConn(tr, &script{in: bytes.NewReader(in)}, kindCalls, dialled)
		if dialled {
			err = tr.dialHandshake(c, "n1")
		} else {
			_, err = tr.acceptHandshake(c)
		}
		if err == nil {
			t.Error("the handshake succeeded without knowledge of the secret")
		}
	})
}
