package natsbus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
)

const (
	defaultTimeout = 30 * time.Second
	defaultPoll    = 2 * time.Second
	// attempt bounds one try of an operation. An election takes longer, but
	// the servers answer no earlier for being waited for.
	attempt = 2 * time.Second
)

// Client is a node's connection to the bus. It connects by itself, to another
// server if one fails, for as long as it is open. All methods may be called
// concurrently.
type Client struct {
	opts   ClientOptions
	log    *slog.Logger
	nc     *nats.Conn
	js     jetstream.JetStream
	closed chan struct{}

	mapBucket, jobsBucket *bucket

	mu         sync.Mutex
	cluster    string
	generation uint64
	urls       []string
	// why is the reason for not being connected, nil while connected; denied
	// is the last refusal of a subject, and denials counts them.
	why     error
	denied  error
	denials int
	changed chan struct{} // closed and replaced when generation or connection change
	// retry leaves a server of another generation, after a while.
	retry  *time.Timer
	ending bool
	timers sync.WaitGroup
}

// Connect returns a client that connects in the background; it fails only if
// the options are wrong. [Client.WaitConnected] waits. The caller must call
// [Client.Close].
func Connect(o ClientOptions) (*Client, error) {
	if o.Logger == nil || len(o.URLs) == 0 && o.inProcess == nil {
		return nil, fmt.Errorf("bus client: urls and a logger are required: %w", core.ErrInvalid)
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Poll == 0 {
		o.Poll = defaultPoll
	}
	c := &Client{
		opts: o, log: o.Logger.With("component", "bus"), closed: make(chan struct{}),
		cluster: o.Cluster, generation: o.Generation, urls: slices.Clone(o.URLs), changed: make(chan struct{}),
	}
	no, err := c.natsOptions()
	if err != nil {
		return nil, err
	}
	if c.nc, err = no.Connect(); err != nil {
		return nil, fmt.Errorf("bus client: %w", c.translate(err))
	}
	if c.js, err = jetstream.New(c.nc); err != nil {
		c.Close()
		return nil, fmt.Errorf("bus client: %w", err)
	}
	c.mapBucket = &bucket{client: c, name: "map"}
	c.jobsBucket = &bucket{client: c, name: "jobs"}
	return c, nil
}

// natsOptions returns the options in NATS's terms.
func (c *Client) natsOptions() (nats.Options, error) {
	o := c.opts
	no := nats.GetDefaultOptions()
	set := []nats.Option{
		nats.Name(o.Name),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.IgnoreDiscoveredServers(),
		nats.CustomReconnectDelay(reconnectDelay),
		// What cannot be sent now fails at once instead of being sent by
		// surprise later.
		nats.ReconnectBufSize(-1),
		nats.Timeout(attempt),
		nats.PingInterval(time.Second),
		nats.MaxPingsOutstanding(2),
		nats.ConnectHandler(func(nc *nats.Conn) { c.connection(nc, nil) }),
		nats.ReconnectHandler(func(nc *nats.Conn) { c.connection(nc, nil) }),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) { c.connection(nc, lost(err)) }),
		nats.ReconnectErrHandler(func(nc *nats.Conn, err error) { c.connection(nc, lost(err)) }),
		nats.ErrorHandler(func(_ *nats.Conn, s *nats.Subscription, err error) { c.asyncError(s, err) }),
		nats.ClosedHandler(func(*nats.Conn) { close(c.closed) }),
	}
	if o.TLS != nil {
		set = append(set, nats.Secure(o.TLS))
	}
	if o.inProcess != nil {
		set = append(set, nats.InProcessServer(o.inProcess))
	}
	set = append(set, o.Credentials.options()...)
	for _, f := range set {
		if err := f(&no); err != nil {
			return no, fmt.Errorf("bus client: %w: %w", core.ErrInvalid, err)
		}
	}
	if cr := o.Credentials; cr.CredsFile == "" && cr.NKeySeedFile != "" {
		f, err := nats.NkeyOptionFromSeed(cr.NKeySeedFile)
		if err == nil {
			err = f(&no)
		}
		if err != nil {
			return no, fmt.Errorf("bus client: nkey seed %s: %w: %w", cr.NKeySeedFile, core.ErrInvalid, err)
		}
	}
	no.Servers = c.urls
	return no, nil
}

func (cr Credentials) options() []nats.Option {
	switch {
	case cr.CredsFile != "":
		return []nats.Option{nats.UserCredentials(cr.CredsFile)}
	case cr.NKeySeedFile != "":
		return nil // reads a file: see natsOptions
	case cr.Token != "":
		return []nats.Option{nats.Token(cr.Token)}
	case cr.User != "":
		return []nats.Option{nats.UserInfo(cr.User, cr.Password)}
	}
	return nil
}

// reconnectDelay is the time between two rounds over all servers: 50 ms,
// doubled up to 2 s, half of it random.
func reconnectDelay(rounds int) time.Duration {
	return jitter(50*time.Millisecond<<min(max(rounds-1, 0), 6), 2*time.Second)
}

