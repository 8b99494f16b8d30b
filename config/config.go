// Package config is a node's configuration: one YAML file, overridden by the
// environment. Unknown keys and bad values are refused, with the path of the
// key and what is allowed.
//
//	c, err := config.Load("/etc/shoal/node.yaml", os.Environ())
//	if err != nil {
//		return err // cluster.seeds[1]: "n2": want host:port
//	}
//	fmt.Println(c.Node.Name, c.AdvertisedPeer())
//
// The variable SHOAL_A_B overrides the key a.b. Lists are written with commas
// there: SHOAL_DISKS=/mnt/d1,/mnt/d2.
package config

import "net"

// The development keys. They are no secret, so [Load] refuses them together
// with any listen address but loopback.
const (
	DevAccessKey = "shoaldev"
	DevSecretKey = "shoaldev-secret"
)

// Config is the whole of a node's configuration. Field tags are the keys.
type Config struct {
	Node        Node         `key:"node"`
	Listen      Addresses    `key:"listen"`
	Advertise   Advertise    `key:"advertise"`
	Disks       []Disk       `key:"disks"`
	Cluster     Cluster      `key:"cluster"`
	Credentials []Credential `key:"credentials"`
	Region      string       `key:"region"`
	Bus         Bus          `key:"bus"`
	TLS         TLS          `key:"tls"`
	Backends    Backends     `key:"backends"`
	Defaults    Defaults     `key:"defaults"`
	Limits      Limits       `key:"limits"`
	Space       Space        `key:"space"`
	Log         Log          `key:"log"`
}

// Node says who this node is.
type Node struct {
	// Name is unique in the cluster and never changes: 1 to 63 of a-z, 0-9
	// and inner '-'.
	Name string `key:"name"`
	// Zone groups nodes that fail together, a rack or an availability zone.
	Zone string `key:"zone"`
	// Weight multiplies the weights of the node's disks; 1 unless set.
	Weight float64 `key:"weight"`
	// Data is the directory of the node's own state: the newest map, the
	// voter's confirmations, the bus's store. It must survive restarts and
	// must not lie on a disk of the list.
	Data string `key:"data"`
}

// Addresses are the host:port pairs that the node listens on.
type Addresses struct {
	Client string `key:"client"` // S3 and /-/
	Peer   string `key:"peer"`   // the other nodes
	Bus    string `key:"bus"`    // NATS clients, where this node coordinates
	Route  string `key:"route"`  // NATS servers, the same
}

// Advertise says by which addresses others reach the node.
type Advertise struct {
	// Host takes the place of the host in every listen address.
	Host string `key:"host"`
	// The rest are whole host:port pairs; they win over Host.
	Client string `key:"client"`
	Peer   string `key:"peer"`
	Bus    string `key:"bus"`
	Route  string `key:"route"`
}

// Disk is a directory on a device that fails as a whole. In YAML a plain
// string is a disk's path.
type Disk struct {
	Path string `key:"path"`
	// Weight is the disk's share of the data; 0 means its capacity.
	Weight float64 `key:"weight"`
}

// Cluster says which cluster the node belongs to.
type Cluster struct {
	// Secret proves to the other nodes that this one belongs to them. After
	// Load it holds the content of SecretFile, if that was given.
	Secret     Secret `key:"secret"`
	SecretFile string `key:"secret_file"`
	// Seeds are peer addresses of nodes to ask first.
	Seeds []string `key:"seeds"`
	// Reads is ReadsLease or ReadsConfirm.
	Reads string `key:"reads"`
}

// What Cluster.Reads may be: reads that rest on the node's lease, or that a
// majority of voters confirms.
const (
	ReadsLease   = "lease"
	ReadsConfirm = "confirm"
)

// Credential is a key pair of a client. In the environment:
// SHOAL_CREDENTIALS=key:secret,key2:secret2.
type Credential struct {
	AccessKey string `key:"access_key"`
	SecretKey Secret `key:"secret_key"`
}

