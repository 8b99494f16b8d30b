package natsbus

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
)

// buffered is the number of events that a subscriber may be behind.
const buffered = 1024

// Publish implements [bus.Events]. While the bus is away events are lost, and
// it says so.
func (c *Client) Publish(_ context.Context, e bus.Event) error {
	b, err := e.Encode()
	if err != nil {
		return err
	}
	m := nats.NewMsg(e.Topic())
	m.Header.Set("Content-Type", "application/cloudevents+json")
	m.Data = b
	if err := c.usable(c.nc); err != nil {
		return fmt.Errorf("publish %s: %w", e.Topic(), c.unavailable(err))
	}
	if err := c.nc.PublishMsg(m); err != nil {
		return fmt.Errorf("publish %s: %w", e.Topic(), c.unavailable(err))
	}
	return nil
}

// Subscribe implements [bus.Events].
func (c *Client) Subscribe(ctx context.Context, pattern string) (iter.Seq[bus.Event], error) {
	if !strings.HasPrefix(pattern, "shoal.event.") {
		return nil, fmt.Errorf("subscribe %q: want a pattern below shoal.event: %w", pattern, core.ErrInvalid)
	}
	msgs := make(chan *nats.Msg, buffered)
	sub, err := c.nc.ChanSubscribe(pattern, msgs)
	if err != nil {
		return nil, fmt.Errorf("subscribe %q: %w", pattern, c.translate(err))
	}
	stop := context.AfterFunc(ctx, func() { _ = sub.Unsubscribe() })
	// So that the server knows before the caller goes on, if there is one.
	if flush, cancel := context.WithTimeout(ctx, attempt); c.nc.IsConnected() {
		_ = c.nc.FlushWithContext(flush)
		cancel()
	} else {
		cancel()
	}
	return func(yield func(bus.Event) bool) {
		defer func() {
			if stop() {
				_ = sub.Unsubscribe()
			}
		}()
		for {
			select {
			case <-ctx.Done():
				return
			case <-c.closed:
				return
			case m := <-msgs:
				e, err := bus.DecodeEvent(m.Data)
				if err != nil {
					c.log.Debug("event ignored", "subject", m.Subject, "err", err)
					continue
				}
				if !yield(e) {
					return
				}
			}
		}
	}, nil
}
