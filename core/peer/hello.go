package peer

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/shoalstore/shoal/core"
)

// The handshake: hello, challenge, proof, welcome; or at any point a refusal.
// Each end proves to the other that it knows the cluster's secret, for this
// connection only: the proofs are keyed hashes of all that was said before,
// with a random number from each end, and of the TLS session, if there is one.
// A part is its type, one byte, its length, two bytes, and its body.
type helloPart byte

const (
	partHello     helloPart = 1
	partChallenge helloPart = 2
	partProof     helloPart = 3
	partWelcome   helloPart = 4
	partRefusal   helloPart = 5
)

const (
	helloMagic   = "SHOALPR\n"
	maxHelloPart = 4 << 10
	nonceSize    = 32
	// The versions of the protocol that this node speaks.
	minVersion, maxVersion = 1, 1
	// bindingLabel is RFC 9266's name for what is unique to a TLS session.
	bindingLabel = "EXPORTER-Channel-Binding"
)

// roles keep an end from proving itself with the other's own proof.
const (
	roleAcceptor = "shoal peer acceptor 1\x00"
	roleDialler  = "shoal peer dialler 1\x00"
)

// hello is the first part, from the end that dialled.
type hello struct {
	minVersion, maxVersion uint8
	kind                   kind
	features               uint64 // none so far
	nonce                  [nonceSize]byte
	cluster                string
	from, to               core.NodeID
}

func (h hello) encode() []byte {
	b := append([]byte(helloMagic), h.minVersion, h.maxVersion, byte(h.kind))
	b = binary.LittleEndian.AppendUint64(b, h.features)
	b = append(b, h.nonce[:]...)
	for _, s := range []string{h.cluster, string(h.from), string(h.to)} {
		b = append(append(b, byte(len(s))), s...)
	}
	return b
}

// parseHello reads a hello. What follows the known fields is for the future.
func parseHello(b []byte) (h hello, err error) {
	const fixed = len(helloMagic) + 3 + 8 + nonceSize
	if len(b) < fixed || string(b[:len(helloMagic)]) != helloMagic {
		return h, fmt.Errorf("%w: not a hello", errProtocol)
	}
	b = b[len(helloMagic):]
	h.minVersion, h.maxVersion, h.kind = b[0], b[1], kind(b[2])
	h.features = binary.LittleEndian.Uint64(b[3:])
	copy(h.nonce[:], b[11:])
	b = b[11+nonceSize:]
	var names [3]string
	for i := range names {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return h, fmt.Errorf("%w: hello is cut short", errProtocol)
		}
		names[i], b = string(b[1:1+int(b[0])]), b[1+int(b[0]):]
	}
	h.cluster, h.from, h.to = names[0], core.NodeID(names[1]), core.NodeID(names[2])
	return h, nil
}

// challenge answers a hello. On the wire the acceptor's proof comes first.
type challenge struct {
	version  uint8
	features uint64
	nonce    [nonceSize]byte
}

const challengeSize = 1 + 8 + nonceSize

func (c challenge) encode() []byte {
	b := binary.LittleEndian.AppendUint64([]byte{c.version}, c.features)
	return append(b, c.nonce[:]...)
}

func parseChallenge(b []byte) (c challenge, err error) {
	if len(b) < challengeSize {
		return c, fmt.Errorf("%w: challenge of %d bytes", errProtocol, len(b))
	}
	c.version, c.features = b[0], binary.LittleEndian.Uint64(b[1:])
	copy(c.nonce[:], b[9:])
	return c, nil
}

// transcript is the hash of all that both ends have said, and of the TLS
// session that it was said in.
func transcript(parts ...[]byte) []byte {
	h := sha256.New()
	for _, p := range parts {
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write(p)
	}
	return h.Sum(nil)
}

func (t *Transport) prove(role string, sum []byte) []byte {
	m := hmac.New(sha256.New, t.o.Secret)
	m.Write([]byte(role))
	m.Write(sum)
	return m.Sum(nil)
}

// refusalCode says why a node is refused. The numbers are part of the protocol.
type refusalCode byte

