package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/shoalstore/shoal/core"
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
				f.onCall = func(_ context.Context, op, _ string) error {
					if op == "put" {
						return hang("before")
					}
					return nil
				}
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
	f.onCall = func(_ context.Context, op, _ string) error {
		if op == "put" {
			once.Do(func() { close(arrived) })
			<-release
		}
		return nil
	}
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
