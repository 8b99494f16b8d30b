package config

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Limits of values.
const (
	minSecret = 16      // bytes of cluster.secret
	maxInline = 1 << 20 // bytes of defaults.inline
)

// Validate says what is wrong with the configuration: an error that names
// every such key and what is allowed, or nil.
func (c Config) Validate() error {
	var p problems
	p.node(c)
	p.disks(c)
	p.addresses(c)
	p.cluster(c.Cluster)
	p.credentials(c)
	p.bus(c.Bus)
	p.tls(c.TLS, c.Bus.URL != "")
	p.backends(c)
	p.rest(c)
	return errors.Join(p...)
}

type problems []error

func (p *problems) add(path, format string, args ...any) {
	*p = append(*p, fmt.Errorf("%s: "+format, append([]any{path}, args...)...))
}

func (p *problems) oneOf(path, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		p.add(path, "%q: want one of %s", value, strings.Join(allowed, ", "))
	}
}

func (p *problems) weight(path string, w float64) {
	if !(w >= 0) || math.IsInf(w, 0) {
		p.add(path, "%v: want a number, 0 or above", w)
	}
}

func (p *problems) node(c Config) {
	if !validName(c.Node.Name) {
		p.add("node.name", "%q: want 1 to 63 of a-z, 0-9 and inner '-', unique in the cluster", c.Node.Name)
	}
	if len(c.Node.Zone) > 63 || strings.ContainsAny(c.Node.Zone, ", \t\n=") {
		p.add("node.zone", "%q: want up to 63 characters without spaces, ',' and '='", c.Node.Zone)
	}
	p.weight("node.weight", c.Node.Weight)
	if c.Node.Data == "" {
		p.add("node.data", "is missing; want a directory for the node's own state, not on a disk of the list")
	}
}

func validName(s string) bool {
	for i, b := range []byte(s) {
		inner := b == '-' && i > 0 && i < len(s)-1
		if (b < 'a' || b > 'z') && (b < '0' || b > '9') && !inner {
			return false
		}
	}
	return s != "" && len(s) <= 63
}

func (p *problems) disks(c Config) {
	if len(c.Disks) == 0 {
		p.add("disks", "is missing; want a list of at least one directory, each on a device of its own")
	}
	for i, d := range c.Disks {
		path := fmt.Sprintf("disks[%d]", i)
		if d.Path == "" {
			p.add(path+".path", "is missing")
			continue
		}
		p.weight(path+".weight", d.Weight)
		for j, e := range c.Disks[:i] {
			switch {
			case filepath.Clean(d.Path) == filepath.Clean(e.Path):
				p.add(path+".path", "%q: is disks[%d] already", d.Path, j)
			case inside(d.Path, e.Path) || inside(e.Path, d.Path):
				p.add(path+".path", "%q: one of it and disks[%d] (%q) lies within the other", d.Path, j, e.Path)
			}
		}
		if c.Node.Data != "" && inside(c.Node.Data, d.Path) {
			p.add("node.data", "%q: lies on disks[%d] (%q); the node's state must outlive its disks", c.Node.Data, i, d.Path)
		}
	}
}

