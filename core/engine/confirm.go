package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/slot"
)

// confirmRetry is after how long voters are asked again.
const confirmRetry = 200 * time.Millisecond

// confirms are the reads that wait for a majority of voters to say that this
// node still is who may answer them. One round of reports serves all reads that
// were waiting when it began.
type confirms struct {
	waiting  []confirmWait
	asking   bool
	asked    core.Instant // when the round under way began
	reported core.Instant // when it last sent reports
}

type confirmWait struct {
	since core.Instant
	done  chan struct{}
}

// answer says whether what was read under g may be answered. Where reads are to
// be confirmed it asks the voters.
func (d *driver) answer(ctx context.Context, g slot.Reading) error {
	if d.confirms != nil {
		if err := d.confirm(ctx); err != nil {
			return err
		}
	}
	return d.check(g)
}

// confirm waits until a majority of voters has granted a report that is sent
// from now on.
func (d *driver) confirm(ctx context.Context) error {
	done := make(chan struct{})
	d.step(func(n *slot.Node, now core.Instant) {
		c := d.confirms
		c.waiting = append(c.waiting, confirmWait{now, done})
		if !c.asking {
			c.ask(n, now)
		}
	})
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		d.mu.Lock()
		c := d.confirms
		c.waiting = slices.DeleteFunc(c.waiting, func(w confirmWait) bool { return w.done == done })
		d.mu.Unlock()
		return fmt.Errorf("a majority of voters does not confirm that node %s may answer: %w: %w", d.self, core.ErrUnavailable, context.Cause(ctx))
	}
}

func (c *confirms) ask(n *slot.Node, now core.Instant) {
	c.asking, c.asked, c.reported = true, now, now
	n.Report(now)
}

// settle lets the reads go that are confirmed and asks for the others. It runs
// in every step.
func (c *confirms) settle(n *slot.Node, now core.Instant) {
	if len(c.waiting) == 0 {
		c.asking = false
		return
	}
	if c.asking && !n.GrantedSince(c.asked) {
		if now.Sub(c.reported) > confirmRetry {
			c.reported = now
			n.Report(now)
		}
		return
	}
	left := c.waiting[:0]
	for _, w := range c.waiting {
		if w.since <= c.asked {
			close(w.done)
		} else {
			left = append(left, w)
		}
	}
	clear(c.waiting[len(left):])
	c.waiting, c.asking = left, false
	if len(left) > 0 {
		c.ask(n, now)
	}
}
