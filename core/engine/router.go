package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/placement"
)

// patience is how long a gateway keeps trying to reach a slot's owner before it
// answers 503: longer than a fail-over takes, even with the bus's leader gone.
const patience = 30 * time.Second

// slotOf returns the slot of a key.
func slotOf(m *core.Map, b core.BucketID, key string) core.SlotID {
	return placement.SlotOf(b, key, len(m.Slots))
}

// call asks the owner of a slot, see [Node.ask]. What it asks must be
// idempotent.
func (n *Node) call(ctx context.Context, s core.SlotID, method uint16, req []byte) (resp []byte, err error) {
	err = n.ask(ctx, s, func(ctx context.Context, m *core.Map) error {
		resp, err = n.attempt(ctx, m, s, method, req)
		return err
	})
	return resp, err
}

// unanswered is the error of a slot whose owner did not answer for patience.
type unanswered core.SlotID

// Error says it when it is needed, which is seldom.
func (s unanswered) Error() string {
	return fmt.Sprintf("slot %d had no owner that answered for %v: %v", core.SlotID(s), patience, core.ErrUnavailable)
}

func (unanswered) Unwrap() error { return core.ErrUnavailable }

// ask has the owner of a slot asked, follows the slot when it changes hands,
// and tries again while it has no active owner.
func (n *Node) ask(ctx context.Context, s core.SlotID, attempt func(ctx context.Context, m *core.Map) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, unanswered(s))
	defer cancel()
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 5*time.Millisecond, 500*time.Millisecond
	var last error
	for {
		_, m, changed := n.driver.maps()
		if m == nil {
			return fmt.Errorf("this node knows no map in effect yet: %w", core.ErrUnavailable)
		}
		if int(s) >= len(m.Slots) {
			return fmt.Errorf("slot %d: %w", s, core.ErrInvalid)
		}
		err := attempt(ctx, m)
		if err == nil || !retryable(err) {
			return err
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		timer := time.NewTimer(wait.NextBackOff())
		select {
		case <-changed:
			timer.Stop()
			wait.Reset()
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w: %w", last, context.Cause(ctx))
		}
	}
}

