package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/plugins/s3gateway/sigv4"
)

// worker is one client of a load. Servers and clients share the machine, so a
// client that costs as much as what it measures would halve every difference:
// this one keeps a connection to each endpoint, signs a request once and repeats
// it, and reads answers without building them up. net/http's client and a
// signature for each request cost 60 us, which is what a small PUT costs the
// server.
type worker struct {
	s      *side
	conns  []*wire
	heads  map[string][]byte // signed heads by method, endpoint and key
	signed time.Time
}

// wire is a connection with its buffers.
type wire struct {
	net.Conn
	br *bufio.Reader
}

func (s *side) worker() *worker {
	return &worker{s: s, conns: make([]*wire, len(s.endpoints)), heads: map[string][]byte{}}
}

func (w *worker) close() {
	for _, c := range w.conns {
		if c != nil {
			_ = c.Close()
		}
	}
}

// do sends a signed request and reads the answer to its end. An answer that is
// not of success is an error.
func (w *worker) do(ctx context.Context, method, key string, body []byte) error {
	i := int(w.s.next.Add(1)) % len(w.s.endpoints)
	head, err := w.head(ctx, method, i, key, len(body))
	if err != nil {
		return err
	}
	if w.conns[i] == nil {
		if w.conns[i], err = dial(ctx, w.s.endpoints[i]); err != nil {
			return err
		}
	}
	c := w.conns[i]
	bufs := net.Buffers{head, body}
	if _, err := bufs.WriteTo(c.Conn); err != nil {
		return err
	}
	return c.answer(method + " " + key)
}

func dial(ctx context.Context, endpoint string) (*wire, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	if end, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(end); err != nil {
			return nil, err
		}
	}
	const buffer = 64 << 10
	return &wire{conn, bufio.NewReaderSize(conn, buffer)}, nil
}

// head returns the signed head of a request. A signature holds for a quarter of
// an hour.
func (w *worker) head(ctx context.Context, method string, endpoint int, key string, size int) ([]byte, error) {
	const fresh = 5 * time.Minute
	if time.Since(w.signed) > fresh {
		clear(w.heads)
		w.signed = time.Now()
	}
	name := method + strconv.Itoa(endpoint) + key
	if h := w.heads[name]; h != nil {
		return h, nil
	}
	r, err := http.NewRequestWithContext(ctx, method, w.s.endpoints[endpoint]+"/"+w.s.bucket+"/"+key, nil)
	if err != nil {
		return nil, err
	}
	creds := sigv4.Credentials{AccessKey: config.DevAccessKey, Secret: config.DevSecretKey}
	if err := sigv4.Sign(r, creds, "us-east-1", "s3", "UNSIGNED-PAYLOAD", w.signed); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, r.URL.RequestURI(), r.URL.Host)
	if method == http.MethodPut {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", size)
	}
	if err := r.Header.Write(&b); err != nil {
		return nil, err
	}
	b.WriteString("\r\n")
	w.heads[name] = b.Bytes()
	return b.Bytes(), nil
}

// answer reads an answer to its end. It must declare its length.
func (c *wire) answer(what string) error {
	status, length, err := c.head()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if status/100 != 2 {
		why := make([]byte, min(length, 1<<10))
		_, _ = io.ReadFull(c.br, why)
		return fmt.Errorf("%s: status %d: %s", what, status, why)
	}
	if _, err := c.br.Discard(length); err != nil {
		return fmt.Errorf("%s: the body of %d bytes: %w", what, length, err)
	}
	return nil
}

// head reads the head of an answer.
func (c *wire) head() (status, length int, err error) {
	line, err := c.br.ReadSlice('\n')
	if err != nil {
		return 0, 0, err
	}
	const version, code = len("HTTP/1.1 "), len("200")
	if len(line) < version+code {
		return 0, 0, fmt.Errorf("the status line is %q", line)
	}
	if status, err = strconv.Atoi(string(line[version : version+code])); err != nil {
		return 0, 0, fmt.Errorf("the status line is %q", line)
	}
	length = -1
	for {
		line, err := c.br.ReadSlice('\n')
		if err != nil {
			return 0, 0, err
		}
		name, value, _ := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(":"))
		switch {
		case len(name) == 0 && length < 0:
			return 0, 0, errors.New("the answer declares no length")
		case len(name) == 0:
			return status, length, nil
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, 0, err
			}
		}
	}
}
