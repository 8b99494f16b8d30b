package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
)

// TestRemoteLatest: a read that asks for the latest gets it, and sync follows
// deletions.
func TestRemoteLatest(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	n := tc.nodes[1]
	was, is := remoteBytes(1, 3*fakeBlock), remoteBytes(2, 5*fakeBlock)
	f.set("key", was)
	mustGet(t, n, b, "key", was)
	awaitPresent(t, n, b, "key", int64(len(was)))
	f.set("key", is)
	mustGet(t, n, b, "key", was)
	f.reset()
	data, _, err := get(t, n, b, "key", core.GetOptions{Latest: true})
	if err != nil || !bytes.Equal(data, is) || f.count("head") != 1 {
		t.Fatalf("latest: %d bytes, %v; %d HEADs", len(data), err, f.count("head"))
	}
	mustGet(t, n, b, "key", is) // never what was there before
	awaitPresent(t, n, b, "key", int64(len(is)))
	f.reset()
	if data, _, err = get(t, n, b, "key", core.GetOptions{Latest: true}); err != nil || !bytes.Equal(data, is) || f.count() != 1 {
		t.Errorf("latest of what is present: %d bytes, %v; %d requests", len(data), err, f.count())
	}
	f.unset("key")
	if _, _, err := get(t, n, b, "key", core.GetOptions{Latest: true}); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("latest of what is gone: %v", err)
	}
	mustGet(t, n, b, "key", is)
	if _, err := n.Objects().Head(t.Context(), b, "key", core.GetOptions{Sync: true}); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("sync of what is gone: %v", err)
	}
	if rec := present(t, n, b, "key"); rec != nil {
		t.Errorf("after a sync %d bytes are present", rec.StoredBytes())
	}
	// That a remote does not answer says nothing about the object.
	f.set("key", is)
	mustGet(t, n, b, "key", is)
	awaitPresent(t, n, b, "key", int64(len(is)))
	f.answer(func(context.Context, string, string) error { return fmt.Errorf("fake: %w", core.ErrPermission) })
	if _, _, err := get(t, n, b, "key", core.GetOptions{Sync: true}); !errors.Is(err, core.ErrPermission) {
		t.Errorf("sync without a remote: %v", err)
	}
	if rec := present(t, n, b, "key"); rec == nil {
		t.Error("a remote that refuses made a copy go")
	}
}

// TestRemoteHead: HEAD of what is present asks nobody, of what is cold the remote.
func TestRemoteHead(t *testing.T) {
	tc, f, b := startRemote(t, 1, 1)
	n := tc.nodes[0]
	f.set("key", []byte("content"), func(o *core.RemoteObject) { o.Meta = map[string]string{"a": "b"} })
	for range 2 {
		o, err := n.Objects().Head(t.Context(), b, "key", core.GetOptions{})
		if err != nil || o.Size != 7 || o.ETag != f.objects["key"].ETag || o.Meta["a"] != "b" {
			t.Fatalf("head: %+v, %v", o, err)
		}
	}
	if f.count("head") != 2 || f.count() != 2 {
		t.Errorf("%d HEADs", f.count("head"))
	}
	_, err := n.Objects().Head(t.Context(), b, "key", core.GetOptions{Conditions: core.Conditions{IfNoneMatch: []string{f.objects["key"].ETag}}})
	if !errors.Is(err, core.ErrNotModified) {
		t.Errorf("conditional head: %v", err)
	}
	_, _, err = get(t, n, b, "key", core.GetOptions{Conditions: core.Conditions{IfMatch: []string{"other"}}})
	if !errors.Is(err, core.ErrPrecondition) {
		t.Errorf("conditional get: %v", err)
	}
	mustGet(t, n, b, "key", []byte("content"))
	awaitPresent(t, n, b, "key", 7)
	f.reset()
	if _, err := n.Objects().Head(t.Context(), b, "key", core.GetOptions{}); err != nil || f.count() > 0 {
		t.Errorf("head of what is present: %v, %d requests", err, f.count())
	}
	if _, err := n.Objects().Head(t.Context(), b, "none", core.GetOptions{}); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("head of nothing: %v", err)
	}
}