// attempt asks the owner that the map names, until it answers or another map
// names another owner.
func (n *Node) attempt(ctx context.Context, m *core.Map, s core.SlotID, method uint16, req []byte) ([]byte, error) {
	owner := m.OwnerNode(s)
	if owner == "" {
		return nil, fmt.Errorf("slot %d has no disk: %w", s, core.ErrUnavailable)
	}
	if owner == n.id {
		return n.serve(ctx, n.id, method, req)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	defer close(done)
	go n.watchOwner(ctx, done, s, owner, m.SlotBallot(s).Boot, cancel)
	return n.net.Call(ctx, owner, method, req)
}

// errMoved ends an attempt whose owner is not one any more.
var errMoved = fmt.Errorf("the slot changed hands: %w", core.ErrUnavailable)

// watchOwner cancels an attempt once a map in effect names another owner.
func (n *Node) watchOwner(ctx context.Context, done <-chan struct{}, s core.SlotID, owner core.NodeID, boot uint64, cancel context.CancelCauseFunc) {
	for {
		_, m, changed := n.driver.maps()
		if m.OwnerNode(s) != owner || m.SlotBallot(s).Boot != boot {
			cancel(errMoved)
			return
		}
		select {
		case <-changed:
		case <-done:
			return
		case <-ctx.Done():
			return
		}
	}
}

// retryable says whether the same call may succeed later or elsewhere.
func retryable(err error) bool {
	return errors.Is(err, core.ErrUnavailable) || errors.Is(err, core.ErrUnknownOutcome) ||
		errors.Is(err, core.ErrNotOwner) || errors.Is(err, core.ErrDiskFailed) || errors.Is(err, context.Canceled)
}

// write has a mutation carried out by its slot's owner. The values of its rows
// must not be changed any more.
func (n *Node) write(ctx context.Context, m *mutation) (out outcome, err error) {
	if m.entry.Request.IsZero() {
		m.entry.Request, m.fresh = core.NewRequestID(), true
	}
	next := *m
	m.fresh = false
	err = n.ask(ctx, m.slot, func(ctx context.Context, at *core.Map) error {
		try := next
		next.again, next.fresh = true, false
		if at.OwnerNode(m.slot) == n.id {
			out, err = n.mutate(ctx, try.clone())
			return err
		}
		req, err := appendMutation(nil, &try)
		if err != nil {
			return err
		}
		resp, err := n.attempt(ctx, at, m.slot, methodMutate, req)
		if err == nil {
			out, err = decodeOutcome(resp)
		}
		return err
	})
	return out, err
}

// row reads a row from its slot's owner.
func (n *Node) row(ctx context.Context, s core.SlotID, k core.RowKey) (core.Row, error) {
	f, err := n.rows(ctx, s, k, false)
	return f.row, err
}

// rows is row, and with data the value of the row that holds an object's data.
// This node's own slots are read without further ado, unless voters have to
// confirm that; if it fails, and for all others, the owner is asked until it
// answers.
func (n *Node) rows(ctx context.Context, s core.SlotID, k core.RowKey, data bool) (found, error) {
	if m := n.driver.effect.Load(); n.driver.confirms == nil && m != nil && int(s) < len(m.Slots) && m.OwnerNode(s) == n.id {
		f, err := n.getRows(ctx, s, k, data)
		if err == nil || !retryable(err) {
			return f, err
		}
	}
	resp, err := n.call(ctx, s, methodGet, appendGet(nil, s, k, data))
	if err != nil {
		return found{}, err
	}
	d := reader{b: resp}
	f := found{row: d.found().Row}
	if len(d.b) > 0 {
		f.data.b = d.blob()
	}
	return f, d.err
}

// record reads an object's record.
func (n *Node) record(ctx context.Context, b core.BucketID, key string) (*core.Record, core.Row, error) {
	f, err := n.object(ctx, b, key, false)
	return f.rec, f.row, err
}

// object reads an object's record, and with data what a small object keeps in a
// row of its own.
func (n *Node) object(ctx context.Context, b core.BucketID, key string, data bool) (found, error) {
	m := n.driver.effect.Load()
	if m == nil {
		return found{}, fmt.Errorf("this node knows no map in effect yet: %w", core.ErrUnavailable)
	}
	f, err := n.rows(ctx, slotOf(m, b, key), objectKey(b, key), data)
	if err != nil {
		if errors.Is(err, core.ErrNotFound) && n.driver.effect.Load().Bucket(b) == nil {
			err = n.known(ctx, core.Bucket{ID: b})
			if err == nil {
				err = fmt.Errorf("key %q: %w", key, core.ErrNotFound)
			}
		}
		return found{}, err
	}
	if f.rec == nil {
		if f.rec, err = core.DecodeRecord(f.row.Value); err != nil {
			return found{}, fmt.Errorf("record of %q: %w", key, err)
		}
	}
	return f, nil
}

// serve answers a call of another node or of this one.
func (n *Node) serve(ctx context.Context, from core.NodeID, method uint16, req []byte) ([]byte, error) {
	switch method {
	case methodMutate:
		m, err := decodeMutation(req)
		if err != nil {
			return nil, err
		}
		out, err := n.mutate(ctx, m)
		if err != nil {
			return nil, err
		}
		return appendOutcome(nil, out), nil
	case methodGet:
		s, k, data, err := decodeGet(req)
		if err != nil {
			return nil, err
		}
		return n.serveGet(ctx, s, k, data)
	case methodScan:
		return n.serveScan(ctx, req)
	case methodSlotScan:
		return n.serveSlotScan(ctx, req)
	case methodSweep:
		return n.serveSweep(ctx, req)
	case methodEpoch:
		return n.serveEpoch()
	default:
		return n.serveOther(ctx, from, method, req)
	}
}

// serveGet answers with a row, and with data what belongs to it.
func (n *Node) serveGet(ctx context.Context, s core.SlotID, k core.RowKey, data bool) ([]byte, error) {
	n.driver.awaitOpen(ctx, s, true)
	f, err := n.getRows(ctx, s, k, data)
	if err != nil {
		return nil, err
	}
	defer f.data.free()
	const numbers = 64 // at the most, of both
	out := make([]byte, 0, numbers+len(k.Key)+len(k.Sub)+len(f.row.Value)+len(f.data.b))
	out = appendFound(out, &core.Found{Slot: s, Row: f.row})
	if f.data.b != nil {
		out = appendBlob(out, f.data.b)
	}
	return out, nil
}
