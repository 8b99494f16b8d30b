package engine

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

// setClock says what a test sets.
type setClock struct{ now time.Time }

func (c *setClock) Now() time.Time                          { return c.now }
func (*setClock) Boot() core.Instant                        { return 0 }
func (*setClock) Wait(context.Context, time.Duration) error { return nil }

// TestAccesses: what is remembered survives being stored; what is not known counts as
// used when the table began, and a damaged or future table tells nothing wrong.
func TestAccesses(t *testing.T) {
	began := time.Date(2026, 5, 4, 3, 2, 0, 0, time.UTC)
	c := &setClock{now: began}
	a := newAccesses(c)
	c.now = began.Add(time.Hour)
	a.note(1, "key")
	c.now = began.Add(2 * time.Hour)
	a.note(2, "key")
	stored := a.encode()
	if a.unsaved() {
		t.Error("what was just stored is unsaved")
	}
	c.now = began.Add(3 * time.Hour)
	b := newAccesses(c)
	b.note(1, "other")
	if err := b.decode(stored); err != nil {
		t.Fatal(err)
	}
	for _, v := range []struct {
		bucket core.BucketID
		key    string
		want   time.Duration
	}{{1, "key", time.Hour}, {2, "key", 2 * time.Hour}, {1, "other", 3 * time.Hour}, {1, "unknown", 0}} {
		if got := b.last(v.bucket, v.key); !got.Equal(began.Add(v.want)) {
			t.Errorf("%d/%s: got %v, want %v", v.bucket, v.key, got, began.Add(v.want))
		}
	}
	for i := range stored {
		bad := bytes.Clone(stored)
		bad[i] ^= 4
		if err := newAccesses(c).decode(bad); !errors.Is(err, core.ErrCorrupt) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		if err := newAccesses(c).decode(stored[:i]); !errors.Is(err, core.ErrCorrupt) {
			t.Fatalf("%d bytes of it: %v", i, err)
		}
	}
	c.now = began.Add(-time.Hour) // the clock was set back
	early := newAccesses(c)
	if err := early.decode(stored); err != nil || early.last(1, "key").After(c.now) || early.last(1, "unknown").After(c.now) {
		t.Errorf("%v; used %v, in the future", err, early.last(1, "key"))
	}
	b.shrink()
	if len(b.at) != 1 || !b.last(1, "key").Equal(began.Add(2*time.Hour)) {
		t.Errorf("%d names are left of 3, unknown ones used %v", len(b.at), b.last(1, "key"))
	}
}
