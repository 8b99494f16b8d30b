package nodeserver

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"

	"github.com/shoalstore/shoal/bus/natsbus"
	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/core"
)

// busLogin is what clients of the embedded bus show: what the configuration
// says, or else the first credentials of the node.
func busLogin(c config.Config) (user, password string) {
	if c.Bus.User != "" {
		return c.Bus.User, string(c.Bus.Password)
	}
	if len(c.Credentials) > 0 {
		return c.Credentials[0].AccessKey, string(c.Credentials[0].SecretKey)
	}
	return "", ""
}

// connectOutside connects to a NATS cluster that Shoal does not run.
func (s *server) connectOutside(o natsbus.ClientOptions) error {
	b := s.cfg.Bus
	o.URLs, o.Generation = strings.Split(b.URL, ","), 0
	o.Credentials = natsbus.Credentials{User: b.User, Password: string(b.Password), CredsFile: b.Creds}
	if b.CA != "" || b.Cert != "" {
		c, err := tlsConfig(config.TLSFiles{Cert: b.Cert, Key: b.Key, CA: b.CA})
		if err != nil {
			return fmt.Errorf("bus: %w", err)
		}
		o.TLS = c
	}
	var err error
	s.bus, err = natsbus.Connect(o)
	return err
}

// tlsConfigs reads the certificates of the configuration; nil where TLS is off.
func tlsConfigs(c config.Config) (client, peer *tls.Config, err error) {
	if c.TLS.Client.Enabled() {
		if client, err = tlsConfig(c.TLS.Client); err != nil {
			return nil, nil, fmt.Errorf("tls.client: %w", err)
		}
	}
	if c.TLS.Peer.Enabled() {
		if peer, err = tlsConfig(c.TLS.Peer); err != nil {
			return nil, nil, fmt.Errorf("tls.peer: %w", err)
		}
		peer.ClientAuth, peer.ClientCAs = tls.RequireAndVerifyClientCert, peer.RootCAs
	}
	return client, peer, nil
}

// busTLS is TLS of the embedded bus, all nil where it is off.
type busTLS struct {
	// client is what the node shows and checks as a client, server what its
	// server shows clients; route serves both ends between servers.
	client, server, route *tls.Config
}

// busTLSConfigs reads the certificates of the embedded bus.
func busTLSConfigs(c config.Config) (t busTLS, err error) {
	f := c.TLS.ForBus()
	if !f.Enabled() || c.Bus.URL != "" {
		return t, nil
	}
	if t.client, err = tlsConfig(f); err != nil {
		return t, fmt.Errorf("tls.bus: %w", err)
	}
	t.server, t.route = t.client.Clone(), t.client.Clone()
	// Clients show user and password; servers prove themselves to one another.
	t.route.ClientAuth, t.route.ClientCAs = tls.RequireAndVerifyClientCert, t.route.RootCAs
	return t, nil
}

func tlsConfig(f config.TLSFiles) (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.Cert != "" {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, err
		}
		out.Certificates = []tls.Certificate{pair}
	}
	if f.CA != "" {
		pem, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, err
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate: %w", f.CA, core.ErrInvalid)
		}
	}
	return out, nil
}
