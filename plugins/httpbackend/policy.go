package httpbackend

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/remotehttp"
)

// policy says which origins may be asked, and at which addresses.
type policy struct {
	any  bool
	list []origin
}

// origin is a scheme and host:port, the port always said. With below it is all
// hosts below that one.
type origin struct {
	scheme, host, port string
	below              bool
}

func newPolicy(allow []string) (p policy, err error) {
	p.any = len(allow) == 0
	for _, s := range allow {
		if s == "*" {
			p.any = true
			continue
		}
		scheme, host, ok := strings.Cut(strings.TrimSuffix(s, "/"), "://")
		host, below := strings.CutPrefix(host, "*.")
		u, err := core.ParseURI(scheme + "://" + host)
		if !ok || err != nil || u.Key != "" || u.Bucket.Provider != core.HTTP && u.Bucket.Provider != core.HTTPS {
			return policy{}, fmt.Errorf("backends.http.allow: %q: want http://host[:port], https://*.example.net or *: %w", s, core.ErrInvalid)
		}
		o := originOf(&url.URL{Scheme: string(u.Bucket.Provider), Host: u.Bucket.Name})
		o.below = below
		p.list = append(p.list, o)
	}
	return p, nil
}

func originOf(u *url.URL) origin {
	o := origin{scheme: strings.ToLower(u.Scheme), host: strings.ToLower(u.Hostname()), port: u.Port()}
	if o.port == "" {
		o.port = map[string]string{"http": "80", "https": "443"}[o.scheme]
	}
	return o
}

// has says whether the entry lists that host and port.
func (o origin) has(host, port string) bool {
	if o.below {
		return o.port == port && strings.HasSuffix(host, "."+o.host)
	}
	return o.port == port && o.host == host
}

// check refuses a URL whose origin may not be asked at all.
func (p policy) check(u *url.URL) error {
	o := originOf(u)
	if o.scheme != "http" && o.scheme != "https" || o.host == "" {
		return fmt.Errorf("%s://%s is not asked: %w", u.Scheme, u.Host, core.ErrPermission)
	}
	if p.any || slices.ContainsFunc(p.list, func(l origin) bool { return l.scheme == o.scheme && l.has(o.host, o.port) }) {
		return nil
	}
	return fmt.Errorf("%s://%s is not an origin that the servers may ask (backends.http.allow): %w", u.Scheme, u.Host, core.ErrPermission)
}

// dial refuses an address that a host may not be asked at. That the origin itself
// may be was checked before.
func (p policy) dial(hostport string, a netip.AddrPort) error {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", hostport, core.ErrPermission, err)
	}
	host = strings.ToLower(host)
	listed := slices.ContainsFunc(p.list, func(l origin) bool { return l.has(host, port) })
	literal, err := netip.ParseAddr(host)
	switch itself := err == nil && literal.Unmap() == a.Addr(); {
	case remotehttp.LinkLocal(a.Addr()) && (!listed || !itself):
		return fmt.Errorf("%s is at a link-local address, which is not asked: %w", host, core.ErrPermission)
	case !listed && !remotehttp.Public(a.Addr()):
		return fmt.Errorf("%s is not at a public address; the servers ask such a one only if their configuration lists the origin (backends.http.allow): %w", host, core.ErrPermission)
	}
	return nil
}

// origins are those of a scheme that are listed one by one, as names of buckets.
func (p policy) origins(scheme core.Provider) []string {
	var out []string
	for _, o := range p.list {
		if o.below || o.scheme != string(scheme) {
			continue
		}
		if u, err := core.ParseURI(o.scheme + "://" + net.JoinHostPort(o.host, o.port)); err == nil {
			out = append(out, u.Bucket.Name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
