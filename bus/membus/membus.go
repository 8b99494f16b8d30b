// Package membus is the bus within one process, for tests and the simulator.
// Every node of a test gets its own [Client]; faults are ordered on the [Bus]
// they share: outages, stale reads, lost requests and answers, and what a
// damaged coordinator does, rollback and fork.
//
//	b := membus.New()
//	n1, n2 := b.Client(), b.Client()
//	b.SetFaults(func(op membus.Op) membus.Fault { return membus.LostAnswer })
package membus

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
)

// Fault is what goes wrong with one operation.
type Fault int

// The faults. A lost request was not carried out and a lost answer was; both
// look alike to the caller: outcome unknown for writes, unavailable for reads.
const (
	None Fault = iota
	Unavailable
	Conflict
	LostRequest
	LostAnswer
)

// Op describes an operation to a fault function.
type Op struct {
	Client *Client
	// Kind is "load", "list", "write", "confirm", "publish" or "request".
	Kind   string
	Bucket string
	Key    string
}

// history is the number of writes that Rollback and SetStale can reach back.
const history = 4096

// change is one write, with what it replaced.
type change struct {
	bucket, key string
	was         stored
	had         bool
}

type stored struct {
	value   []byte
	rev     bus.Revision
	deleted bool
}

// branch is one line of writes. After a fork there are two.
type branch struct {
	last    bus.Revision
	buckets map[string]map[string]stored
	log     []change
}

func newBranch() *branch { return &branch{buckets: map[string]map[string]stored{}} }

func (b *branch) bucket(name string) map[string]stored {
	m := b.buckets[name]
	if m == nil {
		m = map[string]stored{}
		b.buckets[name] = m
	}
	return m
}

func (b *branch) write(bucket, key string, value []byte, deleted bool) bus.Revision {
	m := b.bucket(bucket)
	was, had := m[key]
	if len(b.log) == history {
		b.log = slices.Delete(b.log, 0, history/2)
	}
	b.log = append(b.log, change{bucket: bucket, key: key, was: was, had: had})
	b.last++
	m[key] = stored{value: slices.Clone(value), rev: b.last, deleted: deleted}
	return b.last
}

func (b *branch) undo() {
	c := b.log[len(b.log)-1]
	b.log = b.log[:len(b.log)-1]
	b.last--
	if c.had {
		b.bucket(c.bucket)[c.key] = c.was
	} else {
		delete(b.bucket(c.bucket), c.key)
	}
}

func (b *branch) clone() *branch {
	c := &branch{last: b.last, buckets: map[string]map[string]stored{}, log: slices.Clone(b.log)}
	for n, m := range b.buckets {
		c.buckets[n] = maps.Clone(m)
	}
	return c
}

// Bus is what the clients share. All methods may be called concurrently.
type Bus struct {
	mu       sync.Mutex
	branch   *branch
	down     bool
	stale    int
	faults   func(Op) Fault
	changed  chan struct{} // closed and replaced at every change
	services map[*service]bool
	subs     map[*subscription]bool
	next     int
}

// New returns an empty bus that works.
func New() *Bus {
	return &Bus{
		branch: newBranch(), changed: make(chan struct{}),
		services: map[*service]bool{}, subs: map[*subscription]bool{},
	}
}

// Client returns the bus as one node sees it.
func (b *Bus) Client() *Client { return &Client{bus: b} }

// SetDown begins or ends an outage. During one every operation fails at once.
func (b *Bus) SetDown(down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = down
	b.wake()
}

// SetStale makes reads answer as before the last n writes. Writes are not
// affected, and Watch is not either: it waits.
func (b *Bus) SetStale(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stale = n
}

// SetFaults asks f about every operation; nil ends that. f must not call the
// bus.
func (b *Bus) SetFaults(f func(Op) Fault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = f
}

// Rollback forgets the last n writes, though they were acknowledged: a
// coordinator that lost them leads. Later writes get their numbers again.
func (b *Bus) Rollback(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range min(n, len(b.branch.log)) {
		b.branch.undo()
	}
	b.wake()
}