const (
	refusedInput   refusalCode = 1
	refusedVersion refusalCode = 2
	refusedCluster refusalCode = 3
	refusedNode    refusalCode = 4
	refusedSecret  refusalCode = 5
	refusedBusy    refusalCode = 6
)

// refusal is what a refused node is told.
type refusal struct {
	code refusalCode
	text string
}

func (r *refusal) Error() string { return r.text }

func (r *refusal) Unwrap() error {
	switch r.code {
	case refusedVersion:
		return ErrVersion
	case refusedCluster:
		return ErrOtherCluster
	case refusedNode:
		return ErrOtherNode
	case refusedSecret:
		return ErrWrongSecret
	}
	return nil
}

func refuse(code refusalCode, format string, args ...any) *refusal {
	return &refusal{code: code, text: fmt.Sprintf(format, args...)}
}

// sendPart writes a part of the handshake.
func (c *conn) sendPart(p helloPart, body []byte) error {
	b := binary.LittleEndian.AppendUint16([]byte{byte(p)}, uint16(len(body)))
	_, err := c.nc.Write(append(b, body...))
	return err
}

// sendRefusal tells the other end why it is refused; err says so here.
func (c *conn) sendRefusal(err error) {
	if r := (*refusal)(nil); errors.As(err, &r) {
		_ = c.sendPart(partRefusal, append([]byte{byte(r.code)}, r.text...))
	}
}

// part reads the next part of the handshake, which must be the wanted one, and
// not a byte more.
func (c *conn) part(want helloPart) ([]byte, error) {
	var head [3]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return nil, fmt.Errorf("the other end hung up in the handshake: %w", err)
	}
	n := int(binary.LittleEndian.Uint16(head[1:]))
	got := helloPart(head[0])
	const tlsHandshake = 0x16
	switch {
	case got == tlsHandshake && want == partHello:
		return nil, refuse(refusedInput, "the caller uses TLS and this node does not: configure all nodes alike")
	case got != want && got != partRefusal || n > maxHelloPart:
		return nil, refuse(refusedInput, "not a Shoal node: unexpected bytes in the handshake")
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c, body); err != nil {
		return nil, fmt.Errorf("the other end hung up in the handshake: %w", err)
	}
	if got == want {
		return body, nil
	}
	if n == 0 {
		return nil, fmt.Errorf("%w: refusal without a reason", errProtocol)
	}
	return nil, &refused{refusal{code: refusalCode(body[0]), text: string(body[1:])}}
}

// refused is the other end's refusal, which is not sent back to it.
type refused struct{ refusal }

func (r *refused) Error() string { return "refused by the other end: " + r.text }
func (r *refused) Unwrap() error { return r.refusal.Unwrap() }

// dialHandshake is the handshake of the end that dialled.
func (t *Transport) dialHandshake(c *conn, to core.NodeID) error {
	h := hello{
		minVersion: minVersion, maxVersion: maxVersion, kind: c.kind,
		cluster: t.o.Cluster, from: t.o.Self, to: to,
	}
	_, _ = rand.Read(h.nonce[:])
	said := h.encode()
	if err := c.sendPart(partHello, said); err != nil {
		return fmt.Errorf("send hello: %w", err)
	}
	body, err := c.part(partChallenge)
	if err != nil {
		return err
	}
	if len(body) < sha256.Size {
		return fmt.Errorf("%w: challenge of %d bytes", errProtocol, len(body))
	}
	proof, body := body[:sha256.Size], body[sha256.Size:]
	ch, err := parseChallenge(body)
	if err != nil {
		return err
	}
	if ch.version < minVersion || ch.version > maxVersion {
		return refuse(refusedVersion, "the node chose version %d of the peer protocol; this one speaks %d to %d",
			ch.version, minVersion, maxVersion)
	}
	binding, err := c.binding()
	if err != nil {
		return err
	}
	sum := transcript(said, body, binding)
	if !hmac.Equal(proof, t.prove(roleAcceptor, sum)) {
		return refuse(refusedSecret, "nodes %s and %s do not have the same cluster secret: compare their configurations", t.o.Self, to)
	}
	if err := c.sendPart(partProof, t.prove(roleDialler, sum)); err != nil {
		return fmt.Errorf("send proof: %w", err)
	}
	c.welcomed, err = c.part(partWelcome)
	return err
}

