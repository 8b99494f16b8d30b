package nodeserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/shoalstore/shoal/bus/natsbus"
	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/disk"
	"github.com/shoalstore/shoal/core/engine"
	"github.com/shoalstore/shoal/core/etl"
	"github.com/shoalstore/shoal/core/job"
	"github.com/shoalstore/shoal/core/peer"
	"github.com/shoalstore/shoal/core/slot"
	"github.com/shoalstore/shoal/ec"
	"github.com/shoalstore/shoal/mirror"
	"github.com/shoalstore/shoal/plugins/s3gateway"
	"github.com/shoalstore/shoal/wasmetl"
)

// stopPatience is how long a node that stops waits for others to take its slots
// and for its clients to be served.
const stopPatience = 10 * time.Second

// server is a node with everything around it.
type server struct {
	cfg     config.Config
	version string
	log     *slog.Logger
	clock   systemClock
	started time.Time
	// boot is the number of this start.
	boot uint64

	// acting is held by who does something with a disk.
	acting sync.Mutex

	mu    sync.Mutex
	disks []*openDisk
	// unusable says why disks of the configuration are not open, by path.
	unusable map[string]error

	state *state
	// former are nodes that a recovery went on without; they are told of it
	// when they come back after all.
	former []core.Node
	cache  *disk.Cache
	peers  *peer.Transport
	bus    *natsbus.Client
	coord  *natsbus.Coordinator
	node   *engine.Node
	jobs   *job.Manager
	meter  *meter
	// strikes is what happened to nodes and disks of late.
	strikes *strikes
	events  *publisher
	// transforms knows the cluster's transforms, wasm runs them.
	transforms *etl.Registry
	wasm       *wasmetl.Host
	coders     coders
	// remotes opens what speaks to the remote of a bucket; nil if there is nothing.
	remotes func(core.BucketName, core.RemoteSettings) (core.Backend, error)

	clientTLS *tls.Config
}

// openDisk is a disk of the configuration that could be opened.
type openDisk struct {
	name, path string
	weight     float64
	disk       *disk.Disk
}

// RunOptions are what the configuration does not say.
type RunOptions struct {
	// Version is shown of the program.
	Version string
	// WithoutDisks starts the node even if none of its disks can be used; they
	// are failed then, and can be formatted.
	WithoutDisks bool
}

// Run runs a node until ctx ends, then hands its slots to others and stops. All
// that it started has ended when it returns.
func Run(ctx context.Context, cfg config.Config, o RunOptions, log *slog.Logger) (err error) {
	s := &server{cfg: cfg, version: o.Version, log: log.With("node", cfg.Node.Name), started: time.Now()}
	if s.state, err = openState(cfg.Node.Data); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.state.close()) }()
	if got := string(s.state.id.Node); got != cfg.Node.Name {
		return fmt.Errorf("node.name is %q, but node.data %s belongs to node %q: %w", cfg.Node.Name, cfg.Node.Data, got, core.ErrInvalid)
	}
	known, voter, err := s.knownMap(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.closeDisks()) }()
	if err := s.openAll(ctx, o.WithoutDisks); err != nil {
		return err
	}
	return s.serve(ctx, known, voter)
}

// knownMap returns the newest of the stored maps and the voter's state, once it
// is sure that no other process runs this node.
func (s *server) knownMap(ctx context.Context) (*core.Map, slot.VoterState, error) {
	none := slot.VoterState{}
	known, err := s.state.readMap("map")
	if err != nil && !errors.Is(err, core.ErrCorrupt) {
		return nil, none, err
	}
	if known != nil {
		if err := s.alone(ctx, known); err != nil {
			return nil, none, err
		}
	}
	voter, err := s.state.voter()
	if err != nil {
		return nil, none, err
	}
	if known == nil || voter.Map != nil && voter.Map.Epoch > known.Epoch {
		known = voter.Map
	}
	if known == nil {
		return nil, none, fmt.Errorf("node.data %s: the stored maps are lost or damaged; decommission this node and let it join anew, or use `shoal recover`: %w", s.state.dir, core.ErrCorrupt)
	}
	s.boot = bootOf(s.clock.Now(), known.Node(s.state.id.Node))
	return known, voter, nil
}