// Fork puts the given clients on a branch of their own: from here on they
// and the others do not see each other's writes. Rejoin ends it.
func (b *Bus) Fork(clients ...*Client) {
	b.mu.Lock()
	defer b.mu.Unlock()
	other := b.branch.clone()
	for _, c := range clients {
		c.fork = other
	}
	b.wake()
}

// Rejoin brings the clients back to the common branch; what they wrote on
// their own is lost.
func (b *Bus) Rejoin(clients ...*Client) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range clients {
		c.fork = nil
	}
	b.wake()
}

// wake tells the watchers; b.mu is held.
func (b *Bus) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// Client is the bus as one node sees it.
type Client struct {
	bus  *Bus
	fork *branch // under bus.mu; nil on the common branch
	down bool    // under bus.mu
}

// SetDown cuts this client off, or ends that.
func (c *Client) SetDown(down bool) {
	c.bus.mu.Lock()
	defer c.bus.mu.Unlock()
	c.down = down
	c.bus.wake()
}

// Map returns the register of the cluster map.
func (c *Client) Map() bus.Register { return register{kv{c, "map"}} }

// Jobs returns the bucket of jobs.
func (c *Client) Jobs() bus.KV { return kv{c, "jobs"} }

func (c *Client) at() *branch {
	if c.fork != nil {
		return c.fork
	}
	return c.bus.branch
}

// begin decides on an operation's fate; c.bus.mu is held.
func (c *Client) begin(ctx context.Context, kind, bucket, key string) (Fault, error) {
	if err := ctx.Err(); err != nil {
		return None, fmt.Errorf("bus %s %s %q: %w: %w", kind, bucket, key, core.ErrUnavailable, err)
	}
	f := None
	if c.bus.faults != nil {
		f = c.bus.faults(Op{Client: c, Kind: kind, Bucket: bucket, Key: key})
	}
	if c.bus.down || c.down {
		f = Unavailable
	}
	if f == Unavailable || f != None && f != Conflict && kind != "write" {
		return f, fmt.Errorf("bus %s %s %q: %w", kind, bucket, key, core.ErrUnavailable)
	}
	return f, nil
}

// write writes if the key's newest revision is rev, 0 for a key without a
// value.
func (c *Client) write(ctx context.Context, bucket, key string, value []byte, rev bus.Revision, deleted bool) (bus.Revision, error) {
	b := c.bus
	b.mu.Lock()
	defer b.mu.Unlock()
	f, err := c.begin(ctx, "write", bucket, key)
	if err != nil {
		return 0, err
	}
	unknown := func() (bus.Revision, error) {
		return 0, fmt.Errorf("bus write %s %q: no answer: %w", bucket, key, core.ErrUnknownOutcome)
	}
	if f == LostRequest {
		return unknown()
	}
	if have := c.revision(bucket, key); f == Conflict || have != rev {
		if f == LostAnswer {
			return unknown()
		}
		return 0, fmt.Errorf("bus write %s %q at revision %d: it is at %d: %w", bucket, key, rev, have, core.ErrConflict)
	}
	got := c.at().write(bucket, key, value, deleted)
	b.wake()
	if f == LostAnswer {
		return unknown()
	}
	return got, nil
}

func (c *Client) revision(bucket, key string) bus.Revision {
	if s := c.at().bucket(bucket)[key]; !s.deleted {
		return s.rev
	}
	return 0
}

// read returns the bucket as a read sees it.
func (c *Client) read(ctx context.Context, kind, bucket, key string) (map[string]stored, error) {
	b := c.bus
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := c.begin(ctx, kind, bucket, key); err != nil {
		return nil, err
	}
	seen := c.at()
	if b.stale > 0 || kind == "list" {
		seen = seen.clone()
		for range min(b.stale, len(seen.log)) {
			seen.undo()
		}
		return seen.bucket(bucket), nil
	}
	return map[string]stored{key: seen.bucket(bucket)[key]}, nil
}

// under says whether a key lies below a prefix.
func under(key, prefix string) bool {
	return prefix == "" || strings.HasPrefix(key, prefix+".")
}
