package natsbus

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"time"

	"github.com/shoalstore/shoal/core"
)

// MaxPayload is the largest message of the embedded server, in bytes. The
// cluster map, some 80 KiB with 4,096 slots, is the largest value there is.
const MaxPayload = 8 << 20

// Credentials are what a client shows to the bus. At most one kind is used:
// the credentials file, else the nkey, else the token, else user and password.
type Credentials struct {
	User     string
	Password string
	Token    string
	// CredsFile is a NATS credentials file (a JWT with its seed).
	CredsFile string
	// NKeySeedFile is a file with an nkey's seed.
	NKeySeedFile string
}

// Member is a coordinator of the bus.
type Member struct {
	Name string `json:"name"`
	// Client and Route are host:port addresses at which clients and other
	// coordinators reach it.
	Client string `json:"client"`
	Route  string `json:"route"`
}

// ServerOptions configure an embedded server.
type ServerOptions struct {
	// Name is the node's name, the same at every start.
	Name string
	// Cluster names the Shoal cluster.
	Cluster string
	// Generation numbers the set of coordinators.
	Generation uint64
	// Dir holds the stores; this server's is Dir/bus-GENERATION.
	Dir string
	// ClientAddr and RouteAddr are the host:port addresses to listen at; port
	// 0 takes a free one. RouteAddr is used with two members or more.
	ClientAddr string
	RouteAddr  string
	// Members are all coordinators of the generation, this one included. One
	// or none makes a standalone server.
	Members []Member
	// User and Password are what clients must show; "" admits everybody.
	User     string
	Password string
	// RouteSecret is what coordinators show to one another.
	RouteSecret string
	// ClientTLS and RouteTLS, if set, are required of clients and
	// coordinators. RouteTLS serves both ends of a route.
	ClientTLS *tls.Config
	RouteTLS  *tls.Config
	// Closed starts the server of a generation that is at its end: it takes
	// part only with others that are closed, and answers nobody but the
	// process itself. A store that was closed once cannot be opened again.
	Closed bool
	// MaxStore bounds the store, in bytes. Zero is 1 GiB.
	MaxStore int64
	Logger   *slog.Logger
}

// ClientOptions configure a client.
type ClientOptions struct {
	// URLs of the servers: nats://, tls:// or ws:// with host and port.
	URLs []string
	// Generation is the bus's; 0 for a bus that Shoal does not run.
	Generation uint64
	// Cluster names the Shoal cluster, as in ServerOptions: no server of
	// another one is talked to. "" does not ask, and generation 0 neither.
	Cluster string
	// Name is shown in the server's list of connections.
	Name        string
	Credentials Credentials
	// TLS, if set, is used for every connection, else only for those that
	// the URL or the server asks it for.
	TLS *tls.Config
	// Timeout bounds an operation whose ctx has no deadline. Zero is 30 s.
	Timeout time.Duration
	// Poll is the time after which a watch looks for changes that nobody
	// told it of. Zero is 2 s.
	Poll   time.Duration
	Logger *slog.Logger

	// inProcess connects to an embedded server without a network.
	inProcess inProcess
}

type inProcess interface{ InProcessConn() (net.Conn, error) }

// generationName is the subdirectory and the name of a generation's cluster.
func generationName(generation uint64) string {
	return "bus-" + strconv.FormatUint(generation, 10)
}

// clusterName is the name of the NATS cluster, by which clients know whom they
// talk to.
func clusterName(cluster string, generation uint64) string {
	return cluster + "-" + generationName(generation)
}

func splitAddr(what, addr string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("bus %s address %q: want host:port: %w", what, addr, core.ErrInvalid)
	}
	port, err = strconv.Atoi(p)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("bus %s address %q: bad port: %w", what, addr, core.ErrInvalid)
	}
	return host, port, nil
}

// ClientURL is the URL of a coordinator's client port.
func ClientURL(addr string, secure bool) string {
	u := url.URL{Scheme: "nats", Host: addr}
	if secure {
		u.Scheme = "tls"
	}
	return u.String()
}