// openAll opens what can be opened. A disk that is not there, or not a disk,
// is an operator's to look at; the others serve meanwhile. Where there are none
// the node does not start unless it is told to: most likely they are not mounted
// yet, and a node that is down has its grace before all it held is built again.
func (s *server) openAll(ctx context.Context, evenNone bool) error {
	cache := int64(s.cfg.Limits.Cache)
	if cache == 0 {
		cache = 64 << 20
	}
	s.cache = disk.NewCache(cache, 1024, len(s.cfg.Disks))
	var failed error
	for i, d := range s.cfg.Disks {
		opened, err := disk.Open(ctx, disk.Options{
			Dir: d.Path, Clock: s.clock, Cluster: s.state.id.Cluster, Node: s.state.id.Node, Cache: s.cache, Log: s.log,
		})
		name := diskName(i, d.Path)
		if errors.Is(err, core.ErrLocked) {
			return fmt.Errorf("disks[%d]: %w; %s", i, err, s.diskHint(name, err))
		}
		if err == nil {
			err = s.state.mayUse(opened)
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("disks[%d]: %w; %s", i, err, s.diskHint(name, err)))
			s.log.Error("disk cannot be used", "disk", name, "path", d.Path, "err", err, "hint", s.diskHint(name, err))
			s.note(d.Path, err)
			continue
		}
		s.disks = append(s.disks, &openDisk{name: name, path: d.Path, weight: weightOf(d), disk: opened})
	}
	if len(s.disks) == 0 && !evenNone {
		return fmt.Errorf("none of the node's disks can be used; if all are to be new, start the node once with --without-disks and format them: %w", failed)
	}
	return nil
}

// note remembers why a disk cannot be used; nil forgets it.
func (s *server) note(path string, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unusable == nil {
		s.unusable = map[string]error{}
	}
	s.unusable[path] = why
	if why == nil {
		delete(s.unusable, path)
	}
}

// diskHint says what to do about a disk that cannot be opened.
func (s *server) diskHint(name string, err error) string {
	id := s.cfg.Node.Name + "/" + name
	switch {
	case errors.Is(err, errExcluded):
		return "if there is nothing on it that must be saved: `shoal disk format " + id + "`"
	case errors.Is(err, core.ErrLocked):
		return "stop the process that uses it, or take the disk out of one of the configurations"
	case errors.Is(err, core.ErrNewer):
		return "run the version that this disk was used with, or a later one"
	case errors.Is(err, disk.ErrForeign):
		return "attach the disk that belongs here; `shoal disk format " + id + "` would make this one new, and all that it holds would be lost"
	case errors.Is(err, core.ErrUnformatted):
		return "mount the disk, then `shoal disk attach " + id + "`; where it is to be a new one: `shoal disk format " + id + "`"
	case errors.Is(err, fs.ErrPermission):
		return "let the user that runs the server read and write it, then `shoal disk attach " + id + "`"
	case errors.Is(err, disk.ErrIdentity):
		return "if it cannot be restored: `shoal disk format " + id + "`; what it held is built again from other disks"
	case errors.Is(err, core.ErrCorrupt):
		return "`shoal disk rebuild " + id + "` keeps its data and builds its index again"
	}
	return "when it is repaired: `shoal disk attach " + id + "`"
}

func (s *server) closeDisks() (err error) {
	for _, d := range s.openDisks() {
		err = errors.Join(err, d.disk.Close())
	}
	s.cache.Close()
	return err
}

// coders makes one coder for each scheme that is met.
type coders struct {
	mu  sync.Mutex
	all map[core.Scheme]core.Coder
}

func (c *coders) get(s core.Scheme, clock core.Clock) core.Coder {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.K = s.Data()
	if k := c.all[s]; k != nil {
		return k
	}
	var k core.Coder
	var err error
	if s.EC {
		k, err = ec.New(s, ec.Options{Clock: clock})
	} else {
		k, err = mirror.New(s, mirror.Options{Clock: clock})
	}
	if err != nil {
		return refusingCoder{s, err}
	}
	if c.all == nil {
		c.all = map[core.Scheme]core.Coder{}
	}
	c.all[s] = k
	return k
}

