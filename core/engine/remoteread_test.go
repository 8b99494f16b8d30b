package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
)

// present returns the record of what is present, nil for nothing.
func present(t *testing.T, n *engine.Node, b core.Bucket, key string) *core.Record {
	t.Helper()
	row, err := n.Row(t.Context(), n.SlotOf(b.ID, key), core.RowKey{Bucket: b.ID, Key: key})
	if errors.Is(err, core.ErrNotFound) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	rec, err := core.DecodeRecord(row.Value)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// awaitPresent waits until so many bytes of an object are present.
func awaitPresent(t *testing.T, n *engine.Node, b core.Bucket, key string, want int64) {
	t.Helper()
	waitFor(t, fmt.Sprintf("%d bytes of %s to be present", want, key), func() error {
		rec := present(t, n, b, key)
		if rec == nil {
			return errors.New("there is no record")
		}
		if got := rec.StoredBytes(); got != want {
			return fmt.Errorf("%d of %d bytes are present", got, rec.Size)
		}
		return nil
	})
}

// ownerOf returns the node that owns a key's slot, and one that does not.
func (tc *testCluster) ownerOf(b core.Bucket, key string) (owner, other *engine.Node) {
	m := tc.nodes[0].Map()
	id := m.OwnerNode(tc.nodes[0].SlotOf(b.ID, key))
	for _, n := range tc.nodes {
		if n.ID() == id {
			owner = n
		} else {
			other = n
		}
	}
	return owner, other
}

// TestRemoteCold reads objects of all sizes through the owner and through
// another node, and then again from the cluster alone.
func TestRemoteCold(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	for i, size := range []int{0, 1, 1000, 1024, 5000, 8 << 10, 8<<10 + 1, fakeBlock, fakeBlock + 1, 10*fakeBlock - 7, 33 * fakeBlock} {
		key := fmt.Sprint("key", i)
		want := remoteBytes(uint64(i), size)
		f.set(key, want, func(o *core.RemoteObject) {
			o.Headers = map[string]string{"Content-Type": "text/plain"}
			o.Meta = map[string]string{"a": "b"}
		})
		owner, other := tc.ownerOf(b, key)
		f.reset()
		obj := mustGet(t, other, b, key, want)
		blocks := max(1, (size+fakeBlock-1)/fakeBlock)
		if n := f.count("get"); n != blocks || f.count() > blocks+1 {
			t.Errorf("%d bytes took %d GETs and %d requests in all, want %d GETs", size, n, f.count(), blocks)
		}
		if obj.Size != int64(size) || obj.ETag != f.objects[key].ETag || obj.Headers["Content-Type"] != "text/plain" || obj.Meta["a"] != "b" || !obj.Modified.Equal(f.objects[key].Modified) {
			t.Errorf("object %+v", obj.ObjectInfo)
		}
		awaitPresent(t, owner, b, key, int64(size))
		rec := present(t, owner, b, key)
		if rec.Remote == nil || rec.Remote.Version != f.objects[key].Version || !rec.Whole() || (rec.Inline != nil) != (size <= 2<<10) || (len(rec.Extents) > 0) != (size > 8<<10) {
			t.Errorf("%d bytes: record %+v", size, rec)
		}
		f.reset()
		mustGet(t, owner, b, key, want)
		mustGet(t, other, b, key, want)
		if n := f.count(); n != 0 {
			t.Errorf("%d requests for what is present", n)
		}
	}
	if _, _, err := get(t, tc.nodes[0], b, "none", core.GetOptions{}); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}

// TestRemoteShared has many readers of all nodes read one object at once: each
// block comes once.
func TestRemoteShared(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	want := remoteBytes(1, 40*fakeBlock)
	f.set("key", want)
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			obj, err := tc.nodes[i%3].Objects().Get(t.Context(), b, "key", core.GetOptions{})
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = obj.Body.Close() }()
			if got, err := io.ReadAll(obj.Body); err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	if n := f.count("get"); n != 40 {
		t.Errorf("%d GETs for 40 blocks", n)
	}
}