// backoff is the time before the next attempt: first, then doubled up to
// limit, each half random.
type backoff struct{ first, limit time.Duration }

func (b *backoff) next() time.Duration {
	d := jitter(b.first, b.limit)
	b.first = min(2*b.first, b.limit)
	return d
}

// jitter returns between half of d and d, where d is limit at the most.
func jitter(d, limit time.Duration) time.Duration {
	d = min(d, limit)
	return d/2 + rand.N(d/2+1)
}

func lost(err error) error {
	if err == nil {
		return errors.New("the server closed the connection")
	}
	return err
}

// Close ends the connection and returns when its callbacks have ended.
func (c *Client) Close() {
	c.mu.Lock()
	c.ending = true
	c.stopRetry()
	c.mu.Unlock()
	c.nc.Close()
	<-c.closed
	c.timers.Wait()
}

// Map returns the register of the cluster map.
func (c *Client) Map() bus.Register { return register{c.mapBucket} }

// Jobs returns the bucket of jobs.
func (c *Client) Jobs() bus.KV { return kv{c.jobsBucket} }

// Use points the client to another generation, or to other addresses of the
// same one. Registers, watches, subscriptions and services go over to it by
// themselves. Revisions of another generation are in conflict.
func (c *Client) Use(generation uint64, urls []string) error {
	c.mu.Lock()
	same := generation == c.generation && slices.Equal(urls, c.urls)
	moved := generation != c.generation
	c.mu.Unlock()
	if same {
		return nil
	}
	if err := c.nc.SetServerPool(urls); err != nil {
		return fmt.Errorf("bus client: %w: %w", core.ErrInvalid, err)
	}
	c.mu.Lock()
	c.generation, c.urls = generation, slices.Clone(urls)
	c.wake()
	c.mu.Unlock()
	if !moved && slices.Contains(urls, c.nc.ConnectedUrl()) {
		return nil
	}
	c.log.Info("bus changed", "generation", generation, "urls", urls)
	if err := c.nc.ForceReconnect(); err != nil {
		return fmt.Errorf("bus client: %w", err)
	}
	return nil
}

// belongTo names the Shoal cluster whose servers are talked to from now on.
func (c *Client) belongTo(cluster string) {
	c.mu.Lock()
	c.cluster = cluster
	c.mu.Unlock()
	if errors.Is(c.usable(c.nc), errOther) {
		c.leave(c.nc)
	}
}

// Generation returns the generation that the client was pointed to.
func (c *Client) Generation() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation
}

// Connected returns the URL of the server that the client talks to, or the
// reason why it talks to none.
func (c *Client) Connected() (string, error) {
	if err := c.usable(c.nc); err != nil {
		return "", c.unavailable(err)
	}
	return c.nc.ConnectedUrlRedacted(), nil
}

var (
	// errDisconnected says that nothing was sent.
	errDisconnected = errors.New("not connected")
	// errOther says that too.
	errOther = errors.New("connected to a server of another cluster or of another generation of the bus")
)

// usable says why the connection is of no use: there is none, or it leads to a
// server that has not been told yet of the generation that the client was
// pointed to, or of none, at the same address.
func (c *Client) usable(nc *nats.Conn) error {
	if !nc.IsConnected() {
		return errDisconnected
	}
	c.mu.Lock()
	cluster, g := c.cluster, c.generation
	c.mu.Unlock()
	if g == 0 {
		return nil
	}
	want := clusterName(cluster, g)
	if has := nc.ConnectedClusterName(); has == want || cluster == "" && strings.HasSuffix(has, want) {
		return nil
	}
	return errOther
}

// WaitConnected returns once the client is connected. If ctx ends earlier it
// fails with the reason: [core.ErrPermission] if the server refused the
// credentials, else [core.ErrUnavailable].
func (c *Client) WaitConnected(ctx context.Context) error {
	for {
		changed := c.change()
		_, err := c.Connected()
		if err == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return err
		}
	}
}

// Status describes the bus as this node sees it.
type Status struct {
	Generation uint64 `json:"generation"`
	// URL is that of the server the client talks to.
	URL string `json:"url"`
	// Leader is the coordinator that leads the map's register, "" while
	// there is none.
	Leader   string    `json:"leader"`
	Replicas []Replica `json:"replicas"`
}

// Replica is a coordinator's copy of the map's register.
type Replica struct {
	Node    string `json:"node"`
	Leader  bool   `json:"leader,omitempty"`
	Current bool   `json:"current"`
	// Lag is the number of writes that it is behind.
	Lag uint64 `json:"lag"`
}