// inside says whether path is dir or lies below it.
func inside(path, dir string) bool {
	rel, err := filepath.Rel(filepath.Clean(dir), filepath.Clean(path))
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

func (p *problems) addresses(c Config) {
	listen := []struct{ key, addr, advertised string }{
		{"client", c.Listen.Client, c.Advertise.Client},
		{"peer", c.Listen.Peer, c.Advertise.Peer},
		{"bus", c.Listen.Bus, c.Advertise.Bus},
		{"route", c.Listen.Route, c.Advertise.Route},
	}
	if strings.Contains(c.Advertise.Host, "/") || strings.Contains(c.Advertise.Host, " ") {
		p.add("advertise.host", "%q: want a host name or address without a port", c.Advertise.Host)
	}
	seen := make(map[string]string)
	hostless := ""
	for _, l := range listen {
		if !p.address("listen."+l.key, l.addr) {
			continue
		}
		host, port, _ := net.SplitHostPort(l.addr) // address has read it
		if other, taken := seen[port]; taken {
			p.add("listen."+l.key, "%q: listen.%s has the same port", l.addr, other)
		}
		seen[port] = l.key
		switch {
		case l.advertised != "":
			if p.address("advertise."+l.key, l.advertised) && isWildcard(hostOf(l.advertised)) {
				p.add("advertise."+l.key, "%q: want a host that others can reach", l.advertised)
			}
		case c.Advertise.Host == "" && isWildcard(host) && hostless == "":
			hostless = l.key
			p.add("advertise.host", "is missing: listen.%s is %q, so say by which host name or address others reach this node", l.key, l.addr)
		}
	}
}

func hostOf(addr string) string {
	host, _, _ := net.SplitHostPort(addr)
	return host
}

func (p *problems) address(path, addr string) bool {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		p.add(path, "%q: want host:port", addr)
		return false
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		p.add(path, "%q: want a port from 1 to 65535", addr)
		return false
	}
	return true
}

func isWildcard(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

func isLoopback(addr string) bool {
	host := hostOf(addr)
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (p *problems) cluster(c Cluster) {
	if c.Reads != ReadsLease && c.Reads != ReadsConfirm {
		p.add("cluster.reads", "got %q; want lease or confirm", c.Reads)
	}
	if len(c.Secret) < minSecret {
		p.add("cluster.secret", "want at least %d characters, the same on every node (or cluster.secret_file)", minSecret)
	}
	for i, s := range c.Seeds {
		p.address(fmt.Sprintf("cluster.seeds[%d]", i), s)
	}
}

func (p *problems) credentials(c Config) {
	if len(c.Credentials) == 0 {
		p.add("credentials", "is missing; want a list of at least one access_key with its secret_key")
	}
	seen := make(map[string]int)
	for i, k := range c.Credentials {
		path := fmt.Sprintf("credentials[%d]", i)
		if len(k.AccessKey) < 3 || len(k.AccessKey) > 128 || strings.ContainsAny(k.AccessKey, "/,=: \t\n") {
			p.add(path+".access_key", "%q: want 3 to 128 characters without '/', ',', '=', ':' and spaces", k.AccessKey)
		}
		if len(k.SecretKey) < 8 {
			p.add(path+".secret_key", "want at least 8 characters")
		}
		if j, taken := seen[k.AccessKey]; taken {
			p.add(path+".access_key", "%q: is that of credentials[%d] already", k.AccessKey, j)
		}
		seen[k.AccessKey] = i
		if k.AccessKey != DevAccessKey && k.SecretKey != DevSecretKey {
			continue
		}
		for _, addr := range []string{c.Listen.Client, c.Listen.Peer, c.Listen.Bus, c.Listen.Route} {
			if !isLoopback(addr) {
				p.add(path, "is a development key, which everybody knows: allowed only where all listen addresses are loopback, and %q is not", addr)
				break
			}
		}
	}
}

func (p *problems) bus(b Bus) {
	if b.URL == "" {
		for _, f := range []struct{ key, value string }{
			{"creds", b.Creds}, {"user", b.User}, {"password", string(b.Password)}, {"ca", b.CA}, {"cert", b.Cert}, {"key", b.Key},
		} {
			if f.value != "" {
				p.add("bus."+f.key, "only has a meaning with bus.url; the embedded bus takes its keys from cluster.secret and credentials, its certificates from tls.bus")
			}
		}
		return
	}
	for s := range strings.SplitSeq(b.URL, ",") {
		u, err := url.Parse(strings.TrimSpace(s))
		if err != nil || u.Host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			p.add("bus.url", "%q: want nats://host:port, tls://, ws:// or wss://, several with commas", s)
		}
	}
	if (b.Cert == "") != (b.Key == "") {
		p.add("bus.cert", "bus.cert and bus.key come together")
	}
	if (b.User == "") != (b.Password == "") {
		p.add("bus.user", "bus.user and bus.password come together")
	}
	if b.Creds != "" && b.User != "" {
		p.add("bus.creds", "bus.user is set too; keep one of them")
	}
}

func (p *problems) tls(t TLS, outside bool) {
	for _, f := range []struct {
		path  string
		files TLSFiles
	}{{"tls.client", t.Client}, {"tls.peer", t.Peer}, {"tls.bus", t.Bus}} {
		if (f.files.Cert == "") != (f.files.Key == "") {
			p.add(f.path, "cert and key come together")
		}
		if f.files.CA != "" && f.files.Cert == "" {
			p.add(f.path+".ca", "only has a meaning with cert and key")
		}
	}
	if t.Peer.Cert != "" && t.Peer.CA == "" {
		p.add("tls.peer.ca", "is missing; nodes prove themselves to each other by certificates that it signs")
	}
	switch {
	case t.Bus.Cert == "":
	case t.Bus.CA == "":
		p.add("tls.bus.ca", "is missing; coordinators prove themselves to each other by certificates that it signs")
	case outside:
		p.add("tls.bus", "only has a meaning for the embedded bus; with bus.url use bus.ca, bus.cert and bus.key")
	}
}

func (p *problems) backends(c Config) {
	b := c.Backends
	p.s3("backends.s3", b.S3.S3Account, 1)
	for _, name := range p.names("backends.s3.accounts", slices.Collect(maps.Keys(b.S3.Accounts))) {
		p.s3("backends.s3.accounts."+name, b.S3.Accounts[name], 0)
	}
	p.gs("backends.gs", b.GS.GSAccount, 1)
	for _, name := range p.names("backends.gs.accounts", slices.Collect(maps.Keys(b.GS.Accounts))) {
		p.gs("backends.gs.accounts."+name, b.GS.Accounts[name], 0)
	}
	for i, o := range b.HTTP.Allow {
		u, err := url.Parse(o)
		if o != "*" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Scheme+"://"+u.Host != strings.TrimSuffix(o, "/") || u.Hostname() == "" ||
			strings.Contains(strings.TrimPrefix(u.Host, "*."), "*")) {
			p.add(fmt.Sprintf("backends.http.allow[%d]", i), "want http://host[:port], https://host[:port], such a one with *. before the host, or *")
		}
	}
	p.requests("backends.http", b.HTTP.Requests, 1)
	p.requests("backends.file", b.File.Requests, 1)
	for _, name := range p.names("backends.file.roots", slices.Collect(maps.Keys(b.File.Roots))) {
		p.root("backends.file.roots."+name, b.File.Roots[name], c)
	}
}