func (c *coders) wait() {
	for _, k := range c.all {
		k.Wait()
	}
}

// refusingCoder stands for a scheme that a damaged record names.
type refusingCoder struct {
	scheme core.Scheme
	err    error
}

func (r refusingCoder) Scheme() core.Scheme { return r.scheme }
func (refusingCoder) Wait()                 {}

func (r refusingCoder) Write(context.Context, core.WriteSpec, io.Reader) (core.Extent, error) {
	return core.Extent{}, r.err
}

func (r refusingCoder) Open(context.Context, core.ReadSpec) (core.ExtentReader, error) {
	return nil, r.err
}

func (r refusingCoder) Repair(context.Context, core.RepairSpec) (core.Extent, error) {
	return core.Extent{}, r.err
}

// serve puts the parts together and runs them.
func (s *server) serve(ctx context.Context, known *core.Map, voter slot.VoterState) (err error) {
	listeners, err := s.listen()
	if err != nil {
		return err
	}
	defer listeners.close()
	if s.former, err = s.state.former(); err != nil {
		return err
	}
	if err := s.busThere(known); err != nil {
		return err
	}
	if err := s.connect(known, listeners.peer); err != nil {
		return err
	}
	defer s.bus.Close()
	s.meter = newMeter(s.clock, s.state.id.Node)
	s.strikes = newStrikes(s.clock)
	s.events = newPublisher(s)
	pool := s.newPool(ctx)
	defer func() { err = errors.Join(err, pool.Close()) }()
	s.remotes = remotesOf(pool)
	s.meter.remotes.counts = func() map[remoteKind]remoteCount { return countsOf(pool) }
	s.node = engine.New(engine.Options{
		Remote: s.remotes,
		OnMap:  s.events.onMap,
		Self:   self(s.cfg), Boot: s.boot, Transport: transport{s.peers}, Register: s.bus.Map(),
		Clock: s.clock, Log: s.log, Voter: voter, SaveVoter: s.state.saveVoter, Map: known, SaveMap: s.state.saveMap,
		Coder:    func(c core.Scheme) core.Coder { return s.coders.get(c, s.clock) },
		Defaults: s.defaults(), ReconcileBandwidth: int64(s.cfg.Limits.ReconcileBandwidth),
		ConfirmReads: s.cfg.Cluster.Reads == config.ReadsConfirm,
		Access:       s.state.access(s.log), SaveAccess: s.state.saveAccess,
	})
	for _, d := range s.disks {
		s.node.AddDisk(engine.LocalDisk{UUID: d.disk.Identity().UUID, Name: d.name, Weight: d.weight, Disk: d.disk})
	}
	if err := s.newTransforms(); err != nil {
		return err
	}
	s.jobs = job.New(job.Options{
		Transforms: s.transforms,
		Node:       s.node, KV: s.bus.Jobs(), Clock: s.clock, Log: s.log, OnChange: s.events.onJob, Space: s.space(),
		OnObject: func(op string, began time.Time, written int64, err error) { s.meter.done(op, began, written, 0, err) },
	})
	s.node.Handle(methodLocal, s.serveLocal)
	s.node.Handle(methodDisk, s.serveDisk)
	s.register()
	return s.runAll(ctx, listeners)
}

