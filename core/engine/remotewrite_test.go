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
	"time"

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
	f.onCall = func(_ context.Context, op, _ string) error {
		if op == "put" || op == "delete" {
			return fmt.Errorf("fake: %w", core.ErrPermission)
		}
		return nil
	}
	before := tc.shardsLeft()
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
	f.onCall = func(ctx context.Context, op, _ string) error {
		if op == "put" {
			close(arrived)
			<-before
		}
		return nil
	}
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
			was := remoteBytes(1, 3*fakeBlock)
			f.set("key", was)
			gate := make(chan int, 1)
			f.onGet = func(_ string, g core.RemoteGet, _ *core.RemoteObject, body []byte) io.ReadCloser {
				if g.Offset == 0 {
					return newGatedBody(body, gate)
				}
				return nil
			}
			gate <- 100
			obj, err := n.Objects().Get(t.Context(), b, "key", core.GetOptions{})
			if err != nil {
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

// TestRemoteWriterDies: whoever owns the slot next settles what the first owner
// began, and the client gets one answer.
func TestRemoteWriterDies(t *testing.T) {
	for _, landed := range []bool{true, false} {
		t.Run(fmt.Sprint("landed=", landed), func(t *testing.T) {
			tc, f, b := startRemote(t, 3, 1, quick)
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

// TestRemoteMultipart completes an upload in the client's parts.
func TestRemoteMultipart(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	o := tc.nodes[0].Objects()
	ctx := t.Context()
	up, err := o.CreateUpload(ctx, b, "key", core.PutOptions{Meta: map[string]string{"a": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	var names []core.CompletePart
	var want []byte
	for i, size := range []int{core.MinPart, core.MinPart + 5, 1000} {
		data := remoteBytes(uint64(i), size)
		p, err := o.PutPart(ctx, b, "key", up.ID, i+1, bytes.NewReader(data), core.PutOptions{Size: int64(size)})
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, core.CompletePart{Number: i + 1, ETag: p.ETag})
		want = append(want, data...)
	}
	if f.count() > 0 {
		t.Errorf("requests before the end: %v", f.counts)
	}
	// A refusal leaves the upload as it is.
	f.onCall = func(_ context.Context, op, _ string) error {
		if op == "complete" {
			return fmt.Errorf("fake: %w", core.ErrPermission)
		}
		return nil
	}
	if _, err := o.CompleteUpload(ctx, b, "key", up.ID, names, core.PutOptions{Size: -1}); !errors.Is(err, core.ErrPermission) {
		t.Fatalf("refused: %v", err)
	}
	if _, parts, _, err := o.Parts(ctx, b, "key", up.ID, 0, 10); err != nil || len(parts) != 3 {
		t.Fatalf("%d parts are left, %v", len(parts), err)
	}
	f.mu.Lock()
	f.onCall = nil
	f.mu.Unlock()
	arrived, release := make(chan struct{}), make(chan struct{})
	f.onCall = func(_ context.Context, op, _ string) error {
		if op == "complete" {
			close(arrived)
			<-release
		}
		return nil
	}
	// The first one's answer is remembered, so it takes another upload.
	ended := make(chan error, 1)
	var out core.ObjectInfo
	up3, err := o.CreateUpload(ctx, b, "key", core.PutOptions{Meta: map[string]string{"a": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	off := 0
	for i, size := range []int{core.MinPart, core.MinPart + 5, 1000} {
		if _, err := o.PutPart(ctx, b, "key", up3.ID, i+1, bytes.NewReader(want[off:off+size]), core.PutOptions{Size: int64(size)}); err != nil {
			t.Fatal(err)
		}
		off += size
	}
	go func() {
		var err error
		out, err = tc.nodes[1].Objects().CompleteUpload(context.Background(), b, "key", up3.ID, names, core.PutOptions{Size: -1})
		ended <- err
	}()
	<-arrived
	if err := o.AbortUpload(ctx, b, "key", up3.ID); !errors.Is(err, core.ErrConflict) {
		t.Errorf("abort while completed: %v", err)
	}
	if _, err := o.PutPart(ctx, b, "key", up3.ID, 1, bytes.NewReader(want[:100]), core.PutOptions{Size: 100}); !errors.Is(err, core.ErrConflict) {
		t.Errorf("a part while completed: %v", err)
	}
	close(release)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if r := f.objects["key"]; !bytes.Equal(r.data, want) || r.ETag != out.ETag || r.Meta["a"] != "b" {
		t.Errorf("the remote has %d bytes, %+v", len(r.data), r.RemoteObject)
	}
	if n := f.count("part"); n != 6 || f.count("put") > 0 {
		t.Errorf("%d parts were sent, want 3 twice: %v", n, f.counts)
	}
	again, err := o.CompleteUpload(ctx, b, "key", up3.ID, names, core.PutOptions{Size: -1})
	if err != nil || again.ETag != out.ETag {
		t.Errorf("completed again: %+v, %v", again, err)
	}
	if _, _, _, err := o.Parts(ctx, b, "key", up3.ID, 0, 10); !errors.Is(err, core.ErrNoSuchUpload) {
		t.Errorf("the upload is left: %v", err)
	}
	f.reset()
	mustGet(t, tc.nodes[2], b, "key", want)
	part, _, err := get(t, tc.nodes[2], b, "key", core.GetOptions{Part: 3})
	if err != nil || !bytes.Equal(part, want[len(want)-1000:]) || f.count() > 0 {
		t.Errorf("part 3: %d bytes, %v, %d requests", len(part), err, f.count())
	}
}

// TestRemoteCopy copies between buckets of all kinds.
func TestRemoteCopy(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	o := tc.nodes[0].Objects()
	own := sharded(t, o, core.Mirror(2))
	data := remoteBytes(1, 3*fakeBlock)
	f.set("cold", data, func(o *core.RemoteObject) { o.Meta = map[string]string{"a": "b"} })
	for _, x := range []struct {
		from, to       core.Bucket
		fromKey, toKey string
	}{{b, own, "cold", "own"}, {own, b, "own", "back"}, {b, b, "back", "twice"}} {
		if _, err := o.Copy(t.Context(), x.from, x.fromKey, x.to, x.toKey, core.CopyOptions{Put: core.PutOptions{Size: -1}}); err != nil {
			t.Fatalf("%s to %s: %v", x.fromKey, x.toKey, err)
		}
		obj := mustGet(t, tc.nodes[1], x.to, x.toKey, data)
		if obj.Meta["a"] != "b" || obj.ETag != f.objects["cold"].ETag {
			t.Errorf("%s: %+v", x.toKey, obj.Record)
		}
	}
	if !bytes.Equal(f.data("back"), data) || !bytes.Equal(f.data("twice"), data) || f.data("own") != nil {
		t.Error("the remote has something else")
	}
}

// TestRemoteCopyJob: a job's copy takes place once, is found again though nothing
// is present, and never goes over what somebody else wrote since.
func TestRemoteCopyJob(t *testing.T) {
	tc, f, b := startRemote(t, 1, 2)
	n := tc.nodes[0]
	own, err := n.Objects().CreateBucket(t.Context(), core.BucketName{Provider: core.Shoal, Name: "own"}, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	started := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC) // before all that the fake writes
	copyKey := func(job, key string) (engine.CopyEnd, string) {
		t.Helper()
		o, err := n.Objects().Head(t.Context(), own, "key", core.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		end, _, why, err := n.CopyObject(t.Context(), &engine.CopyTask{
			From: own, To: b, Key: "key", ToKey: key, Source: engine.ContentOf(&o.Record), Job: job, Started: started,
		})
		if err != nil {
			t.Fatal(err)
		}
		return end, why
	}
	if _, err := put(t, n, own, "key", []byte("content"), core.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if end, _ := copyKey("j1", "a"); end != engine.Copied || string(f.data("a")) != "content" || f.count() != 1 {
		t.Errorf("first: %v, %q, %v", end, f.data("a"), f.counts)
	}
	if end, _ := copyKey("j1", "a"); end != engine.CopiedSoFar || f.count() != 1 {
		t.Errorf("again: %v, %v", end, f.counts)
	}
	if _, err := n.Evict(t.Context(), b, "a", core.Version{}, false); err != nil {
		t.Fatal(err)
	}
	if end, _ := copyKey("j1", "a"); end != engine.CopiedSoFar {
		t.Errorf("again, with nothing present: %v", end)
	}
	f.set("b", []byte("foreign"))
	if end, why := copyKey("j1", "b"); end != engine.CopySkipped || why == "" || string(f.data("b")) != "foreign" {
		t.Errorf("over another's: %v, %q", end, f.data("b"))
	}
	f.set("c", []byte("old"), func(o *core.RemoteObject) { o.Modified = started.Add(-time.Hour) })
	if end, _ := copyKey("j1", "c"); end != engine.Copied || string(f.data("c")) != "content" {
		t.Errorf("over an old one: %v, %q", end, f.data("c"))
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
