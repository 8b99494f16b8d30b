package disk

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/shoalstore/shoal/core"
)

const (
	// maxClockStep is how far, in milliseconds, owners' clocks may be apart
	// before an answer that seems to come from the future no longer keeps
	// those behind it.
	maxClockStep = 60 * 60 * 1000
	// answersPerBatch bounds the memory of a run of deletions.
	answersPerBatch = 4096
)

// DropAnswers implements [core.RowStore]. In each slot it goes through the
// committed entries in order, up to the first that is not older. It is not
// synced: what a crash brings back goes next time.
func (d *Disk) DropAnswers(ctx context.Context, before int64) error {
	if err := d.write(ctx); err != nil {
		return err
	}
	defer d.leave()
	a := answerDropper{d: d, before: before, b: d.db.NewBatch()}
	err := a.run(ctx)
	if err = errors.Join(err, a.b.Close()); err != nil && ctx.Err() == nil {
		err = d.readError("answers", err)
	}
	return err
}

type answerDropper struct {
	d      *Disk
	before int64
	b      *pebble.Batch
}

func (a *answerDropper) run(ctx context.Context) error {
	for _, slot := range a.d.slotIDs() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := a.slot(slot); err != nil {
			return fmt.Errorf("slot %d: %w", slot, err)
		}
	}
	return a.flush()
}

func (a *answerDropper) flush() error {
	if err := a.b.Commit(pebble.NoSync); err != nil {
		return err
	}
	if err := a.b.Close(); err != nil {
		return err
	}
	a.b = a.d.db.NewBatch()
	return a.d.fail.err()
}

func (a *answerDropper) slot(slot core.SlotID) (err error) {
	from, to := seqBounds(kindHead, slot, 0, a.d.committed(slot).Seq)
	it, err := a.d.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return err
	}
	defer func() { err = closeIter(it, err) }()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		h, err := decodeHead(it.Key(), v)
		if err != nil {
			return err
		}
		switch {
		case h.time >= a.before+maxClockStep:
			continue
		case h.time >= a.before:
			return nil
		}
		if err := a.drop(slot, it.Key(), &h); err != nil {
			return err
		}
	}
	return it.Error()
}

func (a *answerDropper) drop(slot core.SlotID, key []byte, h *head) error {
	seq, _, ok := parseSeq(key)
	if !ok {
		return malformed("entry head", key)
	}
	if err := a.b.Delete(key, nil); err != nil {
		return err
	}
	if !h.request.IsZero() {
		if err := a.b.Delete(appendSuffix(answerPrefix(slot, h.request), h.version(seq), 0, 0), nil); err != nil {
			return err
		}
	}
	if a.b.Count() >= answersPerBatch {
		return a.flush()
	}
	return nil
}
