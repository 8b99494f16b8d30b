package natsbus

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
)

// watcher follows a bucket without state on the server that could be lost or
// stall: it reads what is after the last sequence number that it has seen,
// when a writer's hint comes and every few seconds. Where the numbers may have
// begun to mean something else, it reads everything again.
type watcher struct {
	*bucket
	filter string

	stream  *stream
	created time.Time // of the stream
	leader  string
	last    uint64 // the stream's newest number at the last look
	from    uint64 // where to read on
	// seen is the revision under which each key was yielded.
	seen map[string]bus.Revision
}

func (b *bucket) watch(ctx context.Context, filter string) iter.Seq[bus.Entry] {
	return func(yield func(bus.Entry) bool) {
		hints := make(chan struct{}, 1)
		// Before the first look, so that no change can fall between.
		sub, err := b.client.nc.Subscribe(hintSubject(b.name), func(*nats.Msg) {
			select {
			case hints <- struct{}{}:
			default: // one look serves all hints that have come
			}
		})
		if err != nil {
			b.client.log.Warn("bus watch ended", "bucket", b.name, "err", err)
			return
		}
		defer func() { _ = sub.Unsubscribe() }()
		w := &watcher{bucket: b, filter: filter, seen: map[string]bus.Revision{}}
		failed := ""
		for {
			changed := b.client.change()
			err := w.look(ctx, yield)
			switch {
			case errors.Is(err, errBreak), ctx.Err() != nil:
				return
			case err == nil:
				failed = ""
			case failed != err.Error():
				failed = err.Error()
				b.client.log.Debug("bus watch waits", "bucket", b.name, "err", err)
			}
			if !w.wait(ctx, hints, changed) {
				return
			}
		}
	}
}

// errBreak says that the caller of an iterator wants no more.
var errBreak = errors.New("break")

// wait returns at the next hint, at a change of connection or generation, or
// when it is time to look without; it says whether to go on.
func (w *watcher) wait(ctx context.Context, hints, changed <-chan struct{}) bool {
	poll, cancel := context.WithTimeout(ctx, jitter(w.client.opts.Poll, w.client.opts.Poll))
	defer cancel()
	select {
	case <-hints:
	case <-changed:
	case <-poll.Done():
	case <-w.client.closed:
		return false
	}
	return ctx.Err() == nil
}

// look yields what is new.
func (w *watcher) look(ctx context.Context, yield func(bus.Entry) bool) error {
	ctx, cancel := w.client.bound(ctx)
	defer cancel()
	s, err := w.use(ctx)
	if err != nil {
		return err
	}
	info, err := w.info(ctx, s)
	if err != nil {
		return err
	}
	leader := ""
	if info.Cluster != nil {
		leader = info.Cluster.Leader
	}
	again := s != w.stream || !info.Created.Equal(w.created) || leader != w.leader || info.State.LastSeq < w.last
	if !again && info.State.LastSeq == w.last {
		return nil
	}
	if again {
		w.from = 1
	}
	if err := w.read(ctx, s, again, yield); err != nil {
		w.stream = nil // so that the next look reads everything
		return err
	}
	w.stream, w.created, w.leader, w.last = s, info.Created, leader, info.State.LastSeq
	return nil
}

// read yields the entries from w.from on; after a reading of everything, also
// the keys that are gone.
func (w *watcher) read(ctx context.Context, s *stream, everything bool, yield func(bus.Entry) bool) error {
	met := map[string]bool{}
	next, err := w.scan(ctx, s, w.from, w.filter, func(m message) error {
		met[m.key] = true
		if m.internal() {
			return nil
		}
		if m.deleted {
			return w.gone(ctx, s, m.key, m.seq, yield)
		}
		rev := s.revision(m.seq)
		if w.seen[m.key] == rev {
			return nil
		}
		w.seen[m.key] = rev
		if !yield(bus.Entry{Key: m.key, Value: m.value, Revision: rev}) {
			return errBreak
		}
		return nil
	})
	if err != nil {
		return err
	}
	w.from = next
	if !everything {
		return nil
	}
	for key := range w.seen {
		if met[key] {
			continue
		}
		if err := w.gone(ctx, s, key, 0, yield); err != nil {
			return err
		}
	}
	return nil
}

// gone yields the deletion of a key that was yielded, after proof that its
// newest message is that of its deletion, or that there is none: a server that
// is behind also shows a key as gone that was created after.
func (w *watcher) gone(ctx context.Context, s *stream, key string, seq uint64, yield func(bus.Entry) bool) error {
	if _, known := w.seen[key]; !known {
		return nil
	}
	switch err := w.prove(ctx, s, key, seq); {
	case errors.Is(err, core.ErrConflict):
		return nil
	case err != nil:
		return err
	}
	delete(w.seen, key)
	if !yield(bus.Entry{Key: key, Revision: s.revision(seq), Deleted: true}) {
		return errBreak
	}
	return nil
}
