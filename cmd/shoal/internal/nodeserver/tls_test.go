package nodeserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/bus/natsbus"
	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/core"
)

// authority signs certificates and writes them to files.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.key = newKey(t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	file := filepath.Join(a.dir, name)
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return file
}

// node makes the files of a node on 127.0.0.1.
func (a *authority) node(name string) config.TLSFiles {
	a.t.Helper()
	key := newKey(a.t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return config.TLSFiles{
		Cert: a.write(name+".pem", "CERTIFICATE", der), Key: a.write(name+".key", "EC PRIVATE KEY", keyDER), CA: filepath.Join(a.dir, "ca.pem"),
	}
}

// TestBusTLS runs the coordinators of three nodes from what their
// configurations say.
func TestBusTLS(t *testing.T) {
	t.Parallel()
	if c, err := busTLSConfigs(config.Config{}); err != nil || c != (busTLS{}) {
		t.Errorf("no certificates: got %+v, %v, want no TLS", c, err)
	}
	a := newAuthority(t)
	if _, err := busTLSConfigs(config.Config{TLS: config.TLS{Bus: config.TLSFiles{Cert: "/none", Key: "/none"}}}); err == nil {
		t.Error("certificates that are not there: want an error")
	}
	var members []natsbus.Member
	for _, n := range []string{"n1", "n2", "n3"} {
		members = append(members, natsbus.Member{Name: n, Client: freeAddr(t), Route: freeAddr(t)})
	}
	log := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var client *tls.Config
	var urls []string
	for i, m := range members {
		// The first by its own section, the others by that of peers.
		cfg := config.Config{TLS: config.TLS{Peer: a.node(m.Name)}}
		if i == 0 {
			cfg.TLS = config.TLS{Bus: a.node(m.Name), Peer: newAuthority(t).node(m.Name)}
		}
		secure, err := busTLSConfigs(cfg)
		if err != nil {
			t.Fatal(err)
		}
		client = secure.client
		s, err := natsbus.Start(ctx, natsbus.ServerOptions{
			Name: m.Name, Cluster: "c1", Generation: 1, Dir: t.TempDir(), ClientAddr: m.Client, RouteAddr: m.Route, Members: members,
			User: "u", Password: "p", RouteSecret: "secret", ClientTLS: secure.server, RouteTLS: secure.route, Logger: log,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Shutdown)
		urls = append(urls, natsbus.ClientURL(m.Client, true))
	}
	connect := func(c *tls.Config) *natsbus.Client {
		k, err := natsbus.Connect(natsbus.ClientOptions{
			URLs: urls, Generation: 1, Cluster: "c1", Name: "c", TLS: c, Logger: log, Credentials: natsbus.Credentials{User: "u", Password: "p"},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(k.Close)
		return k
	}
	k := connect(client)
	if err := k.Import(ctx, bus.Snapshot{}, 3); err != nil {
		t.Fatalf("three coordinators do not work together: %v", err)
	}
	if _, err := k.Map().Create(ctx, []byte("1")); err != nil {
		t.Fatal(err)
	}
	// A client needs no certificate of its own, but the right authority.
	bare := client.Clone()
	bare.Certificates = nil
	if err := connect(bare).WaitConnected(ctx); err != nil {
		t.Errorf("a client with user and password only: %v", err)
	}
	other, err := busTLSConfigs(config.Config{TLS: config.TLS{Bus: newAuthority(t).node("n9")}})
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]*tls.Config{"another authority": other.client, "none": nil} {
		short, cancel := context.WithTimeout(ctx, time.Second)
		if err := connect(c).WaitConnected(short); !errors.Is(err, core.ErrUnavailable) {
			t.Errorf("%s: got %v, want %v", what, err, core.ErrUnavailable)
		}
		cancel()
	}
	// A server without a certificate of the authority makes no route.
	d := tls.Dialer{Config: &tls.Config{RootCAs: client.RootCAs, MinVersion: tls.VersionTLS13}}
	plain, err := net.Dial("tcp", members[0].Route)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = plain.Close() }()
	if err := tlsRefused(ctx, d.Config, plain); err == nil {
		t.Error("the route port takes a server without a certificate")
	}
}

// tlsRefused tries to become a route: NATS greets in plain text, then both ends
// turn to TLS. The refusal comes with the first read after the handshake.
func tlsRefused(ctx context.Context, c *tls.Config, conn net.Conn) error {
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	if _, err := conn.Read(make([]byte, 4096)); err != nil {
		return err
	}
	c = c.Clone()
	c.ServerName = "127.0.0.1"
	s := tls.Client(conn, c)
	if err := s.HandshakeContext(ctx); err != nil {
		return err
	}
	_, err := s.Read(make([]byte, 1))
	return err
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
