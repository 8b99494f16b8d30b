package natsbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
)

const (
	// dedupe is how long a server knows a repeated write by its id; no
	// operation is repeated for as long.
	dedupe = 2 * time.Minute
	// stalled is how long an import may make no progress before another
	// takes over.
	stalled = 5 * time.Second
	// missing is how long a new generation waits for all of its coordinators.
	missing = 10 * time.Second
)

// streamConfig lays a stream out as a NATS key-value bucket with one value a
// key. Reads are answered by the stream's leader only: replicas may be behind.
func streamConfig(s *stream, replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              s.name,
		Description:       "Shoal: written by the cluster; look, do not touch",
		Subjects:          []string{s.root + ">"},
		MaxMsgsPerSubject: 1,
		Discard:           jetstream.DiscardNew,
		Storage:           jetstream.FileStorage,
		Replicas:          replicas,
		Duplicates:        dedupe,
		DenyDelete:        true,
		AllowRollup:       true,
		AllowMsgTTL:       true,
		AllowDirect:       false,
	}
}

func (c *Client) buckets() []*bucket { return []*bucket{c.jobsBucket, c.mapBucket} }

// Export reads everything that the present generation holds. It proves by an
// acknowledged write first that it reads from a bus with a majority; what was
// acknowledged before the call is in the snapshot, what is written during it
// may be.
func (c *Client) Export(ctx context.Context) (bus.Snapshot, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	snap := bus.Snapshot{Generation: c.Generation()}
	for _, b := range c.buckets() {
		s, err := b.use(ctx)
		if err != nil {
			return bus.Snapshot{}, fmt.Errorf("export generation %d: %w", snap.Generation, err)
		}
		entries, err := b.export(ctx, s)
		if err != nil {
			return bus.Snapshot{}, fmt.Errorf("export generation %d: %w", snap.Generation, err)
		}
		snap.Buckets = append(snap.Buckets, bus.BucketSnapshot{Name: b.name, Entries: entries})
	}
	return snap, nil
}

// export reads a bucket up to a message that it writes itself. The answers may
// come from more than one server, some of them behind; but those are behind in
// one and the same history, so a reading that gets as far as that message has
// met all before it.
func (b *bucket) export(ctx context.Context, s *stream) ([]bus.KeyValue, error) {
	_, seq, err := b.marker(ctx, s)
	if err != nil {
		return nil, err
	}
	for {
		end, err := b.write(ctx, s, write{key: proofKey, expect: seq, expectOf: markerKey})
		if err != nil {
			return nil, err
		}
		found := map[string]message{}
		next, err := b.scan(ctx, s, 1, ">", func(m message) error {
			found[m.key] = m
			return nil
		})
		if err != nil {
			return nil, err
		}
		if next <= end {
			continue
		}
		out := make([]bus.KeyValue, 0, len(found))
		for key, m := range found {
			if !m.deleted && !m.internal() {
				out = append(out, bus.KeyValue{Key: key, Value: m.value})
			}
		}
		return out, nil
	}
}

// Import makes the present generation's buckets from a snapshot, on so many
// replicas, and then opens them for use. Any number of nodes may do so at the
// same time, again after a crash, and again when it was done long ago: the
// first to finish wins, and nothing that was written since is touched. A
// generation made from a different snapshot is [core.ErrConflict].
//
// The first generation of a cluster is made from the empty snapshot.
func (c *Client) Import(ctx context.Context, snap bus.Snapshot, replicas int) error {
	sum, err := snap.Sum()
	if err != nil {
		return err
	}
	patience, cancel := context.WithTimeout(ctx, missing)
	defer cancel()
	for _, b := range c.buckets() {
		s, err := b.make(ctx, patience, c.Generation(), replicas)
		if err == nil {
			err = b.fill(ctx, s, sum, snap.Bucket(b.name))
		}
		if err != nil {
			return fmt.Errorf("import into generation %d: %w", c.Generation(), err)
		}
	}
	return nil
}

// make creates the stream unless it exists. Coordinators that are away when
// patience ends do not prevent it as long as a majority is there: then the
// stream begins with fewer replicas, and [Client.Replicate] adds the others.
func (b *bucket) make(ctx, patience context.Context, generation uint64, replicas int) (*stream, error) {
	ctx, cancel := b.client.bound(ctx)
	defer cancel()
	s := newStream(b.name, generation)
	for _, n := range fewerReplicas(replicas) {
		err := b.createStream(ctx, patience, s, n)
		switch {
		case err == nil && n < replicas:
			b.client.log.Warn("bus begins with coordinators missing", "bucket", b.name, "generation", generation, "replicas", n, "want", replicas)
			return s, nil
		case err == nil:
			return s, nil
		case !errors.Is(err, errNoPeers):
			return nil, b.fail("create", "", err)
		}
	}
	return nil, b.fail("create", "", fmt.Errorf("%w: %w", core.ErrUnavailable, errNoPeers))
}

