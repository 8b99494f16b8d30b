package remote

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/shoalstore/shoal/core"
)

// Opener opens a backend: the list of plugins, given by whoever wires them. It does
// not wait for the network.
type Opener func(core.Provider, core.RemoteSettings) (core.Backend, error)

// PoolOptions say how the clients of a pool are made.
type PoolOptions struct {
	// Client is what all clients have in common; its Name and Requests are not used.
	Client ClientOptions
	// Requests is the most requests at a time of a backend, 0 is the default. It may
	// be nil.
	Requests func(core.Provider, core.RemoteSettings) int
}

// Pool opens backends when they are first needed, one for all buckets that have the
// same settings but for their names. It may be used concurrently.
type Pool struct {
	open Opener
	o    PoolOptions

	mu      sync.Mutex
	clients map[poolKey]*Client
	leaving []*Client // retired, and perhaps in use
	gone    []Stats   // of those that are through
	closed  bool
}

type poolKey struct {
	provider core.Provider
	settings core.RemoteSettings
}

// name is what the backend is called in statistics.
func (k poolKey) name() string {
	if k.settings.Account == "" {
		return string(k.provider)
	}
	return string(k.provider) + "/" + k.settings.Account
}

// NewPool returns a pool that opens backends by open.
func NewPool(open Opener, o PoolOptions) *Pool {
	return &Pool{open: open, o: o, clients: map[poolKey]*Client{}}
}

// Client returns the client for a bucket with these settings. It is not to be kept
// for longer than a piece of work: after a change there is another one.
func (p *Pool) Client(provider core.Provider, s core.RemoteSettings) (*Client, error) {
	s.Name = ""
	k := poolKey{provider, s}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("the node is stopping: %w", core.ErrUnavailable)
	}
	if c := p.clients[k]; c != nil {
		return c, nil
	}
	b, err := p.open(provider, s)
	if err != nil {
		return nil, fmt.Errorf("opening the backend %s: %w", k.name(), err)
	}
	o := p.o.Client
	o.Name, o.Requests = k.name(), 0
	if p.o.Requests != nil {
		o.Requests = p.o.Requests(provider, s)
	}
	c := NewClient(b, o)
	p.clients[k] = c
	return c, nil
}

// Stats returns what all clients did so far, those that are no more included, by
// name and operation.
func (p *Pool) Stats() []Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fold()
	all := slices.Clone(p.gone)
	for _, c := range p.leaving {
		all = append(all, c.Stats()...)
	}
	for _, c := range p.clients {
		all = append(all, c.Stats()...)
	}
	return merge(all)
}

// Reset has every backend opened anew when it is next needed, as after a change of
// the configuration. Requests under way end as they would have.
func (p *Pool) Reset() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.retire()
}

// Close closes all backends, those that are in use after their last request. Nothing
// is opened any more.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return p.retire()
}

func (p *Pool) retire() error {
	var errs []error
	for k, c := range p.clients {
		if err := c.retire(); err != nil {
			errs = append(errs, fmt.Errorf("closing the backend %s: %w", k.name(), err))
		}
		p.leaving = append(p.leaving, c)
		delete(p.clients, k)
	}
	p.fold()
	return errors.Join(errs...)
}

// fold keeps of clients that are through only their figures.
func (p *Pool) fold() {
	p.leaving = slices.DeleteFunc(p.leaving, func(c *Client) bool {
		if !c.through() {
			return false
		}
		p.gone = merge(append(p.gone, c.Stats()...))
		return true
	})
}