// TestRemoteOneCall: what is small and cold comes from another node by one call, and
// from one of an older version by those that it knows.
func TestRemoteOneCall(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	for _, older := range []bool{false, true} {
		key := fmt.Sprint("older ", older)
		want := remoteBytes(1, fakeBlock/128)
		f.set(key, want)
		_, other := tc.ownerOf(b, key)
		var mu sync.Mutex
		var calls []uint16
		tc.net.mu.Lock()
		tc.net.onCall = func(from core.NodeID, method uint16) {
			mu.Lock()
			defer mu.Unlock()
			if from == other.ID() && engine.Reads(method) {
				calls = append(calls, method)
			}
		}
		if older {
			tc.net.unknown = engine.MethodRemoteOpen
		}
		tc.net.mu.Unlock()
		obj, err := other.Objects().Get(t.Context(), b, key, core.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(obj.Body)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		_ = obj.Body.Close()
		mu.Lock()
		// Repeated, while the cluster begins.
		if others := slices.ContainsFunc(calls, func(m uint16) bool { return m != engine.MethodRemoteOpen }); len(calls) == 0 || others != older {
			t.Errorf("older %v: calls %d", older, calls)
		}
		mu.Unlock()
	}
	if n := f.count(); n != 2 {
		t.Errorf("%d requests for two objects", n)
	}
}

// TestRemoteFirstByte: a reader has the first bytes while most of the first block
// has not come.
func TestRemoteFirstByte(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	want := remoteBytes(1, 3*fakeBlock)
	f.set("key", want)
	gate := f.gate()
	_, other := tc.ownerOf(b, "key")
	obj, err := other.Objects().Get(t.Context(), b, "key", core.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = obj.Body.Close() }()
	got := make([]byte, 100)
	if _, err := io.ReadFull(obj.Body, got); err != nil || !bytes.Equal(got, want[:100]) {
		t.Fatalf("first bytes: %v", err)
	}
	close(gate)
	rest, err := io.ReadAll(obj.Body)
	if err != nil || !bytes.Equal(rest, want[100:]) {
		t.Errorf("the rest: %d bytes, %v", len(rest), err)
	}
}

// TestRemoteRanges reads ranges of a cold object: only their blocks are fetched,
// and remembered.
func TestRemoteRanges(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	const size = 50*fakeBlock + 11
	want := remoteBytes(1, size)
	f.set("key", want)
	owner, other := tc.ownerOf(b, "key")
	for _, x := range []struct {
		r      core.ByteRange
		blocks int // that come now
		stored int64
	}{
		{core.ByteRange{Start: 10*fakeBlock + 5, End: 10*fakeBlock + 1004}, 1, fakeBlock},
		{core.ByteRange{Start: 10*fakeBlock + 5, End: 10*fakeBlock + 1004}, 0, fakeBlock},
		{core.ByteRange{Start: 9*fakeBlock + 5, End: 12*fakeBlock - 1}, 2, 3 * fakeBlock},
		{core.ByteRange{Start: 20*fakeBlock - 1, End: 20 * fakeBlock}, 2, 5 * fakeBlock},
		{core.ByteRange{Start: 50*fakeBlock + 1, End: -1}, 1, 5*fakeBlock + 11},
		{core.ByteRange{Start: -1, End: 5}, 0, 5*fakeBlock + 11},
		{core.ByteRange{Start: 0, End: -1}, 45, size},
	} {
		f.reset()
		data, obj, err := get(t, other, b, "key", core.GetOptions{Range: &x.r})
		if err != nil {
			t.Fatalf("%+v: %v", x.r, err)
		}
		start, length, _ := x.r.Resolve(size)
		if !bytes.Equal(data, want[start:start+length]) || obj.Start != start || obj.Length != length || obj.Size != size {
			t.Errorf("%+v: %d bytes at %d, size %d", x.r, len(data), obj.Start, obj.Size)
		}
		if n := f.count(); n != x.blocks {
			t.Errorf("%+v: %d requests, want %d: %v", x.r, n, x.blocks, f.gets)
		}
		awaitPresent(t, owner, b, "key", x.stored)
	}
	f.reset()
	mustGet(t, other, b, "key", want)
	if n := f.count(); n != 0 {
		t.Errorf("%d requests for what is present", n)
	}
	if rec := present(t, owner, b, "key"); rec.Remote.Partial || len(rec.Remote.Runs) > 0 {
		t.Errorf("record %+v", rec.Remote)
	}
}

// TestRemoteRangeBegins: a reader of a range deep in a block does not wait for the
// bytes before it, which come by a second request; one of a range across the end of a block
// costs no third.
func TestRemoteRangeBegins(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	const size = 6 * fakeBlock
	want := remoteBytes(1, size)
	f.set("key", want)
	gate := make(chan int)
	release := sync.OnceFunc(func() { close(gate) })
	defer release()
	f.replaceBodies(func(_ string, g core.RemoteGet, _ *core.RemoteObject, body []byte) io.ReadCloser {
		if g.Offset == fakeBlock {
			return newGatedBody(body, gate)
		}
		return nil
	})
	owner, other := tc.ownerOf(b, "key")
	read := func(from, to int64) {
		t.Helper()
		data, _, err := get(t, other, b, "key", core.GetOptions{Range: &core.ByteRange{Start: from, End: to - 1}})
		if err != nil || !bytes.Equal(data, want[from:to]) {
			t.Errorf("bytes %d to %d: got %d, %v", from, to, len(data), err)
		}
	}
	read(2*fakeBlock-fakeBlock/4, 2*fakeBlock)
	read(2*fakeBlock-fakeBlock/8, 2*fakeBlock)
	done := make(chan struct{})
	go func() {
		defer close(done)
		read(fakeBlock+1, 2*fakeBlock-1)
	}()
	release()
	<-done
	awaitPresent(t, owner, b, "key", fakeBlock)
	if n := f.count("get"); n != 2 {
		t.Errorf("%d GETs for one block: %v", n, f.gets)
	}
	f.reset()
	read(4*fakeBlock-fakeBlock/4, 4*fakeBlock+fakeBlock/4)
	awaitPresent(t, owner, b, "key", 3*fakeBlock)
	if n := f.count("get"); n != 2 {
		t.Errorf("%d GETs for a range across two blocks: %v", n, f.gets)
	}
	mustGet(t, other, b, "key", want)
}

// TestRemoteTail: who asks for the end of an object only does not wait for one who
// reads it whole, and whose last bytes are held back until it is verified.
func TestRemoteTail(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	const size = 6 * fakeBlock
	want := remoteBytes(1, size)
	f.set("key", want)
	gate := f.gate()
	release := sync.OnceFunc(func() { close(gate) })
	defer release()
	_, other := tc.ownerOf(b, "key")
	whole, err := other.Objects().Get(t.Context(), b, "key", core.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = whole.Body.Close() }()
	tail, _, err := get(t, other, b, "key", core.GetOptions{Range: &core.ByteRange{Start: size - 100, End: size - 1}})
	if err != nil || !bytes.Equal(tail, want[size-100:]) {
		t.Errorf("the tail: got %d bytes, %v", len(tail), err)
	}
	release()
	if got, err := io.ReadAll(whole.Body); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the whole: got %d bytes, %v", len(got), err)
	}
}