// createStream waits for as many coordinators as there are to be replicas: at
// first they come one after another.
func (b *bucket) createStream(ctx, patience context.Context, s *stream, replicas int) error {
	for {
		err := b.retry(ctx, s, func(ctx context.Context) (err error) {
			s.js, err = b.client.js.CreateStream(ctx, streamConfig(s, replicas))
			if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // with other replicas
				s.js, err = b.client.js.Stream(ctx, s.name)
			}
			return hopelessIfNoPeers(err)
		})
		if !errors.Is(err, errNoPeers) || !b.client.pause(patience, jitter(500*time.Millisecond, time.Second)) {
			return err
		}
	}
}

// errNoPeers says that there are fewer coordinators than replicas asked for.
var errNoPeers = fmt.Errorf("too few coordinators are up: %w", core.ErrInvalid)

func hopelessIfNoPeers(err error) error {
	const codeNoPeers = 10005
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == codeNoPeers {
		return fmt.Errorf("%w: %w", errNoPeers, err)
	}
	return err
}

// fewerReplicas lists the numbers of replicas to try: what is wanted, then
// what a majority of that many coordinators can hold.
func fewerReplicas(n int) []int {
	switch n {
	case 5:
		return []int{5, 3}
	case 3:
		return []int{3, 2}
	}
	return []int{n}
}

// fill writes the entries under the protection of the marker: each write is
// conditional on the marker's sequence number, so that of several imports only
// one writes, and none once the bucket is ready.
func (b *bucket) fill(ctx context.Context, s *stream, sum string, entries []bus.KeyValue) error {
	own := marker{State: stateImporting, Generation: s.generation, Snapshot: sum, By: nuid.Next()}
	// Another import's marker, and how long it has been there unchanged.
	var met uint64
	var waited time.Duration
	for {
		m, seq, err := b.marker(ctx, s)
		switch {
		case errors.Is(err, errAbsent):
		case err != nil:
			return err
		case m.Snapshot != sum:
			return b.fail("import", "", fmt.Errorf("it is made from another snapshot (%.12s, not %.12s): %w", m.Snapshot, sum, core.ErrConflict))
		case m.State == stateReady:
			return nil
		case met != seq || waited < stalled:
			if met != seq {
				met, waited = seq, 0
			}
			const look = stalled / 20
			if !b.client.pause(ctx, look) {
				return b.fail("import", "", fmt.Errorf("waiting for another import: %w: %w", core.ErrUnavailable, ctx.Err()))
			}
			waited += look
			continue
		}
		waited = 0
		if err := b.fillAs(ctx, s, own, seq, entries); !errors.Is(err, core.ErrConflict) && !errors.Is(err, core.ErrUnknownOutcome) {
			return err
		}
	}
}

// fillAs takes the marker over from the one with the sequence number, writes
// the entries and opens the bucket. A conflict means that somebody else took
// over.
func (b *bucket) fillAs(ctx context.Context, s *stream, own marker, seq uint64, entries []bus.KeyValue) error {
	mark := func(expect uint64) (uint64, error) {
		v, err := json.Marshal(own)
		if err != nil {
			return 0, b.fail("import", markerKey, err)
		}
		return b.write(ctx, s, write{key: markerKey, value: v, expect: expect})
	}
	seq, err := mark(seq)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, err := b.write(ctx, s, write{key: e.Key, value: e.Value, expect: seq, expectOf: markerKey}); err != nil {
			return err
		}
	}
	own.State = stateReady
	_, err = mark(seq)
	return err
}

// Ready says whether the present generation can be used; false comes with the
// reason.
func (c *Client) Ready(ctx context.Context) error {
	for _, b := range c.buckets() {
		if _, err := b.use(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Replicate raises the number of replicas, after a generation began with
// coordinators missing. It never lowers it.
func (c *Client) Replicate(ctx context.Context, replicas int) error {
	for _, b := range c.buckets() {
		s, err := b.use(ctx)
		if err != nil {
			return err
		}
		err = b.retry(ctx, s, func(ctx context.Context) error {
			info, err := s.js.Info(ctx)
			if err != nil || info.Config.Replicas >= replicas {
				return err
			}
			cfg := info.Config
			cfg.Replicas = replicas
			if _, err = c.js.UpdateStream(ctx, cfg); err == nil {
				c.log.Info("bus replicas added", "bucket", b.name, "had", info.Config.Replicas, "replicas", replicas)
			}
			return hopelessIfNoPeers(err)
		})
		if err != nil {
			return b.fail("replicate", "", err)
		}
	}
	return nil
}
