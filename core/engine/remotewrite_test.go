package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
	"github.com/shoalstore/shoal/core/remote"
)

// put writes an object through.
func put(t *testing.T, n *engine.Node, b core.Bucket, key string, data []byte, o core.PutOptions) (core.ObjectInfo, error) {
	t.Helper()
	o.Size = int64(len(data))
	return n.Objects().Put(t.Context(), b, key, bytes.NewReader(data), o)
}

// intent returns the write of a key that is under way, nil for none.
func intent(t *testing.T, n *engine.Node, b core.Bucket, key string) *remote.Intent {
	t.Helper()
	row, err := n.Row(t.Context(), n.SlotOf(b.ID, key), core.RowKey{Bucket: b.ID, Space: core.SpaceIntent, Key: key})
	if errors.Is(err, core.ErrNotFound) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	in, err := remote.DecodeIntent(row.Value)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// TestRemotePut writes objects of all sizes through: they are in the remote, with
// everything that was said of them, and present.
func TestRemotePut(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	for i, size := range []int{0, 1, 5000, 8<<10 + 1, 10 * fakeBlock} {
		key, data := fmt.Sprint("key", i), remoteBytes(uint64(i), size)
		owner, other := tc.ownerOf(b, key)
		o := core.PutOptions{
			Headers: map[string]string{"Content-Type": "text/plain", "X-Amz-Storage-Class": "GLACIER_IR"},
			Meta:    map[string]string{"a": "b"}, Tags: map[string]string{"c": "d"},
		}
		f.reset()
		out, err := put(t, other, b, key, data, o)
		if err != nil {
			t.Fatal(err)
		}
		r := f.objects[key]
		if r == nil || !bytes.Equal(r.data, data) || !maps.Equal(r.Headers, o.Headers) || !maps.Equal(r.Meta, o.Meta) || !maps.Equal(r.Tags, o.Tags) {
			t.Fatalf("%d bytes: the remote has %+v", size, r)
		}
		if out.ETag != r.ETag || out.Size != int64(size) || !out.Modified.Equal(r.Modified) {
			t.Errorf("answered %+v, the remote has %+v", out, r.RemoteObject)
		}
		if n := f.count(); n != 1 {
			t.Errorf("%d requests for a PUT: %v", n, f.counts)
		}
		if in := intent(t, owner, b, key); in != nil {
			t.Errorf("left behind: %+v", in)
		}
		obj := mustGet(t, owner, b, key, data)
		if obj.ETag != r.ETag || obj.Tags["c"] != "d" || obj.Headers["X-Amz-Storage-Class"] != "GLACIER_IR" {
			t.Errorf("present: %+v", obj.Record)
		}
		if n := f.count(); n != 1 {
			t.Errorf("%d requests for a PUT and a GET of what is present", n)
		}
		again := remoteBytes(uint64(i)+100, size)
		if _, err := put(t, owner, b, key, again, o); err != nil || !bytes.Equal(f.data(key), again) {
			t.Fatalf("the second write: %v", err)
		}
		mustGet(t, other, b, key, again)
		if err := other.Objects().Delete(t.Context(), b, key, core.Conditions{}, core.RequestID{}); err != nil {
			t.Fatal(err)
		}
		if f.objects[key] != nil || present(t, owner, b, key) != nil {
			t.Error("not deleted")
		}
		if _, _, err := get(t, other, b, key, core.GetOptions{}); !errors.Is(err, core.ErrNotFound) {
			t.Errorf("after its deletion: %v", err)
		}
	}
	if err := tc.nodes[0].Objects().Delete(t.Context(), b, "none", core.Conditions{}, core.RequestID{}); err != nil {
		t.Errorf("deletion of nothing: %v", err)
	}
}

// TestRemotePutEvicted: what was here before is looked at before it is written, which
// takes a request less than to be refused first; what was deleted is not.
func TestRemotePutEvicted(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	f.set("key", []byte("before"))
	owner, other := tc.ownerOf(b, "key")
	step := func(what string, want int) {
		t.Helper()
		f.reset()
		if _, err := put(t, other, b, "key", []byte(what), core.PutOptions{}); err != nil || string(f.data("key")) != what {
			t.Fatalf("%s: the remote has %q, %v", what, f.data("key"), err)
		}
		if n := f.count(); n != want {
			t.Errorf("%s: %d requests, want %d: %v", what, n, want, f.counts)
		}
	}
	step("never seen here", 3)
	step("present", 1)
	if _, err := owner.Evict(t.Context(), b, "key", core.Version{}, false); err != nil {
		t.Fatal(err)
	}
	step("evicted", 2)
	if err := other.Objects().Delete(t.Context(), b, "key", core.Conditions{}, core.RequestID{}); err != nil {
		t.Fatal(err)
	}
	step("deleted", 1)
}

// TestRemoteConditions: conditions hold at the remote, whatever is present.
func TestRemoteConditions(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	n := tc.nodes[1]
	only := core.PutOptions{Conditions: core.Conditions{IfNoneMatch: []string{"*"}}}
	if _, err := put(t, n, b, "key", []byte("one"), only); err != nil {
		t.Fatal(err)
	}
	if _, err := put(t, n, b, "key", []byte("two"), only); !errors.Is(err, core.ErrPrecondition) {
		t.Errorf("if-none-match of what is there: %v", err)
	}
	f.set("cold", []byte("cold"))
	if _, err := put(t, n, b, "cold", []byte("two"), only); !errors.Is(err, core.ErrPrecondition) {
		t.Errorf("if-none-match of what is cold: %v", err)
	}
	match := func(etag string) core.PutOptions {
		return core.PutOptions{Conditions: core.Conditions{IfMatch: []string{etag}}}
	}
	was := f.objects["key"].ETag
	f.set("key", []byte("changed behind"))
	if _, err := put(t, n, b, "key", []byte("three"), match(was)); !errors.Is(err, core.ErrPrecondition) {
		t.Errorf("if-match of what is out of date: %v", err)
	}
	mustGet(t, n, b, "key", []byte("changed behind"))
	if _, err := put(t, n, b, "key", []byte("three"), match(f.objects["key"].ETag)); err != nil {
		t.Errorf("if-match: %v", err)
	}
	// Without conditions the last writer wins, whoever wrote in between.
	f.set("key", []byte("changed again"))
	if _, err := put(t, n, b, "key", []byte("four"), core.PutOptions{}); err != nil || string(f.data("key")) != "four" {
		t.Errorf("write over another's: %v, %q", err, f.data("key"))
	}
	mustGet(t, n, b, "key", []byte("four"))
	if err := n.Objects().Delete(t.Context(), b, "key", core.Conditions{IfMatch: []string{"other"}}, core.RequestID{}); !errors.Is(err, core.ErrPrecondition) {
		t.Errorf("conditional deletion: %v", err)
	}
	mustGet(t, n, b, "key", []byte("four"))
	if tc.shardsLeft() > 0 {
		t.Error("shards of small objects")
	}
}

// TestRemoteRefusal: what the remote refuses does not take place, and its shards go.
func TestRemoteRefusal(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	n := tc.nodes[0]
	was := remoteBytes(1, 3*fakeBlock)
	if _, err := put(t, n, b, "key", was, core.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	f.answer(func(_ context.Context, op, _ string) error {
		if op == "put" || op == "delete" {
			return fmt.Errorf("fake: %w", core.ErrPermission)
		}
		return nil
	})
	before := tc.shardsLeft()
	f.abilities.ReadOnly = true
	if _, err := put(t, n, b, "key", was, core.PutOptions{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("write to what is only read: %v", err)
	}
	if err := n.Objects().Delete(t.Context(), b, "key", core.Conditions{}, core.RequestID{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("deletion from what is only read: %v", err)
	}
	f.abilities.ReadOnly = false
	if _, err := put(t, n, b, "key", remoteBytes(2, 5*fakeBlock), core.PutOptions{}); !errors.Is(err, core.ErrPermission) {
		t.Errorf("refused write: %v", err)
	}
	if err := n.Objects().Delete(t.Context(), b, "key", core.Conditions{}, core.RequestID{}); !errors.Is(err, core.ErrPermission) {
		t.Errorf("refused deletion: %v", err)
	}
	f.reset()
	mustGet(t, n, b, "key", was)
	if f.count() > 0 {
		t.Error("what is present was asked for")
	}
	waitFor(t, "the shards to go", func() error {
		if n := tc.shardsLeft(); n != before {
			return fmt.Errorf("%d shards, want %d", n, before)
		}
		return nil
	})
}

// TestRemoteReadsWhileWritten: while a write is under way reads ask the remote, and
// keep nothing.
func TestRemoteReadsWhileWritten(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	n := tc.nodes[0]
	was, is := remoteBytes(1, 3*fakeBlock), remoteBytes(2, 4*fakeBlock)
	if _, err := put(t, n, b, "key", was, core.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	arrived, before, after := make(chan struct{}), make(chan struct{}), make(chan struct{})
	f.answer(func(ctx context.Context, op, _ string) error {
		if op == "put" {
			close(arrived)
			<-before
		}
		return nil
	})
	f.onPut = func(string) error { <-after; return nil }
	ended := make(chan error, 1)
	go func() {
		_, err := n.Objects().Put(context.Background(), b, "key", bytes.NewReader(is), core.PutOptions{Size: int64(len(is))})
		ended <- err
	}()
	<-arrived
	f.reset()
	mustGet(t, tc.nodes[1], b, "key", was) // present, and the remote says the same
	if h, g := f.count("head"), f.count("get"); h != 1 || g != 0 {
		t.Errorf("%d HEADs and %d GETs", h, g)
	}
	if _, err := n.Evict(t.Context(), b, "key", core.Version{}, false); !errors.Is(err, core.ErrConflict) {
		t.Errorf("evict while written: %v", err)
	}
	if err := n.Objects().DeleteBucket(t.Context(), "remote"); !errors.Is(err, core.ErrConflict) {
		t.Errorf("removal of the bucket while written: %v", err)
	}
	close(before)
	waitFor(t, "the remote to have it", func() error {
		if !bytes.Equal(f.data("key"), is) {
			return errors.New("not yet")
		}
		return nil
	})
	mustGet(t, tc.nodes[2], b, "key", is) // from the remote
	if rec := present(t, n, b, "key"); rec == nil || rec.Size != int64(len(was)) {
		t.Errorf("what was fetched meanwhile was kept: %+v", rec)
	}
	// The sweep leaves alone what only the intent names.
	shards := tc.shardsLeft()
	for _, n := range tc.nodes {
		if err := engine.SweepNow(t.Context(), n); err != nil {
			t.Error(err)
		}
	}
	if got := tc.shardsLeft(); got != shards {
		t.Errorf("the sweep left %d of %d shards", got, shards)
	}
	close(after)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	f.reset()
	mustGet(t, tc.nodes[2], b, "key", is)
	if f.count() > 0 {
		t.Error("what is present was asked for")
	}
}

// TestRemoteColdReadAcrossWrite: a fetch that began before a write is not kept
// after it, nor is one that began before a deletion.
func TestRemoteColdReadAcrossWrite(t *testing.T) {
	for _, what := range []string{"put", "delete"} {
		t.Run(what, func(t *testing.T) {
			tc, f, b := startRemote(t, 3, 1)
			n := tc.nodes[0]
			was := remoteBytes(1, 2*fakeBlock) // which come at once
			f.set("key", was)
			gate := f.gate()
			obj, err := n.Objects().Get(t.Context(), b, "key", core.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(obj.Body, make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
			// All blocks but the first are on their way, of the old version.
			waitFor(t, "the other blocks", func() error {
				if f.count("get") < 2 {
					return errors.New("not yet")
				}
				return nil
			})
			if what == "put" {
				_, err = put(t, n, b, "key", []byte("new"), core.PutOptions{})
			} else {
				err = n.Objects().Delete(t.Context(), b, "key", core.Conditions{}, core.RequestID{})
			}
			if err != nil {
				t.Fatal(err)
			}
			close(gate)
			_, _ = io.Copy(io.Discard, obj.Body)
			_ = obj.Body.Close()
			for range 20 {
				data, _, err := get(t, tc.nodes[1], b, "key", core.GetOptions{})
				if what == "put" && string(data) != "new" || what == "delete" && !errors.Is(err, core.ErrNotFound) {
					t.Fatalf("got %d bytes, %v", len(data), err)
				}
			}
			waitFor(t, "the old blocks to go", func() error {
				if n := tc.shardsLeft(); n > 0 {
					return fmt.Errorf("%d shards are left", n)
				}
				return nil
			})
		})
	}
}

// TestRemoteWritesOfOneKey: writers and readers of one key from all nodes; what is
// read is never older than what was acknowledged before.
func TestRemoteWritesOfOneKey(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	var acked atomic.Int64
	var done atomic.Bool
	var wg sync.WaitGroup
	number := func(data []byte) (n int64) { _, _ = fmt.Sscanf(string(data[:20]), "%20d", &n); return n }
	body := func(n int64) []byte { return append(fmt.Appendf(nil, "%020d", n), remoteBytes(uint64(n), 9000)...) }
	wg.Go(func() {
		defer done.Store(true)
		for n := int64(1); n <= 30; n++ {
			data := body(n)
			if _, err := tc.nodes[n%3].Objects().Put(t.Context(), b, "key", bytes.NewReader(data), core.PutOptions{Size: int64(len(data))}); err != nil {
				t.Error(err)
				return
			}
			acked.Store(n)
			if n%4 == 0 {
				if _, err := tc.nodes[0].Evict(t.Context(), b, "key", core.Version{}, false); err != nil && !errors.Is(err, core.ErrNotFound) && !errors.Is(err, core.ErrConflict) {
					t.Error(err)
				}
			}
		}
	})
	for i := range 4 {
		wg.Go(func() {
			last := int64(0)
			for !done.Load() {
				least := max(acked.Load(), last)
				obj, err := tc.nodes[i%3].Objects().Get(t.Context(), b, "key", core.GetOptions{})
				if errors.Is(err, core.ErrNotFound) && least == 0 {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				data, err := io.ReadAll(obj.Body)
				_ = obj.Body.Close()
				if err != nil {
					continue // it was replaced while it was read
				}
				if n := number(data); n < least || !bytes.Equal(data, body(n)) {
					t.Errorf("read %d, want %d at least", n, least)
				} else {
					last = n
				}
			}
		})
	}
	wg.Wait()
	mustGet(t, tc.nodes[0], b, "key", f.data("key"))
}