// TestRemoteRangeOfNothing asks for ranges that are not there, and for suffixes.
func TestRemoteRangeOfNothing(t *testing.T) {
	tc, f, b := startRemote(t, 1, 1)
	f.set("empty", nil)
	f.set("small", []byte("0123456789"))
	for _, x := range []struct {
		key  string
		r    core.ByteRange
		want string
		err  error
	}{
		{"empty", core.ByteRange{Start: 0, End: 4}, "", core.ErrRange},
		{"small", core.ByteRange{Start: 10, End: -1}, "", core.ErrRange},
		{"small", core.ByteRange{Start: 3 * fakeBlock, End: -1}, "", core.ErrRange},
		{"small", core.ByteRange{Start: -1, End: 3}, "789", nil},
		{"small", core.ByteRange{Start: 2, End: 100}, "23456789", nil},
	} {
		data, obj, err := get(t, tc.nodes[0], b, x.key, core.GetOptions{Range: &x.r})
		if !errors.Is(err, x.err) || string(data) != x.want {
			t.Errorf("%s %+v: got %q, %v", x.key, x.r, data, err)
		}
		if obj == nil || obj.Size != int64(len(f.data(x.key))) {
			t.Errorf("%s %+v: the object is not described: %+v", x.key, x.r, obj)
		}
		if _, err := tc.nodes[0].Evict(t.Context(), b, x.key, core.Version{}, false); err != nil && !errors.Is(err, core.ErrNotFound) {
			t.Error(err)
		}
	}
}