// Status asks the bus how it is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	url, err := c.Connected()
	if err != nil {
		return Status{}, err
	}
	s, err := c.mapBucket.use(ctx)
	if err != nil {
		return Status{}, err
	}
	info, err := c.mapBucket.info(ctx, s)
	if err != nil {
		return Status{}, err
	}
	st := Status{Generation: s.generation, URL: url}
	if cl := info.Cluster; cl != nil && cl.Leader != "" {
		st.Leader = cl.Leader
		st.Replicas = append(st.Replicas, Replica{Node: cl.Leader, Leader: true, Current: true})
		for _, r := range cl.Replicas {
			st.Replicas = append(st.Replicas, Replica{Node: r.Name, Current: r.Current && !r.Offline, Lag: r.Lag})
		}
	}
	if st.Leader == "" && (info.Cluster == nil || len(info.Cluster.Replicas) == 0) {
		st.Leader = c.nc.ConnectedServerName() // it is the only one
		st.Replicas = []Replica{{Node: st.Leader, Leader: true, Current: true}}
	}
	return st, nil
}

// change returns a channel that is closed at the next change of generation or
// connection.
func (c *Client) change() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// wake ends the waits for a change; c.mu is held.
func (c *Client) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// connection notes that the connection was made (nil) or lost. It may be
// called before Connect has returned.
func (c *Client) connection(nc *nats.Conn, err error) {
	if err == nil {
		if err = c.usable(nc); errors.Is(err, errOther) {
			c.leave(nc)
		}
	}
	c.mu.Lock()
	was := c.why
	c.why = err
	if was == nil || err == nil {
		c.wake()
	}
	c.mu.Unlock()
	switch {
	case err == nil:
		c.log.Info("bus connected", "url", nc.ConnectedUrlRedacted())
	case was == nil || was.Error() != err.Error():
		c.log.Warn("bus not connected", "err", err)
	}
}

// leave looks for another server, after a while.
func (c *Client) leave(nc *nats.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return
	}
	c.stopRetry()
	c.timers.Add(1)
	c.retry = time.AfterFunc(jitter(time.Second, time.Second), func() { //nolint:forbidigo // a pause between connections, as in NATS's own library
		defer c.timers.Done()
		if errors.Is(c.usable(nc), errOther) {
			_ = nc.ForceReconnect() // fails only on a closed connection
		}
	})
}

// stopRetry undoes leave; c.mu is held.
func (c *Client) stopRetry() {
	if c.retry != nil && c.retry.Stop() {
		c.timers.Done()
	}
	c.retry = nil
}

// asyncError notes an error that the server reported outside of a request,
// above all that it does not let this user use a subject.
func (c *Client) asyncError(s *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrSlowConsumer) && s != nil {
		c.log.Warn("bus subscriber too slow, messages lost", "subject", s.Subject)
		return
	}
	c.mu.Lock()
	if errors.Is(err, nats.ErrPermissionViolation) {
		c.denied = err
		c.denials++
	}
	c.mu.Unlock()
	c.log.Warn("bus error", "err", err)
}

// unavailable is the error for an operation that got nowhere, with the reason
// if one is known.
func (c *Client) unavailable(err error) error {
	c.mu.Lock()
	why := c.why
	c.mu.Unlock()
	if why == nil || errors.Is(err, why) || errors.Is(err, core.ErrPermission) {
		return c.translate(err)
	}
	return fmt.Errorf("%w (%w)", c.translate(why), err)
}

// attempt is one try of an operation on subjects that contain name. If the
// server refuses this user the subject, it says so beside the answer, which
// does not come then; such an attempt is [core.ErrPermission].
func (c *Client) attempt(ctx context.Context, name string, try func(context.Context) error) error {
	if err := c.usable(c.nc); err != nil {
		return err
	}
	c.mu.Lock()
	before := c.denials
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	err := try(ctx)
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.denials > before && strings.Contains(c.denied.Error(), name) {
		return fmt.Errorf("%w: %w", core.ErrPermission, c.denied)
	}
	return err
}

// translate says in core's terms what NATS said.
func (c *Client) translate(err error) error {
	var cert *tls.CertificateVerificationError
	switch {
	case errors.Is(err, core.ErrPermission):
		return err
	case errors.Is(err, nats.ErrAuthorization),
		errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrAccountAuthExpired):
		return fmt.Errorf("the bus refuses this node's credentials (check bus.user, bus.password or bus.creds): %w: %w", core.ErrPermission, err)
	case errors.As(err, &cert), errors.Is(err, nats.ErrSecureConnRequired), errors.Is(err, nats.ErrSecureConnWanted):
		return fmt.Errorf("the bus and this node do not agree on TLS (check tls.bus, or for a bus outside bus.ca, bus.cert, bus.key): %w: %w", core.ErrUnavailable, err)
	}
	return fmt.Errorf("%w: %w", core.ErrUnavailable, err)
}

// bound gives ctx a deadline if it has none.
func (c *Client) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.opts.Timeout)
}

// pause waits for d, for the connection or generation to change, or for ctx
// to end. It says whether to go on.
func (c *Client) pause(ctx context.Context, d time.Duration) bool {
	wait, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	select {
	case <-c.change():
	case <-wait.Done():
	}
	return ctx.Err() == nil
}

// Leader returns the name of the coordinator through which changes of the map
// go at present, "" if there is none.
func (c *Client) Leader(ctx context.Context) (string, error) {
	st, err := c.Status(ctx)
	return st.Leader, err
}
