package devcluster

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/plugins/api"
)

// layOut plans a new cluster and writes the nodes' configurations. It leaves
// nothing behind when it fails.
func (c *Cluster) layOut(s *State, p Plan) (err error) {
	s.Data, s.Backends, s.BasePort = c.dir(), p.Backends, p.BasePort
	if p.Data != "" {
		if s.Data, err = filepath.Abs(p.Data); err != nil {
			return err
		}
		if err := emptyDir(s.Data); err != nil {
			return err
		}
	}
	if p.BasePort == 0 {
		if s.BasePort, err = findPorts(p.Nodes); err != nil {
			return err
		}
	}
	var secret [16]byte
	_, _ = rand.Read(secret[:]) // never fails
	s.Secret = hex.EncodeToString(secret[:])
	for i := range p.Nodes {
		s.Nodes = append(s.Nodes, s.plan(i+1, p.Disks))
	}
	if err := portsFree(s.Nodes); err != nil {
		return err
	}
	for _, n := range s.Nodes {
		if err := s.writeNode(n); err != nil {
			for _, n := range s.Nodes {
				err = errors.Join(err, os.RemoveAll(n.Dir))
			}
			return err
		}
	}
	return nil
}

// emptyDir refuses a directory that holds something: all of it may go later.
func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if len(entries) > 0 {
		return api.Refused(fmt.Sprintf("%s is not empty", dir), "choose a new or empty directory with --data")
	}
	return nil
}

// writeNode makes a node's directories and its configuration.
func (s *State) writeNode(n Node) error {
	for _, d := range n.Disks {
		if err := os.MkdirAll(d.Path, 0o700); err != nil {
			return err
		}
	}
	text := s.yaml(n)
	if _, err := config.Parse([]byte(text), nil); err != nil {
		return fmt.Errorf("configuration of %s: %w", n.Name, err)
	}
	return os.WriteFile(n.Config, []byte(text), 0o600)
}

// yaml is a node's configuration. Strings are quoted as JSON, which is YAML.
func (s *State) yaml(n Node) string {
	var b strings.Builder
	q := func(v string) string {
		j, _ := json.Marshal(v) // a string always has JSON
		return string(j)
	}
	fmt.Fprintf(&b, "# Written by `shoal dev`; shoal config example explains the keys.\n")
	fmt.Fprintf(&b, "node:\n  name: %s\n  data: %s\n", q(n.Name), q(filepath.Join(n.Dir, "state")))
	fmt.Fprintf(&b, "listen:\n  client: %s\n  peer: %s\n  bus: %s\n  route: %s\n", q(n.Client), q(n.Peer), q(n.Bus), q(n.Route))
	b.WriteString("disks:\n")
	for _, d := range n.Disks {
		// All disks share one device here, so capacity says nothing.
		fmt.Fprintf(&b, "  - path: %s\n    weight: 1\n", q(d.Path))
	}
	fmt.Fprintf(&b, "cluster:\n  secret: %s\n  seeds:\n", q(s.Secret))
	seeds := 0
	for _, o := range s.Nodes {
		if o.Name != n.Name && seeds < 5 {
			fmt.Fprintf(&b, "    - %s\n", q(o.Peer))
			seeds++
		}
	}
	if seeds == 0 {
		b.WriteString("    []\n")
	}
	fmt.Fprintf(&b, "credentials:\n  - access_key: %s\n    secret_key: %s\n", q(config.DevAccessKey), q(config.DevSecretKey))
	// Others fill the device, so that evicting may not help.
	b.WriteString("space:\n  highwm: 0\n")
	if len(s.Backends) > 0 {
		b.WriteString("backends:\n")
		for _, k := range s.Backends {
			fmt.Fprintf(&b, "  %s:\n    endpoint: %s\n", k.Provider, q(k.URL))
			switch k.Provider {
			case "s3":
				b.WriteString("    path_style: true\n")
			case "gs": // an emulator, which asks for no credentials
				b.WriteString("    anonymous: true\n    upload_conditions: true\n")
			}
		}
	}
	return b.String()
}

// portsFree refuses ports that somebody listens on.
func portsFree(nodes []Node) error {
	for _, n := range nodes {
		for _, addr := range []string{n.Client, n.Peer, n.Bus, n.Route} {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				return api.Refused(fmt.Sprintf("%s needs %s, which is in use", n.Name, addr),
					"--base-port N chooses other ports, 0 free ones; --name lets clusters run side by side")
			}
			_ = l.Close()
		}
	}
	return nil
}

// findPorts returns a base such that all ports of the nodes are free now, and
// that no outgoing connection gets one of them while its node does not run.
func findPorts(nodes int) (int, error) {
	const tries = 64
	need := routeOffset + nodes
	first, last := quietPorts(need)
	for range tries {
		base := first + mathrand.IntN(last-first-need+1)
		s := &State{BasePort: base}
		var plan []Node
		for i := range nodes {
			plan = append(plan, s.plan(i+1, 0))
		}
		if portsFree(plan) == nil {
			return base, nil
		}
	}
	return 0, errors.New("no free ports found for " + strconv.Itoa(nodes) + " nodes; choose with --base-port")
}

// quietPorts is the range of ports, of need or more, from which the kernel takes
// none for outgoing connections; or where it leaves no such range, most.
func quietPorts(need int) (first, last int) {
	const lowest, highest = 10000, 65535
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return lowest, highest
	}
	var from, to int
	if _, err := fmt.Sscan(string(text), &from, &to); err != nil {
		return lowest, highest
	}
	switch {
	case from-lowest > 4*need:
		return lowest, from - 1
	case highest-to > 4*need:
		return to + 1, highest
	}
	return lowest, highest
}
