package natsbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
)

// A bucket is a JetStream stream laid out as NATS lays out its key-value
// buckets, so that `nats kv` shows it. Each generation of the bus has its own,
// named after it: no revision of one can be taken for one of another.
//
// The library's own key-value client is not used, because it reads from any
// replica, and because its watches have been seen to stall.

// keys that begin with "_" are the bucket's own.
const (
	// markerKey holds the bucket's [marker].
	markerKey = "_generation"
	// proofKey is what proofs write to: a write to it that is conditional on
	// another key's sequence number changes nothing and proves that number.
	proofKey = "_proof"
)

func (m message) internal() bool { return strings.HasPrefix(m.key, "_") }

// Headers of stored messages.
const (
	headerOperation   = "KV-Operation"
	operationDelete   = "DEL"
	headerExpect      = "Nats-Expected-Last-Subject-Sequence"
	headerExpectOf    = "Nats-Expected-Last-Subject-Sequence-Subject"
	headerMessageID   = "Nats-Msg-Id"
	headerTTL         = "Nats-TTL"
	deletedEntriesTTL = "1h" // for watchers that were away; see watch
)

// marker says whether a generation's bucket can be used.
type marker struct {
	// State is "importing" until all of the former generation's entries are
	// in place, then "ready" for ever.
	State      string `json:"state"`
	Generation uint64 `json:"generation"`
	// Snapshot is the checksum of the snapshot the bucket was made from.
	Snapshot string `json:"snapshot"`
	// By is the random name of the import that wrote the marker.
	By string `json:"by"`
}

const (
	stateImporting = "importing"
	stateReady     = "ready"
)

type bucket struct {
	client *Client
	name   string

	mu sync.Mutex
	// current is the stream of the generation that was used last.
	current *stream
}

// stream is a bucket in one generation.
type stream struct {
	generation uint64
	name       string // of the JetStream stream
	root       string // of its subjects, with a dot at its end
	js         jetstream.Stream
}

func bucketName(name string, generation uint64) string {
	return fmt.Sprintf("shoal_%s_%d", name, generation)
}

// bucket is the name as `nats kv` knows it; all of the stream's subjects, those
// of its API included, contain it.
func (s *stream) bucket() string { return strings.TrimPrefix(s.name, "KV_") }

func (s *stream) subject(key string) string { return s.root + key }

func newStream(name string, generation uint64) *stream {
	b := bucketName(name, generation)
	return &stream{generation: generation, name: "KV_" + b, root: "$KV." + b + "."}
}

// Revisions carry the generation in their upper bits, so that a revision of a
// former generation never fits.
const sequenceBits = 40

func (s *stream) revision(seq uint64) bus.Revision {
	return bus.Revision(s.generation<<sequenceBits | seq)
}

func splitRevision(r bus.Revision) (generation, seq uint64) {
	return uint64(r) >> sequenceBits, uint64(r) & (1<<sequenceBits - 1)
}

// message is a stored entry as it is in the stream.
type message struct {
	key     string
	value   []byte
	seq     uint64
	id      string // of the write
	deleted bool
}

func (s *stream) message(m *jetstream.RawStreamMsg) message {
	return message{
		key: strings.TrimPrefix(m.Subject, s.root), value: m.Data, seq: m.Sequence,
		id: m.Header.Get(headerMessageID), deleted: m.Header.Get(headerOperation) != "",
	}
}

var (
	// errMoved says that the client was pointed to another generation
	// meanwhile; nothing was done.
	errMoved = fmt.Errorf("the bus has moved to another generation: %w", core.ErrUnavailable)
	// errAbsent is the answer of a read that found nothing.
	errAbsent = errors.New("no message found")
)

// use returns the bucket's stream of the present generation, once that is
// ready for use.
func (b *bucket) use(ctx context.Context) (*stream, error) {
	generation := b.client.Generation()
	b.mu.Lock()
	s := b.current
	b.mu.Unlock()
	if s != nil && s.generation == generation {
		return s, nil
	}
	s, err := b.open(ctx, generation)
	if err != nil {
		return nil, err
	}
	m, _, err := b.marker(ctx, s)
	switch {
	case errors.Is(err, errAbsent):
		return nil, b.fail("open", "", fmt.Errorf("generation %d of the bus has not been set up yet: %w", generation, core.ErrUnavailable))
	case err != nil:
		return nil, err
	case m.State != stateReady:
		return nil, b.fail("open", "", fmt.Errorf("generation %d of the bus is being set up: %w", generation, core.ErrUnavailable))
	}
	b.mu.Lock()
	b.current = s
	b.mu.Unlock()
	return s, nil
}

// open returns the stream whether it is ready or not.
func (b *bucket) open(ctx context.Context, generation uint64) (*stream, error) {
	s := newStream(b.name, generation)
	err := b.retry(ctx, s, func(ctx context.Context) (err error) {
		s.js, err = b.client.js.Stream(ctx, s.name)
		return err
	})
	if err != nil {
		return nil, b.fail("open", "", err)
	}
	return s, nil
}

