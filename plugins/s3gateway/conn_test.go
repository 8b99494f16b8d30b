package s3gateway

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestConnHolds joins a small write with the one behind it, and loses nothing
// where none comes.
func TestConnHolds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	got := make(chan []byte, 1)
	go func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			got <- nil
			return
		}
		b, _ := io.ReadAll(c)
		_ = c.Close()
		got <- b
	}()
	raw, err := Listen(l).Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := raw.(*conn)
	var want bytes.Buffer
	write := func(n int) {
		p := bytes.Repeat([]byte{byte('a' + want.Len()%7)}, n)
		want.Write(p)
		if m, err := c.Write(p); m != n || err != nil {
			t.Fatalf("write of %d: got %d, %v", n, m, err)
		}
		clear(p) // it is the caller's again
	}
	for _, sizes := range [][]int{{gathered, 100_000}, {10, 20, 30}, {gathered}, {gathered + 1, 5}, {}} {
		c.hold()
		for i, n := range sizes {
			write(n)
			if held := i == 0 && n <= gathered; held != (len(c.held) > 0) {
				t.Errorf("write %d of %v: %d bytes are held", i, sizes, len(c.held))
			}
		}
		if err := c.release(); err != nil || len(c.held) > 0 {
			t.Errorf("release after %v: %d bytes are held, %v", sizes, len(c.held), err)
		}
		write(7) // nothing is held any more
	}
	c.hold()
	write(3)
	if n, err := c.ReadFrom(strings.NewReader("from a reader")); n != 13 || err != nil {
		t.Errorf("ReadFrom: got %d, %v", n, err)
	}
	want.WriteString("from a reader")
	_ = c.Close()
	if b := <-got; !bytes.Equal(b, want.Bytes()) {
		t.Errorf("the other end got %d bytes that differ from the %d written", len(b), want.Len())
	}
}

// TestBodiesOfAllSizes gets objects around the sizes at which head and body
// part, over one connection, through a gateway that joins them.
func TestBodiesOfAllSizes(t *testing.T) {
	e := serve(t, nil, false)
	b := e.bucket(t, "data")
	for _, n := range []int{0, 1, 2048, gathered - 500, gathered, worthHolding - 1, worthHolding, worthHolding + 1, 3 * gathered, 300_000} {
		data := strings.Repeat("x", n)
		key := fmt.Sprintf("/%s/k%d", b, n)
		if r := e.raw(t, "PUT", key, http.Header{"X-Amz-Meta-Long": {strings.Repeat("m", 1500)}}, data); r.status != http.StatusOK {
			t.Fatalf("put of %d bytes: got %d", n, r.status)
		}
		for range 2 {
			if r := e.raw(t, "GET", key, nil, ""); r.body != data || len(r.header.Get("X-Amz-Meta-Long")) != 1500 {
				t.Errorf("get of %d bytes: got %d, %d bytes", n, r.status, len(r.body))
			}
		}
	}
}