// TestRemoteEvict drops copies, whole or their data only, and never an only one.
func TestRemoteEvict(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	n := tc.nodes[2]
	for i, size := range []int{100, 5000, 3 * fakeBlock} {
		key, want := fmt.Sprint("key", i), remoteBytes(1, size)
		f.set(key, want)
		mustGet(t, n, b, key, want)
		awaitPresent(t, n, b, key, int64(size))
		if _, err := n.Evict(t.Context(), b, key, core.Version{Seq: 1}, false); !errors.Is(err, core.ErrConflict) {
			t.Errorf("evict of another version: %v", err)
		}
		if freed, err := n.Evict(t.Context(), b, key, core.Version{}, true); err != nil || freed != int64(size) {
			t.Errorf("evict of the data: %d bytes, %v", freed, err)
		}
		rec := present(t, n, b, key)
		if rec == nil || !rec.MetadataOnly() || rec.Size != int64(size) {
			t.Fatalf("record %+v", rec)
		}
		f.reset()
		if _, err := n.Objects().Head(t.Context(), b, key, core.GetOptions{}); err != nil || f.count() > 0 {
			t.Errorf("head of metadata: %v, %d requests", err, f.count())
		}
		mustGet(t, n, b, key, want)
		awaitPresent(t, n, b, key, int64(size))
		if freed, err := n.Evict(t.Context(), b, key, core.Version{}, false); err != nil || freed != int64(size) {
			t.Errorf("evict: %d bytes, %v", freed, err)
		}
		if rec := present(t, n, b, key); rec != nil {
			t.Errorf("record %+v", rec)
		}
		mustGet(t, n, b, key, want)
	}
	if _, err := n.Evict(t.Context(), b, "none", core.Version{}, false); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("evict of nothing: %v", err)
	}
	own := sharded(t, n.Objects(), core.Mirror(2))
	putBody(t, n.Objects(), own, "key", 1000)
	if _, err := n.Evict(t.Context(), own, "key", core.Version{}, false); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("evict of an only copy: %v", err)
	}
}