// marker reads the marker; the sequence number is 0 if there is none.
func (b *bucket) marker(ctx context.Context, s *stream) (marker, uint64, error) {
	msg, err := b.last(ctx, s, markerKey)
	if err != nil {
		return marker{}, 0, err
	}
	var m marker
	if err := json.Unmarshal(msg.value, &m); err != nil || m.Generation != s.generation {
		return marker{}, 0, b.fail("open", markerKey, fmt.Errorf("damaged marker %.100q: %w", msg.value, core.ErrCorrupt))
	}
	return m, msg.seq, nil
}

// fail describes an error once: the operation and its object.
func (b *bucket) fail(op, key string, err error) error {
	if key == "" {
		return fmt.Errorf("bus %s: %s: %w", b.name, op, err)
	}
	return fmt.Errorf("bus %s: %s %q: %w", b.name, op, key, err)
}

// fate is what is known after one attempt of an operation.
type fate int

const (
	fateDone     fate = iota
	fateRefused       // the expected sequence number is not the newest
	fateNothing       // not carried out; worth another attempt
	fateUnknown       // may have been carried out; worth another attempt
	fateHopeless      // not carried out, and never will be
)

// Codes of the JetStream API that the library does not name.
const (
	codeClusterNotAvailable   = 10008
	codeClusterNotLeader      = 10009
	codeInsufficientResources = 10023
	codeStorageExceeded       = 10047
	codeStreamOffline         = 10118
	codeDuplicateInProcess    = 10158
	codeExpectNotReady        = 10163
)

func fateOf(err error) fate {
	var api *jetstream.APIError
	switch {
	case err == nil:
		return fateDone
	case errors.As(err, &api):
		switch api.ErrorCode {
		case jetstream.JSErrCodeStreamWrongLastSequence:
			return fateRefused
		case jetstream.JSErrCodeStreamWrongLastSequenceConstant, codeExpectNotReady, codeClusterNotAvailable,
			codeClusterNotLeader, codeInsufficientResources, codeStorageExceeded, codeStreamOffline,
			jetstream.JSErrCodeJetStreamNotEnabled, jetstream.JSErrCodeJetStreamNotEnabledForAccount,
			jetstream.JSErrCodeStreamNotFound:
			return fateNothing
		case codeDuplicateInProcess: // an earlier attempt of ours
			return fateUnknown
		}
		if api.Code >= 500 {
			return fateUnknown
		}
		return fateHopeless
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse),
		errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, errDisconnected), errors.Is(err, errOther):
		return fateNothing
	case errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrBadSubject),
		errors.Is(err, core.ErrInvalid), errors.Is(err, core.ErrPermission):
		return fateHopeless
	}
	return fateUnknown
}

// retry repeats a read until it succeeds, cannot succeed, or ctx ends.
func (b *bucket) retry(ctx context.Context, s *stream, try func(context.Context) error) error {
	c := b.client
	ctx, cancel := c.bound(ctx)
	defer cancel()
	wait := backoff{20 * time.Millisecond, time.Second}
	for {
		err := c.attempt(ctx, s.bucket(), try)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, jetstream.ErrMsgNotFound):
			return errAbsent
		case c.Generation() != s.generation:
			return errMoved
		case fateOf(err) == fateHopeless, !c.pause(ctx, wait.next()):
			return c.unavailable(err)
		}
	}
}

// last reads the newest message of a key as the stream's leader has it.
func (b *bucket) last(ctx context.Context, s *stream, key string) (message, error) {
	var m *jetstream.RawStreamMsg
	err := b.retry(ctx, s, func(ctx context.Context) (err error) {
		m, err = s.js.GetLastMsgForSubject(ctx, s.subject(key))
		return err
	})
	if err != nil {
		return message{}, b.failUnlessAbsent("load", key, err)
	}
	return s.message(m), nil
}

// info describes the stream.
func (b *bucket) info(ctx context.Context, s *stream) (*jetstream.StreamInfo, error) {
	var info *jetstream.StreamInfo
	err := b.retry(ctx, s, func(ctx context.Context) (err error) {
		info, err = s.js.Info(ctx)
		return err
	})
	if err != nil {
		return nil, b.fail("look", "", err)
	}
	return info, nil
}

// next reads the first message at or after a sequence number whose key
// matches the filter, a NATS subject below the stream's root.
func (b *bucket) next(ctx context.Context, s *stream, from uint64, filter string) (message, error) {
	var m *jetstream.RawStreamMsg
	err := b.retry(ctx, s, func(ctx context.Context) (err error) {
		m, err = s.js.GetMsg(ctx, from, jetstream.WithGetMsgSubject(s.subject(filter)))
		return err
	})
	if err != nil {
		return message{}, b.failUnlessAbsent("list", filter, err)
	}
	return s.message(m), nil
}

