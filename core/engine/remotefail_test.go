package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
	"github.com/shoalstore/shoal/core/remote"
)

// TestRemoteLostAnswer: a write whose answer is lost took place once, and a repeated
// request gets the first one's answer.
func TestRemoteLostAnswer(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	n := tc.nodes[0]
	var lost atomic.Int64
	f.onPut = func(key string) error {
		if lost.Add(1) == 1 {
			return fmt.Errorf("fake: the connection broke: %w", core.ErrUnknownOutcome)
		}
		return nil
	}
	id := core.NewRequestID()
	data := remoteBytes(1, 4*fakeBlock)
	first, err := put(t, n, b, "key", data, core.PutOptions{Request: id})
	if err != nil {
		t.Fatal(err)
	}
	if c := f.count("put"); c != 1 {
		t.Errorf("%d PUTs", c)
	}
	f.set("key", []byte("later"))
	again, err := put(t, n, b, "key", data, core.PutOptions{Request: id})
	if err != nil || again.ETag != first.ETag || f.count("put") != 1 || string(f.data("key")) != "later" {
		t.Errorf("repeated: %+v, %v; %d PUTs", again, err, f.count("put"))
	}
}

// TestRemoteWriterDies: whoever owns the slot next settles what the first owner
// began, and the client gets one answer; also where the remote has had another
// object all along, of which the cluster knew nothing.
func TestRemoteWriterDies(t *testing.T) {
	for _, c := range []struct{ landed, cold bool }{{landed: true}, {}, {cold: true}} {
		landed := c.landed
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			tc, f, b := startRemote(t, 3, 1, quick)
			if c.cold {
				f.set("key", []byte("cold"))
			}
			owner, other := tc.ownerOf(b, "key")
			data := remoteBytes(1, 3*fakeBlock)
			var first atomic.Bool
			hang := func(at string) error {
				if first.Swap(true) {
					return nil
				}
				tc.net.cutOff(owner.ID())
				return fmt.Errorf("fake: %s: %w", at, core.ErrUnknownOutcome)
			}
			if landed {
				f.onPut = func(string) error { return hang("after") }
			} else {
				f.answer(func(_ context.Context, op, _ string) error {
					if op == "put" {
						return hang("before")
					}
					return nil
				})
			}
			if _, err := put(t, other, b, "key", data, core.PutOptions{}); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(f.data("key"), data) {
				t.Error("the remote has something else")
			}
			f.reset()
			mustGet(t, other, b, "key", data)
			if n := f.count(); n > 0 {
				t.Errorf("%d requests for what is present", n)
			}
		})
	}
}

// TestRemoteGatewayDies: a write that nobody waits for any more is settled all the
// same.
func TestRemoteGatewayDies(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	ctx, cancel := context.WithCancel(t.Context())
	arrived, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	f.answer(func(_ context.Context, op, _ string) error {
		if op == "put" {
			once.Do(func() { close(arrived) })
			<-release
		}
		return nil
	})
	data := remoteBytes(1, 3*fakeBlock)
	go func() {
		<-arrived
		cancel()
		close(release)
	}()
	owner, other := tc.ownerOf(b, "key")
	if _, err := other.Objects().Put(ctx, b, "key", bytes.NewReader(data), core.PutOptions{Size: int64(len(data))}); err == nil {
		t.Error("a cancelled write was acknowledged")
	}
	waitFor(t, "the write to be settled", func() error {
		if rec := present(t, owner, b, "key"); rec == nil || intent(t, owner, b, "key").Pending() {
			return errors.New("it is not")
		}
		return nil
	})
	f.reset()
	mustGet(t, other, b, "key", data)
	if f.count() > 0 || !bytes.Equal(f.data("key"), data) {
		t.Error("the remote and the cluster do not agree")
	}
}

