package membus

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"sync"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
)

// buffered is the number of events that a subscriber may be behind.
const buffered = 1024

type subscription struct {
	pattern string
	events  chan bus.Event
}

type service struct {
	client    *Client
	endpoints map[string]bus.Handler
	// calls holds a place for each request under way; limit of them.
	calls chan struct{}
	done  <-chan struct{}
	wg    sync.WaitGroup
}

// Publish implements [bus.Events].
func (c *Client) Publish(ctx context.Context, e bus.Event) error {
	if _, err := e.Encode(); err != nil {
		return err
	}
	c.bus.mu.Lock()
	defer c.bus.mu.Unlock()
	if _, err := c.begin(ctx, "publish", "", e.Topic()); err != nil {
		return err
	}
	for s := range c.bus.subs {
		if !bus.MatchTopic(s.pattern, e.Topic()) {
			continue
		}
		select {
		case s.events <- e:
		default: // a slow subscriber loses events
		}
	}
	return nil
}

// Subscribe implements [bus.Events].
func (c *Client) Subscribe(ctx context.Context, pattern string) (iter.Seq[bus.Event], error) {
	s := &subscription{pattern: pattern, events: make(chan bus.Event, buffered)}
	c.bus.mu.Lock()
	c.bus.subs[s] = true
	c.bus.mu.Unlock()
	end := func() {
		c.bus.mu.Lock()
		delete(c.bus.subs, s)
		c.bus.mu.Unlock()
	}
	stop := context.AfterFunc(ctx, end)
	return func(yield func(bus.Event) bool) {
		defer func() { stop(); end() }()
		for {
			select {
			case e := <-s.events:
				if !yield(e) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}, nil
}

// Serve implements [bus.Services].
func (c *Client) Serve(ctx context.Context, s bus.Service) error {
	limit := s.Limit
	if limit == 0 {
		limit = 64
	}
	svc := &service{client: c, endpoints: map[string]bus.Handler{}, calls: make(chan struct{}, limit*max(1, len(s.Endpoints))), done: ctx.Done()}
	for _, e := range s.Endpoints {
		svc.endpoints[e.Subject] = func(_ context.Context, request []byte) (any, error) { return e.Handler(ctx, request) }
	}
	c.bus.mu.Lock()
	c.bus.services[svc] = true
	c.bus.wake()
	c.bus.mu.Unlock()
	<-ctx.Done()
	c.bus.mu.Lock()
	delete(c.bus.services, svc)
	c.bus.mu.Unlock()
	svc.wg.Wait()
	return nil
}

// Request implements [bus.Services]. It waits for a service that is there and
// not cut off; one that ends during the call is given up for another.
func (c *Client) Request(ctx context.Context, subject string, request []byte) ([]byte, error) {
	for {
		c.bus.mu.Lock()
		_, err := c.begin(ctx, "request", "", subject)
		changed := c.bus.changed
		svc := c.pick(subject)
		if svc != nil && err == nil {
			svc.wg.Add(1)
		}
		c.bus.mu.Unlock()
		switch {
		case err != nil:
			return nil, err
		case svc == nil:
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return nil, fmt.Errorf("bus request %s: no node answers: %w", subject, core.ErrUnavailable)
			}
		}
		if a, ok := svc.call(ctx, svc.endpoints[subject], request); ok {
			return a.body, a.err
		}
	}
}

// pick returns the next service that offers the subject; c.bus.mu is held.
func (c *Client) pick(subject string) *service {
	var offers []*service
	for s := range c.bus.services {
		if s.endpoints[subject] != nil && !s.client.down && !s.leaving() {
			offers = append(offers, s)
		}
	}
	if len(offers) == 0 {
		return nil
	}
	c.bus.next++
	return offers[c.bus.next%len(offers)]
}

// leaving says whether the service has ended or is about to.
func (svc *service) leaving() bool {
	select {
	case <-svc.done:
		return true
	default:
		return false
	}
}

type answer struct {
	body []byte
	err  error
}

// call runs the handler as a request of its own, which goes on if the caller
// leaves. It says false if the service ended first. svc.wg is held for it.
func (svc *service) call(ctx context.Context, h bus.Handler, request []byte) (answer, bool) {
	out := make(chan answer, 1)
	go func() {
		defer svc.wg.Done()
		select {
		case svc.calls <- struct{}{}:
			defer func() { <-svc.calls }()
		case <-svc.done:
			return
		}
		v, err := h(ctx, request)
		if err != nil {
			out <- answer{err: bus.DecodeFault(bus.FaultOf(err).Encode())}
			return
		}
		b, err := json.Marshal(v)
		out <- answer{body: b, err: err}
	}()
	select {
	case a := <-out:
		return a, true
	case <-svc.done:
		return answer{}, false
	case <-ctx.Done():
		return answer{err: fmt.Errorf("bus request: no answer: %w: %w", core.ErrUnavailable, ctx.Err())}, true
	}
}
