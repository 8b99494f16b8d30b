package natsbus

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/shoalstore/shoal/core"
)

// Server is an embedded NATS server with JetStream, one coordinator of a
// generation of the bus.
type Server struct {
	opts     ServerOptions
	nats     *server.Server
	log      *serverLog
	password string // of clients

	once sync.Once
	done chan struct{}
}

// Start starts a server and returns once it listens. Whether the bus works is
// another matter: that takes a majority of its coordinators. The caller must
// call [Server.Shutdown]. ctx bounds the start only.
func Start(ctx context.Context, o ServerOptions) (*Server, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	dir := filepath.Join(o.Dir, generationName(o.Generation))
	password := o.Password
	if o.Closed {
		password = rand.Text() // known to this process only
	}
	no, err := o.nats(dir, password)
	if err != nil {
		return nil, err
	}
	// A port in use is the likeliest failure, and the server only logs it.
	if err := probe(ctx, no, len(o.Members) > 1); err != nil {
		return nil, err
	}
	if err := enterStore(dir, o); err != nil {
		return nil, err
	}
	ns, err := server.NewServer(no)
	if err != nil {
		return nil, fmt.Errorf("bus server of generation %d: %w", o.Generation, err)
	}
	s := &Server{opts: o, nats: ns, log: newServerLog(o.Logger, o.Generation), done: make(chan struct{}), password: password}
	ns.SetLoggerV2(s.log, false, false, false)
	ns.Start()
	if err := s.started(ctx); err != nil {
		s.Shutdown()
		return nil, fmt.Errorf("bus server of generation %d in %s: %w", o.Generation, dir, err)
	}
	if err := markStarted(dir); err != nil {
		s.Shutdown()
		return nil, err
	}
	return s, nil
}

// started waits until the server listens, or says why it does not.
func (s *Server) started(ctx context.Context) error {
	for {
		if err := s.log.fatal(); err != nil {
			return err
		}
		if s.nats.ReadyForConnections(50 * time.Millisecond) {
			return s.log.fatal()
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("not listening: %w", err)
		}
		if !s.nats.Running() {
			return errors.New("it stopped at once")
		}
	}
}

// Shutdown stops the server and returns when its last goroutine has ended. A
// leader hands over first, if there is somebody to hand over to.
func (s *Server) Shutdown() {
	s.once.Do(func() {
		s.nats.Shutdown()
		s.nats.WaitForShutdown()
		close(s.done)
	})
	<-s.done
}

// ClientAddr is the address at which clients connect.
func (s *Server) ClientAddr() string {
	if a := s.nats.Addr(); a != nil {
		return a.String()
	}
	return ""
}

// RouteAddr is the address at which coordinators connect, "" of a standalone
// server.
func (s *Server) RouteAddr() string {
	if a := s.nats.ClusterAddr(); a != nil {
		return a.String()
	}
	return ""
}

// Healthy says why the server takes no part in the bus any more, though it
// runs: its disk is full or failed. Only a new start helps.
func (s *Server) Healthy() error {
	if !s.nats.Running() {
		return fmt.Errorf("bus server of generation %d: it has stopped: %w", s.opts.Generation, core.ErrUnavailable)
	}
	if !s.nats.JetStreamEnabled() {
		return fmt.Errorf("bus server of generation %d: JetStream has stopped, most likely because %s is full or failed: %w",
			s.opts.Generation, s.opts.Dir, core.ErrUnavailable)
	}
	// After a failed write NATS serves that stream no more, rightly, until it
	// has read it again from the disk.
	for _, e := range s.nats.Healthz(&server.HealthzOptions{Details: true}).Errors {
		if strings.Contains(e.Error, "write error") {
			return fmt.Errorf("bus server of generation %d: %s: %w", s.opts.Generation, e.Error, core.ErrUnavailable)
		}
	}
	return nil
}

func (o ServerOptions) check() error {
	switch {
	case core.NodeID(o.Name).Validate() != nil:
		return core.NodeID(o.Name).Validate()
	case o.Cluster == "" || o.Generation == 0 || o.Dir == "":
		return fmt.Errorf("bus server: cluster, generation and directory are required: %w", core.ErrInvalid)
	case len(o.Members) == 2 || len(o.Members) > 5:
		return fmt.Errorf("bus server: %d coordinators: want 1, 3 or 5: %w", len(o.Members), core.ErrInvalid)
	case o.Logger == nil:
		return fmt.Errorf("bus server: a logger is required: %w", core.ErrInvalid)
	}
	return nil
}