// TestRemoteIntentReplaced: who does not know the intent's row as it is commits
// nothing.
func TestRemoteIntentReplaced(t *testing.T) {
	tc, _, b := startRemote(t, 1, 2)
	n := tc.nodes[0]
	kept := &remote.Intent{Attempts: []remote.Attempt{{If: core.RemoteCondition{Version: "x"}, Until: time.Now().Add(time.Hour)}}}
	waitFor(t, "the slot to be owned", func() error { // here nobody tries again
		err := engine.CommitIntent(t.Context(), n, b, "key", core.Version{Seq: 1}, kept)
		if errors.Is(err, core.ErrUnavailable) {
			return err
		}
		if !errors.Is(err, engine.ErrReplaced) {
			t.Errorf("of a row that is not there: %v", err)
		}
		return nil
	})
	if err := engine.CommitIntent(t.Context(), n, b, "key", core.Version{}, kept); err != nil {
		t.Fatal(err)
	}
	if err := engine.CommitIntent(t.Context(), n, b, "key", core.Version{}, kept); !errors.Is(err, engine.ErrReplaced) {
		t.Errorf("of a row that was not there before: %v", err)
	}
	if _, err := put(t, n, b, "key", []byte("content"), core.PutOptions{}); err != nil {
		t.Errorf("a write beside attempts of an earlier one: %v", err)
	}
}

// TestRemoteSettledByItself: a write whose client and owner are gone is settled by
// the next owner, though nobody asks for the key.
func TestRemoteSettledByItself(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1, quick)
	owner, other := tc.ownerOf(b, "key")
	data := remoteBytes(1, 3*fakeBlock)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var first atomic.Bool
	f.answer(func(_ context.Context, op, _ string) error {
		if op == "put" && !first.Swap(true) {
			cancel()
			tc.net.cutOff(owner.ID())
			return fmt.Errorf("fake: %w", core.ErrUnknownOutcome)
		}
		return nil
	})
	if _, err := other.Objects().Put(ctx, b, "key", bytes.NewReader(data), core.PutOptions{Size: int64(len(data))}); err == nil {
		t.Error("a cancelled write was acknowledged")
	}
	waitFor(t, "the write to be settled", func() error {
		switch row, err := other.Row(t.Context(), other.SlotOf(b.ID, "key"), core.RowKey{Bucket: b.ID, Key: "key"}); {
		case err != nil:
			return err
		case !bytes.Equal(f.data("key"), data):
			return errors.New("the remote does not have it")
		case intent(t, other, b, "key").Pending():
			return fmt.Errorf("it is present in version %v and not settled", row.Version)
		}
		return nil
	})
	f.reset()
	mustGet(t, other, b, "key", data)
	if f.count() > 0 {
		t.Error("what is present was asked for")
	}
}

// TestRemoteDeleteRepeated: a repeated DELETE gets its first answer and removes
// nothing that came later, whether or not the first one said that it was the first.
func TestRemoteDeleteRepeated(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	for i, n := range tc.nodes {
		o, key := n.Objects(), fmt.Sprint("key", i)
		for _, cold := range []bool{true, false} {
			f.set(key, []byte("first"))
			if !cold {
				mustGet(t, n, b, key, []byte("first"))
			}
			id := core.NewRequestID()
			if err := o.DeleteFirst(t.Context(), b, key, core.Conditions{}, id); err != nil || f.data(key) != nil {
				t.Fatalf("%v, %q", err, f.data(key))
			}
			f.set(key, []byte("second"))
			f.reset()
			if err := tc.nodes[0].Objects().Delete(t.Context(), b, key, core.Conditions{}, id); err != nil || string(f.data(key)) != "second" || f.count() > 0 {
				t.Errorf("repeated: %v, %q, %v", err, f.data(key), f.counts)
			}
		}
		// The first answer of a conditional one is a refusal, and stays so.
		id := core.NewRequestID()
		c := core.Conditions{IfMatch: []string{"other"}}
		if err := o.DeleteFirst(t.Context(), b, key, c, id); !errors.Is(err, core.ErrPrecondition) {
			t.Errorf("refused: %v", err)
		}
		c.IfMatch[0] = f.objects[key].ETag
		if err := o.Delete(t.Context(), b, key, c, id); !errors.Is(err, core.ErrPrecondition) || f.data(key) == nil {
			t.Errorf("refused, and repeated: %v, %q", err, f.data(key))
		}
	}
}
