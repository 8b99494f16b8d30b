package remotehttp

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/shoalstore/shoal/core"
)

func TestAddresses(t *testing.T) {
	for _, s := range []string{"8.8.8.8", "142.250.1.1", "2a00:1450:4001::1", "2606:4700::1", "64:ff9b::808:808", "2002:808:808::1", "::ffff:8.8.8.8"} {
		if a := netip.MustParseAddr(s); !Public(a) || LinkLocal(a) {
			t.Errorf("%s: public %v, link-local %v", s, Public(a), LinkLocal(a))
		}
	}
	for _, s := range []string{
		"127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "0.0.0.0", "0.1.2.3", "255.255.255.255",
		"240.0.0.1", "198.18.0.1", "192.0.0.192", "::", "::1", "fd00::1", "fc00::1", "2001:db8::1", "fec0::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1",
		"2002:7f00:1::", "::10.0.0.1",
	} {
		if a := netip.MustParseAddr(s); Public(a) || LinkLocal(a) {
			t.Errorf("%s: public %v, link-local %v", s, Public(a), LinkLocal(a))
		}
	}
	for _, s := range []string{"169.254.169.254", "169.254.0.1", "fe80::1", "224.0.0.1", "ff02::1", "fd00:ec2::254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1"} {
		if a := netip.MustParseAddr(s); Public(a) || !LinkLocal(a) {
			t.Errorf("%s: public %v, link-local %v", s, Public(a), LinkLocal(a))
		}
	}
}

func get(t *testing.T, c *http.Client, url string) error {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// The guard sees what a name was resolved to, and nothing is sent to what it
// refuses.
func TestTransport(t *testing.T) {
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer s.Close()
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	var host string
	guard := func(h string, a netip.AddrPort) error {
		host = h
		if !Public(a.Addr()) {
			return fmt.Errorf("%s: %w", a, core.ErrPermission)
		}
		return nil
	}
	c := &http.Client{Transport: Transport(guard)}
	err := get(t, c, "http://localhost:"+port+"/")
	if !errors.Is(err, core.ErrPermission) || !NotSent(err) || asked != 0 || host != "localhost:"+port {
		t.Errorf("got %v, host %q, %d requests", err, host, asked)
	}
	c.Transport = Transport(nil)
	if err := get(t, c, s.URL); err != nil || asked != 1 {
		t.Errorf("without a guard: %v, %d requests", err, asked)
	}
	c.CloseIdleConnections()
}

func TestNotSent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Transport: Transport(nil)}
	if err := get(t, c, url); !NotSent(err) {
		t.Errorf("refused: %v", err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic(http.ErrAbortHandler)
	}))
	defer s.Close()
	if err := get(t, c, s.URL); err == nil || NotSent(err) {
		t.Errorf("cut off: %v", err)
	}
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	if err := get(t, c, secure.URL); !NotSent(err) {
		t.Errorf("a certificate of nobody's: %v", err)
	}
}
