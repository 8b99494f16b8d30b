package natsbus

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
)

// TestNoLeaks starts and stops everything and counts goroutines. It must not
// run beside others.
func TestNoLeaks(t *testing.T) {
	checkLeaks(t)
	b := newTestBus(t, 3)
	b.start()
	c := b.client("c")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := c.Import(ctx, bus.Snapshot{}, 3); err != nil {
		t.Fatal(err)
	}
	rev, err := c.Map().Create(ctx, []byte("1"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	working, stop := context.WithCancel(ctx)
	wg.Go(func() {
		for range c.Map().Watch(working) {
		}
	})
	wg.Go(func() {
		if err := c.Serve(working, bus.Service{Name: "s", Version: "1.0.0", Endpoints: []bus.Endpoint{
			{Name: "e", Subject: "shoal.test.e", Handler: func(context.Context, []byte) (any, error) { return 1, nil }},
		}}); err != nil {
			t.Error(err)
		}
	})
	if _, err := c.Request(ctx, "shoal.test.e", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Subscribe(working, "shoal.event.>"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Map().CompareAndSet(ctx, []byte("2"), rev); err != nil {
		t.Fatal(err)
	}
	stop()
	wg.Wait()
	c.Close()
	for _, m := range b.members {
		b.stop(m.Name)
	}
}

func TestServerRefuses(t *testing.T) {
	t.Parallel()
	b := newTestBus(t, 1)
	o := b.options("n1")
	try := func(what string, want error, change func(*ServerOptions)) {
		t.Helper()
		c := o
		change(&c)
		s, err := Start(t.Context(), c)
		if err == nil {
			s.Shutdown()
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", what, err, want)
		}
	}
	try("bad name", core.ErrInvalid, func(o *ServerOptions) { o.Name = "N 1" })
	try("two members", core.ErrInvalid, func(o *ServerOptions) { o.Members = make([]Member, 2) })
	try("no generation", core.ErrInvalid, func(o *ServerOptions) { o.Generation = 0 })
	try("bad address", core.ErrInvalid, func(o *ServerOptions) { o.ClientAddr = "nowhere" })
	try("nothing to close", core.ErrNotFound, func(o *ServerOptions) { o.Closed = true })

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	try("port in use", syscall.EADDRINUSE, func(o *ServerOptions) { o.ClientAddr = l.Addr().String() })

	b.start()
	b.stop("n1")
	try("another node's store", core.ErrInvalid, func(o *ServerOptions) { o.Name = "n2" })
	s, err := Start(t.Context(), func() ServerOptions { o.Closed = true; return o }())
	if err != nil {
		t.Fatal(err)
	}
	s.Shutdown()
	try("a closed store", core.ErrConflict, func(o *ServerOptions) { o.Closed = false })

	// A file where the directory should be, and a damaged label.
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	try("a file for a directory", syscall.ENOTDIR, func(o *ServerOptions) { o.Dir = file })
	if err := os.WriteFile(filepath.Join(o.Dir, "bus-1", labelFile), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	try("a damaged label", core.ErrCorrupt, func(*ServerOptions) {})
}

// TestLostStore checks that a coordinator that lost its store, in whole or in
// part, is not let back as if it were new, and that the others go on.
func TestLostStore(t *testing.T) {
	t.Parallel()
	b := newTestBus(t, 3)
	b.start()
	b.ready()
	c := b.client("c")
	ctx := within(t, 60*time.Second)
	rev, err := c.Map().Create(ctx, []byte("1"))
	if err != nil {
		t.Fatal(err)
	}
	b.stop("n3")
	dir := filepath.Join(b.dirs["n3"], "bus-1")
	for _, loss := range []string{"jetstream/$SYS", "jetstream", labelFile} {
		kept := filepath.Join(t.TempDir(), "kept")
		if err := os.Rename(filepath.Join(dir, loss), kept); err != nil {
			t.Fatal(err)
		}
		s, err := Start(ctx, b.options("n3"))
		if err == nil {
			s.Shutdown()
		}
		if !errors.Is(err, core.ErrCorrupt) {
			t.Errorf("start without %s: got %v, want %v", loss, err, core.ErrCorrupt)
		}
		if err := os.Rename(kept, filepath.Join(dir, loss)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Map().CompareAndSet(ctx, []byte("2"), rev); err != nil {
		t.Fatalf("write with two of three: %v", err)
	}
	b.start("n3")
}

// TestDamagedStore overwrites the files of a coordinator's streams while it is
// down. Whatever it comes back with, nothing that was acknowledged is lost.
func TestDamagedStore(t *testing.T) {
	t.Parallel()
	b := newTestBus(t, 3)
	b.start()
	b.ready()
	c := b.client("c")
	ctx := within(t, 90*time.Second)
	keys := map[string]string{}
	for i := range 50 {
		k, v := fmt.Sprintf("spec.j%d", i), fmt.Sprintf("value %d", i)
		if _, err := c.Jobs().Create(ctx, k, []byte(v)); err != nil {
			t.Fatal(err)
		}
		keys[k] = v
	}
	b.stop("n2")
	damaged := 0
	err := filepath.WalkDir(b.dirs["n2"], func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".blk") || !strings.Contains(path, "streams") {
			return err
		}
		damaged++
		return os.WriteFile(path, []byte("this was a block of messages"), 0o600)
	})
	if err != nil || damaged == 0 {
		t.Fatalf("damaged %d files: %v", damaged, err)
	}
	b.start("n2")
	if _, err := c.Jobs().Create(ctx, "spec.after", []byte("x")); err != nil {
		t.Fatalf("write after the damage: %v", err)
	}
	eventually(t, 60*time.Second, "the damaged replica to be brought level", func() error {
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		for _, r := range st.Replicas {
			if !r.Current {
				return fmt.Errorf("%+v", r)
			}
		}
		return nil
	})
	for k, v := range keys {
		if e, err := c.Jobs().Get(ctx, k); err != nil || string(e.Value) != v {
			t.Errorf("%s: got %q, %v, want %q", k, e.Value, err, v)
		}
	}
}

// TestFullDisk fills the disk of the only coordinator: writes are refused, and
// go on once there is space again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	b := newTestBus(t, 1)
	b.dirs["n1"] = dir
	node := newNode(t, b, "n1")
	node.coordinator.Follow(Target{Generation: 1, Members: b.members})
	c := node.client
	ctx := within(t, 90*time.Second)
	if err := c.Import(ctx, bus.Snapshot{}, 1); err != nil {
		t.Fatal(err)
	}
	value := make([]byte, 100<<10)
	last, lastKey := bus.Revision(0), ""
	var refused error
	for i := range 100 {
		key := fmt.Sprintf("spec.big%d", i)
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		rev, err := c.Jobs().Create(short, key, value)
		cancel()
		if err != nil {
			refused = err
			break
		}
		last, lastKey = rev, key
	}
	if !errors.Is(refused, core.ErrUnavailable) && !errors.Is(refused, core.ErrUnknownOutcome) {
		t.Fatalf("write to a full disk: got %v, want unavailable or outcome unknown", refused)
	}
	t.Logf("refused with: %v", refused)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 60*time.Second, "a write after there is space", func() error {
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		_, err := c.Jobs().Create(short, "spec.after", value)
		if errors.Is(err, core.ErrExists) {
			return nil
		}
		return err
	})
	if err := c.Jobs().Confirm(ctx, lastKey, last); err != nil {
		t.Errorf("what was acknowledged before the disk was full: %v", err)
	}
}

// node is a coordinator within this process.
type node struct {
	client      *Client
	coordinator *Coordinator
	stop        func()
}

func newNode(t testing.TB, b *testBus, name string) *node {
	t.Helper()
	o := b.options(name)
	client, err := Connect(ClientOptions{
		URLs: []string{ClientURL(o.ClientAddr, o.ClientTLS != nil)}, Generation: 1, Cluster: b.cluster, Name: name, Logger: testLog(t, name),
		Credentials: Credentials{User: testUser, Password: testPassword},
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewCoordinator(CoordinatorOptions{Server: o, Client: client, Clock: wallClock{}, Logger: testLog(t, name)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	n := &node{client: client, coordinator: c}
	n.stop = sync.OnceFunc(func() { cancel(); wg.Wait(); client.Close() })
	t.Cleanup(n.stop)
	return n
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	b := newTestBus(t, 1)
	b.start()
	b.ready()
	for what, cr := range map[string]Credentials{
		"nothing": {}, "wrong password": {User: testUser, Password: "x"}, "wrong user": {User: "x", Password: testPassword}, "token": {Token: "x"},
	} {
		c, err := Connect(ClientOptions{URLs: b.urls(), Generation: 1, Cluster: b.cluster, Name: "c", Logger: testLog(t, "c"), Credentials: cr})
		if err != nil {
			t.Fatalf("%s: connect: %v", what, err)
		}
		t.Cleanup(c.Close)
		if err := c.WaitConnected(within(t, 300*time.Millisecond)); !errors.Is(err, core.ErrPermission) || !strings.Contains(err.Error(), "bus.password") {
			t.Errorf("%s: got %v, want %v that names the setting", what, err, core.ErrPermission)
		}
		if _, _, err := c.Map().Load(within(t, 300*time.Millisecond)); !errors.Is(err, core.ErrPermission) {
			t.Errorf("%s: load: got %v, want %v", what, err, core.ErrPermission)
		}
	}
	for what, cr := range map[string]Credentials{
		"no nkey seed": {NKeySeedFile: filepath.Join(t.TempDir(), "none")},
	} {
		if _, err := Connect(ClientOptions{URLs: b.urls(), Logger: testLog(t, "c"), Credentials: cr}); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%s: got %v, want %v", what, err, core.ErrInvalid)
		}
	}
}

// TestExternal uses a NATS server that Shoal did not start: generation 0, with
// an nkey and with restricted permissions.
func TestExternal(t *testing.T) {
	t.Parallel()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, _ := pair.PublicKey()
	seed, _ := pair.Seed()
	file := filepath.Join(t.TempDir(), "seed")
	if err := os.WriteFile(file, seed, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := server.NewServer(&server.Options{
		ServerName: "external", Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
		JetStreamMaxMemory: 1 << 20, JetStreamMaxStore: 1 << 30,
		Nkeys: []*server.NkeyUser{{Nkey: public}},
		Users: []*server.User{{Username: "reader", Password: "r", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"$KV.>", "shoal.event.>"}},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server does not start")
	}
	open := func(cr Credentials) *Client {
		c, err := Connect(ClientOptions{URLs: []string{s.ClientURL()}, Name: "c", Logger: testLog(t, "c"), Credentials: cr})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	c := open(Credentials{NKeySeedFile: file})
	ctx := within(t, 20*time.Second)
	if _, _, err := c.Map().Load(within(t, 500*time.Millisecond)); !errors.Is(err, core.ErrUnavailable) || errors.Is(err, bus.ErrNoValue) {
		t.Errorf("load before it was set up: got %v, want %v", err, core.ErrUnavailable)
	}
	if err := c.Import(ctx, bus.Snapshot{}, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Map().Create(ctx, []byte("1")); err != nil {
		t.Fatal(err)
	}
	r := open(Credentials{User: "reader", Password: "r"})
	v, rev, err := r.Map().Load(ctx)
	if err != nil || string(v) != "1" {
		t.Fatalf("reader: got %q, %v", v, err)
	}
	_, err = r.Map().CompareAndSet(within(t, 3*time.Second), []byte("2"), rev)
	if !errors.Is(err, core.ErrPermission) || !strings.Contains(err.Error(), "$KV.shoal_map_0") {
		t.Errorf("reader writes: got %v, want an error that says why", err)
	}
}

// TestTLS runs three coordinators whose clients and routes need TLS.
func TestTLS(t *testing.T) {
	t.Parallel()
	ca := newTestCA(t)
	b := newTestBus(t, 3)
	for _, m := range b.members {
		o := b.options(m.Name)
		o.ClientTLS, o.RouteTLS = ca.server(), ca.server()
		s, err := Start(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		b.servers[m.Name] = s
	}
	var urls []string
	for _, m := range b.members {
		urls = append(urls, ClientURL(m.Client, true))
	}
	open := func(cfg *tls.Config) *Client {
		c, err := Connect(ClientOptions{
			URLs: urls, Generation: 1, Cluster: b.cluster, Name: "c", Logger: testLog(t, "c"), TLS: cfg,
			Credentials: Credentials{User: testUser, Password: testPassword},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	c := open(ca.client())
	if err := c.Import(within(t, 30*time.Second), bus.Snapshot{}, 3); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Map().Create(within(t, 10*time.Second), []byte("1")); err != nil {
		t.Fatal(err)
	}
	if err := c.Use(1, urls[2:]); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Map().Load(within(t, 10*time.Second)); err != nil {
		t.Errorf("after a change of servers: %v", err)
	}
	if url, _ := c.Connected(); url != urls[2] {
		t.Errorf("connected to %s, want %s", url, urls[2])
	}
	other := newTestCA(t)
	for what, cfg := range map[string]*tls.Config{"another authority": other.client(), "none": nil} {
		if err := open(cfg).WaitConnected(within(t, time.Second)); !errors.Is(err, core.ErrUnavailable) || !strings.Contains(err.Error(), "bus.ca") {
			t.Errorf("%s: got %v, want %v that names the setting", what, err, core.ErrUnavailable)
		}
	}
}

// TestRouteSecret checks that a server that does not know the secret gets into
// no cluster.
func TestRouteSecret(t *testing.T) {
	t.Parallel()
	b := newTestBus(t, 3)
	b.start("n1")
	o := b.options("n2")
	o.RouteSecret = "guessed"
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown()
	_ = wallClock{}.Wait(t.Context(), 2*time.Second) // time in which it would connect
	if n := b.servers["n1"].nats.NumRoutes(); n != 0 {
		t.Errorf("%d routes to a server with another secret", n)
	}
}

type testCA struct {
	t    testing.TB
	pool *x509.CertPool
	cert tls.Certificate
}

// newTestCA makes an authority and one certificate for 127.0.0.1.
func newTestCA(t testing.TB) *testCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &testCA{t: t, pool: pool, cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
}

func (c *testCA) server() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{c.cert}, RootCAs: c.pool,
		ClientCAs: c.pool, ClientAuth: tls.RequireAndVerifyClientCert,
	}
}

func (c *testCA) client() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{c.cert}, RootCAs: c.pool}
}