// nats returns the options in NATS's terms.
func (o ServerOptions) nats(dir, password string) (*server.Options, error) {
	no := &server.Options{
		ServerName:             o.Name,
		NoSigs:                 true,
		NoLog:                  true, // a logger is set before the start
		MaxPayload:             MaxPayload,
		DisableJetStreamBanner: true,
		JetStream:              true,
		StoreDir:               dir,
		SyncAlways:             true,
		JetStreamMaxMemory:     16 << 20,
		JetStreamMaxStore:      o.MaxStore,
		PingInterval:           10 * time.Second,
		WriteDeadline:          5 * time.Second,
		MaxClosedClients:       16,
	}
	if o.MaxStore == 0 {
		no.JetStreamMaxStore = 1 << 30
	}
	if o.Closed {
		// NATS routes only where it also listens for clients.
		o.ClientAddr, o.User = "127.0.0.1:0", closedUser
	}
	var err error
	if no.Host, no.Port, err = splitAddr("client", o.ClientAddr); err != nil {
		return nil, err
	}
	if no.Port == 0 {
		no.Port = server.RANDOM_PORT
	}
	if o.User != "" {
		no.Users = []*server.User{{Username: o.User, Password: password}}
	}
	if o.ClientTLS != nil {
		no.TLS, no.TLSConfig, no.TLSTimeout = true, o.ClientTLS, 5
	}
	no.Cluster.Name = clusterName(o.Cluster, o.Generation)
	if len(o.Members) < 2 {
		return no, nil
	}
	if err := o.natsCluster(no); err != nil {
		return nil, err
	}
	return no, nil
}

// natsCluster adds what a server needs that is one of several.
func (o ServerOptions) natsCluster(no *server.Options) error {
	host, port, err := splitAddr("route", o.RouteAddr)
	if err != nil {
		return err
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	password := o.routePassword()
	no.Cluster = server.ClusterOpts{
		Name: no.Cluster.Name,
		Host: host, Port: port,
		Username: routeUser, Password: password,
		// Clients take the addresses from the map, not from servers.
		NoAdvertise: true,
		// One connection per peer is enough for a few messages a second.
		PoolSize:     -1,
		PingInterval: 2 * time.Second,
		MaxPingsOut:  2,
		// Compression would cost memory for nothing.
		Compression: server.CompressionOpts{Mode: server.CompressionOff},
	}
	if o.RouteTLS != nil {
		no.Cluster.TLSConfig, no.Cluster.TLSTimeout = o.RouteTLS, 5
	}
	// NATS takes the number of routes for the number of servers without which
	// its meta group is not formed at first: all but one of the members, which
	// is a majority, and goes on with a majority from there.
	for _, m := range o.Members {
		if m.Name == o.Name {
			no.Cluster.Advertise = m.Route
			continue
		}
		if _, _, err := net.SplitHostPort(m.Route); err != nil {
			return fmt.Errorf("bus coordinator %s: route address %q: want host:port: %w", m.Name, m.Route, core.ErrInvalid)
		}
		no.Routes = append(no.Routes, &url.URL{Scheme: "nats", Host: m.Route, User: url.UserPassword(routeUser, password)})
	}
	return nil
}

// Users of the embedded server that are not the client's.
const (
	routeUser  = "coordinator"
	closedUser = "exporter"
)

// routePassword tells generations, and open from closed servers, apart: no
// server forms a group with one that it must not.
func (o ServerOptions) routePassword() string {
	mode := "open"
	if o.Closed {
		mode = "closed"
	}
	h := hmac.New(sha256.New, []byte(o.RouteSecret))
	fmt.Fprintf(h, "%s %d %s", o.Cluster, o.Generation, mode)
	return hex.EncodeToString(h.Sum(nil))
}

// probe fails if an address that the server is to listen at is not free.
func probe(ctx context.Context, no *server.Options, routes bool) error {
	var lc net.ListenConfig
	try := func(what, host string, port int) error {
		if port <= 0 {
			return nil
		}
		l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(host, fmt.Sprint(port)))
		if err != nil {
			return fmt.Errorf("bus server: %s port: %w", what, err)
		}
		return l.Close()
	}
	if err := try("client", no.Host, no.Port); err != nil {
		return err
	}
	if routes {
		return try("route", no.Cluster.Host, no.Cluster.Port)
	}
	return nil
}