func (b *bucket) failUnlessAbsent(op, key string, err error) error {
	if errors.Is(err, errAbsent) {
		return err
	}
	return b.fail(op, key, err)
}

// scan calls f for the messages at or after a sequence number whose keys match
// the filter, in order, and returns the number after the last one. Messages
// that are replaced meanwhile may be missed at their old and met at their new
// place.
func (b *bucket) scan(ctx context.Context, s *stream, from uint64, filter string, f func(message) error) (uint64, error) {
	for {
		m, err := b.next(ctx, s, from, filter)
		if errors.Is(err, errAbsent) {
			return from, nil
		}
		if err != nil {
			return from, err
		}
		from = m.seq + 1
		if err := f(m); err != nil {
			return from, err
		}
	}
}

// write is a message to be stored, on a condition.
type write struct {
	key     string
	value   []byte
	deleted bool
	// The newest message of expectOf (the key itself if "") must have the
	// sequence number expect; 0 stands for none.
	expect   uint64
	expectOf string
}

func (s *stream) nats(w write, id string) *nats.Msg {
	m := nats.NewMsg(s.subject(w.key))
	m.Data = w.value
	m.Header.Set(headerMessageID, id)
	m.Header.Set(headerExpect, strconv.FormatUint(w.expect, 10))
	if w.expectOf != "" {
		m.Header.Set(headerExpectOf, s.subject(w.expectOf))
	}
	if w.deleted {
		m.Header.Set(headerOperation, operationDelete)
		m.Header.Set(headerTTL, deletedEntriesTTL)
	}
	return m
}

// write stores a message durably on a majority of the coordinators and returns
// its sequence number. It fails with [core.ErrConflict] if the condition does
// not hold, with [core.ErrUnknownOutcome] if it may have been stored, else
// nothing was.
//
// Attempts are repeated under one message id, by which the server knows a
// repeated one, so most lost answers are settled here.
func (b *bucket) write(ctx context.Context, s *stream, w write) (uint64, error) {
	c := b.client
	ctx, cancel := c.bound(ctx)
	defer cancel()
	// Not as long as the server knows a repeated write.
	ctx, cancelLong := context.WithTimeout(ctx, dedupe/2)
	defer cancelLong()
	id := nuid.Next()
	reached := false // an attempt so far may have been carried out
	wait := backoff{5 * time.Millisecond, time.Second}
	for {
		var ack *jetstream.PubAck
		err := c.attempt(ctx, s.bucket(), func(ctx context.Context) (err error) {
			ack, err = c.js.PublishMsg(ctx, s.nats(w, id), jetstream.WithRetryAttempts(0))
			return err
		})
		switch f := fateOf(err); {
		case f == fateDone:
			c.hint(b.name)
			return ack.Sequence, nil
		case f == fateRefused && !reached:
			return 0, b.fail("write", w.key, fmt.Errorf("%w: %w", core.ErrConflict, err))
		case f == fateRefused:
			return b.settle(ctx, s, w, id)
		case f == fateUnknown:
			reached = true
		}
		moved := c.Generation() != s.generation
		if !moved && fateOf(err) != fateHopeless && c.pause(ctx, wait.next()) {
			continue
		}
		switch {
		case reached:
			return 0, b.fail("write", w.key, fmt.Errorf("%w: %w", core.ErrUnknownOutcome, err))
		case moved:
			return 0, b.fail("write", w.key, errMoved)
		case errors.Is(err, nats.ErrMaxPayload):
			return 0, b.fail("write", w.key, fmt.Errorf("%d bytes: %w: %w", len(w.value), core.ErrTooLarge, err))
		}
		return 0, b.fail("write", w.key, c.unavailable(err))
	}
}

// settle looks whether a write that was refused as a repetition had been
// carried out before and is what is stored.
func (b *bucket) settle(ctx context.Context, s *stream, w write, id string) (uint64, error) {
	m, err := b.last(ctx, s, w.key)
	if err == nil && m.id == id {
		return m.seq, nil
	}
	return 0, b.fail("write", w.key, fmt.Errorf("another write followed: %w", core.ErrUnknownOutcome))
}

// prove fails with [core.ErrConflict] unless seq is the number of the key's
// newest message at some time during the call.
func (b *bucket) prove(ctx context.Context, s *stream, key string, seq uint64) error {
	_, err := b.write(ctx, s, write{key: proofKey, expect: seq, expectOf: key})
	if errors.Is(err, core.ErrUnknownOutcome) {
		return b.fail("confirm", key, fmt.Errorf("%w: %w", core.ErrUnavailable, err))
	}
	return err
}

// hintSubject is where writers tell watchers that there is something new.
func hintSubject(bucket string) string { return "shoal.changed." + bucket }

// hint wakes the watchers. Should it be lost, they look by themselves.
func (c *Client) hint(bucket string) { _ = c.nc.Publish(hintSubject(bucket), nil) }