// maxRequests bounds backends.*.requests.
const maxRequests = 4096

func (p *problems) requests(path string, n, least int) {
	if n < least || n > maxRequests {
		p.add(path+".requests", "%d: want %d to %d requests at a time", n, least, maxRequests)
	}
}

// names returns those that are good, in order.
func (p *problems) names(path string, names []string) []string {
	slices.Sort(names)
	return slices.DeleteFunc(names, func(name string) bool {
		ok := name != "" && len(name) <= 63
		for i, c := range []byte(name) {
			inner := (c == '.' || c == '-' || c == '_') && i > 0 && i < len(name)-1
			ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || inner)
		}
		if !ok {
			p.add(path, "%q: want names of 1 to 63 of a-z, 0-9 and inner '.', '-' and '_'", name)
		}
		return !ok
	})
}

func (p *problems) endpoint(path, s string) {
	u, err := url.Parse(s)
	if s != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "") {
		// Not repeated: before an @ it may hold a password.
		p.add(path+".endpoint", "want http://host[:port] or https://, without user, query and fragment")
	}
}

// ways refuses more than one way to get credentials.
func (p *problems) ways(path string, ways map[string]bool) {
	names := slices.Sorted(maps.Keys(ways))
	if set := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !ways[n] }); len(set) > 1 {
		p.add(path, "keep one of %s", strings.Join(names, ", "))
	}
}