// connect makes the connections to the other nodes and to the bus.
func (s *server) connect(known *core.Map, l net.Listener) (err error) {
	var peerTLS *tls.Config
	if s.clientTLS, peerTLS, err = tlsConfigs(s.cfg); err != nil {
		return err
	}
	s.peers, err = peer.New(peer.Options{
		Cluster: s.state.id.Cluster, Self: s.state.id.Node, Secret: []byte(s.cfg.Cluster.Secret), Listener: l,
		Resolve: s.resolve, Clock: s.clock, TLS: peerTLS, Log: s.log,
	})
	if err != nil {
		return err
	}
	secure, err := busTLSConfigs(s.cfg)
	if err != nil {
		return err
	}
	target := busTarget(known)
	var urls []string
	for _, m := range target.Members {
		urls = append(urls, natsbus.ClientURL(m.Client, secure.client != nil))
	}
	user, password := busLogin(s.cfg)
	o := natsbus.ClientOptions{
		URLs: urls, Generation: target.Generation, Name: s.cfg.Node.Name, Logger: s.log,
		Credentials: natsbus.Credentials{User: user, Password: password}, TLS: secure.client,
	}
	if s.cfg.Bus.URL != "" {
		return s.connectOutside(o)
	}
	if s.bus, err = natsbus.Connect(o); err != nil {
		return err
	}
	s.coord, err = natsbus.NewCoordinator(natsbus.CoordinatorOptions{
		Server: natsbus.ServerOptions{
			Name: s.cfg.Node.Name, Cluster: s.state.id.Cluster, Dir: s.state.file("bus"),
			ClientAddr: s.cfg.Listen.Bus, RouteAddr: s.cfg.Listen.Route,
			User: user, Password: password, RouteSecret: string(s.cfg.Cluster.Secret), Logger: s.log,
			ClientTLS: secure.server, RouteTLS: secure.route,
		},
		Client: s.bus, Clock: s.clock, Logger: s.log,
	})
	if err == nil {
		s.coord.Follow(target)
	}
	return err
}

// resolve returns the peer address of a node.
func (s *server) resolve(id core.NodeID) (string, bool) {
	m := s.node.NewestMap()
	if m == nil {
		return "", false
	}
	if n := m.Node(id); n != nil {
		return n.Peer, true
	}
	for i := range s.former {
		if s.former[i].ID == id {
			return s.former[i].Peer, true
		}
	}
	return "", false
}

// busTarget is the set of coordinators that a map asks for: its voters.
func busTarget(m *core.Map) natsbus.Target {
	t := natsbus.Target{Generation: max(m.Bus, 1)}
	for _, v := range m.Voters {
		if n := m.Node(v.Node); n != nil {
			t.Members = append(t.Members, natsbus.Member{Name: string(n.ID), Client: n.Bus, Route: n.Route})
		}
	}
	return t
}

// register tells the transport who takes what arrives.
func (s *server) register() {
	s.peers.Handle(handler{s.node})
	for _, method := range slices.Concat(engine.Methods(), job.Methods(), []uint16{methodLocal, methodDisk, methodTransform, methodTransforms}) {
		s.peers.HandleCall(method, func(ctx context.Context, from core.NodeID, req []byte) ([]byte, error) {
			return s.node.Call(ctx, from, method, req)
		})
	}
	s.peers.ServeStores(s.node.Store)
}

// handler gives the node what the transport receives.
type handler struct{ node *engine.Node }

func (h handler) Message(from core.NodeID, msg []byte) { h.node.Message(from, msg) }
func (h handler) Peer(node core.NodeID, up bool)       { h.node.PeerDown(node, !up) }

// transport is a peer.Transport as the engine wants it.
type transport struct{ *peer.Transport }

func (t transport) Store(node core.NodeID, d core.DiskID) core.Store {
	return t.Transport.Store(node, d)
}

// defaults are the properties of new buckets that the configuration sets.
func (s *server) defaults() core.Policy {
	p := core.Policy{Domain: core.Domain(s.cfg.Defaults.Domain), Inline: int64(s.cfg.Defaults.Inline)}
	if s.cfg.Defaults.Scheme != "" {
		// Validated before.
		p.Scheme, _ = core.ParseScheme(s.cfg.Defaults.Scheme)
	}
	return p
}

// listeners are the node's own ports.
type listeners struct{ client, peer net.Listener }

func (l listeners) close() {
	_ = l.client.Close()
	_ = l.peer.Close()
}

