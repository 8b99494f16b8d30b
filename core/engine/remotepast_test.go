package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
)

// past copies a key past the cluster.
func past(t *testing.T, n *engine.Node, from, to core.Bucket, key, toKey, source string) (engine.CopyEnd, string, error) {
	t.Helper()
	end, _, why, err := n.CopyObject(t.Context(), &engine.CopyTask{
		From: from, To: to, Key: key, ToKey: toKey, Source: source, Job: "j1",
		Started: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NoCache: true,
	})
	return end, why, err
}

// absentHere says that the cluster knows nothing of a key.
func absentHere(t *testing.T, n *engine.Node, b core.Bucket, key string) {
	t.Helper()
	_, err := n.Row(t.Context(), n.SlotOf(b.ID, key), core.RowKey{Bucket: b.ID, Space: core.SpaceObject, Key: key})
	if !errors.Is(err, core.ErrNotFound) {
		t.Errorf("%q is known here: %v", key, err)
	}
}

// TestRemoteCopyPast: a copy with --no-cache takes one read and one write at the
// remotes, whatever the size, carries everything over and leaves nothing in the cluster.
func TestRemoteCopyPast(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	n := tc.nodes[0]
	for i, size := range []int{0, 1, 5000, 3 * fakeBlock} {
		key, to := fmt.Sprint("key", i), fmt.Sprint("to", i)
		data := remoteBytes(uint64(i), size)
		f.set(key, data, func(o *core.RemoteObject) {
			o.Headers, o.Meta, o.Tags = map[string]string{"Content-Type": "text/plain"}, map[string]string{"a": "b"}, map[string]string{"c": "d"}
		})
		f.reset()
		end, why, err := past(t, n, b, b, key, to, string(f.objects[key].Version))
		if err != nil || end != engine.Copied || why != "" {
			t.Fatalf("%d bytes: %v, %q, %v", size, end, why, err)
		}
		r := f.objects[to]
		if r == nil || !bytes.Equal(r.data, data) || r.Headers["Content-Type"] != "text/plain" || r.Meta["a"] != "b" || r.Tags["c"] != "d" {
			t.Errorf("%d bytes: the remote has %+v", size, r)
		}
		if c := f.count(); c > 2 && size > 0 {
			t.Errorf("%d bytes: %d requests: %v", size, c, f.counts)
		}
		absentHere(t, n, b, key)
		absentHere(t, n, b, to)
		if end, _, err := past(t, tc.nodes[1], b, b, key, to, string(f.objects[key].Version)); err != nil || end != engine.CopiedSoFar || f.objects[to].Version != r.Version {
			t.Errorf("%d bytes again: %v, %v", size, end, err)
		}
		if wrote, err := n.WroteCopy(t.Context(), b, to, r.Version, "j1"); err != nil || !wrote {
			t.Errorf("%d bytes: not found again: %v", size, err)
		}
	}
}

