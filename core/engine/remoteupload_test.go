package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
)

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
	f.answer(func(_ context.Context, op, _ string) error {
		if op == "complete" {
			return fmt.Errorf("fake: %w", core.ErrPermission)
		}
		return nil
	})
	if _, err := o.CompleteUpload(ctx, b, "key", up.ID, names, core.PutOptions{Size: -1}); !errors.Is(err, core.ErrPermission) {
		t.Fatalf("refused: %v", err)
	}
	if _, parts, _, err := o.Parts(ctx, b, "key", up.ID, 0, 10); err != nil || len(parts) != 3 {
		t.Fatalf("%d parts are left, %v", len(parts), err)
	}
	for _, n := range tc.nodes {
		if d := engine.Doomed(n); d > 0 {
			t.Errorf("node %s deletes %d shards of an upload that goes on", n.ID(), d)
		}
	}
	f.answer(nil)
	arrived, release := make(chan struct{}), make(chan struct{})
	f.answer(func(_ context.Context, op, _ string) error {
		if op == "complete" {
			close(arrived)
			<-release
		}
		return nil
	})
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