// acceptHandshake is the handshake of the end that was dialled, up to the
// welcome, which the caller sends when it has admitted the other end.
func (t *Transport) acceptHandshake(c *conn) (hello, error) {
	said, err := c.part(partHello)
	if err != nil {
		return hello{}, err
	}
	h, err := parseHello(said)
	if err != nil {
		return h, refuse(refusedInput, "%v", err)
	}
	if err := t.checkHello(h); err != nil {
		return h, err
	}
	ch := challenge{version: min(h.maxVersion, maxVersion)}
	_, _ = rand.Read(ch.nonce[:])
	body := ch.encode()
	binding, err := c.binding()
	if err != nil {
		return h, err
	}
	sum := transcript(said, body, binding)
	if err := c.sendPart(partChallenge, append(t.prove(roleAcceptor, sum), body...)); err != nil {
		return h, fmt.Errorf("send challenge: %w", err)
	}
	proof, err := c.part(partProof)
	if err != nil {
		return h, err
	}
	if len(proof) < sha256.Size || !hmac.Equal(proof[:sha256.Size], t.prove(roleDialler, sum)) {
		return h, refuse(refusedSecret, "node %s does not have this cluster's secret: compare its configuration with that of %s", h.from, t.o.Self)
	}
	return h, nil
}

// checkHello says whether this node wants to talk to the sender of a hello, if
// that is who it says.
func (t *Transport) checkHello(h hello) error {
	self := t.o.Self
	switch {
	case h.minVersion > maxVersion || h.maxVersion < minVersion || h.minVersion > h.maxVersion:
		return refuse(refusedVersion, "node %s speaks versions %d to %d of the peer protocol, node %s %d to %d: upgrade the older one",
			h.from, h.minVersion, h.maxVersion, self, minVersion, maxVersion)
	case h.kind == kindAsk:
		return nil // whoever knows the secret may ask who is here
	case h.cluster != t.o.Cluster:
		return refuse(refusedCluster, "node %s belongs to cluster %q, node %s at this address to %q: check the addresses in the configuration",
			h.from, h.cluster, self, t.o.Cluster)
	case h.to != self:
		return refuse(refusedNode, "this address belongs to node %s, not to %s: check the addresses in the configuration", self, h.to)
	case h.from == self:
		return refuse(refusedNode, "two nodes are called %s: give each node a name of its own", self)
	case h.kind < kindMessages || h.kind > kindStreams:
		return refuse(refusedInput, "connections for %s are not known here", h.kind)
	}
	if err := h.from.Validate(); err != nil {
		return refuse(refusedInput, "%v", err)
	}
	return nil
}

// binding returns what is unique to the TLS session, nothing without TLS.
func (c *conn) binding() ([]byte, error) {
	tc, ok := c.nc.(*tls.Conn)
	if !ok {
		return nil, nil
	}
	cs := tc.ConnectionState()
	b, err := cs.ExportKeyingMaterial(bindingLabel, nil, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("bind the handshake to the TLS session: %w", err)
	}
	return b, nil
}

// encrypt puts TLS over a connection, in the role of who dialled it or not.
func (c *conn) encrypt(ctx context.Context, serverName string) error {
	cfg := c.t.o.TLS
	if cfg == nil {
		return nil
	}
	var tc *tls.Conn
	if c.dialled {
		if cfg.ServerName == "" {
			cfg = cfg.Clone()
			cfg.ServerName = serverName
		}
		tc = tls.Client(c.raw, cfg)
	} else {
		tc = tls.Server(c.raw, cfg)
	}
	err := tc.HandshakeContext(ctx)
	if plain := (tls.RecordHeaderError{}); errors.As(err, &plain) {
		return fmt.Errorf("the other end does not use TLS and this node does: configure all nodes alike: %w", err)
	}
	if err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	c.nc = tc
	return nil
}
