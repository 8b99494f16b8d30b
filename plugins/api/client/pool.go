package client

import (
	"net/url"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
)

// endpoint is the URL of a node with what is known of it.
type endpoint struct {
	url *url.URL

	// Under the pool's mutex: failures in a row, and until when others are
	// preferred.
	failures int
	avoid    time.Time
}

// pool chooses among endpoints: the one that served last, as long as it does
// not fail; otherwise the next that has not failed of late.
type pool struct {
	clock core.Clock
	all   []*endpoint

	mu       sync.Mutex
	current  int
	answered bool // some endpoint has ever answered
}

func newPool(urls []*url.URL, clock core.Clock) *pool {
	p := &pool{clock: clock}
	for _, u := range urls {
		p.all = append(p.all, &endpoint{url: u})
	}
	return p
}

// pick returns the endpoint to ask now. Those in tried were asked in this round
// and come again only where there is no other.
func (p *pool) pick(tried map[*endpoint]bool) *endpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock.Now()
	var second *endpoint
	for i := range p.all {
		e := p.all[(p.current+i)%len(p.all)]
		switch {
		case tried[e]:
		case !now.Before(e.avoid):
			return e
		case second == nil || e.avoid.Before(second.avoid):
			second = e
		}
	}
	if second != nil {
		return second
	}
	return p.all[p.current]
}

// good records that the endpoint answered.
func (p *pool) good(e *endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answered = true
	e.failures = 0
	e.avoid = time.Time{}
	for i := range p.all {
		if p.all[i] == e {
			p.current = i
		}
	}
}

// bad records that the endpoint failed. It is avoided for a second, and twice
// as long after each further failure, up to 16 seconds.
func (p *pool) bad(e *endpoint, alive bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answered = p.answered || alive
	e.failures++
	e.avoid = p.clock.Now().Add(time.Second << min(e.failures-1, 4))
}

// everAnswered says whether some endpoint has answered since the start.
func (p *pool) everAnswered() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.answered
}
