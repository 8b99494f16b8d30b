package natsbus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
)

// A coordinator that has a snapshot gives it to those that have none, in
// chunks, over the new generation's servers: plain messages need no majority.

const (
	snapshotSubject = "shoal.bus.snapshot."
	chunkSize       = 1 << 20
	headerSize      = "Shoal-Size"
	fetchTry        = time.Second
)

// serveSnapshots answers requests for a piece of a snapshot; the request is
// the offset in decimal.
func (c *Coordinator) serveSnapshots() (*nats.Subscription, error) {
	sub, err := c.opts.Client.nc.Subscribe(snapshotSubject+"*", func(m *nats.Msg) {
		g, err := strconv.ParseUint(strings.TrimPrefix(m.Subject, snapshotSubject), 10, 64)
		if err != nil {
			return
		}
		b, err := os.ReadFile(snapshotFile(c.opts.Server.Dir, g))
		if err != nil {
			return // others may have it
		}
		offset, err := strconv.Atoi(string(m.Data))
		if err != nil || offset < 0 || offset > len(b) {
			return
		}
		out := nats.NewMsg(m.Reply)
		out.Header.Set(headerSize, strconv.Itoa(len(b)))
		out.Data = b[offset:min(offset+chunkSize, len(b))]
		if err := c.opts.Client.nc.PublishMsg(out); err != nil {
			c.log.Debug("bus snapshot not sent", "generation", g, "err", err)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("bus coordinator: %w", err)
	}
	return sub, nil
}

// fetchSnapshot gets a snapshot from whoever has it and keeps it.
func (c *Coordinator) fetchSnapshot(ctx context.Context, g uint64) error {
	var b []byte
	for {
		try, cancel := context.WithTimeout(ctx, fetchTry)
		m, err := c.opts.Client.nc.RequestWithContext(try, snapshotSubject+strconv.FormatUint(g, 10), strconv.AppendInt(nil, int64(len(b)), 10))
		cancel()
		if err != nil {
			return fmt.Errorf("fetch the snapshot of bus generation %d: %w", g, err)
		}
		size, err := strconv.Atoi(m.Header.Get(headerSize))
		if err != nil || len(m.Data) == 0 {
			return fmt.Errorf("fetch the snapshot of bus generation %d: %w", g, errors.Join(err, core.ErrCorrupt))
		}
		if b = append(b, m.Data...); len(b) >= size {
			break
		}
	}
	s, err := bus.DecodeSnapshot(b)
	if err != nil {
		return err
	}
	if s.Generation != g {
		return fmt.Errorf("fetch the snapshot of bus generation %d: got that of %d: %w", g, s.Generation, core.ErrCorrupt)
	}
	return WriteSnapshot(c.opts.Server.Dir, s)
}
