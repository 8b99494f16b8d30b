package nodeserver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/bus/natsbus"
	"github.com/shoalstore/shoal/cmd/shoal/internal/recovery"
	"github.com/shoalstore/shoal/core"
)

// firstBus makes the first generation of the bus, out of nothing but the map
// that `shoal init` has written, which is kept by every node. The first voter
// does it; others only if that does not. On a bus that is there it does nothing.
//
// A map later than the first was written on a bus: then that held something, and
// nothing may take its place but what `shoal recover` makes. Where Shoal does not
// run the bus, that is done here too, from the map that it made.
func (s *server) firstBus(ctx context.Context) error {
	const look, patience = time.Second, 20 * time.Second
	for turn := 0; ; turn++ {
		m, changed := s.node.Maps()
		for m == nil {
			select {
			case <-changed:
			case <-ctx.Done():
				return nil
			}
			m, changed = s.node.Maps()
		}
		if !isFirst(m) && (s.cfg.Bus.URL == "" || !recovery.IsFirst(m)) {
			return s.awaitBus(ctx)
		}
		t := busTarget(m)
		mine := slices.IndexFunc(t.Members, func(m natsbus.Member) bool { return m.Name == s.cfg.Node.Name })
		if mine < 0 && s.cfg.Bus.URL == "" {
			return waitEnd(ctx)
		}
		c, cancel := context.WithTimeout(ctx, look)
		err := s.bus.Ready(c)
		cancel()
		if err != nil && turn >= 3*mine {
			c, cancel = context.WithTimeout(ctx, patience)
			err = s.bus.Import(c, bus.Snapshot{}, len(t.Members))
			cancel()
		}
		if err == nil {
			return waitEnd(ctx)
		}
		s.log.Debug("first generation of the bus is not ready yet", "err", err)
		if s.clock.Wait(ctx, 200*time.Millisecond) != nil {
			return nil
		}
	}
}

// isFirst says whether a map is the one that `shoal init` made, before anything
// was written on the bus.
func isFirst(m *core.Map) bool { return m.Epoch == 1 && m.Prev == "" }

// awaitBus says, where the bus does not come, what an operator can do.
func (s *server) awaitBus(ctx context.Context) error {
	const look, patience, again = 2 * time.Second, 30 * time.Second, 10 * time.Minute
	for wait := patience; ; wait = again {
		c, cancel := context.WithTimeout(ctx, wait)
		var err error
		for {
			try, end := context.WithTimeout(c, look)
			err = s.bus.Ready(try)
			end()
			if err == nil || s.clock.Wait(c, look) != nil {
				break
			}
		}
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			return waitEnd(ctx)
		}
		m := s.node.NewestMap() // none is in effect where no majority confirms one
		s.log.Error("the bus cannot be used, so the map and jobs cannot change; see that a majority of its coordinators runs and has its store; "+
			"if their stores are lost for good, stop all nodes and use `shoal recover`", "coordinators", names(busTarget(m)), "epoch", uint64(m.Epoch), "err", err)
	}
}

func names(t natsbus.Target) string {
	out := make([]string, len(t.Members))
	for i, m := range t.Members {
		out[i] = m.Name
	}
	return strings.Join(out, ",")
}

// busThere refuses to start the only coordinator of a bus whose store is gone: a
// new, empty one would never become the bus that was, and must not pass for it.
func (s *server) busThere(m *core.Map) error {
	t := busTarget(m)
	if s.cfg.Bus.URL != "" || len(t.Members) != 1 || t.Members[0].Name != s.cfg.Node.Name {
		return nil
	}
	if isFirst(m) || !slices.Equal(m.Voters, m.OldVoters) {
		// Its store is made, or filled from the former coordinators', after
		// this map. Any later map was written there.
		return nil
	}
	dir := s.state.file("bus")
	have, err := natsbus.Generations(dir)
	if err != nil || slices.Contains(have, t.Generation) {
		return err
	}
	return fmt.Errorf("this node is the only coordinator of the bus, but generation %d of it is not in %s, though the map is at epoch %d: "+
		"the store is lost, and with it the jobs; put it back, or use `shoal recover --config FILE` to make a new one: %w", t.Generation, dir, m.Epoch, core.ErrCorrupt)
}
