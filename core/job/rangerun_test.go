package job

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalstore/shoal/core"
)

// bubbleClock is the clock of a synctest bubble.
type bubbleClock struct{ core.Clock }

func (bubbleClock) Now() time.Time { return time.Now() }

func (bubbleClock) Wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestBatchesInTurn: of many batches that a node has, the first is done first.
// They were all worked on a little at a time, so that for minutes none was done,
// nothing was counted, and a kill lost it all.
func TestBatchesInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const batches, keys, workers = 20, 32, 4
		rr := &rangeRun{
			r: &run{m: &Manager{o: Options{Clock: bubbleClock{}}}, limit: &limits{}}, sem: make(chan struct{}, workers), turn: make(chan struct{}, 1),
			work: func(context.Context, *item) (result, int64, error) {
				time.Sleep(10 * time.Millisecond)
				return result{}, 1, nil
			},
		}
		began := time.Now()
		var wg sync.WaitGroup
		for b := range batches {
			var items []item
			for k := range keys {
				items = append(items, item{Name: fmt.Appendf(nil, "%d-%d", b, k)})
			}
			wg.Go(func() {
				out, err := rr.workOn(t.Context(), items)
				if err != nil || out.Books.Done.Objects != keys {
					t.Errorf("batch %d: got %+v, %v", b, out.Books, err)
				}
				// One more round of the workers than its share, for keys of the next batch.
				if took, most := time.Since(began), time.Duration((b+1)*keys/workers+1)*10*time.Millisecond; took > most {
					t.Errorf("batch %d was done after %s, want %s", b, took, most)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		// What ends gives its turn back.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := rr.workOn(ctx, []item{{Name: []byte("k")}}); err == nil {
			t.Error("got no error of a batch that was called off")
		}
		if _, err := rr.workOn(t.Context(), []item{{Name: []byte("k")}}); err != nil {
			t.Errorf("got %v behind one that was called off", err)
		}
	})
}

// TestBatchOfAnotherPhase: a node that still copies does not work on keys that
// another lists at the destination already. It skipped them, for their versions are
// not those of the source, and a job that had written all ended as failed.
func TestBatchOfAnotherPhase(t *testing.T) {
	work := func(context.Context, *item) (result, int64, error) { return result{}, 1, nil }
	for _, c := range []struct {
		have *rangeRun
		asks string
		ok   bool
	}{
		{&rangeRun{table: tableRun, work: work}, tableRun, true},
		{&rangeRun{table: tableVerify, work: work}, tableVerify, true},
		{&rangeRun{table: tableRun, work: work}, tableVerify, false},
		{&rangeRun{table: tableVerify, work: work}, tableRun, false},
		{&rangeRun{table: tablePlan}, tableRun, false},
		{nil, tableRun, false},
	} {
		m := &Manager{jobs: map[string]*entry{"j": {run: &run{ranged: c.have}}}}
		rr, err := m.worker(&batchRequest{Job: "j", Table: c.asks})
		if c.ok && (err != nil || rr != c.have) || !c.ok && !errors.Is(err, core.ErrUnavailable) {
			t.Errorf("%+v asked for %q: got %v, %v", c.have, c.asks, rr, err)
		}
	}
}
