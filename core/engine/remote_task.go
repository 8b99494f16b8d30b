package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/remote"
)

// writers carry out the writes of remote objects in the slots that this node
// owns: one at a time of each object.
type writers struct {
	node *Node

	mu    sync.Mutex
	tasks map[objectName]*writeTask
}

// writeTask settles an object's write that is under way, and if there is none
// carries out the one that it was begun for.
type writeTask struct {
	w    *writers
	name objectName
	slot core.SlotID
	next *mutation // nil: nothing new is to be written
	done chan struct{}
	life context.Context //nolint:containedctx // of the node: nobody's request ends a write

	// Set before done is closed.
	request core.RequestID // of the write that was carried out
	result  writeResult
	err     error // why it is not settled here
}

// writeResult is how a write ended.
type writeResult struct {
	out     outcome
	refused error // final
}

// task returns the task that works on an object, a new one if there is none.
func (w *writers) task(name objectName, s core.SlotID, next *mutation) *writeTask {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t := w.tasks[name]; t != nil {
		return t
	}
	t := &writeTask{w: w, name: name, slot: s, next: next, done: make(chan struct{})}
	r := w.node.remotes
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.life == nil {
		t.err = errStopping
		close(t.done)
		return t
	}
	t.life = r.life
	w.tasks[name] = t
	r.group.Go(func() {
		t.err = t.run()
		w.mu.Lock()
		delete(w.tasks, name)
		w.mu.Unlock()
		close(t.done)
	})
	return t
}

// errReplaced says that the intent's row is not the one that the task knows.
var errReplaced = fmt.Errorf("another owner is at work: %w", core.ErrConflict)

// run settles what is under way, or carries out the next write.
func (t *writeTask) run() error {
	n, ctx := t.w.node, t.life
	b, err := n.remoteByID(ctx, t.name.bucket)
	if err != nil {
		if t.next != nil && !retryable(err) {
			t.request, t.result.refused = t.next.entry.Request, err
			return nil
		}
		return err
	}
	for {
		x, err := t.begin(ctx, b)
		if err != nil || x == nil {
			return err
		}
		switch err = x.drive(ctx); {
		case err == nil:
			t.request, t.result = x.intent.Request, x.result
			return nil
		case ctx.Err() != nil || !errors.Is(err, errReplaced) && !errors.Is(err, core.ErrUnknownOutcome):
			return err
		}
		// The row says what has become of it.
	}
}

// intentRow reads the row of an object's write and the record, as the owner.
func (t *writeTask) intentRow(ctx context.Context) (in *remote.Intent, version core.Version, rec *core.Record, err error) {
	n := t.w.node
	g, _, err := n.reading(t.slot)
	if err != nil {
		return nil, version, nil, err
	}
	row, err := n.rowAt(ctx, t.slot, intentKey(t.name), &g, nil)
	if err == nil {
		version = row.Version
		in, err = remote.DecodeIntent(row.Value)
	}
	if err != nil && !absent(err) {
		return nil, version, nil, err
	}
	row, err = n.rowAt(ctx, t.slot, objectKey(t.name.bucket, t.name.key), &g, nil)
	if err == nil {
		rec, err = core.DecodeRecord(row.Value)
	}
	if err != nil && !absent(err) {
		return nil, version, nil, err
	}
	return in, version, rec, n.driver.answer(ctx, g)
}

// begin returns the write that is to be carried out, nil if there is none.
func (t *writeTask) begin(ctx context.Context, b *remoteBucket) (*remoteWrite, error) {
	in, version, rec, err := t.intentRow(ctx)
	if err != nil {
		return nil, err
	}
	x := &remoteWrite{task: t, node: t.w.node, bucket: b, version: version}
	if in.Pending() {
		x.intent = in
		x.machine = remote.Resume(in, x.options(in))
		return x, nil
	}
	if t.next == nil {
		if in != nil && in.Expired(t.w.node.clock.Now()) {
			err = x.write(ctx, core.Entry{}, nil, false)
		}
		return nil, err
	}
	// The same request may have been carried out since it was asked for.
	out, known, err := t.w.node.answerTo(ctx, t.slot, t.next.entry.Request)
	if known {
		t.request, t.result = t.next.entry.Request, writeResult{out, err}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	next, err := remote.DecodeIntent(t.next.entry.Rows[0].Value)
	if err != nil {
		return nil, err
	}
	next.Before = remote.BeforeOf(rec)
	x.intent, x.first = next, t.next
	if x.machine, err = remote.Start(in, *next, x.options(next)); err != nil {
		t.request, t.result.refused = next.Request, err
		return nil, nil
	}
	return x, nil
}

// answerTo looks up what a request was answered. known says that it was; then the
// error is its answer.
func (n *Node) answerTo(ctx context.Context, s core.SlotID, id core.RequestID) (out outcome, known bool, err error) {
	g, disk, err := n.reading(s)
	if err != nil {
		return out, false, err
	}
	v, answer, err := disk.Answer(ctx, s, id)
	if err != nil {
		if errors.Is(err, core.ErrNotFound) {
			err = n.driver.answer(ctx, g)
		}
		return out, false, err
	}
	if err := n.driver.answer(ctx, g); err != nil {
		return out, false, err
	}
	out, err = answered(v, answer)
	return out, true, err
}

// await waits for the task to end, but not long.
func (t *writeTask) await(ctx context.Context, limit time.Duration) (ended bool) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case <-t.done:
		return true
	case <-ctx.Done():
		return false
	}
}