// In parts, from the cluster's own bucket and from a remote.
func TestRemoteCopyPastInParts(t *testing.T) {
	tc, f, b := startRemote(t, 1, 2)
	n := tc.nodes[0]
	own, err := n.Objects().CreateBucket(t.Context(), core.BucketName{Provider: core.Shoal, Name: "own"}, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	data := remoteBytes(1, 33<<20)
	f.set("far", data)
	if _, err := put(t, n, own, "near", data, core.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	f.reset()
	for key, from := range map[string]core.Bucket{"far": b, "near": own} {
		if end, why, err := past(t, n, from, b, key, "to-"+key, ""); err != nil || end != engine.Copied || !bytes.Equal(f.data("to-"+key), data) {
			t.Errorf("%s: %v, %q, %v", key, end, why, err)
		}
		absentHere(t, n, b, "to-"+key)
	}
	absentHere(t, n, b, "far")
	// Into the cluster: the source is not kept.
	if end, why, err := past(t, n, b, own, "far", "to-own", ""); err != nil || end != engine.Copied {
		t.Errorf("to a bucket of the cluster: %v, %q, %v", end, why, err)
	}
	mustGet(t, n, own, "to-own", data)
	absentHere(t, n, b, "far")
	// To a remote that takes no parts it is streamed, and what arrives otherwise goes.
	f.abilities.MaxParts = 0
	if end, why, err := past(t, n, b, b, "far", "streamed", ""); err != nil || end != engine.Copied || !bytes.Equal(f.data("streamed"), data) {
		t.Errorf("streamed: %v, %q, %v", end, why, err)
	}
	f.onPut = func(key string) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.objects[key].MD5[0]++ // shared with the answer
		return nil
	}
	if _, _, err := past(t, n, b, b, "far", "spoilt", ""); !errors.Is(err, core.ErrCorrupt) || f.data("spoilt") != nil {
		t.Errorf("spoilt: %v", err)
	}
	f.abilities.MaxParts, f.onPut = 10_000, nil
	// A part that fails leaves neither an object nor an upload.
	f.answer(func(_ context.Context, op, _ string) error {
		if op == "part" {
			return fmt.Errorf("fake: %w", core.ErrUnavailable)
		}
		return nil
	})
	if _, _, err := past(t, n, b, b, "far", "broken", ""); err == nil || f.data("broken") != nil || len(f.uploads) != 0 {
		t.Errorf("got %v, %d uploads are left", err, len(f.uploads))
	}
}

func TestRemoteCopyPastRefuses(t *testing.T) {
	tc, f, b := startRemote(t, 1, 2)
	n := tc.nodes[0]
	f.set("key", []byte("content"))
	v := string(f.objects["key"].Version)
	for name, c := range map[string]struct {
		prepare func()
		want    string
	}{
		"replaced": {func() { f.set("key", []byte("another")) }, "replaced"},
		"removed":  {func() { f.unset("key") }, "removed"},
	} {
		c.prepare()
		if end, why, err := past(t, n, b, b, "key", "to", v); err != nil || end != engine.CopySkipped || !bytes.Contains([]byte(why), []byte(c.want)) || f.data("to") != nil {
			t.Errorf("%s: %v, %q, %v", name, end, why, err)
		}
	}
	f.set("lies", []byte("content"), func(o *core.RemoteObject) { o.MD5 = make([]byte, 16) })
	if _, _, err := past(t, n, b, b, "lies", "to", ""); !errors.Is(err, core.ErrCorrupt) || f.data("to") != nil {
		t.Errorf("a source that lies: %v", err)
	}
	f.set("key", []byte("content"))
	f.set("foreign", []byte("foreign"))
	if end, _, err := past(t, n, b, b, "key", "foreign", ""); err != nil || end != engine.CopySkipped || string(f.data("foreign")) != "foreign" {
		t.Errorf("over another's: %v, %v", end, err)
	}
	// What is present at the destination is replaced here, too.
	if _, err := put(t, n, b, "here", []byte("old"), core.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	f.objects["here"].Modified = time.Date(2019, 1, 1, 0, 0, 0, 0, time.UTC)
	if end, why, err := past(t, n, b, b, "key", "here", ""); err != nil || end != engine.Copied {
		t.Errorf("over what is present: %v, %q, %v", end, why, err)
	}
	mustGet(t, n, b, "here", []byte("content"))
}

// copyingRemote is a remote that copies by itself.
type copyingRemote struct {
	*fakeRemote
	once sync.Once
}

func (r *copyingRemote) Copy(ctx context.Context, _, fromKey string, v core.RemoteVersion, _, key string, o core.RemotePut) (core.RemoteObject, error) {
	if err := r.begin(ctx, "copy", key); err != nil {
		return core.RemoteObject{}, err
	}
	r.mu.Lock()
	src := r.objects[fromKey]
	r.mu.Unlock()
	if src == nil || src.Version != v {
		return core.RemoteObject{}, fmt.Errorf("fake: %q: %w", fromKey, core.ErrPrecondition)
	}
	return r.write(key, src.data, &o, o.If, "")
}

// TestRemoteCopyThere: where both ends are one account's the bytes stay at the remote.
func TestRemoteCopyThere(t *testing.T) {
	var r copyingRemote
	tc, f, b := startRemote(t, 1, 2, func(o *engine.Options) {
		open := o.Remote
		o.Remote = func(name core.BucketName, s core.RemoteSettings) (core.Backend, error) {
			c, err := open(name, s)
			r.once.Do(func() { r.fakeRemote = c.(*fakeRemote) })
			return &r, err
		}
	})
	n := tc.nodes[0]
	f.set("key", []byte("content"), func(o *core.RemoteObject) { o.Meta = map[string]string{"a": "b"} })
	f.reset()
	if end, why, err := past(t, n, b, b, "key", "to", string(f.objects["key"].Version)); err != nil || end != engine.Copied || why != "" {
		t.Fatalf("%v, %q, %v", end, why, err)
	}
	if f.counts["get"]+f.counts["put"] != 0 || f.counts["copy"] != 1 || string(f.data("to")) != "content" || f.objects["to"].Meta["a"] != "b" {
		t.Errorf("%v, %+v", f.counts, f.objects["to"])
	}
	if end, _, err := past(t, n, b, b, "key", "to", string(f.objects["key"].Version)); err != nil || end != engine.CopiedSoFar {
		t.Errorf("again: %v, %v", end, err)
	}
	// One that may not, or cannot, is read and written.
	f.answer(func(_ context.Context, op, _ string) error {
		if op == "copy" {
			return fmt.Errorf("fake: %w", core.ErrPermission)
		}
		return nil
	})
	if end, _, err := past(t, n, b, b, "key", "other", ""); err != nil || end != engine.Copied || string(f.data("other")) != "content" {
		t.Errorf("refused: %v, %v", end, err)
	}
	f.answer(nil)
	if end, why, err := past(t, n, b, b, "key", "third", "v0"); err != nil || end != engine.CopySkipped || why == "" || f.data("third") != nil {
		t.Errorf("replaced: %v, %q, %v", end, why, err)
	}
}