// TestRemoteReaderLeaves keeps whole blocks of what a reader did not wait for.
func TestRemoteReaderLeaves(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	want := remoteBytes(1, 100*fakeBlock)
	f.set("key", want)
	owner, other := tc.ownerOf(b, "key")
	ctx, cancel := context.WithCancel(t.Context())
	obj, err := other.Objects().Get(ctx, b, "key", core.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(obj.Body, make([]byte, fakeBlock/2)); err != nil {
		t.Fatal(err)
	}
	cancel()
	_ = obj.Body.Close()
	var rec *core.Record
	waitFor(t, "what was fetched to be kept", func() error {
		if rec = present(t, owner, b, "key"); rec == nil {
			return errors.New("there is no record")
		}
		return nil
	})
	if n := f.count("get"); n > 10 || rec.StoredBytes()%fakeBlock != 0 || rec.StoredBytes() == 0 {
		t.Errorf("%d GETs, %d bytes kept", n, rec.StoredBytes())
	}
	f.reset()
	mustGet(t, other, b, "key", want)
	if n := int64(f.count("get")); n > 100-rec.StoredBytes()/fakeBlock {
		t.Errorf("%d GETs, though %d blocks were present", n, rec.StoredBytes()/fakeBlock)
	}
}

// TestRemoteSlowReader reads slowly what a small memory cannot hold.
func TestRemoteSlowReader(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1, func(o *engine.Options) { o.RemoteMemory = 4 * fakeBlock })
	want := remoteBytes(1, 64*fakeBlock)
	f.set("key", want)
	owner, other := tc.ownerOf(b, "key")
	obj, err := other.Objects().Get(t.Context(), b, "key", core.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = obj.Body.Close() }()
	mustGet(t, owner, b, "key", want)
	awaitPresent(t, owner, b, "key", int64(len(want)))
	got, err := io.ReadAll(obj.Body)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the slow reader got %d bytes, %v", len(got), err)
	}
	if n := f.count("get"); n > 66 {
		t.Errorf("%d GETs for 64 blocks", n)
	}
}

// TestRemoteMemory reads many objects at once within little memory.
func TestRemoteMemory(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1, func(o *engine.Options) { o.RemoteMemory = 3 * fakeBlock })
	var wg sync.WaitGroup
	for i := range 12 {
		key, want := fmt.Sprint("key", i), remoteBytes(uint64(i), 20*fakeBlock+i)
		f.set(key, want)
		for j := range 2 {
			wg.Go(func() {
				obj, err := tc.nodes[(i+j)%3].Objects().Get(t.Context(), b, key, core.GetOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				defer func() { _ = obj.Body.Close() }()
				if got, err := io.ReadAll(obj.Body); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: got %d bytes, %v", key, len(got), err)
				}
			})
		}
	}
	wg.Wait()
}