// serveSettle has a write of a remote object carried out, and answers with how it
// ended, or with nothing if it has not yet.
func (n *Node) serveSettle(ctx context.Context, req []byte) ([]byte, error) {
	m, err := decodeMutation(req)
	if err != nil {
		return nil, err
	}
	if len(m.entry.Rows) != 1 || m.entry.Rows[0].Space != core.SpaceIntent || m.entry.Request.IsZero() {
		return nil, fmt.Errorf("settle: %w", core.ErrInvalid)
	}
	name := objectName{m.entry.Rows[0].Bucket, m.entry.Rows[0].Key}
	until := n.clock.Boot().Add(answerWithin)
	for {
		out, known, err := n.answerTo(ctx, m.slot, m.entry.Request)
		if known {
			return appendSettled(writeResult{out, err}), nil
		}
		if err != nil {
			return nil, err
		}
		t := n.writers.task(name, m.slot, m)
		if !t.await(ctx, until.Sub(n.clock.Boot())) {
			return nil, ctx.Err()
		}
		switch {
		case t.err != nil:
			return nil, t.err
		case t.request == m.entry.Request:
			return appendSettled(t.result), nil
		}
	}
}

// appendSettled encodes how a write ended.
func appendSettled(r writeResult) []byte {
	if r.refused != nil {
		return appendRefusal([]byte{answerRemote}, r.refused)
	}
	return appendOutcome([]byte{answerDone}, r.out)
}

// decodeSettled is the inverse; done is false if the write has not ended.
func decodeSettled(b []byte) (out outcome, done bool, err error) {
	switch {
	case len(b) == 0:
		return out, false, nil
	case b[0] == answerRemote:
		return out, true, parseRefusal(b[1:])
	}
	out, err = decodeOutcome(b[1:])
	return out, true, err
}

// run looks for writes until ctx ends.
func (w *writers) run(ctx context.Context) {
	for w.node.clock.Wait(ctx, settleEvery) == nil {
		w.settleAll(ctx)
	}
}

// settleAll has writes settled that nobody waits for: after a take-over, a start,
// or an error. Rows that only kept attempts in mind go when these are over.
func (w *writers) settleAll(ctx context.Context) {
	n := w.node
	m := n.driver.effect.Load()
	if m == nil {
		return
	}
	for i := range m.Buckets {
		b := &m.Buckets[i]
		if !b.Name.Remote() {
			continue
		}
		req := &scanRequest{scan: core.Scan{Bucket: b.ID, Space: core.SpaceIntent}, limit: maxSettled}
		rep, err := n.scanOwned(ctx, req)
		if err != nil {
			n.log.Warn("writes of remote objects cannot be looked for", "bucket", b.Name.String(), "err", err)
			continue
		}
		for j := range rep.found {
			f := &rep.found[j]
			in, err := remote.DecodeIntent(f.Value)
			if err != nil {
				n.log.Error("a write under way of a remote object is damaged", "bucket", b.Name.String(), "key", f.Key, "err", err)
				continue
			}
			if in.Pending() || in.Expired(n.clock.Now()) {
				w.task(objectName{b.ID, f.Key}, f.Slot, nil)
			}
		}
	}
}

const (
	// settleEvery is how often writes are looked for that nobody waits for.
	settleEvery = 2 * time.Second
	// maxSettled is how many are taken on at a time.
	maxSettled = 1000
)
