package bus

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/shoalstore/shoal/core"
)

// Bus is all that a bus offers one node.
type Bus interface {
	// Map is the register of the cluster map.
	Map() Register
	// Jobs is the bucket of jobs.
	Jobs() KV
	Events
	Services
}

// Revision names one write of a key. Revisions serve compare-and-set only:
// they are no order of values, since a coordinator that lost its disk may give
// a number a second time. Zero names no write.
type Revision uint64

// Entry is a key with its value.
type Entry struct {
	Key      string
	Value    []byte
	Revision Revision
	// Deleted says that the key was removed; Value is nil. Only Watch
	// returns such entries.
	Deleted bool
}

// ErrNoValue says that a register which works answered that it holds nothing.
// That does not prove that nothing was ever written, so it must never lead to
// a fresh value; it is a [core.ErrUnavailable].
var ErrNoValue = fmt.Errorf("the register holds no value: %w", core.ErrUnavailable)

// Register keeps one value. Errors of all methods: [core.ErrUnavailable] says
// that the bus did not answer and that nothing was written,
// [core.ErrPermission] that it refuses this client.
type Register interface {
	// Load returns the value and its revision, or ErrNoValue. The value may
	// be older than the newest.
	Load(ctx context.Context) ([]byte, Revision, error)
	// Create writes the first value. It fails with [core.ErrExists] if there
	// is one. Only `shoal init`, `shoal recover` and [Restore] may call it:
	// that Load found nothing is no reason.
	Create(ctx context.Context, value []byte) (Revision, error)
	// CompareAndSet replaces the value of that revision. It fails with
	// [core.ErrConflict] if another one is stored, and with
	// [core.ErrUnknownOutcome] if the value may or may not have been written:
	// Load again and look.
	CompareAndSet(ctx context.Context, value []byte, rev Revision) (Revision, error)
	// Watch yields the present value and then later ones until ctx ends or
	// the caller breaks. It outlives every outage of the bus. Values between
	// may be left out, the final one is not; a value may be older than one
	// yielded before.
	Watch(ctx context.Context) iter.Seq2[[]byte, Revision]
}

// KV keeps small values under keys, which are one to sixteen tokens of
// letters, digits, '-', '_', '=' and '/', joined by '.'. A prefix is a run of
// whole tokens, "" is all keys. Errors are as with [Register].
type KV interface {
	// Get returns the value, which may be older than the newest. Unlike the
	// register's, its [core.ErrNotFound] is proven by an acknowledged write.
	Get(ctx context.Context, key string) (Entry, error)
	// Confirm proves by an acknowledged write that rev is the key's newest
	// revision at some time during the call; 0 stands for "no value". It
	// fails with [core.ErrConflict] if it is not.
	Confirm(ctx context.Context, key string, rev Revision) error
	// Create writes a key that has no value, or fails with [core.ErrExists].
	Create(ctx context.Context, key string, value []byte) (Revision, error)
	// Update replaces the value of that revision; see
	// [Register.CompareAndSet].
	Update(ctx context.Context, key string, value []byte, rev Revision) (Revision, error)
	// Delete removes the value of that revision; see
	// [Register.CompareAndSet].
	Delete(ctx context.Context, key string, rev Revision) error
	// List returns the entries below a prefix in no particular order. Each
	// may be older than the newest.
	List(ctx context.Context, prefix string) ([]Entry, error)
	// Watch yields the entries below a prefix and then their changes until
	// ctx ends or the caller breaks; see [Register.Watch]. An entry may come
	// again unchanged.
	Watch(ctx context.Context, prefix string) iter.Seq[Entry]
}

// Events carries notices that nobody stores. Delivery is at most once.
type Events interface {
	// Publish sends an event to those who are subscribed now.
	Publish(ctx context.Context, e Event) error
	// Subscribe returns the events under a pattern of topics such as
	// "shoal.event.job.>" from now on, until ctx ends or the caller breaks.
	// It is called once; a subscriber that does not keep up loses events.
	Subscribe(ctx context.Context, pattern string) (iter.Seq[Event], error)
}

