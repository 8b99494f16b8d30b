package natsbus

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

// wallClock is the real clock.
type wallClock struct{}

func (wallClock) Now() time.Time     { return time.Now() }
func (wallClock) Boot() core.Instant { return core.Instant(time.Now().UnixNano()) }
func (wallClock) Wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// testLog writes to the test's log if SHOAL_TEST_LOG is set.
func testLog(t testing.TB, name string) *slog.Logger {
	t.Helper()
	w := io.Discard
	if os.Getenv("SHOAL_TEST_LOG") != "" {
		w = os.Stderr
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", name)
}

// ports gives out each port once, so that tests that run at the same time do
// not get in each other's way. They lie below those that the system gives to
// connections that go out.
var ports struct {
	sync.Mutex
	given map[int]bool
}

// freePorts returns addresses that nobody listens at.
func freePorts(t testing.TB, n int) []string {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	if ports.given == nil {
		ports.given = map[int]bool{}
	}
	var out []string
	for len(out) < n {
		port := 15000 + rand.IntN(17000)
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		if ports.given[port] {
			continue
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		_ = l.Close()
		ports.given[port] = true
		out = append(out, addr)
	}
	return out
}

// eventually waits until f returns nil.
func eventually(t testing.TB, limit time.Duration, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		_ = wallClock{}.Wait(t.Context(), 20*time.Millisecond)
	}
}

// checkLeaks fails the test if goroutines of this test are left at its end.
// It must be called first, and not by parallel tests.
func checkLeaks(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		deadline := time.Now().Add(5 * time.Second)
		for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
			_ = wallClock{}.Wait(context.Background(), 20*time.Millisecond)
		}
		if n := runtime.NumGoroutine(); n > before {
			buf := make([]byte, 1<<20)
			t.Errorf("%d goroutines before, %d after:\n%s", before, n, buf[:runtime.Stack(buf, true)])
		}
	})
}

const (
	testUser     = "shoaldev"
	testPassword = "shoaldev-secret"
)

// newCluster returns a name that no other cluster has.
func newCluster() string { return fmt.Sprintf("test-%x", rand.Uint64()) }

// testBus is a set of servers within this process.
type testBus struct {
	t       testing.TB
	dirs    map[string]string
	members []Member
	servers map[string]*Server
	cluster string
	gen     uint64
}

// newTestBus prepares n coordinators; start starts them.
func newTestBus(t testing.TB, n int) *testBus {
	t.Helper()
	b := &testBus{t: t, dirs: map[string]string{}, servers: map[string]*Server{}, cluster: newCluster(), gen: 1}
	ports := freePorts(t, 2*n)
	for i := range n {
		m := Member{Name: fmt.Sprintf("n%d", i+1), Client: ports[2*i], Route: ports[2*i+1]}
		b.members = append(b.members, m)
		b.dirs[m.Name] = t.TempDir()
	}
	t.Cleanup(func() {
		for _, s := range b.servers {
			s.Shutdown()
		}
	})
	return b
}

func (b *testBus) options(name string) ServerOptions {
	o := ServerOptions{
		Name: name, Cluster: b.cluster, Generation: b.gen, Dir: b.dirs[name], Members: b.members,
		User: testUser, Password: testPassword, RouteSecret: "routes", Logger: testLog(b.t, name),
	}
	for _, m := range b.members {
		if m.Name == name {
			o.ClientAddr, o.RouteAddr = m.Client, m.Route
		}
	}
	return o
}

func (b *testBus) start(names ...string) {
	b.t.Helper()
	if len(names) == 0 {
		for _, m := range b.members {
			names = append(names, m.Name)
		}
	}
	for _, n := range names {
		s, err := Start(b.t.Context(), b.options(n))
		if err != nil {
			b.t.Fatal(err)
		}
		b.servers[n] = s
	}
}

func (b *testBus) stop(name string) {
	b.servers[name].Shutdown()
	delete(b.servers, name)
}

func (b *testBus) urls() []string {
	var out []string
	for _, m := range b.members {
		out = append(out, ClientURL(m.Client, false))
	}
	return out
}

func (b *testBus) client(name string) *Client {
	b.t.Helper()
	c, err := Connect(ClientOptions{
		URLs: b.urls(), Generation: b.gen, Cluster: b.cluster, Name: name, Logger: testLog(b.t, name),
		Credentials: Credentials{User: testUser, Password: testPassword},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(c.Close)
	return c
}

// within returns a ctx that ends with the test or after d.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