// TestRemoteEvictWhileWritten: what evict leaves is never of before a write that came
// behind its look.
func TestRemoteEvictWhileWritten(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	owner, other := tc.ownerOf(b, "key")
	if _, err := put(t, owner, b, "key", []byte("before"), core.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	var written error
	tc.net.mu.Lock()
	tc.net.onCall = func(from core.NodeID, method uint16) {
		if from == other.ID() && method == engine.MethodMutate {
			once.Do(func() { _, written = put(t, owner, b, "key", []byte("after"), core.PutOptions{}) })
		}
	}
	tc.net.mu.Unlock()
	_, err := other.Evict(t.Context(), b, "key", core.Version{}, true)
	if !errors.Is(err, core.ErrConflict) || written != nil {
		t.Errorf("evict: %v; the write: %v", err, written)
	}
	if rec := present(t, owner, b, "key"); rec == nil || rec.ETag != f.objects["key"].ETag || rec.MetadataOnly() {
		t.Errorf("there is %+v", rec)
	}
}

// TestRemoteListing lists what the remote has, with what is present of it.
func TestRemoteListing(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	n := tc.nodes[0]
	want := map[string]engine.Presence{}
	for i := range 40 {
		key := fmt.Sprintf("d%d/key%02d", i%4, i)
		if i%4 == 0 {
			key = fmt.Sprintf("key%02d", i)
		}
		data := remoteBytes(uint64(i), 3*fakeBlock)
		f.set(key, data)
		switch i % 3 {
		case 0:
			mustGet(t, n, b, key, data)
			awaitPresent(t, n, b, key, int64(len(data)))
			want[key] = engine.Whole
		case 1:
			if _, _, err := get(t, n, b, key, core.GetOptions{Range: &core.ByteRange{Start: 5, End: 9}}); err != nil {
				t.Fatal(err)
			}
			awaitPresent(t, n, b, key, fakeBlock)
			want[key] = engine.InPart
		default:
			want[key] = engine.NotPresent
		}
	}
	f.unset("d1/key01") // present in part only, and gone from the remote
	delete(want, "d1/key01")
	for _, max := range []int{3, 1000} {
		got := map[string]engine.Presence{}
		var keys []string
		for o := (core.RemoteListOptions{Max: max}); ; {
			p, err := n.ListRemote(t.Context(), b, o)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range p.Objects {
				got[e.Key] = e.Presence
				keys = append(keys, e.Key)
			}
			if o.After = p.Next; !p.More {
				break
			}
		}
		if !slices.IsSorted(keys) || len(keys) != len(want) {
			t.Errorf("%d keys: %v", len(keys), keys)
		}
		for k, p := range want {
			if got[k] != p {
				t.Errorf("%s: present %v, want %v", k, got[k], p)
			}
		}
	}
	p, err := n.ListRemote(t.Context(), b, core.RemoteListOptions{Delimiter: "/", Max: 1000})
	if err != nil || len(p.Prefixes) != 3 || len(p.Objects) != 10 {
		t.Errorf("with delimiter: %+v, %v", p, err)
	}
	for _, e := range p.Objects {
		if e.Presence != want[e.Key] {
			t.Errorf("with delimiter: %s: present %v, want %v", e.Key, e.Presence, want[e.Key])
		}
	}
	l, err := n.Objects().List(t.Context(), b, core.ListOptions{Delimiter: "/", After: "key", Max: 4})
	if err != nil || len(l.Objects) != 4 || !l.More || l.Objects[0].Key != "key00" || l.Objects[0].ETag != f.objects["key00"].ETag {
		t.Errorf("S3's listing: %+v, %v", l, err)
	}
	var cached []string
	n.ListAll(t.Context(), b, "", "", true, func(key string, rec *core.Record, err error) bool {
		if err != nil {
			t.Error(err)
		}
		cached = append(cached, key)
		return true
	})
	if len(cached) != 27 {
		t.Errorf("%d keys are present: %v", len(cached), cached)
	}
}

// shardsLeft counts the shards on all disks.
func (tc *testCluster) shardsLeft() (n int) {
	for _, dir := range tc.dirs {
		names, _ := filepath.Glob(filepath.Join(dir, "data", "[0-9a-f][0-9a-f]", "*"))
		n += len(names)
	}
	return n
}

// TestRemoteForgetBucket: a remote bucket goes with what is present of it, and
// the remote keeps everything.
func TestRemoteForgetBucket(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	n := tc.nodes[0]
	for i := range 5 {
		key, data := fmt.Sprint("key", i), remoteBytes(1, 3*fakeBlock)
		f.set(key, data)
		mustGet(t, n, b, key, data)
		awaitPresent(t, n, b, key, int64(len(data)))
	}
	if tc.shardsLeft() == 0 {
		t.Fatal("no shards")
	}
	if err := n.Objects().DeleteBucket(t.Context(), "remote"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Objects().Bucket(t.Context(), "remote"); !errors.Is(err, core.ErrNoSuchBucket) {
		t.Errorf("the bucket: %v", err)
	}
	if _, _, err := get(t, n, b, "key1", core.GetOptions{}); !errors.Is(err, core.ErrNoSuchBucket) {
		t.Errorf("a read: %v", err)
	}
	if f.count("delete", "put") > 0 || f.data("key1") == nil {
		t.Error("the remote was changed")
	}
	waitFor(t, "all shards to be deleted", func() error {
		if n := tc.shardsLeft(); n > 0 {
			return fmt.Errorf("%d are left", n)
		}
		return nil
	})
}

// TestRemoteRefused: a node that is not set up for remotes says so.
func TestRemoteRefused(t *testing.T) {
	tc, _, b := startRemote(t, 1, 1, func(o *engine.Options) { o.Remote = nil })
	_, _, err := get(t, tc.nodes[0], b, "key", core.GetOptions{})
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "s3://remote") {
		t.Errorf("got %v", err)
	}
}