// Handler answers a request. What it returns is sent as JSON; an error is sent
// in the form of [Fault]. ctx ends with the service. A request may be
// delivered more than once.
type Handler func(ctx context.Context, request []byte) (any, error)

// Endpoint is a request subject with its handler.
type Endpoint struct {
	// Name is shown by `nats micro info`: letters, digits, '-' and '_'.
	Name string
	// Subject is what is asked, as "shoal.job.start".
	Subject  string
	Metadata map[string]string
	Handler  Handler
}

// Service is a group of endpoints of one node. A request goes to one of the
// nodes that offer it.
type Service struct {
	Name        string
	Version     string // semantic version
	Description string
	Metadata    map[string]string
	Endpoints   []Endpoint
	// Limit is the number of requests that each endpoint works on at a time;
	// further ones wait. Zero is 64.
	Limit int
}

// Services asks and answers.
type Services interface {
	// Serve answers requests until ctx ends, and returns after the last
	// handler has.
	Serve(ctx context.Context, s Service) error
	// Request asks one of the nodes and returns its JSON. A node that does
	// not answer is given up for another until ctx ends, so a request may be
	// carried out more than once: it must be idempotent, or carry a token
	// that makes it so. An error answer is an error that matches the
	// sentinel of package core that the handler returned.
	Request(ctx context.Context, subject string, request []byte) ([]byte, error)
}

// Restore brings a register that is older than value up to it, and never the
// other way: it replaces what is stored as long as that is damaged, missing or
// of a lower epoch, but not what only a newer version can read. epochOf reads the epoch out of a value and fails if the
// value is damaged. It is for a map in effect, which is the newest by
// definition, and returns once the register holds value or a later one.
func Restore(ctx context.Context, r Register, value []byte, epochOf func([]byte) (uint64, error)) error {
	epoch, err := epochOf(value)
	if err != nil {
		return fmt.Errorf("restore the register: %w", err)
	}
	for {
		stored, rev, err := r.Load(ctx)
		switch {
		case errors.Is(err, ErrNoValue):
			_, err = r.Create(ctx, value)
		case err != nil:
		default:
			have, damaged := epochOf(stored)
			if damaged == nil && have >= epoch {
				return nil
			}
			if errors.Is(damaged, core.ErrNewer) {
				return fmt.Errorf("restore the register to epoch %d: what is stored: %w", epoch, damaged)
			}
			_, err = r.CompareAndSet(ctx, value, rev)
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("restore the register to epoch %d: %w", epoch, err)
		case errors.Is(err, core.ErrConflict), errors.Is(err, core.ErrExists), errors.Is(err, core.ErrUnknownOutcome):
		default:
			return fmt.Errorf("restore the register to epoch %d: %w", epoch, err)
		}
	}
}

// CheckKey says whether a key is well formed.
func CheckKey(key string) error {
	tokens, start := 0, 0
	bad := func(why string) error {
		return fmt.Errorf("bus key %q: %s: %w", key, why, core.ErrInvalid)
	}
	if len(key) > 512 {
		return bad("longer than 512 bytes")
	}
	for i := 0; i <= len(key); i++ {
		if i < len(key) && key[i] != '.' {
			if !keyByte(key[i]) {
				return bad("only letters, digits and -_=/ are allowed in its tokens")
			}
			continue
		}
		if i == start {
			return bad("empty token")
		}
		if key[start] == '_' && start == 0 {
			return bad("keys that begin with _ are the bus's own")
		}
		tokens, start = tokens+1, i+1
	}
	if tokens > 16 {
		return bad("more than 16 tokens")
	}
	return nil
}

// CheckPrefix says whether a prefix is "" or well formed.
func CheckPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	return CheckKey(prefix)
}

func keyByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '-' || c == '_' || c == '=' || c == '/'
}