func (s *server) listen() (l listeners, err error) {
	if l.client, err = net.Listen("tcp", s.cfg.Listen.Client); err != nil {
		return l, fmt.Errorf("listen.client: %w", err)
	}
	if l.peer, err = net.Listen("tcp", s.cfg.Listen.Peer); err != nil {
		_ = l.client.Close()
		return l, fmt.Errorf("listen.peer: %w", err)
	}
	return l, nil
}

// runAll runs the parts. They stop in the reverse order: first the node leaves
// its slots to others, then clients are let go, then engine, peers and bus end.
func (s *server) runAll(ctx context.Context, l listeners) error {
	handler, err := s.handler()
	if err != nil {
		return err
	}
	base := context.WithoutCancel(ctx)
	var layers []*layer
	start := func(name string, f func(context.Context) error) {
		layers = append(layers, startLayer(base, name, f))
	}
	start("peers", s.peers.Run)
	if s.coord != nil {
		start("bus", s.coord.Run)
	}
	start("events", s.events.run)
	start("engine", s.node.Run)
	start("map", s.followMap)
	start("node", s.stayAlone)
	start("first bus", s.firstBus)
	start("copy of the bus", s.copyBus)
	start("transforms", s.runTransforms)
	start("jobs", s.jobs.Run)
	start("services", s.serveBus)
	start("performance", s.meter.run)
	start("counts", s.countDisks)
	web := &http.Server{
		Handler: handler, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		BaseContext: func(net.Listener) context.Context { return base }, ConnContext: s3gateway.ConnContext,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	start("http", func(context.Context) error {
		if s.clientTLS != nil {
			return web.Serve(tls.NewListener(l.client, s.clientTLS))
		}
		return web.Serve(s3gateway.Listen(l.client))
	})
	s.log.Info("node started", "client", l.client.Addr().String(), "peer", l.peer.Addr().String(), "disks", len(s.disks))

	err = awaitEnd(ctx, layers)
	s.stop(base, web)
	for _, y := range slices.Backward(layers) {
		if e := y.end(); e != nil && !errors.Is(e, context.Canceled) {
			err = errors.Join(err, fmt.Errorf("%s: %w", y.name, e))
		}
	}
	s.coders.wait()
	s.log.Info("node stopped")
	return err
}

// stop leaves the node's slots to others and lets clients finish.
func (s *server) stop(ctx context.Context, h *http.Server) {
	ctx, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	if err := s.node.Leave(ctx); err != nil {
		s.log.Warn("slots could not be handed over; others take them when the lease has run out", "err", err)
	}
	if err := h.Shutdown(ctx); err != nil {
		_ = h.Close()
	}
}

// layer is a part that runs.
type layer struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

func startLayer(ctx context.Context, name string, f func(context.Context) error) *layer {
	ctx, cancel := context.WithCancel(ctx)
	y := &layer{name: name, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(y.done)
		y.err = f(ctx)
	}()
	return y
}

// end stops the part and returns its error.
func (y *layer) end() error {
	y.cancel()
	<-y.done
	if errors.Is(y.err, http.ErrServerClosed) {
		return nil
	}
	return y.err
}

// awaitEnd waits until ctx ends or a part fails.
func awaitEnd(ctx context.Context, layers []*layer) error {
	failed := make(chan *layer, len(layers))
	stop := make(chan struct{})
	defer close(stop)
	for _, y := range layers {
		go func() {
			select {
			case <-y.done:
				failed <- y
			case <-stop:
			}
		}()
	}
	select {
	case <-ctx.Done():
		return nil
	case y := <-failed:
		if y.err != nil {
			return nil // which end returns
		}
		return fmt.Errorf("%s ended by itself", y.name)
	}
}

// waitEnd keeps a layer that has nothing more to do.
func waitEnd(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// followMap points the bus to the coordinators that the maps name, and ends the
// node if it was started again elsewhere.
func (s *server) followMap(ctx context.Context) error {
	for {
		m, changed := s.node.Maps()
		if m != nil {
			if err := s.overtaken(m); err != nil {
				return err
			}
			s.strikes.see(m)
		}
		if m != nil && s.coord != nil {
			s.coord.Follow(busTarget(m))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}