// Bus points to a NATS cluster outside instead of the embedded one.
type Bus struct {
	// URL is a comma-separated list of nats://, tls:// or ws:// addresses; ""
	// embeds the server.
	URL      string `key:"url"`
	Creds    string `key:"creds"` // a NATS credentials file
	User     string `key:"user"`
	Password Secret `key:"password"`
	CA       string `key:"ca"`
	Cert     string `key:"cert"`
	Key      string `key:"key"`
}

// TLS switches on TLS, separately for clients and for the nodes.
type TLS struct {
	Client TLSFiles `key:"client"`
	// Peer is mutual: CA signs the certificate of every node.
	Peer TLSFiles `key:"peer"`
	// Bus is for the embedded bus: its clients, who check the certificate and
	// show user and password, and, mutually, its servers. Empty is as Peer.
	Bus TLSFiles `key:"bus"`
}

// ForBus are the files of the embedded bus.
func (t TLS) ForBus() TLSFiles {
	if t.Bus.Enabled() {
		return t.Bus
	}
	return t.Peer
}

// TLSFiles are PEM files; all empty means plain TCP.
type TLSFiles struct {
	Cert string `key:"cert"`
	Key  string `key:"key"`
	CA   string `key:"ca"`
}

// Enabled says whether TLS is on.
func (t TLSFiles) Enabled() bool { return t.Cert != "" }

// Backends say how remote buckets are reached. What is not said here the
// provider's SDK finds by its own chain (variables, files, instance role). A
// bucket may name an account, and override some of it; see core.RemoteSettings.
type Backends struct {
	S3   S3Backends   `key:"s3"`
	GS   GSBackends   `key:"gs"`
	HTTP HTTPBackends `key:"http"`
	File FileBackends `key:"file"`
}

// S3Backends are the accounts of S3: the unnamed one, and others by names of
// their own, which take nothing over from it but Requests.
type S3Backends struct {
	S3Account
	Accounts map[string]S3Account `key:"accounts"`
}

// S3Account is how one account of one S3 endpoint is reached.
type S3Account struct {
	Endpoint string `key:"endpoint"`
	Region   string `key:"region"`
	// At most one of Profile, AccessKey and Anonymous.
	Profile      string `key:"profile"`
	AccessKey    string `key:"access_key"`
	SecretKey    Secret `key:"secret_key"`
	SessionToken Secret `key:"session_token"`
	Anonymous    bool   `key:"anonymous"`
	// PathStyle puts the bucket into the path, not into the host's name.
	PathStyle bool `key:"path_style"`
	// Conditions: the server is known to hold to If-Match and If-None-Match
	// of writes.
	Conditions bool `key:"conditions"`
	// Requests is the most requests at a time; 0, of a named account, as many
	// as for the unnamed one.
	Requests int `key:"requests"`
}

// GSBackends are the accounts of Google Cloud Storage, as of [S3Backends].
type GSBackends struct {
	GSAccount
	Accounts map[string]GSAccount `key:"accounts"`
}

// GSAccount is how one account of Google Cloud Storage is reached.
type GSAccount struct {
	// Endpoint is an emulator's, or a proxy's.
	Endpoint string `key:"endpoint"`
	// CredentialsFile is a JSON file of a service account or the like.
	CredentialsFile string `key:"credentials_file"`
	Anonymous       bool   `key:"anonymous"`
	// Project is the one whose buckets are listed and in which they are made.
	Project string `key:"project"`
	// Conditions: the server at Endpoint is known to hold to preconditions of
	// writes, as Google's is.
	Conditions bool `key:"conditions"`
	// UploadConditions: it is, of uploads in one request, as fake-gcs-server is.
	// Objects of any size are then uploaded so.
	UploadConditions bool `key:"upload_conditions"`
	Requests         int  `key:"requests"`
}

// HTTPBackends are about http:// and https:// origins.
type HTTPBackends struct {
	// Allow lists the origins that may be asked, redirects to them included:
	// http://host:port, https://*.example.net. "*" is every origin at a public
	// address; an empty list is the same. Origins at private addresses are
	// asked only if they are listed.
	Allow    []string `key:"allow"`
	Requests int      `key:"requests"`
}