func (p *problems) s3(path string, a S3Account, leastRequests int) {
	p.endpoint(path, a.Endpoint)
	p.requests(path, a.Requests, leastRequests)
	if strings.ContainsAny(a.Region, "/ \t\n") {
		p.add(path+".region", "%q: want a name such as eu-central-1", a.Region)
	}
	if (a.AccessKey == "") != (a.SecretKey == "") {
		p.add(path+".access_key", "access_key and secret_key come together")
	}
	if a.SessionToken != "" && a.AccessKey == "" {
		p.add(path+".session_token", "only has a meaning with access_key and secret_key")
	}
	p.ways(path, map[string]bool{"access_key": a.AccessKey != "", "profile": a.Profile != "", "anonymous": a.Anonymous})
}

func (p *problems) gs(path string, a GSAccount, leastRequests int) {
	p.endpoint(path, a.Endpoint)
	p.requests(path, a.Requests, leastRequests)
	p.ways(path, map[string]bool{"credentials_file": a.CredentialsFile != "", "anonymous": a.Anonymous})
}

// root checks a directory that users of the cluster may read and write: nothing
// of the node's own may be in it.
func (p *problems) root(path, dir string, c Config) {
	if !filepath.IsAbs(dir) || filepath.Clean(dir) == "/" {
		p.add(path, "%q: want an absolute path below /", dir)
		return
	}
	own := map[string]string{"node.data": c.Node.Data}
	for i, d := range c.Disks {
		own[fmt.Sprintf("disks[%d]", i)] = d.Path
	}
	for _, key := range slices.Sorted(maps.Keys(own)) {
		if d := own[key]; d != "" && (inside(d, dir) || inside(dir, d)) {
			p.add(path, "%q: one of it and %s (%q) lies within the other; clients could read and write what is the node's own", dir, key, d)
		}
	}
}

func (p *problems) rest(c Config) {
	if !validScheme(c.Defaults.Scheme) {
		p.add("defaults.scheme", "%q: want none, mirror-N (N 2 to 10) or ec-K+M (K 2 to 16, M 1 to 8)", c.Defaults.Scheme)
	}
	if c.Defaults.Domain != "" {
		p.oneOf("defaults.domain", c.Defaults.Domain, "node", "disk")
	}
	if c.Defaults.Inline > maxInline {
		p.add("defaults.inline", "%s: at most %s", c.Defaults.Inline, Size(maxInline))
	}
	if c.Limits.Requests < 0 {
		p.add("limits.requests", "%d: want 0 (no limit) or above", c.Limits.Requests)
	}
	if s := c.Space; s.LowWM < 0 || s.HighWM < 0 || s.HighWM > 100 || s.LowWM > 100 {
		p.add("space", "lowwm %d, highwm %d: want percentages, 0 to 100", s.LowWM, s.HighWM)
	} else if s.HighWM > 0 && s.LowWM >= s.HighWM {
		p.add("space.lowwm", "%d: want less than highwm, %d", s.LowWM, s.HighWM)
	}
	if c.Region == "" || strings.ContainsAny(c.Region, "/ \t\n") {
		p.add("region", "%q: want a name such as us-east-1", c.Region)
	}
	p.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	p.oneOf("log.format", c.Log.Format, "text", "json")
}

func validScheme(s string) bool {
	number := func(t string, low, high int) bool {
		n, err := strconv.Atoi(t)
		return err == nil && n >= low && n <= high && strconv.Itoa(n) == t
	}
	if s == "" || s == "none" {
		return true
	}
	if n, ok := strings.CutPrefix(s, "mirror-"); ok {
		return number(n, 2, 10)
	}
	t, ok := strings.CutPrefix(s, "ec-")
	k, m, plus := strings.Cut(t, "+")
	return ok && plus && number(k, 2, 16) && number(m, 1, 8)
}
