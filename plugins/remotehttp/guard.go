// Package remotehttp is what backends that speak HTTP share: transports that
// connect to allowed addresses only, and what failed requests say.
//
// Users name URLs and endpoints that the nodes then ask, so what a node can reach
// and its users cannot (loopback, private networks, a cloud's metadata) must be
// guarded. It is checked when a connection is made, on the address that DNS gave:
// not before, when it may be another one.
//
//	client := &http.Client{Transport: remotehttp.Transport(func(host string, a netip.AddrPort) error {
//		if !remotehttp.Public(a.Addr()) {
//			return fmt.Errorf("%s is at %s, which is not public: %w", host, a, core.ErrPermission)
//		}
//		return nil
//	})}
package remotehttp

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"github.com/shoalstore/shoal/core"
)

// Guard refuses an address that the host host:port was resolved to.
type Guard func(host string, a netip.AddrPort) error

// Transport returns a transport that dials what guard allows, anything if that
// is nil. It speaks HTTP/1.1, so that requests at a time have connections, and
// their bandwidth, of their own, and no proxy, behind which the guard would see
// nothing.
func Transport(guard Guard) *http.Transport {
	var one http.Protocols
	one.SetHTTP1(true)
	return &http.Transport{
		Protocols:           &one,
		MaxIdleConns:        256,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     time.Minute,
		TLSHandshakeTimeout: 10 * time.Second,
		DisableCompression:  true,
		ReadBufferSize:      64 << 10,
		WriteBufferSize:     64 << 10,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			d := net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
			if guard != nil {
				d.Control = func(_, resolved string, _ syscall.RawConn) error {
					a, err := netip.ParseAddrPort(resolved)
					if err != nil {
						return fmt.Errorf("address %q: %w", resolved, core.ErrPermission)
					}
					return guard(addr, netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port()))
				}
			}
			return d.DialContext(ctx, network, addr)
		},
	}
}

// Public says whether an address is one of the public internet.
func Public(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsValid() || !a.IsGlobalUnicast() || a.IsPrivate() {
		return false
	}
	for _, p := range special() {
		if p.Contains(a) {
			return false
		}
	}
	if v4, ok := embedded(a); ok {
		return Public(v4)
	}
	return true
}

// LinkLocal says whether an address is of the own link: where clouds keep their
// metadata, credentials included.
func LinkLocal(a netip.Addr) bool {
	a = a.Unmap()
	v4, ok := embedded(a)
	return a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() || a == netip.MustParseAddr("fd00:ec2::254") || ok && LinkLocal(v4)
}

// special are blocks of what net/netip calls global unicast that are not public
// (IANA's special-purpose address registries; private use is known to netip).
func special() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),       // this network
		netip.MustParsePrefix("100.64.0.0/10"),   // carriers' own
		netip.MustParsePrefix("192.0.0.0/24"),    // protocols' own
		netip.MustParsePrefix("192.0.2.0/24"),    // documentation
		netip.MustParsePrefix("198.18.0.0/15"),   // benchmarks
		netip.MustParsePrefix("198.51.100.0/24"), // documentation
		netip.MustParsePrefix("203.0.113.0/24"),  // documentation
		netip.MustParsePrefix("240.0.0.0/4"),     // reserved
		netip.MustParsePrefix("64:ff9b:1::/48"),  // translation of a network's own
		netip.MustParsePrefix("100::/64"),        // discarded
		netip.MustParsePrefix("2001::/23"),       // protocols' own, Teredo
		netip.MustParsePrefix("2001:db8::/32"),   // documentation
		netip.MustParsePrefix("3fff::/20"),       // documentation
		netip.MustParsePrefix("5f00::/16"),       // segment routing
		netip.MustParsePrefix("fec0::/10"),       // once of a site
	}
}

// embedded is the IPv4 address behind an IPv6 address of NAT64, 6to4 or the form
// ::1.2.3.4.
func embedded(a netip.Addr) (netip.Addr, bool) {
	if !a.Is6() {
		return a, false
	}
	b := a.As16()
	switch {
	case netip.MustParsePrefix("64:ff9b::/96").Contains(a), netip.MustParsePrefix("::/96").Contains(a):
		return netip.AddrFrom4([4]byte(b[12:16])), true
	case netip.MustParsePrefix("2002::/16").Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	}
	return a, false
}