// FileBackends are directories on the servers.
type FileBackends struct {
	// Roots are names with absolute paths. Every node that has the name must
	// have the same files there. In the environment: NAME:PATH,NAME:PATH.
	Roots    map[string]string `key:"roots"`
	Requests int               `key:"requests"`
}

// Defaults are the properties of buckets that are created without them.
type Defaults struct {
	// Scheme is none, mirror-N or ec-K+M; "" means mirror-2 where there are
	// two nodes or more, otherwise none.
	Scheme string `key:"scheme"`
	// Domain is node or disk; "" means node where there are two or more.
	Domain string `key:"domain"`
	// Inline is the size up to which an object is kept in its record.
	Inline Size `key:"inline"`
}

// Limits bound what background work and clients may take. Zero means none.
type Limits struct {
	// ReconcileBandwidth is what the node's reconcile may read and write
	// together, in bytes per second.
	ReconcileBandwidth Size `key:"reconcile_bandwidth"`
	// ScrubBandwidth is bytes per second and disk.
	ScrubBandwidth Size `key:"scrub_bandwidth"`
	// Requests is the number of client requests served at once; more wait.
	Requests int `key:"requests"`
	// Cache is the memory of the cache that the node's disks share.
	Cache Size `key:"cache"`
}

// Space says when copies of remote buckets' objects go by themselves, as percentages of
// a disk's capacity.
type Space struct {
	// HighWM starts it, at any disk of the cluster; 0 never does. LowWM ends it.
	LowWM  int `key:"lowwm"`
	HighWM int `key:"highwm"`
}

// Log says what is logged to stderr.
type Log struct {
	Level  string `key:"level"`  // debug, info, warn or error
	Format string `key:"format"` // text or json
}

// Secret is a string that does not show itself when it is printed or logged.
// Convert it to string to use it.
type Secret string

// String hides the value.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "[hidden]"
}

// GoString hides the value from %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText hides the value from encoders, loggers among them.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// backendRequests is the default of backends.*.requests.
const backendRequests = 64

// Default is the configuration before the file and the environment.
func Default() Config {
	return Config{
		Node:    Node{Weight: 1},
		Listen:  Addresses{Client: ":7070", Peer: ":7170", Bus: ":7270", Route: ":7370"},
		Cluster: Cluster{Reads: ReadsLease},
		Region:  "us-east-1",
		Backends: Backends{
			S3:   S3Backends{S3Account: S3Account{Requests: backendRequests}},
			GS:   GSBackends{GSAccount: GSAccount{Requests: backendRequests}},
			HTTP: HTTPBackends{Requests: backendRequests},
			File: FileBackends{Requests: backendRequests},
		},
		Defaults: Defaults{
			Inline: 128 << 10,
		},
		Limits: Limits{Requests: 4096, Cache: 64 << 20},
		Space:  Space{LowWM: 75, HighWM: 90},
		Log:    Log{Level: "info", Format: "text"},
	}
}

// AdvertisedClient is the address by which clients reach the node.
func (c Config) AdvertisedClient() string {
	return c.advertised(c.Advertise.Client, c.Listen.Client)
}

// AdvertisedPeer is the address by which the other nodes reach the node.
func (c Config) AdvertisedPeer() string {
	return c.advertised(c.Advertise.Peer, c.Listen.Peer)
}

// AdvertisedBus is the address of the node's bus server for its clients.
func (c Config) AdvertisedBus() string {
	return c.advertised(c.Advertise.Bus, c.Listen.Bus)
}

// AdvertisedRoute is the address of the node's bus server for other servers.
func (c Config) AdvertisedRoute() string {
	return c.advertised(c.Advertise.Route, c.Listen.Route)
}

func (c Config) advertised(own, listen string) string {
	if own != "" {
		return own
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if c.Advertise.Host != "" {
		host = c.Advertise.Host
	}
	return net.JoinHostPort(host, port)
}
